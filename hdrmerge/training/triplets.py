"""A bracket -> triplets of frames that labels can be made of: a shorter one, the reference, a longer one.

    read -> align -> calibrate -> proxies as gamma codes -> three at a time

The stages are the program's own. Frames are block averages of at most `proxy.PROXY_PIXELS`: the paper's
thresholds, in px, are meant for pictures of 1.5 MP.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..align import Alignment, align
from ..bracket import Bracket
from ..calibrate import Calibrated, calibrate
from ..exposure import Float, Mask, NoiseModel
from ..pipeline import MergeOptions, load_bracket
from ..proxy import Proxy, from_blocks
from .motion import warped
from .pseudo_labels import REFERENCE, Triplet
from .reexposure import encode

LEAST_APART = 0.7  # [stops] between two frames of a triplet
BEST_APART = 2.0  # [stops] that are preferred, those of the paper's data

Members = tuple[int, int, int]
"""Indices of the short, the reference and the long frame; of one that stands in for another, twice."""


def read_series(
    paths: Sequence[str | os.PathLike[str]], merge: MergeOptions | None = None, aligned: bool = False
) -> tuple[Series, Calibrated]:
    """Read a bracket as a merge does; ``aligned`` as for `Series.of`. Raises an `HdrmergeError`."""
    merge = merge or MergeOptions()
    loaded = load_bracket(paths, merge)
    alignments = align(loaded.proxies, loaded.bracket.reference)
    found = calibrate(loaded.bracket, loaded.proxies, alignments, merge.response, merge.trust)
    return Series.of(found.bracket, found.proxies, found.alignments, aligned), found


def choose_triplets(stops: Sequence[float], reference: int, most: int = 3) -> list[Members]:
    """Choose triplets among the exposures [stops] of a bracket, shortest first: short, reference, long.

    Each inner frame may be the reference, the bracket's own first; the others are those that lie nearest
    to two stops away. A bracket without an inner frame gives one with a stand-in: its longer frame is
    reference and long frame at once, because what is saturated in it the shorter one shows. Nothing where
    no two frames are `LEAST_APART`.

    >>> choose_triplets([-4, -2, 0, 2], 1), choose_triplets([0, 2], 0), choose_triplets([0, 0.3], 0)
    ([(0, 1, 2), (1, 2, 3)], [(0, 1, 1)], [])
    """

    def nearest(middle: int, candidates: Sequence[int]) -> int | None:
        apart = {k: abs(stops[k] - stops[middle]) for k in candidates}
        apart = {k: distance for k, distance in apart.items() if distance >= LEAST_APART}
        return min(apart, key=lambda k: (abs(apart[k] - BEST_APART), k)) if apart else None

    order = sorted(range(len(stops)), key=lambda k: (abs(k - reference), k))
    chosen = []
    for middle in order:
        short = nearest(middle, range(middle))
        long = nearest(middle, range(middle + 1, len(stops)))
        if short is not None and long is not None:
            chosen.append((short, middle, long))
    if not chosen:
        for middle in order:
            if (short := nearest(middle, range(middle))) is not None:
                return [(short, middle, middle)]
    return chosen[:most]


@dataclass(frozen=True, eq=False)
class Series:
    """The frames of a bracket that show the same scene, as small pictures, shortest exposure first.

    ``codes`` (H, W, 3) each, of which files hold ``levels``; ``exposures`` relative to each other.
    """

    codes: list[Float]
    exposures: list[float]
    noise: list[NoiseModel]
    levels: int
    reference: int

    @classmethod
    def of(
        cls, bracket: Bracket, proxies: Sequence[Proxy], alignments: Sequence[Alignment], aligned: bool
    ) -> Series:
        """Take the frames that show the same scene; put them in line and cut what not all show, if asked."""
        used = [k for k, alignment in enumerate(alignments) if alignment.used]
        frames = [bracket.frames[k] for k in used]
        codes = [
            encode(proxies[k].linear * np.float32(1 / frame.clip))
            for k, frame in zip(used, frames, strict=True)
        ]
        factor = proxies[bracket.reference].factor
        if aligned:
            codes = in_line(codes, [alignments[k] for k in used], factor)
        count = max(1.0, factor**2 / 2)  # of independent pixels in a block, as in `sight.variance_of`
        noise = [NoiseModel(f.noise.photon / count, f.noise.read / count**0.5) for f in frames]
        eight = bracket.reference_frame.codes.dtype == np.uint8
        return cls(
            codes,
            [frame.exposure / frame.clip for frame in frames],
            noise,
            256 if eight else 65536,
            used.index(bracket.reference),
        )

    def triplet(self, members: Members) -> Triplet:
        """Return three of the frames, with exposures relative to the middle one."""
        own = self.exposures[members[REFERENCE]]
        short, middle, long = members
        return Triplet(
            (self.codes[short], self.codes[middle], self.codes[long]),
            (self.exposures[short] / own, 1.0, self.exposures[long] / own),
            (self.noise[short], self.noise[middle], self.noise[long]),
        )


def in_line(codes: Sequence[Float], alignments: Sequence[Alignment], factor: int) -> list[Float]:
    """Return frames in the reference's pixels, all cut to a rectangle that every one of them fills."""
    up = from_blocks(factor)
    moved, valid = [], np.ones(codes[0].shape[:2], np.bool_)
    for code, alignment in zip(codes, alignments, strict=True):
        if not alignment.is_identity:
            code, inside = warped(code, np.linalg.inv(up) @ alignment.matrix @ up)
            valid &= inside
        moved.append(code)
    box = filled(valid)
    return [np.ascontiguousarray(code[box]) for code in moved]


def filled(valid: Mask) -> tuple[slice, slice]:
    """Return a large rectangle where all of ``valid`` (H, W) is True, by cutting the worst side until it is.

    >>> filled(np.array([[0, 0, 0], [0, 1, 1], [0, 1, 1]], np.bool_))
    (slice(1, 3, None), slice(1, 3, None))
    """
    top, bottom, left, right = 0, valid.shape[0], 0, valid.shape[1]
    while top < bottom and left < right:
        part = valid[top:bottom, left:right]
        missing = [1 - float(side.mean()) for side in (part[0], part[-1], part[:, 0], part[:, -1])]
        worst = int(np.argmax(missing))
        if missing[worst] == 0:
            break
        top, bottom = top + (worst == 0), bottom - (worst == 1)
        left, right = left + (worst == 2), right - (worst == 3)
    return slice(top, bottom), slice(left, right)
