"""Three frames reach the network as documented, and what it paints stays where it may."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge import infer
from hdrmerge.align import Alignment
from hdrmerge.bracket import Bracket, Frame, Shot
from hdrmerge.deghost import Ghosts
from hdrmerge.entrust import gather_evidence
from hdrmerge.errors import NetworkError
from hdrmerge.exposure import Float, NoiseModel, Response, mu_law, smoothstep
from hdrmerge.fuse import Painted, Three, fuse, survey
from hdrmerge.infer import Arrays, Engine, open_engine
from hdrmerge.merge import merge, upsampled
from hdrmerge.proxy import shrink
from hdrmerge.scene import Mover
from hdrmerge.simulate import Camera, Simulated, homography, simulate_bracket

SIZE = 120, 160
UNMOVED = Alignment("none", np.eye(3))
OUT = Alignment("none", np.eye(3), used=False, note="of something else")
HALO, MULTIPLE = 8, 4
COUNTS = {"low": 6, "reference": 6, "high": 6, "merged": 3, "frames": 9, "masked": 4, "linear": 3}
SELF_SUPERVISED = ("unet", "resnet", "grdn")


class Painter(Engine):
    """Paints by a function of its inputs, and remembers them; they are those that the function names."""

    def __init__(self, paint: Any, free: float = 1e9, architecture: str = "hdrgan") -> None:
        names = list(signature(paint).parameters)
        card = {"halo": HALO, "multiple": MULTIPLE, "bytes_per_pixel": 1000, "inputs": names}
        super().__init__(Path("painter.onnx"), card | {"architecture": architecture}, "cpu", "fp32")
        self.paint, self.free = paint, free
        self.seen: list[Arrays] = []

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        assert list(inputs) == self.card["inputs"]
        size = next(iter(inputs.values())).shape[2:]
        for name, values in inputs.items():
            assert values.shape == (1, COUNTS[name], *size)
            assert values.dtype == np.float32
        assert all(n % MULTIPLE == 0 for n in size)
        self.seen.append(dict(inputs))
        return {"radiance": np.asarray(self.paint(**inputs), np.float32)}

    def describe(self) -> str:
        return "painter"

    def free_memory(self) -> float:
        return self.free


def own_radiance(low: Float, reference: Float, high: Float) -> Float:
    """The reference as it is."""
    return reference[:, 3:]


def low_radiance(low: Float, reference: Float, high: Float) -> Float:
    return low[:, 3:]


def high_radiance(low: Float, reference: Float, high: Float) -> Float:
    return high[:, 3:]


def as_merged(low: Float, reference: Float, high: Float, merged: Float) -> Float:
    """The merge as it is."""
    return merged


def own_light(frames: Float, masked: Float, linear: Float) -> Float:
    """The reference as it is, in linear light."""
    return linear


def short_light(frames: Float, masked: Float, linear: Float) -> Float:
    """The short frame as it is, in linear light: its 1.0 is that of the network."""
    return frames[:, :3] ** np.float32(2.2)


def any_light(frames: Float, masked: Float, linear: Float) -> Float:
    return anything(linear, np.concatenate([linear, linear], axis=1), linear)


def surroundings(low: Float, reference: Float, high: Float, merged: Float) -> Float:
    """Dark where the merge is bright, and bright where it is dark, as far away as the halo reaches."""
    size = merged.shape[2:]
    wide = np.pad(merged, [(0, 0), (0, 0), (HALO, HALO), (HALO, HALO)], "edge")
    away = [(0, HALO), (2 * HALO, HALO), (HALO, 0), (HALO, 2 * HALO)]
    return np.float32(-0.25) * sum(wide[..., y : y + size[0], x : x + size[1]] for y, x in away)


def anything(low: Float, reference: Float, high: Float) -> Float:
    """Values of any size, some of them none at all."""
    values = np.random.default_rng(0).normal(0, 3, reference[:, 3:].shape).astype(np.float32)
    values[..., ::5, ::7] = np.nan
    values[..., ::11, ::3] = np.inf
    return values


def merged(
    bracket: Bracket,
    engine: Engine,
    everywhere: bool = False,
    alignments: Sequence[Alignment] | None = None,
) -> tuple[np.ndarray, np.ndarray, Ghosts, Painted]:
    """Return the merge, what was painted over it, the ghosts and the report."""
    alignments = alignments or [UNMOVED] * len(bracket.frames)
    proxies = [shrink(frame) for frame in bracket.frames]
    ghosts = survey(bracket.frames, proxies, alignments, bracket.reference, everywhere)
    plain, _ = merge(bracket, alignments, ghosts)
    result = plain.copy()
    painted = fuse(result, bracket, alignments, ghosts, engine)
    return plain, result, ghosts, painted


def gate_at(ghosts: Ghosts, size: tuple[int, int]) -> np.ndarray:
    gate = upsampled(ghosts.gate, size[0], (0, size[0], 0, size[1]))
    return np.zeros(size, np.float32) if gate is None else np.asarray(gate)


def walker(scene: np.ndarray, frames: int, seed: int = 5) -> Mover:
    """A disc of another scene that jumps from frame to frame."""
    samples = 48
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:samples, :samples] - (samples - 1) / 2
    alpha = np.clip((samples / 2 - 2 - np.hypot(x, y)) / 3, 0, 1).astype(np.float32)
    radiance = scene[50 : 50 + samples, 80 : 80 + samples] * np.float32(0.2)
    centres = np.array(SIZE[::-1]) / 2 + rng.uniform(-20, 20, (frames, 2))
    return Mover(radiance, alpha, centres, np.zeros((frames, 2)))


def street(ramp: np.ndarray, elsewhere: np.ndarray, frames: int = 3, **options: Any) -> Simulated:
    options = {"size": SIZE, "step_ev": 2.0, **options}
    movers = [walker(elsewhere, frames)]
    return simulate_bracket(ramp, np.random.default_rng(5), frames=frames, movers=movers, **options)


@pytest.fixture(scope="module")
def moving(ramp: np.ndarray, elsewhere: np.ndarray) -> Bracket:
    return street(ramp, elsewhere).bracket()


# --- which three ----------------------------------------------------------------------------------


def of_exposures(*times: float) -> list[Frame]:
    codes = np.zeros((4, 4, 3), np.uint8)
    curve, noise = Response.named("srgb"), NoiseModel.from_iso(100)
    return [Frame(Shot(Path(f"{t}.jpg"), exposure_time=t), codes, curve, noise) for t in times]


@pytest.mark.parametrize(
    ("times", "out", "reference", "found"),
    [
        ((1, 2, 4), (), 1, (0, 1, 2)),
        ((1, 2, 4), (), 0, (0, 0, 1)),
        ((1, 2, 4), (), 2, (1, 2, 2)),
        ((1, 2), (), 1, (0, 1, 1)),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9), (), 4, (3, 4, 5)),
        ((1, 2, 3, 4, 5), (1, 3), 2, (0, 2, 4)),
        ((1, 2, 4), (0, 2), 1, (1, 1, 1)),
        ((1, 2, 2, 2, 4), (), 2, (0, 2, 4)),
    ],
)
def test_the_neighbours_in_exposure_are_chosen(
    times: tuple[float, ...], out: tuple[int, ...], reference: int, found: tuple[int, int, int]
) -> None:
    alignments = [OUT if k in out else UNMOVED for k in range(len(times))]
    assert Three.of(of_exposures(*times), alignments, reference) == Three(*found)


# --- what the network sees ------------------------------------------------------------------------


def test_inputs_are_as_documented(moving: Bracket) -> None:
    """Code values of each frame, and radiance that is 1.0 where the shortest clips."""
    painter = Painter(own_radiance)
    still = replace(moving, frames=(moving.frames[0], moving.frames[1], moving.frames[2]))
    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones(SIZE, np.float32))
    fuse(np.zeros((*SIZE, 3), np.float32), still, [UNMOVED] * 3, ghosts, painter)
    (seen,) = painter.seen
    exposures = [frame.exposure for frame in moving.frames]
    for name, frame, exposure in zip(("low", "reference", "high"), moving.frames, exposures, strict=True):
        linear = np.moveaxis(frame.linear(), -1, 0)
        scene = linear * (exposures[0] / exposure)  # 1.0 where the shortest clips
        np.testing.assert_allclose(seen[name][0, :3], 2 * linear ** (1 / 2.2) - 1, atol=2e-5)
        np.testing.assert_allclose(seen[name][0, 3:], 2 * mu_law(scene) - 1, atol=2e-5)
        assert seen[name].min() >= -1.0
        assert seen[name].max() <= 1.0


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_networks_of_linear_light_see_code_values(moving: Bracket, reference: int) -> None:
    """Of all three, of the reference where it is well exposed, and the radiance that it recorded."""
    painter = Painter(own_light, architecture="unet")
    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones(SIZE, np.float32))
    bracket = replace(moving, reference=reference)
    painted = fuse(np.zeros((*SIZE, 3), np.float32), bracket, [UNMOVED] * 3, ghosts, painter)
    (seen,) = painter.seen
    assert list(seen) == ["frames", "masked", "linear"]
    three = [bracket.frames[max(reference - 1, 0)], bracket.frames[reference]]
    three.append(bracket.frames[min(reference + 1, 2)])
    linear = [np.moveaxis(frame.linear(), -1, 0) for frame in three]
    codes = [level ** (1 / 2.2) for level in linear]
    np.testing.assert_allclose(seen["frames"][0], np.concatenate(codes), atol=2e-5)
    luma = np.tensordot([0.299, 0.587, 0.114], codes[1], 1)
    sure = np.minimum(abs(luma - 0.125), abs(luma - 0.75)) > 1e-4
    well = (luma > 0.125) & (luma < 0.75)
    assert 0 < well.mean() < 1
    np.testing.assert_array_equal(seen["masked"][0, 3][sure], well[sure])
    np.testing.assert_array_equal(seen["masked"][0, :3], seen["frames"][0, 3:6] * seen["masked"][0, 3])
    ratio = three[0].exposure / three[1].exposure  # of the shortest, which clips at radiance 1.0
    np.testing.assert_allclose(seen["linear"][0], linear[1] * ratio, atol=2e-6)
    assert painted.limit == pytest.approx(1 / ratio, rel=1e-4)


def codes_of_merge(plain: Float, limit: float) -> np.ndarray:
    """Return what a network should see of a merge, (3, H, W)."""
    return np.moveaxis(2 * mu_law(np.minimum(plain / np.float32(limit), np.float32(1))) - 1, -1, 0)


@pytest.mark.parametrize("frames", [2, 3, 5, 9])
def test_the_merge_of_all_frames_is_seen_as_documented(
    ramp: np.ndarray, elsewhere: np.ndarray, frames: int
) -> None:
    """In the unit of the other radiances: it ends where theirs does."""
    sim = street(ramp, elsewhere, frames, step_ev=1.0, saturated_share=0.4, iso=3200)
    painter = Painter(as_merged)
    plain, _, _, painted = merged(sim.bracket(), painter, everywhere=True)
    (seen,) = painter.seen
    np.testing.assert_allclose(seen["merged"][0], codes_of_merge(plain, painted.limit), atol=2e-6)
    assert seen["merged"].min() >= -1.0
    assert seen["merged"].max() <= 1.0
    if frames > 3:  # and those beyond three know what these do not
        assert np.mean(plain.max(axis=-1) >= painted.limit) > 0.02
        assert np.mean(seen["merged"].max(axis=1) == 1.0) > 0.02
    for name in ("low", "reference", "high"):
        assert np.abs(seen["merged"] - seen[name][:, 3:]).max() > 0.05


@pytest.mark.parametrize("everywhere", [False, True])
def test_windows_see_the_merge_and_not_what_was_painted_before(
    moving: Bracket, monkeypatch: pytest.MonkeyPatch, everywhere: bool
) -> None:
    """What is painted depends on the merge a halo away, which lies in tiles that are painted already."""
    monkeypatch.setattr(infer, "SMALLEST_TILE", 16)
    whole, tiled = Painter(surroundings), Painter(surroundings)
    plain, expected, ghosts, painted = merged(moving, whole, everywhere)
    monkeypatch.setattr("hdrmerge.fuse.LARGEST_TILE", 16)
    _, result, _, _ = merged(moving, tiled, everywhere)
    assert len(whole.seen) == 1
    assert len(tiled.seen) > 5
    open_ = (gate_at(ghosts, SIZE) == 1) & (plain.max(axis=-1) < 0.95 * painted.limit)
    loud = np.abs(mu_law(expected[open_] / painted.limit) - mu_law(plain[open_] / painted.limit))
    assert np.median(loud) > 0.1
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_the_merge_is_kept_only_for_a_network_that_sees_it_and_paints(
    moving: Bracket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as large as the result."""
    taken = []

    class Counted(np.ndarray):
        def copy(self, order: Any = "C") -> np.ndarray:
            taken.append(self.shape)
            return np.asarray(self).copy(order)

    for paint, opened, expected in ((own_radiance, 1, 0), (as_merged, 0, 0), (as_merged, 1, 1)):
        taken.clear()
        ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.full(SIZE, opened, np.float32))
        fuse(np.ones((*SIZE, 3), np.float32).view(Counted), moving, [UNMOVED] * 3, ghosts, Painter(paint))
        assert len(taken) == expected


@pytest.mark.parametrize(("reference", "alike"), [(0, "low"), (2, "high")])
def test_the_reference_stands_in_for_a_missing_neighbour(moving: Bracket, reference: int, alike: str) -> None:
    painter = Painter(own_radiance)
    bracket = replace(moving, reference=reference)
    _, _, _, painted = merged(bracket, painter, everywhere=True)
    (seen,) = painter.seen
    np.testing.assert_array_equal(seen[alike], seen["reference"])
    other = "high" if alike == "low" else "low"
    assert not np.array_equal(seen[other], seen["reference"])
    assert painted.limit == pytest.approx(1.0 if reference == 0 else 4.0, rel=1e-3)
    assert painted.frames == ((0, 1) if reference == 0 else (1, 2))


def test_the_reference_stands_in_where_a_neighbour_ends(ramp: np.ndarray) -> None:
    matrix = homography(SIZE, shift=(20.0, 0.0))
    shake = [matrix, np.eye(3), np.eye(3)]
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, shake=shake)
    painter = Painter(own_radiance)
    merged(sim.bracket(), painter, True, [Alignment("translation", matrix), UNMOVED, UNMOVED])
    (seen,) = painter.seen
    outside = np.s_[0, 3:, :, -19:]
    np.testing.assert_allclose(seen["low"][outside], seen["reference"][outside], atol=1e-5)
    level = (seen["reference"][0, :3, :, -19:] + 1) / 2
    dimmer = level * np.float32(0.25 ** (1 / 2.2))
    np.testing.assert_allclose((seen["low"][0, :3, :, -19:] + 1) / 2, dimmer, atol=2e-3)


def test_frames_are_aligned_and_what_moved_is_put_in_place(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    """The network sees frames as the merge does: the shaken one in the reference's geometry."""
    matrix = homography(SIZE, rotation=0.5, shift=(6.0, -3.0))
    shake = [matrix, np.eye(3), np.eye(3)]
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, shake=shake)
    painter = Painter(own_radiance)
    merged(sim.bracket(), painter, True, [Alignment("homography", matrix), UNMOVED, UNMOVED])
    inner = np.s_[0, 3:, 12:-12, 12:-12]
    dark = painter.seen[0]["reference"][0, :3, 12:-12, 12:-12].max(axis=0) < 0.8
    away = np.abs(painter.seen[0]["low"][inner] - painter.seen[0]["reference"][inner]).max(axis=0)
    assert np.median(away[dark]) < 0.06  # noise and resampling; 0.3 without alignment

    drift = np.zeros((*SIZE, 2), np.float32)
    drift[30:90, 40:120] = 7.0, -2.0
    bracket = street(ramp, elsewhere).bracket()
    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, [drift, None, None], gate=np.ones(SIZE, np.float32))
    followed = Painter(own_radiance)
    fuse(np.zeros((*SIZE, 3), np.float32), bracket, [UNMOVED] * 3, ghosts, followed)
    there = bracket.frames[0].linear()[30 - 2 : 90 - 2, 40 + 7 : 120 + 7]
    seen = (followed.seen[0]["low"][0, :3, 30:90, 40:120] + 1) / 2
    np.testing.assert_allclose(np.moveaxis(seen, 0, -1) ** 2.2, there, atol=1e-4)


def test_only_the_windows_that_are_needed_are_fetched(
    moving: Bracket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the whole picture but the result: no input is larger than a tile and its halo."""
    monkeypatch.setattr(infer, "SMALLEST_TILE", 16)
    painter = Painter(own_radiance, free=48 * 48 * 1000)
    asked: list[tuple[int, int]] = []
    real = Response.decode

    def decode(curve: Response, codes: np.ndarray) -> Float:
        asked.append(codes.shape[:2])
        return real(curve, codes)

    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones(SIZE, np.float32))
    monkeypatch.setattr(Response, "decode", decode)
    fuse(np.zeros((*SIZE, 3), np.float32), moving, [UNMOVED] * 3, ghosts, painter)
    assert len(painter.seen) > 10
    assert max(max(size) for size in asked) <= 48
    assert len(asked) == 3 * len(painter.seen)

    ghosts.gate[:] = 0.0
    ghosts.gate[50:60, 50:60] = 1.0
    painter.seen.clear(), asked.clear()
    fuse(np.zeros((*SIZE, 3), np.float32), moving, [UNMOVED] * 3, ghosts, painter)
    assert len(painter.seen) == 1
    assert max(max(size) for size in asked) <= 12 + 2 * HALO + MULTIPLE


def test_windows_are_bounded_where_memory_is_not(monkeypatch: pytest.MonkeyPatch, moving: Bracket) -> None:
    monkeypatch.setattr("hdrmerge.fuse.LARGEST_TILE", 64)
    painter = Painter(own_radiance, free=1e12)
    shares: list[float] = []
    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones(SIZE, np.float32))
    fuse(np.zeros((*SIZE, 3), np.float32), moving, [UNMOVED] * 3, ghosts, painter, shares.append)
    assert len(painter.seen) == len(shares) == 6
    assert max(n for seen in painter.seen for n in seen["low"].shape[2:]) <= 64 + 2 * HALO
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


# --- where it paints ------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 9])
def test_shut_is_the_merge_and_open_is_the_painting(
    ramp: np.ndarray, elsewhere: np.ndarray, frames: int
) -> None:
    bracket = street(ramp, elsewhere, frames, step_ev=1.0).bracket()
    plain, result, ghosts, painted = merged(bracket, Painter(own_radiance))
    gate = gate_at(ghosts, SIZE)
    assert 0.02 < np.mean(gate > 0) < 0.9
    np.testing.assert_array_equal(result[gate == 0], plain[gate == 0])
    own = bracket.reference_frame.linear()
    inside = smoothstep(painted.limit, 0.95 * painted.limit, plain.max(axis=-1))
    limited = np.minimum(own, painted.limit)
    expected = plain + (gate * inside)[..., None] * (limited - plain)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4)
    changed = (gate == 1) & (inside == 1)
    assert changed.any()
    np.testing.assert_allclose(result[changed], limited[changed], rtol=1e-3, atol=1e-5)
    assert painted.share == pytest.approx(np.mean(gate * inside > 0), abs=0.01)


@pytest.mark.parametrize("frames", [2, 3, 5, 9])
def test_no_network_can_harm_what_did_not_move(ramp: np.ndarray, elsewhere: np.ndarray, frames: int) -> None:
    """Whatever it says, the result is finite, and the noise-optimal merge away from what moves."""
    bracket = street(ramp, elsewhere, frames, step_ev=1.0).bracket()
    plain, result, ghosts, painted = merged(bracket, Painter(anything))
    assert np.isfinite(result).all()
    assert result.min() >= 0.0
    assert result.max() <= max(plain.max(), painted.limit * 1.001)
    gate = gate_at(ghosts, SIZE)
    np.testing.assert_array_equal(result[gate == 0], plain[gate == 0])
    none = [0.0] * frames
    optimal, _ = merge(bracket, [UNMOVED] * frames, Ghosts([None] * frames, none, none))
    trusted = gate == 0
    for trust in ghosts.trust:
        trusted &= trust is None or (trust == 255)  # frames beyond three: their ghosts are classical
    assert trusted.mean() > 0.1
    np.testing.assert_array_equal(result[trusted], optimal[trusted])


def test_the_gate_is_that_of_all_networks_and_what_moved_is_followed(moving: Bracket) -> None:
    """Of three frames bit for bit: it opens where something had moved, though it was found again."""
    proxies = [shrink(frame) for frame in moving.frames]
    evidence = gather_evidence(moving.frames, proxies, [UNMOVED] * 3, 1)
    ghosts = survey(moving.frames, proxies, [UNMOVED] * 3, 1)
    assert evidence is not None
    assert ghosts.gate is not None
    np.testing.assert_array_equal(ghosts.gate, evidence.gate)
    ways = [drift for drift in ghosts.drift if drift is not None]
    assert ways
    for drift in ways:
        assert drift.any()
        assert (ghosts.gate[drift.any(axis=-1)] > 0).all()


@pytest.mark.parametrize("frames", [2, 3, 5, 9])
def test_nothing_is_painted_where_nothing_moved(ramp: np.ndarray, frames: int) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE, frames=frames, step_ev=1.0)
    painter = Painter(anything)
    plain, result, ghosts, painted = merged(sim.bracket(), painter)
    assert (ghosts.gate, painter.seen, painted.share) == (None, [], 0.0)
    np.testing.assert_array_equal(result, plain)


def test_a_ghost_in_a_frame_beyond_three_opens_no_gate(ramp: np.ndarray) -> None:
    """It is the classical test's: the frame counts as far as it is trusted."""
    sim = simulate_bracket(ramp, np.random.default_rng(6), size=SIZE, frames=5, step_ev=1.0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    away = np.hypot(y - 60, x - 40)
    codes = list(sim.frames)
    dark = sim.camera.decode(codes[0]) * np.where(away < 12, 0.3, 1.0)[..., None].astype(np.float32)
    codes[0] = sim.camera.encode(dark)
    painter = Painter(anything)
    plain, result, ghosts, _ = merged(replace(sim, frames=tuple(codes)).bracket(), painter)
    assert ghosts.gate is None
    assert not painter.seen
    assert ghosts.trust[0] is not None
    assert ghosts.trust[0][away < 8].max() < 26
    np.testing.assert_array_equal(result, plain)
    clean, _, _, _ = merged(sim.bracket(), painter)
    np.testing.assert_allclose(result, clean, rtol=0.1, atol=2e-3)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_everywhere_is_the_network_alone_within_its_range(ramp: np.ndarray, frames: int) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE, frames=frames)
    bracket = sim.bracket()
    plain, result, _, painted = merged(bracket, Painter(own_radiance), everywhere=True)
    within = plain.max(axis=-1) < 0.95 * painted.limit
    assert 0.3 < within.mean() < 1.0
    np.testing.assert_allclose(result[within], bracket.reference_frame.linear()[within], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("frames", [3, 5])
def test_what_is_brighter_than_the_range_is_not_cut_off(ramp: np.ndarray, frames: int) -> None:
    """Five frames know more than the three: the merge's radiance stays, and the way there has no step."""
    sim = simulate_bracket(
        ramp, np.random.default_rng(3), size=SIZE, frames=frames, step_ev=1.0, saturated_share=0.4
    )
    plain, result, _, painted = merged(sim.bracket(), Painter(low_radiance), everywhere=True)
    assert painted.limit == pytest.approx(2.0, rel=1e-3)
    beyond = plain.max(axis=-1) >= painted.limit
    assert beyond.mean() > 0.02
    np.testing.assert_array_equal(result[beyond], plain[beyond])
    if frames == 5:
        assert result.max() > 1.7 * painted.limit
        true = (sim.truth.max(axis=-1) > 2.2) & (sim.truth.max(axis=-1) < 3.5)
        np.testing.assert_allclose(np.median(result[true] / sim.truth[true]), 1.0, atol=0.03)


@pytest.mark.parametrize("architecture", SELF_SUPERVISED)
def test_linear_light_is_painted_as_it_is(ramp: np.ndarray, architecture: str) -> None:
    """Radiance 1.0 of the network is where the shortest frame clips, whichever that is."""
    bracket = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE).bracket()
    for paint, frame in ((own_light, 1), (short_light, 0)):
        painter = Painter(paint, architecture=architecture)
        plain, result, _, painted = merged(bracket, painter, everywhere=True)
        assert painted.limit == pytest.approx(4.0, rel=1e-3)
        within = plain.max(axis=-1) < 0.95 * painted.limit
        assert 0.3 < within.mean() < 1.0
        expected = bracket.frames[frame].linear() * np.float32(4.0 if frame == 0 else 1.0)
        np.testing.assert_allclose(result[within], expected[within], rtol=1e-3, atol=1e-5)
        beyond = plain.max(axis=-1) >= painted.limit
        np.testing.assert_array_equal(result[beyond], plain[beyond])


def test_no_network_of_linear_light_can_harm_what_did_not_move(moving: Bracket) -> None:
    """Nor say more than its range, or less than nothing, where it may paint."""
    plain, result, ghosts, painted = merged(moving, Painter(any_light, architecture="unet"))
    gate = gate_at(ghosts, SIZE)
    assert 0.02 < np.mean(gate > 0) < 0.9
    np.testing.assert_array_equal(result[gate == 0], plain[gate == 0])
    assert np.isfinite(result).all()
    assert result.min() >= 0.0
    assert result.max() <= max(plain.max(), painted.limit * 1.001)
    assert not np.array_equal(result, plain)


def test_an_input_that_no_merge_can_give_is_refused(moving: Bracket) -> None:
    def curious(frames: Float, depth: Float) -> Float:
        raise AssertionError

    ghosts = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3, gate=np.ones(SIZE, np.float32))
    with pytest.raises(NetworkError, match=r"painter\.onnx: asks for 'depth'.*; update"):
        fuse(np.zeros((*SIZE, 3), np.float32), moving, [UNMOVED] * 3, ghosts, Painter(curious))


def test_frames_and_picture_of_other_sizes_than_the_proxy(
    ramp: np.ndarray, elsewhere: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", SIZE[0] * SIZE[1] / 4)
    bracket = street(ramp, elsewhere).bracket()
    plain, result, ghosts, _ = merged(bracket, Painter(own_radiance))
    assert ghosts.gate is not None
    assert ghosts.gate.shape == (SIZE[0] // 2, SIZE[1] // 2)
    gate = gate_at(ghosts, SIZE)
    np.testing.assert_array_equal(result[gate == 0], plain[gate == 0])
    assert not np.array_equal(result, plain)


@pytest.mark.parametrize("frames", [2, 5, 9])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (37, 53), (33, 65)])
@pytest.mark.parametrize("everywhere", [False, True])
def test_any_size_and_number(size: tuple[int, int], frames: int, everywhere: bool) -> None:
    """The reference grows brighter to the right, the others downwards."""
    across, down = (
        np.broadcast_to(np.linspace(60, 150, n, dtype=np.uint8).reshape(shape), size)
        for n, shape in ((size[1], (1, -1)), (size[0], (-1, 1)))
    )
    pictures = [
        replace(frame, codes=np.repeat((across if k == frames // 2 else down)[..., None], 3, axis=2))
        for k, frame in enumerate(of_exposures(*(1.0 + k / 100 for k in range(frames))))
    ]
    painter = Painter(own_radiance)
    bracket = Bracket(tuple(pictures), frames // 2)
    _, result, ghosts, _ = merged(bracket, painter, everywhere)
    assert result.shape == (*size, 3)
    assert np.isfinite(result).all()
    if everywhere or min(size) > 30:
        assert painter.seen
        open_ = gate_at(ghosts, size) == 1
        np.testing.assert_allclose(result[open_], bracket.reference_frame.linear()[open_], rtol=1e-3)


# --- RAW ------------------------------------------------------------------------------------------

CAMERA = np.array([[2.0, -0.3, -0.1], [-0.1, 1.0, -0.2], [0.0, -0.4, 1.6]], np.float32)
"""To Rec. 709, white balance included: red clips at 1.6, green at 0.7, blue at 1.2 of a white."""


def raw_bracket(ramp: np.ndarray, clip: float = 1.0) -> tuple[Bracket, Simulated]:
    """14-bit frames of a sensor with other colours, which clips at ``clip`` of its stated white."""
    inverse = np.linalg.inv(CAMERA).astype(np.float32)
    scene = np.maximum(ramp @ inverse.T, 0)
    sim = simulate_bracket(
        scene, np.random.default_rng(8), size=SIZE, saturated_share=0.45, camera=Camera(bits=14)
    )
    frames = [
        replace(frame, to_rec709=CAMERA, clip=clip, codes=frame.codes * np.float32(clip))
        for frame in sim.bracket().frames
    ]
    return Bracket(tuple(frames), 1), sim


@pytest.mark.parametrize("clip", [1.0, 0.95])
def test_raw_frames_keep_their_colours_and_their_range(ramp: np.ndarray, clip: float) -> None:
    """Painted in the sensor's colours, then converted as the merge is; the range ends where it clips."""
    bracket, _ = raw_bracket(ramp, clip)
    painter = Painter(low_radiance)
    plain, result, _, painted = merged(bracket, painter, everywhere=True)
    low, own = (frame.linear() for frame in bracket.frames[:2])
    assert painted.limit == pytest.approx(4.0 * clip, rel=1e-3)
    (seen,) = painter.seen
    np.testing.assert_allclose(
        (np.moveaxis(seen["reference"][0, :3], 0, -1) + 1) / 2,
        np.clip(own / clip, 0, 1) ** (1 / 2.2),
        atol=1e-4,
    )
    assert seen["low"][0, 3:].max() == pytest.approx(1.0, abs=1e-4)
    clipped = (low >= 0.999 * clip).any(axis=-1)
    assert clipped.mean() > 0.01
    np.testing.assert_array_equal(result[clipped], plain[clipped])
    within = (low < 0.9 * clip).all(axis=-1) & (plain.min(axis=-1) > 0.05)
    assert within.mean() > 0.3
    expected = np.maximum(4.0 * low @ CAMERA.T, 0)
    np.testing.assert_allclose(result[within], expected[within], rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("clip", [1.0, 0.95])
def test_the_merge_is_seen_in_the_colours_of_the_sensor(ramp: np.ndarray, clip: float) -> None:
    """As the frames are; painted as it was seen, it comes back."""
    bracket, _ = raw_bracket(ramp, clip)
    painter = Painter(as_merged)
    plain, result, _, painted = merged(bracket, painter, everywhere=True)
    (seen,) = painter.seen
    sensor = np.maximum(plain @ np.linalg.inv(CAMERA).T, 0)
    np.testing.assert_allclose(seen["merged"][0], codes_of_merge(sensor, painted.limit), atol=1e-5)
    low = seen["low"][0, 3:]
    sure = (low > 0.0) & (low < 0.95)  # bright, and not clipped: little noise
    assert sure.mean() > 0.1
    assert np.median(np.abs(seen["merged"][0] - low)[sure]) < 0.01
    assert np.median(np.abs(codes_of_merge(plain, painted.limit) - low)[sure]) > 0.02
    np.testing.assert_allclose(result, plain, rtol=1e-4, atol=1e-5)
    beyond = sensor.max(axis=-1) >= 1.0001 * painted.limit
    np.testing.assert_array_equal(result[beyond], plain[beyond])


# --- with the network itself ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(painter_file: Path) -> Engine:
    pytest.importorskip("onnxruntime")
    return open_engine(painter_file, device="cpu", threads=1)


@pytest.mark.parametrize("frames", [2, 3, 5, 9])
def test_an_untrained_residual_network_gives_the_merge(
    ramp: np.ndarray, elsewhere: np.ndarray, engine: Engine, frames: int
) -> None:
    """To two steps of mu-law codes in single precision, and to the bit where its range ends."""
    bracket = street(ramp, elsewhere, frames, step_ev=1.0, saturated_share=0.4).bracket()
    plain, result, _, painted = merged(bracket, engine, everywhere=True)
    assert painted.share > 0.3
    assert not np.array_equal(result, plain)
    codes = [np.log1p(5000 * (pixels.astype(np.float64) / painted.limit)) for pixels in (result, plain)]
    away = np.abs(codes[0] - codes[1]) / math.log1p(5000)
    assert away.max() <= 2 * 2.0**-24
    beyond = plain.max(axis=-1) >= painted.limit
    assert frames == 2 or beyond.mean() > 0.005
    np.testing.assert_array_equal(result[beyond], plain[beyond])


@pytest.mark.parametrize("size", [SIZE, (37, 53), (1, 90)])
def test_tiles_give_what_the_whole_gives(
    ramp: np.ndarray,
    elsewhere: np.ndarray,
    loud_painter_file: Path,
    size: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(infer, "SMALLEST_TILE", 16)
    engine = open_engine(loud_painter_file, device="cpu", threads=1)
    sim = simulate_bracket(ramp, np.random.default_rng(5), size=size)
    _, whole, _, _ = merged(sim.bracket(), engine, everywhere=True)
    plain, tiled, _, _ = merged_with_tiles(sim.bracket(), engine, 32)
    assert np.abs(mu_law(whole) - mu_law(plain)).max() > 0.02  # it does something
    np.testing.assert_allclose(mu_law(tiled), mu_law(whole), atol=1e-4)


def merged_with_tiles(
    bracket: Bracket, engine: Engine, side: int
) -> tuple[np.ndarray, np.ndarray, Ghosts, Painted]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hdrmerge.fuse.LARGEST_TILE", side)
        return merged(bracket, engine, everywhere=True)


def test_shadows_of_the_result_are_those_of_the_merge_in_mean(ramp: np.ndarray, engine: Engine) -> None:
    """So that no constant, such as black, is off."""
    sim = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE)
    plain, result, _, _ = merged(sim.bracket(), engine, everywhere=True)
    dark = plain.max(axis=-1) < np.quantile(plain.max(axis=-1), 0.2)
    ratio = math.log2(float(result[dark].mean()) / float(plain[dark].mean()))
    assert abs(ratio) < 0.05


# --- with a network that says linear light --------------------------------------------------------


@pytest.fixture(scope="module")
def filler_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow `networks.resnet` with random weights, whose reach is small."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from hdrmerge import weights
    from hdrmerge.networks import build

    torch.manual_seed(4)
    config = {"width": 16}
    network = build("resnet", config).eval()
    names = ("frames", "masked", "linear")
    inputs = {name: torch.rand(1, COUNTS[name], 32, 32) for name in names}
    axes = {name: {0: "B", 2: "H", 3: "W"} for name in (*names, "radiance")}
    card = {"architecture": "resnet", "config": config, "halo": network.halo, "multiple": network.multiple}
    path = tmp_path_factory.mktemp("weights") / "resnet.onnx"
    weights.save(network, inputs, ("radiance",), axes, path, card)
    return path


@pytest.mark.parametrize("size", [SIZE, (37, 53), (1, 90)])
def test_tiles_of_linear_light_give_what_the_whole_gives(
    ramp: np.ndarray, filler_file: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(infer, "SMALLEST_TILE", 16)
    engine = open_engine(filler_file, device="cpu", threads=1)
    bracket = simulate_bracket(ramp, np.random.default_rng(5), size=size).bracket()
    plain, whole, _, painted = merged(bracket, engine, everywhere=True)
    _, tiled, _, _ = merged_with_tiles(bracket, engine, 32)
    assert painted.share > 0.3
    assert np.abs(mu_law(whole) - mu_law(plain)).max() > 0.02  # it does something
    np.testing.assert_allclose(mu_law(tiled), mu_law(whole), atol=1e-4)
