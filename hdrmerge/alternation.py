"""Which frame of a sequence has which exposure: stated in a list or a pattern, and seen in the brightness.

A camera that alternates exposures makes the brightness of its frames jump in a fixed order. How far it
jumps differs from scene to scene, and what moves disturbs it; so the order is not read from single frames.
The number of frames after which it repeats is the one that explains the jumps of most stretches of the clip.
Where in it each frame is follows by dynamic programming over all jumps (Viterbi 1967): a cut to another
scene spoils one jump, and its cost is limited; a frame that the camera dropped is one place where the order
begins anew, which costs more than any single jump.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import ExposureError, InputError

Double = NDArray[np.float64]
Whole = NDArray[np.intp]

LONGEST = 5  # frames after which a pattern repeats, at most
STRETCH = 24  # frames over which the pattern is looked for at a time
CLEAR = 1 / 3  # share of the stretches in which nothing may disturb the pattern
EXPLAINED = 0.5  # share of the jumps that may be left unexplained
LEAST = 0.012  # [code] mean jump between frames that is no flicker
ALIKE = 0.02  # [code] difference of brightness below which two places of a pattern are one exposure
FITS = 0.7  # correlation of a stated pattern with the brightness
SLIPS = 0.05  # share of the frames at which the order may begin anew
APART = 0.25  # [stops] exposures closer than this are one
FARTHEST = 8  # frames to the neighbours of another exposure, at most


# --- what is stated -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """Exposures given by hand: a repeating ``pattern`` [s], or the lines of a list (name, seconds)."""

    pattern: tuple[float, ...] = ()
    listed: tuple[tuple[str, float], ...] = ()
    origin: str = "--exposures"

    def for_frames(self, names: Sequence[str] | None, count: int) -> tuple[float, ...]:
        """Return the listed exposures [s] of the frames: by the ``names`` of stills, in order for a clip."""
        if names is None:
            if len(self.listed) != count:
                raise ExposureError(
                    f"{self.origin}: {len(self.listed)} lines for {count} frames; write one a frame, in order"
                )
            return tuple(seconds for _, seconds in self.listed)
        known = {Path(name).name: seconds for name, seconds in self.listed}
        known |= {Path(name).stem: seconds for name, seconds in self.listed}
        missing = [name for name in names if name not in known and Path(name).stem not in known]
        if missing:
            raise ExposureError(
                f"{self.origin}: no line for {missing[0]} ({len(missing)} of {count} frames are missing); "
                "write `file seconds`, a line a frame"
            )
        return tuple(known[name] if name in known else known[Path(name).stem] for name in names)


def read_stated(text: str) -> Stated:
    """Read what --exposures says: the name of a file with a line a frame, else a pattern `1/500,1/60`.

    >>> read_stated("1/500,1/60").pattern == (1 / 500, 1 / 60)
    True
    """
    path = Path(text)
    try:
        if path.is_file():
            return _read_list(path)
    except OSError:  # a pattern too long for a name
        pass
    pattern = [_seconds(part) for part in text.split(",")]
    known = tuple(seconds for seconds in pattern if seconds is not None)
    if len(known) < len(pattern):
        raise ExposureError(
            f"--exposures {text}: neither a file nor times in seconds; write 1/500,1/60 or name a file"
        )
    if max(known) < 1.05 * min(known):
        raise ExposureError(f"--exposures {text}: one exposure does not alternate; give two or more")
    for n in range(1, len(known)):  # a pattern written twice is the same pattern
        if len(known) % n == 0 and known == known[:n] * (len(known) // n):
            return Stated(known[:n])
    return Stated(known)


def _read_list(path: Path) -> Stated:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: no list of exposures; write `file seconds`, a line a frame") from None
    found = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        seconds = _seconds(words[1]) if len(words) > 1 else None
        if seconds is None:
            raise ExposureError(
                f"{path}: line {number} says {line.strip()[:60]!r}; write `file seconds`, as in 001.jpg 1/500"
            )
        found.append((words[0], seconds))
    if not found:
        raise ExposureError(f"{path}: no exposures in it; write `file seconds`, a line a frame")
    return Stated(listed=tuple(found), origin=str(path))


def _seconds(text: str) -> float | None:
    """Return a positive time [s] written as 0.002 or 1/500, None for anything else."""
    above, slash, below = text.strip().partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) and 1e-9 < value < 1e9 else None


# --- what is seen ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Beat:
    """The order of brightness in a sequence of N frames.

    ``profile`` (n,) is the brightness [code] of the n places of the pattern, mean 0; ``place`` (N,) is
    where in it each frame is; ``misfit`` (N - 1,) [code] how far each jump is from the expected one.
    ``slips`` are frames at which the order begins anew.
    """

    profile: Double
    place: Whole
    misfit: Double
    slips: tuple[int, ...] = ()

    @property
    def period(self) -> int:
        return len(self.profile)


def brightness_of(levels: NDArray[np.float32]) -> Double:
    """Return one number for each frame's brightness (N,) [code], of quantiles (N, Q) of its codes."""
    return np.asarray(np.mean(levels, axis=1, dtype=np.float64))


def find_beat(brightness: Double, longest: int = LONGEST) -> Beat | None:
    """Find the pattern in the brightness (N,) of frames; None for a sequence that does not alternate."""
    jumps = np.diff(brightness)
    if len(jumps) < 4:
        if len(jumps) and abs(jumps).min() > LEAST and _zigzag(jumps):
            profile = np.array([0.0, float(jumps[0])])
            return _followed(jumps, profile - profile.mean())
        return None
    best: dict[int, float] = {}
    stretches = _stretches(len(jumps))
    for n in range(1, min(longest, len(jumps) // 2) + 1):
        best[n] = float(np.quantile([_unexplained(jumps[part], n) for part in stretches], CLEAR))
    still = float(np.median([np.abs(jumps[part]).mean() for part in stretches]))
    least = min(best.values())
    if still < LEAST or least > EXPLAINED * still:
        return None
    period = min(n for n, left in best.items() if left <= 1.3 * least + 0.02 * still)
    if period == 1:
        return None
    profile = _profile(jumps, stretches, period)
    return _followed(jumps, profile) if np.ptp(profile) > LEAST else None


def _zigzag(jumps: Double) -> bool:
    return bool((jumps[1:] * jumps[:-1] < 0).all())


def _stretches(count: int) -> list[slice]:
    """Return parts of at least `STRETCH` jumps that cover the sequence."""
    parts = max(1, count // STRETCH)
    edges = np.linspace(0, count, parts + 1).astype(int)
    return [slice(a, b) for a, b in pairwise(edges.tolist())]


def _medians(jumps: Double, n: int) -> Double:
    """Return the median jump at each place of a pattern of ``n``; together they lead back to the start."""
    found = np.array([np.median(jumps[k::n]) for k in range(n)])
    return np.asarray(found - found.mean())


def _unexplained(jumps: Double, n: int) -> float:
    """Return the mean size of what a pattern of ``n`` leaves of the jumps, fitted to n of them.

    Single jumps count no more than a cut between scenes may.
    """
    if len(jumps) < 2 * n:
        return math.inf
    left = np.abs(jumps - np.resize(_medians(jumps, n), len(jumps)))
    most = 3.0 * float(np.median(np.abs(jumps))) + 1e-9
    return float(np.minimum(left, most).mean()) * len(jumps) / (len(jumps) - n)


def _profile(jumps: Double, stretches: Sequence[slice], n: int) -> Double:
    """Return the brightness of the places of the pattern, from the stretch that shows it most clearly."""
    clear = min(
        stretches, key=lambda part: _unexplained(jumps[part], n) / (np.abs(jumps[part]).mean() + LEAST)
    )
    profile = np.concatenate([[0.0], np.cumsum(_medians(jumps[clear], n))[:-1]])
    # The first place is where that stretch begins; which one it is called does not matter.
    return np.asarray(profile - profile.mean())


def _followed(jumps: Double, profile: Double) -> Beat:
    """Find the place of every frame in the pattern: Viterbi over the jumps."""
    n, spread = len(profile), float(np.ptp(profile))
    expected = profile[None, :] - profile[:, None]  # [from, to]
    anew = np.full((n, n), 2.0 * spread)  # the cost of going on anywhere but at the next place
    anew[np.arange(n), (np.arange(n) + 1) % n] = 0.0
    cost, origin = np.zeros(n), np.zeros((len(jumps), n), np.intp)
    for i, jump in enumerate(jumps):
        total = cost[:, None] + np.minimum(np.abs(jump - expected), 2.0 * spread) + anew
        origin[i] = total.argmin(axis=0)
        cost = total.min(axis=0)
    place = np.empty(len(jumps) + 1, np.intp)
    place[-1] = int(cost.argmin())
    for i in range(len(jumps) - 1, -1, -1):
        place[i] = origin[i, place[i + 1]]
    misfit = np.abs(jumps - expected[place[:-1], place[1:]])
    slips = np.flatnonzero(place[1:] != (place[:-1] + 1) % n) + 1
    return Beat(profile, place, misfit, tuple(int(k) for k in slips))


def matched(beat: Beat | None, pattern: Sequence[float], name: str) -> Double:
    """Return the exposure (N,) of every frame, a stated ``pattern`` [s] put where the brightness has it.

    Raises `ExposureError` where the frames do not alternate, or otherwise than stated.
    """
    said = ",".join(f"{seconds:g}" for seconds in pattern)
    if beat is None:
        raise ExposureError(
            f"{name}: the brightness of its frames does not alternate, but --exposures says {said} s; "
            "is it the right clip?"
        )
    if beat.period != len(pattern):
        raise ExposureError(
            f"{name}: its brightness repeats every {beat.period} frames, the pattern of --exposures has "
            f"{len(pattern)} ({said} s); give {beat.period} times"
        )
    refuse_broken(beat, name)
    stops = np.log2(np.asarray(pattern, np.float64))
    fits = [_correlation(beat.profile, np.roll(stops, -shift)) for shift in range(len(pattern))]
    shift = int(np.argmax(fits))
    if fits[shift] < FITS:
        order = np.argsort(np.argsort(beat.profile)) + 1
        raise ExposureError(
            f"{name}: its frames go {'-'.join(map(str, order))} from dark (1) to bright, in no place like "
            f"--exposures {said} s; give the times in the order of the frames"
        )
    return np.asarray(np.roll(np.asarray(pattern, np.float64), -shift)[beat.place])


def refuse_broken(beat: Beat, name: str) -> None:
    """Raise `ExposureError` where the order begins anew so often that it is none."""
    if len(beat.slips) > max(1, SLIPS * len(beat.place)):
        raise ExposureError(
            f"{name}: its exposures follow no order (it breaks at frame {beat.slips[0]} and "
            f"{len(beat.slips) - 1} others); name a file with --exposures, a line a frame"
        )


def slip_warnings(beat: Beat, name: str) -> list[str]:
    """Return one line about the frames at which the order begins anew."""
    if not beat.slips:
        return []
    where = ", ".join(map(str, beat.slips[:5])) + (" ..." if len(beat.slips) > 5 else "")
    return [f"{name}: the order of exposures begins anew at frame {where}; a frame was dropped there, or cut"]


def _correlation(a: Double, b: Double) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(math.sqrt(float(a @ a) * float(b @ b)), 1e-12))


# --- kinds of frames ------------------------------------------------------------------------------


def kinds_of_places(beat: Beat) -> Whole:
    """Return which exposure each frame has (N,), 0 the shortest; places of like brightness share one."""
    return _ranked(beat.profile, ALIKE)[beat.place]


def kinds_of_exposures(exposures: Sequence[float]) -> Whole:
    """Return which exposure each frame has (N,), 0 the shortest; exposures in [s] or relative.

    >>> kinds_of_exposures([0.002, 0.016, 0.002, 0.0165]).tolist()
    [0, 1, 0, 1]
    """
    return _ranked(np.log2(np.asarray(exposures, np.float64)), APART)


def _ranked(values: Double, apart: float) -> Whole:
    order = np.argsort(values, kind="stable")
    steps = np.concatenate([[False], np.diff(values[order]) > apart])
    ranks = np.empty(len(values), np.intp)
    ranks[order] = np.cumsum(steps)
    return ranks


def neighbours(kinds: Sequence[int] | Whole, number: int, farthest: int = FARTHEST) -> list[tuple[int, int]]:
    """Return, for each exposure that frame ``number`` lacks, the nearest frames that have it.

    Pairs (one before, one after), the exposures from short to long. Where one side has none the other
    side's stands on both, and where neither has one within ``farthest`` frames the frame itself.

    >>> neighbours([0, 1, 2, 0, 1, 2, 0], 2)  # two frames back and one on are short
    [(0, 3), (1, 4)]
    >>> neighbours([0, 1, 0, 1], 0)
    [(1, 1)]
    """
    return _neighbours(kinds, int(max(kinds)) + 1, number, farthest)


def _neighbours(
    kinds: Sequence[int] | Whole, count: int, number: int, farthest: int
) -> list[tuple[int, int]]:
    found = []
    back = range(number - 1, max(number - farthest, 0) - 1, -1)
    on = range(number + 1, min(number + farthest, len(kinds) - 1) + 1)
    for kind in range(count):
        if kind == kinds[number]:
            continue
        before, after = (next((i for i in side if kinds[i] == kind), None) for side in (back, on))
        before, after = (after if before is None else before), (before if after is None else after)
        found.append((number if before is None else before, number if after is None else after))
    return found


def reach(kinds: Sequence[int] | Whole, farthest: int = FARTHEST) -> int:
    """Return how many frames before and after the neighbours of any frame lie, at most."""
    count = int(max(kinds)) + 1
    pairs = (pair for n in range(len(kinds)) for pair in _spans(kinds, count, n, farthest))
    return max(pairs, default=0)


def _spans(kinds: Sequence[int] | Whole, count: int, number: int, farthest: int) -> list[int]:
    return [abs(i - number) for pair in _neighbours(kinds, count, number, farthest) for i in pair]
