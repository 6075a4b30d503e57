"""Output that several commands share: the result and the exit status, the HTML report, the figure of fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from lungmix.cli.redaction import debugging
from lungmix.cli.spelling import with_options
from lungmix.errors import UsageError, trace_of


def emit(values: Any, show: Callable[[Console], None], as_json: bool, console: Console | None = None) -> None:
    """Print the output of a command: `values` as one JSON object if `as_json`, or else what `show` prints."""
    from lungmix.cli.show_fits import to_json

    if as_json:
        typer.echo(to_json(values))
    else:
        show(console or Console())


def print_result_and_exit(store: str, result: Any, as_json: bool) -> None:
    """Print the result of a command; exit with status 1 if a case failed."""
    from lungmix.cli.show import result_values, show_result

    emit(result_values(store, result), lambda console: show_result(console, result, store), as_json)
    exit_if_failed(result)


def exit_if_failed(result: Any) -> None:
    """Exit with status 1 if a case failed. With ``--debug``, print the tracebacks of failed cases first."""
    for error in result.errors.values() if debugging() else ():
        if error.__traceback__ is not None:  # a rejected source raises nothing
            typer.echo(trace_of(error), err=True)
    if result.failed:
        raise typer.Exit(1)


def draw_fits(cohort: Any, result: Any, parameters: Any, file: Path) -> None:
    """Plot the fits over the histogram, and print the paths of the files that were written."""
    from lungmix.stages.fit import pool_counts
    from lungmix.webpage.curves import fits_figure, save_figure

    if result.fits is None:
        raise UsageError(
            "--figure needs one number of components and no model: omit --model and give --components one number"
        )
    figure = fits_figure(result.fits, pool_counts(cohort, result.done), parameters.clip)
    for path in save_figure(figure, file):
        typer.echo(f"figure: {path}", err=True)


def write_page_of(
    cohort: Any,
    folder: Path,
    failed: dict[str, str],
    score_file: Path | None = None,
    key_table: Path | None = None,
    *,
    posterior: str | None = None,
    quiet: bool,
) -> None:
    """Write the HTML report of a cohort, with scores and the posteriors of a tissue if they are given."""
    from lungmix.analysis.score_table import scores_of_cases
    from lungmix.cli.progress import callback_for
    from lungmix.intake.key_table import KeyTable
    from lungmix.stages.measure import read_measurements
    from lungmix.webpage.page import write_page

    callback = callback_for(quiet=quiet)
    key_rows = None if key_table is None else KeyTable.read(key_table).rows_of(cohort)
    scores = None if score_file is None else scores_of_cases(read_measurements(cohort), score_file, key_rows)
    page = write_page(cohort, folder, failed, scores=scores, posterior=posterior, callback=callback, spell=with_options)
    typer.echo(f"page: {page}", err=True)
