"""The lesson of HDR-GAN: which frames it shows, in which unit, and that it learns through both phases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import noise, write_examples  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from hdrmerge.align import Alignment  # noqa: E402
from hdrmerge.bracket import Bracket, Frame, Shot  # noqa: E402
from hdrmerge.deghost import Ghosts  # noqa: E402
from hdrmerge.errors import NetworkError  # noqa: E402
from hdrmerge.exposure import Float, NoiseModel, Response, mu_law, mu_law_inverse  # noqa: E402
from hdrmerge.fuse import fuse  # noqa: E402
from hdrmerge.infer import Arrays, Engine  # noqa: E402
from hdrmerge.networks import build  # noqa: E402
from hdrmerge.training import train as loop  # noqa: E402
from hdrmerge.training.batches import Batch, collate, cut_patch  # noqa: E402
from hdrmerge.training.hdrgan import HdrGanLesson, HdrGanRecipe, classical, triplet  # noqa: E402
from hdrmerge.training.train import State, design_in, load_mean, resume, save, train  # noqa: E402
from hdrmerge.training.validate import tensors_of  # noqa: E402

NARROW: dict[str, Any] = {"width": 4, "residual": True}
RECIPE = HdrGanRecipe(config=NARROW, budget=100.0, batch=2, size=80)
JUDGED = replace(RECIPE, adversarial=0.5, gan_weight=0.01)
RADIANCES = (0.04, 0.2, 0.6, 0.9)


def code_of(radiance: float) -> float:
    return float(mu_law(np.float32([radiance]))[0])


def bracket(stops: tuple[tuple[float, ...], ...], size: int = 4) -> tuple[Tensor, Tensor]:
    """Return reference and frames of patches; frame k of all is as bright as `RADIANCES`[k + 1]."""
    reference = torch.zeros(len(stops), 7, size, size)
    reference[:, :3] = code_of(RADIANCES[0])
    frames = torch.zeros(len(stops), len(stops[0]), 10, size, size)
    for k, radiance in enumerate(RADIANCES[1 : 1 + len(stops[0])]):
        frames[:, k, :3] = code_of(radiance)
    frames[:, :, 4] = 1
    frames[:, :, 8] = torch.tensor(stops)[..., None, None] / 8
    return reference, frames


def seen(radiance: float, stops: float, scale: float) -> tuple[float, float]:
    """Return code value and mu-law radiance as the network takes them, in [-1, 1]."""
    own = min(radiance * 2.0**stops, 1.0) ** (1 / 2.2)
    return 2 * own - 1, 2 * code_of(min(radiance / scale, 1.0)) - 1


def test_the_nearest_neighbours_are_chosen_patch_by_patch() -> None:
    """Shortest first, in any order, and where one side or both have none."""
    reference, frames = bracket(((-4.0, -2.0, 3.0), (1.0, 3.0, -3.0), (1.0, 4.0, 2.0), (-1.0, -2.0, -3.0)))
    found = triplet(reference, frames)
    assert found.scale.flatten().tolist() == [4.0, 8.0, 1.0, 2.0]
    dark, *others = RADIANCES
    expected = [  # radiance and stops of low, and of high
        ((others[1], -2.0), (others[2], 3.0)),
        ((others[2], -3.0), (others[0], 1.0)),
        ((dark, 0.0), (others[0], 1.0)),
        ((others[0], -1.0), (dark, 0.0)),
    ]
    for row, (low, high) in enumerate(expected):
        scale = float(found.scale[row])
        for planes, frame in ((found.low, low), (found.reference, (dark, 0.0)), (found.high, high)):
            assert tuple(planes.shape) == (4, 6, 4, 4)
            for half, value in enumerate(seen(*frame, scale)):
                assert torch.allclose(planes[row, 3 * half : 3 * half + 3], torch.tensor(value), atol=2e-5)


def test_a_frame_of_the_same_exposure_is_no_neighbour() -> None:
    reference, frames = bracket(((0.0, 0.0),))
    found = triplet(reference, frames)
    assert torch.equal(found.low, found.reference)
    assert torch.equal(found.high, found.reference)


def test_inputs_keep_to_their_range() -> None:
    """Whatever interpolation made of a frame that is clipped."""
    reference, frames = bracket(((-2.0, 2.0),))
    frames[:, 0, :3], frames[:, 1, :3], reference[:, :3] = code_of(4.4), code_of(0.3), code_of(1.2)
    found = triplet(reference, frames)
    for planes in (found.low, found.reference, found.high):
        assert float(planes.abs().max()) <= 1.0
    assert torch.equal(found.low, torch.ones_like(found.low))


def test_the_truth_is_in_the_unit_of_the_network_and_ends_where_low_clips() -> None:
    reference, frames = bracket(((-2.0, 2.0), (1.0, 2.0)))
    found = triplet(reference, frames)
    for radiance, expected in ((0.5, (0.125, 0.5)), (2.0, (0.5, 1.0)), (6.0, (1.0, 1.0))):
        truth = torch.full((2, 3, 4, 4), code_of(radiance))
        target = found.target(truth)
        for row, value in enumerate(expected):
            assert torch.allclose(target[row], torch.tensor(2 * code_of(value) - 1), atol=2e-5)


def test_the_reference_stands_in_where_a_frame_does_not_reach() -> None:
    reference, frames = bracket(((-2.0, 2.0),))
    frames[:, 0, 4, :, :2] = 0
    found = triplet(reference, frames)
    for columns, radiance in ((slice(2), RADIANCES[0]), (slice(2, 4), RADIANCES[1])):
        for half, value in enumerate(seen(radiance, -2.0, 4.0)):
            planes = found.low[0, 3 * half : 3 * half + 3, :, columns]
            assert torch.allclose(planes, torch.tensor(value), atol=2e-5)


def test_an_output_is_painted_where_the_gate_is_open_and_its_range_has_not_ended() -> None:
    """Half open, half of the way in linear light; 4.0 is where low clips, and the merge goes on."""
    three = triplet(*bracket(((-2.0, 2.0),)))
    gate = torch.ones(1, 1, 4, 4)
    gate[..., 0], gate[..., 1] = 0, 0.5
    output = three.target(torch.full((1, 3, 4, 4), code_of(0.6)))
    for merged, expected in ((0.2, (0.2, 0.4, 0.6)), (4.0, (4.0, 4.0, 4.0)), (3.9, (3.9, 3.075, 2.25))):
        before = torch.full((1, 3, 4, 4), code_of(merged))
        found = three.painted(before, output, gate)
        for column, value in enumerate(expected):
            assert np.allclose(mu_law_inverse(found[..., column].numpy()), value, rtol=1e-3)
        assert torch.equal(found[..., 0], before[..., 0])


def test_the_error_counts_the_gate_again() -> None:
    """Half of the patch is open, and a quarter of it wrong by 0.4 in the second output alone."""
    lesson = HdrGanLesson(replace(RECIPE, gate_weight=2.0))
    gate = torch.zeros(1, 1, 4, 4)
    gate[..., :2] = 1
    truth = torch.zeros(1, 3, 4, 4)
    wrong = truth.clone()
    wrong[..., 0] = 0.4
    assert float(lesson.error([truth, wrong], truth, gate)) == pytest.approx(0.1 + 2 * 0.2)
    assert float(lesson.error([truth, wrong], truth, torch.zeros_like(gate))) == pytest.approx(0.1)


def flat(network: nn.Module) -> Tensor:
    """Return all weights as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


class Watcher(Engine):
    """Keeps what a network is given."""

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        self.seen = dict(inputs)
        return {"radiance": inputs["reference"][:, 3:]}

    def describe(self) -> str:
        return "watcher"

    def free_memory(self) -> float:
        return 1e9


def test_training_shows_what_work_shows() -> None:
    """The inputs that `fuse.py` makes of frames are those made here of an example's planes."""
    rng = np.random.default_rng(0)
    stops, size = (-2.0, 0.0, 2.0), 64
    codes = [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in stops]
    taken = tuple(
        Frame(
            Shot(Path(), exposure_time=2.0**n / 100), code, Response.named("srgb"), NoiseModel.from_iso(100)
        )
        for n, code in zip(stops, codes, strict=True)
    )
    names = ["low", "reference", "high", "merged"]
    card = {"halo": 61, "multiple": 4, "bytes_per_pixel": 1000, "architecture": "hdrgan", "inputs": names}
    watcher = Watcher(Path(), card, "cpu", "fp32")
    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones((size, size), np.float32))
    radiance = (6 * rng.random((size, size, 3)) ** 4).astype(np.float32)  # some beyond 4.0, where low clips
    merged = torch.from_numpy(np.moveaxis(mu_law(radiance), -1, 0)[None].copy())
    fuse(radiance, Bracket(taken, 1), [Alignment("none", np.eye(3))] * 3, ghosts, watcher)
    planes = [
        torch.from_numpy(np.moveaxis(mu_law(frame.linear() / np.float32(2.0**n)), -1, 0).copy())
        for n, frame in zip(stops, taken, strict=True)
    ]
    reference, frames = bracket(((-2.0, 2.0),), size)
    frames[0, 0, :3], reference[0, :3], frames[0, 1, :3] = planes
    found = triplet(reference, frames)
    assert list(watcher.seen) == names
    for name in names[:3]:
        assert np.abs(getattr(found, name).numpy() - watcher.seen[name]).max() < 1e-4
    assert np.abs(found.target(merged).numpy() - watcher.seen["merged"]).max() < 1e-5


# --- learning -------------------------------------------------------------------------------------


def learnable(seed: int) -> Batch:
    """Return patches whose truth is a part of the reference."""
    example = noise(seed, 2, (80, 80))
    example.frames[1, 8] = np.float16(2 / 8)
    example.truth[:] = example.reference[:3] * np.float16(0.9)
    patch = cut_patch(example, np.random.default_rng(seed), 80, 2)
    assert patch is not None
    return collate([patch])


@pytest.mark.parametrize("residual", [True, False])
def test_twenty_steps_lower_the_loss(residual: bool) -> None:
    lesson = HdrGanLesson(replace(RECIPE, config={"width": 4, "residual": residual}, rate=3e-3))
    for group in lesson.optimizer.param_groups:
        group["lr"] = 3e-3
    batches = [learnable(seed) for seed in range(2)]
    losses = [lesson.step(batches[step % 2], 0.0) for step in range(20)]
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


def test_the_discriminator_joins_in_at_the_end_of_the_budget() -> None:
    lesson = HdrGanLesson(JUDGED)
    assert lesson.discriminator is not None
    before = {name: value.clone() for name, value in lesson.discriminator.named_parameters()}

    def moved() -> bool:
        now = dict(lesson.discriminator.named_parameters())  # type: ignore[union-attr]
        return any(not torch.equal(before[name], value) for name, value in now.items())

    batch = learnable(0)
    lesson.step(batch, 0.49)
    assert not moved()
    value = lesson.step(batch, 0.5)
    assert moved()
    assert 0 < value < 4  # the error alone
    assert all(parameter.requires_grad for parameter in lesson.discriminator.parameters())
    assert HdrGanLesson(RECIPE).discriminator is None


def test_the_weight_of_the_discriminator_counts() -> None:
    ends = []
    for weight in (0.0, 1.0):
        lesson = HdrGanLesson(replace(JUDGED, gan_weight=weight))
        for step in range(2):
            lesson.step(learnable(step), 0.9)
        ends.append(flat(lesson.network))
    alone = HdrGanLesson(RECIPE)
    for step in range(2):
        alone.step(learnable(step), 0.9)
    assert torch.equal(ends[0], flat(alone.network))
    assert not torch.equal(ends[0], ends[1])


def test_gradients_can_be_trusted_at_any_width() -> None:
    """Those of dilated convolutions are not, in bfloat16, where channels are no multiple of 16."""
    for width in (4, 12):
        lesson = HdrGanLesson(replace(RECIPE, config={"width": width, "residual": False}))
        lesson.step(learnable(0), 0.0)
        exact = HdrGanLesson(replace(RECIPE, config={"width": width, "residual": False}))
        batch = learnable(0)
        three = triplet(batch.reference, batch.frames)
        outputs = exact.network.both(three.low, three.reference, three.high)
        exact.error(list(outputs), three.target(batch.truth), batch.reference[:, 6:7]).backward()
        own = dict(lesson.network.named_parameters())
        for name, value in exact.network.named_parameters():
            if name.startswith("merge") and name.endswith("weight"):
                wrong = (own[name].grad - value.grad).norm() / value.grad.norm()
                assert float(wrong) < 0.5, name


# --- spectral normalisation -----------------------------------------------------------------------


@pytest.mark.parametrize("residual", [True, False])
def test_the_mean_network_is_plain_and_gives_what_the_normalised_gives(residual: bool) -> None:
    lesson = HdrGanLesson(replace(RECIPE, config={"width": 4, "residual": residual}, spectral=True))
    lesson.step(learnable(0), 0.0)
    lesson.follow(0.0)
    plain = build("hdrgan", {"width": 4, "residual": residual})
    plain.load_state_dict(lesson.mean.state_dict())
    inputs = tuple(lesson.example_inputs(64).values())
    with torch.no_grad():
        expected = lesson.network.eval()(*inputs)
        assert torch.allclose(plain.eval()(*inputs), expected, atol=1e-5)
    norms = [
        float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2))
        for layer in lesson.mean.modules()
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 6
    ]
    assert np.quantile(norms, 0.75) < 1.3


def test_following_does_not_move_the_estimate_of_singular_values() -> None:
    lesson = HdrGanLesson(replace(RECIPE, spectral=True))
    before = {name: value.clone() for name, value in lesson.network.named_buffers()}
    assert before
    lesson.follow(0.5)
    assert all(torch.equal(before[name], value) for name, value in lesson.network.named_buffers())
    assert lesson.network.training


# --- in the loop ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take one second."""
    ticks = cycle([0.0, 1.0])
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Iterator[Batch]]:
    """Train on the same batches in the same order; called, it begins with the first again."""
    batches = [learnable(seed) for seed in range(3)]
    stream: list[Iterator[Batch]] = []

    def restart() -> Iterator[Batch]:
        stream[:] = [cycle(batches)]
        return stream[0]

    restart()
    monkeypatch.setattr(HdrGanLesson, "batches", lambda *a: (batch for batch in stream[0]))
    return restart


def tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize("spectral", [False, True])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path,
    clock: None,
    given: Callable[[], Iterator[Batch]],
    monkeypatch: pytest.MonkeyPatch,
    spectral: bool,
) -> None:
    """Also when the discriminator has begun: it joins in after three of six seconds."""
    recipe = replace(JUDGED, budget=6.0, spectral=spectral)
    train(HdrGanLesson(recipe), tmp_path, [], tmp_path / "whole.safetensors")
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1.5)

    def kill(state: State, loss: float) -> None:
        if state.step == 5:
            raise KeyboardInterrupt

    path = tmp_path / "killed.safetensors"
    given()
    with pytest.raises(KeyboardInterrupt):
        train(HdrGanLesson(recipe), tmp_path, [], path, tell=kill)
    list(islice(given(), 4))  # what the steps until the checkpoint have used
    told: list[int] = []
    train(HdrGanLesson(recipe), tmp_path, [], path, tell=lambda state, loss: told.append(state.step))
    assert told == [5, 6]
    expected, found = tensors(tmp_path / "whole.safetensors"), tensors(path)
    assert expected.keys() == found.keys()
    assert {name.partition(".")[0] for name in found} == {
        "network",
        "mean",
        "discriminator",
        "optimizer",
        "discriminator_optimizer",
    }
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_a_discriminator_may_join_a_run_that_had_none(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = HdrGanLesson(RECIPE)
    first.step(learnable(0), 0.0)
    save(path, first, State(1, 1.0))
    second = HdrGanLesson(replace(JUDGED, seed=5))
    assert resume(path, second) == State(1, 1.0)
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)
    assert math.isfinite(second.step(learnable(1), 0.9))
    save(path, second, State(2, 2.0))
    third = HdrGanLesson(RECIPE)  # and leave it again
    resume(path, third)
    assert math.isfinite(third.step(learnable(1), 0.9))


def test_a_run_says_what_it_was_begun_with(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    save(path, HdrGanLesson(RECIPE), State(1, 1.0))
    assert design_in(path) == ("hdrgan", NARROW)
    assert isinstance(load_mean(path, RECIPE)[0], type(build("hdrgan", NARROW)))
    with pytest.raises(NetworkError, match="state the options it was begun with"):
        resume(path, HdrGanLesson(replace(RECIPE, spectral=True)))


def test_another_kind_of_network_is_refused() -> None:
    with pytest.raises(NetworkError, match="'trust' is learned in another way"):
        HdrGanLesson(replace(RECIPE, architecture="trust", config={}))


def test_the_recipe_is_told_in_one_line() -> None:
    said = replace(RECIPE, adversarial=0.25, gan_weight=0.01, spectral=True).describe()
    for part in ("Adam", "last 25% of it, weight 0.01", "spectral", "batches of 2 patches of 80 px", "L1"):
        assert part in said
    assert "\n" not in said
    assert "no discriminator" in RECIPE.describe()


# --- judged ---------------------------------------------------------------------------------------


def test_the_network_counts_where_the_gate_is_open() -> None:
    lesson = HdrGanLesson(RECIPE)
    nn.init.normal_(lesson.mean.heads.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    example = noise(frames=2)
    example.reference[6, :, :48] = 0
    reference, frames, *_ = tensors_of(example, torch.device("cpu"))
    with torch.no_grad():
        found = lesson.results(lesson.mean, reference, frames)
    assert tuple(found) == lesson.rows
    assert torch.equal(found["hdrgan"][..., :48], found["classical"][..., :48])
    assert torch.allclose(found["hdrgan"][..., 48:], found["everywhere"][..., 48:], atol=1e-6)
    assert not torch.allclose(found["everywhere"][..., :48], found["classical"][..., :48], atol=1e-3)


def of_three(size: int = 32) -> tuple[Tensor, Tensor]:
    """Return reference and frames of a patch: two are trusted, and one beyond the triplet in a half."""
    reference, frames = bracket(((-2.0, 2.0, -4.0),), size)
    reference[:, 3], reference[:, 4], reference[:, 6] = 0.1, 1, 1  # share, open, gate
    frames[:, :, 3], frames[:, :, 7] = 0.5, 1  # share, belief
    frames[:, 2, 7, :, : size // 2] = 0
    frames[:, 2, :3, :4] = code_of(30.0)  # brighter than 4.0, where the triplet ends
    return reference, frames


def test_the_classical_merge_is_of_all_frames_as_far_as_they_are_trusted() -> None:
    """Also of those beyond the triplet."""
    reference, frames = of_three()
    found = classical(reference, frames)
    assert tuple(found.shape) == (1, 3, 32, 32)
    dark, *others = RADIANCES
    for columns, last in ((slice(16), 0.0), (slice(16, 32), 0.25)):
        weights = (0.25, 0.25, last)
        mean = 0.01 * dark + sum(weight * value for weight, value in zip(weights, others, strict=True))
        expected = torch.tensor(code_of(mean / (0.01 + sum(weights))))
        assert torch.allclose(found[..., 4:, columns], expected, atol=1e-4)


def test_an_untrained_residual_network_gives_the_merge() -> None:
    """In the unit of the reference again, whatever the scale of the triplet; and as it was beyond that."""
    lesson = HdrGanLesson(RECIPE)
    reference, frames = of_three()
    with torch.no_grad():
        found = lesson.results(lesson.mean, reference, frames)
    merged = classical(reference, frames)
    for name in ("out1", "hdrgan", "everywhere", "classical"):
        assert torch.allclose(found[name], merged, rtol=0, atol=1e-6)
    beyond = (merged.amax(1, keepdim=True) > code_of(4.0)).expand_as(merged)
    assert 0 < beyond.float().mean() < 0.5
    assert torch.equal(found["everywhere"][beyond], merged[beyond])


def test_a_residual_network_learns_from_the_merge() -> None:
    """Its first error is that of the merge, in its own unit; the paper's form is shown none."""
    batch = learnable(0)
    three = triplet(batch.reference, batch.frames)
    merged = three.target(classical(batch.reference, batch.frames))
    assert not torch.allclose(merged, three.reference[:, 3:], atol=1e-2)
    lesson = HdrGanLesson(RECIPE)
    gate = batch.reference[:, 6:7]
    expected = float(lesson.error([merged, merged], three.target(batch.truth), gate))
    assert lesson.step(batch, 0.0) == pytest.approx(expected, rel=1e-6)
    assert list(lesson.example_inputs(8)) == ["low", "reference", "high", "merged"]
    assert [value.shape[1] for value in lesson.example_inputs(8).values()] == [6, 6, 6, 3]
    paper = HdrGanLesson(replace(RECIPE, config={"width": 4, "residual": False}))
    assert list(paper.example_inputs(8)) == ["low", "reference", "high"]


def test_scores_and_pictures_are_of_all_methods(tmp_path: Path) -> None:
    lesson = HdrGanLesson(RECIPE)
    files = sorted(write_examples(tmp_path, 1, 3).glob("*.npy"))
    scores = lesson.validate(lesson.mean, files)
    assert tuple(scores) == lesson.rows
    assert all(math.isfinite(value) for row in scores.values() for value in row.values())
    pictures = lesson.pictures(lesson.mean, files[1])
    assert tuple(pictures) == lesson.shown
    assert all(tuple(code.shape) == (1, 3, 64, 96) for code in pictures.values())


def test_what_a_network_merges_is_mended_in_turn() -> None:
    """Batches alternate between the classical merge and that of the network that judges."""
    config = {"pair": [4, 6], "fill": [4, 6], "context": 2}
    judge = build("trust", config)
    with torch.no_grad():
        judge.fill_out.last.bias.fill_(0.5)  # type: ignore[union-attr, operator]
    recipe = replace(RECIPE, judge=("trust", config, judge.state_dict()))
    lesson, batch = HdrGanLesson(recipe), learnable(1)
    seen = [lesson._merged(batch) for _ in range(4)]
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[0], classical(batch.reference, batch.frames))
    assert torch.equal(seen[1], seen[3])
    assert (seen[1] - seen[0]).mean() > 0.2
    assert "what trust makes of it" in recipe.describe()
    assert torch.equal(HdrGanLesson(RECIPE)._merged(batch), seen[0])
