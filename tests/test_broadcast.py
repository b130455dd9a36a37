"""Formulas of video signals, against numbers from the standards and against their own inverses."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge import broadcast
from hdrmerge.broadcast import (
    BT709,
    LUMA,
    enlarged,
    hlg_decode,
    hlg_display_light,
    hlg_encode,
    hlg_scene_light,
    pq_decode,
    pq_encode,
    rgb_from_ycc,
    roll_off,
    subsampled,
    ycc_from_rgb,
)

RNG = np.random.default_rng(0)


def test_pq_is_that_of_the_standard() -> None:
    """Code values of 10-bit narrow range in ITU-R BT.2408-7, table 1."""
    for nits, code in ((0.0, 64), (203.0, 573), (1000.0, 723), (4000.0, 855), (10000.0, 940)):
        assert round(64 + 876 * float(pq_encode(np.array(nits)))) == code


def test_signals_and_light_are_inverse() -> None:
    signal = np.linspace(0, 1, 300)
    assert np.allclose(pq_encode(pq_decode(signal)), signal, atol=1e-6)
    assert np.allclose(hlg_encode(hlg_decode(signal)), signal, atol=1e-6)
    assert np.allclose(broadcast.bt709_decode(np.array([0.0, 1.0])), [0, 1])
    nits = RNG.uniform(0.1, 900, (50, 3))
    assert np.allclose(hlg_display_light(hlg_scene_light(nits)), nits, rtol=1e-6)


def test_hlg_white_is_at_three_quarters() -> None:
    """ITU-R BT.2408-7: HDR reference white of 203 nits is 75 % HLG."""
    assert hlg_encode(hlg_scene_light(np.full(3, 203.0))) == pytest.approx(np.full(3, 0.75), abs=0.002)


def test_primaries_are_those_of_bt2087() -> None:
    red = broadcast.to_rec2020() @ np.float32([1, 0, 0])
    assert red == pytest.approx([0.6274, 0.0691, 0.0164], abs=1e-4)
    assert broadcast.to_rec2020().sum(axis=1) == pytest.approx(np.ones(3), abs=1e-6)


@pytest.mark.parametrize(("brightest", "peak"), [(4000, 1000), (10000, 1000), (1500, 600), (50000, 1000)])
def test_the_roll_off_keeps_white_and_ends_at_the_peak(brightest: float, peak: float) -> None:
    nits = np.geomspace(0.01, brightest, 2000)
    rolled = roll_off(nits, brightest, peak)
    assert rolled[nits < 100] == pytest.approx(nits[nits < 100])
    assert rolled[-1] == pytest.approx(peak, rel=1e-3)
    assert (np.diff(rolled) >= -1e-6 * peak).all()
    assert (rolled <= nits * (1 + 1e-6)).all()
    assert np.abs(np.diff(np.log2(rolled))).max() < 1.05 * np.diff(np.log2(nits)).max()  # no jump at the knee
    assert roll_off(np.array([2.0 * brightest]), brightest, peak)[0] == pytest.approx(peak, rel=1e-3)


def test_what_fits_the_display_is_not_touched() -> None:
    nits = RNG.uniform(0, 900, 100)
    assert np.array_equal(roll_off(nits, 900, 1000), nits)


def test_known_colours_have_known_codes() -> None:
    """75 % red and blue of the colour bars of BT.709 and BT.601, 8 bits."""
    red = ycc_from_rgb(BT709, 8) @ [0.75, 0, 0, 1]
    assert red.round().tolist() == [51, 109, 212]
    assert (ycc_from_rgb(6, 8) @ [0.75, 0, 0, 1]).round().tolist() == [65, 100, 212]
    assert (ycc_from_rgb(BT709, 8) @ [0, 0, 0.75, 1]).round().tolist() == [28, 212, 120]


@pytest.mark.parametrize("matrix", sorted(LUMA))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_there_and_back(matrix: int, full: bool, bits: int) -> None:
    rgb = RNG.random((3, 20))
    ones = np.ones((1, 20))
    ycc = ycc_from_rgb(matrix, bits, full) @ np.vstack([rgb, ones])
    assert np.allclose(rgb_from_ycc(matrix, bits, full, 1.0) @ np.vstack([ycc, ones]), rgb)


@pytest.mark.parametrize("top_left", [False, True])
def test_chroma_lies_where_it_is_said_to(top_left: bool) -> None:
    """A plane that grows by a unit a pixel shows where each sample was taken."""
    y, x = np.mgrid[:16, :24].astype(np.float32)
    _, across, down = subsampled(np.stack([x, 10 * x + 100, 10 * y + 100], axis=2), 10, top_left)
    assert across[0, 1:-1].tolist() == [100 + 20 * k for k in range(1, 11)]
    assert down[1:-1, 0].tolist() == [100 + 20 * k + (0 if top_left else 5) for k in range(1, 7)]


@pytest.mark.parametrize("left", [False, True])
def test_chroma_is_enlarged_from_where_it_lies(left: bool) -> None:
    x = np.arange(12, dtype=np.uint16)
    plane = np.tile(100 + 20 * x + (0 if left else 5), (8, 1)).astype(np.uint16)
    large = enlarged(plane, 16, 24, left)
    assert large.shape == (16, 24)
    assert np.abs(large[5, 2:-2].astype(int) - (100 + 10 * np.arange(2, 22))).max() <= 1
