"""Agreement between several readers, and of the computed score with each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.consensus import COMPUTED, CONSENSUS, Reading
from lungmix.analysis.patient_bootstrap import Estimate
from lungmix.analysis.reliability import is_available, variance_components
from lungmix.analysis.score_agreement import Settings, estimator, kappas
from lungmix.kernels.reliability import intraclass_correlations
from lungmix.kernels.severity import LOWEST

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Agreement of two readings, or of a reading with the computed score.

    Attributes
    ----------
    first, second : str
        Labels of the readings, ``computed`` or ``consensus``.
    scans, patients : int
        Number of scans with both scores, and of their patients.
    equal : float
        Percentage of these scans whose scores are equal; NaN without scans.
    quadratic, linear : Estimate
        Weighted kappa by its weights.
    """

    first: str
    second: str
    scans: int
    patients: int
    equal: float
    quadratic: Estimate
    linear: Estimate


@dataclass(frozen=True)
class Reliability:
    """Intraclass correlation of the readers: absolute agreement in the two-way model with random readers.

    Attributes
    ----------
    single, average : Estimate
        ICC(A,1) of the score of one reader, and ICC(A,k) of the mean of k readers. Values are by restricted maximum
        likelihood of all scores of scans with two scores or more; intervals are for scans with scores of all readers.
    readers : int
        Number of readers, k.
    scans, complete : int
        Number of scans with two scores or more, and of those with scores of all readers.
    """

    single: Estimate
    average: Estimate
    readers: int
    scans: int
    complete: int


@dataclass(frozen=True)
class ReaderAgreement:
    """Agreement between readers, and of the computed score with each of them.

    Attributes
    ----------
    readings : list of Reading
        Readings of the table.
    consensus : str
        Rule of the consensus, or the label of the reading that it is.
    pairs : list of Pair
        Pairs of readings, then the computed score with each reading and with the consensus.
    reliability : Reliability or None
        Intraclass correlation of first readings; None for fewer than two readers, and without the package statsmodels.
    """

    readings: list[Reading]
    consensus: str
    pairs: list[Pair]
    reliability: Reliability | None

    @property
    def needs_statsmodels(self) -> bool:
        """True if there is no intraclass correlation because statsmodels is not installed."""
        readers = sum(reading.is_first for reading in self.readings)
        return self.reliability is None and readers > 1 and not is_available()


def column_of(reading: Reading) -> str:
    """Return the column of joined rows that has the scores of a reading."""
    return f"score_{reading.label}"


def compare_readers(
    rows: Sequence[Mapping[str, Any]],
    readings: Sequence[Reading],
    consensus: str = "median",
    settings: Settings | None = None,
) -> ReaderAgreement:
    """Return the agreement between readers, and of the computed score with each of them.

    Parameters
    ----------
    rows : sequence of mapping
        One row per scan, with ``patient``, ``score`` (the consensus), ``computed_score``, and a column of each reading,
        see `column_of`; None for a scan that a reader did not score.
    readings : sequence of Reading
        Readings of the table.
    consensus : str
        Rule of the consensus, for the result.
    settings : Settings, optional
        Numbers of the intervals.
    """
    settings = settings or Settings()
    names = np.array([str(row["patient"]) for row in rows])
    scores = {reading.label: _column(rows, column_of(reading)) for reading in readings}
    scores |= {COMPUTED: _column(rows, "computed_score"), CONSENSUS: _column(rows, "score")}
    labels = [reading.label for reading in readings]
    named = [*combinations(labels, 2), *((label, COMPUTED) for label in (*labels, CONSENSUS))]
    first_readings = [scores[reading.label] for reading in readings if reading.is_first]
    return ReaderAgreement(
        readings=list(readings),
        consensus=consensus,
        pairs=[_pair(first, second, scores, names, settings) for first, second in named],
        reliability=_reliability(np.stack(first_readings, axis=1), names, settings),
    )


def rows_of(result: ReaderAgreement) -> list[dict[str, Any]]:
    """Return the pairs as rows of a table."""
    rows = []
    for pair in result.pairs:
        row: dict[str, Any] = {"first": pair.first, "second": pair.second, "scans": pair.scans}
        row |= {"patients": pair.patients, "equal": pair.equal}
        for name, kappa in (("kappa_quadratic", pair.quadratic), ("kappa_linear", pair.linear)):
            row |= {name: kappa.value, f"{name}_low": kappa.low, f"{name}_high": kappa.high}
        rows.append(row)
    return rows


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> npt.NDArray[np.int64]:
    return np.array([-1 if row[name] is None else int(row[name]) for row in rows], np.int64)


def _pair(
    first: str,
    second: str,
    scores: Mapping[str, npt.NDArray[np.int64]],
    names: npt.NDArray[np.str_],
    settings: Settings,
) -> Pair:
    both = (scores[first] >= LOWEST) & (scores[second] >= LOWEST)
    nothing = Estimate(*[float("nan")] * 4)
    if not both.any():
        return Pair(first, second, 0, 0, float("nan"), nothing, nothing)
    a, b = scores[first][both], scores[second][both]
    patients, patient = np.unique(names[both], return_inverse=True)
    kappa = kappas(a, b, patient, settings)
    equal = 100 * float(np.mean(a == b))
    return Pair(first, second, len(a), len(patients), equal, kappa["quadratic"], kappa["linear"])


def _reliability(table: npt.NDArray[np.int64], names: npt.NDArray[np.str_], settings: Settings) -> Reliability | None:
    n_readers = table.shape[1]
    is_scored = table >= LOWEST
    several = is_scored.sum(axis=1) >= 2
    complete = is_scored.all(axis=1)
    if n_readers < 2 or several.sum() < 2:
        return None
    components = variance_components(np.where(is_scored, table, np.nan)[several])
    if components is None:
        return None
    values = components.single, components.average(n_readers)
    nan = float("nan")
    estimates = [Estimate(value, nan, nan, nan) for value in values]
    if complete.sum() >= 2:
        ratings = table[complete].astype(np.float64)
        patients, patient = np.unique(names[complete], return_inverse=True)
        estimated = estimator(len(patients), settings)
        for number, value in enumerate(values):
            drawn = estimated(lambda weights, n=number: intraclass_correlations(ratings, weights[:, patient])[n])  # type: ignore[misc]
            estimates[number] = Estimate(value, drawn.low, drawn.high, drawn.error)
    single, average = estimates
    return Reliability(single, average, n_readers, int(several.sum()), int(complete.sum()))
