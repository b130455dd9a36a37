"""Orders -> folders of examples, made by worker processes; a killed run goes on where it was.

    number of a bracket -> plan -> photographs -> example -> squares -> files

An `Order` is of brackets simulated from HDR scenes; `retake.py` holds another kind of `Job`.

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
from typing import Any, Protocol

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


class Job(Protocol):
    """What is to be made into ``folder``: ``whole`` brackets, or squares of them.

    It is sent to worker processes, which load what it is made from. ``size`` (H, W) is that
    of a frame, ``source`` the folder that it is made from, for messages.
    """

    @property
    def folder(self) -> Path: ...
    @property
    def whole(self) -> bool: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def source(self) -> Path: ...

    def origin(self) -> dict[str, Any]:
        """Return what all examples of a folder must have in common, as plain values."""

    def load(self) -> Any:
        """Return what brackets are made from, read once a process."""

    def examples(self, loaded: Any, number: int) -> list[Example]:
        """Make the examples of one bracket; none where there is nothing to learn."""


@dataclass(frozen=True)
class Order:
    """A `Job`: ``whole`` brackets of the HDR scenes set aside, or squares of the others."""

    scenes: Path
    folder: Path
    whole: bool = False
    seed: int = 0
    size: tuple[int, int] = SIZE  # (H, W) of a frame
    square: int = SQUARE  # [px]

    @property
    def source(self) -> Path:
        return self.scenes

    def origin(self) -> dict[str, Any]:
        scenes = [path.stem for path in scene_files(self.scenes)[self.whole]]
        return {"scenes": scenes, "seed": self.seed, "size": list(self.size)}

    def load(self) -> list[Float]:
        return load_scenes(self.scenes, self.whole)

    def examples(self, loaded: Sequence[Float], number: int) -> list[Example]:
        return make_bracket(loaded, number, self)


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
    return parts_of(example, rng, order.whole, order.square)


def parts_of(example: Example | None, rng: np.random.Generator, whole: bool, square: int) -> list[Example]:
    """Return an example as it goes into files, ``whole`` or in squares; nothing where nothing moves."""
    if example is None or example.reference[6].mean(dtype=np.float32) < STILL:
        return []
    return [example] if whole else cut(example, rng, square)


def name_of(number: int, part: int | None = None) -> str:
    """Return the name of a file: of a whole bracket, or of one of its parts."""
    return f"{number:06d}.npy" if part is None else f"{number:06d}_{part}.npy"


class Maker:
    """Makes one bracket after another in this process, from what is loaded once."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.loaded = job.load()

    def __call__(self, number: int) -> tuple[int, str]:
        """Write the files of a bracket; return its number and why there are none, if so."""
        try:
            examples = self.job.examples(self.loaded, number)
        except HdrmergeError as error:
            return number, f"failed: {' '.join(str(error).split())}"
        if not examples:
            return number, "nothing moves"
        for part in reversed(range(len(examples))):
            path = self.job.folder / name_of(number, None if self.job.whole else part)
            try:
                examples[part].save(path)
            except OSError as error:
                raise unwritable(path, error) from error
        return number, ""


# --- all of them ----------------------------------------------------------------------------------


def make_examples(job: Job, wanted: int, workers: int = 1, tell: Tell | None = None) -> Made:
    """Make examples of as many brackets as are wanted, the first numbers that give any.

    With one worker in this process, else in processes of their own. Where enough are there already what
    they are made from is not even looked at.
    """
    missing = wanted - len(brackets_in(job.folder))
    if missing > 0:
        _claim(job, missing)
        with _workers(job, min(workers, missing)) as work:
            _make_all(job, wanted, work, tell)
    reasons = skipped_in(job.folder)
    failed = sum(reason.startswith("failed") for reason in reasons.values())
    return Made(len(brackets_in(job.folder)), len(reasons) - failed, failed)


def _make_all(job: Job, wanted: int, work: _Work, tell: Tell | None) -> None:
    """Work until the first ``wanted`` numbers that are not skipped are made."""
    made, skipped = brackets_in(job.folder), skipped_in(job.folder)
    while True:
        numbers = list(islice((number for number in count() if number not in skipped), wanted))
        todo = [number for number in numbers if number not in made]
        if not todo:
            return
        with (job.folder / "skipped.txt").open("a", encoding="utf-8") as journal:
            for number, reason in work(todo):
                if not reason:
                    made.add(number)
                else:
                    skipped[number] = reason
                    journal.write(f"{number} {reason}\n")
                    journal.flush()
                    if len(skipped) > HOPELESS + len(made):
                        raise InputError(
                            f"{job.source}: most brackets of these scenes give no example (the last: "
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
    parts, origin, how = [], origin_of(folder), "simulated from"
    if scenes := origin.get("scenes"):
        parts.append(f"{len(scenes)} HDR scene{'s' if len(scenes) > 1 else ''}")
    if labelled := origin.get("labelled"):
        how = "photographed again from"
        parts.append(f"{len(labelled)} bracket{'s' if len(labelled) > 1 else ''} without a truth")
    files = len(list(folder.glob("*.npy")))
    parts += [f"{len(brackets_in(folder))} brackets {how} them ({files} examples)"] if files else []
    return "; ".join(parts)


def _claim(job: Job, missing: int) -> None:
    """Write down what examples are made from; refuse to mix them with others, or to fill the disk."""
    origin = job.origin()
    folder, path = job.folder, job.folder / "scenes.json"
    if (found := origin_of(folder)) and found != origin:
        different = next(key for key in {**origin, **found} if found.get(key) != origin.get(key))
        raise InputError(
            f"{folder}: its examples differ in their {different} from what is asked for; "
            "name another folder with --examples"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(origin), encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error
    share = job.size[0] * job.size[1] / (SIZE[0] * SIZE[1])
    needed = missing * (WHOLE_BYTES if job.whole else CUT_BYTES) * share
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OutputError(
            f"{folder}: has {free / 1e9:.1f} GB free, and the examples take {needed / 1e9:.1f}; "
            "ask for fewer --brackets, or name a folder on another disk with --examples"
        )


# --- worker processes -----------------------------------------------------------------------------

_Work = Callable[[Iterable[int]], Iterator[tuple[int, str]]]

_job: Job | None = None
_maker: Maker | None = None
"""In a worker process, what it has to make, and with what: its scenes are read for the first bracket."""


@contextmanager
def _workers(job: Job, workers: int) -> Iterator[_Work]:
    """Yield what makes brackets by their numbers, and returns what became of each, in order."""
    if workers == 1:
        maker = Maker(job)
        yield lambda numbers: map(maker, numbers)
        return
    # Not fork: OpenMP's threads do not survive it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (job,))
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)  # read by libraries when a worker loads them
    try:
        yield lambda numbers: pool.map(_make, numbers)
    except BrokenProcessPool as error:
        raise InputError(
            f"{job.source}: a worker process ended early, most likely for want of memory; "
            "use fewer --workers, the same command goes on"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(job: Job) -> None:
    """Prepare a worker: one thread, deaf to Ctrl-C, and gone when its parent is."""
    global _job
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _job = job


def _follow_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _make(number: int) -> tuple[int, str]:
    global _maker
    if _job is None:
        raise RuntimeError("this process was not started as a worker")
    _maker = _maker or Maker(_job)
    return _maker(number)
