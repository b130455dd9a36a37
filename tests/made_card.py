"""A made-up memory card whose brackets are known: what grouping is tested and measured on.

Two cameras of different habits take sets of 3, 5 and 7 frames, single pictures, bursts, test shots
before a set, and sets right after each other; the files are small JPEGs with the EXIF data that such
cameras write.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cache
from pathlib import Path

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from hdrmerge.bracket import ExposureMode, Shot
from hdrmerge.simulate_files import exif_of

ORDERS = {
    "0-+": lambda n: [0] + [side * i for i in range(1, n // 2 + 1) for side in (-1, 1)],
    "0+-": lambda n: [0] + [side * i for i in range(1, n // 2 + 1) for side in (1, -1)],
    "0--++": lambda n: [0, *range(-(n // 2), 0), *range(1, n // 2 + 1)],
    "-0+": lambda n: list(range(-(n // 2), n // 2 + 1)),
    "+0-": lambda n: list(range(n // 2, -(n // 2) - 1, -1)),
}
"""The orders in which cameras take a set of n frames, in steps from the metered exposure."""


@dataclass(frozen=True)
class Habit:
    """How a camera releases, counts and writes."""

    make: str
    model: str
    name: str  # of its files, with the counter as {:04d}
    width: int
    height: int
    tagged: bool  # writes ExposureMode 2 and the compensation
    order: str
    serial: str = ""
    subseconds: bool = True
    states_mode: bool = True
    stamps_end: bool = False
    iso_varies: bool = False


HABITS = (
    Habit("SONY", "DSC-RX100M6", "DSC0{:04d}", 60, 40, True, "0-+", subseconds=False),
    Habit("Canon", "Canon EOS R6", "IMG_{:04d}", 60, 40, True, "0-+", serial="032021001234"),
    Habit("Canon", "Canon EOS R6", "IMG_{:04d}", 60, 40, True, "-0+", serial="032021009999"),
    Habit("NIKON CORPORATION", "NIKON Z 6", "DSC_{:04d}", 60, 40, True, "0--++", stamps_end=True),
    Habit("FUJIFILM", "X-T4", "DSCF{:04d}", 60, 40, True, "0+-", subseconds=False),
    Habit("OLYMPUS", "E-M1", "P101{:04d}", 48, 36, False, "0-+", stamps_end=True),
    Habit("Panasonic", "DC-G9", "P102{:04d}", 48, 36, False, "-0+", subseconds=False),
    Habit("PENTAX", "K-5", "IMGP{:04d}", 60, 40, False, "+0-"),
    Habit("Some", "Phone", "PXL_20240601_{:04d}", 64, 36, False, "0-+", states_mode=False, iso_varies=True),
)


@dataclass
class Card:
    """Files to write, in no particular order, and the sets among them, each in the order taken."""

    shots: list[Shot]
    sets: list[tuple[str, ...]]

    def write(self, folder: Path) -> None:
        for shot in self.shots:
            write_jpeg(folder / shot.path, shot)


def made_card(seed: int, count: int = 200) -> Card:
    """Make up the card of two cameras used side by side."""
    rng = random.Random(seed)
    first, second = rng.sample(HABITS, 2)
    shots: list[Shot] = []
    sets: list[tuple[str, ...]] = []
    counters = rng.sample((rng.randint(300, 3000), rng.randint(4000, 9000), rng.randint(9880, 9990)), 2)
    share = count * 3 // 5
    for habit, frames, counter in zip((first, second), (share, count - share), counters, strict=True):
        roll = _Roll(habit, rng, counter)
        roll.shoot(frames)
        shots += roll.shots
        sets += roll.sets
    rng.shuffle(shots)
    return Card(shots, sets)


class _Roll:
    """One camera on its way through a day."""

    def __init__(self, habit: Habit, rng: random.Random, counter: int) -> None:
        self.habit, self.rng = habit, rng
        self.clock = datetime(2024, 6, 1, 9) + timedelta(seconds=rng.uniform(0, 600))
        self.counter = counter
        self.shots: list[Shot] = []
        self.sets: list[tuple[str, ...]] = []
        self.upright = rng.random() < 0.3

    def shoot(self, count: int) -> None:
        events = (
            (self.bracket, 5),
            (self.brackets_in_a_row, 2),
            (self.test_shot_and_bracket, 2),
            (self.single, 4),
            (self.burst, 2),
            (self.metered_one_by_one, 2),
            (self.broken_off, 1),
            (self.bracket_and_single, 1),
            (self.bracketing_forgotten, 1),
            (self.dial_turned, 1),
        )
        while len(self.shots) < count:
            self.clock += timedelta(seconds=self.rng.choice((4, 8, 30, 200)) * self.rng.uniform(1, 2))
            if self.rng.random() < 0.2:
                self.upright = not self.upright
            room = count - len(self.shots)
            event = self.rng.choices(*zip(*events, strict=True))[0]
            event() if room > 21 else self.single()

    # --- what happens ---

    def bracket(self) -> None:
        self._set(*self._kind_of_set())

    def brackets_in_a_row(self) -> None:
        """Take two or three sets without moving; nobody waits between them."""
        size, step = self._kind_of_set()
        size = min(size, 5)
        metered = self._metered()
        for _ in range(self.rng.choice((2, 3))):
            self._set(size, step, metered)
            self.clock += timedelta(seconds=self.rng.uniform(0.3, 1.5))

    def test_shot_and_bracket(self) -> None:
        """Look at a picture first, which has the exposure of one of the set's frames."""
        size, step = self._kind_of_set()
        metered = self._metered()
        first = self.rng.choice(ORDERS[self.habit.order](size))
        self._release(metered * 2 ** (first * step), bias=first * step if self.habit.tagged else 0.0)
        self.clock += timedelta(seconds=self.rng.uniform(0.6, 1.5))
        self._set(size, step, metered)

    def single(self) -> None:
        self._release(self._metered())

    def burst(self) -> None:
        metered = self._metered()
        for _ in range(self.rng.choice((2, 2, 2, 3, 6))):
            self._release(metered)
            self.clock += timedelta(seconds=self.rng.uniform(0.1, 0.4))

    def metered_one_by_one(self) -> None:
        for _ in range(self.rng.choice((2, 3))):
            self._release(self._metered())
            self.clock += timedelta(seconds=self.rng.uniform(1.2, 2.5))

    def broken_off(self) -> None:
        """Let go of the button after two frames."""
        size, step = self._kind_of_set()
        self._set(max(size, 5) if self.habit.tagged else size, step, frames=2)

    def bracket_and_single(self) -> None:
        self._set(*self._kind_of_set())
        self.clock += timedelta(seconds=self.rng.uniform(0.6, 2.0))
        self._release(self._metered())

    def bracketing_forgotten(self) -> None:
        """Take a single picture with bracketing still switched on."""
        mode: ExposureMode = "bracket" if self.habit.tagged else "auto"
        self._release(self._metered(), mode=mode)

    def dial_turned(self) -> None:
        """Follow the light by hand, a click or two of the dial between pictures."""
        seconds = self._metered()
        for _ in range(self.rng.randint(3, 6)):
            self._release(seconds, mode="manual")
            seconds *= 2 ** (self.rng.choice((-2, -1, 0, 1, 2)) / 3)
            self.clock += timedelta(seconds=self.rng.uniform(2, 8))

    # --- how it is done ---

    def _kind_of_set(self) -> tuple[int, float]:
        return self.rng.choice((3, 3, 5, 7)), self.rng.choice((0.7, 1.0, 1.0, 2.0))

    def _metered(self) -> float:
        """Return an exposure time [s] as cameras meter, in thirds of a stop."""
        return 2.0 ** (-self.rng.randint(6, 27) / 3)

    def _set(self, size: int, step: float, metered: float | None = None, frames: int | None = None) -> None:
        metered = metered or self._metered()
        steps = ORDERS[self.habit.order](size)[:frames]
        taken = []
        for i in steps:
            bias = step * i if self.habit.tagged else 0.0
            mode: ExposureMode = "bracket" if self.habit.tagged else "manual"
            taken.append(self._release(metered * 2 ** (step * i), bias, mode))
            self.clock += timedelta(seconds=self.rng.uniform(0.08, 0.4))
        if frames is None:
            self.sets.append(tuple(taken))

    def _release(self, seconds: float, bias: float = 0.0, mode: ExposureMode = "auto") -> str:
        habit = self.habit
        iso = 100.0
        if habit.iso_varies and self.rng.random() < 0.5:
            iso, seconds = 200.0, seconds / 2
        open_for = timedelta(seconds=seconds)
        stamp = self.clock + open_for if habit.stamps_end else self.clock
        self.clock += open_for
        name = habit.name.format(self.counter) + ".JPG"
        self.counter = self.counter % 9999 + 1
        self.shots.append(
            Shot(
                path=Path(name),
                width=habit.width,
                height=habit.height,
                exposure_time=float(Fraction(_shutter_speed(seconds))),
                iso=iso,
                f_number=8.0,
                taken_at=stamp if habit.subseconds else stamp.replace(microsecond=0),
                camera_make=habit.make,
                camera_model=habit.model,
                focal_length=24.0,
                orientation=6 if self.upright else 1,
                exposure_mode=mode if habit.states_mode else None,
                exposure_bias=round(bias, 1) if habit.states_mode else None,
                camera_serial=habit.serial,
            )
        )
        return name


def _shutter_speed(seconds: float) -> Fraction:
    """Return what a camera writes: 1/125, 1/3, 2.5."""
    if seconds >= 0.3:
        return Fraction(round(seconds * 10), 10)
    return Fraction(1, round(1 / seconds))


@cache
def picture(width: int, height: int) -> bytes:
    """Return a JPEG of one colour, without EXIF."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 120, 150)).save(file, "JPEG")
    return file.getvalue()


def write_jpeg(path: Path, shot: Shot, maker_note: bytes = b"", pixels: bytes | None = None) -> None:
    """Write a picture with everything in EXIF that a shot says; ``pixels`` is a JPEG without EXIF."""
    exif = exif_of(shot)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if shot.focal_length is not None:
        details[ExifTags.Base.FocalLength] = IFDRational(round(shot.focal_length * 10), 10)
    if shot.exposure_mode is not None:
        details[ExifTags.Base.ExposureMode] = ("auto", "manual", "bracket").index(shot.exposure_mode)
    if shot.exposure_bias is not None:
        details[ExifTags.Base.ExposureBiasValue] = IFDRational(round(shot.exposure_bias * 10), 10)
    if shot.camera_serial:
        details[ExifTags.Base.BodySerialNumber] = shot.camera_serial
    if shot.software:
        exif[ExifTags.Base.Software] = shot.software
    if shot.taken_at is not None and shot.taken_at.microsecond == 0:
        del details[ExifTags.Base.SubsecTimeOriginal]
    if maker_note:
        details[ExifTags.Base.MakerNote] = maker_note
    block = exif.tobytes()
    pixels = pixels or picture(shot.width or 48, shot.height or 32)
    app1 = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    path.write_bytes(pixels[:2] + app1 + pixels[2:])
