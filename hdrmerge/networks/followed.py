"""`coarse` in its followed form: what is known without a network, and what is wrong with it.

The frames around a reference arrive as `hdrmerge.followed` finds them without a network: in line, followed
by optical flow, with the share that each has in the mean of `flowmerge.merge_by_flow`, which is nothing where
a frame clips or shows something else. Beside them stand the neighbours as they are if things went straight on
from the one before to the one after: where the reference is clipped or black no flow leads from it. Untrained
the result is that mean. What is learned are three corrections, nothing at first:

- a flow that is added, a few pixels at most (`flow`, the paper's, from a few scales);
- what is added to the share of each picture, channel by channel; no share is below nothing;
- what is painted on top, in mu-law values, `PAINTED` of them at most: noise, and what no frame shows.

In:  ``frames`` (B, n, 3, H, W) or (B, 3 n, H, W) in [0, 1], n = 2 N - 1 as in `coarse`: gamma codes of
     frames that were followed.
     ``between``, alike, of the n - 1 neighbours in order of time.
     ``shares`` (B, n, 3, H, W) or (B, 3 n, H, W) in [0, 1], together 1 in each channel.
     ``flows`` (B, n - 1, 2, H, W) or (B, 2 n - 2, H, W) [px], by which they were followed: what goes straight
     on is as far away on both sides.
     ``exposures`` and ``reference`` as in `coarse`; only the flow sees the reference in other tones.
Out: (B, 3, H, W) radiance, linear. 1.0 is where the shortest exposure clips.
H and W are multiples of ``multiple``, 8. A tile equals the whole picture if its border is ``halo`` wide and
frames were followed before they were cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import NetworkError
from .composition import Single, seen_below
from .deformable import warp
from .flow import Flow, pictures_of, planes_of, radiance, rematched, seen_by_flow

MU = 5000.0
SPAN = math.log1p(MU)
PAINTED = 0.15  # of mu-law values, at most: a stop and a half
LEAST = 1e-3  # of the sum of shares
HALVINGS = 3
FAR = 32.0  # [px] of a flow, from where it is only far


def activated(wide_in: int, wide: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution with a leaky rectifier."""
    layer = nn.Conv2d(wide_in, wide, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(layer.weight, a=0.1)
    return nn.Sequential(layer, nn.LeakyReLU(0.1, inplace=True))


class Correction(nn.Module):
    """An encoder and a decoder with bridges, four scales; says nothing at first."""

    def __init__(self, planes: int, wanted: int, width: int) -> None:
        super().__init__()
        widths = [width * (scale + 1) for scale in range(HALVINGS + 1)]
        self.enter = activated(planes, width)
        self.down = nn.ModuleList(
            nn.Sequential(activated(widths[k], widths[k + 1], 2), activated(widths[k + 1], widths[k + 1]))
            for k in range(HALVINGS)
        )
        self.up = nn.ModuleList(activated(widths[k] + widths[k + 1], widths[k]) for k in range(HALVINGS))
        self.last = Single(width, wanted)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, 0.0)  # type: ignore[arg-type]

    def forward(self, planes: Tensor) -> Tensor:
        scales = [self.enter(planes)]
        for down in self.down:
            scales.append(down(scales[-1]))
        x = scales.pop()
        for up in reversed(list(self.up)):
            raised = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = up(torch.cat([scales.pop(), raised], 1))
        found: Tensor = self.last(x)
        return found


class FollowedNet(nn.Module):
    """See the module's docstring; ``width`` is that of the first scale, twice, three and four times as many
    below; ``flow``, ``levels`` and ``finest`` as in `coarse`, ``largest_flow`` [px] beside what is followed.
    """

    def __init__(
        self,
        exposures: int = 2,
        width: int = 16,
        flow: Sequence[int] = (24, 16),
        levels: int = 2,
        finest: int = 1,
        largest_flow: float = 8.0,
    ) -> None:
        super().__init__()
        if exposures < 2 or levels < 1 or finest < 0:
            raise NetworkError(
                f"coarse: {exposures} exposures, {levels} levels from {finest} on make no network; "
                "use at least 2, 1 and 0"
            )
        self.exposures, self.frames = exposures, 2 * exposures - 1
        self.order = [frame for first in range(exposures - 1) for frame in (first, first + exposures)]
        self.flow = Flow(exposures - 1, flow, levels, finest, largest_flow)
        for level in self.flow.levels:
            last = list(level.children())[-1]
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        self.pictures = 4 * exposures - 3
        self._others = [k for k in range(self.pictures) if k != exposures - 1]
        planes = 6 + 3 * self.pictures + 4 * self.frames + 8 * (self.frames - 1)
        self.correction = Correction(planes, 3 * self.pictures + 3, width)
        self.multiple = 1 << max(HALVINGS, levels - 1 + finest)
        self.halo = reach(levels, finest, largest_flow)

    def forward(
        self,
        frames: Tensor,
        between: Tensor,
        shares: Tensor,
        flows: Tensor,
        exposures: Tensor,
        reference: Tensor | None = None,
    ) -> Tensor:
        _, added, painted, radiances = self.parts(frames, between, shares, flows, exposures, reference)
        mean = merged(self._summed(pictures_of(shares), added), radiances)
        return torch.expm1((mu_law(mean) + painted).clamp(min=0) * SPAN) / MU

    def parts(
        self,
        frames: Tensor,
        between: Tensor,
        shares: Tensor,
        flows: Tensor,
        exposures: Tensor,
        reference: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return flows (B, n - 1, 2, H, W) [px], what is added to shares (B, 2 n - 1, 3, H, W), what is
        painted (B, 3, H, W), and radiances (B, 2 n - 1, 3, H, W) of the pictures.

        Pictures are the frames in order of time, then those in between; flows are in the order of ``order``.
        """
        codes, flat = planes_of(frames, exposures)
        times, middle = flat[:, :, None, None, None], self.exposures - 1
        own = codes[:, middle] if reference is None else reference
        neighbours = torch.stack([codes[:, frame] for frame in self.order], 1)
        other_times = torch.stack([times[:, frame] for frame in self.order], 1)
        matched = rematched(codes[:, middle : middle + 1], times[:, middle : middle + 1], other_times[:, ::2])
        more = self.flow(neighbours, matched)
        fetched = warp(neighbours.flatten(0, 1), more.flatten(0, 1)).reshape(neighbours.shape)
        followed = [fetched[:, self.order.index(k)] if k != middle else own for k in range(self.frames)]
        beside = [k for k in range(self.frames) if k != middle]
        there = torch.stack(followed, 1)
        pictures = torch.cat([there, pictures_of(between).to(there.dtype)], 1)
        told = torch.cat([times, torch.stack([times[:, k] for k in beside], 1)], 1)
        radiances = radiance(pictures, told)
        given = pictures_of(shares)
        mean = mu_law(merged(given, radiances[:, : self.frames]))
        differences = (mu_law(radiances) - mean.unsqueeze(1)).flatten(1, 2)
        known = torch.log2(flat)[:, :, None, None].expand(-1, -1, *own.shape[2:]) / 4
        mismatches = mismatch(own, times[:, middle], pictures[:, self._others], told[:, self._others])
        way = flows.reshape(flows.shape[0], -1, *flows.shape[-2:]).clamp(-FAR, FAR) / 8
        seen = [mean, own, 4 * differences, given.flatten(1, 2), known, 4 * mismatches.flatten(1, 2), way]
        planes = torch.cat([each.to(mean.dtype) for each in seen], 1)
        found = self.correction(planes)
        added = found[:, :-3].reshape(found.shape[0], -1, 3, *found.shape[2:])
        painted = PAINTED * torch.tanh(found[:, -3:] / PAINTED)
        return more, added, painted, radiances

    def _summed(self, shares: Tensor, added: Tensor) -> Tensor:
        """Return the shares (B, 2 n - 1, 3, H, W) of all pictures."""
        summed = shares + added[:, : self.frames]
        return torch.cat([summed, added[:, self.frames :]], 1).clamp(min=0)


def merged(shares: Tensor, radiances: Tensor) -> Tensor:
    """Return the mean (B, 3, H, W) of radiances (B, n, 3, H, W) by their shares."""
    return (shares * radiances).sum(1) / shares.sum(1).clamp(min=LEAST)


def mismatch(own: Tensor, time: Tensor, pictures: Tensor, times: Tensor) -> Tensor:
    """Return how much pictures (B, k, 3, H, W) differ from ``own`` (B, 3, H, W), as bright and as clipped.

    ``time`` and ``times`` are their exposures, (B, 1, 1, 1) and (B, k, 1, 1, 1); in codes, as
    `flowmerge.agreement` has it.
    """
    longer = torch.maximum(time.unsqueeze(1), times)
    return rematched(pictures, times, longer) - rematched(own.unsqueeze(1), time.unsqueeze(1), longer)


def mu_law(linear: Tensor) -> Tensor:
    """Return mu-law codes, log(1 + 5000 x) / log(5001)."""
    return torch.log1p(MU * linear.clamp(min=0)) / SPAN


def reach(levels: int, finest: int, largest_flow: float = 0.0) -> int:
    """Return how far from a block of the coarsest grid an input may influence it [px].

    Backwards from the result: two convolutions at full size, one a scale on the way up, two on the way down;
    then by way of the flow, as in `coarse`.

    >>> reach(2, 1), reach(1, 0), reach(1, 0, 8.0)
    (100, 54, 55)
    """
    multiple = 1 << max(HALVINGS, levels - 1 + finest)
    spans = [(-2, multiple - 1 + 2)]  # of features at full size
    low, high = spans[0]
    for _ in range(HALVINGS):
        low, high = seen_below(low, high)
        low, high = low - 1, high + 1
    for _ in range(HALVINGS):
        low, high = 2 * (low - 1) - 1, 2 * (high + 1) + 1
    low, high = low - 1, high + 1
    lowest, highest = seen_by_flow(low, high, levels, finest, largest_flow)
    return max(-lowest, highest + 1 - multiple)
