"""HDR video is judged by the exposure of each frame; the figures are those of what `video` makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_sets import write_sequence
from test_cli_evaluate import run
from test_methods import release
from test_sequences import CYCLES, light

from hdrmerge.alternation import Stated
from hdrmerge.evaluate_video import evaluate_video, fitted, methods_for
from hdrmerge.load import load
from hdrmerge.metrics import psnr_mu
from hdrmerge.video import VideoOptions, reconstruct

NONE = {"coarse": None, "refine": None}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of two exposures that moves by itself, one of three, and one without its frames."""
    folder = tmp_path_factory.mktemp("sets")
    write_sequence(folder / "two", light(8, (64, 96)), CYCLES[2], noise=1e-3)
    write_sequence(folder / "three", light(7, (64, 96)), CYCLES[3], kind="dynamic", noise=1e-3)
    (write_sequence(folder / "spoilt", light(6), CYCLES[2]) / "img_03.tif").unlink()
    return folder


def test_each_method_by_each_exposure(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release(monkeypatch)
    failed: list[str] = []
    found = evaluate_video(sets, NONE, failed=lambda name, _: failed.append(name))
    assert failed == list(found.failures) == ["spoilt"]
    frames = [(frame.scene, frame.frame, frame.exposure) for frame in found.frames]
    assert frames == [
        ("three", "img_03", "low"),
        ("two", "img_02", "low"),
        ("two", "img_03", "high"),
        ("two", "img_04", "low"),
        ("two", "img_05", "high"),
    ]
    rows = found.rows()
    assert list(rows) == ["reference", "merge", "flow"]
    by = {method: rows[method]["psnr_mu"] for method in rows}
    assert all(np.isnan(by[method]["middle"]) for method in rows)
    assert by["flow"]["high"] > by["reference"]["high"] + 6  # what it clipped is there
    assert by["flow"]["all"] > by["reference"]["all"] + 2
    assert rows["flow"]["gain"]["psnr_mu"]["all"] == pytest.approx(by["flow"]["all"] - by["reference"]["all"])
    assert {row["frames"] for row in rows.values()} == {5}


def test_the_figures_are_those_of_the_video(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `reconstruct` writes of the same photographs, in its own scale."""
    release(monkeypatch)
    stills = tmp_path / "stills"
    stills.mkdir()
    for photograph in (sets / "two").glob("*.tif"):
        (stills / photograph.name).write_bytes(photograph.read_bytes())
    names = sorted(path.name for path in stills.iterdir())
    listed = tuple((name, CYCLES[2][n % 2]) for n, name in enumerate(names))
    options = VideoOptions(exposures=Stated(listed=listed), response="gamma2.2", method="flow", float32=True)
    reconstruct(stills, tmp_path / "frames", options)
    judged = {frame.frame: frame for frame in evaluate_video(sets / "two", NONE).frames}
    assert len(judged) == 4
    for name, frame in judged.items():
        made = load(next((tmp_path / "frames").glob(f"*{name}*.exr"))).pixels / 8
        truth = load(sets / "two" / f"{name}.hdr").pixels
        assert frame.scores["flow"]["psnr_mu"] == pytest.approx(psnr_mu(made, truth, peak=1.0), abs=0.02)


def test_networks_are_judged_where_there_are_some(sets: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from made_video_networks import write_pair

    coarse, refine = map(str, write_pair(tmp_path, followed=True))
    rows = evaluate_video(sets / "two", {"coarse": coarse, "refine": refine}, device="cpu").rows()
    assert list(rows) == ["reference", "merge", "flow", "coarse", "network"]
    assert rows["coarse"]["psnr_mu"]["all"] > rows["network"]["psnr_mu"]["all"]  # which adds at random
    result = run("--dataset", sets, "--coarse", coarse, "--device", "cpu", "--json", "-", code=1)
    figures = json.loads(result.stdout)
    assert set(figures["failed"]) == {"spoilt", "three"}
    assert "is for 2 exposures, these frames have 3" in figures["failed"]["three"]
    assert figures["rows"]["coarse"]["frames"] == 4


def test_released_networks_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hdrmerge.evaluate_video.engines", lambda: ["onnxruntime 1"])
    release(monkeypatch)
    assert methods_for(2, NONE) == ["reference", "merge", "flow"]
    assert methods_for(2, {"coarse": "a.onnx"}) == ["reference", "merge", "flow", "coarse"]
    release(monkeypatch, "video-coarse-3", "video-refine-3")
    assert methods_for(3, NONE) == ["reference", "merge", "flow", "coarse", "network"]
    assert methods_for(2, NONE) == ["reference", "merge", "flow"]


def test_a_scale_is_fitted_to_mid_tones() -> None:
    reference = np.random.default_rng(0).uniform(0.0, 1.0, (32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(fitted(reference / 4, reference), reference, rtol=1e-5)
    black = np.zeros_like(reference)
    assert np.array_equal(fitted(black, reference), black)


def test_the_table_of_a_video(sets: Path, tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    result = run("--dataset", sets, "--device", "cpu", "--json", report, code=1)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["PSNR-mu,", "dB", "low", "high", "all", "SSIM-mu", "PU21", "s/MP"]
    assert [line[0] for line in lines[1:4]] == ["reference", "merge", "flow"]
    assert "5 frames of 2 scenes; gains over the reference alone" in result.stdout
    assert "spoilt failed:" in result.stderr
    rows = json.loads(report.read_text())["rows"]
    assert lines[3][1] == f"{rows['flow']['psnr_mu']['low']:.2f}"
    assert rows["flow"]["psnr_mu"]["middle"] is None
    assert "--force" in run("--dataset", sets, "--json", report, code=1).stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--network", "trust"], "is for brackets"),
        (["--frames", 3], "is for brackets"),
        (["--refine", "made.onnx"], "made.onnx"),
        (["--coarse", "none.onnx"], "none.onnx"),
    ],
)
def test_options_that_do_not_fit(sets: Path, options: list[object], says: str) -> None:
    result = run("--dataset", sets, *options, code=1 if ".onnx" in str(options) else 2)
    assert says in " ".join(result.stderr.split())


def test_networks_of_video_are_not_for_brackets(tmp_path: Path) -> None:
    assert "is for HDR video" in run("--dataset", tmp_path, "--coarse", "a.onnx", code=2).stderr
