"""The camera's response curve: found from the frames of brackets, judged, saved, loaded.

A curve is accepted when it lowers the disagreement of frames on tiles it was not fitted to. Without
such evidence the curve of the file's profile stays, usually sRGB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .curvefit import KNOTS, Evidence, Solution, solve
from .errors import InputError
from .exposure import Response, srgb_decode
from .tones import SHARED, Tones
from .write import write_text

Double = NDArray[np.float64]

TYPICAL = np.array([2.84, 2.56, 2.28, 1.99, 1.71, 1.38, 1.03, 0.68, 0.36, 0.11, -0.08, -0.09, 0.14])
"""d [stops] of a typical camera's JPEG: the mean of seven cameras' brackets with known exposures.

In the middle tones a stop of light makes 1.6 times the difference that it makes in sRGB; near white
contrast rolls off."""

LARGEST = 1.0  # [stops] a disagreement counts at most: what moved does not decide on a curve
BETTER = 0.97  # the residual a curve must reach, relative to the one before
FAR = 0.004  # share of positions that frames far apart must have in common to judge a curve by
TOO_FEW = "too few tones in common to find the response curve"
FAR_APART = "a typical camera's: frames are far apart"
FORMAT = "hdrmerge response 1"


@dataclass(frozen=True, eq=False)
class Verdict:
    """What was found: ``response`` is None where the given curve stays as it is.

    ``before`` and ``after`` are the disagreement between frames [stops rms] on tiles held out from
    the fit, None where frames share too few tones. ``offsets`` (N,) are the errors found in the
    stated exposures of each bracket [stops], zero without a curve.
    """

    response: Response | None
    before: float | None
    after: float | None
    offsets: list[Double]
    note: str

    @property
    def had_too_little(self) -> bool:
        """True where frames had too few tones in common to fit a curve."""
        return self.note in (TOO_FEW, FAR_APART)


def find_response(brackets: Sequence[Evidence], given: Response) -> Verdict:
    """Find the curve that makes the frames of one or more brackets of a camera agree.

    ``given`` is what the files claim (their profile's curve), and stays unless the found one
    explains held-out tiles better.
    """
    none = [np.zeros(len(bracket.stops)) for bracket in brackets]
    limits = _limited(given, brackets)
    first = solve([bracket.at(bracket.tones.even) for bracket in brackets])
    others = [bracket.at(~bracket.tones.even) for bracket in brackets]
    before = disagreement(others, given)
    if before is None or first is None:
        return _typical_if_better(brackets, given, Verdict(limits, before, None, none, TOO_FEW))
    curve = _response(first, brackets)
    settled = [Evidence(o.tones, stops, o.known) for o, stops in zip(others, first.stops, strict=True)]
    after = disagreement(settled, curve)
    if after is None or after > BETTER * before:
        return Verdict(limits, before, after, none, "no curve explains the frames better")
    whole = solve(_without_movers(brackets, first, curve)) or first
    offsets = [s - b.stops for s, b in zip(whole.stops, brackets, strict=True)]
    return Verdict(_response(whole, brackets), before, after, offsets, "found from the frames")


def _typical_if_better(brackets: Sequence[Evidence], given: Response, otherwise: Verdict) -> Verdict:
    """Judge the typical camera's curve where frames are so far apart that nothing can be fitted.

    What is bright in one frame is nearly black in the other; that tells one curve from another, and
    no more. Nothing was fitted, so that all tones are held out.
    """
    deep = [bracket.deeper() for bracket in brackets]
    curve = _limited(typical(), brackets) or typical()
    before, after = disagreement(deep, given, FAR), disagreement(deep, curve, FAR)
    if before is None or after is None or after > BETTER * before:
        return otherwise
    return Verdict(curve, before, after, otherwise.offsets, FAR_APART)


def disagreement(brackets: Sequence[Evidence], curve: Response, shared: float = SHARED) -> float | None:
    """Return the rms difference of radiance between frames under a curve [stops], None without common tones.

    Over all positions that two frames show well exposed and off edges, for pairs that share at
    least ``shared`` of them; single differences count `LARGEST` at most.
    """
    total, count = 0.0, 0
    for bracket in brackets:
        for difference in pair_differences(bracket, curve, shared).values():
            total += float(np.square(np.clip(difference, -LARGEST, LARGEST)).sum())
            count += len(difference)
    return (total / count) ** 0.5 if count else None


def pair_differences(
    bracket: Evidence, curve: Response, shared: float = SHARED
) -> dict[tuple[int, int], Double]:
    """Return, for each pair of frames that shares enough tones, all differences of log2 radiance."""
    tones = bracket.tones
    level = _levels(tones, curve) - bracket.stops[:, None, None]
    exposed = [tones.exposed(n) for n in range(tones.frames)]
    found = {}
    for i in range(tones.frames):
        for j in range(i + 1, tones.frames):
            both = exposed[i] & exposed[j]
            both &= np.count_nonzero(both, axis=0) >= shared * len(both)
            if both.any():
                found[i, j] = (level[j] - level[i])[both]
    return found


def _levels(tones: Tones, curve: Response) -> Double:
    """Return log2 of the linear light (N, K, 3) that a curve gives the codes as stored."""
    knots = np.linspace(0.0, 1.0, len(curve.table))
    table = np.log2(np.maximum(curve.table.astype(np.float64), 2.0**-20))
    return np.stack([np.interp(tones.stored[..., c], knots, table[:, c]) for c in range(3)], axis=-1)


def _without_movers(brackets: Sequence[Evidence], found: Solution, curve: Response) -> list[Evidence]:
    """Leave out positions where frames disagree far more than most: something moved there."""
    kept = []
    for bracket, stops in zip(brackets, found.stops, strict=True):
        tones = bracket.tones
        level = _levels(tones, curve) - stops[:, None, None]
        exposed = np.stack([tones.exposed(n) for n in range(tones.frames)])
        spread, compared = np.zeros(level.shape[1]), np.zeros(level.shape[1], np.bool_)
        for channel in range(3):
            seen = np.where(exposed[..., channel], level[..., channel], np.nan)
            several = exposed[..., channel].sum(axis=0) >= 2
            width = np.nanmax(seen[:, several], axis=0) - np.nanmin(seen[:, several], axis=0)
            spread[several] = np.maximum(spread[several], width)
            compared |= several
        usual = float(np.median(spread[compared])) if compared.any() else 0.0
        kept.append(bracket.at(spread <= max(4 * usual, 0.35)))
    return kept


# --- curves as values and as files ----------------------------------------------------------------


def _response(solution: Solution, brackets: Sequence[Evidence]) -> Response:
    return response_of(solution.deviation, *_limits(brackets))


def _limits(brackets: Sequence[Evidence]) -> tuple[list[float], list[float]]:
    """Return the codes of black and of clipping in each channel, as most brackets show them."""
    floors = np.median([bracket.tones.floor for bracket in brackets], axis=0)
    ceilings = np.median([bracket.tones.ceiling for bracket in brackets], axis=0)
    return floors.tolist(), ceilings.tolist()


def response_of(
    deviation: Double,
    floor: Sequence[float] = (0.0, 0.0, 0.0),
    ceiling: Sequence[float] = (1.0, 1.0, 1.0),
    name: str = "found",
    size: int = 4097,
) -> Response:
    """Return the response whose curves deviate from sRGB by ``deviation`` (3, knots) [stops].

    Each channel reaches 1 at its own clipping level.
    """
    code = np.linspace(0.0, 1.0, size)
    columns = []
    for d, black, white in zip(deviation, floor, ceiling, strict=True):
        dark, light = srgb_decode(np.array(black)), srgb_decode(np.array(white))
        stretched = np.clip((srgb_decode(code) - dark) / (light - dark), 0.0, 1.0)
        stops = np.log2(np.maximum(stretched, 2.0**-30))
        columns.append(np.maximum.accumulate(stretched * 2.0 ** np.interp(stops, KNOTS, d - d[-1])))
    return Response(name, np.stack(columns, axis=1).astype(np.float32))


NAMED = ("srgb", "gamma2.2", "linear", "camera")
"""Curves that need no file; camera is `typical`."""


def _limited(given: Response, brackets: Sequence[Evidence]) -> Response | None:
    """Return the given curve between the black and the clipping that were found, None if they are its own."""
    floors, ceilings = _limits(brackets)
    if not any(floors) and all(white == 1.0 for white in ceilings):
        return None
    knots = np.linspace(0.0, 1.0, len(given.table))
    dark = [np.interp(black, knots, given.table[:, c]) for c, black in enumerate(floors)]
    light = [np.interp(white, knots, given.table[:, c]) for c, white in enumerate(ceilings)]
    stretched = (given.table - np.array(dark)) / (np.array(light) - np.array(dark))
    return Response(given.name, np.clip(stretched, 0.0, 1.0).astype(np.float32))


def typical() -> Response:
    """Return the curve of a typical camera's JPEG."""
    return response_of(np.tile(TYPICAL, (3, 1)), name="camera")


def save(response: Response, path: Path, camera: str = "") -> None:
    """Write a response curve as JSON: linear light of red, green and blue at equally spaced codes."""
    every = max((len(response.table) - 1) // 512, 1)
    values = {
        "format": FORMAT,
        "camera": camera,
        "name": response.name,
        "linear": [[float(f"{v:.6g}") for v in row] for row in response.table[::every]],
    }
    write_text(json.dumps(values, indent=None) + "\n", path)


def load(path: Path) -> Response:
    """Read a response curve that `save` wrote; raises `InputError` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; name a file written by --save-response") from None
    except ValueError:
        raise InputError(f"{path}: no response curve; name a file written by --save-response") from None
    try:
        table = np.array(values["linear"], np.float32)
        sound = values["format"] == FORMAT and table.ndim == 2 and table.shape[1] == 3
        sound = sound and len(table) >= 2 and bool(np.isfinite(table).all()) and bool((table >= 0).all())
        sound = sound and bool((np.diff(table, axis=0) >= 0).all()) and bool((table[-1] > 0).all())
        if sound:
            return Response(str(values["name"]), table)
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(f"{path}: a damaged response curve; save it again with --save-response")
