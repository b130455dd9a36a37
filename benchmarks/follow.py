"""Measure how much of what moved is found again in the other frames, and what there is to choose from.

    python benchmarks/follow.py SCENES [--count 40]

Brackets are drawn as for training, from the scenes set aside. "followed" is the share of the ghost on a
moving object, as the reference sees it, that `drift.follow` put in place. PSNR is of mu-law values [dB],
over the whole frame, what moved, and what moved where the reference is clipped: of the reference alone,
of classical trust in the frames put in place, and of the best choice, pixel by pixel, between the
reference, any other frame and the blends, which no trust can exceed.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from hdrmerge.align import align
from hdrmerge.deghost import CERTAIN, POSSIBLE, connected
from hdrmerge.entrust import Evidence, gather_evidence
from hdrmerge.exposure import Array, Mask, mu_law
from hdrmerge.networks.trust import mix
from hdrmerge.proxy import shrink
from hdrmerge.scene import Mover, look
from hdrmerge.training.camera import Plan, take_all
from hdrmerge.training.losses import in_peak
from hdrmerge.training.scenes import draw_plan, load_scenes


def object_in_reference(plan: Plan) -> Mask:
    """Return where the reference sees a moving object, (H, W)."""
    white = [Mover(np.ones_like(m.radiance), m.alpha, m.centre, m.path) for m in plan.movers]
    still = [np.eye(3)] * len(plan.shots)
    views, _ = look(np.full_like(plan.scene, 1e-9), plan.size, still, white)
    return np.asarray(views[plan.reference].max(axis=-1) > 0.9)


def followed(evidence: Evidence, there: Mask) -> tuple[int, int]:
    """Return how many pixels of the ghosts on objects are followed, and how many there are."""
    found = total = 0
    for sight in evidence.sights:
        ghost = connected(sight.before > POSSIBLE**2, sight.before > CERTAIN**2) > 0
        ghost &= there
        total += int(ghost.sum())
        if sight.drift is not None:
            found += int((ghost & (np.abs(sight.drift).sum(axis=2) > 0)).sum())
    return found, total


def errors(evidence: Evidence, truth: Array) -> dict[str, Array]:
    """Return the squared error (H, W) of each choice, in mu-law values over the peak."""
    peak = 1.0 / min(1.0, *(sight.view.ratio for sight in evidence.sights))
    at = torch.tensor([peak], dtype=torch.float32)
    reference, frames = torch.from_numpy(evidence.reference), torch.from_numpy(evidence.frames)[None]
    code = torch.from_numpy(np.moveaxis(mu_law(np.minimum(truth, peak)), -1, 0)[None])
    true = in_peak(code, at).clamp(0, 1)

    def error(found: torch.Tensor) -> Array:
        return np.asarray((in_peak(found, at).clamp(0, 1) - true).square().mean(1)[0])

    result = {
        "reference": error(reference[:, :3]),
        "classical": error(mix(reference, frames, frames[:, :, 7:8])[0]),
    }
    static = error(mix(reference, frames, torch.ones_like(frames[:, :, 7:8]))[0])
    choices = [*result.values(), static, *(error(frames[:, k, :3]) for k in range(frames.shape[1]))]
    result["best choice"] = np.where(evidence.gate > 0.5, np.minimum.reduce(choices), static)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    scenes = load_scenes(options.scenes, validation=True)
    rows: dict[str, list[list[float]]] = defaultdict(list)
    found = total = 0
    for number in range(options.count):
        plan = draw_plan(scenes, np.random.default_rng((number, 12)))
        if not plan.movers:
            continue
        sim = take_all([plan], number)[0].simulated()
        bracket = sim.bracket()
        proxies = [shrink(frame) for frame in bracket.frames]
        alignments = align(proxies, bracket.reference)
        evidence = gather_evidence(bracket.frames, proxies, alignments, bracket.reference)
        if evidence is None:
            continue
        here, all_of_it = followed(evidence, object_in_reference(plan))
        found, total = found + here, total + all_of_it
        clipped = sim.moving & (evidence.reference[0, 4] < 0.5) & (min(sim.relative_exposures) < 0.95)
        for name, error in errors(evidence, sim.truth).items():
            regions = (np.ones_like(sim.moving), sim.moving, clipped)
            rows[name].append(
                [-10 * np.log10(error[r].mean() + 1e-7) if r.sum() > 30 else np.nan for r in regions]
            )
    print(f"followed: {found / total:.2f} of the ghosts on objects")
    for name, values in rows.items():
        whole, moving, clipped_db = np.nanmean(values, axis=0)
        print(f"{name:12s} whole {whole:.2f}  moving {moving:.2f}  moving and clipped {clipped_db:.2f}")


if __name__ == "__main__":
    main()
