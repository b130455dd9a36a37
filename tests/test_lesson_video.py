"""The lessons of video: what each network is shown, its loss, what learns, and how it is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from torch import Tensor, nn  # noqa: E402

from hdrmerge import weights  # noqa: E402
from hdrmerge.errors import NetworkError  # noqa: E402
from hdrmerge.exposure import mu_law  # noqa: E402
from hdrmerge.networks.refine import well_exposed  # noqa: E402
from hdrmerge.scene import ramp_scene  # noqa: E402
from hdrmerge.training import video  # noqa: E402
from hdrmerge.training.clips import Filmed, photographed  # noqa: E402
from hdrmerge.training.precision import mixed  # noqa: E402
from hdrmerge.training.release import write_network  # noqa: E402
from hdrmerge.training.train import load_mean, resume, save, train  # noqa: E402
from hdrmerge.training.video import (  # noqa: E402
    LEAST_PAINTED,
    NOISE,
    CoarseLesson,
    CoarseRecipe,
    JointLesson,
    JointRecipe,
    RefineLesson,
    RefineRecipe,
    Takes,
    Trained,
    VideoLesson,
    decibels,
    error,
)

COARSE: dict[str, Any] = {"exposures": 2, "flow": [4, 4, 4], "width": 4, "levels": 2}
REFINE: dict[str, Any] = {
    "exposures": 2,
    "width": 4,
    "groups": 2,
    "blocks": [1, 1],
    "residual": True,
    "align_reference": False,
}


class Sliding:
    """A source of patches of a scene that slides by two pixels a frame."""

    count = 2

    def __init__(self, seed: int = 0) -> None:
        scene = ramp_scene(64, 160, np.random.default_rng(seed), 0.01, 2.0)
        self.scene = np.moveaxis(scene, -1, 0).astype(np.float16)

    def draw(self, rng: np.random.Generator, frames: int, size: int, middle: int | None = None) -> Filmed:
        y, x = int(rng.integers(64 - size + 1)), int(rng.integers(160 - size - 2 * frames))
        radiance = [self.scene[:, y : y + size, x + 2 * k : x + 2 * k + size] for k in range(frames)]
        phase = int(rng.integers(2)) if middle is None else middle + frames // 2
        return Filmed(np.stack(radiance), tuple((1.0, 8.0)[(phase + k) % 2] for k in range(frames)))

    def describe(self) -> str:
        return "a slide"


def coarse(**recipe: Any) -> CoarseLesson:
    return CoarseLesson(CoarseRecipe(**{"config": COARSE, "batch": 4, "size": 32, "rate": 3e-3} | recipe))


@pytest.fixture(scope="module")
def given() -> Trained:
    """A coarse network that has learned for a moment."""
    lesson, batch = coarse(), takes(3, 4)
    for _ in range(3):
        lesson.step(batch, 0.0)
    return "coarse", COARSE, {k: v.clone() for k, v in lesson.network.state_dict().items()}


def refine(given: Trained | None, kind: Any = RefineLesson, **recipe: Any) -> Any:
    make = JointRecipe if kind is JointLesson else RefineRecipe
    options = {"config": REFINE, "batch": 2, "size": 32, "rate": 3e-3, "coarse": given}
    return kind(make(**options | recipe))


def takes(frames: int, count: int = 2, seed: int = 0) -> Takes:
    rng, source = np.random.default_rng(seed), Sliding()
    return Takes.of([source.draw(rng, frames, 32, k) for k in range(count)], [1e-3] * count)


def turned(planes: Tensor, turns: int, mirrored: bool) -> Tensor:
    found = torch.rot90(planes, turns, (-2, -1))
    return found.flip(-1) if mirrored else found


def same(one: nn.Module, state: dict[str, Tensor]) -> list[str]:
    return [name for name, values in one.state_dict().items() if torch.equal(values, state[name])]


# ------------------------------------------------------------------------------------- errors, batches


def test_errors_are_those_of_mu_law_values() -> None:
    found, truth = torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1), torch.full((2, 1, 1, 1), 0.1)
    wanted = float(mu_law(np.float32(0.2)) - mu_law(np.float32(0.1))) / 2
    assert float(error(found, truth)) == pytest.approx(wanted, rel=1e-4)


def test_more_is_not_wrong_where_nothing_is_known() -> None:
    truth = torch.tensor([1.0, 4.0, 0.9]).reshape(1, 1, 1, 3)
    assert float(error(torch.full_like(truth[..., :2], 3.0), truth[..., :2])) == 0
    assert float(error(torch.full_like(truth[..., :2], 0.5), truth[..., :2])) > 0.05
    assert float(error(truth[..., 2:] * 2, truth[..., 2:])) > 0.05
    wrong = torch.full((1, 1, 1, 1), 1.5, requires_grad=True)
    error(wrong, truth[..., 2:]).backward()
    assert float(wrong.grad) > 0  # too bright is mended, however bright


def test_only_darker_frames_are_noisy() -> None:
    radiance = np.zeros((3, 3, 4, 4), np.float16)
    two, three = Filmed(radiance, (1.0, 8.0, 1.0)), Filmed(radiance, (4.0, 16.0, 1.0))
    found = Takes.of([two, three], [0.1, 0.2])
    torch.testing.assert_close(found.noise, torch.tensor([[0.1, 0, 0.1], [0.2, 0, 0.2]]))
    assert found.radiance.dtype == torch.float16
    assert found.exposures.tolist() == [[1, 8, 1], [4, 16, 1]]


@pytest.mark.parametrize(("stage", "frames"), [("coarse", 3), ("refine", 3), ("joint", 5)])
def test_batches_are_frames_around_a_reference(stage: str, frames: int, given: Trained) -> None:
    kinds = {"refine": RefineLesson, "joint": JointLesson}
    lesson = coarse() if stage == "coarse" else refine(given, kinds[stage])
    batches: Iterator[Takes] = lesson.batches(Sliding(), np.random.default_rng(0))
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert batch.radiance.shape == (lesson.recipe.batch, frames, 3, 32, 32)
    assert set(batch.exposures.flatten().tolist()) == {1, 8}
    noise = batch.noise[batch.exposures == 1]
    assert (batch.noise[batch.exposures == 8] == 0).all()
    assert (noise <= NOISE[1]).all()
    assert stage == "coarse" or (noise >= NOISE[0]).all()
    assert (batch.results is None) == (stage != "refine")


def test_clips_of_other_exposures_are_refused() -> None:
    source = Sliding()
    source.count = 3  # type: ignore[misc]
    with pytest.raises(NetworkError, match="clips have 3 exposures, this network is for 2"):
        next(coarse().batches(source, np.random.default_rng(0)))


def test_rates_drop() -> None:
    recipe = CoarseRecipe(rate=1.0)
    assert [recipe.rate_at(at) for at in (0.02, 0.49, 0.5, 0.75, 0.9, 1)] == [1, 1, 0.5, 0.25, 0.05, 0.05]
    assert recipe.rate_at(0) == pytest.approx(0.01)  # the first steps of Adam are long
    assert recipe.rate_at(0.01) == pytest.approx(0.51)
    assert JointRecipe().rate == 2e-5
    assert "exp(+-0.7)" in recipe.describe()
    assert "VGG" not in RefineRecipe().describe()
    assert "+ 0.5 edges" in RefineRecipe(perceptual=0.5).describe()
    assert "on the coarse network mine.onnx as it is" in RefineRecipe(source="mine.onnx").describe()


# ------------------------------------------------------------------------------------- coarse


class Spy(nn.Module):
    """A network that keeps what it is shown and says the truth of it."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.shown: tuple[Tensor, ...] = ()

    def forward(self, *shown: Tensor) -> Tensor:
        self.shown = shown
        return self.answer


def spied(tones: float) -> tuple[Tensor, ...]:
    """Return frames, exposures and the reference that a network is shown, and the codes as recorded."""
    lesson, batch = coarse(tones=tones), takes(3, 4)
    state = lesson.random.get_state()
    lesson.network = Spy(batch.radiance[:, 1].float())
    lesson.optimizer = torch.optim.Adam(lesson.network.parameters(), lr=0.0)
    assert lesson.step(batch, 0.0) == pytest.approx(0, abs=1e-6)
    lesson.random.set_state(state)
    codes = photographed(batch.radiance, batch.exposures, batch.noise, lesson.random)
    return (*lesson.network.shown, codes)


def test_the_reference_is_shown_in_other_tones_and_summed_as_it_is() -> None:
    frames, _, reference, codes = spied(0.7)
    assert torch.equal(frames[:, ::2], codes[:, ::2])
    assert torch.equal(reference, codes[:, 1])
    known = (codes[:, 1] > 0.02) & (codes[:, 1] < 0.98)
    powers = (frames[:, 1].log() / codes[:, 1].log()).log()
    found = [powers[b, c][known[b, c]] for b in range(4) for c in range(3)]
    assert all(float(values.std()) < 1e-3 for values in found)
    means = torch.stack([values.mean() for values in found])
    assert means.abs().max() <= 0.7
    assert means.std() > 0.2


def test_tones_may_stay() -> None:
    frames, exposures, _, codes = spied(0.0)
    torch.testing.assert_close(frames, codes)
    assert exposures.tolist() == takes(3, 4).exposures.tolist()


def test_the_coarse_network_learns() -> None:
    lesson, batch = coarse(), takes(3, 4)
    before = {name: values.clone() for name, values in lesson.network.state_dict().items()}
    losses = [lesson.step(batch, 0.0) for _ in range(20)]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert same(lesson.network, before) == []


# ------------------------------------------------------------------------------------- followed

FOLLOWED: dict[str, Any] = {"exposures": 2, "followed": True, "width": 4, "flow": [4, 4]}


def test_followed_batches_are_what_flow_finds() -> None:
    """Of codes with a border, which is cut off: what comes in is there."""
    lesson = coarse(config=FOLLOWED)
    batch = next(lesson.batches(Sliding(), np.random.default_rng(0)))
    seen, middle = batch.windows, batch.codes[:, 1]
    assert seen.frames.shape == (4, 1, 3, 3, 32, 32)
    assert seen.between.shape == (4, 1, 2, 3, 32, 32)
    assert seen.shares.shape == (4, 1, 3, 3, 32, 32)
    assert seen.flows.shape == (4, 1, 2, 2, 32, 32)
    torch.testing.assert_close(seen.shares.sum(2), torch.ones(4, 1, 3, 32, 32))
    assert torch.equal(seen.frames[:, 0, 1], middle)
    assert batch.radiance.shape == batch.codes.shape == (4, 3, 3, 32, 32)
    recorded = photographed(batch.radiance, batch.exposures, 0 * batch.noise, torch.Generator())
    assert (recorded - batch.codes).abs().median() < 0.02
    before, after = batch.radiance[:, 0].float(), batch.radiance[:, 1].float()
    followed = seen.frames[:, 0, 0] ** 2.2 / batch.exposures[:, :1, None, None]
    known = seen.shares[:, 0, 0] > 0.2
    assert (followed - after).abs()[known].median() < 0.3 * (before - after).abs()[known].median()


def test_the_followed_form_begins_with_what_flow_finds_and_learns() -> None:
    lesson = coarse(config=FOLLOWED)
    held_out = [Sliding().draw(np.random.default_rng(k), 3, 64, k) for k in range(2)]
    scores = lesson.validate(lesson.mean, held_out)
    assert scores["coarse"]["whole"] > scores["flow"]["whole"] - 0.5  # whose flow is not as fine
    batch = next(lesson.batches(Sliding(), np.random.default_rng(0)))
    before = {name: values.clone() for name, values in lesson.network.state_dict().items()}
    losses = [lesson.step(batch, 0.0) for _ in range(20)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert same(lesson.network, before) == []
    assert "log MSE" in lesson.recipe.describe()
    assert "log MSE" not in CoarseRecipe(config=COARSE).describe()


def test_only_the_flow_sees_other_tones() -> None:
    lesson = coarse(config=FOLLOWED, tones=0.7)
    batch = next(lesson.batches(Sliding(), np.random.default_rng(0)))
    lesson.network = Spy(batch.radiance[:, 1].float())
    lesson.optimizer = torch.optim.Adam(lesson.network.parameters(), lr=0.0)
    lesson.step(batch, 0.0)
    frames, between, shares, flows, exposures, reference = lesson.network.shown
    assert torch.equal(reference, batch.codes[:, 1])
    assert not torch.equal(frames[:, 1], reference)
    assert torch.equal(frames[:, ::2], batch.windows.frames[:, 0, ::2])
    assert torch.equal(between, batch.windows.between[:, 0])
    assert torch.equal(shares, batch.windows.shares[:, 0])
    assert torch.equal(flows, batch.windows.flows[:, 0])
    assert torch.equal(exposures, batch.exposures)


def test_results_are_followed_as_they_are_when_video_is_made() -> None:
    from hdrmerge.followed import follow_results

    batch = takes(3)
    codes = photographed(batch.radiance, batch.exposures, batch.noise, torch.Generator().manual_seed(0))
    results = batch.radiance.float().clamp(0, 1).requires_grad_(True)
    coarse, frames = video.followed_results(results, codes)
    for k in range(2):
        pictures = (
            [np.moveaxis(one, 0, -1) for one in three.detach()[k].numpy()] for three in (results, codes)
        )
        wanted = follow_results(*pictures)
        for found, some in zip((coarse, frames), wanted, strict=True):
            assert np.array_equal(found.detach()[k].numpy(), np.moveaxis(np.stack(some), -1, 1))
    coarse.sum().backward()
    assert results.grad[:, 1].min() == 1
    assert not results.grad[:, ::2].any()  # flow is no part of a network


@pytest.mark.parametrize("followed", [False, True])
def test_refining_learns_on_followed_frames(followed: bool) -> None:
    lesson = coarse(config=FOLLOWED)
    with torch.no_grad():
        lesson.network.correction.last.weight.normal_(std=0.02)
    given = ("coarse", FOLLOWED, lesson.network.state_dict())
    lesson = refine(given, config=REFINE | {"followed": followed})
    batch = next(VideoLesson.batches(lesson, Sliding(), np.random.default_rng(0)))
    assert batch.windows.frames.shape == (2, 3, 3, 3, 32, 32)
    found = lesson.coarse_of(lesson.coarse, batch.codes, batch.exposures, batch.windows)
    for k in range(3):
        shown = (planes[:, k] for planes in batch.windows.shown())
        alone = lesson.coarse(*shown, batch.exposures[:, k : k + 3])
        torch.testing.assert_close(found[:, k], alone, rtol=0, atol=1e-6)
        assert torch.equal(batch.windows.frames[:, k, 1], batch.codes[:, k + 1])
    rows = lesson.rows_of(lesson.mean, Sliding().draw(np.random.default_rng(0), 5, 64, 0))
    if not followed:
        torch.testing.assert_close(rows["refined"], rows["coarse"], rtol=0, atol=1e-3)  # untrained
    lesson.network.register_forward_pre_hook(lambda _, taken: seen.extend(taken))
    seen: list[Tensor] = []
    losses = [lesson.step(batch, 0.0) for _ in range(15)]
    assert np.mean(losses[-3:]) < np.mean(losses[:2])
    with mixed(lesson.device):
        expected = (
            lesson.coarse_of(lesson.coarse, batch.codes, batch.exposures, batch.windows),
            batch.codes[:, 1:4],
        )
    if followed:
        expected = video.followed_results(*expected)
    for found, wanted in zip(seen, expected, strict=False):
        torch.testing.assert_close(found, wanted)


# ------------------------------------------------------------------------------------- refine


@pytest.mark.parametrize("followed", [False, True])
def test_batches_come_back_turned_with_what_coarse_made_of_them(followed: bool) -> None:
    """The coarse network is asked once a batch; turned back, all pictures are those of the first time."""
    lesson = coarse(config=FOLLOWED)
    lesson = refine(("coarse", FOLLOWED, lesson.network.state_dict()), config=REFINE | {"followed": followed})
    asked: list[int] = []
    lesson.coarse.register_forward_hook(lambda *_: asked.append(1))
    batches = lesson.batches(Sliding(), np.random.default_rng(0))
    seen = [next(batches) for _ in range(video.REPEATS + 1)]
    batches.close()
    assert len(asked) == 2
    first, again = seen[0], seen[1 : video.REPEATS]
    truth = first.radiance[:, 1].float().clamp(max=1)
    assert (first.results[:, 1] - truth).abs().median() < 0.05
    ways = [(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    found = set()
    for batch in again:
        assert batch.windows is None
        for way in ways:
            if torch.equal(turned(first.radiance, *way), batch.radiance):
                found.add(way)
                assert torch.equal(turned(first.results, *way), batch.results)
                assert torch.equal(turned(first.codes, *way), batch.codes)
    assert len(found) > 1
    assert not any(torch.equal(turned(first.radiance, *way), seen[-1].radiance) for way in ways)  # a new one


def test_a_coarse_network_has_to_be_given(given: Trained) -> None:
    with pytest.raises(NetworkError, match="name its file with --coarse"):
        refine(None)
    with pytest.raises(NetworkError, match="'coarse' for 3 exposures; name a network 'coarse' for 2"):
        refine(("coarse", COARSE | {"exposures": 3}, given[2]))
    with pytest.raises(NetworkError, match="--coarse: holds a network of another"):
        refine(("coarse", COARSE | {"width": 8}, given[2]))
    with pytest.raises(NetworkError, match="'refine' is learned in another way"):
        coarse(architecture="refine", config=REFINE)


def test_coarse_results_are_those_of_three_frames(given: Trained) -> None:
    lesson, batch = refine(given), takes(5)
    codes = photographed(batch.radiance, batch.exposures, batch.noise, lesson.random)
    found = lesson.coarse_of(lesson.coarse, codes, batch.exposures)
    for first in range(3):
        at = slice(first, first + 3)
        alone = lesson.coarse(codes[:, at], batch.exposures[:, at])
        torch.testing.assert_close(found[:, first], alone, rtol=0, atol=1e-6)


def test_the_error_is_over_the_share_that_is_painted(given: Trained) -> None:
    lesson, batch = refine(given), takes(5)
    truth = batch.radiance[:, 2].float()
    lesson.network = Spy(truth * 0.5)
    state = lesson.random.get_state()
    loss = float(lesson.loss(batch).detach())
    lesson.random.set_state(state)
    codes = photographed(batch.radiance, batch.exposures, batch.noise, lesson.random)
    painted = float((1 - well_exposed(codes[:, 2], batch.exposures, 2)).mean())
    assert 0.02 < painted < 0.9
    assert loss == pytest.approx(float(error(truth * 0.5, truth)) / painted, rel=1e-4)
    assert torch.equal(lesson.network.shown[1], codes[:, 1:4])
    assert lesson.network.shown[2].tolist() == batch.exposures[:, 1:4].tolist()


def test_a_batch_that_is_exposed_well_does_not_decide(given: Trained) -> None:
    even = Filmed(np.full((5, 3, 32, 32), 0.06, np.float16), (1.0, 8.0, 1.0, 8.0, 1.0))
    lesson = refine(given)
    lesson.network = Spy(torch.full((1, 3, 32, 32), 0.03))
    loss = float(lesson.loss(Takes.of([even], [0.0])).detach())
    wrong = float(mu_law(np.float32(0.06)) - mu_law(np.float32(0.03)))
    assert loss == pytest.approx(wrong / LEAST_PAINTED, rel=0.01)


def test_the_followed_form_is_refined_by_decibels(given: Trained) -> None:
    batch = takes(5)
    truth = batch.radiance[:, 2].float()
    lesson, plain = refine(given, config=REFINE | {"followed": True}), refine(given)
    lesson.network = Spy(truth * 0.5)
    loss = float(lesson.loss(batch).detach())
    assert loss == pytest.approx(float(decibels(truth * 0.5, truth)), rel=1e-4)
    assert "log MSE" in lesson.recipe.describe()
    assert "log MSE" not in plain.recipe.describe()


def test_the_coarse_network_stays_as_it_is(given: Trained) -> None:
    lesson, batch = refine(given), takes(5)
    before = {name: values.clone() for name, values in lesson.network.state_dict().items()}
    losses = [lesson.step(batch, 0.0) for _ in range(15)]
    assert np.mean(losses[-3:]) < np.mean(losses[:2])
    assert sorted(same(lesson.coarse, dict(given[2]))) == sorted(given[2])
    assert len(same(lesson.network, before)) < 4
    assert set(lesson.networks) == {"network"}


def test_likeness_may_count(given: Trained) -> None:
    batch = takes(5)
    plain, alike = (float(refine(given, perceptual=share).loss(batch).detach()) for share in (0.0, 1.0))
    assert alike > plain + 0.05


# ------------------------------------------------------------------------------------- both


def test_both_learn_and_both_are_followed(given: Trained) -> None:
    lesson, batch = refine(given, JointLesson), takes(5)
    losses = []
    for _ in range(15):
        losses.append(lesson.step(batch, 0.0))
        lesson.follow(0.5)
    assert np.mean(losses[-3:]) < np.mean(losses[:2])
    unchanged = same(lesson.coarse, dict(given[2]))
    assert all("running" in name or "tracked" in name for name in unchanged)
    assert len(unchanged) > 3  # statistics of the normalisation
    means = lesson.coarse_mean.state_dict()
    last = lesson.coarse.state_dict()
    name = "weights.last.weight"
    assert not torch.equal(means[name], given[2][name])
    assert (means[name] - last[name]).abs().max() < (given[2][name] - last[name]).abs().max()
    written = lesson.coarse_lesson()
    assert sorted(same(written.mean, means)) == sorted(means)


@pytest.mark.parametrize("followed", [False, True])
def test_the_joint_loss_is_that_of_all_stages(given: Trained, followed: bool) -> None:
    batch, config = takes(5), REFINE | {"followed": followed}
    alone = float(refine(given, config=config).loss(batch).detach())
    lesson = refine(given, JointLesson, config=config)
    state = lesson.random.get_state()
    both = float(lesson.loss(batch).detach())
    lesson.random.set_state(state)
    codes = photographed(batch.radiance, batch.exposures, batch.noise, lesson.random)
    with mixed(lesson.device), torch.no_grad():
        coarse = lesson.coarse_of(lesson.coarse, codes, batch.exposures)
    wrong = [
        float((decibels if followed else error)(coarse[:, k], batch.radiance[:, k + 1])) for k in range(3)
    ]
    assert both == pytest.approx(alone + (np.mean(wrong) if followed else sum(wrong)), rel=1e-3)


def test_a_joint_run_goes_on_with_both(given: Trained, tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    lesson = refine(given, JointLesson, validate_every=1e9)
    train(lesson, Sliding(), [], path, steps=2)
    again = refine(given, JointLesson)
    assert resume(path, again).step == 2
    for name in ("network", "coarse", "coarse_mean"):
        state = lesson.networks[name].state_dict()
        assert len(same(again.networks[name], state)) == len(state)
    assert load_mean(path, again.recipe)[1].step == 2


def test_both_are_written(given: Trained, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    lesson, path = refine(given, JointLesson), tmp_path / "run.safetensors"
    held_out = [Sliding().draw(np.random.default_rng(k), 5, 32, k) for k in range(2)]
    scores = lesson.validate(lesson.mean, held_out)
    save(path, lesson, state := video_state())
    card = write_network(tmp_path / "refine.onnx", lesson, lesson.mean, state, scores)
    assert card["architecture"] == "refine"
    assert card["multiple"] == 8
    assert card["metrics"]["over_flow_low"] == pytest.approx(
        scores["refined"]["low"] - scores["flow"]["low"], abs=2e-3
    )
    beside = lesson.coarse_lesson()
    card = write_network(tmp_path / "coarse.onnx", beside, beside.mean, state, scores)
    assert (card["architecture"], card["config"], card["halo"]) == ("coarse", COARSE, beside.mean.halo)
    held = weights.load_state(tmp_path / "coarse.onnx")
    torch.testing.assert_close(
        torch.from_numpy(held["weights.last.weight"]),
        lesson.coarse_mean.state_dict()["weights.last.weight"],
        rtol=0,
        atol=1e-3,
    )


def video_state() -> Any:
    from hdrmerge.training.train import State

    return State(step=1, recipe="a recipe", data="a slide")


# ------------------------------------------------------------------------------------- scores


def test_scores_are_by_the_exposure_of_the_reference(given: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    lesson = refine(given)
    held_out = [Sliding().draw(np.random.default_rng(k), 5, 32, k) for k in range(2)]
    calls: list[int] = []
    by_flow = video.by_flow
    monkeypatch.setattr(video, "by_flow", lambda *given: calls.append(1) or by_flow(*given))
    scores = lesson.validate(lesson.mean, held_out)
    again = lesson.validate(lesson.mean, held_out)
    assert len(calls) == 2  # the classical way is the same every time
    np.testing.assert_equal(scores, again)
    assert set(scores) == set(lesson.rows)
    for row in scores.values():
        assert row["whole"] == pytest.approx((row["low"] + row["high"]) / 2, abs=2e-3)
        assert np.isnan(row["middle"])
    rows = lesson.rows_of(lesson.mean, held_out[0])
    assert held_out[0].exposures[2] == 1
    square = (mu_law(rows["reference"].numpy()) - mu_law(rows["truth"].numpy())) ** 2
    assert scores["reference"]["low"] == pytest.approx(-10 * np.log10(square.mean()), abs=2e-3)
    assert rows["truth"].max() <= 1


def test_pictures_are_columns_of_one_sample(given: Trained) -> None:
    for lesson, frames in ((coarse(), 3), (refine(given), 5)):
        sample = Sliding().draw(np.random.default_rng(0), frames, 32, 0)
        found = lesson.pictures(lesson.mean, sample)
        assert tuple(found) == lesson.shown
        assert all(column.shape == (1, 3, 32, 32) for column in found.values())
        assert all(column.min() >= 0 and column.max() <= 1 for column in found.values())
        assert lesson.own in lesson.rows
        assert lesson.bytes_per_pixel > 100


@pytest.mark.parametrize("architecture", sorted(video.NARROW))
def test_the_released_configuration_is_small(architecture: str) -> None:
    """Six megabytes of half floats at the most."""
    from hdrmerge.networks import build

    for exposures in (2, 3):
        made = build(architecture, dict(video.NARROW[architecture]) | {"exposures": exposures})
        assert 2 * sum(values.numel() for values in made.parameters()) < 3e6


def test_three_exposures_have_longer_windows() -> None:
    lesson = coarse(config=COARSE | {"exposures": 3})
    assert lesson.frames == 5
    weightless = replace(RefineRecipe(config=REFINE | {"exposures": 3}))
    assert weightless.exposures == 3
    assert lesson.example_inputs(32)["frames"].shape == (1, 15, 32, 32)
    assert lesson.example_inputs(32)["exposures"].flatten().tolist() == [1, 4, 16, 1, 4]
