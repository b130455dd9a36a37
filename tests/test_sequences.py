"""Sets of the layout of DeepHDRVideo: which frames, exposures and truths are read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_clip import scene
from made_sets import write_sequence

from hdrmerge.errors import InputError
from hdrmerge.sequences import read_scene, scenes_in

CYCLES = {2: (1.0, 8.0), 3: (1.0, 4.0, 16.0)}


def light(frames: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    still = scene(*size)
    still = still / still.max()
    return [np.roll(still, 2 * n, 1) for n in range(frames)]


@pytest.mark.parametrize(("count", "frames"), [(2, 6), (3, 9)])
def test_static_scenes_have_a_truth_of_each_frame(tmp_path: Path, count: int, frames: int) -> None:
    views = light(frames)
    folder = write_sequence(tmp_path / "office", views, CYCLES[count])
    found = read_scene(folder)
    assert found.name == "office"
    assert found.count == count
    assert found.kinds == tuple(n % count for n in range(frames))
    assert found.judged == list(range(count, frames - count))
    assert found.footage.names == tuple(f"img_{n:02d}" for n in range(frames))
    relative = np.array(found.footage.seconds) / min(found.footage.seconds)
    np.testing.assert_allclose(relative, np.resize(CYCLES[count], frames), rtol=1e-6)
    for number in found.judged:
        np.testing.assert_allclose(found.truth(number), np.clip(views[number], 0, 1), rtol=0.01, atol=1e-4)
    frame = found.footage.frame(count)  # the shortest: nothing of it is clipped
    np.testing.assert_allclose(frame.linear(), np.clip(views[count], 0, 1), rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3])
def test_the_truth_of_a_dynamic_scene_is_that_of_the_middle(tmp_path: Path, count: int) -> None:
    views = light(2 * count + 1)
    found = read_scene(write_sequence(tmp_path / "s", views, CYCLES[count], kind="dynamic"))
    assert found.judged == list(found.truths) == [count]
    np.testing.assert_allclose(found.truth(count), views[count], rtol=0.01, atol=1e-4)


def test_synthetic_clips_have_truths_but_at_their_ends(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "Images" / "carousel_2expo"
    write_sequence(folder, light(8), CYCLES[2], range(2, 6), "synthetic")
    assert scenes_in(tmp_path / "set") == [folder]
    assert scenes_in(folder) == [folder]
    found = read_scene(folder, "Images/carousel_2expo")
    assert found.name == "Images/carousel_2expo"
    assert found.judged == [2, 3, 4, 5]


def test_all_scenes_are_found_in_order(tmp_path: Path) -> None:
    made = [write_sequence(tmp_path / name, light(6), CYCLES[2]) for name in ("b", "a")]
    (tmp_path / "scene_all.txt").write_text("a\nb\n")
    (tmp_path / "other").mkdir()
    assert scenes_in(tmp_path) == sorted(made)
    assert scenes_in(tmp_path / "other") == scenes_in(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("spoilt", "text", "says"),
    [
        ("Exposures.txt", "dark\n", "holds something else than stops; write a number a line"),
        ("Exposures.txt", "nan\n0\n", "holds stops that are no number"),
        ("Exposures.txt", "\n", "is empty"),
        ("Exposures.txt", "0\n0\n", "one exposure does not alternate"),
        ("Exposures.txt", "-3\n0\n" * 4, "8 exposures of 6 frames"),
        ("img_hdr_list.txt", "img_00.tif a.hdr\nimg_77.tif a.hdr\n", "img_77.tif: is listed and not there"),
    ],
)
def test_spoilt_scenes_are_named(tmp_path: Path, spoilt: str, text: str, says: str) -> None:
    folder = write_sequence(tmp_path / "s", light(6), CYCLES[2])
    (folder / spoilt).write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_scene(folder)
    assert str(folder) in str(caught.value)


def test_a_truth_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "s", light(6), CYCLES[2])
    other = write_sequence(tmp_path / "t", light(6, (32, 64)), CYCLES[2])
    (other / "img_02.hdr").replace(folder / "img_02.hdr")
    with pytest.raises(InputError, match="64 x 32 px, its frame is 64 x 48"):
        read_scene(folder).truth(2)
