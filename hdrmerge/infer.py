"""Running networks: one interface to onnxruntime and torch, and images larger than memory in tiles.

Arrays are (n, C, H, W) float32 on the outside, whatever the engine computes in.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from . import networks, weights
from .errors import NetworkError
from .exposure import Float, Mask
from .tiles import Box, around, crop, filled, round_up, tiles, window_of

DEVICES = ("auto", "cpu", "cuda", "cuda:N")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")
ENGINES = ("auto", "onnxruntime", "torch")

INSTALL = 'pip install "hdrmerge[cpu]"'
INSTALL_CUDA = 'pip install "hdrmerge[cuda]"'

BYTES_PER_PIXEL = 1600
"""Of a window, per item of the leading axis, where the card does not tell: what a U-Net of 32 channels
at full resolution was seen to take in onnxruntime."""

SMALLEST_TILE = 64  # [px]: the halo costs more than the tile long before
CPU_MEMORY = 420 * 2**20
"""What a window takes on the CPU [bytes], though more be free: a merge is to stay near a gigabyte."""
UNKNOWN_MEMORY = 2 * CPU_MEMORY  # [bytes] free where the system does not tell

OUT_OF_MEMORY = (
    "out of memory",  # torch and CUDA
    "can't allocate memory",  # torch on the CPU
    "not enough memory",  # the same on Windows
    "failed to allocate memory",  # onnxruntime's arena
    "bad_alloc",
    "bad allocation",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED and its sisters
)

Arrays = dict[str, Float]


class Engine(ABC):
    """A network that is ready to run: ``run`` maps named arrays to named arrays."""

    def __init__(self, path: Path, card: weights.Card, device: str, precision: str) -> None:
        self.path, self.card, self.device, self.precision = path, card, device, precision

    @abstractmethod
    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        """Run the network on (n, C, h, w) arrays; ``last`` gives the working memory back afterwards."""

    @abstractmethod
    def describe(self) -> str:
        """Return library, version, device and precision, as in "onnxruntime 1.32.0 cpu fp32"."""

    def free_memory(self) -> float:
        """Return the bytes that a window may take: half of what is free."""
        free = _free_memory() if self.device == "cpu" else _free_on_gpu(_index(self.device))
        return (free or UNKNOWN_MEMORY) / 2


class OnnxEngine(Engine):
    """The file as it is, in onnxruntime."""

    def __init__(self, path: Path, card: weights.Card, device: str, precision: str, threads: int) -> None:
        import onnxruntime

        super().__init__(path, card, device, precision)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what matters is raised
        # One arena for tiles of all shapes: with memory patterns a second shape doubles it, and without
        # the arena every tensor is paged in anew (2 x 768 x 768: 1.3 against 2.1 GB; 0.65 against 1.0 s).
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.force_spinning_stop", "1")  # idle between tiles
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            settings = {
                "device_id": _index(device),
                "arena_extend_strategy": "kSameAsRequested",
                "cudnn_conv_algo_search": "HEURISTIC",  # tiles have many shapes; a search takes seconds
                "use_tf32": str(int(precision == "tf32")),
            }
            providers.insert(0, ("CUDAExecutionProvider", settings))
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # its exceptions have no common base but this one
            raise NetworkError(f"{path}: onnxruntime cannot load it ({_line(error)})") from error
        if device != "cpu" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise NetworkError(f"onnxruntime finds no CUDA libraries for {device}; {INSTALL_CUDA}")
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._shrinking = onnxruntime.RunOptions()
        arena = "cpu:0" if device == "cpu" else f"gpu:{_index(device)}"
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", arena)
        self._version = onnxruntime.__version__

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        values = self._session.run(self._outputs, dict(inputs), self._shrinking if last else None)
        return dict(zip(self._outputs, values, strict=True))

    def describe(self) -> str:
        return f"onnxruntime {self._version} {self.device} {self.precision}"


class TorchEngine(Engine):
    """The architecture of the card with the weights of the file, in torch.

    Half precisions are autocast's: convolutions in 16 bits, sums and logarithms in 32.
    """

    def __init__(self, path: Path, card: weights.Card, device: str, precision: str, threads: int) -> None:
        import torch

        super().__init__(path, card, device, precision)
        if device == "cpu":
            torch.set_num_threads(threads)
        module: Any = networks.build(card["architecture"], card["config"])
        state = {name: torch.from_numpy(values) for name, values in weights.load_state(path).items()}
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise NetworkError(
                f"{path}: its weights do not fit {card['architecture']!r}; use the version that made it "
                f"({_line(error)})"
            ) from error
        self._module = (
            module.to(device=device, memory_format=torch.channels_last).eval().requires_grad_(False)
        )
        self._type = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)
        self._outputs = card["outputs"]

    def run(self, inputs: Mapping[str, Float], *, last: bool = False) -> Arrays:
        import torch

        kind = self.device.partition(":")[0]
        with (
            torch.inference_mode(),
            torch.autocast(kind, dtype=self._type or torch.bfloat16, enabled=self._type is not None),
        ):
            tensors = {
                name: torch.from_numpy(values if values.flags.writeable else values.copy()).to(
                    self.device, memory_format=torch.channels_last
                )
                for name, values in inputs.items()
            }
            values = self._module(**tensors)
            values = [values] if isinstance(values, torch.Tensor) else values
            results = [value.float().contiguous().cpu().numpy() for value in values]
        if last and kind == "cuda":
            torch.cuda.empty_cache()
        return dict(zip(self._outputs, results, strict=True))

    def describe(self) -> str:
        return f"torch {metadata.version('torch')} {self.device} {self.precision}"


# ------------------------------------------------------------------------------- choosing an engine


def open_engine(
    path: Path,
    device: str = "auto",
    precision: str = "auto",
    engine: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Open a weights file on a device ("auto", "cpu", "cuda", "cuda:1").

    ``precision`` is fp32, fp16 or bf16. "auto" is fp32 on the CPU, and on CUDA 10 bits of mantissa: fp16
    in torch, TF32 in onnxruntime, which computes in the file's own float32. ``engine`` is "onnxruntime"
    or "torch"; "auto" takes CUDA wherever one of them offers it, torch first, and on the CPU onnxruntime
    first. ``threads`` are all cores that this process may use, unless stated.
    """
    card = weights.read_card(path)
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise NetworkError(f"no device {device!r}; choose {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise NetworkError(f"no precision {precision!r}; choose {', '.join(PRECISIONS)}")
    if engine not in ENGINES:
        raise NetworkError(f"no engine {engine!r}; choose {', '.join(ENGINES)}")
    wanted = [name for name in ENGINES[1:] if engine in ("auto", name)]
    choices = [name for name in wanted if find_spec(name) is not None]
    if not choices:
        raise NetworkError(f"{path}: needs {' or '.join(wanted)}, which is not installed; {INSTALL}")
    if kind == "auto":
        kind = "cuda" if _has_cuda_driver() and _on_cuda(choices, 0) else "cpu"
    if kind == "cuda":
        offered = _on_cuda(choices, int(index or 0))
        if not offered:
            raise NetworkError(f"{device}: {' and '.join(choices)} cannot use it here; {INSTALL_CUDA}")
        choices, device = offered, f"cuda:{index or 0}"
    else:
        device = "cpu"
    if precision in ("fp16", "bf16"):
        if "torch" not in choices:
            raise NetworkError(f"{precision} on {device} needs torch; {INSTALL_CUDA}, or ask for fp32")
        choices = ["torch"]
    if choices[0] == "torch":
        exact = ("fp32" if kind == "cpu" else "fp16") if precision == "auto" else precision
        return TorchEngine(path, card, device, exact, threads or _cores())
    exact = "tf32" if kind == "cuda" and precision == "auto" else "fp32"
    return OnnxEngine(path, card, device, exact, threads or _cores())


def engines() -> list[str]:
    """Return the engines that are installed with their versions, without loading them."""
    found = []
    for library, packages in (
        ("onnxruntime", ("onnxruntime-gpu", "onnxruntime")),
        ("torch", ("torch",)),
    ):
        if find_spec(library) is None:
            continue
        for package in packages:
            try:
                found.append(f"{package} {metadata.version(package)}")
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _on_cuda(installed: list[str], index: int) -> list[str]:
    """Return the engines that can use a CUDA device, the faster one first."""
    found = []
    if "torch" in installed:
        import torch

        if torch.cuda.is_available() and index < torch.cuda.device_count():
            found.append("torch")
    if "onnxruntime" in installed:
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: those that came with torch
                onnxruntime.preload_dlls()
            found.append("onnxruntime")
    return found


def _has_cuda_driver() -> bool:
    """Tell whether it is worth asking torch, which takes seconds to load."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _free_memory() -> float | None:
    """Return the bytes that the system can still give, None where it does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _free_on_gpu(index: int) -> float | None:
    """Return the free bytes of a CUDA device, None without torch, which is who knows."""
    if find_spec("torch") is None:
        return None
    import torch

    return float(torch.cuda.mem_get_info(index)[0]) if torch.cuda.is_available() else None


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an engine failed for want of memory: each says it in its own words."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in OUT_OF_MEMORY)


# -------------------------------------------------------------------------------------------- tiles


def run_tiled(
    engine: Engine,
    inputs: Mapping[str, Float],
    halo: int,
    multiple: int,
    wanted: Mask | None = None,
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Arrays:
    """Run a network over an image in tiles; return arrays (..., H, W) as the whole image would give.

    All inputs (n, C, H, W) share H and W, from one pixel on. The rest is as in `run_boxes`; where nothing
    is ``wanted``, results are 0.
    """
    sizes = {values.shape[-2:] for values in inputs.values()}
    if len(sizes) != 1 or (wanted is not None and wanted.shape not in sizes):
        raise ValueError(f"inputs of different sizes: {sorted(sizes)}")
    height, width = next(iter(sizes))
    items = max(values.shape[0] for values in inputs.values())
    outputs: Arrays = {}

    def fetch(window: Box) -> Arrays:
        return {name: values[window.part] for name, values in inputs.items()}

    for box, found in run_boxes(
        engine, fetch, (height, width), halo, multiple, wanted, items=items, tile=tile, progress=progress
    ):
        for name, values in found.items():
            if name not in outputs:
                outputs[name] = _zeros(values, height, width)
            outputs[name][box.part] = values
    if not outputs:  # the shapes are the network's own: ask for them with its smallest input
        results = engine.run(crop(inputs, Box(0, multiple, 0, multiple)), last=True)
        return {name: _zeros(values, height, width) for name, values in results.items()}
    return outputs


def run_boxes(
    engine: Engine,
    fetch: Callable[[Box], Mapping[str, Float]],
    size: tuple[int, int],
    halo: int,
    multiple: int,
    wanted: Mask | None = None,
    *,
    items: int = 1,
    tile: int | None = None,
    largest: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Iterator[tuple[Box, Arrays]]:
    """Run a network over an image of ``size`` (H, W); yield parts of it, and its outputs (..., h, w) there.

    ``fetch`` returns the inputs (n, C, h, w) in a window of the image, when they are needed; ``items`` is
    the largest n. ``halo`` [px] is the reach of the receptive field and ``multiple`` [px] the network's
    size rule and pooling grid. Only tiles that hold something ``wanted`` (H, W) are computed, and of
    these the smallest box around it. ``tile`` [px] is the largest side, from free memory unless stated,
    but no more than ``largest``; where memory runs out all the same, it is halved. ``progress`` is called
    with the share of the work done, halos included.
    """
    halo, smallest = round_up(halo, multiple), round_up(SMALLEST_TILE, multiple)
    side = round_up(tile, multiple) if tile else _largest_tile(engine, size, items, halo, multiple)
    side = min(side, round_up(largest, multiple)) if largest else side
    image = around(wanted, Box(0, size[0], 0, size[1]), multiple)
    parts = tiles(image, side, multiple) if image else ()
    boxes = [box for part in parts if (box := around(wanted, part, multiple))]

    def work(box: Box) -> int:
        return window_of(box, halo, multiple, size).area

    total, done = float(sum(map(work, boxes))), 0.0
    todo = [(box, work(box) / total) for box in boxes][::-1]
    if todo:
        _give_back()
    while todo:
        box, share = todo.pop()
        if box.side > side:
            pieces = [*tiles(box, side, multiple)]
            whole = sum(map(work, pieces))
            todo += [(piece, share * work(piece) / whole) for piece in pieces][::-1]
            continue
        window = window_of(box, halo, multiple, size)
        found = _attempt(engine, filled(fetch(window.within(size)), window), last=not todo)
        if found is None:
            if box.side <= smallest:
                raise NetworkError(
                    f"{engine.path}: not enough memory even for tiles of {box.side} px on {engine.device}; "
                    "close programs, or use fewer frames"
                )
            side = max(round_up(box.side // 2, multiple), smallest)
            todo.append((box, share))
            continue
        inside = box.seen_from(window)
        yield box, {name: values[inside.part] for name, values in found.items()}
        done += share
        if progress:
            progress(min(done, 1.0) if todo else 1.0)


def _give_back() -> None:
    """Return to the system what was freed: glibc keeps it, and a network allocates its own.

    Of a merge of three 18-megapixel frames that is a fifth of the peak.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _attempt(engine: Engine, window: Arrays, *, last: bool) -> Arrays | None:
    """Run the network on a window; return None where memory is too small for it."""
    try:
        return engine.run(window, last=last)
    except Exception as error:
        if not out_of_memory(error):
            raise
    return None


def _largest_tile(engine: Engine, size: tuple[int, int], items: int, halo: int, multiple: int) -> int:
    """Return the side [px] of tiles whose windows fit into memory, halo included.

    The CPU's share is kept small, but not so small that the halo is more than three quarters of the work.
    """
    short, long = sorted(round_up(n, multiple) for n in size)
    per_pixel = items * float(engine.card.get("bytes_per_pixel", BYTES_PER_PIXEL))
    pixels = engine.free_memory() / per_pixel
    if engine.device == "cpu":
        pixels = min(pixels, max(CPU_MEMORY / per_pixel, (4 * halo) ** 2))
    if short * long <= pixels:
        return long
    window = math.sqrt(pixels) if pixels < short * short else pixels / short
    return max(int(window - 2 * halo) // multiple * multiple, round_up(SMALLEST_TILE, multiple))


def _zeros(like: Float, height: int, width: int) -> Float:
    return np.zeros((*like.shape[:-2], height, width), dtype=np.float32)
