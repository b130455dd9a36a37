"""Clips: what a turning camera sees, objects that live, files, and samples drawn from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

import OpenEXR  # noqa: E402

from hdrmerge.errors import InputError  # noqa: E402
from hdrmerge.scene import _Canvas, ramp_scene, soft_blob  # noqa: E402
from hdrmerge.training import clips  # noqa: E402
from hdrmerge.training.clips import (  # noqa: E402
    CYCLES,
    LONGEST_CLIPPED,
    MOST_LOST,
    Clips,
    Living,
    brightness,
    draw_clip,
    draw_frames,
    draw_mover,
    film,
    make_clips,
    path,
    photographed,
    turned,
)

SIZE = (48, 64)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return ramp_scene(128, 256, np.random.default_rng(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 7 frames, 24 x 32 px; the value of a pixel says clip and frame, colours differ."""
    home = tmp_path_factory.mktemp("clips")
    for clip in range(2):
        frames = np.ones((7, 3, 24, 32), np.float16) * np.arange(1, 8).reshape(7, 1, 1, 1)
        frames *= np.array([1, 0.5, 0.25]).reshape(3, 1, 1)
        frames[..., :12, :] *= 0.5
        np.save(home / f"{clip:06d}.npy", (frames * 10**clip).astype(np.float16))
    return home


# ------------------------------------------------------------------------------------- the camera


def seen(matrix: np.ndarray, x: float, y: float) -> list[float]:
    found = matrix @ [x, y, 1]
    return (found[:2] / found[2]).tolist()


def test_a_turned_camera_sees_things_go_the_other_way() -> None:
    middle = (31.5, 23.5)
    right = turned(SIZE, 100.0, 0.1, 0.0, 0.0)
    assert seen(right, *middle) == pytest.approx([31.5 - 100 * math.tan(0.1), 23.5])
    down = turned(SIZE, 100.0, 0.0, 0.1, 0.0)
    assert seen(down, *middle) == pytest.approx([31.5, 23.5 - 100 * math.tan(0.1)])
    clockwise = turned(SIZE, 100.0, 0.0, 0.0, math.pi / 2)
    assert seen(clockwise, 41.5, 23.5) == pytest.approx([31.5, 13.5])


def test_what_is_ahead_after_a_turn_was_at_its_angle() -> None:
    """Straight ahead of the turned camera lies what the other one saw f tan(angle) from its middle."""
    matrix = turned(SIZE, 80.0, 0.2, 0.0, 0.0)
    assert seen(matrix, 31.5 + 80 * math.tan(0.2), 23.5) == pytest.approx([31.5, 23.5])
    there_and_back = turned(SIZE, 80.0, -0.2, 0.0, 0.0) @ matrix
    np.testing.assert_allclose(there_and_back / there_and_back[2, 2], np.eye(3), atol=1e-9)


def test_frames_differ_by_their_homographies(scene: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    plan = replace(draw_clip([scene], rng, SIZE, 3), movers=())
    plan = replace(plan, homographies=(np.eye(3), turned(SIZE, 60.0, 0.08, -0.04, 0.02), np.eye(3)))
    frames = film(plan)
    assert frames.shape == (3, *SIZE, 3)
    assert np.array_equal(frames[0], frames[2])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    back = cv2.warpPerspective(frames[1], plan.homographies[1], SIZE[::-1], flags=flags)[8:-8, 8:-8]
    middle = frames[0][8:-8, 8:-8]
    there = np.abs(np.log(back[:, 8:-8] / middle[:, 8:-8]))
    as_it_was = np.abs(np.log(frames[1][8:-8, 16:-16] / middle[:, 8:-8]))
    assert np.median(there) < 0.01 < 0.05 < np.median(as_it_was)


def test_paths_lead_through_the_middle_and_bend_smoothly() -> None:
    found = path(np.random.default_rng(0), np.array([3.0, -4.0]), 7)
    assert found[3].tolist() == [0, 0]
    steps = np.diff(found, axis=0)
    np.testing.assert_allclose(steps[2:4].mean(axis=0), [3, -4])
    np.testing.assert_allclose(np.diff(steps, axis=0) - np.diff(steps, axis=0)[0], 0, atol=1e-9)


def test_frames_that_were_brought_into_line_hardly_move(scene: np.ndarray) -> None:
    """Two pixels at the most, where a camera by itself goes far."""

    def farthest(lined: float) -> list[float]:
        plans = [draw_clip([scene], np.random.default_rng(seed), SIZE, 7, lined=lined) for seed in range(24)]
        middle = [31.5, 23.5]
        return [
            max(float(np.hypot(*np.subtract(seen(m, *middle), middle))) for m in plan.homographies)
            for plan in plans
        ]

    assert max(farthest(1.0)) < 4
    assert max(farthest(0.0)) > 15
    assert min(farthest(0.0)) == 0


def test_a_clip_follows_from_its_seed(scene: np.ndarray) -> None:
    one, two, other = (film(draw_clip([scene], np.random.default_rng(seed), SIZE, 2)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert one.min() > 0
    assert np.isfinite(one).all()


# ------------------------------------------------------------------------------------- objects


def living(**changes: Any) -> Living:
    """Return a thing that fills the middle of a picture of 40 x 40 px in two frames."""
    rng = np.random.default_rng(5)
    radiance = cv2.resize(rng.uniform(0.5, 2.0, (6, 6, 3)).astype(np.float32), (40, 40))
    centre, still = np.full((2, 2), 19.5), np.zeros((2, 2))
    thing = Living(
        radiance, soft_blob(40, rng, 0.05), centre, still, np.zeros(2), np.ones(2), 0.0, np.zeros(2)
    )
    return replace(thing, **changes)


def laid(thing: Living, frame: int = 1) -> np.ndarray:
    """Return the layer of a frame on a whole canvas, premultiplied radiance and alpha."""
    canvas = _Canvas.around((40, 40), [np.eye(3)])
    whole = np.zeros((*canvas.shape, 4), np.float32)
    radiance, alpha, at = thing.layer(frame, canvas)
    whole[at] = np.dstack([radiance, alpha])
    return whole


def test_a_thing_at_rest_is_a_plain_one() -> None:
    thing = living()
    plain = super(Living, thing).layer(1, _Canvas.around((40, 40), [np.eye(3)]))
    found = thing.layer(1, _Canvas.around((40, 40), [np.eye(3)]))
    np.testing.assert_allclose(found[0], plain[0], atol=1e-5)
    np.testing.assert_allclose(found[1], plain[1], atol=1e-5)


def test_a_thing_turns_and_grows() -> None:
    plain, middle = laid(living()), slice(4, -4)
    turn = laid(living(turn=np.array([0.0, math.pi / 2])))
    rotated = np.rot90(plain, 1 if np.abs(turn - np.rot90(plain)).mean() < 0.01 else -1)
    np.testing.assert_allclose(turn[middle, middle], rotated[middle, middle], atol=0.02)
    assert np.abs(turn - plain).mean() > 0.02
    half = laid(living(growth=np.array([1.0, 0.5])))
    assert half[..., 3].sum() == pytest.approx(plain[..., 3].sum() / 4, rel=0.02)


def test_limbs_swing_from_frame_to_frame() -> None:
    thing = living(swing=0.05, rhythm=np.array([0.0, 1.0]))
    first, second = laid(thing, 0), laid(thing, 1)
    assert np.abs(first - second).mean() > 0.005
    assert np.array_equal(laid(living(), 0), laid(living(), 1))


def test_things_are_in_the_picture_in_the_middle_of_the_clip(scene: np.ndarray) -> None:
    for seed in range(20):
        thing = draw_mover(scene, scene, np.random.default_rng(seed), SIZE, 7)
        assert thing.centre.shape == thing.path.shape == (7, 2)
        assert (thing.centre[3] > 0).all()
        assert (thing.centre[3] < SIZE[::-1]).all()
        assert thing.growth.max() == 1
        assert thing.radiance.dtype == np.float32
        bends = np.diff(thing.centre, n=2, axis=0)
        assert np.abs(bends).max() < 1.3 * np.hypot(*np.diff(thing.centre, axis=0).T).max()


# ------------------------------------------------------------------------------------- files


def test_clips_are_made_once(scene: np.ndarray, tmp_path: Path) -> None:
    scenes, home = tmp_path / "scenes", tmp_path / "clips"
    scenes.mkdir()
    for index in range(2):
        pixels = np.ascontiguousarray(np.roll(scene, 40 * index, 1), np.float32)
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": pixels}).write(str(scenes / f"{index}.exr"))
    told: list[tuple[int, int]] = []
    make_clips(scenes, home, 2, size=(24, 32), tell=lambda done, wanted: told.append((done, wanted)))
    assert told == [(1, 2), (2, 2)]
    first, second = (np.load(home / f"{index:06d}.npy") for index in range(2))
    assert first.shape == (7, 3, 24, 32)
    assert first.dtype == np.float16
    assert not np.array_equal(first, second)
    (home / "000000.npy").unlink()
    make_clips(scenes, home, 2, size=(24, 32), workers=2, tell=lambda *both: told.append(both))
    assert told[2:] == [(2, 2)]
    assert np.array_equal(np.load(home / "000000.npy"), first)
    make_clips(scenes, tmp_path / "aside", 1, size=(24, 32), validation=True)
    assert not np.array_equal(np.load(tmp_path / "aside" / "000000.npy"), first)
    assert sorted(path.name for path in home.iterdir()) == ["000000.npy", "000001.npy"]


@pytest.mark.parametrize("content", [b"", b"no clip", "wide"])
def test_a_file_that_is_no_clip_is_named(content: Any, tmp_path: Path) -> None:
    if content == "wide":
        np.save(tmp_path / "a.npy", np.zeros((7, 3, 8, 8), np.float32))
    else:
        (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: .*delete it"):
        Clips(tmp_path, 2)


def test_a_folder_without_clips_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="no clips"):
        Clips(tmp_path, 2)
    with pytest.raises(InputError, match="4 exposures need cycles"):
        Clips(folder, 4)
    assert Clips(folder, 4, [(1, 2, 4, 8)]).cycles == [(1, 2, 4, 8)]
    with pytest.raises(InputError, match="9 frames are wanted of clips of 7"):
        Clips(folder, 2).draw(np.random.default_rng(0), 9, 8)


# ------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("count", [2, 3])
def test_exposures_alternate(folder: Path, count: int) -> None:
    source, rng = Clips(folder, count), np.random.default_rng(0)
    middles = set()
    for _ in range(40):
        sample = source.draw(rng, 5, 16)
        assert sample.radiance.shape == (5, 3, 16, 16)
        assert sample.radiance.dtype == np.float16
        assert any(
            sample.exposures == tuple(cycle[(phase + k) % count] for k in range(5))
            for cycle in CYCLES[count]
            for phase in range(count)
        )
        middles.add(sample.exposures[2])
    assert middles == {time for cycle in CYCLES[count] for time in cycle}


def test_frames_stay_in_order_and_colours_do_not(folder: Path) -> None:
    source, rng = Clips(folder, 2), np.random.default_rng(1)
    steps, colours, brightest = set(), set(), set()
    for _ in range(80):
        sample = source.draw(rng, 5, 16).radiance.astype(np.float64)
        values = sample.max(axis=(2, 3))
        frames = values[:, values[0].argmax()]
        unit = frames.min() / round(frames.min() / np.abs(np.diff(frames)).min())
        steps.add(tuple(np.rint(np.diff(frames) / unit).astype(int).tolist()))
        colours.add(tuple(np.argsort(values[0]).tolist()))
        at = sample[0, values[0].argmax()]
        brightest.add(tuple(at[rows, columns] == at.max() for rows in (0, -1) for columns in (0, -1)))
    assert all(len({step > 0 for step in row}) == 1 for row in steps)
    assert {(1, 1, 1, 1), (-1, -1, -1, -1)} < steps
    assert any(max(map(abs, row)) > 1 for row in steps)
    assert len(colours) == 6
    assert len(brightest) > 3


def test_all_frames_may_be_asked_for() -> None:
    rng = np.random.default_rng(0)
    found = {tuple(draw_frames(rng, 7, 7)) for _ in range(10)}
    assert found == {tuple(range(7)), tuple(range(6, -1, -1))}


def test_held_out_samples_have_all_references(folder: Path) -> None:
    source = Clips(folder, 3)
    samples, again = source.held_out(6, 7, 16), source.held_out(6, 7, 16)
    assert [sample.exposures[3] for sample in samples] == [1, 4, 16, 1, 4, 16]
    assert all(np.array_equal(a.radiance, b.radiance) for a, b in zip(samples, again, strict=True))
    assert "2 clips" in source.describe()
    assert "1/4/16" in source.describe()


def test_brightness_is_what_a_camera_would_choose() -> None:
    """No more than half a frame white in the longest exposure, no more than a tenth in the shortest."""
    for seed, spread in enumerate((0.1, 0.5, 1.0, 2.0, 3.0) * 8):
        rng = np.random.default_rng(seed)
        metered = np.exp(rng.normal(0, spread, 4000)).astype(np.float32)
        scale = brightness(metered, 8.0, rng)
        longest, shortest = ((metered * scale * time >= 1).mean() for time in (8.0, 1.0))
        assert longest <= LONGEST_CLIPPED[1] + 0.001
        assert shortest <= MOST_LOST + 0.001
        assert longest >= LONGEST_CLIPPED[0] - 0.001 or shortest >= MOST_LOST - 0.001


# ------------------------------------------------------------------------------------- exposures


def test_codes_are_what_a_camera_records() -> None:
    radiance = torch.tensor([0.0, 0.01, 0.125, 0.3, 2.0]).reshape(1, 1, 1, 1, 5).expand(1, 2, 3, 4, 5)
    times, silent = torch.tensor([[1.0, 8.0]]), torch.zeros(1, 2)
    codes = photographed(radiance, times, silent, torch.Generator())
    low, high = codes[0, :, 0, 0].tolist()
    wanted = [round(255 * min(value, 1) ** (1 / 2.2)) / 255 for value in (0, 0.01, 0.125, 0.3, 2)]
    assert low == pytest.approx(wanted)
    assert high[2:] == [1, 1, 1]
    assert high[1] == pytest.approx(round(255 * 0.08 ** (1 / 2.2)) / 255)


def test_noise_is_added_to_linear_light() -> None:
    radiance = torch.full((1, 2, 3, 64, 64), 0.25)
    noise = torch.tensor([[0.01, 0.0]])
    codes = photographed(radiance, torch.ones(1, 2), noise, torch.Generator().manual_seed(0), 1 << 16)
    linear = codes**2.2
    assert float(linear[0, 0].mean()) == pytest.approx(0.25, abs=5e-4)
    assert float(linear[0, 0].std()) == pytest.approx(0.01, rel=0.03)
    assert float(linear[0, 1].std()) < 1e-5
    assert clips.GAMMA == 2.2
