"""Proxies are plain block averages in linear light, of bounded size."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from hdrmerge.bracket import Frame, Shot
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.proxy import PROXY_PIXELS, shrink


def frame(codes: np.ndarray, response: str = "srgb", clip: float = 1.0) -> Frame:
    return Frame(
        Shot(Path("a.jpg"), exposure_time=1.0),
        codes,
        Response.named(response),
        NoiseModel.from_iso(100),
        clip=clip,
    )


def block_means(linear: np.ndarray, factor: int) -> np.ndarray:
    height, width = linear.shape[0] // factor, linear.shape[1] // factor
    cut = linear[: height * factor, : width * factor].astype(np.float64)
    return cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def random_codes(height: int, width: int, dtype: type) -> np.ndarray:
    rng = np.random.default_rng(height * width)
    if dtype == np.float32:
        return rng.random((height, width, 3), np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, 3), dtype=dtype, endpoint=True)


SIZES = [((1, 1), 1), ((2, 1), 1), ((37, 53), 1), ((121, 203), 2), ((301, 151), 3), ((263, 385), 4)]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_a_proxy_is_the_mean_over_blocks(
    size: tuple[int, int], factor: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Odd sizes lose their remainder; bands of rows leave no seam."""
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", 7_000)
    source = frame(random_codes(*size, dtype))
    proxy = shrink(source)
    assert proxy.factor == factor
    assert proxy.linear.dtype == np.float32
    assert proxy.clipped.shape == proxy.linear.shape[:2]
    np.testing.assert_allclose(proxy.linear, block_means(source.linear(), factor), rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("size", "factor"), SIZES)
def test_blocks_of_8_bits_are_close_to_their_mean(
    size: tuple[int, int], factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Detail of a third of a stop (sigma 0.15); pairs of codes may be averaged and rounded to a code."""
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", 7_000)
    stops = np.random.default_rng(2).normal(-2.0, 0.15, (*size, 3)) + np.linspace(-1.0, 1.0, size[1])[:, None]
    codes = np.rint(255 * Response.named("srgb").encode(np.exp2(stops).astype(np.float32))).astype(np.uint8)
    source = frame(codes)
    proxy = shrink(source)
    assert proxy.factor == factor
    difference = np.log2(proxy.linear / block_means(source.linear(), factor))
    assert np.abs(difference).max() <= (0.04 if factor % 2 == 0 else 1e-4)
    assert abs(difference.mean()) <= 0.005


@pytest.mark.parametrize(
    "size", [(1, 5_000_000), (3, 2_000_000), (1200, 1300), (1500, 1700), (4000, 6000), (6400, 9600)]
)
def test_the_size_is_bounded_whatever_the_camera(size: tuple[int, int]) -> None:
    """At most `PROXY_PIXELS`, unless the picture is a few rows high; and never far smaller than that."""
    row = np.zeros((1, size[1], 3), np.uint8)
    proxy = shrink(frame(np.broadcast_to(row, (*size, 3))))
    height, width = proxy.clipped.shape
    assert (height, width) == (size[0] // proxy.factor, size[1] // proxy.factor)
    assert height * width <= PROXY_PIXELS or proxy.factor == min(size)
    assert height * width >= 0.25 * min(PROXY_PIXELS, size[0] * size[1])


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_one_clipped_pixel_marks_its_block_and_no_other(
    factor: int, channel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", math.ceil(156 * 240 / factor**2))
    codes = np.full((156, 240, 3), 200, np.uint8)
    codes[131, 77, channel] = 255
    proxy = shrink(frame(codes))
    assert proxy.factor == factor
    assert np.argwhere(proxy.clipped).tolist() == [[131 // factor, 77 // factor]]


def test_a_sensor_that_clips_early_is_clipped_early() -> None:
    codes = np.full((8, 8, 3), 0.5, np.float32)  # linear
    codes[2, 3, 0] = 0.9
    assert not shrink(frame(codes, "linear")).clipped.any()
    assert np.argwhere(shrink(frame(codes, "linear", clip=0.9)).clipped).tolist() == [[2, 3]]
