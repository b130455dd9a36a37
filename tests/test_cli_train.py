"""hdrmerge train: from a folder of scenes to a weights file, in one command that may be repeated."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from hdrmerge import cli_train, labelrun, trainingrun, weights
from hdrmerge.errors import NetworkError
from hdrmerge.simulate import simulate_bracket
from hdrmerge.simulate_files import write_pngs
from hdrmerge.trainingbar import TrainingBar
from hdrmerge.trainingrun import config_of, seconds_of


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("90m", 5400),
        ("2h", 7200),
        ("45s", 45),
        ("1h30m", 5400),
        (" 1H30M5S ", 5405),
        ("1.5h", 5400),
        ("0h2m", 120),
    ],
)
def test_a_budget_is_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "m", "0s", "-5m", "30m1h", "1h30", "1d", "1,5h", "h2", "90 m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="90m, 2h, 45s or 1h30m"):
        seconds_of(text)


def test_a_configuration_is_read() -> None:
    assert config_of(None) is None
    assert config_of('{"pair": [4, 4]}') == {"pair": [4, 4]}
    for text in ("", "[4]", "{pair: 4}"):
        with pytest.raises(typer.BadParameter, match="no JSON object"):
            config_of(text)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli_train.app, ["merge", *arguments])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("-o", "a.safetensors"), "ends in .onnx"),
        (("-o", "a.onnx", "--budget", "soon"), "no time"),
        (("-o", "a.onnx", "--config", "wide"), "no JSON object"),
        (("-o", "a.onnx", "--device", "gpu"), "none of auto, cpu"),
        (("-o", "a.onnx", "--plot", "a.jpg"), "is a .png"),
        (("-o", "a.onnx", "--brackets", "0"), "--brackets"),
    ],
)
def test_wrong_usage_is_told_before_the_work(arguments: tuple[str, ...], said: str) -> None:
    result = run("--scenes", "scenes", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainingrun, "NEEDED", ("json", "no_such_package"))
    result = run("--scenes", "scenes", "-o", "a.onnx")
    assert result.exit_code == 1
    assert "needs no_such_package; pip install" in result.stderr


# --- with torch -----------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in a folder of scenes, with small frames and patches; return the arguments of a short run."""
    pytest.importorskip("torch", reason="training needs the extra train")
    pytest.importorskip("onnx")
    from made_examples import SIZE, SQUARE, TINY, write_scenes

    from hdrmerge.training import make, trust

    monkeypatch.chdir(tmp_path)
    write_scenes(Path("scenes"), "a", "b")
    monkeypatch.setattr(make, "Order", partial(make.Order, size=SIZE, square=SQUARE))
    monkeypatch.setattr(trust, "TrustRecipe", partial(trust.TrustRecipe, batch=2, size=32))
    options: dict[str, Any] = {
        "scenes": "scenes",
        "output": "mine.onnx",
        "brackets": 2,
        "held-out": 1,
        "workers": 1,
        "config": json.dumps(TINY),
        "device": "cpu",
        "data": "drawn by rule",
    }
    return [part for name, value in options.items() for part in (f"--{name}", str(value))]


def state() -> Any:
    from made_examples import TINY

    from hdrmerge.training.train import load_mean
    from hdrmerge.training.trust import TrustRecipe

    return load_mean(Path("mine.safetensors"), TrustRecipe(config=TINY))[1]


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def test_from_scenes_to_a_weights_file(small: list[str]) -> None:
    result = done(*small, "--steps", "4")
    assert result.stdout == "mine.onnx\n"
    for line in (
        "set aside to take scores on: a",
        "examples/train: 2 brackets",
        "held_out: 1 bracket",
        "4 steps",
    ):
        assert line in result.stderr.replace(os.sep, "/")
    assert sorted(path.name for path in Path().iterdir()) == [
        "examples",
        "mine.onnx",
        "mine.png",
        "mine.safetensors",
        "scenes",
    ]
    card = weights.read_card(Path("mine.onnx"))
    assert card["steps"] == 4
    assert card["data"].startswith("drawn by rule; 1 HDR scene; 2 brackets simulated")
    assert {"psnr_mu", "over_reference", "over_classical"} <= set(card["metrics"])

    # Nothing is replaced unasked; the same command goes on, and needs the scenes no more.
    assert run(*small, "--steps", "6").exit_code == 1
    os.rename("scenes", "elsewhere")  # noqa: PTH104
    result = done(*small, "--steps", "6", "--force", "-q")
    assert not result.output
    assert state().step == 6

    # What the checkpoint holds can be written without training, and be the start of another run.
    before = Path("mine.safetensors").read_bytes()
    options = ["-o", "again.onnx", "--checkpoint", "mine.safetensors", "--examples", "elsewhere"]
    done(*small, "--steps", "0", "--budget", "9h", *options)
    assert Path("mine.safetensors").read_bytes() == before
    again = weights.read_card(Path("again.onnx"))
    assert again["steps"] == 6
    assert (again["data"], again["recipe"]) == (card["data"], card["recipe"])  # whatever is asked now
    assert again["metrics"] == {}  # no examples held out there
    plain = [part for part in small if part not in ("--config", small[small.index("--config") + 1])]
    options = ["-o", "next.onnx", "--init", "again.onnx", "--steps", "1", "--examples", "examples"]
    done(*plain, *options)
    assert weights.read_card(Path("next.onnx"))["config"] == card["config"]


def test_the_end_of_the_budget_is_the_end(small: list[str]) -> None:
    done(*small, "--budget", "0.4s")
    assert state().elapsed >= 0.4
    assert state().curve[-1][2] < 1e-3
    steps = state().step
    done(*small, "--budget", "0.4s", "--force")
    assert state().step == steps


def test_there_is_nothing_to_write_without_a_checkpoint(small: list[str]) -> None:
    result = run(*small, "--steps", "0")
    assert result.exit_code == 1
    assert "mine.safetensors: no checkpoint there" in result.stderr


def test_the_wrong_configuration_is_told(small: list[str]) -> None:
    done(*small, "--steps", "1")
    result = run(*small, "--config", '{"pair": [8]}', "--steps", "2", "--force")
    assert result.exit_code == 1
    assert "mine.safetensors: holds a network of another architecture or other widths" in result.stderr


def test_an_unknown_network_is_told(small: list[str]) -> None:
    result = run(*small, "--network", "nonesuch")
    assert result.exit_code == 1
    assert "'nonesuch' is unknown" in result.stderr


def hdrgan(*arguments: str) -> Result:
    return CliRunner().invoke(cli_train.app, ["hdrgan", *arguments])


def test_hdrgan_shares_the_examples_and_goes_on(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrmerge.training import hdrgan as lesson
    from hdrmerge.training import make

    monkeypatch.setattr(make, "Order", partial(make.Order, square=96))
    monkeypatch.setattr(lesson, "HdrGanRecipe", partial(lesson.HdrGanRecipe, size=80))
    plain = [part for part in small if part not in ("--config", small[small.index("--config") + 1])]
    result = hdrgan(*plain, "--width", "4", "--paper", "--batch", "1", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine.onnx\n"
    card = weights.read_card(Path("mine.onnx"))
    assert (card["architecture"], card["config"]) == ("hdrgan", {"width": 4, "residual": False})
    assert card["steps"] == 2
    assert "no discriminator" in card["recipe"]
    assert {"psnr_mu", "over_classical", "over_out1", "over_everywhere"} <= set(card["metrics"])

    # Width and form are the checkpoint's; a discriminator may join in; the file may be a start.
    options = ["--adversarial", "1", "--gan-weight", "0.01", "--batch", "1", "--steps", "3"]
    result = hdrgan(*plain, *options, "--force")
    assert result.exit_code == 0, result.output
    card = weights.read_card(Path("mine.onnx"))
    assert card["config"] == {"width": 4, "residual": False}
    assert "discriminator in the last 100% of it, weight 0.01" in card["recipe"]
    options = ["-o", "next.onnx", "--init", "mine.onnx", "--spectral", "--batch", "1", "--steps", "1"]
    result = hdrgan(*plain, *options)
    assert result.exit_code == 0, result.output
    assert weights.read_card(Path("next.onnx"))["config"] == card["config"]
    result = run(*plain, "-o", "wrong.onnx", "--init", "mine.onnx")
    assert result.exit_code == 1
    assert "'hdrgan' is learned in another way" in result.stderr


# --- from brackets without a truth ----------------------------------------------------------------


def unaided(*arguments: str) -> Result:
    return CliRunner().invoke(cli_train.app, ["self-supervised", *arguments])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--width", "6"), "no multiple of 4"),
        (("--width", "8", "--network", "resnet"), "no multiple of 16"),
        (("--width", "16", "--network", "trust"), "trust has no width"),
        (("--subsets", "ED,XD"), "no list of ED, EDM, MD, MDM"),
        (("--network", "hdrgan"), "'hdrgan' is not one of"),
        (("--quantile", "0.2"), "--quantile"),
    ],
)
def test_wrong_usage_of_labels_is_told(arguments: tuple[str, ...], said: str) -> None:
    result = unaided("photos", "-o", "a.onnx", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ramp: np.ndarray, elsewhere: np.ndarray) -> Path:
    """A folder of four brackets, one of small frames, and two frames exposed alike."""
    pytest.importorskip("torch", reason="training needs the extra train")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    size = (192, 256)
    for name, scene, other in (("a", ramp, elsewhere), ("b", elsewhere, ramp)):
        for number in (1, 2):
            sim = simulate_bracket(scene, rng, size=size, movers=[other], saturated_share=0.1 * number)
            write_pngs(sim, Path("photos", f"{name}{number}"))
    write_pngs(simulate_bracket(ramp, rng, size=(96, 128)), Path("photos", "small"))
    write_pngs(simulate_bracket(ramp, rng, size=size, frames=2, step_ev=0.4), Path("photos", "alike"))
    return Path("photos")


def test_from_brackets_to_a_weights_file(photos: Path) -> None:
    options = ["-r", "-o", "mine.onnx", "--width", "4", "--batch", "2", "--device", "cpu", "--rate", "1e-3"]
    Path("photos", "a1", "broken.jpg").write_bytes(b"no photograph")
    result = unaided(str(photos), *options, "--steps", "3")
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine.onnx\n"
    said = " ".join(result.stderr.split())
    for words in (
        "patches light added by",
        "as captured:",
        "nothing to learn from: its frames, at 128 x 96 px, are smaller than a patch of 128 px",
        "2 photographs are in no bracket; hdrmerge inspect says why",
        "broken.jpg: ",
        "set aside to take scores on: ",  # how many of so few, the hash of their paths decides
        "3 steps",
    ):
        assert words in said
    sheets = {path.name for path in Path("labels").glob("*.png")}
    assert {"ED.png", "EDM.png", "MD.png", "MDM.png"} == sheets
    card = weights.read_card(Path("mine.onnx"))
    assert card["architecture"] == "unet"
    assert card["config"] == {"width": 4, "residual": True}
    assert " without a truth: " in card["data"]
    assert card["metrics"]["psnr_mu"] > 10

    again = unaided(str(photos), *options, "--steps", "4", "--force")  # labels are there, the run goes on
    assert again.exit_code == 0, again.output
    assert weights.read_card(Path("mine.onnx"))["steps"] == 4
    other = unaided(str(photos), *options[:-2], "--steps", "1", "--force", "--agreement", "40")
    assert other.exit_code == 1
    assert "differ in 'rules'" in other.stderr


def test_the_default_network_goes_on_from_what_it_is(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelrun, "RETAKEN_ASIDE", 1)
    options = ["--network", "trust", "--brackets", "1", "--workers", "1", "--steps", "1", "--batch", "2"]
    result = unaided(str(photos), "-r", "-o", "mine.onnx", "--device", "cpu", *options)
    assert result.exit_code == 0, result.output
    released, mine = weights.find("trust"), Path("mine.onnx")
    card = weights.read_card(mine)
    assert card["architecture"] == "trust"
    assert card["config"] == weights.read_card(released)["config"]
    assert "50% of the way back" in card["recipe"]
    assert "photographed again from them" in card["data"]
    before, after = weights.load_state(released), weights.load_state(mine)
    changed = [name for name, values in before.items() if not np.array_equal(values, after[name])]
    assert changed
    assert max(float(np.abs(before[name] - after[name]).max()) for name in changed) < 0.01


def test_far_motion_is_for_frames_as_captured() -> None:
    assert labelrun.subsets_of(None, as_captured=False) == ("ED", "MD")
    assert labelrun.subsets_of(None, as_captured=True) == ("ED", "EDM", "MD", "MDM")
    assert labelrun.subsets_of("mdm, ED", as_captured=False) == ("ED", "MDM")


def test_weights_are_moved_half_of_the_way_back() -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Linear(2, 1).requires_grad_(False)
    network.weight.fill_(3.0)
    network.bias.fill_(1.0)
    labelrun.back_to({"weight": torch.tensor([[1.0, 5.0]]), "bias": torch.tensor([2.0])}, network)
    assert network.weight.tolist() == [[2.0, 4.0]]
    assert network.bias.tolist() == [1.5]


def test_a_folder_that_teaches_nothing_says_what_to_shoot(photos: Path) -> None:
    Path("empty").mkdir()
    for folder in (str(photos / "alike"), str(photos / "small"), "empty"):
        result = unaided(folder, "-o", "mine.onnx", "--width", "4")
        assert result.exit_code == 1
        assert "shoot three frames or more" in result.stderr
    assert not Path("mine.onnx").exists()


def test_a_photograph_is_learned_to_be_shown_at_other_exposures(small: list[str]) -> None:
    def expand(*arguments: str) -> Result:
        shared = ["--scenes", "scenes", "--device", "cpu", "--held-out", "1", "--batch", "2"]
        return CliRunner().invoke(cli_train.app, ["expand", *shared, *arguments])

    result = expand("-o", "mine.onnx", "--width", "2", "--deepest", "2", "--steps", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout == "mine.onnx\n"
    card = weights.read_card(Path("mine.onnx"))
    assert card["architecture"] == "virtual_bracket"
    assert card["config"] == {"width": 2, "deepest": 2, "residual": True, "activation": "relu"}
    assert {"psnr", "psnr_ev-2", "over_arithmetic_ev+2"} <= set(card["metrics"])
    assert "statistics that stay from 75% on" in json.dumps(card)
    options = ["--steps", "1", "--longer", "0.5", "--settled", "0"]
    again = expand("-o", "next.onnx", "--init", "mine.onnx", *options)
    assert again.exit_code == 0, again.output
    after = weights.read_card(Path("next.onnx"))
    assert after["config"] == card["config"]
    assert "the longer one learned of 50%" in json.dumps(after)
    assert "statistics that stay from 0% on" in json.dumps(after)
    wrong = expand("-o", "other.onnx", "--vgg", "missing.safetensors", "--steps", "1")
    assert wrong.exit_code == 1
    assert "missing.safetensors" in wrong.stderr


def test_a_device_that_is_not_there_is_told() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert trainingrun._resolved("auto") == trainingrun._resolved("cpu") == "cpu"
    with pytest.raises(NetworkError, match="cuda:1: torch finds no such device"):
        trainingrun._resolved("cuda:1")


class FakeBar:
    """What rich shows, as text."""

    def __init__(self) -> None:
        self.rows: list[str] = []

    def add_task(self, description: str, total: float) -> int:
        return 0

    def update(self, row: int, completed: float, description: str) -> None:
        self.rows.append(description)


def test_the_bar_tells_where_the_run_is(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    from made_examples import TINY

    from hdrmerge.training.train import State
    from hdrmerge.training.trust import TrustLesson, TrustRecipe
    from hdrmerge.training.validate import REGIONS

    shown = FakeBar()
    lesson = TrustLesson(TrustRecipe(config=TINY, budget=7200, batch=16, rate=1e-3))
    bar = TrainingBar(lesson, True, shown)
    bar.step(State(100, 1800.0), -20.0)
    bar.step(State(120, 1810.0), -30.0)
    assert shown.rows[-1] == "step 120  loss -20.2000  rate 8.7e-04  32 patches/s  1:29:50 left"
    scores = {name: dict.fromkeys(REGIONS, 33.0) for name in lesson.rows}
    scores["trust"] = scores["trust"] | {"whole": 34.5, "moving_saturated": float("nan")}
    bar.scored(State(120, 1810.0), scores)
    bar.step(State(121, 1810.5), -30.0)
    assert shown.rows[-1].endswith("left  held out 34.50 dB")
    assert capsys.readouterr().err == (
        "hdrmerge: step 120, 30 min, dB (over classical): whole 34.50 (+1.50), moving 33.00 (+0.00), "
        "static 33.00 (+0.00)\n"
    )
