"""Every error that a user can meet, in one hierarchy.

A message names the file or the case, says what is wrong and what to do about it; nothing else is needed to go
on. Nothing in a message comes from a patient's attributes. Names of files may be names of patients: they stand between
marks (`mark_path`), so that whatever is written can leave them out.
"""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from typing import Any

_OPEN, _CLOSE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_OPEN_QUOTE = "\N{LEFT-TO-RIGHT ISOLATE}"
_MARKED = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")
_QUOTED = re.compile(f"{_OPEN_QUOTE}[^{_CLOSE}]*{_CLOSE}")


def mark_path(path: str | PurePath) -> str:
    """The last part of a path for a message, between marks; what would move a cursor or turn text round is escaped."""
    return f"{_OPEN}{_printable(PurePath(path).name or str(path))}{_CLOSE}"


def mark_untrusted(words: object) -> str:
    """Words of a file or of another library for a message, between marks: like names, they are left out elsewhere."""
    return f"{_OPEN_QUOTE}{_printable(str(words))}{_CLOSE}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def encodable(text: str) -> str:
    r"""Return text that UTF-8 can encode: bytes of a name that are no UTF-8 become escapes such as ``\udcf6``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_encodable(text: str) -> bool:
    """Return True for text that UTF-8 can encode: no byte of it comes from a name in another encoding."""
    return encodable(text) == text


def reveal(message: str) -> str:
    """A message for the person at the terminal: with the names, without the marks around them."""
    return message.replace(_OPEN, "").replace(_OPEN_QUOTE, "").replace(_CLOSE, "")


def redact(message: str, instead: str = "the file") -> str:
    """A message for what is written: every marked name is replaced, and what is quoted is left out."""
    return _QUOTED.sub("...", _MARKED.sub(lambda _: instead, message))


class LungmixError(Exception):
    """Base of all errors of this package.

    `str` gives the message with the names and without the marks, for people; `repr`, which is what logs of workers and
    debuggers show, gives it without the names.
    """

    status = 2
    """Of a command that it ends."""

    def __str__(self) -> str:
        return reveal(self.marked)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.anonymous!r})"

    @property
    def marked(self) -> str:
        """The message with its marks, to be passed on until it is known who reads it."""
        return Exception.__str__(self)

    @property
    def anonymous(self) -> str:
        """The message without the names of files."""
        return redact(self.marked)


class UsageError(LungmixError, ValueError):
    """A parameter, an option or a combination of them makes no sense (exit status 2)."""


class SourceError(LungmixError):
    """A source cannot be read as one CT volume in Hounsfield units."""


class StoreError(LungmixError):
    """A store is missing, is something else, or does not hold what was asked of it."""


class CaseNotFoundError(StoreError, KeyError):
    """A store has no case of the name that was asked for."""


class DamageError(StoreError):
    """Stored bytes are not those that were written: a checksum or a length does not fit.

    Attributes
    ----------
    case, array : str
        Which array of which case.
    """

    def __init__(self, case: str, array: str, where: str):
        super().__init__(
            f"case {case}: {array} is damaged in {where}: run `lungmix run` on its store again, with the scan's SOURCE"
        )
        self.case, self.array, self.where = case, array, where

    @property
    def fault(self) -> str:
        """What is damaged, without the case and the remedy."""
        return f"{self.array} is damaged in {self.where}"

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.case, self.array, self.where)


class LockedError(StoreError):
    """Another process writes to the store."""


class AlignmentError(StoreError):
    """A write would touch part of a shard that it does not own."""


class HuError(LungmixError):
    """The values of an image are not Hounsfield units of a chest."""


class NoLungError(LungmixError):
    """No island of air qualifies as lung; the message says what was seen."""


class ModelError(LungmixError, ValueError):
    """A mixture cannot be read or does not fit its purpose.

    A `ValueError` too, which is what users of scikit-learn catch.
    """


class ClusterError(LungmixError):
    """The scheduler or its workers cannot be used."""


class RoomError(ClusterError):
    """A worker has too little memory for a case; the message says how much is enough.

    Attributes
    ----------
    case : str
        Name of the case.
    pixels : tuple of int
        Rows and columns of its slices.
    limit : int
        Memory limit of the smallest worker, bytes.
    enough : int
        Memory limit that is enough, bytes.
    is_local : bool
        Workers were started by this program.
    """

    def __init__(self, case: str, pixels: tuple[int, int], limit: int, enough: int, is_local: bool):
        rows, columns = pixels
        super().__init__(
            f"a worker has {limit / 1e6:.0f} MB of memory, and slices of {columns} x {rows} pixels need "
            f"{enough / 1e6:.0f} MB: {more_memory(f'{enough / 1e6:.0f}MB', is_local=is_local)}"
        )
        self.case, self.pixels, self.limit, self.enough, self.is_local = case, pixels, limit, enough, is_local

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.case, self.pixels, self.limit, self.enough, self.is_local)


def more_memory(size: str, *, is_local: bool) -> str:
    """Return what to do about workers with too little memory: those of a local cluster, or of another scheduler."""
    if is_local:
        return f"give workers more with --memory-limit {size} (memory_limit of lungmix.connect)"
    return f"start workers with more, such as `dask worker --memory-limit {size}`"


class WorkersEndedError(ClusterError):
    """Worker processes ended repeatedly while they worked on one case; the message says by what."""


class StalledError(ClusterError):
    """All workers stand paused for their memory, and nothing moves."""

    status = 1


class NoGuardError(ClusterError, SystemExit):
    """A script starts workers, and each of them would run the script again from its beginning.

    A `SystemExit` too: a script that does not catch it ends with the sentence and the status 1, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


def reason_of(error: BaseException) -> str:
    """One sentence about what ended a case, with its marks; see `reveal` and `redact`."""
    if isinstance(error, LungmixError):
        return error.marked
    if isinstance(error, OSError):
        return f"reading or writing failed ({error.strerror or type(error).__name__}): check disk space and permissions"
    return f"unexpected {type(error).__name__}: {mark_untrusted(error)}; run again with --debug and report it"


def trace_of(error: BaseException) -> str:
    """A traceback that can be passed on: where it happened and what kind of error, without names and foreign words.

    Messages of other libraries quote what they stumble over, which may be a file's name or a header's text.
    """
    parts = []
    one: BaseException | None = error
    while one is not None:
        frames = "".join(traceback.format_tb(one.__traceback__))
        reason = one.anonymous if isinstance(one, LungmixError) else redact(reason_of(one))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(one).__qualname__}: {reason}\n")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n".join(reversed(parts))
