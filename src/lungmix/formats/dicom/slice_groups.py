"""Slices that may make one volume, and what they are called; `lungmix.formats.dicom.grouping` finds them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import mark_path
from lungmix.formats.dicom.header import Header

_MOST_NAMED = 4
NUMBER = r"\d{1,5}(?:\.\d{1,2})?"
"""Numbers of series, acquisitions or phases; longer ones may be those of people."""


@dataclass(frozen=True)
class Group:
    """Slices of one series that may make a volume, or files that are none.

    Attributes
    ----------
    slices : tuple of Header
        In no order.
    part : str
        What tells them from other groups of the series, for people; empty if there is no other.
    ignored : tuple of str
        Attributes, by keyword, that have a new value in nearly every slice and identify nothing.
    notes : tuple of str
        What people should know of how they were put together.
    fault : str
        Why they are no volume although they look like one, in words that go on after the title; empty if they may be.
    """

    slices: tuple[Header, ...]
    part: str = ""
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fault: str = ""

    @property
    def first(self) -> Header:
        """Any of them."""
        return self.slices[0]

    @property
    def series(self) -> tuple[str, str, str]:
        """Patient, study and series; empty where that is ignored."""
        known = zip(SERIES, series_of(self.first), strict=True)
        patient, study, series = ("" if keyword in self.ignored else value for keyword, value in known)
        return patient, study, series or str(self.folder)

    @property
    def folder(self) -> Path:
        """Folder that holds all of its files."""
        return common_folder(self.slices)

    @property
    def title(self) -> str:
        """What it is called in messages."""
        number = self.first.identity.series_number or ""
        known = f"series {number}" if re.fullmatch(NUMBER, number) else "the series"
        count = len(self.slices)
        slices = f"{count} slice{'s' if count != 1 else ''}"
        return f"{known} in {mark_path(self.folder)} ({slices}{self.part and ', '}{self.part})"


SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
"""Keywords of what `series_of` gives."""


def series_of(header: Header) -> tuple[str, str, str]:
    """Patient, study and series of an image; images without a series belong to their folder."""
    identity = header.identity
    series = header.series_uid or header.folder
    return identity.patient_id or "", identity.study_uid or "", series


def together(groups: Sequence[Group]) -> Group:
    """Return several groups as one, for a line about all of them."""
    if len(groups) == 1:
        return groups[0]
    return Group(tuple(one for group in groups for one in group.slices), ignored=groups[0].ignored)


def common_folder(headers: Iterable[Header]) -> Path:
    """The innermost folder that holds all files."""
    folders = [Path(folder) for folder in dict.fromkeys(one.folder for one in headers)]
    first = folders[0]
    for folder in (first, *first.parents):
        if all(one.is_relative_to(folder) for one in folders):
            return folder
    return first


def told(slices: Sequence[Header], indices: Sequence[int]) -> str:
    """Some slices by number, from 1, and file."""
    shown = [f"{i + 1} ({mark_path(slices[i].file)})" for i in list(indices)[:_MOST_NAMED]]
    more = len(indices) - len(shown)
    if more > 0:
        shown.append(f"{more} more")
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    return f"slice{'s' if len(indices) > 1 else ''} {listed}"


def axes_of(header: Header) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Directions of the row and of the column."""
    assert header.orientation is not None
    both = np.array(header.orientation, float)
    return both[:3], both[3:]


def normal_of(header: Header) -> npt.NDArray[np.float64]:
    """Direction in which slices are stacked, of length 1 for orientations that are rotations."""
    row, column = axes_of(header)
    return np.asarray(np.cross(row, column))


def places_along(slices: Sequence[Header]) -> npt.NDArray[np.float64]:
    """Positions along the normal of the first slice, mm."""
    return np.array([one.position for one in slices]) @ normal_of(slices[0])


def has_place(header: Header) -> bool:
    """Whether position and orientation are known."""
    return header.position is not None and header.orientation is not None


def enumerated(names: Sequence[str]) -> str:
    """Return names with commas between them and "and" before the last."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
