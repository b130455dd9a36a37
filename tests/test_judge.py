"""What speaks for a bracket: orders, steps, compensation, pauses."""

from __future__ import annotations

import math
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
from made_card import ORDERS

from hdrmerge.bracket import Shot
from hdrmerge.judge import (
    Take,
    compensation,
    even_step,
    judge,
    order_quality,
    same_optics,
    shortest_pause,
    summary,
)


def take(stops: float, second: float | None = 0.0, resolution: float = 0.0, **values: Any) -> Take:
    seconds = values.pop("open_for", 2.0**stops / 60)
    shot = Shot(Path("a.jpg"), 60, 40, exposure_time=seconds, iso=100.0, f_number=8.0, **values)
    return Take(shot, stops, second, resolution)


def row(steps: list[float], pause: float = 0.3, **values: Any) -> list[Take]:
    """Return shots at equal distances in time; ``bias=True`` lets the compensation follow."""
    follows = values.pop("bias", False)
    return [
        take(step, i * pause, **({"exposure_bias": float(step)} if follows else {}), **values)
        for i, step in enumerate(steps)
    ]


@pytest.mark.parametrize("size", [3, 5, 7, 9])
@pytest.mark.parametrize("order", ORDERS)
def test_every_order_that_cameras_use_is_known(order: str, size: int) -> None:
    assert order_quality(ORDERS[order](size)) > 0.9


def test_most_orders_are_no_cameras() -> None:
    known = [p for p in permutations(range(5)) if order_quality(p) > 0]
    assert len(known) < 30  # of 120
    assert order_quality([-1, 1, 0]) == 0.0  # what a set of 0 - + looks like that is cut one frame late


@pytest.mark.parametrize(
    ("speeds", "step"),
    [
        ((1 / 13, 1 / 6, 0.3), 0.98),  # as cameras round them
        ((1 / 60, 1 / 8, 1), 2.95),
        ((0.4, 1 / 4, 0.6), 0.63),
        ((1 / 60, 1 / 30, 1 / 4), None),
    ],
)
def test_steps_are_even_as_far_as_rounded_speeds_can_be(
    speeds: tuple[float, ...], step: float | None
) -> None:
    found = even_step([math.log2(speed) for speed in speeds])
    assert found == (None if step is None else pytest.approx(step, abs=0.01))


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(0, 0), (-2, -2), (2, 2)], "closely"),
        ([(0, 0), (-2, -2.3), (2, 1.8)], "closely"),
        ([(0, 0), (-2, -2), (2, 1)], "loosely"),  # the longest exposure the camera has
        ([(0, 0), (-2, -2), (2, 0)], "loosely"),
        ([(0, 0), (-2, 2), (2, -2)], "unrelated"),
        ([(0, 0), (-2, -2), (0, 3)], "unrelated"),
        ([(0, 0), (0, 1), (0, 2)], "constant"),
        ([(None, 0), (1, 1), (2, 2)], "constant"),
    ],
)
def test_compensation(pairs: list[tuple[float | None, float]], verdict: str) -> None:
    takes = [take(light, exposure_bias=bias) for bias, light in pairs]
    assert compensation(takes) == verdict


@pytest.mark.parametrize(
    ("apart", "first", "second", "resolution", "pause"),
    [
        (3.0, 0.01, 0.01, 0.0, 2.99),
        (3.0, 0.01, 0.01, 1.0, 1.99),  # whole seconds may be cut off a second apart
        (3.0, 0.01, 2.0, 0.0, 1.0),  # the stamp may be the end
        (3.0, 0.5, 0.01, 0.0, 2.5),  # or the start
        (70.0, 30.0, 0.01, 0.0, 10.0),  # 30 s, and a dark frame of 30 s
        (0.0, 1.0, 1.0, 1.0, 0.0),
    ],
)
def test_the_shortest_pause(
    apart: float, first: float, second: float, resolution: float, pause: float
) -> None:
    a = take(0, 100.0, resolution, open_for=first)
    b = take(1, 100.0 + apart, resolution, open_for=second)
    assert shortest_pause(a, b) == pytest.approx(pause)


def test_without_dates_no_pause_is_known() -> None:
    assert shortest_pause(take(0, None), take(1, 5.0)) == 0.0


@pytest.mark.parametrize(
    ("takes", "why"),
    [
        (
            row([0, -2, 2], exposure_mode="bracket", bias=True),
            "AEB tags: 3 exposures 2 EV apart within 0.6 s",
        ),
        (row([0, -1], exposure_mode="bracket", bias=True), "AEB tags: 2 exposures 1 EV apart within 0.3 s"),
        (
            row([0, -2, 2], 4.0, exposure_mode="bracket", bias=True),
            "AEB tags: 3 exposures 2 EV apart within 8 s",
        ),
        (row([0, -2, 2], exposure_mode="bracket"), "AEB tags: 3 exposures 2 EV apart within 0.6 s"),
        (row([-2, 0, 2], 4.0, exposure_mode="manual"), "3 exposures 2 EV apart within 8 s"),
        (
            row([0, -1, 1], exposure_mode="auto", bias=True),
            "compensation varied: 3 exposures 1 EV apart within 0.6 s",
        ),
        (row([0, -1, 1]), "3 exposures 1 EV apart within 0.6 s"),
        (row([0, -1, 1], exposure_mode="auto"), "3 exposures 1 EV apart within 0.6 s"),  # nobody aims so fast
        (row([0, -1.5, 1]), "3 exposures over 2.5 EV within 0.6 s"),
    ],
)
def test_brackets(takes: list[Take], why: str) -> None:
    verdict = judge(takes)
    assert verdict is not None
    assert verdict.why == why


@pytest.mark.parametrize(
    "takes",
    [
        row([0, -2], exposure_mode="manual"),  # a pair without tags
        row([0, -2, 2], 8.0, exposure_mode="bracket", bias=True),  # too slow
        row([0, -2, 2], 3.0),  # too slow for shots without tags
        row([0, -2, 2], 1.2, exposure_mode="auto"),  # metered one by one
        row([0, -1.5, 1], 0.9),  # uneven, and somebody could have aimed anew
        row([0, 0.33, 0.66], exposure_mode="manual"),  # the dial turned
        row([-1, 1, 0], exposure_mode="manual"),  # no camera's order
        row([0, -2, 2], 3.0, exposure_mode="auto", bias=True),
        [
            *row([0, -2], exposure_mode="bracket", bias=True),
            take(2, 0.6, exposure_mode="auto", exposure_bias=2.0),
        ],
        [take(0, 0.0), take(-2, 0.1), take(2, 1.9)],  # a pause out of step
        [
            take(0, exposure_mode="bracket", exposure_bias=0.0),
            take(2, exposure_mode="bracket", exposure_bias=-2.0),
        ],
        [take(0)],
    ],
)
def test_no_brackets(takes: list[Take]) -> None:
    assert judge(takes) is None


def test_a_gap_vouched_for_is_taken() -> None:
    slow = row([-2, 0, 1.5, 4], 20.0, exposure_mode="manual")
    assert judge(slow) is None
    assert judge(slow, gap=10.0) is None
    verdict = judge(slow, gap=20.0)
    assert verdict is not None
    assert verdict.why == "--gap: 4 exposures over 6.0 EV within 60 s"
    assert judge(row([-2, 0, 1.5], 20.0, exposure_mode="auto"), gap=60.0) is None  # metered one by one
    assert judge([take(step, None, exposure_mode="manual") for step in (-2, 0, 1.5)], gap=60.0) is None


def test_the_whole_explains_more_than_its_parts() -> None:
    for order, size in product(ORDERS, (3, 5, 7)):
        takes = row(ORDERS[order](size), exposure_mode="bracket", bias=True)
        whole = judge(takes)
        assert whole is not None
        for cut in range(1, size):
            parts = [judge(part) for part in (takes[:cut], takes[cut:]) if len(part) > 1]
            assert whole.score > sum(part.score for part in parts if part is not None)


def test_optics() -> None:
    upside = take(0, orientation=6).shot
    assert upside.upright_size == (40, 60)
    assert not same_optics(upside, take(0).shot)
    assert same_optics(take(0, focal_length=24.0).shot, take(0, focal_length=24.2).shot)
    assert not same_optics(take(0, focal_length=24.0).shot, take(0, focal_length=35.0).shot)
    assert not same_optics(take(0, focal_length=24.0).shot, take(0).shot)
    assert not same_optics(take(0, lens="a").shot, take(0, lens="b").shot)


def test_the_summary_of_long_and_undated_sets() -> None:
    assert summary(row([0, 2], 200.0)) == "2 exposures 2 EV apart within 3 min"
    assert summary([take(0, None), take(2, None)]) == "2 exposures 2 EV apart, without dates"
    assert summary(row([0, 2], 0.0, resolution=1.0)) == "2 exposures 2 EV apart within 1 s"
