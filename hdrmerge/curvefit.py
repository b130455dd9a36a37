"""Agreements between frames -> the deviation of the response curve from sRGB, and the frames' exposures.

The curve of a channel is written as g(q) = u(q) + d(u(q)), with u = log2 of the sRGB linear light of
code q, and d a polygon over u bent as little as the frames allow. Low-dimensional and with a prior,
because frames tell little about the tones they do not share (Grossberg and Nayar, "Determining the
camera response from images: what is knowable?", 2003); linear in its unknowns, so that the best curve
is one least-squares solution, reweighted against outliers. With it are found small errors of the
stated exposures: nominal f-numbers and shutter times are up to a third of a stop off. Exposures and
curve may not drift together: the offsets have no trend along the exposures, or a flatter curve would
make any disagreement small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .exposure import srgb_decode
from .tones import SHARED, Agreements, Tones, agreements

Double = NDArray[np.float64]

KNOTS = np.linspace(-11.0, 0.0, 13)  # [stops below saturation] of the polygon d
SIGMA = 0.05  # [stops] disagreement that needs no explanation
BEND, SLOPE = 1.0, 0.5  # how strongly d is kept straight, and level: inverse of one sigma [stops]
APART = 10.0  # how much more strongly the channels' own deviations are
DRIFT = 0.1  # [stops] error of a stated exposure, one sigma
STEEPEST, FLATTEST = -0.65, 1.0  # slopes of d between which cameras' curves lie, with room to spare
ENOUGH = 30  # agreements from which a curve may be fitted
MUCH = 400  # pixels from which a tone is as good as known; agreements from which they say the same again
ROUNDS = 10  # of reweighting
OUTLIER = 2.5  # robust standard deviations at which an agreement counts half
MIDDLE = 0.5  # code at which, as at white, the channels' curves are the same


@dataclass(frozen=True, eq=False)
class Evidence:
    """A bracket's tones and the ``stops`` (N,) of its frames, larger is brighter.

    ``known`` (N,) is the standard error of each [stops], infinite where nothing is known.
    """

    tones: Tones
    stops: Double
    known: Double

    @classmethod
    def of(cls, tones: Tones, stops: Sequence[float] | Double) -> Evidence:
        values = np.asarray(stops, np.float64)
        return cls(tones, values, np.full(len(values), DRIFT))

    def deeper(self) -> Evidence:
        """Return the same with the darkest tones in use."""
        return Evidence(self.tones.deeper(), self.stops, self.known)

    def at(self, positions: NDArray[np.bool_]) -> Evidence:
        return Evidence(self.tones.at(positions), self.stops, self.known)


@dataclass(frozen=True, eq=False)
class Solution:
    """``deviation`` (3, knots) of each channel's curve [stops], and the ``stops`` of all frames.

    ``links`` names for every frame of every bracket the frames that it could be compared with.
    """

    deviation: Double
    stops: list[Double]
    links: list[list[set[int]]]


def solve(
    brackets: Sequence[Evidence], prior: Double | None = None, shared: float = SHARED, rigid: bool = False
) -> Solution | None:
    """Solve for the deviations of the curve and the stops of all frames together.

    ``prior`` is the deviation expected without evidence, sRGB's zero by default. Where the exposures
    of a bracket are unknown only the prior tells the contrast of the curve, and the deviation is
    kept without a trend along it. ``shared`` is the share of positions that a pair of frames must
    have in common to be compared. ``rigid`` holds the curve at the prior. None where the frames
    share too few tones.
    """
    brackets = _finite(brackets)
    pairs = [agreements(bracket.tones, shared) for bracket in brackets]
    if sum(len(rows) for rows in pairs) < ENOUGH:
        return None
    prior = np.zeros(len(KNOTS)) if prior is None else prior
    frames = [len(bracket.stops) for bracket in brackets]
    starts = 4 * len(KNOTS) + np.cumsum([0, *frames])
    design, target, weight = _equations(pairs, [b.stops for b in brackets], starts, prior)
    beliefs = _Beliefs(int(starts[-1]))
    _bend_little(beliefs)
    if rigid:
        for k in range(4 * len(KNOTS)):
            beliefs.add([k], [1e4])
    for bracket, start in zip(brackets, starts, strict=False):
        _believe_exposures(beliefs, bracket, int(start))
    if not rigid and all(np.isfinite(bracket.known).sum() < 2 for bracket in brackets):
        _pin_contrast(beliefs, prior, pairs)
    solution, trust = np.zeros(int(starts[-1])), np.ones(len(target))
    for _ in range(ROUNDS):
        scaled = design * (weight * trust)[:, None]
        left = scaled.T @ scaled + beliefs.left
        solution = np.linalg.solve(left, scaled.T @ (target * weight * trust) + beliefs.right)
        off = target - design @ solution
        usual = max(1.48 * float(np.median(np.abs(off))), 0.02)
        trust = 1 / np.sqrt(1 + np.square(off / (OUTLIER * usual)))
        _limit_slopes(beliefs, solution, prior)
    size = len(KNOTS)
    deviation = prior + solution[:size] + solution[size : 4 * size].reshape(3, size)
    stops = [solution[a:b] for a, b in pairwise(starts)]
    links = [
        [set(rows.b[rows.a == n].tolist()) for n in range(count)]
        for rows, count in zip(pairs, frames, strict=True)
    ]
    return Solution(deviation, [s + b.stops for s, b in zip(stops, brackets, strict=True)], links)


def _finite(brackets: Sequence[Evidence]) -> list[Evidence]:
    """Return the brackets with stops of 0 where nothing is known."""
    return [Evidence(b.tones, np.where(np.isinf(b.known), 0.0, b.stops), b.known) for b in brackets]


class _Beliefs:
    """Equations about the unknowns that are believed rather than seen, summed up as normal equations."""

    def __init__(self, unknowns: int) -> None:
        self.left = np.zeros((unknowns, unknowns))
        self.right = np.zeros(unknowns)

    def add(self, where: Sequence[int], what: Sequence[float] | Double, value: float = 0.0) -> None:
        """Believe that the unknowns at ``where`` times ``what`` are ``value``, to a standard error of 1."""
        row = np.asarray(what, np.float64)
        self.left[np.ix_(where, where)] += np.outer(row, row)
        self.right[where] += row * value


def _equations(
    pairs: Sequence[Agreements], stops: Sequence[Double], starts: Double, prior: Double
) -> tuple[Double, Double, Double]:
    """Return design, target and weight of all agreements: g(code_b) - g(code_a) - stops_b + stops_a = 0."""
    size = len(KNOTS)
    total = sum(len(rows) for rows in pairs)
    design, target = np.zeros((total, int(starts[-1]))), np.zeros(total)
    weight = np.zeros(total)
    first = 0
    for rows, known, start in zip(pairs, stops, starts, strict=False):
        here = np.arange(first, first + len(rows))
        u_a, u_b = _stops_below(rows.code_a), _stops_below(rows.code_b)
        hats = _hats_at(u_b) - _hats_at(u_a)
        design[here, :size] = hats
        for channel in range(3):
            own = rows.channel == channel
            design[here[own], (channel + 1) * size : (channel + 2) * size] = hats[own]
        design[here, int(start) + rows.b] -= 1
        design[here, int(start) + rows.a] += 1
        target[here] = known[rows.b] - known[rows.a] + u_a - u_b - hats @ prior
        # A tone seen in many pairs of frames is not as many independent witnesses.
        weight[here] = np.sqrt(np.minimum(rows.count, MUCH) / MUCH / (1 + len(rows) / MUCH)) / SIGMA
        first += len(rows)
    return design, target, weight


def _bend_little(beliefs: _Beliefs) -> None:
    """Keep the common deviation smooth, and the channels' own more so.

    The latter are zero at white and in the middle: what is grey in the file stays grey. Frames cannot
    tell the channels' scale, and in saturated light a camera's colour matrix bends them apart.
    """
    size, width = len(KNOTS), KNOTS[1] - KNOTS[0]
    middle = _hats_at(_stops_below(np.array([MIDDLE])))[0]
    for block in range(4):
        apart = APART if block else 1.0
        for k in range(block * size, (block + 1) * size - 1):
            beliefs.add([k, k + 1], np.array([-1.0, 1.0]) * (SLOPE * apart * (2 if block else 1) / width))
            if k > block * size:
                beliefs.add([k - 1, k, k + 1], np.array([1.0, -2.0, 1.0]) * (BEND * apart / width**2))
        beliefs.add(range(block * size, (block + 1) * size), 100.0 * middle)
        if block:
            beliefs.add([(block + 1) * size - 1], [100.0])


def _believe_exposures(beliefs: _Beliefs, bracket: Evidence, start: int) -> None:
    """Keep the offsets from the stated exposures small and without a trend; unknown ones are free."""
    known = np.isfinite(bracket.known)
    where = start + np.flatnonzero(known)
    for k, sigma in zip(where.tolist(), bracket.known[known], strict=True):
        beliefs.add([k], [1 / float(sigma)])
    for k in range(start, start + len(known)):
        beliefs.add([k], [0.03])  # frames that share no tones with others have a solution, too
    if len(where) >= 2:
        stops = bracket.stops[known]
        beliefs.add(where.tolist(), 100.0 * (stops - stops.mean()))
    beliefs.add(range(start, start + len(known)), np.full(len(known), 1e-3 if known.any() else 100.0))


def _pin_contrast(beliefs: _Beliefs, prior: Double, pairs: Sequence[Agreements]) -> None:
    """Keep the common deviation without a trend along the prior's curve, over the tones that were seen."""
    code = np.concatenate([np.concatenate([rows.code_a, rows.code_b]) for rows in pairs])
    much = np.concatenate([np.concatenate([rows.count, rows.count]) for rows in pairs])
    u = _stops_below(code)
    level = u + np.interp(u, KNOTS, prior)
    share = np.minimum(much, MUCH) ** 0.5
    trend = share * (level - np.average(level, weights=share))
    row = (_hats_at(u) * trend[:, None]).sum(axis=0)
    row *= 1000.0 / np.abs(row).max()
    beliefs.add(range(4 * len(KNOTS)), np.concatenate([row, *([row / 3] * 3)]))


def _limit_slopes(beliefs: _Beliefs, solution: Double, prior: Double) -> None:
    """Hold the slope of every channel at its limit where the solution exceeds it, from now on."""
    size, width = len(KNOTS), KNOTS[1] - KNOTS[0]
    for channel in range(3):
        own = (channel + 1) * size
        slopes = np.diff(prior + solution[:size] + solution[own : own + size]) / width
        for k in np.flatnonzero((slopes < STEEPEST) | (slopes > FLATTEST)).tolist():
            limit = STEEPEST if slopes[k] < STEEPEST else FLATTEST
            value = 100.0 * (limit * width - (prior[k + 1] - prior[k]))
            beliefs.add([k, k + 1, own + k, own + k + 1], [-100.0, 100.0, -100.0, 100.0], value)


def _stops_below(code: Double) -> Double:
    """Return u, log2 of the sRGB linear light of a code."""
    return np.asarray(np.log2(srgb_decode(np.clip(code, 1 / 512, 1.0))))


def _hats_at(u: Double) -> Double:
    """Return the weights (R, knots) by which the polygon is read at ``u``."""
    at = np.clip((u - KNOTS[0]) / (KNOTS[1] - KNOTS[0]), 0, len(KNOTS) - 1 - 1e-9)
    index = at.astype(np.intp)
    weights = np.zeros((len(u), len(KNOTS)))
    rows = np.arange(len(u))
    weights[rows, index] = 1 - (at - index)
    weights[rows, index + 1] = at - index
    return weights
