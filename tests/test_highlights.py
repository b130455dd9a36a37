"""The arithmetic of clipped highlights, plane by plane."""

from __future__ import annotations

import numpy as np
import pytest

from hdrmerge.highlights import (
    Small,
    begun,
    clipped,
    encoded,
    evened,
    excess,
    merged,
    met,
    raise_clipped,
    spread,
    toned,
)

ONE = np.ones(3, np.float32)


def small(light: np.ndarray, level: float = 1.0) -> Small:
    """Return blocks of one pixel of a photograph of some light, which clips at ``level``."""
    clips = light >= level
    wholly = clips.all(axis=2, keepdims=True)
    partly = (clips & ~wholly).astype(np.float32)
    return Small(
        np.minimum(light, level).astype(np.float32), partly, wholly.astype(np.float32), ~clips, level * ONE
    )


def pixels(*colours: tuple[float, float, float]) -> np.ndarray:
    return np.float32([colours])


def test_clipped_channels() -> None:
    linear = pixels((0.99, 0.9969, 0.9971), (1.0, 2.0, 0.0))
    assert clipped(linear).tolist() == [[[False, False, True], [True, True, False]]]
    assert clipped(linear * np.float32(0.9), 0.9).tolist() == clipped(linear).tolist()


def test_ripples_of_lossy_files_count_among_clipped_pixels_only() -> None:
    linear = np.ones((9, 9, 3), np.float32)
    linear[:, :4] = 0.5
    linear[2, 7] = 0.92
    linear[5, 7] = 0.85
    linear[4, 3] = 0.92
    exact, found = clipped(linear), clipped(linear, lossy=True)
    assert np.argwhere(found[..., 0] & ~exact[..., 0]).tolist() == [[2, 7]]
    assert not (exact & ~found).any()
    assert clipped(pixels((0.98, 0.96, 0.2)), lossy=True).tolist() == [[[True, False, False]]]


def test_an_excess_begins_as_steeply_as_the_photograph_ended() -> None:
    level = np.ones((5, 60, 3), np.float32)
    level[:, :20, 0] = 0.1  # a sharp edge
    level[:, :20, 1] = np.linspace(0.4, 0.99, 20)  # a slope that takes 13 px from 0.6 on
    clips = level >= 1
    found = begun(level, clips, 50.0)[2]
    assert not found[:20].any(axis=0)[:2].any()
    np.testing.assert_allclose(found[20:, 0], 1, atol=0.1)
    np.testing.assert_allclose(found[20:26, 1], np.arange(1, 7) / (0.7 * 13), atol=0.05)
    assert found[32:, 1].min() == 1
    assert found[:, 2].min() == 1  # the border of the picture is none
    assert begun(level, clips, 3.0)[2, 24, 1] == 1


def test_clipped_channels_of_a_white_balance_are_raised() -> None:
    """A sun to white, green to the mean of the two that are known; a red lamp stays red."""
    light = pixels((2.0, 1.0, 1.6), (1.8, 1.0, 1.4), (2.0, 0.2, 0.1), (0.5, 0.5, 0.5))
    clips = np.array([[[True] * 3, [False, True, False], [True, False, False], [False] * 3]])
    raise_clipped(light, clips)
    expected = pixels((2.0, 2.0, 2.0), (1.8, 1.6, 1.4), (2.0, 0.2, 0.1), (0.5, 0.5, 0.5))
    np.testing.assert_allclose(light, expected, atol=1e-6)


def test_virtual_frames_are_merged_where_they_are_valid() -> None:
    light = np.linspace(0.05, 20, 300, dtype=np.float32).reshape(1, 100, 3)
    evs = (-2.0, -4.0, -3.0)
    found = merged((ev, encoded(np.minimum(light * np.float32(2**ev), 1))) for ev in evs)
    np.testing.assert_allclose(found, np.minimum(light, 16), rtol=1e-4)
    wrong = [(-2.0, np.float32([[[1.0, 0.5, 0.0]]])), (-4.0, encoded(np.float32([[[0.5, 0.5, 0.001]]])))]
    np.testing.assert_allclose(merged(iter(wrong))[0, 0, 0], 8, rtol=1e-4)  # white says nothing


def test_spreading_keeps_what_is_known_and_ends_far_away() -> None:
    values, weights = np.full((64, 80), 9.0, np.float32), np.zeros((64, 80), np.float32)
    weights[:, :2] = 1
    values[:, :2] = 0.5
    found = spread(values, weights)
    np.testing.assert_allclose(found[:, :2], 0.5, atol=1e-6)
    row = found[32, 2:]
    assert row[0] > 0.35
    assert row[-1] < 0.2
    assert np.diff(row).max() < 0.03
    assert not spread(values, np.zeros_like(weights)).any()
    for shape in ((1, 1), (1, 5), (3, 2)):
        assert spread(np.ones(shape, np.float32), np.ones(shape, np.float32)).shape == shape


def test_made_up_structure_is_evened_where_all_channels_clip() -> None:
    """Its mean stays, and what is beside it counts for nothing."""
    truth = np.full((200, 300, 3), 0.4, np.float32)
    truth[40:160, 50:250] = 4.0
    photo = small(truth)
    creases = np.exp(0.5 * np.sin(np.arange(300) / 0.7)).astype(np.float32)[:, None]
    found = evened(photo, truth * creases)
    inside = truth[..., 0] > 1
    np.testing.assert_array_equal(found[~inside], (truth * creases)[~inside])
    spread_of = [np.log(one[inside]).std() for one in (truth * creases, found)]
    assert spread_of[0] > 0.3
    assert spread_of[1] < 0.1 * spread_of[0]
    assert np.log(found[inside]).mean() == pytest.approx(np.log((truth * creases)[inside]).mean(), abs=0.02)
    none = small(np.full((9, 9, 3), 0.5))
    assert evened(none, none.light) is none.light


def test_a_network_meets_the_photograph_in_channels_that_do_not_clip() -> None:
    """Also inside a region where one channel clips: that one takes the others' gain."""
    truth = np.full((40, 40, 3), (0.7, 0.6, 0.5), np.float32)
    truth[10:30, 10:30, 2] = 1.5
    photo = small(truth)
    found = met(photo, truth * np.float32(0.8))
    np.testing.assert_allclose(found[photo.recorded], truth[photo.recorded], rtol=1e-4)
    np.testing.assert_allclose(found[12:28, 12:28, 2], 1.5, rtol=0.05)
    far = met(photo, truth * np.float32(0.1))
    assert far.max() < 0.1 * 1.5 * 4.1  # a stop for all channels, another for each


@pytest.mark.parametrize(
    ("around", "painted", "expected"),
    [
        ((0.9, 0.9, 0.9), (6.0, 2.0, 6.0), "white"),
        ((0.9, 0.9, 0.9), (4.0, 4.0, 4.0), "as painted"),
        ((0.9, 0.5, 0.2), (8.0, 4.4, 1.8), "as painted"),
        ((0.9, 0.5, 0.2), (4.0, 4.0, 4.0), "as painted"),
        ((0.01, 0.01, 0.03), (2.0, 2.0, 6.0), "white"),
    ],
)
def test_colour_where_all_channels_clip(
    around: tuple[float, float, float], painted: tuple[float, float, float], expected: str
) -> None:
    light = np.full((20, 20, 3), around, np.float32)
    light[6:14, 6:14] = painted
    found = toned(small(light), light)[10, 10]
    assert found.sum() == pytest.approx(sum(painted), rel=1e-4)
    if expected == "as painted":
        np.testing.assert_allclose(found, painted, rtol=0.08)
    else:
        assert found.max() / found.min() < 1.7 < max(painted) / min(painted)


def test_excess_is_given_to_the_pixels_that_clip() -> None:
    """A lamp of radiance 5 that fills a quarter of a block, and half of another, before a dark ground."""
    light, wholly = np.full((7, 9, 3), 0.02, np.float32), np.zeros((7, 9, 1), np.float32)
    truth = light.copy()
    for column, share in ((3, 0.25), (4, 1.0), (5, 0.5)):
        wholly[1:6, column] = share
        light[1:6, column] = share + (1 - share) * 0.02
        truth[1:6, column] = 5 * share + (1 - share) * 0.02
    photo = Small(light, np.zeros_like(light), wholly, np.repeat(wholly == 0, 3, axis=2), ONE)
    partly, found = excess(photo, truth)
    np.testing.assert_allclose(found[1:6, 3:6], 4, rtol=0.05)
    assert not partly[wholly[..., 0] == 0].any()
    assert found[3, 2].min() > 3.5  # so that enlarging leaves the lamp's edge its light


def test_excess_begins_where_the_photograph_ends() -> None:
    """Beside smooth light it is what that lacks to white, so that there is no step."""
    ramp = np.repeat(np.linspace(0.2, 2.0, 40, dtype=np.float32)[None, :, None], 3, axis=2)
    ramp = np.repeat(ramp, 8, axis=0)
    _, found = excess(small(ramp), ramp)
    bright = ramp > 0.92
    np.testing.assert_allclose(1 + found[bright], ramp[bright], atol=1e-3)


def test_a_sun_in_a_blue_sky_has_no_coloured_rim() -> None:
    """Blocks at its rim hold pixels that clip in blue alone, and some that clip in all channels."""
    truth = np.full((12, 12, 3), (0.4, 0.6, 1.2), np.float32)
    truth[4:8, 4:8] = 6.0
    half = np.zeros((12, 12, 1), np.float32)
    half[4:8, 4:8] = 1
    half[4:8, 4] = half[4:8, 7] = 0.3
    blocks = truth * half + np.float32([0.4, 0.6, 1.2]) * (1 - half)
    light = half + np.float32([0.4, 0.6, 1.0]) * (1 - half)
    partly = (1 - half) * np.float32([0, 0, 1])
    blue, white = excess(Small(light, partly, half, (partly + half) == 0, ONE), blocks)
    np.testing.assert_allclose(blue[0, 0, 2], 0.2, atol=0.02)
    rim = 1 + white[5, 4]
    assert rim.min() > 4
    assert rim.max() / rim.min() < 1.15
