"""What the person at the terminal sees: errors, warnings, the progress bar, the verdict on every frame.

All of it goes to stderr; stdout is kept for the names of the files written.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from .errors import HdrmergeError

if TYPE_CHECKING:
    from .pipeline import Progress, Report

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def say(line: str) -> None:
    """Print a line of our own on stderr."""
    print(f"hdrmerge: {line}", file=sys.stderr)


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


@contextmanager
def show_progress(wanted: bool) -> Iterator[Progress]:
    """Show a bar on stderr while the stages run; nothing where stderr is no terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda stage, share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    # What each stage is of the whole, measured on an 18-megapixel bracket.
    parts = {"read": 0.2, "align": 0.2, "deghost": 0.1, "merge": 0.25, "write": 0.25}
    starts = dict(zip(parts, accumulate(parts.values(), initial=0.0), strict=False))
    columns = TextColumn("{task.description:8}"), BarColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("read", total=1.0)

        def show(stage: str, share: float) -> None:
            bar.update(task, description=stage, completed=starts[stage] + parts[stage] * share)

        yield show


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
    seconds = "  ".join(f"{stage} {value:.2f} s" for stage, value in report.seconds.items())
    console.print(
        f"clipped in every frame: {report.clipped_share:.2%}   {seconds}", highlight=False, soft_wrap=True
    )
