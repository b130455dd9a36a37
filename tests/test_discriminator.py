"""The judge of HDR-GAN: its size, the projection to the sphere in worked numbers, the signs of its losses."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from hdrmerge.training.discriminator import (  # noqa: E402
    FIELD,
    Discriminator,
    discriminator_loss,
    generator_loss,
    moments,
    project,
    sphere_distance,
)


def vectors(length: float, count: int = 4, axes: int = 676) -> Tensor:
    """Return random vectors of one length."""
    q = torch.randn(count, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return q * (length / q.norm(dim=1, keepdim=True))


class Plain(nn.Module):
    """Says of an image what it holds."""

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1)


# -------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("side, count", [(FIELD, 9), (128, 100), (256, 676), (512, 3364)])
def test_the_sizes_of_the_paper(side: int, count: int) -> None:
    judge = Discriminator().eval()
    assert sum(values.numel() for values in judge.parameters()) == 660_929
    with torch.no_grad():
        assert judge(torch.zeros(1, 3, side, side)).shape == (1, count)


def test_what_is_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="128 x 69 px: the discriminator needs 70 px at least"):
        Discriminator(8)(torch.zeros(1, 3, 69, 128))


def test_a_value_depends_on_so_many_pixels() -> None:
    torch.manual_seed(0)
    judge = Discriminator(4).eval().double()
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64).requires_grad_()
    judge(image).view(10, 10)[5, 5].backward()
    seen = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert int(seen.max() - seen.min()) + 1 == FIELD


def test_no_layer_amplifies() -> None:
    """Spectral normalisation: no weight matrix has a singular value much above 1."""
    torch.manual_seed(0)
    judge = Discriminator(16).train()
    for _ in range(20):  # one power iteration a step
        judge(torch.rand(1, 3, FIELD, FIELD))
    judge.eval()
    for layer in (*judge.layers, judge.last):
        assert torch.linalg.svdvals(layer.weight.detach().flatten(1))[0] == pytest.approx(1, abs=0.05)


# --------------------------------------------------------------------------------------- the sphere


@pytest.mark.parametrize(
    "q, point",
    [
        ([0.0, 0.0], [0.0, 0.0, -1.0]),  # the origin: the south pole
        ([1.0, 0.0], [1.0, 0.0, 0.0]),  # the unit circle: the equator
        ([0.6, -0.8], [0.6, -0.8, 0.0]),
        ([3.0, 4.0], [6 / 26, 8 / 26, 24 / 26]),
    ],
)
def test_projection_in_numbers(q: list[float], point: list[float]) -> None:
    found = project(torch.tensor([q], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([point], dtype=torch.float64))


@pytest.mark.parametrize(
    "length, distance",
    [
        (0.0, math.pi),
        (1.0, math.pi / 2),
        (math.sqrt(3), math.pi / 3),
        (5.0, math.acos(24 / 26)),
        (1e12, 2e-12),
    ],
)
def test_distance_in_numbers(length: float, distance: float) -> None:
    found = sphere_distance(vectors(length))
    assert found.shape == (4,)
    torch.testing.assert_close(found, torch.full_like(found, distance), rtol=1e-9, atol=3e-6)
    assert length < 1e6 or (found > 0).all()


@pytest.mark.parametrize("length", [1e-3, 0.5, 1.0, 2.0, 58.0, 1e3])
def test_points_lie_on_the_sphere_as_far_from_the_pole_as_the_distance_says(length: float) -> None:
    q = vectors(length)
    point = project(q)
    assert point.shape == (4, 677)
    torch.testing.assert_close(point.norm(dim=1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(sphere_distance(q), torch.arccos(point[:, -1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0.0, 1e-20, 1e-6, 1.0, 1e4, 1e15, 1e30])
def test_gradients_are_finite(length: float) -> None:
    q = vectors(length).float().requires_grad_()
    moments(sphere_distance(q)).backward()
    assert q.grad.isfinite().all()
    if 1e-3 < length < 1e6:  # the slope of 2 atan2(1, x)
        slope = 2 / (1 + length**2) * (1 + 2 * (d := 2 * math.atan2(1, length)) + 3 * d**2) / 4
        torch.testing.assert_close(q.grad.norm(dim=1), torch.full((4,), slope), rtol=1e-4, atol=0)


def test_moments_in_numbers() -> None:
    assert float(moments(torch.tensor([1.0, 2.0]))) == pytest.approx(1.5 + 2.5 + 4.5)
    assert float(moments(torch.tensor([1.0, 2.0]), count=1)) == 1.5


# --------------------------------------------------------------------------------------- the losses


def test_losses_in_numbers() -> None:
    """Of vectors whose lengths are known: the truth at the south pole, one fake on the equator."""
    south, equator, north = (torch.zeros(2, 5), torch.eye(5)[:2], torch.full((2, 5), 1e9))
    far, near = (sum((math.pi / part) ** power for power in (1, 2, 3)) for part in (1, 2))
    loss = discriminator_loss(Plain(), south, [equator, north])
    assert float(loss) == pytest.approx(near + 0 - 2 * far, rel=1e-5)
    assert float(generator_loss(Plain(), [equator, north])) == pytest.approx(-near, rel=1e-5)
    assert float(generator_loss(Plain(), [south, south])) == pytest.approx(-2 * far, rel=1e-5)


def test_the_judge_learns_to_tell_and_then_shows_the_way() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8)
    column = torch.linspace(0, 9, FIELD + 10)
    truth = torch.sin(column).expand(2, 3, FIELD + 10, FIELD + 10)
    fakes = [torch.rand_like(truth) * 2 - 1, torch.rand_like(truth) - 0.5]
    optimizer = torch.optim.Adam(judge.parameters(), lr=3e-4)
    losses = []
    for _ in range(30):
        loss = discriminator_loss(judge, truth, fakes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert losses[-1] < losses[0] - 20
    judge.eval().requires_grad_(False)
    shares = (0.0, 0.5, 1.0)
    steps = [generator_loss(judge, [fake + share * (truth - fake) for fake in fakes]) for share in shares]
    assert steps[0] > steps[1] > steps[2]
