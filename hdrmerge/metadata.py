"""A photograph's metadata -> `Shot`; no pixel is decoded."""

from __future__ import annotations

import io
import logging
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import exifread

from .bracket import Shot
from .errors import InputError
from .fileformat import Kind, kind_of, one_line, pillow_open
from .raw import open_raw

logging.getLogger("exifread").setLevel(logging.CRITICAL)  # what it cannot read is simply not known


def read_shot(path: str | os.PathLike[str]) -> Shot:
    """Read what the metadata of a photograph says; no pixel is decoded.

    Raises `InputError` for anything that is not a readable photograph.
    """
    path = Path(path)
    kind = kind_of(path)
    with path.open("rb") as file:
        tags = _tags(file, details=False)
        if _number(tags, "ExposureTime") is None or _number(tags, "ISOSpeedRatings") is None:
            tags = _tags(file, details=True) or tags
    width, height = _size(path, kind)
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
        focal_length=_number(tags, "FocalLength"),
        orientation=_orientation(tags) if kind in ("jpeg", "png", "tiff") else 1,
        source="exif",
    )
    return _filled_by_libraw(shot) if kind == "raw" else shot


def _size(path: Path, kind: Kind) -> tuple[int, int]:
    """Return width and height [px] as the file's header states them, before rotation."""
    if kind == "raw":
        return 0, 0  # LibRaw is asked in `_filled_by_libraw`
    try:
        if kind == "tiff":
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                page = tiff.pages[0]
                return int(page.imagewidth), int(page.imagelength)
        with pillow_open(path, kind) as picture:
            return int(picture.width), int(picture.height)
    except (OSError, ValueError, SyntaxError, IndexError) as error:
        raise InputError(
            f"{path}: damaged {kind.upper()} header ({one_line(error)}); copy it again"
        ) from None


def _tags(file: Any, details: bool) -> dict[str, Any]:
    file.seek(0)
    try:
        return dict(exifread.process_file(file, details=details))
    except Exception:  # exifread raises many kinds on damaged tags; the file may be fine all the same
        return {}


def _tag(tags: dict[str, Any], *names: str) -> Any:
    for name in names:
        for group in ("EXIF", "Image", "MakerNote"):
            tag = tags.get(f"{group} {name}")
            if tag is not None:
                return tag
    return None


def _number(tags: dict[str, Any], *names: str) -> float | None:
    """Return the last positive number of the first tag found (Nikon writes ISO as ``[0, 200]``)."""
    tag = _tag(tags, *names)
    values = getattr(tag, "values", None)
    if not isinstance(values, (list, tuple)):
        values = [values]
    for value in reversed(values):
        try:
            number = float(value)
        except (TypeError, ValueError, ZeroDivisionError):
            continue
        if 0 < number < float("inf"):
            return number
    return None


def _text(tags: dict[str, Any], name: str) -> str:
    tag = _tag(tags, name)
    return "" if tag is None else str(tag).strip("\0 ")


def _exposure_time(tags: dict[str, Any]) -> float | None:
    time = _number(tags, "ExposureTime")
    apex = _signed(tags, "ShutterSpeedValue")
    return time if time is not None or apex is None else 2.0**-apex


def _f_number(tags: dict[str, Any]) -> float | None:
    number = _number(tags, "FNumber")
    apex = _number(tags, "ApertureValue")
    return number if number is not None or apex is None else 2.0 ** (apex / 2)


def _iso(tags: dict[str, Any]) -> float | None:
    names = (
        "ISOSpeedRatings",
        "PhotographicSensitivity",
        "RecommendedExposureIndex",
        "ISOSpeed",
        "ISOSetting",
    )
    for name in names:
        iso = _number(tags, name)
        if iso is not None and iso != 65535:
            return iso
    return None


def _signed(tags: dict[str, Any], name: str) -> float | None:
    tag = _tag(tags, name)
    try:
        return None if tag is None else float(tag.values[0])
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None


def _taken_at(tags: dict[str, Any]) -> datetime | None:
    text = _text(tags, "DateTimeOriginal") or _text(tags, "DateTime")
    fraction = re.sub(r"\D", "", _text(tags, "SubSecTimeOriginal"))[:6]
    try:
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").replace(
            microsecond=int(fraction.ljust(6, "0"))
        )
    except ValueError:
        return None


def _orientation(tags: dict[str, Any]) -> int:
    tag = tags.get("Image Orientation")
    values = getattr(tag, "values", [1])
    return int(values[0]) if values and values[0] in range(1, 9) else 1


def _filled_by_libraw(shot: Shot) -> Shot:
    """Complete a RAW shot with LibRaw's size and with the exposure that exifread did not find."""
    with open_raw(shot.path) as raw:
        other, sizes = raw.other, raw.sizes
        turned = sizes.flip in (5, 6)
        return replace(
            shot,
            width=sizes.iheight if turned else sizes.iwidth,
            height=sizes.iwidth if turned else sizes.iheight,
            exposure_time=shot.exposure_time or other.shutter_speed or None,
            iso=shot.iso or other.iso_speed or None,
            f_number=shot.f_number or other.aperture or None,
            focal_length=shot.focal_length or other.focal_length or None,
            taken_at=shot.taken_at or (other.timestamp if other.timestamp.year > 1970 else None),
        )


def says_adobe_rgb(data: bytes) -> bool:
    """Tell whether a file without a profile says by DCF that it is Adobe RGB (1998)."""
    tags = _tags(io.BytesIO(data), details=False)
    return str(tags.get("Interoperability InteroperabilityIndex", "")).strip("\0 ") == "R03"
