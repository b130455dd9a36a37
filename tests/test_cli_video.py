"""hdrmerge video as scripts see it: names, exit codes, what lies where, and errors of one line."""

from __future__ import annotations

import builtins
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clip import alternating, scene, write_clip, write_stills
from typer.testing import CliRunner, Result

from hdrmerge import cli, encode
from hdrmerge.errors import OutputError
from hdrmerge.load import load

av = pytest.importorskip("av")

RADIANCE = scene(64, 96)
TIMES = [0.5, 4.0] * 3


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with stills in ``in`` and a clip."""
    monkeypatch.chdir(tmp_path)
    frames = alternating(TIMES, RADIANCE)
    write_stills(tmp_path / "in", frames, [t / 100 for t in TIMES])
    write_clip(tmp_path / "a.mkv", frames, tags={"colorspace": 1, "color_range": 1, "color_trc": 1})
    return tmp_path


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, ["video", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def line_of(*arguments: object) -> str:
    """Return the one line of a command that fails."""
    result = run(*arguments, code=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("hdrmerge: ")
    return line


def files(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def transfer_of(path: str) -> tuple[str, int]:
    with av.open(path) as container:
        context = container.streams.video[0].codec_context
        return context.name, int(context.color_trc)


FRAMES = [f"{n + 1:03d}.exr" for n in range(len(TIMES))]
JOURNAL = "hdrmerge-video.jsonl"


# --- what lies where ------------------------------------------------------------------------------


def test_a_folder_gets_frames_and_a_preview(place: Path) -> None:
    result = run("in", "-o", "out", "--response", "srgb", "--method", "flow")
    assert result.stdout == "out\nout/in_preview.mp4\n"
    assert files("out") == [*FRAMES, JOURNAL, "in_preview.mp4"]
    last = result.stderr.splitlines()[-1]
    assert last == "hdrmerge: in: 6 frames of 2 exposures, -3, 0 EV (stated by the files); method: flow"
    assert load(Path("out/001.exr")).reference.exposure_time == pytest.approx(1 / 200)
    assert transfer_of("out/in_preview.mp4")[1] == 1


def test_a_clip_gets_its_frames_beside_it(place: Path) -> None:
    result = run("a.mkv", "-o", "new/b.mp4", "--exposures", "1/200,1/25", "--response", "srgb")
    assert result.stdout == "new/b_frames\nnew/b.mp4\nnew/b_preview.mp4\n"
    assert files("new") == ["b.mp4", "b_frames", "b_preview.mp4"]
    assert files("new/b_frames")[:2] == ["a_00000.exr", "a_00001.exr"]
    assert "MaxCLL" in result.stderr.splitlines()[-1]
    assert transfer_of("new/b.mp4") == ("hevc", 16)


def test_other_encodings(place: Path) -> None:
    result = run(
        "in", "-o", "out", "--encode", "hlg", "--codec", "av1", "--no-preview", "--method", "reference"
    )
    assert result.stdout == "out\nout/in_hlg.mp4\n"
    name, transfer = transfer_of("out/in_hlg.mp4")
    assert "av1" in name
    assert transfer == 18


def test_only_frames_and_nothing_said(place: Path) -> None:
    result = run("in", "-o", "out", "--no-preview", "-q", "--method", "merge", "--float", "--anchor", "5")
    assert (result.stdout, result.stderr) == ("", "")
    assert files("out") == [*FRAMES, JOURNAL]


# --- a second run ---------------------------------------------------------------------------------


def test_what_exists_is_kept(place: Path) -> None:
    run("in", "-o", "b.mp4", "--no-preview", "-q", "--method", "flow")
    before = Path("b_frames/001.exr").stat().st_mtime_ns
    assert line_of("in", "-o", "b.mp4", "--no-preview") == (
        "hdrmerge: b.mp4: exists; add --force to replace it"
    )
    result = run("in", "-o", "b.mp4", "--no-preview", "--force", "--peak-nits", "600", "--method", "flow")
    assert "6 lay there already" in result.stderr
    assert Path("b_frames/001.exr").stat().st_mtime_ns == before
    Path("b.mp4").unlink()
    assert "made with method flow; add --force" in line_of("in", "-o", "b.mp4", "--method", "merge")


def test_a_run_that_failed_at_a_clip_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("b.mp4: cannot be written (No space left on device); free some space")

    with monkeypatch.context() as patch:
        patch.setattr(encode, "encode_hdr", full)
        assert "No space left" in line_of("in", "-o", "b.mp4")
    assert files(".") == ["a.mkv", "b_frames", "b_preview.mp4", "in"]
    assert "6 lay there already" in run("in", "-o", "b.mp4").stderr


def test_a_preview_of_somebody_else_is_kept(place: Path) -> None:
    Path("b_preview.mp4").write_bytes(b"mine")
    assert "b_preview.mp4: exists" in line_of("in", "-o", "b.mp4")
    assert Path("b_preview.mp4").read_bytes() == b"mine"
    assert not Path("b_frames").exists()


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("nothing.mp4 -o out", "nothing.mp4: no such file"),
        ("in -o in", "in: the stills lie here"),
        ("a.mkv -o a.mkv", "a.mkv: the output would replace an input"),
        ("in -o out --exposures 1/500", "one exposure does not alternate"),
        ("in -o out --exposures nowhere.txt", "neither a file nor times"),
        (
            "a.mkv -o out --exposures 1/500,1/60,1/8",
            "repeats every 2 frames, the pattern of --exposures has 3",
        ),
        ("a.mkv -o out --anchor 5", "no absolute exposure to anchor to EV 5"),
        ("in -o out --method network", "no network for HDR video is released yet; give a weights file"),
        ("in -o out --coarse video-coarse-2", "video-coarse-2: not released yet"),
        ("in -o out --coarse none.onnx", "none.onnx"),
        ("in -o b.mp4 --white-nits 2000", "white at 2000 nits, peak at 1000"),
    ],
)
def test_a_mistake_costs_a_line(place: Path, arguments: str, words: str) -> None:
    from dataclasses import replace

    from hdrmerge.networks import NETWORKS

    with pytest.MonkeyPatch.context() as patch:
        for name in NETWORKS:
            if name.startswith("video-"):
                patch.setitem(NETWORKS, name, replace(NETWORKS[name], sha256=""))
        assert words in line_of(*arguments.split())
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        "in",
        "in -o out.avi",
        "in -o out.exr",
        "in -o b.mp4 --encode none",
        "in -o out --method flow --coarse x.onnx",
        "in -o out --method best",
        "in -o out --anchor dark",
        "in -o out --coarse nothing",
        "in -o out --response cinema",
        "in -o out --fps 0",
        "in -o out --device tpu",
    ],
)
def test_wrong_usage_ends_with_two(place: Path, arguments: str) -> None:
    run(*arguments.split(), code=2)
    assert not Path("out").exists()


def test_without_pyav_frames_are_written_and_clips_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def lacking(name: str, *arguments: Any) -> Any:
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name="av")
        return imported(name, *arguments)

    monkeypatch.delitem(sys.modules, "av")
    monkeypatch.setattr(builtins, "__import__", lacking)
    for output in ("b.mp4", "out"):
        assert "pip install 'hdrmerge[video]'" in line_of("a.mkv", "-o", output, "--no-preview")
    assert "pip install 'hdrmerge[video]'" in line_of("in", "-o", "b.mp4")
    result = run("in", "-o", "out", "--method", "reference")
    assert result.stdout == "out\n"
    assert result.stderr.startswith("hdrmerge: warning: no preview; it needs one package more")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(place: Path) -> None:
    Path("closed").mkdir(mode=0o500)
    assert "choose a folder you may write to" in line_of("in", "-o", "closed/out", "--no-preview")


def test_frames_are_the_same_as_those_of_the_library(place: Path) -> None:
    from hdrmerge.video import VideoOptions, reconstruct

    run("in", "-o", "out", "--no-preview", "-q")
    reel, _ = reconstruct("in", "lib", VideoOptions())
    for name in reel.script.names:
        assert Path(f"out/{name}.exr").read_bytes() == Path(f"lib/{name}.exr").read_bytes()
    assert np.isfinite(load(Path("out/001.exr")).pixels).all()
