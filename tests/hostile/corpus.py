"""Hostile and broken files, one small function a case, with what is expected of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REFUSED, READ, EITHER = "refused", "read", "either"


@dataclass(frozen=True)
class Case:
    """A way to be hostile.

    Attributes
    ----------
    name : str
        Of the function that writes it.
    write : callable
        Takes an empty folder, returns the source.
    expected : {"refused", "read", "either"}
        Whether nothing of it may be read, all of it has to be read as SimpleITK does, or both are right.
    names : tuple of str
        What the reason has to name, one of them; the name of the source if empty.
    words : tuple of str
        What the reason has to say.
    simpleitk : bool
        Whether SimpleITK reads it where it is a scan.
    """

    name: str
    write: Callable[[Path], Path]
    expected: str
    names: tuple[str, ...]
    words: tuple[str, ...]
    simpleitk: bool = True


CASES: dict[str, Case] = {}


def case(expected: str = REFUSED, *words: str, names: tuple[str, ...] = ()):
    """Take a function into the corpus."""

    def take(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
        name = write.__name__
        assert name not in CASES, name
        CASES[name] = Case(name, write, expected, names, words)
        return write

    return take


def refused(*words: str, names: tuple[str, ...] = ()):
    """A case of which nothing may be read."""
    return case(REFUSED, *words, names=names)


def read():
    """A case that looks odd and is a scan."""
    return case(READ)
