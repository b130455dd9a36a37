"""`unet`: radiance from three frames by a U-Net that fills in what the reference lacks.

The network of Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues", section
3.4. Inputs, output and the branch beside it are those of `composition`.

The paper states four modules down and four up, after Ronneberger et al. 2015, 17.3 M parameters and 1856
GFLOPs for 1500 x 1000 pixels. The widths are inferred: the usual U-Net whose lowest scale is no wider than
the one above it, with bilinear enlargement, has 17,266,563 parameters, and the branch of the blending
weights 5,667; 1855.7 GFLOPs, of which the branch has 16.8. Inferred, too: batch normalisation, and a border
of zeros.

H and W are multiples of 16 where tiles are to give what the whole gives. Any others from 16 on work, as in
the paper's count: half an odd size is rounded down, and enlarged to the size it is joined with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .composition import Blend, Composition, Single, seen_below

HALVINGS = 4
MULTIPLE = 1 << HALVINGS


class Double(nn.Sequential):
    """Two 3 x 3 convolutions, normalised, with rectifiers."""

    def __init__(self, wide_in: int, middle: int, wide: int) -> None:
        super().__init__(
            nn.Conv2d(wide_in, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Nine planes to three: ``width`` features at full size, twice as many a scale, the last two alike."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width << min(scale, HALVINGS - 1) for scale in range(HALVINGS + 1)]
        entering = [9, *widths[:-1]]
        self.down = nn.ModuleList(Double(a, b, b) for a, b in zip(entering, widths, strict=True))
        rising = [widths[max(scale - 1, 0)] for scale in range(HALVINGS)]
        self.up = nn.ModuleList(
            Double(2 * skip, skip, wide) for skip, wide in zip(widths[:-1], rising, strict=True)
        )
        self.last = Single(width, 3, kernel=1)

    def forward(self, frames: Tensor) -> Tensor:
        scales = [self.down[0](frames)]
        for block in list(self.down)[1:]:
            scales.append(block(functional.max_pool2d(scales[-1], 2)))
        x = scales.pop()
        for block in reversed(list(self.up)):
            skip = scales.pop()
            raised = functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([skip, raised], 1))
        found: Tensor = self.last(x)
        return found


def reach() -> int:
    """Return how far from a block of the coarsest grid, 16 x 16, an input may influence it [px].

    Backwards from the result, by way of the lowest scale: two convolutions on each side of every
    enlargement and of every maximum of 2 x 2. The branch of the blending weights sees 4 px.

    >>> reach()
    110
    """
    low, high = 0, MULTIPLE - 1
    for _ in range(HALVINGS):
        low, high = seen_below(low - 2, high + 2)
    low, high = low - 2, high + 2
    for _ in range(HALVINGS):
        low, high = 2 * low - 2, 2 * high + 1 + 2
    return max(-low, high + 1 - MULTIPLE)


def build(config: Mapping[str, Any]) -> Composition:
    """Return the network of a configuration.

    ``width``, a multiple of 4, is 64 in the paper; ``residual`` is as in `composition`, False unless stated.
    """
    width = int(config.get("width", 64))
    narrow = width // 4
    blend = Blend(narrow, narrow, narrow, 3)
    residual = bool(config.get("residual", False))
    return Composition(UNet(width), blend, reach(), MULTIPLE, residual)
