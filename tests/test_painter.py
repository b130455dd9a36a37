"""What networks that paint are told, plane by plane, and what they mean."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature

import numpy as np
import pytest

from hdrmerge.exposure import mu_law
from hdrmerge.painter import OUTPUTS, PLANES, Seen, from_linear, from_symmetric, well_exposed
from hdrmerge.pipeline import USES

CLIP = 0.9
RATIOS = (0.25, 1.0, 8.0)


@pytest.fixture
def seen() -> Seen:
    """Three frames of a scene by a sensor that clips at 0.9; some of it is below zero, some too bright."""
    scene = np.random.default_rng(1).uniform(-0.05, 4.0, (3, 6, 8)).astype(np.float32)
    signals = [[np.minimum(plane * np.float32(ratio), CLIP) for plane in scene] for ratio in RATIOS]
    return Seen(signals, [CLIP] * 3, RATIOS, limit=CLIP / 0.25, merged=np.moveaxis(scene, 0, -1))


def test_every_plane_has_its_place(seen: Seen) -> None:
    counts = {"low": 6, "reference": 6, "high": 6, "merged": 3, "frames": 9, "masked": 4, "linear": 3}
    told = {name: plane(seen) for name, plane in PLANES.items()}
    assert {name: len(values) for name, values in told.items()} == counts
    for name, values in told.items():
        assert values.shape[1:] == (6, 8)
        assert values.dtype == np.float32
        assert values.min() >= (-1 if name in ("low", "reference", "high", "merged") else 0)
        assert values.max() <= 1


def test_code_values_end_where_a_frame_clips_and_radiance_where_the_shortest_does(seen: Seen) -> None:
    for frame, ratio in enumerate(RATIOS):
        signal = np.clip(np.stack(seen.signals[frame]), 0, None)
        np.testing.assert_allclose(np.stack(seen.codes(frame)), (signal / CLIP) ** (1 / 2.2), atol=1e-6)
        radiance = np.stack(seen.radiance(frame))
        np.testing.assert_allclose(radiance, signal / ratio / (CLIP / 0.25), atol=1e-6)
        assert radiance.max() == pytest.approx(0.25 / ratio, rel=1e-5)


def test_planes_are_made_of_code_values_and_radiance(seen: Seen) -> None:
    codes, radiance = ([np.stack(one(k)) for k in range(3)] for one in (seen.codes, seen.radiance))
    for k, name in enumerate(("low", "reference", "high")):
        expected = 2 * np.concatenate([codes[k], mu_law(radiance[k])]) - 1
        np.testing.assert_allclose(PLANES[name](seen), expected, atol=1e-6)
    np.testing.assert_array_equal(PLANES["frames"](seen), np.concatenate(codes))
    np.testing.assert_array_equal(PLANES["linear"](seen), radiance[1])
    merged = np.clip(np.moveaxis(seen.merged, -1, 0) / seen.limit, 0, 1)
    np.testing.assert_allclose(PLANES["merged"](seen), 2 * mu_law(merged) - 1, atol=1e-6)


def test_the_mask_is_of_the_reference_alone(seen: Seen) -> None:
    masked = PLANES["masked"](seen)
    well = masked[3] == 1
    assert 0 < well.mean() < 1
    assert (masked[3][~well] == 0).all()
    np.testing.assert_array_equal(masked[:3, well], np.stack(seen.codes(1))[:, well])
    assert not masked[:3, ~well].any()
    others = [[plane * 0 for plane in seen.signals[0]], seen.signals[1], seen.signals[0]]
    np.testing.assert_array_equal(PLANES["masked"](replace(seen, signals=others)), masked)


@pytest.mark.parametrize(
    ("code", "well"),
    [(0.0, False), (0.124, False), (0.126, True), (0.5, True), (0.749, True), (0.751, False), (1.0, False)],
)
def test_what_is_well_exposed_is_told_by_luma(code: float, well: bool) -> None:
    """Grey of that code, and a colour whose luma it is."""
    colour = np.array([code + 0.114, code, code - 0.299], np.float32)
    grey = np.full(3, code, np.float32)
    np.testing.assert_array_equal(well_exposed(np.stack([grey, colour])[None]), [[well, well]])


def test_outputs_mean_radiance() -> None:
    said = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0], np.float32)
    np.testing.assert_array_equal(from_linear(said), np.array([0, 0, 0, 0.5, 1, 1], np.float32))
    radiance = np.array([0.0, 1e-4, 0.01, 0.3, 1.0], np.float32)
    np.testing.assert_allclose(from_symmetric(2 * mu_law(radiance) - 1), radiance, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(from_symmetric(said[[0, -1]]), [0, 1], atol=1e-6)


@pytest.mark.parametrize("architecture", sorted(OUTPUTS))
def test_every_architecture_that_paints_asks_for_known_planes(architecture: str) -> None:
    pytest.importorskip("torch")
    from hdrmerge.networks import build

    assert USES[architecture] == "paint"
    names = signature(build(architecture, {"width": 16}).forward).parameters
    assert set(names) <= set(PLANES)


def test_no_other_architecture_paints() -> None:
    assert {architecture for architecture, use in USES.items() if use == "paint"} == set(OUTPUTS)
