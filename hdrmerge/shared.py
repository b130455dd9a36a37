"""What the sets of a batch share: one response curve for each camera, one scale for the folder.

Both are chosen once and noted in the journal, so that a run that goes on where another was killed,
or that meets photographs added since, goes on with the same.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median_low

from .bracket import Shot
from .errors import ExposureError, HdrmergeError, OutputError
from .exposure import Response
from .form import form_bracket
from .journal import Journal, Origin
from .response import load, save
from .roll import camera_name, is_raw
from .worklist import Task

SETS = 6
"""Sets of a camera from which its curve is found; more take longer and change it little."""

ANCHOR = "anchor: shared"
"""What the journal calls the scale; a set's name holds no colon followed by a blank."""

Curves = dict[str, tuple[Response, str]]
"""By `Task.name`: the curve, and what identifies it."""

Find = Callable[[Sequence[Sequence[Path]]], Response | None]


def sharing(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Return the sets of developed files by camera, in their order."""
    cameras = defaultdict(list)
    for task in tasks:
        if task.shots and not task.unreadable and not is_raw(task.shots[0].path):
            cameras[camera_name(task.shots[0])].append(task)
    return {camera: sets for camera, sets in cameras.items() if camera}


def known_curves(
    tasks: Sequence[Task], journal: Journal, settings: Mapping[str, str]
) -> tuple[Curves, set[str]]:
    """Return the curves found by an earlier run, and the cameras whose curves were sought, found or not."""
    curves: Curves = {}
    known = set()
    for camera, sets in sharing(tasks).items():
        entry = journal.entries.get(_entry_name(camera))
        if entry is None:
            continue
        there = {item for task in sets for item in _origin(task.inputs, settings).inputs}
        alike = not Origin(entry.origin.inputs, settings).unlike(entry.origin)
        # Not all of them: one that is replaced because it was damaged leaves the curve as good as it was.
        alike = alike and not there.isdisjoint(entry.origin.inputs)
        outputs = [journal.folder / name for name in entry.sizes]
        sizes = [path.stat().st_size if path.is_file() else None for path in outputs]
        if not alike or sizes != list(entry.sizes.values()):
            continue
        known.add(camera)
        for path in outputs:
            _give(curves, sets, path, journal)
    return curves, known


def find_curves(
    tasks: Sequence[Task],
    journal: Journal,
    settings: Mapping[str, str],
    find: Find,
    progress: Callable[[float], None] | None = None,
) -> tuple[Curves, list[Path]]:
    """Find the curves that are not known yet and write each to the journal's folder.

    Returns all curves, and the files that were written. ``settings`` say what else has a say in
    them. A camera with a single set, and one without a curve that explains its frames, gets none.
    """
    curves, known = known_curves(tasks, journal, settings)
    written = []
    sharers = {camera: sets for camera, sets in sharing(tasks).items() if len(sets) > 1}
    unknown = {camera: sets for camera, sets in sharers.items() if camera not in known}
    for number, (camera, sets) in enumerate(unknown.items()):
        if progress:
            progress(number / len(unknown))
        chosen = [sets[round(i)] for i in _spread(len(sets))]
        origin = _origin([path for task in chosen for path in task.inputs], settings)
        name, path = _entry_name(camera), journal.folder / _file_name(camera)
        if path.exists() and path not in set(journal.outputs()):
            raise OutputError(f"{path}: exists, and is not from this batch; choose another folder with -o")
        response = find([task.inputs for task in chosen])
        outputs = [path] if response else []
        journal.begin(name, origin, outputs)
        if response:
            save(response, path, camera)
            _give(curves, sets, path, journal)
            written.append(path)
        journal.end(name, origin, outputs, {})
    return curves, written


def _spread(count: int) -> list[float]:
    """Return at most `SETS` positions, evenly spaced, the first and the last among them."""
    chosen = min(SETS, count)
    return [i * (count - 1) / max(chosen - 1, 1) for i in range(chosen)]


def _give(curves: Curves, sets: Sequence[Task], path: Path, journal: Journal) -> None:
    """Let sets share the curve in a file, but for those that were finished with one of their own."""
    response = load(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    for task in sets:
        entry = journal.entries.get(task.name)
        alone = entry is not None and entry.origin.settings.get("response") == "auto"
        if not (alone and entry is not None and None not in entry.sizes.values()):
            curves[task.name] = response, f"{path.name} {digest}"


def _origin(paths: Sequence[Path], settings: Mapping[str, str]) -> Origin:
    """Return the origin of what is made of those files that are still there."""
    return Origin.of([path for path in paths if path.exists()], settings)


def _entry_name(camera: str) -> str:
    return f"response: {camera}"


def _file_name(camera: str) -> str:
    plain = re.sub(r"[^\w.]+", "-", camera).strip("-")
    return f"response-{plain}.json"


# --- the scale ------------------------------------------------------------------------------------


def shared_anchor(tasks: Sequence[Task], journal: Journal) -> float:
    """Return the EV100 that all sets of a folder share: the median of their reference frames'.

    That of an earlier run into the folder is kept. Raises ExposureError without a single set whose
    exposure is absolute.
    """
    entry = journal.entries.get(ANCHOR)
    if entry is not None and isinstance(entry.report.get("ev100"), float):
        return float(entry.report["ev100"])
    stated = [task for task in tasks if task.shots]
    # Sets that leave the aperture or the ISO out are on a scale of their own.
    whole = [task for task in stated if all(shot.iso and shot.f_number for shot in task.shots)]
    for sets in (whole, stated):
        known = [value for task in sets if (value := _ev100(task.shots)) is not None]
        if known:
            return median_low(known)
    raise ExposureError("--anchor shared: no set states its exposures; use --anchor reference")


def keep_anchor(anchor: float, journal: Journal) -> None:
    """Note the shared EV100 in the journal for runs to come."""
    if ANCHOR not in journal.entries:
        journal.end(ANCHOR, Origin((), {}), [], {"ev100": anchor})


def _ev100(shots: Sequence[Shot]) -> float | None:
    """Return the EV100 of the reference frame, None where it is unknown."""
    try:
        ordered, reference = form_bracket(shots)
    except HdrmergeError:
        return None
    return None if reference is None else ordered[reference].ev100
