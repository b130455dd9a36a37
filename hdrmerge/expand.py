"""One photograph -> radiance beyond its white.

    read -> linear -> small picture, extrapolated -> network, at shorter exposures -> radiance, small
         -> what of it is brighter than the photograph -> added, at full size, to what is clipped there

The network is `networks.virtual_bracket` (Le et al. 2023). It sees averages of at most 0.8 megapixels, whole:
what it paints is smooth, and it looks too far for tiles (766 px) to save anything. What is added, to which
pixels, and how colours are kept is in `highlights.py`.

On a RAW file, whose channels clip at different levels of white, clipped ones are first raised as `merge`
does, so that without a network a blown sun is white.

Shadows are the photograph's: what lies below the noise of a good exposure is less than 1e-3 of white.

Units: radiance 1.0 is the photograph's white; ``balanced`` as in `highlights.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .bracket import Frame, RadianceMap, Shot
from .errors import NetworkError
from .exposure import Float, Mask, Response
from .extrapolate import extrapolated
from .fileformat import kind_of
from .highlights import RAMP, REACH, Small, begun, clipped, encoded, excess, merged, raise_clipped
from .infer import Engine, open_engine, out_of_memory
from .merge import transformed
from .metadata import read_shot
from .read import read_frame
from .weights import find

DEFAULT_NETWORK = "virtual-bracket"
ARCHITECTURE = "virtual_bracket"

SHORTER = (-2.0, -3.0, -4.0)  # [stops] whose frames together hold radiance 1 to 16 away from black and white

SMALL_PIXELS = 800_000  # the network sees at most: 12 megapixels at a quarter of their size
LOSSY = ("jpeg", "heic")  # kinds of files whose values near the clipping level are ripples
STRIP = 128  # rows worked on at a time
WIDEST = 8192  # columns: OpenCV resamples no more than 32767

Progress = Callable[[str, float], None]
"""Called with the name of the stage ("read", "synthesise", "merge") and the share [0, 1] that is done."""

PARTS = {"read": 0.1, "synthesise": 0.6, "merge": 0.1, "write": 0.2}
"""What each stage is of the whole, on 12 megapixels; writing is the caller's."""


@dataclass(frozen=True)
class ExpandOptions:
    """How to expand; the defaults are those of the command line."""

    response: str | Response | None = None  # a name in `RESPONSES` or a curve; None = the file's profile
    network: str | None = None  # a name in `networks.NETWORKS`, a weights file, "none"; None = the default
    device: str = "auto"  # as in `infer.open_engine`
    precision: str = "auto"

    def curve(self) -> Response | None:
        return Response.named(self.response) if isinstance(self.response, str) else self.response


@dataclass(frozen=True, eq=False)
class Expansion:
    """What was done to a photograph.

    ``synthesised`` is the share of pixels of which a channel, at least, is the network's. ``channels``
    (H, W) uint8 tells where: 255 times the share of the pixel's channels.
    """

    shot: Shot
    network: str  # its file, engine, device and precision; "none"
    synthesised: float
    channels: NDArray[np.uint8]
    warnings: list[str]

    def map(self) -> NDArray[np.uint8]:
        """Return ``channels`` as a grey picture (H, W, 3)."""
        return np.repeat(self.channels[..., None], 3, axis=2)

    def sentence(self) -> str:
        """Say in one line how much of the picture is whose."""
        percent = 100 * self.synthesised
        share = f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
        if self.network == "none":
            return f"clipped: {share} % of the picture, nothing synthesised"
        return f"synthesised: {share} % of the picture, where the photograph was clipped"


def expand_photo(
    path: str | os.PathLike[str], options: ExpandOptions | None = None, progress: Progress | None = None
) -> tuple[RadianceMap, Expansion]:
    """Expand one photograph to a radiance map, 1.0 = its white.

    Raises an `HdrmergeError` for a file or a network that cannot be used; nothing is written.
    """
    options, tell = options or ExpandOptions(), progress or (lambda stage, share: None)
    engine = open_expander(options)  # what cannot run is said before the work
    frame = read_photo(path, options.curve(), tell)
    photo = synthesised(frame, engine, tell)
    pixels = np.empty((frame.height, frame.width, 3), np.float32)
    channels = np.empty((frame.height, frame.width), np.uint8)

    def work(top: int) -> None:
        bottom = min(top + STRIP, frame.height)
        pixels[top:bottom], clips = photo.rows(top, bottom)
        channels[top:bottom] = np.count_nonzero(clips, axis=2) * 85

    in_strips(frame.height, STRIP, work, lambda share: tell("merge", share))
    network = f"{engine.path.name} ({engine.describe()})" if engine else "none"
    warnings = [f"{path}: {note}" for note in frame.notes]
    expansion = Expansion(frame.shot, network, float(np.mean(channels > 0)), channels, warnings)
    settings = f"response={frame.response.name} network={network}; {expansion.sentence()}"
    return RadianceMap(pixels, channels == 0, frame.shot, [frame.shot], settings), expansion


def open_expander(options: ExpandOptions) -> Engine | None:
    """Return the network that expands, None for "none"; `NetworkError` for one that cannot."""
    if options.network == "none":
        return None
    engine = _opened(options.network or DEFAULT_NETWORK, options.device, options.precision)
    if engine.card["architecture"] != ARCHITECTURE or set(engine.card["inputs"]) != {"photo", "ev"}:
        raise NetworkError(
            f"{engine.path}: a network of {engine.card['architecture']!r} expands no photographs; "
            f"use one of {ARCHITECTURE!r}"
        )
    return engine


@lru_cache(maxsize=2)
def _opened(network: str, device: str, precision: str) -> Engine:
    return open_engine(find(network), device, precision)


def read_photo(path: str | os.PathLike[str], curve: Response | None, tell: Progress) -> Frame:
    """Decode a photograph; ``curve`` overrides that of a developed file's profile."""
    tell("read", 0.0)
    frame = read_frame(read_shot(path), curve)
    tell("read", 1.0)
    return frame


def in_strips(
    height: int, rows: int, work: Callable[[int], None], tell: Callable[[float], None] = lambda share: None
) -> None:
    """Call ``work`` with the first row of each strip of so many rows, in threads."""
    tops = range(0, height, rows)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(work, tops), 1):
            tell(done / len(tops))


# --- the photograph, at full size -----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Photo:
    """A frame and what is to be added to it where it clips.

    ``neutral`` (3,) is the linear signal of white, the largest channel 1. ``excess`` is that of
    `highlights.excess` in blocks of ``factor`` x ``factor`` pixels, the last ones in part beyond the border,
    and ``weights`` (H, W, 3) is how much of it a channel gets, 255 = all, 0 where it does not clip. None:
    nothing is added, nothing clips.
    """

    frame: Frame
    neutral: Float
    factor: int
    weights: NDArray[np.uint8] | None = None
    excess: tuple[Float, Float] | None = None

    @classmethod
    def of(cls, frame: Frame) -> Photo:
        neutral = np.linalg.solve(frame.to_rec709.astype(np.float64), np.ones(3))
        neutral /= neutral.max()
        neutral = np.ones(3) if np.allclose(neutral, 1, atol=1e-3) else neutral
        factor = math.ceil(math.sqrt(frame.height * frame.width / SMALL_PIXELS))
        photo = cls(frame, neutral.astype(np.float32), factor)
        weights = np.zeros((frame.height, frame.width, 3), np.uint8)
        in_strips(frame.height, STRIP, lambda top: photo._weigh(weights[top : top + STRIP], top))
        return replace(photo, weights=weights) if weights.any() else photo

    def _weigh(self, weights: NDArray[np.uint8], top: int) -> None:
        """Fill in rows of the weights."""
        first = max(top - REACH, 0)
        level = self.frame.linear(first, min(top + len(weights) + REACH, self.frame.height))
        level = level / np.float32(self.frame.clip)
        clips = clipped(level, lossy=kind_of(self.frame.shot.path) in LOSSY)
        if clips[top - first :][: len(weights)].any():
            share = begun(level, clips, min(2.0 * self.factor, RAMP * REACH))
            np.rint(share[top - first :][: len(weights)] * 255, out=weights, casting="unsafe")

    @property
    def to_rec709(self) -> Float:
        """The matrix from balanced light."""
        return np.asarray(self.frame.to_rec709 * self.neutral, np.float32)

    def balanced(self, top: int, bottom: int) -> tuple[Float, Mask]:
        """Return rows of the photograph, nothing added, and which of their channels clip, both (h, W, 3)."""
        light = self.frame.linear(top, bottom)
        weights = np.zeros(light.shape, np.uint8) if self.weights is None else self.weights[top:bottom]
        clips = np.asarray(weights > 0)
        if (self.neutral != 1).any():
            light = light / self.neutral
            if clips.any():
                raise_clipped(light, clips)
        return light, clips

    def shares(self, top: int, bottom: int) -> tuple[Float, Float]:
        """Return the weights of rows as `highlights.Small` has them: partly (h, W, 3), wholly (h, W, 1)."""
        assert self.weights is not None
        weights = self.weights[top:bottom] * np.float32(1 / 255)
        wholly = weights.min(axis=2, keepdims=True)
        return weights - wholly, wholly

    def rows(self, top: int, bottom: int) -> tuple[Float, Mask]:
        """Return rows of radiance, Rec. 709, and which channels of the frame are not the photograph's."""
        light, clips = self.balanced(top, bottom)
        if self.excess is not None and clips.any():
            more = [
                np.maximum(enlarged(small, self.factor, top, light.shape), 0) * share
                for small, share in zip(self.excess, self.shares(top, bottom), strict=True)
            ]
            light = light + more[0] + more[1]
        return cv2.merge(transformed(list(cv2.split(light)), self.to_rec709)), clips


def enlarged(small: Float, factor: int, top: int, shape: tuple[int, ...]) -> Float:
    """Return rows from ``top`` on, of ``shape`` (h, W, ...), of a picture of block averages, bilinearly."""
    height, width = shape[:2]
    half = (factor - 1) / 2
    parts = []
    for left in range(0, width, WIDEST):
        inward = np.array([[1, 0, left - half], [0, 1, top - half]]) / factor
        parts.append(
            cv2.warpAffine(
                small,
                inward,
                (min(WIDEST, width - left), height),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        )
    return np.concatenate(parts, axis=1)


# --- the same, small, and what a network says of it -----------------------------------------------


def shrunk(photo: Photo) -> Small:
    """Average a photograph over blocks, in threads; the last ones repeat its last row and column."""
    frame, factor = photo.frame, photo.factor
    height, width = -(-frame.height // factor), -(-frame.width // factor)
    light, partly = (np.zeros((height, width, 3), np.float32) for _ in range(2))
    wholly = np.zeros((height, width, 1), np.float32)
    recorded = np.ones((height, width, 3), np.bool_)
    rows = max(STRIP // factor, 1)

    def averaged(values: Float, count: int) -> Float:
        below, beside = count * factor - values.shape[0], width * factor - values.shape[1]
        whole = cv2.copyMakeBorder(values, 0, below, 0, beside, cv2.BORDER_REPLICATE)
        mean = cv2.resize(whole, (width, count), interpolation=cv2.INTER_AREA)
        return np.asarray(mean.reshape(count, width, -1))

    def work(first: int) -> None:
        last = min(first + rows, height)
        top, bottom = first * factor, min(last * factor, frame.height)
        own, clips = photo.balanced(top, bottom)
        light[first:last] = averaged(own, last - first)
        if clips.any():
            some, all_of_them = photo.shares(top, bottom)
            partly[first:last] = averaged(some, last - first)
            wholly[first:last] = averaged(all_of_them, last - first)
            recorded[first:last] = averaged(clips.astype(np.float32), last - first) == 0

    in_strips(height, rows, work)
    return Small(light, partly, wholly, recorded, np.float32(frame.clip) / photo.neutral)


def synthesised(frame: Frame, engine: Engine | None, tell: Progress) -> Photo:
    """Return a frame with what a network adds to it."""
    photo = Photo.of(frame)
    tell("synthesise", 0.0)
    if engine is not None and photo.weights is not None:
        small = shrunk(photo)
        view = View.of(small, photo.to_rec709)
        found = merged(view.reexposed(engine, SHORTER, lambda share: tell("synthesise", share)))
        back = np.linalg.inv(photo.to_rec709.astype(np.float64)).astype(np.float32)
        photo = replace(photo, excess=excess(small, np.maximum(cv2.transform(found, back), 0)))
    tell("synthesise", 1.0)
    return photo


@dataclass(frozen=True, eq=False)
class View:
    """What a network sees: ``light`` (h, w, 3), Rec. 709 in [0, 1]."""

    light: Float

    @classmethod
    def of(cls, small: Small, to_rec709: Float) -> View:
        return cls(np.clip(cv2.transform(small.light, to_rec709), 0.0, 1.0))

    def reexposed(
        self, engine: Engine, evs: Sequence[float], tell: Callable[[float], None]
    ) -> Iterator[tuple[float, Float]]:
        """Yield the EV and the code values (h, w, 3) of virtual frames, one run of the network each.

        Where memory is too small the network sees half of the size, and again.
        """
        height, width = self.light.shape[:2]
        light = self.light
        for number, ev in enumerate(evs):
            while (codes := _run(engine, light, ev)) is None:
                size = ((light.shape[1] + 1) // 2, (light.shape[0] + 1) // 2)
                light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
            if codes.shape != self.light.shape:
                codes = cv2.resize(codes, (width, height), interpolation=cv2.INTER_LINEAR)
            tell((number + 1) / len(evs))
            yield ev, np.asarray(codes, np.float32)


def _run(engine: Engine, light: Float, ev: float) -> Float | None:
    """Return the code values (h, w, 3) of one virtual frame, None where memory is too small for it."""
    tiny = light.shape[0] * light.shape[1] <= 64 * 64
    need = light.shape[0] * light.shape[1] * float(engine.card.get("bytes_per_pixel", 0))
    if need > engine.free_memory() and not tiny:
        return None
    photo = np.ascontiguousarray(np.moveaxis(encoded(extrapolated(light)), -1, 0)[None])
    try:
        found = engine.run({"photo": photo, "ev": np.full((1, 1, 1, 1), ev, np.float32)}, last=True)
    except Exception as error:
        if tiny or not out_of_memory(error):
            raise
        return None
    codes = np.nan_to_num(np.clip(found["frames"][0], 0.0, 1.0), nan=0.0)
    return np.ascontiguousarray(np.moveaxis(codes, 0, -1), np.float32)
