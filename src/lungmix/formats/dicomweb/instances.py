"""Instances on a DICOMweb server, as they were when they were listed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lungmix.formats.dicom.header import Header

_MISSING = math.nan
_TOLERANCE = 1e-4


@dataclass(frozen=True, repr=False)
class Instance:
    """Instance as its metadata describe it; `repr` shows no identifiers.

    Attributes
    ----------
    resource : str
        ``studies/UID/series/UID/instances/UID`` at the server.
    images : tuple of tuple of float
        Numbers of each image that decide how it is read, see `numbers_of`.
    """

    resource: str
    images: tuple[tuple[float, ...], ...]

    def __repr__(self) -> str:
        return f"<Instance: {len(self.images)} images>"

    @property
    def uid(self) -> str:
        """SOPInstanceUID."""
        return self.resource.rpartition("/")[2]

    def agrees_with(self, headers: Sequence[Header]) -> bool:
        """Return True if the headers of the fetched instance are those that its metadata announced."""
        fetched = tuple(map(numbers_of, headers))
        return (
            all(header.sop_uid == self.uid for header in headers)
            and len(fetched) == len(self.images)
            and all(_are_equal(first, second) for first, second in zip(fetched, self.images, strict=True))
        )


@dataclass(frozen=True, repr=False)
class ListedSeries:
    """Series at the time when it was listed; `repr` shows no identifiers.

    Attributes
    ----------
    study, uid : str
        StudyInstanceUID and SeriesInstanceUID.
    count : int
        Number of instances.
    digest : str
        Digest of the UIDs of the instances, see `digest_of`.
    """

    study: str
    uid: str
    count: int
    digest: str

    def __repr__(self) -> str:
        return f"<ListedSeries: {self.count} instances>"


def digest_of(uids: Iterable[str]) -> str:
    """Return a digest of UIDs that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(set(uids))).encode()).hexdigest()


def numbers_of(header: Header) -> tuple[float, ...]:
    """Return the numbers of a header that decide how its image is read, of a fixed length; NaN where one is missing."""
    values: list[float] = [header.rows, header.columns, header.samples, header.frames]
    for numbers, count in (
        (header.position, 3), (header.orientation, 6), (header.spacing, 2), (header.rescale, 2), (header.padding, 2),
    ):  # fmt: skip
        values += [_MISSING] * count if numbers is None else list(numbers)
    return tuple(values)


def _are_equal(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return len(first) == len(second) and all(
        math.isclose(a, b, rel_tol=1e-6, abs_tol=_TOLERANCE) or (math.isnan(a) and math.isnan(b))
        for a, b in zip(first, second, strict=True)
    )
