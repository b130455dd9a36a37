"""One photograph expanded: what was recorded stays, what was clipped is the network's, and colours hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_photo import SIZE, Stub, photograph, save
from PIL import Image

from hdrmerge import expand
from hdrmerge.bracket import RadianceMap
from hdrmerge.errors import InputError, NetworkError
from hdrmerge.expand import ExpandOptions, Expansion, expand_photo, open_expander
from hdrmerge.exposure import srgb_decode
from hdrmerge.highlights import encoded
from hdrmerge.load import load
from hdrmerge.metadata import read_shot
from hdrmerge.read import read_frame
from hdrmerge.response import typical
from hdrmerge.simulate import Camera, Simulated
from hdrmerge.simulate_files import AS_SHOT_NEUTRAL, record_mosaic, write_dng
from hdrmerge.write import write

NONE = ExpandOptions(network="none")


@pytest.fixture(scope="module")
def sim() -> Simulated:
    return photograph()


@pytest.fixture
def photo(sim: Simulated, tmp_path: Path) -> Path:
    return save(sim, tmp_path / "photo.png")


def expanded(
    path: Path, engine: Any, monkeypatch: pytest.MonkeyPatch, block: int = 1
) -> tuple[RadianceMap, Expansion]:
    """Expand with a stub for an engine; the network sees averages of blocks of a size."""
    monkeypatch.setattr(expand, "_opened", lambda *_: engine)
    with Image.open(path) if path.suffix != ".dng" else _Sized() as picture:
        monkeypatch.setattr(expand, "SMALL_PIXELS", picture.size[0] * picture.size[1] / block**2)
    return expand_photo(path)


class _Sized:
    """What Pillow would say of the DNG files here."""

    size = SIZE[::-1]

    def __enter__(self) -> _Sized:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def stops_off(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean error [stops]."""
    return float(np.abs(np.log2(np.maximum(found, 1e-3) / np.maximum(truth, 1e-3))).mean())


# ------------------------------------------------------------------------------------- what is whose


@pytest.mark.parametrize("block", [1, 3])
def test_a_network_that_knows_the_truth_gives_it(
    sim: Simulated, photo: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage but the one that takes structure for made up."""
    monkeypatch.setattr("hdrmerge.highlights.evened", lambda small, found: found)
    radiance, expansion = expanded(photo, Stub(sim.truth), monkeypatch, block)
    clips, own = sim.frames[0] == 255, srgb_decode(sim.frames[0] / 255)
    np.testing.assert_allclose(radiance.pixels[~clips], own[~clips], rtol=0, atol=1e-5)
    assert radiance.pixels[clips].min() >= 1
    error = stops_off(radiance.pixels[clips], sim.truth[clips])
    plain = stops_off(np.ones_like(sim.truth[clips]), sim.truth[clips])
    assert plain > 0.5
    assert error < (0.03 if block == 1 else 0.09) * plain
    assert radiance.pixels.max() == pytest.approx(sim.truth.max(), rel=0.05)
    np.testing.assert_array_equal(radiance.valid, ~clips.any(axis=2))
    assert expansion.synthesised == pytest.approx(clips.any(axis=2).mean())
    np.testing.assert_array_equal(expansion.channels, clips.sum(axis=2) * 85)


@pytest.mark.parametrize("block", [1, 2])
@pytest.mark.parametrize(
    "painted",
    [
        lambda codes, ev: np.random.default_rng(1).random(codes.shape),
        lambda codes, ev: np.zeros_like(codes),
        lambda codes, ev: np.ones_like(codes),
        lambda codes, ev: np.full_like(codes, np.nan),
    ],
    ids=["noise", "black", "white", "no numbers"],
)
def test_no_network_touches_what_was_recorded(
    sim: Simulated, photo: Path, painted: Any, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what clips is never less bright than that."""
    radiance, _ = expanded(photo, Stub(changed=painted), monkeypatch, block)
    clips, own = sim.frames[0] == 255, srgb_decode(sim.frames[0] / 255)
    np.testing.assert_allclose(radiance.pixels[~clips], own[~clips], rtol=0, atol=1e-5)
    assert np.isfinite(radiance.pixels).all()
    assert radiance.pixels[clips].min() >= 1


@pytest.mark.parametrize("block", [1, 2, 5])
def test_arithmetic_and_no_network_give_the_linear_photograph(
    sim: Simulated, photo: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = srgb_decode(sim.frames[0] / 255)
    monkeypatch.setattr(expand, "extrapolated", lambda light: light)
    arithmetic, _ = expanded(photo, Stub(), monkeypatch, block)
    np.testing.assert_allclose(arithmetic.pixels, own, rtol=0, atol=1e-5)
    none, expansion = expand_photo(photo, NONE)
    np.testing.assert_allclose(none.pixels, own, rtol=0, atol=1e-6)
    assert expansion.network == "none"
    assert "nothing synthesised" in none.settings


def test_a_channel_that_clips_alone_leaves_the_others(
    sim: Simulated, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    radiance, _ = expanded(photo, Stub(sim.truth), monkeypatch, 2)
    clips, own = sim.frames[0] == 255, srgb_decode(sim.frames[0] / 255)
    blue = clips[..., 2] & ~clips[..., :2].any(axis=2)
    assert blue.sum() > 200
    np.testing.assert_allclose(radiance.pixels[blue][:, :2], own[blue][:, :2], rtol=0, atol=1e-5)
    assert stops_off(radiance.pixels[blue][:, 2], sim.truth[blue][:, 2]) < 0.03
    ratio = radiance.pixels[blue] / sim.truth[blue]
    assert np.abs(np.log2(ratio[:, 2] / ratio[:, 1])).mean() < 0.05  # the sky's own colour


def test_lossy_files_lose_their_ripples(
    sim: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values just below white among clipped ones would be dark spots in a lamp of radiance 5."""
    codes = np.full((*SIZE, 3), 120, np.uint8)
    codes[30:60, 40:90] = 255
    codes[44:46, 60:62] = 248  # 0.94
    Image.fromarray(codes).save(tmp_path / "a.png")
    light = np.where(codes > 200, np.float32(5), np.float32(srgb_decode(np.array(120 / 255))))
    whole, _ = expanded(tmp_path / "a.png", Stub(light), monkeypatch)
    assert whole.pixels[44:46, 60:62].max() < 1
    monkeypatch.setattr(expand, "LOSSY", ("png",))
    mended, expansion = expanded(tmp_path / "a.png", Stub(light), monkeypatch)
    assert mended.pixels[32:58, 42:88].min() > 4
    assert expansion.channels[44, 60] == 255
    np.testing.assert_array_equal(mended.pixels[:30], whole.pixels[:30])


# ------------------------------------------------------------------------------------- borders, colours


@pytest.mark.parametrize("block", [1, 3])
def test_a_network_that_is_off_is_brought_to_the_photograph(
    sim: Simulated, photo: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sim.frames[0] == 255
    dark = Stub(sim.truth * np.float32([0.7, 0.75, 0.65]))
    found, _ = expanded(photo, dark, monkeypatch, block)
    monkeypatch.setattr("hdrmerge.highlights.LARGEST_GAIN", 0.0)
    unmet, _ = expanded(photo, dark, monkeypatch, block)
    errors = [stops_off(one.pixels[clips], sim.truth[clips]) for one in (found, unmet)]
    assert errors[0] < 0.5 * errors[1]


def test_the_border_of_a_clipped_region_shows_no_step(
    sim: Simulated, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the truth has none, though the network is 0.6 EV off: steps of that size as painted."""
    clips = sim.frames[0] == 255
    for off in (1.5, 0.67):
        found, _ = expanded(photo, Stub(sim.truth * np.float32(off)), monkeypatch, 3)
        for axis in (0, 1):
            steps = [np.abs(np.diff(np.log2(light + 1e-3), axis=axis)) for light in (found.pixels, sim.truth)]
            edges = (np.diff(clips, axis=axis) != 0) & (steps[1] < 0.1)
            assert edges.sum() > 50
            assert np.quantile(steps[0][edges], 0.9) < 0.2


def test_a_sun_stays_white_whatever_colour_a_network_says(
    sim: Simulated, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within `TINT`; and the orange lamp does not become white."""
    tint = np.float32([2.0, 0.7, 2.0])
    for block in (1, 3):
        radiance, _ = expanded(photo, Stub(sim.truth * tint), monkeypatch, block)
        sun = (sim.truth.min(axis=2) > 3) & (np.ptp(sim.truth, axis=2) < 1)
        assert sun.sum() > 50
        ratio = radiance.pixels[sun].max(axis=1) / radiance.pixels[sun].min(axis=1)
        assert np.quantile(ratio, 0.9) < 1.8  # 2.9 as painted
        right, _ = expanded(photo, Stub(sim.truth), monkeypatch, block)
        lamp = (sim.truth[..., 0] > 3) & (sim.truth[..., 2] < 0.4 * sim.truth[..., 0])
        assert lamp.sum() > 20
        red, green, blue = right.pixels[lamp].mean(axis=0) / sim.truth[lamp].mean(axis=0)
        assert 0.85 < red < 1.1
        assert 0.85 < green < 1.15
        assert 0.85 < blue < 1.35


# ------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (5, 3), (63, 65)])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_any_size(size: tuple[int, int], block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(3).integers(150, 290, (*size, 3)).clip(0, 255).astype(np.uint8)
    codes[0, 0] = 255
    Image.fromarray(codes).save(tmp_path / "a.png")
    bright = Stub(changed=lambda codes, ev: np.minimum(codes * 1.2, 1))
    radiance, _ = expanded(tmp_path / "a.png", bright, monkeypatch, block)
    assert radiance.pixels.shape == (*size, 3)
    own = srgb_decode(codes / 255)
    np.testing.assert_allclose(radiance.pixels[codes < 255], own[codes < 255], rtol=0, atol=1e-5)
    assert radiance.pixels[codes == 255].min() >= 1
    assert np.isfinite(radiance.pixels).all()


def test_a_grey_picture_stays_grey(sim: Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = sim.frames[0][..., 1]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    truth = np.repeat(sim.truth[..., 1:2], 3, axis=2)
    monkeypatch.setattr("hdrmerge.highlights.evened", lambda small, found: found)
    radiance, _ = expanded(tmp_path / "grey.png", Stub(truth), monkeypatch, 2)
    np.testing.assert_allclose(np.ptp(radiance.pixels, axis=2), 0, atol=1e-4)
    assert stops_off(radiance.pixels[grey == 255], truth[grey == 255]) < 0.1


@pytest.mark.parametrize("block", [1, 3])
def test_raw_channels_clip_one_by_one(
    sim: Simulated, tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green at radiance 1, red not before 2; a blown sun is white, with a network and without."""
    camera, path = Camera(bits=14), tmp_path / "a.dng"
    write_dng(path, record_mosaic(sim.truth, camera, 100.0, None), sim.shots[0], camera)
    frame = read_frame(read_shot(path))
    linear = frame.linear()
    clips = linear >= 0.997 * frame.clip
    assert clips[..., 1].sum() > 1.5 * clips[..., 0].sum() > 0
    none, _ = expand_photo(path, NONE)
    radiance, expansion = expanded(path, Stub(sim.truth), monkeypatch, block)
    whole = ~clips.any(axis=2)
    own = np.maximum(linear @ frame.to_rec709.T, 0)
    np.testing.assert_allclose(radiance.pixels[whole], own[whole], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(expansion.channels == 0, whole)
    back = radiance.pixels @ np.linalg.inv(frame.to_rec709).T  # what the sensor would have seen
    inside = (radiance.pixels > 0).all(axis=2)  # colours beyond Rec. 709 are brought to its border
    kept = ~clips & inside[..., None]
    np.testing.assert_allclose(back[kept], linear[kept], rtol=0, atol=2e-3)
    blown = clips.all(axis=2)
    white = np.linalg.solve(frame.to_rec709, np.ones(3))
    np.testing.assert_allclose(white / white.max(), AS_SHOT_NEUTRAL, atol=0.01)
    for found in (none, radiance):
        sun = found.pixels[blown & (np.ptp(sim.truth, axis=2) < 0.2 * sim.truth.max(axis=2))]
        assert len(sun) > 30
        assert np.quantile(sun.max(axis=1) / sun.min(axis=1), 0.9) < 1.35  # 2 as clipped
    region = clips.any(axis=2)
    errors = [stops_off(found.pixels[region], sim.truth[region]) for found in (radiance, none)]
    assert errors[0] < 0.35 * errors[1]


def test_a_curve_can_be_named_or_given(photo: Path, sim: Simulated) -> None:
    for curve in ("gamma2.2", typical()):
        radiance, _ = expand_photo(photo, ExpandOptions(response=curve, network="none"))
        table = ExpandOptions(response=curve).curve()
        assert table is not None
        np.testing.assert_allclose(radiance.pixels, table.decode(sim.frames[0]), rtol=0, atol=1e-6)


def test_what_is_no_photograph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a photograph"):
        expand_photo(tmp_path / "a.jpg", NONE)


def test_the_file_says_what_was_synthesised(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    radiance, expansion = expanded(photo, Stub(), monkeypatch)
    write(radiance, tmp_path / "a.exr")
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        said = file.header()["comments"]
    percent = f"{100 * expansion.synthesised:.1f}"
    assert said.endswith(f"synthesised: {percent} % of the picture, where the photograph was clipped")
    assert "inputs: photo.png; response=" in said
    assert "network=stub.onnx (stub 1 cpu fp32)" in said
    assert load(tmp_path / "a.exr").reference.exposure_time == pytest.approx(1 / 60)
    assert expansion.map().shape == (*SIZE, 3)


# ------------------------------------------------------------------------------------- the network


def test_nothing_clipped_asks_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (20, 10), (200, 254, 0)).save(tmp_path / "a.png")
    stub = Stub()
    _, expansion = expanded(tmp_path / "a.png", stub, monkeypatch)
    assert not stub.seen
    assert expansion.sentence().startswith("synthesised: 0 %")


def test_a_network_that_memory_is_too_small_for_sees_less(
    sim: Simulated, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = SIZE[0] * SIZE[1]
    stub = Stub(sim.truth, largest=pixels // 3)
    radiance, _ = expanded(photo, stub, monkeypatch)
    assert [seen.shape[2:] for seen in stub.seen] == [(SIZE[0] // 2, SIZE[1] // 2)] * len(expand.SHORTER)
    clips = sim.frames[0] == 255
    assert stops_off(radiance.pixels[clips], sim.truth[clips]) < 0.1
    stub = Stub(sim.truth)
    stub.card["bytes_per_pixel"] = 1e12 / pixels * 2  # what it says it takes
    expanded(photo, stub, monkeypatch)
    assert stub.seen[0].shape[2:] == (SIZE[0] // 2, SIZE[1] // 2)
    with pytest.raises(MemoryError):
        expanded(photo, Stub(largest=0), monkeypatch)


def test_progress_goes_forward(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "_opened", lambda *_: Stub())
    told: list[tuple[str, float]] = []
    expand_photo(photo, progress=lambda stage, share: told.append((stage, share)))
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert [*stages, "write"] == list(expand.PARTS)
    assert sum(expand.PARTS.values()) == pytest.approx(1)
    for stage in stages:
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


def test_the_default_network_is_the_released_one(sim: Simulated, photo: Path) -> None:
    pytest.importorskip("onnxruntime")
    radiance, expansion = expand_photo(photo)
    assert expansion.network.startswith("virtual-bracket.onnx (onnxruntime")
    own, clips = srgb_decode(sim.frames[0] / 255), sim.frames[0] == 255
    np.testing.assert_allclose(radiance.pixels[~clips], own[~clips], rtol=0, atol=1e-5)
    errors = [stops_off(one[clips], sim.truth[clips]) for one in (radiance.pixels, own)]
    assert errors[0] < 0.9 * errors[1]


def test_a_network_for_something_else_is_refused(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub()
    stub.card["architecture"] = "trust"
    with pytest.raises(NetworkError, match=r"stub\.onnx: a network of 'trust' expands no photographs"):
        expanded(photo, stub, monkeypatch)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a residual network that has learned nothing yet."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from hdrmerge import weights
    from hdrmerge.networks import build

    config = {"width": 1, "deepest": 1, "residual": True}
    torch.manual_seed(0)
    network = build("virtual_bracket", config).eval()
    example = {"photo": torch.rand(1, 3, 64, 128), "ev": torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)}
    axes = {"photo": {0: "B", 2: "H", 3: "W"}, "ev": {0: "K"}, "frames": {0: "K", 2: "H", 3: "W"}}
    card = {"architecture": "virtual_bracket", "config": config, "halo": 766, "multiple": 64}
    path = tmp_path_factory.mktemp("weights") / "untrained.onnx"
    weights.save(network, example, ["frames"], axes, path, card)
    return path


@pytest.mark.parametrize("block", [1, 3])
def test_an_untrained_network_goes_on_as_light_began(
    sim: Simulated, photo: Path, untrained: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(expand, "SMALL_PIXELS", SIZE[0] * SIZE[1] / block**2)
    options = ExpandOptions(network=str(untrained), device="cpu")
    own, clips = srgb_decode(sim.frames[0] / 255), sim.frames[0] == 255
    radiance, expansion = expand_photo(photo, options)
    np.testing.assert_allclose(radiance.pixels[~clips], own[~clips], rtol=0, atol=1e-5)
    white = clips.all(axis=2)
    errors = [stops_off(one[white], sim.truth[white]) for one in (radiance.pixels, own)]
    assert errors[0] < 0.8 * errors[1]
    assert expansion.network.startswith("untrained.onnx (onnxruntime")
    monkeypatch.setattr(expand, "extrapolated", lambda light: light)
    plain, _ = expand_photo(photo, options)
    np.testing.assert_allclose(plain.pixels, own, rtol=0, atol=1e-5)


def test_the_released_network_grows_brighter_with_every_quarter_of_a_stop(sim: Simulated) -> None:
    pytest.importorskip("onnxruntime")
    engine = open_expander(ExpandOptions(device="cpu"))
    assert engine is not None
    light = srgb_decode(sim.frames[0] / 255).astype(np.float32)
    photo = np.ascontiguousarray(np.moveaxis(encoded(expand.extrapolated(light)), -1, 0)[None])
    evs = np.arange(-16, 17, dtype=np.float32) / 4
    frames = [
        engine.run({"photo": photo, "ev": np.full((1, 1, 1, 1), ev, np.float32)})["frames"] for ev in evs
    ]
    steps = np.diff(np.concatenate(frames), axis=0)
    brighter = steps.mean(axis=(1, 2, 3))
    assert brighter.min() > 1 / 1000
    assert np.abs(np.diff(brighter)).max() < 1 / 100  # no jump, neither where N2 takes over from N3
    assert (steps < -1 / 255).mean() < 1e-3
