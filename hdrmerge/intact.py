"""Whether all of a photograph is there, and whole.

Decoders differ in what they make of damage, and most of them say nothing: a grey tail, a shifted
half, garbage. What frames the pixels is checked here before they are decoded, and what the decoder
printed about them afterwards.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from .fileformat import TIFF_MAGIC, Kind, damaged, one_line


def check_complete(path: Path, kind: Kind, file: BinaryIO) -> tuple[str, ...]:
    """Raise `InputError` where the file ends before its picture does; return warnings.

    Only what frames the pixels is read, except in PNG, whose checksums are worth their time.
    """
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if kind == "jpeg":
        missing = _jpeg_ends_early(file.read())
    elif kind == "png":
        missing = _png_ends_early(file.read())
    elif head.startswith(TIFF_MAGIC):
        missing = _tiff_ends_early(file, strict=kind == "tiff")
    elif head[4:8] == b"ftyp":
        missing = _boxes_end_early(file)
    else:
        return ()  # RAW formats of their own, which LibRaw refuses where they end early
    if missing:
        raise damaged(path, missing)
    return _disorder(file) if kind == "tiff" else ()


_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # start of frame: baseline, extended, progressive


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
        segment = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(segment)
        if at >= len(data):
            return "inside a segment"
        if code in _HUFFMAN_FRAMES and len(data) * 8 < _blocks(segment):
            return f"{len(data)} bytes for a picture that takes {_blocks(segment) // 8} at least"


_SURE_DAMAGE = re.compile(
    r"Corrupt JPEG data: (?!bad ICC|\d+ extraneous)(.+)|(Premature end .+|Inconsistent progression .+)"
    r"|libpng (?:warning|error): IDAT: (.+)"
)
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x(..)")


def check_complaints(path: Path, printed: str, file: BinaryIO) -> tuple[str, ...]:
    """Raise `InputError` where libjpeg or libpng told of damage; return warnings where it may be harmless.

    ``printed`` is what they said while they decoded ``file``. Damage shifts or blanks what follows it,
    and the bytes then run out too early, or some are left over. Bytes are left over in the good files
    of some cameras, too; where all are 0 or 255 they fill a gap.
    """
    damage = _SURE_DAMAGE.search(printed)
    if damage:
        raise damaged(path, next(group for group in damage.groups() if group))
    left = _LEFT_OVER.search(printed)
    if left is None:
        return ()
    count, marker = int(left[1]), bytes([0xFF, int(left[2], 16)])
    file.seek(0)
    data = file.read()
    end = data.find(marker, data.rfind(b"\xff\xda")) if marker == b"\xff\xd9" else -1
    if end >= count and not data[end - count : end].strip(b"\0\xff"):
        return ()
    return (
        f"{count} bytes too many among its pixels; if parts of the picture are shifted or grey, "
        "copy the file again from the card",
    )


def _blocks(frame: bytes) -> int:
    """Count the 8 x 8 blocks that a start-of-frame segment announces; each takes a bit or more."""
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    samplings = [(byte >> 4) * (byte & 15) for byte in frame[7::3]]
    return width * height // 64 * sum(samplings) // max([*samplings, 1])


def _png_ends_early(data: bytes) -> str:
    """Walk the chunks of a PNG to IEND and check their checksums."""
    at, compressed = 8, 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name, end = data[at + 4 : at + 8], at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"bad checksum in chunk {name.decode('latin-1')!r}"
        if name == b"IDAT":
            compressed += length
        if name == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return _too_few(compressed, width * height // 8, DEFLATE)  # a bit a pixel at least
        at = end
    return "no IEND chunk"


DEFLATE = 1032
"""Bytes that one compressed byte becomes at most: 258 for two bits (RFC 1951)."""

_EXPANSIONS = {1: 1, 8: DEFLATE, 32946: DEFLATE}
"""The same for compressions of TIFF; others, LZW among them, stay below `_OTHERS`."""

_OTHERS = 4096


def _too_few(stored: int, wanted: int, expansion: int) -> str:
    """Tell whether so few bytes cannot become as many as are wanted, before memory is asked for."""
    return f"{stored} bytes for a picture of {wanted} at least" if stored * expansion < wanted else ""


def _tiff_ends_early(file: BinaryIO, strict: bool) -> str:
    """Compare the strips and tiles that a TIFF's directories promise with the file's length.

    RAW files are TIFFs of a kind; what tifffile cannot make of them is left to LibRaw.
    """
    import tifffile

    length = file.seek(0, 2)
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            pages = [*tiff.pages]
            pages += [sub for page in pages for sub in page.pages or ()]
            for page in pages:
                finding = _page_ends_early(page, length, strict)
                if finding:
                    return finding
            return "" if pages or not strict else "no picture in it"
    except Exception as error:  # tifffile raises many kinds on damaged directories
        return one_line(error) if strict else ""


def _page_ends_early(page: Any, length: int, strict: bool) -> str:
    parts = sorted(zip(page.dataoffsets, page.databytecounts, strict=False))
    ends = [start + count for start, count in parts]
    if max(ends, default=0) > length:
        return "its pixels reach past the end"
    standard = strict or "DNGVersion" in page.parent.pages[0].tags  # in other RAW files tags may mislead
    if standard and len(parts) < math.prod(page.chunked):
        return "fewer strips than its header announces"
    if standard and any(start <= page.offset < end for (start, _), end in zip(parts, ends, strict=True)):
        return "pixels where its directory lies"
    if not isinstance(page.bitspersample, int):
        return f"channels of {page.bitspersample} bits" if strict else ""
    wanted = page.size * page.bitspersample // 8
    if not strict:
        return _too_few(length, wanted, _OTHERS)
    if finding := _impossible(page):
        return finding
    unread = [tag for tag, kind in _entries(page.parent.filehandle, page) if kind not in _TAG_TYPES]
    if unread:
        return f"tag {unread[0]} of a type that is none"
    if any(end > start for end, (start, _) in zip(ends, parts[1:], strict=False)):
        return "strips that overlap"
    stored = sum(page.databytecounts)
    if page.compression == 1 and not page.is_tiled and stored >= 2 * max(wanted, 1):
        return f"{stored} bytes for a picture of {wanted}"
    return _too_few(stored, wanted, _EXPANSIONS.get(page.compression, _OTHERS))


_TAG_TYPES = {*range(1, 14), 16, 17, 18}  # TIFF 6.0, with the pointers and 64-bit numbers added to it


def _entries(file: BinaryIO, page: Any) -> list[tuple[int, int]]:
    """Return tag and type of each entry of a page's directory, as stored; none for BigTIFF."""
    order = page.parent.byteorder
    if page.parent.is_bigtiff:
        return []
    file.seek(page.offset)
    (count,) = struct.unpack(order + "H", file.read(2))
    return [entry[:2] for entry in struct.iter_unpack(order + "HHII", file.read(12 * count))]


def _disorder(file: BinaryIO) -> tuple[str, ...]:
    """Warn where the tags of a TIFF do not ascend, as they must: one that was changed goes unread."""
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        tags = [tag for tag, _ in _entries(file, tiff.pages[0])]
    return () if tags == sorted(tags) else ("the tags of its directory are in disorder; it may be damaged",)


def _impossible(page: Any) -> str:
    """Name the first tag of a TIFF page that means nothing; decoders take what comes nearest."""
    import tifffile

    if "PhotometricInterpretation" not in page.tags:
        return "no photometric interpretation"
    for name, value, known in (
        ("planar configuration", page.planarconfig, tifffile.PLANARCONFIG),
        ("photometric interpretation", page.photometric, tifffile.PHOTOMETRIC),
        ("compression", page.compression, tifffile.COMPRESSION),
        ("predictor", page.predictor, tifffile.PREDICTOR),
        ("sample format", page.sampleformat, tifffile.SAMPLEFORMAT),
    ):
        if value not in set(known):
            return f"{name} {value}"
    if page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel < 3:
        return f"RGB of {page.samplesperpixel} channels"
    return ""


def _boxes_end_early(file: BinaryIO) -> str:
    """Walk the outermost boxes of HEIC and CR3 (ISO/IEC 14496-12, 4.2)."""
    length = file.seek(0, 2)
    at, names = 0, set()
    while at + 8 <= length:
        file.seek(at)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # the size follows in 64 bits
            size = int.from_bytes(header[8:], "big")
        elif size == 0:  # to the end of the file
            size = length - at
        if size < 8 or at + size > length:
            return f"inside box {header[4:8].decode('latin-1')!r}"
        names.add(header[4:8])
        at += size
    return "" if b"mdat" in names else "no pixels in it"
