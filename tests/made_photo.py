"""One made-up photograph whose truth is known, and engines that stand in for a network of `expand`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hdrmerge.simulate import Simulated, simulate_bracket
from hdrmerge.simulate_files import exif_of

SIZE = (192, 288)
SHARE = 0.15  # of the picture that clips in some channel


def scene(height: int = 2 * SIZE[0], width: int = 2 * SIZE[1]) -> np.ndarray:
    """Return a white sun in a blue evening sky, and an orange lamp before dark ground; smooth."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y / height, x / width
    sky = np.stack([0.25 + 0.5 * x, 0.4 + 0.4 * x, 0.8 + 0.5 * x], axis=2) * (1.3 - y)[..., None]
    ground = np.float32([0.12, 0.1, 0.06]) * (1 + np.sin(9 * x) * np.cos(7 * y))[..., None]
    below = 1 / (1 + np.exp((0.55 - y) * 60))
    light = sky * (1 - below)[..., None] + ground * below[..., None]
    for place, size, colour in (((0.4, 0.5), 0.07, (9, 9, 9)), ((0.62, 0.36), 0.04, (9.0, 4.5, 1.2))):
        away = np.hypot((y - place[0]) * height, (x - place[1]) * width) / height
        light = light + np.exp(-((away / size) ** 2))[..., None] * np.float32(colour)
    return light.astype(np.float32)


def photograph(size: tuple[int, int] = SIZE, seed: int = 0) -> Simulated:
    """Return one frame of a bracket: ``frames[0]`` are its codes, ``truth`` is what it saw."""
    rng = np.random.default_rng(seed)
    return simulate_bracket(
        scene(2 * size[0], 2 * size[1]), rng, size=size, frames=1, step_ev=[], saturated_share=SHARE
    )


def save(sim: Simulated, path: Path, **encoding: int) -> Path:
    """Write it as PNG, JPEG or TIFF with its metadata."""
    Image.fromarray(sim.frames[0]).save(path, exif=exif_of(sim.shots[0]), **encoding)
    return path


class Stub:
    """An engine whose frames are what ``light`` (H, W, 3), Rec. 709, looks like at other exposures.

    ``changed`` alters the code values (h, w, 3) for an EV. ``largest`` is how many pixels it has memory for.
    """

    path, device, precision = Path("stub.onnx"), "cpu", "fp32"

    def __init__(
        self,
        light: np.ndarray | None = None,
        changed: Callable[[np.ndarray, float], np.ndarray] = lambda codes, ev: codes,
        largest: int = 1 << 30,
    ) -> None:
        self.card = {"architecture": "virtual_bracket", "inputs": ["photo", "ev"], "outputs": ["frames"]}
        self.light, self.changed, self.largest = light, changed, largest
        self.seen: list[np.ndarray] = []

    def describe(self) -> str:
        return "stub 1 cpu fp32"

    def free_memory(self) -> float:
        return 1e12

    def run(self, inputs: dict[str, np.ndarray], *, last: bool = False) -> dict[str, np.ndarray]:
        photo, ev = inputs["photo"], inputs["ev"]
        assert photo.dtype == ev.dtype == np.float32
        assert photo.shape[:2] == (1, 3)
        assert ev.shape == (1, 1, 1, 1)
        assert photo.min() >= 0
        assert photo.max() <= 2 ** (2.5 / 2.2) + 1e-6  # extrapolated where it is white
        height, width = photo.shape[2:]
        if height * width > self.largest:
            raise MemoryError
        self.seen.append(photo)
        light = np.moveaxis(photo[0], 0, -1) ** 2.2
        if self.light is not None:
            light = cv2.resize(self.light, (width, height), interpolation=cv2.INTER_AREA)
        stops = float(ev[0, 0, 0, 0])
        codes = self.changed(np.clip(light * 2**stops, 0, 1) ** (1 / 2.2), stops)
        return {"frames": np.moveaxis(codes, -1, 0)[None].astype(np.float32)}
