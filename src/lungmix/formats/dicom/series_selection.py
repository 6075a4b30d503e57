"""Which of the usable series are used: conditions first, then one of several reconstructions of an acquisition."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lungmix.formats.dicom.grouping import FEWEST_SLICES
from lungmix.formats.dicom.header import FRAME_PHASES, HINTS, Header
from lungmix.formats.dicom.image_types import seconds_of
from lungmix.formats.dicom.slice_groups import Group, has_place, normal_of, places_along
from lungmix.formats.series_filter import SeriesFilter

_PLANES = ("sagittal", "coronal", "axial")
_SLACK_SECONDS = 2.0
_OVERRIDE = "--series-filter all uses it too"
_TOO_SMALL = f" only, such as those that time a contrast agent; {_OVERRIDE}"


def attributes_of(group: Group) -> dict[str, Any]:
    """What the conditions of a filter ask for, by their names; unknown values are None."""
    first = group.first
    steps = np.diff(np.sort(places_along(group.slices))) if all(map(has_place, group.slices)) else np.array([])
    apart = steps[steps > 0.01]
    return {
        "kernel": first.kernel,
        "manufacturer": first.acquisition.manufacturer,
        "model": first.acquisition.model,
        "type": "\\".join(first.image_type),
        "orientation": plane_of(group),
        "thickness": first.acquisition.slice_thickness,
        "spacing": float(np.median(apart)) if apart.size else None,
        "slices": len(group.slices),
        "number": series_number(group),
        "kvp": first.acquisition.kvp,
    }


def plane_of(group: Group) -> str | None:
    """``axial``, ``coronal`` or ``sagittal``, whichever is nearest; None if it is not known."""
    if not has_place(group.first):
        return None
    return _PLANES[int(np.abs(normal_of(group.first)).argmax())]


def series_number(group: Group) -> int | None:
    """Number of the series; None if there is none, or one so long that it may be another identifier."""
    text = group.first.identity.series_number or ""
    return int(text) if re.fullmatch(r"\d{1,5}", text) else None


def unwanted(group: Group, rules: SeriesFilter) -> str | None:
    """Why a group is not used whatever else there is; None if it may be."""
    unmet = rules.unmet(attributes_of(group)) if rules.conditions else None
    if unmet is not None:
        return f"{unmet} does not hold (--series-filter)"
    if not rules.choose:
        return None
    plane = plane_of(group)
    if plane not in (None, "axial") and "ORIGINAL" not in group.first.image_type[:1]:
        return f"a {plane} reformat, computed from other slices; {_OVERRIDE}"
    return None


def too_small(group: Group, rules: SeriesFilter) -> str | None:
    """Why a group has too few slices to be used; None if it may be."""
    if not rules.choose:
        return None
    count = _count(group)
    # Several images in a file that does not say where they lie are refused as such.
    if count < FEWEST_SLICES and (group.first.frames == 1 or group.first.frame is not None):
        many = f"{len(group.slices)} slices at " if len(group.slices) > count else ""
        what = f"{many}{count} {'position' if many else 'slice'}{'s' if count > 1 else ''}"
        return f"of {what}{_TOO_SMALL}"
    return None


def in_small_parts(count: int, reason: str) -> str:
    """Return the reason why several small parts of one series are left over, as one."""
    if reason.endswith(_TOO_SMALL):
        return f"of {count} parts of one or two slices each{_TOO_SMALL}"
    return f"{count} parts of one or two slices each: {reason}"


def passed_over(groups: Sequence[Group], usable: Mapping[int, bool]) -> dict[int, str]:
    """Groups that are not used because another one shows the same acquisition better, with the reason.

    Of several reconstructions of one acquisition the axial ones come first, then the thinnest, then those of most
    slices, then the lowest series number.

    Parameters
    ----------
    groups : sequence of Group
        All of a source.
    usable : mapping of int to bool
        Indices of the groups in question, and whether they can be read.
    """
    reasons: dict[int, str] = {}
    used: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in sorted(usable, key=lambda i: _rank(groups[i])):
        of_study = used[groups[index].series[:2]]
        better = next((i for i in of_study if _same_acquisition(groups[i], groups[index])), None)
        if better is not None:
            reasons[index] = f"{_compared(groups[index], groups[better])}; {_OVERRIDE}"
        elif usable[index]:
            of_study.append(index)
    return reasons


def _rank(group: Group) -> tuple[Any, ...]:
    return (
        plane_of(group) != "axial",
        round(_thickness(group), 2),
        -_count(group),
        series_number(group) if series_number(group) is not None else 1 << 40,
        group.first.hints[0],
    )


def _count(group: Group) -> int:
    """Slices at different places."""
    return len({one.position or (one.file, one.frame) for one in group.slices})


def _thickness(group: Group) -> float:
    found = attributes_of(group)
    return float(found["thickness"] or found["spacing"] or 1e9)


def _compared(group: Group, better: Group) -> str:
    number = series_number(better)
    other = f"series {number}" if number is not None and number != series_number(group) else "another one"
    shows = f"what {other} shows in {len(better.slices)} axial slices of {_thickness(better):g} mm"
    plane = plane_of(group)
    if group.series == better.series:
        return f"another part or phase of the series of which {len(better.slices)} slices are used"
    if plane not in (None, "axial") and plane_of(better) == "axial":
        return f"a {plane} reconstruction of {shows}"
    if round(_thickness(group), 2) > round(_thickness(better), 2):
        return f"a thicker reconstruction ({_thickness(group):g} mm) of {shows}"
    return f"another reconstruction of {shows}"


def _same_acquisition(one: Group, two: Group) -> bool:
    """Whether both, of one patient and study, show one scan: one frame of reference and time, and much in common."""
    frame = one.first.identity.frame_uid
    if not one.first.identity.study_uid or _are_stacks(one, two):
        return False
    if frame and two.first.identity.frame_uid and frame != two.first.identity.frame_uid:
        return False
    if one.series != two.series and not _same_time(one, two):
        return False
    spans = [_span(group) for group in (one, two)]
    if spans[0] is None or spans[1] is None:
        return True
    low, high = max(spans[0][0], spans[1][0]), min(spans[0][1], spans[1][1])
    shorter = min(span[1] - span[0] for span in spans if span is not None)
    return high - low >= 0.5 * shorter


def _are_stacks(one: Group, two: Group) -> bool:
    """Whether they are two stacks of an enhanced CT, which are volumes by definition (DICOM PS3.3, C.7.6.16.2.2)."""
    at = FRAME_PHASES.index("StackID")
    if one.first.frame is None or two.first.frame is None or one.series != two.series:
        return False
    return "StackID" not in one.ignored and one.first.phase[at] != two.first.phase[at]


def _same_time(one: Group, two: Group) -> bool:
    events = [{slice_.event for slice_ in group.slices} - {""} for group in (one, two)]
    if events[0] and events[1]:
        return bool(events[0] & events[1])
    times = [[t for t in map(_seconds, group.slices) if t is not None] for group in (one, two)]
    if not times[0] or not times[1]:
        return True
    return max(min(times[0]), min(times[1])) <= min(max(times[0]), max(times[1])) + _SLACK_SECONDS


def _seconds(header: Header) -> float | None:
    """Time of the acquisition within the day."""
    at = HINTS.index("AcquisitionTime")
    return seconds_of(header.hints[at] if at < len(header.hints) else "")


def _span(group: Group) -> tuple[float, float] | None:
    """Lowest and highest point of a group in the patient, mm along the body."""
    if not all(map(has_place, group.slices)) or group.first.spacing is None:
        return None
    first = group.first
    between_rows, between_columns = first.spacing or (1.0, 1.0)
    reach = [
        (first.orientation or ())[2] * between_columns * first.columns,
        (first.orientation or ())[5] * between_rows * first.rows,
    ]
    heights = np.array([one.position for one in group.slices])[:, 2]
    return (
        float(heights.min() + sum(min(part, 0.0) for part in reach)),
        float(heights.max() + sum(max(part, 0.0) for part in reach)),
    )
