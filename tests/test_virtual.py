"""Virtual brackets: what each exposure shows, the files, and what other commands make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_photo import SIZE, Stub, photograph, save
from PIL import Image

from hdrmerge import expand
from hdrmerge.errors import OutputError
from hdrmerge.expand import ExpandOptions, expand_photo
from hdrmerge.exposure import srgb_decode, srgb_encode
from hdrmerge.metadata import read_shot
from hdrmerge.pipeline import merge_bracket
from hdrmerge.read import read_frame
from hdrmerge.response import typical
from hdrmerge.simulate import Camera, Simulated
from hdrmerge.simulate_files import record_mosaic, write_dng
from hdrmerge.virtual import SHADOW, limited_evs, virtual_bracket, write_frame

EVS = [-2, -1, 0, 1, 2]


@pytest.fixture(scope="module")
def sim() -> Simulated:
    return photograph()


@pytest.fixture
def photo(sim: Simulated, tmp_path: Path) -> Path:
    return save(sim, tmp_path / "photo.png")


@pytest.fixture
def stub(sim: Simulated, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """An engine that knows the truth and sees half the size."""
    made = Stub(sim.truth)
    monkeypatch.setattr(expand, "_opened", lambda *_: made)
    monkeypatch.setattr(expand, "SMALL_PIXELS", SIZE[0] * SIZE[1] / 4)
    return made


def psnr(codes: Any, truth: Any) -> float:
    return float(-10 * np.log10(np.square(codes / 255 - truth).mean()))


def test_each_exposure_shows_what_it_would_have_seen(sim: Simulated, photo: Path, stub: Stub) -> None:
    frames, warnings = virtual_bracket(photo, EVS)
    assert [frame.ev for frame in frames] == EVS
    assert not warnings
    for frame in frames:
        codes = frame.codes()
        assert codes.dtype == np.uint8
        truth = srgb_encode(np.clip(sim.truth * 2.0**frame.ev, 0, 1))
        assert psnr(codes, truth) > (27 if frame.ev > 1 else 30)  # noise of the shadows grows
    np.testing.assert_array_equal(frames[2].codes(), sim.frames[0])
    clipped_too = srgb_encode(np.minimum(srgb_decode(sim.frames[0] / 255), 1) / 4)
    truth = srgb_encode(np.clip(sim.truth / 4, 0, 1))
    assert psnr(frames[0].codes(), truth) > psnr(clipped_too * 255, truth) + 8


def test_a_shorter_exposure_is_the_expanded_photograph(photo: Path, stub: Stub) -> None:
    radiance, _ = expand_photo(photo)
    frames, _ = virtual_bracket(photo, [-3, -0.5])
    for frame in frames:
        expected = srgb_encode(np.clip(radiance.pixels * np.float32(2.0**frame.ev), 0, 1))
        np.testing.assert_allclose(frame.codes(np.uint16) / 65535, expected, atol=2e-5)


def test_a_longer_exposure_has_what_the_network_adds_in_the_shadows(
    sim: Simulated, photo: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without an addition, or where the photograph tells all, it is arithmetic, exactly."""
    monkeypatch.setattr(expand, "SMALL_PIXELS", SIZE[0] * SIZE[1])
    stub.light = None
    (plain,), _ = virtual_bracket(photo, [1.5])
    light = np.minimum(srgb_decode(sim.frames[0] / 255) * 2**1.5, 1)
    np.testing.assert_allclose(plain.codes(np.uint16) / 65535, srgb_encode(light), atol=2e-5)
    darkened = (sim.frames[0] * 0.08).astype(np.uint8)
    Image.fromarray(darkened).save(photo.with_name("dark.png"))
    stub.changed = lambda codes, ev: np.minimum(codes + 0.1, 1)
    (lifted,), _ = virtual_bracket(photo.with_name("dark.png"), [1.5])
    code = srgb_decode(darkened / 255) ** (1 / 2.2)
    untold = np.maximum(1 - code @ [0.299, 0.587, 0.114] / SHADOW, 0)[..., None]
    expected = (code * 2 ** (1.5 / 2.2) + untold * 0.1) ** 2.2
    assert (untold > 0.2).sum() > 500
    assert (untold == 0).sum() > 500
    off = np.abs(lifted.codes(np.uint16) / 65535 - srgb_encode(expected))
    assert np.quantile(off, 0.99) < 1e-3


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_files_state_what_the_exposure_would_have_taken(
    sim: Simulated, photo: Path, stub: Stub, tmp_path: Path, suffix: str
) -> None:
    frames, _ = virtual_bracket(photo, EVS)
    own = read_shot(photo)
    for frame in frames:
        path = tmp_path / "new" / f"{frame.ev:g}{suffix}"
        write_frame(frame, path)
        shot = read_shot(path)
        assert shot.exposure_time == pytest.approx(1 / 60 * 2.0**frame.ev, rel=1e-5)
        assert shot.upright_size == SIZE[::-1]
        for name in ("iso", "f_number", "camera_make", "camera_model"):
            assert getattr(shot, name) == getattr(own, name)
        assert shot.taken_at is not None
        assert own.taken_at is not None
        assert shot.taken_at == own.taken_at.replace(microsecond=0)
        read = read_frame(shot).linear()
        shown = srgb_decode(frame.codes(np.uint16) / 65535)
        assert np.abs(read - shown).max() < (1e-4 if suffix == ".tif" else 0.2)
        assert np.abs(read - shown).mean() < (1e-5 if suffix == ".tif" else 0.01)
        with pytest.raises(OutputError, match="exists; add --force"):
            write_frame(frame, path)
        write_frame(frame, path, force=True)
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [suffix] * len(frames)
    with pytest.raises(OutputError, match=r"\.jpg or \.tif"):
        write_frame(frames[0], tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_merge_takes_a_virtual_bracket(photo: Path, stub: Stub, tmp_path: Path, suffix: str) -> None:
    frames, _ = virtual_bracket(photo, [-4, -2, 0])
    paths = [tmp_path / f"{frame.ev:g}{suffix}" for frame in frames]
    for frame, path in zip(frames, paths, strict=True):
        write_frame(frame, path)
    merged, report = merge_bracket(paths)
    assert report.reference == 1
    assert all(alignment.used for alignment in report.alignments)
    radiance, _ = expand_photo(photo)
    light = np.minimum(radiance.pixels, 16) / 4  # the reference is EV -2
    lit = light.min(axis=2) > 0.05
    off = np.abs(np.log2(merged.pixels[lit] / light[lit]))
    assert off.mean() < (0.03 if suffix == ".tif" else 0.06)


def test_codes_are_of_the_curve_that_was_named(sim: Simulated, photo: Path, stub: Stub) -> None:
    curve = typical()
    (frame, shorter), _ = virtual_bracket(photo, [0, -1], ExpandOptions(response=curve))
    np.testing.assert_array_equal(frame.codes(), sim.frames[0])
    whole = (sim.frames[0] < 255).all(axis=2)
    half = curve.decode(sim.frames[0])[whole] / 2
    back = curve.decode(shorter.codes())[whole]
    np.testing.assert_allclose(back, half, atol=0.01)


def test_raw_photographs_become_srgb(sim: Simulated, stub: Stub, tmp_path: Path) -> None:
    camera, path = Camera(bits=14), tmp_path / "a.dng"
    write_dng(path, record_mosaic(sim.truth, camera, 100.0, None), sim.shots[0], camera)
    frames, _ = virtual_bracket(path, [-2, 0, 1])
    for frame in frames:
        truth = srgb_encode(np.clip(sim.truth * 2.0**frame.ev, 0, 1))
        assert psnr(frame.codes(), truth) > 30
    write_frame(frames[0], tmp_path / "a.jpg")
    assert read_shot(tmp_path / "a.jpg").exposure_time == pytest.approx(1 / 240, rel=1e-4)


def test_a_photograph_without_a_time_gets_one_and_a_warning(
    sim: Simulated, stub: Stub, tmp_path: Path
) -> None:
    Image.fromarray(sim.frames[0]).save(tmp_path / "bare.png")
    frames, warnings = virtual_bracket(tmp_path / "bare.png", [-1, 0])
    assert [frame.shot.exposure_time for frame in frames] == [1 / 120, 1 / 60]
    assert warnings == [f"{tmp_path / 'bare.png'}: states no exposure time; 1/60 s is written for EV 0"]


def test_longer_exposures_alone_do_not_ask_for_shorter_ones(photo: Path, stub: Stub) -> None:
    virtual_bracket(photo, [0])
    assert not stub.seen
    virtual_bracket(photo, [1, 2])
    assert len(stub.seen) == 2


def test_no_network_is_arithmetic(sim: Simulated, photo: Path) -> None:
    frames, _ = virtual_bracket(photo, [-1, 1], ExpandOptions(network="none"))
    for frame in frames:
        light = np.minimum(srgb_decode(sim.frames[0] / 255) * 2.0**frame.ev, 1)
        np.testing.assert_allclose(frame.codes(np.uint16) / 65535, srgb_encode(light), atol=2e-5)


def test_pictures_are_upright(sim: Simulated, stub: Stub, tmp_path: Path) -> None:
    turned = replace(sim.shots[0], orientation=6)
    path = save(replace(sim, shots=(turned,)), tmp_path / "a.png")
    (frame,), _ = virtual_bracket(path, [0])
    np.testing.assert_array_equal(frame.codes(), np.rot90(sim.frames[0], -1))
    write_frame(frame, tmp_path / "b.tif")
    assert read_shot(tmp_path / "b.tif").orientation == 1


@pytest.mark.parametrize(
    ("asked", "kept", "warnings"),
    [
        ([-2, 0, 2], [-2, 0, 2], 0),
        ([-2.5, 0], [-2.5, 0], 1),
        ([-9, -4, 0.0, -0.0, 5], [-4, 0, 4], 2),
    ],
)
def test_exposures_beyond_what_was_learned(asked: list[float], kept: list[float], warnings: int) -> None:
    evs, said = limited_evs(asked)
    assert evs == kept
    assert [str(ev) for ev in evs if ev == 0] == ["0.0"]
    assert len(said) == warnings
