"""Measure what a wrong response curve costs: brackets of cameras whose curve nobody told the program.

    python benchmarks/wrong_curve.py SCENES --network trust

Each simulated bracket is taken by three cameras: its own (sRGB, gamma 2.2 or a random smooth curve, S-shaped
as those of real cameras), and two whose light is that curve's to the power of exp(d), d = -0.3 and 0.3. It is
merged with the true curve ("known") and as a user does ("found"). Last, the curve bent by d is forced upon
the frames of the camera that does not have it ("forced"): then the truth is what the scene looks like through
the curve in use, and the same is done to the reference alone, since what a curve does to a single frame is no
fault of merging. Figures are gains over the reference alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from hdrmerge.dataset import Case, linear_reference, open_dataset
from hdrmerge.evaluate import score
from hdrmerge.exposure import Float, Response
from hdrmerge.pipeline import MergeOptions, merge_bracket
from hdrmerge.simulate import expose, record
from hdrmerge.simulate_files import write_jpegs
from hdrmerge.training.examples import as_seen

POWERS = (-0.3, 0.3)
REGIONS = ("whole", "moving", "moving_saturated", "static")


def bent(curve: Response, power: float) -> Response:
    """Return a curve whose light is raised to the power of exp(``power``), as a wrong gamma does."""
    return Response(f"bent{power:+g}", curve.table ** np.float32(np.exp(power)))


def gains(case: Case, merged: Float, alone: Float) -> dict[str, float]:
    """Return how much better than the reference alone a merge is, PSNR of mu-law values [dB]."""
    of_merge, of_reference = (score(result, case)["psnr_mu"] for result in (merged, alone))
    return {region: of_merge[region] - of_reference[region] for region in REGIONS}


def taken_by(case: Case, curve: Response, folder: Path) -> list[Path]:
    """Write the bracket of a case as a camera with another curve takes it."""
    sim = case.simulated
    assert sim is not None
    camera = replace(sim.camera, response=curve)
    rng = np.random.default_rng(1)
    frames = tuple(
        record(expose(view, ratio), camera, shot.iso or 100.0, rng)
        for view, ratio, shot in zip(sim.views, sim.relative_exposures, sim.shots, strict=True)
    )
    return write_jpegs(replace(sim, frames=frames, camera=camera), folder)


def judge(case: Case, network: str, folder: Path) -> dict[str, dict[str, float]]:
    """Return the gains of one bracket by camera and by what the program was told."""
    if case.curve is None:
        return {}
    rows = {}

    def add(name: str, paths: list[Path], choice: str | Response, used: Response, seen: Case) -> None:
        reference = str(paths[case.reference])
        options = MergeOptions(
            reference=reference, exposures=case.exposures, response=choice, network=network
        )
        alone, _ = linear_reference(Path(reference), used)
        rows[name] = gains(seen, merge_bracket(paths, options)[0].pixels, alone)

    own = case.curve
    paths = case.files(folder / "own")
    add("own curve, known", paths, own, own, case)
    add("own curve, found", paths, "auto", own, case)
    for power in POWERS:
        curve = bent(own, power)
        theirs = taken_by(case, curve, folder / f"{power}")
        add(f"exp({power:+g}), known", theirs, curve, curve, case)
        add(f"exp({power:+g}), found", theirs, "auto", curve, case)
        seen = replace(case, truth=as_seen(case.truth, own, curve))
        add(f"exp({power:+g}), forced", paths, curve, curve, seen)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--network", default="trust")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dataset = open_dataset(options.scenes, options.count)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(len(dataset.names)):
        with tempfile.TemporaryDirectory() as folder:
            for curve, row in judge(dataset.case(number), options.network, Path(folder)).items():
                for region, gain in row.items():
                    found[curve][region].append(gain)
    means = {
        curve: {
            region: float(np.nanmean([g for g in values if np.isfinite(g)])) for region, values in row.items()
        }
        for curve, row in found.items()
    }
    for curve, row in means.items():
        print(f"{curve:18s}", *(f"{region} {gain:+6.2f} dB" for region, gain in row.items()), sep="  ")
    if options.json:
        options.json.write_text(json.dumps(means, indent=2))


if __name__ == "__main__":
    main()
