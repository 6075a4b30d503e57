"""Print computed severity scores on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lungmix.analysis.severity import DENSE_TISSUES, SCORES, SeverityStudy
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.cli.spelling import spelled
from lungmix.errors import redact

_MOST_CASES = 20


def show_severity(console: Console, result: SeverityStudy, files: Sequence[Path]) -> None:
    """Print the distribution of the scores, the scores of the first cases with intervals, and notes."""
    table = new_table(f"Computed scores; {result.level:g} % intervals of the mean", "score", "scans", "median", "mean")
    for row in result.summary:
        quartiles = f"{_number(row['median'])} ({_number(row['lower_quartile'])} to {_number(row['upper_quartile'])})"
        mean = _number(row["mean"]) + _interval(row["mean_low"], row["mean_high"])
        if row["scans"]:
            table.add_row(_title(row["score"]), str(row["scans"]), quartiles, mean)
    console.print(table)
    keys = [row["score"] for row in result.summary if row["scans"]]
    table = new_table("Scores by case", "case", *map(_title, keys))
    for row in result.rows[:_MOST_CASES]:
        cells = (f"{row[key]:g}{_interval(row[f'{key}_low'], row[f'{key}_high'], 'g')}" for key in keys)
        table.add_row(escape(printable(row["case"])), *cells)
    console.print(table)
    if result.agreement:
        title = f"Agreement with the reader; {result.level:g} % intervals over patients"
        table = new_table(title, "score", "scans", "ICC", "C", "computed - reader", "limits of agreement")
        for row in result.agreement:
            cells = (
                _number(row[name], form) + _interval(row[f"{name}_low"], row[f"{name}_high"], form)
                for name, form in (("icc", ".2f"), ("correlation", ".2f"), ("difference", "+.1f"))
            )
            limits = f"{row['lower_limit']:+.1f} to {row['upper_limit']:+.1f}"
            table.add_row(_title(row["score"]), str(row["scans"]), *cells, limits)
        console.print(table)
    more = len(result.rows) - _MOST_CASES
    print_lines(console, *([f"{more} more cases are in the file"] if more > 0 else []), *map(printable, result.notes))
    print_lines(console, *files)


def severity_values(store: str, result: SeverityStudy, files: Sequence[Path]) -> dict[str, Any]:
    """Return computed scores, JSON-ready."""
    return {
        "store": store, "fit": result.fit, "patients": result.patients, "refits": result.refits,
        "level": result.level, "detection_limit": result.detection_limit, "summary": result.summary,
        "agreement": result.agreement,
        "rows": result.rows, "notes": spelled([redact(note) for note in result.notes]), "files": list(map(str, files)),
    }  # fmt: skip


def _title(key: str) -> str:
    return SCORES[key.removesuffix(DENSE_TISSUES)] + (", dense" if key.endswith(DENSE_TISSUES) else "")


def _number(value: float, form: str = ".1f") -> str:
    return "–" if isnan(value) else f"{value:{form}}"


def _interval(low: float, high: float, form: str = ".1f") -> str:
    return "" if isnan(low) or isnan(high) else f" ({low:{form}} to {high:{form}})"
