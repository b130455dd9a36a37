"""Turn exposure brackets into linear HDR images.

    from hdrmerge import merge_bracket
    from hdrmerge.write import write

    radiance, report = merge_bracket(["a.jpg", "b.jpg", "c.jpg"])
    write(radiance, Path("out.exr"))

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bracket import RadianceMap, Shot
    from .errors import HdrmergeError
    from .expand import ExpandOptions, Expansion, expand_photo
    from .form import StatedExposures
    from .pipeline import MergeOptions, Report, merge_bracket

__version__ = "0.1.0"

__all__ = [
    "ExpandOptions",
    "Expansion",
    "HdrmergeError",
    "MergeOptions",
    "RadianceMap",
    "Report",
    "Shot",
    "StatedExposures",
    "expand_photo",
    "merge_bracket",
]

_HOMES = {
    "ExpandOptions": "expand",
    "Expansion": "expand",
    "HdrmergeError": "errors",
    "MergeOptions": "pipeline",
    "RadianceMap": "bracket",
    "Report": "pipeline",
    "Shot": "bracket",
    "StatedExposures": "form",
    "expand_photo": "expand",
    "merge_bracket": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
