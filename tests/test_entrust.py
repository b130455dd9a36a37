"""What a network sees is as documented, and nothing it says harms what did not move."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hdrmerge.align import Alignment
from hdrmerge.bracket import Bracket, Frame, Shot
from hdrmerge.deghost import Ghosts
from hdrmerge.entrust import FRAME_PLANES, REFERENCE_PLANES, Evidence, entrust, gather_evidence
from hdrmerge.exposure import Float, NoiseModel, Response, mu_law, mu_law_inverse
from hdrmerge.infer import Arrays, Engine, open_engine
from hdrmerge.merge import merge
from hdrmerge.proxy import shrink
from hdrmerge.scene import Mover
from hdrmerge.simulate import Camera, Simulated, homography, simulate_bracket

SIZE = 120, 160
UNMOVED = Alignment("none", np.eye(3))
REACH = 24  # [px] from what moves, beyond which no network has a say


class Worst(Engine):
    """Says anything at all, wherever it is asked: trust from -1 to 2, corrections of many stops."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(Path("worst.onnx"), {"halo": 8, "multiple": 8}, "cpu", "fp32")
        self.rng = np.random.default_rng(seed)
        self.ran = 0

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        self.ran += 1
        count, _, height, width = inputs["frames"].shape
        trust = self.rng.uniform(-1.0, 2.0, (count, 1, height, width))
        correction = self.rng.normal(0.0, 0.5, (1, 3, height, width))
        return {"trust": trust.astype(np.float32), "correction": correction.astype(np.float32)}

    def describe(self) -> str:
        return "worst"


def seen(bracket: Bracket, alignments: Sequence[Alignment] | None = None) -> Evidence:
    alignments = alignments or [UNMOVED] * len(bracket.frames)
    proxies = [shrink(frame) for frame in bracket.frames]
    evidence = gather_evidence(bracket.frames, proxies, alignments, bracket.reference)
    assert evidence is not None
    return evidence


def judged(bracket: Bracket, engine: Engine, alignments: Sequence[Alignment] | None = None) -> Ghosts:
    alignments = alignments or [UNMOVED] * len(bracket.frames)
    proxies = [shrink(frame) for frame in bracket.frames]
    return entrust(bracket.frames, proxies, alignments, bracket.reference, engine)


def plainly_merged(bracket: Bracket) -> np.ndarray:
    """The noise-optimal merge of all frames."""
    none = [0.0] * len(bracket.frames)
    ghosts = Ghosts([None] * len(bracket.frames), none, none)
    return merge(bracket, [UNMOVED] * len(bracket.frames), ghosts)[0]


def walker(scene: np.ndarray, rng: np.random.Generator, frames: int, size: tuple[int, int]) -> Mover:
    """A disc of another scene that jumps from frame to frame."""
    samples = 48
    y, x = np.mgrid[:samples, :samples] - (samples - 1) / 2
    alpha = np.clip((samples / 2 - 2 - np.hypot(x, y)) / 3, 0, 1).astype(np.float32)
    top, left = rng.integers(0, 200, 2)
    radiance = scene[top : top + samples, left : left + samples] * np.float32(rng.uniform(0.05, 2.0))
    start = rng.uniform(20, np.array(size[::-1]) - 20)
    centres = start + rng.uniform(-12, 12, (frames, 2))
    return Mover(radiance, alpha, centres, np.zeros((frames, 2)))


def random_bracket(
    ramp: np.ndarray, seed: int, frames: int, movers: np.ndarray | None = None, size: tuple[int, int] = SIZE
) -> Simulated:
    """Any steps from 0.7 to 4 EV, any reference, any noise; 14 bits, 8 bits, or JPEG, by seed."""
    rng = np.random.default_rng(seed)
    kind = seed % 3
    return jpegged(
        simulate_bracket(
            ramp,
            rng,
            size=size,
            frames=frames,
            step_ev=list(rng.uniform(0.7, 4.0, frames - 1)),
            reference=int(rng.integers(frames)),
            saturated_share=rng.uniform(0.02, 0.2),
            camera=Camera(bits=14, black_level=2048) if kind == 0 else Camera(),
            iso=float(rng.choice([100.0, 400.0, 1600.0])),
            movers=[] if movers is None else [walker(movers, rng, frames, size)],
        ),
        int(rng.integers(80, 101)) if kind == 2 else None,
    )


def jpegged(sim: Simulated, quality: int | None) -> Simulated:
    if quality is None:
        return sim
    codes = []
    for code in sim.frames:
        Image.fromarray(code).save(file := io.BytesIO(), "JPEG", quality=quality)
        codes.append(np.asarray(Image.open(file)))
    return replace(sim, frames=tuple(codes))


@pytest.fixture(scope="module")
def street(ramp: np.ndarray, elsewhere: np.ndarray) -> tuple[Simulated, list[Alignment]]:
    """Five frames, of which the shortest is shifted; a disc moves."""
    rng = np.random.default_rng(5)
    moved = homography(SIZE, shift=(6.0, -3.0))
    shake = [moved, *[np.eye(3)] * 4]
    movers = [walker(elsewhere, rng, 5, SIZE)]
    sim = simulate_bracket(ramp, rng, size=SIZE, frames=5, step_ev=1.5, shake=shake, movers=movers)
    return sim, [Alignment("translation", moved), *[UNMOVED] * 4]


# --- the evidence ---------------------------------------------------------------------------------


def test_the_planes_are_as_documented(street: tuple[Simulated, list[Alignment]]) -> None:
    sim, alignments = street
    evidence = seen(sim.bracket(), alignments)
    assert evidence.reference.shape == (1, len(REFERENCE_PLANES), *SIZE)
    assert evidence.frames.shape == (4, len(FRAME_PLANES), *SIZE)
    assert [sight.frame for sight in evidence.sights] == [0, 1, 3, 4]
    for planes in (evidence.reference, evidence.frames):
        assert planes.dtype == np.float32
        assert np.isfinite(planes).all()
        assert planes.min() >= -1.0
    own = dict(zip(REFERENCE_PLANES, evidence.reference[0], strict=True))
    others = [dict(zip(FRAME_PLANES, planes, strict=True)) for planes in evidence.frames]
    for name in ("red", "green", "blue", "share", "open", "sigma", "gate"):
        assert 0.0 <= own[name].min() <= own[name].max() <= 1.0, name
    for name in ("share", "cover", "sigma", "deviation", "belief", "usable"):
        assert all(0.0 <= planes[name].min() <= planes[name].max() <= 1.0 for planes in others), name
    assert others[0]["green"].max() > 1.0  # a shorter exposure sees beyond the reference's white
    linear = sim.bracket().reference_frame.linear()
    for channel, name in enumerate(("red", "green", "blue")):
        np.testing.assert_allclose(own[name], mu_law(linear[..., channel]), atol=1e-6)
    peak = linear.max(axis=-1)
    assert (own["open"][peak < 0.79] == 1.0).all()
    assert (own["open"][peak > 0.98] == 0.0).all()
    for planes, index in zip(others, (0, 1, 3, 4), strict=True):
        np.testing.assert_allclose(planes["stops"], np.log2(sim.relative_exposures[index]) / 8, rtol=1e-4)
        assert set(np.unique(planes["usable"])) <= {0.0, 1.0}
    clipped = sim.camera.saturated(sim.frames[4])
    assert clipped.mean() > 0.1
    assert not others[3]["usable"][clipped].any()
    assert (others[1]["cover"] == 1.0).all()
    assert not others[0]["cover"][-3:].any() or not others[0]["cover"][:3].any()  # where it ends
    assert (others[0]["usable"][others[0]["cover"] == 0.0] == 0.0).all()
    np.testing.assert_array_equal(evidence.gate, own["gate"])


@pytest.mark.parametrize("seed", range(8))
def test_shares_add_up(ramp: np.ndarray, elsewhere: np.ndarray, seed: int) -> None:
    evidence = seen(random_bracket(ramp, seed, 2 + seed, elsewhere).bracket())
    total = np.square(evidence.reference[0, 3]) + np.square(evidence.frames[:, 3]).sum(axis=0)
    np.testing.assert_allclose(total, 1.0, atol=1e-4)


@pytest.mark.parametrize("frames", [2, 3, 5])
def test_shares_are_those_of_the_merge(ramp: np.ndarray, frames: int) -> None:
    """Frames blended by the squares of their planes are the noise-optimal merge."""
    bracket = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE, frames=frames).bracket()
    evidence = seen(bracket)
    merged = plainly_merged(bracket)
    light = np.concatenate([evidence.reference[:, :3], evidence.frames[:, :3]])
    share = np.concatenate([evidence.reference[:, 3:4], evidence.frames[:, 3:4]])
    blend = (mu_law_inverse(light) * np.square(share)).sum(axis=0)
    judge = evidence.reference[0, 4] == 1.0
    assert judge.mean() > 0.5
    np.testing.assert_allclose(np.moveaxis(blend, 0, -1)[judge], merged[judge], rtol=2e-3)


def test_sigma_is_the_noise_of_green_in_the_mu_law(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(4), size=SIZE)
    evidence = seen(sim.bracket())
    view = evidence.sights[0].view
    green, deviation = view.radiance[1], np.sqrt(view.variance[1])
    bright = green > 20 * deviation  # where the curve is straight over a sigma
    assert bright.mean() > 0.3
    change = (mu_law(green + deviation) - mu_law(green - deviation)) / 2
    np.testing.assert_allclose(np.square(evidence.frames[0, 5])[bright], change[bright], rtol=0.01)


# --- the gate -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(32))
def test_the_gate_is_shut_where_nothing_moved(ramp: np.ndarray, seed: int) -> None:
    sim = random_bracket(ramp, seed, 2 + seed % 8)
    evidence = seen(sim.bracket())
    assert not evidence.gate.any()
    engine = Worst()
    ghosts = judged(sim.bracket(), engine)
    assert engine.ran == 0
    assert ghosts.correction is None
    assert all(trust is None or (trust == 255).all() for trust in ghosts.trust)


@pytest.mark.parametrize("frames", [2, 3, 9])
def test_the_gate_is_open_where_something_moved(ramp: np.ndarray, frames: int) -> None:
    """A disc in one frame, three times as dark as what is behind it; around it, and not far away."""
    sim = simulate_bracket(ramp, np.random.default_rng(6), size=SIZE, frames=frames, step_ev=1.0)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    away = np.hypot(y - 60, x - 40)
    codes = list(sim.frames)
    dark = sim.camera.decode(codes[0]) * np.where(away < 12, 0.3, 1.0)[..., None].astype(np.float32)
    codes[0] = sim.camera.encode(dark)
    bracket = replace(sim, frames=tuple(codes)).bracket()
    if sim.reference == 0:  # of two frames the shorter
        bracket = Bracket(bracket.frames, 1)
    gate = seen(bracket).gate
    assert (gate[away < 12] == 1.0).all()
    assert not gate[away > 12 + REACH].any()
    steps = max(float(np.abs(np.diff(gate, axis=axis)).max()) for axis in (0, 1))
    assert 0.0 < steps < 0.3


# --- what the network says ------------------------------------------------------------------------


def static_and_well_exposed(sim: Simulated) -> np.ndarray:
    """Farther than the gate reaches from anything that moves, below 0.8, above the noise in the dark."""
    distance = cv2.distanceTransform((~sim.moving).astype(np.uint8), cv2.DIST_L2, 5)
    linear = sim.bracket().reference_frame.linear()
    floor = 4 * sim.camera.noise(sim.shots[sim.reference].iso or 100.0).read
    return (distance > REACH) & (linear.max(axis=-1) < 0.8) & (linear.min(axis=-1) > floor)


def assert_static_is_optimal(sim: Simulated, result: np.ndarray, plain: np.ndarray) -> None:
    """To a relative difference of 1e-3, every pixel of it."""
    static = static_and_well_exposed(sim)
    assert static.mean() > 0.1
    difference = np.abs(result[static] - plain[static]).max(axis=-1) / plain[static].max(axis=-1)
    assert difference.max() <= 1e-3


@pytest.mark.parametrize("seed", range(24))
def test_no_engine_can_harm_what_did_not_move(ramp: np.ndarray, elsewhere: np.ndarray, seed: int) -> None:
    """The promise: there the result is the noise-optimal merge, whatever the network says."""
    sim = random_bracket(ramp, seed, 2 + seed % 8, elsewhere)
    bracket = sim.bracket()
    ghosts = judged(bracket, Worst(seed))
    plain = plainly_merged(bracket)
    result, _ = merge(bracket, [UNMOVED] * len(bracket.frames), ghosts)
    assert np.isfinite(result).all()
    acting = seen(bracket).gate > 0
    np.testing.assert_array_equal(result[~acting], plain[~acting])
    assert_static_is_optimal(sim, result, plain)


@pytest.mark.parametrize("seed", range(8))
def test_no_weights_can_harm_what_did_not_move(
    ramp: np.ndarray, elsewhere: np.ndarray, network_file: Path, seed: int
) -> None:
    """The same with a network of random weights in its file."""
    pytest.importorskip("onnxruntime")
    sim = random_bracket(ramp, seed + 100, 2 + seed % 8, elsewhere)
    bracket = sim.bracket()
    ghosts = judged(bracket, open_engine(network_file, device="cpu", threads=1))
    plain = plainly_merged(bracket)
    result, _ = merge(bracket, [UNMOVED] * len(bracket.frames), ghosts)
    assert np.isfinite(result).all()
    acting = seen(bracket).gate > 0
    np.testing.assert_array_equal(result[~acting], plain[~acting])
    if acting.any():
        assert not np.array_equal(result[acting], plain[acting])
    assert_static_is_optimal(sim, result, plain)


def test_the_network_itself_keeps_to_the_gate(
    street: tuple[Simulated, list[Alignment]], network_file: Path
) -> None:
    """Exactly, so that training sees what `entrust` enforces."""
    pytest.importorskip("onnxruntime")
    evidence = seen(street[0].bracket(), street[1])
    planes = {"reference": evidence.reference, "frames": evidence.frames}
    window = {name: np.ascontiguousarray(values[..., :96, :160]) for name, values in planes.items()}
    shut = window["reference"][0, 6] == 0
    assert 0.05 < shut.mean() < 0.95
    outputs = open_engine(network_file, device="cpu", threads=1).run(window)
    assert (outputs["trust"][:, 0, shut] == 1.0).all()
    assert not outputs["correction"][0][:, shut].any()
    assert (outputs["trust"][:, 0, ~shut] < 1.0).any()
    assert outputs["correction"][0][:, ~shut].any()


def test_proxies_smaller_than_the_picture(
    ramp: np.ndarray, elsewhere: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 240, 320
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", size[0] * size[1] / 9)
    sim = random_bracket(ramp, 4, 4, elsewhere, size)
    bracket = sim.bracket()
    ghosts = judged(bracket, Worst())
    assert ghosts.correction is not None
    assert ghosts.correction.shape == (size[0] // 3, size[1] // 3, 3)
    plain = plainly_merged(bracket)
    result, _ = merge(bracket, [UNMOVED] * 4, ghosts)
    acting = cv2.dilate((seen(bracket).gate > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    near = cv2.resize(acting, size[::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert 0.02 < near.mean() < 0.9
    np.testing.assert_array_equal(result[~near], plain[~near])


def test_what_the_network_says_arrives(street: tuple[Simulated, list[Alignment]]) -> None:
    """Trust where it may act, times the cover; drift where something was followed; a share for the report."""
    sim, alignments = street
    evidence = seen(sim.bracket(), alignments)
    acting = evidence.gate > 0
    assert 0.02 < acting.mean() < 0.9

    class Half(Worst):
        def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
            outputs = super().run(inputs)
            return {"trust": np.full_like(outputs["trust"], 0.5), "correction": outputs["correction"]}

    told: list[float] = []
    proxies = [shrink(frame) for frame in sim.bracket().frames]
    ghosts = entrust(sim.bracket().frames, proxies, alignments, sim.reference, Half(), told.append)
    assert told[-1] == pytest.approx(1.0)
    assert ghosts.trust[sim.reference] is None
    for sight in evidence.sights:
        trust = ghosts.trust[sight.frame]
        assert trust is not None
        assert trust.dtype == np.uint8
        cover = np.ones(SIZE, np.float32) if sight.cover is None else sight.cover
        np.testing.assert_allclose(trust, np.where(acting, 0.5, 1.0) * cover * 255, atol=0.51)
        drift = ghosts.drift[sight.frame]
        assert (drift is None) == (sight.drift is None)
        if drift is not None:
            assert not drift[~acting].any()
            np.testing.assert_array_equal(drift[acting], sight.drift[acting])
    assert any(drift is not None for drift in ghosts.drift)
    assert ghosts.correction is not None
    assert ghosts.correction[acting].any()
    assert not ghosts.correction[~acting].any()
    assert max(ghosts.share) > 0.0
    assert ghosts.distrust is not None
    assert ghosts.distrust[acting].min() >= 127


def test_frames_left_out_are_not_asked_about(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(7), size=SIZE)
    out = Alignment("none", np.eye(3), used=False, note="of something else")
    some = judged(sim.bracket(), Worst(), [out, UNMOVED, UNMOVED])
    assert some.trust[0] is None
    assert some.trust[2] is not None
    engine = Worst()
    alone = judged(sim.bracket(), engine, [out, UNMOVED, out])
    assert (alone.trust, alone.share, engine.ran) == ([None] * 3, [0.0] * 3, 0)
    assert alone.distrust is None


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [2, 9])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (37, 53), (33, 65)])
@pytest.mark.parametrize("random", [False, True])
def test_any_size_and_number(
    size: tuple[int, int], frames: int, random: bool, request: pytest.FixtureRequest
) -> None:
    """The reference grows brighter to the right, the others downwards, so that there is much to judge."""
    noise = NoiseModel.from_iso(100)
    across, down = (
        np.broadcast_to(np.linspace(60, 150, n, dtype=np.uint8).reshape(shape), size)
        for n, shape in ((size[1], (1, -1)), (size[0], (-1, 1)))
    )
    pictures = [
        Frame(
            Shot(Path(f"{k}.jpg"), exposure_time=1.0 + k / 100),
            np.repeat((across if k == frames // 2 else down)[..., None], 3, axis=2),
            Response.named("srgb"),
            noise,
        )
        for k in range(frames)
    ]
    bracket = Bracket(tuple(pictures), frames // 2)
    engine: Engine = Worst()
    if random:
        pytest.importorskip("onnxruntime")
        engine = open_engine(request.getfixturevalue("network_file"), device="cpu", threads=1)
    ghosts = judged(bracket, engine)
    assert [None if trust is None else trust.shape for trust in ghosts.trust] == [
        None if k == bracket.reference else size for k in range(frames)
    ]
    if min(size) > 30:
        assert ghosts.correction is not None
    result, valid = merge(bracket, [UNMOVED] * frames, ghosts)
    assert result.shape == (*size, 3)
    assert np.isfinite(result).all()
    assert result.min() >= 0.0
    assert valid.shape == size
