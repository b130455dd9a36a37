"""evaluate as scripts see it: the table, the figures, what fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from made_sets import bracket, write_plain, write_scenes
from typer.testing import CliRunner, Result

from hdrmerge import cli_evaluate, dataset
from hdrmerge.console import Group

app = typer.Typer(cls=Group, rich_markup_mode="rich", pretty_exceptions_enable=False)
app.callback()(lambda: None)
app.command()(cli_evaluate.evaluate)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, ramp: np.ndarray, elsewhere: np.ndarray) -> Path:
    """Two plain sets of which one moves, and one whose truth is missing its frames."""
    folder = tmp_path_factory.mktemp("sets")
    write_plain(bracket(ramp, elsewhere), folder / "moves")
    write_plain(bracket(ramp), folder / "rests")
    for frame in write_plain(bracket(ramp), folder / "spoilt").glob("*.jpg"):
        frame.unlink()
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["evaluate", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return result


def test_the_table_and_a_file_of_figures(sets: Path, tmp_path: Path) -> None:
    report, pictures = tmp_path / "figures.json", tmp_path / "pictures"
    result = run("--dataset", sets, "--count", 2, "--json", report, "--save", pictures)
    assert result.stderr == ""
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [" ".join(line[:2]) for line in lines[:3]] == ["PSNR-mu, dB", "reference alone", "plain merge"]
    assert lines[3][0] == "classical"
    assert "2 cases, 1 with motion, 1 without" in result.stdout
    figures = json.loads(report.read_text())
    assert list(figures["rows"]) == ["reference alone", "plain merge", "classical"]
    shown = f"{figures['rows']['classical']['psnr_mu']['whole']:.2f}"
    assert lines[3][1] == shown
    assert [case["case"] for case in figures["cases"]] == ["moves", "rests"]
    assert len(list(pictures.iterdir())) == 4
    for taken in (["--json", report], ["--save", pictures]):
        assert "--force" in run("--dataset", sets, "--count", 1, *taken, code=1).stderr
    run("--dataset", sets, "--count", 1, "--json", report, "--save", pictures, "--force")


def test_a_case_that_fails_is_named_and_counted(sets: Path) -> None:
    result = run("--dataset", sets, "--json", "-", code=1)
    figures = json.loads(result.stdout)  # and nothing else on stdout
    assert list(figures["failed"]) == ["spoilt"]
    first, last = result.stderr.splitlines()
    assert first.startswith("hdrmerge: spoilt failed: ")
    assert last == "hdrmerge: 1 of 3 cases failed, left out of all rows"


def test_a_network_that_paints_and_a_number_of_frames(
    sets: Path, painter_file: Path, network_file: Path
) -> None:
    pytest.importorskip("onnxruntime")
    some = ["--dataset", sets, "--count", 1, "--device", "cpu", "--json", "-"]
    figures = json.loads(run(*some, "--frames", 3, "--network", painter_file, "--everywhere").stdout)
    assert list(figures["rows"])[3:] == [str(painter_file), f"{painter_file} everywhere"]
    assert "no bracket of 4 frames" in run(*some, "--frames", 4, code=1).stderr
    for networks in ([], ["--network", network_file]):
        assert "--everywhere" in run(*some, *networks, "--everywhere", code=2).stderr


def test_scenes_become_brackets(
    tmp_path: Path, ramp: np.ndarray, elsewhere: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "SIZE", (96, 144))
    monkeypatch.setattr(dataset, "VIEW", (192, 288))
    folder = write_scenes(tmp_path, ramp[:256, :512], elsewhere[:256, :512])
    figures = json.loads(run("--dataset", folder, "--count", 2, "--seed", 3, "--json", "-").stdout)
    assert (figures["layout"], figures["seed"], len(figures["cases"])) == ("scenes", 3, 2)
    assert {"format", "frames", "steps_ev", "iso", "movers"} <= set(figures["cases"][0])


def test_what_cannot_be_judged(sets: Path, tmp_path: Path) -> None:
    assert "neither HDR scenes" in run("--dataset", tmp_path, code=1).stderr
    assert "no case could be judged" in run("--dataset", sets / "spoilt", code=1).stderr
    result = run("--dataset", sets, "--network", tmp_path / "absent.onnx", code=1)
    assert "absent.onnx" in result.stderr  # before any case
    assert len(result.stderr.splitlines()) == 1


def test_help_says_what_stands_in_for_hdr_vdp() -> None:
    shown = " ".join(run("--help").stdout.split())
    assert "HDR-VDP-2 is not computed: PU21 stands in" in shown
