"""Merges in processes of their own, with limits on time and memory, for `fuzz.py`.

A server has imported everything and forks for each merge, so that a merge takes no longer than its
work, and its crash is seen and harms nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SECONDS, MEMORY = 20, 4 << 30  # a merge may take


@dataclass
class Ended:
    """How a process ended: its exit code, -signal where one killed it, and what it printed."""

    code: int
    output: str
    errors: str
    late: bool
    seconds: float


class Server:
    """Takes one merge at a time."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def merge(self, folder: Path, arguments: list[str]) -> Ended:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([str(folder), arguments]) + "\n")
        self._process.stdin.flush()
        return Ended(*json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Fork for every line on stdin, wait, and say how the child ended."""
    import cv2  # noqa: F401 - imported once for all the children
    import pillow_heif  # noqa: F401
    import rawpy  # noqa: F401
    import tifffile  # noqa: F401

    from hdrmerge import cli, load, pipeline, tonemap, write  # noqa: F401

    for line in sys.stdin:
        folder, arguments = json.loads(line)
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            _become_a_merge(Path(folder), arguments)
        status, late = None, False
        while status is None:
            done, value = os.waitpid(child, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(value)
            elif time.monotonic() - start > SECONDS:
                os.kill(child, signal.SIGKILL)
                late = True
                os.waitpid(child, 0)
                status = -signal.SIGKILL
            else:
                time.sleep(0.005)
        texts = [(Path(folder) / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        print(json.dumps([status, *texts, late, time.monotonic() - start]), flush=True)


def _become_a_merge(folder: Path, arguments: list[str]) -> None:
    os.chdir(folder)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout, sys.stderr = (os.fdopen(os.dup(n), "w", buffering=1) for n in (1, 2))
    sys.__stderr__ = sys.stderr
    code = 99
    try:
        from hdrmerge.cli import app

        sys.argv = ["hdrmerge", *arguments]
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc(file=sys.stderr)
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
