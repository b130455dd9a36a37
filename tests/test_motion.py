"""Flow, the camera's motion, and what moves by itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hdrmerge.exposure import Float
from hdrmerge.flowmerge import dis_flow, flow_pictures
from hdrmerge.simulate import homography
from hdrmerge.training.motion import (
    Flows,
    alignable,
    camera_motion,
    dominant_bin,
    draw_shift,
    elected,
    is_static,
    lenience,
    warped,
)
from hdrmerge.training.reexposure import encode

SIZE = (240, 320)


def picture(seed: int = 0) -> Float:
    """Return codes (H, W, 3) of smooth noise at three scales, most of them between 0.2 and 0.8."""
    rng = np.random.default_rng(seed)
    total = np.zeros((*SIZE, 3), np.float32)
    for cell in (4, 12, 40):
        coarse = rng.normal(0, 1, (SIZE[0] // cell + 2, SIZE[1] // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(0.5 + total * 0.1, 0.05, 0.95).astype(np.float32)


def seen_through(code: Float, matrix: np.ndarray) -> Float:
    """Return what a frame moved by ``matrix``, reference -> frame, sees of the reference's picture."""
    return cv2.warpPerspective(code, matrix, SIZE[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def test_pictures_are_as_bright_and_as_clipped_as_each_other() -> None:
    linear = np.random.default_rng(0).uniform(0.0, 1.0, (40, 40, 3)).astype(np.float32)
    reference, longer = encode(linear), encode(4 * linear)
    for pair in (flow_pictures(reference, longer, 4.0), flow_pictures(longer, reference, 0.25)):
        assert pair[0].dtype == np.uint8
        assert np.abs(pair[0].astype(int) - pair[1]).max() <= 1
        assert (pair[0] == 255).mean() > 0.3


def test_flow_finds_a_shift_and_its_way_back() -> None:
    code = picture()
    moved = seen_through(code, homography(SIZE, shift=(3.25, -1.5)))
    flows = Flows.between(code, moved, 1.0)
    inside = slice(20, -20), slice(20, -20)
    assert np.abs(flows.there[inside] - [3.25, -1.5]).mean() < 0.1
    for magnitude in flows.magnitudes:
        assert np.median(magnitude[inside]) == pytest.approx(np.hypot(3.25, 1.5), abs=0.05)


def test_exposures_do_not_disturb_the_flow() -> None:
    code = picture()
    moved = seen_through(code, homography(SIZE, shift=(4.0, 0.0))) * np.float32(0.25 ** (1 / 2.2))
    assert np.median(Flows.between(code, moved, 0.25).magnitudes[0]) == pytest.approx(4.0, abs=0.1)


def test_any_flow_can_take_its_place() -> None:
    def still(a: np.ndarray, b: np.ndarray) -> Float:
        return np.full((*a.shape, 2), 3.0, np.float32)

    flows = Flows.between(picture(), picture(1), 1.0, still)
    assert np.allclose(flows.magnitudes[1], 18**0.5)


def test_the_dominant_motion_is_the_fullest_bin() -> None:
    magnitude = np.float32([0.2, 5.1, 5.9, 5.0, 14.6, 14.2, 300.0])
    assert dominant_bin(magnitude) == 5


def test_frames_that_moved_far_are_not_aligned() -> None:
    near, edge, far = (np.full((4, 4), px, np.float32) for px in (14.9, 13.0, 15.0))
    assert alignable([near, edge])
    assert not alignable([near, far])


def test_the_camera_s_motion_is_found_among_things_that_move() -> None:
    code = picture()
    true = homography(SIZE, rotation=0.3, shift=(4.0, 2.0))
    moved = seen_through(code, true)
    moved[80:160, 100:180] = picture(7)[80:160, 100:180]
    found = camera_motion(Flows.between(code, moved, 1.0), np.random.default_rng(0))
    corners = np.array([[[0, 0], [320, 0], [0, 240], [320, 240]]], np.float64)
    off = cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, true)
    assert np.linalg.norm(off, axis=-1).max() < 0.6


def test_the_camera_s_motion_follows_from_the_seed() -> None:
    code = np.tile(picture(), (2, 2, 1))[:260, :400]
    flows = Flows.between(code, np.roll(code, 2, axis=1), 1.0)
    first, again = (camera_motion(flows, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, again)


def test_flow_of_too_few_points_has_no_homography() -> None:
    flow = np.zeros((1, 3, 2), np.float32)
    flows = Flows(flow, (flow[..., 0], flow[..., 0]))
    assert camera_motion(flows, np.random.default_rng(0)) is None


def test_a_bracket_from_a_tripod_is_not_resampled() -> None:
    rng = np.random.default_rng(2)
    code = picture()
    noisy = [np.clip(code + rng.normal(0, 0.01, code.shape), 0, 1).astype(np.float32) for _ in range(2)]
    nearly = homography(SIZE, shift=(0.1, 0.1))
    assert np.array_equal(elected(*noisy, 1.0, nearly), np.eye(3))
    true = homography(SIZE, shift=(2.0, 1.0))
    assert elected(code, seen_through(code, true), 1.0, true) is true


def test_warping_undoes_the_motion_where_the_frame_shows_anything() -> None:
    code = picture()
    matrix = homography(SIZE, rotation=0.5, shift=(6.0, -3.0))
    back, valid = warped(seen_through(code, matrix), matrix)
    assert 0.9 < valid.mean() < 0.99
    assert np.abs(back - code)[valid].mean() < 0.005
    assert back.min() >= 0.0
    assert back.max() <= 1.0
    assert warped(code, np.eye(3))[1].all()


@pytest.mark.parametrize(("median", "most"), [(0.1, 0.5), (1.0, 1.0), (5.0, 2.0)])
def test_static_is_within_the_lenience_everywhere_in_all_maps(median: float, most: float) -> None:
    assert lenience(median) == most
    calm = np.full((64, 64), median, np.float32)
    close, off = calm.copy(), calm.copy()
    close[3, 3] += most - 0.01
    off[3, 3] += most + 0.01
    assert is_static([calm, close, close, calm])
    assert not is_static([calm, calm, calm, off])


def test_a_quantile_forgives_a_noisy_flow() -> None:
    noisy = np.zeros((64, 64), np.float32)
    noisy[0, :40] = 9.0  # 1 % of the pixels
    assert is_static([noisy], quantile=0.99)
    noisy[1, :2] = 9.0
    assert not is_static([noisy], quantile=0.99)
    assert not is_static([noisy])


def test_shifts_are_drawn_as_the_paper_says() -> None:
    rng, room = np.random.default_rng(0), ((40, 40), (40, 40))
    steady = np.array([draw_shift(rng, False, room) for _ in range(2000)])
    assert np.abs(steady.mean(axis=0)).max() < 0.4
    assert steady.std() == pytest.approx(4.0, rel=0.05)
    far = np.array([draw_shift(rng, True, room) for _ in range(2000)])
    assert np.abs(far).mean() == pytest.approx(20.0, abs=0.3)
    assert np.abs(far).std() == pytest.approx(3.0, rel=0.05)
    assert (far > 0).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.05)


def test_shifts_stay_where_there_is_a_picture() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_shift(rng, True, ((0, 40), (40, 7))) for _ in range(200)])
    assert (drawn[:, 0] > 5).all()  # nothing above: it goes down
    assert (drawn[:, 1] < -5).all()
    narrow = np.array([draw_shift(rng, True, ((3, 0), (5, 0))) for _ in range(200)])
    assert set(narrow[:, 0]) == {-3, 5}
    assert set(narrow[:, 1]) == {0}


def test_dis_is_a_flow() -> None:
    grey = np.zeros((64, 64), np.uint8)
    assert dis_flow(grey, grey).shape == (64, 64, 2)
