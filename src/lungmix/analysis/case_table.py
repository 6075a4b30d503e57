"""Tables of the user with further columns about cases or patients, such as sex, age or outcome."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lungmix.analysis.score_table import match_lines
from lungmix.errors import UsageError, first_of, mark_path, mark_untrusted
from lungmix.formats.tables import column_of
from lungmix.intake.user_tables import CASE_COLUMNS, PATIENT_COLUMNS, check_cells, missing_columns, read_user_table

MISSING = ("", "na", "n/a", "nan", "unknown", "?", "-", ".")
"""Texts of cells without a value, in lower case."""

Value = float | str | None


@dataclass(frozen=True)
class CaseTable:
    """Contents of a table about cases or patients.

    Attributes
    ----------
    path : Path
        The file.
    columns : tuple of str
        Names of the columns that name neither cases nor patients.
    rows : list of dict
        One dictionary per line: ``line`` (its number in the file), ``case`` or None, ``patient`` or None, and
        ``cells``, a dictionary with the text of each column.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[dict[str, object]]

    def find_column(self, name: str) -> str | None:
        """Return the column of this name, in upper or lower case; None if there is none."""
        index = column_of(self.columns, (name.strip().lower(),))
        return None if index is None else self.columns[index]


@dataclass(frozen=True)
class JoinedTable:
    """Lines of a table by case.

    Attributes
    ----------
    cells : dict of str to dict of str to str
        Text of each column, by case.
    patients : dict of str to str
        Patient of each case whose line names one.
    unmatched : tuple of str
        Lines that name no case, with the names marked (`lungmix.errors.mark_untrusted`).
    """

    cells: dict[str, dict[str, str]]
    patients: dict[str, str]
    unmatched: tuple[str, ...]


def read_case_table(path: str | Path) -> CaseTable:
    """Read a CSV file with a column ``case`` or ``patient`` or both, and any further columns.

    Separators may be commas, semicolons or tabs, and names of columns may be in upper or lower case; see
    `lungmix.formats.tables`. A line with a case is about this case, a line with a patient only about all cases of the
    patient.

    Raises
    ------
    UsageError
        If the file is missing or not such a table; the message names the first invalid line.
    """
    file = Path(path)
    example = "a header such as case,sex,age and one line per case"
    header, lines = read_user_table(file, (*CASE_COLUMNS, *PATIENT_COLUMNS), "cases", example)
    case_column, patient_column = column_of(header, CASE_COLUMNS), column_of(header, PATIENT_COLUMNS)
    if case_column is None and patient_column is None:
        raise missing_columns(file, header, "case or patient")
    check_cells(file, header, lines)
    named = {case_column, patient_column}
    columns = [(index, title) for index, title in enumerate(header) if index not in named and title]
    titles = [title.lower() for _, title in columns]
    repeated = next((title for index, title in enumerate(titles) if title in titles[:index]), None)
    if repeated is not None:
        raise UsageError(f"{mark_path(file)} has two columns {mark_untrusted(repeated)}: rename or delete one of them")
    rows: list[dict[str, object]] = []
    line_of: dict[tuple[bool, str], int] = {}
    for number, cells in lines:
        case, patient = ("" if column is None else cells[column] for column in (case_column, patient_column))
        name = case or patient
        if not name:
            raise UsageError(
                f"{mark_path(file)}, line {number}: no case or patient is named: fill it in or delete the line"
            )
        key = bool(case), name.lower()
        if key in line_of:
            raise UsageError(
                f"{mark_path(file)}, line {number}: {mark_untrusted(name)} is in line {line_of[key]} already: keep one "
                "of the two lines"
            )
        line_of[key] = number
        texts = {title: cells[index] for index, title in columns}
        rows.append({"line": number, "case": case or None, "patient": patient or None, "cells": texts})
    return CaseTable(file, tuple(title for _, title in columns), rows)


def join_table(
    names: Sequence[str], table: CaseTable, key: Mapping[str, Mapping[str, str]] | None = None
) -> JoinedTable:
    """Return the lines of a table by case.

    Parameters
    ----------
    names : sequence of str
        Names of the cases.
    table : CaseTable
        The table.
    key : mapping, optional
        Rows of a key table by case. With them, a line may name a file, a folder, or a patient's ID or name.

    Raises
    ------
    UsageError
        If no line names a case.
    """
    matches = match_lines([{"case": name} for name in names], table.rows, key)
    if not matches:
        named = [mark_untrusted(row["case"] or row["patient"]) for row in table.rows]
        raise UsageError(
            f"{mark_path(table.path)} names no measured case: it names {first_of(named)}, and the cohort has "
            f"{first_of(names) if names else 'no measured case; run `Pipeline.measure()` first'}"
        )
    used = {id(row) for row, _ in matches.values()}
    return JoinedTable(
        cells={name: dict(row["cells"]) for name, (row, _) in matches.items()},
        patients={name: patient for name, (row, patient) in matches.items() if row["patient"] or key is not None},
        unmatched=tuple(
            f"line {row['line']} ({mark_untrusted(row['case'] or row['patient'])})"
            for row in table.rows
            if id(row) not in used
        ),
    )


def parse_column(texts: Iterable[tuple[str, str]]) -> tuple[dict[str, Value], bool]:
    """Return the values of a column by case, and True if all of them are numbers.

    Parameters
    ----------
    texts : iterable of (str, str)
        Case and text of each cell. Cells that hold one of `MISSING` have no value. A comma may be the decimal point.
    """
    texts_of_cases = {name: None if text.strip().lower() in MISSING else text.strip() for name, text in texts}
    numbers = {name: None if text is None else _number(text) for name, text in texts_of_cases.items()}
    if all(number is not None for name, number in numbers.items() if texts_of_cases[name] is not None):
        return dict(numbers), True
    # Spellings that differ in capital letters are one value.
    spellings: dict[str, str] = {}
    for text in sorted(text for text in texts_of_cases.values() if text is not None):
        spellings.setdefault(text.lower(), text)
    return {name: None if text is None else spellings[text.lower()] for name, text in texts_of_cases.items()}, False


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
