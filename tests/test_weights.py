"""The weights file: names, checksums, cards, and that what is read is what was written."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import tiny_network  # noqa: E402

from hdrmerge import networks, weights  # noqa: E402
from hdrmerge.errors import NetworkError, OutputError  # noqa: E402
from hdrmerge.networks import NETWORKS  # noqa: E402


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network.save(tmp_path_factory.mktemp("weights") / "tiny.onnx")


@pytest.fixture
def released(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights whose table holds the tiny network as "trust"."""
    (tmp_path / "trust.onnx").write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "trust", replace(NETWORKS["trust"], sha256=digest))
    monkeypatch.setattr(weights, "FOLDERS", (tmp_path / "absent", tmp_path))
    return tmp_path


def test_the_state_comes_back_to_half_precision(file: Path) -> None:
    written, read = tiny_network.trained().state_dict(), weights.load_state(file)
    assert set(read) == {name for name in written if not name.endswith("num_batches_tracked")}
    for name, values in read.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, written[name].numpy(), rtol=1e-3, atol=1e-7, err_msg=name)


def test_buffers_keep_their_precision(file: Path) -> None:
    written = tiny_network.trained().state_dict()
    for name in ("table", "norm.running_mean", "norm.running_var"):
        np.testing.assert_array_equal(weights.load_state(file)[name], written[name].numpy())


def test_the_file_stores_half_floats(file: Path) -> None:
    parameters = sum(value.numel() for value in tiny_network.trained().parameters())
    graph = onnx.load(file).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    assert stored["enter.weight"].data_type == onnx.TensorProto.FLOAT16
    assert sum(len(t.raw_data) for t in stored.values() if t.data_type == 10) == 2 * parameters
    assert [value.name for value in graph.input] == ["reference", "frames"]


def test_values_too_large_for_half_stay_as_they_are(tmp_path: Path) -> None:
    network = tiny_network.trained()
    with torch.no_grad():
        network.gain.fill_(1e6)
    read = weights.load_state(tiny_network.save(tmp_path / "large.onnx", network))
    np.testing.assert_array_equal(read["gain"], 1e6)


def test_the_card_comes_back(file: Path) -> None:
    card = weights.check(file)
    assert card == weights.read_card(file)
    assert card == tiny_network.CARD | {"inputs": ["reference", "frames"], "outputs": ["trust", "residual"]}


def test_the_reader_agrees_with_the_onnx_package(file: Path) -> None:
    read = weights.load_state(file)
    for tensor in onnx.load(file).graph.initializer:
        if tensor.name in read:
            np.testing.assert_array_equal(read[tensor.name], onnx.numpy_helper.to_array(tensor))


def test_saving_is_reproducible_and_leaves_the_network_alone(tmp_path: Path) -> None:
    network = tiny_network.trained().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (tiny_network.save(tmp_path / f"{i}.onnx", network).read_bytes() for i in range(2))
    assert first == second
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_failed_write_leaves_the_old_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "kept.onnx"
    target.write_bytes(b"old")

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as half:
            half.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        tiny_network.save(target)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept.onnx", b"old")]


def test_what_plays_no_part_is_refused(tmp_path: Path) -> None:
    network = tiny_network.trained()
    network.idle = torch.nn.Linear(2, 2)
    with pytest.raises(NetworkError, match=r"idle\.weight plays no part"):
        tiny_network.save(tmp_path / "idle.onnx", network)


def test_a_card_must_say_how_to_run_it(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="lacks halo"):
        weights.save(torch.nn.ReLU(), {}, (), {}, tmp_path / "x.onnx", {"architecture": "", "config": {}})


def test_a_name_finds_the_released_file(released: Path) -> None:
    assert weights.find("trust") == released / "trust.onnx"


def test_a_path_finds_itself(file: Path) -> None:
    assert weights.find(str(file)) == weights.find(file) == file


def test_a_changed_file_is_refused_by_name(released: Path) -> None:
    assert weights.find("trust")
    content = bytearray((released / "trust.onnx").read_bytes())
    content[-1] ^= 1
    (released / "trust.onnx").write_bytes(content)
    with pytest.raises(NetworkError, match="SHA-256"):
        weights.find("trust")


def test_the_checksum_is_computed_once(released: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights.find("trust")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read again"))
    weights.find("trust")


def test_a_released_file_that_is_gone(released: Path) -> None:
    (released / "trust.onnx").unlink()
    with pytest.raises(NetworkError, match="install hdrmerge again"):
        weights.find("trust")


def test_a_network_without_checksum_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "trust", replace(NETWORKS["trust"], sha256=""))
    with pytest.raises(NetworkError, match="not released yet"):
        weights.find("trust")


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(NetworkError, match="did you mean trust"):
        weights.find("trusst")


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl", "weights.pt"])
def test_a_pickle_is_refused_unread(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps({"enter.weight": 1}))
    with pytest.raises(NetworkError, match="a pickle can run any code"):
        weights.find(tmp_path / name)


def test_a_pickle_by_another_name_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(pickle.dumps({"enter.weight": list(range(100))}))
    with pytest.raises(NetworkError, match=r"x\.onnx"):
        weights.check(weights.find(tmp_path / "x.onnx"))


def test_damaged_files_are_errors_of_ours(file: Path, tmp_path: Path) -> None:
    whole, spoilt = file.read_bytes(), tmp_path / "spoilt.onnx"
    rng = np.random.default_rng(0)
    for share in (0, 0.1, 0.5, 0.9, 0.999):
        spoilt.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(NetworkError, match=r"spoilt\.onnx"):
            weights.check(spoilt)
    for _ in range(50):  # a changed weight cannot be told without a checksum, but nothing else may escape
        content = bytearray(whole)
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        spoilt.write_bytes(content)
        with suppress(NetworkError):
            weights.check(spoilt)


def test_a_foreign_onnx_file_is_refused(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(NetworkError, match="no network of hdrmerge"):
        weights.read_card(tmp_path / "foreign.onnx")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = tiny_network.trained()
    with torch.no_grad():
        network.enter.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(NetworkError, match=r"enter\.weight holds values that are not finite"):
        weights.check(tiny_network.save(tmp_path / "nan.onnx", network))


@pytest.mark.parametrize("architecture", ["no_such_network", "os.path", "", "../x"])
def test_an_unknown_architecture_is_an_error(architecture: str) -> None:
    with pytest.raises(NetworkError, match="architecture"):
        networks.build(architecture, {})


def test_the_table_is_filled_in() -> None:
    for name, row in NETWORKS.items():
        assert row.name == name
        assert row.file == f"{name}.onnx"
        assert len(row.sha256) in (0, 64)
