"""Tables of scores as people write them, joined to the measurements of a cohort."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from lungmix.analysis.scores import HIGHEST, LOWEST
from lungmix.errors import UsageError, mark_path, mark_untrusted
from lungmix.formats.tables import column_of, rows_of, text_of

_CASE = ("case", "scan")
_PATIENT = ("patient", "patient_id", "patientid")
_SCORE = ("s", "score")
_EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".zip", ".tar.gz", ".tar")


@dataclass(frozen=True)
class Scores:
    """What a file of scores says.

    Attributes
    ----------
    path : Path
        The file.
    rows : list of dict
        ``line`` of the file, ``case`` or None, ``patient`` or None, ``score``, and further columns as text under
        ``further``.
    """

    path: Path
    rows: list[dict[str, Any]]


def read_scores(path: str | Path) -> Scores:
    """Read a CSV file with a column ``case`` or ``patient`` or both, a column ``S`` or ``score``, and any others.

    Separators may be commas, semicolons or tabs; heads may be written in any case; see `lungmix.formats.tables`.

    Raises
    ------
    UsageError
        If it is missing, not such a table, or holds something else than whole numbers from 0 to 5 as scores.
    """
    file = Path(path)
    try:
        found = rows_of(text_of(file.read_bytes()), (*_CASE, *_PATIENT, *_SCORE))
    except OSError as error:
        raise UsageError(
            f"{mark_path(file)} cannot be read ({error.strerror}): give the CSV file of the scores"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{mark_path(file)} is not text in UTF-8 or UTF-16: save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise UsageError(f"{mark_path(file)} is no table that can be read: check its quotes") from error
    table = [(number, [cell.strip() for cell in cells]) for number, cells in found]
    if len(table) < 2:
        raise UsageError(f"{mark_path(file)} holds no scores: it needs a head such as case,S and a line a scan")
    heads = table[0][1]
    at = {name: column_of(heads, names) for name, names in (("case", _CASE), ("patient", _PATIENT), ("score", _SCORE))}
    if at["score"] is None or (at["case"] is None and at["patient"] is None):
        raise UsageError(
            f"{mark_path(file)} has the columns {mark_untrusted(', '.join(heads))}: it needs case or patient, and S or "
            "score, in its first line"
        )
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[bool, str], int] = {}
    for number, cells in table[1:]:
        where = f"{mark_path(file)}, line {number}"
        if len(cells) != len(heads):
            raise UsageError(f"{where}: {len(cells)} cells under {len(heads)} heads: mend this line")
        case, patient, score = ("" if at[key] is None else cells[at[key] or 0] for key in ("case", "patient", "score"))
        name = case or patient
        if not name:
            raise UsageError(f"{where}: no case or patient is named: fill it in or delete the line")
        first = seen.setdefault((bool(case), name.lower()), number)
        if first != number:
            raise UsageError(
                f"{where}: {mark_untrusted(name)} has a score in line {first} already: keep one, or tell follow-up "
                "scans apart "
                "in a column case"
            )
        further = {head: cell for n, (head, cell) in enumerate(zip(heads, cells, strict=True)) if n not in at.values()}
        known = {"case": case or None, "patient": patient or None, "score": _score(score, name, where)}
        rows.append({"line": number, **known, "further": further})
    return Scores(file, rows)


def scores_of_cases(
    measurements: Sequence[Mapping[str, Any]], path: str | Path, key: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, int]:
    """S of each measured case that a file of scores names; see `read_scores` and `join_scores`."""
    rows, _, _ = join_scores(measurements, read_scores(path), key)
    return {str(row["case"]): int(row["score"]) for row in rows}


def join_scores(
    measurements: Sequence[Mapping[str, Any]], scores: Scores, key: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Pair scans with their scores.

    A line with a case scores that scan. A line with a patient alone scores all scans of the patient that no line
    names: the case of that name, and those whose names go on after it with ``-``, ``_`` or ``.``, which are follow-up
    scans, as ``p07`` and ``p07-2``.

    Parameters
    ----------
    measurements : sequence of mapping
        Rows of ``measurements.csv``.
    scores : Scores
        Of the same cohort.
    key : mapping, optional
        Rows of a key table by case. A line may then name a file, a folder, a patient's ID or a patient's name in place
        of a case. None of these comes out again: patients are counted, further columns are left out.

    Returns
    -------
    rows : list of dict
        ``case``, ``patient``, ``score``, ``lung_involvement`` and the further columns, by case.
    unscored, unmeasured : list of str
        Cases, and lines of the file with their names marked (`lungmix.errors.mark_untrusted`), that found no partner.

    Raises
    ------
    UsageError
        If nothing matches, or the measurements have no lung involvement.
    """
    if measurements and "lung_involvement" not in measurements[0]:
        raise UsageError("lung involvement needs five tissues: fit five components, label and measure again")
    by_case = {str(row["case"]).lower(): row for row in scores.rows if row["case"]}
    by_patient = {_plain(row["patient"]): row for row in scores.rows if not row["case"]}
    rows, unscored, used = [], [], set()
    for measured in sorted(measurements, key=lambda row: str(row["case"])):
        name = str(measured["case"])
        whose = None if key is None else key.get(name)
        row = next((by_case[one] for one in (name.lower(), *_files_of(whose)) if one in by_case), None)
        if row is None:
            patient = _patient_of(name.lower(), by_patient)
            known = next((one for one in (*_patients_of(whose), *_files_of(whose)) if one in by_patient), patient)
            row = None if known is None else by_patient[known]
        if row is None:
            unscored.append(name)
            continue
        used.add(id(row))
        patients = next(iter(_patients_of(whose)), name) if key is not None else row["patient"] or name
        further = {} if key is not None else row["further"]
        rows.append({
            "case": name, "patient": patients, "score": row["score"], "lung_involvement": measured["lung_involvement"],
            **{head: value for head, value in further.items() if head not in ("case", "lung_involvement")},
        })  # fmt: skip
    if key is not None:
        numbers = {one: n for n, one in enumerate(dict.fromkeys(row["patient"] for row in rows), start=1)}
        rows = [{**row, "patient": f"patient-{numbers[row['patient']]:03d}"} for row in rows]
    left = [row for row in scores.rows if id(row) not in used]
    unmatched_names = [mark_untrusted(row["case"] or row["patient"]) for row in left]
    unmeasured = [f"line {row['line']} ({name})" for row, name in zip(left, unmatched_names, strict=True)]
    if not rows:
        raise UsageError(
            f"no name in {mark_path(scores.path)} is that of a measured case: it names {_some(unmatched_names)}, the "
            "cohort has "
            f"{_some(unscored) if unscored else 'no measured case; run `lungmix measure` first'}"
        )
    return rows, unscored, unmeasured


def _score(text: str, name: str, where: str) -> int:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = -1.0
    if not (value.is_integer() and LOWEST <= value <= HIGHEST):
        raise UsageError(
            f"{where}: the score of {mark_untrusted(name)} is {mark_untrusted(text or 'missing')}: scores are whole "
            "numbers from "
            f"{LOWEST} to {HIGHEST}"
        )
    return int(value)


def _plain(name: object) -> str:
    """A patient's name in small letters, with blanks between its parts: DICOM has ``^`` there."""
    return " ".join(re.split(r"[\^,\s]+", str(name).strip("^, ").lower()))


def _files_of(row: Mapping[str, str] | None) -> list[str]:
    """What a scan's file or folder may be called, in small letters."""
    if row is None:
        return []
    name = PurePath(row["path"]).name.lower()
    return [name, next((name[: -len(end)] for end in _EXTENSIONS if name.endswith(end)), name)]


def _patients_of(row: Mapping[str, str] | None) -> list[str]:
    """What a scan's patient may be called, in small letters."""
    return [] if row is None else [_plain(row[name]) for name in ("patient_id", "patient_name") if row.get(name)]


def _patient_of(case: str, patients: Mapping[str, Any]) -> str | None:
    """The longest patient's name that a case's name begins with."""
    fits = [name for name in patients if case == name or (case.startswith(name) and case[len(name)] in "-_.")]
    return max(fits, key=len, default=None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
