"""RAW files -> linear camera RGB through LibRaw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .bracket import Frame, Shot
from .colour import camera_to_rec709
from .errors import InputError
from .exposure import Float, NoiseModel, Response

HOT_PIXELS_FROM = 0.5
"""[s] Exposures at least this long are searched for hot pixels."""


def open_raw(path: Path) -> Any:
    """Open a RAW file with LibRaw; nothing is decoded yet."""
    import rawpy

    try:
        return rawpy.imread(str(path))
    except rawpy.LibRawError as error:
        raise InputError(
            f"{path}: LibRaw cannot open it ({_libraw(error)}); copy it again or convert it to DNG"
        ) from None


def read_raw(shot: Shot, reference: Shot) -> Frame:
    """Demosaic a RAW file to linear camera RGB, each channel 1.0 where it saturates.

    The demosaicing sees white-balanced data (it judges edges better), and the balance is divided
    out again: merging wants to know what the sensor recorded. It comes back with the camera matrix
    in ``to_rec709``.
    """
    import rawpy

    balance = _white_balance(reference)
    with open_raw(shot.path) as raw:
        try:
            clip = _saturation(raw, shot.path)
            if (shot.exposure_time or 0.0) >= HOT_PIXELS_FROM:
                _remove_hot_pixels(raw)
            codes = raw.postprocess(
                user_wb=[*balance, balance[1]],
                output_color=rawpy.ColorSpace.raw,
                output_bps=16,
                gamma=(1, 1),
                no_auto_bright=True,
                adjust_maximum_thr=0.0,
                highlight_mode=rawpy.HighlightMode.Ignore,
            )
        except rawpy.LibRawError as error:
            raise InputError(
                f"{shot.path}: LibRaw cannot decode it ({_libraw(error)}); copy it again"
            ) from None
        to_rec709 = _camera_matrix(raw, balance)
        levels = float(raw.white_level - np.mean(raw.black_level_per_channel))
    # LibRaw scales the largest multiplier to full range: each channel saturates at balance / max.
    saturation = (balance / balance.max()).astype(np.float32)
    response = Response("raw", np.stack([np.zeros(3, np.float32), 1.0 / saturation]))
    iso = NoiseModel.from_iso(shot.iso or 100.0)
    noise = NoiseModel(iso.photon, max(iso.read, 12**-0.5 / max(levels, 1.0)))
    return Frame(shot, codes, response, noise, to_rec709, clip)


def _white_balance(shot: Shot) -> Float:
    """Return the camera's multipliers of R, G, B with min 1; daylight where it recorded none."""
    with open_raw(shot.path) as raw:
        for candidate in (raw.camera_whitebalance, raw.daylight_whitebalance):
            balance = np.asarray(candidate[:3], np.float32)
            if np.all(balance > 0):
                return np.asarray(balance / balance.min(), np.float32)
    return np.ones(3, np.float32)


def _camera_matrix(raw: Any, balance: Float) -> Float:
    xyz_to_camera = np.asarray(raw.rgb_xyz_matrix, np.float64)[:3]
    embedded = np.asarray(raw.color_matrix, np.float64)[:, :3]
    if not xyz_to_camera.any() and embedded.any():
        return np.asarray(embedded * balance, np.float32)
    return camera_to_rec709(xyz_to_camera, balance)


def _saturation(raw: Any, path: Path) -> float:
    """Return the level at which this sensor really clips, relative to the stated white level.

    Many cameras saturate a few percent below the white level of their metadata. Clipping shows as a
    spike: far more photosites in the topmost 0.2 % of the range than in the 2 % below it. Without
    a spike nothing was clipped and the level is 1.
    """
    data = raw.raw_image_visible if raw.raw_image is not None else None
    if data is None or data.size == 0:
        return 1.0
    counts = np.bincount(data.ravel(), minlength=2)
    used = np.flatnonzero(counts)
    if len(used) == 1:
        raise InputError(
            f"{path}: every photosite reads {used[0]}, no picture in it; copy it again from the card"
        )
    black, white = float(np.mean(raw.black_level_per_channel)), float(raw.white_level)
    top, width = int(used[-1]), max((white - black) * 0.002, 1.0)
    spike = counts[max(int(top - width), 0) :].sum()
    below = counts[max(int(top - 11 * width), 0) : max(int(top - width), 0)].sum() / 10
    level = (top - width - black) / (white - black)
    clipped = spike > 20 and spike > 8 * below and level > 0.5
    return min(float(level), 1.0) if clipped else 1.0


def _libraw(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _remove_hot_pixels(raw: Any) -> None:
    """Lower photosites that outshine their eight neighbours of the same colour to the brightest of these.

    Done on the mosaic, in place: demosaicing would make a cross of each.
    """
    mosaic = raw.raw_image_visible
    if mosaic is None or mosaic.ndim != 2 or raw.raw_pattern is None or raw.raw_pattern.shape != (2, 2):
        return
    black = float(np.mean(raw.black_level_per_channel))
    floor = (float(raw.white_level) - black) * 0.01
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)
    for phase in np.ndindex(2, 2):
        sites = mosaic[phase[0] :: 2, phase[1] :: 2]
        around = cv2.dilate(np.ascontiguousarray(sites), ring)
        np.copyto(sites, around, where=sites - black > 2.5 * (around - black) + floor)
