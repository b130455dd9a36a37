"""What a run looks like, as one picture: its curves, and results beside the truth.

Drawn with OpenCV, since nothing else here needs a plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import OutputError
from ..write import unwritable
from .lesson import Lesson, Lot, Sample, Source
from .train import State
from .validate import Scores

Picture = NDArray[np.uint8]
"""(h, w, 3), blue first, as OpenCV has it."""

PANEL = (280, 432)  # (h, w) of a diagram [px]
MARGIN = (30, 12, 26, 52)  # top, right, bottom, left of its axes [px]
LARGEST = (216, 320)  # (h, w) of a sample at most [px]
COLOURS = ((180, 110, 30), (40, 130, 230), (60, 60, 200), (90, 150, 60), (150, 60, 150), (110, 110, 110))
BLACK, GREY = (40, 40, 40), (190, 190, 190)


@dataclass(frozen=True)
class Line:
    """One line of a diagram; ``faint`` ones are there to compare with."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: tuple[int, int, int]
    faint: bool = False


def draw(
    path: Path,
    lesson: Lesson[Source, Lot, Sample],
    network: nn.Module,
    state: State,
    scores: Scores,
    held_out: Sequence[Sample],
) -> None:
    """Write the curves of a run and the results of its network on a few examples as a PNG."""
    pictures = [diagrams(state, scores, lesson.rivals[0], lesson.measure)]
    if held_out:
        pictures.append(samples(lesson, network, held_out))
    encoded, data = cv2.imencode(".png", _stacked(pictures))
    if not encoded:
        raise OutputError(f"{path}: OpenCV cannot encode the picture")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data.tobytes())
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


# --- curves ---------------------------------------------------------------------------------------


def diagrams(state: State, scores: Scores, rival: str, measure: str = "PSNR-mu") -> Picture:
    """Draw the loss, the held-out scores by region and the learning rate over the minutes of training."""
    minutes = [row[0] / 60 for row in state.curve]
    loss = list(zip(minutes, smoothed([row[1] for row in state.curve]), strict=True))
    rate = [(minute, row[2] * 1e3) for minute, row in zip(minutes, state.curve, strict=True)]
    lines = []
    for region, colour in zip(scores.get(rival, {}), COLOURS, strict=False):
        found = [(row["elapsed"] / 60, row[region]) for row in state.history if region in row]
        lines.append(Line(region.replace("_", " and "), found, colour))
        level = scores.get(rival, {}).get(region, math.nan)
        ends = [(0.0, level), (found[-1][0], level)] if found else []
        lines.append(Line("", ends, colour, faint=True))
    return np.hstack(
        [
            diagram("loss", [Line("", loss, COLOURS[0])]),
            diagram(f"held-out {measure} [dB], faint: {rival}", lines),
            diagram("learning rate [1/1000]", [Line("", rate, COLOURS[0])]),
        ]
    )


def smoothed(values: Sequence[float], share: float = 0.1) -> list[float]:
    """Return the exponential mean up to each value."""
    result: list[float] = []
    for value in values:
        result.append(value if not result else result[-1] + share * (value - result[-1]))
    return result


def diagram(title: str, lines: Sequence[Line]) -> Picture:
    """Draw lines over minutes, with axes that hold them all."""
    picture = np.full((*PANEL, 3), 255, np.uint8)
    top, right, bottom, left = MARGIN
    x0, x1, y0, y1 = left, PANEL[1] - right, PANEL[0] - bottom, top
    _write(picture, title, (left, 20), BLACK)
    drawn = [[point for point in line.points if math.isfinite(point[1])] for line in lines]
    points = [point for line in drawn for point in line]
    if not points:
        return picture
    end = max(max(x for x, _ in points), 1e-3)
    low, high = min(y for _, y in points), max(y for _, y in points)
    margin = max((high - low) * 0.05, abs(high) * 1e-3, 1e-6)
    low, high = low - margin, high + margin

    def place(point: tuple[float, float]) -> tuple[int, int]:
        x, y = point[0] / end, (point[1] - low) / (high - low)
        return round(x0 + x * (x1 - x0)), round(y0 + y * (y1 - y0))

    for value in ticks(low, high):
        y = place((0, value))[1]
        cv2.line(picture, (x0, y), (x1, y), GREY, 1)
        _write(picture, f"{value:g}", (4, y + 4), BLACK)
    for value in ticks(0, end):
        x = place((value, low))[0]
        cv2.line(picture, (x, y0), (x, y0 + 4), BLACK, 1)
        _write(picture, f"{value:g}", (x - 6, y0 + 18), BLACK)
    _write(picture, "min", (x1 - 22, y0 - 6), BLACK)
    cv2.rectangle(picture, (x0, y1), (x1, y0), BLACK, 1)
    named = 0
    for line, finite in zip(lines, drawn, strict=True):
        if not finite:
            continue
        corners = [place(point) for point in finite]
        for a, b in pairwise(corners):
            cv2.line(picture, a, b, line.colour, 1 if line.faint else 2, cv2.LINE_AA)
        if len(corners) == 1:
            cv2.circle(picture, corners[0], 2, line.colour, -1, cv2.LINE_AA)
        if line.label:
            named += 1
            _write(picture, line.label, (x0 + 8, y1 + 16 * named), line.colour)
    return picture


def ticks(low: float, high: float) -> list[float]:
    """Return three to eight round numbers between two.

    >>> ticks(0.0, 47.0)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(k * step, 9) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


# --- results --------------------------------------------------------------------------------------


def samples(
    lesson: Lesson[Source, Lot, Sample], network: nn.Module, held_out: Sequence[Sample], number: int = 4
) -> Picture:
    """Show the columns of a lesson for a few samples, the network's result and the truth among them."""
    rows = []
    for sample in held_out[:: max(len(held_out) // number, 1)][:number]:
        codes = lesson.pictures(network, sample)
        rows.append(np.hstack([_shown(code) for code in codes.values()]))
    heading = np.full((28, rows[0].shape[1], 3), 255, np.uint8)
    for column, name in enumerate(lesson.shown):
        _write(heading, name, (column * rows[0].shape[1] // len(lesson.shown) + 8, 20), BLACK)
    return _stacked([heading, *rows])


def _shown(code: Tensor) -> Picture:
    """Return codes (1, 3, h, w) as a picture, shrunk to `LARGEST`, with a white line around."""
    codes = (code[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
    picture = np.ascontiguousarray(np.moveaxis(codes, 0, -1)[..., ::-1])
    zoom = min(1.0, LARGEST[0] / picture.shape[0], LARGEST[1] / picture.shape[1])
    size = max(round(picture.shape[1] * zoom), 1), max(round(picture.shape[0] * zoom), 1)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.copyMakeBorder(small, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255)))


def _write(picture: Picture, text: str, where: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(picture, text, where, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _stacked(pictures: Sequence[Picture]) -> Picture:
    """Lay pictures one below the other, filled up with white on the right."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [
        np.pad(picture, ((0, 0), (0, width - picture.shape[1]), (0, 0)), constant_values=255)
        for picture in pictures
    ]
    return np.vstack(padded)
