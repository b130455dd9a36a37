"""A reel -> the light of a display: how bright, where it is rolled off, and the signal that says so.

    measure (every frame once) -> light of the display -> roll-off -> PQ or HLG

What depends on the scene is found from all frames before the first is encoded, and held: the light levels
that an HDR10 stream must state at its beginning, where the roll-off ends, and what the tone curve of the
preview needs. Nothing changes from frame to frame but the picture.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from . import broadcast
from .broadcast import hlg_encode, hlg_scene_light, pq_encode, roll_off
from .errors import HdrmergeError
from .exposure import Array, Float
from .footage import Progress, silent
from .reel import Reel
from .render import DARKEST, Survey, clean

Transfer = Literal["pq", "hlg"]

STOPS = (-40.0, 40.0)  # [stops] between which light is counted
PER_STOP = 32  # bins, whose means are known exactly
BINS = round((STOPS[1] - STOPS[0]) * PER_STOP)
GREY = 0.18  # of white: where the log-average of a scene belongs


@dataclass(frozen=True)
class Display:
    """How radiance is shown: the middle exposure's white at ``white`` [nits], all within ``peak`` [nits]."""

    white: float = 203.0  # ITU-R BT.2408: diffuse white of HDR
    peak: float = 1000.0
    transfer: Transfer = "pq"

    def __post_init__(self) -> None:
        if not 1.0 <= self.white < self.peak <= broadcast.BRIGHTEST_PQ:
            raise HdrmergeError(
                f"white at {self.white:g} nits, peak at {self.peak:g}: give a white of 1 nit or more, "
                "and a peak above it up to 10000"
            )

    @property
    def ceiling(self) -> float:
        """Where light ends [nits]: HLG is made for a display of 1000 nits, whatever shows it."""
        return min(self.peak, broadcast.HLG_PEAK) if self.transfer == "hlg" else self.peak


@dataclass(frozen=True, eq=False)
class Measured:
    """What all frames of a reel together are like.

    ``white`` is the radiance that is shown as white: that of the middle exposure, or between those of the
    middle two the one that makes the scene's log-average mid-grey. ``brightest`` [nits] is the largest
    channel of any pixel before the roll-off. ``max_cll`` and ``max_fall`` [nits] are CTA-861.3's, after
    it: the largest channel of any pixel, and the largest mean over a frame of the pixels' largest
    channels. ``survey`` is what an operator of `encode.GLOBAL` needs.
    """

    white: float
    brightest: float
    max_cll: float
    max_fall: float
    survey: Survey


def measure(reel: Reel, display: Display | None = None, progress: Progress = silent) -> Measured:
    """Read every frame once and find what must be known before the first is encoded.

    How many pixels have which light is counted for each frame, and kept in a temporary file until all are
    counted, and with them white and the roll-off known.
    """
    display = display or Display()
    brightest, luminances = 0.0, np.zeros(BINS, np.int64)
    with tempfile.TemporaryFile() as counts:
        for number, frame in enumerate(reel.frames()):
            largest = _light(frame.pixels, 1.0).max(axis=2).ravel()
            brightest = max(brightest, float(largest.max()))
            bins = _bins(largest)
            sums = np.bincount(bins, largest, BINS)
            np.stack([np.bincount(bins, minlength=BINS).astype(np.float64), sums]).tofile(counts)
            luminances += _luminances(frame.pixels)
            progress("measure", (number + 1) / len(reel))
        survey = _survey(luminances)
        low, high = reel.script.whites
        white = float(np.clip(2.0**survey.average / GREY, low, high))
        scale = display.white / white
        brightest *= scale
        max_fall = max(_mean_light(row, scale, brightest, display.ceiling) for row in _rows(counts))
    max_cll = float(roll_off(np.array(brightest), brightest, display.ceiling))
    return Measured(white, brightest, max_cll, max_fall, survey)


def _rows(counts: Any) -> Iterator[Array]:
    counts.seek(0)
    while len(row := np.fromfile(counts, np.float64, 2 * BINS)):
        yield row.reshape(2, BINS)


def _mean_light(row: Array, scale: float, brightest: float, peak: float) -> float:
    """Return the mean light of a frame [nits] after the roll-off, of counts and sums by bins."""
    count, total = row
    seen = count > 0
    return float(count[seen] @ roll_off(scale * total[seen] / count[seen], brightest, peak) / count.sum())


def _bins(light: Float) -> Array:
    """Return the bin of each value by its stops; black is in the first."""
    stops = np.log2(np.maximum(light, np.float32(DARKEST)))
    return np.asarray(np.clip((stops - STOPS[0]) * PER_STOP, 0, BINS - 1).astype(np.intp))


def _luminances(radiance: Float) -> Array:
    """Count luminance by stops, black left out."""
    _, luminance = clean(radiance)
    return np.bincount(_bins(luminance[luminance > DARKEST]), minlength=BINS)


def _survey(counts: Array) -> Survey:
    """Return the survey of a clip: its luminances as a line of 1000 pixels, limited as by `render.survey`."""
    centres = STOPS[0] + (np.arange(len(counts)) + 0.5) / PER_STOP
    share = np.cumsum(counts) / max(int(counts.sum()), 1)
    at = np.clip(np.linspace(0.0, 1.0, 1000), 0.005, 0.999)
    line = np.interp(at, share, centres) if counts.any() else np.zeros(1000)
    stops = line.astype(np.float32)[None]
    return Survey(stops, np.ones(stops.shape, np.bool_), 1)


# --- radiance -> signal ---------------------------------------------------------------------------


def _light(radiance: Float, scale: float) -> Float:
    """Return light (H, W, 3) in BT.2020, of linear Rec. 709."""
    light, _ = clean(radiance)
    matrix = broadcast.to_rec2020() * np.float32(scale)
    return np.maximum(np.asarray(cv2.transform(light, matrix), np.float32), 0.0)


def hdr_signal(radiance: Float, white: float, display: Display, brightest: float) -> Float:
    """Return R'G'B' (H, W, 3) in [0, 1], BT.2020, PQ or HLG, of linear Rec. 709.

    ``white`` and ``brightest`` are those of `Measured`. All channels of a pixel are rolled off by the
    factor of its largest, so that its hue stays.
    """
    nits = _light(radiance, display.white / white)
    largest = np.maximum(nits.max(axis=2), 1e-6)
    if brightest > display.ceiling:
        nits *= (roll_off(largest, brightest, display.ceiling) / largest).astype(np.float32)[..., None]
    if display.transfer == "hlg":
        return hlg_encode(hlg_scene_light(nits)).astype(np.float32)
    return _pq(nits)


def _pq(nits: Float) -> Float:
    """Return the PQ signal through a table over the fourth root of light, which is near PQ itself."""
    root = np.sqrt(np.sqrt(nits * np.float32(1 / broadcast.BRIGHTEST_PQ)))
    root *= np.float32(len(_PQ_TABLE) - 2)
    below = np.minimum(root.astype(np.int32), len(_PQ_TABLE) - 2)
    low = _PQ_TABLE.take(below)
    return np.asarray(low + (root - below) * (_PQ_TABLE.take(below + 1) - low), np.float32)


_PQ_TABLE = pq_encode(np.linspace(0.0, 1.0, 8193) ** 4 * broadcast.BRIGHTEST_PQ).astype(np.float32)
_PQ_TABLE = np.append(_PQ_TABLE, _PQ_TABLE[-1])
