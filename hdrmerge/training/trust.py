"""The lesson of `networks.trust`: judge frames, and correct the blend, where the gate is open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..entrust import FRAME_PLANES, REFERENCE_PLANES
from ..networks.trust import mix
from .batches import Batch
from .lesson import Axes, ExampleLesson, Recipe
from .losses import log_error, regions_of
from .precision import mixed


@dataclass(frozen=True)
class TrustRecipe(Recipe):
    """How `trust` is trained."""

    architecture: str = "trust"
    blend_weight: float = 0.5  # of the loss of the blend alone, beside the corrected one
    stay: float = 0.0  # how far the weights are moved back at the end to where they began; for the card

    def describe(self) -> str:
        return (
            f"AdamW, rate {self.rate:g}, warm-up and cosine over {self.budget:.0f} s; "
            f"batches of {self.batch} patches of {self.size} px; log MSE + log MAE / 2 of mu-law values "
            f"where the gate is open, more where something moved, and {self.blend_weight:g} of the blend "
            f"alone; mean of weights over {1 / (1 - self.average):.0f} steps; seed {self.seed}"
            + (f"; {self.stay:.0%} of the way back to the weights it started from" if self.stay else "")
        )


class TrustLesson(ExampleLesson):
    """Errors in decibels, of the corrected blend and of the blend; in bfloat16 where that is safe."""

    recipe: TrustRecipe
    asks = "judge"
    rows = ("reference", "classical", "blend", "trust")
    own = "trust"
    rivals = ("classical", "reference")
    shown = ("reference", "classical", "trust", "truth")
    outputs = ("trust", "correction")
    axes: ClassVar[Axes] = {
        "reference": {2: "H", 3: "W"},
        "frames": {0: "K", 2: "H", 3: "W"},
        "trust": {0: "K", 2: "H", 3: "W"},
        "correction": {2: "H", 3: "W"},
    }

    def __init__(
        self, recipe: TrustRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=1e-4
        )
        self.optimizers["optimizer"] = self.optimizer

    def step(self, batch: Batch, progress: float) -> float:
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of a batch."""
        with mixed(batch.reference.device):
            _, correction, blend = self.network.judge(batch.reference, batch.frames)  # type: ignore[operator]
        code, blend = (blend + correction).float(), blend.float()
        masks = regions_of(batch.reference[:, 6:7], batch.moving, batch.saturated)
        loss = self.recipe.blend_weight * log_error(blend, batch.truth, masks[0][1], batch.peak)
        for share, mask in masks:
            loss = loss + share * log_error(code, batch.truth, mask, batch.peak)
        return loss

    def results(self, mean: nn.Module, reference: Tensor, frames: Tensor) -> dict[str, Tensor]:
        with mixed(reference.device):
            _, correction, blend = mean.judge(reference, frames)  # type: ignore[operator]
        classical, _ = mix(reference, frames, frames[:, :, 7:8])
        codes = (reference[:, :3], classical, blend, blend + correction)
        return {name: code.float() for name, code in zip(self.rows, codes, strict=True)}

    @property
    def bytes_per_pixel(self) -> int:
        return 220

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        return {
            "reference": torch.rand(1, len(REFERENCE_PLANES), size, size, generator=generator),
            "frames": torch.rand(2, len(FRAME_PLANES), size, size, generator=generator),
        }
