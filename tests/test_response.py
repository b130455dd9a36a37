"""Response curves found, judged, saved and loaded; and the tones and equations behind them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hdrmerge.align import Alignment
from hdrmerge.bracket import Frame
from hdrmerge.curvefit import KNOTS, Evidence, solve
from hdrmerge.errors import InputError
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.proxy import shrink
from hdrmerge.response import (
    TYPICAL,
    disagreement,
    find_response,
    load,
    response_of,
    save,
    typical,
)
from hdrmerge.simulate import Camera, Shake, Simulated, random_response, simulate_bracket
from hdrmerge.tones import Tones, agreements, gather

SRGB = Response.named("srgb")
UNMOVED = Alignment("none", np.eye(3))


def photographed(scene: np.ndarray, curve: Response, seed: int = 3, **options: object) -> Simulated:
    return simulate_bracket(
        scene,
        np.random.default_rng(seed),
        size=(240, 360),
        shake=Shake(0, 0, 0),
        camera=Camera(response=curve),
        **options,  # type: ignore[arg-type]
    )


def tones_of(codes: list[np.ndarray] | tuple[np.ndarray, ...], used: tuple[bool, ...] = ()) -> Tones:
    noise = NoiseModel.from_iso(100)
    shot = photographed.__defaults__  # any value: frames are only shrunk
    frames = [Frame(shot, c, SRGB, noise) for c in codes]  # type: ignore[arg-type]
    alignments = [Alignment("none", np.eye(3), used=u) for u in used or [True] * len(frames)]
    return gather([shrink(frame) for frame in frames], alignments, SRGB)


def evidence(sim: Simulated) -> Evidence:
    return Evidence.of(tones_of(sim.frames), np.log2(sim.relative_exposures))


def distance(found: Response, true: Response) -> float:
    """Return the rms distance [stops] of two curves over the codes in use, up to a scale."""
    codes = np.linspace(0.1, 0.95, 200)
    knots_a, knots_b = np.linspace(0, 1, len(found.table)), np.linspace(0, 1, len(true.table))
    off = np.stack(
        [
            np.log2(np.interp(codes, knots_a, found.table[:, c]))
            - np.log2(np.interp(codes, knots_b, true.table[:, c]))
            for c in range(3)
        ]
    )
    return float(np.std(off))


# --- found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_random_curve_is_found(ramp: np.ndarray, seed: int) -> None:
    curve = random_response(np.random.default_rng(seed))
    found = find_response([evidence(photographed(ramp, curve))], SRGB)
    assert found.response is not None
    assert found.before is not None
    assert found.after is not None
    assert found.after < 0.06
    assert found.after < found.before
    assert distance(found.response, curve) < min(0.06, distance(SRGB, curve))
    assert np.abs(found.offsets[0]).max() < 0.03


def test_what_moves_does_not_bend_the_curve(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    curve = random_response(np.random.default_rng(11))
    found = find_response([evidence(photographed(ramp, curve, movers=(elsewhere, elsewhere)))], SRGB)
    assert found.response is not None
    assert distance(found.response, curve) < 0.08


def test_an_srgb_camera_keeps_srgb(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB)
    found = find_response([evidence(sim)], SRGB)
    assert distance(found.response or SRGB, SRGB) < 0.03


def test_frames_without_tones_in_common_keep_the_curve_and_say_so(ramp: np.ndarray) -> None:
    dark, bright = np.full((240, 360, 3), 3, np.uint8), np.full((240, 360, 3), 250, np.uint8)
    found = find_response([Evidence.of(tones_of([dark, bright]), [0.0, 8.0])], SRGB)
    assert (found.response, found.before, found.after) == (None, None, None)
    assert "too few" in found.note


def test_a_curve_that_explains_nothing_is_refused(ramp: np.ndarray) -> None:
    """Exposures that have nothing to do with the frames: no curve makes them agree on other tiles."""
    rng = np.random.default_rng(5)
    frames = [rng.integers(60, 200, (240, 360, 3)).astype(np.uint8) // 8 * 8 for _ in range(3)]
    frames = [np.repeat(np.repeat(f[::12, ::12], 12, 0), 12, 1) for f in frames]
    found = find_response([Evidence.of(tones_of(frames), [-2.0, 0.0, 2.0])], SRGB)
    assert found.response is None


def test_several_brackets_of_a_camera_tell_more_than_one(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    curve = random_response(np.random.default_rng(21))
    both = [evidence(photographed(ramp, curve)), evidence(photographed(elsewhere, curve, frames=5))]
    found = find_response(both, SRGB)
    assert found.response is not None
    assert [len(offsets) for offsets in found.offsets] == [3, 5]
    assert distance(found.response, curve) < 0.05


def test_a_small_error_of_an_exposure_is_found(ramp: np.ndarray) -> None:
    curve = random_response(np.random.default_rng(2))
    sim = photographed(ramp, curve, frames=5, step_ev=1.5)
    true = np.log2(sim.relative_exposures)
    error = np.array([0.0, 0.0, 0.0, 0.2, 0.0])
    found = find_response([Evidence.of(tones_of(sim.frames), true + error)], SRGB)
    offsets = found.offsets[0] - found.offsets[0].mean()
    assert offsets == pytest.approx(-error + error.mean(), abs=0.08)


def test_clipping_below_255_is_found(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, saturated_share=0.1)
    lower = [np.minimum(codes, 235) for codes in sim.frames]
    tones = tones_of(lower)
    assert tones.ceiling == pytest.approx([235 / 255] * 3, abs=1.5 / 255)
    assert tones_of(sim.frames).ceiling == (1.0, 1.0, 1.0)
    found = find_response([Evidence.of(tones, np.log2(sim.relative_exposures))], SRGB)
    assert found.response is not None
    assert found.response.sampled(256)[235].min() == pytest.approx(1.0, abs=0.02)
    assert found.response.sampled(256)[128].max() < 0.4


def test_a_pedestal_is_found(ramp: np.ndarray) -> None:
    sim = photographed(ramp, SRGB, step_ev=3.0)
    # A film scan: the darkest a quarter of the picture can be is 18.
    raised = [np.maximum(codes, 18) for codes in sim.frames]
    for codes in raised:
        codes[:, :100] = 18
    assert tones_of(raised).floor == pytest.approx([18 / 255] * 3, abs=1 / 255)
    assert tones_of(sim.frames).floor == (0.0, 0.0, 0.0)


def test_frames_left_out_have_no_say(ramp: np.ndarray, elsewhere: np.ndarray) -> None:
    sim = photographed(ramp, SRGB)
    tones = tones_of(sim.frames, used=(True, True, False))
    assert not tones.usable[2].any()
    assert set(agreements(tones).b.tolist()) == {0, 1}


# --- solved ---------------------------------------------------------------------------------------


def test_offsets_have_no_trend_along_the_exposures(ramp: np.ndarray) -> None:
    """Otherwise smaller steps and a flatter curve would make any disagreement small."""
    sim = photographed(ramp, random_response(np.random.default_rng(3)), frames=5, step_ev=1.0)
    bracket = evidence(sim)
    solution = solve([bracket])
    assert solution is not None
    offsets = solution.stops[0] - bracket.stops
    assert abs(np.dot(offsets, bracket.stops - bracket.stops.mean())) < 1e-3


def test_curves_always_rise(ramp: np.ndarray) -> None:
    shuffled = np.random.default_rng(1).permutation(256).astype(np.uint8)
    sim = photographed(ramp, SRGB)
    solution = solve([Evidence.of(tones_of([shuffled[codes] for codes in sim.frames]), [-2.0, 0.0, 2.0])])
    if solution is not None:
        table = response_of(solution.deviation).table
        assert (np.diff(table, axis=0) >= 0).all()


def test_grey_stays_grey(ramp: np.ndarray) -> None:
    """The channels' curves meet at white and in the middle, whatever the frames say."""
    curve = random_response(np.random.default_rng(8), apart=0.2)
    solution = solve([evidence(photographed(ramp, curve))])
    assert solution is not None
    table = response_of(solution.deviation).sampled(256)
    assert table[255] == pytest.approx([1.0] * 3)
    assert np.log2(table[128] / table[128].mean()) == pytest.approx([0.0] * 3, abs=0.05)


# --- kept -----------------------------------------------------------------------------------------


def test_the_typical_curve_has_more_contrast_than_srgb() -> None:
    table, srgb = typical().sampled(256), SRGB.sampled(256)
    assert np.log2(table[128, 1] / table[32, 1]) == pytest.approx(2.6, abs=0.25)
    assert np.log2(srgb[128, 1] / srgb[32, 1]) == pytest.approx(3.9, abs=0.1)
    assert len(TYPICAL) == len(KNOTS)


def test_a_saved_curve_comes_back(tmp_path: Path) -> None:
    curve = random_response(np.random.default_rng(4))
    save(curve, tmp_path / "camera.json", camera="Simulated")
    again = load(tmp_path / "camera.json")
    codes = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, -1, 3)
    assert again.decode(codes) == pytest.approx(curve.decode(codes), rel=0.01, abs=1e-5)
    assert json.loads((tmp_path / "camera.json").read_text())["camera"] == "Simulated"


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"linear": [[0, 0, 0]]},
        {"linear": [[0, 0], [1, 1]]},
        {"linear": [[0, 0, 0], [1, 1, 1], [0.5, 1, 1]]},
        {"linear": [[0, 0, 0], [1, 1, float("nan")]]},
        {"linear": [[-1, 0, 0], [1, 1, 1]]},
        {"linear": "abc"},
        {"linear": None},
    ],
)
def test_a_damaged_curve_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "curve.json"
    save(SRGB, path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"curve\.json: .*--save-response"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xd8\xff", b"[]", b"3"])
def test_what_is_no_curve_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: .*--save-response"):
        load(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"none\.json: .*--save-response"):
        load(tmp_path / "none.json")


def test_disagreement_is_zero_for_perfect_frames_under_the_true_curve() -> None:
    light = np.linspace(0.02, 0.9, 240)[:, None, None] * np.ones((1, 360, 3))
    codes = [
        np.rint(SRGB.encode((light * e).clip(0, 1).astype(np.float32)) * 255).astype(np.uint8)
        for e in (0.5, 1.0)
    ]
    bracket = [Evidence.of(tones_of(codes), [-1.0, 0.0])]
    assert disagreement(bracket, SRGB) == pytest.approx(0.0, abs=0.03)
    assert disagreement(bracket, Response.named("linear")) == pytest.approx(0.55, abs=0.2)
