"""The lesson of `networks/virtual_bracket.py`: each photograph of a pair from the other one.

    source -> pairs -> N1 of both, N2 of the shorter, N3 of the longer -> four losses

Le, Le, Nguyen and Hua 2023, section 3.3; weights of the losses are those of the authors' code. Two things
are added for what the network is used for. A merge takes from it what the photograph clipped, and the paper's
mask leaves out what the other photograph clips, too: a sun could become grey there, at no cost. So nothing is
masked (``masked`` is the paper's way), and what the photograph does not tell counts again (``lost``). And
since arithmetic says nearly all about longer exposures, N2 sees but one in four of the pairs (``longer``).

Toward the end (``settled``) batches are normalised as photographs will be, by statistics that stay. Those of
a few patches are far from them: learned by these alone, N2 ended 5 dB below arithmetic in the dark.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..exposure import Array
from ..extrapolate import extrapolated
from ..networks.virtual_bracket import GAMMA, RAMP, VirtualBracket, reexposed, well_exposed
from .batches import read_ahead
from .exposures import Exposures, ExposureSource
from .lesson import Axes, Lesson, Recipe
from .perceptual import luma, perceptual
from .precision import mixed
from .validate import Scores, finite_mean

NARROW: Mapping[str, Any] = {"width": 8, "deepest": 4, "residual": True, "activation": "relu"}
"""The configuration of the released network, 3.8 MB; width 16 and no ``deepest`` is the paper's, 124 MB.

Rectifiers, since on a CPU steps with Mish take 1.3 to 1.9 times as long."""

CLIPPED = 250 / 255  # code from which a channel counts as clipped, rounding and JPEG allowed for
FLOOR = 1 / 255  # of exposures whose logarithms are compared, the authors'
LEAST = 2  # of a batch whose longer one is painted: of one patch of 64 px there is nothing to normalise
FEW = 0.01  # share of a batch that is lost, below which its mean counts less
SCORED = (-2.0, -1.0, 1.0, 2.0)  # [stops], those of the paper's tables
SHOWN = (-2.0, 2.0)  # [stops] of the columns of the picture
BYTES = (60, 60)  # what inference takes of memory per pixel and exposure, and that for each of the width


@dataclass(frozen=True)
class VirtualBracketRecipe(Recipe):
    """How such a network is trained; weights of losses by name.

    ``masked`` leaves out what the photograph that is wanted does not tell, as the authors do. ``lost`` is the
    weight of the error where the one that is given does not, as a mean over there, beside that over all.
    ``longer`` is the share of a batch of which the longer photograph is painted, too; 1 is the paper's.
    ``settled`` is the share of the budget from which on the statistics of normalisation stay.
    ``vgg`` is a file as `perceptual.read_vgg19` takes it, None for the stand-in.
    """

    architecture: str = "virtual_bracket"
    config: Mapping[str, Any] = field(default_factory=lambda: dict(NARROW))
    rate: float = 1e-4
    decay: float = 1e-4  # of weights, as AdamW does it
    representation: float = 1.0
    reconstruction: float = 100.0
    perceptual: float = 0.1
    variation: float = 1e-5
    masked: bool = False
    lost: float = 1.0
    longer: float = 0.25
    settled: float = 0.75
    vgg: Path | None = None

    def describe(self) -> str:
        likeness = "edges and SSIM at four scales" if self.vgg is None else f"VGG-19 ({self.vgg.name})"
        masked = ", where the target tells something" if self.masked else ""
        lost = f", {self.lost:g} of it again where the photograph tells nothing" if self.lost else ""
        return (
            f"AdamW, rate {self.rate:g}, decay {self.decay:g}, cosine over {self.budget:.0f} s; batches of "
            f"{self.batch} pairs of {self.size} px, the longer one learned of {self.longer:.0%}; "
            f"{self.representation:g} representation + "
            f"{self.reconstruction:g} L1{masked}{lost} + {self.perceptual:g} {likeness} + "
            f"{self.variation:g} total variation; mean of weights over {1 / (1 - self.average):.0f} steps; "
            f"normalised by statistics that stay from {self.settled:.0%} on; "
            f"seed {self.seed}"
        )


@dataclass(frozen=True, eq=False)
class Couples:
    """A batch: ``short`` and ``long`` (B, 3, H, W) in [0, 1], ``ev`` (B,) [stops] apart.

    ``given`` is the long one as a network is given it, extrapolated.
    """

    short: Tensor
    long: Tensor
    given: Tensor
    ev: Tensor

    def to(self, device: torch.device) -> Couples:
        return Couples(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class VirtualBracketLesson(Lesson[ExposureSource, Couples, Exposures]):
    """Both photographs of a pair from each other; in bfloat16 where that is safe."""

    recipe: VirtualBracketRecipe
    asks = "longer"
    rows = ("arithmetic", "network")
    regions = ("whole", "clipped", *(f"ev{ev:+g}" for ev in SCORED))
    measure = "PSNR"
    own = "network"
    rivals = ("arithmetic",)
    shown = ("photo", *(f"{what} {ev:+g}" for ev in SHOWN for what in ("arithmetic", "network", "truth")))
    outputs = ("frames",)
    axes: ClassVar[Axes] = {
        "photo": {0: "B", 2: "H", 3: "W"},
        "ev": {0: "K", 2: "h", 3: "w"},
        "frames": {0: "K", 2: "H", 3: "W"},
    }

    def __init__(
        self, recipe: VirtualBracketRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.rate, weight_decay=recipe.decay
        )
        self.optimizers["optimizer"] = self.optimizer
        self.likeness = perceptual(recipe.vgg).to(self.device)

    def batches(self, source: ExposureSource, rng: np.random.Generator) -> Generator[Couples, None, None]:
        def draw(own: np.random.Generator) -> Couples:
            return collate([source.draw(own, self.recipe.size) for _ in range(self.recipe.batch)])

        for batch in read_ahead(draw, rng):
            yield batch.to(self.device)

    def data_in(self, source: ExposureSource) -> str:
        return source.describe()

    def step(self, batch: Couples, progress: float) -> float:
        weights = self.recipe
        if progress >= weights.settled:
            self._settle()
        loss = torch.stack(
            [getattr(weights, name) * value for name, value in self.losses(batch).items()]
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    def _settle(self) -> None:
        """Normalise as the mean network does, until `follow` has been called."""
        for own, kept in zip(self.network.modules(), self.mean.modules(), strict=True):
            if isinstance(own, nn.BatchNorm2d):
                own.load_state_dict({**own.state_dict(), **dict(kept.named_buffers())})
                own.eval()

    def losses(self, batch: Couples) -> dict[str, Tensor]:
        """Return the losses of a batch, each by the name of its weight, of both directions together."""
        count = len(batch.ev)
        some = min(max(round(self.recipe.longer * count), LEAST), count)  # whose longer one is painted
        upwards = torch.where(torch.arange(count, device=self.device) < some, batch.ev, 0.0)
        with mixed(self.device):
            encoded, frames = cast(VirtualBracket, self.network).parts(
                torch.cat([batch.short, batch.given]), torch.cat([upwards, -batch.ev])
            )
        longer, shorter = frames[:some], frames[count:]
        directions = (
            (longer, batch.long[:some], dark(batch.short[:some])),
            (shorter, batch.short, white(batch.long)),
        )
        error, alike, varied = (encoded.new_zeros(()) for _ in range(3))
        for painted, wanted, untold in directions:
            mask = well_exposed(wanted) if self.recipe.masked else torch.ones_like(untold)
            wrong = mask * (painted - wanted).abs()
            error = error + wrong.mean() + self.recipe.lost * mean_in(wrong, untold)
            with mixed(self.device):
                alike = alike + self.likeness(mask * painted, mask * wanted)
            varied = varied + variation(painted) / len(painted)
        return {
            "representation": representation(encoded[:count], encoded[count:], batch.ev),
            "reconstruction": error,
            "perceptual": alike,
            "variation": varied,
        }

    # --- to be judged -----------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, mean: nn.Module, held_out: Sequence[Exposures]) -> Scores:
        """Return the PSNR of code values by stops, their mean, and where the photograph is `clipped`.

        There at shorter exposures only: at longer ones it is white.
        """
        found: dict[str, dict[str, list[float]]] = {
            row: {region: [] for region in self.regions} for row in self.rows
        }
        for sample in held_out:
            photo, wanted = _split(sample, SCORED)
            lost, shorter = white(photo)[0, 0] > 0, [k for k, ev in enumerate(SCORED) if ev < 0]
            for row, frames in self.rows_of(mean, photo, SCORED).items():
                square = (frames.cpu() - wanted).square().mean(1)
                for ev, error in zip(SCORED, square, strict=True):
                    found[row][f"ev{ev:+g}"].append(psnr_of(error))
                found[row]["clipped"].append(psnr_of(square[shorter][:, lost]))
        scores: Scores = {}
        for row, regions in found.items():
            means = {region: finite_mean(values) for region, values in regions.items() if region != "whole"}
            whole = finite_mean([means[f"ev{ev:+g}"] for ev in SCORED])
            scores[row] = {"whole": whole, **means}
        return scores

    def rows_of(self, mean: nn.Module, photo: Tensor, stops: Sequence[float]) -> dict[str, Tensor]:
        """Return what each method makes of a photograph (1, 3, H, W) at other exposures, (K, 3, H, W)."""
        device = next(mean.parameters()).device
        given = _planes(np.stack([believed(np.moveaxis(one.numpy(), 0, -1)) for one in photo])).to(device)
        photo, ev = photo.to(device), torch.tensor(stops, device=device)
        with mixed(device):
            painted = mean(given, ev)
        return {"arithmetic": reexposed(photo, ev.reshape(-1, 1, 1, 1)), "network": painted.float()}

    @torch.no_grad()
    def pictures(self, mean: nn.Module, sample: Exposures) -> dict[str, Tensor]:
        photo, wanted = _split(sample, SHOWN)
        results = {**self.rows_of(mean, photo, SHOWN), "truth": wanted}
        columns = {"photo": photo}
        for number, ev in enumerate(SHOWN):
            columns |= {
                f"{what} {ev:+g}": frames[number : number + 1].cpu() for what, frames in results.items()
            }
        return columns

    # --- to be written ----------------------------------------------------------------------------

    @property
    def bytes_per_pixel(self) -> int:
        least, per_width = BYTES
        return least + per_width * int(self.recipe.config.get("width", 16))

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(0)
        photo = torch.rand(1, 3, size, size, generator=generator)
        return {"photo": photo, "ev": torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)}


# --- losses ---------------------------------------------------------------------------------------


def representation(short: Tensor, long: Tensor, ev: Tensor) -> Tensor:
    """Return how far what N1 says of two exposures (B, 3, H, W) is from being proportional to them.

    Equations 5 and 6, in natural logarithms: each scaled to the other one, a sum of two means.
    """
    ratio = torch.exp2(ev).reshape(-1, 1, 1, 1)
    up = (short * ratio + FLOOR).log() - (long + FLOOR).log()
    down = (long / ratio + FLOOR).log() - (short + FLOOR).log()
    return up.abs().mean() + down.abs().mean()


def variation(photo: Tensor) -> Tensor:
    """Return the total variation of photographs, the sum of all differences between neighbours."""
    return photo.diff(dim=-1).abs().sum() + photo.diff(dim=-2).abs().sum()


def mean_in(error: Tensor, where: Tensor) -> Tensor:
    """Return the mean of an error (B, 3, H, W) where a mask (B, 1, H, W) is 1; less where that is `FEW`."""
    few = FEW * where.numel()
    return (error.mean(1, keepdim=True) * where).sum() / where.sum().clamp(min=few)


def white(photo: Tensor) -> Tensor:
    """Say where a photograph is clipped in any channel, (B, 1, H, W), 0 or 1."""
    return (photo.amax(1, keepdim=True) >= CLIPPED).to(photo.dtype)


def dark(photo: Tensor) -> Tensor:
    """Say where a photograph is too dark to tell anything, (B, 1, H, W): 1 at black, 0 from luma 0.05 on."""
    return (1 - luma(photo) / RAMP).clamp(min=0)


def psnr_of(square: Tensor) -> float:
    """Return the PSNR [dB] of squared errors; nan of none, or where nothing differs."""
    error = float(square.double().mean()) if square.numel() else 0.0
    return -10 * float(np.log10(error)) if error > 0 else float("nan")


# --- pairs -> batches -----------------------------------------------------------------------------


def collate(pairs: Sequence[Exposures]) -> Couples:
    """Stack pairs into a batch."""
    codes = np.stack([pair.codes for pair in pairs])
    ev = np.array([pair.stops[1] - pair.stops[0] for pair in pairs], np.float32)
    given = np.stack([believed(photo) for photo in codes[:, 1]])
    return Couples(_planes(codes[:, 0]), _planes(codes[:, 1]), _planes(given), torch.from_numpy(ev))


def believed(photo: Array) -> Array:
    """Return code values (H, W, 3) as the network is given them: beyond 1 where they are white."""
    light = np.power(photo, GAMMA, dtype=np.float32)
    return np.asarray(np.power(extrapolated(light), 1 / GAMMA), np.float32)


def _split(sample: Exposures, stops: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return the photograph at 0 stops (1, 3, H, W), and those at ``stops``."""
    photo, *others = (sample.codes[sample.stops.index(ev)] for ev in (0.0, *stops))
    return _planes(photo[None]), _planes(np.stack(others))


def _planes(pictures: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pictures, -1, 1), np.float32))
