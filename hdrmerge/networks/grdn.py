"""`grdn`: radiance from three frames by grouped residual dense blocks.

The third backbone of Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues",
after Kim et al. 2019, "GRDN: Grouped Residual Dense Network for Real Image Denoising". Inputs, output and the
branch beside it are those of `composition`.

The paper states the name, 21.9 M parameters and 6570 GFLOPs for 1500 x 1000 pixels. The layers are inferred:
two groups at half size and seven at a quarter, of dense blocks whose eight layers add 32 features each, have
21,943,334 parameters with the branch of the blending weights, and 6570.2 GFLOPs. Kim et al.'s own layout,
all at half size, has as many parameters and 2.5 times the FLOPs; the paper's row may be that one on a
smaller image.

H and W are multiples of 4. It sees 1486 px far: a tile and its halo are a whole picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .composition import Blend, Composition, Single, seen_below

LAYERS = 8  # of a dense block
HALF = (4, 4)  # dense blocks of the groups at half size
QUARTER = (6,) * 7  # and at a quarter
MULTIPLE = 4


class Dense(nn.Module):
    """A residual dense block: every layer sees the input and what all before it said."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv2d(width + number * growth, growth, 3, padding=1) for number in range(LAYERS)
        )
        self.join = nn.Conv2d(width + LAYERS * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        said = x
        for layer in self.layers:
            said = torch.cat([said, functional.relu(layer(said), inplace=True)], 1)
        added: Tensor = self.join(said)
        return x + added


class Group(nn.Module):
    """``count`` dense blocks in a row, and the sum of the input and what all of them said."""

    def __init__(self, width: int, growth: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Dense(width, growth) for _ in range(count))
        self.join = nn.Conv2d(count * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        said = [x]
        for block in self.blocks:
            said.append(block(said[-1]))
        added: Tensor = self.join(torch.cat(said[1:], 1))
        return x + added


class Grdn(nn.Module):
    """Nine planes to three, ``width`` features at every size; dense layers add half as many (``growth``)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        growth = width // 2
        self.first = nn.Sequential(nn.Conv2d(9, width, 3, padding=1), *_rectified(width))
        self.to_half = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.middle = nn.Sequential(*(Group(width, growth, count) for count in HALF))
        self.to_quarter = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.lowest = nn.Sequential(*(Group(width, growth, count) for count in QUARTER))
        self.from_quarter = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.from_half = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1)
        self.end = nn.Sequential(*_rectified(width), Single(width, 3))

    def forward(self, frames: Tensor) -> Tensor:
        full = self.first(frames)
        half = self.middle(self.to_half(full))
        quarter = self.lowest(self.to_quarter(half))
        found: Tensor = self.end(full + self.from_half(half + self.from_quarter(quarter)))
        return found


def _rectified(width: int) -> list[nn.Module]:
    """Return two 3 x 3 convolutions with rectifiers."""
    return [
        layer for _ in range(2) for layer in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True))
    ]


def reach() -> int:
    """Return how far from a block of the coarsest grid, 4 x 4, an input may influence it [px].

    Backwards from the result: three convolutions; up from the quarter, where dense blocks see a pixel a
    layer, as they do at half size; two convolutions of 4 x 4, stride 2, of which pixel k sees 2 k - 1 to
    2 k + 2; and three more.

    >>> reach()
    1486
    """
    low, high = 0 - 3, MULTIPLE - 1 + 3
    for _ in range(2):
        low, high = seen_below(low, high)
    for groups in (QUARTER, HALF):
        far = LAYERS * sum(groups)
        low, high = 2 * (low - far) - 1, 2 * (high + far) + 2
    low, high = low - 3, high + 3
    return max(-low, high + 1 - MULTIPLE)


def build(config: Mapping[str, Any]) -> Composition:
    """Return the network of a configuration.

    ``width``, a multiple of 4, is 64 in the paper; ``residual`` is as in `composition`, False unless stated.
    """
    width = int(config.get("width", 64))
    narrow = width // 4
    blend = Blend(narrow, narrow, narrow, 3)
    residual = bool(config.get("residual", False))
    return Composition(Grdn(width), blend, reach(), MULTIPLE, residual)
