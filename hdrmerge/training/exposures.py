"""HDR scenes or real brackets -> photographs of one patch at two exposures, to learn the one from the other.

    scene -> view -> exposures -> noise -> response -> 8 bits, JPEG -> `Exposures`
    bracket, aligned -> patch where its frames agree -> `Exposures`

Pairs are all that `networks/virtual_bracket.py` needs. Its paper drew them from a set made once: nine
exposures, half a stop apart, of each scene through five response curves (Endo et al. 2017, "Deep reverse
tone mapping"). Here view, camera and exposures of every pair are new, and the stops between them any number,
more likely a large one, or multiples of a half as there (``nine``).

A network sees whole photographs, reduced; so the same scene is seen large and small, up to eight times as
large. Views are looked up in the logarithm of a scene, patch by patch: `scenes.draw_view` renders the whole
of a view, which takes far longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..dataset import read_scene
from ..errors import InputError
from ..exposure import Array, Float, NoiseModel, Response
from ..flowmerge import rematched
from ..simulate import Camera, scale_for_saturation
from .scenes import draw_response, scene_files
from .triplets import Series

WIDEST = 4.0  # [stops] between the two of a pair, the paper's
LEAST = 0.25  # [stops] between two frames of a real bracket
CLIPPED = (0.01, 0.3)  # share of the brighter photograph, log-uniform
SHORTER_METERED = 0.25  # of the pairs have a shorter photograph that is clipped, too
SHORTER_CLIPPED, SHORTER_WIDEST = (0.01, 0.1), 2.0  # share of it; [stops] to the longer one
WIDE = 0.75  # of the pairs are metered by all that surrounds the patch
SHOWN = (0.002, 0.7)  # share of a patch that is clipped in the one that is metered
VIEWS = 5  # looked at for such a patch; if there is none, the last one is metered by itself

ZOOM = (0.5, 4.0)  # pixels of a patch for each of a scene, log-uniform
FINE = 0.9  # zoom below which a view is looked up twice as finely, and averaged
FIELD = 90.0  # [degrees] that a patch shows of a panorama at most
METERED_FIELD = (50.0, 100.0)  # [degrees] that is metered
PITCH, ROLL = 35.0, 5.0  # [degrees] of the middle of a patch, at most
METERED_SIZE = (32, 48)  # (H, W) of what is metered [px]
BORDER = 4  # [px] of a panorama, repeated on either side

LINEARISED = 0.5  # of the pairs are gamma codes, as a program writes them that knows the response curve
COMPRESSED = 0.2  # of the pairs are JPEG files at the size of the patch
QUALITY = (70, 100)
LEVELS = 1 << 12  # cells of the table that encodes, equally wide in the root of the signal

PERMUTED = 0.5  # of the pairs have their colours in another order; the others know that skies are blue
TURNED = 0.25  # of the pairs lie on their side or upside down; the others know that skies are above

STOPS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # of what is held out, those of the paper's tables
HELD_OUT_CLIPPED = (0.03, 0.15)  # of its middle photograph

AGREES, STRAYS = 0.1, 0.02  # difference of codes that is none yet; share that may differ
TOLD = 0.1  # share of a patch that both photographs show at least
TRIES = 200  # patches of real brackets that are looked at for one that stands still

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Exposures:
    """Photographs of one patch: ``codes`` (N, p, p, 3) in [0, 1], 1 where they clip, shortest first.

    ``stops``, one a photograph, count from any of them.
    """

    codes: Float
    stops: tuple[float, ...]


class ExposureSource(Protocol):
    """What pairs are drawn from."""

    def draw(self, rng: np.random.Generator, size: int) -> Exposures:
        """Draw two photographs of a patch of ``size`` [px]."""

    def describe(self) -> str:
        """Return what there is, in a few words."""


# --- scenes ---------------------------------------------------------------------------------------


class SceneExposures:
    """Pairs by cameras drawn at random, of scenes (h, w, 3), linear, positive; 6 MB of memory each.

    ``clipped`` is the share of the brighter photograph that is clipped, ``zoom`` how many pixels of a patch
    there are for each of a scene, both least and most. With ``nine`` exposures are multiples of half a stop
    apart, as two different ones of nine are.
    """

    def __init__(
        self,
        scenes: Iterable[Float],
        nine: bool = False,
        clipped: tuple[float, float] = CLIPPED,
        zoom: tuple[float, float] = ZOOM,
    ) -> None:
        self.backdrops = [Backdrop.of(scene) for scene in scenes]
        self.nine, self.clipped, self.zoom = nine, clipped, zoom

    @classmethod
    def read(cls, folder: Path, validation: bool = False, **options: Any) -> SceneExposures:
        """Take the scenes of a folder that are to be trained on, or those set aside; one by one."""
        return cls((read_scene(path) for path in scene_files(folder)[validation]), **options)

    def describe(self) -> str:
        apart = "0.5 to 4 stops in halves" if self.nine else "0 to 4 stops"
        least, most = (f"{100 * share:g}" for share in self.clipped)
        return (
            f"pairs of photographs {apart} apart of {len(self.backdrops)} HDR scenes, {least} to {most} % of "
            "the brighter one clipped; view, lamp, camera, response curve and noise drawn anew for each"
        )

    def draw(self, rng: np.random.Generator, size: int) -> Exposures:
        shorter = rng.random() < SHORTER_METERED
        apart = self._apart(rng, SHORTER_WIDEST if shorter else WIDEST)
        share = log_uniform(rng, *(SHORTER_CLIPPED if shorter else self.clipped))
        linear = self._metered(rng, self.backdrops, size, share, rng.random() < WIDE)
        stops = (0.0, apart) if shorter else (-apart, 0.0)
        return turned(draw_recorder(rng).record(linear, stops, rng), rng)

    def _metered(
        self, rng: np.random.Generator, backdrops: Sequence[Backdrop], size: int, share: float, wide: bool
    ) -> Float:
        """Draw a view (p, p, 3) that clips at 1.0, as ``share`` of it does, or of what is around it."""
        for _ in range(VIEWS):
            view, around = backdrops[int(rng.integers(len(backdrops)))].draw(rng, size, self.zoom)
            linear = view * np.float32(scale_for_saturation(around if wide else view, share))
            if SHOWN[0] <= float((linear.max(axis=-1) >= 1).mean()) <= SHOWN[1]:
                return np.asarray(linear, np.float32)
        return np.asarray(view * np.float32(scale_for_saturation(view, share)), np.float32)

    def _apart(self, rng: np.random.Generator, widest: float) -> float:
        if not self.nine:
            return widest * math.sqrt(float(rng.random()))  # more that are far apart: a merge asks for them
        first, second = rng.permutation(1 + round(2 * widest))[:2]
        return abs(int(first) - int(second)) / 2

    def held_out(
        self, count: int, size: int, seed: int = 0, stops: tuple[float, ...] = STOPS
    ) -> list[Exposures]:
        """Return photographs of patches at ``stops`` to take scores on, the same for a seed, scene by scene.

        Of what is around that at 0 stops, `HELD_OUT_CLIPPED` are clipped.
        """
        found = []
        for number in range(count):
            rng = np.random.default_rng([seed, number])
            scene, share = self.backdrops[number % len(self.backdrops)], log_uniform(rng, *HELD_OUT_CLIPPED)
            linear = self._metered(rng, [scene], size, share, wide=True)
            found.append(draw_recorder(rng).record(linear, stops, rng))
        return found


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A scene as it is looked at: the logarithm of its radiance, more than ``offset``, (h, w, 3) float32.

    A ``panorama`` goes on at its sides by `BORDER`. Interpolated in linear light, radiance would overshoot
    to negative values beside every lamp; the offset keeps noise in the dark from being interpolated by its
    ratio.
    """

    log: Float
    offset: np.float32
    panorama: bool

    @classmethod
    def of(cls, scene: Float) -> Backdrop:
        height, width = scene.shape[:2]
        offset = np.float32(0.05 * np.median(scene) + 1e-6)
        log = np.log(np.maximum(scene, 0) + offset)
        if width == 2 * height:
            log = np.pad(log, ((0, 0), (BORDER, BORDER), (0, 0)), mode="wrap")
        return cls(np.ascontiguousarray(log, np.float32), offset, width == 2 * height)

    def draw(
        self, rng: np.random.Generator, size: int, zoom: tuple[float, float] = ZOOM
    ) -> tuple[Float, Float]:
        """Return the view of a patch of ``size`` [px], and what is around, smaller, both (h, w, 3) radiance.

        In the light of another lamp half of the time, as in `scenes.draw_view`.
        """
        if self.panorama:
            views = self._draw_direction(rng, size, log_uniform(rng, *zoom))
        else:
            views = self._draw_crop(rng, size, log_uniform(rng, *zoom))
        if rng.random() < 0.5:
            gains = np.exp2(rng.uniform(-0.5, 0.5, 3)).astype(np.float32)
            views = views[0] * gains, views[1] * gains
        return views

    def _draw_direction(self, rng: np.random.Generator, size: int, zoom: float) -> tuple[Float, Float]:
        yaw, pitch, roll = np.radians(rng.uniform((-180, -PITCH, -ROLL), (180, PITCH, ROLL)))
        widest = size / 2 / math.tan(math.radians(FIELD) / 2)  # [px] focal length
        focal = max(zoom * self._per_radian, widest)
        fine = 2 if focal < FINE * self._per_radian else 1
        view = self._seen(self._directions((size * fine,) * 2, focal * fine, yaw, pitch, roll))
        field = math.radians(float(rng.uniform(*METERED_FIELD)))
        metered = METERED_SIZE[1] / 2 / math.tan(field / 2)
        around = self._seen(self._directions(METERED_SIZE, metered, yaw, pitch, roll))
        return averaged(view, fine), around

    def _draw_crop(self, rng: np.random.Generator, size: int, zoom: float) -> tuple[Float, Float]:
        length = np.array(self.log.shape[:2])
        zoom = max(zoom, size / min(length))
        fine = 2 if zoom < FINE else 1
        start = rng.uniform(0, length - size / zoom)
        row, column = (
            (np.arange(size * fine) + 0.5) / (zoom * fine) - 0.5 + first for first in start.tolist()
        )
        column, row = np.meshgrid(column.astype(np.float32), row.astype(np.float32))
        every = max(min(length) // METERED_SIZE[0], 1)
        return averaged(self._seen((column, row)), fine), self._radiance(self.log[::every, ::every])

    @cached_property
    def _per_radian(self) -> float:
        return float(self.log.shape[1] - 2 * BORDER) / (2 * math.pi)

    def _directions(
        self, size: tuple[int, int], focal: float, yaw: float, pitch: float, roll: float
    ) -> tuple[Float, Float]:
        """Return the column and row of a panorama that each pixel of a perspective view looks at."""
        down, right = (
            ((np.arange(length, dtype=np.float32) + 0.5) - length / 2) / np.float32(focal) for length in size
        )
        right, down = np.meshgrid(right, down)
        cos, sin = np.float32(math.cos(roll)), np.float32(math.sin(roll))
        right, down = cos * right - sin * down, sin * right + cos * down
        cos, sin = np.float32(math.cos(pitch)), np.float32(math.sin(pitch))
        up, ahead = sin - down * cos, cos + down * sin
        per, columns = np.float32(self._per_radian), self.log.shape[1] - 2 * BORDER
        column = ((np.arctan2(right, ahead) + np.float32(yaw)) * per + columns / 2) % columns - 0.5 + BORDER
        row = (np.float32(math.pi / 2) - np.arctan2(up, np.hypot(right, ahead))) * per - 0.5
        return column.astype(np.float32, copy=False), row

    def _seen(self, where: tuple[Float, Float]) -> Float:
        """Return the radiance at columns and rows."""
        return self._radiance(cv2.remap(self.log, *where, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))

    def _radiance(self, log: Float) -> Float:
        return np.asarray(np.maximum(np.exp(log) - self.offset, np.float32(1e-6)), np.float32)


def averaged(view: Float, fine: int) -> Float:
    """Return a view (h, w, 3) whose pixels are means of ``fine`` x ``fine`` of those given."""
    if fine == 1:
        return view
    size = view.shape[1] // fine, view.shape[0] // fine
    return np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_AREA), np.float32)


def log_uniform(rng: np.random.Generator, least: float, most: float) -> float:
    """Draw a positive number of which all factors are equally likely."""
    return math.exp(float(rng.uniform(math.log(least), math.log(most))))


# --- cameras --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Recorder:
    """A camera as `simulate.Camera`, faster by tables; ``quality`` of JPEG, None where nothing is lost."""

    response: Response
    noise: NoiseModel
    quality: int | None = None
    subsampled: bool = False

    def record(self, linear: Float, stops: tuple[float, ...], rng: np.random.Generator) -> Exposures:
        """Photograph what clips at 1.0 at 0 stops, (h, w, 3), at each of the ``stops``, which ascend."""
        table = self._table
        codes = [self._file(self._codes(linear * np.float32(2.0**ev), table, rng)) for ev in stops]
        return Exposures(np.stack(codes).astype(np.float32) / np.float32(255), stops)

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """The codes of signals whose roots are equally spaced, of each channel in turn."""
        signal = np.square(np.linspace(0.0, 1.0, LEVELS + 1, dtype=np.float32))
        codes = self.response.encode(np.repeat(signal[:, None], 3, axis=1))
        return np.asarray(np.rint(codes.T * 255).ravel(), np.uint8)

    def _codes(self, linear: Float, table: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return what is stored of a signal: a Gaussian is added, since few photons drown in read noise."""
        linear = np.minimum(linear, np.float32(4.0))  # so bright that no noise brings it back
        noisy = rng.standard_normal(linear.shape, dtype=np.float32)
        noisy *= np.sqrt(self.noise.variance(linear))
        noisy += linear
        np.clip(noisy, 0, 1, out=noisy)
        cells = np.rint(np.sqrt(noisy) * np.float32(LEVELS)).astype(np.intp)
        cells += np.arange(3) * (LEVELS + 1)
        return np.asarray(table.take(cells))

    def _file(self, codes: NDArray[np.uint8]) -> Array:
        if self.quality is None:
            return codes
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if self.subsampled else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        )
        how = [cv2.IMWRITE_JPEG_QUALITY, self.quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
        data = cv2.imencode(".jpg", np.ascontiguousarray(codes[..., ::-1]), how)[1]
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def draw_recorder(rng: np.random.Generator) -> Recorder:
    """Draw a camera of ISO 100 to 6400, a pixel of which is the mean of 1 to 24.

    Since photographs are reduced before a network sees them. Half of them are linearised, too; the others
    have a response as for merges, which nobody knew, or knew wrongly.
    """
    camera = Camera(full_well=log_uniform(rng, 15_000, 90_000), read_noise=float(rng.uniform(2.0, 8.0)))
    noise, count = camera.noise(log_uniform(rng, 100, 6400)), log_uniform(rng, 1, 24)
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1)) if rng.random() < COMPRESSED else None
    linearised = rng.random() < LINEARISED
    return Recorder(
        Response.named("gamma2.2") if linearised else draw_response(rng),
        NoiseModel(noise.photon / count, noise.read / count**0.5),
        quality,
        bool(rng.random() < 0.5),
    )


# --- real brackets --------------------------------------------------------------------------------


class SeriesExposures:
    """Pairs of frames of real brackets, put in line (`triplets.read_series` with ``aligned``).

    Patches are cut where the two frames agree, so that nothing moved there. Raises `InputError` where no
    two frames are `LEAST` to `WIDEST` stops apart.
    """

    def __init__(self, brackets: Sequence[Series]) -> None:
        self.brackets = list(brackets)
        self.pairs = [
            (series, first, second)
            for series in self.brackets
            for first, stops in enumerate(_stops(series))
            for second, others in enumerate(_stops(series))
            if LEAST <= others - stops <= WIDEST
        ]
        if not self.pairs:
            raise InputError(
                f"{len(self.brackets)} brackets: no two frames are {LEAST:g} to {WIDEST:g} stops apart; "
                "name brackets of at least two exposures"
            )

    def describe(self) -> str:
        return f"{len(self.pairs)} pairs of frames of {len(self.brackets)} real brackets, where nothing moved"

    def draw(self, rng: np.random.Generator, size: int) -> Exposures:
        """Draw two frames of a patch; raise `InputError` where nothing stands still."""
        for _ in range(TRIES):
            series, *both = self.pairs[int(rng.integers(len(self.pairs)))]
            height, width = series.codes[0].shape[:2]
            window = round(size / log_uniform(rng, ZOOM[0], 1.0))
            window = min(window, height, width)
            if window < size:
                continue
            y, x = (int(rng.integers(length - window + 1)) for length in (height, width))
            codes = [series.codes[frame][y : y + window, x : x + window] for frame in both]
            codes = [cv2.resize(code, (size, size), interpolation=cv2.INTER_AREA) for code in codes]
            short, long = (_stops(series)[frame] for frame in both)
            if agree(codes[0], codes[1], long - short):
                eight = np.rint(np.stack(codes) * np.float32(255)) / np.float32(255)
                return turned(Exposures(eight.astype(np.float32), (short, long)), rng)
        raise InputError(
            f"{len(self.brackets)} brackets: no patch of {size} px in {TRIES} tries where two frames agree; "
            "leave out those in which all moves, or are smaller"
        )


def _stops(series: Series) -> list[float]:
    return [math.log2(exposure) for exposure in series.exposures]


def agree(short: Float, long: Float, stops: float) -> bool:
    """Tell whether two photographs (h, w, 3), gamma codes, show the same, wherever both show anything."""
    expected = rematched(short, 2.0**stops)
    told = (np.minimum(short, long) > 0.05).all(axis=-1) & (np.maximum(expected, long) < 0.95).all(axis=-1)
    strays = told & (np.abs(expected - long) > AGREES).any(axis=-1)
    return bool(told.mean() >= TOLD and strays.sum() <= STRAYS * told.sum())


class MixedExposures:
    """Pairs of several sources, each with its share of them."""

    def __init__(self, sources: Sequence[tuple[ExposureSource, float]]) -> None:
        self.sources = [source for source, _ in sources]
        weights = np.array([share for _, share in sources], np.float64)
        self.shares: Matrix = weights / weights.sum()

    def describe(self) -> str:
        return " and ".join(
            f"{100 * share:.0f} % {source.describe()}"
            for source, share in zip(self.sources, self.shares.tolist(), strict=True)
        )

    def draw(self, rng: np.random.Generator, size: int) -> Exposures:
        return self.sources[int(rng.choice(len(self.sources), p=self.shares))].draw(rng, size)


# --- the same, seen otherwise ---------------------------------------------------------------------


def turned(exposures: Exposures, rng: np.random.Generator) -> Exposures:
    """Return photographs mirrored half of the time, some turned, some with another order of colours."""
    codes = exposures.codes
    if rng.random() < PERMUTED:
        codes = codes[..., rng.permutation(3)]
    if rng.random() < TURNED:
        codes = np.rot90(codes, int(rng.integers(1, 4)), (1, 2))
    if rng.random() < 0.5:
        codes = codes[:, :, ::-1]
    return Exposures(np.ascontiguousarray(codes), exposures.stops)
