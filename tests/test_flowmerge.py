"""The classical ways to merge a frame of a video with its neighbours, and the flicker they leave."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from hdrmerge import flowmerge
from hdrmerge.exposure import mu_law
from hdrmerge.flowmerge import (
    CONFIRMED,
    LAST_RESORT,
    agreement,
    belief,
    confirmation,
    fetched,
    flow_to,
    in_line,
    merge_by_flow,
    merge_in_line,
    proxy_of,
    radiance,
    reference_alone,
    rematched,
    shares_of,
    similarities,
    weighted,
)
from hdrmerge.metrics import flicker_mu, psnr_mu
from hdrmerge.proxy import PROXY_PIXELS
from hdrmerge.scene import Matrix, Mover, look, ramp_scene, soft_blob
from hdrmerge.simulate import homography

SIZE = (160, 224)
EXPOSURES = (8.0, 1.0, 8.0)


def recorded(view: np.ndarray, exposure: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Return gamma codes of 8 bits."""
    drawn = np.random.default_rng(seed).normal(0, 1, view.shape) * noise
    linear = np.clip(view * exposure + drawn, 0, 1)
    return (np.rint(linear ** (1 / 2.2) * 255) / 255).astype(np.float32)


def moved(size: tuple[int, int] = SIZE) -> tuple[Matrix, ...]:
    """Return the homographies of three frames of a camera in a hand; the middle one is the reference."""
    return homography(size, 0.7, (3.6, -2.3)), np.eye(3), homography(size, -0.5, (-2.7, 3.4))


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """Radiance of which a tenth is brighter than what the shortest exposure records."""
    scene = ramp_scene(320, 448, np.random.default_rng(1), 0.0005, 1.0)
    return scene / np.quantile(scene.max(axis=-1), 0.97)


@pytest.fixture(scope="module")
def still(scene: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what three frames see in which only the camera moves."""
    return look(scene, SIZE, moved(), ())[0]


@pytest.fixture(scope="module")
def lively(scene: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what they see where a thing goes by, too."""
    rng = np.random.default_rng(2)
    patch = np.ascontiguousarray(scene[100:200, 60:160])
    centre = np.array([[92.0, 74.0], [100.0, 80.0], [108.0, 86.0]])
    thing = Mover(patch, soft_blob(100, rng), centre, np.zeros((3, 2)))
    return look(scene, SIZE, moved(), (thing,))[0]


def codes_of(views: tuple[np.ndarray, ...], exposures: tuple[float, ...] = EXPOSURES) -> list[np.ndarray]:
    longest = max(exposures)
    return [
        recorded(view, time, 1e-3 * (time < longest), seed)
        for seed, (view, time) in enumerate(zip(views, exposures, strict=True))
    ]


# ------------------------------------------------------------------------------------------- codes


def test_codes_of_another_exposure() -> None:
    view = np.random.default_rng(0).uniform(0, 0.5, (4, 5, 3)).astype(np.float32)
    short, long = ((view * time).clip(0, 1) ** np.float32(1 / 2.2) for time in (1, 4))
    np.testing.assert_allclose(rematched(short, 4), long, atol=1e-6)
    np.testing.assert_allclose(radiance(short, 1), view, atol=1e-6)
    np.testing.assert_allclose(radiance(rematched(short, 0.5), 0.5), view, atol=1e-6)
    one, other = flowmerge.alike(short, long, 4)
    np.testing.assert_allclose(one, other, atol=1e-6)
    other, one = flowmerge.alike(long, short, 1 / 4)
    np.testing.assert_allclose(one, other, atol=1e-6)


# ------------------------------------------------------------------------------------------- weights


def flat(*values: float) -> list[np.ndarray]:
    return [np.full((2, 2, 3), value, np.float32) for value in values]


ALL = [np.ones((2, 2), np.float32)] * 2


def test_the_longer_exposure_counts_more_in_the_dark() -> None:
    """By the square of its exposure, where noise is that of reading."""
    short, long = flat((0.002) ** (1 / 2.2), (0.032) ** (1 / 2.2))
    found = float(weighted([short, long], [1, 8], ALL, 0)[0, 0, 0])
    assert found == pytest.approx((0.002 + 64 * 0.004) / 65, rel=0.1)


def test_what_is_clipped_has_no_say() -> None:
    short, long = flat(0.6, 1.0)
    np.testing.assert_allclose(weighted([short, long], [1, 8], ALL, 0), 0.6**2.2, rtol=1e-5)
    as_reference = weighted([long, short], [8, 1], ALL, 0)
    np.testing.assert_allclose(as_reference, 0.6**2.2, rtol=20 * LAST_RESORT)
    one_channel = long.copy()
    one_channel[..., 1:] = 0.3
    np.testing.assert_allclose(weighted([short, one_channel], [1, 8], ALL, 0), 0.6**2.2, rtol=1e-5)


def test_a_reference_still_knows_the_channels_that_it_did_not_clip() -> None:
    """A neighbour does not: what of it is clipped cannot be compared."""
    short, long = flat(0.6, 1.0)
    long[..., 1:] = 0.3
    trust = [one.copy() for one in ALL]
    found = weighted([short, long], [1, 8], trust, 1, by_channel=True)
    np.testing.assert_allclose(found[..., 0], 0.6**2.2, rtol=20 * LAST_RESORT)
    share = shares_of([short, long], [1, 8], trust, 1, by_channel=True)[1][..., 1:]
    assert share.min() > 0.9
    np.testing.assert_allclose(found[..., 1:], share * 0.3**2.2 / 8 + (1 - share) * 0.6**2.2, rtol=1e-4)
    of_short = weighted([short, long], [1, 8], trust, 0, by_channel=True)
    np.testing.assert_allclose(of_short, 0.6**2.2, rtol=1e-5)


def test_the_shortest_exposure_is_believed_where_it_is_white() -> None:
    np.testing.assert_allclose(weighted(flat(1.0, 1.0), [1, 8], ALL, 1), 1, rtol=20 * LAST_RESORT)


def test_without_trust_there_is_the_reference() -> None:
    none = [np.zeros((2, 2), np.float32)] * 2
    trust = [none[0], np.ones((2, 2), np.float32)]
    np.testing.assert_allclose(weighted(flat(0.5, 1.0), [1, 8], trust, 1), 1 / 8, rtol=1e-5)
    np.testing.assert_allclose(weighted(flat(0.5, 0.3), [1, 8], none, 1), 0.3**2.2 / 8, rtol=1e-5)


# ------------------------------------------------------------------------------------------- the camera


def test_the_cameras_motion_is_found_at_other_exposures(still: tuple[np.ndarray, ...]) -> None:
    found = similarities(codes_of(still), 1)
    corners = np.array([[[0, 0], [223, 0], [0, 159], [223, 159]]], np.float64)
    for matrix, true in zip(found, moved(), strict=True):
        there, wanted = (cv2.perspectiveTransform(corners, m) for m in (matrix, true))
        assert np.abs(there - wanted).max() < 0.7
    assert np.array_equal(found[1], np.eye(3))


def test_what_leaves_the_picture_stays_as_it_was() -> None:
    codes = np.random.default_rng(0).uniform(0, 1, (20, 30, 3)).astype(np.float32)
    shift = np.array([[1.0, 0, 4], [0, 1, -3], [0, 0, 1]])
    found, inside = in_line(codes, shift)
    np.testing.assert_allclose(found[3:, :-4], codes[:-3, 4:], atol=1e-5)
    assert inside[3:, :26].all()
    assert not inside[:2].any()
    assert not inside[:, 27:].any()
    assert np.array_equal(found[~inside], codes[~inside])
    same, everywhere = in_line(codes, np.eye(3))
    assert same is codes
    assert everywhere.all()


def test_large_frames_are_aligned_by_small_ones() -> None:
    codes = np.zeros((1200, 1602, 3), np.float32)
    codes[100, 100] = 1
    proxy = proxy_of(codes)
    assert proxy.factor == 2
    assert proxy.linear.shape == (600, 801, 3)
    assert proxy.linear.shape[0] * proxy.linear.shape[1] <= PROXY_PIXELS
    assert proxy.clipped.sum() == 1
    assert proxy.clipped[50, 50]
    assert proxy_of(codes[:100, :101]).linear.shape == (100, 101, 3)


# ------------------------------------------------------------------------------------------- flow


def test_flow_leads_from_the_reference_to_the_other_frame(scene: np.ndarray) -> None:
    one, other = scene[100:260, 100:324], scene[97:257, 105:329]
    flow = flow_to(recorded(one, 1), recorded(other, 8), 8.0)[24:-24, 24:-24]
    assert np.median(np.abs(flow - [-5, 3])) < 0.3
    found, inside = fetched(recorded(other, 1), np.full((*SIZE, 2), (-5, 3), np.float32))
    assert np.abs(found[inside] - recorded(one, 1)[inside]).max() < 0.01
    assert inside.mean() == pytest.approx((219 / 224) * (157 / 160), abs=0.01)


def test_fine_flow_is_nearer_at_the_edges_of_what_moves(lively: tuple[np.ndarray, ...]) -> None:
    codes, truth = codes_of(lively), np.clip(lively[1], 0, 1)
    inner = np.s_[8:-8, 8:-8]
    ways = (merge_by_flow(codes, EXPOSURES, fine=fine) for fine in (False, True))
    plain, fine = (psnr_mu(way[inner], truth[inner], peak=1.0) for way in ways)
    assert fine > plain + 0.3


def test_flow_of_a_frame_in_line_is_one_resampling() -> None:
    """To where the matrix takes p + flow."""
    codes = np.random.default_rng(0).uniform(0, 1, (20, 30, 3)).astype(np.float32)
    shift = np.array([[1.0, 0, 2], [0, 1, 1], [0, 0, 1]])
    flow = np.full((20, 30, 2), (3, -2), np.float32)
    found, inside = fetched(codes, flow, shift)
    twice = fetched(in_line(codes, shift)[0], flow)[0]
    np.testing.assert_allclose(found[4:-4, :-8], twice[4:-4, :-8], atol=1e-5)
    np.testing.assert_allclose(found[1:, :-5], codes[:-1, 5:], atol=1e-5)
    assert not inside[:, 26:].any()


def test_only_what_agrees_is_believed() -> None:
    own = np.full((16, 16, 3), 0.3, np.float32)
    assert (agreement(own, rematched(own, 8), 8) == 1).all()
    assert (agreement(rematched(own, 8), own, 1 / 8) == 1).all()
    assert (agreement(own, rematched(own, 8) * 0.7, 8) == 0).all()
    white = np.ones_like(own)
    bright, dark = np.full_like(own, 0.6), np.full_like(own, 0.2)
    assert (agreement(white, bright, 1 / 8) == 1).all()  # it would be white, too
    assert (agreement(white, dark, 1 / 8) == 0).all()
    one_channel = own.copy()
    one_channel[..., 2] = 0.5
    assert (agreement(own, one_channel, 1) == 0).all()


def test_noise_is_no_difference() -> None:
    view = np.full((64, 64, 3), 0.004, np.float32)
    found = agreement(recorded(view, 1, 1e-3), recorded(view, 8), 8)
    assert found.mean() > 0.9


def photographed(light: float, exposure: float, noise: float = 1e-3, seed: int = 0) -> np.ndarray:
    """Return codes of a grey wall, (64, 64, 3)."""
    return recorded(np.full((64, 64, 3), light, np.float32), exposure, noise, seed)


@pytest.mark.parametrize(("one", "other"), [(1.0, 8.0), (8.0, 1.0), (4.0, 4.0)])
@pytest.mark.parametrize("light", [0.002, 0.02, 0.1])
def test_a_record_confirms_what_is_the_same(one: float, other: float, light: float) -> None:
    own, seen = photographed(light, one), photographed(light, other, seed=1)
    known = confirmation(own, seen, other / one)
    assert known.mean() > 0.35  # e^-0.8 of noise is usual
    seen[:16] = photographed(light * 1.3, other, seed=1)[:16]
    unlike = confirmation(own, seen, other / one)
    assert unlike[:15].mean() < (0.7 if light < 0.01 else 0.3) * known[:15].mean()


def test_what_is_clipped_confirms_what_is_as_bright() -> None:
    white = np.ones((16, 16, 3), np.float32)
    assert (confirmation(white, np.full_like(white, 0.6), 1 / 8) == 1).all()
    assert confirmation(white, np.full_like(white, 0.3), 1 / 8).max() < 1e-3


def test_frames_that_differ_all_over_are_believed_as_far_as_they_do() -> None:
    """Noise, or an exposure that is not as stated, is no motion; motion beside it still is."""
    own, seen = photographed(0.05, 1, 8e-3), photographed(0.05, 8, seed=1)
    assert confirmation(own, seen, 8).mean() > 0.35
    own, seen = photographed(0.05, 1), photographed(0.05 * 1.04, 8, seed=1)
    seen[:16] = photographed(0.09, 8, seed=1)[:16]
    found = confirmation(own, seen, 8)
    assert found[17:].mean() > 0.35
    assert found[:15].max() < 0.05


def test_belief_asks_the_record_where_exposures_are_near_enough() -> None:
    own, seen = photographed(0.02, 1), photographed(0.02, 8, seed=1)
    seen[:32] = photographed(0.02 * 1.2, 8, seed=1)[:32]
    alike, known = agreement(own, seen, 8), confirmation(own, seen, 8)
    assert 0 < alike[:31].mean() < 1  # else this says nothing
    np.testing.assert_array_equal(belief(own, seen, 8), alike * known)
    own, seen = photographed(0.002, 1), photographed(0.002, CONFIRMED * 2, seed=1)
    np.testing.assert_array_equal(belief(own, seen, CONFIRMED * 2), agreement(own, seen, CONFIRMED * 2))
    np.testing.assert_array_equal(belief(seen, own, 0.5 / CONFIRMED), agreement(seen, own, 0.5 / CONFIRMED))


# ------------------------------------------------------------------------------------------- the three


@pytest.mark.parametrize("exposures", [(8.0, 1.0, 8.0), (1.0, 8.0, 1.0)])
def test_what_each_way_is_good_for(
    still: tuple[np.ndarray, ...], lively: tuple[np.ndarray, ...], exposures: tuple[float, ...]
) -> None:
    """In line is as good as by flow where only the camera moves; else only flow is better than nothing."""

    def scores(views: tuple[np.ndarray, ...]) -> list[float]:
        codes, truth = codes_of(views, exposures), np.clip(views[1], 0, 1)
        ways = (reference_alone, merge_in_line, merge_by_flow)
        inner = np.s_[8:-8, 8:-8]
        return [psnr_mu(way(codes, exposures)[inner], truth[inner], peak=1.0) for way in ways]

    alone, lined, flow = scores(still)
    assert lined > alone + 5
    assert abs(flow - lined) < 3
    alone, lined, flow = scores(lively)
    assert flow > alone + 3
    assert flow > lined + 3


def test_known_motion_need_not_be_found(still: tuple[np.ndarray, ...]) -> None:
    codes = codes_of(still)
    matrices = similarities(codes, 1)
    for way in (merge_in_line, merge_by_flow):
        assert np.array_equal(way(codes, EXPOSURES), way(codes, EXPOSURES, 1, matrices))
    turned = way(codes, EXPOSURES, 0)
    assert psnr_mu(turned, np.clip(still[0], 0, 1), peak=1.0) > 30


# ------------------------------------------------------------------------------------------- flicker


def test_flicker_is_what_changes_from_frame_to_frame() -> None:
    before = np.full((8, 8, 3), 0.1, np.float32)
    after = before * 1.2
    step = float(mu_law(np.float32(0.12)) - mu_law(np.float32(0.1)))
    assert flicker_mu(before, before) == 0
    assert flicker_mu(before, after) == pytest.approx(step, rel=1e-4)
    assert flicker_mu(before, after, truths=(before, after)) == 0
    assert flicker_mu(before, before, truths=(before, after)) == pytest.approx(step, rel=1e-4)
    mask = np.zeros((8, 8), bool)
    assert math.isnan(flicker_mu(before, after, mask))
    mask[:4] = True
    after[:4] = before[:4]
    assert flicker_mu(before, after, mask) == 0
    assert flicker_mu(2 * before, 2 * before * 1.2, peak=2.0) == pytest.approx(step, rel=1e-4)
