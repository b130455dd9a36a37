"""Scenes of labelled brackets, photographed again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra train")

import torch
from made_examples import SQUARE

from hdrmerge.entrust import FRAME_PLANES
from hdrmerge.errors import InputError
from hdrmerge.exposure import NoiseModel, Response, mu_law_inverse
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera, add_noise, simulate_bracket
from hdrmerge.simulate_files import write_jpegs, write_pngs
from hdrmerge.training.camera import compressed, take_all
from hdrmerge.training.examples import Example
from hdrmerge.training.label_sets import LabelOptions, LabelSet, Taken, make_labels
from hdrmerge.training.make import brackets_in, data_in, make_examples
from hdrmerge.training.pseudo_labels import Rules
from hdrmerge.training.retake import (
    Excess,
    Retake,
    Scenes,
    draw_own_plan,
    measure_noise,
    measured_excess,
    read_as_files,
    scene_of,
)

FRAME = (192, 256)
NOISY = Camera(full_well=800.0, read_noise=2.0)  # fifty times what is believed at ISO 100
SIZE = (128, 160)
TAKEN = Taken((0.25, 1.0, 4.0), 1, (NoiseModel(1e-4, 4e-4),) * 3, Response.named("srgb"), 1, None)


@pytest.fixture(scope="module")
def labels(ramp: np.ndarray, elsewhere: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> LabelSet:
    """Of a clean bracket of three frames, and of a noisy one of four."""
    folder, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    three = simulate_bracket(ramp, rng, size=FRAME, movers=[elsewhere], saturated_share=0.15, reference=1)
    four = simulate_bracket(elsewhere, rng, size=FRAME, frames=4, step_ev=1.0, camera=NOISY)
    files = [write_pngs(three, folder / "three"), write_jpegs(four, folder / "four", 90)]
    return make_labels(files, folder / "labels", LabelOptions(Rules(patch=64, stride=32, agreement=30)))


@pytest.fixture(scope="module")
def scenes(labels: LabelSet) -> Scenes:
    return Scenes(labels, SQUARE)


@pytest.fixture
def retake(labels: LabelSet, tmp_path: Path) -> Retake:
    return Retake(labels.folder, tmp_path / "examples", size=SIZE, square=SQUARE)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.npy")}


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [NoiseModel(1e-3, 2e-3), NoiseModel(4e-3, 1e-2)])
def test_noise_is_measured_in_a_picture_with_detail(noise: NoiseModel) -> None:
    scene = ramp_scene(480, 640, np.random.default_rng(4), low=0.004, high=0.9)
    found = measure_noise(np.clip(add_noise(scene, noise, np.random.default_rng(0)), 0, 1), TAKEN)
    assert found is not None
    at = np.float32([0.02, 0.1, 0.4])
    assert found.variance(at) == pytest.approx(noise.variance(at), rel=0.35)


def test_too_few_tones_tell_nothing() -> None:
    flat = np.full((64, 64, 3), 0.2, np.float32)
    assert measure_noise(flat, TAKEN) is None
    assert measured_excess([(flat, NoiseModel(1e-4, 1e-4), TAKEN)]) == Excess(1, 1)


def test_the_excess_is_that_of_most_pictures() -> None:
    scene = ramp_scene(240, 320, np.random.default_rng(4), low=0.004, high=0.9)
    believed = NoiseModel(1e-4, 5e-4)
    noises = [Excess(many, many).of(believed) for many in (16, 16, 64)]
    pictures = [
        (np.clip(add_noise(scene, noise, np.random.default_rng(k)), 0, 1), believed, TAKEN)
        for k, noise in enumerate(noises)
    ]
    assert measured_excess(pictures).photon == pytest.approx(16, rel=0.5)


def test_what_jpeg_took_away_is_given_back() -> None:
    detailed = ramp_scene(480, 640, np.random.default_rng(4), low=0.004, high=0.9)
    scene = cv2.GaussianBlur(detailed, (0, 0), 4.0)
    noise, camera = NoiseModel(2e-3, 8e-3), Camera()
    taken = replace(TAKEN, quality=90)
    codes = camera.encode(add_noise(scene, noise, np.random.default_rng(1)))
    left = compressed(torch.from_numpy(np.moveaxis(codes, -1, 0)[None].copy()), [90], False)[0].numpy()
    linear = camera.decode(np.ascontiguousarray(np.moveaxis(left, 0, -1)))
    found, restored = measure_noise(linear, TAKEN), measure_noise(linear, taken)
    assert found is not None
    assert restored is not None
    at = np.float32([0.1, 0.4])
    assert (found.variance(at) < 0.6 * noise.variance(at)).all()
    assert np.abs(np.log2(restored.variance(at) / noise.variance(at))).max() < 0.7


def test_variances_are_multiplied() -> None:
    assert Excess(4.0, 9.0).of(NoiseModel(1e-3, 1e-3)) == NoiseModel(4e-3, 3e-3)


# --- scenes ---------------------------------------------------------------------------------------


def test_a_scene_shows_what_the_reference_clips(labels: LabelSet) -> None:
    scene = scene_of(labels, 0, Excess(1, 1))
    assert scene.shape == (*FRAME, 3)
    assert scene.max() > 1.5
    own = labels.bracket(0).reference_frame.linear()
    sure = (own.max(axis=-1) < 0.7) & (own.min(axis=-1) > 0.05)
    assert np.median(np.abs(np.log2(scene[sure] / own[sure]))) < 0.05
    static = labels.static(0)
    assert np.allclose(scene[static], np.clip(labels.label(0)[0][static], 1e-4, 1e4))


def test_scenes_are_kept(labels: LabelSet, scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    first = scenes[1]
    monkeypatch.setattr("hdrmerge.training.retake.scene_of", lambda *_: pytest.fail("made again"))
    again = Scenes(labels, SQUARE)
    assert np.array_equal(again[1], first)
    assert not list(labels.folder.glob("*.part"))
    assert LabelSet(labels.folder).counts() == labels.counts()


def test_photographs_are_no_larger_than_scenes(labels: LabelSet, scenes: Scenes) -> None:
    assert scenes.largest((320, 448)) == (128, 192)
    assert scenes.largest((96, 128)) == (96, 128)
    with pytest.raises(InputError, match="none of its 3 triplets is 400 px high and wide"):
        Scenes(labels, 400)


# --- photographs ----------------------------------------------------------------------------------


def test_a_plan_is_of_the_camera_that_took_the_bracket(scenes: Scenes) -> None:
    rng = np.random.default_rng(0)
    plans = [draw_own_plan(scenes, 1, rng, SIZE) for _ in range(12)]
    lengths = {len(plan.shots) for plan in plans}
    assert lengths == {3, 4}  # the whole series, or the triplet
    for plan in plans:
        assert plan.relative_exposures[plan.reference] == 1
        steps = [1, 1, 1] if len(plan.shots) == 4 else [1, 2]
        assert np.diff(np.log2(plan.relative_exposures)) == pytest.approx(steps, abs=0.3)
        assert plan.jpeg_quality == 90
        assert plan.camera.response.name == scenes.taken(1).curve.name
        noise = plan.camera.noise(plan.shots[0].iso or 0)
        assert noise.photon == pytest.approx(scenes.believed(1).photon * scenes.excess.photon)
    assert draw_own_plan(scenes, 0, rng, SIZE).jpeg_quality is None  # PNG


def test_a_linear_camera_writes_no_jpeg(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = replace(scenes.taken(1), curve=Response.named("linear"))
    monkeypatch.setattr(scenes, "taken", lambda index: raw)
    plan = draw_own_plan(scenes, 1, np.random.default_rng(0), SIZE)
    assert (plan.camera.bits, plan.jpeg_quality) == (14, None)
    assert read_as_files(take_all([plan], 0)[0].simulated(), scenes.believed(1)) is not None


def test_an_example_believes_what_a_merge_would(scenes: Scenes) -> None:
    rng = np.random.default_rng(1)
    sim = take_all([draw_own_plan(scenes, 1, rng, SIZE)], 0)[0].simulated()
    few, many = (read_as_files(sim, Excess(k, k).of(scenes.believed(1))) for k in (1.0, 25.0))
    assert few is not None
    assert many is not None
    sigma, deviation = FRAME_PLANES.index("sigma"), FRAME_PLANES.index("deviation")
    assert few.frames[:, sigma].mean() < many.frames[:, sigma].mean()
    assert few.frames[:, deviation].mean() > many.frames[:, deviation].mean()
    static = ~sim.moving & ~sim.saturated
    own = mu_law_inverse(few.reference[:3].astype(np.float32))
    truth = mu_law_inverse(few.truth.astype(np.float32))
    assert np.median(own[:, static]) == pytest.approx(np.median(truth[:, static]), rel=0.1)


# --- the job --------------------------------------------------------------------------------------


def test_examples_of_both_kinds_of_camera(retake: Retake) -> None:
    made = make_examples(retake, 2)
    assert made.brackets == len(brackets_in(retake.folder)) == 2
    for path in retake.folder.glob("*.npy"):
        assert Example.load(path).moving.shape == (SQUARE, SQUARE)
    number = len(files(retake.folder))
    assert data_in(retake.folder) == (
        f"2 brackets without a truth; 2 brackets photographed again from them ({number} examples)"
    )


def test_whole_ones_are_others(retake: Retake, labels: LabelSet, tmp_path: Path) -> None:
    names = tuple(labels.brackets)[1:]
    whole = replace(retake, folder=tmp_path / "held_out", whole=True, names=names)
    make_examples(whole, 1)
    (path,) = whole.folder.glob("*.npy")
    assert Example.load(path).moving.shape == SIZE
    with pytest.raises(InputError, match="differ in their labelled"):
        make_examples(replace(whole, names=None), 2)
    with pytest.raises(InputError, match="none of its 0 triplets"):
        make_examples(replace(whole, folder=tmp_path / "none", names=()), 1)


def test_whoever_makes_them(retake: Retake, tmp_path: Path) -> None:
    """Nothing but the number and the seed counts, nor does a process of its own."""
    sent: Retake = pickle.loads(pickle.dumps(replace(retake, folder=tmp_path / "others")))
    make_examples(retake, 1)
    make_examples(sent, 1)
    assert files(sent.folder) == files(retake.folder)
    make_examples(other := replace(retake, folder=tmp_path / "seed", seed=1), 1)
    assert files(other.folder).items().isdisjoint(files(retake.folder).items())
