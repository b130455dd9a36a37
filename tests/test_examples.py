"""From a photographed bracket to an example, its file, and squares of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import SIZE, noise

from hdrmerge.errors import InputError
from hdrmerge.exposure import mu_law, mu_law_inverse
from hdrmerge.simulate import Camera, Simulated, random_response, simulate_bracket
from hdrmerge.training.examples import Example, as_seen, cut, make_example


@pytest.fixture(scope="module")
def taken(ramp: np.ndarray, elsewhere: np.ndarray) -> Simulated:
    return simulate_bracket(
        ramp, np.random.default_rng(3), size=SIZE, frames=3, step_ev=2.0, reference=1, movers=[elsewhere]
    )


@pytest.fixture(scope="module")
def example(taken: Simulated) -> Example:
    found = make_example(taken, np.random.default_rng(0))
    assert found is not None
    return found


def test_planes_have_the_shapes_of_the_evidence(example: Example) -> None:
    assert example.reference.shape == (7, *SIZE)
    assert example.frames.shape == (2, 10, *SIZE)
    assert example.truth.shape == (3, *SIZE)
    assert example.moving.shape == example.saturated.shape == SIZE
    assert {example.reference.dtype, example.frames.dtype, example.truth.dtype} == {np.dtype(np.float16)}
    assert np.isfinite(example.frames.astype(np.float32)).all()


def test_the_gate_opens_where_something_moved(example: Example) -> None:
    gate = example.reference[6].astype(np.float32)
    assert gate[example.moving].mean() > 0.5
    assert gate.mean() < 0.7


def test_the_truth_is_what_the_reference_sees(example: Example, taken: Simulated) -> None:
    """Up to the peak, four times the reference's white, since the shortest frame has two stops less."""
    assert example.peak == pytest.approx(4.0, rel=0.01)
    expected = mu_law(np.minimum(np.moveaxis(taken.truth, -1, 0), 4.0))
    known = taken.truth.max(axis=-1) < 0.95  # beyond white a curve that is found goes its own way
    assert np.abs(example.truth.astype(np.float32) - expected)[:, known].mean() < 0.01
    assert mu_law_inverse(example.truth.astype(np.float32)).max() <= 4.02


def test_a_bracket_follows_from_its_seed(taken: Simulated, example: Example) -> None:
    again = make_example(taken, np.random.default_rng(0))
    assert again is not None
    assert np.array_equal(again.frames, example.frames)
    assert np.array_equal(again.truth, example.truth)


def test_merging_is_not_there_to_correct_curves() -> None:
    """The truth is seen through the curve in use: what is recorded at a code is decoded alike."""
    rng = np.random.default_rng(2)
    true, used = random_response(rng), Camera().response
    truth = np.linspace(0.0, 3.0, 300, dtype=np.float32).reshape(10, 10, 3)
    assert as_seen(truth, true, true) is truth
    seen = as_seen(truth, true, used)
    inside = truth < 0.99
    assert np.abs(used.encode(seen) - true.encode(truth))[inside].max() < 1e-3
    assert np.array_equal(seen[truth >= 1], truth[truth >= 1])


def test_a_file_holds_it_all(tmp_path: Path, example: Example) -> None:
    path = tmp_path / "000001.npy"
    example.save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["000001.npy"]
    found = Example.load(path)
    assert isinstance(found.reference, np.memmap)
    for name in Example.__dataclass_fields__:
        assert np.array_equal(getattr(found, name), getattr(example, name)), name
    assert np.load(path).shape == (12 + 20, *SIZE)
    assert found.peak == example.peak


@pytest.mark.parametrize(
    "planes", [np.zeros((32, 8), np.float16), np.zeros((32, 8, 8)), np.zeros((30, 8, 8), np.float16)]
)
def test_other_arrays_are_refused(tmp_path: Path, planes: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", planes)
    with pytest.raises(InputError, match="no example; delete it"):
        Example.load(tmp_path / "a.npy")


def test_pickles_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="no example"):
        Example.load(tmp_path / "a.npy")


def test_squares_lie_side_by_side_where_the_gate_is_open() -> None:
    example = noise(frames=7, shape=(100, 150))
    example.truth[:] = np.arange(100 * 150).reshape(100, 150) / 2  # steps of a half float's precision
    example.reference[6, :, 75:] = 0
    seen = set()
    for seed in range(10):
        for square in cut(example, np.random.default_rng(seed), size=32, frames=5):
            assert square.reference.shape == (7, 32, 32)
            assert square.frames.shape == (5, 10, 32, 32)
            assert square.moving.shape == (32, 32)
            assert square.reference[6].mean(dtype=np.float32) >= 1 / 30
            assert (np.diff(square.frames[:, 8, 0, 0].astype(float)) > 0).all()
            seen.add(float(square.truth[0, 0, 0]))
    assert len(seen) > 20  # the grid moves


def test_where_nothing_moves_nothing_is_cut() -> None:
    example = noise(shape=(64, 64))
    example.reference[6] = 0.02
    assert cut(example, np.random.default_rng(0), size=32) == []
