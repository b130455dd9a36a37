"""What a network that paints is told, and what it says: inputs by name, outputs by architecture.

A weights file names its network's inputs; `PLANES` knows what each holds. All show three frames in a part
of the picture, short, reference and long, as the merge sees them. `OUTPUTS` knows what the result means.

Units: radiance 1.0 is where the shortest of the three frames clips, in inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .exposure import Float, Mask, mu_law, mu_law_inverse

GAMMA = 2.2  # of code values
LUMA = np.array([[0.299, 0.587, 0.114]], np.float32)
WELL_EXPOSED = (0.125, 0.75)  # luma of code values, both included

LOW, REFERENCE, HIGH = range(3)


@dataclass(frozen=True, eq=False)
class Seen:
    """Three frames in a window, shortest exposure first, in the linear colours of the reference.

    ``signals`` are the planes (h, w) of each, linear, ``clips`` the signal at which each clips, ``ratios``
    the exposures over the reference's. ``limit`` is the radiance, 1.0 = reference white, where the shortest
    clips, and ``merged`` (h, w, 3) that of the classical merge, None where the network does not ask for it.
    """

    signals: Sequence[Sequence[Float]]
    clips: Sequence[float]
    ratios: Sequence[float]
    limit: float
    merged: Float | None = None

    def codes(self, frame: int) -> list[Float]:
        """Return the code values of a frame, planes (h, w) in [0, 1], 1.0 where it clips."""
        scale = np.float32(1 / self.clips[frame])
        levels = [np.clip(plane * scale, 0.0, 1.0) for plane in self.signals[frame]]
        return [np.power(level, np.float32(1 / GAMMA)) for level in levels]

    def radiance(self, frame: int) -> list[Float]:
        """Return the radiance that a frame recorded, planes (h, w) in [0, 1]."""
        scale = np.float32(1 / (self.ratios[frame] * self.limit))
        return [np.clip(plane * scale, 0.0, 1.0) for plane in self.signals[frame]]

    def symmetric(self, frame: int) -> Float:
        """Return code values of a frame, then its radiance as mu-law codes, (6, h, w) in [-1, 1]."""
        planes = [*self.codes(frame), *(mu_law(plane) for plane in self.radiance(frame))]
        return np.stack([2 * plane - 1 for plane in planes])

    def symmetric_merge(self) -> Float:
        """Return the merged radiance as mu-law codes, (3, h, w) in [-1, 1]."""
        assert self.merged is not None
        light = np.clip(self.merged * np.float32(1 / self.limit), 0.0, 1.0)
        return np.moveaxis(2 * mu_law(light) - 1, -1, 0)

    def frames(self) -> Float:
        """Return the code values of all three, (9, h, w) in [0, 1]."""
        return np.stack([plane for frame in (LOW, REFERENCE, HIGH) for plane in self.codes(frame)])

    def masked(self) -> Float:
        """Return the reference's code values where it is well exposed, else 0; and where, (4, h, w)."""
        codes = np.stack(self.codes(REFERENCE))
        well = well_exposed(np.moveaxis(codes, 0, -1)).astype(np.float32)
        return np.concatenate([codes * well, well[None]])


PLANES: dict[str, Callable[[Seen], Float]] = {
    "low": lambda seen: seen.symmetric(LOW),
    "reference": lambda seen: seen.symmetric(REFERENCE),
    "high": lambda seen: seen.symmetric(HIGH),
    "merged": Seen.symmetric_merge,
    "frames": Seen.frames,
    "masked": Seen.masked,
    "linear": lambda seen: np.stack(seen.radiance(REFERENCE)),
}
"""Name of an input -> what it holds, (C, h, w)."""


def well_exposed(codes: Float) -> Mask:
    """Return where code values (h, w, 3) are neither dark nor bright, (h, w).

    >>> well_exposed(np.float32([[[0.12] * 3, [0.13] * 3, [0.74] * 3, [0.76] * 3, [1.0, 0.5, 0.0]]])).tolist()
    [[False, True, True, False, True]]
    """
    luma = cv2.transform(np.ascontiguousarray(codes), LUMA)
    return np.asarray((luma >= WELL_EXPOSED[0]) & (luma <= WELL_EXPOSED[1]))


def from_symmetric(output: Float) -> Float:
    """Return the radiance of mu-law codes in [-1, 1]."""
    return mu_law_inverse((np.clip(output, -1.0, 1.0) + np.float32(1)) * np.float32(0.5))


def from_linear(output: Float) -> Float:
    """Return radiance as it is, within the range."""
    return np.asarray(np.clip(output, 0.0, 1.0), np.float32)


OUTPUTS: dict[str, Callable[[Float], Float]] = {
    "hdrgan": from_symmetric,
    "unet": from_linear,
    "resnet": from_linear,
    "grdn": from_linear,
}
"""Architecture -> what makes radiance in [0, 1] of its output."""
