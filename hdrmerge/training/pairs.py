"""A labelled patch -> a pair to learn from: what the frames record, and the radiance that is meant.

    as captured                -> MD     with the other frames shifted  -> MDM
    light added, camera steady -> ED     camera moving                  -> EDM

The four subsets of Nazarczuk et al. 2022, "Self-supervised HDR Imaging from Motion and Exposure Cues",
section 4. Inputs are always the frames as captured, never the ones that a label was fused from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from ..errors import InputError
from ..exposure import Float, Mask, NoiseModel, mu_law
from ..write import unwritable
from .motion import MARGIN, STEADY, Shift, draw_shift
from .pseudo_labels import REFERENCE, known
from .reexposure import Where, decode, draw_share, gain_for, gained, noisy, reexpose, saturated

Subset = Literal["ED", "EDM", "MD", "MDM"]
SUBSETS: tuple[Subset, ...] = ("ED", "EDM", "MD", "MDM")


@dataclass(frozen=True, eq=False)
class Pair:
    """One lesson: ``codes`` (3, p, p, 3) of the frames, ``label`` (p, p, 3), ``known`` (p, p): it is exact.

    Not exact is a label that only says how bright a pixel is at least. ``gain`` (p, p) is the light that
    was added, as a factor; None where nothing was.
    """

    subset: Subset
    codes: Float
    exposures: tuple[float, float, float]
    label: Float
    known: Mask
    gain: Float | None = None


def captured_pair(
    codes: Sequence[Float],
    exposures: tuple[float, float, float],
    label: Float | None,
    inner: Where,
    far: bool,
    rng: np.random.Generator,
    noise: Sequence[NoiseModel] | None = None,
) -> Pair:
    """Return a patch as captured, MD; or with the other frames moved ``far`` besides, MDM.

    ``codes`` (h, w, 3) and the fused ``label`` (h, w, 3), None for a dynamic patch, show the patch at
    ``inner`` and what there is around it. With ``noise``, which is not the paper's, as much again is added to
    the frames of a dynamic patch: else it teaches that the reference has none.
    """
    own = codes[REFERENCE][inner]
    truth = decode(own) if label is None else label[inner].astype(np.float32)
    exact = ~saturated(own) if label is None else known(truth, exposures[0])
    moved = _moved(codes, exposures, inner, far or None, rng)
    if noise is not None and label is None:
        once = [k for k in range(3) if k == REFERENCE or exposures[k] != exposures[REFERENCE]]
        for k in once:
            moved[k] = noisy(moved[k], noise[k], rng)
        for k in set(range(3)) - set(once):  # stand-ins
            moved[k] = moved[REFERENCE]
    return Pair("MDM" if far else "MD", moved, exposures, truth, exact)


def lit_pair(
    reference: Float,
    exposures: tuple[float, float, float],
    mask: Float,
    inner: Where,
    far: bool,
    rng: np.random.Generator,
    levels: int = 256,
    noise: Sequence[NoiseModel] | None = None,
    steady: float = STEADY,
) -> Pair:
    """Return a well-exposed patch with light added: ED, the camera held still; EDM, where it moves ``far``.

    ``reference`` (h, w, 3) codes and the gain ``mask`` (h, w) show the patch at ``inner`` and what there is
    around it. ``levels`` and ``noise`` as in `reexpose`, ``steady`` [px] as in `draw_shift`. Sheet A.3, steps
    11 to 15.
    """
    scene = decode(reference)
    gain = gain_for(scene[inner], mask[inner], draw_share(rng), min(exposures))
    scene = gained(scene, mask, gain)
    cuts = _moved([scene] * len(exposures), exposures, inner, far, rng, steady)
    frames = [
        reexpose(cut, [exposure], levels, None if noise is None else [noise[k]], rng)[0]
        for k, (cut, exposure) in enumerate(zip(cuts, exposures, strict=True))
    ]
    frames = [frames[REFERENCE if ratio == 1.0 else k] for k, ratio in enumerate(exposures)]  # stand-ins
    label = scene[inner]
    everywhere = np.ones(label.shape[:2], np.bool_)
    return Pair(
        "EDM" if far else "ED",
        np.stack(frames),
        exposures,
        label,
        everywhere,
        1 + np.float32(gain - 1) * mask[inner],
    )


def window(top: int, left: int, patch: int, size: tuple[int, int]) -> tuple[Where, Where]:
    """Return a patch with up to `MARGIN` px around it, as far as a frame of ``size`` (H, W) has them.

    First where the window lies in the frame, then where the patch lies in the window.
    """
    outer, inner = [], []
    for start, length in zip((top, left), size, strict=True):
        first = max(start - MARGIN, 0)
        outer.append(slice(first, min(start + patch + MARGIN, length)))
        inner.append(slice(start - first, start - first + patch))
    return (outer[0], outer[1]), (inner[0], inner[1])


def _moved(
    codes: Sequence[Float],
    exposures: Sequence[float],
    inner: Where,
    far: bool | None,
    rng: np.random.Generator,
    steady: float = STEADY,
) -> Float:
    """Cut the patch out of each frame, (3, p, p, 3); those that are not the reference from a shifted place.

    ``far`` as in `draw_shift`, None where nothing is shifted. A stand-in for a missing frame, which is
    exposed as the reference, stays with it.
    """
    height, width = codes[REFERENCE].shape[:2]
    y, x = inner
    room: tuple[Shift, Shift] = (y.start, x.start), (height - y.stop, width - x.stop)
    cut = []
    for code, exposure in zip(codes, exposures, strict=True):
        still = far is None or exposure == exposures[REFERENCE]
        down, right = (0, 0) if still else draw_shift(rng, bool(far), room, steady)
        cut.append(code[y.start + down : y.stop + down, x.start + right : x.stop + right])
    return np.stack(cut).astype(np.float32, copy=False)


# --- to look at -----------------------------------------------------------------------------------


def draw_sheet(pairs: Sequence[Pair], path: Path) -> None:
    """Write pairs side by side as a PNG: short, reference, long, label, mask; as the paper's figures 6 to 9.

    Labels are tone mapped by the mu-law. Of pairs with added light the mask is the gain, in stops, bright
    where there is most; of others it is white where the label is exact.
    """
    columns = []
    for pair in pairs:
        label = mu_law(pair.label * np.float32(min(pair.exposures)))
        mask = pair.known.astype(np.float32)
        if pair.gain is not None:
            stops = np.log2(pair.gain)
            mask = np.asarray(stops / max(float(stops.max()), 1e-6), np.float32)
        rows = [*pair.codes, np.clip(label, 0, 1), np.repeat(mask[..., None], 3, axis=2)]
        framed = [cv2.copyMakeBorder(row, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(1, 1, 1)) for row in rows]
        columns.append(np.concatenate(framed))
    if not columns:
        raise InputError(f"{path}: nothing to draw; the subset is empty")
    picture = np.rint(np.concatenate(columns, axis=1)[..., ::-1] * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".png", picture)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise unwritable(path, error) from error
