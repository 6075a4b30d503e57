"""File names in printed text: shown to the person at the terminal, replaced in text that may be passed on.

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


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """Hold the words of the running command for the functions of this module."""
    token = _WORDS.set(frozenset(words))
    try:
        yield
    finally:
        _WORDS.reset(token)


def debugging() -> bool:
    """Return True with ``--debug``: tracebacks are printed."""
    return "--debug" in _WORDS.get()


def may_show_names() -> bool:
    """Return True if printed text may name files: without ``--json`` and ``--debug``."""
    return not {"--debug", "--json"} & _WORDS.get()


def printable(message: str) -> str:
    """Return a message with options in place of parameters and its names revealed or redacted, see `may_show_names`."""
    return with_options(reveal(message) if may_show_names() else redact(message))
