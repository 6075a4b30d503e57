"""Print evaluations on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console

from lungmix.cli.redaction import printable
from lungmix.cli.show import show_notes, show_outcomes
from lungmix.cli.show_fits import new_table
from lungmix.cli.spelling import spelled
from lungmix.pipeline.evaluation import EvaluationResult
from lungmix.store.schema import EVALUATION_FILE
from lungmix.store.tables import Row

_COLUMNS = (
    ("dice", "Dice", 3),
    ("asd_mm", "ASD", 2),
    ("hd95_mm", "HD95", 1),
    ("surface_dice_3mm", "3 mm", 3),
    ("volume_ml", "mL", 0),
    ("reference_ml", "ref. mL", 0),
    ("volume_difference_percent", "diff. %", 1),
)
_MIN_SHARE = 0.01
_EXPLANATIONS = (
    "ASD: mean distance between the surfaces of mask and reference, mm; HD95: 95th percentile of this distance; 3 mm: "
    "part of the surfaces at most 3 mm from the other surface"
)


def show_evaluation(console: Console, result: EvaluationResult, store: str) -> None:
    """Print one row per region of a case, medians by region, sensitivity by HU, notes and failed cases.

    Parameters
    ----------
    console : Console
        Terminal or file to print to.
    result : EvaluationResult
        Result of the command.
    store : str
        Folder or URL of the store.
    """
    if result.rows:
        table = new_table("Agreement with the reference", "case", "region", *(title for _, title, _ in _COLUMNS))
        table.columns[1].justify = "left"
        for row in result.rows:
            table.add_row(
                str(row["case"]), str(row["region"]), *(_number(row, key, digits) for key, _, digits in _COLUMNS)
            )
        console.print(table)
    if result.by_hu:
        title = f"Sensitivity by HU, all cases, bins with at least {_MIN_SHARE:.0%} of a reference"
        table = new_table(title, "region", "from HU", "to HU", "ref. mL", "sensitivity")
        for region, low, high, volume, sensitivity in pooled_by_hu(result.by_hu):
            table.add_row(region, str(low), str(high), f"{volume:.1f}", f"{sensitivity:.3f}")
        console.print(table)
    show_notes(console, result.notes)
    show_outcomes(console, result)
    if result.rows:
        for line in (*result.statistics(), _EXPLANATIONS, f"table: {store.rstrip('/')}/{EVALUATION_FILE}"):
            _print(console, line)
    kept = f" ({len(result.kept)} of them as compared before)" if result.kept else ""
    console.print(f"{len(result.done)} done{kept}, {len(result.failed)} failed", highlight=False)


def evaluation_values(store: str, result: EvaluationResult) -> dict[str, Any]:
    """Return the result, JSON-ready."""
    return {
        "store": store,
        "done": result.done,
        "kept": result.kept,
        "failed": spelled(result.failed),
        "skipped": spelled(result.skipped),
        "notes": {name: [printable(note) for note in notes] for name, notes in result.notes.items()},
        "evaluation": result.rows,
        **({"by_hu": result.by_hu} if result.by_hu else {}),
    }


def pooled_by_hu(rows: list[Row]) -> list[tuple[str, int, int, float, float]]:
    """Return sensitivity by HU over all cases: region, first and last HU of a bin, reference volume, sensitivity.

    Bins with less than 1 % of the reference volume of their region are left out.
    """
    pooled: dict[tuple[str, int, int], list[float]] = {}
    for row in rows:
        total = pooled.setdefault((str(row["region"]), int(row["from_hu"]), int(row["to_hu"])), [0.0, 0.0])
        total[0] += float(row["reference_ml"])
        total[1] += float(row["reference_ml"]) * float(row["sensitivity"])
    totals: dict[str, float] = {}
    for (region, _, _), (volume, _) in pooled.items():
        totals[region] = totals.get(region, 0.0) + volume
    return [
        (*key, volume, labelled / volume)
        for key, (volume, labelled) in sorted(pooled.items())
        if volume >= _MIN_SHARE * totals[key[0]]
    ]


def _number(row: Row, key: str, digits: int) -> str:
    value = float(row[key])
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
