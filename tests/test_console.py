"""console: what the bar shows; errors, warnings and verdicts are tested with the commands."""

from __future__ import annotations

import io
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hdrmerge.console import (
    EVERYWHERE_PARTS,
    MERGE_PARTS,
    PAINTED_PARTS,
    TOLD,
    Forecast,
    duration,
    parts_of,
    print_name,
    say,
    show_batch,
    show_progress,
)
from hdrmerge.pipeline import MergeOptions, merge_bracket
from hdrmerge.simulate import simulate_bracket
from hdrmerge.simulate_files import write_jpegs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STAGES = tuple(MERGE_PARTS)


@pytest.mark.parametrize("parts", [MERGE_PARTS, PAINTED_PARTS, EVERYWHERE_PARTS])
def test_the_parts_are_those_of_a_whole(parts: dict[str, float]) -> None:
    assert sum(parts.values()) == pytest.approx(1.0)
    assert [stage for stage in PAINTED_PARTS if stage != "fuse"] == list(MERGE_PARTS)
    assert list(EVERYWHERE_PARTS) == list(PAINTED_PARTS)


def test_the_parts_follow_from_what_is_done() -> None:
    assert parts_of(False, False) is MERGE_PARTS
    assert parts_of(True, False) is PAINTED_PARTS
    assert parts_of(True, True) is EVERYWHERE_PARTS


# Of a merge on two cores, and of one of which a network paints the whole.
TIMES = {"read": 0.2, "align": 0.1, "calibrate": 0.1, "deghost": 0.8, "merge": 0.3, "fuse": 3.0, "write": 0.2}
LONG = TIMES | {"fuse": 60.0}


@pytest.mark.parametrize("times", [TIMES, LONG])
def test_the_time_left_holds_within_30_percent(times: dict[str, float]) -> None:
    """While a network paints, however long that takes, and whatever the parts were taken for."""
    now = [100.0]
    forecast = Forecast(PAINTED_PARTS, lambda: now[0])
    whole = sum(times.values())
    judged = 0
    for stage, seconds in times.items():
        for share in np.linspace(0, 1, 41):
            now[0] = 100.0 + sum(times[name] for name in takewhile(stage.__ne__, times)) + share * seconds
            told, left = forecast.left(stage, float(share)), 100.0 + whole - now[0]
            if stage == "fuse" and share > TOLD:
                judged += 1
                assert told is not None
                assert abs(told - left) <= 0.3 * left
    assert judged == 40
    assert told == pytest.approx(0.0, abs=0.01)


def test_nothing_is_told_of_work_that_has_only_begun() -> None:
    forecast = Forecast({"look": 0.5, "think": 0.5}, lambda: 3.0)
    assert forecast.left("look", 0.0) is None
    assert duration(None) == "-:--:--"


def test_later_stages_are_told_by_the_pace_until_now() -> None:
    now = [0.0]
    forecast = Forecast({"look": 0.25, "think": 0.25, "say": 0.5}, lambda: now[0])
    forecast.left("look", 0.0)
    now[0] = 10.0
    assert forecast.left("look", 0.5) == pytest.approx(10 + 20 + 40)
    now[0] = 20.0
    assert forecast.left("think", 0.0) == pytest.approx(20 + 40)
    now[0] = 30.0
    assert forecast.left("think", 0.25) == pytest.approx(30 + 40)
    assert duration(78.4) == "0:01:18"


def test_the_bar_moves_forward_through_all_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("rich.progress.Progress.update", lambda bar, task, **values: shown.append(values))
    with show_progress(True) as progress:
        for stage in STAGES:
            for share in (0.0, 0.5, 1.0):
                progress(stage, share)
    done = [values["completed"] for values in shown]
    assert done == sorted(done)
    assert (done[0], done[-1]) == pytest.approx((0.0, 1.0))
    assert [values["description"] for values in shown[::3]] == list(STAGES)


@pytest.mark.parametrize(("stream", "wanted"), [(Terminal, False), (io.StringIO, True)])
def test_no_bar_where_none_is_wanted_or_seen(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], wanted: bool
) -> None:
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    with show_progress(wanted) as progress:
        progress("merge", 0.5)
    assert written.getvalue() == ""


def test_the_stages_are_those_of_a_merge(ramp: np.ndarray, tmp_path: Path) -> None:
    seen: list[str] = []
    frames = write_jpegs(simulate_bracket(ramp, np.random.default_rng(0), size=(64, 96)), tmp_path)
    merge_bracket(frames, progress=lambda stage, share: seen.append(stage))
    assert [*dict.fromkeys(seen), "write"] == list(STAGES)


def test_the_stages_are_those_of_a_merge_that_paints(
    ramp: np.ndarray, tmp_path: Path, painter_file: Path
) -> None:
    pytest.importorskip("onnxruntime")
    seen: list[str] = []
    frames = write_jpegs(simulate_bracket(ramp, np.random.default_rng(0), size=(64, 96)), tmp_path)
    options = MergeOptions(network=str(painter_file), device="cpu")
    merge_bracket(frames, options, progress=lambda stage, share: seen.append(stage))
    assert [*dict.fromkeys(seen), "write"] == list(PAINTED_PARTS)


def test_parts_of_another_work(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("rich.progress.Progress.update", lambda bar, task, **values: shown.append(values))
    with show_progress(True, {"look": 0.5, "think": 0.5}) as progress:
        progress("look", 0.5)
        progress("think", 1.0)
    assert [values["completed"] for values in shown] == pytest.approx([0.25, 1.0])


def test_the_bar_of_a_batch_counts_sets_and_what_is_done_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("rich.progress.Progress.update", lambda bar, row, **values: shown.append(values))
    with show_batch(3, True) as bar:
        bar.end("skipped")
        bar.show("[a]", "read", 0.0)
        bar.show("[a]", "read", 1.0)
        bar.show("b", "read", 0.5)
        bar.end("[a]")
        bar.show("b", "write", 1.0)
        bar.end("b")
    read = MERGE_PARTS["read"]
    assert [values["completed"] for values in shown] == pytest.approx(
        [1, 1, 1 + read, 1 + 1.5 * read, 2 + read / 2, 3, 3]
    )
    assert shown[1]["description"] == r"set 2/3 read \[a]"
    assert shown[-1]["description"] == "set 3/3 "


def test_lines_appear_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, names = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdout", names)
    with show_batch(2, True) as bar:
        bar.show("a", "merge", 0.5)
        say("a failed: [x]")
        print_name("b [y].exr")
        bar.end("a")
    assert "hdrmerge: a failed: [x]" in errors.getvalue()
    assert names.getvalue() == "b [y].exr\n"  # not among the bar's codes


@pytest.mark.parametrize(("stream", "wanted"), [(Terminal, False), (io.StringIO, True)])
def test_no_bar_of_a_batch_where_none_is_wanted_or_seen(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], wanted: bool
) -> None:
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    with show_batch(2, wanted) as bar:
        bar.show("a", "merge", 0.5)
        bar.end("a")
    assert written.getvalue() == ""
