"""Find how far each frame can be trusted where: the classical answer to things that move.

Each aligned frame is compared with the reference in radiance. A difference that noise, a small
misregistration at an edge and a wrong response curve cannot explain is a ghost, and the frame is
not trusted there. The test follows Granados et al., "Automatic noise modeling for ghost-free HDR
reconstruction" (2013), in using the noise model as its yardstick; comparing pooled differences on
`Proxy` pictures makes it sensitive to faint ghosts and costs little. Frames are tested from the
exposure nearest to the reference outwards, and what a trusted frame shows where the reference is
clipped joins the yardstick for the next.

A response curve that is only nearly right makes frames differ everywhere, by an amount that depends
smoothly on the tone (Grossberg and Nayar, "Determining the camera response from images: what is
knowable?", 2003). That part is estimated from all pixels at once and forgiven: a moving object is
too small to bend a polynomial through the tones of the whole picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .bracket import Frame
from .exposure import Float, Mask, NoiseModel
from .proxy import Proxy, from_blocks

Trust = NDArray[np.uint8]  # (h, w) in proxy pixels, 255 = fully trusted

RELATIVE = 0.06  # radiometric error that is no ghost, one sigma
EDGE = 0.35  # [proxy px] residual misregistration that is no ghost, one sigma
POSSIBLE, CERTAIN = 2.2, 4.0  # pooled deviation in sigma: what may be a ghost, and what must be one
BORDER = 0.015  # of the picture's long side: over this width at most trust grows from a frame's border
SMALLEST = 8  # [proxy px] certain pixels a ghost has at least; fewer are noise
NEAR_CLIP = 0.90  # linear level from which a channel near clipped pixels is only a lower bound: JPEG
JPEG_BLOCK = np.ones((9, 9), np.uint8)  # makes 251 of 255 in one channel where the others are bright
CRUSHED = 1.0  # [stops] by which a frame sees the reference's darkest tones brighter if these are crushed
FORGIVEN = 3.0  # [stops] largest difference that may be the response curve's
WHOLE = 0.9  # of the comparable pixels of a row: it disagrees as a whole
MIN_WIDTH = 0.3  # of a row that must be comparable for that
MAX_SPREAD = 0.3  # largest relative scatter that may be noise and compression


@dataclass(frozen=True, eq=False)
class Ghosts:
    """``trust``: one map a frame, None where all of it is trusted; ``share``: of the picture that is not.

    ``band``: the height, as a share of the picture's, over whose full width a frame disagrees. What
    moves is seldom as wide as the picture; a damaged file is, from the damage on.
    """

    trust: list[Trust | None]
    share: list[float]
    band: list[float]


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
    others = [i for i in range(len(proxies)) if i != reference and alignments[i].used]
    with ThreadPoolExecutor() as pool:
        known = _Yardstick.of(proxies[reference], noises[reference], pool)
        for i in sorted(others, key=lambda i: abs(np.log2(exposures[i] / exposures[reference]))):
            ratio = float(exposures[i] / exposures[reference])
            view = _View.of(proxies[i], alignments[i], noises[i], ratio)
            belief = known.trust_in(view)
            band[i] = _band(belief < 0.5, view.usable & view.inside & ~known.clipped)
            known.learn(view, belief)
            trust[i] = (belief * 255.0 + 0.5).astype(np.uint8)
            share[i] = float(np.mean((belief < 0.5) & view.usable))
    return Ghosts(trust, share, band)


def tolerance(frame: Frame) -> NoiseModel:
    """Return the noise of a frame as ghosts are judged by: with what JPEG does to 8-bit codes.

    Quantised cosine coefficients move codes by one or two; rounding to every fifth code has that
    standard deviation.
    """
    return frame.noise if frame.codes.dtype != np.uint8 else frame.noise.with_quantisation(frame.response, 52)


@dataclass(eq=False)
class _View:
    """A frame's proxy in the reference's geometry and radiance scale; planes (h, w) of R, G, B."""

    radiance: list[Float]
    variance: list[Float]
    inside: Mask  # covered by the frame
    usable: Mask  # and not clipped

    @classmethod
    def of(cls, proxy: Proxy, alignment: Alignment, noise: NoiseModel, ratio: float) -> _View:
        linear, usable = proxy.linear, ~proxy.clipped
        inside = np.ones_like(usable)
        if not alignment.is_identity:
            height, width = usable.shape
            up = from_blocks(proxy.factor)
            matrix = np.linalg.inv(up) @ alignment.matrix @ up
            flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, (width, height)
            linear = cv2.warpPerspective(linear, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            safe = cv2.erode(usable.astype(np.uint8) * 255, np.ones((3, 3)), borderValue=255)
            usable = cv2.warpPerspective(safe, matrix, size, flags=flags) == 255
            whole = np.full((height, width), 255, np.uint8)
            inside = cv2.warpPerspective(whole, matrix, size, flags=flags) == 255
        planes = [plane * np.float32(1 / ratio) for plane in cv2.split(linear)]
        variances = [_variance(plane, noise, proxy.factor, ratio) for plane in planes]
        return cls(planes, variances, inside, usable)


@dataclass(eq=False)
class _Yardstick:
    """What is known of the scene so far: the reference, and trusted frames where it is clipped."""

    radiance: list[Float]
    variance: list[Float]
    clipped: Mask
    factor: int
    pool: ThreadPoolExecutor

    @classmethod
    def of(cls, proxy: Proxy, noise: NoiseModel, pool: ThreadPoolExecutor) -> _Yardstick:
        planes = list(cv2.split(proxy.linear))
        variances = [_variance(plane, noise, proxy.factor, 1.0) for plane in planes]
        return cls(planes, variances, proxy.clipped.copy(), proxy.factor, pool)

    def trust_in(self, view: _View) -> Float:
        """Return the trust in a view, (h, w) in [0, 1]."""
        deviations = list(self.pool.map(lambda channel: self._deviation(view, channel), range(3)))
        deviation = np.maximum(np.maximum(deviations[0], deviations[1]), deviations[2])
        deviation[~view.inside] = 0.0
        pooled = 5 if self.factor == 1 else 3
        deviation = cv2.blur(np.minimum(deviation, 4 * CERTAIN**2), (pooled, pooled))
        ghost = _connected(deviation > POSSIBLE**2, deviation > CERTAIN**2)
        # A ghost's rim is fainter than its middle: widen what is distrusted, then feather it.
        ghost = cv2.dilate(ghost, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        belief = 1.0 - cv2.GaussianBlur(ghost.astype(np.float32), (0, 0), 2.0)
        if not view.inside.all():  # no seam where a shifted frame ends
            missing = cv2.distanceTransform((~view.inside).view(np.uint8), cv2.DIST_L2, 3).max()
            distance = cv2.distanceTransform(view.inside.view(np.uint8), cv2.DIST_L2, 3)
            belief *= np.minimum(distance / min(2 * missing, BORDER * max(distance.shape)), 1.0)
        return np.asarray(belief, np.float32)

    def _deviation(self, view: _View, channel: int) -> Float:
        """Return the squared difference of a channel, in units of what is no ghost."""
        known, seen = self.radiance[channel], view.radiance[channel]
        mine, theirs = self.variance[channel], view.variance[channel]
        tone = _ToneDifference.between(known, seen, mine + theirs, ~self.clipped, view.usable)
        correction, spread2 = tone.at(known)
        # Crushed blacks of the yardstick may be anything up to a ceiling: only brighter is a ghost.
        crushed = known < tone.black
        known = np.where(crushed, np.clip(seen, known, tone.ceiling), known)
        correction[crushed] = 1.0
        seen = seen * correction
        difference = seen - known
        # What is clipped is at least that bright: in the yardstick only darker is a ghost, in the
        # frame only brighter.
        near_limit = cv2.dilate(self.clipped.view(np.uint8), JPEG_BLOCK).view(np.bool_)
        np.minimum(difference, 0.0, out=difference, where=near_limit & (known > NEAR_CLIP))
        np.maximum(difference, 0.0, out=difference, where=~view.usable)
        np.maximum(spread2, MAX_SPREAD**2, out=spread2, where=~view.usable)  # beyond the fitted tones
        steepness = _steepness(known)
        np.maximum(steepness, _steepness(seen), out=steepness, where=near_limit)  # the limit hides edges
        variance = mine + theirs * np.square(correction)
        variance += spread2 * known * seen
        variance += np.square(EDGE * steepness)
        return np.asarray(np.square(difference) / variance, np.float32)

    def learn(self, view: _View, belief: Float) -> None:
        """Let a trusted view sharpen the yardstick, and fill it where it was clipped."""
        trusted = (belief > 0.9) & view.usable
        fill = trusted & self.clipped

        def learn_channel(channel: int) -> None:
            mine, theirs = self.variance[channel], view.variance[channel]
            weight = mine / (mine + theirs) * trusted
            self.radiance[channel] += weight * (view.radiance[channel] - self.radiance[channel])
            mine *= 1 - weight
            np.copyto(self.radiance[channel], view.radiance[channel], where=fill)
            np.copyto(mine, theirs, where=fill)

        list(self.pool.map(learn_channel, range(3)))
        self.clipped &= ~fill


@dataclass(frozen=True, eq=False)
class _ToneDifference:
    """How a channel of two aligned frames differs by tone: log2(seen / known) over log2(known)."""

    tones: NDArray[np.float64]  # knots, log2 of known radiance
    stops: NDArray[np.float64]  # the smooth difference there
    spread: NDArray[np.float64]  # relative scatter about it, one sigma
    black: float  # known radiance below which the yardstick saw nothing but its own black
    ceiling: float  # and what the frame sees there at most

    @classmethod
    def between(
        cls, known: Float, seen: Float, variance: Float, known_ok: Mask, seen_ok: Mask
    ) -> _ToneDifference:
        """Fit a polynomial through the medians of half-stop bins, all pixels together.

        Only bins count that the frame recorded for the most part. Where a long exposure clipped
        most of a tone, what is left of it is what moved.
        """
        stride = max(1, int(np.sqrt(known.size / 100_000)))
        some = (slice(None, None, stride), slice(None, None, stride))
        known, seen, variance = known[some].ravel(), seen[some].ravel(), variance[some].ravel()
        sure = known_ok[some].ravel() & (known > 0) & (known**2 > 4 * variance)
        recorded = seen_ok[some].ravel() & (seen > 0)
        unsure = known_ok[some].ravel() & ~sure
        in_black = seen[recorded & unsure]
        noise = 2 * float(np.median(variance[unsure])) ** 0.5 if len(in_black) else 0.0
        known, seen, recorded = known[sure], seen[sure], recorded[sure]
        tone = np.log2(known)
        bins = []
        for low in np.arange(-14.0, 6.5, 0.5):
            inside = (tone >= low) & (tone < low + 0.5)
            both = inside & recorded
            if np.count_nonzero(both) >= max(60, 0.6 * np.count_nonzero(inside)):
                bins.append((low + 0.25, np.log2(seen[both] / known[both])))
        if not bins:  # no tone in common: all that can be said is that nothing may turn darker
            return cls(np.array([0.0]), np.array([0.0]), np.array([RELATIVE]), np.inf, np.inf)
        # Blacks are crushed where the darkest tones still comparable are off.
        crushed = len(in_black) >= 60 and float(np.median(bins[0][1])) > CRUSHED
        black, ceiling = (noise, float(np.percentile(in_black, 90))) if crushed else (0.0, 0.0)
        tones = np.array([centre for centre, _ in bins])
        medians = np.array([np.median(ratios) for _, ratios in bins])
        weights = np.array([min(len(ratios), 2000) ** 0.5 for _, ratios in bins])
        fit = np.polynomial.Polynomial.fit(tones, medians, min(5, (len(bins) - 1) // 2), w=weights)
        stops = np.clip(fit(tones), -FORGIVEN, FORGIVEN)
        scatter = [1.48 * np.median(np.abs(r - s)) for (_, r), s in zip(bins, stops, strict=True)]
        spread = np.clip(np.array(scatter) * np.log(2), RELATIVE, MAX_SPREAD)
        return cls(tones, stops, spread, black, ceiling)

    def at(self, known: Float) -> tuple[Float, Float]:
        """Return the factor that undoes the difference, and the squared scatter, at each pixel's tone."""
        steps = np.arange(-16.0, 8.0, 0.125)
        tone = (np.log2(np.maximum(known, np.float32(2**-16))) + 16) * 8
        index = np.minimum(tone, np.float32(len(steps) - 1)).astype(np.uint8)
        stops, spread = (np.interp(steps, self.tones, values) for values in (self.stops, self.spread))
        tables = np.exp2(-stops).astype(np.float32), np.square(spread).astype(np.float32)
        return tables[0].take(index), tables[1].take(index)


def _connected(possible: Mask, certain: Mask) -> NDArray[np.uint8]:
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


def _variance(radiance: Float, noise: NoiseModel, factor: int, ratio: float) -> Float:
    """Return the variance in radiance of block averages of a frame exposed ``ratio`` times the reference."""
    # Demosaicing and JPEG correlate neighbours, so an average of n pixels counts as n / 2.
    count = max(1.0, factor**2 / 2)
    return NoiseModel(noise.photon / (ratio * count), noise.read / (ratio * count**0.5)).variance(radiance)


def _steepness(radiance: Float) -> Float:
    """Return the largest change between a pixel and its neighbours, a bound of |gradient| in 1/px."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.morphologyEx(radiance, cv2.MORPH_GRADIENT, kernel), np.float32)
