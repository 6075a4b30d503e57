"""``lungmix scan``: every series of a source with its verdict, before anything is converted."""

from __future__ import annotations

import typer
from rich.console import Console

from lungmix.cli import options as opt

_WIDTH = 160


@opt.example(
    "lungmix scan hospital/",
    "lungmix scan hospital/ --series-filter 'kernel=B70*,thickness<=1.5' --json",
)
def scan(
    sources: opt.Sources,
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """List every series and file of the sources: used, skipped or rejected, and why. Nothing is written."""
    from lungmix.cli.progress import callback_for
    from lungmix.cli.show_scan import findings_json, show_findings
    from lungmix.formats import RejectedSource, SeriesFilter
    from lungmix.intake.discovery import discover_scans

    rules = SeriesFilter(series_filter, allow_gaps, trust_positions)
    findings = list(discover_scans(sources, rules, callback_for(Console(stderr=True), quiet=quiet)))
    if as_json:
        typer.echo(findings_json(findings))
    else:
        console = Console()
        # Without a terminal there is no width to fold lines to.
        show_findings(console if console.is_terminal else Console(width=_WIDTH), findings)
    if any(isinstance(finding.result, RejectedSource) for finding in findings):
        raise typer.Exit(1)
