"""The numbers that networks learn in: bfloat16, or float32 where a processor is slower with it.

Processors without instructions for bfloat16 emulate it: convolutions then take up to 14 times as long as in
float32. Which have them, and which only half of them, no list says; a convolution is timed.
"""

from __future__ import annotations

import time
from functools import cache

import torch
from torch import nn

ROUNDS = 3  # of which the fastest counts
SIDE, CHANNELS = 64, 32  # of the picture that is timed


def mixed(device: torch.device) -> torch.autocast:
    """Return a context in which convolutions are computed in bfloat16, if ``device`` is faster so."""
    return torch.autocast(device.type, torch.bfloat16, enabled=halves(device.type))


def numbers_of(device: torch.device) -> str:
    """Return what they are called, ``bfloat16`` or ``float32``."""
    return "bfloat16" if halves(device.type) else "float32"


@cache
def halves(kind: str) -> bool:
    """Say whether a kind of device, ``cpu`` or ``cuda``, is faster in bfloat16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return seconds(torch.bfloat16) < seconds(torch.float32)


@torch.inference_mode(False)
@torch.enable_grad()
def seconds(numbers: torch.dtype) -> float:
    """Return how long the CPU takes for a convolution and its gradients, in such numbers."""
    layer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = torch.zeros(1, CHANNELS, SIDE, SIDE, requires_grad=True)
    taken = []
    for _ in range(ROUNDS + 1):  # the first one prepares
        start = time.perf_counter()
        with torch.autocast("cpu", numbers, enabled=numbers != torch.float32):
            found = layer(picture.contiguous(memory_format=torch.channels_last))
        found.float().sum().backward()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
