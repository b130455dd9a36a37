"""The sets of a worklist, merged one after the other or several at a time, whatever befalls one of them.

    load the next | merge this | write the last -> an `Outcome` each, noted in the journal

What can be known without pixels (finished sets, files in the way, unreadable photographs) is
decided before a set is loaded.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any, Literal

import numpy as np

from . import __version__
from .errors import HdrmergeError, OutputError
from .exposure import Response
from .fileformat import unreadable
from .journal import Journal, Origin
from .pipeline import DEFAULT_NETWORK, Loaded, MergeOptions, Report, load_bracket, merge_loaded, write_outputs
from .pipeline import Progress as StageProgress
from .proxy import block_of
from .worklist import Task
from .write import check_target

Progress = Callable[[str, str, float], None]
"""Called with the name of a set, the stage it is in, and the share [0, 1] of that which is done."""

Status = Literal["merged", "skipped", "failed"]


@dataclass(frozen=True)
class Recipe:
    """How all sets of a batch are merged and written.

    ``curves`` are the response curves that sets of one camera share, by `Task.name`, each with
    what identifies it.
    """

    options: MergeOptions
    compression: str = "zip"
    float32: bool = False
    operator: str = "durand2002"
    curves: Mapping[str, tuple[Response, str]] = field(default_factory=dict)

    def options_of(self, task: Task) -> MergeOptions:
        curve = self.curves.get(task.name)
        return replace(self.options, response=curve[0]) if curve else self.options

    def settings_of(self, task: Task) -> dict[str, str]:
        """Return all that has a say in the bytes of the outputs, by name of the option."""
        options = replace(self.options, network=self.options.network or DEFAULT_NETWORK)
        said = {field.name: _said(getattr(options, field.name)) for field in fields(options)}
        if task.name in self.curves:
            said["response"] = self.curves[task.name][1]
        return said | {
            "format": " ".join(path.suffix for path in task.outputs),
            "compression": self.compression,
            "float": _said(self.float32),
            "operator": self.operator,
        }

    def curve_settings(self) -> dict[str, str]:
        """Return what has a say in the response curve of a camera."""
        judging = {"deghost", "network", "device", "precision", "everywhere"}
        names = {field.name for field in fields(self.options)} - judging - {"anchor", "response"}
        return {name: _said(getattr(self.options, name)) for name in sorted(names)}


@dataclass(frozen=True)
class Outcome:
    """What became of a set: ``values`` are its line of the report."""

    task: Task
    status: Status
    values: Mapping[str, Any]
    report: Report | None = None
    error: str = ""
    trace: str = ""  # of an error that nobody foresaw


class _Stopped(Exception):
    """Ends the work in a thread when the batch has been given up."""


class Batch:
    """A worklist with its recipe and the journal of the folder it is written to.

    ``photographs`` are kept whatever ``force`` says, which replaces other files in the way.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        recipe: Recipe,
        journal: Journal,
        photographs: Iterable[Path] = (),
        force: bool = False,
    ) -> None:
        self.tasks = tasks
        self.recipe = recipe
        self.journal = journal
        self._force = force
        self._stop = Event()
        self._photographs = photographs
        self._real: set[str] | None = None

    def origin_of(self, task: Task) -> Origin | None:
        """Return what a set is to be made of, None where that is done already.

        Raises an `HdrmergeError` where it is known beforehand that the set cannot be merged or written.
        """
        task.refuse_unreadable()
        try:
            origin = Origin.of(task.inputs, self.recipe.settings_of(task))
        except OSError as error:
            raise unreadable(Path(error.filename), error) from None
        if self.journal.finished(task.name, origin, task.outputs, self._force):
            return None
        for output in task.outputs:
            check_target(output, (output.suffix,), force=True)
            if output.exists() and self.is_photograph(output):
                raise OutputError(
                    f"{output}: the output would replace a photograph; choose another folder with -o"
                )
        return origin

    def finished(self) -> set[str]:
        """Return the names of the sets that are done already."""
        found = set()
        for task in self.tasks:
            with suppress(HdrmergeError):
                if self.origin_of(task) is None:
                    found.add(task.name)
        return found

    def run(
        self,
        jobs: int = 1,
        memory: float | None = None,
        progress: Progress | None = None,
        waits: Callable[[str, int], None] | None = None,
        judging: bool = False,
        painting: bool = False,
    ) -> Generator[Outcome]:
        """Merge and write the sets, ``jobs`` at a time; yield what became of each as it ends.

        Meanwhile the next one is decoded. Together they take no more than ``memory`` [bytes], but for
        a set that takes more by itself; ``waits`` is called with the name of a set for which there is
        no room and the number of those at work; ``judging`` and ``painting`` say what networks do. Nothing
        that happens to one set ends the others. A caller that stops asking has to close the iterator, which
        waits for threads to give up.
        """
        pending: dict[Future[Outcome], float] = {}
        with ThreadPoolExecutor(1) as loader, ThreadPoolExecutor(jobs) as mergers:
            try:
                for task in self.tasks:
                    try:
                        origin = self.origin_of(task)
                    except HdrmergeError as error:
                        yield _failed(task, error)
                        continue
                    if origin is None:
                        report = self.journal.entries[task.name].report
                        yield Outcome(task, "skipped", {**report, "status": "skipped"})
                        continue
                    merging, waiting = memory_of(task, judging, painting)
                    while len(pending) > jobs or not _fits(
                        pending, merging if len(pending) < jobs else waiting, memory
                    ):
                        if waits and len(pending) < jobs:
                            waits(task.name, len(pending))
                        yield from _ended(pending)
                    tell = self._teller(task, progress)
                    # No name for what is being loaded: it would keep the pixels of the set alive.
                    future = mergers.submit(
                        self._finish, task, origin, tell, loader.submit(self._load, task, tell)
                    )
                    pending[future] = merging
                while pending:
                    yield from _ended(pending)
            finally:
                self._stop.set()
                for future in pending:
                    future.cancel()

    def _load(self, task: Task, tell: StageProgress) -> list[Loaded]:
        """Decode a set, in a list out of which the merge takes it: its memory is to be freed then."""
        return [load_bracket(task.inputs, self.recipe.options_of(task), tell)]

    def _finish(
        self, task: Task, origin: Origin, tell: StageProgress, loading: Future[list[Loaded]]
    ) -> Outcome:
        try:
            loaded = loading.result()
            return self._merge(task, origin, loaded, tell)
        except Exception as error:  # the other sets go on; what nobody foresaw keeps its trace
            return _failed(task, error)

    def _merge(self, task: Task, origin: Origin, loaded: list[Loaded], tell: StageProgress) -> Outcome:
        recipe, target, *pictures = self.recipe, *task.outputs
        radiance, report = merge_loaded(loaded.pop(), recipe.options_of(task), tell)
        tell("write", 0.0)
        self.journal.begin(task.name, origin, task.outputs)
        losses = write_outputs(
            radiance,
            target,
            pictures[0] if pictures else None,
            operator=recipe.operator,
            compression=recipe.compression,
            float32=recipe.float32,
            force=True,
        )
        found = report.to_json()
        values = {
            **line(task, "merged"),
            "exposures": " ".join(dict.fromkeys(frame["exposure_source"] for frame in found["frames"])),
            **found,
            "outputs": [str(path) for path in task.outputs],
            "warnings": [*report.warnings, *losses],
        }
        self.journal.end(task.name, origin, task.outputs, values)
        return Outcome(task, "merged", values, report)

    def _teller(self, task: Task, progress: Progress | None) -> StageProgress:
        """Return what the stages call, which also ends them when the batch is given up."""

        def tell(stage: str, share: float) -> None:
            if self._stop.is_set():
                raise _Stopped
            if progress:
                progress(task.name, stage, share)

        return tell

    def is_photograph(self, path: Path) -> bool:
        """Tell whether a path leads to one of the photographs."""
        if self._real is None:
            self._real = {os.path.realpath(photograph) for photograph in self._photographs}
        return os.path.realpath(path) in self._real


def _ended(pending: dict[Future[Outcome], float]) -> Iterator[Outcome]:
    """Wait for one of the sets at work or more, and yield what became of them."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        del pending[future]
        yield future.result()


def line(task: Task, status: str) -> dict[str, Any]:
    """Return how the report's object of a set begins."""
    inputs = [str(path) for path in task.inputs]
    return {
        "name": task.name,
        "status": status,
        "hdrmerge": __version__,
        "inputs": inputs,
        "why": task.why,
        "sure": task.sure,
    }


def _failed(task: Task, error: Exception) -> Outcome:
    trace = ""
    if isinstance(error, HdrmergeError):
        reason = str(error)
    elif isinstance(error, MemoryError):
        reason = "not enough memory for frames of this size; close programs, or give -j 1"
    elif isinstance(error, OSError):
        reason = f"{error.filename or task.inputs[0]}: {error.strerror or error}; run the batch again"
    else:
        reason = f"{type(error).__name__}: {error}; a fault of this program, -v shows where"
        trace = "".join(traceback.format_exception(error))
    reason = " ".join(reason.split())
    return Outcome(task, "failed", {**line(task, "failed"), "error": reason}, None, reason, trace)


def _said(value: object) -> str:
    """Return a setting as text: equal texts for equal settings, in every run."""
    if isinstance(value, Response):
        parts = [getattr(value, field.name) for field in fields(value) if field.compare]
        told = b"".join(p.tobytes() if isinstance(p, np.ndarray) else repr(p).encode() for p in parts)
        return f"{value.name} {sha256(told).hexdigest()[:12]}"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


# --- memory ---------------------------------------------------------------------------------------

# Measured, whole processes: 6 MP x 3 JPEGs 0.47 GB, 24 x 2 0.69, 24 x 3 0.77 (as DNG 0.73), 24 x 5 0.97,
# 54 x 3 1.33; 18 x 3 0.70, decoding the next 0.96, two at a time 1.16, and decoding the next 1.42.
# With a network 18 x 3 1.05, 18 x 9 2.49, 100 x 3 2.49; with one that paints, of width 32, 6 x 3 at most
# 1.07, 6 x 9 1.16.
PROCESS = 0.3e9  # [bytes]
PER_PIXEL = 25.0  # [bytes], of the result while it is written and rendered
PER_CODE = 6.5  # [bytes], of each frame while it is merged
PER_WAITING_CODE = 4.5  # [bytes], of each frame that is decoded and waits
PER_JUDGED_CODE = 3.0  # [bytes], of each frame while a network judges it
PER_PROXY_PIXEL = 180.0  # [bytes], of each frame at the same time
PAINTING = 0.7e9  # [bytes], of a network that paints and the windows it sees


def memory_of(task: Task, by_network: bool = False, painting: bool = False) -> tuple[float, float]:
    """Return how many bytes a set takes at most while it is merged, and while it waits for that."""
    pixels = max((shot.width * shot.height for shot in task.shots), default=0)
    frames = len(task.shots)
    merging = pixels * max(PER_PIXEL, PER_CODE * frames)
    if by_network:
        judging = pixels * PER_JUDGED_CODE + pixels / block_of(pixels) ** 2 * PER_PROXY_PIXEL
        merging = max(merging, judging * frames)
    if painting:  # over a merge of which a copy is kept
        merging = max(merging, pixels * (PER_CODE * frames + 12) + PAINTING)
    return merging, pixels * PER_WAITING_CODE * frames


def _fits(pending: Mapping[Future[Outcome], float], need: float, memory: float | None) -> bool:
    """Tell whether there is room for one more; there is for a single one in any case."""
    return not pending or memory is None or PROCESS + sum(pending.values()) + need <= memory


def available_memory() -> float | None:
    """Return how many bytes may still be taken, by the system and by the container; None if unknown."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(float(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = Path("/sys/fs/cgroup/memory.current").read_text()
            reclaimable = dict(
                line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
            )
            found.append(float(limit) - float(used) + float(reclaimable.get("inactive_file", 0)))
    except (OSError, ValueError, IndexError):
        pass
    if not found and hasattr(os, "sysconf") and "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")))
    return min(found, default=None)
