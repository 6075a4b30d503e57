"""Imports run downwards only, as docs/architecture.md draws them, and no modules wait for each other."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import lungmix

PACKAGE = Path(lungmix.__file__).parent
DRAWING = Path(__file__).parents[1] / "docs" / "architecture.md"
EVERYWHERE = {"_version"}


def rows():
    """The drawing from the top down: names of folders and files that stand side by side."""
    picture = DRAWING.read_text().split("```")[1]
    above = picture.split("phantom/")[0]
    names_of_lines = [re.findall(r"(\w+)(?:/|\.py)", line) for line in above.splitlines()]
    return [set(row) for row in names_of_lines if row]


@cache
def trees():
    """Every module of the package as a tree."""
    return {_module(file): ast.parse(file.read_text()) for file in PACKAGE.rglob("*.py")}


@cache
def imports(nodes=ast.walk):
    """Every module of the package with the other modules that it imports, wherever in the file."""
    return {module: set(_imported(nodes(tree), set(trees()))) - {module} for module, tree in trees().items()}


def _module(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(nodes, modules):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & modules
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lungmix":
            for alias in node.names:
                full_name = f"{node.module}.{alias.name}"
                yield full_name if full_name in modules else node.module


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


def running(tree):
    """Nodes of a file, but for imports that only type checkers follow."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from running(node)


def test_imports_in_functions_count_and_those_of_type_checkers_do_not():
    tree = ast.parse("if TYPE_CHECKING:\n    import lungmix.a\ndef f():\n    import lungmix.b\n")
    assert set(_imported(running(tree), {"lungmix.a", "lungmix.b"})) == {"lungmix.b"}


def test_no_two_modules_need_each_other_wherever_they_import():
    assert list(TopologicalSorter(imports(running)).static_order())


def test_no_two_modules_need_each_other_to_be_loaded():
    at_once = imports(lambda tree: tree.body)
    assert list(TopologicalSorter(at_once).static_order())


LAZY_IMPORTS = {
    "cli": 102,  # `lungmix --help`, and each command, load only what they use
    "cluster": 5,  # modules of the worker, in functions that are sent to it; `resource`, which Windows lacks
    "export": 4,  # highdicom, for DICOM SEG, SR and KO alone
    "formats": 3,  # obstore, for sources in a bucket alone; the client of DICOMweb, which is an extra
    "intake": 1,  # `fcntl`, which Windows lacks
    "mixture": 3,  # scikit-learn and dask-ml, which workers need not load
    "s3": 4,  # obstore
    "segmenters": 3,  # lungmask and torch, which are extras
    "stages": 1,  # scikit-learn, for fits over voxels alone
    "store": 11,  # mixtures, which most tasks do not need; obstore, pyarrow, pandas, matplotlib
}
"""Imports inside functions by folder, each for its reason: start-up time or an optional module. They may only fall."""


def test_imports_inside_functions_become_no_more():
    lines = {module: set() for module in trees()}
    for module, tree in trees().items():
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                nodes = (node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))
                lines[module].update(node.lineno for node in nodes)
    counts = Counter()
    for module, numbers in lines.items():
        counts[room(module)] += len(numbers)
    assert {name: count for name, count in counts.items() if count > LAZY_IMPORTS.get(name, 0)} == {}


IMPORT_ALL = """
import json, pkgutil, sys, warnings
import lungmix, zarr

def configuration():
    return json.dumps(zarr.config.config, default=str, sort_keys=True)

callers = []

def recorded(function):
    def call(*args, **options):
        callers.append(sys._getframe(1).f_globals["__name__"])
        return function(*args, **options)
    return call

for name in ("filterwarnings", "simplefilter", "resetwarnings"):
    setattr(warnings, name, recorded(getattr(warnings, name)))
sys.modules["dl"] = planted = type(sys)("dl")
before, configured = dict(sys.modules), configuration()
for module in pkgutil.walk_packages(lungmix.__path__, "lungmix."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
print(json.dumps({
    "callers": sorted({name for name in callers if name.startswith("lungmix")}),
    "configured": configuration() != configured,
    "replaced": [name for name, module in before.items() if sys.modules.get(name) is not module],
}))
"""


def test_importing_every_module_changes_no_state_of_other_packages():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    changes = json.loads(done.stdout)
    assert changes == {"callers": [], "configured": False, "replaced": []}
