"""What commands leave behind: a summary and the exit status, a page, a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from lungmix.cli.redaction import debugging
from lungmix.errors import UsageError, trace_of


def print_result_and_exit(store: str, report: Any, as_json: bool) -> None:
    """Show what a command did; exit with 1 if a case failed."""
    from lungmix.cli.show import report_json, show_report

    if as_json:
        typer.echo(report_json(store, report))
    else:
        show_report(Console(), report)
    for error in report.errors.values() if debugging() else ():
        typer.echo(trace_of(error), err=True)
    if report.failed:
        raise typer.Exit(1)


def draw_fits(cohort: Any, result: Any, parameters: Any, file: Path) -> None:
    """Draw both fits over the histogram."""
    from lungmix.stages.fit import pool_counts
    from lungmix.webpage.curves import fits_figure, save_figure

    if result.fits is None:
        raise UsageError("--figure shows the two fits of one number of components: leave --model and ranges out")
    figure = fits_figure(result.fits, pool_counts(cohort, result.done), parameters.clip)
    for path in save_figure(figure, file):
        typer.echo(f"figure: {path}", err=True)


def write_page_of(
    cohort: Any,
    folder: Path,
    failed: dict[str, str],
    score_file: Path | None = None,
    key: Path | None = None,
    *,
    quiet: bool,
) -> None:
    """Write the page of a cohort, with a radiologist's scores if there are some."""
    from lungmix.analysis.score_table import scores_of_cases
    from lungmix.cli.progress import callback_for
    from lungmix.intake.key_table import KeyTable
    from lungmix.stages.measure import read_measurements
    from lungmix.webpage.page import write_page

    callback = callback_for(Console(stderr=True), quiet=quiet)
    whose = None if key is None else KeyTable.read(key).rows_of(cohort)
    scores = None if score_file is None else scores_of_cases(read_measurements(cohort), score_file, whose)
    typer.echo(f"page: {write_page(cohort, folder, failed, scores=scores, callback=callback)}", err=True)
