"""Weights files of the video networks: small, far from seeing everything, and nothing learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COARSE: dict[str, Any] = {"flow": [4, 4, 4], "width": 4, "levels": 2, "largest_flow": 2.0}
FOLLOWED: dict[str, Any] = {"followed": True, "width": 4, "flow": [4, 4]}
REFINE: dict[str, Any] = {"width": 8, "groups": 2, "blocks": [1, 1], "residual": True}


def write_pair(folder: Path, exposures: int = 2, followed: bool = False) -> tuple[Path, Path]:
    """Write both networks for so many exposures; what the second adds is random, but not much.

    The coarse one is small in the paper's form, or ``followed``, and then what is known without it.
    """
    import torch

    from hdrmerge import weights
    from hdrmerge.training.lesson import AnyLesson
    from hdrmerge.training.video import CoarseLesson, CoarseRecipe, RefineLesson, RefineRecipe

    torch.manual_seed(exposures)
    given = {"exposures": exposures}
    config = (FOLLOWED if followed else COARSE) | given
    coarse = CoarseLesson(CoarseRecipe(config=config))
    trained = ("coarse", config, coarse.network.state_dict())
    refine_config = REFINE | given | {"followed": followed}
    refine = RefineLesson(RefineRecipe(config=refine_config, coarse=trained))
    with torch.no_grad():
        refine.network.last.weight.normal_(std=0.02)

    def write(name: str, lesson: AnyLesson) -> Path:
        network, path = lesson.network.eval(), folder / f"{name}{exposures}.onnx"
        card = {
            "architecture": lesson.recipe.architecture,
            "config": dict(lesson.recipe.config),
            "halo": network.halo,
            "multiple": network.multiple,
            "bytes_per_pixel": lesson.bytes_per_pixel,
        }
        inputs = lesson.example_inputs(64)
        weights.save(network, inputs, lesson.outputs, lesson.axes, path, card)
        return path

    return write("coarse", coarse), write("refine", refine)
