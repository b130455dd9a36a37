"""The stages in order: read -> form -> align -> deghost -> merge. One function, one stage a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from . import __version__
from .align import Alignment, Model, align
from .bracket import Bracket, Frame, RadianceMap, Shot
from .deghost import Ghosts, deghost, tolerance
from .errors import BracketError
from .exposure import Response
from .form import StatedExposures, doubts, form_bracket
from .merge import merge
from .metadata import read_shot
from .proxy import Proxy, shrink
from .read import read_frame

SPOOL_BEYOND = 400e6
"""[bytes] decoded frames together may take this much memory; beyond it they wait in a temporary file."""

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the share [0, 1] of it that is done."""


@dataclass(frozen=True)
class MergeOptions:
    """How to merge; the defaults are those of the command line."""

    reference: str | None = None  # file name, or index from 0 in the order given; None = middle exposure
    exposures: StatedExposures = field(default_factory=StatedExposures)
    response: str | None = None  # a name in `RESPONSES`; None = the file's own profile
    align: Model = "homography"
    deghost: Literal["auto", "none"] = "auto"
    network: Literal["none"] = "none"

    def __str__(self) -> str:
        response = self.response or "profile"
        return f"align={self.align} deghost={self.deghost} response={response} network={self.network}"


@dataclass(frozen=True)
class Report:
    """What happened to each frame and how long it took."""

    shots: Sequence[Shot]  # shortest exposure first
    reference: int
    alignments: Sequence[Alignment]
    ghost_shares: Sequence[float]
    clipped_share: float  # of the result: no frame recorded the scene there
    seconds: dict[str, float]
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values; exposures in stops relative to the reference."""
        base = self.shots[self.reference].exposure or 1.0
        frames = [
            {
                "file": str(shot.path),
                "exposure_time": shot.exposure_time,
                "iso": shot.iso,
                "f_number": shot.f_number,
                "exposure_source": shot.source,
                "relative_ev": round(float(np.log2((shot.exposure or base) / base)), 4),
                "used": alignment.used,
                "alignment": {
                    "model": alignment.model,
                    "inliers": alignment.inliers,
                    "residual_px": alignment.residual,
                    "matrix": [[round(float(v), 9) for v in row] for row in alignment.matrix],
                    "note": alignment.note,
                },
                "ghost_share": round(share, 5),
            }
            for shot, alignment, share in zip(self.shots, self.alignments, self.ghost_shares, strict=True)
        ]
        return {
            "hdrmerge": __version__,
            "reference": str(self.shots[self.reference].path),
            "frames": frames,
            "clipped_share": round(self.clipped_share, 6),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "warnings": self.warnings,
        }


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bracket whose pixels are decoded: what `load_bracket` leaves to `merge_loaded`."""

    bracket: Bracket
    proxies: list[Proxy]
    seconds: dict[str, float]

    @property
    def shots(self) -> list[Shot]:
        return [frame.shot for frame in self.bracket.frames]


def merge_bracket(
    paths: Sequence[str | os.PathLike[str]],
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> tuple[RadianceMap, Report]:
    """Merge the photographs of one bracket into a radiance map.

    Raises an `HdrmergeError` for input that cannot be merged; nothing is written.
    """
    return merge_loaded(load_bracket(paths, options, progress), options, progress)


def load_bracket(
    paths: Sequence[str | os.PathLike[str]],
    options: MergeOptions | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Check the photographs of one bracket and decode their pixels; the first half of `merge_bracket`.

    A batch loads the next bracket while it merges this one.
    """
    options, clock = options or MergeOptions(), _Clock(progress)
    with clock.stage("read"):
        shots = options.exposures.applied([read_shot(path) for path in paths])
        shots, reference = form_bracket(shots, options.reference)
        bracket, proxies = _read(shots, reference, options, clock)
    return Loaded(bracket, proxies, clock.seconds)


def merge_loaded(
    loaded: Loaded, options: MergeOptions | None = None, progress: Progress | None = None
) -> tuple[RadianceMap, Report]:
    """Align, deghost and merge a loaded bracket; the second half of `merge_bracket`."""
    options, clock = options or MergeOptions(), _Clock(progress)
    clock.seconds.update(loaded.seconds)
    bracket, proxies, shots = loaded.bracket, loaded.proxies, loaded.shots
    reference = bracket.reference

    with clock.stage("align"):
        alignments = align(proxies, reference, options.align)
    with clock.stage("deghost"):
        ghosts = _ghosts(bracket, proxies, alignments, options)
    with clock.stage("merge"):
        pixels, valid = merge(bracket, alignments, ghosts.trust, clock.sum_up("merge"))

    warnings = doubts(shots) + [
        f"{shot.path}: left out, {a.note}" for shot, a in zip(shots, alignments, strict=True) if not a.used
    ]
    radiance = RadianceMap(pixels, valid, shots[reference], shots, str(options))
    clipped = 1.0 - float(np.count_nonzero(valid)) / valid.size
    return radiance, Report(shots, reference, alignments, ghosts.share, clipped, clock.seconds, warnings)


def _read(
    shots: list[Shot], reference: int, options: MergeOptions, clock: _Clock
) -> tuple[Bracket, list[Proxy]]:
    """Decode all frames, in threads, and shrink each while its pixels are at hand."""
    response = None if options.response is None else Response.named(options.response)

    def load(shot: Shot) -> tuple[Frame, Proxy]:
        frame = read_frame(shot, response, shots[reference], SPOOL_BEYOND / len(shots))
        return frame, shrink(frame)

    loaded = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pair in pool.map(load, shots):
            loaded.append(pair)
            clock.tell("read", len(loaded) / len(shots))
    sizes = {(frame.width, frame.height) for frame, _ in loaded}
    if len(sizes) > 1:
        raise BracketError(
            f"{shots[0].path}: frames decode to different sizes {sorted(sizes)}; merge frames of one size"
        )
    return Bracket(tuple(frame for frame, _ in loaded), reference), [proxy for _, proxy in loaded]


def _ghosts(
    bracket: Bracket, proxies: Sequence[Proxy], alignments: Sequence[Alignment], options: MergeOptions
) -> Ghosts:
    if options.deghost == "none":
        return Ghosts([None] * len(proxies), [0.0] * len(proxies))
    exposures = [frame.exposure for frame in bracket.frames]
    noises = [tolerance(frame) for frame in bracket.frames]
    return deghost(proxies, exposures, noises, alignments, bracket.reference)


class _Clock:
    """Times the stages and passes on their progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        self.tell(name, 0.0)
        yield
        self.tell(name, 1.0)
        self.seconds[name] = time.perf_counter() - start

    def tell(self, stage: str, share: float) -> None:
        if self._progress:
            self._progress(stage, share)

    def sum_up(self, stage: str) -> Callable[[float], None]:
        """Return a function that adds up the shares that threads report."""
        done = 0.0

        def add(share: float) -> None:
            nonlocal done
            done += share
            self.tell(stage, min(done, 1.0))

        return add
