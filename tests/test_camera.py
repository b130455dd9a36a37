from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training camera needs the extra train")

from hdrmerge.exposure import Response  # noqa: E402
from hdrmerge.scene import Mover, _Canvas, ramp_scene, random_mover, soft_blob  # noqa: E402
from hdrmerge.simulate import Camera, Shake, plan_shots, random_response, simulate_bracket  # noqa: E402
from hdrmerge.training import camera as training_camera  # noqa: E402
from hdrmerge.training.camera import Photographs, Plan, compressed, take, take_all  # noqa: E402

SIZE = 97, 130
SHAKE = Shake(rotation=0.5, shift=3.0, scale=0.003, perspective=0.003)


def quiet(**camera: Any) -> Camera:
    """Return a camera without noise: photons are too many to count."""
    return Camera(**{"full_well": 1e13, "read_noise": 0.0, **camera})


def draw(scene: np.ndarray, other: np.ndarray, seed: int = 1, **changes: Any) -> Plan:
    """Draw a plan of four frames with two movers; ``movers`` in changes is their number."""
    rng = np.random.default_rng(seed)
    camera, size, frames = changes.get("camera", quiet()), changes.get("size", SIZE), changes.pop("frames", 4)
    reference = changes.get("reference", 1)
    shots = plan_shots(size, frames, 2.0, reference, camera, changes.get("iso", 100.0), time=1 / 15)
    shake = changes.pop("shake", SHAKE)
    movers = changes.pop("movers", 2)
    values: dict[str, Any] = {
        "scene": scene,
        "size": size,
        "shots": shots,
        "reference": reference,
        "homographies": shake.homographies(frames, reference, size, rng),
        "movers": tuple(random_mover(other, rng, size, shots, reference) for _ in range(movers)),
        "saturated_share": 0.05,
        "camera": camera,
    }
    return Plan(**{**values, **changes})


def only(plan: Plan, seed: int = 1) -> Photographs:
    return take_all([plan], seed)[0]


# --- the same as the numpy camera -----------------------------------------------------------------


def assert_same(plan: Plan) -> None:
    """Compare both cameras.

    The bounds leave room for versions of OpenCV that warp in steps of 1/32 px (version 4): there a
    sample beside an edge of contrast c is off by up to c/32. Where OpenCV interpolates exactly
    (version 5) the 99th percentile is 2e-5.
    """
    expected, found = take(plan, np.random.default_rng(0)), only(plan).simulated()
    for ours, theirs in zip(found.views, expected.views, strict=True):
        difference = np.abs(ours - theirs) / theirs
        assert np.median(difference) < 1e-3
        assert np.quantile(difference, 0.99) < 2e-2
    most = 1 if plan.camera.bits == 8 else 64  # codes of 14 bits
    for ours, theirs in zip(found.frames, expected.frames, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert (np.abs(ours.astype(int) - theirs) <= most).mean() > 0.99
    assert (found.moving == expected.moving).mean() > 0.995
    assert (found.saturated == expected.saturated).mean() > 0.995
    assert found.shots == expected.shots
    assert found.relative_exposures == expected.relative_exposures


@pytest.mark.parametrize("movers", [0, 1, 3])
@pytest.mark.parametrize("shake", [Shake(), SHAKE])
@pytest.mark.parametrize("bits", [8, 14])
def test_it_sees_what_the_numpy_camera_sees(
    ramp: np.ndarray, elsewhere: np.ndarray, movers: int, shake: Shake, bits: int
) -> None:
    plan = draw(ramp, elsewhere, movers=movers, shake=shake, camera=quiet(bits=bits), seed=movers)
    assert_same(plan)
    assert bool(only(plan).moving.any()) == (movers > 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_it_sees_the_same_through_any_response(ramp: np.ndarray, elsewhere: np.ndarray, seed: int) -> None:
    response = random_response(np.random.default_rng(seed))
    assert_same(draw(ramp, elsewhere, camera=quiet(response=response)))


@pytest.mark.parametrize("shape", [(60, 95), (97, 400), (560, 840)])
def test_it_sees_the_same_of_scenes_of_any_size(elsewhere: np.ndarray, shape: tuple[int, int]) -> None:
    scene = ramp_scene(*shape, np.random.default_rng(5))
    before = scene.copy()
    assert_same(draw(scene, elsewhere, shake=SHAKE))
    assert_same(draw(scene[::-1, ::-1], elsewhere, shake=Shake()))
    assert np.array_equal(scene, before)


def test_views_are_interpolated_exactly() -> None:
    """A straight brightness ramp is a straight ramp, wherever the camera looks."""
    shift = np.array([[1.0, 0.0, 1.37], [0.0, 1.0, -0.61], [0.0, 0.0, 1.0]])
    homographies = np.eye(3), shift
    rows, columns = _Canvas.around(SIZE, homographies).shape  # so that the scene is not resampled
    y, x = np.mgrid[0:rows, 0:columns]
    scene = np.repeat((x + 2 * y)[..., None], 3, axis=2).astype(np.float32) + 100
    plan = draw(scene, scene, movers=0, frames=2, reference=0, homographies=homographies)
    reference, moved = only(plan).views[:, 0].double()
    right, down = reference[0, 1] - reference[0, 0], reference[1, 0] - reference[0, 0]
    assert float(down / right) == pytest.approx(2.0, rel=1e-4)
    assert torch.allclose(moved, reference - 1.37 * right + 0.61 * down, rtol=1e-5)


def test_movers_leave_the_picture_and_cover_each_other(ramp: np.ndarray) -> None:
    path = np.array([[0.0, 0.0], [30.0, -12.0], [5.0, 5.0], [190.0, 40.0]])
    centres = [
        np.array([[65.0, 48.0], [128.0, 3.0], [400.0, 48.0], [-7.5, 90.2]]),
        np.array([[60.0, 40.0], [120.0, 3.0], [-400.0, 48.0], [64.0, 300.0]]),
    ]
    movers = []
    for samples, radiance, centre in zip((40, 61), (9.0, 0.02), centres, strict=True):
        colour = np.full((samples, samples, 3), radiance, np.float32)
        movers.append(Mover(colour, soft_blob(samples, np.random.default_rng(2)), centre, path))
    assert_same(dataclasses.replace(draw(ramp, ramp, movers=0), movers=tuple(movers)))


def test_what_moves_is_marked_and_nothing_else(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    found = only(draw(ramp, elsewhere, shake=Shake()))
    spread = (found.views.amax(dim=0) / found.views.amin(dim=0) - 1).amax(dim=0)
    assert float(spread[~found.moving].max()) < 1e-5
    assert float(spread[found.moving].max()) > 0.1


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("full_well, read_noise, iso", [(10_000, 8.0, 800.0), (40_000, 2.0, 100.0)])
def test_noise_has_the_mean_and_variance_of_its_model(
    full_well: float, read_noise: float, iso: float
) -> None:
    """From a few photons a pixel, which are counted, to thousands, which are not."""
    camera = Camera(bits=14, full_well=full_well, read_noise=read_noise)
    flat = np.ones((150, 150, 3), np.float32)
    still = {"movers": 0, "shake": Shake()}
    plan = draw(flat, flat, size=(150, 150), frames=8, reference=7, camera=camera, iso=iso, **still)
    found = only(plan).simulated()
    step = 1 / (camera.white_level - camera.black_level)
    for codes, ratio in zip(found.frames[:-1], found.relative_exposures, strict=False):
        linear = camera.decode(codes).astype(np.float64)
        expected = float(camera.noise(iso).variance(np.float32(ratio))) + step**2 / 12
        assert linear.var() == pytest.approx(expected, rel=0.03)
        assert linear.mean() == pytest.approx(ratio, rel=0.03, abs=5 * math.sqrt(expected / linear.size))


@pytest.mark.parametrize("electrons", [1.0, 15.0, 17.0, 60.0])
def test_photons_are_distributed_as_poisson_says(electrons: float) -> None:
    """Mean, variance and skewness; below and above the count from which a Gaussian stands in."""
    plan = draw(np.ones((4, 4, 3), np.float32), np.ones((4, 4, 3)), movers=0, camera=quiet(full_well=1000.0))
    signal = torch.full((4, 3, 200, 200), electrons / 1000.0)
    drawn = training_camera._noisy(signal, [plan] * 4, torch.Generator().manual_seed(1)).double() * 1000.0
    away = drawn - drawn.mean()
    assert float(drawn.mean()) == pytest.approx(electrons, rel=0.01)
    assert float(away.square().mean()) == pytest.approx(electrons, rel=0.02)
    assert float(away.pow(3).mean()) == pytest.approx(electrons, rel=0.08)


def test_the_seed_decides_on_the_noise(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    plan = draw(ramp, elsewhere, camera=Camera())
    first, again, other = only(plan, 1), only(plan, 1), only(plan, 2)
    by_generator = take_all([plan], torch.Generator().manual_seed(1))[0]
    assert torch.equal(first.codes, again.codes)
    assert torch.equal(first.codes, by_generator.codes)
    assert not torch.equal(first.codes, other.codes)
    assert torch.equal(first.views, other.views)


# --- codes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["srgb", "gamma2.2", "linear", "random"])
def test_the_table_encodes_as_the_camera_does(curve: str) -> None:
    """Steps between codes may lie 1/60 of a code off."""
    response = random_response(np.random.default_rng(3)) if curve == "random" else Response.named(curve)
    camera = quiet(response=response)
    plan = draw(np.ones((4, 4, 3), np.float32), np.ones((4, 4, 3)), movers=0, camera=camera)
    linear = np.random.default_rng(4).random((1, 100, 1000, 3), dtype=np.float32) ** 2 * 1.1 - 0.01
    found = training_camera._encoded_8(torch.from_numpy(linear.transpose(0, 3, 1, 2).copy()), [plan])
    away = np.abs(found.permute(0, 2, 3, 1).numpy().astype(int) - camera.encode(linear))
    assert away.max() <= 1
    assert away.mean() < 0.02
    ends = torch.tensor([-0.5, 0.0, 1.0, 9.0]).view(1, 1, 1, 4).repeat(1, 3, 1, 1)
    assert training_camera._encoded_8(ends, [plan])[0, 0, 0].tolist() == [0, 0, 255, 255]


@pytest.fixture(scope="module")
def recorded(ramp: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
    """Codes (2, 93, 131, 3) of noisy pictures; sides are no multiple of 8."""
    sim = simulate_bracket(
        ramp, np.random.default_rng(1), size=(93, 131), frames=2, movers=(elsewhere,), iso=400
    )
    return np.stack(sim.frames)


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("quality", [70, 85, 95, 100])
def test_jpeg_files_hold_what_pillow_writes(recorded: np.ndarray, quality: int, subsampled: bool) -> None:
    """Libjpeg transforms in integers, so that a coefficient near a half may be rounded the other way."""
    tensor = torch.from_numpy(recorded.transpose(0, 3, 1, 2).copy())
    found = compressed(tensor, [quality] * 2, subsampled).permute(0, 2, 3, 1).numpy().astype(float)
    expected = np.stack([training_camera._pillow(codes, quality, subsampled) for codes in recorded])
    assert np.abs(found - expected).mean() < 0.5
    assert 10 * math.log10(255**2 / np.square(found - expected).mean()) > 48


@pytest.mark.parametrize("subsampled", [False, True])
@pytest.mark.parametrize("height, width", [(2, 2), (8, 8), (16, 17), (9, 31), (33, 46)])
def test_jpeg_is_right_up_to_the_edges(height: int, width: int, subsampled: bool) -> None:
    y, x = np.mgrid[0:height, 0:width]
    codes = np.stack([40 + 3 * x + 2 * y, 220 - 3 * x, 30 + 4 * y], axis=-1).astype(np.uint8)
    tensor = torch.from_numpy(codes.transpose(2, 0, 1).copy())[None]
    found = compressed(tensor, [100], subsampled)[0].permute(1, 2, 0).numpy()
    away = np.abs(found - training_camera._pillow(codes, 100, subsampled).astype(int))
    assert away.mean() < 0.4
    assert away.max() <= 3


def test_each_frame_has_the_quality_of_its_plan(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    plain = draw(ramp, elsewhere)
    plans = [
        dataclasses.replace(plain, jpeg_quality=quality, subsampled=subsampled)
        for quality, subsampled in [(None, False), (70, False), (100, False), (70, True), (95, True)]
    ]
    for plan, found in zip(plans, take_all(plans, 1), strict=True):
        expected = take(plan, np.random.default_rng(1))
        away = np.abs(np.stack(found.simulated().frames).astype(float) - np.stack(expected.frames))
        assert away.mean() < 0.5
        assert np.array_equal(found.simulated().saturated, expected.saturated)


# --- in bulk --------------------------------------------------------------------------------------


def mixed(ramp: np.ndarray, elsewhere: np.ndarray) -> list[Plan]:
    response = random_response(np.random.default_rng(3))
    return [
        draw(ramp, elsewhere, 1),
        draw(ramp[::2, ::2], elsewhere, 2, frames=2, reference=0, movers=1, camera=quiet(response=response)),
        draw(elsewhere, ramp, 3, size=(64, 64), camera=quiet(bits=14)),
        draw(elsewhere, ramp, 4, frames=7, reference=5, shake=Shake(), camera=quiet(bits=14)),
        draw(elsewhere, ramp, 5, frames=3, movers=0, shake=Shake(shift=9), saturated_share=0.2),
    ]


@pytest.mark.parametrize("at_once", [1, 1 << 30])
def test_a_batch_equals_its_members(
    ramp: np.ndarray, elsewhere: np.ndarray, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    plans = mixed(ramp, elsewhere)
    alone = [only(plan) for plan in plans]
    monkeypatch.setitem(training_camera.AT_ONCE, "cpu", at_once)
    for plan, one, member in zip(plans, alone, take_all(plans, 1), strict=True):
        assert member.plan is plan
        assert torch.allclose(member.views, one.views, rtol=1e-3, atol=1e-5)
        assert (member.codes != one.codes).float().mean() < (0.01 if plan.camera.bits == 8 else 0.1)
        assert (member.codes.int() - one.codes.int()).abs().max() <= (1 if plan.camera.bits == 8 else 8)
        assert torch.equal(member.moving, one.moving)
        assert (member.saturated != one.saturated).float().mean() < 1e-3


def test_tensors_have_the_stated_types(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    for plan, found in zip(mixed(ramp, elsewhere), take_all(mixed(ramp, elsewhere), 1), strict=True):
        frames = len(plan.shots), 3, *plan.size
        assert found.codes.shape == found.views.shape == frames
        assert found.codes.dtype == (torch.uint8 if plan.camera.bits == 8 else torch.int32)
        assert found.views.dtype == torch.float32
        assert found.moving.shape == found.saturated.shape == plan.size
        assert found.moving.dtype == found.saturated.dtype == torch.bool
        assert torch.equal(found.truth, found.views[plan.reference])
        assert float(found.saturated.float().mean()) == pytest.approx(plan.saturated_share, abs=0.02)
        bracket = found.simulated().bracket()
        assert bracket.reference == plan.reference
        assert bracket.reference_frame.linear().shape == (*plan.size, 3)


def test_nothing_to_take_gives_nothing() -> None:
    assert take_all([], 1) == []


def test_plans_that_cannot_be_taken_are_refused(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8 bits"):
        draw(ramp, elsewhere, camera=quiet(bits=14), jpeg_quality=90)
    with pytest.raises(ValueError, match="identity at index 1"):
        draw(ramp, elsewhere, homographies=(np.eye(3),) * 3)


# --- devices --------------------------------------------------------------------------------------


def test_every_tensor_is_made_on_the_device(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    """Tensors that nobody said a device for would land on meta, and mix with no other."""
    plans = [dataclasses.replace(draw(ramp, elsewhere, camera=Camera()), jpeg_quality=90, subsampled=True)]
    plans += mixed(ramp, elsewhere)
    expected = take_all(plans, 1, "cpu")
    with torch.device("meta"):
        found = take_all(plans, 1, torch.device("cpu"))
    for one, same in zip(found, expected, strict=True):
        assert one.codes.device.type == one.moving.device.type == "cpu"
        assert torch.equal(one.codes, same.codes)


def test_autocast_and_fast_products_change_nothing(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    plan = dataclasses.replace(draw(ramp, elsewhere), jpeg_quality=90)
    expected = only(plan)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = only(plan)
    assert torch.equal(found.codes, expected.codes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_sees_the_same(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    plans = mixed(ramp, elsewhere)
    plans.append(dataclasses.replace(plans[0], jpeg_quality=90, subsampled=True))
    for there, here in zip(take_all(plans, 1, "cuda"), take_all(plans, 1, "cpu"), strict=True):
        assert there.codes.device.type == there.views.device.type == "cuda"
        assert torch.allclose(there.views.cpu(), here.views, rtol=1e-3, atol=1e-5)
        assert (there.codes.cpu() != here.codes).float().mean() < 0.1
        assert torch.equal(there.moving.cpu(), here.moving)
