"""worklist: names that are nobody else's, and sets that an unreadable file spoils."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdrmerge.bracket import Shot
from hdrmerge.errors import InputError
from hdrmerge.folder import Plan, Unreadable
from hdrmerge.group import Found, Grouping, LeftOut
from hdrmerge.worklist import Task, photographs_of, without_outputs, worklist

OUT = Path("out")


def plan(*sets: list[str], left_out: list[str] = [], unreadable: list[str] = []) -> Plan:  # noqa: B006
    return Plan(
        Grouping(
            tuple(Found(tuple(Shot(Path(name)) for name in names), "because") for names in sets),
            tuple(LeftOut(Path(name), "a single photograph") for name in left_out),
        ),
        tuple(Unreadable(Path(name), "the file is empty") for name in unreadable),
    )


def files(folder: str, *numbers: int, suffix: str = "jpg") -> list[str]:
    return [f"{folder}/IMG_{number:04d}.{suffix}" for number in numbers]


def tasks_of(found: Plan, *folders: str, suffixes: tuple[str, ...] = (".exr", ".jpg")) -> list[Task]:
    return worklist(found, [Path(folder) for folder in folders or ("card",)], OUT, suffixes)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sets", "folders", "names"),
    [
        ([files("card", 1, 3)], ["card"], ["IMG_0001-IMG_0003"]),
        ([files("card/a/b", 1, 3)], ["card"], ["a/b/IMG_0001-IMG_0003"]),
        ([files("card/a/b", 1, 3)], ["./card/../card/a"], ["b/IMG_0001-IMG_0003"]),
        ([files("card", 1, 3)], ["card/IMG_0001.jpg", "card/IMG_0003.jpg"], ["IMG_0001-IMG_0003"]),
        ([files("card", 2, 1, 3)], ["card"], ["IMG_0002-IMG_0003"]),  # the order taken
        (
            [files("card", 1, 3), files("card", 1, 3, suffix="CR2")],
            ["card"],
            ["IMG_0001-IMG_0003-jpg", "IMG_0001-IMG_0003-cr2"],
        ),
        (
            [files("a/x", 1, 3), files("b/x", 1, 3)],
            ["a", "b"],
            ["a/x/IMG_0001-IMG_0003", "b/x/IMG_0001-IMG_0003"],
        ),
        ([["card/A.jpg", "card/B.jpg"], ["card/a.JPG", "card/b.JPG"]], ["card"], ["A-B-1", "A-B-2"]),
        (
            [["a/p/\u00e4.jpg", "a/p/b.jpg"], ["c/p/a\u0308.jpg", "c/p/b.jpg"], files("a/p", 1, 2)],
            ["a", "c"],
            ["a/p/\u00e4-b", "c/p/a\u0308-b", "p/IMG_0001-IMG_0002"],
        ),
        (  # a name made for one set is not another's
            [["c/A.jpg", "c/B.jpg"], ["c/a.JPG", "c/b.JPG"], ["c/A.jpg", "c/B-1.jpg"]],
            ["c"],
            ["A-B-2", "A-B-3", "A-B-1"],
        ),
    ],
)
def test_names(sets: list[list[str]], folders: list[str], names: list[str]) -> None:
    assert [task.name for task in tasks_of(plan(*sets), *folders)] == names


def test_outputs() -> None:
    (task,) = tasks_of(plan(files("card/a.b", 1, 3)))
    assert task.outputs == (OUT / "a.b/IMG_0001-IMG_0003.exr", OUT / "a.b/IMG_0001-IMG_0003.jpg")
    (task,) = tasks_of(plan(files("card", 1, 3)), suffixes=(".hdr",))
    assert task.outputs == (OUT / "IMG_0001-IMG_0003.hdr",)
    assert task.inputs == [Path("card/IMG_0001.jpg"), Path("card/IMG_0003.jpg")]
    task.refuse_unreadable()


# --- unreadable files -----------------------------------------------------------------------------

SIX = [files("card", 1, 2, 3), files("card", 4, 5, 6)]


@pytest.mark.parametrize(
    ("sets", "left_out", "unreadable", "spoilt"),
    [
        # Within a set, whatever the others are.
        ([files("card", 1, 3)], [], files("card", 2), {"IMG_0001-IMG_0003": 1}),
        ([*SIX, files("card", 7, 9)], [], files("card", 8), {"IMG_0007-IMG_0009": 1}),
        ([*SIX, files("card", 7, 10)], [], files("card", 8, 9), {"IMG_0007-IMG_0010": 2}),
        ([*SIX, files("card", 7, 9)], [], ["card/IMG_0007b.jpg"], {"IMG_0007-IMG_0009": 1}),
        # At the edge of the smaller set.
        ([*SIX, files("card", 7, 8)], [], files("card", 9), {"IMG_0007-IMG_0008": 1}),
        ([*SIX, files("card", 8, 9)], [], files("card", 7), {"IMG_0008-IMG_0009": 1}),
        (
            [*SIX, files("card", 8, 9), files("card", 10, 11, 12)],
            [],
            files("card", 7),
            {"IMG_0008-IMG_0009": 1},
        ),
        ([files("card", 1, 2)], [], files("card", 3), {"IMG_0001-IMG_0002": 1}),  # the only set
        # Not of the sets beside it, which are whole.
        (SIX, [], files("card", 7), {"IMG_0007": 1}),
        (SIX, [], files("card", 0), {"IMG_0000": 1}),
        ([files("card", 1, 2, 3), files("card", 5, 6, 7)], [], files("card", 4), {"IMG_0004": 1}),
        ([*SIX, files("card", 7, 8)], [], files("card", 12), {"IMG_0012": 1}),  # far from it
        ([*SIX, files("card", 7, 8)], [], ["card/notes.jpg"], {"notes": 1}),
        # What is left of the set is in none.
        (SIX, files("card", 7, 9), files("card", 8), {"IMG_0007-IMG_0009": 1}),
        (SIX, files("card", 7), files("card", 8, 9), {"IMG_0007-IMG_0009": 2}),
        ([], files("card", 1, 2), files("card", 3), {"IMG_0001-IMG_0003": 1}),
        ([], [], files("card", 1, 2, 3), {"IMG_0001-IMG_0003": 3}),
        (SIX, files("card", 7, 9, 20), files("card", 8), {"IMG_0007-IMG_0009": 1}),
        # Too much for one set: only what is certain.
        (SIX, files("card", 7, 8, 9, 10), files("card", 11), {"IMG_0011": 1}),
        (SIX, files("card", 7, 8, 10), files("card", 9, 11), {"IMG_0009": 1, "IMG_0011": 1}),
        ([], ["card/a.jpg"], ["card/b.jpg"], {"b": 1}),
        # Other folders and other kinds of files have sets of their own.
        ([files("card", 1, 3)], [], files("card/sub", 2), {"sub/IMG_0002": 1}),
        ([files("card", 1, 3, suffix="cr2")], [], files("card", 2), {"IMG_0002": 1}),
        # Another file of the shot is there.
        ([files("card", 1, 2, 3, suffix="cr2")], [], files("card", 2), {}),
    ],
)
def test_an_unreadable_file_spoils_its_set(
    sets: list[list[str]], left_out: list[str], unreadable: list[str], spoilt: dict[str, int]
) -> None:
    tasks = tasks_of(plan(*sets, left_out=left_out, unreadable=unreadable))
    assert {task.name: len(task.unreadable) for task in tasks if task.unreadable} == spoilt
    for task in tasks:
        if task.unreadable:
            with pytest.raises(InputError, match=f"{task.unreadable[0].path.name}: the file is empty"):
                task.refuse_unreadable()
        assert bool(task.outputs) == bool(task.shots)
    mentioned = [path for task in tasks for path in task.inputs]
    assert len(mentioned) == len(set(mentioned))


def test_the_message_tells_how_to_merge_the_rest() -> None:
    (task,) = tasks_of(plan(files("card", 1, 4), unreadable=files("card", 2, 3)))
    with pytest.raises(InputError) as caught:
        task.refuse_unreadable()
    assert str(caught.value) == (
        "card/IMG_0002.jpg: the file is empty (and 1 more); remove it to merge the set without it"
    )
    assert len(task.inputs) == 4


def test_outputs_among_the_photographs_are_none(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("single.jpg", "a-b.jpg")]
    (tmp_path / "link").symlink_to(tmp_path)
    found = without_outputs(plan(left_out=names), [tmp_path / "link" / "a-b.jpg", tmp_path / "gone.jpg"])
    assert photographs_of(found) == [Path(names[0])]


def test_many_files_take_no_time() -> None:
    sets = [files("card", i, i + 1, i + 2) for i in range(1, 9000, 3)]
    unreadable = files("card", *range(9001, 9900, 2))
    left_out = files("card", *range(9002, 9900, 2))
    tasks = tasks_of(plan(*sets, left_out=left_out, unreadable=unreadable))
    assert len(tasks) == 3000 + len(unreadable)
