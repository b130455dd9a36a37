"""Blocks that two or more networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def block(wide_in: int, wide: int) -> nn.Sequential:
    """Return two 3 x 3 convolutions with leaky rectifiers."""
    return nn.Sequential(
        nn.Conv2d(wide_in, wide, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(wide, wide, 3, padding=1),
        nn.LeakyReLU(0.1, inplace=True),
    )


class Encoder(nn.Module):
    """The descending half of a U-Net: one block a scale, 2 x 2 means between. Returns all scales."""

    def __init__(self, wide_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = [wide_in, *widths[:-1]]
        self.blocks = nn.ModuleList(block(a, b) for a, b in zip(inputs, widths, strict=True))

    @property
    def first(self) -> nn.Conv2d:
        """The convolution that sees the input."""
        return cast(nn.Conv2d, cast(nn.Sequential, self.blocks[0])[0])

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.rest(self.first(x))

    def rest(self, x: Tensor) -> list[Tensor]:
        """Return all scales of what the first convolution gave."""
        scales = [cast(nn.Sequential, self.blocks[0])[1:](x)]
        for stage in list(self.blocks)[1:]:
            scales.append(stage(functional.avg_pool2d(scales[-1], 2)))
        return scales


class Decoder(nn.Module):
    """The ascending half of a U-Net, from all scales back to the first; the last layer starts at zero.

    ``skips`` are the channels that arrive at each scale, ``widths`` those it works with.
    """

    def __init__(self, skips: Sequence[int], widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.lowest = nn.Conv2d(skips[-1], widths[-1], 1)
        pairs = list(zip(skips[:-1], widths[:-1], widths[1:], strict=True))
        self.up = nn.ModuleList(nn.Conv2d(below, wide, 1) for _, wide, below in pairs)
        self.blocks = nn.ModuleList(block(skip + wide, wide) for skip, wide, _ in pairs)
        self.last = nn.Conv2d(widths[0], out, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias if self.last.bias is not None else torch.zeros(out))

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        x = self.lowest(scales[-1])
        for number in reversed(range(len(self.blocks))):
            raised = functional.interpolate(self.up[number](x), scale_factor=2.0, mode="nearest")
            x = self.blocks[number](torch.cat([scales[number], raised], 1))
        result: Tensor = self.last(x)
        return result
