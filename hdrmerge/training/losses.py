"""What the training minimises: errors in the mu-law domain, by the picture, where the network may act."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..exposure import MU

SPAN = math.log1p(MU)
BRIGHTEST = 3.0  # mu-law code, beyond any radiance; an exponential of more could overflow
FLOOR = 1e-5  # mean square error (50 dB) below which a patch is good enough


def compress(radiance: Tensor) -> Tensor:
    """Return mu-law codes, as `exposure.mu_law`."""
    return torch.log1p(MU * radiance) / SPAN


def expand(code: Tensor) -> Tensor:
    """Return the radiance of mu-law codes, as `exposure.mu_law_inverse`."""
    return torch.expm1(code.clamp(min=0) * SPAN) / MU


def in_peak(code: Tensor, peak: Tensor) -> Tensor:
    """Return mu-law codes of radiance over ``peak`` (B,), from codes (B, 3, H, W) relative to the white.

    The scale in which results are compared: 1 where the shortest frame of the bracket clips.
    """
    radiance = torch.expm1(code.clamp(max=BRIGHTEST) * SPAN) / peak.view(-1, 1, 1, 1)
    return torch.log1p(radiance) / SPAN


def log_error(code: Tensor, truth: Tensor, weight: Tensor, peak: Tensor) -> Tensor:
    """Return the mean over patches of log(MSE) + log(MAE) / 2: decibels, up to a factor.

    ``code`` and ``truth`` (B, 3, H, W) are mu-law codes, ``weight`` (B, 1, H, W) says what counts.
    Averages of decibels are what tables hold; the logarithm makes a nearly right patch count as much
    as a ghosted one. Above the peak nothing is known: more is not wrong there.
    """
    found, true = in_peak(code, peak), in_peak(truth, peak)
    error = torch.where(true > 0.998, (found - true).clamp(max=0), found - true)
    total = weight.sum((1, 2, 3)) * 3 + 1e-6
    square = (error.square() * weight).sum((1, 2, 3)) / total
    size = (error.abs() * weight).sum((1, 2, 3)) / total
    counts = (total > 300).to(code.dtype)
    loss = torch.log(square + FLOOR) + 0.5 * torch.log(size + FLOOR**0.5)
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def regions_of(gate: Tensor, moving: Tensor, saturated: Tensor) -> list[tuple[float, Tensor]]:
    """Return what counts, and how much: masks (B, 1, H, W) that are 0 where nothing can be changed.

    All that the network may act on; what moved; and what moved where the reference is clipped, which
    is little and hard.
    """
    moved = gate * moving
    return [(1.0, gate), (0.5, moved), (0.5, moved * saturated)]
