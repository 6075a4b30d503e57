"""Earlier spellings of renamed options work like the current ones and are not listed in help."""

import pytest
import typer

from lungmix.cli import app as program
from lungmix.cli.app import _status_of
from lungmix.cli.options import RENAMED

COMMANDS = {
    "--withdraw": ("verify",), "--key": ("run", "convert", "report", "validate scores"),
    "--times": ("validate scores",), "--share": ("validate scores",),
}  # fmt: skip


def parameters_of(command, *words):
    """Return the values that the command line passes to a command."""
    node = typer.main.get_command(program.app)
    context = node.make_context("lungmix", [*command.split(), *words, "s.zarr", "x"], resilient_parsing=True)
    for name in command.split():
        node = node.commands[name]
        context = node.make_context(name, [*words, "s.zarr", "x"], parent=context, resilient_parsing=True)
    return context.params


@pytest.mark.parametrize(("old", "command"), [(old, name) for old, names in COMMANDS.items() for name in names])
def test_both_spellings_set_the_same_parameter(old, command):
    new = f"--{RENAMED[old[2:]]}"
    value = {"--withdraw": [], "--key": ["key.csv"], "--times": ["7"], "--share": ["0.5"]}[old]
    default, first, second = (parameters_of(command, *words) for words in ([], [old, *value], [new, *value]))
    assert first == second != default


@pytest.mark.parametrize(("old", "command"), [(old, name) for old, names in COMMANDS.items() for name in names])
def test_help_lists_the_current_spelling_alone(old, command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert _status_of([*command.split(), "--help"]) == 0
    words = capsys.readouterr().out.split()
    assert f"--{RENAMED[old[2:]]}" in words
    assert old not in words


def test_every_earlier_spelling_has_a_test():
    assert {f"--{old}" for old in RENAMED} == set(COMMANDS)
