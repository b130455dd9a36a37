"""What a folder of a dataset holds -> cases: a bracket in files, and the truth about it.

    scenes      *.exr, *.hdr in the folder itself: brackets are simulated from them, each from its seed
    kalantari   sub-folders with three .tif, exposure.txt and HDRImg.hdr (Kalantari and Ramamoorthi 2017)
    plain       sub-folders with photographs and truth.exr, .hdr or .tif; if there are such files, what
                moves in moving.png (white), exposure times [s] in exposures.txt or stops in ev.txt

Sets may lie one folder deeper, and a folder that is a set itself will do. Photographs are taken in the
order of their names, and so are the lines of the text files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from .bracket import Shot
from .errors import BracketError, ExposureError, InputError
from .exposure import Float, Mask, Response
from .form import StatedExposures, form_bracket
from .load import load
from .metadata import read_shot
from .read import read_frame
from .scene import Mover, perspective_view, random_mover
from .simulate import (
    Camera,
    Shake,
    Simulated,
    plan_shots,
    random_response,
    scale_for_saturation,
    simulate_bracket,
)
from .simulate_files import rec709_to_camera, write_dngs, write_jpegs

DARKEST, BRIGHTEST = 1e-4, 1e4
"""Radiance that scenes are kept within; a sun that overflowed its file counts as the brightest."""

SIMULATED = 40
"""Cases simulated from a folder of scenes unless a number is asked for: the project's scoreboard."""

# The training camera's distribution: what people's brackets look like, and somewhat worse.
SIZE = (480, 720)  # (H, W) of a frame [px]
FRAMES = {2: 0.15, 3: 0.35, 4: 0.1, 5: 0.2, 6: 0.05, 7: 0.1, 9: 0.05}
MOVERS = {0: 0.15, 1: 0.25, 2: 0.25, 3: 0.2, 4: 0.15}
STEP, RANGE = (0.7, 4.0), 12.0  # [EV] between neighbours, and from the shortest to the longest at most
UNEQUAL = 0.25  # share of the brackets whose steps differ
SATURATED = (0.02, 0.2)  # share of the reference
ISO = (100.0, 6400.0)  # log-uniform
SHOWN, DIM = (
    0.05,
    0.01,
)  # share of the scene that even the longest frame shows below white, and the shortest above
SHAKE = Shake(rotation=0.4, shift=8.0, perspective=2e-6)  # of half of the brackets
MOTION = (4.0, 100.0)  # [px] from frame to frame where an object moves most, log-uniform
QUALITY = (80, 100)  # of JPEG
RAW = 1 / 8  # share of the brackets that are 14-bit DNG
TIME = 1 / 60  # [s] in the middle between the shortest and the longest
VIEW, FOV, PITCH = (960, 1440), (60.0, 90.0), (-15.0, 15.0)  # [px], [degrees] of a view in a panorama
MIDDLE, MARGIN = 0.8, 1.1  # rows of a panorama away from its poles; what a shaking camera sees of them

CLIPPED = 0.995  # of the clipping level: that and more is saturated
TRUTHS = ("truth.exr", "truth.hdr", "truth.tif", "truth.tiff")


@dataclass(frozen=True, eq=False)
class Case:
    """One bracket and the truth about it.

    ``truth`` (H, W, 3) is linear Rec. 709, 1.0 where the reference clips, and ``peak`` where the
    shortest frame does: nobody can know what lies beyond. ``saturated`` (H, W): the reference is
    clipped; ``moving`` (H, W): an object was there in some frame, None where that is not known.
    ``files`` returns the paths of the frames, written to a folder if they exist nowhere yet.
    """

    name: str
    truth: Float
    peak: float
    saturated: Mask
    moving: Mask | None
    files: Callable[[Path], list[Path]]
    reference: int  # among the files
    curve: Response | None = None  # the true one of developed frames; None = that of their profile
    response: str = "auto"  # what a merge is told about the curve
    exposures: StatedExposures = field(default_factory=StatedExposures)
    about: dict[str, Any] = field(default_factory=dict)  # plain values, for the report
    simulated: Simulated | None = None

    @property
    def megapixels(self) -> float:
        return float(self.truth.shape[0] * self.truth.shape[1] / 1e6)


@dataclass(frozen=True)
class Dataset:
    """The cases of a folder, each made or read when asked for by its number."""

    path: Path
    layout: str
    names: tuple[str, ...]
    case: Callable[[int], Case]
    seed: int | None = None  # of simulated cases


def open_dataset(path: Path, count: int | None = None, seed: int = 0, frames: int | None = None) -> Dataset:
    """Return the first ``count`` cases of a folder; its layout is told by what is in it.

    Without ``count`` all sets, or `SIMULATED` brackets; simulated ones depend on ``seed`` and their
    number alone. Of these, only brackets of so many ``frames``, if stated. Raises InputError for a folder
    that is no dataset.
    """
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; name the folder of a dataset")
    folders = [path, *_inside(path)]
    folders += [deeper for folder in folders[1:] for deeper in _inside(folder)]
    sets = [(folder, reader) for folder in folders if (reader := _reader(folder))]
    if sets:
        readers = {reader for _, reader in sets}
        if len(readers) > 1:
            raise InputError(f"{path}: holds sets of two layouts; give the folder of one of them")
        names = tuple(
            folder.relative_to(path).as_posix() if folder != path else path.name for folder, _ in sets
        )

        def read_set(number: int) -> Case:
            folder, reader = sets[number]
            return reader(folder, names[number])

        layout = "kalantari" if readers == {_kalantari} else "plain"
        chosen = [
            number
            for number, (folder, reader) in enumerate(sets[:count])
            if frames in (None, _frames_in(folder, reader))
        ]
        return _chosen(Dataset(path, layout, names, read_set), chosen, frames)

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".exr", ".hdr"))
    if not files:
        raise InputError(
            f"{path}: holds neither HDR scenes (.exr, .hdr) nor sub-folders with HDRImg.hdr or truth.exr; "
            "hdrmerge evaluate --help names the layouts"
        )
    scenes = Scenes(files)
    numbers = range(SIMULATED if count is None else count)
    named = tuple(f"{number:03d} {files[number % len(files)].stem}" for number in numbers)

    def simulate(number: int) -> Case:
        return replace(simulated_case(scenes, number, seed), name=named[number])

    chosen = [n for n in numbers if frames in (None, simulated_frames(scenes, n, seed))]
    return _chosen(Dataset(path, "scenes", named, simulate, seed), chosen, frames)


def _chosen(dataset: Dataset, numbers: Sequence[int], frames: int | None) -> Dataset:
    """Return a dataset of some of the cases, which keep their names."""
    if frames is not None and not numbers:
        raise InputError(f"{dataset.path}: holds no bracket of {frames} frames; ask for another number")
    names = tuple(dataset.names[number] for number in numbers)
    return replace(dataset, names=names, case=lambda index: dataset.case(numbers[index]))


# --- scenes: simulated brackets -------------------------------------------------------------------


def read_scene(path: Path) -> Float:
    """Read a scene (H, W, 3), linear Rec. 709, within `DARKEST` and `BRIGHTEST`."""
    return np.asarray(np.clip(_radiance(path), DARKEST, BRIGHTEST), dtype=np.float32)


class Scenes(Sequence[Float]):
    """The scenes in files, read when asked for; the last few stay in memory."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        self._read = lru_cache(maxsize=16)(read_scene)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, index: int) -> Float: ...
    @overload
    def __getitem__(self, index: slice) -> Scenes: ...
    def __getitem__(self, index: int | slice) -> Float | Scenes:
        return Scenes(self.files[index]) if isinstance(index, slice) else self._read(self.files[index])


def simulated_case(scenes: Sequence[Float], number: int, seed: int = 0) -> Case:
    """Photograph scene ``number`` modulo their count as a bracket drawn from ``seed`` and ``number``.

    Objects are cut out of the other scenes. The files are JPEG 4:4:4 or, of one in eight, DNG; the
    same arguments give the same files.
    """
    rng, view, (frames, steps, reference, share) = _begun(scenes, number, seed)
    iso = float(round(ISO[0] * (ISO[1] / ISO[0]) ** rng.random()))
    raw = rng.random() < RAW
    camera = Camera(bits=14) if raw else Camera(response=_response(rng))
    shake = SHAKE if rng.random() < 0.5 else Shake()
    time = TIME * 2.0 ** (sum(steps[:reference]) - sum(steps) / 2)
    shots = plan_shots(SIZE, frames, steps, reference, camera, iso, time=time)
    movers = []
    for _ in range(_drawn(MOVERS, rng)):
        other = number + int(rng.integers(1, max(len(scenes), 2)))
        movers.append(moving_object(sharp_view(scenes[other % len(scenes)], rng), rng, shots, reference))
    sim = simulate_bracket(
        view,
        rng,
        size=SIZE,
        frames=frames,
        step_ev=steps,
        reference=reference,
        saturated_share=share,
        shake=shake,
        movers=movers,
        camera=camera,
        iso=iso,
    )
    sim = replace(sim, shots=shots)  # the same exposures, at times a camera has
    quality = int(rng.integers(QUALITY[0], QUALITY[1] + 1))

    def files(folder: Path) -> list[Path]:
        if raw:
            return write_dngs(sim, folder, np.random.default_rng((seed, number, 1)), camera=camera)
        return write_jpegs(sim, folder, quality)

    # A RAW sensor sees other primaries: red and blue clip later than green.
    at_sensor = sim.truth @ rec709_to_camera().T.astype(np.float32)
    about = {
        "format": "DNG" if raw else f"JPEG {quality}",
        "frames": frames,
        "steps_ev": [round(step, 3) for step in steps],
        "reference": reference,
        "iso": iso,
        "response": "linear" if raw else camera.response.name,
        "shaken": shake is SHAKE,
        "movers": len(movers),
    }
    return Case(
        name=f"{number:03d}",
        truth=sim.truth,
        peak=1.0 / min(sim.relative_exposures),
        saturated=np.asarray((at_sensor >= 1.0).any(axis=-1)) if raw else sim.saturated,
        moving=sim.moving,
        files=files,
        reference=reference,
        curve=None if raw else camera.response,
        about=about,
        simulated=sim,
    )


def simulated_frames(scenes: Sequence[Float], number: int, seed: int = 0) -> int:
    """Return the number of frames of `simulated_case`, in a fraction of its time."""
    return _begun(scenes, number, seed)[2][0]


def _begun(
    scenes: Sequence[Float], number: int, seed: int
) -> tuple[np.random.Generator, Float, tuple[int, list[float], int, float]]:
    """Draw what comes first: what the camera sees, and the exposures."""
    rng = np.random.default_rng((seed, number))
    view = scene_view(scenes[number % len(scenes)], rng)
    return rng, view, _exposures(view, rng)


def scene_view(scene: Float, rng: np.random.Generator) -> Float:
    """Return what a camera sees of a scene: a perspective view in a panorama or, as often, a crop of it.

    A view is true in its perspective and soft, a crop is as sharp as the panorama. A panorama that is
    cut at the horizon is cropped, and a photograph stays whole.
    """
    height, width = scene.shape[:2]
    if width == 2 * height and rng.random() < 0.5:
        yaw, pitch, fov = rng.uniform(0, 360), rng.uniform(*PITCH), rng.uniform(*FOV)
        return perspective_view(scene, VIEW, float(yaw), float(pitch), float(fov))
    return sharp_view(scene, rng)


def sharp_view(scene: Float, rng: np.random.Generator) -> Float:
    """Return a crop of a panorama away from its poles, of native resolution where it has the rows."""
    height, width = scene.shape[:2]
    if width < 2 * height:
        return scene
    rows = min(round(MIDDLE * height), round(MARGIN * SIZE[0]))
    columns = min(round(rows * SIZE[1] / SIZE[0]), width)
    spare = (1 - MIDDLE) / 2 * height if width == 2 * height else 0.0  # a cut one has one pole, or none
    top = int(rng.integers(int(spare), max(height - rows - int(spare), int(spare)) + 1))
    left = int(rng.integers(width))
    return np.asarray(np.take(scene[top : top + rows], range(left, left + columns), axis=1, mode="wrap"))


def moving_object(scene: Float, rng: np.random.Generator, shots: Sequence[Shot], reference: int) -> Mover:
    """Cut an object out of a scene that moves by 4 to 100 px between two neighbouring frames.

    Those are the two between which it moves most; the way between others, and the blur within a frame,
    are as much shorter as the time is.
    """
    mover = random_mover(scene, rng, SIZE, shots, reference)
    start = mover.centre[reference]
    widest = float(np.hypot(*np.diff(mover.centre, axis=0).T).max())
    factor = MOTION[0] * (MOTION[1] / MOTION[0]) ** rng.random() / widest
    return replace(mover, centre=start + (mover.centre - start) * factor, path=mover.path * factor)


def _exposures(view: Float, rng: np.random.Generator) -> tuple[int, list[float], int, float]:
    """Draw the number of frames, the steps between them [EV], the reference and its saturated share.

    Nobody takes a frame that is all but white or black, so that those are drawn again.
    """
    coarse = view[::4, ::4]
    for _ in range(100):  # a scene of a single tone would never do
        frames = _drawn(FRAMES, rng)
        largest = min(STEP[1], RANGE / (frames - 1))
        steps = rng.uniform(STEP[0], largest, frames - 1)
        if rng.random() >= UNEQUAL:
            steps[:] = steps[0]
        weights = np.ones(frames)
        weights[(frames - 1) // 2] = 2.0
        reference = int(rng.choice(frames, p=weights / weights.sum()))
        share = float(rng.uniform(*SATURATED))
        linear = coarse.max(axis=-1) * scale_for_saturation(coarse, share)
        white = np.mean(linear * 2.0 ** steps[reference:].sum() >= 1.0)
        dark = np.mean(linear * 2.0 ** -steps[:reference].sum() < DIM)
        if 1.0 - max(white, dark) >= SHOWN:
            break
    return frames, [float(step) for step in steps], reference, share


def _response(rng: np.random.Generator) -> Response:
    kind = rng.random()
    if kind < 0.5:
        return Response.named("srgb")
    return Response.named("gamma2.2") if kind < 0.75 else random_response(rng)


def _drawn(weights: dict[int, float], rng: np.random.Generator) -> int:
    return int(rng.choice(list(weights), p=list(weights.values())))


# --- photographs with their truth -----------------------------------------------------------------


def linear_reference(path: Path, curve: Response | None = None) -> tuple[Float, Mask]:
    """Return the linear Rec. 709 of one photograph (H, W, 3), and where it is saturated (H, W).

    Channels of a RAW file that clip later than green go above 1.0.
    """
    frame = read_frame(read_shot(path), curve)
    linear = frame.linear()
    saturated = np.asarray((linear >= CLIPPED * frame.clip).any(axis=-1))
    return np.asarray(linear @ frame.to_rec709.T, dtype=np.float32), saturated


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder by their names in lower case, in the order of the names."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return {path.name.lower(): path for path in files}


def _reader(folder: Path) -> Callable[[Path, str], Case] | None:
    names = _files(folder)
    if "hdrimg.hdr" in names:
        return _kalantari
    return _plain if any(name in names for name in TRUTHS) else None


def _frames_in(folder: Path, reader: Callable[[Path, str], Case]) -> int:
    """Return the number of frames of a set, without reading them."""
    return len(_photographs(_files(folder))) if reader is _plain else 3


def _photographs(files: dict[str, Path]) -> list[Path]:
    """Return the frames of a plain set: all files but those that are known to be something else."""
    known = (*TRUTHS, "moving.png")
    return [path for file, path in files.items() if file not in known and not file.endswith((".txt", ".md"))]


def _kalantari(folder: Path, name: str) -> Case:
    """Read a set of Kalantari and Ramamoorthi, "Deep High Dynamic Range Imaging of Dynamic Scenes", 2017.

    A frame holds L, its linear light is L ^ 2.2, and the truth is H = L ^ 2.2 / t within [0, 1], with t
    relative to the shortest frame. Times the t of the reference, the middle frame, it is 1.0 where the
    reference clips, as a merge is; ``peak`` is then H = 1, so that PSNR-mu and PSNR-L are the papers'.
    """
    files = _files(folder)
    frames = [path for file, path in files.items() if file.endswith((".tif", ".tiff"))]
    if "exposure.txt" not in files or len(frames) != 3:
        found = "no exposure.txt" if "exposure.txt" not in files else f"{len(frames)} .tif files"
        raise BracketError(f"{folder}: {found}; a set of Kalantari 2017 has three .tif and exposure.txt")
    ev = _numbers(files["exposure.txt"], len(frames))
    reference = sorted(range(3), key=lambda index: ev[index])[1]
    return _case(
        name,
        frames,
        reference,
        [2.0**stops for stops in ev],
        _radiance(files["hdrimg.hdr"]) * np.float32(2.0 ** (ev[reference] - min(ev))),
        None,
        StatedExposures(ev=ev),
        "gamma2.2",
    )


def _plain(folder: Path, name: str) -> Case:
    """Read photographs and a truth in the reference's scale; the reference is the middle exposure."""
    files = _files(folder)
    frames = _photographs(files)
    times, ev = files.get("exposures.txt"), files.get("ev.txt")
    stated = StatedExposures(
        times=_numbers(times, len(frames)) if times else (),
        ev=_numbers(ev, len(frames)) if ev and not times else (),
    )
    shots = stated.applied([read_shot(path) for path in frames])
    ordered, reference = form_bracket(shots)
    if reference is None:
        raise ExposureError(f"{folder}: frames without exposure times; write them to exposures.txt [s]")
    truth = _radiance(next(files[truth] for truth in TRUTHS if truth in files))
    return _case(
        name,
        frames,
        shots.index(ordered[reference]),
        [shot.exposure or 1.0 for shot in shots],
        truth,
        _mask(files["moving.png"], truth) if "moving.png" in files else None,
        stated,
        "auto",
    )


def _case(
    name: str,
    frames: list[Path],
    reference: int,
    exposures: list[float],
    truth: Float,
    moving: Mask | None,
    stated: StatedExposures,
    response: str,
) -> Case:
    curve = None if response == "auto" else Response.named(response)
    linear, saturated = linear_reference(frames[reference], curve)
    if linear.shape != truth.shape:
        sizes = [f"{pixels.shape[1]} x {pixels.shape[0]}" for pixels in (truth, linear)]
        raise BracketError(
            f"{name}: a truth of {sizes[0]} px for frames of {sizes[1]}; give one of their size"
        )
    return Case(
        name=name,
        truth=truth,
        peak=exposures[reference] / min(exposures),
        saturated=saturated,
        moving=moving,
        files=lambda _: list(frames),
        reference=reference,
        curve=curve,
        response=response,
        exposures=stated,
        about={"frames": len(frames), "reference": reference},
    )


def _radiance(path: Path) -> Float:
    """Read a radiance file (H, W, 3); what is no finite number, most likely a sun, is `BRIGHTEST`."""
    radiance = load(path)
    return np.where(radiance.valid[..., None], radiance.pixels, np.float32(BRIGHTEST))


def _numbers(path: Path, count: int) -> tuple[float, ...]:
    """Read one number a line, decimals or fractions."""
    try:
        values = tuple(float(Fraction(word)) for word in path.read_text("utf-8").replace(",", " ").split())
    except (OSError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); write one number a line") from None
    if len(values) != count:
        raise InputError(f"{path}: {len(values)} numbers for {count} frames; write one a line")
    return values


def _mask(path: Path, truth: Float) -> Mask:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); save it again as PNG") from None
    if grey.shape != truth.shape[:2]:
        raise BracketError(f"{path}: is not of the size of the truth; make it so")
    return np.asarray(grey > 127)
