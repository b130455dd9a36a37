"""Footage -> what is known around each of its frames: neighbours of all exposures, as codes.

    decode -> linear -> gamma codes -> neighbours -> in line by a similarity each

The codes are those that `flowmerge` and the video networks take, whatever camera made the frames: linear
light, white balanced, to the power of 1 / 2.2, 1.0 where a channel clips (Chen et al. 2021, section 4.1).
Frames are decoded once, in order, and forgotten as soon as no later one needs them: memory does not grow with
the length of the footage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .align import align
from .alternation import neighbours, reach
from .bracket import Frame, Shot
from .exposure import Array, Float
from .flowmerge import Matrix, in_line, proxy_of
from .footage import Footage
from .painter import GAMMA
from .proxy import Proxy

Whole = NDArray[np.intp]

WHITE_ENOUGH = 1e-3  # by which the channels of white may differ and count as one


@dataclass(frozen=True, eq=False)
class View:
    """A frame as methods see it: ``codes`` (H, W, 3) float32, gamma codes in [0, 1].

    ``to_rec709`` takes linear light, codes ^ 2.2, to linear Rec. 709.
    """

    shot: Shot
    codes: Float
    to_rec709: Float

    @classmethod
    def of(cls, frame: Frame) -> View:
        neutral = np.linalg.solve(frame.to_rec709.astype(np.float64), np.ones(3))
        neutral /= neutral.max()
        if np.allclose(neutral, 1.0, atol=WHITE_ENOUGH):
            neutral = np.ones(3)
        to_rec709 = np.asarray(frame.to_rec709 * neutral, np.float32)
        return cls(frame.shot, _gamma_codes(frame, neutral * frame.clip), to_rec709)

    @cached_property
    def proxy(self) -> Proxy:
        """What alignment sees of it."""
        return proxy_of(self.codes)


def _gamma_codes(frame: Frame, white: Array) -> Float:
    """Return codes (H, W, 3) of a frame, each channel 1.0 at its ``white`` (3,); integers through a table.

    Of a RAW file's channels the most sensitive clips first; the others end at its white, which is what they
    know of grey.
    """
    stored: Array = frame.codes[:]
    if stored.dtype.kind != "u":
        return _encoded(frame.response.decode(stored), white)
    levels = np.arange(np.iinfo(stored.dtype).max + 1, dtype=stored.dtype)
    table = _encoded(frame.response.decode(np.repeat(levels[:, None, None], 3, axis=2)), white)[:, 0]
    return np.stack([table[:, c].take(stored[..., c]) for c in range(3)], axis=-1)


def _encoded(linear: Float, white: Array) -> Float:
    share = np.clip(linear / white.astype(np.float32), 0.0, 1.0)
    return np.asarray(np.power(share, np.float32(1 / GAMMA)), np.float32)


class Vicinity:
    """The frames of footage whose exposures are known, and which of them tell about each other.

    ``kinds`` (N,) is which exposure each frame has, 0 the shortest (`cadence.Cadence`); ``count`` how many
    there are. ``exposures`` (N,) are relative to the shortest, which is 1; ``widest`` [stops] is the largest
    step from one to the next, ``reach`` how many frames away neighbours are at most.
    """

    def __init__(self, footage: Footage, kinds: Sequence[int] | Whole) -> None:
        seconds = np.asarray(footage.seconds, np.float64)
        self.footage, self.kinds = footage, kinds
        self.count = int(max(kinds)) + 1
        self.exposures = seconds / seconds.min()
        self.reach = reach(kinds)
        stops = np.log2([np.median(self.exposures[np.equal(kinds, kind)]) for kind in range(self.count)])
        self.widest = float(np.diff(stops).max(initial=0.0))
        self._views: dict[int, View] = {}
        self._matrices: dict[tuple[int, int], Matrix] = {}  # of a reference and another frame
        self._coming: Iterator[Frame] = iter(())
        self._next = 0

    def hold(self, first: int, last: int) -> None:
        """Have frames ``first`` to ``last`` at hand, as far as there are any, and forget all before."""
        first, last = max(first, 0), min(last, len(self.footage) - 1)
        self._views = {number: view for number, view in self._views.items() if number >= first}
        self._matrices = {pair: found for pair, found in self._matrices.items() if min(pair) >= first}
        if not (self._views and min(self._views) == first):
            self._views.clear()
            self._coming, self._next = self.footage.frames(first), first
        while self._next <= last:
            self._views[self._next] = View.of(next(self._coming))
            self._next += 1

    def __getitem__(self, number: int) -> View:
        """Return a frame that is held."""
        return self._views[number]

    def pairs(self, number: int) -> list[tuple[int, int]]:
        """Return the nearest frames of each other exposure, before and after, in the order of time.

        That is the order in which `networks.coarse` takes them. At the ends of the footage one frame stands
        on both sides, `alternation.neighbours`; it takes the place that the missing one would have had.
        """
        found = neighbours(self.kinds, number)
        return sorted(found, key=lambda pair: pair[0] if pair[0] < number else pair[1] - self.count)

    def window(self, number: int) -> list[int]:
        """Return 2 N - 1 frames in the order of time, the reference ``number`` in the middle."""
        pairs = self.pairs(number)
        return [*(before for before, _ in pairs), number, *(after for _, after in pairs)]

    def sides(self, number: int) -> tuple[int, int]:
        """Return the frames right before and after; beyond an end the next one of the missing exposure."""
        last = len(self.footage) - 1
        before = number - 1 if number > 0 else min(number - 1 + self.count, last)
        after = number + 1 if number < last else max(number + 1 - self.count, 0)
        return before, after

    def similarities(self, number: int, others: Sequence[int]) -> list[Matrix]:
        """Return for each of ``others`` the matrix that takes pixels of the reference to its own.

        As `flowmerge.similarities`, with what is known of each frame already.
        """
        self._matrices[number, number] = np.eye(3)
        unknown = sorted({k for k in others if (number, k) not in self._matrices})
        if unknown:
            found = align([self[k].proxy for k in (number, *unknown)], 0, "similarity")[1:]
            for k, alignment in zip(unknown, found, strict=True):
                matrix = alignment.matrix if alignment.used else np.eye(3)
                self._matrices[number, k] = matrix
        return [self._matrices[number, k] for k in others]

    def in_line(self, number: int, others: Sequence[int]) -> list[Float]:
        """Return codes (H, W, 3) of ``others`` in the pixels of frame ``number``."""
        matrices = self.similarities(number, others)
        return [in_line(self[k].codes, matrix)[0] for k, matrix in zip(others, matrices, strict=True)]
