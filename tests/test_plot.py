"""The picture of a run."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import TINY, noise, write_examples  # noqa: E402

from hdrmerge.errors import OutputError  # noqa: E402
from hdrmerge.training.plot import PANEL, Line, diagram, diagrams, draw, samples, smoothed, ticks  # noqa: E402
from hdrmerge.training.train import State  # noqa: E402
from hdrmerge.training.trust import TrustLesson, TrustRecipe  # noqa: E402
from hdrmerge.training.validate import REGIONS  # noqa: E402

BLUE = (255, 0, 0)
LEVEL = dict.fromkeys(REGIONS, 33.0)
SCORES = dict.fromkeys(TrustLesson.rows, LEVEL)


def state(rows: int) -> State:
    curve = [[60.0 * k, -20.0 - k, 1e-3] for k in range(1, rows + 1)]
    history = [{"step": k, "elapsed": 60.0 * k, **LEVEL, "static": math.nan} for k in range(1, rows + 1)]
    return State(rows, 60.0 * rows, history, curve)


def test_a_line_rises_from_left_to_right() -> None:
    picture = diagram("", [Line("", [(0, 1.0), (10, 2.0), (20, 3.0)], BLUE)])
    assert picture.shape == (*PANEL, 3)
    y, x = np.nonzero((picture == BLUE).all(axis=-1))
    left, right = x < np.median(x), x > np.median(x)
    assert y[left].min() > y[right].max() - 8
    assert np.corrcoef(x, y)[0, 1] < -0.99


def test_what_is_no_number_is_left_out() -> None:
    line = [(0.0, 1.0), (1.0, math.nan), (2.0, 2.0)]
    assert np.array_equal(
        diagram("", [Line("", line, BLUE)]), diagram("", [Line("", [line[0], line[2]], BLUE)])
    )


@pytest.mark.parametrize("points", [[], [(5.0, 3.0)], [(0.0, 3.0), (1.0, 3.0)], [(0.0, math.nan)]])
def test_a_run_that_has_only_begun_can_be_drawn(points: list[tuple[float, float]]) -> None:
    assert diagram("loss", [Line("a", points, BLUE)]).shape == (*PANEL, 3)


def test_noise_is_smoothed_but_not_the_beginning() -> None:
    assert smoothed([4.0]) == [4.0]
    assert smoothed([1.0, 2.0, 2.0], 0.5) == [1.0, 1.5, 1.75]


@pytest.mark.parametrize("low, high", [(0, 1), (-31.3, -20.1), (37.25, 37.5), (0, 90), (0, 1.5e-3)])
def test_axes_have_a_few_round_numbers(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert low <= found[0] < found[-1] <= high
    assert np.allclose(np.diff(found), found[1] - found[0])


def test_diagrams_stand_side_by_side() -> None:
    for rows in (0, 1, 5):
        assert diagrams(state(rows), SCORES, "classical").shape == (PANEL[0], 3 * PANEL[1], 3)


def test_results_stand_beside_the_truth(tmp_path: Path) -> None:
    """Grey as bright as the code says; the last column is the truth."""
    for number in range(6):
        example = noise(number, 2)
        example.truth[:] = np.float16(0.6)
        example.frames[:, 8] = 0  # none is shorter: the peak is 1
        example.save(tmp_path / f"{number:06d}.npy")
    lesson = TrustLesson(TrustRecipe(config=TINY))
    picture = samples(lesson, lesson.mean, sorted(tmp_path.glob("*.npy")))
    height, width = 64 + 4, 4 * (96 + 4)
    assert picture.shape == (28 + 4 * height, width, 3)
    truth = picture[28:, 3 * width // 4 :][:height]
    assert np.unique(truth[2:-2, 2:-2]).tolist() == [153]


def test_a_picture_is_written_and_replaced(tmp_path: Path) -> None:
    files = sorted(write_examples(tmp_path / "examples", 2, 3).glob("*.npy"))
    path = tmp_path / "pictures" / "run.png"
    lesson = TrustLesson(TrustRecipe(config=TINY))
    for rows, held_out in ((2, files), (3, [])):
        draw(path, lesson, lesson.mean, state(rows), SCORES, held_out)
        assert [file.name for file in path.parent.iterdir()] == ["run.png"]
        picture = cv2.imread(str(path))
        assert picture is not None
        assert (picture.shape[0] > PANEL[0]) == bool(held_out)


def test_a_picture_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lesson = TrustLesson(TrustRecipe(config=TINY))
    with pytest.raises(OutputError, match="cannot be written"):
        draw(tmp_path / "file" / "run.png", lesson, lesson.mean, state(1), SCORES, [])
