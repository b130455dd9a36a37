"""Folders of every kind -> a plan in which each photograph has its place."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from made_card import made_card, write_jpeg

from hdrmerge import folder
from hdrmerge.bracket import Shot
from hdrmerge.errors import InputError
from hdrmerge.folder import Plan, describe, photographs, plan, read_shots
from hdrmerge.simulate import Camera
from hdrmerge.simulate_files import write_dng

NOON = datetime(2024, 6, 1, 12, 0, 0, 50_000)
BIF_SONY = Path(__file__).parents[2] / "shared" / "brackets" / "bif_sony"


def write_set(
    where: Path,
    steps: Sequence[float] = (0, -1, 1),
    number: int = 1,
    second: float = 0.0,
    suffixes: Sequence[str] = (".JPG",),
) -> list[Shot]:
    """Write the files of one set, each shot with all the suffixes; return the shots of the first."""
    where.mkdir(parents=True, exist_ok=True)
    written = []
    for i, step in enumerate(steps):
        shot = Shot(
            path=where / f"IMG_{number + i:04d}",
            width=48,
            height=32,
            exposure_time=2.0**step / 60,
            iso=100.0,
            f_number=8.0,
            taken_at=NOON + timedelta(seconds=second + 0.3 * i),
            camera_make="Maker",
            camera_model="A",
        )
        written += [write_photograph(replace(shot, path=shot.path.with_suffix(s))) for s in suffixes][:1]
    return written


def write_photograph(shot: Shot) -> Shot:
    if shot.path.suffix == ".DNG":
        write_dng(shot.path, np.full((32, 48), 2000, np.uint16), shot, Camera(bits=14))
    else:
        write_jpeg(shot.path, shot)
    return shot


def sets(found: Plan) -> list[list[str]]:
    return [[shot.path.name for shot in one.shots] for one in found.grouping.sets]


def reasons(found: Plan) -> dict[str, str]:
    return {one.path.name: one.reason for one in found.grouping.left_out}


def check_complete(found: Plan, files: Iterable[Path]) -> None:
    """Every file is in one set, left out with a reason, or unreadable with a reason."""
    grouping = found.grouping
    listed = [shot.path for one in grouping.sets for shot in one.shots]
    listed += [one.path for one in (*grouping.left_out, *found.unreadable)]
    assert sorted(listed) == sorted(files)
    assert all(one.reason and "\n" not in one.reason for one in (*grouping.left_out, *found.unreadable))


# --- which files ----------------------------------------------------------------------------------


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(paths: Iterable[str | Path], recursive: bool = False) -> list[str]:
    found, bad = photographs(paths, recursive)
    assert not bad
    return [path.name for path in found]


def test_photographs_in_folders_and_by_name(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    touch(a / "IMG_10.JPG", a / "IMG_2.jpeg", a / "IMG_1.CR2", a / "x.HIF", a / "notes.txt", a / "merged.exr")
    touch(a / ".hidden.jpg", a / "._IMG_2.jpeg", a / "deep" / "1.png", a / ".trash" / "1.jpg", b / "1.tif")
    assert names([a]) == ["IMG_1.CR2", "IMG_2.jpeg", "IMG_10.JPG", "x.HIF"]
    assert names([a], recursive=True) == ["IMG_1.CR2", "IMG_2.jpeg", "IMG_10.JPG", "x.HIF", "1.png"]
    assert names([str(b), a / "IMG_2.jpeg"]) == ["IMG_2.jpeg", "1.tif"]
    assert names([a / "notes.txt"]) == ["notes.txt"]  # whoever names it shall hear what is wrong with it


def test_each_file_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "a" / "2.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "3.jpg").symlink_to(tmp_path / "a" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    assert names(["a", tmp_path / "a", "a/1.jpg", "link", "a/../a/2.jpg"]) == ["1.jpg", "2.jpg"]
    assert names([".", "a"], recursive=True) == ["1.jpg", "2.jpg"]


def test_links_in_circles_and_to_nothing(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "1.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a" / "loop")
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    found, bad = photographs([tmp_path], recursive=True)
    assert [path.name for path in found] == ["1.jpg"]
    assert [(one.path.name, one.reason) for one in bad] == [
        ("gone.jpg", "a link to a file that is not there")
    ]


@pytest.mark.parametrize("name", ["missing.jpg", "missing", "loop"])
def test_what_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match=name):
        photographs([tmp_path / name])


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        photographs([tmp_path / "pipe.jpg"])
    assert names([tmp_path]) == []


def test_folders_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "1.jpg", tmp_path / "closed" / "2.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(folder.os, "scandir", refuse)
    found, bad = photographs([tmp_path], recursive=True)
    assert [path.name for path in found] == ["1.jpg"]
    assert [(one.path.name, one.reason) for one in bad] == [
        ("closed", "cannot be read (Permission denied); check its permissions")
    ]
    with pytest.raises(InputError, match="Permission denied"):
        photographs([tmp_path / "closed"])


# --- bad files ------------------------------------------------------------------------------------


def test_bad_files_stop_nothing(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "IMG_0004.JPG").write_bytes(b"")
    (tmp_path / "IMG_0005.JPG").write_bytes(b"no photograph at all")
    (tmp_path / "IMG_0006.NEF").write_bytes(b"II*\0" + bytes(60))
    (tmp_path / "IMG_0007.JPG").write_bytes((tmp_path / "IMG_0001.JPG").read_bytes()[:300])
    found = plan([tmp_path])
    assert sets(found) == [["IMG_0001.JPG", "IMG_0002.JPG", "IMG_0003.JPG"]]
    assert [one.path.name[:8] for one in found.unreadable] == ["IMG_0004", "IMG_0005", "IMG_0006", "IMG_0007"]
    assert found.unreadable[0].reason == "the file is empty; copy it again from the card"
    check_complete(found, tmp_path.iterdir())


def test_files_that_vanish_are_reported(tmp_path: Path) -> None:
    write_set(tmp_path)
    shots, bad = read_shots([tmp_path / "IMG_0001.JPG", tmp_path / "gone.jpg"])
    assert len(shots) == 1
    assert [(one.path.name, one.reason) for one in bad] == [("gone.jpg", "no such file; check the name")]


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    write_set(tmp_path)
    seen: list[tuple[str, float]] = []
    plan([tmp_path], progress=lambda stage, share: seen.append((stage, share)))
    assert seen == [("read", pytest.approx(i / 3)) for i in (1, 2, 3)]


def test_an_unreadable_file_does_not_shift_the_sets(tmp_path: Path) -> None:
    write_set(tmp_path, [0] * 6)
    (tmp_path / "IMG_0002.JPG").write_bytes(b"")
    found = plan([tmp_path], per_set=3)
    assert sets(found) == [["IMG_0004.JPG", "IMG_0005.JPG", "IMG_0006.JPG"]]
    assert "IMG_0002.JPG, which belongs with it, cannot be read" in reasons(found)["IMG_0001.JPG"]


# --- several files of one shot --------------------------------------------------------------------


def test_raw_is_used_where_every_frame_has_it(tmp_path: Path) -> None:
    write_set(tmp_path, suffixes=(".JPG", ".DNG"))
    write_set(tmp_path, number=4, second=60, suffixes=(".JPG", ".DNG"))
    (tmp_path / "IMG_0005.DNG").unlink()
    write_set(tmp_path, [0], number=9, second=120, suffixes=(".JPG", ".DNG"))
    found = plan([tmp_path])
    assert sets(found) == [
        ["IMG_0001.DNG", "IMG_0002.DNG", "IMG_0003.DNG"],
        ["IMG_0004.JPG", "IMG_0005.JPG", "IMG_0006.JPG"],
    ]
    assert reasons(found)["IMG_0001.JPG"] == "IMG_0001.DNG, a file of the same shot, is used"
    assert reasons(found)["IMG_0004.DNG"] == "IMG_0004.JPG, a file of the same shot, is used"
    assert reasons(found)["IMG_0009.DNG"] == "another file of IMG_0009.JPG, which is left out"
    check_complete(found, tmp_path.iterdir())
    assert sets(plan([tmp_path], per_set=3))[0][0] == "IMG_0001.DNG"


def test_raw_files_of_another_day_are_not_mixed_in(tmp_path: Path) -> None:
    write_set(tmp_path)
    write_set(tmp_path, second=86_400, suffixes=(".DNG",))
    found = plan([tmp_path])
    assert sets(found) == [["IMG_0001.JPG", "IMG_0002.JPG", "IMG_0003.JPG"]]
    assert "named as IMG_0001.JPG, but taken at another time" in reasons(found)["IMG_0001.DNG"]
    check_complete(found, tmp_path.iterdir())


@pytest.mark.parametrize("bad", ["IMG_0002.JPG", "IMG_0002.DNG"])
def test_a_bad_file_of_two(tmp_path: Path, bad: str) -> None:
    write_set(tmp_path, suffixes=(".JPG", ".DNG"))
    (tmp_path / bad).write_bytes(b"")
    found = plan([tmp_path])
    assert [one.path.name for one in found.unreadable] == [bad]
    assert sets(found) == ([["IMG_0001.JPG", "IMG_0002.JPG", "IMG_0003.JPG"]] if ".DNG" in bad else [])
    check_complete(found, tmp_path.iterdir())


def test_copies_and_our_own_pictures_are_no_photographs(tmp_path: Path) -> None:
    shots = write_set(tmp_path, [0, -1, 1, -2, 2])
    for name in ("IMG_0001-Edit.JPG", "IMG_0001 (2).JPG", "IMG_0001_1.JPG"):
        write_jpeg(tmp_path / name, shots[0])
    write_jpeg(tmp_path / "IMG_0001-IMG_0005.jpg", replace(shots[2], software="hdrmerge 0.1.0"))
    found = plan([tmp_path])
    assert sets(found) == [[f"IMG_000{i}.JPG" for i in range(1, 6)]]
    assert reasons(found)["IMG_0001-IMG_0005.jpg"] == "made by hdrmerge 0.1.0, no photograph"
    assert reasons(found)["IMG_0001_1.JPG"] == "a copy of IMG_0001.JPG, or made from it"
    check_complete(found, tmp_path.iterdir())


# --- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [100, 101])
def test_a_made_up_card(tmp_path: Path, seed: int) -> None:
    card = made_card(seed)
    card.write(tmp_path)
    found = plan([tmp_path])
    assert {tuple(files) for files in sets(found)} == set(card.sets)
    check_complete(found, tmp_path.iterdir())


def test_folders_keep_their_sets_apart(tmp_path: Path) -> None:
    for i, name in enumerate(("b", "a", "c/d")):
        write_set(tmp_path / name, number=1 + 3 * i, second=i)
    found = plan([tmp_path], recursive=True)
    assert [one.shots[0].path.parent.name for one in found.grouping.sets] == ["a", "b", "d"]
    assert not plan([tmp_path]).grouping.sets


def test_what_is_said(tmp_path: Path) -> None:
    write_set(tmp_path, [0, -2, 2])
    write_set(tmp_path, [0], number=9, second=60)
    (tmp_path / "bad.jpg").write_bytes(b"")
    found = plan([tmp_path])
    assert describe(found) == [
        "set 1: IMG_0001-IMG_0003, Maker A, 3 exposures 2 EV apart within 0.6 s",
        f"   +0.0 EV  {tmp_path}/IMG_0001.JPG",
        f"   -2.0 EV  {tmp_path}/IMG_0002.JPG",
        f"   +2.0 EV  {tmp_path}/IMG_0003.JPG",
        "in no set:",
        f"  {tmp_path}/IMG_0009.JPG: a single photograph: 59 s from the next",
        "unreadable:",
        f"  {tmp_path}/bad.jpg: the file is empty; copy it again from the card",
    ]
    values = json.loads(json.dumps(found.to_json()))
    assert values["sets"] == [
        {
            "name": "IMG_0001-IMG_0003",
            "files": [f"{tmp_path}/IMG_000{i}.JPG" for i in (1, 2, 3)],
            "camera": "Maker A",
            "ev": [0.0, -2.0, 2.0],
            "why": "3 exposures 2 EV apart within 0.6 s",
            "sure": True,
        }
    ]
    assert [one["file"] for one in values["left_out"]] == [f"{tmp_path}/IMG_0009.JPG"]
    assert [one["file"] for one in values["unreadable"]] == [f"{tmp_path}/bad.jpg"]


def test_doubt_and_missing_exposures_are_said(tmp_path: Path) -> None:
    for i in range(2):
        write_jpeg(tmp_path / f"{i}.jpg", Shot(Path(), 48, 32))
    lines = describe(plan([tmp_path]))
    assert lines[0].endswith(
        "2 photographs of one size that do not all state their exposures (not sure: look at them)"
    )
    assert lines[1] == f"    ?   EV  {tmp_path}/0.jpg"


def test_nothing_at_all(tmp_path: Path) -> None:
    found = plan([tmp_path])
    assert describe(found) == []
    assert found.to_json() == {"sets": [], "left_out": [], "unreadable": []}


def test_a_thousand_photographs_take_seconds(tmp_path: Path) -> None:
    for i in range(0, 999, 3):
        write_set(tmp_path, number=i + 1, second=30.0 * i)
    started = time.perf_counter()
    found = plan([tmp_path])
    assert time.perf_counter() - started < 5
    assert len(found.grouping.sets) == 333


@pytest.mark.skipif(not BIF_SONY.exists(), reason="the photographs are not here")
def test_a_real_folder_is_explained_file_by_file() -> None:
    found = plan([BIF_SONY])
    assert [one.name for one in found.grouping.sets] == ["DSC08196-DSC08200", "DSC08201-DSC08205"]
    assert [one.why[:33] for one in found.grouping.sets] == ["AEB tags: 5 exposures 0.65 EV apa"] * 2
    said = {name[5:8]: reason for name, reason in reasons(found).items()}
    assert said == {
        "191": "one of 2 photographs in a row with the same exposure",
        "192": "one of 2 photographs in a row with the same exposure",
        "193": "a single photograph: 11 s from the next",
        "194": "only 2 frames of an AEB set, of which this camera took 5 elsewhere; merge them by name",
        "195": "only 2 frames of an AEB set, of which this camera took 5 elsewhere; merge them by name",
    }
