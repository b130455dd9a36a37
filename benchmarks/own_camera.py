"""Measure what fine-tuning on a user's own brackets gains: twelve to learn from, three to be judged on.

    python benchmarks/own_camera.py SCENES OUT
    hdrmerge train self-supervised OUT/brackets --network trust --budget 30m -o mine.onnx
    python benchmarks/own_camera.py SCENES OUT --score mine.onnx

The camera is one that nobody trained on. Its response curve is its own, of strong contrast; its sensor is
small, so that pictures at ISO 400 are as noisy as others' at ISO 6400, which no file says. Brackets are of
three frames, 3 EV apart, hand-held, with things that move, as JPEG files. Those to learn from show the first
six scenes of the folder, and have no truth; those to be judged on show others.

Results are compared with what the camera saw, in its own light: PSNR-mu up to where the shortest frame clips,
for the curve that the program finds (the truth is seen through it, too) and for the true one, given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hdrmerge.dataset import linear_reference, read_scene
from hdrmerge.exposure import Float
from hdrmerge.metrics import psnr_mu
from hdrmerge.pipeline import DEFAULT_NETWORK, MergeOptions, merge_bracket
from hdrmerge.response import save
from hdrmerge.scene import perspective_view
from hdrmerge.simulate import Camera, Shake, Simulated, plan_shots, random_response, simulate_bracket
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.training.examples import as_seen
from hdrmerge.training.scenes import draw_mover, draw_view

SIZE = (900, 1350)  # (H, W) of a frame
LEARNED, JUDGED = 12, 3  # brackets
FIRST = 6  # scenes to learn from; the others are to be judged on
STEP, QUALITY, MOVERS = 3.0, 92, 3
ISO = 400.0
SHAKE = Shake(rotation=0.3, shift=8.0, perspective=2e-6)
REFERENCE, CLASSICAL = "reference alone", "none"


def own_camera() -> Camera:
    """Return the camera, with a sixteenth of the electrons that the program takes for granted."""
    response = random_response(np.random.default_rng(7), contrast=0.6)
    return Camera(full_well=2_500.0, read_noise=6.0, response=response, make="Own", model="Own 1")


def photograph(scenes: Sequence[Float], index: int, seed: int) -> Simulated:
    """Take one bracket of the scenes, in turn."""
    rng, camera = np.random.default_rng([seed, index]), own_camera()
    scene = scenes[index % len(scenes)]
    if scene.shape[1] == 2 * scene.shape[0]:
        yaw, pitch, fov = (float(rng.uniform(*limits)) for limits in ((0, 360), (-10, 10), (60, 95)))
        view = perspective_view(scene, (2 * SIZE[0], 2 * SIZE[1]), yaw=yaw, pitch=pitch, fov=fov)
    else:
        view = draw_view(scene, rng)
    times = [shot.exposure_time or 0.0 for shot in plan_shots(SIZE, 3, STEP, 1, camera, ISO)]
    movers = [
        draw_mover(scenes[int(rng.integers(len(scenes)))], view, rng, SIZE, times, 1) for _ in range(MOVERS)
    ]
    return simulate_bracket(
        view,
        rng,
        size=SIZE,
        step_ev=STEP,
        saturated_share=float(rng.uniform(0.05, 0.15)),
        shake=SHAKE,
        movers=movers,
        camera=camera,
        iso=ISO,
    )


def write_brackets(scenes: Path, out: Path) -> None:
    """Write the folders of brackets that are not there yet, and the truth about those to be judged on."""
    files = sorted(path for path in scenes.glob("*") if path.suffix.lower() in (".exr", ".hdr"))
    parts = ("brackets", files[:FIRST], LEARNED, 1), ("judged", files[FIRST:], JUDGED, 2)
    for name, some, number, seed in parts:
        read: list[Float] = []
        for index in range(number):
            home = out / name / f"{index + 1:02d}"
            known = out / "truth" / f"{home.name}.npy"
            done = known if name == "judged" else home / "IMG_0003.jpg"
            if done.exists():
                continue
            read = read or [read_scene(path) for path in some]
            sim = photograph(read, index, seed)
            write_jpegs(sim, home, QUALITY)
            if name == "judged":
                known.parent.mkdir(exist_ok=True)
                np.save(known, np.concatenate([sim.truth, sim.moving[..., None]], -1).astype(np.float32))
            print(f"{home}: written", flush=True)
    save(own_camera().response, out / "response.json", "Own 1")


def score(out: Path, networks: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return PSNR-mu [dB] by curve and region, of each judged bracket, for each method."""
    true = own_camera().response
    rows: dict[str, dict[str, list[float]]] = {}
    for home in sorted((out / "judged").iterdir()):
        paths = sorted(home.glob("*.jpg"))
        stored = np.load(out / "truth" / f"{home.name}.npy")
        truth, moving = stored[..., :3], stored[..., 3] > 0
        for how, response in (("found", "auto"), ("given", true)):
            for network in networks:
                merged, report = merge_bracket(paths, MergeOptions(response=response, network=network))
                shots, results = report.shots, {network: merged.pixels}
                if network == CLASSICAL:
                    results[REFERENCE], _ = linear_reference(paths[1], report.curve)
                exposures = [shot.exposure or 1.0 for shot in shots]
                peak = exposures[report.reference] / exposures[0]
                seen = as_seen(truth, true, report.curve)
                for name, pixels in results.items():
                    row = rows.setdefault(name, {})
                    for region, mask in (("whole", None), ("moving", moving)):
                        row.setdefault(f"{how} {region}", []).append(psnr_mu(pixels, seen, mask, peak))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path, help="a folder of HDR scenes that no network was trained on")
    parser.add_argument("out", type=Path, help="where brackets are written")
    parser.add_argument("--score", nargs="+", default=[], metavar="NETWORK", help="names or files to judge")
    options = parser.parse_args()
    write_brackets(options.scenes, options.out)
    if not options.score:
        return
    networks = dict.fromkeys([CLASSICAL, DEFAULT_NETWORK, *options.score])
    rows = score(options.out, list(networks))
    means = {name: {key: float(np.mean(values)) for key, values in row.items()} for name, row in rows.items()}
    columns = list(means[DEFAULT_NETWORK])
    print(f"{'PSNR-mu [dB] (gain)':24}", *(f"{column:>16}" for column in columns))
    for name, row in means.items():
        cells = (f"{row[c]:7.2f} ({row[c] - means[DEFAULT_NETWORK][c]:+6.2f})" for c in columns)
        shown = Path(name).name if name in options.score else "classical" if name == CLASSICAL else name
        print(f"{shown:24}", *cells)
    print(json.dumps({"size": SIZE, "iso": ISO, "psnr_mu": rows}))


if __name__ == "__main__":
    main()
