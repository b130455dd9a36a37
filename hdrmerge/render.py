"""What every operator shares: the scene seen small, and radiance turned into codes.

    survey (the scene, seen small) -> shade (a factor on each pixel) -> curve -> codes

What a pixel becomes depends on itself and on the survey alone, so that threads can work on bands of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .exposure import Array, Float, Mask

Codes8 = NDArray[np.uint8]

REC709 = np.array([[0.2126, 0.7152, 0.0722]], dtype=np.float32)
"""Luminance of linear Rec. 709 (ITU-R BT.709)."""

DARKEST, BRIGHTEST = 1e-15, 1e15
"""Radiance beyond counts as black and as infinite, which keeps every product within float32."""

SURVEY_PIXELS = 300_000
"""Size at which a scene is judged; edges a thousandth of the picture wide survive."""

BAND_PIXELS = 100_000
"""Pixels worked on at a time by one thread, so that a dozen float planes stay near the cache."""

TABLE_SIZE = 16_384
"""Entries of a tabulated curve, evenly spaced in the root of light: code 1 is 40 or more away from 0."""


# --- the scene, seen small ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Survey:
    """What an operator knows of the whole scene while it works on a band of it.

    ``stops`` (h, w) is log2 of the mean luminance of blocks of ``factor`` x ``factor`` pixels, limited
    to the 0.5 and 99.9 percentiles of the blocks that are ``lit``, not black: a lamp, the sun or a
    dead pixel has no say in how the rest of the picture looks.
    """

    stops: Float
    lit: Mask
    factor: int
    ev100: float | None = None

    @property
    def average(self) -> float:
        """log2 of the log-average luminance [stops]."""
        return float(self.stops[self.lit].mean(dtype=np.float64))

    @property
    def brightest(self) -> float:
        """log2 of the luminance taken as the scene's maximum [stops]."""
        return float(self.stops.max())

    def enlarged(self, small: Float, band: slice, width: int) -> Float:
        """Return rows ``band`` of the full-sized plane whose block means are ``small`` (h, w), bilinearly."""
        if self.factor == 1:
            return small[band]
        row = (np.arange(band.start, band.stop) + 0.5) / self.factor - 0.5
        above = np.floor(row).astype(int)
        part = (row - above).astype(np.float32)[:, None]
        last = len(small) - 1
        lines = small[np.clip(above, 0, last)] * (1.0 - part) + small[np.clip(above + 1, 0, last)] * part
        size = (small.shape[1] * self.factor, len(lines))
        return _plane(cv2.resize(lines, size, interpolation=cv2.INTER_LINEAR))[:, :width]


def survey(radiance: Float, pool: Executor, ev100: float | None = None) -> Survey:
    """Look at ``radiance`` (H, W, 3) from far."""
    height, width = radiance.shape[:2]
    factor = math.ceil(math.sqrt(height * width / SURVEY_PIXELS))
    columns = -(-width // factor)

    def shrink(band: slice) -> Float:
        _, luminance = clean(radiance[band])
        rows = -(-luminance.shape[0] // factor)
        bottom, right = rows * factor - luminance.shape[0], columns * factor - width
        whole = cv2.copyMakeBorder(luminance, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return _plane(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA))

    small = np.concatenate(list(pool.map(shrink, _bands(radiance, multiple=factor))))
    lit = small > max(DARKEST, float(np.percentile(small, 99.0)) * 2.0**-20)
    if not lit.any():
        lit[:] = True
    stops = np.log2(np.maximum(small, np.float32(DARKEST)))
    low, high = np.percentile(stops[lit], [0.5, 99.9])
    return Survey(np.clip(stops, low, high), lit, factor, ev100)


def _bands(radiance: Float, multiple: int = 1) -> list[slice]:
    """Return the rows that are worked on together, a ``multiple`` of them in every band but the last."""
    height, width = radiance.shape[:2]
    rows = max(1, BAND_PIXELS // width // multiple) * multiple
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]


def _plane(result: Array) -> Float:
    """Return an array that OpenCV made of float32, which its own types do not tell."""
    return np.asarray(result, dtype=np.float32)


def clean(rows: Float) -> tuple[Float, Float]:
    """Return rows (h, W, 3) within [0, BRIGHTEST] and their luminance.

    A pixel with a NaN becomes black, one with an infinite channel BRIGHTEST in all three.
    """
    light = np.clip(rows, 0.0, BRIGHTEST, dtype=np.float32)
    luminance = _plane(cv2.transform(light, REC709))
    infinite = np.float32(0.05 * BRIGHTEST)  # less than what one infinite channel contributes
    if not luminance.max() < infinite:
        for wrong, value in ((np.isnan(luminance), 0.0), (luminance >= infinite, BRIGHTEST)):
            light[wrong] = value
            luminance[wrong] = value
    return light, luminance


# --- bands of radiance -> codes -------------------------------------------------------------------

Shade = Callable[[slice, Float], tuple[Float, Float | None]]
"""(rows, their luminance) -> the factor on each pixel, and lift [stops] where colour is to be eased."""

Curve = Callable[[Array], Array]
"""Scaled light of one channel -> sRGB code value, [0, 1] -> [0, 1] unless it has a shoulder."""


def render(radiance: Float, shade: Shade, curve: Curve, white: float, pool: Executor) -> Codes8:
    """Scale every pixel as ``shade`` tells and send each channel through ``curve`` up to ``white``."""
    codes = np.empty(radiance.shape, dtype=np.uint8)
    knots = np.linspace(0.0, 1.0, TABLE_SIZE) ** 2 * white
    table = np.rint(np.clip(curve(knots), 0.0, 1.0) * 255.0).astype(np.uint8)
    last = np.float32(TABLE_SIZE - 1)

    def paint(band: slice) -> None:
        light, luminance = clean(radiance[band])
        gain, lift = shade(band, luminance)
        gain = gain * (last * last / np.float32(white))
        channels = [_plane(channel) for channel in cv2.split(light)]
        for channel in channels:
            channel *= gain
        if lift is not None:
            _ease_colour(channels, luminance * gain, lift, last * last)
        shades = []
        for channel in channels:
            np.sqrt(np.clip(channel, 0.0, last * last, out=channel), out=channel)
            channel += np.float32(0.5)
            shades.append(table.take(channel.astype(np.uint16)))
        codes[band] = cv2.merge(shades)

    list(pool.map(paint, _bands(radiance)))
    return codes


COLOUR_LOSS = 0.1
"""Share of the chroma given up per stop by which a shadow is lifted: its noise is coloured, and
ratios kept exactly look garish in a bright shadow (Mantiuk, Tomaszewska and Heidrich 2009)."""


def _ease_colour(channels: list[Float], luminance: Float, lift: Float, white: np.float32) -> None:
    """Draw channels towards ``luminance``, in place, where shadows are lifted and lights exceed ``white``."""
    peak = np.maximum(np.maximum(channels[0], channels[1]), channels[2])
    chroma = 1.0 - np.float32(COLOUR_LOSS) * np.clip(lift, 0.0, 3.0)
    excess = (peak - np.float32(0.7) * white) * (np.float32(0.65) / white)
    chroma *= 1.0 - np.clip(excess, 0.0, 0.85)
    for channel in channels:
        channel -= luminance
        channel *= chroma
        channel += luminance
