"""The judge of `hdrgan`: how much an image looks like a truth, as a distance on a sphere.

Patches of 70 px are judged by five convolutions (PatchGAN, Isola et al. 2017), and what is said of all of
them is one vector. The inverse stereographic projection takes the vector to the unit sphere, one dimension
up, and what counts is the distance from there to the north pole, which is where infinity goes: truths are
to be far from it, images that are found out near (Sphere GAN, Park and Kwon 2019; as HDR-GAN, Niu et al.
2021, uses it). Distances are bounded, so no penalty on gradients is needed.

Images are (B, 3, H, W), 2 mu_law - 1, in [-1, 1]; H and W from 70 px on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

FIELD = 70  # [px] that the value of one patch depends on
MOMENTS = 3
TINY = 1e-12  # of a squared length: the square root has no gradient at 0


class Discriminator(nn.Module):
    """Five convolutions with spectral normalisation, the first three of stride 2; 660,929 parameters.

    Returns (B, n), one value for each position: 676 for images of 256 px, 3364 for 512 px.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        inputs = (3, width, 2 * width, 2 * width)
        outputs = (width, 2 * width, 2 * width, 2 * width)
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=stride))
            for a, b, stride in zip(inputs, outputs, (2, 2, 2, 1), strict=True)
        )
        self.last = spectral_norm(nn.Conv2d(2 * width, 1, 4, padding=1, padding_mode="reflect"))

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if min(height, width) < FIELD:
            raise ValueError(f"{width} x {height} px: the discriminator needs {FIELD} px at least")
        for layer in self.layers:
            image = functional.silu(layer(image))
        values: Tensor = self.last(image)
        return values.flatten(1).float()


def project(q: Tensor) -> Tensor:
    """Return vectors (B, n) as points on the unit sphere, (B, n + 1); the last axis is the pole's."""
    square = q.square().sum(1, keepdim=True)
    return torch.cat([2 * q, square - 1], 1) / (square + 1)


def sphere_distance(q: Tensor) -> Tensor:
    """Return the distances (B,) [rad] of projected vectors (B, n) to the north pole, pi at 0.

    The arccosine of the point's last coordinate, in a form whose slope is finite everywhere.
    """
    length = (q.square().sum(1) + TINY).sqrt()
    return 2 * torch.atan2(torch.ones_like(length), length)


def moments(distance: Tensor, count: int = MOMENTS) -> Tensor:
    """Return the sum of the means of the first powers of distances (B,)."""
    return torch.stack([distance.pow(power).mean() for power in range(1, count + 1)]).sum()


def discriminator_loss(discriminator: nn.Module, truth: Tensor, fakes: Sequence[Tensor]) -> Tensor:
    """Return what the discriminator minimises: each fake's moments less the truth's, summed over fakes."""
    true = moments(sphere_distance(discriminator(truth)))
    return torch.stack([moments(sphere_distance(discriminator(fake))) - true for fake in fakes]).sum()


def generator_loss(discriminator: nn.Module, fakes: Sequence[Tensor]) -> Tensor:
    """Return what the generator minimises: the fakes' moments, negative, summed; from -44.2 to 0 each."""
    return -torch.stack([moments(sphere_distance(discriminator(fake))) for fake in fakes]).sum()
