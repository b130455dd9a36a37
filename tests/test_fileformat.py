"""Kinds of files told apart, and files that end early found out, whatever the format."""

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
from hdrmerge.fileformat import check_complete, kind_of
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


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.jpg", b"\xff\xd8\xff\xe0", "jpeg"),
        ("a.nef", b"\xff\xd8\xff\xe0", "jpeg"),  # some programs write JPEG under the old name
        ("a.png", b"\x89PNG\r\n\x1a\n", "png"),
        ("a.tif", b"II*\0", "tiff"),
        ("a.jpg", b"MM\0*", "tiff"),
        ("A.DNG", b"II*\0", "raw"),
        ("a.cr3", b"\0\0\0\x18ftypcrx ", "raw"),
        ("a.HEIC", b"\0\0\0\x18ftypheic", "heic"),
        ("a.heif", b"\0\0\0\x18ftypmif1", "heic"),
    ],
)
def test_the_kind_is_told_by_the_first_bytes(tmp_path: Path, name: str, head: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(20))
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("text.jpg", b"Dear diary, today we went", "not a photograph (it begins with b'Dear dia')"),
        ("film.mp4", b"\0\0\0\x18ftypisom", "not a photograph"),
        ("a.exr", b"v/1\1", "not a photograph"),
    ],
)
def test_what_is_no_photograph_is_refused(tmp_path: Path, name: str, content: bytes, finding: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_shot(path)
    assert f"{path}: {finding}" in str(caught.value)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    below_a_file = tmp_path / "file" / "a.jpg"
    below_a_file.parent.write_bytes(b"x")
    for path, finding in (
        (tmp_path / "missing.jpg", "no such file; check the name"),
        (tmp_path, "is a folder; name the photographs in it"),
        (below_a_file, "cannot be read (Not a directory)"),
    ):
        with pytest.raises(InputError) as caught:
            read_shot(path)
        assert f"{path}: {finding}" in str(caught.value)


def test_an_unreadable_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refused)  # the tests may run as root, who may read everything
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\); check its permissions"):
        read_shot(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "name", ["a b.jpg", "[1].jpg", "Ünïcödé.jpg", "🌅.jpg", "-x.jpg", "new\nline.jpg", "a.JPEG"]
)
def test_names_may_hold_anything(
    tmp_path: Path, picture: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture).save(Path(name), "JPEG")
    assert read_frame(read_shot(name)).codes.shape == picture.shape


@pytest.mark.parametrize("name", ["a b [1] Ünï 🌅.dng", "a b [1] Ünï 🌅.tif", "a b [1] Ünï 🌅.heic"])
def test_names_of_other_formats_may_too(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    path = tmp_path / name
    WRITERS[{".dng": "a.dng", ".tif": "lzw16.tif", ".heic": "a.heic"}[path.suffix]](picture, path)
    assert read_frame(read_shot(path)).codes.shape == picture.shape
