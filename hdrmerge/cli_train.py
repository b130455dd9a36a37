"""The commands that train networks."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import Group, count, say
from .errors import NetworkError
from .options import Device, Force, Quiet, check_targets, device_of

if TYPE_CHECKING:
    from torch import nn

    from .training.make import Made
    from .training.train import Recipe, State
    from .training.validate import Scores

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


@app.command(no_args_is_help=True)
def merge(
    scenes: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", readable=False, show_default=False, help="HDR scenes to photograph: .exr, .hdr."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.onnx",
            readable=False,
            show_default=False,
            help="The weights file to write.",
        ),
    ],
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long to train: 90m, 2h, 45s, 1h30m.")
    ] = "90m",
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            readable=False,
            help="Where examples are, or are made.",
            show_default="examples beside the checkpoint",
        ),
    ] = None,
    brackets: Annotated[
        int, typer.Option(min=1, metavar="N", help="Brackets to make examples of, 8 MB each.")
    ] = 2000,
    held_out: Annotated[
        int, typer.Option(min=1, metavar="N", help="Brackets of the scenes set aside, 20 MB each.")
    ] = HELD_OUT,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that make examples, 1.2 GB each.",
            show_default="all processors",
        ),
    ] = None,
    network: Annotated[str, typer.Option(metavar="NAME", help="The architecture to train.")] = "trust",
    config: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="Its configuration, as a weights file's card has it.",
            show_default="that of the checkpoint, of --init, or its own",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx", readable=False, show_default=False, help="Weights to start a new run from."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Where the run goes on from after a kill.",
            show_default="the output's name with .safetensors",
        ),
    ] = None,
    device: Device = "auto",
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Stop after so many steps in all; 0 writes what the checkpoint holds.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of examples, first weights and batches.")] = 0,
    data: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="What the scenes are and their licence, for the card.", show_default=False
        ),
    ] = "",
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            readable=False,
            help="A picture of curves and results, drawn anew with every score.",
            show_default="the checkpoint's name with .png",
        ),
    ] = None,
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
    seconds = seconds_of(budget)
    if output.suffix.lower() != ".onnx":
        raise typer.BadParameter(f"{output}: a weights file ends in .onnx", param_hint="-o")
    stated = config_of(config)
    choice = device_of(device)
    checkpoint = checkpoint or output.with_suffix(".safetensors")
    examples = examples or checkpoint.parent / "examples"
    plot = plot or checkpoint.with_suffix(".png")
    if plot.suffix.lower() != ".png":
        raise typer.BadParameter(f"{plot}: the picture is a .png", param_hint="--plot")
    _check_installed()

    from .training.release import write_network
    from .training.train import Recipe, load_mean, train
    from .training.validate import validate

    check_targets([output], [init] if init else [], force)
    if steps == 0 and not checkpoint.exists():
        raise NetworkError(f"{checkpoint}: no checkpoint there to write; name one with --checkpoint")
    where = _resolved(choice)
    folders = examples / "train", examples / "held_out"
    if steps != 0:
        _make_examples(scenes, folders, (brackets, held_out), workers or _processors(), seed, quiet)
    architecture, design = _design(network, stated, checkpoint, init)
    recipe = Recipe(architecture, design, seconds, seed=seed, validate_every=max(300.0, seconds / 24))
    files = sorted(folders[1].glob("*.npy"))[:held_out]
    few = files[:: max(len(files) // SCORED, 1)][:SCORED]
    if steps != 0:
        with show_training(recipe, not quiet) as bar:

            def on_scores(mean: nn.Module, state: State, scores: Scores) -> None:
                from .training.plot import draw

                bar.scored(state, scores)
                draw(plot, mean, state, scores, few)

            start = _weights_in(init) if init and not checkpoint.exists() else None
            train(recipe, folders[0], few, checkpoint, where, steps, bar.step, on_scores, start)
    mean, state = load_mean(checkpoint, recipe)
    scores = validate(mean.to(where), files)
    card = write_network(output, mean, recipe, state, scores, data, _named(where))
    if not quiet:
        figures = ", ".join(f"{name} {value:g}" for name, value in card["metrics"].items())
        say(f"{count(state.step, 'step')}, {state.elapsed / 60:.0f} min{f'; {figures}' if figures else ''}")
        print(output)


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


def _design(
    network: str, config: dict[str, Any] | None, checkpoint: Path, init: Path | None
) -> tuple[str, dict[str, Any]]:
    """Return architecture and configuration: as stated, as the checkpoint says, as ``--init`` does."""
    if config is not None:
        return network, config
    if checkpoint.exists():
        from .training.train import design_in

        return design_in(checkpoint) or (network, {})
    if init is not None:
        from .weights import find, read_card

        card = read_card(find(str(init)))
        return card["architecture"], card["config"]
    return network, {}


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

    def __init__(self, recipe: Recipe, wanted: bool, bar: Any = None) -> None:
        self._recipe, self._wanted, self._bar = recipe, wanted, bar
        self._row = bar.add_task("", total=recipe.budget) if bar else None
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
            f"loss {self._loss:.3f}",
            f"rate {rate:.1e}",
            f"{speed:.0f} patches/s",
            f"{left // 3600:.0f}:{left // 60 % 60:02.0f}:{left % 60:02.0f} left",
            *([self._held_out] if self._held_out else []),
        ]
        self._bar.update(self._row, completed=state.elapsed, description="  ".join(parts))

    def scored(self, state: State, scores: Scores) -> None:
        """Say how good the network is by now."""
        found, others = scores["trust"], scores["classical"]
        self._held_out = f"held out {found['whole']:.2f} dB"
        if self._wanted:
            parts = [
                f"{region.replace('_', ' and ')} {value:.2f} ({value - others[region]:+.2f})"
                for region, value in found.items()
                if value == value  # some regions may be nowhere
            ]
            say(f"step {state.step}, {state.elapsed / 60:.0f} min, dB (over classical): {', '.join(parts)}")


@contextmanager
def show_training(recipe: Recipe, wanted: bool) -> Iterator[TrainingBar]:
    """Show one line for the whole run on stderr; where it is no terminal, only the scores."""
    if not (wanted and sys.stderr.isatty()):
        yield TrainingBar(recipe, wanted)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(bar_width=20), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield TrainingBar(recipe, wanted, bar)
