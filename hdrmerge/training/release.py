"""A trained network -> its weights file, with a card that says where it comes from and how good it is."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__, weights
from ..evaluate import environment
from ..tiles import round_up
from .lesson import AnyLesson
from .train import State
from .validate import Scores

MULTIPLE = 32  # [px] the pooling grid of a network that states none
SIZE = 64  # [px] of the inputs an export is traced with, large enough for any padding
UNKNOWN = "not recorded"  # by checkpoints of before


def write_network(
    path: Path,
    lesson: AnyLesson,
    network: nn.Module,
    state: State,
    scores: Scores,
    data: str = "",
    device: str = "cpu",
) -> weights.Card:
    """Write the trained network of a lesson to an .onnx file and return its card.

    ``state`` says how and on what it was trained, ``data`` what that was and under which licence, and
    ``scores`` how good it is on examples held out.
    """
    multiple = int(getattr(network, "multiple", MULTIPLE))
    inputs = lesson.example_inputs(round_up(SIZE, multiple))
    planes = [value.shape[1] for value in inputs.values()]
    card = {
        "architecture": lesson.recipe.architecture,
        "config": dict(lesson.recipe.config),
        "halo": halo_of(network, multiple, planes),
        "multiple": multiple,
        "bytes_per_pixel": lesson.bytes_per_pixel,
        "recipe": state.recipe or UNKNOWN,
        "data": "; ".join(filter(None, (data, state.data))) or UNKNOWN,
        "budget": f"{state.elapsed / 3600:.2f} h of training on {device}",
        "steps": state.step,
        "metrics": metrics_of(scores, lesson.own, lesson.rivals, lesson.measure),
        "version": __version__,
    }
    if commit := environment()["commit"]:
        card["commit"] = commit
    weights.save(network, inputs, lesson.outputs, lesson.axes, path, card)
    return weights.check(path)


def metrics_of(scores: Scores, own: str, rivals: Sequence[str], measure: str = "PSNR-mu") -> dict[str, float]:
    """Return the scores [dB] of the network by region, and its gain over each of the rivals."""
    found, name = {}, measure.lower().replace("-", "_")
    for region, value in scores.get(own, {}).items():
        suffix = "" if region == "whole" else f"_{region}"
        found[f"{name}{suffix}"] = value
        for other in rivals:
            found[f"over_{other}{suffix}"] = round(value - scores.get(other, {}).get(region, math.nan), 3)
    return {key: value for key, value in found.items() if math.isfinite(value)}


# --- the receptive field --------------------------------------------------------------------------


def halo_of(network: nn.Module, multiple: int, planes: Sequence[int]) -> int:
    """Return how far a network looks beyond a tile [px], a multiple of ``multiple``.

    What it says itself, else what is measured.
    """
    stated = getattr(network, "halo", None)
    return int(stated) if stated is not None else round_up(reach_of(network, multiple, planes), multiple)


def reach_of(network: nn.Module, multiple: int, planes: Sequence[int]) -> int:
    """Return how far from a block on the pooling grid inputs still have an influence on it [px].

    Measured as the extent of the gradient, in a network with positive weights, so that nothing cancels
    out, and of a size that saturates nothing. In strips: what is seen sideways is seen upwards, too.
    ``planes`` are those of each input.
    """
    bare = _positive(network)
    length = 16 * multiple
    while True:
        middle = length // (2 * multiple) * multiple
        reach = max(_extent(bare, multiple, length, middle, along, planes) for along in (-1, -2))
        if middle - reach >= multiple or length > 256 * multiple:
            return reach
        length *= 2


def _positive(network: nn.Module) -> nn.Module:
    bare = copy.deepcopy(network).cpu().double().train(False).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for values in bare.parameters():
        if values.dim() > 1:
            drawn = torch.rand(values.shape, generator=generator, dtype=torch.float64) + 0.5
            values.copy_(drawn / max(values[0].numel(), 1))
        else:
            values.zero_()
    return bare


def _extent(
    network: nn.Module, block: int, length: int, middle: int, along: int, planes: Sequence[int]
) -> int:
    """Return how far the gradient of a block reaches along one axis of a strip [px]."""
    shape = (block, length) if along == -1 else (length, block)
    generator = torch.Generator().manual_seed(1)
    inputs = [
        (torch.rand(1, number, *shape, generator=generator, dtype=torch.float64) * 0.4 + 0.3).requires_grad_()
        for number in planes
    ]
    outputs: Any = network(*inputs)
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    total = torch.stack([output.narrow(along, middle, block).sum() for output in outputs]).sum()
    reach = 0
    for gradient in torch.autograd.grad(total, inputs):
        seen = gradient.abs().sum(dim=(0, 1, 2 if along == -1 else 3))
        touched = torch.nonzero(seen > 0)
        first, last = int(touched.min()), int(touched.max())
        reach = max(reach, middle - first, last - (middle + block - 1))
    return reach
