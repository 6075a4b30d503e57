"""Groups of slices that may be one volume, and their names; `lungmix.formats.dicom.grouping` finds them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import count_of, mark_path
from lungmix.formats.dicom.header import Header

_MAX_LISTED = 4
NUMBER = r"\d{1,5}(?:\.\d{1,2})?"
"""Pattern of numbers of series, acquisitions and phases that messages show; longer numbers may identify a patient."""


@dataclass(frozen=True)
class Group:
    """Slices of one series that may be a volume, or files without CT slices.

    Attributes
    ----------
    slices : tuple of Header
        Headers in no particular order.
    part : str
        Text that distinguishes the group from other groups of its series; empty if there is no other.
    ignored : tuple of str
        Keywords of attributes that have a new value in nearly every slice and so identify nothing.
    notes : tuple of str
        Notes for the user on how the slices were grouped.
    problem : str
        Reason why the slices are not a volume, as a phrase that follows the title; empty if they may be one.
    """

    slices: tuple[Header, ...]
    part: str = ""
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""

    @property
    def first(self) -> Header:
        """First header, which stands for all slices where they have equal values."""
        return self.slices[0]

    @property
    def series(self) -> tuple[str, str, str]:
        """Identifiers of patient, study and series; empty where ignored, the folder where the series is ignored."""
        name = zip(SERIES, series_ids(self.first), strict=True)
        patient, study, series = ("" if keyword in self.ignored else value for keyword, value in name)
        return patient, study, series or str(self.folder)

    @property
    def folder(self) -> Path:
        """Innermost folder that holds all files."""
        return common_folder(self.slices)

    @property
    def title(self) -> str:
        """Name of the group in messages."""
        number = self.first.identity.series_number or ""
        name = f"series {number}" if re.fullmatch(NUMBER, number) else "the series"
        count = len(self.slices)
        slices = count_of(count, "slice")
        return f"{name} in {mark_path(self.folder)} ({slices}{self.part and ', '}{self.part})"


SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
"""Keywords of the identifiers that `series_ids` returns."""


def series_ids(header: Header) -> tuple[str, str, str]:
    """Return the identifiers of patient, study and series of an image; the folder in place of a missing series."""
    identity = header.identity
    series = header.series_uid or header.folder
    return identity.patient_id or "", identity.study_uid or "", series


def merge_groups(groups: Sequence[Group]) -> Group:
    """Return several groups as one, for a message about all of them."""
    if len(groups) == 1:
        return groups[0]
    return Group(tuple(header for group in groups for header in group.slices), ignored=groups[0].ignored)


def common_folder(headers: Iterable[Header]) -> Path:
    """Return the innermost folder that holds all files."""
    folders = [Path(folder) for folder in dict.fromkeys(header.folder for header in headers)]
    first = folders[0]
    for folder in (first, *first.parents):
        if all(header.is_relative_to(folder) for header in folders):
            return folder
    return first


def format_slices(slices: Sequence[Header], indices: Sequence[int]) -> str:
    """Return slices as text, each with its number from 1 and its file; at most four are listed."""
    shown = [f"{i + 1} ({mark_path(slices[i].file)})" for i in list(indices)[:_MAX_LISTED]]
    more = len(indices) - len(shown)
    if more > 0:
        shown.append(f"{more} more")
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"slice{'s' if len(indices) > 1 else ''} {listed}"


def pixel_axes(header: Header) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the directions of row and column."""
    assert header.orientation is not None
    both = np.array(header.orientation, float)
    return both[:3], both[3:]


def slice_normal(header: Header) -> npt.NDArray[np.float64]:
    """Return the slice normal, of length 1 for orthonormal orientations."""
    row, column = pixel_axes(header)
    return np.asarray(np.cross(row, column))


def positions_along(slices: Sequence[Header]) -> npt.NDArray[np.float64]:
    """Return positions along the normal of the first slice, mm."""
    return np.array([header.position for header in slices]) @ slice_normal(slices[0])


def has_position(header: Header) -> bool:
    """Return True if an image has a position and an orientation."""
    return header.position is not None and header.orientation is not None


def join_words(names: Sequence[str]) -> str:
    """Return names with commas between them and "and" before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
