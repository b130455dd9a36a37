"""Radiance -> the photographs of an exposure bracket, with everything about them known.

    what each frame sees (`scene.py`) -> exposure -> noise -> codes

The truth is simply what the reference frame sees, before noise, clipping and rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .bracket import Bracket, Frame, Shot
from .exposure import FULL_WELL, READ_NOISE, Array, Float, Mask, NoiseModel, Response, srgb_decode
from .scene import Matrix, Mover, look, random_mover

FIRST_TAKEN_AT = datetime(2024, 6, 1, 12, 0, 0)


# --- the camera: radiance -> codes ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Camera:
    """A camera whose sensor sees linear Rec. 709.

    ``full_well`` and ``read_noise`` are electrons at ISO 100. With 8 bits the file holds codes of
    ``response``; with 14 bits linear values between ``black_level`` and ``white_level`` in uint16.
    """

    full_well: float = FULL_WELL
    read_noise: float = READ_NOISE
    response: Response = field(default_factory=lambda: Response.named("srgb"))
    bits: Literal[8, 14] = 8
    black_level: int = 512
    white_level: int = 16383
    make: str = "hdrmerge"
    model: str = "Simulated"

    def noise(self, iso: float) -> NoiseModel:
        """Return the noise of the sensor at ``iso``; the gain divides the electrons at saturation."""
        gain = iso / 100.0
        return NoiseModel(photon=gain / self.full_well, read=self.read_noise * gain / self.full_well)

    def encode(self, linear: Float) -> Array:
        """Return the codes of a linear signal (..., 3), clipped at 1: uint8 or uint16."""
        if self.bits == 8:
            return np.asarray(np.rint(self.response.encode(linear) * 255.0), dtype=np.uint8)
        codes = np.rint(self.black_level + linear * (self.white_level - self.black_level))
        return np.asarray(np.clip(codes, 0, self.white_level), dtype=np.uint16)

    def decode(self, codes: Array) -> Float:
        """Return the linear signal of codes, float32, 1.0 at saturation; noise may make it negative."""
        if self.bits == 8:
            return self.response.decode(codes)
        above = codes.astype(np.float32) - self.black_level
        return np.asarray(above / (self.white_level - self.black_level), dtype=np.float32)

    def saturated(self, codes: Array) -> Mask:
        """Return (H, W), True where any channel of the codes (H, W, 3) is at its maximum."""
        return np.asarray((codes == (255 if self.bits == 8 else self.white_level)).any(axis=-1))


def expose(radiance: Float, scale: float) -> Float:
    """Return the linear signal of a radiance: 1.0 saturates, more is lost in `record`."""
    return np.asarray(radiance * np.float32(scale), dtype=np.float32)


def add_noise(linear: Float, noise: NoiseModel, rng: np.random.Generator) -> Float:
    """Return a linear signal with photon and read noise: a Poisson count, then a Gaussian.

    Source: Foi et al. 2008, see `NoiseModel`. The mean is kept; nothing is clipped but light so
    far above saturation that no noise brings it back.
    """
    electrons = rng.poisson(np.clip(linear, 0.0, 4.0) / noise.photon)
    read = rng.standard_normal(linear.shape, dtype=np.float32) * np.float32(noise.read)
    return np.asarray(electrons.astype(np.float32) * np.float32(noise.photon) + read, dtype=np.float32)


def record(linear: Float, camera: Camera, iso: float, rng: np.random.Generator) -> Array:
    """Return the codes (H, W, 3) a camera stores for a noise-free linear signal."""
    return camera.encode(add_noise(linear, camera.noise(iso), rng))


def scale_for_saturation(radiance: Float, share: float) -> float:
    """Return the factor that brings ``share`` (0..1) of the pixels to 1.0 or above in some channel."""
    return 1.0 / float(np.quantile(radiance.max(axis=-1), 1.0 - share))


# --- the shaking camera ---------------------------------------------------------------------------


def homography(
    size: tuple[int, int],
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    perspective: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """Return the 3x3 map from reference to frame pixels of a camera moved between the two.

    ``rotation`` [degrees, clockwise on screen] and ``scale`` act about the middle of the picture of
    ``size`` (H, W), then ``shift`` (x, y) [px]. ``perspective`` (x, y) is the relative change of size
    from the middle to the right and lower edge, as of a turned camera.
    """
    height, width = size
    cos, sin = scale * math.cos(math.radians(rotation)), scale * math.sin(math.radians(rotation))
    to_middle = np.array([[1, 0, -(width - 1) / 2], [0, 1, -(height - 1) / 2], [0, 0, 1]], np.float64)
    back = np.array([[1, 0, (width - 1) / 2 + shift[0]], [0, 1, (height - 1) / 2 + shift[1]], [0, 0, 1]])
    turned = np.array(
        [[cos, -sin, 0.0], [sin, cos, 0.0], [-2 * perspective[0] / width, -2 * perspective[1] / height, 1.0]]
    )
    moved = back @ turned @ to_middle
    return np.asarray(moved / moved[2, 2], dtype=np.float64)


@dataclass(frozen=True)
class Shake:
    """How far a hand-held camera moves between frames: standard deviations, see `homography`."""

    rotation: float = 0.0  # [degrees]
    shift: float = 0.0  # [px]
    scale: float = 0.0
    perspective: float = 0.0

    def homographies(
        self, count: int, reference: int, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Matrix, ...]:
        """Draw one homography a frame; the reference's is the identity."""
        drawn = []
        for _ in range(count):
            turn, x, y, zoom, across, down = rng.standard_normal(6)
            shift = (x * self.shift, y * self.shift)
            tilt = (across * self.perspective, down * self.perspective)
            drawn.append(homography(size, turn * self.rotation, shift, 1.0 + zoom * self.scale, tilt))
        drawn[reference] = np.eye(3)
        return tuple(drawn)


# --- the bracket ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Simulated:
    """A simulated bracket, shortest exposure first, and the truth about it.

    ``frames`` are codes (H, W, 3), uint8 or uint16. ``views`` are what each frame sees without noise
    and clipping, (H, W, 3) radiance, 1.0 where the reference saturates. ``moving`` (H, W) is True, in
    the reference's pixels, wherever an object was in any frame, 2 px around it included; everything
    else is the same in all frames. ``saturated`` (H, W): the reference is clipped in some channel.
    """

    frames: tuple[Array, ...]
    shots: tuple[Shot, ...]
    reference: int
    views: tuple[Float, ...]
    homographies: tuple[Matrix, ...]
    moving: Mask
    saturated: Mask
    camera: Camera

    @property
    def truth(self) -> Float:
        return self.views[self.reference]

    @property
    def exposure_times(self) -> tuple[float, ...]:
        return tuple(shot.exposure_time or 0.0 for shot in self.shots)

    @property
    def relative_exposures(self) -> tuple[float, ...]:
        """Exposures over the reference's."""
        return _over(self.shots, self.reference)

    def bracket(self) -> Bracket:
        """Return the same as the reader would, without a file in between."""
        camera, frames = self.camera, []
        for shot, codes in zip(self.shots, self.frames, strict=True):
            noise = camera.noise(shot.iso or 100.0)
            if camera.bits == 8:
                noise = noise.with_quantisation(camera.response, 256)
            linear_or_codes = codes if camera.bits == 8 else camera.decode(codes)
            frames.append(Frame(shot, linear_or_codes, camera.response, noise))
        return Bracket(tuple(frames), self.reference)


def _over(shots: Sequence[Shot], reference: int) -> tuple[float, ...]:
    exposures = [shot.exposure or math.nan for shot in shots]
    return tuple(exposure / exposures[reference] for exposure in exposures)


def plan_shots(
    size: tuple[int, int],
    frames: int,
    step_ev: float | Sequence[float],
    reference: int,
    camera: Camera,
    iso: float = 100.0,
    f_number: float = 8.0,
    time: float = 1 / 60,
    pause: float = 0.1,
) -> tuple[Shot, ...]:
    """Return the shots of a bracket around a reference of ``time`` [s], shortest first.

    ``step_ev`` [stops] is one step, or one for each of the frames - 1 gaps. ``pause`` [s] is the time
    between the end of an exposure and the start of the next.
    """
    steps = [float(step_ev)] * (frames - 1) if isinstance(step_ev, int | float) else list(step_ev)
    if len(steps) != frames - 1:
        raise ValueError(f"{frames} frames have {frames - 1} steps between them, not {len(steps)}")
    ev = np.concatenate([[0.0], np.cumsum(steps)])
    times = [time * 2.0 ** float(stops) for stops in ev - ev[reference]]
    starts = np.concatenate([[0.0], np.cumsum([t + pause for t in times])])
    return tuple(
        Shot(
            path=Path(f"simulated_{index + 1}"),
            width=size[1],
            height=size[0],
            exposure_time=times[index],
            iso=iso,
            f_number=f_number,
            taken_at=FIRST_TAKEN_AT + timedelta(milliseconds=round(starts[index] * 1000)),
            camera_make=camera.make,
            camera_model=camera.model,
            source="times",
        )
        for index in range(frames)
    )


def simulate_bracket(
    scene: Float,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (256, 384),
    frames: int = 3,
    step_ev: float | Sequence[float] = 2.0,
    reference: int | None = None,
    saturated_share: float = 0.05,
    shake: Shake | Sequence[Matrix] = Shake(),
    movers: Sequence[Float | Mover] = (),
    camera: Camera | None = None,
    iso: float = 100.0,
) -> Simulated:
    """Photograph a scene (h, w, 3), linear Rec. 709, as a bracket of ``frames`` of ``size`` (H, W).

    The middle of the scene fills the frames; it is best twice as large. ``reference`` defaults to
    the middle frame, the shorter of two. ``saturated_share`` of the reference's pixels clip.
    ``shake`` is drawn, or given as one homography a frame. From every scene in ``movers`` one object
    is cut out; `Mover` objects are taken as they are. The same ``rng`` state gives the same bracket.
    """
    camera = camera or Camera()
    reference = (frames - 1) // 2 if reference is None else reference
    shots = plan_shots(size, frames, step_ev, reference, camera, iso)
    drawn = shake.homographies(frames, reference, size, rng) if isinstance(shake, Shake) else tuple(shake)
    if len(drawn) != frames or not np.allclose(drawn[reference], np.eye(3)):
        raise ValueError(f"{frames} frames need as many homographies, the identity at index {reference}")
    objects = [m if isinstance(m, Mover) else random_mover(m, rng, size, shots, reference) for m in movers]
    views, moving = look(scene, size, drawn, objects)
    scale = scale_for_saturation(views[reference], saturated_share)
    views = tuple(expose(view, scale) for view in views)
    codes = tuple(
        record(expose(view, ratio), camera, iso, rng)
        for view, ratio in zip(views, _over(shots, reference), strict=True)
    )
    saturated = camera.saturated(codes[reference])
    return Simulated(codes, shots, reference, views, drawn, moving, saturated, camera)


# --- response curves that no camera is known to have ---------------------------------------------


def random_response(rng: np.random.Generator, contrast: float = 0.45, apart: float = 0.03) -> Response:
    """Draw a smooth, increasing response curve: sRGB's with its contrast changed from tone to tone.

    In the spirit of the curves collected by Grossberg and Nayar ("What is the space of camera response
    functions?", 2003): log2 of the light follows sRGB's times a factor between 1 - ``contrast`` and
    1 + ``contrast`` / 2 that varies slowly over the tones, and by ``apart`` between the channels.
    """
    stops = np.linspace(-12.0, 0.0, 97)  # below saturation

    def wave(waves: int) -> NDArray[np.float64]:
        phases, sizes = rng.uniform(0, 2 * math.pi, waves), rng.uniform(0.3, 1.0, waves)
        length = rng.uniform(5.0, 14.0, waves)  # [stops]
        total = sum(
            s * np.sin(2 * math.pi * stops / wide + p)
            for s, wide, p in zip(sizes, length, phases, strict=True)
        )
        return np.asarray(total / sizes.sum())

    common = contrast * (0.75 * wave(3) - 0.25)
    code = np.linspace(0.0, 1.0, 4097)
    level = np.log2(np.maximum(srgb_decode(code), 2.0**-12))
    columns = []
    for _ in range(3):
        slope = 1.0 + np.clip(common + apart * wave(2), -contrast, contrast / 2)
        curve = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2) * (stops[1] - stops[0])])
        light = 2.0 ** np.interp(level, stops, curve - curve[-1])
        light *= np.minimum(srgb_decode(code) * 2.0**12, 1.0)  # black is black
        columns.append(light)
    return Response("random", np.stack(columns, axis=1).astype(np.float32))
