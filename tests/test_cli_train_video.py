"""hdrmerge train video: from a folder of scenes to the networks of video, a stage at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hdrmerge import cli, weights
from hdrmerge.cli_train_video import Stage, VideoRun, video

COARSE: dict[str, Any] = {"flow": [4, 4, 4], "width": 4, "levels": 2}
REFINE: dict[str, Any] = {
    "width": 4,
    "groups": 2,
    "blocks": [1, 1],
    "residual": True,
    "align_reference": False,
}
QUICK = "--scenes scenes --number 2 --held-out 2 --workers 1 --batch 1 --size 32 --device cpu".split()


def run(stage: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["train", "video", "--stage", stage, *arguments])


def done(stage: str, *arguments: str) -> Result:
    result = run(stage, *QUICK, *arguments)
    assert result.exit_code == 0, result.output
    return result


def said(result: Result) -> str:
    return " ".join(result.output.replace("│", " ").split())


def asked(**options: Any) -> VideoRun:
    """Return what options ask for, beside the defaults of the command."""
    defaults = {name: one.default for name, one in signature(video).parameters.items()}
    stated = {"stage": Stage.coarse, "scenes": Path("scenes"), "output": Path("mine.onnx")}
    return VideoRun.of({**defaults, **stated, **options})


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage, arguments, words",
    [
        ("rough", "", "'rough' is not one of"),
        ("coarse", "--exposures 4", "--exposures"),
        ("coarse", "--coarse a.onnx", "is for --stage refine and joint"),
        ("coarse", "--perceptual 0.1", "is for --stage refine and joint"),
        ("coarse", "--size 100", "100 is no multiple of 16"),
        ("coarse", "--config wide", "no JSON object"),
        ("coarse", "--paper --config {}", "as --config does"),
        ("coarse", '--config {"exposures":4}', "exposures are 2 or 3"),
        ("coarse", "--budget soon", "no time"),
        ("coarse", "--number 0", "--number"),
        ("refine", "--coarse a.onnx --vgg vgg.onnx", "state --perceptual"),
    ],
)
def test_wrong_usage_is_told(stage: str, arguments: str, words: str) -> None:
    result = run(stage, "--scenes", "scenes", "-o", "mine.onnx", *arguments.split())
    assert result.exit_code == 2
    assert words in said(result)


@pytest.mark.parametrize(
    "stage, arguments, words",
    [
        ("refine", "", "needs a coarse network; name its file with --coarse (hdrmerge train video --stage"),
        ("joint", "", "needs a coarse network"),
        ("joint", "--coarse a.onnx", "name its file with --init (hdrmerge train video --stage refine makes"),
        ("refine", "--coarse a.onnx", "a.onnx: neither a network's name nor a file"),
        ("coarse", "--steps 0", "mine.safetensors: no checkpoint there"),
        ("coarse", "", "no HDR scenes"),
    ],
)
def test_what_is_missing_is_told_in_one_line(
    stage: str, arguments: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="training needs the extra train")
    monkeypatch.chdir(tmp_path)
    result = run(stage, "--scenes", "scenes", "-o", "mine.onnx", "--device", "cpu", *arguments.split())
    assert result.exit_code == 1
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_patch_is_no_larger_than_a_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="training needs the extra train")
    monkeypatch.chdir(tmp_path)
    result = run("coarse", "--scenes", "scenes", "-o", "mine.onnx", "--size", "304")
    assert result.exit_code == 2
    assert "clips are of 288 px" in said(result)


# --- the three stages -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """Make small clips."""
    pytest.importorskip("torch", reason="training needs the extra train")
    pytest.importorskip("onnx")
    from hdrmerge.training import clips

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "make_clips", partial(clips.make_clips, size=(48, 64)))
        yield


@pytest.fixture(scope="module")
def trained(small: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Result]]:
    """A folder in which all stages were run for two steps, and what they said."""
    from made_examples import write_scenes

    home = tmp_path_factory.mktemp("video")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_scenes(Path("scenes"), "a", "b", "c")
        given = ["--coarse", "coarse.onnx"]
        painted = ["--config", json.dumps(REFINE), "--perceptual", "0.1"]
        two = ["--steps", "2", "--data", "drawn by rule"]
        results = {
            "coarse": done("coarse", "-o", "coarse.onnx", "--config", json.dumps(COARSE), *two),
            "refine": done("refine", "-o", "refine.onnx", *given, *painted, *two),
            "joint": done("joint", "-o", "joint.onnx", *given, "--init", "refine.onnx", *two),
        }
    return home, results


@pytest.fixture
def home(
    trained: tuple[Path, dict[str, Result]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Result]:
    """Go to a copy of that folder; return what the stages said."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return trained[1]


def card(name: str) -> dict[str, Any]:
    return weights.read_card(Path(name))


def state(name: str) -> dict[str, np.ndarray]:
    return weights.load_state(Path(name))


def changed(one: str, other: str) -> list[str]:
    before, after = state(one), state(other)
    assert before.keys() == after.keys()
    return [name for name, values in before.items() if not np.array_equal(values, after[name])]


def test_clips_are_made_once_and_shared(home: dict[str, Result]) -> None:
    lines = home["coarse"].stderr.replace(os.sep, "/")
    for line in ("clips/train: 2 clips", "set aside to take scores on: a", "clips/held_out: 2 clips"):
        assert line in lines
    assert "clips" not in home["refine"].stderr
    assert "aside" not in home["joint"].stderr
    for folder in ("train", "held_out"):
        names = sorted(path.name for path in Path("clips", folder).iterdir())
        assert names == ["000000.npy", "000001.npy"]
    first, aside = (np.load(Path("clips", folder, "000000.npy")) for folder in ("train", "held_out"))
    assert first.shape == aside.shape == (7, 3, 48, 64)
    assert not np.array_equal(first, aside)


def test_each_stage_writes_its_network(home: dict[str, Result]) -> None:
    assert home["coarse"].stdout == "coarse.onnx\n"
    assert home["refine"].stdout == "refine.onnx\n"
    assert home["joint"].stdout == "joint.onnx\njoint-coarse.onnx\n"
    for name, architecture, config in (
        ("coarse.onnx", "coarse", COARSE),
        ("refine.onnx", "refine", REFINE),
        ("joint.onnx", "refine", REFINE),
        ("joint-coarse.onnx", "coarse", COARSE),
    ):
        found = card(name)
        assert (found["architecture"], found["config"]) == (architecture, {**config, "exposures": 2})
        assert found["steps"] == 2
        assert found["data"].startswith("drawn by rule; 2 clips of 7 frames of 2 HDR scenes")
        own = {"psnr_mu", "psnr_mu_low", "psnr_mu_high", "over_flow"}
        assert own <= set(found["metrics"])
        assert ("over_coarse" in found["metrics"]) == (architecture == "refine")
    for name in ("coarse", "refine", "joint"):
        assert Path(f"{name}.png").stat().st_size > 1000


def test_recipes_say_what_was_asked_for(home: dict[str, Result]) -> None:
    assert "rate 0.0001, " in card("coarse.onnx")["recipe"]
    assert "batches of 1 patches of 32 px, 2 exposures" in card("coarse.onnx")["recipe"]
    for words in ("+ 0.1 edges and SSIM at four scales", "on the coarse network coarse.onnx as it is"):
        assert words in card("refine.onnx")["recipe"]
    for name in ("joint.onnx", "joint-coarse.onnx"):
        assert "rate 2e-05, " in card(name)["recipe"]
        assert "L1 of three coarse frames, with the coarse network coarse.onnx" in card(name)["recipe"]


def test_both_go_on_from_what_is_given(home: dict[str, Result]) -> None:
    for start, name in (("refine.onnx", "joint.onnx"), ("coarse.onnx", "joint-coarse.onnx")):
        before, after = state(start), state(name)
        assert changed(start, name)
        assert max(float(np.abs(before[key] - after[key]).max()) for key in before) < 0.01


def test_the_same_command_goes_on(home: dict[str, Result]) -> None:
    options = ["-o", "coarse.onnx", "--steps", "3"]
    assert "exists" in run("coarse", *QUICK, *options).stderr
    Path("scenes").rename("elsewhere")  # clips are there
    result = done("coarse", *options, "--force", "-q")
    assert not result.output
    assert (card("coarse.onnx")["steps"], card("coarse.onnx")["config"]["width"]) == (3, 4)
    assert "2 clips of 7 frames, by" in card("coarse.onnx")["data"]


def test_a_clip_that_is_missing_is_made_again(home: dict[str, Result]) -> None:
    path = Path("clips", "train", "000001.npy")
    before = path.read_bytes()
    path.unlink()
    result = done("coarse", "-o", "coarse.onnx", "--steps", "2", "--force")
    assert "train: 2 clips" in result.stderr
    assert "held_out" not in result.stderr
    assert path.read_bytes() == before


def test_joint_goes_on_without_the_network_it_began_with(home: dict[str, Result]) -> None:
    Path("refine.onnx").unlink()
    options = ["-o", "joint.onnx", "--coarse", "coarse.onnx"]
    done("joint", *options, "--steps", "3", "--force")
    assert card("joint.onnx")["steps"] == card("joint-coarse.onnx")["steps"] == 3

    # What the checkpoint holds is written, and scores are taken with the coarse network it holds.
    options = ["-o", "again.onnx", "--coarse", "coarse.onnx", "--checkpoint", "joint.safetensors"]
    done("joint", *options, "--steps", "0")
    assert not changed("joint.onnx", "again.onnx")
    assert not changed("joint-coarse.onnx", "again-coarse.onnx")
    assert card("again.onnx")["metrics"] == card("joint.onnx")["metrics"]
    assert card("again-coarse.onnx")["metrics"] == card("joint-coarse.onnx")["metrics"]


def test_networks_are_not_written_over_what_they_come_from(home: dict[str, Result]) -> None:
    shutil.copy("coarse.onnx", "mine-coarse.onnx")
    options = ["--coarse", "mine-coarse.onnx", "--init", "refine.onnx", "--force"]
    result = run("joint", *QUICK, "-o", "mine.onnx", *options)
    assert result.exit_code == 1
    assert "mine-coarse.onnx: the output would replace an input" in result.stderr


def test_networks_of_another_kind_are_told(home: dict[str, Result]) -> None:
    for stage, options, words in (
        (
            "coarse",
            "--init refine.onnx",
            "refine.onnx: holds a 'refine', and --stage coarse trains a 'coarse'",
        ),
        ("refine", "--checkpoint coarse.safetensors --coarse coarse.onnx", "name another --checkpoint"),
        ("refine", "--coarse refine.onnx", "--coarse: holds 'refine' for 2 exposures"),
        ("refine", "--coarse coarse.onnx --exposures 3", "differ: --exposures 3, coarse.onnx 2;"),
        ("coarse", "--init coarse.onnx --exposures 3", "differ: --exposures 3, coarse.onnx 2;"),
    ):
        result = run(stage, *QUICK, "-o", "mine.onnx", *options.split())
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1


def test_three_exposures_are_a_number(home: dict[str, Result]) -> None:
    config = ["--config", json.dumps(COARSE)]
    done("coarse", "-o", "three.onnx", "--exposures", "3", "--held-out", "3", "--steps", "1", *config)
    found = card("three.onnx")
    assert found["config"]["exposures"] == 3
    assert {"psnr_mu_low", "psnr_mu_middle", "psnr_mu_high"} <= set(found["metrics"])
    assert "exposures 1/4/16 in turn" in found["data"]
    assert len(list(Path("clips", "held_out").iterdir())) == 3
    run = asked(stage=Stage.refine, coarse=Path("three.onnx"))
    assert run.configuration()["exposures"] == 3  # that of the coarse network


def test_the_network_of_the_paper_is_asked_for_by_name(home: dict[str, Result]) -> None:
    from hdrmerge.training.video import NARROW

    assert asked(exposures=3).configuration() == {**NARROW["coarse"], "exposures": 3}
    assert NARROW["coarse"]["followed"]  # the paper's is not
    assert asked(exposures=3, paper=True).configuration() == {"exposures": 3}
    assert asked(init=Path("coarse.onnx")).configuration() == {**COARSE, "exposures": 2}
    assert asked(stage=Stage.refine).configuration() == NARROW["refine"]


def test_scores_meanwhile_are_of_all_exposures(home: dict[str, Result]) -> None:
    """Of many samples every second is taken: in their order those would all be of one exposure."""
    from hdrmerge.training.video import CoarseLesson, CoarseRecipe

    lesson = CoarseLesson(CoarseRecipe(config={**COARSE, "exposures": 2}))
    samples = asked(held_out=80)._judged(lesson)
    middles = [sample.exposures[1] > 1 for sample in samples]
    assert sum(middles) == 40
    assert 10 < sum(middles[::2]) < 30
