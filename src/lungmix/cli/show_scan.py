"""What sources hold: a table for the terminal, and one JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix.cli.redaction import may_show_names, told
from lungmix.cli.show_fits import to_json
from lungmix.errors import mark_path
from lungmix.formats import RejectedSource, Scan
from lungmix.formats.scan import Series
from lungmix.intake.discovery import DiscoveredScan

_VERDICTS = ("used", "skipped", "refused")


def show_findings(console: Console, findings: Sequence[DiscoveredScan]) -> None:
    """A row for everything that was found, then the reasons and what should be known."""
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1))
    for title in ("item", "lies in", "series", "files", "size", "spacing mm", "kernel", "mm", "verdict"):
        table.add_column(title, overflow="fold", no_wrap=title in ("item", "size", "verdict"))
    for one in findings:
        series = _series_of(one)
        table.add_row(
            one.source_label.removeprefix("source ").replace(", item ", "."),
            told(mark_path(Path(one.result.path))) if may_show_names() else "",
            _text(series and series.number),
            _text(series and series.files),
            "" if series is None or not all(series.size) else "x".join(map(str, series.size)),
            "" if series is None or series.spacing is None else "x".join(f"{s:.3g}" for s in series.spacing),
            _text(series and series.kernel),
            "" if series is None or series.thickness is None else f"{series.thickness:g}",
            _verdict(one),
        )
    console.print(table)
    for one in findings:
        for line in _lines(one):
            console.print(f"{one.source_label}: {told(line)}", markup=False, highlight=False, soft_wrap=True)
    counts = [sum(_verdict(one) == verdict for one in findings) for verdict in _VERDICTS]
    console.print(", ".join(f"{n} {verdict}" for n, verdict in zip(counts, _VERDICTS, strict=True)), highlight=False)


def findings_json(findings: Sequence[DiscoveredScan]) -> str:
    """The same as one JSON object; files are not named in it."""
    return to_json({"found": [_object(one) for one in findings]})


def _object(finding: DiscoveredScan) -> dict[str, Any]:
    found, series = finding.result, _series_of(finding)
    known: dict[str, Any] = {"place": finding.source_label, "verdict": _verdict(finding)}
    if isinstance(found, Scan):
        known |= {"kind": found.kind, "notes": [told(note) for note in found.notes]}
    else:
        known["reason"] = told(found.reason)
    return known if series is None else known | {"series": asdict(series)}


def _series_of(finding: DiscoveredScan) -> Series | None:
    found = finding.result
    if found.series is None and isinstance(found, Scan):
        return Series(None, len(found.files), found.geometry.size, found.geometry.spacing)
    return found.series


def _verdict(finding: DiscoveredScan) -> str:
    if isinstance(finding.result, Scan):
        return "used"
    return "refused" if isinstance(finding.result, RejectedSource) else "skipped"


def _lines(finding: DiscoveredScan) -> list[str]:
    found = finding.result
    if isinstance(found, Scan):
        return [f"note: {note}" for note in found.notes]
    return [f"{_verdict(finding)}: {found.reason}"]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
