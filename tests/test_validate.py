"""Scores on examples held out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import TINY, noise, write_examples  # noqa: E402

from hdrmerge.training.trust import TrustLesson, TrustRecipe  # noqa: E402
from hdrmerge.training.validate import REGIONS, finite_mean, score, tensors_of  # noqa: E402

CPU = torch.device("cpu")


def test_examples_are_cut_to_the_pooling_grid() -> None:
    reference, frames, truth, masks, peak = tensors_of(noise(frames=2, shape=(70, 100)), CPU)
    shapes = [tuple(planes.shape) for planes in (reference, frames, truth, masks)]
    assert shapes == [(1, 7, 64, 96), (1, 2, 10, 64, 96), (1, 3, 64, 96), (1, 4, 64, 96)]
    assert peak.tolist() == [4.0]


def test_psnr_of_an_error_of_a_tenth_is_20_db() -> None:
    truth = torch.full((1, 3, 8, 8), 0.5)
    masks = torch.zeros(1, 4, 8, 8)
    masks[:, 0] = 1
    masks[:, 1, :4] = 1
    code = truth + 0.01
    code[:, :, :4] = 0.6
    found = score(code, truth, masks, torch.ones(1))
    assert found["moving"] == pytest.approx(20.0, abs=1e-3)
    assert found["whole"] == pytest.approx(-10 * math.log10((0.01 + 0.0001) / 2), abs=1e-3)
    assert math.isnan(found["moving_saturated"])
    assert math.isnan(score(truth, truth, masks, torch.ones(1))["whole"])


def test_beyond_the_peak_all_is_white() -> None:
    masks = torch.ones(1, 4, 8, 8)
    truth = torch.full((1, 3, 8, 8), 1.0)
    found = score(truth + 0.2, truth - 0.1, masks, torch.ones(1))
    assert found["whole"] == pytest.approx(20.0, abs=1e-3)


def test_regions_are_those_of_the_metrics() -> None:
    example = noise()
    masks = tensors_of(example, CPU)[3][0].bool().numpy()
    assert masks[0].all()
    assert np.array_equal(masks[1], example.moving)
    assert np.array_equal(masks[2], example.moving & example.saturated)
    assert np.array_equal(masks[3], ~example.moving)


def test_means_leave_out_what_is_nowhere() -> None:
    assert finite_mean([1.0, math.nan, 2.0]) == 1.5
    assert math.isnan(finite_mean([math.nan]))


def test_all_methods_get_a_score_in_all_regions(tmp_path: Path) -> None:
    lesson = TrustLesson(TrustRecipe(config=TINY))
    files = sorted(write_examples(tmp_path, 1, 3).glob("*.npy"))
    scores = lesson.validate(lesson.mean, files)
    assert tuple(scores) == lesson.rows
    assert all(tuple(row) == REGIONS and all(map(math.isfinite, row.values())) for row in scores.values())
    # Untrained, the network corrects nothing.
    assert scores["trust"] == scores["blend"]


def test_the_classical_result_is_that_of_the_belief() -> None:
    example = noise(frames=1)
    example.frames[:, 7] = 0  # no frame is believed
    reference, frames, *_ = tensors_of(example, CPU)
    lesson = TrustLesson(TrustRecipe(config=TINY))
    results = lesson.results(lesson.mean, reference, frames)
    assert torch.allclose(results["classical"], results["reference"], atol=1e-5)
