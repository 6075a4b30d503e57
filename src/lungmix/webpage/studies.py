"""Output files of studies: for each study, a table as CSV and a figure as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lungmix.analysis.bootstrap import Bootstrap, rows_of
from lungmix.analysis.group_comparison import GroupStudy, comparison_rows, scan_rows
from lungmix.analysis.readers import rows_of as rows_of_readers
from lungmix.analysis.robustness import Robustness
from lungmix.analysis.scores import ScoreStudy
from lungmix.analysis.severity import SeverityStudy
from lungmix.analysis.strata import Strata
from lungmix.analysis.strata import rows_of as rows_of_strata
from lungmix.store.tables import text_of
from lungmix.webpage.characteristics import csv_table, html_table, markdown_table
from lungmix.webpage.curves import bootstrap_figure, robustness_figure, save_figure
from lungmix.webpage.files import publish
from lungmix.webpage.groups_figure import groups_figure
from lungmix.webpage.readers_figure import readers_figure
from lungmix.webpage.score_agreement_figure import score_agreement_figure
from lungmix.webpage.score_figure import score_figure
from lungmix.webpage.strata_figure import strata_figure


def write_robustness(result: Robustness, folder: str | Path) -> list[Path]:
    """Write ``robustness.csv``, ``.png`` and ``.svg``; columns are those of `Robustness.rows`."""
    return _write(Path(folder), "robustness", result.rows, robustness_figure(result))


def write_bootstrap(result: Bootstrap, folder: str | Path) -> list[Path]:
    """Write ``bootstrap.csv``, ``.png`` and ``.svg``; the table has one line per interval."""
    return _write(Path(folder), "bootstrap", rows_of(result), bootstrap_figure(result))


def write_scores(result: ScoreStudy, folder: str | Path) -> list[Path]:
    """Write ``scores.csv``, one line per scan, a figure like Figure 5 of the publication, and one of the agreement.

    For several readers, also write ``scores-readers.csv``, one line per pair of readers, and a figure.
    """
    files = _write(Path(folder), "scores", result.rows, score_figure(result))
    agreement = score_agreement_figure(result.agreement, result.rows)
    files += save_figure(agreement, Path(folder) / "scores-agreement.png")
    if result.readers is not None:
        files += _write(Path(folder), "scores-readers", rows_of_readers(result.readers), readers_figure(result.readers))
    return files


def write_severity(result: SeverityStudy, folder: str | Path) -> list[Path]:
    """Write ``severity.csv``, one line per case, and ``severity-summary.csv``, one line per score.

    With the scores of a reader, also write ``severity-agreement.csv``, one line per score that was compared.
    """
    files = []
    tables = {"severity": result.rows, "severity-summary": result.summary, "severity-agreement": result.agreement}
    for name, rows in tables.items():
        if not rows:
            continue
        files.append(Path(folder) / f"{name}.csv")
        publish(files[-1], text_of(rows).encode())
    return files


def write_strata(result: Strata, folder: str | Path) -> list[Path]:
    """Write ``strata.csv``, one line per group, ``strata-distances.csv``, one line per pair of groups, and a figure."""
    table, *pictures = _write(Path(folder), "strata", rows_of_strata(result), strata_figure(result))
    distances = Path(folder) / "strata-distances.csv"
    publish(distances, text_of(result.distances).encode())
    return [table, distances, *pictures]


def write_groups(result: GroupStudy, folder: str | Path) -> list[Path]:
    """Write the table of characteristics, the comparisons of the groups, the scans, and a figure.

    The files are ``characteristics.csv``, ``.md`` and ``.html``, ``groups.csv`` with a line for each pair of groups and
    measurement, if groups are compared, ``groups-scans.csv``, and ``groups.png`` and ``.svg``.
    """
    place = Path(folder)
    files = []
    for suffix, text in (("csv", csv_table(result)), ("md", markdown_table(result)), ("html", html_table(result))):
        files.append(place / f"characteristics.{suffix}")
        publish(files[-1], text.encode())
    tables = {"groups": comparison_rows(result), "groups-scans": scan_rows(result)}
    for name, rows in tables.items():
        if rows:
            files.append(place / f"{name}.csv")
            publish(files[-1], text_of(rows).encode())
    return files + save_figure(groups_figure(result), place / "groups.png")


def _write(folder: Path, name: str, rows: Sequence[dict[str, Any]], figure: Figure) -> list[Path]:
    pictures = save_figure(figure, folder / f"{name}.png")
    table = folder / f"{name}.csv"
    publish(table, text_of(rows).encode())
    return [table, *pictures]
