"""Corpus of hostile and corrupt files: one function per case, which writes the file, with the expected result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REFUSED, READ, EITHER = "refused", "read", "either"


@dataclass(frozen=True)
class Case:
    """Hostile source and its expected result.

    Attributes
    ----------
    name : str
        Name of the case.
    write : callable
        Function that writes the source into an empty folder, and returns its path.
    expected : {"refused", "read", "either"}
        ``refused`` if no scan may be read from the source, ``read`` if it must be read as SimpleITK reads it,
        ``either`` if both are right.
    names : tuple of str
        Names of files, one of which the reason of a rejection must contain; by default that of the source.
    words : tuple of str
        Words that the reasons of rejections must contain.
    simpleitk : bool
        True if scans are compared with those that SimpleITK reads.
    """

    name: str
    write: Callable[[Path], Path]
    expected: str
    names: tuple[str, ...]
    words: tuple[str, ...]
    simpleitk: bool = True


CASES: dict[str, Case] = {}


def case(expected: str = REFUSED, *words: str, names: tuple[str, ...] = ()):
    """Return a decorator that adds a function to the corpus as `Case.write` of a new case."""

    def take(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        name = write.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, write, expected, names, words)
        return write

    return take


def refused(*words: str, names: tuple[str, ...] = ()):
    """Return a decorator for a case of which no scan may be read."""
    return case(REFUSED, *words, names=names)


def read():
    """Return a decorator for a case that is unusual, but a scan that must be read."""
    return case(READ)
