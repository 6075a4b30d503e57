"""Which slices make one volume: their positions first, then what is the same at all of them.

Slices of one size, orientation and pixel spacing are candidates. An attribute that has a new value in nearly every
slice identifies nothing and is ignored. One of few values tells volumes apart, of which each is an even stack by
itself. See `docs/dicom.md`.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TypeVar

import numpy as np

from lungmix.formats.dicom.even_spacing import (
    Positions,
    doubled,
    grids_between,
    is_even,
    is_mostly_even,
    overlap_by_half,
    places,
)
from lungmix.formats.dicom.header import FRAME_PHASES, HINTS, PHASES, Header
from lungmix.formats.dicom.image_types import seconds_of
from lungmix.formats.dicom.instance_numbers import passes_between, runs_one_way
from lungmix.formats.dicom.linked_components import linked
from lungmix.formats.dicom.slice_groups import NUMBER, SERIES, Group, enumerated, has_place, places_along, series_of
from lungmix.formats.dicom.slice_similarity import looks_like_two_passes

FEWEST_SLICES = 3
"""Slices at different places that make a volume."""

_SAME_ORIENTATION = 1e-3
_CELL = 8e-3
# Logarithms of pixel spacings times this differ by less than a thousandth where spacings do by a quarter per cent.
_OF_SPACING = 0.4
_FEWEST_REPEATED = 4
_TIMES = ("AcquisitionTime", "ContentTime")
_OF_TIME = {*PHASES, *FRAME_PHASES} - {"StackID"}
_WORDS = {
    "AcquisitionNumber": "acquisition",
    "TriggerTime": "trigger time",
    "KVP": "kVp",
    "SliceThickness": "thickness",
}

Members = Sequence[Header]
Item = TypeVar("Item")
Key = TypeVar("Key")


def groups_of(headers: Sequence[Header]) -> list[Group]:
    """Return the groups of slices that may make a volume, and of files that are none, in the order of their files."""
    order = {id(one): index for index, one in enumerate(headers)}
    found = _unused([one for one in headers if one.unused is not None])
    for candidates in _parallel([one for one in headers if one.unused is None]):
        for whole in _by_series(candidates):
            for part in _by_attributes(whole):
                found += _by_hints(part)
    return _told_apart(sorted(found, key=lambda group: order[id(group.first)]))


def _unused(headers: Members) -> list[Group]:
    """Files that are no slices of a CT, by series and reason; many of one study and folder are listed together."""
    by_series = _by(headers, lambda one: (*series_of(one), one.unused))
    together = _by(by_series.values(), lambda members: (_study(members[0]), members[0].folder, members[0].unused))
    found: list[Group] = []
    for parts in together.values():
        count = sum(map(len, parts))
        if len(parts) >= FEWEST_SLICES and count < FEWEST_SLICES * len(parts):
            found.append(Group(tuple(one for part in parts for one in part)))
        else:
            found += [Group(tuple(part)) for part in parts]
    return found


def _study(header: Header) -> tuple[str, ...]:
    return series_of(header)[:2]


def _parallel(headers: Members) -> list[list[Header]]:
    """Slices of one size, and nearly one orientation and pixel spacing."""
    sizes = _by(headers, lambda one: (one.rows, one.columns, one.frames > 1))
    return [part for members in sizes.values() for part in _by_orientation(members)]


def _by_orientation(members: list[Header]) -> list[list[Header]]:
    """Return parallel slices together: those of the orientation and the spacing of the first of them, or nearly."""
    parts: dict[object, list[Header]] = {}
    first_of: dict[tuple[object, ...], object] = {}
    cells: dict[tuple[int, ...], list[tuple[float, ...]]] = defaultdict(list)
    for one in members:
        key = (one.orientation, one.spacing)
        if key not in first_of:
            numbers = _numbers(one)
            near = None if numbers is None else _near(numbers, cells)
            first_of[key] = near or numbers or key
            if numbers is not None and near is None:
                cells[tuple(math.floor(value / _CELL) for value in numbers)].append(numbers)
        parts.setdefault(first_of[key], []).append(one)
    return list(parts.values())


def _numbers(header: Header) -> tuple[float, ...] | None:
    """Orientation and logarithms of the pixel spacing; None without an orientation."""
    if header.orientation is None:
        return None
    spacing = header.spacing or ()
    return (*header.orientation, *(_OF_SPACING * math.log(value) if value > 0 else value for value in spacing))


def _near(key: tuple[float, ...], cells: Mapping[tuple[int, ...], list[tuple[float, ...]]]) -> tuple[float, ...] | None:
    """Find what is nearly the same, in the few cells of space that reach near enough."""
    sides = [
        range(math.floor((value - _SAME_ORIENTATION) / _CELL), math.floor((value + _SAME_ORIENTATION) / _CELL) + 1)
        for value in key
    ]
    for cell in product(*sides):
        for known in cells.get(cell, ()):
            if all(abs(a - b) < _SAME_ORIENTATION for a, b in zip(known, key, strict=True)):
                return known
    return None


def _by_series(candidates: Members) -> list[Group]:
    """Slices of one patient, study and series; crumbs of what looks like one stack are put together again."""
    groups = [Group(tuple(members)) for members in _by(candidates, series_of).values()]
    small = [group for group in groups if _is_crumb(group.slices)]
    if len(small) < FEWEST_SLICES:
        return groups
    joined: list[Group] = []
    crumbs = [one for group in small for one in group.slices]
    for indices in linked([_links(one) for one in crumbs]):
        joined += _without_crumbling([crumbs[i] for i in indices])
    taken = {id(one) for group in joined for one in group.slices}
    rest = [group for group in groups if not any(id(one) in taken for one in group.slices)]
    for index, group in enumerate(joined):
        for other in list(rest):
            if _completes(other, group):
                rest.remove(other)
                group = replace(group, slices=(*group.slices, *other.slices))
        joined[index] = group
    return [*rest, *joined]


def _is_crumb(slices: Members) -> bool:
    return all(map(has_place, slices)) and len(places(places_along(slices))) < FEWEST_SLICES


def _completes(small: Group, large: Group) -> bool:
    """Whether a few slices that share an identifier fill the places that a stack lacks."""
    if 4 * len(small.slices) > len(large.slices) or not all(map(has_place, small.slices)):
        return False
    if small.first.folder != large.first.folder:
        return False
    kept = [keyword for keyword in SERIES if keyword not in large.ignored]
    if any(_identifier(small.first, keyword) != _identifier(large.first, keyword) for keyword in kept):
        return False
    both = (*large.slices, *small.slices)
    return not is_even(places_along(large.slices)) and is_even(places_along(both))


def _links(header: Header) -> list[tuple[str, str]]:
    """Identifiers and the folder of a slice, as far as they are known."""
    names = (*SERIES, "FrameOfReferenceUID", "folder")
    return [(name, _identifier(header, name)) for name in names if _identifier(header, name)]


def _identifier(header: Header, keyword: str) -> str:
    identity = header.identity
    known = {
        "PatientID": identity.patient_id,
        "StudyInstanceUID": identity.study_uid,
        "SeriesInstanceUID": header.series_uid,
        "FrameOfReferenceUID": identity.frame_uid,
        "SeriesNumber": identity.series_number,
        "folder": header.folder,
    }
    return known[keyword] or ""


def _without_crumbling(members: Members) -> list[Group]:
    """Stacks by those identifiers that tell some slices from others; none where slices lie far from even."""
    ignored = tuple(keyword for keyword in SERIES if _crumbles([_identifier(one, keyword) for one in members]))
    if not ignored:
        return []
    kept = [
        keyword
        for keyword in (*SERIES, "SeriesNumber", "folder")
        if keyword not in ignored and not _crumbles([_identifier(one, keyword) for one in members])
    ]
    found = []
    for part in _by(members, lambda one: tuple(_identifier(one, keyword) for keyword in kept)).values():
        if not all(map(has_place, part)) or not is_mostly_even(places_along(part)):
            continue
        tied = [
            keyword
            for keyword in (*SERIES, "FrameOfReferenceUID")
            if not _crumbles([_identifier(one, keyword) for one in part])
        ]
        fault = ""
        if not any(_identifier(part[0], keyword) for keyword in tied):
            fault = (
                f"{enumerated(ignored)} have a new value in nearly every slice: nothing says that the slices show one "
                "patient; give them with the identifiers of one series"
            )
        found.append(Group(tuple(part), ignored=ignored, fault=fault))
    return found


def _note(ignored: Sequence[str]) -> str:
    many = len(ignored) > 1
    return (
        f"its {enumerated(ignored)} {'have' if many else 'has'} a new value in nearly every slice and "
        f"identif{'y' if many else 'ies'} nothing: ignored, positions decide"
    )


def _crumbles(values: Sequence[str]) -> bool:
    """Whether an attribute has so many values that on average fewer than three slices share one."""
    count = len(set(values))
    return count >= FEWEST_SLICES and FEWEST_SLICES * count > len(values)


def _attributes(header: Header) -> dict[str, str]:
    """What is one in a volume, by keyword."""
    phases = PHASES if header.frame is None else FRAME_PHASES
    return {
        "FrameOfReferenceUID": header.identity.frame_uid or "",
        "ConvolutionKernel": header.kernel,
        **dict(zip(phases, header.phase, strict=False)),
    }


def _by_attributes(whole: Group) -> list[Group]:
    """Slices of one kernel, frame of reference and phase; those of parts that only together are even, together."""
    names = list(dict.fromkeys(name for one in whole.slices for name in _attributes(one)))
    new = [name for name in names if _crumbles([_attributes(one).get(name, "") for one in whole.slices])]
    ignored = (*whole.ignored, *new)
    if ignored:
        whole = replace(whole, ignored=ignored, notes=(_note(ignored),))
    kept = [name for name in names if name not in new]
    # Times change on the way of one pass; kernels, frames of reference and stacks do not.
    fixed = [name for name in kept if name not in _OF_TIME]
    found: list[Group] = []
    for members in _by(whole.slices, lambda one: _values(one, fixed)).values():
        parts = _by(members, lambda one: _values(one, kept))
        if len(parts) > 1 and is_one_pass(members):
            changing = [name for name in kept if len({_attributes(one).get(name) for one in members}) > 1]
            note = (
                f"its {enumerated(changing)} {'change' if len(changing) > 1 else 'changes'} within one even stack of "
                "slices: used as one volume, the patient may have moved or breathed in between"
            )
            found.append(replace(whole, slices=tuple(members), notes=(*whole.notes, note)))
        else:
            found += [replace(whole, slices=tuple(part)) for part in parts.values()]
    return found


def _values(header: Header, names: Sequence[str]) -> tuple[str, ...]:
    known = _attributes(header)
    return tuple(known.get(name, "") for name in names)


def is_one_pass(slices: Members) -> bool:
    """Return True if positions are even, and each slice has a number of its own that runs with them or none has."""
    if not all(map(has_place, slices)) or not is_even(places_along(slices)):
        return False
    ordered = [slices[i].number for i in np.argsort(places_along(slices))]
    return all(number is None for number in ordered) or runs_one_way(ordered)


def _by_hints(group: Group) -> list[Group]:
    """Passes of one series: images at one place, or on grids between each other, told apart by an attribute."""
    members = group.slices
    if len(members) < _FEWEST_REPEATED or not all(map(has_place, members)):
        return [group]
    repeated = _repeats(members)
    passes = repeated or _are_passes(members)
    if not passes and not _may_be_passes(members):
        return [group]
    first: list[Group] = []
    for parts, name in _splits(members):
        if any(map(_repeats, parts.values())):
            continue
        split = [replace(group, slices=tuple(part), part=_told(name, value)) for value, part in parts.items()]
        if _make_stacks(list(parts.values())):
            passes = passes or looks_like_two_passes([members[i] for i in np.argsort(places_along(members))])
            return split if passes else [group]
        first = first or split
    return first if repeated and first else [group]


def _splits(members: Members) -> Iterable[tuple[dict[str, list[Header]], str]]:
    for index, name in enumerate(HINTS):
        parts = _by(members, partial(_hint, index=index))
        if 1 < len(parts) <= len(members) // 2:
            yield parts, name
    parts = _by(members, lambda one: one.event)
    if 1 < len(parts) <= len(members) // 2:
        yield parts, "IrradiationEventUID"
    for name in _TIMES:
        yield from ((parts, name) for parts in _by_pause(members, HINTS.index(name)))


def _by_pause(members: Members, index: int) -> list[dict[str, list[Header]]]:
    """Slices before and after the longest pause between their times."""
    times = [seconds_of(_hint(one, index)) for one in members]
    known = sorted(time for time in times if time is not None)
    if len(known) < len(members) or known[0] == known[-1]:
        return []
    at = int(np.argmax(np.diff(known)))
    return [_by(members, lambda one: "" if (seconds_of(_hint(one, index)) or 0) <= known[at] else "later")]


def _hint(header: Header, index: int) -> str:
    return header.hints[index] if index < len(header.hints) else ""


def _make_stacks(parts: Sequence[Members]) -> bool:
    """Whether all parts are nearly even and lie in one place: passes, not pieces one behind the other."""
    along = [_along(part, parts[0][0]) for part in parts]
    return all(map(is_mostly_even, along)) and all(overlap_by_half(along[0], other) for other in along[1:])


def _along(members: Members, reference: Header) -> Positions:
    return places_along((reference, *members))[1:]


def _are_passes(members: Members) -> bool:
    """Whether positions lie on grids between each other, or instance numbers say that several passes are mixed."""
    along = places_along(members)
    order = np.argsort(along)
    if grids_between(along[order]) > 1:
        return True
    numbers = [members[i].number for i in order]
    return passes_between(numbers, along[order]) > 1


def _may_be_passes(members: Members) -> bool:
    """Whether slices are one even stack whose instance numbers do not say that one pass took them."""
    along = places_along(members)
    return is_even(along) and not runs_one_way([members[i].number for i in np.argsort(along)])


def _repeats(members: Members) -> bool:
    """Whether different images lie at one position."""
    objects = list({(one.sop_uid or one.file, one.frame): one for one in members}.values())
    return len(objects) > 1 and bool(doubled(np.sort(places_along(objects))).any())


def _told(name: str, value: str) -> str:
    plain = re.fullmatch(NUMBER, value)
    return f"{_WORDS[name]} {value}" if name in _WORDS and plain else ""


def _told_apart(groups: list[Group]) -> list[Group]:
    """Give every group of a series that has several a name."""
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
            phase = next((value for value in group.first.phase if re.fullmatch(NUMBER, value)), "")
            part = group.part or (f"phase {phase}" if phase else f"part {place} of {len(indices)}")
            named_groups[index] = replace(group, part=part)
    return named_groups


def _by(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    found: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return dict(found)
