"""Metadata of real formats and of odd cameras, read without a pixel being decoded."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import exifread
import numpy as np
import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from hdrmerge import metadata
from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.metadata import read_shot
from hdrmerge.simulate import Camera
from hdrmerge.simulate_files import exif_of, record_mosaic, write_dng
from hdrmerge.write import write

SHOT = Shot(
    path=Path("a.jpg"),
    width=24,
    height=16,
    exposure_time=1 / 60,
    iso=400.0,
    f_number=5.6,
    taken_at=datetime(2024, 6, 1, 21, 30, 5, 250_000),
    camera_make="Maker",
    camera_model="Model 1",
    orientation=6,
    source="exif",
)


def picture(height: int = 16, width: int = 24) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), 99, np.uint8))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.heic"])
def test_what_was_written_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".heic":
        heif = pytest.importorskip("pillow_heif").from_pillow(picture())
        heif.save(path, exif=exif_of(SHOT).tobytes())
    else:
        picture().save(path, exif=exif_of(SHOT))
    found = read_shot(path)
    assert found.exposure_time == pytest.approx(1 / 60, rel=1e-6)
    assert found.f_number == pytest.approx(5.6)
    assert (found.iso, found.taken_at, found.source) == (400.0, SHOT.taken_at, "exif")
    assert (found.camera_make, found.camera_model) == ("Maker", "Model 1")
    # libheif turns pictures itself; of the others, size and orientation are as stored.
    turned = (16, 24, 1) if name == "a.heic" else (24, 16, 6)
    assert (found.width, found.height, found.orientation) == turned


def test_merged_tiffs_are_read_as_photographs(tmp_path: Path) -> None:
    pixels = np.full((16, 24, 3), 0.5, np.float32)
    write(RadianceMap(pixels, pixels[..., 0] > 0, SHOT), tmp_path / "a.tif")
    found = read_shot(tmp_path / "a.tif")
    assert (found.width, found.height, found.orientation) == (24, 16, 1)
    assert found.exposure == pytest.approx(1 / 60 * 4 / 5.6**2, rel=1e-4)
    assert (found.taken_at, found.camera_model) == (SHOT.taken_at.replace(microsecond=0), "Model 1")
    assert found.software.startswith("hdrmerge ")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_raw_shots_are_upright(tmp_path: Path, orientation: int) -> None:
    camera = Camera(bits=14)
    codes = record_mosaic(np.full((32, 48, 3), 0.3, np.float32), camera, 100.0, None)
    shot = Shot(**{**vars(SHOT), "path": tmp_path / "a.dng", "orientation": orientation})
    write_dng(shot.path, codes, shot, camera)
    found = read_shot(shot.path)
    assert (found.width, found.height) == ((32, 48) if orientation >= 5 else (48, 32))
    assert found.orientation == 1
    assert found.exposure == pytest.approx(1 / 60 * 4 / 5.6**2, rel=1e-4)
    assert found.taken_at == SHOT.taken_at


def test_no_metadata_is_no_error(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.tif"):
        picture().save(tmp_path / name)
        assert read_shot(tmp_path / name) == Shot(path=tmp_path / name, width=24, height=16)


def exif_with(**values: Any) -> Image.Exif:
    exif = Image.Exif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in values.items():
        details[getattr(ExifTags.Base, name)] = value
    return exif


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # APEX: t = 2^-Tv, N = 2^(Av/2)
        (
            {"ShutterSpeedValue": IFDRational(6), "ApertureValue": IFDRational(5)},
            {"exposure_time": 1 / 64, "f_number": 5.65685425},
        ),
        ({"ShutterSpeedValue": IFDRational(-2)}, {"exposure_time": 4.0}),
        ({"ShutterSpeedValue": IFDRational(5000)}, {"exposure_time": None}),
        ({"ExposureTime": IFDRational(1, 50), "ShutterSpeedValue": IFDRational(6)}, {"exposure_time": 0.02}),
        # 0 stands for unknown
        ({"ExposureTime": IFDRational(0, 1)}, {"exposure_time": None, "source": "none"}),
        ({"FNumber": IFDRational(0, 1)}, {"f_number": None}),
        ({"FNumber": IFDRational(0, 1), "ApertureValue": IFDRational(2)}, {"f_number": 2.0}),
        ({"FNumber": IFDRational(0, 0)}, {"f_number": None}),
        # 65535: look elsewhere
        ({"ISOSpeedRatings": 65535, "RecommendedExposureIndex": 102400}, {"iso": 102400.0}),
        ({"ISOSpeedRatings": 65535}, {"iso": None}),
        ({"ISOSpeedRatings": 0}, {"iso": None}),
        ({"ISOSpeed": 800}, {"iso": 800.0}),
        # times
        ({"DateTimeOriginal": "2020:01:02 03:04:05"}, {"taken_at": datetime(2020, 1, 2, 3, 4, 5)}),
        (
            {"DateTimeOriginal": "2020:01:02 03:04:05", "SubsecTimeOriginal": "07"},
            {"taken_at": datetime(2020, 1, 2, 3, 4, 5, 70_000)},
        ),
        ({"DateTimeOriginal": "    :  :     :  :  "}, {"taken_at": None}),
        ({"DateTimeOriginal": "0000:00:00 00:00:00"}, {"taken_at": None}),
        # bracketing
        ({"ExposureMode": 0}, {"exposure_mode": "auto"}),
        ({"ExposureMode": 1}, {"exposure_mode": "manual"}),
        ({"ExposureMode": 2}, {"exposure_mode": "bracket"}),
        ({"ExposureMode": 7}, {"exposure_mode": None}),
        ({}, {"exposure_mode": None, "exposure_bias": None, "camera_serial": "", "software": ""}),
        ({"ExposureBiasValue": IFDRational(-7, 10)}, {"exposure_bias": -0.7}),
        ({"ExposureBiasValue": IFDRational(0, 10)}, {"exposure_bias": 0.0}),
        ({"ExposureBiasValue": IFDRational(0, 0)}, {"exposure_bias": None}),
        ({"ExposureBiasValue": IFDRational(-2147483648, 1)}, {"exposure_bias": None}),
        ({"BodySerialNumber": "0012 34\0"}, {"camera_serial": "0012 34"}),
        ({"LensModel": "EF 50mm \r\n f/1.8"}, {"lens": "EF 50mm f/1.8"}),
        ({"FocalLength": IFDRational(85, 10)}, {"focal_length": 8.5}),
    ],
)
def test_odd_values(tmp_path: Path, values: dict[str, Any], expected: dict[str, Any]) -> None:
    path = tmp_path / "a.jpg"
    picture().save(path, exif=exif_with(**values))
    found = read_shot(path)
    for name, value in expected.items():
        assert getattr(found, name) == (pytest.approx(value) if isinstance(value, float) else value), name


def test_the_program_that_wrote_a_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "Some Editor 1.0"
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_shot(tmp_path / "a.jpg").software == "Some Editor 1.0"


def test_the_time_of_a_file_without_an_original_time(tmp_path: Path) -> None:
    exif = exif_with(SubsecTime="5", SubsecTimeOriginal="9")
    exif[ExifTags.Base.DateTime] = "2020:01:02 03:04:05"
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_shot(tmp_path / "a.jpg").taken_at == datetime(2020, 1, 2, 3, 4, 5, 500_000)


@pytest.mark.parametrize("orientation", [0, 9, 1000])
def test_orientations_that_do_not_exist_mean_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_shot(tmp_path / "a.jpg").orientation == 1


def test_old_raw_files_keep_exposures_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a Nikon D1 does: ISO in the maker note as [0, 200], the rest in the main directory."""

    def process_file(file: Any, details: bool) -> dict[str, Any]:
        tags = {
            "Image ExposureTime": [exifread.utils.Ratio(1, 250)],
            "Image FNumber": [exifread.utils.Ratio(38, 5)],
        }
        if details:
            tags["MakerNote ISOSetting"] = [0, 200]
        return {name: SimpleNamespace(values=values) for name, values in tags.items()}

    monkeypatch.setattr(metadata.exifread, "process_file", process_file)
    picture().save(tmp_path / "a.jpg")
    found = read_shot(tmp_path / "a.jpg")
    assert (found.exposure_time, found.iso, found.f_number) == (0.004, 200.0, 7.6)


@pytest.mark.parametrize("known", [False, True])
def test_libraw_is_asked_for_what_exifread_cannot_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """As for CR3. Asking unpacks all pixels, so that nothing is asked where the tags have it."""
    asked = []

    class Raw:
        sizes = SimpleNamespace(iwidth=30, iheight=20, flip=5)

        @property
        def other(self) -> SimpleNamespace:
            asked.append(True)
            return SimpleNamespace(
                shutter_speed=0.01,
                iso_speed=200.0,
                aperture=0.0,
                focal_length=35.0,
                timestamp=datetime(2021, 1, 1),
            )

    @contextmanager
    def open_raw(path: Path) -> Any:
        yield Raw()

    monkeypatch.setattr(metadata, "open_raw", open_raw)
    camera = Camera(bits=14)
    codes = record_mosaic(np.full((32, 48, 3), 0.3, np.float32), camera, 100.0, None)
    path = tmp_path / "a.dng"
    write_dng(path, codes, SHOT if known else Shot(path), camera)
    found = read_shot(path)
    assert (found.width, found.height, found.orientation) == (20, 30, 1)
    if known:
        assert (found.iso, asked) == (400.0, [])
    else:
        assert (found.exposure_time, found.iso, found.f_number, found.focal_length) == (
            0.01,
            200.0,
            None,
            35.0,
        )
        assert (found.taken_at, found.source) == (datetime(2021, 1, 1), "exif")


def test_libraw_reads_what_a_dng_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = Camera(bits=14)
    codes = record_mosaic(np.full((32, 48, 3), 0.3, np.float32), camera, 100.0, None)
    write_dng(tmp_path / "a.dng", codes, SHOT, camera)
    monkeypatch.setattr(metadata.exifread, "process_file", lambda file, details: {})
    found = read_shot(tmp_path / "a.dng")
    assert (found.exposure_time, found.f_number) == (pytest.approx(1 / 60), pytest.approx(5.6))


def test_metadata_come_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("pixels were decoded")

    camera = Camera(bits=14)
    codes = record_mosaic(np.full((32, 48, 3), 0.3, np.float32), camera, 100.0, None)
    write_dng(tmp_path / "a.dng", codes, SHOT, camera)
    for name in ("a.jpg", "a.png"):
        picture().save(tmp_path / name, exif=exif_of(SHOT))
    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("cv2.imdecode", decode)

    for name in ("a.jpg", "a.png", "a.dng"):
        assert read_shot(tmp_path / name).iso == 400.0


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # shown to callers, not on the command line
def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """exifread and tifffile remark on damaged files; here damage is either harmless or raised."""
    path = tmp_path / "a.jpg"
    picture().save(path, exif=exif_of(SHOT))
    data = path.read_bytes()
    at = data.index(b"Exif\0\0")
    for offset in range(6, 120):
        path.write_bytes(data[: at + offset] + b"\xff" + data[at + offset + 1 :])
        assert (read_shot(path).width, read_shot(path).height) == (24, 16)
    picture().save(tmp_path / "b.jpg")
    read_shot(tmp_path / "b.jpg")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert not [record for record in caplog.records if record.levelno < logging.CRITICAL]
