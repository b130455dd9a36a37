from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from made_sets import bracket, write_kalantari, write_plain

from hdrmerge import evaluate as module
from hdrmerge.dataset import Case, Dataset, open_dataset
from hdrmerge.errors import HdrmergeError, InputError
from hdrmerge.evaluate import (
    CLASSICAL,
    PLAIN,
    REFERENCE,
    Evaluation,
    Judged,
    Outcome,
    environment,
    evaluate,
    mean,
    score,
    worst_window,
)
from hdrmerge.metrics import psnr_mu
from hdrmerge.pipeline import MergeOptions, merge_bracket


def case_of(truth: np.ndarray, moving: np.ndarray | None, saturated: np.ndarray, peak: float = 4.0) -> Case:
    return Case("made", truth, peak, saturated, moving, lambda _: [], 0)


@pytest.fixture
def made() -> tuple[Case, np.ndarray]:
    """A case of which the left third moves and the upper half is saturated, and a noisy result."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.01, 5.0, (48, 60, 3)).astype(np.float32)
    moving, saturated = np.zeros((48, 60), bool), np.zeros((48, 60), bool)
    moving[:, :20] = True
    saturated[:24] = True
    result = truth * rng.normal(1.0, 0.02, truth.shape).astype(np.float32)
    return case_of(truth, moving, saturated), result


# --- scores ---------------------------------------------------------------------------------------


def test_scores_by_region(made: tuple[Case, np.ndarray]) -> None:
    case, result = made
    result[:, :20] *= 1.1
    scores = score(result, case)
    assert {tuple(values) for values in scores.values()} == {module.REGIONS}
    for metric in module.METRICS:
        assert scores[metric]["static"] > scores[metric]["whole"] > scores[metric]["moving"]
    inside = case.moving & case.saturated
    limited = np.minimum(result, 4.0), np.minimum(case.truth, 4.0)
    assert scores["psnr_mu"]["moving_saturated"] == pytest.approx(psnr_mu(*limited, inside, peak=4.0))
    assert all(value == 1.0 for value in score(case.truth, case)["ssim_mu"].values())


def test_beyond_the_shortest_frame_nothing_is_judged(made: tuple[Case, np.ndarray]) -> None:
    case, result = made
    beyond = np.where(case.truth > 4.0, 1000.0, result).astype(np.float32)
    limited = np.where(case.truth > 4.0, 4.0, result).astype(np.float32)
    assert score(beyond, case) == score(limited, case)


def test_regions_that_are_not_known_or_not_shown_have_no_score(made: tuple[Case, np.ndarray]) -> None:
    case, result = made

    def known(case: Case) -> set[str]:
        return {region for region, value in score(result, case)["psnr_mu"].items() if math.isfinite(value)}

    assert known(replace(case, moving=None)) == {"whole", "saturated"}
    assert known(replace(case, peak=1.0)) == {"whole", "moving", "static"}
    assert known(replace(case, moving=np.zeros_like(case.saturated))) == {"whole", "saturated", "static"}


def test_mean_passes_over_what_is_no_number() -> None:
    assert mean([1.0, math.nan, 3.0, math.inf]) == 2.0
    assert math.isnan(mean([math.nan]))


# --- rows -----------------------------------------------------------------------------------------


def outcome(whole: float, moving: float = math.nan, **seconds: float) -> Outcome:
    scores = {metric: dict.fromkeys(module.REGIONS, math.nan) for metric in module.METRICS}
    scores["psnr_mu"] |= {"whole": whole, "moving": moving}
    return Outcome(scores, seconds)


def test_rows_average_cases_and_tell_sets_with_motion_apart() -> None:
    cases = [
        Judged(
            "moves",
            {},
            1.0,
            True,
            {
                REFERENCE: outcome(30.0, 28.0),
                PLAIN: outcome(25.0, 18.0, read=9.0, merge=1.0),
                "net": outcome(38.0, 35.0, read=9.0, deghost=1.5, merge=0.5),
            },
        ),
        Judged(
            "rests",
            {},
            3.0,
            False,
            {
                REFERENCE: outcome(32.0),
                PLAIN: outcome(42.0, merge=1.0),
                "net": outcome(41.5, deghost=2.5, merge=1.5),
            },
        ),
        Judged("unknown", {}, 1.0, None, dict.fromkeys((REFERENCE, PLAIN, "net"), outcome(10.0))),
    ]
    dataset = Dataset(Path("set"), "plain", ("moves", "rests", "unknown"), lambda number: None)
    found = Evaluation(dataset, "cpu", "auto", cases, {})
    rows = found.rows()
    assert list(rows) == [REFERENCE, PLAIN, "net"]
    net = rows["net"]
    assert net["psnr_mu"]["whole"] == pytest.approx((38 + 41.5 + 10) / 3)
    assert (net["psnr_mu"]["moving"], net["gain"]["psnr_mu"]["moving"]) == (35.0, 7.0)
    assert net["moving_sets"] == {"cases": 1, "psnr_mu": 38.0, "gain": 8.0, "over_plain": 13.0}
    assert net["static_sets"] == {"cases": 1, "psnr_mu": 41.5, "gain": 9.5, "over_plain": -0.5}
    assert net["seconds_per_megapixel"] == pytest.approx(6.0 / 5.0)
    assert net["judging_seconds"] == pytest.approx(2.0)
    assert rows[PLAIN]["seconds_per_megapixel"] == pytest.approx(2.0 / 5.0)
    assert math.isnan(rows[REFERENCE]["seconds_per_megapixel"])
    text = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(text)["rows"]["net"]["psnr_mu"]["static"] is None


# --- evaluate -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory, ramp: np.ndarray, elsewhere: np.ndarray) -> Path:
    """Two plain sets, in one of which an object moves."""
    folder = tmp_path_factory.mktemp("sets")
    write_plain(bracket(ramp, elsewhere, size=(192, 288)), folder / "moves")
    write_plain(bracket(ramp, size=(192, 288)), folder / "rests")
    return folder


def test_standard_rows_of_plain_sets(sets: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = evaluate(open_dataset(sets), ["none"], save=tmp_path, progress=shares.append)
    assert shares == [0.5, 1.0]
    assert not found.failures
    rows = found.rows()
    assert list(rows) == [REFERENCE, PLAIN, CLASSICAL]
    assert rows[CLASSICAL]["psnr_mu"]["moving"] > rows[PLAIN]["psnr_mu"]["moving"] + 3
    assert rows[CLASSICAL]["gain"]["psnr_mu"]["static"] > 2
    assert rows[PLAIN]["static_sets"]["gain"] > 2
    assert abs(rows[CLASSICAL]["static_sets"]["over_plain"]) < 0.5
    assert rows[CLASSICAL]["seconds_per_megapixel"] > 0
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures[0] == "moves crop, truth, reference alone, plain merge, classical.png"
    assert pictures[1] == "moves, truth, reference alone, plain merge, classical.png"
    assert len(pictures) == 4
    assert [cv2.imread(str(tmp_path / name)).shape for name in pictures[:2]] == [
        (192, 4 * 256, 3),
        (192, 4 * 288, 3),
    ]
    strip = cv2.imread(str(tmp_path / pictures[3]))  # where nothing moves all are alike
    assert np.abs(strip[:, :288].astype(float) - strip[:, 3 * 288 :]).mean() < 4


def test_kalantari_sets(ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path) -> None:
    write_kalantari(bracket(ramp, elsewhere, "gamma2.2", (192, 288)), tmp_path / "PAPER" / "one")
    rows = evaluate(open_dataset(tmp_path)).rows()
    assert rows[CLASSICAL]["psnr_mu"]["whole"] > rows[PLAIN]["psnr_mu"]["whole"] + 1
    assert rows[CLASSICAL]["psnr_l"]["whole"] > rows[REFERENCE]["psnr_l"]["whole"] + 3
    assert math.isnan(rows[CLASSICAL]["psnr_mu"]["moving"])


def test_the_table_of_a_paper_can_be_made_from_its_layout(
    ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path, painter_file: Path
) -> None:
    """Two sets, a network of three frames: every figure that HDR-GAN's Table I has but HDR-VDP-2."""
    pytest.importorskip("onnxruntime")
    for name, scene, other in (("one", ramp, elsewhere), ("two", elsewhere, ramp)):
        write_kalantari(bracket(scene, other, "gamma2.2", (192, 288)), tmp_path / name)
    found = evaluate(open_dataset(tmp_path), [str(painter_file)], device="cpu")
    assert [case.name for case in found.cases] == ["one", "two"]
    row = found.rows()[str(painter_file)]
    for figure in ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l"):
        values = row[figure]
        assert math.isfinite(values["whole"] if isinstance(values, dict) else values)
    assert row["psnr_mu"]["whole"] > found.rows()[REFERENCE]["psnr_mu"]["whole"] + 1


def test_a_truth_in_another_scale_is_fitted_on_demand(sets: Path) -> None:
    dataset = open_dataset(sets, 1)
    right = dataset.case(0)
    scaled = replace(dataset, case=lambda number: replace(right, truth=right.truth * np.float32(3.0)))
    rows = [evaluate(scaled, fit_scale=fit).rows()[CLASSICAL] for fit in (False, True)]
    assert rows[0]["psnr_mu"]["whole"] < 20
    assert rows[1]["psnr_mu"]["whole"] > 30


def test_a_case_that_fails_is_left_out_of_every_row(sets: Path) -> None:
    dataset = open_dataset(sets)

    def case(number: int) -> Case:
        if number == 0:
            raise InputError("a.jpg: ends early")
        return dataset.case(number)

    told: list[tuple[str, str]] = []
    found = evaluate(replace(dataset, case=case), failed=lambda name, error: told.append((name, str(error))))
    assert told == [("moves", "a.jpg: ends early")]
    assert found.failures == {"moves": "a.jpg: ends early"}
    assert {row["cases"] for row in found.rows().values()} == {1}


def test_networks_follow_in_their_order_with_their_options(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def options(**settings: Any) -> Any:
        asked.append(settings)
        return MergeOptions(reference=settings["reference"], response=settings["response"], network="none")

    monkeypatch.setattr(module, "MergeOptions", options)
    found = evaluate(open_dataset(sets, 1), ["trust", "a/b.onnx", "trust"], device="cuda", precision="fp16")
    assert list(found.rows()) == [REFERENCE, PLAIN, CLASSICAL, "trust", "a/b.onnx"]
    assert [one["network"] for one in asked[:3]] == ["none", "trust", "a/b.onnx"]
    assert (asked[1]["device"], asked[1]["precision"]) == ("cuda", "fp16")
    assert Path(asked[1]["reference"]).name == "IMG_0002.jpg"
    assert found.rows()["trust"]["device"] == "cuda"


def test_a_network_that_paints_has_a_second_row(
    sets: Path, loud_painter_file: Path, network_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    networks = [str(network_file), str(loud_painter_file)]
    found = evaluate(open_dataset(sets, 1), networks, device="cpu", everywhere=True, save=tmp_path)
    rows = found.rows()
    assert not found.failures
    assert list(rows) == [REFERENCE, PLAIN, CLASSICAL, *networks, f"{loud_painter_file} everywhere"]
    gated, whole = rows[networks[1]], rows[f"{loud_painter_file} everywhere"]
    assert gated["psnr_mu"]["static"] > whole["psnr_mu"]["static"] + 1
    seconds = found.cases[0].outcomes[networks[1]].seconds
    assert gated["judging_seconds"] == pytest.approx(seconds["deghost"] + seconds["fuse"])
    assert list(evaluate(open_dataset(sets, 1), networks[1:], device="cpu").rows()) == [
        REFERENCE,
        PLAIN,
        CLASSICAL,
        networks[1],
    ]
    names = "truth, reference alone, plain merge, classical, random, loud, loud everywhere"
    assert (tmp_path / f"moves, {names}.png").exists()


def test_a_network_that_fails_fails_the_case(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(paths: Sequence[Path], options: Any) -> Any:
        if options.network == "broken":
            raise HdrmergeError("broken: no such network")
        return merge_bracket(paths, options)

    def options(**settings: Any) -> Any:
        known = MergeOptions(reference=settings["reference"], network="none")
        return known if settings["network"] == "none" else SimpleNamespace(network="broken")

    monkeypatch.setattr(module, "merge_bracket", merge)
    monkeypatch.setattr(module, "MergeOptions", options)
    found = evaluate(open_dataset(sets, 1), ["broken"])
    assert found.failures == {"moves": "broken: no such network"}
    assert (found.cases, found.rows()) == ([], {})


# --- pictures and environment ---------------------------------------------------------------------


def test_the_worst_window_is_where_moving_pixels_err() -> None:
    error = np.zeros((600, 800), np.float32)
    error[500:520, 700:720] = 5.0
    error[100:110, 300:310] = 1.0
    rows, columns = worst_window(error, None)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (256, 256)
    assert rows.start <= 500
    assert rows.stop >= 520
    assert columns.start <= 700
    assert columns.stop >= 720
    moving = np.zeros(error.shape, bool)
    moving[:200, :400] = True
    rows, columns = worst_window(error, moving)
    assert rows.start <= 100 < 110 <= rows.stop
    assert columns.start <= 300 < 310 <= columns.stop
    assert worst_window(error[:50, :60], None) == (slice(0, 50), slice(0, 60))


def test_the_environment_names_versions_and_memory() -> None:
    found = environment()
    assert found["versions"]["numpy"] == np.__version__
    assert found["threads"] >= 1
    assert found["peak_memory_mb"] is None or found["peak_memory_mb"] > 50


def test_there_is_no_commit_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "site-packages" / "hdrmerge" / "evaluate.py"))
    assert environment()["commit"] is None
    (tmp_path / "site-packages" / ".git").mkdir(parents=True)  # and no failure in a broken one
    assert environment()["commit"] is None
