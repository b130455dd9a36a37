"""The loss, by numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from hdrmerge.exposure import mu_law  # noqa: E402
from hdrmerge.training.losses import FLOOR, in_peak, log_error, regions_of  # noqa: E402


def code(radiance: float, size: int = 16) -> torch.Tensor:
    return torch.full((1, 3, size, size), float(mu_law(np.float32([radiance]))[0]))


def of(error: float) -> float:
    """Return the loss of a patch whose error is the same everywhere."""
    return math.log(error**2 + FLOOR) + 0.5 * math.log(error + math.sqrt(FLOOR))


ONE = torch.ones(1)
ALL = torch.ones(1, 1, 16, 16)


@pytest.mark.parametrize("radiance, peak", [(4.0, 4.0), (1.0, 4.0), (0.01, 16.0), (0.3, 1.0)])
def test_codes_are_scaled_to_the_peak(radiance: float, peak: float) -> None:
    found = in_peak(code(radiance), torch.tensor([peak]))
    assert torch.allclose(found, code(radiance / peak), atol=1e-5)


def test_each_patch_has_its_own_peak() -> None:
    found = in_peak(code(2.0).repeat(2, 1, 1, 1), torch.tensor([1.0, 2.0]))
    assert torch.allclose(found, torch.cat([code(2.0), code(1.0)]), atol=1e-5)


def test_an_error_of_a_tenth_is_worked_out() -> None:
    truth = torch.full((1, 3, 16, 16), 0.5)
    assert float(log_error(truth + 0.1, truth, ALL, ONE)) == pytest.approx(of(0.1), abs=1e-4)
    assert float(log_error(truth - 0.1, truth, ALL, ONE)) == pytest.approx(of(0.1), abs=1e-4)
    assert of(0.1) == pytest.approx(-5.7399, abs=1e-3)


def test_a_perfect_patch_is_at_the_floor() -> None:
    truth = torch.full((1, 3, 16, 16), 0.5)
    assert float(log_error(truth, truth, ALL, ONE)) == pytest.approx(1.25 * math.log(FLOOR), abs=1e-4)


def test_the_mean_is_of_logarithms() -> None:
    truth = torch.full((2, 3, 16, 16), 0.5)
    found = truth + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    expected = (of(0.1) + of(0.01)) / 2
    weight, peak = ALL.repeat(2, 1, 1, 1), torch.ones(2)
    assert float(log_error(found, truth, weight, peak)) == pytest.approx(expected, abs=1e-3)


def test_only_what_has_weight_counts() -> None:
    truth = torch.full((1, 3, 16, 16), 0.5)
    found = truth + 0.1
    found[..., 8:] += 0.3
    weight = ALL.clone()
    weight[..., 8:] = 0
    assert float(log_error(found, truth, weight, ONE)) == pytest.approx(of(0.1), abs=1e-4)


def test_patches_with_hardly_a_pixel_are_left_out() -> None:
    truth = torch.full((2, 3, 16, 16), 0.5)
    found = truth + torch.tensor([0.1, 0.3]).view(2, 1, 1, 1)
    weight = ALL.repeat(2, 1, 1, 1)
    weight[1, :, 10:] = weight[1, :, :, 10:] = 0  # 100 pixels
    assert float(log_error(found, truth, weight, torch.ones(2))) == pytest.approx(of(0.1), abs=1e-4)
    assert float(log_error(found, truth, weight * 0, torch.ones(2))) == 0.0


def test_more_is_not_wrong_where_everything_clips() -> None:
    """The truth is limited at the peak: what was brighter is unknown."""
    peak = torch.tensor([4.0])
    brighter = log_error(code(20.0), code(4.0), ALL, peak)
    assert float(brighter) == pytest.approx(1.25 * math.log(FLOOR), abs=1e-4)
    assert float(log_error(code(2.0), code(4.0), ALL, peak)) > float(brighter) + 1


def test_what_moved_counts_more() -> None:
    gate = torch.tensor([0.0, 1.0, 1.0, 0.5]).view(1, 1, 1, 4)
    moving = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 1, 4)
    saturated = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(1, 1, 1, 4)
    total = sum(share * mask for share, mask in regions_of(gate, moving, saturated))
    assert total.flatten().tolist() == [0.0, 1.0, 1.5, 1.0]


def test_results_beyond_all_bounds_have_a_finite_loss() -> None:
    """A correction that runs away must not end a run."""
    truth = torch.full((1, 3, 16, 16), 0.5)
    assert math.isfinite(float(log_error(truth + 50.0, truth, ALL, ONE)))
