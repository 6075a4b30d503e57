"""Print a comparison of groups on the terminal, or return it as a JSON object for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lungmix.analysis.group_comparison import GroupStudy, scan_rows
from lungmix.analysis.group_tests import Comparison, PairComparison
from lungmix.analysis.patient_bootstrap import Estimate
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.errors import count_of, redact
from lungmix.webpage.characteristics import narrow_table
from lungmix.webpage.columns import title_of


def show_groups(console: Console, result: GroupStudy, files: Sequence[Path]) -> None:
    """Print the table of characteristics, the tests of each measurement, the differences of pairs, and notes."""
    header, rows = narrow_table(result)
    table = new_table("Characteristics" + (f" by {_safe(result.by)}" if result.by else ""), *map(_safe, header))
    # On narrow terminals, cells have several lines, so that neither the titles of rows nor numbers are cut.
    for column in table.columns:
        column.no_wrap = False
    for row in rows:
        table.add_row(*map(_safe, row))
    console.print(table)
    if result.comparisons:
        print_lines(console, f"tests: {printable(result.rule)}")
        _show_tests(console, result)
        _show_pairs(console, result)
    print_lines(console, f"{count_of(len(result.scans), 'scan')} of {count_of(result.n_patients, 'patient')}")
    print_lines(console, result.patients_by, *(f"note: {printable(note)}" for note in result.notes), *files)


def groups_values(store: str, result: GroupStudy, files: Sequence[Path]) -> dict[str, Any]:
    """Return a comparison of groups, JSON-ready."""
    return {
        "store": store, "by": result.by, "groups": result.groups, "compared": result.compared,
        "patients": result.n_patients, "patients_by": result.patients_by, "rule": result.rule,
        "settings": asdict(result.settings), "characteristics": [asdict(row) for row in result.table],
        "comparisons": [asdict(comparison) for comparison in result.comparisons], "scans": scan_rows(result),
        "notes": [redact(note) for note in result.notes], "files": list(map(str, files)),
    }  # fmt: skip


def _show_tests(console: Console, result: GroupStudy) -> None:
    several = len(result.compared) > 2
    tests = ", or ".join(dict.fromkeys(comparison.test for comparison in result.comparisons))
    title = f"All groups, {result.settings.level:g} % intervals over patients: {tests}" if several else tests
    effect_title = ("epsilon²",) if several else ()
    table = new_table(title, "measurement", "scans", *effect_title, "p", "p, Holm")
    for comparison in result.comparisons:
        effect = (_interval(comparison.epsilon_squared, 2),) if several else ()
        numbers = (str(comparison.scans), *effect, _p(comparison.p), _p(comparison.p_holm))
        table.add_row(title_of(comparison.measurement), *numbers)
    console.print(table)


def _show_pairs(console: Console, result: GroupStudy) -> None:
    """Print the differences; with a mixed model, that of means takes the column of the rank-biserial correlation."""
    has_means = any(pair.mean_difference for comparison in result.comparisons for pair in comparison.pairs)
    several = len(result.compared) > 2
    titles = "Hodges-Lehmann", "means" if has_means else "rank-biserial", *(("p, Holm",) if several else ())
    table = new_table("Differences, second group less first", "", *titles)
    for comparison in result.comparisons:
        table.add_row(title_of(comparison.measurement))
        for pair in comparison.pairs:
            second = _mean(comparison, pair) if has_means else _interval(pair.rank_biserial, 2)
            p = (_p(pair.p_holm),) if several else ()
            shift = _interval(pair.hodges_lehmann, _digits(comparison))
            table.add_row(_safe(f"  {pair.first} | {pair.second}"), shift, second, *p)
    console.print(table)


def _mean(comparison: Comparison, pair: PairComparison) -> str:
    if pair.mean_difference is None:
        return ""
    return _interval(Estimate(*pair.mean_difference, float("nan")), _digits(comparison))


def _digits(comparison: Comparison) -> int:
    return 0 if comparison.measurement.endswith("_ml") else 2 if comparison.measurement.endswith("_g") else 1


def _interval(estimate: Estimate | None, digits: int) -> str:
    if estimate is None or math.isnan(estimate.value):
        return ""
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return value if math.isnan(estimate.low) else f"{value} ({low} to {high})"


def _p(p: float) -> str:
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _safe(text: str) -> str:
    return escape(printable(text))
