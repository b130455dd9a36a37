"""The training loop: batches -> steps of a lesson, against the clock.

What a step is, is the lesson's (`lesson.py`). A schedule is given as a time, not as a number of steps: the
recipe says the learning rate at each share of the budget, and it ends near zero, so that a run of any length
ends well, on any machine. A killed run goes on from its last checkpoint, which holds all
networks and optimizers of the lesson. What is kept is the exponential mean of the weights.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NetworkError
from ..networks import build
from ..write import unwritable
from .lesson import AnyLesson, Lesson, Lot, Recipe, Sample, Source, fill, placed
from .validate import Scores

CHECKPOINT_EVERY = 120.0  # [s]
CURVE_POINTS = 500  # of the loss, over the budget


@dataclass
class State:
    """Where a run is: what a checkpoint holds beside the tensors.

    ``history`` are held-out scores; ``curve`` rows of elapsed [s], mean loss since the last, learning rate.
    ``recipe`` and ``data`` say how and on what the last steps were made, for the card of a weights file.
    """

    step: int = 0
    elapsed: float = 0.0  # [s] of training
    history: list[dict[str, float]] = field(default_factory=list)
    curve: list[list[float]] = field(default_factory=list)
    recipe: str = ""
    data: str = ""


Tell = Callable[[State, float], None]
"""Called after every step with the state and the loss, to show progress."""

OnScores = Callable[[nn.Module, State, Scores], None]
"""Called with the mean network after scores were taken."""


def train(
    lesson: Lesson[Source, Lot, Sample],
    source: Source,
    held_out: Sequence[Sample],
    checkpoint: Path,
    steps: int | None = None,
    tell: Tell | None = None,
    on_scores: OnScores | None = None,
    clock: Callable[[], float] | None = None,
) -> nn.Module:
    """Train until the budget is spent (or for ``steps``) and return the mean network.

    ``source`` is what is learned from, ``held_out`` is what scores are taken on. Time is
    that of ``clock`` [s], by default the monotonic one.
    """
    recipe, clock = lesson.recipe, clock or time.monotonic
    state = resume(checkpoint, lesson) if checkpoint.exists() else State()
    rng = np.random.default_rng([recipe.seed, state.step])
    saved = scored = state.elapsed
    losses: list[float] = []

    def unfinished() -> bool:
        return state.elapsed < recipe.budget and (steps is None or state.step < steps)

    with closing(lesson.batches(source, rng)) as batches:
        if unfinished():
            state.recipe, state.data = recipe.describe(), lesson.data_in(source)
        while unfinished():
            start = clock()
            progress = state.elapsed / recipe.budget
            rate = recipe.rate_at(progress)
            for optimizer in lesson.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = rate
            loss = lesson.step(next(batches), progress)
            state.step += 1
            lesson.follow(min(recipe.average, state.step / (state.step + 10)))
            if not math.isfinite(loss):
                raise NetworkError(
                    f"step {state.step}: the loss is {loss}; repeat the command to go on from the last "
                    f"checkpoint ({checkpoint}), with another --seed"
                )
            state.elapsed += clock() - start
            losses.append(loss)
            drawn = state.curve[-1][0] if state.curve else 0.0
            if state.elapsed - drawn >= recipe.budget / CURVE_POINTS or not unfinished():
                state.curve.append([round(state.elapsed, 1), round(float(np.mean(losses)), 5), rate])
                losses.clear()
            if tell:
                tell(state, loss)
            if state.elapsed - scored > recipe.validate_every and held_out and unfinished():
                scored = state.elapsed
                score(lesson, held_out, state, on_scores)
            if state.elapsed - saved > CHECKPOINT_EVERY:
                saved = state.elapsed
                save(checkpoint, lesson, state)
    if held_out and not (state.history and state.history[-1]["step"] == state.step):
        score(lesson, held_out, state, on_scores)
    save(checkpoint, lesson, state)
    return lesson.mean


def score(
    lesson: Lesson[Source, Lot, Sample],
    held_out: Sequence[Sample],
    state: State,
    on_scores: OnScores | None,
) -> None:
    """Take scores on the examples held out and write them into the history."""
    scores = lesson.validate(lesson.mean, held_out)
    state.history.append({"step": state.step, "elapsed": round(state.elapsed, 1), **scores[lesson.own]})
    if on_scores:
        on_scores(lesson.mean, state, scores)


# --- checkpoints ----------------------------------------------------------------------------------


def save(path: Path, lesson: AnyLesson, state: State) -> None:
    """Write a checkpoint as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, network in {**lesson.networks, "mean": lesson.mean}.items():
        tensors |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in lesson.optimizers.items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    described = {
        "architecture": lesson.recipe.architecture,
        "config": json.dumps(dict(lesson.recipe.config)),
        "step": str(state.step),
        "elapsed": str(state.elapsed),
        "history": json.dumps(state.history),
        "curve": json.dumps(state.curve),
        "recipe": state.recipe,
        "data": state.data,
    }
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, part, described)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def resume(path: Path, lesson: AnyLesson) -> State:
    """Load a checkpoint into the networks and optimizers of a lesson, and return where the run was.

    What the run had no part for until now (a discriminator that joins in) begins anew.
    """
    tensors, described = _read(path)
    fill(lesson.mean, _part(tensors, "mean."), str(path))
    for name, network in lesson.networks.items():
        values = _part(tensors, f"{name}.")
        if values or network is lesson.network:
            fill(network, values, str(path))
    for name, optimizer in lesson.optimizers.items():
        found: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, f"{name}.").items():
            index, _, moment = key.partition(".")
            found.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": found})
    return _state(described)


def load_mean(path: Path, recipe: Recipe) -> tuple[nn.Module, State]:
    """Return the mean network of a checkpoint, to use it without further training."""
    tensors, described = _read(path)
    mean = build(recipe.architecture, recipe.config).eval().requires_grad_(False)
    fill(mean, _part(tensors, "mean."), str(path))
    return placed(mean, torch.device("cpu")), _state(described)


def design_in(path: Path) -> tuple[str, dict[str, Any]] | None:
    """Return architecture and configuration of a checkpoint, None where it does not say."""
    described = _read(path)[1]
    if "architecture" not in described:
        return None
    return described["architecture"], json.loads(described["config"])


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a checkpoint and what it says; raise NetworkError where it is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, no mapping
            described: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path}: is damaged, or no checkpoint; name another one, or delete it") from error
    if not {"step", "elapsed", "history"} <= set(described):
        raise NetworkError(f"{path}: is no checkpoint of a training; name another one")
    return tensors, described


def _state(described: Mapping[str, str]) -> State:
    history, curve = json.loads(described["history"]), json.loads(described.get("curve", "[]"))
    recipe, data = described.get("recipe", ""), described.get("data", "")
    return State(int(described["step"]), float(described["elapsed"]), history, curve, recipe, data)


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
