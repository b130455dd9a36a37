"""The followed form of the coarse network: it begins with the merge by flow, and corrects it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import weights
from hdrmerge.errors import NetworkError
from hdrmerge.flowmerge import alike, merge_by_flow
from hdrmerge.followed import follow
from hdrmerge.infer import open_engine
from hdrmerge.scene import ramp_scene
from hdrmerge.tiles import round_up

torch = pytest.importorskip("torch")

from hdrmerge.networks import build  # noqa: E402
from hdrmerge.networks.flow import radiance  # noqa: E402
from hdrmerge.networks.followed import LEAST, PAINTED, FollowedNet, mismatch, mu_law, reach  # noqa: E402

SMALL: dict[str, Any] = {"followed": True, "width": 4, "flow": [4, 4]}
TIMES = {2: (8.0, 1.0, 8.0), 3: (1.0, 4.0, 16.0, 1.0, 4.0)}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(exposures: int = 2, size: tuple[int, int] = (16, 24), batch: int = 1) -> dict[str, torch.Tensor]:
    frames = 2 * exposures - 1
    shares = random(batch, frames, 3, *size, seed=3)
    return {
        "frames": random(batch, frames, 3, *size, seed=1),
        "between": random(batch, frames - 1, 3, *size, seed=2),
        "shares": shares / shares.sum(1, keepdim=True),
        "flows": 20 * random(batch, frames - 1, 2, *size, seed=4) - 10,
        "exposures": torch.tensor([TIMES[exposures]] * batch),
    }


def untrained(exposures: int = 2, **config: Any) -> FollowedNet:
    torch.manual_seed(1)
    return build("coarse", SMALL | {"exposures": exposures} | config).requires_grad_(False)


def network(exposures: int = 2, **config: Any) -> FollowedNet:
    """Return a network of which every part matters."""
    made = untrained(exposures, **config)
    made.correction.last.weight.normal_(std=0.05)
    for level in made.flow.levels:
        level[-1].weight.normal_(std=0.05)
    return made


@pytest.mark.parametrize("exposures", [2, 3])
def test_untrained_it_is_the_merge_by_flow(exposures: int) -> None:
    wide, times = ramp_scene(64, 120, np.random.default_rng(2)), TIMES[exposures]
    wide = wide / np.quantile(wide, 0.9) / max(times)
    light = [wide[:, 2 * n : 96 + 2 * n] for n in range(len(times))]
    linear = [np.clip(one * time, 0, 1) for one, time in zip(light, times, strict=True)]
    codes = [(np.rint(one ** (1 / 2.2) * 255) / 255).astype(np.float32) for one in linear]
    given = {
        name: torch.from_numpy(np.stack([np.moveaxis(p, -1, 0) for p in some])[None])
        for name, some in follow(codes, times).pictures().items()
    }
    wanted = np.moveaxis(merge_by_flow(codes, times, fine=True), -1, 0)
    made = untrained(exposures)
    found = made(**given, exposures=torch.tensor([times]))[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)
    assert wanted.std() > 0.01
    changed = network(exposures)(**given, exposures=torch.tensor([times]))[0].numpy()
    assert np.abs(changed - wanted).max() > 0.01


@pytest.mark.parametrize("exposures", [2, 3])
def test_the_result_is_a_mean_and_what_is_painted(exposures: int) -> None:
    made, given = network(exposures), inputs(exposures, batch=2)
    frames = 2 * exposures - 1
    flows, added, painted, radiances = made.parts(**given)
    assert flows.shape == (2, frames - 1, 2, 16, 24)
    assert added.shape == radiances.shape == (2, 2 * frames - 1, 3, 16, 24)
    assert painted.abs().max() <= PAINTED
    shares = added.clone()
    shares[:, :frames] += given["shares"]
    shares = shares.clamp(min=0)
    mean = (shares * radiances).sum(1) / shares.sum(1).clamp(min=LEAST)
    torch.testing.assert_close(mu_law(made(**given)), (mu_law(mean) + painted).clamp(min=0))
    own = radiance(given["frames"][:, exposures - 1], given["exposures"][:, exposures - 1, None, None, None])
    torch.testing.assert_close(radiances[:, exposures - 1], own)


def test_frames_are_compared_as_bright_and_as_clipped_as_each_other() -> None:
    own, other = random(1, 3, 8, 8, seed=1), random(1, 2, 3, 8, 8, seed=2)
    times = torch.tensor([8.0, 0.5]).reshape(1, 2, 1, 1, 1)
    found = mismatch(own, torch.ones(1, 1, 1, 1), other, times)
    for k, ratio in enumerate((8.0, 0.5)):
        one, two = alike(own[0].numpy(), other[0, k].numpy(), ratio)
        np.testing.assert_allclose(found[0, k].numpy(), two - one, atol=1e-6)


@pytest.mark.parametrize("exposures", [2, 3])
def test_it_sees_by_which_flow_frames_were_followed(exposures: int) -> None:
    made, given = network(exposures), inputs(exposures)
    before = made(**given)
    flat = {name: some.flatten(1, 2) if some.dim() == 5 else some for name, some in given.items()}
    torch.testing.assert_close(made(**flat), before)  # as an engine passes them
    given["flows"] = given["flows"] + 1
    assert (made(**given) - before).abs().max() > 1e-3


def test_no_more_is_painted_than_it_may() -> None:
    made, given = untrained(), inputs()
    made.correction.last.bias[-3:] = 1e3
    before = mu_law(untrained()(**given))
    torch.testing.assert_close(mu_law(made(**given)) - before, torch.full_like(before, PAINTED))


def test_a_picture_in_between_may_be_the_result() -> None:
    made, given = untrained(), inputs()
    made.correction.last.bias[:9] = -1
    made.correction.last.bias[9:12] = 1
    expected = radiance(given["between"][:, 0], torch.tensor(8.0))
    torch.testing.assert_close(made(**given), expected, rtol=1e-4, atol=1e-6)


def test_flow_leads_on_from_where_frames_were_followed_to() -> None:
    made, given = untrained(), inputs(size=(16, 32))
    made.flow.levels[0][-1].bias[:] = torch.tensor([1.0, 0.0, -1.0, 0.0])  # at half size
    flows, _, _, radiances = made.parts(**given)
    assert flows[0, :, 0, 0, 0].tolist() == [2, -2]
    plain = radiance(given["frames"], given["exposures"][:, :, None, None, None])
    torch.testing.assert_close(radiances[:, 0, ..., :-2], plain[:, 0, ..., 2:], rtol=0, atol=1e-4)
    torch.testing.assert_close(radiances[:, 2, ..., 2:], plain[:, 2, ..., :-2], rtol=0, atol=1e-4)


def test_only_the_flow_sees_the_reference_in_other_tones() -> None:
    made, given = network(), inputs()
    clean = given["frames"][:, 1].clone()
    given["frames"][:, 1] = clean**1.5
    shown, other = made.parts(**given, reference=clean), made.parts(**given)
    assert torch.equal(shown[0], other[0])
    torch.testing.assert_close(shown[3][:, 1], radiance(clean, torch.tensor(1.0)))
    for level in made.flow.levels:
        level[-1].weight.zero_()
    same = made(**{**given, "frames": torch.stack([given["frames"][:, 0], clean, given["frames"][:, 2]], 1)})
    torch.testing.assert_close(made(**given, reference=clean), same)


def test_it_is_small() -> None:
    for exposures in (2, 3):
        made = build("coarse", {"followed": True, "exposures": exposures})
        assert sum(values.numel() for values in made.parameters()) < 0.6e6
    with pytest.raises(NetworkError, match="0 levels from 1 on make no network"):
        build("coarse", {"followed": True, "levels": 0})


def test_all_parts_learn() -> None:
    """At once those that say something, the others as soon as they do."""
    made, given = untrained().requires_grad_(True), inputs(size=(32, 32))
    made(**given).square().sum().backward()
    last = [name for name, values in made.named_parameters() if values.grad.any()]
    assert "correction.last.weight" in last
    made = network().requires_grad_(True)
    made(**given).square().sum().backward()
    assert [name for name, values in made.named_parameters() if not values.grad.any()] == []


def test_outputs_have_no_steps_of_half_floats() -> None:
    made, given = network(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        found = made(**given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, made(**given), rtol=0, atol=0.05)


def test_inputs_may_be_planes() -> None:
    made, given = network(3), inputs(3, batch=2)
    planes = {name: values.flatten(1, 2) if values.dim() == 5 else values for name, values in given.items()}
    planes["exposures"] = given["exposures"][:, :, None, None].expand(-1, -1, 16, 24)
    assert torch.equal(made(**planes), made(**given))


@pytest.mark.parametrize(("finest", "flow"), [(0, 4.0), (1, 8.0)])
def test_a_tile_equals_the_whole(finest: int, flow: float) -> None:
    """To 1e-12 in double precision, flow being cut there; with a halo for none it does not."""
    made = network(largest_flow=flow, finest=finest).double()
    for level in made.flow.levels:
        level[-1].weight.mul_(1000)
    halo = round_up(made.halo, 8)
    left, side = halo + 16, 8
    given = {name: values.double() for name, values in inputs(size=(8, 2 * left + side)).items()}
    whole = made(**given)[..., left : left + side]

    def tile(halo: int) -> torch.Tensor:
        at = slice(left - halo, left + side + halo)
        cut = {name: values[..., at] if values.dim() > 2 else values for name, values in given.items()}
        return made(**cut)[..., halo : halo + side]

    assert made.halo == reach(2, finest, flow)
    torch.testing.assert_close(tile(halo), whole, rtol=0, atol=1e-12)
    assert (tile(24) - whole).abs().max() > 1e-9


@pytest.mark.parametrize("exposures", [2, 3])
def test_engines_agree_at_all_sizes(exposures: int, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    config = SMALL | {"exposures": exposures}
    made, path = network(exposures), tmp_path / "network.onnx"

    def planes(size: tuple[int, int], batch: int = 1) -> dict[str, torch.Tensor]:
        given = inputs(exposures, size, batch)
        given["exposures"] = given["exposures"][:, :, None, None]
        return {name: values.flatten(1, 2) if values.dim() == 5 else values for name, values in given.items()}

    example = planes((32, 48))
    axes = {name: {0: "B", 2: "H", 3: "W"} for name in (*example, "radiance")}
    axes["exposures"] = {0: "B"}
    card = {"architecture": "coarse", "config": config, "halo": made.halo, "multiple": made.multiple}
    weights.save(made, example, ["radiance"], axes, path, card)
    engines = [open_engine(path, device="cpu", engine=name, threads=1) for name in ("onnxruntime", "torch")]
    for size, batch in (((16, 24), 1), ((8, 16), 2), ((40, 32), 1)):
        arrays = {name: values.numpy() for name, values in planes(size, batch).items()}
        results = [engine.run(arrays)["radiance"] for engine in engines]
        assert results[0].shape == (batch, 3, *size)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
        assert results[0].std() > 0.03
