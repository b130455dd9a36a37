"""Footage -> its frames in order, read as they are asked for: a folder of numbered stills, or a clip.

Nothing here grows with the length of the footage but a few numbers a frame. A clip is looked through once
for its time stamps and the brightness of its frames (`Clip`), stills are listed (`Stills`); pixels are
decoded when a frame is asked for, and `windows` hold as many as its neighbourhood needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .bracket import ExposureSource, Frame, Shot
from .broadcast import BT709, PRIMARIES, TRANSFERS
from .colour import primaries_to_rec709
from .decode import BELOW_BLACK, Signal, bits_of, decoded, luma_of, opened_clip, rgb_codes, signal_of
from .errors import InputError
from .exposure import Array, Float, NoiseModel, Response
from .fileformat import damaged
from .folder import photographs, read_shots
from .read import read_frame
from .roll import natural

QUANTILES = np.linspace(0.0, 1.0, 17)
SAMPLED = 20_000  # pixels of a frame that its brightness is read from
STILLS_PER_SECOND = 25.0  # where nothing else is said

Progress = Callable[[str, float], None]


def silent(stage: str, share: float) -> None:
    """Tell nobody how far a stage is."""


@dataclass(frozen=True, eq=False)
class Footage(ABC):
    """A sequence of frames of one size: ``times`` [s] from the first, ``names`` for the files made of them.

    ``seconds`` are exposures given later (`exposed`), relative where their ``source`` is "pixels";
    ``response`` overrides the curve that the files name.
    """

    path: Path
    height: int
    width: int
    times: tuple[float, ...]
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    seconds: tuple[float, ...] = ()
    source: ExposureSource = "none"
    response: Response | None = None

    def __len__(self) -> int:
        return len(self.times)

    def exposed(
        self, seconds: Sequence[float], source: ExposureSource, response: Response | None = None
    ) -> Footage:
        """Return the footage with an exposure for each frame and, if one was found, its response curve."""
        if len(seconds) != len(self):
            raise ValueError(f"{len(seconds)} exposures for {len(self)} frames")
        return replace(self, seconds=tuple(seconds), source=source, response=response or self.response)

    def shot(self, number: int) -> Shot:
        """Return what is known about a frame before it is decoded."""
        shot = self._shot(number)
        if not self.seconds or self.source == "exif":
            return shot
        if self.source == "times":
            return replace(shot, exposure_time=self.seconds[number], stated_exposure=None, source="times")
        return replace(shot, stated_exposure=self.seconds[number], source=self.source)

    def frame(self, number: int) -> Frame:
        return next(self.frames(number, number + 1))

    @abstractmethod
    def _shot(self, number: int) -> Shot:
        """Return a shot as the file states it."""

    @abstractmethod
    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """Decode frames ``start:stop`` one by one."""

    @abstractmethod
    def levels(self, progress: Progress = silent) -> Float:
        """Return the brightness of every frame: (N, 17), `QUANTILES` of its luma codes in [0, 1]."""


def open_footage(path: Path, fps: float | None = None, progress: Progress = silent) -> Footage:
    """Find the frames of a folder of stills or a clip; ``fps`` is the rate of stills, or overrides a clip's.

    A clip is decoded once for it. Raises `InputError`.
    """
    if path.is_dir():
        return Stills.listed(path, fps, progress)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the name")
    return Clip.looked_through(path, fps, progress)


def windows(
    footage: Footage, reach: int, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, tuple[Frame, ...]]]:
    """Yield each frame's number and the frames from ``reach`` before it to ``reach`` after it.

    At the ends of the footage the first and the last frame are repeated, as C.8 of the video networks
    wants it. No more than 2 reach + 1 frames are held, each decoded once.
    """
    last = len(footage) - 1
    stop = len(footage) if stop is None else stop
    if start >= stop:
        return
    coming = footage.frames(max(start - reach, 0), min(stop + reach, len(footage)))
    held: deque[Frame] = deque(maxlen=2 * reach + 1)
    taken = max(start - reach, 0)
    for number in range(start - reach, stop + reach):
        if not held or taken <= min(max(number, 0), last):
            held.append(next(coming))
            taken += 1
        else:
            held.append(held[-1])
        if number >= start + reach:
            yield number - reach, tuple(held)


# --- stills ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Stills(Footage):
    """Photographs of a folder in the order in which people number them."""

    shots: tuple[Shot, ...] = ()

    @classmethod
    def listed(cls, folder: Path, fps: float | None = None, progress: Progress = silent) -> Stills:
        """List the photographs of a folder; reads metadata only."""
        files, _ = photographs([folder])
        if len(files) < 2:
            found = f"{len(files) or 'no'} photograph{'s' * (len(files) != 1)}"
            raise InputError(f"{folder}: {found} in it; name a folder of numbered stills, or a clip")
        return cls.of(folder, sorted(files, key=natural), fps, progress)

    @classmethod
    def of(
        cls, folder: Path, files: Sequence[Path], fps: float | None = None, progress: Progress = silent
    ) -> Stills:
        """Take photographs of a folder in the order they are given in; reads metadata only."""
        shots, bad = read_shots(files, progress)
        if bad:  # a hole in the sequence would shift everything behind it
            raise InputError(f"{bad[0].path}: {bad[0].reason}")
        width, height = shots[0].upright_size
        for shot in shots:
            if shot.upright_size != (width, height):
                size = "{} x {} px".format(*shot.upright_size)
                raise InputError(
                    f"{shot.path}: {size}, the first {width} x {height}; give frames of one size"
                )
        step = 1.0 / (fps or STILLS_PER_SECOND)
        names = tuple(shot.path.stem for shot in shots)
        if len(set(names)) < len(names):
            names = tuple(shot.path.name for shot in shots)
        times = tuple(n * step for n in range(len(shots)))
        return cls(folder, height, width, times, names, shots=tuple(shots))

    def _shot(self, number: int) -> Shot:
        return self.shots[number]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        for number in range(*slice(start, stop).indices(len(self))):
            yield read_frame(self.shot(number), self.response, reference=self.shots[0])

    def levels(self, progress: Progress = silent) -> Float:
        found = np.empty((len(self), len(QUANTILES)), np.float32)
        for number in range(len(self)):
            frame = self.frame(number)
            codes = frame.codes[:]
            white = np.iinfo(codes.dtype).max if codes.dtype.kind == "u" else 1.0
            levels = np.quantile(_sampled(codes[..., 1]), QUANTILES) / white  # green is near luma
            if frame.response.is_linear or codes.dtype.kind == "f":  # to about the tones of the others
                levels = np.clip(levels, 0.0, 1.0) ** (1 / 2.2)
            found[number] = levels
            progress("look", (number + 1) / len(self))
        return found


# --- clips ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clip(Footage):
    """The first video stream of a file that FFmpeg reads."""

    signal: Signal = field(default_factory=lambda: Signal(8, BT709, False, 1, BT709))
    turns: int = 0  # quarter turns against the clock that make it upright
    stamps: tuple[int | None, ...] = ()  # of the frames, in units of the stream's time base
    brightness: Float = field(default_factory=lambda: np.empty((0, len(QUANTILES)), np.float32))

    @classmethod
    def looked_through(cls, path: Path, fps: float | None = None, progress: Progress = silent) -> Clip:
        """Decode a clip once: how many frames it has, when they are shown, and how bright they are."""
        stamps: list[int | None] = []
        brightness: list[Float] = []
        first: Any = None
        below, base, expected, rate, notes = 0.0, 0.0, 0, 0.0, []
        with opened_clip(path) as (container, stream):
            base, expected = float(stream.time_base or 0), stream.frames
            rate = float(stream.average_rate or STILLS_PER_SECOND)
            for frame in decoded(path, container, stream):
                first = first or frame
                if (frame.width, frame.height, frame.format.name) != (
                    first.width, first.height, first.format.name
                ):  # fmt: skip
                    raise InputError(
                        f"{path}: frame {len(stamps)} has another size or format than the first; "
                        "split the clip"
                    )
                stamps.append(frame.pts)
                luma = _sampled(luma_of(frame))
                brightness.append(np.quantile(luma, QUANTILES).astype(np.float32))
                below += float((luma < BELOW_BLACK * 2.0 ** (bits_of(frame) - 8)).mean())
                progress("look", len(stamps) / max(expected, len(stamps) + 1))
            if first is None:
                raise damaged(path, "no frame in it can be decoded")
            signal, guesses = signal_of(path, first, stream, below / len(stamps))
            turns = round(getattr(first, "rotation", 0) / 90) % 4
        notes += guesses
        if len(stamps) < expected:
            notes.append(f"ends early: {len(stamps)} of {expected} frames can be decoded")
        if first.interlaced_frame:
            notes.append("is interlaced; moving edges will look combed, so deinterlace it first")
        height, width = (first.width, first.height) if turns % 2 else (first.height, first.width)
        digits = max(5, len(str(len(stamps) - 1)))
        names = tuple(f"{path.stem}_{n:0{digits}d}" for n in range(len(stamps)))
        codes = np.stack(brightness) / np.float32(2.0**signal.bits - 1)
        if not signal.full and signal.matrix:
            codes = np.clip((codes * 255 - 16) / 219, 0, 1)
        warnings = tuple(f"{path}: {note}" for note in notes)
        times = _times(stamps, base, rate, fps)
        return cls(
            path, height, width, times, names, warnings,
            signal=signal, turns=turns, stamps=tuple(stamps), brightness=codes.astype(np.float32),
        )  # fmt: skip

    def _shot(self, number: int) -> Shot:
        place = self.path.with_name(f"{self.path.name} frame {number}")
        return Shot(place, self.width, self.height)

    def levels(self, progress: Progress = silent) -> Float:
        return self.brightness

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        start, stop, _ = slice(start, stop).indices(len(self))
        if start >= stop:
            return
        signal = self.signal
        curve = self.response or TRANSFERS[signal.transfer]
        noise = NoiseModel.from_iso(100.0).with_quantisation(curve, 2**signal.bits)
        to_rec709 = primaries_to_rec709(PRIMARIES[signal.primaries])
        number = start
        with opened_clip(self.path) as (container, stream):
            for frame in islice(self._from(container, stream, start), stop - start):
                codes = np.ascontiguousarray(np.rot90(rgb_codes(frame, signal), self.turns))
                yield Frame(self.shot(number), codes, curve, noise, to_rec709)
                number += 1
        if number < stop:
            raise damaged(self.path, f"frame {number} of {len(self)} cannot be decoded again")

    def _from(self, container: Any, stream: Any, start: int) -> Iterator[Any]:
        """Yield decoded frames from ``start`` on, begun at the key frame before it where stamps allow it."""
        stamp = self.stamps[start]
        if start == 0 or stamp is None:
            yield from islice(decoded(self.path, container, stream), start, None)
            return
        container.seek(stamp, stream=stream)
        rest = decoded(self.path, container, stream)
        first = next(rest, None)
        if first is None or first.pts is None or first.pts > stamp:  # files without an index lead astray
            with opened_clip(self.path) as (again, track):
                yield from islice(decoded(self.path, again, track), start, None)
            return
        if first.pts == stamp:
            yield first
        yield from (frame for frame in rest if frame.pts is None or frame.pts >= stamp)


def _times(stamps: Sequence[int | None], base: float, rate: float, fps: float | None) -> tuple[float, ...]:
    """Return when frames are shown [s], from the first; evenly where the file does not tell."""
    known = [stamp for stamp in stamps if stamp is not None]
    told = fps is None and base > 0 and len(known) == len(stamps)
    if told and all(b > a for a, b in pairwise(known)):
        return tuple((stamp - known[0]) * base for stamp in known)
    return tuple(n / (fps or rate) for n in range(len(stamps)))


def _sampled(plane: Array) -> Array:
    step = max(1, int((plane.size / SAMPLED) ** 0.5))
    return plane[step // 2 :: step, step // 2 :: step]
