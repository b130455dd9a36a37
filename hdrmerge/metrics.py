"""How far a radiance map is from the truth: pure functions of two arrays and a region.

Arrays are linear radiance (H, W, 3); a region is a mask (H, W), None for the whole picture. A region
without pixels to judge gives nan, so that tables can be averaged with ``np.nanmean``.

    psnr_mu, ssim_mu          after the mu-law: what the multi-frame HDR literature compares
    psnr_linear, ssim_linear  in linear light: the brightest parts decide
    pu21_psnr                 in perceptually uniform units of a display of known brightness
    ev_rms, log_log_slope     in stops: errors of exposure and of contrast
    ev_mean                   in stops, absolute: how far clipped highlights are from what they were
    flicker_mu                after the mu-law, from one frame of a video to the next

`normalised` comes before a comparison with maps that have a scale of their own.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from .exposure import Float, Mask, mu_law

PU21_PARAMETERS = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)
"""PU21 "banding_glare", the variant its authors recommend (github.com/gfxdisp/pu21, pu21_encoder.m)."""

PU21_PEAK = 256.0
"""Peak of the PSNR in PU21 units, as in the authors' pu21_metric.m: 100 cd/m^2, a white SDR display,
is near 256. The encoding itself goes on to 595.4 at 10,000 cd/m^2."""

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5


def psnr_mu(result: Float, truth: Float, mask: Mask | None = None, peak: float | None = None) -> float:
    """Return the PSNR [dB] after the mu-law with mu = 5000 (Kalantari and Ramamoorthi 2017).

    Both are divided by ``peak``, the maximum of the whole truth unless given, and clipped to [0, 1].
    """
    return _psnr(mu_law(_relative(result, truth, peak)), mu_law(_relative(truth, truth, peak)), mask, 1.0)


def psnr_linear(result: Float, truth: Float, mask: Mask | None = None, peak: float | None = None) -> float:
    """Return the PSNR [dB] in linear light; ``peak`` as in `psnr_mu`."""
    return _psnr(_relative(result, truth, peak), _relative(truth, truth, peak), mask, 1.0)


def pu21_psnr(result: Float, truth: Float, white_nits: float = 100.0, mask: Mask | None = None) -> float:
    """Return the PSNR [dB] of PU21 codes of all three channels, peak `PU21_PEAK`.

    ``white_nits`` [cd/m^2] is the luminance at which a display shows radiance 1.0. Source: Mantiuk and
    Azimi, "PU21: A novel perceptually uniform encoding for adapting existing quality metrics for
    HDR", Picture Coding Symposium 2021.
    """
    return _psnr(pu21_encode(result * white_nits), pu21_encode(truth * white_nits), mask, PU21_PEAK)


def pu21_encode(luminance: Any) -> Float:
    """Return PU21 codes, 0 to 595.4, of luminance [cd/m^2], clipped to 0.005..10,000.

    Equal steps are about equally visible, dark or bright; see `pu21_psnr` for the source.

    >>> round(float(pu21_encode(100.0)), 1)
    256.4
    """
    p1, p2, p3, p4, p5, p6, p7 = PU21_PARAMETERS
    power = np.clip(np.asarray(luminance, dtype=np.float64), 0.005, 10_000.0) ** p4
    codes = p7 * (((p1 + p2 * power) / (1.0 + p3 * power)) ** p5 - p6)
    return np.asarray(np.maximum(codes, 0.0), dtype=np.float32)


def ssim_mu(result: Float, truth: Float, mask: Mask | None = None, peak: float | None = None) -> float:
    """Return the structural similarity after the mu-law, see `psnr_mu` and `ssim_linear`."""
    return _ssim(mu_law(_relative(result, truth, peak)), mu_law(_relative(truth, truth, peak)), mask)


def ssim_linear(result: Float, truth: Float, mask: Mask | None = None, peak: float | None = None) -> float:
    """Return the structural similarity, 1 for equal pictures, in linear light; mean over channels.

    Window 11 x 11, Gaussian with sigma 1.5, K = 0.01 and 0.03, full windows only, so that a border of
    5 px is not judged. Source: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from
    error visibility to structural similarity", IEEE TIP 2004.
    """
    return _ssim(_relative(result, truth, peak), _relative(truth, truth, peak), mask)


def ev_rms(
    result: Float, truth: Float, mask: Mask | None = None, floor: float = 1e-3, scale: bool = True
) -> float:
    """Return the root mean square of log2(result / truth) [stops] over all channels.

    With ``scale`` one common factor is removed first, the one that minimises the error. Values of the
    truth up to ``floor`` are left out, and those of the result are raised to it.
    """
    stops = np.subtract(*_log2_pairs(result, truth, mask, floor))
    if stops.size == 0:
        return math.nan
    if scale:
        stops = stops - stops.mean()
    return float(np.sqrt(np.mean(stops**2)))


def ev_mean(result: Float, truth: Float, mask: Mask | None = None, floor: float = 1e-3) -> float:
    """Return the mean of abs(log2(result / truth)) [stops] over all channels; ``floor`` as in `ev_rms`.

    No scale is free: a photograph has one, its white, and what was brighter is to be told from that.
    """
    stops = np.subtract(*_log2_pairs(result, truth, mask, floor))
    return float(np.mean(np.abs(stops))) if stops.size else math.nan


def log_log_slope(result: Float, truth: Float, mask: Mask | None = None, floor: float = 1e-3) -> float:
    """Return the slope of log2(result) over log2(truth) by least squares; ``floor`` as in `ev_rms`.

    1 keeps the contrast of the scene, less flattens it; a global factor has no influence.
    """
    found, true = _log2_pairs(result, truth, mask, floor)
    if true.size == 0:
        return math.nan
    spread = true - true.mean()
    variance = float(np.mean(spread**2))
    return float(np.mean(spread * (found - found.mean()))) / variance if variance > 0 else math.nan


def flicker_mu(
    before: Float,
    after: Float,
    mask: Mask | None = None,
    truths: tuple[Float, Float] | None = None,
    peak: float = 1.0,
) -> float:
    """Return the root mean square of how mu-law values change from one frame of a video to the next.

    Frames are in line, and ``mask`` says what stands still: there nothing should change. With ``truths`` of
    both frames, resampled as they were, what changes in these is no flicker. ``peak`` as in `psnr_mu`.
    """
    change = _mu_change(before, after, peak)
    if truths is not None:
        change = change - _mu_change(*truths, peak)
    judged = change if mask is None else change[mask]
    return float(np.sqrt(np.mean(np.square(judged, dtype=np.float64)))) if judged.size else math.nan


def normalised(radiance: Float, share: float = 0.999) -> Float:
    """Divide radiance (H, W, 3) by its own brightest value, and clip it to [0, 1].

    As papers on single photographs compare HDR pictures, whose scales are their methods' own. The brightest
    value is that below which this ``share`` of the pixels lies, by their largest channel: a single pixel of
    sun would turn the rest black.
    """
    return _relative(radiance, radiance, float(np.quantile(radiance.max(axis=-1), share)))


def regions(moving: Mask, saturated: Mask) -> dict[str, Mask]:
    """Return the regions a merge is judged on, as masks (H, W) by name.

    ``moving``: an object was there in some frame; ``saturated``: the reference is clipped. "static"
    is everything that is not moving.
    """
    return {
        "whole": np.ones_like(moving),
        "moving": moving,
        "saturated": saturated,
        "moving_saturated": moving & saturated,
        "static": ~moving,
    }


def _relative(radiance: Float, truth: Float, peak: float | None) -> Float:
    """Divide by the peak and clip to [0, 1]; a black truth counts as its own peak."""
    divisor = float(truth.max()) if peak is None else peak
    return np.asarray(np.clip(radiance / (divisor or 1.0), 0.0, 1.0), dtype=np.float32)


def _mu_change(before: Float, after: Float, peak: float) -> Float:
    return mu_law(_relative(after, after, peak)) - mu_law(_relative(before, before, peak))


def _psnr(result: Float, truth: Float, mask: Mask | None, peak: float) -> float:
    error = (result - truth) if mask is None else (result[mask] - truth[mask])
    if error.size == 0:
        return math.nan
    mean_square = float(np.mean(np.square(error, dtype=np.float64)))
    return math.inf if mean_square == 0 else 10 * math.log10(peak**2 / mean_square)


def _ssim(result: Float, truth: Float, mask: Mask | None) -> float:
    x, y = result.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x, var_y = _window_mean(x * x) - mean_x**2, _window_mean(y * y) - mean_y**2
    covariance = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    similarity = luminance * (2 * covariance + c2) / (var_x + var_y + c2)
    border = SSIM_WINDOW // 2
    inner = np.s_[border:-border, border:-border]
    judged = similarity[inner] if mask is None else similarity[inner][mask[inner]]
    return float(judged.mean()) if judged.size else math.nan


def _window_mean(values: Any) -> Any:
    return cv2.GaussianBlur(values, (SSIM_WINDOW, SSIM_WINDOW), SSIM_SIGMA)


def _log2_pairs(result: Float, truth: Float, mask: Mask | None, floor: float) -> tuple[Any, Any]:
    if mask is not None:
        result, truth = result[mask], truth[mask]
    judged = truth > floor
    found, true = (np.maximum(values[judged], floor).astype(np.float64) for values in (result, truth))
    return np.log2(found), np.log2(true)
