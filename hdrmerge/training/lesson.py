"""What one network learns: with which networks and optimizers, by which step, how judged and written.

The loop (`train.py`) keeps the clock and the checkpoints; the picture (`plot.py`) and the weights file
(`release.py`) ask here for what differs between networks. One file of this folder a lesson.

`Lesson` is the base of all of them, `ExampleLesson` that of those that learn from `Example` files.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import NetworkError
from ..networks import build
from .batches import OTHERS, Batch, Resident, read_batches
from .examples import Example
from .losses import in_peak
from .make import data_in
from .validate import REGIONS, Scores, tensors_of, validate

Axes = Mapping[str, Mapping[int, str]]
"""Input or output -> axis -> name, of the axes that may have any length."""

Source = TypeVar("Source")  # what is learned from: a folder of examples, a set of labels
Lot = TypeVar("Lot")  # one batch of it, on the device
Sample = TypeVar("Sample")  # one of those that scores are taken on


@dataclass(frozen=True)
class Recipe(ABC):
    """How a network is trained; what is not said on the command line is decided here."""

    architecture: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    budget: float = 3600.0  # [s] of training, over all runs that share a checkpoint
    rate: float = 1e-3
    batch: int = 16
    size: int = 128  # [px] of a patch
    average: float = 0.998  # of the exponential mean of the weights
    validate_every: float = 300.0  # [s]
    seed: int = 1

    @abstractmethod
    def describe(self) -> str:
        """Return the recipe in one line, for the card of a weights file."""

    def rate_at(self, progress: float) -> float:
        """Return the learning rate at a share of the budget: linear warm-up, then a cosine to zero."""
        warm = 1 / 40
        if progress < warm:
            return self.rate * (0.02 + 0.98 * progress / warm)
        return self.rate * (0.5 + 0.5 * math.cos(math.pi * min(1.0, (progress - warm) / (1 - warm)))) + 1e-7


class Lesson(ABC, Generic[Source, Lot, Sample]):
    """The base of all lessons: ``networks`` and ``optimizers`` by name, as a checkpoint holds them.

    ``network`` is the one that is wanted, ``mean`` the plain copy that follows it and is kept. Scores have
    a row for each of ``rows`` and a column for each of ``regions``; ``own`` is the row of the network, told
    beside those of ``rivals``, the first of which it is measured by; all are ``measure`` [dB]. ``shown`` are
    the columns of the picture.
    """

    asks: ClassVar[str]  # the method by which an architecture shows that it is of this kind
    rows: ClassVar[tuple[str, ...]]
    regions: ClassVar[tuple[str, ...]] = REGIONS
    measure: ClassVar[str] = "PSNR-mu"
    own: ClassVar[str]
    rivals: ClassVar[tuple[str, ...]]
    shown: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    axes: ClassVar[Axes]

    def __init__(self, recipe: Recipe, device: str = "cpu", init: Mapping[str, Tensor] | None = None) -> None:
        """Build the networks; that which is wanted starts from the weights ``init``, where given."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.device = recipe, torch.device(device)
        network = built(recipe, self.asks)
        if init is not None:
            fill(network, init, "the weights to start from")
        self.network = placed(network, self.device)
        self.mean = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.networks: dict[str, nn.Module] = {"network": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    # --- to learn ---------------------------------------------------------------------------------

    @abstractmethod
    def batches(self, source: Source, rng: np.random.Generator) -> Generator[Lot, None, None]:
        """Yield batches for ever, on the device."""

    @abstractmethod
    def data_in(self, source: Source) -> str:
        """Return what is learned from, in a few words, for the card of a weights file."""

    @abstractmethod
    def step(self, batch: Lot, progress: float) -> float:
        """Learn from a batch and return the loss; ``progress`` is the share of the budget that is spent."""

    @torch.no_grad()
    def follow(self, share: float) -> None:
        """Move the mean network towards the trained one; ``share`` is what it keeps of itself.

        What counts are the weights that act: those of a parametrised layer, not what they are made from.
        The statistics of a batch normalisation are followed, too.
        """
        training = self.network.training
        self.network.eval()  # so that reading a normalised weight does not move its estimate
        for name, kept in (*self.mean.named_parameters(), *self.mean.named_buffers()):
            owner, _, leaf = name.rpartition(".")
            acting = getattr(self.network.get_submodule(owner), leaf)
            if kept.is_floating_point():
                kept.lerp_(acting, 1 - share)
            else:  # how many batches a normalisation has seen
                kept.copy_(acting)
        self.network.train(training)

    # --- to be judged -----------------------------------------------------------------------------

    @abstractmethod
    def validate(self, mean: nn.Module, held_out: Sequence[Sample]) -> Scores:
        """Return the scores of all methods on what is held out."""

    @abstractmethod
    def pictures(self, mean: nn.Module, sample: Sample) -> dict[str, Tensor]:
        """Return the columns ``shown`` of one sample, codes (1, 3, H, W) of which 1 is its brightest."""

    # --- to be written ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def bytes_per_pixel(self) -> int:
        """What inference takes of memory, per pixel of a window (and frame beside the reference)."""

    @abstractmethod
    def example_inputs(self, size: int) -> dict[str, Tensor]:
        """Return inputs of the network by name, ``size`` pixels wide and high."""


AnyLesson = Lesson[Any, Any, Any]


class ExampleLesson(Lesson[Path, Batch, Path]):
    """The base of lessons that learn from a folder of `Example` files, and are judged on others.

    ``others`` are numbers of frames beside the reference that batches have, equally likely.
    """

    others: ClassVar[tuple[int, ...]] = OTHERS

    def batches(self, source: Path, rng: np.random.Generator) -> Generator[Batch, None, None]:
        """Yield batches for ever, from the memory of the device where they fit in, else from the disk."""
        batch, size, others = self.recipe.batch, self.recipe.size, self.others
        if Resident.fits(source, self.device):
            yield from Resident(source, self.device).batches(rng, batch, size, others)
        else:
            with closing(read_batches(source, rng, batch, size, others=others)) as batches:
                for read in batches:
                    yield read.to(self.device)

    def data_in(self, source: Path) -> str:
        return data_in(source)

    @abstractmethod
    def results(self, mean: nn.Module, reference: Tensor, frames: Tensor) -> dict[str, Tensor]:
        """Return what each method of ``rows`` makes of an example, mu-law codes (1, 3, H, W).

        ``reference`` (1, 7, H, W) and ``frames`` (1, K, 10, H, W) are the planes of `entrust.Evidence`;
        codes are relative to the white of the reference.
        """

    def validate(self, mean: nn.Module, held_out: Sequence[Path]) -> Scores:
        device = next(mean.parameters()).device
        return validate(partial(self.results, mean), self.rows, held_out, device)

    @torch.no_grad()
    def pictures(self, mean: nn.Module, sample: Path) -> dict[str, Tensor]:
        device = next(mean.parameters()).device
        reference, frames, truth, _, peak = tensors_of(Example.load(sample), device)
        codes = {**self.results(mean, reference, frames), "truth": truth}
        return {name: in_peak(codes[name], peak) for name in self.shown}


def built(recipe: Recipe, asks: str) -> nn.Module:
    """Build the network of a recipe; raise NetworkError where it is of another kind than its lesson."""
    network = build(recipe.architecture, recipe.config)
    if not hasattr(network, asks):
        raise NetworkError(
            f"{recipe.architecture!r} is learned in another way; hdrmerge train --help lists the commands"
        )
    return network


def placed(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, its weights laid out as convolutions are fastest."""
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load weights into a network; raise NetworkError where they are another one's."""
    try:
        lacking, _ = network.load_state_dict(state, strict=False)
        counters = [name for name in lacking if name.endswith("num_batches_tracked")]  # no file holds them
        network.load_state_dict({**network.state_dict(), **state} if lacking == counters else state)
    except RuntimeError as error:
        raise NetworkError(
            f"{source}: holds a network of another architecture or other widths; "
            "state the options it was begun with, or name another file"
        ) from error
