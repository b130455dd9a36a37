"""The training loop: batches -> network -> loss -> step, against the clock.

A schedule is given as a time, not as a number of steps: the learning rate rises for a fortieth of the
budget and falls along a cosine to zero at its end, so that a run of any length ends well, on any machine.
A killed run goes on from its last checkpoint. What is kept is the exponential mean of the weights.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
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
from .batches import Batch, Resident, read_batches
from .losses import log_error, regions_of
from .make import data_in
from .validate import Scores, validate

CHECKPOINT_EVERY = 120.0  # [s]
CURVE_POINTS = 500  # of the loss, over the budget


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; what is not said on the command line is decided here."""

    architecture: str = "trust"
    config: Mapping[str, Any] = field(default_factory=dict)
    budget: float = 3600.0  # [s] of training, over all runs that share a checkpoint
    rate: float = 1e-3
    batch: int = 16
    size: int = 128  # [px] of a patch
    blend_weight: float = 0.5  # of the loss of the blend alone, beside the corrected one
    average: float = 0.998  # of the exponential mean of the weights
    validate_every: float = 300.0  # [s]
    seed: int = 1

    def describe(self) -> str:
        """Return the recipe in one line, for the card of a weights file."""
        return (
            f"AdamW, rate {self.rate:g}, warm-up and cosine over {self.budget:.0f} s; "
            f"batches of {self.batch} patches of {self.size} px; log MSE + log MAE / 2 of mu-law values "
            f"where the gate is open, more where something moved, and {self.blend_weight:g} of the blend "
            f"alone; mean of weights over {1 / (1 - self.average):.0f} steps; bfloat16; seed {self.seed}"
        )


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
    recipe: Recipe,
    examples: Path,
    held_out: Sequence[Path],
    checkpoint: Path,
    device: str = "cpu",
    steps: int | None = None,
    tell: Tell | None = None,
    on_scores: OnScores | None = None,
    init: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Train until the budget is spent (or for ``steps``) and return the mean network.

    ``examples`` is the folder of `Example` files, ``held_out`` are those that scores are taken on.
    A new run starts from the weights ``init``, where given.
    """
    where = torch.device(device)
    torch.manual_seed(recipe.seed)
    network = build(recipe.architecture, recipe.config)
    if init is not None and not checkpoint.exists():
        _fill(network, init, "the weights to start from")
    network.to(where).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=1e-4)
    state = resume(checkpoint, network, mean, optimizer) if checkpoint.exists() else State()
    rng = np.random.default_rng([recipe.seed, state.step])
    saved = scored = state.elapsed
    losses: list[float] = []

    def unfinished() -> bool:
        return state.elapsed < recipe.budget and (steps is None or state.step < steps)

    with closing(_batches(recipe, examples, rng, where)) as batches:
        if unfinished():
            state.recipe, state.data = recipe.describe(), data_in(examples)
        while unfinished():
            start = time.monotonic()
            rate = rate_at(state.elapsed / recipe.budget, recipe.rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = step_loss(network, next(batches).to(where), recipe)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            state.step += 1
            follow_mean(mean, network, min(recipe.average, state.step / (state.step + 10)))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise NetworkError(
                    f"step {state.step}: the loss is {value}; repeat the command to go on from the last "
                    f"checkpoint ({checkpoint}), with another --seed"
                )
            state.elapsed += time.monotonic() - start
            losses.append(value)
            drawn = state.curve[-1][0] if state.curve else 0.0
            if state.elapsed - drawn >= recipe.budget / CURVE_POINTS or not unfinished():
                state.curve.append([round(state.elapsed, 1), round(float(np.mean(losses)), 4), rate])
                losses.clear()
            if tell:
                tell(state, value)
            if state.elapsed - scored > recipe.validate_every and held_out and unfinished():
                scored = state.elapsed
                score(mean, held_out, state, on_scores)
            if state.elapsed - saved > CHECKPOINT_EVERY:
                saved = state.elapsed
                save(checkpoint, network, mean, optimizer, state, recipe)
    if held_out and not (state.history and state.history[-1]["step"] == state.step):
        score(mean, held_out, state, on_scores)
    save(checkpoint, network, mean, optimizer, state, recipe)
    return mean


def _batches(
    recipe: Recipe, examples: Path, rng: np.random.Generator, device: torch.device
) -> Generator[Batch, None, None]:
    """Yield batches from the memory of the device where they fit into it, else from the disk."""
    if Resident.fits(examples, device):
        yield from Resident(examples, device).batches(rng, recipe.batch, recipe.size)
    else:
        with closing(read_batches(examples, rng, recipe.batch, recipe.size)) as batches:
            yield from batches


def rate_at(progress: float, highest: float) -> float:
    """Return the learning rate at a share of the budget: linear warm-up, then a cosine to zero."""
    warm = 1 / 40
    if progress < warm:
        return highest * (0.02 + 0.98 * progress / warm)
    return highest * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - warm) / (1 - warm)))) + 1e-7


def step_loss(network: nn.Module, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Return the loss of a batch, computed in bfloat16 where that is safe."""
    with torch.autocast(batch.reference.device.type, torch.bfloat16):
        _, correction, blend = network.judge(batch.reference, batch.frames)  # type: ignore[operator]
    code, blend = (blend + correction).float(), blend.float()
    masks = regions_of(batch.reference[:, 6:7], batch.moving, batch.saturated)
    loss = recipe.blend_weight * log_error(blend, batch.truth, masks[0][1], batch.peak)
    for share, mask in masks:
        loss = loss + share * log_error(code, batch.truth, mask, batch.peak)
    return loss


@torch.no_grad()
def follow_mean(mean: nn.Module, network: nn.Module, share: float) -> None:
    """Move the mean network towards the trained one."""
    for kept, new in zip(mean.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - share)


def score(mean: nn.Module, held_out: Sequence[Path], state: State, on_scores: OnScores | None) -> None:
    """Take scores on the examples held out and write them into the history."""
    scores = validate(mean, held_out)
    state.history.append({"step": state.step, "elapsed": round(state.elapsed, 1), **scores["trust"]})
    if on_scores:
        on_scores(mean, state, scores)


# --- checkpoints ----------------------------------------------------------------------------------


def save(
    path: Path,
    network: nn.Module,
    mean: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    recipe: Recipe,
) -> None:
    """Write a checkpoint as safetensors, whole or not at all."""
    from safetensors.torch import save_file

    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    tensors |= {f"mean.{key}": value for key, value in mean.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    described = {
        "architecture": recipe.architecture,
        "config": json.dumps(dict(recipe.config)),
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


def resume(path: Path, network: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load a checkpoint into the networks and the optimizer, and return where the run was."""
    tensors, described = _read(path)
    _fill(network, _part(tensors, "network."), str(path))
    _fill(mean, _part(tensors, "mean."), str(path))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in _part(tensors, "optimizer.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return _state(described)


def load_mean(path: Path, recipe: Recipe) -> tuple[nn.Module, State]:
    """Return the mean network of a checkpoint, to use it without further training."""
    tensors, described = _read(path)
    mean = build(recipe.architecture, recipe.config).eval().requires_grad_(False)
    _fill(mean, _part(tensors, "mean."), str(path))
    mean.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return mean, _state(described)


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


def _fill(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a network; raise NetworkError where they are another one's."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise NetworkError(
            f"{source}: holds a network of another architecture or other widths; "
            "state its --network and --config, or name another file"
        ) from error
