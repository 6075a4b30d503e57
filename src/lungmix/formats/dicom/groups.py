"""Which slices make one volume: a series, without what does not belong together in it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lungmix.errors import named
from lungmix.formats.dicom.header import HINTS, Header

_SAME_ORIENTATION = 1e-3
_CELL = 8e-3
_MOST_NAMED = 4
SAME_PLACE_MM = 0.01
"""Slices nearer than this lie at one position, or nearer than a hundredth of the usual distance."""

# Longer ones are no numbers of series, acquisitions or phases, but may be those of people.
_NUMBER = r"\d{1,5}(?:\.\d{1,2})?"
_WORDS = {
    "AcquisitionNumber": "acquisition",
    "TriggerTime": "trigger time",
    "KVP": "kVp",
    "SliceThickness": "thickness",
}


@dataclass(frozen=True)
class Group:
    """Slices of one series that may make a volume, or files that are none.

    Attributes
    ----------
    slices : tuple of Header
        In no order.
    part : str
        What tells them from other groups of the series, for people; empty if there is no other.
    """

    slices: tuple[Header, ...]
    part: str = ""

    @property
    def first(self) -> Header:
        """Any of them."""
        return self.slices[0]

    @property
    def series(self) -> tuple[str, str, str]:
        """Patient, study and series."""
        return series_of(self.first)

    @property
    def folder(self) -> Path:
        """Folder that holds all of its files."""
        return common_folder(self.slices)

    @property
    def title(self) -> str:
        """What it is called in messages."""
        number = self.first.identity.series_number or ""
        known = f"series {number}" if re.fullmatch(_NUMBER, number) else "the series"
        count = len(self.slices)
        return (
            f"{known} in {named(self.folder)} ({count} slice{'s' if count != 1 else ''}{self.part and ', '}{self.part})"
        )


def series_of(header: Header) -> tuple[str, str, str]:
    """Patient, study and series of an image; images without a series belong to their folder."""
    identity = header.identity
    series = header.series_uid or header.folder
    return identity.patient_id or "", identity.study_uid or "", series


def common_folder(headers: Iterable[Header]) -> Path:
    """The innermost folder that holds all files."""
    folders = [Path(folder) for folder in dict.fromkeys(one.folder for one in headers)]
    first = folders[0]
    for folder in (first, *first.parents):
        if all(one.is_relative_to(folder) for one in folders):
            return folder
    return first


def groups_of(headers: Sequence[Header]) -> list[Group]:
    """Groups in the order of their first files: orientation, size, kernel, frame of reference and phase are one."""
    sorted_out: dict[tuple[object, ...], list[Header]] = defaultdict(list)
    for one in headers:
        unused = one.unused
        alike: tuple[object, ...] = (unused,)
        if unused is None:
            spacing = tuple(round(v, 3) for v in one.spacing or ())
            alike = (one.rows, one.columns, spacing, one.kernel, one.identity.frame_uid, one.phase, one.frames > 1)
        sorted_out[(*series_of(one), *alike)].append(one)
    groups: list[Group] = []
    for members in sorted_out.values():
        if members[0].unused is not None:
            groups.append(Group(tuple(members)))
            continue
        for parallel in _by_orientation(members):
            groups.extend(_by_hints(parallel))
    return _told_apart(groups)


def told(slices: Sequence[Header], indices: Sequence[int]) -> str:
    """Some slices by number, from 1, and file."""
    shown = [f"{i + 1} ({named(slices[i].file)})" for i in list(indices)[:_MOST_NAMED]]
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


def _by_orientation(members: list[Header]) -> list[list[Header]]:
    """Parallel slices together: those whose orientation is that of the first of them, or nearly."""
    parts: dict[tuple[float, ...] | None, list[Header]] = {}
    first_of: dict[tuple[float, ...] | None, tuple[float, ...] | None] = {}
    cells: dict[tuple[int, ...], list[tuple[float, ...]]] = defaultdict(list)
    for one in members:
        key = one.orientation
        if key not in first_of:
            near = None if key is None else _near(key, cells)
            first_of[key] = near or key
            if key is not None and near is None:
                cells[tuple(math.floor(value / _CELL) for value in key)].append(key)
        parts.setdefault(first_of[key], []).append(one)
    return list(parts.values())


def _near(key: tuple[float, ...], cells: Mapping[tuple[int, ...], list[tuple[float, ...]]]) -> tuple[float, ...] | None:
    """An orientation that is nearly the same, from the few cells of space that reach near enough."""
    sides = [
        range(math.floor((value - _SAME_ORIENTATION) / _CELL), math.floor((value + _SAME_ORIENTATION) / _CELL) + 1)
        for value in key
    ]
    for cell in product(*sides):
        for known in cells.get(cell, ()):
            if all(abs(a - b) < _SAME_ORIENTATION for a, b in zip(known, key, strict=True)):
                return known
    return None


def _by_hints(members: list[Header]) -> list[Group]:
    """Images at one position are told apart by the first attribute that leaves none of them in two places."""
    if len(members) < 4 or not all(map(has_place, members)) or not _repeats(members):
        return [Group(tuple(members))]
    for index, name in enumerate(HINTS):
        parts: dict[str, list[Header]] = defaultdict(list)
        for one in members:
            parts[one.hints[index] if index < len(one.hints) else ""].append(one)
        if 1 < len(parts) <= len(members) // 2 and not any(map(_repeats, parts.values())):
            return [Group(tuple(part), _told(name, value)) for value, part in parts.items()]
    return [Group(tuple(members))]


def _repeats(members: Sequence[Header]) -> bool:
    """Whether different images lie at one position."""
    objects = list({(one.sop_uid or one.file, one.frame): one for one in members}.values())
    if len(objects) < 2:
        return False
    steps = np.diff(np.sort(places_along(objects)))
    return bool((steps < max(SAME_PLACE_MM, 0.01 * float(np.median(steps)))).any())


def _told(name: str, value: str) -> str:
    plain = re.fullmatch(_NUMBER, value)
    return f"{_WORDS[name]} {value}" if name in _WORDS and plain else ""


def _told_apart(groups: list[Group]) -> list[Group]:
    """Says of every group of a series that has several what it is."""
    by_series: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        if group.first.unused is None:
            by_series[group.series].append(index)
    named_groups = list(groups)
    for indices in by_series.values():
        if len(indices) < 2:
            continue
        for place, index in enumerate(indices, start=1):
            group = groups[index]
            phase = next((value for value in group.first.phase if re.fullmatch(_NUMBER, value)), "")
            part = group.part or (f"phase {phase}" if phase else f"part {place} of {len(indices)}")
            named_groups[index] = Group(group.slices, part)
    return named_groups
