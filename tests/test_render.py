"""render: what all operators stand on, by worked numbers; what it makes of pictures is in test_tonemap."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest

from hdrmerge import render
from hdrmerge.exposure import Float
from hdrmerge.render import clean, survey


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def test_the_survey_sees_the_mean_of_blocks(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "SURVEY_PIXELS", 40 * 60)
    radiance = np.ones((80, 120, 3), dtype=np.float32)
    radiance[:, 60:] = 4.0
    radiance[::2, :60:2], radiance[1::2, 1:60:2] = 0.5, 1.5  # a mean of 1 in every block of 2 x 2
    scene = survey(radiance, pool)
    assert (scene.factor, scene.stops.shape) == (2, (40, 60))
    assert scene.stops[:, :30] == pytest.approx(0.0, abs=1e-5)
    assert scene.stops[:, 30:] == pytest.approx(2.0, abs=1e-5)
    assert (scene.average, scene.brightest) == pytest.approx((1.0, 2.0), abs=1e-5)


def test_black_blocks_have_no_say(pool: Executor) -> None:
    radiance = np.full((40, 50, 3), 8.0, dtype=np.float32)
    radiance[:10] = 0.0
    scene = survey(radiance, pool)
    assert scene.lit[10:].all()
    assert not scene.lit[:10].any()
    assert scene.average == pytest.approx(3.0, abs=1e-5)


def test_enlarging_restores_a_slope_whatever_the_band(
    pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "SURVEY_PIXELS", 12 * 16)
    y, x = np.mgrid[0:36, 0:47].astype(np.float32)
    slope = 0.5 * x - 0.25 * y
    scene = survey(np.ones((36, 47, 3), dtype=np.float32), pool)
    rows, columns = (np.arange(n) * 3 + 1 for n in scene.stops.shape)  # the middles of the blocks
    small = np.float32(0.5 * columns - 0.25 * rows[:, None])
    assert (scene.factor, small.shape) == (3, (12, 16))
    bands = [scene.enlarged(small, band, 47) for band in (slice(0, 5), slice(5, 31), slice(31, 36))]
    assert np.concatenate(bands)[1:-1, 1:-1] == pytest.approx(slope[1:-1, 1:-1], abs=1e-4)


def test_what_is_no_number_is_black_and_what_is_infinite_white() -> None:
    light, luminance = clean(np.float32([[[1, 0, 0], [np.nan, 1, 1], [1, np.inf, 1], [-2, 1, 0]]]))
    assert light[0].tolist() == [[1, 0, 0], [0, 0, 0], [np.float32(render.BRIGHTEST)] * 3, [0, 1, 0]]
    assert luminance[0] == pytest.approx([0.2126, 0.0, render.BRIGHTEST, 0.7152])


def shaded(pixel: list[float], gain: float, lift: float | None, white: float, pool: Executor) -> list[int]:
    """Render one colour with a curve that is a straight line to ``white``."""

    def shade(band: slice, luminance: Float) -> tuple[Float, Float | None]:
        return np.full_like(luminance, gain), None if lift is None else np.full_like(luminance, lift)

    radiance = np.broadcast_to(np.float32(pixel), (3, 4, 3))
    codes = render.render(radiance, shade, lambda light: light / white, white, pool)
    assert np.ptp(codes, axis=(0, 1)).max() == 0
    return codes[0, 0].tolist()


def test_gain_curve_and_white(pool: Executor) -> None:
    assert shaded([0.1, 0.2, 0.3], 2.0, None, 1.0, pool) == [51, 102, 153]
    assert shaded([0.1, 0.2, 0.3], 2.0, None, 4.0, pool) == [13, 26, 38]  # 12.75, 25.5, 38.25
    assert shaded([1.0, 5.0, 0.0], 2.0, None, 4.0, pool) == [128, 255, 0]


def test_lifted_shadows_lose_a_tenth_of_their_chroma_a_stop(pool: Executor) -> None:
    # luminance 0.2126 * 0.4 + 0.7152 * 0.2 + 0.0722 * 0.1 = 0.2353; 2 stops keep 0.8 of the distance to it
    assert shaded([0.4, 0.2, 0.1], 1.0, 0.0, 1.0, pool) == [102, 51, 26]  # 102, 51, 25.5
    assert shaded([0.4, 0.2, 0.1], 1.0, 2.0, 1.0, pool) == [94, 53, 32]  # 93.6, 52.8, 32.4
    assert shaded([0.4, 0.2, 0.1], 1.0, 3.0, 1.0, pool) == shaded([0.4, 0.2, 0.1], 1.0, 9.0, 1.0, pool)
