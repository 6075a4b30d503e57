"""Scans that can be read, and sources that are rejected or skipped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import count_of, error_about, redact
from lungmix.formats.dicom.stack import SliceStack
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.privacy.identity import Identity

_BLOCK_BYTES = 64 << 10


@dataclass(frozen=True)
class Series:
    """Attributes of a DICOM series for listings; unknown values are None.

    Attributes
    ----------
    number : int or None
        Series number.
    files : int
        Number of files.
    size : tuple of int
        Numbers of columns, rows and slices.
    spacing : tuple of float or None
        Spacing along x, y, z, mm.
    kernel : str or None
        Reconstruction kernel.
    thickness : float or None
        Nominal slice thickness, mm.
    """

    number: int | None
    files: int
    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    kernel: str | None = None
    thickness: float | None = None


@dataclass(frozen=True, repr=False)
class Scan:
    """Scan that can be read slab by slab, in any process with access to its files or its object store.

    `repr` shows neither name nor path, because workers log the arguments of failed tasks.

    Attributes
    ----------
    name : str
        Suggested case name.
    path : str
        Path or address, for messages.
    kind : {"dicom", "nrrd", "nifti", "meta"}
        Format.
    geometry : Geometry
        Size, spacing, origin and direction, as SimpleITK reads them.
    acquisition : Acquisition
        Technical attributes.
    fingerprint : str
        Digest that changes when the files change; contains no names.
    key : str
        Digest of the location of the scan; contains no names.
    files : tuple of str
        Paths of the files, DICOM slices in the order of z. In an object store, relative paths of downloaded objects.
    identity : Identity or None
        Identity of the patient from a DICOM header; never sent to a worker or written to a store.
    stack : SliceStack or None
        How DICOM slices are assembled to the volume; None for image files.
    notes : tuple of str
        Notes for users; names of files are marked (`lungmix.errors.mark_path`).
    series : Series or None
        The DICOM series, for a listing.
    reader : callable
        Function of the scan and the slices per slab that yields the HU, see `slabs`. It can be pickled.
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
    reader: Callable[[Scan, int], Iterator[npt.NDArray[np.int16]]] = field(kw_only=True, repr=False)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.geometry.size))
        return f"<Scan: {self.kind}, {size} voxels, {count_of(len(self.files), 'file')}>"

    def without_identity(self) -> Scan:
        """Return the scan without the identity of the patient, so that it may be sent to other processes."""
        return replace(self, identity=None)

    def slabs(self, thickness: int) -> Iterator[npt.NDArray[np.int16]]:
        """Yield HU slab by slab, from the first slice to the last.

        Parameters
        ----------
        thickness : int
            Number of slices of a slab; the last slab may be thinner.

        Yields
        ------
        ndarray of int16, shape (slices, y, x)
            HU.

        Raises
        ------
        SourceError
            If the files are truncated or hold values that are not HU, or if objects cannot be downloaded.
        """
        with error_about(path=self.path):
            yield from self.reader(self, thickness)


@dataclass(frozen=True, repr=False)
class UnusedSource:
    """Source, or part of a source, that gives no scan; `repr` shows no names.

    Attributes
    ----------
    name : str
        Suggested case name.
    path : str
        Path or address.
    reason : str
        Sentence with file, problem and remedy, or for a skipped source the words that follow "skipped:". File names
        are marked (`lungmix.errors.mark_path`).
    series : Series or None
        The DICOM series, for a listing.
    """

    name: str
    path: str
    reason: str
    series: Series | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {redact(self.reason)}>"


class RejectedSource(UnusedSource):
    """Source that cannot be read as a scan."""


class SkippedSource(UnusedSource):
    """Part of a source that is not a scan, such as a localizer, or is not selected; this is no failure."""


def case_name(text: str) -> str:
    """Return a case name made from the name of a file or folder, with the characters a-z, 0-9, dot, ``_`` and ``-``."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:100].strip("._-")
    return slug or "scan"


def fingerprint_of(files: Sequence[str | Path]) -> str:
    """Return a digest of files in the given order.

    The digest covers the size, the modification time, and 64 KiB each at beginning, middle and end of each file.
    """
    digest = hashlib.sha256()
    for file in files:
        path = Path(file)
        state = path.stat()
        digest.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
        with path.open("rb") as stream:
            # The beginning of an uncompressed image may contain only air.
            for offset in sorted({0, max(state.st_size // 2, 0), max(state.st_size - _BLOCK_BYTES, 0)}):
                stream.seek(offset)
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def location_digest(location: str) -> str:
    """Return the SHA-256 of the text of a location, such as a path or an address."""
    return hashlib.sha256(location.encode("utf-8", "surrogateescape")).hexdigest()
