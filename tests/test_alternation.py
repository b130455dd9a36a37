"""The order of exposures: as stated, and as the brightness of frames shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdrmerge.alternation import (
    brightness_of,
    find_beat,
    kinds_of_exposures,
    kinds_of_places,
    matched,
    neighbours,
    reach,
    read_stated,
    refuse_broken,
    slip_warnings,
)
from hdrmerge.errors import ExposureError, InputError


def brightness(
    profile: list[float], count: int, seed: int = 0, cuts: tuple[int, ...] = (), dropped: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Return the brightness [code] of frames and the place in the pattern of each."""
    rng = np.random.default_rng(seed)
    drift = np.cumsum(rng.normal(0, 0.001, count))
    for cut in cuts:
        drift[cut:] += rng.uniform(-0.25, 0.25)
    place = np.arange(count) + seed
    for frame in dropped:
        place[frame:] += 1
    place %= len(profile)
    return drift + np.asarray(profile)[place] + rng.normal(0, 0.004, count), place


PROFILES = [
    [0.1, 0.3],
    [0.2, 0.26],
    [0.1, 0.25, 0.4],
    [0.4, 0.2, 0.1],
    [0.1, 0.2, 0.3, 0.2],
    [0.1, 0.2, 0.35, 0.5],
]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("count", "cuts", "dropped"),
    [
        (12, (), ()),
        (24, (), ()),
        (60, (20, 41), ()),
        (120, (33, 70), (60,)),
        (200, tuple(range(11, 200, 19)), ()),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_pattern_is_found_with_its_phase(
    profile: list[float], count: int, cuts: tuple[int, ...], dropped: tuple[int, ...], seed: int
) -> None:
    seen, place = brightness(profile, count, seed, cuts, dropped)
    beat = find_beat(seen)
    assert beat is not None
    assert beat.period == len(profile)
    exposures = 2.0 ** (10 * np.asarray(profile))
    told = matched(beat, exposures.tolist(), "clip")
    wrong = np.flatnonzero(np.abs(np.log2(told / exposures[place])) > 1e-9)
    assert len(wrong) <= len(dropped)  # where a frame is missing one may be on the other side
    assert len(beat.slips) == len(dropped)


@pytest.mark.parametrize("count", [1, 3, 4, 6, 12, 60])
def test_frames_of_one_exposure_do_not_alternate(count: int) -> None:
    for seed in range(10):
        assert find_beat(brightness([0.3], count, seed, cuts=(count // 2 + 1,))[0]) is None


def test_a_fade_does_not_alternate() -> None:
    assert find_beat(np.linspace(0.9, 0.1, 40)) is None


def test_four_frames_are_enough() -> None:
    beat = find_beat(np.array([0.1, 0.4, 0.11, 0.39]))
    assert beat is not None
    assert beat.place.tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert kinds_of_places(beat).tolist() == [0, 1, 0, 1]


def test_patterns_that_are_no_match_are_refused() -> None:
    two, three = (find_beat(brightness(p, 40)[0]) for p in ([0.1, 0.3], [0.1, 0.2, 0.35]))
    with pytest.raises(ExposureError, match=r"x\.mp4: .*does not alternate"):
        matched(None, [1 / 500, 1 / 60], "x.mp4")
    with pytest.raises(ExposureError, match="repeats every 2 frames, the pattern of --exposures has 3"):
        matched(two, [1 / 500, 1 / 60, 1 / 8], "x.mp4")
    with pytest.raises(ExposureError, match="in no place like"):
        matched(three, [1 / 500, 1 / 8, 1 / 60], "x.mp4")  # long before middle: the other way round


def test_exposures_in_no_order_are_refused() -> None:
    clear = find_beat(brightness([0.1, 0.3], 200, dropped=tuple(range(110, 200, 7)))[0])
    assert clear is not None
    with pytest.raises(ExposureError, match="follow no order"):
        refuse_broken(clear, "x.mp4")
    assert find_beat(np.array([0.1, 0.3])[np.random.default_rng(0).integers(0, 2, 80)]) is None


def test_a_dropped_frame_is_told() -> None:
    beat = find_beat(brightness([0.1, 0.3], 60, dropped=(30,))[0])
    assert beat is not None
    refuse_broken(beat, "x.mp4")
    assert slip_warnings(beat, "x.mp4")[0].startswith("x.mp4: the order of exposures begins anew at frame 30")


def test_equal_places_are_one_exposure() -> None:
    beat = find_beat(brightness([0.1, 0.2, 0.3, 0.2], 40)[0])
    assert beat is not None
    assert sorted(set(kinds_of_places(beat).tolist())) == [0, 1, 2]


def test_brightness_is_one_number_a_frame() -> None:
    assert brightness_of(np.float32([[0.0, 0.5, 1.0], [0.0, 0.0, 0.3]])).tolist() == pytest.approx([0.5, 0.1])


# --- stated ---------------------------------------------------------------------------------------


def test_patterns_are_read_and_reduced() -> None:
    assert read_stated("1/500, 0.016").pattern == (1 / 500, 0.016)
    assert read_stated("1/500,1/60,1/500,1/60").pattern == (1 / 500, 1 / 60)
    assert read_stated("1/500,1/60,1/500,1/8").pattern == (1 / 500, 1 / 60, 1 / 500, 1 / 8)


@pytest.mark.parametrize("text", ["", "1/500,", "fast,slow", "1/0,1/60", "-1,2", "nan,1", "exposures.txt"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ExposureError, match="neither a file nor times"):
        read_stated(text)


def test_one_exposure_is_no_pattern() -> None:
    with pytest.raises(ExposureError, match="does not alternate"):
        read_stated("1/60,1/60")


def test_a_file_wins_over_a_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("1").mkdir()
    Path("1/500,1").mkdir()
    Path("1/500,1/60").write_text("a.jpg 1/30\n")
    assert read_stated("1/500,1/60").listed == (("a.jpg", 1 / 30),)


def test_a_list_is_read(tmp_path: Path) -> None:
    path = tmp_path / "exposures.txt"
    path.write_text("# made by hand\n001.jpg 1/500 f/8 100\n\n002.jpg\t0.016 # long\nsub/003.jpg 1/500\n")
    stated = read_stated(str(path))
    assert stated.listed == (("001.jpg", 1 / 500), ("002.jpg", 0.016), ("sub/003.jpg", 1 / 500))
    assert stated.for_frames(["002.jpg", "003.jpg"], 2) == (0.016, 1 / 500)
    assert stated.for_frames(["002.png", "001.png"], 2) == (0.016, 1 / 500)  # converted since
    assert stated.for_frames(None, 3) == (1 / 500, 0.016, 1 / 500)
    with pytest.raises(ExposureError, match=r"exposures\.txt: no line for 009\.jpg \(1 of 2"):
        stated.for_frames(["001.jpg", "009.jpg"], 2)
    with pytest.raises(ExposureError, match="3 lines for 4 frames"):
        stated.for_frames(None, 4)


@pytest.mark.parametrize("content", ["001.jpg\n", "001.jpg soon\n", "001.jpg 0\n", "# nothing\n", ""])
def test_lists_that_say_nothing_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "exposures.txt"
    path.write_text(content)
    with pytest.raises(ExposureError, match=r"exposures\.txt: .*`file seconds`"):
        read_stated(str(path))


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exposures.txt"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="no list of exposures"):
        read_stated(str(path))


# --- neighbours -----------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_of_every_other_exposure() -> None:
    assert neighbours([0, 1, 0, 1, 0], 2) == [(1, 3)]
    three = [0, 1, 2] * 3
    assert neighbours(three, 3) == [(1, 4), (2, 5)]  # i-2 and i+1, i-1 and i+2
    assert neighbours(three, 0) == [(1, 1), (2, 2)]
    assert neighbours(three, 8) == [(6, 6), (7, 7)]
    assert neighbours([0, 1, 1, 0, 0, 2], 2) == [(0, 3), (5, 5)]
    assert neighbours([0, 1, *[0] * 20], 20) == [(20, 20)]  # too far: itself
    assert reach([0, 1] * 5) == 1
    assert reach(three) == 2
    assert reach([0, 1, 1, 0, 0, 2]) == 5


def test_exposures_close_to_each_other_are_one_kind() -> None:
    assert kinds_of_exposures([1 / 60, 1 / 500, 1 / 62, 1 / 8]).tolist() == [1, 0, 1, 2]
