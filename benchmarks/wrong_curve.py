"""Measure what a wrong response curve costs: merges of simulated brackets under curves that are not theirs.

    python benchmarks/wrong_curve.py SCENES --network trust

Every bracket is merged with its true curve, with the curve that the program finds, and with the true
curve to the power of exp(d), d = -0.3, -0.15, 0.15, 0.3, forced upon it. A merge is judged by its gain
over the reference alone, both under the same curve: what a curve does to a single frame is no fault of
merging. The truth is then what the scene looks like through the curve in use.
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
from hdrmerge.training.examples import as_seen

POWERS = (-0.3, -0.15, 0.15, 0.3)
REGIONS = ("whole", "moving", "moving_saturated", "static")


def bent(curve: Response, power: float) -> Response:
    """Return a curve whose light is raised to the power of exp(``power``), as a wrong gamma does."""
    return Response(f"bent{power:+g}", curve.table ** np.float32(np.exp(power)))


def gains(case: Case, merged: Float, alone: Float) -> dict[str, float]:
    """Return how much better than the reference alone a merge is, PSNR of mu-law values [dB]."""
    of_merge, of_reference = (score(result, case)["psnr_mu"] for result in (merged, alone))
    return {region: of_merge[region] - of_reference[region] for region in REGIONS}


def judge(case: Case, network: str, folder: Path) -> dict[str, dict[str, float]]:
    """Return the gains of one bracket by the curve that it was merged under."""
    if case.curve is None or case.simulated is None or case.simulated.camera.bits != 8:
        return {}
    paths, curve = case.files(folder), case.curve
    rows = {}
    curves: dict[str, str | Response] = {"known": curve, "found": "auto"}
    curves |= {f"exp({d:+g})": bent(curve, d) for d in POWERS}
    for name, choice in curves.items():
        used = curve if isinstance(choice, str) else choice
        seen = replace(case, truth=as_seen(case.truth, curve, used))
        options = MergeOptions(
            reference=str(paths[case.reference]), exposures=case.exposures, response=choice, network=network
        )
        merged, _ = merge_bracket(paths, options)
        rows[name] = gains(seen, merged.pixels, linear_reference(paths[case.reference], used)[0])
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
        print(f"{curve:12s}", *(f"{region} {gain:+6.2f} dB" for region, gain in row.items()), sep="  ")
    if options.json:
        options.json.write_text(json.dumps(means, indent=2))


if __name__ == "__main__":
    main()
