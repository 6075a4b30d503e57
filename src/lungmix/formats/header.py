"""What the header of an image file says, read within bounds before any library sees it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.errors import SourceError, named
from lungmix.formats.streams import VoxelData

LONGEST_HEADER = 1 << 20
"""Bytes; the headers of volumes have a few hundred."""

LONGEST_VALUE = 1000
"""Characters of a value that tells the geometry."""

# Readers of other programs take what a C library takes: no more digits than a double has use for, no hexadecimal.
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?")
_COUNT = re.compile(r"\d{1,9}")


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes
    ----------
    clean : bytes
        A header of the same format, written here from checked values and without voxels: all that SimpleITK gets to
        see, whose readers end the whole process at some malformed headers.
    extension : str
        What the name of a file of `clean` has to end in.
    data : VoxelData
        Where the voxels are.
    """

    clean: bytes
    extension: str
    data: VoxelData


def numbers(text: str) -> list[float] | None:
    """Finite numbers between blanks; None if anything else is among them."""
    words = text.split()
    if not all(_NUMBER.fullmatch(word) for word in words):
        return None
    values = [float(word) for word in words]
    return values if all(abs(value) < 1e300 for value in values) else None


def counts(text: str) -> list[int] | None:
    """Whole numbers from 0 on between blanks; None if anything else is among them."""
    words = text.split()
    return [int(word) for word in words] if all(_COUNT.fullmatch(word) for word in words) else None


def beside(header: Path, name: str) -> Path:
    """The data file of a header: a plain name in the same folder, nothing else.

    Raises
    ------
    SourceError
        If it lies elsewhere or is no file.
    """
    if not name or "/" in name or "\\" in name or "\0" in name or len(name) > 255 or name in (".", ".."):
        raise SourceError(f"{named(header)} names a data file outside its own folder: put both into one folder")
    file = header.parent / name
    if file.resolve().parent != header.parent.resolve():
        raise SourceError(f"{named(header)} names a data file outside its own folder: put both into one folder")
    if not file.is_file():
        raise SourceError(f"{named(header)} names a data file that is not there: put {named(name)} beside it")
    return file


def damaged(path: Path, what: str) -> SourceError:
    """The refusal of a header for one of its fields, named by the format's word for it."""
    return SourceError(f"{named(path)} has a damaged header (its {what} makes no sense): get the file again")


def unusable(path: Path, what: str) -> SourceError:
    """The refusal of a header whose geometry is none."""
    return SourceError(f"{named(path)} has no usable geometry ({what}): export it again")


def once(path: Path, fields: Sequence[str], field: str) -> None:
    """Refuse a field that was there before: readers differ in which of the two they believe."""
    if field in fields:
        raise SourceError(f"{named(path)} has a damaged header (it says {field!r} twice): get the file again")
