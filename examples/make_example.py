"""Render the example bracket: a loggia above the sea, with a ball that rolls between the exposures.

    python examples/make_example.py [FOLDER] [--truth FILE.exr]

A small path tracer in numpy. Light is sampled towards the sun, the lamp and the arches; what else
arrives is gathered by two diffuse bounces. Points and directions are arrays (3, N), metres, x to the
right, y up, z out of the arches. Radiance is linear Rec. 709: about 5 in the sky, 0.005 to 1 indoors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


def vector(*xyz: float):
    return np.float32(xyz)[:, None]


MARGIN = 0.04  # rendered beyond each edge of the photograph for the shaking hand, relative to its size
CAMERA, FOCAL, HORIZON = vector(0.25, 1.5, -2.6), 0.80, 0.40  # [m]; / width; / height, from the top
WALL, DEPTH = 5.0, 0.42  # the wall with the arches: z of its inner face, and its thickness [m]
SPACING, HALF, SILL, SPRING = 2.0, 0.76, 0.55, 1.95  # three arches: distance, half width, lowest, centre [m]
SUN, SUN_RADIUS = vector(-0.35, 0.63, 0.695), 0.006  # direction; [rad]
SUN_LIGHT = vector(46.0, 38.0, 27.0)  # irradiance / 1 across the beam
LAMP, LAMP_RADIUS, LAMP_LIGHT = vector(-2.2, 1.72, 3.05), 0.042, vector(900.0, 480.0, 170.0)
AMBIENT = vector(0.012, 0.010, 0.008)  # what arrives after the last bounce
PRIMES = np.float32([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37])


def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(a):
    return a / np.sqrt(dot(a, a))


def mix(a, b, weight):
    return a + (b - a) * weight


def step(low: float, high: float, x):
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _noise_tile(size: int = 1024):
    """Sum six octaves of value noise to a tile (size, size) around 0.5 that repeats seamlessly."""
    rng, total = np.random.default_rng(7), np.zeros((size, size), np.float32)
    for octave in range(6):
        scale = size // (8 << octave)
        lattice = np.pad(rng.random((size // scale,) * 2, dtype=np.float32), 2, mode="wrap")
        octave_tile = cv2.resize(lattice, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += (octave_tile[2 * scale : -2 * scale, 2 * scale : -2 * scale] - 0.5) * 0.5**octave
    return 0.5 + total * (0.16 / total.std())


NOISE = _noise_tile()


def noise(u, v):
    """Look up the noise tile, about 0 to 1; one unit of u or v holds eight of its largest blobs."""
    x, y = ((at * 1024).astype(np.int32) & 1023 for at in (u, v))
    return NOISE[y, x]


# What things are made of: points (3, N) -> albedo (3, N)


def plaster(p):
    u, v = p[0] + p[2], p[1]
    tone = 0.8 + 0.35 * (noise(u * 0.13, v * 0.13) - 0.5) + 0.35 * (noise(u * 0.7, v * 0.7 + 0.3) - 0.5)
    tone = tone * np.where(np.abs(v - 0.95) < 0.012, 0.4, 1)
    return np.where(v < 0.95, vector(0.62, 0.36, 0.26), vector(0.86, 0.76, 0.60)) * tone


def tiles(p):
    """Cream and terracotta tiles on the diagonal, worn, with grout; and a rug."""
    u, v = (p[0] + p[2]) * 1.7, (p[0] - p[2]) * 1.7
    i, j = np.floor(u), np.floor(v)
    tint = 0.8 + 0.3 * np.mod(np.sin(i * 12.9898 + j * 78.233) * 43.7585, 1)
    tint = tint + 0.5 * (noise(p[0] * 0.3, p[2] * 0.3) - 0.5) + 0.3 * (noise(p[0] * 1.3, p[2] * 1.3) - 0.5)
    tile = np.where((i + j) % 2 == 0, vector(0.66, 0.57, 0.44), vector(0.42, 0.17, 0.09)) * tint
    grout = np.minimum(0.5 - np.abs(u - i - 0.5), 0.5 - np.abs(v - j - 0.5)) < 0.018
    tile = np.where(grout, vector(0.2, 0.17, 0.14), tile)
    x, z = np.abs(p[0] - 0.9), np.abs(p[2] - 1.35)
    rim = np.maximum(x - 1.15, z - 0.75)
    figure = (np.floor(3.2 * (x + z)) + np.floor(3.2 * (x - z))) % 3
    dyes = np.float32([[0.40, 0.035, 0.03], [0.03, 0.06, 0.17], [0.55, 0.34, 0.13], [0.30, 0.02, 0.02]]).T
    dye = np.where(rim < -0.14, figure, np.where((rim > -0.11) & (rim < -0.05), 2, 3)).astype(int)
    return np.where(rim < 0, dyes[:, dye] * (0.6 + 0.8 * noise(p[0] * 3, p[2] * 3)), tile)


def wood(p):
    grain = noise(p[0] * 0.7 + p[2] * 0.05, p[1] * 0.7 + p[2] * 0.03)
    rings = 0.5 + 0.5 * np.sin(50 * grain + 20 * p[0])
    return mix(vector(0.17, 0.075, 0.03), vector(0.40, 0.21, 0.10), rings * 0.5 + grain * 0.4)


def painting(p):
    """A seascape in oil, framed, on the left wall."""
    y, z = p[1], p[2]
    sky = mix(vector(0.75, 0.45, 0.18), vector(0.12, 0.22, 0.42), step(1.6, 2.1, y + 0.4 * noise(z * 0.3, y)))
    sea = mix(vector(0.05, 0.12, 0.16), vector(0.6, 0.4, 0.2), step(0.5, 0.75, noise(z * 0.2, y * 1.5)))
    canvas = np.maximum(np.abs(z - 4.1) - 0.36, np.abs(y - 1.75) - 0.27) < 0
    return np.where(canvas, np.where(y > 1.7, sky, sea), vector(0.55, 0.36, 0.12))


def paint(*rgb: float) -> Callable:
    return lambda p: vector(*rgb) * (0.85 + 0.3 * noise(p[0] + p[2], p[1] * 0.5 + p[2] * 0.5))


def stripes(center) -> Callable:
    """Return the panels of a beach ball that has rolled along x to ``center``."""

    def panels(p):
        x, y, z = p - center
        turn = center[0] / center[1]
        x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
        y, z = 0.8 * y - 0.6 * z, 0.6 * y + 0.8 * z
        panel = (np.arctan2(x, y) * (3 / np.pi) + 3).astype(int) % 6
        panel = np.where(np.abs(z) > 0.93 * center[1], 0, panel)
        dyes = np.float32([[0.85, 0.82, 0.75], [0.75, 0.04, 0.03], [0.85, 0.82, 0.75], [0.9, 0.55, 0.04],
                           [0.85, 0.82, 0.75], [0.03, 0.17, 0.55]])  # fmt: skip
        return dyes.T[:, panel]

    return panels


# Shapes: hit() returns the distance along each ray, inf where it misses; normal() points outwards


@dataclass(kw_only=True)
class Shape:
    albedo: Callable
    gloss: float = 0.0  # reflectance at normal incidence; 1 is a mirror
    glass: bool = False
    light: float = 0.0


@dataclass(kw_only=True)
class Box(Shape):
    low: np.ndarray
    high: np.ndarray

    def span(self, origin, inverse):
        a, b = (self.low - origin) * inverse, (self.high - origin) * inverse
        return np.minimum(a, b).max(axis=0), np.maximum(a, b).min(axis=0)

    def hit(self, origin, direction, inverse):
        near, far = self.span(origin, inverse)
        return np.where((near < far) & (near > 0), near, np.float32(np.inf))

    def normal(self, p):
        relative = (p - (self.low + self.high) / 2) / (self.high - self.low)
        axis = np.abs(relative).argmax(axis=0)
        return np.where(np.arange(3)[:, None] == axis, np.sign(relative), np.float32(0))


@dataclass(kw_only=True)
class Sphere(Shape):
    center: np.ndarray
    radius: float
    dome: bool = False  # keep the upper half alone

    def hit(self, origin, direction, inverse):
        to = self.center - origin
        middle = dot(to, direction)
        square = middle * middle - dot(to, to) + np.float32(self.radius**2)
        half = np.sqrt(np.maximum(square, 0))
        hit = np.full_like(middle, np.inf)
        for t in (middle + half, middle - half):
            keep = (square > 0) & (t > 1e-4)
            hit = np.where(keep & (t * direction[1] > to[1]) if self.dome else keep, t, hit)
        return hit

    def normal(self, p):
        return (p - self.center) / np.float32(self.radius)


def arch_of(x):
    """Return x relative to the middle of the nearest of the three arches."""
    return x - SPACING * np.clip(np.rint(x / SPACING), -1, 1)


def is_open(x, y):
    x, up = arch_of(x), np.maximum(y - SPRING, 0)
    return (x * x + up * up < HALF**2) & (y > SILL)


class ArchWall(Shape):
    def hit(self, origin, direction, inverse):
        a, b = (WALL - origin[2]) * inverse[2], (WALL + DEPTH - origin[2]) * inverse[2]
        near, far = np.minimum(a, b), np.maximum(a, b)
        x, y = (origin + direction * np.maximum(near, 0))[:2]
        through, (dx, dy) = is_open(x, y), direction[:2]
        x = arch_of(x)
        side = (np.copysign(HALF, dx) - x) * inverse[0]
        side = np.minimum(side, np.where(dy < 0, (SILL - y) * inverse[1], np.float32(np.inf)))
        across, along = dx * dx + dy * dy, x * dx + (y - SPRING) * dy
        root = along * along - across * (x * x + (y - SPRING) ** 2 - HALF**2)
        vault = (np.sqrt(np.maximum(root, 0)) - along) / np.maximum(across, 1e-9)
        reveal = np.maximum(near, 0) + np.where(y + dy * side > SPRING, vault, side)
        hit = np.where(through, np.where(reveal < far, reveal, np.inf), np.where(near > 0, near, np.inf))
        return np.where(far > 0, hit, np.inf).astype(np.float32)

    def normal(self, p):
        x, up = arch_of(p[0]), p[1] - SPRING
        zero, sill = np.zeros_like(x), (p[1] < SILL + 1e-3).astype(np.float32)
        side = np.stack([-np.sign(x) * (1 - sill), sill, zero])
        vault = np.stack([-x, -up, zero]) / HALF
        return np.where(p[2] < WALL + 1e-3, vector(0, 0, -1), np.where(up > 0, vault, side))


def box(albedo: Callable, low, high, **kind) -> Box:
    return Box(albedo=albedo, low=vector(*low), high=vector(*high), **kind)


def ball(albedo: Callable, center, radius: float, **kind) -> Sphere:
    return Sphere(albedo=albedo, center=vector(*center), radius=radius, **kind)


def furnish(ball_position) -> list:
    """Return the room as groups of shapes; each group but the first is skipped by rays that miss it."""
    rng = np.random.default_rng(5)
    walls = [ArchWall(albedo=plaster), box(tiles, (-9, -1, -9), (9, 0, 9), gloss=0.035),
             box(wood, (-9, 3.3, -9), (9, 4, 9)), box(plaster, (-9, 0, -4), (9, 4, -3)),
             box(plaster, (-9, 0, -9), (-3, 4, 9)), box(plaster, (3, 0, -9), (9, 4, 9))]  # fmt: skip
    beams = [box(wood, (x - 0.08, 3.08, -3), (x + 0.08, 3.3, WALL)) for x in np.linspace(-2.7, 2.7, 7)]
    table = [box(wood, (-2.85, 0.70, 2.5), (-1.65, 0.75, 3.6), gloss=0.04)]
    table += [box(wood, (x, 0, z), (x + 0.07, 0.70, z + 0.07)) for x in (-2.8, -1.77) for z in (2.55, 3.48)]
    table += [ball(paint(0.95, 0.93, 0.88), (-1.98, 0.88, 2.85), 0.13, gloss=1.0),
              ball(paint(0.55, 0.03, 0.02), (-2.32, 0.86, 2.75), 0.11, gloss=0.05),
              ball(paint(1, 1, 1), (-1.92, 0.87, 3.25), 0.12, glass=True),
              ball(paint(0.80, 0.36, 0.04), (-2.12, 0.80, 2.62), 0.05),
              ball(paint(0.80, 0.42, 0.05), (-2.20, 0.80, 2.58), 0.05),
              box(paint(0.05, 0.16, 0.22), (-2.72, 0.75, 3.00), (-2.38, 0.80, 3.45)),
              box(paint(0.45, 0.09, 0.06), (-2.70, 0.80, 3.03), (-2.42, 0.84, 3.42)),
              box(paint(0.62, 0.50, 0.30), (-2.68, 0.84, 3.02), (-2.40, 0.875, 3.38))]  # fmt: skip
    x, y, z = LAMP[:, 0]
    lamp = [Sphere(albedo=paint(1, 1, 1), center=LAMP, radius=LAMP_RADIUS, light=1.0),
            Sphere(albedo=paint(0.10, 0.20, 0.16), center=LAMP, radius=0.2, dome=True),
            box(paint(0.03, 0.03, 0.03), (x - 0.006, y + 0.19, z - 0.006), (x + 0.006, 3.3, z + 0.006))]  # fmt: skip
    picture = [box(painting, (-3, 1.42, 3.68), (-2.96, 2.08, 4.52))]
    shelf = [box(wood, (2.62, h, 2.5), (3, h + 0.035, 4.3)) for h in (0.08, 0.52, 0.96, 1.40, 1.84)]
    shelf += [box(wood, (2.62, 0, z), (3, 1.875, z + 0.04)) for z in (2.46, 4.3)]
    for h in (0.115, 0.555, 0.995, 1.435):
        z = 2.52
        while (z := z + rng.uniform(0.003, 0.012)) < 4.2:
            thick, deep, tall = rng.uniform(0.025, 0.075), rng.uniform(0.02, 0.1), rng.uniform(0.22, 0.35)
            dye = rng.uniform(0.02, 0.12) + np.eye(3)[rng.choice(3, p=[0.6, 0.15, 0.25])] * rng.uniform(0.05, 0.4)
            if rng.random() < 0.85:
                dye = dye + [0, dye[0] * rng.uniform(0, 0.7), 0]
                shelf.append(box(paint(*dye), (2.65 + deep, h, z), (3, h + tall, z + thick)))
            z += thick
    groups = [walls, beams, table, lamp, picture, shelf]
    return groups if ball_position is None else [*groups, [ball(stripes(vector(*ball_position)), ball_position, ball_position[1], gloss=0.04)]]


class Scene:
    def __init__(self, groups: list):
        self.shapes = [shape for group in groups for shape in group]
        self.groups = []
        for group in groups:
            low = [s.center - s.radius if isinstance(s, Sphere) else getattr(s, "low", -vector(9, 9, 9)) for s in group]
            high = [s.center + s.radius if isinstance(s, Sphere) else getattr(s, "high", vector(9, 9, 9)) for s in group]
            bounds = box(plaster, np.min(low, axis=0)[:, 0], np.max(high, axis=0)[:, 0])
            self.groups.append((bounds, group))

    def nearest(self, origin, direction, solid: bool = False):
        """Return distance (N,) and index of the shape (N,), -1 where the ray leaves by an arch.

        ``solid`` rays look for shadow alone: they pass glass and the lamp itself.
        """
        inverse = 1 / np.where(np.abs(direction) < 1e-7, np.float32(1e-7), direction)
        distance, who = np.full(origin.shape[1], np.inf, np.float32), np.full(origin.shape[1], -1)
        index = 0
        for bounds, group in self.groups:
            rays = slice(None)
            if index:
                near, far = bounds.span(origin, inverse)
                rays = np.flatnonzero((near < np.minimum(far, distance)) & (far > 0))
            if index == 0 or rays.size:
                o, d, i, best, found = origin[:, rays], direction[:, rays], inverse[:, rays], distance[rays], who[rays]
                for k, shape in enumerate(group, index):
                    if not (solid and (shape.glass or shape.light)):
                        t = shape.hit(o, d, i)
                        closer = t < best
                        best, found = np.where(closer, t, best), np.where(closer, k, found)
                distance[rays], who[rays] = best, found
            index += len(group)
        return distance, who


# The world outside


def sky(d):
    """Return the landscape in directions (3, N): clouds, hills, the sea, cypresses."""
    around, up = np.arctan2(d[0], d[2]), d[1]
    height = np.maximum(up, 0)
    blue = mix(vector(5.2, 5.6, 6.0), vector(0.9, 2.0, 4.6), step(0.0, 0.55, height) ** 0.6)
    glow = np.exp((dot(d, SUN) - 1) * 6)
    blue = blue + vector(5, 4, 2.4) * glow
    u, v = d[0] / (height + 0.14), d[2] / (height + 0.14)
    thick = noise(u * 0.045 + 0.3, v * 0.03 + 0.1)
    cloud = step(0.50, 0.72, thick)
    shade = step(-0.06, 0.10, thick - noise(u * 0.045 + 0.3 - 0.006, v * 0.03 + 0.1 + 0.004) + 0.02)
    return mix(blue, mix(vector(6.5, 6.8, 7.6), vector(14, 13, 11.5), 1 - shade * 0.7), cloud * step(0.01, 0.12, height))
