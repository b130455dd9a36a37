"""`resnet`: radiance from three frames by residual blocks at full size.

The second backbone of Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues".
Inputs, output and the branch beside it are those of `composition`.

The paper states "as described in Zhang et al. (with no dense connections)", 0.8 M parameters and 2240 GFLOPs
for 1500 x 1000 pixels, and no more. All layers are inferred from that: a convolution, ten blocks of two, a
last convolution, and for the blending weights a branch that says one a pixel; 750,540 parameters, 2239.8
GFLOPs. The blocks are normalised, since without that there were 747,980 parameters, which print as 0.7 M.

H and W are free.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .composition import Blend, Composition, Single

BLOCKS = 10
MULTIPLE = 1


class Block(nn.Module):
    """Two 3 x 3 convolutions, normalised, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.layers(x)
        return x + added


class ResNet(nn.Sequential):
    """Nine planes to three, ``width`` features between."""

    def __init__(self, width: int = 64) -> None:
        first = nn.Conv2d(9, width, 3, padding=1)
        super().__init__(first, *(Block(width) for _ in range(BLOCKS)), Single(width, 3))


def reach() -> int:
    """Return how far away an input may influence a pixel [px]: by one a convolution.

    >>> reach()
    22
    """
    return 1 + 2 * BLOCKS + 1


def build(config: Mapping[str, Any]) -> Composition:
    """Return the network of a configuration.

    ``width``, a multiple of 16, is 64 in the paper; ``residual`` is as in `composition`, False unless stated.
    """
    width = int(config.get("width", 64))
    blend = Blend(width // 4, 3 * width // 16, 1)
    residual = bool(config.get("residual", False))
    return Composition(ResNet(width), blend, reach(), MULTIPLE, residual)
