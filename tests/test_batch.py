"""batch: the run itself, with stand-ins for what takes time; whole runs are in test_cli_folder."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import batch as module
from hdrmerge.batch import Batch, Outcome, Recipe, available_memory, memory_of
from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.errors import InputError
from hdrmerge.exposure import Response
from hdrmerge.folder import Unreadable
from hdrmerge.journal import Journal
from hdrmerge.pipeline import MergeOptions
from hdrmerge.worklist import Task

RECIPE = Recipe(MergeOptions(response="srgb"))


class Pixels:
    """Stands for a decoded set."""

    def __init__(self, name: str) -> None:
        self.name = name


class Result:
    """Stands for a report."""

    warnings: list[str] = []  # noqa: RUF012

    def to_json(self) -> dict[str, Any]:
        return {"frames": [{"exposure_source": "exif"}] * 2, "warnings": []}


class Stages:
    """Stands for decoding and merging: notes what happens when, and fails where it is told to."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.on_load: Callable[[str], object] = lambda name: None
        self.on_merge: Callable[[str], object] = lambda name: None
        self.alive: weakref.WeakSet[Pixels] = weakref.WeakSet()

    def load(self, paths: list[Path], options: MergeOptions, tell: Callable[[str, float], None]) -> Pixels:
        name = paths[0].stem[0]
        tell("read", 0.0)
        self.events.append(f"load {name}")
        self.on_load(name)
        if f"load {name}" in self.errors:
            raise self.errors[f"load {name}"]
        pixels = Pixels(name)
        self.alive.add(pixels)
        return pixels

    def merge(
        self, loaded: Pixels, options: MergeOptions, tell: Callable[[str, float], None]
    ) -> tuple[RadianceMap, Result]:
        self.events.append(f"merge {loaded.name}")
        self.on_merge(loaded.name)
        tell("merge", 0.5)
        if f"merge {loaded.name}" in self.errors:
            raise self.errors[f"merge {loaded.name}"]
        radiance = RadianceMap(
            np.full((8, 8, 3), 0.5, np.float32), np.ones((8, 8), bool), Shot(Path("a.jpg"))
        )
        return radiance, Result()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    stages = Stages()
    monkeypatch.setattr(module, "load_bracket", stages.load)
    monkeypatch.setattr(module, "merge_loaded", stages.merge)
    return stages


def make_tasks(folder: Path, names: str) -> list[Task]:
    tasks = []
    for name in names:
        paths = [folder / f"{name}{i}.jpg" for i in range(2)]
        for path in paths:
            path.write_text("photograph")
        outputs = folder / "out" / f"{name}.exr", folder / "out" / f"{name}.jpg"
        tasks.append(Task(name, tuple(Shot(path, 100, 50) for path in paths), "because", outputs))
    return tasks


def run(tasks: list[Task], folder: Path, recipe: Recipe = RECIPE, **how: Any) -> list[Outcome]:
    force = how.pop("force", False)
    journal = Journal(folder / "out")
    photographs = [path for task in tasks for path in task.inputs]
    with (
        journal.claimed([]),
        closing(Batch(tasks, recipe, journal, photographs, force).run(**how)) as outcomes,
    ):
        return list(outcomes)


def statuses(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.task.name: outcome.status for outcome in outcomes}


def test_sets_are_merged_in_order_and_then_skipped(tmp_path: Path, stages: Stages) -> None:
    tasks = make_tasks(tmp_path, "abc")
    seen: list[tuple[str, str, float]] = []
    outcomes = run(tasks, tmp_path, progress=lambda *step: seen.append(step))
    assert [(outcome.task.name, outcome.status) for outcome in outcomes] == [(n, "merged") for n in "abc"]
    assert all(path.exists() for task in tasks for path in task.outputs)
    assert {name for name, _, _ in seen} == set("abc")
    assert {stage for _, stage, _ in seen} == {"read", "merge", "write"}
    values = outcomes[0].values
    assert values["outputs"] == [str(path) for path in tasks[0].outputs]
    assert (values["status"], values["exposures"], values["why"]) == ("merged", "exif", "because")
    stages.events.clear()
    again = run(tasks, tmp_path)
    assert statuses(again) == dict.fromkeys("abc", "skipped")
    assert again[0].values == {**values, "status": "skipped"}
    assert stages.events == []


@pytest.mark.parametrize("stage", ["load", "merge"])
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(
    ("error", "message", "traced"),
    [
        (InputError("b0.jpg: is damaged;\ncopy it again"), "b0.jpg: is damaged; copy it again", False),
        (MemoryError(), "not enough memory for frames of this size; close programs, or give -j 1", False),
        (
            OSError(5, "Input/output error", "b1.jpg"),
            "b1.jpg: Input/output error; run the batch again",
            False,
        ),
        (ZeroDivisionError("x"), "ZeroDivisionError: x; a fault of this program, -v shows where", True),
    ],
)
def test_a_set_that_fails_stops_no_other(
    tmp_path: Path, stages: Stages, stage: str, jobs: int, error: Exception, message: str, traced: bool
) -> None:
    stages.errors[f"{stage} b"] = error
    tasks = make_tasks(tmp_path, "abc")
    outcomes = {outcome.task.name: outcome for outcome in run(tasks, tmp_path, jobs=jobs)}
    assert statuses(list(outcomes.values())) == {"a": "merged", "b": "failed", "c": "merged"}
    assert outcomes["b"].error == outcomes["b"].values["error"] == message
    assert (f"in {stage}" in outcomes["b"].trace) == traced
    assert not any(path.exists() for path in tasks[1].outputs)
    stages.errors.clear()
    assert statuses(run(tasks, tmp_path)) == {"a": "skipped", "b": "merged", "c": "skipped"}


def test_what_is_known_beforehand_takes_no_work(tmp_path: Path, stages: Stages) -> None:
    tasks = make_tasks(tmp_path, "abcd")
    tasks[0] = replace(tasks[0], unreadable=(Unreadable(Path("a2.jpg"), "the file is empty"),))
    tasks[1].outputs[1].parent.mkdir()
    tasks[1].outputs[1].write_text("precious")
    tasks[2].inputs[0].unlink()
    outcomes = run(tasks, tmp_path)
    assert statuses(outcomes) == {"a": "failed", "b": "failed", "c": "failed", "d": "merged"}
    for outcome, reason in zip(
        outcomes, ["a2.jpg: the file is empty", "exists, and", "no such file"], strict=False
    ):
        assert reason in outcome.error
        assert outcome.trace == ""
    assert stages.events == ["load d", "merge d"]


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (replace(RECIPE, compression="piz"), "compression zip"),
        (replace(RECIPE, float32=True), "float off"),
        (replace(RECIPE, operator="mulaw"), "operator durand2002"),
        (replace(RECIPE, options=MergeOptions(response="srgb", align="none")), "align homography"),
        (replace(RECIPE, options=MergeOptions(response="srgb", deghost="none")), "deghost auto"),
        (replace(RECIPE, options=MergeOptions(response="srgb", anchor=3.0)), "anchor none"),
        (replace(RECIPE, options=MergeOptions(response="linear")), "response srgb"),
        (replace(RECIPE, options=MergeOptions(response=Response.named("srgb"))), "response srgb"),
        (replace(RECIPE, curves={"a": (Response.named("srgb"), "response-x.json 123")}), "response srgb"),
    ],
)
def test_other_settings_replace_nothing_unless_forced(
    tmp_path: Path, stages: Stages, recipe: Recipe, reason: str
) -> None:
    tasks = make_tasks(tmp_path, "a")
    run(tasks, tmp_path)
    (outcome,) = run(tasks, tmp_path, recipe)
    assert outcome.status == "failed"
    assert f"made with {reason}; add --force" in outcome.error
    assert statuses(run(tasks, tmp_path, recipe, force=True)) == {"a": "merged"}
    assert statuses(run(tasks, tmp_path, recipe, force=True)) == {"a": "skipped"}


def test_settings_name_a_curve_by_its_values() -> None:
    task = Task("a", (), "")
    said = [
        Recipe(MergeOptions(response=curve)).settings_of(task)["response"]
        for curve in (Response.named("srgb"), Response.named("srgb"), Response.named("linear"))
    ]
    assert said[0] == said[1] != said[2]


def test_a_photograph_is_never_replaced(tmp_path: Path, stages: Stages) -> None:
    (task,) = make_tasks(tmp_path, "a")
    task = replace(task, outputs=(tmp_path / "out" / "a.exr", tmp_path / "out" / ".." / "a1.jpg"))
    (tmp_path / "out").mkdir()
    (outcome,) = run([task], tmp_path, force=True)
    assert "a1.jpg: the output would replace a photograph" in outcome.error
    assert task.inputs[1].read_text() == "photograph"


# --- several things at a time ---------------------------------------------------------------------


def test_the_next_set_is_decoded_while_one_is_merged(tmp_path: Path, stages: Stages) -> None:
    loaded = threading.Event()
    stages.on_load = lambda name: loaded.set() if name == "b" else None
    stages.on_merge = lambda name: loaded.wait(10) if name == "a" else None
    assert statuses(run(make_tasks(tmp_path, "abc"), tmp_path)) == dict.fromkeys("abc", "merged")
    assert stages.events.index("load b") < stages.events.index("merge b")
    assert loaded.is_set()


@pytest.mark.parametrize(
    ("memory", "jobs", "most"),
    [
        (None, 3, 4),
        (64e9, 3, 4),
        (2.2e9, 3, 3),
        (2.0e9, 3, 2),
        (1.3e9, 3, 1),
        (1.3e9, 1, 2),
        (1e9, 1, 1),
        (0, 2, 1),
    ],
)
def test_memory_decides_how_many_are_at_work(
    tmp_path: Path, stages: Stages, memory: float | None, jobs: int, most: int
) -> None:
    """Sets of 24 MP take 0.6 GB while they are merged, 0.2 while they wait, and the program 0.3."""
    seen, lock, begun = 0, threading.Lock(), 0
    waited: list[tuple[str, int]] = []

    def begin(_: str) -> None:
        nonlocal seen, begun
        with lock:
            begun += 1
            seen = max(seen, begun)

    def end(_: str) -> None:
        nonlocal begun
        time.sleep(0.02)
        with lock:
            begun -= 1

    stages.on_load, stages.on_merge = begin, end
    tasks = [replace(t, shots=sized(6000, 4000, t.shots)) for t in make_tasks(tmp_path, "abcdef")]
    recipe = replace(RECIPE, options=replace(RECIPE.options, network="none"))
    found = run(tasks, tmp_path, recipe, memory=memory, jobs=jobs, waits=lambda *w: waited.append(w))
    assert statuses(found) == dict.fromkeys("abcdef", "merged")
    assert seen <= most
    assert bool(waited) == (most < jobs)


def test_a_set_that_is_too_large_runs_alone_and_holds_up_no_other(tmp_path: Path, stages: Stages) -> None:
    tasks = make_tasks(tmp_path, "abc")
    tasks[1] = replace(tasks[1], shots=sized(30000, 30000, tasks[1].shots))
    stages.on_merge = lambda name: time.sleep(0.2)
    waited: list[tuple[str, int]] = []
    found = run(tasks, tmp_path, memory=8e9, jobs=4, waits=lambda *where: waited.append(where))
    assert statuses(found) == dict.fromkeys("abc", "merged")
    assert {name for name, _ in waited} == {"b", "c"}


def test_sets_are_merged_at_a_time(tmp_path: Path, stages: Stages) -> None:
    together = threading.Barrier(2, timeout=10)
    stages.on_merge = lambda name: together.wait()
    assert statuses(run(make_tasks(tmp_path, "abcd"), tmp_path, jobs=2)) == dict.fromkeys("abcd", "merged")


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_pixels_of_one_more_than_are_merged_are_held(tmp_path: Path, stages: Stages, jobs: int) -> None:
    most = 0

    def held(_: str) -> None:
        nonlocal most
        gc.collect()
        most = max(most, len(stages.alive))

    stages.on_load = stages.on_merge = held
    run(make_tasks(tmp_path, "abcdefghij"), tmp_path, jobs=jobs)
    assert 1 <= most <= jobs + 1
    gc.collect()
    assert len(stages.alive) == 0


def test_pixels_are_freed_before_the_result_is_written(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def write(*_: object, **__: object) -> list[str]:
        gc.collect()
        left.append(len(stages.alive))
        raise InputError("enough seen; go")

    monkeypatch.setattr(module, "write_outputs", write)
    run(make_tasks(tmp_path, "a"), tmp_path)
    assert left == [0]


def test_a_batch_that_is_given_up_ends_soon_and_writes_nothing_more(tmp_path: Path, stages: Stages) -> None:
    tasks = make_tasks(tmp_path, "abcdef")
    journal = Journal(tmp_path / "out")
    reached, go_on = threading.Event(), threading.Event()

    def wait(name: str) -> None:
        if name == "b":
            reached.set()
            go_on.wait(10)

    stages.on_merge = wait
    with journal.claimed([]):
        outcomes = Batch(tasks, RECIPE, journal).run()
        assert next(outcomes).task.name == "a"
        assert reached.wait(10)
        threading.Timer(0.05, go_on.set).start()
        outcomes.close()  # what an interrupt comes to
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
        "a.exr",
        "a.jpg",
        "hdrmerge-batch.jsonl",
    ]
    assert "load d" not in stages.events
    assert statuses(run(tasks, tmp_path)) == {"a": "skipped", **dict.fromkeys("bcdef", "merged")}


# --- memory ---------------------------------------------------------------------------------------


def sized(width: int, height: int, shots: Sequence[Shot]) -> tuple[Shot, ...]:
    return tuple(replace(shot, width=width, height=height) for shot in shots)


@pytest.mark.parametrize(  # peaks of whole processes, as measured [GB]
    ("width", "height", "frames", "measured"),
    [
        (3000, 2000, 3, 0.47),
        (6000, 4000, 2, 0.69),
        (6000, 4000, 3, 0.77),
        (6000, 4000, 5, 0.97),
        (9000, 6000, 3, 1.33),
    ],
)
def test_memory_is_estimated_on_the_safe_side(width: int, height: int, frames: int, measured: float) -> None:
    task = Task("x", sized(width, height, [Shot(Path("x"))] * frames), "")
    estimate = (memory_of(task)[0] + module.PROCESS) / 1e9
    assert measured <= estimate + 0.03
    assert estimate <= 1.35 * measured


@pytest.mark.parametrize(
    ("width", "height", "frames", "measured"),
    [(5657, 3182, 3, 1.05), (5657, 3182, 9, 2.49), (13333, 7500, 3, 2.49)],
)
def test_memory_with_a_network_is_estimated_on_the_safe_side(
    width: int, height: int, frames: int, measured: float
) -> None:
    task = Task("x", sized(width, height, [Shot(Path("x"))] * frames), "")
    estimate = (memory_of(task, by_network=True)[0] + module.PROCESS) / 1e9
    assert measured <= estimate + 0.03
    assert estimate <= 1.35 * measured


@pytest.mark.parametrize(("frames", "measured"), [(3, 1.07), (9, 1.16)])
def test_memory_with_a_network_that_paints_is_estimated_on_the_safe_side(
    frames: int, measured: float
) -> None:
    task = Task("x", sized(3000, 2000, [Shot(Path("x"))] * frames), "")
    estimate = (memory_of(task, painting=True)[0] + module.PROCESS) / 1e9
    assert measured <= estimate + 0.03
    assert estimate <= 1.35 * measured


def test_free_memory_is_known() -> None:
    available = available_memory()
    assert available is None or 1e7 < available < 1e14
    assert (available is not None) or not Path("/proc/meminfo").exists()
