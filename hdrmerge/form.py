"""Shots -> a bracket: exposures stated by hand, and the checks that need no pixels."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .bracket import Shot
from .errors import BracketError, ExposureError

_REMEDY = "give them by hand with --times 1/500,1/60,1/8, --ev -2,0,2 or --ev-step 2"


@dataclass(frozen=True)
class StatedExposures:
    """Exposures given by hand, one for each frame in the order of the files; at most one field is set.

    ``times`` are shutter times [s], combined with each file's own ISO and aperture. ``ev`` are
    relative exposures [stops], larger is brighter, and say all: ISO and aperture are ignored.
    ``ev_step`` is the distance from each frame to the next [stops], positive from dark to bright.
    """

    times: tuple[float, ...] = ()
    ev: tuple[float, ...] = ()
    ev_step: float | None = None

    def applied(self, shots: Sequence[Shot]) -> list[Shot]:
        """Return the shots with these exposures; unchanged where nothing was stated."""
        values = self.times or self.ev
        if values and len(values) != len(shots):
            option = "--times" if self.times else "--ev"
            raise ExposureError(
                f"{option}: {len(values)} values for {len(shots)} frames; one each, in the order of the files"
            )
        if self.times:
            return [
                replace(s, exposure_time=t, source="times") for s, t in zip(shots, self.times, strict=True)
            ]
        if not self.ev and self.ev_step is None:
            return list(shots)
        ev = self.ev or [i * (self.ev_step or 0.0) for i in range(len(shots))]
        return [replace(s, stated_exposure=2.0**e, source="ev") for s, e in zip(shots, ev, strict=True)]


def form_bracket(shots: Sequence[Shot], reference: str | None = None) -> tuple[list[Shot], int | None]:
    """Return the shots from the shortest exposure to the longest, and the index of the reference.

    ``reference`` is a file name or an index from 0 in the order given; without it the middle
    exposure, the shorter of two. Where an exposure is missing the order stays as given, and the
    index is None unless it was asked for: the pixels will tell. Raises `BracketError` or
    `ExposureError` for shots that cannot be one bracket.
    """
    if len(shots) < 2:
        found = f"{shots[0].path}: one frame" if shots else "no frames"
        raise BracketError(f"{found}; a bracket takes at least two, of different exposure")
    _refuse_twice_the_same(shots)
    _refuse_mixed_sizes(shots)
    _refuse_absurd_exposures(shots)
    chosen = None if reference is None else shots[_reference_index(shots, reference)]
    if any(shot.exposure is None for shot in shots):
        return list(shots), None if chosen is None else list(shots).index(chosen)
    ordered = sorted(shots, key=lambda shot: (shot.exposure or 0.0, str(shot.path)))
    middle = (len(ordered) - 1) // 2
    return ordered, middle if chosen is None else ordered.index(chosen)


def doubts(shots: Sequence[Shot]) -> list[str]:
    """Return warnings about a bracket that can be merged but may not be what the user meant."""
    found = []
    exposures = [shot.exposure for shot in shots if shot.exposure is not None]
    if exposures and max(exposures) < 1.05 * min(exposures):
        found.append(
            f"all {len(shots)} frames have the same exposure, which gains nothing but less noise; "
            f"if that is wrong, {_REMEDY}"
        )
    cameras = {shot.camera_model for shot in shots} - {""}
    if len(cameras) > 1:
        found.append(f"frames of different cameras ({', '.join(sorted(cameras))})")
    return found


def _refuse_twice_the_same(shots: Sequence[Shot]) -> None:
    counts = Counter(os.path.realpath(shot.path) for shot in shots)
    for shot in shots:
        if counts[os.path.realpath(shot.path)] > 1:
            raise BracketError(f"{shot.path}: given twice; name each frame once")


def _refuse_mixed_sizes(shots: Sequence[Shot]) -> None:
    usual = Counter(shot.upright_size for shot in shots).most_common(1)[0][0]
    for shot in shots:
        if shot.upright_size != usual:
            width, height = shot.upright_size
            raise BracketError(
                f"{shot.path}: {width} x {height} px, the others {usual[0]} x {usual[1]}; "
                "merge frames of one size and orientation"
            )


def _refuse_absurd_exposures(shots: Sequence[Shot]) -> None:
    for shot in shots:
        if shot.exposure is not None and not 1e-9 < shot.exposure < 1e9:
            raise ExposureError(f"{shot.path}: an exposure of {shot.exposure:g} s makes no sense; {_REMEDY}")
    if any(shot.stated_exposure is not None or shot.exposure_time is None for shot in shots):
        return
    for name, values in {
        "ISO": [shot.iso for shot in shots],
        "aperture": [shot.f_number for shot in shots],
    }.items():
        if None in values and any(values):
            without = shots[values.index(None)]
            raise ExposureError(
                f"{without.path}: no {name} in its metadata, other frames have one; give --ev -2,0,2 by hand"
            )


def _reference_index(shots: Sequence[Shot], reference: str) -> int:
    if re.fullmatch("-?[0-9]+", reference):
        index = int(reference)
        if 0 <= index < len(shots):
            return index
        raise BracketError(
            f"--reference {index}: there are {len(shots)} frames; give 0 to {len(shots) - 1} or a file name"
        )
    for i, shot in enumerate(shots):
        if reference in (str(shot.path), shot.path.name) or os.path.realpath(reference) == os.path.realpath(
            shot.path
        ):
            return i
    names = ", ".join(Path(shot.path).name for shot in shots)
    raise BracketError(f"--reference {reference}: not one of the frames; give one of {names}, or an index")
