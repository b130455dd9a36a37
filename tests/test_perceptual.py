"""How alike pictures look: the features of VGG-19, read from a file, and what stands in for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")
pytest.importorskip("safetensors")

from torch.nn import functional  # noqa: E402

from hdrmerge.errors import NetworkError  # noqa: E402
from hdrmerge.training.perceptual import (  # noqa: E402
    CONVOLUTIONS,
    DEVIATION,
    MEAN,
    SCALES,
    WINDOW,
    StandIn,
    Vgg19,
    luma,
    perceptual,
    read_vgg19,
    structure,
)


def photo(seed: int = 0, size: int = 64) -> torch.Tensor:
    """Return smooth pictures with some noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, size // 8, size // 8, generator=generator)
    smooth = functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return 0.8 * smooth + 0.2 * torch.rand(2, 3, size, size, generator=generator)


# ------------------------------------------------------------------------------------- VGG-19


def passing(prefix: str = "") -> dict[str, torch.Tensor]:
    """Return weights that hand the first features on, from the red, green and blue of a pixel."""
    tensors, entering = {}, 3
    for number, wide in CONVOLUTIONS.items():
        weight = torch.zeros(wide, entering, 3, 3)
        shared = torch.arange(min(wide, entering))
        weight[shared, shared, 1, 1] = 1
        tensors[f"{prefix}features.{number}.weight"] = weight
        tensors[f"{prefix}features.{number}.bias"] = torch.zeros(wide)
        entering = wide
    return tensors


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("vgg") / "vgg.safetensors", passing())


def written(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


def in_onnx(path: Path, tensors: dict[str, torch.Tensor], nodes: int = 8, held: bool = True) -> Path:
    """Write convolutions with names that say nothing."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    made, holds, x = [], [], "image"
    for number in list(CONVOLUTIONS)[:nodes]:
        names = [f"t{number}_{kind}" for kind in ("weight", "bias")]
        made.append(helper.make_node("Conv", [x, *names], [f"y{number}"], pads=[1, 1, 1, 1]))
        x = f"y{number}"
        for name, kind in zip(names, ("weight", "bias"), strict=True):
            holds.append(numpy_helper.from_array(tensors[f"features.{number}.{kind}"].numpy(), name))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in ("image", x)
    ]
    onnx.save(helper.make_model(helper.make_graph(made, "g", ends[:1], ends[1:], holds * held)), path)
    return path


def test_features_are_compared_after_three_poolings(file: Path) -> None:
    """Of weights that hand colours on, they are the largest colours of 2, 4 and 8 pixels, above the mean."""
    one, other = photo(0), photo(1)
    mean, deviation = (torch.tensor(values).reshape(3, 1, 1) for values in (MEAN, DEVIATION))
    expected = 0.0
    for pooled, wide in ((2, 64), (4, 128), (8, 256)):
        bright = [
            functional.max_pool2d(functional.relu((picture - mean) / deviation), pooled)
            for picture in (one, other)
        ]
        expected += float((bright[0] - bright[1]).abs().mean()) * 3 / wide
    likeness = Vgg19(file)
    assert float(likeness(one, other)) == pytest.approx(expected, rel=1e-4)
    assert float(likeness(one, one)) == 0
    assert not list(likeness.parameters())


def test_gradients_go_to_what_was_found(file: Path) -> None:
    one, other = photo(0).requires_grad_(), photo(1).requires_grad_()
    Vgg19(file)(one, other).backward()
    assert one.grad.abs().max() > 0
    assert other.grad is None


def test_weights_are_found_under_any_prefix_and_in_onnx(tmp_path: Path) -> None:
    tensors = {name: torch.randn(values.shape) for name, values in passing().items()}
    prefixed = {f"model.{name}": values.half() for name, values in tensors.items()}
    prefixed["model.features.19.weight"] = torch.zeros(3)
    files = written(tmp_path / "a.safetensors", prefixed), in_onnx(tmp_path / "a.onnx", tensors)
    for path, tolerance in zip(files, (2e-3, 0.0), strict=True):
        for number, (weight, bias) in zip(CONVOLUTIONS, read_vgg19(path), strict=True):
            expected = (tensors[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
            for found, given in zip((weight, bias), expected, strict=True):
                assert found.dtype == torch.float32
                torch.testing.assert_close(found, given, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["vgg.pth", "vgg.pt", "vgg.pkl", "vgg"])
def test_a_pickle_is_never_loaded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(NetworkError, match="a pickle can run any code"):
        perceptual(tmp_path / name)


def test_other_files_are_refused_in_one_line(tmp_path: Path, file: Path) -> None:
    broken = {suffix: tmp_path / f"broken.{suffix}" for suffix in ("safetensors", "onnx")}
    for path in broken.values():
        path.write_bytes(b"\xff" * 100)
    lacking, wrong = passing(), passing()
    del lacking["features.12.bias"]
    wrong["features.5.weight"] = torch.zeros(128, 3, 3, 3)
    tensors = passing()
    for path, message in (
        (tmp_path / "none.onnx", "no such file"),
        (broken["safetensors"], "is damaged"),
        (broken["onnx"], "is damaged"),
        (written(tmp_path / "lacking.safetensors", lacking), r"holds no features\.12\.bias"),
        (written(tmp_path / "wrong.safetensors", wrong), r"convolution 5 has weights \(128, 3, 3, 3\)"),
        (in_onnx(tmp_path / "few.onnx", tensors, nodes=7), "first 8 Conv nodes"),
        (in_onnx(tmp_path / "empty.onnx", tensors, held=False), "first 8 Conv nodes"),
    ):
        with pytest.raises(NetworkError, match=message) as raised:
            read_vgg19(path)
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------------- the stand-in


def test_structure_is_that_of_wang() -> None:
    """Around one pixel, by the formula in numpy."""
    one, other = (luma(photo(seed)) for seed in (0, 1))
    assert structure(one, other).shape == (2, 1, 64 - WINDOW + 1, 64 - WINDOW + 1)
    a, b = (plane[1, 0, 10 : 10 + WINDOW, 20 : 20 + WINDOW].double().numpy() for plane in (one, other))
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    expected = (2 * a.mean() * b.mean() + 1e-4) * (2 * covariance + 9e-4)
    expected /= (a.mean() ** 2 + b.mean() ** 2 + 1e-4) * (a.var() + b.var() + 9e-4)
    assert float(structure(one, other)[1, 0, 10, 20]) == pytest.approx(expected, rel=1e-3)
    torch.testing.assert_close(structure(one, one), torch.ones(2, 1, 58, 58), rtol=0, atol=1e-4)


def test_edges_count_more_than_brightness() -> None:
    """Of errors that are equally large on average."""
    wanted, likeness = 0.2 + 0.6 * photo(), perceptual(None)
    assert isinstance(likeness, StandIn)
    assert abs(float(likeness(wanted, wanted))) < 1e-4
    lighter = float(likeness(wanted + 0.05, wanted))
    blurred = functional.avg_pool2d(wanted, 5, stride=1, padding=2)
    size = float((blurred - wanted).abs().mean())
    softer = float(likeness(wanted + (blurred - wanted) * (0.05 / size), wanted))
    assert softer > 5 * lighter > 0


def test_coarse_edges_are_seen_at_coarse_scales() -> None:
    """A ramp that is wrong differs by next to nothing from pixel to pixel, but does eight pixels apart."""
    wanted = torch.full((1, 3, 128, 128), 0.5)
    ramp = torch.linspace(-0.2, 0.2, 128).expand(1, 3, 128, 128)
    loss = float(StandIn()(wanted + ramp, wanted))
    step = 0.4 / 127
    assert loss > 16 * step * (1 + 2 + 4 + 8)
    assert SCALES == 4


def test_small_pictures_have_fewer_scales() -> None:
    found = photo(size=16).requires_grad_()
    loss = StandIn()(found, photo(1, size=16))
    loss.backward()
    assert np.isfinite(float(loss.detach()))
    assert found.grad.abs().max() > 0
