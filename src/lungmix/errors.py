"""Every error that a user can meet, in one hierarchy.

A message names the file or the case, says what is wrong and what to do about it; nothing else is needed to go
on. Nothing in a message comes from a patient's attributes.
"""

from __future__ import annotations


class LungmixError(Exception):
    """Base of all errors of this package."""


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
