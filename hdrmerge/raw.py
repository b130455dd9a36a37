"""RAW files -> linear camera RGB through LibRaw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .bracket import Frame, Shot
from .colour import camera_to_rec709
from .errors import InputError
from .exposure import Array, Float, NoiseModel, Response
from .fileformat import opened

HOT_PIXELS_FROM = 0.5
"""[s] Exposures at least this long are searched for hot pixels."""


LARGEST_BALANCE = 50.0
"""Ratio of white balance multipliers that no light on earth asks for."""


@contextmanager
def open_raw(path: Path) -> Iterator[Any]:
    """Open a RAW file (`rawpy.RawPy`); whatever LibRaw finds wrong with it becomes an `InputError`."""
    import rawpy

    with opened(path):  # the system's own reasons are told better than LibRaw tells them
        pass
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        reason = error.args[0] if error.args else "no reason given"
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise InputError(
            f"{path}: LibRaw cannot read it ({text}); copy it again or convert it to DNG"
        ) from None


def read_raw(shot: Shot, reference: Shot) -> Frame:
    """Demosaic a RAW file to linear camera RGB, each channel 1.0 where it saturates.

    The demosaicing sees data balanced as in ``reference`` (it judges edges better), and the balance is
    divided out again: merging wants to know what the sensor recorded. It comes back with the camera
    matrix in ``to_rec709``.
    """
    import rawpy

    with open_raw(shot.path) as raw:
        own = _Calibration.of(raw)
        kept = own if shot == reference else _calibration_of(reference)
        balance, black, white = kept.balance, own.black, own.white
        if white <= black.max():
            raise InputError(f"{shot.path}: white level {white:g} is not above black; convert it to DNG anew")
        clip = _saturation(_photosites(raw), float(black[:3].mean()), white, shot.path)
        if (shot.exposure_time or 0.0) >= HOT_PIXELS_FROM:
            _remove_hot_pixels(raw, black, white)
        codes = raw.postprocess(
            user_wb=[*balance, balance[1]],
            output_color=rawpy.ColorSpace.raw,
            output_bps=16,
            gamma=(1, 1),
            no_auto_bright=True,
            adjust_maximum_thr=0.0,  # by default LibRaw brightens frames whose maximum lies below white
            highlight_mode=rawpy.HighlightMode.Ignore,
        )
        to_rec709 = own.to_rec709(balance)
    if codes.shape[2] == 1:
        codes = np.repeat(codes, 3, axis=2)
    elif codes.shape[2] != 3:
        raise InputError(f"{shot.path}: a sensor of {codes.shape[2]} colours; convert it to DNG or TIFF")
    # LibRaw brings white less the lowest black, times the largest multiplier, to full range; a channel
    # saturates at its own white less black, times its own multiplier.
    saturation = balance / balance.max() * (white - black[:3]) / (white - black.min())
    response = Response("raw", np.stack([np.zeros(3), 1.0 / saturation]).astype(np.float32))
    iso = NoiseModel.from_iso(shot.iso or 100.0)
    rounding = 12**-0.5 / max(white - float(black.max()), 1.0)
    noise = NoiseModel(iso.photon, max(iso.read, rounding))
    notes = _differences(own, kept, shot, reference)
    return Frame(shot, codes, response, noise, to_rec709, clip, notes)


@dataclass(frozen=True, eq=False)
class _Calibration:
    """What a RAW file says about its sensor: multipliers of R, G, B, levels, colour matrices."""

    balance: Float  # (3,), min 1
    black: Float  # (4,)
    white: float
    xyz_to_camera: Array  # (3, 3), zero where there is none
    embedded: Array  # (3, 3), camera to sRGB, zero where there is none

    @classmethod
    def of(cls, raw: Any) -> _Calibration:
        return cls(
            _white_balance(raw),
            np.float32(raw.black_level_per_channel),
            float(raw.white_level),
            np.asarray(raw.rgb_xyz_matrix, np.float64)[:3],
            np.asarray(raw.color_matrix, np.float64)[:, :3],
        )

    def to_rec709(self, balance: Float) -> Float:
        """Return the matrix from unbalanced sensor RGB to linear Rec. 709 by these multipliers."""
        if self.embedded.any() and not self.xyz_to_camera.any() and np.linalg.cond(self.embedded) < 1e6:
            return np.asarray(self.embedded * balance, np.float32)
        return camera_to_rec709(self.xyz_to_camera, balance)


@lru_cache(maxsize=4)  # LibRaw unpacks the pixels before it tells, once for all frames of a bracket
def _calibration_of(reference: Shot) -> _Calibration:
    with open_raw(reference.path) as raw:
        return _Calibration.of(raw)


def _differences(own: _Calibration, kept: _Calibration, shot: Shot, reference: Shot) -> tuple[str, ...]:
    """Warn of what cannot differ between two frames of a camera; of two cameras others warn."""
    if shot.camera_model != reference.camera_model:
        return ()
    notes = []
    matrices = ((own.xyz_to_camera, kept.xyz_to_camera), (own.embedded, kept.embedded))
    if not all(np.allclose(a, b, rtol=0.01, atol=0.01) for a, b in matrices):
        notes.append(f"another colour matrix than {reference.path.name}; one of the two may be damaged")
    span = kept.white - kept.black.max()  # of masked photosites, black varies a little
    off = abs(own.white - kept.white) > 0.02 * span or np.abs(own.black - kept.black).max() > 0.005 * span
    if off and shot.iso == reference.iso:
        notes.append(
            f"black and white level {own.black.max():g} and {own.white:g}, in {reference.path.name} "
            f"{kept.black.max():g} and {kept.white:g}; one of the two may be damaged"
        )
    return tuple(notes)


def _white_balance(raw: Any) -> Float:
    """Return the camera's multipliers of R, G, B with min 1; daylight where it recorded none."""
    for candidate in (raw.camera_whitebalance, raw.daylight_whitebalance):
        balance = np.asarray(candidate[:3], np.float32)
        if np.all(balance > 0) and balance.max() < LARGEST_BALANCE * balance.min():
            return np.asarray(balance / balance.min(), np.float32)
    return np.ones(3, np.float32)


def _photosites(raw: Any) -> Array:
    """Return what the sensor recorded, (H, W), or (H, W, 3) from a file without a mosaic."""
    recorded: Array = raw.raw_image_visible
    return recorded[..., :3] if recorded.ndim == 3 else recorded


def _saturation(photosites: Array, black: float, white: float, path: Path) -> float:
    """Return the level at which this sensor really clips, relative to the stated white level.

    Many cameras saturate a few percent below the white level of their metadata. Clipping shows as a
    spike: far more photosites in the topmost 0.2 % of the range than in the 2 % below it. Without
    a spike nothing was clipped and the level is 1.
    """
    lowest, top = int(photosites.min()), int(photosites.max())
    if lowest == top:
        raise InputError(
            f"{path}: every photosite reads {top}, no picture in it; copy it again from the card"
        )
    width = max(round((white - black) * 0.002), 1)
    spike = np.count_nonzero(photosites >= max(top - width, 0))
    below = (np.count_nonzero(photosites >= max(top - 11 * width, 0)) - spike) / 10
    level = (top - width - black) / (white - black)
    clipped = spike > 20 and spike > 8 * below and level > 0.5
    return min(level, 1.0) if clipped else 1.0


def _remove_hot_pixels(raw: Any, black: Float, white: float) -> None:
    """Lower photosites that outshine their neighbours of the same colour to the brightest of these.

    Done on the Bayer mosaic, in place: demosaicing would make a cross of each. Light spills over to the
    neighbours of other colours, even that of a star; a hot photosite glows alone.
    """
    mosaic = raw.raw_image_visible
    if mosaic.ndim != 2 or raw.raw_pattern is None or raw.raw_pattern.shape != (2, 2):
        return
    lowest = float(black.min())
    floor = lowest + (white - lowest) * 0.01
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)

    def times(codes: Array, factor: float) -> Array:
        return np.asarray(cv2.addWeighted(codes, factor, codes, 0.0, floor - factor * lowest))

    brightest = cv2.dilate(mosaic, ring)
    for row, column in np.ndindex(2, 2):
        sites = mosaic[row::2, column::2]
        beside = np.ascontiguousarray(brightest[row::2, column::2])
        around = cv2.dilate(np.ascontiguousarray(sites), ring)
        hot = sites > np.maximum(times(around, 2.5), times(beside, 8.0))
        if hot.any():
            np.copyto(sites, around, where=hot)
