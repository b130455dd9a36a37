"""Imports point one way, and the command line starts without the heavy libraries."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hdrmerge

PACKAGE = Path(hdrmerge.__file__).parent

LAYERS = (
    "errors complaints",
    "exposure",
    "bracket colour fileformat rgbe",
    "intact",
    "raw render metrics scene judge",
    "operators metadata form proxy exif simulate roll leftover",
    "tonemap read align simulate_files group blank",
    "deghost load write folder tones",
    "merge curvefit journal worklist",
    "response",
    "metering",
    "calibrate",
    "pipeline",
    "batch shared",
    "console",
    "options",
    "cli_folder",
    "cli",
)
"""A module imports from lines above its own, never from its own line or below."""

LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules.split()}

MODULES = sorted(path.stem for path in PACKAGE.rglob("*.py") if path.stem not in ("__init__", "__main__"))


def imports(module: str) -> set[str]:
    """Return the modules of the package that one of them imports, wherever in its file."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("hdrmerge"):
            found.add(node.module.partition(".")[2])
        elif isinstance(node, ast.Import):
            found |= {name.name.partition(".")[2] for name in node.names if name.name.startswith("hdrmerge.")}
    return {str(name) for name in found} & set(MODULES)


def test_the_table_lists_every_module_once() -> None:
    assert sorted(name for modules in LAYERS for name in modules.split()) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    backwards = {other for other in imports(module) if LEVEL[other] >= LEVEL[module]}
    assert not backwards


def test_the_walk_sees_imports() -> None:
    """So that a slip in `imports` does not make the other tests pass."""
    assert {"align", "deghost", "merge", "read", "form"} <= imports("pipeline")
    assert {"pipeline", "write"} <= imports("cli")  # inside functions
    assert "rgbe" in imports("write")  # from . import rgbe


def test_nothing_is_called_utils() -> None:
    assert not {"utils", "util", "helpers", "common", "misc"} & set(MODULES)


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "numpy cv2 rawpy OpenEXR tifffile PIL exifread pillow_heif onnxruntime torch"
    code = f"import sys, hdrmerge.cli; print(*sorted(set({heavy.split()!r}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
