"""The ways to make an HDR frame of a frame and its neighbours: what `VideoOptions.method` names.

    neighbours in line -> followed, or shown to networks -> radiance

`network` and `coarse` run `coarsetofine`, `flow` is `inbetween`, `merge` and `reference` are `flowmerge`'s.

Units: radiance 1.0 is where the shortest exposure of the footage clips, in the frame's own colours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .bracket import Shot
from .coarsetofine import ROLES, Network, Role, is_released, open_role
from .exposure import Float
from .flowmerge import in_line, merge_in_line, reference_alone
from .followed import Followed, follow, follow_results, lit
from .inbetween import merge_in_between
from .infer import engines
from .vicinity import Vicinity

Method = Literal["network", "coarse", "flow", "merge", "reference"]
METHODS: tuple[Method, ...] = ("network", "coarse", "flow", "merge", "reference")


def roles_of(method: Method) -> tuple[Role, ...]:
    """Return the networks that a method needs."""
    return {"network": ROLES, "coarse": ROLES[:1]}.get(method, ())


WIDEST = 4.0
"""[stops] from one exposure to the next for which networks are taken unasked: they learned from 2 and 3."""


def best(exposures: int, given: Mapping[Role, str | None], step: float = 0.0) -> Method:
    """Return the method for so many exposures where none is asked for: by networks, as far as there are any.

    ``given`` are the weights files or names that were, ``step`` [stops] the widest between two exposures.
    Unasked none is taken where no engine is installed.
    """
    if given["refine"] or given["coarse"]:
        return "network" if given["refine"] else "coarse"
    if step > WIDEST or not is_released("coarse", exposures) or not engines():
        return "flow"
    return "network" if is_released("refine", exposures) else "coarse"


def digest(content: bytes) -> str:
    """Return what tells contents apart, in a few letters."""
    return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Way:
    """A method, ready to run, with the frames it sees."""

    name: str  # with the networks, as reports have it
    vicinity: Vicinity
    make: Callable[[int], tuple[Float, list[int]]]
    margin: int  # frames before and after the reference that have to be held

    @classmethod
    def opened(
        cls,
        method: Method,
        vicinity: Vicinity,
        given: Mapping[Role, str | None],
        device: str = "auto",
        precision: str = "auto",
    ) -> Way:
        """Return a method over footage, its networks opened: those ``given``, else the released ones."""
        if roles := roles_of(method):
            networks = _Networks(
                vicinity,
                {
                    role: Network(open_role(role, given[role], vicinity.count, device, precision))
                    for role in roles
                },
            )
            margin = vicinity.reach + (vicinity.count - 1 if len(roles) > 1 else 0)
            return cls(f"{method} ({networks.describe()})", vicinity, networks.radiance, margin)
        if method == "reference":
            return cls(method, vicinity, lambda number: (_alone(vicinity, number), [number]), 0)
        how = _by_flow if method == "flow" else _in_line
        return cls(method, vicinity, lambda number: _merged(vicinity, number, how), vicinity.reach)

    def radiance(self, number: int) -> tuple[Float, list[Shot]]:
        """Return radiance (H, W, 3), 1.0 where the shortest exposure clips, and the shots it is made of."""
        self.vicinity.hold(number - self.margin, number + self.margin)
        radiance, used = self.make(number)
        return radiance, [self.vicinity[k].shot for k in used]


def _alone(vicinity: Vicinity, number: int) -> Float:
    return reference_alone([vicinity[number].codes], [float(vicinity.exposures[number])])


def _merged(
    vicinity: Vicinity, number: int, how: Callable[[Vicinity, int, list[int]], Float]
) -> tuple[Float, list[int]]:
    """Merge a frame and its neighbours, each of them once."""
    numbers = sorted(set(vicinity.window(number)))
    if numbers == [number]:
        return _alone(vicinity, number), numbers
    return how(vicinity, number, numbers), numbers


def _by_flow(vicinity: Vicinity, number: int, numbers: list[int]) -> Float:
    pairs = [(numbers.index(a), numbers.index(b)) for a, b in vicinity.pairs(number) if number not in (a, b)]
    return merge_in_between(
        [vicinity[k].codes for k in numbers],
        [float(vicinity.exposures[k]) for k in numbers],
        [vicinity.footage.times[k] for k in numbers],
        numbers.index(number),
        pairs,
        vicinity.similarities(number, numbers),
    )


def _in_line(vicinity: Vicinity, number: int, numbers: list[int]) -> Float:
    return merge_in_line(
        [vicinity[k].codes for k in numbers],
        [float(vicinity.exposures[k]) for k in numbers],
        numbers.index(number),
        vicinity.similarities(number, numbers),
    )


@dataclass(frozen=True, eq=False)
class _Networks:
    """The networks over footage; ``made`` holds the coarse results that frames beside them need."""

    vicinity: Vicinity
    networks: Mapping[Role, Network]
    made: dict[int, Float] = field(default_factory=dict)

    def describe(self) -> str:
        files = [network.engine.path for network in self.networks.values()]
        named = " + ".join(f"{path.name} {digest(path.read_bytes())}" for path in files)
        return f"{named}, {self.networks['coarse'].engine.describe()}"

    def radiance(self, number: int) -> tuple[Float, list[int]]:
        """Return radiance of a frame, and the numbers of the frames it is made of."""
        around = self.vicinity
        for old in [k for k in self.made if k <= number - around.count]:
            del self.made[old]
        if "refine" not in self.networks:
            return self._coarse(number), sorted(set(around.window(number)))
        before, after = around.sides(number)
        three = (before, number, after)
        matrices, coarse = around.similarities(number, three), [self._coarse(k) for k in three]
        exposures = [float(around.exposures[k]) for k in three]
        if self.networks["refine"].followed:
            followed = follow_results(coarse, [around[k].codes for k in three], matrices)
            pictures = dict(zip(("coarse", "frames"), followed, strict=True))
        else:
            lined = [in_line(one, matrix)[0] for one, matrix in zip(coarse, matrices, strict=True)]
            pictures = {"coarse": lined, "frames": around.in_line(number, three)}
        used = {k for middle in three for k in around.window(middle)}
        return self.networks["refine"].run(pictures, exposures), sorted(used)

    def _coarse(self, number: int) -> Float:
        if number not in self.made:
            window = self.vicinity.window(number)
            exposures = [float(self.vicinity.exposures[k]) for k in window]
            coarse = self.networks["coarse"]
            if coarse.followed:
                known = self._followed(number, window, exposures)
                self.made[number] = lit(known, exposures, coarse.run(known.pictures(), exposures))
            else:
                pictures = {"frames": self.vicinity.in_line(number, window)}
                self.made[number] = coarse.run(pictures, exposures)
        return self.made[number]

    def _followed(self, number: int, window: list[int], exposures: list[float]) -> Followed:
        """Return what is known around a frame."""
        around = self.vicinity
        codes = [around[k].codes for k in window]
        moments = [float(around.footage.times[k]) for k in window]
        return follow(codes, exposures, moments, around.similarities(number, window))
