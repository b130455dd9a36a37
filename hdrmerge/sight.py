"""What a frame shows in the reference's place, and how far it deviates from what is known of the scene.

Each aligned frame is compared with the reference in radiance. The test follows Granados et al.,
"Automatic noise modeling for ghost-free HDR reconstruction" (2013), in using the noise model as its
yardstick: a deviation is measured in units of what noise, a small misregistration at an edge and a
wrong response curve explain.

A response curve that is only nearly right makes frames differ everywhere, by an amount that depends
smoothly on the tone (Grossberg and Nayar, "Determining the camera response from images: what is
knowable?", 2003). That part is estimated from all pixels at once and forgiven: a moving object is
too small to bend a polynomial through the tones of the whole picture.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .exposure import Float, Mask, NoiseModel
from .proxy import Proxy, from_blocks

RELATIVE = 0.06  # radiometric error that is no ghost, one sigma
EDGE = 0.35  # [proxy px] residual misregistration that is no ghost, one sigma
LIMIT = 64.0  # squared deviation beyond which more says nothing more
NEAR_CLIP = 0.90  # linear level from which a channel near clipped pixels is only a lower bound: JPEG
JPEG_BLOCK = np.ones((9, 9), np.uint8)  # makes 251 of 255 in one channel where the others are bright
CRUSHED = 1.0  # [stops] by which a frame sees the reference's darkest tones brighter if these are crushed
FORGIVEN = 3.0  # [stops] largest difference that may be the response curve's
MAX_SPREAD = 0.3  # largest relative scatter that may be noise and compression


@dataclass(eq=False)
class View:
    """A frame's proxy in the reference's geometry and radiance scale; planes (h, w) of R, G, B.

    ``ratio`` is its exposure over the reference's: it clips at 1 / ``ratio``.
    """

    radiance: list[Float]
    variance: list[Float]
    inside: Mask  # covered by the frame
    usable: Mask  # and not clipped
    ratio: float

    @classmethod
    def of(cls, proxy: Proxy, alignment: Alignment, noise: NoiseModel, ratio: float) -> View:
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
        variances = [variance_of(plane, noise, proxy.factor, ratio) for plane in planes]
        return cls(planes, variances, inside, usable, ratio)

    def drifted(self, drift: Float) -> View:
        """Return what the frame shows ``drift`` (h, w, 2) px away from each pixel: x, y, in proxy pixels."""
        height, width = self.usable.shape
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x, y = x + drift[..., 0], y + drift[..., 1]

        def moved(plane: Float) -> Float:
            return np.asarray(cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))

        within = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        inside = within & (moved(self.inside.astype(np.float32)) > 0.999)
        usable = moved(self.usable.astype(np.float32)) > 0.999
        return View(
            [moved(plane) for plane in self.radiance],
            [moved(plane) for plane in self.variance],
            inside,
            usable & inside,
            self.ratio,
        )

    def chosen(self, other: View, where: Mask) -> View:
        """Return this view with the pixels ``where`` taken from another."""
        return View(
            [np.where(where, a, b) for a, b in zip(other.radiance, self.radiance, strict=True)],
            [np.where(where, a, b) for a, b in zip(other.variance, self.variance, strict=True)],
            np.where(where, other.inside, self.inside),
            np.where(where, other.usable, self.usable),
            self.ratio,
        )


@dataclass(eq=False)
class Yardstick:
    """What is known of the scene so far: the reference, and trusted frames where it is clipped."""

    radiance: list[Float]
    variance: list[Float]
    clipped: Mask
    factor: int
    pool: ThreadPoolExecutor

    @classmethod
    def of(cls, proxy: Proxy, noise: NoiseModel, pool: ThreadPoolExecutor) -> Yardstick:
        planes = list(cv2.split(proxy.linear))
        variances = [variance_of(plane, noise, proxy.factor, 1.0) for plane in planes]
        return cls(planes, variances, proxy.clipped.copy(), proxy.factor, pool)

    def deviation(self, view: View) -> Float:
        """Return how far a view is from what is known, (h, w).

        Squared, pooled over neighbours, in units of what is no ghost; at most `LIMIT`.
        """
        channels = list(self.pool.map(lambda channel: self._deviation(view, channel), range(3)))
        largest = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
        largest[~view.inside] = 0.0
        pooled = 5 if self.factor == 1 else 3
        pooled_mean = cv2.blur(np.minimum(largest, LIMIT), (pooled, pooled))
        return np.asarray(np.maximum(pooled_mean, 0.0), np.float32)  # the running sums of a blur leave -1e-7

    def _deviation(self, view: View, channel: int) -> Float:
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
        own_limit = cv2.dilate((~view.usable).view(np.uint8), JPEG_BLOCK).view(np.bool_)
        bound = own_limit & (view.radiance[channel] * np.float32(view.ratio) > NEAR_CLIP)
        np.maximum(difference, 0.0, out=difference, where=bound | ~view.usable)
        np.maximum(spread2, MAX_SPREAD**2, out=spread2, where=~view.usable)  # beyond the fitted tones
        steepness = _steepness(known)
        np.maximum(steepness, _steepness(seen), out=steepness, where=near_limit)  # the limit hides edges
        variance = mine + theirs * np.square(correction)
        variance += spread2 * known * seen
        variance += np.square(EDGE * steepness)
        return np.asarray(np.square(difference) / variance, np.float32)

    def learn(self, view: View, belief: Float) -> None:
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
        for low in np.arange(-14.0, 0.0, 0.5):
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


def variance_of(radiance: Float, noise: NoiseModel, factor: int, ratio: float) -> Float:
    """Return the variance in radiance of block averages of a frame exposed ``ratio`` times the reference."""
    # Demosaicing and JPEG correlate neighbours, so an average of n pixels counts as n / 2.
    count = max(1.0, factor**2 / 2)
    return NoiseModel(noise.photon / (ratio * count), noise.read / (ratio * count**0.5)).variance(radiance)


def _steepness(radiance: Float) -> Float:
    """Return the largest change between a pixel and its neighbours, a bound of |gradient| in 1/px."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.morphologyEx(radiance, cv2.MORPH_GRADIENT, kernel), np.float32)
