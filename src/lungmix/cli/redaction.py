"""Whether what is printed may name files.

A person at the terminal reads which file is meant. What is meant to be passed on, the object of ``--json`` and the
tracebacks of ``--debug``, names none: there a source is "source 2, item 17", as ``lungmix scan`` counts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from lungmix.errors import redact, reveal

_WORDS: ContextVar[frozenset[str]] = ContextVar("words", default=frozenset())


@contextmanager
def command_line(words: Sequence[str]) -> Iterator[None]:
    """The words of the command that runs."""
    token = _WORDS.set(frozenset(words))
    try:
        yield
    finally:
        _WORDS.reset(token)


def debugging() -> bool:
    """Whether tracebacks were asked for."""
    return "--debug" in _WORDS.get()


def may_show_names() -> bool:
    """Whether files may be named."""
    return not {"--debug", "--json"} & _WORDS.get()


def told(message: str) -> str:
    """A message with marked names as it may be printed."""
    return reveal(message) if may_show_names() else redact(message)
