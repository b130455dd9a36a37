"""Measure what is put where nothing was seen: an object uncovers what is clipped in the reference.

    python benchmarks/uncovered.py SCENES --network hdrgan --network trust --save FOLDER

In brackets of three frames, two stops apart, an object stands before a bright part of the scene in the short
and the long frame, and has left it in the reference. There the reference is clipped, and no frame shows what
it hid: no trust and no alignment can bring it back, so that it has to be made up. Figures are PSNR of mu-law
values in that part alone; pictures are crops of it at 100 %, the truth first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hdrmerge.dataset import Scenes, linear_reference, scene_view, sharp_view
from hdrmerge.exposure import Float, Mask, Response
from hdrmerge.metrics import psnr_mu
from hdrmerge.pipeline import MergeOptions, merge_bracket
from hdrmerge.scene import Mover, random_mover
from hdrmerge.simulate import Camera, Shake, Simulated, plan_shots, simulate_bracket
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.tonemap import tonemap

SIZE, STEP, SHARE = (480, 720), 2.0, 0.12  # [px], [EV], clipped share of the reference
CROP = 200  # [px]
STILL = Shake(0, 0, 0)


def uncovering(scenes: Scenes, number: int, seed: int) -> tuple[Simulated, Mask]:
    """Return a bracket and where its reference shows clipped what an object hides in the other two."""
    rng = np.random.default_rng((seed, number))
    view, camera = scene_view(scenes[number % len(scenes)], rng), Camera()
    other = sharp_view(scenes[(number + 1) % len(scenes)], rng)
    state = rng.bit_generator.state
    empty = simulate_bracket(view, rng, size=SIZE, step_ev=STEP, saturated_share=SHARE, shake=STILL)
    lost = empty.saturated & (
        empty.truth.max(axis=-1) < 2.0**STEP
    )  # to the reference, not to the short frame
    shots = plan_shots(SIZE, 3, STEP, 1, camera, 100.0)
    mover = random_mover(other, rng, SIZE, shots, 1)
    height, width = (length // 2 for length in mover.alpha.shape)  # two samples a pixel
    inside = cv2.blur(
        lost.astype(np.float32), (max(width, 3), max(height, 3)), borderType=cv2.BORDER_CONSTANT
    )
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    away = 1.5 * width * (1 if x < SIZE[1] // 2 else -1)
    centre = np.array([[x, y], [x + away, y], [x + 2.0, y + 1.0]], np.float64)
    mover = replace(mover, centre=centre, path=np.zeros_like(mover.path))
    rng.bit_generator.state = state
    options = {"size": SIZE, "step_ev": STEP, "saturated_share": SHARE, "shake": STILL}
    sim = simulate_bracket(view, rng, movers=[mover], **options)  # type: ignore[arg-type]
    return sim, lost & sim.saturated & covered(mover, (float(x), float(y)))


def covered(mover: Mover, centre: tuple[float, float]) -> Mask:
    """Return where an object stands, (H, W)."""
    height, width = mover.alpha.shape
    to_frame = np.array([[0.5, 0, centre[0] - width / 4], [0, 0.5, centre[1] - height / 4]])
    return np.asarray(cv2.warpAffine(mover.alpha, to_frame, SIZE[::-1]) > 0.9)


def crop_around(where: Mask) -> tuple[slice, slice]:
    y, x = (int(np.mean(axis)) for axis in np.nonzero(where))
    top, left = (min(max(c - CROP // 2, 0), n - CROP) for c, n in zip((y, x), where.shape, strict=True))
    return slice(top, top + CROP), slice(left, left + CROP)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--network", action="append", default=[], help="a name or file; may be repeated")
    parser.add_argument("--everywhere", action="store_true", help="let networks that paint paint everything")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, help="write crops into this folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scenes = Scenes(sorted(path for path in options.scenes.iterdir() if path.suffix in (".exr", ".hdr")))
    rows: dict[str, list[float]] = {}
    for number in range(options.count):
        sim, where = uncovering(scenes, number, options.seed)
        if np.count_nonzero(where) < 200:
            continue
        peak = 1.0 / min(sim.relative_exposures)
        results: dict[str, Float] = {}
        with tempfile.TemporaryDirectory() as folder:
            paths = write_jpegs(sim, Path(folder))
            results["reference"], _ = linear_reference(paths[1], Response.named("srgb"))
            for name in ("none", *options.network):
                chosen = MergeOptions(
                    reference="1", network=name, everywhere=options.everywhere and name == "hdrgan"
                )
                results[name] = merge_bracket(paths, chosen)[0].pixels
        for name, pixels in results.items():
            limited = (np.minimum(picture, np.float32(peak)) for picture in (pixels, sim.truth))
            rows.setdefault(name, []).append(psnr_mu(*limited, where, peak=peak))
        figures = "  ".join(f"{name} {values[-1]:.1f}" for name, values in rows.items())
        print(f"{number:3d}  {np.count_nonzero(where):6d} px  {figures}", flush=True)
        if options.save:
            part = crop_around(where)
            pictures = [
                tonemap(picture / peak, "reinhard2002")[part] for picture in (sim.truth, *results.values())
            ]
            options.save.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.hstack(pictures)).save(options.save / f"{number:03d}.png")
    means = {name: float(np.mean(values)) for name, values in rows.items()}
    print(
        f"mean of {len(rows['none'])}  ", "  ".join(f"{name} {value:.2f} dB" for name, value in means.items())
    )
    if options.json:
        options.json.write_text(json.dumps({"mean": means, "each": rows}, indent=1))


if __name__ == "__main__":
    main()
