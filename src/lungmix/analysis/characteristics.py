"""Table of the characteristics of patients and scans, by group: Table 1 of a publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from lungmix.errors import UsageError

PATIENTS, SCANS = "patients", "scans"
"""What a row of the table counts."""

COUNT, PERCENT, MEAN, MEDIAN, MISSING = "n", "n (%)", "mean ± SD", "median [quartiles]", "n missing"
"""Kinds of rows."""

SUMMARIES = ("auto", "median", "mean")
"""How numbers are summarised: `auto` by the rule of `summary_of`."""

MIN_VALUES_OF_MEAN = 20
MAX_SKEWNESS_OF_MEAN = 1.0
"""The mean is given for at least so many values, whose skewness within groups is at most this."""


@dataclass(frozen=True)
class Characteristic:
    """Characteristic of scans or patients.

    Attributes
    ----------
    key : str
        Column of ``measurements.csv``, name of an attribute, or column of the user's table.
    title : str
        Title of the rows; empty for columns of ``measurements.csv``.
    of : {"patients", "scans"}
        What has the values. A patient has the first known value of the scans of a group.
    values : mapping of str to float, str or None
        Value by case; None or NaN where it is missing.
    levels : tuple of str or None
        Texts that are counted, in this order; None for numbers.
    """

    key: str
    title: str
    of: str
    values: Mapping[str, float | str | None]
    levels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Cell:
    """Cell of the table.

    Attributes
    ----------
    n : int
        Number of patients or scans: of this level, with a value, or without a value.
    percent : float
        Percentage of those with a value; NaN except in rows ``n (%)``.
    value : float
        Mean or median; NaN in rows of counts.
    low, high : float
        Quartiles; NaN except in rows of medians.
    sd : float
        Standard deviation; NaN except in rows of means.
    """

    n: int
    percent: float = float("nan")
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    sd: float = float("nan")


@dataclass(frozen=True)
class Row:
    """Row of the table.

    Attributes
    ----------
    key, title : str
        See `Characteristic`.
    level : str
        Text that is counted; empty in other rows.
    of : {"patients", "scans"}
        What is counted or summarised.
    kind : str
        Kind of the row, such as ``n (%)``.
    digits : int
        Number of decimals of means and medians.
    cells : tuple of Cell
        All scans, then each group.
    """

    key: str
    title: str
    level: str
    of: str
    kind: str
    digits: int
    cells: tuple[Cell, ...]


def check_summary(summary: str) -> None:
    """Raise a `UsageError` if there is no such summary of numbers."""
    if summary not in SUMMARIES:
        raise UsageError(f"numbers cannot be summarised by {summary!r}: choose from {', '.join(SUMMARIES)}")


def table_rows(
    characteristics: Sequence[Characteristic],
    columns: Sequence[Sequence[str]],
    patients: Mapping[str, int],
    summary: str = "auto",
) -> list[Row]:
    """Return the rows of the table: numbers of patients and scans, then each characteristic.

    Percentages are of the patients or scans that have a value; a row counts the others if there are any.

    Parameters
    ----------
    characteristics : sequence of Characteristic
        The characteristics, in the order of the rows.
    columns : sequence of sequence of str
        Cases of each column, in the order of the scans of a patient: all cases, then those of each group.
    patients : mapping of str to int
        Number of the patient of each case.
    summary : {"auto", "median", "mean"}
        How numbers are summarised.
    """
    check_summary(summary)
    of_patients = [[patients[case] for case in cases] for cases in columns]
    several = [sum(numbers.count(patient) > 1 for patient in set(numbers)) for numbers in of_patients]
    rows = [
        Row("patients", "Patients", "", PATIENTS, COUNT, 0, tuple(Cell(len(set(n))) for n in of_patients)),
        Row("scans", "Scans", "", SCANS, COUNT, 0, tuple(Cell(len(cases)) for cases in columns)),
    ]
    if several[0]:
        title = "Patients with several scans"
        rows.append(Row("patients_with_several_scans", title, "", PATIENTS, COUNT, 0, tuple(map(Cell, several))))
    for characteristic in characteristics:
        values = [_values_of(characteristic, cases, patients) for cases in columns]
        rows += _rows_of(characteristic, values, summary)
    return rows


def summary_of(values: Sequence[Sequence[float]]) -> str:
    """Return how numbers are summarised: by mean and standard deviation, or by median and quartiles.

    The mean is given if there are 20 values or more, and the skewness of their differences from the mean of their group
    is from -1 to 1; otherwise the median. All columns of a row have the same summary.

    Parameters
    ----------
    values : sequence of sequence of float
        Values of each group.
    """
    differences = np.concatenate([np.asarray(group) - np.mean(group) for group in values if len(group)] or [[]])
    if len(differences) < MIN_VALUES_OF_MEAN or np.ptp(differences) == 0:
        return MEDIAN
    skewness = float(stats.skew(differences, bias=False))
    return MEAN if abs(skewness) <= MAX_SKEWNESS_OF_MEAN else MEDIAN


def _values_of(characteristic: Characteristic, cases: Sequence[str], patients: Mapping[str, int]) -> list[Any]:
    """Return the value of each scan, or of each patient: None where it is missing."""
    values = [_known(characteristic.values.get(case)) for case in cases]
    if characteristic.of == SCANS:
        return values
    by_patient: dict[int, float | str | None] = {}
    for case, value in zip(cases, values, strict=True):
        if by_patient.get(patients[case]) is None:
            by_patient[patients[case]] = value
    return list(by_patient.values())


def _known(value: float | str | None) -> float | str | None:
    return None if value is None or (isinstance(value, float) and not np.isfinite(value)) else value


def _rows_of(characteristic: Characteristic, values: Sequence[Sequence[Any]], summary: str) -> list[Row]:
    present = [[value for value in column if value is not None] for column in values]

    def row(level: str, kind: str, cells: Sequence[Cell], digits: int = 0) -> Row:
        return Row(
            characteristic.key, characteristic.title, level, characteristic.of, kind, digits, tuple(cells)
        )  # fmt: skip

    if characteristic.levels is None:
        chosen = {"mean": MEAN, "median": MEDIAN}.get(summary) or summary_of(present[1:] or present)
        digits = _digits(characteristic, np.array(present[0], np.float64))
        rows = [row("", chosen, [_summary(np.array(column, np.float64), chosen) for column in present], digits)]
    else:
        rows = [
            row(level, PERCENT, [_count(column, level) for column in present])
            for level in characteristic.levels
            if any(level in column for column in present)
        ]
    missing = [len(column) - len(with_value) for column, with_value in zip(values, present, strict=True)]
    if any(missing):
        rows.append(row("", MISSING, list(map(Cell, missing))))
    return rows


def _count(values: Sequence[Any], level: str) -> Cell:
    n = sum(value == level for value in values)
    return Cell(n, percent=100 * n / len(values) if values else float("nan"))


def _summary(values: npt.NDArray[np.float64], kind: str) -> Cell:
    if not len(values):
        return Cell(0)
    if kind == MEAN:
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return Cell(len(values), value=float(values.mean()), sd=sd)
    low, median, high = np.percentile(values, [25, 50, 75])
    return Cell(len(values), value=float(median), low=float(low), high=float(high))


def _digits(characteristic: Characteristic, values: npt.NDArray[np.float64]) -> int:
    """Return the number of decimals: none for volumes and whole numbers, else by the size of the values."""
    if not len(values) or np.all(values == np.round(values)) or characteristic.key.endswith("_ml"):
        return 0
    largest = float(np.abs(values).max())
    return 1 if largest >= 10 else 2 if largest >= 1 else 3
