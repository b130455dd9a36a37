from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_sets import bracket, write_kalantari, write_plain, write_radiance, write_scenes

from hdrmerge import dataset
from hdrmerge.dataset import linear_reference, moving_object, open_dataset, sharp_view, simulated_case
from hdrmerge.errors import HdrmergeError
from hdrmerge.metadata import read_shot
from hdrmerge.metrics import psnr_linear, psnr_mu
from hdrmerge.simulate import Camera, plan_shots

SMALL = 96, 144


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 96 x 144 px instead of 480 x 720."""
    monkeypatch.setattr(dataset, "SIZE", SMALL)
    monkeypatch.setattr(dataset, "VIEW", (192, 288))


@pytest.fixture
def scenes(ramp: np.ndarray, elsewhere: np.ndarray) -> list[np.ndarray]:
    """Two panoramas."""
    return [scene[:256, :512] for scene in (ramp, elsewhere)]


# --- simulated brackets ---------------------------------------------------------------------------


def test_a_case_depends_on_seed_and_number_alone(
    small: None, scenes: list[np.ndarray], tmp_path: Path
) -> None:
    folder = write_scenes(tmp_path / "scenes", *scenes)
    few, many = open_dataset(folder, 2), open_dataset(folder, 9)
    assert (few.layout, len(many.names), many.names[:2]) == ("scenes", 9, few.names)
    many.case(5)
    first, again = few.case(1), many.case(1)
    files = [case.files(tmp_path / str(i)) for i, case in enumerate((first, again))]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    assert np.array_equal(first.truth, again.truth)
    assert first.about == again.about
    other = open_dataset(folder, 2, seed=1).case(1)
    assert other.about != first.about


def test_brackets_of_so_many_frames_keep_their_numbers(
    small: None, scenes: list[np.ndarray], tmp_path: Path
) -> None:
    folder = write_scenes(tmp_path / "scenes", *scenes)
    every = open_dataset(folder, 12)
    frames = [every.case(number).about["frames"] for number in range(12)]
    assert 2 <= frames.count(3) < 12
    three = open_dataset(folder, 12, frames=3)
    assert three.names == tuple(name for name, n in zip(every.names, frames, strict=True) if n == 3)
    last = three.case(len(three.names) - 1)
    assert (last.name, last.about["frames"]) == (three.names[-1], 3)
    assert np.array_equal(last.truth, every.case(every.names.index(last.name)).truth)
    with pytest.raises(HdrmergeError, match="no bracket of 8 frames"):
        open_dataset(folder, 2, frames=8)


def test_sets_of_so_many_frames(ramp: np.ndarray, tmp_path: Path) -> None:
    write_plain(bracket(ramp), tmp_path / "plain" / "three")
    (tmp_path / "plain" / "three" / "notes.txt").write_text("no frame")
    write_plain(bracket(ramp), tmp_path / "plain" / "two")
    next((tmp_path / "plain" / "two").glob("*.jpg")).unlink()
    assert open_dataset(tmp_path / "plain", frames=3).names == ("three",)
    found = open_dataset(tmp_path / "plain", frames=2)
    assert found.names == (found.case(0).name,) == ("two",)
    write_kalantari(bracket(ramp, curve="gamma2.2"), tmp_path / "paper" / "one")
    assert open_dataset(tmp_path / "paper", frames=3).names == ("one",)
    with pytest.raises(HdrmergeError, match="no bracket of 5 frames"):
        open_dataset(tmp_path / "paper", frames=5)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("raw", [0.0, 1.0])
def test_a_truth_of_one_is_where_the_reference_clips(
    small: None,
    scenes: list[np.ndarray],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    raw: float,
) -> None:
    monkeypatch.setattr(dataset, "RAW", raw)
    monkeypatch.setattr(dataset, "ISO", (100.0, 100.0))
    case = simulated_case(scenes, number)
    paths = case.files(tmp_path)
    assert paths[0].suffix == (".dng" if raw else ".jpg")
    seen, clipped = linear_reference(paths[case.reference], case.curve)
    assert seen.shape == (*SMALL, 3)
    assert np.mean(clipped == case.saturated) > 0.9  # JPEG and demosaicing blur the edge of a mask
    fair = ~case.saturated & ~clipped
    assert np.median(seen[fair] / case.truth[fair]) == pytest.approx(1.0, abs=0.02)
    exposures = [read_shot(path).exposure or 0.0 for path in paths]
    assert exposures == sorted(exposures)
    assert case.peak == pytest.approx(exposures[case.reference] / exposures[0], rel=0.01)
    assert case.moving is not None
    assert case.moving.any() == (case.about["movers"] > 0)


def test_exposures_are_within_their_bounds_and_middle_references_usual() -> None:
    rng = np.random.default_rng(0)
    wide = np.geomspace(2**-20, 2**20, 1200, dtype=np.float32).reshape(30, 40, 1)
    drawn = [dataset._exposures(wide, rng) for _ in range(1500)]
    assert {frames for frames, *_ in drawn} == set(dataset.FRAMES)
    assert all(0.7 <= step <= 4.0 for _, steps, _, _ in drawn for step in steps)
    assert max(sum(steps) for _, steps, _, _ in drawn) <= 12.0
    assert 0.15 < np.mean([len(set(steps)) > 1 for frames, steps, _, _ in drawn if frames > 2]) < 0.35
    of_five = [reference for frames, _, reference, _ in drawn if frames == 5]
    assert np.bincount(of_five)[2] / len(of_five) == pytest.approx(2 / 6, abs=0.08)
    assert 0.3 < np.mean([frames == 3 for frames, *_ in drawn]) < 0.4
    assert 0.02 <= min(share for *_, share in drawn) < max(share for *_, share in drawn) <= 0.2


def test_every_frame_shows_something() -> None:
    rng = np.random.default_rng(0)
    flat = np.geomspace(1.0, 4.0, 1200, dtype=np.float32).reshape(30, 40, 1)
    for _ in range(300):
        _, steps, reference, _ = dataset._exposures(flat, rng)
        assert sum(steps[reference:]) < 2.0  # else all of the two stops in the scene are white


def test_objects_move_by_up_to_100_px_between_frames(scenes: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    shots = plan_shots(SMALL, 5, [1.0, 3.0, 0.7, 4.0], 2, Camera())
    widest = []
    for _ in range(50):
        mover = moving_object(scenes[0], rng, shots, 2)
        widest.append(np.hypot(*np.diff(mover.centre, axis=0).T).max())
        blur = np.hypot(*mover.path.T)
        assert (np.diff(blur) > 0).all()  # the longer the exposure, the more
        assert blur.max() < 2.5 * widest[-1]
    assert 4 <= min(widest) < 10
    assert 60 < max(widest) <= 100


def test_crops_of_panoramas_stay_away_from_the_poles() -> None:
    rows = np.repeat(np.arange(1024, dtype=np.float32)[:, None], 2048, axis=1)
    columns = np.repeat(np.arange(2048, dtype=np.float32)[None], 1024, axis=0)
    panorama, rng = np.dstack([rows, columns, rows]), np.random.default_rng(0)
    crops = [sharp_view(panorama, rng) for _ in range(20)]
    assert {crop.shape for crop in crops} == {(528, 792, 3)}  # native pixels, and a margin for the shake
    assert min(crop[..., 0].min() for crop in crops) >= 102
    assert max(crop[..., 0].max() for crop in crops) <= 921
    assert any((np.diff(crop[0, :, 1]) < 0).any() for crop in crops)  # around the seam
    photograph = panorama[:, :1500]
    assert sharp_view(photograph, rng) is photograph
    assert sharp_view(panorama[:256, :1024], rng).shape == (205, 308, 3)


def test_suns_that_overflowed_are_the_brightest(tmp_path: Path, scenes: list[np.ndarray]) -> None:
    import OpenEXR

    pixels = scenes[0].copy()
    pixels[3, 5] = np.inf, 2.0, 3.0
    pixels[7, 9] = -1.0
    OpenEXR.File({"compression": OpenEXR.NO_COMPRESSION}, {"RGB": pixels}).write(str(tmp_path / "sun.exr"))
    read = dataset.read_scene(tmp_path / "sun.exr")
    assert read[3, 5].tolist() == [1e4] * 3
    assert read[7, 9] == pytest.approx(1e-4)
    assert np.array_equal(read[10:], pixels[10:])


# --- photographs with their truth -----------------------------------------------------------------


@pytest.mark.parametrize("first_ev", [0.0, -2.0])
@pytest.mark.parametrize("place", [".", "one", "PAPER/one"])
def test_kalantari_sets_are_in_the_reference_scale(
    ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path, first_ev: float, place: str
) -> None:
    sim = bracket(ramp, elsewhere, "gamma2.2")
    folder = write_kalantari(sim, tmp_path / "set" / place, first_ev)
    found = open_dataset(tmp_path / "set")
    assert (found.layout, found.names) == ("kalantari", ("set" if place == "." else place,))
    case = found.case(0)
    assert case.files(tmp_path) == [folder / f"{number}.tif" for number in (1, 2, 3)]
    assert (case.reference, case.response, case.moving) == (1, "gamma2.2", None)
    assert case.peak == pytest.approx(4.0)
    assert np.abs(case.truth / sim.truth - 1)[sim.truth > 0.05].max() < 0.02  # RGBE
    assert np.array_equal(case.saturated, sim.saturated)
    # The papers: H = L ^ 2.2 / t in [0, 1] of the shortest frame's t = 1, here t = 4 of the reference.
    codes = sim.frames[1] / 255.0
    result, truth = np.float32(codes**2.2), case.truth
    mu = [np.log1p(5000 * np.clip(x / 4, 0, 1)) / np.log1p(5000) for x in (result, truth)]
    papers = -10 * np.log10(np.mean((mu[0] - mu[1]) ** 2))
    assert psnr_mu(result, truth, peak=case.peak) == pytest.approx(papers, abs=1e-3)
    papers = -10 * np.log10(np.mean((np.clip(result / 4, 0, 1) - np.clip(truth / 4, 0, 1)) ** 2))
    assert psnr_linear(result, truth, peak=case.peak) == pytest.approx(papers, abs=1e-3)


@pytest.mark.parametrize("stated", ["exif", "exposures.txt", "ev.txt"])
@pytest.mark.parametrize("truth", ["truth.exr", "truth.hdr", "truth.tif"])
def test_plain_sets(ramp: np.ndarray, elsewhere: np.ndarray, tmp_path: Path, stated: str, truth: str) -> None:
    sim = bracket(ramp, elsewhere)
    folder = write_plain(sim, tmp_path / "sets" / "one", truth, exif=stated == "exif")
    lines = {"exposures.txt": "1/240\n1/60\n1/15\n", "ev.txt": "-2\n0\n2\n"}
    if stated != "exif":
        (folder / stated).write_text(lines[stated])
    found = open_dataset(tmp_path / "sets")
    assert (found.layout, found.names) == ("plain", ("one",))
    case = found.case(0)
    assert len(case.files(tmp_path)) == 3
    assert (case.reference, case.peak) == (1, pytest.approx(4.0, rel=1e-3))
    assert np.allclose(case.truth, sim.truth, rtol=0.02, atol=0.01)
    assert case.moving is not None
    assert np.array_equal(case.moving, sim.moving)
    assert np.mean(case.saturated == sim.saturated) > 0.95


def test_a_plain_set_needs_no_mask(ramp: np.ndarray, tmp_path: Path) -> None:
    folder = write_plain(bracket(ramp), tmp_path / "one")
    (folder / "moving.png").unlink()
    assert open_dataset(tmp_path).case(0).moving is None


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [
        (lambda one: (one / "3.tif").unlink(), "2 .tif files"),
        (lambda one: (one / "exposure.txt").unlink(), "no exposure.txt"),
        (lambda one: (one / "exposure.txt").write_text("0\n2\n"), "2 numbers for 3 frames"),
        (lambda one: (one / "exposure.txt").write_text("0\n2\nfour\n"), "one number a line"),
        (lambda one: write_radiance(np.ones((4, 6, 3)), one / "more.exr"), None),
        (lambda one: (one / "HDRImg.hdr").write_bytes(b"#?RADIANCE\n"), "ends early"),
    ],
)
def test_spoilt_kalantari_sets_are_named(ramp: np.ndarray, tmp_path: Path, spoil, finding) -> None:
    spoil(write_kalantari(bracket(ramp), tmp_path / "one"))
    found = open_dataset(tmp_path)
    if finding is None:
        found.case(0)
        return
    with pytest.raises(HdrmergeError, match=finding) as error:
        found.case(0)
    assert str(tmp_path / "one") in str(error.value)


def test_spoilt_plain_sets_are_named(ramp: np.ndarray, tmp_path: Path) -> None:
    folder = write_plain(bracket(ramp), tmp_path / "one", exif=False)
    found = open_dataset(tmp_path)
    with pytest.raises(HdrmergeError, match=r"exposures\.txt"):
        found.case(0)
    (folder / "ev.txt").write_text("-2, 0, 2")
    (folder / "truth.exr").unlink()
    write_radiance(np.ones((4, 6, 3)), folder / "truth.exr")
    (folder / "moving.png").unlink()
    with pytest.raises(HdrmergeError, match="6 x 4 px for frames of 144 x 96"):
        found.case(0)


def test_folders_that_are_no_dataset(ramp: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(HdrmergeError, match="is no folder"):
        open_dataset(tmp_path / "absent")
    with pytest.raises(HdrmergeError, match="neither HDR scenes"):
        open_dataset(tmp_path)
    write_plain(bracket(ramp), tmp_path / "one")
    write_kalantari(bracket(ramp), tmp_path / "two")
    with pytest.raises(HdrmergeError, match="two layouts"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path / "one").names == ("one",)
