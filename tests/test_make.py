"""Examples made by number: the same ones by whomever, and however often the work is interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import SIZE, SQUARE, write_scenes

from hdrmerge.errors import BracketError, InputError, OutputError
from hdrmerge.training import make
from hdrmerge.training.make import Made, Order, brackets_in, data_in, make_examples, origin_of, skipped_in


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), "a", "b", "c")


@pytest.fixture
def order(scenes: Path, tmp_path: Path) -> Order:
    return Order(scenes, tmp_path / "examples", size=SIZE, square=SQUARE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


def test_as_many_brackets_as_wanted(order: Order) -> None:
    told: list[tuple[int, int]] = []
    made = make_examples(order, 3, tell=lambda made, wanted: told.append((made, wanted)))
    assert made.brackets == len(brackets_in(order.folder)) == 3
    assert made.skipped == len(skipped_in(order.folder))
    assert [made for made, _ in told] == sorted(made for made, _ in told)
    assert told[-1] == (3, 3)
    shapes = {np.load(path).shape[1:] for path in order.folder.glob("*.npy")}
    assert shapes == {(SQUARE, SQUARE)}
    assert not list(order.folder.glob("*.part"))


def test_whole_brackets_are_of_the_scenes_set_aside(order: Order, tmp_path: Path) -> None:
    whole = Order(order.scenes, tmp_path / "held_out", whole=True, size=SIZE)
    make_examples(whole, 1)
    make_examples(order, 1)
    (path,) = whole.folder.glob("*.npy")
    assert path.stem.isdecimal()
    assert np.load(path).shape[1:] == SIZE
    assert origin_of(whole.folder)["scenes"] == ["a"]
    assert origin_of(order.folder)["scenes"] == ["b", "c"]


def test_an_interrupted_run_goes_on(order: Order, tmp_path: Path) -> None:
    """A kill between two squares of a bracket leaves it without the one that ends in 0."""
    make_examples(order, 3)
    whole = files(order.folder)

    def stop(made: int, wanted: int) -> None:
        if made == 1:
            raise KeyboardInterrupt

    again = Order(order.scenes, tmp_path / "again", size=SIZE, square=SQUARE)
    with pytest.raises(KeyboardInterrupt):
        make_examples(again, 3, tell=stop)
    assert len(brackets_in(again.folder)) == 1
    for path in again.folder.glob("*_0.npy"):
        path.unlink()
    assert brackets_in(again.folder) == set()
    with (again.folder / "skipped.txt").open("a") as journal:
        journal.write("17")  # torn
    make_examples(again, 3)
    assert files(again.folder) == whole


def test_more_are_added_and_none_is_made_twice(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    make_examples(order, 1)
    first = files(order.folder)
    asked = []
    bracket = make.make_bracket
    monkeypatch.setattr(make, "make_bracket", lambda *a: asked.append(a[1]) or bracket(*a))
    make_examples(order, 2)
    assert set(asked).isdisjoint(brackets_in(order.folder) - {max(brackets_in(order.folder))})
    assert files(order.folder).items() >= first.items()


def test_with_enough_there_scenes_are_not_needed(order: Order, tmp_path: Path) -> None:
    make_examples(order, 1)
    assert make_examples(Order(tmp_path / "gone", order.folder), 1).brackets == 1


def test_the_seed_changes_everything_and_none_is_as_good_as_zero() -> None:
    """Examples made before there were seeds stay what they are."""
    drawn = [np.random.default_rng(entropy).random() for entropy in ([5, 3], [5, 3, 0], [5, 3, 1])]
    assert drawn[0] == drawn[1] != drawn[2]


def test_brackets_that_fail_are_skipped_and_counted(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    bracket = make.make_bracket

    def sometimes(scenes: list[np.ndarray], number: int, order: Order) -> list[make.Example]:
        if number == 0:
            raise BracketError("no two frames\nare alike")
        return [] if number == 1 else bracket(scenes, number, order)

    monkeypatch.setattr(make, "make_bracket", sometimes)
    made = make_examples(order, 1)
    skipped = skipped_in(order.folder)
    assert skipped[0] == "failed: no two frames are alike"
    assert skipped[1] == "nothing moves"
    assert made == Made(1, len(skipped) - 1, 1)


def test_hopeless_scenes_end_it(order: Order, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "make_bracket", lambda *a: [])
    with pytest.raises(InputError, match="most brackets of these scenes give no example"):
        make_examples(order, 100)


def test_examples_are_not_mixed(order: Order) -> None:
    make_examples(order, 1)
    with pytest.raises(InputError, match="differ in their seed"):
        make_examples(Order(order.scenes, order.folder, seed=1, size=SIZE), 2)
    with pytest.raises(InputError, match="differ in their scenes"):
        make_examples(Order(order.scenes, order.folder, whole=True, size=SIZE), 2)


def test_a_disk_too_small_is_told_of_before_the_work(order: Order) -> None:
    with pytest.raises(OutputError, match=r"GB free, and the examples take \d+"):
        make_examples(order, 10**9)


def test_a_card_can_say_what_it_was_trained_on(order: Order) -> None:
    assert data_in(order.folder) == ""
    make_examples(order, 2)
    number = len(files(order.folder))
    assert data_in(order.folder) == f"2 HDR scenes; 2 brackets simulated from them ({number} examples)"
    assert json.loads((order.folder / "scenes.json").read_text())["seed"] == 0


def test_processes_make_the_same(order: Order, tmp_path: Path) -> None:
    make_examples(order, 3)
    others = Order(order.scenes, tmp_path / "others", size=SIZE, square=SQUARE)
    make_examples(others, 3, workers=2)
    assert files(others.folder) == files(order.folder)
    assert (others.folder / "skipped.txt").read_bytes() == (order.folder / "skipped.txt").read_bytes()


@pytest.mark.slow
def test_errors_in_processes_arrive(tmp_path: Path) -> None:
    scenes = write_scenes(tmp_path / "scenes", "a", "b")
    (scenes / "b.exr").write_bytes(b"v/1\x01 and no more")
    with pytest.raises(InputError, match=r"b\.exr"):
        make_examples(Order(scenes, tmp_path / "examples", size=SIZE), 2, workers=2)
