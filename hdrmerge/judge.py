"""Consecutive shots of one camera -> whether they look like one bracket, and how much.

What speaks for a bracket, strongest first: the camera marked its frames (EXIF ExposureMode 2); the
stated compensation changes as the exposures do; the exposures are evenly spaced and come in an order
that cameras use; no time was lost between them. What speaks against it: automatic exposure with the
same compensation throughout, which is a camera that metered every picture anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, median
from typing import Literal

from .bracket import Shot

SAME = 0.2
"""Exposures closer than this are equal [stops]; the smallest step a camera brackets by is 1/3."""

GAP = 2.0
"""Longest pause within a bracket [s]."""

GAP_SURE = 5.0
"""Longest pause where tags show a bracket beyond doubt [s]: each frame may have been released by hand."""

GAP_UNSURE = 1.0
"""Longest pause where nothing but the exposures shows a bracket [s]: less than it takes to aim anew."""

MOST = 20
"""Most frames of a bracket; cameras stop at 9, people do not."""

_EVEN = 0.3  # [stops] by which steps may differ: shutter speeds are rounded (1/13, 1/6, 0.3: 1.1 and 0.8)
_FOLLOWS = 0.5  # [stops] between a change of compensation and the change of exposure it made
_CLEAR_STEP = 0.6  # [stops]; less may be a dial turned by a click or two, or clouds
_ANY_STEP = 0.5  # [stops]
_DARK_FRAME = 1.0  # [s]; exposures from here on may be followed by one as long with the shutter closed
_SAME_FOCAL = 0.02  # of the focal length; some lenses report it anew for every picture
_RHYTHM = 2.5  # of the shortest pause of a set, and a second: what the longest may take
_RELEASE = 0.5  # [s] between frames of one press of the button, at most


@dataclass(frozen=True)
class Take:
    """A shot as grouping sees it.

    ``light`` is the exposure [stops], larger is brighter, NaN where it is unknown. ``second`` is the
    time stamp [s], None where there is none to believe; ``resolution`` [s] is its least unit.
    """

    shot: Shot
    light: float
    second: float | None
    resolution: float

    @property
    def seconds_open(self) -> float:
        return self.shot.exposure_time or 0.0


@dataclass(frozen=True)
class Verdict:
    """How well a bracket explains some shots: the larger ``score`` explains more of them better."""

    score: float
    why: str


def judge(takes: Sequence[Take], gap: float | None = None) -> Verdict | None:
    """Judge whether consecutive shots are one bracket; None where too little speaks for it.

    The shots are known to differ in exposure and to share camera, size and focal length. ``gap`` is
    the longest pause [s] that somebody vouches for: no pattern is asked for then, and the pace hardly
    weighs.
    """
    found = _signs(takes) if len(takes) > 1 else None
    if found is None and gap is not None and len(takes) > 1 and _may_be_wanted(takes):
        found = "--gap: ", gap, 0.75 * (order_quality([take.light for take in takes]) or 0.8)
    if found is None:
        return None
    label, reach, quality = found
    shortest = [shortest_pause(a, b) for a, b in pairwise(takes)]
    longest = [_longest_pause(a, b) for a, b in pairwise(takes)]
    if max(shortest) > (reach if gap is None else gap):
        return None
    hurried = mean(shortest) + takes[0].resolution / 2 <= reach
    if gap is None and not (hurried and max(shortest) <= 1.0 + _RHYTHM * min(longest)):
        return None
    uneven = math.log2(max(1.0, max(shortest) / max(median(longest), 1e-3)))
    waited = sum(min(_likely_pause(a, b), GAP_SURE) for a, b in pairwise(takes))
    pace = (0.1 * waited + 0.5 * uneven) * (1.0 if gap is None else 0.02)
    return Verdict(len(takes) * quality - 1.0 - pace, label + summary(takes))


def _signs(takes: Sequence[Take]) -> tuple[str, float, float] | None:
    """Return what shows that shots are a bracket: in words, how long its pauses may be [s], how well."""
    lights = [take.light for take in takes]
    order, step, bias = order_quality(lights), even_step(lights), compensation(takes)
    modes = {take.shot.exposure_mode for take in takes}
    if len(modes) > 1:
        return None
    if modes == {"bracket"}:
        if bias in ("closely", "loosely"):  # then the tags say what the camera had in mind
            wanted = [take.shot.exposure_bias or 0.0 for take in takes]
            even = even_step(wanted) is not None
            reach = GAP_SURE if even and bias == "closely" else GAP
            return "AEB tags: ", reach, (order_quality(wanted) or 0.8) * (1.0 if even else 0.7)
        return ("AEB tags: ", GAP_SURE, order) if bias == "constant" and order and step else None
    quality = order or 0.8
    if len(takes) % 2 == 0:
        quality *= 0.95  # people and cameras like to have a middle
    if not step:
        quality *= 0.7
    if len(takes) == 2:
        return None
    if bias == "closely":
        return "compensation varied: ", GAP, quality
    if not order or not _balanced(lights) or (bias != "constant" and modes != {"manual"}):
        return None
    if step and step >= _CLEAR_STEP and (not metered_anew(takes) or len(takes) > 4 or _in_one_go(takes)):
        return "", GAP_SURE if modes == {"manual"} and step > 0.9 else GAP_UNSURE, quality
    smallest = min(b - a for a, b in pairwise(sorted(lights)))
    return ("", GAP_UNSURE, quality) if smallest >= _ANY_STEP and _in_one_go(takes) else None


def _may_be_wanted(takes: Sequence[Take]) -> bool:
    """Tell whether shots can be a bracket where somebody vouches for the time between them."""
    if any(take.second is None for take in takes):
        return False
    manual = all(take.shot.exposure_mode == "manual" for take in takes)
    one_mode = len({take.shot.exposure_mode for take in takes}) == 1
    return one_mode and not metered_anew(takes) and (manual or compensation(takes) != "unrelated")


def summary(takes: Sequence[Take]) -> str:
    """Say in words what the exposures of a set are: ``3 exposures 2 EV apart within 0.4 s``."""
    lights = [take.light for take in takes]
    step = even_step(lights)
    if step:
        text = f"{len(takes)} exposures {step:.2g} EV apart"
    else:
        text = f"{len(takes)} exposures over {max(lights) - min(lights):.1f} EV"
    seconds = [take.second for take in takes if take.second is not None]
    if len(seconds) < len(takes):
        return f"{text}, without dates"
    span = max(max(seconds) - min(seconds), max(take.resolution for take in takes))
    return f"{text} within {span:.2g} s" if span < 99.5 else f"{text} within {span / 60:.0f} min"


def order_quality(lights: Sequence[float]) -> float:
    """Return how usual an order of exposures is for cameras, from 0 (none does it) to 1.

    Either one way all through, or the metered exposure first and the rest on both sides of it: in
    turn (0 - + -- ++), or one side after the other (Nikon: 0 -- - + ++). The small differences
    decide where two ways of cutting a row of sets are as good as each other.
    """
    if _one_way(lights):
        return 0.98
    base, rest = lights[0], lights[1:]
    sides = [light > base for light in rest]
    if len(set(sides)) < 2:
        return 0.0
    one_way = all(_one_way([x for x, up in zip(rest, sides, strict=True) if up is side]) for side in sides)
    turns = sum(a is not b for a, b in pairwise(sides))
    if not one_way or turns not in (1, len(rest) - 1):
        return 0.0
    return 0.96 if sides[0] else 1.0


def even_step(lights: Sequence[float]) -> float | None:
    """Return the mean distance between neighbouring exposures [stops]; None where they differ."""
    steps = [b - a for a, b in pairwise(sorted(lights))]
    return sum(steps) / len(steps) if max(steps) - min(steps) <= _EVEN else None


def compensation(takes: Sequence[Take]) -> Literal["closely", "loosely", "constant", "unrelated"]:
    """Tell how the exposures follow the stated compensation; without any it counts as constant.

    ``loosely`` means in order only: at the end of a camera's shutter speeds the steps shrink.
    """
    biases = [take.shot.exposure_bias for take in takes]
    known = [bias for bias in biases if bias is not None]
    if len(known) < len(biases) or max(known) - min(known) < SAME:
        return "constant"
    ordered = sorted(zip(known, (take.light for take in takes), strict=True))
    if any(b[0] - a[0] < SAME or b[1] - a[1] < -SAME for a, b in pairwise(ordered)):
        return "unrelated"
    offsets = [light - bias for bias, light in ordered]
    return "closely" if max(offsets) - min(offsets) <= _FOLLOWS else "loosely"


def metered_anew(takes: Sequence[Take]) -> bool:
    """Tell whether the camera chose the exposures, each for itself."""
    automatic = any(take.shot.exposure_mode == "auto" for take in takes)
    return automatic and compensation(takes) in ("constant", "unrelated")


def shortest_pause(a: Take, b: Take) -> float:
    """Return the least time [s] that passed between two exposures; 0 without dates.

    Some cameras stamp the start of an exposure and some its end, so that either one's exposure time
    may lie between the stamps; so may a dark frame after a long exposure.
    """
    if a.second is None or b.second is None:
        return 0.0
    busy = max(a.seconds_open, b.seconds_open)
    if a.seconds_open >= _DARK_FRAME:
        busy += a.seconds_open
    return max(0.0, b.second - a.second - busy - max(a.resolution, b.resolution))


def _longest_pause(a: Take, b: Take) -> float:
    if a.second is None or b.second is None:
        return 0.0
    open_between = min(a.seconds_open, b.seconds_open)
    return max(0.0, b.second - a.second - open_between) + max(a.resolution, b.resolution)


def _likely_pause(a: Take, b: Take) -> float:
    if a.second is None or b.second is None:
        return 0.0
    return max(0.0, b.second - a.second - (a.seconds_open + b.seconds_open) / 2)


def _in_one_go(takes: Sequence[Take]) -> bool:
    """Tell whether the shots came too fast for anybody to point the camera elsewhere."""
    if any(take.second is None for take in takes):
        return False
    resolution = takes[0].resolution
    longest = sum(_longest_pause(a, b) - resolution for a, b in pairwise(takes)) + resolution
    return longest <= _RELEASE * (len(takes) - 1)


def _one_way(lights: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(lights)) or all(a > b for a, b in pairwise(lights))


def _balanced(lights: Sequence[float]) -> bool:
    """Tell whether a row that begins with the metered exposure has as many below it as above."""
    below = sum(light < lights[0] for light in lights)
    return _one_way(lights) or len(lights) - 1 == 2 * below


def same_optics(a: Shot, b: Shot) -> bool:
    """Tell whether two shots have one size, lens and focal length."""
    if a.upright_size != b.upright_size or a.lens != b.lens:
        return False
    if a.focal_length is None or b.focal_length is None:
        return a.focal_length == b.focal_length
    return abs(a.focal_length - b.focal_length) <= _SAME_FOCAL * a.focal_length
