"""RAW files of which every photosite is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile

from hdrmerge import raw
from hdrmerge.bracket import Frame, Shot
from hdrmerge.errors import InputError
from hdrmerge.metadata import read_shot
from hdrmerge.pipeline import MergeOptions, merge_bracket
from hdrmerge.read import read_frame
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera, add_noise
from hdrmerge.simulate_files import (
    AS_SHOT_NEUTRAL,
    colour_matrix,
    mosaic,
    rec709_to_camera,
    record_mosaic,
    write_dng,
)

CAMERA = Camera(bits=14)
HEIGHT, WIDTH = 128, 192
WHITE = 16383


def shot_of(path: Path, time: float = 1 / 60) -> Shot:
    return Shot(path, exposure_time=time, iso=100.0, f_number=8.0)


def write_light(path: Path, linear: np.ndarray, time: float = 1 / 60, seed: int | None = 0) -> Shot:
    """Write a DNG of Rec. 709 light, 1.0 of white saturates green; read its metadata back."""
    rng = None if seed is None else np.random.default_rng(seed)
    write_dng(path, record_mosaic(linear.astype(np.float32), CAMERA, 100.0, rng), shot_of(path, time), CAMERA)
    return read_shot(path)


def light_of(frame: Frame) -> np.ndarray:
    return frame.linear() @ frame.to_rec709.T


def grey(level: float) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.float32)


def rewrite(path: Path, codes: np.ndarray, photometric: str | int = "cfa", **changed: Any) -> Shot:
    """Write a DNG with other tags than `write_dng` does; a list of black levels is a 2 x 2 pattern."""
    black = changed.get("black", 512)
    samples = 1 if codes.ndim == 2 else 3
    ratios = [round(v * 10000) for v in colour_matrix().ravel()]
    tags = [
        (50706, 1, 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50708, 2, 0, "Maker Model", True),
        (50717, 4, samples, (WHITE,) * samples, True),
        (33434, 5, 1, (1, 60), True),
        (34855, 3, 1, 100, True),
    ]
    if photometric == "cfa":
        tags += [(33421, 3, 2, (2, 2), True), (33422, 1, 4, bytes((0, 1, 1, 2)), True)]
    if isinstance(black, list):
        tags += [(50713, 3, 2, (2, 2), True), (50714, 3, 4, tuple(black), True)]
    else:
        tags += [(50714, 3, samples, (black,) * samples, True)]
    if photometric != "minisblack":
        tags += [
            (50721, 10, 9, tuple(part for value in ratios for part in (value, 10000)), True),
            (50728, 5, 3, tuple(part for v in AS_SHOT_NEUTRAL for part in (round(v * 1000), 1000)), True),
            (50778, 3, 1, 21, True),
        ]
    tifffile.imwrite(path, codes, photometric=photometric, extratags=tags, metadata=None, software=False)
    if photometric == "minisblack":
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags["PhotometricInterpretation"].overwrite(34892)  # LinearRaw, one channel
    return read_shot(path)


# --- light ----------------------------------------------------------------------------------------


def test_light_comes_back_as_recorded(tmp_path: Path) -> None:
    scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3)) / 4
    shot = write_light(tmp_path / "a.dng", scene, seed=None)
    frame = read_frame(shot)
    assert (frame.codes.dtype, frame.codes.shape) == (np.uint16, (HEIGHT, WIDTH, 3))
    assert frame.response.is_linear
    ratio = light_of(frame)[8:-8, 8:-8] / scene[8:-8, 8:-8]
    assert np.median(ratio, axis=(0, 1)) == pytest.approx([1, 1, 1], rel=2e-3)
    assert np.abs(ratio - 1).mean() < 0.06  # a mosaic of such detail cannot be undone exactly


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.9, 0.95, 0.99])
def test_no_frame_is_brightened(tmp_path: Path, share: float) -> None:
    """LibRaw would take a maximum of 80 to 99 % of white for saturation, and scale by up to 0.29 EV."""
    scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3), low=0.01, high=1.0)
    scene *= share / (scene @ rec709_to_camera().T.astype(np.float32)).max()
    frame = read_frame(write_light(tmp_path / "a.dng", scene))
    assert frame.clip == 1.0
    assert np.median(light_of(frame) / scene) == pytest.approx(1.0, rel=3e-3)


def test_the_noise_model_is_the_sensors(tmp_path: Path) -> None:
    frame = read_frame(write_light(tmp_path / "a.dng", grey(0.4)))
    assert frame.noise == CAMERA.noise(100.0)
    sites = record_mosaic(grey(0.4), CAMERA, 100.0, np.random.default_rng(5))[0::2, 1::2]  # green
    linear = (sites - 512.0) / (WHITE - 512)
    assert linear.var() == pytest.approx(float(frame.noise.variance(np.float32(0.4))), rel=0.05)


@pytest.mark.parametrize("black", [[512, 512, 512, 512], [500, 512, 512, 1500], [0, 1500, 1500, 1200]])
def test_every_channel_has_its_black_level(tmp_path: Path, black: list[int]) -> None:
    """LibRaw scales all channels by the lowest black level; a channel then saturates below full range."""
    level = np.empty((HEIGHT, WIDTH))
    for value, (row, column) in zip(black, np.ndindex(2, 2), strict=True):
        level[row::2, column::2] = value
    signal = mosaic(grey(0.4) @ rec709_to_camera().T.astype(np.float32))
    shot = rewrite(
        tmp_path / "a.dng", np.rint(signal * (WHITE - level) + level).astype(np.uint16), black=black
    )
    frame = read_frame(shot)
    assert frame.linear()[8:-8, 8:-8].mean(axis=(0, 1)) == pytest.approx([0.2, 0.4, 0.25], rel=1e-3)
    assert light_of(frame)[8:-8, 8:-8].mean(axis=(0, 1)) == pytest.approx([0.4] * 3, rel=2e-3)
    full = np.full((HEIGHT, WIDTH), WHITE, np.uint16)
    full[:8] = 1600
    saturated = read_frame(rewrite(tmp_path / "b.dng", full, black=black)).linear()[20:-8, 8:-8]
    assert np.abs(saturated - 1).max() < 1e-3


# --- saturation -----------------------------------------------------------------------------------


def write_clipping_at(path: Path, linear: np.ndarray, level: float, seed: int) -> Shot:
    """Write what a sensor records that saturates at ``level`` of its stated white level."""
    photosites = mosaic(linear @ rec709_to_camera().T.astype(np.float32))
    noisy = add_noise(photosites, CAMERA.noise(100.0), np.random.default_rng(seed))
    write_dng(path, CAMERA.encode(np.minimum(noisy, level)), shot_of(path), CAMERA)
    return read_shot(path)


@pytest.mark.parametrize("level", [0.85, 0.97, 1.0])
def test_a_sensor_that_saturates_early_is_found_out(tmp_path: Path, level: float) -> None:
    scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3), low=0.02, high=2.0)
    scene[40:90, 60:120] = 5.0
    frame = read_frame(write_clipping_at(tmp_path / "a.dng", scene, level, 0))
    assert level - 0.003 < frame.clip <= level
    assert frame.linear()[46:84, 66:114].min() >= frame.clip


@pytest.mark.parametrize("share", [0.8, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("kind", ["ramp", "sky", "lamp"])
def test_bright_is_not_saturated(tmp_path: Path, share: float, kind: str) -> None:
    """However much of the frame is bright, photon noise spreads it: no spike, nothing clipped."""
    if kind == "ramp":
        scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3), low=0.01, high=1.0)
    else:
        scene = grey(0.05)
        scene[: HEIGHT // 2 if kind == "sky" else 20, : WIDTH if kind == "sky" else 20] = 1.0
    scene *= share * 0.98 / (scene @ rec709_to_camera().T.astype(np.float32)).max()
    assert read_frame(write_light(tmp_path / "a.dng", scene)).clip == 1.0


def test_no_magenta_where_a_sensor_saturates_early(tmp_path: Path) -> None:
    scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3), low=0.05, high=1.0)
    scene[40:90, 100:160] = 40.0  # white, beyond both frames
    paths = []
    for name, gain in (("a.dng", 0.5), ("b.dng", 2.0)):
        write_clipping_at(tmp_path / name, scene * gain, 0.97, len(paths))
        paths.append(tmp_path / name)
    for path, time in zip(paths, ((1, 60), (1, 15)), strict=True):
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags["ExposureTime"].overwrite(time)
    radiance, _ = merge_bracket(paths, MergeOptions(align="none", deghost="none"))
    lamp = radiance.pixels[46:84, 106:154].reshape(-1, 3)
    assert not radiance.valid[46:84, 106:154].any()
    assert (lamp.max(axis=1) / lamp.min(axis=1)).max() < 1.05
    assert lamp.min() > 0.9


# --- white balance --------------------------------------------------------------------------------


def test_the_white_balance_of_the_reference_serves_all_frames(tmp_path: Path) -> None:
    shots = [write_light(tmp_path / name, grey(0.4), seed=None) for name in ("a.dng", "b.dng")]
    with tifffile.TiffFile(tmp_path / "b.dng", mode="r+b") as tiff:  # the camera has changed its mind
        tiff.pages[0].tags["AsShotNeutral"].overwrite((25, 100, 1, 1, 40, 100))
    own, shared = read_frame(shots[1]), read_frame(shots[1], reference=shots[0])
    reference = read_frame(shots[0], reference=shots[0])
    assert np.array_equal(shared.to_rec709, reference.to_rec709)
    assert light_of(shared)[9, 9] == pytest.approx([0.4] * 3, rel=2e-3)
    assert light_of(own)[9, 9, 0] > 1.5 * light_of(own)[9, 9, 1]
    # What the sensor recorded is the same under any balance.
    assert own.linear()[9, 9] == pytest.approx(shared.linear()[9, 9], rel=1e-3)


def test_daylight_where_the_camera_recorded_no_balance() -> None:
    file = SimpleNamespace(camera_whitebalance=[0, 1, 0, 0], daylight_whitebalance=[2.0, 0.5, 1.0, 0.0])
    assert raw._white_balance(file).tolist() == [4.0, 1.0, 2.0]
    file.daylight_whitebalance = [0.0] * 4
    assert raw._white_balance(file).tolist() == [1.0, 1.0, 1.0]


# --- other sensors --------------------------------------------------------------------------------


def test_a_monochrome_sensor(tmp_path: Path) -> None:
    linear = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3))[..., 0] / 4
    codes = np.rint(np.clip(linear, 0, 1) * (WHITE - 512) + 512).astype(np.uint16)
    frame = read_frame(rewrite(tmp_path / "a.dng", codes, "minisblack"))
    assert np.abs(light_of(frame) - np.clip(linear, 0, 1)[..., None]).max() < 1e-4


def test_a_dng_without_a_mosaic(tmp_path: Path) -> None:
    scene = ramp_scene(HEIGHT, WIDTH, np.random.default_rng(3)) / 4
    camera_rgb = np.clip(scene @ rec709_to_camera().T.astype(np.float32), 0, 1)
    codes = np.rint(camera_rgb * (WHITE - 512) + 512).astype(np.uint16)
    frame = read_frame(rewrite(tmp_path / "a.dng", codes, 34892))
    assert np.abs(frame.linear() - camera_rgb).max() < 2e-4
    inside = camera_rgb.max(axis=-1) < 1
    assert np.allclose(light_of(frame)[inside], scene[inside], rtol=0.01, atol=2e-3)
    assert frame.clip == 1.0 if (camera_rgb < 0.99).all() else frame.clip > 0.99


@pytest.mark.parametrize("code", [0, 512, WHITE])
def test_a_file_without_a_picture_is_an_error(tmp_path: Path, code: int) -> None:
    write_dng(tmp_path / "a.dng", np.full((HEIGHT, WIDTH), code, np.uint16), shot_of(tmp_path), CAMERA)
    with pytest.raises(InputError, match=rf"a\.dng: every photosite reads {code}, no picture in it; copy"):
        read_frame(read_shot(tmp_path / "a.dng"))


def test_a_white_level_below_black_is_an_error(tmp_path: Path) -> None:
    camera = Camera(bits=14, black_level=512, white_level=600)
    codes = record_mosaic(grey(0.4), CAMERA, 100.0, np.random.default_rng(0))
    write_dng(tmp_path / "a.dng", codes, shot_of(tmp_path), camera)
    with tifffile.TiffFile(tmp_path / "a.dng", mode="r+b") as tiff:
        tiff.pages[0].tags["WhiteLevel"].overwrite(500)
    with pytest.raises(InputError, match="white level 500 is not above black"):
        read_frame(read_shot(tmp_path / "a.dng"))


def test_what_libraw_cannot_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    path.write_bytes(b"MM\0*" + bytes(5000))
    with pytest.raises(
        InputError, match=r"a\.nef: LibRaw cannot read it \(.+\); copy it again or convert"
    ) as caught:
        read_shot(path)
    assert "b'" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- hot pixels -----------------------------------------------------------------------------------


def test_hot_photosites_of_long_exposures(tmp_path: Path) -> None:
    scene = grey(0.02)
    scene[60:62, 120:122] = 0.9  # a lamp, as sharp as lenses are
    photosites = record_mosaic(scene, CAMERA, 100.0, np.random.default_rng(0))
    hot = [(20, 30), (40, 71), (81, 51), (2, 2), (127, 191)]
    sick = photosites.copy()
    for row, column in hot:
        sick[row, column] = 15000
    for name, codes in (("healthy.dng", photosites), ("sick.dng", sick)):
        write_dng(tmp_path / name, codes, shot_of(tmp_path, 4.0), CAMERA)
    healthy, sick_frame = (light_of(read_frame(read_shot(tmp_path / n))) for n in ("healthy.dng", "sick.dng"))
    for row, column in hot:
        around = np.s_[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        assert sick_frame[around] == pytest.approx(healthy[around], abs=0.01)
    assert healthy[60:62, 120:122].mean() > 0.45
    short = read_frame(replace(read_shot(tmp_path / "sick.dng"), exposure_time=1 / 60))
    assert light_of(short)[38:43, 69:74].max() > 0.2


def test_stars_are_no_hot_photosites(tmp_path: Path) -> None:
    """A star of 2 px at half its height, centred on a photosite of any colour, stays as bright as it is."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    light = np.full((HEIGHT, WIDTH), 0.005, np.float32)
    for row, column in ((20, 20), (20, 41), (41, 60), (41, 81)):
        light += 0.8 * np.exp(-4 * np.log(2) * ((y - row) ** 2 + (x - column) ** 2) / 2.0**2)
    scene = np.repeat(light[..., None], 3, axis=2)
    shots = [
        write_light(tmp_path / name, scene, time, seed=None)
        for name, time in (("a.dng", 4.0), ("b.dng", 0.1))
    ]
    long, short = (read_frame(shot).codes[:] for shot in shots)
    assert np.array_equal(long, short)


def retagged(path: Path, name: str, value: object) -> None:
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[name].overwrite(value)


@pytest.mark.parametrize(
    ("name", "value", "notes"),
    [
        ("AsShotNeutral", (1, 3, 1, 1, 1, 2), []),  # the balance may differ, the reference's counts
        ("BlackLevel", 516, []),  # masked photosites have noise
        ("ColorMatrix1", (9, 1, 0, 1, 0, 1) * 3, ["another colour matrix than a.dng"]),
        ("BlackLevel", 0, ["black and white level 0 and 16383, in a.dng 512 and 16383"]),
        ("WhiteLevel", 4095, ["black and white level 512 and 4095, in a.dng 512 and 16383"]),
        ("WhiteLevel", 2**22, ["black and white level 512 and 65535, in a.dng 512 and 16383"]),
    ],
)
def test_frames_of_one_sensor_that_differ_are_noted(
    tmp_path: Path, name: str, value: object, notes: list[str]
) -> None:
    shots = [write_light(tmp_path / file, grey(0.2), 1 / 60) for file in ("a.dng", "b.dng")]
    assert read_frame(shots[1], reference=shots[0]).notes == ()
    retagged(tmp_path / "b.dng", name, value)
    spoilt = read_frame(read_shot(tmp_path / "b.dng"), reference=shots[0])
    assert [note.partition(";")[0] for note in spoilt.notes] == notes
    other = replace(read_shot(tmp_path / "b.dng"), camera_model="another")
    assert read_frame(other, reference=shots[0]).notes == ()


def test_a_colour_matrix_that_has_no_inverse_is_none(tmp_path: Path) -> None:
    shot = write_light(tmp_path / "a.dng", grey(0.2), 1 / 60)
    retagged(tmp_path / "a.dng", "ColorMatrix1", (1, 1, 0, 1, 0, 1) * 3)
    frame = read_frame(shot)
    assert np.linalg.cond(frame.to_rec709) < 10
    assert np.isfinite(light_of(frame)).all()


@pytest.mark.parametrize("neutral", [(1, 1, 1, 10_000, 1, 1), (0, 1, 1, 1, 1, 1)])
def test_an_absurd_white_balance_is_none(tmp_path: Path, neutral: tuple[int, ...]) -> None:
    shot = write_light(tmp_path / "a.dng", grey(0.2), 1 / 60)
    retagged(tmp_path / "a.dng", "AsShotNeutral", neutral)
    with raw.open_raw(tmp_path / "a.dng") as file:
        assert raw._white_balance(file).max() < raw.LARGEST_BALANCE
    assert np.isfinite(light_of(read_frame(shot))).all()


def test_a_raw_file_that_is_gone_is_told_by_its_reason(tmp_path: Path) -> None:
    shot = write_light(tmp_path / "a.dng", grey(0.2), 1 / 60)
    shot.path.unlink()
    with pytest.raises(InputError, match=r"a\.dng: no such file; check the name"), raw.open_raw(shot.path):
        pass
