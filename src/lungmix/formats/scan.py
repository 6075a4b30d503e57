"""One readable scan, or the reason why a source is none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lungmix.errors import redact
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import Identity

if TYPE_CHECKING:
    from lungmix.formats.dicom.stack import SliceStack
    from lungmix.formats.remote import Objects

_PIECE = 64 << 10


@dataclass(frozen=True)
class Series:
    """What a listing shows of a DICOM series; unknown values are None.

    Attributes
    ----------
    number : int or None
        Series number.
    files : int
        Its files.
    size : tuple of int
        Columns, rows, slices.
    spacing : tuple of float or None
        Along x, y, z, mm.
    kernel : str or None
        Reconstruction kernel.
    thickness : float or None
        Of slices, nominal, mm.
    """

    number: int | None
    files: int
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    kernel: str | None = None
    thickness: float | None = None


@dataclass(frozen=True, repr=False)
class Scan:
    """A scan that can be read slab by slab, in any process that sees its files or reaches its object store.

    `repr` shows neither name nor place: workers write the arguments of what fails into their logs.

    Attributes
    ----------
    name : str
        Suggested case name.
    path : str
        Where it lies, for messages.
    kind : {"dicom", "nrrd", "nifti", "meta"}
        Format.
    geometry : Geometry
        Size, spacing, origin and direction, equal to SimpleITK's reading.
    acquisition : Acquisition
        Technical attributes.
    fingerprint : str
        Digest of the state of the files: changes when they do. Holds no names.
    key : str
        Digest of where the scan lies: tells one source from another. Holds no names.
    files : tuple of str
        Its files, DICOM slices in the order of z; where it lies in an object store, as `objects` calls them.
    identity : Identity or None
        Who it is of, where a DICOM header says so; never sent to a worker or put into a store.
    stack : Stack or None
        How slices of DICOM files make the volume.
    notes : tuple of str
        What people should know of it; names of files are marked (`lungmix.errors.mark_path`).
    series : Series or None
        The DICOM series, for a listing.
    objects : Objects or None
        What is to be fetched before it is read; None where its files are at hand.
    """

    name: str
    path: str
    kind: str
    geometry: Geometry
    acquisition: Acquisition
    fingerprint: str
    key: str
    files: tuple[str, ...]
    identity: Identity | None = field(default=None, repr=False, compare=False)
    stack: SliceStack | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    series: Series | None = None
    objects: Objects | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.geometry.size))
        return f"<Scan: {self.kind}, {size} voxels, {len(self.files)} files>"

    def without_identity(self) -> Scan:
        """The same scan, of nobody: what may be sent to other processes."""
        return replace(self, identity=None)

    def slabs(self, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
        """HU from the first slice to the last, never the whole volume at once.

        Parameters
        ----------
        thickness : int
            Slices in a slab; the last one may be thinner.

        Yields
        ------
        ndarray of int16, shape (slices, y, x)
            HU.

        Raises
        ------
        SourceError
            If the files are cut short or hold what is not HU, or are objects that cannot be fetched.
        """
        if self.objects is not None:
            from lungmix.formats.remote import slabs_of
        elif self.kind == "dicom":
            from lungmix.formats.dicom.read import slabs_of
        else:
            from lungmix.formats.images import slabs_of
        return slabs_of(self, thickness)


@dataclass(frozen=True, repr=False)
class RejectedSource:
    """A source that is no scan; `repr` shows no names.

    Attributes
    ----------
    name : str
        What it would have been called.
    path : str
        Where it lies.
    reason : str
        One sentence: file, fault, remedy; names of files are marked (`lungmix.errors.mark_path`).
    series : Series or None
        The DICOM series, for a listing.
    """

    name: str
    path: str
    reason: str
    series: Series | None = None

    def __repr__(self) -> str:
        return f"<RejectedSource: {redact(self.reason)}>"


@dataclass(frozen=True, repr=False)
class SkippedSource:
    """Part of a source that is not meant to be a scan, such as a localizer, or is not chosen: no failure.

    Attributes
    ----------
    name : str
        What it would have been called.
    path : str
        Where it lies.
    reason : str
        Why, in words that go on after "skipped:"; names of files are marked (`lungmix.errors.mark_path`).
    series : Series or None
        The DICOM series, for a listing.
    """

    name: str
    path: str
    reason: str
    series: Series | None = None

    def __repr__(self) -> str:
        return f"<SkippedSource: {redact(self.reason)}>"


def case_name(text: str) -> str:
    """A case name from a file or folder name: a-z, 0-9, dot, underscore, hyphen."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:100].strip("._-")
    return slug or "scan"


def fingerprint_of(files: Sequence[str | Path]) -> str:
    """Digest of sizes, times of change, and 64 KiB of beginning, middle and end of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        path = Path(file)
        state = path.stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
        with path.open("rb") as stream:
            # Of images that are not compressed the beginning may be nothing but air.
            for place in sorted({0, max(state.st_size // 2, 0), max(state.st_size - _PIECE, 0)}):
                stream.seek(place)
                digest.update(stream.read(_PIECE))
    return digest.hexdigest()


def key_of_place(place: str) -> str:
    """Digest of a location."""
    return hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
