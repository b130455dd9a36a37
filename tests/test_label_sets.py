"""Brackets labelled once, and drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hdrmerge.align import align
from hdrmerge.errors import InputError
from hdrmerge.exposure import srgb_decode
from hdrmerge.form import StatedExposures
from hdrmerge.pipeline import MergeOptions
from hdrmerge.proxy import shrink
from hdrmerge.simulate import simulate_bracket
from hdrmerge.simulate_files import write_jpegs, write_pngs
from hdrmerge.training import label_sets
from hdrmerge.training.label_sets import LabelOptions, LabelSet, make_labels, name_of
from hdrmerge.training.pairs import SUBSETS, draw_sheet
from hdrmerge.training.pseudo_labels import Kind, Rules
from hdrmerge.training.reexposure import decode

OPTIONS = LabelOptions(Rules(patch=64, stride=32))


@pytest.fixture(scope="module")
def brackets(
    ramp: np.ndarray, elsewhere: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> list[list[Path]]:
    """One of three frames with things that move, one of two, one of two that are exposed alike."""
    folder = tmp_path_factory.mktemp("brackets")
    rng = np.random.default_rng(0)
    size = (192, 256)
    three = simulate_bracket(ramp, rng, size=size, movers=[elsewhere], saturated_share=0.15, reference=1)
    two = simulate_bracket(elsewhere, rng, size=size, frames=2, reference=1, saturated_share=0.1)
    alike = simulate_bracket(ramp, rng, size=size, frames=2, step_ev=0.4)
    return [
        write_pngs(three, folder / "three"),
        write_jpegs(two, folder / "two"),
        write_pngs(alike, folder / "alike"),
    ]


@pytest.fixture(scope="module")
def labels(brackets: list[list[Path]], tmp_path_factory: pytest.TempPathFactory) -> LabelSet:
    return make_labels(brackets, tmp_path_factory.mktemp("labels"), OPTIONS)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_subset_has_patches(labels: LabelSet) -> None:
    counts = labels.counts()
    assert list(counts) == list(SUBSETS)
    assert min(counts.values()) > 20
    assert counts["MD"] == counts["MDM"]
    assert [(row[0], row[1]) for row in labels.table()] == list(counts.items())
    assert "static, fused" in labels.table()[2][2]


def test_brackets_that_give_nothing_say_why(labels: LabelSet, brackets: list[list[Path]]) -> None:
    reasons = labels.reasons()
    assert list(reasons) == [str(brackets[2][0])]
    assert "no two are 0.7 EV apart" in next(iter(reasons.values()))


def test_files_are_small_and_hold_no_pickle(labels: LabelSet, brackets: list[list[Path]]) -> None:
    path = labels.folder / f"{name_of(brackets[0])}_0.npy"
    records = np.load(path, allow_pickle=False)
    assert records.shape == (192, 256)
    assert records.dtype["codes"].base == np.uint8
    assert records.dtype["codes"].shape == (3, 3)
    assert records.dtype["label"].base == np.float16
    assert path.stat().st_size < 192 * 256 * 15 + 1000
    assert not list(labels.folder.glob("*.part"))


def test_what_is_there_is_not_made_again(
    labels: LabelSet, brackets: list[list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_sets, "read_series", lambda *_: pytest.fail("read again"))
    again = make_labels(brackets, labels.folder, OPTIONS)
    assert again.counts() == labels.counts()


def test_an_interrupted_run_goes_on(labels: LabelSet, brackets: list[list[Path]], tmp_path: Path) -> None:
    def stop(done: int, total: int, reason: str) -> None:
        assert (done, total, reason) == (1, 3, "")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_labels(brackets, tmp_path, OPTIONS, stop)
    assert len(list(tmp_path.glob("*.json"))) == 2  # of the bracket, and of the folder
    make_labels(brackets, tmp_path, OPTIONS)
    assert files(tmp_path) == files(labels.folder)


def test_only_the_brackets_asked_for_are_drawn_from(labels: LabelSet, brackets: list[list[Path]]) -> None:
    one = make_labels(brackets[:1], labels.folder, OPTIONS)
    assert 0 < one.counts()["MD"] < labels.counts()["MD"]
    assert LabelSet(labels.folder).counts() == labels.counts()


def test_labels_made_otherwise_are_not_mixed(labels: LabelSet, brackets: list[list[Path]]) -> None:
    with pytest.raises(InputError, match="differ in 'rules'"):
        make_labels(brackets, labels.folder, LabelOptions(Rules(patch=64, stride=64)))


def test_a_changed_file_makes_another_bracket(brackets: list[list[Path]], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(brackets[0][0].read_bytes())
    before = name_of([path])
    assert name_of([path]) == before
    assert name_of([path], MergeOptions(exposures=StatedExposures(ev_step=1.0))) != before
    path.write_bytes(path.read_bytes() + b"\0")
    assert name_of([path]) != before


def test_nothing_usable_is_an_error_that_says_what_to_shoot(
    brackets: list[list[Path]], tmp_path: Path
) -> None:
    missing = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    with pytest.raises(InputError, match=r"none of 2 brackets .*a\.jpg.*shoot three frames or more"):
        make_labels([brackets[2], missing], tmp_path / "labels", OPTIONS)
    with pytest.raises(InputError, match="none of 0 brackets"):
        make_labels([], tmp_path / "labels", OPTIONS)


def test_frames_too_small_are_named(brackets: list[list[Path]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="256 x 192 px, are smaller than a patch of 200 px"):
        make_labels(brackets[:1], tmp_path, LabelOptions(Rules(patch=200)))


def test_damaged_files_are_named(labels: LabelSet, brackets: list[list[Path]], tmp_path: Path) -> None:
    for name, content in files(labels.folder).items():
        (tmp_path / name).write_bytes(content)
    name = name_of(brackets[0])
    (tmp_path / f"{name}_0.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match=f"{name}_0.npy: is damaged; delete it and {name}.json"):
        make_labels(brackets[:1], tmp_path, OPTIONS).draw(np.random.default_rng(0))
    (tmp_path / f"{name}.json").write_text("{")
    with pytest.raises(InputError, match=rf"{name}\.json: is damaged"):
        make_labels(brackets[:1], tmp_path, OPTIONS)


@pytest.mark.parametrize("subset", SUBSETS)
def test_pairs_are_what_a_network_needs(labels: LabelSet, subset: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        pair = labels.draw(rng, [subset])
        assert pair.subset == subset
        assert pair.codes.shape == (3, 64, 64, 3)
        assert pair.label.shape == (64, 64, 3)
        assert pair.known.shape == (64, 64)
        assert pair.codes.dtype == pair.label.dtype == np.float32
        assert pair.codes.min() >= 0
        assert pair.codes.max() <= 1
        assert np.isfinite(pair.label).all()
        assert pair.exposures[0] < 1 == pair.exposures[1] <= pair.exposures[2]
        unclipped = pair.known & (pair.label.max(axis=-1) < 0.5)
        off = np.abs(decode(pair.codes[1]) - pair.label)[unclipped]
        assert off.size == 0 or off.mean() < 0.01


def test_pairs_are_drawn_from_all_subsets_as_often_as_they_have_patches(labels: LabelSet) -> None:
    rng, counts = np.random.default_rng(0), labels.counts()
    drawn = [labels.draw(rng).subset for _ in range(400)]
    for subset in SUBSETS:
        expected = counts[subset] / sum(counts.values())
        assert drawn.count(subset) / 400 == pytest.approx(expected, abs=0.08)


def test_draws_follow_from_the_seed(labels: LabelSet) -> None:
    first, again = ([labels.draw(np.random.default_rng(seed)).codes for seed in range(8)] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_empty_subset_cannot_be_drawn_from(labels: LabelSet) -> None:
    with pytest.raises(InputError, match="no patch for"):
        labels.draw(np.random.default_rng(0), [])


def test_sheets_of_every_subset(labels: LabelSet, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for subset in SUBSETS:
        pairs = labels.examples(subset, rng, 4)
        assert {pair.subset for pair in pairs} == {subset}
        draw_sheet(pairs, tmp_path / f"{subset}.png")


def test_a_mask_is_transferred_to_where_the_patch_is(labels: LabelSet) -> None:
    (number, patch), *_ = labels._of[Kind.DONOR]
    outer, inner = label_sets.window(patch.top, patch.left, 64, (192, 256))
    size = outer[0].stop - outer[0].start, outer[1].stop - outer[1].start
    own = labels._donated(number, patch, size, inner)
    padded = labels._donated(
        number, patch, (size[0] + 9, size[1] + 5), tuple(slice(s.start + 4, s.stop + 4) for s in inner)
    )
    shifted = tuple(slice(s.start + 14, s.stop - 6) for s in inner)  # the feather reaches 9 px
    same = tuple(slice(s.start + 10, s.stop - 10) for s in inner)
    assert own.shape == size
    assert padded.shape == (size[0] + 9, size[1] + 5)
    assert np.allclose(padded[shifted], own[same], atol=1e-5)
    assert own[inner].mean() > 0.05


def test_a_triplet_comes_back_as_a_bracket(labels: LabelSet) -> None:
    three, two = (labels.bracket(number) for number in range(2))
    assert [len(bracket.frames) for bracket in (three, two)] == [3, 2]
    assert three.reference == two.reference == 1
    assert [frame.exposure for frame in three.frames] == pytest.approx([0.25, 1.0, 4.0], rel=0.05)
    assert three.frames[0].noise.photon > 0
    proxies = [shrink(frame) for frame in three.frames]
    assert all(verdict.used for verdict in align(proxies, 1))
    label, holds = labels.label(0)
    own = three.reference_frame.linear()
    assert 0.1 < holds.mean() <= 1.0
    sure = holds & (label.max(axis=-1) < 0.5)
    assert np.abs(own - label)[sure].mean() < 0.01
    assert label[holds].max() > 1.2  # beyond the reference's white


def test_a_folder_says_how_it_was_made(labels: LabelSet) -> None:
    said = json.loads((labels.folder / "labels.json").read_text())
    assert said["rules"]["patch"] == 64
    assert said["aligned"] is False


def test_how_a_bracket_was_taken(labels: LabelSet) -> None:
    three, two = (labels.taken(number) for number in range(2))
    assert three.exposures == pytest.approx([0.25, 1.0, 4.0], rel=0.05)
    assert (three.reference, three.block, three.quality) == (1, 1, None)
    assert (len(two.exposures), two.reference, two.quality) == (2, 0, 95)
    codes = np.linspace(0.2, 0.9, 8, dtype=np.float32)[:, None].repeat(3, axis=1)
    light = three.curve.decode(np.rint(codes[None] * 255).astype(np.uint8))[0]
    assert np.abs(np.log2(light / srgb_decode(codes))).max() < 0.2  # the simulated camera's is sRGB's
    assert all(len(curve.table) in (256, 4097) for curve in (three.curve, two.curve))


def test_an_older_folder_does_not_say_it(labels: LabelSet) -> None:
    old = LabelSet(labels.folder)
    for entry in old.brackets.values():
        del entry["taken"]
    with pytest.raises(InputError, match=r"\.json: does not say how its bracket was taken.*delete the"):
        old.taken(0)


def test_static_is_what_is_fused(labels: LabelSet) -> None:
    static, (_, holds) = labels.static(0), labels.label(0)
    assert 0.1 < static.mean() < 1.0
    assert not (static & ~holds).any()
