"""Engines and tiles: both engines agree, and tiles give what the whole image gives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hdrmerge import infer, networks, weights
from hdrmerge.errors import NetworkError
from hdrmerge.infer import Arrays, Engine, open_engine, run_boxes, run_tiled
from hdrmerge.tiles import Box

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import tiny_network  # noqa: E402
from tiny_network import HALO, MULTIPLE, images  # noqa: E402

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network.save(tmp_path_factory.mktemp("weights") / "tiny.onnx")


@pytest.fixture(scope="module")
def engine(file: Path) -> Engine:
    return open_engine(file, device="cpu", engine="onnxruntime", threads=1)


@pytest.fixture
def in_torch(file: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(networks, "build", tiny_network.build)
    return open_engine(file, device="cpu", engine="torch", threads=1)


class Blur(Engine):
    """A 3x3 mean of the only input, without memory for windows above ``capacity`` pixels."""

    def __init__(self, capacity: float = np.inf, error: Exception | None = None) -> None:
        super().__init__(Path("blur.onnx"), {}, "cpu", "fp32")
        self.capacity, self.error = capacity, error or MemoryError()
        self.windows: list[tuple[int, int]] = []
        self.lasts: list[bool] = []

    def run(self, inputs: Mapping[str, np.ndarray], *, last: bool = False) -> Arrays:
        (values,) = inputs.values()
        assert values.flags.c_contiguous
        height, width = values.shape[-2:]
        if height * width > self.capacity:
            raise self.error
        self.windows.append((height, width))
        self.lasts.append(last)
        padded = np.pad(values, [(0, 0), (0, 0), (1, 1), (1, 1)])
        shifts = [(i, j) for i in range(3) for j in range(3)]
        return {"out": sum(padded[..., i : i + height, j : j + width] for i, j in shifts) / np.float32(9)}

    def describe(self) -> str:
        return "blur"


def difference(one: Arrays, other: Arrays) -> float:
    assert list(one) == list(other)
    assert all(one[name].shape == other[name].shape for name in one)
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


# ------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("frames, height, width", [(1, 32, 48), (2, 4, 4), (5, 36, 64), (8, 64, 20)])
def test_engines_agree_for_any_number_of_frames(
    engine: Engine, in_torch: Engine, frames: int, height: int, width: int
) -> None:
    inputs = images(frames, height, width)
    here, there = engine.run(inputs), in_torch.run(inputs)
    assert here["trust"].shape == (frames, 1, height, width)
    assert here["residual"].shape == (1, 3, height, width)
    assert difference(here, there) < 1e-3
    with torch.no_grad():  # and with the network before it was written, but for half floats
        direct = tiny_network.trained()(*(torch.from_numpy(values) for values in inputs.values()))
    np.testing.assert_allclose(here["trust"], direct[0].numpy(), atol=1e-2)
    assert all(values.dtype == np.float32 for values in [*here.values(), *there.values()])


def test_bf16_on_the_cpu_is_close(file: Path, in_torch: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = images(2, 32, 32)
    monkeypatch.setattr(networks, "build", tiny_network.build)
    half = open_engine(file, device="cpu", precision="bf16", threads=1)
    assert half.describe().startswith("torch ")
    assert half.describe().endswith(" cpu bf16")
    assert 0 < difference(half.run(inputs), in_torch.run(inputs)) < 0.1


def test_read_only_arrays_are_welcome(in_torch: Engine) -> None:
    inputs = images(1, 8, 8)
    for values in inputs.values():
        values.setflags(write=False)
    in_torch.run(inputs)


def test_engines_say_what_they_are(engine: Engine, in_torch: Engine) -> None:
    import onnxruntime

    assert engine.describe() == f"onnxruntime {onnxruntime.__version__} cpu fp32"
    assert in_torch.describe().endswith(" cpu fp32")


def test_the_cpu_prefers_onnxruntime(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "_has_cuda_driver", lambda: False)
    assert open_engine(file).describe().startswith("onnxruntime")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(networks, "build", tiny_network.build)
    assert open_engine(file).describe().startswith("torch")


def test_no_engine_names_the_extra(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NetworkError, match="onnxruntime, which is not installed"):
        open_engine(file, engine="onnxruntime")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(NetworkError, match=r'pip install "hdrmerge\[cpu\]"'):
        open_engine(file)
    assert infer.engines() == []


@pytest.mark.parametrize(
    "options, found",
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "cpu:1"}, "no device 'cpu:1'"),
        ({"device": "cuda:x"}, "no device 'cuda:x'"),
        ({"precision": "int3"}, "no precision 'int3'"),
        ({"engine": "abacus"}, "no engine 'abacus'"),
        ({"precision": "fp16", "device": "cpu", "engine": "onnxruntime"}, "needs torch"),
    ],
)
def test_what_does_not_exist_is_refused(file: Path, options: dict[str, str], found: str) -> None:
    with pytest.raises(NetworkError, match=found):
        open_engine(file, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(file: Path) -> None:
    with pytest.raises(NetworkError, match=r"hdrmerge\[cuda\]"):
        open_engine(file, device="cuda")


def test_weights_that_do_not_fit_the_architecture(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "build", lambda architecture, config: torch.nn.Conv2d(1, 1, 1))
    with pytest.raises(NetworkError, match="do not fit"):
        open_engine(file, device="cpu", engine="torch")


def test_a_graph_that_onnxruntime_refuses(file: Path, tmp_path: Path) -> None:
    import onnx

    model = onnx.load(file)
    model.graph.node[-1].op_type = "Nonsense"
    onnx.save(model, tmp_path / "nonsense.onnx")
    with pytest.raises(NetworkError, match="onnxruntime cannot load it") as caught:
        open_engine(tmp_path / "nonsense.onnx", device="cpu", engine="onnxruntime")
    assert "\n" not in str(caught.value)


@on_cuda
@pytest.mark.parametrize("library", ["torch", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_cuda_gives_what_the_cpu_gives(
    file: Path, engine: Engine, library: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "build", tiny_network.build)
    if library not in infer._on_cuda([library], 0):
        pytest.skip(f"{library} without CUDA")
    there = open_engine(file, device="cuda", precision=precision, engine=library)
    assert "cuda:0" in there.describe()
    inputs = images(3, 64, 96)
    found, truth = there.run(inputs), engine.run(inputs)
    scale = max(float(np.abs(values).max()) for values in truth.values())
    assert difference(found, truth) < 1e-3 * max(scale, 1.0) * (1 if precision == "fp32" else 4)
    tiled = run_tiled(there, images(3, 61, 97), HALO, MULTIPLE, tile=32)
    assert difference(tiled, run_tiled(there, images(3, 61, 97), HALO, MULTIPLE)) < 1e-2


@on_cuda
def test_auto_takes_cuda(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "build", tiny_network.build)
    assert open_engine(file).device == "cuda:0"
    assert open_engine(file).free_memory() > 2**20


# --------------------------------------------------------------------------------------------- tiles


def test_tiles_equal_the_whole_as_far_as_the_halo_reaches(engine: Engine) -> None:
    inputs = images(2, 93, 118)
    whole = run_tiled(engine, inputs, 0, MULTIPLE, tile=120)
    assert difference(run_tiled(engine, inputs, HALO, MULTIPLE, tile=40), whole) < 1e-5
    assert difference(run_tiled(engine, inputs, HALO - MULTIPLE, MULTIPLE, tile=40), whole) > 1e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2), (37, 53), (64, 5), (4, 101)])
def test_any_size_works(engine: Engine, size: tuple[int, int]) -> None:
    inputs = images(2, *size)
    found = run_tiled(engine, inputs, HALO, MULTIPLE, tile=16)
    padded = {
        name: np.pad(v, [(0, 0), (0, 0), *((0, -n % MULTIPLE) for n in size)], mode="edge")
        for name, v in inputs.items()
    }
    whole = {name: v[..., : size[0], : size[1]] for name, v in engine.run(padded).items()}
    assert difference(found, whole) < 1e-5


def test_tile_sizes_that_are_no_multiple_are_rounded(engine: Engine) -> None:
    inputs = images(1, 50, 50)
    whole = run_tiled(engine, inputs, HALO, MULTIPLE)
    assert difference(run_tiled(engine, inputs, HALO - 1, MULTIPLE, tile=17), whole) < 1e-5


def test_only_what_is_wanted_is_computed() -> None:
    blur, image = Blur(), np.random.default_rng(0).random((1, 1, 200, 300), dtype=np.float32)
    whole = Blur().run({"in": image})["out"]
    wanted = np.zeros((200, 300), dtype=bool)
    wanted[10, 20] = wanted[150:160, 270:] = True
    found = run_tiled(blur, {"in": image}, 1, 2, wanted, tile=100)["out"]
    np.testing.assert_allclose(found[0, 0][wanted], whole[0, 0][wanted], rtol=1e-6)
    assert sorted(blur.windows) == [(6, 6), (14, 32)]  # the boxes on a grid of two, with a halo of two
    assert np.count_nonzero(found) <= 12 * 32
    assert blur.lasts == [False, True]


def test_one_wanted_patch_is_one_tile_wherever_it_lies() -> None:
    blur, wanted = Blur(), np.zeros((200, 200), dtype=bool)
    wanted[95:105, 95:105] = True  # across the corner of four tiles
    run_tiled(blur, {"in": np.ones((1, 1, 200, 200), np.float32)}, 1, 2, wanted, tile=100)
    assert len(blur.windows) == 1


def test_nothing_wanted_is_zeros_of_the_right_shape(engine: Engine) -> None:
    found = run_tiled(engine, images(3, 50, 70), HALO, MULTIPLE, np.zeros((50, 70), dtype=bool))
    assert {name: values.shape for name, values in found.items()} == {
        "trust": (3, 1, 50, 70),
        "residual": (1, 3, 50, 70),
    }
    assert not any(values.any() for values in found.values())


def test_views_of_larger_arrays_are_cut_without_a_copy_of_the_whole() -> None:
    blur, image = Blur(), np.random.default_rng(0).random((150, 210, 1), dtype=np.float32)
    found = run_tiled(blur, {"in": image.transpose(2, 0, 1)[None, :, ::-1]}, 1, 2, tile=64)["out"]
    whole = Blur().run({"in": np.ascontiguousarray(image[::-1].transpose(2, 0, 1)[None])})["out"]
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    assert max(max(window) for window in blur.windows) <= 64 + 4


def test_windows_are_fetched_one_by_one_and_given_part_by_part() -> None:
    """Nothing of the whole picture is held but what the caller holds."""
    image = np.random.default_rng(0).random((1, 1, 90, 130), dtype=np.float32)
    blur, fetched, result = Blur(), [], np.zeros_like(image)

    def fetch(window: Box) -> Arrays:
        fetched.append(window)
        return {"in": image[window.part]}

    for done, (box, found) in enumerate(run_boxes(blur, fetch, (90, 130), 1, 4, tile=40), 1):
        assert len(fetched) == len(blur.windows) == done
        result[box.part] = found["out"]
    whole = Blur().run({"in": np.pad(image, [(0, 0), (0, 0), (0, 2), (0, 2)], mode="edge")})["out"]
    np.testing.assert_allclose(result, whole[..., :90, :130], rtol=1e-6)
    assert len(fetched) == 12
    assert max(window.bottom for window in fetched) == 90  # padding is not the caller's business
    assert max(window.right for window in fetched) == 130


def test_the_largest_tile_binds_where_memory_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    blur, image = Blur(), np.ones((1, 1, 100, 100), np.float32)
    monkeypatch.setattr(blur, "free_memory", lambda: 1e12)
    found = run_boxes(blur, lambda window: {"in": image[window.part]}, (100, 100), 1, 2, largest=50)
    assert [box for box, _ in found] == [Box(y, y + 50, x, x + 50) for y in (0, 50) for x in (0, 50)]


def test_progress_is_the_share_of_the_work_halos_included() -> None:
    """A tile at the border has less of it; a time that is left is told from this share."""
    blur, shares = Blur(), []
    for _ in run_boxes(
        blur,
        lambda window: {"in": np.ones((1, 1, *(n.stop - n.start for n in window.part[1:])), np.float32)},
        (96, 32),
        16,
        4,
        tile=32,
        progress=shares.append,
    ):
        pass
    work = np.array([32 * 48, 32 * 64, 32 * 48])
    assert shares == pytest.approx(list(np.cumsum(work) / work.sum()))


def test_progress_rises_to_one() -> None:
    shares: list[float] = []
    run_tiled(Blur(), {"in": np.ones((1, 1, 100, 90), np.float32)}, 1, 2, tile=32, progress=shares.append)
    assert len(shares) == 12
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
        Exception("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9"),
        Exception("Exception during initialization: std::bad_alloc"),
    ],
)
def test_out_of_memory_is_met_with_smaller_tiles(error: Exception) -> None:
    image = np.random.default_rng(0).random((1, 1, 300, 500), dtype=np.float32)
    whole = Blur().run({"in": image})["out"]
    blur, shares = Blur(capacity=150 * 150, error=error), []
    found = run_tiled(blur, {"in": image}, 1, 2, progress=shares.append)["out"]
    np.testing.assert_allclose(found, whole, rtol=1e-6)
    assert len(blur.windows) > 1
    assert shares[-1] == 1.0
    assert blur.lasts.count(True) == 1


def test_too_little_memory_for_the_smallest_tile_is_an_error() -> None:
    with pytest.raises(NetworkError, match="not enough memory even for tiles of 64 px"):
        run_tiled(Blur(capacity=20), {"in": np.ones((1, 1, 300, 500), np.float32)}, 1, 2)


def test_other_failures_are_not_taken_for_memory() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        run_tiled(
            Blur(capacity=1, error=RuntimeError("a bug")), {"in": np.ones((1, 1, 9, 9), np.float32)}, 1, 1
        )


def test_tiles_shrink_with_memory_and_grow_with_thrift(monkeypatch: pytest.MonkeyPatch) -> None:
    def window(free: float, bytes_per_pixel: float, frames: int) -> int:
        blur = Blur()
        blur.card = {"bytes_per_pixel": bytes_per_pixel}
        monkeypatch.setattr(blur, "free_memory", lambda: free)
        run_tiled(blur, {"in": np.ones((frames, 1, 900, 1300), np.float32)}, 20, 4)
        return max(h * w for h, w in blur.windows)

    assert window(1e9, 100, 1) == 900 * 1300
    for free, need, frames in ((1e8, 400, 1), (1e8, 400, 2), (4e7, 400, 1), (1e9, 1200, 5)):
        assert 0.25 * free / need / frames < window(free, need, frames) <= free / need / frames


def test_the_system_tells_its_memory(engine: Engine) -> None:
    assert engine.free_memory() > 2**20


def test_inputs_must_agree_in_size() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        run_tiled(Blur(), {"a": np.ones((1, 1, 4, 4)), "b": np.ones((1, 1, 4, 8))}, 1, 1)


def test_the_card_says_how_to_tile(file: Path) -> None:
    card = weights.read_card(file)
    assert (card["halo"], card["multiple"]) == (HALO, MULTIPLE)
