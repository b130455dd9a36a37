"""What a training shows on stderr while it works: how many examples are made, and where the run is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .console import say

if TYPE_CHECKING:
    from .training.lesson import AnyLesson
    from .training.train import State
    from .training.validate import Scores


@contextmanager
def show_making(what: str, wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Show on stderr how many brackets are done; nothing where it is no terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield lambda made, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(what, total=None)
        yield lambda made, total: bar.update(row, completed=made, total=total)


class TrainingBar:
    """Step, loss, rate, speed, time left and the last held-out scores."""

    def __init__(self, lesson: AnyLesson, wanted: bool, bar: Any = None) -> None:
        self._lesson, self._recipe, self._wanted, self._bar = lesson, lesson.recipe, wanted, bar
        self._row = bar.add_task("", total=lesson.recipe.budget) if bar else None
        self._loss: float | None = None
        self._start: tuple[int, float] | None = None
        self._held_out = ""

    def step(self, state: State, loss: float) -> None:
        """Show where the run is."""
        if self._bar is None:
            return
        self._loss = loss if self._loss is None else self._loss + 0.02 * (loss - self._loss)
        first, since = self._start = self._start or (state.step, state.elapsed)
        speed = (state.step - first) * self._recipe.batch / max(state.elapsed - since, 1e-9)
        rate = self._recipe.rate_at(state.elapsed / self._recipe.budget)
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
def show_training(lesson: AnyLesson, wanted: bool) -> Iterator[TrainingBar]:
    """Show one line for the whole run on stderr; where it is no terminal, only the scores."""
    if not (wanted and sys.stderr.isatty()):
        yield TrainingBar(lesson, wanted)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(bar_width=20), TextColumn("{task.description}")
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield TrainingBar(lesson, wanted, bar)
