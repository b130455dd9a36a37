"""What a display shows of a reel: levels, roll-off, signals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_reel import SCRIPT

from hdrmerge.bracket import RadianceMap, Shot
from hdrmerge.broadcast import hlg_decode, hlg_display_light, pq_decode, roll_off, to_rec2020
from hdrmerge.errors import HdrmergeError
from hdrmerge.grade import Display, hdr_signal, measure
from hdrmerge.reel import Reel


def reel_of(folder: Path, frames: list[np.ndarray], white: float = 0.25, other: float = 0.0) -> Reel:
    names = tuple(f"f{n}" for n in range(len(frames)))
    times = tuple(n / 24 for n in range(len(frames)))
    script = replace(SCRIPT, names=names, times=times, whites=(white, other or white))
    with Reel.recording(folder, script) as reel:
        for n, pixels in enumerate(frames):
            shot = Shot(Path("a.mp4"))
            valid = np.ones(pixels.shape[:2], np.bool_)
            reel.add(n, RadianceMap(pixels.astype(np.float32), valid, shot), float32=True)
    return Reel.finished(folder)


def grey(*values: float) -> np.ndarray:
    return np.repeat(np.float32(values)[None, :, None], 3, axis=2)


def test_white_of_the_middle_exposure_is_at_the_stated_nits(tmp_path: Path) -> None:
    measured = measure(reel_of(tmp_path, [grey(0.25, 0.125), grey(0.0, 0.25)]))
    assert measured.brightest == pytest.approx(203, rel=1e-3)
    assert measured.max_cll == pytest.approx(203, rel=1e-3)
    assert measured.max_fall == pytest.approx((203 + 101.5) / 2, rel=2e-3)
    signal = hdr_signal(grey(0.25, 0.125), 0.25, Display(), measured.brightest)
    assert pq_decode(signal)[0, :, 0] == pytest.approx([203, 101.5], rel=1e-3)


def test_light_levels_are_those_after_the_roll_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = [2.0 ** rng.uniform(-8, 3 - n, (20, 30, 3)) for n in range(3)]
    display = Display(white=100, peak=600)
    measured = measure(reel_of(tmp_path, frames, white=0.5), display)
    nits = [pq_decode(hdr_signal(f.astype(np.float32), 0.5, display, measured.brightest)) for f in frames]
    assert measured.max_cll == pytest.approx(600, rel=1e-3)
    assert max(n.max() for n in nits) == pytest.approx(600, rel=2e-3)
    assert measured.max_fall == pytest.approx(max(n.max(axis=2).mean() for n in nits), rel=2e-3)


@pytest.mark.parametrize(("level", "white"), [(0.36, 2.0), (0.018, 1.0), (9.0, 8.0)])
def test_between_two_middle_exposures_the_scene_says_what_is_white(
    tmp_path: Path, level: float, white: float
) -> None:
    measured = measure(reel_of(tmp_path, [grey(*[level] * 8)], 1.0, 8.0))
    assert measured.white == pytest.approx(white, rel=0.03)
    assert measured.max_cll == pytest.approx(min(203 * level / white, 1000), rel=0.03)


def test_light_beyond_pq_keeps_its_detail() -> None:
    values = np.float32([50, 100, 200, 400])  # 10,000 to 81,000 nits
    signal = hdr_signal(grey(*values), 1.0, Display(), 400 * 203.0)[0, :, 1]
    assert (np.diff(signal)[:2] * 876 > 1).all()
    assert pq_decode(signal)[-1] == pytest.approx(1000, rel=0.01)


def test_colours_keep_their_ratios_where_they_are_rolled_off() -> None:
    colour = np.float32([[[8.0, 4.0, 1.0]]])
    signal = hdr_signal(colour, 1.0, Display(), brightest=3000.0)
    nits = pq_decode(signal)[0, 0]
    light = to_rec2020() @ colour[0, 0]
    assert nits / nits.max() == pytest.approx(light / light.max(), rel=2e-3)
    assert nits.max() == pytest.approx(float(roll_off(203.0 * light.max(), 3000.0, 1000.0)), rel=2e-3)


def test_hlg_shows_the_same_light() -> None:
    values = grey(0.001, 0.01, 0.1, 0.5, 1.0, 3.0)
    nits = hlg_display_light(hlg_decode(hdr_signal(values, 1.0, Display(transfer="hlg"), 609.0)))
    assert nits[0, :, 1] == pytest.approx(values[0, :, 1] * 203, rel=1e-3)
    assert Display(peak=4000, transfer="hlg").ceiling == 1000


def test_pq_through_the_table_is_as_exact_as_ten_bits_need() -> None:
    nits = np.geomspace(0.005, 9000, 997)
    signal = hdr_signal(grey(*(nits / 203)), 1.0, Display(peak=10000), 9000.0)[0, :, 1]
    from hdrmerge.broadcast import pq_encode

    assert np.abs(signal - pq_encode(nits)).max() < 0.1 / 876


def test_the_survey_is_that_of_all_frames(tmp_path: Path) -> None:
    survey = measure(reel_of(tmp_path, [grey(*[0.5] * 10), grey(*[2.0] * 10)])).survey
    assert survey.average == pytest.approx(0.0, abs=0.05)
    assert survey.brightest == pytest.approx(1.0, abs=0.05)


def test_black_and_undefined_frames_have_no_light(tmp_path: Path) -> None:
    nothing = np.zeros((4, 4, 3), np.float32)
    nothing[0, 0] = np.nan
    measured = measure(reel_of(tmp_path, [nothing]))
    assert (measured.brightest, measured.max_fall) == (0.0, 0.0)
    assert np.isfinite(measured.survey.stops).all()


@pytest.mark.parametrize("levels", [{"white": 0.5}, {"white": 1000}, {"peak": 20000}, {"white": np.nan}])
def test_levels_that_make_no_sense_are_refused(levels: dict[str, float]) -> None:
    with pytest.raises(HdrmergeError, match="white of 1 nit"):
        Display(**levels)
