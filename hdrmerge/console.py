"""What the person at the terminal sees: errors, warnings, the progress bar, the verdict on every frame.

All of it goes to stderr; stdout is kept for the names of the files written.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from .errors import HdrmergeError, OutputError

if TYPE_CHECKING:
    from .batch import Outcome
    from .journal import ReportFile
    from .pipeline import Progress, Report

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def say(line: str) -> None:
    """Print a line of our own on stderr."""
    print(f"hdrmerge: {line}", file=sys.stderr)


def count(number: int, noun: str) -> str:
    """Return "1 set" or "2 sets"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_name(line: str) -> None:
    """Print a line on stdout at once; where nobody reads any more, the work goes on without."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class Group(TyperGroup):
    """Turns the errors raised on purpose into one line and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HdrmergeError as error:
            say(" ".join(str(error).splitlines()))
            raise typer.Exit(EXIT_FAILED) from None
        except KeyboardInterrupt:
            say("interrupted, nothing half-written is left")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except MemoryError:
            say("not enough memory for frames of this size; close programs")
            raise typer.Exit(EXIT_FAILED) from None


def claim_streams() -> None:
    """Keep stderr for our own lines, and let stdout hold any file name.

    LibRaw, libpng and libtiff print what they find wrong by themselves, past Python; here it becomes
    part of the error. They get the null device for their stderr, and Python a copy of the real one.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    warnings.filterwarnings("ignore", module="PIL")
    stream = sys.stderr
    if stream is not sys.__stderr__ or stream is None:
        return
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=stream.encoding, errors=stream.errors)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


# What each stage of a merge is of the whole, measured on an 18-megapixel bracket.
MERGE_PARTS = {"read": 0.1, "align": 0.05, "calibrate": 0.05, "deghost": 0.45, "merge": 0.2, "write": 0.15}
# The same where a network paints, on 6 megapixels: a twentieth of them, and everywhere.
PAINTED_PARTS = {
    "read": 0.04,
    "align": 0.04,
    "calibrate": 0.06,
    "deghost": 0.33,
    "merge": 0.06,
    "fuse": 0.4,
    "write": 0.07,
}
EVERYWHERE_PARTS = {
    "read": 0.014,
    "align": 0.014,
    "calibrate": 0.02,
    "deghost": 0.11,
    "merge": 0.022,
    "fuse": 0.79,
    "write": 0.03,
}


def parts_of(painting: bool, everywhere: bool) -> Mapping[str, float]:
    """Return what each stage of a merge is of the whole."""
    if not painting:
        return MERGE_PARTS
    return EVERYWHERE_PARTS if everywhere else PAINTED_PARTS


TOLD = 0.02  # of a stage: with this much of it done its own pace is known


class Forecast:
    """Tells how long is left, from the pace of the stage at hand and what the others are of the whole.

    How long a network takes to paint depends on the picture; within a stage, work is even. So the rest of
    a stage is told from itself, and later ones from the pace of those that are over.
    """

    def __init__(self, parts: Mapping[str, float], now: Callable[[], float] = time.monotonic) -> None:
        self._parts, self._now = parts, now
        self._stage, self._began = "", 0.0
        self._spent: dict[str, float] = {}

    def left(self, stage: str, share: float) -> float | None:
        """Return the seconds left when a ``share`` of a stage is done; None where nothing tells."""
        now = self._now()
        if stage != self._stage:
            if self._stage:
                self._spent[self._stage] = now - self._began
            self._stage, self._began = stage, now
        spent, part = now - self._began, self._parts[stage]
        over = sum(self._parts[name] for name in self._spent)
        if over + share <= 0:
            return None
        pace = sum(self._spent.values()) / over if over else spent / (share * part)
        rest = spent * (1 - share) / share if share >= TOLD else pace * part * (1 - share)
        names = list(self._parts)
        return rest + pace * sum(self._parts[name] for name in names[names.index(stage) + 1 :])


def duration(seconds: float | None) -> str:
    """Return a time as a bar shows it.

    >>> duration(3725.4), duration(None)
    ('1:02:05', '-:--:--')
    """
    if seconds is None:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def show_progress(wanted: bool, parts: Mapping[str, float] = MERGE_PARTS) -> Iterator[Progress]:
    """Show a bar on stderr while the stages run; nothing where stderr is no terminal.

    ``parts`` is what each stage is of the whole, in order.
    """
    if not (wanted and sys.stderr.isatty()):
        yield lambda stage, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    starts, forecast = _starts(parts), Forecast(parts)
    columns = TextColumn("{task.description:8}"), BarColumn(), TextColumn("[cyan]{task.fields[left]}")
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(next(iter(parts)), total=1.0, left=duration(None))

        def show(stage: str, share: float) -> None:
            bar.update(
                task,
                description=stage,
                completed=starts[stage] + parts[stage] * share,
                left=duration(forecast.left(stage, share)),
            )

        yield show


def _starts(parts: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(parts, accumulate(parts.values(), initial=0.0), strict=False))


class BatchBar:
    """Which set of how many, what is done to it, and the share of all that is done."""

    def __init__(self, total: int, bar: Any = None, parts: Mapping[str, float] = MERGE_PARTS) -> None:
        self._total, self._ended = total, 0
        self._shares: dict[str, float] = {}
        self._parts, self._starts = parts, _starts(parts)
        self._bar = bar
        self._row = bar.add_task("", total=total) if bar else None

    def show(self, name: str, stage: str, share: float) -> None:
        """Show what is done to a set; called from several threads."""
        self._shares[name] = self._starts[stage] + self._parts[stage] * share
        self._update(f"{stage} {name}")

    def end(self, name: str) -> None:
        """Count a set whose work is over."""
        self._shares.pop(name, None)
        self._ended += 1
        self._update("")

    def _update(self, text: str) -> None:
        if self._bar is None:
            return
        from rich.markup import escape

        done = self._ended + sum(list(self._shares.values()))
        number = min(self._ended + 1, self._total)
        self._bar.update(self._row, description=f"set {number}/{self._total} {escape(text)}", completed=done)


@contextmanager
def show_batch(total: int, wanted: bool, parts: Mapping[str, float] = MERGE_PARTS) -> Iterator[BatchBar]:
    """Show one bar for all sets on stderr; nothing where stderr is no terminal.

    Lines printed meanwhile appear above it; names for a pipe go there untouched.
    """
    if not (wanted and sys.stderr.isatty()):
        yield BatchBar(total, parts=parts)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}")
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        yield BatchBar(total, bar, parts)


def print_verdicts(report: Report) -> None:
    """Print a table on stderr: exposure, alignment and ghosts of every frame."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("frame", "EV", "aligned", "inliers", "residual", "ghosts"):
        table.add_column(column, justify="left" if column in ("frame", "aligned") else "right")
    for i, frame in enumerate(report.to_json()["frames"]):
        alignment = frame["alignment"]
        residual = alignment["residual_px"]
        table.add_row(
            escape(Path(frame["file"]).name),
            f"{frame['relative_ev']:+.2f}",
            "reference" if i == report.reference else alignment["model"] if frame["used"] else "left out",
            "" if i == report.reference else str(alignment["inliers"]),
            "" if residual is None else f"{residual:.2f} px",
            "" if i == report.reference else f"{frame['ghost_share']:.1%}",
        )
    console = Console(stderr=True)
    console.print(table)
    told = report.response
    if "verdict" in told:
        after = told["disagreement_after_ev"]
        rest = "" if after is None else f", frames disagree by {after:.2f} EV"
        console.print(
            f"response curve: {told['name']} ({told['verdict']}){rest}", highlight=False, soft_wrap=True
        )
    seconds = "  ".join(f"{stage} {value:.2f} s" for stage, value in report.seconds.items())
    if report.painted:
        seen = ", ".join(report.shots[k].path.name for k in report.painted.frames)
        console.print(
            f"painted: {report.painted.share:.2%}, from {seen}, up to radiance {report.painted.limit:.4g}",
            highlight=False,
            soft_wrap=True,
            markup=False,
        )
    console.print(
        f"clipped in every frame: {report.clipped_share:.2%}   {seconds}", highlight=False, soft_wrap=True
    )


@dataclass
class BatchTeller:
    """Tells what became of each set: names on stdout, the rest on stderr and in the report."""

    to_stdout: bool
    verbose: bool
    quiet: bool
    report: ReportFile | None = None
    counts: Counter[str] = field(default_factory=Counter)
    report_failed: bool = False
    faults: int = 0
    has_waited: bool = False

    def tell(self, outcome: Outcome) -> None:
        name = outcome.task.name
        self.counts[outcome.status] += 1
        if outcome.error:
            say(f"{name} failed: {outcome.error}")
            self._trace(outcome.trace)
        if outcome.status == "merged" and not self.quiet:
            if not outcome.task.sure:
                say(f"{name}: warning: may be no bracket: {outcome.task.why}")
            for doubt in outcome.values["warnings"]:
                say(f"{name}: warning: {doubt}")
            if self.verbose and outcome.report:
                say(f"{name}: {outcome.task.why}")
                print_verdicts(outcome.report)
        if self.to_stdout:
            print_name(json.dumps(outcome.values))
        elif outcome.status == "merged":
            self.names(outcome.task.outputs)
        if self.report and not self.report_failed:
            try:
                self.report.add(outcome.values)
            except OutputError as error:  # the merges are worth more than the report
                self.report_failed = True
                say(str(error))

    def waits(self, name: str, at_work: int) -> None:
        """Tell, the first time, that memory allows fewer sets at a time than were asked for."""
        if not (self.quiet or self.has_waited):
            say(f"{name} waits: free memory is short beside {count(at_work, 'set')}, fewer than -j says")
        self.has_waited = True

    def fault(self, line: str, trace: str) -> None:
        """Tell of an error that nobody foresaw and that is no set's."""
        self.faults += 1
        say(f"{' '.join(line.split())}; a fault of this program, -v shows where")
        self._trace(trace)

    def _trace(self, trace: str) -> None:
        if trace and self.verbose:
            say(trace)

    def names(self, paths: Sequence[Path]) -> None:
        """Print the names of files written."""
        if not (self.quiet or self.to_stdout):
            for path in paths:
                print_name(str(path))

    @property
    def failed(self) -> bool:
        return bool(self.counts["failed"] or self.faults or self.report_failed)

    def sum_up(self, left_out: int) -> None:
        """Say in one line how many sets ended how."""
        if self.quiet and not self.failed:
            return
        done = ["merged", *(status for status in ("skipped", "failed") if self.counts[status])]
        parts = [f"{self.counts[status]} {status}" for status in done]
        if left_out:
            parts.append(f"{count(left_out, 'photograph')} left out (hdrmerge inspect tells why)")
        say(", ".join(parts))
