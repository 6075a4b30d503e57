"""Names of files and stores in printed text: shown at the terminal, replaced in text that users may pass on.

The output of ``--json`` and the tracebacks of ``--debug`` contain no names of files, which may identify patients. They
name a source by its label, such as "source 2, item 17", with the numbers that ``lungmix scan`` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lungmix.cli.spelling import with_options
from lungmix.errors import redact, reveal


@dataclass
class _Command:
    """State of the running command. A process has one, which all threads that print messages share."""

    words: frozenset[str] = frozenset()
    store: str = "STORE"


_COMMAND = _Command()


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Set the words of the running command within the block; functions of this module look for options in them."""
    before, _COMMAND.words = _COMMAND.words, frozenset(words)
    try:
        yield
    finally:
        _COMMAND.words = before


@contextmanager
def own_store() -> Iterator[None]:
    """Forget the store of the running command for a block, or a decorated function, and restore it at the end.

    Within the block, `remember_store` sets the store of the command that runs there.
    """
    before, _COMMAND.store = _COMMAND.store, "STORE"
    try:
        yield
    finally:
        _COMMAND.store = before


def remember_store(store: str | None) -> str | None:
    """Record the store of the running command, so that printed remedies name it; return its address."""
    if store is not None:
        _COMMAND.store = store
    return store


def debugging() -> bool:
    """Return True if the command has the option ``--debug``, so that tracebacks are printed."""
    return "--debug" in _COMMAND.words


def may_show_names() -> bool:
    """Return True if printed text may contain names of files: the command has neither ``--json`` nor ``--debug``."""
    return not {"--debug", "--json"} & _COMMAND.words


def printable(message: str) -> str:
    """Return a message as a command prints it, with options in place of parameters.

    If names may be shown (`may_show_names`), they are revealed, and commands in the message name the store of the
    running command. Otherwise names are redacted.
    """
    return with_options(reveal(message), _COMMAND.store) if may_show_names() else with_options(redact(message))
