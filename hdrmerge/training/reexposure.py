"""A well-exposed patch -> a brighter label -> the frames a camera would have made of it: the exposure domain.

    patch -> gain mask -> gain for a wanted saturated share -> label -> three clipped frames

From Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues", section 3.2: what
is recorded well is its own label, and light that is added to it saturates frames that did not saturate.

Units: ``code`` is a gamma code in [0, 1], 1.0 where a frame saturates; radiance 1.0 is where the reference
does; exposures are relative to the reference's, so that code = (radiance * exposure) ^ (1 / gamma).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from ..exposure import Float, Mask, NoiseModel
from ..painter import GAMMA

CLIPPED = 0.98  # code from which a channel counts as saturated
FEATHER = 3.0  # [px] standard deviation of the blur of a transferred mask
SATURATED = (0.1, 0.6)  # share of a patch that saturates in the reference, least and most
SHORTEST_SATURATED = 0.02  # share that may saturate in the shortest frame: no frame records it
EXPONENT = (1.0, 2.0)  # of the ramp from the line to the border, least and most

Where = tuple[slice, slice]


# --- the camera -----------------------------------------------------------------------------------


def encode(linear: Float) -> Float:
    """Return the gamma codes of linear light, both 1.0 at saturation; what is brighter clips.

    >>> round(float(encode(np.float32([0.5]))[0]), 4)
    0.7297
    """
    return np.asarray(np.power(np.clip(linear, 0.0, 1.0), np.float32(1 / GAMMA)), np.float32)


def decode(code: Float) -> Float:
    """Return the linear light of gamma codes, the inverse of `encode`."""
    return np.asarray(np.power(code, np.float32(GAMMA)), np.float32)


def reexpose(
    label: Float,
    exposures: Sequence[float],
    levels: int = 256,
    noise: Sequence[NoiseModel] | None = None,
    rng: np.random.Generator | None = None,
) -> list[Float]:
    """Return the codes of each frame of a label (h, w, 3), rounded to ``levels``: the image formation model.

    Sheet A.3, step 13; ``noise``, one model a frame, is not the paper's and needs ``rng``. It is Gaussian: of
    so many photons as a block of pixels counts, nothing else is seen.
    """
    frames = []
    for k, exposure in enumerate(exposures):
        linear = label * np.float32(exposure)
        if noise is not None and rng is not None:
            linear = with_noise(linear, noise[k], rng)
        frames.append(np.rint(encode(linear) * np.float32(levels - 1)) / np.float32(levels - 1))
    return frames


def noisy(code: Float, noise: NoiseModel, rng: np.random.Generator) -> Float:
    """Return codes with noise; what is saturated stays so."""
    return np.where(code >= CLIPPED, code, encode(with_noise(decode(code), noise, rng)))


def with_noise(linear: Float, noise: NoiseModel, rng: np.random.Generator) -> Float:
    """Return linear light with Gaussian noise."""
    deviation = np.sqrt(noise.variance(linear), dtype=np.float32)
    return np.asarray(linear + deviation * rng.standard_normal(linear.shape, dtype=np.float32), np.float32)


# --- gain masks -----------------------------------------------------------------------------------


def saturated(code: Float) -> Mask:
    """Return where any channel of codes (h, w, 3) is at saturation, (h, w)."""
    return np.asarray(code.max(axis=-1) >= CLIPPED)


def transferred_mask(where: Mask) -> Float:
    """Return the gain mask (h, w) in [0, 1] of a saturation mask from elsewhere: its edge feathered.

    Sheet A.3, step 11 (a).
    """
    return np.asarray(cv2.GaussianBlur(where.astype(np.float32), (0, 0), FEATHER), np.float32)


def line_mask(size: tuple[int, int], inner: Where, rng: np.random.Generator) -> Float:
    """Draw a gain mask (h, w) in [0, 1] that grows from a random line to the border on one side of it.

    The line goes through ``inner``, the patch within; like the sun on a plane. Sheet A.3, step 11 (b).
    """
    y, x = (rng.uniform(side.start, side.stop - 1) for side in inner)
    angle = rng.uniform(0, 2 * math.pi)
    down = (np.arange(size[0], dtype=np.float32) - np.float32(y)) * np.float32(math.sin(angle))
    across = (np.arange(size[1], dtype=np.float32) - np.float32(x)) * np.float32(math.cos(angle))
    distance = np.maximum(down[:, None] + across, 0.0)
    ramp = distance / max(float(distance.max()), 1e-6)
    return np.asarray(ramp ** np.float32(rng.uniform(*EXPONENT)), np.float32)


# --- the gain -------------------------------------------------------------------------------------


def needed_gain(label: Float, mask: Float, exposure: float = 1.0) -> Float:
    """Return the gain g (h, w) from which each pixel saturates; infinite where the mask is 0.

    A pixel's label becomes (1 + (g - 1) mask) times as bright.
    """
    peak = np.maximum(label.max(axis=-1) * np.float32(exposure), np.float32(1e-6))
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = 1 + (1 / peak - 1) / mask
    return np.asarray(np.where(mask > 0, needed, np.where(peak >= 1, 1.0, np.inf)), np.float32)


def gain_for(label: Float, mask: Float, share: float, shortest: float) -> float:
    """Return the gain, 1 or more, with which ``share`` of a patch saturates in the reference.

    Sheet A.3, step 12. A pixel saturates from a gain of its own on, so that the gain wanted is a quantile
    of those, whatever the mask. Less saturates where the mask covers less, and where more than
    `SHORTEST_SATURATED` of the patch would in the ``shortest`` exposure.
    """
    gains = np.sort(needed_gain(label, mask), axis=None)
    reach = int(np.searchsorted(gains, np.float32(np.inf)))  # pixels that any gain saturates
    last = min(math.ceil(share * gains.size), reach) - 1
    wanted = float(gains[last]) * (1 + 1e-5) if last >= 0 else 1.0  # float32 rounds down, too
    short = np.sort(needed_gain(label, mask, shortest), axis=None)
    limit = float(short[int(SHORTEST_SATURATED * short.size)]) * (1 - 1e-5)
    return max(min(wanted, limit), 1.0)


def gained(label: Float, mask: Float, gain: float) -> Float:
    """Return a label (h, w, 3) with the gain where the mask (h, w) is 1, and less of it where it is less."""
    return np.asarray(label * (1 + np.float32(gain - 1) * mask)[..., None], np.float32)


def draw_share(rng: np.random.Generator) -> float:
    """Draw the share of a patch that is to saturate in the reference."""
    return float(rng.uniform(*SATURATED))
