"""A training as the command line asks for it: checked before the work, begun or taken up again, written.

options -> `Run` -> recipe -> lesson -> `give` -> weights file
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from .console import count, say
from .errors import NetworkError
from .options import check_targets, device_of
from .trainingbar import show_making, show_training

if TYPE_CHECKING:
    from torch import nn

    from .training.lesson import Lesson, Recipe
    from .training.make import Job, Made
    from .training.train import State
    from .training.validate import Scores

NEEDED = ("torch", "safetensors", "onnx")
INSTALL = 'pip install "hdrmerge[train]"'
SCORED = 40  # of what is held out while training goes on; all of it at the end

Source = TypeVar("Source")
Lot = TypeVar("Lot")
Sample = TypeVar("Sample")
Options = TypeVar("Options", bound="Run")


@dataclass(frozen=True)
class Run:
    """What the options that all commands share ask for; fields have their names."""

    output: Path
    budget: str
    init: Path | None
    checkpoint: Path | None
    device: str
    steps: int | None
    seed: int
    data: str
    plot: Path | None
    force: bool
    quiet: bool

    @classmethod
    def of(cls: type[Options], options: Mapping[str, Any]) -> Options:
        """Pick them from the options of a command."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

    @property
    def resumed(self) -> Path:
        """The checkpoint."""
        return self.checkpoint or self.output.with_suffix(".safetensors")

    @property
    def picture(self) -> Path:
        return self.plot or self.resumed.with_suffix(".png")

    def check(self) -> None:
        """Raise where this cannot be done, before the work."""
        seconds_of(self.budget)
        if self.output.suffix.lower() != ".onnx":
            raise typer.BadParameter(f"{self.output}: a weights file ends in .onnx", param_hint="-o")
        device_of(self.device)
        if self.picture.suffix.lower() != ".png":
            raise typer.BadParameter(f"{self.picture}: the picture is a .png", param_hint="--plot")
        _check_installed()
        check_targets([self.output], [self.init] if self.init else [], self.force)
        if self.steps == 0 and not self.resumed.exists():
            raise NetworkError(f"{self.resumed}: no checkpoint there to write; name one with --checkpoint")

    def design(self) -> tuple[str, dict[str, Any]] | None:
        """Return architecture and configuration, as the checkpoint says or ``--init`` does, else None."""
        if self.resumed.exists():
            from .training.train import design_in

            return design_in(self.resumed)
        if self.init is not None:
            from .weights import find, read_card

            card = read_card(find(str(self.init)))
            return card["architecture"], card["config"]
        return None

    def begin(
        self,
        lesson_of: Callable[..., Lesson[Source, Lot, Sample]],
        prepare: Callable[[dict[str, Any]], Recipe],
    ) -> Lesson[Source, Lot, Sample]:
        """Return the lesson; ``prepare`` completes the recipe."""
        seconds = seconds_of(self.budget)
        recipe = prepare({"budget": seconds, "seed": self.seed, "validate_every": max(300.0, seconds / 24)})
        start = weights_in(self.init) if self.init and not self.resumed.exists() else None
        return lesson_of(recipe, _resolved(device_of(self.device)), start)


@dataclass(frozen=True)
class SceneRun(Run):
    """What is asked for where examples are made from HDR scenes."""

    scenes: Path
    examples: Path | None
    brackets: int
    held_out: int
    workers: int | None

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the examples to train on are, and those held out."""
        examples = self.examples or self.resumed.parent / "examples"
        return examples / "train", examples / "held_out"

    def carry_out(
        self,
        lesson_of: Callable[..., Lesson[Path, Any, Path]],
        prepare: Callable[[dict[str, Any]], Recipe],
    ) -> None:
        """Make the examples, give the lesson, and write the network."""
        lesson = self.begin(lesson_of, prepare)
        if self.steps != 0:
            from .training.make import Order

            orders = [
                Order(self.scenes, folder, bool(whole), self.seed)
                for whole, folder in enumerate(self.folders)
            ]
            self._say_aside(orders)
            wanted = self.brackets, self.held_out
            make_all(orders, wanted, self.workers or processors(), self.quiet)
        files = sorted(self.folders[1].glob("*.npy"))[: self.held_out]
        give(self, lesson, self.folders[0], files)

    def _say_aside(self, orders: Sequence[Job]) -> None:
        """Name the scenes that are set aside, where the program chose them."""
        from .training.make import brackets_in
        from .training.scenes import VALIDATION, scene_files

        wanted = self.brackets, self.held_out
        missing = [len(brackets_in(o.folder)) < number for o, number in zip(orders, wanted, strict=True)]
        if any(missing) and not self.quiet:
            aside = [path.stem for path in scene_files(self.scenes)[1]]
            if not set(aside) & set(VALIDATION):
                say(f"set aside to take scores on: {', '.join(aside)}")


def make_all(jobs: Sequence[Job], wanted: Sequence[int], workers: int, quiet: bool) -> None:
    """Make the examples that are missing: to train on, and held out."""
    from .training.make import brackets_in, make_examples

    for job, number, what in zip(jobs, wanted, ("training", "held-out"), strict=False):
        missing = len(brackets_in(job.folder)) < number
        with show_making(f"{what} examples", not quiet) as tell:
            made = make_examples(job, number, workers, tell)
        if missing and not quiet:
            _say_made(job.folder, made)


def _say_made(folder: Path, made: Made) -> None:
    line = f"{folder}: {count(made.brackets, 'bracket')}, {made.skipped} without motion left out"
    say(line + (f", {made.failed} failed (skipped.txt there says why)" if made.failed else ""))


def give(
    run: Run,
    lesson: Lesson[Source, Lot, Sample],
    source: Source,
    held_out: Sequence[Sample],
    settle: Callable[[nn.Module], None] | None = None,
) -> None:
    """Give a lesson, unless no step is wanted, and write what was learned, judged by all that is held out.

    ``settle`` has the last word on its weights.
    """
    from .training.release import write_network
    from .training.train import load_mean, train

    few = held_out[:: max(len(held_out) // SCORED, 1)][:SCORED]
    if run.steps != 0:
        with show_training(lesson, not run.quiet) as bar:

            def on_scores(mean: nn.Module, state: State, scores: Scores) -> None:
                from .training.plot import draw

                bar.scored(state, scores)
                draw(run.picture, lesson, mean, state, scores, few)

            train(lesson, source, few, run.resumed, run.steps, bar.step, on_scores)
    mean, state = load_mean(run.resumed, lesson.recipe)
    if settle is not None:
        settle(mean)
    scores = lesson.validate(mean.to(lesson.device), held_out)
    card = write_network(run.output, lesson, mean, state, scores, run.data, device_name(str(lesson.device)))
    if not run.quiet:
        figures = ", ".join(f"{name} {value:g}" for name, value in card["metrics"].items())
        say(f"{count(state.step, 'step')}, {state.elapsed / 60:.0f} min{f'; {figures}' if figures else ''}")
        print(run.output)


# --- what is asked for ----------------------------------------------------------------------------


def seconds_of(text: str) -> float:
    """Return the seconds of a budget: 90m, 2h, 45s, 1h30m, 1.5h."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else []
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is no time like 90m, 2h, 45s or 1h30m", param_hint="--budget")
    return seconds


def config_of(text: str | None) -> dict[str, Any] | None:
    """Return the configuration that ``--config`` states, None without."""
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise typer.BadParameter(f'{text!r} is no JSON object like {{"context": 32}}', param_hint="--config")
    return found


def _check_installed() -> None:
    from importlib.util import find_spec

    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise NetworkError(f"training needs {', '.join(lacking)}; {INSTALL}")


def _resolved(device: str) -> str:
    """Return where to train: CUDA where there is some, unless stated."""
    import torch

    has_cuda = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if has_cuda else "cpu"
    index = int(device.partition(":")[2] or 0)
    if device != "cpu" and not (has_cuda and index < torch.cuda.device_count()):
        raise NetworkError(f"{device}: torch finds no such device here; use --device cpu")
    return device


def device_name(device: str) -> str:
    """Return what a card calls a device, and the numbers that were computed in."""
    import torch

    from .training.precision import numbers_of

    name = "the CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    return f"{name}, in {numbers_of(torch.device(device))}"


def processors() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def network_in(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return architecture, configuration and weights of a file."""
    from .weights import find, read_card

    card = read_card(find(str(path)))
    return card["architecture"], card["config"], weights_in(path)


def weights_in(path: Path) -> dict[str, Any]:
    """Return the weights of a file as tensors."""
    import torch

    from .weights import find, load_state

    return {name: torch.from_numpy(values) for name, values in load_state(find(str(path))).items()}
