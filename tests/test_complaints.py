"""What decoders print reaches the caller whose file it is about, and nothing else is lost."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hdrmerge.complaints import heard
from hdrmerge.scene import ramp_scene


def complain(line: str) -> None:
    os.write(2, line.encode() + b"\n")


def test_what_is_printed_is_heard_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    result, printed = heard(lambda: complain("first") or 5, lambda: complain("again"))
    assert (result, printed) == (5, "again\n")
    assert capfd.readouterr().err == "first\nagain\n"
    complain("afterwards")
    assert capfd.readouterr().err == "afterwards\n"


def test_silence_costs_no_second_run() -> None:
    assert heard(lambda: 5, lambda: pytest.fail("nothing had been printed")) == (5, "")


def test_an_exception_leaves_stderr_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        complain("why")
        raise ValueError("bug")

    with pytest.raises(ValueError, match="bug"):
        heard(fail, lambda: None)
    complain("afterwards")
    assert capfd.readouterr().err == "why\nafterwards\n"


def test_each_thread_hears_its_own_decoder(capfd: pytest.CaptureFixture[str]) -> None:
    """Sixteen run at once, the odd ones complain, and all of them see something printed."""
    together = threading.Barrier(16)

    def work(number: int) -> str:
        def decode() -> None:
            together.wait()
            if number % 2:
                complain(f"number {number}")
            together.wait()

        return heard(decode, lambda: complain(f"number {number}") if number % 2 else None)[1]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(work, range(16)))
    assert found == [f"number {number}\n" if number % 2 else "" for number in range(16)]
    lines = capfd.readouterr().err.splitlines()
    assert sorted(lines) == sorted(2 * [f"number {number}" for number in range(1, 16, 2)])


def test_damaged_pictures_among_good_ones() -> None:
    codes = np.clip(ramp_scene(256, 384, np.random.default_rng(0)) * 64, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(codes).save(file, "JPEG", quality=95)
    good = file.getvalue()
    middle = len(good) // 2
    bad = good[:middle] + good[middle + 300 :]

    def decode(data: bytes) -> str:
        def run() -> object:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

        return heard(run, run)[1]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(decode, [good, bad, good, good, bad, good] * 10))
    assert ["Corrupt JPEG data" in printed for printed in found] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ] * 10


def test_a_program_without_stderr_hears_as_well() -> None:
    code = """
import os
from hdrmerge.complaints import heard
os.close(2)
for _ in range(3):
    print(heard(lambda: os.write(2, b"x\\n"), lambda: os.write(2, b"y\\n")))
    try:
        os.fstat(2)
    except OSError:
        print("closed")
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["(2, 'y\\n')", "closed"] * 3


def test_without_a_file_to_listen_with_decoding_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hdrmerge.complaints.tempfile.TemporaryFile", full)
    assert heard(lambda: complain("unheard") or 5, lambda: None) == (5, "")
    complain("afterwards")
    assert capfd.readouterr().err == "unheard\nafterwards\n"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a list of open files")
def test_file_descriptors_are_given_back() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        heard(lambda: None, lambda: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
