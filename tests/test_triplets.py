"""Which three frames of a bracket, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdrmerge.align import Alignment, align
from hdrmerge.proxy import shrink
from hdrmerge.simulate import Camera, Simulated, simulate_bracket
from hdrmerge.simulate_files import write_pngs
from hdrmerge.training.reexposure import encode
from hdrmerge.training.triplets import Series, choose_triplets, filled, read_series

SHIFT = np.array([[1.0, 0, 5], [0, 1, -3], [0, 0, 1]])


@pytest.fixture(scope="module")
def taken(ramp: np.ndarray) -> Simulated:
    shake = [SHIFT, np.eye(3), np.eye(3)]
    return simulate_bracket(ramp, np.random.default_rng(0), size=(192, 256), shake=shake)


@pytest.mark.parametrize(
    ("stops", "reference", "chosen"),
    [
        ((-2, 0, 2), 1, [(0, 1, 2)]),
        ((-3, -2, -1, 0, 1, 2, 3), 3, [(1, 3, 5), (0, 2, 4), (2, 4, 6)]),
        ((-2, 0, 0.3, 2), 1, [(0, 1, 3), (0, 2, 3)]),
        ((0, 2), 0, [(0, 1, 1)]),
        ((0, 2, 2.1), 1, [(0, 1, 1)]),  # no frame that is longer by enough
        ((0, 0.3, 0.5), 1, []),
        ((0,), 0, []),
    ],
)
def test_triplets_have_the_reference_in_the_middle(
    stops: tuple[float, ...], reference: int, chosen: list[tuple[int, int, int]]
) -> None:
    assert choose_triplets(stops, reference) == chosen


def test_no_more_triplets_than_asked_for() -> None:
    assert choose_triplets(range(9), 4, most=2) == [(2, 4, 6), (1, 3, 5)]


def test_a_bracket_is_read_as_a_merge_reads_it(taken: Simulated, tmp_path: Path) -> None:
    series, _ = read_series(write_pngs(taken, tmp_path))
    assert series.reference == 1
    assert series.levels == 256
    assert [code.shape for code in series.codes] == [(192, 256, 3)] * 3
    triplet = series.triplet((0, 1, 2))
    assert triplet.exposures == pytest.approx((0.25, 1.0, 4.0), rel=0.03)
    expected = encode(taken.camera.decode(taken.frames[1]))
    assert np.abs(triplet.codes[1] - expected).mean() < 0.01
    assert triplet.others == [0, 2]
    assert series.triplet((0, 1, 1)).others == [0]


def test_frames_stay_as_captured_or_are_put_in_line(taken: Simulated) -> None:
    bracket = taken.bracket()
    proxies = [shrink(frame) for frame in bracket.frames]
    alignments = align(proxies, 1)
    captured = Series.of(bracket, proxies, alignments, aligned=False)
    assert captured.codes[0].shape == (192, 256, 3)
    lined = Series.of(bracket, proxies, alignments, aligned=True)
    assert len({code.shape for code in lined.codes}) == 1
    height, width = lined.codes[0].shape[:2]
    assert 185 <= height < 192
    assert 247 <= width < 256

    def differs(series: Series) -> float:
        short, middle = series.codes[0] * np.float32(4 ** (1 / 2.2)), series.codes[1]
        return float(np.median(np.abs(short - middle)[middle < 0.9]))

    assert differs(lined) < differs(captured) / 2


def test_frames_that_show_something_else_stay_out(taken: Simulated) -> None:
    bracket = taken.bracket()
    proxies = [shrink(frame) for frame in bracket.frames]
    still = Alignment("none", np.eye(3))
    verdicts = [Alignment("none", np.eye(3), used=False), still, still]
    series = Series.of(bracket, proxies, verdicts, aligned=False)
    assert series.reference == 0
    assert len(series.codes) == len(series.noise) == len(series.exposures) == 2


def test_linear_files_keep_their_depth(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(0), size=(96, 128), camera=Camera(bits=14))
    bracket = sim.bracket()
    series = Series.of(
        bracket, [shrink(f) for f in bracket.frames], [Alignment("none", np.eye(3))] * 3, False
    )
    assert series.levels == 65536
    assert all(code.min() >= 0 and code.max() <= 1 for code in series.codes)


def test_what_all_frames_fill_is_a_rectangle() -> None:
    valid = np.ones((40, 60), np.bool_)
    valid[:3] = False
    valid[:, 55:] = False
    valid[3, 10] = False
    assert filled(valid) == (slice(4, 40), slice(0, 55))
    assert filled(np.zeros((4, 4), np.bool_))[0] == slice(4, 4)
