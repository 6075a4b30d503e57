"""Print computed severity scores on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lungmix.analysis.severity import ALL_TISSUES, DENSE_TISSUES, SCORES, SeverityStudy
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.cli.spelling import spelled
from lungmix.errors import redact

_MOST_CASES = 20


def show_severity(console: Console, result: SeverityStudy, files: Sequence[Path]) -> None:
    """Print the distribution of the scores, the scores of the first cases with intervals, and notes."""
    table = new_table("Computed scores", "score", "scans", "median (quartiles)", f"mean ({result.level:g} % interval)")
    for row in result.summary:
        quartiles = f"{_number(row['median'])} ({_number(row['lower_quartile'])} to {_number(row['upper_quartile'])})"
        mean = _number(row["mean"]) + _interval(row["mean_low"], row["mean_high"])
        if row["scans"]:
            table.add_row(_title(row["score"]), str(row["scans"]), quartiles, mean)
    console.print(table)
    present = [str(row["score"]) for row in result.summary if row["scans"]]
    # One table for each kind of score, so that six scores with intervals fit a terminal.
    for ending, what in ((ALL_TISSUES, "all tissue"), (DENSE_TISSUES, "dense tissue")):
        keys = [key for score in SCORES if (key := f"{score}{ending}") in present]
        if keys:
            interval = f" ({result.level:g} % interval by refits)" if result.refits else ""
            _show_cases(console, result, keys, f"Scores by case, {what}{interval}")
    if result.agreement:
        _show_agreement(console, result)
    more = len(result.rows) - _MOST_CASES
    print_lines(console, *([f"{more} more cases are in the file"] if more > 0 else []), *map(printable, result.notes))
    print_lines(console, *files)


def _show_cases(console: Console, result: SeverityStudy, keys: Sequence[str], title: str) -> None:
    table = new_table(title, "case", *(_title(key) for key in keys))
    for row in result.rows[:_MOST_CASES]:
        cells = (f"{row[key]:g}{_interval(row[f'{key}_low'], row[f'{key}_high'], 'g')}" for key in keys)
        table.add_row(escape(printable(row["case"])), *cells)
    console.print(table)


def _show_agreement(console: Console, result: SeverityStudy) -> None:
    interval = f"{result.level:g} % interval"
    table = new_table(f"Agreement with the reader ({interval} over patients)", "score", "scans", "ICC", "C")
    differences = new_table("Computed score - reader's score", "score", f"mean ({interval})", "limits of agreement")
    for row in result.agreement:
        title = _title(row["score"]) + (f", {escape(printable(row['reader']))}" if row["reader"] else "")
        table.add_row(title, str(row["scans"]), _estimate(row, "icc", ".2f"), _estimate(row, "correlation", ".2f"))
        limits = f"{row['lower_limit']:+.1f} to {row['upper_limit']:+.1f}"
        differences.add_row(title, _estimate(row, "difference", "+.1f"), limits)
    console.print(table)
    console.print(differences)


def _estimate(row: Mapping[str, Any], key: str, form: str) -> str:
    return _number(row[key], form) + _interval(row[f"{key}_low"], row[f"{key}_high"], form)


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
