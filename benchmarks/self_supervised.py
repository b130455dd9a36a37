"""Measure what is lost by learning without a truth: the same network, steps and brackets, with and without.

    python benchmarks/self_supervised.py SCENES FOLDER --steps 4000

Brackets of three frames are simulated from SCENES/train and written as JPEG files; their truth lies apart.
The same network is trained three ways, by the same number of steps of the same recipe: from pseudo-labels of
the files alone, from the truth, and from some subsets of the pseudo-labels (the paper's ablation). All are
judged on whole frames of brackets simulated from SCENES/test, of which nothing was ever trained on: neither
their truth nor, as in the paper, their patches. Frames are aligned as a merge does it, or, as in the paper,
not (--as-captured). A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from hdrmerge.align import Alignment
from hdrmerge.dataset import read_scene
from hdrmerge.errors import HdrmergeError
from hdrmerge.exposure import Float
from hdrmerge.metrics import psnr_linear, psnr_mu
from hdrmerge.response import load, save
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.training.camera import take_all
from hdrmerge.training.examples import as_seen
from hdrmerge.training.label_sets import LabelOptions, make_labels
from hdrmerge.training.pairs import SUBSETS, Pair, Subset
from hdrmerge.training.pseudo_labels import REFERENCE, Triplet, fuse, known
from hdrmerge.training.reexposure import decode
from hdrmerge.training.scenes import draw_plan, scene_files
from hdrmerge.training.self_supervised import (
    Pairs,
    SelfSupervisedLesson,
    SelfSupervisedRecipe,
    limited,
)
from hdrmerge.training.train import train
from hdrmerge.training.triplets import in_line, read_series

SIZE = (480, 672)  # (H, W) of a frame
STEPS_EV = (1.5, 3.2)  # between two frames
ABLATION: dict[str, tuple[Subset, ...]] = {
    "MD": ("MD",),
    "ED": ("ED",),
    "MD+ED": ("MD", "ED"),
    "MD+MDM": ("MD", "MDM"),
    "ED+EDM": ("ED", "EDM"),
    "all": SUBSETS,
}
"""The rows of the paper's Table 4."""


# --- brackets -------------------------------------------------------------------------------------


def photograph(scenes: Sequence[Path], folder: Path, number: int, seed: int) -> list[list[Path]]:
    """Write ``number`` brackets of three frames as files, and the truth of each beside them; return files."""
    read: dict[Path, Float] = {}
    for index in range(number):
        home = folder / f"{index:03d}"
        if (home / "truth.npy").exists():
            continue
        rng = np.random.default_rng([seed, index])
        chosen = [scenes[int(k)] for k in rng.choice(len(scenes), min(3, len(scenes)), replace=False)]
        several = [read.setdefault(path, read_scene(path)) for path in chosen]
        while len(read) > 12:
            read.pop(next(iter(read)))
        while True:
            plan = draw_plan(several, rng, SIZE)
            step = np.log2(plan.relative_exposures[-1]) if len(plan.shots) == 3 else 0.0
            if plan.reference == 1 and plan.camera.bits == 8 and STEPS_EV[0] <= step <= STEPS_EV[1]:
                break
        sim = take_all([plan], int(rng.integers(2**31)))[0].simulated()
        sim = replace(sim, shots=tuple(replace(shot, iso=round(shot.iso or 100)) for shot in sim.shots))
        write_jpegs(sim, home, plan.jpeg_quality or 98)
        save(sim.camera.response, home / "response.json")
        known_too = np.concatenate([sim.truth, sim.moving[..., None]], axis=-1)
        np.save(home / "truth.npy", known_too.astype(np.float16))
    return [sorted((folder / f"{index:03d}").glob("*.jpg")) for index in range(number)]


# --- with the truth -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Known:
    """The frames of a bracket, aligned, and the radiance (H, W, 3) that they show, 1.0 = reference white."""

    triplet: Triplet
    truth: Float
    moving: Float  # (H, W, 3), 1 where something moved

    @classmethod
    def read(cls, paths: Sequence[Path], aligned: bool) -> Known:
        """Read the files as a merge does, and their truth as it looks under the curve that was found."""
        series, found = read_series(paths, aligned=aligned)
        used = [alignment for alignment in found.alignments if alignment.used]
        if len(used) < 3:
            raise HdrmergeError(f"{paths[0].parent}: only {len(used)} frames can be aligned")
        home = paths[0].parent
        stored = np.load(home / "truth.npy").astype(np.float32)
        curve = found.bracket.reference_frame.response
        truth = as_seen(stored[..., :3], load(home / "response.json"), curve)
        moving = np.repeat(stored[..., 3:], 3, axis=-1)
        plain = [found.proxies[k].linear for k in range(3)]
        if aligned:
            still = Alignment("none", np.eye(3))
            moving, truth = in_line([*plain, moving, truth], [*used, still, still], 1)[-2:]
        return cls(series.triplet((0, 1, 2)), truth, moving)


class Truths:
    """Pairs drawn from brackets whose truth is known, from any place: for supervised training."""

    def __init__(self, brackets: Sequence[Known], patch: int) -> None:
        self.brackets, self.patch = brackets, patch

    def draw(self, rng: np.random.Generator, subsets: Sequence[Subset] = SUBSETS) -> Pair:
        """Draw one."""
        bracket = self.brackets[int(rng.integers(len(self.brackets)))]
        height, width = bracket.truth.shape[:2]
        y, x = (int(rng.integers(side - self.patch + 1)) for side in (height, width))
        at = slice(y, y + self.patch), slice(x, x + self.patch)
        codes = np.stack([code[at] for code in bracket.triplet.codes])
        label = bracket.truth[at]
        return Pair("MD", codes, bracket.triplet.exposures, label, known(label, bracket.triplet.exposures[0]))

    def describe(self) -> str:
        return f"{len(self.brackets)} brackets and their truth"


# --- to train and to judge ------------------------------------------------------------------------


def one_a_step() -> Callable[[], float]:
    """Return a clock by which a step takes a second, so that a budget is a number of steps."""
    ticks = count()
    return lambda: float(next(ticks))


def learn(
    name: str, source: Pairs, options: argparse.Namespace, subsets: tuple[Subset, ...]
) -> SelfSupervisedLesson:
    """Train one network, or go on with it."""
    config = {"width": options.width, "residual": not options.paper}
    recipe = SelfSupervisedRecipe(
        options.network,
        config,
        float(options.steps),
        options.rate,
        options.batch,
        subsets=subsets,
        seed=options.seed,
    )
    lesson = SelfSupervisedLesson(recipe)
    form = "paper" if options.paper else "residual"
    seen = "-captured" if options.as_captured else ""
    seed = f"-seed{options.seed}" if options.seed != 1 else ""
    folder = options.folder / f"{options.network}{options.width}-{form}-{options.steps}{seen}{seed}"
    train(lesson, source, [], folder / f"{name}.safetensors", clock=one_a_step())
    return lesson


def judge(lesson: SelfSupervisedLesson, brackets: Sequence[Known]) -> dict[str, float]:
    """Return the mean scores of a network [dB], on whole frames."""
    return mean_scores(lambda pair: lesson.rows_of(lesson.mean, pair)["network"], brackets)


def mean_scores(radiance_of: Callable[[Pair], Float], brackets: Sequence[Known]) -> dict[str, float]:
    """Return the mean PSNR [dB] of a method, linear and of mu-law values, 1.0 = white of the short frame."""
    rows = []
    for bracket in brackets:
        height, width = (side // 16 * 16 for side in bracket.truth.shape[:2])
        at = slice(height), slice(width)
        exposures = bracket.triplet.exposures
        codes = np.stack([code[at] for code in bracket.triplet.codes])
        truth = bracket.truth[at]
        pair = Pair("MD", codes, exposures, truth, known(truth, exposures[0]))
        found, true = limited(radiance_of(pair), pair), limited(truth, pair)
        moving = bracket.moving[at][..., 0] > 0.5
        rows.append(
            {
                "PSNR-L": psnr_linear(found, true, peak=1.0),
                "PSNR-mu": psnr_mu(found, true, peak=1.0),
                "moving": psnr_mu(found, true, moving, 1.0) if moving.any() else np.nan,
            }
        )
    return {name: round(float(np.nanmean([row[name] for row in rows])), 3) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path, help="a folder of train and test")
    parser.add_argument("folder", type=Path, help="where brackets, labels and networks are kept")
    parser.add_argument("--brackets", type=int, default=120)
    parser.add_argument("--judged", type=int, default=24, help="brackets of the test scenes")
    parser.add_argument("--judged-seed", type=int, default=2, help="another one: other brackets to judge on")
    parser.add_argument("--seed", type=int, default=1, help="of first weights and batches")
    parser.add_argument("--as-captured", action="store_true", help="frames are not aligned")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--network", default="unet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--paper", action="store_true", help="no residual to the reference's codes")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--only", action="append", default=[], help="supervised, all, MD, ...; may be repeated"
    )
    options = parser.parse_args()

    files = photograph(
        scene_files(options.scenes / "train")[0], options.folder / "brackets", options.brackets, 1
    )
    tests = photograph(
        sorted((options.scenes / "test").glob("*.exr")),
        options.folder / ("test" if options.judged_seed == 2 else f"test-{options.judged_seed}"),
        options.judged,
        options.judged_seed,
    )
    aligned = not options.as_captured
    into = options.folder / ("labels" if aligned else "labels-captured")
    labels = make_labels(files, into, LabelOptions(aligned=aligned))
    for subset, patches, what in labels.table():
        print(f"{subset:4} {patches:6}  {what}")
    print(f"{len(labels.reasons())} brackets give nothing")
    judged = list(readable(tests, aligned))
    scores = {
        "reference": mean_scores(lambda pair: decode(pair.codes[REFERENCE]), judged),
        "fused": mean_scores(lambda pair: fuse(list(pair.codes), pair.exposures), judged),
    }
    known_rows = {"all": SUBSETS, "supervised": SUBSETS, **ABLATION}
    if unknown := set(options.only) - set(known_rows):
        parser.error(f"--only: {', '.join(sorted(unknown))} is none of {', '.join(known_rows)}")
    wanted = options.only or list(known_rows)
    for name in dict.fromkeys(wanted):
        source: Pairs = (
            labels if name != "supervised" else Truths(list(readable(files, aligned)), labels.patch)
        )
        lesson = learn(name, source, options, known_rows[name])
        scores[name] = judge(lesson, judged)
        print(
            f"{name:11}",
            "  ".join(f"{metric} {value:6.2f}" for metric, value in scores[name].items()),
            flush=True,
        )
    print(
        json.dumps({"brackets": len(files), "judged": len(judged), "steps": options.steps, "scores": scores})
    )


def readable(brackets: Sequence[Sequence[Path]], aligned: bool) -> Iterator[Known]:
    """Yield those whose three frames can be aligned; ``aligned``: and are."""
    for paths in brackets:
        with suppress(HdrmergeError):
            yield Known.read(paths, aligned)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
