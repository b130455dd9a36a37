"""Where in each neighbour of a video frame a pixel of it is, and what codes say: `coarse` and `followed`.

From the coarsest scale to the finest, a network of its own a scale, each adding to what the one before it
said: Kalantari and Ramamoorthi 2019, "Deep HDR Video from Sequences with Alternating Exposures".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .composition import Single, seen_below
from .deformable import warp

GAMMA = 2.2


class FlowLevel(nn.Sequential):
    """What one scale adds to the flow: four 5 x 5 convolutions with rectifiers between."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for wide_in, wide in pairwise(widths[:-1]):
            layers += [nn.Conv2d(wide_in, wide, 5, padding=2), nn.ReLU(inplace=True)]
        super().__init__(*layers, Single(widths[-2], widths[-1], kernel=5))
        for layer in self:
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)


class Flow(nn.Module):
    """Say where in each neighbour a pixel of the reference is, from coarse to fine.

    ``finest`` is the scale it ends at: 0 is full size, 1 half of it, from where flow is only enlarged.
    """

    def __init__(
        self, pairs: int, widths: Sequence[int], levels: int, finest: int, largest_flow: float
    ) -> None:
        super().__init__()
        self.pairs, self.finest, self.largest_flow = pairs, finest, largest_flow
        self.levels = nn.ModuleList(FlowLevel(9 * pairs, *widths, 4 * pairs) for _ in range(levels))

    def forward(self, neighbours: Tensor, matched: Tensor) -> Tensor:
        """Return flows (B, 2 P, 2, H, W) [px] to ``neighbours`` (B, 2 P, 3, H, W), pair by pair.

        ``matched`` (B, P, 3, H, W) is the reference at the exposure of each pair.
        """
        scales = [(neighbours.flatten(0, 1), matched.flatten(0, 1))]
        for _ in range(self.finest + len(self.levels) - 1):
            scales.append(tuple(functional.avg_pool2d(planes, 2) for planes in scales[-1]))  # type: ignore[arg-type]
        flow: Tensor | None = None
        for scale in reversed(range(self.finest, len(scales))):
            others, own = scales[scale]
            if flow is not None:
                flow = enlarged(flow)
                others = warp(others, flow)
            size = own.shape[2:]
            pairs = others.reshape(-1, self.pairs, 2, 3, *size)
            planes = [pairs[:, :, 0], own.reshape(-1, self.pairs, 3, *size), pairs[:, :, 1]]
            found = self.levels[scale - self.finest](torch.cat(planes, 2).flatten(1, 2))
            found = found.reshape(-1, 2, *size)
            limit = self.largest_flow / (1 << scale)
            flow = (found if flow is None else flow + found).clamp(-limit, limit)
        assert flow is not None
        for _ in range(self.finest):
            flow = enlarged(flow)
        return flow.reshape(-1, 2 * self.pairs, 2, *flow.shape[2:])


def planes_of(frames: Tensor, exposures: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames as (B, n, 3, H, W) and exposures as (B, n), whichever form they came in."""
    return pictures_of(frames), exposures[:, :, 0, 0] if exposures.dim() == 4 else exposures


def pictures_of(planes: Tensor) -> Tensor:
    """Return planes (B, 3 n, H, W) as (B, n, 3, H, W).

    Neither by unflatten nor by len: TorchScript's exporter takes what follows from them for constants.
    """
    return planes.reshape(planes.shape[0], -1, 3, *planes.shape[2:]) if planes.dim() == 4 else planes


def radiance(codes: Tensor, exposures: Tensor) -> Tensor:
    """Return code^2.2 / exposure, the radiance that a frame recorded, in [0, 1 / exposure]."""
    return codes.clamp(min=0) ** GAMMA / exposures


def rematched(codes: Tensor, exposure: Tensor, wanted: Tensor) -> Tensor:
    """Return the codes that a frame would have at another exposure, ends clipped.

    >>> float(rematched(torch.tensor(0.5), torch.tensor(1.0), torch.tensor(4.0)))  # doctest: +ELLIPSIS
    0.938...
    """
    return (codes * (wanted / exposure) ** (1 / GAMMA)).clamp(0, 1)


def enlarged(flow: Tensor) -> Tensor:
    """Return a flow of twice the size, in its pixels."""
    return 2 * functional.interpolate(flow, scale_factor=2.0, mode="bilinear", align_corners=False)


def seen_by_flow(low: int, high: int, levels: int, finest: int, largest_flow: float = 0.0) -> tuple[int, int]:
    """Return which pixels of the inputs those from ``low`` to ``high`` of fetched pictures are made of.

    Bilinear samples of neighbours, fetched from as far as flow may lead; and the flow itself, which at each
    of its scales sees 8 px, again in neighbours that were fetched.
    """
    far = math.ceil(largest_flow) + 1
    lowest, highest = low - far, high + far
    for _ in range(finest):
        low, high = seen_below(low, high)
    for scale in range(finest, finest + levels):
        low, high = low - 8, high + 8
        far = 0 if scale == finest + levels - 1 else math.ceil(largest_flow / (1 << scale)) + 1
        lowest = min(lowest, (low - far) << scale)
        highest = max(highest, ((high + far + 1) << scale) - 1)
        low, high = seen_below(low, high)
    return lowest, highest
