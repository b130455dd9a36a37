"""Render the example bracket: a loggia above the sea, with a ball that rolls between the exposures.

    python examples/make_example.py [FOLDER] [--truth FILE.exr]

A small path tracer in numpy. Light is sampled towards the sun, the lamp and the arches; what else
arrives is gathered by two diffuse bounces. Points and directions are arrays (3, N), metres, x to the
right, y up, z out of the arches. Radiance is linear Rec. 709: about 5 in the sky, 0.005 to 1 indoors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from hdrmerge.bracket import RadianceMap
from hdrmerge.scene import Mover
from hdrmerge.simulate import homography, plan_shots, simulate_bracket
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.write import write


def vector(*xyz: float):
    return np.float32(xyz)[:, None]


SAMPLES = 24  # paths a pixel
WHITE = 1.8  # radiance that saturates the middle frame
BALL_POSITIONS = ((-1.05, 0.21, 2.45), (-0.62, 0.21, 2.38), (-0.20, 0.21, 2.30))  # [m]; height = radius
MARGIN = 0.04  # rendered beyond each edge of the photograph for the shaking hand, relative to its size
CAMERA, FOCAL, HORIZON = vector(0.25, 1.36, -2.2), 0.80, 0.45  # [m]; / width; / height, from the top
WALL, DEPTH = 4.6, 0.42  # the wall with the arches: z of its inner face, and its thickness [m]
SPACING, HALF, SILL, SPRING = 2.0, 0.84, 0.55, 1.93  # three arches: distance, half width, lowest, centre [m]
SUN, SUN_RADIUS = vector(-0.35, 0.63, 0.695), 0.006  # direction; [rad]
SUN_LIGHT = vector(46.0, 38.0, 27.0)  # irradiance / 1 across the beam
LAMP, LAMP_RADIUS, LAMP_LIGHT = vector(-2.2, 1.72, 3.05), 0.042, vector(900.0, 480.0, 170.0)
AMBIENT = vector(0.012, 0.010, 0.008)  # what arrives after the last bounce
CHUNK = 48_000  # rays at a time, few enough for the cache
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
    """Interpolate the noise tile, about 0 to 1; one unit of u or v holds eight of its largest blobs."""
    x, y = (u - np.floor(u)) * 1023.99, (v - np.floor(v)) * 1023.99
    left, up = x.astype(np.int32), y.astype(np.int32)
    x, y, right, down = x - left, y - up, (left + 1) & 1023, ((up + 1) & 1023) * 1024
    up = up * 1024
    upper = mix(NOISE.take(up + left), NOISE.take(up + right), x)
    return mix(upper, mix(NOISE.take(down + left), NOISE.take(down + right), x), y)


# What things are made of: points (3, N) -> albedo (3, N)


def plaster(p):
    u, v = p[0] + p[2], p[1]
    tone = 0.66 + 0.3 * (noise(u * 0.13, v * 0.13) - 0.5) + 0.25 * (noise(u * 0.7, v * 0.7 + 0.3) - 0.5)
    tone = tone + 0.2 * (noise(u * 3.5, v * 3.5) - 0.5)
    tone = tone * np.where(np.abs(v - 0.95) < 0.012, 0.4, 1)
    return np.where(v < 0.95, vector(0.62, 0.34, 0.23), vector(0.86, 0.73, 0.55)) * tone


def tiles(p):
    """Cream and terracotta tiles on the diagonal, worn, with grout."""
    u, v = (p[0] + p[2]) * 1.7, (p[0] - p[2]) * 1.7
    i, j = np.floor(u), np.floor(v)
    tint = 0.8 + 0.3 * np.mod(np.sin(i * 12.9898 + j * 78.233) * 43.7585, 1)
    tint = tint + 0.5 * (noise(p[0] * 0.3, p[2] * 0.3) - 0.5) + 0.3 * (noise(p[0] * 1.3, p[2] * 1.3) - 0.5)
    tile = np.where((i + j) % 2 == 0, vector(0.66, 0.57, 0.44), vector(0.42, 0.17, 0.09)) * tint
    grout = np.minimum(0.5 - np.abs(u - i - 0.5), 0.5 - np.abs(v - j - 0.5)) < 0.018
    return np.where(grout, vector(0.2, 0.17, 0.14), tile)


def rug(p):
    x, z = np.abs(p[0] - 1.15), np.abs(p[2] - 1.3)
    rim = np.maximum(x - 1.15, z - 0.75)
    figure = (np.floor(3.2 * (x + z)) + np.floor(3.2 * (x - z))) % 3
    dyes = np.float32([[0.32, 0.04, 0.03], [0.035, 0.05, 0.12], [0.50, 0.34, 0.17], [0.26, 0.025, 0.02]]).T
    dye = np.where(rim < -0.14, figure, np.where((rim > -0.11) & (rim < -0.05), 2, 3)).astype(int)
    return dyes[:, dye] * (0.6 + 0.8 * noise(p[0] * 8, p[2] * 8))


def wood(p):
    """Planks along z."""
    grain = noise(p[0] * 0.7 + p[2] * 0.05, p[1] * 0.7 + p[2] * 0.03)
    rings = 0.5 + 0.5 * np.sin(50 * grain + 20 * p[0])
    return mix(vector(0.17, 0.075, 0.03), vector(0.40, 0.21, 0.10), rings * 0.5 + grain * 0.4)


def posts(p):
    return wood(np.stack([p[2], p[0], p[1]]))


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
    light: float = 0.0


@dataclass(kw_only=True)
class Box(Shape):
    low: np.ndarray
    high: np.ndarray

    def span(self, origin, inverse):
        a, b = (self.low - origin) * inverse, (self.high - origin) * inverse
        near, far = np.minimum(a, b), np.maximum(a, b)
        return np.maximum(np.maximum(*near[:2]), near[2]), np.minimum(np.minimum(*far[:2]), far[2])

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

    def __post_init__(self):
        self.low, self.high = self.center - self.radius, self.center + self.radius

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


@dataclass(kw_only=True)
class ArchWall(Box):
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
    end = WALL + DEPTH
    walls = [ArchWall(albedo=plaster, low=vector(-4, 0, WALL), high=vector(4, 4, end)),
             box(tiles, (-4, -1, -4), (4, 0, end), gloss=0.025),
             box(wood, (-4, 3.05, -4), (4, 4, end)),
             box(plaster, (-4, 0, -4), (4, 4, -3)),
             box(plaster, (-4, 0, -4), (-3.05, 4, end)),
             box(plaster, (3.05, 0, -4), (4, 4, end)),
             box(rug, (0.0, -1, 0.55), (2.3, 0.008, 2.05))]  # fmt: skip
    beams = [box(wood, (x - 0.08, 2.86, -3), (x + 0.08, 3.05, WALL)) for x in np.linspace(-2.7, 2.7, 7)]
    table = [box(wood, (-2.85, 0.70, 2.5), (-1.65, 0.75, 3.6), gloss=0.04)]
    table += [box(posts, (x, 0, z), (x + 0.07, 0.70, z + 0.07)) for x in (-2.8, -1.77) for z in (2.55, 3.48)]
    table += [ball(paint(0.95, 0.93, 0.88), (-1.98, 0.88, 2.85), 0.13, gloss=1.0),
              ball(paint(0.55, 0.03, 0.02), (-2.32, 0.86, 2.75), 0.11, gloss=0.05),
              ball(paint(0.80, 0.36, 0.04), (-2.12, 0.80, 2.62), 0.05),
              ball(paint(0.80, 0.42, 0.05), (-2.20, 0.80, 2.58), 0.05),
              box(paint(0.05, 0.16, 0.22), (-2.72, 0.75, 3.00), (-2.38, 0.80, 3.45)),
              box(paint(0.45, 0.09, 0.06), (-2.70, 0.80, 3.03), (-2.42, 0.84, 3.42)),
              box(paint(0.62, 0.50, 0.30), (-2.68, 0.84, 3.02), (-2.40, 0.875, 3.38))]  # fmt: skip
    flex = vector(0.006, 0.0, 0.006)
    lamp = [Sphere(albedo=paint(1, 1, 1), center=LAMP, radius=LAMP_RADIUS, light=1.0),
            Sphere(albedo=paint(0.03, 0.07, 0.05), center=LAMP, radius=0.2, dome=True),
            Box(albedo=paint(0.03, 0.03, 0.03), low=LAMP + vector(0, 0.19, 0) - flex,
                high=LAMP + vector(0, 1.4, 0) + flex)]  # fmt: skip
    shelf = [box(wood, (2.65, h, 2.3), (3.05, h + 0.035, 4.1)) for h in (0.08, 0.52, 0.96, 1.40, 1.84)]
    shelf += [box(posts, (2.65, 0, z), (3.05, 1.875, z + 0.04)) for z in (2.26, 4.1)]
    covers = np.float32([[0.30, 0.16, 0.07], [0.34, 0.05, 0.035], [0.06, 0.14, 0.07], [0.05, 0.08, 0.20],
                         [0.60, 0.50, 0.33], [0.45, 0.25, 0.05], [0.10, 0.06, 0.05]])  # fmt: skip
    books = []
    for h in (0.115, 0.555, 0.995, 1.435):
        books.append([])
        z = 2.32
        while (z := z + rng.uniform(0.003, 0.012)) < 4.02:
            thick, deep, tall = rng.uniform(0.025, 0.075), rng.uniform(0.02, 0.1), rng.uniform(0.22, 0.35)
            if rng.random() < 0.88:
                dye = covers[rng.integers(len(covers))] * rng.uniform(0.5, 1.3)
                books[-1].append(box(paint(*dye), (2.68 + deep, h, z), (3.05, h + tall, z + thick)))
            z += thick
    groups = [walls, beams, table, lamp, shelf, *books]
    if ball_position:
        center, radius = vector(*ball_position), ball_position[1]
        groups.append([ball(stripes(center), ball_position, radius, gloss=0.04)])
    return groups


class Scene:
    def __init__(self, groups: list):
        self.shapes = [shape for group in groups for shape in group]
        self.groups = []
        for group in groups:
            low = np.min([shape.low for shape in group], axis=0)
            high = np.max([shape.high for shape in group], axis=0)
            self.groups.append((Box(albedo=plaster, low=low, high=high), group))

    def nearest(self, origin, direction):
        """Return distance (N,) and index of the shape (N,), -1 where the ray leaves by an arch."""
        inverse = 1 / np.where(np.abs(direction) < 1e-7, np.float32(1e-7), direction)
        distance, who = np.full(origin.shape[1], np.inf, np.float32), np.full(origin.shape[1], -1)
        index = 0
        for bounds, group in self.groups:
            rays = slice(None)
            if index:
                near, far = bounds.span(origin, inverse)
                rays = np.flatnonzero((near < np.minimum(far, distance)) & (far > 0))
            if index == 0 or rays.size:
                o, d, i = origin[:, rays], direction[:, rays], inverse[:, rays]
                best, found = distance[rays], who[rays]
                for k, shape in enumerate(group, index):
                    t = shape.hit(o, d, i)
                    closer = t < best
                    best, found = np.where(closer, t, best), np.where(closer, k, found)
                distance[rays], who[rays] = best, found
            index += len(group)
        return distance, who


# The world outside


def landscape(d):
    """Return the radiance from directions (3, N) with z > 0: sky and clouds, hills, sea, trees, the sun."""
    x, y = d[:2] / np.maximum(d[2], np.float32(1e-3))
    seen = mix(vector(3.3, 4.6, 6.4), vector(0.5, 1.8, 5.4), step(-0.03, 0.2, y))
    seen = seen + 3 * np.exp(8 * dot(d, SUN) - 8)
    thick = noise(x * 0.6 + 0.35, y * 1.8 + 0.05)
    lit = step(-0.05, 0.09, thick - noise(x * 0.6 + 0.358, y * 1.8 + 0.03))
    cloud = mix(vector(6.0, 6.3, 7.0), vector(15, 13.8, 12), lit)
    seen = mix(seen, cloud, step(0.44, 0.62, thick))
    rough = noise(x * 2.0, y * 2.0)
    far = y < 0.010 + 0.04 * noise(x * 0.32 + 0.4, 0 * x) * step(-0.12, 0.25, x)
    seen = np.where(far, mix(vector(1.1, 1.8, 3.0), vector(1.9, 2.4, 3.1), rough), seen)
    crest = 0.07 * step(0.02, -0.36, x) * (0.6 + 0.8 * noise(x * 0.4, 0 * x + 0.3)) - 0.004
    green = mix(vector(0.22, 0.50, 0.12), vector(2.1, 1.9, 0.65), step(0.35, 0.75, noise(x * 0.9, y * 2.5)))
    seen = np.where(y < crest, green * (0.5 + rough), seen)
    i, j = np.floor(x / 0.021), np.floor(y / 0.011)
    chance = np.mod(np.sin(i * 12.9898 + j * 78.233) * 43.7585, 1)
    u, v = x / 0.021 - i - 0.2 - 0.5 * np.mod(chance * 7, 1), y / 0.011 - j - 0.3 * np.mod(chance * 13, 1)
    inside = (np.abs(u) < 0.2) & (v > 0) & (v < np.minimum(0.7, 0.95 - 2.5 * np.abs(u))) & (chance > 0.45)
    house = np.where(u < 0.06, vector(10, 9, 7.5), vector(3, 3.2, 3.6))
    house = np.where(v > 0.5, vector(4.5, 1.6, 0.8), house)
    seen = np.where(inside & (y < crest - 0.01) & (y > 0.001), house, seen)
    away = 1 / np.maximum(-y, 1e-3)
    wave = noise(x * away * 0.05, away * 0.13) - 0.5
    water = mix(vector(0.10, 0.70, 1.25), vector(1.1, 2.3, 3.6), np.exp(np.minimum(y, 0) * 22))
    glitter = step(0.60, 0.70, noise(x * away * 0.06, away * 0.2 + 0.4)) * step(0, -0.01, y)
    glitter = glitter * np.exp(-(((x + 0.22) / 0.12) ** 2))
    seen = np.where(y < 0, water * (1 + 0.8 * wave) + vector(26, 22, 16) * glitter, seen)
    sail = (np.abs(x - 0.035) < 0.30 * (0.026 - y)) & (np.abs(y - 0.008) < 0.016)
    seen = np.where(sail, np.where(x < 0.035, vector(13, 12, 11), vector(6, 6, 6.5)), seen)
    for at, top in ((-0.335, 0.055), (-0.30, 0.02), (0.235, 0.048), (0.33, 0.07)):
        down = np.clip((top - y) / (top + 0.12), 0, 1)
        half = 0.017 * np.sqrt(down) * (1 - 0.5 * down)
        shade = step(-0.8, 0.5, 90 * (x - at) + 2 * rough - 1)
        tree = mix(vector(0.75, 0.85, 0.28), vector(0.06, 0.11, 0.045), shade)
        seen = np.where(np.abs(x - at + 0.007 * (rough - 0.5)) < half, tree, seen)
    hedge = y < -0.085 + 0.035 * (noise(x * 0.8, 0 * x + 0.7) - 0.5) + 0.012 * (rough - 0.5)
    leaves = 0.5 * noise(x * 3, y * 3) + 0.5 * noise(x * 14, y * 14)
    flower = (noise(x * 3 + 0.5, y * 3) > 0.58) & (noise(x * 13 + 0.5, y * 13) > 0.6)
    leaves = mix(vector(0.06, 0.12, 0.04), vector(2.4, 2.7, 0.8), step(0.4, 0.68, leaves))
    seen = np.where(hedge, np.where(flower, vector(6.0, 0.8, 2.2), leaves), seen)
    sun = dot(d, SUN) > 1 - SUN_RADIUS**2 / 2
    return np.where(sun, 2000 * SUN_LIGHT / SUN_LIGHT[0], seen).astype(np.float32)


def _sky_table(size: int = 256):
    """Tabulate `landscape` without the sun over the x and y of a direction, (3, size, size)."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32).reshape(2, -1) * (2 / size) + (1 / size - 1)
    d = np.stack([x, y, np.sqrt(np.maximum(1 - x * x - y * y, 1e-4))])
    return np.minimum(landscape(d), 20).reshape(3, size, size)


SKY = _sky_table()


def fanlight(origin, direction):
    """Return what the stained glass in the tops of the arches lets pass, (3, N)."""
    t = (WALL + 0.3 - origin[2]) / np.maximum(direction[2], np.float32(1e-3))
    x, y = (origin + direction * t)[:2]
    x, y = arch_of(x), y - SPRING
    radius, sector = np.hypot(x, y) / HALF, np.arctan2(y, x) * (7 / np.pi)
    lead = np.abs(sector - np.rint(sector)) * radius * HALF * (np.pi / 7) < 0.011
    lead = (lead & (radius > 0.36)) | (np.abs(radius - 0.36) < 0.02) | (np.abs(radius - 0.7) < 0.016)
    glass = np.float32([[0.85, 0.06, 0.03], [0.95, 0.55, 0.06], [0.05, 0.45, 0.18], [0.04, 0.16, 0.75]]).T
    pane = np.where(radius < 0.36, 1, (np.floor(sector) + np.where(radius > 0.7, 2, 0)) % 4).astype(int)
    tint = np.where(lead | (y < 0.02), np.float32(0.0015), glass[:, pane] * (0.6 + 0.8 * noise(x, y)))
    return np.where((y > -0.025) & (t > 0), tint, np.float32(1))


# Light transport


class Sampler:
    """Numbers in [0, 1): a Kronecker sequence over the samples, shifted by a hash of pixel and dimension."""

    def __init__(self, pixel, index: int, branch: int = 0):
        self.pixel, self.index, self.branch = pixel, index, branch

    def __call__(self, dimension: int):
        # After the first hit plain random numbers do, since more dimensions would correlate.
        seed = dimension + 16 * self.branch + (self.index << 12 if self.branch else 0)
        h = self.pixel * np.uint32(0x9E3779B1) ^ np.uint32(seed * 0x85EBCA77 & 0xFFFFFFFF)
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
        shift = ((h ^ (h >> np.uint32(16))) >> np.uint32(8)) * np.float32(2**-24)
        walk = 0 if self.branch else (self.index * float(np.sqrt(PRIMES[dimension]))) % 1
        return np.mod(shift + np.float32(walk), np.float32(1))

    def sphere(self, dimension: int):
        """Return points (3, N) evenly spread over the unit sphere."""
        z, turn = 1 - 2 * self(dimension), self(dimension + 1) * np.float32(2 * np.pi)
        radius = np.sqrt(1 - z * z)
        return np.stack([radius * np.cos(turn), radius * np.sin(turn), z])

    def child(self, rays, number: int):
        return Sampler(self.pixel[rays], self.index, self.branch * 4 + number)

    def take(self, rays):
        return Sampler(self.pixel[rays], self.index, self.branch)


def arriving(scene: Scene, p, normal, sampler: Sampler):
    """Sample what the sun (first) and lamp and arches (second) send to a matte white point, (3, N) each."""
    direct, soft = np.zeros_like(p), np.zeros_like(p)

    def add(total, toward, light, reach):
        rays = np.flatnonzero(light[0] > 0)
        clear = scene.nearest(p[:, rays], toward[:, rays])[0] >= reach[rays]
        total[:, rays] += light[:, rays] * clear

    def outward(toward, light):
        ahead = toward[2] > 1e-3
        x, y = (p + toward * ((WALL + DEPTH - p[2]) / np.where(ahead, toward[2], 1)))[:2]
        cosine = np.maximum(dot(normal, toward), 0) * (ahead & is_open(x, y))
        return np.where(cosine > 0, light * cosine * fanlight(p, toward), 0)

    endless = np.full(p.shape[1], np.inf)
    toward = unit(SUN + SUN_RADIUS * sampler.sphere(2))
    add(direct, toward, outward(toward, SUN_LIGHT / np.pi), endless)

    bulb = sampler.sphere(4)
    to = LAMP + LAMP_RADIUS * bulb * np.where(dot(bulb, p - LAMP) < 0, -1, 1) - p
    far = np.sqrt(dot(to, to))
    cosine = np.maximum(dot(normal, to) / far, 0)
    add(soft, to / far, LAMP_LIGHT * np.minimum(cosine * (LAMP_RADIUS / far) ** 2, 0.2), far - 0.01)

    top = SPRING + HALF
    x = SPACING * (np.floor(3 * sampler(6)) - 1) + HALF * (2 * sampler(7) - 1)
    to = np.stack([x, SILL + (top - SILL) * sampler(8), np.full_like(x, WALL + DEPTH)]) - p
    square = dot(to, to)
    toward = to / np.sqrt(square)
    i, j = (np.clip((toward[a] + 1) * 128, 0, 255).astype(int) for a in (1, 0))
    solid_angle = np.minimum(toward[2] * (6 * HALF * (top - SILL)) / square, 12)
    add(soft, toward, outward(toward, SKY[:, i, j] * (solid_angle / np.pi)), endless)
    return direct, soft


def trace(scene: Scene, origin, direction, sampler: Sampler, bounces: int, mirrors: int):
    """Follow rays; return radiance that must stay sharp, albedo, soft light on it, normal and point.

    The radiance is sharp + albedo * soft, all (3, N). Rays that were scattered (``mirrors`` = 0) do
    not see sky and lamp: those are sampled on purpose where the ray started.
    """
    distance, who = scene.nearest(origin, direction)
    hit = who >= 0
    p = origin + direction * np.where(hit, distance, 0)
    sharp, albedo, soft, normal = (np.zeros_like(p) for _ in range(4))
    gloss, light = (np.array([getattr(s, a) for s in scene.shapes] + [0.0])[who] for a in ("gloss", "light"))
    for k in np.unique(who[hit]):
        rays = np.flatnonzero(who == k)
        shape, at = scene.shapes[k], np.ascontiguousarray(p[:, rays])
        normal[:, rays], albedo[:, rays] = shape.normal(at), shape.albedo(at)
    normal *= -np.sign(dot(normal, direction))
    if mirrors:
        rays = np.flatnonzero(~hit)
        if rays.size:
            d = direction[:, rays]
            sharp[:, rays] = landscape(d) * fanlight(origin[:, rays], d)
        sharp += light * LAMP_LIGHT
    p = p + normal * np.float32(1e-3)

    rays = np.flatnonzero(hit & (gloss < 1) & (light == 0))
    at, facing, numbers = p[:, rays], normal[:, rays], sampler.take(rays)
    direct, gathered = arriving(scene, at, facing, numbers)
    sharp[:, rays] += albedo[:, rays] * direct
    if bounces == 2 or (bounces and sampler.index % 2):  # the last bounce on every other path, twice
        away = unit(facing + 0.999 * numbers.sphere(9))
        lit, tint, dim, _, _ = trace(scene, at, away, sampler.child(rays, 1), bounces - 1, 0)
        gathered += np.minimum(lit + tint * dim, 4) * (3 - bounces)
    soft[:, rays] = gathered + AMBIENT * (8 if mirrors and not bounces else 1)  # a mirror's guess

    if mirrors:
        rays = np.flatnonzero(hit & (gloss > 0))
        if rays.size:
            n, d = normal[:, rays], direction[:, rays]
            n = np.where(gloss[rays] < 1, unit(n + 0.012 * sampler.child(rays, 2).sphere(9)), n)
            cosine = np.clip(-dot(n, d), 0, 1)
            strength = gloss[rays] + 0.5 * (1 - gloss[rays]) * (1 - cosine) ** 5  # worn, not ideal
            strength = np.where(gloss[rays] < 1, strength, albedo[:, rays])
            limit = np.where(gloss[rays] < 1, 20, 600)  # lamp and sun are sampled, sparks would remain
            mirrored = unit(d + 2 * cosine * n).astype(np.float32)
            again = sampler.child(rays, 2)
            lit, tint, dim, _, _ = trace(scene, p[:, rays], mirrored, again, 0, mirrors - 1)
            sharp[:, rays] += strength * np.minimum(lit + tint * dim, limit)
    return sharp, albedo, soft, normal, p


def smooth(soft, normal, p, passes: int = 3):
    """Blur soft light (H, W, 3) along surfaces, by the a-trous filter of Dammertz et al. (HPG 2010)."""
    distance = np.linalg.norm(p - CAMERA[:, 0], axis=-1)
    height, width = distance.shape
    for size in (1 << k for k in range(passes)):
        total, weights = np.zeros_like(soft), np.zeros_like(distance)
        tone = np.log(cv2.GaussianBlur(soft.sum(axis=-1), (0, 0), 1.5) + 1e-3)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                rows = np.clip(np.arange(height) + dy * size, 0, height - 1)
                columns = np.clip(np.arange(width) + dx * size, 0, width - 1)
                there = np.ix_(rows, columns)
                plane = np.abs(((p[there] - p) * normal).sum(axis=-1)) / (0.004 * distance + 1e-6)
                bend = 1 - (normal[there] * normal).sum(axis=-1)
                weight = np.exp(-plane - 40 * bend - np.abs(tone[there] - tone) * size * 1.5)
                weight *= (6, 4, 1)[abs(dy)] * (6, 4, 1)[abs(dx)]
                total += weight[..., None] * soft[there]
                weights += weight
        soft = total / weights[..., None]
    return soft


def render(width: int, height: int, samples: int, ball_position, region=None):
    """Return radiance (H, W, 3) float32 of the photograph's frame and `MARGIN` around it.

    ``ball_position`` is the centre of the ball [m], whose height is its radius, or None for none.
    ``region`` (top, bottom, left, right) renders that part of the result alone.
    """
    scene = Scene(furnish(ball_position))
    rim_x, rim_y = round(width * MARGIN), round(height * MARGIN)
    top, bottom, left, right = region or (0, height + 2 * rim_y, 0, width + 2 * rim_x)
    y, x = (a.ravel() for a in np.mgrid[top:bottom, left:right])
    sums = np.zeros((5, 3, y.size), np.float32)
    for start in range(0, y.size, CHUNK):
        part = slice(start, start + CHUNK)
        pixel = (y[part] * 65536 + x[part]).astype(np.uint32)
        for index in reversed(range(samples)):
            sampler = Sampler(pixel, index)
            right_of, below = (sampler(0), sampler(1)) if index else (0.5, 0.5)
            u = (x[part] + right_of - rim_x - width / 2) / (FOCAL * width)
            v = (HORIZON * height - y[part] - below + rim_y) / (FOCAL * width)
            direction = unit(np.stack([u, v, np.ones_like(u)]).astype(np.float32))
            origin = np.repeat(CAMERA, u.size, axis=1)
            sharp, albedo, soft, normal, p = trace(scene, origin, direction, sampler, 2, 4)
            sums[:3, :, part] += np.stack([sharp, albedo, albedo * soft]) / np.float32(samples)
            sums[3:, :, part] = normal, p  # lastly of its middle: means lie on no surface
    sums = sums.reshape(5, 3, bottom - top, right - left).transpose(0, 2, 3, 1)
    sharp, albedo, soft, normal, p = sums
    return sharp + albedo * smooth(soft / np.maximum(albedo, 1e-4), normal, p)


# The photographs


@dataclass(frozen=True, eq=False)
class Moments(Mover):
    """The scene at the moment of each frame; what differs from ``radiance``, the still one, is moving."""

    alpha: np.ndarray = field(init=False)
    centre: np.ndarray = field(init=False)
    path: np.ndarray = field(init=False)
    scenes: list

    def layer(self, frame: int, canvas):
        scene, still = canvas.fill(self.scenes[frame]), canvas.fill(self.radiance)
        alpha = (np.abs(scene - still).max(axis=-1) > 0.02 * scene.max(axis=-1)).astype(np.float32)
        return scene * alpha[..., None], alpha, (slice(None), slice(None))


def around_ball(width: int, height: int, ball_position) -> tuple[int, int, int, int]:
    """Return the region for `render` that holds the ball, its shadow and its reflection in the floor."""
    x, r, z = ball_position
    corners = np.stack(np.meshgrid([x - 2.5 * r, x + 3.5 * r], [-2 * r, 2 * r], [z - 4 * r, z + 2 * r]))
    seen = corners.reshape(3, -1) - CAMERA
    column = (0.5 + MARGIN + FOCAL * seen[0] / seen[2]) * width
    row = (HORIZON + MARGIN) * height - FOCAL * seen[1] / seen[2] * width
    bottom = round(height * (1 + 2 * MARGIN))
    return int(row.min()), min(int(row.max()), bottom), int(column.min()), int(column.max())


def main() -> None:
    parser = argparse.ArgumentParser(description="Render the example bracket.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent / "bracket")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="also write what the middle frame sees")
    parser.add_argument("--width", type=int, default=1200, help="[px]; the height is two thirds of it")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="paths a pixel, what the time goes to")
    arguments = parser.parse_args()
    width, height = arguments.width, arguments.width * 2 // 3

    still = render(width, height, arguments.samples, None)
    scenes = []
    for position in BALL_POSITIONS:
        top, bottom, left, right = region = around_ball(width, height, position)
        rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in (bottom - top, right - left))
        fade = np.minimum(np.minimum.outer(rows, columns) / (width / 40), 1)[..., None]
        scenes.append(still.copy())
        around = scenes[-1][top:bottom, left:right]
        around += fade * (render(width, height, arguments.samples, position, region) - around)

    size = (height, width)
    hand = homography(size, 0.3, (8.0, -5.0)), np.eye(3), homography(size, -0.25, (-6.0, 7.0))
    photographed = simulate_bracket(
        still, np.random.default_rng(1), size=size, step_ev=3.0, shake=hand, movers=[Moments(still, scenes)],
        saturated_share=float((still.max(axis=-1) > WHITE).mean()),
    )  # fmt: skip
    shots = plan_shots(size, 3, 3.0, 1, photographed.camera, f_number=8.0, time=1 / 30)
    write_jpegs(replace(photographed, shots=shots), arguments.folder, quality=92)
    if arguments.truth:
        truth = RadianceMap(photographed.truth, np.ones(size, bool), shots[1], shots, "exact")
        write(truth, arguments.truth, force=True)


if __name__ == "__main__":
    main()
