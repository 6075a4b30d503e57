"""Agreement of computed severity scores with scores of a reader: of lungs, of six lung zones, and of five lobes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.case_table import CaseTable, JoinedTable, parse_column
from lungmix.analysis.patient_bootstrap import check_draws, estimate
from lungmix.analysis.score_table import TOTALS
from lungmix.errors import UsageError, count_of, mark_path, mark_untrusted
from lungmix.kernels.reliability import intraclass_correlations

Floats = npt.NDArray[np.float64]

READER_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "score": ("s", "score"), "score_24": ("s24", "score_24", "score24"), "score_25": ("s25", "score_25", "score25"),
}  # fmt: skip
"""Names, in lower case, of the columns with a reader's scores, by the computed score that they are compared with.

A name with a separator and the name of a reader after it, such as ``S24_anna``, is a column of one of several readers.
"""

_HIGHEST = {"score": 5, "score_24": 24, "score_25": 25}
_LIMIT_SDS = 1.96
_LEAST_SCANS = 3

Statistic = Callable[[Floats, Floats], Floats]


def compare_with_reader(
    rows: Sequence[Mapping[str, Any]],
    table: CaseTable,
    joined: JoinedTable,
    patient_of: Mapping[str, str],
    *,
    draws: int = 2000,
    level: float = 95.0,
    seed: int = 0,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the agreement of each computed score with the scores of each reader.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of `lungmix.analysis.severity.SeverityStudy`.
    table : CaseTable
        Table with one or more of `READER_COLUMNS`.
    joined : JoinedTable
        Its lines by case.
    patient_of : mapping of str to str
        Patient of each case of patients with several scans.
    draws : int
        Number of draws of patients for the intervals.
    level : float
        Level of the intervals, percent.
    seed : int
        Seed of the draws.

    Returns
    -------
    rows : list of dict
        For each column of a reader, ``score``, ``reader`` (empty if the column names none), ``scans``, ``patients``;
        and with the bounds ``_low`` and ``_high`` of an interval over patients, ``icc`` (absolute agreement of single
        scores, ICC(A,1)), ``correlation`` (Pearson's), ``difference`` (mean of computed less reader's score), and
        ``lower_limit`` and ``upper_limit`` (limits of agreement of Bland and Altman).
    notes : list of str
        Sentences about columns that are not compared, because fewer than three scans have both scores.

    Raises
    ------
    UsageError
        If the table has no such column, a score is out of range, or no column can be compared.
    """
    check_draws(draws, level)
    agreements, notes = [], []
    for score, reader, column in _reader_columns(table):
        texts = [(str(row["case"]), joined.cells.get(str(row["case"]), {}).get(column, "")) for row in rows]
        read = _scores(table, column, texts, _HIGHEST[score])
        both = [row for row in rows if row["case"] in read and not np.isnan(row[score])]
        if len(both) < _LEAST_SCANS:
            notes.append(
                f"{count_of(len(both), 'scan')} with a score {mark_untrusted(column)} and a computed one, and a "
                f"comparison needs {_LEAST_SCANS}: score more, or make zones or lobes first"
            )
            continue
        patients = [patient_of.get(str(row["case"]), f"case {row['case']}") for row in both]
        pairs = np.array([[float(row[score]), read[str(row["case"])]] for row in both])
        agreement = _agreement(pairs, patients, draws, level, seed)
        agreements.append({"score": score, "reader": reader, "scans": len(both), **agreement})
    if not agreements:
        raise UsageError(
            notes[0]
            if notes
            else f"{mark_path(table.path)} has the columns {mark_untrusted(', '.join(table.columns))}: it needs S, S24 "
            "or S25"
        )
    return agreements, notes


def _reader_columns(table: CaseTable) -> Iterator[tuple[str, str, str]]:
    """Yield the score, the reader, and the title of each column with scores of a reader."""
    for score, names in READER_COLUMNS.items():
        title = next((title for name in names if (title := table.find_column(name)) is not None), None)
        if title is not None:
            yield score, "", title
        of_reader = re.compile(rf"(?:{'|'.join(names)})[\s_:.-]+(\S.*)", re.IGNORECASE)
        for title in table.columns:
            match = of_reader.fullmatch(title.strip())
            # Columns such as score_24 and S_24 hold totals of zones or lobes.
            if match is not None and not (score == "score" and match[1].startswith(TOTALS)):
                yield score, match[1], title


def _scores(table: CaseTable, column: str, texts: Sequence[tuple[str, str]], highest: int) -> dict[str, float]:
    """Return the scores of a column by case, without cases that have none."""
    scores: dict[str, float] = {}
    for name, text in texts:
        value = parse_column([(name, text)])[0][name]
        if value is None:
            continue
        if isinstance(value, str) or not 0 <= value <= highest:
            raise UsageError(
                f"{mark_path(table.path)}, column {mark_untrusted(column)}: the score of {mark_untrusted(name)} is "
                f"{mark_untrusted(text)}: scores are numbers from 0 to {highest}"
            )
        scores[name] = value
    return scores


def _agreement(pairs: Floats, patients: Sequence[str], draws: int, level: float, seed: int) -> dict[str, Any]:
    """Return the agreement of pairs of a computed and a reader's score, with intervals over patients."""
    units = {patient: k for k, patient in enumerate(dict.fromkeys(patients))}
    unit_of_scan = np.array([units[patient] for patient in patients])
    values: dict[str, Any] = {"patients": len(units)}
    for name, statistic in _STATISTICS.items():

        def of_patients(weights: Floats, statistic: Statistic = statistic) -> Floats:
            return statistic(pairs, weights[:, unit_of_scan])

        result = estimate(of_patients, len(units), draws=draws, level=level, seed=seed)
        values |= {name: result.value, f"{name}_low": result.low, f"{name}_high": result.high}
    return values


def _mean(values: Floats, weights: Floats) -> Floats:
    return np.asarray(weights @ values / weights.sum(axis=1))


def _correlation(pairs: Floats, weights: Floats) -> Floats:
    (x, y) = pairs.T
    mean_x, mean_y = _mean(x, weights), _mean(y, weights)
    covariance = _mean(x * y, weights) - mean_x * mean_y
    with np.errstate(all="ignore"):
        variances = (_mean(x**2, weights) - mean_x**2) * (_mean(y**2, weights) - mean_y**2)
        # Rounding must not make a variance of equal scores positive.
        return np.where(variances > 1e-12, covariance / np.sqrt(variances), np.nan)


def _limit(pairs: Floats, weights: Floats, sign: float) -> Floats:
    """Return a limit of agreement; the standard deviation has one degree of freedom less than scans."""
    differences, n = pairs[:, 0] - pairs[:, 1], weights.sum(axis=1)
    mean = _mean(differences, weights)
    variance = np.maximum(_mean(differences**2, weights) - mean**2, 0.0) * n / np.maximum(n - 1, 1)
    return np.asarray(mean + sign * _LIMIT_SDS * np.sqrt(variance))


_STATISTICS: dict[str, Statistic] = {
    "icc": lambda pairs, weights: intraclass_correlations(pairs, weights)[0],
    "correlation": _correlation,
    "difference": lambda pairs, weights: _mean(pairs[:, 0] - pairs[:, 1], weights),
    "lower_limit": lambda pairs, weights: _limit(pairs, weights, -1.0),
    "upper_limit": lambda pairs, weights: _limit(pairs, weights, 1.0),
}
