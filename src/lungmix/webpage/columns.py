"""Columns of the table of a cohort: whatever was measured, with titles and units for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lungmix.tissue import TISSUES

Value = float | int | str

SCORE = "score"
"""Key of the radiologist's score S."""

SCANNER = "scanner"

_KNOWN = {
    SCORE: "Score S",
    SCANNER: "Scanner",
    "lung_ml": "Lung (mL)",
    **{tissue.key: f"{tissue.name} (%)" for tissue in TISSUES},
    "lung_involvement": "Lung involvement (%)",
    "mean_hu": "Mean density (HU)",
    "laa950": "LAA −950 (%)",
    "laa910": "LAA −910 (%)",
    "laa856": "LAA −856 (%)",
    "perc15": "Perc15 (HU)",
    "voxels": "Lung voxels",
    "mask": "Mask",
    "model": "Labels by",
}
_FIRST = (
    SCORE, "lung_ml", "lung_involvement", *(tissue.key for tissue in TISSUES), "mean_hu", "laa950", "perc15", SCANNER,
)  # fmt: skip
_UNITS = {"ml": "mL", "hu": "HU", "g": "g", "mm": "mm", "mm3": "mm³", "percent": "%", "pct": "%"}
_WORDS = {"ggo": "GGO", "hu": "HU", "li": "LI", "sd": "SD"}
_RANGES = (
    (re.compile(r"(?:^|(?<=_))laa(\d+)"), r"LAA −\1 (%)"),
    (re.compile(r"(?:^|(?<=_))haa_above_(\d+)"), r"HAA above −\1 (%)"),
    (re.compile(r"(?:^|(?<=_))haa_(\d+)_(\d+)"), r"HAA −\1 to −\2 (%)"),
    (re.compile(r"(?:^|(?<=_))aerated_(\d+)_(\d+)"), r"Aerated −\1 to −\2 (%)"),
)
"""Shares of voxels between HU values."""

_NAMES = ("LAA", "Perc15")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    key : str
        Its name in ``measurements.csv``.
    title : str
        For people, with the unit.
    digits : int
        After the point.
    numeric : bool
        Whether all its values are numbers.
    first : bool
        Shown at once; the others are shown on demand.
    """

    key: str
    title: str
    digits: int
    numeric: bool
    first: bool

    def text(self, row: Mapping[str, Value]) -> str:
        """The value of a row for people; empty where there is none."""
        value = row.get(self.key, "")
        if not isinstance(value, float | int):
            return str(value)
        return f"{value:,.{self.digits}f}".replace("-", "−") if math.isfinite(value) else ""

    def sort_key(self, row: Mapping[str, Value]) -> str:
        """The value of a row for the order of a numeric column; empty where there is none."""
        value = row.get(self.key, "")
        return repr(float(value)) if isinstance(value, float | int) and math.isfinite(value) else ""


def columns_of(rows: Sequence[Mapping[str, Value]]) -> list[Column]:
    """The columns of rows: the best known first, then the others as they come, all but the name of the case."""
    present = dict.fromkeys(key for row in rows for key in row if key != "case")
    keys = [key for key in _FIRST if key in present] + [key for key in present if key not in _FIRST]
    out = []
    for key in keys:
        values = [row[key] for row in rows if key in row and row[key] != ""]
        numbers = [v for v in values if isinstance(v, float | int)]
        title = title_of(key)
        numeric = len(numbers) == len(values)
        out.append(Column(key, title, _digits(title, numbers), numeric, key in _FIRST))
    if out and not any(column.first for column in out):
        out = [Column(c.key, c.title, c.digits, c.numeric, True) for c in out]
    return out


def title_of(key: str) -> str:
    """A key in words, with its unit in brackets where it ends in one.

    >>> title_of("left_ggo_ml"), title_of("lung_mass_g"), title_of("perc15"), title_of("left_haa_600_250")
    ('Left GGO (mL)', 'Lung mass (g)', 'Perc15 (HU)', 'Left HAA −600 to −250 (%)')
    """
    if key in _KNOWN:
        return _KNOWN[key]
    for side in ("right", "left"):
        if (own := key.removeprefix(f"{side}_")) != key and own in _KNOWN:
            title = _KNOWN[own]
            return f"{side.capitalize()} {title if title.startswith(_NAMES) else title[:1].lower() + title[1:]}"
    for pattern, title in _RANGES:
        if pattern.search(key):
            text = pattern.sub(title, key).replace("_", " ")
            return text[:1].upper() + text[1:]
    *words, last = key.split("_")
    unit = _UNITS.get(last.lower()) if words else None
    shown = [_WORDS.get(w.lower(), w) for w in (words if unit else [*words, last])]
    text = " ".join(shown)
    return text[:1].upper() + text[1:] + (f" ({unit})" if unit else "")


def _digits(title: str, values: Sequence[float]) -> int:
    for unit, digits in (("(%)", 2), ("(HU)", 1)):
        if title.endswith(unit):
            return digits
    finite = [abs(v) for v in values if math.isfinite(v)]
    if not finite or all(float(v).is_integer() for v in finite):
        return 0
    largest = max(finite)
    return next((digits for limit, digits in ((1000, 0), (100, 1), (1, 2), (0.01, 4)) if largest >= limit), 6)
