"""Print the scans in sources as a table on the terminal, or return them as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix.cli.redaction import may_show_names, printable
from lungmix.cli.show_fits import print_lines
from lungmix.errors import mark_path
from lungmix.formats import RejectedSource, Scan
from lungmix.formats.scan import Series
from lungmix.intake.discovery import DiscoveredScan

_VERDICTS = ("used", "skipped", "rejected")


def show_findings(console: Console, findings: Sequence[DiscoveredScan]) -> None:
    """Print a table with one row per scan or file, then the notes on used scans and the reasons why others are not."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for title in ("item", "path", "series", "files", "size", "spacing mm", "kernel", "mm", "verdict"):
        table.add_column(title, overflow="fold", no_wrap=title in ("item", "size", "verdict"))
    for finding in findings:
        series = _series_of(finding)
        table.add_row(
            finding.source_label.removeprefix("source ").replace(", item ", "."),
            printable(mark_path(Path(finding.result.path))) if may_show_names() else "",
            _text(series and series.number),
            _text(series and series.files),
            "" if series is None or not all(series.size) else "x".join(map(str, series.size)),
            "" if series is None or series.spacing is None else "x".join(f"{s:.3g}" for s in series.spacing),
            _text(series and series.kernel),
            "" if series is None or series.thickness is None else f"{series.thickness:g}",
            _verdict(finding),
        )
    console.print(table)
    for finding in findings:
        print_lines(console, *(f"{finding.source_label}: {printable(line)}" for line in _lines(finding)))
    counts = [sum(_verdict(finding) == verdict for finding in findings) for verdict in _VERDICTS]
    console.print(", ".join(f"{n} {verdict}" for n, verdict in zip(counts, _VERDICTS, strict=True)), highlight=False)


def findings_values(findings: Sequence[DiscoveredScan]) -> dict[str, Any]:
    """Return scans and files with their verdicts (used, skipped, rejected), JSON-ready and without names of files."""
    return {"found": [_object(finding) for finding in findings]}


def _object(finding: DiscoveredScan) -> dict[str, Any]:
    source, series = finding.result, _series_of(finding)
    values: dict[str, Any] = {"place": finding.source_label, "verdict": _verdict(finding)}
    if isinstance(source, Scan):
        values |= {"kind": source.kind, "notes": [printable(note) for note in source.notes]}
    else:
        values["reason"] = printable(source.reason)
    return values if series is None else values | {"series": asdict(series)}


def _series_of(finding: DiscoveredScan) -> Series | None:
    source = finding.result
    if source.series is None and isinstance(source, Scan):
        return Series(None, len(source.files), source.geometry.size, source.geometry.spacing)
    return source.series


def _verdict(finding: DiscoveredScan) -> str:
    if isinstance(finding.result, Scan):
        return "used"
    return "rejected" if isinstance(finding.result, RejectedSource) else "skipped"


def _lines(finding: DiscoveredScan) -> list[str]:
    source = finding.result
    if isinstance(source, Scan):
        return [f"note: {note}" for note in source.notes]
    return [f"{_verdict(finding)}: {source.reason}"]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
