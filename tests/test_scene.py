from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from hdrmerge.scene import OVERSAMPLE, Mover, perspective_view, ramp_scene, random_mover, soft_blob
from hdrmerge.simulate import Camera, Shake, Simulated, homography, plan_shots, simulate_bracket

SIZE = 96, 144


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return ramp_scene(240, 360, np.random.default_rng(1))


@pytest.fixture(scope="module")
def shaken(scene: np.ndarray) -> Simulated:
    """Three frames; the first is turned by half a degree and shifted by 20 px."""
    moved = [
        homography(SIZE, rotation=0.5, shift=(20.0, 0.0)),
        np.eye(3),
        homography(SIZE, shift=(-3.3, 7.6)),
    ]
    return simulate_bracket(scene, np.random.default_rng(2), size=SIZE, shake=moved)


def aligned(view: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp a frame to the reference, nan where it did not look."""
    size = view.shape[1], view.shape[0]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(view, matrix, size, flags=flags, borderValue=(math.nan,) * 3)


# --- scenes ---------------------------------------------------------------------------------------


def direction_panorama(rows: int, columns: int = 512) -> np.ndarray:
    """A panorama whose colour is 2 + the direction (right, up, ahead) it is seen in."""
    longitude = ((np.arange(columns) + 0.5) / columns - 0.5) * 2 * math.pi
    latitude = math.pi / 2 - (np.arange(rows) + 0.5) / columns * 2 * math.pi
    lon, lat = np.meshgrid(longitude, latitude)
    return np.float32(2 + np.dstack([np.sin(lon) * np.cos(lat), np.sin(lat), np.cos(lon) * np.cos(lat)]))


@pytest.mark.parametrize("yaw, pitch, rows", [(0, 0, 256), (170, -20, 256), (-95, 35, 128)])
def test_a_view_of_a_panorama_looks_in_the_right_direction(yaw: float, pitch: float, rows: int) -> None:
    view = perspective_view(direction_panorama(rows), (60, 80), yaw=yaw, pitch=pitch, fov=60.0) - 2
    lon, lat = math.radians(yaw), math.radians(pitch)
    ahead = [math.sin(lon) * math.cos(lat), math.sin(lat), math.cos(lon) * math.cos(lat)]
    assert view[29:31, 39:41].mean(axis=(0, 1)) == pytest.approx(ahead, abs=2e-3)
    assert np.linalg.norm(view, axis=2) == pytest.approx(1.0, abs=5e-3)
    left, right = view[30, 0], view[30, -1]
    angle = 2 * math.atan(math.tan(math.radians(30)) * 79 / 80)
    assert left @ right == pytest.approx(math.cos(angle), abs=5e-3)
    assert np.cross(right, left)[1] < 0  # the right edge lies to the right


def test_a_view_below_the_end_of_a_sky_panorama_is_refused() -> None:
    with pytest.raises(ValueError, match="look higher"):
        perspective_view(direction_panorama(128), (60, 80), pitch=0.0)


def test_ramp_scene_spans_its_range_and_brightens_to_the_right() -> None:
    scene = ramp_scene(90, 150, np.random.default_rng(0), low=0.02, high=4.0)
    assert (scene.min(), scene.max()) == pytest.approx((0.02, 4.0))
    stops = np.log2(scene).mean(axis=(0, 2))
    assert np.polyfit(np.arange(150) / 150, stops, 1)[0] > 3
    assert np.abs(scene[..., 0] / scene[..., 2] - 1).mean() > 0.05


# --- moving objects -------------------------------------------------------------------------------


def disc(centres: list[tuple[float, float]], path: float = 0.0, radiance: float = 2.0) -> Mover:
    """A disc of 20 px that moves by ``path`` px to the right in every frame."""
    samples = 20 * OVERSAMPLE
    axis = (np.arange(samples) + 0.5) / samples * 2 - 1
    alpha = (np.hypot(*np.meshgrid(axis, axis)) < 0.95).astype(np.float32)
    colour = np.full((samples, samples, 3), radiance, np.float32)
    return Mover(colour, alpha, np.array(centres), np.tile([path, 0.0], (len(centres), 1)))


def test_objects_hide_and_uncover_the_scene_exactly(scene: np.ndarray) -> None:
    mover = disc([(40, 50), (70, 50), (100, 50)])
    with_mover = simulate_bracket(scene, np.random.default_rng(0), size=SIZE, movers=[mover])
    without = simulate_bracket(scene, np.random.default_rng(0), size=SIZE)
    scale = with_mover.truth[5, 5, 0] / without.truth[5, 5, 0]
    assert with_mover.truth[50, 70] == pytest.approx(with_mover.truth[50, 72])
    for index, x in enumerate((40, 70, 100)):
        for other in {40, 70, 100} - {x}:
            hidden = np.s_[45:56, other - 5 : other + 6]
            background = without.views[index][hidden] * scale
            assert with_mover.views[index][hidden] == pytest.approx(background, rel=1e-5)


def test_outside_the_moving_mask_nothing_moved(scene: np.ndarray) -> None:
    rng = np.random.default_rng(9)
    shake = Shake(0.5, 5).homographies(3, 1, SIZE, rng)
    lamp = disc([(30, 60.3), (44, 60), (70, 62)], path=3.0, radiance=1e4)
    lamp = replace(lamp, alpha=soft_blob(len(lamp.alpha), rng))
    with_movers = simulate_bracket(scene, rng, size=SIZE, shake=shake, movers=[scene, scene, lamp])
    without = simulate_bracket(scene, rng, size=SIZE, shake=shake)
    static = ~with_movers.moving
    assert 0.05 < with_movers.moving.mean() < 0.6
    scale = np.median((with_movers.truth / without.truth)[static])
    for view, background, matrix in zip(with_movers.views, without.views, shake, strict=True):
        ratio = (aligned(view, matrix) / aligned(background, matrix))[static]
        assert ratio[np.isfinite(ratio)] == pytest.approx(scale, rel=1e-4)
    touched = np.zeros(SIZE, bool)
    for view, background in zip(with_movers.views, without.views, strict=True):
        touched |= (np.abs(view / background - scale) > 0.01).any(axis=2)
    assert (touched & with_movers.moving).sum() > 0.3 * with_movers.moving.sum()


def test_an_object_as_bright_as_the_scene_has_no_visible_edge() -> None:
    mover = disc([(71.3, 47.8)], path=5.0, radiance=1.0)
    mover = replace(mover, alpha=soft_blob(len(mover.alpha), np.random.default_rng(0)))
    flat = np.ones((240, 360, 3), np.float32)
    sim = simulate_bracket(flat, np.random.default_rng(0), size=SIZE, frames=1, movers=[mover])
    assert sim.truth == pytest.approx(1.0, abs=1e-5)
    assert sim.moving.any()


def test_motion_blur_spreads_the_object_and_keeps_its_light() -> None:
    """An object 1 brighter than a flat scene adds the same light however far it moves."""
    flat = np.ones((240, 360, 3), np.float32)
    columns, light, spread = np.arange(SIZE[1]), [], []
    for path in (0.0, 24.0):
        mover = disc([(71.5, 47.5)], path)
        sim = simulate_bracket(flat, np.random.default_rng(0), size=SIZE, frames=1, movers=[mover])
        added = (sim.truth[..., 0] / sim.truth[0, 0, 0] - 1).sum(axis=0)
        light.append(added.sum())
        assert np.average(columns, weights=added) == pytest.approx(71.5, abs=1e-3)
        spread.append(np.average((columns - 71.5) ** 2, weights=added))
    assert light[0] == pytest.approx(math.pi * 9.5**2, rel=0.02)
    assert light[1] == pytest.approx(light[0], rel=1e-4)
    assert spread[1] - spread[0] == pytest.approx(24**2 / 12, rel=0.01)  # variance of a uniform motion


def test_a_random_object_is_where_its_speed_takes_it_at_mid_exposure(scene: np.ndarray) -> None:
    size = 2000, 3000
    shots = plan_shots(size, 3, 2.0, 1, Camera(), time=1 / 60)
    mover = random_mover(scene, np.random.default_rng(3), size, shots, 1)
    times = np.array([1 / 240, 1 / 60, 1 / 15])
    velocity = mover.path / times[:, None]
    assert velocity == pytest.approx(np.tile(velocity[0], (3, 1)))
    waits = 0.1 + times[:-1] / 2 + times[1:] / 2
    jitter = np.diff(mover.centre, axis=0) - velocity[:2] * waits[:, None]
    assert np.hypot(*velocity[0]) > 500
    assert np.abs(jitter).max() < 6
    assert 0 <= mover.centre[1, 0] < size[1]
    assert 0 <= mover.centre[1, 1] < size[0]


@pytest.mark.parametrize("seed", range(5))
def test_blobs_are_opaque_inside_and_end_within_their_patch(seed: int) -> None:
    alpha = soft_blob(60, np.random.default_rng(seed))
    assert alpha[30, 30] == 1.0
    assert 0.2 < (alpha > 0.5).mean() < 0.8
    assert max(edge.max() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1])) == 0.0
    assert 0 < ((alpha > 0) & (alpha < 1)).mean() < 0.25


# --- what the frames see ---------------------------------------------------------------------------


def test_frames_align_with_their_homographies(shaken: Simulated) -> None:
    """Blurred alike, so that resampling does not matter, they differ by no more than 0.01 px."""
    inner = np.s_[16:-16, 16:-28]
    truth = cv2.GaussianBlur(shaken.truth, (0, 0), 2.0)
    for view, matrix in zip(shaken.views, shaken.homographies, strict=True):
        smooth = cv2.GaussianBlur(view, (0, 0), 2.0)

        def error(dx: float, dy: float, smooth=smooth, matrix=matrix) -> float:
            moved = np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]]) @ matrix
            return float(np.mean(np.log2(aligned(smooth, moved) / truth)[inner] ** 2))

        assert error(0, 0) ** 0.5 < 0.008  # [EV]; a quarter of a pixel off gives 0.02
        for along in ((0.25, 0.0), (0.0, 0.25)):
            back, here, ahead = (error(sign * along[0], sign * along[1]) for sign in (-1, 0, 1))
            minimum = 0.125 * (back - ahead) / (back - 2 * here + ahead)  # of the parabola [px]
            assert abs(minimum) < 0.01


def test_no_border_is_invented() -> None:
    """On a scene that rises by the same amount each pixel, so does every frame up to its last column."""
    slope = np.linspace(1, 2, 400, dtype=np.float32)[None, :, None]
    scene = np.broadcast_to(slope, (260, 400, 3))
    moved = [homography(SIZE, shift=(20.0, 0.0)), np.eye(3), homography(SIZE, shift=(-13.4, 5.0))]
    sim = simulate_bracket(scene, np.random.default_rng(0), size=SIZE, shake=moved)
    rise = float(np.diff(sim.truth[50, :, 0]).mean())
    for view, shift in zip(sim.views, (20.0, 0.0, -13.4), strict=True):
        assert np.diff(view, axis=1) == pytest.approx(rise, rel=0.05)
        assert view - sim.truth == pytest.approx(-shift * rise, abs=0.05 * rise)
