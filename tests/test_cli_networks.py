"""hdrmerge networks: what it lists, for people and for scripts."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hdrmerge import cli_networks, infer, weights
from hdrmerge.networks import NETWORKS

app = typer.Typer()
app.command()(cli_networks.networks)


def output(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a released network."""
    pytest.importorskip("torch")
    pytest.importorskip("onnx")
    import tiny_network

    path = tiny_network.save(tmp_path / "trust.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "trust", replace(NETWORKS["trust"], sha256=digest))
    monkeypatch.setattr(weights, "FOLDERS", (tmp_path,))
    return path


def test_a_released_network_shows_size_and_score(released: Path) -> None:
    text = output()
    assert f"trust  merge, {released.stat().st_size / 1e6:.1f} MB: " in text
    assert "psnr_mu 12.5" in text


def test_json_holds_the_card(released: Path) -> None:
    found = json.loads(output("--json"))
    assert found["engines"] == infer.engines()
    (row,) = [row for row in found["networks"] if row["name"] == "trust"]
    assert row["state"] == "ready"
    assert row["card"] == weights.read_card(released)


def test_a_damaged_file_is_named_and_the_list_goes_on(released: Path) -> None:
    released.write_bytes(b"\0" * 100)
    assert "SHA-256" in output()


def test_a_network_that_is_not_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "trust", replace(NETWORKS["trust"], sha256=""))
    assert "not released yet" in output()
    assert json.loads(output("--json"))["networks"][0]["megabytes"] is None


def test_engines_are_listed_and_where_there_is_none_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "engines", lambda: ["onnxruntime 1.2.3"])
    assert "engines: onnxruntime 1.2.3" in output()
    monkeypatch.setattr(infer, "engines", list)
    assert 'engines: none, pip install "hdrmerge[cpu]"' in output()


def test_listing_loads_no_engine() -> None:
    code = (
        "import sys; from hdrmerge.cli_networks import networks; networks(); "
        "print(sorted({'torch', 'onnxruntime', 'onnx'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
