"""Classes of errors, and the messages that the source code of lungmix raises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import lungmix
from lungmix import errors

ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def raised_messages() -> Iterator[tuple[str, str]]:
    """Iterate over class and message of every error of the source code, with an ellipsis for each part that varies."""
    names = {error.__name__ for error in error_classes()}
    for path in sorted(Path(lungmix.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names and node.args:
                message = template_of(node.args[0])
                if len(message.replace(ELLIPSIS, "").split()) > 3:
                    yield node.func.id, message


def template_of(node: ast.expr) -> str:
    """Return a string of the source code with an ellipsis for each part that varies; "" for anything else."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = [template_of(value) if isinstance(value, ast.Constant) else ELLIPSIS for value in node.values]
        return "".join(parts)
    return ""


def error_classes(base: type[errors.LungmixError] = errors.LungmixError) -> Iterator[type[errors.LungmixError]]:
    """Iterate over a class of errors and all that derive from it, in the order of their definitions."""
    yield base
    for derived in base.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from error_classes(derived)
