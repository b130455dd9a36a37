"""Methods over the cases of a dataset -> one table of quality and cost.

Three methods are always judged: the reference frame alone, linearised; the plain merge of all frames,
aligned; and the classical merge, in which what moves is seen once. Networks follow. All are judged by
`metrics.py` up to the radiance where the shortest frame clips, and a case counts for all or for none.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from . import __version__
from .bracket import Shot
from .dataset import Case, Dataset, linear_reference
from .errors import HdrmergeError
from .exposure import Array, Float, Mask, mu_law
from .metrics import psnr_linear, psnr_mu, pu21_psnr, regions, ssim_linear, ssim_mu
from .pipeline import MergeOptions, merge_bracket, open_network, paints
from .write import write_preview

REFERENCE, PLAIN, CLASSICAL = "reference alone", "plain merge", "classical"
EVERYWHERE = " everywhere"  # after the name of a network that painted the whole picture

METRICS = ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l", "pu21")
REGIONS = ("whole", "moving", "saturated", "moving_saturated", "static")

CROP, PANEL = 256, 720  # [px] side of a crop, and widest picture in a strip

MID_TONES = (0.05, 0.8)  # [linear] of the reference: what a scale is fitted to

SHORTEST = 1.05  # where the shortest frame clips, if it is as bright as the reference

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "torch")

Scores = dict[str, dict[str, float]]
"""Metric -> region -> value, nan where there is nothing to judge."""


@dataclass(frozen=True)
class Outcome:
    """What one method made of one case; ``seconds`` by stage, none for the reference alone."""

    scores: Scores
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def work(self) -> float:
        """Seconds of everything but reading files."""
        return sum(value for stage, value in self.seconds.items() if stage != "read")


@dataclass(frozen=True)
class Judged:
    """One case and the outcome of each method; ``moves`` is None where nobody knows."""

    name: str
    about: dict[str, Any]
    megapixels: float
    moves: bool | None
    outcomes: dict[str, Outcome]


@dataclass(frozen=True)
class Evaluation:
    """The judged cases of a dataset, and why others failed."""

    dataset: Dataset
    device: str
    precision: str
    cases: list[Judged]
    failures: dict[str, str]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return one row a method: means over the cases that have a value.

        ``gain`` is over the reference alone. ``moving_sets`` and ``static_sets`` are the PSNR-mu [dB]
        of whole pictures in which something moves or nothing does, ``over_plain`` over the plain merge.
        Seconds are those of a merge without reading, for each megapixel of the picture; those of judging,
        and painting, for a case.
        """
        methods = list(self.cases[0].outcomes) if self.cases else []
        return {method: self._row(method) for method in methods}

    def _row(self, method: str) -> dict[str, Any]:
        def means(value: Callable[[Judged, str, str], float]) -> Scores:
            return {
                metric: {
                    region: mean(value(case, metric, region) for case in self.cases) for region in REGIONS
                }
                for metric in METRICS
            }

        def score(case: Judged, metric: str, region: str, of: str) -> float:
            return case.outcomes[of].scores[metric][region]

        def own(case: Judged, metric: str, region: str) -> float:
            return score(case, metric, region, method)

        def gain(case: Judged, metric: str, region: str) -> float:
            return own(case, metric, region) - score(case, metric, region, REFERENCE)

        def sets(moves: bool) -> dict[str, Any]:
            cases = [case for case in self.cases if case.moves is moves]
            whole = {
                of: [score(c, "psnr_mu", "whole", of) for c in cases] for of in (method, REFERENCE, PLAIN)
            }
            return {
                "cases": len(cases),
                "psnr_mu": mean(whole[method]),
                "gain": mean(np.subtract(whole[method], whole[REFERENCE])),
                "over_plain": mean(np.subtract(whole[method], whole[PLAIN])),
            }

        outcomes = [case.outcomes[method] for case in self.cases]
        megapixels = sum(case.megapixels for case in self.cases)
        return {
            **means(own),
            "gain": means(gain),
            "moving_sets": sets(True),
            "static_sets": sets(False),
            "seconds_per_megapixel": sum(outcome.work for outcome in outcomes) / megapixels
            if method != REFERENCE
            else math.nan,
            "judging_seconds": mean(
                outcome.seconds.get("deghost", math.nan) + outcome.seconds.get("fuse", 0.0)
                for outcome in outcomes
            ),
            "device": "cpu" if method in (REFERENCE, PLAIN, CLASSICAL) else self.device,
            "cases": len(self.cases),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; None stands for what could not be judged."""
        cases = [
            {
                "case": case.name,
                **case.about,
                "megapixels": case.megapixels,
                "methods": {
                    name: {**outcome.scores, "seconds": outcome.seconds}
                    for name, outcome in case.outcomes.items()
                },
            }
            for case in self.cases
        ]
        plain: dict[str, Any] = plain_values(
            {
                "dataset": str(self.dataset.path),
                "layout": self.dataset.layout,
                "seed": self.dataset.seed,
                "rows": self.rows(),
                "cases": cases,
                "failed": self.failures,
                "environment": environment() | {"device": self.device, "precision": self.precision},
            }
        )
        return plain


def evaluate(
    dataset: Dataset,
    networks: Sequence[str] = (),
    *,
    device: str = "auto",
    precision: str = "auto",
    fit_scale: bool = False,
    everywhere: bool = False,
    save: Path | None = None,
    progress: Callable[[float], None] = lambda share: None,
    failed: Callable[[str, HdrmergeError], None] = lambda name, error: None,
) -> Evaluation:
    """Judge the standard methods and ``networks`` (names, or paths of files) on all cases.

    ``fit_scale`` brings each truth to the scale of its frames first. With ``everywhere`` a network that
    paints is judged a second time, painting the whole picture. Pictures to look at are written to
    ``save``. A case that raises an HdrmergeError is left out and told to ``failed``.
    """
    judged, failures = [], {}
    for number, name in enumerate(dataset.names):
        try:
            case = dataset.case(number)
            judged.append(_judge(case, networks, device, precision, fit_scale, everywhere, save))
        except HdrmergeError as error:
            failures[name] = str(error)
            failed(name, error)
        progress((number + 1) / len(dataset.names))
    return Evaluation(dataset, device, precision, judged, failures)


def merge_options(
    case: Case, paths: Sequence[Path], network: str = "none", device: str = "auto", precision: str = "auto"
) -> MergeOptions:
    """Return the options by which a case is merged; the reference is named."""
    settings: dict[str, Any] = {"network": network}
    if network != "none":
        settings |= {"device": device, "precision": precision}
    return MergeOptions(
        reference=str(paths[case.reference]), exposures=case.exposures, response=case.response, **settings
    )


def _judge(
    case: Case,
    networks: Sequence[str],
    device: str,
    precision: str,
    fit_scale: bool,
    everywhere: bool,
    save: Path | None,
) -> Judged:
    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="hdrmerge-") as folder:
        paths = case.files(Path(folder))
        classical = merge_options(case, paths)
        options = {PLAIN: replace(classical, deghost="none"), CLASSICAL: classical}
        for network in networks:
            if network not in ("none", *options):
                options[network] = merge_options(case, paths, network, device, precision)
                if everywhere and paints(open_network(options[network])[0]):
                    options[network + EVERYWHERE] = replace(options[network], everywhere=True)
        plain, report = merge_bracket(paths, options.pop(PLAIN))
        reference, _ = linear_reference(paths[case.reference], case.curve)
        if fit_scale:
            case = _fitted(case, plain.pixels, reference)
        strip = _Strip(case)
        for name, result, seconds in ((REFERENCE, reference, {}), (PLAIN, plain.pixels, report.seconds)):
            outcomes[name] = Outcome(score(result, case), seconds)
            if save:
                strip.add(name, result)
        del plain, reference
        for name, choice in options.items():
            merged, report = merge_bracket(paths, choice)
            outcomes[name] = Outcome(score(merged.pixels, case), report.seconds)
            if save:
                strip.add(name, merged.pixels)
    if save:
        strip.write(save)
    moves = None if case.moving is None else bool(case.moving.any())
    return Judged(case.name, case.about, case.megapixels, moves, outcomes)


def _fitted(case: Case, plain: Float, reference: Float) -> Case:
    """Return the case with its truth times one factor: the median of the plain merge over the truth.

    Only pixels count that are mid-tones in the reference; what moved there does not sway a median.
    """
    low, high = MID_TONES
    fair = ((reference > low) & (reference < high) & (case.truth > 0)).all(axis=-1)
    if not fair.any():
        return case
    return replace(case, truth=case.truth * np.median(plain[fair] / case.truth[fair]))


def score(result: Float, case: Case) -> Scores:
    """Judge a radiance map up to the radiance where the shortest frame clips.

    The peak of PSNR and SSIM is that radiance, and PU21 sees 1.0 as 100 cd/m^2. Where the reference is
    the shortest frame itself, what it clips is not judged as a region: no frame shows what is there.
    """
    peak = case.peak
    result, truth = (np.minimum(pixels, np.float32(peak)) for pixels in (result, case.truth))
    judged = regions(np.zeros_like(case.saturated) if case.moving is None else case.moving, case.saturated)
    if case.moving is None:
        judged = {region: judged[region] for region in ("whole", "saturated")}
    if peak <= SHORTEST:
        judged = {region: mask for region, mask in judged.items() if "saturated" not in region}
    scores: Scores = {metric: dict.fromkeys(REGIONS, math.nan) for metric in METRICS}
    for region, mask in judged.items():
        if not mask.any():
            continue
        inside, true = result[mask], truth[mask]
        values = (
            psnr_mu(inside, true, peak=peak),
            psnr_linear(inside, true, peak=peak),
            ssim_mu(result, truth, mask, peak),
            ssim_linear(result, truth, mask, peak),
            pu21_psnr(inside, true),
        )
        for metric, value in zip(METRICS, values, strict=True):
            scores[metric][region] = value
    return scores


def mean(values: Iterable[float]) -> float:
    """Return the mean of the finite values, nan without one."""
    finite = [float(value) for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


# --- pictures to look at --------------------------------------------------------------------------


class _Strip:
    """The truth and what each method made of it, side by side; the file's name lists them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.names: list[str] = []
        self.pictures: list[Array] = []
        self.error: Float = np.zeros(case.truth.shape[:2], np.float32)
        self.add("truth", case.truth)

    def add(self, name: str, result: Float) -> None:
        mu = mu_law(np.clip(result / np.float32(self.case.peak), 0.0, 1.0))
        self.pictures.append(np.rint(mu * 255).astype(np.uint8))
        self.names.append(Path(name).name.replace(".onnx", ""))
        self.error = np.square(mu - self.pictures[0] / np.float32(255)).sum(axis=-1)  # of the last one

    def write(self, folder: Path) -> None:
        name = self.case.name.replace("/", "_")
        at = worst_window(self.error, self.case.moving)
        self._write(folder / f"{name}, {', '.join(self.names)}.png", self.pictures)
        crops = [picture[at] for picture in self.pictures]
        self._write(folder / f"{name} crop, {', '.join(self.names)}.png", crops)

    def _write(self, path: Path, pictures: Sequence[Array]) -> None:
        height, width = pictures[0].shape[:2]
        if width > PANEL:
            size = PANEL, max(round(height * PANEL / width), 1)
            pictures = [cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in pictures]
        write_preview(np.ascontiguousarray(np.hstack(pictures)), path, shot=Shot(path), force=True)


def worst_window(error: Float, moving: Mask | None) -> tuple[slice, slice]:
    """Return the `CROP` x `CROP` px with the largest sum of ``error`` (H, W), where something moves."""
    if moving is not None and moving.any():
        error = error * moving
    rows, columns = (min(CROP, length) for length in error.shape)
    total = cv2.integral(error, sdepth=cv2.CV_64F)
    sums = (
        total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    )
    top, left = (int(index) for index in np.unravel_index(int(np.argmax(sums)), sums.shape))
    return slice(top, top + rows), slice(left, left + columns)


# --- where it was measured ------------------------------------------------------------------------


def environment() -> dict[str, Any]:
    """Return what the figures depend on: the program, its libraries and the machine.

    ``peak_memory_mb`` is the largest the whole process has been until now, data and metrics included.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "hdrmerge": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": _threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "peak_memory_mb": _peak_memory(),
    }


def _threads() -> int | None:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _peak_memory() -> float | None:
    """Return the largest resident set of this process [MB], None where the system does not tell."""
    if sys.platform == "win32":
        return None
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / 1e6 if sys.platform == "darwin" else largest * 1024 / 1e6  # bytes there, KiB elsewhere


def _commit() -> str | None:
    """Return the commit of the checkout this file is in, "-dirty" where it was changed; None elsewhere."""
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        ran = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip() or None


def plain_values(value: Any) -> Any:
    """Return nested values with numbers rounded, and None for those that JSON does not know."""
    if isinstance(value, dict):
        return {str(key): plain_values(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(one) for one in value]
    if isinstance(value, float):
        return round(value, 5) if math.isfinite(value) else None
    return value
