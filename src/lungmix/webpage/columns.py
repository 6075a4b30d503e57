"""Columns of the table of a cohort: all measurements, with titles, units and descriptions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lungmix.kernels.data_dictionary import EXPECTED, FOLLOWUP, FOLLOWUP_REGIONS, MEASUREMENTS
from lungmix.tissue import TISSUES

Value = float | int | str

SCORE = "score"
"""Key of the radiologist's score S."""

SCANNER = "scanner"

BOTH = "both_ml"
"""Key of the volume of both lungs together, for masks that contain more than the lungs."""

FLAGS = "flags"
"""Key of the column with the names of the raised flags of quality control."""

_TITLES = {
    SCORE: "Score S",
    SCANNER: "Scanner",
    "lung_ml": "Lung (mL)",
    BOTH: "Right + left (mL)",
    FLAGS: "To look at",
    **{tissue.key: f"{tissue.name} (%)" for tissue in TISSUES},
    "lung_involvement": "Lung involvement (%)",
    "lung_involvement_corrected": "Lung involvement at the first lung volume (%)",
    **{f"{key}_lung_involvement": f"LI of {text} (%)" for key, text in FOLLOWUP_REGIONS.items() if "_" in key},
    "registration_dice": "Dice of the registered lungs",
    "registration_similarity": "Similarity of the registered lungs",
    "registration_volume_ratio": "Mean Jacobian determinant",
    "registered_lung_involvement_first": "LI of the registered lung in the first scan (%)",
    "registered_lung_involvement": "LI of the registered lung (%)",
    "mean_hu": "Mean density (HU)",
    "laa950": "LAA −950 (%)",
    "laa910": "LAA −910 (%)",
    "laa856": "LAA −856 (%)",
    "perc15": "Perc15 (HU)",
    "voxels": "Lung voxels",
    "mask": "Mask preset",
    "model": "Model of the labels",
}
_MEANINGS = {column.key: column.meaning for column in (*FOLLOWUP, *MEASUREMENTS)} | {
    BOTH: "volume of both lungs, if it differs from the mask by more than 2 %: the rest of the mask is no lung",
    FLAGS: "flags of quality control; the section To look at has the reasons",
    SCORE: "severity as scored by a radiologist: 0 none, 1 below 5 %, 2 to 25 %, 3 to 50 %, 4 to 75 %, 5 above",
    "mask": "rules of the lung mask: “paper” with sizes in voxels, as published, “physical” with sizes in mm and mL, "
    "“anatomical” lungs without trachea and with dense lung; then parameters that differ from the preset; “given” is a "
    "mask from a file, another name the segmenter that made the mask",
    "model": "mixture of the labels, with its digest: “paper” is the fit as published, “converged” the fit at the "
    "maximum of the likelihood, “anchored” the fit under a prior, “published” the mixture of the publication, “given” "
    "a mixture from a file",
}
_FIRST = (
    SCORE, "lung_ml", BOTH, "lung_involvement", *(tissue.key for tissue in TISSUES), "mean_hu", "laa950", "perc15",
    FLAGS, SCANNER,
)  # fmt: skip
_UNITS = {"ml": "mL", "hu": "HU", "g": "g", "mm": "mm", "mm3": "mm³", "percent": "%", "pct": "%"}
_WORDS = {"ggo": "GGO", "hu": "HU", "li": "LI", "sd": "SD"}
_RANGES = (
    (re.compile(r"(?:^|(?<=_))laa(\d+)"), r"LAA −\1 (%)"),
    (re.compile(r"(?:^|(?<=_))haa_above_(\d+)"), r"HAA above −\1 (%)"),
    (re.compile(r"(?:^|(?<=_))haa_(\d+)_(\d+)"), r"HAA −\1 to −\2 (%)"),
    (re.compile(r"(?:^|(?<=_))aerated_(\d+)_(\d+)"), r"Aerated −\1 to −\2 (%)"),
)
"""Patterns of columns with percentages of voxels between HU values, and their titles."""

_PROPER_NAMES = ("LAA", "Perc15")


@dataclass(frozen=True)
class Column:
    """Column of the table of a cohort.

    Attributes
    ----------
    key : str
        Name of the column in ``measurements.csv``, or one of the names above.
    title : str
        Title with the unit.
    meaning : str
        Description for a tooltip; may be empty.
    digits : int
        Number of decimals.
    numeric : bool
        True if all values are numbers.
    first : bool
        True if the column is visible at first; other columns are shown on demand.
    """

    key: str
    title: str
    meaning: str
    digits: int
    numeric: bool
    first: bool

    def text(self, row: Mapping[str, Value]) -> str:
        """Return the formatted value of this column in a row; empty if the value is missing."""
        value = row.get(self.key, "")
        if not isinstance(value, float | int):
            return str(value)
        return f"{value:,.{self.digits}f}".replace("-", "−") if math.isfinite(value) else ""

    def sort_key(self, row: Mapping[str, Value]) -> str:
        """Return the unrounded value of this column in a row as text, for sorting; empty if the value is missing."""
        value = row.get(self.key, "")
        return repr(float(value)) if isinstance(value, float | int) and math.isfinite(value) else ""


def columns_of(rows: Sequence[Mapping[str, Value]]) -> list[Column]:
    """Return the columns of rows, without the name of the case: first the columns that are visible at first."""
    present = dict.fromkeys(key for row in rows for key in row if key != "case")
    keys = [key for key in _FIRST if key in present] + [key for key in present if key not in _FIRST]
    out = []
    for key in keys:
        values = [row[key] for row in rows if key in row and row[key] != ""]
        numbers = [v for v in values if isinstance(v, float | int)]
        title = title_of(key)
        numeric = len(numbers) == len(values)
        meaning = _MEANINGS.get(key, "")
        out.append(Column(key, title, meaning, _digits(title, numbers), numeric, key in _FIRST))
    if out and not any(column.first for column in out):
        out = [replace(column, first=True) for column in out]
    return out


def title_of(key: str) -> str:
    """Return the title of a column: the words of its key, with the unit in parentheses.

    >>> title_of("left_ggo_ml"), title_of("lung_mass_g"), title_of("perc15"), title_of("left_haa_600_250")
    ('Left GGO (mL)', 'Lung mass (g)', 'Perc15 (HU)', 'Left HAA −600 to −250 (%)')
    >>> title_of("ggo_ml_expected"), title_of("left_lung_involvement_expected")
    ('Expected GGO (mL)', 'Expected left lung involvement (%)')
    """
    if key in _TITLES:
        return _TITLES[key]
    if (by_label := key.removesuffix(EXPECTED)) != key:
        title = title_of(by_label)
        keeps_case = title[1:2].isupper() or title.startswith(_PROPER_NAMES)
        return f"Expected {title if keeps_case else title[:1].lower() + title[1:]}"
    for side in ("right", "left"):
        if (measure := key.removeprefix(f"{side}_")) != key and measure in _TITLES:
            title = _TITLES[measure]
            return f"{side.capitalize()} {title if title.startswith(_PROPER_NAMES) else title[:1].lower() + title[1:]}"
    for pattern, title in _RANGES:
        if pattern.search(key):
            text = pattern.sub(title, key).replace("_", " ")
            return text[:1].upper() + text[1:]
    *words, last = key.split("_")
    unit = _UNITS.get(last.lower()) if words else None
    text = " ".join(_WORDS.get(w.lower(), w) for w in (words if unit else [*words, last]))
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
