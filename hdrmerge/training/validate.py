"""Scores on examples held out: how near each method comes to the truth, by region."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .examples import Example
from .losses import in_peak

REGIONS = ("whole", "moving", "moving_saturated", "static")

Scores = dict[str, dict[str, float]]
"""Method -> region -> mean PSNR of mu-law values [dB]."""

Results = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Reference and frames of an example -> what each method makes of them, mu-law codes (1, 3, H, W)."""


@torch.no_grad()
def validate(
    results_of: Results, methods: Sequence[str], held_out: Sequence[Path], device: torch.device
) -> Scores:
    """Return the mean scores of all methods."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    for path in held_out:
        reference, frames, truth, masks, peak = tensors_of(Example.load(path), device)
        for name, code in results_of(reference, frames).items():
            rows[name].append(score(code, truth, masks, peak))
    return {
        name: {region: finite_mean([row[region] for row in found]) for region in REGIONS}
        for name, found in rows.items()
    }


def tensors_of(example: Example, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return reference, frames, truth, masks and peak, each a batch of one, cut to a multiple of 32."""

    def tensor(planes: object) -> Tensor:
        return torch.from_numpy(np.array(planes, np.float32)[None]).to(device)

    height, width = (length // 32 * 32 for length in example.moving.shape)
    at = (..., slice(height), slice(width))
    moving, saturated = example.moving[at] > 0, example.saturated[at] > 0
    masks = np.stack([np.ones_like(moving), moving, moving & saturated, ~moving])
    return (
        tensor(example.reference[at]),
        tensor(example.frames[at]),
        tensor(example.truth[at]),
        tensor(masks),
        torch.tensor([example.peak], dtype=torch.float32, device=device),
    )


def score(code: Tensor, truth: Tensor, masks: Tensor, peak: Tensor) -> dict[str, float]:
    """Return the PSNR [dB] in each region, nan where a region is empty."""
    found, true = in_peak(code, peak).clamp(0, 1), in_peak(truth, peak).clamp(0, 1)
    square = (found - true).square().mean(1)[0]
    result = {}
    for region, mask in zip(REGIONS, masks[0] > 0, strict=True):
        error = square[mask].double().mean() if mask.any() else torch.tensor(float("nan"))
        result[region] = float(-10 * torch.log10(error)) if error > 0 else float("nan")
    return result


def finite_mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are numbers, rounded; nan where there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(finite)), 3) if finite else float("nan")
