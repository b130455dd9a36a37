"""`hdrgan`: radiance from three frames, the reference between a shorter and a longer one.

The generator of HDR-GAN (Niu et al. 2021, "HDR-GAN: HDR Image Reconstruction From Multi-Exposed LDR
Images With Large Motions", IEEE TIP 30). Each frame has an encoder of its own, of three scales. At every
scale a merging block of dilated convolutions sees all three and adds what it finds to the features of the
reference, which so decides where things are. Two paths lead back up: a short one from the merged features
of the finer scales, and the main one, which sees the short one's last features. Both end in an image, and
both are trained (deep supervision); the second is the result.

In:  ``low``, ``reference``, ``high`` (B, 6, H, W) in [-1, 1]: 2 L - 1, the code values of the frame, and
     2 T(H) - 1, its radiance as mu-law codes (`exposure.mu_law`). Radiance 1.0 is where the shortest of
     the three clips: a result ends there, and whoever calls scales.
Out: (B, 3, H, W), 2 T(Y) - 1 of the radiance Y, in the same unit. H and W are multiples of 4.

In the paper's form (``residual=False``) an output is a tanh, hence in [-1, 1]. In the residual form the
encoder of the reference sees one picture more, ``merged`` (B, 3, H, W): 2 T(M) - 1 of what the classical
merge makes of all frames, these three and others, as far as each is trusted. An output is that plus what
the network adds, which is nothing at first, and not bounded: so it begins with what is known and learns to
mend it, and a bracket may have any number of frames.

At width 32 in the paper's form: 2,557,382 parameters, 0.48 million multiplications a pixel (0.727 T at
1500 x 1000). Weights are plain; the paper's spectral normalisation is the training's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

MULTIPLE = 4
DILATION = 2  # of the merging blocks


class Convolution(nn.Conv2d):
    """A convolution with a mirrored border; where an axis is too short to be mirrored, its edge is repeated.

    ``scale`` says at which power of 1/2 it works, that is, how short an axis can be.
    """

    def __init__(
        self, wide_in: int, wide: int, kernel: int = 3, stride: int = 1, dilation: int = 1, scale: int = 0
    ) -> None:
        super().__init__(wide_in, wide, kernel, stride=stride, dilation=dilation)
        self.reach = kernel // 2 * dilation
        self.tight = self.reach > 0 and MULTIPLE >> scale <= self.reach
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        padded = self.padded(input)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation)

    def padded(self, x: Tensor) -> Tensor:
        """Put a border around an image, as wide as the kernel reaches.

        In an exported graph sizes are not known: there ``rows`` and ``columns`` are computed by it.
        """
        if not self.reach:
            return x
        if not self.tight:
            return functional.pad(x, [self.reach] * 4, mode="reflect")
        rows, columns = (self.reach * (size > self.reach) for size in x.shape[2:])
        x = functional.pad(x, [columns, columns, rows, rows], mode="reflect")
        rows, columns = self.reach - rows, self.reach - columns
        if torch.onnx.is_in_onnx_export() or rows or columns:
            x = functional.pad(x, [columns, columns, rows, rows], mode="replicate")
        return x


class Residual(nn.Module):
    """Two convolutions beside a shortcut, a convolution of one pixel: widths differ everywhere here."""

    def __init__(self, wide_in: int, wide: int, scale: int) -> None:
        super().__init__()
        self.first = Convolution(wide_in, wide, scale=scale)
        self.second = Convolution(wide, wide, scale=scale)
        self.shortcut = Convolution(wide_in, wide, kernel=1, scale=scale)

    def forward(self, *parts: Tensor) -> Tensor:
        joined = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
        x = self.second(functional.relu(self.first(joined), inplace=True))
        return functional.relu(x + self.shortcut(joined), inplace=True)


class Encoder(nn.Module):
    """The features of one frame at three scales, ``width`` of them at the first, twice as many each."""

    def __init__(self, width: int, planes: int = 6) -> None:
        super().__init__()
        inputs, widths = (planes, width, 2 * width), (width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(Residual(inputs[i], widths[i], i) for i in range(3))
        self.down = nn.ModuleList(Convolution(widths[i], widths[i], stride=2, scale=i) for i in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = [self.blocks[0](x)]
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            scales.append(block(functional.relu(down(scales[-1]), inplace=True)))
        return scales


class Merge(nn.Module):
    """What the features of three frames add to those of the reference."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Convolution(wide_in, width, dilation=DILATION, scale=scale)
            for wide_in in (3 * width, width, width, width)
        )

    def forward(self, low: Tensor, reference: Tensor, high: Tensor) -> Tensor:
        x = self.layers[0](torch.cat([low, reference, high], 1))
        for layer in list(self.layers)[1:]:
            x = layer(functional.relu(x, inplace=True))
        return functional.relu(x + reference, inplace=True)


class Up(nn.Module):
    """Twice the size by repetition, and half the features; ``scale`` is that of the result."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.layer = Convolution(width, width // 2, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(
            self.layer(functional.interpolate(x, scale_factor=2.0, mode="nearest")), inplace=True
        )


class Heads(nn.Conv2d):
    """Both outputs' last layers, of one pixel each, in one convolution of two groups.

    So a weights file holds the first one, too, though its graph does not compute it. They work in full
    precision always: a half float's steps would be seen in the image.
    """

    def __init__(self, width: int, zero: bool) -> None:
        super().__init__(2 * width, 6, 1, groups=2)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        if zero:
            nn.init.zeros_(self.weight)
        else:
            nn.init.kaiming_normal_(self.weight, nonlinearity="relu")

    def forward(self, input: Tensor, number: int = 1) -> Tensor:
        assert self.bias is not None
        mine = slice(3 * number, 3 * number + 3)
        with torch.autocast(input.device.type, enabled=False):
            return functional.conv2d(input.to(self.weight.dtype), self.weight[mine], self.bias[mine])


class HdrGan(nn.Module):
    """See the module's docstring; ``width`` (even) is that of the first scale, twice as many at each next."""

    def __init__(self, width: int = 32, residual: bool = False) -> None:
        super().__init__()
        self.halo, self.multiple, self.residual = reach(), MULTIPLE, residual
        self.low, self.high = Encoder(width), Encoder(width)
        self.reference = Encoder(width, 9 if residual else 6)
        self.merge = nn.ModuleList(Merge(width << scale, scale) for scale in range(3))
        self.rise = nn.ModuleList([Up(2 * width, 0), Up(4 * width, 1), Up(2 * width, 0)])
        self.side = Residual(3 * width, width, 0)
        self.middle = Residual(6 * width, 2 * width, 1)
        self.last = Residual(4 * width, width, 0)
        self.heads = Heads(width, zero=residual)

    def forward(self, low: Tensor, reference: Tensor, high: Tensor, merged: Tensor | None = None) -> Tensor:
        """Return the result, (B, 3, H, W)."""
        return self._image(self._features(low, reference, high, merged)[1], 1, merged)

    def both(
        self, low: Tensor, reference: Tensor, high: Tensor, merged: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the image of the short path, and the result."""
        first, second = self._features(low, reference, high, merged)
        return self._image(first, 0, merged), self._image(second, 1, merged)

    def _features(
        self, low: Tensor, reference: Tensor, high: Tensor, merged: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return what both outputs are made of, (B, width, H, W) each."""
        if merged is not None:
            reference = torch.cat([reference, merged], 1)
        own, shorter, longer = self.reference(reference), self.low(low), self.high(high)
        fused = []
        for merge, feature in zip(self.merge, own, strict=True):
            fused.append(merge(shorter.pop(0), feature, longer.pop(0)))  # and let go of them
        to_side, to_middle, to_last = self.rise
        middle = self.middle(to_middle(fused.pop()), fused[1], own[1])
        side = self.side(to_side(fused.pop()), fused[0], own[0])
        return side, self.last(to_last(middle), fused[0], own[0], side)

    def _image(self, features: Tensor, number: int, merged: Tensor | None) -> Tensor:
        found = self.heads(features, number)
        return torch.tanh(found) if merged is None else merged + found


def reach() -> int:
    """Return how far from a block of the coarsest grid, 4 x 4, an input may influence it [px].

    By the main path, backwards from the result: three convolutions at full size; three at half size; two
    and the four dilated ones of the merging block at a quarter; on the way down three at half size, with
    the one of stride 2, and three at full size: 3 + 3 * 2 + 10 * 4 + 3 * 2 + 3 = 58, to the right and
    below. To the left and above, a block's first pixel needs what is 3 + 6 = 9 away; on the grid of the
    quarter that begins 12 away: 61.
    """
    full, half, quarter = 3, 2 * 3, 4 * (2 + 4 * DILATION)
    up = full + half
    onto_grid = -up % MULTIPLE
    return up + onto_grid + quarter + half + full


def build(config: Mapping[str, Any]) -> HdrGan:
    """Return the network of a configuration, as a weights file's card holds it."""
    return HdrGan(int(config.get("width", 32)), bool(config.get("residual", False)))
