"""What a decoder written in C prints about a file: heard while it works, and told to the caller.

libjpeg goes on after damage, and the picture that it returns is grey or shifted from there on. All
that tells is a line on the process's stderr, past Python. While a decoder runs, that stream leads to
a file; afterwards what was printed goes where it would have gone. The stream belongs to the whole
process, so what one of several threads hears may be another's: then it asks again, alone.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

T = TypeVar("T")

STDERR = 2


def heard(decode: Callable[[], T], again: Callable[[], object]) -> tuple[T, str]:
    """Run ``decode``; return its result and what it printed on stderr, empty for nearly all files.

    Where anything was printed, ``again`` must make the same be said; it runs while no other thread decodes.
    """
    with _EAR.open_for(alone=False) as so_far:
        result = decode()
        silent = not so_far()
    if silent:
        return result, ""
    with _EAR.open_for(alone=True) as so_far:
        again()
        return result, so_far()


class _Ear:
    """Stderr, led to a file while any thread listens; without such a file nothing is heard."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._listeners = 0
        self._taken = False
        self._file = -1
        self._stderr = -1

    @contextmanager
    def open_for(self, alone: bool) -> Iterator[Callable[[], str]]:
        """Yield a function that returns what was printed since; ``alone``: by this thread."""
        with self._turn:
            self._turn.wait_for(lambda: not self._taken and (not alone or self._listeners == 0))
            self._taken = alone
            self._listeners += 1
            if self._listeners == 1:
                self._redirect()
        start = self._end()
        try:
            yield lambda: self._read(start).decode(errors="replace")
        finally:
            with self._turn:
                self._taken = False
                self._listeners -= 1
                if self._listeners == 0:
                    self._restore()
                self._turn.notify_all()

    def _redirect(self) -> None:
        try:
            self._stderr = os.dup(STDERR)
        except OSError:  # closed, as in daemons
            self._stderr = -1
        if not hasattr(os, "pread"):  # on Windows nothing is heard
            return
        try:
            with tempfile.TemporaryFile() as file:
                self._file = os.dup(file.fileno())
            os.dup2(self._file, STDERR)
        except OSError:  # no room, no folder, no descriptor left: decoding matters more
            self._file = -1

    def _restore(self) -> None:
        printed = self._read(0)
        if self._stderr >= 0:
            os.dup2(self._stderr, STDERR)
            os.close(self._stderr)
            with suppress(OSError):  # a pipe that nobody reads any more
                os.write(STDERR, printed)
        elif self._file >= 0:
            os.close(STDERR)
        if self._file >= 0:
            os.close(self._file)
        self._file = self._stderr = -1

    def _end(self) -> int:
        return os.fstat(self._file).st_size if self._file >= 0 else 0

    def _read(self, start: int) -> bytes:
        """Read without moving the place where the next complaint is written, which is shared."""
        return os.pread(self._file, self._end() - start, start) if self._file >= 0 else b""


_EAR = _Ear()
