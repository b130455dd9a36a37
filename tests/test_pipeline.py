"""Files in, radiance and a report out."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from hdrmerge import infer, pipeline, weights
from hdrmerge.align import align
from hdrmerge.calibrate import calibrate
from hdrmerge.deghost import deghost, tolerance
from hdrmerge.errors import BracketError, InputError, NetworkError
from hdrmerge.exposure import Response, mu_law
from hdrmerge.form import StatedExposures
from hdrmerge.merge import merge
from hdrmerge.metrics import ev_rms, log_log_slope, psnr_mu
from hdrmerge.networks import NETWORKS
from hdrmerge.pipeline import MergeOptions, load_bracket, merge_bracket, open_network, write_outputs
from hdrmerge.scene import Mover
from hdrmerge.simulate import Camera, Shake, Simulated, homography, simulate_bracket
from hdrmerge.simulate_files import write_dngs, write_jpegs, write_pngs

SIZE = 240, 360

Writer = Callable[[Simulated, Path], list[Path]]


@pytest.fixture(scope="module")
def static(ramp: np.ndarray) -> Simulated:
    return simulate_bracket(ramp, np.random.default_rng(1), size=SIZE)


@pytest.fixture(scope="module")
def handheld(ramp: np.ndarray) -> Simulated:
    matrix = homography(SIZE, rotation=0.5, shift=(20.0, 3.0))
    shake = [matrix, np.eye(3), np.linalg.inv(matrix)]
    return simulate_bracket(ramp, np.random.default_rng(2), size=SIZE, shake=shake)


def recorded(sim: Simulated, clip: float = 0.95) -> np.ndarray:
    """Where the shortest frame is not clipped."""
    return np.asarray(sim.truth.max(axis=-1) * sim.relative_exposures[0] < clip)


# --- radiometry through files ---------------------------------------------------------------------


@pytest.mark.parametrize(("writer", "limit"), [(write_pngs, 0.02), (write_jpegs, 0.045)])
def test_a_static_bracket_gives_the_scene_back(
    static: Simulated, tmp_path: Path, writer: Writer, limit: float
) -> None:
    """In double precision the formula reaches 0.012 EV and, on texture as fine as this in JPEG, 0.042."""
    paths = writer(static, tmp_path)
    radiance, report = merge_bracket(paths)
    assert ev_rms(radiance.pixels, static.truth, recorded(static), scale=False) <= limit
    assert log_log_slope(radiance.pixels, static.truth, recorded(static)) == pytest.approx(1.0, abs=0.01)
    assert max(report.ghost_shares) < 0.005
    assert all(alignment.is_identity for alignment in report.alignments)


def test_a_shaken_bracket_gives_the_scene_back(handheld: Simulated, tmp_path: Path) -> None:
    radiance, report = merge_bracket(write_jpegs(handheld, tmp_path))
    judged = recorded(handheld) & radiance.valid
    assert judged.mean() > 0.9
    assert ev_rms(radiance.pixels, handheld.truth, judged) <= 0.06
    assert log_log_slope(radiance.pixels, handheld.truth, judged) == pytest.approx(1.0, abs=0.01)
    assert all(alignment.used for alignment in report.alignments)


def smooth_scene() -> np.ndarray:
    """Colours that change slowly, so that demosaicing has nothing to guess."""
    rng = np.random.default_rng(3)
    log = cv2.resize(
        rng.normal(0, 1.0, (6, 8, 3)).astype(np.float32), (720, 480), interpolation=cv2.INTER_CUBIC
    )
    log = 0.4 * log + 2.0 * log.mean(axis=2, keepdims=True) + np.linspace(-2, 2, 720)[None, :, None]
    return np.exp2(log).astype(np.float32)


@pytest.mark.parametrize("top", [None, 0.80, 0.90, 0.99])
def test_a_raw_bracket_gives_the_scene_back(tmp_path: Path, top: float | None) -> None:
    """Also when the shortest frame's maximum lies at 80 to 99 % of white."""
    scene = smooth_scene()
    share = 0.05
    if top is not None:  # choose the exposure that puts the brightest pixel at ``top`` two stops down
        views = simulate_bracket(scene, np.random.default_rng(4), size=SIZE).views[1].max(axis=-1)
        share = max(float(np.mean(views >= views.max() / (4 * top))), 1e-6)
    sim = simulate_bracket(scene, np.random.default_rng(4), size=SIZE, saturated_share=share)
    radiance, report = merge_bracket(write_dngs(sim, tmp_path, np.random.default_rng(5)))
    inner = recorded(sim) & (sim.truth.min(axis=-1) > 0.02)  # below, noise has the say
    inner[:4] = inner[-4:] = inner[:, :4] = inner[:, -4:] = False  # demosaicing guesses at the border
    assert inner.mean() > 0.6
    assert ev_rms(radiance.pixels, sim.truth, inner) <= 0.02
    assert log_log_slope(radiance.pixels, sim.truth, inner) == pytest.approx(1.0, abs=0.005)
    assert max(report.ghost_shares) < 0.005


def test_frames_of_different_iso_and_aperture_agree(static: Simulated, tmp_path: Path) -> None:
    """The same exposures reached with other means merge to the same radiance."""
    first, middle, last = static.shots
    shots = (
        replace(first, exposure_time=(first.exposure_time or 0) * 4, f_number=(first.f_number or 0) * 2),
        middle,
        replace(last, exposure_time=(last.exposure_time or 0) / 2, iso=200.0),
    )
    radiance, report = merge_bracket(write_pngs(replace(static, shots=shots), tmp_path))
    frames = report.to_json()["frames"]
    assert [frame["relative_ev"] for frame in frames] == pytest.approx([-2, 0, 2], abs=0.01)
    assert ev_rms(radiance.pixels, static.truth, recorded(static), scale=False) <= 0.03


# --- what moved -----------------------------------------------------------------------------------


def walker(scene: np.ndarray, gain: float, centres: Sequence[tuple[float, float]]) -> Mover:
    samples = 120
    y, x = np.mgrid[0:samples, 0:samples] - (samples - 1) / 2
    alpha = np.clip((samples / 2 - 2 - np.hypot(x, y)) / 3, 0, 1).astype(np.float32)
    radiance = scene[100 : 100 + samples, 100 : 100 + samples] * np.float32(gain)
    return Mover(radiance, alpha, np.array(centres, np.float64), np.zeros((len(centres), 2)))


@pytest.fixture(scope="module")
def street(ramp: np.ndarray, elsewhere: np.ndarray) -> Simulated:
    """Hand-held; two objects, one brighter, one darker than what they pass, move by half their size."""
    movers = [
        walker(elsewhere, 0.25, [(80, 90), (110, 95), (140, 100)]),
        walker(elsewhere, 0.02, [(240, 160), (215, 165), (190, 170)]),
    ]
    shake = Shake(rotation=0.2, shift=3.0)
    return simulate_bracket(ramp, np.random.default_rng(6), size=SIZE, movers=movers, shake=shake)


def test_the_moment_of_the_reference_is_kept(street: Simulated, tmp_path: Path) -> None:
    paths = write_jpegs(street, tmp_path)
    clean, report = merge_bracket(paths)
    plain, _ = merge_bracket(paths, MergeOptions(deghost="none"))
    moving = psnr_mu(clean.pixels, street.truth, street.moving)
    assert moving >= psnr_mu(plain.pixels, street.truth, street.moving) + 6
    whole = psnr_mu(clean.pixels, street.truth)
    assert whole >= psnr_mu(plain.pixels, street.truth) + 5
    alone = np.minimum(street.camera.decode(street.frames[1]), 1.0)
    assert whole >= psnr_mu(alone, street.truth) + 3
    assert report.ghost_shares[1] == 0.0
    assert report.ghost_shares[0] > 0.02
    assert report.ghost_shares[2] > 0.02


def test_another_reference_keeps_another_moment(street: Simulated, tmp_path: Path) -> None:
    """With the first frame as reference the objects are where the first frame saw them."""
    radiance, report = merge_bracket(write_pngs(street, tmp_path), MergeOptions(reference="0"))
    assert report.reference == 0
    truth = street.views[0] * np.float32(street.relative_exposures[0])
    there = cv2.warpPerspective(
        street.moving.astype(np.uint8),
        np.linalg.inv(street.homographies[0]),
        SIZE[::-1],
        flags=cv2.WARP_INVERSE_MAP,
    )
    assert psnr_mu(radiance.pixels, truth, there > 0) >= 36


# --- networks -------------------------------------------------------------------------------------


@pytest.fixture
def released(network_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default network is the random one, and the default is what users get; return its name."""
    digest = hashlib.sha256(network_file.read_bytes()).hexdigest()
    row = replace(NETWORKS[pipeline.DEFAULT_NETWORK], file=network_file.name, sha256=digest)
    monkeypatch.setitem(NETWORKS, row.name, row)
    monkeypatch.setattr(weights, "FOLDERS", (network_file.parent,))
    monkeypatch.setattr(pipeline, "open_network", open_network)
    pipeline._opened.cache_clear()
    return row.name


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "find_spec", lambda library: None)
    pipeline._opened.cache_clear()


def with_engine() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")


def test_no_network_is_the_classical_merge(street: Simulated, tmp_path: Path) -> None:
    """Bit by bit what the stages give one by one."""
    paths = write_jpegs(street, tmp_path)
    radiance, report = merge_bracket(paths, MergeOptions(network="none"))
    loaded = load_bracket(paths)
    alignments = align(loaded.proxies, loaded.bracket.reference)
    found = calibrate(loaded.bracket, loaded.proxies, alignments)
    bracket = found.bracket
    exposures, noises = zip(*((frame.exposure, tolerance(frame)) for frame in bracket.frames), strict=True)
    ghosts = deghost(found.proxies, exposures, noises, found.alignments, bracket.reference)
    pixels, valid = merge(bracket, found.alignments, ghosts)
    np.testing.assert_array_equal(radiance.pixels, pixels)
    np.testing.assert_array_equal(radiance.valid, valid)
    assert report.network == report.to_json()["network"] == "none"
    assert "network=none" in radiance.settings


def test_without_an_engine_the_default_is_done_without(
    street: Simulated, tmp_path: Path, released: str, without_engine: None
) -> None:
    paths = write_jpegs(street, tmp_path)
    classical, _ = merge_bracket(paths, MergeOptions(network="none"))
    radiance, report = merge_bracket(paths)
    (warning,) = report.warnings
    assert 'pip install "hdrmerge[cpu]"' in warning
    assert "\n" not in warning
    assert report.network == "none"
    assert "network=none" in radiance.settings
    np.testing.assert_array_equal(radiance.pixels, classical.pixels)


def test_without_an_engine_a_network_asked_for_is_an_error(
    static: Simulated, tmp_path: Path, network_file: Path, released: str, without_engine: None
) -> None:
    paths = write_jpegs(static, tmp_path)
    for network in (released, str(network_file)):
        with pytest.raises(NetworkError, match=r'pip install "hdrmerge\[cpu\]"') as caught:
            merge_bracket(paths, MergeOptions(network=network))
        assert "\n" not in str(caught.value)


def test_a_damaged_default_is_an_error(
    static: Simulated, tmp_path: Path, released: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an engine at hand, silence would hide that every merge is worse than it could be."""
    with_engine()
    monkeypatch.setitem(NETWORKS, released, replace(NETWORKS[released], sha256="0" * 64))
    with pytest.raises(NetworkError, match="SHA-256"):
        merge_bracket(write_jpegs(static, tmp_path))


def test_the_default_network_judges(street: Simulated, tmp_path: Path, released: str) -> None:
    with_engine()
    paths = write_jpegs(street, tmp_path)
    radiance, report = merge_bracket(paths, MergeOptions(device="cpu"))
    named, _ = merge_bracket(paths, MergeOptions(network=released, device="cpu"))
    assert report.network.startswith(f"{released}: onnxruntime ")
    assert report.network.endswith(" cpu fp32")
    assert report.to_json()["network"] == report.network
    assert f"network={released}" in radiance.settings
    assert report.warnings == []
    np.testing.assert_array_equal(named.pixels, radiance.pixels)
    classical, _ = merge_bracket(paths, MergeOptions(network="none"))
    assert not np.array_equal(radiance.pixels, classical.pixels)
    far = cv2.dilate(street.moving.astype(np.uint8), np.ones((81, 81), np.uint8)) == 0
    far &= (street.truth.max(axis=-1) < 0.7) & classical.valid
    far[:20] = far[-20:] = far[:, :20] = far[:, -20:] = False  # where frames end both trust them less
    assert far.mean() > 0.1
    np.testing.assert_allclose(radiance.pixels[far], classical.pixels[far], rtol=1e-3)


def test_a_network_from_a_file(street: Simulated, tmp_path: Path, network_file: Path) -> None:
    """Its name is in the report, and in the header of the result; progress goes on through its tiles."""
    with_engine()
    told: list[tuple[str, float]] = []
    options = MergeOptions(network=str(network_file), device="cpu")
    radiance, report = merge_bracket(
        write_jpegs(street, tmp_path), options, lambda stage, share: told.append((stage, share))
    )
    assert report.network.startswith(f"{network_file}: onnxruntime ")
    shares = [share for stage, share in told if stage == "deghost"]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert shares == sorted(shares)
    assert len(shares) > 2
    write_outputs(radiance, tmp_path / "out.exr")
    with OpenEXR.File(str(tmp_path / "out.exr")) as file:
        assert f"network={network_file}" in file.header()["comments"]


def test_a_network_has_no_say_where_ghosts_are_let_be(static: Simulated, tmp_path: Path) -> None:
    options = MergeOptions(deghost="none", network="missing.onnx")
    radiance, report = merge_bracket(write_jpegs(static, tmp_path), options)
    assert report.network == "none"
    assert "network=none" in radiance.settings
    with pytest.raises(NetworkError, match=r"missing\.onnx"):
        merge_bracket(write_jpegs(static, tmp_path), replace(options, deghost="auto"))


def test_a_network_paints_where_frames_disagree(
    street: Simulated, tmp_path: Path, loud_painter_file: Path
) -> None:
    """Its stage and what it did are in the report; far from what moves the merge is the classical one."""
    with_engine()
    told: list[tuple[str, float]] = []
    options = MergeOptions(network=str(loud_painter_file), device="cpu")
    paths = write_jpegs(street, tmp_path)
    radiance, report = merge_bracket(paths, options, lambda *step: told.append(step))
    assert list(report.seconds) == ["read", "align", "calibrate", "deghost", "merge", "fuse"]
    shares = [share for stage, share in told if stage == "fuse"]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    painted = json.loads(json.dumps(report.to_json()))["painted"]
    assert painted["files"] == [str(path) for path in paths]
    assert painted["limit"] == pytest.approx(4.0, rel=0.02)
    assert 0.02 < painted["share"] < 0.9
    assert report.network.startswith(f"{loud_painter_file}: onnxruntime ")
    assert "everywhere" not in radiance.settings
    classical, without = merge_bracket(paths, MergeOptions(network="none"))
    assert "painted" not in without.to_json()
    assert not np.array_equal(radiance.pixels, classical.pixels)
    far = cv2.dilate(street.moving.astype(np.uint8), np.ones((81, 81), np.uint8)) == 0
    far[:20] = far[-20:] = far[:, :20] = far[:, -20:] = False
    assert far.mean() > 0.1
    np.testing.assert_array_equal(radiance.pixels[far], classical.pixels[far])
    whole, report = merge_bracket(paths, replace(options, everywhere=True))
    assert report.painted is not None
    assert report.painted.share > 0.9
    assert "network=" in whole.settings
    assert whole.settings.endswith(" everywhere")
    assert not np.array_equal(whole.pixels[far], classical.pixels[far])


def test_one_network_judges_and_another_paints_over_its_merge(
    street: Simulated, tmp_path: Path, network_file: Path, painter_file: Path, loud_painter_file: Path
) -> None:
    """A painter that adds nothing leaves what the judge says; a loud one changes that, where both may."""
    with_engine()
    paths = write_jpegs(street, tmp_path)
    judged, _ = merge_bracket(paths, MergeOptions(network=str(network_file), device="cpu"))
    quiet = MergeOptions(network=f"{network_file}+{painter_file}", device="cpu")
    radiance, report = merge_bracket(paths, quiet)
    assert report.network.startswith(f"{quiet.network}: onnxruntime ")
    assert list(report.seconds)[-2:] == ["merge", "fuse"]
    np.testing.assert_allclose(mu_law(radiance.pixels), mu_law(judged.pixels), atol=1e-6)
    loud, _ = merge_bracket(paths, replace(quiet, network=f"{loud_painter_file}+{network_file}"))
    changed = np.abs(mu_law(loud.pixels) - mu_law(judged.pixels)).max(axis=-1) > 1e-3
    assert changed.mean() > 0.01  # objects are small
    far = cv2.dilate(street.moving.astype(np.uint8), np.ones((81, 81), np.uint8)) == 0
    far[:20] = far[-20:] = far[:, :20] = far[:, -20:] = False
    np.testing.assert_array_equal(loud.pixels[far], judged.pixels[far])


@pytest.mark.parametrize("which", [(0, 0), (1, 1)])
def test_two_networks_of_one_kind_are_refused(
    network_file: Path, painter_file: Path, which: tuple[int, int]
) -> None:
    with_engine()
    files = network_file, painter_file
    with pytest.raises(NetworkError, match="name one that judges and one that paints") as caught:
        open_network(MergeOptions(network="+".join(str(files[i]) for i in which), device="cpu"))
    assert "\n" not in str(caught.value)


def test_an_anchor_scales_what_was_painted_too(street: Simulated, tmp_path: Path, painter_file: Path) -> None:
    with_engine()
    paths = write_jpegs(street, tmp_path)
    options = MergeOptions(network=str(painter_file), device="cpu", everywhere=True)
    plain, _ = merge_bracket(paths, options)
    anchored, report = merge_bracket(paths, replace(options, anchor=8.0))
    factor = 2.0**-8.0 / (report.shots[report.reference].exposure or math.nan)
    np.testing.assert_allclose(anchored.pixels, plain.pixels * np.float32(factor), rtol=1e-5)


def test_painting_everywhere_needs_a_network_that_paints(
    static: Simulated, tmp_path: Path, network_file: Path, painter_file: Path, released: str
) -> None:
    with_engine()
    paths = write_jpegs(static, tmp_path)
    for options in (
        MergeOptions(network=str(network_file), device="cpu"),
        MergeOptions(device="cpu"),
        MergeOptions(network="none"),
        MergeOptions(network=str(painter_file), deghost="none"),
    ):
        with pytest.raises(NetworkError, match="--everywhere") as caught:
            merge_bracket(paths, replace(options, everywhere=True))
        assert "\n" not in str(caught.value)


def test_a_network_of_no_known_use_is_refused(tmp_path: Path) -> None:
    with_engine()
    pytest.importorskip("onnx")
    import tiny_network

    path = tiny_network.save(tmp_path / "tiny.onnx")
    with pytest.raises(NetworkError, match=r"tiny\.onnx: .*'tiny'; update hdrmerge") as caught:
        open_network(MergeOptions(network=str(path), device="cpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(37, 53), (1, 40), (2, 2)])
def test_a_painter_on_small_and_odd_sizes(
    ramp: np.ndarray, tmp_path: Path, painter_file: Path, size: tuple[int, int]
) -> None:
    with_engine()
    sim = simulate_bracket(ramp, np.random.default_rng(9), size=size, frames=4)
    options = MergeOptions(network=str(painter_file), device="cpu", everywhere=True)
    radiance, _ = merge_bracket(write_pngs(sim, tmp_path), options)
    assert radiance.pixels.shape == (*size, 3)
    assert np.isfinite(radiance.pixels).all()


@pytest.mark.parametrize("size", [(37, 53), (1, 40), (2, 2)])
def test_a_network_on_small_and_odd_sizes(
    ramp: np.ndarray, tmp_path: Path, network_file: Path, size: tuple[int, int]
) -> None:
    with_engine()
    sim = simulate_bracket(ramp, np.random.default_rng(9), size=size, frames=4)
    options = MergeOptions(network=str(network_file), device="cpu")
    radiance, _ = merge_bracket(write_pngs(sim, tmp_path), options)
    assert radiance.pixels.shape == (*size, 3)
    assert np.isfinite(radiance.pixels).all()


def ghost_map_of(sim: Simulated, folder: Path, options: MergeOptions) -> np.ndarray:
    """Merge, and read the picture of distrust back."""
    radiance, _ = merge_bracket(write_pngs(sim, folder), options)
    write_outputs(radiance, folder / "out.exr", ghost_map=folder / "ghosts.png")
    with Image.open(folder / "ghosts.png") as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("learned", [False, True])
def test_the_ghost_map_is_black_where_nothing_moved(
    static: Simulated, tmp_path: Path, learned: bool, request: pytest.FixtureRequest
) -> None:
    if learned:
        with_engine()
    network = str(request.getfixturevalue("network_file")) if learned else "none"
    ghosts = ghost_map_of(static, tmp_path, MergeOptions(network=network, device="cpu"))
    assert ghosts.shape == (*SIZE, 3)
    assert not ghosts.any()


@pytest.mark.parametrize("shrunk", [False, True])
def test_the_ghost_map_is_white_where_something_moved(
    street: Simulated, tmp_path: Path, shrunk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shrunk:
        monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", SIZE[0] * SIZE[1] / 4)
    ghosts = ghost_map_of(street, tmp_path, MergeOptions(network="none"))
    assert ghosts.shape == (*SIZE, 3)
    assert (ghosts[..., :1] == ghosts).all()
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    in_reference = np.hypot(x - 110, y - 95) < 25  # where the first walker stands: both others differ
    assert np.median(ghosts[in_reference]) > 200
    far = cv2.dilate(street.moving.astype(np.uint8), np.ones((61, 61), np.uint8)) == 0
    far[:12] = far[-12:] = far[:, :12] = far[:, -12:] = False
    assert ghosts[far].mean() < 2


def test_no_ghost_map_without_ghosts(static: Simulated, tmp_path: Path) -> None:
    """With ghosts let be, all frames are trusted throughout."""
    assert not ghost_map_of(static, tmp_path, MergeOptions(deghost="none")).any()


# --- hot pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", [write_pngs, write_jpegs])
def test_a_hot_pixel_of_a_long_exposure_is_gone(static: Simulated, tmp_path: Path, writer: Writer) -> None:
    shots = tuple(replace(shot, exposure_time=(shot.exposure_time or 0.0) * 16) for shot in static.shots)
    assert (shots[2].exposure_time or 0.0) >= 0.5
    calm, _ = merge_bracket(writer(replace(static, shots=shots), tmp_path / "calm"))
    code = static.frames[2].copy()
    around_max = cv2.dilate(code, np.ones((3, 3), np.uint8)).max(axis=-1)
    dim = np.argwhere(around_max[2:-2, 2:-2] < 130) + 2  # far below white in the longest frame
    spots = dim[np.linspace(0, len(dim) - 1, 5).astype(int)]
    for y, x in spots:
        code[y, x] = 255
    hot = replace(static, shots=shots, frames=(*static.frames[:2], code))
    radiance, _ = merge_bracket(writer(hot, tmp_path / "hot"))
    for y, x in spots:
        around = np.s_[y - 1 : y + 2, x - 1 : x + 2]
        np.testing.assert_allclose(radiance.pixels[around], calm.pixels[around], rtol=0.5)
        assert radiance.pixels[around].max() <= 1.4 * calm.pixels[around].max()


# --- the report -----------------------------------------------------------------------------------


def test_the_report_says_what_happened(handheld: Simulated, tmp_path: Path) -> None:
    paths = write_jpegs(handheld, tmp_path)
    radiance, report = merge_bracket([paths[2], paths[0], paths[1]])
    told = json.loads(json.dumps(report.to_json()))
    assert told["reference"] == str(paths[1])
    assert [frame["file"] for frame in told["frames"]] == [str(path) for path in paths]
    assert [frame["relative_ev"] for frame in told["frames"]] == pytest.approx([-2, 0, 2], abs=0.01)
    assert [frame["exposure_time"] for frame in told["frames"]] == pytest.approx(
        handheld.exposure_times, rel=1e-3
    )
    assert {frame["exposure_source"] for frame in told["frames"]} == {"exif"}
    assert {(frame["iso"], frame["f_number"]) for frame in told["frames"]} == {(100.0, 8.0)}
    assert [frame["used"] for frame in told["frames"]] == [True] * 3
    first, middle, last = (frame["alignment"] for frame in told["frames"])
    assert middle == {
        "model": "none",
        "inliers": 0,
        "residual_px": None,
        "matrix": np.eye(3).tolist(),
        "note": "",
    }
    for verdict, index in ((first, 0), (last, 2)):
        assert verdict["model"] in ("similarity", "homography")
        assert verdict["inliers"] >= 30
        assert 0 < verdict["residual_px"] < 1
        corners = np.array([[[0.0, 0.0], [359.0, 0.0], [0.0, 239.0], [359.0, 239.0]]])
        found = cv2.perspectiveTransform(corners, np.array(verdict["matrix"]))
        true = cv2.perspectiveTransform(corners, handheld.homographies[index])
        assert np.abs(found - true).max() < 1.5
    assert 0 <= told["clipped_share"] < 0.05
    assert told["clipped_share"] == pytest.approx(1 - float(radiance.valid.mean()), abs=1e-6)
    assert list(told["seconds"]) == ["read", "align", "calibrate", "deghost", "merge"]
    assert told["warnings"] == []
    assert radiance.reference.path == paths[1]
    assert [shot.path for shot in radiance.inputs] == paths
    assert "align=homography" in radiance.settings


def test_a_frame_of_something_else_is_left_out_and_said(
    static: Simulated, elsewhere: np.ndarray, tmp_path: Path
) -> None:
    other = simulate_bracket(elsewhere, np.random.default_rng(7), size=SIZE)
    mixed = replace(static, frames=(other.frames[0], *static.frames[1:]))
    radiance, report = merge_bracket(write_jpegs(mixed, tmp_path))
    told = report.to_json()
    assert [frame["used"] for frame in told["frames"]] == [False, True, True]
    (warning,) = told["warnings"]
    assert "IMG_0001.jpg" in warning
    assert "left out" in warning
    assert ev_rms(radiance.pixels, static.truth, radiance.valid, scale=False) <= 0.05


def test_exposures_by_hand_win_over_the_file(static: Simulated, tmp_path: Path) -> None:
    paths = write_pngs(static, tmp_path)
    options = MergeOptions(exposures=StatedExposures(ev=(-3.0, 0.0, 3.0)))
    _, report = merge_bracket(paths, options)
    frames = report.to_json()["frames"]
    assert [frame["relative_ev"] for frame in frames] == pytest.approx([-3, 0, 3])
    assert {frame["exposure_source"] for frame in frames} == {"ev"}


def test_files_without_exif_merge_by_hand(static: Simulated, tmp_path: Path) -> None:
    paths = []
    for number, codes in enumerate(static.frames):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(codes).save(paths[-1])
    radiance, _ = merge_bracket(paths, MergeOptions(exposures=StatedExposures(ev_step=2.0)))
    assert ev_rms(radiance.pixels, static.truth, recorded(static), scale=False) <= 0.03


def test_the_curve_can_be_stated(ramp: np.ndarray, tmp_path: Path) -> None:
    camera = Camera(response=Response.named("gamma2.2"))
    sim = simulate_bracket(ramp, np.random.default_rng(8), size=SIZE, camera=camera)
    paths = write_pngs(sim, tmp_path)
    radiance, _ = merge_bracket(paths, MergeOptions(response="gamma2.2"))
    assert log_log_slope(radiance.pixels, sim.truth, recorded(sim)) == pytest.approx(1.0, abs=0.002)
    wrong, _ = merge_bracket(paths, MergeOptions(response="srgb"))
    seen = recorded(sim)[..., None] & (sim.truth > 0.2) & (sim.truth < 0.5)
    off = [abs(float(np.median(np.log2(r.pixels[seen] / sim.truth[seen])))) for r in (radiance, wrong)]
    assert off[0] < 0.002
    assert off[1] > 0.015


def test_progress_runs_through_the_stages(static: Simulated, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    merge_bracket(write_pngs(static, tmp_path), progress=lambda stage, share: told.append((stage, share)))
    assert [stage for stage, _ in itertools.groupby(told, key=lambda entry: entry[0])] == [
        "read",
        "align",
        "calibrate",
        "deghost",
        "merge",
    ]
    for stage in ("read", "align", "calibrate", "deghost", "merge"):
        shares = [share for name, share in told if name == stage]
        assert shares[0] == 0.0
        assert shares[-1] == pytest.approx(1.0)
        assert shares == sorted(shares)


# --- what must not matter -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0)])
def test_the_order_of_the_files_does_not_matter(
    handheld: Simulated, tmp_path: Path, order: tuple[int, ...]
) -> None:
    paths = write_jpegs(handheld, tmp_path)
    radiance, _ = merge_bracket(paths)
    again, _ = merge_bracket([paths[index] for index in order])
    np.testing.assert_array_equal(again.pixels, radiance.pixels)
    np.testing.assert_array_equal(again.valid, radiance.valid)


def test_frames_on_disk_give_the_same_as_in_memory(
    handheld: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_jpegs(handheld, tmp_path)
    radiance, _ = merge_bracket(paths)
    monkeypatch.setattr("hdrmerge.pipeline.SPOOL_BEYOND", 0)
    spooled, _ = merge_bracket(paths)
    np.testing.assert_array_equal(spooled.pixels, radiance.pixels)
    np.testing.assert_array_equal(spooled.valid, radiance.valid)


def test_orientation_turns_the_result(static: Simulated, tmp_path: Path) -> None:
    shots = tuple(replace(shot, orientation=6) for shot in static.shots)
    turned, _ = merge_bracket(write_pngs(replace(static, shots=shots), tmp_path / "turned"))
    upright, _ = merge_bracket(write_pngs(static, tmp_path / "upright"))
    assert turned.pixels.shape == (SIZE[1], SIZE[0], 3)
    mutual = upright.valid & (upright.pixels.min(axis=-1) > 0.01)
    error = np.log2(np.rot90(turned.pixels, 1)[mutual] / upright.pixels[mutual])
    assert np.abs(error).max() < 1e-3


@pytest.mark.parametrize("names", [["a b [1].jpg", "Ärger é.jpg", "日本 (2).jpg"]])
def test_any_file_name(static: Simulated, tmp_path: Path, names: list[str]) -> None:
    paths = [
        path.rename(tmp_path / name) for path, name in zip(write_jpegs(static, tmp_path), names, strict=True)
    ]
    _, report = merge_bracket(paths)
    assert [shot.path.name for shot in report.shots] == names


@pytest.mark.parametrize("size", [(37, 53), (2, 2), (8, 5)])
def test_small_and_odd_sizes(ramp: np.ndarray, tmp_path: Path, size: tuple[int, int]) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(9), size=size)
    radiance, _ = merge_bracket(write_pngs(sim, tmp_path))
    assert radiance.pixels.shape == (*size, 3)
    assert np.isfinite(radiance.pixels).all()
    assert ev_rms(radiance.pixels, sim.truth, recorded(sim), scale=False) <= 0.08


# --- what is refused ------------------------------------------------------------------------------


def test_bad_brackets_are_refused_before_decoding(static: Simulated, tmp_path: Path) -> None:
    paths = write_jpegs(static, tmp_path)
    for wrong, error in (
        (paths[:1], BracketError),
        ([paths[0], paths[0]], BracketError),
        ([paths[0], tmp_path / "missing.jpg"], InputError),
        ([paths[0], tmp_path], InputError),
    ):
        with pytest.raises(error) as caught:
            merge_bracket(wrong)
        assert "\n" not in str(caught.value)


def test_a_truncated_frame_is_an_error(static: Simulated, tmp_path: Path) -> None:
    paths = write_jpegs(static, tmp_path)
    data = paths[2].read_bytes()
    paths[2].write_bytes(data[: int(len(data) * 0.7)])
    with pytest.raises(InputError, match=r"IMG_0003\.jpg") as caught:
        merge_bracket(paths)
    assert "\n" not in str(caught.value)


def test_mixed_sizes_are_refused(static: Simulated, ramp: np.ndarray, tmp_path: Path) -> None:
    paths = write_jpegs(static, tmp_path)
    with Image.open(paths[1]) as picture:
        exif = picture.getexif()
        picture.resize((180, 120)).save(paths[1], exif=exif)
    with pytest.raises(BracketError, match=r"IMG_0002\.jpg: 180 x 120"):
        merge_bracket(paths)
