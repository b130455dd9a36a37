"""The tone mapping operators, each named after its method: what a scene becomes on a display.

An operator takes the radiance (H, W, 3), the `Survey` of it and threads to work with, and returns sRGB
codes. All but one are a factor on each pixel and a curve, which `render` applies in bands.
"""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np

from .exposure import Array, Float, mu_law, smoothstep, srgb_encode
from .render import DARKEST, Codes8, Shade, Survey, clean, render, survey

GREY = 0.18
"""Display light of mid-grey, code 118 of 255."""


# --- the default ----------------------------------------------------------------------------------

ROOM_ABOVE, ROOM_WINDOW, ROOM_BELOW, ROOM_SPREAD = 4.4, 3.2, 4.4, 2.3
"""Range that needs no compression [stops]: from the mean to highlights, to the brightest twentieth of
the picture, to shadows; and the standard deviation. Well exposed photographs have that, and keep it."""

FLATTEST = 0.5
"""Least contrast of the base layer, in log units; less looks painted."""

MOST_LIFT = 3.0
"""Limit on what shadows gain over the mean [stops]; there is mostly noise below."""

EDGE = 0.75
"""Contrast which the base layer begins to follow, and leave to compression [stops]."""

KNEE = 0.35
"""Display light up to which the curve is the identity."""

MEAN_CODE = 0.49
"""Mean code value of a picture, before the scene has its say: that of well liked photographs."""


def durand2002(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Compress the base layer as far as the scene needs, keep the detail, and expose like a camera.

    Base and detail of log luminance are those of Durand and Dorsey, "Fast bilateral filtering for the
    display of high-dynamic-range images", SIGGRAPH 2002, with three changes. The filter is the fast guided
    filter of He and Sun 2015: its coefficients come from the small luminance, and applied to the full
    one they follow every edge, without halos. The contrast is not fixed: a scene that fits the
    display keeps its own. Exposure and shoulder come from the result and not from the input.
    """
    average = scene.average
    base_slope, base_offset = _guided_coefficients(scene.stops - np.float32(average))
    tone = _BaseTone.fit(scene.stops[scene.lit] - np.float32(average))
    base = base_slope * (scene.stops - np.float32(average)) + base_offset
    compressed = (scene.stops - np.float32(average) + tone.gain(base))[scene.lit]
    exposure, white, black = _expose(compressed, scene, tone)
    width = radiance.shape[1]

    def shade(band: slice, luminance: Float) -> tuple[Float, Float]:
        stops = np.log2(np.maximum(luminance, np.float32(DARKEST)))
        stops -= np.float32(average)
        stops *= scene.enlarged(base_slope, band, width)
        stops += scene.enlarged(base_offset, band, width)
        lift = tone.gain(stops)
        return np.exp2(lift + np.float32(exposure - average)), lift

    def curve(light: Array) -> Array:
        return srgb_encode((_shoulder(light, white) - black) / (1.0 - black))

    return render(radiance, shade, curve, white, pool)


@dataclass(frozen=True)
class _BaseTone:
    """The contrast of the base layer above and below the mean; 1 leaves it alone."""

    above: float
    below: float
    floor: float  # [stops] relative to the mean; the lift grows no further beneath

    @classmethod
    def fit(cls, stops: Float) -> _BaseTone:
        """Find the least compression that brings ``stops``, relative to their mean, to the display."""
        low, window, high = (float(p) for p in np.percentile(stops, [1.0, 95.0, 99.5]))
        spread = ROOM_SPREAD / max(float(stops.std()), ROOM_SPREAD)
        fits = [room / max(range_, room) for room, range_ in ((ROOM_ABOVE, high), (ROOM_WINDOW, window))]
        above = max(FLATTEST, min(spread, *fits))
        below = max(FLATTEST, min(spread, ROOM_BELOW / max(-low, ROOM_BELOW)))
        return cls(above, below, max(low, -MOST_LIFT / max(1.0 - below, 1e-3)))

    def gain(self, base: Float) -> Float:
        """Return what is added to log luminance where the base is ``base`` [stops].

        Two straight lines joined smoothly over about a stop by (x + sqrt(x^2 + 1)) / 2.
        """
        x: Float = np.maximum(base, np.float32(self.floor))
        up = np.sqrt(x * x + np.float32(1.0))
        up += x
        up *= np.float32(0.5)
        x -= up
        x *= np.float32(self.below - 1.0)
        up *= np.float32(self.above - 1.0)
        x += up
        return x


def _guided_coefficients(stops: Float) -> tuple[Float, Float]:
    """Return slope and offset (h, w) of the guided filter of ``stops`` by itself, base = slope x + offset."""
    reach = 2 * max(1, round(min(stops.shape) / 16)) + 1

    def blur(plane: Float) -> Float:
        return np.asarray(cv2.blur(plane, (reach, reach), borderType=cv2.BORDER_REPLICATE), np.float32)

    mean = blur(stops)
    variance = np.maximum(blur(stops * stops) - mean * mean, 0.0)
    slope = variance / (variance + np.float32(EDGE**2))
    return blur(slope), blur((1.0 - slope) * mean)


def _shoulder(light: Array, white: float) -> Array:
    """Return display light: the identity up to KNEE, then Reinhard's curve to 1 at ``white``.

    The curve x (1 + x/w^2) / (1 + x) begins with slope 1 and is the identity for ``white`` 1.
    """
    above = np.maximum(light - KNEE, 0.0) / (1.0 - KNEE)
    limit = (white - KNEE) / (1.0 - KNEE)
    return np.minimum(light, KNEE) + (1.0 - KNEE) * above * (1.0 + above / limit**2) / (1.0 + above)


def _expose(compressed: Float, scene: Survey, tone: _BaseTone) -> tuple[float, float, float]:
    """Return exposure [stops], light that becomes white, and light that becomes black.

    The exposure is the one with the wanted mean code. The mean is lower where most of the scene is
    darker than its log-average, and at night; higher where all of it fits below white, as in snow or fog.
    """
    levels = np.quantile(compressed, np.linspace(0.001, 0.999, 500))
    high, low = float(levels[-2]), float(levels[2])
    centre = float(np.median(compressed))
    variety = _step(0.5, 2.5, high - low)  # 0 for a picture of one tone
    average, median = scene.average, float(np.median(scene.stops[scene.lit]))
    wanted = MEAN_CODE - 0.12 * _step(0.4, 1.4, average - median)
    wanted += 0.05 * variety * _step(3.4, 1.8, high - centre)
    if scene.ev100 is not None:
        wanted -= 0.15 * _step(2.0, -3.0, scene.ev100 + average - math.log2(GREY))

    def white_at(exposure: float) -> float:
        return float(min(max(2.0 ** (high + exposure), 1.0), 8.0))

    darker, brighter = -20.0, 20.0
    for _ in range(24):
        exposure = 0.5 * (darker + brighter)
        light = _shoulder(np.exp2(levels + exposure), white_at(exposure))
        if float(np.minimum(srgb_encode(light), 0.85).mean()) < wanted:
            darker = exposure
        else:
            brighter = exposure
    headroom = max(0.0, -(high + exposure))
    exposure += 0.6 * min(headroom, 1.5) * variety
    black = (1.0 - min(tone.above, tone.below)) * 2.0 ** (low + exposure)
    return exposure, white_at(exposure), min(black, 0.012)


def _step(low: float, high: float, x: float) -> float:
    return float(smoothstep(low, high, np.full(1, x, dtype=np.float32))[0])


# --- the others -----------------------------------------------------------------------------------


def reinhard2002(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Apply the global photographic operator, L (1 + L/w^2) / (1 + L) with key 0.18.

    Reinhard, Stark, Shirley and Ferwerda, "Photographic tone reproduction for digital images", 2002.
    """
    key = GREY * 2.0**-scene.average
    white = max(1.0, key * 2.0**scene.brightest)

    def shade(band: slice, luminance: Float) -> tuple[Float, None]:
        scaled = luminance * np.float32(key)
        return np.float32(key) * (1.0 + scaled / np.float32(white**2)) / (1.0 + scaled), None

    return render(radiance, shade, srgb_encode, 1.0, pool)


def drago2003(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Apply adaptive logarithmic mapping with bias 0.85.

    The base of the logarithm goes from 2 in shadows to 10 in highlights. Drago, Myszkowski, Annen and
    Chiba, "Adaptive logarithmic mapping for displaying high contrast scenes", 2003.
    """
    adapted = 2.0**-scene.average
    brightest = max(1.0, adapted * 2.0**scene.brightest)
    power = math.log(0.85) / math.log(0.5)
    ceiling = math.log10(brightest + 1.0)

    def shade(band: slice, luminance: Float) -> tuple[Float, None]:
        scaled = np.maximum(luminance * np.float32(adapted), np.float32(1e-6))
        base = 2.0 + 8.0 * np.minimum(scaled / np.float32(brightest), 1.0) ** np.float32(power)
        display = np.log1p(scaled) / (np.log(base) * np.float32(ceiling))
        return display / scaled * np.float32(adapted), None

    return render(radiance, shade, srgb_encode, 1.0, pool)


def narkowicz2015(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Apply a filmic curve with toe and shoulder, the fit to the ACES reference of Narkowicz 2015.

    Krzysztof Narkowicz, "ACES filmic tone mapping curve", 2015. The log-average becomes mid-grey:
    the curve is 0.18 at 0.1302.
    """
    key = np.float32(0.1302 * 2.0**-scene.average)

    def filmic(x: Array) -> Array:
        return srgb_encode(np.minimum(x * (2.51 * x + 0.03) / (x * (2.43 * x + 0.59) + 0.14), 1.0))

    return render(radiance, _constant(key), filmic, 8.0, pool)


def mulaw(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Show the mu-law of the scene's range, the domain in which HDR reconstruction is scored.

    Kalantari and Ramamoorthi, "Deep high dynamic range imaging of dynamic scenes", 2017.
    """
    scale = np.float32(2.0**-scene.brightest)
    return render(radiance, _constant(scale), mu_law, 1.0, pool)


def mantiuk2006(radiance: Float, scene: Survey, pool: Executor) -> Codes8:
    """Apply OpenCV's contrast mapping in the gradient domain; slow, and several float pictures of memory.

    Mantiuk, Myszkowski and Seidel, "A perceptual framework for contrast processing of high dynamic
    range images", 2006.
    """
    if float(np.ptp(scene.stops)) == 0.0 or min(radiance.shape[:2]) < 16:
        # OpenCV fails without any gradient, and where its pyramid runs out of pixels.
        return reinhard2002(radiance, scene, pool)
    light, _ = clean(radiance)
    light *= np.float32(2.0**-scene.brightest)
    np.clip(light, 1e-6, 1.0, out=light)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # the solver warns about itself
    try:
        contrast = cv2.createTonemapMantiuk(gamma=1.0, scale=0.75, saturation=1.0)
        mapped: Float = contrast.process(light)
    finally:
        cv2.utils.logging.setLogLevel(level)
    result = survey(mapped, pool)  # OpenCV stretches to the extremes, which may leave it very dark
    key = np.float32(GREY * 2.0**-result.average)
    white = max(1.0, float(key) * 2.0**result.brightest)
    return render(mapped, _constant(key), lambda x: srgb_encode(_shoulder(x, white)), white, pool)


def _constant(key: np.float32) -> Shade:
    return lambda band, luminance: (np.full_like(luminance, key), None)
