"""Errors of the package, in one hierarchy.

A message names the file or the case and says what is wrong. After a colon or semicolon it says what to do about it;
this remedy begins with one of `IMPERATIVES`. No message contains a patient's attributes. Names of files may be names
of patients, so messages hold them between marks (`mark_path`), and written files and logs omit what is marked.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any

_OPEN, _CLOSE = "\N{FIRST STRONG ISOLATE}", "\N{POP DIRECTIONAL ISOLATE}"
_OPEN_QUOTE = "\N{LEFT-TO-RIGHT ISOLATE}"
_MARKED = re.compile(f"{_OPEN}[^{_CLOSE}]*{_CLOSE}")
_QUOTED = re.compile(f"{_OPEN_QUOTE}[^{_CLOSE}]*{_CLOSE}")

REPORT_IT = "report it with its traceback"
"""Remedy for an unexpected error. Such an error is a bug of this package, so users can only report it."""

IMPERATIVES = (
    "add", "call", "check", "choose", "convert", "correct", "export", "fill", "fit", "free", "get", "give", "install",
    "keep", "label", "make", "name", "omit", "put", "read", "remove", "report", "resample", "reshape", "return",
    "run", "save", "score", "see", "set", "start", "try", "unpack", "use", "wait", "write",
)  # fmt: skip
"""First words of remedies; a remedy may also begin with a command or a method to call."""

_REMEDY = re.compile(rf"(?:^|[:;] )(?=(?:{'|'.join(IMPERATIVES)}) |`(?:lungmix|Cohort|Pipeline\.))")


def mark_path(path: str | PurePath) -> str:
    """Return the last part of a path between marks, for a message; control and direction characters are escaped."""
    return f"{_OPEN}{_printable(PurePath(path).name or str(path))}{_CLOSE}"


def mark_untrusted(text: object) -> str:
    """Return text of a file or of another library between marks, for a message; `redact` omits it."""
    return f"{_OPEN_QUOTE}{_printable(str(text))}{_CLOSE}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def encodable(text: str) -> str:
    r"""Return text that UTF-8 can encode: bytes of a name that are not UTF-8 become escapes such as ``\udcf6``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_encodable(text: str) -> bool:
    """Return True for text that UTF-8 can encode: no byte of it comes from a name in another encoding."""
    return encodable(text) == text


def reveal(message: str) -> str:
    """Return a message for the person at the terminal: with names, without the marks around them."""
    return message.replace(_OPEN, "").replace(_OPEN_QUOTE, "").replace(_CLOSE, "")


shown = reveal
"""Earlier name of `reveal`, which scripts of users import."""


def redact(message: str) -> str:
    """Return a message for files and logs: "the file" replaces each marked name, "..." each marked text."""
    return _QUOTED.sub("...", _MARKED.sub("the file", message))


class LungmixError(Exception):
    """Base of all errors of this package.

    `str` returns the message with names and without marks, for people; `repr`, which logs of workers and debuggers
    show, returns it without names.

    Attributes
    ----------
    path : str or None
        File, folder or address of the source or of the store that the error is about. It may name a patient.
    case : str or None
        Name of the case that the error is about.
    """

    status = 2
    """Exit status of a command that this error ends."""

    def __init__(self, message: str, *, path: str | PurePath | None = None, case: str | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else str(path)
        self.case = case

    def __str__(self) -> str:
        return reveal(self.raw_message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.redacted_message!r})"

    @property
    def raw_message(self) -> str:
        """Message with its marks, for code that later applies `reveal` or `redact`."""
        return Exception.__str__(self)

    @property
    def redacted_message(self) -> str:
        """Message without names of files."""
        return redact(self.raw_message)

    @property
    def remedy(self) -> str | None:
        """Last part of the message, which says what to do, without names of files; None if there is no such part."""
        message = self.raw_message
        # Names of files may look like a remedy.
        start = _REMEDY.search(_QUOTED.sub(_blank, _MARKED.sub(_blank, message)))
        return None if start is None else redact(message[start.end() :])


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


@contextmanager
def error_about(*, path: str | PurePath | None = None, case: str | None = None) -> Iterator[None]:
    """Set the attributes `path` and `case` of an error that the block raises.

    Blocks may be nested. The values of the outermost block replace those of inner ones, because its path is the one
    that a user gave.
    """
    try:
        yield
    except LungmixError as error:
        error.path = error.path if path is None else str(path)
        error.case = case or error.case
        raise


class UsageError(LungmixError, ValueError):
    """A parameter, an option or a combination of them makes no sense (exit status 2)."""


class SourceError(LungmixError):
    """A source cannot be read as one CT volume in Hounsfield units."""


class StoreError(LungmixError):
    """A store is missing, is not a lungmix store, or lacks the requested data."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at this path or address."""


class CaseNotFoundError(StoreError, KeyError):
    """A store has no case of the requested name."""


class DamageError(StoreError):
    """Stored bytes are corrupt: a checksum or a length does not match.

    Attributes
    ----------
    array, where : str
        Name of the array and of its corrupt file.
    """

    case: str

    def __init__(self, case: str, array: str, where: str):
        super().__init__(
            f"case {case}: {array} is damaged in {where}: run `Pipeline.run(sources)` with the source of the scan",
            case=case,
        )
        self.array, self.where = array, where

    @property
    def fault(self) -> str:
        """Damaged array and file, without case and remedy."""
        return f"{self.array} is damaged in {self.where}"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.case, self.array, self.where), self.__dict__


class LockedError(StoreError):
    """Another process writes to the store."""


class AlignmentError(StoreError):
    """A write would change part of a shard that belongs to another write."""


class HuError(LungmixError):
    """The values of an image are not Hounsfield units of a chest."""


class SegmenterError(LungmixError):
    """A segmenter cannot be loaded, fails, or returns something else than labels of its slices."""


class NoLungError(LungmixError):
    """No component of air qualifies as lung; the message describes the components."""


class ModelError(LungmixError, ValueError):
    """A mixture cannot be read or does not fit its purpose.

    A `ValueError` too, which is what users of scikit-learn catch.
    """


class MixtureWarning(UserWarning):
    """Labels by a mixture are doubtful, because checks of the mixture fail; see `lungmix.mixture.diagnose`."""


class ClusterError(LungmixError):
    """The scheduler or its workers cannot be used."""


class RoomError(ClusterError):
    """A worker has too little memory for a case; the message names a sufficient limit.

    Attributes
    ----------
    pixels : tuple of int
        Rows and columns of the slices of the case.
    limit : int
        Memory limit of the smallest worker, bytes.
    enough : int
        Sufficient memory limit, bytes.
    is_local : bool
        True where this program started the workers.
    """

    case: str

    def __init__(self, case: str, pixels: tuple[int, int], limit: int, enough: int, is_local: bool):
        rows, columns = pixels
        super().__init__(
            f"a worker has {limit / 1e6:.0f} MB of memory, and slices of {columns} x {rows} pixels need "
            f"{enough / 1e6:.0f} MB: {more_memory(f'{enough / 1e6:.0f}MB', is_local=is_local)}",
            case=case,
        )
        self.pixels, self.limit, self.enough, self.is_local = pixels, limit, enough, is_local

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.case, self.pixels, self.limit, self.enough, self.is_local), self.__dict__


def more_memory(size: str, *, is_local: bool) -> str:
    """Return the remedy for workers with too little memory, of a local cluster or of another scheduler."""
    if is_local:
        return f"give workers more with `memory_limit={size!r}`"
    return f"start workers with more, such as `dask worker --memory-limit {size}`"


class WorkersEndedError(ClusterError):
    """Worker processes ended repeatedly while they worked on one case; the message names the cause."""


class StalledError(ClusterError):
    """All workers are paused for lack of memory, and no task progresses."""

    status = 1


class NoGuardError(ClusterError, SystemExit):
    """A script without a main guard starts workers, and each of them would run the script again from its beginning.

    It is a `SystemExit` too: a script that does not catch it ends with the message and status 1, without a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = message


def first_of(texts: Sequence[str], count: int = 3, separator: str = ", ") -> str:
    """Return the first `count` texts in one, and the number of the others, such as ``a, b, c and 2 more``."""
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return separator.join(texts[:count]) + more


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, singular or plural, such as ``1 case`` or ``1,251 slices``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def reason_of(error: BaseException) -> str:
    """Return one sentence about the error that ended a case, with marks; see `reveal` and `redact`."""
    if isinstance(error, LungmixError):
        return error.raw_message
    if isinstance(error, OSError):
        return f"reading or writing failed ({error.strerror or type(error).__name__}): check disk space and permissions"
    return f"unexpected {type(error).__name__}: {mark_untrusted(error)}; {REPORT_IT}"


def trace_of(error: BaseException) -> str:
    """Return a traceback without names of files that were read, and without messages of other libraries.

    Messages of other libraries may quote the name of a file or text of a header.
    """
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = "".join(traceback.format_tb(current.__traceback__))
        reason = current.redacted_message if isinstance(current, LungmixError) else redact(reason_of(current))
        parts.append(f"Traceback (most recent call last):\n{frames}{type(current).__qualname__}: {reason}\n")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(reversed(parts))
