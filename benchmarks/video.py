"""Measure HDR video from alternating exposures: networks beside the classical ways, by exposure, and flicker.

    python benchmarks/video.py SCENES/test --coarse coarse2.onnx --refine refine2.onnx

Clips are simulated from scenes that nothing was trained on: a turning camera, objects that move, exposures
1/8 and 1/4/16 in turn, the paper's noise in all but the longest, 8 bits. Every frame is a reference in turn
and compared with what it saw: PSNR of mu-law values, 1.0 = where the shortest exposure clips. Methods see the
frames around it, in line by a similarity each, and followed where a network takes them so. Flicker is the
root mean square of how the error of mu-law values changes from a frame to the next, in thousandths, where
nothing moved but the camera, whose motion is undone as it was. A network's file says for how many exposures
it is; without files the others are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from hdrmerge import weights
from hdrmerge.coarsetofine import planes
from hdrmerge.dataset import read_scene
from hdrmerge.exposure import Array, Float, Mask
from hdrmerge.flowmerge import in_line, merge_by_flow, merge_in_line, reference_alone, similarities
from hdrmerge.followed import follow, follow_results, lit
from hdrmerge.inbetween import merge_in_between
from hdrmerge.infer import Engine, open_engine
from hdrmerge.metrics import flicker_mu, psnr_mu
from hdrmerge.scene import Matrix
from hdrmerge.training.clips import METERED, brightness, draw_clip, film, photographed
from hdrmerge.training.video import SCORED_NOISE, region_of

SIZE = (336, 592)  # (H, W) of a frame
FRAMES = 9  # that are judged; those before and after are only seen
CYCLES = {2: (1.0, 8.0), 3: (1.0, 4.0, 16.0)}
COLUMNS = ("low", "middle", "high", "all", "flicker", "s/frame")
AROUND = 2  # [px] of what moved that do not count as standing still
Results = Mapping[str, Float]


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames with what is known about them; the first and the last ``margin`` are not judged."""

    codes: list[Float]  # (H, W, 3) each
    exposures: tuple[float, ...]
    truth: Float  # (N, H, W, 3), in [0, 1]
    homographies: tuple[Matrix, ...]
    moving: list[Mask]  # (H, W) each
    margin: int


def simulate(
    scenes: Sequence[Float], number: int, cycle: Sequence[float], size: tuple[int, int], frames: int
) -> Clip:
    """Film one clip whose exposures, relative to the shortest, are those of a ``cycle`` in turn."""
    count = len(cycle)
    rng = np.random.default_rng([number, count])
    before = int(np.random.default_rng(7).permutation(len(scenes))[number % len(scenes)])
    plan = draw_clip(scenes, rng, size, frames + 2 * count, before)
    views = film(plan)
    bare = film(replace(plan, movers=()))
    around = np.ones((2 * AROUND + 1,) * 2, np.uint8)
    moving = [
        cv2.dilate((np.abs(a - b).max(axis=-1) > 1e-4 * b.max(axis=-1)).astype(np.uint8), around) > 0
        for a, b in zip(views, bare, strict=True)
    ]
    metered = views[len(views) // 2, ::METERED, ::METERED].max(axis=-1)
    scale = brightness(metered, cycle[-1], rng)
    exposures = tuple(cycle[k % count] for k in range(len(views)))
    radiance = torch.from_numpy(np.moveaxis(views * np.float32(scale), -1, 1)[None])
    times = torch.tensor([exposures])
    noise = SCORED_NOISE * (times < times.max()).float()
    codes = photographed(radiance, times, noise, torch.Generator().manual_seed(number))
    return Clip(
        [np.ascontiguousarray(np.moveaxis(frame, 0, -1)) for frame in codes[0].numpy()],
        exposures,
        np.clip(views * np.float32(scale), 0, 1),
        plan.homographies,
        moving,
        count,
    )


# --- methods --------------------------------------------------------------------------------------


class Methods:
    """What each method makes of a frame of a clip; coarse results are kept for the frames beside it."""

    def __init__(self, clip: Clip, count: int, coarse: Engine | None, refine: Engine | None) -> None:
        self.clip, self.count, self.coarse, self.refine = clip, count, coarse, refine
        self.made: dict[int, Float] = {}
        self.seconds: dict[str, float] = {}

    def results(self, frame: int) -> dict[str, Float]:
        """Return radiance (H, W, 3) by method."""
        at = slice(frame - self.count + 1, frame + self.count)
        frames, exposures = self.clip.codes[at], self.clip.exposures[at]
        matrices = self._timed("similarity", similarities, frames, self.count - 1)
        found = {
            "reference": reference_alone(frames, exposures),
            "similarity": self._timed("similarity", merge_in_line, frames, exposures, None, matrices),
            "flow": self._timed("flow", merge_by_flow, frames, exposures, None, matrices),
            "in between": self._timed("in between", self._in_between, frames, exposures, matrices),
            "fine flow": self._timed("fine flow", merge_by_flow, frames, exposures, None, matrices, True),
        }
        if self.coarse is not None:
            found["coarse"] = self._coarse(frame)
        if self.coarse is not None and self.refine is not None:
            found["refined"] = self._refined(frame)
        return found

    def _in_between(
        self, frames: Sequence[Float], exposures: Sequence[float], matrices: Sequence[Matrix]
    ) -> Float:
        """Return what ``hdrmerge video --method flow`` makes of frames."""
        middle = self.count - 1
        pairs = [(first, first + self.count) for first in range(middle)]
        return merge_in_between(frames, exposures, range(len(frames)), middle, pairs, matrices)

    def _coarse(self, frame: int) -> Float:
        if frame not in self.made:
            at = slice(frame - self.count + 1, frame + self.count)
            frames = self.clip.codes[at]
            exposures, matrices = self.clip.exposures[at], similarities(frames, self.count - 1)
            if self.coarse is not None and self.coarse.card["config"].get("followed"):
                known = self._timed("coarse", follow, frames, exposures, None, matrices)
                found = self._run("coarse", self.coarse, self._inputs(known.pictures(), exposures))
                self.made[frame] = self._timed("coarse", lit, known, exposures, found)
            else:
                lined = [in_line(codes, m)[0] for codes, m in zip(frames, matrices, strict=True)]
                self.made[frame] = self._run(
                    "coarse", self.coarse, self._inputs({"frames": lined}, exposures)
                )
        return self.made[frame]

    @staticmethod
    def _inputs(pictures: Mapping[str, Sequence[Float]], exposures: Sequence[float]) -> dict[str, Array]:
        return {**{name: planes(some) for name, some in pictures.items()}, "exposures": times(exposures)}

    def _refined(self, frame: int) -> Float:
        at = slice(frame - 1, frame + 2)
        frames = self.clip.codes[at]
        coarse = [self._coarse(k) for k in range(frame - 1, frame + 2)]
        matrices = similarities(frames, 1)
        if self.refine is not None and self.refine.card["config"].get("followed"):
            coarse, frames = self._timed("refined", follow_results, coarse, frames, matrices)
        else:
            coarse = [in_line(one, m)[0] for one, m in zip(coarse, matrices, strict=True)]
            frames = [in_line(one, m)[0] for one, m in zip(frames, matrices, strict=True)]
        inputs = self._inputs({"coarse": coarse, "frames": frames}, self.clip.exposures[at])
        return self._run("refined", self.refine, inputs)

    def _run(self, name: str, engine: Engine | None, inputs: dict[str, Array]) -> Float:
        assert engine is not None
        radiance = self._timed(name, engine.run, inputs)["radiance"]
        return np.ascontiguousarray(np.moveaxis(radiance[0], 0, -1), np.float32)

    def _timed(self, name: str, work: Callable, *arguments: object):  # type: ignore[type-arg, no-untyped-def]
        start = time.perf_counter()
        result = work(*arguments)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        return result


def times(exposures: Sequence[float]) -> Array:
    return np.array(exposures, np.float32).reshape(1, -1, 1, 1)


# --- scores ---------------------------------------------------------------------------------------


def judge(
    clips: Sequence[Clip], count: int, coarse: Engine | None, refine: Engine | None
) -> dict[str, dict[str, float]]:
    """Return the mean scores of all methods over clips: PSNR-mu [dB] by exposure, flicker, s a frame."""
    found: dict[str, dict[str, list[float]]] = {}
    for number, clip in enumerate(clips):
        methods, last = Methods(clip, count, coarse, refine), None
        judged = range(clip.margin, len(clip.codes) - clip.margin)
        for frame in judged:
            results = methods.results(frame)
            region = region_of(clip.exposures[frame - count + 1 : frame + count])
            for name, radiance in results.items():
                scores = found.setdefault(name, {})
                value = psnr_mu(radiance, clip.truth[frame], peak=1.0)
                for column in (region, "all", f"clip {number + 1}"):
                    scores.setdefault(column, []).append(value)
                if last is not None:
                    scores.setdefault("flicker", []).append(flicker(clip, frame - 1, last[name], radiance))
            last = results
        for name, seconds in methods.seconds.items():
            found[name].setdefault("s/frame", []).append(seconds / len(judged))
    return {
        name: {column: round(float(np.nanmean(values)), 3) for column, values in scores.items()}
        for name, scores in found.items()
    }


def flicker(clip: Clip, frame: int, before: Float, after: Float) -> float:
    """Return the flicker from a frame to the next where nothing moves, in thousandths of mu-law values."""
    matrix = clip.homographies[frame + 1] @ np.linalg.inv(clip.homographies[frame])
    size = before.shape[1], before.shape[0]

    def back(picture: Array, how: int = cv2.INTER_LINEAR) -> Array:
        return cv2.warpPerspective(picture, matrix, size, flags=how | cv2.WARP_INVERSE_MAP)

    there = 1 - clip.moving[frame + 1].astype(np.float32)
    still = (back(there) > 0.999) & ~clip.moving[frame]
    truths = clip.truth[frame], back(clip.truth[frame + 1])
    return 1000 * flicker_mu(before, back(after), still, truths)


def table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the scores as lines of text."""
    held = set().union(*scores.values())
    columns = [name for name in COLUMNS if name in held]
    columns += sorted(name for name in held if name.startswith("clip"))
    lines = ["".join([f"{'':12}", *(f"{column:>9}" for column in columns)])]
    for name, found in scores.items():
        lines.append("".join([f"{name:12}", *(f"{found.get(column, np.nan):9.2f}" for column in columns)]))
    return "\n".join(lines)


def networks(files: Sequence[Path], architecture: str, device: str) -> dict[int, Engine]:
    """Return engines of weights files by their number of exposures."""
    found = {}
    for path in files:
        card = weights.read_card(path)
        if card["architecture"] != architecture:
            raise SystemExit(f"{path}: holds {card['architecture']}, not {architecture}")
        found[int(card["config"].get("exposures", 2))] = open_engine(path, device=device)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path, help="a folder of HDR scenes")
    parser.add_argument("--coarse", type=Path, action="append", default=[], help="weights files")
    parser.add_argument("--refine", type=Path, action="append", default=[], help="weights files")
    parser.add_argument("--exposures", type=int, action="append", default=[], choices=sorted(CYCLES))
    parser.add_argument("--cycle", help="instead of these: 1,64 is two exposures six stops apart")
    parser.add_argument("--clips", type=int, default=4, help="for each number of exposures")
    parser.add_argument("--frames", type=int, default=FRAMES, help="that are judged of each")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    coarse = networks(options.coarse, "coarse", options.device)
    refine = networks(options.refine, "refine", options.device)
    scenes = [read_scene(path) for path in sorted(options.scenes.glob("*.exr"))]
    report = {}
    cycles = [CYCLES[count] for count in options.exposures or sorted(CYCLES)]
    if options.cycle:
        cycles = [tuple(float(time) for time in options.cycle.split(","))]
    for cycle in cycles:
        count = len(cycle)
        clips = [simulate(scenes, k, cycle, SIZE, options.frames) for k in range(options.clips)]
        report[count] = judge(clips, count, coarse.get(count), refine.get(count))
        print(f"{count} exposures, {'/'.join(f'{t:g}' for t in cycle)}")
        print(table(report[count]), flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
