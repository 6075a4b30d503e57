"""Print a follow-up on the terminal, or return it as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from rich.console import Console

from lungmix.cli.redaction import printable
from lungmix.cli.show import show_notes, show_outcomes
from lungmix.cli.show_fits import new_table, print_lines
from lungmix.cli.spelling import spelled
from lungmix.pipeline.followup import FollowupResult
from lungmix.pipeline.registration import registration_of
from lungmix.stages.change import FAILED
from lungmix.store import open_cohort
from lungmix.store.schema import FOLLOWUP_FILE
from lungmix.store.tables import Row

_CHANGE = "change_lung_involvement"
_EXPLANATION = (
    "change of LI: points since the first scan, at the lung volume of the first scan, with the 95 % interval; mL: lung "
    "volume"
)
_REGISTERED = (
    ("registration_similarity", ".2f"), ("registered_lung_involvement_first", ".1f"),
    ("registered_lung_involvement", ".1f"), ("change_registered_lung_involvement", "+.1f"), ("new_ml", ".0f"),
    ("gone_ml", ".0f"),
)  # fmt: skip
"""Columns of a registered scan on the terminal, and their formats."""
_ADVICE = (
    "kernels of these scans differ or are unknown, which widens their intervals: `Pipeline.run(sources, "
    'harmonise="kernel")` makes them comparable'
)


def show_followup(console: Console, result: FollowupResult, store: str) -> None:
    """Print one row per scan, the mean change, remarks and failed cases.

    Parameters
    ----------
    console : Console
        Terminal or file to print to.
    result : FollowupResult
        Result of the command.
    store : str
        Folder or URL of the store.
    """
    if result.rows:
        table = new_table("Lung involvement", "patient", "case", "days", "mL", "LI %", "change of LI", "course")
        for column in (1, 6):
            table.columns[column].justify = "left"
        for column in (0, 5, 6):
            table.columns[column].no_wrap = True
        for row in result.rows:
            heading = str(row["patient"]) if row["scan"] == 1 else ""
            table.add_row(
                heading, str(row["case"]), _number(row, "days", ".0f"), _number(row, "lung_ml", ".0f"),
                _number(row, "lung_involvement", ".1f"), _interval(row), str(row["course"]),
            )  # fmt: skip
        console.print(table)
        show_registrations(console, result.rows)
    show_notes(console, result.notes)
    show_outcomes(console, result)
    print_lines(console, *(printable(f"note: {remark}") for remark in result.remarks))
    if result.rows:
        if result.has_unlike_kernels:
            print_lines(console, printable(f"note: {_ADVICE}"))
        print_lines(console, *result.statistics(), _EXPLANATION, f"table: {store.rstrip('/')}/{FOLLOWUP_FILE}")
    console.print(f"{len(result.done)} done, {len(result.failed)} failed", highlight=False)


def show_registrations(console: Console, rows: Sequence[Row]) -> None:
    """Print one row per registered scan: similarity, lung involvement of the same lung, and volumes of changes."""
    registered = [row for row in rows if row.get("registration", "") not in ("", FAILED)]
    if not registered:
        return
    title = "Registered with the first scan: LI of the same lung, %; mL after the median"
    table = new_table(title, "case", "similarity", "first", "LI", "change", "new mL", "gone mL")
    for row in registered:
        table.add_row(str(row["case"]), *(_number(row, key, form) for key, form in _REGISTERED))
    console.print(table)


def registers_scans(store: str, register: str | None) -> bool:
    """Return True if the command registers scans, for which it needs workers; for parameters see the command."""
    return registration_of(open_cohort(store), register) is not None


def followup_values(store: str, result: FollowupResult) -> dict[str, Any]:
    """Return the result, JSON-ready."""
    return {
        "store": store,
        "done": result.done,
        "failed": spelled(result.failed),
        "notes": {name: [printable(note) for note in notes] for name, notes in result.notes.items()},
        "remarks": [printable(remark) for remark in result.remarks],
        "model_id": None if result.model_id is None else str(result.model_id),
        "followup": result.rows,
        "mean_change": None if result.mean_change is None else result.mean_change.to_dict(),
    }


def _number(row: Row, key: str, form: str) -> str:
    value = float(row[key])
    return f"{value:{form}}" if isfinite(value) else ""


def _interval(row: Row) -> str:
    value, low, high = (_number(row, f"{_CHANGE}_corrected{end}", "+.1f") for end in ("", "_low", "_high"))
    return f"{value} ({low}, {high})" if value else ""
