"""Measure what 8-bit integers would gain: time and quality of a network quantised for onnxruntime.

    python benchmarks/int8.py weights/trust.onnx EXAMPLES/held_out

``EXAMPLES`` is what `hdrmerge train merge` made. Static quantisation of the convolutions, per channel, with
unsigned and signed activations, calibrated on examples that are not judged. Time is of two frames beside
a reference of 1.1 megapixels, the best of four; PSNR is of mu-law values [dB].
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from hdrmerge.exposure import Array
from hdrmerge.networks.trust import mix
from hdrmerge.training.examples import Example
from hdrmerge.training.validate import REGIONS, finite_mean, score, tensors_of

SIZE = (800, 1408)
CALIBRATION = 16


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Hands examples to the quantiser one by one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._inputs: Iterator[dict[str, Array]] = (inputs_of(path) for path in paths)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._inputs, None)


def inputs_of(path: Path) -> dict[str, Array]:
    example = Example.load(path)
    return {
        "reference": np.array(example.reference, np.float32)[None],
        "frames": np.array(example.frames, np.float32),
    }


def quantised(path: Path, folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Return the files by name; weights are unpacked to floats first, which a quantiser has to see."""
    options: Any = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "plain.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    files = {"fp32": path}
    for name, kind in (("uint8 activations", QuantType.QUInt8), ("int8 activations", QuantType.QInt8)):
        files[name] = folder / f"{kind}.onnx"
        quantize_static(
            folder / "plain.onnx",
            files[name],
            Reader(paths),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=kind,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
    return files


def seconds(session: Any) -> float:
    rng = np.random.default_rng(0)
    inputs = {
        "reference": rng.random((1, 7, *SIZE), np.float32),
        "frames": rng.random((2, 10, *SIZE), np.float32),
    }
    times = []
    for _ in range(4):
        start = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("examples", type=Path)
    options = parser.parse_args()
    paths = sorted(options.examples.glob("*.npy"))
    judged, calibration = paths[CALIBRATION:], paths[:CALIBRATION]
    with tempfile.TemporaryDirectory() as folder:
        for name, file in quantised(options.network, Path(folder), calibration).items():
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            rows = []
            for path in judged:
                trust, correction = session.run(["trust", "correction"], inputs_of(path))
                example = tensors_of(Example.load(path), torch.device("cpu"))
                reference, frames, truth, masks, peak = example
                blend, _ = mix(reference, frames, torch.from_numpy(trust)[None])
                rows.append(score(blend + torch.from_numpy(correction), truth, masks, peak))
            means = {region: finite_mean([row[region] for row in rows]) for region in REGIONS}
            print(f"{name:18s} {seconds(session):.2f} s", means, sep="  ")


if __name__ == "__main__":
    main()
