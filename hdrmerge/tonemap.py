"""Radiance -> display: turn a radiance map into 8-bit sRGB codes that look like a good photograph.

Every operator bears the names and the year of its method. All are free of parameters: they read
what they need from the scene, so that the result depends neither on the scale of the radiance nor on
the number of threads. Pixels that are not numbers become black, infinite ones white.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import HdrmergeError
from .exposure import Array, Float, mu_law, smoothstep, srgb_decode, srgb_encode

Codes8 = NDArray[np.uint8]

REC709 = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)
"""Luminance of linear Rec. 709 (ITU-R BT.709)."""

GREY = 0.18
"""Linear light of a mid-grey, code 118 of 255."""

DARKEST, BRIGHTEST = 1e-15, 1e15
"""Luminance outside counts as black and as infinite: keeps every product within float32."""

SURVEY_PIXELS = 300_000
"""Size of the small luminance from which a scene is judged [pixels]."""

BAND_PIXELS = 200_000
"""Rows worked on at a time [pixels]: a dozen float planes of it stay in the cache."""

TABLE_SIZE = 16384


# --- the scene, seen small ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Survey:
    """What an operator knows of the whole scene while it works on a band of rows.

    ``log_luminance`` (h, w) is log2 of the mean luminance of blocks of ``factor`` x ``factor``
    pixels, limited to the range that the scene's percentiles call real. ``average`` is its mean, black
    pixels left out; ``percentile`` answers in the same unit [stops].
    """

    log_luminance: Float
    factor: int
    lit: Float  # (K,) log2 luminance of the blocks that are not black, sorted

    @property
    def average(self) -> float:
        return float(self.lit.mean(dtype=np.float64))

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.lit, percent))


def _bands(height: int, width: int, multiple: int = 1) -> list[tuple[int, int]]:
    rows = max(1, BAND_PIXELS // max(1, width) // multiple) * multiple
    return [(top, min(top + rows, height)) for top in range(0, height, rows)]


def _clean(rows: Array) -> tuple[Float, Float]:
    """Return rows (h, W, 3) within [0, BRIGHTEST], and their luminance; a pixel with a NaN becomes black."""
    light = np.clip(rows, 0.0, BRIGHTEST).astype(np.float32, copy=False)
    luminance = cv2.transform(light, REC709)
    if math.isnan(float(luminance.sum())):
        unknown = np.isnan(luminance)
        light[unknown] = 0.0
        luminance[unknown] = 0.0
    return light, luminance


def survey(radiance: Float, pool: ThreadPoolExecutor) -> Survey:
    """Look at ``radiance`` (H, W, 3) from far: block means of its luminance, and their statistics."""
    height, width = radiance.shape[:2]
    factor = max(1, math.ceil(math.sqrt(height * width / SURVEY_PIXELS)))
    small_width = -(-width // factor)

    def shrink(band: tuple[int, int]) -> Float:
        _, luminance = _clean(radiance[band[0] : band[1]])
        bottom, right = -luminance.shape[0] % factor, small_width * factor - width
        if bottom or right:
            luminance = cv2.copyMakeBorder(luminance, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        size = (small_width, luminance.shape[0] // factor)
        return np.asarray(cv2.resize(luminance, size, interpolation=cv2.INTER_AREA))

    small = np.concatenate(list(pool.map(shrink, _bands(height, width, factor))))
    black = small <= max(DARKEST, float(np.percentile(small, 99.0)) * 2.0**-20)
    log_luminance = np.log2(np.maximum(small, np.float32(DARKEST)))
    lit = np.sort(log_luminance[~black]) if not black.all() else np.zeros(1, np.float32)
    low, high = np.percentile(lit, [0.5, 99.9])
    return Survey(np.clip(log_luminance, low, high), factor, np.clip(lit, low, high))


# --- bands of radiance -> codes -----------------------------------------------------------------

Shade = Callable[[int, Float], tuple[Float, Float | None]]
"""(first row, luminance (h, W)) -> the factor on each pixel, and how much of its colour stays or None."""


def _render(radiance: Float, shade: Shade, curve: Callable[[Array], Array], white: float,
            pool: ThreadPoolExecutor) -> Codes8:
    """Scale every pixel as ``shade`` tells, then send each channel through ``curve``.

    ``curve`` maps [0, white] to sRGB code values in [0, 1]. It is tabulated over the square root of
    its input, which puts the entries where the eye needs them.
    """
    height, width = radiance.shape[:2]
    codes = np.empty((height, width, 3), dtype=np.uint8)
    knots = np.linspace(0.0, 1.0, TABLE_SIZE) ** 2 * white
    table = np.rint(np.clip(curve(knots), 0.0, 1.0) * 255.0).astype(np.uint8)
    top_index = np.float32(TABLE_SIZE - 1)
    per_unit = np.float32((TABLE_SIZE - 1) ** 2 / white)

    def paint(band: tuple[int, int]) -> None:
        top, bottom = band
        light, luminance = _clean(radiance[top:bottom])
        gain, chroma = shade(top, luminance)
        luminance *= gain
        shades = []
        for plane in cv2.split(light):
            plane *= gain
            if chroma is not None:
                plane -= luminance
                plane *= chroma
                plane += luminance
            plane *= per_unit
            np.sqrt(np.maximum(plane, 0.0, out=plane), out=plane)
            plane += np.float32(0.5)
            np.minimum(plane, top_index, out=plane)
            shades.append(table.take(plane.astype(np.uint16)))
        codes[top:bottom] = cv2.merge(shades)

    list(pool.map(paint, _bands(height, width)))
    return codes


# --- the default --------------------------------------------------------------------------------

ROOM_ABOVE, ROOM_BELOW, ROOM_SPREAD = 4.0, 4.2, 2.15
STEEPEST = 0.45
EDGE = 0.5  # [stops]
MEAN_CODE = 0.49
SOFT = 1.0
LIFT = 3.0
KNEE = 0.35


def _shoulder(white, x):
    """identity to KNEE, then extended Reinhard so that white -> 1"""
    u = np.maximum(x - KNEE, 0) / (1 - KNEE)
    w = (white - KNEE) / (1 - KNEE)
    return np.minimum(x, KNEE) + (1 - KNEE) * u * (1 + u / w**2) / (1 + u)


def _guided(log_l, radius, eps):
    box = lambda f: cv2.blur(f, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)
    mean = box(log_l)
    var = np.maximum(box(log_l * log_l) - mean * mean, 0)
    a = var / (var + eps)
    b = (1 - a) * mean
    return box(a), box(b)


DEBUG = {}


def durand2002(radiance: Float, pool: ThreadPoolExecutor) -> Codes8:
    scene = survey(radiance, pool)
    mid = scene.average
    low, high = scene.percentile(1.0) - mid, scene.percentile(99.5) - mid
    logs = scene.log_luminance - np.float32(mid)
    radius = max(1, round(min(logs.shape) / 16))
    slope, offset = _guided(logs, radius, EDGE**2)
    spread = float((scene.lit - mid).std())
    every = min(1.0, ROOM_SPREAD / max(spread, 1e-6))
    above = max(min(every, ROOM_ABOVE / max(high, 1e-6)), STEEPEST)
    below = max(min(every, ROOM_BELOW / max(-low, 1e-6)), STEEPEST)
    floor = np.float32(max(low, -LIFT / max(1e-6, 1 - below)))
    def log_gain(base):
        x = np.maximum(base, floor)
        s = 0.5 * (x + np.sqrt(x * x + np.float32(SOFT**2)))
        return np.float32(1 - below) * (s - x) - np.float32(1 - above) * s
    # exposure
    out = logs + log_gain(slope * logs + offset)
    o = out.ravel()[:: max(1, out.size // 50000)]
    hi = float(np.percentile(out, 99.7))
    lo_e, hi_e = -12.0, 12.0
    dark = float(smoothstep(0.4, 1.4, np.float32(-float(np.median(scene.lit)) + mid)))
    target = MEAN_CODE - 0.10 * dark
    for _ in range(30):
        e = 0.5 * (lo_e + hi_e)
        white = min(max(2.0 ** (hi + e), 1.0), 8.0)
        lin = np.minimum(_shoulder(white, np.exp2(o + e)), 1)
        m = srgb_encode(lin).mean()
        lo_e, hi_e = (e, hi_e) if m < target else (lo_e, e)
    reach = float(smoothstep(0.5, 2.5, np.float32(high - low)))
    e += 0.6 * reach * min(1.5, max(0.0, -(hi + e)))
    white = min(max(2.0 ** (hi + e), 1.0), 8.0)
    dk = float(np.percentile(out, 0.5)) + e
    black = min(0.012, (1 - min(above, below)) * 1.2 * 2.0**dk)
    DEBUG.update(mid=mid, low=low, high=high, above=above, below=below, e=e, white=white, spread=spread)
    height, width = radiance.shape[:2]
    def shade(top, luminance):
        rows = np.log2(np.maximum(luminance, np.float32(DARKEST))) - np.float32(mid)
        h = luminance.shape[0]
        a = _enlarge(slope, scene.factor, top, h, width)
        b = _enlarge(offset, scene.factor, top, h, width)
        g = log_gain(a * rows + b) + np.float32(e)
        gain = np.exp2(g - np.float32(mid))
        y = luminance * gain
        chroma = 1 - 0.12 * np.clip(g - np.float32(e), 0, 3) 
        chroma *= 1 - 0.8 * smoothstep(0.6 * white, 1.2 * white, y)
        return gain, chroma
    return _render(radiance, shade, lambda x: srgb_encode(np.maximum(_shoulder(white, x) - black, 0) / (1 - black)), white * 1.0, pool)


def _enlarge(small, factor, top, h, width):
    row = (np.arange(top, top + h, dtype=np.float32) + 0.5) / factor - 0.5
    i = np.floor(row)
    f = (row - i).astype(np.float32)[:, None]
    n = small.shape[0] - 1
    i = i.astype(int)
    lines = small[np.clip(i, 0, n)] * (1 - f) + small[np.clip(i + 1, 0, n)] * f
    return cv2.resize(lines, (small.shape[1] * factor, h), interpolation=cv2.INTER_LINEAR)[:, :width]
