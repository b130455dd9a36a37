"""Pixels of Radiance .hdr files: shared-exponent RGBE and its run-length code, both ways.

Ward, "Real Pixels", Graphics Gems II (1991); run-length code of Radiance 2 (1991). A pixel is three
mantissas and one exponent byte E, radiance = mantissa * 2^(E - 136). Mantissas are rounded here, and
read back as they stand: what OpenCV, ImageMagick, ffmpeg and stb_image do. (Radiance itself truncates
and adds half a step when reading; its values come out 0.2 to 0.4 % higher.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .exposure import Float, Mask

Bytes = NDArray[np.uint8]

LARGEST = 255 * 2.0**119
SMALLEST = 1e-32  # darker pixels are black

SHORTEST_RUN = 4  # two bytes of code for four; shorter runs cost more when they split literals
LONGEST_RUN, LONGEST_LITERAL = 127, 128


def encode(rows: Float) -> bytes:
    """Encode scanlines (h, w, 3) of radiance within `LARGEST`; negative values become 0.

    Each scanline stands alone, so that bands of an image can be encoded apart and joined.
    """
    height, width, _ = rows.shape
    peak = rows.max(axis=2)
    # 256 / 255.5: a peak whose mantissa would round to 256 takes the next exponent.
    exponent = np.frexp(peak * np.float32(1.002))[1]
    step = np.ldexp(np.float32(1.0), np.where(peak > SMALLEST, 8 - exponent, 0))
    pixels = np.empty((height, width, 4), dtype=np.uint8)
    pixels[..., :3] = np.rint(np.maximum(rows, 0.0) * step[..., None])
    pixels[..., 3] = exponent + 128
    pixels[peak <= SMALLEST] = 0
    if not _has_run_lengths(width):
        return pixels.tobytes()
    return _pack(np.ascontiguousarray(pixels.transpose(0, 2, 1)))


def decode(code: bytes, height: int, width: int) -> Float:
    """Decode scanlines to radiance (height, width, 3), float32; ValueError where the code ends early."""
    marker = bytes((2, 2, width >> 8, width & 255)) if _has_run_lengths(width) else None
    if marker is not None and code.startswith(marker):
        planes = bytearray(height * 4 * width)
        position = 0
        for start in range(0, len(planes), 4 * width):
            if code[position : position + 4] != marker:
                raise ValueError("ends early or is damaged")
            position = _unpack(code, position + 4, planes, start, start + 4 * width)
        pixels = np.frombuffer(planes, np.uint8).reshape(height, 4, width).transpose(0, 2, 1)
    elif len(code) >= height * width * 4:
        pixels = np.frombuffer(code, np.uint8, height * width * 4).reshape(height, width, 4)
    else:
        raise ValueError("ends early, or uses the run-length code of before 1991")
    scale = np.ldexp(np.float32(1.0), pixels[..., 3].astype(np.int32) - 136)
    scale[pixels[..., 3] == 0] = 0.0
    return np.asarray(pixels[..., :3] * scale[..., None], dtype=np.float32)


def _has_run_lengths(width: int) -> bool:
    """Whether the format allows run lengths: other widths are stored flat, four bytes a pixel."""
    return 8 <= width <= 0x7FFF


def _pack(planes: Bytes) -> bytes:
    """Run-length encode scanlines (h, 4, w), each plane of each scanline by itself.

    The planes are cut into segments, each a run of equal bytes or a stretch of literals, segments
    into pieces of at most 127 or 128 bytes. A run becomes (128 + length, byte), literals (length, bytes).
    """
    height, _, width = planes.shape
    codes = planes.ravel()
    in_run, starts = _segments(codes, width)
    lengths = np.diff(starts, append=codes.size)
    longest = np.where(in_run[starts], LONGEST_RUN, LONGEST_LITERAL)
    pieces = -(-lengths // longest)

    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    at = np.repeat(starts, pieces) + nth * np.repeat(longest, pieces)
    length = np.diff(at, append=codes.size)
    run = in_run[at]

    size = np.where(run, 2, 1 + length)
    scanline = at // (4 * width)
    target = np.cumsum(size) - size + 4 * (scanline + 1)  # each scanline opens with 4 bytes
    heads = target[np.diff(scanline, prepend=-1) > 0] - 4

    packed = np.empty(int(size.sum()) + 4 * height, dtype=np.uint8)
    literal = np.ones(packed.size, dtype=np.bool_)
    for offset, value in enumerate((2, 2, width >> 8, width & 255)):
        packed[heads + offset] = value
        literal[heads + offset] = False
    packed[target] = np.where(run, 128 + length, length)
    literal[target] = False
    packed[target[run] + 1] = codes[at[run]]
    literal[target[run] + 1] = False
    packed[literal] = codes[~in_run]
    return packed.tobytes()


def _segments(codes: Bytes, width: int) -> tuple[Mask, NDArray[np.intp]]:
    """Return which bytes lie in a run worth coding, and where runs and literal stretches start."""
    count = codes.size
    differs = np.ones(count + 1, dtype=np.bool_)  # from the byte before; the end counts as different
    np.not_equal(codes[1:], codes[:-1], out=differs[1:-1])
    differs[::width] = True
    opens = ~(differs[1:-2] | differs[2:-1] | differs[3:])  # equal to the next three
    in_run = np.zeros(count, dtype=np.bool_)
    for offset in range(SHORTEST_RUN):
        in_run[offset : offset + opens.size] |= opens[: count - offset]
    edge = in_run & differs[:-1]
    edge[1:] |= in_run[1:] != in_run[:-1]
    edge[::width] = True
    return in_run, np.flatnonzero(edge)


def _unpack(code: bytes, position: int, planes: bytearray, start: int, end: int) -> int:
    """Decode one scanline into ``planes[start:end]``; return the position behind it."""
    while start < end:
        if position >= len(code):
            raise ValueError("ends early")
        count = code[position]
        if count > 128:
            count -= 128
            values = code[position + 1 : position + 2] * count
            position += 2
        else:
            values = code[position + 1 : position + 1 + count]
            position += 1 + count
        if count == 0 or start + count > end or len(values) < count:
            raise ValueError("ends early or is damaged")
        planes[start : start + count] = values
        start += count
    return position
