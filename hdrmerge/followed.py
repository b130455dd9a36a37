"""Frames of a video as the followed form of `networks.coarse` takes them: all that is known without it.

    frames in line -> followed by flow, and their shares -> and as they are in between

What a fine `flowmerge.merge_by_flow` sums up, before it is summed up; and, as in `inbetween`, each
neighbour as it shows things halfway to the other one of its exposure.

And what the followed form of `networks.refine` takes: results of the frames right before and after, followed
once more. Now no exposure clips what moves: flow is found between results.

Training and inference both ask here.

Units as in `flowmerge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .exposure import Float, mu_law, mu_law_inverse, smoothstep
from .flowmerge import (
    Matrix,
    agreement,
    dis_flow,
    fetched,
    flow_to,
    grey,
    in_line,
    led_on,
    radiance,
    shares_of,
    similarities,
    weighted,
)
from .inbetween import LEAST, LONGER, darkness, flows_between

RESULT_SMOOTHNESS = 20.0  # of the flow between results
MISSED = (0.006, 0.012)  # linear light, 1.0 = clipping, from which on, and up to which, a record may be black
FAINT = (0.0005, 0.002)  # linear light, more than noise, that only such curves miss
ENOUGH = 0.0003  # share of the picture that has to show faint light
RECORDED = (0.4, 0.8)  # share of faint light below which a curve ends in black, and from which it does not
LESS = (0.05, 0.15)  # mu-law codes from which on, and up to which, a result lacks light that neighbours show


@dataclass(frozen=True, eq=False)
class Followed:
    """What is known around a reference, the middle one of n frames.

    ``frames``, n of (H, W, 3), are codes followed to the reference; ``between``, n - 1, the neighbours as
    they are if things went straight on; ``shares``, n of (H, W, 3), those in the mean of a fine
    `flowmerge.merge_by_flow`; ``flows``, n - 1 of (H, W, 2) [px], lead to the neighbours as they were taken.
    """

    frames: list[Float]
    between: list[Float]
    shares: list[Float]
    flows: list[Float]

    def pictures(self) -> dict[str, list[Float]]:
        """Return them by the names of the network's inputs."""
        return {
            "frames": self.frames,
            "between": self.between,
            "shares": self.shares,
            "flows": self.flows,
        }


def follow(
    frames: Sequence[Float],
    exposures: Sequence[float],
    moments: Sequence[float] | None = None,
    matrices: Sequence[Matrix] | None = None,
) -> Followed:
    """Follow the neighbours of the middle one of 2 N - 1 frames, which are in the order of time.

    ``moments`` are when frames were taken, in any unit, at even intervals unless stated; ``matrices`` those
    of `flowmerge.similarities`, found here unless given.
    """
    middle, count = len(frames) // 2, len(frames) // 2 + 1
    moments = range(len(frames)) if moments is None else moments
    matrices = similarities(frames, middle) if matrices is None else matrices
    own, found = frames[middle], list(frames)
    trust = [np.ones(own.shape[:2], np.float32)] * len(frames)
    between: dict[int, Float] = {}
    led: dict[int, Float] = {}
    for first in range(count - 1):
        pair = first, first + count
        lined = [in_line(frames[k], matrices[k])[0] for k in pair]
        ratios = [exposures[k] / exposures[middle] for k in pair]
        for k, seen, ratio in zip(pair, lined, ratios, strict=True):
            led[k] = led_on(flow_to(own, seen, ratio, fine=True), matrices[k])
            found[k], inside = fetched(frames[k], led[k])
            trust[k] = agreement(own, found[k], ratio) * inside
        flows = flows_between(lined, ratios[1] / ratios[0], [moments[k] for k in (*pair, middle)])
        for k, flow in zip(pair, flows, strict=True):
            between[k] = fetched(frames[k], flow, matrices[k])[0]
    shares = shares_of(found, exposures, trust, middle, by_channel=True)
    beside = sorted(led)
    return Followed(found, [between[k] for k in beside], shares, [led[k] for k in beside])


def lit(followed: Followed, exposures: Sequence[float], found: Float) -> Float:
    """Return a result (H, W, 3) with what neighbours show in between where the reference is black.

    ``found`` is radiance of `networks.coarse`, in the units of `flowmerge`. It learned from cameras that
    record light down to their noise; curves of others end in black before, and what is black there agrees
    with nothing: holes are left. They are filled, each channel by itself, where the record is black, and
    where it is dark and neighbours agree on more light than was found; but not with more than the record can
    have missed, and only as far as the whole record misses faint light.
    """
    middle = len(followed.frames) // 2
    record, own, longest = followed.frames[middle], exposures[middle], max(exposures)
    if longest <= own * LONGER:
        return found
    seen = [*followed.between[:middle], record, *followed.between[middle:]]
    trust = [np.zeros(record.shape[:2], np.float32)] * len(seen)
    for one in range(middle):
        other = one + middle + 1
        if min(exposures[one], exposures[other]) > own * LONGER:
            alike = agreement(seen[one], seen[other], exposures[other] / exposures[one])
            trust[one] = trust[other] = np.maximum(alike, np.float32(LEAST))
    told = weighted(seen, exposures, trust, middle)
    believed = np.max(trust, axis=0)
    crushed = missed(record, told * np.float32(own), believed)
    if not crushed:
        return found
    dark, black = (
        np.dstack(planes)
        for planes in zip(*(darkness(one, longest / own) for one in np.dsplit(record, 3)), strict=True)
    )
    less = smoothstep(*LESS, mu_law(told) - mu_law(found))
    share = np.maximum(black, dark * believed[..., None] * less)
    share = share * (1 - smoothstep(*MISSED, told * np.float32(own))) * np.float32(crushed)
    return np.asarray(found + share * (told - found), np.float32)


def missed(record: Float, told: Float, believed: Float) -> float:
    """Say how far the curve of a frame ends in black, in [0, 1]: what is missing of faint light.

    ``record`` are codes (H, W, 3), ``told`` the linear light that neighbours show, ``believed`` (H, W) how
    far they agree.
    """
    faint = (told > FAINT[0]).all(axis=-1) & (told < FAINT[1]).all(axis=-1) & (believed > 0.5)
    if faint.mean() < ENOUGH:
        return 0.0
    there = float(told[faint].sum())
    return float(1 - smoothstep(*RECORDED, np.float32(radiance(record[faint], 1.0).sum() / there)))


def follow_results(
    results: Sequence[Float], frames: Sequence[Float], matrices: Sequence[Matrix] | None = None
) -> tuple[list[Float], list[Float]]:
    """Follow what was made of the frames right before and after a reference, the middle one of three.

    ``results`` are radiance (H, W, 3), 1.0 = where the shortest exposure clips, ``frames`` their codes; both
    are returned in the reference's pixels. ``matrices`` take these to where each frame has them, as
    `flowmerge.similarities` finds it; nothing moved unless stated.
    """
    matrices = [np.eye(3)] * len(results) if matrices is None else matrices
    toned = [mu_law(np.clip(result, 0.0, 1.0)) for result in results]
    own = grey(toned[1])
    found = [list(results), list(frames)]
    for k in (0, 2):
        flow = dis_flow(own, grey(in_line(toned[k], matrices[k])[0]), RESULT_SMOOTHNESS)
        found[0][k] = mu_law_inverse(fetched(toned[k], flow, matrices[k])[0])
        found[1][k] = fetched(frames[k], flow, matrices[k])[0]
    return found[0], found[1]
