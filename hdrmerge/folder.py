"""Paths -> photographs -> shots -> a plan of brackets, for folders of any kind.

One bad file never stops the rest: it is listed with what ails it. Of a shot stored twice, as RAW and
JPEG or as a copy, one file is used; pictures that this program made are no photographs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import median_high
from typing import Any

from .bracket import Shot
from .errors import InputError
from .fileformat import RAW_SUFFIXES, one_line, unreadable
from .group import Found, Grouping, LeftOut, find_brackets
from .judge import SAME
from .metadata import read_shot
from .roll import camera_name, natural

_KINDS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **dict.fromkeys((".heic", ".heif", ".hif"), "heic"),
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    ".png": "png",
    **dict.fromkeys(RAW_SUFFIXES, "raw"),
}

_EASIEST = "jpeg heic tiff png raw".split()
"""Which file of a shot is read to find the sets, the first there is."""

_BEST = "raw heic jpeg tiff png".split()
"""Which is merged, the first that every shot of a set has: a camera's own files before developed ones."""

_SAME_SHOT = timedelta(seconds=2)
"""Time stamps of two files of one shot differ by less; LibRaw knows whole seconds only."""

_MADE_HERE = "hdrmerge "
"""How the Software tag of our own pictures begins."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Unreadable:
    """A file or folder that cannot be used; ``reason`` is one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Plan:
    """The sets of some files and folders, and every file that is in none."""

    grouping: Grouping
    unreadable: tuple[Unreadable, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain values; exposures in EV relative to the set's middle one."""
        return {
            "sets": [
                {
                    "name": found.name,
                    "files": [str(shot.path) for shot in found.shots],
                    "camera": camera_name(found.shots[0]),
                    "ev": relative_ev(found.shots),
                    "why": found.why,
                    "sure": found.sure,
                }
                for found in self.grouping.sets
            ],
            "left_out": [{"file": str(left.path), "reason": left.reason} for left in self.grouping.left_out],
            "unreadable": [{"file": str(bad.path), "reason": bad.reason} for bad in self.unreadable],
        }


def plan(
    paths: Iterable[str | os.PathLike[str]],
    recursive: bool = False,
    gap: float | None = None,
    per_set: int | None = None,
    progress: Progress = lambda stage, share: None,
) -> Plan:
    """Find the brackets in files and folders; reads metadata only.

    Every photograph ends in one of the sets, among those left out, or among the unreadable. ``gap``
    and ``per_set`` are those of `group.find_brackets`. Raises `InputError` for a path that does not
    exist or a named folder that cannot be listed.
    """
    files, bad = photographs(paths, recursive)
    stored = _by_shot(files)
    shots, unread = _read_one_each(stored, progress)
    shots, left = _photographs_only(shots)
    grouping = find_brackets(shots, gap, per_set, [one.path for one in unread])
    left += grouping.left_out
    left += [
        LeftOut(path, f"another file of {one.path.name}, which is left out")
        for one in left
        for path in stored[one.path]
    ]
    sets, unused, unread_better = _in_best_kind(grouping.sets, stored)
    left = sorted(left + unused, key=lambda one: natural(one.path))
    return Plan(Grouping(tuple(sets), tuple(left)), (*bad, *unread, *unread_better))


def describe(found: Plan) -> list[str]:
    """Return the lines that tell a person what was found: a block a set, then every file in none."""
    lines = []
    for number, one in enumerate(found.grouping.sets, 1):
        camera = camera_name(one.shots[0])
        doubt = "" if one.sure else " (not sure: look at them)"
        lines.append(f"set {number}: {one.name}{', ' if camera else ''}{camera}, {one.why}{doubt}")
        lines += frame_lines(one.shots)
    if found.grouping.left_out:
        lines.append("in no set:")
        lines += [f"  {left.path}: {left.reason}" for left in found.grouping.left_out]
    if found.unreadable:
        lines.append("unreadable:")
        lines += [f"  {bad.path}: {bad.reason}" for bad in found.unreadable]
    return lines


def frame_lines(shots: Sequence[Shot]) -> list[str]:
    """Return a line for each shot of a set: its exposure relative to the middle one, and its file."""
    return [
        f"  {'  ?  ' if ev is None else f'{ev:+5.1f}'} EV  {shot.path}"
        for shot, ev in zip(shots, relative_ev(shots), strict=True)
    ]


def relative_ev(shots: Sequence[Shot]) -> list[float | None]:
    """Return each exposure relative to the set's middle one [stops], larger is brighter."""
    known = [shot.ev100 for shot in shots if shot.ev100 is not None]
    middle = median_high(known) if known else 0.0  # the shorter of two
    return [None if shot.ev100 is None else round(middle - shot.ev100, 2) + 0.0 for shot in shots]


# --- the files ------------------------------------------------------------------------------------


def photographs(
    paths: Iterable[str | os.PathLike[str]], recursive: bool = False
) -> tuple[list[Path], list[Unreadable]]:
    """Return the photographs that files and folders stand for, each once, in the order people sort.

    In folders only the suffixes of photographs count, and nothing hidden; a file named by itself is
    taken as it is. Folders within, which only ``recursive`` opens, may refuse to be listed, which is
    returned; links that lead round in circles are followed once. Raises `InputError` for a path that
    does not exist or a named folder that cannot be listed.
    """
    found: dict[str, Path] = {}
    bad: list[Unreadable] = []
    for given in map(Path, paths):
        try:
            if given.is_dir():
                inside = _inside(given, recursive, bad)
            elif stat.S_ISREG(given.stat().st_mode):
                inside = [given]
            else:
                raise InputError(f"{given}: neither a file nor a folder; name photographs or folders")
        except OSError as error:
            raise unreadable(given, error) from None
        folders = {folder: os.path.realpath(folder) for folder in {path.parent for path in inside}}
        for path in inside:
            real = os.path.realpath(path) if path.is_symlink() else f"{folders[path.parent]}/{path.name}"
            found.setdefault(real, path)
    return sorted(found.values(), key=natural), bad


def _inside(top: Path, recursive: bool, bad: list[Unreadable]) -> list[Path]:
    """Return the photographs in a folder, and in those within it if wanted."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            identity = folder.stat()
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(folder) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            if folder == top:
                raise
            bad.append(_refused(folder, unreadable(folder, error)))
            continue
        for entry in visible:
            path = folder / entry.name
            try:
                folder_in_it, file = entry.is_dir(), entry.is_file()
            except OSError:  # links that lead to themselves
                folder_in_it = file = False
            if folder_in_it:
                waiting += [path] if recursive else []
            elif path.suffix.lower() in _KINDS:
                if file:
                    found.append(path)
                elif entry.is_symlink():
                    bad.append(Unreadable(path, "a link to a file that is not there"))
    return found


def read_shots(
    files: Sequence[Path], progress: Progress = lambda stage, share: None
) -> tuple[list[Shot], list[Unreadable]]:
    """Read the metadata of many files; those that cannot be used are returned with the reason."""
    shots, bad = [], []
    for i, path in enumerate(files):
        try:
            shots.append(read_shot(path))
        except InputError as error:
            bad.append(_refused(path, error))
        except OSError as error:
            bad.append(_refused(path, unreadable(path, error)))
        progress("read", (i + 1) / len(files))
    return shots, bad


def _refused(path: Path, error: InputError) -> Unreadable:
    return Unreadable(path, one_line(error).removeprefix(f"{path}: "))


# --- files that are no shot of their own ----------------------------------------------------------


def _by_shot(files: Sequence[Path]) -> dict[Path, list[Path]]:
    """Return the file that stands for each shot, and the others of its name: IMG_1.JPG, IMG_1.CR2."""
    found: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in files:
        key, kind = (path.parent, path.stem), _kind(path)
        if kind in found.get(key, {}):
            key = (path.parent, path.name)
        found.setdefault(key, {})[kind] = path
    stored = {}
    for kinds in found.values():
        main, *others = (kinds[kind] for kind in _EASIEST if kind in kinds)
        stored[main] = others
    return stored


def _read_one_each(stored: dict[Path, list[Path]], progress: Progress) -> tuple[list[Shot], list[Unreadable]]:
    """Read a file of each shot; where it cannot be read another one comes to stand for the shot."""
    shots: list[Shot] = []
    bad: list[Unreadable] = []
    waiting = list(stored)
    while waiting:
        more, unread = read_shots(waiting, progress)
        shots += more
        bad += unread
        waiting = []
        for one in unread:
            others = stored.pop(one.path)
            if others:
                stored[others[0]] = others[1:]
                waiting.append(others[0])
    return shots, bad


def _photographs_only(shots: Sequence[Shot]) -> tuple[list[Shot], list[LeftOut]]:
    """Leave out what this program made, and copies: the name of another file with something added."""
    kept, left = [], []
    originals: dict[tuple[object, ...], list[Shot]] = {}
    for shot in sorted(shots, key=lambda shot: len(shot.path.stem)):
        if shot.software.startswith(_MADE_HERE):
            left.append(LeftOut(shot.path, f"made by {shot.software}, no photograph"))
            continue
        key = shot.path.parent, shot.taken_at, shot.exposure, shot.camera_model, shot.camera_serial
        alike = originals.setdefault(key, [])
        original = next((one for one in alike if _is_copy(shot, one)), None)
        if original is None:
            alike.append(shot)
            kept.append(shot)
        else:
            left.append(LeftOut(shot.path, f"a copy of {original.path.name}, or made from it"))
    return kept, left


def _is_copy(shot: Shot, original: Shot) -> bool:
    """Tell whether a shot of the same time and exposure is named after another: IMG_1 (2), IMG_1-Edit."""
    if shot.taken_at is None or not shot.path.stem.startswith(original.path.stem):
        return False
    added = shot.path.stem[len(original.path.stem) :]
    named_so = bool(added) and not added[0].isalnum()
    return named_so and (shot.taken_at.microsecond > 0 or any(c.isalpha() or c == "(" for c in added))


def _in_best_kind(
    sets: Sequence[Found], stored: Mapping[Path, Sequence[Path]]
) -> tuple[list[Found], list[LeftOut], list[Unreadable]]:
    """Return the sets with RAW files in place of JPEGs where every shot has one, and what is unused."""
    chosen: list[Found] = []
    left: list[LeftOut] = []
    bad: list[Unreadable] = []
    for found in sets:
        files = [{_kind(path): path for path in (shot.path, *stored[shot.path])} for shot in found.shots]
        useless: dict[Path, str] = {}
        shots = list(found.shots)
        for kind in _BEST:
            if not all(kind in file for file in files):
                continue
            if all(_kind(shot.path) == kind for shot in found.shots):
                break
            better, refused = read_shots([file[kind] for file in files])
            bad += refused
            useless |= {one.path: "" for one in refused}
            if refused:
                continue
            pairs = list(zip(found.shots, better, strict=True))
            if all(_one_shot(a, b) for a, b in pairs):
                shots = better
                break
            reason = "named as {}, but taken at another time; give each its own folder"
            useless |= {b.path: reason.format(a.path.name) for a, b in pairs if not _one_shot(a, b)}
        chosen.append(replace(found, shots=tuple(shots)))
        for file, shot in zip(files, shots, strict=True):
            for path in file.values():
                reason = useless.get(path, f"{shot.path.name}, a file of the same shot, is used")
                left += [LeftOut(path, reason)] if path != shot.path and reason else []
    return chosen, left, bad


def _one_shot(a: Shot, b: Shot) -> bool:
    if a.taken_at is not None and b.taken_at is not None and abs(a.taken_at - b.taken_at) >= _SAME_SHOT:
        return False
    return a.ev100 is None or b.ev100 is None or abs(a.ev100 - b.ev100) < 2 * SAME


def _kind(path: Path) -> str:
    return _KINDS.get(path.suffix.lower(), "jpeg")
