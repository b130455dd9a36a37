"""Aligned proxies -> the tones in which frames agree: what a response curve and exposures are read from.

A pixel that two frames show with codes a and b says g(b) - g(a) = the stops between their exposures,
where g is the logarithm of the response curve. One pixel says little: it may have moved, lie on an
edge, or be noise. So pixels are pooled over 3 x 3 proxy pixels, edges are left out, and for every
tone of one frame the median of the other's is taken (the comparagram of Mann and Picard, "On being
undigital with digital cameras", 1995). What moved is outvoted as long as it is the smaller part of a
tone. Clipped pixels vote too: leaving them out would leave the dark ones of a tone to speak for it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from .align import Alignment
from .exposure import Mask, Response, srgb_decode, srgb_encode
from .proxy import Proxy, from_blocks

Double = NDArray[np.float64]

POSITIONS = 30_000  # looked at in every frame
DARKEST, BRIGHTEST = 0.06, 0.97  # code: noise and rounding below, the fringe of clipping above
DEEPEST = 0.015  # code: where frames have nothing else in common, tones down to here must do
FLAT = 0.06  # code: largest range within 3 x 3 proxy pixels that is no edge
FLATTEST, NOISIEST = 0.25, 0.2  # share of a frame that is flat in spite of noise, up to this range of codes
BINS = 40  # tones a pair of frames is compared at
FEWEST = 25  # pixels in a bin
CENSORED = 0.35  # share of a bin that may be clipped or black in the other frame
SHARED = 0.02  # share of the positions that a pair must show well exposed to be compared
FLOOR_FROM = 5 / 255  # code: a black level lower than this is none
PILED = 5 / 255  # code: range of the darkest tones, if they are black
TILES = 16  # along the short side, for holding out every other one


@dataclass(frozen=True, eq=False)
class Tones:
    """What N frames show at K positions of the reference.

    ``stored`` (N, K, 3) are codes in [0, 1] as the files hold them, ``code`` the same stretched from
    black at 0 to clipping at 1; ``usable`` (N, K, 3) is False outside the frame and on edges; ``even``
    (K,) halves the positions by a chequerboard of tiles; ``floor`` (3,) is the code that black was
    found at, ``ceiling`` (3,) the one that clipping was found at. Codes below ``darkest`` say nothing.
    """

    stored: NDArray[np.float32]
    code: NDArray[np.float32]
    usable: Mask
    even: Mask
    floor: tuple[float, float, float]
    ceiling: tuple[float, float, float]
    darkest: float = DARKEST

    @property
    def frames(self) -> int:
        return len(self.code)

    def at(self, positions: Mask) -> Tones:
        """Return the tones at some of the positions."""
        return replace(
            self,
            stored=self.stored[:, positions],
            code=self.code[:, positions],
            usable=self.usable[:, positions],
            even=self.even[positions],
        )

    def as_stored(self, code: Double, channel: NDArray[np.intp]) -> Double:
        """Return codes as the files hold them, of codes between black and clipping; all of shape (R,)."""
        black, white = (srgb_decode(np.array(ends))[channel] for ends in (self.floor, self.ceiling))
        return np.asarray(srgb_encode(black + srgb_decode(code) * (white - black)))

    def deeper(self) -> Tones:
        """Return the same tones with the darkest ones in use."""
        return replace(self, darkest=DEEPEST)

    def exposed(self, frame: int) -> Mask:
        """Tell where a frame is neither dark nor near clipping, (K, 3)."""
        code = self.code[frame]
        return np.asarray(self.usable[frame] & (code > self.darkest) & (code < BRIGHTEST))


@dataclass(frozen=True, eq=False)
class Agreements:
    """Pairs of codes that show the same light: rows (R,) of ``channel``, frames ``a`` and ``b``, their codes.

    ``count`` are the pixels behind each row.
    """

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    channel: NDArray[np.intp]
    code_a: Double
    code_b: Double
    count: Double

    def __len__(self) -> int:
        return len(self.a)


def gather(
    proxies: Sequence[Proxy],
    alignments: Sequence[Alignment],
    curve: Response,
    positions: int = POSITIONS,
    noisy: bool = False,
) -> Tones:
    """Sample aligned proxies that were made linear by ``curve``; frames left out are nowhere usable.

    With ``noisy`` the flattest quarter of a frame counts as flat, although noise is wider than that.
    """
    height, width = proxies[0].linear.shape[:2]
    step = max(1.0, (height * width / positions) ** 0.5)
    ys, xs = (
        np.arange(min(1 + step / 2, (n - 1) / 2), n - 0.5, step).astype(np.int64) for n in (height, width)
    )
    y, x = (plane.ravel() for plane in np.meshgrid(ys, xs, indexing="ij"))
    around = np.array([(i, j) for j in (-1, 0, 1) for i in (-1, 0, 1)])
    points = (np.stack([x, y], -1)[:, None] + around).astype(np.float64)
    code = np.empty((len(proxies), len(x), 3), np.float32)
    usable = np.empty(code.shape, np.bool_)

    def sample(n: int) -> None:
        proxy, up = proxies[n], from_blocks(proxies[n].factor)
        matrix = np.linalg.inv(up) @ alignments[n].matrix @ up
        there = cv2.perspectiveTransform(points.reshape(-1, 1, 2), matrix).astype(np.float32)
        pieces = [  # OpenCV's remap takes at most 32,766 columns
            cv2.remap(proxy.linear, part[None], None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for part in np.array_split(there[:, 0], -(-len(there) // 30_000))
        ]
        linear = np.concatenate(pieces, axis=1).reshape(len(x), 9, 3)
        inside = ((there > -1) & (there < [width, height])).reshape(len(x), -1).all(axis=1)
        code[n] = curve.encode(linear.mean(axis=1))
        spread = curve.encode(linear.max(axis=1)) - curve.encode(linear.min(axis=1))
        usable[n] = (
            (spread < (_flat(spread[inside]) if noisy else FLAT)) & inside[:, None] & alignments[n].used
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(sample, range(len(proxies))))
    tile = max(8, min(height, width) // TILES)
    even = (x // tile + y // tile) % 2 == 0
    floor, ceiling = _floor(code, usable), _ceiling(code, usable)
    return Tones(code, _between(code, floor, ceiling), usable, even, _triple(floor), _triple(ceiling))


def _flat(spread: NDArray[np.float32]) -> Double:
    """Return the range of codes below which each channel of a frame has no edge, (3,).

    Where noise alone is wider than `FLAT`, as at ISO 6400, the flattest quarter of the frame will do.
    """
    if not len(spread):
        return np.full(3, FLAT)
    return np.clip(np.quantile(spread, FLATTEST, axis=0), FLAT, NOISIEST)


def agreements(tones: Tones, shared: float = SHARED) -> Agreements:
    """Compare every pair of frames that share enough well exposed positions, both ways."""
    rows: list[tuple[float, ...]] = []
    exposed = [tones.exposed(n) for n in range(tones.frames)]
    for i in range(tones.frames):
        for j in range(i + 1, tones.frames):
            here = tones.usable[i] & tones.usable[j]
            both = exposed[i] & exposed[j]
            for channel in range(3):
                where = here[:, channel]
                if np.count_nonzero(both[:, channel]) < max(shared * len(where), FEWEST):
                    continue
                for a, b in ((i, j), (j, i)):
                    seen = tones.code[a, where, channel], tones.code[b, where, channel]
                    rows += [(a, b, channel, *row) for row in _medians(*seen, tones.darkest)]
    table = np.array(rows, np.float64).reshape(-1, 6)
    whole = table[:, :3].astype(np.intp).T
    return Agreements(whole[0], whole[1], whole[2], table[:, 3], table[:, 4], table[:, 5])


def _medians(
    a: NDArray[np.float32], b: NDArray[np.float32], darkest: float
) -> list[tuple[float, float, int]]:
    """Return the median of ``b``, that of ``a`` and the count for every tone of ``a``."""
    bins = np.clip((a - darkest) * (BINS / (BRIGHTEST - darkest)), -1, BINS).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    starts = np.searchsorted(bins[order], np.arange(BINS + 1))
    found = []
    for first, last in pairwise(starts):
        if last - first < FEWEST:
            continue
        here = order[first:last]
        values = b[here]
        censored = max(np.count_nonzero(values >= BRIGHTEST), np.count_nonzero(values <= darkest))
        if censored <= CENSORED * len(values):
            found.append((float(np.median(a[here])), float(np.median(values)), int(last - first)))
    return found


def _floor(code: NDArray[np.float32], usable: Mask) -> Double:
    """Return the codes (3,) of black: where frames of different exposure have the same darkest tones.

    Film scans and faded prints have such a pedestal, and tones pile up on it; in a photograph the
    darkest tones move with the exposure, or are black.
    """
    floor = np.zeros(3)
    for channel in range(3):
        seen = [frame[ok, channel] for frame, ok in zip(code, usable[..., channel], strict=True)]
        seen = [tones for tones in seen if len(tones) >= 100]
        levels = sorted((float(tones.mean()), *np.percentile(tones, [2, 0.2])) for tones in seen)
        for (dark, low, _), (bright, high, least) in pairwise(levels):
            same = abs(high - low) < 2 / 255 and high - least < PILED
            if bright - dark > 0.5 * low and same and low > FLOOR_FROM:
                floor[channel] = max(floor[channel], high)
    return floor


def _ceiling(code: NDArray[np.float32], usable: Mask) -> Double:
    """Return the codes (3,) at which the camera clips: 1, or a lower one that pixels pile up at.

    Some cameras write 251 or 235 for white. Such a level shows as a spike with nothing above.
    """
    ceiling = np.ones(3)
    for channel in range(3):
        seen = code[..., channel][usable[..., channel]]
        counts = np.bincount((seen * 255 + 0.5).astype(np.int64), minlength=256)
        above = np.cumsum(counts[::-1])[::-1]
        peak = int(np.argmax(counts[200:])) + 200
        spike, below = counts[peak - 1 : peak + 2].sum() / 3, counts[peak - 12 : peak - 2].mean()
        beyond = above[peak + 3] if peak < 253 else 0
        range_below = np.count_nonzero(counts[peak - 40 : peak - 2])  # a grey wall is no limit
        if peak < 253 and spike > max(8 * below, 20) and beyond < 0.02 * above[peak - 1] and range_below > 30:
            ceiling[channel] = (peak - 0.5) / 255
    return ceiling


def _between(code: NDArray[np.float32], floor: Double, ceiling: Double) -> NDArray[np.float32]:
    """Stretch codes so that black is at 0 and clipping at 1, in linear light."""
    if not floor.any() and (ceiling == 1).all():
        return code
    black, white = srgb_decode(floor), srgb_decode(ceiling)
    return srgb_encode((srgb_decode(code) - black) / (white - black)).astype(np.float32).clip(0, 1)


def _triple(values: Double) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
