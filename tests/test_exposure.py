"""Formulas against worked numbers, curves against their inverses, the noise model against noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrmerge.exposure import (
    FULL_WELL,
    READ_NOISE,
    RESPONSES,
    NoiseModel,
    Response,
    ev100,
    exposure,
    mu_law,
    smoothstep,
    srgb_decode,
    srgb_encode,
)
from hdrmerge.simulate import Camera, add_noise, record

# --- exposure -------------------------------------------------------------------------------------


def test_exposure_is_time_times_sensitivity_over_aperture_squared() -> None:
    assert exposure(1.0) == 1.0
    assert exposure(1 / 60, iso=200, f_number=2.0) == pytest.approx(1 / 120)
    assert exposure(1 / 125, iso=400, f_number=8.0) == pytest.approx(0.0005)


def test_a_sunny_day_is_ev_15() -> None:
    """Sunny 16: f/16 and 1/ISO; log2(256 * 100) = 14.64."""
    assert ev100(exposure(1 / 100, 100, 16.0)) == pytest.approx(14.6439, abs=1e-4)
    assert ev100(exposure(1 / 400, 400, 16.0)) == pytest.approx(14.6439, abs=1e-4)


@given(st.floats(1e-5, 100.0), st.floats(25, 100_000), st.floats(0.7, 64))
def test_twice_the_light_is_one_stop_less(time: float, iso: float, f_number: float) -> None:
    base = ev100(exposure(time, iso, f_number))
    assert ev100(exposure(2 * time, iso, f_number)) == pytest.approx(base - 1, abs=1e-9)
    assert ev100(exposure(time, 2 * iso, f_number)) == pytest.approx(base - 1, abs=1e-9)
    assert ev100(exposure(time, iso, f_number / math.sqrt(2))) == pytest.approx(base - 1, abs=1e-9)


def test_mu_law_worked_numbers() -> None:
    """log(1 + 5000 x) / log(5001): ln 2 / 8.5174, ln 2501 / 8.5174, 1, ln 10001 / 8.5174."""
    mu = mu_law(np.float32([-1.0, 0.0, 1 / 5000, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(mu, [0.0, 0.0, 0.081380, 0.918643, 1.0, 1.081368], atol=2e-6)


def test_smoothstep_rises_and_falls() -> None:
    np.testing.assert_allclose(
        smoothstep(0.0, 1.0, np.float32([-1.0, 0.0, 0.25, 0.5, 1.0, 7.0])), [0, 0, 0.15625, 0.5, 1, 1]
    )
    falling = smoothstep(0.96, 0.70, np.float32([0.5, 0.70, 0.765, 0.83, 0.96, 1.2]))
    np.testing.assert_allclose(falling, [1, 1, 0.84375, 0.5, 0, 0], atol=1e-6)


# --- response curves ------------------------------------------------------------------------------


def test_srgb_worked_numbers() -> None:
    """IEC 61966-2-1; 18 % grey is code 0.4614, code 0.5 is 21.4 % light; the pieces meet."""
    codes = np.array([0.0, 0.04045, 0.5, 1.0])
    light = np.array([0.0, 0.0031308, 0.2140411, 1.0])
    np.testing.assert_allclose(srgb_decode(codes), light, atol=1e-7)
    np.testing.assert_allclose(srgb_encode(light), codes, atol=1e-6)
    assert float(srgb_encode(np.array(0.18))) == pytest.approx(0.4613561, abs=1e-6)
    assert float(srgb_decode(np.array(0.0404500001))) == pytest.approx(0.0031308, abs=1e-6)


@given(st.floats(0.0, 1.0))
def test_srgb_encode_inverts_decode(code: float) -> None:
    assert float(srgb_encode(srgb_decode(np.array(code)))) == pytest.approx(code, abs=1e-6)


def every_code(dtype: type) -> np.ndarray:
    """All codes of a type, (1, K, 3), the three channels in different order."""
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    return np.stack([codes, codes[::-1], np.roll(codes, 7)], axis=-1)[None]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", sorted(RESPONSES))
def test_decode_follows_the_formula_and_encode_goes_back(name: str, dtype: type) -> None:
    response, codes = Response.named(name), every_code(dtype)
    top = np.iinfo(dtype).max
    linear = response.decode(codes)
    assert linear.dtype == np.float32
    assert linear.shape == codes.shape
    np.testing.assert_allclose(linear, RESPONSES[name](codes / top), atol=2e-7)
    np.testing.assert_array_equal(np.rint(response.encode(linear) * top), codes)


@pytest.mark.parametrize("name", sorted(RESPONSES))
def test_curves_rise_from_black_to_white(name: str) -> None:
    for levels in (256, 4097, 65536):
        curve = Response.named(name).sampled(levels)
        assert curve.shape == (levels, 3)
        assert np.all(np.diff(curve.astype(np.float64), axis=0) > 0)
        assert np.all(curve[0] == 0.0)
        assert np.all(curve[-1] == 1.0)


def test_only_the_straight_curve_is_linear() -> None:
    assert {name: Response.named(name).is_linear for name in RESPONSES} == {
        "srgb": False,
        "gamma2.2": False,
        "linear": True,
    }


def test_an_unknown_curve_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Response.named("kodachrome")


def test_float_codes_are_linear_already() -> None:
    codes = np.float32([[[0.0, 0.5, 7.25]]])
    np.testing.assert_array_equal(Response.named("srgb").decode(codes), codes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("knots", [2, 3])
def test_each_channel_has_its_own_curve(dtype: type, knots: int) -> None:
    """Through a table of two knots (straight) and of three (bent); the top is not 1 as in RAW files."""
    top = np.array([2.0, 1.0, 1.6], np.float32)
    middle = [] if knots == 2 else [top / 4]
    response = Response("own", np.stack([np.zeros(3, np.float32), *middle, top]))
    assert response.is_linear == (knots == 2)
    white, quarter = np.iinfo(dtype).max, np.iinfo(dtype).max // 4 + 1
    linear = response.decode(np.array([[[0, 0, 0], [quarter] * 3, [white] * 3]], dtype))
    share = quarter / white if knots == 2 else quarter / white / 2
    np.testing.assert_allclose(linear[0], [np.zeros(3), top * share, top], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 5, 3), (2, 4, 5, 3)])
def test_decode_takes_any_number_of_axes(dtype: type, shape: tuple[int, ...]) -> None:
    codes = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    expected = srgb_decode(codes / np.iinfo(dtype).max)
    np.testing.assert_allclose(Response.named("srgb").decode(codes), expected, atol=1e-6)


# --- noise ----------------------------------------------------------------------------------------


def test_noise_model_worked_numbers() -> None:
    """ISO 400 leaves a quarter of 40,000 electrons: photon 1e-4, read 4 * 4 / 40,000 = 4e-4."""
    noise = NoiseModel.from_iso(400)
    assert noise.photon == pytest.approx(4 / FULL_WELL)
    assert noise.read == pytest.approx(4 * READ_NOISE / FULL_WELL)
    np.testing.assert_allclose(
        noise.variance(np.float32([-0.5, 0.0, 0.5])), [1.6e-7, 1.6e-7, 5e-5 + 1.6e-7], rtol=1e-5
    )


@pytest.mark.parametrize("iso", [100.0, 3200.0])
@pytest.mark.parametrize("level", [0.0, 0.001, 0.02, 0.5])
def test_the_model_predicts_the_simulated_noise(iso: float, level: float) -> None:
    """Within 3 %; the sample variance of 200,000 values has a standard error of 0.3 to 0.5 %."""
    noise = NoiseModel.from_iso(iso)
    clean = np.full(200_000, level, np.float32)
    noisy = add_noise(clean, noise, np.random.default_rng(3)).astype(np.float64)
    assert noisy.var() == pytest.approx(float(noise.variance(clean[:1])[0]), rel=0.03)
    assert noisy.mean() == pytest.approx(level, abs=5 * math.sqrt(noisy.var() / clean.size))


def test_rounding_a_straight_curve_adds_a_twelfth_of_a_step_squared() -> None:
    noise = NoiseModel(photon=2.5e-5, read=1e-4).with_quantisation(Response.named("linear"), 256)
    assert noise.photon == pytest.approx(2.5e-5, rel=1e-3)
    assert noise.read**2 == pytest.approx(1e-8 + 1 / 255**2 / 12, rel=1e-3)


def test_sixteen_bits_add_next_to_nothing() -> None:
    bare = NoiseModel.from_iso(100)
    rounded = bare.with_quantisation(Response.named("srgb"), 65536)
    assert bare.photon <= rounded.photon < 1.001 * bare.photon
    assert bare.read <= rounded.read < 1.001 * bare.read


@pytest.mark.parametrize("level", [0.02, 0.1, 0.3, 0.8])
def test_the_model_predicts_noise_and_rounding_together(level: float) -> None:
    """Eight-bit sRGB, levels spread over ten codes; the model is a fit, good to a factor of 1.5."""
    camera = Camera()
    rng = np.random.default_rng(4)
    clean = (level * rng.uniform(0.95, 1.05, (40_000, 1, 3))).astype(np.float32)
    error = camera.decode(record(clean, camera, 100.0, rng)) - clean
    predicted = camera.noise(100.0).with_quantisation(camera.response, 256).variance(np.float32([level]))
    assert 1 / 1.5 < error.var() / float(predicted[0]) < 1.5
