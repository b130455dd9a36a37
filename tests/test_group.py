"""Brackets found on made-up cards and in the awkward cases that drive people to despair."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_card import ORDERS, made_card

from hdrmerge.bracket import Shot
from hdrmerge.errors import BracketError
from hdrmerge.group import Grouping, find_brackets

NOON = datetime(2024, 6, 1, 12, 0, 0, 50_000)


def camera(
    steps: Sequence[float | None],
    pause: float = 0.3,
    number: int = 1,
    second: float = 0.0,
    folder: str = "card",
    aeb: bool = False,
    **values: Any,
) -> list[Shot]:
    """Return shots of exposures in stops, so many seconds apart; ``aeb`` adds the camera's tags."""
    shots = []
    for i, step in enumerate(steps):
        tags = {"exposure_mode": "bracket", "exposure_bias": step} if aeb else {}
        shot = Shot(
            path=Path(folder) / f"IMG_{number + i:04d}.JPG",
            width=60,
            height=40,
            exposure_time=None if step is None else 2.0**step / 60,
            iso=100.0,
            f_number=8.0,
            taken_at=NOON + timedelta(seconds=second + 1.01 * i * pause),
            camera_model="A",
            **tags,
        )
        shots.append(replace(shot, **values))
    return shots


def undated(shots: Sequence[Shot]) -> list[Shot]:
    return [replace(shot, taken_at=None) for shot in shots]


def numbers(found: Grouping) -> list[list[int]]:
    """Return the file numbers of each set."""
    return [[int(shot.path.stem[-4:]) for shot in one.shots] for one in found.sets]


def reasons(found: Grouping) -> dict[int, str]:
    return {int(one.path.stem[-4:]): one.reason for one in found.left_out}


def check_complete(found: Grouping, shots: Sequence[Shot]) -> None:
    """Every shot is in one set, or left out with a reason of one line."""
    places = [shot.path for one in found.sets for shot in one.shots] + [out.path for out in found.left_out]
    assert sorted(places) == sorted(shot.path for shot in shots)
    assert all(one.reason and "\n" not in one.reason for one in found.left_out)
    assert all(one.why and "\n" not in one.why for one in found.sets)


@pytest.mark.parametrize("seed", range(40))
def test_every_set_of_a_made_up_card_is_right(seed: int) -> None:
    card = made_card(seed)
    found = find_brackets(card.shots)
    assert {tuple(shot.path.name for shot in one.shots) for one in found.sets} == set(card.sets)
    check_complete(found, card.shots)
    assert {3, 5, 7} <= {len(one.shots) for one in found.sets}


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_files_does_not_matter(seed: int) -> None:
    card = made_card(seed)
    shuffled = list(card.shots)
    random.Random(seed).shuffle(shuffled)
    assert find_brackets(shuffled) == find_brackets(card.shots)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("aeb", [False, True])
def test_sets_without_a_pause_between_them(order: str, size: int, aeb: bool) -> None:
    found = find_brackets(camera(ORDERS[order](size) * 4, aeb=aeb))
    assert [len(one.shots) for one in found.sets] == [size] * 4
    assert not found.left_out


def test_sets_of_different_sizes_follow_each_other() -> None:
    steps = [0, -1, 1, 0, -1, 1, -2, 2, 0, -2, 2]
    assert [len(one.shots) for one in find_brackets(camera(steps)).sets] == [3, 5, 3]


@pytest.mark.parametrize("member", [0, -2, 2])
def test_a_test_shot_is_left_out(member: int) -> None:
    """It has the exposure of one of the frames and comes a little earlier."""
    shots = camera([member]) + camera([0, -2, 2], number=2, second=1.0)
    found = find_brackets(shots)
    assert numbers(found) == [[2, 3, 4]]
    assert "set beside it has this exposure already" in reasons(found)[1]


def test_a_scene_that_changed_within_a_set_of_tags_parts_it() -> None:
    """Compensation repeats although exposures do not: the second set was taken elsewhere."""
    first, second = camera([0, -1, 1], aeb=True), camera([5, 4, 6], number=4, second=1.0, aeb=True)
    second = [replace(shot, exposure_bias=bias) for shot, bias in zip(second, (0, -1, 1), strict=True)]
    assert numbers(find_brackets(first + second)) == [[1, 2, 3], [4, 5, 6]]


def test_two_cameras_in_one_folder() -> None:
    """Their frames alternate, with the same compensation; exposures and counters differ."""
    first = camera([0, -1, 1] * 2, pause=0.4, aeb=True)
    second = [
        replace(shot, exposure_time=(shot.exposure_time or 0) * 8, camera_model="B")
        for shot in camera([0, -1, 1] * 2, pause=0.4, number=7000, second=0.2, aeb=True)
    ]
    truth = [[1, 2, 3], [4, 5, 6], [7000, 7001, 7002], [7003, 7004, 7005]]
    assert sorted(numbers(find_brackets(first + second))) == truth
    one_model = [replace(shot, camera_model="A") for shot in second]
    assert sorted(numbers(find_brackets(first + one_model))) == truth


def test_frames_of_a_set_may_vary_in_aperture_or_iso() -> None:
    by_aperture = [
        replace(shot, exposure_time=1 / 60, f_number=n)
        for shot, n in zip(camera([0, 0, 0]), (8.0, 4.0, 2.0), strict=True)
    ]
    by_iso = [
        replace(shot, exposure_time=1 / 60, iso=iso)
        for shot, iso in zip(camera([0, 0, 0]), (100.0, 400.0, 1600.0), strict=True)
    ]
    assert numbers(find_brackets(by_aperture)) == numbers(find_brackets(by_iso)) == [[1, 2, 3]]


def test_the_camera_turned_or_zoomed_ends_a_set() -> None:
    for change in ({"orientation": 6}, {"width": 30}, {"focal_length": 50.0}, {"lens": "other"}):
        shots = camera([0, -1, 1])
        shots[2] = replace(shots[2], **change)
        found = find_brackets(shots + camera([0, -1, 1], number=9, second=60))
        assert numbers(found) == [[9, 10, 11]]
        assert "differ in size, lens or focal length" in reasons(found)[3]


def test_a_camera_at_the_end_of_its_speeds() -> None:
    """The brightest two frames came out alike; the tags say that they belong to the set."""
    shots = camera([0, -1, 1, -2, 1], aeb=True)
    shots[4] = replace(shots[4], exposure_bias=2.0)
    assert numbers(find_brackets(shots)) == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("resolution", [0, 1])
@pytest.mark.parametrize("stamped", ["start", "end"])
def test_long_exposures_do_not_break_a_set(stamped: str, resolution: int) -> None:
    clock, shots = 0.25, []
    for shot in camera([0, 5, 10], number=1) + camera([0, 5, 10], number=4):  # up to 17 s
        seconds = shot.exposure_time or 0.0
        second = clock + (seconds if stamped == "end" else 0.0)
        taken = NOON + timedelta(seconds=second // 1 if resolution else second)
        shots.append(replace(shot, taken_at=taken))
        clock += seconds * (2 if seconds >= 1 else 1) + 0.2  # with a dark frame after it
    assert numbers(find_brackets(shots)) == [[1, 2, 3], [4, 5, 6]]


anything = st.builds(
    Shot,
    path=st.integers(0, 9999).map(lambda number: Path(f"card/IMG_{number:04d}.JPG")),
    width=st.just(60),
    height=st.sampled_from([40, 60]),
    exposure_time=st.none() | st.sampled_from([0.0, 1 / 500, 1 / 125, 1 / 30, 1 / 8, 2.0, 30.0]),
    iso=st.none() | st.sampled_from([100.0, 400.0]),
    taken_at=st.none() | st.integers(0, 40).map(lambda tenths: NOON + timedelta(seconds=tenths / 4)),
    camera_model=st.sampled_from(["", "A"]),
    focal_length=st.none() | st.just(24.0),
    orientation=st.sampled_from([1, 6]),
    exposure_mode=st.none() | st.sampled_from(["auto", "manual", "bracket"]),
    exposure_bias=st.none() | st.sampled_from([0.0, -1.0, 1.0]),
)


@given(
    st.lists(anything, max_size=12, unique_by=lambda shot: shot.path),
    st.none() | st.sampled_from([0.0, 1.0, 100.0]),
    st.none() | st.integers(2, 4),
)
def test_whatever_the_shots_each_has_its_place(
    shots: list[Shot], gap: float | None, per_set: int | None
) -> None:
    found = find_brackets(shots, gap, per_set)
    check_complete(found, shots)
    for one in found.sets:
        assert len(one.shots) == (per_set or len(one.shots)) >= 2
        assert len({shot.upright_size for shot in one.shots}) == 1


# --- what is left out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shots", "reason"),
    [
        (camera([0]), "the only photograph of this camera here"),
        (camera([0, 0, 0]), "one of 3 photographs in a row with the same exposure"),
        (camera([0, 1, 0.3], 1.3, exposure_mode="auto", exposure_bias=0.0), "metered it and its neighbours"),
        (camera([0, 2]), "only two, 2.0 EV apart; merge them by name"),
        (camera([0, 2, 0.4, 1.5]), "4 in a row whose exposures follow no pattern"),
        (camera([0, 2], 4000.0), "a single photograph: 67 min from the next"),
        (camera([0], aeb=True) + camera([3], number=2, second=90, aeb=True), "marked as AEB by the camera"),
        (camera([0, 2, 0, 2], 30.0, exposure_mode="manual"), "--gap 31 takes it"),
        (camera([None] * 10), "it states no exposure time; --per-set N"),
        (undated(camera([0, 0.4, 2, 2.3, 3])), "no date, and the exposures of the files around it follow"),
    ],
)
def test_reasons(shots: list[Shot], reason: str) -> None:
    elsewhere = camera([0, -2, 2], number=100, second=10_000, camera_model="B")  # a set of the same folder
    found = find_brackets(shots + elsewhere)
    assert numbers(found) == [[100, 101, 102]]
    assert all(reason in text for text in reasons(found).values()), reasons(found)
    check_complete(found, shots + elsewhere)


def test_a_set_broken_off_is_no_set_where_the_camera_took_longer_ones() -> None:
    pair, whole = camera([0, -1], aeb=True), camera([0, -1, 1], number=3, second=9, aeb=True)
    assert numbers(find_brackets(pair)) == [[1, 2]]
    found = find_brackets(pair + whole)
    assert numbers(found) == [[3, 4, 5]]
    assert "only 2 frames of an AEB set, of which this camera took 3 elsewhere" in reasons(found)[1]


# --- dates and exposures that are missing or lie --------------------------------------------------


@pytest.mark.parametrize("stamp", [None, datetime(1970, 1, 1), datetime(2024, 6, 1, 12)])
def test_without_believable_dates_the_pattern_decides(stamp: datetime | None) -> None:
    steps = [0, -1, 1, 0, -1, 1, -2, 2, 0, -1, 1] + [0] * 5
    shots = [replace(shot, taken_at=stamp) for shot in camera(steps)]
    found = find_brackets(shots)
    assert numbers(found) == [[1, 2, 3], [4, 5, 6, 7, 8], [9, 10, 11]]
    assert "same exposure" in reasons(found)[15]
    assert found.sets[0].why == "3 exposures 1 EV apart, without dates"


def test_undated_sets_follow_the_numbers() -> None:
    shots = undated(camera([0, -1, 1]))
    names = ("IMG_0001.JPG", "IMG_0007.JPG", "IMG_0009.JPG")
    apart = [replace(shot, path=shot.path.with_name(name)) for shot, name in zip(shots, names, strict=True)]
    assert numbers(find_brackets(apart + camera([0, -1, 1], number=500))) == [[500, 501, 502]]
    assert numbers(find_brackets(shots + camera([0, -1, 1], number=500))) == [[500, 501, 502], [1, 2, 3]]


def test_a_handful_without_exposures_is_one_set() -> None:
    shots = undated(camera([None] * 5))
    found = find_brackets(shots)
    assert numbers(found) == [[1, 2, 3, 4, 5]]
    assert not found.sets[0].sure
    assert "nothing else in the folder" in found.sets[0].why
    for others in (
        undated(camera([None] * 10)),
        [*shots, replace(shots[0], path=Path("card/IMG_0009.JPG"), width=30)],
        [*shots, replace(shots[0], path=Path("card/IMG_0009.DNG"))],
        [*shots, *camera([0, -2, 2], number=50)],
        [replace(shots[0], taken_at=NOON), replace(shots[1], taken_at=NOON + timedelta(hours=1))],
    ):
        found = find_brackets(others)
        assert all(one.sure for one in found.sets)
        check_complete(found, others)


# --- folders with one slow set --------------------------------------------------------------------


def test_a_folder_with_one_slow_set() -> None:
    shots = camera([-4, -1, 0.7, 3], 25.0, exposure_mode="manual")
    found = find_brackets(shots)
    assert numbers(found) == [[1, 2, 3, 4]]
    assert not found.sets[0].sure
    assert found.sets[0].why == "nothing else in the folder: 4 exposures over 7.0 EV within 76 s"
    two_folders = shots + camera([-3, 0, 3], 25.0, number=9, folder="other", exposure_mode="manual")
    assert numbers(find_brackets(two_folders)) == [[1, 2, 3, 4], [9, 10, 11]]


def test_exposures_taken_twice_are_left_out_of_a_slow_set() -> None:
    found = find_brackets(camera([-3, 0, 0, 3], 25.0, exposure_mode="manual"))
    assert numbers(found) == [[1, 2, 4]]
    assert reasons(found) == {3: "the same exposure as IMG_0002.JPG, which is in the folder's set"}


@pytest.mark.parametrize(
    "shots",
    [
        camera([-3, 0, 3], 25.0, exposure_mode="auto", exposure_bias=0.0),  # metered one by one
        camera([-3, 0, 3], 90.0, exposure_mode="manual"),
        camera([0, 0.3, 0.6], 25.0, exposure_mode="manual"),
        camera([-3, 0, 0, 0, 3], 25.0, exposure_mode="manual"),
        camera([-3, 0, 3, 1.4, -1], 25.0),  # no pattern, and nobody said manual
        camera([-3, 0], 25.0, exposure_mode="manual") + camera([3], number=3, second=51, camera_model="B"),
    ],
)
def test_folders_without_a_slow_set(shots: list[Shot]) -> None:
    found = find_brackets(shots)
    assert not found.sets
    check_complete(found, shots)


# --- by hand --------------------------------------------------------------------------------------


def test_gap() -> None:
    shots = camera([-3, 0, 3], 25.0) + camera([-3, 0, 3], 25.0, number=4, second=300)
    assert not find_brackets(shots).sets
    assert not find_brackets(shots, gap=20.0).sets
    assert numbers(find_brackets(shots, gap=26.0)) == [[1, 2, 3], [4, 5, 6]]
    assert not find_brackets(camera([0, -1, 1], 0.5), gap=0.1).sets


def test_per_set() -> None:
    shots = camera([0] * 4 + [None] * 4, 100.0) + camera([0] * 3, number=20, second=2000, width=30)
    found = find_brackets(shots, per_set=3)
    assert numbers(found) == [[1, 2, 3], [4, 5, 6], [20, 21, 22]]
    assert {one.why for one in found.sets} == {"--per-set 3"}
    assert reasons(found)[7] == "--per-set 3: 2 left over of 8 of one camera and size"
    check_complete(found, shots)


def test_per_set_begins_anew_after_a_gap() -> None:
    shots = camera([0] * 4, 1.0) + camera([0] * 3, number=5, second=60)
    assert numbers(find_brackets(shots, per_set=3)) == [[1, 2, 3], [4, 5, 6]]
    assert numbers(find_brackets(shots, gap=5.0, per_set=3)) == [[1, 2, 3], [5, 6, 7]]


def test_unreadable_files_do_not_shift_the_sets() -> None:
    shots = [shot for shot in camera([0] * 9) if shot.path.name not in ("IMG_0004.JPG", "IMG_0009.JPG")]
    bad = [Path("card/IMG_0004.JPG"), Path("card/IMG_0009.JPG"), Path("elsewhere/IMG_0002.JPG")]
    found = find_brackets(shots, per_set=3, unreadable=bad)
    assert numbers(found) == [[1, 2, 3]]
    assert reasons(found)[5] == "--per-set 3: IMG_0004.JPG, which belongs with it, cannot be read"
    assert "IMG_0009.JPG" in reasons(found)[8]


@pytest.mark.parametrize("options", [{"per_set": 1}, {"per_set": -3}, {"gap": -1.0}, {"gap": float("nan")}])
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(BracketError, match=r"^--(per-set|gap) "):
        find_brackets([], **options)


def test_nothing_is_found_in_nothing() -> None:
    assert find_brackets([]) == Grouping((), ())


def test_a_set_is_named_by_its_first_and_last_file() -> None:
    assert find_brackets(camera([0, -1, 1], number=7)).sets[0].name == "IMG_0007-IMG_0009"


def test_ten_thousand_shots_take_seconds() -> None:
    from time import perf_counter

    started = perf_counter()
    found = find_brackets(camera([0, -1, 1, 0, 0.3, 2, 2, -1.5, 0.7] * 1100, 3.0, number=0))
    assert perf_counter() - started < 20
    assert len(found.left_out) + sum(len(one.shots) for one in found.sets) == 9900
