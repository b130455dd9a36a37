"""inspect and batch as scripts see them: names, exit codes, the report, and runs that are cut off."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from hdrmerge import cli
from hdrmerge.console import PAINTED_PARTS, BatchBar
from hdrmerge.load import load
from hdrmerge.simulate import simulate_bracket
from hdrmerge.simulate_files import exif_of

JOURNAL = "hdrmerge-batch.jsonl"
SETS = ["day/IMG_0001-IMG_0003", "day/IMG_0004-IMG_0006", "IMG_0007-IMG_0009"]
PLAIN = ["--response", "srgb", "--network", "none"]
"""Spares the search for a curve, and a network, where they are not what a test is about."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, ramp: np.ndarray) -> Path:
    """Three brackets of three JPEGs, an hour apart, the first two in a folder within; and a single."""
    card = tmp_path_factory.mktemp("photographs")
    (card / "day").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        sim = simulate_bracket(ramp[:256, :384], rng, size=(64, 96))
        folder = card if number == 2 else card / "day"
        for i, (codes, shot) in enumerate(zip(sim.frames, sim.shots, strict=True)):
            assert shot.taken_at
            # Each set a stop darker than the one before, so that their references differ.
            shot = replace(
                shot,
                taken_at=shot.taken_at + timedelta(hours=number),
                exposure_time=(shot.exposure_time or 0) / 2**number,
            )
            name = f"IMG_{3 * number + i + 1:04d}.jpg"
            Image.fromarray(codes).save(folder / name, quality=95, exif=exif_of(shot))
    single = replace(shot, taken_at=shot.taken_at + timedelta(days=1))
    Image.fromarray(codes).save(card / "IMG_0100.jpg", quality=95, exif=exif_of(single))
    return card


@pytest.fixture
def folder(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the photographs in ``card``."""
    shutil.copytree(photographs, tmp_path / "card")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def batch(*arguments: object, code: int = 0) -> Result:
    result = run("batch", "card", "-r", "-o", "out", *PLAIN, *arguments)
    assert result.exit_code == code, result.output
    return result


def files(place: str = "out") -> dict[str, bytes]:
    """Return what lies in a folder, but for the journal."""
    found = (path for path in Path(place).rglob("*") if path.is_file() and path.name != JOURNAL)
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in found}


def outputs(*names: str) -> list[str]:
    return [f"{name}{suffix}" for name in names for suffix in (".exr", ".jpg")]


def objects(text: str) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["name"] for line in lines}) == len(lines)
    return {line["name"]: line for line in lines}


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_shows_sets_and_what_is_in_none(folder: Path) -> None:
    Path("card/empty.jpg").write_bytes(b"")
    result = run("inspect", "card", "-r")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(re.findall(r"^set \d+: IMG_0\d+-IMG_0\d+, hdrmerge Simulated, 3 ", result.stdout, re.M)) == 3
    assert "-2.0 EV  card/day/IMG_0001.jpg" in result.stdout
    left_out, unreadable = result.stdout.index("card/IMG_0100.jpg: "), result.stdout.index("card/empty.jpg: ")
    assert result.stdout.rindex(" EV ") < left_out < unreadable
    assert "IMG_0001" not in run("inspect", "card").stdout
    assert not Path("out").exists()


def test_inspect_for_scripts(folder: Path) -> None:
    found = json.loads(run("inspect", "card", "-r", "--json").stdout)
    assert sorted(one["name"] for one in found["sets"]) == sorted(name.rpartition("/")[2] for name in SETS)
    assert found["sets"][0]["ev"] == [-2.0, 0.0, 2.0]
    assert [one["file"] for one in found["left_out"]] == ["card/IMG_0100.jpg"]
    one_set = json.loads(run("inspect", "card", "-r", "--json", "--per-set", "10").stdout)
    assert one_set["sets"] == []


@pytest.mark.parametrize(
    ("content", "finding"),
    [(None, "holds no photograph; name another folder, or add -r"), (b"", "1 file, none can be read")],
)
def test_inspect_of_nothing_fails(folder: Path, content: bytes | None, finding: str) -> None:
    Path("bare").mkdir()
    if content is not None:
        Path("bare/a.jpg").write_bytes(content)
    result = run("inspect", "bare")
    assert result.exit_code == 1
    assert result.stderr.startswith("hdrmerge: bare: ")
    assert finding in result.stderr
    missing = run("inspect", "gone")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.startswith("hdrmerge: gone: ")


# --- what is written ------------------------------------------------------------------------------


def test_batch_merges_everything_and_skips_it_the_next_time(folder: Path) -> None:
    result = batch()
    assert sorted(result.stdout.splitlines()) == sorted(f"out/{name}" for name in outputs(*SETS))
    assert result.stderr == "hdrmerge: 3 merged, 1 photograph left out (hdrmerge inspect tells why)\n"
    before = files()
    assert set(before) == set(outputs(*SETS))
    stamps = {name: Path("out", name).stat().st_mtime_ns for name in before}
    again = batch()
    assert again.stdout == ""
    assert again.stderr.startswith("hdrmerge: 0 merged, 3 skipped, 1 photograph left out")
    assert {name: Path("out", name).stat().st_mtime_ns for name in before} == stamps


def test_a_batch_writes_what_merge_writes(folder: Path) -> None:
    batch()
    frames = [f"card/day/IMG_{number:04d}.jpg" for number in (1, 2, 3)]
    assert run("merge", *frames, "-o", "one.exr", *PLAIN).exit_code == 0
    assert Path("one.exr").read_bytes() == files()[f"{SETS[0]}.exr"]
    assert Path("one.jpg").read_bytes() == files()[f"{SETS[0]}.jpg"]


def test_results_do_not_depend_on_how_many_at_a_time(folder: Path) -> None:
    batch("-j", "3")
    three = files()
    shutil.rmtree("out")
    batch()
    assert files() == three


@pytest.mark.parametrize("options", [["--format", "hdr"], ["--format", "tif", "--no-preview"]])
def test_formats(folder: Path, options: list[str]) -> None:
    suffix = f".{options[1]}"
    batch(*options)
    kinds = [suffix] if "--no-preview" in options else [suffix, ".jpg"]
    assert set(files()) == {f"{name}{kind}" for name in SETS for kind in kinds}
    assert load(Path(f"out/{SETS[0]}{suffix}")).pixels.shape == (64, 96, 3)
    assert batch(*options).stderr.startswith("hdrmerge: 0 merged, 3 skipped")


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    result = batch("--dry-run")
    assert not Path("out").exists()
    for name in outputs(*SETS):
        assert f"  to  out/{name}\n" in result.stdout
    assert "card/IMG_0100.jpg: " in result.stdout
    batch()
    before = files()
    Path("out/day/IMG_0004-IMG_0006.exr").unlink()
    Path("card/IMG_0008.jpg").write_bytes(b"")
    result = batch("--dry-run")
    assert f"  finished  out/{SETS[0]}.exr\n" in result.stdout
    assert f"  to  out/{SETS[1]}.exr\n" in result.stdout
    assert "would fail: card/IMG_0008.jpg: the file is empty" in result.stdout
    planned = objects(batch("--dry-run", "--json", "-").stdout)
    assert {name: values["status"] for name, values in planned.items()} == dict(
        zip(SETS, ["skip", "merge", "fail"], strict=True)
    )
    assert planned[SETS[0]]["ev"] == [-2.0, 0.0, 2.0]
    assert files().keys() == before.keys() - {"day/IMG_0004-IMG_0006.exr"}
    result = run("batch", "card", "-o", "out", "--dry-run", "--json", "report")
    assert result.exit_code == 2
    assert "writes nothing" in result.stderr


def test_sets_of_one_name_do_not_replace_each_other(folder: Path) -> None:
    shutil.copytree("card/day", "more/day")
    result = run("batch", "card/day", "more/day", "card", "-o", "out", *PLAIN, "--no-preview")
    assert result.exit_code == 0, result.output
    written = result.stdout.splitlines()
    assert len(set(written)) == len(written) == 5
    assert len(files()) == 5


def test_outputs_among_the_photographs_are_no_input(folder: Path) -> None:
    first = run("batch", "card", "-r", "-o", "card/merged", "--format", "tif", *PLAIN)
    assert first.stderr.startswith("hdrmerge: 3 merged, 1 photograph left out")
    again = run("batch", "card", "-r", "-o", "card/merged", "--format", "tif", *PLAIN)
    assert again.stderr.startswith("hdrmerge: 0 merged, 3 skipped, 1 photograph left out")
    assert len(json.loads(run("inspect", "card", "-r", "--json").stdout)["sets"]) == 3
    same = run("batch", "card/day", "-o", "card/day", *PLAIN)
    assert same.stderr == "hdrmerge: 2 merged\n"
    forced = run("batch", "card/day", "-o", "card/day", *PLAIN, "--align", "none", "--force")
    assert forced.stderr == "hdrmerge: 2 merged\n"


def test_a_photograph_in_the_way_is_kept(folder: Path) -> None:
    shutil.copy("card/IMG_0100.jpg", "card/day/IMG_0001-IMG_0003.jpg")
    result = run("batch", "card/day", "-o", "card/day", *PLAIN, "--force")
    assert result.exit_code == 1
    assert f"{SETS[0].rpartition('/')[2]} failed: card/day/IMG_0001-IMG_0003.jpg: " in result.stderr
    assert "replace a photograph" in result.stderr
    assert Path("card/day/IMG_0001-IMG_0003.jpg").read_bytes() == Path("card/IMG_0100.jpg").read_bytes()


def test_verbose_and_quiet(folder: Path) -> None:
    batch("-q")
    shutil.rmtree("out")
    result = batch("-v")
    assert result.stderr.count("reference") >= 3
    assert "IMG_0005.jpg" in result.stderr
    Path("card/day/IMG_0002.jpg").write_bytes(b"")
    shutil.rmtree("out")
    quiet = batch("-q", code=1)
    assert quiet.stdout == ""
    assert [line.split()[2] for line in quiet.stderr.splitlines()] == ["failed:", "merged,"]


def test_a_name_that_is_too_long_fails_alone(folder: Path) -> None:
    for i in (7, 8, 9):
        Path(f"card/IMG_000{i}.jpg").rename(f"card/{'long' * 50}_000{i}.jpg")
    result = batch("--per-set", "3", code=1)
    assert "File name too long); choose a shorter name" in result.stderr
    assert set(files()) == set(outputs(*SETS[:2]))


# --- sets that fail -------------------------------------------------------------------------------


def test_bad_sets_are_named_and_the_others_merged(folder: Path) -> None:
    damaged, unreadable = Path("card/day/IMG_0002.jpg"), Path("card/IMG_0009.jpg")
    damaged.write_bytes(damaged.read_bytes()[:-500])
    unreadable.write_text("Dear diary")
    result = batch("--json", "report.jsonl", code=1)
    assert result.stdout.splitlines() == [f"out/{name}" for name in outputs(SETS[1])]
    assert f"hdrmerge: {SETS[0]} failed: {damaged}: ends early" in result.stderr
    assert f"hdrmerge: {SETS[2]} failed: {unreadable}: not a photograph" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("hdrmerge: 1 merged, 2 failed")
    assert set(files()) == set(outputs(SETS[1]))
    report = objects(Path("report.jsonl").read_text())
    assert {name: values["status"] for name, values in report.items()} == dict(
        zip(SETS, ["failed", "merged", "failed"], strict=True)
    )
    assert report[SETS[0]]["error"] in result.stderr
    assert str(unreadable) in report[SETS[2]]["inputs"]


def test_repaired_sets_are_merged_by_the_same_command(folder: Path, photographs: Path) -> None:
    damaged = Path("card/day/IMG_0002.jpg")
    damaged.write_bytes(b"")
    batch("--json", "report.jsonl", code=1)
    shutil.copy2(photographs / "day/IMG_0002.jpg", damaged)
    assert batch("--json", "report.jsonl").stderr.startswith("hdrmerge: 1 merged, 2 skipped")
    assert {v["status"] for v in objects(Path("report.jsonl").read_text()).values()} == {"merged"}


def test_a_bug_is_reported_and_not_hidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrmerge import batch as module

    real = module.merge_loaded

    def bug(loaded: Any, *rest: Any) -> Any:
        if loaded.shots[0].path.name == "IMG_0004.jpg":
            raise ZeroDivisionError("float division\nby zero")
        return real(loaded, *rest)

    monkeypatch.setattr(module, "merge_loaded", bug)
    result = batch(code=1)
    assert f"{SETS[1]} failed: ZeroDivisionError: float division by zero; a fault" in result.stderr
    assert "Traceback" not in result.stderr
    assert set(files()) == set(outputs(SETS[0], SETS[2]))
    assert "Traceback" in batch("-v", code=1).stderr


def test_other_settings_are_said_and_not_mixed(folder: Path) -> None:
    batch("--no-preview")
    before = files()
    result = batch("--no-preview", "--align", "none", code=1)
    assert result.stderr.count("made with align homography; add --force") == 3
    assert files() == before
    os.utime("card/IMG_0008.jpg")
    result = batch("--no-preview", code=1)
    assert "made before IMG_0008.jpg changed; add --force" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("hdrmerge: 0 merged, 2 skipped, 1 failed")
    assert batch("--no-preview", "--force").stderr.startswith("hdrmerge: 1 merged, 2 skipped")


@pytest.mark.parametrize(
    ("options", "code", "finding"),
    [
        (["batch", "card"], 2, "--output"),
        (["batch", "card", "-o", "out", "-j", "0"], 2, "-j"),
        (["batch", "card", "-o", "out", "--anchor", "here"], 2, "'here' is no number"),
        (["batch", "card", "-o", "out", "--anchor", "1,2"], 2, "one number"),
        (["batch", "card", "-o", "out", "--format", "png"], 2, "--format"),
        (["batch", "card", "-o", "out", "--response", "magic"], 2, "magic"),
        (["batch", "card", "-o", "card/IMG_0100.jpg"], 1, "card/IMG_0100.jpg: a file is in the way"),
        (["batch", "card/IMG_0100.jpg", "-o", "out"], 1, "card/IMG_0100.jpg: 1 photograph, no bracket"),
        (["batch", "gone", "-o", "out"], 1, "gone: "),
        (["batch", "card", "-o", "out", "--per-set", "1"], 1, "--per-set 1"),
        (["batch", "card", "-o", "out", "--json", "notes.txt"], 1, "notes.txt: exists, and is no report"),
        (["batch", "card", "-o", "out", "--json", "card"], 1, "card: is a folder"),
        (
            ["batch", "card", "-o", "out", "--json", "card/IMG_0100.jpg", "--force"],
            1,
            "card/IMG_0100.jpg: the report would replace it",
        ),
        (
            ["batch", "card", "-o", "out", "--json", f"out/{JOURNAL}", "--force"],
            1,
            "the report would replace it",
        ),
    ],
)
def test_wrong_usage(folder: Path, options: list[str], code: int, finding: str) -> None:
    Path("notes.txt").write_text("Dear diary")
    result = run(*options)
    assert (result.exit_code, result.stdout) == (code, "")
    assert finding in " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    assert files() == {}


# --- the report -----------------------------------------------------------------------------------


def test_the_report_has_an_object_a_set(folder: Path) -> None:
    batch("--json", "report.jsonl")
    report = objects(Path("report.jsonl").read_text())
    assert set(report) == set(SETS)
    values = report[SETS[0]]
    assert values["inputs"] == [f"card/day/IMG_000{i}.jpg" for i in (1, 2, 3)]
    assert values["outputs"] == [f"out/{name}" for name in outputs(SETS[0])]
    assert (values["status"], values["exposures"], values["warnings"]) == ("merged", "exif", [])
    assert {"why", "response", "frames", "clipped_share", "seconds"} <= set(values)
    assert {"alignment", "ghost_share"} <= set(values["frames"][0])


def test_the_report_on_stdout(folder: Path) -> None:
    assert {v["status"] for v in objects(batch("--json", "-").stdout).values()} == {"merged"}
    again = objects(batch("--json", "-").stdout)
    assert {v["status"] for v in again.values()} == {"skipped"}
    assert all("clipped_share" in values for values in again.values())


def test_a_report_that_cannot_be_written_stops_no_merge(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hdrmerge.errors import OutputError
    from hdrmerge.journal import ReportFile

    def full(*_: object) -> None:
        raise OutputError("report.jsonl: cannot be written (No space left on device); free some space")

    monkeypatch.setattr(ReportFile, "add", full)
    result = batch("--json", "report.jsonl", code=1)
    assert result.stderr.count("No space left") == 1
    assert set(files()) == set(outputs(*SETS))


# --- one scale, one curve -------------------------------------------------------------------------


def brightness(*options: str) -> dict[str, float]:
    shutil.rmtree("out", ignore_errors=True)
    batch("--no-preview", *options)
    return {name: float(np.median(load(Path(f"out/{name}.exr")).pixels)) for name in SETS}


def test_one_scale_for_all(folder: Path) -> None:
    """The sets differ by a stop in their stated exposures and not in their pixels."""
    own, shared, stated = brightness(), brightness("--anchor", "shared"), brightness("--anchor", "12")
    for a, b in pairwise(SETS):
        assert own[b] / own[a] == pytest.approx(1.0, rel=0.05)
        assert shared[b] / shared[a] == pytest.approx(2.0, rel=0.05)
        assert stated[b] / stated[a] == pytest.approx(2.0, rel=0.05)
    assert shared[SETS[1]] == pytest.approx(own[SETS[1]], rel=1e-3)
    assert (
        "--anchor shared: 1.0 is white at EV " in batch("--no-preview", "--anchor", "shared", code=1).stderr
    )


def test_a_shared_scale_stays_when_sets_are_added(folder: Path) -> None:
    shutil.move("card/day", "day")
    batch("--no-preview", "--anchor", "shared")
    shutil.move("day", "card/day")
    again = batch("--no-preview", "--anchor", "shared")
    assert "hdrmerge: 2 merged, 1 skipped" in again.stderr


def test_sets_of_a_camera_share_a_curve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrmerge.response import typical

    asked: list[int] = []

    def found(brackets: list[list[Path]], options: object) -> object:
        asked.append(len(brackets))
        return typical()

    monkeypatch.setattr("hdrmerge.pipeline.shared_response", found)
    command = ["batch", "card", "-r", "-o", "out"]
    assert run(*command, "--dry-run").exit_code == 0
    assert asked == []
    result = run(*command)
    assert result.stdout.splitlines()[0] == "out/response-hdrmerge-Simulated.json"
    assert asked == [3]
    assert run(*command, "--dry-run").stdout.count("  finished  ") == 6
    assert run(*command).stderr.startswith("hdrmerge: 0 merged, 3 skipped")
    assert asked == [3]
    Path("out/response-hdrmerge-Simulated.json").unlink()
    assert run(*command).stderr.startswith("hdrmerge: 0 merged, 3 skipped")  # it is found again, the same
    assert asked == [3, 3]


def test_a_fault_in_the_search_for_a_curve_stops_no_merge(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("hdrmerge.pipeline.shared_response", bug)
    result = run("batch", "card", "-r", "-o", "out", "--no-preview")
    assert result.exit_code == 1
    assert "no shared response curve: ZeroDivisionError: a bug; a fault of this program" in result.stderr
    assert len(files()) == 3


# --- as a process ---------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-c", "from hdrmerge.cli import app; app()"]
SLOW = """
import time
from hdrmerge import write
real = write._write_exr
def slow(*arguments):
    repairs = real(*arguments)  # into the temporary file
    print("writing", flush=True)
    time.sleep({seconds})
    return repairs
write._write_exr = slow
from hdrmerge.cli import app
app()
"""


def start(seconds: float) -> subprocess.Popen[str]:
    """Start a batch that takes its time over an EXR file, and return when it writes the first."""
    command = [sys.executable, "-c", SLOW.format(seconds=seconds), "batch", "card", "-r", "-o", "out", *PLAIN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_batch_goes_on_and_ends_the_same(folder: Path) -> None:
    batch()
    calm = files()
    shutil.rmtree("out")
    process = start(60)
    process.kill()
    process.communicate()
    left = files()
    assert sum(Path(name).name.startswith(".hdrmerge-") for name in left) == 1
    assert all(left[name] == calm[name] for name in left if name in calm)
    result = batch()
    assert result.stderr.startswith("hdrmerge: 3 merged")
    assert files() == calm


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_an_interrupt_leaves_nothing_half_written(folder: Path) -> None:
    process = start(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "hdrmerge: interrupted, nothing half-written is left\n"
    assert not any(Path(name).name.startswith(".") for name in files())
    merged = len(files()) // 2
    assert merged < 3
    assert batch().stderr.startswith(f"hdrmerge: {3 - merged} merged")
    assert set(files()) == set(outputs(*SETS))


def test_names_come_as_they_are_written_and_nobody_has_to_read_them(folder: Path) -> None:
    command = [*PROGRAM, "batch", "card", "-r", "-o", "out", *PLAIN]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline().endswith(".exr\n")
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(30) == 0, errors
    assert errors.startswith("hdrmerge: 3 merged")
    process.stderr.close()


def test_a_network_that_cannot_run_is_said_once_before_the_work(folder: Path) -> None:
    Path("bad.onnx").write_bytes(b"junk")
    result = batch("--network", "bad.onnx", code=1)
    assert result.stderr.count("bad.onnx") == 1
    result = batch("--network", "trust", "--device", "cuda:99", code=1)
    assert result.stderr.count("cuda:99") == 1
    assert len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()


def test_a_network_that_paints_works_on_every_set(
    folder: Path, painter_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    stages: set[str] = set()
    show = BatchBar.show

    def shown(bar: BatchBar, name: str, stage: str, share: float) -> None:
        stages.add(stage)
        show(bar, name, stage, share)

    monkeypatch.setattr(BatchBar, "show", shown)
    batch("--network", painter_file, "--everywhere", "--json", "report.jsonl")
    report = objects(Path("report.jsonl").read_text())
    assert {values["painted"]["share"] for values in report.values()} == {1.0}
    assert stages == set(PAINTED_PARTS)
    again = batch("--network", painter_file, code=1)
    assert again.stderr.count("made with everywhere on; add --force") == 3


def test_only_a_network_that_paints_paints_everywhere(folder: Path) -> None:
    result = batch("--everywhere", code=1)
    assert "--everywhere" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not Path("out").exists()
