"""Footage of alternating exposures -> HDR video: one radiance frame for each frame, in a folder that resumes.

    open -> settle exposures -> for each frame: neighbours -> radiance -> EXR -> (measure -> clips)

Frames go to the folder first; clips for displays are made of it in a second pass, when the brightest frame is
known (`write_clips`). Nothing grows with the length of the footage but some numbers a frame, and a run that
was killed goes on at the frame where it was.

Methods, the last three without a network:

    network    `networks.coarse`, then `networks.refine`: Chen et al. 2021, "HDR Video Reconstruction: A
               Coarse-to-fine Network and A Real-world Benchmark Dataset"; for as many exposures as there are
               networks. The coarse result of a frame is computed once and serves the frames beside it, too
    coarse     the first of the two alone
    flow       neighbours followed by optical flow, merged where they agree with the reference, and in its
               shadows with each other (`inbetween`); for any number of exposures
    merge      neighbours brought into line by a similarity, all believed: what moves leaves ghosts
    reference  each frame alone, linear: what it clipped is lost

Units: 1.0 of the frames written is where the longest exposure of the footage clips; or white at the EV that
is asked for. Linear Rec. 709.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from . import encode, grade
from .alternation import Stated
from .bracket import RadianceMap
from .cadence import Cadence, settle
from .coarsetofine import Role, is_released
from .errors import ExposureError, InputError, NetworkError
from .exposure import Response
from .fileformat import unreadable
from .footage import Progress, Stills, open_footage, silent
from .grade import Display
from .infer import INSTALL, engines
from .journal import Origin
from .metering import describe
from .methods import WIDEST, Method, Way, best, digest, roles_of
from .reel import Reel, Script
from .vicinity import Vicinity
from .weights import find

SMALLEST = 16  # [px] a side: optical flow sees nothing in less

# What each stage is of the whole, of 1080p on a CPU; the last three are those of `write_clips`.
PARTS = {
    "read": 0.01, "look": 0.03, "expose": 0.02, "frames": 0.62, "measure": 0.05, "preview": 0.09,
    "encode": 0.18,
}  # fmt: skip
NETWORK_PARTS = {
    "read": 0.005, "look": 0.01, "expose": 0.005, "frames": 0.9, "measure": 0.015, "preview": 0.02,
    "encode": 0.045,
}  # fmt: skip


@dataclass(frozen=True)
class VideoOptions:
    """How to make HDR video; the defaults are those of the command line."""

    exposures: Stated | None = None  # of `alternation.read_stated`; None = EXIF, or the pixels
    response: str | Response | None = None  # a name in `RESPONSES` or a curve; None = found from the frames
    method: Method | None = (
        None  # None = network where one is given or released, see `methods.best`, else flow
    )
    coarse: str | None = None  # a weights file, or a name in `networks.NETWORKS`; None = the released one
    refine: str | None = None
    anchor: float | None = None  # [EV at ISO 100] the exposure whose white is 1.0; None = the longest
    fps: float | None = None  # of stills, 25 if not stated; overrides a clip's
    device: str = "auto"  # as in `infer.open_engine`
    precision: str = "auto"
    compression: str = "zip"  # of the EXR files, as in `write.write`
    float32: bool = False

    def curve(self) -> Response | None:
        return Response.named(self.response) if isinstance(self.response, str) else self.response

    @property
    def networks(self) -> dict[Role, str | None]:
        return {"coarse": self.coarse, "refine": self.refine}


@dataclass(frozen=True, eq=False)
class VideoReport:
    """What became of footage: ``made`` of its frames in this run, the others lay there already."""

    cadence: Cadence
    method: str  # with its networks, their engines, devices and precisions
    made: int
    warnings: list[str]

    def sentence(self) -> str:
        """Say in one line what the frames are, and how HDR was made of them."""
        stops, total = self.cadence.stops, len(self.cadence.footage)
        told = {
            "pixels": "told by the pixels",
            "exif": "stated by the files",
            "ev": "of the files, corrected",
        }
        again = f"; {total - self.made} lay there already" if self.made < total else ""
        return (
            f"{total} frames of {len(stops)} exposures, {describe(stops)} EV "
            f"({told.get(self.cadence.source, 'as stated')}); method: {self.method}{again}"
        )


def reconstruct(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    options: VideoOptions | None = None,
    progress: Progress = silent,
    force: bool = False,
) -> tuple[Reel, VideoReport]:
    """Make an HDR frame of each frame of footage, and write them to a folder as EXR files.

    ``path`` is a clip or a folder of stills. A folder that holds some of the same frames already, made with
    the same options, is completed; what else lies there is kept unless ``force`` is set. Raises an
    `HdrmergeError`.
    """
    options, path, folder = options or VideoOptions(), Path(path), Path(folder)
    _refuse_unreleased(options)  # what cannot run is said before the work
    footage = open_footage(path, options.fps, progress)
    if min(footage.height, footage.width) < SMALLEST:
        size = f"{footage.width} x {footage.height} px"
        raise InputError(f"{path}: frames of {size}; give some of {SMALLEST} px a side at least")
    cadence = settle(footage, options.exposures, options.curve(), progress)
    scale = _scale(cadence, options.anchor)
    vicinity, given = Vicinity(cadence.footage, cadence.kinds), options.networks
    chosen = options.method or best(vicinity.count, given, vicinity.widest)
    method = Way.opened(chosen, vicinity, given, options.device, options.precision)
    low, high = cadence.whites
    script = Script(
        _origin(cadence, options, method.name),
        cadence.footage.names,
        cadence.footage.times,
        (low * scale, high * scale),
    )
    warnings = list(cadence.warnings)
    missed = vicinity.widest <= WIDEST and is_released("coarse", vicinity.count) and not engines()
    if options.method is None and missed:
        warnings.append(f"{path}: made by flow, networks need onnxruntime or torch; {INSTALL}")
    if roles_of(chosen) and vicinity.widest > WIDEST:
        warnings.append(
            f"{path}: exposures {vicinity.widest:.1f} EV apart, networks know steps of 2 to 3; shadows "
            "of short frames may be lost, --method flow keeps them"
        )
    with Reel.recording(folder, script, force) as reel:
        missing = reel.missing()
        for done, number in enumerate(missing):
            progress("frames", done / len(missing))
            warnings += reel.add(
                number,
                _radiance_map(method, cadence, number, scale),
                compression=options.compression,
                float32=options.float32,
            )
        progress("frames", 1.0)
    report = VideoReport(cadence, method.name, len(missing), _fewer(warnings))
    return Reel.finished(folder), report


def write_clips(
    reel: Reel,
    preview: Path | None = None,
    target: Path | None = None,
    display: Display | None = None,
    *,
    operator: str = "reinhard2002",
    codec: encode.Codec = "hevc",
    quality: int = 18,
    force: bool = False,
    progress: Progress = silent,
) -> grade.Measured:
    """Encode a finished reel: an SDR ``preview``, and HDR10 or HLG for ``display`` at ``target``.

    The preview first: a target that exists is a run that came to its end.
    """
    display = display or Display()
    measured = grade.measure(reel, display, progress)
    if preview is not None:
        encode.encode_preview(
            reel, preview, measured, operator=operator, quality=quality, force=force,
            progress=lambda _, share: progress("preview", share),
        )  # fmt: skip
    if target is not None:
        encode.encode_hdr(
            reel, target, measured, display, codec=codec, quality=quality, force=force, progress=progress
        )
    return measured


def parts_of(options: VideoOptions, preview: bool, target: bool) -> dict[str, float]:
    """Return what each stage is likely to be of the whole, in order, without clips that are not wanted."""
    networks = options.method in ("network", "coarse") or options.coarse or options.refine
    parts = NETWORK_PARTS if networks or (options.method is None and is_released("coarse")) else PARTS
    unwanted = {"preview": not preview, "encode": not target, "measure": not (preview or target)}
    return {stage: part for stage, part in parts.items() if not unwanted.get(stage)}


# --- before the frames ----------------------------------------------------------------------------


def _refuse_unreleased(options: VideoOptions) -> None:
    """Raise `NetworkError` where a method wants a network that nobody gave and nobody released."""
    wanted = roles_of(options.method) if options.method else ()
    for role, choice in options.networks.items():
        if choice is not None:
            find(choice)
        elif role in wanted and not is_released(role):
            raise NetworkError(
                f"no network for HDR video is released yet; give a weights file with --{role}, or use "
                "--method flow"
            )


def _scale(cadence: Cadence, anchor: float | None) -> float:
    """Return what 1.0 = white of the longest exposure is on the scale of ``anchor`` [EV at ISO 100]."""
    if anchor is None:
        return 1.0
    footage = cadence.footage
    shot = footage.shot(int(np.argmax(footage.seconds)))
    if cadence.source == "pixels" or shot.exposure is None:
        raise ExposureError(
            f"{footage.path}: no absolute exposure to anchor to EV {anchor:g}; state it with --exposures, or "
            "use --anchor longest"
        )
    return float(2.0**-anchor / shot.exposure)


def _origin(cadence: Cadence, options: VideoOptions, method: str) -> Origin:
    """Return what the frames are made of; runs of equal origin write equal frames."""
    footage = cadence.footage
    files = [shot.path for shot in footage.shots] if isinstance(footage, Stills) else [footage.path]
    stated = options.exposures
    curve = options.curve()
    settings = {
        "method": method,
        "exposures": f"{stated.pattern or stated.listed}" if stated else "found",
        "response": f"{curve.name} {digest(curve.table.tobytes())}" if curve else "found",
        "anchor": "longest" if options.anchor is None else f"EV{options.anchor:g}",
        "fps": f"{options.fps or 'stated'}",
        "compression": options.compression,
        "bits": "32" if options.float32 else "16",
    }
    if stated and stated.listed:
        settings["exposures"] = f"{stated.origin} {digest(settings['exposures'].encode())}"
    try:
        return Origin.of(files, settings)
    except OSError as error:
        raise unreadable(footage.path, error) from None


def _fewer(warnings: Sequence[str]) -> list[str]:
    """Return warnings, of those about single frames the first and how many more there are."""
    once = list(dict.fromkeys(warnings))
    frames = [line for line in once if ".exr: " in line]
    more = [f"{frames[0]} ({len(frames) - 1} more frames alike)"] if len(frames) > 1 else frames
    return [line for line in once if line not in frames] + more


# --- a frame --------------------------------------------------------------------------------------


def _radiance_map(method: Way, cadence: Cadence, number: int, scale: float) -> RadianceMap:
    """Return the HDR frame of a frame, 1.0 = white of the longest exposure times ``scale``."""
    radiance, used = method.radiance(number)
    view = method.vicinity[number]
    valid = np.asarray(radiance.max(axis=2) < 1.0)
    matrix = view.to_rec709 * np.float32(method.vicinity.exposures.max() * scale)
    pixels = np.maximum(cv2.transform(radiance, matrix), 0.0)
    stops = cadence.stops[int(cadence.kinds[number])]
    curve = cadence.footage.response
    settings = (
        f"method={method.name} response={curve.name if curve else 'of the file'} exposure={stops:+.2f} EV of "
        f"the longest, {cadence.source}"
    )
    return RadianceMap(pixels, valid, view.shot, used, settings)
