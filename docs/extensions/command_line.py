"""Pages of the command-line reference, generated from the program: one for each command."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from lungmix.cli.app import app as program

FOLDER = "commands"
"""Folder of the pages below the sources of the documentation; not checked in."""

VALUE_NAMES = {"int": "N", "float": "X", "Path": "PATH", "str": "TEXT", "integer": "N", "text": "TEXT", "path": "PATH"}
_EXAMPLE = re.compile(r"\n\nExample:\n\n(?P<lines>.*)\Z", re.DOTALL)


def commands() -> dict[str, Any]:
    """Return every command that does something, by its words after ``lungmix``, in the order of the help."""
    named: dict[str, Any] = {}
    for name, command in typer.main.get_command(program).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            named |= {f"{name} {child}": part for child, part in command.commands.items()}
        else:
            named[name] = command
    return named


def pages() -> dict[str, str]:
    """Return the text of each page in Markdown, by the name of its file."""
    by_name = commands()
    texts = {f"{page_name(name)}.md": command_page(name, command) for name, command in by_name.items()}
    return {"index.md": index_page(by_name), **texts}


def page_name(name: str) -> str:
    """Return the name of a command's page, without extension."""
    return name.replace(" ", "-")


def index_page(by_name: dict[str, Any]) -> str:
    """Return the page that lists all commands, with the options of ``lungmix`` itself."""
    rows = [
        f"| [`lungmix {name}`]({page_name(name)}.md) | {escape(first_sentence(command.help))} |"
        for name, command in by_name.items()
    ]
    root = typer.main.get_command(program)
    lines = [
        "# Command line", "",
        "Generated from the program: `lungmix --help` and `lungmix COMMAND --help` print the same.", "",
        "| command | purpose |", "| --- | --- |", *rows, "",
        "## Options of every command", "", *option_table(options_of(root)), "",
        "## Exit status", "",
        "| status | meaning |", "| --- | --- |",
        "| 0 | all cases are done |",
        "| 1 | some cases failed and are listed with their reasons; the others are done |",
        "| 2 | wrong usage, or nothing could be started; nothing was changed |",
        "| 130, 143 ... | ended by a signal: 128 and its number; run the same command again to resume |", "",
        "```{toctree}", ":hidden:", "", *(page_name(name) for name in by_name), "```", "",
    ]  # fmt: skip
    return "\n".join(lines)


def command_page(name: str, command: Any) -> str:
    """Return the page of one command: usage, purpose, examples, arguments, options."""
    text, examples = split_help(command.help)
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([f"lungmix {name}", *(usage_name(argument) for argument in arguments), "[OPTIONS]"])
    lines = [f"# lungmix {name}", "", text, "", "```text", usage, "```", ""]
    if examples:
        lines += ["## Examples", "", "```text", *examples, "```", ""]
    if arguments:
        rows = [f"| `{(p.metavar or p.name.upper()).strip('[]')}` | {escape(p.help)} |" for p in arguments]
        lines += ["## Arguments", "", "| argument | meaning |", "| --- | --- |", *rows, ""]
    return "\n".join([*lines, "## Options", "", *option_table(options_of(command)), ""])


def options_of(command: Any) -> list[Any]:
    """Return the options of a command that its help shows."""
    return [p for p in command.params if p.param_type_name == "option" and not p.hidden]


def option_table(options: list[Any]) -> list[str]:
    """Return the rows of a table of options, with value, meaning and default."""
    rows = [
        f"| {', '.join(f'`{spelling}`' for spelling in option.opts)}{value_cell(option)} | {escape(option.help)} "
        f"| {default_cell(option)} |"
        for option in options
    ]
    return ["| option | meaning | default |", "| --- | --- | --- |", *rows]


def value_cell(option: Any) -> str:
    """Return what stands after an option: the name of its value, nothing for a flag."""
    if option.is_flag:
        return ""
    name = option.metavar or VALUE_NAMES[type_name(option)]
    return f" `{name}`".replace("|", "\\|")


def type_name(option: Any) -> str:
    """Return the name of the type of an option's value, in any release of typer."""
    descriptor = getattr(option, "type_descriptor", None)
    if descriptor is None:
        return str(option.type.name)
    inner = getattr(descriptor.annotation, "__args__", ())
    return str((inner[0] if inner else descriptor.annotation).__name__)


def default_cell(option: Any) -> str:
    """Return the default of an option, where it has one that says something."""
    if option.required:
        return "required"
    default = option.default() if callable(option.default) else option.default
    return "" if option.is_flag or default is None or default == () else f"`{default}`"


def usage_name(argument: Any) -> str:
    """Return an argument as a line of usage shows it."""
    name = argument.metavar or argument.name.upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def split_help(text: str) -> tuple[str, list[str]]:
    """Return the description of a command and its examples."""
    text = text or ""
    match = _EXAMPLE.search(text)
    if match is None:
        return inspect.cleandoc(text), []
    return inspect.cleandoc(text[: match.start()]), [
        line.strip() for line in match["lines"].splitlines() if line.strip()
    ]


def first_sentence(text: str) -> str:
    """Return the first line of a help text, as lists of commands show it."""
    return split_help(text)[0].partition("\n")[0]


def escape(text: str | None) -> str:
    """Return a help text for a cell of a Markdown table."""
    plain = " ".join((text or "").split())
    for character in "\\|*<>_":
        plain = plain.replace(character, "\\" + character)
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]+)(?!`)", r"`\1`", plain)


def write_pages(app: Any) -> None:
    """Write the pages before sources are read; pages that are unchanged keep their time."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(exist_ok=True)
    texts = pages()
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register the step that writes the pages."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
