"""Files of the studies: a table as CSV and a figure as PNG and SVG each."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lungmix.analysis.bootstrap import Bootstrap, rows_of
from lungmix.analysis.robustness import Robustness
from lungmix.analysis.scores import ScoreStudy
from lungmix.webpage.curves import bootstrap_figure, robustness_figure, save_figure
from lungmix.webpage.files import publish
from lungmix.webpage.score_figure import score_figure


def write_robustness(result: Robustness, folder: str | Path) -> list[Path]:
    """``robustness.csv``, ``robustness.png`` and ``robustness.svg``; see `lungmix.analysis.robustness.Robustness`."""
    return _write(Path(folder), "robustness", result.rows, robustness_figure(result))


def write_bootstrap(result: Bootstrap, folder: str | Path) -> list[Path]:
    """``bootstrap.csv``, ``bootstrap.png`` and ``bootstrap.svg``; see `lungmix.analysis.bootstrap.Interval`."""
    return _write(Path(folder), "bootstrap", rows_of(result), bootstrap_figure(result))


def write_scores(result: ScoreStudy, folder: str | Path) -> list[Path]:
    """``scores.csv``, a line a scan, and Figure 5 as ``scores.png`` and ``scores.svg``."""
    return _write(Path(folder), "scores", result.rows, score_figure(result))


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as CSV text with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write(folder: Path, name: str, rows: Sequence[dict[str, Any]], figure: Figure) -> list[Path]:
    pictures = save_figure(figure, folder / f"{name}.png")
    table = folder / f"{name}.csv"
    publish(table, csv_of(rows).encode())
    return [table, *pictures]
