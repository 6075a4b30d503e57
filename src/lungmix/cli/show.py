"""Tables for the terminal, and one JSON object for programs."""

from __future__ import annotations

import json
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix.pipeline import Report
from lungmix.report.overview import CohortOverview
from lungmix.tissue import TISSUES

_COLUMNS = (
    ("lung_ml", "lung mL", 0),
    ("air", "air %", 4),
    ("healthy", "healthy", 4),
    ("ggo", "GGO", 4),
    ("consolidation", "consol.", 4),
    ("other", "other", 4),
    ("lung_involvement", "LI %", 4),
)


def show_report(console: Console, report: Report) -> None:
    """Measurements, mixture, failures and how many cases went through."""
    if report.rows:
        table = Table(title="Measurements", title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
        table.add_column("case", no_wrap=True)
        shown = [column for column in _COLUMNS if column[0] in report.rows[0]]
        for _, title, _ in shown:
            table.add_column(title, justify="right", no_wrap=True)
        for row in report.rows:
            table.add_row(str(row["case"]), *(f"{float(row[key]):.{digits}f}" for key, _, digits in shown))
        console.print(table)
    if report.model is not None:
        table = Table(title="Mixture", title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
        for title in ("component", "weight", "mean HU", "sd HU"):
            table.add_column(title, justify="left" if title == "component" else "right")
        model = report.model
        names = (
            [t.name for t in TISSUES]
            if model.n_components == len(TISSUES)
            else list(map(str, range(1, model.n_components + 1)))
        )
        for name, weight, mean, variance in zip(names, model.weights, model.means, model.variances, strict=True):
            table.add_row(name, f"{weight:.4f}", f"{mean:.1f}", f"{variance**0.5:.1f}")
        console.print(table)
    for name, reason in report.failed.items():
        console.print(f"failed: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{len(report.done)} done, {len(report.failed)} failed", highlight=False)


def report_json(store: str, report: Report) -> str:
    """The same as one JSON object."""
    model = None if report.model is None else json.loads(report.model.to_json())
    return _dump(
        {
            "store": store,
            "done": report.done,
            "failed": report.failed,
            "model": model,
            "measurements": report.rows,
        }
    )


def show_overview(console: Console, overview: CohortOverview) -> None:
    """Cases with their stages, and the scanners as in the paper's Table 1."""
    table = Table(
        title=f"{overview.store}: {len(overview.cases)} cases",
        title_justify="left",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1),
    )
    for title in ("case", "size", "spacing mm", "stages"):
        table.add_column(title)
    for case in overview.cases:
        size = " x ".join(map(str, case.size))
        spacing = " x ".join(f"{s:.3g}" for s in case.spacing)
        table.add_row(case.name, size, spacing, ", ".join(case.stages))
    console.print(table)
    for case in overview.cases:
        if case.note:
            console.print(f"{case.name}: {case.note}", markup=False, highlight=False, soft_wrap=True)
    table = Table(title="Scanners", title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
    for title in ("manufacturer", "model", "CTs", "kVp", "slice thickness mm"):
        table.add_column(title)
    for row in overview.scanners:
        table.add_row(row.manufacturer, row.model, str(row.scans), row.kvp, row.thickness)
    console.print(table)
    console.print(f"{overview.slices:,} slices, {overview.voxels:,} voxels", highlight=False)


def overview_json(overview: CohortOverview) -> str:
    """The same as one JSON object."""
    return _dump(overview.to_dict())


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, default=str, allow_nan=True)
