"""Radiance maps and previews to disk: OpenEXR, Radiance .hdr, float TIFF, JPEG, PNG.

The only door to output files. A target is written beside itself under another name and then moved
into place, so that it is whole or absent; a target that exists is kept unless told otherwise.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import OpenEXR
from numpy.typing import NDArray

from . import exif, rgbe
from .bracket import RadianceMap, Shot
from .colour import REC709_CHROMATICITIES, linear_profile, srgb_profile
from .errors import OutputError
from .exposure import Float

RADIANCE_SUFFIXES = (".exr", ".hdr", ".tif", ".tiff")
PREVIEW_SUFFIXES = (".jpg", ".jpeg", ".png")
EXR_COMPRESSIONS = {
    "zip": OpenEXR.ZIP_COMPRESSION,
    "piz": OpenEXR.PIZ_COMPRESSION,
    "dwaa": OpenEXR.DWAA_COMPRESSION,
    "none": OpenEXR.NO_COMPRESSION,
}
COMPRESSIONS = tuple(EXR_COMPRESSIONS)

LARGEST_HALF = 65504.0
LARGEST_FLOAT = float(np.finfo(np.float32).max)
LARGEST_TIFF = 2**32 - 2**20  # [bytes]: offsets in a TIFF have 32 bits
LARGEST_JPEG_SIDE = 65500  # [px]: libjpeg

BAND = 64  # [rows] at a time, and per TIFF strip: enough work for a thread, little memory
JPEG_QUALITY = 92

REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder with -o",
    errno.EACCES: "choose a folder you may write to with -o",
    errno.EPERM: "choose a folder you may write to with -o",
    errno.EROFS: "choose a folder you may write to with -o",
    errno.ENAMETOOLONG: "choose a shorter name with -o",
}

T = TypeVar("T")
_serial = itertools.count()


def write(
    radiance_map: RadianceMap,
    path: Path,
    *,
    compression: str = "zip",
    float32: bool = False,
    force: bool = False,
) -> list[str]:
    """Write a radiance map in the format that the suffix of ``path`` names; return warnings.

    ``compression`` is one of `COMPRESSIONS`; a TIFF knows deflate and "none", .hdr its own run
    lengths. ``float32`` asks for 32 instead of 16 bits a value in EXR. Missing folders are made.
    """
    check_target(path, RADIANCE_SUFFIXES, force=force)
    if compression not in COMPRESSIONS:
        raise OutputError(f"{path}: no compression {compression!r}; choose {_either(COMPRESSIONS)}")
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff") and radiance_map.pixels.nbytes > LARGEST_TIFF:
        raise OutputError(f"{path}: larger than the 4 GiB that a TIFF holds; write .exr")
    with replacing(path) as temporary:
        if suffix == ".exr":
            repairs = _write_exr(radiance_map, temporary, compression, float32)
        elif suffix == ".hdr":
            repairs = _write_hdr(radiance_map, temporary)
        else:
            repairs = _write_tiff(radiance_map, temporary, compression)
    return [f"{path}: {warning}" for warning in repairs.warnings()]


def write_preview(display: NDArray[np.uint8], path: Path, *, shot: Shot, force: bool = False) -> None:
    """Write an sRGB picture (H, W, 3) as JPEG or PNG with profile and EXIF of ``shot``, upright."""
    check_target(path, PREVIEW_SUFFIXES, force=force)
    encode = _png if path.suffix.lower() == ".png" else _jpeg
    if encode is _jpeg and max(display.shape) > LARGEST_JPEG_SIDE:
        raise OutputError(f"{path}: a JPEG holds at most {LARGEST_JPEG_SIDE} pixels a side; write .png")
    with replacing(path) as temporary:
        temporary.write_bytes(encode(display, shot))


def write_text(text: str, path: Path) -> None:
    """Write a report, replacing an older one."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_target(path: Path, suffixes: Sequence[str], *, force: bool = False) -> None:
    """Raise OutputError where ``path`` cannot be a target; worth asking before the work begins."""
    if path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise OutputError(f"{path}: {found} names no format to write; use {_either(suffixes)}")
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists; add --force to replace it")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise OutputError(f"{path}: {folder} is a file, not a folder; choose another target with -o")
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise unwritable(path, error) from error


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a hidden file beside ``path`` to write to, moved onto it at the end, removed on failure."""
    temporary = path.with_name(f".hdrmerge-{os.getpid()}-{next(_serial)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> OutputError:
    """Return the error to raise for a target that the system does not let us write."""
    remedy = REMEDIES.get(error.errno or 0, "choose another target with -o")
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {remedy}")


# ---------------------------------------------------------------------------------------- values


@dataclass
class _Repairs:
    """What had to be changed to fit the format: values beyond its range, values that are no number."""

    limit: float
    clamped: int = 0
    undefined: int = 0

    def warnings(self) -> list[str]:
        found = []
        if self.clamped and self.limit == LARGEST_HALF:
            found.append(
                f"{self.clamped} values above 65504, the largest half, were clamped; --float keeps them"
            )
        elif self.clamped:
            found.append(f"{self.clamped} values beyond {self.limit:.3g} were clamped")
        if self.undefined:
            found.append(f"{self.undefined} values were not a number and became 0")
        return found


def _bounded(rows: Float, limit: float) -> tuple[Float, int, int]:
    """Return rows within +-limit and without NaN, and how many values were clamped and were NaN."""
    if rows.min() >= -limit and rows.max() <= limit:  # both False where there is a NaN
        return rows, 0, 0
    clamped = int(np.count_nonzero(np.abs(rows) > limit))
    undefined = int(np.count_nonzero(np.isnan(rows)))
    bounded = np.clip(np.nan_to_num(rows, nan=0.0, posinf=limit, neginf=-limit), -limit, limit)
    return bounded, clamped, undefined


def _in_bands(pixels: Float, repairs: _Repairs, encode: Callable[[int, Float], T]) -> Iterator[T]:
    """Yield ``encode(top, rows)`` for all bands in order, made in threads, a few ahead of their use."""

    def work(top: int) -> tuple[T, int, int]:
        rows, clamped, undefined = _bounded(pixels[top : top + BAND], repairs.limit)
        return encode(top, rows), clamped, undefined

    tops = range(0, len(pixels), BAND)
    workers = os.cpu_count() or 1
    ahead = 4 * workers
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(tops), ahead):
            for encoded, clamped, undefined in pool.map(work, tops[first : first + ahead]):
                repairs.clamped += clamped
                repairs.undefined += undefined
                yield encoded


def _comments(radiance_map: RadianceMap) -> str:
    """Return one line naming the inputs and the settings, as far as they are known."""
    names = ", ".join(shot.path.name for shot in radiance_map.inputs)
    line = "; ".join(part for part in (f"inputs: {names}" if names else "", radiance_map.settings) if part)
    return "".join(c if c.isprintable() else "?" for c in line)


# --------------------------------------------------------------------------------------- OpenEXR


def _write_exr(radiance_map: RadianceMap, target: Path, compression: str, float32: bool) -> _Repairs:
    repairs = _Repairs(LARGEST_FLOAT if float32 else LARGEST_HALF)
    pixels = radiance_map.pixels
    # Planes, because OpenEXR takes twice as long over interleaved pixels (1.2 s against 0.6 s, 18 MP).
    planes = np.empty((3, *pixels.shape[:2]), dtype=np.float32 if float32 else np.float16)

    def convert(top: int, rows: Float) -> None:
        planes[:, top : top + BAND] = rows.transpose(2, 0, 1)

    for _ in _in_bands(pixels, repairs, convert):
        pass
    if hasattr(OpenEXR, "set_global_thread_count"):  # since 3.5; its default is no thread at all
        OpenEXR.set_global_thread_count(os.cpu_count() or 1)
    header = _exr_header(radiance_map) | {
        "type": OpenEXR.scanlineimage,
        "compression": EXR_COMPRESSIONS[compression],
    }
    try:
        with OpenEXR.File(header, dict(zip("RGB", planes, strict=True))) as file:
            file.write(str(target))
    except RuntimeError as error:  # 'Failed to write ... "NAME". No space left on device.'
        reason = str(error).rpartition('". ')[2].rstrip(".")
        number = next((n for n in REMEDIES if os.strerror(n) == reason), 0)
        raise OSError(number, reason) from error
    return repairs


def _exr_header(radiance_map: RadianceMap) -> dict[str, Any]:
    """Return the standard attributes (openexr.com, "Standard Attributes") that the shot states."""
    shot = radiance_map.reference
    stated = {
        "expTime": shot.exposure_time,  # [s]
        "aperture": shot.f_number,
        "isoSpeed": shot.iso,
        "nominalFocalLength": shot.focal_length,  # [mm]
        "capDate": f"{shot.taken_at:%Y:%m:%d %H:%M:%S}" if shot.taken_at else None,
        "cameraMake": shot.camera_make,
        "cameraModel": shot.camera_model,
        "lensModel": shot.lens,
        "comments": _comments(radiance_map),
    }
    known = {name: value for name, value in stated.items() if value}
    return {"chromaticities": REC709_CHROMATICITIES, "software": exif.SOFTWARE, **known}


# ---------------------------------------------------------------------------------- Radiance .hdr


def _write_hdr(radiance_map: RadianceMap, target: Path) -> _Repairs:
    """Write RGBE, values final: no EXPOSURE line, which most readers ignore."""
    repairs = _Repairs(rgbe.LARGEST)
    pixels, shot = radiance_map.pixels, radiance_map.reference
    lines = ["#?RADIANCE", f"SOFTWARE={exif.SOFTWARE}"]
    lines += [f"# {comments}"] if (comments := _comments(radiance_map)) else []
    lines += [f"CAPDATE={shot.taken_at:%Y:%m:%d %H:%M:%S}"] if shot.taken_at else []
    lines += [f"PRIMARIES={' '.join(f'{value:.4f}' for value in REC709_CHROMATICITIES)}"]
    lines += ["FORMAT=32-bit_rle_rgbe", "", f"-Y {pixels.shape[0]} +X {pixels.shape[1]}", ""]
    with target.open("wb") as file:
        file.write("\n".join(lines).encode())
        for scanlines in _in_bands(pixels, repairs, lambda _, rows: rgbe.encode(rows)):
            file.write(scanlines)
    return repairs


# ------------------------------------------------------------------------------------ float TIFF


def _write_tiff(radiance_map: RadianceMap, target: Path, compression: str) -> _Repairs:
    """Write 32-bit float RGB in strips, with profile and an EXIF directory (TIFF 6.0).

    Deflate without a predictor: what every reader knows, and on merged photographs smaller than
    with the floating-point predictor.
    """
    repairs = _Repairs(LARGEST_FLOAT)
    height, width, _ = radiance_map.pixels.shape
    deflate = compression != "none"

    def encode(_: int, rows: Float) -> bytes:
        strip = rows.astype("<f4").tobytes()
        return zlib.compress(strip, 1) if deflate else strip

    offsets, sizes = [], []
    with target.open("wb") as file:
        file.write(bytes(8))
        for strip in _in_bands(radiance_map.pixels, repairs, encode):
            offsets.append(file.tell())
            sizes.append(file.write(strip))
        file.write(bytes(file.tell() % 2))
        shot, exif_offset = radiance_map.reference, file.tell()
        file.write(
            exif.directory(
                exif.exposure_fields(shot, exif.UNCALIBRATED, _comments(radiance_map)), exif_offset
            )
        )
        layout = {
            256: exif.long(width),
            257: exif.long(height),
            258: exif.short(32, 32, 32),  # bits per sample
            259: exif.short(8 if deflate else 1),  # compression
            262: exif.short(2),  # RGB
            273: exif.long(*offsets),
            277: exif.short(3),  # samples per pixel
            278: exif.long(BAND),  # rows per strip
            279: exif.long(*sizes),
            284: exif.short(1),  # pixels interleaved
            339: exif.short(3, 3, 3),  # floating point
            34675: exif.undefined(linear_profile()),
            exif.EXIF_DIRECTORY: exif.long(exif_offset),
        }
        main_offset = file.tell()
        file.write(exif.directory(layout | exif.camera_fields(shot), main_offset))
        file.seek(0)
        file.write(struct.pack("<2sHI", b"II", 42, main_offset))
    return repairs


# -------------------------------------------------------------------------------------- previews


def _jpeg(display: NDArray[np.uint8], shot: Shot) -> bytes:
    """Encode a JPEG without chroma subsampling; EXIF and profile follow the JFIF header."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(display, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    start = 4 + int.from_bytes(jpeg[4:6], "big")  # behind SOI and APP0
    segments = b""
    for marker, data in (
        (0xE1, b"Exif\0\0" + exif.exif_block(shot)),
        (0xE2, b"ICC_PROFILE\0\1\1" + srgb_profile()),
    ):
        segments += struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
    return jpeg[:start] + segments + jpeg[start:]


def _png(display: NDArray[np.uint8], shot: Shot) -> bytes:
    """Encode a PNG; profile and EXIF follow the header chunk (PNG, third edition, iCCP and eXIf)."""
    png = cv2.imencode(".png", cv2.cvtColor(display, cv2.COLOR_RGB2BGR))[1].tobytes()
    start = 8 + 25  # behind the signature and IHDR
    chunks = b""
    for name, data in (
        (b"iCCP", b"sRGB\0\0" + zlib.compress(srgb_profile())),
        (b"eXIf", exif.exif_block(shot)),
    ):
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return png[:start] + chunks + png[start:]
