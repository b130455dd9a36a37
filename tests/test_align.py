"""Registration against brackets whose true motion is known; and whatever must not make it worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hdrmerge.align import Alignment, Model, align
from hdrmerge.bracket import Frame, Shot
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.proxy import shrink
from hdrmerge.scene import Mover, ramp_scene
from hdrmerge.simulate import Shake, Simulated, homography, simulate_bracket

SIZE = 320, 480

MOTIONS = {
    "translation": {"shift": (13.4, -7.7)},
    "similarity": {"rotation": 1.2, "shift": (9.3, 4.1), "scale": 1.01},
    "homography": {"rotation": -0.8, "shift": (-6.6, 11.2), "scale": 0.992, "perspective": (0.006, -0.004)},
    "half a degree and 20 px": {"rotation": 0.5, "shift": (20.0, 0.0)},
}


def moved(motion: str, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """The first frame moved so, the last the other way."""
    there = homography(size, **MOTIONS[motion])  # type: ignore[arg-type]
    return [there, np.eye(3), np.linalg.inv(there)]


def registered(sim: Simulated, model: Model = "homography") -> list[Alignment]:
    return align([shrink(frame) for frame in sim.bracket().frames], sim.reference, model)


def distances(found: np.ndarray, true: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far two maps are apart [px] at every pixel, (H, W)."""
    x, y = np.meshgrid(np.arange(size[1], dtype=np.float64), np.arange(size[0], dtype=np.float64))
    points = np.stack([x.ravel(), y.ravel()], axis=-1)[None]
    apart = cv2.perspectiveTransform(points, found) - cv2.perspectiveTransform(points, true)
    return np.linalg.norm(apart, axis=-1).reshape(size)


def worst(sim: Simulated, verdicts: Sequence[Alignment], index: int) -> float:
    """The largest error of one frame [px], wherever the frame recorded anything that can be aligned.

    Where a long exposure is clipped it says nothing of its position and gives nothing to the merge.
    """
    apart = distances(verdicts[index].matrix, sim.homographies[index], sim.truth.shape[:2])
    recorded = sim.truth.max(axis=-1) * sim.relative_exposures[index] < 0.9
    return float(np.quantile(apart[recorded], 0.99))


# --- motion is recovered --------------------------------------------------------------------------


@pytest.mark.parametrize("step_ev", [1.0, 3.0])
@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_recovered_to_a_third_of_a_pixel(ramp: np.ndarray, motion: str, step_ev: float) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(5), size=SIZE, step_ev=step_ev, shake=moved(motion))
    verdicts = registered(sim)
    assert all(verdict.used for verdict in verdicts)
    assert verdicts[1].is_identity
    assert worst(sim, verdicts, 0) <= 0.3  # the short frame is recorded everywhere: the whole picture
    assert worst(sim, verdicts, 2) <= 0.3


@pytest.mark.parametrize("seed", range(3))
def test_a_hand_held_bracket_of_five(ramp: np.ndarray, seed: int) -> None:
    shake = Shake(rotation=0.4, shift=5.0, scale=0.002, perspective=0.001)
    sim = simulate_bracket(
        ramp, np.random.default_rng(seed), size=SIZE, frames=5, step_ev=1.5, shake=shake, iso=800.0
    )
    verdicts = registered(sim)
    assert max(worst(sim, verdicts, index) for index in range(5)) <= 0.3


def test_the_verdict_says_what_supports_it(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(6), size=SIZE, shake=moved("translation"))
    verdict = registered(sim)[0]
    assert verdict.inliers >= 100
    assert verdict.residual is not None
    assert 0 < verdict.residual < 0.3
    assert verdict.note == ""


def test_a_frame_of_any_tone_curve_is_aligned(ramp: np.ndarray) -> None:
    """Alignment trusts no curve: decoded as linear although it is sRGB, the motion is the same."""
    sim = simulate_bracket(ramp, np.random.default_rng(7), size=SIZE, shake=moved("similarity"))
    frames = [replace(frame, response=Response.named("linear")) for frame in sim.bracket().frames]
    verdicts = align([shrink(frame) for frame in frames], sim.reference)
    assert worst(sim, verdicts, 0) <= 0.3
    assert worst(sim, verdicts, 2) <= 0.3


@pytest.mark.parametrize("factor", [2, 4])
def test_matrices_are_those_of_the_full_picture(
    ramp: np.ndarray, factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Aligned on proxies of half and a quarter of the size, errors are in full-size pixels."""
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", np.ceil(480 * 720 / factor**2))
    size = (480, 720)
    sim = simulate_bracket(
        ramp, np.random.default_rng(8), size=size, step_ev=1.0, shake=moved("similarity", size)
    )
    assert shrink(sim.bracket().frames[0]).factor == factor
    verdicts = registered(sim)
    assert worst(sim, verdicts, 0) <= 0.15 * factor
    assert worst(sim, verdicts, 2) <= 0.15 * factor


@pytest.mark.slow
def test_a_large_picture_is_registered_to_a_third_of_a_pixel() -> None:
    size = (2000, 2600)
    scene = cv2.resize(
        ramp_scene(550, 700, np.random.default_rng(9)), (2700, 2100), interpolation=cv2.INTER_CUBIC
    )
    there = homography(size, rotation=0.7, shift=(31.3, -22.8))
    encode = Response.named("srgb").sampled(4096)[:, 0]  # linear at equally spaced codes
    frames = []
    for time, matrix in ((1.0, there), (4.0, np.eye(3))):
        to_scene = np.array([[1, 0, 50], [0, 1, 50], [0, 0, 1.0]]) @ np.linalg.inv(matrix)
        seen = cv2.warpPerspective(scene, to_scene, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        codes = np.searchsorted(encode, seen * time / 4).clip(0, 4095) // 16
        shot = Shot(Path(f"{time:g}.jpg"), exposure_time=time)
        frames.append(Frame(shot, codes.astype(np.uint8), Response.named("srgb"), NoiseModel.from_iso(100)))
    proxies = [shrink(frame) for frame in frames]
    assert proxies[0].factor > 1
    verdict = align(proxies, reference=1)[0]
    assert distances(verdict.matrix, there, size).max() <= 0.3


# --- what must not be moved -----------------------------------------------------------------------


@pytest.mark.parametrize("iso", [100.0, 3200.0])
@pytest.mark.parametrize("step_ev", [1.0, 2.0, 3.0])
def test_a_bracket_from_a_tripod_stays_as_it_is(ramp: np.ndarray, step_ev: float, iso: float) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(10), size=SIZE, frames=5, step_ev=step_ev, iso=iso)
    for verdict in registered(sim):
        assert np.array_equal(verdict.matrix, np.eye(3))
        assert verdict.is_identity
        assert verdict.model == "none"
        assert verdict.used


def crowd(
    scene: np.ndarray, centres: Sequence[tuple[float, float]], step: tuple[float, float]
) -> list[Mover]:
    """Textured discs of 110 px that all move by ``step`` px a frame: the worst case, one common motion."""
    samples = 220
    y, x = np.mgrid[0:samples, 0:samples] - (samples - 1) / 2
    alpha = (np.hypot(x, y) < samples / 2).astype(np.float32)
    movers = []
    for k, (cx, cy) in enumerate(centres):
        corner = 100 * k
        radiance = scene[corner : corner + samples, corner : corner + samples] * np.float32(1.0)
        centre = np.array([[cx + step[0] * i, cy + step[1] * i] for i in (-1, 0, 1)])
        movers.append(Mover(radiance, alpha, centre, np.zeros((3, 2))))
    return movers


@pytest.mark.parametrize("shaken", [False, True])
def test_moving_objects_do_not_carry_the_frame_away(
    ramp: np.ndarray, elsewhere: np.ndarray, shaken: bool
) -> None:
    """Three objects on a sixth of the picture move together by 9.5 px; the background counts."""
    movers = crowd(elsewhere, [(90, 80), (240, 230), (390, 90)], (9.0, -3.0))
    shake: Shake | list[np.ndarray] = moved("similarity") if shaken else Shake()
    sim = simulate_bracket(
        ramp, np.random.default_rng(11), size=SIZE, step_ev=2.0, movers=movers, shake=shake
    )
    assert 0.15 < sim.moving.mean() < 0.35  # in any of the frames; 18 % in one
    verdicts = registered(sim)
    for index in (0, 2):
        assert worst(sim, verdicts, index) <= (0.3 if shaken else 0.0)


# --- the models allowed ---------------------------------------------------------------------------


def test_none_looks_at_nothing(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(12), size=SIZE, shake=moved("translation"))
    for verdict in registered(sim, "none"):
        assert verdict.is_identity
        assert verdict.used


@pytest.mark.parametrize("motion", ["translation", "homography"])
def test_translation_only_shifts(ramp: np.ndarray, motion: str) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(13), size=SIZE, shake=moved(motion))
    for verdict in registered(sim, "translation"):
        assert verdict.model in ("none", "translation")
        shift = verdict.matrix.copy()
        shift[:2, 2] = 0
        np.testing.assert_allclose(shift, np.eye(3), atol=1e-12)


def test_similarity_keeps_angles(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(14), size=SIZE, shake=moved("homography"))
    for verdict in registered(sim, "similarity"):
        assert verdict.model in ("none", "translation", "similarity")
        (a, b, _), (c, d, _), last = verdict.matrix
        np.testing.assert_allclose([a, b], [d, -c], atol=1e-9)
        np.testing.assert_allclose(last, [0, 0, 1], atol=1e-12)


@pytest.mark.parametrize("model", ["translation", "similarity"])
def test_the_model_allowed_is_fitted_as_well_as_it_can_be(ramp: np.ndarray, model: Model) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(15), size=SIZE, shake=moved(model))
    verdicts = registered(sim, model)
    assert worst(sim, verdicts, 0) <= 0.3
    assert worst(sim, verdicts, 2) <= 0.3


# --- frames that cannot be aligned ----------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 2])
def test_a_frame_of_another_scene_is_left_out(ramp: np.ndarray, elsewhere: np.ndarray, which: int) -> None:
    sim = simulate_bracket(
        ramp, np.random.default_rng(16), size=SIZE, step_ev=1.0, shake=moved("translation")
    )
    other = simulate_bracket(elsewhere, np.random.default_rng(17), size=SIZE, step_ev=1.0)
    codes = list(sim.frames)
    codes[which] = other.frames[which]
    verdicts = registered(replace(sim, frames=tuple(codes)))
    assert [verdict.used for verdict in verdicts] == [index != which for index in range(3)]
    assert verdicts[which].note
    assert "\n" not in verdicts[which].note
    assert worst(sim, verdicts, 2 - which) <= 0.3


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_blank_frame_is_not_moved(ramp: np.ndarray, which: int, value: int) -> None:
    """Lens cap, a wall, a flash: no detail, no motion, and no harm to the other frames."""
    sim = simulate_bracket(ramp, np.random.default_rng(18), size=SIZE, shake=moved("translation"))
    codes = list(sim.frames)
    codes[which] = np.full_like(codes[which], value)
    verdicts = registered(replace(sim, frames=tuple(codes)))
    assert verdicts[which].is_identity
    assert all(np.isfinite(verdict.matrix).all() for verdict in verdicts)
    if which == sim.reference:
        assert all(verdict.is_identity for verdict in verdicts)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (7, 5), (24, 36)])
@pytest.mark.parametrize("model", ["translation", "similarity", "homography"])
def test_the_smallest_pictures_do_not_crash(size: tuple[int, int], model: Model) -> None:
    rng = np.random.default_rng(19)
    shots = [Shot(Path(f"{time:g}.jpg"), exposure_time=time) for time in (1.0, 4.0, 16.0)]
    frames = [
        Frame(
            shot, rng.integers(0, 256, (*size, 3), np.uint8), Response.named("srgb"), NoiseModel.from_iso(100)
        )
        for shot in shots
    ]
    for verdict in align([shrink(frame) for frame in frames], 1, model):
        assert np.isfinite(verdict.matrix).all()
