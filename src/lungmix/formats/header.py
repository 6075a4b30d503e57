"""Checked headers of NRRD, NIfTI and MetaImage files, and the checks that the readers of these formats share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.annex import is_annexed
from lungmix.formats.voxel_streams import VoxelData
from lungmix.geometry import Geometry
from lungmix.s3 import is_remote

MAX_HEADER_BYTES = 1 << 20
"""Greatest size of a header; headers of volumes have a few hundred bytes."""

MAX_VALUE_LENGTH = 1000
"""Greatest length of the text of a field of the geometry."""

MAX_PATH_LENGTH = 4096
"""Greatest length of the path of a data file."""

PREFIX = "lungmix_"
"""Prefix of the header keys in which this package records how it made an image."""

POSTERIOR = "posterior"
"""Header key, without `PREFIX`, of the tissue whose posteriors an image holds."""

WRITTEN_KEYS = ("image", "mask", "sides", "model", POSTERIOR)
"""Header keys that this package writes, without `PREFIX`: name of the label map, parameters of the mask, parameters of
the right and left lung, the mixture, and the tissue of posteriors."""

# Other programs parse numbers with a C library, so hexadecimal and excessive digits are rejected.
_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,3})?")
_COUNT = re.compile(r"\d{1,9}")

FileAt = Callable[[str], Path | None]
"""Function that returns the local copy of the object at an ``s3://`` address; None unless the source contains it."""


@dataclass(frozen=True)
class Header:
    """Header of an image file whose values were checked.

    Attributes
    ----------
    clean : bytes
        Header of the same format, written again from the checked values. Only these bytes are passed to SimpleITK,
        whose readers crash the process at some malformed headers.
    extension : str
        File name extension for the content of `clean`.
    data : VoxelData
        Location and coding of the voxels.
    geometry : Geometry or None
        Geometry by the rules of the format, where SimpleITK may reject the header or read another geometry; None where
        the geometry is what SimpleITK reads from `clean`.
    orientation_known : bool
        False where the header does not say how the axes lie in the patient.
    notes : tuple of str
        Notes that two fields are inconsistent, and which of the two is used.
    is_segmentation : bool
        True where the header declares the voxels to be labels.
    keys : mapping of str to str
        Values by key, untrusted text: keys that describe the segments of a segmentation, and keys with `PREFIX`.
    layers : int
        Number of values per voxel. A segmentation with overlapping segments has several; other images have 1.
    """

    clean: bytes
    extension: str
    data: VoxelData
    geometry: Geometry | None = None
    orientation_known: bool = True
    notes: tuple[str, ...] = ()
    is_segmentation: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    layers: int = 1


def largest_shift(first: Geometry, second: Geometry) -> float:
    """Return the greatest distance between the same corner in two geometries, in units of the first's least spacing."""
    shifts = corners_of(first) - corners_of(second)
    return float(np.linalg.norm(shifts, axis=1).max() / max(min(first.spacing), 1e-9))


def is_same_place(first: Geometry, second: Geometry, tolerance_mm: float) -> bool:
    """Return True if two grids have equal sizes, and no coordinate of a corner differs by the tolerance or more."""
    return first.size == second.size and bool(np.abs(corners_of(first) - corners_of(second)).max() < tolerance_mm)


def corners_of(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return the centres of the 8 corner voxels of a volume, in mm in LPS: array of shape (8, 3)."""
    steps = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return geometry.origin + (np.array(list(np.ndindex(2, 2, 2))) * np.subtract(geometry.size, 1)) @ steps.T


def parse_numbers(text: str) -> list[float] | None:
    """Return finite numbers that are separated by blanks; None if the text contains anything else."""
    words = text.split()
    if not all(_NUMBER.fullmatch(word) for word in words):
        return None
    values = [float(word) for word in words]
    return values if all(abs(value) < 1e300 for value in values) else None


def parse_counts(text: str) -> list[int] | None:
    """Return non-negative integers that are separated by blanks; None if the text contains anything else."""
    words = text.split()
    return [int(word) for word in words] if all(_COUNT.fullmatch(word) for word in words) else None


def data_file_path(header: Path, name: str, file_at: FileAt | None = None) -> Path:
    """Return the path of the file with the voxels that a header names.

    The file must be in the folder of the header, or be an object of the source.

    Parameters
    ----------
    header : Path
        The header.
    name : str
        Name in the header: a plain name, a relative or absolute path, or an address.
    file_at : callable, optional
        Function that returns the local file of an object, for a source in an object store. No other addresses are
        read: a header must not direct the user's credentials to other objects.

    Raises
    ------
    SourceError
        If the file, or the target of a link, is in another folder or does not exist, or if no object of the source
        has the address.
    """
    outside = SourceError(
        f"{mark_path(header)} names a data file outside its own folder: put both into one folder, and the "
        "plain name of the file into the header"
    )
    if not name or "\0" in name or len(name) > MAX_PATH_LENGTH:
        raise outside
    if is_remote(name):
        file_of_object = None if file_at is None else file_at(name)
        if file_of_object is not None:
            return file_of_object
        remedy = "put both into one folder, and the plain name of the file into the header"
        raise SourceError(
            f"{mark_path(header)} names its data file by an address: {remedy}"
            if file_at is None
            else f"{mark_path(header)} names its data file by an address at which its source has no object: give a "
            f"prefix that contains both, or {remedy}"
        )
    missing = SourceError(f"{mark_path(header)} names a data file that is not there: put {mark_path(name)} next to it")
    try:
        file = header.parent / name
        if "\\" in name and not file.exists():
            file = header.parent / name.replace("\\", "/")  # a path of Windows
        is_annexed_here = file.parent.resolve() == header.parent.resolve() and is_annexed(file)
        if file.resolve().parent != header.parent.resolve() and not is_annexed_here:
            raise outside
        if not file.is_file():
            raise missing
        # Relative to the path of the header, so that both have the same folder.
        plain = header.parent / file.name
        return plain if plain.resolve() == file.resolve() else file.resolve()
    except (OSError, RuntimeError):  # a loop of links, or a name that is too long
        raise missing from None


def one_data_file(header: Path, value: str, extension: str, file_at: FileAt | None, *, is_split: bool) -> Path:
    """Return the path of the file with the voxels, whose name may stand for several files; see `data_file_path`.

    Parameters
    ----------
    header : Path
        The header.
    value : str
        Name in the header, decoded as Latin-1.
    extension : str
        Extension that the message of an error recommends.
    file_at : callable or None
        See `data_file_path`.
    is_split : bool
        True if the name may be a list or a pattern of several files, which are not supported.

    Raises
    ------
    SourceError
        If there is no such file; with `is_split`, the message says that several files are not supported.
    """
    try:
        return data_file_path(header, os.fsdecode(value.encode("latin-1")), file_at)
    except SourceError:
        if not is_split:
            raise
    raise SourceError(
        f"{mark_path(header)} has its voxels in several files, which is not supported: save it again as {extension}"
    )


def type_error(path: Path) -> SourceError:
    """Return the error for a header with an unsupported type of voxels."""
    return SourceError(
        f"{mark_path(path)} stores a type of numbers that is not supported: export it as 16-bit integers"
    )


def corrupt_header_error(path: Path, field: str) -> SourceError:
    """Return the error for a header with a corrupt field; `field` is its name in the format."""
    return SourceError(f"{mark_path(path)} has a corrupt header (its {field} is invalid): get the file again")


def geometry_error(path: Path, reason: str) -> SourceError:
    """Return the error for a header without a usable geometry."""
    return SourceError(f"{mark_path(path)} has no usable geometry ({reason}): export it again")


def check_not_repeated(path: Path, fields: Sequence[str], field: str) -> None:
    """Raise `SourceError` for a repeated field: readers differ in which of the two they use."""
    if field in fields:
        raise SourceError(f"{mark_path(path)} has a corrupt header (it has {field!r} twice): get the file again")
