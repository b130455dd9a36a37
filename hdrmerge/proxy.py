"""A frame -> its proxy: a small linear picture for the stages that look at a scene, not merge it.

Alignment and ghost detection need no 60 megapixels. They work on block averages of at most
`PROXY_PIXELS`, so that their cost is bounded, whatever the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .bracket import Frame
from .exposure import Array, Float, Mask

PROXY_PIXELS = 1_600_000
NEARLY_CLIPPED = 0.98  # of the clipping level
BAND = 256  # rows at a time


@dataclass(frozen=True, eq=False)
class Proxy:
    """Block averages of a frame: ``linear`` (h, w, 3) float32 as in `Frame.linear`.

    A block covers ``factor`` x ``factor`` pixels; ``clipped`` (h, w) is True where any pixel of the block
    reaches the clipping level in any channel. A remainder at the right and bottom edge is left out.
    """

    linear: Float
    clipped: Mask
    factor: int


def from_blocks(factor: int) -> NDArray[np.float64]:
    """Return the matrix (3, 3) that takes a proxy's pixels to the frame's, centres at integers.

    Block k covers pixels k f to k f + f - 1.

    >>> (from_blocks(4) @ [0, 0, 1]).tolist()
    [1.5, 1.5, 1.0]
    """
    half = (factor - 1) / 2
    return np.array([[factor, 0, half], [0, factor, half], [0, 0, 1.0]])


def block_of(pixels: int) -> int:
    """Return the side of the blocks that a frame of so many pixels is averaged over.

    >>> [block_of(pixels) for pixels in (1_000_000, 6_000_000, 18_000_000)]
    [1, 2, 4]
    """
    side = math.ceil(math.sqrt(max(1.0, pixels / PROXY_PIXELS)))
    return side + side % 2 if side > 3 else side  # 8-bit codes are averaged in pairs


def shrink(frame: Frame) -> Proxy:
    """Average a frame over blocks, band by band."""
    factor = min(block_of(frame.height * frame.width), frame.height, frame.width)
    height, width = frame.height // factor, frame.width // factor
    linear = np.empty((height, width, 3), np.float32)
    clipped = np.empty((height, width), np.bool_)
    step = max(1, BAND // factor)
    for top in range(0, height, step):
        bottom = min(top + step, height)
        codes = frame.codes[top * factor : bottom * factor][:, : width * factor]
        linear[top:bottom], clipped[top:bottom] = _averaged(frame, codes, factor)
    return Proxy(linear, clipped, factor)


def _averaged(frame: Frame, codes: Array, factor: int) -> tuple[Float, Mask]:
    if factor == 1:
        linear = frame.response.decode(codes)
        return linear, linear.max(axis=2) >= NEARLY_CLIPPED * frame.clip
    size = (codes.shape[1] // factor, codes.shape[0] // factor)
    if codes.dtype != np.uint8 or factor % 2:
        linear = frame.response.decode(codes)
        over = cv2.inRange(linear, (-1e9,) * 3, (float(np.float32(NEARLY_CLIPPED * frame.clip)),) * 3) == 0
        share = cv2.resize(over.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return cv2.resize(linear, size, interpolation=cv2.INTER_AREA), share > 0
    # Pairs of 8-bit codes are averaged as codes, at a quarter of the cost: a stop of contrast
    # between neighbours makes that 3 % of a stop too dark, in every frame alike.
    half = cv2.resize(codes, (size[0] * factor // 2, size[1] * factor // 2), interpolation=cv2.INTER_AREA)
    linear = cv2.resize(frame.response.decode(half), size, interpolation=cv2.INTER_AREA)
    table = frame.response.sampled(256)
    last = [int(np.searchsorted(table[:, c], NEARLY_CLIPPED * frame.clip)) - 1 for c in range(3)]
    unclipped = cv2.inRange(codes, (0, 0, 0), tuple(last))
    return linear, cv2.resize(unclipped, size, interpolation=cv2.INTER_AREA) < 255
