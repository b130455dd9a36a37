"""Shots -> brackets, and a reason for every shot that is in none.

Each roll is cut into sets and leftovers so that the sets explain as much as possible: a dynamic
programme over where each set ends, in which `judge.judge` scores one. Exposures within a set
differ, so that sets which follow each other without a pause part where an exposure comes again. A
folder that holds nothing else than a few shots may be one bracket taken slowly, or stripped of its
metadata; ``sure`` and ``why`` say so.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .bracket import Shot
from .errors import BracketError
from .judge import (
    GAP_SURE,
    MOST,
    SAME,
    Take,
    Verdict,
    compensation,
    judge,
    metered_anew,
    order_quality,
    same_optics,
    shortest_pause,
    summary,
)
from .leftover import reasons
from .roll import is_raw, name_parts, natural, one_roll, rolls

_LONE_PAUSE = 60.0  # [s] between the frames of a folder that holds nothing else
_LONE_RANGE = 1.0  # [stops] that such frames differ by at least

HANDFUL = 9
"""Most photographs of a folder that are taken as one set although they do not state exposures."""


@dataclass(frozen=True)
class Found:
    """The shots of one bracket in the order taken, and why they are one; not ``sure`` is worth a look."""

    shots: tuple[Shot, ...]
    why: str
    sure: bool = True

    @property
    def name(self) -> str:
        """What a merge of these shots is called: ``IMG_0001-IMG_0003``."""
        return f"{self.shots[0].path.stem}-{self.shots[-1].path.stem}"


@dataclass(frozen=True)
class LeftOut:
    """A photograph that is in no set; ``reason`` is one line."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Grouping:
    """Where every shot went: into one of the sets, or among those left out."""

    sets: tuple[Found, ...]
    left_out: tuple[LeftOut, ...]


def find_brackets(
    shots: Iterable[Shot],
    gap: float | None = None,
    per_set: int | None = None,
    unreadable: Sequence[Path] = (),
) -> Grouping:
    """Find the brackets among shots, which may come from several cameras and folders in any order.

    ``gap`` is the longest pause [s] between two frames of a set, in place of those in `judge`.
    ``per_set`` takes that many consecutive shots of one camera and size as a set, whatever they state;
    files that are ``unreadable`` are counted, and spoil their set. Raises `BracketError` for values of
    these that make no sense.
    """
    if per_set is not None and not 2 <= per_set <= 1000:
        raise BracketError(f"--per-set {per_set}: a set takes at least two photographs, at most 1000")
    if gap is not None and not 0 <= gap < math.inf:
        raise BracketError(f"--gap {gap:g}: give seconds, 0 or more")
    shots = list(shots)
    sets: list[Found] = []
    left: list[LeftOut] = []
    for roll in rolls(shots):
        found, rest = _by_number(roll, per_set, gap, unreadable) if per_set else _by_evidence(roll, gap)
        sets += found
        left += rest
    if per_set is None:
        sets, left = _with_lone_sets(shots, sets, left, gap)
    sets.sort(key=lambda found: (natural(found.shots[0].path.parent), _first_taken(found)))
    return Grouping(tuple(sets), tuple(sorted(left, key=lambda one: natural(one.path))))


def _first_taken(found: Found) -> tuple[bool, float, object]:
    first = found.shots[0]
    taken = 0.0 if first.taken_at is None else (first.taken_at - first.taken_at.min).total_seconds()
    return first.taken_at is None, taken, natural(first.path)


# --- by what the shots state ----------------------------------------------------------------------

_USUAL = 0.2  # what it adds to a set's score that the camera made others like it

Cut = tuple[int, int, Verdict]
"""Start, end and verdict of a set in a roll."""


def _by_evidence(roll: list[Take], gap: float | None) -> tuple[list[Found], list[LeftOut]]:
    """Cut a roll twice: what the camera did most shows in the first cuts and helps with the second."""
    candidates = [_candidates(roll, start, gap) for start in range(len(roll))]
    cuts = _best_cuts(candidates, lambda cut: 0.0)
    usual = Counter(_signature(roll[start:end]) for start, end, _ in cuts)
    longest = max((end - start for start, end, _ in cuts if _is_marked(roll[start])), default=0)
    pairs: list[Cut] = []
    if longest > 2:  # then whoever took two marked frames stopped halfway
        pairs = [cut for row in candidates for cut in row if _is_marked_pair(roll, cut)]
        candidates = [[cut for cut in row if not _is_marked_pair(roll, cut)] for row in candidates]
    cuts = _best_cuts(candidates, lambda cut: _USUAL if usual[_signature(roll[cut[0] : cut[1]])] > 1 else 0.0)
    found = [Found(tuple(take.shot for take in roll[a:b]), verdict.why) for a, b, verdict in cuts]
    why_not = reasons(roll, [(start, end) for start, end, _ in cuts], gap)
    broken = f"only 2 frames of an AEB set, of which this camera took {longest} elsewhere; merge them by name"
    for start, end, _ in pairs:
        if start in why_not and end - 1 in why_not:
            why_not |= dict.fromkeys((start, end - 1), broken)
    return found, [LeftOut(roll[i].shot.path, reason) for i, reason in why_not.items()]


def _is_marked(take: Take) -> bool:
    return take.shot.exposure_mode == "bracket"


def _is_marked_pair(roll: Sequence[Take], cut: Cut) -> bool:
    return cut[1] - cut[0] == 2 and _is_marked(roll[cut[0]])


def _candidates(roll: list[Take], start: int, gap: float | None) -> list[Cut]:
    """Return every set that could begin at a place."""
    found = []
    end = start + 1
    while end < len(roll) and end - start < MOST and _continues(roll[start:end], roll[end], gap):
        end += 1
        verdict = judge(roll[start:end], gap)
        if verdict is not None:
            found.append((start, end, verdict))
    return found


def _continues(takes: list[Take], take: Take, gap: float | None) -> bool:
    """Tell whether a shot may belong to the set that the ones before it begin."""
    last = takes[-1]
    if math.isnan(last.light) or math.isnan(take.light) or not same_optics(last.shot, take.shot):
        return False
    if shortest_pause(last, take) > (GAP_SURE if gap is None else gap):
        return False
    if take.second is None and not _next_by_name(last.shot.path, take.shot.path):
        return False
    return not any(_repeats(other, take) for other in takes)


def _next_by_name(a: Path, b: Path) -> bool:
    first, second = name_parts(a)[1], name_parts(b)[1]
    return first is None or second is None or second - first in (1, -9998)


def _repeats(a: Take, b: Take) -> bool:
    """Tell whether two shots have one exposure; a camera at the end of its speeds marks such frames."""
    if abs(a.light - b.light) >= SAME:
        return False
    biases = a.shot.exposure_bias, b.shot.exposure_bias
    marked = a.shot.exposure_mode == b.shot.exposure_mode == "bracket"
    return not marked or biases[0] is None or biases[1] is None or abs(biases[0] - biases[1]) < SAME


def _best_cuts(candidates: Sequence[Sequence[Cut]], bonus: Callable[[Cut], float]) -> list[Cut]:
    """Choose the sets that explain a roll best, from what could begin at each place."""
    best = [0.0] * (len(candidates) + 1)
    chosen: list[Cut | None] = [None] * len(candidates)
    for start in reversed(range(len(candidates))):
        best[start] = best[start + 1]
        for one in candidates[start]:
            score = one[2].score + bonus(one) + best[one[1]]
            if score > best[start]:
                best[start], chosen[start] = score, one
    cuts, at = [], 0
    while at < len(candidates):
        cut = chosen[at]
        if cut is not None:
            cuts.append(cut)
        at = cut[1] if cut is not None else at + 1
    return cuts


def _signature(takes: Sequence[Take]) -> tuple[int, ...]:
    """Return what the sets of one camera have in common: the order of their exposures, 0 the darkest."""
    lights = sorted(take.light for take in takes)
    return tuple(lights.index(take.light) for take in takes)


# --- by number ------------------------------------------------------------------------------------


def _by_number(
    roll: list[Take], per_set: int, gap: float | None, unreadable: Sequence[Path]
) -> tuple[list[Found], list[LeftOut]]:
    """Take every so many consecutive shots of one size as a set; a gap, where given, starts anew."""
    found, left = [], []
    for run in _runs(_with_unreadable(roll, unreadable), gap):
        whole = len(run) - len(run) % per_set
        for at in range(0, len(run), per_set):
            lot = run[at : at + per_set]
            shots = tuple(take.shot for take in lot if isinstance(take, Take))
            bad = [path.name for path in lot if isinstance(path, Path)]
            reason = f"--per-set {per_set}: "
            if at == whole:
                reason += f"{len(lot)} left over of {len(run)} of one camera and size"
            elif bad:
                reason += f"{bad[0]}, which belongs with it, cannot be read"
            else:
                found.append(Found(shots, f"--per-set {per_set}"))
                continue
            left += [LeftOut(shot.path, reason) for shot in shots]
    return found, left


def _with_unreadable(roll: list[Take], unreadable: Sequence[Path]) -> list[Take | Path]:
    """Put files that cannot be read in their places by name, where the roll is in that order."""
    places = [natural(take.shot.path) for take in roll]
    slots: list[Take | Path] = list(roll)
    if places != sorted(places):
        return slots
    kinds = {_name_kind(take.shot.path) for take in roll}
    for path in sorted(unreadable, key=natural, reverse=True):
        if _name_kind(path) in kinds:
            slots.insert(bisect(places, natural(path)), path)
    return slots


def _name_kind(path: Path) -> tuple[Path, bool, str]:
    return path.parent, is_raw(path), name_parts(path)[0]


def _runs(slots: list[Take | Path], gap: float | None) -> list[list[Take | Path]]:
    runs: list[list[Take | Path]] = [[]]
    last: Take | None = None
    for slot in slots:
        if isinstance(slot, Take):
            paused = last is not None and gap is not None and shortest_pause(last, slot) > gap
            if last is not None and (paused or last.shot.upright_size != slot.shot.upright_size):
                runs.append([])
            last = slot
        runs[-1].append(slot)
    return runs


# --- folders that hold nothing else ---------------------------------------------------------------


def _with_lone_sets(
    shots: Sequence[Shot], sets: list[Found], left: list[LeftOut], gap: float | None
) -> tuple[list[Found], list[LeftOut]]:
    """Take what a folder without a set holds as one, where it may well be."""
    folders: dict[Path, list[Shot]] = defaultdict(list)
    for shot in shots:
        folders[shot.path.parent].append(shot)
    taken = {shot.path.parent for found in sets for shot in found.shots}
    for folder, inside in folders.items():
        lone = None if folder in taken else _lone_set(inside, gap)
        if lone is not None:
            sets = [*sets, lone[0]]
            left = [one for one in left if one.path.parent != folder] + lone[1]
    return sets, left


def _lone_set(shots: Sequence[Shot], gap: float | None) -> tuple[Found, list[LeftOut]] | None:
    """Return a folder's only set and the repeated exposures it leaves out; None where that is doubtful.

    Frames that state their exposures differ by a stop or more, were taken within minutes, and not
    metered one by one. Where exposures are missing, a handful of one size is enough.
    """
    takes = one_roll(shots)
    if takes is None or not 2 <= len(takes) <= MOST or len({shot.upright_size for shot in shots}) > 1:
        return None
    slowest = max(shortest_pause(a, b) for a, b in pairwise(takes))
    if slowest > (_LONE_PAUSE if gap is None else gap):
        return None
    different: list[Take] = []
    repeated: list[LeftOut] = []
    for take in takes:
        first = next((other for other in different if abs(other.light - take.light) < SAME), None)
        if first is None:
            different.append(take)
        else:
            reason = f"the same exposure as {first.shot.path.name}, which is in the folder's set"
            repeated.append(LeftOut(take.shot.path, reason))
    why = "nothing else in the folder: "
    if any(math.isnan(take.light) for take in takes):
        if repeated or len(takes) > HANDFUL:
            return None
        why += f"{len(takes)} photographs of one size that do not all state their exposures"
    elif 3 * len(repeated) > len(takes) or not _set_by_hand(different):
        return None
    else:
        why += summary(different)
    return Found(tuple(take.shot for take in different), why, sure=False), repeated


def _set_by_hand(takes: Sequence[Take]) -> bool:
    """Tell whether exposures differ because somebody wanted them to."""
    lights = [take.light for take in takes]
    if len(takes) < 2 or max(lights) - min(lights) < _LONE_RANGE or metered_anew(takes):
        return False
    wanted = all(take.shot.exposure_mode == "manual" for take in takes) or compensation(takes) == "closely"
    return wanted or order_quality(lights) > 0
