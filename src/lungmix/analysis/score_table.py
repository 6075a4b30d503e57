"""Tables of radiologists' scores: read them, and join them to the measurements of a cohort."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungmix.analysis.consensus import MEDIAN, Reading, check_rule, consensus_of, readings_of
from lungmix.errors import UsageError, first_of, mark_path, mark_untrusted
from lungmix.formats.tables import column_of
from lungmix.intake.user_tables import (
    CASE_COLUMNS,
    PATIENT_COLUMNS,
    check_cells,
    file_names,
    missing_columns,
    patient_names,
    plain_name,
    read_user_table,
)
from lungmix.kernels.severity import HIGHEST, LOWEST
from lungmix.store import Cohort
from lungmix.store.patients import PatientScan, patients_of

_SCORE = ("s", "score")
_COLUMNS = {
    "case": CASE_COLUMNS, "patient": PATIENT_COLUMNS, "score": _SCORE,
    "reader": ("reader", "rater", "radiologist", "observer"), "time": ("time", "reading", "session"),
}  # fmt: skip
_READER_COLUMN = re.compile(r"(?:s|score)[\s_:.-]+(\S.*)", re.IGNORECASE)
"""Column with the scores of one of several readers."""
TOTALS = ("24", "25")
"""Ends of the names of columns with totals of 24 and 25 points, which are no readers."""
_ONLY_READER = "time"
"""Name of the reader of a table with times and without names of readers."""


@dataclass(frozen=True)
class Scores:
    """Contents of a table of scores.

    Attributes
    ----------
    path : Path
        The file.
    rows : list of dict
        One dictionary per score: ``line`` (its number in the file), ``case`` or None, ``patient`` or None, ``score``,
        ``reading`` (see `readings`; None for one reader), and ``further``, a dictionary with the other columns as text.
    readings : list of Reading
        Readings of a table with several readers or times; empty for one reader.
    """

    path: Path
    rows: list[dict[str, Any]]
    readings: list[Reading] = field(default_factory=list)


def read_scores(path: str | Path) -> Scores:
    """Read a CSV file with scores.

    It has a column ``case`` or ``patient`` or both, a column ``S`` or ``score``, and any other columns. Separators may
    be commas, semicolons or tabs, and names of columns may be in upper or lower case; see `lungmix.formats.tables`.

    Scores of several readers are in several lines of a case, with a column ``reader`` or ``time`` or both, or in
    several columns, such as ``S_anna`` and ``S_ben``, in place of one. A line without a score in one of these columns
    has no score of this reader.

    Raises
    ------
    UsageError
        If the file is missing or not such a table, or a score is not a whole number from 0 to 5.
    """
    file = Path(path)
    header, lines = read_user_table(
        file, (*CASE_COLUMNS, *PATIENT_COLUMNS, *_SCORE), "scores", "a header such as case,S and one line per scan"
    )
    columns = {name: column_of(header, names) for name, names in _COLUMNS.items()}
    score_columns = _score_columns(header, columns["score"])
    if not score_columns or (columns["case"] is None and columns["patient"] is None):
        raise missing_columns(file, header, "case or patient, and S or score,")
    check_cells(file, header, lines)

    def cell_of(cells: Sequence[str], name: str) -> str:
        column = columns[name]
        return "" if column is None else cells[column]

    names = [(bool(cell_of(cells, "case")), (cell_of(cells, "case") or cell_of(cells, "patient")).lower())
             for _, cells in lines]  # fmt: skip
    is_wide = columns["score"] is None
    has_readers = columns["reader"] is not None or columns["time"] is not None
    has_readings = is_wide or (has_readers and len(set(names)) < len(names))
    used = {*score_columns, columns["case"], columns["patient"]}
    used |= {columns["reader"], columns["time"]} if has_readings and not is_wide else set()
    rows: list[dict[str, Any]] = []
    line_of: dict[tuple[Any, ...], int] = {}
    for (number, cells), name_key in zip(lines, names, strict=True):
        position = f"{mark_path(file)}, line {number}"
        case, patient = cell_of(cells, "case"), cell_of(cells, "patient")
        name = case or patient
        if not name:
            raise UsageError(f"{position}: no case or patient is named: fill it in or delete the line")
        further = {title: cell for n, (title, cell) in enumerate(zip(header, cells, strict=True)) if n not in used}
        for column, title in score_columns.items():
            if is_wide and not cells[column]:
                continue
            reading = None
            if has_readings:
                alone = _ONLY_READER if columns["reader"] is None else ""
                reader = title if is_wide else cell_of(cells, "reader") or alone
                if not reader:
                    raise UsageError(f"{position}: no reader is named: fill it in or delete the line")
                # The time of a line that names a patient may be that of a scan.
                reading = (reader, "" if is_wide or not case else cell_of(cells, "time"))
            key = (*name_key, *(text.lower() for text in reading or ()))
            if key in line_of:
                remedy = (
                    "give the readings of a reader different times"
                    if has_readings and case
                    else "name the case of each scan in a column case, or each reader in a column reader"
                )
                raise UsageError(
                    f"{position}: {mark_untrusted(name)} has a score in line {line_of[key]} already: keep one of the "
                    f"two lines, or {remedy}"
                )
            line_of[key] = number
            score = _score(cells[column], name, position)
            scored = {"case": case or None, "patient": patient or None, "score": score, "reading": reading}
            rows.append({"line": number, **scored, "further": further})
    readings = readings_of([row["reading"] for row in rows]) if has_readings else {}
    for row in rows:
        if row["reading"] is not None:
            row["reading"] = readings[tuple(text.lower() for text in row["reading"])]
    return Scores(file, rows, list(readings.values()))


def scores_of_cases(
    measurements: Sequence[Mapping[str, Any]], path: str | Path, key: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, int]:
    """Return the score of each measured case that has one in a table of scores; see `read_scores`, `join_scores`."""
    rows, _, _ = join_scores(measurements, read_scores(path), key)
    return {str(row["case"]): int(row["score"]) for row in rows}


def readings_in_results(scores: Scores, key: Mapping[str, Mapping[str, str]] | None = None) -> list[Reading]:
    """Return the readings as results name them: with a key table, readers have numbers in place of names."""
    if key is None:
        return scores.readings
    # The readings of a reader follow each other, the first reading first.
    readings: list[Reading] = []
    reader, time = 0, 0
    for reading in scores.readings:
        reader, time = (reader + 1, 1) if reading.is_first else (reader, time + 1)
        name = f"reader-{reader}"
        readings.append(Reading(name if time == 1 else f"{name} time-{time}", name, reading.is_first))
    return readings


def consensus_in_results(scores: Scores, consensus: str, key: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Return the rule of the consensus as results name it: with a key table, a reader has a number."""
    named = check_rule(consensus, scores.readings)
    if named is None:
        return consensus.lower()
    return readings_in_results(scores, key)[scores.readings.index(named)].label


def join_scores(
    measurements: Sequence[Mapping[str, Any]],
    scores: Scores,
    key: Mapping[str, Mapping[str, str]] | None = None,
    consensus: str = MEDIAN,
    recorded: Mapping[str, Sequence[PatientScan]] | None = None,
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Join measured scans with their scores.

    A line that names a case is the score of this scan. A line that names only a patient is the score of all scans of
    the patient without a line of their own. These are the case with the patient's name, and follow-up scans, whose
    names continue with ``-``, ``_`` or ``.``, such as ``p07`` and ``p07-2``. With several readers, this holds for the
    lines of each reading.

    Parameters
    ----------
    measurements : sequence of mapping
        Rows of ``measurements.csv``.
    scores : Scores
        Scores of the same cohort.
    key : mapping, optional
        Rows of a key table by case. With a key table, a line may name a file, a folder, or a patient's ID or name
        instead of a case. The result contains none of these names: patients and readers are numbered, other columns
        are dropped.
    consensus : str
        Rule by which several readers have one score: ``median``, ``majority``, or the name of a reader; see
        `lungmix.analysis.consensus`.
    recorded : mapping, optional
        Patients that the store records, with their scans from the first to the last, see
        `lungmix.store.patients.patients_of`. They count for cases of which neither a line nor the key table says the
        patient.

    Returns
    -------
    rows : list of dict
        One row per scored case, in the order of case names, and of the scans of recorded patients: ``case``,
        ``patient``, ``score``, ``lung_involvement``, the
        scores of several readings in columns such as ``score_anna``, and the other columns of the table.
    unscored, unmeasured : list of str
        Cases without a score; and lines whose names belong to no measured case, with the names marked
        (`lungmix.errors.mark_untrusted`).

    Raises
    ------
    UsageError
        If nothing matches, no reader has the name in `consensus`, or the measurements have no lung involvement.
    """
    if measurements and "lung_involvement" not in measurements[0]:
        raise UsageError("lung involvement needs five tissues: fit five components, then label and measure")
    named = check_rule(consensus, scores.readings)
    labels = dict(zip(scores.readings, readings_in_results(scores, key), strict=True))
    matches = {
        reading: match_lines(measurements, [row for row in scores.rows if row["reading"] == reading], key)
        for reading in scores.readings or (None,)
    }
    scans = [(patient, scan.case) for patient, group in (recorded or {}).items() for scan in group]
    recorded_patients = {case: patient for patient, case in scans}
    rows: list[dict[str, Any]] = []
    unscored: list[str] = []
    used: set[int] = set()
    for measured in sorted(measurements, key=lambda row: str(row["case"])):
        name = str(measured["case"])
        rows_of_scan = {reading: match[name] for reading, match in matches.items() if name in match}
        used.update(id(row) for row, _ in rows_of_scan.values())
        given = {reading: int(row["score"]) for reading, (row, _) in rows_of_scan.items()}
        score = given.get(None) if not scores.readings else consensus_of(given, consensus, named)  # type: ignore[arg-type]
        if score is None:
            unscored.append(name)
            continue
        row, patient = next(iter(rows_of_scan.values()))
        if not row["patient"] and not patient_names(None if key is None else key.get(name)):
            patient = recorded_patients.get(name, patient)
        further = {} if key is not None else row["further"]
        columns = {f"score_{label.label}": given.get(reading) for reading, label in labels.items()}
        rows.append({
            "case": name, "patient": patient, "score": score, "lung_involvement": measured["lung_involvement"],
            **columns,
            **{title: value for title, value in further.items() if title not in ("case", "lung_involvement", *columns)},
        })  # fmt: skip
    rows = _in_order_of_scans(rows, [case for _, case in scans])
    if key is not None:
        numbers = {patient: n for n, patient in enumerate(dict.fromkeys(row["patient"] for row in rows), start=1)}
        rows = [{**row, "patient": f"patient-{numbers[row['patient']]:03d}"} for row in rows]
    unmatched = {(row["line"], row["case"] or row["patient"]): row for row in scores.rows if id(row) not in used}
    unmatched_names = [mark_untrusted(name) for _, name in unmatched]
    unmeasured = [f"line {line} ({name})" for (line, _), name in zip(unmatched, unmatched_names, strict=True)]
    if not rows and not used:
        raise UsageError(
            f"{mark_path(scores.path)} names no measured case: it names {first_of(unmatched_names)}, and the cohort "
            f"has {first_of(unscored) if unscored else 'no measured case; run `Pipeline.measure()` first'}"
        )
    return rows, unscored, unmeasured


def recorded_patients(cohort: Cohort) -> dict[str, tuple[PatientScan, ...]]:
    """Return the patients that a store records, whether or not their first scans are corrupt."""
    return patients_of(cohort, need_first=False)


def patients_of_scans(
    rows: Sequence[Mapping[str, Any]], recorded: Mapping[str, Sequence[PatientScan]]
) -> dict[str, str]:
    """Return the patient of each scored case, and of the other scans of these patients that the store records.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of `join_scores`.
    recorded : mapping
        Patients that the store records, see `lungmix.store.patients.patients_of`.
    """
    patients = {str(row["case"]): str(row["patient"]) for row in rows}
    for scans in recorded.values():
        scored = next((patients[scan.case] for scan in scans if scan.case in patients), None)
        if scored is not None:
            patients = {**{scan.case: scored for scan in scans}, **patients}
    return patients


def _in_order_of_scans(rows: Sequence[dict[str, Any]], scans: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows in the order of `scans` within each patient; a patient keeps the places of the rows in the list."""
    order = {case: position for position, case in enumerate(scans)}
    rows_of: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        rows_of.setdefault(row["patient"], []).append(row)
    sorted_rows = {
        patient: iter(sorted(group, key=lambda row: order.get(row["case"], -1))) for patient, group in rows_of.items()
    }
    return [next(sorted_rows[row["patient"]]) for row in rows]


def match_lines(
    measurements: Sequence[Mapping[str, Any]],
    score_rows: Sequence[dict[str, Any]],
    key: Mapping[str, Mapping[str, str]] | None,
) -> dict[str, tuple[dict[str, Any], str]]:
    """Return the row of scores and the patient of each measured case that one of the rows names."""
    by_case = {str(row["case"]).lower(): row for row in score_rows if row["case"]}
    by_patient = {plain_name(row["patient"]): row for row in score_rows if not row["case"]}
    matches = {}
    for measured in measurements:
        name = str(measured["case"])
        key_row = None if key is None else key.get(name)
        files, patients = file_names(key_row), patient_names(key_row)
        row = next((by_case[alias] for alias in (name.lower(), *files) if alias in by_case), None)
        if row is None:
            longest = _patient_of(name.lower(), by_patient)
            patient = next((alias for alias in (*patients, *files) if alias in by_patient), longest)
            row = None if patient is None else by_patient[patient]
        if row is not None:
            matches[name] = row, str(next(iter(patients), name) if key is not None else row["patient"] or name)
    return matches


def _score_columns(header: Sequence[str], column: int | None) -> dict[int, str]:
    """Return the columns with scores: the only one, or one for each reader, with the reader's name."""
    if column is not None:
        return {column: ""}
    matches = {n: _READER_COLUMN.fullmatch(title.strip()) for n, title in enumerate(header)}
    # Columns such as S_24 hold totals of zones or lobes, see `lungmix.analysis.severity_agreement`.
    return {n: match[1] for n, match in matches.items() if match and match[1] not in TOTALS}


def _score(text: str, name: str, position: str) -> int:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = -1.0
    if not (value.is_integer() and LOWEST <= value <= HIGHEST):
        raise UsageError(
            f"{position}: the score of {mark_untrusted(name)} is {mark_untrusted(text or 'missing')}: scores are whole "
            f"numbers from {LOWEST} to {HIGHEST}"
        )
    return int(value)


def _patient_of(case: str, patients: Mapping[str, Any]) -> str | None:
    """Return the longest patient's name that the name of a case begins with; None if there is none."""
    candidates = [name for name in patients if case == name or (case.startswith(name) and case[len(name)] in "-_.")]
    return max(candidates, key=len, default=None)
