"""Time whole processes on one bracket, side by side with other tools, and their peak memory.

    python benchmarks/speed.py FRAMES... [--megapixels 60] [--runs 5]
    python benchmarks/speed.py PHOTO --megapixels 12 --expand NETWORK --only "hdrmerge expand"

Each command runs once to warm the file cache, then --runs times; minimum, median and maximum are
printed. Tools that are not installed are left out. Luminance HDR and OpenCV align with median
threshold bitmaps (MTB); hugin's align_image_stack with control points, and it writes no preview.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

OPENCV = """
import sys, cv2, numpy as np, exifread
frames = [cv2.imread(p) for p in sys.argv[2:]]
tags = [exifread.process_file(open(p, 'rb'), details=False) for p in sys.argv[2:]]
times = [float(t['EXIF ExposureTime'].values[0]) for t in tags]
cv2.createAlignMTB().process(frames, frames)
radiance = cv2.createMergeDebevec().process(frames, np.float32(times))
cv2.imwrite(sys.argv[1] + '.hdr', radiance)
preview = cv2.createTonemapReinhard(2.2).process(radiance)
cv2.imwrite(sys.argv[1] + '.jpg', (np.clip(preview, 0, 1) * 255).astype(np.uint8))
"""


def commands(frames: list[str], out: Path, expand: str | None) -> dict[str, list[str]]:
    program = [sys.executable, "-c", "from hdrmerge.cli import app; app()"]
    merge = [*program, "merge", *frames, "--force", "-q"]
    table = {
        "hdrmerge": [*merge, "-o", str(out / "a.exr")],
        "hdrmerge --no-preview": [*merge, "-o", str(out / "b.exr"), "--no-preview"],
        "hdrmerge --network none": [*merge, "-o", str(out / "b.exr"), "--network", "none"],
        "hdrmerge --network trust": [*merge, "-o", str(out / "b.exr"), "--network", "trust"],
        "hdrmerge --network hdrgan": [*merge, "-o", str(out / "b.exr"), "--network", "hdrgan"],
        "hdrgan --everywhere": [*merge, "-o", str(out / "b.exr"), "--network", "hdrgan", "--everywhere"],
        "opencv MTB + Debevec": [sys.executable, "-c", OPENCV, str(out / "c"), *frames],
    }
    if expand:
        output = ["-o", str(out / "f.exr"), "--network", expand]
        table["hdrmerge expand"] = [*program, "expand", frames[0], "--force", "-q", *output]
    if shutil.which("luminance-hdr-cli"):
        outputs = ["-s", str(out / "d.exr"), "-o", str(out / "d.jpg")]
        table["luminance-hdr -a MTB"] = ["luminance-hdr-cli", "-a", "MTB", *outputs, *frames]
        table["luminance-hdr, EXR only"] = ["luminance-hdr-cli", "-a", "MTB", *outputs[:2], *frames]
    if shutil.which("align_image_stack"):
        table["align_image_stack -o"] = ["align_image_stack", "-o", str(out / "e.hdr"), *frames]
    return table


def run(command: list[str]) -> tuple[float, float]:
    """Return wall time [s] and peak memory [GB] of a process."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    message = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} failed: {message.decode(errors='replace')[-500:]}")
    return seconds, usage.ru_maxrss / 1e6


def resized(frames: list[Path], megapixels: float, folder: Path) -> list[Path]:
    """Write the frames as JPEGs of that size with the same metadata (exiftool copies it)."""
    paths = []
    for frame in frames:
        codes = cv2.imread(str(frame))
        factor = (megapixels * 1e6 / (codes.shape[0] * codes.shape[1])) ** 0.5
        path = folder / f"{frame.stem}.jpg"
        cv2.imwrite(str(path), cv2.resize(codes, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
        subprocess.run(
            ["exiftool", "-q", "-overwrite_original", "-TagsFromFile", frame, "-exif:all", path], check=True
        )
        paths.append(path)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path, nargs="+")
    parser.add_argument("--megapixels", type=float, help="resize the frames first (needs exiftool)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--expand", metavar="NETWORK", help="expand the first frame alone, too, by that")
    parser.add_argument("--only", nargs="*", help="names of tools")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = resized(options.frames, options.megapixels, folder) if options.megapixels else options.frames
        height, width = cv2.imread(str(frames[0])).shape[:2]
        print(f"{len(frames)} x {height * width / 1e6:.0f} MP, {os.cpu_count()} cores, {platform.machine()}")
        for tool, command in commands([str(frame) for frame in frames], folder, options.expand).items():
            if options.only and tool not in options.only:
                continue
            run(command)
            results = [run(command) for _ in range(options.runs)]
            seconds = [wall for wall, _ in results]
            memory = max(peak for _, peak in results)
            rows[tool] = {
                "min": min(seconds),
                "median": statistics.median(seconds),
                "max": max(seconds),
                "peak_gb": memory,
            }
            print(
                f"  {tool:26s}",
                *(f"{key} {value:6.2f}" for key, value in rows[tool].items()),
                sep="  ",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
