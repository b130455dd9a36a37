"""`trust`: how far each frame of a bracket can be trusted at each pixel, and what no frame shows.

Two small U-Nets at half resolution, after a 2 x 2 unshuffle. The first looks at the reference and one
other frame at a time, with weights shared by all frames, so that their number and order are free; at
every scale each frame also sees the mean of one half of the channels over all frames, and the maximum of
the other. It corrects the classical
trust. Frames are then blended by trust and noise, in linear light. The second sees the reference beside
that blend and corrects the blend: it takes noise out and fills in what nothing shows.

Where the `gate` is 0 trust is 1 and the correction is 0, exactly. The idea of predicting weights and
leaving the blend to arithmetic is SAFNet's (Kong et al. 2024); bounding the correction keeps the
sigmoid from falling into "trust nothing", where it has no gradient.

In:  ``reference`` (1, 7, H, W) and ``frames`` (K, 10, H, W), the planes of `entrust.Evidence`.
Out: ``trust`` (K, 1, H, W) in [0, 1]; ``correction`` (1, 3, H, W) in the domain of `exposure.mu_law`.
H and W are multiples of 16. In training both have a leading batch axis: (B, 7, ...) and (B, K, 10, ...).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Decoder, Encoder

MULTIPLE = 16
PRIOR, BOUND = 3.0, 7.0  # logit of the classical trust at 1; largest correction of it
SPAN = math.log(5001.0)
EPSILON = 1e-5  # the reference's share where nothing else speaks


class Trust(nn.Module):
    """See the module's docstring; ``pair`` and ``fill`` are the widths of the two U-Nets, by scale."""

    def __init__(
        self,
        pair: tuple[int, ...] = (24, 32, 48, 64),
        fill: tuple[int, ...] = (48, 64, 80, 96),
        context: int = 32,
    ) -> None:
        super().__init__()
        self.halo, self.multiple = reach(len(pair)) + reach(len(fill)), MULTIPLE
        self.pair_in = Encoder(4 * 17, pair)
        self.pair_out = Decoder([2 * width for width in pair], pair, 4 + context)
        self.fill_in = Encoder(4 * 13 + context, fill)
        self.fill_out = Decoder(list(fill), fill, 12)

    def forward(self, reference: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        single = frames.dim() == 4
        if single:
            frames = frames.unsqueeze(0)
        trust, correction, _ = self.judge(reference, frames)
        return (trust.flatten(0, 1) if single else trust), correction

    def judge(self, reference: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return trust (B, K, 1, H, W), correction (B, 3, H, W) and the blend (B, 3, H, W) in mu-law."""
        gate = reference[:, 6:7]
        count = frames.shape[1]
        features = self.pair_in.rest(self._first(reference, frames))
        pooled = []
        for feature in features:
            each = torch.unflatten(feature, 0, (-1, count))
            shared = pool(each).unsqueeze(1).expand_as(each)
            pooled.append(torch.cat([each, shared], 2).flatten(0, 1))
        said = self.pair_out(pooled)
        doubt = torch.unflatten(functional.pixel_shuffle(said[:, :4], 2), 0, (-1, count))
        context = pool(torch.unflatten(said[:, 4:], 0, (-1, count)))

        prior = (frames[:, :, 7:8] - 0.5) * (2 * PRIOR)
        logit = prior + BOUND * torch.tanh(doubt.float() / BOUND)
        trust = torch.sigmoid(logit)
        trust = 1 - gate.unsqueeze(1) * (1 - trust)
        blend, limit = mix(reference, frames, trust)
        most = trust.amax(1)
        seen = torch.cat([reference, blend, limit, most, 1 - trust.amin(1)], 1)
        half = torch.cat([functional.pixel_unshuffle(seen, 2), context.to(seen.dtype)], 1)
        filled = functional.pixel_shuffle(self.fill_out(self.fill_in(half)), 2)
        return trust, filled.float() * gate, blend

    def _first(self, reference: Tensor, frames: Tensor) -> Tensor:
        """Return the first convolution of the reference beside each frame, (B * K, C, H / 2, W / 2).

        The reference's part is the same for all frames, and computed once.
        """
        first = self.pair_in.first
        split = 4 * reference.shape[1]
        own = functional.pixel_unshuffle(reference, 2)
        each = functional.pixel_unshuffle(frames.flatten(0, 1), 2)
        own = functional.conv2d(own, first.weight[:, :split], None, padding=1)
        each = functional.conv2d(each, first.weight[:, split:], first.bias, padding=1)
        return (own.unsqueeze(1) + torch.unflatten(each, 0, (-1, frames.shape[1]))).flatten(0, 1)


def reach(scales: int) -> int:
    """Return how far away [px] a U-Net of so many scales, the first at half size, may see.

    Two 3 x 3 convolutions a scale on the way down, two on the way up, one at the end; and wherever in
    a block of the coarsest scale a pixel lies.
    """
    down = sum(4 << scale for scale in range(scales))
    up = sum(4 << scale for scale in range(scales - 1))
    return down + up + 2 + (1 << scales) - 1


def pool(features: Tensor) -> Tensor:
    """Return what frames (B, K, C, h, w) say together: the mean of half the channels, or the maximum."""
    half = features.shape[2] // 2
    return torch.cat([features[:, :, :half].mean(1), features[:, :, half:].amax(1)], 1)


def mix(reference: Tensor, frames: Tensor, trust: Tensor) -> tuple[Tensor, Tensor]:
    """Blend frames by share and trust, as `merge.py` does: (B, 3, H, W) in mu-law, and (B, 1, H, W).

    The second is how far the reference's limit speaks, because it is clipped and no shorter frame is
    trusted. A long exposure's trust is scaled down by its light, so that trust is its share in the blend.
    """
    ratio = torch.exp2(frames[:, :, 8:9] * 8)
    cover = trust * frames[:, :, 4:5]
    weight = frames[:, :, 3:4].square() * cover / (1 + (1 - cover) * ratio)
    own = reference[:, 3:4].square() + EPSILON
    total = own + weight.sum(1)
    light = torch.expm1(reference[:, :3] * SPAN)
    others = torch.expm1(frames[:, :, :3] * SPAN)
    blend = (own * light + (weight * others).sum(1)) / total
    shorter = (frames[:, :, 8:9] < 0).to(trust.dtype)
    limit = (1 - (cover * shorter).amax(1)) * (1 - reference[:, 4:5]) * shorter.amax(1)
    blend = blend + limit * (light - blend)
    return torch.log1p(blend.clamp(min=0)) / SPAN, limit


def build(config: Mapping[str, Any]) -> Trust:
    """Return the network of a configuration, as a weights file's card holds it."""
    widths = {key: tuple(config[key]) for key in ("pair", "fill") if key in config}
    return Trust(**widths, context=int(config.get("context", 32)))
