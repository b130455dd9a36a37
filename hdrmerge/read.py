"""Shots -> frames: pixels decoded without surprises.

Whatever the format, a frame comes out alike: RGB, upright, codes with the response curve that
turns them into linear light, and the matrix that takes that light to Rec. 709. A file that is
damaged or ends early is an error, never a picture with a grey tail.
"""

from __future__ import annotations

import io
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from .bracket import Frame, Shot
from .colour import ADOBE_RGB, SRGB, Profile, read_profile
from .errors import InputError
from .exposure import Array, NoiseModel, Response
from .fileformat import Kind, check_complete, kind_of, one_line, pillow_open
from .metadata import says_adobe_rgb
from .raw import HOT_PIXELS_FROM, read_raw

LINEAR = Response.named("linear")


def read_frame(
    shot: Shot, response: Response | None = None, reference: Shot | None = None, spool: bool = False
) -> Frame:
    """Decode the pixels of a shot into a `Frame`, upright, RGB.

    ``response`` overrides the curve of the file's colour profile (sRGB where it has none); RAW and
    float files are linear whatever it says. A RAW frame takes the white balance of ``reference``.
    ``spool`` keeps the codes in a temporary file instead of in memory.
    """
    kind = kind_of(shot.path)
    data = shot.path.read_bytes()
    check_complete(shot.path, kind, data)
    frame = (
        read_raw(shot, reference or shot) if kind == "raw" else _read_developed(shot, kind, data, response)
    )
    codes = _without_hot_pixels(frame) if (shot.exposure_time or 0.0) >= HOT_PIXELS_FROM else frame.codes
    return replace(frame, codes=SpooledCodes(codes[:]) if spool else codes)


BAND = 256  # rows at a time: they stay in the cache


class SpooledCodes:
    """Codes in an unnamed temporary file, read back by rows (in the folder that TMPDIR names)."""

    def __init__(self, codes: Array) -> None:
        self.shape = codes.shape
        self.dtype = codes.dtype
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the object
        self._file.write(np.ascontiguousarray(codes).data.cast("B"))

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        band = np.empty((max(bottom - top, 0), *self.shape[1:]), self.dtype)
        target = band.data.cast("B")
        with self._lock:
            self._file.seek(top * band[:1].nbytes)
            filled = 0
            while filled < len(target):
                filled += self._file.readinto(target[filled:])
        return band


def _read_developed(shot: Shot, kind: Kind, data: bytes, response: Response | None) -> Frame:
    """Decode JPEG, PNG, TIFF or HEIC."""
    path = shot.path
    profile = _profile(path, kind, data)
    if profile is None:
        codes, profile = _converted_to_srgb(path, kind), SRGB
    else:
        codes = _decode(path, kind, data)
    codes = _upright(codes, shot.orientation)
    noise = NoiseModel.from_iso(shot.iso or 100.0)
    if codes.dtype == np.float32:
        return Frame(
            shot, np.nan_to_num(codes, nan=0.0, posinf=1.0, neginf=0.0), LINEAR, noise, profile.to_rec709
        )
    curve = response or profile.response
    noise = noise.with_quantisation(curve, int(np.iinfo(codes.dtype).max) + 1)
    return Frame(shot, codes, curve, noise, profile.to_rec709)


def _decode(path: Path, kind: Kind, data: bytes) -> Array:
    """Return codes (H, W, 3), RGB, of dtype uint8, uint16 or float32."""
    codes: Array | None
    if kind == "heic":
        codes = _pillow_rgb(path, kind)
    else:
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            codes = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            codes = None
    if codes is not None and codes.dtype == np.float64:
        codes = codes.astype(np.float32)
    if codes is None or codes.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(
            f"{path}: damaged or unusual {kind.upper()} data that cannot be decoded; save it again as TIFF"
        )
    return codes


def _pillow_rgb(path: Path, kind: Kind) -> Array:
    try:
        with pillow_open(path, kind) as picture:
            return np.array(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(
            f"{path}: the file ends early or is damaged ({one_line(error)}); copy it again"
        ) from None


def _profile(path: Path, kind: Kind, data: bytes) -> Profile | None:
    """Return the file's colour profile (sRGB where it names none), None if it is no matrix profile."""
    icc, mode = _icc(path, kind)
    if mode in ("CMYK", "LAB", "YCCK"):
        return None
    if icc:
        try:
            return read_profile(icc)
        except ValueError:
            return SRGB  # a damaged profile says nothing
    return ADOBE_RGB if says_adobe_rgb(data) else SRGB


def _icc(path: Path, kind: Kind) -> tuple[bytes | None, str]:
    """Return the embedded ICC profile and Pillow's name of the colour mode."""
    if kind == "tiff":
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            mode = "CMYK" if page.photometric == tifffile.PHOTOMETRIC.SEPARATED else "RGB"
            return (bytes(page.iccprofile) if page.iccprofile else None), mode
    with pillow_open(path, kind) as picture:
        return picture.info.get("icc_profile"), picture.mode


def _converted_to_srgb(path: Path, kind: Kind) -> Array:
    """Apply a profile that is no matrix (CMYK, scanners) through a colour management system."""
    from PIL import ImageCms

    icc, _ = _icc(path, kind)
    if not icc:
        return _pillow_rgb(path, kind)
    srgb = ImageCms.createProfile("sRGB")
    try:
        with pillow_open(path, kind) as picture:
            return np.array(ImageCms.profileToProfile(picture, io.BytesIO(icc), srgb, outputMode="RGB"))
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: its colour profile cannot be applied ({one_line(error)}); save it as sRGB"
        ) from None


def _upright(codes: Array, orientation: int) -> Array:
    """Turn and mirror codes as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        codes = cv2.transpose(codes)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return codes if flip is None else cv2.flip(codes, flip)


def _without_hot_pixels(frame: Frame) -> Array:
    """Return the codes of a long exposure with single glowing pixels lowered to their neighbours.

    A lens spreads every star over several pixels; what stands out from all eight neighbours by this
    much is the sensor's own. RAW files lose theirs before demosaicing, in `raw`.
    """
    codes = frame.codes[:]
    if codes.dtype != np.uint8:
        return codes
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    for top in range(0, len(codes), BAND):
        band = codes[max(top - 1, 0) : top + BAND + 1]
        around = cv2.dilate(band, ring)
        # Saturating arithmetic on codes: 1.5 times and 24 more is about 2.5 times the light.
        excess = cv2.subtract(band, cv2.addWeighted(around, 1.5, around, 0.0, 24.0))
        hot = np.flatnonzero(excess)
        band.reshape(-1)[hot] = around.reshape(-1)[hot]
    return codes
