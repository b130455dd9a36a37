"""What is white goes on as light began: deeper is brighter, sharper is brighter, the rest is as it was."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge.extrapolate import BEFORE, MOST, WHITE, extrapolated


def hill(steep: float, size: int = 96) -> np.ndarray:
    """Return light that falls by ``steep`` stops a pixel from a disc 20 px wide that is white, (H, W, 3)."""
    y, x = np.mgrid[:size, :size] - size / 2
    stops = -np.maximum(np.hypot(x, y) - 20, 0) * steep
    return np.repeat(np.exp2(stops)[..., None], 3, axis=2).astype(np.float32)


def test_what_is_not_white_stays() -> None:
    light = hill(0.1) * np.float32([1.0, 1.0, 0.94])  # blue is never white
    np.testing.assert_array_equal(extrapolated(light), light)
    light = hill(0.1)
    white = light.min(axis=2) >= WHITE
    np.testing.assert_array_equal(extrapolated(light)[~white], light[~white])
    assert (extrapolated(light)[white] > light[white]).all()


def test_deeper_and_behind_a_sharper_edge_it_is_brighter() -> None:
    glow, lamp = extrapolated(hill(0.05)), extrapolated(hill(3.0))
    rows = glow[48, 28:49, 0]
    assert (np.diff(rows) > 0).all()
    assert np.log2(lamp[48, 48, 0]) > np.log2(glow[48, 48, 0]) + 0.5
    assert np.log2(lamp[48, 48, 0]) > 0.8 * MOST


def test_light_that_rises_evenly_is_told_within_half_of_what_clipping_hides() -> None:
    y, x = np.mgrid[:96, :96] - 48.0
    true = np.exp2(1.5 - np.hypot(x, y) * 0.05).astype(np.float32)[..., None].repeat(3, axis=2)
    photo = np.minimum(true, 1)
    lost = true[..., 0] > 1
    error = [np.abs(np.log2(light / true))[lost].mean() for light in (photo, extrapolated(photo))]
    assert error[1] < 0.5 * error[0]


@pytest.mark.parametrize("value", [1.0, BEFORE, 0.0])
def test_a_plain_picture_is_no_error(value: float) -> None:
    light = np.full((7, 5, 3), value, np.float32)
    found = extrapolated(light)
    assert found.shape == light.shape
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert (found <= light * 2**MOST * (1 + 1e-6)).all()
    if value < WHITE:
        np.testing.assert_array_equal(found, light)


def test_colour_stays() -> None:
    light = hill(0.2) * np.float32([1.0, 0.98, 0.96])
    ratio = extrapolated(light) / light
    np.testing.assert_allclose(ratio[..., 1], ratio[..., 0], rtol=1e-6)
