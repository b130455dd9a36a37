"""Shots that no set took -> the reason why, one line each, with the remedy where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from .judge import GAP, MOST, SAME, Take, judge, metered_anew, same_optics, shortest_pause

_SLOWEST = 60.0  # [s] between shots that are still worth a hint
_WORTH_A_HINT = 1.0  # [stops] that their exposures differ by


def reasons(roll: Sequence[Take], cuts: Sequence[tuple[int, int]], gap: float | None) -> dict[int, str]:
    """Return why each shot of a roll outside its sets (start, end) is in none, by its place."""
    reach = GAP if gap is None else gap
    sets = {place: cut for cut in cuts for place in (cut[0], cut[1] - 1)}
    edges = [0, *(edge for cut in cuts for edge in cut), len(roll)]
    found: dict[int, str] = {}
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        hints = _slow_sets(roll[start:end], reach)
        bursts = _bursts(roll[start:end], reach)
        close = _close_runs(roll[start:end], reach)
        for i in range(start, end):
            at = i - start
            found[i] = (
                _unusable(roll[i])
                or bursts.get(at)
                or hints.get(at)
                or _beside(roll, i, sets, reach)
                or close.get(at)
                or _alone(roll, i)
            )
    return found


def _unusable(take: Take) -> str:
    if not math.isnan(take.light):
        return ""
    return "it states no exposure time; --per-set N takes every N files of a camera, in order"


def _bursts(run: Sequence[Take], reach: float) -> dict[int, str]:
    """Return a reason for shots that follow one of the same exposure, or that one follows."""

    def alike(a: Take, b: Take) -> bool:
        return abs(a.light - b.light) < SAME and same_optics(a.shot, b.shot) and _near(a, b, reach)

    return {
        i: f"one of {end - start} photographs in a row with the same exposure"
        for start, end in _chains(run, alike)
        for i in range(start, end)
        if end - start > 1
    }


def _slow_sets(run: Sequence[Take], reach: float) -> dict[int, str]:
    """Return a hint for shots that would be a set if more time were allowed between them."""
    found: dict[int, str] = {}
    paced = [replace(take, second=10.0 * i) for i, take in enumerate(run)]  # as if time did not matter
    at = 0
    while at < len(run):
        end = at + 1
        while end < min(len(run), at + MOST) and _may_be_one(run[at:end], run[end]):
            end += 1
        ends = (stop for stop in range(end, at + 1, -1) if judge(paced[at:stop], math.inf) is not None)
        end = next(ends, at + 1)
        slowest = max((shortest_pause(a, b) for a, b in pairwise(run[at:end])), default=0.0)
        lights = [take.light for take in run[at:end]]
        if slowest > reach and max(lights) - min(lights) >= _WORTH_A_HINT:
            first, last = run[at].shot.path.stem, run[end - 1].shot.path.stem
            hint = (
                f"{first} to {last} may be a set, but {slowest:.0f} s pass between its frames; "
                f"--gap {math.ceil(slowest)} takes it"
            )
            found |= dict.fromkeys(range(at, end), hint)
        at = end
    return found


def _may_be_one(takes: Sequence[Take], take: Take) -> bool:
    return (
        same_optics(takes[-1].shot, take.shot)
        and shortest_pause(takes[-1], take) <= _SLOWEST
        and all(abs(other.light - take.light) >= SAME for other in takes)
    )


def _beside(roll: Sequence[Take], i: int, sets: Mapping[int, tuple[int, int]], reach: float) -> str:
    """Return the reason for a shot that touches a set which has its exposure already."""
    for edge in (i - 1, i + 1):
        first, second = min(i, edge), max(i, edge)
        if edge in sets and _near(roll[first], roll[second], reach):
            for other in roll[slice(*sets[edge])]:
                if abs(other.light - roll[i].light) < SAME:
                    return f"the set beside it has this exposure already, in {other.shot.path.name}"
    return ""


def _close_runs(run: Sequence[Take], reach: float) -> dict[int, str]:
    """Return the reasons for shots that follow each other closely and still are no set."""
    found: dict[int, str] = {}
    for start, end in _chains(run, lambda a, b: _near(a, b, reach) and same_optics(a.shot, b.shot)):
        takes = run[start:end]
        if len(takes) == 1:
            beside = [*run[max(0, start - 1) : start], takes[0], *run[end : end + 1]]
            if not any(_near(a, b, reach) for a, b in pairwise(beside)):
                continue
            reason = "the pictures taken just before or after it differ in size, lens or focal length"
        elif metered_anew(takes):
            reason = "the camera metered it and its neighbours one by one, which is no bracket"
        elif takes[0].second is None:
            continue
        elif len(takes) == 2:
            reason = f"only two, {abs(takes[0].light - takes[1].light):.1f} EV apart; merge them by name"
        else:
            reason = f"{len(takes)} in a row whose exposures follow no pattern; merge them by name"
        found |= dict.fromkeys(range(start, end), reason)
    return found


def _alone(roll: Sequence[Take], i: int) -> str:
    if roll[i].shot.exposure_mode == "bracket":
        return "marked as AEB by the camera, but the frames that belong to it are not beside it"
    pauses = [shortest_pause(a, b) for a, b in pairwise(roll[max(0, i - 1) : i + 2])]
    if roll[i].second is None:
        return "no date, and the exposures of the files around it follow no pattern; --per-set N takes them"
    if not pauses:
        return "the only photograph of this camera here"
    return f"a single photograph: {_duration(min(pauses))} from the next"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.0f} h"


def _near(a: Take, b: Take, reach: float) -> bool:
    return shortest_pause(a, b) <= reach


def _chains(run: Sequence[Take], linked: Callable[[Take, Take], bool]) -> list[tuple[int, int]]:
    """Return where the parts of a run begin and end within which each shot is linked to the next."""
    ends = [i + 1 for i, (a, b) in enumerate(pairwise(run)) if not linked(a, b)]
    return list(pairwise([0, *ends, len(run)])) if run else []
