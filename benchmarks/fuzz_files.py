"""Simulated brackets in many formats, all with their exposures, for `fuzz.py`."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from fuzz_layout import Layout, chunk
from PIL import Image

from hdrmerge import exif
from hdrmerge.bracket import Shot
from hdrmerge.simulate import Simulated
from hdrmerge.simulate_files import exif_of, write_dngs

Writer = Callable[[Simulated, Path], list[Path]]
Save = Callable[[np.ndarray, Shot, Path], None]


def each(suffix: str, save: Save) -> Writer:
    """Return a writer of brackets from one of frames: codes (H, W, 3) uint8, their shot, a path."""

    def write(sim: Simulated, folder: Path) -> list[Path]:
        paths = [folder / f"IMG_{number:04d}{suffix}" for number in range(1, len(sim.shots) + 1)]
        for path, codes, shot in zip(paths, sim.frames, sim.shots, strict=True):
            save(codes, shot, path)
        return paths

    return write


def pillow(suffix: str, mode: str = "RGB", **options: Any) -> Writer:
    def save(codes: np.ndarray, shot: Shot, path: Path) -> None:
        picture = Image.fromarray(codes)
        picture = picture.quantize(256) if mode == "P" else picture.convert(mode)
        picture.save(path, exif=exif_of(shot), **options)

    return each(suffix, save)


def jpeg_with_thumbnail(codes: np.ndarray, shot: Shot, path: Path) -> None:
    """As cameras do: restart markers, and a small JPEG in a segment in front of the large one."""
    main, small = io.BytesIO(), io.BytesIO()
    Image.fromarray(codes).save(
        main, "JPEG", exif=exif_of(shot), quality=92, subsampling=2, restart_marker_rows=2
    )
    Image.fromarray(codes[::4, ::4].copy()).save(small, "JPEG")
    data, segment = main.getvalue(), b"thumb\0" + small.getvalue()
    start = Layout.of(data).parts[1][1]
    path.write_bytes(data[:start] + struct.pack(">HH", 0xFFE2, len(segment) + 2) + segment + data[start:])


def png16(codes: np.ndarray, shot: Shot, path: Path) -> None:
    """OpenCV writes deep pixels; the exposures go into a chunk behind the header."""
    data = cv2.imencode(".png", codes[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    block = exif_of(shot).tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(data[:33] + chunk(b"eXIf", block) + data[33:])


def tiff(kind: str, **options: Any) -> Writer:
    def save(codes: np.ndarray, shot: Shot, path: Path) -> None:
        deep = codes.astype(np.uint16) * 257
        pixels = {"u1": codes, "u2": deep, "f4": (codes.astype(np.float32) / 255) ** np.float32(2.2)}[kind]
        time = exif_of(shot).get_ifd(34665)[33434]
        tags = [(33434, 5, 1, (time.numerator, time.denominator), True), (33437, 5, 1, (8, 1), True)]
        tags += [(34855, 3, 1, 100, True), (274, 3, 1, 1, True)]
        tifffile.imwrite(path, pixels, photometric="rgb", metadata=None, extratags=tags, **options)

    return each(".tif", save)


def tiff_lzw(codes: np.ndarray, shot: Shot, path: Path, bits: int) -> None:
    """OpenCV compresses the strips, and they are put into a TIFF that knows its exposure."""
    pixels = codes[..., ::-1] if bits == 8 else codes[..., ::-1].astype(np.uint16) * 257
    plain = cv2.imencode(".tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5])[1].tobytes()
    with tifffile.TiffFile(io.BytesIO(plain)) as file:
        page = file.pages[0]
        strips = [plain[o : o + c] for o, c in zip(page.dataoffsets, page.databytecounts, strict=True)]
        rows, predictor = page.rowsperstrip, int(page.predictor)
    offsets = (8 + np.cumsum([0] + [len(strip) for strip in strips])).tolist()
    fields = exif.camera_fields(shot) | exif.exposure_fields(shot, exif.SRGB)
    fields |= {
        256: exif.long(codes.shape[1]),
        257: exif.long(codes.shape[0]),
        258: exif.short(bits, bits, bits),
        259: exif.short(5),
        262: exif.short(2),
        273: exif.long(*offsets[:-1]),
        277: exif.short(3),
        278: exif.long(rows),
        279: exif.long(*(len(strip) for strip in strips)),
        317: exif.short(predictor),
    }
    start = offsets[-1] + offsets[-1] % 2
    body = b"".join(strips).ljust(start - 8, b"\0")
    path.write_bytes(struct.pack("<2sHI", b"II", 42, start) + body + exif.directory(fields, start))


def heic(codes: np.ndarray, shot: Shot, path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(codes)).save(path, quality=90, exif=exif_of(shot).tobytes())


def dng(sim: Simulated, folder: Path) -> list[Path]:
    seed = int(sum(frame.sum(dtype=np.int64) for frame in sim.frames))
    return write_dngs(sim, folder, np.random.default_rng(seed))


def dng_compressed(sim: Simulated, folder: Path) -> list[Path]:
    """Most RAW files hold lossless JPEG; it takes the place of the plain photosites at the end."""
    for path in dng(sim, folder):
        with tifffile.TiffFile(path) as file:
            photosites = file.pages[0].asarray()
        data = bytearray(path.read_bytes())
        layout = Layout.of(bytes(data))
        start = min(begin for begin, _ in layout.pixels)
        strip = lossless_jpeg(photosites, 14)
        new = {259: 7, 273: start, 278: photosites.shape[0], 279: len(strip)}
        for entry in layout.entries:
            if entry.tag in new:
                struct.pack_into(entry.order + "HII", data, entry.at + 2, 4, 1, new[entry.tag])
        assert max(entry.value_at for entry in layout.entries) < start
        path.write_bytes(bytes(data[:start]) + strip)
    return [folder / f"IMG_{number:04d}.dng" for number in range(1, len(sim.shots) + 1)]


def lossless_jpeg(codes: np.ndarray, bits: int) -> bytes:
    """Encode (H, W) by the difference to the left (ITU-T T.81, annex H), all categories in 4 bits."""
    height, width = codes.shape
    values = codes.astype(np.int32)
    left = np.empty_like(values)
    left[:, 1:] = values[:, :-1]
    left[1:, 0] = values[:-1, 0]
    left[0, 0] = 1 << (bits - 1)
    difference = (values - left).ravel()
    category = np.zeros(difference.size, np.int64)
    while (beyond := np.abs(difference) >> category).any():
        category += beyond > 0
    extra = np.where(difference < 0, difference + (1 << category) - 1, difference)
    word, length = (category << category) | extra, category + 4
    places = np.arange(20)
    wanted = places < length[:, None]
    stream = ((word[:, None] >> np.maximum(length[:, None] - 1 - places, 0)) & 1)[wanted]
    stream = np.append(stream, np.ones(-len(stream) % 8, stream.dtype))
    entropy = np.packbits(stream.astype(np.uint8)).tobytes().replace(b"\xff", b"\xff\0")
    counts = bytes([0, 0, 0, bits + 1]) + bytes(12)
    return (
        b"\xff\xd8"
        + struct.pack(">HHB", 0xFFC4, 2 + 17 + bits + 1, 0)
        + counts
        + bytes(range(bits + 1))
        + struct.pack(">HHBHHBBBB", 0xFFC3, 11, bits, height, width, 1, 0, 0x11, 0)
        + struct.pack(">HHBBBBBB", 0xFFDA, 8, 1, 0, 0, 1, 0, 0)
        + entropy
        + b"\xff\xd9"
    )


WRITERS: dict[str, Writer] = {
    "jpeg": pillow(".jpg", quality=95, subsampling=0),
    "jpeg420": pillow(".jpg", quality=90, subsampling=2, optimize=True),
    "jpeg-progressive": pillow(".jpg", quality=92, progressive=True),
    "jpeg-restarts": each(".jpg", jpeg_with_thumbnail),
    "jpeg-grey": pillow(".jpg", mode="L", quality=92),
    "png": pillow(".png"),
    "png16": each(".png", png16),
    "png-alpha": pillow(".png", mode="RGBA"),
    "png-palette": pillow(".png", mode="P"),
    "png-grey": pillow(".png", mode="L"),
    "tiff8": tiff("u1", rowsperstrip=32),
    "tiff8-lzw": each(".tif", partial(tiff_lzw, bits=8)),
    "tiff8-deflate": tiff("u1", compression="zlib", predictor=True, rowsperstrip=32),
    "tiff16-big-endian": tiff("u2", byteorder=">", rowsperstrip=32),
    "tiff16-tiles": tiff("u2", tile=(64, 64), compression="zlib"),
    "tiff16-lzw": each(".tif", partial(tiff_lzw, bits=16)),
    "tiff-float": tiff("f4", rowsperstrip=32),
    "tiff-float-deflate": tiff("f4", compression="zlib", rowsperstrip=32),
    "dng": dng,
    "dng-compressed": dng_compressed,
    "heic": each(".heic", heic),
}
