"""Brackets made to agree with their pixels: exposures missing, wrong or right, curves found or given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdrmerge.bracket import Shot
from hdrmerge.errors import ExposureError
from hdrmerge.exposure import Response
from hdrmerge.form import StatedExposures
from hdrmerge.metrics import ev_rms
from hdrmerge.pipeline import MergeOptions, Report, merge_bracket, shared_response
from hdrmerge.response import load, save, typical
from hdrmerge.simulate import Camera, Shake, Simulated, expose, random_response, simulate_bracket
from hdrmerge.simulate_files import record_mosaic, write_dng, write_dngs, write_jpegs

STILL = Shake(0, 0, 0)
CURVE = random_response(np.random.default_rng(1))


def photographed(scene: np.ndarray, curve: Response, **options: object) -> Simulated:
    camera = options.pop("camera", Camera(response=curve))
    return simulate_bracket(
        scene,
        np.random.default_rng(3),
        size=(240, 360),
        shake=STILL,
        camera=camera,  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


def bare(sim: Simulated, folder: Path) -> list[Path]:
    """Write frames without any metadata, in an order that says nothing."""
    paths = [folder / f"{name}.png" for name in "cabed"[: len(sim.frames)]]
    for path, codes in zip(paths, sim.frames, strict=True):
        Image.fromarray(codes).save(path)
    return sorted(paths)


def lying(sim: Simulated, folder: Path, frame: int, stops: float) -> list[Path]:
    shots = list(sim.shots)
    shots[frame] = replace(shots[frame], exposure_time=(shots[frame].exposure_time or 0) * 2.0**stops)
    return write_jpegs(replace(sim, shots=tuple(shots)), folder)


def raw_files(sim: Simulated, claimed: Sequence[Shot], folder: Path) -> list[Path]:
    """Write DNG files whose metadata says what the ``claimed`` shots say, whatever was recorded."""
    paths, rng = [], np.random.default_rng(1)
    for number, (ratio, shot) in enumerate(zip(sim.relative_exposures, claimed, strict=True)):
        paths.append(folder / f"RAW_{number}.dng")
        photosites = record_mosaic(expose(sim.truth, ratio), sim.camera, 100.0, rng)
        write_dng(paths[-1], photosites, shot, sim.camera)
    return paths


def stops(report: Report) -> list[float]:
    return [frame["relative_ev"] for frame in report.to_json()["frames"]]


def error(result: np.ndarray, sim: Simulated) -> float:
    seen = ((sim.truth > 0.02) & (sim.truth < 0.9 / min(sim.relative_exposures))).all(axis=-1)
    return ev_rms(result[seen][None], sim.truth[seen][None])


# --- curves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_an_unknown_curve_is_undone(ramp: np.ndarray, tmp_path: Path, seed: int) -> None:
    sim = photographed(ramp, random_response(np.random.default_rng(seed)))
    paths = write_jpegs(sim, tmp_path)
    radiance, report = merge_bracket(paths)
    assert error(radiance.pixels, sim) <= 0.05
    assert max(report.ghost_shares) < 0.01
    told = report.to_json()["response"]
    assert told["name"] == "found"
    assert told["disagreement_after_ev"] < told["disagreement_before_ev"]
    assert error(merge_bracket(paths, MergeOptions(response="srgb"))[0].pixels, sim) > 0.06


def test_a_wrong_curve_does_not_make_everything_a_ghost(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = write_jpegs(photographed(ramp, CURVE), tmp_path)
    _, report = merge_bracket(paths, MergeOptions(response="gamma2.2"))
    assert max(report.ghost_shares) < 0.02


def test_a_curve_serves_other_brackets(ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path) -> None:
    _, first = merge_bracket(write_jpegs(photographed(ramp, CURVE), tmp_path / "a"))
    save(first.curve, tmp_path / "camera.json")
    other = photographed(elsewhere, CURVE, frames=2, step_ev=3.0)
    paths = write_jpegs(other, tmp_path / "b")
    radiance, report = merge_bracket(paths, MergeOptions(response=load(tmp_path / "camera.json")))
    assert error(radiance.pixels, other) <= 0.07
    assert report.response["verdict"] == "given"
    assert report.warnings == []


def test_a_given_curve_that_fits_worse_than_srgb_is_said(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = write_jpegs(photographed(ramp, Response.named("srgb")), tmp_path)
    _, report = merge_bracket(paths, MergeOptions(response=typical()))
    warning = report.warnings[0]
    assert "--response auto" in warning
    assert "camera" in warning


def test_frames_under_a_wrong_curve_are_brought_to_the_tones_of_the_reference(
    ramp: np.ndarray, tmp_path: Path
) -> None:
    """The result is what the reference looks like under that curve, seamlessly, and this is said."""
    sim = photographed(ramp, Response.named("srgb"), frames=3, step_ev=2.0)
    power = np.float32(np.exp(0.3))
    wrong = Response("wrong", Response.named("srgb").table ** power)
    paths = write_jpegs(sim, tmp_path)
    merged, report = merge_bracket(paths, MergeOptions(response=wrong))
    assert any("brought to its tones" in warning for warning in report.warnings)
    seen = (sim.truth > 0.02) & (sim.truth < 0.9) & ~sim.moving[..., None]
    off = np.log2(merged.pixels[seen] / sim.truth[seen] ** power)
    assert np.abs(np.median(off)) < 0.02
    assert float(np.sqrt(np.mean(np.square(off)))) < 0.1
    assert stops(report) == pytest.approx([-2.0 * power, 0.0, 2.0 * power], abs=0.1)


def test_one_curve_from_many_brackets(ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path) -> None:
    brackets: list[Sequence[Path]] = [
        write_jpegs(photographed(ramp, CURVE), tmp_path / "a"),
        write_jpegs(photographed(elsewhere, CURVE), tmp_path / "b"),
        [tmp_path / "missing.jpg", tmp_path / "gone.jpg"],
        write_dngs(
            photographed(ramp, CURVE, camera=Camera(bits=14)), tmp_path / "raw", np.random.default_rng(1)
        ),
    ]
    curve = shared_response(brackets)
    assert curve is not None
    sim = photographed(elsewhere, CURVE, frames=5, step_ev=1.0)
    radiance, _ = merge_bracket(write_jpegs(sim, tmp_path / "c"), MergeOptions(response=curve))
    assert error(radiance.pixels, sim) <= 0.05
    assert shared_response(brackets[2:]) is None


def test_raw_files_have_no_curve_to_find(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = photographed(ramp, CURVE, camera=Camera(bits=14))
    _, report = merge_bracket(write_dngs(sim, tmp_path, np.random.default_rng(1)))
    assert report.response == {"name": "raw"}
    assert report.offsets == [0.0, 0.0, 0.0]


# --- missing exposures ----------------------------------------------------------------------------


def test_missing_exposures_are_estimated_and_said(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = photographed(ramp, typical(), frames=5, step_ev=1.0)
    radiance, report = merge_bracket(bare(sim, tmp_path))
    assert stops(report) == pytest.approx([-2, -1, 0, 1, 2], abs=0.1)
    assert {frame["exposure_source"] for frame in report.to_json()["frames"]} == {"pixels"}
    (warning,) = report.warnings
    assert "a.png (and 4 more): no exposure in the metadata" in warning
    assert "-2, -1, 0, +1, +2 EV" in warning
    assert "--ev" in warning
    assert error(radiance.pixels, sim) <= 0.1


def test_the_reference_is_kept_when_the_pixels_sort(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = photographed(ramp, typical())
    paths = bare(sim, tmp_path)  # a: middle, b: bright, c: dark
    assert merge_bracket(paths)[0].reference.path.name == "a.png"
    assert merge_bracket(paths, MergeOptions(reference="b.png"))[0].reference.path.name == "b.png"
    assert merge_bracket(paths, MergeOptions(reference="2"))[0].reference.path.name == "c.png"


@pytest.mark.parametrize("missing", [0, 1, 2, 3, 4])
def test_one_missing_exposure_is_told_on_the_scale_of_the_others(
    ramp: np.ndarray, tmp_path: Path, missing: int
) -> None:
    """Under a curve that is far from typical: the other exposures tell its contrast."""
    sim = photographed(ramp, CURVE, frames=5, step_ev=1.3)
    paths = write_jpegs(sim, tmp_path)
    Image.fromarray(sim.frames[missing]).save(paths[missing], quality=95, subsampling=0)
    radiance, report = merge_bracket(paths)
    assert stops(report) == pytest.approx([-2.6, -1.3, 0, 1.3, 2.6], abs=0.1)
    assert radiance.reference.exposure == pytest.approx(sim.shots[2].exposure, rel=0.08)
    sources = [frame["exposure_source"] for frame in report.to_json()["frames"]]
    assert [n for n, source in enumerate(sources) if source == "pixels"] == [missing]
    assert f"{paths[missing].name}: no exposure" in report.warnings[0]


def test_one_stated_exposure_gives_the_scale(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = photographed(ramp, typical())
    paths = bare(sim, tmp_path)  # a: middle, b: bright, c: dark
    dark = write_jpegs(sim, tmp_path / "exif")[0]
    radiance, report = merge_bracket([dark, *paths[:2]])
    assert stops(report) == pytest.approx([-2, 0, 2], abs=0.3)
    assert radiance.reference.exposure == pytest.approx(sim.shots[1].exposure, rel=0.25)


def test_raw_exposures_are_measured(ramp: np.ndarray, tmp_path: Path) -> None:
    sim = photographed(ramp, CURVE, camera=Camera(bits=14), step_ev=(2.3, 1.6))
    nothing = [replace(shot, exposure_time=None, iso=None, f_number=None) for shot in sim.shots]
    _, report = merge_bracket(raw_files(sim, nothing, tmp_path))
    assert stops(report) == pytest.approx([-2.3, 0.0, 1.6], abs=0.05)


def test_a_frame_without_common_tones_stays_out(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = bare(photographed(ramp, typical()), tmp_path)
    lamp = np.zeros((240, 360, 3), np.uint8)
    lamp[:20, :20] = np.arange(20, dtype=np.uint8)[:, None] * 13  # and the rest is night
    Image.fromarray(lamp).save(tmp_path / "z.png")
    _, report = merge_bracket([*paths, tmp_path / "z.png"])
    assert [frame["used"] for frame in report.to_json()["frames"]].count(False) == 1
    assert any("z.png: left out" in warning and "--ev" in warning for warning in report.warnings)
    with pytest.raises(ExposureError, match=r"\.png: no exposure .*--ev"):
        merge_bracket([paths[0], tmp_path / "z.png"])


# --- exposures that lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_a_lie_is_reported_and_the_user_chooses(ramp: np.ndarray, tmp_path: Path, raw: bool) -> None:
    camera = Camera(bits=14) if raw else Camera(response=typical())
    sim = photographed(ramp, CURVE, camera=camera, frames=5, step_ev=1.0)
    if raw:
        shots = list(sim.shots)
        shots[4] = replace(shots[4], exposure_time=(shots[4].exposure_time or 0) * 2.0**-1.5)
        paths = raw_files(sim, shots, tmp_path)
    else:
        paths = lying(sim, tmp_path, 4, -1.5)
    believed, report = merge_bracket(paths)
    assert sorted(stops(report)) == pytest.approx([-2, -1, 0, 0.5, 1], abs=0.1)
    (warning,) = report.warnings
    assert f"{paths[4].name}: its metadata says +0.5 EV" in warning
    assert "--trust pixels" in warning
    seen, report = merge_bracket(paths, MergeOptions(trust="pixels"))
    assert sorted(stops(report)) == pytest.approx([-2, -1, 0, 1, 2], abs=0.2)
    assert "the pixels count" in report.warnings[0]
    assert [frame["exposure_source"] for frame in report.to_json()["frames"]].count("pixels") == 1
    if not raw:
        assert error(seen.pixels, sim) < 0.06 < error(believed.pixels, sim)


def test_what_the_user_says_is_not_questioned(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = write_jpegs(photographed(ramp, typical(), frames=5, step_ev=1.0), tmp_path)
    by_hand = StatedExposures(ev=(-2.0, -1.0, 0.0, 1.0, 5.0))
    _, report = merge_bracket(paths, MergeOptions(exposures=by_hand, trust="pixels"))
    assert stops(report) == pytest.approx([-2, -1, 0, 1, 5], abs=0.002)
    assert report.warnings == []


# --- one scale ------------------------------------------------------------------------------------


def test_an_anchor_gives_brackets_one_scale(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = write_jpegs(photographed(ramp, Response.named("srgb")), tmp_path)
    middle, _ = merge_bracket(paths)
    ev = middle.reference.ev100
    assert ev is not None
    for reference in range(3):
        options = MergeOptions(anchor=ev, reference=str(reference), response="srgb")
        anchored, _ = merge_bracket(paths, options)
        assert np.median(anchored.pixels / middle.pixels) == pytest.approx(1.0, abs=0.02)
    darker, _ = merge_bracket(paths, MergeOptions(anchor=ev + 1.0))
    assert darker.pixels == pytest.approx(middle.pixels / 2, rel=1e-5)


def test_an_anchor_needs_exposures_in_the_files(ramp: np.ndarray, tmp_path: Path) -> None:
    paths = bare(photographed(ramp, typical()), tmp_path)
    with pytest.raises(ExposureError, match=r"a\.png: no absolute exposure .*--anchor reference"):
        merge_bracket(paths, MergeOptions(anchor=12.0))
    with pytest.raises(ExposureError, match="--anchor reference"):
        merge_bracket(paths, MergeOptions(anchor=12.0, exposures=StatedExposures(ev_step=2.0)))


@pytest.mark.parametrize("raw", [False, True])
def test_small_errors_of_exposures_are_corrected(ramp: np.ndarray, tmp_path: Path, raw: bool) -> None:
    """A lens that says f/8 and is f/8.3: a tenth of a stop, and a seam in a merge that believes it."""
    camera = Camera(bits=14) if raw else Camera(response=CURVE)
    sim = photographed(ramp, CURVE, camera=camera, frames=5, step_ev=1.0)
    claimed = list(sim.shots)
    claimed[3] = replace(claimed[3], exposure_time=(claimed[3].exposure_time or 0) * 2.0**0.15)
    if raw:
        paths = raw_files(sim, claimed, tmp_path)
    else:
        paths = write_jpegs(replace(sim, shots=tuple(claimed)), tmp_path)
    _, report = merge_bracket(paths)
    assert report.offsets == pytest.approx([0, 0, 0, -0.15, 0], abs=0.06)
    assert [frame["exposure_offset_ev"] for frame in report.to_json()["frames"]] == pytest.approx(
        report.offsets, abs=1e-4
    )
    assert report.warnings == []
