"""Measure how well the time left is told while a merge runs.

    python benchmarks/forecast.py FRAMES... --network hdrgan --everywhere [--megapixels 6]

Told is what the progress bar shows, from the same stages and shares; it is held against what was left when
all was over. Printed for the moments when another tenth of the whole has passed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from speed import resized

from hdrmerge.console import Forecast, parts_of
from hdrmerge.pipeline import MergeOptions, merge_bracket, open_network, paints, write_outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, nargs="+")
    parser.add_argument("--network", default="hdrgan")
    parser.add_argument("--everywhere", action="store_true")
    parser.add_argument("--megapixels", type=float, help="resize the frames first (needs exiftool)")
    arguments = parser.parse_args()
    options = MergeOptions(network=arguments.network, everywhere=arguments.everywhere)
    engine, _ = open_network(options)
    forecast = Forecast(parts_of(paints(engine), options.everywhere))
    told: list[tuple[float, str, float]] = []
    with tempfile.TemporaryDirectory() as name:
        folder, frames = Path(name), arguments.frames
        if arguments.megapixels:
            frames = resized(frames, arguments.megapixels, folder)
        began = time.monotonic()

        def tell(stage: str, share: float) -> None:
            left = forecast.left(stage, share)
            if left is not None:
                told.append((time.monotonic() - began, stage, left))

        radiance, report = merge_bracket(frames, options, tell)
        tell("write", 0.0)
        write_outputs(radiance, folder / "out.exr", folder / "out.jpg")
        total = time.monotonic() - began
    print(f"{total:.1f} s in all:", ", ".join(f"{n} {s:.1f}" for n, s in report.seconds.items()))
    for tenth in range(1, 10):
        passed = [row for row in told if row[0] <= total * tenth / 10]
        if passed:
            at, stage, left = passed[-1]
            real = total - at
            off = left / real - 1
            print(f"  after {at:5.1f} s ({stage:9s}): told {left:5.1f} s, left {real:5.1f} s, {off:+.0%}")


if __name__ == "__main__":
    main()
