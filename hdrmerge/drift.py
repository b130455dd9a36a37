"""Follow what moved: for every pixel of the reference, how far away a frame shows the same thing.

Dense inverse search (Kroeger, Timofte, Dai and Van Gool, "Fast optical flow using dense inverse search",
2016) between the reference and an aligned frame, both clipped at the level that both record, finds what
moved by less than its own size. For what it does not find, ghosts are searched for in pieces, by template
matching, and dense inverse search goes on from there: on simulated brackets that takes the share of a
moving object's ghost that is followed from 0.41 to 0.73. A way is believed only where the frame deviates
as it is, and where what it shows over there deviates far less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from .exposure import Array, Float, Mask
from .sight import View, Yardstick

BETTER = 0.6  # of the deviation in place: what must be left of it over there
WINDOW, HOLES = 5, 9  # [px] over which deviations are compared; largest holes that are filled
DOUBTFUL = 4.0  # deviation of what was put in place beyond which the search goes on
NEARLY = 0.8  # of a frame's limit: so bright must be what it shows clipped
LEAST = 0.25  # [px] a shorter way is none
FARTHEST = 128  # [px] a longer way is not searched
CELLS = (96, 40)  # [px] pieces in which ghosts are searched for
SMALLEST, MOST = 0.1, 40  # of a piece that must be a ghost, and number of pieces


def follow(known: Yardstick, view: View, deviation: Float, ghost: Mask) -> tuple[View, Float, Float] | None:
    """Return the view with what moved put in place, its deviation, and the drift (h, w, 2) [px].

    ``ghost`` (h, w) is where the view deviates; None where following it does not help anywhere.
    """
    if not ghost.any() or min(ghost.shape) < 16:  # dense inverse search takes patches of 8 x 8 at half size
        return None
    limit = min(1.0, 1.0 / view.ratio)
    pictures = _codes(known.radiance, limit), _codes(view.radiance, limit)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)  # half of the precision is lost at the preset's half size
    box = _box(ghost)
    drift = np.zeros((*ghost.shape, 2), np.float32)
    found, left = view, ghost
    for cell in (None, *CELLS):
        start = None if cell is None else _searched(*pictures, left, cell)
        if start is None and cell is not None:
            break
        way = _flow(search, pictures, box, start)
        moved, there, better = _tried(known, view, deviation, left, way)
        found = found.chosen(moved, better)
        deviation = np.where(better, there, deviation)
        drift = np.where(better[..., None], way, drift)
        left = ghost & (deviation > DOUBTFUL)
    return (found, deviation, drift) if drift.any() else None


def _box(ghost: Mask) -> tuple[slice, slice]:
    """Return the rows and columns that hold all ghosts and what may be searched around them."""
    spans = []
    for axis in (1, 0):
        where = np.flatnonzero(ghost.any(axis=axis))
        length = ghost.shape[1 - axis]
        low, high = max(int(where[0]) - FARTHEST, 0), min(int(where[-1]) + FARTHEST, length)
        spans.append(slice(low, high) if high - low >= 16 else slice(None))
    return spans[0], spans[1]


def _flow(search: Any, pictures: tuple[Array, Array], box: tuple[slice, slice], start: Float | None) -> Float:
    """Return the optical flow (h, w, 2) in a box, 0 around it."""
    known, seen = (np.ascontiguousarray(picture[box]) for picture in pictures)
    flow = np.zeros((*pictures[0].shape, 2), np.float32)
    flow[box] = search.calc(known, seen, None if start is None else np.ascontiguousarray(start[box]))
    return flow


def _tried(
    known: Yardstick, view: View, deviation: Float, ghost: Mask, drift: Float
) -> tuple[View, Float, Mask]:
    """Return the view after a drift, its deviation, and where that is better."""
    moved = view.drifted(drift)
    there = known.deviation(moved)
    around = (WINDOW, WINDOW)
    better = cv2.blur(there, around) < BETTER * cv2.blur(deviation, around)
    better &= ghost & moved.inside & (np.hypot(drift[..., 0], drift[..., 1]) > LEAST)
    # Clipped is like anything brighter: it is believed where the known is that bright.
    brightest = np.maximum.reduce(known.radiance)
    better &= moved.usable | known.clipped | (brightest > NEARLY / view.ratio)
    better = cv2.morphologyEx(better.view(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    better = cv2.morphologyEx(better, cv2.MORPH_CLOSE, np.ones((HOLES, HOLES), np.uint8))
    return moved, there, better.view(np.bool_) & moved.inside & ghost


def _searched(known: Array, seen: Array, ghost: Mask, cell: int) -> Float | None:
    """Return a flow (h, w, 2) to start from: each piece of a ghost moved to its likeness.

    At half size, in squares of ``cell`` px, the fullest first; None where there is nothing to search for.
    """
    flow = np.zeros((*ghost.shape, 2), np.float32)
    small, large = (
        cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA).astype(np.float32)
        for picture in (known, seen)
    )
    height, width = small.shape
    inside = ghost[: 2 * height : 2, : 2 * width : 2].astype(np.float32)
    inside = inside[:height, :width]
    step, reach = cell // 2, FARTHEST // 2
    corners = [(y, x) for y in range(0, height, step) for x in range(0, width, step)]
    areas = {(y, x): float(inside[y : y + step, x : x + step].sum()) for y, x in corners}
    chosen = [
        corner
        for corner in sorted(corners, key=lambda c: -areas[c])[:MOST]
        if areas[corner] >= SMALLEST * step**2
    ]
    for y, x in chosen:
        mask = inside[y : y + step, x : x + step]
        y0, x0 = max(y - reach, 0), max(x - reach, 0)
        around = large[y0 : y + step + reach, x0 : x + step + reach]
        error = cv2.matchTemplate(around, small[y : y + step, x : x + step], cv2.TM_SQDIFF, mask=mask)
        down, across = np.unravel_index(int(np.argmin(error)), error.shape)
        piece = (slice(2 * y, 2 * (y + step)), slice(2 * x, 2 * (x + step)))
        flow[piece] = 2.0 * (x0 + int(across) - x), 2.0 * (y0 + int(down) - y)
    return flow if chosen else None


def _codes(planes: Sequence[Float], limit: float) -> Any:
    """Return a grey picture (h, w) uint8, the square root of light up to the ``limit`` that both record."""
    light = planes[0] * np.float32(0.25) + planes[1] * np.float32(0.5) + planes[2] * np.float32(0.25)
    level = np.clip(light * np.float32(1 / limit), 0.0, 1.0)
    return np.asarray(np.sqrt(level) * np.float32(255.0), np.uint8)
