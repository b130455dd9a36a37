from __future__ import annotations

import math
from pathlib import Path

import exifread
import numpy as np
import pytest
import rawpy
from PIL import Image, JpegImagePlugin

from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera, Simulated, plan_shots, simulate_bracket
from hdrmerge.simulate_files import (
    AS_SHOT_NEUTRAL,
    REC709_TO_XYZ,
    colour_matrix,
    rec709_to_camera,
    record_mosaic,
    write_dng,
    write_dngs,
    write_jpegs,
    write_pngs,
)

SIZE = 96, 128
CAMERA = Camera(bits=14)


@pytest.fixture(scope="module")
def sim(ramp: np.ndarray) -> Simulated:
    return simulate_bracket(ramp, np.random.default_rng(2), size=SIZE)


# --- JPEG and PNG ----------------------------------------------------------------------------------


def test_jpegs_carry_their_exposure(sim: Simulated, tmp_path: Path) -> None:
    paths = write_jpegs(sim, tmp_path / "new", prefix="DSC")
    assert [path.name for path in paths] == ["DSC0001.jpg", "DSC0002.jpg", "DSC0003.jpg"]
    for path, shot, codes in zip(paths, sim.shots, sim.frames, strict=True):
        with path.open("rb") as file:
            tags = exifread.process_file(file, details=False)
        (time,) = tags["EXIF ExposureTime"].values
        assert float(time) == pytest.approx(shot.exposure_time, rel=1e-6)
        assert float(tags["EXIF FNumber"].values[0]) == 8.0
        assert tags["EXIF ISOSpeedRatings"].values == [100]
        assert tags["Image Orientation"].values == [1]
        assert (str(tags["Image Make"]), str(tags["Image Model"])) == ("hdrmerge", "Simulated")
        taken = f"{tags['EXIF DateTimeOriginal']}.{tags['EXIF SubSecTimeOriginal']}"
        assert taken == f"{shot.taken_at:%Y:%m:%d %H:%M:%S}.{shot.taken_at.microsecond // 1000:03d}"
        with Image.open(path) as picture:
            assert JpegImagePlugin.get_sampling(picture) == 0  # 4:4:4
            assert np.abs(np.asarray(picture, np.float32) - codes).mean() < 2


def test_pngs_are_lossless(sim: Simulated, tmp_path: Path) -> None:
    for path, codes in zip(write_pngs(sim, tmp_path), sim.frames, strict=True):
        with Image.open(path) as picture:
            assert np.array_equal(np.asarray(picture), codes)
            assert float(picture.getexif().get_ifd(0x8769)[33434]) > 0


def test_14_bits_do_not_go_into_a_jpeg(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(0), size=(16, 16), camera=CAMERA)
    with pytest.raises(ValueError, match="8 bits"):
        write_jpegs(sim, tmp_path)


# --- DNG -------------------------------------------------------------------------------------------


def smooth_radiance() -> np.ndarray:
    """Radiance 0.1 to 0.85 with a different gradient in every channel."""
    y, x = np.mgrid[0:1:96j, 0:1:128j]
    return np.float32(np.dstack([0.1 + 0.7 * x, 0.05 + 0.8 * y, 0.6 - 0.5 * x]))


@pytest.fixture
def dng(tmp_path: Path) -> Path:
    path = tmp_path / "a.dng"
    (shot,) = plan_shots(SIZE, 1, 0.0, 0, CAMERA, time=1 / 60)
    write_dng(path, record_mosaic(smooth_radiance(), CAMERA, 100, rng=None), shot, CAMERA)
    return path


def test_white_of_one_saturates_green_alone() -> None:
    assert rec709_to_camera() @ np.ones(3) == pytest.approx(AS_SHOT_NEUTRAL)
    codes = record_mosaic(np.ones((2, 2, 3), np.float32), CAMERA, 100, rng=None)
    assert codes.tolist() == [[512 + 7936, 16383], [16383, 512 + 9919]]


def test_the_colour_matrix_takes_d65_white_to_the_neutral() -> None:
    assert colour_matrix() @ REC709_TO_XYZ @ np.ones(3) == pytest.approx(AS_SHOT_NEUTRAL)


def test_libraw_reads_the_levels_and_colours(dng: Path) -> None:
    with rawpy.imread(str(dng)) as raw:
        assert raw.black_level_per_channel == [512] * 4
        assert raw.white_level == 16383
        assert raw.camera_whitebalance[:3] == pytest.approx([2.0, 1.0, 1.6])
        assert raw.raw_image_visible.shape == SIZE
        assert raw.raw_pattern.tolist() == [[0, 1], [3, 2]]  # 1 and 3 are the two greens
        # LibRaw keeps the matrix of a camera it does not know as balanced camera RGB -> Rec. 709.
        expected = np.linalg.inv(np.diag(1 / np.array(AS_SHOT_NEUTRAL)) @ rec709_to_camera())
        assert raw.color_matrix[:, :3] == pytest.approx(expected, abs=2e-3)


def test_a_linear_development_returns_the_radiance(dng: Path) -> None:
    with rawpy.imread(str(dng)) as raw:
        codes = raw.postprocess(
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(1, 1),
            no_auto_bright=True,
            output_bps=16,
            use_camera_wb=True,
            adjust_maximum_thr=0.0,
        )
    inner = np.s_[4:-4, 4:-4]  # demosaicing guesses at the border
    assert codes[inner] / 65535 == pytest.approx(smooth_radiance()[inner], rel=0.01)


def test_exposure_and_time_are_in_the_file(dng: Path) -> None:
    with dng.open("rb") as file:
        tags = exifread.process_file(file, details=False)
    (time,) = tags["Image ExposureTime"].values
    assert (time.num, time.den) == (1, 60)
    assert float(tags["Image FNumber"].values[0]) == 8.0
    assert tags["Image ISOSpeedRatings"].values == [100]
    assert tags["Image Orientation"].values == [1]
    assert str(tags["Image DateTimeOriginal"]) == "2024:06:01 12:00:00"


def test_noise_is_that_of_each_photosite() -> None:
    flat = np.full((200, 200, 3), 0.5, np.float32)
    linear = CAMERA.decode(record_mosaic(flat, CAMERA, 400, np.random.default_rng(0)))
    noise, step = CAMERA.noise(400), 1 / (16383 - 512)
    for rows, columns, level in ((0, 0, 0.25), (0, 1, 0.5), (1, 0, 0.5), (1, 1, 0.3125)):
        sites = linear[rows::2, columns::2]
        expected = float(noise.variance(np.float32(level))) + step**2 / 12
        assert sites.mean() == pytest.approx(level, abs=5 * math.sqrt(expected / sites.size))
        assert sites.var() == pytest.approx(expected, rel=0.06)


def test_a_bracket_becomes_one_file_a_frame(tmp_path: Path) -> None:
    scene = ramp_scene(160, 200, np.random.default_rng(0))
    sim = simulate_bracket(scene, np.random.default_rng(1), size=SIZE, saturated_share=0.05)
    paths = write_dngs(sim, tmp_path, np.random.default_rng(2))
    assert [path.name for path in paths] == ["IMG_0001.dng", "IMG_0002.dng", "IMG_0003.dng"]
    for path, view, ratio in zip(paths, sim.views, sim.relative_exposures, strict=True):
        with rawpy.imread(str(path)) as raw:
            photosites = CAMERA.decode(raw.raw_image_visible.copy())
        green = (view @ rec709_to_camera()[1]).astype(np.float32) * np.float32(ratio)
        expected = np.minimum(green[0::2, 1::2], 1.0)
        assert photosites[0::2, 1::2] == pytest.approx(expected, abs=0.04)
        assert np.abs(photosites[0::2, 1::2] - expected).mean() < 0.004


def test_a_mosaic_needs_even_sides(tmp_path: Path) -> None:
    (shot,) = plan_shots((4, 3), 1, 0.0, 0, CAMERA)
    with pytest.raises(ValueError, match="not 3 x 4"):
        write_dng(tmp_path / "a.dng", np.zeros((4, 3), np.uint16), shot, CAMERA)
