"""What is known around a frame before a network sees it: followed, in between, and with which shares."""

from __future__ import annotations

import numpy as np
import pytest
from test_flowmerge import codes_of, moved, recorded, scene, still  # noqa: F401, fixtures

from hdrmerge.exposure import mu_law
from hdrmerge.flowmerge import LAST_RESORT, fetched, merge_by_flow, radiance, similarities
from hdrmerge.followed import Followed, follow, follow_results, lit
from hdrmerge.scene import Matrix, ramp_scene

EXPOSURES = {2: (8.0, 1.0, 8.0), 3: (1.0, 4.0, 16.0, 1.0, 4.0)}


def pan(count: int, step: int = 2, seed: int = 2) -> list[np.ndarray]:
    """Return light (80, 120, 3) in [0, 0.5] of a camera that turns by so many pixels a frame."""
    wide = ramp_scene(80, 160, np.random.default_rng(seed))
    wide = wide * np.float32(0.5 / wide.max())
    return [wide[:, 10 + step * n : 130 + step * n] for n in range(count)]


@pytest.mark.parametrize("exposures", EXPOSURES.values())
def test_the_sum_of_what_is_followed_is_the_merge_by_flow(exposures: tuple[float, ...]) -> None:
    codes = codes_of(tuple(pan(len(exposures))), exposures)
    for matrices in (None, [np.eye(3)] * len(codes)):
        found = follow(codes, exposures, matrices=matrices)
        assert len(found.frames) == len(found.shares) == len(found.between) + 1 == len(codes)
        neighbours = [n for n in range(len(codes)) if n != len(codes) // 2]
        for n, flow in zip(neighbours, found.flows, strict=True):
            np.testing.assert_allclose(found.frames[n], fetched(codes[n], flow)[0], atol=1e-4)
        np.testing.assert_allclose(np.sum(found.shares, axis=0), 1, atol=1e-5)
        seen = zip(found.frames, exposures, found.shares, strict=True)
        mean = sum(radiance(frame, time) * share for frame, time, share in seen)
        np.testing.assert_allclose(
            mean, merge_by_flow(codes, exposures, matrices=matrices, fine=True), atol=1e-5
        )
        assert found.frames[len(codes) // 2] is codes[len(codes) // 2]


def test_frames_are_brought_into_line_first(still: tuple[np.ndarray, ...]) -> None:  # noqa: F811
    """By the similarities that are stated, else by those that are found."""
    codes = codes_of(still)
    found = follow(codes, EXPOSURES[2])
    told = follow(codes, EXPOSURES[2], matrices=similarities(codes, 1))
    for one, other in zip(found.frames + found.between, told.frames + told.between, strict=True):
        assert np.array_equal(one, other)
    homographies: tuple[Matrix, ...] = moved()
    assert not np.array_equal(homographies[0], np.eye(3))
    inner = np.s_[8:-8, 8:-8]
    for seen in found.between:  # nothing else moved
        assert np.median(np.abs(radiance(seen, 8.0) - np.minimum(still[1], 1 / 8))[inner]) < 2e-3


@pytest.mark.parametrize("at", [0.5, 0.25])
def test_where_the_reference_is_white_things_are_seen_in_between(at: float) -> None:
    """At the moment of the reference, wherever that is between the frames beside it."""
    light = pan(9, step=1)
    now = round(8 * at)
    codes = codes_of((light[0] * 2, light[now] * 2, light[8] * 2), (1.0, 64.0, 1.0))
    found = follow(codes, (1.0, 64.0, 1.0), (0.0, 8.0 * at, 8.0), [np.eye(3)] * 3)
    inner = np.s_[12:-12, 16:-16]

    def wrong(frame: np.ndarray) -> float:
        return float(np.median(np.abs(radiance(frame, 1.0) - light[now] * 2)[inner]))

    assert max(map(wrong, found.between)) < 0.3 * min(wrong(codes[0]), wrong(codes[2]))
    assert found.shares[1].min() >= LAST_RESORT / 10


def test_at_an_end_one_frame_stands_on_both_sides() -> None:
    light = pan(2)
    codes = codes_of((light[1], light[0], light[1]))
    found = follow(codes, EXPOSURES[2], (1.0, 0.0, 1.0), [np.eye(3)] * 3)
    assert np.array_equal(found.between[0], codes[0])
    assert np.array_equal(found.frames[0], found.frames[2])
    assert set(found.pictures()) == {"frames", "between", "shares", "flows"}


def test_results_are_followed_once_more(still: tuple[np.ndarray, ...]) -> None:  # noqa: F811
    """And the frames with them; through the similarity, in one resampling."""
    light = pan(3, step=3)
    codes = codes_of(tuple(light), (1.0, 8.0, 1.0))
    results, frames = follow_results(light, codes)
    inner = np.s_[8:-8, 8:-8]
    for k in (0, 2):
        wrong = np.abs(mu_law(results[k]) - mu_law(light[1]))[inner].mean()
        assert wrong < 0.2 * np.abs(mu_law(light[k]) - mu_law(light[1]))[inner].mean()
        same = np.abs(radiance(frames[k], 1.0) - results[k])[inner]  # nothing of a short frame is clipped
        assert np.quantile(same, 0.9) < 0.01
    assert results[1] is light[1]
    assert frames[1] is codes[1]
    moved_views = [np.clip(view, 0, 1) for view in still]
    codes = codes_of(tuple(still), (8.0, 1.0, 8.0))
    lined, _ = follow_results(moved_views, codes, similarities(codes, 1))
    for k in (0, 2):
        assert (
            np.abs(lined[k] - moved_views[1])[inner].mean()
            < 0.3 * np.abs(moved_views[k] - moved_views[1])[inner].mean()
        )


# ------------------------------------------------------------------------------------------- black


LIGHT = 0.0015  # faint


def flat(light: float | tuple[float, float, float], exposure: float = 1.0) -> np.ndarray:
    linear = np.broadcast_to(np.clip(np.float32(light) * exposure, 0, 1), (16, 16, 3))
    return np.ascontiguousarray(linear ** np.float32(1 / 2.2))


def shown(record: np.ndarray, before: float, after: float | None = None) -> Followed:
    """Return what is known around a frame of which neighbours, exposed eight times as long, show this."""
    between = [flat(before, 8), flat(before if after is None else after, 8)]
    return Followed([between[0], record, between[1]], between, [], [])


@pytest.mark.parametrize("found", [0.0, 0.0005, 0.02])
def test_where_the_record_is_black_neighbours_tell(found: float) -> None:
    made = lit(shown(flat(0.0), LIGHT), EXPOSURES[2], np.full((16, 16, 3), found, np.float32))
    np.testing.assert_allclose(made, LIGHT, rtol=0.01)


def test_a_dark_result_gets_the_light_that_neighbours_agree_on() -> None:
    record, hole = flat(0.0002), np.zeros((16, 16, 3), np.float32)
    np.testing.assert_allclose(lit(shown(record, LIGHT), EXPOSURES[2], hole), LIGHT, rtol=0.05)
    assert lit(shown(record, LIGHT, 0.02), EXPOSURES[2], hole).max() < LIGHT / 2  # they do not agree
    bright = np.full_like(hole, 1.2 * LIGHT)
    np.testing.assert_array_equal(lit(shown(record, LIGHT), EXPOSURES[2], bright), bright)


def test_no_light_is_added_that_the_record_would_show() -> None:
    found = np.full((16, 16, 3), 0.001, np.float32)
    np.testing.assert_array_equal(lit(shown(flat(0.0), 0.05), EXPOSURES[2], found), found)
    np.testing.assert_array_equal(lit(shown(flat(0.01), 0.05), EXPOSURES[2], found), found)  # not dark
    known = shown(flat(0.0), LIGHT)
    assert lit(known, (1.0, 8.0, 1.0), found) is found  # nobody knows more


def test_channels_are_lit_each_by_itself() -> None:
    found, record = np.zeros((16, 16, 3), np.float32), flat(0.0)
    record[:2] = flat((0.01, 0.0, 0.0))[:2]
    made = lit(shown(record, LIGHT), EXPOSURES[2], found)
    assert (made[:1, :, 0] == 0).all()
    np.testing.assert_allclose(made[:1, :, 1:], LIGHT, rtol=0.01)


def test_nothing_is_lit_where_a_curve_records_faint_light() -> None:
    """What is black there is black, also if neighbours show something else."""
    record, found = flat(LIGHT), np.full((16, 16, 3), 0.001, np.float32)
    record[:2] = 0
    assert lit(shown(record, LIGHT), EXPOSURES[2], found) is found
    record[:12] = 0
    assert lit(shown(record, LIGHT), EXPOSURES[2], found)[:8].min() > 0.8 * LIGHT


def test_crushed_shadows_have_no_holes() -> None:
    """Of a curve that ends in black where there is light: what flow finds alone has holes there."""
    light = [np.ascontiguousarray(one * 0.02) for one in pan(3)]
    codes = [recorded(one, time) for one, time in zip(light, EXPOSURES[2], strict=True)]
    codes[1] = np.where(light[1].max(axis=-1, keepdims=True) < 0.004, np.float32(0), codes[1])
    known = follow(codes, EXPOSURES[2], matrices=[np.eye(3)] * 3)
    hole = np.where(codes[1] > 0, light[1], np.float32(0))
    made = lit(known, EXPOSURES[2], hole)
    inner = (codes[1] == 0).all(axis=-1)
    inner[:, :8] = inner[:, -8:] = False
    assert inner.mean() > 0.2
    wrong = np.abs(mu_law(made) - mu_law(light[1])).max(axis=-1)[inner]
    assert np.quantile(wrong, 0.9) < 0.03
    np.testing.assert_array_equal(made[light[1].max(axis=-1) > 0.009], hole[light[1].max(axis=-1) > 0.009])
