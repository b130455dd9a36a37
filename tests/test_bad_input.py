"""Files that are odd, wrong or gone: merged rightly, or refused in one line that names the file."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from hdrmerge import cli
from hdrmerge.errors import InputError, OutputError
from hdrmerge.load import load
from hdrmerge.metadata import read_shot
from hdrmerge.read import SpooledCodes, read_frame
from hdrmerge.simulate import Camera, Simulated, simulate_bracket
from hdrmerge.simulate_files import exif_of, record_mosaic, write_dng, write_jpegs

SIZE = (64, 96)
EV = ["--ev", "-2,0,2"]
NOBODY = 65534
STEMS = ("a", "b", "c")


@pytest.fixture(scope="module")
def sim(ramp: np.ndarray) -> Simulated:
    return simulate_bracket(ramp[:256, :384], np.random.default_rng(0), size=SIZE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def frames(folder: Path, sim: Simulated) -> list[str]:
    """Three JPEGs in the working directory."""
    return [path.name for path in write_jpegs(sim, folder)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def assert_failed(result: Result, *parts: str) -> None:
    """One line that says what, nothing written, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("hdrmerge: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "; " in result.stderr  # the remedy
    for part in parts:
        assert part in result.stderr, result.stderr
    assert not [path for path in Path().iterdir() if path.name.startswith((".hdrmerge", "out"))]


def stops_off(sim: Simulated, name: str = "out.exr") -> np.ndarray:
    """Return how far a merged file is from the scene [stops], where it is not nearly black."""
    pixels, truth = load(Path(name)).pixels, sim.truth
    assert np.isfinite(pixels).all()
    bright = truth.min(axis=2) > 0.02
    return np.abs(np.log2(np.maximum(pixels, 1e-6) / truth))[bright]


# --- pixels of every kind -------------------------------------------------------------------------


def deep(codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.uint16) * 257


def grey(codes: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY)


def with_alpha(codes: np.ndarray) -> np.ndarray:
    """A transparency that varies, and must not matter."""
    alpha = np.linspace(1, np.iinfo(codes.dtype).max, codes.shape[1]).astype(codes.dtype)
    return np.dstack([codes, np.tile(alpha, (len(codes), 1))])


def pillow(codes: np.ndarray, path: Path, mode: str = "RGB", **options: object) -> None:
    Image.fromarray(codes).convert(mode).save(path, **options)


def opencv(codes: np.ndarray, path: Path) -> None:
    order = [2, 1, 0, 3][: codes.shape[2]] if codes.ndim == 3 else slice(None)
    cv2.imwrite(str(path), np.ascontiguousarray(codes[..., order]) if codes.ndim == 3 else codes)


def tiff(codes: np.ndarray, path: Path, **options: object) -> None:
    tifffile.imwrite(path, codes, photometric="rgb" if codes.ndim == 3 else "minisblack", **options)


COLOUR: dict[str, tuple[str, Callable[[np.ndarray, Path], None]]] = {
    "16-bit PNG with alpha": (".png", lambda codes, path: opencv(with_alpha(deep(codes)), path)),
    "8-bit PNG with alpha": (".png", lambda codes, path: opencv(with_alpha(codes), path)),
    "16-bit TIFF with alpha": (
        ".tif",
        lambda codes, path: tiff(with_alpha(deep(codes)), path, extrasamples=["unassalpha"]),
    ),
    "CMYK JPEG": (".jpg", lambda codes, path: pillow(codes, path, "CMYK", quality=98)),
    "CMYK TIFF": (".tif", lambda codes, path: pillow(codes, path, "CMYK")),
}
GREY: dict[str, tuple[str, Callable[[np.ndarray, Path], None]]] = {
    "grey JPEG": (".jpg", lambda codes, path: pillow(grey(codes), path, "L", quality=98)),
    "grey PNG": (".png", lambda codes, path: pillow(grey(codes), path, "L")),
    "grey 16-bit PNG": (".png", lambda codes, path: opencv(deep(grey(codes)), path)),
    "grey TIFF": (".tif", lambda codes, path: tiff(grey(codes), path)),
    "grey 16-bit TIFF": (".tif", lambda codes, path: tiff(deep(grey(codes)), path)),
}


@pytest.mark.parametrize("kind", [*COLOUR, *GREY])
def test_pictures_of_every_kind_are_merged(folder: Path, sim: Simulated, kind: str) -> None:
    suffix, save = (COLOUR | GREY)[kind]
    names = [f"{stem}{suffix}" for stem in STEMS]
    for name, codes in zip(names, sim.frames, strict=True):
        save(codes, Path(name))
    result = run("merge", *names, "-o", "out.exr", "--no-preview", *EV)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    if kind in COLOUR:
        off = stops_off(sim)
        assert np.median(off) < 0.03
        assert np.percentile(off, 99) < 0.25
        return
    pixels = load(Path("out.exr")).pixels
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], pixels[..., 2])
    lightness = np.log2(pixels[..., 0] + 0.01), np.log2(sim.truth.mean(axis=2) + 0.01)
    assert np.corrcoef(lightness[0].ravel(), lightness[1].ravel())[0, 1] > 0.97


@pytest.mark.parametrize("spoilt", [(1,), (0, 1, 2)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_float_tiffs_with_values_that_are_no_light(
    folder: Path, sim: Simulated, value: float, spoilt: tuple[int, ...]
) -> None:
    names = [f"{stem}.tif" for stem in STEMS]
    for index, (name, codes) in enumerate(zip(names, sim.frames, strict=True)):
        linear = sim.camera.decode(codes)
        if index in spoilt:
            linear[30:33, 40:43] = value
        tifffile.imwrite(name, linear, photometric="rgb")
    result = run("merge", *names, "-o", "out.exr", "--no-preview", "--float", *EV)
    assert result.exit_code == 0, result.output
    assert np.isfinite(load(Path("out.exr")).pixels).all()
    assert np.percentile(stops_off(sim), 99) < 0.15


def test_a_float_tiff_of_no_numbers_is_refused(folder: Path) -> None:
    names = [f"{stem}.tif" for stem in STEMS]
    for name in names:
        tifffile.imwrite(name, np.full((*SIZE, 3), np.nan, np.float32), photometric="rgb")
    assert_failed(run("merge", *names, "-o", "out.exr", *EV), "a.tif: 100% of its pixels are no numbers")


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (2, 3), (3, 2), (20_000, 2), (2, 20_000)])
def test_pictures_of_every_size_are_merged(folder: Path, sim: Simulated, size: tuple[int, int]) -> None:
    names = [f"{stem}.png" for stem in STEMS]
    for name, codes, shot in zip(names, sim.frames, sim.shots, strict=True):
        resized = cv2.resize(codes, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, 3)
        Image.fromarray(resized).save(name, exif=exif_of(shot))
    result = run("merge", *names, "-o", "out.exr")
    assert result.exit_code == 0, result.output
    pixels = load(Path("out.exr")).pixels
    assert pixels.shape == (*size, 3)
    assert np.isfinite(pixels).all()
    assert pixels.max() > 0
    with Image.open("out.jpg") as picture:
        assert picture.size == size[::-1]


def test_equal_exposures_are_merged_with_a_warning(frames: list[str], sim: Simulated) -> None:
    result = run("merge", *frames, "-o", "out.exr", "--no-preview", "--times", "1/60,1/60,1/60")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("hdrmerge: warning: all 3 frames have the same exposure")
    assert np.isfinite(load(Path("out.exr")).pixels).all()


def test_raw_and_developed_frames_do_not_mix(frames: list[str], sim: Simulated) -> None:
    photosites = record_mosaic(sim.truth, Camera(bits=14), 100.0, np.random.default_rng(0))
    write_dng(Path("raw.dng"), photosites, sim.shots[1], Camera(bits=14))
    for order in ([frames[0], "raw.dng", frames[2]], ["raw.dng", frames[0], frames[2]]):
        result = run("merge", *order, "-o", "out.exr")
        assert_failed(result, "IMG_000", ".jpg", "raw.dng", "RAW", "give frames of one kind")


# --- headers that lie -----------------------------------------------------------------------------


def lying_jpeg(start_of_frame: int) -> bytes:
    frame = struct.pack(">BHHB", 8, 30_000, 30_000, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    scan = struct.pack(">HHB", 0xFFDA, 12, 3) + b"\1\0\2\0\3\0\0\x3f\0"
    head = b"\xff\xd8" + struct.pack(">HH", start_of_frame, len(frame) + 2) + frame
    return (head + scan + b"\x55" * 900) + b"\xff\xd9"


def lying_png(depth: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, depth, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(500_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def lying_tiff(compression: int, photometric: int) -> bytes:
    """One strip of 900 bytes; a Bayer mosaic has one sample, RGB three."""
    samples = 1 if photometric == 32803 else 3
    entries = [
        (256, 4, 30_000),
        (257, 4, 30_000),
        (258, 3, 16),
        (259, 3, compression),
        (262, 3, photometric),
        (273, 4, 200),
        (277, 3, samples),
        (278, 4, 30_000),
        (279, 4, 900),
    ]
    entries += [(33421, 3, 2 | 2 << 16), (33422, 1, 0x02010100)] if samples == 1 else []
    entries += [(50706, 1, 0x0401)] if samples == 1 else []
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, kind, value in entries:
        count = {33421: 2, 33422: 4, 50706: 4}.get(tag, 1)
        data += struct.pack("<HHII", tag, kind, count, value)
    return (data + bytes(4)).ljust(200, b"\0") + b"\x55" * 900


LIES = {
    "baseline.jpg": lying_jpeg(0xFFC0),
    "progressive.jpg": lying_jpeg(0xFFC2),
    "8.png": lying_png(8),
    "16.png": lying_png(16),
    "plain.tif": lying_tiff(1, 2),
    "lzw.tif": lying_tiff(5, 2),
    "deflate.tif": lying_tiff(8, 2),
    "jpeg.tif": lying_tiff(7, 2),
    "packbits.tif": lying_tiff(32773, 2),
    "plain.dng": lying_tiff(1, 32803),
    "lossless.dng": lying_tiff(7, 32803),
}


def test_no_memory_is_asked_for_pictures_that_cannot_be_there(folder: Path) -> None:
    """30,000 x 30,000 pixels announced by a kilobyte; with 1 GB of memory to spare, and soon."""
    for name, data in LIES.items():
        assert len(data) < 2000
        Path(name).write_bytes(data)
    code = """
        import resource, sys, time
        from pathlib import Path
        import rawpy, tifffile
        from PIL import Image
        from hdrmerge.errors import InputError
        from hdrmerge.metadata import read_shot
        from hdrmerge.read import read_frame
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 10**9,) * 2)
        for name in sys.argv[1:]:
            start = time.monotonic()
            try:
                read_frame(read_shot(name))
                print(name, "was read")
            except InputError as error:
                print(error if time.monotonic() - start < 2 else f"{name} took long")
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *LIES], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == len(LIES)
    for name, line in zip(LIES, lines, strict=True):
        assert line.startswith(f"{name}: "), line
        assert "; " in line


# --- files that are no files, or not any more -----------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_pipes_and_devices_are_refused_and_not_waited_for(frames: list[str]) -> None:
    os.mkfifo("pipe.jpg")
    for name in ("pipe.jpg", os.devnull, "/dev/zero"):
        found: list[Result] = []

        def attempt(name: str = name, found: list[Result] = found) -> None:
            found.append(run("merge", frames[0], name, "-o", "out.exr"))

        worker = Thread(target=attempt, daemon=True)
        worker.start()
        worker.join(10)
        assert found, f"{name} hangs"
        assert_failed(found[0], f"{name}: is a device or a pipe; copy what it holds to a file")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".dng"])
def test_a_file_that_vanishes_before_it_is_decoded(
    folder: Path, sim: Simulated, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{stem}{suffix}" for stem in STEMS]
    for name, codes, shot in zip(names, sim.frames, sim.shots, strict=True):
        if suffix == ".dng":
            photosites = record_mosaic(sim.truth, Camera(bits=14), 100.0, np.random.default_rng(0))
            write_dng(Path(name), photosites, shot, Camera(bits=14))
        else:
            Image.fromarray(codes).save(name)

    def read_and_remove(path: Path) -> object:
        shot = read_shot(path)
        if Path(path).stem == "b":
            Path(path).unlink()
        return shot

    monkeypatch.setattr("hdrmerge.pipeline.read_shot", read_and_remove)
    result = run("merge", *names, "-o", "out.exr", *EV)
    assert_failed(result, f"b{suffix}: no such file; check the name")


def test_a_file_that_vanishes_between_two_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (4, 4)).save("a.jpg")
    from hdrmerge import metadata

    def told_and_removed(path: Path) -> str:
        path.unlink()
        return "jpeg"

    monkeypatch.setattr(metadata, "kind_of", told_and_removed)
    with pytest.raises(InputError, match=r"a\.jpg: no such file"):
        read_shot("a.jpg")


def test_a_name_of_bytes_that_are_no_text(frames: list[str], sim: Simulated) -> None:
    odd = os.fsdecode(b"\xff\xfe.jpg")
    try:
        shutil.copy(frames[2], odd)
    except OSError:
        pytest.skip("this file system wants names to be text")
    assert read_frame(read_shot(odd)).codes.shape == (*SIZE, 3)
    command = [sys.executable, "-c", "from hdrmerge.cli import app; app()", "merge", "--network", "none"]
    ran = subprocess.run([*command, frames[0], frames[1], odd, "--no-preview"], capture_output=True)
    assert (ran.returncode, ran.stdout) == (0, b"IMG_0001-\xff\xfe.exr\n"), ran.stderr
    Path(odd).write_bytes(b"")
    ran = subprocess.run([*command, frames[0], frames[1], odd, "-o", "out.exr"], capture_output=True)
    assert ran.returncode == 1
    assert ran.stderr.endswith(b"the file is empty; copy it again from the card\n")


@pytest.mark.parametrize("suffix", [".dng", ".tif", ".heic"])
def test_names_that_other_libraries_open(folder: Path, sim: Simulated, suffix: str) -> None:
    path = Path(f"a b\n[1] Ünï 🌅{suffix}")
    if suffix == ".dng":
        write_dng(path, record_mosaic(sim.truth, Camera(bits=14), 100.0, None), sim.shots[1], Camera(bits=14))
    elif suffix == ".tif":
        opencv(deep(sim.frames[1]), path)  # LZW
    else:
        pytest.importorskip("pillow_heif").from_pillow(Image.fromarray(sim.frames[1])).save(path)
    assert read_frame(read_shot(path)).codes.shape == (*SIZE, 3)


# --- no room, no permission -----------------------------------------------------------------------

LIMITED = """
    import json, resource, sys
    from typer.testing import CliRunner
    from hdrmerge import cli
    limit, cases = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    ends = []
    for arguments in cases:
        ended = CliRunner().invoke(cli.app, arguments)
        ends.append([ended.exit_code, ended.stdout, ended.stderr])
    print(json.dumps(ends))
"""
"""Merges in a process that can write no file longer than a limit; the disk is as good as full."""


def run_limited(limit: int, cases: list[list[str]]) -> list[tuple[int, str, str]]:
    command = [sys.executable, "-c", textwrap.dedent(LIMITED), json.dumps([limit, cases])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return [tuple(end) for end in json.loads(ran.stdout)]


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_a_full_disk_leaves_nothing_behind(frames: list[str]) -> None:
    before = sorted(Path().iterdir())
    targets = ["out.exr", "out.hdr", "out.tif"]
    cases = [["merge", *frames, "-o", target, "--no-preview", "--network", "none"] for target in targets]
    for limit in (100, 5000):
        for target, (code, stdout, stderr) in zip(targets, run_limited(limit, cases), strict=True):
            assert (code, stdout) == (1, ""), stderr
            assert stderr.startswith(f"hdrmerge: {target}: cannot be written ("), stderr
            assert stderr.count("\n") == 1
            assert "; " in stderr
        assert sorted(Path().iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on the size of files")
def test_no_room_to_spool(folder: Path) -> None:
    code = """
        import resource
        import numpy as np
        from hdrmerge.errors import OutputError
        from hdrmerge.read import SpooledCodes
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            SpooledCodes(np.zeros((100, 100, 3), np.uint8))
        except OutputError as error:
            print(error)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "no room for 0 MB of pixels (File too large); name a larger folder" in ran.stdout
    assert "TMPDIR" in ran.stdout


def test_no_folder_to_spool_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("hdrmerge.read.tempfile.TemporaryFile", refused)
    with pytest.raises(OutputError, match=r"No usable temporary directory.*TMPDIR"):
        SpooledCodes(np.zeros((4, 4, 3), np.uint8))


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions")
def test_a_folder_in_which_nothing_may_be_written(frames: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, and becomes nobody for the occasion."""
    assert run("merge", *frames, "-o", "first.exr").exit_code == 0  # and all is imported
    with tempfile.TemporaryDirectory() as name:
        closed = Path(name)
        for frame in frames:
            shutil.copy(frame, closed)
        monkeypatch.chdir(closed)
        closed.chmod(0o555)
        before, user = sorted(closed.iterdir()), os.geteuid()
        try:
            if user == 0:
                os.seteuid(NOBODY)
            result = run("merge", *frames, "-o", "out.exr")
        finally:
            os.seteuid(user)
            closed.chmod(0o755)
        remedy = "cannot be written (Permission denied); choose a folder you may write to with -o"
        assert_failed(result, f"out.exr: {remedy}")
        assert sorted(closed.iterdir()) == before
        monkeypatch.undo()


# --- frames that show nothing, frames that are doubtful -------------------------------------------


def blackened(name: str, sim: Simulated, index: int, value: int) -> None:
    Image.fromarray(np.full_like(sim.frames[index], value)).save(name, exif=exif_of(sim.shots[index]))


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_blank_frame_is_left_out(frames: list[str], sim: Simulated, index: int, value: int) -> None:
    rest = [name for name in frames if name != frames[index]]
    reference = frames[1] if index != 1 else frames[0]
    options = ["--no-preview", "--reference", reference]
    assert run("merge", *rest, "-o", "rest.exr", *options).exit_code == 0
    blackened(frames[index], sim, index, value)
    result = run("merge", *frames, "-o", "out.exr", "--json", "report.json", "--no-preview")
    assert result.exit_code == 0, result.output
    colour = "black" if value == 0 else "white"
    assert result.stderr == f"hdrmerge: warning: {frames[index]}: left out, nothing but {colour} in it\n"
    assert np.array_equal(load(Path("out.exr")).pixels, load(Path("rest.exr")).pixels)
    report = json.loads(Path("report.json").read_text())
    assert [frame["file"] for frame in report["frames"]] == rest


@pytest.mark.parametrize(("value", "colour"), [(0, "black"), (255, "white")])
def test_blank_frames_alone_are_refused(frames: list[str], sim: Simulated, value: int, colour: str) -> None:
    for index in (0, 1, 2):
        blackened(frames[index], sim, index, value)
    found = f"IMG_0001.jpg: nothing but {colour} in it, and no more in the 2 others; give frames"
    assert_failed(run("merge", *frames, "-o", "out.exr"), found)


def test_a_blank_reference_that_was_asked_for_is_refused(frames: list[str], sim: Simulated) -> None:
    blackened(frames[1], sim, 1, 0)
    result = run("merge", *frames, "-o", "out.exr", "--reference", frames[1])
    assert_failed(result, "IMG_0002.jpg: nothing but black in it; choose another --reference")


def test_a_jpeg_with_bytes_left_over_is_merged_with_a_warning(frames: list[str]) -> None:
    data = Path(frames[2]).read_bytes()
    Path(frames[2]).write_bytes(data[:-2] + b"maker's own data" * 3 + data[-2:])
    result = run("merge", *frames, "-o", "out.exr", "--json", "report.json", "--no-preview")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("hdrmerge: warning: IMG_0003.jpg: 4")
    assert "bytes too many among its pixels; if parts" in result.stderr
    assert len(json.loads(Path("report.json").read_text())["warnings"]) == 1


def test_missing_numbers_in_a_float_tiff_are_warned_of(folder: Path, sim: Simulated) -> None:
    names = [f"{stem}.tif" for stem in STEMS]
    for name, codes in zip(names, sim.frames, strict=True):
        linear = sim.camera.decode(codes)
        linear[30:33, 40:43] = np.nan if name == "b.tif" else linear[30:33, 40:43]
        tifffile.imwrite(name, linear, photometric="rgb")
    result = run("merge", *names, "-o", "out.exr", "--no-preview", *EV)
    assert result.stderr == (
        "hdrmerge: warning: b.tif: 9 pixels hold no number (NaN) and repeat their neighbours\n"
    )
