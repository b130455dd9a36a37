"""The video networks over frames: parts equal the whole, and what cannot run is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from made_video_networks import write_pair

from hdrmerge.coarsetofine import MEMORY, Network, is_released, open_role, planes, side_of
from hdrmerge.errors import NetworkError
from hdrmerge.infer import TorchEngine, open_engine
from hdrmerge.tiles import Box, tiles, window_of


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair(tmp_path_factory.mktemp("followed"), followed=True)[0]


def frames(count: int, height: int = 72, width: int = 500) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((height, width, 3), dtype=np.float32) for _ in range(count)]


class Watched(Network):
    """A network that notes the sizes of the parts it is run on."""

    sizes: list[tuple[int, int]]

    @classmethod
    def of(cls, path: Path) -> Watched:
        network = cls(open_engine(path, device="cpu", engine="onnxruntime", threads=1))
        sizes, run = [], network.engine.run

        def noted(inputs: Any, **options: Any) -> Any:
            sizes.append(inputs["frames"].shape[2:])
            assert inputs["exposures"].shape == (1, 3, 1, 1)
            return run(inputs, **options)

        network.engine.run = noted  # type: ignore[method-assign]
        object.__setattr__(network, "sizes", sizes)
        return network


def test_coarse_parts_equal_the_whole(pair: tuple[Path, Path]) -> None:
    network, shown = Watched.of(pair[0]), {"frames": frames(3)}
    whole = network.run(shown, (8, 1, 8))
    assert network.sizes == [(72, 504)]  # rounded up
    parts = network.run(shown, (8, 1, 8), tile=176)
    assert len(network.sizes) == 4
    assert max(width for _, width in network.sizes[1:]) < 400
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert whole.shape == (72, 500, 3)
    assert np.ptp(whole) > 0.05


def test_refined_parts_equal_the_whole(pair: tuple[Path, Path]) -> None:
    network, shown = Watched.of(pair[1]), {"coarse": frames(3), "frames": frames(3)}
    whole = network.run(shown, (8, 1, 8))
    parts = network.run(shown, (8, 1, 8), tile=176)
    assert max(width for _, width in network.sizes[1:]) < 400
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert np.abs(whole - shown["coarse"][1]).max() > 0.01  # something was painted


def test_followed_parts_equal_the_whole(followed: Path) -> None:
    """Of pictures, and of planes of other numbers."""
    network = Watched.of(followed)
    shares = [one / 3 for one in frames(3)]
    flows = [8 * one[..., :2] - 4 for one in frames(2)]
    shown = {"frames": frames(3), "between": frames(2), "shares": shares, "flows": flows}
    whole = network.run(shown, (8, 1, 8))
    parts = network.run(shown, (8, 1, 8), tile=176)
    assert len(network.sizes) == 4
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    assert np.ptp(whole) > 0.05


def test_it_is_what_torch_makes_of_the_whole(pair: tuple[Path, Path]) -> None:
    shown = frames(3, 64, 96)
    found = Network(open_engine(pair[0], device="cpu", engine="onnxruntime")).run(
        {"frames": shown}, (8, 1, 8)
    )
    engine = open_engine(pair[0], device="cpu", engine="torch")
    assert isinstance(engine, TorchEngine)
    times = np.float32([8, 1, 8]).reshape(1, 3, 1, 1)
    wanted = engine.run({"frames": planes(shown), "exposures": times})["radiance"][0]
    np.testing.assert_allclose(found, np.moveaxis(wanted, 0, -1), atol=1e-5)


def test_parts_fit_into_memory_and_are_few() -> None:
    size = (1080, 1920)
    for halo, multiple, per_pixel, most in ((376, 16, 972, 1), (152, 8, 1236, 1), (152, 8, 2452, 4)):
        side = side_of(size, halo, multiple, MEMORY / per_pixel)
        parts = list(tiles(Box(0, *size[:1], 0, size[1]), side, multiple))
        assert len(parts) <= most
        assert max(window_of(p, halo, multiple, size).area for p in parts) * per_pixel <= MEMORY
    assert side_of(size, 152, 8, 1.0) == 152  # no smaller, however little there is
    assert side_of((64, 96), 376, 16, 1.0) == 96


def test_networks_for_something_else_are_refused(
    pair: tuple[Path, Path], network_file: Path, followed: Path
) -> None:
    coarse, refine = map(str, pair)
    assert open_role("coarse", coarse, 2, "cpu").path == pair[0]
    with pytest.raises(NetworkError, match=r"coarse2\.onnx: is for 2 exposures, these frames have 3; .*flow"):
        open_role("coarse", coarse, 3)
    with pytest.raises(NetworkError, match=r"refine2\.onnx: a network of 'refine'; --coarse takes one of"):
        open_role("coarse", refine, 2)
    assert Network(open_role("coarse", str(followed), 2, "cpu")).followed
    assert not Network(open_role("coarse", coarse, 2, "cpu")).followed
    with pytest.raises(NetworkError, match="a network of 'trust'; --refine takes"):
        open_role("refine", str(network_file), 2)
    with pytest.raises(NetworkError, match=r"no network for 5 exposures; .* --method flow"):
        open_role("coarse", None, 5)


def test_whether_there_is_a_released_one() -> None:
    for role in ("coarse", "refine"):
        released = [is_released(role, count) for count in (2, 3)]
        assert is_released(role) == any(released)
        assert not is_released(role, 7)
