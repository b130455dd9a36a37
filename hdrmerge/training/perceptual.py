"""How alike two pictures look: features of VGG-19 where its weights are at hand, else edges and structure.

Both are modules that take two batches of code values (B, 3, H, W) in [0, 1] and return one number, about
as large, so that the paper's weight holds for either.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import NetworkError

CONVOLUTIONS = {0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256, 16: 256}
"""Number in ``features`` -> width, of those up to the third pooling of VGG-19."""

POOLED = (2, 7, 16)  # after which of them
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, which it was trained with

SCALES = 4  # of the stand-in, each half as large as the one before
WINDOW = 7  # [px] of SSIM
EDGES, STRUCTURE = 16.0, 4.0  # weights of its terms, summed over scales


class Vgg19(nn.Module):
    """Absolute differences of features after pooling 1, 2 and 3, a sum of means.

    Simonyan and Zisserman 2015, trained on ImageNet; the layers that Le et al. 2023 compare.
    """

    def __init__(self, path: Path) -> None:
        """Read a file as `read_vgg19` takes it."""
        super().__init__()
        for number, (weight, bias) in zip(CONVOLUTIONS, read_vgg19(path), strict=True):
            self.register_buffer(f"weight_{number}", weight)
            self.register_buffer(f"bias_{number}", bias)
        self.register_buffer("mean", torch.tensor(MEAN).reshape(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(3, 1, 1))

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            expected = list(self.features(wanted))
        pairs = zip(self.features(found), expected, strict=True)
        return torch.stack([(one.float() - other.float()).abs().mean() for one, other in pairs]).sum()

    def features(self, photo: Tensor) -> Iterator[Tensor]:
        """Yield what is left after each pooling."""
        x = (photo - self.get_buffer("mean")) / self.get_buffer("deviation")
        for number in CONVOLUTIONS:
            weight, bias = (self.get_buffer(f"{name}_{number}") for name in ("weight", "bias"))
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
            if number in POOLED:
                x = functional.max_pool2d(x, 2)
                yield x


class StandIn(nn.Module):
    """Differences of edges, and of structure (SSIM) in the luma, at four scales: no features, no weights.

    What it shares with features is that a brightness which is wrong everywhere counts little, and a lost
    edge much.
    """

    def forward(self, found: Tensor, wanted: Tensor) -> Tensor:
        total = found.new_zeros(())
        for scale in range(SCALES):
            if scale:
                found, wanted = functional.avg_pool2d(found, 2), functional.avg_pool2d(wanted, 2)
            if min(found.shape[-2:]) < WINDOW:
                break
            total = total + EDGES * edges(found - wanted)
            total = total + STRUCTURE * (1 - structure(luma(found), luma(wanted)).mean())
        return total


def edges(difference: Tensor) -> Tensor:
    """Return the mean size of differences between neighbours, along both sides."""
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def structure(one: Tensor, other: Tensor) -> Tensor:
    """Return the SSIM of planes (B, 1, H, W) in [0, 1] around each pixel, with equal weights in a window.

    Wang et al. 2004, equation 13, whose constants these are.
    """

    def mean(plane: Tensor) -> Tensor:
        return functional.avg_pool2d(plane, WINDOW, stride=1)

    a, b = mean(one), mean(other)
    both, squares = a * b, a * a + b * b
    together = mean(one * other) - both
    spread = mean(one * one + other * other) - squares
    low, high = 0.01**2, 0.03**2
    return (2 * both + low) * (2 * together + high) / ((squares + low) * (spread + high))


def luma(photo: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) of code values, by the weights of Rec. 601."""
    return 0.299 * photo[:, :1] + 0.587 * photo[:, 1:2] + 0.114 * photo[:, 2:]


def perceptual(vgg: Path | None) -> nn.Module:
    """Return VGG-19 of a file, or the stand-in."""
    return StandIn() if vgg is None else Vgg19(vgg)


# --- the weights of VGG-19 ------------------------------------------------------------------------


def read_vgg19(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of its first eight convolutions, for RGB normalised by ImageNet's mean.

    From .safetensors with tensors features.N.weight and features.N.bias, N = 0, 2, 5, 7, 10, 12, 14, 16,
    whatever stands before (torchvision's and timm's names); or from .onnx, of which the first eight Conv
    nodes count, whatever their names. A pickle (.pth, .pt) is never loaded. Raises `NetworkError`.
    """
    readers = {".safetensors": _from_safetensors, ".onnx": _from_onnx}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise NetworkError(
            f"{path}: no .safetensors or .onnx file; a pickle can run any code, so convert it to one of these"
        )
    if not path.is_file():
        raise NetworkError(f"{path}: no such file; name the weights of VGG-19, or none")
    found = reader(path)
    entering = 3
    for (number, wide), (weight, bias) in zip(CONVOLUTIONS.items(), found, strict=True):
        if weight.shape != (wide, entering, 3, 3) or bias.shape != (wide,):
            raise NetworkError(
                f"{path}: convolution {number} has weights {tuple(weight.shape)} instead of "
                f"{(wide, entering, 3, 3)}; name a file of VGG-19 without batch normalisation"
            )
        entering = wide
    return found


def _from_safetensors(path: Path) -> list[tuple[Tensor, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            keys = list(file.keys())
            found = []
            for number in CONVOLUTIONS:
                pair = []
                for kind in ("weight", "bias"):
                    name = f"features.{number}.{kind}"
                    full = next((key for key in keys if key == name or key.endswith(f".{name}")), None)
                    if full is None:
                        raise NetworkError(f"{path}: holds no {name}; name a file of VGG-19 as torchvision's")
                    pair.append(file.get_tensor(full).float())
                found.append((pair[0], pair[1]))
            return found
    except (SafetensorError, OSError) as error:
        raise NetworkError(f"{path}: is damaged, or no safetensors; name another file") from error


def _from_onnx(path: Path) -> list[tuple[Tensor, Tensor]]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import numpy_helper

    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (DecodeError, OSError, ValueError) as error:
        raise NetworkError(f"{path}: is damaged, or no ONNX file; name another one") from error
    held = {tensor.name: tensor for tensor in graph.initializer if not tensor.external_data}
    nodes = [node for node in graph.node if node.op_type == "Conv"][: len(CONVOLUTIONS)]
    if len(nodes) < len(CONVOLUTIONS) or any(
        len(node.input) < 3 or not set(node.input[1:]) <= set(held) for node in nodes
    ):
        raise NetworkError(
            f"{path}: its first {len(CONVOLUTIONS)} Conv nodes do not hold weights and biases; "
            "name a file of VGG-19 that holds all of it"
        )
    return [
        (
            _tensor(numpy_helper.to_array(held[node.input[1]])),
            _tensor(numpy_helper.to_array(held[node.input[2]])),
        )
        for node in nodes
    ]


def _tensor(values: object) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))
