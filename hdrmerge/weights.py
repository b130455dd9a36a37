"""Weights files: find, verify, read, write. The only door to trained networks.

One ONNX file serves both engines. It describes itself: its metadata is the network's card. Its
weights are stored as half floats under their names in the ``state_dict``, each followed by a Cast to
float32 that onnxruntime folds when it loads; torch builds the architecture that the card names and
takes the same numbers. What is needed of ONNX's protocol buffers (onnx.proto; protobuf.dev,
"Encoding") is read here, so that running a network needs no package but its engine. A pickle is
never loaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NetworkError
from .exposure import Array
from .networks import NETWORKS

if TYPE_CHECKING:
    import torch

FOLDERS = (Path(__file__).parents[1] / "weights", Path(__file__).parent / "weights")
"""Where released weights lie: in the checkout, in an installed package."""

TEXTS = ("architecture", "recipe", "data", "licence", "commit", "version")
"""Entries of a card that are plain text; the others (config, halo, multiple, ...) are JSON."""

REQUIRED = ("architecture", "config", "halo", "multiple")
"""What a card must state; `save` adds the names of inputs and outputs."""

OPSET = 17
LARGEST_HALF = 65504.0

FLOAT, FLOAT16 = 1, 10
DTYPES = {FLOAT: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", FLOAT16: "<f2", 11: "<f8"}
"""Of TensorProto.DataType, what a ``state_dict`` may hold here."""

Card = dict[str, Any]

BROKEN = (ValueError, KeyError, IndexError, TypeError, OverflowError)
"""What reading bytes that are no sound message ends in."""


def find(name_or_path: str | Path) -> Path:
    """Return the file of a network: a verified one for a name of the table, or a path as it is."""
    if (row := NETWORKS.get(str(name_or_path))) is not None:
        if not row.sha256:
            raise NetworkError(f"network {row.name}: not released yet; give the path of a weights file")
        for path in (folder / row.file for folder in FOLDERS):
            if path.is_file():
                _verify(path, row.sha256)
                return path
        looked = " and ".join(str(folder) for folder in FOLDERS)
        raise NetworkError(f"network {row.name}: {row.file} is neither in {looked}; install hdrmerge again")
    path = Path(name_or_path)
    if path.suffix.lower() == ".onnx" and path.is_file():
        return path
    if path.exists():
        raise NetworkError(f"{path}: no .onnx file; nothing else is loaded, since a pickle can run any code")
    near = get_close_matches(str(name_or_path), NETWORKS)
    hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(NETWORKS)} or the path of a file"
    raise NetworkError(f"{name_or_path}: neither a network's name nor a file; {hint}")


def _verify(path: Path, sha256: str) -> None:
    """Compare the checksum of a released file with the table's."""
    try:
        status = path.stat()
        found = _digest(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found != sha256:
        raise NetworkError(
            f"{path}: SHA-256 is {found[:12]}..., not {sha256[:12]}...; the file is damaged or was "
            "replaced, install hdrmerge again (or give its path to use it as it is)"
        )


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, mtime: int) -> str:
    """Return the checksum, computed once per process and state of the file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _unreadable(path: Path, error: OSError) -> NetworkError:
    return NetworkError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights")


# --------------------------------------------------------------------------------------- reading


def read_card(path: Path) -> Card:
    """Return what the file says about its network.

    ``architecture`` and ``config`` build it; ``halo`` [px] is the reach of its receptive field and
    ``multiple`` [px] its size rule; ``bytes_per_pixel`` is what inference takes per pixel and item of
    the leading axis; recipe, data, licence, metrics, commit and version tell where it comes from.
    """
    return _read(path)[0]


def load_state(path: Path) -> dict[str, Array]:
    """Return the weights under their names in the ``state_dict``, floats as float32."""
    _, tensors = _read(path)
    try:
        state = dict(_tensor(tensor) for tensor in tensors)
    except BROKEN as error:
        raise _damaged(path) from error
    state.pop("", None)
    return state


def check(path: Path) -> Card:
    """Read a weights file to its end and return its card; raise NetworkError where it cannot be used."""
    card = read_card(path)
    spoilt = [
        name for name, v in load_state(path).items() if v.dtype.kind == "f" and not np.isfinite(v).all()
    ]
    if spoilt:
        raise NetworkError(f"{path}: {spoilt[0]} holds values that are not finite; train or copy it again")
    return card


def _read(path: Path) -> tuple[Card, list[memoryview]]:
    """Return the card and the encoded weights (metadata_props and initializers of a ModelProto)."""
    try:
        content = memoryview(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from error
    card: Card = {}
    tensors: list[memoryview] = []
    try:
        for number, value in _fields(content):
            if number == 14:  # ModelProto.metadata_props
                entry = {n: str(v, "utf-8") for n, v in _fields(value)}
                key, text = entry[1], entry.get(2, "")
                card[key] = text if key in TEXTS else json.loads(text)
            elif number == 7:  # ModelProto.graph
                tensors += [v for n, v in _fields(value) if n == 5]  # GraphProto.initializer
    except BROKEN as error:
        raise _damaged(path) from error
    if lacking := [key for key in (*REQUIRED, "inputs", "outputs") if key not in card]:
        raise NetworkError(
            f"{path}: no network of hdrmerge, its card lacks {', '.join(lacking)}; "
            "use a file that hdrmerge wrote"
        )
    numbers = {"halo": 0, "multiple": 1} | ({"bytes_per_pixel": 1} if "bytes_per_pixel" in card else {})
    sound = isinstance(card["config"], dict) and isinstance(card["outputs"], list)
    sound &= all(isinstance(card[key], int | float) and card[key] >= least for key, least in numbers.items())
    if not sound:
        raise NetworkError(f"{path}: its card makes no sense; use a file that hdrmerge wrote")
    return card, tensors


def _damaged(path: Path) -> NetworkError:
    return NetworkError(f"{path}: damaged, or no ONNX file; copy or download it again")


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yield number and value of a protobuf message's fields; ValueError or IndexError where it breaks."""
    position, end = 0, len(message)

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte: int = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            if (shift := shift + 7) > 63:
                raise ValueError("a number of more than ten bytes")

    while position < end:
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        length = varint() if kind == 2 else {1: 8, 5: 4}.get(kind, end + 1)
        if length > end - position:
            raise ValueError("a field beyond the end")
        position += length
        yield number, message[position - length : position]


def _tensor(encoded: memoryview) -> tuple[str, Array]:
    """Return name and values of a TensorProto; floats as float32."""
    name, raw, kind, dims = "", memoryview(b""), 0, []
    for number, value in _fields(encoded):
        if number == 1:
            dims += [value] if isinstance(value, int) else list(_packed(value))
        elif number == 2:
            kind = value
        elif number == 8:
            name = str(value, "utf-8")
        elif number == 9:
            raw = value
    values = np.frombuffer(raw, DTYPES[kind]).reshape(dims)
    return name, values.astype(np.float32) if kind == FLOAT16 else values.copy()


def _packed(encoded: memoryview) -> Iterator[int]:
    """Yield the numbers of a packed field: each is wrapped as field 1 to be read like any other."""
    start = 0
    for i, byte in enumerate(encoded):
        if byte < 0x80:
            yield next(_fields(b"\x08" + bytes(encoded[start : i + 1])))[1]
            start = i + 1


# --------------------------------------------------------------------------------------- writing


def save(
    module: torch.nn.Module,
    example_inputs: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
    path: Path,
    card: Mapping[str, Any],
) -> None:
    """Write a network and its card as one ONNX file, whole or not at all; replaces an older one.

    ``example_inputs`` go to ``forward`` in order; ``dynamic_axes`` names the axes that may change, for
    inputs and outputs. Parameters are stored as half floats, where they fit, and buffers as they are.
    Needs the packages of ``hdrmerge[train]``.
    """
    import onnx

    if lacking := [key for key in REQUIRED if key not in card]:
        raise NetworkError(f"{path}: the card lacks {', '.join(lacking)}; state them")
    encoded, state, halves = _export(module, example_inputs, output_names, dynamic_axes)
    model = onnx.load_model_from_string(encoded)
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    casts = []
    for name, values in state.items():
        if f"{name}.float" not in used:
            if not name.endswith("num_batches_tracked"):
                raise NetworkError(f"{path}: {name} plays no part in the outputs; remove it from the network")
            continue
        wide = values.dtype.kind != "f" or name not in halves or np.abs(values).max(initial=0) > LARGEST_HALF
        stored = values if wide else values.astype(np.float16)
        graph.initializer.append(onnx.numpy_helper.from_array(stored, name))
        kind = FLOAT if values.dtype.kind == "f" else graph.initializer[-1].data_type
        casts.append(onnx.helper.make_node("Cast", [name], [f"{name}.float"], name=f"{name}.cast", to=kind))
    nodes = [*casts, *graph.node]
    inputs = [value for value in graph.input if value.name in example_inputs]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(inputs)
    if lacking := [name for name in example_inputs if name not in {value.name for value in inputs}]:
        raise NetworkError(f"{path}: input {lacking[0]} plays no part in the outputs; leave it out")
    model.producer_name, model.producer_version = "hdrmerge", ""
    entries = {**card, "inputs": list(example_inputs), "outputs": list(output_names)}
    onnx.helper.set_model_props(
        model, {key: str(value) if key in TEXTS else json.dumps(value) for key, value in entries.items()}
    )
    onnx.checker.check_model(model, full_check=True)
    _replace(path, model.SerializeToString(deterministic=True))


def _export(
    module: torch.nn.Module,
    example_inputs: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    dynamic_axes: Mapping[str, Mapping[int, str]],
) -> tuple[bytes, dict[str, Array], set[str]]:
    """Return the graph with all weights as inputs, the weights, and which of them are parameters.

    Weights that are constants would be folded, merged and renamed by the exporter; as inputs called
    ``<name>.float`` they cannot be. TorchScript's exporter, because it needs no onnxscript and takes a
    tenth of the time (0.2 against 3.8 s).
    """
    import copy

    import torch

    bare = copy.deepcopy(module).cpu().float().eval().requires_grad_(False)
    state = {name: value.detach().clone().contiguous() for name, value in bare.state_dict().items()}
    halves = {name for name, _ in bare.named_parameters(remove_duplicate=False)}
    owners, count = dict(bare.named_modules(remove_duplicate=False)), len(example_inputs)

    class Traced(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        """The network as a function of inputs and weights."""

        def forward(self, *tensors: Any) -> Any:
            for name, value in zip(state, tensors[count:], strict=True):
                owner_name, _, leaf = name.rpartition(".")
                owner = owners[owner_name]
                delattr(owner, leaf)  # a parameter may not be replaced by a plain tensor
                setattr(owner, leaf, value)
            return bare(*tensors[:count])

    def power(graph: Any, exponent: Any) -> Any:
        return graph.op("Pow", graph.op("Constant", value_t=torch.tensor(2.0)), exponent)

    def growth(graph: Any, exponent: Any) -> Any:
        return graph.op("Sub", graph.op("Exp", exponent), graph.op("Constant", value_t=torch.tensor(1.0)))

    exporter: Any = torch.onnx  # whose types differ by version
    for operator, symbolic in {"aten::exp2": power, "aten::expm1": growth}.items():  # what it lacks
        exporter.register_custom_op_symbolic(operator, symbolic, OPSET)
    target = io.BytesIO()  # not a path: nothing half-written
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations, and remarks on shapes that are meant to be fixed
        exporter.export(
            Traced().eval(),
            (*(value.cpu().float() for value in example_inputs.values()), *state.values()),
            target,
            input_names=[*example_inputs, *(f"{name}.float" for name in state)],
            output_names=list(output_names),
            dynamic_axes={name: dict(axes) for name, axes in dynamic_axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )
    return target.getvalue(), {name: value.numpy() for name, value in state.items()}, halves


def _replace(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there."""
    from .write import unwritable

    temporary = path.with_name(f".hdrmerge-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
