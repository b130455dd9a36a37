"""What a batch has written: one file in its folder, which survives being killed at any point.

Before the outputs of a set are written, a line says what they will be made of; once they lie there
whole, another line says so, with their sizes and the report. A run that was killed between the two
leaves outputs of which the journal knows that they are its own and may be replaced; what it does not
know is somebody else's and is kept.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from . import __version__
from .errors import OutputError
from .write import check_target, unwritable, write_text

NAME = "hdrmerge-batch.jsonl"

_TEMPORARY = re.compile(r"\.hdrmerge-([0-9]+)-[0-9]+(\.[^.]*)?")
"""What `write` calls a file that is not whole yet: the process, a number, the suffix."""

_INSTEAD = "add --force to replace it, or choose another folder with -o"


@dataclass(frozen=True)
class Origin:
    """What outputs are made of; outputs of equal origin are equal byte for byte."""

    inputs: tuple[tuple[str, int, int], ...]  # name, size [bytes], time of the last change [ns]
    settings: Mapping[str, str]
    version: str = __version__

    @classmethod
    def of(cls, paths: Sequence[Path], settings: Mapping[str, str]) -> Origin:
        """Return the origin of what is made of these files as they are; OSError where one is gone."""
        return cls(tuple((p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in paths), dict(settings))

    def unlike(self, older: Origin) -> str:
        """Return in words what an older origin has other than this one, "" if they are equal."""
        if older.version != self.version:
            return f"made by version {older.version}"
        if sorted(older.inputs) != sorted(self.inputs):
            changed = sorted({name for name, *_ in set(older.inputs) ^ set(self.inputs)})
            return f"made before {', '.join(changed)} changed"
        names = sorted({*older.settings, *self.settings})
        other = [n for n in names if older.settings.get(n) != self.settings.get(n)]
        if other:
            return "made with " + ", ".join(f"{n} {older.settings.get(n, 'unknown')}" for n in other)
        return ""


@dataclass(frozen=True)
class Entry:
    """The last that the journal says about a set; ``sizes`` [bytes] are None until all is written."""

    origin: Origin
    sizes: Mapping[str, int | None]  # by name relative to the folder
    report: Mapping[str, Any]


class Journal:
    """The journal of one folder; reading it changes nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._path = folder / NAME
        self._pids: set[int] = set()
        self._file: Any = None
        self._lock = Lock()
        self._ends_well = True
        self._read()

    def outputs(self) -> Iterator[Path]:
        """Yield every file that the journal says is, or may be, its own."""
        for entry in self.entries.values():
            yield from (self.folder / name for name in entry.sizes)

    def finished(self, name: str, origin: Origin, outputs: Sequence[Path], force: bool) -> bool:
        """Tell whether the outputs of a set lie there whole, made of ``origin``.

        Raises OutputError where there are files in their place that are something else, unless
        ``force`` is set.
        """
        entry = self.entries.get(name)
        sizes = _sizes(outputs)
        difference = entry and origin.unlike(entry.origin)
        recorded = {self.folder / n: size for n, size in entry.sizes.items()} if entry else {}
        if entry and not difference and sizes == {path: recorded.get(path) for path in outputs}:
            return True
        if not sizes or force:
            return False
        first = next(iter(sizes))
        if entry is None or not any(path in recorded for path in sizes):
            raise OutputError(f"{first}: exists, and is not from this batch; {_INSTEAD}")
        if difference:
            raise OutputError(f"{first}: exists, {difference}; {_INSTEAD}")
        for path, size in sizes.items():
            if recorded.get(path) not in (None, size):
                raise OutputError(f"{path}: was changed since it was written; {_INSTEAD}")
        return False

    @contextmanager
    def claimed(self, folders: Iterable[Path]) -> Iterator[None]:
        """Keep other batches out of the folder, and remove from ``folders`` what killed ones left."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise unwritable(self._path, error) from error
        with self._file:
            if not _locked(self._file):
                raise OutputError(
                    f"{self._path}: another batch is writing here; wait, or choose another folder with -o"
                )
            self._read()
            for folder in sorted({self.folder, *folders}):
                remove_leftovers(folder, self._pids)
            try:
                yield
            finally:
                if self._file.tell() == 0 and not self.entries:
                    self._path.unlink()  # nothing was written

    def begin(self, name: str, origin: Origin, outputs: Sequence[Path]) -> None:
        """Note that outputs of this origin will be written."""
        self._append(name, Entry(origin, dict.fromkeys(map(self._relative, outputs)), {}))

    def end(self, name: str, origin: Origin, outputs: Sequence[Path], report: Mapping[str, Any]) -> None:
        """Note that the outputs lie there whole."""
        sizes = {self._relative(path): path.stat().st_size for path in outputs}
        self._append(name, Entry(origin, sizes, report))

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _append(self, name: str, entry: Entry) -> None:
        values = {
            "set": name,
            "version": entry.origin.version,
            "settings": entry.origin.settings,
            "inputs": entry.origin.inputs,
            "outputs": entry.sizes,
            "report": entry.report,
            "pid": os.getpid(),
        }
        line = json.dumps(values).encode() + b"\n"
        with self._lock:
            try:
                written = self._file.write(line if self._ends_well else b"\n" + line)
            except OSError as error:
                self._ends_well = False
                raise unwritable(self._path, error) from error
            self._ends_well = written >= len(line)
            if not self._ends_well:
                raise OutputError(f"{self._path}: cannot be written (disk full); free some space")
            self.entries[name] = entry

    def _read(self) -> None:
        """Read all lines but those that are torn."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise OutputError(f"{self.folder}: a file is in the way; name a folder with -o") from None
        except OSError as error:
            reason = f"cannot be read ({error.strerror}); choose another folder with -o"
            raise OutputError(f"{self._path}: {reason}") from None
        self._ends_well = data.endswith(b"\n") or not data
        for line in data.splitlines():
            try:
                values = json.loads(line)
                inputs = tuple((str(n), int(size), int(time)) for n, size, time in values["inputs"])
                origin = Origin(inputs, dict(values["settings"]), values["version"])
                entry = Entry(origin, dict(values["outputs"]), dict(values["report"]))
                self.entries[values["set"]] = entry
                self._pids.add(int(values["pid"]))
            except (ValueError, KeyError, TypeError):
                continue


def _sizes(outputs: Sequence[Path]) -> dict[Path, int]:
    """Return the sizes [bytes] of those outputs that exist."""
    sizes = {}
    for path in outputs:
        try:
            sizes[path] = path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise unwritable(path, error) from error
    return sizes


class ReportFile:
    """The report of a batch: JSON Lines, an object a set, appended as each ends.

    Of an older report the lines of ``finished`` sets are kept. Raises OutputError for a file that is
    something else, unless ``force`` is set.
    """

    def __init__(self, path: Path, finished: Collection[str], force: bool = False) -> None:
        check_target(path, (path.suffix,), force=True)
        try:
            old = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise unwritable(path, error) from error
        if old and not old.startswith(b'{"name": ') and not force:
            raise OutputError(f"{path}: exists, and is no report of a batch; add --force to replace it")
        lines = {name: line for name, line in _merged_lines(old) if name in finished}
        write_text("".join(f"{line}\n" for line in lines.values()), path)
        self.kept = set(lines)
        self._path = path
        self._file = path.open("ab", buffering=0)

    def add(self, values: Mapping[str, Any]) -> None:
        """Append the object of a set; nothing where its line was kept."""
        if values["name"] in self.kept and values["status"] == "skipped":
            return
        try:
            self._file.write(json.dumps(values).encode() + b"\n")
        except OSError as error:
            raise unwritable(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def _merged_lines(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the names and lines of merged sets in a report, torn lines left out."""
    for line in data.decode("utf-8", "replace").splitlines():
        try:
            values = json.loads(line)
            name, status = values["name"], values["status"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(name, str) and status in ("merged", "skipped"):
            yield name, line


def _locked(file: Any) -> bool:
    """Take the lock on a file that ends with the process; False where another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_leftovers(folder: Path, over: Collection[int] = ()) -> None:
    """Remove the temporary files of `write` that killed processes left; those in ``over`` do not run."""
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:  # no such folder
        return
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        if found and (int(found[1]) in over or not _runs(int(found[1]))):
            with suppress(OSError):  # a leftover that stays does no harm
                (folder / name).unlink()


def _runs(pid: int) -> bool:
    """Tell whether a process may be running."""
    if os.name != "posix":  # elsewhere, signal 0 is no question
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True
