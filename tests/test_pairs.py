"""What is learned from: pairs of the four subsets, and pictures of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hdrmerge.errors import InputError
from hdrmerge.exposure import NoiseModel
from hdrmerge.training.pairs import captured_pair, draw_sheet, lit_pair, window
from hdrmerge.training.reexposure import decode, encode, line_mask

EXPOSURES = (0.25, 1.0, 4.0)
PATCH, SIDE = 64, 64 + 80
INNER = slice(40, 104), slice(40, 104)


@pytest.fixture
def codes() -> list[np.ndarray]:
    """Three frames whose pixels all differ: 0.2 to 0.7 in the reference."""
    ramp = np.linspace(0.2, 0.7, SIDE * SIDE * 3, dtype=np.float32).reshape(SIDE, SIDE, 3)
    return [encode(decode(ramp) * np.float32(exposure)) for exposure in EXPOSURES]


def place_of(patch: np.ndarray, frame: np.ndarray) -> tuple[int, int]:
    """Return where the upper left pixel of a patch is in a frame."""
    y, x = np.argwhere((frame == patch[0, 0]).all(axis=-1))[0]
    assert np.array_equal(frame[y : y + PATCH, x : x + PATCH], patch)
    return int(y), int(x)


def test_a_window_has_the_margin_that_the_frame_has() -> None:
    outer, inner = window(64, 10, 128, (300, 178))
    assert outer == (slice(24, 232), slice(0, 178))
    assert inner == (slice(40, 168), slice(10, 138))


def test_motion_as_captured(codes: list[np.ndarray]) -> None:
    label = np.random.default_rng(0).uniform(0, 3.9, (SIDE, SIDE, 3)).astype(np.float16)
    pair = captured_pair(codes, EXPOSURES, label, INNER, False, np.random.default_rng(0))
    assert pair.subset == "MD"
    assert np.array_equal(pair.codes, np.stack([code[INNER] for code in codes]))
    assert np.array_equal(pair.label, label[INNER].astype(np.float32))
    assert pair.gain is None
    assert 0.9 < pair.known.mean() < 1.0


def test_a_dynamic_patch_is_its_own_label(codes: list[np.ndarray]) -> None:
    codes[1][50, 50] = 1.0
    pair = captured_pair(codes, EXPOSURES, None, INNER, False, np.random.default_rng(0))
    assert np.allclose(pair.label, decode(codes[1][INNER]))
    assert np.argwhere(~pair.known).tolist() == [[10, 10]]


def test_motion_is_added_to_all_but_the_reference(codes: list[np.ndarray]) -> None:
    rng, moved = np.random.default_rng(0), []
    codes[2] = codes[0] * np.float32(1.3)  # unclipped, to be told apart
    for _ in range(50):
        pair = captured_pair(codes, EXPOSURES, None, INNER, True, rng)
        assert pair.subset == "MDM"
        assert np.array_equal(pair.codes[1], codes[1][INNER])
        assert np.allclose(pair.label, decode(codes[1][INNER]))
        moved += [np.subtract(place_of(pair.codes[k], codes[k]), 40) for k in (0, 2)]
    assert np.abs(moved).min() > 5
    assert np.abs(moved).mean() == pytest.approx(20, abs=1)


def test_a_stand_in_does_not_move(codes: list[np.ndarray]) -> None:
    frames, exposures = [codes[0], codes[1], codes[1]], (0.25, 1.0, 1.0)
    rng = np.random.default_rng(0)
    pair = captured_pair(frames, exposures, None, INNER, True, rng)
    assert np.array_equal(pair.codes[2], pair.codes[1])
    mask = line_mask((SIDE, SIDE), INNER, rng)
    pair = lit_pair(codes[1], exposures, mask, INNER, True, rng)
    assert np.array_equal(pair.codes[2], pair.codes[1])
    assert not np.array_equal(pair.codes[0], pair.codes[1])


@pytest.mark.parametrize(("far", "subset"), [(False, "ED"), (True, "EDM")])
def test_light_is_added_to_label_and_frames_alike(codes: list[np.ndarray], far: bool, subset: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.maximum(line_mask((SIDE, SIDE), INNER, rng), 0.1)
        pair = lit_pair(codes[1], EXPOSURES, mask, INNER, far, rng)
        assert pair.subset == subset
        assert pair.gain is not None
        assert np.allclose(pair.label, decode(codes[1][INNER]) * pair.gain[..., None], rtol=1e-5)
        assert np.abs(pair.codes[1] - encode(pair.label)).max() <= 0.5001 / 255
        clipped = (pair.codes[1].max(axis=-1) == 1).mean()
        assert 0.09 < clipped < 0.62
        assert (pair.label.max(axis=-1) * 0.25 >= 1).mean() <= 0.02
        assert pair.known.all()


def test_added_motion_of_lit_pairs_is_small_or_large(codes: list[np.ndarray]) -> None:
    """Told by the place of a black cross in the short frame."""
    codes[1][72, :] = codes[1][:, 72] = 0.0
    rng, moved = np.random.default_rng(2), {False: [], True: []}
    mask = np.full((SIDE, SIDE), 0.5, np.float32)
    for far, found in moved.items():
        for _ in range(100):
            short = lit_pair(codes[1], EXPOSURES, mask, INNER, far, rng).codes[0].max(axis=-1)
            found.append((np.argmin(short.sum(axis=1)) - 32, np.argmin(short.sum(axis=0)) - 32))
    assert np.std(moved[False]) == pytest.approx(4.0, rel=0.2)
    assert np.abs(moved[True]).mean() == pytest.approx(20.0, rel=0.1)


NOISE = tuple(NoiseModel(1e-4 * (k + 1), 1e-3 * (k + 1)) for k in range(3))


def test_noise_is_added_to_what_is_exposed_anew_but_not_to_its_label(codes: list[np.ndarray]) -> None:
    """Each frame has the noise of its own model, in linear light."""
    given = codes[1], EXPOSURES, np.zeros((SIDE, SIDE), np.float32), INNER, True
    plain, noisy = (
        lit_pair(*given, np.random.default_rng(5), 65536, noise, steady=0.0) for noise in (None, NOISE)
    )
    np.testing.assert_array_equal(plain.label, noisy.label)
    own = plain.codes[1]
    assert not np.array_equal(own, noisy.codes[1])
    for k, model in enumerate(NOISE):
        light = noisy.label * np.float32(EXPOSURES[k])
        inside = light < 0.9
        if k == 1:  # the others are shifted
            wrong = (decode(noisy.codes[k]) - light)[inside] / np.sqrt(model.variance(light))[inside]
            assert float(wrong.std()) == pytest.approx(1.0, abs=0.05)
            assert abs(float(wrong.mean())) < 0.05


def test_noise_is_added_to_a_dynamic_patch_but_not_to_a_static_one(codes: list[np.ndarray]) -> None:
    codes[1][50, 50] = 1.0
    rng = np.random.default_rng(0)
    dynamic = captured_pair(codes, EXPOSURES, None, INNER, False, rng, NOISE)
    assert np.allclose(dynamic.label, decode(codes[1][INNER]))
    light = dynamic.label[dynamic.known]
    wrong = (decode(dynamic.codes[1])[dynamic.known] - light) / np.sqrt(NOISE[1].variance(light))
    assert float(wrong.std()) == pytest.approx(1.0, abs=0.05)
    assert dynamic.codes[1][10, 10].tolist() == [1.0] * 3  # saturated is saturated
    label = np.full((SIDE, SIDE, 3), 0.3, np.float16)
    static = captured_pair(codes, EXPOSURES, label, INNER, False, rng, NOISE)
    assert np.array_equal(static.codes, np.stack([code[INNER] for code in codes]))
    pair = captured_pair([codes[0], codes[1], codes[1]], (0.25, 1.0, 1.0), None, INNER, True, rng, NOISE)
    assert np.array_equal(pair.codes[2], pair.codes[1])


def test_frames_that_are_aligned_hardly_move(codes: list[np.ndarray]) -> None:
    rng, mask = np.random.default_rng(0), np.zeros((SIDE, SIDE), np.float32)
    shifts = []
    for _ in range(40):
        pair = lit_pair(codes[1], (0.9, 1.0, 1.1), mask, INNER, False, rng, 1 << 16, steady=0.5)
        where = np.abs(codes[1] * np.float32(0.9 ** (1 / 2.2)) - pair.codes[0][0, 0]).sum(axis=-1)
        y, x = np.unravel_index(int(np.argmin(where)), where.shape)
        shifts.append((y - 40, x - 40))
    assert 0.2 < float(np.std(shifts)) < 0.8


def test_a_sheet_shows_inputs_label_and_mask(tmp_path: Path, codes: list[np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    captured = captured_pair(codes, EXPOSURES, None, INNER, False, rng)
    lit = lit_pair(codes[1], EXPOSURES, line_mask((SIDE, SIDE), INNER, rng), INNER, False, rng)
    path = tmp_path / "sheets" / "a.png"
    draw_sheet([captured, lit], path)
    picture = cv2.imread(str(path))
    assert picture.shape == (5 * 68, 2 * 68, 3)
    short, middle, long, _, mask = (picture[68 * k + 2 : 68 * k + 66, 2:66] for k in range(5))
    assert short.mean() < middle.mean() < long.mean()
    assert (mask == 255).all()
    assert np.abs(middle[..., ::-1].astype(float) - captured.codes[1] * 255).max() <= 0.51
    gain = picture[68 * 4 + 2 : 68 * 4 + 66, 70:134, 0]
    assert gain.max() == 255
    assert gain.min() == 0


def test_an_empty_sheet_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the subset is empty"):
        draw_sheet([], tmp_path / "a.png")
