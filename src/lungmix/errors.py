"""Every error that a user can meet, in one hierarchy.

A message names the file or the case, says what is wrong and what to do about it; nothing else is needed to go
on. Nothing in a message comes from a patient's attributes. Names of files may be names of patients: they stand between
marks (`named`), so that whatever is written can leave them out.
"""

from __future__ import annotations

import re
from pathlib import PurePath

_OPEN, _CLOSE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_MARKED = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")


def named(path: str | PurePath) -> str:
    """The last part of a path for a message, between marks; what would move a cursor or turn text round is escaped."""
    text = PurePath(path).name or str(path)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)
    return f"{_OPEN}{shown}{_CLOSE}"


def shown(message: str) -> str:
    """A message for the person at the terminal: with the names, without the marks around them."""
    return message.replace(_OPEN, "").replace(_CLOSE, "")


def anonymous(message: str, instead: str = "the file") -> str:
    """A message for what is written: every marked name is replaced."""
    return _MARKED.sub(instead, message)


class LungmixError(Exception):
    """Base of all errors of this package; `str` gives the message with the names and without the marks."""

    def __str__(self) -> str:
        return shown(super().__str__())

    @property
    def anonymous(self) -> str:
        """The message without the names of files."""
        return anonymous(super().__str__())


class UsageError(LungmixError):
    """A parameter, an option or a combination of them makes no sense (exit status 2)."""


class SourceError(LungmixError):
    """A source cannot be read as one CT volume in Hounsfield units."""


class StoreError(LungmixError):
    """A store is missing, is something else, or does not hold what was asked of it."""


class AlignmentError(StoreError):
    """A write would touch part of a shard that it does not own."""


class NoLungError(LungmixError):
    """No island of air qualifies as lung; the message says what was seen."""


class ModelError(LungmixError, ValueError):
    """A mixture cannot be read or does not fit its purpose.

    A `ValueError` too, which is what users of scikit-learn catch.
    """


class ClusterError(LungmixError):
    """The scheduler or its workers cannot be used."""


def reason_of(error: Exception) -> str:
    """One sentence for people about what ended a case."""
    if isinstance(error, LungmixError):
        return str(error)
    if isinstance(error, OSError):
        return f"reading or writing failed ({error.strerror or type(error).__name__}): check disk space and permissions"
    return f"unexpected {type(error).__name__}: {error}; run again with --debug and report it"
