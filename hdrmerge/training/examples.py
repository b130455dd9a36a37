"""A photographed bracket -> what the network sees of it and what it should say: an `Example`.

    frames -> proxies -> align -> calibrate -> evidence, beside the truth

The stages are the program's own, so that a network meets in training exactly what it meets at work:
frames misaligned as `align` leaves them, curves as wrong as `calibrate` finds them. Examples are kept
in files of a few megabytes, from which the loop cuts patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..align import Alignment, align
from ..bracket import Bracket
from ..calibrate import Calibrated, calibrate, with_response
from ..entrust import FRAME_PLANES, gather_evidence
from ..errors import InputError
from ..exposure import Array, Float, NoiseModel, Response, mu_law
from ..proxy import shrink
from ..simulate import Simulated

Half = NDArray[np.float16]


@dataclass(frozen=True, eq=False)
class Example:
    """One bracket: ``reference`` (7, h, w) and ``frames`` (K, 10, h, w) as in `entrust.Evidence`.

    ``truth`` (3, h, w) is in the domain of the mu-law, limited at the radiance ``peak`` where the
    shortest frame clips; ``moving`` and ``saturated`` (h, w) are the regions of `metrics.regions`.
    """

    reference: Half
    frames: Half
    truth: Half
    moving: Array
    saturated: Array

    def save(self, path: Path) -> None:
        """Write all planes as one .npy of half floats, (12 + 10 K, h, w), whole or not at all."""
        extra = self.moving[None], self.saturated[None]
        planes = [self.reference, self.truth, *(mask.astype(np.float16) for mask in extra), *self.frames]
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.concatenate(planes))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Example:
        """Map a file into memory; only what is cut from it will be read. Raises `InputError`."""
        try:
            planes = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path) from error
        if planes.ndim != 3 or planes.dtype != np.float16 or len(planes) < 22 or len(planes) % 10 != 2:
            raise _damaged(path)
        frames = planes[12:].reshape(-1, len(FRAME_PLANES), *planes.shape[1:])
        return cls(planes[:7], frames, planes[7:10], planes[10], planes[11])

    @property
    def peak(self) -> float:
        """Radiance at which the shortest frame clips, 1.0 where the reference does."""
        return float(2.0 ** -min(8.0 * float(self.frames[:, 8, 0, 0].min()), 0.0))


def _damaged(path: Path) -> InputError:
    return InputError(f"{path}: is damaged, or no example; delete it, and it will be made again")


def make_example(sim: Simulated, rng: np.random.Generator) -> Example | None:
    """Send a simulated bracket through the stages before the merge; None where only one frame is left.

    The curve is found from the frames for half of the cameras and known for the others; one bracket in
    six is misaligned by up to 3 px more than `align` leaves it, and one in ten has the wrong curve.
    """
    bracket, response = sim.bracket(), "srgb"
    developed = sim.camera.bits == 8
    if developed and rng.random() < 0.5:
        response = "auto"
        bracket = _as_read(bracket, Response.named("srgb"))
    elif developed and rng.random() < 0.2:
        wrong = sim.camera.response.table ** np.float32(np.exp(rng.uniform(-0.3, 0.3)))
        bracket = _as_read(bracket, Response("wrong", wrong))
    proxies = [shrink(frame) for frame in bracket.frames]
    alignments = align(proxies, bracket.reference)
    if rng.random() < 1 / 6:
        alignments = [_nudged(a, k == bracket.reference, rng) for k, a in enumerate(alignments)]
    return example_of(sim, calibrate(bracket, proxies, alignments, response))


def example_of(sim: Simulated, found: Calibrated, noise: NoiseModel | None = None) -> Example | None:
    """Return what a network sees of calibrated frames, beside the truth; None where only one is left.

    The ``noise`` that is believed of them is their own unless stated.
    """
    bracket = found.bracket
    frames = [frame if noise is None else replace(frame, noise=noise) for frame in bracket.frames]
    evidence = gather_evidence(frames, found.proxies, found.alignments, bracket.reference)
    if evidence is None:
        return None
    peak = 1.0 / min(1.0, *(sight.view.ratio for sight in evidence.sights))
    truth = as_seen(sim.truth, sim.camera.response, bracket.reference_frame.response)
    truth = mu_law(np.minimum(truth, np.float32(peak)))
    return Example(
        evidence.reference[0].astype(np.float16),
        evidence.frames.astype(np.float16),
        np.moveaxis(truth, -1, 0).astype(np.float16),
        sim.moving,
        sim.saturated,
    )


def _as_read(bracket: Bracket, response: Response) -> Bracket:
    """Return a bracket whose frames are decoded with another curve."""
    return Bracket(tuple(with_response(frame, response) for frame in bracket.frames), bracket.reference)


def as_seen(truth: Float, true: Response, used: Response) -> Float:
    """Return what the truth looks like through the curve in use: merging is not there to correct curves.

    Beyond the reference's white the curve at white goes on as a straight line in stops.
    """
    if np.array_equal(true.table, used.table):
        return truth
    inside = used.decode(np.rint(true.encode(np.minimum(truth, 1.0)) * 65535).astype(np.uint16))
    return np.where(truth < 1.0, inside, truth).astype(np.float32)


def _nudged(alignment: Alignment, still: bool, rng: np.random.Generator) -> Alignment:
    """Return an alignment that is off by a random shift, 1.2 px of standard deviation along each axis."""
    if still or not alignment.used:
        return alignment
    shift = np.array([[1, 0, rng.normal(0, 1.2)], [0, 1, rng.normal(0, 1.2)], [0, 0, 1]])
    return replace(alignment, matrix=shift @ alignment.matrix)


def cut(example: Example, rng: np.random.Generator, size: int = 160, frames: int = 5) -> list[Example]:
    """Cut squares of ``size`` out where the network may act, with at most ``frames`` other frames.

    A grid at a random offset; squares where less than a thirtieth is open to the network teach nothing.
    """
    height, width = example.moving.shape
    top, left = int(rng.integers(height % size + 1)), int(rng.integers(width % size + 1))
    squares = []
    for y in range(top, height - size + 1, size):
        for x in range(left, width - size + 1, size):
            at = (..., slice(y, y + size), slice(x, x + size))
            if example.reference[6][at].mean(dtype=np.float32) < 1 / 30:
                continue
            chosen = np.sort(rng.permutation(len(example.frames))[:frames])
            squares.append(
                Example(
                    example.reference[at],
                    example.frames[chosen][at],
                    example.truth[at],
                    example.moving[at],
                    example.saturated[at],
                )
            )
    return squares
