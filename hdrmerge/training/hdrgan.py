"""The lesson of `networks.hdrgan`: the truth from three frames, first by itself, then before a judge.

The loss is the mean absolute error of both outputs (deep supervision), and once more of where the gate is
open: there alone a merge uses the network, and it is a small part of a patch. In the last ``adversarial``
of the budget a discriminator takes part, which learns to tell outputs from truths, one step for each of
the generator (Niu et al. 2021, "HDR-GAN", section III; here it joins late, because an untrained generator
teaches it nothing).

Units: within, radiance 1.0 is where the shortest of the three frames clips; codes and outputs are
2 mu_law - 1, in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from ..networks import build
from ..networks.trust import mix
from ..painter import GAMMA
from .batches import Batch
from .discriminator import Discriminator, discriminator_loss, generator_loss
from .lesson import Axes, ExampleLesson, Recipe, fill, placed
from .losses import compress, expand
from .precision import mixed

COVER, STOPS = 4, 8  # planes of `entrust.FRAME_PLANES`: 0 where a frame ends; log2 of its exposure, / 8
GATE = 6  # that of `entrust.REFERENCE_PLANES` that says how far a network may act
BELIEF = 7  # that of `entrust.FRAME_PLANES` that holds the classical trust
ENDING = 0.95  # of the network's range: where a merge takes over again
LARGEST = 1.0  # of one element of a gradient, as in the paper's program


@dataclass(frozen=True)
class HdrGanRecipe(Recipe):
    """How `hdrgan` is trained. ``adversarial`` is a share of the budget, at its end; 0 is never."""

    architecture: str = "hdrgan"
    rate: float = 3e-4
    batch: int = 4
    gate_weight: float = 1.0  # of the error where the gate is open, beside that of the whole patch
    adversarial: float = 0.0
    gan_weight: float = 1.0  # of the generator's part of the adversarial loss; 1 is the paper's
    spectral: bool = False  # normalise the generator's weights by their largest singular values
    judge: tuple[str, Mapping[str, Any], Mapping[str, Tensor]] | None = None
    """Architecture, configuration and weights of a network like `trust`, whose merges are mended, too."""

    def describe(self) -> str:
        judged = (
            f"discriminator in the last {self.adversarial:.0%} of it, weight {self.gan_weight:g}"
            if self.adversarial > 0
            else "no discriminator"
        )
        normalised = "spectral normalisation; " if self.spectral else ""
        mended = f"every other batch on what {self.judge[0]} makes of it; " if self.judge else ""
        return (
            f"Adam, rate {self.rate:g}, warm-up and cosine over {self.budget:.0f} s; {judged}; {normalised}"
            f"{mended}batches of {self.batch} patches of {self.size} px; L1 of mu-law values of both "
            f"outputs, and {self.gate_weight:g} of it where the gate is open; "
            f"mean of weights over {1 / (1 - self.average):.0f} steps; seed {self.seed}"
        )


class HdrGanLesson(ExampleLesson):
    """Absolute errors of both outputs, and what a discriminator says of them."""

    recipe: HdrGanRecipe
    asks = "both"
    rows = ("reference", "classical", "out1", "hdrgan", "everywhere")
    own = "hdrgan"
    rivals = ("classical", "reference", "out1", "everywhere")
    shown = ("reference", "classical", "hdrgan", "everywhere", "truth")
    others = (2, 2, 3, 3)  # of which two are shown; the more there are, the more often on both sides
    outputs = ("radiance",)
    axes: ClassVar[Axes] = {
        name: {0: "B", 2: "H", 3: "W"} for name in ("low", "reference", "high", "merged", "radiance")
    }

    def __init__(
        self, recipe: HdrGanRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        if self.device.type == "cpu":
            widen(self.network)
        if recipe.spectral:
            normalise(self.network, at_zero(recipe))
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.rate)
        self.optimizers["optimizer"] = self.optimizer
        self.discriminator: nn.Module | None = None
        if recipe.adversarial > 0:
            self.discriminator = placed(Discriminator(), self.device)
            self.judge = torch.optim.Adam(self.discriminator.parameters(), lr=recipe.rate)
            self.networks["discriminator"] = self.discriminator
            self.optimizers["discriminator_optimizer"] = self.judge
        self.trusted: nn.Module | None = None
        if recipe.judge is not None:
            architecture, config, weights = recipe.judge
            self.trusted = build(architecture, config).eval().requires_grad_(False)
            fill(self.trusted, weights, "the network that merges")
            placed(self.trusted, self.device)
        self.steps = 0

    def step(self, batch: Batch, progress: float) -> float:
        """Learn from a batch; return the error of the outputs alone, which all phases share."""
        three = triplet(batch.reference, batch.frames)
        truth = three.target(batch.truth)
        outputs = self._both(self.network, three, self._merged(batch))
        error = self.error(outputs, truth, batch.reference[:, GATE : GATE + 1])
        loss = error
        if self.discriminator is not None and progress >= 1 - self.recipe.adversarial:
            self._teach_judge(self.discriminator, truth, [output.detach() for output in outputs])
            self.discriminator.requires_grad_(False)
            loss = error + self.recipe.gan_weight * generator_loss(self.discriminator, outputs)
            self.discriminator.requires_grad_(True)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(self.network.parameters(), LARGEST)
        self.optimizer.step()
        return float(error.detach() if torch.isfinite(loss) else loss.detach())

    def _merged(self, batch: Batch) -> Tensor:
        """Return what is to be mended: the classical merge or, every other time, that of a network."""
        self.steps += 1
        if self.trusted is None or self.steps % 2:
            return classical(batch.reference, batch.frames)
        with torch.no_grad(), mixed(self.device):
            _, correction, blend = self.trusted.judge(batch.reference, batch.frames)  # type: ignore[operator]
        merged: Tensor = (blend + correction).float()
        return merged

    def _teach_judge(self, discriminator: nn.Module, truth: Tensor, fakes: list[Tensor]) -> None:
        self.judge.zero_grad(set_to_none=True)
        discriminator_loss(discriminator, truth, fakes).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_value_(discriminator.parameters(), LARGEST)
        self.judge.step()

    def error(self, outputs: list[Tensor], truth: Tensor, gate: Tensor) -> Tensor:
        """Return the absolute error of both outputs, over the patch and where the gate is open."""
        open_ = 3 * gate.sum() + 1e-6
        total = truth.new_zeros(())
        for output in outputs:
            wrong = (output - truth).abs()
            total = total + wrong.mean() + self.recipe.gate_weight * (wrong * gate).sum() / open_
        return total

    @staticmethod
    def _both(network: nn.Module, three: Triplet, merged: Tensor) -> list[Tensor]:
        """Return both outputs, computed in bfloat16 where that is safe.

        ``merged`` are mu-law codes (B, 3, H, W) relative to the reference, of the classical merge.
        """
        also = [three.target(merged)] if network.residual else []
        with mixed(three.reference.device):
            outputs = network.both(three.low, three.reference, three.high, *also)  # type: ignore[operator]
        return [output.float() for output in outputs]

    def results(self, mean: nn.Module, reference: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Return what `fuse.py` would: the network's where the gate is open and its range has not ended.

        Elsewhere the classical result; ``everywhere`` is with the gate open all over.
        """
        three = triplet(reference, frames)
        merged = classical(reference, frames)
        outputs = self._both(mean, three, merged)
        gate = reference[:, GATE : GATE + 1]
        codes = (
            reference[:, :3],
            merged,
            three.painted(merged, outputs[0], gate),
            three.painted(merged, outputs[1], gate),
            three.painted(merged, outputs[1], torch.ones_like(gate)),
        )
        return {name: code.float() for name, code in zip(self.rows, codes, strict=True)}

    @property
    def bytes_per_pixel(self) -> int:
        return 100 + 66 * int(self.recipe.config.get("width", 32))  # measured, onnxruntime

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        planes = {"low": 6, "reference": 6, "high": 6} | ({"merged": 3} if self.network.residual else {})
        return {
            name: torch.rand(1, count, size, size, generator=generator) * 2 - 1
            for name, count in planes.items()
        }


# --- three frames of a bracket --------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Triplet:
    """``low``, ``reference`` and ``high`` (B, 6, H, W) as the network takes them, in [-1, 1].

    ``scale`` (B, 1, 1, 1) is the radiance, 1.0 where the reference clips, at which the shortest clips.
    """

    low: Tensor
    reference: Tensor
    high: Tensor
    scale: Tensor

    def target(self, code: Tensor) -> Tensor:
        """Return what the network should say, from mu-law codes (B, 3, H, W) relative to the reference."""
        return 2 * compress((expand(code) / self.scale).clamp(max=1)) - 1

    def painted(self, merged: Tensor, output: Tensor, gate: Tensor) -> Tensor:
        """Put an output over the classical result, mu-law codes (B, 3, H, W) relative to the reference.

        As `fuse.py` does: in linear light, and not where the result is brighter than the output can say.
        """
        base = expand(merged)
        found = expand((output.clamp(-1, 1) + 1) / 2) * self.scale
        t = ((base.amax(1, keepdim=True) / self.scale - 1) / (ENDING - 1)).clamp(0, 1)
        share = gate * t * t * (3 - 2 * t)
        return torch.where(share > 0, compress(base + share * (found - base)), merged)


def classical(reference: Tensor, frames: Tensor) -> Tensor:
    """Return the classical merge of frames, mu-law codes (B, 3, H, W) relative to the reference."""
    return mix(reference, frames, frames[:, :, BELIEF : BELIEF + 1])[0]


def triplet(reference: Tensor, frames: Tensor) -> Triplet:
    """Choose the nearest shorter and the nearest longer frame of each patch; one that lacks is the reference.

    So it is where a frame does not reach. ``reference`` (B, 7, H, W) and ``frames`` (B, K, 10, H, W) are
    the planes of `entrust.Evidence`.
    """
    stops = frames[:, :, STOPS, 0, 0] * 8
    shorter = torch.where(stops < 0, stops, -torch.inf).max(1)
    longer = torch.where(stops > 0, stops, torch.inf).min(1)
    patches = torch.arange(len(frames), device=frames.device)
    own = reference[:, :3]
    codes, exposures = [], []
    for found in (shorter, longer):
        there = found.values.isfinite()
        chosen = frames[patches, found.indices]
        shows = there[:, None, None, None] & (chosen[:, COVER : COVER + 1] > 0)
        codes.append(torch.where(shows, chosen[:, :3], own))
        exposures.append(torch.exp2(torch.where(there, found.values, 0.0)).view(-1, 1, 1, 1))
    scale = 1 / exposures[0]
    return Triplet(
        planes(codes[0], exposures[0], scale),
        planes(own, torch.ones_like(scale), scale),
        planes(codes[1], exposures[1], scale),
        scale,
    )


def planes(code: Tensor, exposure: Tensor, scale: Tensor) -> Tensor:
    """Return a frame as the network takes it: its own code values, then its radiance as mu-law codes.

    ``code`` (B, 3, H, W) is mu-law relative to the reference, as is ``exposure``, 1.0 for the reference.
    """
    radiance = expand(code)
    own = (radiance * exposure).clamp(0, 1) ** (1 / GAMMA)
    return 2 * torch.cat([own, compress((radiance / scale).clamp(0, 1))], 1) - 1


# --- layers that need care in training ------------------------------------------------------------


def widen(network: nn.Module) -> None:
    """Let dilated convolutions of odd widths work in single precision, whatever the others do.

    On the CPU the gradient of their weights is garbage in bfloat16, often nan, where channels are no
    multiple of 16 (torch 2.13: 24 channels, dilation 2).
    """

    def guarded(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def in_single(*parts: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return forward(*(part.float() for part in parts))

        return in_single

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.dilation != (1, 1) and layer.out_channels % 16:
            layer.forward = guarded(layer.forward)  # type: ignore[method-assign]


def at_zero(recipe: Recipe) -> set[str]:
    """Return the names of the layers that begin at zero: they have no largest singular value to divide by."""
    fresh = build(recipe.architecture, recipe.config)
    return {
        name
        for name, layer in fresh.named_modules()
        if isinstance(layer, nn.Conv2d) and not layer.weight.any()
    }


def normalise(network: nn.Module, without: set[str]) -> None:
    """Divide the weights of all convolutions by their largest singular value, as the paper does.

    Miyato et al. 2018, one power iteration a step. The mean network follows the quotients, so that what
    is kept is plain.
    """
    layers = dict(network.named_modules())
    for name, layer in layers.items():
        if isinstance(layer, nn.Conv2d) and name not in without:
            parametrizations.spectral_norm(layer, n_power_iterations=1)
