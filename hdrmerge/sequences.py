"""What folders of HDR video with its truth hold -> footage of alternating exposures, and truths of frames.

    SCENE/Exposures.txt      stops, a line an exposure: they repeat
    SCENE/img_hdr_list.txt   frames in order of time, a line each: a photograph and its truth
    SCENE/img_list.txt       instead: the photographs alone, with or without .tif

That is the layout of DeepHDRVideo (Chen et al. 2021, "HDR Video Reconstruction: A Coarse-to-fine Network and
A Real-world Benchmark Dataset"): static scenes that a random motion was given, dynamic scenes, and the
synthetic clips, whose scenes lie in ``Images``. The truth of a frame is the one beside its name, else a .hdr
of its name. Where one truth is named for all frames, as of dynamic scenes, it is that of the middle one.

A frame holds L, its linear light is L ^ 2.2. A truth is L ^ 2.2 / t in [0, 1], with t relative to the
shortest exposure: 1.0 is where that one clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .alternation import kinds_of_exposures
from .errors import InputError
from .exposure import Float, Response
from .footage import Footage, Stills
from .load import load

EXPOSURES, PAIRS, FRAMES = "Exposures.txt", "img_hdr_list.txt", "img_list.txt"
RESPONSE = Response.named("gamma2.2")


@dataclass(frozen=True, eq=False)
class Recorded:
    """A scene: its footage, which exposure each frame has, 0 the shortest, and the files of truths."""

    name: str
    footage: Footage
    kinds: tuple[int, ...]
    truths: Mapping[int, Path]

    @property
    def count(self) -> int:
        """The number of exposures."""
        return max(self.kinds) + 1

    @property
    def judged(self) -> list[int]:
        """The frames whose truth is known, and around which enough others were taken for any method."""
        inner = range(self.count, len(self.footage) - self.count)
        return [number for number in inner if number in self.truths]

    def truth(self, number: int) -> Float:
        """Return the truth (H, W, 3) of a frame, in [0, 1]. Raises `InputError`."""
        path = self.truths[number]
        pixels = load(path).pixels
        if pixels.shape[:2] != (self.footage.height, self.footage.width):
            raise InputError(
                f"{path}: {pixels.shape[1]} x {pixels.shape[0]} px, its frame is {self.footage.width} x "
                f"{self.footage.height}; give a truth of its size"
            )
        return np.clip(pixels, 0.0, 1.0)


def scenes_in(path: Path) -> list[Path]:
    """Return the folders of scenes in a folder, or one below; none where it is no such dataset."""
    folders = [path, *_inside(path)] if path.is_dir() else []
    folders += [deeper for folder in folders[1:] for deeper in _inside(folder)]
    return [folder for folder in folders if _is_scene(folder)]


def read_scene(folder: Path, name: str | None = None) -> Recorded:
    """Read what a folder holds, but no pixel. Raises `InputError`."""
    listed = folder / PAIRS if (folder / PAIRS).is_file() else folder / FRAMES
    lines = _lines(listed)
    files = [_photograph(folder, line[0]) for line in lines]
    footage = Stills.of(folder, files)
    stops = _stops(folder / EXPOSURES)
    if len(stops) > len(files):
        raise InputError(f"{folder / EXPOSURES}: {len(stops)} exposures of {len(files)} frames; check both")
    seconds = [2.0 ** stops[number % len(stops)] for number in range(len(files))]
    kinds = kinds_of_exposures(seconds)
    if max(kinds) < 1:
        raise InputError(f"{folder / EXPOSURES}: one exposure does not alternate; write the stops of each")
    return Recorded(
        name or folder.name,
        footage.exposed(seconds, "ev", RESPONSE),
        tuple(int(kind) for kind in kinds),
        _truths(folder, files, lines),
    )


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_scene(folder: Path) -> bool:
    return (folder / EXPOSURES).is_file() and any((folder / name).is_file() for name in (PAIRS, FRAMES))


def _lines(path: Path) -> list[list[str]]:
    """Return the words of each line that has any."""
    try:
        words = [line.split() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write a frame a line") from None
    found = [line for line in words if line]
    if not found:
        raise InputError(f"{path}: is empty; write a frame a line")
    return found


def _stops(path: Path) -> list[float]:
    try:
        stops = [float(line[0]) for line in _lines(path)]
    except ValueError:
        raise InputError(f"{path}: holds something else than stops; write a number a line") from None
    if not np.isfinite(stops).all():
        raise InputError(f"{path}: holds stops that are no number; write a number a line")
    return stops


def _photograph(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file() and (folder / f"{name}.tif").is_file():
        path = folder / f"{name}.tif"
    if not path.is_file():
        raise InputError(f"{path}: is listed and not there; complete the dataset")
    return path


def _truths(folder: Path, files: Sequence[Path], lines: Sequence[Sequence[str]]) -> dict[int, Path]:
    """Return the truths that are there, by the numbers of their frames."""
    named = [
        folder / line[1] if len(line) > 1 else file.with_suffix(".hdr")
        for file, line in zip(files, lines, strict=True)
    ]
    shared = {path for path, times in Counter(named).items() if times > 1}
    found = {number: path for number, path in enumerate(named) if path not in shared}
    found |= {len(files) // 2: path for path in shared}
    return {number: path for number, path in sorted(found.items()) if path.is_file()}
