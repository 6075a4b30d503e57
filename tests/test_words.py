"""Words of the code: docstrings begin with a verb or a noun, variables are nouns, tests are short plain sentences."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import lungmix

PACKAGE = Path(lungmix.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TESTS_FOLDER = Path(__file__).parent
TESTS = sorted(TESTS_FOLDER.rglob("*.py"))
LIBRARY = sorted(
    file for file in PACKAGE.rglob("*.py") if "cli" not in file.relative_to(PACKAGE).parts and file.stem != "__main__"
)
"""Files whose messages users of the library read too, which is all but the command line."""
OPTION = re.compile(r"(?<![\w-])--[a-z]|`lungmix ")
OTHER_PROGRAMS = re.compile(r"(`(dask|gdcmconv)|napari) [^`]*")
OPENINGS = {"What", "Whether", "Who", "Whose", "Where", "How", "Of", "So", "Such"}
"""First words of a docstring that leave its subject open."""
PRONOUNS = {
    "one",
    "found",
    "known",
    "own",
    "whole",
    "here",
    "there",
    "mine",
    "most",
    "least",
    "told",
    "taken",
    "wanted",
}
"""Names that say nothing of what they hold."""


OLD_WORDS = re.compile(
    r"refus|anew|mend|strangers?|told|gave_up|goes_on|withdr|(?:^|_)(?:lies?|beside|islands?)(?:_|$)"
)
"""Words in names of tests that the glossary replaces."""


@cache
def parsed(text):
    return ast.parse(text)


def names_to_replace(text):
    names = [node.name for node in functions_and_classes(parsed(text)) if node.name.startswith("test_")]
    return [name for name in names if len(name) > 80 or OLD_WORDS.search(name)]


def functions_and_classes(tree):
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    return [node for node in ast.walk(tree) if isinstance(node, kinds)]


def bound_names(tree):
    """Yield names of variables and parameters with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def open_docstrings(text):
    docstrings = [(node, ast.get_docstring(node)) for node in functions_and_classes(parsed(text))]
    return [f"{node.lineno}: {node.name}" for node, words in docstrings if words and words.split()[0] in OPENINGS]


def options(text):
    """Return lines of string literals with an option, without docstrings and commands of other programs."""
    tree = parsed(text)
    bodies = [node.body for node in ast.walk(tree) if isinstance(getattr(node, "body", None), list)]
    docstrings = {id(part.value) for body in bodies for part in body if isinstance(part, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings]
    lines = [(node.lineno, OTHER_PROGRAMS.sub("", str(node.value))) for node in strings]
    return [f"{line}: {text}" for line, text in lines if OPTION.search(text)]


def pronouns(text):
    return [f"{line}: {name}" for name, line in bound_names(parsed(text)) if name.strip("_") in PRONOUNS]


RULES = {
    "docstrings begin with a verb or a noun": (PACKAGE, FILES, open_docstrings),
    "variables are no pronouns": (PACKAGE, FILES, pronouns),
    "messages of the library name parameters and methods but no options": (PACKAGE, LIBRARY, options),
    "variables of tests are no pronouns": (TESTS_FOLDER, TESTS, pronouns),
    "names of tests are short and plain": (TESTS_FOLDER, TESTS, names_to_replace),
}
"""By rule: the folder, its files, and the function that returns what breaks the rule in a text."""


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule):
    folder, files, faults_of = RULES[rule]
    faults = {str(file.relative_to(folder)): faults_of(file.read_text(encoding="utf-8")) for file in files}
    assert {file: broken for file, broken in faults.items() if broken} == {}


def test_words_that_break_a_rule_are_found():
    assert options('def f():\n    "--wait"\n    raise E(f"{a}: give --wait", "a--b", "`dask worker --name`")') == [
        "3: : give --wait"
    ]
    assert open_docstrings('def f():\n    """What it does."""') == ["1: f"]
    assert open_docstrings('class A:\n    """Values of a scan."""') == []
    assert names_to_replace(
        f"def test_{'x' * 76}(): ...\ndef test_it_is_refused(): ...\ndef test_it_is_rejected(): ..."
    ) == [
        f"test_{'x' * 76}",
        "test_it_is_refused",
    ]
    assert pronouns("def f(one):\n    found = [x for x in one]") == ["1: one", "2: found"]
