"""`coarse`: radiance of a video frame from itself and its neighbours, which were exposed otherwise.

The first stage of Chen et al. 2021, "HDR Video Reconstruction: A Coarse-to-fine Network and A Real-world
Benchmark Dataset", section 3.2, after Kalantari and Ramamoorthi 2019, "Deep HDR Video from Sequences with
Alternating Exposures". A flow network says where in each neighbour a pixel is: from the coarsest of five
scales to full size, a network of its own a scale, each adding to what the one before it said. Neighbours are
fetched from there, and a weight network says how much of each picture goes into the result. It has the choice
of all of them as they were recorded, too, for flow may fail. The sum is one of radiances: no value is made
up, each lies between those of the pictures.

Video whose exposures repeat after N frames: the reference is in the middle of n = 2 N - 1 frames, so that all
other exposures are there twice, from the past and from the future. Each such pair is shown with the reference
at its own exposure.

In:  ``frames`` (B, n, 3, H, W) or (B, 3 n, H, W) in [0, 1], gamma code values (linear ^ (1 / 2.2)), in
     order of time, roughly aligned.
     ``exposures`` (B, n), relative to the shortest, which is 1. As an engine passes them: (B, n, h, w), of
     which the first pixel counts.
     ``reference`` (B, 3, H, W) in [0, 1]: what the sum takes for the reference, if networks are to see it in
     other tones, as training shows it to them. Usually left out.
Out: (B, 3, H, W) radiance, linear in [0, 1]. 1.0 is where the shortest exposure clips.
H and W are multiples of ``multiple``, 16; whoever calls repeats the last row and column.

Flows are in pixels of their scale, x first, and end at ``largest_flow`` [px of full size]. Where they lead
out of the picture there is black, as the weight network learns. How far a pixel sees depends on the flow: a
tile equals the whole picture if its halo is `reach` of the largest flow that occurs in it. ``halo`` is that
of the largest one allowed, 376 px: frames up to 1080p are better run whole.

The form that is released is another one, `followed`: it begins with what optical flow finds.

Two exposures: 907,145 + 2,077,711 parameters, three: 1,032,165 + 2,095,771; the decoder of the weight network
that makes 3.1 M of it is the narrow one. Other than in the authors' code the limit of 200 px holds at every
scale, instead of 320 of its pixels; and flow is enlarged as pictures are made smaller, between pixel centres,
not corner to corner, which would depend on the size of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NetworkError
from .composition import Single, seen_below
from .deformable import warp
from .flow import Flow, planes_of, radiance, rematched, seen_by_flow
from .followed import FollowedNet

HALVINGS = 3  # of the weight network
EPSILON = 1e-8  # of the sum of weights


class Weights(nn.Module):
    """Say how much of each picture goes into the result: an encoder and a decoder without bridges.

    ``planes`` to ``weights`` channels in [0, 1]. Widths are ``width`` at half size, twice as many a scale; on
    the way back half as many, or ``wide``: twice the first at all scales.
    """

    def __init__(self, planes: int, weights: int, width: int, wide: bool, normalised: bool) -> None:
        super().__init__()
        down = [planes, *(width << scale for scale in range(HALVINGS))]
        up = [down[-1], *([2 * width] * 3 if wide else [2 * width, width, width])]

        def activated(convolution: nn.Module, wide: int) -> list[nn.Module]:
            nn.init.kaiming_normal_(convolution.weight, a=0.1)  # type: ignore[arg-type]
            normalisation = [nn.BatchNorm2d(wide)] if normalised else []
            return [convolution, *normalisation, nn.LeakyReLU(0.1, inplace=True)]

        layers: list[nn.Module] = []
        for before, after in pairwise(down):
            layers += activated(nn.Conv2d(before, after, 3, stride=2, padding=1), after)
            layers += activated(nn.Conv2d(after, after, 3, padding=1), after)
        for scale, (before, after) in enumerate(pairwise(up)):
            raised = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
            layers += activated(raised, after)
            if scale < HALVINGS - 1:
                layers += activated(nn.Conv2d(after, after, 3, padding=1), after)
        self.layers = nn.Sequential(*layers)
        self.last = Single(up[-1], weights)

    def forward(self, planes: Tensor) -> Tensor:
        return torch.sigmoid(self.last(self.layers(planes)).float())


class CoarseNet(nn.Module):
    """See the module's docstring.

    ``exposures`` is N; ``flow`` the widths of each flow level, ``levels`` their number and ``finest`` the
    scale of the last; ``width`` and ``wide`` are the weight network's, which is ``normalised`` by batches in
    the paper's form of two exposures.
    """

    def __init__(
        self,
        exposures: int = 2,
        flow: Sequence[int] = (100, 50, 25),
        width: int = 64,
        wide: bool = False,
        normalised: bool | None = None,
        levels: int = 5,
        finest: int = 0,
        largest_flow: float = 200.0,
    ) -> None:
        super().__init__()
        if exposures < 2 or levels < 1 or finest < 0:
            raise NetworkError(
                f"coarse: {exposures} exposures, {levels} levels from {finest} on make no network; "
                "use at least 2, 1 and 0"
            )
        pictures = 4 * exposures - 3
        self.exposures, self.frames = exposures, 2 * exposures - 1
        self.order = [frame for first in range(exposures - 1) for frame in (first, first + exposures)]
        self.flow = Flow(exposures - 1, flow, levels, finest, largest_flow)
        self.weights = Weights(
            6 * pictures, 3 * pictures, width, wide, exposures == 2 if normalised is None else normalised
        )
        self.multiple = 1 << max(HALVINGS, levels - 1 + finest)
        self.halo = reach(levels, finest, largest_flow)

    def forward(self, frames: Tensor, exposures: Tensor, reference: Tensor | None = None) -> Tensor:
        _, weights, radiances = self.parts(frames, exposures, reference)
        return (weights * radiances).sum(1) / (weights.sum(1) + EPSILON)

    def parts(
        self, frames: Tensor, exposures: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return flows (B, n - 1, 2, H, W) [px], weights and radiances, (B, 2 n - 1, 3, H, W) each.

        Neighbours are in the order of ``order``, pair by pair; pictures are the reference, neighbours fetched
        by flow, neighbours as they are.
        """
        codes, flat = planes_of(frames, exposures)
        times = flat[:, :, None, None, None]
        middle = self.exposures - 1
        own, own_time = codes[:, middle], times[:, middle : middle + 1]
        neighbours = torch.stack([codes[:, frame] for frame in self.order], 1)
        other_times = torch.stack([times[:, frame] for frame in self.order], 1)
        matched = rematched(own.unsqueeze(1), own_time, other_times[:, ::2])
        flows = self.flow(neighbours, matched)
        fetched = warp(neighbours.flatten(0, 1), flows.flatten(0, 1))
        fetched = fetched.reshape(neighbours.shape)
        pictures = torch.cat([own.unsqueeze(1).to(fetched.dtype), fetched, neighbours.to(fetched.dtype)], 1)
        radiances = radiance(pictures, torch.cat([own_time, other_times, other_times], 1))
        weights = self.weights(torch.cat([pictures, radiances], 2).flatten(1, 2))
        if reference is not None:
            clean = radiance(reference.unsqueeze(1), own_time)
            radiances = torch.cat([clean, radiances[:, 1:]], 1)
        return flows, weights.reshape(radiances.shape), radiances


def reach(levels: int, finest: int, largest_flow: float = 0.0) -> int:
    """Return how far from a block of the coarsest grid an input may influence it [px].

    Backwards from the result, by way of the weight network: one convolution at full size; up from each scale
    by a transposed convolution, and one at the scale; two a scale on the way down, of which the first of
    stride 2 sees 2 k - 1 to 2 k + 1. Then by way of the flow: bilinear samples; at each scale 8 px of it, in
    neighbours that were fetched from as far as flow may lead there.

    >>> reach(5, 0), reach(5, 0, 200.0)
    (304, 376)
    """
    multiple = 1 << max(HALVINGS, levels - 1 + finest)
    low, high = 0 - 1, multiple - 1 + 1
    for _ in range(HALVINGS):
        low, high = seen_below(low, high)
        low, high = low - 1, high + 1  # of the coarsest scale the encoder's last one
    for _ in range(HALVINGS - 1):
        low, high = 2 * low - 1 - 1, 2 * high + 1 + 1
    low, high = 2 * low - 1, 2 * high + 1
    lowest, highest = seen_by_flow(low, high, levels, finest, largest_flow)
    return max(-lowest, highest + 1 - multiple)


def build(config: Mapping[str, Any]) -> CoarseNet | FollowedNet:
    """Return the network of a configuration, as a weights file's card holds it; empty is the paper's.

    With ``followed`` it is that of `followed`, which takes other inputs.
    """
    if config.get("followed"):
        return FollowedNet(
            int(config.get("exposures", 2)),
            int(config.get("width", 16)),
            tuple(int(width) for width in config.get("flow", (24, 16))),
            int(config.get("levels", 2)),
            int(config.get("finest", 1)),
            float(config.get("largest_flow", 8.0)),
        )
    normalised = config.get("normalised")
    return CoarseNet(
        int(config.get("exposures", 2)),
        tuple(int(width) for width in config.get("flow", (100, 50, 25))),
        int(config.get("width", 64)),
        bool(config.get("wide", False)),
        None if normalised is None else bool(normalised),
        int(config.get("levels", 5)),
        int(config.get("finest", 0)),
        float(config.get("largest_flow", 200.0)),
    )
