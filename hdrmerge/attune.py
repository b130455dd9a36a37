"""Bring frames that still disagree by tone to the tones of the reference.

A response curve that is wrong, because the user named it or because the frames do not tell it, makes a
frame brighter or darker than the reference shows the same scene, by an amount that depends on the tone
and, if the curve is off by a power, on the exposure alone (Grossberg and Nayar, "What can be known about
the radiometric response from images?", 2002). What is true cannot be told then, but a blend of frames that
disagree has seams wherever their shares change. So the difference is measured tone by tone, in medians that
what moved does not bend, and where it is more than curves leave that were found, it is taken out of the
frame's own curve and exposure. The reference stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curvefit import MUCH, OUTLIER
from .exposure import Response
from .response import FAR
from .tones import SHARED, Tones, agreements

Double = NDArray[np.float64]

NOTICEABLE = 0.1  # [stops rms] difference between frames that is no noise
FEWEST, ENOUGH = 3, 12  # agreements that tell a difference, and how it depends on the tone
ENDS = 0.02  # of what was seen, at either end of the tones: too little to go on from
ROUNDS = 6  # of reweighting
LARGEST = 1.5  # [stops] more is another scene, or another time of the day
UNEXPLAINED = 0.4  # of a difference: more than that left over, and it is none of tone


@dataclass(frozen=True, eq=False)
class Difference:
    """How much brighter a frame shows what the reference shows: ``stops`` over ``tones``.

    ``tones`` are log2 of the frame's own linear light; outside of them the difference stays what it is
    at their ends.
    """

    tones: Double
    stops: Double

    def at(self, tone: Double) -> Double:
        return np.interp(tone, self.tones, self.stops)

    @property
    def at_white(self) -> float:
        return float(self.at(np.zeros(1))[0])

    def taken_out_of(self, response: Response) -> Response:
        """Return the curve without the difference, apart from that at white, which is the exposure's."""
        tone = np.log2(np.maximum(response.table.astype(np.float64), 2.0**-30))
        factor = np.exp2(self.at_white - self.at(tone))
        table = np.maximum.accumulate(response.table * factor, axis=0)
        return Response(response.name, np.minimum(table, response.table[-1]).astype(np.float32))


def attune(tones: Tones, curve: Response, stops: Double, reference: int) -> list[Difference | None]:
    """Return for each frame how it differs from the reference by tone; None where that is not worth it.

    ``tones`` are samples of the aligned frames, ``curve`` what makes them linear, ``stops`` (N,) the
    exposures. Frames are compared with the one nearest to them in exposure that is already in tune; one
    that differs by more than tone is left as it is, and no other is compared with it.
    """
    found: list[Difference | None] = [None] * tones.frames
    tuned = [reference]
    usual, deeper = _Pairs(tones, curve), _Pairs(tones.deeper(), curve, FAR)
    for n in sorted(range(tones.frames), key=lambda n: abs(stops[n] - stops[reference])):
        nearest = sorted(tuned, key=lambda m: abs(stops[m] - stops[n]))
        choices = [(pairs, m) for pairs in (usual, deeper) for m in nearest if n != reference]
        for pairs, other in choices:
            own, known, count = pairs.between(n, other)
            if len(own) < FEWEST:
                continue
            if (before := found[other]) is not None:
                known = known - before.at(known)
            difference, left = _fitted(own, own - stops[n] - known + stops[other], count)
            if _size(difference) > NOTICEABLE:
                if not _of_tone(difference, left):
                    break
                found[n] = difference
            tuned.append(n)
            break
    return found


class _Pairs:
    """The tones in which two frames agree, as log2 of the linear light that a curve gives them."""

    def __init__(self, tones: Tones, curve: Response, shared: float = SHARED) -> None:
        self.rows = rows = agreements(tones, shared)
        self.level_a, self.level_b = (
            curve.level(tones.as_stored(code, rows.channel), rows.channel)
            for code in (rows.code_a, rows.code_b)
        )

    def between(self, n: int, other: int) -> tuple[Double, Double, Double]:
        """Return the levels of frame ``n``, those of another where it shows the same, and the pixels behind.

        For the tones of either, so that noise in neither bends what is read from them.
        """
        a, b = self.rows.a, self.rows.b
        there, back = (a == n) & (b == other), (a == other) & (b == n)
        own = np.concatenate([self.level_a[there], self.level_b[back]])
        known = np.concatenate([self.level_b[there], self.level_a[back]])
        return own, known, np.concatenate([self.rows.count[there], self.rows.count[back]])


def _size(difference: Difference) -> float:
    return float(np.sqrt(np.mean(np.square(difference.stops))))


def _of_tone(difference: Difference, left: float) -> bool:
    """Tell whether a difference is no other scene's, and explains what was seen."""
    return float(np.abs(difference.stops).max()) < LARGEST and left < UNEXPLAINED * _size(difference)


def _fitted(tone: Double, stops: Double, count: Double) -> tuple[Difference, float]:
    """Fit a parabola through differences, a constant through few; what moved loses its weight.

    Also returned: the median of what it leaves [stops].
    """
    order = np.argsort(tone)
    tone, stops, weight = tone[order], stops[order], np.minimum(count[order], MUCH)
    off = np.abs(stops - _median(stops, weight))
    degree = 2 if len(tone) >= ENOUGH else 0
    for _ in range(ROUNDS):
        scale = max(OUTLIER * _median(off, weight), 0.02)
        trust = np.sqrt(weight) / (1 + np.square(off / scale))
        fit = np.polynomial.Polynomial.fit(tone, stops, degree, w=trust)
        off = np.abs(stops - fit(tone))
    share = np.cumsum(weight) / weight.sum()
    first, last = np.searchsorted(share, [ENDS, 1 - ENDS])
    grid = np.linspace(tone[first], tone[last], 33)
    return Difference(grid, fit(grid)), _median(off, weight)


def _median(values: Double, weight: Double) -> float:
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(values[order][np.searchsorted(share, 0.5)])


def described(differences: Sequence[Difference | None]) -> str:
    """Return the largest of the differences in words; there is one at least."""
    return f"{max(_size(one) for one in differences if one is not None):.2f} EV"
