"""`refine`: radiance of a video frame from what `coarse` made of it and of the frames beside it.

The second stage of Chen et al. 2021, "HDR Video Reconstruction: A Coarse-to-fine Network and A Real-world
Benchmark Dataset", section 3.3. One extractor finds features of three frames. Those of the neighbours, and
of the reference itself, are aligned to the reference's by deformable convolutions, at three scales from
coarse to fine and once more at the finest (PCD; Wang et al. 2019, "EDVR: Video Restoration with Enhanced
Deformable Convolutional Networks"). Each is weighted by what attention makes of it beside the reference, all
are joined and, with the reference's features at half and full size, become a picture. It is used where the
reference is not well exposed: H = M * coarse + (1 - M) * painted, equation 4 (`well_exposed`, `compose`).

In:  ``coarse`` (B, 3, 3, H, W) or (B, 9, H, W): radiance of the frames before, of and after the reference.
     ``frames``, alike, in [0, 1]: their gamma code values (linear ^ (1 / 2.2)).
     ``exposures`` (B, 3), relative to the shortest, which is 1; or (B, 3, h, w), of which the first pixel
     counts. All exposures of the video are among them.
Out: (B, 3, H, W) radiance, linear. 1.0 is where the shortest exposure clips.
H and W are multiples of 8; whoever calls repeats the last row and column.

In the paper's form what is painted ends in a sigmoid, hence at 1.0, and with two exposures the extractor sees
beside each coarse frame where its photograph is well exposed (``masks``). In the residual form pictures are
mu-law codes, and what is painted is the coarse frame plus what the network adds, which is nothing at first:
it begins with the coarse result and learns to mend it. That is not bounded; whoever calls clips it.

In the followed form, a residual one, coarse frames were followed once more (`hdrmerge.followed`). Neighbours
have shares in the result, as far as they agree (`shares_of`): so it begins. The network adds to the shares,
a tanh each, and paints.

With ``substitute``, as the authors' code has it, features are of coarse frames in which a photograph stands
wherever its codes lie in 0.40 .. 0.9 (`well_exposed`, hard). Equation 4 has the coarse frame as it came,
without such seams.

A frame's features depend on no other frame: in a video `extract` is called once a frame and `merge` once a
result. How far a pixel sees depends on the offsets: a tile with ``halo``, 152 px, equals the whole picture as
long as no offset is longer than 4 px of its scale. At first all are 0.

3,010,019 parameters with masks, 3,008,291 without. Weights begin as He et al. 2015 propose, those of the
residual blocks with a tenth of it, where the authors draw all with a deviation of 0.02: through narrow layers
that lets nothing pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import NetworkError
from .composition import Single, seen_below
from .deformable import TAPS, Deformable
from .flow import GAMMA, pictures_of, planes_of, radiance

MULTIPLE = 8
SCALES = 3  # of the alignment, from half size on
LOW, HIGH = 0.15, 0.9  # codes between which a photograph is well exposed
SUBSTITUTE_LOW = 0.40
SAME = 2**0.25  # a quarter of a stop: exposures closer than that count as the same
MU = 5000.0
SPAN = math.log1p(MU)
DARK, BRIGHT = (0.034, 0.014, 0.07), (0.4, 0.04, 0.05)
"""Where a frame is too dark, and where too bright: the weight of its own result; as shares of what was
recorded, and in mu-law codes, the differences to a neighbour of which e^-1 is left."""

NOISE = 1.6e-4  # beside that share, of linear values, 1.0 = clipping
RECORDED, ALIKE = 3, 9  # [px] windows that these differences are means over
GENTLE = 0.1  # of what the followed form says: it begins near the truth, and first steps are long
OFFSET = 4  # [px of its scale] as long as an offset may be for `halo` to hold


class Features(NamedTuple):
    """What is known of a frame: at full and half size, and of what alignment works with, three scales."""

    full: Tensor
    half: Tensor
    scales: list[Tensor]


def activated(wide_in: int, wide: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 x 3 convolution with a leaky rectifier."""
    return nn.Sequential(
        nn.Conv2d(wide_in, wide, 3, stride=stride, padding=1), nn.LeakyReLU(0.1, inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions and what they are added to; little at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.second(functional.relu(self.first(x), inplace=True))
        return x + added


class Extractor(nn.Module):
    """Find features of a frame, (B, planes, H, W)."""

    def __init__(self, planes: int, width: int, blocks: int) -> None:
        super().__init__()
        self.to_full = activated(planes, width)
        self.to_half = activated(width, width, stride=2)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.down = nn.ModuleList(
            nn.Sequential(activated(width, width, stride=2), activated(width, width))
            for _ in range(SCALES - 1)
        )

    def forward(self, planes: Tensor) -> Features:
        full = self.to_full(planes)
        half = self.to_half(full)
        scales = [self.blocks(half)]
        for down in self.down:
            scales.append(down(scales[-1]))
        return Features(full, half, scales)


class Displaced(nn.Module):
    """A deformable convolution, and the layer that says from features where it looks: at first ahead."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.head = Single(width, 3 * TAPS * groups)
        self.convolution = Deformable(width, groups)
        self.split = [2 * TAPS * groups, TAPS * groups]

    def forward(self, x: Tensor, where: Tensor) -> Tensor:
        offsets, masks = self.head(where).split(self.split, 1)
        found: Tensor = self.convolution(x, offsets, torch.sigmoid(masks))
        return found


class AlignmentScale(nn.Module):
    """Align at one scale, helped by what was found at the one below, if there is one."""

    def __init__(self, width: int, groups: int, lowest: bool, finest: bool) -> None:
        super().__init__()
        self.compare = activated(2 * width, width)
        self.join = None if lowest else activated(2 * width, width)
        self.where = activated(width, width)
        self.displaced = Displaced(width, groups)
        self.fuse = None if lowest else nn.Conv2d(2 * width, width, 3, padding=1)
        self.finest = finest

    def forward(
        self, frame: Tensor, reference: Tensor, below: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Return aligned features, and those that offsets are told from."""
        where = self.compare(torch.cat([frame, reference], 1))
        if self.join is not None and below is not None:
            where = self.join(torch.cat([where, 2 * doubled(below[1])], 1))  # twice as many pixels
        where = self.where(where)
        aligned = self.displaced(frame, where)
        if self.fuse is not None and below is not None:
            aligned = self.fuse(torch.cat([aligned, doubled(below[0])], 1))
        return (aligned if self.finest else functional.leaky_relu(aligned, 0.1)), where


class Alignment(nn.Module):
    """Bring features of a frame to where the reference has them."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            AlignmentScale(width, groups, lowest=scale == SCALES - 1, finest=scale == 0)
            for scale in range(SCALES)
        )
        self.cascade = AlignmentScale(width, groups, lowest=True, finest=False)

    def forward(self, frame: list[Tensor], reference: list[Tensor]) -> Tensor:
        found: tuple[Tensor, Tensor] | None = None
        for align, one, other in reversed(list(zip(self.scales, frame, reference, strict=True))):
            found = align(one, other, found)
        assert found is not None
        aligned: Tensor = self.cascade(found[0], reference[0], None)[0]
        return aligned


class Fusion(nn.Module):
    """Weight features of three frames by what attention says of each beside the reference, and join them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(activated(2 * width, width), nn.Conv2d(width, width, 3, padding=1))
        self.join = nn.Sequential(nn.Conv2d(3 * width, width, 1), nn.LeakyReLU(0.1, inplace=True))

    def forward(self, aligned: list[Tensor]) -> Tensor:
        reference = aligned[1]
        attended = [frame * self.attention(torch.cat([reference, frame], 1)) for frame in aligned]
        joined: Tensor = self.join(torch.cat(attended, 1))
        return joined


class RefineNet(nn.Module):
    """See the module's docstring.

    ``blocks`` are the residual blocks of the extractor and of the reconstruction, ``groups`` (a divisor of
    ``width``) those of the deformable convolutions. Without ``align_reference`` the reference is not aligned
    to itself, a third of the alignment's time.
    """

    def __init__(
        self,
        exposures: int = 2,
        width: int = 64,
        groups: int = 8,
        blocks: tuple[int, int] = (5, 10),
        residual: bool = False,
        substitute: bool = False,
        align_reference: bool = True,
        followed: bool = False,
    ) -> None:
        super().__init__()
        if followed and not residual:
            raise NetworkError("refine: the followed form is a residual one; state both")
        if width % groups:
            raise NetworkError(f"refine: {groups} groups do not divide {width} channels; use a divisor")
        self.halo, self.multiple = reach(*blocks), MULTIPLE
        self.masks, self.residual, self.substitute = exposures == 2, residual, substitute
        self.align_reference, self.followed = align_reference, followed
        self.extractor = Extractor(6 if self.masks else 3, width, blocks[0])
        self.alignment = Alignment(width, groups)
        self.fusion = Fusion(width)
        self.blocks = nn.Sequential(*(Residual(width) for _ in range(blocks[1])))
        self.rise = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.end = nn.Conv2d(2 * width, width, 3, padding=1)
        self.compare = nn.Conv2d(9, width, 3, padding=1) if followed else None
        self.last = Single(width, 9 if followed else 3)
        self._begin()

    def _begin(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, a=0.1)
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            for layer in self.modules():
                if isinstance(layer, Residual):
                    layer.first.weight.mul_(0.1)
                    layer.second.weight.mul_(0.1)
                elif isinstance(layer, Displaced):
                    layer.head.weight.zero_()
            if self.residual:
                self.last.weight.zero_()

    def forward(self, coarse: Tensor, frames: Tensor, exposures: Tensor) -> Tensor:
        codes, times = planes_of(frames, exposures)
        coarse = pictures_of(coarse)
        before, after = (
            self.extract(coarse[:, frame], codes[:, frame], times, frame).scales for frame in (0, 2)
        )
        own = self.extract(coarse[:, 1], codes[:, 1], times, 1)
        painted = self.merge(before, own, after, coarse, codes[:, 1], times)
        return compose(well_exposed(codes[:, 1], times, 1), coarse[:, 1], painted)

    def extract(self, coarse: Tensor, codes: Tensor, exposures: Tensor, frame: int) -> Features:
        """Return the features of one frame, (B, 3, H, W), whose exposure is ``exposures[:, frame]``."""
        planes = coarse
        if self.substitute:
            mask = well_exposed(codes, exposures, frame, low=SUBSTITUTE_LOW, hard=True)
            own = radiance(codes, exposures[:, frame, None, None, None])
            planes = compose(mask, own, coarse)
        planes = mu_law(planes) if self.residual else planes
        if self.masks:
            whole = well_exposed(codes, exposures, frame) >= 1
            planes = torch.cat([whole.to(planes.dtype), planes], 1)
        features: Features = self.extractor(planes)
        return features

    def merge(
        self,
        before: list[Tensor],
        own: Features,
        after: list[Tensor],
        coarse: Tensor,
        codes: Tensor,
        exposures: Tensor,
    ) -> Tensor:
        """Return the painted radiance (B, 3, H, W) from a frame's features and its neighbours' scales.

        ``coarse`` (B, 3, 3, H, W) is of all three, ``codes`` (B, 3, H, W) those of the frame.
        """
        middle = self.alignment(own.scales, own.scales) if self.align_reference else own.scales[0]
        aligned = [self.alignment(before, own.scales), middle, self.alignment(after, own.scales)]
        x = self.blocks(self.fusion(aligned))
        x = self.rise(torch.cat([own.half, x], 1))
        tones = mu_law(coarse) if self.residual else coarse
        differences = (tones[:, ::2] - tones[:, 1:2]).flatten(1, 2)
        seen = torch.cat([4 * differences, codes.to(differences.dtype)], 1) if self.followed else None
        found = self.last(self._end(own.full, x, seen))
        if self.followed:
            found = GENTLE * found
            taken = (shares_of(coarse, tones, codes, exposures) + torch.tanh(found[:, 3:])) * differences
            found = found[:, :3] + taken[:, :3] + taken[:, 3:]
        if self.residual:
            return torch.expm1((tones[:, 1] + found) * SPAN) / MU
        return torch.sigmoid(found)

    def _end(self, own: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return what ``end`` makes of both joined, without joining them: at full size memory is short."""
        weight, bias = self.end.weight, self.end.bias
        split = own.shape[1]
        found = functional.conv2d(own, weight[:, :split], bias, padding=1)
        found = found + functional.conv2d(x, weight[:, split:], padding=1)
        if self.compare is not None and seen is not None:
            found = found + self.compare(seen)
        return functional.leaky_relu(found, 0.1, inplace=True)


def well_exposed(
    codes: Tensor,
    exposures: Tensor,
    frame: int,
    hard: bool = False,
    low: float = LOW,
    high: float = HIGH,
) -> Tensor:
    """Say where a photograph (B, 3, H, W), exposed as ``exposures[:, frame]`` among (B, n), is well exposed.

    Everywhere but in shadows, if a frame was exposed longer, and in lights, if one was exposed shorter. The
    paper's equation 5 and figure 5, each channel by itself: 1 from ``low`` to ``high``, and a parabola down
    to 0 at the ends. ``hard``, as the authors' code has it: (B, 1, H, W), 0 where all channels are below
    ``low`` or one is above ``high``, else 1.
    """
    dark, bright = lacking(codes, exposures, frame, hard, low, high)
    return (1 - dark) * (1 - bright)


def lacking(
    codes: Tensor,
    exposures: Tensor,
    frame: int,
    hard: bool = False,
    low: float = LOW,
    high: float = HIGH,
) -> tuple[Tensor, Tensor]:
    """Say where a photograph is too dark, and where too bright, as `well_exposed` has it, in [0, 1]."""
    own = exposures[:, frame]
    dark = (own * SAME < exposures.amax(1)).to(codes.dtype)[:, None, None, None]
    bright = (own > exposures.amin(1) * SAME).to(codes.dtype)[:, None, None, None]
    if hard:
        largest = codes.amax(1, keepdim=True)
        return dark * (largest < low).to(codes.dtype), bright * (largest > high).to(codes.dtype)
    above = (codes / low).clamp(0, 1).square()
    below = ((1 - codes) / (1 - high)).clamp(0, 1).square()
    return dark * (1 - above), bright * (1 - below)


def shares_of(coarse: Tensor, tones: Tensor, codes: Tensor, exposures: Tensor) -> Tensor:
    """Return how much of two neighbours goes into a frame, (B, 6, H, W), where it is not well exposed.

    ``coarse`` (B, 3, 3, H, W) are the results, ``tones`` the same as mu-law codes, ``codes`` (B, 3, H, W) the
    frame's photograph. A neighbour's weight is how well it agrees with what the frame recorded, noisy or
    clipped as that is, times how much it is like the frame's own result, whose weight is the rest: little
    where it is dark, since neighbours were exposed longer.
    """
    dark, bright = lacking(codes, exposures, 1)
    lacks = (dark + bright).clamp(min=1e-6)
    times = exposures[:, 1, None, None, None]
    recorded = codes**GAMMA
    differences, levels, unlike = [], [], []
    for frame in (0, 2):
        seen = (coarse[:, frame] * times).clamp(max=1)
        differences.append(mean_of(seen - recorded, RECORDED).abs())
        levels.append(mean_of(torch.maximum(seen, recorded), RECORDED))
        distance = mean_of((tones[:, frame] - tones[:, 1]).abs(), ALIKE)
        unlike.append(distance.amax(1, keepdim=True))
    found = []
    for own, share, apart in (DARK, BRIGHT):
        weights = [
            torch.exp(-(wrong / (NOISE + share * level)).amax(1, keepdim=True) - other / apart)
            for wrong, level, other in zip(differences, levels, unlike, strict=True)
        ]
        total = own + weights[0] + weights[1]
        found.append([weight / total for weight in weights])
    shares = [(dark * one + bright * other) / lacks for one, other in zip(*found, strict=True)]
    return torch.cat(shares, 1)


def mean_of(picture: Tensor, window: int) -> Tensor:
    """Return means over ``window`` x ``window`` pixels, those inside of the picture."""
    return functional.avg_pool2d(picture, window, 1, window // 2, count_include_pad=False)


def compose(mask: Tensor, coarse: Tensor, painted: Tensor) -> Tensor:
    """Return M * coarse + (1 - M) * painted, equation 4."""
    return mask * coarse + (1 - mask) * painted


def mu_law(linear: Tensor) -> Tensor:
    """Return mu-law codes, log(1 + 5000 x) / log(5001)."""
    return torch.log1p(MU * linear.clamp(min=0)) / SPAN


def doubled(features: Tensor) -> Tensor:
    """Return features at twice the size."""
    return functional.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)


Span = tuple[int, int]  # the first and the last pixel of an interval


def reach(first: int, second: int, offset: int = OFFSET) -> int:
    """Return how far from a block of the coarsest grid, 8 x 8, an input may influence it [px].

    Backwards from the result, ``first`` and ``second`` being the numbers of blocks: two convolutions at full
    size; those of the reconstruction and of the attention; at each scale of the alignment what offsets are
    told from, and what they lead to; and the extractor.

    >>> reach(5, 10), reach(5, 10, 0)
    (152, 136)
    """

    def grown(span: Span, far: int) -> Span:
        return span[0] - far, span[1] + far

    def joined(*spans: Span) -> Span:
        return min(low for low, _ in spans), max(high for _, high in spans)

    aligned = grown(seen_below(*grown((0, MULTIPLE - 1), 2)), 2 * second + 2)
    seen = [grown(aligned, 3)]  # by the cascade, of features at half size
    aligned = where = grown(aligned, max(1 + offset, 3))
    for scale in range(SCALES):
        lowest = scale == SCALES - 1
        displaced = grown(aligned, 0 if lowest else 1)
        where = joined(grown(displaced, 1), where) if scale else grown(displaced, 1)
        seen.append(joined(grown(displaced, 1 + offset), grown(where, 2 if lowest else 3)))
        aligned, where = seen_below(*displaced), seen_below(*grown(where, 2))
    needed = seen[SCALES]
    for scale in reversed(range(SCALES - 1)):
        low, high = grown(needed, 1)
        needed = joined((2 * low - 1, 2 * high + 1), seen[scale + 1])
    low, high = grown(joined(needed, seen[0]), 2 * first)
    low, high = grown((2 * low - 1, 2 * high + 1), 1)
    return max(-low, high + 1 - MULTIPLE)


def build(config: Mapping[str, Any]) -> RefineNet:
    """Return the network of a configuration, as a weights file's card holds it; empty is the paper's."""
    first, second = config.get("blocks", (5, 10))
    return RefineNet(
        int(config.get("exposures", 2)),
        int(config.get("width", 64)),
        int(config.get("groups", 8)),
        (int(first), int(second)),
        bool(config.get("residual", False)),
        bool(config.get("substitute", False)),
        bool(config.get("align_reference", True)),
        bool(config.get("followed", False)),
    )
