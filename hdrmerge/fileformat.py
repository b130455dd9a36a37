"""What kind of file a photograph is, and whether all of it is there."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any, Literal

from .errors import InputError

Kind = Literal["jpeg", "png", "tiff", "heic", "raw"]

RAW_SUFFIXES = frozenset(
    (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .gpr .iiq .k25 .kdc .mef .mos .mrw .nef .nrw .orf "
        ".pef .ptx .qtk .raf .raw .rw2 .rwl .sr2 .srf .srw .x3f"
    ).split()
)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif"}
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def kind_of(path: Path) -> Kind:
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
    if head.startswith(TIFF_MAGIC) and suffix not in RAW_SUFFIXES:
        return "tiff"
    if suffix in RAW_SUFFIXES:
        return "raw"
    raise InputError(
        f"{path}: not a photograph (it begins with {head[:8]!r}); give JPEG, PNG, TIFF, HEIC or RAW"
    )


def pillow_open(path: Path, kind: Kind) -> Any:
    """Open with Pillow, which reads the header and decodes only when asked."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # panoramas are large; a lying header fails when it is decoded
    if kind == "heic":
        try:
            import pillow_heif
        except ModuleNotFoundError:
            raise InputError(
                f"{path}: HEIC needs an extra package; run pip install 'hdrmerge[heic]'"
            ) from None
        pillow_heif.register_heif_opener()
    return Image.open(path)


def check_complete(path: Path, kind: Kind, data: bytes) -> None:
    """Raise `InputError` where the file ends before its picture does.

    Decoders differ here, and OpenCV's says nothing: it returns a grey tail.
    """
    if kind == "jpeg":
        missing = _jpeg_ends_early(data)
    elif kind == "png":
        missing = _png_ends_early(data)
    elif data.startswith(TIFF_MAGIC):
        missing = _tiff_ends_early(path, strict=kind == "tiff")
    else:
        return  # libheif and LibRaw refuse what they cannot decode
    if missing:
        raise InputError(
            f"{path}: the file ends early or is damaged ({missing}); copy it again from the card"
        )


_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


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


def _tiff_ends_early(path: Path, strict: bool) -> str:
    """Compare the strips and tiles that a TIFF's directories promise with the file's length.

    RAW files are TIFFs of a kind; what tifffile cannot make of them is left to LibRaw.
    """
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
    except Exception as error:  # tifffile raises many kinds on damaged directories
        return one_line(error) if strict else ""
    return ""


def one_line(error: Exception) -> str:
    """Return the message of somebody else's exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
