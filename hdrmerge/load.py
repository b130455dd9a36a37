"""Radiance files back into radiance maps: OpenEXR, Radiance .hdr, float TIFF.

The counterpart of `write`, for the commands that start from a merged file. Files of other programs
are read as far as they hold linear RGB; their primaries are taken to Rec. 709.
"""

from __future__ import annotations

import io
import logging
import math
import re
import threading
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from . import rgbe
from .bracket import RadianceMap, Shot
from .colour import primaries_to_rec709, read_profile
from .errors import InputError
from .exposure import Array, Float, Mask

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds wrong is raised below

_QUIET = threading.Lock()
"""OpenEXR prints what it finds wrong; two threads that redirect stdout at once would lose it for good."""

_RESOLUTION = re.compile(rb"([-+])Y (\d+) ([-+])X (\d+)")


def load(path: Path) -> RadianceMap:
    """Read a radiance file; the format is told by its first bytes, not by its suffix.

    ``pixels`` is linear Rec. 709, ``reference`` what the file says about exposure and camera.
    Values that are no finite number become 0 and invalid. Raises InputError.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a radiance file in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the name") from None
    if head == b"\x76\x2f\x31\x01":
        return _load_exr(path)
    if head[:2] == b"#?":
        return _load_hdr(path)
    if head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _load_tiff(path)
    found = "no radiance file" if head else "empty"
    raise InputError(f"{path}: is {found}; give an OpenEXR, Radiance .hdr or float TIFF file")


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(
        f"{path}: ends early or is damaged ({str(reason) or 'no reason given'}); write it again"
    )


def _radiance_map(pixels: Float, shot: Shot, to_rec709: Float | None) -> RadianceMap:
    valid: Mask = np.asarray(np.isfinite(pixels).all(axis=2))
    if not valid.all():
        pixels = np.where(valid[..., None], pixels, np.float32(0.0))
    if to_rec709 is not None and not np.allclose(to_rec709, np.eye(3), atol=1e-3):
        pixels = pixels @ to_rec709.T
    return RadianceMap(np.ascontiguousarray(pixels, dtype=np.float32), valid, shot)


def _shot(path: Path, pixels: Float, stated: Mapping[str, Any]) -> Shot:
    """Return a shot from EXR attribute names; values of an unexpected type are passed over."""

    def number(name: str) -> float | None:
        value = stated.get(name)
        usable = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        return float(value) if usable and value is not None else None

    def text(name: str) -> str:
        value = stated.get(name)
        return value.strip() if isinstance(value, str) else ""

    try:
        taken_at = datetime.strptime(text("capDate"), "%Y:%m:%d %H:%M:%S")
    except ValueError:
        taken_at = None
    return Shot(
        path=path,
        width=pixels.shape[1],
        height=pixels.shape[0],
        exposure_time=number("expTime"),
        iso=number("isoSpeed"),
        f_number=number("aperture"),
        taken_at=taken_at,
        camera_make=text("cameraMake"),
        camera_model=text("cameraModel"),
        lens=text("lensModel"),
        focal_length=number("nominalFocalLength"),
        source="exif" if number("expTime") else "none",
    )


def _load_exr(path: Path) -> RadianceMap:
    """Read channels R, G, B of the first part or layer that has them, else luminance Y."""
    try:
        with _QUIET, redirect_stdout(io.StringIO()), OpenEXR.File(str(path), separate_channels=True) as file:
            header = dict(file.header())  # a copy: closing empties it
            planes = _rgb_planes({name: channel.pixels for name, channel in file.channels().items()})
        chromaticities = header.get("chromaticities")
        to_rec709 = primaries_to_rec709(chromaticities) if chromaticities else None
    except (RuntimeError, ValueError) as error:
        raise _damaged(path, error) from None
    if planes is None or any(plane.dtype.kind != "f" or plane.shape != planes[0].shape for plane in planes):
        raise InputError(f"{path}: has no float channels R, G, B of one size; export it as plain RGB")
    pixels = np.stack(planes, axis=2).astype(np.float32, copy=False)
    return _radiance_map(pixels, _shot(path, pixels, header), to_rec709)


def _rgb_planes(channels: Mapping[str, Array]) -> list[Array] | None:
    """Return R, G, B of the layer with the shortest name; grey as three; None without either."""
    for name in sorted(channels, key=len):
        layer, dot, colour = name.rpartition(".")
        names = [f"{layer}{dot}{c}" for c in "RGB"]
        if colour == "R" and all(n in channels for n in names):
            return [channels[n] for n in names]
    return [channels["Y"]] * 3 if "Y" in channels and "RY" not in channels else None


def _load_hdr(path: Path) -> RadianceMap:
    """Read RGBE, divided by the product of the EXPOSURE lines (Radiance reference, "picture")."""
    data = path.read_bytes()
    head, _, body = data.partition(b"\n\n")
    resolution, _, code = body.partition(b"\n")
    axes = _RESOLUTION.fullmatch(resolution.strip())
    variables = re.findall(r"^([A-Z]+)=[ \t]*(.*?)\s*$", head.decode("utf-8", "replace"), re.MULTILINE)
    stated = dict(variables)
    if axes is None or stated.get("FORMAT", "32-bit_rle_rgbe") != "32-bit_rle_rgbe":
        raise InputError(f"{path}: is no upright RGBE picture or ends early; convert it to OpenEXR")
    try:
        pixels = rgbe.decode(code, int(axes[2]), int(axes[4]))
        exposure = math.prod(float(value) for name, value in variables if name == "EXPOSURE")
        if not 0.0 < exposure < math.inf:
            raise ValueError(f"EXPOSURE={exposure}")
        primaries = [float(value) for value in stated.get("PRIMARIES", "").split()]
        to_rec709 = primaries_to_rec709(primaries) if primaries else None
    except ValueError as error:
        raise _damaged(path, error) from None
    if axes[1] == b"+":  # rows from the bottom
        pixels = pixels[::-1]
    if axes[3] == b"-":  # columns from the right
        pixels = pixels[:, ::-1]
    shot = _shot(path, pixels, {"capDate": stated.get("CAPDATE")})
    return _radiance_map(pixels / np.float32(exposure), shot, to_rec709)


def _load_tiff(path: Path) -> RadianceMap:
    """Read a float RGB TIFF; its curve is taken as linear, as all programs write float TIFF."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            interleaved = page.axes == "YXS" and page.dtype is not None and page.dtype.kind == "f"
            pixels = page.asarray() if interleaved else None
            tags = {tag.name: tag.value for tag in page.tags}
    except Exception as error:  # tifffile raises a dozen kinds, zlib.error among them
        raise _damaged(path, error) from None
    if pixels is None or pixels.shape[2] < 3:
        raise InputError(f"{path}: is no float RGB TIFF; give the merged file, not a photograph")
    stated = tags | dict(tags.get("ExifTag") or {})
    renamed = {
        "expTime": _ratio(stated.get("ExposureTime")),
        "aperture": _ratio(stated.get("FNumber")),
        "isoSpeed": stated.get("ISOSpeedRatings"),
        "nominalFocalLength": _ratio(stated.get("FocalLength")),
        "capDate": stated.get("DateTimeOriginal"),
        "cameraMake": stated.get("Make"),
        "cameraModel": stated.get("Model"),
        "lensModel": stated.get("LensModel"),
    }
    try:
        profile = read_profile(tags["InterColorProfile"]) if "InterColorProfile" in tags else None
    except ValueError as error:
        raise InputError(f"{path}: {error}; save it without a profile") from None
    to_rec709 = None if profile is None else profile.to_rec709
    pixels = pixels[..., :3].astype(np.float32, copy=False)
    return _radiance_map(pixels, _shot(path, pixels, renamed), to_rec709)


def _ratio(value: object) -> float | None:
    """Return the number that a TIFF rational (numerator, denominator) stands for."""
    if isinstance(value, tuple) and len(value) == 2 and value[1]:
        return float(value[0] / value[1])
    return None
