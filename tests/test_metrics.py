from __future__ import annotations

import math

import numpy as np
import pytest

from hdrmerge import metrics
from hdrmerge.exposure import mu_law


@pytest.fixture
def truth() -> np.ndarray:
    """A radiance map with maximum 1, minimum 0.01."""
    values = np.exp(np.random.default_rng(1).uniform(np.log(0.01), 0, (40, 50, 3))).astype(np.float32)
    values[20, 20] = 1.0
    return values


def flat(value: float) -> np.ndarray:
    return np.full((32, 32, 3), value, np.float32)


def test_psnr_linear_of_a_constant_error_of_a_tenth_of_the_peak_is_20_db() -> None:
    truth = flat(2.0)
    assert metrics.psnr_linear(truth - 0.2, truth) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr_linear(flat(0.4), flat(0.5), peak=1.0) == pytest.approx(20.0, abs=1e-4)
    assert metrics.psnr_linear(flat(0.4), flat(0.5), peak=10.0) == pytest.approx(40.0, abs=1e-4)


def test_psnr_mu_compares_after_the_mu_law_of_the_truths_peak() -> None:
    truth = flat(4.0)
    truth[:, 16:] = 0.4
    result = truth.copy()
    result[:, 16:] = 0.2
    difference = float(np.diff(mu_law(np.float32([0.05, 0.1])))[0])
    assert metrics.psnr_mu(result, truth) == pytest.approx(-10 * math.log10(difference**2 / 2), abs=1e-3)


def test_values_above_the_peak_and_below_zero_are_clipped() -> None:
    assert metrics.psnr_mu(flat(9.0), flat(1.0)) == math.inf
    assert metrics.psnr_linear(flat(-3.0), flat(0.0)) == math.inf


def test_identical_pictures_are_perfect(truth: np.ndarray) -> None:
    assert metrics.psnr_mu(truth, truth) == metrics.psnr_linear(truth, truth) == math.inf
    assert metrics.pu21_psnr(truth, truth) == math.inf
    assert metrics.ssim_mu(truth, truth) == pytest.approx(1.0, abs=1e-12)
    assert metrics.ssim_linear(truth, truth) == pytest.approx(1.0, abs=1e-12)
    assert metrics.ev_rms(truth, truth) == 0.0
    assert metrics.log_log_slope(truth, truth) == pytest.approx(1.0)


def test_ssim_of_two_flat_pictures_is_the_luminance_term() -> None:
    expected = (2 * 1.0 * 0.5 + 0.01**2) / (1.0 + 0.25 + 0.01**2)
    assert metrics.ssim_linear(flat(0.5), flat(1.0)) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_one_window_equals_the_formula_of_wang_2004() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.random((2, 11, 11, 3)).astype(np.float32)
    y[0, 0] = 1.0
    weight = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weight = np.outer(weight, weight)[..., None] / weight.sum() ** 2
    mx, my = ((weight * v).sum((0, 1)) for v in (x, y))
    vx, vy = ((weight * (v - m) ** 2).sum((0, 1)) for v, m in ((x, mx), (y, my)))
    cov = (weight * (x - mx) * (y - my)).sum((0, 1))
    c1, c2 = 1e-4, 9e-4
    expected = (2 * mx * my + c1) * (2 * cov + c2) / (mx**2 + my**2 + c1) / (vx + vy + c2)
    assert metrics.ssim_linear(x, y, peak=1.0) == pytest.approx(float(expected.mean()), abs=1e-6)


def test_ssim_falls_with_noise(truth: np.ndarray) -> None:
    noise = np.random.default_rng(3).normal(size=truth.shape).astype(np.float32)
    little, much = (metrics.ssim_mu(truth + size * noise, truth) for size in (0.01, 0.1))
    assert 1.0 > little > much > 0.0


def test_pu21_has_its_published_values() -> None:
    codes = metrics.pu21_encode(np.array([0.0, 0.005, 100.0, 10_000.0, 1e6]))
    assert codes == pytest.approx([0.0, 0.0, 256.384, 595.394, 595.394], abs=0.001)
    assert np.all(np.diff(metrics.pu21_encode(np.geomspace(0.005, 10_000, 500))) > 0)


def test_pu21_psnr_is_that_of_the_codes_at_the_given_white() -> None:
    step = float(metrics.pu21_encode(200.0) - metrics.pu21_encode(100.0))
    expected = 20 * math.log10(256 / step)
    assert metrics.pu21_psnr(flat(0.5), flat(1.0), white_nits=200.0) == pytest.approx(expected, abs=1e-4)


def test_ev_rms_of_a_factor_two_is_one_stop_unless_a_scale_is_free(truth: np.ndarray) -> None:
    assert metrics.ev_rms(2 * truth, truth, scale=False) == pytest.approx(1.0)
    assert metrics.ev_rms(2 * truth, truth) == pytest.approx(0.0, abs=1e-6)


def test_ev_rms_of_two_halves_a_stop_apart_is_half_a_stop(truth: np.ndarray) -> None:
    result = truth.copy()
    result[:, 25:] *= 2
    assert metrics.ev_rms(result, truth) == pytest.approx(0.5, abs=1e-6)


def test_ev_rms_ignores_truth_below_the_floor_and_takes_black_as_the_floor() -> None:
    truth, result = flat(0.004), flat(0.004)
    truth[:16], result[:16] = 0.0005, 7.0
    assert metrics.ev_rms(result, truth, scale=False) == 0.0
    assert metrics.ev_rms(flat(0.0), flat(0.004), scale=False) == pytest.approx(2.0, abs=1e-6)


def test_ev_mean_is_that_of_absolute_stops_and_frees_no_scale(truth: np.ndarray) -> None:
    assert metrics.ev_mean(2 * truth, truth) == pytest.approx(1.0)
    result = truth.copy()
    result[:, :25] *= 4
    result[:, 25:] /= 2
    assert metrics.ev_mean(result, truth) == pytest.approx(1.5, abs=1e-6)
    assert metrics.ev_mean(flat(0.0), flat(0.004)) == pytest.approx(2.0, abs=1e-6)


def test_normalised_radiance_has_no_scale_and_no_sun(truth: np.ndarray) -> None:
    """Of 2,000 pixels the two brightest are beyond the 99.9 %."""
    sunny = truth.copy()
    sunny[3, 4] = 1e4
    found = metrics.normalised(7 * sunny)
    np.testing.assert_allclose(found, metrics.normalised(sunny), rtol=1e-6)
    assert found.dtype == np.float32
    assert found.max() == 1.0
    assert np.median(found) == pytest.approx(np.median(truth), rel=0.2)
    assert metrics.normalised(flat(0.0)).max() == 0.0


def test_slope_of_a_power_is_its_exponent_whatever_the_scale(truth: np.ndarray) -> None:
    assert metrics.log_log_slope(7 * truth**0.9, truth) == pytest.approx(0.9, abs=1e-5)


def test_slope_of_a_flat_truth_is_undefined() -> None:
    assert math.isnan(metrics.log_log_slope(flat(0.3), flat(0.5)))


ALL = [
    metrics.psnr_mu,
    metrics.psnr_linear,
    metrics.pu21_psnr,
    metrics.ssim_mu,
    metrics.ssim_linear,
    metrics.ev_rms,
    metrics.ev_mean,
    metrics.log_log_slope,
]


@pytest.mark.parametrize("metric", ALL)
def test_only_the_region_counts(metric, truth: np.ndarray) -> None:
    mask = np.zeros(truth.shape[:2], bool)
    mask[8:20, 8:20] = True
    result = truth * np.float32(1.3) + np.float32(0.01)
    spoiled = result.copy()
    spoiled[30:] = 0.5  # farther from the region than an SSIM window reaches
    assert metric(spoiled, truth, mask=mask) == metric(result, truth, mask=mask)
    assert metric(spoiled, truth) != metric(result, truth)


@pytest.mark.parametrize("metric", ALL)
def test_an_empty_region_is_nan(metric, truth: np.ndarray) -> None:
    assert math.isnan(metric(truth, truth, mask=np.zeros(truth.shape[:2], bool)))


def test_ssim_of_a_picture_smaller_than_its_window_is_nan() -> None:
    small = np.ones((10, 8, 3), np.float32)
    assert math.isnan(metrics.ssim_mu(small, small))


def test_regions_are_what_their_names_say() -> None:
    moving = np.array([[True, True, False, False]])
    saturated = np.array([[True, False, True, False]])
    found = {name: mask.tolist()[0] for name, mask in metrics.regions(moving, saturated).items()}
    assert found == {
        "whole": [True, True, True, True],
        "moving": [True, True, False, False],
        "saturated": [True, False, True, False],
        "moving_saturated": [True, False, False, False],
        "static": [False, False, True, True],
    }
