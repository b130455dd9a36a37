"""Sets of the layouts that `hdrmerge evaluate` reads, made of simulated brackets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.exposure import Response
from hdrmerge.simulate import Camera, Simulated, simulate_bracket
from hdrmerge.simulate_files import write_jpegs, write_pngs
from hdrmerge.write import write


def bracket(
    scene: np.ndarray,
    elsewhere: np.ndarray | None = None,
    curve: str = "srgb",
    size: tuple[int, int] = (96, 144),
) -> Simulated:
    """Simulate three frames 2 EV apart, with an object that moves if there is a scene to cut it from."""
    movers = [] if elsewhere is None else [elsewhere]
    camera = Camera(response=Response.named(curve))
    rng = np.random.default_rng(4)
    return simulate_bracket(scene, rng, size=size, saturated_share=0.15, movers=movers, camera=camera)


def write_radiance(pixels: np.ndarray, path: Path) -> None:
    valid = np.ones(pixels.shape[:2], bool)
    shot = Shot(path, width=pixels.shape[1], height=pixels.shape[0])
    write(RadianceMap(np.asarray(pixels, np.float32), valid, shot), path, float32=True)


def write_scenes(folder: Path, *scenes: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, scene in enumerate(scenes):
        write_radiance(scene, folder / f"scene{index}.exr")
    return folder


def write_kalantari(sim: Simulated, folder: Path, first_ev: float = 0.0) -> Path:
    """Write a bracket as Kalantari 2017: 16-bit TIFF, and the truth in the shortest frame's scale."""
    folder.mkdir(parents=True, exist_ok=True)
    ev = np.log2(sim.relative_exposures)
    for index, codes in enumerate(sim.frames):
        tifffile.imwrite(folder / f"{index + 1}.tif", codes.astype(np.uint16) * 257, photometric="rgb")
    (folder / "exposure.txt").write_text("".join(f"{e - ev[0] + first_ev:.2f}\n" for e in ev))
    write_radiance(sim.truth * min(sim.relative_exposures), folder / "HDRImg.hdr")
    return folder


def write_plain(sim: Simulated, folder: Path, truth: str = "truth.exr", exif: bool = True) -> Path:
    """Write JPEG frames, or PNG without exposures, the truth and the mask of what moves."""
    folder.mkdir(parents=True, exist_ok=True)
    if exif:
        write_jpegs(sim, folder, quality=98)
    else:
        for path in write_pngs(sim, folder):
            Image.fromarray(np.asarray(Image.open(path))).save(path)
    write_radiance(sim.truth, folder / truth)
    Image.fromarray(sim.moving.astype(np.uint8) * 255).save(folder / "moving.png")
    return folder


def write_sequence(
    folder: Path,
    light: Sequence[np.ndarray],
    cycle: Sequence[float],
    truths: Sequence[int] | None = None,
    kind: str = "random motion",
    noise: float = 0.0,
) -> Path:
    """Write a scene as DeepHDRVideo has it, of radiance (H, W, 3), 1.0 = where the shortest exposure clips.

    ``cycle`` are exposures relative to the shortest. ``kind`` is "random motion" (a truth a frame), "dynamic"
    (one of the middle frame, named for all) or "synthetic" (names without .tif, truths of ``truths``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = []
    for number, radiance in enumerate(light):
        time, name = cycle[number % len(cycle)], f"img_{number:02d}"
        linear = radiance * time + rng.normal(0, noise, radiance.shape) if noise else radiance * time
        codes = np.rint(np.clip(linear, 0, 1) ** (1 / 2.2) * 65535).astype(np.uint16)
        tifffile.imwrite(folder / f"{name}.tif", codes, photometric="rgb")
        Image.fromarray((codes // 257).astype(np.uint8)).save(folder / f"{name}.jpg")  # for thumbnails
        truth = f"{folder.name}.hdr" if kind == "dynamic" else f"{name}.hdr"
        wanted = number == len(light) // 2 if kind == "dynamic" else truths is None or number in truths
        if wanted:
            write_radiance(np.clip(radiance, 0, 1), folder / truth)
        lines.append(name if kind == "synthetic" else f"{name}.tif {truth}")
    (folder / ("img_list.txt" if kind == "synthetic" else "img_hdr_list.txt")).write_text(
        "\n".join(lines) + "\n"
    )
    stops = np.log2(np.asarray(cycle)) - np.log2(cycle[len(cycle) // 2])
    (folder / "Exposures.txt").write_text("".join(f"{stop:.2f}\n" for stop in stops))
    return folder
