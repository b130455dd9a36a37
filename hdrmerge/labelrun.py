"""A training on brackets without a truth: from folders to a weights file.

paths -> brackets -> labels -> pairs, or brackets photographed again -> lesson -> weights file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .console import count, say
from .errors import InputError, NetworkError
from .options import response_of
from .trainingbar import show_making
from .trainingrun import Run, give, make_all, processors, weights_in

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .folder import Plan
    from .training.label_sets import LabelSet
    from .training.lesson import Recipe
    from .training.pairs import Pair, Subset

DEFAULT_WIDTH = 64  # the paper's
HELD_OUT = 12  # pairs of each subset to take scores on
RETAKEN_ASIDE = 24  # brackets photographed again, to take scores on
FINE_RATE = 3e-4  # of a network that goes on from what it is
STAY = 0.5  # how far its weights are moved back to where they began, so that it forgets little
REASONS = 12  # brackets that are named one by one


@dataclass(frozen=True)
class LabelRun(Run):
    """What is asked for where labels are made from a user's brackets."""

    paths: list[Path]
    labels: Path | None
    as_captured: bool
    quantile: float
    agreement: float
    recursive: bool
    gap: float | None
    per_set: int | None
    response: str
    rate: float | None
    batch: int
    brackets: int
    workers: int | None

    @property
    def home(self) -> Path:
        """Where labels are kept."""
        return self.labels or self.resumed.parent / "labels"

    def paint(
        self, architecture: str, width: int | None, residual: bool | None, subsets: tuple[Subset, ...]
    ) -> None:
        """Teach a network that paints."""
        from .training.self_supervised import SelfSupervisedLesson, SelfSupervisedRecipe

        def prepare(common: dict[str, Any]) -> Recipe:
            found, config = self.design() or (architecture, {"width": DEFAULT_WIDTH, "residual": True})
            if found != architecture:
                raise NetworkError(f"{self.init or self.resumed}: holds a {found}, not a {architecture}")
            stated = {"width": width, "residual": residual}
            config |= {name: value for name, value in stated.items() if value is not None}
            common |= {"batch": self.batch} | ({} if self.rate is None else {"rate": self.rate})
            return SelfSupervisedRecipe(architecture, config, subsets=subsets, **common)

        lesson = self.begin(SelfSupervisedLesson, prepare)
        learned, aside = self.labelled()
        give(self, lesson, learned, held_out_of(aside))

    def judge(self) -> None:
        """Teach `trust`, from where it is, on new photographs of what the brackets show."""
        from .training.retake import Retake
        from .training.trust import TrustLesson, TrustRecipe
        from .weights import find

        def prepare(common: dict[str, Any]) -> Recipe:
            found, config = run.design() or ("trust", {})
            common |= {"rate": self.rate or FINE_RATE, "batch": self.batch, "stay": STAY}
            return TrustRecipe(found, config, **common)

        start = self.init or find("trust")
        run = replace(self, init=start)
        lesson = run.begin(TrustLesson, prepare)
        learned, aside = self.labelled()
        folders = self.home / "train", self.home / "held_out"
        jobs = [
            Retake(of.folder, folder, bool(whole), self.seed, names=tuple(of.brackets))
            for whole, (of, folder) in enumerate(zip((learned, aside), folders, strict=True))
            if of.brackets
        ]
        if self.steps != 0:
            make_all(jobs, (self.brackets, RETAKEN_ASIDE), self.workers or processors(), self.quiet)
        aside_files = sorted(folders[1].glob("*.npy"))[:RETAKEN_ASIDE]
        give(run, lesson, folders[0], aside_files, partial(back_to, weights_in(start)))

    # --- labels -----------------------------------------------------------------------------------

    def labelled(self) -> tuple[LabelSet, LabelSet]:
        """Make the labels that are missing; return those to learn from, and those to take scores on."""
        from .folder import plan
        from .pipeline import MergeOptions
        from .training.label_sets import WHAT_TO_SHOOT, LabelOptions, make_labels, set_aside
        from .training.pseudo_labels import Rules

        found = plan(self.paths, self.recursive, self.gap, self.per_set)
        files = [[shot.path for shot in one.shots] for one in found.grouping.sets]
        if not self.quiet:
            describe_rest(found)
        if not files:
            raise InputError(f"{self.paths[0]}: no brackets there; {WHAT_TO_SHOOT}")
        options = LabelOptions(
            Rules(quantile=self.quantile, agreement=self.agreement),
            aligned=not self.as_captured,
            seed=self.seed,
            merge=MergeOptions(response=response_of(self.response)),
        )
        with show_making("brackets labelled", not self.quiet) as tell:
            made = make_labels(files, self.home, options, lambda done, total, reason: tell(done, total))
        learned, aside = set_aside(made)
        if not self.quiet:
            describe(made, aside)
        return learned, aside


def back_to(start: Mapping[str, Tensor], network: nn.Module) -> None:
    """Move the weights of a network `STAY` of the way back to those it started from.

    Wortsman et al. 2022, "Robust fine-tuning of zero-shot models": between the two lie networks that are good
    at what either of them is good at.
    """
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(start[name].to(value), STAY)


def describe(labels: LabelSet, aside: LabelSet) -> None:
    """Say on stderr what labels there are, which brackets give nothing, and draw a sheet of each subset."""
    for subset, patches, what in labels.table():
        say(f"{subset:4} {patches:7,} patches  {what}")
    reasons = [f"{path}: nothing to learn from: {reason}" for path, reason in labels.reasons().items()]
    say_some(reasons, f"the .json files of {labels.folder} say why")
    sheets = draw_sheets(labels)
    say(f"pictures: {', '.join(str(path) for path in sheets)}")
    if aside.brackets:
        say(f"set aside to take scores on: {count(len(aside.brackets), 'bracket')}")


def describe_rest(found: Plan) -> None:
    """Say on stderr which photographs cannot be read, and how many are in no bracket."""
    say_some([f"{one.path}: {one.reason}" for one in found.unreadable], "hdrmerge inspect names them")
    if number := len(found.grouping.left_out):
        are = "is" if number == 1 else "are"
        say(f"{count(number, 'photograph')} {are} in no bracket; hdrmerge inspect says why")


def say_some(lines: Sequence[str], rest: str) -> None:
    """Say the first lines one by one, and where the rest of them is."""
    for line in lines[:REASONS]:
        say(line)
    if len(lines) > REASONS:
        say(f"and {len(lines) - REASONS} more; {rest}")


def draw_sheets(labels: LabelSet) -> list[Path]:
    """Draw examples of each subset, as the paper's figures 6 to 9, and return the pictures."""
    import numpy as np

    from .training.pairs import SUBSETS, draw_sheet

    drawn = []
    for subset in SUBSETS:
        if pairs := labels.examples(subset, np.random.default_rng(0)):
            drawn.append(labels.folder / f"{subset}.png")
            draw_sheet(pairs, drawn[-1])
    return drawn


def held_out_of(labels: LabelSet) -> list[Pair]:
    """Draw pairs to take scores on, the same every time."""
    import numpy as np

    from .training.pairs import SUBSETS

    rng, counts = np.random.default_rng(0), labels.counts()
    return [labels.draw(rng, (subset,)) for _ in range(HELD_OUT) for subset in SUBSETS if counts[subset]]


def subsets_of(text: str | None, as_captured: bool) -> tuple[Subset, ...]:
    """Return what ``--subsets`` names: if nothing all, but where frames are aligned those without far motion.

    There whole patches do not move: with them a network learns to distrust what is right (measured by
    benchmarks/self_supervised.py).
    """
    from .training.pairs import SUBSETS

    if text is None:
        return SUBSETS if as_captured else ("ED", "MD")
    wanted = [part.strip().upper() for part in text.split(",")]
    chosen = tuple(subset for subset in SUBSETS if subset in wanted)
    if not chosen or set(wanted) - set(SUBSETS):
        raise typer.BadParameter(f"{text!r} is no list of {', '.join(SUBSETS)}", param_hint="--subsets")
    return chosen
