"""What a frame shows in the reference's place: geometry, scale, and what may be compared at all."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hdrmerge.align import Alignment
from hdrmerge.exposure import NoiseModel
from hdrmerge.proxy import Proxy
from hdrmerge.sight import LIMIT, View, Yardstick, variance_of
from hdrmerge.simulate import homography

SIZE = 60, 80
NOISE = NoiseModel.from_iso(100)
UNMOVED = Alignment("none", np.eye(3))


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def scene(size: tuple[int, int] = SIZE, low: float = 0.05, high: float = 0.2) -> np.ndarray:
    """Radiance (H, W, 3) that rises to the right, with a little texture."""
    rng = np.random.default_rng(1)
    ramp = np.geomspace(low, high, size[1], dtype=np.float32)[None, :, None]
    return np.asarray(ramp * rng.uniform(0.95, 1.05, (*size, 3)), np.float32)


def photographed(radiance: np.ndarray, ratio: float, seed: int = 0) -> Proxy:
    """A proxy of all pixels of an exposure ``ratio`` times the reference's, with noise."""
    linear = radiance * np.float32(ratio)
    noise = np.random.default_rng(seed).standard_normal(linear.shape) * np.sqrt(NOISE.variance(linear))
    linear = np.minimum(linear + noise, 1.0).astype(np.float32)
    return Proxy(linear, linear.max(axis=2) >= 0.98, 1)


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_a_view_is_in_the_references_scale(ratio: float) -> None:
    proxy = photographed(scene(), ratio)
    view = View.of(proxy, UNMOVED, NOISE, ratio)
    assert view.ratio == ratio
    assert view.inside.all()
    np.testing.assert_array_equal(view.usable, ~proxy.clipped)
    for channel in range(3):
        np.testing.assert_allclose(view.radiance[channel], proxy.linear[..., channel] / ratio, rtol=1e-6)
    error = (view.radiance[1] - scene()[..., 1])[view.usable]
    expected = view.variance[1][view.usable]
    assert np.mean(error**2 / expected) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_view_is_in_the_references_geometry(factor: int) -> None:
    """A frame shifted by whole blocks shows the same in the same place, and nothing beyond its border."""
    across, down = 7, -4  # [proxy px]
    radiance = scene()
    shifted = np.roll(radiance, (down, across), (0, 1))
    clipped = np.zeros(SIZE, bool)
    clipped[30:34, 40:45] = True
    proxy = Proxy(shifted, np.roll(clipped, (down, across), (0, 1)), factor)
    shift = homography((SIZE[0] * factor, SIZE[1] * factor), shift=(across * factor, down * factor))
    view = View.of(proxy, Alignment("translation", shift), NOISE, 1.0)
    covered = np.zeros(SIZE, bool)
    covered[-down:, :-across] = True
    np.testing.assert_array_equal(view.inside, covered)
    for channel in range(3):
        np.testing.assert_allclose(
            view.radiance[channel][covered], radiance[..., channel][covered], rtol=1e-5
        )
    assert not view.usable[clipped].any()
    assert not view.usable[~covered].any()
    assert view.usable[covered].mean() > 0.98


@pytest.mark.parametrize("way", [(5, 0), (-3, 8), (0, -6)])
def test_a_drifted_view_shows_what_is_over_there(way: tuple[int, int]) -> None:
    view = View.of(photographed(scene(), 4.0), UNMOVED, NOISE, 4.0)
    moved = view.drifted(np.broadcast_to(np.float32(way), (*SIZE, 2)))
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    x, y = x + way[0], y + way[1]
    within = (x >= 0) & (y >= 0) & (x < SIZE[1]) & (y < SIZE[0])
    np.testing.assert_array_equal(moved.inside, within)
    assert not moved.usable[~within].any()
    there = y[within], x[within]
    np.testing.assert_array_equal(moved.usable[within], view.usable[there])
    for plane, source in ((moved.radiance, view.radiance), (moved.variance, view.variance)):
        for channel in range(3):
            np.testing.assert_allclose(plane[channel][within], source[channel][there], rtol=1e-5)
    assert moved.ratio == view.ratio


def test_half_a_pixel_from_a_clipped_one_is_not_usable() -> None:
    clipped = np.zeros(SIZE, bool)
    clipped[20, 30] = True
    view = View.of(Proxy(scene(), clipped, 1), UNMOVED, NOISE, 1.0)
    moved = view.drifted(np.full((*SIZE, 2), -0.5, np.float32))
    expected = np.ones(SIZE, bool)
    expected[20:22, 30:32] = False
    np.testing.assert_array_equal(moved.usable[1:, 1:], expected[1:, 1:])
    assert not moved.inside[0].any()
    assert not moved.inside[:, 0].any()


def test_a_view_with_pixels_of_another() -> None:
    one = View.of(photographed(scene(), 1.0), UNMOVED, NOISE, 1.0)
    other = one.drifted(np.full((*SIZE, 2), 9.0, np.float32))
    where = np.random.default_rng(2).random(SIZE) < 0.5
    mixed = one.chosen(other, where)
    for name in ("inside", "usable"):
        np.testing.assert_array_equal(getattr(mixed, name)[where], getattr(other, name)[where])
        np.testing.assert_array_equal(getattr(mixed, name)[~where], getattr(one, name)[~where])
    for channel in range(3):
        for name in ("radiance", "variance"):
            found, a, b = (getattr(v, name)[channel] for v in (mixed, other, one))
            np.testing.assert_array_equal(found, np.where(where, a, b))


def test_the_variance_of_an_average_falls_with_its_pixels_and_the_exposure() -> None:
    level = np.float32([[0.1]])
    single = float(variance_of(level, NOISE, 1, 1.0)[0, 0])
    assert single == pytest.approx(NOISE.photon * 0.1 + NOISE.read**2, rel=1e-5)
    assert float(variance_of(level, NOISE, 4, 1.0)[0, 0]) == pytest.approx(single / 8, rel=1e-5)
    longer = float(variance_of(level, NOISE, 1, 4.0)[0, 0])  # the same light, four times the electrons
    assert longer == pytest.approx(NOISE.photon * 0.4 / 16 + NOISE.read**2 / 16, rel=1e-5)


# --- deviations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.25, 1.0, 4.0])
def test_noise_is_no_deviation_and_an_object_is_one(ratio: float, pool: ThreadPoolExecutor) -> None:
    radiance = scene()
    known = Yardstick.of(photographed(radiance, 1.0, 1), NOISE, pool)
    still = known.deviation(View.of(photographed(radiance, ratio, 2), UNMOVED, NOISE, ratio))
    assert still.shape == SIZE
    assert still.dtype == np.float32
    assert 0.0 <= still.min() <= still.max() < 2.0
    radiance[20:40, 10:30] *= 0.3
    moved = known.deviation(View.of(photographed(radiance, ratio, 2), UNMOVED, NOISE, ratio))
    assert moved[23:37, 13:27].min() > 16.0
    assert moved.max() <= LIMIT
    away = np.ones(SIZE, bool)
    away[16:44, 6:34] = False
    assert moved[away].max() < 2.0


def test_what_a_frame_does_not_cover_does_not_deviate(pool: ThreadPoolExecutor) -> None:
    known = Yardstick.of(photographed(scene(), 1.0), NOISE, pool)
    shift = homography(SIZE, shift=(30.0, 0.0))
    view = View.of(photographed(scene() * 4, 1.0), Alignment("translation", shift), NOISE, 1.0)
    assert not known.deviation(view)[:, 60:].any()


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_what_a_frame_nearly_clips_is_a_lower_bound(ratio: float, pool: ThreadPoolExecutor) -> None:
    """Subsampled colours in a JPEG make 245 of 255 beside pixels that are clipped; that is no object."""
    radiance = scene(high=0.9)
    radiance[20:30, 40:50] = 1.6 / ratio
    known = Yardstick.of(photographed(radiance, 1.0, 1), NOISE, pool)
    proxy = photographed(radiance, ratio, 2)
    proxy.linear[20:30, 40:44], proxy.clipped[20:30, 40:44] = 0.93, False
    assert known.deviation(View.of(proxy, UNMOVED, NOISE, ratio)).max() < 2.0
    proxy.linear[20:30, 40:44] = 0.5
    assert known.deviation(View.of(proxy, UNMOVED, NOISE, ratio)).max() > 9.0


def test_trusted_frames_fill_and_sharpen_what_is_known(pool: ThreadPoolExecutor) -> None:
    radiance = scene()
    radiance[10:20, 10:20] = 2.0
    known = Yardstick.of(photographed(radiance, 1.0, 1), NOISE, pool)
    before = known.variance[1].copy()
    belief = np.ones(SIZE, np.float32)
    belief[:, 40:] = 0.5
    view = View.of(photographed(radiance, 0.25, 2), UNMOVED, NOISE, 0.25)
    assert known.clipped[10:20, 10:20].all()
    known.learn(view, belief)
    assert not known.clipped.any()
    np.testing.assert_allclose(known.radiance[1][10:20, 10:20], 2.0, rtol=0.05)
    learnt = np.zeros(SIZE, bool)
    learnt[:, :40] = True
    learnt[10:20, 10:20] = False
    assert (known.variance[1][learnt] < before[learnt]).all()
    np.testing.assert_array_equal(known.variance[1][:, 40:], before[:, 40:])


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 90), (90, 1), (3, 5)])
def test_the_smallest_pictures(size: tuple[int, int], pool: ThreadPoolExecutor) -> None:
    known = Yardstick.of(photographed(scene(size), 1.0), NOISE, pool)
    view = View.of(photographed(scene(size), 4.0), Alignment("translation", np.eye(3)), NOISE, 4.0)
    moved = view.drifted(np.full((*size, 2), 0.4, np.float32))
    for seen in (view, moved, view.chosen(moved, np.ones(size, bool))):
        deviation = known.deviation(seen)
        assert deviation.shape == size
        assert np.isfinite(deviation).all()
        known.learn(seen, np.ones(size, np.float32))
