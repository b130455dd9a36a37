"""Scenes -> plans of brackets: what is drawn at random, before any camera takes a picture.

    a scene, a view of it -> movers -> exposures -> shake -> camera -> `Plan`

What the training has to know about the world is on this page: how far objects move, how noisy frames
are, how far exposures lie apart, what response curves cameras have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset import BRIGHTEST, read_scene
from ..errors import InputError
from ..exposure import Float, Response
from ..scene import OVERSAMPLE, Mover, perspective_view, resized, soft_blob
from ..simulate import Camera, Shake, plan_shots, random_response
from .camera import Plan

SIZE = (320, 448)  # (H, W) of a training bracket
VALIDATION = (
    "blue_grotto",
    "greenwich_park_02",
    "ilm_desk",
    "peppermint_powerplant",
    "potsdamer_platz",
    "shanghai_bund",
    "vestibule",
    "vignaioli_night",
)
"""Scenes set aside: never trained on, all decisions are made on them."""

CAP = BRIGHTEST  # radiance beyond this (suns) poisons gradients and is clipped by every frame anyway


def scene_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the HDR scenes (*.exr, *.hdr) of a folder: those to train on, and those set aside.

    `VALIDATION` are set aside, and every tenth where none of these is there. Raises `InputError` for
    fewer than two scenes.
    """
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".exr", ".hdr"))
    if len(files) < 2:
        found = f"only {files[0].name}" if files else "no HDR scenes (*.exr, *.hdr)"
        raise InputError(f"{folder}: {found} there; name a folder of two linear HDR scenes or more")
    aside = [path for path in files if path.stem in VALIDATION]
    if not aside or len(aside) == len(files):
        aside = files[::10]
    return [path for path in files if path not in aside], aside


def load_scenes(folder: Path, validation: bool = False) -> list[Float]:
    """Read the scenes of a folder that are to be trained on, or those set aside.

    Each (h, w, 3) float32, linear Rec. 709, positive.
    """
    return [read_scene(path) for path in scene_files(folder)[validation]]


def draw_plan(scenes: Sequence[Float], rng: np.random.Generator, size: tuple[int, int] = SIZE) -> Plan:
    """Draw everything about one bracket of frames of ``size`` (H, W)."""
    view = draw_view(scenes[int(rng.integers(len(scenes)))], rng)
    frames = int(rng.choice([2, 3, 4, 5, 6, 7, 9], p=[0.14, 0.36, 0.16, 0.18, 0.05, 0.07, 0.04]))
    widest = min(4.0, 12.0 / (frames - 1))
    step = float(rng.uniform(0.7, widest))
    steps = [step * float(rng.uniform(0.6, 1.4)) if rng.random() < 0.2 else step for _ in range(frames - 1)]
    middle = (frames - 1) // 2
    reference = middle if rng.random() < 0.6 else int(rng.integers(frames))
    raw = rng.random() < 0.12
    camera = Camera(
        full_well=float(np.exp(rng.uniform(np.log(15_000), np.log(90_000)))),
        read_noise=float(rng.uniform(2.0, 8.0)),
        response=Response.named("linear") if raw else draw_response(rng),
        bits=14 if raw else 8,
    )
    iso = float(np.exp(rng.uniform(np.log(100), np.log(6400))))
    shots = plan_shots(size, frames, steps, reference, camera, iso)
    shake = Shake(rotation=0.4, shift=8.0, perspective=2e-6) if rng.random() < 0.4 else Shake()
    count = int(rng.choice([0, 1, 2, 3, 4], p=[0.04, 0.24, 0.32, 0.24, 0.16]))
    times = [shot.exposure_time or 0.0 for shot in shots]
    movers = [
        draw_mover(scenes[int(rng.integers(len(scenes)))], view, rng, size, times, reference)
        for _ in range(count)
    ]
    return Plan(
        scene=view,
        size=size,
        shots=shots,
        reference=reference,
        homographies=shake.homographies(frames, reference, size, rng),
        movers=tuple(movers),
        saturated_share=float(np.exp(rng.uniform(np.log(0.02), np.log(0.25)))),
        camera=camera,
        iso=iso,
        jpeg_quality=None if raw or rng.random() < 0.1 else int(rng.integers(70, 101)),
        subsampled=bool(rng.random() < 0.3),
    )


def draw_view(scene: Float, rng: np.random.Generator) -> Float:
    """Return what stands before the camera: a perspective view, or a sharp crop of the middle rows.

    Mirrored half of the time, and in the light of another lamp: gains of up to 2 between the channels,
    since a sensor's own colours are not Rec. 709 either.
    """
    height, width = scene.shape[:2]
    if width == 2 * height and rng.random() < 0.35:
        yaw, pitch = float(rng.uniform(0, 360)), float(rng.uniform(-15, 15))
        view = perspective_view(scene, (640, 896), yaw=yaw, pitch=pitch, fov=float(rng.uniform(50, 100)))
    else:
        top, bottom = (int(height * 0.18), int(height * 0.82)) if width == 2 * height else (0, height)
        rows = int(rng.uniform(0.6, 1.0) * min(bottom - top, width / 1.4))
        columns = int(rows * 1.4)
        y, x = int(rng.integers(top, bottom - rows + 1)), int(rng.integers(width - columns + 1))
        view = scene[y : y + rows, x : x + columns]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    gains = np.exp2(rng.uniform(-0.5, 0.5, 3)) if rng.random() < 0.5 else np.ones(3)
    return np.ascontiguousarray(view * gains.astype(np.float32))


def draw_mover(
    scene: Float,
    background: Float,
    rng: np.random.Generator,
    size: tuple[int, int],
    times: Sequence[float],
    reference: int,
) -> Mover:
    """Cut an object out of a scene and send it through a frame of ``size``, by up to 100 px a frame.

    It is as bright as the background, give or take three stops; so it may be clipped, too. One in four
    sways to and fro like a branch; the others go straight with a pixel of jitter.
    """
    diameter = float(np.exp(rng.uniform(np.log(0.07), np.log(0.4)))) * min(size)
    samples = max(round(diameter * OVERSAMPLE), 8)
    window = max(int(min(scene.shape[:2]) * rng.uniform(0.1, 0.45)), 4)
    top, left = (int(rng.integers(length - window + 1)) for length in scene.shape[:2])
    radiance = resized(scene[top : top + window, left : left + window], (samples, samples))
    level = float(np.median(background)) / max(float(np.median(radiance)), 1e-6)
    radiance = np.minimum(radiance * np.float32(level * 2.0 ** rng.uniform(-3, 3)), CAP)
    step = float(np.exp(rng.uniform(np.log(1.5), np.log(100.0))))  # [px] from frame to frame
    angle = float(rng.uniform(0, 2 * math.pi))
    way = step * np.array([math.cos(angle), math.sin(angle)])
    duration = np.asarray(times)
    period = duration[reference] + 0.1  # [s] from one frame to the next, where exposures are short
    starts = np.concatenate([[0.0], np.cumsum(duration + 0.1)[:-1]])
    middle = (starts + duration / 2) / period
    jitter = rng.normal(0.0, 1.0, (len(times), 2))
    start = rng.uniform(0.05, 0.95, 2) * (size[1], size[0])
    if rng.random() < 0.25:
        phases = rng.uniform(-1.0, 1.0, len(times))
        centre = start + (phases - phases[reference])[:, None] * way + jitter
    else:
        limited = np.clip(middle - middle[reference], -4.0, 4.0)  # long exposures would send it far away
        centre = start + limited[:, None] * way + jitter
    path: NDArray[np.float64] = np.minimum(duration / period, 1.0)[:, None] * way
    softness = float(rng.uniform(0.01, 0.08))
    return Mover(radiance, soft_blob(samples, rng, softness), centre, path)


def draw_response(rng: np.random.Generator) -> Response:
    """Return a response curve: sRGB for half of the cameras, a power law, or a smooth one of its own."""
    kind = rng.random()
    if kind < 0.5:
        return Response.named("srgb")
    return Response.named("gamma2.2") if kind < 0.65 else random_response(rng)
