"""From a trained network to its weights file: the card, and how far the network sees."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")
pytest.importorskip("onnx")

from made_examples import TINY  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from hdrmerge import __version__, weights  # noqa: E402
from hdrmerge.infer import open_engine, run_tiled  # noqa: E402
from hdrmerge.networks import build  # noqa: E402
from hdrmerge.training.hdrgan import HdrGanLesson, HdrGanRecipe  # noqa: E402
from hdrmerge.training.release import halo_of, metrics_of, reach_of, write_network  # noqa: E402
from hdrmerge.training.train import State  # noqa: E402
from hdrmerge.training.trust import TrustLesson, TrustRecipe  # noqa: E402
from hdrmerge.training.validate import REGIONS  # noqa: E402

RECIPE = TrustRecipe(config=TINY, budget=3600)
PLANES = (7, 10)


def example_inputs(frames: int, size: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "reference": torch.rand(1, 7, size, size, generator=generator),
        "frames": torch.rand(frames, 10, size, size, generator=generator),
    }


def random_network() -> nn.Module:
    """Return a network every part of which matters."""
    torch.manual_seed(0)
    network = build("trust", TINY)
    with torch.no_grad():
        for values in network.parameters():
            if values.dim() == 4:
                nn.init.kaiming_normal_(values)
    return network.requires_grad_(False)


class Known(nn.Module):
    """A network whose reach is known: convolutions at full and at a quarter of the resolution."""

    def __init__(self, kernel: int, deep: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(17, 2, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(2, 2, deep, padding=deep // 2)

    def forward(self, reference: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.first(torch.cat([reference, frames], 1))
        small = self.second(F.avg_pool2d(x, 4))
        return x, F.interpolate(small, scale_factor=4.0, mode="nearest")


@pytest.mark.parametrize(
    "kernel, deep, expected",
    [(1, 1, 0), (3, 1, 1), (7, 1, 3), (1, 3, 4), (3, 3, 5), (11, 3, 9), (1, 5, 8), (5, 41, 82)],
)
def test_the_reach_is_measured(kernel: int, deep: int, expected: int) -> None:
    """The last needs a longer strip than the first."""
    assert reach_of(Known(kernel, deep), 4, PLANES) == expected


def test_measuring_leaves_the_network_alone() -> None:
    network = random_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert reach_of(network, 32, PLANES) > 0
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_what_a_network_states_is_believed() -> None:
    network = Known(3, 1)
    assert halo_of(network, 32, PLANES) == 32
    network.halo = 96
    assert halo_of(network, 32, PLANES) == 96


@pytest.mark.parametrize("scales", [2, 3, 4])
def test_trust_states_no_less_than_its_reach(scales: int) -> None:
    network = build("trust", {"pair": [4] * scales, "fill": [4] * scales, "context": 4})
    reach = reach_of(network, 32, PLANES)
    assert reach <= halo_of(network, 32, PLANES) < reach + 32


def test_metrics_say_how_much_is_won() -> None:
    scores = {
        "reference": dict.fromkeys(REGIONS, 30.0),
        "classical": dict.fromkeys(REGIONS, 32.0) | {"static": math.nan},
        "blend": dict.fromkeys(REGIONS, 33.0),
        "trust": {"whole": 34.5, "moving": 31.0, "moving_saturated": math.nan, "static": 40.0},
    }
    assert metrics_of(scores, "trust", ("reference", "classical")) == {
        "psnr_mu": 34.5,
        "over_reference": 4.5,
        "over_classical": 2.5,
        "psnr_mu_moving": 31.0,
        "over_reference_moving": 1.0,
        "over_classical_moving": -1.0,
        "psnr_mu_static": 40.0,
        "over_reference_static": 10.0,
    }
    assert metrics_of({}, "trust", ("reference",)) == {}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "mine.onnx"
    scores = {"trust": dict.fromkeys(REGIONS, 34.5)}
    state = State(7, 1800.0, recipe=RECIPE.describe(), data="2 HDR scenes")
    write_network(path, TrustLesson(RECIPE), random_network(), state, scores, "mine, CC0", "the CPU")
    return path


def test_the_card_is_complete(written: Path) -> None:
    card = weights.read_card(written)
    assert {key: card[key] for key in ("architecture", "config", "multiple", "bytes_per_pixel", "steps")} == {
        "architecture": "trust",
        "config": TINY,
        "multiple": 16,
        "bytes_per_pixel": 220,
        "steps": 7,
    }
    assert card["halo"] >= reach_of(random_network(), 16, PLANES) > 16
    assert card["data"] == "mine, CC0; 2 HDR scenes"
    assert card["budget"] == "0.50 h of training on the CPU"
    assert card["metrics"]["psnr_mu"] == 34.5
    assert card["version"] == __version__
    for said in ("rate 0.001", "3600 s", "16 patches of 128 px", "seed 1"):
        assert said in card["recipe"]


def test_the_file_gives_what_the_network_gives(written: Path) -> None:
    """With any number of frames and any size on the grid; weights are rounded to half floats."""
    pytest.importorskip("onnxruntime")
    engine = open_engine(written, "cpu", engine="onnxruntime", threads=1)
    network = build("trust", TINY).eval().requires_grad_(False)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in weights.load_state(written).items()})
    for frames, size in ((1, 32), (4, 96)):
        inputs = example_inputs(frames, size)
        found = engine.run({name: value.numpy() for name, value in inputs.items()})
        for name, value in zip(TrustLesson.outputs, network(**inputs), strict=True):
            assert np.abs(found[name] - value.numpy()).max() < 1e-3


def test_tiles_with_the_halo_are_the_whole(written: Path) -> None:
    engine = open_engine(written, "cpu", threads=1)
    inputs = {name: value.numpy() for name, value in example_inputs(2, 256).items()}
    halo = int(engine.card["halo"])
    whole = run_tiled(engine, inputs, halo, 32, tile=256)
    for name, values in run_tiled(engine, inputs, halo, 32, tile=64).items():
        assert np.abs(values - whole[name]).max() < 1e-5
    short = run_tiled(engine, inputs, halo - 32, 32, tile=64)
    assert max(np.abs(short[name] - whole[name]).max() for name in TrustLesson.outputs) > 1e-4


# --- hdrgan ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["residual", "paper"])
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("release") / "three.onnx"
    lesson = HdrGanLesson(HdrGanRecipe(config={"width": 4, "residual": request.param}))
    with torch.no_grad():
        for values in lesson.mean.parameters():
            if values.dim() == 4 and not values.any():
                nn.init.normal_(values, std=0.05)
    scores = {name: dict.fromkeys(REGIONS, 34.5) for name in lesson.rows}
    write_network(path, lesson, lesson.mean, State(7, 1800.0), scores)
    return path


def test_hdrgan_is_written_whole(three: Path) -> None:
    card = weights.read_card(three)
    assert (card["architecture"], card["multiple"]) == ("hdrgan", 4)
    merged = ["merged"] if card["config"]["residual"] else []
    assert (card["inputs"], card["outputs"]) == (["low", "reference", "high", *merged], ["radiance"])
    assert card["halo"] > 32
    assert card["bytes_per_pixel"] > 0
    assert card["metrics"]["over_out1"] == 0.0


def test_the_file_of_hdrgan_gives_what_the_network_gives(three: Path) -> None:
    pytest.importorskip("onnxruntime")
    card = weights.read_card(three)
    lesson = HdrGanLesson(HdrGanRecipe(config=card["config"]))
    lesson.mean.load_state_dict({k: torch.from_numpy(v) for k, v in weights.load_state(three).items()})
    engine = open_engine(three, "cpu", engine="onnxruntime", threads=1)
    for size in (16, 96):
        inputs = lesson.example_inputs(size)
        found = engine.run({name: value.numpy() for name, value in inputs.items()})["radiance"]
        with torch.no_grad():
            assert np.abs(found - lesson.mean(**inputs).numpy()).max() < 1e-3
