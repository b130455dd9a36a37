"""Parts of an image: tiles on a grid, the halo around them, the box that holds what is wanted.

A tile with its halo gives what the whole image gives if its window begins on the network's pooling
grid, and if the halo covers the receptive field (measured 7e-8, and 3e-2 with one pixel less).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import EllipsisType

import numpy as np

from .exposure import Float, Mask


@dataclass(frozen=True)
class Box:
    """Part of an image: rows ``top`` to ``bottom``, columns ``left`` to ``right`` [px], ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def side(self) -> int:
        """The longer one."""
        return max(self.bottom - self.top, self.right - self.left)

    @property
    def part(self) -> tuple[EllipsisType, slice, slice]:
        """What to index arrays (..., H, W) with."""
        return ..., slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, size: tuple[int, int]) -> Box:
        """Return what of it lies in an image of ``size`` (H, W)."""
        return Box(self.top, min(self.bottom, size[0]), self.left, min(self.right, size[1]))

    def seen_from(self, window: Box) -> Box:
        """Return where this box lies in a window."""
        return Box(
            self.top - window.top,
            self.bottom - window.top,
            self.left - window.left,
            self.right - window.left,
        )


def tiles(box: Box, side: int, multiple: int) -> Iterator[Box]:
    """Yield parts of a box of about equal size, no longer than ``side``, on the grid of ``multiple``."""
    rows, columns = (
        round_up(math.ceil(length / math.ceil(length / side)), multiple)
        for length in (box.bottom - box.top, box.right - box.left)
    )
    for top in range(box.top, box.bottom, rows):
        for left in range(box.left, box.right, columns):
            yield Box(top, min(top + rows, box.bottom), left, min(left + columns, box.right))


def around(wanted: Mask | None, box: Box, multiple: int) -> Box | None:
    """Return the smallest part of a box, beginning on the grid, that holds all that is wanted of it."""
    if wanted is None:
        return box
    part = wanted[box.part]
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return Box(
        box.top + int(rows[0]) // multiple * multiple,
        box.top + int(rows[-1]) + 1,
        box.left + int(columns[0]) // multiple * multiple,
        box.left + int(columns[-1]) + 1,
    )


def crop(inputs: Mapping[str, Float], window: Box) -> dict[str, Float]:
    """Return a window of all inputs; what lies beyond the image repeats its last row and column."""
    return filled({name: values[window.part] for name, values in inputs.items()}, window)


def filled(parts: Mapping[str, Float], window: Box) -> dict[str, Float]:
    """Bring what an image shows in a window to the window's size, as `crop` does."""
    cropped = {}
    for name, part in parts.items():
        below = window.bottom - window.top - part.shape[-2]
        beside = window.right - window.left - part.shape[-1]
        if below or beside:
            part = np.pad(part, [*[(0, 0)] * (part.ndim - 2), (0, below), (0, beside)], mode="edge")
        cropped[name] = np.ascontiguousarray(part, dtype=np.float32)
    return cropped


def round_up(length: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-length // multiple) * multiple


def window_of(box: Box, halo: int, multiple: int, size: tuple[int, int]) -> Box:
    """Return a box with its halo, on the grid, within an image of ``size`` (H, W) rounded up to it."""
    reach = round_up(halo, multiple)
    height, width = (round_up(length, multiple) for length in size)
    return Box(
        max(box.top - reach, 0),
        min(round_up(box.bottom, multiple) + reach, height),
        max(box.left - reach, 0),
        min(round_up(box.right, multiple) + reach, width),
    )
