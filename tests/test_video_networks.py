"""The networks of video and what they are made of: sampling, size, composition, reach, and their files."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import exposure, weights
from hdrmerge.errors import NetworkError
from hdrmerge.infer import open_engine
from hdrmerge.tiles import round_up

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from hdrmerge.networks import build  # noqa: E402
from hdrmerge.networks.coarse import CoarseNet, radiance, reach, rematched  # noqa: E402
from hdrmerge.networks.deformable import Deformable, warp  # noqa: E402
from hdrmerge.networks.refine import (  # noqa: E402
    MU,
    SPAN,
    Displaced,
    RefineNet,
    compose,
    mu_law,
    shares_of,
    well_exposed,
)

NARROW: dict[str, dict[str, Any]] = {
    "coarse": {"flow": [6, 5, 4], "width": 8},
    "refine": {"width": 8, "groups": 2, "blocks": [1, 2]},
}
TIMES = {2: (1.0, 8.0), 3: (1.0, 4.0, 16.0)}

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="has no GPU")),
]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def clip(count: int, size: tuple[int, int], exposures: int, batch: int = 1) -> dict[str, torch.Tensor]:
    """Return frames (B, n, 3, H, W) and their exposures (B, n), which begin at the second of the cycle."""
    times = [TIMES[exposures][(frame + 1) % exposures] for frame in range(count)]
    frames = random(batch, count, 3, *size, seed=count)
    return {"frames": frames, "exposures": torch.tensor([times] * batch)}


def inputs(
    architecture: str, exposures: int, size: tuple[int, int], batch: int = 1
) -> dict[str, torch.Tensor]:
    """Return what a network takes."""
    if architecture == "coarse":
        return clip(2 * exposures - 1, size, exposures, batch)
    return {"coarse": random(batch, 3, 3, *size, seed=7)} | clip(3, size, exposures, batch)


def network(architecture: str, exposures: int = 2, **config: Any) -> CoarseNet | RefineNet:
    """Return a network of which every part matters, and whose normalisation has seen something."""
    torch.manual_seed(1)
    made = build(architecture, NARROW[architecture] | {"exposures": exposures} | config)
    made = made.requires_grad_(False)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.uniform_(-0.2, 0.2)
            layer.momentum = 1.0
        elif isinstance(layer, Displaced):
            layer.head.weight.normal_(std=0.1)
            layer.head.bias.normal_()
    if config.get("residual"):
        made.last.weight.normal_(std=0.1)
    made.train()(**inputs(architecture, exposures, (32, 48), 2))
    return made.eval()


@pytest.fixture(params=["coarse", "refine"])
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


# ------------------------------------------------------------------------------------------- warping


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -2), (-5, 4)])
def test_whole_pixels_are_fetched_as_they_are(right: int, down: int) -> None:
    """And black from beyond the border."""
    image = random(2, 3, 23, 37)
    flow = torch.tensor([right, down], dtype=torch.float32).reshape(1, 2, 1, 1).expand(2, 2, 23, 37)
    expected = torch.zeros_like(image)
    rows, columns = (slice(max(-d, 0), n - max(d, 0)) for d, n in ((down, 23), (right, 37)))
    far_rows, far_columns = (slice(max(d, 0), n - max(-d, 0)) for d, n in ((down, 23), (right, 37)))
    expected[..., rows, columns] = image[..., far_rows, far_columns]
    torch.testing.assert_close(warp(image, flow), expected, rtol=0, atol=2e-5)


def test_between_pixels_values_are_bilinear() -> None:
    image = random(1, 1, 8, 9)
    flow = torch.empty(1, 2, 8, 9)
    flow[:, 0], flow[:, 1] = 0.25, 0.5
    across = 0.75 * image[..., :, :-1] + 0.25 * image[..., :, 1:]
    expected = 0.5 * across[..., :-1, :] + 0.5 * across[..., 1:, :]
    torch.testing.assert_close(warp(image, flow)[..., :-1, :-1], expected, rtol=0, atol=1e-5)


def test_a_ramp_of_1080p_is_sampled_to_a_thousandth_of_a_pixel() -> None:
    """Under half floats, too, which know the last column but for one pixel."""
    image = torch.arange(1920, dtype=torch.float32).expand(1, 1, 2, 1920)
    flow = torch.full((1, 2, 2, 1920), 0.37) * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = warp(image, flow)
    torch.testing.assert_close(found[..., :-1], image[..., :-1] + 0.37, rtol=0, atol=1e-3)


# --------------------------------------------------------------------------- deformable convolution


def layer(width: int = 6, groups: int = 2) -> Deformable:
    torch.manual_seed(2)
    made = Deformable(width, groups).double().requires_grad_(False)
    made.bias.normal_()
    return made


@pytest.mark.parametrize("device", DEVICES)
def test_not_displaced_it_is_a_convolution(device: str) -> None:
    made, x = layer().to(device), random(2, 6, 9, 11).double().to(device)
    still, full = x.new_zeros(2, 36, 9, 11), x.new_ones(2, 18, 9, 11)
    expected = nn.functional.conv2d(x, made.weight, made.bias, padding=1)
    torch.testing.assert_close(made(x, still, full), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        made(x, still, full / 2) - made.bias[:, None, None],
        (expected - made.bias[:, None, None]) / 2,
        rtol=0,
        atol=1e-12,
    )


def by_hand(made: Deformable, x: np.ndarray, offsets: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return what the definition says, value by value."""
    (_, channels, height, width), kernel = x.shape, made.weight.numpy()
    per_group = channels // made.groups
    result = np.zeros_like(x) + made.bias.numpy()[None, :, None, None]
    for b, c, row, column, tap in np.ndindex(len(x), channels, height, width, 9):
        group, y, z = c // per_group, tap // 3, tap % 3
        moved = offsets[b, group * 18 + 2 * tap : group * 18 + 2 * tap + 2, row, column]
        at = np.array([row + y - 1, column + z - 1]) + moved
        first, value = np.floor(at).astype(int), 0.0
        for corner in np.ndindex(2, 2):
            place = first + corner
            if (place >= 0).all() and (place < (height, width)).all():
                value += float(np.prod(1 - np.abs(at - place))) * x[b, c, place[0], place[1]]
        result[b, :, row, column] += kernel[:, c, y, z] * value * masks[b, group * 9 + tap, row, column]
    return result


def test_displaced_it_is_what_the_definition_says() -> None:
    made, x = layer(width=4), random(2, 4, 5, 6).double()
    offsets, masks = 5 * random(2, 36, 5, 6, seed=1).double() - 2.5, random(2, 18, 5, 6, seed=2).double()
    expected = by_hand(made, x.numpy(), offsets.numpy(), masks.numpy())
    np.testing.assert_allclose(made(x, offsets, masks).numpy(), expected, rtol=0, atol=1e-12)


def test_its_gradients_are_right() -> None:
    """Of positions that are not at a pixel's centre, where bilinear values have a kink."""
    made = Deformable(2, 1).double()
    x, masks = random(1, 2, 2, 3).double(), random(1, 9, 2, 3, seed=1).double()
    offsets = torch.randint(-1, 2, (1, 18, 2, 3), generator=torch.Generator().manual_seed(2))
    offsets = offsets + 0.2 + 0.6 * random(1, 18, 2, 3, seed=3).double()
    given = [values.requires_grad_() for values in (x, offsets, masks)]
    assert torch.autograd.gradcheck(lambda *_: made(*given), [*given, made.weight, made.bias])


def test_torchvision_orders_offsets_alike() -> None:
    operators = pytest.importorskip("torchvision.ops")
    made, x = layer(), random(1, 6, 9, 11).double()
    offsets, masks = 6 * random(1, 36, 9, 11, seed=1).double() - 3, random(1, 18, 9, 11, seed=2).double()
    expected = operators.deform_conv2d(x, offsets, made.weight, made.bias, padding=1, mask=masks)
    torch.testing.assert_close(made(x, offsets, masks), expected, rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------- size, cost


def count(module: nn.Module) -> int:
    return sum(values.numel() for values in module.parameters())


@pytest.mark.parametrize(
    ("exposures", "wide", "flow", "blending"),
    [
        (2, False, 907_145, 2_077_711),
        (3, False, 1_032_165, 2_095_771),
        (2, True, 907_145, 2_525_071),
        (3, True, 1_032_165, 2_549_659),
    ],
)
def test_the_size_of_the_coarse_network(exposures: int, wide: bool, flow: int, blending: int) -> None:
    with torch.device("meta"):
        made = build("coarse", {"exposures": exposures, "wide": wide})
    assert (count(made.flow), count(made.weights), count(made)) == (flow, blending, flow + blending)
    normalised = [layer for layer in made.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(normalised) == (11 if exposures == 2 else 0)
    assert len({id(level) for level in made.flow.levels}) == 5


@pytest.mark.parametrize(("exposures", "parameters"), [(2, 3_010_019), (3, 3_008_291)])
def test_the_size_of_the_refining_network(exposures: int, parameters: int) -> None:
    with torch.device("meta"):
        made = build("refine", {"exposures": exposures})
    assert (count(made), count(made.alignment), count(made.fusion)) == (parameters, 1_384_288, 123_072)


@pytest.mark.parametrize(
    ("architecture", "config", "expected"),
    [
        ("coarse", {}, 181_250 * (1 + 1 / 4 + 1 / 16 + 1 / 64 + 1 / 256) + 101_024),
        ("refine", {}, 3 * 110_592 + 3 * 203_256 + 86_016 + 292_544),
        ("coarse", {"finest": 1}, 181_250 * (1 / 4 + 1 / 16 + 1 / 64 + 1 / 256 + 1 / 1024) + 101_024),
    ],
)
def test_multiplications_a_pixel(
    architecture: str, config: dict[str, Any], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of convolutions, counted without computing, as the widths say: flow and weights; features, alignment,
    fusion and reconstruction."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which does not know "meta"
    given = {name: values.to("meta") for name, values in inputs(architecture, 2, (320, 576)).items()}
    with torch.device("meta"):
        made = build(architecture, config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        assert made(**given).shape == (1, 3, 320, 576)
    assert counter.get_total_flops() / 2 / (320 * 576) == pytest.approx(expected, rel=1e-9)


def test_configurations_that_make_no_network_are_refused() -> None:
    with pytest.raises(NetworkError, match="1 exposures"):
        build("coarse", {"exposures": 1})
    with pytest.raises(NetworkError, match="5 groups do not divide 64 channels"):
        build("refine", {"groups": 5})


# ------------------------------------------------------------------------------------ coarse network


def test_codes_at_other_exposures() -> None:
    """The sheet's number, and clipping at 0.5325."""
    codes = torch.tensor([0.0, 0.5, 0.532, 0.533])
    found = rematched(codes, torch.tensor(1.0), torch.tensor(4.0))
    expected = [0, 0.5 * 4 ** (1 / 2.2), 0.532 * 4 ** (1 / 2.2), 1]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    torch.testing.assert_close(radiance(found[:3], torch.tensor(4.0)), radiance(codes[:3], torch.tensor(1.0)))


@pytest.mark.parametrize("exposures", [2, 3])
def test_pairs_have_one_exposure(exposures: int) -> None:
    made, times = network("coarse", exposures), clip(2 * exposures - 1, (16, 16), exposures)["exposures"][0]
    assert made.order == ([0, 2] if exposures == 2 else [0, 3, 1, 4])
    for one, other in zip(made.order[::2], made.order[1::2], strict=True):
        assert times[one] == times[other] != times[exposures - 1]


@pytest.mark.parametrize("exposures", [2, 3])
def test_the_coarse_result_is_the_weighted_mean(exposures: int) -> None:
    made, given = network("coarse", exposures), inputs("coarse", exposures, (32, 48), 2)
    flows, shares, radiances = made.parts(**given)
    neighbours = 2 * exposures - 2
    assert flows.shape == (2, neighbours, 2, 32, 48)
    assert shares.shape == radiances.shape == (2, 1 + 2 * neighbours, 3, 32, 48)
    assert shares.min() >= 0
    assert shares.max() <= 1
    found = made(**given)
    torch.testing.assert_close(found, (shares * radiances).sum(1) / shares.sum(1), rtol=0, atol=1e-5)
    assert (found >= radiances.amin(1) - 1e-6).all()
    assert (found <= radiances.amax(1) + 1e-6).all()
    codes, times = given["frames"], given["exposures"]
    for place, frame in enumerate([exposures - 1, *made.order]):
        linear = codes[:, frame] ** 2.2 / times[:, frame, None, None, None]
        at = place if place == 0 else place + neighbours
        torch.testing.assert_close(radiances[:, at], linear, rtol=0, atol=1e-6)


def test_pictures_are_fetched_from_where_flow_says() -> None:
    """Flow of the coarsest scale alone, 3 px there, is 48 px at full size."""
    made, given = network("coarse"), inputs("coarse", 2, (32, 160))
    for level in made.flow.levels:
        level[-1].weight.zero_()
        level[-1].bias.zero_()
    made.flow.levels[-1][-1].bias[:] = torch.tensor([3.0, 0.0, -3.0, 0.0])
    flows, _, radiances = made.parts(**given)
    torch.testing.assert_close(flows[:, 0, 0], torch.full((1, 32, 160), 48.0))
    torch.testing.assert_close(flows[:, 1, 0], torch.full((1, 32, 160), -48.0))
    torch.testing.assert_close(radiances[:, 1, ..., :-48], radiances[:, 3, ..., 48:], rtol=0, atol=1e-4)
    torch.testing.assert_close(radiances[:, 2, ..., 48:], radiances[:, 4, ..., :-48], rtol=0, atol=1e-4)
    made.flow.levels[-1][-1].bias[:] = 1e6
    assert made.parts(**given)[0].max() == 200


def test_one_picture_alone_is_the_result() -> None:
    made, given = network("coarse"), inputs("coarse", 2, (16, 16))
    made.weights.last.weight.zero_()
    made.weights.last.bias.fill_(-40.0)
    made.weights.last.bias[:3] = 40.0
    expected = radiance(given["frames"][:, 1], given["exposures"][:, 1, None, None, None])
    torch.testing.assert_close(made(**given), expected, rtol=0, atol=1e-6)


def test_the_sum_may_have_another_reference_than_the_networks_see() -> None:
    made, given = network("coarse"), inputs("coarse", 2, (16, 16))
    clean = random(1, 3, 16, 16, seed=5)
    shown, other = made.parts(**given), made.parts(**given, reference=clean)
    for before, after in zip(shown[:2], other[:2], strict=True):
        assert torch.equal(before, after)
    assert torch.equal(shown[2][:, 1:], other[2][:, 1:])
    own = clean**2.2 / given["exposures"][:, 1, None, None, None]
    torch.testing.assert_close(other[2][:, 0], own, rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------- refining network


def exposed(which: str) -> torch.Tensor:
    """Return exposures of three frames of which the second is the low, the middle or the high one."""
    order = {"low": (16.0, 1.0, 4.0), "middle": (1.0, 4.0, 16.0), "high": (4.0, 16.0, 1.0)}[which]
    return torch.tensor([order])


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("low", [0, 0.25, 1, 1, 1, 1]),
        ("middle", [0, 0.25, 1, 1, 0.25, 0]),
        ("high", [1, 1, 1, 1, 0.25, 0]),
    ],
)
def test_where_a_reference_is_well_exposed(which: str, expected: list[float]) -> None:
    codes = torch.tensor([0, 0.075, 0.15, 0.9, 0.95, 1]).expand(1, 3, 1, 6)
    found = well_exposed(codes, exposed(which), 1)
    torch.testing.assert_close(found, torch.tensor(expected).expand(1, 3, 1, 6), rtol=0, atol=1e-5)
    hard = well_exposed(codes, exposed(which), 1, hard=True)
    assert hard.shape == (1, 1, 1, 6)
    assert hard.flatten().tolist() == [float(value == 1) for value in expected]


def test_hard_masks_look_at_all_channels() -> None:
    """Dark where all are dark, bright where one is bright; soft ones each at its own."""
    codes = torch.tensor([[[0.1, 0.1, 0.5]], [[0.1, 0.5, 0.5]], [[0.1, 0.1, 0.95]]]).unsqueeze(0)
    assert well_exposed(codes, exposed("middle"), 1, hard=True).flatten().tolist() == [0, 1, 0]
    soft = well_exposed(codes, exposed("middle"), 1)[0, :, 0]
    dark = (0.1 / 0.15) ** 2
    expected = torch.tensor([[dark, dark, 1], [dark, 1, 1], [dark, dark, 0.25]])
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-5)


def test_two_exposures_have_a_low_and_a_high_one() -> None:
    """Also if the camera is off by a tenth of a stop."""
    codes = torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)
    assert well_exposed(codes, torch.tensor([[8.0, 1.05, 7.7]]), 1)[0, 0, 0].tolist() == [0, 1]
    assert well_exposed(codes, torch.tensor([[1.0, 7.7, 1.05]]), 1)[0, 0, 0].tolist() == [1, 0]
    assert well_exposed(codes, torch.tensor([[1.0, 8.0, 1.07]]), 2)[0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize("residual", [False, True])
def test_well_exposed_pixels_are_the_coarse_ones(residual: bool) -> None:
    made, given = network("refine", residual=residual), inputs("refine", 2, (16, 16))
    given["frames"][:, 1, :, :8] = 0.5
    features = [
        made.extract(given["coarse"][:, frame], given["frames"][:, frame], given["exposures"], frame)
        for frame in range(3)
    ]
    before, own, after = features
    painted = made.merge(
        before.scales, own, after.scales, given["coarse"], given["frames"][:, 1], given["exposures"]
    )
    mask = well_exposed(given["frames"][:, 1], given["exposures"], 1)
    found = made(**given)
    torch.testing.assert_close(found, compose(mask, given["coarse"][:, 1], painted), rtol=0, atol=1e-6)
    assert torch.equal(found[..., :8, :], given["coarse"][:, 1, :, :8])
    assert (found[..., 8:, :] - given["coarse"][:, 1, :, 8:]).abs().max() > 0.01
    assert residual or (painted.min() >= 0 and painted.max() <= 1)


def test_the_residual_form_begins_with_the_coarse_result() -> None:
    torch.manual_seed(1)
    made, given = build("refine", NARROW["refine"] | {"residual": True}), inputs("refine", 2, (16, 16))
    given["coarse"][:, 1] *= 3
    torch.testing.assert_close(made(**given), given["coarse"][:, 1], rtol=1e-5, atol=1e-6)


DARK_FRAME, CLIPPED_FRAME = (8.0, 1.0, 8.0), (1.0, 8.0, 1.0)  # exposures, the frame's in the middle


@pytest.mark.parametrize(
    ("times", "recorded", "results", "expected"),
    [
        (DARK_FRAME, 0.004, (0.004, 0.004, 0.004), (1 / 2.034, 1 / 2.034)),
        (DARK_FRAME, 0.004, (0.03, 0.004, 0.03), (0, 0)),  # they agree with each other, not with the record
        (DARK_FRAME, 0.004, (0.004, 0.004, 0.03), (1 / 1.034, 0)),
        (DARK_FRAME, 0.004, (0.004, 0.006, 0.004), (0.484, 0.484)),  # the record counts, not the result
        (CLIPPED_FRAME, 1.0, (0.3, 0.3, 0.3), (1 / 2.4, 1 / 2.4)),
        (CLIPPED_FRAME, 1.0, (0.05, 0.3, 0.3), (0, 1 / 1.4)),  # what is darker was not clipped
        (CLIPPED_FRAME, 1.0, (0.6, 0.3, 0.3), (0.1235, 0.627)),  # what is brighter may have been
    ],
)
def test_neighbours_have_shares_as_far_as_the_record_says(
    times: tuple[float, ...],
    recorded: float,
    results: tuple[float, ...],
    expected: tuple[float, float],
) -> None:
    coarse = torch.tensor(results).reshape(1, 3, 1, 1, 1).expand(1, 3, 3, 12, 12)
    codes = torch.full((1, 3, 12, 12), recorded ** (1 / 2.2))
    found = shares_of(coarse, mu_law(coarse), codes, torch.tensor([times])).reshape(2, 3, 12, 12)
    wanted = torch.tensor(expected, dtype=torch.float32).reshape(2, 1, 1, 1).expand_as(found)
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-3)


def test_noise_of_the_record_is_no_difference() -> None:
    coarse = torch.full((1, 3, 3, 32, 32), 0.004)
    noise = 1e-3 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    codes = (coarse[:, 1] + noise).clamp(min=0) ** (1 / 2.2)
    times = torch.tensor([DARK_FRAME])
    found = shares_of(coarse, mu_law(coarse), codes, times)
    assert found.median() > 0.4
    coarse[:, 2] = 0.008
    found = shares_of(coarse, mu_law(coarse), codes, times)
    assert found[:, :3].median() > 0.8
    assert found[:, 3:].median() < 0.1


def followed_refiner() -> RefineNet:
    torch.manual_seed(1)
    return build("refine", NARROW["refine"] | {"residual": True, "followed": True}).requires_grad_(False)


def test_the_followed_form_begins_with_what_the_record_confirms() -> None:
    made, given = followed_refiner(), inputs("refine", 2, (16, 16))
    given["exposures"] = torch.tensor([CLIPPED_FRAME])
    given["coarse"][:, ::2] = given["coarse"][:, 1:2] * 1.02
    given["frames"] = (given["coarse"] * given["exposures"][:, :, None, None, None]).clamp(max=1) ** (1 / 2.2)
    codes, times = given["frames"][:, 1], given["exposures"]
    tones = mu_law(given["coarse"])
    shares = shares_of(given["coarse"], tones, codes, times).reshape(1, 2, 3, 16, 16)
    mended = tones[:, 1] + (shares * (tones[:, ::2] - tones[:, 1:2])).sum(1)
    wanted = compose(well_exposed(codes, times, 1), given["coarse"][:, 1], torch.expm1(mended * SPAN) / MU)
    torch.testing.assert_close(made(**given), wanted, rtol=1e-4, atol=1e-6)
    assert (wanted - given["coarse"][:, 1]).abs().max() > 1e-3
    given["coarse"][:, ::2] = given["coarse"][:, 1:2]
    torch.testing.assert_close(made(**given), given["coarse"][:, 1], rtol=1e-5, atol=1e-6)


def test_the_followed_form_adds_to_the_shares_of_neighbours() -> None:
    made, given = followed_refiner(), inputs("refine", 2, (16, 16))
    given["exposures"] = torch.tensor([DARK_FRAME])
    given["frames"][:, 1] = 0.05  # which no result agrees with
    given["coarse"][:, 0], given["coarse"][:, 1], given["coarse"][:, 2] = 0.5, 0.001, 0.05
    made.last.bias[6:] = 100  # the frame after, in all channels
    mask = well_exposed(given["frames"][:, 1], given["exposures"], 1)
    wanted = compose(mask, given["coarse"][:, 1], given["coarse"][:, 2])
    torch.testing.assert_close(made(**given), wanted, rtol=1e-3, atol=1e-5)
    with pytest.raises(NetworkError, match="a residual one; state both"):
        build("refine", NARROW["refine"] | {"followed": True})


def test_mu_law_is_that_of_the_formulas() -> None:
    values = np.array([0, 1e-4, 0.01, 1, 3], np.float32)
    np.testing.assert_allclose(mu_law(torch.from_numpy(values)).numpy(), exposure.mu_law(values), atol=1e-6)


def test_photographs_are_put_in_where_well_exposed() -> None:
    """Only for the features, and only from 0.40 on: below it features change, above it they do not."""
    made, given = network("refine", substitute=True), inputs("refine", 2, (16, 16))
    times = given["exposures"]
    assert times[0, 0] > times[0, 1]
    low = torch.full((1, 3, 16, 16), 0.41)
    one, other = (made.extract(random(1, 3, 16, 16, seed=seed), low, times, 1) for seed in (1, 2))
    assert torch.equal(one.full, other.full)
    own = radiance(low, times[:, 1, None, None, None])
    plain = network("refine")
    assert torch.equal(plain.extract(own, low, times, 1).full, one.full)
    one, other = (made.extract(random(1, 3, 16, 16, seed=seed), low - 0.02, times, 1) for seed in (1, 2))
    assert not torch.equal(one.full, other.full)


def test_three_exposures_have_no_masks() -> None:
    assert build("refine", NARROW["refine"]).extractor.to_full[0].in_channels == 6
    assert build("refine", NARROW["refine"] | {"exposures": 3}).extractor.to_full[0].in_channels == 3


def test_features_follow_a_neighbour_by_offsets() -> None:
    """A neighbour that is shifted by 2 px of half size is aligned by offsets that say so."""
    made = network("refine")
    cascade = made.alignment.cascade.displaced
    cascade.head.weight.zero_()
    cascade.head.bias.zero_()
    wide = random(1, 8, 16, 24)
    frame, shifted = wide[..., 4:20], wide[..., 2:18]
    where = torch.zeros(1, 8, 16, 16)
    straight = cascade(frame, where)
    cascade.head.bias[:36].view(2, 9, 2)[..., 1] = 2.0
    torch.testing.assert_close(cascade(shifted, where)[..., 1:-3], straight[..., 1:-3], rtol=0, atol=1e-5)


def test_offsets_are_handed_up_in_pixels_of_the_finer_scale() -> None:
    """Twice as many; aligned features as they are."""
    made, given = network("refine"), [random(1, 8, 32 >> scale, 48 >> scale) for scale in (1, 2, 3)]
    fine, below = made.alignment.scales[0], made.alignment.scales[1]
    found, seen = {}, {}
    below.register_forward_hook(lambda _, __, output: found.update(aligned=output[0], where=output[1]))
    fine.join.register_forward_pre_hook(lambda _, taken: seen.update(where=taken[0][:, 8:]))
    fine.fuse.register_forward_pre_hook(lambda _, taken: seen.update(aligned=taken[0][:, 8:]))
    made.alignment(given, given)
    for name, times in (("where", 2), ("aligned", 1)):
        doubled = nn.functional.interpolate(found[name], scale_factor=2, mode="bilinear")
        assert doubled.abs().max() > 0.01
        torch.testing.assert_close(seen[name], times * doubled)


def test_attention_weights_the_features_of_each_frame() -> None:
    """It is not bounded: here 1.5, then by what reference and frame are."""
    fusion = network("refine").fusion
    three, last = [random(1, 8, 6, 7, seed=seed) for seed in range(3)], fusion.attention[-1]
    attended = [frame * fusion.attention(torch.cat([three[1], frame], 1)) for frame in three]
    torch.testing.assert_close(fusion(three), fusion.join(torch.cat(attended, 1)))
    last.weight.zero_()
    last.bias.fill_(1.5)
    torch.testing.assert_close(fusion(three), fusion.join(1.5 * torch.cat(three, 1)))


def test_a_reference_may_stay_as_it_is() -> None:
    """Then only its neighbours are aligned."""
    made, given = network("refine", align_reference=False), inputs("refine", 2, (16, 16))
    calls: list[int] = []
    made.alignment.register_forward_hook(lambda *_: calls.append(1))
    made(**given)
    assert len(calls) == 2
    made.align_reference = True
    made(**given)
    assert len(calls) == 5


# --------------------------------------------------------------------------------------------- both


@pytest.mark.parametrize("exposures", [2, 3])
def test_all_parts_learn(architecture: str, exposures: int) -> None:
    made = network(architecture, exposures).requires_grad_(True)
    made(**inputs(architecture, exposures, (64, 64), 2)).square().sum().backward()
    assert [name for name, values in made.named_parameters() if not values.grad.any()] == []


def test_outputs_have_no_steps_of_half_floats(architecture: str) -> None:
    made, given = network(architecture), inputs(architecture, 2, (32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        found = made(**given)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(found, made(**given), rtol=0, atol=0.05)


@pytest.mark.parametrize("exposures", [2, 3])
def test_inputs_may_be_planes(architecture: str, exposures: int) -> None:
    """As an engine passes them, and exposures as planes, which tiles are cut from."""
    made, given = network(architecture, exposures), inputs(architecture, exposures, (32, 48), 2)
    planes = {name: values.flatten(1, 2) for name, values in given.items() if values.dim() == 5}
    for size in ((1, 1), (32, 48)):
        planes["exposures"] = given["exposures"][:, :, None, None].expand(-1, -1, *size)
        assert torch.equal(made(**planes), made(**given))


# --------------------------------------------------------------------------------------------- reach


def tile(made: nn.Module, given: dict[str, torch.Tensor], left: int, halo: int, side: int) -> torch.Tensor:
    cut = {
        name: values[..., left - halo : left + side + halo] if values.dim() == 5 else values
        for name, values in given.items()
    }
    return made(**cut)[..., halo : halo + side]


@pytest.mark.parametrize(("finest", "flow"), [(0, 48.0), (1, 64.0)])
def test_a_tile_equals_the_whole_as_far_as_flow_leads(finest: int, flow: float) -> None:
    """To 1e-12 in double precision, flow being cut there; with a halo for none it does not."""
    made = network("coarse", largest_flow=flow, finest=finest, levels=2).double()
    for level in made.flow.levels:
        level[-1].weight.mul_(1000)
    multiple, still = made.multiple, reach(2, finest)
    assert made.halo == reach(2, finest, flow) > still + multiple
    halo = round_up(made.halo, multiple)
    left, side = halo + 2 * multiple, multiple
    given = inputs("coarse", 2, (multiple, 2 * left + side))
    given = {name: values.double() for name, values in given.items()}
    whole = made(**given)[..., left : left + side]
    assert made.parts(**given)[0].abs().max() == flow
    torch.testing.assert_close(tile(made, given, left, halo, side), whole, rtol=0, atol=1e-12)
    assert (tile(made, given, left, round_up(still, multiple), side) - whole).abs().max() > 1e-6


def test_a_tile_of_the_refining_network_equals_the_whole() -> None:
    """To 1e-12 in double precision, as long as offsets keep to 4 px."""
    made = network("refine").double()
    largest: list[float] = []
    for part in made.modules():
        if isinstance(part, Displaced):
            part.head.bias.zero_()
            part.head.weight.mul_(0.2)
            part.head.register_forward_hook(
                lambda layer, _, out: largest.append(float(out[:, : 2 * out.shape[1] // 3].abs().max()))
            )
    halo, side = round_up(made.halo, 8), 8
    left = halo + 16
    given = {k: v.double() for k, v in inputs("refine", 2, (16, 2 * left + side)).items()}
    whole = made(**given)[..., left : left + side]
    assert 1 < max(largest) < 4
    torch.testing.assert_close(tile(made, given, left, halo, side), whole, rtol=0, atol=1e-12)
    assert (tile(made, given, left, 16, side) - whole).abs().max() > 1e-6


# -------------------------------------------------------------------------------------- weights file


@pytest.mark.parametrize(("architecture", "exposures"), [("coarse", 2), ("coarse", 3), ("refine", 2)])
def test_engines_agree_at_all_sizes(architecture: str, exposures: int, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    config = NARROW[architecture] | {"exposures": exposures}
    if architecture == "refine":
        config["align_reference"] = False  # a third of the graph
    made, path = network(architecture, **config), tmp_path / "network.onnx"

    def planes(size: tuple[int, int], batch: int = 1) -> dict[str, torch.Tensor]:
        given = inputs(architecture, exposures, size, batch)
        given["exposures"] = given["exposures"][:, :, None, None]
        return {name: values.flatten(1, 2) if values.dim() == 5 else values for name, values in given.items()}

    example = planes((32, 48))
    axes = {name: {0: "B", 2: "H", 3: "W"} for name in (*example, "radiance")}
    axes["exposures"] = {0: "B"}
    card = {"architecture": architecture, "config": config, "halo": made.halo, "multiple": made.multiple}
    weights.save(made, example, ["radiance"], axes, path, card)
    onnx = open_engine(path, device="cpu", engine="onnxruntime", threads=1)
    native = open_engine(path, device="cpu", engine="torch", threads=1)
    multiple = made.multiple
    for rows, columns, batch in ((2, 3, 1), (1, 2, 2), (5, 4, 1)):
        given = planes((rows * multiple, columns * multiple), batch)
        arrays = {name: values.numpy() for name, values in given.items()}
        results = [engine.run(arrays)["radiance"] for engine in (onnx, native)]
        assert results[0].shape == (batch, 3, rows * multiple, columns * multiple)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
        assert results[0].std() > 0.03
