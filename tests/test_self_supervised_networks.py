"""The three networks that learn from brackets alone: size and cost, composition, reach, and their files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import weights
from hdrmerge.infer import open_engine
from hdrmerge.tiles import round_up

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hdrmerge.networks import build  # noqa: E402
from hdrmerge.networks.composition import Blend, Composition, Single  # noqa: E402
from hdrmerge.networks.grdn import Dense  # noqa: E402

PLANES = {"frames": 9, "masked": 4, "linear": 3}
ARCHITECTURES = ("unet", "resnet", "grdn")
NARROW = {"unet": 8, "resnet": 16, "grdn": 4}  # widths of the tests


def inputs(height: int, width: int, batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(batch, count, height, width, generator=generator) for name, count in PLANES.items()
    }


def network(architecture: str, width: int | None = None, residual: bool = False) -> Composition:
    """Return a network of which every part matters, and whose normalisation has seen something."""
    torch.manual_seed(1)
    config = {"width": width or NARROW[architecture], "residual": residual}
    made = build(architecture, config).requires_grad_(False)
    for layer in made.modules():
        if isinstance(layer, Single):
            layer.reset_parameters()
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.2, 0.2)
            layer.momentum = 1.0
    made.train()(**inputs(64, 64, batch=2, seed=9))
    return made.eval()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


# ------------------------------------------------------------------------------------- size and cost


@pytest.mark.parametrize(
    ("architecture", "parameters", "branch", "gflops"),
    [
        ("unet", 17_272_230, 5_667, 1855.7),
        ("resnet", 750_540, 2_441, 2239.8),
        ("grdn", 21_943_334, 5_667, 6570.2),
    ],
)
def test_the_numbers_of_the_paper(
    architecture: str, parameters: int, branch: int, gflops: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1500 x 1000 pixels, counted without computing: tensors of the device "meta" have but a shape."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know it
    with torch.device("meta"):
        made = build(architecture, {})
        example = {name: torch.empty(1, count, 1000, 1500) for name, count in PLANES.items()}
    assert sum(values.numel() for values in made.parameters()) == parameters
    assert sum(values.numel() for values in made.blend.parameters()) == branch
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = made(**example)
    assert output.shape == (1, 3, 1000, 1500)
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, abs=0.05)


def test_the_widths_of_the_unet() -> None:
    """Those of the table, and half of them in half the width."""
    made = build("unet", {"width": 32})
    shapes = [tuple(block[0].weight.shape[:2]) for block in (*made.backbone.down, *made.backbone.up)]
    down = [(32, 9), (64, 32), (128, 64), (256, 128), (256, 256)]
    assert shapes == [*down, (32, 64), (64, 128), (128, 256), (256, 512)]
    assert [block[3].out_channels for block in made.backbone.up] == [32, 32, 64, 128]


def test_a_width_scales_all_channels(architecture: str) -> None:
    """Nearly the square of it, in parameters."""
    full, half = (
        sum(values.numel() for values in build(architecture, {"width": width}).parameters())
        for width in (64, 32)
    )
    assert 3.9 < full / half < 4.0
    assert {width: build(architecture, {"width": width}).blend[0].out_channels for width in (64, 16)} == {
        64: 16,
        16: 4,
    }
    assert (
        build(architecture, {}).backbone.state_dict().keys()
        == network(architecture).backbone.state_dict().keys()
    )


# ------------------------------------------------------------------------------------- composition


def test_the_result_is_the_weighted_sum(architecture: str) -> None:
    made, three = network(architecture), inputs(32, 48, batch=2)
    blend, residual = made.parts(three["frames"], three["masked"])
    assert blend.shape == (2, 1 if architecture == "resnet" else 3, 32, 48)
    assert blend.min() >= 0
    assert blend.max() <= 1
    assert residual.shape == (2, 3, 32, 48)
    expected = blend * three["linear"] + (1 - blend) * residual
    torch.testing.assert_close(made(**three), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("bias", "other"), [(40.0, "frames"), (-40.0, "linear")])
def test_weights_of_one_are_the_reference_and_of_zero_the_residual(
    architecture: str, bias: float, other: str
) -> None:
    made, three = network(architecture), inputs(16, 16)
    made.blend[-2].bias.fill_(bias)
    output = made(**three)
    expected = three["linear"] if bias > 0 else made.backbone(three["frames"])
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
    assert torch.equal(made(**three | {other: three[other].flip(-1)}), output)


def test_the_residual_is_not_bounded(architecture: str) -> None:
    made, three = network(architecture), inputs(16, 16)
    last = next(layer for layer in reversed(list(made.backbone.modules())) if isinstance(layer, Single))
    for bias in (-9.0, 9.0):
        last.bias.fill_(bias)
        assert made(**three).abs().max() > 2


def exposed(height: int, width: int, ratio: float = 4.0) -> dict[str, torch.Tensor]:
    """Inputs of a scene that stands still: the reference clips in half of it, the short frame nowhere."""
    generator = torch.Generator().manual_seed(3)
    light = torch.rand(1, 3, height, width, generator=generator) * 0.24
    light[:, :, :, width // 2 :] = light[:, :, :, width // 2 :] * 2 + 0.3
    own = (light * ratio).clamp(max=1) ** (1 / 2.2)
    well = ((own.mean(1, keepdim=True) > 0.2) & (own.mean(1, keepdim=True) < 0.7)).float()
    frames = torch.cat([light ** (1 / 2.2), own, own], 1)
    linear = (light * ratio).clamp(max=1) / ratio
    return {"frames": frames, "masked": torch.cat([own * well, well], 1), "linear": linear}


def test_untrained_the_residual_form_is_what_two_frames_know(architecture: str) -> None:
    """The reference, and the short frame where that clips, unless it shows less than clipping tells."""
    made = build(architecture, {"width": NARROW[architecture], "residual": True}).eval()
    given = exposed(32, 48)
    light = given["frames"][:, :3] ** 2.2
    found = made(**given).detach()
    np.testing.assert_allclose(found.numpy(), light.numpy(), atol=1e-4)
    given["frames"][:, :3] = 0.0  # something dark came before it
    found = made(**given).detach()
    np.testing.assert_allclose(found.numpy(), given["linear"].numpy(), atol=1e-4)


def test_the_residual_form_adds_code_values(architecture: str) -> None:
    """An offset of the backbone, the same everywhere, is one of codes where the reference has no say."""
    made = build(architecture, {"width": NARROW[architecture], "residual": True}).eval().requires_grad_(False)
    last = [layer for layer in made.backbone.modules() if isinstance(layer, Single)][-1]
    assert last.bias is not None
    last.bias.fill_(0.1)
    given = exposed(32, 32)
    plain = given["frames"][:, :3]
    well = given["masked"][:, 3:].expand(-1, 3, -1, -1) > 0
    found = made(**given)
    np.testing.assert_allclose(found[~well].numpy(), ((plain + 0.1) ** 2.2)[~well].numpy(), atol=1e-3)
    weigh = [layer for layer in made.blend.modules() if isinstance(layer, Single)][-1]
    weigh.weight.zero_()
    assert weigh.bias is not None
    weigh.bias.fill_(40.0)
    np.testing.assert_allclose(made(**given)[well].numpy(), given["linear"][well].numpy(), atol=1e-5)


def test_the_residual_form_learns_in_the_dark(architecture: str) -> None:
    """At radiance 0 gradients are finite, and not all 0."""
    made = build(architecture, {"width": NARROW[architecture], "residual": True}).train()
    given = inputs(32, 32, batch=2)
    given["linear"][:] = 0.0
    (made(**given) - 0.5).square().mean().backward()
    gradients = [value.grad for value in made.parameters() if value.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_outputs_have_no_steps_of_half_floats(architecture: str) -> None:
    made, three = network(architecture), inputs(16, 32)
    with torch.autocast("cpu", torch.bfloat16):
        output, parts = made(**three), made.parts(three["frames"], three["masked"])
    for values in (output, *parts):
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())


def test_all_parts_learn(architecture: str) -> None:
    """Normalised by what was seen before, since a batch's own mean takes a constant away."""
    made = network(architecture, 16).requires_grad_(True)
    made(**inputs(32, 32, batch=2)).square().sum().backward()
    assert [name for name, values in made.named_parameters() if not values.grad.any()] == []


def test_the_branch_is_as_deep_as_its_widths() -> None:
    made = Blend(5, 6, 1)
    layers = [layer for layer in made if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [(4, 5), (5, 6), (6, 1)]
    assert made(torch.rand(1, 4, 8, 8)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (50, 75)])
def test_the_unet_takes_odd_sizes(size: tuple[int, int]) -> None:
    assert network("unet")(**inputs(*size)).shape == (1, 3, *size)


# ------------------------------------------------------------------------------------------- reach


def positive(architecture: str, width: int) -> Composition:
    """Return a network in double precision in which nothing cancels out.

    The gradients of a dense block say no more than where there are any: far away they would underflow.
    """
    made = network(architecture, width).double()
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_var.fill_(1.0)
            layer.weight.fill_(1.0)
            layer.bias.zero_()
            layer.running_mean.zero_()
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.weight.fill_(1.0 / layer.weight[0].numel())
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, Dense):
            layer.register_full_backward_hook(lambda _, gradients, __: ((gradients[0] > 0).double(),))
    return made


@pytest.mark.parametrize(("architecture", "width"), [("unet", 4), ("resnet", 16), ("grdn", 4)])
@pytest.mark.parametrize("along", [2, 3])
def test_the_halo_is_the_reach_to_the_pixel(architecture: str, width: int, along: int) -> None:
    """Measured as the extent of a gradient. What grows brighter away from the block is what maxima let by."""
    made = positive(architecture, width)
    multiple = made.multiple
    before = round_up(made.halo + 8, multiple)
    size = [multiple, multiple]
    size[along - 2] = 2 * before + multiple
    found = []
    for way in (-1, 1):
        ramp = 1 + way * torch.linspace(-0.5, 0.5, size[along - 2], dtype=torch.float64)
        shape = (1, 1, -1, 1) if along == 2 else (1, 1, 1, -1)
        frames = ramp.reshape(shape).expand(1, 9, *size).clone().requires_grad_()
        made.backbone(frames).narrow(along, before, multiple).sum().backward()
        seen = torch.nonzero(frames.grad.abs().sum((0, 1, 5 - along))).flatten()
        found.append(before - int(seen.min()) if way < 0 else int(seen.max()) - before - multiple + 1)
    assert max(found) == made.halo
    assert min(found) >= made.halo - 3


@pytest.mark.parametrize(("architecture", "less"), [("unet", 96), ("resnet", 21), ("grdn", 40)])
def test_a_tile_with_the_halo_equals_the_whole(architecture: str, less: int) -> None:
    """To 1e-12 in double precision. With one multiple less it does not, or where an untrained one looks."""
    made = network(architecture).double()
    multiple = made.multiple
    halo, side = round_up(made.halo, multiple), round_up(16, multiple)
    three = {name: values.double() for name, values in inputs(2 * halo + 2 * side, side).items()}
    top = halo + side
    whole = made(**three)[..., top : top + side, :]

    def tile(halo: int) -> torch.Tensor:
        window = {name: values[..., top - halo : top + side + halo, :] for name, values in three.items()}
        return made(**window)[..., halo : halo + side, :]

    torch.testing.assert_close(tile(halo), whole, rtol=0, atol=1e-12)
    assert (tile(less) - whole).abs().max() > 1e-9


# ------------------------------------------------------------------------------------- weights file


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return what writes each network once."""
    pytest.importorskip("onnx")
    folder, files = tmp_path_factory.mktemp("weights"), {}

    def write(architecture: str, residual: bool = False) -> Path:
        name = f"{architecture}{residual}"
        if name not in files:
            made, path = network(architecture, residual=residual), folder / f"{name}.onnx"
            axes = {name: {0: "B", 2: "H", 3: "W"} for name in (*PLANES, "radiance")}
            card: dict[str, Any] = {
                "architecture": architecture,
                "config": {"width": NARROW[architecture], "residual": residual},
                "halo": made.halo,
                "multiple": made.multiple,
            }
            weights.save(made, inputs(32, 48), ["radiance"], axes, path, card)
            files[name] = path
        return files[name]

    return write


@pytest.mark.parametrize("residual", [False, True])
def test_engines_agree_at_all_sizes(architecture: str, residual: bool, written: Callable[..., Path]) -> None:
    pytest.importorskip("onnxruntime")
    file = written(architecture, residual)
    onnx = open_engine(file, device="cpu", engine="onnxruntime", threads=1)
    native = open_engine(file, device="cpu", engine="torch", threads=1)
    assert onnx.card["inputs"] == list(PLANES)
    multiple = onnx.card["multiple"]
    for rows, columns, batch in ((1, 1, 1), (1, 3, 2), (5, 2, 1), (4, 6, 1)):
        given = inputs(rows * multiple, columns * multiple, batch, seed=rows)
        arrays = {name: values.numpy() for name, values in given.items()}
        results = [engine.run(arrays)["radiance"] for engine in (onnx, native)]
        assert results[0].shape == (batch, 3, rows * multiple, columns * multiple)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
        assert results[0].std() > 0.05


def test_the_file_holds_the_network(architecture: str, written: Callable[..., Path]) -> None:
    """Its normalisation as it is, and half floats of the rest."""
    read, state = weights.load_state(written(architecture)), network(architecture).state_dict()
    state = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    assert set(read) == set(state)
    for name, values in state.items():
        exact = name.endswith(("running_mean", "running_var"))
        np.testing.assert_allclose(read[name], values.numpy(), rtol=0 if exact else 1e-3, atol=1e-7)
