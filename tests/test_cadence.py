"""The exposure of every frame: from lists, patterns, EXIF and pixels, held and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_clip import alternating, scene, write_clip, write_stills

from hdrmerge.alternation import Stated, read_stated
from hdrmerge.broadcast import TRANSFERS
from hdrmerge.cadence import settle
from hdrmerge.errors import ExposureError
from hdrmerge.footage import open_footage

pytest.importorskip("av")

BRIDE = Path(__file__).parents[2] / "shared" / "brackets" / "altexp_bride"
RADIANCE = scene(120, 160)
KNOWN = TRANSFERS[1]  # the curve that the clips are made with
TAGS = {"colorspace": 1, "color_range": 1, "color_trc": 1}


def clip(tmp_path: Path, exposures: list[float], count: int = 14, **options: object) -> Path:
    repeated = [exposures[n % len(exposures)] for n in range(count)]
    return write_clip(tmp_path / "a.mkv", alternating(repeated, RADIANCE), tags=TAGS, **options)


@pytest.mark.parametrize("exposures", [[1.0, 8.0], [8.0, 1.0], [1.0, 4.0, 16.0], [4.0, 16.0, 1.0]])
def test_a_pattern_is_put_where_the_brightness_has_it(tmp_path: Path, exposures: list[float]) -> None:
    footage = open_footage(clip(tmp_path, exposures))
    cadence = settle(footage, Stated(tuple(t / 500 for t in sorted(exposures))), KNOWN)
    assert cadence.footage.seconds == pytest.approx([exposures[n % len(exposures)] / 500 for n in range(14)])
    assert cadence.kinds[: len(exposures)].tolist() == np.argsort(np.argsort(exposures)).tolist()
    assert cadence.source == "times"
    assert not cadence.warnings
    assert cadence.stops == pytest.approx(np.log2(np.array(sorted(exposures)) / max(exposures)))
    assert cadence.footage.frame(1).shot.exposure_time == pytest.approx(exposures[1] / 500)


@pytest.mark.parametrize("exposures", [[1.0, 4.0], [1.0, 16.0], [1.0, 4.0, 16.0]])
def test_unknown_exposures_are_told_by_the_pixels(tmp_path: Path, exposures: list[float]) -> None:
    footage = open_footage(clip(tmp_path, exposures))
    truth = np.log2(np.array(exposures) / max(exposures))
    known = settle(footage, response=KNOWN)
    assert known.stops == pytest.approx(truth, abs=0.05)
    assert max(known.spread()) < 0.05


def test_a_curve_that_nobody_knows_is_found_with_them(tmp_path: Path) -> None:
    told = settle(open_footage(clip(tmp_path, [1.0, 16.0])))
    assert told.stops == pytest.approx([-4.0, 0.0], abs=0.6)  # a tenth of the contrast stays open
    assert "estimated from the pixels" in told.warnings[0]
    assert told.source == "pixels"
    assert told.footage.frame(0).exposure == pytest.approx(2 ** told.stops[0])


def test_what_hardly_shares_a_tone_is_told_roughly(tmp_path: Path) -> None:
    exposures = [1.0, 300.0]
    light = alternating([exposures[n % 2] for n in range(8)], 0.7 * scene(120, 160, stops=11.0))
    footage = open_footage(write_clip(tmp_path / "a.mkv", light, tags=TAGS))
    assert settle(footage, response=KNOWN).stops[0] == pytest.approx(-np.log2(300), abs=0.7)


def test_stated_exposures_far_from_the_pixels_are_doubted(tmp_path: Path) -> None:
    footage = open_footage(clip(tmp_path, [1.0, 4.0]))
    cadence = settle(footage, Stated((1 / 1000, 1 / 10)), KNOWN)
    assert "the shortest exposure is stated -6.6 EV from the longest, the pixels say -" in cadence.warnings[0]
    assert cadence.stops[0] == pytest.approx(-np.log2(100))  # what is stated counts


def test_patterns_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    footage = open_footage(clip(tmp_path, [1.0, 4.0]))
    with pytest.raises(ExposureError, match=r"a\.mkv: .*every 2 frames"):
        settle(footage, Stated((1 / 500, 1 / 60, 1 / 8)))
    still = open_footage(write_clip(tmp_path / "b.mkv", alternating([1.0] * 14, RADIANCE), tags=TAGS))
    with pytest.raises(ExposureError, match=r"b\.mkv: .*does not alternate"):
        settle(still, Stated((1 / 500, 1 / 60)))
    with pytest.raises(ExposureError, match=r"b\.mkv: no exposures stated"):
        settle(still)


def test_a_list_counts_frame_by_frame(tmp_path: Path) -> None:
    exposures = [1.0, 4.0, 4.0, 1.0, 4.0, 1.0, 1.0, 4.0]  # in no order
    footage = open_footage(write_clip(tmp_path / "a.mkv", alternating(exposures, RADIANCE), tags=TAGS))
    (tmp_path / "list.txt").write_text("".join(f"{n} {t / 100}\n" for n, t in enumerate(exposures)))
    cadence = settle(footage, read_stated(str(tmp_path / "list.txt")), KNOWN)
    assert cadence.footage.seconds == pytest.approx(np.array(exposures) / 100)
    assert cadence.kinds.tolist() == [0, 1, 1, 0, 1, 0, 0, 1]


def test_stills_state_their_exposures(tmp_path: Path) -> None:
    exposures = [1 / 400, 1 / 100] * 4
    write_stills(tmp_path, alternating([400 * t for t in exposures], RADIANCE), exposures)
    cadence = settle(open_footage(tmp_path))
    assert cadence.source in ("exif", "ev")  # the latter: corrected by some hundredths
    assert cadence.stops[0] == pytest.approx(-2.0, abs=0.1)
    assert cadence.footage.frame(1).shot.exposure_time == pytest.approx(1 / 100)


def test_stills_of_one_exposure_are_refused(tmp_path: Path) -> None:
    write_stills(tmp_path, alternating([1.0] * 4, RADIANCE), [1 / 60] * 4)
    with pytest.raises(ExposureError, match="the same exposure"):
        settle(open_footage(tmp_path))


def test_white_lies_between_two(tmp_path: Path) -> None:
    cadence = settle(open_footage(clip(tmp_path, [1.0, 16.0])), Stated((1 / 800, 1 / 50)), KNOWN)
    assert cadence.whites == pytest.approx((1.0, 16.0))
    assert cadence.to_json()["relative_ev"] == pytest.approx([-4.0, 0.0])


@pytest.mark.skipif(not BRIDE.is_dir(), reason="the footage is not here")
def test_footage_of_unknown_ratio_is_told_alike_by_all_its_pairs() -> None:
    cadence = settle(open_footage(BRIDE))
    assert cadence.kinds.tolist() == [0, 1] * 6
    assert cadence.seen.shape == (6, 2)
    assert np.isfinite(cadence.seen).all()
    assert max(cadence.spread()) < 0.1
    assert -8.0 < cadence.stops[0] < -6.0
