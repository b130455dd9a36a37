"""Methods over HDR video whose truth is known -> one table of quality and cost.

Each frame whose truth is known is judged, by the exposure it was taken with. Always there are the reference
alone, the merge of neighbours in line, and the one by optical flow; then the networks, the coarse one alone
and both. `methods` has them all, and runs them as `video` does.

PSNR and SSIM after the mu-law and in linear light, 1.0 = where the shortest exposure clips, as the papers
have it; PU21 sees 1.0 as 100 cd/m^2 and stands in for HDR-VDP-2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .coarsetofine import Role, is_released
from .errors import HdrmergeError
from .evaluate import environment, mean, plain_values
from .exposure import Float
from .infer import engines
from .methods import METHODS, Method, Way, roles_of
from .metrics import psnr_linear, psnr_mu, pu21_psnr, ssim_linear, ssim_mu
from .sequences import Recorded, read_scene, scenes_in
from .vicinity import Vicinity

METRICS = ("psnr_mu", "psnr_l", "ssim_mu", "ssim_l", "pu21")
EXPOSURES = ("low", "middle", "high")  # of the reference
REFERENCE: Method = "reference"

Given = Mapping[Role, str | None]
"""Role -> the weights file or name that was asked for, if any."""


@dataclass(frozen=True)
class Judged:
    """A frame: the ``exposure`` it was taken with, and by method the scores, and what it took [s]."""

    scene: str
    frame: str
    exposure: str
    megapixels: float
    scores: dict[str, dict[str, float]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class VideoEvaluation:
    """The judged frames of a dataset, and why scenes failed."""

    path: Path
    device: str
    precision: str
    frames: list[Judged]
    failures: dict[str, str]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return one row a method: each metric by exposure and over ``all`` frames, and s a megapixel.

        ``gain`` is over the reference alone; means are over frames. A method is judged on all frames for
        which it has networks, ``frames`` of them.
        """
        methods = dict.fromkeys(name for frame in self.frames for name in frame.scores)
        return {method: self._row(method) for method in methods}

    def _row(self, method: str) -> dict[str, Any]:
        frames = [frame for frame in self.frames if method in frame.scores]

        def means(value: Callable[[Judged], float]) -> dict[str, float]:
            by_exposure = {
                name: mean(value(frame) for frame in frames if frame.exposure == name) for name in EXPOSURES
            }
            return by_exposure | {"all": mean(map(value, frames))}

        def score(metric: str, over: str | None = None) -> Callable[[Judged], float]:
            def value(frame: Judged) -> float:
                least = frame.scores[over][metric] if over else 0.0
                return frame.scores[method][metric] - least

            return value

        return {
            **{metric: means(score(metric)) for metric in METRICS},
            "gain": {metric: means(score(metric, REFERENCE)) for metric in METRICS},
            "seconds_per_megapixel": sum(frame.seconds[method] for frame in frames)
            / max(sum(frame.megapixels for frame in frames), 1e-9),
            "frames": len(frames),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values; None stands for what could not be judged."""
        plain: dict[str, Any] = plain_values(
            {
                "dataset": str(self.path),
                "layout": "deephdrvideo",
                "rows": self.rows(),
                "frames": [vars(frame) for frame in self.frames],
                "failed": self.failures,
                "environment": environment() | {"device": self.device, "precision": self.precision},
            }
        )
        return plain


def evaluate_video(
    path: Path,
    given: Given,
    *,
    count: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    fit_scale: bool = False,
    progress: Callable[[float], None] = lambda share: None,
    failed: Callable[[str, HdrmergeError], None] = lambda name, error: None,
) -> VideoEvaluation:
    """Judge all methods on the first ``count`` scenes of a dataset that `sequences.scenes_in` knows.

    ``given`` are networks of one's own, each for the number of exposures it was trained for. ``fit_scale``
    brings each truth to the scale of its frame first. A scene that raises an HdrmergeError is left out and
    told to ``failed``.
    """
    judged: list[Judged] = []
    failures: dict[str, str] = {}
    folders = scenes_in(path)[:count]
    for done, folder in enumerate(folders):
        name = folder.relative_to(path).as_posix() if folder != path else folder.name
        try:
            judged += _judge(read_scene(folder, name), given, device, precision, fit_scale)
        except HdrmergeError as error:
            failures[name] = str(error)
            failed(name, error)
        progress((done + 1) / len(folders))
    return VideoEvaluation(path, device, precision, judged, failures)


def methods_for(count: int, given: Given) -> list[Method]:
    """Return the methods that are judged on so many exposures, from the simplest on."""

    def there(method: Method) -> bool:
        known = engines()
        return all(given.get(role) or (known and is_released(role, count)) for role in roles_of(method))

    return [method for method in reversed(METHODS) if there(method)]


def _judge(scene: Recorded, given: Given, device: str, precision: str, fit_scale: bool) -> list[Judged]:
    networks: dict[Role, str | None] = {"coarse": given.get("coarse"), "refine": given.get("refine")}
    ways = {  # each with frames of its own at hand: they look differently far
        method: Way.opened(method, Vicinity(scene.footage, scene.kinds), networks, device, precision)
        for method in methods_for(scene.count, given)
    }
    frames = []
    for number in scene.judged:
        truth = scene.truth(number)
        if fit_scale:
            truth = fitted(truth, ways[REFERENCE].radiance(number)[0])
        scores, seconds = {}, {}
        for method, way in ways.items():
            start = time.perf_counter()
            radiance, _ = way.radiance(number)
            seconds[str(method)] = time.perf_counter() - start
            scores[str(method)] = score(radiance, truth)
        megapixels = truth.shape[0] * truth.shape[1] / 1e6
        name = scene.footage.names[number]
        frames.append(Judged(scene.name, name, _exposure_of(scene, number), megapixels, scores, seconds))
    return frames


def _exposure_of(scene: Recorded, number: int) -> str:
    kind = scene.kinds[number]
    if kind == 0:
        return "low"
    return "high" if kind == scene.count - 1 else "middle"


def score(radiance: Float, truth: Float) -> dict[str, float]:
    """Return all metrics of a frame (H, W, 3), 1.0 = where the shortest exposure clips."""
    found = np.clip(radiance, 0.0, 1.0)
    values = (
        psnr_mu(found, truth, peak=1.0),
        psnr_linear(found, truth, peak=1.0),
        ssim_mu(found, truth, peak=1.0),
        ssim_linear(found, truth, peak=1.0),
        pu21_psnr(found, truth),
    )
    return dict(zip(METRICS, values, strict=True))


MID_TONES = (0.05, 0.8)  # of what the reference recorded, its clipping 1.0: what a scale is fitted to


def fitted(truth: Float, reference: Float) -> Float:
    """Return a truth times one factor: the median of the ``reference`` over it, where that is a mid-tone."""
    low, high = (share * float(reference.max()) for share in MID_TONES)
    fair = ((reference > low) & (reference < high) & (truth > 0)).all(axis=-1)
    factor = float(np.median(reference[fair] / truth[fair])) if fair.any() else 1.0
    return np.asarray(np.clip(truth * np.float32(factor if math.isfinite(factor) else 1.0), 0.0, 1.0))
