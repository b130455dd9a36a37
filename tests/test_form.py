"""Which shots form a bracket, in which order, around which reference; and what is refused how."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hdrmerge.bracket import Shot
from hdrmerge.errors import BracketError, ExposureError, HdrmergeError
from hdrmerge.form import StatedExposures, doubts, form_bracket


def shot(name: str, time: float | None = 1 / 60, iso: float | None = 100.0, **fields: object) -> Shot:
    base = Shot(Path(name), 600, 400, exposure_time=time, iso=iso, f_number=8.0, camera_model="X")
    return replace(base, **fields)  # type: ignore[arg-type]


DARK, MIDDLE, BRIGHT = shot("dark.jpg", 1 / 250), shot("middle.jpg", 1 / 60), shot("bright.jpg", 1 / 15)


def refusal(shots: list[Shot], reference: str | None = None) -> HdrmergeError:
    with pytest.raises(HdrmergeError) as caught:
        form_bracket(shots, reference)
    assert "\n" not in str(caught.value)
    return caught.value


# --- order and reference --------------------------------------------------------------------------


@pytest.mark.parametrize("given_order", list(itertools.permutations([DARK, MIDDLE, BRIGHT])))
def test_the_order_of_the_files_does_not_matter(given_order: tuple[Shot, ...]) -> None:
    assert form_bracket(given_order) == ([DARK, MIDDLE, BRIGHT], 1)


@given(st.lists(st.integers(-12, 12), min_size=2, max_size=9, unique=True), st.randoms())
def test_any_number_of_frames_is_sorted_around_its_middle(stops: list[int], random: object) -> None:
    shots = [shot(f"{s}.jpg", 2.0**s) for s in stops]
    random.shuffle(shots)  # type: ignore[attr-defined]
    ordered, reference = form_bracket(shots)
    assert [s.path.stem for s in ordered] == [str(s) for s in sorted(stops)]
    assert reference == (len(stops) - 1) // 2


def test_of_two_middle_frames_the_shorter_is_the_reference() -> None:
    ordered, reference = form_bracket([BRIGHT, DARK])
    assert ordered[reference] == DARK
    four = [shot("4.jpg", 4.0), shot("1.jpg", 1.0), shot("2.jpg", 2.0), shot("8.jpg", 8.0)]
    ordered, reference = form_bracket(four)
    assert ordered[reference].path.name == "2.jpg"


def test_iso_and_aperture_count_as_much_as_time() -> None:
    """1/60 s at ISO 400 is brighter than 1/30 s at ISO 100; f/16 darker than f/8 twice as long."""
    sensitive, slow = shot("a.jpg", 1 / 60, 400.0), shot("b.jpg", 1 / 30)
    stopped = shot("c.jpg", 1 / 30, f_number=16.0)
    assert form_bracket([sensitive, slow, stopped])[0] == [stopped, slow, sensitive]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_index_counts_in_the_order_given(index: int) -> None:
    files = [BRIGHT, DARK, MIDDLE]
    ordered, reference = form_bracket(files, str(index))
    assert ordered == [DARK, MIDDLE, BRIGHT]
    assert ordered[reference] == files[index]


def test_the_reference_by_name_path_or_another_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("a folder [1]")
    folder.mkdir()
    files = [replace(s, path=folder / s.path.name) for s in (DARK, MIDDLE, BRIGHT)]
    for file in files:
        file.path.touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / folder / "bright.jpg")
    for name in ("bright.jpg", str(folder / "bright.jpg"), str(tmp_path / folder / "bright.jpg"), "link.jpg"):
        assert form_bracket(files, name)[1] == 2


@pytest.mark.parametrize("wrong", ["3", "-1", "other.jpg"])
def test_a_reference_that_is_none_of_the_frames(wrong: str) -> None:
    error = refusal([DARK, MIDDLE, BRIGHT], wrong)
    assert isinstance(error, BracketError)
    assert f"--reference {wrong}" in str(error)
    assert "0 to 2" in str(error) or "bright.jpg" in str(error)


# --- exposures given by hand ----------------------------------------------------------------------


def test_times_go_with_each_files_own_iso_and_aperture() -> None:
    files = [shot("a.jpg", None, 100.0), shot("b.jpg", None, 800.0)]
    a, b = StatedExposures(times=(1 / 10, 1 / 20)).applied(files)
    assert a.exposure == pytest.approx(1 / 10 / 64)
    assert b.exposure == pytest.approx(8 / 20 / 64)
    assert (a.exposure_time, a.source) == (1 / 10, "times")
    assert form_bracket([a, b]) == ([a, b], 0)


def test_ev_says_all_whatever_the_file_does() -> None:
    files = [shot("a.jpg", 5.0), shot("b.jpg", None, None), shot("c.jpg", 1 / 8000, 6400.0)]
    stated = StatedExposures(ev=(-2.0, 0.0, 1.5)).applied(files)
    assert [s.exposure for s in stated] == pytest.approx([0.25, 1.0, 2**1.5])
    assert {s.source for s in stated} == {"ev"}
    assert form_bracket(stated[::-1]) == (stated, 1)
    assert doubts(stated) == []


@pytest.mark.parametrize("step", [2.0, -2.0, 0.7])
def test_ev_step_is_the_distance_to_the_next_file(step: float) -> None:
    files = [shot(f"{i}.jpg", None) for i in range(4)]
    exposures = [s.exposure or 0.0 for s in StatedExposures(ev_step=step).applied(files)]
    assert [b / a for a, b in itertools.pairwise(exposures)] == pytest.approx([2.0**step] * 3)


def test_nothing_stated_changes_nothing() -> None:
    assert StatedExposures().applied([DARK, BRIGHT]) == [DARK, BRIGHT]


@pytest.mark.parametrize(
    "stated", [StatedExposures(times=(1.0, 2.0)), StatedExposures(ev=(-2.0, 0.0, 2.0, 4.0))]
)
def test_as_many_values_as_frames(stated: StatedExposures) -> None:
    option, count = ("--times", 2) if stated.times else ("--ev", 4)
    with pytest.raises(ExposureError, match=f"^{option}: {count} values for 3 frames") as caught:
        stated.applied([DARK, MIDDLE, BRIGHT])
    assert "\n" not in str(caught.value)


# --- what is refused ------------------------------------------------------------------------------


def test_one_frame_is_no_bracket() -> None:
    error = refusal([DARK])
    assert isinstance(error, BracketError)
    assert "dark.jpg" in str(error)
    assert "at least two" in str(error)
    assert isinstance(refusal([]), BracketError)


def test_the_same_file_twice_by_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dark.jpg").touch()
    Path("folder").mkdir()
    Path("link.jpg").symlink_to("dark.jpg")
    for other in (
        "dark.jpg",
        str(tmp_path / "dark.jpg"),
        "folder/../dark.jpg",
        "link.jpg",
    ):
        error = refusal([DARK, MIDDLE, shot(other, 1.0)])
        assert isinstance(error, BracketError)
        assert "given twice" in str(error)
        assert "middle" not in str(error)


def test_a_frame_of_another_size_is_named() -> None:
    error = refusal([DARK, replace(MIDDLE, width=300, height=200), BRIGHT])
    assert isinstance(error, BracketError)
    assert "middle.jpg: 300 x 200" in str(error)
    assert "600 x 400" in str(error)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_sizes_are_compared_upright(orientation: int) -> None:
    turned = replace(MIDDLE, width=400, height=600, orientation=orientation)
    assert form_bracket([DARK, turned, BRIGHT])[1] == 1
    error = refusal([DARK, replace(MIDDLE, orientation=orientation), BRIGHT])
    assert "middle.jpg: 400 x 600" in str(error)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_half_a_turn_keeps_the_size(orientation: int) -> None:
    assert form_bracket([DARK, replace(MIDDLE, orientation=orientation), BRIGHT])[1] == 1


def test_without_an_exposure_the_order_stays_and_the_pixels_choose_the_reference() -> None:
    shots = [BRIGHT, replace(MIDDLE, exposure_time=None), DARK]
    assert form_bracket(shots) == (shots, None)
    assert form_bracket(shots, "dark.jpg") == (shots, 2)
    assert doubts([replace(shot, exposure_time=None) for shot in shots]) == []


@pytest.mark.parametrize("field", ["iso", "f_number"])
def test_what_one_file_states_and_another_does_not_is_refused(field: str) -> None:
    missing = replace(MIDDLE, **{field: None})  # type: ignore[arg-type]
    error = refusal([DARK, missing, BRIGHT])
    assert isinstance(error, ExposureError)
    assert str(error).startswith("middle.jpg: no ")
    assert "--ev" in str(error)
    stated = StatedExposures(ev=(-2.0, 0.0, 2.0)).applied([DARK, missing, BRIGHT])
    assert form_bracket(stated)[1] == 1


@pytest.mark.parametrize("field", ["iso", "f_number"])
def test_what_no_file_states_does_not_matter(field: str) -> None:
    shots = [replace(s, **{field: None}) for s in (DARK, MIDDLE, BRIGHT)]  # type: ignore[arg-type]
    assert form_bracket(shots)[1] == 1


@pytest.mark.parametrize("time", [0.0, -1.0, 1e12, float("nan")])
def test_an_impossible_exposure(time: float) -> None:
    error = refusal([DARK, replace(MIDDLE, exposure_time=time)])
    assert isinstance(error, ExposureError)
    assert "middle.jpg" in str(error)


# --- doubts ---------------------------------------------------------------------------------------


def test_frames_of_one_exposure_raise_a_doubt() -> None:
    (doubt,) = doubts([DARK, replace(DARK, path=Path("again.jpg"))])
    assert "same exposure" in doubt
    assert "--ev" in doubt
    assert doubts([DARK, BRIGHT]) == []


def test_two_cameras_raise_a_doubt() -> None:
    (doubt,) = doubts([DARK, replace(BRIGHT, camera_model="Y")])
    assert "X, Y" in doubt
    assert doubts([DARK, replace(BRIGHT, camera_model="")]) == []
