"""What moved is found where it went, what did not move is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from hdrmerge.align import Alignment
from hdrmerge.deghost import belief_in
from hdrmerge.drift import follow
from hdrmerge.exposure import NoiseModel
from hdrmerge.proxy import Proxy
from hdrmerge.sight import View, Yardstick

SIZE = 160, 220
NOISE = NoiseModel.from_iso(100)
UNMOVED = Alignment("none", np.eye(3))
OBJECT = 56, 64  # (H, W)
PLACE = 50, 80  # its upper left corner (y, x) in the reference


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def texture(size: tuple[int, int], seed: int, low: float = 0.02, high: float = 0.2) -> np.ndarray:
    """Radiance (H, W, 3) with grain of 3 and of 12 px."""
    rng = np.random.default_rng(seed)
    total = np.zeros((*size, 3), np.float32)
    for grain, weight in ((3, 1.0), (12, 1.5)):
        small = rng.normal(0, weight, (size[0] // grain + 2, size[1] // grain + 2, 3)).astype(np.float32)
        total += cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC).reshape(total.shape)
    total -= total.min()
    return np.asarray(low + (high - low) * total / total.max(), np.float32)


def photographed(ratio: float, way: tuple[int, int] = (0, 0), seed: int = 0, high: float = 0.2) -> Proxy:
    """A proxy with noise of a textured object that moved by ``way`` (x, y) over textured ground."""
    radiance = texture(SIZE, 1)
    top, left = PLACE[0] + way[1], PLACE[1] + way[0]
    radiance[top : top + OBJECT[0], left : left + OBJECT[1]] = texture(OBJECT, 2, high=high)
    linear = radiance * np.float32(ratio)
    noise = np.random.default_rng(seed).standard_normal(linear.shape) * np.sqrt(NOISE.variance(linear))
    linear = np.minimum(linear + noise, 1.0).astype(np.float32)
    return Proxy(linear, linear.max(axis=2) >= 0.98, 1)


def followed(
    reference: Proxy, frame: Proxy, ratio: float, pool: ThreadPoolExecutor, everywhere: bool = False
) -> tuple[tuple[View, np.ndarray, np.ndarray] | None, np.ndarray]:
    """Return what `follow` finds, and how far the frame deviates without it."""
    known = Yardstick.of(reference, NOISE, pool)
    view = View.of(frame, UNMOVED, NOISE, ratio)
    deviation = known.deviation(view)
    ghost = np.ones_like(view.usable) if everywhere else belief_in(deviation) < 1.0
    return follow(known, view, deviation, ghost), deviation


@pytest.mark.parametrize("ratio", [0.25, 4.0])
@pytest.mark.parametrize("way", [(3, 0), (0, -5), (8, 6), (-14, 9), (20, -15), (25, 0), (0, 25)])
def test_an_object_is_found_where_it_went(
    way: tuple[int, int], ratio: float, pool: ThreadPoolExecutor
) -> None:
    found, before = followed(photographed(1.0), photographed(ratio, way, 1), ratio, pool)
    assert found is not None
    view, deviation, drift = found
    assert drift.shape == (*SIZE, 2)
    assert drift.dtype == np.float32
    here = np.zeros(SIZE, bool)
    here[PLACE[0] : PLACE[0] + OBJECT[0], PLACE[1] : PLACE[1] + OBJECT[1]] = True
    right = np.hypot(*(drift[here] - np.float32(way)).T) < 0.5
    assert right.mean() > 0.75
    assert right[drift[here].any(axis=1)].mean() > 0.8
    wanders = drift.any(axis=2)
    assert wanders[~here].mean() < 0.05  # what was uncovered is nowhere to be found
    assert view.usable[wanders].all()
    assert view.inside[wanders].all()
    assert deviation[wanders].mean() < 0.25 * before[wanders].mean()
    np.testing.assert_array_equal(deviation[~wanders], before[~wanders])
    truth = cv2.split(texture(OBJECT, 2))[1].ravel()[right]
    assert np.median(np.abs(view.radiance[1][here][right] / truth - 1)) < 0.05


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("ratio", [0.25, 4.0])
def test_what_stayed_is_not_followed(ratio: float, everywhere: bool, pool: ThreadPoolExecutor) -> None:
    """Not even where it is asked for: noise is not less over there."""
    found, _ = followed(photographed(1.0), photographed(ratio, (0, 0), 1), ratio, pool, everywhere)
    assert found is None


def test_a_frame_of_something_else_is_hardly_followed(pool: ThreadPoolExecutor) -> None:
    other = texture(SIZE, 7)
    found, _ = followed(photographed(1.0), Proxy(other, np.zeros(SIZE, bool), 1), 1.0, pool)
    assert found is None or found[2].any(axis=2).mean() < 0.05


@pytest.mark.parametrize("high", [0.3, 0.5, 0.9])
def test_clipped_pixels_are_not_used(high: float, pool: ThreadPoolExecutor) -> None:
    """The long exposure clips a part of the object."""
    reference, frame = photographed(1.0, high=high), photographed(4.0, (9, -7), 1, high=high)
    assert frame.clipped.mean() > 0.001
    found, _ = followed(reference, frame, 4.0, pool)
    assert found is not None
    view, _, drift = found
    y, x = np.nonzero(drift.any(axis=2))
    across, down = drift[y, x].T
    columns, rows = np.rint(x + across).astype(int), np.rint(y + down).astype(int)
    assert not view.usable[y, x][frame.clipped[rows, columns]].any()
    still = ~drift.any(axis=2)
    np.testing.assert_array_equal(view.usable[still], ~frame.clipped[still])


@pytest.mark.parametrize("way", [(90, 0), (-85, 0), (0, 60), (60, 60)])
def test_what_left_the_frame_is_not_followed_out_of_it(
    way: tuple[int, int], pool: ThreadPoolExecutor
) -> None:
    frame = photographed(4.0, (0, 0), 1)
    matrix = np.float32([[1, 0, way[0]], [0, 1, way[1]]])
    frame = Proxy(cv2.warpAffine(frame.linear, matrix, SIZE[::-1]), frame.clipped, 1)
    found, _ = followed(photographed(1.0), frame, 4.0, pool)
    if found is not None:
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        at_x, at_y = x + found[2][..., 0], y + found[2][..., 1]
        assert at_x.min() >= 0
        assert at_y.min() >= 0
        assert at_x.max() <= SIZE[1] - 1
        assert at_y.max() <= SIZE[0] - 1
        assert found[0].inside.all()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 300), (300, 1), (2, 2), (15, 15), (16, 16), (16, 400), (17, 33), (31, 18), (37, 53)]
)
def test_the_smallest_pictures(size: tuple[int, int], pool: ThreadPoolExecutor) -> None:
    """With nothing in common, so that all of it is searched for."""
    one, other = texture(size, 1), texture(size, 2)
    clipped = np.zeros(size, bool)
    found, before = followed(Proxy(one, clipped, 1), Proxy(other, clipped, 1), 1.0, pool, everywhere=True)
    if found is not None:
        view, deviation, drift = found
        assert drift.shape == (*size, 2)
        assert np.isfinite(drift).all()
        assert deviation.mean() < before.mean()
        assert view.usable.all()
