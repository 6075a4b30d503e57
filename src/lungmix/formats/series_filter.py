"""Selection of CT series by the user, and irregularities that are accepted in them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from lungmix.errors import UsageError

NUMBERS = ("thickness", "spacing", "slices", "number", "kvp")
"""Attributes of a series that are compared as numbers; thickness and spacing are in mm."""

TEXTS = ("kernel", "manufacturer", "model", "orientation", "type")
"""Attributes of a series that are compared as texts."""

ALL, THINNEST = "all", "thinnest"

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([a-z]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True)
class Condition:
    """Comparison of an attribute of a series with a value.

    Attributes
    ----------
    name : str
        Name of the attribute, one of `NUMBERS` or `TEXTS`.
    sign : str
        Operator: ``=``, ``!=``, and for numbers ``<``, ``<=``, ``>``, ``>=``.
    value : str
        Number, or text in which ``*`` matches any characters; case is ignored.
    """

    name: str
    sign: str
    value: str

    def holds(self, attributes: Mapping[str, Any]) -> bool:
        """Return True where a series meets the condition; False where it lacks the attribute."""
        attribute = attributes.get(self.name)
        if attribute is None or attribute == "":
            return False
        if self.name in NUMBERS:
            # Numbers are compared to two decimals.
            difference = float(attribute) - float(self.value)
            return _OPERATORS[self.sign](0.0 if abs(difference) < 5e-3 else difference, 0.0)
        matches = fnmatchcase(str(attribute).lower(), self.value.lower())
        return matches == (self.sign == "=")

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value}"


@dataclass(frozen=True)
class SeriesFilter:
    """Selection of the series of a DICOM source, and irregularities that are accepted.

    Attributes
    ----------
    filter : str
        Comma-separated conditions that a series must all meet, such as ``kernel=B70*,thickness<=1.5``. ``all`` uses
        every CT series; ``thinnest`` (the default) uses, of all reconstructions of an acquisition, the thinnest axial
        one.
    allow_gaps : bool
        True to interpolate missing and unevenly spaced slices, and to omit corrupt ones.
    trust_positions : bool
        True to use the positions of slices where other attributes are inconsistent with them.
    conditions : tuple of Condition
        The conditions in `filter`.
    choose : bool
        False if `filter` contains ``all``.
    """

    filter: str = THINNEST
    allow_gaps: bool = False
    trust_positions: bool = False
    conditions: tuple[Condition, ...] = field(init=False, default=())
    choose: bool = field(init=False, default=True)

    def __post_init__(self) -> None:
        words = [word.strip() for word in self.filter.split(",") if word.strip()]
        conditions = tuple(_condition(word) for word in words if word.lower() not in (ALL, THINNEST))
        object.__setattr__(self, "conditions", conditions)
        object.__setattr__(self, "choose", ALL not in [word.lower() for word in words])

    def unmet(self, attributes: Mapping[str, Any]) -> Condition | None:
        """Return the first condition that a series with these attributes does not meet; None if it meets all."""
        return next((condition for condition in self.conditions if not condition.holds(attributes)), None)


def _condition(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    names = f"{', '.join((*NUMBERS, *TEXTS))}"
    if match is None or match[1] not in (*NUMBERS, *TEXTS):
        raise UsageError(
            f"`filter={text!r}` is not understood: write all, thinnest, or conditions such as "
            f"kernel=B70*,thickness<=1.5; names are {names}"
        )
    name, sign, value = match.groups()
    if name in NUMBERS:
        try:
            float(value)
        except ValueError:
            raise UsageError(f"`filter={text!r}` needs a number after {sign}") from None
    elif sign not in ("=", "!="):
        raise UsageError(f"`filter={text!r}` compares a text: write {name}= or {name}!=, * matches any characters")
    return Condition(name, sign, value)
