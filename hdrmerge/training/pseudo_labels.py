"""Three frames without truth -> patches whose radiance is known all the same: pseudo-labels.

    frames -> flow -> homographies -> fused label -> patches: static | dynamic | well exposed | mask donors

From Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues". Where nothing
moves by itself, aligned frames are fused by fixed weights; where something does, a reference that is well
exposed is its own label. Flow, homographies and the static test are in `motion.py`; what is learned from the
patches, in `pairs.py`.

Units: codes are gamma codes in [0, 1]; a label is linear radiance, 1.0 where the reference saturates;
exposures are relative to the reference's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from typing import NamedTuple

import numpy as np

from ..exposure import Float, Mask, NoiseModel
from ..flowmerge import dis_flow
from ..painter import GAMMA, WELL_EXPOSED
from ..scene import Matrix
from .motion import (
    Flow,
    Flows,
    alignable,
    camera_motion,
    dominant_bin,
    elected,
    is_static,
    luma,
    warped,
)
from .reexposure import CLIPPED, Where, decode, encode, saturated

REFERENCE = 1  # index of the reference among the three frames
DONOR_SHARE = 0.10  # of a patch that must be saturated for its mask to be transferred
NOISE_SHARE = 0.75  # of a squared error that noise may explain: 6 dB
CHECKED = 0.05  # share of a patch that must be well exposed for its label to be checked against


class Kind(IntFlag):
    """What a patch is good for."""

    STATIC = 1  # fused label: MD, MDM
    DYNAMIC = 2  # the reference is its label: MD, MDM
    WELL = 4  # well exposed: ED, EDM
    DONOR = 8  # its saturation mask says where light is added to others


class Exposed(NamedTuple):
    """When a patch is well exposed: least share of pixels in range, and most that are saturated."""

    share: float
    saturated: float


STRICT = Exposed(0.95, 0.005)
PAPER = Exposed(0.5, 1.0)  # "the majority of pixels": lets labels pass of which half is clipped


@dataclass(frozen=True)
class Rules:
    """What makes a patch, [px]; ``agreement`` [dB] and ``quantile`` as in `agreement` and `is_static`."""

    patch: int = 128
    stride: int = 64
    exposed: Exposed = STRICT
    quantile: float = 1.0
    agreement: float = 45.0


@dataclass(frozen=True, eq=False)
class Triplet:
    """Codes (H, W, 3) float32 of a shorter, the reference and a longer frame, and their exposures.

    A side that is missing is taken by the reference itself, the same array. Without ``noise`` frames are
    taken to have none, as in the paper.
    """

    codes: tuple[Float, Float, Float]
    exposures: tuple[float, float, float]
    noise: tuple[NoiseModel, NoiseModel, NoiseModel] | None = None

    @property
    def others(self) -> list[int]:
        """Indices of the frames that are not the reference, nor stand-ins."""
        return [k for k in (0, 2) if self.codes[k] is not self.codes[REFERENCE]]


class Patch(NamedTuple):
    """Where a patch is, its upper left corner [px], and what it is good for."""

    top: int
    left: int
    kind: Kind


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a triplet gives.

    ``label`` (H, W, 3) float32 is the fused radiance, to be used in static patches only; None where there
    are none. ``rejected`` counts the patches that are good for nothing, by reason. ``dominant`` [px] is the
    dominant motion to each of `Triplet.others`.
    """

    patches: list[Patch]
    label: Float | None
    rejected: dict[str, int] = field(default_factory=dict)
    dominant: tuple[float, ...] = ()


# --- the steps ------------------------------------------------------------------------------------


def grid(height: int, width: int, patch: int = 128, stride: int = 64) -> list[tuple[int, int]]:
    """Return the upper left corners (y, x) of all patches: step 4 of the sheet.

    >>> len(grid(1000, 1500))
    308
    """
    rows, columns = (range(0, side - patch + 1, stride) for side in (height, width))
    return [(y, x) for y in rows for x in columns]


def weights(reference: Float) -> tuple[Float, Float, Float]:
    """Return the weights of the short, the reference and the long frame, by the reference's codes.

    Triangles as in Debevec and Malik 1997 and Kalantari and Ramamoorthi 2017; their sum is 1. Step 6.

    >>> [[float(w) for w in weights(np.float32(v))] for v in (0, 0.25, 0.5, 1)]
    [[0.0, 0.0, 1.0], [0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    tilt = 2 * reference - 1
    return np.maximum(tilt, 0), 1 - np.abs(tilt), np.maximum(-tilt, 0)


def fuse(codes: Sequence[Float], exposures: Sequence[float]) -> Float:
    """Fuse aligned frames (H, W, 3) to radiance (H, W, 3) by `weights`, step 6.

    Where the long frame is saturated, which the paper's weights do not ask, the reference takes its share.
    """
    short, middle, long = weights(codes[REFERENCE])
    if codes[2] is not codes[REFERENCE]:
        clipped = saturated(codes[2])[..., None] & (long > 0)
        middle = np.where(clipped, middle + long, middle)
        long = np.where(clipped, np.float32(0), long)
    radiance = middle * decode(codes[REFERENCE])
    radiance += short * decode(codes[0]) * np.float32(1 / exposures[0])
    radiance += long * decode(codes[2]) * np.float32(1 / exposures[2])
    return np.asarray(radiance, np.float32)


def in_range(code: Float) -> Mask:
    """Return where the luma of codes (H, W, 3) is well exposed, (H, W)."""
    grey = luma(code)
    return np.asarray((grey >= WELL_EXPOSED[0]) & (grey <= WELL_EXPOSED[1]))


def well_exposed(within: Mask, clipped: Mask, exposed: Exposed = STRICT) -> bool:
    """Tell whether a patch is well exposed, from `in_range` and `saturated` of it (h, w): step 8."""
    return bool(within.mean() >= exposed.share and clipped.mean() <= exposed.saturated)


def agreement(label: Float, reference: Float, within: Mask, noise: float = 0.0) -> float:
    """Return the PSNR [dB] of a label (h, w, 3) as the reference would record it, where that is well exposed.

    Step 7: a fusion that disagrees with the reference has ghosts in it, or frames out of line. The squared
    error that ``noise`` explains is left out, to three quarters of it at most. Not a number where nothing
    is well exposed.
    """
    if not within.any():
        return float("nan")
    error = float(np.square(encode(label[within]) - reference[within]).mean())
    return float("inf") if error == 0 else -10 * float(np.log10(error - min(noise, NOISE_SHARE * error)))


def fusion_noise(
    reference: Float, exposures: Sequence[float], noise: Sequence[NoiseModel], stand_ins: Sequence[int] = ()
) -> float:
    """Return the mean squared difference, in codes, of a fused label and the reference (h, w, 3) by noise.

    The paper's frames have next to none; its appendix E says that otherwise the test should allow for it.
    """
    light = np.maximum(decode(reference), np.float32(1e-4))
    short, middle, long = weights(reference)
    shares = [short, 1 - middle, long]
    for k in stand_ins:  # the reference's own noise, which cancels
        shares[REFERENCE] = shares[REFERENCE] - shares[k]
        shares[k] = np.zeros_like(short)
    variance = np.zeros_like(light)
    for share, exposure, model in zip(shares, exposures, noise, strict=True):
        variance += np.square(share / np.float32(exposure)) * model.variance(light * np.float32(exposure))
    slope = np.power(light, np.float32(1 / GAMMA - 1)) / np.float32(GAMMA)
    return float((variance * np.square(slope)).mean())


def known(label: Float, shortest: float) -> Mask:
    """Return where a fused label (h, w, 3) is exact: the shortest frame records it unclipped, (h, w)."""
    limit = decode(np.float32(CLIPPED)) / np.float32(shortest)
    return np.asarray(label.astype(np.float32).max(axis=-1) < limit)


# --- all of them ----------------------------------------------------------------------------------


def label_triplet(
    triplet: Triplet, rng: np.random.Generator, rules: Rules | None = None, flow: Flow = dis_flow
) -> Labelled:
    """Find out what each patch of three frames is good for, and fuse the label of the static ones."""
    rules = rules or Rules()
    reference = triplet.codes[REFERENCE]
    flows = {
        k: Flows.between(reference, triplet.codes[k], triplet.exposures[k], flow) for k in triplet.others
    }
    dominant = tuple(dominant_bin(found.magnitudes[0]) + 0.5 for found in flows.values())
    label, valid = _fused(triplet, flows, rng)
    within, clipped = in_range(reference), saturated(reference)
    magnitudes = [magnitude for found in flows.values() for magnitude in found.magnitudes]
    patches, rejected = [], Counter[str]()
    for top, left in grid(reference.shape[0], reference.shape[1], rules.patch, rules.stride):
        at = slice(top, top + rules.patch), slice(left, left + rules.patch)
        kind = Kind(0)
        if well_exposed(within[at], clipped[at], rules.exposed):
            kind |= Kind.WELL
        elif clipped[at].mean() >= DONOR_SHARE:
            kind |= Kind.DONOR
        if label is not None and is_static([magnitude[at] for magnitude in magnitudes], rules.quantile):
            fault = _fault(triplet, label, valid, within, at, rules)
            kind |= Kind(0) if fault else Kind.STATIC
        elif Kind.WELL in kind:
            fault, kind = "", kind | Kind.DYNAMIC
        else:
            fault = "moving and not well exposed"
        if kind:
            patches.append(Patch(top, left, kind))
        if not kind & ~Kind.DONOR:
            rejected[fault] += 1
    static = any(Kind.STATIC in patch.kind for patch in patches)
    return Labelled(patches, label if static else None, dict(rejected), dominant)


def _fused(
    triplet: Triplet, flows: dict[int, Flows], rng: np.random.Generator
) -> tuple[Float | None, Mask | None]:
    """Return the label of the aligned frames and where all of them show something; None if not alignable."""
    if not alignable([found.magnitudes[0] for found in flows.values()]):
        return None, None
    codes, valid = list(triplet.codes), np.ones(triplet.codes[REFERENCE].shape[:2], np.bool_)
    for k, found in flows.items():
        matrix: Matrix | None = camera_motion(found, rng)
        if matrix is None:
            return None, None
        matrix = elected(codes[REFERENCE], codes[k], triplet.exposures[k], matrix)
        if not np.array_equal(matrix, np.eye(3)):
            codes[k], inside = warped(codes[k], matrix)
            valid &= inside
    return fuse(codes, triplet.exposures), valid


def _fault(triplet: Triplet, label: Float, valid: Mask | None, within: Mask, at: Where, rules: Rules) -> str:
    """Return why the fused label of a static patch will not do; nothing where it will."""
    if valid is not None and not valid[at].all():
        return "beyond the border of a frame"
    if within[at].mean() < CHECKED:
        return "static, but too dark or too bright to be checked"
    own, noise = triplet.codes[REFERENCE][at], 0.0
    if triplet.noise is not None:
        some = own[::4, ::4][within[at][::4, ::4]]
        stand_ins = [k for k in (0, 2) if k not in triplet.others]
        noise = fusion_noise(some, triplet.exposures, triplet.noise, stand_ins) if some.size else 0.0
    if not agreement(label[at], own, within[at], noise) >= rules.agreement:
        return f"static, but the fusion disagrees with the reference ({rules.agreement:g} dB)"
    return ""
