"""Footage of a made-up scene with alternating exposures, as clips and as stills."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

TICKS = 1000  # a second


def scene(height: int = 120, width: int = 160, seed: int = 0, stops: float = 7.0) -> np.ndarray:
    """Return radiance with a mean near 0.1 that spans so many stops, textured but smooth."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((n, n)), (width, height), interpolation=cv2.INTER_CUBIC) for n in (4, 9, 25)
    ]
    level = sum(w * layer for w, layer in zip((1.0, 0.5, 0.3), layers, strict=True))
    level = (level - level.min()) / np.ptp(level)
    tint = np.stack([cv2.resize(rng.random((3, 3)), (width, height)) for _ in range(3)], axis=2) - 0.5
    return (2.0 ** (stops * (level - 0.85)[..., None] + 0.6 * tint)).astype(np.float32)


def bt709_encode(light: np.ndarray) -> np.ndarray:
    """Return the signal of light in [0, 1], by the text of BT.709: 4.5 L, or 1.099 L^0.45 - 0.099."""
    light = np.clip(light, 0, 1)
    return np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)


def alternating(
    exposures: Iterable[float], radiance: np.ndarray | None = None, move: int = 0
) -> list[np.ndarray]:
    """Return R'G'B' in [0, 1] of a scene at these exposures, moved by so many pixels a frame."""
    radiance = scene() if radiance is None else radiance
    return [bt709_encode(np.roll(radiance, n * move, 1) * t) for n, t in enumerate(exposures)]


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    times: Sequence[float] | None = None,
    pix_fmt: str = "yuv444p",
    luma: tuple[float, float] = (0.2126, 0.0722),
    full: bool = False,
    tags: dict[str, int] | None = None,
    codec: str = "ffv1",
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Write R'G'B' frames in [0, 1]; ``luma`` are the weights of red and blue. Lossless by default."""
    import av

    ten = "10" in pix_fmt
    most, unit = (1023, 4) if ten else (255, 1)
    red, blue = luma
    times = [n / 25 for n in range(len(frames))] if times is None else times
    index_first = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=index_first) as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = Fraction(1, TICKS)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for rgb, time in zip(frames, times, strict=True):
            y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
            cb, cr = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
            if full:
                planes = [y * most, cb * most + 128 * unit, cr * most + 128 * unit]
            else:
                planes = [(219 * y + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit]
            if "420" in pix_fmt:  # the mean of two rows; of columns the left one with its neighbours
                planes[1:] = [_left(p[::2] + p[1::2]) / 2 for p in planes[1:]]
            frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
            for name, value in (tags or {}).items():
                if hasattr(frame, name):
                    setattr(frame, name, value)
            for plane, values in zip(frame.planes, planes, strict=True):
                kind = np.dtype("<u2" if ten else np.uint8)
                lines = np.zeros((plane.height, plane.line_size // kind.itemsize), kind)
                lines[:, : plane.width] = np.clip(np.rint(values), 0, most)
                plane.update(lines.tobytes())
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _left(rows: np.ndarray) -> np.ndarray:
    around = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    return (around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:])[:, ::2] / 4


def write_stills(
    folder: Path, frames: Sequence[np.ndarray], seconds: Sequence[float] | None = None, quality: int = 97
) -> list[Path]:
    """Write R'G'B' frames as numbered JPEGs, with an exposure time in their EXIF if there are any."""
    from PIL import Image
    from PIL.TiffImagePlugin import IFDRational

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, rgb in enumerate(frames):
        picture, exif = Image.fromarray(np.rint(rgb * 255).astype(np.uint8)), Image.Exif()
        if seconds is not None:
            exif[0x8769] = {0x829A: IFDRational(round(seconds[n] * 1e6), 1_000_000)}
        paths.append(folder / f"{n + 1:03d}.jpg")
        picture.save(paths[-1], quality=quality, subsampling=0, exif=exif)
    return paths
