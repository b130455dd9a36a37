"""Merge every bracket in a folder of folders and print a row for each; the previews are for looking at.

    python benchmarks/brackets.py FOLDER OUT

Each set is merged by the command line, as a user does: without flags but those in `FLAGS`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dng", ".nef", ".arw", ".cr2"}

FLAGS: dict[str, list[str]] = {}
"""Sets that need a flag, and the one that their message names."""

CHOICES = {"altexp_bride": slice(0, 2), "bif_sony": slice(10, 15), "musil_horse": slice(0, 3)}
"""The files that are one bracket, of those in the folder."""


def merge(folder: Path, out: Path, network: str | None) -> dict[str, object]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    files = files[CHOICES.get(folder.name, slice(None))]
    if len(files) < 2:
        return {"failed": "no bracket"}
    report = out / f"{folder.name}.json"
    command = [sys.executable, "-c", "from hdrmerge.cli import app; app()", "merge", *map(str, files)]
    command += ["-o", str(out / f"{folder.name}.exr"), "--json", str(report), "--force", "-q"]
    command += ["--ghost-map", str(out / f"{folder.name}.ghosts.png")]
    command += ["--network", network] if network else []
    start = time.perf_counter()
    run = subprocess.run([*command, *FLAGS.get(folder.name, [])], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if run.returncode:
        return {"failed": run.stderr.strip().splitlines()[-1]}
    values = json.loads(report.read_text())
    frames = values["frames"]
    return {
        "frames": len(frames),
        "ev": f"{frames[0]['relative_ev']:+.1f}..{frames[-1]['relative_ev']:+.1f}",
        "aligned": " ".join(frame["alignment"]["model"][:4] if frame["used"] else "LEFT" for frame in frames),
        "ghosts": " ".join(f"{frame['ghost_share']:.1%}" for frame in frames),
        "response": values["response"].get("verdict", ""),
        "disagreement": values["response"].get("disagreement_after_ev"),
        "clipped": f"{values['clipped_share']:.2%}",
        "judged": f"{values['seconds']['deghost']:.2f}",
        "seconds": f"{seconds:.1f}",
        "warnings": values["warnings"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", help="names of sets")
    parser.add_argument("--network", help="a name, a weights file, or none")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in sorted(path for path in options.folder.iterdir() if path.is_dir()):
        if options.only and folder.name not in options.only:
            continue
        print(
            f"{folder.name:18s}",
            *(f"{key} {value}" for key, value in merge(folder, options.out, options.network).items()),
            sep="  ",
        )


if __name__ == "__main__":
    main()
