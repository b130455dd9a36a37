"""HDR scenes -> HDR clips -> the frames of a camera that alternates its exposures.

    scene -> view, path of the camera, moving objects -> `ClipPlan` -> `film` -> file
    files -> frames, patch -> how bright -> `Filmed` -> `photographed`

A clip is radiance, so that one file gives frames of any exposures, and their truth. Rendering one takes a
third of a second, cutting a patch out of one 5 ms: clips are made once, 3.5 MB each, and frames, patch,
direction of time, colours, brightness, exposures and noise are drawn anew every time.

The camera turns about its lens, so that what stands still moves by homographies, and parallax is that of
objects: flat ones, each with a smooth path of its own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..exposure import Array, Float
from ..painter import GAMMA
from ..scene import OVERSAMPLE, Matrix, Mover, _Canvas, look, perspective_view, resized, soft_blob
from ..write import unwritable
from .exposures import log_uniform
from .scenes import CAP, load_scenes

FRAMES = 7  # of a clip: what three exposures and the refining network need
SIZE = (288, 288)  # (H, W) of its frames [px]
CYCLES: dict[int, tuple[tuple[float, ...], ...]] = {
    2: ((1.0, 4.0), (1.0, 8.0)),
    3: ((1.0, 4.0, 16.0),),
}
"""Number of exposures -> cycles of them, relative to the shortest, that are equally likely; the paper's."""

FIELD, PITCH = (60.0, 100.0), 20.0  # [degrees] of a view: across; of its middle, at most
ROOM = 1.5  # times as large as a frame a view is rendered, for a camera that moves
HELD, PANNED = 0.45, 0.4  # of the clips: the camera is held by a hand, or follows something; else it stands
LINED = 0.6  # of the clips of a folder: the camera's motion is undone, as before a network sees frames
SHIFT = {"lined": (0.02, 0.3), "held": (0.2, 3.0), "panned": (2.0, 16.0)}  # [px] a frame, log-uniform
JITTER = {"lined": (0.05, 0.7), "held": (0.2, 1.5), "panned": (0.1, 1.5)}  # [px] beside a smooth path
ROLL, TWIST = 0.15, 0.02  # [degrees] of roll from frame to frame, at most, and for each px of jitter
BEND = 0.15  # share of the speed by which it changes from frame to frame, standard deviation
OBJECTS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.2, 0.16, 0.12)  # how likely are 0, 1, 2, ... of them in a square
SPEED = (0.7, 28.0)  # [px] of an object from frame to frame, log-uniform
DIAMETER = (0.12, 0.9)  # of the frame's shorter side, log-uniform
SPIN, GROWTH = 4.0, 0.03  # [degrees] and share of the size from frame to frame, standard deviations
WOBBLE = (0.005, 0.05)  # of the diameter, how far limbs swing, log-uniform; half of the objects have some
SHUTTER = 0.5  # of the time between two frames it is open, at most

CONSECUTIVE = 0.7  # of the samples are frames one after the other; from the others some are left out
LIGHTS = (0.97, 0.999)  # quantile of a frame that the shortest exposure just records
CLIPPED = (0.05, 0.35)  # share of a frame that the longest exposure clips
LONGEST_CLIPPED, MOST_LOST = (0.02, 0.6), 0.1  # share that the longest clips, within; the shortest at most
BLANK = 0.7  # share of a patch that no exposure records, from which another one is looked for
TRIES = 4
METERED = 6  # [px] from one pixel to the next of those that brightness is told from

Tell = Callable[[int, int], None]
"""Called with the number of clips made and of those wanted."""


# --- a clip ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ClipPlan:
    """Everything that is drawn at random about a clip, as `scene.look` takes it.

    ``homographies`` take pixels of the standing ``scene``, filmed by a camera at rest, to those of each
    frame; ``movers`` have their centres there.
    """

    scene: Float
    size: tuple[int, int]
    homographies: tuple[Matrix, ...]
    movers: tuple[Mover, ...]


def film(plan: ClipPlan) -> Float:
    """Return the radiance that each frame sees, (N, H, W, 3): the truth about it."""
    return np.stack(look(plan.scene, plan.size, plan.homographies, plan.movers)[0])


def draw_clip(
    scenes: Sequence[Float],
    rng: np.random.Generator,
    size: tuple[int, int] = SIZE,
    frames: int = FRAMES,
    before: int | None = None,
    lined: float = 0.0,
) -> ClipPlan:
    """Draw a clip of ``frames`` of ``size`` (H, W) before one of the scenes, number ``before`` if stated.

    ``lined`` is the share of clips whose frames somebody has brought into line already, as well as one can.
    """
    across = float(rng.uniform(*FIELD))
    view = draw_view(scenes[int(rng.integers(len(scenes)) if before is None else before)], rng, size, across)
    focal = size[1] / 2 / math.tan(math.radians(across) / 2)
    count = round(int(rng.choice(len(OBJECTS), p=OBJECTS)) * max(size) / min(size))
    movers = [
        draw_mover(scenes[int(rng.integers(len(scenes)))], view, rng, size, frames) for _ in range(count)
    ]
    return ClipPlan(view, size, draw_camera(rng, size, frames, focal, lined), tuple(movers))


def draw_view(scene: Float, rng: np.random.Generator, size: tuple[int, int], field: float) -> Float:
    """Return what stands before the camera, `ROOM` times a frame.

    A view of a panorama ``field`` [degrees] wide, or a crop of a photograph; half of the time mirrored, and
    half of the time under another lamp.
    """
    height, width = scene.shape[:2]
    wanted = round(size[0] * ROOM), round(size[1] * ROOM)
    if width == 2 * height:
        yaw, pitch = float(rng.uniform(0, 360)), float(rng.uniform(-PITCH, PITCH))
        view = perspective_view(scene, wanted, yaw, pitch, field)
    else:
        zoom = min(height / wanted[0], width / wanted[1]) * float(rng.uniform(0.5, 1.0))
        rows, columns = (max(int(length * zoom), 8) for length in wanted)
        y, x = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
        view = scene[y : y + rows, x : x + columns]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    gains = np.exp2(rng.uniform(-0.5, 0.5, 3)) if rng.random() < 0.5 else np.ones(3)
    return np.ascontiguousarray(view * gains.astype(np.float32))


def draw_camera(
    rng: np.random.Generator, size: tuple[int, int], frames: int, focal: float, lined: float = 0.0
) -> tuple[Matrix, ...]:
    """Draw how the camera turns, a homography a frame: the middle of the clip looks ahead.

    It stands still, is held by a hand, or follows something. ``focal`` is the focal length [px], ``lined``
    the share of clips in which little of that is left.
    """
    kind = float(rng.random())
    if rng.random() < lined:
        manner = "lined"
    elif kind < HELD + PANNED:
        manner = "held" if kind < HELD else "panned"
    else:
        return (np.eye(3),) * frames
    way = direction(rng, log_uniform(rng, *SHIFT[manner]), flat=0.4)
    jitter = log_uniform(rng, *JITTER[manner])
    shifts = path(rng, way, frames) + rng.normal(0.0, jitter, (frames, 2))
    rolls = rng.normal(0.0, TWIST * jitter, frames)
    if manner != "lined":
        rolls += float(rng.uniform(-ROLL, ROLL)) * time_of(frames)
    return tuple(
        turned(size, focal, float(yaw), float(pitch), math.radians(roll))
        for (yaw, pitch), roll in zip(np.arctan(shifts / focal), rolls.tolist(), strict=True)
    )


def turned(size: tuple[int, int], focal: float, yaw: float, pitch: float, roll: float) -> Matrix:
    """Return the homography of a camera that turns right, down and clockwise [radians] about its lens.

    From pixels before to pixels after, of frames of ``size`` (H, W): K R K^-1, whatever the distance.
    """
    inner = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]])
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(angle), math.sin(angle)) for angle in (yaw, pitch, roll))
    right = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    down = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    round_ = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    matrix = inner @ round_ @ down @ right @ np.linalg.inv(inner)
    return np.asarray(matrix / matrix[2, 2], np.float64)


def draw_mover(
    scene: Float, background: Float, rng: np.random.Generator, size: tuple[int, int], frames: int
) -> Living:
    """Cut an object out of a scene and send it through the clip; three stops brighter or darker at most.

    In the middle of the clip it is in the picture. One in four sways to and fro, the others go by.
    """
    samples = max(round(log_uniform(rng, *DIAMETER) * min(size) * OVERSAMPLE), 8)
    window = max(int(min(scene.shape[:2]) * rng.uniform(0.1, 0.45)), 4)
    top, left = (int(rng.integers(length - window + 1)) for length in scene.shape[:2])
    radiance = resized(scene[top : top + window, left : left + window], (samples, samples))
    level = float(np.median(background)) / max(float(np.median(radiance)), 1e-6)
    radiance = np.minimum(radiance * np.float32(level * 2.0 ** rng.uniform(-3, 3)), np.float32(CAP))
    way = direction(rng, log_uniform(rng, *SPEED))
    if rng.random() < 0.25:
        waves, phase = rng.uniform(0.08, 0.2), rng.uniform(0, 2 * math.pi)  # to and fro each frame
        angle = 2 * math.pi * waves * time_of(frames) + phase
        along = (np.sin(angle) - math.sin(phase)) / (2 * math.pi * waves)
        centre, speed = along[:, None] * way, np.cos(angle)[:, None] * way
    else:
        centre = path(rng, way, frames)
        speed = np.gradient(centre, axis=0)
    start = rng.uniform(0.05, 0.95, 2) * (size[1], size[0])
    alpha = soft_blob(samples, rng, float(rng.uniform(0.01, 0.08)))
    blur = speed * float(rng.uniform(0.0, SHUTTER))
    time = time_of(frames)
    turn = math.radians(float(rng.normal(0.0, SPIN))) * time + float(rng.uniform(0, 2 * math.pi))
    growth = np.exp(float(rng.normal(0.0, GROWTH)) * time)
    swing = log_uniform(rng, *WOBBLE) if rng.random() < 0.5 else 0.0
    rhythm = float(rng.uniform(0.3, 1.2)) * time + float(rng.uniform(0, 2 * math.pi))
    return Living(radiance, alpha, start + centre, blur, turn, growth / growth.max(), swing, rhythm)


@dataclass(frozen=True, eq=False)
class Living(Mover):
    """An object that turns, comes nearer and swings its limbs, too: nothing that shifts alone would undo.

    In each frame it is turned by ``turn`` [radians] and has ``growth``, at most 1, times its size; waves at
    the phase ``rhythm`` [radians] move parts of it by as much as ``swing`` times its size.
    """

    turn: Matrix
    growth: Matrix
    swing: float
    rhythm: Matrix

    def layer(self, frame: int, canvas: _Canvas) -> tuple[Float, Float, tuple[slice, slice]]:
        """Return what `Mover.layer` does, of the object as it is in this frame."""
        length = self.alpha.shape[0]
        y, x = ((np.mgrid[:length, :length] + 0.5) / length - 0.5).astype(np.float32)
        cos, sin = (np.float32(f(self.turn[frame]) / self.growth[frame]) for f in (np.cos, np.sin))
        x, y = cos * x + sin * y, cos * y - sin * x
        wave = np.float32(2 * math.pi * 1.3)
        phase = np.float32(self.rhythm[frame])
        x, y = (
            one + np.float32(self.swing) * np.sin(wave * other + phase) for one, other in ((x, y), (y, x))
        )
        x, y = (np.asarray((side + 0.5) * length - 0.5, np.float32) for side in (x, y))
        radiance = cv2.remap(self.radiance, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        alpha = cv2.remap(self.alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return Mover(radiance, alpha, self.centre, self.path).layer(frame, canvas)


def time_of(frames: int) -> Matrix:
    """Return the times of frames, 0 in the middle."""
    return np.asarray(np.arange(frames) - (frames - 1) / 2, np.float64)


def direction(rng: np.random.Generator, length: float, flat: float = 1.0) -> Matrix:
    """Draw a way of a length [px]; ``flat`` is the ratio of what goes down to what goes across."""
    angle = float(rng.uniform(0, 2 * math.pi))
    way = np.array([math.cos(angle), flat * math.sin(angle)])
    return np.asarray(way * (length / max(float(np.hypot(*way)), 1e-6)), np.float64)


def path(rng: np.random.Generator, way: Matrix, frames: int) -> Matrix:
    """Return where something is that goes a ``way`` from frame to frame, (N, 2), and bends as it goes."""
    time = time_of(frames)[:, None]
    bend = rng.normal(0.0, BEND, 2) * float(np.hypot(*way))
    return np.asarray(time * way + time**2 / 2 * bend, np.float64)


# --- files ----------------------------------------------------------------------------------------


def make_clips(
    scenes: Path,
    folder: Path,
    number: int,
    *,
    validation: bool = False,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    workers: int = 1,
    tell: Tell | None = None,
) -> None:
    """Film the scenes of a folder that are to be trained on, or those set aside, into files not yet there.

    A file, ``000123.npy``, follows from its number and the ``seed``: radiance (7, 3, H, W) as half floats.
    """
    wanted = [folder / f"{index:06d}.npy" for index in range(number)]
    missing = [index for index, path in enumerate(wanted) if not path.exists()]
    if not missing:
        return
    loaded = load_scenes(scenes, validation)

    def make(index: int) -> None:
        rng = np.random.default_rng([index, 5 if validation else 4, seed])
        clip = np.moveaxis(film(draw_clip(loaded, rng, size, lined=LINED)), -1, 1)
        _write(wanted[index], np.minimum(clip, np.float32(6e4)).astype(np.float16))

    with ThreadPoolExecutor(workers) as pool:
        for done, _ in enumerate(pool.map(make, missing), number - len(missing) + 1):
            if tell:
                tell(done, number)


def _write(path: Path, clip: Array) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.save(file, clip)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


@dataclass(frozen=True, eq=False)
class Filmed:
    """Frames and their truth: ``radiance`` (N, 3, p, p), half floats, 1.0 where the shortest exposure clips.

    ``exposures``, one a frame, are relative to the shortest of the video.
    """

    radiance: Array
    exposures: tuple[float, ...]


class Clips:
    """The clips of a folder, to draw samples from. Raises `InputError` where there are none, or others.

    ``count`` is that of the exposures that alternate, ``cycles`` are such exposures.
    """

    def __init__(
        self, folder: Path, count: int, cycles: Sequence[Sequence[float]] | None = None, scenes: str = ""
    ) -> None:
        self.files = sorted(folder.glob("*.npy"))
        self.cycles = [tuple(float(time) for time in cycle) for cycle in cycles or CYCLES.get(count, ())]
        self.scenes = scenes
        if not self.files:
            raise InputError(f"{folder}: no clips (*.npy) there; make some first")
        if not self.cycles or any(len(cycle) != count for cycle in self.cycles):
            raise InputError(f"{folder}: {count} exposures need cycles of as many; state them")
        self.count = count
        self._load(0)

    def describe(self) -> str:
        times = " and ".join("/".join(f"{time:g}" for time in cycle) for cycle in self.cycles)
        return (
            f"{len(self.files)} clips of {FRAMES} frames{f' of {self.scenes}' if self.scenes else ''}, by a "
            f"turning camera, with objects that move; exposures {times} in turn"
        )

    def draw(self, rng: np.random.Generator, frames: int, size: int, index: int | None = None) -> Filmed:
        """Draw ``frames`` of a patch of ``size`` [px]: any stretch of time, forwards or backwards, turned.

        ``index`` names a sample instead: its clip, and the exposure of its middle frame.
        """
        clip = self._load(int(rng.integers(len(self.files))) if index is None else index % len(self.files))
        cycle = self.cycles[int(rng.integers(len(self.cycles)))]
        phase = int(rng.integers(self.count)) if index is None else index - frames // 2
        exposures = tuple(cycle[(phase + frame) % self.count] for frame in range(frames))
        chosen = draw_frames(rng, len(clip), frames)
        size = min(size, *clip.shape[2:])
        metered = clip[chosen[frames // 2], :, ::METERED, ::METERED].astype(np.float32).max(axis=0)
        scale = brightness(metered, cycle[-1], rng)
        for _ in range(TRIES):
            y, x = (int(rng.integers(length - size + 1)) for length in clip.shape[2:])
            patch = clip[chosen, :, y : y + size, x : x + size]
            if (patch[frames // 2, :, ::4, ::4].min(axis=0) * np.float32(scale) >= 1).mean() < BLANK:
                break
        colours, turns, mirrored = rng.permutation(3), int(rng.integers(4)), bool(rng.integers(2))
        patch = np.rot90(patch[:, colours], turns, (2, 3))
        patch = patch[..., ::-1] if mirrored else patch
        light = np.minimum(patch.astype(np.float32) * np.float32(scale), np.float32(6e4))
        return Filmed(np.ascontiguousarray(light, np.float16), exposures)

    def held_out(self, number: int, frames: int, size: int, seed: int = 0) -> list[Filmed]:
        """Return samples to take scores on, the same for a seed; each exposure is the reference's in turn."""
        return [
            self.draw(np.random.default_rng([seed, index]), frames, size, index) for index in range(number)
        ]

    def _load(self, index: int) -> Array:
        path = self.files[index]
        try:
            clip: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: is damaged, or no clip; delete it, it is made again") from error
        if clip.ndim != 4 or clip.shape[0] < 3 or clip.shape[1] != 3 or clip.dtype != np.float16:
            raise InputError(f"{path}: holds {clip.dtype} {clip.shape}, no clip; delete it, it is made again")
        return np.asarray(clip) if not isinstance(clip, np.memmap) else clip


def draw_frames(rng: np.random.Generator, there: int, wanted: int) -> list[int]:
    """Draw which frames are shown, forwards or backwards. Raises `InputError` where there are fewer."""
    if wanted > there:
        raise InputError(f"{wanted} frames are wanted of clips of {there}; make longer ones")
    if rng.random() < CONSECUTIVE:
        first = int(rng.integers(there - wanted + 1))
        chosen = list(range(first, first + wanted))
    else:
        chosen = sorted(rng.permutation(there)[:wanted].tolist())
    return chosen[::-1] if rng.random() < 0.5 else chosen


def brightness(metered: Float, longest: float, rng: np.random.Generator) -> float:
    """Draw the factor on radiance that says what the exposures of a clip record.

    ``metered`` are pixels of a frame by their brightest channel. Half of the time a quantile of them, as in
    the paper, is where the shortest exposure clips, half of the time a share is what the ``longest`` one
    does; within what a camera would choose.
    """

    def clipping(share: float, exposure: float) -> float:
        return 1 / (exposure * max(float(np.quantile(metered, 1 - share)), 1e-9))

    if rng.random() < 0.5:
        wanted = clipping(1 - float(rng.uniform(*LIGHTS)), 1.0)
    else:
        wanted = clipping(float(rng.uniform(*CLIPPED)), longest)
    least, most = (clipping(share, longest) for share in LONGEST_CLIPPED)
    return min(max(wanted, least), most, clipping(MOST_LOST, 1.0))


# --- exposures ------------------------------------------------------------------------------------


def photographed(
    radiance: Tensor, exposures: Tensor, noise: Tensor, generator: torch.Generator, levels: int = 256
) -> Tensor:
    """Return gamma codes (B, N, 3, H, W) in [0, 1], rounded to ``levels``, of radiance of the same shape.

    ``exposures`` (B, N); ``noise`` (B, N) is its standard deviation in linear light, 1.0 = clipping.
    """
    linear = radiance.float() * exposures[..., None, None, None]
    drawn = torch.randn(linear.shape, generator=generator, device=linear.device)
    linear = (linear + drawn * noise[..., None, None, None]).clamp(0, 1)
    return (linear ** (1 / GAMMA) * (levels - 1)).round() / (levels - 1)
