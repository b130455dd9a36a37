"""Frames brought to the reference's tones where a wrong curve makes them differ; left alone elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from test_response import UNMOVED, photographed, tones_of

from hdrmerge.attune import Difference, attune
from hdrmerge.exposure import Response
from hdrmerge.response import typical
from hdrmerge.simulate import Camera, Simulated

SRGB = Response.named("srgb")


def bent(power: float) -> Response:
    return Response("bent", SRGB.table ** np.float32(power))


def tuned(sim: Simulated, curve: Response) -> tuple[list[Difference | None], np.ndarray]:
    stops = np.log2(sim.relative_exposures)
    return attune(tones_of(sim.frames), curve, stops, sim.reference), stops


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_frames_that_agree_are_left_alone(ramp: np.ndarray, frames: int) -> None:
    sim = photographed(ramp, SRGB, frames=frames, step_ev=1.5, iso=1600)
    assert not any(tuned(sim, SRGB)[0])


@pytest.mark.parametrize("power", [0.74, 1.35])
@pytest.mark.parametrize("frames", [2, 3, 5])
def test_a_wrong_gamma_is_a_matter_of_exposure(ramp: np.ndarray, frames: int, power: float) -> None:
    """Light to the power of p: a frame r times as exposed as the reference is off by r to the p - 1."""
    sim = photographed(ramp, SRGB, frames=frames, step_ev=1.5)
    found, stops = tuned(sim, bent(power))
    for n, difference in enumerate(found):
        if n == sim.reference:
            assert difference is None
        else:
            assert difference is not None
            np.testing.assert_allclose(difference.stops, (power - 1) * stops[n], atol=0.06)


def test_a_frame_far_from_the_reference_is_told_by_its_neighbour(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=4, step_ev=2.5, reference=3, saturated_share=0.3)
    found, stops = tuned(sim, bent(1.15))
    sizes = [difference.at_white for difference in found[:3] if difference]
    np.testing.assert_allclose(sizes, 0.15 * stops[:3], rtol=0.15)


def test_a_wrong_shape_is_taken_out_tone_by_tone(ramp: np.ndarray) -> None:
    """Of frames of a camera with a steep curve, read as sRGB: afterwards they agree far better."""
    sim = photographed(ramp, typical(), frames=3, step_ev=1.0)
    found, stops = tuned(sim, SRGB)
    tones = tones_of(sim.frames)
    for n in (0, 2):
        difference = found[n]
        assert difference is not None
        both = tones.exposed(n) & tones.exposed(1)
        channel = np.nonzero(both)[1]

        def level(frame: int, curve: Response, at: tuple = (both, channel)) -> np.ndarray:
            return curve.level(tones.stored[frame][at[0]], at[1])

        before = level(n, SRGB) - stops[n] - level(1, SRGB)
        curve = difference.taken_out_of(SRGB)
        after = level(n, curve) - stops[n] - difference.at_white - level(1, SRGB)
        assert np.median(np.abs(before)) > 0.15
        assert np.median(np.abs(after)) < 0.25 * np.median(np.abs(before))


def test_what_moved_does_not_count(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=3, step_ev=1.5)
    other = photographed(elsewhere, SRGB, frames=3, step_ev=1.5)
    mixed = [frame.copy() for frame in sim.frames]
    mixed[2][:, :110] = other.frames[0][:, :110]  # nearly a third of the picture, three stops darker
    stops = np.log2(sim.relative_exposures)
    assert attune(tones_of(mixed), SRGB, stops, 1)[2] is None
    difference = attune(tones_of(mixed), bent(1.35), stops, 1)[2]
    assert difference is not None
    assert difference.at_white == pytest.approx(0.35 * 1.5, abs=0.08)


def test_another_scene_is_not_bent_into_place(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=3, step_ev=1.5)
    other = photographed(elsewhere, SRGB, frames=3, step_ev=1.5)
    mixed = [sim.frames[0], sim.frames[1], other.frames[0]]
    assert attune(tones_of(mixed), SRGB, np.log2(sim.relative_exposures), 1)[2] is None


def test_frames_that_are_left_out_are_not_looked_at(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=3, step_ev=1.5)
    tones = tones_of(sim.frames, (True, True, False))
    found = attune(tones, bent(1.35), np.log2(sim.relative_exposures), 1)
    assert found[0] is not None
    assert found[2] is None
    assert UNMOVED.used


def test_a_curve_stays_a_curve() -> None:
    """Rising, white at 1, and brighter than before nowhere by more than asked for."""
    grid = np.linspace(-6.0, 0.0, 33)
    curve = Difference(grid, 0.3 * np.sin(grid)).taken_out_of(SRGB)
    assert (np.diff(curve.table, axis=0) >= 0).all()
    assert curve.table[-1] == pytest.approx([1, 1, 1])
    ratio = np.log2(curve.table[200:, 0] / SRGB.table[200:, 0])
    assert np.abs(ratio).max() == pytest.approx(0.3, abs=0.01)


def test_noise_is_no_difference(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=5, step_ev=1.0, iso=6400)
    assert isinstance(sim.camera, Camera)
    assert not any(tuned(sim, SRGB)[0])
