"""console: what the bar shows; errors, warnings and verdicts are tested with the commands."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from hdrmerge.console import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STAGES = ("read", "align", "deghost", "merge", "write")


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
