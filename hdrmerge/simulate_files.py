"""Simulated brackets -> files whose every value is known: JPEG, PNG, and Bayer RAW (DNG).

    radiance (Rec. 709) -> camera RGB -> one channel a photosite -> noise -> codes -> DNG

The sensor of the RAW files is less sensitive to red and blue than to green, as sensors are: white of
radiance 1.0 records `AS_SHOT_NEUTRAL`, so green saturates at 1.0 and red not before 2.0. The colour
matrix and the balance in the file undo this exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .bracket import Shot
from .exposure import Array, Float
from .scene import Matrix
from .simulate import Camera, Simulated, add_noise, expose

# --- 8 bits: JPEG and PNG -------------------------------------------------------------------------


def write_jpegs(sim: Simulated, folder: Path, quality: int = 95, prefix: str = "IMG_") -> list[Path]:
    """Write the frames of an 8-bit bracket as JPEG files 4:4:4 with the EXIF data of their shots."""
    return _write(sim, folder, prefix, ".jpg", quality=quality, subsampling=0)


def write_pngs(sim: Simulated, folder: Path, prefix: str = "IMG_") -> list[Path]:
    """Write the frames of an 8-bit bracket without loss, with the EXIF data of their shots."""
    return _write(sim, folder, prefix, ".png")


def _write(sim: Simulated, folder: Path, prefix: str, suffix: str, **encoding: Any) -> list[Path]:
    from PIL import Image

    if sim.camera.bits != 8:
        raise ValueError(f"{suffix} files hold 8 bits, this camera records {sim.camera.bits}")
    paths = _paths(sim, folder, prefix, suffix)
    for path, codes, shot in zip(paths, sim.frames, sim.shots, strict=True):
        Image.fromarray(codes).save(path, exif=exif_of(shot), **encoding)
    return paths


def _paths(sim: Simulated, folder: Path, prefix: str, suffix: str) -> list[Path]:
    """Return one path a frame, from 1 in the order of exposure, in a folder that then exists."""
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / f"{prefix}{number:04d}{suffix}" for number in range(1, len(sim.shots) + 1)]


def exif_of(shot: Shot) -> Any:
    """Return the EXIF block (`PIL.Image.Exif`) that says what ``shot`` says."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import IFDRational

    def rational(value: float) -> IFDRational:
        exact = Fraction(value).limit_denominator(100_000)
        return IFDRational(exact.numerator, exact.denominator)

    exif = Image.Exif()
    exif[ExifTags.Base.Make] = shot.camera_make
    exif[ExifTags.Base.Model] = shot.camera_model
    exif[ExifTags.Base.Orientation] = shot.orientation
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if shot.exposure_time is not None:
        details[ExifTags.Base.ExposureTime] = rational(shot.exposure_time)
    if shot.f_number is not None:
        details[ExifTags.Base.FNumber] = rational(shot.f_number)
    if shot.iso is not None:
        details[ExifTags.Base.ISOSpeedRatings] = round(shot.iso)
    if shot.taken_at is not None:
        details[ExifTags.Base.DateTimeOriginal] = shot.taken_at.strftime("%Y:%m:%d %H:%M:%S")
        details[ExifTags.Base.SubsecTimeOriginal] = f"{shot.taken_at.microsecond // 1000:03d}"
    return exif


# --- 14 bits: a Bayer sensor and DNG --------------------------------------------------------------

AS_SHOT_NEUTRAL = (0.5, 1.0, 0.625)
"""Camera RGB of white; the white balance multipliers are the inverse (2.0, 1.0, 1.6)."""

CROSSTALK = np.array([[0.72, 0.24, 0.04], [0.12, 0.76, 0.12], [0.02, 0.26, 0.72]])
"""White-balanced camera RGB of Rec. 709 primaries: how far the colour filters overlap, rows sum to 1."""

REC709_TO_XYZ = np.array(
    [[0.412391, 0.357584, 0.180481], [0.212639, 0.715169, 0.072192], [0.019331, 0.119195, 0.950532]]
)
"""Linear Rec. 709 to CIE XYZ with white D65 (ITU-R BT.709, IEC 61966-2-1)."""

_D65 = 21  # EXIF LightSource
_RGGB = (0, 1, 1, 2)


def rec709_to_camera() -> Matrix:
    """Return the 3x3 matrix from linear Rec. 709 to camera RGB."""
    return np.asarray(np.diag(AS_SHOT_NEUTRAL) @ CROSSTALK, dtype=np.float64)


def colour_matrix() -> Matrix:
    """Return the 3x3 matrix from CIE XYZ to camera RGB, as DNG stores it (ColorMatrix1)."""
    return np.asarray(rec709_to_camera() @ np.linalg.inv(REC709_TO_XYZ), dtype=np.float64)


def mosaic(colours: Float) -> Float:
    """Return what stands behind a Bayer filter RGGB, (H, W), of camera RGB (H, W, 3)."""
    photosites = np.array(colours[..., 1])
    photosites[0::2, 0::2] = colours[0::2, 0::2, 0]
    photosites[1::2, 1::2] = colours[1::2, 1::2, 2]
    return photosites


def record_mosaic(linear: Float, camera: Camera, iso: float, rng: np.random.Generator | None) -> Array:
    """Return the uint16 codes (H, W) of a 14-bit RAW file; without ``rng`` there is no noise.

    ``linear`` (H, W, 3) is Rec. 709 exposed so that 1.0 of white saturates green.
    """
    photosites = mosaic(linear @ rec709_to_camera().T.astype(np.float32))
    return camera.encode(photosites if rng is None else add_noise(photosites, camera.noise(iso), rng))


def write_dngs(
    sim: Simulated,
    folder: Path,
    rng: np.random.Generator | None,
    prefix: str = "IMG_",
    camera: Camera | None = None,
) -> list[Path]:
    """Write what the frames of a simulated bracket see as DNG files, recorded anew by a RAW camera."""
    camera = camera or Camera(bits=14)
    paths = _paths(sim, folder, prefix, ".dng")
    for path, view, scale, shot in zip(paths, sim.views, sim.relative_exposures, sim.shots, strict=True):
        write_dng(path, record_mosaic(expose(view, scale), camera, shot.iso or 100.0, rng), shot, camera)
    return paths


def write_dng(path: Path, photosites: Array, shot: Shot, camera: Camera) -> None:
    """Write the codes of a Bayer sensor RGGB (H, W) as a DNG file (Adobe DNG specification 1.4)."""
    import tifffile

    height, width = photosites.shape
    if height % 2 or width % 2:
        raise ValueError(f"a Bayer mosaic has even sides, not {width} x {height}")
    ascii_, byte, short, long, ratio, signed_ratio = 2, 1, 3, 4, 5, 10
    tags: list[tuple[int, int, int, Any, bool]] = [
        (271, ascii_, 0, camera.make, True),
        (272, ascii_, 0, camera.model, True),
        (274, short, 1, shot.orientation, True),
        (33421, short, 2, (2, 2), True),  # CFARepeatPatternDim
        (33422, byte, 4, bytes(_RGGB), True),  # CFAPattern
        (50706, byte, 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50707, byte, 4, bytes((1, 1, 0, 0)), True),  # DNGBackwardVersion
        (50708, ascii_, 0, f"{camera.make} {camera.model}", True),  # UniqueCameraModel
        (50714, short, 1, camera.black_level, True),
        (50717, long, 1, camera.white_level, True),
        (50721, signed_ratio, 9, _ratios(colour_matrix().ravel()), True),  # ColorMatrix1
        (50728, ratio, 3, _ratios(AS_SHOT_NEUTRAL), True),
        (50778, short, 1, _D65, True),  # CalibrationIlluminant1
    ]
    if shot.exposure_time is not None:
        tags.append((33434, ratio, 1, _ratios([shot.exposure_time]), True))
    if shot.f_number is not None:
        tags.append((33437, ratio, 1, _ratios([shot.f_number]), True))
    if shot.iso is not None:
        tags.append((34855, short, 1, round(shot.iso), True))
    if shot.taken_at is not None:
        tags.append((36867, ascii_, 0, f"{shot.taken_at:%Y:%m:%d %H:%M:%S}", True))  # DateTimeOriginal
        tags.append(
            (37521, ascii_, 0, f"{shot.taken_at.microsecond // 1000:03d}", True)
        )  # SubSecTimeOriginal
    tifffile.imwrite(path, photosites, photometric="cfa", extratags=tags, metadata=None, software=False)


def _ratios(values: Sequence[float] | Matrix) -> tuple[int, ...]:
    """Return numerator, denominator, numerator, ... of values; TIFF stores no other fractions."""
    exact = [Fraction(float(value)).limit_denominator(100_000) for value in values]
    return tuple(part for fraction in exact for part in (fraction.numerator, fraction.denominator))
