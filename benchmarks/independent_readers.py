"""Open written files with other people's readers and compare values and metadata.

    python benchmarks/independent_readers.py [FOLDER]

Writes a radiance map with known values as OpenEXR, Radiance .hdr and float TIFF, reads each file with
every reader that is installed, and prints the largest error relative to the pixel's brightest channel,
then what exiftool reports. Readers that hold 16-bit integers (ImageMagick Q16) clip above 1 and are
compared on what they can hold. Exit status 1 if a value is wrong or a format has fewer than two
readers. Optional: ffmpeg, ImageMagick, pfstools, luminance-hdr, exiftool, the wheel OpenImageIO.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.load import load
from hdrmerge.write import write

Float = np.ndarray
HEIGHT, WIDTH = 96, 128

TOLERANCE = {".exr": 2**-11, ".hdr": 0.5 / 127.5, ".tif": 1e-6}
"""Half the step of each format, relative to the pixel's brightest channel."""

SHOT = Shot(
    path=Path("IMG_0002.JPG"),
    exposure_time=1 / 60,
    iso=200.0,
    f_number=2.8,
    taken_at=datetime(2020, 1, 2, 3, 4, 5),
    camera_make="Canon",
    camera_model="EOS 550D",
    lens="EF 50mm f/1.8",
    focal_length=50.0,
)

METADATA = """
-ExposureTime -FNumber -Aperture -ISO -DateTimeOriginal -Capdate -Make -CameraMake -Model -CameraModel
-LensModel -FocalLength -NominalFocalLength -Software -Comments -Comment -UserComment -Chromaticities
-ColorPrimaries -ProfileDescription
"""


class Missing(Exception):
    """A reader that is not installed, or that does not know the format."""


def known_map() -> RadianceMap:
    """Return 14 stops of radiance in colours that every reader can hold, no channel near 0."""
    rng = np.random.default_rng(0)
    level = np.exp2(np.linspace(-9, 5, WIDTH))[None, :, None]
    pixels = (level * rng.uniform(0.4, 1.0, (HEIGHT, WIDTH, 3))).astype(np.float32)
    return RadianceMap(pixels, np.ones((HEIGHT, WIDTH), dtype=bool), SHOT, (SHOT,), "known values")


def run(*command: str | Path, data: bytes | None = None) -> bytes:
    """Return what a program prints; Missing where it is not installed or gives up."""
    if shutil.which(str(command[0])) is None:
        raise Missing("not installed")
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(command, input=data, capture_output=True, env=environment, timeout=120)
    if done.returncode:
        raise Missing("cannot read it")
    return done.stdout


# --- one function a reader, path -> pixels (H, W, 3) ------------------------------------------------


def ffmpeg(path: Path) -> Float:
    raw = run("ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "gbrpf32le", "-")
    green, blue, red = np.frombuffer(raw, "<f4").reshape(3, HEIGHT, WIDTH)
    return np.stack([red, green, blue], axis=2)


def imagemagick(path: Path) -> Float:
    # Its `convert` may be another program's; the Debian name is looked for first. The values are kept
    # as they are: colourspace is only a label here.
    program = "convert-im6.q16" if shutil.which("convert-im6.q16") else "magick"
    raw = run(program, path, "-set", "colorspace", "sRGB", "-depth", "16", "-endian", "LSB", "rgb:-")
    return np.frombuffer(raw, "<u2").reshape(HEIGHT, WIDTH, 3) / np.float32(65535)


def pfstools(path: Path) -> Float:
    """Read by way of a portable float map: bottom row first, byte order by the sign of the scale."""
    reader = {".exr": "pfsinexr", ".hdr": "pfsinrgbe", ".tif": "pfsintiff"}[path.suffix]
    copy = path.with_suffix(".pfm")
    run("pfsoutpfm", copy, data=run(reader, path))
    _, size, scale, data = copy.read_bytes().split(b"\n", 3)
    width, height = (int(number) for number in size.split())
    return np.frombuffer(data, "<f4" if float(scale) < 0 else ">f4").reshape(height, width, 3)[::-1]


def luminance(path: Path) -> Float:
    """Luminance HDR loads the file and saves it as float OpenEXR, which ours then reads.

    It takes .hdr values for watts and makes lumens of them, factor 179, divided out here. A float TIFF
    with a profile, any profile, it converts to sRGB codes and clips at 1; without one it reads it right.
    """
    if path.suffix == ".tif":
        raise Missing("clips what has a profile")
    copy = path.with_name(f"luminance_{path.suffix[1:]}.exr")
    run("luminance-hdr-cli", "-l", path, "-s", copy)
    return load(copy).pixels / np.float32(179.0 if path.suffix == ".hdr" else 1.0)


def opencv(path: Path) -> Float:
    if path.suffix == ".exr":
        raise Missing("not in the wheels")
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1]


def tifffile(path: Path) -> Float:
    if path.suffix != ".tif":
        raise Missing("TIFF only")
    return np.asarray(importlib.import_module("tifffile").imread(path))


def openimageio(path: Path) -> Float:
    try:
        oiio = importlib.import_module("OpenImageIO")
    except ImportError:
        raise Missing("not installed") from None
    source = oiio.ImageInput.open(str(path))
    pixels = np.asarray(source.read_image("float"))
    source.close()
    return pixels


READERS: dict[str, Callable[[Path], Float]] = {
    "ffmpeg": ffmpeg,
    "ImageMagick": imagemagick,
    "pfstools": pfstools,
    "Luminance HDR": luminance,
    "OpenImageIO": openimageio,
    "OpenCV": opencv,
    "tifffile": tifffile,
}
INTEGER_READERS = {"ImageMagick"}
XYZ_READERS = {"pfstools", "Luminance HDR"}
"""Keep pixels as XYZ in float32: four digits survive."""


def error_of(read: Float, expected: Float, integer: bool) -> float:
    """Return the largest difference relative to the pixel's brightest channel."""
    peak = expected.max(axis=2)
    error = np.abs(read - expected).max(axis=2) / peak
    held = (peak < 1.0) & (peak > 2**-6)  # in 16-bit integers without clipping and with precision
    return float(error[held].max() if integer else error.max())


def main(folder: Path) -> int:
    radiance_map = known_map()
    wrong = 0
    print(f"{'reader':15}" + "".join(f"{suffix:>28}" for suffix in TOLERANCE))
    agree = dict.fromkeys(TOLERANCE, 0)
    paths = {suffix: folder / f"known{suffix}" for suffix in TOLERANCE}
    for path in paths.values():
        write(radiance_map, path, force=True)
    for name, reader in READERS.items():
        cells = []
        for suffix, path in paths.items():
            try:
                error = error_of(reader(path), radiance_map.pixels, name in INTEGER_READERS)
            except Missing as reason:
                cells.append(str(reason))
                continue
            tolerance = TOLERANCE[suffix] * 1.01
            tolerance += 2**-10 if name in INTEGER_READERS else 0.0
            tolerance += 1e-4 if name in XYZ_READERS else 0.0
            right = error <= tolerance
            agree[suffix] += right
            wrong += not right
            cells.append(f"{error:.1e} {'agrees' if right else 'DIFFERS'}")
        print(f"{name:15}" + "".join(f"{cell:>28}" for cell in cells))
    print(f"{'agree':15}" + "".join(f"{agree[suffix]:>28}" for suffix in TOLERANCE))
    try:
        for suffix, path in paths.items():
            print(f"\nexiftool, {suffix}")
            found: dict[str, object] = json.loads(run("exiftool", "-json", *METADATA.split(), path))[0]
            for tag, value in found.items():
                if tag != "SourceFile":
                    print(f"  {tag:20} {value}")
    except Missing as reason:
        print(f"\nexiftool: {reason}")
    return int(wrong > 0 or min(agree.values()) < 2)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
        sys.exit(main(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
