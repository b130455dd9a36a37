"""expand and bracket as scripts see them: names, exit codes, folders, options."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_photo import Stub, photograph, save
from PIL import Image
from typer.testing import CliRunner, Result

from hdrmerge import cli, expand, networks, weights
from hdrmerge.load import load
from hdrmerge.metadata import read_shot
from hdrmerge.simulate import Camera
from hdrmerge.simulate_files import record_mosaic, write_dng

SIZE = (48, 72)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a JPEG, a TIFF, a DNG of the JPEG's name, a text, and a folder with one photograph."""
    folder = tmp_path_factory.mktemp("photographs")
    sim = photograph(SIZE)
    save(sim, folder / "a.jpg", quality=97)
    save(sim, folder / "b.tif")
    camera = Camera(bits=14)
    write_dng(folder / "a.dng", record_mosaic(sim.truth, camera, 100.0, None), sim.shots[0], camera)
    (folder / "sub").mkdir()
    save(photograph(SIZE, seed=1), folder / "sub" / "c.png")
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture
def folder(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, to be written to; the working directory lies beside it. The network is a stub."""
    shutil.copytree(photographs, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(expand, "_opened", lambda *_: Stub(changed=brighter))
    return tmp_path / "in"


def brighter(codes: np.ndarray, ev: float) -> np.ndarray:
    """Take what clips for 1.6 times as bright."""
    return np.where(codes > 0.999 * 2 ** (ev / 2.2), np.minimum(codes * 1.25, 1), codes)


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def files(place: str = ".") -> set[str]:
    return {str(path.relative_to(place)) for path in Path(place).rglob("*") if path.is_file()}


# --- expand ---------------------------------------------------------------------------------------


def test_expand_prints_the_names_and_what_is_whose(folder: Path) -> None:
    result = run("expand", "in/a.jpg", "-o", "out.exr", "--synthesis-map")
    assert result.stdout == "out.exr\nout.jpg\nout_map.png\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith("hdrmerge: a.jpg: synthesised: ")
    assert line.endswith("; network: stub.onnx (stub 1 cpu fp32)")
    found = load(Path("out.exr"))
    assert found.pixels.max() > 1.1
    assert found.reference.exposure_time == pytest.approx(1 / 60, rel=1e-3)
    with Image.open("out_map.png") as picture:
        values = np.asarray(picture)
    assert values.shape == (*SIZE, 3)
    assert set(np.unique(values)) <= {0, 85, 170, 255}
    share = float(line.split("synthesised: ")[1].split(" %")[0])
    assert 100 * (values[..., 0] > 0).mean() == pytest.approx(share, abs=0.06)
    with Image.open("out.jpg") as picture:
        assert picture.size == SIZE[::-1]


def test_where_the_output_goes(folder: Path) -> None:
    assert run("expand", "in/a.jpg").stdout == "in/a_hdr.exr\nin/a_hdr.jpg\n"
    assert run("expand", "in/b.tif", "-o", "new", "--no-preview").stdout == "new/b_hdr.exr\n"
    for name in ("x.hdr", "y.tif"):
        assert run("expand", "in/b.tif", "-o", name).stdout == f"{name}\n{name[0]}.jpg\n"
    assert run("expand", "in/b.tif", "-o", "new", "--format", "hdr", "-q").stdout == ""
    assert Path("new/b_hdr.hdr").exists()


def test_all_of_a_folder(folder: Path) -> None:
    result = run("expand", "in", "-r", "-o", "out", "--no-preview", "--synthesis-map")
    assert files("out") == {
        f"{name}{end}" for name in ("a_jpg", "a_dng", "b", "sub/c") for end in ("_hdr.exr", "_hdr_map.png")
    }
    assert sorted(result.stdout.splitlines()) == sorted(f"out/{name}" for name in files("out"))
    assert result.stderr.splitlines()[-1] == "hdrmerge: 4 photographs done"
    assert "out/sub" not in run("expand", "in", "-o", "out", "--no-preview", "--force").stdout


def test_what_this_program_made_is_no_photograph_of_a_folder(folder: Path) -> None:
    run("expand", "in", "--format", "tif")
    before = files("in")
    assert {"a_jpg_hdr.tif", "a_dng_hdr.jpg", "b_hdr.tif"} <= before
    run("expand", "in", "--format", "tif", "--force")
    assert files("in") == before


def test_a_bad_photograph_does_not_stop_the_others(folder: Path) -> None:
    whole = Path("in/a.jpg").read_bytes()
    Path("in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("in/empty.png").write_bytes(b"")
    result = run("expand", "in", "-o", "out", "--no-preview", code=1)
    assert files("out") == {"a_jpg_hdr.exr", "a_dng_hdr.exr", "b_hdr.exr"}
    lines = result.stderr.splitlines()
    assert lines[0].startswith("hdrmerge: in/empty.png failed: the file is empty; ")
    assert [line for line in lines if line.startswith("hdrmerge: in/cut.jpg failed: ends early")]
    assert lines[-1] == "hdrmerge: 3 photographs done, 2 failed"


def test_existing_files_are_kept(folder: Path) -> None:
    run("expand", "in/a.jpg", "-o", "out.exr")
    before = Path("out.exr").read_bytes()
    result = run("expand", "in/a.jpg", "-o", "out.exr", code=1)
    assert "out.exr: exists; add --force" in result.stderr
    assert Path("out.exr").read_bytes() == before
    run("expand", "in/a.jpg", "-o", "out.exr", "--force")
    others = run("expand", "in/a.jpg", "in/b.tif", "-o", ".", "--format", "exr")
    assert others.exit_code == 0
    again = run("expand", "in/a.jpg", "in/b.tif", "-o", ".", code=1)
    assert again.stderr.count("exists; add --force") == 2
    own = run("expand", "in/a.jpg", "-o", "in/a.exr", "--force", code=1)
    assert "would replace an input" in own.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "finding"),
    [
        (["in/a.jpg", "in/b.tif", "-o", "x.exr"], 2, "name a folder"),
        (["in", "-o", "x.exr"], 2, "name a folder"),
        (["in/a.jpg", "-o", "x.png"], 2, "this command writes .exr, .hdr, .tif"),
        (["in/a.jpg", "--response", "auto"], 2, "does not tell its curve"),
        (["in/a.jpg", "--response", "kodachrome"], 2, "neither one of"),
        (["in/a.jpg", "--network", "nonsense"], 2, "neither one of"),
        (["in/a.jpg", "--device", "abacus"], 2, "none of auto, cpu"),
        (["in/none.jpg"], 1, "no such file"),
        (["in/notes.txt"], 1, "not a photograph"),
        (["empty"], 1, "holds no photograph"),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], code: int, finding: str) -> None:
    Path("empty").mkdir()
    before = files()
    result = run("expand", *arguments, code=code)
    assert result.stdout == ""
    assert finding in " ".join(result.stderr.replace("│", " ").split())
    assert files() == before


def test_options_have_an_effect(folder: Path) -> None:
    run("expand", "in/b.tif", "-o", "plain.exr")
    plain = load(Path("plain.exr")).pixels
    run("expand", "in/b.tif", "-o", "curve.exr", "--response", "gamma2.2")
    assert np.abs(load(Path("curve.exr")).pixels - plain).max() > 0.005
    run("expand", "in/b.tif", "-o", "none.exr", "--network", "none")
    assert load(Path("none.exr")).pixels.max() == 1
    run("expand", "in/b.tif", "-o", "float.exr", "--float", "--compression", "none", "--operator", "mulaw")
    assert Path("float.exr").stat().st_size > SIZE[0] * SIZE[1] * 12
    assert Path("float.jpg").read_bytes() != Path("plain.jpg").read_bytes()


def test_without_the_network_it_ends_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_opened", lambda name, *_: weights.find(name))
    row = replace(networks.NETWORKS["virtual-bracket"], sha256="")
    monkeypatch.setitem(networks.NETWORKS, "virtual-bracket", row)
    for command in (["expand", folder / "a.jpg"], ["bracket", folder / "a.jpg", "-o", folder / "x"]):
        result = run(*command, code=1)
        assert result.stderr.startswith("hdrmerge: network virtual-bracket: not released yet; ")
        assert result.stderr.count("\n") == 1
    assert not (folder / "x").exists()


# --- bracket --------------------------------------------------------------------------------------


def test_bracket_writes_files_that_merge_takes(folder: Path) -> None:
    result = run("bracket", "in/a.jpg", "--ev", "-2,0,2", "-o", "out")
    names = ["out/a_ev-2.jpg", "out/a_ev+0.jpg", "out/a_ev+2.jpg"]
    assert result.stdout.splitlines() == names
    assert result.stderr == ""
    times = [read_shot(name).exposure_time for name in names]
    assert times == pytest.approx([1 / 240, 1 / 60, 1 / 15], rel=1e-3)
    merged = run("merge", *names, "-o", "merged.exr")
    assert merged.stderr == ""
    assert load(Path("merged.exr")).pixels.max() > 1.05


def test_bracket_over_folders(folder: Path) -> None:
    result = run("bracket", "in", "-r", "-o", "out", "--ev", "-1,0.5", "--format", "tif", "--network", "none")
    stems = ("a_jpg", "a_dng", "b", "sub/c")
    assert files("out") == {f"{stem}_ev{ev}.tif" for stem in stems for ev in ("-1", "+0.5")}
    assert result.stderr.splitlines()[-1] == "hdrmerge: 4 photographs done"


def test_exposures_are_cut_with_a_warning(folder: Path) -> None:
    result = run("bracket", "in", "-o", "out", "--ev", "-6,-4,0")
    assert files("out") == {f"{s}_ev{ev}.jpg" for s in ("a_jpg", "a_dng", "b") for ev in ("-4", "+0")}
    assert result.stderr.count("cut to 4 EV") == 1
    assert result.stderr.count("beyond 2 EV") == 1
    assert run("bracket", "in/b.tif", "-o", "two", "--ev", "-6", "-q").stderr == ""
    for wrong in ("x", "1,,2", "-99"):
        run("bracket", "in/b.tif", "-o", "three", "--ev", wrong, code=2)
    assert "exists; add --force" in run("bracket", "in/b.tif", "-o", "two", "--ev", "-6", code=1).stderr
