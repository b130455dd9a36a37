"""What each patch of three frames is good for, and how right its label is."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge.exposure import Float, NoiseModel, mu_law
from hdrmerge.simulate import Shake, Simulated, simulate_bracket
from hdrmerge.training import pseudo_labels
from hdrmerge.training.pseudo_labels import (
    PAPER,
    Kind,
    Labelled,
    Rules,
    Triplet,
    agreement,
    fuse,
    fusion_noise,
    grid,
    in_range,
    known,
    label_triplet,
    luma,
    weights,
    well_exposed,
)
from hdrmerge.training.reexposure import CLIPPED, decode, encode, saturated

SIZE, RULES = (256, 384), Rules(patch=64, stride=32)
EXPOSURES = (0.25, 1.0, 4.0)


def triplet_of(sim: Simulated, noise: bool = True) -> Triplet:
    short, middle, long = (encode(sim.camera.decode(codes)) for codes in sim.frames)
    models = tuple(frame.noise for frame in sim.bracket().frames)
    return Triplet((short, middle, long), EXPOSURES, models if noise else None)


@pytest.fixture(scope="module")
def taken(ramp: np.ndarray, elsewhere: np.ndarray) -> Simulated:
    rng = np.random.default_rng(3)
    shake = Shake(rotation=0.1, shift=2.0)
    return simulate_bracket(
        ramp, rng, size=SIZE, shake=shake, movers=[elsewhere, elsewhere], saturated_share=0.15
    )


@pytest.fixture(scope="module")
def labelled(taken: Simulated) -> Labelled:
    return label_triplet(triplet_of(taken), np.random.default_rng(0), RULES)


def patches(found: Labelled, kind: Kind) -> list[tuple[slice, slice]]:
    return [
        (slice(p.top, p.top + RULES.patch), slice(p.left, p.left + RULES.patch))
        for p in found.patches
        if p.kind & kind
    ]


# --- the steps ------------------------------------------------------------------------------------


def test_patches_overlap_by_half() -> None:
    assert grid(128, 256) == [(0, 0), (0, 64), (0, 128)]
    assert grid(127, 999) == []


@pytest.mark.parametrize(
    ("code", "shares"),
    [(0, (0, 0, 1)), (0.25, (0, 0.5, 0.5)), (0.5, (0, 1, 0)), (0.75, (0.5, 0.5, 0)), (1, (1, 0, 0))],
)
def test_weights_are_triangles(code: float, shares: tuple[float, ...]) -> None:
    assert tuple(float(weight) for weight in weights(np.float32(code))) == shares


def test_weights_add_up_to_one() -> None:
    assert np.allclose(sum(weights(np.linspace(0, 1, 999, dtype=np.float32))), 1.0)


def test_fusing_what_frames_record_gives_back_the_radiance() -> None:
    """Even where the long frame clips and the paper's weights would still use it."""
    radiance = np.geomspace(1e-3, 3.9, 3 * 500, dtype=np.float32).reshape(10, 50, 3)
    for exposures in ((0.25, 1.0, 4.0), (0.25, 1.0, 64.0)):
        codes = [encode(radiance * np.float32(exposure)) for exposure in exposures]
        clean = radiance.max(axis=-1) * 0.25 < decode(np.float32(CLIPPED))
        assert np.abs(fuse(codes, exposures) / radiance - 1)[clean].max() < 0.02


def test_well_exposed_is_nearly_all_in_range_and_nothing_saturated() -> None:
    code = np.full((20, 20, 3), 0.5, np.float32)
    assert well_exposed(in_range(code), saturated(code))
    code[0] = 0.1  # 5 %
    assert well_exposed(in_range(code), saturated(code))
    code[1, 0] = 0.76
    assert not well_exposed(in_range(code), saturated(code))
    assert well_exposed(in_range(code), saturated(code), PAPER)


def test_one_saturated_channel_spoils_a_patch() -> None:
    code = np.full((20, 20, 3), 0.3, np.float32)
    code[0, :3, 2] = 1.0  # luma 0.38
    assert in_range(code).all()
    assert not well_exposed(in_range(code), saturated(code))
    code[0, 2, 2] = 0.3  # 0.5 %
    assert well_exposed(in_range(code), saturated(code))


def test_luma_is_that_of_rec_601() -> None:
    assert luma(np.eye(3, dtype=np.float32)[None]).ravel().tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_agreement_is_a_psnr_of_codes_where_they_are_well_exposed() -> None:
    code = np.full((8, 8, 3), 0.5, np.float32)
    code[0] = 1.0
    within = in_range(code)
    shifted = decode(code + np.float32(0.0056))
    shifted[0] = 40.0
    assert agreement(shifted, code, within) == pytest.approx(45.0, abs=0.1)
    assert agreement(decode(code), code, within) > 100
    assert np.isnan(agreement(shifted, code, np.zeros((8, 8), np.bool_)))


def test_noise_is_no_disagreement_up_to_a_point() -> None:
    code = np.full((8, 8, 3), 0.5, np.float32)
    off, within = decode(code + np.float32(0.01)), np.ones((8, 8), np.bool_)
    assert agreement(off, code, within) == pytest.approx(40.0, abs=0.1)
    assert agreement(off, code, within, 0.5e-4) == pytest.approx(43.0, abs=0.1)
    assert agreement(off, code, within, 1.0) == pytest.approx(46.0, abs=0.1)


def test_noise_of_a_fusion_is_what_is_seen() -> None:
    rng = np.random.default_rng(0)
    radiance = np.geomspace(0.02, 0.5, 200 * 100, dtype=np.float32).reshape(200, 100, 1).repeat(3, axis=2)
    models = [NoiseModel(1e-4, 1e-4), NoiseModel(2e-4, 1e-4), NoiseModel(4e-4, 1e-4)]
    codes = []
    for model, exposure in zip(models, EXPOSURES, strict=True):
        linear = radiance * np.float32(exposure)
        codes.append(encode(linear + rng.standard_normal(linear.shape) * np.sqrt(model.variance(linear))))
    codes[2] = np.minimum(codes[2], 0.979).astype(np.float32)  # not to be left out
    below = radiance[:, :, 0] < 0.24
    seen = float(np.square(encode(fuse(codes, EXPOSURES)) - codes[1])[below].mean())
    told = fusion_noise(codes[1][below], EXPOSURES, models)
    assert told == pytest.approx(seen, rel=0.1)


def test_the_noise_of_a_stand_in_cancels() -> None:
    code = np.full((50, 3), 0.3, np.float32)
    loud = [NoiseModel(1e-2, 1e-2)] * 3
    assert fusion_noise(code, (0.25, 1.0, 1.0), loud, stand_ins=[2]) == pytest.approx(0.0, abs=1e-12)


def test_a_label_is_known_up_to_where_the_shortest_frame_clips() -> None:
    label = np.full((1, 2, 3), 0.5, np.float32)
    label[0, 1, 2] = 3.95
    assert known(label, 0.25).tolist() == [[True, False]]
    assert known(label, 0.2).tolist() == [[True, True]]


# --- all of them ----------------------------------------------------------------------------------


def test_static_labels_are_the_truth(taken: Simulated, labelled: Labelled) -> None:
    """Also where something moved by so little that it passes for static."""
    found = patches(labelled, Kind.STATIC)
    assert len(found) > 15
    assert labelled.label is not None
    assert any(taken.saturated[at].mean() > 0.1 for at in found)  # radiance beyond the reference's white
    for at in found:
        sure = known(labelled.label[at], 0.25)
        error = mu_law(labelled.label[at][sure] / 4) - mu_law(taken.truth[at][sure] / 4)
        assert -10 * np.log10(np.square(error).mean()) > 45


def test_where_something_moved_is_hardly_ever_static(taken: Simulated, labelled: Labelled) -> None:
    static = {(at[0].start, at[1].start) for at in patches(labelled, Kind.STATIC)}
    moving = {(y, x) for y, x in grid(*SIZE, 64, 32) if taken.moving[y : y + 64, x : x + 64].mean() > 0.1}
    assert len(moving) > 20
    assert len(moving & static) < len(moving) / 4
    assert len(static - moving) > 10
    assert any(taken.moving[at].mean() > 0.1 for at in patches(labelled, Kind.DYNAMIC))


def test_dynamic_and_lit_patches_are_well_exposed(taken: Simulated, labelled: Labelled) -> None:
    code = triplet_of(taken).codes[1]
    for at in patches(labelled, Kind.DYNAMIC | Kind.WELL):
        assert well_exposed(in_range(code[at]), saturated(code[at]))
    for at in patches(labelled, Kind.DONOR):
        assert saturated(code[at]).mean() >= 0.1
    assert patches(labelled, Kind.DONOR)


def test_every_patch_is_of_use_or_rejected_with_a_reason(labelled: Labelled) -> None:
    useful = [patch for patch in labelled.patches if patch.kind & ~Kind.DONOR]
    assert len(useful) + sum(labelled.rejected.values()) == len(grid(*SIZE, 64, 32))
    assert labelled.dominant
    assert max(labelled.dominant) < 8


def test_labels_follow_from_the_seed(taken: Simulated, labelled: Labelled) -> None:
    again = label_triplet(triplet_of(taken), np.random.default_rng(0), RULES)
    assert again.patches == labelled.patches
    assert np.array_equal(again.label, labelled.label)


def test_far_motion_makes_all_patches_dynamic(ramp: np.ndarray) -> None:
    matrices = [np.array([[1, 0, dx], [0, 1, 0], [0, 0, 1]], float) for dx in (18, 0, 2)]
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, shake=matrices)
    found = label_triplet(triplet_of(sim), np.random.default_rng(0), RULES)
    assert found.label is None
    assert not patches(found, Kind.STATIC)
    assert patches(found, Kind.DYNAMIC)
    assert found.dominant[0] > 15


def test_a_fusion_that_disagrees_is_thrown_away(ramp: np.ndarray) -> None:
    """Exposures that are said to be 30 % longer than they were, and a flow that sees nothing move."""

    def still(a: np.ndarray, b: np.ndarray) -> Float:
        return np.zeros((*a.shape, 2), np.float32)

    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE)
    triplet = triplet_of(sim)
    right = label_triplet(triplet, np.random.default_rng(0), RULES, still)
    lies = Triplet(triplet.codes, (0.25 * 1.3, 1.0, 4.0 * 1.3), triplet.noise)
    wrong = label_triplet(lies, np.random.default_rng(0), RULES, still)
    assert len(patches(right, Kind.STATIC)) > 50
    assert len(patches(wrong, Kind.STATIC)) < 10  # in the middle of the tones the reference alone counts
    assert any("disagrees with the reference (45 dB)" in reason for reason in wrong.rejected)


def test_noise_is_allowed_for(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(2), size=SIZE, iso=1600, saturated_share=0.1)
    counts = [
        len(patches(label_triplet(triplet_of(sim, noise), np.random.default_rng(0), RULES), Kind.STATIC))
        for noise in (False, True)
    ]
    assert counts[1] > counts[0] + 5


def test_patches_reach_into_the_border_only_as_far_as_frames_do(ramp: np.ndarray) -> None:
    matrices = [np.array([[1, 0, dx], [0, 1, 0], [0, 0, 1]], float) for dx in (0, 0, 6)]
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, shake=matrices)
    found = label_triplet(triplet_of(sim), np.random.default_rng(0), RULES)
    assert found.rejected.get("beyond the border of a frame", 0) > 0
    assert all(at[1].stop <= SIZE[1] - 6 for at in patches(found, Kind.STATIC))


def test_a_stand_in_is_not_looked_at(taken: Simulated) -> None:
    short, middle, _ = triplet_of(taken).codes
    pair = Triplet((short, middle, middle), (0.25, 1.0, 1.0))
    assert pair.others == [0]
    seen: list[int] = []

    def flow(still: np.ndarray, moving: np.ndarray) -> Float:
        seen.append(1)
        return pseudo_labels.dis_flow(still, moving)

    found = label_triplet(pair, np.random.default_rng(0), RULES, flow)
    assert len(seen) == 2
    assert len(found.dominant) == 1
    assert patches(found, Kind.STATIC)


def test_frames_smaller_than_a_patch_give_nothing(taken: Simulated) -> None:
    found = label_triplet(triplet_of(taken), np.random.default_rng(0), Rules(patch=260))
    assert found.patches == []
    assert found.rejected == {}
