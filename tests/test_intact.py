"""Files that end early or were changed are found out, whatever the format."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from hdrmerge.bracket import Shot
from hdrmerge.errors import InputError
from hdrmerge.intact import check_complaints, check_complete
from hdrmerge.metadata import read_shot
from hdrmerge.read import read_frame
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera
from hdrmerge.simulate_files import record_mosaic, write_dng

CUTS = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.clip(ramp_scene(96, 128, np.random.default_rng(0)) * 64, 0, 255).astype(np.uint8)


def with_pillow(suffix: str, **options: object) -> Callable[[np.ndarray, Path], None]:
    return lambda codes, path: Image.fromarray(codes).save(path, suffix, **options)


def with_tifffile(deep: bool, **options: object) -> Callable[[np.ndarray, Path], None]:
    def save(codes: np.ndarray, path: Path) -> None:
        tifffile.imwrite(path, codes.astype(np.uint16) * 257 if deep else codes, photometric="rgb", **options)

    return save


def jpeg_with_thumbnail(codes: np.ndarray, path: Path) -> None:
    """A whole JPEG inside the EXIF segment: its end-of-image marker is not the file's."""
    thumbnail, main = io.BytesIO(), io.BytesIO()
    Image.fromarray(codes[::4, ::4].copy()).save(thumbnail, "JPEG")
    Image.fromarray(codes).save(main, "JPEG")
    segment = b"Exif\0\0" + thumbnail.getvalue()
    data = main.getvalue()
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:])


def heic(codes: np.ndarray, path: Path) -> None:
    pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(codes)).save(path, quality=90)


def dng(codes: np.ndarray, path: Path) -> None:
    camera = Camera(bits=14)
    photosites = record_mosaic(np.float32(codes / 255), camera, 100.0, np.random.default_rng(0))
    write_dng(path, photosites, Shot(path, exposure_time=1 / 60, iso=100.0, f_number=8.0), camera)


def lzw16(codes: np.ndarray, path: Path) -> None:
    cv2.imwrite(str(path), codes[..., ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 5])


WRITERS = {
    "baseline.jpg": with_pillow("JPEG"),
    "progressive.jpg": with_pillow("JPEG", progressive=True),
    "restarts.jpg": with_pillow("JPEG", restart_marker_rows=1),
    "thumbnail.jpg": jpeg_with_thumbnail,
    "a.png": with_pillow("PNG"),
    "strips8.tif": with_tifffile(deep=False, rowsperstrip=16),
    "strips16.tif": with_tifffile(deep=True, rowsperstrip=16),
    "tiles.tif": with_tifffile(deep=True, tile=(32, 32)),
    "deflate.tif": with_tifffile(deep=True, compression="zlib"),
    "lzw8.tif": with_pillow("TIFF", compression="tiff_lzw"),
    "lzw16.tif": lzw16,
    "a.dng": dng,
    "a.heic": heic,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_ends_early_is_an_error_wherever_it_ends(
    tmp_path: Path, picture: np.ndarray, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    WRITERS[name](picture, path)
    data = path.read_bytes()
    assert read_frame(read_shot(path)).codes.shape == picture.shape  # whole, it is read
    for share in CUTS:
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError) as caught:
            read_frame(read_shot(path))
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert "; " in message, message
        assert "\n" not in message
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["baseline.jpg", "progressive.jpg", "restarts.jpg", "thumbnail.jpg"])
def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](picture, path)
    whole = read_frame(read_shot(path)).codes[:]
    path.write_bytes(path.read_bytes() + b"\0\0second picture\xff\xd8\xff" * 9)
    assert np.array_equal(read_frame(read_shot(path)).codes[:], whole)


def test_a_jpeg_header_that_lies_is_an_error(tmp_path: Path, picture: np.ndarray) -> None:
    for name, marker in (("baseline.jpg", b"\xff\xc0"), ("progressive.jpg", b"\xff\xc2")):
        path = tmp_path / name
        WRITERS[name](picture, path)
        data = bytearray(path.read_bytes())
        at = data.index(marker)
        data[at + 5 : at + 9] = struct.pack(">HH", 10_000, 10_000)
        path.write_bytes(data)
        with pytest.raises(InputError, match="at least"):
            read_frame(read_shot(path))


@pytest.mark.parametrize("height", [97, 10_000])
def test_a_png_header_that_lies_is_an_error(tmp_path: Path, picture: np.ndarray, height: int) -> None:
    path = tmp_path / "a.png"
    WRITERS["a.png"](picture, path)
    data = bytearray(path.read_bytes())
    data[20:24] = struct.pack(">I", height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be decoded"):
        read_frame(read_shot(path))


@pytest.mark.parametrize("name", ["strips8.tif", "strips16.tif", "tiles.tif", "deflate.tif", "lzw16.tif"])
def test_a_tiff_header_that_lies_is_an_error(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](picture, path)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(10_000)
    with pytest.raises(InputError, match="ends early or is damaged"):
        read_frame(read_shot(path))


def test_a_png_with_a_changed_byte_is_an_error(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.png"
    WRITERS["a.png"](picture, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum in chunk 'IDAT'"):
        read_frame(read_shot(path))


@pytest.mark.parametrize(
    ("name", "tag", "value", "finding"),
    [
        ("strips8.tif", "PlanarConfiguration", 5, "planar configuration 5"),
        ("strips16.tif", "PhotometricInterpretation", 77, "photometric interpretation 77"),
        ("strips8.tif", "Compression", 999, "compression 999"),
        ("strips8.tif", "SamplesPerPixel", 1, "RGB of 1 channels"),
        ("strips8.tif", "StripOffsets", [400] * 6, "strips that overlap"),
        ("strips8.tif", "StripOffsets", [2] * 6, "pixels where its directory lies"),
        ("a.dng", "StripOffsets", 2, "pixels where its directory lies"),
        ("strips16.tif", "BitsPerSample", 8, "73728 bytes for a picture of 36864"),
    ],
)
def test_tags_that_cannot_be_are_an_error(
    tmp_path: Path, picture: np.ndarray, name: str, tag: str, value: object, finding: str
) -> None:
    path = tmp_path / name
    WRITERS[name](picture, path)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        found = tiff.pages[0].tags[tag]
        count = found.count
        found.overwrite([value] * count if isinstance(value, int) and count > 1 else value)
    with pytest.raises(InputError, match=finding):
        read_frame(read_shot(path))


def changed_entry(data: bytes, tag: int, new: bytes, offset: int) -> bytes:
    """Overwrite bytes of a directory entry of a little-endian TIFF, counted from its tag."""
    at = data.index(struct.pack("<HH", tag, 3), 8)
    return data[: at + offset] + new + data[at + offset + len(new) :]


@pytest.mark.parametrize(
    ("tag", "offset", "new", "finding"),
    [
        (262, 0, b"\xff\xff", "no photometric interpretation"),
        (284, 2, b"\xff\xff", "tag 284 of a type that is none"),
        (284, 2, b"\0\0", "tag 284 of a type that is none"),
    ],
)
def test_entries_that_readers_skip_are_an_error(
    tmp_path: Path, picture: np.ndarray, tag: int, offset: int, new: bytes, finding: str
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", planarconfig="contig", byteorder="<", metadata=None)
    path.write_bytes(changed_entry(path.read_bytes(), tag, new, offset))
    with pytest.raises(InputError, match=finding):
        read_frame(read_shot(path))


def test_tags_in_disorder_are_noted(tmp_path: Path, picture: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture, photometric="rgb", byteorder="<", metadata=None)
    assert read_frame(read_shot(path)).notes == ()
    path.write_bytes(changed_entry(path.read_bytes(), 277, b"\x03", 1))  # samples per pixel, renamed
    with pytest.raises(InputError, match="RGB of 1 channels"):
        read_frame(read_shot(path))
    tifffile.imwrite(path, picture, photometric="rgb", byteorder="<", metadata=None)
    path.write_bytes(changed_entry(path.read_bytes(), 284, b"\x03", 1))  # planar configuration, the usual one
    frame = read_frame(read_shot(path))
    assert np.array_equal(frame.codes[:], picture)
    assert frame.notes == ("the tags of its directory are in disorder; it may be damaged",)


@pytest.mark.parametrize("name", WRITERS)
def test_spoilt_headers_are_read_or_refused(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    """Whatever the byte: a frame of sane numbers or one line, and never another exception."""
    path = tmp_path / name
    WRITERS[name](picture[:32, :48], path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for at in rng.choice(min(len(data), 700), 25, replace=False):
        for value in (0, 255):
            path.write_bytes(data[:at] + bytes([value]) + data[at + 1 :])
            try:
                assert np.isfinite(read_frame(read_shot(path)).linear()).all()
            except InputError as error:
                messages.append(str(error))
    assert len(messages) > 2
    assert all(text.startswith(f"{path}: ") and "; " in text and "\n" not in text for text in messages)


@pytest.mark.parametrize(
    ("printed", "finding"),
    [
        ("Corrupt JPEG data: premature end of data segment\n", "premature end of data segment"),
        ("Corrupt JPEG data: bad Huffman code\n", "bad Huffman code"),
        ("x\nCorrupt JPEG data: found marker 0xd9 instead of RST3\n", "found marker 0xd9 instead of RST3"),
        ("Premature end of JPEG file\n", "Premature end of JPEG file"),
        ("libpng warning: IDAT: incorrect data check\n", "incorrect data check"),
    ],
)
def test_sure_damage_is_an_error(printed: str, finding: str) -> None:
    with pytest.raises(InputError) as caught:
        check_complaints(Path("a.jpg"), printed, io.BytesIO(b""))
    assert str(caught.value) == f"a.jpg: ends early or is damaged ({finding}); copy it again from the card"


@pytest.mark.parametrize(
    "printed",
    [
        "",
        "Invalid SOS parameters for sequential JPEG\n",  # some phones' panoramas
        "Warning: unknown JFIF revision number 9.09\n",
        "Corrupt JPEG data: bad ICC marker\n",
        "libpng warning: iCCP: known incorrect sRGB profile\n",
        "somebody else's line\n",
    ],
)
def test_what_harms_no_picture_is_passed_over(printed: str) -> None:
    assert check_complaints(Path("a.jpg"), printed, io.BytesIO(b"")) == ()


@pytest.mark.parametrize(
    ("left", "marker", "noted"),
    [
        (b"\0" * 8, "d9", False),
        (b"\xff" * 8, "d9", False),
        (b"\x5a" * 8, "d9", True),
        (b"\0" * 8, "d1", True),
    ],
)
def test_bytes_left_over(left: bytes, marker: str, noted: bool) -> None:
    file = io.BytesIO(b"\xff\xd8\xff\xda\0\2abc" + left + b"\xff\xd9 and more \xff\xd9")
    notes = check_complaints(
        Path("a.jpg"), f"Corrupt JPEG data: 8 extraneous bytes before marker 0x{marker}\n", file
    )
    assert [note.partition(";")[0] for note in notes] == ["8 bytes too many among its pixels"] * noted


def box(name: bytes, size: int, content: bytes) -> bytes:
    return struct.pack(">I", size) + name + content


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (box(b"ftyp", 12, b"crx ") + box(b"mdat", 16, bytes(8)), ""),
        (box(b"ftyp", 12, b"crx ") + box(b"mdat", 0, bytes(8)), ""),  # 0: to the end of the file
        (box(b"ftyp", 12, b"crx ") + box(b"mdat", 1, struct.pack(">Q", 24) + bytes(8)), ""),
        (box(b"ftyp", 12, b"crx ") + box(b"mdat", 17, bytes(8)), "inside box 'mdat'"),
        (box(b"ftyp", 12, b"crx ") + box(b"mdat", 1, struct.pack(">Q", 99) + bytes(8)), "inside box 'mdat'"),
        (box(b"ftyp", 12, b"crx ") + box(b"moov", 8, b""), "no pixels"),
        (box(b"ftyp", 12, b"crx ") + box(b"free", 4, bytes(8)), "inside box 'free'"),
    ],
)
def test_boxes_are_walked_to_the_end(data: bytes, missing: str) -> None:
    if not missing:
        check_complete(Path("a.cr3"), "raw", io.BytesIO(data))
        return
    with pytest.raises(InputError, match=missing):
        check_complete(Path("a.cr3"), "raw", io.BytesIO(data))
