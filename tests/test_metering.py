"""Exposures from pixels: missing ones estimated, wrong ones found out."""

from __future__ import annotations

import numpy as np
import pytest
from test_response import SRGB, photographed, tones_of

from hdrmerge.metering import Contradiction, contradictions, describe, meter
from hdrmerge.response import typical
from hdrmerge.simulate import random_response


@pytest.mark.parametrize("step", [1.0, 2.0, 3.0, 2 / 3])
def test_regular_steps_of_a_typical_camera_are_told_exactly(ramp: np.ndarray, step: float) -> None:
    sim = photographed(ramp, typical(), step_ev=step)
    metered = meter(tones_of(sim.frames), 1)
    assert metered.step == pytest.approx(step)
    assert metered.stops == pytest.approx(np.log2(sim.relative_exposures), abs=1e-6)
    assert metered.unconnected == ()


def test_irregular_steps_are_told_within_the_contrast_of_cameras(ramp: np.ndarray) -> None:
    sim = photographed(ramp, typical(), frames=4, step_ev=(0.6, 2.7, 1.3))
    metered = meter(tones_of(sim.frames), sim.reference)
    assert metered.step is None
    assert np.diff(metered.stops) == pytest.approx([0.6, 2.7, 1.3], rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_other_cameras_in_whole_steps(ramp: np.ndarray, seed: int) -> None:
    curve = random_response(np.random.default_rng(seed), contrast=0.1)  # around sRGB, not around `typical`
    sim = photographed(ramp, curve, frames=5, step_ev=2.0)
    assert np.diff(meter(tones_of(sim.frames), 2).stops) == pytest.approx([2.0] * 4, abs=0.7)


def test_linear_frames_are_told_exactly(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, frames=4, step_ev=(0.6, 2.7, 1.3))
    metered = meter(tones_of(sim.frames), 1, linear=True)
    assert np.diff(metered.stops) == pytest.approx([0.6, 2.7, 1.3], abs=0.05)


def test_what_moves_does_not_count(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    sim = photographed(ramp, typical(), movers=(elsewhere, elsewhere))
    assert meter(tones_of(sim.frames), 1).stops == pytest.approx([-2, 0, 2], abs=1e-6)


def test_equal_exposures_are_equal(ramp: np.ndarray) -> None:
    sim = photographed(ramp, typical(), step_ev=0.0)
    assert meter(tones_of(sim.frames), 1).stops == pytest.approx([0, 0, 0], abs=0.05)


def test_part_of_the_metadata_is_taken_if_the_pixels_agree(ramp: np.ndarray) -> None:
    sim = photographed(ramp, typical(), step_ev=(2.2, 1.9))
    tones = tones_of(sim.frames)
    assert meter(tones, 1, hint=np.array([5.0, 7.2, 9.1])).stops == pytest.approx([-2.2, 0.0, 1.9])
    assert meter(tones, 1, hint=np.array([0.0, 0.0, 0.0])).stops == pytest.approx([-2, 0, 2])
    assert meter(tones, 1, hint=np.array([0.0, 4.0, 5.0])).stops == pytest.approx([-2, 0, 2])


def test_frames_without_common_tones_are_named(ramp: np.ndarray) -> None:
    sim = photographed(ramp, typical())
    black = np.zeros_like(sim.frames[0])
    assert meter(tones_of([black, *sim.frames]), 2).unconnected == (0,)
    assert meter(tones_of([black, black]), 0).unconnected == (1,)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_the_frame_that_lies_is_named_with_both_values(ramp: np.ndarray, wrong: int, linear: bool) -> None:
    sim = photographed(ramp, SRGB if linear else typical(), frames=5, step_ev=1.0)
    stated = np.log2(sim.relative_exposures)
    stated[wrong] += 1.5
    (found,) = contradictions(tones_of(sim.frames), stated, 2, linear)
    assert found.frame == wrong
    assert found.stated == pytest.approx(stated[wrong])
    assert found.seen == pytest.approx(stated[wrong] - 1.5, abs=0.25)


def test_a_reference_that_lies_is_named_itself(ramp: np.ndarray) -> None:
    sim = photographed(ramp, typical(), frames=5, step_ev=1.0)
    stated = np.array([-2.0, -1.0, 1.5, 1.0, 2.0])
    (found,) = contradictions(tones_of(sim.frames), stated, 2)
    assert found == Contradiction(2, 0.0, pytest.approx(-1.5, abs=0.25))


@pytest.mark.parametrize("seed", range(6))
def test_an_unusual_curve_is_no_lie(ramp: np.ndarray, seed: int) -> None:
    sim = photographed(ramp, random_response(np.random.default_rng(seed)))
    assert contradictions(tones_of(sim.frames), np.log2(sim.relative_exposures), 1) == []


def test_stops_are_written_as_people_do() -> None:
    assert describe([-2.0, 0.0, 1 / 3]) == "-2, 0, +0.33"
