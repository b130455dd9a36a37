"""Shots -> frames: pixels decoded without surprises.

Whatever the format, a frame comes out alike: RGB, upright, codes with the response curve that
turns them into linear light, and the matrix that takes that light to Rec. 709. A file that is
damaged or ends early is an error, never a picture with a grey tail.
"""

from __future__ import annotations

import io
import math
import tempfile
import threading
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .bracket import Frame, Shot
from .colour import ADOBE_RGB, SRGB, Profile, primaries_to_rec709, read_profile
from .complaints import heard
from .errors import BracketError, InputError, OutputError
from .exposure import Array, NoiseModel, Response
from .fileformat import (
    Kind,
    damaged,
    kind_of,
    one_line,
    open_heic,
    open_pillow,
    opened,
)
from .intact import check_complaints, check_complete
from .metadata import says_adobe_rgb
from .raw import HOT_PIXELS_FROM, read_raw

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it cannot decode is raised below

LINEAR = Response.named("linear")

BAND = 64  # [rows] searched for hot pixels at a time: they stay in the cache

DARKEST, BRIGHTEST = -1.0, 65504.0  # [linear] float files are kept within
MAX_MISSING = 0.05  # share of a float file that may be no numbers

_PRIMARIES = ("red_x", "red_y", "green_x", "green_y", "blue_x", "blue_y", "white_x", "white_y")


def read_frame(
    shot: Shot,
    response: Response | None = None,
    reference: Shot | None = None,
    spool_beyond: float = math.inf,
) -> Frame:
    """Decode the pixels of a shot into a `Frame`, upright, RGB.

    ``response`` overrides the curve of the file's colour profile (sRGB where it has none); RAW and
    float files are linear whatever it says. A RAW frame takes the white balance of ``reference``.
    Codes of more than ``spool_beyond`` bytes wait in a temporary file instead of in memory.
    """
    kind = kind_of(shot.path)
    if reference and (kind == "raw") != (kind_of(reference.path) == "raw"):
        kinds = ("a RAW file", "is none") if kind == "raw" else ("no RAW file", "is one")
        raise BracketError(
            f"{shot.path}: {kinds[0]}, but {reference.path} {kinds[1]}, and the two do not mix; "
            "give frames of one kind"
        )
    if kind == "raw":
        with opened(shot.path) as file:
            check_complete(shot.path, kind, file)
        frame = read_raw(shot, reference or shot)
    else:
        frame = _read_developed(shot, kind, response)
    codes = frame.codes[:]
    return replace(frame, codes=SpooledCodes(codes)) if codes.nbytes > spool_beyond else frame


class SpooledCodes:
    """Codes in an unnamed temporary file, read back by rows (in the folder that TMPDIR names)."""

    def __init__(self, codes: Array) -> None:
        self.shape = codes.shape
        self.dtype = codes.dtype
        self._row_bytes = codes[0].nbytes
        self._lock = threading.Lock()
        try:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the object
            weakref.finalize(self, self._file.close)
            self._file.write(np.ascontiguousarray(codes).data)
            self._file.flush()
        except OSError as error:
            raise OutputError(
                f"{tempfile.tempdir or 'TMPDIR'}: no room for {codes.nbytes / 1e6:.0f} MB of pixels "
                f"({error.strerror}); name a larger folder in the environment variable TMPDIR"
            ) from None

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        band = np.empty((max(bottom - top, 0), *self.shape[1:]), self.dtype)
        with self._lock:
            self._file.seek(top * self._row_bytes)
            self._file.readinto(band.data)
        return band


# --- developed files: JPEG, PNG, TIFF, HEIC -------------------------------------------------------


def _read_developed(shot: Shot, kind: Kind, response: Response | None) -> Frame:
    with opened(shot.path) as file:
        source = io.BytesIO(file.read())
    notes = check_complete(shot.path, kind, source)
    decode = {"tiff": _decode_tiff, "heic": _decode_heic}.get(kind, _decode_jpeg_or_png)
    if decode is _decode_jpeg_or_png:
        (codes, profile), printed = heard(lambda: decode(shot.path, source), lambda: _glance(source))
        notes += check_complaints(shot.path, printed, source)
    else:
        codes, profile = decode(shot.path, source)
    codes = _upright(codes, shot.orientation)
    noise = NoiseModel.from_iso(shot.iso or 100.0)
    if codes.dtype == np.float32:
        linear, changes = _limited(shot.path, codes)
        return Frame(shot, linear, LINEAR, noise, profile.to_rec709, notes=notes + changes)
    if (shot.exposure_time or 0.0) >= HOT_PIXELS_FROM:
        _remove_hot_pixels(codes)
    curve = response or profile.response
    noise = noise.with_quantisation(curve, int(np.iinfo(codes.dtype).max) + 1)
    return Frame(shot, codes, curve, noise, profile.to_rec709, notes=notes)


def _decode_jpeg_or_png(path: Path, source: io.BytesIO) -> tuple[Array, Profile]:
    """Return codes (H, W, 3), uint8 or uint16, as stored, and their colour space."""
    with open_pillow(path, source) as picture:
        icc = picture.info.get("icc_profile")
        profile = None if picture.mode == "CMYK" else _profile(icc, source)
        if profile is None:
            _glance(source)  # Pillow keeps to itself what libjpeg has to say
            return _converted_to_srgb(path, picture, icc), SRGB
    # Faster than Pillow, and 16 bits stay 16 bits.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    return _opencv(path, source, flags), profile


def _decode_tiff(path: Path, source: io.BytesIO) -> tuple[Array, Profile]:
    """Return codes (H, W, 3), uint8, uint16 or float32, as stored, and their colour space.

    Three libraries share the work. tifffile reads pixels in every layout and checks their checksums,
    but no LZW; OpenCV knows LZW, but mixes up separate planes, and 16-bit RGB unless asked for the
    file's own channels; Pillow knows LZW, palettes, CMYK and Lab, and 8 bits alone.
    """
    import tifffile
    from tifffile import PHOTOMETRIC

    source.seek(0)
    with tifffile.TiffFile(source) as tiff:
        page = tiff.pages[0]
        space = page.photometric
        if space in (PHOTOMETRIC.CFA, PHOTOMETRIC.LINEAR_RAW):
            raise InputError(f"{path}: RAW data under the name of a TIFF; rename it to .dng")
        _hide_orientation(page, source)
        icc = bytes(page.iccprofile) if page.iccprofile else None
        profile = None if space in (PHOTOMETRIC.SEPARATED, PHOTOMETRIC.CIELAB) else _profile(icc, source)
        if profile is None:
            with open_pillow(path, source) as picture:
                return _converted_to_srgb(path, picture, icc), SRGB
        plain = space in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
        codes = _by_tifffile(path, page) if plain and page.bitspersample >= 8 else None
        if codes is None and page.bitspersample <= 8:
            with open_pillow(path, source) as picture:
                return np.array(picture.convert("RGB")), profile
        if codes is None and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
            raise InputError(f"{path}: compressed colour planes; save it without compression")
    if codes is None:
        return _as_rgb(path, _opencv(path, source, cv2.IMREAD_UNCHANGED), "BGR"), profile
    if page.axes == "SYX":
        codes = np.moveaxis(codes, 0, 2)
    if space == PHOTOMETRIC.MINISWHITE:
        codes = np.iinfo(codes.dtype).max - codes
    return _as_rgb(path, codes), profile


def _by_tifffile(path: Path, page: Any) -> Array | None:
    """Return a page's pixels; None for LZW and all else that tifffile leaves to another package."""
    try:
        return np.asarray(page.asarray())
    except ValueError:
        return None
    except Exception as error:  # damaged pixels make it raise many kinds
        raise damaged(path, error) from None


def _hide_orientation(page: Any, source: io.BytesIO) -> None:
    """Overwrite the orientation in a TIFF: OpenCV and Pillow turn such pictures whether asked or not."""
    tag = page.tags.get("Orientation")
    if tag and 0 < tag.valuebytecount <= 8:
        upright = (1).to_bytes(tag.valuebytecount, "little" if page.parent.byteorder == "<" else "big")
        source.getbuffer()[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = upright


def _decode_heic(path: Path, source: io.BytesIO) -> tuple[Array, Profile]:
    """Return codes (H, W, 3), uint8 or uint16, upright, and their colour space."""
    heif = open_heic(path, source)
    nclx = heif.info.get("nclx_profile") or {}
    if nclx.get("transfer_characteristics") in (16, 18):  # ITU-T H.273: PQ and HLG
        raise InputError(f"{path}: HDR for displays (PQ or HLG), no photograph; export it as JPEG or TIFF")
    profile = _profile(heif.info.get("icc_profile"), source)
    if profile is None:
        raise InputError(f"{path}: a colour profile made of tables; export it as JPEG or TIFF")
    if profile is SRGB and nclx.get("color_primaries", 1) not in (1, 2):  # 1: Rec. 709, 2: not stated
        primaries = [nclx[f"color_primary_{name}"] for name in _PRIMARIES]
        profile = replace(SRGB, name="nclx", to_rec709=primaries_to_rec709(primaries))
    try:
        codes = np.array(heif)
    except (OSError, ValueError, SyntaxError, EOFError, RuntimeError) as error:
        raise damaged(path, error) from None
    if codes.dtype == np.uint16:  # 10 or 12 bits, moved up: fill the bits below, so that white is 65535
        codes |= codes >> heif.info["bit_depth"]
    return _as_rgb(path, codes), profile


def _glance(source: io.BytesIO) -> None:
    """Decode a JPEG or PNG to an eighth, as fast as may be, to have said what is wrong with it."""
    with suppress(cv2.error):
        cv2.imdecode(np.frombuffer(source.getbuffer(), np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)


def _opencv(path: Path, source: io.BytesIO, flags: int) -> Array:
    try:
        codes = cv2.imdecode(np.frombuffer(source.getbuffer(), np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise damaged(path, error.err) from None
    if codes is None:
        raise damaged(path, "its pixels cannot be decoded")
    return np.asarray(codes)


def _as_rgb(path: Path, codes: Array, order: str = "RGB") -> Array:
    """Return codes (H, W, 3) of a supported type: grey tripled, alpha dropped, float as float32."""
    if codes.ndim not in (2, 3) or codes.size == 0:
        raise damaged(path, f"pixels in an array of {codes.shape}")
    if codes.dtype.kind == "f":
        codes = codes.astype(np.float32, copy=False)
    elif codes.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels of type {codes.dtype}; save them as 16-bit or float")
    if codes.ndim == 2 or codes.shape[2] < 3:
        return np.repeat(codes.reshape(*codes.shape[:2], -1)[..., :1], 3, axis=2)
    return np.ascontiguousarray(codes[..., 2::-1] if order == "BGR" else codes[..., :3])


def _profile(icc: bytes | None, source: io.BytesIO) -> Profile | None:
    """Return the colour space of a file (sRGB where it names none), None for a profile of tables."""
    if icc:
        try:
            return read_profile(icc)
        except ValueError:
            pass  # a damaged profile says nothing
    return ADOBE_RGB if says_adobe_rgb(source) else SRGB


def _converted_to_srgb(path: Path, picture: Any, icc: bytes | None) -> Array:
    """Take a picture that no curves and matrix describe (CMYK, Lab, scanners' tables) to 8-bit sRGB."""
    from PIL import ImageCms

    if not icc:
        return np.array(picture.convert("RGB"))
    srgb = ImageCms.createProfile("sRGB")
    try:
        return np.array(ImageCms.profileToProfile(picture, io.BytesIO(icc), srgb, outputMode="RGB"))
    except ImageCms.PyCMSError as error:
        raise InputError(
            f"{path}: its colour profile cannot be applied ({one_line(error)}); save it as sRGB"
        ) from None


def _limited(path: Path, codes: Array) -> tuple[Array, tuple[str, ...]]:
    """Return float pixels that can be reckoned with, and what had to be changed for it.

    What is no number, or minus infinity, takes the value of the nearest pixel. Infinite is saturated.
    Light far below zero is none, and so much of it that squares overflow is as good as `BRIGHTEST`.
    """
    if codes.min() >= DARKEST and codes.max() <= BRIGHTEST:  # both False where there is a NaN
        return codes, ()
    missing = (np.isnan(codes) | np.isneginf(codes)).any(axis=2)
    share = float(missing.mean())
    if share > MAX_MISSING:
        raise InputError(
            f"{path}: {share:.0%} of its pixels are no numbers (NaN); export it again, or crop it"
        )
    notes = []
    if share:
        _, nearest = cv2.distanceTransformWithLabels(
            missing.view(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
        )
        sources = np.zeros(int(nearest.max()) + 1, np.intp)
        sources[nearest[~missing]] = np.flatnonzero(~missing)
        codes = codes.copy()
        codes[missing] = codes.reshape(-1, 3)[sources[nearest[missing]]]
        notes.append(f"{np.count_nonzero(missing)} pixels hold no number (NaN) and repeat their neighbours")
    below = np.count_nonzero(codes < DARKEST)
    if below:
        notes.append(f"{below} values far below zero, which no light is, were raised to {DARKEST:g}")
    codes = np.where(np.isposinf(codes), np.float32(1.0), codes)
    return np.clip(codes, DARKEST, BRIGHTEST), tuple(notes)


def _upright(codes: Array, orientation: int) -> Array:
    """Turn and mirror codes as EXIF orientation 1..8 asks."""
    if orientation >= 5:
        codes = cv2.transpose(codes)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return codes if flip is None else np.asarray(cv2.flip(codes, flip))


def _remove_hot_pixels(codes: Array) -> None:
    """Lower single glowing pixels of a long exposure to the brightest of their neighbours, in place.

    A lens spreads every star over several pixels; what stands out from all eight neighbours by this
    much is the sensor's own. RAW files lose theirs before demosaicing, in `raw`.
    """
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    floor = 24.0 / 255 * np.iinfo(codes.dtype).max
    for top in range(0, len(codes), BAND):
        first, band = max(top - 1, 0), codes[top : top + BAND]
        around = cv2.dilate(codes[first : top + BAND + 1], ring)[top - first :][: len(band)]
        limit = cv2.addWeighted(around, 1.5, around, 0.0, floor)  # about 2.5 times the light
        hot = band > limit
        if hot.any():
            np.copyto(band, around, where=hot)
