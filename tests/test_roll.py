"""Cameras told apart, and their shots in the order taken."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hdrmerge.bracket import Shot
from hdrmerge.judge import Take
from hdrmerge.roll import camera_name, name_parts, natural, one_roll, rolls

NOON = datetime(2024, 6, 1, 12)


def shot(name: str, second: float | None = None, **values: Any) -> Shot:
    taken_at = None if second is None else NOON + timedelta(seconds=second)
    return Shot(Path(name), 60, 40, 0.01, 100.0, taken_at=values.pop("taken_at", taken_at), **values)


def names(roll: list[Take]) -> list[str]:
    return [take.shot.path.name for take in roll]


def test_names_sort_as_people_sort_them() -> None:
    given = ["b/IMG_1.jpg", "a/IMG_10.jpg", "a/IMG_2.jpg", "a/img_2b.jpg", "a/3.jpg", "a/IMG_002.jpg"]
    found = sorted(map(Path, given), key=natural)
    assert [str(path) for path in found] == [
        "a/3.jpg",
        "a/IMG_2.jpg",
        "a/IMG_002.jpg",
        "a/img_2b.jpg",
        "a/IMG_10.jpg",
        "b/IMG_1.jpg",
    ]


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("IMG_0012.JPG", ("img", 12)),
        ("_DSC0012.ARW", ("dsc", 12)),
        ("20240401_184958.JPG", ("", 184958)),
        ("town2_A.jpg", ("town", 2)),
        ("IMG_E1234.HEIC", ("img e", 1234)),
        ("dark.jpg", ("", None)),
        ("1-2.jpg", ("", 2)),
    ],
)
def test_the_parts_of_names(name: str, parts: tuple[str, int | None]) -> None:
    assert name_parts(Path(name)) == parts


def test_the_maker_is_named_once() -> None:
    assert camera_name(shot("a", camera_make="Canon", camera_model="Canon EOS R6")) == "Canon EOS R6"
    assert camera_name(shot("a", camera_make="SONY", camera_model="ILCE-7")) == "SONY ILCE-7"
    assert camera_name(shot("a")) == ""


def test_counters_begin_again_after_9999() -> None:
    same_second = [shot(f"DSC{number:05d}.JPG", 0) for number in (1, 2, 9998, 9999)]
    assert names(rolls(same_second)[0]) == ["DSC09998.JPG", "DSC09999.JPG", "DSC00001.JPG", "DSC00002.JPG"]
    undated = [shot(f"IMG_{number:04d}.JPG") for number in (1, 9999)]
    assert names(rolls(undated)[0]) == ["IMG_9999.JPG", "IMG_0001.JPG"]
    a_hole = [shot(f"IMG_{number:04d}.JPG") for number in (1, 4000)]
    assert names(rolls(a_hole)[0]) == ["IMG_0001.JPG", "IMG_4000.JPG"]
    no_counter = [shot(f"{number}.JPG") for number in (1, 9999)]
    assert names(rolls(no_counter)[0]) == ["1.JPG", "9999.JPG"]


def test_the_numbered_folders_of_a_card_are_one() -> None:
    shots = [shot("DCIM/101CANON/IMG_0001.JPG", 0), shot("DCIM/100CANON/IMG_9999.JPG", 0)]
    assert [names(roll) for roll in rolls(shots)] == [["IMG_9999.JPG", "IMG_0001.JPG"]]
    assert len(rolls([shot("a/IMG_0001.JPG", 0), shot("b/IMG_0002.JPG", 0)])) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"camera_model": "B"},
        {"camera_serial": "2"},
        {"name": "DSC_0002.JPG"},
        {"name": "IMG_0002.CR2"},
        {"second": None},
    ],
)
def test_what_parts_rolls(other: dict[str, Any]) -> None:
    first = shot("IMG_0001.JPG", 0, camera_model="A", camera_serial="1")
    values = {"name": "IMG_0002.JPG", "second": 1, "camera_model": "A", "camera_serial": "1", **other}
    assert len(rolls([first, shot(**values)])) == 2


def test_two_bodies_of_one_model_are_told_apart_by_their_counters() -> None:
    first = [shot(f"IMG_{100 + i:04d}.JPG", 10 * i) for i in range(5)]
    second = [shot(f"IMG_{7000 + i:04d}.JPG", 10 * i + 3) for i in range(5)]
    assert sorted(len(roll) for roll in rolls(first + second)) == [5, 5]
    after = [shot(f"IMG_{7000 + i:04d}.JPG", 10 * i + 300) for i in range(5)]
    assert [len(roll) for roll in rolls(first + after)] == [10]  # files deleted in between
    over = [shot(f"IMG_{1 + i:04d}.JPG", 10 * i + 50) for i in range(5)]
    rolled = [shot(f"IMG_{9995 + i:04d}.JPG", 10 * i) for i in range(5)]
    assert [names(roll)[4:6] for roll in rolls(over + rolled)] == [["IMG_9999.JPG", "IMG_0001.JPG"]]


def test_clocks_that_stood_still_are_not_believed() -> None:
    at_midnight = [shot(f"{i}.jpg", taken_at=datetime(1970, 1, 1)) for i in (2, 1, 3)]
    assert [take.second for take in rolls(at_midnight)[0]] == [None, None, None]
    many = [shot(f"{i}.jpg", 0) for i in range(13)]
    assert {take.second for take in rolls(many)[0]} == {None}
    burst = [shot(f"{i}.jpg", 0) for i in range(5)]
    assert None not in {take.second for take in rolls(burst)[0]}


def test_the_resolution_of_time_stamps() -> None:
    whole = rolls([shot("1.jpg", 0), shot("2.jpg", 1)])[0]
    constant = rolls([shot("1.jpg", 0.5), shot("2.jpg", 1.5)])[0]
    fine = rolls([shot("1.jpg", 0.25), shot("2.jpg", 1)])[0]
    assert [roll[0].resolution for roll in (whole, constant, fine)] == [1.0, 1.0, 0.0]


def test_one_roll_of_whatever_names() -> None:
    shots = [shot("mid.jpg", 2), shot("dark.jpg", 1), shot("bright0.jpg", 3)]
    found = one_roll(shots)
    assert found is not None
    assert names(found) == ["dark.jpg", "mid.jpg", "bright0.jpg"]
    assert one_roll([shot("1.jpg", camera_model="A"), shot("2.jpg", camera_model="B")]) is None
    assert one_roll([shot("1.jpg"), shot("2.dng")]) is None
    assert one_roll([shot("1.jpg", camera_model="A"), shot("2.jpg")]) is not None
