"""The command line as scripts see it: names on stdout, one line of error, exit codes, files kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from hdrmerge import __version__, cli, infer, pipeline
from hdrmerge.align import MODELS
from hdrmerge.exposure import RESPONSES
from hdrmerge.infer import PRECISIONS
from hdrmerge.load import load
from hdrmerge.pipeline import MergeOptions
from hdrmerge.response import NAMED
from hdrmerge.simulate import Camera, simulate_bracket
from hdrmerge.simulate_files import record_mosaic, write_dng, write_jpegs
from hdrmerge.tonemap import OPERATORS
from hdrmerge.write import COMPRESSIONS

SIZE = (64, 96)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory, ramp: np.ndarray) -> Path:
    """A folder with three JPEGs, 2 EV apart, the same without metadata, and three DNGs."""
    folder = tmp_path_factory.mktemp("photographs")
    sim = simulate_bracket(ramp[:256, :384], np.random.default_rng(0), size=SIZE)
    write_jpegs(sim, folder)
    for number, codes in enumerate(sim.frames, start=1):
        Image.fromarray(codes).save(folder / f"bare{number}.jpg", quality=95)
    for name, view, scale, shot in zip("abc", sim.views, sim.relative_exposures, sim.shots, strict=True):
        camera = Camera(bits=14)
        write_dng(
            folder / f"{name}.dng", record_mosaic(view * np.float32(scale), camera, 100.0, None), shot, camera
        )
    return folder


@pytest.fixture
def folder(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, to be written to; the working directory."""
    shutil.copytree(photographs, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


FRAMES = ["IMG_0001.jpg", "IMG_0002.jpg", "IMG_0003.jpg"]
BARE = ["bare1.jpg", "bare2.jpg", "bare3.jpg"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


def assert_failed(result: Result, *parts: str, code: int = 1) -> None:
    """One line that says what, no names on stdout, no traceback."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("hdrmerge: "), result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert "; " in result.stderr  # the remedy
    for part in parts:
        assert part in result.stderr


def assert_usage(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", result.stderr).split())
    for part in parts:
        assert part in text, text


# --- what is written ------------------------------------------------------------------------------


def test_merge_prints_the_names_of_what_it_wrote(folder: Path) -> None:
    result = run("merge", *FRAMES, "-o", "out.exr")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out.exr\nout.jpg\n", "")
    merged = load(Path("out.exr"))
    assert merged.pixels.shape == (*SIZE, 3)
    assert merged.reference.exposure_time == pytest.approx(1 / 60, rel=1e-3)
    with Image.open("out.jpg") as picture:
        assert picture.size == SIZE[::-1]


@pytest.mark.parametrize(
    ("output", "written"),
    [
        (None, ["IMG_0001-IMG_0003.exr", "IMG_0001-IMG_0003.jpg"]),
        ("out.exr", ["out.exr", "out.jpg"]),
        ("OUT.EXR", ["OUT.EXR", "OUT.jpg"]),
        ("out.hdr", ["out.hdr", "out.jpg"]),
        ("out.tif", ["out.tif", "out.jpg"]),
        ("out.TIFF", ["out.TIFF", "out.jpg"]),
        ("new/deeper/out.exr", ["new/deeper/out.exr", "new/deeper/out.jpg"]),
        ("new", ["new/IMG_0001-IMG_0003.exr", "new/IMG_0001-IMG_0003.jpg"]),
        ("2020.05.01", ["2020.05.01/IMG_0001-IMG_0003.exr", "2020.05.01/IMG_0001-IMG_0003.jpg"]),
        ("existing.exr", ["existing.exr/IMG_0001-IMG_0003.exr", "existing.exr/IMG_0001-IMG_0003.jpg"]),
        ("a [b] ünï 🌅.exr", ["a [b] ünï 🌅.exr", "a [b] ünï 🌅.jpg"]),
    ],
)
def test_where_the_output_goes(folder: Path, output: str | None, written: list[str]) -> None:
    Path("existing.exr").mkdir()
    result = run("merge", *FRAMES, *(["-o", output] if output else []))
    assert result.stdout.splitlines() == written, result.output
    assert all(Path(name).is_file() for name in written)


def test_the_default_lies_beside_the_first_frame(folder: Path) -> None:
    Path("sub").mkdir()
    Path(FRAMES[2]).rename("sub/last.jpg")
    Path(FRAMES[0]).rename("sub/first.jpg")
    result = run("merge", "sub/first.jpg", FRAMES[1], "sub/last.jpg", "--no-preview")
    assert result.stdout == "sub/first-last.exr\n"
    assert not Path("sub/first-last.jpg").exists()


@pytest.mark.parametrize("options", [["--float"], ["--compression", "piz"], ["--operator", "reinhard2002"]])
def test_options_of_the_output(folder: Path, options: list[str]) -> None:
    assert run("merge", *FRAMES, "-o", "plain.exr").exit_code == 0
    assert run("merge", *FRAMES, "-o", "other.exr", *options).exit_code == 0
    suffix = ".jpg" if "--operator" in options else ".exr"
    assert Path(f"plain{suffix}").read_bytes() != Path(f"other{suffix}").read_bytes()


def test_existing_output_is_kept_unless_forced(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("out.exr").write_text("precious")
    with monkeypatch.context() as patched:  # it is found out before the work
        patched.setattr("hdrmerge.pipeline.merge_bracket", lambda *_: pytest.fail("the work had begun"))
        assert_failed(run("merge", *FRAMES, "-o", "out.exr"), "out.exr: exists", "--force")
        Path("out.exr").rename("else.jpg")
        assert_failed(run("merge", *FRAMES, "-o", "else.exr"), "else.jpg: exists", "--force")
        assert_failed(run("merge", *FRAMES, "-o", "new.exr", "--json", "else.jpg"), "else.jpg: exists")
    assert Path("else.jpg").read_text() == "precious"
    assert run("merge", *FRAMES, "-o", "else.exr", "--no-preview").exit_code == 0
    assert run("merge", *FRAMES, "-o", "else.exr", "--force").exit_code == 0
    assert Path("else.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_input_is_never_replaced(folder: Path, force: list[str]) -> None:
    Path("a.jpg").symlink_to(FRAMES[1])
    before = Path(FRAMES[1]).read_bytes()
    for output in (
        "IMG_0002.exr",
        "./IMG_0002.hdr",
        "../here/IMG_0002.tif",
        "a.exr",
    ):  # by the preview's name
        assert_failed(run("merge", *FRAMES, "-o", output, *force), ".jpg: the output would replace an input")
    assert_failed(
        run("merge", *FRAMES, "-o", "x.exr", "--json", FRAMES[0], *force), "the output would replace an input"
    )
    shutil.copy("c.dng", "c.tif")
    assert_failed(
        run("merge", "a.dng", "c.tif", "-o", "c.tif", *force), "c.tif: the output would replace an input"
    )
    assert Path(FRAMES[1]).read_bytes() == before


def test_unwritable_targets_are_found_out_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hdrmerge.pipeline.merge_bracket", lambda *_: pytest.fail("the work had begun"))
    Path("file").write_text("x")
    assert_failed(run("merge", *FRAMES, "-o", "file/out.exr"), "file/out.exr: ", "choose another target")
    assert_failed(run("merge", *FRAMES, "-o", "file"), "file", "choose another target")
    assert_failed(run("merge", *FRAMES, "-o", "out.exr", "--json", "file/report"), "file/report: ")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert_failed(run("merge", *FRAMES, "-o", "out.exr"), "out.exr: cannot be written (Permission denied)")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody may write")
def test_a_folder_that_cannot_be_made_is_one_line(folder: Path) -> None:
    before = files()
    assert_failed(
        run("merge", *FRAMES, "-o", "/proc/nothing/out.exr"), "/proc/nothing/out.exr: cannot be written"
    )
    assert files() == before


# --- exposures by hand ----------------------------------------------------------------------------


def relative_ev(*options: str, frames: list[str] = BARE) -> list[float]:
    result = run("merge", *frames, "-o", "out.exr", "--json", "-", "--no-preview", "--force", *options)
    assert result.exit_code == 0, result.output
    return [frame["relative_ev"] for frame in json.loads(result.stdout)["frames"]]


@pytest.mark.parametrize(
    "options",
    [
        ["--times", "1/240,1/60,1/15"],
        ["--times", "0.0041666667, 0.0166666667, 6.66666667e-2"],
        ["--ev", "-2,0,2"],
        ["--ev=-2,0,2"],
        ["--ev", "-6/3,0,+2.0"],
        ["--ev-step", "2"],
        ["--ev-step", "4/2"],
    ],
)
def test_exposures_by_hand(folder: Path, options: list[str]) -> None:
    assert relative_ev(*options) == pytest.approx([-2, 0, 2], abs=1e-3)


def test_exposures_follow_the_order_of_the_files(folder: Path) -> None:
    assert relative_ev("--ev", "2,-2,0", frames=[BARE[2], BARE[0], BARE[1]]) == pytest.approx([-2, 0, 2])
    assert relative_ev("--ev-step", "-2", frames=BARE[::-1]) == pytest.approx([-2, 0, 2])
    assert relative_ev("--times", "1,2,4", frames=FRAMES) == pytest.approx([-1, 0, 1])  # stronger than EXIF


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        (["--times", "1/500,fast,1/8"], "'fast' is no number"),
        (["--times", "1/500,,1/8"], "'' is no number"),
        (["--times", "1/0,1,2"], "'1/0' is no number"),
        (["--times", "1/,1,2"], "'1/' is no number"),
        (["--times", "1/2/3,1,2"], "'1/2/3' is no number"),
        (["--times", "0,1,2"], "0 is not between"),
        (["--times", "-1,1,2"], "-1 is not between"),
        (["--times", "nan,1,2"], "nan is not between"),
        (["--times", "inf,1,2"], "inf is not between"),
        (["--times", ""], "'' is no number"),
        (["--ev", "1e9,0,2"], "1e9 is not between"),
        (["--ev", "5000,0,2"], "5000 is not between"),
        (["--ev-step", "two"], "'two' is no number"),
        (["--ev-step", "1,2"], "one number"),
        (["--ev-step", "600"], "600 is not between"),
        (["--ev-step", "nan"], "nan is not between"),
        (["--times", "1,2,4", "--ev", "-2,0,2"], "give one of them"),
        (["--ev", "-2,0,2", "--ev-step", "2"], "give one of them"),
        (["--align", "magic"], "--align"),
        (["--deghost", "magic"], "--deghost"),
        (["--response", "magic"], "--response"),
        (["--network", "magic"], "--network"),
        (["--device", "tpu"], "--device"),
        (["--device", "cuda:first"], "--device"),
        (["--device", "cpu:1"], "--device"),
        (["--precision", "int8"], "--precision"),
        (["--magic"], "--magic"),
        (["-o", "out.png"], "out.png: this command writes .exr, .hdr, .tif, .tiff"),
        (["-o", "out.JPG"], "out.JPG: this command writes"),
        (["-o", "out.dng"], "out.dng: this command writes"),
    ],
)
def test_wrong_usage(folder: Path, options: list[str], finding: str) -> None:
    before = files()
    assert_usage(run("merge", *BARE, *options), finding)
    assert files() == before


@pytest.mark.parametrize("options", [["--times", "1,2"], ["--ev", "-2,-1,0,2"]])
def test_one_value_a_frame(folder: Path, options: list[str]) -> None:
    values = options[1].count(",") + 1
    assert_failed(run("merge", *BARE, *options), f"{options[0]}: {values} values for 3 frames")


def test_the_choices_are_what_the_library_offers() -> None:
    """They are spelt out in `cli`, so that ``--help`` need not import the library."""
    modes = get_type_hints(MergeOptions)
    for choices, offered in (
        (cli.Align, MODELS),
        (cli.Deghost, get_args(modes["deghost"])),
        (cli.Precision, PRECISIONS),
        (cli.Trusted, get_args(modes["trust"])),
        (cli.Compression, COMPRESSIONS),
        (cli.ToneCurve, OPERATORS),
    ):
        assert {choice.value for choice in choices} == set(offered)
    assert set(NAMED) == {*RESPONSES, "camera"}


# --- what happens in between ----------------------------------------------------------------------


def report_of(*options: str, frames: list[str] = FRAMES) -> dict:
    result = run(
        "merge", *frames, "-o", "out.exr", "--json", "report.json", "--no-preview", "--force", *options
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == "out.exr\n"
    return json.loads(Path("report.json").read_text())


def test_the_report(folder: Path) -> None:
    report = report_of()
    assert (report["hdrmerge"], report["reference"]) == (__version__, FRAMES[1])
    assert [frame["file"] for frame in report["frames"]] == FRAMES
    assert all(frame["exposure_source"] == "exif" for frame in report["frames"])
    assert report["outputs"] == ["out.exr"]
    assert set(report["seconds"]) >= {"read", "align", "deghost", "merge"}
    printed = run("merge", *FRAMES, "-o", "out.exr", "--json", "-", "--force")
    assert json.loads(printed.stdout)["outputs"] == ["out.exr", "out.jpg"]


@pytest.mark.parametrize("reference", ["0", "IMG_0001.jpg", "./IMG_0001.jpg", "../here/IMG_0001.jpg"])
def test_the_reference_by_name_or_index(folder: Path, reference: str) -> None:
    assert report_of("--reference", reference)["reference"] == FRAMES[0]
    assert report_of("--reference", "0", frames=FRAMES[::-1])["reference"] == FRAMES[2]  # in the order given


@pytest.mark.parametrize("reference", ["3", "-1", "IMG_0009.jpg", "", "²", "--1"])
def test_a_reference_that_is_none(folder: Path, reference: str) -> None:
    assert_failed(run("merge", *FRAMES, f"--reference={reference}"), f"--reference {reference}: ")


def test_the_response(folder: Path) -> None:
    pixels = {}
    for response in ("srgb", "gamma2.2", "linear"):
        report_of("--response", response)
        pixels[response] = load(Path("out.exr")).pixels
    report_of()
    assert np.array_equal(load(Path("out.exr")).pixels, pixels["srgb"])
    assert np.median(pixels["gamma2.2"] / pixels["srgb"]) == pytest.approx(1, abs=0.15)
    assert np.median(pixels["linear"] / pixels["srgb"]) > 1.5


def test_align_and_deghost_can_be_turned_off(folder: Path) -> None:
    report = report_of("--align", "none", "--deghost", "none", "--network", "none")
    assert {frame["alignment"]["model"] for frame in report["frames"]} == {"none"}
    assert {frame["ghost_share"] for frame in report["frames"]} == {0.0}
    for model in ("translation", "similarity", "homography"):
        report_of("--align", model)


def test_a_network_from_a_file(folder: Path, network_file: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copy(network_file, "mine.onnx")
    report = report_of("--network", "mine.onnx", "--device", "cpu", "--precision", "fp32")
    assert report["network"].startswith("mine.onnx: onnxruntime ")
    assert report["network"].endswith(" cpu fp32")
    assert report_of("--network", "none")["network"] == "none"


@pytest.mark.parametrize("options", [[], ["--device", "cuda"], ["--precision", "fp16"]])
def test_a_network_that_cannot_be_had(folder: Path, options: list[str]) -> None:
    before = files()
    Path("text.onnx").write_text("no network")
    for network in ("missing.onnx", "text.onnx"):
        assert_failed(run("merge", *FRAMES, "--network", network, *options), network)
    assert files() - {"text.onnx"} == before


def test_a_network_that_paints(folder: Path, painter_file: Path) -> None:
    pytest.importorskip("onnxruntime")
    shutil.copy(painter_file, "mine.onnx")
    result = run("merge", *FRAMES, "--network", "mine.onnx", "--everywhere", "-v", "--json", "report.json")
    assert result.exit_code == 0, result.output
    assert f"painted: 100.00%, from {', '.join(FRAMES)}, up to radiance 4" in result.stderr
    assert json.loads(Path("report.json").read_text())["painted"]["files"] == FRAMES
    assert re.search(r"fuse \d+\.\d\d s", result.stderr)


def test_only_networks_that_paint_paint_everywhere(folder: Path, network_file: Path) -> None:
    pytest.importorskip("onnxruntime")
    for network in (network_file, "none"):
        result = run("merge", *FRAMES, "--network", network, "--everywhere", "-o", "no.exr")
        assert_failed(result, "--everywhere")
    assert not Path("no.exr").exists()


def test_a_device_that_is_not_there(folder: Path, network_file: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if pytest.importorskip("torch").cuda.is_available() or len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("there may be one")
    result = run("merge", *FRAMES, "--network", network_file, "--device", "cuda")
    assert_failed(result, "cuda: ", 'pip install "hdrmerge[cuda]"')


def test_without_an_engine_a_network_asked_for_is_an_error(
    folder: Path, network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "find_spec", lambda library: None)
    pipeline._opened.cache_clear()
    before = files()
    result = run("merge", *FRAMES, "--network", network_file)
    assert_failed(result, "not installed", 'pip install "hdrmerge[cpu]"')
    assert files() == before


@pytest.mark.parametrize("name", ["ghosts.png", "ghosts.jpg", "new/ghosts.png"])
def test_the_ghost_map(folder: Path, name: str) -> None:
    result = run("merge", *FRAMES, "-o", "out.exr", "--no-preview", "--ghost-map", name)
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"out.exr\n{name}\n", "")
    with Image.open(name) as picture:
        assert picture.size == SIZE[::-1]
        assert np.asarray(picture).max() < 3  # nothing moved
    assert_failed(run("merge", *FRAMES, "-o", "again.exr", "--ghost-map", name), "exists")
    assert not Path("again.exr").exists()
    printed = run("merge", *FRAMES, "-o", "out.exr", "--json", "-", "--ghost-map", name, "--force")
    assert json.loads(printed.stdout)["outputs"] == ["out.exr", "out.jpg", name]


@pytest.mark.parametrize("name", ["out.jpg", FRAMES[0]])
def test_a_ghost_map_replaces_nothing(folder: Path, name: str) -> None:
    before = files()
    assert_failed(run("merge", *FRAMES, "-o", "out.exr", "--ghost-map", name, "--force"), name)
    assert files() == before


@pytest.mark.parametrize("name", ["ghosts.exr", "ghosts", "ghosts.tif"])
def test_a_ghost_map_that_is_no_picture_is_found_out_before_the_work(folder: Path, name: str) -> None:
    before = files()
    assert_failed(run("merge", *FRAMES, "-o", "out.exr", "--ghost-map", name), name)
    assert files() == before


def test_verbose_and_quiet(folder: Path) -> None:
    verbose = run("merge", *FRAMES, "-v", "-o", "a [bold].exr")
    assert verbose.stdout == "a [bold].exr\na [bold].jpg\n"
    assert all(name in verbose.stderr for name in FRAMES)
    assert "reference" in verbose.stderr
    assert re.search(r"read \d\.\d\d s .*merge \d\.\d\d s", verbose.stderr)
    quiet = run("merge", *FRAMES, "-q", "-o", "b.exr")
    assert (quiet.exit_code, quiet.output) == (0, "")
    same = run("merge", *BARE, "--ev", "0,0,0", "-o", "c.exr")
    assert same.stderr.startswith("hdrmerge: warning: all 3 frames have the same exposure")
    assert run("merge", *BARE, "--ev", "0,0,0", "-q", "-o", "d.exr").output == ""
    assert_failed(run("merge", *FRAMES, "-q", "-o", "b.exr"), "b.exr: exists")


def test_names_in_the_table_are_no_markup(folder: Path) -> None:
    frames = [shutil.copy(name, f"[bold]{number}.jpg") for number, name in enumerate(FRAMES)]
    table = run("merge", *frames, "-v").stderr
    assert all(name in table for name in frames)


def test_raw_frames(folder: Path) -> None:
    assert run("merge", "a.dng", "b.dng", "c.dng").stdout == "a-c.exr\na-c.jpg\n"


# --- bad input ------------------------------------------------------------------------------------


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def resized(path: Path) -> None:
    with Image.open(path) as picture:
        picture.resize((48, 32)).save(path, exif=picture.info["exif"])


BAD: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "truncated": (truncated, ["IMG_0003.jpg: ends early or is damaged", "copy it again"]),
    "empty": (lambda path: path.write_bytes(b""), ["IMG_0003.jpg: the file is empty", "copy it again"]),
    "text": (lambda path: path.write_text("Dear diary"), ["IMG_0003.jpg: not a photograph", "give JPEG"]),
    "missing": (lambda path: path.unlink(), ["IMG_0003.jpg: no such file", "check the name"]),
    "folder": (
        lambda path: (path.unlink(), path.mkdir()),
        ["IMG_0003.jpg: is a folder", "name the photographs"],
    ),
    "other size": (resized, ["IMG_0003.jpg: 48 x 32 px, the others 96 x 64", "one size"]),
    "twice": (
        lambda path: (path.unlink(), path.symlink_to("IMG_0001.jpg")),
        ["IMG_0001.jpg: given twice", "once"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_output(folder: Path, case: str) -> None:
    spoil, parts = BAD[case]
    spoil(Path(FRAMES[2]))
    before = files()
    assert_failed(run("merge", *FRAMES, "-o", "out.exr", "--json", "report.json"), *parts)
    assert files() == before


def test_too_few_frames(folder: Path) -> None:
    assert_failed(run("merge", FRAMES[0]), "IMG_0001.jpg: one frame", "at least two")
    assert_failed(run("merge", FRAMES[0], FRAMES[0]), "IMG_0001.jpg: given twice")


def test_names_may_hold_anything(folder: Path) -> None:
    names = ["a b.jpg", "[1].jpg", "Ünï🌅.jpg"]
    for old, new in zip(FRAMES, names, strict=True):
        Path(old).rename(new)
    assert run("merge", *names, "-o", "out dir [x]").stdout.splitlines()[0] == "out dir [x]/a b-Ünï🌅.exr"
    Path(names[0]).rename("-x.jpg")
    assert run("merge", "./-x.jpg", *names[1:], "-o", "dash.exr").exit_code == 0
    assert run("merge", "-o", "dash.hdr", "--force", "--", "-x.jpg", *names[1:]).exit_code == 0
    Path("new\nline.jpg").write_bytes(b"")
    assert_failed(run("merge", "new\nline.jpg", *names[1:]), "new line.jpg: the file is empty")


def test_a_bug_keeps_its_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("hdrmerge.pipeline.merge_bracket", bug)
    assert isinstance(run("merge", *FRAMES).exception, ZeroDivisionError)


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 1)])
def test_interrupted_or_out_of_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: type, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    before = files()
    monkeypatch.setattr("hdrmerge.write._write_exr", fail)
    result = run("merge", *FRAMES, "-o", "out.exr")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("hdrmerge: ")
    assert result.stderr.count("\n") == 1
    assert files() == before


# --- preview --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".exr", ".hdr", ".tif"])
def test_previews_are_rendered_again(folder: Path, suffix: str) -> None:
    source = f"out{suffix}"
    assert run("merge", *FRAMES, "-o", source).exit_code == 0
    first = Path("out.jpg").read_bytes()
    assert_failed(run("preview", source), "out.jpg: exists", "--force")
    again = run("preview", source, "--force")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "out.jpg\n", "")
    with Image.open("out.jpg") as picture:
        codes = np.asarray(picture).astype(int)
        assert picture.info["icc_profile"]
        assert "exif" in picture.info or suffix == ".hdr"
    Path("first.jpg").write_bytes(first)
    with Image.open("first.jpg") as picture:
        assert np.abs(np.asarray(picture).astype(int) - codes).mean() < 1.5
    assert run("preview", source, "-o", "other.png", "--operator", "reinhard2002").stdout == "other.png\n"
    with Image.open("other.png") as picture:
        assert np.abs(np.asarray(picture).astype(int) - codes).mean() > 2
    assert run("preview", source, "-o", "new/folder", "-q").stdout == ""
    assert Path("new/folder/out.jpg").is_file()


def test_previews_of_several_files(folder: Path) -> None:
    for name in ("a.exr", "b.exr"):
        assert run("merge", *FRAMES, "-o", name, "--no-preview").exit_code == 0
    assert run("preview", "a.exr", "b.exr").stdout == "a.jpg\nb.jpg\n"
    assert run("preview", "a.exr", "b.exr", "-o", "new").stdout == "new/a.jpg\nnew/b.jpg\n"
    before = files()
    assert_failed(run("preview", "a.exr", "b.exr", "-o", "one.jpg"), "one.jpg: several outputs of this name")
    assert_failed(run("preview", "a.exr", "b.exr"), "a.jpg: exists")
    assert files() == before


def test_previews_of_what_is_no_radiance(folder: Path) -> None:
    assert_failed(run("preview", "missing.exr"), "missing.exr: ")
    assert_failed(run("preview", FRAMES[0], "-o", "x.jpg"), "IMG_0001.jpg: ")
    assert_failed(run("preview", FRAMES[0], "-o", FRAMES[1], "--force"), "IMG_0001.jpg: ")
    assert_failed(run("preview", FRAMES[0], "--force"), "the output would replace an input")
    assert_usage(run("preview", "a.exr", "-o", "b.exr"), "b.exr: this command writes .jpg, .jpeg, .png")


# --- as a process ---------------------------------------------------------------------------------

PROGRAM = [sys.executable, "-c", "from hdrmerge.cli import app; app()"]


def test_help_comes_at_once_and_without_numpy() -> None:
    best = 9.0
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
        if best < 0.3:
            break
    assert best < 0.5
    check = (
        "import hdrmerge.cli, sys; print([m for m in ('numpy', 'cv2', 'rich.progress') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True).stdout == "[]\n"


def test_the_version_says_which_hdrmerge_this_is() -> None:
    result = run("--version")
    assert result.stdout.startswith(f"hdrmerge {__version__}")
    assert "not jcelaya/hdrmerge" in result.stdout


def test_an_interrupt_leaves_nothing_behind(folder: Path, ramp: np.ndarray) -> None:
    large = np.kron(np.clip(ramp * 60, 0, 255).astype(np.uint8), np.ones((5, 5, 1), np.uint8))
    names = [f"large{number}.jpg" for number in range(7)]
    Image.fromarray(large).save(names[0])
    for name in names[1:]:
        shutil.copy(names[0], name)
    before = files()
    process = subprocess.Popen(
        [*PROGRAM, "merge", *names, "--ev-step", "1", "-o", "out.exr", "--network", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.2)  # the imports take 0.3 s, this merge 5 s
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, ""), err
    assert err == "hdrmerge: interrupted, nothing half-written is left\n"
    assert files() == before


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_names_that_are_no_text_come_out_as_they_are(folder: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.jpg")
    Path(FRAMES[0]).rename(name)
    command = [*PROGRAM, "merge", name, *FRAMES[1:], "--network", "none"]
    result = subprocess.run(command, capture_output=True)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == b"\xff\xfe-IMG_0003.exr\n\xff\xfe-IMG_0003.jpg\n"


def test_libraries_add_no_lines_of_their_own(folder: Path) -> None:
    """libpng prints 'Not enough image data' past Python, Pillow warns of damaged EXIF data."""
    with Image.open(BARE[0]) as picture:
        picture.save("lies.png")
    data = bytearray(Path("lies.png").read_bytes())
    data[20:24] = (SIZE[0] + 1).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    Path("lies.png").write_bytes(data)
    result = subprocess.run(
        [*PROGRAM, "merge", "lies.png", *BARE, "--ev-step", "1"], capture_output=True, text=True
    )
    assert result.stderr.startswith("hdrmerge: lies.png: ")
    assert result.stderr.count("\n") == 1, result.stderr
