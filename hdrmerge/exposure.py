"""Exposure, response curves, noise: the formulas of photography, each with symbol, unit and source.

Domains used throughout the package
    code      what a file stores: uint8, uint16, or float for files that are linear already
    linear    sensor signal relative to saturation, 1.0 where the sensor clips
    radiance  linear / relative exposure, so that all frames of a bracket agree
    mu        mu-law of radiance, the domain in which errors look about equal
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Float = NDArray[np.float32]
Mask = NDArray[np.bool_]

MU = 5000.0
"""Compression of the mu-law used by the multi-frame HDR literature (Kalantari and Ramamoorthi 2017)."""

FULL_WELL = 40_000.0
"""Electrons a photosite holds at ISO 100, for cameras that do not tell. Typical of APS-C and full
frame sensors (20,000 to 90,000); a wrong value scales all weights alike and cancels in the merge."""

READ_NOISE = 4.0
"""Read noise in electrons at ISO 100, same remark."""


def exposure(time: float, iso: float = 100.0, f_number: float = 1.0) -> float:
    """Return the relative exposure H = t * (S/100) / N^2 [s].

    ``time`` is the shutter time t [s], ``iso`` the sensitivity S, ``f_number`` the aperture N.
    Proportional to the code a linear camera records for a given radiance (ISO 12232, ISO 2720).

    >>> exposure(1 / 60, iso=200, f_number=2.0) * 60
    0.5
    """
    return time * iso / 100.0 / f_number**2


def ev100(relative_exposure: float) -> float:
    """Return the exposure value at ISO 100, EV = -log2(H) [stops]; larger is a shorter exposure.

    >>> ev100(exposure(1 / 64, 100, 8.0))
    12.0
    """
    return -math.log2(relative_exposure)


def mu_law(radiance: Float, mu: float = MU) -> Float:
    """Compress radiance in [0, 1] to mu = log(1 + mu x) / log(1 + mu), also in [0, 1].

    Values above 1 go above 1; negative values are taken as 0.

    >>> float(mu_law(np.float32([0.0, 1.0]))[1])
    1.0
    """
    positive = np.maximum(radiance, 0.0)
    return np.asarray(np.log1p(mu * positive) / math.log1p(mu), dtype=np.float32)


def mu_law_inverse(code: Float, mu: float = MU) -> Float:
    """Return the radiance of a mu-law code, the inverse of `mu_law`; negative codes are taken as 0.

    >>> round(float(mu_law_inverse(mu_law(np.float32([2.0])))[0]), 4)
    2.0
    """
    positive = np.maximum(code, np.float32(0.0))
    return np.asarray(np.expm1(positive * np.float32(math.log1p(mu))) / np.float32(mu), dtype=np.float32)


def smoothstep(low: float, high: float, x: Float) -> Float:
    """Return the cubic step that is 0 at ``low``, 1 at ``high``; ``low > high`` gives a falling step.

    >>> float(smoothstep(0.0, 1.0, np.float32([0.5]))[0])
    0.5
    """
    t = np.clip((x - np.float32(low)) * np.float32(1.0 / (high - low)), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def srgb_decode(code: Array) -> Array:
    """Return linear light of an sRGB code in [0, 1] (IEC 61966-2-1).

    >>> round(float(srgb_decode(np.array(0.5))), 4)
    0.214
    """
    code = np.asarray(code)
    low = code <= 0.04045
    return np.asarray(np.where(low, code / 12.92, ((np.maximum(code, 0.0) + 0.055) / 1.055) ** 2.4))


def srgb_encode(linear: Array) -> Array:
    """Return the sRGB code of linear light in [0, 1], the inverse of `srgb_decode`."""
    linear = np.maximum(linear, 0.0)
    low = linear <= 0.0031308
    return np.asarray(np.where(low, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


@dataclass(frozen=True, eq=False)
class Response:
    """A camera's response curve as a value that travels with its frame.

    ``table`` has shape (K, 3): linear light of each channel at K equally spaced codes from 0 to 1,
    non-decreasing; the last row is 1 for developed pictures. Files with uint8 or uint16 codes are
    decoded through it; float files are linear by convention and are not.
    """

    name: str
    table: Float
    _tables: dict[int, Float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_function(cls, name: str, decode: Any, size: int = 4097) -> Response:
        """Sample ``decode`` (code in [0, 1] -> linear in [0, 1]) for all three channels."""
        column = np.asarray(decode(np.linspace(0.0, 1.0, size)), dtype=np.float32)
        return cls(name, np.repeat(column[:, None], 3, axis=1))

    @classmethod
    def named(cls, name: str) -> Response:
        """Return one of the standard curves in `RESPONSES`; KeyError if there is none of that name."""
        return cls.from_function(name, RESPONSES[name])

    @property
    def is_linear(self) -> bool:
        """True where the curve is a straight line through the origin in all channels."""
        ramp = np.linspace(0.0, 1.0, len(self.table), dtype=np.float32)[:, None]
        return bool(np.abs(self.table - ramp * self.table[-1]).max() < 1e-6)

    def sampled(self, levels: int) -> Float:
        """Return the curve at ``levels`` equally spaced codes, shape (levels, 3)."""
        if levels not in self._tables:
            at = np.linspace(0.0, 1.0, levels)
            knots = np.linspace(0.0, 1.0, len(self.table))
            columns = [np.interp(at, knots, self.table[:, c]) for c in range(3)]
            self._tables[levels] = np.stack(columns, axis=1).astype(np.float32)
        return self._tables[levels]

    def decode(self, codes: Array) -> Float:
        """Return linear light, float32, of codes with shape (..., 3) and dtype uint8, uint16 or float."""
        if codes.dtype == np.uint8:
            rows = codes if codes.ndim == 3 else codes.reshape(-1, 1, 3)
            linear = cv2.LUT(rows, self.sampled(256).reshape(1, 256, 3))
            return np.asarray(linear.reshape(codes.shape), dtype=np.float32)
        if codes.dtype == np.uint16 and self.is_linear:
            return np.asarray(codes * (self.table[-1] / np.float32(65535)), dtype=np.float32)
        if codes.dtype == np.uint16:
            table = self.sampled(65536)
            return np.stack([table[:, c].take(codes[..., c]) for c in range(3)], axis=-1)
        return codes.astype(np.float32, copy=False)

    def encode(self, linear: Float) -> Float:
        """Return the code in [0, 1] that decodes to ``linear`` (..., 3), clipped to the curve's range."""
        knots = np.linspace(0.0, 1.0, len(self.table))
        columns = [np.interp(linear[..., c], self.table[:, c], knots) for c in range(3)]
        return np.stack(columns, axis=-1).astype(np.float32)

    def level(self, code: Array, channel: Array) -> Array:
        """Return log2 of the linear light of codes in [0, 1], each of one channel; both of shape (R,)."""
        knots = np.linspace(0.0, 1.0, len(self.table))
        table = np.log2(np.maximum(self.table.astype(np.float64), 2.0**-20))
        columns = np.stack([np.interp(code, knots, table[:, c]) for c in range(3)])
        return np.asarray(columns[channel, np.arange(len(code))])


def _gamma22(code: Array) -> Array:
    return np.asarray(code, dtype=np.float64) ** 2.2


def _identity(code: Array) -> Array:
    return np.asarray(code, dtype=np.float64)


RESPONSES = {"srgb": srgb_decode, "gamma2.2": _gamma22, "linear": _identity}
"""The standard curves by name, code in [0, 1] -> linear in [0, 1]."""


@dataclass(frozen=True)
class NoiseModel:
    """Poisson-Gaussian sensor noise: var(x) = photon * x + read^2 for linear x in [0, 1].

    ``photon`` is the inverse of the electrons at saturation, ``read`` the standard deviation in the
    dark, both relative to saturation. Source: Foi, Trimeche, Katkovnik and Egiazarian, "Practical
    Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP 2008.
    """

    photon: float
    read: float

    @classmethod
    def from_iso(cls, iso: float, full_well: float = FULL_WELL) -> NoiseModel:
        """Return the model of a typical sensor at ``iso``: gain divides the electrons at saturation.

        >>> NoiseModel.from_iso(400).photon == 4 / FULL_WELL
        True
        """
        gain = iso / 100.0
        return cls(photon=gain / full_well, read=READ_NOISE * gain / full_well)

    def with_quantisation(self, response: Response, levels: int) -> NoiseModel:
        """Return the model with the rounding of ``levels`` codes added.

        A step of d linear units has variance d^2/12. Under a curve close to a power law d^2 grows
        about as the signal itself, so that it joins the photon term; the step at black joins the
        read noise.
        """
        linear = response.sampled(levels)[:, 1].astype(np.float64)
        middle, variance = (linear[1:] + linear[:-1]) / 2, np.diff(linear) ** 2 / 12
        black = int(np.searchsorted(linear, 0.0, side="right")) - 1  # above 0 in scans with a pedestal
        dark = float(variance[black : black + max(levels // 64, 1)].mean())
        bright = middle > 0.01
        photon = float(np.median(np.maximum(variance[bright] - dark, 0.0) / middle[bright]))
        return NoiseModel(self.photon + photon, math.hypot(self.read, dark**0.5))

    def variance(self, linear: Float) -> Float:
        """Return the variance of a linear signal, same shape, relative to saturation squared."""
        signal = np.maximum(linear, np.float32(0.0))
        signal *= np.float32(self.photon)
        signal += np.float32(self.read**2)
        return np.asarray(signal, dtype=np.float32)
