"""A photograph's metadata -> `Shot`; no pixel is decoded."""

from __future__ import annotations

import io
import logging
import math
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import exifread

from .bracket import ExposureMode, Shot
from .fileformat import Kind, damaged, kind_of, open_heic, open_pillow, opened
from .raw import open_raw

logging.getLogger("exifread").setLevel(logging.CRITICAL)  # what it cannot read is simply not known

Tags = dict[str, Any]
"""What exifread found, by its names: ``EXIF FNumber``."""

_GROUPS = ("EXIF", "Image", "MakerNote")  # old RAW files keep exposures in the last two
_ISO_TAGS = ("ISOSpeedRatings", "RecommendedExposureIndex", "ISOSpeed", "ISOSetting")
_ISO_OVERFLOW = 65535  # Exif 2.3: the 16-bit tag is full, the value is in another
_EXPOSURE_MODES: dict[float, ExposureMode] = {0: "auto", 1: "manual", 2: "bracket"}  # Exif 2.3
_LARGEST_BIAS = 15.0  # [EV]; cameras offer 5, and write numbers of any size for what they do not know


def read_shot(path: str | os.PathLike[str]) -> Shot:
    """Read what the metadata of a photograph says; no pixel is decoded.

    ``width`` and ``height`` are those of the stored picture, to be turned as ``orientation`` says;
    HEIC and RAW are turned by their decoders, so that they are upright with orientation 1. Raises
    `InputError` for anything that is not a readable photograph.
    """
    path = Path(path)
    kind = kind_of(path)
    with opened(path) as file:
        block = _exif_of_heic(path, file) if kind == "heic" else file
        tags = _tags(block, details=False)
        if _exposure_time(tags) is None or _iso(tags) is None:
            tags |= _tags(block, details=True)  # maker notes take a while
        width, height = (0, 0) if kind == "raw" else _size(path, kind, file)
    shot = Shot(
        path=path,
        width=width,
        height=height,
        exposure_time=_exposure_time(tags),
        iso=_iso(tags),
        f_number=_f_number(tags),
        taken_at=_taken_at(tags),
        camera_make=_text(tags, "Make"),
        camera_model=_text(tags, "Model"),
        lens=_text(tags, "LensModel"),
        focal_length=_positive(tags, "FocalLength"),
        orientation=1 if kind in ("heic", "raw") else _orientation(tags),
        exposure_mode=_exposure_mode(tags),
        exposure_bias=_exposure_bias(tags),
        camera_serial=_text(tags, "BodySerialNumber", ("EXIF",)),  # maker notes are read for few files only
        software=_text(tags, "Software", ("Image",)),
    )
    if kind == "raw":
        shot = _completed_by_libraw(shot)
    return replace(shot, source="none" if shot.exposure_time is None else "exif")


def says_adobe_rgb(file: BinaryIO) -> bool:
    """Tell whether a file without a profile says by DCF 2.0 that it is Adobe RGB (1998)."""
    index = _tags(file, details=False).get("Interoperability InteroperabilityIndex", "")
    return str(index).strip("\0 ") == "R03"


def _size(path: Path, kind: Kind, file: BinaryIO) -> tuple[int, int]:
    """Return width and height [px] as the file's header states them."""
    if kind == "heic":
        width, height = open_heic(path, file).size
    elif kind == "tiff":
        import tifffile

        file.seek(0)
        try:
            with tifffile.TiffFile(file) as tiff:
                page = tiff.pages[0]
                width, height = int(page.imagewidth), int(page.imagelength)
        except Exception as error:  # damaged directories make tifffile raise many kinds
            raise damaged(path, error) from None
    else:
        with open_pillow(path, file) as picture:
            width, height = picture.size
    return int(width), int(height)


def _exif_of_heic(path: Path, file: BinaryIO) -> BinaryIO:
    """Return the EXIF block of a HEIC file; exifread finds it in few of them."""
    block = open_heic(path, file).info.get("exif") or b""
    return io.BytesIO(block.removeprefix(b"Exif\0\0"))


def _tags(file: BinaryIO, details: bool) -> Tags:
    """Return the tags that exifread finds; ``details`` adds maker notes."""
    file.seek(0)
    try:
        return dict(exifread.process_file(file, details=details))
    except Exception:  # exifread raises many kinds on damaged tags; the picture may be fine all the same
        return {}


def _tag(tags: Tags, name: str, groups: tuple[str, ...] = _GROUPS) -> Any:
    return next((tags[f"{group} {name}"] for group in groups if f"{group} {name}" in tags), None)


def _number(tags: Tags, name: str, groups: tuple[str, ...] = _GROUPS) -> float | None:
    """Return the last finite number of a tag (Nikon writes ISO as ``[0, 200]``)."""
    values = getattr(_tag(tags, name, groups), "values", None)
    for value in reversed(values if isinstance(values, (list, tuple)) else [values]):
        try:
            number = float(value)
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if math.isfinite(number):
            return number
    return None


def _positive(tags: Tags, name: str) -> float | None:
    """Return a tag's number; cameras write 0 for what they do not know."""
    number = _number(tags, name)
    return number if number is not None and number > 0 else None


def _text(tags: Tags, name: str, groups: tuple[str, ...] = _GROUPS) -> str:
    """Return a tag's text on one line."""
    tag = _tag(tags, name, groups)
    return "" if tag is None else " ".join(str(tag).replace("\0", " ").split())


def _exposure_time(tags: Tags) -> float | None:
    """Return the exposure time [s], from its APEX value Tv = -log2(t) where it is not stated itself."""
    apex = _number(tags, "ShutterSpeedValue")
    stated = _positive(tags, "ExposureTime")
    return 2.0**-apex if stated is None and apex is not None and abs(apex) < 30 else stated


def _f_number(tags: Tags) -> float | None:
    """Return the f-number, from its APEX value Av = 2 log2(N) where it is not stated itself."""
    apex = _positive(tags, "ApertureValue")
    stated = _positive(tags, "FNumber")
    return 2.0 ** (apex / 2) if stated is None and apex is not None and apex < 30 else stated


def _iso(tags: Tags) -> float | None:
    values = (_positive(tags, name) for name in _ISO_TAGS)
    return next((iso for iso in values if iso is not None and iso != _ISO_OVERFLOW), None)


def _exposure_mode(tags: Tags) -> ExposureMode | None:
    mode = _number(tags, "ExposureMode", ("EXIF",))
    return None if mode is None else _EXPOSURE_MODES.get(mode)


def _exposure_bias(tags: Tags) -> float | None:
    """Return the exposure compensation [EV], larger is brighter."""
    bias = _number(tags, "ExposureBiasValue", ("EXIF",))
    return bias if bias is not None and abs(bias) <= _LARGEST_BIAS else None


def _taken_at(tags: Tags) -> datetime | None:
    for name, fraction in (("DateTimeOriginal", "SubSecTimeOriginal"), ("DateTime", "SubSecTime")):
        try:
            whole = datetime.strptime(_text(tags, name)[:19], "%Y:%m:%d %H:%M:%S")
        except ValueError:
            continue
        digits = re.sub(r"\D", "", _text(tags, fraction))[:6]
        return whole.replace(microsecond=int(digits.ljust(6, "0")))
    return None


def _orientation(tags: Tags) -> int:
    value = _number(tags, "Orientation", ("Image",))
    return int(value) if value is not None and value in range(1, 9) else 1


def _completed_by_libraw(shot: Shot) -> Shot:
    """Add LibRaw's size to a RAW shot, and the exposure that exifread did not find (in CR3, RAF)."""
    with open_raw(shot.path) as raw:
        size = raw.sizes
        width, height = size.iwidth, size.iheight
        if size.flip & 4:  # LibRaw's bits: 1 mirrored, 2 upside down, 4 transposed
            width, height = height, width
        shot = replace(shot, width=width, height=height)
        if shot.exposure_time is not None and shot.iso is not None:
            return shot
        other = raw.other  # unpacks the pixels first, hence only where it is needed
        return replace(
            shot,
            exposure_time=shot.exposure_time or other.shutter_speed or None,
            iso=shot.iso or other.iso_speed or None,
            f_number=shot.f_number or other.aperture or None,
            focal_length=shot.focal_length or other.focal_length or None,
            taken_at=shot.taken_at or (other.timestamp if other.timestamp.year > 1970 else None),
        )
