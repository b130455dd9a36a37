"""A graded reel -> a video file: HDR10 or HLG for displays that show them, a preview for those that do not.

    signal -> Y'CbCr 4:2:0 -> HEVC or AV1 (10 bits), H.264 (8 bits) -> mp4, by PyAV

The tags that tell a player what the numbers mean go to the encoder and to the container alike.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from . import broadcast
from .broadcast import (
    BT709,
    BT2020,
    P3_CHROMATICITIES,
    TRANSFER_709,
    TRANSFER_HLG,
    TRANSFER_PQ,
    subsampled,
    ycc_from_rgb,
)
from .decode import video_library
from .errors import HdrmergeError, OutputError
from .exposure import Array, Float
from .footage import Progress, silent
from .grade import Display, Measured, hdr_signal
from .journal import remove_leftovers
from .operators import drago2003, mulaw, narkowicz2015, reinhard2002
from .reel import Reel
from .write import check_target, replacing, unwritable

Codec = Literal["hevc", "av1"]

SUFFIXES = (".mp4", ".mov", ".mkv")
ENCODERS = {"hevc": "libx265", "av1": "libsvtav1"}
GLOBAL = {
    "reinhard2002": reinhard2002,
    "drago2003": drago2003,
    "narkowicz2015": narkowicz2015,
    "mulaw": mulaw,
}
"""The operators that know no more of a scene than its average and its brightest, which a clip can hold."""

CLOCK = 90_000  # ticks a second, as MPEG has them: every usual frame rate is a whole number of them
DARKEST_NITS = 0.0001  # that the display of the stated mastering shows, in its smallest unit
REORDERED = 8  # frames: of shorter clips x265's B-frames have decoding times that no file can hold


def encode_hdr(
    reel: Reel,
    target: Path,
    measured: Measured,
    display: Display | None = None,
    *,
    codec: Codec = "hevc",
    quality: int = 18,
    force: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a reel as HDR10 or HLG, 10 bits, BT.2020.

    ``measured`` must be of the same ``display``. ``quality`` is the encoder's CRF, smaller is better.
    """
    display = display or Display()
    transfer = TRANSFER_HLG if display.transfer == "hlg" else TRANSFER_PQ
    parameters = hdr_parameters(codec, display, measured)
    options = {"crf": str(quality), **parameters, "preset": "medium" if codec == "hevc" else "8"}
    if codec == "hevc" and len(reel) < REORDERED:
        options["x265-params"] += ":bframes=0"
    picture = _Picture("yuv420p10le", BT2020, transfer, BT2020, 10)

    def signals() -> Iterator[Float]:
        for frame in reel.frames():
            yield hdr_signal(frame.pixels, measured.white, display, measured.brightest)

    _encode(reel, target, ENCODERS[codec], options, picture, signals(), force, progress)


def encode_preview(
    reel: Reel,
    target: Path,
    measured: Measured,
    *,
    operator: str = "reinhard2002",
    quality: int = 18,
    force: bool = False,
    progress: Progress = silent,
) -> None:
    """Write a reel as H.264, 8 bits, BT.709, by one tone curve for the whole of it."""
    if operator not in GLOBAL:
        raise HdrmergeError(
            f"no operator {operator!r} for clips, which must not flicker; choose {', '.join(GLOBAL)}"
        )
    picture = _Picture("yuv420p", BT709, TRANSFER_709, BT709, 8)

    def signals() -> Iterator[Float]:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for frame in reel.frames():
                codes = GLOBAL[operator](frame.pixels, measured.survey, pool)
                yield codes.astype(np.float32) / np.float32(255)

    options = {"crf": str(quality), "preset": "medium"}
    _encode(reel, target, "libx264", options, picture, signals(), force, progress)


def planes(signal: Float, matrix: int, bits: int) -> list[Array]:
    """Return Y', Cb and Cr (4:2:0, limited range) of R'G'B' (H, W, 3); an odd row or column is cut."""
    height, width = signal.shape[0] & ~1, signal.shape[1] & ~1
    affine = ycc_from_rgb(matrix, bits).astype(np.float32)
    ycc = np.asarray(cv2.transform(signal[:height, :width], affine), np.float32)
    return subsampled(ycc, bits, top_left=matrix == BT2020)


def hdr_parameters(codec: Codec, display: Display, measured: Measured) -> dict[str, str]:
    """Return the option of the encoder that tells it colours, mastering display and light levels.

    The display is taken to have the primaries of P3, which Rec. 709 lies within, and the stated peak
    (SMPTE ST 2086; x265 counts in 0.00002 and 0.0001 nits). HLG has neither it nor light levels.
    """
    cll, fall = (min(math.ceil(level), 65535) for level in (measured.max_cll, measured.max_fall))
    red, green, blue, white = zip(P3_CHROMATICITIES[::2], P3_CHROMATICITIES[1::2], strict=True)
    pq = display.transfer == "pq"
    transfer = TRANSFER_PQ if pq else TRANSFER_HLG
    if codec == "av1":
        spots = "".join(f"{n}({x:.4f},{y:.4f})" for n, (x, y) in _named(green, blue, red, white))
        told: dict[str, object] = {
            "color-primaries": BT2020, "transfer-characteristics": transfer, "matrix-coefficients": BT2020,
            "color-range": 0, "chroma-sample-position": 2,
        }  # fmt: skip
        if pq:
            told["mastering-display"] = f"{spots}L({display.peak:.4f},{DARKEST_NITS:.4f})"
            told["content-light"] = f"{cll},{fall}"
        return {"svtav1-params": ":".join(f"{name}={value}" for name, value in told.items())}
    spots = "".join(
        f"{n}({round(x * 50000)},{round(y * 50000)})" for n, (x, y) in _named(green, blue, red, white)
    )
    told = {
        "log-level": "error", "colorprim": "bt2020", "colormatrix": "bt2020nc", "range": "limited",
        "transfer": "smpte2084" if pq else "arib-std-b67", "chromaloc": 2, "repeat-headers": 1,
    }  # fmt: skip
    if pq:
        told |= {"hdr10": 1, "hdr10-opt": 1, "max-cll": f"{cll},{fall}"}
        told["master-display"] = f"{spots}L({round(display.peak * 10000)},{round(DARKEST_NITS * 10000)})"
    return {"x265-params": ":".join(f"{name}={value}" for name, value in told.items())}


def _named(*spots: tuple[float, float]) -> list[tuple[str, tuple[float, float]]]:
    return list(zip(("G", "B", "R", "WP"), spots, strict=True))


@dataclass(frozen=True)
class _Picture:
    """How a stream's pictures are stored and tagged."""

    format: str
    primaries: int
    transfer: int
    matrix: int
    bits: int


def _encode(
    reel: Reel,
    target: Path,
    encoder: str,
    options: dict[str, str],
    picture: _Picture,
    signals: Iterator[Float],
    force: bool,
    progress: Progress,
) -> None:
    """Encode R'G'B' frames at the times of the reel, beside the target first; PyAV does the rest."""
    check_target(target, SUFFIXES, force=force)
    av = video_library(target)
    if encoder not in av.codecs_available:
        raise OutputError(
            f"{target}: this PyAV has no encoder {encoder}; pip install 'hdrmerge[video]' brings one"
        )
    os.environ.setdefault("SVT_LOG", "1")  # errors only: libsvtav1 writes to stderr itself
    times = reel.script.times
    remove_leftovers(target.parent)
    with replacing(target) as temporary, av.open(str(temporary), "w") as container:
        stream = None
        for number, signal in enumerate(signals):
            flat = planes(signal, picture.matrix, picture.bits)
            if stream is None:
                stream = _stream(container, encoder, options, picture, flat[0].shape, times)
            frame = _frame(av, flat, picture)
            frame.pts, frame.time_base = round(times[number] * CLOCK), Fraction(1, CLOCK)
            _mux(target, av, container, stream, frame)
            progress("encode", (number + 1) / len(reel))
        if stream is not None:
            _mux(target, av, container, stream, None)


def _stream(
    container: Any, encoder: str, options: dict[str, str], picture: _Picture, size: tuple[int, ...],
    times: tuple[float, ...],
) -> Any:  # fmt: skip
    steps = len(times) - 1
    rate = Fraction(steps / (times[-1] - times[0]) if steps else 25.0).limit_denominator(1001)
    stream = container.add_stream(encoder, rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = picture.format
    stream.time_base = stream.codec_context.time_base = Fraction(1, CLOCK)
    context = stream.codec_context
    context.color_primaries, context.color_trc = picture.primaries, picture.transfer
    context.colorspace, context.color_range = picture.matrix, broadcast.LIMITED
    if encoder == "libx265":
        context.codec_tag = "hvc1"  # the one of two names that Apple's players know
    return stream


def _frame(av: Any, flat: list[Array], picture: _Picture) -> Any:
    height, width = flat[0].shape
    frame = av.VideoFrame(width, height, picture.format)
    for plane, values in zip(frame.planes, flat, strict=True):
        lines = np.zeros((values.shape[0], plane.line_size // values.itemsize), values.dtype)
        lines[:, : values.shape[1]] = values
        plane.update(lines.tobytes())
    frame.colorspace, frame.color_range = picture.matrix, broadcast.LIMITED
    for name, tag in (("color_primaries", picture.primaries), ("color_trc", picture.transfer)):
        if hasattr(frame, name):  # since PyAV 14; what the stream says counts
            setattr(frame, name, tag)
    return frame


def _mux(target: Path, av: Any, container: Any, stream: Any, frame: Any) -> None:
    try:
        with _as_before():
            packets = stream.encode(frame)
        container.mux(packets)
    except av.FFmpegError as error:
        if isinstance(error, OSError) and error.errno:
            raise unwritable(target, error) from error
        raise OutputError(f"{target}: the encoder failed ({error}); try another --codec") from error


@contextmanager
def _as_before() -> Iterator[None]:
    """Give the thread its scheduling back: libsvtav1, run as root, makes it a real-time one for good.

    On few cores that starves the threads it waits for: reading an EXR then takes a second.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameter)
