"""Radiance -> the photographs of an exposure bracket, with everything about them known.

    scene -> canvas -> moving objects -> what each frame sees -> exposure -> noise -> codes

The scene becomes a *canvas*: linear radiance, larger than the frame by as much as the shaking camera
needs, with `OVERSAMPLE` x `OVERSAMPLE` samples a pixel. Objects are composited there. A frame sees the
canvas through a lens (a Gaussian of `LENS_BLUR`) and its homography, and each pixel takes the mean of
its samples, as a photosite does. All of that is linear in radiance, positive, and the same for every
frame, so the truth is simply what the reference frame sees, before noise, clipping and rounding.

Homographies map pixels of the reference to pixels of the frame, with whole numbers at pixel centres:
``cv2.warpPerspective(frame, homography, size, flags=cv2.WARP_INVERSE_MAP)`` aligns the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from .bracket import Bracket, Frame, Shot
from .exposure import FULL_WELL, READ_NOISE, Array, Float, Mask, NoiseModel, Response, smoothstep

Matrix = NDArray[np.float64]

OVERSAMPLE = 2
"""Canvas samples along each side of a pixel."""

LENS_BLUR = 0.4
"""Standard deviation of the lens blur [px]; it keeps detail finer than the canvas out of the frames."""

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


# --- the scene ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Canvas:
    """Where the frames lie on the canvas: it starts ``left`` and ``top`` px before the reference."""

    size: tuple[int, int]  # (H, W) of a frame
    left: int
    top: int
    shape: tuple[int, int]  # (H, W) of the canvas [samples]

    @classmethod
    def around(cls, size: tuple[int, int], homographies: Sequence[Matrix]) -> _Canvas:
        """Return the smallest canvas that no frame looks past, lens blur included."""
        height, width = size
        corners = np.array([[[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]], np.float64)
        seen = np.concatenate([cv2.perspectiveTransform(corners, np.linalg.inv(h))[0] for h in homographies])
        (left, top), (right, bottom) = np.floor(seen.min(axis=0)) - 3, np.ceil(seen.max(axis=0)) + 3
        shape = int(bottom - top + 1) * OVERSAMPLE, int(right - left + 1) * OVERSAMPLE
        return cls(size, -int(left), -int(top), shape)

    def sample_of(self, pixel: tuple[float, float]) -> tuple[float, float]:
        """Return the canvas coordinates (x, y) of a reference pixel (x, y)."""
        x, y = pixel
        return (x + self.left + 0.5) * OVERSAMPLE - 0.5, (y + self.top + 0.5) * OVERSAMPLE - 0.5

    def fill(self, scene: Float) -> Float:
        """Return the middle of a scene at the size of the canvas."""
        height, width = scene.shape[:2]
        zoom = min(height / self.shape[0], width / self.shape[1])
        rows, columns = (max(round(length * zoom), 1) for length in self.shape)
        top, left = (height - rows) // 2, (width - columns) // 2
        return _resized(scene[top : top + rows, left : left + columns], self.shape)

    def photograph(self, canvas: Float, matrix: Matrix) -> Float:
        """Return the radiance (H, W, C) that the pixels of one frame see."""
        height, width = self.size
        half = (1 - OVERSAMPLE) / 2
        to_pixel = np.array([[1, 0, half], [0, 1, half], [0, 0, OVERSAMPLE]]) / OVERSAMPLE
        x, y = self.sample_of((0.0, 0.0))
        to_sample = np.array([[OVERSAMPLE, 0, x], [0, OVERSAMPLE, y], [0, 0, 1]])
        seen = cv2.warpPerspective(
            cv2.GaussianBlur(canvas, (0, 0), LENS_BLUR * OVERSAMPLE),
            to_sample @ np.linalg.inv(matrix) @ to_pixel,
            (width * OVERSAMPLE, height * OVERSAMPLE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA))


def _in_log(scene: Float, interpolate: Callable[[Float], Array]) -> Float:
    """Apply a cubic interpolation to the logarithm of a radiance.

    In linear light it would overshoot to negative values beside every lamp. The offset keeps noise
    in the dark from being interpolated by its ratio.
    """
    offset = np.float32(0.05 * np.median(scene) + 1e-6)
    return np.asarray(
        np.maximum(np.exp(interpolate(np.log(np.maximum(scene, 0) + offset))) - offset, 0), np.float32
    )


def _resized(scene: Float, shape: tuple[int, int]) -> Float:
    size = shape[1], shape[0]
    if scene.shape[0] >= shape[0] and scene.shape[1] >= shape[1]:
        return np.asarray(cv2.resize(scene, size, interpolation=cv2.INTER_AREA))
    return _in_log(scene, lambda log: cv2.resize(log, size, interpolation=cv2.INTER_CUBIC))


def perspective_view(
    panorama: Float, size: tuple[int, int], yaw: float = 0.0, pitch: float = 0.0, fov: float = 60.0
) -> Float:
    """Render what a camera inside an equirectangular panorama sees, (H, W, 3).

    ``yaw`` [degrees] turns right from the middle column, ``pitch`` up from the horizon, ``fov`` is
    horizontal. The first row is the zenith and pixels are square, so that a panorama cut below the
    horizon will do for views that stay above the cut; others raise ValueError.
    """
    (height, width), (rows, columns) = size, panorama.shape[:2]
    per_radian = columns / (2 * math.pi)
    focal = width / 2 / math.tan(math.radians(fov) / 2)  # [px]
    fine = max(math.ceil(per_radian / focal), 1)  # no panorama pixel is skipped
    x = ((np.arange(width * fine) + 0.5) / fine - width / 2) / focal
    y = ((np.arange(height * fine) + 0.5) / fine - height / 2) / focal
    right, down = np.meshgrid(x, y)
    cos, sin = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    up, ahead = sin - down * cos, cos + down * sin
    column = ((np.arctan2(right, ahead) + math.radians(yaw)) * per_radian + columns / 2) % columns - 0.5
    row = (math.pi / 2 - np.arctan2(up, np.hypot(right, ahead))) * per_radian - 0.5
    if row.max() > rows:
        raise ValueError(f"the view ends at row {row.max():.0f} of a panorama of {rows} rows; look higher")
    border = 4
    around = np.pad(panorama, ((0, 0), (border, border), (0, 0)), mode="wrap")
    where = (column + border).astype(np.float32), row.astype(np.float32)
    seen = _in_log(
        around, lambda log: cv2.remap(log, *where, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    )
    return _resized(seen, size)


def ramp_scene(
    height: int, width: int, rng: np.random.Generator, low: float = 0.02, high: float = 4.0
) -> Float:
    """Draw a synthetic scene (H, W, 3): a logarithmic ramp from left to right with colour and detail.

    Smooth texture and about a hundred discs and bars with sharp edges give an alignment something
    to hold on to. ``low`` and ``high`` are the smallest and the largest value.
    """
    ramp = np.linspace(math.log(low), math.log(high), width, dtype=np.float32)
    log = np.repeat(np.repeat(ramp[None, :, None], height, axis=0), 3, axis=2)
    for cell in (64, 16, 4):
        coarse = rng.normal(0.0, 0.2, (height // cell + 3, width // cell + 3, 3)).astype(np.float32)
        log += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    largest = max(min(height, width) // 12, 3)
    for _ in range(100):
        x, y = int(rng.integers(width)), int(rng.integers(height))
        a, b = (int(v) for v in rng.integers(2, largest + 1, 2))
        shape = np.zeros((2 * largest + 1, 2 * largest + 1), np.uint8)
        middle = (largest, largest)
        if rng.random() < 0.5:
            cv2.ellipse(shape, middle, (a, b), float(rng.uniform(0, 180)), 0, 360, 1, -1)
        else:
            cv2.rectangle(shape, (largest - a, largest - b), (largest + a, largest + b), 1, -1)
        step = rng.normal(0.0, 0.2, 3).astype(np.float32) + np.float32(rng.normal(0.0, 0.7))
        around = log[max(y - largest, 0) : y + largest + 1, max(x - largest, 0) : x + largest + 1]
        start = max(largest - y, 0), max(largest - x, 0)
        around += step * shape[start[0] :, start[1] :][: around.shape[0], : around.shape[1], None]
    relative = (log - log.min()) / (log.max() - log.min())
    return np.asarray(low * (high / low) ** relative, dtype=np.float32)


# --- moving objects -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Mover:
    """A flat object that moves in front of the scene.

    ``radiance`` (h, w, 3) and ``alpha`` (h, w) in [0, 1] have `OVERSAMPLE` samples a pixel.
    ``centre`` (N, 2) is its middle (x, y) in reference pixels at the middle of each exposure, ``path``
    (N, 2) [px] the way it moves while the shutter is open.
    """

    radiance: Float
    alpha: Float
    centre: Matrix
    path: Matrix

    def layer(self, frame: int, canvas: _Canvas) -> tuple[Float, Float, tuple[slice, slice]]:
        """Return premultiplied radiance and alpha, averaged over the exposure, and where they go.

        The mean over time of an object over a background is exact in premultiplied form (Porter
        and Duff 1984).
        """
        blur = self.path[frame] * OVERSAMPLE
        # One a pixel; beyond 64 a single step weighs too little to be seen.
        steps = min(max(math.ceil(float(np.hypot(*self.path[frame]))), 1), 64)
        height, width = self.alpha.shape
        border = int(np.ceil(np.abs(blur).max() / 2)) + 2
        x, y = canvas.sample_of((float(self.centre[frame, 0]), float(self.centre[frame, 1])))
        left, top = math.floor(x - width / 2) - border, math.floor(y - height / 2) - border
        size = width + 2 * border + 1, height + 2 * border + 1
        opaque = np.dstack([self.radiance * self.alpha[..., None], self.alpha])
        total = np.zeros((size[1], size[0], 4), np.float32)
        for step in range(steps):
            dx, dy = blur * ((step + 0.5) / steps - 0.5)
            start = x - (width - 1) / 2 - left + dx, y - (height - 1) / 2 - top + dy
            total += cv2.warpAffine(opaque, np.array([[1, 0, start[0]], [0, 1, start[1]]]), size)
        total /= steps
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = max(min(top + size[1], canvas.shape[0]), y0), max(min(left + size[0], canvas.shape[1]), x0)
        total = total[y0 - top : y1 - top, x0 - left : x1 - left]
        return total[..., :3], total[..., 3], (slice(y0, y1), slice(x0, x1))


def soft_blob(diameter: int, rng: np.random.Generator, softness: float = 0.04) -> Float:
    """Draw the alpha (d, d) of a random smooth shape; ``softness`` is its edge width over the diameter."""
    axis = (np.arange(diameter, dtype=np.float32) + 0.5) / diameter * 2 - 1
    x, y = np.meshgrid(axis, axis * np.float32(rng.uniform(1.0, 1.6)))
    angle, waves = np.arctan2(y, x), np.arange(2, 7)
    size, phase = rng.normal(0.0, 0.25, 5) / waves, rng.uniform(0, 2 * math.pi, 5)
    radius = 1 + sum(a * np.cos(k * angle + p) for a, k, p in zip(size, waves, phase, strict=True))
    edge = 2 * softness
    inside = (0.97 - edge) * radius / radius.max() - np.hypot(x, y)
    return smoothstep(-edge, edge, inside.astype(np.float32))


def random_mover(
    scene: Float, rng: np.random.Generator, size: tuple[int, int], shots: Sequence[Shot], reference: int
) -> Mover:
    """Cut a blob out of a scene and send it through a frame of ``size`` (H, W).

    It measures 8 to 30 % of the frame's shorter side and moves straight, by up to half its size in
    0.1 s, with a pixel of jitter. Its middle is in the frame when the reference is taken.
    """
    shorter = min(size)
    diameter = rng.uniform(0.08, 0.3) * shorter
    samples = max(round(diameter * OVERSAMPLE), 8)
    window = max(int(min(scene.shape[:2]) * rng.uniform(0.15, 0.5)), 2)
    top, left = (int(rng.integers(length - window + 1)) for length in scene.shape[:2])
    radiance = _resized(scene[top : top + window, left : left + window], (samples, samples))
    speed, direction = rng.uniform(0.05, 0.5) * diameter / 0.1, rng.uniform(0, 2 * math.pi)
    velocity = speed * np.array([math.cos(direction), math.sin(direction)])  # [px/s]
    duration = np.array([shot.exposure_time or 0.0 for shot in shots])
    middle = np.array([_seconds(shot) for shot in shots]) + duration / 2
    jitter = rng.normal(0.0, 1.0, (len(shots), 2))
    start = rng.uniform(0.1, 0.9, 2) * (size[1], size[0])
    centre = start + (middle - middle[reference])[:, None] * velocity + jitter
    return Mover(radiance, soft_blob(samples, rng), centre, duration[:, None] * velocity)


def _seconds(shot: Shot) -> float:
    return (shot.taken_at - FIRST_TAKEN_AT).total_seconds() if shot.taken_at else 0.0


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
    views, moving = _seen(scene, size, drawn, objects)
    scale = scale_for_saturation(views[reference], saturated_share)
    views = tuple(expose(view, scale) for view in views)
    codes = tuple(
        record(expose(view, ratio), camera, iso, rng)
        for view, ratio in zip(views, _over(shots, reference), strict=True)
    )
    saturated = camera.saturated(codes[reference])
    return Simulated(codes, shots, reference, views, drawn, moving, saturated, camera)


def _seen(
    scene: Float, size: tuple[int, int], homographies: Sequence[Matrix], movers: Sequence[Mover]
) -> tuple[tuple[Float, ...], Mask]:
    """Return the radiance each frame sees, and where in the reference an object ever was."""
    where = _Canvas.around(size, homographies)
    background = where.fill(scene)
    covered = np.zeros(where.shape, np.float32)
    views = []
    for index, matrix in enumerate(homographies):
        canvas = background.copy()
        for mover in movers:
            radiance, alpha, at = mover.layer(index, where)
            canvas[at] = radiance + (1 - alpha[..., None]) * canvas[at]
            covered[at] = np.maximum(covered[at], alpha > 0)
        views.append(where.photograph(canvas, matrix))
    touched = where.photograph(covered, np.eye(3)) > 0
    return tuple(views), cv2.dilate(touched.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


# --- files ----------------------------------------------------------------------------------------


def write_jpegs(sim: Simulated, folder: Path, quality: int = 95, prefix: str = "IMG_") -> list[Path]:
    """Write the frames of an 8-bit bracket as JPEG files 4:4:4 with the EXIF data of their shots."""
    return _write(sim, folder, prefix, ".jpg", {"quality": quality, "subsampling": 0})


def write_pngs(sim: Simulated, folder: Path, prefix: str = "IMG_") -> list[Path]:
    """Write the frames of an 8-bit bracket without loss, with the EXIF data of their shots."""
    return _write(sim, folder, prefix, ".png", {})


def _write(sim: Simulated, folder: Path, prefix: str, suffix: str, options: dict[str, Any]) -> list[Path]:
    from PIL import Image

    if sim.camera.bits != 8:
        raise ValueError(f"{suffix} files hold 8 bits, this camera records {sim.camera.bits}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (codes, shot) in enumerate(zip(sim.frames, sim.shots, strict=True), start=1):
        path = folder / f"{prefix}{number:04d}{suffix}"
        Image.fromarray(codes).save(path, exif=exif_of(shot), **options)
        paths.append(path)
    return paths


def exif_of(shot: Shot) -> Any:
    """Return the EXIF block (`PIL.Image.Exif`) that says what ``shot`` says."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import IFDRational

    def rational(value: float) -> IFDRational:
        exact = Fraction(value).limit_denominator(100_000)
        return IFDRational(exact.numerator, exact.denominator)

    exif = Image.Exif()
    exif[ExifTags.Base.Make] = shot.camera_make
    exif[ExifTags.Base.Model] = shot.camera_model
    exif[ExifTags.Base.Orientation] = shot.orientation
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if shot.exposure_time is not None:
        details[ExifTags.Base.ExposureTime] = rational(shot.exposure_time)
    if shot.f_number is not None:
        details[ExifTags.Base.FNumber] = rational(shot.f_number)
    if shot.iso is not None:
        details[ExifTags.Base.ISOSpeedRatings] = round(shot.iso)
    if shot.taken_at is not None:
        details[ExifTags.Base.DateTimeOriginal] = shot.taken_at.strftime("%Y:%m:%d %H:%M:%S")
        details[ExifTags.Base.SubsecTimeOriginal] = f"{shot.taken_at.microsecond // 1000:03d}"
    return exif
