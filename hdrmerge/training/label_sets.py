"""Brackets -> a folder of pseudo-labels, made once and drawn from for as long as the training lasts.

    bracket -> triplets -> labels -> NAME.json, NAME_0.npy, ... -> pairs, drawn at random

A folder holds the frames as captured and what is known about them; shifts, light that is added and pairs
follow from a random generator when they are drawn, never the same twice, so that a bracket takes 9 to 24
bytes a pixel, however many patches overlap. A bracket is done when its .json is there, which is written
last; it says why a bracket gave nothing, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bracket import Bracket, Frame, Shot
from ..errors import HdrmergeError, InputError
from ..exposure import RESPONSES, Array, Float, Mask, NoiseModel, Response
from ..pipeline import MergeOptions
from ..write import unwritable, write_text
from .motion import ALIGNED, STEADY
from .pairs import SUBSETS, Pair, Subset, captured_pair, lit_pair, window
from .pseudo_labels import REFERENCE, Kind, Labelled, Patch, Rules, Triplet, known, label_triplet
from .reexposure import decode, line_mask, saturated, transferred_mask
from .triplets import LEAST_APART, Series, choose_triplets, read_series

WHAT_TO_SHOOT = (
    "shoot three frames or more, 1 to 3 EV apart, whose middle one is neither black nor white in most places"
)
ORIGIN = "labels.json"
CURVE = 256  # codes at which a curve without a name is kept
LUMA_TABLE = 3688  # sum of ITU-T T.81, table K.1: the steps of quality 50
ASIDE, FEW = 8, 4  # one bracket in so many is set aside; of fewer than so many, none

Tell = Callable[[int, int, str], None]
"""Called with the number of brackets done, of all, and what became of the last."""


@dataclass(frozen=True)
class LabelOptions:
    """How labels are made. ``triplets`` is how many a bracket gives at most.

    ``aligned`` aligns frames as a merge does before anything else, so that what is learned from moves as
    what a network of this program sees at work, and gives noise to what is exposed anew; without it all is as
    in the paper.
    ``merge`` says how brackets are read, and their exposures where files do not.
    """

    rules: Rules = field(default_factory=Rules)
    triplets: int = 3
    aligned: bool = False
    seed: int = 0
    merge: MergeOptions = field(default_factory=MergeOptions)

    def to_json(self) -> dict[str, Any]:
        """Return what all labels of a folder must have in common."""
        said = {
            "rules": asdict(self.rules),
            "triplets": self.triplets,
            "aligned": self.aligned,
            "seed": self.seed,
        }
        plain: dict[str, Any] = json.loads(json.dumps(said))
        return plain


# --- the folder -----------------------------------------------------------------------------------


def make_labels(
    brackets: Sequence[Sequence[str | os.PathLike[str]]],
    folder: Path,
    options: LabelOptions | None = None,
    tell: Tell | None = None,
) -> LabelSet:
    """Label the brackets that a folder does not hold yet; return the set of those asked for.

    A bracket that gives nothing is noted with the reason. Raises `InputError` where none gives anything.
    """
    options = options or LabelOptions()
    _claim(folder, options)
    names = []
    for number, paths in enumerate(brackets):
        name = name_of(paths, options.merge)
        names.append(name)
        if not (folder / f"{name}.json").exists():
            _make(paths, folder, name, options)
        if tell:
            tell(number + 1, len(brackets), _entry(folder / f"{name}.json")["reason"])
    made = LabelSet(folder, names)
    if not any(made.counts().values()):
        reasons = made.reasons()
        last = f" (the last: {next(reversed(reasons.values()))})" if reasons else ""
        raise InputError(
            f"{folder}: none of {len(brackets)} brackets gives anything to learn from{last}; {WHAT_TO_SHOOT}"
        )
    return made


def set_aside(made: LabelSet) -> tuple[LabelSet, LabelSet]:
    """Divide labels into those to learn from and those to take scores on: one bracket in eight, by its name.

    Of four brackets or more that give anything at least one is set aside, of fewer none.
    """
    useful = sorted(name for name, entry in made.brackets.items() if entry["triplets"])
    aside = [name for name in useful if int(name, 16) % ASIDE == 0]
    if len(useful) < FEW:
        aside = []
    elif not aside or len(aside) == len(useful):
        aside = useful[:1]
    return (
        LabelSet(made.folder, [name for name in useful if name not in aside]),
        LabelSet(made.folder, aside),
    )


def name_of(paths: Sequence[str | os.PathLike[str]], merge: MergeOptions | None = None) -> str:
    """Return the name of a bracket in a folder: another one when a file changes, or how it is read."""
    merge = merge or MergeOptions()
    digest = hashlib.sha256(f"{merge} reference={merge.reference} {merge.exposures}\n".encode())
    for path in sorted(Path(path).resolve() for path in paths):
        state = path.stat() if path.exists() else None
        said = f"{path}\n{state.st_size} {state.st_mtime_ns}\n" if state else f"{path}\n"
        digest.update(said.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _claim(folder: Path, options: LabelOptions) -> None:
    """Write down how labels are made; refuse to mix them with others."""
    path, wanted = folder / ORIGIN, options.to_json()
    if path.exists():
        found = _entry(path)
        if found != wanted:
            different = next(key for key in wanted if found.get(key) != wanted[key])
            raise InputError(
                f"{folder}: its labels differ in {different!r} from what is asked for; name another folder"
            )
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    write_text(json.dumps(wanted), path)


def _make(paths: Sequence[str | os.PathLike[str]], folder: Path, name: str, options: LabelOptions) -> None:
    """Write the files of one bracket, the .json last."""
    made, reason = [], ""
    taken: dict[str, Any] = {}
    try:
        read, taken = _read(paths, options)
        stops = [float(stop) for stop in np.log2(read.exposures)]
        triplets = choose_triplets(stops, read.reference, options.triplets)
        if not triplets:
            reason = f"of the {len(stops)} frames that show the same, no two are {LEAST_APART:g} EV apart"
        for number, members in enumerate(triplets):
            triplet = read.triplet(members)
            rng = np.random.default_rng([number, options.seed, int(name, 16)])
            labelled = label_triplet(triplet, rng, options.rules)
            if not any(patch.kind & ~Kind.DONOR for patch in labelled.patches):
                reason = _why(labelled, triplet, options.rules)
                continue
            file = f"{name}_{number}.npy"
            _save(folder / file, triplet, labelled.label, read.levels)
            noise = [[read.noise[k].photon, read.noise[k].read] for k in members]
            made.append(
                {
                    "file": file,
                    "members": members,
                    "exposures": triplet.exposures,
                    "noise": noise,
                    "dominant": labelled.dominant,
                    "rejected": labelled.rejected,
                    "patches": [(top, left, int(kind)) for top, left, kind in labelled.patches],
                }
            )
    except HdrmergeError as error:
        reason = " ".join(str(error).split())
    entry = {
        "paths": [str(path) for path in paths],
        "reason": "" if made else reason,
        "triplets": made,
        "taken": taken,
    }
    write_text(json.dumps(entry), folder / f"{name}.json")


def _read(paths: Sequence[str | os.PathLike[str]], options: LabelOptions) -> tuple[Series, dict[str, Any]]:
    """Read a bracket; also return what `Taken` says of it, as plain values."""
    read, found = read_series(paths, options.merge, options.aligned)
    own = found.bracket.reference_frame
    curve: dict[str, Any] = {"name": own.response.name}
    named = RESPONSES.get(own.response.name)
    if named is None or not np.array_equal(Response.named(own.response.name).table, own.response.table):
        curve["linear"] = [[float(f"{v:.6g}") for v in row] for row in own.response.sampled(CURVE)]
    return read, {
        "exposures": [exposure / read.exposures[read.reference] for exposure in read.exposures],
        "reference": read.reference,
        "noise": [[noise.photon, noise.read] for noise in read.noise],
        "curve": curve,
        "block": found.proxies[found.bracket.reference].factor,
        "quality": _quality(own.shot.path),
    }


def _quality(path: Path) -> int | None:
    """Return the quality, as libjpeg counts, of a JPEG file by its table for the luma; None for others."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            tables = getattr(image, "quantization", None)
    except OSError:  # RAW
        return None
    if not tables or 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / LUMA_TABLE
    return int(np.clip(round(100 - percent / 2 if percent <= 100 else 5000 / percent), 1, 100))


def _why(labelled: Labelled, triplet: Triplet, rules: Rules) -> str:
    """Return why no patch of a triplet is of any use."""
    height, width = triplet.codes[REFERENCE].shape[:2]
    if not labelled.rejected:
        return f"its frames, at {width} x {height} px, are smaller than a patch of {rules.patch} px"
    often = max(labelled.rejected, key=lambda reason: labelled.rejected[reason])
    return f"no patch of use, most are {often}"


def _save(path: Path, triplet: Triplet, label: Float | None, levels: int) -> None:
    """Write a triplet as records a pixel: ``codes`` (3, 3) by frame and channel, ``label`` (3,) if any."""
    depth = np.dtype(np.uint8 if levels == 256 else "<u2")
    fields: list[tuple[str, Any, tuple[int, ...]]] = [("codes", depth, (3, 3))]
    fields += [] if label is None else [("label", "<f2", (3,))]
    records = np.zeros(triplet.codes[REFERENCE].shape[:2], np.dtype(fields))
    for k, code in enumerate(triplet.codes):
        records["codes"][:, :, k] = np.rint(code * np.float32(levels - 1))
    if label is not None:
        records["label"] = np.minimum(label, 65504)
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            np.save(file, records, allow_pickle=False)
        part.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error


def _entry(path: Path) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is damaged; delete it, and it will be made again") from error
    return entry


# --- what is drawn from it ------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Taken:
    """How the frames of a bracket that show the same were taken, shortest exposure first.

    ``exposures`` are relative to the reference's; ``noise`` is what the program believes of blocks of
    ``block`` x ``block`` px, which labels are made of; ``curve`` is the response that was found, ``quality``
    that of JPEG files.
    """

    exposures: tuple[float, ...]
    reference: int
    noise: tuple[NoiseModel, ...]
    curve: Response
    block: int
    quality: int | None

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Taken:
        """Read it from the entry of a bracket in its folder."""
        said = entry["taken"]
        name, linear = said["curve"]["name"], said["curve"].get("linear")
        curve = Response.named(name) if linear is None else Response(name, np.array(linear, np.float32))
        return cls(
            tuple(said["exposures"]),
            int(said["reference"]),
            tuple(NoiseModel(photon, read) for photon, read in said["noise"]),
            curve,
            int(said["block"]),
            said["quality"],
        )


@dataclass(frozen=True, eq=False)
class _Stored:
    """A triplet in a folder."""

    path: Path
    exposures: tuple[float, float, float]
    noise: tuple[NoiseModel, ...]
    patches: list[Patch]

    def records(self) -> NDArray[Any]:
        """Map the file into memory; only what is cut from it will be read. Raises `InputError`."""
        try:
            records = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged() from error
        if records.ndim != 2 or "codes" not in (records.dtype.names or ()):
            raise self._damaged()
        return np.asarray(records)

    def _damaged(self) -> InputError:
        name = self.path.stem.partition("_")[0]
        return InputError(f"{self.path}: is damaged; delete it and {name}.json, and it will be made again")


class LabelSet:
    """The pseudo-labels of a folder, of all its brackets or of those named."""

    def __init__(self, folder: Path, names: Sequence[str] | None = None) -> None:
        self.folder = folder
        origin = _entry(folder / ORIGIN)
        self.patch = int(origin["rules"]["patch"])
        self.aligned = bool(origin["aligned"])
        self.steady = ALIGNED if self.aligned else STEADY
        if names is None:
            names = sorted(path.stem for path in folder.glob("*.json") if path.name != ORIGIN)
        self.brackets = {name: _entry(folder / f"{name}.json") for name in dict.fromkeys(names)}
        self.triplets = [
            _Stored(
                folder / triplet["file"],
                (triplet["exposures"][0], 1.0, triplet["exposures"][2]),
                tuple(NoiseModel(photon, read) for photon, read in triplet["noise"]),
                [Patch(top, left, Kind(kind)) for top, left, kind in triplet["patches"]],
            )
            for entry in self.brackets.values()
            for triplet in entry["triplets"]
        ]
        self._open: dict[int, NDArray[Any]] = {}
        places = [(n, patch) for n, stored in enumerate(self.triplets) for patch in stored.patches]
        self._of = {kind: [place for place in places if place[1].kind & kind] for kind in Kind}

    def counts(self) -> dict[Subset, int]:
        """Return how many different patches each subset is drawn from."""
        captured = len(self._of[Kind.STATIC]) + len(self._of[Kind.DYNAMIC])
        lit = len(self._of[Kind.WELL])
        return {"ED": lit, "EDM": lit, "MD": captured, "MDM": captured}

    def reasons(self) -> dict[str, str]:
        """Return why brackets gave nothing, by their first file."""
        return {entry["paths"][0]: entry["reason"] for entry in self.brackets.values() if entry["reason"]}

    def table(self) -> list[tuple[str, int, str]]:
        """Return rows of a table of all that can be drawn: name, number of patches, what that is."""
        static, dynamic, lit = (len(self._of[kind]) for kind in (Kind.STATIC, Kind.DYNAMIC, Kind.WELL))
        masks = len(self._of[Kind.DONOR])
        return [
            ("ED", lit, f"light added by {masks} masks and by lines, camera held still"),
            ("EDM", lit, "the same, camera moving"),
            ("MD", static + dynamic, f"as captured: {static} static, fused; {dynamic} dynamic"),
            ("MDM", static + dynamic, "the same, camera moving"),
        ]

    def describe(self) -> str:
        """Return what there is, in a few words, for a card."""
        static, dynamic, lit = (len(self._of[kind]) for kind in (Kind.STATIC, Kind.DYNAMIC, Kind.WELL))
        brackets = sum(1 for entry in self.brackets.values() if entry["triplets"])
        return (
            f"{brackets} brackets without a truth: {static} static, {dynamic} dynamic and {lit} well-exposed "
            f"patches of {self.patch} px"
        )

    def draw(self, rng: np.random.Generator, subsets: Sequence[Subset] = SUBSETS) -> Pair:
        """Draw a pair of any of the ``subsets``, all their patches alike.

        Raises `InputError` where they are empty.
        """
        counts = self.counts()
        total = sum(counts[subset] for subset in subsets)
        if total == 0:
            raise InputError(f"{self.folder}: has no patch for {', '.join(subsets)}; {WHAT_TO_SHOOT}")
        number = int(rng.integers(total))
        for subset in subsets:
            if number < counts[subset]:
                break
            number -= counts[subset]
        static = self._of[Kind.STATIC]
        if subset in ("ED", "EDM"):
            return self._lit(*self._of[Kind.WELL][number], subset == "EDM", rng.random() < 0.5, rng)
        place = static[number] if number < len(static) else self._of[Kind.DYNAMIC][number - len(static)]
        return self._captured(*place, subset == "MDM", rng)

    def examples(self, subset: Subset, rng: np.random.Generator, number: int = 10) -> list[Pair]:
        """Draw pairs to look at: half of them static, half dynamic; or half by line, half by mask."""
        lit, far = subset in ("ED", "EDM"), subset in ("EDM", "MDM")
        pairs = []
        for k in range(number):
            second = k >= number // 2
            places = self._of[Kind.WELL if lit else Kind.DYNAMIC if second else Kind.STATIC]
            if not places or (lit and second and not self._of[Kind.DONOR]):
                continue
            place = places[int(rng.integers(len(places)))]
            pairs.append(self._lit(*place, far, second, rng) if lit else self._captured(*place, far, rng))
        return pairs

    def bracket(self, number: int) -> Bracket:
        """Return a triplet as a bracket, as a reader would: gamma codes, and what is known of their noise.

        Its reference exposure is 1 s. A stand-in for a missing frame is left out.
        """
        stored, records = self.triplets[number], self._records(number)
        curve = Response.named("gamma2.2")
        frames = []
        for k, exposure in enumerate(stored.exposures):
            if k != REFERENCE and exposure == 1.0:
                continue
            codes = np.ascontiguousarray(records["codes"][:, :, k])
            shot = Shot(
                Path(f"{stored.path.stem}_{k}"),
                codes.shape[1],
                codes.shape[0],
                stated_exposure=exposure,
                source="ev",
            )
            noise = stored.noise[k].with_quantisation(curve, int(np.iinfo(codes.dtype).max) + 1)
            frames.append(Frame(shot, codes, curve, noise))
        reference = next(k for k, frame in enumerate(frames) if frame.exposure == 1.0)
        return Bracket(tuple(frames), reference)

    def label(self, number: int) -> tuple[Float, Mask]:
        """Return the label (H, W, 3) of a triplet, and where any patch says that it holds (H, W)."""
        stored, records = self.triplets[number], self._records(number)
        own = _codes(records, REFERENCE)
        label, holds = decode(own), np.zeros(own.shape[:2], np.bool_)
        for wanted in (Kind.DYNAMIC, Kind.STATIC):
            for top, left, kind in stored.patches:
                at = slice(top, top + self.patch), slice(left, left + self.patch)
                if kind & wanted and wanted == Kind.DYNAMIC:
                    holds[at] = ~saturated(own[at])
                elif kind & wanted:
                    label[at] = records["label"][at]
                    holds[at] = known(label[at], stored.exposures[0])
        return label, holds

    def static(self, number: int) -> Mask:
        """Return where the label of a triplet is fused and exact, (H, W)."""
        stored, records = self.triplets[number], self._records(number)
        where = np.zeros(records.shape, np.bool_)
        for top, left, kind in stored.patches:
            if kind & Kind.STATIC:
                at = slice(top, top + self.patch), slice(left, left + self.patch)
                where[at] = known(records["label"][at], stored.exposures[0])
        return where

    def taken(self, number: int) -> Taken:
        """Return how the bracket of a triplet was taken. Raises `InputError` for a folder of old."""
        stored = self.triplets[number]
        name = stored.path.stem.partition("_")[0]
        if not self.brackets[name].get("taken"):
            raise InputError(
                f"{self.folder / name}.json: does not say how its bracket was taken, because an older "
                "hdrmerge made it; delete the folder, and it will be made again"
            )
        return Taken.of(self.brackets[name])

    def _records(self, number: int) -> NDArray[Any]:
        if number not in self._open:
            self._open[number] = self.triplets[number].records()
        return self._open[number]

    def _captured(self, number: int, patch: Patch, far: bool, rng: np.random.Generator) -> Pair:
        stored, records = self.triplets[number], self._records(number)
        shape = records.shape[0], records.shape[1]
        outer, inner = window(patch.top, patch.left, self.patch, shape)
        part = records[outer]
        label = part["label"] if patch.kind & Kind.STATIC else None
        codes = [_codes(part, k) for k in range(3)]
        return captured_pair(codes, stored.exposures, label, inner, far, rng, self._noise(stored))

    def _noise(self, stored: _Stored) -> tuple[NoiseModel, ...] | None:
        """Return the noise that is given to frames; none as captured, as in the paper."""
        return stored.noise if self.aligned else None

    def _lit(self, number: int, patch: Patch, far: bool, transferred: bool, rng: np.random.Generator) -> Pair:
        stored, records = self.triplets[number], self._records(number)
        shape = records.shape[0], records.shape[1]
        outer, inner = window(patch.top, patch.left, self.patch, shape)
        part = records[outer]
        size = part.shape[0], part.shape[1]
        donors = self._of[Kind.DONOR]
        if transferred and donors:
            mask = self._donated(*donors[int(rng.integers(len(donors)))], size, inner)
        else:
            mask = line_mask(size, inner, rng)
        levels = int(np.iinfo(records["codes"].dtype).max) + 1
        own = _codes(part, REFERENCE)
        noise = self._noise(stored)
        return lit_pair(own, stored.exposures, mask, inner, far, rng, levels, noise, self.steady)

    def _donated(self, number: int, patch: Patch, size: tuple[int, int], inner: tuple[slice, slice]) -> Float:
        """Return the mask (h, w) of a saturated patch for a window of ``size`` with its patch at ``inner``.

        Where one has more around it than the other the mask is cut, or its edge repeated.
        """
        records = self._records(number)
        outer, its = window(patch.top, patch.left, self.patch, (records.shape[0], records.shape[1]))
        where = saturated(_codes(records[outer], REFERENCE))
        rows, columns = (
            np.clip(np.arange(length) - mine.start + yours.start, 0, limit - 1)
            for length, mine, yours, limit in zip(size, inner, its, where.shape, strict=True)
        )
        return transferred_mask(where[np.ix_(rows, columns)])


def _codes(records: NDArray[Any], frame: int) -> Float:
    """Return the codes (h, w, 3) of a frame in [0, 1]."""
    codes: Array = records["codes"][:, :, frame]
    return np.asarray(codes * np.float32(1 / np.iinfo(codes.dtype).max), np.float32)
