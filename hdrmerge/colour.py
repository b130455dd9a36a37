"""Primaries, ICC profiles and camera matrices: everything that turns RGB into linear Rec. 709.

Chromaticities are (red x, red y, green x, green y, blue x, blue y, white x, white y), CIE 1931.
Matrices are (3, 3) and act on columns: ``rec709 = to_rec709 @ rgb``. XYZ is relative to the white
named in the variable: D65 for Rec. 709 and sRGB, D50 inside ICC profiles.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .exposure import Array, Float, Response, srgb_decode

Matrix = NDArray[np.float64]

REC709_CHROMATICITIES = (0.6400, 0.3300, 0.3000, 0.6000, 0.1500, 0.0600, 0.3127, 0.3290)
"""Primaries and white D65 of Rec. 709 and sRGB (ITU-R BT.709-6)."""

ADOBE_RGB_CHROMATICITIES = (0.6400, 0.3300, 0.2100, 0.7100, 0.1500, 0.0600, 0.3127, 0.3290)
"""Primaries and white D65 of Adobe RGB (1998), Adobe Systems, 2005."""

D50 = (0.9642, 1.0, 0.8249)
"""XYZ of the ICC profile connection space white (ICC.1:2010, 7.2.16)."""

BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]], dtype=np.float64
)
"""XYZ to sharpened cone responses (Lam 1985, as ICC.1:2010 annex E uses it)."""

CURVE_TOLERANCE = 0.003  # of full scale; sRGB and a pure gamma of 2.2 are 0.009 apart
MATRIX_TOLERANCE = 0.01  # rounding and adaptation of the many "sRGB" profiles in use stay below


def white_xyz(x: float, y: float) -> Matrix:
    """Return XYZ with Y = 1 of chromaticity ``x, y``, shape (3,)."""
    return np.array([x / y, 1.0, (1.0 - x - y) / y])


def rgb_to_xyz(chromaticities: Sequence[float]) -> Matrix:
    """Return the matrix from linear RGB of these primaries to XYZ relative to their own white.

    The columns are the primaries, scaled so that RGB (1, 1, 1) is the white (SMPTE RP 177:1993).

    >>> (rgb_to_xyz(REC709_CHROMATICITIES)[1] * 1e4).round() / 1e4  # luminance of R, G, B
    array([0.2126, 0.7152, 0.0722])
    """
    x, y = np.array(chromaticities[0:6:2]), np.array(chromaticities[1:6:2])
    primaries = np.stack([x, y, 1.0 - x - y])
    return np.asarray(primaries * np.linalg.solve(primaries, white_xyz(*chromaticities[6:])))


def adaptation(source_white: Sequence[float] | Matrix, target_white: Sequence[float] | Matrix) -> Matrix:
    """Return the linear Bradford transform of XYZ under one white to XYZ under another, both (3,)."""
    gain = (BRADFORD @ np.asarray(target_white)) / (BRADFORD @ np.asarray(source_white))
    return np.linalg.inv(BRADFORD) @ np.diag(gain) @ BRADFORD


D65 = white_xyz(*REC709_CHROMATICITIES[6:])
XYZ_FROM_REC709 = rgb_to_xyz(REC709_CHROMATICITIES)
REC709_FROM_XYZ = np.linalg.inv(XYZ_FROM_REC709)
D65_FROM_D50 = adaptation(D50, D65)
D50_FROM_D65 = adaptation(D65, D50)


def _white_to_white(matrix: Matrix) -> Float:
    """Return the matrix with rows of sum 1, so that white stays white exactly and not to 3 digits."""
    total = matrix.sum(axis=1, keepdims=True)
    if not np.isfinite(matrix).all() or (np.abs(total) < 1e-3).any():
        raise ValueError("a colour matrix that turns white to black")
    return np.asarray(matrix / total, dtype=np.float32)


def primaries_to_rec709(chromaticities: Sequence[float]) -> Float:
    """Return the matrix from linear RGB of these primaries to linear Rec. 709, white to white.

    Raises ValueError for eight numbers that are no primaries.

    >>> print(primaries_to_rec709(ADOBE_RGB_CHROMATICITIES)[0, :2].round(3))
    [ 1.398 -0.398]
    """
    try:
        to_xyz = rgb_to_xyz(chromaticities)
        adapt = adaptation(white_xyz(*chromaticities[6:]), D65)
    except (np.linalg.LinAlgError, ZeroDivisionError, TypeError):
        raise ValueError(f"primaries {tuple(chromaticities)} that span no colours") from None
    return _white_to_white(REC709_FROM_XYZ @ adapt @ to_xyz)


def camera_to_rec709(xyz_to_camera: Array, white_balance: Array) -> Float:
    """Return the matrix from sensor RGB, 1.0 where each channel saturates, to linear Rec. 709.

    As dcraw does it (Coffin, ``cam_xyz_coeff``): camera RGB of the Rec. 709 primaries, rows scaled
    to sum 1 so that what the white balance made neutral stays neutral, inverted. ``xyz_to_camera``
    (3, 3) is Adobe's ColorMatrix for D65, ``white_balance`` (3,) the multipliers of R, G, B, scaled
    here so that the smallest is 1: no channel falls below 1.0 where the sensor saturates. Without a
    usable matrix (all zero or singular) the camera's primaries are taken as Rec. 709.
    """
    gain = np.asarray(white_balance, dtype=np.float64)
    balance = np.diag(gain / gain.min())
    camera_from_rec709 = np.asarray(xyz_to_camera, dtype=np.float64) @ XYZ_FROM_REC709
    total = camera_from_rec709.sum(axis=1, keepdims=True)
    if (total <= 0.0).any() or np.linalg.cond(camera_from_rec709 / total) > 1e6:
        return np.asarray(balance, dtype=np.float32)
    return np.asarray(np.linalg.inv(camera_from_rec709 / total) @ balance, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Profile:
    """A colour space that one curve per channel and one matrix take to linear Rec. 709."""

    name: str
    response: Response
    to_rec709: Float


SRGB = Profile("sRGB", Response.named("srgb"), np.eye(3, dtype=np.float32))

ADOBE_RGB = Profile(
    "Adobe RGB (1998)",
    Response.from_function("Adobe RGB (1998)", lambda code: code ** (563 / 256)),
    primaries_to_rec709(ADOBE_RGB_CHROMATICITIES),
)
"""For files that say so by EXIF alone: ColorSpace 0xFFFF with InteroperabilityIndex R03."""


def read_profile(icc: bytes) -> Profile | None:
    """Read an ICC profile made of curves and a matrix, or of one grey curve (ICC.1:2010, F.2 and F.3).

    None where the profile cannot be expressed so: tables (A2B0, which take precedence), CMYK, Lab.
    A curve or a matrix that is sRGB's within rounding becomes exactly sRGB's. Raises ValueError
    with a short reason for bytes that are no profile or a damaged one; the caller knows the file.
    """
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ValueError("no ICC profile")
    tags = _tags(icc)
    space, connection = icc[16:20], icc[20:24]
    if space == b"GRAY" and b"kTRC" in tags:
        columns, matrix = [_curve(tags[b"kTRC"])] * 3, np.eye(3)
    elif space == b"RGB " and connection == b"XYZ " and b"A2B0" not in tags and b"rXYZ" in tags:
        missing = [n for n in (b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC") if n not in tags]
        if missing:
            raise ValueError(f"ICC profile without its {missing[0].decode()} tag")
        columns = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        colorants = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
        matrix = REC709_FROM_XYZ @ D65_FROM_D50 @ colorants
    else:
        return None
    to_rec709 = _white_to_white(matrix)
    table = np.stack(columns, axis=1)
    name = _description(tags.get(b"desc", b"")) or "ICC profile"
    response = Response(name, table)
    if np.abs(to_rec709 - SRGB.to_rec709).max() < MATRIX_TOLERANCE:
        to_rec709 = SRGB.to_rec709
    if np.abs(table - SRGB.response.table).max() < CURVE_TOLERANCE:
        response = SRGB.response
    return Profile(name, response, to_rec709)


def _tags(icc: bytes) -> dict[bytes, bytes]:
    """Return the profile's tags by signature."""
    count = int.from_bytes(icc[128:132], "big")
    if 132 + 12 * count > len(icc):
        raise ValueError("ICC profile that ends early")
    tags = {}
    for signature, offset, size in struct.iter_unpack(">4sII", icc[132 : 132 + 12 * count]):
        if offset + size > len(icc):
            raise ValueError("ICC profile that ends early")
        tags[signature] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> Matrix:
    """Return the XYZ of an 'XYZ ' tag, shape (3,)."""
    if tag[:4] != b"XYZ " or len(tag) < 20:
        raise ValueError("ICC profile with a damaged XYZ tag")
    return np.array(struct.unpack(">3i", tag[8:20])) / 65536


def _curve(tag: bytes) -> Float:
    """Sample a 'curv' or 'para' tag at the knots of a `Response` table, shape (K,)."""
    code = np.linspace(0.0, 1.0, len(SRGB.response.table))
    if tag[:4] == b"curv" and len(tag) >= 12:
        count = int.from_bytes(tag[8:12], "big")
        if len(tag) < 12 + 2 * count:
            raise ValueError("ICC profile with a curve that ends early")
        values = np.frombuffer(tag, ">u2", count, 12)
        if count == 0:
            linear = code
        elif count == 1:
            linear = code ** (values[0] / 256)
        else:
            linear = np.interp(code, np.linspace(0.0, 1.0, count), values / 65535)
    elif tag[:4] == b"para" and len(tag) >= 12:
        linear = _parametric(tag, code)
    else:
        raise ValueError("ICC profile with a curve of unknown type")
    return np.maximum.accumulate(np.clip(np.nan_to_num(linear), 0.0, 1.0)).astype(np.float32)


def _parametric(tag: bytes, code: Matrix) -> Matrix:
    """Evaluate a 'para' tag, types 0 to 4 (ICC.1:2010, table 65), all written as type 4:

    Y = (a X + b)^g + e where X >= d, else c X + f.
    """
    kind = int.from_bytes(tag[8:10], "big")
    size = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}.get(kind)
    if size is None or len(tag) < 12 + 4 * size:
        raise ValueError("ICC profile with a damaged parametric curve")
    g, *rest = (value / 65536 for value in struct.unpack(f">{size}i", tag[12 : 12 + 4 * size]))
    a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind in (1, 2):
        a, b = rest[:2]
        e = f = rest[2] if kind == 2 else 0.0
        d = -b / a if a else 0.0
    elif kind in (3, 4):
        a, b, c, d = rest[:4]
        e, f = rest[4:] if kind == 4 else (0.0, 0.0)
    power = np.maximum(a * code + b, 0.0) ** g + e
    return np.asarray(np.where(code >= d, power, c * code + f))


def _description(tag: bytes) -> str:
    """Return the text of a 'desc' tag: ASCII in version 2, UTF-16 in several languages in version 4."""
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, offset = struct.unpack(">II", tag[20:28])
        return tag[offset : offset + length].decode("utf-16-be", "replace").strip("\0 ")
    length = int.from_bytes(tag[8:12], "big")
    return tag[12 : 12 + length].decode("ascii", "replace").strip("\0 ")


def linear_profile() -> bytes:
    """Return an ICC profile of linear Rec. 709, for files whose values are light: float TIFF."""
    return _profile("Linear Rec. 709", np.array([1.0]))


def srgb_profile() -> bytes:
    """Return a compact ICC profile of sRGB, under 1 kB, for previews."""
    return _profile("sRGB", srgb_decode(np.linspace(0.0, 1.0, 256)))


def _profile(name: str, curve: Array) -> bytes:
    """Build a version 2.4 display profile with Rec. 709 primaries, readable since about 2001.

    ``curve`` holds linear light at equally spaced codes, one value alone is a gamma. The three
    channels share one curve tag.
    """
    scaled = curve * (256 if len(curve) == 1 else 65535)
    colorants = D50_FROM_D65 @ XYZ_FROM_REC709
    text = name.encode("ascii") + b"\0"
    # An empty Unicode (8 bytes) and an empty Macintosh (70 bytes) description must follow the ASCII.
    tags = {
        (b"desc",): b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        (b"cprt",): b"text\0\0\0\0" + b"No copyright, use freely\0",
        (b"wtpt",): _pack_xyz(D65),
        (b"rXYZ",): _pack_xyz(colorants[:, 0]),
        (b"gXYZ",): _pack_xyz(colorants[:, 1]),
        (b"bXYZ",): _pack_xyz(colorants[:, 2]),
        (b"rTRC", b"gTRC", b"bTRC"): b"curv\0\0\0\0"
        + struct.pack(">I", len(curve))
        + np.rint(scaled).astype(">u2").tobytes(),
    }
    directory, data = b"", b""
    start = 132 + 12 * sum(len(names) for names in tags)
    for names, content in tags.items():
        for signature in names:
            directory += struct.pack(">4sII", signature, start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    body = struct.pack(">I", len(directory) // 12) + directory + data
    header = struct.pack(
        ">I4sI4s4s4s6H4s28s12s48s",
        128 + len(body),
        b"",  # no preferred colour engine
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        *(2026, 1, 1, 0, 0, 0),  # a fixed date: equal inputs give equal files
        b"acsp",
        b"",  # platform, flags, maker, model, attributes: none; intent: perceptual
        struct.pack(">3i", *(round(value * 65536) for value in D50)),
        b"",
    )
    return header + body


def _pack_xyz(xyz: Array) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in xyz))
