"""What is drawn at random about brackets, and which scenes are never trained on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import SIZE, write_scenes

from hdrmerge.errors import InputError
from hdrmerge.scene import ramp_scene
from hdrmerge.training import scenes as training_scenes
from hdrmerge.training.camera import Plan
from hdrmerge.training.scenes import CAP, VALIDATION, draw_plan, draw_view, load_scenes, scene_files


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    rng = np.random.default_rng(0)
    scenes = [ramp_scene(180, 240, np.random.default_rng(seed)) for seed in range(3)]
    return [draw_plan(scenes, rng, SIZE) for _ in range(300)]


def test_frames_are_two_to_nine(plans: list[Plan]) -> None:
    counts = Counter(len(plan.shots) for plan in plans)
    assert min(counts) == 2
    assert max(counts) == 9
    assert counts.most_common(1)[0][0] == 3


def test_spacing_is_what_photographers_use(plans: list[Plan]) -> None:
    for plan in plans:
        steps = np.diff(np.log2(plan.relative_exposures))
        assert steps.min() >= 0.7 * 0.6
        assert steps.max() <= 4.0 * 1.4
        assert steps.mean() * len(steps) <= 12 * 1.4
    spacing = np.array([np.diff(np.log2(plan.relative_exposures)).mean() for plan in plans])
    assert (spacing < 1.3).any()
    assert (spacing > 3.0).any()


def test_any_frame_is_the_reference_but_mostly_the_middle(plans: list[Plan]) -> None:
    middle = [plan.reference == (len(plan.shots) - 1) // 2 for plan in plans]
    assert 0.6 < np.mean(middle) < 0.95
    assert any(plan.reference == 0 for plan in plans)
    assert any(plan.reference == len(plan.shots) - 1 for plan in plans)


def test_up_to_four_objects_move_by_up_to_a_hundred_pixels(plans: list[Plan]) -> None:
    counts = Counter(len(plan.movers) for plan in plans)
    assert set(counts) == {0, 1, 2, 3, 4}
    assert counts[0] < 30
    swept = [np.hypot(*mover.path.T).max() for plan in plans for mover in plan.movers]
    assert max(swept) <= 100.0
    assert all(mover.radiance.max() <= CAP for plan in plans for mover in plan.movers)


def test_two_to_25_percent_of_the_reference_clip(plans: list[Plan]) -> None:
    shares = [plan.saturated_share for plan in plans]
    assert 0.02 <= min(shares) < 0.03
    assert 0.2 < max(shares) <= 0.25


def test_cameras_differ(plans: list[Plan]) -> None:
    raw = [plan.camera.bits == 14 for plan in plans]
    assert 0.05 < np.mean(raw) < 0.25
    qualities = [plan.jpeg_quality for plan in plans if plan.jpeg_quality is not None]
    assert 70 <= min(qualities) < 75
    assert 95 < max(qualities) <= 100
    assert all(plan.jpeg_quality is None for plan in plans if plan.camera.bits == 14)
    curves = Counter(plan.camera.response.name for plan in plans)
    assert 0.3 < curves["srgb"] / len(plans) < 0.6
    assert len(curves) >= 4


def test_a_plan_follows_from_its_seed() -> None:
    scenes = [ramp_scene(180, 240, np.random.default_rng(seed)) for seed in range(2)]
    first, again, other = (draw_plan(scenes, np.random.default_rng([seed, 3]), SIZE) for seed in (1, 1, 2))
    assert np.array_equal(first.scene, again.scene)
    assert first.shots == again.shots
    assert first.saturated_share == again.saturated_share != other.saturated_share


def test_panoramas_are_seen_in_perspective_or_in_their_middle_rows() -> None:
    panorama = np.ones((100, 200, 3), np.float32)
    panorama[:18] = panorama[82:] = 50.0  # the stretched rows
    shapes = set()
    for seed in range(20):
        view = draw_view(panorama, np.random.default_rng(seed))
        shapes.add(view.shape == (640, 896, 3))
        if view.shape != (640, 896, 3):
            assert view.max() < 2.0  # gains of the channels
    assert shapes == {True, False}


def test_scenes_set_aside_are_never_trained_on(tmp_path: Path) -> None:
    write_scenes(tmp_path, "a", VALIDATION[0], "b", VALIDATION[-1])
    train, aside = scene_files(tmp_path)
    assert [path.stem for path in train] == ["a", "b"]
    assert {path.stem for path in aside} == {VALIDATION[0], VALIDATION[-1]}
    scenes = load_scenes(tmp_path)
    assert len(scenes) == 2
    assert all(scene.dtype == np.float32 and scene.min() > 0 for scene in scenes)
    assert not any(np.array_equal(a, b) for a in scenes for b in load_scenes(tmp_path, validation=True))


def test_other_folders_set_aside_every_tenth(tmp_path: Path) -> None:
    for number in range(21):
        (tmp_path / f"{number:02d}.{'hdr' if number % 2 else 'exr'}").touch()
    train, aside = scene_files(tmp_path)
    assert [path.stem for path in aside] == ["00", "10", "20"]
    assert len(train) == 18
    for path in (*train[1:], *aside[1:]):
        path.unlink()
    assert [len(files) for files in scene_files(tmp_path)] == [1, 1]


def test_a_single_scene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no HDR scenes"):
        scene_files(tmp_path)
    write_scenes(tmp_path, "alone")
    with pytest.raises(InputError, match=r"only alone\.exr"):
        load_scenes(tmp_path)


def test_the_house_sets_eight_scenes_aside() -> None:
    assert len(set(training_scenes.VALIDATION)) == 8
