"""Which method is taken, and what it holds of the footage; what they make is in test_video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_clip import alternating, scene, write_stills

from hdrmerge import methods
from hdrmerge.flowmerge import merge_by_flow, merge_in_line, reference_alone
from hdrmerge.footage import open_footage
from hdrmerge.methods import METHODS, WIDEST, Way, best, roles_of
from hdrmerge.networks import NETWORKS
from hdrmerge.vicinity import Vicinity

NONE = {"coarse": None, "refine": None}
COUNT = 6


@pytest.fixture
def vicinity(tmp_path: Path) -> Vicinity:
    times = [1.0, 8.0] * (COUNT // 2)
    write_stills(tmp_path, alternating(times, scene(64, 96)), times)
    return Vicinity(open_footage(tmp_path).exposed(times, "times"), [0, 1] * (COUNT // 2))


def release(patch: pytest.MonkeyPatch, *names: str) -> None:
    for name, row in list(NETWORKS.items()):
        if row.task == "video":
            patch.setitem(NETWORKS, name, replace(row, sha256="0" * 64 if name in names else ""))


def test_networks_are_taken_where_there_are_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "engines", lambda: ["onnxruntime 1"])
    release(monkeypatch)
    assert [best(count, NONE) for count in (2, 3, 4)] == ["flow"] * 3
    release(monkeypatch, "video-coarse-2", "video-refine-2", "video-coarse-3")
    assert [best(count, NONE) for count in (2, 3, 4)] == ["network", "coarse", "flow"]
    assert best(2, NONE, step=WIDEST) == "network"
    assert best(2, NONE, step=WIDEST + 0.1) == "flow"
    assert best(2, {"coarse": "a.onnx", "refine": None}, step=7.0) == "coarse"
    assert best(2, {"coarse": None, "refine": "b.onnx"}) == "network"
    monkeypatch.setattr(methods, "engines", list)
    assert best(2, NONE) == "flow"  # nothing runs them
    assert best(2, {"coarse": "a.onnx", "refine": None}) == "coarse"  # which says what is missing


def test_methods_need_networks_or_none() -> None:
    needed = {method: roles_of(method) for method in METHODS}
    assert {method for method, roles in needed.items() if roles} == {"network", "coarse"}
    assert needed["coarse"] == ("coarse",)


@pytest.mark.parametrize(("method", "held"), [("reference", 1), ("merge", 3), ("flow", 3)])
def test_a_method_holds_what_it_needs(vicinity: Vicinity, method: str, held: int) -> None:
    way = Way.opened(method, vicinity, NONE)  # type: ignore[arg-type]
    assert way.name == method
    for number in range(COUNT):
        _, used = way.radiance(number)
        assert len(used) == len({shot.path for shot in used}) <= held
        assert len(vicinity._views) <= held
    names = [shot.path.name for shot in way.radiance(2)[1]]
    assert names == (["003.jpg"] if held == 1 else ["002.jpg", "003.jpg", "004.jpg"])


def test_baselines_are_those_of_flowmerge(vicinity: Vicinity) -> None:
    merged, _ = Way.opened("merge", vicinity, NONE).radiance(3)
    frames, exposures = [vicinity[n].codes for n in (2, 3, 4)], (1.0, 8.0, 1.0)
    np.testing.assert_array_equal(merged, merge_in_line(frames, exposures, 1))
    alone, _ = Way.opened("reference", vicinity, NONE).radiance(3)
    np.testing.assert_array_equal(alone, reference_alone(frames, exposures, 1))


def test_followed_frames_are_what_the_network_is_shown(vicinity: Vicinity, tmp_path: Path) -> None:
    """Untrained it says what flow does, at the ends of the footage, too; and refined it is another one."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from made_video_networks import write_pair

    pair = write_pair(tmp_path, followed=True)
    given = {"coarse": str(pair[0]), "refine": str(pair[1])}
    way = Way.opened("coarse", vicinity, given, "cpu")
    for number in (0, 3, COUNT - 1):
        found, used = way.radiance(number)
        window = vicinity.window(number)
        frames, exposures = [vicinity[n].codes for n in window], vicinity.exposures[window].tolist()
        wanted = merge_by_flow(frames, exposures, 1, vicinity.similarities(number, window), fine=True)
        np.testing.assert_allclose(found, np.clip(wanted, 0, 1), atol=1e-3)
        assert len(used) == len(set(window))
    refined, _ = Way.opened("network", vicinity, given, "cpu").radiance(3)
    coarse, _ = Way.opened("coarse", vicinity, given, "cpu").radiance(3)
    assert np.abs(refined - coarse).max() > 1e-3
