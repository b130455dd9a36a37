"""A batch of 100 brackets, ten of them spoilt in ten ways, undisturbed and killed five times.

    python benchmarks/batch.py [--sets 100] [--kills 5] [--jobs 1] [--seed 1] [--keep FOLDER]

Runs `hdrmerge batch` as a process on simulated brackets (3 JPEGs of 300 x 200), then again into
another folder, where it is killed (SIGKILL) and started anew with the same command: at random
moments, and every other time when it next writes a file after such a moment.
Checked: every sound set is merged, equal byte for byte to the undisturbed run's; every spoilt set is
named on stderr and in the report; the exit code; that nothing else is left behind. Exit code 1 where
a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from hdrmerge.response import typical
from hdrmerge.scene import ramp_scene
from hdrmerge.simulate import Camera, simulate_bracket
from hdrmerge.simulate_files import exif_of, write_dngs

PROGRAM = [sys.executable, "-c", "from hdrmerge.cli import app; app()"]
A_FOLDER = 25  # sets

Set = list[Path]


def make_sets(card: Path, count: int, seed: int) -> list[Set]:
    """Write the brackets a minute apart into folders of `A_FOLDER`, files numbered through."""
    rng = np.random.default_rng(seed)
    camera = Camera(response=typical(), model="Curved")  # its response is to be found, and shared
    scenes = [ramp_scene(400, 600, np.random.default_rng(seed + i)) for i in range(5)]
    sets = []
    for number in range(count):
        sim = simulate_bracket(scenes[number % len(scenes)], rng, size=(200, 300), camera=camera)
        folder = card / f"{100 + number // A_FOLDER}HDR"
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for i, (codes, shot) in enumerate(zip(sim.frames, sim.shots, strict=True)):
            path = folder / f"IMG_{3 * number + i + 1:04d}.jpg"
            taken = shot.taken_at + timedelta(minutes=number) if shot.taken_at else None
            Image.fromarray(codes).save(path, quality=92, exif=exif_of(replace(shot, taken_at=taken)))
            paths.append(path)
        sets.append(paths)
    return sets


# --- what befalls photographs ---------------------------------------------------------------------


def cut(frames: Set) -> None:
    frames[1].write_bytes(frames[1].read_bytes()[:-3000])


def empty(frames: Set) -> None:
    frames[1].write_bytes(b"")


def text(frames: Set) -> None:
    frames[0].write_text("Dear diary, today I forgot my camera.\n")


def huge(frames: Set) -> None:
    """Headers that claim 30,000 x 30,000 px."""
    for path in frames:
        data = bytearray(path.read_bytes())
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = (30000).to_bytes(2, "big") * 2
        path.write_bytes(data)


def no_iso(frames: Set) -> None:
    with Image.open(frames[2]) as picture:
        exif = picture.getexif()
        del exif.get_ifd(0x8769)[0x8827]
        picture.save(frames[2], quality=92, exif=exif)


def unreadable(frames: Set) -> None:
    """A file without permission; for root, who may read all, a link to nowhere."""
    if os.geteuid():
        frames[2].chmod(0)
    else:
        frames[2].unlink()
        frames[2].symlink_to("gone.jpg")


def no_tables(frames: Set) -> None:
    """A JPEG whose Huffman tables are overwritten."""
    data = bytearray(frames[0].read_bytes())
    at = data.index(b"\xff\xc4") + 5
    data[at : at + 16] = b"\xff" * 16
    frames[0].write_bytes(data)


def cut_raw(frames: Set) -> None:
    """RAW files, of which one ends early."""
    rng = np.random.default_rng(0)
    sim = simulate_bracket(ramp_scene(400, 600, rng), rng, size=(200, 300))
    number = int(frames[0].stem[-4:])
    shots = [replace(s, taken_at=s.taken_at and s.taken_at + timedelta(days=number)) for s in sim.shots]
    raws = write_dngs(replace(sim, shots=tuple(shots)), frames[0].parent / "raw", rng)
    for path, raw in zip(list(frames), raws, strict=True):
        path.unlink()
        raw.rename(path.with_suffix(".dng"))
    frames[0].parent.joinpath("raw").rmdir()
    cut = frames[2].with_suffix(".dng")
    cut.write_bytes(cut.read_bytes()[:-50_000])


def output_of(frames: Set, out: Path, suffix: str) -> Path:
    return out / frames[0].parent.name / f"{frames[0].stem}-{frames[-1].stem}{suffix}"


def foreign_file(frames: Set, out: Path) -> None:
    """Somebody's file where the output is to go."""
    path = output_of(frames, out, ".exr")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not from here")


def folder_in_place(frames: Set, out: Path) -> None:
    output_of(frames, out, ".jpg").mkdir(parents=True)


IN_CARD: list[Callable[[Set], None]] = [cut, empty, text, huge, no_iso, unreadable, no_tables, cut_raw]
IN_OUT: list[Callable[[Set, Path], None]] = [foreign_file, folder_in_place]


# --- the runs -------------------------------------------------------------------------------------


def command(card: Path, out: Path, jobs: int) -> list[str]:
    return [*PROGRAM, "batch", str(card), "-r", "-o", str(out), "-j", str(jobs), "--json", f"{out}.jsonl"]


def run(
    card: Path, out: Path, jobs: int, kill_at: int | None = None, delay: float = 0.0, writing: bool = False
) -> tuple[int, str, float]:
    """Run the batch; return exit code, stderr and time [s].

    It is killed a ``delay`` [s] after ``kill_at`` sets are merged, or when it is ``writing`` next.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        command(card, out, jobs), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    if kill_at is not None:
        while process.poll() is None and len(list(out.glob("*/IMG*.exr"))) < kill_at:
            time.sleep(0.002)
        time.sleep(delay)
        while writing and process.poll() is None and not temporary_files(out):
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    return process.returncode, errors, time.perf_counter() - start


def temporary_files(out: Path) -> list[str]:
    return [entry.name for folder in out.glob("*/") for entry in os.scandir(folder) if entry.name[0] == "."]


def results(out: Path) -> dict[str, bytes]:
    """Return all files in a folder but the journal, by name."""
    paths = (path for path in out.rglob("*") if path.is_file() and path.name != "hdrmerge-batch.jsonl")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def check(name: str, passed: bool, figure: object = "") -> bool:
    print(f"{'ok  ' if passed else 'FAIL'}  {name}{f': {figure}' if figure != '' else ''}", flush=True)
    return passed


def check_run(
    label: str, out: Path, code: int, errors: str, sound: list[str], spoilt: dict[str, str]
) -> bool:
    """Check exit code, outputs, messages and report of a finished run."""
    found = results(out)
    report = Path(f"{out}.jsonl").read_text().splitlines()
    lines = [json.loads(text) for text in report]
    status = {values["name"]: values["status"] for values in lines}
    counts = Counter(status.values())
    named = {
        name for name in spoilt if re.search(rf"^hdrmerge: {re.escape(name)} failed: .*IMG_", errors, re.M)
    }
    outputs = [f"{name}{suffix}" for name in sound for suffix in (".exr", ".jpg")]
    outputs.append("response-hdrmerge-Curved.json")
    left = [path for path in found if Path(path).name.startswith(".")]
    unknown = set(found) - set(outputs) - {f"{name}.exr" for name in spoilt if "foreign" in spoilt[name]}
    passed = [
        check(f"{label}: exit code", code == 1, code),
        check(f"{label}: sound sets with both outputs", set(outputs) <= set(found), len(sound)),
        check(
            f"{label}: failures named on stderr", len(named) == len(spoilt), f"{len(named)} of {len(spoilt)}"
        ),
        check(f"{label}: other files left", not left and not unknown, sorted({*left, *unknown})[:5] or 0),
        check(f"{label}: report, one object a set", len(lines) == len(status) == len(sound) + len(spoilt)),
        check(
            f"{label}: report, status",
            all(status.get(name) == "failed" for name in spoilt)
            and all(status.get(name) in ("merged", "skipped") for name in sound),
            dict(counts),
        ),
        check(f"{label}: no traceback", "Traceback" not in errors),
    ]
    return all(passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="work in this folder, which must not exist, and keep it")
    arguments = parser.parse_args()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)
        sys.exit(0 if benchmark(arguments.keep, arguments) else 1)
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(0 if benchmark(Path(folder), arguments) else 1)


def benchmark(work: Path, arguments: argparse.Namespace) -> bool:
    card, calm, killed = work / "card", work / "calm", work / "killed"
    sets = make_sets(card, arguments.sets, arguments.seed)
    chosen = random.Random(arguments.seed).sample(range(len(sets)), len(IN_CARD) + len(IN_OUT))
    spoilt: dict[str, str] = {}
    for number, spoil in zip(chosen, [*IN_CARD, *IN_OUT], strict=True):
        frames = sets[number]
        spoilt[output_of(frames, Path(), "").as_posix()] = spoil.__name__
        if spoil in IN_CARD:
            spoil(frames)  # type: ignore[call-arg]
        else:
            for out in (calm, killed):
                spoil(frames, out)  # type: ignore[call-arg]
    names = [output_of(frames, Path(), "").as_posix() for frames in sets]
    sound = [name for name in names if name not in spoilt]

    code, errors, seconds = run(card, calm, arguments.jobs)
    print(errors)
    passed = check_run("undisturbed", calm, code, errors, sound, spoilt)
    print(f"undisturbed: {seconds:.1f} s, {seconds / len(sets):.2f} s a set\n")
    reference = results(calm)

    rng, total, broken, kills = random.Random(arguments.seed), 0.0, 0, 0
    moments = sorted(rng.sample(range(len(sound) - 10), arguments.kills))
    for number in range(arguments.kills):
        delay, writing = rng.uniform(0.0, 0.4), number % 2 == 1
        code, _, took = run(card, killed, arguments.jobs, moments[number], delay, writing)
        total += took
        kills += code == -signal.SIGKILL
        whole = {name: data for name, data in results(killed).items() if not Path(name).name.startswith(".")}
        broken += sum(reference.get(name) != data for name, data in whole.items())
        merged = sum(name.endswith(".exr") for name in whole) - 1
        left = len(temporary_files(killed))
        print(f"kill {number + 1} after {took:.1f} s (exit {code}): {merged} merged, {left} temporary files")
    code, errors, took = run(card, killed, arguments.jobs)
    total += took
    passed &= check("killed while it ran", kills == arguments.kills, kills)
    passed &= check("no file was ever half-written", not broken, broken)
    passed &= check_run("killed", killed, code, errors, sound, spoilt)
    again = results(killed)
    alike = sum(again.get(name) == data for name, data in reference.items())
    passed &= check(
        "identical to the undisturbed run", again == reference, f"{alike} of {len(reference)} files"
    )
    print(f"killed {arguments.kills} times: {total:.1f} s in all, {total - seconds:+.1f} s")

    code, errors, took = run(card, killed, arguments.jobs)
    passed &= check_run("once more", killed, code, errors, sound, spoilt)
    print(f"once more: {took:.1f} s")
    return passed


if __name__ == "__main__":
    main()
