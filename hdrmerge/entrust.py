"""Let a network say how far each frame can be trusted where: the learned answer to things that move.

    sights of the frames -> evidence -> network -> trust, drift and correction for the merge

The network looks at proxies and predicts weights, not radiance: the blend itself stays in `merge.py`, in
float and at full resolution, where the frames' noise decides. It may act only near pixels where some
frame deviates from the reference by more than noise, edges and tone explain. Everywhere else, by
construction, all frames are trusted in full and nothing is corrected: the noise-optimal merge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .align import Alignment
from .bracket import Frame
from .deghost import Ghosts, Sight, Trust, compare, gate_of, tolerance
from .exposure import MU, Float, Mask, mu_law, smoothstep
from .infer import Engine, run_tiled
from .merge import LAST_RESORT, fade_of
from .proxy import Proxy
from .sight import variance_of

REFERENCE_PLANES = ("red", "green", "blue", "share", "open", "sigma", "gate")
FRAME_PLANES = (
    "red",
    "green",
    "blue",
    "share",
    "cover",
    "sigma",
    "deviation",
    "belief",
    "stops",
    "usable",
)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the network sees of a bracket, in proxy pixels.

    ``reference`` (1, 7, h, w) and ``frames`` (K, 10, h, w) float32 hold the planes of
    `REFERENCE_PLANES` and `FRAME_PLANES`:

    red, green, blue    `exposure.mu_law` of radiance, 1.0 where the reference clips; not limited above
    share               square root of the frame's share in the noise-optimal blend of all frames
    open                1 where the reference is not clipped, 0 where it is
    sigma               square root of the standard deviation of green, in the domain of the mu-law
    gate                how far the network may act, 0 where all frames agree
    cover               falls to 0 where the frame ends
    deviation, belief   what `deghost.py` found: sigma / 8, and the classical trust
    stops               log2 of the exposure over the reference's, / 8
    usable              1 where the frame covers the pixel and is not clipped

    ``sights`` are the frames in that order; the shortest exposure first.
    """

    reference: Float
    frames: Float
    sights: tuple[Sight, ...]

    @property
    def gate(self) -> Float:
        return np.asarray(self.reference[0, 6], np.float32)


def entrust(
    frames: Sequence[Frame],
    proxies: Sequence[Proxy],
    alignments: Sequence[Alignment],
    reference: int,
    engine: Engine,
    progress: Callable[[float], None] | None = None,
) -> Ghosts:
    """Ask a network how far each aligned frame can be trusted, and what no frame shows.

    ``engine`` runs a network of the kind of `networks.trust`; ``progress`` is called with the share done.
    """
    trust: list[Trust | None] = [None] * len(frames)
    drift: list[Float | None] = [None] * len(frames)
    share, band = [0.0] * len(frames), [0.0] * len(frames)
    evidence = gather_evidence(frames, proxies, alignments, reference)
    if evidence is None:
        return Ghosts(trust, share, band)
    acting = evidence.gate > 0
    for sight in evidence.sights:
        if sight.drift is not None:
            drift[sight.frame] = np.where(acting[..., None], sight.drift, np.float32(0))
        share[sight.frame] = float(np.mean((sight.trust < 0.5) & sight.view.usable))
        band[sight.frame] = sight.band
    covers = {sight.frame: sight.cover for sight in evidence.sights}
    inputs = {"reference": evidence.reference, "frames": evidence.frames}
    gate = evidence.gate.copy() if acting.any() else None
    del evidence, sight  # and with them the views: the network needs the memory
    said, correction = np.ones((len(covers), *acting.shape), np.float32), None
    if acting.any():
        halo, multiple = int(engine.card["halo"]), int(engine.card["multiple"])
        outputs = run_tiled(engine, inputs, halo, multiple, acting, progress=progress)
        said = np.where(acting, np.clip(outputs["trust"][:, 0], 0, 1), np.float32(1))
        change = np.where(acting, outputs["correction"][0], np.float32(0))
        correction = np.ascontiguousarray(np.moveaxis(change, 0, -1))
    for (frame, cover), belief in zip(covers.items(), said, strict=True):
        believed = belief if cover is None else belief * cover
        trust[frame] = (believed * 255.0 + 0.5).astype(np.uint8)
    return Ghosts(trust, share, band, drift, correction, gate)


def gather_evidence(
    frames: Sequence[Frame], proxies: Sequence[Proxy], alignments: Sequence[Alignment], reference: int
) -> Evidence | None:
    """Compare all frames with the reference, and describe them; None where the reference is alone."""
    exposures = [frame.exposure for frame in frames]
    noises = [tolerance(frame) for frame in frames]
    found = compare(proxies, exposures, noises, alignments, reference, following=True)
    sights = tuple(sorted(found, key=lambda sight: sight.frame))
    if not sights:
        return None
    own, proxy = frames[reference], proxies[reference]
    planes = [np.ascontiguousarray(proxy.linear[..., c]) for c in range(3)]
    before = [sight for sight in sights if sight.frame < reference]
    after = [sight for sight in sights if sight.frame > reference]
    low, high = (level * own.clip for level in fade_of(own)[::-1])
    open_ = smoothstep(low, high, np.maximum.reduce(planes))
    shares = _shares(
        [frames[s.frame] for s in before] + [own] + [frames[s.frame] for s in after],
        [s.view.radiance for s in before] + [planes] + [s.view.radiance for s in after],
        [s.view.ratio for s in before] + [1.0] + [s.view.ratio for s in after],
        [s.view.inside for s in before] + [None] + [s.view.inside for s in after],
        len(before),
        open_,
    )
    own_share = shares.pop(len(before))
    variance = variance_of(planes[1], noises[reference], proxy.factor, 1.0)
    gate = gate_of([sight.before for sight in sights])
    described = np.empty((1, len(REFERENCE_PLANES), *gate.shape), np.float32)
    own_planes = (*map(mu_law, planes), own_share, open_, _sigma(planes[1], variance), gate)
    for plane, values in zip(described[0], own_planes, strict=True):
        plane[:] = values
    rows = np.empty((len(sights), len(FRAME_PLANES), *gate.shape), np.float32)
    for row, sight, share in zip(rows, sights, shares, strict=True):
        view = sight.view
        of_frame = (
            *map(mu_law, view.radiance),
            share,
            1.0 if sight.cover is None else sight.cover,
            _sigma(view.radiance[1], view.variance[1]),
            np.sqrt(sight.deviation) * np.float32(1 / 8),
            sight.belief,
            np.log2(view.ratio) / 8,
            view.usable & view.inside,
        )
        for plane, values in zip(row, of_frame, strict=True):
            plane[:] = values
    return Evidence(described, rows, sights)


def _sigma(radiance: Float, variance: Float) -> Float:
    """Return the square root of the standard deviation in the domain of the mu-law, at most 1."""
    slope = MU / np.log1p(MU) / (1.0 + MU * np.maximum(radiance, 0.0))
    return np.asarray(np.minimum(np.sqrt(np.sqrt(np.maximum(variance, 0.0)) * slope), 1.0), np.float32)


def _shares(
    frames: Sequence[Frame],
    planes: Sequence[Sequence[Float]],
    ratios: Sequence[float],
    inside: Sequence[Mask | None],
    reference: int,
    open_reference: Float,
) -> list[Float]:
    """Return the square root of each frame's share in the noise-optimal blend, as `merge.py` weighs them.

    All frames are trusted; shortest exposure first.
    """
    usable, photons, expected = [], np.float32(0), np.float32(0)
    for k, (frame, colours, ratio, within) in enumerate(zip(frames, planes, ratios, inside, strict=True)):
        high, low = (level * frame.clip for level in fade_of(frame))
        signal = np.maximum.reduce(list(colours)) * np.float32(ratio)
        share = open_reference.copy() if k == reference else smoothstep(low, high, signal)
        if within is not None:
            share *= within
        if k > reference:
            share *= open_reference > 0  # what clips the reference clips longer frames
        light = (colours[0] + colours[2]) * np.float32(0.25) + colours[1] * np.float32(0.5)
        electrons = np.float32(ratio / frame.noise.photon)
        photons = photons + share * light * electrons
        expected = expected + share * electrons
        usable.append(share)
    guess = np.maximum(photons, 0) / np.maximum(expected, np.float32(1e-20))
    weights: list[Float] = []
    for k, (frame, ratio, share) in enumerate(zip(frames, ratios, usable, strict=True)):
        noise = guess * np.float32(frame.noise.photon * ratio) + np.float32(frame.noise.read**2)
        weight = share * np.float32(ratio**2) / noise
        weights.append(weight + np.float32(LAST_RESORT * ratio) if k == 0 else weight)
    total = np.add.reduce(weights)
    return [np.asarray(np.sqrt(weight / total), np.float32) for weight in weights]
