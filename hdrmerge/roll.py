"""Shots of many cameras -> rolls: what one camera took, in the order it took it.

Cameras are told apart by maker, model, serial number and the letters of their file names; two of one
model without serial numbers by their file counters, where these run beside each other. The order is
that of the time stamps, then of the files, with counters that begin again after 9999 unrolled.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, time
from functools import lru_cache
from itertools import groupby, pairwise
from pathlib import Path

from .bracket import Shot
from .fileformat import RAW_SUFFIXES
from .judge import Take

_DCF_FOLDER = re.compile(r"[1-9][0-9]{2}[A-Z0-9_]{5}")  # DCF 2.0: 100CANON; the next is 101CANON
_DCF_FILE = re.compile(r"[A-Za-z0-9_]{4}[0-9]{4}")  # DCF 2.0: IMG_0001 to IMG_9999
_LAST_NUMBER = re.compile(r"(.*?)([0-9]+)[^0-9]*", re.DOTALL)
_ROLLED_OVER = 5000  # from 9999 to 1, not a hole in the numbers
_OTHER_BODY = 100  # in the numbers of two cameras
_MOST_A_SECOND = 12  # pictures; more of one stamp, and the clock stood still

_START = datetime(1970, 1, 1)

Camera = tuple[str, str, str]
"""Maker, model, serial number."""


Pieces = tuple[tuple[int, int, str], ...]


@lru_cache(maxsize=65536)
def natural(path: Path) -> tuple[tuple[Pieces, ...], Pieces, str]:
    """Return a key that sorts paths as people do: IMG_2 before IMG_10, folder by folder."""
    return tuple(_pieces(part) for part in path.parent.parts), _pieces(path.stem), path.suffix


def _pieces(text: str) -> Pieces:
    """Split a name into letters and numbers, which come first."""
    pieces = (piece for piece in re.split("([0-9]+)", text.casefold()) if piece)
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces)


def name_parts(path: Path) -> tuple[str, int | None]:
    """Return the letters before a file name's last number, and that number: IMG_0012 -> img, 12."""
    found = _LAST_NUMBER.fullmatch(path.stem)
    if found is None:
        return "", None
    return re.sub(r"[\W\d_]+", " ", found[1].casefold()).strip(), int(found[2])


def is_raw(path: Path) -> bool:
    return path.suffix.lower() in RAW_SUFFIXES


def camera_name(shot: Shot) -> str:
    """Return maker and model, the maker once."""
    make, model = shot.camera_make, shot.camera_model
    return model if model.casefold().startswith(make.casefold()) else f"{make} {model}".strip()


def rolls(shots: Sequence[Shot]) -> list[list[Take]]:
    """Return each camera's shots in the order taken, folder by folder, RAW apart from pictures.

    The numbered folders of a memory card (100CANON, 101CANON) count as one folder.
    """
    stuck = _stuck_stamps(shots)
    kept: dict[tuple[Path, bool, Camera, str, bool], list[Shot]] = defaultdict(list)
    for shot in shots:
        dated = shot.taken_at is not None and (_camera(shot), shot.taken_at) not in stuck
        letters = name_parts(shot.path)[0]
        kept[_folder(shot.path), is_raw(shot.path), _camera(shot), letters, dated].append(shot)
    found = []
    for (_, _, (_, _, serial), _, dated), group in kept.items():
        for body in _bodies(group) if dated and not serial else [group]:
            found.append(_takes(_in_order(body, dated), dated))
    return found


def one_roll(shots: Sequence[Shot]) -> list[Take] | None:
    """Return shots as one roll whatever their names; None where they cannot be of one camera.

    A shot that names no camera may be of any.
    """
    cameras = {_camera(shot) for shot in shots if any(_camera(shot))}
    if len(cameras) > 1 or len({is_raw(shot.path) for shot in shots}) > 1:
        return None
    stuck = _stuck_stamps(shots)
    dated = all(shot.taken_at is not None and (_camera(shot), shot.taken_at) not in stuck for shot in shots)
    return _takes(_in_order(shots, dated), dated)


def _takes(shots: Sequence[Shot], dated: bool) -> list[Take]:
    """Add to shots in the order taken what grouping weighs; one fraction of a second means none."""
    fractions = {shot.taken_at.microsecond for shot in shots if shot.taken_at is not None}
    resolution = 1.0 if len(fractions) == 1 else 0.0
    takes = []
    for shot in shots:
        exposure = shot.exposure
        light = math.log2(exposure) if exposure is not None and 0 < exposure < math.inf else math.nan
        second = (shot.taken_at - _START).total_seconds() if dated and shot.taken_at else None
        takes.append(Take(shot, light, second, resolution))
    return takes


def _folder(path: Path) -> Path:
    return path.parent.parent if _DCF_FOLDER.fullmatch(path.parent.name) else path.parent


def _camera(shot: Shot) -> Camera:
    return shot.camera_make, shot.camera_model, shot.camera_serial


def _stuck_stamps(shots: Sequence[Shot]) -> set[tuple[Camera, datetime]]:
    """Return the time stamps that say nothing: of too many pictures, or of several at midnight sharp."""
    counts = Counter((_camera(shot), shot.taken_at) for shot in shots if shot.taken_at is not None)
    return {
        (camera, stamp)
        for (camera, stamp), count in counts.items()
        if count > _MOST_A_SECOND or (count > 1 and stamp.time() == time())
    }


def _in_order(shots: Sequence[Shot], dated: bool) -> list[Shot]:
    """Return shots in the order taken: by time stamp where they have one, then by file name."""
    by_name = sorted(shots, key=lambda shot: natural(shot.path))
    if not dated:
        return _unrolled(by_name)
    by_time = sorted(by_name, key=lambda shot: shot.taken_at or _START)
    ties = groupby(by_time, key=lambda shot: shot.taken_at)
    return [shot for _, tie in ties for shot in _unrolled(list(tie))]


def _unrolled(shots: list[Shot]) -> list[Shot]:
    """Put the files after 9999 behind it, where a folder's counter began again."""
    found: list[Shot] = []
    for _, group in groupby(shots, key=lambda shot: shot.path.parent):
        files = list(group)
        numbers = [name_parts(shot.path)[1] or 0 for shot in files]
        leaps = [b - a for a, b in pairwise(numbers)]
        at = leaps.index(max(leaps)) + 1 if leaps and max(leaps) > _ROLLED_OVER else 0
        if not all(_DCF_FILE.fullmatch(shot.path.stem) for shot in files):
            at = 0
        found += files[at:] + files[:at]
    return found


def _bodies(shots: list[Shot]) -> list[list[Shot]]:
    """Part two cameras of one model by their counters, where both ran at the same time."""
    if len(shots) < 4 or not all(_DCF_FILE.fullmatch(shot.path.stem) for shot in shots):
        return [shots]
    by_number = sorted(shots, key=lambda shot: name_parts(shot.path)[1] or 0)
    bodies = [by_number[:1]]
    for a, b in pairwise(by_number):
        if (name_parts(b.path)[1] or 0) - (name_parts(a.path)[1] or 0) > _OTHER_BODY:
            bodies.append([])
        bodies[-1].append(b)
    spans = sorted(
        (min(stamps), max(stamps))
        for stamps in ([shot.taken_at or _START for shot in body] for body in bodies)
    )
    together = any((a_end - b_start).total_seconds() > 1 for (_, a_end), (b_start, _) in pairwise(spans))
    return bodies if together else [shots]
