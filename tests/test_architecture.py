"""Imports run downwards only, as docs/architecture.md draws them, and no modules wait for each other."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import lungmix

PACKAGE = Path(lungmix.__file__).parent
DRAWING = Path(__file__).parents[1] / "docs" / "architecture.md"
EVERYWHERE = {"_version", "_lazy"}


def rows():
    """The drawing from the top down: names of folders and files that stand side by side."""
    picture = DRAWING.read_text().split("```")[1]
    above = picture.split("phantom/")[0]
    found = [re.findall(r"(\w+)(?:/|\.py)", line) for line in above.splitlines()]
    return [set(row) for row in found if row]


def imports(nodes=ast.walk):
    """Every module of the package with the other modules that it imports, wherever in the file."""
    files = {_module(file): file for file in PACKAGE.rglob("*.py")}
    trees = {module: ast.parse(file.read_text()) for module, file in files.items()}
    return {module: set(_imported(nodes(tree), set(files))) - {module} for module, tree in trees.items()}


def _module(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(nodes, modules):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lungmix":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules else node.module


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_every_room_is_drawn_once():
    drawn = [name for row in rows() for name in row]
    assert sorted(drawn) == sorted({room(module) for module in imports()} - {"", "phantom"} - EVERYWHERE)


def test_no_module_imports_what_is_drawn_above_it():
    level = {name: depth for depth, row in enumerate(rows()) for name in row}
    upwards = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if room(module) in level and room(other) not in EVERYWHERE
        if room(other) not in level or level[room(other)] < level[room(module)]
    ]
    assert not upwards


def test_no_two_modules_need_each_other_to_be_loaded():
    at_once = imports(lambda tree: tree.body)
    assert list(TopologicalSorter(at_once).static_order())
