"""tonemap: a picture one would show, whatever the radiance."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from hdrmerge import render
from hdrmerge.errors import HdrmergeError
from hdrmerge.exposure import Float, srgb_decode
from hdrmerge.tonemap import DEFAULT, OPERATORS, tonemap

GLOBAL = ["reinhard2002", "drago2003", "narkowicz2015", "mulaw"]
EVERY = sorted(OPERATORS)


def room_with_window(height: int = 240, width: int = 320, stops: float = 7.0) -> Float:
    """A textured grey room, and a window ``stops`` brighter over a fifth of it."""
    noise = np.random.default_rng(7).normal(0.0, 0.4, (height, width))
    log_light = cv2.GaussianBlur(noise, (0, 0), 1.0) + np.linspace(-3.5, -1.5, width)
    log_light[height // 6 : height // 2, width // 2 : width // 2 + width // 3] += stops
    tint = np.float32([1.1, 1.0, 0.8])
    return (np.exp2(log_light)[..., None] * tint).astype(np.float32)


def photograph(height: int = 200, width: int = 300) -> Float:
    """Linear light of a picture that a display can show as it is: 0.01 to 0.9 and some texture."""
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(0.0, 3.0, (height, width, 3)), (0, 0), 2.0)
    ramp = np.linspace(-6.0, -0.5, width)[None, :, None]
    return np.clip(np.exp2(ramp + noise), 0.01, 0.9).astype(np.float32)


def grey(values: Float) -> Float:
    return np.repeat(np.atleast_2d(values).astype(np.float32)[..., None], 3, axis=2)


# --- every operator -------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize("make", [room_with_window, photograph])
def test_returns_codes_of_a_picture_with_contrast(operator: str, make: Callable[[], Float]) -> None:
    radiance = make()
    codes = tonemap(radiance, operator)
    assert codes.dtype == np.uint8
    assert codes.shape == radiance.shape
    low, high = np.percentile(codes, [2, 98])
    assert high - low > 80
    assert 50 < codes.mean() < 215


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 700), (900, 1), (16, 16), (113, 200)])
def test_takes_any_size(operator: str, shape: tuple[int, int]) -> None:
    radiance = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    assert tonemap(radiance, operator).shape == (*shape, 3)


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_a_black_picture_stays_black(operator: str, value: float) -> None:
    assert tonemap(np.full((40, 50, 3), value, dtype=np.float32), operator).max() == 0


@pytest.mark.parametrize("operator", EVERY)
def test_neutral_stays_neutral(operator: str) -> None:
    radiance = room_with_window()
    radiance[...] = radiance[..., 1:2]
    codes = tonemap(radiance, operator).astype(int)
    assert np.ptp(codes, axis=2).max() <= 1


@pytest.mark.parametrize("operator", EVERY)
def test_pixels_that_are_no_numbers_change_only_themselves(operator: str) -> None:
    radiance = room_with_window()
    wrong = radiance.copy()
    wrong[20, 30] = np.nan
    wrong[40, 31, 1] = np.nan
    wrong[60, 32] = -np.inf
    wrong[80, 33] = -5.0
    codes, clean = tonemap(wrong, operator), tonemap(radiance, operator)
    if operator != "mantiuk2006":  # solved for the whole picture at once
        assert (codes[[20, 40, 60, 80], [30, 31, 32, 33]] == 0).all()
        far = np.s_[120:, :, :]
        assert np.abs(codes[far].astype(int) - clean[far]).max() <= 1


@pytest.mark.parametrize("operator", [name for name in EVERY if name != "mantiuk2006"])
@pytest.mark.parametrize("sun", [1e9, np.inf])
def test_the_sun_is_white_and_darkens_nothing(operator: str, sun: float) -> None:
    radiance = room_with_window()
    lit = radiance.copy()
    lit[200, 30] = sun
    lit[201, 30, 0] = np.inf
    codes, clean = tonemap(lit, operator).astype(int), tonemap(radiance, operator).astype(int)
    assert (codes[[200, 201], 30] == 255).all()
    others = np.ones(radiance.shape[:2], dtype=bool)
    others[160:, :80] = False
    assert np.abs(codes - clean)[others].max() <= 2


@pytest.mark.parametrize("operator", [name for name in EVERY if name != "mantiuk2006"])
@pytest.mark.parametrize("scale", [1e-6, 0.3, 65504.0])
def test_the_scale_of_the_radiance_does_not_matter(operator: str, scale: float) -> None:
    radiance = room_with_window()
    scaled = tonemap(radiance * np.float32(scale), operator).astype(int)
    assert np.abs(scaled - tonemap(radiance, operator)).max() <= 1


@pytest.mark.parametrize("operator", [name for name in EVERY if name != "mantiuk2006"])
def test_bands_and_threads_leave_no_trace(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SURVEY_PIXELS", 9000)  # so that the base is enlarged 3 times
    radiance = room_with_window(241, 323)
    whole = tonemap(radiance, operator, threads=1)
    monkeypatch.setattr(render, "BAND_PIXELS", 2000)
    np.testing.assert_array_equal(tonemap(radiance, operator, threads=5), whole)


@pytest.mark.parametrize("operator", GLOBAL)
def test_global_operators_are_monotone(operator: str) -> None:
    ramp = grey(np.exp2(np.linspace(-10.0, 6.0, 4000)))
    codes = tonemap(ramp, operator)[0, :, 0].astype(int)
    assert (np.diff(codes) >= 0).all()
    assert codes[0] < 30
    assert codes[-1] >= 250


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_half_and_double_are_taken_too(dtype: type) -> None:
    radiance = room_with_window().astype(np.float16)
    np.testing.assert_array_equal(tonemap(radiance.astype(dtype)), tonemap(radiance.astype(np.float32)))


def test_the_input_is_left_alone() -> None:
    radiance = room_with_window()
    radiance[3, 4] = np.nan
    before = radiance.copy()
    tonemap(radiance)
    np.testing.assert_array_equal(radiance, before)


def test_unknown_operator_is_refused_with_the_names() -> None:
    with pytest.raises(HdrmergeError, match=r"'aces'.*durand2002.*reinhard2002"):
        tonemap(photograph(), "aces")


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 4), (0, 5, 3)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(HdrmergeError, match="shape"):
        tonemap(np.ones(shape, dtype=np.float32))


# --- worked numbers -------------------------------------------------------------------------------


def test_the_photographic_operator_puts_the_average_at_its_key() -> None:
    # log-average 0.18 and white 8: L (1 + L/w^2) / (1 + L) = 0.18 * 1.0028 / 1.18 = 0.153 -> code 109
    light = np.float32([0.18 * 2**k for k in (-3, -1, 0, 0, 1, 3)] + [0.18**2 / 8.0, 8.0])
    codes = tonemap(grey(light), "reinhard2002")[0, :, 0]
    assert codes[2] == 109


@pytest.mark.parametrize("operator", ["reinhard2002", "narkowicz2015"])
def test_a_picture_of_one_tone_becomes_mid_grey(operator: str) -> None:
    assert (tonemap(np.full((30, 40, 3), 7.0, dtype=np.float32), operator) == 118).all()


def test_mulaw_of_half_the_maximum() -> None:
    # log(1 + 2500) / log(1 + 5000) = 0.9187 -> 234
    codes = tonemap(grey(np.float32([[2.0] * 500 + [1.0] * 500])), "mulaw")[0, :, 0]
    assert (codes[0], codes[-1]) == (255, 234)


# --- the default ----------------------------------------------------------------------------------


def test_a_picture_of_one_tone_is_mid_grey_by_default() -> None:
    codes = tonemap(np.full((30, 40, 3), 7.0, dtype=np.float32))
    assert np.ptp(codes) == 0
    assert 110 < codes[0, 0, 0] < 135


def test_a_picture_that_fits_is_changed_in_exposure_only() -> None:
    light = photograph()
    shown = srgb_decode(tonemap(light) / 255.0)
    middle = (light > 0.03) & (shown < 0.3)  # below the shoulder and above the coarse codes
    ratio = np.log2(shown[middle] / light[middle])
    assert middle.mean() > 0.3
    assert np.ptp(np.percentile(ratio, [1, 99])) < 0.1  # stops


def test_room_and_window_are_both_visible() -> None:
    radiance = room_with_window(stops=8.0)
    codes = tonemap(radiance).astype(int)
    window, room = codes[44:116, 164:262, 1], codes[130:, :, 1]
    assert 60 < np.median(room) < 140
    assert 170 < np.median(window) < 254
    assert np.ptp(np.percentile(window, [5, 95])) > 6  # not clipped: its texture is there


def test_no_halo_along_a_strong_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SURVEY_PIXELS", 10_000)
    step = np.full((240, 480), 0.05, dtype=np.float32)
    step[:, 240:] = 0.05 * 2.0**6
    codes = tonemap(grey(step))[120, :, 0].astype(int)
    dark, bright = codes[:236], codes[244:]
    assert bright.min() - dark.max() > 60
    assert np.ptp(dark) <= 4
    assert np.ptp(bright) <= 6


def test_a_ramp_has_no_bands() -> None:
    ramp = np.tile(np.exp2(np.linspace(-6.0, 4.0, 3000, dtype=np.float32)), (60, 1))
    codes = tonemap(grey(ramp))[30, :, 0].astype(int)
    steps = np.diff(codes)
    assert steps.min() >= 0
    assert steps.max() <= 1


def test_strong_lights_lose_their_colour() -> None:
    radiance = room_with_window()
    radiance[180:200, 40:60] = [0.5, 0.5, 3000.0]  # a blue lamp
    radiance[180:200, 100:120] = [900.0, 600.0, 900.0]  # magenta, as clipped highlights like to be
    codes = tonemap(radiance)
    assert codes[190, 50].min() >= 245
    assert codes[190, 110].min() >= 250


def test_black_borders_do_not_count() -> None:
    radiance = room_with_window()
    framed = np.pad(radiance, ((120, 120), (160, 160), (0, 0)))
    inside = tonemap(framed)[120:-120, 160:-160]
    assert (tonemap(framed)[:120] == 0).all()
    assert abs(inside.mean() - tonemap(radiance).mean()) < 8


def test_a_night_stays_dark_where_the_exposure_is_known() -> None:
    radiance = room_with_window()
    unknown = tonemap(radiance).mean()
    assert tonemap(radiance, DEFAULT, ev100=12.0).mean() == unknown
    assert tonemap(radiance, DEFAULT, ev100=-3.0).mean() < unknown - 20
