from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import (
    Camera,
    Shake,
    homography,
    plan_shots,
    random_response,
    record,
    scale_for_saturation,
    simulate_bracket,
)

SIZE = 96, 144


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return ramp_scene(240, 360, np.random.default_rng(1))


# --- camera ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("iso", [100, 1600])
def test_the_default_camera_has_the_default_noise(iso: int) -> None:
    assert Camera().noise(iso) == NoiseModel.from_iso(iso)


def test_recorded_noise_has_the_mean_and_variance_of_its_model() -> None:
    camera, iso = Camera(bits=14, full_well=10_000, read_noise=8), 800
    for level in (0.0, 0.02, 0.6):
        flat = np.full((200, 200, 3), level, np.float32)
        linear = camera.decode(record(flat, camera, iso, np.random.default_rng(3)))
        step = 1 / (16383 - 512)
        expected = float(camera.noise(iso).variance(np.float32(level))) + step**2 / 12
        assert linear.var() == pytest.approx(expected, rel=0.03)
        assert linear.mean() == pytest.approx(level, abs=5 * math.sqrt(expected / flat.size))


def test_14_bit_codes_lie_between_black_and_white() -> None:
    camera = Camera(bits=14, black_level=512, white_level=16383)
    linear = np.float32([[[-1.0, 0.0, 0.5], [1.0, 7.0, -0.01]]])
    codes = camera.encode(linear)
    assert codes.dtype == np.uint16
    assert codes.tolist() == [[[0, 512, 8448], [16383, 16383, 353]]]
    assert camera.decode(codes)[0, 0] == pytest.approx([-512 / 15871, 0.0, 0.5], abs=1e-4)
    assert camera.saturated(codes).tolist() == [[False, True]]


@pytest.mark.parametrize("curve", ["srgb", "gamma2.2", "linear"])
def test_8_bit_codes_follow_the_response(curve: str) -> None:
    camera = Camera(response=Response.named(curve))
    codes = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 3)
    assert np.array_equal(camera.encode(camera.decode(codes)), codes)
    assert camera.encode(np.float32([[[-0.5, 1.0, 9.0]]])).tolist() == [[[0, 255, 255]]]


def test_srgb_codes_of_middle_grey() -> None:
    assert Camera().encode(np.full((1, 1, 3), 0.18, np.float32)).tolist() == [[[118, 118, 118]]]


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_the_wanted_share_of_pixels_saturates(scene: np.ndarray, share: float) -> None:
    scaled = scene * scale_for_saturation(scene, share)
    assert (scaled.max(axis=2) >= 1).mean() == pytest.approx(share, abs=1e-3)
    sim = simulate_bracket(scene, np.random.default_rng(4), size=SIZE, saturated_share=share)
    assert sim.saturated.mean() == pytest.approx(share, abs=0.01)


# --- exposures ------------------------------------------------------------------------------------


def test_uneven_steps_are_kept_around_the_reference() -> None:
    shots = plan_shots(SIZE, 4, [1.0, 3.0, 2.0], reference=1, camera=Camera(), time=1 / 64)
    assert [shot.exposure_time for shot in shots] == [1 / 128, 1 / 64, 1 / 8, 1 / 2]
    gaps = np.diff([shot.taken_at.timestamp() for shot in shots if shot.taken_at])
    assert gaps == pytest.approx([0.1 + 1 / 128, 0.1 + 1 / 64, 0.1 + 1 / 8], abs=2e-3)


def test_steps_that_do_not_fit_the_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="3 frames have 2 steps between them, not 3"):
        plan_shots(SIZE, 3, [1.0, 1.0, 1.0], reference=1, camera=Camera())


@pytest.mark.parametrize("frames, reference", [(1, 0), (2, 0), (3, 1), (9, 4)])
def test_frames_run_from_the_shortest_to_the_longest(scene: np.ndarray, frames: int, reference: int) -> None:
    sim = simulate_bracket(scene, np.random.default_rng(5), size=(24, 32), frames=frames, step_ev=1)
    assert sim.reference == reference
    assert sim.relative_exposures == tuple(2.0 ** (i - reference) for i in range(frames))
    assert len(sim.frames) == len(sim.views) == len(sim.homographies) == frames


@pytest.mark.parametrize("bits", [8, 14])
def test_every_frame_tells_the_same_radiance_within_its_noise(scene: np.ndarray, bits: int) -> None:
    sim = simulate_bracket(scene, np.random.default_rng(6), size=SIZE, camera=Camera(bits=bits))
    bracket = sim.bracket()
    for frame, ratio in zip(bracket.frames, sim.relative_exposures, strict=True):
        linear, expected = frame.linear(), sim.truth * ratio
        good = (expected > 0.05) & (expected < 0.8)
        score = (linear - expected)[good] / np.sqrt(frame.noise.variance(expected))[good]
        assert good.mean() > 0.1
        assert abs(score.mean()) < 0.05
        assert score.std() == pytest.approx(1.0, abs=0.1)
        assert linear[expected > 1.2] == pytest.approx(1.0, abs=1e-6)


def test_the_seed_decides_everything(scene: np.ndarray) -> None:
    def codes(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return np.stack(
            simulate_bracket(scene, rng, size=(40, 60), shake=Shake(0.3, 4), movers=[scene]).frames
        )

    assert np.array_equal(codes(7), codes(7))
    assert not np.array_equal(codes(7), codes(8))


# --- shake ----------------------------------------------------------------------------------------


def test_homography_turns_about_the_middle_then_shifts() -> None:
    matrix = homography((101, 201), rotation=0.5, shift=(20.0, -4.0), scale=1.1)
    x, y = cv2.perspectiveTransform(np.array([[[100.0, 50.0], [200.0, 50.0]]]), matrix)[0].T
    assert (x[0], y[0]) == pytest.approx((120.0, 46.0))
    angle = math.radians(0.5)
    assert (x[1] - x[0], y[1] - y[0]) == pytest.approx((110 * math.cos(angle), 110 * math.sin(angle)))


def test_homography_perspective_is_the_growth_towards_the_edge() -> None:
    matrix = homography((101, 200), perspective=(0.05, 0.0))
    right = cv2.perspectiveTransform(np.array([[[199.5, 50.0], [199.5, 60.0]]]), matrix)[0]
    assert right[1, 1] - right[0, 1] == pytest.approx(10 / 0.95)


def test_shake_spares_the_reference() -> None:
    drawn = Shake(rotation=1, shift=10, scale=0.01, perspective=0.01).homographies(
        3, 2, SIZE, np.random.default_rng(0)
    )
    assert np.array_equal(drawn[2], np.eye(3))
    assert not np.allclose(drawn[0], drawn[1])


def test_homographies_that_move_the_reference_are_refused(scene: np.ndarray) -> None:
    moved = [homography(SIZE, shift=(1.0, 0.0))] * 3
    with pytest.raises(ValueError, match="the identity at index 1"):
        simulate_bracket(scene, np.random.default_rng(0), size=SIZE, shake=moved)


@pytest.mark.parametrize("seed", range(20))
def test_random_responses_rise_from_black_to_white(seed: int) -> None:
    table = random_response(np.random.default_rng(seed)).table
    assert table[0] == pytest.approx([0.0] * 3)
    assert table[-1] == pytest.approx([1.0] * 3)
    assert (np.diff(table, axis=0) >= 0).all()
    middle = np.diff(np.log2(table[400::100, 1])) / np.diff(
        np.log2(Response.named("srgb").table[400::100, 1])
    )
    assert 0.5 <= middle.min() <= middle.max() <= 1.3


def test_random_responses_differ_and_repeat() -> None:
    first, again, other = (random_response(np.random.default_rng(seed)).table for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.ptp(random_response(np.random.default_rng(1), apart=0.0).table, axis=1).max() == 0.0
