"""Video signals: light and its PQ, HLG and BT.709 codes, RGB and Y'CbCr, and what the tags of a stream name.

Tags are the numbers of ITU-T H.273, which every container and codec shares. Domains, besides those of
`exposure`:

    nits      display light of a channel [cd/m^2]
    signal    R'G'B' in [0, 1], what a transfer function makes of light
    Y'CbCr    the integers that are coded, "limited" (16..235 of 255) or "full" range
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .colour import REC709_CHROMATICITIES, primaries_to_rec709
from .exposure import Array, Float, Response, srgb_decode

Matrix = NDArray[np.float64]

REC2020_CHROMATICITIES = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, 0.3127, 0.3290)
"""Primaries and white D65 of ITU-R BT.2020-2 and BT.2100-2."""

P3_CHROMATICITIES = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
"""P3 primaries with white D65 (SMPTE EG 432-1), those of most displays that HDR is mastered on."""

BT709, BT2020 = 1, 9
"""Tags of primaries, and of the matrix without constant luminance."""

TRANSFER_709, TRANSFER_PQ, TRANSFER_HLG = 1, 16, 18
LIMITED, FULL = 1, 2
"""Tags of the range, as FFmpeg counts them."""

PRIMARIES = {
    1: REC709_CHROMATICITIES,
    5: (0.640, 0.330, 0.290, 0.600, 0.150, 0.060, 0.3127, 0.3290),  # BT.601, 625 lines
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),  # BT.601, 525 lines: SMPTE 170M
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, 0.3127, 0.3290),  # SMPTE 240M
    9: REC2020_CHROMATICITIES,
    12: P3_CHROMATICITIES,
}
"""Chromaticities by the tag of the primaries (H.273, table 2)."""

LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601
    6: (0.299, 0.114),
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),
}
"""Weights of red and blue in luma by the tag of the matrix (H.273, table 4)."""


# --- light and codes ------------------------------------------------------------------------------

_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
BRIGHTEST_PQ = 10_000.0  # [nits]


def pq_encode(nits: Array) -> Array:
    """Return the PQ signal in [0, 1] of display light [nits] (SMPTE ST 2084, BT.2100-2 table 4).

    >>> pq_encode(np.array([0.0, 0.1, 100.0, 203.0, 1000.0, 10000.0])).round(4)
    array([0.    , 0.0623, 0.5081, 0.5807, 0.7518, 1.    ])
    """
    return _pq(np.minimum(nits, BRIGHTEST_PQ))


def _pq(nits: Array) -> Array:
    """Return the PQ formula's value, which goes on beyond 1 and 10000 nits."""
    power = (np.maximum(nits, 0.0) / BRIGHTEST_PQ) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1.0 + _C3 * power)) ** _M2 - _AT_BLACK)


def pq_decode(signal: Array) -> Array:
    """Return display light [nits] of a PQ signal, the inverse of `pq_encode`.

    >>> pq_decode(np.array([0.5081, 0.7518])).round()
    array([ 100., 1000.])
    """
    power = np.clip(signal, 0.0, 1.0) ** (1.0 / _M2)
    return np.asarray(BRIGHTEST_PQ * (np.maximum(power - _C1, 0.0) / (_C2 - _C3 * power)) ** (1.0 / _M1))


_AT_BLACK = _C1**_M2  # 7e-7: the signal of no light, which is called 0

_A = 0.17883277
_B = 1.0 - 4.0 * _A
_C = 0.5 - _A * float(np.log(4.0 * _A))
HLG_PEAK = 1000.0  # [nits] of the display on which HLG is made, BT.2100-2 note 5e
HLG_GAMMA = 1.2  # of the system, on that display


def hlg_encode(scene: Array) -> Array:
    """Return the HLG signal in [0, 1] of scene light in [0, 1] (BT.2100-2 table 5, OETF).

    >>> hlg_encode(np.array([0.0, 1 / 12, 0.2646, 1.0])).round(3)
    array([0.  , 0.5 , 0.75, 1.  ])
    """
    scene = np.clip(scene, 0.0, 1.0)
    bright = _A * np.log(np.maximum(12.0 * scene - _B, 1e-9)) + _C
    return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3.0 * scene), bright))


def hlg_decode(signal: Array) -> Array:
    """Return scene light in [0, 1] of an HLG signal, the inverse of `hlg_encode`."""
    signal = np.clip(signal, 0.0, 1.0)
    return np.asarray(np.where(signal <= 0.5, signal**2 / 3.0, (np.exp((signal - _C) / _A) + _B) / 12.0))


def hlg_scene_light(nits: Array) -> Array:
    """Return the scene light (..., 3), BT.2020, that an HLG display of 1000 nits shows as ``nits``.

    The inverse of the OOTF of BT.2100-2, F = L_W Y^(gamma - 1) E with L_W = 1000 and gamma = 1.2. White
    at 203 nits gets a signal of 75 %, as BT.2408 wants it.

    >>> hlg_encode(hlg_scene_light(np.full(3, 203.0))).round(3)
    array([0.75, 0.75, 0.75])
    """
    relative = np.maximum(nits, 0.0) / HLG_PEAK
    luminance = np.maximum(relative @ _luminance(BT2020), 1e-12)[..., None]
    return np.asarray(relative * luminance ** (1.0 / HLG_GAMMA - 1.0))


def hlg_display_light(scene: Array) -> Array:
    """Return the display light [nits] (..., 3) of scene light, the inverse of `hlg_scene_light`."""
    luminance = np.maximum(scene @ _luminance(BT2020), 1e-12)[..., None]
    return np.asarray(HLG_PEAK * scene * luminance ** (HLG_GAMMA - 1.0))


def bt709_decode(signal: Array) -> Array:
    """Return the scene light of a camera's signal in [0, 1]: the inverse OETF of BT.709-6, item 1.2.

    BT.601 and BT.2020 have the same.

    >>> bt709_decode(np.array([0.0, 0.0675, 0.5, 1.0])).round(4)
    array([0.    , 0.015 , 0.2596, 1.    ])
    """
    signal = np.asarray(signal, np.float64)
    bright = ((np.maximum(signal, 0.0) + 0.099) / 1.099) ** (1 / 0.45)
    return np.asarray(np.where(signal < 0.081, signal / 4.5, bright))


TRANSFERS = {
    1: Response.from_function("BT.709", bt709_decode),
    4: Response.from_function("gamma 2.2", lambda code: code**2.2),
    5: Response.from_function("gamma 2.8", lambda code: code**2.8),
    8: Response.named("linear"),
    13: Response.from_function("sRGB", srgb_decode),
} | dict.fromkeys((6, 14, 15), Response.from_function("BT.709", bt709_decode))
"""Response curves by the tag of the transfer function (H.273, table 3), as far as cameras write them."""


# --- primaries ------------------------------------------------------------------------------------


def to_rec2020() -> Float:
    """Return the matrix from linear Rec. 709 to linear BT.2020 (ITU-R BT.2087-0, M2).

    >>> print(to_rec2020().round(4))
    [[0.6274 0.3293 0.0433]
     [0.0691 0.9195 0.0114]
     [0.0164 0.088  0.8956]]
    """
    return np.linalg.inv(primaries_to_rec709(REC2020_CHROMATICITIES)).astype(np.float32)


# --- roll-off -------------------------------------------------------------------------------------


def roll_off(nits: Array, brightest: float, peak: float) -> Array:
    """Return light that ends at ``peak`` [nits], of light [nits] that ends at ``brightest``.

    The EETF of ITU-R BT.2390-10, 5.4.1: in PQ signal the identity up to a knee KS = 1.5 M - 0.5, then a
    Hermite spline with slope 1 at the knee and 0 at the end, M being the peak relative to the brightest.
    Scenes that fit the display stay as they are; what exceeds ``brightest`` is shown at ``peak``. Light of
    more than 10000 nits, for which PQ has no signal, is rolled off as its formula goes on.

    >>> roll_off(np.array([203.0, 600.0, 4000.0]), 4000.0, 1000.0).round()
    array([ 203.,  591., 1000.])
    """
    nits = np.asarray(nits)
    if brightest <= peak:
        return np.clip(nits, 0.0, peak)
    whole = float(_pq(np.array(brightest)))
    most = float(_pq(np.array(peak))) / whole
    knee = max(1.5 * most - 0.5, 0.0)
    signal = np.minimum(_pq(nits) / whole, 1.0)
    t = np.clip((signal - knee) / (1.0 - knee), 0.0, 1.0)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee
    spline += (t**3 - 2 * t**2 + t) * (1.0 - knee) + (3 * t**2 - 2 * t**3) * most
    # PQ and back loses digits: below the knee light is passed on as it came.
    return np.where(signal <= knee, np.maximum(nits, 0.0), np.minimum(pq_decode(spline * whole), peak))


# --- RGB and Y'CbCr -------------------------------------------------------------------------------


def _luminance(matrix: int) -> Matrix:
    red, blue = LUMA[matrix]
    return np.array([red, 1.0 - red - blue, blue])


def ycc_from_rgb(matrix: int, bits: int, full: bool = False) -> Matrix:
    """Return (3, 4), the affine map from R'G'B' in [0, 1] to Y'CbCr integers of so many bits.

    ITU-T H.273, 8.3: the luma weights of the ``matrix`` tag; black at 16, white at 235 and neutral at 128,
    times 2^(bits - 8), in limited range.

    >>> (ycc_from_rgb(BT2020, 10) @ [1, 1, 1, 1]).round(6).tolist()
    [940.0, 512.0, 512.0]
    """
    luma = _luminance(matrix)
    red, blue = luma[0], luma[2]
    rows = np.stack([luma, ([0, 0, 1] - luma) / (2 - 2 * blue), ([1, 0, 0] - luma) / (2 - 2 * red)])
    unit = 2.0 ** (bits - 8)
    most = 2.0**bits - 1
    scale = np.array([most, most, most] if full else [219 * unit, 224 * unit, 224 * unit])
    offset = [0.0 if full else 16 * unit, 128 * unit, 128 * unit]
    return np.column_stack([rows * scale[:, None], offset])


def rgb_from_ycc(matrix: int, bits: int, full: bool, white: float) -> Matrix:
    """Return (3, 4), the affine map from Y'CbCr integers to R'G'B' codes from 0 to ``white``.

    >>> (rgb_from_ycc(BT709, 8, False, 255.0) @ [126, 128, 128, 1]).round(3).tolist()
    [128.082, 128.082, 128.082]
    """
    forth = ycc_from_rgb(matrix, bits, full)
    back = np.linalg.inv(forth[:, :3]) * white
    return np.column_stack([back, -back @ forth[:, 3]])


def subsampled(ycc: Float, bits: int, top_left: bool) -> list[Array]:
    """Return the planes 4:2:0 of Y'CbCr (H, W, 3), H and W even: (H, W) and twice (H/2, W/2), integers.

    Chroma lies on the left luma sample of two, [1 2 1]/4; vertically on the upper one with ``top_left``
    (BT.2020 in HDR10, BT.2100-2), between the two without (MPEG-2, H.264).
    """
    kind = np.uint8 if bits == 8 else np.uint16
    across = np.array([1, 2, 1], np.float32) / 4
    chroma = cv2.sepFilter2D(
        np.ascontiguousarray(ycc[..., 1:]),
        -1,
        across,
        across if top_left else np.array([0, 1, 1], np.float32) / 2,
        borderType=cv2.BORDER_REPLICATE,
    )[::2, ::2]
    most = 2.0**bits - 1
    planes = [ycc[..., 0], chroma[..., 0], chroma[..., 1]]
    return [np.ascontiguousarray(np.clip(np.rint(plane), 0, most).astype(kind)) for plane in planes]


def enlarged(plane: Array, height: int, width: int, left: bool) -> Array:
    """Return a chroma plane at the size of luma, bilinearly; ``left`` is its place, else between (JPEG)."""
    down, across = (round(n / m) for n, m in ((height, plane.shape[0]), (width, plane.shape[1])))
    if (down, across) == (1, 1):
        return plane
    x0 = 0.0 if left else (1 / across - 1) / 2
    matrix = np.array([[1 / across, 0, x0], [0, 1 / down, (1 / down - 1) / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(plane, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )
