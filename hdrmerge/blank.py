"""Leave out frames that show nothing: a lens cap, a flash in the lens, a file that lost its picture.

Black says nothing of a scene, and yet as a reference it would declare everything else a ghost. What
counts is the proxy: some specks of light, the sun behind a filter, are a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from .bracket import Bracket, Frame
from .errors import BracketError
from .proxy import Proxy

BLACK = 0.001  # linear level, code 3 of 255 in sRGB
WHITE = 0.93  # of the clipping level; some cameras' JPEGs end at code 250
NOISE = 5.0  # [standard deviations] that noise does not exceed
SPECKS = 8  # [proxy px] that make a picture, and
SHARE = 0.001  # of a small one


def blank(frame: Frame, proxy: Proxy) -> Literal["", "black", "white"]:
    """Tell whether nothing but black, or nothing but clipped white, is in a frame."""
    level = proxy.linear.max(axis=2)
    enough = min(SPECKS, math.ceil(SHARE * level.size))
    # Noise below zero is cut off, which lifts the mean of black by 0.4 deviations; neighbouring pixels
    # share some of it, so that n of them average as n / 2.
    noise = frame.noise.read * (0.4 + NOISE / max(1.0, proxy.factor / 2**0.5))
    if np.count_nonzero(level > max(BLACK, noise)) < enough:
        return "black"
    if np.count_nonzero(level < WHITE * frame.clip) < enough:
        return "white"
    return ""


def leave_out_blanks(
    bracket: Bracket, proxies: Sequence[Proxy], chosen: bool = False
) -> tuple[Bracket, list[Proxy], list[str]]:
    """Return the bracket and its proxies without blank frames, and a warning for each of these.

    Where the reference is blank the middle of the remaining frames takes its place, unless it was
    ``chosen`` by the user. Raises `BracketError` where fewer than two frames remain.
    """
    found = [blank(frame, proxy) for frame, proxy in zip(bracket.frames, proxies, strict=True)]
    if not any(found):
        return bracket, list(proxies), []
    kept = [i for i, colour in enumerate(found) if not colour]
    first = next(i for i, colour in enumerate(found) if colour)
    name = f"{bracket.frames[first].shot.path}: nothing but {found[first]} in it"
    if not kept:
        others = f", and no more in the {len(found) - 1} others" if len(found) > 1 else ""
        raise BracketError(f"{name}{others}; give frames that show the scene")
    if len(kept) == 1:
        raise BracketError(f"{name}, and one other frame is no bracket; give more that show the scene")
    if chosen and bracket.reference not in kept:
        path, colour = bracket.reference_frame.shot.path, found[bracket.reference]
        raise BracketError(f"{path}: nothing but {colour} in it; choose another --reference")
    reference = bracket.reference if bracket.reference in kept else kept[(len(kept) - 1) // 2]
    warnings = [
        f"{frame.shot.path}: left out, nothing but {colour} in it"
        for frame, colour in zip(bracket.frames, found, strict=True)
        if colour
    ]
    frames = tuple(bracket.frames[i] for i in kept)
    return Bracket(frames, kept.index(reference)), [proxies[i] for i in kept], warnings
