"""``lungmix scan``: list every series of a source, and whether it would be used, skipped or rejected."""

from __future__ import annotations

import typer
from rich.console import Console

from lungmix.cli import options as opt
from lungmix.cli.option_groups import SeriesOptions, option_groups
from lungmix.cli.output import emit

_WIDTH = 160


@opt.example(
    "lungmix scan hospital/",
    "lungmix scan hospital/ --series-filter 'kernel=B70*,thickness<=1.5' --json",
    "lungmix scan 'dicomweb+https://pacs.example.org/dicom-web?StudyDate=20260101-20260131&Modality=CT'",
)
@option_groups
def scan(
    sources: opt.Sources,
    *,
    series: SeriesOptions,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """List every series and file of the sources: used, skipped or rejected, and why. Nothing is written."""
    from lungmix.cli.progress import callback_for
    from lungmix.cli.show_scan import findings_values, show_findings
    from lungmix.formats import RejectedSource
    from lungmix.intake.discovery import discover_scans

    findings = list(discover_scans(sources, series.rules(), callback_for(quiet=quiet)))
    console = Console()
    # Output to a file has no width, so set one.
    console = console if console.is_terminal else Console(width=_WIDTH)
    emit(findings_values(findings), lambda console: show_findings(console, findings), as_json, console)
    if any(isinstance(finding.result, RejectedSource) for finding in findings):
        raise typer.Exit(1)
