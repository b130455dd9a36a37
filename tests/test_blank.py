"""Frames that show nothing are left out, frames that show little are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hdrmerge.blank import blank, leave_out_blanks
from hdrmerge.bracket import Bracket, Frame
from hdrmerge.errors import BracketError
from hdrmerge.proxy import shrink
from hdrmerge.simulate import Camera, add_noise, simulate_bracket

SIZE = (64, 96)


@pytest.fixture(scope="module")
def bracket(ramp: np.ndarray) -> Bracket:
    return simulate_bracket(ramp[:256, :384], np.random.default_rng(0), size=SIZE).bracket()


def showing(frame: Frame, codes: np.ndarray) -> Frame:
    return replace(frame, codes=codes)


def kind_of(frame: Frame) -> str:
    return blank(frame, shrink(frame))


def test_real_frames_are_none(bracket: Bracket) -> None:
    assert [kind_of(frame) for frame in bracket.frames] == ["", "", ""]


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 4000), SIZE, (1300, 1300)])
@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0, 2, "black"),
        (0, 3, "black"),
        (249, 255, "white"),
        (255, 255, "white"),
        (30, 60, ""),
        (200, 240, ""),
    ],
)
def test_eight_bits(bracket: Bracket, size: tuple[int, int], low: int, high: int, found: str) -> None:
    codes = np.random.default_rng(0).integers(low, high, (*size, 3), endpoint=True).astype(np.uint8)
    assert kind_of(showing(bracket.frames[0], codes)) == found


@pytest.mark.parametrize("iso", [100.0, 6400.0])
@pytest.mark.parametrize("size", [SIZE, (1300, 1300)])
def test_a_lens_cap_is_black_at_any_iso(bracket: Bracket, iso: float, size: tuple[int, int]) -> None:
    noise = Camera(bits=14).noise(iso)
    dark = add_noise(np.zeros((*size, 3), np.float32), noise, np.random.default_rng(0))
    frame = Frame(bracket.frames[0].shot, np.maximum(dark, 0), bracket.frames[0].response, noise)
    assert kind_of(frame) == "black"


@pytest.mark.parametrize(("background", "light"), [(0, 200), (255, 100)])
@pytest.mark.parametrize("size", [SIZE, (1300, 1300)])
def test_some_specks_are_a_picture(
    bracket: Bracket, size: tuple[int, int], background: int, light: int
) -> None:
    codes = np.full((*size, 3), background, np.uint8)
    codes[20:36, 40:52] = light
    assert kind_of(showing(bracket.frames[0], codes)) == ""


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_blank_frame_is_left_out(bracket: Bracket, index: int, value: int) -> None:
    frames = list(bracket.frames)
    frames[index] = showing(frames[index], np.full((*SIZE, 3), value, np.uint8))
    spoilt = Bracket(tuple(frames), 1)
    kept, proxies, warnings = leave_out_blanks(spoilt, [shrink(frame) for frame in frames])
    assert [frame.shot for frame in kept.frames] == [f.shot for i, f in enumerate(frames) if i != index]
    assert len(proxies) == 2
    assert kept.reference_frame is frames[1 if index != 1 else 0]
    colour = "black" if value == 0 else "white"
    assert warnings == [f"{frames[index].shot.path}: left out, nothing but {colour} in it"]


def test_nothing_is_done_to_good_frames(bracket: Bracket) -> None:
    proxies = [shrink(frame) for frame in bracket.frames]
    assert leave_out_blanks(bracket, proxies) == (bracket, proxies, [])


@pytest.mark.parametrize(
    ("values", "chosen", "finding"),
    [
        ((0, 0, 0), False, "simulated_1: nothing but black in it, and no more in the 2 others; give frames"),
        ((0, 255, 255), False, "simulated_1: nothing but black in it, and no more in the 2 others"),
        ((None, 255, 255), False, "simulated_2: nothing but white in it, and one other frame is no bracket"),
        ((None, 0, None), True, "simulated_2: nothing but black in it; choose another --reference"),
    ],
)
def test_what_remains_must_be_a_bracket(
    bracket: Bracket, values: tuple[int | None, ...], chosen: bool, finding: str
) -> None:
    frames = tuple(
        frame if value is None else showing(frame, np.full((*SIZE, 3), value, np.uint8))
        for frame, value in zip(bracket.frames, values, strict=True)
    )
    with pytest.raises(BracketError) as caught:
        leave_out_blanks(Bracket(frames, 1), [shrink(frame) for frame in frames], chosen)
    assert finding in str(caught.value)
