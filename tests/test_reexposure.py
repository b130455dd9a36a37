"""Light that is added to a patch, and the frames a camera makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge.exposure import NoiseModel
from hdrmerge.flowmerge import rematched
from hdrmerge.training.reexposure import (
    CLIPPED,
    SHORTEST_SATURATED,
    decode,
    encode,
    gain_for,
    gained,
    line_mask,
    needed_gain,
    reexpose,
    saturated,
    transferred_mask,
)

INNER = slice(20, 84), slice(20, 84)
SIZE = (104, 104)


@pytest.fixture
def label() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.02, 0.4, (*SIZE, 3)).astype(np.float32)


def test_codes_are_a_gamma_of_linear_light() -> None:
    linear = np.float32([0.0, 0.1, 0.5, 1.0])
    assert np.allclose(decode(encode(linear)), linear, atol=1e-6)
    assert encode(np.float32([3.0]))[0] == 1.0


def test_matching_is_exposing_longer() -> None:
    linear = np.float32([0.01, 0.1, 0.3])
    assert np.allclose(rematched(encode(linear), 4.0), encode(4 * linear), atol=1e-6)


def test_frames_are_clipped_and_rounded(label: np.ndarray) -> None:
    short, middle, long = reexpose(label, (0.25, 1.0, 4.0))
    assert np.array_equal(np.rint(middle * 255), middle * 255)
    assert np.abs(middle - encode(label)).max() <= 0.5001 / 255
    assert np.abs(short - encode(label / 4)).max() <= 0.5001 / 255
    assert (long[label >= 0.25] == 1.0).all()
    fine = reexpose(label, (0.25, 1.0, 4.0), levels=65536)
    assert np.abs(fine[0] - encode(label / 4)).max() <= 0.5001 / 65535


def test_noise_is_off_unless_asked_for(label: np.ndarray) -> None:
    noise = [NoiseModel(1e-3, 1e-3)] * 3
    quiet = reexpose(label, (0.25, 1.0, 4.0))
    rng = np.random.default_rng(0)
    noisy = reexpose(label, (0.25, 1.0, 4.0), noise=noise, rng=rng)
    off = decode(noisy[1]) - decode(quiet[1])
    assert np.std(off) == pytest.approx(float(np.sqrt(noise[0].variance(label).mean())), rel=0.05)


def test_a_transferred_mask_is_feathered_saturation() -> None:
    code = np.zeros((64, 64, 3), np.float32)
    code[:, 32:, 1] = CLIPPED
    where = saturated(code)
    assert where[:, 32:].all()
    assert not where[:, :32].any()
    mask = transferred_mask(where)
    assert mask[32, 60] == pytest.approx(1.0)
    assert mask[32, 4] == 0.0
    assert mask[32, 31:33].mean() == pytest.approx(0.5, abs=1e-5)
    assert mask[32, 29] == pytest.approx(0.2, abs=0.02)  # 2.5 px off the edge, at a deviation of 3


def test_a_line_goes_through_the_patch_and_light_grows_to_one_border() -> None:
    rng, sides = np.random.default_rng(1), set()
    for _ in range(50):
        mask = line_mask(SIZE, INNER, rng)
        assert mask.min() == 0.0
        assert mask.max() == pytest.approx(1.0)
        lit = mask[INNER] > 0
        assert lit.any()
        assert not lit.all()
        y, x = np.unravel_index(mask.argmax(), SIZE)
        assert y in (0, 103)
        assert x in (0, 103)
        sides.add((y, x))
    assert len(sides) == 4


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6])
def test_the_wanted_share_saturates(label: np.ndarray, share: float) -> None:
    mask = line_mask(SIZE, INNER, np.random.default_rng(5)) * 0.8 + np.float32(0.2)
    gain = gain_for(label, mask, share, shortest=1 / 64)
    lit = gained(label, mask, gain)
    assert (encode(lit).max(axis=-1) >= 1).mean() == pytest.approx(share, abs=1e-3)


def test_no_more_saturates_than_the_mask_covers(label: np.ndarray) -> None:
    mask = np.zeros(SIZE, np.float32)
    mask[:, :26] = 1
    lit = gained(label, mask, gain_for(label, mask, 0.6, shortest=1 / 64))
    assert (lit.max(axis=-1) >= 1).mean() == pytest.approx(0.25, abs=1e-3)
    assert np.array_equal(lit[:, 26:], label[:, 26:])


def test_the_shortest_frame_stays_clear(label: np.ndarray) -> None:
    """One dark half, one bright: saturating half of the dark one would saturate all of the bright."""
    label[:52] *= 0.01
    mask = np.ones(SIZE, np.float32)
    lit = gained(label, mask, gain_for(label, mask, 0.75, shortest=0.25))
    assert 0.01 < (lit.max(axis=-1) * 0.25 >= 1).mean() <= SHORTEST_SATURATED


def test_light_is_never_taken_away(label: np.ndarray) -> None:
    assert gain_for(label * 10, np.ones(SIZE, np.float32), 0.1, shortest=0.25) == 1.0
    assert gain_for(label, np.zeros(SIZE, np.float32), 0.1, shortest=0.25) == 1.0


def test_needed_gain_is_where_a_pixel_saturates() -> None:
    label = np.full((1, 4, 3), 0.25, np.float32)
    label[0, 3] = 1.5
    mask = np.float32([[1.0, 0.5, 0.0, 0.0]])
    assert needed_gain(label, mask).tolist() == [[4.0, 7.0, float("inf"), 1.0]]
