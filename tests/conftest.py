"""What several test files share: a scene to photograph, a network, and slow tests left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hdrmerge import pipeline
from hdrmerge.infer import Engine
from hdrmerge.scene import ramp_scene


def pytest_configure(config: pytest.Config) -> None:
    """Leave slow tests to ``pytest -m slow`` (or any other ``-m``)."""
    if not config.option.markexpr:
        config.option.markexpr = "not slow"


@pytest.fixture(scope="session", autouse=True)
def classical() -> Iterator[None]:
    """Merge without a network unless it is named: what the default does depends on what is installed."""
    as_it_is = pipeline.open_network

    def named(options: pipeline.MergeOptions) -> tuple[Engine | None, list[str]]:
        return as_it_is(options) if options.network else (None, [])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "open_network", named)
        yield


@pytest.fixture(scope="session")
def ramp() -> np.ndarray:
    """A logarithmic ramp over 7.6 stops with colour, texture and edges, (560, 840, 3), read-only."""
    scene = ramp_scene(560, 840, np.random.default_rng(1))
    scene.setflags(write=False)
    return scene


@pytest.fixture(scope="session")
def elsewhere() -> np.ndarray:
    """A scene that has nothing in common with `ramp` but its tones, read-only."""
    scene = ramp_scene(560, 840, np.random.default_rng(99))[:, ::-1].copy()
    scene.setflags(write=False)
    return scene


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a small `networks.trust` whose weights are random, the last layers included."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from hdrmerge import weights
    from hdrmerge.networks import build

    config = {"pair": [4, 6], "fill": [4, 6], "context": 2}
    torch.manual_seed(3)
    network = build("trust", config).eval()
    with torch.no_grad():
        for decoder in (network.pair_out, network.fill_out):
            decoder.last.weight.normal_(std=1.0)
            decoder.last.bias.normal_(std=1.0)
    inputs = {"reference": torch.rand(1, 7, 32, 64), "frames": torch.rand(3, 10, 32, 64)}
    size = {2: "H", 3: "W"}
    axes = {"reference": size, "frames": {0: "K", **size}, "trust": {0: "K", **size}, "correction": size}
    card = {"architecture": "trust", "config": config, "halo": 64, "multiple": 32, "licence": "Apache-2.0"}
    path = tmp_path_factory.mktemp("weights") / "random.onnx"
    weights.save(network, inputs, ("trust", "correction"), axes, path, card)
    return path


def painter(path: Path, loud: bool) -> Path:
    """Write a narrow `networks.hdrgan` that returns the merge; a ``loud`` one has random last layers."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from hdrmerge import weights
    from hdrmerge.networks import build

    config = {"width": 8, "residual": True}
    torch.manual_seed(4)
    network = build("hdrgan", config).eval()
    if loud:
        with torch.no_grad():
            network.heads.weight.normal_(std=0.02)
    planes = {"low": 6, "reference": 6, "high": 6, "merged": 3}
    inputs = {name: torch.rand(1, count, 32, 32) * 2 - 1 for name, count in planes.items()}
    axes = {name: {0: "B", 2: "H", 3: "W"} for name in (*planes, "radiance")}
    card = {"architecture": "hdrgan", "config": config, "halo": network.halo, "multiple": network.multiple}
    weights.save(network, inputs, ("radiance",), axes, path, {**card, "bytes_per_pixel": 320})
    return path


@pytest.fixture(scope="session")
def painter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painter(tmp_path_factory.mktemp("weights") / "painter.onnx", loud=False)


@pytest.fixture(scope="session")
def loud_painter_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painter(tmp_path_factory.mktemp("weights") / "loud.onnx", loud=True)
