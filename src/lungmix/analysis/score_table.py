"""Tables of scores as people write them, joined to the measurements of a cohort."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungmix.analysis.scores import HIGHEST, LOWEST
from lungmix.errors import UsageError

_CASE = ("case", "scan")
_PATIENT = ("patient", "patient_id", "patientid")
_SCORE = ("s", "score")


@dataclass(frozen=True)
class Scores:
    """What a file of scores says.

    Attributes
    ----------
    path : Path
        The file.
    rows : list of dict
        ``case`` or None, ``patient`` or None, ``score``, and further columns as text under ``further``.
    """

    path: Path
    rows: list[dict[str, Any]]


def read_scores(path: str | Path) -> Scores:
    """Read a CSV file with a column ``case`` or ``patient`` or both, a column ``S`` or ``score``, and any others.

    Separators may be commas, semicolons or tabs; heads may be written in any case.

    Raises
    ------
    UsageError
        If it is missing, not such a table, or holds something else than whole numbers from 0 to 5 as scores.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}): give the CSV file of the scores") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not text in UTF-8: save it as CSV in UTF-8") from error
    head = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count))
    table = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    if len(table) < 2:
        raise UsageError(f"{file} holds no scores: it needs a head such as case,S and a line a scan")
    heads = table[0][1]
    lower = [head.lower() for head in heads]
    at = {name: _find(lower, names) for name, names in (("case", _CASE), ("patient", _PATIENT), ("score", _SCORE))}
    if at["score"] is None or (at["case"] is None and at["patient"] is None):
        raise UsageError(
            f"{file} has the columns {', '.join(heads)}: it needs case or patient, and S or score, in its first line"
        )
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[bool, str], int] = {}
    for number, cells in table[1:]:
        where = f"{file}, line {number}"
        if len(cells) != len(heads):
            raise UsageError(f"{where}: {len(cells)} cells under {len(heads)} heads: mend this line")
        case, patient, score = ("" if at[key] is None else cells[at[key] or 0] for key in ("case", "patient", "score"))
        name = case or patient
        if not name:
            raise UsageError(f"{where}: no case or patient is named: fill it in or delete the line")
        first = seen.setdefault((bool(case), name.lower()), number)
        if first != number:
            raise UsageError(
                f"{where}: {name} has a score in line {first} already: keep one, or tell follow-up scans apart in a "
                "column case"
            )
        further = {head: cell for n, (head, cell) in enumerate(zip(heads, cells, strict=True)) if n not in at.values()}
        found = {"case": case or None, "patient": patient or None, "score": _score(score, name, where)}
        rows.append({**found, "further": further})
    return Scores(file, rows)


def scores_of_cases(measurements: Sequence[Mapping[str, Any]], path: str | Path) -> dict[str, int]:
    """S of each measured case that a file of scores names; see `read_scores` and `join_scores`."""
    rows, _, _ = join_scores(measurements, read_scores(path))
    return {str(row["case"]): int(row["score"]) for row in rows}


def join_scores(
    measurements: Sequence[Mapping[str, Any]], scores: Scores
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

    Returns
    -------
    rows : list of dict
        ``case``, ``patient``, ``score``, ``lung_involvement`` and the further columns, by case.
    unscored, unmeasured : list of str
        Cases, and names in the file, that found no partner.

    Raises
    ------
    UsageError
        If nothing matches, or the measurements have no lung involvement.
    """
    if measurements and "lung_involvement" not in measurements[0]:
        raise UsageError("lung involvement needs five tissues: fit five components, label and measure again")
    by_case = {str(row["case"]).lower(): row for row in scores.rows if row["case"]}
    by_patient = {str(row["patient"]).lower(): row for row in scores.rows if not row["case"]}
    rows, unscored, used = [], [], set()
    for measured in sorted(measurements, key=lambda row: str(row["case"])):
        name = str(measured["case"])
        row = by_case.get(name.lower())
        if row is None:
            patient = _patient_of(name.lower(), by_patient)
            row = None if patient is None else by_patient[patient]
        if row is None:
            unscored.append(name)
            continue
        used.add(id(row))
        rows.append({
            "case": name, "patient": row["patient"] or name, "score": row["score"],
            "lung_involvement": measured["lung_involvement"],
            **{key: value for key, value in row["further"].items() if key not in ("case", "lung_involvement")},
        })  # fmt: skip
    unmeasured = [str(row["case"] or row["patient"]) for row in scores.rows if id(row) not in used]
    if not rows:
        raise UsageError(
            f"no name in {scores.path} is that of a measured case: it names {_some(unmeasured)}, the cohort has "
            f"{_some(unscored) if unscored else 'no measured case; run `lungmix measure` first'}"
        )
    return rows, unscored, unmeasured


def _find(heads: Sequence[str], names: Sequence[str]) -> int | None:
    return next((heads.index(name) for name in names if name in heads), None)


def _score(text: str, name: str, where: str) -> int:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = -1.0
    if not (value.is_integer() and LOWEST <= value <= HIGHEST):
        raise UsageError(
            f"{where}: the score of {name} is {text or 'missing'}: scores are whole numbers from {LOWEST} to {HIGHEST}"
        )
    return int(value)


def _patient_of(case: str, patients: Mapping[str, Any]) -> str | None:
    """The longest patient's name that a case's name begins with."""
    fits = [name for name in patients if case == name or (case.startswith(name) and case[len(name)] in "-_.")]
    return max(fits, key=len, default=None)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
