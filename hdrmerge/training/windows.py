"""Codes of clips -> what the followed form of `networks.coarse` is shown of them, cut to a patch.

Optical flow is no part of a network: it is found where samples are read, on a patch with a border around it,
so that what comes in from outside is there. Frames are taken as they are in line: a similarity of a patch
says little, and flow finds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..exposure import Array, Float
from ..flowmerge import Matrix
from ..followed import follow

BORDER = 16  # [px] around a patch


@dataclass(frozen=True, eq=False)
class Windows:
    """Of each of B samples W references with what is known around them, as `followed.Followed` has it.

    ``frames`` and ``shares`` (B, W, n, 3, H, W), ``between`` (B, W, n - 1, 3, H, W), ``flows`` (B, W, n - 1,
    2, H, W) [px].
    """

    frames: Tensor
    between: Tensor
    shares: Tensor
    flows: Tensor

    def shown(self) -> tuple[Tensor, ...]:
        """Return what `networks.followed` takes before exposures."""
        return self.frames, self.between, self.shares, self.flows

    def to(self, device: torch.device) -> Windows:
        return Windows(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))

    @classmethod
    def of(
        cls,
        codes: Tensor,
        exposures: Sequence[Sequence[float]],
        count: int,
        windows: int = 1,
        matrices: Sequence[Matrix] | None = None,
    ) -> Windows:
        """Follow frames around ``windows`` references in the middle of codes (B, N, 3, H, W).

        ``count`` is the number of exposures; frames are in line as ``matrices`` say, found unless given.
        """
        found = [
            [_followed(sample[at], times[at], matrices) for at in places(len(sample), count, windows)]
            for sample, times in zip(codes.numpy(), exposures, strict=True)
        ]

        def stacked(index: int) -> Tensor:
            return torch.from_numpy(np.stack([np.stack([one[index] for one in row]) for row in found]))

        return cls(*(stacked(index) for index in range(4)))

    def cut(self, size: int) -> Windows:
        """Return the middle of it, ``size`` [px] wide and high."""
        return Windows(*(middle_of(getattr(self, name), size) for name in self.__dataclass_fields__))


def places(frames: int, count: int, windows: int) -> list[slice]:
    """Return where among ``frames`` the 2 N - 1 around each of ``windows`` references in the middle are.

    >>> places(5, 2, 3)
    [slice(0, 3, None), slice(1, 4, None), slice(2, 5, None)]
    """
    first = frames // 2 - windows // 2 - count + 1
    return [slice(first + k, first + k + 2 * count - 1) for k in range(windows)]


def middle_of(planes: Tensor, size: int) -> Tensor:
    """Return the middle of planes (..., H, W), at most ``size`` [px] wide and high."""
    rows, columns = (max(length - size, 0) // 2 for length in planes.shape[-2:])
    return planes[..., rows : rows + size, columns : columns + size].contiguous()


def _followed(codes: Array, times: Sequence[float], matrices: Sequence[Matrix] | None) -> tuple[Float, ...]:
    frames = [np.ascontiguousarray(np.moveaxis(frame, 0, -1)) for frame in codes]
    found = follow(frames, times, matrices=matrices)
    known = found.frames, found.between, found.shares, found.flows
    return tuple(np.moveaxis(np.stack(some), -1, 1) for some in known)
