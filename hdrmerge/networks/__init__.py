"""The trained networks, one row each; the file of an architecture is imported when it is built.

A row names a weights file and its checksum; everything else about it stands in the file itself
(`weights.read_card`). Adding a network: one file here with ``build(config)``, one row, one weights file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import NetworkError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Network:
    """A released network. ``sha256`` is that of the file in hexadecimal, empty before the first release."""

    name: str
    task: Literal["merge", "expand", "video"]
    file: str
    sha256: str
    summary: str
    licence: str = "Apache-2.0"


NETWORKS = {
    network.name: network
    for network in (
        Network(
            name="trust",
            task="merge",
            file="trust.onnx",
            sha256="51bb4e6e83257eb061c34d0f3655ba60d67bff2d09215faeb6cd01aee4ce7062",
            summary="tells how far each frame can be trusted at each pixel, and fills what none shows",
        ),
        Network(
            name="hdrgan",
            task="merge",
            file="hdrgan.onnx",
            sha256="df717aefe7934b76e4ac8cbaa2a18beb7d82d9a5a8e0d32f14c2a4b10e9046ba",
            summary="paints where the reference and its two neighbours in exposure disagree",
        ),
        Network(
            name="unet",
            task="merge",
            file="unet.onnx",
            sha256="8ab51e3a0d80aaca7ff05f06ef92fd51a518f62f35bb8d09b6b7c449e35e3e9c",
            summary="paints where three frames disagree, as it learned from brackets without a truth",
        ),
        Network(
            name="virtual-bracket",
            task="expand",
            file="virtual-bracket.onnx",
            sha256="75601662f8becf13214a5bbffc5467bb67db61f01e78a9eb1b06bfe419bc2e03",
            summary="shows one photograph at other exposures, with what its highlights may have been",
        ),
        Network(
            name="video-coarse-2",
            task="video",
            file="video-coarse-2.onnx",
            sha256="26205f04c66248dda16a81c02ad7b85af1fbc08f9dd67d9a32574be7f4a8d7d7",
            summary="follows video of two alternating exposures, and weighs what neighbouring frames show",
        ),
        Network(
            name="video-refine-2",
            task="video",
            file="video-refine-2.onnx",
            sha256="57e6aefab3df2f97cf32503a31d0c9f8f8f83f13125fb4355329dbf46635552f",
            summary="mends what video-coarse-2 makes, where its frame is too dark or clipped",
        ),
        Network(
            name="video-coarse-3",
            task="video",
            file="video-coarse-3.onnx",
            sha256="193c348a342b66f7c4d8bbfa97ced4eeaf7d87a28d8a07cd7dc65980e1d508d7",
            summary="follows video of three alternating exposures, and weighs what neighbouring frames show",
        ),
        Network(
            name="video-refine-3",
            task="video",
            file="video-refine-3.onnx",
            sha256="d811c67c88e48dc4bc1ec5cd04e41f9d5b67f45661b8368dee561c1af0f55939",
            summary="mends what video-coarse-3 makes, where its frame is too dark or clipped",
        ),
    )
}


def build(architecture: str, config: Mapping[str, Any]) -> torch.nn.Module:
    """Build an untrained network: ``build(config)`` of ``hdrmerge.networks.<architecture>``."""
    module = f"{__name__}.{architecture}"
    if not architecture.isidentifier():
        raise NetworkError(f"{architecture!r} names no architecture; use a weights file made by hdrmerge")
    try:
        builder = import_module(module).build
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != module:
            raise
        raise NetworkError(
            f"architecture {architecture!r} is unknown to this version; update hdrmerge"
        ) from error
    return cast("torch.nn.Module", builder(config))
