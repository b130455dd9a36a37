"""What a shot says, as EXIF: the directories that previews and float TIFF carry.

A TIFF directory is a sorted list of (tag, type, count, value or its offset); EXIF is one such
directory with another inside (TIFF 6.0, 1992; CIPA DC-008, Exif 2.32). Values the shot does not state
are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction

from . import __version__
from .bracket import Shot

SOFTWARE = f"hdrmerge {__version__}"

Field = tuple[int, int, bytes]
"""Type (TIFF 6.0: 2 ASCII, 3 SHORT, 4 LONG, 5 RATIONAL, 7 UNDEFINED), count, little-endian values."""

EXIF_DIRECTORY = 34665
SRGB, UNCALIBRATED = 1, 0xFFFF  # the two values of ColorSpace


def text(value: str) -> Field:
    data = value.encode("utf-8", "replace") + b"\0"
    return 2, len(data), data


def short(*values: int) -> Field:
    return 3, len(values), struct.pack(f"<{len(values)}H", *values)


def long(*values: int) -> Field:
    return 4, len(values), struct.pack(f"<{len(values)}I", *values)


def rational(value: float) -> Field:
    """A ratio close to ``value`` >= 0; the float nearest 1/60 comes out as 1/60."""
    room = max(1, int(0xFFFFFFFF / max(value, 1.0)))
    ratio = Fraction(value).limit_denominator(min(room, 1_000_000))
    return 5, 1, struct.pack("<2I", ratio.numerator, ratio.denominator)


def undefined(value: bytes) -> Field:
    return 7, len(value), value


def directory(fields: Mapping[int, Field], offset: int) -> bytes:
    """Serialise a directory that will lie at the even ``offset`` of its file, values behind it."""
    entries = struct.pack("<H", len(fields))
    values = b""
    start = offset + 2 + 12 * len(fields) + 4
    for tag, (kind, count, data) in sorted(fields.items()):
        inline = data if len(data) <= 4 else struct.pack("<I", start + len(values))
        entries += struct.pack("<HHI4s", tag, kind, count, inline)
        if len(data) > 4:
            values += data + bytes(len(data) % 2)
    return entries + bytes(4) + values


def camera_fields(shot: Shot) -> dict[int, Field]:
    """Return the fields of the main directory: maker, model, upright, software, 72 dots per inch."""
    fields = {274: short(1), 305: text(SOFTWARE)}
    fields |= {282: rational(72.0), 283: rational(72.0), 296: short(2)}  # required, and of no meaning here
    if shot.camera_make:
        fields[271] = text(shot.camera_make)
    if shot.camera_model:
        fields[272] = text(shot.camera_model)
    return fields


def exposure_fields(shot: Shot, colour_space: int, comment: str = "") -> dict[int, Field]:
    """Return the fields of the EXIF directory: exposure, time, lens, colour space, comment."""
    fields = {36864: undefined(b"0232"), 40961: short(colour_space)}
    if shot.exposure_time is not None:
        fields[33434] = rational(shot.exposure_time)
    if shot.f_number is not None:
        fields[33437] = rational(shot.f_number)
    if shot.iso is not None:
        fields[34855] = short(min(round(shot.iso), 0xFFFF))
        if shot.iso > 0xFFFF:  # Exif 2.3: the 16-bit field saturates, the index holds the value
            fields[34864], fields[34866] = short(2), long(round(shot.iso))
    if shot.taken_at is not None:
        fields[36867] = text(f"{shot.taken_at:%Y:%m:%d %H:%M:%S}")
    if shot.focal_length is not None:
        fields[37386] = rational(shot.focal_length)
    if shot.lens:
        fields[42036] = text(shot.lens)
    if comment:
        fields[37510] = undefined(
            b"ASCII\0\0\0" + comment.encode("ascii")
            if comment.isascii()
            else b"UNICODE\0" + comment.encode("utf-16-le")
        )
    return fields


def exif_block(shot: Shot) -> bytes:
    """Return the EXIF of an upright sRGB picture: a TIFF header and two directories."""
    header = struct.pack("<2sHI", b"II", 42, 8)
    fields = camera_fields(shot)
    behind = 8 + len(directory(fields | {EXIF_DIRECTORY: long(0)}, 8))
    main = directory(fields | {EXIF_DIRECTORY: long(behind)}, 8)
    return header + main + directory(exposure_fields(shot, SRGB), behind)
