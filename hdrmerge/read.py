"""Files -> shots and frames: metadata without decoding, pixels without surprises.

Whatever the format, a frame comes out alike: RGB, upright, codes with the response curve that
turns them into linear light, and the matrix that takes that light to Rec. 709. A file that is
damaged or ends early is an error, never a picture with a grey tail.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import threading
import zlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import cv2
import exifread
import numpy as np

from .bracket import Codes, Frame, Shot
from .colour import ADOBE_RGB, Profile, camera_to_rec709, read_profile
from .errors import InputError
from .exposure import Array, Float, NoiseModel, Response

logging.getLogger("exifread").setLevel(logging.CRITICAL)

Kind = Literal["jpeg", "png", "tiff", "heic", "raw"]

RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf .pef "
    ".ptx .qtk .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f".split()
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif"}
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ENDS_EARLY = "the file ends early ({what}); copy it again from the card"


def read_shot(path: str | os.PathLike[str]) -> Shot:
    """Read what the metadata of a photograph says; no pixel is decoded.

    Raises `InputError` for anything that is not a readable photograph.
    """
    path = Path(path)
    kind = _kind(path)
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


def read_frame(
    shot: Shot, response: Response | None = None, reference: Shot | None = None, spool: bool = False
) -> Frame:
    """Decode the pixels of a shot into a `Frame`, upright, RGB.

    ``response`` overrides the curve of the file's colour profile (sRGB where it has none); RAW and
    float files are linear whatever it says. A RAW frame takes the white balance of ``reference``.
    ``spool`` keeps the codes in a temporary file instead of in memory.
    """
    kind = _kind(shot.path)
    frame = _read_raw(shot, reference or shot) if kind == "raw" else _read_developed(shot, kind, response)
    if spool and isinstance(frame.codes, np.ndarray):
        return Frame(frame.shot, SpooledCodes(frame.codes), frame.response, frame.noise, frame.to_rec709, frame.clip)
    return frame


class SpooledCodes:
    """Codes in an unnamed temporary file, read back by rows (in the folder that TMPDIR names)."""

    def __init__(self, codes: Array) -> None:
        self.shape = codes.shape
        self.dtype = codes.dtype
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the object
        self._file.write(memoryview(np.ascontiguousarray(codes)).cast("B"))

    def __getitem__(self, rows: slice) -> Array:
        top, bottom, _ = rows.indices(self.shape[0])
        band = np.empty((max(bottom - top, 0), *self.shape[1:]), self.dtype)
        target = memoryview(band).cast("B")
        with self._lock:
            self._file.seek(top * band[:1].nbytes)
            filled = 0
            while filled < len(target):
                filled += self._file.readinto(target[filled:])
        return band


# --- what kind of file ----------------------------------------------------------------------------


def _kind(path: Path) -> Kind:
    """Tell the format by the first bytes; the suffix only tells RAW from TIFF."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the name") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name the photographs in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None
    if not head:
        raise InputError(f"{path}: the file is empty; copy it again from the card")
    suffix = path.suffix.lower()
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heic"
    if head.startswith(_TIFF_MAGIC) and suffix not in RAW_SUFFIXES:
        return "tiff"
    if suffix in RAW_SUFFIXES:
        return "raw"
    raise InputError(f"{path}: not a photograph (it begins with {head[:8]!r}); give JPEG, PNG, TIFF, HEIC or RAW")


def _size(path: Path, kind: Kind) -> tuple[int, int]:
    """Return width and height [px] as the file's header states them, before rotation."""
    if kind == "raw":
        return 0, 0  # LibRaw is asked in `_filled_by_libraw`
    try:
        with _pillow_open(path, kind) as picture:
            return int(picture.width), int(picture.height)
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: damaged {kind.upper()} header ({_one_line(error)}); copy it again") from None


def _pillow_open(path: Path, kind: Kind) -> Any:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # panoramas are large; a lying header fails when it is decoded
    if kind == "heic":
        try:
            import pillow_heif
        except ModuleNotFoundError:
            raise InputError(f"{path}: HEIC needs an extra package; run pip install 'hdrmerge[heic]'") from None
        pillow_heif.register_heif_opener()
    return Image.open(path)


# --- metadata -------------------------------------------------------------------------------------


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
    names = ("ISOSpeedRatings", "PhotographicSensitivity", "RecommendedExposureIndex", "ISOSpeed", "ISOSetting")
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
        return datetime.strptime(text[:19], "%Y:%m:%d %H:%M:%S").replace(microsecond=int(fraction.ljust(6, "0")))
    except ValueError:
        return None


def _orientation(tags: dict[str, Any]) -> int:
    tag = tags.get("Image Orientation")
    values = getattr(tag, "values", [1])
    return int(values[0]) if values and values[0] in range(1, 9) else 1


def _filled_by_libraw(shot: Shot) -> Shot:
    """Complete a RAW shot with LibRaw's size and with the exposure that exifread did not find."""
    from dataclasses import replace

    with _open_raw(shot.path) as raw:
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


# --- JPEG, PNG, TIFF, HEIC ------------------------------------------------------------------------


def _read_developed(shot: Shot, kind: Kind, response: Response | None) -> Frame:
    path = shot.path
    data = path.read_bytes()
    early = _ends_early(path, kind, data)
    if early:
        raise InputError(f"{path}: {_ENDS_EARLY.format(what=early)}")
    profile, codes = _profile(path, kind), None
    if profile is None:  # a profile that only a colour management system can apply
        codes = _converted_to_srgb(path, kind)
        profile = Profile("sRGB", Response.named("srgb"), np.eye(3, dtype=np.float32))
    elif kind == "heic":
        with _pillow_open(path, kind) as picture:
            codes = np.array(picture.convert("RGB"))
    else:
        codes = _decode(data)
    if codes is None:
        raise InputError(f"{path}: damaged {kind.upper()} data that cannot be decoded; copy it again from the card")
    codes = _upright(codes, shot.orientation)
    if codes.dtype.kind == "f":
        curve, levels = Response.named("linear"), 0
        codes = np.nan_to_num(codes.astype(np.float32, copy=False), nan=0.0, posinf=1.0, neginf=0.0)
    else:
        curve, levels = response or profile.response, int(np.iinfo(codes.dtype).max) + 1
    noise = NoiseModel.from_iso(shot.iso or 100.0)
    if levels:
        noise = noise.with_quantisation(curve, levels)
    return Frame(shot, codes, curve, noise, profile.to_rec709)


def _decode(data: bytes) -> Array | None:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        codes = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if codes is not None and codes.dtype == np.float64:
        codes = codes.astype(np.float32)
    known = codes is not None and codes.dtype in (np.uint8, np.uint16, np.float32)
    return codes if known else None


def _profile(path: Path, kind: Kind) -> Profile | None:
    """Return the file's colour profile (sRGB where it names none), None if it is no matrix profile."""
    with _pillow_open(path, kind) as picture:
        icc, mode = picture.info.get("icc_profile"), picture.mode
    srgb = Profile("sRGB", Response.named("srgb"), np.eye(3, dtype=np.float32))
    if mode in ("CMYK", "LAB", "YCCK"):
        return None
    if icc:
        try:
            return read_profile(icc)
        except ValueError:
            return srgb  # a damaged profile says nothing
    with path.open("rb") as file:
        tags = _tags(file, details=False)
    return ADOBE_RGB if _text(tags, "InteroperabilityIndex") == "R03" or _says_adobe(tags) else srgb


def _says_adobe(tags: dict[str, Any]) -> bool:
    return str(tags.get("Interoperability InteroperabilityIndex", "")).strip() == "R03"


def _converted_to_srgb(path: Path, kind: Kind) -> Array:
    import io

    from PIL import ImageCms

    with _pillow_open(path, kind) as picture:
        icc = picture.info.get("icc_profile")
        if not icc:
            return np.array(picture.convert("RGB"))
        try:
            converted = ImageCms.profileToProfile(
                picture, io.BytesIO(icc), ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError) as error:
            raise InputError(f"{path}: its colour profile cannot be applied ({_one_line(error)}); save it as sRGB") from None
        return np.array(converted)


def _upright(codes: Array, orientation: int) -> Array:
    """Turn and mirror codes as EXIF orientation 1..8 asks."""
    if orientation in (5, 6, 7, 8):
        codes = cv2.transpose(codes)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return codes if flip is None else cv2.flip(codes, flip)


# --- files that end early -------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def _ends_early(path: Path, kind: Kind, data: bytes) -> str:
    """Say what is missing at the end of a file, or return an empty string."""
    if kind == "jpeg":
        return _jpeg_ends_early(data)
    if kind == "png":
        return _png_ends_early(data)
    if kind == "tiff":
        return _tiff_ends_early(path)
    try:  # HEIC: libheif refuses what it cannot decode
        with _pillow_open(path, kind) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        return _one_line(error)
    return ""


def _jpeg_ends_early(data: bytes) -> str:
    """Walk the segments of a JPEG to its end-of-image marker (ITU-T T.81, annex B)."""
    at = 2
    while True:
        marker = _MARKER.search(data, at)
        if marker is None:
            return "no end-of-image marker"
        code, at = data[marker.start() + 1], marker.end()
        if code == 0xD9:
            return ""
        if code == 0x01:
            continue
        at += int.from_bytes(data[at : at + 2], "big")
        if at > len(data):
            return "inside a segment"


def _png_ends_early(data: bytes) -> str:
    """Walk the chunks of a PNG to IEND and check their checksums."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"bad checksum in chunk {name.decode('latin-1')}"
        if name == b"IEND":
            return ""
        at = end
    return "no IEND chunk"


def _tiff_ends_early(path: Path) -> str:
    """Compare the strips and tiles that a TIFF's directories promise with the file's length."""
    import tifffile

    length = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = list(tiff.pages)
            pages += [sub for page in tiff.pages for sub in (page.pages or ())]
            for page in pages:
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                    if offset + count > length:
                        return "its pixels reach past the end"
    except Exception as error:
        return _one_line(error)
    return ""


# --- RAW ------------------------------------------------------------------------------------------


def _open_raw(path: Path) -> Any:
    import rawpy

    try:
        return rawpy.imread(str(path))
    except rawpy.LibRawError as error:
        raise InputError(f"{path}: LibRaw cannot open it ({_libraw(error)}); copy it again or convert it to DNG") from None


def _read_raw(shot: Shot, reference: Shot) -> Frame:
    """Demosaic a RAW file to linear camera RGB, each channel 1.0 where it saturates.

    The demosaicing sees white-balanced data (it judges edges better), and the balance is divided
    out again: merging wants to know what the sensor recorded. It comes back with the camera matrix
    in ``to_rec709``.
    """
    import rawpy

    if shot.path.read_bytes()[:4] in _TIFF_MAGIC:
        early = _tiff_ends_early(shot.path)
        if early == "its pixels reach past the end":
            raise InputError(f"{shot.path}: {_ENDS_EARLY.format(what=early)}")
    balance = _white_balance(reference)
    with _open_raw(shot.path) as raw:
        try:
            clip = _saturation(raw, shot.path)
            codes = raw.postprocess(
                user_wb=[*balance, balance[1]],
                output_color=rawpy.ColorSpace.raw,
                output_bps=16,
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                highlight_mode=rawpy.HighlightMode.Ignore,
            )
        except rawpy.LibRawError as error:
            raise InputError(f"{shot.path}: LibRaw cannot decode it ({_libraw(error)}); copy it again") from None
        to_rec709 = _camera_matrix(raw, balance)
        levels = float(raw.white_level - np.mean(raw.black_level_per_channel))
    # LibRaw scales the largest multiplier to full range: each channel saturates at balance / max.
    saturation = (balance / balance.max()).astype(np.float32)
    response = Response("raw", np.stack([np.zeros(3, np.float32), 1.0 / saturation]))
    iso = NoiseModel.from_iso(shot.iso or 100.0)
    noise = NoiseModel(iso.photon, max(iso.read, 12**-0.5 / max(levels, 1.0)))
    return Frame(shot, codes, response, noise, to_rec709, clip)


def _white_balance(shot: Shot) -> Float:
    """Return the camera's multipliers of R, G, B with min 1; daylight where it recorded none."""
    with _open_raw(shot.path) as raw:
        for candidate in (raw.camera_whitebalance, raw.daylight_whitebalance):
            balance = np.asarray(candidate[:3], np.float32)
            if np.all(balance > 0):
                return np.asarray(balance / balance.min(), np.float32)
    return np.ones(3, np.float32)


def _camera_matrix(raw: Any, balance: Float) -> Float:
    xyz_to_camera = np.asarray(raw.rgb_xyz_matrix, np.float64)[:3]
    embedded = np.asarray(raw.color_matrix, np.float64)[:, :3]
    if not xyz_to_camera.any() and embedded.any():
        return np.asarray(embedded * balance, np.float32)
    return camera_to_rec709(xyz_to_camera, balance)


def _saturation(raw: Any, path: Path) -> float:
    """Return the level at which this sensor really clips, relative to the stated white level.

    Many cameras saturate a few percent below the white level of their metadata. Clipping shows as a
    spike: far more photosites in the topmost 0.2 % of the range than in the 2 % below it. Without
    a spike nothing was clipped and the level is 1.
    """
    data = raw.raw_image_visible if raw.raw_image is not None else None
    if data is None or data.size == 0:
        return 1.0
    counts = np.bincount(data.ravel(), minlength=2)
    used = np.flatnonzero(counts)
    if len(used) == 1:
        raise InputError(f"{path}: every photosite reads {used[0]}, no picture in it; copy it again from the card")
    black, white = float(np.mean(raw.black_level_per_channel)), float(raw.white_level)
    top, width = int(used[-1]), max((white - black) * 0.002, 1.0)
    spike = counts[max(int(top - width), 0) :].sum()
    below = counts[max(int(top - 11 * width), 0) : max(int(top - width), 0)].sum() / 10
    level = (top - width - black) / (white - black)
    clipped = spike > 20 and spike > 8 * below and level > 0.5
    return min(float(level), 1.0) if clipped else 1.0


def _libraw(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
