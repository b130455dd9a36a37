"""The three lessons of HDR video: `networks.coarse`, then `networks.refine` on what it makes, then both.

    clips -> patches -> codes -> coarse of three frames -> refined one -> error of mu-law values

Chen et al. 2021, "HDR Video Reconstruction: A Coarse-to-fine Network and A Real-world Benchmark Dataset",
section 3.4, and the noise and tones of section 5.1. `CoarseLesson` shows the reference in other tones than
it sums it up in: a flow that takes brightness for motion would be wrong for every camera but one.
`RefineLesson` divides by how much of the picture is painted at all; the coarse network is given and stays as
it is. `JointLesson` moves both, each frame's coarse result having a truth of its own. The followed forms
begin near the truth and learn by decibels (`losses.log_error`).

Other than the paper: where the truth reaches 1.0 nothing is known, and more is not wrong; what is painted is
at least `LEAST_PAINTED`, or a batch that is exposed well all over would decide.

Units: within, radiance 1.0 is where the shortest exposure clips.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NetworkError
from ..exposure import Float
from ..flowmerge import merge_by_flow
from ..followed import follow_results
from ..networks import build
from ..networks.coarse import CoarseNet
from ..networks.refine import RefineNet, well_exposed
from .batches import read_ahead
from .clips import Filmed, photographed
from .lesson import Axes, Lesson, Recipe, fill, placed
from .losses import compress, log_error
from .perceptual import perceptual
from .precision import mixed
from .validate import Scores, finite_mean
from .windows import BORDER, Windows, middle_of

NARROW: Mapping[str, Mapping[str, Any]] = {
    "coarse": {"exposures": 2, "followed": True, "width": 16, "flow": [24, 16], "levels": 2, "finest": 1},
    "refine": {
        "exposures": 2,
        "width": 32,
        "groups": 4,
        "blocks": [3, 8],
        "align_reference": False,
        "residual": True,
        "followed": True,
    },
}
"""Architecture -> the configuration of the released network; that of the paper is empty."""

DROPS = ((0.5, 0.5), (0.75, 0.25), (0.9, 0.05))
"""Share of the budget -> share of the rate from there on."""

WARM_UP = 0.02  # share of the budget

TONES = 0.7  # logarithm of the largest power that codes of the reference are raised to
NOISE = (1e-4, 1e-3)  # of linear light, 1.0 = clipping, in all frames but those exposed longest
NOISY = 0.9  # share of the patches with noise while the coarse network is alone, all of it the larger
LEAST_PAINTED = 0.01  # share of a batch
REPEATS, KEPT = 4, 32  # times a batch is refined, turned; of so many that what coarse makes of them is known
READERS = 8  # threads that cut patches out of clips, where a GPU learns from them
KNOWN = 0.998  # of the radiance at which the shortest exposure clips
SCORED_NOISE = 1e-3
STEEPEST = 5.0  # norm of a gradient, what is usual: a single batch shall not throw a network off
DECIBELS = "log MSE + log MAE / 2 of patches"
BYTES: Mapping[tuple[str, bool], tuple[int, int]] = {
    ("coarse", False): (180, 33),
    ("coarse", True): (600, 24),
    ("refine", False): (20, 38),
    ("refine", True): (430, 38),
}
"""Architecture, and whether it is followed -> bytes a pixel that inference takes, and those for each of its
``width``; onnxruntime."""

Trained = tuple[str, Mapping[str, Any], Mapping[str, Tensor]]
"""Architecture, configuration and weights of a network."""


class ClipSource(Protocol):
    """What is learned from."""

    @property
    def count(self) -> int:
        """The number of exposures."""

    def draw(self, rng: np.random.Generator, frames: int, size: int) -> Filmed:
        """Draw frames of a patch."""

    def describe(self) -> str:
        """Return what there is, in a few words."""


# --- recipes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoRecipe(Recipe):
    """How any of them is trained."""

    rate: float = 1e-4

    def rate_at(self, progress: float) -> float:
        """Return the learning rate at a share of the budget: it grows over `WARM_UP` and falls by `DROPS`."""
        warm = min(progress / WARM_UP + 0.01, 1.0)
        return self.rate * min([warm, *(share for start, share in DROPS if progress >= start)])

    @property
    def exposures(self) -> int:
        return int(self.config.get("exposures", 2))

    def _described(self, loss: str) -> str:
        drops = ", ".join(f"{share:g} of it from {start:.0%}" for start, share in DROPS)
        return (
            f"Adam, rate {self.rate:g}, {drops} of {self.budget:.0f} s; batches of {self.batch} patches of "
            f"{self.size} px, {self.exposures} exposures; {loss}; mean of weights over "
            f"{1 / (1 - self.average):.0f} steps; gradients of norm {STEEPEST:g} at most; "
            f"seed {self.seed}"
        )


@dataclass(frozen=True)
class CoarseRecipe(VideoRecipe):
    """How `coarse` is trained by itself; ``tones`` is the logarithm of the largest power of the reference."""

    architecture: str = "coarse"
    config: Mapping[str, Any] = field(default_factory=lambda: dict(NARROW["coarse"]))
    tones: float = TONES

    def describe(self) -> str:
        loss = DECIBELS if self.config.get("followed") else "L1"
        return self._described(
            f"{loss} of mu-law values, tones of the reference to a power of exp(+-{self.tones:g})"
        )


@dataclass(frozen=True)
class RefineRecipe(VideoRecipe):
    """How `refine` is trained on what a ``coarse`` network makes, which has to be given.

    ``perceptual`` is the weight of likeness, ``vgg`` a file as `perceptual.read_vgg19` takes it, None for the
    stand-in. ``source`` names the coarse network in the card.
    """

    architecture: str = "refine"
    config: Mapping[str, Any] = field(default_factory=lambda: dict(NARROW["refine"]))
    batch: int = 8
    coarse: Trained | None = None
    source: str = ""
    perceptual: float = 0.0
    vgg: Path | None = None

    def describe(self) -> str:
        return self._described(
            f"{self._loss()}, on {self._named()} as it is; each batch {REPEATS} times, turned"
        )

    def _loss(self) -> str:
        loss = f"{DECIBELS} of mu-law values"
        if not self.config.get("followed"):
            loss = "L1 of mu-law values over the share that is painted"
        if self.perceptual:
            likeness = "edges and SSIM at four scales" if self.vgg is None else f"VGG-19 ({self.vgg.name})"
            loss += f" + {self.perceptual:g} {likeness}"
        return loss

    def _named(self) -> str:
        return f"the coarse network{f' {self.source}' if self.source else ''}"


@dataclass(frozen=True)
class JointRecipe(RefineRecipe):
    """How both are trained together."""

    rate: float = 2e-5

    def describe(self) -> str:
        coarse = "the same" if self.config.get("followed") else "L1"
        return self._described(f"{self._loss()} + {coarse} of three coarse frames, with {self._named()}")


# --- batches --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Takes:
    """A batch: ``radiance`` (B, N, 3, H, W), half floats, and ``exposures`` (B, N), shortest of all is 1.

    ``noise`` (B, N) is that of linear light in each frame. Codes are made of it on the device, unless frames
    are followed: then there are ``codes`` (B, N, 3, H, W) and ``windows``. Where it is known already,
    ``results`` (B, 3, 3, H, W) are what a coarse network made of three frames, followed to the middle one, as
    are their codes then.
    """

    radiance: Tensor
    exposures: Tensor
    noise: Tensor
    codes: Tensor | None = None
    windows: Windows | None = None
    results: Tensor | None = None

    def to(self, device: torch.device) -> Takes:
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return Takes(*(value if value is None else value.to(device) for value in values))  # type: ignore[arg-type]

    def photographed(self, random: torch.Generator) -> Tensor:
        """Return the codes."""
        if self.codes is not None:
            return self.codes
        return photographed(self.radiance, self.exposures, self.noise, random)

    def followed(self, generator: torch.Generator, count: int, windows: int, size: int) -> Takes:
        """Return it with ``windows`` of ``count`` exposures, of its middle, ``size`` [px] wide and high."""
        codes = photographed(self.radiance, self.exposures, self.noise, generator)
        still = [np.eye(3)] * (2 * count - 1)
        seen = Windows.of(codes, self.exposures.tolist(), count, windows, still)
        radiance, codes = middle_of(self.radiance, size), middle_of(codes, size)
        return Takes(radiance, self.exposures, self.noise, codes, seen.cut(size))

    def turned(self, rng: np.random.Generator) -> Takes:
        """Return pictures turned by a random multiple of 90 degrees, and mirrored or not; without windows."""
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

        def turn(planes: Tensor | None) -> Tensor | None:
            if planes is None:
                return None
            found = torch.rot90(planes, turns, (-2, -1))
            return (found.flip(-1) if mirrored else found).contiguous()

        pictures = {name: turn(getattr(self, name)) for name in ("radiance", "codes", "results")}
        return replace(self, windows=None, **pictures)  # type: ignore[arg-type]

    @classmethod
    def of(cls, samples: Sequence[Filmed], noise: Sequence[float]) -> Takes:
        """Stack samples; frames exposed longest are without ``noise``."""
        exposures = torch.tensor([sample.exposures for sample in samples], dtype=torch.float32)
        dark = exposures < exposures.amax(1, keepdim=True) / 1.01
        return cls(
            torch.from_numpy(np.stack([sample.radiance for sample in samples])),
            exposures,
            torch.tensor(noise, dtype=torch.float32)[:, None] * dark,
        )


class VideoLesson(Lesson[ClipSource, Takes, Filmed]):
    """What the three have in common: patches of clips, and the rows they are judged by."""

    recipe: VideoRecipe
    regions = ("whole", "low", "middle", "high")
    outputs = ("radiance",)
    axes: ClassVar[Axes]

    def __init__(
        self, recipe: VideoRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.random = torch.Generator(self.device).manual_seed(recipe.seed)
        self._by_flow: dict[Filmed, Float] = {}
        self._windows: dict[Filmed, Windows] = {}

    @property
    def followed(self) -> bool:
        """Whether the coarse network takes frames that are followed."""
        return bool(self.recipe.config.get("followed"))

    @property
    def windows(self) -> int:
        """How many coarse results are made of a sample."""
        return 1

    @property
    def frames(self) -> int:
        """How many are shown, the reference in the middle."""
        raise NotImplementedError

    def batches(self, source: ClipSource, rng: np.random.Generator) -> Generator[Takes, None, None]:
        if source.count != self.recipe.exposures:
            raise NetworkError(
                f"clips have {source.count} exposures, this network is for {self.recipe.exposures}; "
                'state them alike, {"exposures": N} in its configuration'
            )
        self.random.manual_seed(int(rng.integers(2**31)))

        count, size = self.recipe.exposures, self.recipe.size

        def draw(own: np.random.Generator) -> Takes:
            seen = size + 2 * BORDER * self.followed
            samples = [source.draw(own, self.frames, seen) for _ in range(self.recipe.batch)]
            takes = Takes.of(samples, [self.draw_noise(own) for _ in samples])
            if not self.followed:
                return takes
            generator = torch.Generator().manual_seed(int(own.integers(2**31)))
            return takes.followed(generator, count, self.windows, size)

        for batch in read_ahead(draw, rng, 1 if self.device.type == "cpu" else READERS):
            yield batch.to(self.device)

    def draw_noise(self, rng: np.random.Generator) -> float:
        """Draw the noise of a sample's darker frames."""
        return float(rng.uniform(*NOISE))

    def data_in(self, source: ClipSource) -> str:
        return source.describe()

    def _learn(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], STEEPEST)
        optimizer.step()
        return float(loss.detach())

    # --- to be judged -----------------------------------------------------------------------------

    def results(
        self, mean: nn.Module, codes: Tensor, exposures: Tensor, windows: Windows | None
    ) -> dict[str, Tensor]:
        """Return what networks make of codes (1, N, 3, H, W), by row: radiance (1, 3, H, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def rows_of(self, mean: nn.Module, sample: Filmed) -> dict[str, Tensor]:
        """Return what each method makes of a sample, and the ``truth``: radiance (1, 3, H, W) in [0, 1]."""
        device = next(mean.parameters()).device
        takes = Takes.of([sample], [SCORED_NOISE])
        codes = photographed(takes.radiance, takes.exposures, takes.noise, torch.Generator().manual_seed(0))
        middle = codes.shape[1] // 2
        if sample not in self._by_flow:
            self._by_flow[sample] = by_flow(codes[0], sample.exposures, self.recipe.exposures)
        if self.followed and sample not in self._windows:
            count = self.recipe.exposures
            self._windows[sample] = Windows.of(codes, [sample.exposures], count, self.windows)
        windows = self._windows[sample].to(device) if self.followed else None
        own = codes[:, middle] ** 2.2 / sample.exposures[middle]
        flow = torch.from_numpy(np.moveaxis(self._by_flow[sample], -1, 0)[None])
        with mixed(device):
            found = self.results(mean, codes.to(device), takes.exposures.to(device), windows)
        rows = {"reference": own, "flow": flow, **found, "truth": takes.radiance[:, middle]}
        return {name: radiance.float().cpu().clamp(0, 1) for name, radiance in rows.items()}

    def validate(self, mean: nn.Module, held_out: Sequence[Filmed]) -> Scores:
        """Return the PSNR of mu-law values by the exposure of the reference, and their mean."""
        found: dict[str, dict[str, list[float]]] = {
            row: {region: [] for region in self.regions} for row in self.rows
        }
        for sample in held_out:
            results = {name: compress(values) for name, values in self.rows_of(mean, sample).items()}
            region = region_of(sample.exposures)
            for row in self.rows:
                square = float((results[row] - results["truth"]).square().mean())
                found[row][region].append(-10 * float(np.log10(max(square, 1e-10))))
        scores: Scores = {}
        for row, regions in found.items():
            means = {region: finite_mean(values) for region, values in regions.items() if region != "whole"}
            scores[row] = {"whole": finite_mean(list(means.values())), **means}
        return scores

    def pictures(self, mean: nn.Module, sample: Filmed) -> dict[str, Tensor]:
        rows = self.rows_of(mean, sample)
        return {name: compress(rows[name]) for name in self.shown}

    @property
    def bytes_per_pixel(self) -> int:
        least, per_width = BYTES[self.recipe.architecture, bool(self.recipe.config.get("followed"))]
        return least + per_width * int(self.recipe.config.get("width", 64))


# --- the coarse network ---------------------------------------------------------------------------


class CoarseLesson(VideoLesson):
    """Absolute errors of mu-law values, or decibels; in bfloat16 where that is safe."""

    recipe: CoarseRecipe
    asks = "order"
    rows = ("reference", "flow", "coarse")
    own = "coarse"
    rivals = ("flow", "reference")
    shown = ("reference", "flow", "coarse", "truth")
    axes: ClassVar[Axes] = {
        "frames": {0: "B", 2: "H", 3: "W"},
        "between": {0: "B", 2: "H", 3: "W"},
        "shares": {0: "B", 2: "H", 3: "W"},
        "flows": {0: "B", 2: "H", 3: "W"},
        "exposures": {0: "B", 2: "h", 3: "w"},
        "radiance": {0: "B", 2: "H", 3: "W"},
    }

    def __init__(
        self, recipe: CoarseRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=recipe.rate)
        self.optimizers["optimizer"] = self.optimizer

    @property
    def frames(self) -> int:
        return 2 * self.recipe.exposures - 1

    def draw_noise(self, rng: np.random.Generator) -> float:
        return NOISE[1] if rng.random() < NOISY else 0.0

    def step(self, batch: Takes, progress: float) -> float:
        codes, seen = batch.photographed(self.random), batch.windows
        middle = codes.shape[1] // 2
        clean = codes[:, middle]
        first, *beside = (codes,) if seen is None else (planes[:, 0] for planes in seen.shown())
        frames = first.clone()
        frames[:, middle] = self._in_other_tones(clean)
        with mixed(self.device):
            found = self.network(frames, *beside, batch.exposures, clean).float()
        truth = batch.radiance[:, middle]
        loss = error(found, truth) if seen is None else decibels(found, truth)
        return self._learn(loss, self.optimizer)

    def _in_other_tones(self, codes: Tensor) -> Tensor:
        """Return codes (B, 3, H, W), each channel to a power of its own."""
        drawn = torch.rand(*codes.shape[:2], 1, 1, generator=self.random, device=codes.device)
        return codes ** torch.exp((2 * drawn - 1) * self.recipe.tones)

    def results(
        self, mean: nn.Module, codes: Tensor, exposures: Tensor, windows: Windows | None
    ) -> dict[str, Tensor]:
        if windows is None:
            return {"coarse": mean(codes, exposures)}
        return {"coarse": mean(*(planes[:, 0] for planes in windows.shown()), exposures)}

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        given = _example(self.frames, size, self.recipe.exposures)
        if not self.followed:
            return given
        generator = torch.Generator().manual_seed(2)
        between = torch.rand(1, 3 * (self.frames - 1), size, size, generator=generator)
        shares = torch.rand(1, 3 * self.frames, size, size, generator=generator)
        flows = torch.randn(1, 2 * (self.frames - 1), size, size, generator=generator)
        beside = {"between": between, "shares": shares / self.frames, "flows": flows}
        return {"frames": given["frames"], **beside, "exposures": given["exposures"]}


# --- the refining network -------------------------------------------------------------------------


class RefineLesson(VideoLesson):
    """Absolute errors of mu-law values over the share that is painted, or decibels; and likeness."""

    recipe: RefineRecipe
    asks = "extract"
    rows = ("reference", "flow", "coarse", "refined")
    own = "refined"
    rivals = ("coarse", "flow", "reference")
    shown = ("reference", "flow", "coarse", "refined", "truth")
    axes: ClassVar[Axes] = {
        "coarse": {0: "B", 2: "H", 3: "W"},
        "frames": {0: "B", 2: "H", 3: "W"},
        "exposures": {0: "B", 2: "h", 3: "w"},
        "radiance": {0: "B", 2: "H", 3: "W"},
    }

    def __init__(
        self, recipe: RefineRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.coarse = self._given()
        self.likeness = perceptual(recipe.vgg).to(self.device) if recipe.perceptual else None
        self.optimizer = torch.optim.Adam(self.learned(), lr=recipe.rate)
        self.optimizers["optimizer"] = self.optimizer

    def _given(self) -> CoarseNet:
        """Build the coarse network that the recipe names, which does not learn."""
        if self.recipe.coarse is None:
            raise NetworkError("refine learns from what a coarse network makes; name its file with --coarse")
        architecture, config, weights = self.recipe.coarse
        if architecture != "coarse" or int(config.get("exposures", 2)) != self.recipe.exposures:
            raise NetworkError(
                f"--coarse: holds {architecture!r} for {config.get('exposures', 2)} exposures; name a "
                f"network 'coarse' for {self.recipe.exposures}"
            )
        network = build(architecture, config)
        fill(network, weights, "--coarse")
        return cast(CoarseNet, placed(network.eval().requires_grad_(False), self.device))

    def learned(self) -> list[nn.Parameter]:
        """Return what the optimizer moves."""
        return list(self.network.parameters())

    @property
    def followed(self) -> bool:
        return bool(self.recipe.coarse and self.recipe.coarse[1].get("followed"))

    @property
    def by_decibels(self) -> bool:
        """Whether it begins near the truth."""
        return bool(self.recipe.config.get("followed"))

    @property
    def windows(self) -> int:
        return 3

    @property
    def frames(self) -> int:
        return 2 * self.recipe.exposures + 1

    def batches(self, source: ClipSource, rng: np.random.Generator) -> Generator[Takes, None, None]:
        """Yield batches, each `REPEATS` times, turned, among others: making results takes longest."""
        kept: deque[Takes] = deque(maxlen=KEPT)
        with closing(super().batches(source, rng)) as fresh:
            for batch in fresh:
                kept.append(self.made(batch))
                yield kept[-1]
                for _ in range(REPEATS - 1):
                    yield kept[int(rng.integers(len(kept)))].turned(rng)

    def made(self, batch: Takes) -> Takes:
        """Return the three frames in the middle of a batch, with what the coarse network makes of them."""
        codes = batch.photographed(self.random)
        with mixed(self.device):
            results = self.coarse_of(self.coarse, codes, batch.exposures, batch.windows)
        at = middle_three(codes)
        results, frames = self._followed(results, codes[:, at])
        planes = batch.radiance[:, at], batch.exposures[:, at], batch.noise[:, at]
        return Takes(*planes, codes=frames, results=results.float())

    def step(self, batch: Takes, progress: float) -> float:
        return self._learn(self.loss(batch), self.optimizer)

    def loss(self, batch: Takes) -> Tensor:
        seen = batch if batch.results is not None else self.made(batch)
        assert seen.results is not None
        assert seen.codes is not None
        with mixed(self.device):
            found = cast(RefineNet, self.network)(seen.results, seen.codes, seen.exposures).float()
        truth = seen.radiance[:, 1].float()
        if self.by_decibels:
            loss = decibels(found, truth)
        else:
            mask = well_exposed(seen.codes[:, 1], seen.exposures, 1)
            loss = error(found, truth) / (1 - mask).mean().clamp(min=LEAST_PAINTED)
        if self.likeness is not None:
            with mixed(self.device):
                pair = (compress(radiance.clamp(0, 1)) for radiance in (found, truth))
                loss = loss + self.recipe.perceptual * self.likeness(*pair)
        return loss

    @staticmethod
    def coarse_of(
        network: nn.Module, codes: Tensor, exposures: Tensor, windows: Windows | None = None
    ) -> Tensor:
        """Return the coarse results (B, 3, 3, H, W) of the three frames in the middle of (B, N, 3, H, W)."""
        width = codes.shape[1] - 2
        times = torch.cat([exposures[:, first : first + width] for first in range(3)])
        if windows is None:
            found: Tensor = network(torch.cat([codes[:, first : first + width] for first in range(3)]), times)
        else:
            found = network(*(planes.transpose(0, 1).flatten(0, 1) for planes in windows.shown()), times)
        return torch.stack(found.chunk(3), 1)

    def _followed(self, results: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return results and frames (B, 3, 3, H, W) as the network takes them."""
        return followed_results(results, frames) if self.recipe.config.get("followed") else (results, frames)

    def results(
        self, mean: nn.Module, codes: Tensor, exposures: Tensor, windows: Windows | None
    ) -> dict[str, Tensor]:
        at = middle_three(codes)
        coarse = self.coarse_of(self._judged(), codes, exposures, windows)
        refined = mean(*self._followed(coarse, codes[:, at]), exposures[:, at])
        return {"coarse": coarse[:, 1], "refined": refined}

    def _judged(self) -> nn.Module:
        """Return the coarse network that scores are taken with."""
        return self.coarse

    def example_inputs(self, size: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(1, 9, size, size, generator=generator)
        return {"coarse": coarse, **_example(3, size, self.recipe.exposures)}


# --- both -----------------------------------------------------------------------------------------


class JointLesson(RefineLesson):
    """The loss of `RefineLesson`, and that of `CoarseLesson` for each of the three coarse frames.

    ``network`` is the refining one; the coarse one learns beside it, and `coarse_lesson` has what it became.
    Its normalisation stays as it was: statistics of small batches would be others than those it is used with.
    """

    recipe: JointRecipe

    def __init__(
        self, recipe: JointRecipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(recipe, device, init)
        self.coarse_mean = copy.deepcopy(self.coarse)
        self.networks |= {"coarse": self.coarse, "coarse_mean": self.coarse_mean}

    def batches(self, source: ClipSource, rng: np.random.Generator) -> Generator[Takes, None, None]:
        """Yield batches, each once: what the coarse network makes of them changes."""
        return VideoLesson.batches(self, source, rng)

    def _given(self) -> CoarseNet:
        return super()._given().requires_grad_(True)

    def learned(self) -> list[nn.Parameter]:
        return [*self.network.parameters(), *self.coarse.parameters()]

    def loss(self, batch: Takes) -> Tensor:
        kept: list[Tensor] = []
        hook = self.coarse.register_forward_hook(lambda *call: kept.append(call[2]))
        try:
            loss = super().loss(batch)
        finally:
            hook.remove()
        middle = batch.radiance.shape[1] // 2
        three = batch.radiance[:, middle - 1 : middle + 2].transpose(0, 1).flatten(0, 1)
        found = kept[0].float()
        return loss + (decibels(found, three) if self.by_decibels else 3 * error(found, three))

    @torch.no_grad()
    def follow(self, share: float) -> None:
        super().follow(share)
        acting = self.coarse.state_dict()
        for name, kept in self.coarse_mean.state_dict().items():
            if kept.is_floating_point():
                kept.lerp_(acting[name], 1 - share)

    def _judged(self) -> nn.Module:
        return self.coarse_mean

    def coarse_lesson(self) -> CoarseLesson:
        """Return a lesson whose mean network is the coarse one as it is by now, to be written to a file."""
        assert self.recipe.coarse is not None
        recipe = CoarseRecipe(config=dict(self.recipe.coarse[1]), budget=self.recipe.budget)
        return CoarseLesson(recipe, str(self.device), self.coarse_mean.state_dict())


# --- errors and rows ------------------------------------------------------------------------------


def error(found: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error of mu-law values; above what is known, more is not wrong."""
    true = truth.float().clamp(0, 1)
    wrong = compress(found.clamp(min=0)) - compress(true)
    return torch.where(true >= KNOWN, wrong.clamp(max=0), wrong).abs().mean()


def decibels(found: Tensor, truth: Tensor) -> Tensor:
    """Return the mean over patches of what `losses.log_error` says of their mu-law values."""
    true = truth.float().clamp(0, 1)
    whole = torch.ones_like(true[:, :1])
    return log_error(compress(found.clamp(min=0)), compress(true), whole, true.new_ones(len(true)))


def middle_three(frames: Tensor) -> slice:
    """Return where of frames (B, N, ...) the three in the middle are."""
    first = frames.shape[1] // 2 - 1
    return slice(first, first + 3)


def followed_results(results: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return results and frames (B, 3, 3, H, W) of three times, followed to the middle one.

    As `followed.follow_results`, of frames in line. What made the results does not learn from it.
    """
    found = []
    for sample in zip(results.detach().float().cpu().numpy(), frames.float().cpu().numpy(), strict=True):
        pictures = ([np.ascontiguousarray(np.moveaxis(one, 0, -1)) for one in three] for three in sample)
        found.append([np.moveaxis(np.stack(three), -1, 1) for three in follow_results(*pictures)])
    coarse, codes = (torch.from_numpy(np.stack(some)).to(results.device) for some in zip(*found, strict=True))
    return torch.stack([coarse[:, 0], results[:, 1].float(), coarse[:, 2]], 1), codes


def region_of(exposures: Sequence[float]) -> str:
    """Return the name of the exposure of the middle frame.

    >>> [region_of(times) for times in ((4, 1, 4), (1, 4, 16), (1, 4, 1))]
    ['low', 'middle', 'high']
    """
    own = exposures[len(exposures) // 2]
    if own <= min(exposures):
        return "low"
    return "high" if own >= max(exposures) else "middle"


def by_flow(codes: Tensor, exposures: Sequence[float], count: int) -> Float:
    """Return what `merge_by_flow` makes of the 2 N - 1 frames in the middle of codes (n, 3, H, W)."""
    middle = len(codes) // 2
    at = slice(middle - count + 1, middle + count)
    frames = [np.ascontiguousarray(np.moveaxis(frame, 0, -1)) for frame in codes[at].numpy()]
    return merge_by_flow(frames, exposures[at])


def _example(frames: int, size: int, exposures: int) -> dict[str, Tensor]:
    """Return frames and exposures as planes, as an engine passes them."""
    generator = torch.Generator().manual_seed(0)
    planes = torch.rand(1, 3 * frames, size, size, generator=generator)
    times = torch.tensor([4.0 ** (frame % exposures) for frame in range(frames)])
    return {"frames": planes, "exposures": times.reshape(1, frames, 1, 1)}
