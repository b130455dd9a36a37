"""Merge aligned frames into radiance with noise-optimal weights.

Each frame i measures the radiance X as p_i / e_i, its linear signal over its relative exposure,
with variance var(p_i) / e_i^2. The weighted mean with inverse variances is the best linear
unbiased estimate (Kirk and Andersen 2006; Granados et al., "Optimal HDR reconstruction with linear
digital cameras", 2010). Variances are taken at the expected signal e_i X0, not at the noisy one,
which would favour pixels that happen to be dark; X0 comes from photon-count weights, which need no
radiance (Hanji, Zhong and Mantiuk 2020). Near saturation a weight fades to zero; where every frame
is clipped the shortest one speaks, marked invalid and free of colour casts. One weight a pixel
serves all channels, so that a blend never changes a hue.

Memory: two strips of rows in flight, whatever the number of frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .bracket import Bracket, Frame
from .deghost import Ghosts, Trust
from .exposure import Array, Float, Mask, mu_law, mu_law_inverse, smoothstep
from .proxy import from_blocks

STRIP, TILE = 128, 512  # rows and columns worked on at a time: a tile's planes fit the cache
FADE_RAW = (0.95, 0.985)  # linear levels between which a weight fades to zero
FADE_DEVELOPED = (0.80, 0.97)  # earlier where the shoulder of a JPEG's curve is a guess
DOUBTFUL, CERTAIN = 0.985, 0.997  # linear level where a channel begins to count as clipped, and where it is
LAST_RESORT = 1e-6  # weight of the shortest trusted frame where all are clipped
MAYBE_CLIPPED, SURELY_CLIPPED = 1.8, 3.0  # signal that a shorter frame predicts where this one nearly clips
OVERSHOOT = 0.2  # cubic resampling may leave the bilinear value by this share
EDGE = 1e-3  # [px] beyond a frame's border that is rounding
TEAR = 1.0  # [proxy px] by which neighbours that drift together differ at most
DISTRUST = 0.02  # trust below this is none at all

Matrix = NDArray[np.float64]


def merge(
    bracket: Bracket,
    alignments: Sequence[Alignment],
    ghosts: Ghosts,
    progress: Callable[[float], None] | None = None,
) -> tuple[Float, Mask]:
    """Return radiance (H, W, 3), linear Rec. 709 with 1.0 = reference white, and validity (H, W).

    ``progress`` is called with the share of rows done, from several threads.
    """
    drifts = ghosts.drift or [None] * len(bracket.frames)
    frames = [
        Input.of(frame, bracket.reference_frame, alignment, belief, drift)
        for frame, alignment, belief, drift in zip(
            bracket.frames, alignments, ghosts.trust, drifts, strict=True
        )
        if alignment.used
    ]
    height, width = bracket.reference_frame.height, bracket.reference_frame.width
    radiance = np.empty((height, width, 3), np.float32)
    valid = np.empty((height, width), np.bool_)
    to_rec709 = bracket.reference_frame.to_rec709
    starts = range(0, height, STRIP)

    def work(top: int) -> None:
        bottom = min(top + STRIP, height)
        strips = [frame.strip(top, bottom, width) for frame in frames]
        for left in range(0, width, TILE):
            right = min(left + TILE, width)
            signals = [strip.tile(left, right) for strip in strips]
            change = upsampled(ghosts.correction, height, (top, bottom, left, right))
            planes, ok = _combine(frames, signals, to_rec709, change)
            cv2.merge(planes, dst=radiance[top:bottom, left:right])
            valid[top:bottom, left:right] = ok
        if progress:
            progress((bottom - top) / height)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, starts):
            pass
    return radiance, valid


def upsampled(
    plane: Array | None,
    height: int,
    tile: tuple[int, int, int, int],
    interpolation: int = cv2.INTER_LINEAR,
    ordinary: int = 0,
) -> Array | None:
    """Return rows ``top:bottom``, columns ``left:right`` of a proxy's plane at full size, bilinear.

    None where all of it has the ``ordinary`` value.
    """
    if plane is None:
        return None
    (top, bottom, left, right), factor = tile, height // plane.shape[0]
    patch = plane[max(top // factor - 1, 0) : bottom // factor + 2]
    if (patch[:, max(left // factor - 1, 0) : right // factor + 2] == ordinary).all():
        return None
    corner = np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]])
    inward = (np.linalg.inv(from_blocks(factor)) @ corner)[:2]
    flags, size = interpolation | cv2.WARP_INVERSE_MAP, (right - left, bottom - top)
    return np.asarray(cv2.warpAffine(plane, inward, size, flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _torn(drift: Float) -> NDArray[np.uint8]:
    """Return where neighbours drift apart, (h, w): between what moved and what did not is no halfway."""
    spread = cv2.morphologyEx(drift, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return np.asarray(spread.max(axis=2) > TEAR, np.uint8)


def fade_of(frame: Frame) -> tuple[float, float]:
    """Return the linear levels, over the clipping level, between which a frame's weight fades to zero."""
    return FADE_RAW if frame.response.is_linear else FADE_DEVELOPED


@dataclass(frozen=True, eq=False)
class Signal:
    """One frame's share in a tile: planes (h, w) of linear light and what is known of them."""

    planes: list[Float]
    trust: Float | None  # 0 where the frame does not reach; None: trusted everywhere


@dataclass(frozen=True, eq=False)
class Input:
    """A frame ready to be merged: exposure relative to the reference, inverse mapping, trust."""

    frame: Frame
    ratio: float
    electrons: float  # counted for the same light, relative to the reference
    matrix: Matrix | None  # reference pixel -> frame pixel; None = identity
    trust: Trust | None
    drift: Float | None  # (h, w, 2) [proxy px], how far away it shows what the reference shows
    torn: NDArray[np.uint8] | None  # (h, w) where neighbours drift apart
    recolour: Float | None  # to the reference's linear colours; None = they are the same
    is_reference: bool
    fade: tuple[float, float]  # linear levels between which the weight fades to zero

    @classmethod
    def of(
        cls, frame: Frame, reference: Frame, alignment: Alignment, trust: Trust | None, drift: Float | None
    ) -> Input:
        recolour = np.linalg.solve(reference.to_rec709.astype(np.float64), frame.to_rec709)
        return cls(
            frame,
            frame.exposure / reference.exposure,
            frame.exposure / frame.noise.photon / (reference.exposure / reference.noise.photon),
            None if alignment.is_identity else alignment.matrix,
            trust,
            drift,
            None if drift is None else _torn(drift),
            None if np.allclose(recolour, np.eye(3), atol=1e-4) else recolour.astype(np.float32),
            frame is reference,
            fade_of(frame),
        )

    def strip(self, top: int, bottom: int, width: int) -> Strip:
        """Fetch the codes that rows ``top:bottom`` of the reference are made from."""
        first, last = top, bottom
        (left, right), (up, down) = self._drift_reach(top, bottom)
        if self.matrix is not None or up < down:
            across = np.linspace(left, width + right, 9)
            edge = np.array([[x, y] for y in (top + up, bottom + down) for x in across], np.float64)
            matrix = np.eye(3) if self.matrix is None else self.matrix
            rows = cv2.perspectiveTransform(edge[:, None], matrix)[:, 0, 1]
            first = int(np.clip(np.floor(rows.min()) - 3, 0, self.frame.height - 1))
            last = int(np.clip(np.ceil(rows.max()) + 4, first + 1, self.frame.height))
        return Strip(self, top, bottom, first, self.frame.codes[first:last])

    def _drift_reach(self, top: int, bottom: int) -> list[tuple[float, float]]:
        """Return how far rows ``top:bottom`` look for what moved [px]: left (<= 0) and right; up and down."""
        if self.drift is None:
            return [(0.0, 0.0)] * 2
        factor = self.frame.height // len(self.drift)
        ways = self.drift[max(top // factor - 1, 0) : bottom // factor + 2]
        return [
            (min(float(way.min()), 0.0) * factor, max(float(way.max()), 0.0) * factor)
            for way in (ways[..., 0], ways[..., 1])
        ]

    def drifted(self, top: int, bottom: int, left: int, right: int) -> Float | None:
        """Return the drift (h, w, 2) [px] of a tile at full size, None where nothing is followed."""
        if self.drift is None:
            return None
        tile = (top, bottom, left, right)
        drift = upsampled(self.drift, self.frame.height, tile)
        if drift is None:
            return None
        torn = upsampled(self.torn, self.frame.height, tile, cv2.INTER_NEAREST)
        nearest = upsampled(self.drift, self.frame.height, tile, cv2.INTER_NEAREST)
        if torn is not None and nearest is not None:
            drift = np.where(torn[..., None] > 0, nearest, drift)
        return np.asarray(drift * np.float32(self.frame.height // len(self.drift)), np.float32)

    def believed(self, top: int, bottom: int, left: int, right: int) -> Float | None:
        """Return the trust in a tile at full size, bilinear between proxy pixels."""
        if self.trust is None:
            return None
        patch = upsampled(self.trust, self.frame.height, (top, bottom, left, right), ordinary=255)
        if patch is None:
            return None
        belief = patch * np.float32(1 / 255)
        # A long exposure outweighs the reference by its electrons. For trust to be its share in the
        # blend, and not lost against that weight, it is scaled down accordingly.
        belief = belief / (1 + (1 - belief) * np.float32(self.electrons))
        return np.asarray(np.where(belief > DISTRUST, belief, 0.0), np.float32)


@dataclass(frozen=True, eq=False)
class Strip:
    """Codes of a frame that cover a strip of reference rows, the first of them frame row ``first``."""

    source: Input
    top: int
    bottom: int
    first: int
    codes: Array

    def tile(self, left: int, right: int) -> Signal:
        frame, trust = self.source.frame, self.source.believed(self.top, self.bottom, left, right)
        drift = self.source.drifted(self.top, self.bottom, left, right)
        if self.source.matrix is None and drift is None:
            rows = self.codes[self.top - self.first : self.bottom - self.first, left:right]
            linear = frame.response.decode(np.ascontiguousarray(rows))
        else:
            linear, inside = self._resampled(left, right, drift)
            if inside is not None:
                trust = inside if trust is None else trust * inside
        if self.source.recolour is not None:
            linear = cv2.transform(linear, self.source.recolour)
        return Signal(list(cv2.split(linear)), trust)

    def _resampled(self, left: int, right: int, drift: Float | None) -> tuple[Float, Float | None]:
        """Resample a tile bicubically, without ringing; and 1.0 where the frame covers it, None = all."""
        height, width = self.source.frame.height, self.source.frame.width
        x, y = self._seen_at(left, right, drift)
        x0 = int(np.clip(np.floor(x.min()) - 3, 0, width - 1))
        x1 = int(np.clip(np.ceil(x.max()) + 4, x0 + 1, width))
        y0 = int(np.clip(np.floor(y.min()) - 3 - self.first, 0, len(self.codes) - 1))
        y1 = int(np.clip(np.ceil(y.max()) + 4 - self.first, y0 + 1, len(self.codes)))
        source = self.source.frame.response.decode(np.ascontiguousarray(self.codes[y0:y1, x0:x1]))
        least, right_end, lower_end = -EDGE, width - 1 + EDGE, height - 1 + EDGE
        inside = (x >= least) & (y >= least) & (x <= right_end) & (y <= lower_end)
        x -= np.float32(x0)
        y -= np.float32(y0 + self.first)
        soft = cv2.remap(source, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        sharp = cv2.remap(source, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        most = np.abs(soft) * np.float32(OVERSHOOT)  # noise may be below zero
        linear = np.clip(sharp, soft - most, soft + most)
        return linear, None if inside.all() else inside.astype(np.float32)

    def _seen_at(self, left: int, right: int, drift: Float | None) -> tuple[Float, Float]:
        """Return where in the frame each pixel of a tile is seen: x and y (h, w) [px]."""
        x = np.arange(left, right, dtype=np.float64)
        y = np.arange(self.top, self.bottom, dtype=np.float64)[:, None]
        if drift is not None:
            x, y = x + drift[..., 0], y + drift[..., 1]
        m = np.eye(3) if self.source.matrix is None else self.source.matrix
        depth = m[2, 0] * x + m[2, 1] * y + m[2, 2]
        across = (m[0, 0] * x + m[0, 1] * y + m[0, 2]) / depth
        down = (m[1, 0] * x + m[1, 1] * y + m[1, 2]) / depth
        return across.astype(np.float32), down.astype(np.float32)


def _combine(
    frames: Sequence[Input], signals: Sequence[Signal], to_rec709: Float, correction: Float | None = None
) -> tuple[list[Float], Mask]:
    """Return the planes of merged Rec. 709 radiance in a tile, and where they are valid.

    ``correction`` (h, w, 3) is added to the merged signal's mu-law before colours are converted.
    """
    peaks, usable = [], []
    photons, expected = np.float32(0), np.float32(0)
    open_reference: Mask | None = None  # where the reference is not clipped, once it was seen
    brightness: Float | None = None  # the largest channel's radiance in the last trusted shorter frame
    for source, signal in zip(frames, signals, strict=True):
        red, green, blue = signal.planes
        peak = np.maximum(np.maximum(red, green), blue)
        light = (red + blue) * np.float32(0.25) + green * np.float32(0.5)
        fade, zero = (level * source.frame.clip for level in source.fade)
        share = smoothstep(zero, fade, peak)
        if signal.trust is not None:
            share *= signal.trust
        if open_reference is not None:
            share *= open_reference  # what clips the reference clips longer frames: this one saw another
        if brightness is not None:  # JPEG turns clipped into nearly clipped where colours are strong
            predicted = smoothstep(SURELY_CLIPPED, MAYBE_CLIPPED, brightness * np.float32(source.ratio))
            share *= np.where(peak < fade, np.float32(1), predicted)
        if source.is_reference:
            open_reference = peak < zero
        seen = peak * np.float32(1 / source.ratio)
        if brightness is not None and signal.trust is not None:
            seen = np.where(signal.trust > 0.5, seen, brightness)
        brightness = seen
        electrons = np.float32(1.0 / source.frame.noise.photon)
        photons = photons + share * light * electrons
        expected = expected + share * np.float32(electrons * source.ratio)
        peaks.append(peak)
        usable.append(share)
    first_guess = np.maximum(photons, np.float32(0)) / np.maximum(expected, np.float32(1e-20))

    total = np.zeros_like(peaks[0])
    sums = [np.zeros_like(peaks[0]) for _ in range(3)]
    unspoken = np.ones_like(peaks[0])  # where no shorter frame is trusted
    for source, signal, share in zip(frames, signals, usable, strict=True):
        e, noise = source.ratio, source.frame.noise
        weight = (
            share
            * np.float32(e * e)
            / (first_guess * np.float32(noise.photon * e) + np.float32(noise.read**2))
        )
        trusted = np.float32(1) if signal.trust is None else (signal.trust > 0).astype(np.float32)
        weight += np.float32(LAST_RESORT * e) * trusted * unspoken
        unspoken *= 1 - trusted
        total += weight
        weight *= np.float32(1 / e)
        for plane, own in zip(sums, signal.planes, strict=True):
            plane += weight * own
    total = 1 / total
    for plane in sums:
        plane *= total
    _leave_to_reference(frames, signals, usable, sums)
    valid = _neutralise(frames, signals, peaks, sums, to_rec709)
    if correction is not None:
        for plane, change in zip(sums, cv2.split(correction), strict=True):
            corrected = mu_law_inverse(mu_law(plane) + change)
            np.copyto(plane, corrected, where=change != 0)
    return transformed(sums, to_rec709), valid


def _leave_to_reference(
    frames: Sequence[Input], signals: Sequence[Signal], usable: Sequence[Float], sums: list[Float]
) -> None:
    """Blend the reference's limit in where it is clipped and no shorter frame is trusted.

    Where something bright moved, that limit is closer to the truth than another moment is. Without
    this, any trace of trust in the feathered rim of a ghost would show the other moment in full.
    """
    here = next(i for i, source in enumerate(frames) if source.is_reference)
    trusts = [signal.trust for signal in signals[:here] if signal.trust is not None]
    if not trusts or len(trusts) < here:
        return
    limit = (1 - np.maximum.reduce(trusts)) * (1 - usable[here])
    for plane, own in zip(sums, signals[here].planes, strict=True):
        plane += limit * (own - plane)


def _neutralise(
    frames: Sequence[Input],
    signals: Sequence[Signal],
    peaks: Sequence[Float],
    sums: list[Float],
    to_rec709: Float,
) -> Mask:
    """Take the colour cast from pixels that are clipped in every trusted frame; return the valid ones.

    A channel at its limit is a lower bound. White balance spreads those bounds (2.0, 1.0, 1.6, say:
    magenta). Each clipped channel is raised to the brightest clipped one, and to the mean of the
    channels that are not, so that a blown sun is white and a blown red lamp stays red.
    """
    darkest = np.full(peaks[0].shape, np.inf, np.float32)
    for source, signal, peak in zip(frames, signals, peaks, strict=True):
        level = peak * np.float32(1 / source.frame.clip)
        if signal.trust is not None:
            level = np.where(signal.trust > 0, level, np.inf)
        np.minimum(darkest, level, out=darkest)
    if float(darkest.max()) < DOUBTFUL:
        return np.ones(darkest.shape, np.bool_)
    where = np.flatnonzero(darkest.ravel() >= DOUBTFUL)
    neutral = np.linalg.solve(to_rec709.astype(np.float64), np.ones(3))
    neutral /= neutral.max()  # sensor signal of white, largest channel 1
    values = np.stack([plane.ravel()[where] for plane in sums])
    shortest = np.zeros_like(values)  # level in the shortest frame that is trusted, which spoke for the pixel
    for source, signal in reversed(list(zip(frames, signals, strict=True))):
        level = np.stack([plane.ravel()[where] for plane in signal.planes]) / np.float32(source.frame.clip)
        trusted = True if signal.trust is None else signal.trust.ravel()[where] > 0
        np.copyto(shortest, level, where=trusted)
    own = smoothstep(DOUBTFUL, CERTAIN, shortest)
    balanced = values / neutral[:, None].astype(np.float32)
    brightest = (balanced * (own > 0.5)).max(axis=0)
    unclipped = 1 - own
    others = (unclipped * balanced).sum(axis=0) / np.maximum(unclipped.sum(axis=0), np.float32(1e-3))
    raised = np.maximum(np.maximum(balanced, brightest), others)
    balanced += own * (raised - balanced)
    for plane, row, white in zip(sums, balanced, neutral, strict=True):
        plane.ravel()[where] = row * np.float32(white)
    return np.asarray(darkest < DOUBTFUL, np.bool_)


def transformed(planes: list[Float], to_rec709: Float) -> list[Float]:
    """Apply the colour matrix; colours outside Rec. 709 are brought to its border, not below zero."""
    if np.array_equal(to_rec709, np.eye(3)):
        return [np.maximum(plane, 0.0) for plane in planes]
    rows = to_rec709.astype(np.float32)
    return [np.maximum(row[0] * planes[0] + row[1] * planes[1] + row[2] * planes[2], 0.0) for row in rows]
