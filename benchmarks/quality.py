"""Measure radiometric truth and registration on static simulated brackets with exact truth.

    python benchmarks/quality.py

Moving objects are `hdrmerge evaluate`'s matter. Prints a table; ``--json FILE`` writes the same
numbers. Every bracket goes through files, as a user's does: simulated, written as JPEG or DNG, read,
aligned, merged.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hdrmerge.metrics import ev_rms, log_log_slope
from hdrmerge.pipeline import Report, merge_bracket
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera, Shake, Simulated, homography, simulate_bracket
from hdrmerge.simulate_files import write_dngs, write_jpegs

SIZE = (1000, 1500)
STILL = Shake()
CONTRAST = 200  # of the ramp: 0.02 to 4 units
MARGIN = 60  # [px] left out at the border of shaken brackets


def ramp_bracket(
    shake: Any = STILL, top: float = 4.0, soft: float = 0.0, camera: Camera | None = None
) -> Simulated:
    """Return three frames 3 stops apart of a ramp over ``top`` / 200 to ``top``, in the reference's white.

    ``soft`` is the sigma [px] of a blur, for RAW: how well a demosaicing guesses is another matter
    than whether a merge is true.
    """
    rng = np.random.default_rng(1)
    scene = ramp_scene(2 * SIZE[0], 2 * SIZE[1], rng, low=top / CONTRAST, high=top)
    if soft:
        scene = np.exp(cv2.GaussianBlur(np.log(scene), (0, 0), 2 * soft))
    middle = scene[SIZE[0] // 2 : -SIZE[0] // 2, SIZE[1] // 2 : -SIZE[1] // 2]
    scene = scene * np.float32(top / middle.max())
    share = float(np.mean(middle.max(axis=-1) * np.float32(top / middle.max()) >= 1.0))
    return simulate_bracket(
        scene, rng, size=SIZE, step_ev=3.0, shake=shake, saturated_share=share, camera=camera
    )


def radiometry(result: np.ndarray, truth: np.ndarray, margin: int = 0) -> dict[str, float]:
    """Return the error of pixels and, without their noise, of blocks of 16 x 16."""
    inner = (slice(margin, -margin or None),) * 2
    return {
        "ev_rms": ev_rms(result[inner], truth[inner]),
        "slope": log_log_slope(result[inner], truth[inner]),
        "blocks_ev": ev_rms(
            *(
                cv2.resize(x[inner], None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
                for x in (result, truth)
            )
        ),
        "scale_ev": float(np.median(np.log2(np.maximum(result[inner], 1e-6) / truth[inner]))),
    }


def registration(report: Report, sim: Simulated) -> float:
    """Return the largest distance [px] between found and true position, over frames and a grid of points."""
    height, width = SIZE
    grid = np.array(
        [[[x, y]] for x in np.linspace(0, width, 7) for y in np.linspace(0, height, 5)], np.float64
    )
    true = {shot.exposure_time: matrix for shot, matrix in zip(sim.shots, sim.homographies, strict=True)}
    worst = 0.0
    for shot, alignment in zip(report.shots, report.alignments, strict=True):
        key = min(true, key=lambda time: abs(np.log2((time or 1) / (shot.exposure_time or 1))))
        found = cv2.perspectiveTransform(grid, alignment.matrix)
        worst = max(
            worst, float(np.linalg.norm(found - cv2.perspectiveTransform(grid, true[key]), axis=2).max())
        )
    return worst


def static_rows(folder: Path) -> dict[str, dict[str, float]]:
    rows = {}
    turned = [
        homography(SIZE, rotation=0.5, shift=(20.0, 0.0)),
        np.eye(3),
        homography(SIZE, rotation=-0.5, shift=(0.0, -20.0)),
    ]
    for name, shake, margin, soft, quality in (
        ("JPEG 95, soft", STILL, 0, 3.0, 95),
        ("JPEG 98, textured", STILL, 0, 0.0, 98),
        ("JPEG 95, textured", STILL, 0, 0.0, 95),
        ("JPEG 95, turned 0.5 deg, 20 px", turned, MARGIN, 0.0, 95),
    ):
        sim = ramp_bracket(shake, soft=soft)
        result, report = merge_bracket(write_jpegs(sim, folder / name, quality=quality))
        rows[name] = radiometry(result.pixels, sim.truth, margin)
        rows[name]["registration_px"] = registration(report, sim)
        rows[name]["ghost_share"] = max(report.ghost_shares)
    for level in (0.5, 0.8, 0.9, 0.99):
        name = f"14-bit DNG, shortest to {level:.0%}"  # of white; 50 % is the ramp to 4 units
        sim = ramp_bracket(top=8 * level, soft=3.0, camera=Camera(bits=14))
        result, report = merge_bracket(write_dngs(sim, folder / name, np.random.default_rng(2)))
        rows[name] = radiometry(result.pixels, sim.truth, 4)
        rows[name]["ghost_share"] = max(report.ghost_shares)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        rows = static_rows(Path(folder))
    for name, row in rows.items():
        print(f"  {name:28s}", *(f"{key} {value:.4f}" for key, value in row.items()), sep="  ")
    print(f"\n{time.perf_counter() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({"static": rows}, indent=2))


if __name__ == "__main__":
    main()
