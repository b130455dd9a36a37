"""The two networks of HDR video over whole frames: engines, inputs by name, parts that fit into memory.

    2 N - 1 frames -> `networks.coarse` -> three of its results and their frames -> `networks.refine`

The followed form of `networks.coarse` takes them as `followed` finds them.

A frame is run in as few parts as fit into `MEMORY`; with the halo that the file states, parts together are
what the whole would be.

Units: frames are gamma codes (H, W, 3) in [0, 1], exposures relative to the shortest of the video, which is
1; radiance is (H, W, 3), 1.0 where the shortest clips, and limited to that: nothing was recorded beyond.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Literal

import numpy as np

from .errors import NetworkError
from .exposure import Array, Float
from .infer import BYTES_PER_PIXEL, SMALLEST_TILE, Engine, open_engine, run_boxes
from .networks import NETWORKS
from .tiles import Box, round_up, tiles, window_of
from .weights import find

Role = Literal["coarse", "refine"]
ROLES: tuple[Role, ...] = ("coarse", "refine")

INPUTS: Mapping[Role, frozenset[str]] = {
    "coarse": frozenset({"frames", "exposures"}),
    "refine": frozenset({"coarse", "frames", "exposures"}),
}
FOLLOWED = frozenset({"frames", "between", "shares", "flows", "exposures"})  # inputs of the followed form
MEMORY = 3.0e9  # [bytes] that a part may take on the CPU: with all else, HDR video stays below 4 GB


def name_of(role: Role, exposures: int) -> str:
    """Return the name of the released network for so many exposures.

    >>> name_of("coarse", 2)
    'video-coarse-2'
    """
    return f"video-{role}-{exposures}"


def is_released(role: Role, exposures: int | None = None) -> bool:
    """Tell whether there is a released network, for so many exposures or for any number."""
    rows = NETWORKS.values() if exposures is None else [NETWORKS.get(name_of(role, exposures))]
    return any(row and row.sha256 and row.name.startswith(f"video-{role}-") for row in rows)


def open_role(
    role: Role, choice: str | None, exposures: int, device: str = "auto", precision: str = "auto"
) -> Engine:
    """Open the network of a role for so many exposures: ``choice``, a file or a name, or the released one.

    Raises `NetworkError` where there is none, or where it is for something else.
    """
    name = choice or name_of(role, exposures)
    if choice is None and name not in NETWORKS:
        raise NetworkError(
            f"no network for {exposures} exposures; give files with --coarse and --refine, or use "
            "--method flow"
        )
    engine = open_engine(find(name), device, precision)
    card = engine.card
    taken = FOLLOWED if role == "coarse" and card["config"].get("followed") else INPUTS[role]
    if card["architecture"] != role or set(card["inputs"]) != taken:
        raise NetworkError(
            f"{engine.path}: a network of {card['architecture']!r}; --{role} takes one of {role!r}"
        )
    known = int(card["config"].get("exposures", 2))
    if known != exposures:
        raise NetworkError(
            f"{engine.path}: is for {known} exposures, these frames have {exposures}; give another with "
            f"--{role}, or use --method flow"
        )
    return engine


@dataclass(frozen=True, eq=False)
class Network:
    """A network that runs over frames."""

    engine: Engine

    def describe(self) -> str:
        """Return its file, engine, device and precision."""
        return f"{self.engine.path.name} ({self.engine.describe()})"

    @property
    def followed(self) -> bool:
        """Whether it takes frames that are followed."""
        return bool(self.engine.card["config"].get("followed"))

    @cached_property
    def _memory(self) -> float:
        """Bytes that a part may take, asked once: a clip's frames are all cut alike."""
        free = self.engine.free_memory()
        return min(MEMORY, free) if self.engine.device == "cpu" else free

    def run(
        self, pictures: Mapping[str, Sequence[Float]], exposures: Sequence[float], tile: int | None = None
    ) -> Float:
        """Return radiance (H, W, 3) of ``pictures``, some (H, W, c) for each input but exposures.

        ``tile`` [px] is the longest side of a part, from memory unless stated.
        """
        times = np.array(exposures, np.float32).reshape(1, -1, 1, 1)
        height, width = next(iter(pictures.values()))[0].shape[:2]
        halo, multiple = int(self.engine.card["halo"]), int(self.engine.card["multiple"])
        per_pixel = float(self.engine.card.get("bytes_per_pixel", BYTES_PER_PIXEL))
        side = tile or side_of((height, width), halo, multiple, self._memory / per_pixel)
        found = np.empty((height, width, 3), np.float32)

        def fetch(window: Box) -> dict[str, Float]:
            rows, columns = window.part[1:]
            return {name: planes([p[rows, columns] for p in seen]) for name, seen in pictures.items()}

        engine = _Timed(self.engine, times)
        for box, outputs in run_boxes(engine, fetch, (height, width), halo, multiple, tile=side):
            found[box.part[1:]] = np.moveaxis(outputs["radiance"][0], 0, -1)
        return np.clip(np.nan_to_num(found, nan=0.0, copy=False), 0.0, 1.0, out=found)


class _Timed(Engine):
    """An engine that is told exposures (1, n, 1, 1) with every part."""

    def __init__(self, engine: Engine, times: Float) -> None:
        super().__init__(engine.path, engine.card, engine.device, engine.precision)
        self._engine, self._times = engine, times

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> dict[str, Float]:
        return self._engine.run({**inputs, "exposures": self._times}, last=last)

    def describe(self) -> str:
        return self._engine.describe()

    def free_memory(self) -> float:
        return self._engine.free_memory()


def planes(pictures: Sequence[Array]) -> Float:
    """Return pictures (H, W, c) as planes (1, c n, H, W)."""
    each = [np.moveaxis(picture, -1, 0) for picture in pictures]
    return np.ascontiguousarray(np.concatenate(each)[None], np.float32)


def side_of(size: tuple[int, int], halo: int, multiple: int, pixels: float) -> int:
    """Return the side [px] of the largest parts of an image (H, W) whose windows hold so many ``pixels``.

    Parts are not smaller than their halo, however little memory there is: work would be ten times as much.

    >>> side_of((1080, 1920), 152, 8, 1.3e6)
    960
    """
    whole, least = Box(0, size[0], 0, size[1]), round_up(max(halo, SMALLEST_TILE), multiple)
    for parts in count(1):
        side = round_up(math.ceil(max(size) / parts), multiple)
        largest = max(window_of(box, halo, multiple, size).area for box in tiles(whole, side, multiple))
        if largest <= pixels or side <= least:
            return max(side, min(least, round_up(max(size), multiple)))
    raise AssertionError("parts become small enough")
