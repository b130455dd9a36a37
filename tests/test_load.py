"""Radiance files read back: our own, those of other programs, and damaged ones."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import tifffile

from hdrmerge import rgbe
from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.colour import ADOBE_RGB, ADOBE_RGB_CHROMATICITIES
from hdrmerge.errors import InputError
from hdrmerge.load import load
from hdrmerge.write import write

SHOT = Shot(
    path=Path("IMG.JPG"),
    exposure_time=1 / 60,
    iso=200.0,
    f_number=2.8,
    taken_at=datetime(2020, 1, 2, 3, 4, 5),
    camera_make="Canon",
    camera_model="EOS 550D",
    lens="EF 50mm f/1.8",
    focal_length=50.0,
)


def scene(height: int = 37, width: int = 53) -> RadianceMap:
    pixels = np.exp2(np.random.default_rng(0).uniform(-10, 6, (height, width, 3))).astype(np.float32)
    return RadianceMap(pixels, np.ones((height, width), dtype=bool), SHOT)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (37, 53)])
@pytest.mark.parametrize(
    ("name", "precision"), [("a.exr", 2**-11), ("a b [1] é.hdr", 0.5 / 127.5), ("a.tif", 0.0)]
)
def test_written_files_come_back(tmp_path: Path, name: str, precision: float, size: tuple[int, int]) -> None:
    radiance_map = scene(*size)
    write(radiance_map, tmp_path / name)
    found = load(tmp_path / name)
    assert found.pixels.dtype == np.float32
    error = np.abs(found.pixels - radiance_map.pixels)
    assert (error <= precision * radiance_map.pixels.max(axis=2, keepdims=True)).all()
    assert found.valid.all()
    shot = found.reference
    assert (shot.path, shot.height, shot.width) == (tmp_path / name, *size)
    assert shot.taken_at == SHOT.taken_at
    if not name.endswith(".hdr"):
        assert shot.exposure_time == pytest.approx(1 / 60)
        assert shot.f_number == pytest.approx(2.8)
        assert (shot.iso, shot.focal_length, shot.source) == (200.0, 50.0, "exif")
        assert (shot.camera_make, shot.camera_model, shot.lens) == ("Canon", "EOS 550D", "EF 50mm f/1.8")


@pytest.mark.parametrize("name", ["a.exr", "a.tif"])
def test_what_a_file_does_not_state_stays_unknown(tmp_path: Path, name: str) -> None:
    radiance_map = scene()
    write(RadianceMap(radiance_map.pixels, radiance_map.valid, Shot(path=Path("a.jpg"))), tmp_path / name)
    path = tmp_path / name
    assert load(path).reference == Shot(path=path, width=53, height=37)


def write_channels(path: Path, channels: dict[str, np.ndarray], **header: object) -> None:
    with OpenEXR.File({"type": OpenEXR.scanlineimage, **header}, channels) as file:
        file.write(str(path))


def test_exr_primaries_are_taken_to_rec709(tmp_path: Path) -> None:
    pixels = scene().pixels
    planes = {c: np.ascontiguousarray(pixels[..., k]) for k, c in enumerate("RGB")}
    write_channels(tmp_path / "a.exr", planes, chromaticities=ADOBE_RGB_CHROMATICITIES)
    assert load(tmp_path / "a.exr").pixels == pytest.approx(
        pixels @ ADOBE_RGB.to_rec709.T, rel=1e-4, abs=1e-4
    )


def test_exr_alpha_layers_grey_and_oddly_typed_attributes(tmp_path: Path) -> None:
    pixels = scene().pixels
    red, green, blue = (np.ascontiguousarray(pixels[..., k]) for k in range(3))
    half = np.zeros_like(red)
    layers = {"zz.long.R": half, "zz.long.G": half, "zz.long.B": half, "A": half, "depth.Z": half}
    beauty = {"beauty.R": red, "beauty.G": green, "beauty.B": blue}
    write_channels(tmp_path / "a.exr", layers | beauty, expTime="long", cameraMake=3.0)
    found = load(tmp_path / "a.exr")
    assert np.array_equal(found.pixels, pixels)
    assert (found.reference.exposure_time, found.reference.camera_make) == (None, "")
    write_channels(tmp_path / "y.exr", {"Y": red, "A": half})
    assert np.array_equal(load(tmp_path / "y.exr").pixels, np.stack([red] * 3, axis=2))


def test_values_that_are_no_number_are_invalid_and_black(tmp_path: Path) -> None:
    pixels = scene().pixels
    pixels[2, 3, 1], pixels[4, 5, 0] = np.nan, np.inf
    write_channels(tmp_path / "a.exr", {c: np.ascontiguousarray(pixels[..., k]) for k, c in enumerate("RGB")})
    found = load(tmp_path / "a.exr")
    assert np.argwhere(~found.valid).tolist() == [[2, 3], [4, 5]]
    assert np.abs(found.pixels[~found.valid]).max() == 0.0
    assert found.pixels.max() == pixels[found.valid].max()


def test_exr_without_colour_is_refused(tmp_path: Path) -> None:
    write_channels(tmp_path / "a.exr", {"Z": np.ones((4, 4), np.float32)})
    with pytest.raises(InputError, match="has no float channels R, G, B"):
        load(tmp_path / "a.exr")
    write_channels(tmp_path / "b.exr", {c: np.ones((4, 4), np.uint32) for c in "RGB"})
    with pytest.raises(InputError, match="has no float channels R, G, B"):
        load(tmp_path / "b.exr")


def hdr(pixels: np.ndarray, *lines: str, axes: str = "-Y {} +X {}") -> bytes:
    head = "\n".join(("#?RGBE", *lines, "", axes.format(*pixels.shape[:2]), ""))
    return head.encode() + rgbe.encode(pixels)


def test_hdr_exposure_primaries_and_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.hdr"
    pixels = np.random.default_rng(0).integers(64, 128, (9, 12, 3)).astype(np.float32)
    pixels[..., 0] = 128
    path.write_bytes(hdr(pixels, "FORMAT=32-bit_rle_rgbe", "EXPOSURE=2", "EXPOSURE= 4.0"))
    assert np.array_equal(load(path).pixels, pixels / 8)
    path.write_bytes(hdr(pixels, axes="+Y {} +X {}"))
    assert np.array_equal(load(path).pixels, pixels[::-1])
    path.write_bytes(hdr(pixels, axes="-Y {} -X {}"))
    assert np.array_equal(load(path).pixels, pixels[:, ::-1])
    path.write_bytes(hdr(pixels, f"PRIMARIES={' '.join(map(str, ADOBE_RGB_CHROMATICITIES))}"))
    assert load(path).pixels == pytest.approx(pixels @ ADOBE_RGB.to_rec709.T, rel=1e-4)


def test_exr_of_impossible_primaries_is_refused(tmp_path: Path) -> None:
    planes = {c: np.ones((4, 4), np.float32) for c in "RGB"}
    write_channels(tmp_path / "a.exr", planes, chromaticities=(0.3,) * 6 + (0.3, 0.0))
    with pytest.raises(InputError, match="span no colours"):
        load(tmp_path / "a.exr")


@pytest.mark.parametrize(
    "data",
    [
        hdr(np.ones((9, 12, 3), np.float32), "FORMAT=32-bit_rle_xyze"),
        hdr(np.ones((9, 12, 3), np.float32), axes="+X {} -Y {}"),
        b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n",
        hdr(np.ones((9, 12, 3), np.float32), "EXPOSURE=bright"),
        hdr(np.ones((9, 12, 3), np.float32), "EXPOSURE=0"),
        hdr(np.ones((9, 12, 3), np.float32), "PRIMARIES=0.3 0.3"),
        hdr(np.ones((9, 12, 3), np.float32), "PRIMARIES=0 0 0 0 0 0 0 0"),
    ],
)
def test_hdr_that_cannot_be_used(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.hdr").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.hdr"):
        load(tmp_path / "a.hdr")


def test_foreign_float_tiffs(tmp_path: Path) -> None:
    pixels = scene().pixels
    with_alpha = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=2)
    tifffile.imwrite(
        tmp_path / "a.tif", with_alpha, photometric="rgb", extrasamples=["unassalpha"], byteorder=">"
    )
    assert np.array_equal(load(tmp_path / "a.tif").pixels, pixels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_photograph_is_no_radiance_file(tmp_path: Path, dtype: type) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((9, 8, 3), dtype), photometric="rgb")
    with pytest.raises(InputError, match="is no float RGB TIFF"):
        load(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.exr", "a.hdr", "a.tif"])  # the TIFF ends with its directories
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97])
def test_files_that_end_early(
    tmp_path: Path, name: str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    write(scene(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError) as caught:
        load(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_threads_that_load_leave_stdout_alone(tmp_path: Path) -> None:
    write(scene(200, 300), tmp_path / "a.exr")
    before = sys.stdout
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(load, [tmp_path / "a.exr"] * 40))
    assert sys.stdout is before
    assert all(np.array_equal(found.pixels, maps[0].pixels) for found in maps)


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.exr").write_text("hello")
    for name, found in (("text.exr", "no radiance file"), ("", "is a folder"), ("none.exr", "No such file")):
        with pytest.raises(InputError, match=found):
            load(tmp_path / name)
