"""Groups of the cases of a store by attributes of their acquisition, such as scanner or slice thickness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lungmix.errors import UsageError
from lungmix.store import Case
from lungmix.store.models import mask_text

UNKNOWN = "unknown"
SLICE_BOUNDS_MM = (1.0, 2.5)
"""Upper bounds of thin and of medium slices, mm; both bounds belong to the lower interval."""

_ROUNDING_MM = 0.001
_Level = tuple[float, str]


@dataclass(frozen=True)
class Attribute:
    """Attribute by which cases are grouped.

    Attributes
    ----------
    name : str
        Name, as the user gives it.
    title : str
        Description for messages.
    level_of : callable
        Function of a case. It returns a number by which groups are sorted and the value as text; None if the value is
        unknown.
    """

    name: str
    title: str
    level_of: Callable[[Case], _Level | None]


def _word(value: str | None) -> _Level | None:
    return (0.0, value) if value else None


def _interval_mm(value: float | None) -> _Level | None:
    """Return the interval of a length: up to the first of `SLICE_BOUNDS_MM`, between the two, or above."""
    if value is None or value <= 0:
        return None
    thin, medium = SLICE_BOUNDS_MM
    if value <= thin + _ROUNDING_MM:
        return 0.0, f"<= {thin:g} mm"
    return (1.0, f"{thin:g} to {medium:g} mm") if value <= medium + _ROUNDING_MM else (2.0, f"> {medium:g} mm")


def _kilovolts(case: Case) -> _Level | None:
    kvp = case.acquisition.kvp
    return None if kvp is None else (round(kvp), f"{round(kvp)} kVp")


def _slice_spacing(case: Case) -> _Level | None:
    return _interval_mm(case.geometry.axis_order.by_patient(case.geometry.spacing_zyx)[0])


ATTRIBUTES: Mapping[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute("scanner", "scanner", lambda case: _word(case.acquisition.scanner)),
        Attribute("manufacturer", "manufacturer", lambda case: _word(case.acquisition.manufacturer)),
        Attribute("model", "scanner model", lambda case: _word(case.acquisition.model)),
        Attribute("kernel", "reconstruction kernel", lambda case: _word(case.acquisition.kernel)),
        Attribute("kvp", "tube voltage", _kilovolts),
        Attribute("slice-thickness", "slice thickness", lambda case: _interval_mm(case.acquisition.slice_thickness)),
        Attribute("slice-spacing", "slice spacing", _slice_spacing),
        Attribute("preset", "mask preset", lambda case: _word(mask_text(case))),
    )
}
"""Attributes by name. Numbers are grouped: kVp are rounded, slices are up to 1 mm, 1 to 2.5 mm, or thicker."""


@dataclass(frozen=True)
class CaseGroup:
    """Cases with equal values of the attributes by which they are grouped.

    Attributes
    ----------
    name : str
        Values of the attributes, such as ``B70f, <= 1 mm``.
    values : dict of str to str
        Value of each attribute; ``unknown`` for cases without it.
    cases : tuple of str
        Names of the cases, sorted.
    """

    name: str
    values: dict[str, str]
    cases: tuple[str, ...]


def check_attributes(by: Sequence[str]) -> list[Attribute]:
    """Return the attributes of these names, each once, in the given order.

    Raises
    ------
    UsageError
        If no attribute is given, or a name is unknown.
    """
    for name in by:
        if name not in ATTRIBUTES:
            raise UsageError(f"cases cannot be grouped by {name!r}: choose from {', '.join(ATTRIBUTES)}")
    if not by:
        raise UsageError(f"no attribute is given to group by: choose from {', '.join(ATTRIBUTES)}")
    return [ATTRIBUTES[name] for name in dict.fromkeys(by)]


def group_cases(cases: Iterable[tuple[str, Case]], by: Sequence[str]) -> list[CaseGroup]:
    """Return the groups of cases, one for each combination of values that occurs.

    Parameters
    ----------
    cases : iterable of (str, Case)
        Cases and their names.
    by : sequence of str
        Names of attributes, see `ATTRIBUTES`.

    Returns
    -------
    list of CaseGroup
        Groups sorted by their values; unknown values come last. The order of `cases` does not matter. Texts that differ
        only in capital letters are one value.
    """
    attributes = check_attributes(by)
    members: dict[tuple[_SortKey, ...], list[str]] = {}
    texts: dict[_SortKey, set[str]] = {}
    for name, case in cases:
        levels = [attribute.level_of(case) for attribute in attributes]
        key = tuple(
            _SortKey(
                attribute.name, level is None, *((0.0, UNKNOWN) if level is None else (level[0], level[1].lower()))
            )
            for attribute, level in zip(attributes, levels, strict=True)
        )
        members.setdefault(key, []).append(name)
        for part, level in zip(key, levels, strict=True):
            texts.setdefault(part, set()).add(UNKNOWN if level is None else level[1])
    groups = []
    for key in sorted(members):
        values = {part.attribute: min(texts[part]) for part in key}
        named = [
            f"{UNKNOWN} {ATTRIBUTES[part.attribute].title}" if part.is_unknown and len(key) > 1 else min(texts[part])
            for part in key
        ]
        groups.append(CaseGroup(", ".join(named), values, tuple(sorted(members[key]))))
    return groups


class _SortKey(NamedTuple):
    """Value of an attribute, by which groups are sorted; spellings that differ in capital letters are one value."""

    attribute: str
    is_unknown: bool
    number: float
    text: str
