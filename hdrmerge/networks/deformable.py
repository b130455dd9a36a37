"""Pictures sampled where a field says: warping by a flow, and deformable convolution.

Both in plain torch, on any device, differentiable in everything that enters, and made of what ONNX has
(GridSample, opset 16). Positions and displacements are in pixels of the picture that is sampled; between
pixel centres values are bilinear, beyond the border zero. Half a float cannot tell a pixel of a large
picture: positions are single precision, whatever is computed around them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

TAPS = 9  # of a 3 x 3 kernel, row by row


def sampled(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return (B, C, h, w), an image (B, C, H, W) at ``rows`` and ``columns``, (B, h, w) each [px]."""
    height, width = image.shape[2:]
    with torch.autocast(image.device.type, enabled=False):
        grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)
        return functional.grid_sample(
            image.to(grid.dtype), grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )


def places(image: Tensor, displacements: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row (H, 1) and the column (W,) of every pixel, in the precision of positions."""
    kind = torch.promote_types(displacements.dtype, torch.float32)
    height, width = image.shape[2:]
    rows = torch.arange(height, device=image.device, dtype=kind)
    return rows.unsqueeze(1), torch.arange(width, device=image.device, dtype=kind)


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """Fetch to each pixel p what an image (B, C, H, W) shows at p + flow, (B, 2, H, W) [px], x first."""
    rows, columns = places(image, flow)
    return sampled(image, rows + flow[:, 1], columns + flow[:, 0])


class Deformable(nn.Module):
    """A 3 x 3 convolution whose taps are displaced and weighted at every pixel (modulated, version 2).

    Zhu et al. 2019, "Deformable ConvNets v2: More Deformable, Better Results". Channels fall into
    ``groups``, each with displacements of its own.

    In:  ``x`` (B, C, H, W); ``offsets`` (B, groups * 18, H, W) [px]: of each group and tap the row's and
         the column's; ``masks`` (B, groups * 9, H, W) in [0, 1]. The order is torchvision's.
    Out: (B, C, H, W). Where all offsets are 0 and all masks 1: a convolution with a border of zeros.

    The kernel's rows are taken one after the other: all at once take three times the memory, and each tap by
    itself three times as many nodes of an exported graph.
    """

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(width, width, 3, 3))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.kaiming_normal_(self.weight, a=0.1)

    def forward(self, x: Tensor, offsets: Tensor, masks: Tensor) -> Tensor:
        rows, columns = places(x, offsets)
        size = x.shape[2:]
        each = x.reshape(-1, x.shape[1] // self.groups, *size).to(rows.dtype)
        moved = offsets.reshape(-1, 2 * TAPS, *size)
        shares = masks.reshape(-1, 1, TAPS, *size)
        across = columns + torch.arange(-1, 2, device=x.device)[:, None, None]
        result: Tensor | None = None
        for row in range(3):
            first = 3 * row
            down = rows + (row - 1) + moved[:, 2 * first : 2 * first + 6 : 2]
            right = across + moved[:, 2 * first + 1 : 2 * first + 6 : 2]
            seen = sampled(each, down.flatten(1, 2), right.flatten(1, 2))
            seen = seen.reshape(*each.shape[:2], 3, *size) * shares[:, :, first : first + 3]
            seen = seen.reshape(x.shape[0], -1, *size)
            kernel = self.weight[:, :, row].flatten(1)[:, :, None, None]
            part = functional.conv2d(seen, kernel, self.bias if result is None else None)
            result = part if result is None else result + part
        assert result is not None
        return result
