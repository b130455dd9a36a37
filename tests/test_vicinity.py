"""Frames and their neighbours: which they are, what is held of them, their codes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_clip import alternating, scene, write_stills

from hdrmerge.bracket import Frame, Shot
from hdrmerge.broadcast import TRANSFERS
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.flowmerge import radiance, similarities
from hdrmerge.footage import Footage, open_footage
from hdrmerge.vicinity import Vicinity, View

COUNT = 9


def footage(folder: Path, exposures: list[float], move: int = 0) -> Footage:
    times = [exposures[n % len(exposures)] for n in range(COUNT)]
    write_stills(folder, alternating(times, scene(64, 96), move), times)
    return open_footage(folder).exposed(times, "times", TRANSFERS[1])


def around(folder: Path, exposures: list[float], move: int = 0) -> Vicinity:
    kinds = np.argsort(np.argsort(exposures))
    found = footage(folder, exposures, move)
    return Vicinity(found, [int(kinds[n % len(exposures)]) for n in range(COUNT)])


def test_neighbours_are_in_the_order_of_the_coarse_network(tmp_path: Path) -> None:
    three = around(tmp_path, [1.0, 4.0, 16.0])
    assert [three.window(n) for n in (3, 4, 5)] == [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6], [3, 4, 5, 6, 7]]
    assert three.pairs(4) == [(2, 5), (3, 6)]  # of one exposure each
    assert three.exposures[three.window(4)].tolist() == [16, 1, 4, 16, 1]


def test_at_the_ends_one_frame_stands_on_both_sides(tmp_path: Path) -> None:
    three = around(tmp_path, [1.0, 4.0, 16.0])
    assert three.widest == 2.0
    assert three.window(0) == [1, 2, 0, 1, 2]
    assert three.window(1) == [2, 0, 1, 2, 3]
    assert three.window(8) == [6, 7, 8, 6, 7]
    for n in range(COUNT):  # the order of exposures is that of the middle, everywhere
        assert three.exposures[three.window(n)].tolist() == three.exposures[three.window(3 + n % 3)].tolist()
    assert [three.sides(n) for n in (0, 4, 8)] == [(2, 1), (3, 5), (7, 6)]
    for n in range(COUNT):
        assert sorted(three.exposures[[*three.sides(n), n]].tolist()) == [1, 4, 16]


def test_two_exposures_need_one_frame_on_each_side(tmp_path: Path) -> None:
    two = around(tmp_path, [1.0, 8.0])
    assert (two.count, two.reach, two.widest) == (2, 1, 3.0)
    assert [two.window(n) for n in (0, 1, 8)] == [[1, 0, 1], [0, 1, 2], [7, 8, 7]]
    assert [two.sides(n) for n in (0, 1, 8)] == [(1, 1), (0, 2), (7, 7)]


def test_each_frame_is_decoded_once_and_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = around(tmp_path, [1.0, 8.0])
    decoded: list[int] = []
    frames = type(two.footage).frames

    def counted(self: Footage, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        for number, frame in enumerate(frames(self, start, stop), start):
            decoded.append(number)
            yield frame

    monkeypatch.setattr(type(two.footage), "frames", counted)
    for n in range(COUNT):
        two.hold(n - 1, n + 1)
        assert len(two._views) <= 3
        assert two[n].shot.path.name == f"{n + 1:03d}.jpg"
    assert decoded == list(range(COUNT))
    two.hold(2, 4)  # back again
    assert [two[n].shot.path.name for n in (2, 3, 4)] == ["003.jpg", "004.jpg", "005.jpg"]


def test_codes_agree_on_radiance(tmp_path: Path) -> None:
    two = around(tmp_path, [1.0, 8.0])
    two.hold(0, 1)
    short, long = two[0].codes, two[1].codes
    assert short.dtype == np.float32
    well = (short > 0.1) & (long < 0.95)
    ratio = radiance(long, 8.0)[well] / radiance(short, 1.0)[well]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.02)


def test_matrices_are_those_of_flowmerge(tmp_path: Path) -> None:
    two = around(tmp_path, [1.0, 4.0], move=2)
    two.hold(2, 4)
    wanted = similarities([two[n].codes for n in (2, 3, 4)], 1)
    found = two.similarities(3, (2, 3, 4))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert found[0][0, 2] == pytest.approx(-2, abs=0.3)
    again = two.similarities(3, (4, 2))
    assert again[0] is found[2]
    assert again[1] is found[0]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_codes_are_gamma_codes_of_white_light(kind: type) -> None:
    """Whatever the curve, the clipping level and the white balance: grey is grey, clipped is 1."""
    white = np.array([0.5, 1.0, 0.8])
    to_rec709 = np.diag(1 / white).astype(np.float32)
    level, clip = np.array([0.0, 0.25, 1.0, 1.5])[:, None], 0.9
    linear = np.minimum(level * white * clip, 1.0)[None]
    curve = Response.named("gamma2.2" if kind is not np.float32 else "linear")
    stored = linear ** (1 / 2.2) if kind is not np.float32 else linear
    most = np.iinfo(kind).max if kind is not np.float32 else 1.0
    codes = (stored * most).astype(kind) if kind is np.float32 else np.rint(stored * most).astype(kind)
    view = View.of(Frame(Shot(Path("a.dng")), codes, curve, NoiseModel(0, 1e-3), to_rec709, clip))
    wanted = np.minimum(level, 1.0) ** (1 / 2.2)
    np.testing.assert_allclose(view.codes[0], np.repeat(wanted, 3, 1), atol=0.004)
    np.testing.assert_allclose(view.to_rec709 @ np.ones(3), 1.0, rtol=1e-5)
