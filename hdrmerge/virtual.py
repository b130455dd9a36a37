"""One photograph -> the photographs of a virtual bracket, and their files.

A shorter exposure shows the expanded photograph (`expand`), a longer one the photograph with what a network
makes of its shadows: the difference between the network's code values and plain arithmetic's, in blocks,
enlarged. So both are as sharp as the photograph, and where the network adds nothing they are arithmetic.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import exif
from .bracket import Shot
from .colour import srgb_profile
from .expand import (
    STRIP,
    ExpandOptions,
    Photo,
    Progress,
    View,
    enlarged,
    in_strips,
    open_expander,
    read_photo,
    shrunk,
    synthesised,
)
from .exposure import Array, Float, Response
from .highlights import GAMMA, encoded
from .infer import Engine
from .write import check_target, replacing, write_preview

SHADOW = 0.05  # luma of code values below which a photograph does not tell all
LARGEST_EV, USUAL_EV = 4.0, 2.0  # [stops] that networks learned at most, and beyond which they guess much
NO_TIME = 1 / 60  # [s] for EV 0 of a virtual bracket where the photograph states no time


@dataclass(frozen=True, eq=False)
class VirtualFrame:
    """The photograph at another exposure; ``shot`` is the photograph's, with the time that this takes.

    ``brightened`` (h, w, 3) is what a network adds to code values of blocks at a longer exposure.
    """

    shot: Shot
    ev: float
    photo: Photo = field(repr=False)
    curve: Response = field(repr=False)
    brightened: Float | None = field(default=None, repr=False)

    def codes(self, dtype: type[np.uint8] | type[np.uint16] = np.uint8) -> Array:
        """Return the picture, upright, (H, W, 3)."""
        height, width = self.photo.frame.height, self.photo.frame.width
        codes = np.empty((height, width, 3), dtype)

        def work(top: int) -> None:
            bottom = min(top + STRIP, height)
            code = self.curve.encode(self._light(top, bottom))
            codes[top:bottom] = np.rint(code * np.float32(np.iinfo(dtype).max))

        in_strips(height, STRIP, work)
        return codes

    def _light(self, top: int, bottom: int) -> Float:
        photo = self.photo if self.ev < 0 else replace(self.photo, excess=None)
        light, _ = photo.rows(top, bottom)
        light = np.asarray(np.clip(light * np.float32(2.0**self.ev), 0.0, 1.0), np.float32)
        if self.brightened is None:
            return light
        code = encoded(light) + enlarged(self.brightened, photo.factor, top, light.shape)
        return np.asarray(np.power(np.clip(code, 0.0, 1.0), np.float32(GAMMA)), np.float32)


def virtual_bracket(
    path: str | os.PathLike[str],
    evs: Sequence[float],
    options: ExpandOptions | None = None,
    progress: Progress | None = None,
) -> tuple[list[VirtualFrame], list[str]]:
    """Return one photograph at other exposures [stops relative to it], in their order, and warnings.

    A shorter one shows the expanded photograph, a longer one the photograph and what the network makes of
    its shadows; at EV 0 it is the photograph. Code values are those of the curve that ``options`` name for a
    developed file, else sRGB. EVs beyond what networks learned are cut, and each is made once.
    """
    options, tell = options or ExpandOptions(), progress or (lambda stage, share: None)
    engine = open_expander(options)
    wanted, warnings = limited_evs(evs)
    given = options.curve()
    frame = read_photo(path, given, tell)
    warnings = [f"{path}: {note}" for note in frame.notes] + warnings
    time = frame.shot.exposure_time
    if time is None:
        time = NO_TIME
        warnings.append(f"{path}: states no exposure time; 1/{1 / NO_TIME:.0f} s is written for EV 0")
    photo = synthesised(frame, engine, tell) if min(wanted) < 0 else Photo.of(frame)
    brightened = _brightened(photo, engine, [ev for ev in wanted if ev > 0], tell)
    curve = given if given is not None and frame.response is given else Response.named("srgb")
    frames = [
        VirtualFrame(replace(frame.shot, exposure_time=time * 2.0**ev), ev, photo, curve, brightened.get(ev))
        for ev in wanted
    ]
    return frames, warnings


def limited_evs(evs: Sequence[float]) -> tuple[list[float], list[str]]:
    """Return EVs within what networks learned, each once, and warnings.

    >>> limited_evs([-1, 0, 1])
    ([-1.0, 0.0, 1.0], [])
    >>> limited_evs([-6, -5, 0])[0]
    [-4.0, 0.0]
    """
    cut = [min(max(float(ev), -LARGEST_EV), LARGEST_EV) + 0.0 for ev in evs]
    warnings = []
    if cut != [float(ev) for ev in evs]:
        warnings.append(f"exposures were cut to {LARGEST_EV:g} EV either way, the most that networks learned")
    if max(map(abs, cut), default=0.0) > USUAL_EV:
        warnings.append(f"beyond {USUAL_EV:g} EV most of what a virtual frame adds is guessed")
    return [*dict.fromkeys(cut)], warnings


def _brightened(
    photo: Photo, engine: Engine | None, evs: Sequence[float], tell: Progress
) -> dict[float, Float]:
    """Return what a network adds to the code values of blocks at longer exposures, in shadows."""
    if engine is None or not evs:
        return {}
    view = View.of(shrunk(photo), photo.to_rec709)
    luma = encoded(view.light) @ np.array([0.299, 0.587, 0.114], np.float32)
    untold = np.maximum(1 - luma / np.float32(SHADOW), 0)[..., None]
    found = {}
    for ev, codes in view.reexposed(engine, evs, lambda share: tell("merge", share)):
        added = untold * (codes - encoded(np.minimum(view.light * np.float32(2.0**ev), 1.0)))
        if np.abs(added).max() > 1e-4:
            found[ev] = added
    return found


def write_frame(frame: VirtualFrame, path: Path, *, force: bool = False) -> None:
    """Write a virtual frame as JPEG or 16-bit TIFF, with profile and EXIF, whole or not at all."""
    check_target(path, (".jpg", ".tif"), force=force)
    if path.suffix.lower() == ".jpg":
        write_preview(np.asarray(frame.codes(np.uint8), np.uint8), path, shot=frame.shot, force=force)
        return
    with replacing(path) as temporary:
        temporary.write_bytes(_tiff(frame.codes(np.uint16), frame.shot))


def _tiff(codes: Array, shot: Shot) -> bytes:
    """Encode 16-bit RGB in deflated strips, with profile and an EXIF directory (TIFF 6.0)."""
    height, width = codes.shape[:2]
    strips = [
        zlib.compress(np.ascontiguousarray(codes[top : top + STRIP], "<u2").tobytes(), 1)
        for top in range(0, height, STRIP)
    ]
    offsets = np.cumsum([8, *map(len, strips)]).tolist()
    pixels = b"".join(strips) + bytes(offsets[-1] % 2)
    exif_offset = 8 + len(pixels)
    details = exif.directory(exif.exposure_fields(shot, exif.SRGB), exif_offset)
    main_offset = exif_offset + len(details)
    layout = {
        256: exif.long(width),
        257: exif.long(height),
        258: exif.short(16, 16, 16),  # bits per sample
        259: exif.short(8),  # deflate
        262: exif.short(2),  # RGB
        273: exif.long(*offsets[:-1]),
        277: exif.short(3),  # samples per pixel
        278: exif.long(STRIP),  # rows per strip
        279: exif.long(*map(len, strips)),
        284: exif.short(1),  # pixels interleaved
        34675: exif.undefined(srgb_profile()),
        exif.EXIF_DIRECTORY: exif.long(exif_offset),
    }
    main = exif.directory(layout | exif.camera_fields(shot), main_offset)
    return struct.pack("<2sHI", b"II", 42, main_offset) + pixels + details + main
