"""A folder of EXR frames that grows frame by frame, survives being killed, and is read back in order.

One line at the head of its journal says what the frames are made of and how they are to be shown, and a line
is added for each frame once it lies there whole. A run of the same footage with the same settings goes on at
the first frame without a line; any other is told what differs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .bracket import RadianceMap
from .errors import InputError, OutputError
from .journal import Origin, remove_leftovers
from .load import load
from .write import unwritable, write, write_text

NAME = "hdrmerge-video.jsonl"
FORMAT = "hdrmerge video 1"

_INSTEAD = "add --force to begin anew, or choose another folder with -o"


@dataclass(frozen=True)
class Script:
    """What a reel holds: a frame for each of ``names``, shown at ``times`` [s].

    ``whites`` are the radiances that clip in the middle exposure, twice the same for an odd number of them,
    else in the longer and the shorter of the middle two: between them lies what a display shows as white.
    ``origin`` says what the frames are made of, and with which settings.
    """

    origin: Origin
    names: tuple[str, ...]
    times: tuple[float, ...]
    whites: tuple[float, float] = (1.0, 1.0)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Script:
        """Return the script of the head line of a journal; raises ValueError, KeyError or TypeError."""
        if values["format"] != FORMAT:
            raise ValueError("another format")
        origin = values["origin"]
        inputs = tuple((str(n), int(size), int(time)) for n, size, time in origin["inputs"])
        times = tuple(float(time) for time in values["times"])
        return cls(
            Origin(inputs, dict(origin["settings"]), origin["version"]),
            tuple(str(name) for name in values["names"]),
            times,
            (float(values["whites"][0]), float(values["whites"][1])),
        )


class Reel:
    """The frames of a `Script` in a folder, as EXR files named after them."""

    def __init__(self, folder: Path, script: Script, sizes: dict[int, int]) -> None:
        self.folder = folder
        self.script = script
        self._sizes = sizes  # [bytes] of the frames that a line speaks of
        self._file: Any = None

    def __len__(self) -> int:
        return len(self.script.names)

    @classmethod
    @contextmanager
    def recording(cls, folder: Path, script: Script, force: bool = False) -> Iterator[Reel]:
        """Open a reel to add frames to: a new one, or one of the same script that was not finished.

        Raises `OutputError` where the folder holds something else, unless ``force`` is set: then frames
        of the reel that lies there are removed first.
        """
        journal = folder / NAME
        older = _read(journal)
        sizes: dict[int, int] = {}
        begun = False
        if older is not None:
            difference = script.origin.unlike(older[0].origin) or (
                "made of other frames" if _laid_out(older[0]) != _laid_out(script) else ""
            )
            if difference and not force:
                raise OutputError(f"{journal}: frames lie here, {difference}; {_INSTEAD}")
            begun = not difference
            sizes = older[1] if begun else {}
            if difference:
                _remove(folder, older[0].names)
        elif not force:
            for name in script.names:
                if (folder / f"{name}.exr").exists():
                    raise OutputError(f"{folder / name}.exr: exists, and is of no reel; {_INSTEAD}")
        reel = cls(folder, script, sizes)
        if not begun:
            write_text(json.dumps(script.to_json()) + "\n", journal)
        remove_leftovers(folder)
        try:
            reel._file = journal.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(journal, error) from error
        with reel._file:
            if begun:
                reel._append(b"\n")  # ends a line that a killed run left torn
            yield reel
        reel._file = None

    @classmethod
    def finished(cls, folder: Path) -> Reel:
        """Open a reel to be read; raises `InputError` where frames are missing."""
        found = _read(folder / NAME)
        if found is None:
            raise InputError(f"{folder}: holds no frames of hdrmerge video; name the folder it wrote")
        reel = cls(folder, *found)
        missing = reel.missing()
        if missing:
            raise InputError(
                f"{reel.path(missing[0])}: is missing or not whole ({len(missing)} of {len(reel)} are); "
                "the same hdrmerge video command makes them"
            )
        return reel

    def path(self, number: int) -> Path:
        return self.folder / f"{self.script.names[number]}.exr"

    def has(self, number: int) -> bool:
        """Tell whether a frame lies there as it was written."""
        size = self._sizes.get(number)
        try:
            return size is not None and self.path(number).stat().st_size == size
        except OSError:
            return False

    def missing(self) -> list[int]:
        return [number for number in range(len(self)) if not self.has(number)]

    def add(
        self, number: int, radiance: RadianceMap, *, compression: str = "zip", float32: bool = False
    ) -> list[str]:
        """Write a frame with the metadata of its reference, and note it; return warnings.

        What lies in its place is ours, of a run that was killed before it could note it.
        """
        path = self.path(number)
        warnings = write(radiance, path, compression=compression, float32=float32, force=True)
        size = path.stat().st_size
        self._append(json.dumps({"frame": number, "size": size}).encode() + b"\n")
        self._sizes[number] = size
        return warnings

    def frames(self) -> Iterator[RadianceMap]:
        """Read the frames in their order, one at a time."""
        for number in range(len(self)):
            yield load(self.path(number))

    def _append(self, line: bytes) -> None:
        journal = self.folder / NAME
        try:
            written = self._file.write(line)
        except OSError as error:
            raise unwritable(journal, error) from error
        if written < len(line):
            raise OutputError(f"{journal}: cannot be written (disk full); free some space")


def _laid_out(script: Script) -> tuple[object, ...]:
    times = tuple(round(time, 6) for time in script.times)
    return script.names, times, tuple(round(white, 9) for white in script.whites)


def _read(journal: Path) -> tuple[Script, dict[int, int]] | None:
    """Return the script of a reel and the sizes of its frames by number; None where there is none.

    Torn lines, which a killed run leaves, are passed over; a later line of a frame counts.
    """
    try:
        head, *lines = journal.read_bytes().splitlines() or [b""]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unwritable(journal, error) from error
    try:
        script = Script.from_json(json.loads(head))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OutputError(f"{journal}: is no journal of hdrmerge video; {_INSTEAD}") from None
    sizes: dict[int, int] = {}
    for line in lines:
        try:
            values = json.loads(line)
            sizes[int(values["frame"])] = int(values["size"])
        except (ValueError, KeyError, TypeError):
            continue
    return script, sizes


def _remove(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        path = folder / f"{name}.exr"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error
