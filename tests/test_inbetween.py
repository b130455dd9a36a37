"""Shadows of short exposures: seen between longer ones, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge import inbetween
from hdrmerge.flowmerge import agreement, merge_by_flow, radiance
from hdrmerge.inbetween import darkness, merge_in_between
from hdrmerge.scene import ramp_scene

RATIO = 64.0
PAIRS = [(0, 2)]


def crushed(light: np.ndarray, exposure: float, black: float = 0.004) -> np.ndarray:
    """Return gamma codes of light, 8 bits, with shadows that the camera has cut off."""
    linear = np.clip(light * exposure, 0, 1)
    codes = np.where(linear < black, 0, linear ** (1 / 2.2))
    return (np.rint(codes * 255) / 255).astype(np.float32)


def pan(step: int, count: int = 3) -> list[np.ndarray]:
    """Return light (80, 120, 3) in [0.0003, 0.05] of a camera that turns by so many pixels a frame."""
    scene = ramp_scene(80, 160, np.random.default_rng(2))
    scene = scene * np.float32(0.05 / scene.max())
    return [scene[:, 20 + step * n : 140 + step * n] for n in range(count)]


def wrong(found: np.ndarray, truth: np.ndarray, shown: np.ndarray) -> float:
    """Return the median error in stops."""
    return float(np.median(np.abs(np.log2((found[shown] + 1e-5) / (truth[shown] + 1e-5)))))


@pytest.mark.parametrize("step", [0, 3])
def test_black_shadows_come_from_the_frames_beside(step: int) -> None:
    light = pan(step)
    exposures = (RATIO, 1.0, RATIO)
    frames = [crushed(one, t, 0.0 if t > 1 else 0.004) for one, t in zip(light, exposures, strict=True)]
    lost = (frames[1] == 0).all(axis=2)
    lost[:, :12] = lost[:, -12:] = False
    assert lost.mean() > 0.1
    still = [np.eye(3)] * 3  # what a camera's turn leaves to the flow
    by_flow = merge_by_flow(frames, exposures, 1, still)
    between = merge_in_between(frames, exposures, (0, 1, 2), 1, PAIRS, still)
    assert wrong(between, light[1], lost) < 0.1
    assert wrong(by_flow, light[1], lost) > 0.5


def test_moments_say_where_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that was dropped: the reference is nearer to the one before."""
    light = pan(2, 4)
    exposures = (RATIO, 1.0, RATIO)
    frames = [
        crushed(light[n], t, 0.0 if t > 1 else 0.004) for n, t in zip((0, 1, 3), exposures, strict=True)
    ]
    lost = (frames[1] == 0).all(axis=2)
    lost[:, :12] = lost[:, -12:] = False
    still = [np.eye(3)] * 3
    told, even = (
        merge_in_between(frames, exposures, moments, 1, PAIRS, still) for moments in ((0, 1, 3), (0, 1.5, 3))
    )
    assert wrong(told, light[1], lost) < wrong(even, light[1], lost)


def test_where_neighbours_disagree_there_is_no_hole() -> None:
    rng = np.random.default_rng(0)
    beside = [rng.random((48, 64, 3), dtype=np.float32) * 0.5 + 0.2 for _ in range(2)]
    frames = [beside[0], np.zeros((48, 64, 3), np.float32), beside[1]]
    found = merge_in_between(frames, (RATIO, 1.0, RATIO), (0, 1, 2), 1, PAIRS, [np.eye(3)] * 3)
    assert np.quantile(found, 0.01) > 0.03 / RATIO
    lone = merge_in_between(frames[:2], (RATIO, 1.0), (0, 1), 1, [(0, 0)], [np.eye(3)] * 2)
    np.testing.assert_allclose(lone, radiance(beside[0], RATIO), rtol=0.02)


def test_elsewhere_it_is_the_merge_by_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbetween, "belief", agreement)
    light = [0.1 + one for one in pan(2)]
    for exposures in ((1.0, 4.0, 1.0), (4.0, 1.0, 4.0)):  # shorter neighbours; and nothing dark
        frames = [crushed(one, t) for one, t in zip(light, exposures, strict=True)]
        wanted = merge_by_flow(frames, exposures, 1)
        found = merge_in_between(frames, exposures, (0, 1, 2), 1, PAIRS)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_is_dark_depends_on_the_step_between_exposures() -> None:
    codes = np.full((8, 8, 3), 0.1, np.float32)
    dark, black = darkness(codes, 8.0)
    assert (dark == 0).all()
    assert (black == 0).all()
    assert (darkness(codes, 128.0)[0] > 0.5).all()
    assert all((share == 1).all() for share in darkness(0 * codes, 4.0))


def test_what_clips_is_no_darker_than_that() -> None:
    """A shorter exposure whose darkest codes are too low is believed, but not below 1 / exposure."""
    codes = np.full((32, 48, 3), 0.5, np.float32)
    codes[:, 24:, 2] = 1.0
    short = (codes / RATIO ** (1 / 2.2)).astype(np.float32)
    short[:, 24:, 2] *= 0.95
    frames, exposures = [short, codes, short], (1.0, RATIO, 1.0)
    still = [np.eye(3)] * 3
    found = merge_in_between(frames, exposures, (0, 1, 2), 1, PAIRS, still)
    assert found[8:24, 32:, 2] == pytest.approx(1 / RATIO, rel=1e-3)
