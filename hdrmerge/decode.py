"""A clip's stream -> R'G'B' codes: opened by FFmpeg, tags read or guessed, planes put together.

FFmpeg decodes; what its numbers mean is settled here, so that matrix, range and the place of chroma are
those of the file and not the default of a converter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .broadcast import (
    BT709,
    BT2020,
    FULL,
    LUMA,
    PRIMARIES,
    TRANSFER_HLG,
    TRANSFER_PQ,
    TRANSFERS,
    enlarged,
    rgb_from_ycc,
)
from .errors import InputError
from .exposure import Array
from .fileformat import damaged, unreadable

BELOW_BLACK = 8  # code of 255: limited range has hardly a pixel there
MUCH_BELOW = 0.02  # share of the pixels of a clip below, from which it is full range after all
HD_FROM, SD_UP_TO = 1280, 576  # columns, lines: larger clips are BT.709 and no BT.601 if untagged


@dataclass(frozen=True)
class Signal:
    """How a clip's numbers are to be read; ``matrix`` 0 stands for RGB. Tags are those of `broadcast`."""

    bits: int
    matrix: int
    full: bool
    transfer: int
    primaries: int


def video_library(path: Path) -> Any:
    """Return PyAV, without which no clip can be read or written."""
    try:
        import av
    except ModuleNotFoundError:
        raise InputError(f"{path}: video needs one package more: pip install 'hdrmerge[video]'") from None
    return av


@contextmanager
def opened_clip(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a clip and its first video stream."""
    av = video_library(path)
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, (PermissionError, FileNotFoundError)):
            raise unreadable(path, error) from None
        raise InputError(
            f"{path}: is no clip that FFmpeg reads, or is damaged; give a video or a folder"
        ) from None
    with container:
        if not container.streams.video:
            raise InputError(f"{path}: holds no video; give a clip or a folder of stills")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        yield container, stream


def decoded(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """Yield the frames of a stream; what FFmpeg has against one becomes an `InputError`."""
    av = video_library(path)
    try:
        yield from container.decode(stream)
    except (av.FFmpegError, OSError) as error:
        raise damaged(path, getattr(error, "strerror", None) or error) from None


def bits_of(frame: Any) -> int:
    """Return the bits of a sample of a frame."""
    return int(frame.format.components[0].bits)


def signal_of(path: Path, frame: Any, stream: Any, below: float) -> tuple[Signal, list[str]]:
    """Read the tags of a clip, and guess as players do what they leave open.

    Larger than television was, BT.709; else BT.601 with the primaries of BT.709, which are near; BT.2020
    must be tagged. The range is limited unless the pixel format says otherwise or much lies below black.
    """
    context = stream.codec_context

    def tag(name: str) -> int:
        return int(getattr(frame, name, None) or getattr(context, name, None) or 0)

    notes = []
    bits = bits_of(frame)
    transfer, primaries, matrix = tag("color_trc"), tag("color_primaries"), tag("colorspace")
    if transfer in (TRANSFER_PQ, TRANSFER_HLG):
        raise InputError(f"{path}: HDR for displays (PQ or HLG), no camera's exposures; export it as BT.709")
    if frame.format.is_rgb:
        matrix, full = 0, True
    else:
        if matrix not in LUMA:
            hd = frame.width >= HD_FROM or frame.height > SD_UP_TO
            matrix = BT2020 if primaries == BT2020 else BT709 if hd or primaries == BT709 else 6
        full = tag("color_range") == FULL or frame.format.name.startswith("yuvj")
        if not full and not tag("color_range") and below > MUCH_BELOW:
            full = True
            notes.append(f"{below:.0%} of its pixels are darker than black; read as full range")
    if primaries not in PRIMARIES:
        primaries = BT2020 if matrix == BT2020 else BT709
    if transfer not in TRANSFERS:
        transfer = 13 if matrix == 0 else 1
    return Signal(bits, matrix, full, transfer, primaries), notes


def _plane(frame: Any, index: int) -> Array:
    """Return a plane of a planar frame, (h, w), uint8 or uint16, without the padding of its lines."""
    plane = frame.planes[index]
    kind = np.dtype(np.uint8 if bits_of(frame) == 8 else "<u2")
    return np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)[
        : plane.height, : plane.width
    ]


def _planar(frame: Any) -> Any:
    """Return a frame in planes of Y, Cb and Cr, None for RGB, grey and whatever else has none."""
    parts, name, bits = frame.format.components, frame.format.name, bits_of(frame)
    if frame.format.is_rgb or len(parts) < 3:
        return None
    across, down = (round(a / b) for a, b in ((frame.width, parts[1].width), (frame.height, parts[1].height)))
    kind = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}.get((across, down))
    planar = f"yuv{'j' * name.startswith('yuvj')}{kind}p{'' if bits == 8 else f'{bits}le'}"
    return frame if name == planar else frame.reformat(format=planar)


def luma_of(frame: Any) -> Array:
    """Return the luma codes of a frame, or what stands nearest to them."""
    planar = _planar(frame)
    if planar is not None:
        return _plane(planar, 0)
    return _packed_rgb(frame)[..., 1]


def _packed_rgb(frame: Any) -> Array:
    """Return RGB codes (H, W, 3) of a frame without chroma planes, uint8, or uint16 to the full 65535."""
    eight = bits_of(frame) == 8
    frame = frame.reformat(format="rgb24" if eight else "rgb48le")
    plane = frame.planes[0]
    kind = np.dtype(np.uint8 if eight else "<u2")
    lines = np.frombuffer(plane, kind).reshape(frame.height, plane.line_size // kind.itemsize)
    return lines[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)


def rgb_codes(frame: Any, signal: Signal) -> Array:
    """Return R'G'B' codes (H, W, 3) as stored: uint8 for 8 bits, else uint16 with white at 65535."""
    planar = _planar(frame)
    if planar is None:
        return _packed_rgb(frame)
    left = not frame.format.name.startswith("yuvj")
    luma = _plane(planar, 0)
    chroma = [enlarged(_plane(planar, n), luma.shape[0], luma.shape[1], left) for n in (1, 2)]
    ycc = cv2.merge([luma, *chroma])
    matrix = rgb_from_ycc(signal.matrix, signal.bits, signal.full, 255.0 if signal.bits == 8 else 65535.0)
    return np.asarray(cv2.transform(ycc, matrix))  # rounds, and keeps within the type
