"""shared: one curve for each camera and one scale, chosen once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from hdrmerge import response
from hdrmerge.bracket import Shot
from hdrmerge.errors import ExposureError, OutputError
from hdrmerge.exposure import Response
from hdrmerge.folder import Unreadable
from hdrmerge.journal import Journal, Origin
from hdrmerge.shared import SETS, find_curves, keep_anchor, known_curves, shared_anchor
from hdrmerge.worklist import Task

SETTINGS = {"align": "homography"}


class Finder:
    """Stands for the search: returns a curve for cameras it was told of, and counts."""

    def __init__(self, curve: Response | None) -> None:
        self.curve = curve
        self.asked: list[list[list[str]]] = []

    def __call__(self, brackets: Sequence[Sequence[Path]]) -> Response | None:
        self.asked.append([[path.name for path in paths] for paths in brackets])
        return self.curve


@pytest.fixture
def found() -> Finder:
    return Finder(response.typical())


def task(card: Path, number: int, camera: str = "Canon EOS 5D", suffix: str = "jpg") -> Task:
    shots = []
    for frame in range(2):
        path = card / f"{camera[-1]}{number:03d}{frame}.{suffix}"
        path.write_text("photograph")
        shots.append(Shot(path, exposure_time=(1 + 3 * frame) / 60, iso=100.0, f_number=8.0, source="exif"))
        shots[-1] = replace(
            shots[-1], camera_make="Canon", camera_model=camera, taken_at=datetime(2024, 1, 1)
        )
    return Task(f"set{camera[-1]}{number}", tuple(shots), "because")


@pytest.fixture
def card(tmp_path: Path) -> Path:
    (tmp_path / "card").mkdir()
    return tmp_path / "card"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def find(out: Path, tasks: list[Task], finder: Finder) -> tuple[dict[str, str], list[Path]]:
    journal = Journal(out)
    with journal.claimed([]):
        curves, written = find_curves(tasks, journal, SETTINGS, finder)
    return {name: identity for name, (_, identity) in curves.items()}, written


def test_a_camera_has_one_curve(card: Path, out: Path, found: Finder) -> None:
    tasks = [task(card, n, camera) for n in range(3) for camera in ("Canon EOS 5D", "Canon EOS R")]
    curves, written = find(out, tasks, found)
    assert [path.name for path in written] == ["response-Canon-EOS-5D.json", "response-Canon-EOS-R.json"]
    assert set(curves) == {each.name for each in tasks}
    assert len(set(curves.values())) == 2
    assert len(found.asked) == 2
    assert found.asked[0] == [
        ["D0000.jpg", "D0001.jpg"],
        ["D0010.jpg", "D0011.jpg"],
        ["D0020.jpg", "D0021.jpg"],
    ]
    again, written = find(out, tasks, found)
    assert again == curves
    assert written == []
    assert len(found.asked) == 2
    known, cameras = known_curves(tasks, Journal(out), SETTINGS)
    assert cameras == {"Canon EOS 5D", "Canon EOS R"}
    curve = known[tasks[0].name][0]
    assert np.allclose(curve.sampled(256), response.typical().sampled(256), atol=1e-4)


def test_few_sets_spread_over_all_are_enough(card: Path, out: Path, found: Finder) -> None:
    find(out, [task(card, n) for n in range(100)], found)
    (chosen,) = found.asked
    assert len(chosen) == SETS
    assert chosen[0][0] == "D0000.jpg"
    assert chosen[-1][0] == "D0990.jpg"


def test_a_curve_stays_when_photographs_come_and_damaged_ones_are_replaced(
    card: Path, out: Path, found: Finder
) -> None:
    tasks = [task(card, n) for n in range(2)]
    curves, _ = find(out, tasks, found)
    tasks[1].inputs[0].write_text("another photograph")
    more, _ = find(out, [*tasks, task(card, 7)], found)
    assert len(found.asked) == 1
    assert more == {**curves, "setD7": curves["setD0"]}


@pytest.mark.parametrize("change", ["settings", "photographs", "file", "gone"])
def test_a_curve_is_sought_again_when_all_is_different(
    card: Path, out: Path, found: Finder, change: str
) -> None:
    tasks = [task(card, 0), task(card, 1)]
    _, (path,) = find(out, tasks, found)
    wanted = SETTINGS
    if change == "settings":
        wanted = {"align": "none"}
    elif change == "photographs":
        for photograph in tasks[0].inputs + tasks[1].inputs:
            photograph.write_text("another photograph")
    elif change == "file":
        path.write_text("{}")
    else:
        path.unlink()
    assert known_curves(tasks, Journal(out), wanted) == ({}, set())


def test_a_camera_without_a_curve_is_not_asked_again(card: Path, out: Path) -> None:
    finder, tasks = Finder(None), [task(card, 0), task(card, 1)]
    assert find(out, tasks, finder) == ({}, [])
    assert find(out, tasks, finder) == ({}, [])
    assert len(finder.asked) == 1
    assert [path.name for path in out.iterdir()] == ["hdrmerge-batch.jsonl"]


def test_sets_without_a_camera_raw_and_spoilt_sets_share_nothing(
    card: Path, out: Path, found: Finder
) -> None:
    spoilt = replace(task(card, 1), unreadable=(Unreadable(card / "x.jpg", "empty"),))
    unknown = task(card, 2)
    unknown = replace(
        unknown, shots=tuple(replace(s, camera_make="", camera_model="") for s in unknown.shots)
    )
    lost = Task("lost", (), "", unreadable=(Unreadable(card / "y.jpg", "empty"),))
    raw = [task(card, n, suffix="cr2") for n in (3, 4)]
    assert find(out, [spoilt, spoilt, unknown, unknown, lost, *raw], found) == ({}, [])
    assert found.asked == []


def test_a_single_set_finds_its_own_curve_and_keeps_it(card: Path, out: Path, found: Finder) -> None:
    first, *more = (task(card, n) for n in range(3))
    assert find(out, [first], found) == ({}, [])
    journal = Journal(out)
    with journal.claimed([]):
        origin = Origin.of(first.inputs, {"response": "auto"})
        journal.begin(first.name, origin, [out / "a.exr"])
        (out / "a.exr").write_text("merged")
        journal.end(first.name, origin, [out / "a.exr"], {})
    curves, _ = find(out, [first, *more], found)
    assert set(curves) == {each.name for each in more}
    assert len(found.asked) == 1
    alone, _ = find(out, more[:1], found)  # the other two are gone
    assert alone == {more[0].name: curves[more[0].name]}


def test_a_file_in_the_place_of_a_curve_is_kept(card: Path, out: Path, found: Finder) -> None:
    out.mkdir()
    (out / "response-Canon-EOS-5D.json").write_text("precious")
    with pytest.raises(OutputError, match=r"response-Canon-EOS-5D\.json: exists, and is not from this batch"):
        find(out, [task(card, 0), task(card, 1)], found)


def test_a_killed_search_is_done_again(card: Path, out: Path, found: Finder) -> None:
    tasks, journal = [task(card, 0), task(card, 1)], Journal(out)
    with journal.claimed([]), pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "end", lambda *_: None)  # killed before
        find_curves(tasks, journal, SETTINGS, found)
    assert (out / "response-Canon-EOS-5D.json").exists()
    curves, written = find(out, tasks, found)
    assert (len(written), len(curves)) == (1, 2)


# --- the scale ------------------------------------------------------------------------------------


def exposed(*times: float, **values: float | None) -> Task:
    known: dict[str, float | None] = {"iso": 100.0, "f_number": 1.0, **values}
    shots = tuple(Shot(Path(f"{t}.jpg"), exposure_time=t, **known) for t in times)  # type: ignore[arg-type]
    return Task(f"{times}", shots, "")


def test_the_scale_is_the_median_of_the_reference_frames(tmp_path: Path) -> None:
    tasks = [exposed(1 / 8, 1 / 4, 1 / 2), exposed(1 / 16, 1 / 4, 1), exposed(1, 2), exposed(1 / 64, 1 / 32)]
    tasks += [exposed(1e-3, 1e-3 / 4, iso=None), exposed(4, 16, f_number=None), Task("lost", (), "")]
    assert shared_anchor(tasks, Journal(tmp_path)) == 2.0  # of 2, 2, 0 and 6
    assert shared_anchor(tasks[4:], Journal(tmp_path)) == pytest.approx(-2.0)  # the lower of two


def test_the_scale_is_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.claimed([]):
        keep_anchor(9.25, journal)
        keep_anchor(3.0, journal)
    assert shared_anchor([exposed(1, 2)], Journal(tmp_path)) == 9.25


def test_no_scale_without_exposures(tmp_path: Path) -> None:
    bare = Task("bare", (Shot(Path("a.jpg")), Shot(Path("b.jpg"))), "")
    with pytest.raises(ExposureError, match="no set states its exposures; use --anchor reference"):
        shared_anchor([bare], Journal(tmp_path))
