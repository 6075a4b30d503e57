"""Names of files and stores in printed text: shown at the terminal, replaced in text that may be passed on.

The object of ``--json`` and the tracebacks of ``--debug`` name no file: in them a source is "source 2, item 17", as
``lungmix scan`` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from lungmix.cli.spelling import with_options
from lungmix.errors import redact, reveal

_WORDS: ContextVar[frozenset[str]] = ContextVar("words", default=frozenset())
_STORE: ContextVar[str] = ContextVar("store", default="STORE")


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Hold the words of the running command for the functions of this module."""
    token = _WORDS.set(frozenset(words))
    try:
        yield
    finally:
        _WORDS.reset(token)


@contextmanager
def own_store() -> Iterator[None]:
    """Let the block or function begin without a store, and forget at its end which one `remember_store` was given."""
    token = _STORE.set("STORE")
    try:
        yield
    finally:
        _STORE.reset(token)


def remember_store(store: str | None) -> str | None:
    """Record the store of the running command, so that printed remedies name it; return it."""
    if store is not None:
        _STORE.set(store)
    return store


def debugging() -> bool:
    """Return True with ``--debug``: tracebacks are printed."""
    return "--debug" in _WORDS.get()


def may_show_names() -> bool:
    """Return True if printed text may name files: without ``--json`` and ``--debug``."""
    return not {"--debug", "--json"} & _WORDS.get()


def printable(message: str) -> str:
    """Return a message with options in place of parameters and its names revealed or redacted, see `may_show_names`.

    Where names may be shown, its commands have the address of the store of the running command.
    """
    return with_options(reveal(message), _STORE.get()) if may_show_names() else with_options(redact(message))
