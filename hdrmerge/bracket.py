"""What travels down the pipeline: Shot -> Frame -> Bracket -> RadianceMap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .exposure import Array, Float, Mask, NoiseModel, Response, ev100, exposure

ExposureSource = Literal["exif", "times", "ev", "pixels", "none"]
ExposureMode = Literal["auto", "manual", "bracket"]


@dataclass(frozen=True)
class Shot:
    """What the metadata says about one photograph before any pixel is decoded.

    Values the file does not state are None (or empty strings). ``stated_exposure`` is the relative
    exposure [s] given by hand or found in the pixels; it wins over anything the file says.
    """

    path: Path
    width: int = 0
    height: int = 0
    exposure_time: float | None = None  # [s]
    iso: float | None = None
    f_number: float | None = None
    taken_at: datetime | None = None
    camera_make: str = ""
    camera_model: str = ""
    lens: str = ""
    focal_length: float | None = None  # [mm]
    orientation: int = 1  # EXIF 1..8
    stated_exposure: float | None = None
    source: ExposureSource = "none"
    exposure_mode: ExposureMode | None = None  # EXIF ExposureMode
    exposure_bias: float | None = None  # [EV], as the photographer or the camera's bracketing set it
    camera_serial: str = ""
    software: str = ""

    @property
    def exposure(self) -> float | None:
        """Relative exposure H = t * S/100 / N^2 [s]; None without a time.

        A missing ISO or aperture is taken as 100 and 1: harmless as long as it is missing in every
        shot of a bracket, which `form.form_bracket` makes sure of.
        """
        if self.stated_exposure is not None:
            return self.stated_exposure
        if self.exposure_time is None:
            return None
        return exposure(self.exposure_time, self.iso or 100.0, self.f_number or 1.0)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height [px] of the picture turned as ``orientation`` says."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)

    @property
    def ev100(self) -> float | None:
        """Exposure value at ISO 100 [stops]; larger is a shorter exposure."""
        return None if self.exposure is None else ev100(self.exposure)


class Codes(Protocol):
    """Pixels as the file stores them, shape (H, W, 3), read by rows: ``codes[y0:y1]``."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, rows: slice, /) -> Array: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """A shot and its pixels.

    The pixels stay codes, a third of their linear size, until `linear` is asked for some rows.
    ``to_rec709`` takes this frame's linear light (white balance and primaries of the camera or of
    the file's profile) to linear Rec. 709. ``clip`` is the linear level from which a channel counts
    as saturated; below 1 for sensors that clip before their stated white level.
    """

    shot: Shot
    codes: Codes
    response: Response
    noise: NoiseModel
    to_rec709: Float = field(default_factory=lambda: np.eye(3, dtype=np.float32))
    clip: float = 1.0
    notes: tuple[str, ...] = ()  # warnings about this file, without its name

    @property
    def height(self) -> int:
        return int(self.codes.shape[0])

    @property
    def width(self) -> int:
        return int(self.codes.shape[1])

    @property
    def exposure(self) -> float:
        """Relative exposure [s]; a frame in a bracket always has one."""
        value = self.shot.exposure
        if value is None:
            raise ValueError(f"{self.shot.path}: frame without an exposure")
        return value

    def linear(self, top: int = 0, bottom: int | None = None) -> Float:
        """Return rows ``top:bottom`` as linear light (h, W, 3), float32, 1.0 where the sensor clips."""
        return self.response.decode(self.codes[top:bottom])


@dataclass(frozen=True, eq=False)
class Bracket:
    """Frames of one scene, shortest exposure first, and the index of the reference among them."""

    frames: tuple[Frame, ...]
    reference: int

    @property
    def reference_frame(self) -> Frame:
        return self.frames[self.reference]


@dataclass(frozen=True, eq=False)
class RadianceMap:
    """The result of a merge.

    ``pixels`` (H, W, 3) float32, linear Rec. 709, 1.0 where the reference frame clips; not limited
    above. ``valid`` (H, W) is False where no frame recorded the scene, because all were clipped.
    ``reference`` is the shot whose metadata the output files carry. ``distrust`` (h, w) uint8, block
    averages as in `proxy.Proxy`, is how far frames other than the reference were distrusted: 255 is all.
    """

    pixels: Float
    valid: Mask
    reference: Shot
    inputs: Sequence[Shot] = ()
    settings: str = ""
    distrust: NDArray[np.uint8] | None = None

    def ghost_map(self) -> NDArray[np.uint8]:
        """Return ``distrust`` as a grey picture (H, W, 3) of the result's size."""
        height, width = self.pixels.shape[:2]
        if self.distrust is None:
            return np.zeros((height, width, 3), np.uint8)
        factor = height // self.distrust.shape[0]
        rows, columns = (
            np.minimum(np.arange(n) // factor, m - 1)
            for n, m in ((height, self.distrust.shape[0]), (width, self.distrust.shape[1]))
        )
        return np.repeat(self.distrust[rows][:, columns, None], 3, axis=2)
