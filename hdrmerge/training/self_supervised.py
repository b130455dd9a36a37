"""The lesson of the networks of Nazarczuk et al. 2022: radiance from three frames, without a truth.

    label set -> pairs of the four subsets -> batches -> L1 + alpha * L1 of the mu-law

What is learned from is a `LabelSet`, or anything else that pairs are drawn from; a source that knows the
truth makes the same lesson a supervised one.

Units: within, radiance 1.0 is where the shortest of the three frames clips.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..exposure import Float, Mask, mu_law
from ..painter import well_exposed
from .batches import read_ahead
from .lesson import Axes, Lesson, Recipe
from .losses import compress
from .pairs import SUBSETS, Pair, Subset
from .precision import mixed
from .pseudo_labels import REFERENCE, fuse
from .reexposure import decode
from .validate import Scores, finite_mean

ALPHA = 0.2  # of the error of mu-law values beside that of linear ones, the paper's
DROPS = (0.70, 0.95)  # shares of the budget after which the rate is a tenth; epochs 210 and 285 of 300
FAINTEST = 0.25  # radiance that a picture shows as white at least, so that noise in the dark stays dark

BYTES_PER_PIXEL: Mapping[str, tuple[int, int]] = {"unet": (140, 28), "resnet": (160, 11), "grdn": (100, 38)}
"""Architecture -> bytes a pixel that inference takes, and those for each of its ``width``; onnxruntime."""


class Pairs(Protocol):
    """What pairs are drawn from."""

    def draw(self, rng: np.random.Generator, subsets: Sequence[Subset] = SUBSETS) -> Pair:
        """Draw one of any of the ``subsets``."""

    def describe(self) -> str:
        """Return what there is, in a few words."""


@dataclass(frozen=True)
class SelfSupervisedRecipe(Recipe):
    """How such a network is trained. ``subsets`` are those that are drawn from."""

    architecture: str = "unet"
    rate: float = 1e-4
    batch: int = 16
    alpha: float = ALPHA
    subsets: tuple[Subset, ...] = SUBSETS

    def rate_at(self, progress: float) -> float:
        """Return the learning rate at a share of the budget: a tenth after each of `DROPS`."""
        return self.rate * 0.1 ** sum(progress >= drop for drop in DROPS)

    def describe(self) -> str:
        return (
            f"Adam, rate {self.rate:g}, a tenth from 70 % and a hundredth from 95 % of {self.budget:.0f} s; "
            f"batches of {self.batch} patches of {self.size} px of {', '.join(self.subsets)}; L1 of linear "
            f"values + {self.alpha:g} L1 of mu-law values; mean of weights over "
            f"{1 / (1 - self.average):.0f} steps; seed {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Triplets:
    """A batch: what `composition` takes, and the ``label`` (B, 3, H, W) in [0, 1].

    Where it is not ``known`` (B, 1, H, W) it says how bright a pixel is at least.
    """

    frames: Tensor
    masked: Tensor
    linear: Tensor
    label: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Triplets:
        return Triplets(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class SelfSupervisedLesson(Lesson[Pairs, Triplets, Pair]):
    """Absolute errors, linear and of mu-law values; in bfloat16 where that is safe."""

    recipe: SelfSupervisedRecipe
    asks = "parts"
    rows = ("reference", "fused", "network")
    regions = ("whole", *SUBSETS)
    own = "network"
    rivals = ("reference", "fused")
    shown = ("short", "reference", "long", "fused", "network", "label")
    outputs = ("radiance",)
    axes: ClassVar[Axes] = {
        name: {0: "B", 2: "H", 3: "W"} for name in ("frames", "masked", "linear", "radiance")
    }

    def __init__(
        self, recipe: SelfSupervisedRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.rate)
        self.optimizers["optimizer"] = self.optimizer

    def batches(self, source: Pairs, rng: np.random.Generator) -> Generator[Triplets, None, None]:
        """Yield batches for ever, of pairs in one of eight orientations and any order of colours."""

        def draw(own: np.random.Generator) -> Triplets:
            drawn = [source.draw(own, self.recipe.subsets) for _ in range(self.recipe.batch)]
            return collate([turned(pair, own) for pair in drawn])

        for batch in read_ahead(draw, rng):
            yield batch.to(self.device)

    def data_in(self, source: Pairs) -> str:
        return source.describe()

    def step(self, batch: Triplets, progress: float) -> float:
        loss = self.error(self._radiance(self.network, batch), batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def error(self, radiance: Tensor, batch: Triplets) -> Tensor:
        """Return the loss of radiance (B, 3, H, W); where the label is not exact, more is not wrong."""
        wrong = radiance - batch.label
        tones = compress(radiance.clamp(min=0)) - compress(batch.label)
        counts = (batch.known > 0) | (wrong < 0)
        return ((wrong.abs() + self.recipe.alpha * tones.abs()) * counts).mean()

    @staticmethod
    def _radiance(network: nn.Module, batch: Triplets) -> Tensor:
        with mixed(batch.frames.device):
            found: Tensor = network(batch.frames, batch.masked, batch.linear)
        return found.float()

    # --- to be judged -----------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, mean: nn.Module, held_out: Sequence[Pair]) -> Scores:
        """Return the PSNR of mu-law values by subset, where labels are exact; ``whole`` is their mean."""
        found: dict[str, dict[str, list[float]]] = {
            row: {subset: [] for subset in SUBSETS} for row in self.rows
        }
        for pair in held_out:
            label = mu_law(limited(pair.label, pair))
            for row, radiance in self.rows_of(mean, pair).items():
                found[row][pair.subset].append(psnr_of(mu_law(limited(radiance, pair)) - label, pair))
        scores: Scores = {}
        for row, by_subset in found.items():
            means = {subset: finite_mean(values) for subset, values in by_subset.items()}
            scores[row] = {"whole": finite_mean(list(means.values())), **dict(means)}
        return scores

    def rows_of(self, mean: nn.Module, pair: Pair) -> dict[str, Float]:
        """Return what each method makes of a pair, radiance (p, p, 3), 1.0 where the reference clips."""
        device = next(mean.parameters()).device
        radiance = self._radiance(mean, collate([pair]).to(device))[0]
        painted = np.moveaxis(radiance.cpu().numpy(), 0, -1) / np.float32(min(pair.exposures))
        results = decode(pair.codes[REFERENCE]), fuse(list(pair.codes), pair.exposures), painted
        return dict(zip(self.rows, results, strict=True))

    @torch.no_grad()
    def pictures(self, mean: nn.Module, sample: Pair) -> dict[str, Tensor]:
        short, _, long = sample.codes
        results = {**self.rows_of(mean, sample), "label": sample.label}
        brightest = max(float(sample.label.max()), FAINTEST)
        codes = {name: mu_law(np.clip(light / brightest, 0, 1)) for name, light in results.items()}
        codes = {**codes, "short": short, "long": long}
        return {
            name: torch.from_numpy(np.ascontiguousarray(np.moveaxis(codes[name], -1, 0)[None]))
            for name in self.shown
        }

    # --- to be written ----------------------------------------------------------------------------

    @property
    def bytes_per_pixel(self) -> int:
        least, per_width = BYTES_PER_PIXEL[self.recipe.architecture]
        return least + per_width * int(self.recipe.config.get("width", 64))

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        planes = {"frames": 9, "masked": 4, "linear": 3}
        return {name: torch.rand(1, count, size, size, generator=generator) for name, count in planes.items()}


# --- pairs -> batches -----------------------------------------------------------------------------


def collate(pairs: Sequence[Pair]) -> Triplets:
    """Stack pairs into a batch."""
    columns = zip(*(planes_of(pair) for pair in pairs), strict=True)
    return Triplets(*(torch.from_numpy(np.stack(column)) for column in columns))


def planes_of(pair: Pair) -> tuple[Float, ...]:
    """Return the fields of `Triplets` of one pair, (C, p, p) each: those of `painter.Seen`, and the label."""
    codes = np.moveaxis(pair.codes, -1, 1)
    well = well_exposed(pair.codes[REFERENCE]).astype(np.float32)[None]
    scale = np.float32(min(pair.exposures))
    own = codes[REFERENCE]
    return (
        np.ascontiguousarray(codes.reshape(9, *codes.shape[2:])),
        np.concatenate([own * well, well]),
        np.ascontiguousarray(decode(own) * scale),
        np.ascontiguousarray(np.moveaxis(limited(pair.label, pair), -1, 0)),
        pair.known.astype(np.float32)[None],
    )


def limited(radiance: Float, pair: Pair) -> Float:
    """Return radiance (p, p, 3) in [0, 1], 1.0 where the shortest frame of a pair clips."""
    return np.asarray(np.clip(radiance * np.float32(min(pair.exposures)), 0.0, 1.0), np.float32)


def turned(pair: Pair, rng: np.random.Generator) -> Pair:
    """Return a pair in one of eight orientations and any order of colours."""
    turns, mirrored, colours = int(rng.integers(4)), bool(rng.integers(2)), rng.permutation(3)

    def turn(picture: Float | Mask, rows: int) -> Any:
        picture = np.rot90(picture, turns, (rows, rows + 1))
        return np.flip(picture, rows + 1) if mirrored else picture

    return replace(
        pair,
        codes=turn(pair.codes[..., colours], 1),
        label=turn(pair.label[..., colours], 0),
        known=turn(pair.known, 0),
        gain=None,
    )


def psnr_of(difference: Float, pair: Pair) -> float:
    """Return the PSNR [dB] where the label is exact; nan where it is nowhere, or where nothing differs."""
    square = np.square(difference[pair.known]).astype(np.float64)
    error = float(square.mean()) if square.size else 0.0
    return -10 * float(np.log10(error)) if error > 0 else float("nan")
