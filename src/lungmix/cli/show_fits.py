"""Print fits and studies on the terminal, or return them as JSON objects for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from lungmix.analysis.bootstrap import EXPECTED_INVOLVEMENT, INVOLVEMENT, Bootstrap, rows_of
from lungmix.analysis.comparison import Comparison
from lungmix.analysis.robustness import Robustness
from lungmix.cli.spelling import spelled
from lungmix.errors import encodable
from lungmix.kernels.measures import component_keys
from lungmix.mixture import Fits, TissueModel
from lungmix.parameters import FITS
from lungmix.tissue import TISSUES

_SHORT = {"paper": "paper", "converged": "conv.", "anchored": "anch."}
"""Short names of the fits, for tables with many columns in a width of 80 characters."""

_COLUMNS = {"weight": ("weight", ".4f"), "mean_hu": ("mean HU", ".1f"), "sd_hu": ("sd HU", ".1f")}

_NAMES = {tissue.key: tissue.name for tissue in TISSUES}


def show_comparison(console: Console, comparison: Comparison, model_name: str) -> None:
    """Print the fits side by side: parameters, MAP thresholds, lung involvement, quality and checks."""
    names = [row["fit"] for row in comparison.quality]
    table = new_table(f"Fits; the model of the store is {model_name}", "component", "", *names)
    for row in comparison.components:
        for column, (title, form) in _COLUMNS.items():
            cells = (f"{row[f'{name}.{column}']:{form}}" for name in names)
            table.add_row(_name(row["component"]) if title == "weight" else "", title, *cells)
    console.print(table)
    table = new_table("MAP thresholds, HU", "between", *names)
    for row in comparison.thresholds:
        table.add_row(f"{_name(row['from'])} | {_name(row['to'])}", *(f"{row[name]:.1f}" for name in names))
    if comparison.thresholds:
        console.print(table)
    if comparison.involvement:
        others = names[1:]
        table = new_table(
            f"Lung involvement, %, and difference from {names[0]}", "case", *names, *(_SHORT[name] for name in others)
        )
        for row in comparison.involvement:
            differences = (f"{row[name] - row[names[0]]:+.2f}" for name in others)
            table.add_row(str(row["case"]), *(f"{row[name]:.2f}" for name in names), *differences)
        console.print(table)
    table = new_table("Quality of the fits", "fit", "iterations", "log-likelihood a voxel", "BIC", "lower end HU")
    for row in comparison.quality:
        numbers = (f"{row['log_likelihood']:.7f}", f"{row['bic']:,.0f}", str(row["lower_end"]))
        table.add_row(row["fit"], str(row["iterations"]), *numbers)
    console.print(table)
    title = "Diagnosis; distance from the published model"
    table = new_table(title, "fit", "labels", "distance %", "LI points")
    for name, item in comparison.diagnosis.items():
        shift = item["involvement_shift"]
        result = "doubtful" if item["doubtful"] else "pass"
        table.add_row(name, result, f"{100 * item['distance']:.1f}", "" if math.isnan(shift) else f"{shift:+.1f}")
    console.print(table)
    for name, item in comparison.diagnosis.items():
        print_lines(console, *(f"{name}: {'' if row['fails'] else 'remark: '}{row['text']}" for row in item["checks"]))


def show_selection(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print a table of log-likelihood and BIC by number of components; a star marks the lowest BIC of each fit."""
    names = [name for name in FITS if f"{name}.bic" in rows[0]]
    titles = [f"{name}\n{what}" for name in names for what in ("log-likelihood", "BIC")]
    table = new_table("Number of components (log-likelihood a voxel)", "K", "free", *titles)
    lowest = {name: min(row[f"{name}.bic"] for row in rows) for name in names}
    for row in rows:
        cells = []
        for name in names:
            star = " *" if row[f"{name}.bic"] == lowest[name] else "  "
            cells += [f"{row[f'{name}.log_likelihood']:.6f}", f"{row[f'{name}.bic']:,.0f}{star}"]
        table.add_row(str(row["components"]), str(row["parameters"]), *cells)
    console.print(table)
    console.print("* lowest BIC; voxels are not independent, so BIC favours many components", highlight=False)
    console.print("nothing is stored: run again with --components K to store a mixture", highlight=False)


def show_mixture(console: Console, model: TissueModel, name: str) -> None:
    """Print the parameters of one mixture."""
    table = new_table(f"Mixture {name}", "component", "weight", "mean HU", "sd HU")
    keys = component_keys(model.n_components)
    for key, weight, mean, variance in zip(keys, model.weights, model.means, model.variances, strict=True):
        table.add_row(_name(key), f"{weight:.4f}", f"{mean:.1f}", f"{variance**0.5:.1f}")
    console.print(table)


def show_robustness(console: Console, result: Robustness, files: Sequence[Path]) -> None:
    """Print the distances between the fits of random groups, one row per size of groups and fit."""
    table = new_table(
        f"Total variation distance between groups out of {result.scans} scans, %",
        "scans", "groups", "shared", "fit", "mean", "largest", "to all",
    )  # fmt: skip
    for row in result.rows:
        about = [str(row["size"]), str(row["groups"]), f"{row['shared']:.0f}"]
        for name in result.cohort_fits:
            cells = (f"{100 * row[f'{name}.{what}']:.2f}" for what in ("distance", "largest", "to_whole"))
            table.add_row(*about, name, *cells)
            about = [""] * 3
    console.print(table)
    console.print("shared: scans that two groups of a size have in common, %", highlight=False)
    print_lines(console, *files)


def show_bootstrap(console: Console, result: Bootstrap, files: Sequence[Path]) -> None:
    """Print the confidence intervals of parameters and thresholds."""
    table = new_table(
        f"Fit '{result.fit}' of {result.scans} scans, {result.refits} refits, {result.level:g} % intervals over scans",
        "of", "quantity", "estimate", "low", "high", "s.e.",
    )  # fmt: skip
    for interval in result.intervals:
        digits = {"HU": 1, "%": 2}.get(interval.unit, 4)
        pair = interval.of.split(" → ")
        of = _name(interval.of) if len(pair) == 1 else " | ".join(key.replace("_", " ") for key in pair)
        numbers = (f"{v:.{digits}f}" for v in (interval.estimate, interval.low, interval.high, interval.error))
        quantity = {INVOLVEMENT: "LI", EXPECTED_INVOLVEMENT: "expected LI"}.get(interval.name, interval.name)
        table.add_row(of, f"{quantity} {interval.unit}".rstrip(), *numbers)
    console.print(table)
    print_lines(console, *(f"note: {note}" for note in result.notes), *files)


def fits_json(fits: Fits | None, comparison: Comparison | None, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return fits, their comparison and the table of BIC, as far as they are given, JSON-ready."""
    out: dict[str, Any] = {}
    if fits is not None:
        out["fits"] = {name: model_values(model) for name, model in fits.items()}
    if comparison is not None:
        tables = {key: value for key, value in asdict(comparison).items() if key != "components"}
        # Under "quality" are the rows of quality control.
        out |= {"fit_quality" if key == "quality" else key: value for key, value in tables.items()}
    if rows:
        out["bic"] = list(rows)
    return out


def robustness_values(store: str, result: Robustness, files: Sequence[Path]) -> dict[str, Any]:
    """Return the result of a robustness study, JSON-ready."""
    groups = [
        {"size": g.size, "cases": g.cases, "fits": {name: model_values(model) for name, model in g.fits.items()}}
        for g in result.groups
    ]
    cohort_fits = {name: model_values(model) for name, model in result.cohort_fits.items()}
    return {
        "store": store, "scans": result.scans, "sizes": result.rows, "groups": groups, "whole": cohort_fits,
        "files": list(map(str, files)),
    }  # fmt: skip


def bootstrap_values(store: str, result: Bootstrap, files: Sequence[Path]) -> dict[str, Any]:
    """Return the intervals of a bootstrap, JSON-ready."""
    return {
        "store": store, "fit": result.fit, "scans": result.scans, "refits": result.refits, "level": result.level,
        "notes": spelled(result.notes), "intervals": rows_of(result), "model": model_values(result.model),
        "files": list(map(str, files)),
    }  # fmt: skip


def to_json(value: Any) -> str:
    """Return JSON text, in which NaN and infinity are null and characters that UTF-8 cannot encode are escaped."""
    return json.dumps(_json_ready(value), indent=2, allow_nan=False)


def print_lines(console: Console, *lines: object) -> None:
    """Print lines as plain text, without markup; long lines are left to the terminal to fold."""
    for line in lines:
        console.print(str(line), markup=False, highlight=False, soft_wrap=True)


def new_table(title: str, *columns: str, texts: bool = False) -> Table:
    """Return an empty table in the style of the command line.

    The first column is text and the others are numbers; with `texts`, all columns are text.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=(0, 1))
    for number, column in enumerate(columns):
        is_number = number > 0 and not texts
        # Long texts fold, so that numbers are never cut.
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    return table


def _json_ready(value: Any) -> Any:
    if isinstance(value, dict):
        return {encodable(key) if isinstance(key, str) else key: _json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_json_ready, value))
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else encodable(str(value))


def model_values(model: TissueModel) -> dict[str, Any]:
    """Return a mixture with its MAP thresholds, JSON-ready."""
    return {**json.loads(model.to_json()), "thresholds_hu": model.map_thresholds()}


def _name(key: str) -> str:
    return _NAMES.get(key, key.replace("_", " "))
