"""Examples -> batches of patches, endlessly: cropped, turned, mirrored, colours in any order.

From files, read ahead by threads (`read_batches`), or from the memory of the device, where they are cut
(`Resident`). Both give the same batches for the same random numbers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..entrust import FRAME_PLANES
from ..errors import InputError
from ..exposure import Array
from .examples import Example

OTHERS = (1, 2, 2, 2, 3, 3)
"""How many frames beside the reference a batch has, equally likely, unless a lesson says otherwise."""

BESIDE = 12  # planes of an example's file before those of its frames
LOOK_AGAIN = 200  # batches after which files that are new in the folder join in

Drawn = TypeVar("Drawn")


@dataclass(frozen=True, eq=False)
class Batch:
    """``reference`` (B, 7, H, W), ``frames`` (B, K, 10, H, W), ``truth`` (B, 3, H, W), masks (B, 1, H, W)."""

    reference: Tensor
    frames: Tensor
    truth: Tensor
    moving: Tensor
    saturated: Tensor
    peak: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, torch.float32) for name in self.__dataclass_fields__))


# --- what is drawn at random ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Cut:
    """One patch: its corner, which of the other frames, the order of colours, one of 8 orientations."""

    chosen: NDArray[np.int64]
    y: int
    x: int
    colours: NDArray[np.int64]
    turns: int
    mirrored: bool


def draw_cut(
    rng: np.random.Generator, frames: int, shape: tuple[int, int], size: int, count: int
) -> Cut | None:
    """Draw a square of ``size`` with ``count`` of the other frames; None where there are fewer."""
    if frames < count:
        return None
    chosen = np.sort(rng.permutation(frames)[:count])
    y, x = (int(rng.integers(length - size + 1)) for length in shape)
    return Cut(chosen, y, x, rng.permutation(3), int(rng.integers(4)), bool(rng.integers(2)))


def draw_batch(
    rng: np.random.Generator,
    examples: int,
    shape_of: Callable[[int], tuple[int, int, int]],
    batch: int,
    size: int,
    others: Sequence[int] = OTHERS,
) -> list[tuple[int, Cut]]:
    """Draw the patches of a batch, which have equally many frames, and whose example each is cut from.

    ``shape_of`` returns number of frames, height and width of an example.
    """
    count = int(rng.choice(others))
    drawn: list[tuple[int, Cut]] = []
    misses = 0
    while len(drawn) < batch:
        index = int(rng.integers(examples))
        frames, height, width = shape_of(index)
        cut = draw_cut(rng, frames, (height, width), size, count)
        if cut is not None:
            drawn.append((index, cut))
        elif (misses := misses + 1) > 50 * batch:  # a folder of pairs
            count, misses, drawn = 1, 0, []
    return drawn


# --- from files -----------------------------------------------------------------------------------


def read_batches(
    folder: Path,
    rng: np.random.Generator,
    batch: int,
    size: int,
    threads: int = 1,
    others: Sequence[int] = OTHERS,
) -> Generator[Batch, None, None]:
    """Yield batches for ever; files that appear in the folder meanwhile join in.

    Raises `InputError` where the folder holds no examples, or damaged ones.
    """
    files, drawn = _files(folder), 0

    def draw(own: np.random.Generator) -> Batch:
        nonlocal files, drawn
        if drawn % LOOK_AGAIN == 0:
            files = _files(folder)
        drawn += 1
        return _read_batch(files, own, batch, size, others)

    return read_ahead(draw, rng, threads)


def read_ahead(
    draw: Callable[[np.random.Generator], Drawn], rng: np.random.Generator, threads: int = 1
) -> Generator[Drawn, None, None]:
    """Yield what ``draw`` makes of random numbers, for ever; threads work ahead of what is used.

    What it raises is raised where the next one is asked for.
    """
    ready: queue.Queue[Drawn | Exception] = queue.Queue(maxsize=6)
    stopped = threading.Event()

    def put(item: Drawn | Exception) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def work(seed: int) -> None:
        own = np.random.default_rng(seed)
        try:
            while not stopped.is_set():
                put(draw(own))
        except Exception as error:
            put(error)

    for seed in rng.integers(2**31, size=threads):
        threading.Thread(target=work, args=(int(seed),), daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.npy"))
    if not files:
        raise InputError(f"{folder}: no examples (*.npy) there; make some first")
    return files


def _read_batch(
    files: Sequence[Path], rng: np.random.Generator, batch: int, size: int, others: Sequence[int]
) -> Batch:
    opened: dict[int, Example] = {}

    def shape_of(index: int) -> tuple[int, int, int]:
        opened[index] = example = opened.get(index) or Example.load(files[index])
        return (len(example.frames), *example.moving.shape)

    drawn = draw_batch(rng, len(files), shape_of, batch, size, others)
    return collate([cut_out(opened[index], cut, size) for index, cut in drawn])


def cut_patch(example: Example, rng: np.random.Generator, size: int, count: int) -> tuple[Array, ...] | None:
    """Cut a square with ``count`` of the other frames, in one of eight orientations and any order of colours.

    None where the bracket has fewer frames.
    """
    cut = draw_cut(rng, len(example.frames), example.moving.shape, size, count)
    return None if cut is None else cut_out(example, cut, size)


def cut_out(example: Example, cut: Cut, size: int) -> tuple[Array, ...]:
    """Return reference, frames, truth, masks and peak of a patch, as `Batch` has them."""
    at = (..., slice(cut.y, cut.y + size), slice(cut.x, cut.x + size))
    reference, frames = np.array(example.reference[at]), np.array(example.frames[cut.chosen][at])
    reference[:3], frames[:, :3] = reference[cut.colours], frames[:, cut.colours]
    planes = [
        reference,
        frames,
        example.truth[at][cut.colours],
        example.moving[None][at],
        example.saturated[None][at],
    ]
    planes = [np.rot90(plane, cut.turns, (-2, -1)) for plane in planes]
    if cut.mirrored:
        planes = [plane[..., ::-1] for plane in planes]
    shortest = float(frames[:, 8, 0, 0].astype(np.float32).min()) * 8
    return (*planes, np.float32(2.0 ** -min(shortest, 0.0)))


def collate(patches: Sequence[tuple[Array, ...]]) -> Batch:
    """Stack patches into a batch."""
    columns = [np.stack(column) for column in zip(*patches, strict=True)]
    return Batch(*(torch.from_numpy(np.ascontiguousarray(column)).float() for column in columns))


# --- from the memory of a device ------------------------------------------------------------------


class Resident:
    """All examples of a folder as half floats in the memory of a device."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self.planes: list[Tensor] = []
        for path in _files(folder):
            Example.load(path)  # which tells what is no example
            self.planes.append(torch.from_numpy(np.load(path, allow_pickle=False)).to(device))

    @staticmethod
    def fits(folder: Path, device: torch.device) -> bool:
        """Tell whether the examples take no more than half of a GPU's free memory."""
        if device.type != "cuda":
            return False
        return sum(path.stat().st_size for path in _files(folder)) <= torch.cuda.mem_get_info(device)[0] / 2

    def batches(
        self, rng: np.random.Generator, batch: int, size: int, others: Sequence[int] = OTHERS
    ) -> Generator[Batch, None, None]:
        """Yield batches for ever, the same as `read_batches` with one thread."""
        own = np.random.default_rng(int(rng.integers(2**31, size=1)[0]))
        while True:
            yield self.cut(draw_batch(own, len(self.planes), self._shape_of, batch, size, others), size)

    def _shape_of(self, index: int) -> tuple[int, int, int]:
        planes, height, width = self.planes[index].shape
        return (planes - BESIDE) // len(FRAME_PLANES), height, width

    def cut(self, drawn: Sequence[tuple[int, Cut]], size: int) -> Batch:
        """Cut a batch in a few operations a patch."""
        rows = torch.from_numpy(np.stack([_rows(cut) for _, cut in drawn])).to(self.device)
        patches = []
        for (index, cut), row in zip(drawn, rows, strict=True):
            patch = self.planes[index][:, cut.y : cut.y + size, cut.x : cut.x + size].index_select(0, row)
            patch = torch.rot90(patch, cut.turns, (-2, -1))
            patches.append(patch.flip(-1) if cut.mirrored else patch)
        planes = torch.stack(patches).float()
        frames = torch.unflatten(planes[:, BESIDE:], 1, (-1, len(FRAME_PLANES)))
        stops = frames[:, :, 8, 0, 0].amin(1) * 8
        peak = torch.exp2(-stops.clamp(max=0))
        return Batch(planes[:, :7], frames, planes[:, 7:10], planes[:, 10:11], planes[:, 11:12], peak)


def _rows(cut: Cut) -> NDArray[np.int64]:
    """Return which planes of an example's file a patch has, in order."""
    width = len(FRAME_PLANES)
    frames = [
        BESIDE + width * frame + np.concatenate([cut.colours, np.arange(3, width)]) for frame in cut.chosen
    ]
    return np.concatenate([cut.colours, np.arange(3, 7), 7 + cut.colours, [10, 11], *frames])
