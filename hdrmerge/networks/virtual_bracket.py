"""`virtual_bracket`: one photograph at any other exposure.

The three U-Nets of Le, Le, Nguyen and Hua 2023, "Single-Image HDR Reconstruction by Multi-Exposure
Generation" (WACV). The first, N1, sees the photograph where it is well exposed and says a picture that is
meant to be proportional to what the sensor received. That is multiplied by the change of exposure, 2^EV, and
given to the second, N2, if the exposure becomes longer, or to the third, N3, if it becomes shorter: what they
paint is the photograph at the other exposure. Pairs of exposures are all they need to learn.

In:  ``photo`` (B, 3, H, W), code values; 1 where it clips, or more, as bright as that is believed to be.
     ``ev`` (B,), (B, 1, 1, 1) or (B, 1, h, w) [stops], cut to -4 .. 4: beyond that nothing was learned. It
     belongs to a whole photograph: of a plane, the first value counts. B may be 1 in either input: many
     exposures of one photograph, which is then encoded but once, in any order, with either sign.
Out: (B, 3, H, W) in [0, 1], code values; where ``ev`` is 0 the photograph itself.

H and W are free: what is missing to a multiple of 64 is mirrored, and cut off at the end. A direction that
no ``ev`` asks for costs nothing, in an exported graph either: a batch of none goes through it.

Two forms. The paper's paints the whole picture, (tanh F + 1) / 2. In the residual form a picture is what
plain arithmetic makes of the photograph (`reexposed`), and F is added to it, times 1 - 2^(-|EV| / 2.2): that
is all that a clipped highlight can be brighter than arithmetic says, and it goes to 0 with EV, so that
exposures pass through the photograph without a step. What is extrapolated beyond 1 is seen by arithmetic
alone, and N1 sees the photograph. F is 0 at first: brightness rises with EV before anything was learned. N2
and N3 see the scaled picture x as x / (1 + x), for it may be 32 and all layers would have to live with that,
and besides it what they add to, and EV / 4.

Where the paper and its authors' code differ (both are in the configuration, `PAPER` is the printed one): N1
says max(I + tanh F, 0) as the code does, not (tanh F + I + 1) / 3; all activations are Mish, not rectifiers
on the way down and leaky ones on the way up. The printed mask does not mask; see `well_exposed`.

At full width 62,194,875 parameters, 6,916,131 of them in N1. Nearly all lie in the lowest levels, where they
take little time: a small file with much to see by at full size is one of a smaller ``deepest``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import NetworkError
from .composition import Single

LEVELS = 7
MULTIPLE = 1 << (LEVELS - 1)
LARGEST_EV = 4.0  # [stops]: the widest pair of the paper's training set
RAMP = 0.05  # of luma, at either end
GAMMA = 2.2

ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "mish": (nn.Mish, nn.Mish),
    "relu": (partial(nn.ReLU, inplace=True), partial(nn.LeakyReLU, 0.2, inplace=True)),
}
"""On the way down and on the way up."""

ENCODINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rectified": lambda photo, found: functional.relu(photo + torch.tanh(found)),
    "third": lambda photo, found: (torch.tanh(found) + photo + 1) / 3,
}
"""What N1 says of the photograph and of its last layer."""

PAPER = {"activation": "relu", "encoding": "third"}
"""The configuration as printed, where the authors' code differs."""


class Double(nn.Sequential):
    """Two 3 x 3 convolutions, normalised, with activations."""

    def __init__(self, wide_in: int, wide: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__(
            nn.Conv2d(wide_in, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
            nn.Conv2d(wide, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            activation(),
        )


class Rise(nn.Sequential):
    """Twice the size: four pixels of each, from four times the features.

    All four begin alike, as nearest neighbours (ICNR; Aitken et al. 2017, "Checkerboard artifact free
    sub-pixel convolution").
    """

    def __init__(self, wide: int, activation: Callable[[], nn.Module]) -> None:
        convolution = nn.Conv2d(wide, 4 * wide, 1, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, 0))
        super().__init__(convolution, nn.BatchNorm2d(4 * wide), activation(), nn.PixelShuffle(2))


class UNet(nn.Module):
    """Seven levels: ``width`` features at full size, twice as many a level up to ``deepest`` times.

    With ``recall`` the last layer sees the input once more.
    """

    def __init__(self, planes: int, width: int, deepest: int, activation: str, recall: bool) -> None:
        super().__init__()
        descending, ascending = ACTIVATIONS[activation]
        widths = [width * min(1 << level, deepest) for level in range(LEVELS)]
        entering = [planes, *widths[:-1]]
        leaving = [widths[max(level - 1, 0)] for level in range(LEVELS - 1)]
        arriving = [*leaving[1:], widths[-1]]
        self.down = nn.ModuleList(Double(a, b, descending) for a, b in zip(entering, widths, strict=True))
        self.rise = nn.ModuleList(Rise(wide, ascending) for wide in arriving)
        self.up = nn.ModuleList(
            Double(skip + below, wide, ascending)
            for skip, below, wide in zip(widths[:-1], arriving, leaving, strict=True)
        )
        self.recall = recall
        self.last = Single(width + planes * recall, 3, kernel=1)

    def forward(self, planes: Tensor) -> Tensor:
        levels = [self.down[0](planes)]
        for block in list(self.down)[1:]:
            levels.append(block(functional.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for rise, block in zip(reversed(list(self.rise)), reversed(list(self.up)), strict=True):
            x = block(torch.cat([levels.pop(), rise(x)], 1))
        found: Tensor = self.last(torch.cat([x, planes], 1) if self.recall else x)
        return found


class VirtualBracket(nn.Module):
    """See the module's docstring; ``width`` is that of N1's first level, N2 and N3 are twice as wide.

    No level is wider than ``deepest`` times the first one.
    """

    def __init__(
        self,
        width: int = 16,
        residual: bool = False,
        activation: str = "mish",
        encoding: str = "rectified",
        deepest: int = 16,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("activation", activation, [*ACTIVATIONS]),
            ("encoding", encoding, [*ENCODINGS]),
        ):
            if value not in known:
                raise NetworkError(
                    f"virtual_bracket: {name} {value!r} is unknown; choose {' or '.join(known)}"
                )
        self.halo, self.multiple = reach(), MULTIPLE
        self.residual, self.encoding = residual, encoding
        planes = 7 if residual else 3
        self.encoder = UNet(3, width, deepest, activation, recall=False)
        self.longer = UNet(planes, 2 * width, deepest, activation, recall=True)
        self.shorter = UNet(planes, 2 * width, deepest, activation, recall=True)
        if residual:
            for network in (self.longer, self.shorter):
                for values in network.last.parameters():
                    nn.init.zeros_(values)

    def forward(self, photo: Tensor, ev: Tensor) -> Tensor:
        return self.parts(photo, ev)[1]

    def parts(self, photo: Tensor, ev: Tensor) -> tuple[Tensor, Tensor]:
        """Return what N1 says, (B, 3, H, W) from 0 on, not scaled, and the photographs."""
        height, width = photo.shape[2:]
        rows, columns = (mirrored(size, photo.device) for size in (height, width))
        photo = photo.index_select(2, rows).index_select(3, columns)
        ev = ev.reshape(-1, 1, 1, 1) if ev.dim() == 1 else ev[:, :1, :1, :1]
        ev = ev.clamp(-LARGEST_EV, LARGEST_EV) + torch.zeros_like(photo[:, :1, :1, :1])  # one each
        believed, photo = photo, photo.clamp(max=1)
        encoded = ENCODINGS[self.encoding](photo, self.encoder(photo * well_exposed(photo)))
        exposed = encoded * torch.exp2(ev)
        if self.residual:
            plain = reexposed(believed, ev)
            exposed = exposed / (1 + exposed)
            exposed = torch.cat([exposed, plain, ev / LARGEST_EV * torch.ones_like(plain[:, :1])], 1)
        frames = photo * torch.ones_like(ev)
        for network, asked in ((self.longer, ev > 0), (self.shorter, ev < 0)):
            chosen = asked.flatten().nonzero().flatten()
            if not torch.onnx.is_in_onnx_export() and not len(chosen):
                continue  # a graph cannot skip it; statistics of a batch of none would not be numbers
            painted = self._painted(network, exposed.index_select(0, chosen), ev.index_select(0, chosen))
            frames = frames.index_put((chosen,), painted.to(frames.dtype))
        return encoded[..., :height, :width], frames[..., :height, :width]

    def _painted(self, network: nn.Module, exposed: Tensor, ev: Tensor) -> Tensor:
        """Return photographs of one direction, made of what N2 or N3 is given."""
        found = network(exposed)
        if not self.residual:
            return (torch.tanh(found) + 1) / 2
        room = 1 - torch.exp2(-ev.abs() / GAMMA)
        return clipped(exposed[:, 3:6] + room * found)


def well_exposed(photo: Tensor) -> Tensor:
    """Say where a photograph tells something, (B, 1, H, W): 0 at black and white, 1 at luma 0.05 .. 0.95.

    The smaller of the two ramps. The paper's formula takes the larger one, and is 1 at both ends.
    """
    red, green, blue = (photo[:, channel : channel + 1] for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return (torch.minimum(luma, 1 - luma) / RAMP).clamp(0, 1)


def reexposed(photo: Tensor, ev: Tensor) -> Tensor:
    """Return a photograph at another exposure by arithmetic: min(I^2.2 2^EV, 1)^(1/2.2).

    Which is the same as the code times 2^(EV / 2.2); ``ev`` (B, 1, 1, 1) [stops].
    """
    return (photo * torch.exp2(ev / GAMMA)).clamp(max=1)


def clipped(code: Tensor) -> Tensor:
    """Cut code values to [0, 1], but let gradients by, that what has gone too far finds back."""
    inside = code.clamp(0, 1)
    return code + (inside - code).detach() if code.requires_grad else inside


def mirrored(length: int, device: torch.device | None = None) -> Tensor:
    """Return the rows or columns of a length rounded up to a multiple of 64: after the last one, backwards.

    By arithmetic that can be exported, and for lengths that are mirrored more than once.

    >>> mirrored(63).tolist()[-3:], mirrored(3).tolist()[:7]
    ([61, 62, 61], [0, 1, 2, 1, 0, 1, 2])
    """
    period = 2 * length - 2 + (length < 2) * 1
    places = torch.arange((length + MULTIPLE - 1) // MULTIPLE * MULTIPLE, device=device) % period
    return torch.minimum(places, period - places)


def reach() -> int:
    """Return how far from a block of the coarsest grid, 64 x 64, an input may influence it [px].

    Of N2 or N3 and then of N1, each backwards by way of its lowest level: two convolutions on each side of
    every enlargement and of every maximum of 2 x 2. So far that tiles hardly pay: pictures are meant to be
    small enough to be seen whole.

    >>> reach()
    766
    """
    low, high = 0, MULTIPLE - 1
    for _ in ("N2", "N1"):
        for _ in range(LEVELS - 1):
            low, high = (low - 2) // 2, (high + 2) // 2
        low, high = low - 2, high + 2
        for _ in range(LEVELS - 1):
            low, high = 2 * low - 2, 2 * high + 1 + 2
    return max(-low, high + 1 - MULTIPLE)


def build(config: Mapping[str, Any]) -> VirtualBracket:
    """Return the network of a configuration; ``width`` and ``deepest``, from 1 on, are 16 in the paper."""
    return VirtualBracket(
        int(config.get("width", 16)),
        bool(config.get("residual", False)),
        str(config.get("activation", "mish")),
        str(config.get("encoding", "rectified")),
        int(config.get("deepest", 16)),
    )
