"""What stands before the camera: radiance -> the radiance that each frame of a bracket sees.

    scene -> canvas -> moving objects -> lens and homography -> pixels

The scene becomes a *canvas*: linear radiance, larger than the frame by as much as the shaking camera
needs, with `OVERSAMPLE` x `OVERSAMPLE` samples a pixel. Objects are composited there. A frame sees the
canvas through a lens (a Gaussian of `LENS_BLUR`) and its homography, and each pixel takes the mean of
its samples, as a photosite does. All of that is linear in radiance, positive, and the same for every
frame, so that what the reference sees is the exact truth about it.

Homographies map pixels of the reference to pixels of the frame, with whole numbers at pixel centres:
``cv2.warpPerspective(frame, homography, size, flags=cv2.WARP_INVERSE_MAP)`` aligns the frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .bracket import Shot
from .exposure import Array, Float, Mask, smoothstep

Matrix = NDArray[np.float64]

OVERSAMPLE = 2
"""Canvas samples along each side of a pixel."""

LENS_BLUR = 0.4
"""Standard deviation of the lens blur [px]; it keeps detail finer than the canvas out of the frames."""


# --- scenes ---------------------------------------------------------------------------------------


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
    return resized(seen, size)


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


def _in_log(scene: Float, interpolate: Callable[[Float], Array]) -> Float:
    """Apply a cubic interpolation to the logarithm of a radiance.

    In linear light it would overshoot to negative values beside every lamp. The offset keeps noise
    in the dark from being interpolated by its ratio.
    """
    offset = np.float32(0.05 * np.median(scene) + 1e-6)
    return np.asarray(
        np.maximum(np.exp(interpolate(np.log(np.maximum(scene, 0) + offset))) - offset, 0), np.float32
    )


def resized(scene: Float, shape: tuple[int, int]) -> Float:
    size = shape[1], shape[0]
    if scene.shape[0] >= shape[0] and scene.shape[1] >= shape[1]:
        return np.asarray(cv2.resize(scene, size, interpolation=cv2.INTER_AREA))
    return _in_log(scene, lambda log: cv2.resize(log, size, interpolation=cv2.INTER_CUBIC))


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
    radiance = resized(scene[top : top + window, left : left + window], (samples, samples))
    speed, direction = rng.uniform(0.05, 0.5) * diameter / 0.1, rng.uniform(0, 2 * math.pi)
    velocity = speed * np.array([math.cos(direction), math.sin(direction)])  # [px/s]
    duration = np.array([shot.exposure_time or 0.0 for shot in shots])
    middle = np.array([_seconds(shots[0], shot) for shot in shots]) + duration / 2
    jitter = rng.normal(0.0, 1.0, (len(shots), 2))
    start = rng.uniform(0.1, 0.9, 2) * (size[1], size[0])
    centre = start + (middle - middle[reference])[:, None] * velocity + jitter
    return Mover(radiance, soft_blob(samples, rng), centre, duration[:, None] * velocity)


def _seconds(first: Shot, shot: Shot) -> float:
    return (shot.taken_at - first.taken_at).total_seconds() if shot.taken_at and first.taken_at else 0.0


# --- what the frames see --------------------------------------------------------------------------


def look(
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
        return resized(scene[top : top + rows, left : left + columns], self.shape)

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
