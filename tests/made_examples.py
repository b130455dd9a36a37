"""What the tests of training share: scenes drawn by rule, examples of noise, a network of a few weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR

from hdrmerge.scene import ramp_scene
from hdrmerge.training.examples import Example

TINY: dict[str, Any] = {"pair": [4, 4], "fill": [4, 4], "context": 4}
SIZE, SQUARE = (128, 160), 64


def write_scenes(folder: Path, *names: str) -> Path:
    """Write a scene for each name."""
    folder.mkdir(exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for number, name in enumerate(names):
        scene = ramp_scene(180, 240, np.random.default_rng(number))
        with OpenEXR.File(header, {"RGB": scene}) as file:
            file.write(str(folder / f"{name}.exr"))
    return folder


def noise(seed: int = 0, frames: int = 3, shape: tuple[int, int] = (64, 96), **planes: Any) -> Example:
    """Return an example of noise around grey whose gate is open; the first frame is two stops shorter."""
    rng = np.random.default_rng(seed)

    def drawn(*size: int) -> np.ndarray:
        return rng.uniform(0.2, 0.8, (*size, *shape)).astype(np.float16)

    others = drawn(frames, 10)
    others[:, 8] = (np.arange(frames, dtype=np.float16)[:, None, None] * 3 - 2) / 8
    reference = drawn(7)
    reference[6] = 1
    masks = rng.random((2, *shape)) < 0.4
    values = {
        "reference": reference,
        "frames": others,
        "truth": drawn(3),
        "moving": masks[0],
        "saturated": masks[1],
    }
    return Example(**{**values, **planes})


def write_examples(folder: Path, *frames: int, shape: tuple[int, int] = (64, 96)) -> Path:
    """Write an example of each number of frames."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, count in enumerate(frames):
        noise(number, count, shape).save(folder / f"{number:06d}_0.npy")
    return folder
