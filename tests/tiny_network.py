"""A network small enough for tests: a U-Net over any number of frames, written to a weights file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hdrmerge import weights

MULTIPLE, HALO = 4, 16
"""Its receptive field reaches 15 px beyond a tile, so that a halo of 12 is one multiple short."""

OUTPUTS = ("trust", "residual")
AXES = {
    "reference": {2: "H", 3: "W"},
    "frames": {0: "K", 2: "H", 3: "W"},
    "trust": {0: "K", 2: "H", 3: "W"},
    "residual": {2: "H", 3: "W"},
}


class Tiny(nn.Module):
    """Reference (1, 6, H, W) and frames (K, 8, H, W) to trust (K, 1, H, W) and residual (1, 3, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(14, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.fourth = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.rise = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.trust = nn.Conv2d(3 * channels, 1, 3, padding=1)
        self.residual = nn.Conv2d(channels, 3, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(3, 1, 1))
        self.register_buffer("table", torch.linspace(0, 1, 3).reshape(3, 1, 1) / 3)

    def forward(self, reference: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = torch.cat([reference.expand(frames.shape[0], -1, -1, -1), frames], 1)
        full = F.relu(self.norm(self.enter(pairs)))
        half = F.relu(self.second(F.avg_pool2d(full, 2)))
        quarter = F.relu(self.fourth(F.max_pool2d(half, 2)))
        half = torch.cat([half, F.interpolate(quarter, scale_factor=2.0, mode="nearest")], 1)
        risen = F.interpolate(F.relu(self.rise(half)), scale_factor=2.0, mode="nearest")
        mean, largest = risen.mean(0, keepdim=True), risen.amax(0, keepdim=True)
        shared = torch.cat([mean, largest], 1).expand(frames.shape[0], -1, -1, -1)
        trust = torch.sigmoid(self.trust(torch.cat([full, shared], 1)))
        curve = torch.expm1(torch.exp2(-reference[:, :3]))
        return trust, self.residual(mean) * self.gain + curve * self.table


def build(architecture: str, config: Mapping[str, Any]) -> Tiny:
    """Stand in for `networks.build`."""
    assert architecture == "tiny"
    return Tiny(**config)


def trained(channels: int = 8) -> Tiny:
    """Return the network with weights that let every part of it matter."""
    torch.manual_seed(1)
    network = Tiny(channels).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if value.dim() == 4:
                nn.init.kaiming_normal_(value)
            elif name.endswith("bias"):
                value.zero_()  # equal constants, which exporters like to merge
        network.norm.running_mean.uniform_(-0.2, 0.2)
        network.norm.running_var.uniform_(0.5, 2.0)
    return network


CARD = {
    "architecture": "tiny",
    "config": {"channels": 8},
    "halo": HALO,
    "multiple": MULTIPLE,
    "recipe": "none: random weights",
    "data": "none",
    "licence": "Apache-2.0",
    "metrics": {"psnr_mu": 12.5},
    "commit": "0000000",
    "version": "1",
}


def save(path: Path, network: nn.Module | None = None, **card: Any) -> Path:
    """Write the network to ``path``."""
    inputs = {name: torch.from_numpy(values) for name, values in images(3, 32, 48).items()}
    weights.save(network or trained(), inputs, OUTPUTS, AXES, path, {**CARD, **card})
    return path


def images(frames: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return inputs of a size."""
    rng = np.random.default_rng(seed)
    return {
        "reference": rng.random((1, 6, height, width), dtype=np.float32),
        "frames": rng.random((frames, 8, height, width), dtype=np.float32),
    }
