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
    "exposure networks networks.layers networks.composition networks.deformable",
    "extrapolate bracket colour fileformat rgbe tiles painter networks.trust networks.hdrgan networks.flow",
    "networks.unet networks.resnet networks.grdn networks.virtual_bracket networks.refine networks.followed",
    "intact broadcast networks.coarse",
    "raw render metrics scene judge decode alternation",
    "operators metadata form proxy exif simulate roll leftover",
    "tonemap read align simulate_files group blank",
    "sight load write folder tones flowmerge",
    "weights drift dataset footage inbetween",
    "infer deghost vicinity followed sequences",
    "merge curvefit journal worklist highlights coarsetofine",
    "entrust fuse response expand reel methods",
    "virtual grade",
    "metering attune encode",
    "calibrate",
    "pipeline cadence",
    "batch shared evaluate video",
    "evaluate_video",
    "training training.camera training.losses training.discriminator training.reexposure training.perceptual",
    "training.precision training.scenes training.examples training.motion",
    "training.batches training.validate training.make training.pseudo_labels",
    "training.lesson training.triplets training.pairs",
    "training.train training.trust training.hdrgan training.label_sets training.exposures",
    "training.plot training.release training.retake training.self_supervised training.virtual_bracket",
    "training.clips training.windows",
    "training.video",
    "console",
    "options trainingbar",
    "trainingrun",
    "labelrun",
    "cli_folder cli_evaluate cli_networks cli_train cli_expand cli_video",
    "cli_train_video",
    "cli",
)
"""A module imports from lines above its own, never from its own line or below. A package is its file."""

LEVEL = {module: level for level, modules in enumerate(LAYERS) for module in modules.split()}


def name_of(file: Path) -> str:
    """Return a module's name below ``hdrmerge``: networks/trust.py is networks.trust."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in PACKAGE.rglob("*.py") if file.stem != "__main__"}
del FILES[""]  # what the package itself offers

MODULES = sorted(FILES)


def imports(module: str) -> set[str]:
    """Return the modules of the package that one of them imports, wherever in its file."""
    file = FILES[module]
    return imported(file.read_text(encoding="utf-8"), name_of(file.parent / "__init__.py"))


def imported(source: str, package: str) -> set[str]:
    """Return the modules that code in a package ("" is hdrmerge, "training" one below) imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[2] for name in node.names if name.name.startswith("hdrmerge.")}
        elif isinstance(node, ast.ImportFrom):
            named = (node.module or "").split(".") if node.module else []
            if node.level:
                above = package.split(".") if package else []
                base = [*above[: len(above) + 1 - node.level], *named]
            elif named and named[0] == "hdrmerge":
                base = named[1:]
            else:
                continue
            inside = {".".join([*base, name.name]) for name in node.names} & set(FILES)
            found |= inside
            if base and len(inside) < len(node.names):  # something in the module, not below it
                found.add(".".join(base))
    return found & set(FILES)


def test_the_table_lists_every_module_once() -> None:
    assert sorted(name for modules in LAYERS for name in modules.split()) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    backwards = {other for other in imports(module) if LEVEL[other] >= LEVEL[module]}
    assert not backwards


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("networks")])
def test_networks_know_nothing_but_errors_and_each_other(module: str) -> None:
    assert {other for other in imports(module) if not other.startswith("networks.")} <= {"errors", "networks"}


def test_only_training_and_its_commands_know_the_training() -> None:
    rooms = {module for module in MODULES if module.partition(".")[0] == "training"}
    users = {module for module in MODULES if imports(module) & rooms} - rooms
    assert users <= {"cli_train", "cli_train_video", "trainingrun", "labelrun", "trainingbar"}


def test_the_walk_sees_imports() -> None:
    """So that a slip in `imports` does not make the other tests pass."""
    assert {"align", "deghost", "merge", "read", "form"} <= imports("pipeline")
    assert {"pipeline", "write"} <= imports("cli")  # inside functions
    assert "rgbe" in imports("write")  # from . import rgbe
    assert {"networks", "weights"} <= imports("infer")  # from . import networks, weights
    assert "errors" in imports("networks")  # from ..errors, in the __init__ of a package
    assert imports("networks.trust") == {"networks.layers"}  # from .layers
    assert {"networks.trust", "training.lesson"} <= imports("training.trust")  # from ..networks.trust


@pytest.mark.parametrize(
    ("package", "line", "found"),
    [
        ("", "from .merge import merge", "merge"),
        ("", "from . import merge, __version__", "merge"),
        ("", "from .training import camera", "training.camera"),
        ("", "from .training.camera import take_all", "training.camera"),
        ("", "from .networks import NETWORKS", "networks"),
        ("", "from .networks import NETWORKS, layers", "networks networks.layers"),
        ("", "from hdrmerge.training.camera import take_all", "training.camera"),
        ("", "from hdrmerge import merge", "merge"),
        ("", "import hdrmerge.training.camera as camera", "training.camera"),
        ("", "from merge import merge", ""),
        ("", "import merge", ""),
        ("training", "from ..merge import merge", "merge"),
        ("training", "from .. import merge, align", "merge align"),
        ("training", "from ..networks import build", "networks"),
        ("training", "from ..networks.trust import mix", "networks.trust"),
        ("training", "from .camera import take_all", "training.camera"),
        ("training", "from . import camera", "training.camera"),
        ("networks", "from ..errors import NetworkError", "errors"),
        ("networks", "from .layers import Encoder", "networks.layers"),
    ],
)
def test_every_form_of_import_is_seen(package: str, line: str, found: str) -> None:
    assert imported(line, package) == set(found.split())


def test_nothing_is_called_utils() -> None:
    names = {module.rpartition(".")[2] for module in MODULES}
    assert not {"utils", "util", "helpers", "common", "misc"} & names


def test_the_command_line_starts_without_heavy_libraries() -> None:
    heavy = "numpy cv2 rawpy OpenEXR tifffile PIL exifread pillow_heif"
    heavy += " onnxruntime onnx onnxscript torch safetensors"
    code = f"import sys, hdrmerge.cli; print(*sorted(set({heavy.split()!r}) & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
