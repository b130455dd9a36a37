"""Static brackets are trusted, what was put in is not, and the rest of the picture still is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hdrmerge.align import Alignment
from hdrmerge.bracket import Frame, Shot
from hdrmerge.deghost import Ghosts, _band, deghost
from hdrmerge.exposure import NoiseModel, Response
from hdrmerge.proxy import shrink
from hdrmerge.simulate import Camera, Shake, Simulated, homography, record, simulate_bracket

SIZE = 240, 360

UNMOVED = Alignment("none", np.eye(3))


def judged(
    sim: Simulated, alignments: Sequence[Alignment] | None = None, decoded_as: str | None = None
) -> Ghosts:
    frames = list(sim.bracket().frames)
    if decoded_as is not None:
        frames = [replace(frame, response=Response.named(decoded_as)) for frame in frames]
    return deghost(
        [shrink(frame) for frame in frames],
        [frame.exposure for frame in frames],
        [frame.noise for frame in frames],
        alignments or [UNMOVED] * len(frames),
        sim.reference,
    )


def distrusted(ghosts: Ghosts, index: int) -> np.ndarray:
    trust = ghosts.trust[index]
    assert trust is not None
    return trust < 128


def most_distrusted(ghosts: Ghosts) -> float:
    """The largest share of any frame that is trusted by less than half, clipped or not."""
    return max(float((trust < 128).mean()) for trust in ghosts.trust if trust is not None)


# --- nothing moved --------------------------------------------------------------------------------


@pytest.mark.parametrize("iso", [100.0, 800.0, 3200.0])
@pytest.mark.parametrize(("frames", "step_ev"), [(3, 1.0), (3, 2.0), (3, 3.0), (5, 2.0)])
def test_a_static_bracket_is_trusted(ramp: np.ndarray, frames: int, step_ev: float, iso: float) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(1), size=SIZE, frames=frames, step_ev=step_ev, iso=iso)
    ghosts = judged(sim)
    assert max(ghosts.share) < 0.005
    assert most_distrusted(ghosts) < 0.005


@pytest.mark.parametrize("iso", [100.0, 3200.0])
@pytest.mark.parametrize("step_ev", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("recorded", "decoded"), [("gamma2.2", "srgb"), ("srgb", "gamma2.2")])
def test_a_wrong_curve_is_no_ghost(
    ramp: np.ndarray, recorded: str, decoded: str, step_ev: float, iso: float
) -> None:
    camera = Camera(response=Response.named(recorded))
    sim = simulate_bracket(ramp, np.random.default_rng(2), size=SIZE, step_ev=step_ev, camera=camera, iso=iso)
    assert most_distrusted(judged(sim, decoded_as=decoded)) < 0.005


def test_a_very_wrong_curve_is_no_ghost(ramp: np.ndarray) -> None:
    """A film-like S curve with a shoulder, developed as if it were plain sRGB."""

    def film(code: np.ndarray) -> np.ndarray:
        return np.asarray((0.35 * code + 0.65 * code**2.5) ** 1.3)

    camera = Camera(response=Response.from_function("film", film))
    sim = simulate_bracket(ramp, np.random.default_rng(3), size=SIZE, step_ev=1.5, camera=camera)
    assert most_distrusted(judged(sim, decoded_as="srgb")) < 0.005


def test_a_shaken_bracket_is_trusted_once_aligned(ramp: np.ndarray) -> None:
    """With the true motion 0.2 px off, as registration may be, edges are no ghosts."""
    shake = Shake(rotation=0.4, shift=6.0)
    sim = simulate_bracket(ramp, np.random.default_rng(4), size=SIZE, shake=shake)
    off = homography(SIZE, shift=(0.14, -0.14))
    alignments = [Alignment("homography", off @ h) for h in sim.homographies]
    alignments[sim.reference] = UNMOVED
    ghosts = judged(sim, alignments)
    inner = [None if trust is None else trust[24:-24, 24:-24] for trust in ghosts.trust]
    assert most_distrusted(replace(ghosts, trust=inner)) < 0.005


def test_trust_grows_from_the_border_of_a_shifted_frame(ramp: np.ndarray) -> None:
    """12 px beyond the frame are not trusted at all, and no step is larger than the ramp's."""
    moved = homography(SIZE, shift=(-12.0, 0.0))
    sim = simulate_bracket(ramp, np.random.default_rng(4), size=SIZE, shake=[moved, np.eye(3), np.eye(3)])
    trust = judged(sim, [Alignment("translation", moved), UNMOVED, UNMOVED]).trust[0]
    assert trust is not None
    row = trust[SIZE[0] // 2].astype(int)
    assert np.all(row[:11] == 0)
    assert np.all(row[40:] == 255)
    assert np.abs(np.diff(row)).max() < 255 / 4


def test_a_short_frame_is_trusted_to_its_border_where_the_reference_is_clipped(ramp: np.ndarray) -> None:
    """Its last pixels are better than the reference's limit, which would be a dark rim on a bright sky."""
    rng, still = np.random.default_rng(9), np.eye(3)
    moved = homography(SIZE, shift=(0.0, -12.0))
    sim = simulate_bracket(ramp, rng, size=SIZE, saturated_share=0.3, shake=[moved, still, still])
    ghosts = judged(sim, [Alignment("translation", moved), UNMOVED, UNMOVED])
    inside = np.zeros(SIZE, bool)
    inside[13:] = True
    clipped = sim.saturated & inside
    open_ = ~sim.saturated & inside & (np.arange(SIZE[0]) < 15)[:, None]
    assert ghosts.trust[0] is not None
    assert (ghosts.trust[0][clipped] > 250).mean() > 0.99
    assert (ghosts.trust[0][open_] < 200).mean() > 0.9


def test_the_reference_and_frames_left_out_have_no_trust_map(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(5), size=SIZE)
    left_out = Alignment("none", np.eye(3), used=False, note="of something else")
    ghosts = judged(sim, [left_out, UNMOVED, UNMOVED])
    assert ghosts.trust[0] is None
    assert ghosts.trust[1] is None
    assert ghosts.trust[2] is not None
    assert ghosts.trust[2].dtype == np.uint8
    assert ghosts.trust[2].shape == SIZE
    assert ghosts.share[:2] == [0.0, 0.0]


# --- something moved ------------------------------------------------------------------------------


def disc(centre: tuple[int, int], radius: int) -> np.ndarray:
    """Alpha (H, W) of a disc with an edge 2 px wide."""
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]]
    return np.clip((radius - np.hypot(x - centre[0], y - centre[1])) / 2 + 0.5, 0, 1).astype(np.float32)


def with_object(sim: Simulated, index: int, alpha: np.ndarray, gain: float) -> Simulated:
    """Let an object ``gain`` times as bright as the scene behind it stand in one frame."""
    views = list(sim.views)
    views[index] = views[index] * (1 + alpha[..., None] * np.float32(gain - 1))
    rng = np.random.default_rng(77)
    codes = list(sim.frames)
    codes[index] = record(views[index] * np.float32(sim.relative_exposures[index]), sim.camera, 100.0, rng)
    return replace(sim, frames=tuple(codes), views=tuple(views))


def recorded(sim: Simulated, index: int) -> np.ndarray:
    """Where the reference and a frame both recorded all channels, above the noise."""
    ok = ~sim.saturated
    linear = sim.camera.decode(sim.frames[index])
    return (
        ok & (linear.max(axis=-1) < 0.9) & (sim.camera.decode(sim.frames[sim.reference]).min(axis=-1) > 0.01)
    )


@pytest.mark.parametrize("gain", [2.0, 0.5])
@pytest.mark.parametrize(
    ("index", "centre"), [(0, (90, 120)), (0, (180, 120)), (0, (300, 60)), (2, (50, 60)), (2, (45, 170))]
)
def test_an_object_in_one_frame_is_distrusted_and_little_else(
    ramp: np.ndarray, index: int, gain: float, centre: tuple[int, int]
) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(6), size=SIZE, step_ev=2.0, saturated_share=0.02)
    alpha = disc(centre, 22)
    sim = with_object(sim, index, alpha, gain)
    differs = (alpha > 0.9) & recorded(sim, index)
    assert differs.sum() > 700  # of 1257 that the disc covers
    ghosts = judged(sim)
    assert (distrusted(ghosts, index) & differs).sum() >= 0.9 * differs.sum()
    trust = ghosts.trust[index]
    assert trust is not None
    far = cv2.dilate((alpha > 0).astype(np.uint8), np.ones((49, 49))) == 0
    assert trust[far].min() == 255  # 24 px away nothing is doubted
    other = 2 - index
    assert distrusted(ghosts, other).mean() < 0.005
    whole = float(distrusted(ghosts, index).mean())  # with what the frame clipped; the share is without
    assert 0.4 * whole <= ghosts.share[index] <= 1.05 * whole


def test_trust_fades_at_the_rim(ramp: np.ndarray) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(7), size=SIZE)
    ghosts = judged(with_object(sim, 0, disc((150, 120), 25), 3.0))
    trust = ghosts.trust[0]
    assert trust is not None
    assert trust.min() == 0
    levels = trust.astype(int)
    steps = max(np.abs(np.diff(levels, axis=axis)).max() for axis in (0, 1))
    assert 0 < steps <= 90


def test_an_object_in_the_reference_alone_is_kept(ramp: np.ndarray) -> None:
    """No other frame is trusted where the reference shows something of its own."""
    sim = simulate_bracket(ramp, np.random.default_rng(8), size=SIZE, step_ev=1.5)
    alpha = disc((120, 120), 22)
    sim = with_object(sim, 1, alpha, 0.4)
    ghosts = judged(sim)
    for index in (0, 2):
        differs = (alpha > 0.9) & recorded(sim, index)
        assert differs.sum() > 1000
        assert (distrusted(ghosts, index) & differs).sum() >= 0.9 * differs.sum()


def test_a_clipped_reference_is_a_lower_bound(ramp: np.ndarray) -> None:
    """Where the reference is white, a darker object in the short frame is a ghost, the sun is not."""
    sim = simulate_bracket(ramp, np.random.default_rng(9), size=SIZE, step_ev=3.0, saturated_share=0.35)
    alpha = disc((310, 120), 20)
    white = (alpha > 0.9) & (sim.truth.min(axis=-1) > 1.2)
    assert white.sum() > 600
    dark = judged(with_object(sim, 0, alpha, 0.15))
    assert (distrusted(dark, 0) & white).sum() >= 0.9 * white.sum()
    bright = judged(with_object(sim, 0, alpha, 1.5))
    assert not (distrusted(bright, 0) & white).any()


@pytest.mark.parametrize("shifted", [False, True])
def test_a_clipped_frame_is_a_lower_bound(ramp: np.ndarray, shifted: bool) -> None:
    """Where the long frame is white and the reference dark, an object hid the light in the reference.

    The long frame's rim between white and dark must not be trusted: it would be drawn as a bright line.
    """
    matrix = homography(SIZE, shift=(3.4, 2.7)) if shifted else np.eye(3)
    shake = [np.eye(3), np.eye(3), matrix]
    sim = simulate_bracket(ramp, np.random.default_rng(14), size=SIZE, step_ev=3.0, shake=shake)
    alpha = disc((230, 120), 26)
    dark = (alpha > 0.9) & (sim.views[1].min(axis=-1) * sim.relative_exposures[2] > 1.2)
    assert dark.sum() > 1000
    sim = with_object(sim, 1, alpha, 0.05)
    verdict = Alignment("translation", matrix) if shifted else UNMOVED
    ghosts = judged(sim, [UNMOVED, UNMOVED, verdict])
    assert (distrusted(ghosts, 2) & dark).sum() >= 0.9 * dark.sum()


def test_more_frames_help_each_other(ramp: np.ndarray) -> None:
    """Of five frames one has an object; the other four stay trusted."""
    sim = simulate_bracket(ramp, np.random.default_rng(10), size=SIZE, frames=5, step_ev=1.0)
    alpha = disc((130, 110), 24)
    ghosts = judged(with_object(sim, 1, alpha, 2.0))
    assert distrusted(ghosts, 1)[alpha > 0.9].mean() >= 0.9
    assert max(float(distrusted(ghosts, i).mean()) for i in (0, 3, 4)) < 0.005


def test_trust_maps_have_the_size_of_the_proxies(ramp: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """On proxies of half the size an object is found as well."""
    monkeypatch.setattr("hdrmerge.proxy.PROXY_PIXELS", SIZE[0] * SIZE[1] / 4)
    sim = simulate_bracket(ramp, np.random.default_rng(11), size=SIZE, step_ev=1.5)
    alpha = disc((150, 120), 30)
    ghosts = judged(with_object(sim, 0, alpha, 2.0))
    trust = ghosts.trust[0]
    assert trust is not None
    assert trust.shape == (SIZE[0] // 2, SIZE[1] // 2)
    assert (trust < 128)[alpha[::2, ::2] > 0.9].mean() >= 0.9
    assert trust[:, 110:].min() == 255


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (7, 5), (37, 53)])
def test_the_smallest_pictures_do_not_crash(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(12)
    noise = NoiseModel.from_iso(100)
    frames = [
        Frame(
            Shot(Path(f"{time:g}.jpg"), exposure_time=time),
            rng.integers(0, 256, (*size, 3), np.uint8),
            Response.named("srgb"),
            noise,
        )
        for time in (1.0, 4.0, 16.0)
    ]
    ghosts = deghost([shrink(f) for f in frames], [1.0, 4.0, 16.0], [noise] * 3, [UNMOVED] * 3, 1)
    assert [None if trust is None else trust.shape for trust in ghosts.trust] == [size, None, size]


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_black_and_white_frames_do_not_crash(ramp: np.ndarray, which: int, value: int) -> None:
    sim = simulate_bracket(ramp, np.random.default_rng(13), size=SIZE)
    codes = list(sim.frames)
    codes[which] = np.full_like(codes[which], value)
    ghosts = judged(replace(sim, frames=tuple(codes)))
    assert np.isfinite(ghosts.share).all()


def test_a_band_is_what_disagrees_over_the_full_width() -> None:
    comparable = np.ones((100, 60), np.bool_)
    ghost = np.zeros_like(comparable)
    assert _band(ghost, comparable) == 0.0
    ghost[70:, :] = True
    assert _band(ghost, comparable) == pytest.approx(0.3)
    ghost[70:80, :20] = False  # something moves there, beside what does not
    assert _band(ghost, comparable) == pytest.approx(0.2)
    comparable[:, 10:] = False  # and too little can be compared to say so
    assert _band(ghost, comparable) == 0.0
