"""Names of files and stores in printed text: shown at the terminal, replaced in text that may be passed on.

The object of ``--json`` and the tracebacks of ``--debug`` name no file: in them a source is "source 2, item 17", as
``lungmix scan`` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lungmix.cli.spelling import with_options
from lungmix.errors import redact, reveal


@dataclass
class _Command:
    """The running command. There is one a process, and messages come from threads of it, which share this state."""

    words: frozenset[str] = frozenset()
    store: str = "STORE"


_COMMAND = _Command()


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Hold the words of the running command for the functions of this module."""
    before, _COMMAND.words = _COMMAND.words, frozenset(words)
    try:
        yield
    finally:
        _COMMAND.words = before


@contextmanager
def own_store() -> Iterator[None]:
    """Let the block or function begin without a store, and forget at its end which one `remember_store` was given."""
    before, _COMMAND.store = _COMMAND.store, "STORE"
    try:
        yield
    finally:
        _COMMAND.store = before


def remember_store(store: str | None) -> str | None:
    """Record the store of the running command, so that printed remedies name it; return it."""
    if store is not None:
        _COMMAND.store = store
    return store


def debugging() -> bool:
    """Return True with ``--debug``: tracebacks are printed."""
    return "--debug" in _COMMAND.words


def may_show_names() -> bool:
    """Return True if printed text may name files: without ``--json`` and ``--debug``."""
    return not {"--debug", "--json"} & _COMMAND.words


def printable(message: str) -> str:
    """Return a message with options in place of parameters and its names revealed or redacted, see `may_show_names`.

    Where names may be shown, its commands have the address of the store of the running command.
    """
    return with_options(reveal(message), _COMMAND.store) if may_show_names() else with_options(redact(message))
