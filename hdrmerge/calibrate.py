"""Aligned frames -> the same frames with exposures and response curve that agree with the pixels.

In this order: exposures that nobody stated are estimated; stated ones are checked; the response curve
of JPEG and other developed files is found, and with it small errors of the exposures; what frames still
differ by tone is taken out of them (`attune.py`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .attune import Difference, attune, described
from .bracket import Bracket, Frame, Shot
from .curvefit import DRIFT, Evidence, solve
from .errors import ExposureError
from .exposure import NoiseModel, Response
from .metering import POSITIONS, Contradiction, contradictions, describe, meter
from .proxy import Proxy, shrink
from .response import Verdict, disagreement, find_response
from .tones import Tones, gather

Double = NDArray[np.float64]
Trust = Literal["exif", "pixels"]

SRGB = Response.named("srgb")
BY_HAND = 1e-4  # [stops] error of an exposure that was given by hand: none, what the user says counts
SMALLEST_OFFSET = 0.03  # [stops] error of a stated exposure that could be noise, and is left
LARGEST_OFFSET = 0.3  # [stops] error of a stated exposure that is corrected without asking


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Frames, proxies and alignments, shortest exposure first, and what was found about them.

    ``offsets`` [stops] are the corrections of stated exposures, ``verdict`` is None where the response
    was not to be found: linear files, or a curve chosen by name.
    """

    bracket: Bracket
    proxies: list[Proxy]
    alignments: list[Alignment]
    offsets: list[float]
    verdict: Verdict | None
    warnings: list[str]

    def response_json(self) -> dict[str, Any]:
        """Return what a report says about the response."""
        curve = self.bracket.reference_frame.response
        values: dict[str, Any] = {"name": curve.name}
        if self.verdict is not None:
            values |= {
                "verdict": self.verdict.note,
                "disagreement_before_ev": _rounded(self.verdict.before),
                "disagreement_after_ev": _rounded(self.verdict.after),
            }
        return values


def calibrate(
    bracket: Bracket,
    proxies: list[Proxy],
    alignments: list[Alignment],
    response: str | Response = "auto",
    trust: Trust = "exif",
) -> Calibrated:
    """Find the exposures and the response curve that make the frames of a bracket agree.

    ``response`` "auto" finds the curve; a name or a curve leaves the frames' own in place, which was
    chosen when they were read. ``trust`` says whose exposure counts where a file contradicts its
    pixels. Raises `ExposureError` where missing exposures cannot be told from the pixels.
    """
    frames, reference = list(bracket.frames), bracket.reference
    developed = _developed_alike(frames)
    stored = frames[reference].response if developed else SRGB
    warnings: list[str] = []

    if any(frame.shot.exposure is None for frame in frames):
        dense = gather(proxies, alignments, stored if response == "auto" else SRGB, POSITIONS)
        exact = not developed or response != "auto"
        frames, alignments = _metered(frames, alignments, dense, reference, exact, warnings)

    tones, stops = gather(proxies, alignments, stored), _stops(frames, reference)
    lies = _lies(frames, tones, stops, reference, linear=not developed)
    warnings += [_contradiction(frames, reference, lie, trust) for lie in lies]
    base = frames[reference].exposure
    for lie in lies if trust == "pixels" else []:
        stops[lie.frame] = lie.seen
        shot = replace(frames[lie.frame].shot, source="pixels")
        frames[lie.frame] = replace(frames[lie.frame], shot=shot)

    verdict, offsets = None, np.zeros(len(frames))
    believed = _beliefs(frames, [] if trust == "pixels" else lies)
    if developed and response == "auto":
        verdict = find_response([Evidence(tones, stops, believed)], stored)
        if verdict.had_too_little:
            noisy = gather(proxies, alignments, stored, noisy=True)
            second = find_response([Evidence(noisy, stops, believed)], stored)
            verdict = verdict if second.had_too_little or second.response is None else second
        offsets = verdict.offsets[0]
        if verdict.response is not None:
            frames = [with_response(frame, verdict.response) for frame in frames]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                proxies = list(pool.map(shrink, frames))
    elif developed and isinstance(response, Response):
        verdict = _judged(tones, stops, response)
        warnings += _complaints(verdict, frames[reference])
    if not developed or isinstance(response, Response):
        as_srgb = tones if stored is SRGB else gather(proxies, alignments, SRGB)
        offsets = _offsets(as_srgb, stops, believed)
    offsets = _corrections(offsets, believed, reference)

    curve = frames[reference].response
    if developed:
        differences = attune(tones, curve, stops + offsets, reference)
        kept = {lie.frame for lie in lies} if trust == "exif" else set()
        kept |= {n for n, frame in enumerate(frames) if frame.shot.source in ("times", "ev")}
        for n in kept:  # whose exposure counts, although the pixels say otherwise
            differences[n] = None
        if any(differences):
            warnings.append(_out_of_tune(frames[reference], described(differences)))
            frames, proxies = _in_tune(frames, proxies, differences)
            offsets = offsets + [one.at_white if one else 0.0 for one in differences]

    exposures = base * np.exp2(stops + offsets)
    frames = [_exposed(frame, float(value)) for frame, value in zip(frames, exposures, strict=True)]
    order = sorted(range(len(frames)), key=lambda n: (frames[n].exposure, str(frames[n].shot.path)))
    return Calibrated(
        Bracket(tuple(frames[n] for n in order), order.index(reference)),
        [proxies[n] for n in order],
        [alignments[n] for n in order],
        [float(offsets[n]) for n in order],
        verdict,
        warnings,
    )


def with_response(frame: Frame, response: Response) -> Frame:
    """Return a developed frame with another response curve, and the noise that goes with it."""
    levels = int(np.iinfo(frame.codes.dtype).max) + 1
    noise = NoiseModel.from_iso(frame.shot.iso or 100.0).with_quantisation(response, levels)
    return replace(frame, response=response, noise=noise)


def evidence_of(
    bracket: Bracket, proxies: Sequence[Proxy], alignments: Sequence[Alignment]
) -> Evidence | None:
    """Return what a bracket contributes to finding its camera's curve; None if it cannot."""
    frames, reference = bracket.frames, bracket.reference
    if not _developed_alike(frames) or any(frame.shot.exposure is None for frame in frames):
        return None
    tones = gather(proxies, alignments, frames[reference].response)
    stops = _stops(frames, reference)
    lies = _lies(frames, tones, stops, reference, linear=False)
    return Evidence(tones, stops, _beliefs(frames, lies))


def _developed_alike(frames: Sequence[Frame]) -> bool:
    """Tell whether frames are developed pictures of one response curve, which may not be the true one."""
    curve = frames[0].response
    return all(
        np.issubdtype(frame.codes.dtype, np.integer)
        and not frame.response.is_linear
        and np.array_equal(frame.response.table, curve.table)
        for frame in frames
    )


def _stops(frames: Sequence[Frame], reference: int) -> Double:
    return np.log2([frame.exposure / frames[reference].exposure for frame in frames])


def _beliefs(frames: Sequence[Frame], lies: Sequence[Contradiction]) -> Double:
    """Return the standard error [stops] of each frame's exposure; infinite for those found lying."""
    known = np.array([BY_HAND if frame.shot.source in ("times", "ev") else DRIFT for frame in frames])
    known[[lie.frame for lie in lies]] = np.inf
    return known


def _metered(
    frames: Sequence[Frame],
    alignments: list[Alignment],
    tones: Tones,
    reference: int,
    exact: bool,
    warnings: list[str],
) -> tuple[list[Frame], list[Alignment]]:
    """Return the frames with exposures from the pixels; those whose exposure cannot be told stay out.

    ``exact`` says that the curve of ``tones`` is known: a linear file's, or one that the user named.
    """
    shots = [frame.shot for frame in frames]
    stated = np.array([math.nan if shot.exposure is None else math.log2(shot.exposure) for shot in shots])
    found = meter(tones, reference, exact, _hint(shots), stated)
    lost = [n for n in found.unconnected if alignments[n].used]
    usable = sum(alignment.used for alignment in alignments)
    if usable - len(lost) < 2:
        raise ExposureError(
            f"{shots[lost[0] if lost else 0].path}: no exposure in its metadata, and too few tones in "
            "common with the other frames to tell it; give --ev, --ev-step or --times"
        )
    for n in lost:
        alignments = list(alignments)
        alignments[n] = replace(
            alignments[n],
            used=False,
            note="no exposure in its metadata, and no tones in common with the others; give --ev or --times",
        )
    kept = sorted(set(range(len(shots))) - set(found.unconnected), key=lambda n: found.stops[n])
    missing = sorted(str(shot.path) for shot in shots if shot.exposure is None)
    regular = f", in steps of {found.step:.3g}" if found.step else ""
    warnings.append(
        f"{missing[0]}{f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''}: "
        f"no exposure in the metadata; estimated from the pixels: "
        f"{describe([float(found.stops[n]) for n in kept])} EV{regular}; --ev says better"
    )
    known = np.isfinite(stated)
    base = 2.0 ** float((stated - found.stops)[known][0]) if known.any() else 1.0  # the reference's exposure
    metered = [
        replace(shot, stated_exposure=base * 2.0**stop, source="pixels") if shot.exposure is None else shot
        for shot, stop in zip(shots, found.stops.tolist(), strict=True)
    ]
    return [replace(frame, shot=shot) for frame, shot in zip(frames, metered, strict=True)], alignments


def _hint(shots: Sequence[Shot]) -> Double | None:
    """Return the stops that ISO and aperture alone suggest, None where files do not state them."""
    if any(shot.iso is None for shot in shots) or any(shot.exposure_time for shot in shots):
        return None
    return np.array([math.log2((shot.iso or 100.0) / (shot.f_number or 1.0) ** 2) for shot in shots])


def _offsets(tones: Tones, stops: Double, believed: Double) -> Double:
    """Return the errors of stated exposures under a curve that is known; ``tones`` are in sRGB codes."""
    solution = solve([Evidence(tones, stops, believed)], rigid=True)
    if solution is None:
        return np.zeros(len(stops))
    compared = np.array([bool(links) for links in solution.links[0]])
    return np.where(compared, solution.stops[0] - stops, 0.0)


def _corrections(offsets: Double, believed: Double, reference: int) -> Double:
    """Return the offsets that are worth correcting, relative to the reference."""
    relative = np.clip(offsets - offsets[reference], -LARGEST_OFFSET, LARGEST_OFFSET)
    return np.where(np.isinf(believed) | (np.abs(relative) < SMALLEST_OFFSET), 0.0, relative)


def _lies(
    frames: Sequence[Frame], tones: Tones, stops: Double, reference: int, linear: bool
) -> list[Contradiction]:
    """Return the frames whose metadata contradicts the pixels; what the user says is not questioned."""
    if any(frame.shot.source != "exif" for frame in frames):
        return []
    return contradictions(tones, stops, reference, linear)


def _contradiction(frames: Sequence[Frame], reference: int, lie: Contradiction, trust: Trust) -> str:
    taken = "the pixels count" if trust == "pixels" else "its metadata counts; --trust pixels changes that"
    return (
        f"{frames[lie.frame].shot.path}: its metadata says {lie.stated:+.1f} EV from "
        f"{frames[reference].shot.path.name}, its pixels {lie.seen:+.1f} EV; {taken}"
    )


def _judged(tones: Tones, stops: Double, response: Response) -> Verdict:
    """Return what a given curve makes of the frames, compared with sRGB."""
    evidence = [Evidence.of(tones, stops)]
    before, after = disagreement(evidence, SRGB), disagreement(evidence, response)
    return Verdict(response, before, after, [np.zeros(len(stops))], "given")


def _complaints(verdict: Verdict, frame: Frame) -> list[str]:
    if verdict.before is None or verdict.after is None or verdict.after <= verdict.before:
        return []
    return [
        f"{frame.shot.path}: frames agree worse under the response curve {frame.response.name} "
        f"({verdict.after:.2f} EV) than under sRGB ({verdict.before:.2f} EV); "
        "merged alone with --response auto they get their own"
    ]


def _in_tune(
    frames: Sequence[Frame], proxies: Sequence[Proxy], differences: Sequence[Difference | None]
) -> tuple[list[Frame], list[Proxy]]:
    """Return frames without what they differ from the reference by tone, and their proxies."""

    def tuned(n: int) -> tuple[Frame, Proxy]:
        difference = differences[n]
        if difference is None:
            return frames[n], proxies[n]
        frame = with_response(frames[n], difference.taken_out_of(frames[n].response))
        return frame, shrink(frame)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = list(pool.map(tuned, range(len(frames))))
    return [frame for frame, _ in pairs], [proxy for _, proxy in pairs]


def _out_of_tune(frame: Frame, size: str) -> str:
    return (
        f"{frame.shot.path}: frames differ from it by up to {size} under the response curve "
        f"{frame.response.name} and the stated exposures; they were brought to its tones"
    )


def _exposed(frame: Frame, exposure: float) -> Frame:
    """Return the frame with a corrected exposure [s]; itself where there is nothing to correct."""
    if abs(math.log2(exposure / frame.exposure)) < 1e-9:
        return frame
    return replace(frame, shot=replace(frame.shot, stated_exposure=exposure))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
