"""What of a network's radiance is brighter than the photograph, and belongs to what is clipped in it.

    virtual frames -> radiance -> evened -> met with the photograph -> colour -> excess of clipped pixels

What the photograph recorded stays. A channel is synthesised where that channel clips, and nowhere else: of a
pixel clipped in red, green and blue are the photograph's. What is added is the excess: the network's light in
a block less the photograph's, given to those of its pixels that clip. It is never less than 0, since the
truth is at least as bright as what clips. That the two meet at the border, the network is brought to the
photograph around each clipped region by a smooth gain, and inside by the channels that do not clip; and the
excess begins as steeply as the photograph ended.

Colour where all channels clip is a guess, and a wrong one is seen at once, in a sun most of all. It may be
white, the colour of the bright surroundings spread into the region, anything between the two, and differ
from that by `TINT`; what goes further is drawn back. Far from any border, and where the surroundings are
dark, only white is left.

Units: radiance 1.0 is the photograph's white. ``balanced`` is linear light of the frame's own channels,
scaled so that white has the same value in all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from .exposure import Float, Mask, smoothstep

GAMMA = 2.2  # of the network's code values

CLIPPED = 0.997  # of the clipping level: a channel is clipped from here on
LIKELY = 0.97  # the same of lossy files: in three scenes 95 to 98 % of what JPEG stores as such did clip
NEARLY, AROUND, MOST = 0.88, 7, 0.5  # and from here on where most of so many x so many pixels are
DARK, RAMP = 0.6, 0.7  # level whose distance to a border tells how steep it is; share of that to begin within
REACH = 40  # [px] from which what a pixel weighs may be told, at most
FADE = (0.1, 0.5)  # levels between which a pixel begins to tell how far the network is off
BRIGHT = (0.25, 0.7)  # and between which it begins to tell a colour
SOFT = (0.5, 0.9)  # and between which what is beside something clipped begins to be of the same light
PRIOR = 0.05  # weight of "no gain, no colour" where something is known of all pixels with weight 1
EVEN, WHOLLY = 0.012, 0.9  # sigma of a blur, of the root of the area; share of a block that clips for it
LARGEST_GAIN = 1.0  # [stops] by which the network is brought to the photograph at most
TINT = 0.05  # ln of a ratio of channels by which colour may be neither white nor its surroundings'
BLEND = 0.1  # weight of a block's surroundings in its excess; the block's own is its clipped share squared
MIXED = 0.05  # weight of blocks where all channels clip, too, in the excess of pixels where some do


@dataclass(frozen=True, eq=False)
class Small:
    """Block averages of a photograph: ``light`` (h, w, 3), balanced, and how much of it may be brighter.

    What a pixel weighs is told by `begun`; ``wholly`` (h, w, 1) is the mean over a block of the least weight
    of a pixel's channels, which is above 0 where all clip, and ``partly`` (h, w, 3) of what each has beyond
    it. ``recorded`` (h, w, 3) says where no pixel of a block clips; at ``level`` (3,), balanced, channels do.
    """

    light: Float
    partly: Float
    wholly: Float
    recorded: Mask
    level: Float


def clipped(linear: Float, level: float = 1.0, lossy: bool = False) -> Mask:
    """Return which channels clip, (h, W, 3), of linear light that clips at ``level``.

    In ``lossy`` pictures also those a little below it, and more so among clipped ones: ripples of JPEG would
    be coloured spots in a lamp.
    """
    sure = np.asarray(linear >= np.float32((LIKELY if lossy else CLIPPED) * level))
    if not lossy or not sure.any():
        return sure
    share = cv2.blur(sure.astype(np.float32), (AROUND, AROUND), borderType=cv2.BORDER_REFLECT)
    return np.asarray(sure | ((linear >= np.float32(NEARLY * level)) & (share > MOST)))


def begun(level: Float, clips: Mask, longest: float) -> Float:
    """Return how much of an excess each channel of a pixel may have, (h, W, 3) from 0 to 1.

    Light that rises slowly to the clipping level goes on slowly beyond it. So the excess begins at 0 where
    the photograph took long from `DARK` to clipping, and is whole after a part of that way, or ``longest``
    [px]; behind a sharp edge, as of a lamp, it is whole at once. ``level`` is light over the clipping level.
    """
    found = np.zeros(level.shape, np.float32)
    for channel in range(3):
        mask = clips[..., channel]
        if not mask.any():
            continue
        inside = mask.astype(np.uint8)
        lit = (mask | (level[..., channel] >= np.float32(DARK))).astype(np.uint8)
        depth, way = (cv2.distanceTransform(plane, cv2.DIST_L2, 3) for plane in (inside, lit))
        length = np.clip(np.float32(RAMP) * (way - depth), np.float32(1), np.float32(longest))
        found[..., channel] = np.minimum(depth / length, 1) * mask
    return found


def raise_clipped(balanced: Float, clips: Mask) -> None:
    """Raise clipped channels to the brightest clipped one, and to the mean of those that are not, in place.

    A channel at its limit is a lower bound, and white balance spreads those bounds: magenta. The same is
    done where all frames of a bracket clip (`merge`).
    """
    where = clips.any(axis=2)
    values, limits = balanced[where], clips[where]
    brightest = np.where(limits, values, 0).max(axis=1)
    others = np.where(limits, 0, values).sum(axis=1) / np.maximum(3 - limits.sum(axis=1), 1)
    floor = np.maximum(brightest, others)[:, None]
    balanced[where] = np.where(limits, np.maximum(values, floor), values)


def encoded(light: Float) -> Float:
    """Return the network's code values of light in [0, 1]."""
    return np.asarray(np.power(light, np.float32(1 / GAMMA)), np.float32)


def merged(frames: Iterable[tuple[float, Float]]) -> Float:
    """Return the radiance that virtual frames shorter than the photograph show, (h, w, 3).

    The weights of Debevec and Malik 1997: 1 - abs(2 v - 1) of the code value v. The shortest frame keeps its
    full one above 0.5: nothing else is left there.
    """
    frames = [*frames]
    shortest = min(ev for ev, _ in frames)
    total, weights = np.float32(0), np.float32(0)
    for ev, codes in frames:
        weight = 1 - np.abs(2 * codes - 1)
        if ev == shortest:
            weight = np.where(codes > 0.5, np.float32(1), weight)
        weight = np.maximum(weight, np.float32(1e-6))
        total = total + weight * np.power(codes, np.float32(GAMMA)) * np.float32(2.0**-ev)
        weights = weights + weight
    return np.asarray(total / weights, np.float32)


def excess(small: Small, found: Float) -> tuple[Float, Float]:
    """Return what clipped channels lack, (h, w, 3) balanced, in pixels that clip partly and wholly.

    ``found`` (h, w, 3) is the network's radiance, balanced. A block of which the share s clips is brighter
    than the photograph's by s x, where x is the excess of its clipped pixels. Of the two kinds the wholly
    clipped are the brighter ones: they take what is left beside an excess of the others as in blocks around,
    in one share for all channels, so that where the sun ends in a blue sky it gets no coloured rim.

    The planes are to be enlarged. So what they say where nothing clips matters to pixels beside it: the
    photograph less the clipping level, below 0, where it nears that level, for there light goes on smoothly;
    where it is dark, as beside a lamp, the excess of the blocks around.
    """
    light = toned(small, met(small, evened(small, found)))
    more = np.maximum(light - small.light, 0)
    pure = np.where(small.wholly == 0, np.float32(1), np.float32(MIXED))
    both = small.partly * (small.partly + small.wholly)
    around = _blurred(pure * more * small.partly) / (_blurred(pure * both) + np.float32(1e-6))
    own = _divided(more, small.partly, around)
    partly = np.where(small.wholly == 0, own, around)
    rest = np.maximum(more - small.partly * partly, 0)
    around = _blurred(rest * small.wholly) / (_blurred(np.square(small.wholly)) + np.float32(1e-6))
    wholly = _divided(rest, small.wholly, around)
    smooth = smoothstep(*SOFT, small.light / small.level)
    planes = []
    for own, share, other in ((partly, small.partly, wholly), (wholly, small.wholly, partly)):
        beside = own + smooth * (small.light - small.level - own)
        outside = np.where(small.recorded, beside, other)
        planes.append(np.asarray(np.where(share > 0, own, outside), np.float32))
    return planes[0], planes[1]


def _divided(more: Float, share: Float, around: Float) -> Float:
    """Return ``more`` over ``share``; where that is small, what is ``around`` has a say, and where 0, all."""
    blend = np.float32(BLEND) * (1 - share)
    return np.asarray((more * share + blend * around) / (np.square(share) + blend), np.float32)


def _blurred(plane: Float) -> Float:
    """Return the means of 5 x 5, (h, w, C)."""
    soft = cv2.blur(plane, (5, 5), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft.reshape(plane.shape), np.float32)


def evened(small: Small, found: Float) -> Float:
    """Blur the network's radiance where all channels clip, in its logarithm, and by that alone.

    Nothing is known there but how bright it may be. What looks like structure is made: creases half-way
    between two borders, stars around a dark spot. Means of errors do not change.
    """
    inside = (small.wholly[..., 0] > WHOLLY).astype(np.float32)
    if not inside.any():
        return found
    sigma = EVEN * math.sqrt(inside.size)
    logs = np.log(np.maximum(found, np.float32(1e-6))) * inside[..., None]
    share = np.maximum(cv2.GaussianBlur(inside, (0, 0), sigma), np.float32(1e-6))
    means = [cv2.GaussianBlur(plane, (0, 0), sigma) / share for plane in cv2.split(logs)]
    return np.asarray(np.where(inside[..., None] > 0, np.exp(np.stack(means, axis=2)), found), np.float32)


def met(small: Small, found: Float) -> Float:
    """Return the network's radiance brought to the photograph's where that is known, and nearby.

    First by one gain for all channels, from those that do not clip, then by one for each.
    """
    weight = smoothstep(*FADE, small.light) * small.recorded
    off = np.log(np.maximum(small.light, np.float32(1e-6)) / np.maximum(found, np.float32(1e-6)))
    most = np.float32(LARGEST_GAIN * math.log(2))
    off = np.clip(off, -most, most)
    known = weight.max(axis=2)
    mean = (weight * off).sum(axis=2) / np.maximum(weight.sum(axis=2), np.float32(1e-6))
    common = spread(mean, known)[..., None]
    own = [spread(off[..., c] - common[..., 0], weight[..., c]) for c in range(3)]
    return np.asarray(found * np.exp(common + np.stack(own, axis=2)), np.float32)


def toned(small: Small, light: Float) -> Float:
    """Draw the colour of radiance that clips in all channels to white, or to that of what is bright around.

    To the nearest one between these two. The sum of the channels stays.
    """
    if not small.wholly.any():
        return light
    seen = np.where(small.recorded, small.light, np.maximum(light, small.light))
    known = smoothstep(*BRIGHT, small.light.max(axis=2)) * small.recorded.any(axis=2)
    around = np.stack([spread(plane, known) for plane in cv2.split(chroma(seen))], axis=2)
    own = chroma(np.maximum(light, small.light))
    along = (own * around).sum(axis=2) / np.maximum(np.square(around).sum(axis=2), np.float32(1e-6))
    apart = own - around * np.clip(along, 0, 1)[..., None]
    largest = np.maximum(np.abs(apart).max(axis=2), np.float32(1e-6))
    back = small.wholly[..., 0] * np.maximum(1 - np.float32(TINT) / largest, 0)
    colour = np.exp(own - apart * back[..., None])
    drawn = colour * (light.sum(axis=2) / colour.sum(axis=2))[..., None]
    return np.asarray(np.where(back[..., None] > 0, drawn, light), np.float32)


def chroma(light: Float) -> Float:
    """Return ln of each channel over the geometric mean of all, (h, w, 3)."""
    logs = np.log(np.maximum(light, np.float32(1e-3)))
    return np.asarray(logs - logs.mean(axis=2, keepdims=True), np.float32)


def spread(values: Float, weights: Float) -> Float:
    """Spread what is known, (h, w) with weights in [0, 1], smoothly to where it is not; far away to 0.

    By averages of twice the size at a time, down to one pixel, each filled in from the next (pull-push;
    Gortler et al. 1996). Where the weight is 1 the value stays.
    """
    sums, shares = [np.asarray(values * weights, np.float32)], [np.asarray(weights, np.float32)]
    while max(shares[-1].shape) > 1:
        sums.append(np.atleast_2d(cv2.pyrDown(sums[-1])))
        shares.append(np.atleast_2d(cv2.pyrDown(shares[-1])))
    filled = sums[-1] / (shares[-1] + np.float32(PRIOR))
    for total, share in zip(sums[-2::-1], shares[-2::-1], strict=True):
        wider = cv2.resize(filled, share.shape[::-1], interpolation=cv2.INTER_LINEAR)
        filled = total + (1 - share) * wider
    return np.asarray(filled, np.float32)
