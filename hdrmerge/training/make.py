"""Scenes -> folders of examples, made by worker processes; a killed run goes on where it was.

    number of a bracket -> plan -> photographs -> example -> squares -> files

Everything about a bracket follows from its number and the seed, whoever makes it. Of its files the one
that ends in 0 is written last, so that it tells that the bracket is done; ``skipped.txt`` holds the
numbers of those that give no example, and ``scenes.json`` what the examples were made from.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ..errors import HdrmergeError, InputError, OutputError
from ..exposure import Float
from ..write import unwritable
from .camera import take_all
from .examples import Example, cut, make_example
from .scenes import SIZE, draw_plan, load_scenes, scene_files

SQUARE = 160  # [px] of what is cut out of a bracket to train on
STILL = 0.01  # mean of the gate below which nothing is there to learn
HOPELESS = 40  # brackets skipped, and fewer made: the scenes are not fit
WHOLE_BYTES, CUT_BYTES = 22e6, 8.5e6  # on disk, of a bracket of `SIZE`, seen on average

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
"""Of the workers: each is one thread, and threads that wait by spinning starve the others."""

Tell = Callable[[int, int], None]
"""Called with the number of brackets made and of those wanted."""


@dataclass(frozen=True)
class Order:
    """What is to be made: ``whole`` brackets of the scenes set aside, or squares of the others."""

    scenes: Path
    folder: Path
    whole: bool = False
    seed: int = 0
    size: tuple[int, int] = SIZE  # (H, W) of a frame
    square: int = SQUARE  # [px]


@dataclass(frozen=True)
class Made:
    """How many brackets there are, and how many of the numbers tried gave none, or failed."""

    brackets: int
    skipped: int
    failed: int


# --- one bracket ----------------------------------------------------------------------------------


def make_bracket(scenes: Sequence[Float], number: int, order: Order) -> list[Example]:
    """Make the examples of one bracket; none where nothing moves."""
    rng = np.random.default_rng([number, 7 if order.whole else 3, order.seed])
    plan = draw_plan(scenes, rng, order.size)
    taken = take_all([plan], int(rng.integers(2**31)))[0].simulated()
    example = make_example(taken, rng)
    if example is None or example.reference[6].mean(dtype=np.float32) < STILL:
        return []
    return [example] if order.whole else cut(example, rng, order.square)


def name_of(number: int, part: int | None = None) -> str:
    """Return the name of a file: of a whole bracket, or of one of its parts."""
    return f"{number:06d}.npy" if part is None else f"{number:06d}_{part}.npy"


class Maker:
    """Makes one bracket after another in this process, from scenes read once."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.scenes = load_scenes(order.scenes, order.whole)

    def __call__(self, number: int) -> tuple[int, str]:
        """Write the files of a bracket; return its number and why there are none, if so."""
        try:
            examples = make_bracket(self.scenes, number, self.order)
        except HdrmergeError as error:
            return number, f"failed: {' '.join(str(error).split())}"
        if not examples:
            return number, "nothing moves"
        for part in reversed(range(len(examples))):
            path = self.order.folder / name_of(number, None if self.order.whole else part)
            try:
                examples[part].save(path)
            except OSError as error:
                raise unwritable(path, error) from error
        return number, ""


# --- all of them ----------------------------------------------------------------------------------


def make_examples(order: Order, wanted: int, workers: int = 1, tell: Tell | None = None) -> Made:
    """Make examples of as many brackets as are wanted, the first numbers that give any.

    With one worker in this process, else in processes of their own. Where enough are there already the
    scenes are not even looked at.
    """
    missing = wanted - len(brackets_in(order.folder))
    if missing > 0:
        _claim(order, missing)
        with _workers(order, min(workers, missing)) as work:
            _make_all(order, wanted, work, tell)
    reasons = skipped_in(order.folder)
    failed = sum(reason.startswith("failed") for reason in reasons.values())
    return Made(len(brackets_in(order.folder)), len(reasons) - failed, failed)


def _make_all(order: Order, wanted: int, work: _Work, tell: Tell | None) -> None:
    """Work until the first ``wanted`` numbers that are not skipped are made."""
    made, skipped = brackets_in(order.folder), skipped_in(order.folder)
    while True:
        numbers = list(islice((number for number in count() if number not in skipped), wanted))
        todo = [number for number in numbers if number not in made]
        if not todo:
            return
        with (order.folder / "skipped.txt").open("a", encoding="utf-8") as journal:
            for number, reason in work(todo):
                if not reason:
                    made.add(number)
                else:
                    skipped[number] = reason
                    journal.write(f"{number} {reason}\n")
                    journal.flush()
                    if len(skipped) > HOPELESS + len(made):
                        raise InputError(
                            f"{order.scenes}: most brackets of these scenes give no example (the last: "
                            f"{reason}); use larger or sharper scenes"
                        )
                if tell:
                    tell(len(made), max(wanted, len(made)))


def brackets_in(folder: Path) -> set[int]:
    """Return the numbers of the brackets whose files are complete."""
    names = [path.stem.removesuffix("_0") for path in folder.glob("*.npy")]
    return {int(name) for name in names if name.isdecimal()}


def skipped_in(folder: Path) -> dict[int, str]:
    """Return the numbers of the brackets that give no example, and why."""
    path = folder / "skipped.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    split = [line.partition(" ") for line in lines]
    return {int(number): reason for number, _, reason in split if number.isdecimal() and reason}


def origin_of(folder: Path) -> dict[str, Any]:
    """Return what the examples of a folder were made from; nothing where it does not say."""
    try:
        found: dict[str, Any] = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def data_in(folder: Path) -> str:
    """Return what the examples of a folder are, for a card."""
    parts = []
    if scenes := origin_of(folder).get("scenes"):
        parts.append(f"{len(scenes)} HDR scene{'s' if len(scenes) > 1 else ''}")
    files = len(list(folder.glob("*.npy")))
    parts += [f"{len(brackets_in(folder))} brackets simulated from them ({files} examples)"] if files else []
    return "; ".join(parts)


def _claim(order: Order, missing: int) -> None:
    """Write down what examples are made from; refuse to mix them with others, or to fill the disk."""
    scenes = [path.stem for path in scene_files(order.scenes)[order.whole]]
    origin = {"scenes": scenes, "seed": order.seed, "size": list(order.size)}
    folder, path = order.folder, order.folder / "scenes.json"
    if (found := origin_of(folder)) and found != origin:
        different = next(key for key in origin if found.get(key) != origin[key])
        raise InputError(
            f"{folder}: its examples differ in their {different} from what is asked for; "
            "name another folder with --examples"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(origin), encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    share = order.size[0] * order.size[1] / (SIZE[0] * SIZE[1])
    needed = missing * (WHOLE_BYTES if order.whole else CUT_BYTES) * share
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OutputError(
            f"{folder}: has {free / 1e9:.1f} GB free, and the examples take {needed / 1e9:.1f}; "
            "ask for fewer --brackets, or name a folder on another disk with --examples"
        )


# --- worker processes -----------------------------------------------------------------------------

_Work = Callable[[Iterable[int]], Iterator[tuple[int, str]]]

_order: Order | None = None
_maker: Maker | None = None
"""In a worker process, what it has to make, and with what: its scenes are read for the first bracket."""


@contextmanager
def _workers(order: Order, workers: int) -> Iterator[_Work]:
    """Yield what makes brackets by their numbers, and returns what became of each, in order."""
    if workers == 1:
        maker = Maker(order)
        yield lambda numbers: map(maker, numbers)
        return
    # Not fork: OpenMP's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (order,))
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)  # read by libraries when a worker loads them
    try:
        yield lambda numbers: pool.map(_make, numbers)
    except BrokenProcessPool as error:
        raise InputError(
            f"{order.scenes}: a worker process ended early, most likely for want of memory; "
            "use fewer --workers, the same command goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(order: Order) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C, and gone when its parent is."""
    global _order
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _order = order


def _follow_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _make(number: int) -> tuple[int, str]:
    global _maker
    if _order is None:
        raise RuntimeError("this process was not started as a worker")
    _maker = _maker or Maker(_order)
    return _maker(number)
