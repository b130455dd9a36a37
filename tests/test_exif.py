"""EXIF blocks, read back by Pillow."""

from __future__ import annotations

import struct
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from hdrmerge import exif
from hdrmerge.bracket import Shot

FULL = Shot(
    path=Path("a.jpg"),
    exposure_time=1 / 60,
    iso=200.0,
    f_number=2.8,
    taken_at=datetime(2020, 1, 2, 3, 4, 5),
    camera_make="Cänon",
    camera_model="EOS",
    lens="EF 50mm f/1.8",
    focal_length=50.0,
    orientation=6,
)


@pytest.mark.parametrize(
    ("value", "ratio"),
    [
        (1 / 60, (1, 60)),
        (0.016666667535901, (1, 60)),
        (1.3, (13, 10)),
        (30.0, (30, 1)),
        (5000.5, (10001, 2)),
        (1 / 32000, (1, 32000)),
    ],
)
def test_ratios(value: float, ratio: tuple[int, int]) -> None:
    assert struct.unpack("<2I", exif.rational(value)[2]) == ratio


ALWAYS = {274: 1, 282: 72.0, 283: 72.0, 296: 2, 305: exif.SOFTWARE}


def read(shot: Shot) -> tuple[dict[int, object], dict[int, object]]:
    found = Image.Exif()
    found.load(b"Exif\0\0" + exif.exif_block(shot))
    inner = dict(found.get_ifd(exif.EXIF_DIRECTORY))
    return {tag: value for tag, value in found.items() if tag != exif.EXIF_DIRECTORY}, inner


def test_everything_a_shot_knows_comes_back_and_the_picture_is_upright() -> None:
    main, inner = read(FULL)
    assert main == ALWAYS | {271: "C\xc3\xa4non", 272: "EOS"}  # UTF-8, which Pillow takes for Latin-1
    assert inner == {
        33434: pytest.approx(1 / 60),
        33437: pytest.approx(2.8),
        34855: 200,
        36864: b"0232",
        36867: "2020:01:02 03:04:05",
        37386: 50.0,
        40961: 1,
        42036: "EF 50mm f/1.8",
    }


def test_nothing_is_invented() -> None:
    main, inner = read(Shot(path=Path("a.jpg")))
    assert main == ALWAYS
    assert inner == {36864: b"0232", 40961: 1}


def test_an_iso_beyond_16_bits_goes_where_the_standard_says() -> None:
    _, inner = read(Shot(path=Path("a.jpg"), iso=102400.0))
    assert (inner[34855], inner[34864], inner[34866]) == (65535, 2, 102400)


@pytest.mark.parametrize(
    ("comment", "stored"),
    [("plain", b"ASCII\0\0\0plain"), ("é", b"UNICODE\0\xe9\0")],
)
def test_comments_say_their_character_set(comment: str, stored: bytes) -> None:
    assert exif.exposure_fields(FULL, exif.UNCALIBRATED, comment)[37510][2] == stored


def test_a_directory_is_sorted_and_its_values_lie_on_even_offsets() -> None:
    data = exif.directory({305: exif.text("odd."), 271: exif.text("also"), 274: exif.short(1)}, 8)
    assert [int.from_bytes(data[2 + 12 * k : 4 + 12 * k], "little") for k in range(3)] == [271, 274, 305]
    offsets = [int.from_bytes(data[10 + 12 * k : 14 + 12 * k], "little") for k in (0, 2)]
    assert offsets == [8 + 2 + 36 + 4, 8 + 2 + 36 + 4 + 6]
    assert data[offsets[1] - 8 :][:5] == b"odd.\0"
