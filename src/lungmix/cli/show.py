"""Tables for the terminal, and one JSON object for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix.cli.redaction import may_show_names, told
from lungmix.cli.show_fits import fits_json, new_table, show_comparison, show_mixture, show_selection, to_json
from lungmix.pipeline import RunResult
from lungmix.stages.measure import dictionary
from lungmix.store.models import ModelUse
from lungmix.store.stage_records import stages_text
from lungmix.webpage.overview import CohortOverview

_COLUMNS = (
    ("lung_ml", "mL", 0),
    ("right_ml", "right", 0),
    ("left_ml", "left", 0),
    ("air", "air %", 1),
    ("healthy", "healthy", 1),
    ("ggo", "GGO", 1),
    ("consolidation", "cons.", 1),
    ("other", "other", 1),
    ("lung_involvement", "LI %", 1),
)

_MOST_NAMES = 5


def show_report(console: Console, report: RunResult) -> None:
    """Measurements, mixture, what was skipped and failed, and how many cases went through."""
    if report.rows:
        shown = [column for column in _COLUMNS if column[0] in report.rows[0]]
        table = new_table("Measurements", "case", *(title for _, title, _ in shown))
        for row in report.rows:
            table.add_row(str(row["case"]), *(f"{float(row[key]):.{digits}f}" for key, _, digits in shown))
        console.print(table)
    if report.comparison is not None and report.model is not None:
        show_comparison(console, report.comparison, str(report.model_id))
    elif report.model is not None:
        show_mixture(console, report.model, str(report.model_id))
    if report.selection:
        show_selection(console, report.selection)
    if any(spent.tasks for spent in report.spent.values()):
        _show_spent(console, report)
    _show_notes(console, report.notes)
    for name, reason in report.skipped.items():
        reason = report.told[name] if may_show_names() else reason
        console.print(f"skipped: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    for name, reason in report.failed.items():
        reason = report.told[name] if may_show_names() else reason
        console.print(f"failed: {name}: {reason}", markup=False, highlight=False, soft_wrap=True)
    skipped = f", {len(report.skipped)} skipped" if report.skipped else ""
    console.print(f"{len(report.done)} done, {len(report.failed)} failed{skipped}", highlight=False)


def _show_notes(console: Console, notes: Mapping[str, Sequence[str]]) -> None:
    """Print each note once, with the names of what it is about."""
    about: dict[str, list[str]] = {}
    for name, texts in notes.items():
        for text in texts:
            about.setdefault(told(text), []).append(name)
    for text, names in about.items():
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        shown = f"{', '.join(names[:_MOST_NAMES])}{more}"
        console.print(f"note: {shown}: {text}", markup=False, highlight=False, soft_wrap=True)


def _show_spent(console: Console, report: RunResult) -> None:
    """Where the time went."""
    total = sum(spent.worker_seconds for spent in report.spent.values())
    table = new_table("Time", "stage", "cases", "worker s", "%", "client s", "tasks", "peak MiB")
    for stage, spent in report.spent.items():
        if spent.tasks:
            worker, share = f"{spent.worker_seconds:.1f}", f"{100 * spent.worker_seconds / max(total, 1e-9):.0f}"
            table.add_row(
                stage, str(spent.cases), worker, share, "", str(spent.tasks), f"{spent.peak_bytes / (1 << 20):.0f}"
            )
        else:
            table.add_row(stage, "", "", "", f"{spent.seconds:.1f}", "", "")
    console.print(table)


def report_json(store: str, report: RunResult) -> str:
    """The same as one JSON object."""
    model = None if report.model is None else json.loads(report.model.to_json())
    return to_json(
        {
            "store": store,
            "done": report.done,
            "failed": report.failed,
            "skipped": report.skipped,
            "notes": {name: [told(note) for note in notes] for name, notes in report.notes.items()},
            "sources": report.places,
            "model": model,
            "model_id": None if report.model_id is None else str(report.model_id),
            "stale_labels": report.stale,
            "measurements": report.rows,
            "spent": {stage: spent.to_dict() for stage, spent in report.spent.items()},
            **({"radiomics": report.radiomics} if report.radiomics else {}),
            **fits_json(report.fits, report.comparison, report.selection),
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
        table.add_row(case.name, size, spacing, stages_text(case.stages))
    console.print(table)
    for line in (*_made_with(overview.made_with), *(f"warning: {one}" for one in overview.warnings)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for case in overview.cases:
        if case.note:
            console.print(f"{case.name}: {case.note}", markup=False, highlight=False, soft_wrap=True)
    for reason in overview.damaged.values():
        console.print(reason, markup=False, highlight=False, soft_wrap=True)
    _show_notes(console, {case.name: case.flags for case in overview.cases})
    table = Table(title="Scanners", title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
    for title in ("manufacturer", "model", "CTs", "kVp", "slice thickness mm"):
        table.add_column(title)
    for row in overview.scanners:
        table.add_row(row.manufacturer, row.model, str(row.scans), row.kvp, row.thickness)
    console.print(table)
    console.print(f"{overview.slices:,} slices, {overview.voxels:,} voxels", highlight=False)


def _made_with(use: ModelUse) -> list[str]:
    """Lines that say which presets made the masks and which mixtures the labels."""
    lines = [f"model of the store: {use.stored}"] if use.stored else []
    for what, known in (("masks", use.masks), ("labels by", use.labels)):
        texts = Counter(map(str, known.values()))
        if texts:
            several = len(texts) > 1
            lines.append(f"{what}: " + ", ".join(f"{text} ({n})" if several else text for text, n in texts.items()))
    return lines


def overview_json(overview: CohortOverview) -> str:
    """The same as one JSON object."""
    return to_json(overview.to_dict())


def show_dictionary(console: Console) -> None:
    """Columns of the tables of measurements."""
    for name, columns in dictionary().items():
        table = Table(title=name, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
        for title in ("column", "unit", "meaning"):
            table.add_column(title, no_wrap=title != "meaning")
        for row in columns:
            table.add_row(row["column"], row["unit"], row["meaning"])
        console.print(table)


def dictionary_json() -> str:
    """The same as one JSON object."""
    return to_json(dictionary())
