"""Grouping of slices into volumes: by their positions first, then by shared attributes.

Slices of equal size, orientation and pixel spacing may form one volume. An attribute that has a new value in nearly
every slice identifies nothing and is ignored. An attribute with few values splits the slices into volumes, if the
slices of each value are evenly spaced. A pass is one scan of a range of positions, as in one breath hold. See
`docs/dicom.md`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from operator import methodcaller
from typing import TypeVar

import numpy as np

from lungmix.formats.dicom.even_spacing import (
    count_interleaved_grids,
    distinct_positions,
    find_duplicate_positions,
    is_even,
    is_mostly_even,
    overlaps_by_half,
)
from lungmix.formats.dicom.header import FRAME_PHASES, HINTS, PHASES, Header
from lungmix.formats.dicom.image_types import seconds_of
from lungmix.formats.dicom.instance_numbers import count_passes, is_monotonic
from lungmix.formats.dicom.linked_components import connected_components
from lungmix.formats.dicom.slice_groups import (
    NUMBER,
    SERIES,
    Group,
    has_position,
    join_words,
    positions_along,
    series_ids,
)
from lungmix.formats.dicom.slice_similarity import looks_like_two_passes

MIN_SLICES = 3
"""Minimum number of distinct slice positions of a volume."""

_SAME_ORIENTATION = 1e-3
_CELL = 8e-3
# Scaled by this, logarithms of spacings that differ by 0.25 % differ by less than `_SAME_ORIENTATION`.
_SPACING_WEIGHT = 0.4
_MIN_REPEATED = 4
_TIMES = ("AcquisitionTime", "ContentTime")
_TIME_ATTRIBUTES = {*PHASES, *FRAME_PHASES} - {"StackID"}
_WORDS = {
    "AcquisitionNumber": "acquisition",
    "TriggerTime": "trigger time",
    "KVP": "kVp",
    "SliceThickness": "thickness",
}

Members = Sequence[Header]
Item = TypeVar("Item")
Key = TypeVar("Key")


def group_slices(headers: Sequence[Header]) -> list[Group]:
    """Return groups of slices that may be a volume, and groups of files without CT slices, in order of `headers`."""
    order = {id(header): index for index, header in enumerate(headers)}
    groups = _excluded_groups([header for header in headers if header.exclusion_reason is not None])
    for candidates in _group_parallel([header for header in headers if header.exclusion_reason is None]):
        for series in _group_by_series(candidates):
            for group in _group_by_attributes(series):
                groups += _split_by_hints(group)
    return _name_parts(sorted(groups, key=lambda group: order[id(group.first)]))


def _excluded_groups(headers: Members) -> list[Group]:
    """Return groups of files without CT slices, by series and reason.

    Groups of one study and folder are merged if there are three or more, of fewer than three files on average.
    """
    by_series = _group_by(headers, lambda header: (*series_ids(header), header.exclusion_reason))
    by_study = _group_by(
        by_series.values(), lambda members: (series_ids(members[0])[:2], members[0].folder, members[0].exclusion_reason)
    )
    groups: list[Group] = []
    for parts in by_study.values():
        count = sum(map(len, parts))
        if len(parts) >= MIN_SLICES and count < MIN_SLICES * len(parts):
            groups.append(Group(tuple(header for part in parts for header in part)))
        else:
            groups += [Group(tuple(part)) for part in parts]
    return groups


def _group_parallel(headers: Members) -> list[list[Header]]:
    """Return groups of slices of one size, and of one orientation and pixel spacing within a tolerance."""
    sizes = _group_by(headers, lambda header: (header.rows, header.columns, header.frames > 1))
    return [part for members in sizes.values() for part in _group_by_orientation(members)]


def _group_by_orientation(members: list[Header]) -> list[list[Header]]:
    """Return groups of slices that have the orientation and pixel spacing of their first slice, within a tolerance."""
    parts: dict[object, list[Header]] = {}
    first_of: dict[tuple[object, ...], object] = {}
    cells: dict[tuple[int, ...], list[tuple[float, ...]]] = defaultdict(list)
    for header in members:
        key = (header.orientation, header.spacing)
        if key not in first_of:
            numbers = _numbers(header)
            representative = None if numbers is None else _near(numbers, cells)
            first_of[key] = representative or numbers or key
            if numbers is not None and representative is None:
                cells[tuple(math.floor(value / _CELL) for value in numbers)].append(numbers)
        parts.setdefault(first_of[key], []).append(header)
    return list(parts.values())


def _numbers(header: Header) -> tuple[float, ...] | None:
    """Return orientation and scaled logarithms of the pixel spacing; None without an orientation."""
    if header.orientation is None:
        return None
    spacing = header.spacing or ()
    return (*header.orientation, *(_SPACING_WEIGHT * math.log(value) if value > 0 else value for value in spacing))


def _near(key: tuple[float, ...], cells: Mapping[tuple[int, ...], list[tuple[float, ...]]]) -> tuple[float, ...] | None:
    """Return an earlier vector that equals `key` within the tolerance; None if there is none.

    `cells` has the earlier vectors by the grid cell that contains them, so that only a few are compared.
    """
    ranges = [
        range(math.floor((value - _SAME_ORIENTATION) / _CELL), math.floor((value + _SAME_ORIENTATION) / _CELL) + 1)
        for value in key
    ]
    for cell in product(*ranges):
        for candidate in cells.get(cell, ()):
            if all(abs(a - b) < _SAME_ORIENTATION for a, b in zip(candidate, key, strict=True)):
                return candidate
    return None


def _group_by_series(candidates: Members) -> list[Group]:
    """Return groups of slices of one patient, study and series.

    Series with fewer than three slice positions are merged if they look like fragments of one stack.
    """
    groups = [Group(tuple(members)) for members in _group_by(candidates, series_ids).values()]
    small = [group for group in groups if _is_fragment(group.slices)]
    if len(small) < MIN_SLICES:
        return groups
    joined: list[Group] = []
    fragments = [header for group in small for header in group.slices]
    for indices in connected_components([_links(header) for header in fragments]):
        joined += _group_by_stable_ids([fragments[i] for i in indices])
    joined_ids = {id(header) for group in joined for header in group.slices}
    others = [group for group in groups if not any(id(header) in joined_ids for header in group.slices)]
    for index, group in enumerate(joined):
        for fragment in list(others):
            if _completes(fragment, group):
                others.remove(fragment)
                group = replace(group, slices=(*group.slices, *fragment.slices))
        joined[index] = group
    return [*others, *joined]


def _is_fragment(slices: Members) -> bool:
    return all(map(has_position, slices)) and len(distinct_positions(positions_along(slices))) < MIN_SLICES


def _completes(small: Group, large: Group) -> bool:
    """Return True if a few slices that share an identifier fill the gaps of a stack."""
    if 4 * len(small.slices) > len(large.slices) or not all(map(has_position, small.slices)):
        return False
    if small.first.folder != large.first.folder:
        return False
    kept = [keyword for keyword in SERIES if keyword not in large.ignored]
    if any(_identifier(small.first, keyword) != _identifier(large.first, keyword) for keyword in kept):
        return False
    both = (*large.slices, *small.slices)
    return not is_even(positions_along(large.slices)) and is_even(positions_along(both))


def _links(header: Header) -> list[tuple[str, str]]:
    """Return the identifiers and the folder of a slice, without missing ones."""
    names = (*SERIES, "FrameOfReferenceUID", "folder")
    return [(name, _identifier(header, name)) for name in names if _identifier(header, name)]


def _identifier(header: Header, keyword: str) -> str:
    identity = header.identity
    identifiers = {
        "PatientID": identity.patient_id,
        "StudyInstanceUID": identity.study_uid,
        "SeriesInstanceUID": header.series_uid,
        "FrameOfReferenceUID": identity.frame_uid,
        "SeriesNumber": identity.series_number,
        "folder": header.folder,
    }
    return identifiers[keyword] or ""


def _group_by_stable_ids(members: Members) -> list[Group]:
    """Return the mostly even stacks among slices, grouped by those identifiers that several slices share."""
    ignored = tuple(
        keyword for keyword in SERIES if _is_fragmented([_identifier(header, keyword) for header in members])
    )
    if not ignored:
        return []
    kept = [
        keyword
        for keyword in (*SERIES, "SeriesNumber", "folder")
        if keyword not in ignored and not _is_fragmented([_identifier(header, keyword) for header in members])
    ]
    groups = []
    for part in _group_by(members, lambda header: tuple(_identifier(header, keyword) for keyword in kept)).values():
        if not all(map(has_position, part)) or not is_mostly_even(positions_along(part)):
            continue
        stable = [
            keyword
            for keyword in (*SERIES, "FrameOfReferenceUID")
            if not _is_fragmented([_identifier(header, keyword) for header in part])
        ]
        problem = ""
        if not any(_identifier(part[0], keyword) for keyword in stable):
            problem = (
                f"{join_words(ignored)} have a new value in nearly every slice: nothing shows that the slices are of "
                "one patient; give them with the identifiers of one series"
            )
        groups.append(Group(tuple(part), ignored=ignored, problem=problem))
    return groups


def _ignored_note(ignored: Sequence[str]) -> str:
    many = len(ignored) > 1
    return (
        f"its {join_words(ignored)} {'have' if many else 'has'} a new value in nearly every slice and "
        f"identif{'y' if many else 'ies'} nothing: ignored, positions decide"
    )


def _is_fragmented(values: Sequence[str]) -> bool:
    """Return True if fewer than three slices on average share a value of an attribute."""
    count = len(set(values))
    return count >= MIN_SLICES and MIN_SLICES * count > len(values)


def _attributes(header: Header) -> dict[str, str]:
    """Return the attributes that are constant in a volume, by keyword."""
    phases = PHASES if header.frame is None else FRAME_PHASES
    return {
        "FrameOfReferenceUID": header.identity.frame_uid or "",
        "ConvolutionKernel": header.kernel,
        **dict(zip(phases, header.phase, strict=False)),
    }


def _group_by_attributes(group: Group) -> list[Group]:
    """Return groups of one kernel, frame of reference and phase; phases stay together if they form one even stack."""
    names = list(dict.fromkeys(name for header in group.slices for name in _attributes(header)))
    fragmented = [
        name for name in names if _is_fragmented([_attributes(header).get(name, "") for header in group.slices])
    ]
    ignored = (*group.ignored, *fragmented)
    if ignored:
        group = replace(group, ignored=ignored, notes=(_ignored_note(ignored),))
    kept = [name for name in names if name not in fragmented]
    # Times change during one pass; kernels, frames of reference and stacks do not.
    fixed = [name for name in kept if name not in _TIME_ATTRIBUTES]
    groups: list[Group] = []
    for members in _group_by(group.slices, lambda header: _values(header, fixed)).values():
        parts = _group_by(members, lambda header: _values(header, kept))
        if len(parts) > 1 and is_one_pass(members):
            changing = [name for name in kept if len({_attributes(header).get(name) for header in members}) > 1]
            note = (
                f"its {join_words(changing)} {'change' if len(changing) > 1 else 'changes'} within one even stack of "
                "slices: used as one volume; the patient may have moved or breathed in between"
            )
            groups.append(replace(group, slices=tuple(members), notes=(*group.notes, note)))
        else:
            groups += [replace(group, slices=tuple(part)) for part in parts.values()]
    return groups


def _values(header: Header, names: Sequence[str]) -> tuple[str, ...]:
    attributes = _attributes(header)
    return tuple(attributes.get(name, "") for name in names)


def is_one_pass(slices: Members) -> bool:
    """Return True if positions are even, and instance numbers are monotonic along them or all missing."""
    if not all(map(has_position, slices)) or not is_even(positions_along(slices)):
        return False
    ordered = [slices[i].number for i in np.argsort(positions_along(slices))]
    return all(number is None for number in ordered) or is_monotonic(ordered)


def _split_by_hints(group: Group) -> list[Group]:
    """Return a group split into passes, by an attribute that separates them.

    Passes are suspected where slices repeat positions or lie on interleaved grids. Without these, or without a
    separating attribute, the group is returned as it is.
    """
    members = group.slices
    if len(members) < _MIN_REPEATED or not all(map(has_position, members)):
        return [group]
    repeated = _has_repeated_position(members)
    passes = repeated or _is_interleaved(members)
    if not passes and not _may_be_passes(members):
        return [group]
    first: list[Group] = []
    for parts, name in _splits(members):
        if any(map(_has_repeated_position, parts.values())):
            continue
        split = [replace(group, slices=tuple(part), part=_format_part(name, value)) for value, part in parts.items()]
        if _form_stacks(list(parts.values())):
            passes = passes or looks_like_two_passes([members[i] for i in np.argsort(positions_along(members))])
            return split if passes else [group]
        first = first or split
    return first if repeated and first else [group]


def _splits(members: Members) -> Iterable[tuple[dict[str, list[Header]], str]]:
    """Yield possible splits of slices: slices by value of an attribute, and the keyword of the attribute."""
    for name in HINTS:
        parts = _group_by(members, methodcaller("hint", name))
        if 1 < len(parts) <= len(members) // 2:
            yield parts, name
    parts = _group_by(members, lambda header: header.event)
    if 1 < len(parts) <= len(members) // 2:
        yield parts, "IrradiationEventUID"
    for name in _TIMES:
        yield from ((parts, name) for parts in _split_by_pause(members, name))


def _split_by_pause(members: Members, name: str) -> list[dict[str, list[Header]]]:
    """Return one split of slices, into those before and after the longest pause between their times; none without."""
    times = [seconds_of(header.hint(name)) for header in members]
    sorted_times = sorted(time for time in times if time is not None)
    if len(sorted_times) < len(members) or sorted_times[0] == sorted_times[-1]:
        return []
    longest = int(np.argmax(np.diff(sorted_times)))
    return [
        _group_by(
            members, lambda header: "" if (seconds_of(header.hint(name)) or 0) <= sorted_times[longest] else "later"
        )
    ]


def _form_stacks(parts: Sequence[Members]) -> bool:
    """Return True if all parts are mostly even stacks that overlap: passes, rather than consecutive pieces."""
    along = [positions_along((parts[0][0], *part))[1:] for part in parts]
    return all(map(is_mostly_even, along)) and all(overlaps_by_half(along[0], other) for other in along[1:])


def _is_interleaved(members: Members) -> bool:
    """Return True if positions are interleaved grids, or instance numbers indicate several passes."""
    along = positions_along(members)
    order = np.argsort(along)
    if count_interleaved_grids(along[order]) > 1:
        return True
    numbers = [members[i].number for i in order]
    return count_passes(numbers, along[order]) > 1


def _may_be_passes(members: Members) -> bool:
    """Return True if slices are one even stack whose instance numbers do not confirm a single pass."""
    along = positions_along(members)
    return is_even(along) and not is_monotonic([members[i].number for i in np.argsort(along)])


def _has_repeated_position(members: Members) -> bool:
    """Return True if different images have the same position."""
    objects = list({(header.sop_uid or header.file, header.frame): header for header in members}.values())
    return len(objects) > 1 and bool(find_duplicate_positions(np.sort(positions_along(objects))).any())


def _format_part(name: str, value: str) -> str:
    plain = re.fullmatch(NUMBER, value)
    return f"{_WORDS[name]} {value}" if name in _WORDS and plain else ""


def _name_parts(groups: list[Group]) -> list[Group]:
    """Return the groups, with a part name for each group of a series that has several."""
    by_series: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        if group.first.exclusion_reason is None:
            by_series[group.series].append(index)
    named_groups = list(groups)
    for indices in by_series.values():
        if len(indices) < 2:
            continue
        for number, index in enumerate(indices, start=1):
            group = groups[index]
            phase = next((value for value in group.first.phase if re.fullmatch(NUMBER, value)), "")
            part = group.part or (f"phase {phase}" if phase else f"part {number} of {len(indices)}")
            named_groups[index] = replace(group, part=part)
    return named_groups


def _group_by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    grouped: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        grouped[key(item)].append(item)
    return dict(grouped)
