"""The stages in order: read -> form -> align -> calibrate -> deghost -> merge (-> fuse); one stage a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import __version__
from .align import Alignment, Model, align
from .blank import leave_out_blanks
from .bracket import Bracket, Frame, RadianceMap, Shot
from .calibrate import Trust, calibrate, evidence_of
from .curvefit import Evidence
from .deghost import Ghosts, deghost, tolerance
from .entrust import entrust
from .errors import BracketError, ExposureError, HdrmergeError, NetworkError
from .exposure import Response
from .form import StatedExposures, doubts, form_bracket
from .fuse import Painted, fuse, survey
from .infer import Engine, engines, open_engine
from .merge import merge
from .metadata import read_shot
from .painter import OUTPUTS
from .proxy import Proxy, shrink
from .read import read_frame
from .response import find_response
from .tonemap import tonemap
from .weights import find
from .write import write, write_preview

SPOOL_BEYOND = 400e6
"""[bytes] decoded frames together may take this much memory; beyond it they wait in a temporary file."""

DEFAULT_NETWORK = "trust"

Use = Literal["judge", "paint"]
USES: dict[str, Use] = {"trust": "judge", **dict.fromkeys(OUTPUTS, "paint")}
"""What a network of an architecture is for: to judge frames (`entrust`), or to paint (`fuse`)."""

DISAGREEMENT, BAND = 0.25, 0.08
"""Share of the picture, and of its height over the full width, in which a frame may differ unremarked."""

Progress = Callable[[str, float], None]
"""Called with the name of the stage and the share [0, 1] of it that is done."""


@dataclass(frozen=True)
class MergeOptions:
    """How to merge; the defaults are those of the command line."""

    reference: str | None = None  # file name, or index from 0 in the order given; None = middle exposure
    exposures: StatedExposures = field(default_factory=StatedExposures)
    response: str | Response = "auto"  # found from the frames; a name in `RESPONSES`; or a curve
    trust: Trust = "exif"  # whose exposure counts where metadata and pixels contradict each other
    anchor: float | None = None  # [EV at ISO 100] the exposure whose white is 1.0; None = the reference's
    align: Model = "homography"
    deghost: Literal["auto", "none"] = "auto"
    network: str | None = None  # a name in `networks.NETWORKS`, a weights file, "none"; None = the default
    device: str = "auto"  # as in `infer.open_engine`
    precision: str = "auto"
    everywhere: bool = False  # a network that paints is not kept to where frames disagree

    def __str__(self) -> str:
        response = self.response if isinstance(self.response, str) else self.response.name
        anchor = "reference" if self.anchor is None else f"EV{self.anchor:g}"
        return (
            f"align={self.align} deghost={self.deghost} response={response} trust={self.trust} "
            f"anchor={anchor} network={self.network or DEFAULT_NETWORK}"
            f"{' everywhere' if self.everywhere else ''}"
        )


@dataclass(frozen=True)
class Report:
    """What happened to each frame and how long it took."""

    shots: Sequence[Shot]  # shortest exposure first
    reference: int
    alignments: Sequence[Alignment]
    ghost_shares: Sequence[float]
    offsets: Sequence[float]  # [stops] by which the stated exposures were corrected
    response: dict[str, Any]  # the curve's name, how it was found, and how well frames agree under it
    curve: Response  # the one that was used
    clipped_share: float  # of the result: no frame recorded the scene there
    network: str  # that judged, its engine, device and precision; "none": classical trust
    seconds: dict[str, float]
    warnings: list[str]
    painted: Painted | None = None  # None: no network painted

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
                "exposure_offset_ev": round(offset, 4),
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
            for shot, alignment, share, offset in zip(
                self.shots, self.alignments, self.ghost_shares, self.offsets, strict=True
            )
        ]
        painted = self.painted and {
            "share": round(self.painted.share, 6),
            "files": [str(self.shots[k].path) for k in self.painted.frames],
            "limit": round(self.painted.limit, 4),
        }
        return {
            "hdrmerge": __version__,
            "reference": str(self.shots[self.reference].path),
            "response": self.response,
            "network": self.network,
            **({"painted": painted} if painted else {}),
            "frames": frames,
            "clipped_share": round(self.clipped_share, 6),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "warnings": self.warnings,
        }


@dataclass(frozen=True, eq=False)
class Engines:
    """The networks of a merge: one that judges frames, one that paints over what is merged, or both."""

    judge: Engine | None = None
    painter: Engine | None = None

    def describe(self) -> str:
        """Return what runs them, as in "onnxruntime 1.32.0 cpu fp32"."""
        named = dict.fromkeys(engine.describe() for engine in (self.judge, self.painter) if engine)
        return ", ".join(named)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bracket whose pixels are decoded: what `load_bracket` leaves to `merge_loaded`."""

    bracket: Bracket
    proxies: list[Proxy]
    seconds: dict[str, float]
    warnings: list[str]

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
        _refuse_unanchored(shots, options.anchor)
        bracket, proxies = _read(shots, reference, options, clock)
        notes = [f"{frame.shot.path}: {note}" for frame in bracket.frames for note in frame.notes]
        bracket, proxies, blanks = leave_out_blanks(bracket, proxies, options.reference is not None)
    return Loaded(bracket, proxies, clock.seconds, doubts(shots) + notes + blanks)


def merge_loaded(
    loaded: Loaded, options: MergeOptions | None = None, progress: Progress | None = None
) -> tuple[RadianceMap, Report]:
    """Align, deghost and merge a loaded bracket; the second half of `merge_bracket`.

    The proxies in ``loaded`` are used up: a merge needs their memory.
    """
    options, clock = options or MergeOptions(), _Clock(progress)
    clock.seconds.update(loaded.seconds)
    bracket, proxies = loaded.bracket, loaded.proxies

    with clock.stage("align"):
        alignments = align(proxies, bracket.reference, options.align)
    with clock.stage("calibrate"):
        calibrated = calibrate(bracket, proxies, alignments, options.response, options.trust)
        bracket, proxies, alignments = calibrated.bracket, calibrated.proxies, calibrated.alignments
        loaded.proxies.clear()
    with clock.stage("deghost"):
        opened, without = open_network(options)
        ghosts = _ghosts(bracket, proxies, alignments, options, opened, clock)
    proxies.clear()
    with clock.stage("merge"):
        pixels, valid = merge(bracket, alignments, ghosts, clock.sum_up("merge"))
    painted = None
    if opened and opened.painter:
        with clock.stage("fuse"):
            told = partial(clock.tell, "fuse")
            painted = fuse(pixels, bracket, alignments, ghosts, opened.painter, told)

    shots = [frame.shot for frame in bracket.frames]
    reference = shots[bracket.reference]
    if options.anchor is not None:
        pixels *= np.float32(2.0**-options.anchor / bracket.reference_frame.exposure)
    left_out = [
        f"{shot.path}: left out, {a.note}" for shot, a in zip(shots, alignments, strict=True) if not a.used
    ]
    judged = options if opened else replace(options, network="none")
    radiance = RadianceMap(pixels, valid, reference, shots, str(judged), ghosts.distrust)
    report = Report(
        shots=shots,
        reference=bracket.reference,
        alignments=alignments,
        ghost_shares=ghosts.share,
        offsets=calibrated.offsets,
        response=calibrated.response_json(),
        curve=bracket.reference_frame.response,
        clipped_share=1.0 - float(np.count_nonzero(valid)) / valid.size,
        network=f"{judged.network or DEFAULT_NETWORK}: {opened.describe()}" if opened else "none",
        seconds=clock.seconds,
        warnings=loaded.warnings
        + without
        + calibrated.warnings
        + left_out
        + _disagreements(shots, bracket.reference, ghosts),
        painted=painted,
    )
    return radiance, report


def write_outputs(
    radiance: RadianceMap,
    target: Path,
    picture: Path | None = None,
    *,
    ghost_map: Path | None = None,
    operator: str = "durand2002",
    compression: str = "zip",
    float32: bool = False,
    force: bool = False,
) -> list[str]:
    """Write a radiance map and, if named, its tone-mapped ``picture``; return warnings.

    The picture is rendered while the map is compressed. ``ghost_map`` is a picture of where frames were
    distrusted: black where all are trusted, white where the reference stands alone. The options are those
    of `write.write` and `tonemap.tonemap`.
    """
    reference = radiance.reference
    with ThreadPoolExecutor(1) as pool:
        rendered = pool.submit(tonemap, radiance.pixels, operator, ev100=reference.ev100) if picture else None
        losses = write(radiance, target, compression=compression, float32=float32, force=force)
        if picture and rendered:
            write_preview(rendered.result(), picture, shot=reference, force=force)
    if ghost_map:
        write_preview(radiance.ghost_map(), ghost_map, shot=reference, force=force)
    return losses


def shared_response(
    brackets: Sequence[Sequence[str | os.PathLike[str]]], options: MergeOptions | None = None
) -> Response | None:
    """Find one response curve from several brackets of a camera, None if they do not tell.

    Brackets that cannot be read, state no exposures, hold linear files or have another colour profile
    than the first are passed over.
    """
    options = replace(options or MergeOptions(), response="auto")
    evidence: list[Evidence] = []
    given: Response | None = None
    for paths in brackets:
        try:
            loaded = load_bracket(paths, options)
        except HdrmergeError:
            continue
        alignments = align(loaded.proxies, loaded.bracket.reference, options.align)
        found = evidence_of(loaded.bracket, loaded.proxies, alignments)
        curve = loaded.bracket.reference_frame.response
        if found is not None and (given is None or np.array_equal(given.table, curve.table)):
            evidence.append(found)
            given = curve
    return None if given is None else find_response(evidence, given).response


def _refuse_unanchored(shots: Sequence[Shot], anchor: float | None) -> None:
    for shot in shots:
        if anchor is not None and (shot.stated_exposure is not None or shot.exposure is None):
            raise ExposureError(
                f"{shot.path}: no absolute exposure to anchor to EV {anchor:g}; use --anchor reference"
            )


def _read(
    shots: list[Shot], reference: int | None, options: MergeOptions, clock: _Clock
) -> tuple[Bracket, list[Proxy]]:
    """Decode all frames, in threads, and shrink each while its pixels are at hand.

    Without a ``reference`` frames are put in the order of their brightness, and the middle one is it.
    """
    choice = options.response
    named = Response.named(choice) if isinstance(choice, str) and choice != "auto" else None
    response = choice if isinstance(choice, Response) else named
    balanced = shots[reference or 0]

    def load(shot: Shot) -> tuple[Frame, Proxy]:
        frame = read_frame(shot, response, balanced, SPOOL_BEYOND / len(shots))
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
    if any(shot.exposure is None for shot in shots):
        chosen = None if reference is None else loaded[reference]
        loaded.sort(key=lambda pair: float(np.sqrt(np.maximum(pair[1].linear, 0)).mean()))
        reference = (len(loaded) - 1) // 2 if chosen is None else loaded.index(chosen)
    bracket = Bracket(tuple(frame for frame, _ in loaded), reference or 0)
    return bracket, [proxy for _, proxy in loaded]


def open_network(options: MergeOptions) -> tuple[Engines | None, list[str]]:
    """Return the networks that are to judge and to paint, None for classical trust, and warnings.

    ``options.network`` names one, or one that judges and one that paints over its merge: trust+hdrgan.
    The default network is done without where no engine is installed, with a warning; one that was asked
    for by name or file raises `NetworkError`, and so does one that cannot paint ``everywhere``.
    """
    name = options.network or DEFAULT_NETWORK
    if options.network == "none" or options.deghost == "none":
        if options.everywhere:
            raise NetworkError("there is no network to paint everywhere; leave out --everywhere")
        return None, []
    try:
        opened = _engines(name, options)
    except NetworkError as error:
        if options.network is not None or options.everywhere or engines():
            raise
        return None, [f"merged without a network ({error})"]
    if opened.painter is None and options.everywhere:
        raise NetworkError(
            f"{name}: judges frames and paints nothing; leave out --everywhere, or name a network that paints"
        )
    return opened, []


def _engines(name: str, options: MergeOptions) -> Engines:
    """Open one network, or two whose names are joined by a plus: one that judges and one that paints."""
    parts = [name] if Path(name).is_file() else name.split("+")
    found: dict[Use, Engine] = {}
    for part in parts:
        engine = _opened(part, options.device, options.precision)
        if (use := use_of(engine)) in found:
            raise NetworkError(
                f"{name}: {found[use].path.name} and {engine.path.name} both {use}; name one that judges "
                "and one that paints"
            )
        found[use] = engine
    return Engines(found.get("judge"), found.get("paint"))


def use_of(engine: Engine) -> Use:
    """Return what a network is for, by its architecture."""
    architecture = engine.card["architecture"]
    if architecture not in USES:
        raise NetworkError(
            f"{engine.path}: a merge has no use for the architecture {architecture!r}; update hdrmerge, or "
            f"use a network of {' or '.join(USES)}"
        )
    return USES[architecture]


def paints(opened: Engines | None) -> bool:
    """Tell whether a merge with these networks has the stage "fuse"."""
    return opened is not None and opened.painter is not None


@lru_cache(maxsize=4)
def _opened(network: str, device: str, precision: str) -> Engine:
    return open_engine(find(network), device, precision)


def _ghosts(
    bracket: Bracket,
    proxies: Sequence[Proxy],
    alignments: Sequence[Alignment],
    options: MergeOptions,
    opened: Engines | None,
    clock: _Clock,
) -> Ghosts:
    if options.deghost == "none":
        none = [0.0] * len(proxies)
        return Ghosts([None] * len(proxies), none, none)
    if opened and opened.judge:
        told = partial(clock.tell, "deghost")
        found = entrust(bracket.frames, proxies, alignments, bracket.reference, opened.judge, told)
        if not options.everywhere:
            return found
        return replace(found, gate=np.ones(proxies[bracket.reference].clipped.shape, np.float32))
    if opened:
        return survey(bracket.frames, proxies, alignments, bracket.reference, options.everywhere)
    exposures = [frame.exposure for frame in bracket.frames]
    noises = [tolerance(frame) for frame in bracket.frames]
    return deghost(proxies, exposures, noises, alignments, bracket.reference)


def _disagreements(shots: Sequence[Shot], reference: int, ghosts: Ghosts) -> list[str]:
    """Warn of frames that are so unlike the reference that one of the two may be damaged.

    On 18 of 19 real brackets, with people, water and a galloping horse, the share stays below 12 % and
    the band below 4 %; the other is hand-held by 300 px, without exposures, and rightly warned of.
    """
    return [
        f"{shot.path}: disagrees with {shots[reference].path.name} over {share:.0%} of the picture and "
        "counts little there; if nothing that large moved, its exposure is wrong or a file is damaged"
        for shot, share, band in zip(shots, ghosts.share, ghosts.band, strict=True)
        if share > DISAGREEMENT or band > BAND
    ]


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
