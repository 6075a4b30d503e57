"""What the header of an image file says, read within bounds before any library sees it."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.annex import is_annexed
from lungmix.formats.voxel_streams import VoxelData
from lungmix.geometry import Geometry
from lungmix.s3 import is_remote

LONGEST_HEADER = 1 << 20
"""Bytes; the headers of volumes have a few hundred."""

LONGEST_VALUE = 1000
"""Characters of a value that tells the geometry."""

LONGEST_PATH = 4096
"""Characters of the path of a data file."""

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
    geometry : Geometry or None
        What the header says by the rules of its format, where SimpleITK may refuse it or read something else; None
        where SimpleITK's reading of `clean` stands.
    orientation_known : bool
        False where the header does not say how the axes lie in the patient.
    notes : tuple of str
        Fields that contradict each other, and which of them counts.
    is_segmentation : bool
        True where the header says that the voxels name structures.
    """

    clean: bytes
    extension: str
    data: VoxelData
    geometry: Geometry | None = None
    orientation_known: bool = True
    notes: tuple[str, ...] = ()
    is_segmentation: bool = False


def largest_shift(one: Geometry, other: Geometry) -> float:
    """Return how far two readings of the place of a volume lie apart at its corners, in steps between voxels."""
    corners = np.array(list(itertools.product(*((0, n - 1) for n in one.size), (1,))))
    moved = corners @ (_affine(one) - _affine(other)).T
    return float(np.linalg.norm(moved, axis=1).max() / max(min(one.spacing), 1e-9))


def _affine(geometry: Geometry) -> npt.NDArray[np.float64]:
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.column_stack([columns, geometry.origin])


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
    """Return the data file of a header: a file in the header's own folder, however its path is spelled.

    Parameters
    ----------
    header : Path
        The header.
    name : str
        As it stands in the header: a plain name, or a relative or full path.

    Raises
    ------
    SourceError
        If it lies elsewhere, a link leads elsewhere, or there is no such file.
    """
    outside = SourceError(
        f"{mark_path(header)} names a data file outside its own folder: put both into one folder, and the plain name "
        "of "
        "the file into the header"
    )
    if not name or "\0" in name or len(name) > LONGEST_PATH:
        raise outside
    if is_remote(name):
        raise SourceError(
            f"{mark_path(header)} names its data file by an address, which is not read: put both into one folder, "
            "and the "
            "plain name of the file into the header"
        )
    missing = SourceError(f"{mark_path(header)} names a data file that is not there: put {mark_path(name)} beside it")
    try:
        file = header.parent / name
        if "\\" in name and not file.exists():
            file = header.parent / name.replace("\\", "/")  # a path of Windows
        if file.resolve().parent != header.parent.resolve() and not _is_annexed_beside(header, file):
            raise outside
        if not file.is_file():
            raise missing
        # Spelled as the header's own path, so that both are known by the same folder.
        plain = header.parent / file.name
        return plain if plain.resolve() == file.resolve() else file.resolve()
    except (OSError, RuntimeError):  # a circle of links, a part that is too long
        raise missing from None


def _is_annexed_beside(header: Path, file: Path) -> bool:
    """Return True for a link in the header's own folder into the store of its git-annex tree."""
    return file.parent.resolve() == header.parent.resolve() and is_annexed(file)


def data_name(value: str) -> str:
    """Return a file's name in a header that was read as Latin-1 with the bytes that it has on this machine."""
    return os.fsdecode(value.encode("latin-1"))


def is_beside(header: Path, name: str) -> bool:
    """Return True where a file of exactly this name lies in the folder of a header."""
    try:
        beside(header, name)
    except SourceError:
        return False
    return True


def damaged(path: Path, what: str) -> SourceError:
    """The refusal of a header for one of its fields, named by the format's word for it."""
    return SourceError(f"{mark_path(path)} has a damaged header (its {what} makes no sense): get the file again")


def unusable(path: Path, what: str) -> SourceError:
    """The refusal of a header whose geometry is none."""
    return SourceError(f"{mark_path(path)} has no usable geometry ({what}): export it again")


def once(path: Path, fields: Sequence[str], field: str) -> None:
    """Refuse a field that was there before: readers differ in which of the two they believe."""
    if field in fields:
        raise SourceError(f"{mark_path(path)} has a damaged header (it says {field!r} twice): get the file again")
