"""Exposures from pixels: those that no file states, and those that the files state wrongly.

Frames tell exposures only together with the response curve: a camera of more contrast and smaller
steps makes the same pictures (Grossberg and Nayar 2003). So the contrast is taken from what cameras
have in common, `response.TYPICAL`, which leaves steps uncertain by a tenth; and as photographers
bracket in equal steps of thirds and halves of a stop, and most of them in whole ones, a result close
to such steps is taken for them. Linear files (RAW) leave no such doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curvefit import DRIFT, KNOTS, Evidence, solve
from .response import TYPICAL
from .tones import Tones

Double = NDArray[np.float64]

SHARED = 0.004  # share of positions two frames must have in common to contradict what they state
FEW = 0.0004  # and to tell what is not stated; of `POSITIONS`
POSITIONS = 100_000  # looked at where exposures are missing: short exposures show little but lamps
CONTRAST = 0.12  # relative spread of cameras' contrast in the middle tones, one sigma
STEP_ERROR = 0.15  # [stops] error of a single step, one sigma
HABITS = {
    1 / 3: -2.0, 1 / 2: -2.0, 2 / 3: -1.0, 1.0: 0.0, 4 / 3: -2.0, 3 / 2: -2.5, 5 / 3: -2.5,
    2.0: 0.0, 7 / 3: -4.0, 5 / 2: -3.0, 8 / 3: -4.0, 3.0: -0.5, 4.0: -2.0,
}  # fmt: skip
"""How usual steps [stops] are among photographers, as log odds against the most usual."""
IRREGULAR = -1.0  # log odds, for each step, of a bracket without regular ones
SAME = 0.25  # [stops] frames closer than this have the same exposure
CONTRADICTION = 0.5  # [stops] difference between what a file says and what its pixels show
ELASTIC = 1.35  # contrast may make all steps this much larger or smaller without contradicting


@dataclass(frozen=True, eq=False)
class Metered:
    """``stops`` (N,) of frames relative to the reference; ``step`` [stops] between them if regular.

    ``unconnected`` are frames that share no tones with the reference, directly or through others;
    their stops mean nothing.
    """

    stops: Double
    step: float | None
    unconnected: tuple[int, ...]


@dataclass(frozen=True)
class Contradiction:
    """A frame whose stated exposure its pixels contradict; both [stops] relative to the reference."""

    frame: int
    stated: float
    seen: float


def meter(
    tones: Tones,
    reference: int,
    linear: bool = False,
    hint: Double | None = None,
    stated: Double | None = None,
) -> Metered:
    """Estimate the exposures of frames from their pixels.

    ``stated`` (N,) are the stops that files do state, not a number elsewhere; these stay as they are,
    and tell the contrast of the curve where they differ. Without any all frames are estimated.
    ``linear`` says that the codes follow the sRGB curve exactly, as those made from linear files do.
    ``hint`` (N,) are stops that part of the metadata suggests, ISO without a time for instance; they
    are taken if the pixels agree.
    """
    known = np.zeros(tones.frames, np.bool_) if stated is None else np.isfinite(stated)
    if stated is not None and known.any():
        return _between_stated(tones, stated, known, reference, linear)
    seen, unconnected = _seen(_unstated(tones), reference, linear, FEW)
    if seen is None:
        return Metered(np.zeros(tones.frames), None, unconnected)
    linked = np.array([n for n in range(tones.frames) if n not in unconnected])
    if hint is not None and not unconnected and _confirmed(seen, hint - hint[reference]):
        return Metered(hint - hint[reference], None, ())
    step, regular = (None, None) if linear else _regular(seen[linked])
    if regular is not None:
        seen[linked] = regular
        seen -= seen[reference]
    return Metered(seen, step, unconnected)


def contradictions(tones: Tones, stops: Double, reference: int, linear: bool = False) -> list[Contradiction]:
    """Return the frames whose ``stops`` (N,), as stated, differ by more than half a stop from the pixels."""
    seen, unconnected = _seen(_unstated(tones), reference, linear, SHARED)
    if seen is None:
        return []
    fits = [n for n in range(tones.frames) if n not in unconnected]
    stated = stops - stops[reference]
    pairs = [(i, j) for i in fits for j in fits if stated[j] - stated[i] > 0.3]
    contrast = float(np.median([(seen[j] - seen[i]) / (stated[j] - stated[i]) for i, j in pairs] or [1.0]))
    contrast = 1.0 if linear else float(np.clip(contrast, 1 / ELASTIC, ELASTIC))
    off = seen / contrast - stated
    off -= np.median(off[fits])
    wrong = [n for n in fits if abs(off[n]) > CONTRADICTION]
    return [Contradiction(n, float(stated[n]), float(stated[n] + off[n])) for n in wrong]


def _between_stated(
    tones: Tones, stated: Double, known: NDArray[np.bool_], reference: int, linear: bool
) -> Metered:
    """Return stated stops as they are, and the others from the pixels, on the scale of the stated ones."""
    believed = known if np.ptp(stated[known]) > CONTRADICTION else np.zeros_like(known)
    bracket = Evidence(tones, np.where(believed, stated, 0.0), np.where(believed, DRIFT, np.inf))
    seen, unconnected = _seen(bracket, reference, linear, FEW)
    if seen is None:
        return Metered(np.zeros(tones.frames), None, unconnected)
    linked = known & ~np.isin(np.arange(tones.frames), unconnected)
    offset = float(np.median((stated - seen)[linked])) if linked.any() else 0.0
    stops = np.where(known, stated, seen + offset)
    return Metered(stops - stops[reference], None, tuple(n for n in unconnected if not known[n]))


def _unstated(tones: Tones) -> Evidence:
    return Evidence(tones, np.zeros(tones.frames), np.full(tones.frames, np.inf))


def _seen(
    bracket: Evidence, reference: int, linear: bool, shared: float
) -> tuple[Double | None, tuple[int, ...]]:
    """Return the stops of all frames relative to the reference, and the frames without a connection."""
    count = bracket.tones.frames
    prior = np.zeros(len(KNOTS)) if linear else TYPICAL
    solution = solve([bracket], prior, shared, linear) or solve([bracket.deeper()], prior, shared, linear)
    if solution is None:
        return None, tuple(n for n in range(count) if n != reference)
    stops = solution.stops[0]
    reached = {reference}
    while more := {m for n in reached for m in solution.links[0][n]} - reached:
        reached |= more
    return stops - stops[reference], tuple(sorted(set(range(count)) - reached))


def _confirmed(seen: Double, hint: Double) -> bool:
    if np.ptp(hint) < CONTRADICTION:
        return False
    contrast = float(seen @ hint / (hint @ hint))
    return 1 / ELASTIC < contrast < ELASTIC and bool(np.abs(seen / contrast - hint).max() < CONTRADICTION)


def _regular(seen: Double) -> tuple[float | None, Double | None]:
    """Return the step and the stops of the bracket in equal steps, None if it is likelier irregular."""
    order = np.argsort(seen)
    steps = np.diff(seen[order])
    moved = steps[steps > SAME]
    if not len(moved):
        return None, None
    best: tuple[float, float | None] = (IRREGULAR * len(moved), None)
    for step, habit in HABITS.items():
        scale = float(np.exp(np.clip(np.mean(np.log(moved / step)), -1, 1)))
        odds = habit - 0.5 * (np.log(scale) / CONTRAST) ** 2
        odds -= 0.5 * float(np.sum(np.square((moved / scale - step) / STEP_ERROR)))
        best = max(best, (odds, step), key=lambda entry: entry[0])
    if best[1] is None:
        return None, None
    regular = np.zeros(len(seen))
    regular[order[1:]] = np.cumsum(np.where(steps > SAME, best[1], 0.0))
    return best[1], regular


def describe(stops: Sequence[float]) -> str:
    """Return exposures as people write them.

    >>> describe([-2.0, 0.0, 1.333])
    '-2, 0, +1.33'
    """
    return ", ".join(
        f"{value:+.2f}".rstrip("0").rstrip(".") if abs(value) > 0.005 else "0" for value in stops
    )
