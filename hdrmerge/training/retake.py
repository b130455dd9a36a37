"""A user's brackets, labelled -> their scenes -> new photographs of them, by their camera: `Example` files.

    triplet -> its merge, and its label -> scene -> plan -> photographs -> example

Without a truth nothing can be learned from a bracket; but what it shows is a scene like any other, and of
photographs that are taken of that scene anew, everything is known. Half of them are taken by the user's
camera: its exposures, its response curve, its noise as measured in the pictures, its JPEG files. The other
half are by cameras drawn at random (`scenes.py`), so that a network does not forget what others need.

The scene is the fused label where that is exact, and elsewhere the classical merge of the triplet: a label
that is the reference itself is as noisy as it, and as clipped. A ghost that stays in the merge is a part of
the scene, as every new photograph shows it alike.

The captured frames are not an example themselves, with their label as truth. Such a label is a sum of the
frames with fixed weights, or the reference alone: noise and all. To be like it, a network has to distrust
what it could use, and to leave the noise where it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..align import align
from ..bracket import Bracket
from ..calibrate import calibrate, with_response
from ..dataset import BRIGHTEST, DARKEST
from ..deghost import deghost, tolerance
from ..errors import InputError
from ..exposure import Float, NoiseModel, Response
from ..merge import merge
from ..proxy import shrink
from ..simulate import Camera, Shake, Simulated, add_noise, plan_shots
from ..write import unwritable
from .camera import Plan, compressed, take_all
from .examples import Example, example_of, make_example
from .label_sets import LabelSet, Taken
from .make import SQUARE, parts_of
from .pseudo_labels import REFERENCE
from .reexposure import CLIPPED, decode
from .scenes import SIZE, draw_mover, draw_plan, draw_view

OWN = 0.5  # share of the brackets that are taken by the user's camera
HELD = 0.6  # share of those that are hand-held
CLIP, CLIP_SHORTEST = (0.02, 0.25), (0.002, 0.05)  # share that the reference clips, a shorter frame or none
ENOUGH = 0.75  # of a scene's side: how large a new photograph is at most

BLOCK = 8  # [px] side of the blocks that noise is measured in
FLAT, FLAT_NOISE = 0.2, 0.727
"""Which quantile of the blocks is taken for flat, and its variance for white noise of variance 1."""
FEWEST = 40  # blocks that tell the noise of a tone
TONES = 2.0 ** np.arange(-9.0, 0.0, 0.5)  # edges between tones, linear
LEAST_NOISE = 1 / 16  # of what the program believes
ROUNDS, MOST_LOST = 5, 16  # of asking how much JPEG took away, and the largest factor
LEAST_ROWS = 4  # tones of any channel that tell a line
RAMP = np.tile(np.geomspace(0.002, 0.9, 1024, dtype=np.float32)[None, :, None], (128, 1, 3))
MEASURED = 24  # triplets, at most, that the noise is measured in

SRGB = Response.named("srgb")


@dataclass(frozen=True)
class Retake:
    """A `make.Job`: new photographs of what the brackets of a label set show, of all or of those named.

    ``labels`` is its folder; ``whole`` photographs are to be judged by, and of other brackets.
    """

    labels: Path
    folder: Path
    whole: bool = False
    seed: int = 0
    size: tuple[int, int] = SIZE  # (H, W) of a frame; less where a label is small
    square: int = SQUARE  # [px]
    names: tuple[str, ...] | None = None

    @property
    def source(self) -> Path:
        return self.labels

    def origin(self) -> dict[str, Any]:
        labelled = sorted(LabelSet(self.labels, self.names).brackets)
        return {"labelled": labelled, "seed": self.seed, "size": list(self.size)}

    def load(self) -> Scenes:
        return Scenes(LabelSet(self.labels, self.names), self.square)

    def examples(self, loaded: Scenes, number: int) -> list[Example]:
        rng = np.random.default_rng([number, 17 if self.whole else 13, self.seed])
        size = loaded.largest(self.size)
        own = rng.random() < OWN
        index = int(rng.integers(len(loaded)))
        plan = draw_own_plan(loaded, index, rng, size) if own else draw_plan(loaded, rng, size)
        sim = take_all([plan], int(rng.integers(2**31)))[0].simulated()
        example = read_as_files(sim, loaded.believed(index)) if own else make_example(sim, rng)
        return parts_of(example, rng, self.whole, self.square)


# --- scenes ---------------------------------------------------------------------------------------


class Scenes(Sequence[Float]):
    """What the triplets of a label set show, (H, W, 3) each, and the camera that took them.

    A scene is made when asked for, and kept beside its label as half floats; those too small are left out.
    """

    def __init__(self, labels: LabelSet, square: int = SQUARE) -> None:
        self.labels = labels
        shapes = [labels.triplets[n].records().shape for n in range(len(labels.triplets))]
        self.numbers = [n for n, shape in enumerate(shapes) if min(shape) >= square]
        if not self.numbers:
            raise InputError(
                f"{labels.folder}: none of its {len(shapes)} triplets is {square} px high and wide; "
                "take larger photographs"
            )
        self.shapes = [(shapes[n][0], shapes[n][1]) for n in self.numbers]
        self.square = square
        self.excess = measured_excess([self._own(n) for n in self.numbers[:MEASURED]])
        self._read = lru_cache(maxsize=16)(self._scene)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Float: ...
    @overload
    def __getitem__(self, index: slice) -> list[Float]: ...
    def __getitem__(self, index: int | slice) -> Float | list[Float]:
        if isinstance(index, slice):
            return [self._read(n) for n in self.numbers[index]]
        return self._read(self.numbers[index])

    def largest(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return ``size`` (H, W), or what of it the smallest scene is large enough for."""
        limits = [min(shape[side] for shape in self.shapes) for side in (0, 1)]
        sides = [
            min(wanted, max(int(limit * ENOUGH) // 32 * 32, self.square))
            for wanted, limit in zip(size, limits, strict=True)
        ]
        return sides[0], sides[1]

    def taken(self, index: int) -> Taken:
        return self.labels.taken(self.numbers[index])

    def believed(self, index: int) -> NoiseModel:
        """Return what the program believes of the noise of such a bracket, of its reference."""
        taken = self.taken(index)
        return taken.noise[taken.reference]

    def _own(self, number: int) -> tuple[Float, NoiseModel, Taken]:
        """Return the linear reference (H, W, 3) of a triplet, what is believed of its noise, and the rest."""
        stored = self.labels.triplets[number]
        codes = stored.records()["codes"][:, :, REFERENCE]
        code = codes * np.float32(1 / np.iinfo(codes.dtype).max)
        return decode(code), stored.noise[REFERENCE], self.labels.taken(number)

    def _scene(self, number: int) -> Float:
        path = self.labels.triplets[number].path.with_suffix(".scene.npy")
        try:
            kept: Float = np.load(path, allow_pickle=False).astype(np.float32)
            return kept
        except (OSError, ValueError, EOFError):
            pass
        scene = scene_of(self.labels, number, self.excess)
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                np.save(file, scene.astype(np.float16))
            part.replace(path)
        except OSError as error:
            raise unwritable(path, error) from error
        return scene.astype(np.float16).astype(np.float32)


def scene_of(labels: LabelSet, number: int, excess: Excess) -> Float:
    """Return what a triplet shows (H, W, 3): its label where that is fused and exact, else its merge."""
    captured = labels.bracket(number)
    frames = tuple(replace(frame, noise=excess.of(frame.noise)) for frame in captured.frames)
    bracket = Bracket(frames, captured.reference)
    proxies = [shrink(frame) for frame in frames]
    alignments = align(proxies, bracket.reference)
    exposures = [frame.exposure for frame in frames]
    noises = [tolerance(frame) for frame in frames]
    ghosts = deghost(proxies, exposures, noises, alignments, bracket.reference)
    merged, _ = merge(bracket, alignments, ghosts)
    static = labels.static(number)
    merged[static] = labels.label(number)[0][static]
    if merged.shape[1] == 2 * merged.shape[0]:
        merged = merged[:, 1:]  # or it would be taken for a panorama
    return np.asarray(np.clip(merged, DARKEST, BRIGHTEST), np.float32)


# --- noise ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Excess:
    """How many times as large the variances of a camera's noise are as the program believes."""

    photon: float
    read: float

    def of(self, believed: NoiseModel) -> NoiseModel:
        return NoiseModel(believed.photon * self.photon, believed.read * self.read**0.5)


def measured_excess(references: Sequence[tuple[Float, NoiseModel, Taken]]) -> Excess:
    """Measure the noise of a camera in pictures (H, W, 3), linear, beside what is believed of each.

    The median over pictures: noise at a given ISO is the camera's, whatever the ISO. None of the
    pictures has to be flat, but some parts of most.
    """
    ratios = []
    for linear, believed, taken in references:
        noise = measure_noise(linear, taken)
        if noise is not None:
            ratios.append((noise.photon / believed.photon, (noise.read / believed.read) ** 2))
    photon, read = np.median(ratios, axis=0) if ratios else (1.0, 1.0)
    return Excess(max(float(photon), LEAST_NOISE), max(float(read), LEAST_NOISE))


def measure_noise(linear: Float, taken: Taken) -> NoiseModel | None:
    """Measure the noise of a sensor in a picture (H, W, 3), linear; None where too few tones have flat parts.

    JPEG takes some noise away: a grey ramp is photographed, and measured, with more and more noise until as
    much is left of it.
    """
    rows = noise_by_tone(linear)
    if len(rows) < LEAST_ROWS:
        return None
    mean, left = rows.T
    needed, quality = left, _quality_of(taken)
    for _ in range(0 if quality is None else ROUNDS):
        noise = _line(mean, needed)
        photon = max(noise.photon, 1e-9)
        noisy = add_noise(RAMP, NoiseModel(photon, noise.read), np.random.default_rng(0))
        found = noise_by_tone(_through_a_file(noisy, taken.curve, quality or 100))
        if len(found) < LEAST_ROWS:
            break
        found = found[np.argsort(found[:, 0])]
        now = np.exp(np.interp(np.log(mean), np.log(found[:, 0]), np.log(found[:, 1])))
        needed = np.minimum(needed * np.clip(left / now, 0.5, 2.0), MOST_LOST * left)
    return _line(mean, needed)


def noise_by_tone(linear: Float) -> NDArray[np.float64]:
    """Return rows (R, 2) of tones of a picture (H, W, 3), linear: their mean, and the variance of the noise.

    In the flattest fifth of the blocks of each tone, what the difference of two Laplacians leaves is noise
    (Immerkaer, "Fast noise variance estimation", 1996).
    """
    taps = np.array([1.0, -2.0, 1.0])
    height, width = (side // BLOCK for side in linear.shape[:2])
    linear = linear[: height * BLOCK, : width * BLOCK]
    rough = np.square(cv2.sepFilter2D(linear, -1, taps, taps)) / np.float32(36)
    size = (width, height)
    variance = cv2.resize(rough, size, interpolation=cv2.INTER_AREA)
    mean = cv2.resize(linear, size, interpolation=cv2.INTER_AREA)
    clipped = (linear >= decode(np.float32(CLIPPED))).any(axis=-1).astype(np.float32)
    unclipped = cv2.dilate(cv2.resize(clipped, size, interpolation=cv2.INTER_AREA), np.ones((3, 3))) == 0
    rows = []
    for channel in range(3):
        tone = np.digitize(mean[..., channel], TONES)
        for k in range(1, len(TONES)):
            at = (tone == k) & unclipped
            flat = float(np.quantile(variance[..., channel][at], FLAT)) if at.sum() >= FEWEST else 0.0
            if flat > 0:
                rows.append((float(mean[..., channel][at].mean()), flat / FLAT_NOISE))
    return np.array(rows, np.float64).reshape(-1, 2)


def _through_a_file(linear: Float, curve: Response, quality: int) -> Float:
    """Return what is left of a linear picture (H, W, 3) in a JPEG file."""
    codes = Camera(response=curve).encode(linear)
    planes = torch.from_numpy(np.ascontiguousarray(np.moveaxis(codes, -1, 0)[None]))
    left = np.moveaxis(compressed(planes, [quality], False)[0].numpy(), 0, -1)
    return curve.decode(np.ascontiguousarray(left))


def _line(mean: NDArray[np.float64], variance: NDArray[np.float64]) -> NoiseModel:
    """Fit variance = photon * mean + read^2 (R,), by relative errors."""
    terms = np.stack([mean / variance, 1 / variance], axis=1)
    photon, square = np.linalg.lstsq(terms, np.ones(len(mean)), rcond=None)[0]
    if photon <= 0 or square <= 0:  # one term alone
        alone = [float(t.sum() / np.square(t).sum()) for t in terms.T]
        photon, square = (alone[0], 0.0) if square <= 0 else (0.0, alone[1])
    return NoiseModel(float(photon), float(square) ** 0.5)


# --- photographs ----------------------------------------------------------------------------------


def draw_own_plan(scenes: Scenes, index: int, rng: np.random.Generator, size: tuple[int, int]) -> Plan:
    """Draw a bracket of a scene by the camera that took it, and by its exposures.

    Those of the whole series, or of the triplet. The curve is the one that was found, not the gamma in
    which labels are kept: how well a curve can be found again, and what rounding and JPEG do, depends on it.
    """
    taken, stored = scenes.taken(index), scenes.labels.triplets[scenes.numbers[index]]
    ratios, reference = list(taken.exposures), taken.reference
    if len(ratios) != 3 and rng.random() < 0.5:
        ratios = [ratio for k, ratio in enumerate(stored.exposures) if k == REFERENCE or ratio != 1.0]
        reference = ratios.index(1.0)
    noise = scenes.excess.of(scenes.believed(index))
    linear = taken.curve.is_linear
    camera = Camera(
        full_well=1 / noise.photon,
        read_noise=noise.read / noise.photon,
        response=taken.curve,
        bits=14 if linear else 8,
    )
    steps = [float(step) for step in np.diff(np.log2(ratios))]
    shots = plan_shots(size, len(ratios), steps, reference, camera)
    shake = Shake(rotation=0.4, shift=8.0, perspective=2e-6) if rng.random() < HELD else Shake()
    view = draw_view(scenes[index], rng)
    others = [k for k in range(len(scenes)) if k != index] or [index]
    times = [shot.exposure_time or 0.0 for shot in shots]
    movers = [
        draw_mover(scenes[int(rng.choice(others))], view, rng, size, times, reference)
        for _ in range(int(rng.integers(1, 5)))
    ]
    return Plan(
        scene=view,
        size=size,
        shots=shots,
        reference=reference,
        homographies=shake.homographies(len(ratios), reference, size, rng),
        movers=tuple(movers),
        saturated_share=float(np.exp(rng.uniform(*np.log(CLIP if reference else CLIP_SHORTEST)))),
        camera=camera,
        jpeg_quality=_quality_of(taken),
        subsampled=bool(rng.random() < 0.5),
    )


def _quality_of(taken: Taken) -> int | None:
    """Return the quality of the JPEG files, as far as it shows; None for block averages."""
    if taken.curve.is_linear or taken.block > 1 or taken.quality is None:
        return None
    return max(taken.quality, 70)


def read_as_files(sim: Simulated, believed: NoiseModel) -> Example | None:
    """Send a bracket through the stages before the merge as if it came from files.

    As `examples.make_example`, but its curve is always to be found, and its noise taken to be what is
    ``believed`` of the user's files. None where only one frame is left.
    """
    bracket, developed = sim.bracket(), sim.camera.bits == 8
    if developed:
        as_srgb = tuple(with_response(frame, SRGB) for frame in bracket.frames)
        bracket = Bracket(as_srgb, bracket.reference)
    proxies = [shrink(frame) for frame in bracket.frames]
    alignments = align(proxies, bracket.reference)
    found = calibrate(bracket, proxies, alignments, "auto" if developed else "srgb")
    return example_of(sim, found, believed)
