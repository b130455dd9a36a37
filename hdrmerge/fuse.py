"""Let a network of three frames paint where these disagree; elsewhere the merge stays as it is.

    survey: sights of the frames -> trust and drift for the merge, gate
    fuse:   merge, gate, windows of three frames -> network -> what goes over the merge

The network sees the reference and its neighbours in exposure: of the frames that are used the next shorter
and the next longer one, each as the merge sees it, aligned and with what moved put in place. The reference
stands in for a neighbour that is missing. What it is told of them, and what its output means, is in
`painter.py`. All frames have their say in the classical merge, which a network may see, too, and mend. It is
what counts where the gate is shut, and where the scene is brighter than the network's range: its radiance
ends where the shortest of the three clips.

The picture is worked on in windows, at full resolution. Nothing of the whole is held but the result and,
for a network that sees it, the merge as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .align import Alignment
from .bracket import Bracket, Frame
from .deghost import Ghosts, Trust, compare, gate_of, tolerance
from .errors import NetworkError
from .exposure import Float, Mask, smoothstep
from .infer import Arrays, Engine, run_boxes
from .merge import Input, Signal, transformed, upsampled
from .painter import OUTPUTS, PLANES, REFERENCE, Seen
from .proxy import Proxy
from .tiles import Box, tiles

ENDING = 0.95  # of the network's range: where the merge takes over again
PIECE = 512  # [px] of the merge looked at together
LARGEST_TILE = 1024  # [px] on devices with much memory: three frames of a window are held outside it


@dataclass(frozen=True)
class Three:
    """The frames that the network sees, by index; the reference stands in for one that is missing."""

    low: int
    reference: int
    high: int

    @classmethod
    def of(cls, frames: Sequence[Frame], alignments: Sequence[Alignment], reference: int) -> Three:
        """Choose the next shorter and the next longer exposure among the frames that are used."""
        own = frames[reference].exposure
        used = [k for k, alignment in enumerate(alignments) if alignment.used and k != reference]
        shorter = [k for k in used if frames[k].exposure < own]
        longer = [k for k in used if frames[k].exposure > own]
        return cls(
            max(shorter, key=lambda k: frames[k].exposure, default=reference),
            reference,
            min(longer, key=lambda k: frames[k].exposure, default=reference),
        )

    @property
    def neighbours(self) -> set[int]:
        return {self.low, self.high} - {self.reference}


@dataclass(frozen=True)
class Painted:
    """What a network did: the ``share`` of the picture in which it has a say, the ``frames`` it saw.

    ``limit`` is the radiance at which its range ends, 1.0 = reference white; brighter is the merge's.
    """

    share: float
    frames: tuple[int, ...]
    limit: float


def survey(
    frames: Sequence[Frame],
    proxies: Sequence[Proxy],
    alignments: Sequence[Alignment],
    reference: int,
    everywhere: bool = False,
) -> Ghosts:
    """Find what the merge needs (classical trust, drift) and where the network may paint (gate).

    The gate opens where one of the two neighbours deviates from the reference, by the rule that holds for
    all networks, or ``everywhere``.
    """
    trust: list[Trust | None] = [None] * len(frames)
    drift: list[Float | None] = [None] * len(frames)
    share, band = [0.0] * len(frames), [0.0] * len(frames)
    neighbours = Three.of(frames, alignments, reference).neighbours
    deviations = []
    exposures = [frame.exposure for frame in frames]
    noises = [tolerance(frame) for frame in frames]
    for sight in compare(proxies, exposures, noises, alignments, reference, following=True):
        belief = sight.trust
        trust[sight.frame] = (belief * 255.0 + 0.5).astype(np.uint8)
        drift[sight.frame] = sight.drift
        share[sight.frame] = float(np.mean((belief < 0.5) & sight.view.usable))
        band[sight.frame] = sight.band
        if sight.frame in neighbours:
            deviations.append(sight.before)
    gate = None
    if everywhere:
        gate = np.ones(proxies[reference].clipped.shape, np.float32)
    elif deviations:
        gate = gate_of(deviations)
    return Ghosts(trust, share, band, drift, gate=gate if gate is not None and gate.any() else None)


def fuse(
    radiance: Float,
    bracket: Bracket,
    alignments: Sequence[Alignment],
    ghosts: Ghosts,
    engine: Engine,
    progress: Callable[[float], None] | None = None,
) -> Painted:
    """Put what the network paints over a merge (H, W, 3), in place, where the gate of ``ghosts`` is open.

    ``radiance`` and ``ghosts`` are those of `merge.merge` and `survey`; where the gate is shut not a bit
    changes. ``engine`` runs a network whose inputs are in `painter.PLANES` and whose architecture is in
    `painter.OUTPUTS`.
    """
    names = tuple(engine.card["inputs"])
    if unknown := [name for name in names if name not in PLANES]:
        raise NetworkError(
            f"{engine.path}: asks for {unknown[0]!r}, which this version cannot give it; update hdrmerge"
        )
    meant = OUTPUTS[engine.card["architecture"]]
    sources = _Sources.of(names, bracket, alignments, ghosts)
    shares = _Shares(radiance, ghosts.gate, bracket.reference_frame, sources.limit)
    wanted = shares.wanted()
    told = Painted(float(wanted.mean()), sources.indices, sources.limit)
    if "merged" in names and wanted.any():
        sources = replace(sources, merged=radiance.copy())  # windows overlap what will have been painted
    halo, multiple = int(engine.card["halo"]), int(engine.card["multiple"])
    to_rec709 = bracket.reference_frame.to_rec709
    for box, found in run_boxes(
        engine,
        sources.fetch,
        wanted.shape,
        halo,
        multiple,
        wanted,
        largest=LARGEST_TILE,
        progress=progress,
    ):
        share = shares.of(box)
        if share is None:
            continue
        output = found["radiance"][0]
        share = np.where(np.isfinite(output).all(axis=0), share, np.float32(0))
        planes = [meant(plane) * np.float32(sources.limit) for plane in output]
        merged = radiance[box.top : box.bottom, box.left : box.right]
        for channel, painted in enumerate(transformed(planes, to_rec709)):
            blend = merged[..., channel] + share * (painted - merged[..., channel])
            np.copyto(merged[..., channel], blend, where=share > 0)
    return told


@dataclass(frozen=True, eq=False)
class _Sources:
    """The three frames, shortest exposure first, ready to be cut into windows.

    ``names`` are those of the network's inputs; ``limit`` is the radiance where the shortest frame clips: the
    network's 1.0.
    """

    names: tuple[str, ...]
    inputs: tuple[Input, Input, Input]
    indices: tuple[int, ...]
    limit: float
    width: int
    merged: Float | None = None  # (H, W, 3) Rec. 709, nothing painted yet; None: the network does not see it

    @classmethod
    def of(
        cls, names: tuple[str, ...], bracket: Bracket, alignments: Sequence[Alignment], ghosts: Ghosts
    ) -> _Sources:
        three = Three.of(bracket.frames, alignments, bracket.reference)
        drifts = ghosts.drift or [None] * len(bracket.frames)
        own = bracket.reference_frame
        made = {
            k: Input.of(bracket.frames[k], own, alignments[k], None, drifts[k])
            for k in sorted({three.low, three.reference, three.high})
        }
        inputs = made[three.low], made[three.reference], made[three.high]
        shortest = made[three.low]
        return cls(names, inputs, tuple(made), shortest.frame.clip / shortest.ratio, own.width)

    def fetch(self, window: Box) -> Arrays:
        """Return the network's inputs in a window, (1, C, h, w) each, in the linear colours of the reference.

        Where a neighbour does not reach, the reference stands in for it.
        """
        signals: dict[int, Signal] = {}
        for source in self.inputs:
            if id(source) not in signals:
                strip = source.strip(window.top, window.bottom, self.width)
                signals[id(source)] = strip.tile(window.left, window.right)
        own = signals[id(self.inputs[REFERENCE])].planes
        shown: list[Sequence[Float]] = []
        for source in self.inputs:
            signal = signals[id(source)]
            if signal.trust is None:
                shown.append(signal.planes)
                continue
            shows, ratio = signal.trust > 0, np.float32(source.ratio)
            pairs = zip(signal.planes, own, strict=True)
            shown.append([np.where(shows, plane, stand_in * ratio) for plane, stand_in in pairs])
        merged = self.merged
        if merged is not None:
            part = merged[window.top : window.bottom, window.left : window.right]
            merged = _in_colours_of(self.inputs[REFERENCE].frame, part)
        clips = [source.frame.clip for source in self.inputs]
        seen = Seen(shown, clips, [source.ratio for source in self.inputs], self.limit, merged)
        return {name: PLANES[name](seen)[None] for name in self.names}


def _in_colours_of(frame: Frame, rec709: Float) -> Float:
    """Return Rec. 709 radiance (h, w, 3) in the linear colours of a frame."""
    if np.array_equal(frame.to_rec709, np.eye(3)):
        return rec709
    back = np.linalg.inv(frame.to_rec709.astype(np.float64)).T.astype(np.float32)
    return np.asarray(rec709 @ back, np.float32)


@dataclass(frozen=True, eq=False)
class _Shares:
    """How much of each pixel the network paints: the gate, and nothing beyond the network's range."""

    merged: Float  # (H, W, 3) Rec. 709; read only where nothing was painted yet
    gate: Float | None
    reference: Frame
    limit: float

    def of(self, box: Box) -> Float | None:
        """Return the shares (h, w) in a box, None where all are 0."""
        corners = box.top, box.bottom, box.left, box.right
        gate = upsampled(self.gate, self.reference.height, corners)
        if gate is None:
            return None
        merged = _in_colours_of(self.reference, self.merged[box.top : box.bottom, box.left : box.right])
        within = smoothstep(self.limit, ENDING * self.limit, merged.max(axis=-1))
        share = np.clip(gate, 0.0, 1.0) * within
        return np.asarray(share, np.float32) if share.any() else None

    def wanted(self) -> Mask:
        """Return where the network has a say at all, (H, W)."""
        height, width = self.merged.shape[:2]
        wanted = np.zeros((height, width), np.bool_)
        for box in tiles(Box(0, height, 0, width), PIECE, 1):
            share = self.of(box)
            if share is not None:
                wanted[box.part] = share > 0
        return wanted
