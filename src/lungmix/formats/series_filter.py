"""Which CT series are used, and what is accepted in them: what a user can choose."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from lungmix.errors import UsageError

NUMBERS = ("thickness", "spacing", "slices", "number", "kvp")
TEXTS = ("kernel", "manufacturer", "model", "orientation", "type")
ALL, THINNEST = "all", "thinnest"

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"\s*([a-z]+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*")


@dataclass(frozen=True)
class Condition:
    """One comparison of an attribute of a series with a value.

    Attributes
    ----------
    name : str
        One of `NUMBERS` or `TEXTS`.
    sign : str
        ``=``, ``!=``, and for numbers ``<``, ``<=``, ``>``, ``>=``.
    value : str
        A number, or a text in which ``*`` stands for any characters; upper and lower case are the same.
    """

    name: str
    sign: str
    value: str

    def holds(self, of: Mapping[str, Any]) -> bool:
        """Whether it holds; never where the series does not say."""
        found = of.get(self.name)
        if found is None or found == "":
            return False
        if self.name in NUMBERS:
            number = float(self.value)
            # What is written with two digits means what it says.
            near = abs(float(found) - number) < 5e-3
            return near if self.sign == "=" else not near if self.sign == "!=" else self._ordered(float(found), number)
        alike = fnmatchcase(str(found).lower(), self.value.lower())
        return alike == (self.sign == "=")

    def _ordered(self, found: float, number: float) -> bool:
        near = abs(found - number) < 5e-3
        return near if near and "=" in self.sign else _OPERATORS[self.sign](found, number) and not near

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value}"


@dataclass(frozen=True)
class SeriesFilter:
    """How the series of a DICOM source are chosen and what is accepted in them.

    Attributes
    ----------
    filter : str
        Conditions with commas between them, all of which a series has to meet, such as ``kernel=B70*,thickness<=1.5``;
        and ``all``, which uses every CT series, or ``thinnest`` (the default), which uses the thinnest axial one of
        several reconstructions of one acquisition.
    allow_gaps : bool
        Interpolate missing and unevenly spaced slices, and do without damaged ones.
    trust_positions : bool
        Believe the positions of slices where other attributes contradict them.
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

    def unmet(self, of: Mapping[str, Any]) -> Condition | None:
        """The first condition that a series does not meet; `of` holds its attributes by the names of conditions."""
        return next((condition for condition in self.conditions if not condition.holds(of)), None)


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    names = f"{', '.join((*NUMBERS, *TEXTS))}"
    if found is None or found[1] not in (*NUMBERS, *TEXTS):
        raise UsageError(
            f"--series-filter {text!r} is not understood: write all, thinnest, or conditions such as "
            f"kernel=B70*,thickness<=1.5; names are {names}"
        )
    name, sign, value = found.groups()
    if name in NUMBERS:
        try:
            float(value)
        except ValueError:
            raise UsageError(f"--series-filter {text!r} needs a number after {sign}") from None
    elif sign not in ("=", "!="):
        raise UsageError(f"--series-filter {text!r} compares a text: write {name}= or {name}!=, * stands for anything")
    return Condition(name, sign, value)
