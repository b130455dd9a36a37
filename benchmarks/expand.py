"""Measure what single photographs are expanded to, and what they look like at other exposures.

    python benchmarks/expand.py SCENES [--network virtual-bracket mine.onnx] [--save FOLDER] [--json]

Expansions: views of HDR scenes that no network was trained on, photographed once (sRGB, ISO 100, JPEG 95,
3 to 15 % of the pixels clipped), expanded as the program does it, and compared with what the camera saw.
Besides the photograph itself, made linear, there are two baselines. Both brighten what clips in all channels,
which is more likely to be much brighter, and does not change its colour; clipped channels alone, too, make
both of them worse. Each has one constant, chosen, as its form was, for the least error on these very views,
which is more than a method can know:

    constant      so many stops brighter, all alike
    extrapolated  light goes on to rise as steeply as it did over the last stop before it clipped, with the
                  distance from the border, up to so many stops

Columns:

    clipped EV    mean of abs(log2(result / truth)) in pixels of which a channel clipped; then the share of it
                  that the photograph has
    PU21          PSNR of the whole picture on a display that shows the photograph's white at 100 cd/m^2, and
                  what is gained over the photograph; then the number of views in which anything is
    mu            PSNR after the mu-law, up to 16 times the photograph's white
    HDR           PSNR and SSIM, each picture divided by its own brightest value (`metrics.normalised`)
    Reinhard      the same of pictures tone mapped by the global operator of Reinhard 2002
    untouched     relative error of pixels that the program says it did not touch: the largest, and the one
                  that 99.9 % of the channels stay below

Virtual exposures: photographs of 512 x 512 at nine exposures by cameras drawn at random (as in training, of
other scenes), the middle one given, the others compared: PSNR and SSIM of code values, which are table 9 of
Le et al. 2023. A network is judged by itself, as there, and as the program uses it (`hdrmerge bracket`),
which takes from it what the photograph does not tell, and reads all photographs as sRGB.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from hdrmerge.dataset import read_scene, scene_view
from hdrmerge.evaluate import environment
from hdrmerge.expand import ExpandOptions, expand_photo, open_expander
from hdrmerge.exposure import Array, Float, Mask, srgb_decode, srgb_encode
from hdrmerge.highlights import clipped
from hdrmerge.metrics import ev_mean, normalised, psnr_linear, psnr_mu, pu21_psnr, ssim_linear
from hdrmerge.scene import resized
from hdrmerge.simulate import Camera, expose, plan_shots, record, scale_for_saturation
from hdrmerge.simulate_files import exif_of
from hdrmerge.tonemap import tonemap
from hdrmerge.training.exposures import SceneExposures
from hdrmerge.virtual import virtual_bracket

SIZE = (900, 1350)  # (H, W) of a view
CLIPPED = (0.03, 0.15)  # share of a photograph
QUALITY, SEED = 95, 7
WHITE_NITS = 100.0  # [cd/m^2] of the photograph's white
PEAK = 16.0  # radiance that the mu-law calls 1: 4 EV, as short as networks are asked for
NOTHING = 0.01  # [dB] of gain that do not count
FLOOR = 1 / 255 / 12.92  # light of code 1, below which errors are not relative to it

PHOTO, CONSTANT, EXTRAPOLATED = "photograph", "constant", "extrapolated"
STOPS = np.arange(0.0, 6.01, 0.1)  # that are tried for the constants
CREASE = 3.0  # [px] sigma of a blur: distances have creases

EVS = (-2.0, -1.5, -1.0, -0.5, 0.5, 1.0, 1.5, 2.0)
PAPER = {
    "psnr": (27.25, 28.13, 30.12, 33.92, 33.50, 31.15, 29.74, 29.04),
    "ssim": (0.9350, 0.9511, 0.9667, 0.9823, 0.9629, 0.9613, 0.9541, 0.9468),
}  # on other photographs: for orientation
SMALL = 512  # [px]

CROP, DARKER = 360, -3.0  # [px] and [stops] of what is saved

Scores = dict[str, float]


# --- photographs ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class View:
    """A photograph and what the camera saw: ``truth`` (H, W, 3), 1.0 = its white.

    ``linear`` is what its file holds, and ``clips`` says which of its channels do so, as the program tells
    it; ``lost`` (H, W), where one truly did.
    """

    name: str
    path: Path
    truth: Float
    lost: Mask
    linear: Float
    clips: Mask


def photograph(scene: Path, number: int, folder: Path) -> View:
    """Take view ``number`` of a scene; the same each time."""
    rng, camera = np.random.default_rng((SEED, number)), Camera()
    seen = scene_view(read_scene(scene), rng)
    height, width = seen.shape[:2]
    rows, columns = (min(height, width * SIZE[0] // SIZE[1]), min(width, height * SIZE[1] // SIZE[0]))
    top, left = (height - rows) // 2, (width - columns) // 2
    seen = resized(seen[top : top + rows, left : left + columns], SIZE)
    truth = expose(seen, scale_for_saturation(seen, float(rng.uniform(*CLIPPED))))
    shot = plan_shots(SIZE, 1, (), 0, camera)[0]
    codes = record(truth, camera, 100.0, rng)
    path = folder / f"{number:02d} {scene.stem}.jpg"
    Image.fromarray(codes).save(path, quality=QUALITY, subsampling=0, exif=exif_of(shot))
    with Image.open(path) as stored:
        linear = np.asarray(srgb_decode(np.asarray(stored) / np.float32(255)), np.float32)
    return View(path.stem, path, truth, camera.saturated(codes), linear, clipped(linear, lossy=True))


# --- what is trivial ------------------------------------------------------------------------------


def white(view: View) -> Float:
    """Say where a photograph clips in all channels, (H, W, 1), 0 or 1."""
    return np.asarray(view.clips.all(axis=2, keepdims=True), np.float32)


def rise(view: View) -> Float:
    """Return by how many stops what clips in all channels is brighter, extrapolated, (H, W, 1); elsewhere 0.

    ``depth`` is the distance to where some channel does not clip, ``way`` to where one is a stop below.
    """
    inside = white(view)
    lit = np.maximum(inside[..., 0], view.linear.min(axis=2) >= 0.5)
    depth, way = (
        cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) for mask in (inside[..., 0], lit)
    )
    stops = cv2.GaussianBlur(depth / np.maximum(way - depth, 1), (0, 0), CREASE)
    return np.asarray(stops[..., None] * inside, np.float32)


def limited(rising: Float, most: float) -> Float:
    """Bend a rise [stops] so that it ends at ``most``."""
    return np.asarray(most * (1 - np.exp(-rising / max(most, 1e-6))), np.float32)


def brightened(view: View, stops: Float) -> Float:
    """Return the photograph, so many stops (H, W, 1) brighter."""
    return np.asarray(view.linear * np.exp2(stops), np.float32)


def fitted(views: Sequence[View]) -> dict[str, float]:
    """Return the constants [stops] of the baselines that err least on these views."""
    totals = np.zeros((2, len(STOPS)))
    for view in views:
        judged = view.clips.all(axis=2) & view.lost
        needed = np.log2(view.truth[judged] / view.linear[judged])
        rising, share = rise(view)[judged], 1 / view.lost.sum()
        for k, stops in enumerate(STOPS):
            totals[0, k] += share * np.abs(needed - stops).sum()
            totals[1, k] += share * np.abs(needed - limited(rising, float(stops))).sum()
    best = STOPS[totals.argmin(axis=1)]
    return {CONSTANT: float(best[0]), EXTRAPOLATED: float(best[1])}


# --- expansions -----------------------------------------------------------------------------------


def expansions(
    views: Sequence[View], networks: Sequence[str], constants: dict[str, float], save: Path | None
) -> dict[str, list[Scores]]:
    """Return the scores of each method on each view."""
    rows: dict[str, list[Scores]] = {}
    for view in views:
        judge, panels = Judge(view), [view.linear, at(view.linear, DARKER)]
        for name in (PHOTO, CONSTANT, EXTRAPOLATED, *networks):
            start = time.perf_counter()
            untouched = np.asarray(~view.clips.any(axis=2))
            if name == CONSTANT:
                pixels = brightened(view, constants[CONSTANT] * white(view))
            elif name == EXTRAPOLATED:
                pixels = brightened(view, limited(rise(view), constants[EXTRAPOLATED]))
            else:
                options = ExpandOptions(network="none" if name == PHOTO else name)
                radiance, expansion = expand_photo(view.path, options)
                pixels, untouched = radiance.pixels, expansion.channels == 0
            seconds = time.perf_counter() - start
            scores = judge.scores(pixels, untouched) | {"seconds": seconds}
            rows.setdefault(name, []).append(scores)
            if name != PHOTO:
                panels.append(at(pixels, DARKER))
        if save:
            write_strip(view, [*panels, at(view.truth, DARKER)], save)
    return rows


class Judge:
    """The truth of a view, ready to be compared with."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.normalised, self.mapped = normalised(view.truth), mapped(view.truth)

    def scores(self, pixels: Float, untouched: Mask) -> Scores:
        view = self.view
        own, shown = normalised(pixels), mapped(pixels)
        own_error = np.abs(pixels - view.linear)[untouched] / np.maximum(view.linear[untouched], FLOOR)
        return {
            "clipped_ev": ev_mean(pixels, view.truth, view.lost),
            "pu21": pu21_psnr(pixels, view.truth, WHITE_NITS),
            "psnr_mu": psnr_mu(pixels, view.truth, peak=PEAK),
            "psnr_hdr": psnr_linear(own, self.normalised, peak=1.0),
            "ssim_hdr": ssim_linear(own, self.normalised, peak=1.0),
            "psnr_reinhard": psnr_linear(shown, self.mapped, peak=1.0),
            "ssim_reinhard": ssim_linear(shown, self.mapped, peak=1.0),
            "untouched_max": float(own_error.max()),
            "untouched_999": float(np.quantile(own_error, 0.999)),
        }


def mapped(radiance: Float) -> Float:
    return np.asarray(tonemap(radiance, "reinhard2002") / np.float32(255), np.float32)


def at(radiance: Float, ev: float) -> Float:
    return np.asarray(radiance * np.float32(2.0**ev), np.float32)


def write_strip(view: View, pictures: Sequence[Float], folder: Path) -> None:
    """Write what is around the largest clipped region, at full size, in the order of the methods."""
    _, _, stats, centres = cv2.connectedComponentsWithStats(view.lost.astype(np.uint8))
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y = centres[largest]
    top, left = (
        int(np.clip(middle - CROP / 2, 0, length - CROP)) for middle, length in zip((y, x), SIZE, strict=True)
    )
    window = np.s_[top : top + CROP, left : left + CROP]
    codes = [np.rint(srgb_encode(np.clip(picture[window], 0, 1)) * 255) for picture in pictures]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(codes).astype(np.uint8)).save(folder / f"{view.name}.png")


# --- virtual exposures ----------------------------------------------------------------------------


def exposures(scenes: Sequence[Path], count: int, networks: Sequence[str], folder: Path) -> dict[str, Any]:
    """Return the mean PSNR [dB] and SSIM of code values at `EVS`, by method."""
    stops = tuple(sorted((*EVS, 0.0)))
    samples = SceneExposures(read_scene(path) for path in scenes).held_out(count, SMALL, SEED, stops)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for sample in samples:
        codes = dict(zip(stops, sample.codes, strict=True))
        path = folder / "photo.png"
        Image.fromarray(np.rint(codes[0.0] * 255).astype(np.uint8)).save(path)
        made = {"arithmetic": by_program(path, "none")}
        for network in networks:
            made[short(network)] = by_program(path, network)
            made[f"{short(network)} by itself"] = by_itself(codes[0.0], network)
        for name, frames in made.items():
            row = found.setdefault(name, {"psnr": [], "ssim": []})
            pairs = [(frame, codes[ev]) for ev, frame in zip(EVS, frames, strict=True)]
            row["psnr"].append([psnr_linear(*pair, peak=1.0) for pair in pairs])
            row["ssim"].append([ssim_linear(*pair, peak=1.0) for pair in pairs])
    return {
        name: {metric: np.mean(values, axis=0).tolist() for metric, values in row.items()}
        for name, row in found.items()
    }


def by_program(path: Path, network: str) -> list[Float]:
    """Return virtual frames as `hdrmerge bracket` writes them, without the rounding of JPEG."""
    frames, _ = virtual_bracket(path, EVS, ExpandOptions(network=network))
    return [frame.codes().astype(np.float32) / np.float32(255) for frame in frames]


def by_itself(photo: Array, network: str) -> list[Float]:
    """Return what a network makes of code values (H, W, 3)."""
    engine = open_expander(ExpandOptions(network=network))
    assert engine is not None
    planes = np.ascontiguousarray(np.moveaxis(photo, -1, 0)[None], np.float32)
    ev = np.array(EVS, np.float32).reshape(-1, 1, 1, 1)
    return list(np.moveaxis(engine.run({"photo": planes, "ev": ev})["frames"], 1, -1))


# --- tables ---------------------------------------------------------------------------------------


def short(network: str) -> str:
    return Path(network).stem


def means(rows: dict[str, list[Scores]]) -> dict[str, Scores]:
    """Return means over views, of what is untouched the largest, and comparisons with the photograph."""
    table = {
        name: {key: float(np.mean([view[key] for view in row])) for key in row[0]}
        | {"untouched_max": max(view["untouched_max"] for view in row)}
        for name, row in rows.items()
    }
    photo = table[PHOTO]
    return {
        name: row
        | {
            "of_photograph": row["clipped_ev"] / photo["clipped_ev"],
            "pu21_gain": row["pu21"] - photo["pu21"],
            "gaining": sum(
                own["pu21"] > view["pu21"] + NOTHING
                for own, view in zip(rows[name], rows[PHOTO], strict=True)
            ),
        }
        for name, row in table.items()
    }


def print_expansions(table: dict[str, Scores], constants: dict[str, float]) -> None:
    print(
        f"{'':26}{'clipped EV':^16}{'PU21 [dB]':^19}{'mu':>6}{'HDR':^16}{'Reinhard':^16}"
        f"{'untouched, max, 99.9 %':>24}{'time':>9}"
    )
    for name, row in table.items():
        shown = f"{name}, {constants[name]:.1f} EV" if name in constants else short(name)
        print(
            f"{shown:26}{row['clipped_ev']:8.3f}{row['of_photograph']:6.0%}  "
            f"{row['pu21']:8.2f}{row['pu21_gain']:+7.2f}{row['gaining']:3d} {row['psnr_mu']:6.2f}"
            f"{row['psnr_hdr']:8.2f}{row['ssim_hdr']:7.4f} {row['psnr_reinhard']:8.2f}"
            f"{row['ssim_reinhard']:7.4f} {row['untouched_max']:12.1e}{row['untouched_999']:12.1e}"
            f"{row['seconds']:7.1f} s"
        )


def print_exposures(table: dict[str, Any]) -> None:
    print(f"{'':34}", *(f"{ev:+8g}" for ev in EVS))
    for name, row in {**table, "(Le et al. 2023, their set)": PAPER}.items():
        print(f"{name:30}PSNR", *(f"{value:8.2f}" for value in row["psnr"]))
        print(f"{'':30}SSIM", *(f"{value:8.4f}" for value in row["ssim"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path, help="a folder of HDR scenes that no network was trained on")
    parser.add_argument("--network", nargs="+", default=[], metavar="NAME|FILE", help="to expand with")
    parser.add_argument("--views", type=int, default=20, help="of the scenes, in turn")
    parser.add_argument("--first", type=int, default=0, help="number of the first view; others are others")
    parser.add_argument("--photographs", type=int, default=20, help="at other exposures")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="FOLDER",
        help=f"write a strip for each view, around its largest clipped region: the photograph, the same at "
        f"{DARKER:g} EV, then each method in the order of the table, and the truth",
    )
    parser.add_argument("--json", action="store_true", help="print all numbers as JSON, last")
    options = parser.parse_args()
    scenes = sorted(path for path in options.scenes.glob("*") if path.suffix.lower() in (".exr", ".hdr"))
    if not scenes:
        parser.error(f"{options.scenes} holds no HDR scenes (.exr, .hdr)")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = range(options.first, options.first + options.views)
        views = [photograph(scenes[n % len(scenes)], n, folder) for n in numbers]
        shares = [float(view.lost.mean()) for view in views]
        print(
            f"{len(views)} views of {len(scenes)} scenes, {SIZE[1]} x {SIZE[0]}, {100 * min(shares):.1f} to "
            f"{100 * max(shares):.1f} % clipped\n"
        )
        constants = fitted(views)
        rows = expansions(views, options.network, constants, options.save)
        table = means(rows)
        print_expansions(table, constants)
        print(
            f"\nvirtual exposures [EV], {options.photographs} photographs of {SMALL} x {SMALL}\n", flush=True
        )
        virtual = exposures(scenes, options.photographs, options.network, folder)
        print_exposures(virtual)
    print(f"\n{time.perf_counter() - start:.0f} s")
    if options.json:
        report = {
            "expansions": table,
            "constants": constants,
            "views": [view.name for view in views],
            "clipped": shares,
            "scores": rows,
            "exposures": {"ev": EVS, **virtual},
            "environment": environment(),
        }
        print(json.dumps(report))


if __name__ == "__main__":
    main()
