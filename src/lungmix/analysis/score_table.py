"""Tables of radiologists' scores: read them, and join them to the measurements of a cohort."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from lungmix.errors import UsageError, first_of, mark_path, mark_untrusted
from lungmix.formats.images import KINDS
from lungmix.formats.tables import column_of, rows_of, text_of
from lungmix.kernels.severity import HIGHEST, LOWEST

_CASE = ("case", "scan")
_PATIENT = ("patient", "patient_id", "patientid")
_SCORE = ("s", "score")
_EXTENSIONS = (*sorted(KINDS, key=len, reverse=True), ".zip", ".tar.gz", ".tar")


@dataclass(frozen=True)
class Scores:
    """Contents of a table of scores.

    Attributes
    ----------
    path : Path
        The file.
    rows : list of dict
        One dictionary per line: ``line`` (its number in the file), ``case`` or None, ``patient`` or None, ``score``,
        and ``further``, a dictionary with the other columns as text.
    """

    path: Path
    rows: list[dict[str, Any]]


def read_scores(path: str | Path) -> Scores:
    """Read a CSV file with scores.

    It has a column ``case`` or ``patient`` or both, a column ``S`` or ``score``, and any other columns. Separators may
    be commas, semicolons or tabs, and names of columns may be in upper or lower case; see `lungmix.formats.tables`.

    Raises
    ------
    UsageError
        If the file is missing or not such a table, or a score is not a whole number from 0 to 5.
    """
    file = Path(path)
    try:
        lines = rows_of(text_of(file.read_bytes()), (*_CASE, *_PATIENT, *_SCORE))
    except OSError as error:
        raise UsageError(
            f"{mark_path(file)} cannot be read ({error.strerror}): give the CSV file of the scores"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{mark_path(file)} is not text in UTF-8 or UTF-16: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{mark_path(file)} is not a valid CSV table: check its quotes") from error
    table = [(number, [cell.strip() for cell in cells]) for number, cells in lines]
    if len(table) < 2:
        raise UsageError(f"{mark_path(file)} holds no scores: it needs a header such as case,S and one line per scan")
    header = table[0][1]
    columns = {
        name: column_of(header, names) for name, names in (("case", _CASE), ("patient", _PATIENT), ("score", _SCORE))
    }
    if columns["score"] is None or (columns["case"] is None and columns["patient"] is None):
        raise UsageError(
            f"{mark_path(file)} has the columns {mark_untrusted(', '.join(header))}: it needs case or patient, and S "
            "or score, in its first line"
        )
    rows: list[dict[str, Any]] = []
    line_of: dict[tuple[bool, str], int] = {}
    for number, cells in table[1:]:
        position = f"{mark_path(file)}, line {number}"
        if len(cells) != len(header):
            raise UsageError(f"{position}: {len(cells)} cells in a table of {len(header)} columns: correct this line")
        case, patient, score = ("" if column is None else cells[column] for column in columns.values())
        name = case or patient
        if not name:
            raise UsageError(f"{position}: no case or patient is named: fill it in or delete the line")
        first = line_of.setdefault((bool(case), name.lower()), number)
        if first != number:
            raise UsageError(
                f"{position}: {mark_untrusted(name)} has a score in line {first} already: keep one of the two lines, "
                "or name the case of each scan in a column case"
            )
        pairs = enumerate(zip(header, cells, strict=True))
        further = {title: cell for n, (title, cell) in pairs if n not in columns.values()}
        scored = {"case": case or None, "patient": patient or None, "score": _score(score, name, position)}
        rows.append({"line": number, **scored, "further": further})
    return Scores(file, rows)


def scores_of_cases(
    measurements: Sequence[Mapping[str, Any]], path: str | Path, key: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, int]:
    """Return the score of each measured case that has one in a table of scores; see `read_scores`, `join_scores`."""
    rows, _, _ = join_scores(measurements, read_scores(path), key)
    return {str(row["case"]): int(row["score"]) for row in rows}


def join_scores(
    measurements: Sequence[Mapping[str, Any]], scores: Scores, key: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Join measured scans with their scores.

    A line that names a case is the score of this scan. A line that names only a patient is the score of all scans of
    the patient without a line of their own. These are the case with the patient's name, and follow-up scans, whose
    names continue with ``-``, ``_`` or ``.``, such as ``p07`` and ``p07-2``.

    Parameters
    ----------
    measurements : sequence of mapping
        Rows of ``measurements.csv``.
    scores : Scores
        Scores of the same cohort.
    key : mapping, optional
        Rows of a key table by case. With a key table, a line may name a file, a folder, or a patient's ID or name
        instead of a case. The result contains none of these names: patients are numbered, other columns are dropped.

    Returns
    -------
    rows : list of dict
        One row per scored case, in the order of case names: ``case``, ``patient``, ``score``, ``lung_involvement`` and
        the other columns of the table.
    unscored, unmeasured : list of str
        Cases without a score; and lines whose names belong to no measured case, with the names marked
        (`lungmix.errors.mark_untrusted`).

    Raises
    ------
    UsageError
        If nothing matches, or the measurements have no lung involvement.
    """
    if measurements and "lung_involvement" not in measurements[0]:
        raise UsageError("lung involvement needs five tissues: fit five components, then label and measure")
    by_case = {str(row["case"]).lower(): row for row in scores.rows if row["case"]}
    by_patient = {_plain(row["patient"]): row for row in scores.rows if not row["case"]}
    rows, unscored, used = [], [], set()
    for measured in sorted(measurements, key=lambda row: str(row["case"])):
        name = str(measured["case"])
        key_row = None if key is None else key.get(name)
        files, patients = _file_names(key_row), _patient_names(key_row)
        row = next((by_case[alias] for alias in (name.lower(), *files) if alias in by_case), None)
        if row is None:
            longest = _patient_of(name.lower(), by_patient)
            patient = next((alias for alias in (*patients, *files) if alias in by_patient), longest)
            row = None if patient is None else by_patient[patient]
        if row is None:
            unscored.append(name)
            continue
        used.add(id(row))
        patient = next(iter(patients), name) if key is not None else row["patient"] or name
        further = {} if key is not None else row["further"]
        rows.append({
            "case": name, "patient": patient, "score": row["score"], "lung_involvement": measured["lung_involvement"],
            **{title: value for title, value in further.items() if title not in ("case", "lung_involvement")},
        })  # fmt: skip
    if key is not None:
        numbers = {patient: n for n, patient in enumerate(dict.fromkeys(row["patient"] for row in rows), start=1)}
        rows = [{**row, "patient": f"patient-{numbers[row['patient']]:03d}"} for row in rows]
    unmatched = [row for row in scores.rows if id(row) not in used]
    unmatched_names = [mark_untrusted(row["case"] or row["patient"]) for row in unmatched]
    unmeasured = [f"line {row['line']} ({name})" for row, name in zip(unmatched, unmatched_names, strict=True)]
    if not rows:
        raise UsageError(
            f"{mark_path(scores.path)} names no measured case: it names {first_of(unmatched_names)}, and the cohort "
            f"has {first_of(unscored) if unscored else 'no measured case; run `Pipeline.measure()` first'}"
        )
    return rows, unscored, unmeasured


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


def _plain(name: object) -> str:
    """Return a patient's name in lower case, with spaces between its parts in place of the ``^`` of DICOM."""
    return " ".join(re.split(r"[\^,\s]+", str(name).strip("^, ").lower()))


def _file_names(row: Mapping[str, str] | None) -> list[str]:
    """Return the name of a scan's file or folder in lower case, with and without its extension."""
    if row is None:
        return []
    name = PurePath(row["path"]).name.lower()
    return [name, next((name[: -len(end)] for end in _EXTENSIONS if name.endswith(end)), name)]


def _patient_names(row: Mapping[str, str] | None) -> list[str]:
    """Return the ID and the name of a scan's patient, in lower case."""
    return [] if row is None else [_plain(row[name]) for name in ("patient_id", "patient_name") if row.get(name)]


def _patient_of(case: str, patients: Mapping[str, Any]) -> str | None:
    """Return the longest patient's name that the name of a case begins with; None if there is none."""
    candidates = [name for name in patients if case == name or (case.startswith(name) and case[len(name)] in "-_.")]
    return max(candidates, key=len, default=None)
