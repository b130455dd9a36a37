"""The merge against its formula, against the truth, and at every edge where it could go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hdrmerge.align import Alignment
from hdrmerge.bracket import Bracket, Frame, Shot
from hdrmerge.deghost import Ghosts, Trust
from hdrmerge.exposure import NoiseModel, Response, mu_law
from hdrmerge.merge import merge
from hdrmerge.metrics import ev_rms, log_log_slope
from hdrmerge.simulate import Camera, Shake, Simulated, homography, plan_shots, record, simulate_bracket

SIZE = 240, 360
UNMOVED = Alignment("none", np.eye(3))


def merged(
    bracket: Bracket,
    alignments: Sequence[Alignment] | None = None,
    trust: Sequence[Trust | None] | None = None,
    drift: Sequence[np.ndarray | None] = (),
    correction: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    count = len(bracket.frames)
    none = [0.0] * count
    ghosts = Ghosts(list(trust or [None] * count), none, none, list(drift), correction)
    return merge(bracket, alignments or [UNMOVED] * count, ghosts)


def true_alignments(sim: Simulated) -> list[Alignment]:
    return [
        UNMOVED if i == sim.reference else Alignment("homography", matrix)
        for i, matrix in enumerate(sim.homographies)
    ]


def bracket_of(
    codes: Sequence[np.ndarray],
    times: Sequence[float],
    reference: int = 1,
    response: str = "srgb",
    to_rec709: np.ndarray | None = None,
    clip: float = 1.0,
) -> Bracket:
    """A bracket of given codes, ISO 100."""
    matrix = np.eye(3, dtype=np.float32) if to_rec709 is None else to_rec709.astype(np.float32)
    frames = [
        Frame(
            Shot(Path(f"{k}.jpg"), exposure_time=time),
            code,
            Response.named(response),
            NoiseModel.from_iso(100),
            matrix,
            clip,
        )
        for k, (code, time) in enumerate(zip(codes, times, strict=True))
    ]
    return Bracket(tuple(frames), reference)


# --- radiometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "step_ev"), [(2, 2.0), (3, 2.0), (5, 1.0), (9, 0.7)])
def test_a_static_bracket_gives_the_scene_back(ramp: np.ndarray, frames: int, step_ev: float) -> None:
    """8-bit sRGB at ISO 100: 0.02 EV is what rounding and photons leave."""
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, frames=frames, step_ev=step_ev)
    radiance, valid = merged(sim.bracket())
    assert radiance.dtype == np.float32
    assert radiance.shape == (*SIZE, 3)
    assert valid.mean() > 0.94
    assert ev_rms(radiance, sim.truth, valid, scale=False) < 0.02
    assert log_log_slope(radiance, sim.truth, valid) == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_white_of_the_reference_is_one(ramp: np.ndarray, reference: int) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(2), size=SIZE, reference=reference)
    radiance, valid = merged(sim.bracket())
    assert ev_rms(radiance, sim.truth, valid, scale=False) < 0.03


def test_a_shifted_and_turned_bracket_gives_the_scene_back(ramp: np.ndarray) -> None:
    matrix = homography(SIZE, rotation=0.5, shift=(20.0, 0.0))
    shake = [matrix, np.eye(3), np.linalg.inv(matrix)]
    sim = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE, shake=shake)
    radiance, valid = merged(sim.bracket(), true_alignments(sim))
    assert ev_rms(radiance, sim.truth, valid) < 0.06
    assert log_log_slope(radiance, sim.truth, valid) == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("level", [0.003, 0.05, 0.4, 1.7])
@pytest.mark.parametrize("iso", [100.0, 1600.0])
def test_the_noise_is_the_least_possible(level: float, iso: float) -> None:
    """Against the variance 1 / sum(e^2 / var), within 10 %: the Cramer-Rao bound of a linear estimate.

    A 14-bit camera looks at a grey card; frames above 0.7 of saturation are not counted on.
    """
    camera = Camera(bits=14, black_level=2048)
    shots = plan_shots((128, 128), 3, 2.0, 1, camera, iso)
    noise = camera.noise(iso)
    rng = np.random.default_rng(4)
    ratios = np.array([0.25, 1.0, 4.0])
    card = np.full((128, 128, 3), level, np.float32)
    codes = [record(card * np.float32(ratio), camera, iso, rng) for ratio in ratios]
    frames = [
        Frame(shot, camera.decode(code), camera.response, noise)
        for shot, code in zip(shots, codes, strict=True)
    ]
    radiance, valid = merged(Bracket(tuple(frames), 1))
    assert valid.all()
    signal = level * ratios
    counted = signal < 0.7
    bound = 1 / np.sum((ratios**2 / (noise.photon * signal + noise.read**2))[counted])
    assert radiance.astype(np.float64).var() == pytest.approx(bound, rel=0.10)
    assert radiance.mean() == pytest.approx(level, rel=0.002)


def optimal(bracket: Bracket) -> tuple[np.ndarray, np.ndarray]:
    """Merge by the formula, in double precision, and tell where it has the say: each frame well
    exposed or clipped, at least one well exposed.

    X = sum(w_i p_i / e_i) / sum(w_i), w_i = e_i^2 / var(e_i X0), X0 from photon counts.
    """
    reference = bracket.reference_frame.exposure
    photons, expected = 0.0, 0.0
    seen = []
    well_somewhere = np.zeros(bracket.reference_frame.codes.shape[:2], bool)
    clear = np.ones_like(well_somewhere)
    for frame in bracket.frames:
        linear, ratio = frame.linear().astype(np.float64), frame.exposure / reference
        peak = linear.max(axis=-1)
        well = peak < 0.70
        clear &= well | (peak > 0.985)
        well_somewhere |= well
        light = linear @ [0.25, 0.5, 0.25]
        photons = photons + well * light / frame.noise.photon
        expected = expected + well * ratio / frame.noise.photon
        seen.append((linear, ratio, well, frame.noise))
    guess = photons / np.maximum(expected, 1e-30)
    weights, total = 0.0, 0.0
    for linear, ratio, well, noise in seen:
        weight = well * ratio**2 / (noise.photon * ratio * guess + noise.read**2)
        total = total + weight[..., None] * linear / ratio
        weights = weights + weight
    return total / np.maximum(weights, 1e-30)[..., None], clear & well_somewhere


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.floats(0.3, 3.0), min_size=1, max_size=8),
    iso=st.sampled_from([100.0, 800.0]),
    where=st.floats(0.0, 1.0),
)
def test_the_merge_is_the_formula(seed: int, steps: list[float], iso: float, where: float) -> None:
    """N = 2 to 9 frames, any steps, any reference."""
    rng = np.random.default_rng(seed)
    camera, frames = Camera(), len(steps) + 1
    reference = round(where * (frames - 1))
    shots = plan_shots((24, 32), frames, steps, reference, camera, iso)
    scene = np.exp2(rng.uniform(-9, 3, (24, 32, 1)) + rng.normal(0, 0.5, (24, 32, 3))).astype(np.float32)
    base = shots[reference].exposure or 1.0
    noise = camera.noise(iso).with_quantisation(camera.response, 256)
    bracket = Bracket(
        tuple(
            Frame(
                shot,
                record(scene * np.float32((shot.exposure or 0.0) / base), camera, iso, rng),
                camera.response,
                noise,
            )
            for shot in shots
        ),
        reference,
    )
    expected, judged = optimal(bracket)
    radiance, valid = merged(bracket)
    assert valid[judged].all()
    lit = judged & (expected.max(axis=-1) > 1e-4)
    np.testing.assert_allclose(radiance[lit], expected[lit], rtol=1e-3, atol=1e-6)


def test_two_frames_alike_are_averaged() -> None:
    """Worked by hand: linear 0.2 and 0.3 at the same exposure and noise give 0.25."""
    codes = [np.full((4, 4, 3), value, np.float32) for value in (0.2, 0.3)]
    radiance, valid = merged(bracket_of(codes, [1.0, 1.0], reference=0, response="linear"))
    np.testing.assert_allclose(radiance, 0.25, rtol=1e-5)
    assert valid.all()


def test_a_frame_left_out_says_nothing() -> None:
    codes = [np.full((4, 4, 3), value, np.float32) for value in (0.2, 0.3)]
    out = Alignment("none", np.eye(3), used=False, note="of something else")
    radiance, _ = merged(bracket_of(codes, [1.0, 1.0], 0, "linear"), [UNMOVED, out])
    np.testing.assert_allclose(radiance, 0.2, rtol=1e-6)


def test_a_distrusted_frame_says_nothing_and_half_trust_counts_half() -> None:
    """0.2 and 0.3 merge to 0.25: trust 0 leaves 0.2, trust 128 of 255 goes half of the way, 0.2251."""
    codes = [np.full((2, 3, 3), value, np.float32) for value in (0.2, 0.3)]
    trust = np.array([[0, 128, 255]] * 2, np.uint8)
    radiance, _ = merged(bracket_of(codes, [1.0, 1.0], 0, "linear"), trust=[None, trust])
    np.testing.assert_allclose(radiance[0, :, 0], [0.2, 0.2251, 0.25], atol=1e-3)


@pytest.mark.parametrize("longer", [1.0, 4.0, 16.0])
def test_half_trust_goes_half_of_the_way_whatever_a_frame_weighs(longer: float) -> None:
    """A frame 16 times as long counts 16 times the electrons; half trusted it still moves half as far."""
    signals = [0.02, 0.024 * longer]
    codes = [np.full((2, 3, 3), value, np.float32) for value in signals]
    radiance = {}
    for level in (128, 255):
        trust = np.full((2, 3), level, np.uint8)
        bracket = bracket_of(codes, [1.0, longer], 0, "linear")
        radiance[level] = float(merged(bracket, trust=[None, trust])[0][0, 0, 0])
    assert (radiance[128] - 0.02) / (radiance[255] - 0.02) == pytest.approx(0.5, abs=0.05)


# --- bands and tiles ------------------------------------------------------------------------------


@pytest.mark.parametrize(("strip", "tile"), [(16, 64), (61, 97), (1000, 1000)])
@pytest.mark.parametrize("drifting", [False, True])
@pytest.mark.parametrize("moved", [False, True])
def test_bands_and_tiles_leave_no_seam(
    ramp: np.ndarray, moved: bool, drifting: bool, strip: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With drift: objects that moved lie across borders of tiles, and many tiles hold none."""
    shake = Shake(rotation=0.5, shift=7.0, perspective=0.002) if moved else Shake()
    sim = simulate_bracket(ramp, np.random.default_rng(5), size=SIZE, shake=shake)
    balance = np.array([[1.8, -0.5, -0.3], [-0.2, 1.4, -0.2], [0.0, -0.6, 1.6]], np.float32)
    bracket = sim.bracket()
    bracket = replace(bracket, frames=tuple(replace(f, to_rec709=balance) for f in bracket.frames))
    trust: list[Trust | None] = [None] * 3
    smooth = cv2.resize(np.random.default_rng(6).integers(0, 256, (6, 9), np.uint8), SIZE[::-1])
    trust[0] = smooth
    drift: list[np.ndarray | None] = [None] * 3
    if drifting:
        ways = np.zeros((SIZE[0] // 2, SIZE[1] // 2, 2), np.float32)
        ways[20:45, 25:60] = 12.25, -7.5
        ways[66:90, 120:131] = -9.0, 16.5
        drift[0], drift[2] = ways, -ways
    monkeypatch.setattr("hdrmerge.merge.STRIP", 1000)
    whole, valid = merged(bracket, true_alignments(sim), trust, drift)
    monkeypatch.setattr("hdrmerge.merge.STRIP", strip)
    monkeypatch.setattr("hdrmerge.merge.TILE", tile)
    pieces, valid_pieces = merged(bracket, true_alignments(sim), trust, drift)
    np.testing.assert_allclose(pieces, whole, rtol=2e-4, atol=1e-6)
    assert (valid == valid_pieces).mean() > 0.9999


def test_progress_adds_up_to_one() -> None:
    codes = [np.full((300, 4, 3), 90, np.uint8)] * 3
    told: list[float] = []
    nothing = Ghosts([None] * 3, [0.0] * 3, [0.0] * 3)
    merge(bracket_of(codes, [1.0, 2.0, 4.0]), [UNMOVED] * 3, nothing, told.append)
    assert sum(told) == pytest.approx(1.0)


# --- saturation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "step_ev"), [(2, 2.0), (3, 2.0), (3, 1.0), (9, 0.3)])
def test_clipped_everywhere_is_the_limit_of_the_shortest_frame(frames: int, step_ev: float) -> None:
    """Longer frames are clipped at less and would only pull it down."""
    times = [2.0 ** (step_ev * k) for k in range(frames)]
    radiance, valid = merged(bracket_of([np.full((9, 11, 3), 255, np.uint8)] * frames, times))
    np.testing.assert_allclose(radiance, times[1] / times[0], rtol=0.02)
    assert not valid.any()


@pytest.mark.parametrize("clip", [1.0, 0.93])
@pytest.mark.parametrize("balance", [np.diag([2.0, 1.0, 1.6]), np.diag([1.0, 1.7, 1.2])])
def test_blown_highlights_are_neutral(balance: np.ndarray, clip: float) -> None:
    """White balance must not spread the limits of the channels: no magenta suns.

    Each channel of the result is at least what its limit says.
    """
    codes = [np.full((8, 12, 3), clip, np.float32)] * 3
    radiance, valid = merged(
        bracket_of(codes, [1.0, 4.0, 16.0], response="linear", to_rec709=balance, clip=clip)
    )
    assert not valid.any()
    np.testing.assert_allclose(radiance, radiance[..., :1].repeat(3, axis=-1), rtol=1e-3)
    limits = 4.0 * clip * np.diag(balance)
    assert np.all(radiance >= 0.98 * limits.max())
    assert np.all(radiance <= 1.001 * limits.max())


def test_a_sun_that_red_does_not_clip_yet_is_neutral() -> None:
    """White on a sensor that sees red half as well: green clips at 1 while red still reads 0.5 to 0.9.

    What lies between is a white highlight, and must not turn green or magenta on the way up.
    """
    balance = np.diag([2.0, 1.0, 1.6])
    brightness = np.linspace(0.5, 3.0, 126, dtype=np.float32)
    sensor = brightness[None, :, None] * (1 / np.diag(balance)).astype(np.float32)
    codes = [np.minimum(sensor * ratio, 1.0).repeat(4, axis=0) for ratio in (1.0, 4.0, 16.0)]
    radiance, _ = merged(bracket_of(codes, [1.0, 4.0, 16.0], response="linear", to_rec709=balance))
    spread = radiance.max(axis=-1) / radiance.min(axis=-1)
    assert spread.max() < 1.05
    assert np.all(np.diff(radiance[0, :, 1]) > -1e-3)  # and brighter is never darker


def test_a_blown_red_lamp_stays_red() -> None:
    codes = [np.empty((6, 6, 3), np.uint8) for _ in range(3)]
    for code, green in zip(codes, (30, 60, 118), strict=True):
        code[:] = (255, green, green // 2)
    radiance, valid = merged(bracket_of(codes, [1.0, 4.0, 16.0]))
    assert not valid.any()
    red, green, blue = radiance[2, 2]
    assert red >= 3.9
    assert green < 0.3 * red
    assert blue < green


@pytest.mark.parametrize(("frames", "step_ev"), [(3, 2.0), (3, 1.0), (5, 0.5)])
def test_there_are_no_black_suns(frames: int, step_ev: float) -> None:
    """Up a ramp of light to far above the limit of every frame radiance never falls by 3 %."""
    profile = np.exp2(np.linspace(-4, 12, 400)).astype(np.float32)
    scene = np.repeat(np.repeat(profile[None, :, None], 8, axis=0), 3, axis=2)
    times = [2.0 ** (step_ev * k) for k in range(frames)]
    reference = (frames - 1) // 2
    codes = [Camera().encode(np.minimum(scene * np.float32(time / times[reference]), 1.0)) for time in times]
    radiance, valid = merged(bracket_of(codes, times, reference))
    ramp = radiance[4, :, 1]
    assert np.all(ramp >= 0.97 * np.maximum.accumulate(ramp))
    assert not valid[4, -1]
    assert valid[4, :90].all()


def test_a_sensor_that_clips_early_is_not_believed_above() -> None:
    """Clipping at 0.9 of the stated white, the long frame's flat top is no measurement."""
    truth = np.full((6, 6, 3), 0.8, np.float32)
    codes = [np.minimum(truth * ratio, 0.9) for ratio in (0.25, 1.0, 4.0)]
    radiance, valid = merged(bracket_of(codes, [1.0, 4.0, 16.0], response="linear", clip=0.9))
    np.testing.assert_allclose(radiance, 0.8, rtol=1e-3)
    assert valid.all()


def test_validity_is_what_some_frame_recorded(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(8), size=SIZE, step_ev=1.0, saturated_share=0.3)
    _, valid = merged(sim.bracket())
    brightest = sim.truth.max(axis=-1) * sim.relative_exposures[0]
    assert valid[brightest < 0.9].all()
    assert not valid[brightest > 1.1].any()
    assert (brightest > 1.1).any()


# --- borders, sizes, anything at all --------------------------------------------------------------


def test_borders_of_shifted_frames_do_not_darken(ramp: np.ndarray) -> None:
    shake = [homography(SIZE, shift=(20.3, -13.6)), np.eye(3), homography(SIZE, rotation=1.0, shift=(-17, 9))]
    sim = simulate_bracket(ramp, np.random.default_rng(9), size=SIZE, shake=shake)
    radiance, valid = merged(sim.bracket(), true_alignments(sim))
    border = np.ones(SIZE, bool)
    border[24:-24, 24:-24] = False
    judged = border & valid & (sim.truth.min(axis=-1) > 0.02)
    ratio = radiance[judged] / sim.truth[judged]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.005)
    assert np.quantile(ratio, 0.001) > 0.85
    assert np.quantile(ratio, 0.999) < 1.18


def test_resampling_does_not_ring() -> None:
    """A bright edge, moved by half a pixel: no value leaves the range of its neighbours by much."""
    edge = np.full((40, 60, 3), 0.01, np.float32)
    edge[:, 30:] = 0.6
    bracket = bracket_of([edge, edge], [1.0, 1.0], reference=0, response="linear")
    there = Alignment("translation", homography((40, 60), shift=(0.5, 0.0)))
    trust = np.full((40, 60), 255, np.uint8)
    radiance, _ = merged(bracket, [UNMOVED, there], [None, trust])
    assert radiance.min() >= 0.01 * 0.8
    assert radiance.max() <= 0.6 * 1.2


@pytest.mark.parametrize("size", [(37, 53), (1, 1), (1, 2), (2, 2), (3, 700), (300, 3)])
@pytest.mark.parametrize("moved", [False, True])
def test_any_size(size: tuple[int, int], moved: bool) -> None:
    code = np.random.default_rng(10).integers(20, 120, (*size, 3), np.uint8)
    linear = Response.named("srgb").decode(code)
    bracket = bracket_of([code, code], [1.0, 1.0], reference=0)
    alignment = Alignment("translation", homography(size, shift=(0.3, -0.2))) if moved else UNMOVED
    trust = np.full(size, 255, np.uint8)
    radiance, valid = merged(bracket, [UNMOVED, alignment], [None, trust])
    assert radiance.shape == (*size, 3)
    assert valid.shape == size
    assert valid.all()
    if not moved:
        np.testing.assert_allclose(radiance, linear, rtol=1e-4)
    assert np.all(np.isfinite(radiance))


@pytest.mark.parametrize("factor", [2, 3])
def test_trust_of_a_proxy_covers_all_of_the_picture(factor: int) -> None:
    """A remainder that is in no block takes the trust beside it."""
    height, width = 6 * factor + factor - 1, 10 * factor + 1
    codes = [np.full((height, width, 3), value, np.float32) for value in (0.2, 0.3)]
    trust = np.zeros((6, 10), np.uint8)
    trust[:, 5:] = 255
    radiance, _ = merged(bracket_of(codes, [1.0, 1.0], 0, "linear"), trust=[None, trust])
    np.testing.assert_allclose(radiance[:, : 4 * factor], 0.2, rtol=1e-4)
    np.testing.assert_allclose(radiance[:, 6 * factor :], 0.25, rtol=1e-3)
    middle = radiance[:, 5 * factor - 1 : 5 * factor + 1, 0].mean()
    assert middle == pytest.approx(0.225, abs=0.002)  # trust 1/2 goes half of the way to 0.25


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(2, 5),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    extreme=st.booleans(),
    shift=st.tuples(st.floats(-40, 40), st.floats(-40, 40)),
    balance=st.sampled_from(
        [
            np.eye(3),
            np.diag([2.0, 1.0, 1.6]),
            np.array([[1.9, -0.7, -0.2], [-0.3, 1.6, -0.3], [0.0, -0.8, 1.8]]),
        ]
    ),
)
def test_the_result_is_always_a_picture(
    seed: int, frames: int, dtype: type, extreme: bool, shift: tuple[float, float], balance: np.ndarray
) -> None:
    """Whatever the frames, motions and trust: finite, not negative."""
    rng = np.random.default_rng(seed)
    top = 1.0 if dtype == np.float32 else np.iinfo(dtype).max
    share = rng.integers(0, 2, (frames, 31, 45, 3)) if extreme else rng.random((frames, 31, 45, 3))
    codes = list((share * top).astype(dtype))
    reference = int(rng.integers(frames))
    bracket = bracket_of(codes, list(4.0 ** np.arange(frames)), reference, to_rec709=balance)
    alignments = [
        UNMOVED if i == reference else Alignment("translation", homography((31, 45), shift=shift))
        for i in range(frames)
    ]
    trust: list[Trust | None] = [
        None if i == reference else (rng.random((31, 45)) < 0.7).astype(np.uint8) * 255 for i in range(frames)
    ]
    radiance, valid = merged(bracket, alignments, trust)
    assert np.isfinite(radiance).all()
    assert radiance.min() >= 0.0
    assert valid.dtype == np.bool_


def test_noise_below_black_does_not_become_negative_light() -> None:
    """Float files may hold negative values in the dark; radiance may not."""
    rng = np.random.default_rng(11)
    codes = [rng.normal(0.0, 0.002, (30, 40, 3)).astype(np.float32) for _ in range(3)]
    radiance, _ = merged(bracket_of(codes, [1.0, 4.0, 16.0], response="linear"))
    assert np.isfinite(radiance).all()
    assert radiance.min() >= 0.0


# --- ghosts ---------------------------------------------------------------------------------------


def test_where_only_the_reference_is_trusted_the_result_is_the_reference(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(12), size=SIZE)
    bracket = sim.bracket()
    nothing = np.zeros(SIZE, np.uint8)
    radiance, valid = merged(bracket, trust=[nothing, None, nothing])
    own = bracket.reference_frame.linear()
    dark = own.max(axis=-1) < 0.9
    np.testing.assert_allclose(radiance[dark], own[dark], rtol=1e-4, atol=1e-6)
    blown = own.min(axis=-1) >= 1.0
    assert blown.any()
    np.testing.assert_allclose(radiance[blown], 1.0, rtol=1e-3)
    assert not valid[blown].any()


def test_a_distrusted_short_frame_does_not_shine_through_a_blown_reference() -> None:
    """The feathered rim of a ghost on a white wall stays white, instead of showing the other moment."""
    short = np.full((20, 40, 3), 60, np.uint8)  # dark, as behind an object: radiance 0.18, not 4
    white = np.full((20, 40, 3), 255, np.uint8)
    trust = np.broadcast_to(np.linspace(0, 127, 40).astype(np.uint8), (20, 40)).copy()
    radiance, _ = merged(bracket_of([short, white, white], [1.0, 4.0, 16.0]), trust=[trust, None, None])
    assert radiance[:, :2].min() > 0.98
    assert np.all(np.diff(radiance[10, :, 1]) <= 1e-5)  # fades without a dip


# --- what a network says beside trust -------------------------------------------------------------


def textured(size: tuple[int, int], seed: int, low: float = 0.02, high: float = 0.2) -> np.ndarray:
    """Linear light (H, W, 3) without two pixels alike."""
    return np.random.default_rng(seed).uniform(low, high, (*size, 3)).astype(np.float32)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("way", [(5, 0), (0, -6), (7, 4), (-8, 5)])
def test_what_drifted_merges_as_if_it_had_stayed(
    factor: int, way: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object that moved by whole pixels, over tiles that it crosses and others that it does not."""
    monkeypatch.setattr("hdrmerge.merge.STRIP", 32)
    monkeypatch.setattr("hdrmerge.merge.TILE", 48)
    size = 40 * factor, 60 * factor
    scene = textured(size, 1)
    codes = [scene * ratio for ratio in (np.float32(0.25), np.float32(1), np.float32(4))]
    still, _ = merged(bracket_of(codes, [1.0, 4.0, 16.0], response="linear"))
    top, bottom, left, right = 12, 24, 20, 36  # [proxy px]
    drift = np.zeros((40, 60, 2), np.float32)
    drift[top:bottom, left:right] = way
    ground = [code.copy() for code in codes]
    here = np.zeros(size, bool)
    here[top * factor : bottom * factor, left * factor : right * factor] = True
    there = np.roll(here, (way[1] * factor, way[0] * factor), (0, 1))
    for index in (0, 2):
        ground[index][here] = 0.01  # what stood behind it
        ground[index][there] = codes[index][here]
    moved, valid = merged(bracket_of(ground, [1.0, 4.0, 16.0], response="linear"), drift=[drift, None, drift])
    assert valid.all()
    np.testing.assert_allclose(moved[here], still[here], rtol=1e-5)
    away = ~(here | there)
    np.testing.assert_array_equal(moved[away], still[away])
    ghosted, _ = merged(bracket_of(ground, [1.0, 4.0, 16.0], response="linear"))
    assert np.abs(ghosted[here] / still[here] - 1).mean() > 0.1


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("turned", [-12.0, 0.0, 7.0])
def test_drift_is_counted_before_the_alignment(
    factor: int, turned: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turned frame in which everything drifted by the same way: the reference's pixel x is at M (x + d)."""
    monkeypatch.setattr("hdrmerge.merge.STRIP", 16)
    size, way = (120, 180), np.array([60.0, -3.0])

    def scene(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        wave = 0.1 + 0.04 * np.sin(x / 9) * np.cos(y / 7) + 0.02 * np.sin((x - 2 * y) / 17)
        return np.repeat(wave[..., None], 3, axis=-1).astype(np.float32)

    x, y = np.meshgrid(np.arange(size[1], dtype=np.float64), np.arange(size[0], dtype=np.float64))
    matrix = homography(size, rotation=turned, shift=(-50.0, 2.0))
    seen = cv2.perspectiveTransform(np.stack([x, y], axis=-1), np.linalg.inv(matrix)) - way
    codes = [scene(x, y), scene(seen[..., 0], seen[..., 1]) * np.float32(4)]
    shape = (size[0] // factor, size[1] // factor, 2)
    drift = np.broadcast_to(way / factor, shape).astype(np.float32)
    radiance, _ = merged(
        bracket_of(codes, [1.0, 4.0], 0, "linear"),
        [UNMOVED, Alignment("similarity", matrix)],
        drift=[None, drift],
    )
    np.testing.assert_allclose(radiance, codes[0], rtol=0.01)


def test_what_drifted_in_from_beyond_the_frame_says_nothing() -> None:
    codes = [textured((30, 40), seed) for seed in (1, 2)]
    far = np.full((30, 40, 2), 100.0, np.float32)
    radiance, _ = merged(bracket_of(codes, [1.0, 1.0], 0, "linear"), drift=[None, far])
    np.testing.assert_allclose(radiance, codes[0], rtol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_no_drift_and_no_correction_change_no_byte(ramp: np.ndarray, factor: int) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(13), size=SIZE, saturated_share=0.1)
    plain, valid = merged(sim.bracket())
    shape = (SIZE[0] // factor, SIZE[1] // factor)
    still, nothing = np.zeros((*shape, 2), np.float32), np.zeros((*shape, 3), np.float32)
    full = np.full(shape, 255, np.uint8)
    again, valid_again = merged(
        sim.bracket(), trust=[full, None, full], drift=[still, None, still], correction=nothing
    )
    assert again.tobytes() == plain.tobytes()
    np.testing.assert_array_equal(valid_again, valid)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_correction_is_added_to_the_mu_law(factor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdrmerge.merge.STRIP", 16)
    monkeypatch.setattr("hdrmerge.merge.TILE", 32)
    scene = textured((20 * factor, 30 * factor), 3)
    bracket = bracket_of([scene, scene * np.float32(4)], [1.0, 4.0], 0, "linear")
    plain, _ = merged(bracket)
    change = np.zeros((20, 30, 3), np.float32)
    change[5:15, 10:20] = 0.04, -0.02, 0.0
    corrected, valid = merged(bracket, correction=change)
    assert valid.all()
    inside, around = np.zeros(scene.shape[:2], bool), np.ones(scene.shape[:2], bool)
    inside[6 * factor : 14 * factor, 11 * factor : 19 * factor] = True
    around[4 * factor : 16 * factor, 9 * factor : 21 * factor] = False
    for channel, shift in enumerate((0.04, -0.02, 0.0)):
        difference = mu_law(corrected[..., channel]) - mu_law(plain[..., channel])
        np.testing.assert_allclose(difference[inside], shift, atol=1e-5)
        low, high = min(shift, 0.0), max(shift, 0.0)
        assert difference.min() >= low - 1e-5
        assert difference.max() <= high + 1e-5
    np.testing.assert_array_equal(corrected[around], plain[around])
    np.testing.assert_array_equal(corrected[..., 2], plain[..., 2])


def test_a_correction_below_black_is_black() -> None:
    scene = textured((8, 8), 4)
    change = np.full((8, 8, 3), -2.0, np.float32)
    radiance, _ = merged(bracket_of([scene, scene], [1.0, 1.0], 0, "linear"), correction=change)
    assert not radiance.any()
