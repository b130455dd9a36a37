"""journal: what is finished, what is somebody else's, and what a kill may leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdrmerge import journal as module
from hdrmerge.errors import OutputError
from hdrmerge.journal import NAME, Journal, Origin, ReportFile, remove_leftovers
from hdrmerge.write import replacing

ORIGIN = Origin((("a.jpg", 10, 1), ("b.jpg", 20, 2)), {"align": "homography", "float": "off"})


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    """The outputs of a set that the journal says is finished."""
    paths = [tmp_path / "sub" / "a-b.exr", tmp_path / "sub" / "a-b.jpg"]
    paths[0].parent.mkdir()
    written = Journal(tmp_path)
    with written.claimed([]):
        written.begin("sub/a-b", ORIGIN, paths)
        for path in paths:
            path.write_bytes(b"result")
        written.end("sub/a-b", ORIGIN, paths, {"clipped_share": 0.5})
    return paths


def finished(folder: Path, outputs: list[Path], origin: Origin = ORIGIN, force: bool = False) -> bool:
    return Journal(folder).finished("sub/a-b", origin, outputs, force)


def test_a_finished_set_is_known_again(tmp_path: Path, outputs: list[Path]) -> None:
    assert finished(tmp_path, outputs)
    assert finished(tmp_path, outputs, force=True)
    assert Journal(tmp_path).entries["sub/a-b"].report == {"clipped_share": 0.5}
    assert set(Journal(tmp_path).outputs()) == set(outputs)
    assert finished(tmp_path, outputs, replace(ORIGIN, inputs=ORIGIN.inputs[::-1]))  # the order is no matter


@pytest.mark.parametrize("missing", [[0], [1], [0, 1]])
def test_what_is_missing_is_made_again(tmp_path: Path, outputs: list[Path], missing: list[int]) -> None:
    for index in missing:
        outputs[index].unlink()
    assert not finished(tmp_path, outputs)


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        (replace(ORIGIN, settings={**ORIGIN.settings, "align": "none"}), "made with align homography"),
        (replace(ORIGIN, settings={**ORIGIN.settings, "new": "x"}), "made with new unknown"),
        (replace(ORIGIN, inputs=(("a.jpg", 11, 1), ORIGIN.inputs[1])), "made before a.jpg changed"),
        (replace(ORIGIN, inputs=(("a.jpg", 10, 3), ORIGIN.inputs[1])), "made before a.jpg changed"),
        (replace(ORIGIN, inputs=(*ORIGIN.inputs, ("c.jpg", 1, 1))), "made before c.jpg changed"),
        (replace(ORIGIN, version="9.9"), f"made by version {ORIGIN.version}"),
    ],
)
def test_output_of_another_origin_is_kept_unless_forced(
    tmp_path: Path, outputs: list[Path], origin: Origin, reason: str
) -> None:
    with pytest.raises(OutputError, match=reason):
        finished(tmp_path, outputs, origin)
    assert not finished(tmp_path, outputs, origin, force=True)
    for path in outputs:
        path.unlink()
    assert not finished(tmp_path, outputs, origin)


@pytest.mark.parametrize("index", [0, 1])
def test_output_that_was_changed_is_kept(tmp_path: Path, outputs: list[Path], index: int) -> None:
    outputs[index].write_bytes(b"cut")
    with pytest.raises(OutputError, match=f"{outputs[index].name}: was changed since"):
        finished(tmp_path, outputs)
    assert not finished(tmp_path, outputs, force=True)


def test_files_of_somebody_else_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a-b.jpg"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"a-b\.jpg: exists, and is not from this batch; add --force"):
        Journal(tmp_path).finished("a-b", ORIGIN, [tmp_path / "a-b.exr", path], False)
    assert not Journal(tmp_path).finished("a-b", ORIGIN, [tmp_path / "a-b.exr", path], True)


@pytest.mark.parametrize("written", [[], [0], [1], [0, 1]])
def test_a_kill_while_writing_leaves_what_may_be_replaced(tmp_path: Path, written: list[int]) -> None:
    outputs = [tmp_path / "a-b.exr", tmp_path / "a-b.jpg"]
    begun = Journal(tmp_path)
    with begun.claimed([]):
        begun.begin("a-b", ORIGIN, outputs)
    for index in written:
        outputs[index].write_bytes(b"whole, but is the other one there?")
    assert not Journal(tmp_path).finished("a-b", ORIGIN, outputs, False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_journal_may_end_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / NAME
    path.unlink(missing_ok=True)
    first = Journal(tmp_path)
    with first.claimed([]):
        for name in ("a", "b", "ü\udcff"):
            first.begin(name, ORIGIN, [tmp_path / f"{name}.exr"])
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    lines = path.read_bytes().count(b"\n")
    torn = Journal(tmp_path)
    assert lines <= len(torn.entries) <= lines + 1
    with torn.claimed([]):
        torn.begin("c", ORIGIN, [tmp_path / "c.exr"])
    again = Journal(tmp_path).entries
    assert set(again) == set(torn.entries)
    assert "c" in again


@pytest.mark.parametrize("line", ["{}", "[]", "null", "\xff", '{"set": 1}', '{"set": "a", "inputs": [1]}'])
def test_lines_of_no_meaning_are_passed_over(tmp_path: Path, outputs: list[Path], line: str) -> None:
    with (tmp_path / NAME).open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    assert finished(tmp_path, outputs)


def test_nothing_is_left_of_a_batch_that_wrote_nothing(tmp_path: Path) -> None:
    with Journal(tmp_path / "new").claimed([]):
        pass
    assert list((tmp_path / "new").iterdir()) == []


def test_one_batch_at_a_time(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with (
        Journal(tmp_path).claimed([]),
        pytest.raises(OutputError, match="another batch is writing here"),
        Journal(tmp_path).claimed([]),
    ):
        pass
    with Journal(tmp_path).claimed([]):
        pass


@pytest.mark.parametrize("name", ["file", "file/sub"])
def test_a_file_in_place_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=f"{name}: a file is in the way; name a folder"):
        Journal(tmp_path / name)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written"), Journal(tmp_path).claimed([]):
        pass


def test_a_full_disk_does_not_spoil_the_next_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, line: bytes) -> int:
            return self.file.write(line[:20])  # type: ignore[attr-defined,no-any-return]

    journal = Journal(tmp_path)
    with journal.claimed([]):
        real = journal._file
        journal._file = Full(real)
        with pytest.raises(OutputError, match="free some space"):
            journal.begin("a", ORIGIN, [tmp_path / "a.exr"])
        journal._file = real
        journal.begin("b", ORIGIN, [tmp_path / "b.exr"])
    assert list(Journal(tmp_path).entries) == ["b"]


# --- what killed processes leave ------------------------------------------------------------------


@pytest.fixture
def dead() -> int:
    """The id of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(os.name != "posix", reason="asks the system which processes run")
def test_only_leftovers_are_removed(tmp_path: Path, dead: int) -> None:
    ours = [
        f".hdrmerge-{dead}-0.exr",
        f".hdrmerge-{dead}-12.jpg",
        ".hdrmerge-77-3.jsonl",
        f".hdrmerge-{dead}-1",
    ]
    kept = [
        f".hdrmerge-{os.getppid()}-0.exr",
        ".hdrmerge",
        f"x.hdrmerge-{dead}-0.exr",
        f".hdrmerge-{dead}-0.exr.bak",
    ]
    for name in ours + kept:
        (tmp_path / name).write_text("x")
    remove_leftovers(tmp_path, {77})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "missing")


def test_the_names_are_those_of_write(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.exr") as temporary:
        temporary.write_text("x")
        found = module._TEMPORARY.fullmatch(temporary.name)
        assert found is not None
        assert int(found[1]) == os.getpid()


def test_what_a_killed_batch_left_is_removed_although_its_number_runs_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with journal.claimed([]):
        journal.begin("a", ORIGIN, [tmp_path / "sub" / "a.exr"])
    leftover = tmp_path / "sub" / f".hdrmerge-{os.getpid()}-0.exr"
    leftover.parent.mkdir()
    leftover.write_text("half")
    with Journal(tmp_path).claimed([leftover.parent]):
        assert not leftover.exists()


# --- the report -----------------------------------------------------------------------------------


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.jsonl"
    first = ReportFile(path, ())
    for name, status in (("a", "merged"), ("b", "failed"), ("c", "merged"), ("d", "skipped")):
        first.add({"name": name, "status": status, "run": 1})
    first.close()
    return path


def objects(path: Path) -> list[tuple[str, str, int]]:
    return [(o["name"], o["status"], o["run"]) for o in map(json.loads, path.read_text().splitlines())]


def test_a_report_keeps_the_lines_of_finished_sets(report: Path) -> None:
    with report.open("ab") as file:
        file.write(b'{"name": "e", "status": "mer')  # killed here
    again = ReportFile(report, {"a", "d", "e"})
    assert objects(report) == [("a", "merged", 1), ("d", "skipped", 1)]
    for name, status in (
        ("a", "skipped"),
        ("b", "failed"),
        ("c", "merged"),
        ("d", "skipped"),
        ("e", "skipped"),
    ):
        again.add({"name": name, "status": status, "run": 2})
    again.close()
    assert objects(report) == [
        ("a", "merged", 1),
        ("d", "skipped", 1),
        ("b", "failed", 2),
        ("c", "merged", 2),
        ("e", "skipped", 2),
    ]


def test_a_report_replaces_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Dear diary")
    with pytest.raises(OutputError, match=r"notes\.txt: exists, and is no report of a batch"):
        ReportFile(path, ())
    assert path.read_text() == "Dear diary"
    ReportFile(path, (), force=True).close()
    assert path.read_text() == ""
    with pytest.raises(OutputError, match="is a folder"):
        ReportFile(tmp_path, ())
