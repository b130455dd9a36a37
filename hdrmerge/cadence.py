"""Footage -> the exposure of every frame and one response curve for all: stated, seen, and checked.

Exposures come from a list, from a pattern put where the brightness has it (`alternation`), from EXIF, or
from the pixels. A few groups of neighbouring frames, spread over the footage, stand for all: each is looked
at as a bracket, with the means that photographs have (`align`, `tones`, `metering`, `response`), and what
they say together holds from the first frame to the last, so that nothing flickers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import alternation
from .align import align
from .alternation import Beat, Stated, brightness_of, find_beat, matched, refuse_broken, slip_warnings
from .bracket import ExposureSource, Frame
from .calibrate import BY_HAND, LARGEST_OFFSET, SMALLEST_OFFSET, SRGB
from .curvefit import DRIFT, Evidence
from .errors import ExposureError
from .exposure import Response
from .footage import Footage, Progress, Stills, silent
from .metering import POSITIONS, contradictions, describe, meter
from .proxy import shrink
from .response import Verdict, find_response, typical
from .tones import FEWEST, Tones, gather

Double = NDArray[np.float64]
Whole = NDArray[np.intp]

GROUPS = 6  # of neighbouring frames that are looked at
LONGEST_GROUP = 8  # frames
DARK_END, BRIGHT_END = (0.006, 0.05), (0.85, 0.98)  # [code] what frames far apart may have in common
TONES = 12  # looked at in either


@dataclass(frozen=True, eq=False)
class Cadence:
    """Footage with its exposures: ``kinds`` (N,) is which one each frame has, 0 the shortest.

    ``stops`` are those of the kinds relative to the longest. ``seen`` (groups, kinds) are the same as each
    group alone tells them, not a number where it cannot; ``verdict`` is None where the curve was given.
    """

    footage: Footage
    kinds: Whole
    stops: tuple[float, ...]
    seen: Double
    verdict: Verdict | None
    warnings: tuple[str, ...]

    @property
    def source(self) -> ExposureSource:
        return self.footage.source

    @property
    def whites(self) -> tuple[float, float]:
        """Return where the middle exposure clips, 1.0 being where the longest does; or the middle two.

        The longer of the two first: it clips at less light. Without exposures between them the scene
        decides which is nearer to a photograph's (`grade.measure`).
        """
        count = len(self.stops)
        return 2.0 ** -self.stops[count // 2], 2.0 ** -self.stops[(count - 1) // 2]

    def spread(self) -> tuple[float, ...]:
        """Return how far the groups disagree about each kind [stops, standard deviation]."""
        with np.errstate(invalid="ignore"):
            told = [row[np.isfinite(row)] for row in self.seen.T]
        return tuple(float(row.std()) if len(row) > 1 else math.nan for row in told)

    def to_json(self) -> dict[str, Any]:
        """Return what a report says about the exposures."""
        curve = self.footage.response
        return {
            "exposure_source": self.source,
            "relative_ev": [round(stop, 4) for stop in self.stops],
            "seen_ev": [[None if math.isnan(v) else round(float(v), 4) for v in row] for row in self.seen],
            "response": curve.name if curve else "of the file",
            "verdict": self.verdict.note if self.verdict else "given",
        }


@dataclass(frozen=True, eq=False)
class _Group:
    """Frames of every exposure, neighbours in time: their ``tones``, shortest first, and what they state."""

    numbers: tuple[int, ...]
    tones: Tones
    metered: Tones  # in sRGB codes where the curve is known


def settle(
    footage: Footage,
    exposures: Stated | None = None,
    response: Response | None = None,
    progress: Progress = silent,
) -> Cadence:
    """Find the exposure of every frame of ``footage`` and the curve of its camera; hold both.

    ``exposures`` are those of `alternation.read_stated`, and win over the files'. Without a ``response`` the
    curve is found, and the file's stays where none explains the frames better. Raises `ExposureError`.
    """
    name = str(footage.path)
    warnings = list(footage.warnings)
    stated, source, kinds, beat = _stated(footage, exposures, progress)
    if beat is not None:
        warnings += slip_warnings(beat, name)
    footage = replace(footage, response=response or footage.response)
    groups = _groups(footage, kinds, beat, progress)
    sample = footage.frame(0)
    developed = np.issubdtype(sample.codes.dtype, np.integer) and not sample.response.is_linear
    exact = not developed or response is not None
    seen = np.array([_metered(group.metered, exact) for group in groups]).reshape(
        len(groups), kinds.max() + 1
    )

    if stated is None:
        stops, step, rough = _pooled(groups, exact, name)
        if stops[0] > -alternation.APART:
            raise ExposureError(
                f"{name}: its brightness alternates, but by less than {alternation.APART:g} EV; "
                "give its exposures with --exposures"
            )
        regular = (
            f", in steps of {step:.3g}" if step else ", roughly: they hardly share a tone" if rough else ""
        )
        warnings.append(
            f"{name}: no exposures stated; estimated from the pixels: {describe(stops.tolist())} EV{regular}"
            "; --exposures says better"
        )
        per_group = [stops] * len(groups)
        stated = np.exp2(stops)[kinds]
    else:
        logs = np.log2(stated)
        per_group = [logs[list(group.numbers)] for group in groups]
        stops = np.array([np.median(logs[kinds == kind]) for kind in range(kinds.max() + 1)])
        stops -= stops[-1]
        warnings += _contradictions(groups, per_group, stops, exact, name)

    verdict, offsets = None, np.zeros(len(stops))
    if developed and response is None and groups:
        known = np.full(len(stops), BY_HAND if source == "times" else DRIFT)
        evidence = [Evidence(g.tones, s - s[-1], known) for g, s in zip(groups, per_group, strict=True)]
        verdict = find_response(evidence, sample.response)
        offsets = np.median([o - o[-1] for o in verdict.offsets], axis=0)
        offsets = np.where(np.abs(offsets) < SMALLEST_OFFSET, 0.0, offsets)
        offsets = np.clip(offsets, -LARGEST_OFFSET, LARGEST_OFFSET)
        if source == "times":
            offsets[:] = 0.0
    curve = verdict.response if verdict and verdict.response else footage.response
    seconds = stated * np.exp2(offsets)[kinds]
    # An exposure that was corrected is no longer the file's own.
    source = "ev" if source == "exif" and offsets.any() else source
    held = footage.exposed(seconds.tolist(), source, curve)
    return Cadence(held, kinds, tuple((stops + offsets).tolist()), seen, verdict, tuple(warnings))


def _stated(
    footage: Footage, exposures: Stated | None, progress: Progress
) -> tuple[Double | None, ExposureSource, Whole, Beat | None]:
    """Return the stated exposure (N,) of the frames, if any, its source, the kinds, and the beat if used."""
    name, stills = str(footage.path), isinstance(footage, Stills)
    if exposures is not None and exposures.listed:
        names = [shot.path.name for shot in footage.shots] if isinstance(footage, Stills) else None
        listed = np.array(exposures.for_frames(names, len(footage)))
        return listed, "times", _several(listed, name), None
    if exposures is None and stills:
        stated = [footage.shot(n).exposure for n in range(len(footage))]
        if all(value is not None for value in stated):
            found = np.array(stated, np.float64)
            return found, "exif", _several(found, name), None
    beat = find_beat(brightness_of(footage.levels(progress)))
    if exposures is not None:
        found = matched(beat, exposures.pattern, name)
        return found, "times", _several(found, name), beat
    if beat is None:
        raise ExposureError(
            f"{name}: no exposures stated, and the brightness of its frames does not alternate; "
            "name a file with --exposures, a line a frame"
        )
    refuse_broken(beat, name)
    return None, "pixels", alternation.kinds_of_places(beat), beat


def _several(exposures: Double, name: str) -> Whole:
    kinds = alternation.kinds_of_exposures(exposures.tolist())
    if kinds.max() == 0:
        raise ExposureError(f"{name}: all its frames have the same exposure; there is nothing to merge")
    return kinds


# --- groups of neighbours -------------------------------------------------------------------------


def _groups(footage: Footage, kinds: Whole, beat: Beat | None, progress: Progress) -> list[_Group]:
    """Look at groups of neighbouring frames, one from each part of the footage, away from cuts."""
    misfit = np.zeros(len(kinds) - 1) if beat is None else beat.misfit
    whole = [(start, numbers) for start in range(len(kinds)) if (numbers := _from(kinds, start))]
    parts = np.array_split(np.arange(len(whole)), min(GROUPS, len(whole)))
    groups = []
    for k, part in enumerate(parts):
        calm = [misfit[whole[i][0] : max(whole[i][1])].sum() for i in part]
        _, numbers = whole[part[int(np.argmin(np.round(calm, 3)))]]
        group = _look(footage, numbers)
        groups += [group] if group is not None else []
        progress("expose", (k + 1) / len(parts))
    return groups


def _from(kinds: Whole, start: int) -> tuple[int, ...]:
    """Return the first frame of each kind from ``start`` on, () unless all are near and begin there."""
    stretch = kinds[start : start + LONGEST_GROUP].tolist()
    wanted = range(int(kinds.max()) + 1)
    return tuple(start + stretch.index(kind) for kind in wanted) if set(stretch) == set(wanted) else ()


def _look(footage: Footage, numbers: Sequence[int]) -> _Group | None:
    """Align the frames of a group and gather their tones; None where they do not show the same."""
    first = min(numbers)
    frames: dict[int, Frame] = {}
    for number, frame in enumerate(footage.frames(first, max(numbers) + 1), first):
        if number in numbers:
            frames[number] = frame
    proxies = [shrink(frames[number]) for number in numbers]
    alignments = align(proxies, (len(proxies) - 1) // 2, "similarity")
    if not all(alignment.used for alignment in alignments):
        return None
    positions = POSITIONS // GROUPS
    curve = frames[first].response
    tones = gather(proxies, alignments, curve, positions)
    given = footage.response is not None or curve.is_linear
    return _Group(tuple(numbers), tones, gather(proxies, alignments, SRGB, positions) if given else tones)


def _metered(tones: Tones, exact: bool) -> Double:
    """Return the stops that one group alone shows, relative to its longest; NaN where it cannot tell."""
    return _stops_of(tones, exact)[0]


def _stops_of(tones: Tones, exact: bool) -> tuple[Double, float | None, bool]:
    """Return the stops (kinds,) relative to the longest, their step if regular, and if they are rough."""
    found = meter(tones, tones.frames - 1, exact)
    if not found.unconnected:
        return np.asarray(found.stops, np.float64), found.step, False
    return _far_apart(tones, SRGB if exact else typical()), None, True


def _far_apart(tones: Tones, curve: Response) -> Double:
    """Return the stops (kinds,) of exposures so far apart that they share only the ends of their tones.

    What is nearly black in one frame and nearly white in the next: for every such tone of either the median
    of the other, which up to half of it being clipped or black does not move, and a typical camera's
    ``curve`` over the gap. Good to a stop; NaN where there are no such tones.
    """
    steps = []
    for short in range(tones.frames - 1):
        a, b = tones.stored[short], tones.stored[short + 1]
        usable = tones.usable[short] & tones.usable[short + 1]
        both = [
            [
                _level_step(
                    curve, channel, x[usable[:, channel], channel], y[usable[:, channel], channel], ends
                )
                for channel in range(3)
            ]
            for x, y, ends in ((a, b, (DARK_END, BRIGHT_END)), (b, a, (BRIGHT_END, DARK_END)))
        ]
        told = [np.concatenate(way) for way in both]
        ups = [float(np.median(way)) * sign for way, sign in zip(told, (1, -1), strict=True) if len(way)]
        steps.append(-float(np.mean(ups)) if ups else math.nan)
    # From the longest down: what one step does not tell is unknown for all shorter ones.
    return np.concatenate([np.cumsum(np.array(steps)[::-1])[::-1], [0.0]])


def _level_step(
    curve: Response,
    channel: int,
    here: NDArray[np.float32],
    there: NDArray[np.float32],
    ends: tuple[tuple[float, float], tuple[float, float]],
) -> Double:
    """Return how much brighter [stops] the frame ``there`` is, one value for each tone of ``here``."""
    (low, high), (least, most) = ends
    edges = np.linspace(low, high, TONES + 1)
    order = np.argsort(here, kind="stable")
    pairs = []
    for first, last in pairwise(np.searchsorted(here[order], edges)):
        if last - first >= FEWEST:
            one, other = np.median(here[order[first:last]]), np.median(there[order[first:last]])
            pairs += [(one, other)] if least < other < most else []
    if not pairs:
        return np.empty(0)
    table: Double = np.array(pairs, np.float64)
    channels = np.full(len(table), channel)
    return np.asarray(curve.level(table[:, 1], channels) - curve.level(table[:, 0], channels))


def _pooled(groups: Sequence[_Group], exact: bool, name: str) -> tuple[Double, float | None, bool]:
    """Return the stops that all groups show together, relative to the longest; the rest as in `_stops_of`.

    Frames of one exposure are taken as one frame that shows what all of them show.
    """
    if not groups:
        raise ExposureError(
            f"{name}: no neighbouring frames of all exposures show the same scene; give --exposures"
        )
    stops, step, rough = _stops_of(_together([group.metered for group in groups]), exact)
    if np.isnan(stops).any():
        raise ExposureError(
            f"{name}: neighbouring frames have too few tones in common to tell their exposures; "
            "give --exposures 1/500,1/60"
        )
    return stops, step, rough


def _together(tones: Sequence[Tones]) -> Tones:
    """Return the tones of several groups as those of one: their positions side by side."""
    first = tones[0]
    codes: list[NDArray[np.float32]] = [one.code for one in tones]
    return replace(
        first,
        stored=np.concatenate([one.stored for one in tones], axis=1),
        code=np.concatenate(codes, axis=1, dtype=np.float32),
        usable=np.concatenate([one.usable for one in tones], axis=1),
        even=np.concatenate([one.even for one in tones]),
    )


def _contradictions(
    groups: Sequence[_Group], stated: Sequence[Double], stops: Double, exact: bool, name: str
) -> list[str]:
    """Return a warning for each kind that most groups show otherwise than stated."""
    seen: dict[int, list[float]] = {}
    for group, values in zip(groups, stated, strict=True):
        last = len(values) - 1
        for lie in contradictions(group.metered, values - values[last], last, exact):
            seen.setdefault(lie.frame, []).append(lie.seen)
    return [
        f"{name}: the {_ordinal(kind)} exposure is stated {stops[kind]:+.1f} EV from the longest, the pixels "
        f"say {float(np.median(values)):+.1f} EV; what is stated counts"
        for kind, values in sorted(seen.items())
        if 2 * len(values) > len(groups)
    ]


def _ordinal(kind: int) -> str:
    return ("shortest", "second", "third", "fourth", "fifth")[kind] if kind < 5 else f"{kind + 1}th"
