"""Measure response curves and exposures that are found from pixels.

    python benchmarks/response.py real FOLDER             real static brackets, each in a folder in FOLDER
    python benchmarks/response.py simulated SCENES        random smooth curves over HDR scenes (*.exr)

Real: how far frames disagree [stops rms] on tiles that the curve was not fitted to, under sRGB and under
the curve found; and exposures estimated without metadata, against the stated ones. Pairs of frames that
share less than 2 % of well exposed positions are left out. Simulated: error of the merged radiance.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hdrmerge.align import align
from hdrmerge.curvefit import Evidence
from hdrmerge.dataset import read_scene
from hdrmerge.exposure import Response
from hdrmerge.form import StatedExposures
from hdrmerge.metering import POSITIONS, meter
from hdrmerge.metrics import ev_rms, psnr_mu, regions
from hdrmerge.pipeline import MergeOptions, load_bracket, merge_bracket
from hdrmerge.response import find_response, pair_differences
from hdrmerge.scene import perspective_view
from hdrmerge.simulate import Camera, Shake, Simulated, random_response, simulate_bracket
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.tones import Tones, gather

SUFFIXES = {".jpg", ".jpeg", ".png"}
SRGB = Response.named("srgb")
STATIC = ("ps_scene9", "ps_scene1", "syclin_scene2", "colour_frobisher", "memorial")
ALSO = ("bchao_noshift", "lzocro", "gallo_arch")
STATED = {
    "memorial": StatedExposures(times=(32, 8, 2, 1 / 2, 1 / 8, 1 / 32, 1 / 128, 1 / 512)),
    "lzocro": StatedExposures(ev=(0, -2, 2)),
    "gallo_arch": StatedExposures(ev=(-2, -1, 0, 1, 2)),
}
"""The exposures that came with sets whose files state none."""


def real_row(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    options = MergeOptions(exposures=STATED.get(folder.name, StatedExposures()))
    loaded = load_bracket(files, options)
    alignments = align(loaded.proxies, loaded.bracket.reference)
    exposures = np.array([frame.exposure for frame in loaded.bracket.frames])
    reference = loaded.bracket.reference
    stops = np.log2(exposures / exposures[reference])
    tones = gather(loaded.proxies, alignments, SRGB)
    # The tiles are halved again: what is fitted here to one half is judged on the other.
    fitted, held_out = tones.at(tones.even), tones.at(~tones.even)
    found = find_response([Evidence.of(_halved(fitted), stops)], SRGB)
    curve, offsets = found.response or SRGB, found.offsets[0]
    row: dict[str, Any] = {"frames": len(files)}
    for name, response, corrected in (("srgb", SRGB, stops), ("found", curve, stops + offsets)):
        pairs = pair_differences(Evidence.of(held_out, corrected), response)
        rms = [float(np.sqrt(np.mean(np.square(d)))) for d in pairs.values()]
        row |= {f"{name}_median": float(np.median(rms)), f"{name}_worst": max(rms), "pairs": len(rms)}
    row["offsets"] = [round(float(o), 2) for o in offsets]
    dense = gather(loaded.proxies, alignments, SRGB, POSITIONS)
    metered = meter(dense, reference)
    linked = [n for n in range(len(stops)) if n not in metered.unconnected]
    errors = np.diff(metered.stops[linked]) - np.diff(stops[linked])
    row["step_errors"] = [round(float(e), 2) for e in errors]
    row["unconnected"] = len(metered.unconnected)
    return row


def _halved(tones: Tones) -> Tones:
    """Return tones whose own chequerboard is halved at random, since they are of one colour of it."""
    return replace(tones, even=np.random.default_rng(0).random(len(tones.even)) < 0.5)


def real_rows(folder: Path) -> dict[str, dict[str, Any]]:
    rows = {}
    for name in (*STATIC, *ALSO):
        if (folder / name).is_dir():
            rows[name] = real_row(folder / name)
            print(f"  {name:18s}", *(f"{key} {_text(value)}" for key, value in rows[name].items()), sep="  ")
    static = [row for name, row in rows.items() if name in STATIC]
    if static:
        median = np.median([row["found_median"] for row in static])
        print(f"  median of the {len(static)} static sets: {median:.3f} EV")
    return rows


def simulated(number: int, pictures: list[np.ndarray], moving: bool) -> Simulated:
    rng = np.random.default_rng(1000 + number)
    curve = random_response(rng)
    frames = int(rng.choice([3, 3, 5, 7]))
    movers = [view_of(pictures[(number + k + 1) % len(pictures)], rng) for k in range(1 + number % 2)]
    return simulate_bracket(
        view_of(pictures[number % len(pictures)], rng),
        rng,
        size=(480, 720),
        frames=frames,
        step_ev={3: 2.0, 5: 1.5, 7: 1.0}[frames],
        saturated_share=float(rng.uniform(0.02, 0.2)),
        shake=Shake(rotation=0.4, shift=8.0, perspective=2e-6) if moving and number % 2 else Shake(0, 0, 0),
        movers=movers if moving else (),
        camera=Camera(response=curve),
        iso=float(rng.choice([100, 400])),
    )


def simulated_row(sim: Simulated, folder: Path) -> dict[str, Any]:
    """Compare the curve found with the true one and with sRGB."""
    paths = write_jpegs(sim, folder)
    row: dict[str, Any] = {}
    top = 0.9 / min(sim.relative_exposures)
    for name, response in (("found", "auto"), ("known", sim.camera.response), ("srgb", "srgb")):
        result, report = merge_bracket(paths, MergeOptions(response=response))
        if name == "found":
            row["verdict"] = report.response["verdict"]
        low = 0.02 / max(sim.relative_exposures)
        truth = sim.truth
        seen = ((truth > low) & (truth < top)).all(axis=-1) & ~sim.moving & result.valid
        row[f"{name}_ev"] = ev_rms(result.pixels[seen][None], truth[seen][None])
        row[f"{name}_ghosts"] = max(report.ghost_shares)
        log_ratio = np.log2(np.maximum(result.pixels[seen], 1e-6) / truth[seen])
        row[f"{name}_scale_ev"] = float(np.median(log_ratio))
        peak = 1.0 / min(sim.relative_exposures)  # nobody can know what lies beyond
        merged, truth = (np.minimum(pixels, np.float32(peak)) for pixels in (result.pixels, sim.truth))
        for region in ("whole", "moving"):
            mask = regions(sim.moving, sim.saturated)[region]
            row[f"{name}_psnr_{region}"] = psnr_mu(merged, truth, mask, peak=peak)
    return row


def view_of(scene: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a view in a panorama away from its poles, or the photograph itself."""
    if scene.shape[1] != 2 * scene.shape[0]:
        return scene
    yaw, pitch = float(rng.uniform(0, 360)), float(rng.uniform(-15, 15))
    return perspective_view(scene, (960, 1440), yaw, pitch, 75.0)


def mean_of(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def simulated_rows(scenes: Path, count: int) -> dict[str, dict[str, Any]]:
    pictures = [read_scene(path) for path in sorted(scenes.glob("*.exr"))]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("static", "moving"):
            every = []
            for number in range(count):
                sim = simulated(number, pictures, kind == "moving")
                every.append(simulated_row(sim, Path(folder) / f"{kind}{number}"))
                print(f"  {kind} {number:2d}", *(f"{k} {_text(v)}" for k, v in every[-1].items()), sep="  ")
            numbers = [key for key in every[0] if key != "verdict"]
            rows[kind] = {key: mean_of([row[key] for row in every]) for key in numbers}
            rows[kind]["found_ev_worst"] = max(row["found_ev"] for row in every)
            rows[kind]["found_ev_median"] = float(np.median([row["found_ev"] for row in every]))
            print(f"  {kind} mean", *(f"{k} {_text(v)}" for k, v in rows[kind].items()), sep="  ")
    return rows


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["real", "simulated"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=12, help="simulated brackets of each kind")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    options = parser.parse_args()
    rows = (
        real_rows(options.folder) if options.what == "real" else simulated_rows(options.folder, options.count)
    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
