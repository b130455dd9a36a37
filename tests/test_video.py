"""Footage to HDR frames: what they show, that they resume, and what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clip import alternating, scene, write_clip, write_stills

from hdrmerge import coarsetofine, infer, video
from hdrmerge.alternation import read_stated
from hdrmerge.broadcast import TRANSFERS
from hdrmerge.errors import ExposureError, InputError, NetworkError, OutputError
from hdrmerge.exposure import ev100, mu_law
from hdrmerge.grade import Display
from hdrmerge.methods import METHODS
from hdrmerge.networks import NETWORKS
from hdrmerge.reel import Reel
from hdrmerge.video import (
    NETWORK_PARTS,
    PARTS,
    VideoOptions,
    parts_of,
    reconstruct,
    write_clips,
)

COUNT = 7
SIZE = (64, 96)
RADIANCE = scene(*SIZE)
KNOWN = TRANSFERS[1]  # the curve that footage is made with


def stills(folder: Path, exposures: list[float], move: int = 0, count: int = COUNT) -> Path:
    """Write frames of relative exposures, 1.0 being 1/100 s."""
    times = [exposures[n % len(exposures)] for n in range(count)]
    write_stills(folder, alternating(times, RADIANCE, move), [t / 100 for t in times])
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stills(tmp_path_factory.mktemp("two"), [0.5, 4.0])


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stills(tmp_path_factory.mktemp("three"), [0.5, 2.0, 8.0])


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Path]]:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from made_video_networks import write_pair

    folder = tmp_path_factory.mktemp("networks")
    return {count: write_pair(folder, count) for count in (2, 3)}


def options(method: Any = "flow", pair: tuple[Path, Path] | None = None, **more: Any) -> VideoOptions:
    coarse, refine = map(str, pair) if pair else (None, None)
    chosen = VideoOptions(response=KNOWN, method=method, device="cpu", float32=True, **more)
    return replace(chosen, coarse=coarse, refine=refine)


def pixels(reel: Reel) -> list[np.ndarray]:
    return [frame.pixels for frame in reel.frames()]


def error(frame: np.ndarray, longest: float = 4.0, peak: float = 8.0) -> float:
    """Return the root mean square error of mu-law values, up to where the shortest exposure clips."""
    truth = np.minimum(RADIANCE * longest, peak)
    return float(np.sqrt(np.mean((mu_law(frame / peak) - mu_law(truth / peak)) ** 2)))


# --- what frames show -----------------------------------------------------------------------------


def test_frames_are_radiance_of_which_the_longest_exposure_clips_at_one(two: Path, tmp_path: Path) -> None:
    reel, report = reconstruct(two, tmp_path, options("reference"))
    frames = pixels(reel)
    assert len(frames) == COUNT
    for n, frame in enumerate(frames):
        clip = 1.0 if n % 2 else 8.0
        assert frame.max() == pytest.approx(clip, rel=0.01)
        shown = (RADIANCE * 4 > 0.05) & (0.9 * clip > RADIANCE * 4)
        assert np.median(frame[shown] / (RADIANCE[shown] * 4)) == pytest.approx(1.0, abs=0.02)
    assert reel.script.names[0] == "001"
    assert reel.script.whites == pytest.approx((1.0, 8.0))
    assert report.made == COUNT
    assert report.sentence() == ("7 frames of 2 exposures, -3, 0 EV (stated by the files); method: reference")


@pytest.mark.parametrize("method", ["flow", "merge"])
def test_neighbours_tell_what_a_frame_lost(two: Path, tmp_path: Path, method: str) -> None:
    alone = [error(frame) for frame in pixels(reconstruct(two, tmp_path / "a", options("reference"))[0])]
    merged = [error(frame) for frame in pixels(reconstruct(two, tmp_path / "b", options(method))[0])]
    assert max(merged[1::2]) < 0.3 * min(alone[1::2])  # long exposures lost the lights
    assert max(merged[0::2]) < min(alone[0::2])  # short ones the shadows, to noise
    assert max(merged) < 0.02


def test_three_exposures_and_two_thirds_of_them_clipped(three: Path, tmp_path: Path) -> None:
    alone, flow = (
        [error(frame, 8.0, 16.0) for frame in pixels(reconstruct(three, tmp_path / way, options(way))[0])]
        for way in ("reference", "flow")
    )
    assert all(flow[n] < 0.6 * alone[n] for n in range(COUNT) if n % 3)
    assert max(flow) < 0.02


def test_four_exposures_go_without_a_network(tmp_path: Path) -> None:
    stills(tmp_path / "in", [0.5, 1.0, 2.0, 4.0], count=8)
    reel, report = reconstruct(tmp_path / "in", tmp_path / "out", options(None))
    assert report.method == "flow"
    assert max(error(frame) for frame in pixels(reel)) < 0.02


def test_flow_follows_what_a_camera_shows(tmp_path: Path) -> None:
    stills(tmp_path / "in", [0.5, 4.0], move=2)
    reel, _ = reconstruct(tmp_path / "in", tmp_path / "out", options())
    for n, frame in enumerate(pixels(reel)):
        truth = np.minimum(np.roll(RADIANCE, 2 * n, 1) * 4, 8)[:, 16:-16]
        wrong = mu_law(frame[:, 16:-16] / 8) - mu_law(truth / 8)
        assert float(np.sqrt(np.mean(wrong**2))) < 0.02


def test_an_anchor_makes_one_scale(two: Path, tmp_path: Path) -> None:
    plain = pixels(reconstruct(two, tmp_path / "a", options("reference"))[0])
    anchor = ev100(1 / 50)
    reel, _ = reconstruct(two, tmp_path / "b", options("reference", anchor=anchor))
    for before, after in zip(plain, pixels(reel), strict=True):
        np.testing.assert_allclose(after, before * 0.5, rtol=1e-4, atol=1e-6)  # 1/25 s is twice 1/50 s
    assert reel.script.whites == pytest.approx((0.5, 4.0))


def test_the_files_say_how_they_were_made(two: Path, tmp_path: Path) -> None:
    import OpenEXR

    reconstruct(two, tmp_path, options())
    with OpenEXR.File(str(tmp_path / "002.exr")) as file:
        header = dict(file.header())
    assert header["expTime"] == pytest.approx(1 / 25)
    comments = header["comments"]
    assert comments.startswith("inputs: 001.jpg, 002.jpg, 003.jpg; method=flow response=BT.709 ")
    assert comments.endswith("exposure=+0.00 EV of the longest, exif")


# --- networks -------------------------------------------------------------------------------------


class Counting:
    """An engine that counts its runs and notes the exposures that it is told."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.seen: list[list[float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, inputs: dict[str, np.ndarray], *, last: bool = False) -> Any:
        self.seen.append(inputs["exposures"].ravel().tolist())
        return self._engine.run(inputs, last=last)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """Engines in the order in which they were opened."""
    opened: list[Counting] = []
    open_engine = coarsetofine.open_engine

    def counting(*arguments: Any) -> Counting:
        opened.append(Counting(open_engine(*arguments)))
        return opened[-1]

    monkeypatch.setattr(coarsetofine, "open_engine", counting)
    return opened


def test_coarse_results_are_made_once(
    two: Path, three: Path, tmp_path: Path, pairs: Any, counted: list[Counting]
) -> None:
    _, report = reconstruct(two, tmp_path / "2", options("network", pairs[2]))
    coarse, refine = counted
    assert len(coarse.seen) == len(refine.seen) == COUNT
    assert sorted(coarse.seen) == sorted([[8.0, 1.0, 8.0]] * 4 + [[1.0, 8.0, 1.0]] * 3)
    assert refine.seen[0] == refine.seen[2] == [8, 1, 8]
    assert report.method.startswith("network (coarse2.onnx ")
    assert " + refine2.onnx " in report.method

    reconstruct(three, tmp_path / "3", options("network", pairs[3]))
    coarse, refine = counted[2:]
    assert len(coarse.seen) == len(refine.seen) == COUNT
    orders = {(4, 16, 1, 4, 16), (16, 1, 4, 16, 1), (1, 4, 16, 1, 4)}
    assert {tuple(seen) for seen in coarse.seen} == orders
    assert {tuple(seen) for seen in refine.seen} == {(16, 1, 4), (1, 4, 16), (4, 16, 1)}


def test_methods_differ_and_stay_within_what_was_recorded(two: Path, tmp_path: Path, pairs: Any) -> None:
    both = {
        method: pixels(reconstruct(two, tmp_path / method, options(method, pairs[2]))[0])
        for method in ("coarse", "network")
    }
    for frames in both.values():
        assert all(frame.min() >= 0 and frame.max() <= 8.001 for frame in frames)
    assert np.abs(both["coarse"][3] - both["network"][3]).max() > 0.01


def test_which_method_is_taken(
    two: Path, tmp_path: Path, pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NETWORKS:
        if name.startswith("video-"):
            monkeypatch.setitem(NETWORKS, name, replace(NETWORKS[name], sha256=""))
    assert reconstruct(two, tmp_path / "a", options(None))[1].method == "flow"
    coarse, refine = map(str, pairs[2])
    alone = replace(options(None), coarse=coarse)
    assert reconstruct(two, tmp_path / "b", alone)[1].method.startswith("coarse (coarse2.onnx")
    both = replace(alone, refine=refine)
    assert reconstruct(two, tmp_path / "c", both)[1].method.startswith("network (coarse2.onnx")
    with pytest.raises(
        NetworkError, match=r"no network .* is released yet; .* --coarse, or use --method flow"
    ):
        reconstruct(two, tmp_path / "d", options("network"))
    with pytest.raises(
        NetworkError, match=r"no network .* is released yet; .* --refine, or use --method flow"
    ):
        reconstruct(two, tmp_path / "d", replace(options("network"), coarse=coarse))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(("method", "warned"), [("coarse", True), ("flow", False)])
def test_networks_far_from_what_they_learned_are_warned_of(
    tmp_path: Path, pairs: Any, method: str, warned: bool
) -> None:
    times = [0.5, 32.0] * 2
    write_stills(tmp_path / "in", alternating(times, RADIANCE), [t / 100 for t in times])
    coarse = str(pairs[2][0]) if warned else None
    options = VideoOptions(method=method, coarse=coarse, device="cpu")  # type: ignore[arg-type]
    _, report = reconstruct(tmp_path / "in", tmp_path / "out", options)
    said = [line for line in report.warnings if "EV apart" in line]
    assert len(said) == warned
    assert not warned or "exposures 6.0 EV apart" in said[0]


def test_without_an_engine_frames_are_made_by_flow(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infer, "find_spec", lambda library: None)
    _, report = reconstruct(two, tmp_path / "out", VideoOptions(response=KNOWN))
    assert report.method == "flow"
    assert [
        line for line in report.warnings if 'need onnxruntime or torch; pip install "hdrmerge[cpu]"' in line
    ]


def test_networks_for_other_footage_are_refused(three: Path, tmp_path: Path, pairs: Any) -> None:
    with pytest.raises(NetworkError, match=r"coarse2\.onnx: is for 2 exposures, these frames have 3"):
        reconstruct(three, tmp_path / "out", options("coarse", pairs[2]))
    assert not (tmp_path / "out").exists()


# --- a run that was killed ------------------------------------------------------------------------

KILLED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import test_video as t
from pathlib import Path
pair = tuple(map(Path, sys.argv[4:6])) or None
add = t.Reel.add
def killed(self, number, *arguments, **options):
    if number == 3:
        os.kill(os.getpid(), 9)
    return add(self, number, *arguments, **options)
t.Reel.add = killed
t.reconstruct(Path(sys.argv[2]), Path(sys.argv[3]), t.options("network" if pair else "flow", pair))
"""


@pytest.mark.parametrize("method", ["flow", "network"])
def test_a_run_that_was_killed_goes_on_where_it_was(
    two: Path, tmp_path: Path, pairs: Any, method: str
) -> None:
    pair = pairs[2] if method == "network" else None
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    chosen = options(method, pair)
    reconstruct(two, whole, chosen)
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", KILLED, here, str(two), str(broken), *map(str, pair or ())]
    ran = subprocess.run(command, env=dict(os.environ), check=False)
    assert ran.returncode == -9
    assert len(list(broken.glob("*.exr"))) == 3
    reel, report = reconstruct(two, broken, chosen)
    assert report.made == COUNT - 3
    assert report.sentence().endswith("; 3 lay there already")
    for name in reel.script.names:
        assert (broken / f"{name}.exr").read_bytes() == (whole / f"{name}.exr").read_bytes()
    assert reconstruct(two, broken, chosen)[1].made == 0


def test_frames_of_other_settings_are_kept(two: Path, tmp_path: Path) -> None:
    reconstruct(two, tmp_path, options("reference"))
    for other in (options("merge"), options("reference", anchor=5.0)):
        with pytest.raises(OutputError, match=r"made with .*; add --force"):
            reconstruct(two, tmp_path, other)
    assert reconstruct(two, tmp_path, options("merge"), force=True)[1].made == COUNT


def test_a_hole_is_filled(two: Path, tmp_path: Path, pairs: Any) -> None:
    chosen = options("network", pairs[2])
    before = pixels(reconstruct(two, tmp_path, chosen)[0])
    for name in ("002", "006"):
        (tmp_path / f"{name}.exr").unlink()
    reel, report = reconstruct(two, tmp_path, chosen)
    assert report.made == 2
    for one, other in zip(before, pixels(reel), strict=True):
        np.testing.assert_array_equal(one, other)


# --- clips ----------------------------------------------------------------------------------------


def test_a_clip_with_a_pattern_becomes_clips(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    times = [4.0, 0.5] * 4
    tags = {"colorspace": 1, "color_range": 1, "color_trc": 1}
    path = write_clip(tmp_path / "a.mkv", alternating(times, RADIANCE), tags=tags)
    chosen = replace(options(), exposures=read_stated("1/400,1/50"))
    told: list[tuple[str, float]] = []

    def tell(stage: str, share: float) -> None:
        told.append((stage, share))

    reel, report = reconstruct(path, tmp_path / "reel", chosen, tell)
    assert report.cadence.kinds.tolist() == [1, 0] * 4
    assert reel.script.names[0] == "a_00000"
    assert max(error(frame) for frame in pixels(reel)) < 0.02
    hdr, preview = tmp_path / "hdr.mp4", tmp_path / "sdr.mp4"
    measured = write_clips(reel, preview, hdr, Display(), progress=tell)
    assert measured.brightest > 203
    for name, transfer in ((hdr, 16), (preview, 1)):
        with av.open(str(name)) as container:
            stream = container.streams.video[0]
            assert int(stream.codec_context.color_trc) == transfer
            assert sum(1 for _ in container.decode(stream)) == 8
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == [stage for stage in PARTS if stage != "read"]
    for stage in stages[1:]:
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1


# --- what is refused ------------------------------------------------------------------------------


def test_what_cannot_be_used_is_said_before_anything_is_written(two: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no such file"):
        reconstruct(tmp_path / "nothing.mp4", out, options())
    shutil.copytree(two, tmp_path / "bare")
    write_stills(tmp_path / "bare", alternating([0.5, 4.0] * 3 + [0.5], RADIANCE))
    with pytest.raises(ExposureError, match=r"no absolute exposure to anchor to EV 5; .*--anchor longest"):
        reconstruct(tmp_path / "bare", out, options(anchor=5.0))
    contradicting = replace(options(), exposures=read_stated("1/500,1/100,1/10"))
    with pytest.raises(ExposureError, match="repeats every 2 frames, the pattern of --exposures has 3"):
        reconstruct(two, out, contradicting)
    write_stills(tmp_path / "tiny", alternating([0.5, 4.0], RADIANCE[:8, :8]), [0.005, 0.04])
    with pytest.raises(InputError, match=r"tiny: frames of 8 x 8 px; give some of 16 px"):
        reconstruct(tmp_path / "tiny", out, options())
    assert not out.exists()


def test_stages_are_those_that_are_run() -> None:
    assert list(PARTS) == list(NETWORK_PARTS)
    assert sum(PARTS.values()) == pytest.approx(1)
    assert sum(NETWORK_PARTS.values()) == pytest.approx(1)
    flow, network = options("flow"), options("network")
    assert parts_of(flow, True, True) == PARTS
    assert list(parts_of(flow, False, False)) == ["read", "look", "expose", "frames"]
    assert "measure" in parts_of(flow, True, False)
    assert "encode" not in parts_of(flow, True, False)
    assert parts_of(network, False, True)["frames"] == NETWORK_PARTS["frames"]


def test_many_warnings_of_frames_are_one() -> None:
    lines = ["a: b", "x/1.exr: 3 values", "x/2.exr: 4 values", "x/3.exr: 5 values", "a: b"]
    assert video._fewer(lines) == ["a: b", "x/1.exr: 3 values (2 more frames alike)"]


def test_methods_are_those_of_the_docstring() -> None:
    assert all(f"\n    {method} " in (video.__doc__ or "") for method in METHODS)
