"""Benchmarks are run seldom: that each can still be imported is seen here."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
FILES = sorted(FOLDER.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_exists(path: Path) -> None:
    """Only what is ours: peers and readers to compare with may be missing."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = {"hdrmerge", *(file.stem for file in (*FOLDER.glob("*.py"), *Path(__file__).parent.glob("*.py")))}
    lines = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ours
    ]
    if not lines:
        pytest.skip("takes nothing from the package: it runs programs")
    folders = [str(FOLDER), str(Path(__file__).parent)]
    code = "\n".join([f"import sys; sys.path[:0] = {folders!r}", *lines])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
