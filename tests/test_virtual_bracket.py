"""The three networks of one photograph at other exposures: size, forms, exposures, reach, and their file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import weights
from hdrmerge.errors import NetworkError
from hdrmerge.infer import open_engine
from hdrmerge.tiles import round_up

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hdrmerge.networks import build  # noqa: E402
from hdrmerge.networks.virtual_bracket import (  # noqa: E402
    ENCODINGS,
    PAPER,
    VirtualBracket,
    clipped,
    mirrored,
    reach,
    reexposed,
    well_exposed,
)

FORMS = {"plain": {}, "printed": PAPER, "residual": {"residual": True}}
WIDTH = 2
STEPS = torch.arange(-16, 17) / 4  # [stops], -4 .. 4


def photos(height: int, width: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    """Return pictures with something to see at all scales, as photographs have.

    Of mere noise the lower levels see next to nothing, and the normalisation enlarges that a thousandfold.
    """
    generator, size = torch.Generator().manual_seed(seed), (round_up(height, 64), round_up(width, 64))
    levels = [
        functional.interpolate(
            torch.rand(batch, 3, size[0] // cell, size[1] // cell, generator=generator),
            size=size,
            mode="bilinear",
        )
        for cell in (64, 16, 4, 1)
    ]
    spread = 0.5 + 0.8 * (torch.stack(levels).mean(0) - 0.5) * len(levels) ** 0.5
    return spread.clamp(0, 1)[..., :height, :width].contiguous()


def untrained(form: str) -> VirtualBracket:
    torch.manual_seed(1)
    made = build("virtual_bracket", {"width": WIDTH, **FORMS[form]})
    return made.eval().requires_grad_(False)


def network(form: str) -> VirtualBracket:
    """Return a network of which every part matters, and whose normalisation has seen something."""
    return deepcopy(_network(form))


@cache
def _network(form: str) -> VirtualBracket:
    made = untrained(form)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.2, 0.2)
            layer.momentum = 1.0
    for unet in (made.encoder, made.longer, made.shorter):
        unet.last.weight.uniform_(-0.1, 0.1)
    made.train()(photos(256, 128, batch=4, seed=9), torch.tensor([-1.0, 4.0, 0.5, -3.0]))
    return made.eval()


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


# ------------------------------------------------------------------------------------- size and cost


def test_the_numbers_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, and GFLOPs of 512 x 512 pixels, without computing: a "meta" tensor has but a shape."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know it
    with torch.device("meta"):
        made, example = build("virtual_bracket", {}), torch.empty(1, 3, 512, 512)
    for part, parameters, gflops in ((made.encoder, 6_916_131, 20.7), (made.longer, 27_639_372, 82.4)):
        assert sum(values.numel() for values in part.parameters()) == parameters
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert part(example).shape == example.shape
        assert counter.get_total_flops() / 1e9 == pytest.approx(gflops, abs=0.05)
    assert sum(values.numel() for values in made.parameters()) == 62_194_875


def test_the_printed_configuration_has_as_many_parameters() -> None:
    with torch.device("meta"):
        made = build("virtual_bracket", PAPER)
    assert sum(values.numel() for values in made.parameters()) == 62_194_875
    down, up = made.longer.down[3], made.longer.up[3]
    assert [type(down[place]).__name__ for place in (2, 5)] == ["ReLU"] * 2
    assert [type(up[place]).__name__ for place in (2, 5)] == ["LeakyReLU"] * 2
    assert up[2].negative_slope == made.longer.rise[3][2].negative_slope == 0.2
    released = build("virtual_bracket", {"width": 1})
    kinds = {type(layer).__name__ for layer in released.modules()}
    assert "Mish" in kinds
    assert not kinds & {"ReLU", "LeakyReLU"}


@pytest.mark.parametrize("width", [1, 3, 4])
def test_a_width_scales_all_levels(width: int) -> None:
    made = build("virtual_bracket", {"width": width})
    for unet, first in ((made.encoder, width), (made.longer, 2 * width), (made.shorter, 2 * width)):
        shapes = [tuple(block[0].weight.shape[:2]) for block in (*unet.down, *unet.up)]
        down = [(1, 0), (2, 1), (4, 2), (8, 4), (16, 8), (16, 16), (16, 16)]
        up = [(1, 2), (1, 4), (2, 8), (4, 16), (8, 32), (16, 32)]
        expected = [(a * first, b * first or 3) for a, b in (*down, *up)]
        assert shapes == expected
    assert made.encoder.last.in_channels == width
    assert made.longer.last.in_channels == 2 * width + 3


def test_the_lower_levels_can_be_kept_narrow() -> None:
    made = build("virtual_bracket", {"width": 4, "deepest": 4})
    assert [block[0].out_channels for block in made.longer.down] == [8, 16, 32, 32, 32, 32, 32]
    assert [block[0].out_channels for block in made.longer.up] == [8, 8, 16, 32, 32, 32]
    assert made.eval()(photos(64, 64), torch.tensor([1.0])).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("key", "choices"), [("activation", "mish or relu"), ("encoding", "rectified or third")]
)
def test_an_unknown_choice_is_refused(key: str, choices: str) -> None:
    with pytest.raises(NetworkError, match=f"{key} 'other' is unknown; choose {choices}"):
        build("virtual_bracket", {"width": 1, key: "other"})


def test_enlargements_begin_as_nearest_neighbours() -> None:
    made = untrained("plain")
    raised = made.longer.rise[0](photos(4, 6).repeat(1, 2, 1, 1)[:, : 2 * WIDTH])
    nearest = functional.interpolate(raised[..., ::2, ::2], scale_factor=2.0, mode="nearest")
    torch.testing.assert_close(raised, nearest, rtol=0, atol=1e-6)
    assert raised.std() > 0.01


# ------------------------------------------------------------------------------------- the mask


@pytest.mark.parametrize(
    ("luma", "expected"),
    [(0.0, 0.0), (0.02, 0.4), (0.05, 1.0), (0.5, 1.0), (0.95, 1.0), (0.99, 0.2), (1.0, 0.0)],
)
def test_the_mask_has_a_ramp_at_either_end(luma: float, expected: float) -> None:
    mask = well_exposed(torch.full((2, 3, 4, 5), luma, dtype=torch.float64))
    assert mask.shape == (2, 1, 4, 5)
    torch.testing.assert_close(mask, torch.full_like(mask, expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("channel", "expected"), [(0, 1.0), (1, 1.0), (2, 0.4)])
def test_the_mask_weighs_colours(channel: int, expected: float) -> None:
    photo = torch.zeros(1, 3, 1, 1)
    photo[:, channel] = 0.02 / 0.114
    assert float(well_exposed(photo)) == pytest.approx(expected)


def test_the_first_network_sees_only_what_is_well_exposed() -> None:
    """And the sum with the photograph sees all of it."""
    made, photo = network("plain"), photos(64, 64)
    photo[..., :32] = 1.0
    seen = []
    made.encoder.register_forward_pre_hook(lambda _, planes: seen.append(planes[0]))
    encoded, _ = made.parts(photo, torch.tensor([1.0]))
    assert not seen[0][..., :32].any()
    torch.testing.assert_close(seen[0], photo * well_exposed(photo))
    expected = (photo + torch.tanh(made.encoder(seen[0]))).clamp(min=0)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------- forms


def test_the_two_encodings() -> None:
    photo, found = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([-9.0, 0.0, 9.0])
    torch.testing.assert_close(ENCODINGS["rectified"](photo, found), torch.tensor([0.0, 0.5, 2.0]))
    torch.testing.assert_close(ENCODINGS["third"](photo, found), torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize("given", ["plain", "printed"])
def test_the_papers_forms_paint_the_scaled_picture(given: str) -> None:
    made, photo = network(given), photos(64, 128)
    for ev, unet in ((1.5, made.longer), (-0.5, made.shorter)):
        encoded, frames = made.parts(photo, torch.tensor([ev]))
        expected = (torch.tanh(unet(encoded * 2**ev)) + 1) / 2
        torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)
    assert float(encoded.max()) > (1.01 if given == "plain" else 0.5)
    assert float(encoded.min()) >= 0


def test_the_residual_form_adds_to_arithmetic() -> None:
    made, photo = network("residual"), photos(64, 64)
    for ev, unet in ((2.2, made.longer), (-2.2, made.shorter)):
        encoded, frames = made.parts(photo, torch.tensor([ev]))
        plain = reexposed(photo, torch.tensor(ev))
        scaled = encoded * 2**ev
        planes = torch.cat([scaled / (1 + scaled), plain, torch.full((1, 1, 64, 64), ev / 4)], 1)
        expected = (plain + 0.5 * unet(planes)).clamp(0, 1)
        torch.testing.assert_close(frames, expected, rtol=0, atol=1e-5)
        assert (frames - plain).abs().max() > 0.05


def test_a_photograph_is_reexposed_in_linear_light() -> None:
    photo, ev = photos(4, 4, batch=3).double(), torch.tensor([-2.0, 0.0, 2.5]).reshape(3, 1, 1, 1).double()
    expected = (photo**2.2 * 2**ev).clamp(max=1) ** (1 / 2.2)
    torch.testing.assert_close(reexposed(photo, ev), expected, rtol=0, atol=1e-12)


def test_an_untrained_residual_network_is_the_arithmetic() -> None:
    made, photo = untrained("residual"), photos(64, 64)
    expected = reexposed(photo, STEPS.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(made(photo, STEPS), expected, rtol=0, atol=1e-6)


def test_brightness_rises_with_every_quarter_of_a_stop() -> None:
    """By a sixth of a stop of code each, as long as nothing clips, and without going back anywhere."""
    photo = photos(64, 64)
    photo[..., :32] *= 2 ** (-4 / 2.2)
    steps = untrained("residual")(photo, STEPS)
    means = steps.mean((1, 2, 3))
    assert (means.diff() > 0).all()
    assert (steps.diff(dim=0) >= 0).all()
    dark = steps[..., :32].mean((1, 2, 3))
    torch.testing.assert_close(dark[1:] / dark[:-1], torch.full((32,), 2 ** (0.25 / 2.2)), rtol=1e-4, atol=0)


def test_exposures_pass_through_the_photograph_without_a_step() -> None:
    """Whatever the residual network says."""
    made, photo = network("residual"), photos(64, 64)
    for ev, most in ((1e-4, 1e-3), (0.01, 0.05)):
        near = made(photo, torch.tensor([-ev, ev]))
        assert (near - photo).abs().max() < most
    assert (made(photo, torch.tensor([2.0])) - reexposed(photo, torch.tensor(2.0))).abs().max() > 0.05


def test_what_is_cut_off_finds_back() -> None:
    code = torch.tensor([-0.5, 0.25, 1.5], requires_grad=True)
    inside = clipped(code)
    torch.testing.assert_close(inside.detach(), torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(clipped(code.detach()), code.detach().clamp(0, 1))
    inside.sum().backward()
    assert code.grad.tolist() == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------------------- exposures


def test_no_change_of_exposure_is_the_photograph(form: str) -> None:
    photo = photos(64, 64, batch=3)
    frames = network(form)(photo, torch.tensor([0.0, 1.0, -0.0]))
    assert torch.equal(frames[0], photo[0])
    assert torch.equal(frames[2], photo[2])
    assert not torch.equal(frames[1], photo[1])


def test_codes_are_in_range(form: str) -> None:
    photo = photos(64, 64).round(decimals=1)
    frames = network(form)(photo, STEPS)
    assert frames.min() >= 0
    assert frames.max() <= 1


def test_a_batch_is_its_photographs(form: str) -> None:
    """In any order of signs; and one photograph at many exposures, or many at one, likewise."""
    made, photo = network(form), photos(64, 64, batch=4)
    ev = torch.tensor([1.0, -2.0, 0.0, 0.5])
    together = made(photo, ev)
    for number in range(4):
        alone = made(photo[number : number + 1], ev[number : number + 1])
        torch.testing.assert_close(together[number : number + 1], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(made(photo, ev.reshape(4, 1, 1, 1)), together)
    torch.testing.assert_close(made(photo, ev.reshape(4, 1, 1, 1).expand(4, 1, 64, 64)), together)
    many = made(photo[:1], ev)
    torch.testing.assert_close(many, made(photo[:1].expand(4, -1, -1, -1), ev), rtol=0, atol=1e-5)
    one = made(photo, ev[1:2])
    torch.testing.assert_close(one, made(photo, ev[1:2].expand(4)), rtol=0, atol=1e-5)
    assert one.shape == many.shape == (4, 3, 64, 64)


def test_exposures_are_cut_to_what_was_learned(form: str) -> None:
    frames = network(form)(photos(64, 64), torch.tensor([-9.0, -4.0, 4.0, 5.0, 3.0]))
    torch.testing.assert_close(frames[0], frames[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(frames[3], frames[2], rtol=0, atol=1e-6)
    assert (frames[4] - frames[2]).abs().max() > 1e-3


def test_each_direction_has_a_network_of_its_own(form: str) -> None:
    """The other one neither matters, nor does its normalisation see a batch of none."""
    made, photo = network(form).train(), photos(64, 128, batch=2)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1
    for sign, other in ((1.0, made.shorter), (-1.0, made.longer)):
        before = {name: values.clone() for name, values in other.state_dict().items()}
        frames = made(photo, torch.tensor([sign, 2 * sign]))
        assert frames.isfinite().all()
        assert all(torch.equal(values, before[name]) for name, values in other.state_dict().items())
    assert all(values.isfinite().all() for values in made.state_dict().values())


def test_all_parts_learn_from_a_pair(form: str) -> None:
    made = network(form).requires_grad_(True)
    pair = photos(64, 64, batch=2).requires_grad_(True)
    encoded, frames = made.parts(pair, torch.tensor([1.0, -1.0]))
    (frames.square().sum() + encoded.sum()).backward()
    assert [name for name, values in made.named_parameters() if not values.grad.any()] == []
    assert all(values.grad.isfinite().all() for values in made.parameters())
    assert pair.grad.any()


def test_an_untrained_residual_network_learns() -> None:
    """Its last layers, which are 0, at first."""
    made, photo = untrained("residual").requires_grad_(True), photos(64, 64)
    made(photo, torch.tensor([2.0, -2.0])).sum().backward()
    for unet in (made.longer, made.shorter):
        assert unet.last.weight.grad.any()
        assert unet.last.bias.grad.all()


def test_outputs_have_no_steps_of_half_floats(form: str) -> None:
    made, photo = network(form), photos(64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        encoded, frames = made.parts(photo, torch.tensor([1.0, -1.0]))
    for values in (encoded, frames):
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())


# ------------------------------------------------------------------------------------- any size


@pytest.mark.parametrize("length", [1, 2, 3, 33, 63, 64, 65, 100, 128, 200])
def test_what_is_missing_to_a_multiple_is_mirrored(length: int) -> None:
    places, whole = mirrored(length), round_up(length, 64)
    assert len(places) == whole
    ramp = torch.arange(float(length)).reshape(1, 1, length)
    while (missing := whole - ramp.shape[-1]) and length > 1:  # torch mirrors no more than there is
        ramp = functional.pad(ramp, (0, min(missing, length - 1)), mode="reflect")
    assert places.tolist() == (ramp.flatten().tolist() if length > 1 else [0] * whole)


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (65, 127)])
def test_any_size_is_taken(form: str, size: tuple[int, int]) -> None:
    made, photo, ev = network(form), photos(*size), torch.tensor([1.0, -1.0, 0.0])
    rows, columns = mirrored(size[0]), mirrored(size[1])
    encoded, frames = made.parts(photo, ev)
    assert encoded.shape == (1, 3, *size)
    assert frames.shape == (3, 3, *size)
    assert torch.equal(frames[2:], photo)
    filled = made(photo[:, :, rows][..., columns], ev)[..., : size[0], : size[1]]
    torch.testing.assert_close(frames, filled, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------- reach


def positive() -> VirtualBracket:
    """Return a network in double precision in which nothing cancels out."""
    made = untrained("plain").double()
    for layer in made.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.fill_(1.0 / layer.weight[0].numel())
            if layer.bias is not None:
                layer.bias.zero_()
    return made


@pytest.mark.parametrize(("along", "sign"), [(2, 1.0), (3, -1.0)])
def test_the_halo_is_the_reach_to_the_pixel(along: int, sign: float) -> None:
    """Measured as the extent of a gradient. What grows brighter away from the block is what maxima let by."""
    made, block = positive(), 64
    before = round_up(made.halo + 8, block)
    size = [block, block]
    size[along - 2] = 2 * before + block
    found = []
    for way in (-1, 1):
        ramp = 0.5 + way * torch.linspace(-0.3, 0.3, size[along - 2], dtype=torch.float64)
        shape = (1, 1, -1, 1) if along == 2 else (1, 1, 1, -1)
        photo = ramp.reshape(shape).expand(1, 3, *size).clone().requires_grad_()
        frames = made(photo, torch.tensor([sign], dtype=torch.float64))
        frames.narrow(along, before, block).sum().backward()
        seen = torch.nonzero(photo.grad.abs().sum((0, 1, 5 - along))).flatten()
        found.append(before - int(seen.min()) if way < 0 else int(seen.max()) - before - block + 1)
    assert max(found) == made.halo == reach()
    assert min(found) >= made.halo - 3


def test_a_tile_with_the_halo_equals_the_whole() -> None:
    """To 1e-12 in double precision. With half of it, it does not."""
    made, block = network("residual").double(), 64
    halo = round_up(made.halo, block)
    photo, ev = photos(2 * halo + 2 * block, block).double(), torch.tensor([1.0, -1.0], dtype=torch.float64)
    top = halo + block
    whole = made(photo, ev)[..., top : top + block, :]

    def tile(halo: int) -> torch.Tensor:
        return made(photo[..., top - halo : top + block + halo, :], ev)[..., halo : halo + block, :]

    torch.testing.assert_close(tile(halo), whole, rtol=0, atol=1e-12)
    assert (tile(round_up(halo // 2, block)) - whole).abs().max() > 1e-9


# ------------------------------------------------------------------------------------- weights file

AXES = {
    "photo": {0: "B", 2: "H", 3: "W"},
    "ev": {0: "K", 2: "h", 3: "w"},
    "frames": {0: "K", 2: "H", 3: "W"},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what writes each form once."""
    pytest.importorskip("onnx")
    folder, files = tmp_path_factory.mktemp("weights"), {}

    def write(form: str) -> Path:
        if form not in files:
            made, path = network(form), folder / f"{form}.onnx"
            example = {"photo": photos(64, 128), "ev": torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)}
            card: dict[str, Any] = {
                "architecture": "virtual_bracket",
                "config": {"width": WIDTH, **FORMS[form]},
                "halo": made.halo,
                "multiple": made.multiple,
            }
            weights.save(made, example, ["frames"], AXES, path, card)
            files[form] = path
        return files[form]

    return write


def test_engines_agree(form: str, written: Callable[[str], Path]) -> None:
    """Also where nothing goes through one of the two directions, or through both."""
    pytest.importorskip("onnxruntime")
    onnx, native = (
        open_engine(written(form), device="cpu", engine=engine, threads=1)
        for engine in ("onnxruntime", "torch")
    )
    assert onnx.card["inputs"] == ["photo", "ev"]
    for size, steps in (
        ((64, 64), [1.0]),
        ((64, 128), [-1.0]),
        ((70, 65), [0.5, -3.0, 0.0, 4.0, -0.25, 2.0]),
        ((5, 1), [-2.0, 2.0]),
        ((1, 200), [0.0]),
    ):
        given = {"photo": photos(*size).numpy(), "ev": np.array(steps, np.float32).reshape(-1, 1, 1, 1)}
        results = [engine.run(given)["frames"] for engine in (onnx, native)]
        assert results[0].shape == (len(steps), 3, *size)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
        for frame, step in zip(results[0], steps, strict=True):
            assert np.array_equal(frame, given["photo"][0]) == (step == 0)


def test_the_file_holds_the_network(form: str, written: Callable[[str], Path]) -> None:
    """All three, its normalisation as it is, and half floats of the rest."""
    read, state = weights.load_state(written(form)), network(form).state_dict()
    state = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    assert set(read) == set(state)
    assert {name.partition(".")[0] for name in read} == {"encoder", "longer", "shorter"}
    for name, values in state.items():
        exact = name.endswith(("running_mean", "running_var"))
        np.testing.assert_allclose(read[name], values.numpy(), rtol=0 if exact else 1e-3, atol=1e-7)
