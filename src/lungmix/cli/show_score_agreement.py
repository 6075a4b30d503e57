"""Print the agreement of the reader's scores with computed scores on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from rich.console import Console
from rich.table import Table

from lungmix.analysis.patient_bootstrap import Estimate
from lungmix.analysis.readers import ReaderAgreement
from lungmix.analysis.score_agreement import SCORES, ScoreAgreement
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.errors import count_of


def show_score_agreement(console: Console, result: ScoreAgreement, by_others: ScoreAgreement | None = None) -> None:
    """Print the confusion matrix, kappa, differences, discrimination and the size of the next study.

    Parameters
    ----------
    console : Console
        Console to print on.
    result : ScoreAgreement
        Agreement with scores computed from the lung involvement.
    by_others : ScoreAgreement, optional
        Agreement with scores computed from the lung involvement by the mixture of other patients.
    """
    table = new_table("Scans by the reader's score and the computed score", "S", *map(str, SCORES), "LI - middle")
    differences = result.differences
    for score, counts, row in zip(SCORES, result.confusion, differences.by_score, strict=True):
        table.add_row(str(score), *map(str, counts), f"{row['mean']:+.1f}" if row["scans"] else "")
    console.print(table)
    limit = result.settings.detection_limit
    console.print(
        f"computed score 0: LI of {'0' if limit == 0 else f'up to {limit:g}'} %; equal scores {result.equal:.1f} %, "
        f"apart by 1 at most {result.within_one:.1f} %",
        highlight=False,
    )
    console.print()
    table = new_table(f"Agreement, {result.settings.level:g} % intervals over patients", "of", "value", "low", "high")
    _add_kappas(table, result.kappa, "")
    if by_others is not None:
        _add_kappas(table, by_others.kappa, ", mixture of the other patients")
    add_estimate(table, "LI - middle of interval, points", differences.mean, 1)
    add_estimate(table, "lower limit of agreement", differences.lower, 1)
    add_estimate(table, "upper limit of agreement", differences.upper, 1)
    severe = result.discrimination
    if severe is not None:
        add_estimate(table, f"area under ROC, S >= {severe.lowest_score}", severe.auc)
        add_estimate(table, f"average precision, S >= {severe.lowest_score}", severe.average_precision)
    console.print(table)
    study = result.next_study
    table = new_table(
        f"Patients for intervals of {study.level:g} % with a half width of {study.half_width:g}", "of", "patients"
    )
    sizes = {
        "weighted kappa, quadratic": study.kappa_quadratic,
        "weighted kappa, linear": study.kappa_linear,
        "correlation C": study.correlation,
        "area under ROC": study.auc,
    }
    for name, patients in sizes.items():
        table.add_row(name, "unknown" if patients is None else f"{patients:,}")
    console.print(table)


def show_readers(console: Console, result: ReaderAgreement, level: float) -> None:
    """Print the agreement of several readers with each other and with the computed score."""
    table = new_table(
        f"Weighted kappa of readers, quadratic, {level:g} % intervals", "of", "scans", "equal %", "value", "low", "high"
    )
    for pair in result.pairs:
        kappa = pair.quadratic
        cells = (f"{value:.3f}" if isfinite(value) else "" for value in (kappa.value, kappa.low, kappa.high))
        equal = f"{pair.equal:.1f}" if pair.scans else ""
        table.add_row(printable(f"{pair.first}, {pair.second}"), str(pair.scans), equal, *cells)
    console.print(table)
    reliability = result.reliability
    if reliability is not None:
        table = new_table(f"Intraclass correlation of {reliability.readers} readers", "of", "value", "low", "high")
        add_estimate(table, "ICC(A,1), one reader", reliability.single)
        add_estimate(table, f"ICC(A,{reliability.readers}), mean of the readers", reliability.average)
        console.print(table)
        console.print(
            f"{count_of(reliability.scans, 'scan')} with two scores or more; intervals of the "
            f"{count_of(reliability.complete, 'scan')} with all scores",
            highlight=False,
        )
    elif result.needs_statsmodels:
        console.print("no intraclass correlation: install the extra statistics, with statsmodels", highlight=False)
    print_lines(console, printable(f"consensus: {result.consensus}"))


def add_estimate(table: Table, name: str, estimate: Estimate, digits: int = 3) -> None:
    """Add a row with a value and its interval; cells without a number are empty."""
    numbers = (estimate.value, estimate.low, estimate.high)
    table.add_row(name, *(f"{value:.{digits}f}" if isfinite(value) else "" for value in numbers))


def _add_kappas(table: Table, kappa: Mapping[str, Estimate], suffix: str) -> None:
    for weights, estimate in kappa.items():
        add_estimate(table, f"weighted kappa, {weights}{suffix}", estimate)
