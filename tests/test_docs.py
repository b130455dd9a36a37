"""What users read must not lie: every command has help with an example, and the README names it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from hdrmerge import cli

README = Path(__file__).parents[1] / "README.md"
GROUP = typer.main.get_group(cli.app)


def commands_of(group: Any, before: str = "") -> dict[str, Any]:
    """Return all commands by name, those of sub-groups as "group command"."""
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= commands_of(command, f"{before}{name} ") if inner else {f"{before}{name}": command}
    return found


BY_NAME = commands_of(GROUP)
COMMANDS = sorted(BY_NAME)


def help_of(*command: str) -> str:
    result = CliRunner().invoke(
        cli.app, [*command, "--help"], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"}
    )
    assert result.exit_code == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", result.output)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_opens_with_a_sentence_and_holds_an_example(command: str) -> None:
    text = BY_NAME[command].help or ""
    assert re.match(r"[A-Z][^\n]+\.$", text.split("\n\n")[0].replace("\n", " ")), text
    assert f"Example: hdrmerge {command} " in text
    assert f"Example: hdrmerge {command} " in help_of(*command.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_valid_calls(command: str) -> None:
    example = re.search(r"Example: hdrmerge (.+)", BY_NAME[command].help or "")
    assert example is not None
    words, depth = example[1].split(), len(command.split())
    assert words[:depth] == command.split()
    context = BY_NAME[command].make_context(command, words[depth:])  # raises a usage error otherwise
    assert context.params


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    for parameter in BY_NAME[command].params:
        assert parameter.help, f"{command}: {parameter.name}"
        assert len(parameter.help) < 100
        assert "[" not in parameter.help, "taken for markup, and not shown"


def test_the_group_prints_the_order_of_operations() -> None:
    steps = re.findall(r"^ +(\d)\. (.+?) *$", help_of(), re.MULTILINE)
    assert [number for number, _ in steps] == [str(i) for i in range(1, len(steps) + 1)]
    order = " ".join(text for _, text in steps)
    stages = ["metadata", "pixels", "align", "moved", "merge", "write the HDR", "preview"]
    positions = [order.find(stage) for stage in stages]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert all(command in help_of() for command in GROUP.commands)
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted." in help_of()


def test_the_group_help_fits_a_terminal() -> None:
    text = GROUP.help or ""
    assert max(len(line) for line in text.splitlines()) <= 76


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command: str) -> None:
    assert f"hdrmerge {command}" in README.read_text(encoding="utf-8")


def test_the_readme_says_how_to_test() -> None:
    assert "pytest" in README.read_text(encoding="utf-8")


def test_the_readme_mentions_no_option_that_does_not_exist() -> None:
    known = {"--help", "--version", "--install-completion", "--show-completion"}
    for command in BY_NAME.values():
        known |= {
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
        }
    for line in re.findall(r"^\W*hdrmerge .+$", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert set(re.findall(r"(?<!\S)--[a-z0-9-]+", line)) <= known, line
