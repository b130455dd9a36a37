"""Find how far each frame can be trusted where: the classical answer to things that move.

A deviation from the reference (`sight.py`) that noise, edges and tone cannot explain is a ghost, and the
frame is not trusted there. Comparing pooled differences on `Proxy` pictures makes the test sensitive to
faint ghosts and costs little. Frames are tested from the exposure nearest to the reference outwards, and
what a trusted frame shows where the reference is clipped joins the yardstick for the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .bracket import Frame
from .drift import follow
from .exposure import Float, Mask, NoiseModel
from .proxy import Proxy
from .sight import View, Yardstick

Trust = NDArray[np.uint8]  # (h, w) in proxy pixels, 255 = fully trusted

POSSIBLE, CERTAIN = 2.2, 4.0  # pooled deviation in sigma: what may be a ghost, and what must be one
BORDER = 0.015  # of the picture's long side: over this width at most trust grows from a frame's border
SUSPECT, SURE = 1.7, 3.0  # pooled deviation in sigma around which a network may act
REACH = 17  # [proxy px] width of the ellipse that widens it
SOFT = 3.0  # [proxy px] sigma over which its say begins
SMALLEST = 8  # [proxy px] certain pixels a ghost has at least; fewer are noise
WHOLE = 0.9  # of the comparable pixels of a row: it disagrees as a whole
MIN_WIDTH = 0.3  # of a row that must be comparable for that


@dataclass(frozen=True, eq=False)
class Ghosts:
    """``trust``: one map a frame, None where all of it is trusted; ``share``: of the picture that is not.

    ``band``: the height, as a share of the picture's, over whose full width a frame disagrees. What
    moves is seldom as wide as the picture; a damaged file is, from the damage on. A network also says
    ``drift``, one map (h, w, 2) [proxy px] a frame of how far away it shows what the reference shows,
    and a ``correction`` (h, w, 3) of the merged result, in the domain of `exposure.mu_law`. ``gate`` (h, w)
    in [0, 1] is how far a network that paints has a say; None where it has none anywhere.
    """

    trust: list[Trust | None]
    share: list[float]
    band: list[float]
    drift: list[Float | None] = field(default_factory=list)
    correction: Float | None = None
    gate: Float | None = None

    @property
    def distrust(self) -> Trust | None:
        """The mean over frames of what trust lacks, (h, w); None where every frame is trusted throughout."""
        maps = [255 - trust.astype(np.float32) for trust in self.trust if trust is not None]
        return (np.mean(maps, axis=0) + 0.5).astype(np.uint8) if maps else None


@dataclass(frozen=True, eq=False)
class Sight:
    """A frame compared with the reference, in proxy pixels (h, w).

    ``deviation`` is squared, in units of what is no ghost; ``belief`` in [0, 1] is the classical trust;
    ``cover`` in [0, 1] falls towards the frame's border. ``drift`` (h, w, 2) is what was followed, and
    ``before`` the deviation without it.
    """

    frame: int
    view: View
    deviation: Float
    belief: Float
    cover: Float | None
    band: float
    before: Float
    drift: Float | None = None

    @property
    def trust(self) -> Float:
        return self.belief if self.cover is None else self.belief * self.cover


def deghost(
    proxies: Sequence[Proxy],
    exposures: Sequence[float],
    noises: Sequence[NoiseModel],
    alignments: Sequence[Alignment],
    reference: int,
) -> Ghosts:
    """Compare every aligned frame with the reference and return the trust in each."""
    trust: list[Trust | None] = [None] * len(proxies)
    share, band = [0.0] * len(proxies), [0.0] * len(proxies)
    for sight in compare(proxies, exposures, noises, alignments, reference):
        belief = sight.trust
        trust[sight.frame] = (belief * 255.0 + 0.5).astype(np.uint8)
        share[sight.frame] = float(np.mean((belief < 0.5) & sight.view.usable))
        band[sight.frame] = sight.band
    return Ghosts(trust, share, band)


def compare(
    proxies: Sequence[Proxy],
    exposures: Sequence[float],
    noises: Sequence[NoiseModel],
    alignments: Sequence[Alignment],
    reference: int,
    following: bool = False,
) -> Iterator[Sight]:
    """Compare the frames that are used with the reference, the nearest exposure first.

    With ``following`` a frame is compared as it looks after what moved in it was put in place.
    """
    others = [i for i in range(len(proxies)) if i != reference and alignments[i].used]
    with ThreadPoolExecutor() as pool:
        known = Yardstick.of(proxies[reference], noises[reference], pool)
        for i in sorted(others, key=lambda i: abs(np.log2(exposures[i] / exposures[reference]))):
            ratio = float(exposures[i] / exposures[reference])
            view = View.of(proxies[i], alignments[i], noises[i], ratio)
            deviation = known.deviation(view)
            belief = belief_in(deviation)
            comparable = view.usable & view.inside & ~known.clipped
            band, cover = _band(belief < 0.5, comparable), _cover(view, proxies[reference].clipped)
            sight = Sight(i, view, deviation, belief, cover, band, deviation)
            followed = follow(known, view, deviation, belief < 1.0) if following else None
            if followed is not None:
                view, deviation, drift = followed
                belief = belief_in(deviation)
                sight = replace(sight, view=view, deviation=deviation, belief=belief, drift=drift)
            known.learn(view, sight.trust)
            yield sight


def belief_in(deviation: Float) -> Float:
    """Return the trust (h, w) in [0, 1] that a pooled deviation leaves."""
    ghost = connected(deviation > POSSIBLE**2, deviation > CERTAIN**2)
    # A ghost's rim is fainter than its middle: widen what is distrusted, then feather it.
    ghost = cv2.dilate(ghost, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
    return np.asarray(1.0 - cv2.GaussianBlur(ghost.astype(np.float32), (0, 0), 2.0), np.float32)


def gate_of(deviations: Sequence[Float]) -> Float:
    """Return where some frame deviates, (h, w): 1 there and around it, falling softly to exactly 0.

    There, and nowhere else, a network may act. ``deviations`` are squared, as in `Sight`.
    """
    suspect = np.zeros(deviations[0].shape, np.uint8)
    for deviation in deviations:
        suspect |= connected(deviation > SUSPECT**2, deviation > SURE**2)
    suspect = cv2.dilate(suspect, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (REACH, REACH)))
    soft = cv2.GaussianBlur(suspect.astype(np.float32), (0, 0), SOFT)
    return np.asarray(np.clip(soft * 1.1 - 0.05, 0.0, 1.0), np.float32)


def _cover(view: View, clipped: Mask) -> Float | None:
    """Return the share of trust kept towards a frame's border, so that no seam shows where it ends.

    All of it where the reference is ``clipped``: a shorter frame is better than its limit to the last pixel.
    """
    if view.inside.all():
        return None
    missing = cv2.distanceTransform((~view.inside).view(np.uint8), cv2.DIST_L2, 3).max()
    distance = cv2.distanceTransform(view.inside.view(np.uint8), cv2.DIST_L2, 3)
    cover = np.minimum(distance / min(2 * missing, BORDER * max(distance.shape)), 1.0)
    if view.ratio < 1.0:
        cover[clipped & view.inside] = 1.0
    return np.asarray(cover, np.float32)


def tolerance(frame: Frame) -> NoiseModel:
    """Return the noise of a frame as ghosts are judged by: with what JPEG does to 8-bit codes.

    Quantised cosine coefficients move codes by one or two; rounding to every fifth code has that
    standard deviation.
    """
    return frame.noise if frame.codes.dtype != np.uint8 else frame.noise.with_quantisation(frame.response, 52)


def connected(possible: Mask, certain: Mask) -> NDArray[np.uint8]:
    """Keep the regions of ``possible`` that contain enough ``certain`` pixels (hysteresis, Canny 1986)."""
    count, labels = cv2.connectedComponents(possible.astype(np.uint8), connectivity=8)
    votes = np.bincount(labels[certain], minlength=count)
    votes[0] = 0
    return np.asarray((votes >= SMALLEST).astype(np.uint8).take(labels))


def _band(ghost: Mask, comparable: Mask) -> float:
    """Return the share of the rows, side by side, that are ghosts nearly everywhere."""
    width = comparable.sum(axis=1)
    full = (ghost & comparable).sum(axis=1) > WHOLE * width
    full &= width > MIN_WIDTH * comparable.shape[1]
    steps = np.diff(np.concatenate([[False], full, [False]]).astype(np.int8))
    heights = np.flatnonzero(steps == -1) - np.flatnonzero(steps == 1)
    return float(heights.max(initial=0) / len(full))
