"""Scores for the terminal, and as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lungmix.analysis.scores import Correlation, ScoreStudy
from lungmix.cli.redaction import told
from lungmix.cli.show_fits import new_table, to_json
from lungmix.errors import redact


def show_scores(console: Console, result: ScoreStudy, files: Sequence[Path]) -> None:
    """Groups, correlation, line and resamplings."""
    table = new_table("Lung involvement by score, %", "S", "scans", "least", "quartile", "median", "quartile", "most")
    for group in result.groups:
        keys = ("minimum", "lower", "median", "upper", "maximum")
        cells = [f"{group[key]:.2f}" if group["scans"] else "" for key in keys]
        table.add_row(str(group["score"]), str(group["scans"]), *cells)
    console.print(table)
    table = new_table("Pearson's correlation of S and lung involvement", "of", "n", "C", "p", "low", "high")
    _add(table, "all scans", result.all)
    if result.first is not None:
        _add(table, "first scan of each patient", result.first)
    console.print(table)
    line = result.line
    console.print(f"S = {line.intercept:.3f} + {line.slope:.4f} LI, R² {line.r2:.3f}\n", highlight=False)
    table = new_table(
        f"{result.resamplings[0].times} regressions of draws from the score groups", "draw", "scans", "R²", "C",
        "R² of the rest",
    )  # fmt: skip
    for one in result.resamplings:
        pairs = (f"{one.r2_mean:.3f} ± {one.r2_sd:.3f}", f"{one.c_mean:.3f} ± {one.c_sd:.3f}")
        table.add_row(one.draw, str(one.scans), *pairs, f"{one.r2_rest_mean:.3f}")
    console.print(table)
    console.print(f"{len(result.rows)} scans of {result.patients} patients", highlight=False)
    for names, what in ((result.unscored, "measured, no score"), (result.unmeasured, "scored, not measured")):
        if names:
            console.print(f"{what}: {told(', '.join(names))}", markup=False, highlight=False, soft_wrap=True)
    for file in files:
        console.print(str(file), markup=False, highlight=False, soft_wrap=True)


def scores_json(store: str, result: ScoreStudy, files: Sequence[Path]) -> str:
    """The same as one JSON object."""
    values = asdict(result)
    values["scans"] = values.pop("rows")
    values["unmeasured"] = [redact(name) for name in result.unmeasured]
    return to_json({"store": store, **values, "files": list(map(str, files))})


def _add(table: Table, of: str, found: Correlation) -> None:
    p = "< 1e-6" if found.p < 1e-6 else f"{found.p:.3g}"
    table.add_row(of, str(found.n), f"{found.c:.3f}", p, f"{found.low:.3f}", f"{found.high:.3f}")
