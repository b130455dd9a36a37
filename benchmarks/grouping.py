"""Measure grouping: made-up cards whose sets are known, large folders timed, real folders explained.

    python benchmarks/grouping.py                              30 cards of 200 files; 1,000 and 10,000 files
    python benchmarks/grouping.py --cards 0 --time 0 --folder FOLDER...    every file and why

The cards go through files, as a photographer's do: small JPEGs with the EXIF data of two cameras, in one
folder (tests/made_card.py says what happens on them). The large folders hold JPEGs of 300 kB, or 30 kB
from 5,000 files on, with a maker note of 24 kB and the exposures of a camera that took sets of three.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hdrmerge.folder import describe, plan

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from made_card import made_card, write_jpeg


def card_row(seed: int, files: int) -> dict[str, Any]:
    """Write a card, find its sets, and count what is right and wrong."""
    card = made_card(seed, files)
    with tempfile.TemporaryDirectory() as name:
        card.write(Path(name))
        found = plan([name])
    sets = {tuple(shot.path.name for shot in one.shots) for one in found.grouping.sets}
    truth = set(card.sets)
    accounted = sum(map(len, sets)) + len(found.grouping.left_out) + len(found.unreadable)
    return {
        "seed": seed,
        "cameras": sorted({shot.camera_model for shot in card.shots}),
        "files": len(card.shots),
        "sets": len(truth),
        "sizes": dict(sorted(Counter(map(len, truth)).items())),
        "right": len(sets & truth),
        "missing": sorted(truth - sets),
        "wrong": sorted(sets - truth),
        "unexplained": len(card.shots) - accounted,
    }


def timing_row(files: int) -> dict[str, Any]:
    """Time `plan` on a folder of one camera's JPEGs, warm, the second of two runs."""
    rng = np.random.default_rng(1)
    maker_note = rng.integers(0, 256, 24_000, np.uint8).tobytes()
    side = 640 if files < 5000 else 100
    noise = Image.fromarray(rng.integers(60, 200, (side, side * 3 // 2, 3), np.uint8))
    pixels = io.BytesIO()
    noise.save(pixels, "JPEG", quality=85)
    one = next(shot for shot in made_card(0).shots if shot.exposure_mode is not None)
    with tempfile.TemporaryDirectory() as name:
        for i in range(files):
            step, pause = (0, -1, 1)[i % 3], timedelta(seconds=30 * (i // 3) + 0.3 * (i % 3))
            shot = replace(
                one,
                exposure_time=2.0**step / 60,
                exposure_bias=float(step),
                exposure_mode="bracket",
                taken_at=one.taken_at.replace(microsecond=125_000) + pause,
            )
            write_jpeg(Path(name) / f"IMG_{i + 1:05d}.JPG", shot, maker_note, pixels.getvalue())
        plan([name])
        started = time.perf_counter()
        found = plan([name])
        seconds = time.perf_counter() - started
        size = (Path(name) / "IMG_00001.JPG").stat().st_size
    return {
        "files": files,
        "kilobytes": size // 1000,
        "seconds": round(seconds, 2),
        "ms_a_file": round(1000 * seconds / files, 2),
        "sets": len(found.grouping.sets),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cards", type=int, default=30, help="how many, with seeds from --seed on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=200, help="on each card")
    parser.add_argument("--time", type=int, nargs="*", default=[1000, 10_000], metavar="FILES")
    parser.add_argument("--folder", type=Path, nargs="*", default=[], help="folders to explain")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cards = [card_row(seed, options.files) for seed in range(options.seed, options.seed + options.cards)]
    for row in cards:
        sizes = ", ".join(f"{count} of {size}" for size, count in row["sizes"].items())
        print(
            f"seed {row['seed']:4d}  {row['files']} files  {row['right']:3d} of {row['sets']:3d} sets right"
            f"  {len(row['wrong'])} wrong  {row['unexplained']} unexplained  ({sizes}; "
            f"{', '.join(row['cameras'])})"
        )
        for kind in ("missing", "wrong"):
            for files in row[kind]:
                print(f"    {kind}: {' '.join(files)}")
    if cards:
        bad = sum(bool(row["missing"] or row["wrong"] or row["unexplained"]) for row in cards)
        print(f"{sum(row['sets'] for row in cards)} sets on {len(cards)} cards; {bad} cards not all right")
    times = [timing_row(files) for files in options.time if files]
    for row in times:
        print(
            f"{row['files']:6d} JPEGs of {row['kilobytes']} kB: {row['seconds']:6.2f} s, "
            f"{row['ms_a_file']:.2f} ms a file, {row['sets']} sets   ({platform.machine()})"
        )
    for folder in options.folder:
        print(f"\n{folder}", *describe(plan([folder])), sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"cards": cards, "times": times}, indent=2))


if __name__ == "__main__":
    main()
