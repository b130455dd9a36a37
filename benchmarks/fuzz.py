"""Damage good photographs in every way that comes to mind, and look at what a merge makes of them.

    python benchmarks/fuzz.py [--count 500] [--seed 1] [--keep FOLDER] [--only NAMES] [--workers 2]

Simulated brackets of three are written in many formats. Each case spoils one file of one bracket and
merges it by the real command in a process of its own, with a limit on time and memory. Good ends:

    refused   exit code 1, one line that names the spoilt file, nothing written
    warned    merged, and a warning names the spoilt file
    same      merged, and no 16 x 16 block differs from the undamaged result by more than noise does

Bad ends are a traceback, a crash, a hang, a refusal that names another file, files left over, and a
result that differs silently. The last is counted apart where the file itself is without fault:

    valid     the picture is another one, yet its bytes decode without an error: a JPEG in whose tables
              or pixels libjpeg finds nothing wrong, LZW or pixels without a checksum
    exposure  the metadata state another exposure that makes sense

Exit code 1 if there was a bad end. With --keep the cases that ended badly, or silently, are copied there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_files import WRITERS
from fuzz_layout import Layout
from fuzz_mutations import MUTATIONS
from fuzz_process import Ended, Server

SIZE = (192, 288)
BLOCK = 16  # [px]
FLOOR = 0.004  # radiance, of saturation in the reference: darker is black
STOPS = 0.03  # that a block may differ beyond noise
UNCHECKED = (  # formats whose pixels carry no checksum, and whose codes leave hardly any impossible
    *("tiff8", "tiff8-lzw", "tiff16-big-endian", "tiff16-lzw", "tiff-float"),
    *("dng", "dng-compressed", "heic"),
)
GOOD = ("refused", "warned", "same")
QUIET = ("valid", "exposure")


# --- judgement ------------------------------------------------------------------------------------


def blocks(values: Any) -> Any:
    """Return the means over blocks of 16 x 16 pixels and all channels."""
    height, width = (side // BLOCK * BLOCK for side in values.shape[:2])
    shape = (height // BLOCK, BLOCK, width // BLOCK, -1)
    return values[:height, :width].reshape(shape).mean(axis=(1, 3))


def stops_between(a: Any, b: Any) -> Any:
    a, b = (values.astype(np.float64) for values in (a, b))
    return blocks(np.abs(np.log2((a + FLOOR) / (b + FLOOR))))


@dataclass
class Good:
    """A good bracket: its files, what they merge to, and how much noise makes each block differ."""

    name: str
    files: list[Path]
    pixels: Any
    noise: Any

    def differs(self, pixels: Any) -> float:
        """Return by how many stops the worst block differs beyond noise; 0 where noise explains all."""
        if pixels.shape != self.pixels.shape or not np.isfinite(pixels).all() or pixels.min() < 0:
            return float("inf")
        excess = stops_between(pixels, self.pixels) - 1.5 * self.noise - STOPS
        return max(float(excess.max()), 0.0)


def photograph(name: str, write: Callable[[Any, Path], list[Path]], folder: Path, server: Server) -> Good:
    """Write a bracket in a format twice, with the noise of two moments, and merge both."""
    from hdrmerge.load import load
    from hdrmerge.scene import ramp_scene
    from hdrmerge.simulate import simulate_bracket

    scene = ramp_scene(2 * SIZE[0], 2 * SIZE[1], np.random.default_rng(7))
    merged, files = [], []
    for number in (0, 1):
        here = folder / f"{name}{number}"
        here.mkdir()
        files = write(simulate_bracket(scene, np.random.default_rng(number), size=SIZE), here)
        ended = server.merge(here, ["merge", *(path.name for path in files), "-o", "out.exr", "--float"])
        if ended.code or ended.errors:
            raise SystemExit(f"{name}: the good bracket ends with {ended.code}: {ended.errors}")
        merged.append(load(here / "out.exr").pixels)
    files = [folder / f"{name}0" / path.name for path in files]
    noise = stops_between(merged[1], merged[0])
    return Good(name, files, merged[0], np.maximum(noise, np.median(noise)))


def judge(good: Good, spoilt: Path, ended: Ended, before: set[str], ranges: list[Any]) -> tuple[str, str]:
    """Return the kind of end of a case, and a remark."""
    from hdrmerge.load import load

    folder = spoilt.parent
    left = {path.name for path in folder.iterdir()} - before - {"stdout", "stderr"}
    if ended.late:
        return "HANG", f"{ended.seconds:.0f} s"
    if ended.code < 0:
        return "CRASH", signal.Signals(-ended.code).name
    if "Traceback" in ended.errors:
        return "TRACEBACK", ended.errors.strip().splitlines()[-1]
    lines = ended.errors.strip().splitlines()
    if ended.code == 1:
        if len(lines) != 1 or not lines[0].startswith("hdrmerge: ") or "; " not in lines[0]:
            return "ODD MESSAGE", ended.errors.strip()
        if left:
            return "LEFT OVER", str(left)
        return ("refused" if spoilt.name in lines[0] else "OTHER FILE NAMED"), lines[0]
    if ended.code:
        return f"EXIT {ended.code}", ended.errors.strip()
    difference = good.differs(load(folder / "out.exr").pixels)
    named = [line for line in lines if spoilt.name in line]
    if named:
        return "warned", named[0]
    if not difference:
        return "same", ""
    remark = f"{difference:.2f} stops in a block"
    return _excuse(good, spoilt, ranges) or "SILENT", remark


def _excuse(good: Good, spoilt: Path, ranges: list[Any]) -> str:
    """Return why no reader could know that this file is not what it was, or nothing."""
    from hdrmerge.fileformat import kind_of
    from hdrmerge.metadata import read_shot

    original = next(path for path in good.files if path.stem == spoilt.stem)
    old, new = read_shot(original), read_shot(spoilt)
    if old.exposure != new.exposure:
        return "exposure"
    data = original.read_bytes()
    places = Layout.of(data).unchecked(data)
    inside = [any(a <= start and end <= b for a, b in places) for start, end in ranges]
    if not (all(inside) or (any(inside) and old.orientation == new.orientation)):
        return ""
    if good.name in UNCHECKED:
        return "valid"
    return "valid" if kind_of(spoilt) == "jpeg" and _accepted_by_libjpeg(spoilt) else ""


def _accepted_by_libjpeg(path: Path) -> bool:
    """Tell whether libjpeg decodes a file without a word."""
    code = "import cv2, sys; sys.exit(cv2.imread(sys.argv[1]) is None)"
    heard = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True)
    return heard.returncode == 0 and not heard.stderr


def run_case(good: Good, name: str, seed: int, folder: Path, server: Server) -> dict[str, Any] | None:
    rng = np.random.default_rng(seed)
    victim = int(rng.integers(len(good.files)))
    data = good.files[victim].read_bytes()
    result = MUTATIONS[name](data, Layout.of(data), rng)
    if result is None or result[0] == data:
        return None
    folder.mkdir()
    files = [Path(shutil.copy(path, folder)) for path in good.files]
    files[victim].write_bytes(result[0])
    if rng.random() < 0.03:
        wrong = files[victim].with_suffix(str(rng.choice([".png", ".jpg", ".tif", ".nef", ".heic", ".txt"])))
        files[victim] = files[victim].rename(wrong)
    before = {path.name for path in folder.iterdir()}
    arguments = ["merge", *(path.name for path in files), "-o", "out.exr", "--float"]
    ended = server.merge(folder, arguments)
    verdict, remark = judge(good, files[victim], ended, before, result[1])
    return {
        "format": good.name,
        "mutation": name,
        "seed": seed,
        "file": files[victim].name,
        "verdict": verdict,
        "remark": remark,
        "seconds": round(ended.seconds, 2),
    }


# --- the run --------------------------------------------------------------------------------------


def cases(names: list[str], seed: int) -> Iterator[tuple[str, str, int]]:
    """Yield format, mutation and seed of each case: all pairs in turn, so that small runs see all."""
    rng = np.random.default_rng(seed)
    pairs = [(name, mutation) for name in names for mutation in MUTATIONS]
    while True:
        for index in rng.permutation(len(pairs)).tolist():
            yield *pairs[index], int(rng.integers(2**31))


def show(rows: list[dict[str, Any]], by: str) -> None:
    verdicts = [*GOOD, *QUIET, *sorted({row["verdict"] for row in rows} - {*GOOD, *QUIET})]
    print(f"\n{by:28s}", *(f"{verdict:>9s}" for verdict in verdicts))
    for name in dict.fromkeys(row[by] for row in rows):
        counts = Counter(row["verdict"] for row in rows if row[by] == name)
        print(f"{name:28s}", *(f"{counts[verdict]:{max(9, len(verdict))}d}" for verdict in verdicts))
    counts = Counter(row["verdict"] for row in rows)
    print(f"{'all':28s}", *(f"{counts[verdict]:{max(9, len(verdict))}d}" for verdict in verdicts))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="of spoilt files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where cases that end badly or silently are copied")
    parser.add_argument("--only", nargs="*", help="names of formats")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="one line a case")
    options = parser.parse_args()
    servers = [Server() for _ in range(options.workers)]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.workers) as pool:
        folder = Path(name)
        table = {n: w for n, w in WRITERS.items() if not options.only or n in options.only}
        goods = {n: photograph(n, write, folder, servers[0]) for n, write in table.items()}
        free = list(servers)

        def work(numbered: tuple[int, tuple[str, str, int]]) -> dict[str, Any] | None:
            number, (kind, mutation, seed) = numbered
            server, here = free.pop(), folder / f"case{number}"
            try:
                row = run_case(goods[kind], mutation, seed, here, server)
            finally:
                free.append(server)
            if row and row["verdict"] not in GOOD and options.keep:
                kept = f"{row['verdict']}-{kind}-{mutation}-{seed}".replace(" ", "-")
                shutil.copytree(here, options.keep / kept, dirs_exist_ok=True)
            shutil.rmtree(here, ignore_errors=True)
            return row

        rows: list[dict[str, Any]] = []
        numbered = enumerate(cases(list(table), options.seed))
        while len(rows) < options.count:  # some mutations do not apply to some formats, or change nothing
            for row in pool.map(work, islice(numbered, options.count - len(rows))):
                if row is None:
                    continue
                rows.append(row)
                if options.json:
                    with options.json.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                if row["verdict"] not in (*GOOD, *QUIET):
                    print("{verdict}: {format}, {mutation}, {seed}: {remark}".format(**row), flush=True)
    for server in servers:
        server.close()
    print(flush=True)
    show(rows, "format")
    show(rows, "mutation")
    bad = sum(row["verdict"] not in (*GOOD, *QUIET) for row in rows)
    print(f"\n{len(rows)} cases, {bad} bad; slowest {max(row['seconds'] for row in rows):.1f} s")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
