"""The commands that train networks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Group, count, say
from .errors import NetworkError
from .options import Device, Force, Quiet, check_targets, device_of

if TYPE_CHECKING:
    from torch import nn

    from .training.lesson import Lesson, Recipe
    from .training.make import Made
    from .training.train import State
    from .training.validate import Scores

BRACKETS = 2000
HELD_OUT = 200  # brackets of the scenes set aside
SCORED = 40  # of these while training goes on; all of them at the end
NEEDED = ("torch", "safetensors", "onnx")
INSTALL = 'pip install "hdrmerge[train]"'

app = typer.Typer(cls=Group, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Train a network on scenes of your own.

    Example: hdrmerge train merge --scenes scenes/train -o mine.onnx
    """


# --- the options that all of them share -----------------------------------------------------------

Scenes = Annotated[
    Path,
    typer.Option(
        metavar="FOLDER", readable=False, show_default=False, help="HDR scenes to photograph: .exr, .hdr."
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE.onnx",
        readable=False,
        show_default=False,
        help="The weights file to write.",
    ),
]
Budget = Annotated[str, typer.Option(metavar="TIME", help="How long to train: 90m, 2h, 45s, 1h30m.")]
Examples = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        readable=False,
        help="Where examples are, or are made.",
        show_default="examples beside the checkpoint",
    ),
]
Brackets = Annotated[int, typer.Option(min=1, metavar="N", help="Brackets to make examples of, 8 MB each.")]
HeldOut = Annotated[
    int, typer.Option(min=1, metavar="N", help="Brackets of the scenes set aside, 20 MB each.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that make examples, 1.2 GB each.",
        show_default="all processors",
    ),
]
Init = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.onnx", readable=False, show_default=False, help="Weights to start a new run from."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        readable=False,
        help="Where the run goes on from after a kill.",
        show_default="the output's name with .safetensors",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Stop after so many steps in all; 0 writes what the checkpoint holds.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of examples, first weights and batches.")]
Data = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="What the scenes are and their licence, for the card.", show_default=False
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        readable=False,
        help="A picture of curves and results, drawn anew with every score.",
        show_default="the checkpoint's name with .png",
    ),
]


@app.command(no_args_is_help=True)
def merge(
    scenes: Scenes,
    output: Output,
    budget: Budget = "90m",
    examples: Examples = None,
    brackets: Brackets = BRACKETS,
    held_out: HeldOut = HELD_OUT,
    workers: Workers = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="The architecture to train.")] = "trust",
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Its configuration, as a weights file's card has it.",
            show_default="that of the checkpoint, of --init, or its own",
        ),
    ] = None,
    init: Init = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the network that judges motion in merges.

    Brackets are photographed from your scenes with objects that move, a
    camera that shakes, noise and response curves drawn at random; some
    scenes are set aside to take scores on. Examples are made once and
    trained on for the time given. After a kill the same command goes on
    from the last checkpoint, at most two minutes back; after the end it
    goes on if given a larger budget.

    The file it writes is what other commands take for --network.

    Example: hdrmerge train merge --scenes scenes/train -o mine.onnx --budget 2h
    """
    run = Run.of(locals())
    stated = config_of(config)
    run.check()
    from .training import trust

    def prepare(common: dict[str, Any]) -> Recipe:
        found = run.design()
        if stated is not None:
            return trust.TrustRecipe(network, stated, **common)
        return trust.TrustRecipe(*(found or (network, {})), **common)

    carry_out(run, trust.TrustLesson, prepare)


@app.command(no_args_is_help=True)
def hdrgan(
    scenes: Scenes,
    output: Output,
    budget: Budget = "90m",
    examples: Examples = None,
    brackets: Brackets = BRACKETS,
    held_out: HeldOut = HELD_OUT,
    workers: Workers = None,
    width: Annotated[
        int | None,
        typer.Option(
            min=2,
            metavar="N",
            help="Channels at full resolution, twice and four times that below it.",
            show_default="that of the checkpoint, of --init, or 32",
        ),
    ] = None,
    residual: Annotated[
        bool | None,
        typer.Option(
            "--residual/--paper",
            help="Mend the classical merge, or say everything as the paper's network does.",
            show_default="that of the checkpoint, of --init, or --residual",
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=0.0, metavar="X", help="The highest learning rate.")] = 3e-4,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Patches of 128 px a step.")] = 4,
    adversarial: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="The share of the budget, at its end, in which a discriminator takes part.",
        ),
    ] = 0.0,
    gan_weight: Annotated[
        float, typer.Option(min=0.0, metavar="X", help="Of what the discriminator says; 1 is the paper's.")
    ] = 1.0,
    spectral: Annotated[
        bool, typer.Option("--spectral", help="Normalise weights by their largest singular values.")
    ] = False,
    mend: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            readable=False,
            show_default=False,
            help="A network of train merge, to mend what it makes of every other batch.",
        ),
    ] = None,
    init: Init = None,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    steps: Steps = None,
    seed: Seed = 0,
    data: Data = "",
    plot: Plot = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Train the network that makes HDR of three exposures (HDR-GAN).

    Examples are those of `hdrmerge train merge`, made once, and may be
    shared by --examples. Of each, the reference and its nearest shorter
    and longer neighbours are shown. The network learns to be near to the
    truth; with --adversarial also, towards the end, to be taken for it
    by a second network. --spectral, --adversarial and --gan-weight are
    to be repeated when a run goes on.

    Full width is for a GPU, as are larger batches and a run of days; on
    a CPU choose --width 16. Rates much above the default let the network
    die (its last features are 0 everywhere and stay so).

    Example: hdrmerge train hdrgan --scenes scenes/train -o mine.onnx --width 16
    """
    run = Run.of(locals())
    run.check()
    from .training.hdrgan import HdrGanLesson, HdrGanRecipe

    def prepare(common: dict[str, Any]) -> Recipe:
        architecture, config = run.design() or ("hdrgan", {"width": 32, "residual": True})
        stated = {"width": width, "residual": residual}
        config |= {name: value for name, value in stated.items() if value is not None}
        return HdrGanRecipe(
            architecture,
            config,
            rate=rate,
            batch=batch,
            adversarial=adversarial,
            gan_weight=gan_weight,
            spectral=spectral,
            judge=None if mend is None else _network_in(mend),
            **common,
        )

    carry_out(run, HdrGanLesson, prepare)


@dataclass(frozen=True)
class Run:
    """What the options that all commands share ask for; fields have their names."""

    scenes: Path
    output: Path
    budget: str
    examples: Path | None
    brackets: int
    held_out: int
    workers: int | None
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
    def of(cls, options: Mapping[str, Any]) -> Run:
        """Pick them from the options of a command."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})

    @property
    def resumed(self) -> Path:
        """The checkpoint."""
        return self.checkpoint or self.output.with_suffix(".safetensors")

    @property
    def picture(self) -> Path:
        return self.plot or self.resumed.with_suffix(".png")

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the examples to train on are, and those held out."""
        examples = self.examples or self.resumed.parent / "examples"
        return examples / "train", examples / "held_out"

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


def carry_out(
    run: Run, lesson_of: Callable[..., Lesson], prepare: Callable[[dict[str, Any]], Recipe]
) -> None:
    """Make the examples, give the lesson, and write the network; ``prepare`` completes the recipe."""
    from .training.release import write_network
    from .training.train import load_mean, train

    where = _resolved(device_of(run.device))
    folders, seconds = run.folders, seconds_of(run.budget)
    recipe = prepare({"budget": seconds, "seed": run.seed, "validate_every": max(300.0, seconds / 24)})
    start = _weights_in(run.init) if run.init and not run.resumed.exists() else None
    lesson = lesson_of(recipe, where, start)
    if run.steps != 0:
        wanted = run.brackets, run.held_out
        _make_examples(run.scenes, folders, wanted, run.workers or _processors(), run.seed, run.quiet)
    files = sorted(folders[1].glob("*.npy"))[: run.held_out]
    few = files[:: max(len(files) // SCORED, 1)][:SCORED]
    if run.steps != 0:
        with show_training(lesson, not run.quiet) as bar:

            def on_scores(mean: nn.Module, state: State, scores: Scores) -> None:
                from .training.plot import draw

                bar.scored(state, scores)
                draw(run.picture, lesson, mean, state, scores, few)

            train(lesson, folders[0], few, run.resumed, run.steps, bar.step, on_scores)
    mean, state = load_mean(run.resumed, recipe)
    scores = lesson.validate(mean.to(where), files)
    card = write_network(run.output, lesson, mean, state, scores, run.data, _named(where))
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


def _named(device: str) -> str:
    import torch

    return "the CPU" if device == "cpu" else torch.cuda.get_device_name(device)


def _processors() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _network_in(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return architecture, configuration and weights of a file."""
    from .weights import find, read_card

    card = read_card(find(str(path)))
    return card["architecture"], card["config"], _weights_in(path)


def _weights_in(path: Path) -> dict[str, Any]:
    """Return the weights of a file as tensors."""
    import torch

    from .weights import find, load_state

    return {name: torch.from_numpy(values) for name, values in load_state(find(str(path))).items()}


# --- what is done, and shown ----------------------------------------------------------------------


def _make_examples(
    scenes: Path,
    folders: tuple[Path, Path],
    wanted: tuple[int, int],
    workers: int,
    seed: int,
    quiet: bool,
) -> None:
    """Make the examples that are missing: to train on, and held out."""
    from .training.make import Order, brackets_in, make_examples
    from .training.scenes import VALIDATION, scene_files

    missing = [len(brackets_in(folder)) < number for folder, number in zip(folders, wanted, strict=True)]
    if any(missing) and not quiet:
        aside = [path.stem for path in scene_files(scenes)[1]]
        if not set(aside) & set(VALIDATION):
            say(f"set aside to take scores on: {', '.join(aside)}")
    for whole, (folder, number) in enumerate(zip(folders, wanted, strict=True)):
        with show_making(("training", "held-out")[whole], not quiet) as tell:
            made = make_examples(Order(scenes, folder, bool(whole), seed), number, workers, tell)
        if missing[whole] and not quiet:
            _say_made(folder, made)


def _say_made(folder: Path, made: Made) -> None:
    line = f"{folder}: {count(made.brackets, 'bracket')}, {made.skipped} without motion left out"
    say(line + (f", {made.failed} failed (skipped.txt there says why)" if made.failed else ""))


@contextmanager
def show_making(what: str, wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many brackets are made; nothing where it is no terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda made, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(f"{what} examples", total=None)
        yield lambda made, total: bar.update(row, completed=made, total=total)


class TrainingBar:
    """Step, loss, rate, speed, time left and the last held-out scores."""

    def __init__(self, lesson: Lesson, wanted: bool, bar: Any = None) -> None:
        self._lesson, self._recipe, self._wanted, self._bar = lesson, lesson.recipe, wanted, bar
        self._row = bar.add_task("", total=lesson.recipe.budget) if bar else None
        self._loss: float | None = None
        self._start: tuple[int, float] | None = None
        self._held_out = ""

    def step(self, state: State, loss: float) -> None:
        """Show where the run is."""
        if self._bar is None:
            return
        from .training.train import rate_at

        self._loss = loss if self._loss is None else self._loss + 0.02 * (loss - self._loss)
        first, since = self._start = self._start or (state.step, state.elapsed)
        speed = (state.step - first) * self._recipe.batch / max(state.elapsed - since, 1e-9)
        rate = rate_at(state.elapsed / self._recipe.budget, self._recipe.rate)
        left = max(self._recipe.budget - state.elapsed, 0)
        parts = [
            f"step {state.step}",
            f"loss {self._loss:.4f}",
            f"rate {rate:.1e}",
            f"{speed:.0f} patches/s",
            f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f} left",
            *([self._held_out] if self._held_out else []),
        ]
        self._bar.update(self._row, completed=state.elapsed, description="  ".join(parts))

    def scored(self, state: State, scores: Scores) -> None:
        """Say how good the network is by now."""
        rival = self._lesson.rivals[0]
        found, others = scores[self._lesson.own], scores[rival]
        self._held_out = f"held out {found['whole']:.2f} dB"
        if self._wanted:
            parts = [
                f"{region.replace('_', ' and ')} {value:.2f} ({value - others[region]:+.2f})"
                for region, value in found.items()
                if value == value  # some regions may be nowhere
            ]
            say(f"step {state.step}, {state.elapsed / 60:.0f} min, dB (over {rival}): {', '.join(parts)}")


@contextmanager
def show_training(lesson: Lesson, wanted: bool) -> Iterator[TrainingBar]:
    """Show one line for the whole run on stderr; where it is no terminal, only the scores."""
    if not (wanted and sys.stderr.isatty()):
        yield TrainingBar(lesson, wanted)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(bar_width=20), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield TrainingBar(lesson, wanted, bar)
