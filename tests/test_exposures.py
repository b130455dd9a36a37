"""What the networks of one photograph learn from: views, exposures, cameras, and real brackets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import write_scenes

from hdrmerge.errors import InputError
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.scene import perspective_view, ramp_scene
from hdrmerge.simulate import Camera, random_response
from hdrmerge.training import exposures
from hdrmerge.training.exposures import (
    QUALITY,
    STOPS,
    Backdrop,
    Exposures,
    MixedExposures,
    Recorder,
    SceneExposures,
    SeriesExposures,
    agree,
    draw_recorder,
    turned,
)
from hdrmerge.training.reexposure import encode
from hdrmerge.training.triplets import Series

SIZE = 64
STILL = NoiseModel(0.0, 0.0)


@pytest.fixture(scope="module")
def source() -> SceneExposures:
    """A panorama and two photographs."""
    shapes = ((128, 256), (180, 240), (100, 90))
    return SceneExposures(ramp_scene(*shape, np.random.default_rng(k)) for k, shape in enumerate(shapes))


def clipped(codes: np.ndarray) -> float:
    return float((codes.max(axis=-1) >= 1).mean())


# ------------------------------------------------------------------------------------- pairs


def test_pairs_are_two_photographs_of_eight_bits(source: SceneExposures) -> None:
    rng, apart = np.random.default_rng(0), []
    for _ in range(60):
        pair = source.draw(rng, SIZE)
        assert pair.codes.shape == (2, SIZE, SIZE, 3)
        assert pair.codes.dtype == np.float32
        assert np.abs(pair.codes * 255 - np.rint(pair.codes * 255)).max() < 1e-4
        assert pair.codes.min() >= 0
        assert pair.codes.max() <= 1
        assert pair.codes[0].mean() < pair.codes[1].mean()
        apart.append(pair.stops[1] - pair.stops[0])
    assert 0 < min(apart) < 0.4
    assert 3 < max(apart) <= 4
    assert len({round(2 * ev, 6) % 1 for ev in apart}) > 50


def test_nine_exposures_are_halves_of_a_stop_apart(source: SceneExposures) -> None:
    nine = SceneExposures([], nine=True)
    nine.backdrops = source.backdrops
    rng = np.random.default_rng(0)
    found = {float(np.diff(nine.draw(rng, 16).stops)[0]) for _ in range(200)}
    assert found == {0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0}
    assert "halves" in nine.describe()


def test_the_same_numbers_draw_the_same_pair(source: SceneExposures) -> None:
    one, same, other = (source.draw(np.random.default_rng(seed), SIZE) for seed in (3, 3, 4))
    assert np.array_equal(one.codes, same.codes)
    assert one.stops == same.stops
    assert not np.array_equal(one.codes, other.codes)


@pytest.mark.parametrize(("least", "most"), [exposures.CLIPPED, (0.4, 0.5)])
def test_of_the_brighter_photograph_so_much_is_clipped(
    source: SceneExposures, monkeypatch: pytest.MonkeyPatch, least: float, most: float
) -> None:
    """As metered by the patch; noise clips some more, or less."""
    monkeypatch.setattr(exposures, "WIDE", 0.0)
    monkeypatch.setattr(exposures, "SHORTER_METERED", 0.0)
    monkeypatch.setattr(exposures, "COMPRESSED", 0.0)
    metered = SceneExposures([], clipped=(least, most))
    metered.backdrops, rng = source.backdrops, np.random.default_rng(0)
    shares = [clipped(metered.draw(rng, SIZE).codes[1]) for _ in range(100)]
    assert 0.5 * least < min(shares)
    assert max(shares) < 1.5 * most
    assert float(np.median(shares)) == pytest.approx(math.sqrt(least * most), rel=0.3)


def test_some_shorter_photographs_are_clipped_too(
    source: SceneExposures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposures, "WIDE", 0.0)
    rng = np.random.default_rng(0)
    pairs = [source.draw(rng, SIZE) for _ in range(100)]
    metered = [pair for pair in pairs if pair.stops[0] == 0]
    assert 10 < len(metered) < 40
    assert all(np.diff(pair.stops)[0] <= exposures.SHORTER_WIDEST for pair in metered)
    assert all(0.004 < clipped(pair.codes[0]) < 0.2 for pair in metered)


def test_what_is_around_is_metered(source: SceneExposures, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that more of a patch can be clipped than of the photograph, but never all or nothing of it."""
    monkeypatch.setattr(exposures, "WIDE", 1.0)
    monkeypatch.setattr(exposures, "SHORTER_METERED", 0.0)
    rng = np.random.default_rng(0)
    shares = np.array([clipped(source.draw(rng, 32).codes[1]) for _ in range(100)])
    assert (shares > 0.35).sum() > 3
    assert shares.max() < 0.8
    assert (shares > 0.001).mean() > 0.95


def test_photographs_held_out_are_the_same_every_time(source: SceneExposures) -> None:
    held, again = source.held_out(4, SIZE), source.held_out(3, SIZE)
    assert [sample.stops for sample in held] == [STOPS] * 4
    for sample, same in zip(held, again, strict=False):
        assert np.array_equal(sample.codes, same.codes)
        assert sample.codes.shape == (5, SIZE, SIZE, 3)
        assert 0.001 < clipped(sample.codes[2]) < 0.8
    assert not np.array_equal(source.held_out(1, SIZE, seed=1)[0].codes, held[0].codes)
    assert source.held_out(1, SIZE, stops=(-4.0, 0.0))[0].stops == (-4.0, 0.0)


def test_scenes_are_read_from_a_folder(tmp_path: Path) -> None:
    write_scenes(tmp_path, "a", "b", "c", "blue_grotto")
    assert len(SceneExposures.read(tmp_path).backdrops) == 3
    aside = SceneExposures.read(tmp_path, validation=True, clipped=(0.02, 0.25))
    assert len(aside.backdrops) == 1
    assert "1 HDR scenes, 2 to 25 %" in aside.describe()
    with pytest.raises(InputError, match="no HDR scenes"):
        SceneExposures.read(tmp_path / "nothing")


# ------------------------------------------------------------------------------------- views


@pytest.mark.parametrize(("yaw", "pitch", "fov"), [(0, 0, 60), (170, 20, 30), (-95, -35, 80)])
def test_a_view_of_a_panorama_is_that_of_a_camera_in_it(yaw: float, pitch: float, fov: float) -> None:
    panorama = ramp_scene(128, 256, np.random.default_rng(0))
    size, backdrop = (48, 64), Backdrop.of(panorama)
    focal = size[1] / 2 / math.tan(math.radians(fov) / 2)
    fine = max(math.ceil(256 / (2 * math.pi) / focal), 1)
    where = backdrop._directions(
        (size[0] * fine, size[1] * fine), focal * fine, math.radians(yaw), math.radians(pitch), 0.0
    )
    found = exposures.averaged(backdrop._seen(where), fine)
    np.testing.assert_allclose(found, perspective_view(panorama, size, yaw, pitch, fov), rtol=2e-3)


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.0, 3.0])
def test_a_photograph_is_seen_larger_or_smaller(zoom: float) -> None:
    """Of radiance that grows by 2 % a pixel, a patch grows by the zoom's root of that.

    To 0.15 px of the scene: OpenCV's cubic interpolation bends ramps a little, and rounds places.
    """
    down, right = np.mgrid[:120, :150]
    scene = np.float32(0.2) * np.repeat(1.02 ** (down + 2.0 * right)[..., None], 3, 2).astype(np.float32)
    backdrop, rng = Backdrop.of(scene), np.random.default_rng(0)
    view, around = backdrop._draw_crop(rng, 40, zoom)
    assert view.shape == (40, 40, 3)
    inner = view[4:-4, 4:-4]
    places = np.log(inner) / math.log(1.02)
    np.testing.assert_allclose(places[20:] - places[:-20], 20 / zoom, rtol=0, atol=0.15)
    np.testing.assert_allclose(places[:, 20:] - places[:, :-20], 40 / zoom, rtol=0, atol=0.3)
    assert around.min() == pytest.approx(0.2, rel=1e-3)
    assert around.max() > 0.7 * scene.max()


def test_a_patch_is_never_larger_than_its_scene() -> None:
    view, _ = Backdrop.of(ramp_scene(40, 50, np.random.default_rng(0))).draw(
        np.random.default_rng(0), 64, (0.5, 0.6)
    )
    assert view.shape == (64, 64, 3)
    assert np.isfinite(view).all()


def test_lamps_have_colours() -> None:
    backdrop = Backdrop.of(np.full((64, 128, 3), 0.5, np.float32))
    rng = np.random.default_rng(0)
    views = [backdrop.draw(rng, 16) for _ in range(40)]
    grey = [np.allclose(view, 0.5, rtol=1e-3) for view, _ in views]
    assert 8 < sum(grey) < 32
    for view, around in views:
        np.testing.assert_allclose(view[0, 0], around[0, 0], rtol=1e-3)
        assert view.min() > 0.35
        assert view.max() < 0.71


# ------------------------------------------------------------------------------------- cameras


@pytest.mark.parametrize("curve", ["linear", "srgb", "gamma2.2", "random"])
def test_codes_are_those_of_the_camera(curve: str) -> None:
    """But for a code in between two, here and there."""
    rng = np.random.default_rng(1)
    response = random_response(rng) if curve == "random" else Response.named(curve)
    linear = np.linspace(0, 2, 3 * 64 * 64, dtype=np.float32).reshape(64, 64, 3)
    taken = Recorder(response, STILL).record(linear, (-3.0, -0.5, 0.0), rng)
    assert taken.stops == (-3.0, -0.5, 0.0)
    for ev, codes in zip(taken.stops, taken.codes, strict=True):
        expected = Camera(response=response).encode(linear * np.float32(2.0**ev))
        off = np.abs(codes * 255 - expected)
        assert off.max() <= 1.001
        assert (off > 0.5).mean() < 0.03


def test_noise_is_that_of_the_sensor() -> None:
    noise, rng = NoiseModel(photon=2e-3, read=0.02), np.random.default_rng(0)
    linear = np.full((100, 100, 3), 0.4, np.float32)
    codes = Recorder(Response.named("linear"), noise).record(linear, (-1.0, 0.0), rng).codes
    for level, photographed in zip((0.2, 0.4), codes, strict=True):
        assert photographed.mean() == pytest.approx(level, abs=1e-3)
        assert photographed.var() == pytest.approx(2e-3 * level + 4e-4 + 1 / 255**2 / 12, rel=0.05)
    assert np.abs(np.corrcoef(codes[0].ravel(), codes[1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("subsampled", [False, True])
def test_jpeg_loses_a_little(subsampled: bool) -> None:
    scene = ramp_scene(64, 64, np.random.default_rng(0))
    linear = scene / scene.max() * np.float32([1.0, 0.6, 0.2])
    rng = np.random.default_rng(0)
    recorder = Recorder(Response.named("srgb"), STILL, 85, subsampled)
    plain = replace(recorder, quality=None).record(linear, (0.0,), rng).codes
    lost = np.abs(recorder.record(linear, (0.0,), rng).codes - plain)
    assert 0.002 < lost.mean() < 0.03
    assert lost.mean((0, 1, 2)).max() < 0.04  # red is not taken for blue


def test_cameras_are_of_many_kinds() -> None:
    rng = np.random.default_rng(0)
    cameras = [draw_recorder(rng) for _ in range(200)]
    names = [camera.response.name for camera in cameras]
    assert set(names) == {"srgb", "gamma2.2", "random"}
    assert 90 < names.count("gamma2.2") < 140
    assert len({camera.response.table.tobytes() for camera in cameras}) > 20
    files = [camera.quality for camera in cameras if camera.quality is not None]
    assert 20 < len(files) < 60
    assert QUALITY[0] <= min(files) < 80
    assert 90 < max(files) <= QUALITY[1]
    photon = np.log10([camera.noise.photon for camera in cameras])
    assert photon.min() < -5.5
    assert photon.max() > -3.5


# ------------------------------------------------------------------------------------- real brackets


def series(stops: tuple[float, ...] = (-2.0, 0.0, 2.5), moved: slice = slice(0)) -> Series:
    """Return frames of a scene, another one of which is seen where it ``moved``, in the longest."""
    scene, other = (0.05 * ramp_scene(96, 160, np.random.default_rng(seed)) for seed in (0, 1))
    codes = [encode(scene * np.float32(2.0**ev)) for ev in stops]
    codes[-1][:, moved] = encode(other[::-1, ::-1] * np.float32(2.0 ** stops[-1]))[:, moved]
    return Series(codes, [2.0**ev for ev in stops], [STILL] * len(stops), 256, 0)


def test_pairs_of_frames_of_real_brackets() -> None:
    source, rng = SeriesExposures([series(), series((-6.0, 0.0, 0.1, 1.0))]), np.random.default_rng(0)
    assert len(source.pairs) == 2 + 2  # 4.5, 6, 7 and 0.1 stops are too far, or too near
    assert "4 pairs of frames of 2 real brackets" in source.describe()
    found = set()
    for _ in range(40):
        pair = source.draw(rng, 32)
        apart = pair.stops[1] - pair.stops[0]
        found.add(round(apart, 3))
        assert pair.codes.shape == (2, 32, 32, 3)
        assert np.abs(pair.codes * 255 - np.rint(pair.codes * 255)).max() < 1e-4
        expected = np.minimum(pair.codes[0] * 2 ** (apart / 2.2), 1)
        assert np.abs(expected - pair.codes[1]).mean() < 0.02
    assert found == {2.0, 2.5, 1.0, 0.9}


def test_patches_where_something_moved_are_left_out() -> None:
    """On the left half of the picture, so that all patches are of the right one."""
    source, rng = SeriesExposures([series((-1.0, 0.0), slice(0, 80))]), np.random.default_rng(0)
    for _ in range(30):
        short, long = source.draw(rng, 24).codes
        assert np.abs(short * 2 ** (1 / 2.2) - long).max() < 0.3
    with pytest.raises(InputError, match="no patch of 32 px"):
        SeriesExposures([series((-1.0, 0.0), slice(0, 160))]).draw(rng, 32)
    with pytest.raises(InputError, match="no patch of 128 px"):
        source.draw(rng, 128)


def test_brackets_without_a_pair_are_refused() -> None:
    with pytest.raises(InputError, match=r"^2 brackets: no two frames are 0.25 to 4 stops apart; "):
        SeriesExposures([series((0.0,)), series((-5.0, 0.0, 0.1))])


def test_photographs_agree_where_both_show_anything() -> None:
    rng = np.random.default_rng(0)
    short = rng.uniform(0.1, 0.6, (32, 32, 3)).astype(np.float32)
    long = np.minimum(short * np.float32(2 ** (2 / 2.2)), 1)
    assert agree(short, long, 2.0)
    assert not agree(short, long, 1.0)
    long[:2] = 0.3
    assert not agree(short, long, 2.0)
    short[:2] = 0.6  # where the longer one were white, and is not
    assert agree(short, np.where(short > 0.5, 1, long), 2.0)
    assert not agree(np.zeros_like(short), np.ones_like(short), 2.0)


def test_sources_are_mixed(source: SceneExposures) -> None:
    real = SeriesExposures([series((-1.0, 0.0))])
    mixed = MixedExposures([(source, 3.0), (real, 1.0)])
    assert mixed.describe().startswith("75 % pairs of photographs")
    assert " and 25 % 1 pairs of frames" in mixed.describe()
    rng = np.random.default_rng(0)
    assert 10 < sum(mixed.draw(rng, 16).stops == (-1.0, 0.0) for _ in range(100)) < 40


# ------------------------------------------------------------------------------------- orientation


def test_both_photographs_turn_alike() -> None:
    rng = np.random.default_rng(0)
    long = rng.permutation(8 * 8 * 3).reshape(1, 8, 8, 3).astype(np.float32) / 192
    pair = Exposures(np.concatenate([long / 2, long]), (-1.0, 0.0))
    seen: dict[bytes, int] = {}
    for _ in range(600):
        found = turned(pair, rng)
        assert found.stops == pair.stops
        assert np.array_equal(found.codes[0] * 2, found.codes[1])
        assert np.array_equal(np.sort(found.codes[1], axis=None), np.sort(long, axis=None))
        upright = np.sort(found.codes[1], axis=-1)  # whatever the order of colours
        seen[upright.tobytes()] = seen.get(upright.tobytes(), 0) + 1
    assert len(seen) == 8
    first = np.sort(long[0], axis=-1)
    level = sum(seen.get(np.ascontiguousarray(way).tobytes(), 0) for way in (first, first[:, ::-1]))
    assert 0.68 < level / 600 < 0.82
    orders = {tuple(turned(pair, rng).codes[1].sum((0, 1)).round(3).tolist()) for _ in range(100)}
    assert len(orders) == 6
