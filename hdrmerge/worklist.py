"""A plan -> the worklist of a batch: where each set is written, and which unreadable files are part of it.

An unreadable file has no metadata to group it by. Left out, it would turn its set into a smaller one
that looks complete; so its name tells which set it is part of, and that set is not merged.
"""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from .bracket import Shot
from .errors import InputError
from .folder import Plan, Unreadable
from .group import HANDFUL
from .roll import name_parts, natural

Item = tuple[Path, int | None, Unreadable | None]
"""A file, the index of the set it is in, and what ails it."""


@dataclass(frozen=True)
class Task:
    """One set and what is written for it: the radiance file, and the preview if there is one.

    ``name`` is that of the outputs below the folder of the batch, without suffix.
    """

    name: str
    shots: tuple[Shot, ...]
    why: str
    outputs: tuple[Path, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    beside: tuple[Path, ...] = ()  # photographs that would be a set with the unreadable ones
    sure: bool = True  # False: worth a look, as `group.Found` has it

    @property
    def inputs(self) -> list[Path]:
        """Return all files of the set, those that can be merged first."""
        return [shot.path for shot in self.shots] + sorted(
            [*self.beside, *(file.path for file in self.unreadable)], key=natural
        )

    def refuse_unreadable(self) -> None:
        """Raise InputError for a set of which a file cannot be read."""
        if self.unreadable:
            others = f" (and {len(self.unreadable) - 1} more)" if len(self.unreadable) > 1 else ""
            without = "; remove it to merge the set without it" if self.shots else ""
            raise InputError(f"{self.unreadable[0].path}: {self.unreadable[0].reason}{others}{without}")


def worklist(plan: Plan, folders: Sequence[Path], out: Path, suffixes: Sequence[str]) -> list[Task]:
    """Return what is to be done, in the order of the plan, then the unreadable files of no set.

    A set of ``FOLDER/sub`` is written into ``out/sub``, with one output for each of ``suffixes``.
    """
    tasks = [Task(found.name, found.shots, found.why, sure=found.sure) for found in plan.grouping.sets]
    tasks += _with_unreadable(tasks, plan)
    names = _unique_names(tasks, [_absolute(folder) for folder in folders])
    return [
        replace(task, name=name, outputs=tuple(out / f"{name}{s}" for s in suffixes) if task.shots else ())
        for task, name in zip(tasks, names, strict=True)
    ]


def without_outputs(plan: Plan, outputs: Iterable[Path]) -> Plan:
    """Return a plan that does not speak of files that are outputs, where these lie among photographs."""
    ours = {os.path.realpath(path) for path in outputs}
    left_out = tuple(one for one in plan.grouping.left_out if os.path.realpath(one.path) not in ours)
    return replace(plan, grouping=replace(plan.grouping, left_out=left_out))


def photographs_of(plan: Plan) -> list[Path]:
    """Return every file that a plan speaks of."""
    in_sets = [shot.path for found in plan.grouping.sets for shot in found.shots]
    left_out = [one.path for one in plan.grouping.left_out]
    return in_sets + left_out + [one.path for one in plan.unreadable]


# --- unreadable files -----------------------------------------------------------------------------


def _with_unreadable(tasks: list[Task], plan: Plan) -> list[Task]:
    """Give the unreadable files to the sets they are part of; return a set without shots for the others.

    Among files of one folder and suffix, in the order of their names, they are part of the set within
    which they lie. At the edge of a set they are part of it where their number continues its numbers
    and it has fewer frames than most sets there, or is the only one. What then lies between two sets
    and is numbered through is one set, unless it is more than a set. A file of a shot that a set has
    in another file is not missed.
    """
    used = {_shot_of(shot.path) for task in tasks for shot in task.shots}
    unreadable = [file for file in plan.unreadable if _shot_of(file.path) not in used]
    rows: dict[tuple[Path, str], list[Item]] = {_place(file.path): [] for file in unreadable}
    items: list[Item] = [(shot.path, index, None) for index, task in enumerate(tasks) for shot in task.shots]
    items += [(one.path, None, None) for one in plan.grouping.left_out]
    items += [(file.path, None, file) for file in unreadable]
    for item in items:
        if _place(item[0]) in rows:
            rows[_place(item[0])].append(item)
    spoilt = []
    for place in sorted(rows):
        row = sorted(rows[place], key=lambda item: natural(item[0]))
        sizes = Counter(len(tasks[index].shots) for index in {item[1] for item in row} if index is not None)
        spans = [(index, list(span)) for index, span in itertools.groupby(row, lambda item: item[1])]
        for at, (index, span) in enumerate(spans):
            if index is not None:
                continue
            before = spans[at - 1][1][-1] if at else None
            after = spans[at + 1][1][0] if at + 1 < len(spans) else None
            rest = _given_to_neighbours(tasks, before, span, after, _usual_size(sizes))
            for chain in _chains(rest):
                if len(chain) <= (_usual_size(sizes) or HANDFUL) and any(file for _, _, file in chain):
                    spoilt.append(_spoilt(chain))
                else:
                    spoilt += [_spoilt([item]) for item in chain if item[2]]
    return spoilt


def _given_to_neighbours(
    tasks: list[Task], before: Item | None, span: list[Item], after: Item | None, usual: int | None
) -> list[Item]:
    """Give what is unreadable between two sets to these as far as it is part of them; return the rest."""
    earlier, later = before[1] if before else None, after[1] if after else None
    if earlier is not None and earlier == later:
        taken = [item for item in span if item[2]]
        return _give(tasks, earlier, taken, span)
    head = list(itertools.takewhile(lambda item: item[2], span))
    if before and earlier is not None and _continues(tasks[earlier], [before, *head], usual):
        span = _give(tasks, earlier, head, span)
    tail = list(itertools.takewhile(lambda item: item[2], reversed(span)))[::-1]
    if after and later is not None and _continues(tasks[later], [*tail, after], usual):
        span = _give(tasks, later, tail, span)
    return span


def _continues(task: Task, items: Sequence[Item], usual: int | None) -> bool:
    """Tell whether files at the edge of a set are part of it; one of ``items`` is the set's own."""
    frames = len(task.shots) + len(task.unreadable) + len(items) - 1
    return (usual is None or frames <= usual) and all(_follows(a[0], b[0]) for a, b in pairwise(items))


def _chains(items: Sequence[Item]) -> list[list[Item]]:
    """Part files where their numbers do."""
    chains: list[list[Item]] = []
    for item in items:
        if chains and _follows(chains[-1][-1][0], item[0]):
            chains[-1].append(item)
        else:
            chains.append([item])
    return chains


def _give(tasks: list[Task], index: int, taken: Sequence[Item], span: Sequence[Item]) -> list[Item]:
    files = [file for _, _, file in taken if file]
    tasks[index] = replace(tasks[index], unreadable=(*tasks[index].unreadable, *files))
    return [item for item in span if item not in taken]


def _spoilt(items: Sequence[Item]) -> Task:
    """Return the set that files would be of which some can be read."""
    names = dict.fromkeys((items[0][0].stem, items[-1][0].stem))
    beside = tuple(path for path, _, file in items if not file)
    unreadable = tuple(file for _, _, file in items if file)
    return Task("-".join(names), (), "what lies between two sets", (), unreadable, beside)


def _usual_size(sizes: Mapping[int, int]) -> int | None:
    """Return how many frames most sets have, the larger number of two; None for fewer than two sets."""
    return max(sizes, key=lambda size: (sizes[size], size)) if sum(sizes.values()) > 1 else None


def _shot_of(path: Path) -> tuple[Path, str]:
    """Return what the files of one shot, RAW and JPEG, have in common."""
    return path.parent, path.stem.casefold()


def _place(path: Path) -> tuple[Path, str]:
    return path.parent, path.suffix.lower()


def _follows(first: Path, second: Path) -> bool:
    """Tell whether the number of a second file is the next after the first's, and nothing else differs."""
    one, other = name_parts(first), name_parts(second)
    return one[0] == other[0] and one[1] is not None and other[1] in (one[1] + 1, one[1] - 9998)


# --- names ----------------------------------------------------------------------------------------


def _unique_names(tasks: Sequence[Task], folders: Sequence[Path]) -> list[str]:
    """Return a name for the outputs of each set, none of which is another's on any file system.

    Sets of one name are told apart by the suffix of their photographs, by the folder they were found
    in, or by a number.
    """
    homes: dict[Path, tuple[str, str]] = {}
    variants = []
    for task in tasks:
        parent = task.inputs[0].parent
        if parent not in homes:
            homes[parent] = _home_of(parent, folders)
        root, sub = homes[parent]
        suffix = task.inputs[0].suffix.lower().lstrip(".")
        variants.append([f"{sub}{task.name}", f"{sub}{task.name}-{suffix}", f"{root}/{sub}{task.name}"])
    alike = defaultdict(list)
    for number, (plain, *_) in enumerate(variants):
        alike[_folded(plain)].append(number)
    names = [""] * len(tasks)
    taken = {key for key, members in alike.items() if len(members) == 1}
    for members in alike.values():
        if len(members) == 1:
            names[members[0]] = variants[members[0]][0]
            continue
        for choice in zip(*(variants[number] for number in members), strict=True):
            keys = {_folded(name) for name in choice}
            if len(keys) == len(members) and not keys & taken:
                break
        else:
            plain = variants[members[0]][0]
            free = (n for i in itertools.count(1) if _folded(n := f"{plain}-{i}") not in taken)
            choice = tuple(itertools.islice(free, len(members)))
        for number, name in zip(members, choice, strict=True):
            names[number] = name
            taken.add(_folded(name))
    return names


def _home_of(parent: Path, folders: Sequence[Path]) -> tuple[str, str]:
    """Return the name of the given folder that a folder lies in, and its place below that: "sub/" or ""."""
    place = _absolute(parent)
    for folder in folders:
        if place.is_relative_to(folder):
            sub = place.relative_to(folder).as_posix()
            return folder.name, "" if sub == "." else f"{sub}/"
    return place.name, ""


def _absolute(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))  # links are not followed: they are places of their own


def _folded(name: str) -> str:
    """Return what a file system that ignores case and composition takes a name for."""
    return unicodedata.normalize("NFC", name).casefold()
