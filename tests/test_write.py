"""Written files: values, metadata, and what happens when writing goes wrong."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import tifffile
from PIL import Image

from hdrmerge import colour, rgbe
from hdrmerge import write as writing
from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.errors import OutputError
from hdrmerge.write import check_target, write, write_preview

SHOT = Shot(
    path=Path("IMG [2].JPG"),
    exposure_time=1 / 60,
    iso=200.0,
    f_number=2.8,
    taken_at=datetime(2020, 1, 2, 3, 4, 5),
    camera_make="Canon",
    camera_model="EOS 550D",
    lens="EF 50mm f/1.8",
    focal_length=50.0,
)
SIZES = [(1, 1), (7, 5), (37, 53), (131, 20)]


def scene(height: int = 37, width: int = 53) -> RadianceMap:
    """Radiance over 16 stops in smooth and noisy colours, all of it within half floats."""
    rng = np.random.default_rng(0)
    pixels = np.exp2(rng.uniform(-10, 6, (height, width, 3))).astype(np.float32)
    inputs = (Shot(path=Path("/photos/été\n1.jpg")), SHOT)
    return RadianceMap(pixels, np.ones((height, width), dtype=bool), SHOT, inputs, "align auto, deghost auto")


def read_exr(path: Path) -> tuple[np.ndarray, dict[str, object]]:
    with OpenEXR.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        assert set(channels) == set("RGB")
        return np.stack([channels[c].pixels for c in "RGB"], axis=2), dict(file.header())


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("compression", ["zip", "piz", "none"])
def test_exr_half_values_are_the_nearest_half(
    tmp_path: Path, size: tuple[int, int], compression: str
) -> None:
    radiance_map = scene(*size)
    assert write(radiance_map, tmp_path / "a.exr", compression=compression) == []
    pixels, header = read_exr(tmp_path / "a.exr")
    assert pixels.dtype == np.float16
    assert np.array_equal(pixels, radiance_map.pixels.astype(np.float16))
    assert header["compression"] == writing.EXR_COMPRESSIONS[compression]


@pytest.mark.parametrize("size", SIZES)
def test_exr_float_values_are_exact(tmp_path: Path, size: tuple[int, int]) -> None:
    radiance_map = scene(*size)
    radiance_map.pixels[0, 0] = (1e5, -0.25, 1e-9)
    assert write(radiance_map, tmp_path / "a.exr", float32=True) == []
    pixels, _ = read_exr(tmp_path / "a.exr")
    assert pixels.dtype == np.float32
    assert np.array_equal(pixels, radiance_map.pixels)


def test_exr_dwaa_is_close(tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 4.0, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    write(dataclasses.replace(scene(64, 64), pixels=ramp), tmp_path / "a.exr", compression="dwaa")
    assert read_exr(tmp_path / "a.exr")[0] == pytest.approx(ramp, rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_hdr_values_are_within_half_a_step_and_never_negative(tmp_path: Path, size: tuple[int, int]) -> None:
    radiance_map = scene(*size)
    radiance_map.pixels[0, 0, 1] = -1.0
    assert write(radiance_map, tmp_path / "a.hdr") == []
    head, _, code = (tmp_path / "a.hdr").read_bytes().partition(f"\n\n-Y {size[0]} +X {size[1]}\n".encode())
    assert head.startswith(b"#?RADIANCE\n")
    decoded = rgbe.decode(code, *size)
    expected = np.maximum(radiance_map.pixels, 0.0)
    assert (np.abs(decoded - expected) <= expected.max(axis=2, keepdims=True) * 0.5 / 127.5).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("compression", "code"), [("zip", 8), ("none", 1)])
def test_tiff_values_are_exact(tmp_path: Path, size: tuple[int, int], compression: str, code: int) -> None:
    radiance_map = scene(*size)
    radiance_map.pixels[0, 0] = (1e5, -0.25, 1e-9)
    assert write(radiance_map, tmp_path / "a.TIF", compression=compression) == []
    with tifffile.TiffFile(tmp_path / "a.TIF") as file:
        assert np.array_equal(file.asarray().reshape(*size, 3), radiance_map.pixels)
        assert file.pages[0].compression == code


def test_a_view_of_a_larger_map_is_written_as_it_stands(tmp_path: Path) -> None:
    radiance_map = scene(80, 90)
    part = dataclasses.replace(radiance_map, pixels=radiance_map.pixels[3:77:2, 5:40])
    write(part, tmp_path / "a.exr", float32=True)
    write(part, tmp_path / "a.tif")
    assert np.array_equal(read_exr(tmp_path / "a.exr")[0], part.pixels)
    assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), part.pixels)


def test_values_beyond_half_are_clamped_with_a_warning(tmp_path: Path) -> None:
    radiance_map = scene()
    radiance_map.pixels[3, 4] = (65504.0, 65505.0, np.inf)
    radiance_map.pixels[5, 6] = (-1e6, 2.0, np.nan)
    warnings = write(radiance_map, tmp_path / "a.exr")
    assert warnings == [
        f"{tmp_path / 'a.exr'}: 3 values above 65504, the largest half, were clamped; --float keeps them",
        f"{tmp_path / 'a.exr'}: 1 values were not a number and became 0",
    ]
    pixels, _ = read_exr(tmp_path / "a.exr")
    assert pixels[3, 4].tolist() == [65504.0, 65504.0, 65504.0]
    assert pixels[5, 6].tolist() == [-65504.0, 2.0, 0.0]


@pytest.mark.parametrize("name", ["a.exr", "a.tif", "a.hdr"])
def test_no_format_holds_infinity_or_nan(tmp_path: Path, name: str) -> None:
    radiance_map = scene()
    radiance_map.pixels[0, 0] = (np.inf, np.nan, 1.0)
    warnings = write(radiance_map, tmp_path / name, float32=True)
    assert len(warnings) == 2
    assert "1 values beyond" in warnings[0]
    assert "not a number" in warnings[1]


# --- metadata -------------------------------------------------------------------------------------


def test_exr_attributes(tmp_path: Path) -> None:
    write(scene(), tmp_path / "a.exr")
    _, header = read_exr(tmp_path / "a.exr")
    assert header["chromaticities"] == pytest.approx(colour.REC709_CHROMATICITIES)
    assert header["expTime"] == pytest.approx(1 / 60)
    assert header["aperture"] == pytest.approx(2.8)
    assert header["isoSpeed"] == 200.0
    assert header["nominalFocalLength"] == 50.0
    assert header["capDate"] == "2020:01:02 03:04:05"
    assert (header["cameraMake"], header["cameraModel"]) == ("Canon", "EOS 550D")
    assert header["lensModel"] == "EF 50mm f/1.8"
    assert header["comments"] == "inputs: été?1.jpg, IMG [2].JPG; align auto, deghost auto"
    assert str(header["software"]).startswith("hdrmerge ")


def test_exr_attributes_are_not_invented(tmp_path: Path) -> None:
    radiance_map = scene()
    write(RadianceMap(radiance_map.pixels, radiance_map.valid, Shot(path=Path("a.jpg"))), tmp_path / "a.exr")
    _, header = read_exr(tmp_path / "a.exr")
    standard = {"expTime", "aperture", "isoSpeed", "nominalFocalLength", "capDate", "comments"}
    assert not header.keys() & (standard | {"cameraMake", "cameraModel", "lensModel"})
    assert "chromaticities" in header


def test_hdr_header(tmp_path: Path) -> None:
    write(scene(), tmp_path / "a.hdr")
    head = (tmp_path / "a.hdr").read_bytes().partition(b"\n\n")[0].decode()
    assert head.splitlines()[2:] == [
        "# inputs: été?1.jpg, IMG [2].JPG; align auto, deghost auto",
        "CAPDATE=2020:01:02 03:04:05",
        "PRIMARIES=0.6400 0.3300 0.3000 0.6000 0.1500 0.0600 0.3127 0.3290",
        "FORMAT=32-bit_rle_rgbe",
    ]


def test_tiff_tags(tmp_path: Path) -> None:
    write(scene(), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        page = file.pages[0]
        tags = {tag.name: tag.value for tag in page.tags}
        assert (page.photometric, page.planarconfig, page.sampleformat) == (2, 1, 3)
    assert (tags["Make"], tags["Model"], tags["Orientation"]) == ("Canon", "EOS 550D", 1)
    assert tags["InterColorProfile"] == colour.linear_profile()
    exif = tags["ExifTag"]
    assert exif["ExposureTime"] == (1, 60)
    assert exif["FNumber"] == (14, 5)
    assert exif["ISOSpeedRatings"] == 200
    assert exif["DateTimeOriginal"] == "2020:01:02 03:04:05"
    assert exif["LensModel"] == "EF 50mm f/1.8"
    assert exif["ColorSpace"] == 65535


# --- previews -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.png"])
@pytest.mark.parametrize("size", SIZES)
def test_previews_carry_picture_profile_and_exif(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    display = np.empty((*size, 3), dtype=np.uint8)
    display[:] = (200, 90, 30)
    write_preview(display, tmp_path / name, shot=SHOT)
    with Image.open(tmp_path / name) as picture:
        assert picture.size == (size[1], size[0])
        assert np.abs(np.asarray(picture).astype(int) - display).max() <= (0 if name == "a.png" else 3)
        assert picture.info["icc_profile"] == colour.srgb_profile()
        exif = picture.getexif()
        assert (exif[271], exif[274]) == ("Canon", 1)
        assert exif.get_ifd(34665)[33434] == pytest.approx(1 / 60)
        assert exif.get_ifd(34665)[34855] == 200


def test_a_jpeg_keeps_colour_at_full_resolution(tmp_path: Path) -> None:
    """One red column between blue ones survives; halved chroma would turn it purple."""
    display = np.zeros((64, 64, 3), dtype=np.uint8)
    display[..., 2] = 200
    display[:, 31] = (200, 0, 0)
    write_preview(display, tmp_path / "a.jpg", shot=SHOT)
    with Image.open(tmp_path / "a.jpg") as picture:
        red, _, blue = np.asarray(picture)[32, 31].astype(int)
    assert red > 150
    assert blue < 60


def test_a_jpeg_of_more_than_65500_pixels_a_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"at most 65500 pixels a side; write \.png"):
        write_preview(np.zeros((1, 65501, 3), np.uint8), tmp_path / "a.jpg", shot=SHOT)
    write_preview(np.zeros((1, 65501, 3), np.uint8), tmp_path / "a.png", shot=SHOT)
    assert (tmp_path / "a.png").exists()


# --- the target -----------------------------------------------------------------------------------

Writer = Callable[..., object]


def write_picture(path: Path, force: bool = False) -> None:
    write_preview(np.zeros((4, 6, 3), np.uint8), path, shot=SHOT, force=force)


def write_map(path: Path, force: bool = False) -> None:
    write(scene(), path, force=force)


TARGETS = [
    (write_map, ".exr"),
    (write_map, ".hdr"),
    (write_map, ".tiff"),
    (write_picture, ".jpg"),
    (write_picture, ".png"),
]


@pytest.mark.parametrize(("writer", "suffix"), TARGETS)
@pytest.mark.parametrize("stem", ["with space [1] (2)", "été 日本", "a" * 240])
def test_names_and_missing_folders(tmp_path: Path, writer: Writer, suffix: str, stem: str) -> None:
    target = tmp_path / "new folder" / "über" / f"{stem}{suffix}"
    writer(target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


@pytest.mark.parametrize(("writer", "suffix"), TARGETS)
def test_an_existing_target_is_kept_without_force(tmp_path: Path, writer: Writer, suffix: str) -> None:
    target = tmp_path / f"a{suffix}"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists; add --force to replace it"):
        writer(target)
    assert target.read_text() == "mine"
    writer(target, force=True)
    assert target.stat().st_size > 100


@pytest.mark.parametrize(("writer", "suffix"), TARGETS)
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), MemoryError(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer, suffix: str, error: BaseException
) -> None:
    """The last step fails, when the temporary file is complete: neither target is touched."""
    old = tmp_path / f"old{suffix}"
    old.write_text("mine")
    seen: list[Path] = []

    def fail(self: Path, target: Path) -> None:
        seen.append(self)
        assert self.stat().st_size > 100
        raise error

    monkeypatch.setattr(Path, "replace", fail)
    for target in (old, tmp_path / f"new{suffix}"):
        with pytest.raises(OutputError if isinstance(error, OSError) else type(error)) as caught:
            writer(target, force=True)
        if isinstance(error, OSError):
            assert str(caught.value).startswith(
                f"{target}: cannot be written (No space left on device); free some space"
            )
    assert all(
        path.parent == tmp_path and path.name.startswith(".") and path.suffix == suffix for path in seen
    )
    assert len(set(seen)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_text() == "mine"


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".tif", ".png"])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    resource = pytest.importorskip("resource")  # absent on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(File too large\); choose another target"):
            (write_picture if suffix == ".png" else write_map)(tmp_path / f"a{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", r"the suffix '\.jpg' names no format to write; use \.exr, \.hdr, \.tif or \.tiff"),
        ("a", "no suffix names no format"),
        ("folder.exr", "is a folder; name a file"),
        ("file.txt/a.exr", r"file\.txt is a file, not a folder"),
        ("b" * 300 + ".exr", r"\(File name too long\); choose a shorter name"),
    ],
)
def test_targets_that_cannot_be(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "folder.exr").mkdir()
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(OutputError, match=found) as caught:
        write(scene(), tmp_path / name, force=True)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.txt", "folder.exr"]


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match=r"\(Permission denied\); choose a folder you may write to"):
        check_target(tmp_path / "sub" / "a.exr", writing.RADIANCE_SUFFIXES)


def test_an_unknown_compression(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no compression 'gif'; choose zip, piz, dwaa or none"):
        write(scene(), tmp_path / "a.exr", compression="gif")


def test_a_tiff_beyond_4_gib_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    pixels = np.broadcast_to(np.float32(0.5), (20_000, 18_000, 3))
    huge = dataclasses.replace(scene(), pixels=pixels)
    with pytest.raises(OutputError, match=r"larger than the 4 GiB that a TIFF holds; write \.exr"):
        write(huge, tmp_path / "a.tif")


def test_a_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(io.BytesIO().getvalue())
    write(scene(), tmp_path / "a.hdr")
    assert (tmp_path / "a.hdr").stat().st_mode == (tmp_path / "plain").stat().st_mode
