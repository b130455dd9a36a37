"""What a short exposure is too dark to show: seen between the longer ones before and after it.

    flow from the frame before to the one after -> half the way -> both fetched -> believed where they agree

`flowmerge.merge_by_flow` believes a neighbour that shows what the reference shows. A reference that is black
shows nothing: no flow leads from it, and nothing can agree with it. Exposures seven stops apart leave two
thirds of a frame like that. There the two neighbours of one exposure tell on their own where things were in
between, if they went straight on, as in Kalantari et al. 2013, "Patch-Based High Dynamic Range Video". Where
even these disagree their mean is taken: it is nearer to what was there than black.

A channel that clips in a frame that is believed is at least as bright as that, whatever the shorter exposures
say, whose darkest codes are off by more than they tell.

Units as in `flowmerge`; elsewhere results are its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .exposure import Float, smoothstep
from .flowmerge import (
    Matrix,
    agreement,
    belief,
    dis_flow,
    fetched,
    flow_pictures,
    flow_to,
    in_line,
    similarities,
    weighted,
)
from .painter import GAMMA

DARK = (0.06, 0.02)  # gamma codes between which a frame begins to show nothing: 8 and 1 of 255 in sRGB
BLACK = (0.02, 0.005)  # the same, for nothing at all
CHECKED = 8.0  # ratio of exposures up to which that holds: a step of the shorter is no jump of the longer
CLIPPED = (0.98, 0.995)  # codes of a channel between which it says no more than that light is brighter
AROUND = 5  # [px] whose mean is compared with them
LONGER = 2**0.25  # a quarter of a stop: exposures closer than that count as the same
LEAST = 0.1  # of the trust of neighbours that agree: that of those that do not, where there is nothing else


def merge_in_between(
    frames: Sequence[Float],
    exposures: Sequence[float],
    moments: Sequence[float],
    reference: int,
    pairs: Sequence[tuple[int, int]],
    matrices: Sequence[Matrix] | None = None,
) -> Float:
    """Return the weighted mean (H, W, 3) of what flow fetches from each frame, where it is believed.

    ``moments`` are when frames were taken, in any unit. ``pairs`` are frames of one exposure before and after
    the reference, by their places among ``frames``; where there is but one it stands on both sides.
    ``matrices`` are those of `flowmerge.similarities`, found here unless given.
    """
    matrices = similarities(frames, reference) if matrices is None else matrices
    own, found = frames[reference], list(frames)
    trust = [np.ones(own.shape[:2], np.float32)] * len(frames)
    for pair in pairs:
        lined = [in_line(frames[k], matrices[k])[0] for k in pair]
        ratios = [exposures[k] / exposures[reference] for k in pair]
        for k, seen, ratio in zip(pair, lined, ratios, strict=True):
            found[k], inside = fetched(frames[k], flow_to(own, seen, ratio), matrices[k])
            trust[k] = belief(own, found[k], ratio) * inside
        dark, black = darkness(own, min(ratios))
        if min(ratios) <= LONGER or not dark.any():
            continue
        flows = flows_between(lined, ratios[1] / ratios[0], [moments[k] for k in (*pair, reference)])
        both = [fetched(frames[k], flow, matrices[k]) for k, flow in zip(pair, flows, strict=True)]
        (before, _), (after, _) = both
        alike = agreement(before, after, ratios[1] / ratios[0]) if pair[0] != pair[1] else np.float32(0)
        for k, (seen, inside) in dict(zip(pair, both, strict=True)).items():
            share = np.maximum(dark * (1 - trust[k]), black)  # of what is seen in between
            told = np.maximum(alike, np.float32(LEAST)) * inside
            found[k] = found[k] + share[..., None] * (seen - found[k])
            trust[k] = trust[k] + share * np.maximum(told - trust[k], 0)
    radiance = weighted(found, exposures, trust, reference)
    for codes, exposure, believed in zip(found, exposures, trust, strict=True):
        if exposure > min(exposures) * LONGER:
            at_least = smoothstep(*CLIPPED, codes) * (believed * np.float32(1 / exposure))[..., None]
            np.maximum(radiance, at_least, out=radiance)
    return radiance


def darkness(codes: Float, ratio: float) -> tuple[Float, Float]:
    """Say how little a frame shows of what one of ``ratio`` times its exposure shows, (H, W) in [0, 1].

    And where it shows nothing at all, so that to agree with it means nothing.
    """
    grown = max(ratio / CHECKED, 1.0) ** (1 / GAMMA)
    brightest = cv2.blur(codes.max(axis=2), (AROUND, AROUND))
    return smoothstep(DARK[0] * grown, DARK[1] * grown, brightest), smoothstep(*BLACK, brightest)


def flows_between(lined: Sequence[Float], ratio: float, moments: Sequence[float]) -> list[Float]:
    """Return where the frames before and after show what is at a pixel in between, two flows (H, W, 2) [px].

    ``moments`` are those of the frame before, the one after and the one in between.
    """
    before, after, now = moments
    if before == after:
        return [np.zeros((*lined[0].shape[:2], 2), np.float32)] * 2
    share = np.float32((now - before) / (after - before))
    whole = dis_flow(*flow_pictures(lined[0], lined[1], ratio))
    # What is at p now was at p - share * flow, and it is the flow from there that counts.
    height, width = whole.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x - share * whole[..., 0], y - share * whole[..., 1]
    there = cv2.remap(whole, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return [-share * there, (1 - share) * there]
