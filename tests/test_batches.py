"""Patches cut from examples: from files, and in the memory of a device."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra train")

from made_examples import noise, write_examples  # noqa: E402

from hdrmerge.errors import InputError  # noqa: E402
from hdrmerge.training.batches import OTHERS, Batch, Resident, cut_patch, read_batches  # noqa: E402
from hdrmerge.training.examples import Example  # noqa: E402


def mapped(frames: int = 3) -> Example:
    """Return an example each of whose planes holds the number of each pixel."""
    where = np.arange(40 * 48, dtype=np.float16).reshape(40, 48)
    return Example(
        np.repeat(where[None], 7, 0),
        np.repeat(np.repeat(where[None], 10, 0)[None], frames, 0),
        np.repeat(where[None], 3, 0),
        where,
        where,
    )


def test_shapes_and_types() -> None:
    patch = cut_patch(noise(frames=4), np.random.default_rng(0), 32, 2)
    assert patch is not None
    assert [plane.shape for plane in patch] == [
        (7, 32, 32),
        (2, 10, 32, 32),
        (3, 32, 32),
        (1, 32, 32),
        (1, 32, 32),
        (),
    ]


def test_too_few_frames_give_nothing() -> None:
    assert cut_patch(noise(frames=1), np.random.default_rng(0), 32, 2) is None
    assert cut_patch(noise(frames=2), np.random.default_rng(0), 32, 2) is not None


def test_all_planes_are_cut_and_turned_alike() -> None:
    """Every plane holds the numbers of its pixels; eight orientations put different ones in the corner."""
    seen = set()
    for seed in range(40):
        patch = cut_patch(mapped(), np.random.default_rng(seed), 16, 2)
        assert patch is not None
        reference, frames, truth, moving, saturated, _ = patch
        where = reference[0]
        planes = [*reference, *frames.reshape(-1, 16, 16), *truth, *moving, *saturated]
        assert all(np.array_equal(plane, where) for plane in planes)
        down, right = float(where[1, 0] - where[0, 0]), float(where[0, 1] - where[0, 0])
        assert {abs(down), abs(right)} == {1.0, 48.0}
        seen.add((down, right))
    assert len(seen) == 8


def test_colours_change_places_in_all_planes_alike() -> None:
    example = noise(frames=2)
    for planes in (example.reference, *example.frames, example.truth):
        planes[:3] = np.float16([1, 2, 3])[:, None, None] / 4
    orders = set()
    for seed in range(30):
        patch = cut_patch(example, np.random.default_rng(seed), 16, 2)
        assert patch is not None
        colours = tuple(patch[0][:3, 0, 0].tolist())
        assert tuple(patch[2][:, 0, 0].tolist()) == colours
        assert all(tuple(frame[:3, 0, 0].tolist()) == colours for frame in patch[1])
        orders.add(colours)
    assert len(orders) == 6


def test_frames_stay_in_order_of_exposure_and_tell_the_peak() -> None:
    example = noise(frames=5)
    peaks = set()
    for seed in range(20):
        patch = cut_patch(example, np.random.default_rng(seed), 16, 3)
        assert patch is not None
        stops = patch[1][:, 8, 0, 0].astype(float) * 8
        assert (np.diff(stops) > 0).all()
        assert patch[5] == 2.0 ** -min(stops[0], 0.0)
        peaks.add(float(patch[5]))
    assert peaks == {4.0, 1.0}  # the only shorter frame is among those chosen, or not


def assert_fits(batch: Batch, number: int, size: int) -> None:
    count = batch.frames.shape[1]
    assert count in OTHERS
    shapes = {"reference": (7,), "frames": (count, 10), "truth": (3,), "moving": (1,), "saturated": (1,)}
    for name, planes in shapes.items():
        values = getattr(batch, name)
        assert values.dtype == torch.float32
        assert tuple(values.shape) == (number, *planes, size, size)
    assert tuple(batch.peak.shape) == (number,)


def test_batches_come_from_files_for_ever(tmp_path: Path) -> None:
    folder = write_examples(tmp_path, 1, 2, 3, 5)
    with closing(read_batches(folder, np.random.default_rng(0), 3, 32)) as batches:
        counts = set()
        for _ in range(20):
            batch = next(batches)
            assert_fits(batch, 3, 32)
            counts.add(batch.frames.shape[1])
    assert counts == {1, 2, 3}


def test_a_device_cuts_the_same_batches(tmp_path: Path) -> None:
    folder = write_examples(tmp_path, 1, 2, 3, 5)
    device = torch.device("cpu")
    resident = Resident(folder, device)
    assert all(planes.dtype == torch.float16 for planes in resident.planes)
    cut = resident.batches(np.random.default_rng(4), 3, 32)
    with closing(read_batches(folder, np.random.default_rng(4), 3, 32)) as read:
        for _ in range(10):
            ours, theirs = next(cut), next(read)
            assert_fits(ours, 3, 32)
            for name in Batch.__dataclass_fields__:
                assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


def test_only_a_gpu_keeps_examples_in_memory(tmp_path: Path) -> None:
    assert not Resident.fits(write_examples(tmp_path, 2), torch.device("cpu"))


def test_a_folder_of_pairs_will_do(tmp_path: Path) -> None:
    folder = write_examples(tmp_path, 1)
    with closing(read_batches(folder, np.random.default_rng(0), 2, 32)) as batches:
        assert [next(batches).frames.shape[1] for _ in range(4)] == [1, 1, 1, 1]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examples"):
        next(read_batches(tmp_path, np.random.default_rng(0), 2, 32))
    with pytest.raises(InputError, match="no examples"):
        Resident(tmp_path, torch.device("cpu"))


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "000001_0.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"000001_0\.npy: is damaged"):
        next(read_batches(tmp_path, np.random.default_rng(0), 2, 32))


def test_readers_end_with_their_batches(tmp_path: Path) -> None:
    before = threading.active_count()
    batches = read_batches(write_examples(tmp_path, 3), np.random.default_rng(0), 2, 32, threads=2)
    next(batches)
    assert threading.active_count() == before + 2
    batches.close()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.02)
    assert threading.active_count() == before
