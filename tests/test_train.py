"""The loop: it learns, keeps to the clock, and goes on after a kill as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import TINY, noise, write_examples  # noqa: E402

from hdrmerge.errors import NetworkError, OutputError  # noqa: E402
from hdrmerge.exposure import mu_law, mu_law_inverse  # noqa: E402
from hdrmerge.networks import build  # noqa: E402
from hdrmerge.training import train as loop  # noqa: E402
from hdrmerge.training.batches import Batch, collate, cut_patch  # noqa: E402
from hdrmerge.training.train import State, design_in, load_mean, train  # noqa: E402
from hdrmerge.training.trust import TrustLesson, TrustRecipe  # noqa: E402
from hdrmerge.training.validate import REGIONS, Scores  # noqa: E402

RECIPE = TrustRecipe(config=TINY, budget=100.0, batch=2, size=32)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every step take one second."""
    ticks = cycle([0.0, 1.0])
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(ticks)))


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Train on the same batches in the same order; called, it begins with the first again."""
    rng = np.random.default_rng(0)
    patches = [cut_patch(noise(seed), rng, 32, 2) for seed in range(8)]
    batches = [collate([patches[i], patches[i + 1]]) for i in range(0, 8, 2)]  # type: ignore[list-item]
    stream: list[Iterator[Batch]] = []

    def restart() -> None:
        stream[:] = [cycle(batches)]

    restart()
    monkeypatch.setattr(TrustLesson, "batches", lambda *a: (batch for batch in stream[0]))
    return restart


def run(
    folder: Path, steps: int | None = None, recipe: TrustRecipe = RECIPE, init: Any = None, **options: Any
) -> torch.nn.Module:
    lesson = TrustLesson(recipe, init=init)
    return train(lesson, folder, [], folder / "run.safetensors", steps=steps, **options)


def tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_it_learns(tmp_path: Path) -> None:
    """Frames that are wrong where belief says they are right: the loss falls within a few steps."""
    for seed in range(4):
        example = noise(seed, 2)
        example.frames[:, 7] = 1
        example.truth[:] = example.reference[:3]
        example.reference[3] = 0.3
        example.save(tmp_path / f"{seed:06d}_0.npy")
    losses: list[float] = []
    recipe = TrustRecipe(config=TINY, budget=1e6, batch=2, size=32, rate=0.5)  # all in the warm-up
    run(tmp_path, 20, recipe, tell=lambda state, loss: losses.append(loss))
    assert len(losses) == 20
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-4:]) < np.mean(losses[:4]) - 0.2


def test_what_is_returned_is_the_mean_of_the_weights(tmp_path: Path, clock: None) -> None:
    mean = run(write_examples(tmp_path, 2, 3), 3)
    assert not any(value.requires_grad for value in mean.parameters())
    found = tensors(tmp_path / "run.safetensors")
    for name, value in mean.state_dict().items():
        assert torch.equal(found[f"mean.{name}"], value)
    assert any(not torch.equal(found[f"network.{name}"], value) for name, value in mean.state_dict().items())


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, clock: None, given: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", 6)
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 1.5)
    given()

    def kill(state: State, loss: float) -> None:
        if state.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 6, tell=kill)
    given()
    told: list[tuple[int, float]] = []
    stream = TrustLesson.batches()  # type: ignore[call-arg]
    list(islice(stream, 4))  # what the steps until the checkpoint have used
    run(tmp_path / "killed", 6, tell=lambda state, loss: told.append((state.step, state.elapsed)))
    assert told == [(5, 5.0), (6, 6.0)]
    expected, found = (tensors(tmp_path / name / "run.safetensors") for name in ("whole", "killed"))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    states = [load_mean(tmp_path / name / "run.safetensors", RECIPE)[1] for name in ("whole", "killed")]
    assert states[0] == states[1]
    assert [row[0] for row in states[0].curve] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_the_budget_ends_it_over_all_runs(tmp_path: Path, clock: None, given: Callable[[], None]) -> None:
    rates: list[float] = []
    recipe = TrustRecipe(config=TINY, budget=10.0, batch=2, size=32)
    run(tmp_path, 4, recipe)
    run(tmp_path, None, recipe, tell=lambda state, loss: rates.append(state.step))
    assert rates == [5, 6, 7, 8, 9, 10]
    run(tmp_path, None, recipe, tell=lambda state, loss: pytest.fail("nothing is left to do"))
    state = load_mean(tmp_path / "run.safetensors", recipe)[1]
    assert (state.step, state.elapsed) == (10, 10.0)
    assert state.curve[-1][2] < recipe.rate / 20


def test_scores_are_taken_as_it_goes_and_at_the_end(tmp_path: Path, clock: None) -> None:
    folder = write_examples(tmp_path / "examples", 2, 3)
    files = sorted(folder.glob("*.npy"))[:1]
    recipe = TrustRecipe(config=TINY, budget=100.0, batch=2, size=32, validate_every=1.5)
    told: list[tuple[int, Scores]] = []
    train(
        TrustLesson(recipe),
        folder,
        files,
        tmp_path / "run.safetensors",
        steps=5,
        on_scores=lambda mean, state, scores: told.append((state.step, scores)),
    )
    assert [step for step, _ in told] == [2, 4, 5]
    history = load_mean(tmp_path / "run.safetensors", recipe)[1].history
    assert [row["step"] for row in history] == [2, 4, 5]
    assert {region: history[-1][region] for region in REGIONS} == told[-1][1]["trust"]


def test_the_rate_rises_for_a_fortieth_and_falls_to_zero() -> None:
    recipe = TrustRecipe(rate=1.0)
    assert recipe.rate_at(0.0) == pytest.approx(0.02)
    assert recipe.rate_at(1 / 80) == pytest.approx(0.51)
    assert recipe.rate_at(1 / 40) == pytest.approx(1.0, abs=1e-3)
    assert recipe.rate_at(0.5125) == pytest.approx(0.5, abs=1e-3)
    assert recipe.rate_at(1.0) == pytest.approx(0.0, abs=1e-6)
    assert recipe.rate_at(1.5) == recipe.rate_at(1.0) > 0
    falling = [recipe.rate_at(x) for x in np.linspace(1 / 40, 1, 50)]
    assert falling == sorted(falling, reverse=True)


def test_the_loss_is_least_where_the_truth_is_found() -> None:
    """An untrained network on frames that are all as the truth."""
    example = noise(frames=2)
    linear = mu_law_inverse(example.reference[:3].astype(np.float32))
    example.frames[:, :3] = example.truth[:] = mu_law(linear).astype(np.float16)
    lesson = TrustLesson(RECIPE)
    patch = cut_patch(example, np.random.default_rng(0), 32, 2)
    assert patch is not None
    right = float(lesson.loss(collate([patch])).detach())
    wrong = (*patch[:2], patch[2] * np.float16(0.9), *patch[3:])
    assert right < float(lesson.loss(collate([wrong])).detach()) - 5


def test_it_starts_from_given_weights(tmp_path: Path, clock: None) -> None:
    folder = write_examples(tmp_path, 2)
    torch.manual_seed(9)
    start = build("trust", TINY).state_dict()
    mean = run(folder, 1, init=start, recipe=TrustRecipe(config=TINY, rate=1e-9, batch=2, size=32))
    for name, value in mean.state_dict().items():
        assert torch.allclose(value, start[name], atol=1e-6)
    (folder / "run.safetensors").unlink()
    with pytest.raises(NetworkError, match="the weights to start from: holds a network of another"):
        run(folder, 1, init={**start, "more": torch.ones(1)})


def test_a_loss_that_is_no_number_ends_it_before_the_checkpoint(tmp_path: Path) -> None:
    example = noise(frames=2)
    example.frames[:, 0] = np.inf
    example.save(tmp_path / "000000_0.npy")
    with pytest.raises(NetworkError, match="step 1: the loss is nan"):
        run(tmp_path, 2)
    assert not (tmp_path / "run.safetensors").exists()


def test_a_checkpoint_knows_what_it_is_of(tmp_path: Path, clock: None) -> None:
    run(write_examples(tmp_path, 2), 1)
    path = tmp_path / "run.safetensors"
    assert design_in(path) == ("trust", TINY)
    with pytest.raises(NetworkError, match=r"run\.safetensors: holds a network of another"):
        run(tmp_path, 2, TrustRecipe(config={**TINY, "context": 8}))


def test_the_names_in_a_checkpoint_are_those_of_before(tmp_path: Path, clock: None) -> None:
    """Runs that were begun by other versions go on: these names may not change."""
    run(write_examples(tmp_path, 2), 1)
    names = set(tensors(tmp_path / "run.safetensors"))
    weights = build("trust", TINY).state_dict()
    moments = [
        f"optimizer.{index}.{name}"
        for index in range(len(weights))
        for name in ("exp_avg", "exp_avg_sq", "step")
    ]
    assert names == {f"{part}.{name}" for part in ("network", "mean") for name in weights} | set(moments)


def test_checkpoints_of_before_say_less(tmp_path: Path, clock: None) -> None:
    from safetensors.torch import save_file

    run(write_examples(tmp_path, 2), 1)
    path = tmp_path / "run.safetensors"
    save_file(tensors(path), path, {"step": "1", "elapsed": "1.0", "history": "[]"})
    assert design_in(path) is None
    assert load_mean(path, RECIPE)[1] == State(1, 1.0)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "run.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(NetworkError, match="no checkpoint"):
        load_mean(path, RECIPE)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(NetworkError, match="no checkpoint"):
        design_in(path)


def test_a_checkpoint_that_cannot_be_written_is_told_of(tmp_path: Path, clock: None) -> None:
    folder = write_examples(tmp_path / "examples", 2)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        train(TrustLesson(RECIPE), folder, [], tmp_path / "file" / "run.safetensors", steps=1)
