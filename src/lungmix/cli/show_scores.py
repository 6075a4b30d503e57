"""Print a study of scores on the terminal, or return it as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lungmix.analysis.scores import Correlation, Line, ScoreStudy
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.cli.show_score_agreement import show_readers, show_score_agreement
from lungmix.errors import count_of, redact


def show_scores(console: Console, result: ScoreStudy, files: Sequence[Path]) -> None:
    """Print lung involvement by score, the correlation, the line, random draws, and the agreement of scores."""
    table = new_table(
        "Lung involvement by score, %", "S", "scans", "minimum", "quartile", "median", "quartile", "maximum"
    )
    for group in result.groups:
        keys = ("minimum", "lower", "median", "upper", "maximum")
        cells = [f"{group[key]:.2f}" if group["scans"] else "" for key in keys]
        table.add_row(str(group["score"]), str(group["scans"]), *cells)
    console.print(table)
    table = new_table("Pearson's correlation of S and lung involvement", "of", "n", "C", "p", "low", "high")
    _add_correlation(table, "all scans", result.all)
    if result.first is not None:
        _add_correlation(table, "first scan of each patient", result.first)
    others = result.by_others
    if others is not None:
        _add_correlation(table, "all scans, mixture of the other patients", others.all)
        if others.first is not None:
            _add_correlation(table, "first scans, mixture of the other patients", others.first)
    console.print(table)
    console.print(_equation(result.line), highlight=False)
    if others is not None:
        console.print(f"mixture of the other patients: {_equation(others.line)}", highlight=False)
        console.print(f"it changes LI by up to {others.largest_shift:.2f} points", highlight=False)
    console.print()
    table = new_table(
        f"{result.resamplings[0].times} regressions of draws from the score groups", "draw", "scans", "R²", "C",
        "R² of the rest",
    )  # fmt: skip
    for draws in result.resamplings:
        pairs = (f"{draws.r2_mean:.3f} ± {draws.r2_sd:.3f}", f"{draws.c_mean:.3f} ± {draws.c_sd:.3f}")
        table.add_row(draws.draw, str(draws.scans), *pairs, f"{draws.r2_rest_mean:.3f}")
    console.print(table)
    show_score_agreement(console, result.agreement, None if others is None else others.agreement)
    if result.readers is not None:
        show_readers(console, result.readers, result.agreement.settings.level)
    console.print(f"{count_of(len(result.rows), 'scan')} of {count_of(result.patients, 'patient')}", highlight=False)
    for names, title in ((result.unscored, "measured, no score"), (result.unmeasured, "scored, not measured")):
        if names:
            print_lines(console, f"{title}: {printable(', '.join(names))}")
    print_lines(console, *files)


def scores_values(store: str, result: ScoreStudy, files: Sequence[Path]) -> dict[str, Any]:
    """Return a study of scores, JSON-ready."""
    values = asdict(result)
    values["scans"] = values.pop("rows")
    values["unmeasured"] = [redact(name) for name in result.unmeasured]
    return {"store": store, **values, "files": list(map(str, files))}


def _equation(line: Line) -> str:
    return f"S = {line.intercept:.3f} + {line.slope:.4f} LI, R² {line.r2:.3f}"


def _add_correlation(table: Table, scans: str, correlation: Correlation) -> None:
    p = "< 1e-6" if correlation.p < 1e-6 else f"{correlation.p:.3g}"
    numbers = (f"{correlation.c:.3f}", p, f"{correlation.low:.3f}", f"{correlation.high:.3f}")
    table.add_row(scans, str(correlation.n), *numbers)
