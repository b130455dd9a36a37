"""A frame -> its proxy: a small linear picture for the stages that look at a scene, not merge it.

Alignment and ghost detection need no 60 megapixels. They work on block averages of at most
`PROXY_PIXELS`, so that their cost is bounded, whatever the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .bracket import Frame
from .exposure import Float, Mask

PROXY_PIXELS = 2_400_000
MAX_FACTOR = 4  # at coarser blocks a moving twig or hand is averaged away


@dataclass(frozen=True, eq=False)
class Proxy:
    """Block averages of a frame: ``linear`` (h, w, 3) float32 as in `Frame.linear`.

    A block covers ``factor`` x ``factor`` pixels; ``clipped`` (h, w) is True where any pixel of the block
    reaches the clipping level in any channel. A remainder at the right and bottom edge is left out.
    """

    linear: Float
    clipped: Mask
    factor: int


def shrink(frame: Frame) -> Proxy:
    """Average a frame over blocks, in linear light, band by band."""
    pixels = frame.height * frame.width
    factor = max(1, min(MAX_FACTOR, math.ceil(math.sqrt(pixels / PROXY_PIXELS)), frame.height, frame.width))
    height, width = frame.height // factor, frame.width // factor
    linear = np.empty((height, width, 3), np.float32)
    clipped = np.empty((height, width), np.bool_)
    step = max(1, 128 // factor)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        band = frame.linear(top * factor, bottom * factor)[:, : width * factor]
        size = (width, bottom - top)
        peak = cv2.max(cv2.max(*cv2.split(band)[:2]), cv2.extractChannel(band, 2))
        over = cv2.compare(peak, 0.98 * frame.clip, cv2.CMP_GE)
        linear[top:bottom] = band if factor == 1 else cv2.resize(band, size, interpolation=cv2.INTER_AREA)
        share = over if factor == 1 else cv2.resize(over, size, interpolation=cv2.INTER_AREA)
        clipped[top:bottom] = share > 0
    return Proxy(linear, clipped, factor)
