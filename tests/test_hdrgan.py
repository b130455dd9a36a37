"""The generator of HDR-GAN: its size and cost, its two forms, its reach, and that it can be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdrmerge import weights
from hdrmerge.infer import open_engine
from hdrmerge.tiles import round_up

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hdrmerge.networks.hdrgan import Convolution, HdrGan, build  # noqa: E402

NAMES = ("low", "reference", "high")


def inputs(
    height: int, width: int, batch: int = 1, residual: bool = False, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Return three frames, and for the residual form what was merged, of random values."""
    generator = torch.Generator().manual_seed(seed)
    planes = dict.fromkeys(NAMES, 6) | ({"merged": 3} if residual else {})
    return {
        name: torch.rand(batch, count, height, width, generator=generator) * 2 - 1
        for name, count in planes.items()
    }


def network(residual: bool = False, width: int = 8) -> HdrGan:
    """Return a network of which every part matters."""
    torch.manual_seed(1)
    made = HdrGan(width, residual).eval().requires_grad_(False)
    if residual:
        made.heads.weight.normal_(0, 0.02)
    return made


# ------------------------------------------------------------------------------------- size and cost


def test_the_numbers_of_the_paper() -> None:
    made = HdrGan()
    assert sum(values.numel() for values in made.parameters()) == 2_557_382
    assert sum(values.numel() for values in made.low.parameters()) == 344_704
    counts = [sum(values.numel() for values in merge.parameters()) for merge in made.merge]
    assert counts == [55_424, 221_440, 885_248]
    more = sum(values.numel() for values in HdrGan(residual=True).parameters()) - 2_557_382
    assert more == 3 * 32 * (9 + 1)  # three planes more in the first block: a convolution and its shortcut
    height, width = 24, 32
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made.both(**inputs(height, width))
    per_pixel = counter.get_total_flops() / 2 / (height * width)  # the same for all multiples of 4
    assert per_pixel * 1500 * 1000 == pytest.approx(0.727e12, rel=5e-4)


def test_three_encoders_share_nothing() -> None:
    made = network()
    places = [{values.data_ptr() for values in getattr(made, name).parameters()} for name in NAMES]
    assert len(set.union(*places)) == sum(map(len, places)) == 3 * len(places[0])
    assert not torch.equal(made.low.down[0].weight, made.high.down[0].weight)
    three = inputs(16, 16)
    swapped = {"low": three["high"], "reference": three["reference"], "high": three["low"]}
    assert not torch.allclose(made(**three), made(**swapped), atol=1e-3)


def test_a_configuration_says_width_and_form() -> None:
    assert build({}).heads.in_channels == 64
    assert not build({}).residual
    made = build({"width": 6, "residual": True})
    assert made.heads.in_channels == 12
    assert made.residual
    assert made(**inputs(8, 8, residual=True)).shape == (1, 3, 8, 8)


# ------------------------------------------------------------------------------------------- two forms


@pytest.mark.parametrize("size", [(4, 4), (4, 12), (8, 4), (20, 36)])
def test_the_form_of_the_paper_stays_in_range(size: tuple[int, int]) -> None:
    made = network()
    first, second = made.both(**inputs(*size, batch=2))
    for output in (first, second):
        assert output.shape == (2, 3, *size)
        assert output.abs().max() <= 1
    assert torch.equal(second, made(**inputs(*size, batch=2)))
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("half", [False, True])
def test_the_residual_form_starts_as_what_was_merged(half: bool) -> None:
    """To the bit, whatever the frames say, and whatever else is computed in half floats."""
    four = inputs(16, 24, batch=2, residual=True)
    made = HdrGan(8, residual=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = (*made.both(**four), made(**four))
    for output in outputs:
        assert output.dtype == torch.float32
        assert torch.equal(output, four["merged"])


def test_the_residual_form_adds_and_is_not_bounded() -> None:
    made, four = network(residual=True), inputs(16, 16, residual=True)
    before = [output - four["merged"] for output in made.both(**four)]
    made.heads.bias[:3], made.heads.bias[3:] = -4.0, 5.0
    for output, added, constant in zip(made.both(**four), before, (-4.0, 5.0), strict=True):
        assert added.std() > 1e-3
        assert output.abs().max() > 2
        torch.testing.assert_close(output - four["merged"], added + constant, rtol=0, atol=2e-6)


def test_the_residual_form_looks_at_what_was_merged() -> None:
    """What it adds depends on it, and more than on rounding; in each channel, and with the frames as well."""
    made, four = network(residual=True), inputs(32, 32, residual=True)
    added = [output - four["merged"] for output in made.both(**four)]
    noise = 0.2 * torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(2))
    for channel in range(3):
        other = {name: values.clone() for name, values in four.items()}
        other["merged"][:, channel] += noise
        for output, was in zip(made.both(**other), added, strict=True):
            assert (output - other["merged"] - was).std() > 0.02 * was.std()
    for name in NAMES:
        other = {**four, name: four[name].flip(-1)}
        for output, was in zip(made.both(**other), added, strict=True):
            assert (output - four["merged"] - was).std() > 0.02 * was.std()


@pytest.mark.parametrize("residual", [False, True])
def test_outputs_have_no_steps_of_half_floats(residual: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        output = network(residual)(**inputs(32, 32, residual=residual))
    assert output.dtype == torch.float32
    assert not torch.equal(output, output.bfloat16().float())
    if residual:  # nor has what it adds
        with torch.autocast("cpu", torch.bfloat16):
            added = network(residual)(**inputs(32, 32, residual=True) | {"merged": torch.zeros(1, 3, 32, 32)})
        assert not torch.equal(added, added.bfloat16().float())


@pytest.mark.parametrize("residual", [False, True])
def test_all_parts_learn(residual: bool) -> None:
    made = network(residual).requires_grad_(True)
    sum(output.square().sum() for output in made.both(**inputs(16, 16, residual=residual))).backward()
    assert [name for name, values in made.named_parameters() if not values.grad.any()] == []


# ---------------------------------------------------------------------------------- border and reach


def test_the_border_is_mirrored_or_repeated_where_that_cannot_be() -> None:
    layer = Convolution(1, 1, dilation=2, scale=2)
    for height, width in ((3, 5), (2, 5), (5, 1), (1, 2)):
        x = torch.rand(1, 1, height, width)
        expected = x[0, 0].numpy()
        for axis, size in enumerate((height, width)):
            around = [(2, 2) if axis == other else (0, 0) for other in (0, 1)]
            expected = np.pad(expected, around, "reflect" if size > 2 else "edge")
        np.testing.assert_array_equal(layer.padded(x)[0, 0].numpy(), expected)


def test_a_tile_with_the_halo_equals_the_whole() -> None:
    made = network(residual=True).double()
    halo = round_up(made.halo, made.multiple)
    four = {name: values.double() for name, values in inputs(176, 128, residual=True).items()}
    whole = made(**four)[..., 80:96, :24]

    def tile(halo: int) -> torch.Tensor:
        window = {
            name: values[..., 80 - halo : 96 + halo, : 24 + halo].contiguous()
            for name, values in four.items()
        }
        return made(**window)[..., halo : halo + 16, :24]

    torch.testing.assert_close(tile(halo), whole, rtol=0, atol=1e-12)
    assert (tile(32) - whole).abs().max() > 1e-6


@pytest.mark.parametrize("along", [2, 3])
def test_the_halo_is_the_reach_to_the_pixel(along: int) -> None:
    """Measured as the extent of a gradient, of each input; all is positive, so that nothing cancels out.

    To the left and above; the other way it is less by what a step of 2 leaves out twice, 1 + 2.
    """
    made = network(residual=True, width=2).double()
    for values in made.parameters():
        if values.dim() > 1:
            values.copy_(torch.full_like(values, 1.0 / values[0].numel()))
    size = [4, 4]
    size[along - 2] = 160
    given = inputs(*size, residual=True)
    four = {name: values.double().abs().requires_grad_() for name, values in given.items()}
    made(**four).narrow(along, 80, 4).sum().backward()
    for values in four.values():
        seen = torch.nonzero(values.grad.abs().sum((0, 1, 5 - along))).flatten()
        assert (80 - int(seen.min()), int(seen.max()) - 83) == (made.halo, made.halo - 3)
    assert made.multiple == 4


# ------------------------------------------------------------------------------------- weights file


@pytest.fixture(scope="module", params=[False, True], ids=["paper", "residual"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("weights") / "hdrgan.onnx"
    made = network(request.param)
    names = (*NAMES, "merged", "radiance")  # the paper's form has one less
    axes = {name: {0: "B", 2: "H", 3: "W"} for name in names}
    card = {
        "architecture": "hdrgan",
        "config": {"width": 8, "residual": request.param},
        "halo": made.halo,
        "multiple": made.multiple,
    }
    weights.save(made, inputs(32, 48, residual=request.param), ["radiance"], axes, path, card)
    return path


def test_engines_agree_at_all_sizes(file: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = open_engine(file, device="cpu", engine="onnxruntime", threads=1)
    native = open_engine(file, device="cpu", engine="torch", threads=1)
    residual = onnx.card["config"]["residual"]
    for height, width in ((4, 4), (8, 4), (4, 12), (12, 8), (64, 96)):  # the first are too small to mirror
        given = inputs(height, width, 2, residual)
        assert onnx.card["inputs"] == list(given)
        arrays = {name: values.numpy() for name, values in given.items()}
        results = [engine.run(arrays)["radiance"] for engine in (onnx, native)]
        assert results[0].shape == (2, 3, height, width)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-3)
        assert results[0].std() > 0.1


def test_the_file_holds_both_heads(file: Path) -> None:
    read = weights.load_state(file)
    written = network(weights.read_card(file)["config"]["residual"]).state_dict()
    assert set(read) == set(written)
    np.testing.assert_allclose(read["heads.weight"], written["heads.weight"].numpy(), rtol=1e-3, atol=1e-6)
