"""Find how far each frame can be trusted where: the classical answer to things that move.

Each aligned frame is compared with the reference in radiance. A difference that noise, a small
misregistration at an edge and a wrong response curve cannot explain is a ghost, and the frame is
not trusted there. The test follows Granados et al., "Automatic noise modeling for ghost-free HDR
reconstruction" (2013), in using the noise model as its yardstick; comparing pooled differences on
`Proxy` pictures makes it sensitive to faint ghosts and costs little. Frames are tested from the
exposure nearest to the reference outwards, and what a trusted frame shows where the reference is
clipped joins the yardstick for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .exposure import Float, Mask, NoiseModel, smoothstep
from .proxy import Proxy

Trust = NDArray[np.uint8]  # (h, w) in proxy pixels, 255 = fully trusted

RELATIVE = 0.06  # radiometric error that is no ghost, one sigma
EDGE = 0.35  # [proxy px] residual misregistration that is no ghost, one sigma
ACCEPT, REJECT = 2.0, 4.0  # pooled deviation in sigma: trusted below, distrusted above
NEAR_CLIP = 0.90  # linear level from which a clipped block's channel is only a lower bound


@dataclass(frozen=True, eq=False)
class Ghosts:
    """``trust``: one map a frame, None where all of it is trusted; ``share``: of the picture that is not."""

    trust: list[Trust | None]
    share: list[float]


def deghost(
    proxies: Sequence[Proxy],
    exposures: Sequence[float],
    noises: Sequence[NoiseModel],
    alignments: Sequence[Alignment],
    reference: int,
) -> Ghosts:
    """Compare every aligned frame with the reference and return the trust in each."""
    base = proxies[reference]
    known = _Yardstick.of(base, noises[reference])
    trust: list[Trust | None] = [None] * len(proxies)
    share = [0.0] * len(proxies)
    others = [i for i in range(len(proxies)) if i != reference and alignments[i].used]
    for i in sorted(others, key=lambda i: abs(np.log2(exposures[i] / exposures[reference]))):
        ratio = float(exposures[i] / exposures[reference])
        view = _View.of(proxies[i], alignments[i], noises[i], ratio)
        belief = known.trust_in(view)
        known.learn(view, belief)
        trust[i] = (belief * 255.0 + 0.5).astype(np.uint8)
        share[i] = float(np.mean((belief < 0.5) & view.usable))
    return Ghosts(trust, share)


@dataclass(eq=False)
class _View:
    """A frame's proxy in the reference's geometry and radiance scale."""

    radiance: Float
    variance: Float
    usable: Mask  # inside the frame and not clipped

    @classmethod
    def of(cls, proxy: Proxy, alignment: Alignment, noise: NoiseModel, ratio: float) -> _View:
        linear, clipped = proxy.linear, proxy.clipped.astype(np.uint8)
        height, width = clipped.shape
        inside = np.full((height, width), 255, np.uint8)
        if not alignment.is_identity:
            matrix = _at_proxy_size(alignment.matrix, proxy.factor)
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            size = (width, height)
            linear = cv2.warpPerspective(linear, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            clipped = cv2.warpPerspective(cv2.dilate(clipped, np.ones((3, 3))), matrix, size, flags=flags)
            inside = cv2.warpPerspective(inside, matrix, size, flags=flags)
        usable = (clipped == 0) & (inside == 255)
        return cls(linear / np.float32(ratio), _variance(linear, noise, proxy.factor) / np.float32(ratio**2), usable)


@dataclass(eq=False)
class _Yardstick:
    """What is known of the scene so far: the reference, and trusted frames where it is clipped."""

    radiance: Float
    variance: Float
    clipped: Mask
    factor: int

    @classmethod
    def of(cls, proxy: Proxy, noise: NoiseModel) -> _Yardstick:
        return cls(proxy.linear.copy(), _variance(proxy.linear, noise, proxy.factor), proxy.clipped.copy(), proxy.factor)

    def trust_in(self, view: _View) -> Float:
        """Return the trust in a view, (h, w) in [0, 1]."""
        deviation = np.zeros(self.clipped.shape, np.float32)
        for c in range(3):
            known, seen = self.radiance[..., c], view.radiance[..., c]
            difference = seen - known
            # Where the yardstick is clipped the scene is at least that bright: only darker is a ghost.
            bound = self.clipped & (known > NEAR_CLIP)
            difference = np.where(bound, np.minimum(difference, 0.0), difference)
            level = np.maximum(known, seen)
            sigma2 = self.variance[..., c] + view.variance[..., c]
            sigma2 += np.square(RELATIVE * level) + np.square(EDGE * _steepness(known))
            np.maximum(deviation, np.square(difference) / sigma2, out=deviation)
        deviation[~view.usable] = 0.0
        pool = 5 if self.factor == 1 else 3
        deviation = cv2.blur(np.minimum(deviation, 4 * REJECT**2), (pool, pool))
        belief = smoothstep(REJECT**2, ACCEPT**2, deviation)
        # A ghost's rim is fainter than its middle: widen what is distrusted, then feather it.
        belief = cv2.erode(belief, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7)))
        return np.asarray(cv2.GaussianBlur(belief, (0, 0), 2.0), np.float32)

    def learn(self, view: _View, belief: Float) -> None:
        """Let a trusted view sharpen the yardstick, and fill it where it was clipped."""
        trusted = (belief > 0.9) & view.usable
        fill = trusted & self.clipped
        blend = trusted & ~self.clipped
        weight = self.variance / (self.variance + view.variance)
        np.copyto(self.radiance, self.radiance + weight * (view.radiance - self.radiance), where=blend[..., None])
        np.copyto(self.variance, self.variance * (1 - weight), where=blend[..., None])
        np.copyto(self.radiance, view.radiance, where=fill[..., None])
        np.copyto(self.variance, view.variance, where=fill[..., None])
        self.clipped &= ~fill


def _variance(linear: Float, noise: NoiseModel, factor: int) -> Float:
    # Demosaicing and JPEG correlate neighbours, so an average of n pixels counts as n / 2.
    return np.asarray(noise.variance(linear) / max(1.0, factor**2 / 2), np.float32)


def _steepness(radiance: Float) -> Float:
    """Return the largest change between a pixel and its neighbours, a bound of |gradient| in 1/px."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(cv2.morphologyEx(radiance, cv2.MORPH_GRADIENT, kernel), np.float32)


def _at_proxy_size(matrix: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    half = (factor - 1) / 2
    up = np.array([[factor, 0, half], [0, factor, half], [0, 0, 1.0]])
    return np.asarray(np.linalg.inv(up) @ matrix @ up, np.float64)
