"""Summary of a run and overview of a store: tables for the terminal, one JSON object for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix._version import __version__
from lungmix.cli.redaction import may_show_names, printable
from lungmix.cli.show_fits import fits_json, new_table, print_lines, show_comparison, show_mixture, show_selection
from lungmix.cli.spelling import spelled
from lungmix.errors import count_of, first_of
from lungmix.pipeline import RunResult
from lungmix.pipeline.result import CaseResult
from lungmix.stages.measure import dictionary
from lungmix.stages.quality import NOT_MEASURED
from lungmix.store import MEASUREMENTS_FILE, ZONES_FILE
from lungmix.store.models import ModelUse
from lungmix.store.schema import stages_text
from lungmix.tissue import LOBES, ZONE_DEPTHS, ZONE_HALVES, ZONE_THIRDS
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

_ABBREVIATIONS = (
    "GGO: ground-glass opacity; cons.: consolidation; LI: lung involvement, percent of GGO, consolidation and other "
    "denser tissue"
)

_MAX_NAMES = 5


def show_result(console: Console, result: RunResult, store: str) -> None:
    """Print the result of a command: measurements, fits, notes, skipped and failed cases, and a summary.

    Parameters
    ----------
    console : Console
        Terminal or file to print to.
    result : RunResult
        Result of a command.
    store : str
        Folder or URL of the store.
    """
    if result.rows:
        columns = [column for column in _COLUMNS if column[0] in result.rows[0]]
        table = new_table("Measurements", "case", *(title for _, title, _ in columns))
        for row in result.rows:
            table.add_row(str(row["case"]), *(f"{float(row[key]):.{digits}f}" for key, _, digits in columns))
        console.print(table)
    show_zones(console, result.zones)
    if result.comparison is not None and result.model is not None:
        show_comparison(console, result.comparison, str(result.model_id))
    elif result.model is not None:
        show_mixture(console, result.model, str(result.model_id))
    if result.selection:
        show_selection(console, result.selection)
    show_notes(console, result.notes)
    show_outcomes(console, result)
    print_lines(
        console,
        *result.statistics(),
        *_flag_lines(result.quality),
        *_origin_of(store, result),
        *_usage_of(result),
    )
    skipped = f", {len(result.skipped)} skipped" if result.skipped else ""
    console.print(f"{len(result.done)} done, {len(result.failed)} failed{skipped}", highlight=False)


def show_zones(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the lung involvement of zones of both lungs, and of lobes, one row per case; nothing without rows."""
    involvement: dict[str, dict[str, str]] = {}
    for row in rows:
        involvement.setdefault(str(row["case"]), {})[str(row["zone"])] = f"{float(row['lung_involvement']):.1f}"
    parts = [(f"both_{part.key}", part.key) for part in (*ZONE_THIRDS, *ZONE_HALVES, *ZONE_DEPTHS)]
    lobes = [(lobe.key, f"{lobe.side.key} {lobe.region.split('_')[1]}") for lobe in LOBES]
    for title, columns in (("LI of lung zones, %", parts), ("LI of lobes, %", lobes)):
        cases = {name: values for name, values in involvement.items() if values.keys() & dict(columns).keys()}
        if cases:
            table = new_table(title, "case", *(heading for _, heading in columns))
            for name, values in cases.items():
                table.add_row(name, *(values.get(zone, "") for zone, _ in columns))
            console.print(table)


def show_outcomes(console: Console, result: CaseResult) -> None:
    """Print skipped and failed cases with their reasons.

    Cases with the same reason, except for the name of the case in it, are printed together if they are many.
    """
    for outcome, reasons in (("skipped", result.skipped), ("failed", result.failed)):
        texts = result.messages if may_show_names() else reasons
        alike: dict[str, list[str]] = {}
        for name in reasons:
            alike.setdefault(texts[name].replace(name, "CASE"), []).append(name)
        for text, names in alike.items():
            if len(names) > _MAX_NAMES:
                listed = first_of(names, _MAX_NAMES)
                print_lines(console, printable(f"{outcome}: {count_of(len(names), 'case')} ({listed}): {text}"))
                continue
            for name in names:
                print_lines(console, printable(f"{outcome}: {name}: {texts[name]}"))


def _origin_of(store: str, result: RunResult) -> list[str]:
    """Return lines that explain the table of measurements, and name presets, models, version and file."""
    if not result.rows:
        return []
    presets, models = (_counted(str(row[key]) for row in result.rows if key in row) for key in ("mask", "model"))
    masks = f"preset of the masks: {presets}; " if presets else ""
    labels = f"model of the labels: {models}; " if models else ""
    harmonised = _counted(str(row["harmonised"]) for row in result.rows if "harmonised" in row)
    hu = f"HU harmonised by: {harmonised}; " if harmonised else ""
    return [
        _ABBREVIATIONS,
        f"{masks}{hu}{labels}lungmix {__version__}",
        f"table: {store.rstrip('/')}/{MEASUREMENTS_FILE}",
        *([f"zones: {store.rstrip('/')}/{ZONES_FILE}"] if result.zones else []),
    ]


def _flag_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line with the number of flagged cases, of cases per flag, and of cases that were not measured.

    There is no line if there are no rows.
    """
    if not rows:
        return []
    counts = Counter(name for row in rows for name in str(row["flags"]).split())
    flagged = sum(bool(row["flags"]) for row in rows)
    names = ", ".join(f"{name} ({n})" for name, n in counts.most_common())
    unmeasured = sum(str(row["reasons"]).startswith(NOT_MEASURED) for row in rows)
    texts = [f"{flagged} of {count_of(len(rows), 'case')}{': ' if names else ''}{names}"]
    texts += [f"{NOT_MEASURED}: {unmeasured}"] if unmeasured else []
    return [f"to look at: {'; '.join(texts)}"]


def _usage_of(result: RunResult) -> list[str]:
    """Return a line with the time of all workers, the share of each stage, and the peak memory.

    There is no line if no task ran on workers.
    """
    stages = {stage: usage for stage, usage in result.spent.items() if usage.tasks}
    if not stages:
        return []
    seconds = sum(usage.worker_seconds for usage in stages.values())
    percents = (f"{stage} {100 * use.worker_seconds / max(seconds, 1e-9):.0f} %" for stage, use in stages.items())
    peak = max(usage.peak_bytes for usage in stages.values()) / (1 << 20)
    return [f"time: {seconds:.1f} s on workers ({', '.join(percents)}); peak memory of a worker: {peak:.0f} MiB"]


def show_notes(console: Console, notes: Mapping[str, Sequence[str]]) -> None:
    """Print each note once, with the names of its cases."""
    names_of: dict[str, list[str]] = {}
    for name, texts in notes.items():
        for text in texts:
            names_of.setdefault(printable(text), []).append(name)
    for text, names in names_of.items():
        print_lines(console, f"note: {first_of(names, _MAX_NAMES)}: {text}")


def result_values(store: str, result: RunResult) -> dict[str, Any]:
    """Return the result of a command, JSON-ready."""
    model = None if result.model is None else json.loads(result.model.to_json())
    return {
        "store": store,
        "done": result.done,
        "failed": spelled(result.failed),
        "skipped": spelled(result.skipped),
        "notes": {name: [printable(note) for note in notes] for name, notes in result.notes.items()},
        "sources": result.places,
        "model": model,
        "model_id": None if result.model_id is None else str(result.model_id),
        "stale_labels": result.stale,
        "measurements": result.rows,
        "quality": spelled(result.quality),
        "spacing_mm": result.spacings,
        "spent": {stage: spent.to_dict() for stage, spent in result.spent.items()},
        **({"radiomics": result.radiomics} if result.radiomics else {}),
        **({"zones": result.zones} if result.zones else {}),
        **fits_json(result.fits, result.comparison, result.selection),
    }


def show_overview(console: Console, overview: CohortOverview) -> None:
    """Print a table of cases, warnings and notes, and a table of scanners as in the paper's Table 1."""
    title = f"{overview.store}: {count_of(len(overview.cases), 'case')}"
    table = new_table(title, "case", "size", "spacing mm", "stages", "flags", texts=True)
    for case in overview.cases:
        size = " x ".join(map(str, case.size))
        spacing = " x ".join(f"{s:.3g}" for s in case.spacing)
        flags = [*([] if case.quality_measured else [NOT_MEASURED]), *(flag.name for flag in case.quality)]
        table.add_row(case.name, size, spacing, stages_text(case.stages), ", ".join(flags))
    console.print(table)
    warnings = [f"warning: {warning}" for warning in overview.warnings]
    notes = [f"{case.name}: {case.note}" for case in overview.cases if case.note]
    print_lines(
        console, *map(printable, (*_made_with(overview.made_with), *warnings, *notes, *overview.damaged.values()))
    )
    show_notes(console, {case.name: case.flags for case in overview.cases})
    table = new_table("Scanners", "manufacturer", "model", "CTs", "kVp", "slice thickness mm", texts=True)
    for row in overview.scanners:
        table.add_row(row.manufacturer, row.model, str(row.scans), row.kvp, row.thickness)
    console.print(table)
    console.print(f"{count_of(overview.slices, 'slice')}, {count_of(overview.voxels, 'voxel')}", highlight=False)


def _made_with(use: ModelUse) -> list[str]:
    """Return lines that name the presets of the masks and the mixtures of the labels."""
    lines = [f"model of the store: {use.stored}"] if use.stored else []
    for title, values in (("HU harmonised by", use.harmonised), ("masks", use.masks), ("labels by", use.labels)):
        text = _counted(map(str, values.values()))
        if text:
            lines.append(f"{title}: {text}")
    return lines


def _counted(values: Iterable[str]) -> str:
    """Return text with the distinct values; if there are several, each with the number of times that it occurs."""
    counts = Counter(values)
    return ", ".join(f"{value} ({n})" if len(counts) > 1 else value for value, n in counts.items())


def show_dictionary(console: Console) -> None:
    """Print the columns of the tables of measurements."""
    for name, columns in dictionary().items():
        table = Table(title=name, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
        for title in ("column", "unit", "meaning"):
            table.add_column(title, no_wrap=title != "meaning")
        for row in columns:
            table.add_row(row["column"], row["unit"], row["meaning"])
        console.print(table)
