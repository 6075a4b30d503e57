"""File names reach messages only through `mark_path`; this is checked in the source code.

Every f-string in a ``raise`` statement, or in the reason of a rejected or skipped source, is checked.
"""

from __future__ import annotations

import ast
from pathlib import Path

import lungmix

SOURCE = Path(lungmix.__file__).parent
MARKERS = {"mark_path", "mark_untrusted", "len"}
PARTS = {"name", "stem", "parent", "parents", "suffix", "suffixes", "lstrip", "strip", "resolve", "absolute", "join"}
PLACES = {"path", "file", "files", "folder", "target", "archive", "location", "source", "sources", "data_file"}
"""Names of variables and attributes that contain paths."""

# Modules whose messages may name the store and output files, since the user chose these names.
OUTPUTS = {
    "store/opening.py", "webpage/files.py", "export/formats.py", "export/images.py", "formats/write.py",
    "export/dicom_source.py", "intake/key_table.py", "store/case.py",
}  # fmt: skip


def places_in(expression: ast.expr) -> set[str]:
    """Return the names of `PLACES` in an expression, except in calls of `MARKERS`, which mark or count paths."""
    if isinstance(expression, ast.Call) and isinstance(expression.func, ast.Name) and expression.func.id in MARKERS:
        return set()
    names = set()
    if isinstance(expression, ast.Name) and expression.id in PLACES:
        names.add(expression.id)
    if isinstance(expression, ast.Attribute) and expression.attr in PLACES:
        names.add(expression.attr)
    if isinstance(expression, ast.Attribute) and expression.attr not in PARTS:
        return names
    for child in ast.iter_child_nodes(expression):
        if isinstance(child, ast.expr):
            names |= places_in(child)
    return names


def messages_of(tree: ast.AST) -> list[ast.JoinedStr]:
    """Return the f-strings in ``raise`` statements, and in arguments of `RejectedSource` and `SkippedSource`."""
    out = []
    for node in ast.walk(tree):
        raised = node.exc if isinstance(node, ast.Raise) else None
        made = (
            node
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("RejectedSource", "SkippedSource")
            else None
        )
        for root in (raised, made):
            if root is not None:
                out += [part for part in ast.walk(root) if isinstance(part, ast.JoinedStr)]
    return out


def unmarked(text: str) -> list[str]:
    lines = []
    for message in messages_of(ast.parse(text)):
        for value in message.values:
            if isinstance(value, ast.FormattedValue) and places_in(value.value):
                lines.append(f"line {message.lineno}: {ast.unparse(value.value)}")
    return lines


def test_every_message_marks_the_names_of_files():
    matches = {}
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        lines = [] if name in OUTPUTS else unmarked(file.read_text(encoding="utf-8"))
        if lines:
            matches[name] = lines
    assert matches == {}
    # Every module in `OUTPUTS` needs the exception.
    assert all(unmarked((SOURCE / name).read_text(encoding="utf-8")) for name in OUTPUTS)


def test_unmarked_message_is_found():
    assert unmarked('raise SourceError(f"{path.name} is cut")') == ["line 1: path.name"]
    assert unmarked('raise E("a" f"{len(files)} of {mark_path(path)}") from None') == []
    assert unmarked('x = RejectedSource(name, path, f"{scan.path}: cut")') == ["line 1: scan.path"]
    assert unmarked('raise E(f"{mark_untrusted(one)}, {str(folder)}")') == ["line 1: str(folder)"]
