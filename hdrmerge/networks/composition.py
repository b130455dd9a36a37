"""The self-supervised paper's frame for any backbone: the reference, and what is put in its place.

Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues", section 3.4 and
supplement C.2. A backbone sees three frames and says a picture. A few convolutions beside it see how the
reference is exposed and say where the reference is to be believed. Their weighted sum is the result.

In:  ``frames`` (B, 9, H, W) in [0, 1]: gamma code values of the short, the reference and the long frame; the
     reference stands in for one that is missing.
     ``masked`` (B, 4, H, W) in [0, 1]: the reference's code values where it is well exposed, else 0; and
     where that is, 1 or 0: its luma lies in 0.125 .. 0.75.
     ``linear`` (B, 3, H, W) in [0, 1]: radiance as the reference recorded it. Radiance 1.0 is where the
     shortest of the three clips, here and in the result; whoever calls scales.
Out: (B, 3, H, W) radiance, linear, W * linear + (1 - W) * R; not bounded, whoever calls clips it.

What the paper states: the inputs of both branches, that the backbone's output is called a residual, and a
weighted sum of it and the reference. What it leaves open, and is chosen here: that codes are gamma codes,
the luma of the mask, the form of the sum, the sigmoid, and what R is. It is one of two:

- ``residual``: the backbone's output is added, as code values, to a picture of what is known without it:
  R = (`known` ^ (1 / gamma) + backbone) ^ gamma. Untrained it is that picture, and a small error is as small
  to the eye in the dark as in the light. The step between the exposures, which nothing tells the backbone,
  is in the picture. And W is 0 where the reference is not well exposed: there the branch sees nothing, and
  would hedge between frames that it cannot compare.
- else the backbone's output itself, linear, without an activation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GAMMA = 2.2  # of code values, as in `painter`
CLIPPING = (0.9, 0.98)  # codes of the reference between which the short frame takes its place
DOUBT = -3.0  # logit of W at first, where R is as good: else W grows, and R learns little behind it
DARKEST = 1e-7  # of radiance and codes to a power, so that gradients are finite


class Single(nn.Conv2d):
    """A 3 x 3 or 1 x 1 convolution in single precision, whatever is computed around it.

    The last of a branch: steps of a half float would be seen in the image.
    """

    def __init__(self, wide_in: int, wide: int, kernel: int = 3) -> None:
        super().__init__(wide_in, wide, kernel, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class Blend(nn.Sequential):
    """Say from ``masked`` how far the reference is believed, (B, 1 or 3, H, W) in [0, 1].

    3 x 3 convolutions at full size, ``widths`` wide, with rectifiers between and a sigmoid at the end. The
    paper calls them shallow; their number and widths are what its parameters and FLOPs leave for them.
    """

    def __init__(self, *widths: int) -> None:
        pairs = list(zip((4, *widths[:-1]), widths, strict=True))
        layers: list[nn.Module] = []
        for wide_in, wide in pairs[:-1]:
            layers += [nn.Conv2d(wide_in, wide, 3, padding=1), nn.ReLU(inplace=True)]
        super().__init__(*layers, Single(*pairs[-1]), nn.Sigmoid())


class Composition(nn.Module):
    """See the module's docstring; ``halo`` and ``multiple`` [px] are those of the backbone."""

    def __init__(
        self, backbone: nn.Module, blend: Blend, halo: int, multiple: int, residual: bool = False
    ) -> None:
        super().__init__()
        self.halo, self.multiple, self.residual = halo, multiple, residual
        self.backbone, self.blend = backbone, blend
        if residual:
            nn.init.zeros_(last_of(backbone).weight)
            nn.init.constant_(last_of(backbone).bias, 0.0)  # type: ignore[arg-type]
            nn.init.constant_(last_of(blend).bias, DOUBT)  # type: ignore[arg-type]

    def forward(self, frames: Tensor, masked: Tensor, linear: Tensor) -> Tensor:
        weights, found = self.parts(frames, masked)
        if self.residual:
            code = known(frames, linear) + found
            weights, found = weights * masked[:, 3:], code.clamp(min=DARKEST) ** GAMMA
        return weights * linear + (1 - weights) * found

    def parts(self, frames: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Return W, (B, 1 or 3, H, W), and what the backbone says, (B, 3, H, W)."""
        return self.blend(masked), self.backbone(frames)


def known(frames: Tensor, linear: Tensor) -> Tensor:
    """Return what is known without a backbone, code values (B, 3, H, W), 1.0 where the short frame clips.

    The reference's, and where a channel of it clips the short frame's, if that says more than that it does.
    """
    start, end = CLIPPING
    share = ((frames[:, 3:6] - start) / (end - start)).clamp(0, 1)
    own = linear.clamp(min=DARKEST) ** (1 / GAMMA)
    return own + share * (frames[:, :3] - own).clamp(min=0)


def last_of(branch: nn.Module) -> Single:
    """Return the last convolution of a branch."""
    return [layer for layer in branch.modules() if isinstance(layer, Single)][-1]


def seen_below(low: int, high: int) -> tuple[int, int]:
    """Return which pixels of half the size those from ``low`` to ``high`` are made of.

    By bilinear interpolation between pixel centres, or by a transposed convolution of 4 x 4, stride 2: an
    even pixel 2 k of k - 1 and k, an odd one 2 k + 1 of k and k + 1.

    >>> seen_below(0, 15), seen_below(-3, 18)
    ((-1, 8), (-2, 9))
    """
    return (low + 1) // 2 - 1, (high + 1) // 2
