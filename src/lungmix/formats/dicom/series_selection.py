"""Selection of series: first by the conditions of the user, then one reconstruction per acquisition.

Series are `Group` objects: a series may have several groups, such as phases.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungmix.errors import count_of
from lungmix.formats.dicom.grouping import MIN_SLICES
from lungmix.formats.dicom.header import FRAME_PHASES
from lungmix.formats.dicom.image_types import seconds_of
from lungmix.formats.dicom.slice_groups import Group, has_position, positions_along, slice_normal
from lungmix.formats.series_filter import SeriesFilter

_PLANES = ("sagittal", "coronal", "axial")
_SLACK_SECONDS = 2.0
_OVERRIDE = "`filter='all'` uses it too"
_TOO_SMALL = f" only, such as those that time a contrast agent; {_OVERRIDE}"


def filter_attributes(group: Group) -> dict[str, Any]:
    """Return the attributes of a group by their names in filter conditions; missing values are None."""
    first = group.first
    steps = np.diff(np.sort(positions_along(group.slices))) if all(map(has_position, group.slices)) else np.array([])
    distances = steps[steps > 0.01]
    return {
        "kernel": first.kernel,
        "manufacturer": first.acquisition.manufacturer,
        "model": first.acquisition.model,
        "type": "\\".join(first.image_type),
        "orientation": anatomical_plane(group),
        "thickness": first.acquisition.slice_thickness,
        "spacing": float(np.median(distances)) if distances.size else None,
        "slices": len(group.slices),
        "number": series_number(group),
        "kvp": first.acquisition.kvp,
    }


def anatomical_plane(group: Group) -> str | None:
    """Return the plane nearest to the slices, ``axial``, ``coronal`` or ``sagittal``; None without an orientation."""
    if not has_position(group.first):
        return None
    return _PLANES[int(np.abs(slice_normal(group.first)).argmax())]


def series_number(group: Group) -> int | None:
    """Return the SeriesNumber; None if it is missing, or so long that it may be another identifier."""
    text = group.first.identity.series_number or ""
    return int(text) if re.fullmatch(r"\d{1,5}", text) else None


def filter_reason(group: Group, series_filter: SeriesFilter) -> str | None:
    """Return the reason why a group is not used, regardless of other groups; None if it may be used."""
    unmet = series_filter.unmet(filter_attributes(group)) if series_filter.conditions else None
    if unmet is not None:
        return f"{unmet} does not hold (`filter`)"
    if not series_filter.choose:
        return None
    plane = anatomical_plane(group)
    if plane not in (None, "axial") and "ORIGINAL" not in group.first.image_type[:1]:
        return f"a {plane} reformat, computed from other slices; {_OVERRIDE}"
    return None


def small_group_reason(group: Group, series_filter: SeriesFilter) -> str | None:
    """Return the reason why a group has too few slices to be used; None if it has three slice positions or more."""
    if not series_filter.choose:
        return None
    count = _count(group)
    # Several images in a file without positions are rejected elsewhere, with another reason.
    if count < MIN_SLICES and (group.first.frames == 1 or group.first.frame is not None):
        total = f"{count_of(len(group.slices), 'slice')} at " if len(group.slices) > count else ""
        size = total + count_of(count, "position" if total else "slice")
        return f"of {size}{_TOO_SMALL}"
    return None


def summarize_small_groups(count: int, reason: str) -> str:
    """Return one reason for several small parts of a series."""
    if reason.endswith(_TOO_SMALL):
        return f"of {count} parts of one or two slices each{_TOO_SMALL}"
    return f"{count} parts of one or two slices each: {reason}"


def find_redundant_groups(groups: Sequence[Group], usable: Mapping[int, bool]) -> dict[int, str]:
    """Return the groups for which a better reconstruction of the same acquisition is used, with the reason.

    Axial reconstructions are preferred; among these the thinnest slices, then the most slices, then the lowest series
    number.

    Parameters
    ----------
    groups : sequence of Group
        All groups of a source.
    usable : mapping of int to bool
        True for readable groups, False for unreadable ones, by index of the groups that may be used.
    """
    reasons: dict[int, str] = {}
    used: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in sorted(usable, key=lambda i: _rank(groups[i])):
        of_study = used[groups[index].series[:2]]
        better = next((i for i in of_study if _same_acquisition(groups[i], groups[index])), None)
        if better is not None:
            reasons[index] = f"{_describe_better(groups[index], groups[better])}; {_OVERRIDE}"
        elif usable[index]:
            of_study.append(index)
    return reasons


def _rank(group: Group) -> tuple[Any, ...]:
    return (
        anatomical_plane(group) != "axial",
        round(_thickness(group), 2),
        -_count(group),
        series_number(group) if series_number(group) is not None else 1 << 40,
        group.first.hints[0],
    )


def _count(group: Group) -> int:
    """Return the number of slices at distinct positions."""
    return len({header.position or (header.file, header.frame) for header in group.slices})


def _thickness(group: Group) -> float:
    attributes = filter_attributes(group)
    return float(attributes["thickness"] or attributes["spacing"] or 1e9)


def _describe_better(group: Group, better: Group) -> str:
    number = series_number(better)
    other = f"series {number}" if number is not None and number != series_number(group) else "another series"
    acquisition = f"the acquisition in {other} ({len(better.slices)} axial slices of {_thickness(better):g} mm)"
    plane = anatomical_plane(group)
    if group.series == better.series:
        return f"another part or phase of the series, of which {len(better.slices)} slices are used"
    if plane not in (None, "axial") and anatomical_plane(better) == "axial":
        return f"a {plane} reconstruction of {acquisition}"
    if round(_thickness(group), 2) > round(_thickness(better), 2):
        return f"a thicker reconstruction ({_thickness(group):g} mm) of {acquisition}"
    return f"another reconstruction of {acquisition}"


def _same_acquisition(first: Group, second: Group) -> bool:
    """Return True if two groups of one study are of one acquisition.

    They must not differ in frame of reference and time, and must overlap along z by half of the shorter one.
    """
    frame = first.first.identity.frame_uid
    if not first.first.identity.study_uid or _are_stacks(first, second):
        return False
    if frame and second.first.identity.frame_uid and frame != second.first.identity.frame_uid:
        return False
    if first.series != second.series and not _same_time(first, second):
        return False
    spans = [_height_range(group) for group in (first, second)]
    if spans[0] is None or spans[1] is None:
        return True
    low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
    shorter = min(span[1] - span[0] for span in spans if span is not None)
    return high - low >= 0.5 * shorter


def _are_stacks(first: Group, second: Group) -> bool:
    """Return True for two stacks of an enhanced CT, which are separate volumes (DICOM PS3.3, C.7.6.16.2.2)."""
    at = FRAME_PHASES.index("StackID")
    if first.first.frame is None or second.first.frame is None or first.series != second.series:
        return False
    return "StackID" not in first.ignored and first.first.phase[at] != second.first.phase[at]


def _same_time(first: Group, second: Group) -> bool:
    events = [{slice_.event for slice_ in group.slices} - {""} for group in (first, second)]
    if events[0] and events[1]:
        return bool(events[0] & events[1])
    times = [
        [time for slice_ in group.slices if (time := seconds_of(slice_.hint("AcquisitionTime"))) is not None]
        for group in (first, second)
    ]
    if not times[0] or not times[1]:
        return True
    return max(min(times[0]), min(times[1])) <= min(max(times[0]), max(times[1])) + _SLACK_SECONDS


def _height_range(group: Group) -> tuple[float, float] | None:
    """Return the lowest and highest point of a group along the patient's z axis, mm."""
    if not all(map(has_position, group.slices)) or group.first.spacing is None:
        return None
    first = group.first
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    extent = [
        (first.orientation or ())[2] * between_columns * first.columns,
        (first.orientation or ())[5] * between_rows * first.rows,
    ]
    heights = np.array([header.position for header in group.slices])[:, 2]
    return (
        float(heights.min() + sum(min(part, 0.0) for part in extent)),
        float(heights.max() + sum(max(part, 0.0) for part in extent)),
    )
