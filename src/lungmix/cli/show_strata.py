"""Print a study of strata on the terminal, or return it as a JSON object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lungmix.analysis.bootstrap import Interval, row_of
from lungmix.analysis.strata import Strata, Stratum
from lungmix.cli.redaction import printable
from lungmix.cli.show_fits import model_values, new_table, print_lines
from lungmix.tissue import TISSUES

_MOST_PAIRS = 15
_SHORT_NAMES = {"ggo": "GGO", "consolidation": "consol."}
_DIGITS = {"weight": 3, "mean": 0, "sd": 0}


def show_strata(console: Console, result: Strata, files: Sequence[Path]) -> None:
    """Print lung involvement and mixture of each group, distances between groups, and failed checks."""
    strata = [*result.groups, result.everything]
    table = new_table(
        f"Fit '{result.fit}' by {' and '.join(result.by)}; LI in %, {result.level:g} % intervals over scans",
        "group", "scans", "voxels", "LI, own fit", "LI, fit of all", "labels",
    )  # fmt: skip
    for stratum in strata:
        labels = "" if stratum.model is None else "doubtful" if stratum.is_doubtful else "pass"
        cells = (
            str(stratum.scans),
            f"{stratum.voxels / 1e6:.2f} M",
            _text(stratum.own_involvement),
            _text(stratum.pooled_involvement),
            labels,
        )
        table.add_row(_name(stratum), *cells)
    console.print(table)
    table = new_table("Mixtures", "group", "", *(_SHORT_NAMES.get(t.key, t.key) for t in TISSUES))
    for stratum in strata:
        if stratum.model is None:
            continue
        for quantity, digits in _DIGITS.items():
            intervals = [interval for interval in stratum.parameters if interval.name == quantity]
            title = f"{quantity} {intervals[0].unit}".rstrip()
            numbers = (f"{interval.estimate:.{digits}f}" for interval in intervals)
            table.add_row(_name(stratum) if quantity == "weight" else "", title, *numbers)
    console.print(table)
    table = new_table("Total variation distance between mixtures, %", "group", "other group", "distance")
    rows = sorted(result.distances, key=lambda row: -row["distance"])
    for row in rows[:_MOST_PAIRS]:
        table.add_row(*(escape(printable(row[key])) for key in ("first", "second")), f"{100 * row['distance']:.1f}")
    for stratum in result.compared:
        table.add_row(_name(stratum), "all scans", f"{100 * stratum.distance_to_all:.1f}")
    console.print(table)
    if len(rows) > _MOST_PAIRS:
        print_lines(console, f"{len(rows) - _MOST_PAIRS} smaller distances are in strata-distances.csv")
    for stratum in strata:
        failed = (check["text"] for check in stratum.checks if check["fails"])
        print_lines(console, *(printable(f"{stratum.group.name}: {text}") for text in failed))
    print_lines(console, *(f"note: {printable(note)}" for note in result.notes), *files)


def strata_values(store: str, result: Strata, files: Sequence[Path]) -> dict[str, Any]:
    """Return a study of strata, JSON-ready."""
    return {
        "store": store, "by": result.by, "fit": result.fit, "refits": result.refits, "level": result.level,
        "min_scans": result.min_scans, "groups": list(map(_values, result.groups)), "all": _values(result.everything),
        "distances": result.distances, "notes": result.notes, "files": list(map(str, files)),
    }  # fmt: skip


def _values(stratum: Stratum) -> dict[str, Any]:
    group = stratum.group
    values = {
        "group": group.name, "values": group.values, "cases": group.cases, "scans": stratum.scans,
        "voxels": stratum.voxels, "compared": stratum.model is not None,
    }  # fmt: skip
    if stratum.model is None:
        return values
    return values | {
        "model": model_values(stratum.model),
        "parameters": list(map(row_of, stratum.parameters)),
        "lung_involvement": [
            row_of(interval)
            for interval in (stratum.own_involvement, stratum.pooled_involvement)
            if interval is not None
        ],
        "distance_to_all": stratum.distance_to_all,
        "doubtful": stratum.is_doubtful,
        "checks": stratum.checks,
    }


def _text(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.estimate:.1f} ({interval.low:.1f}–{interval.high:.1f})"


def _name(stratum: Stratum) -> str:
    return escape(printable(stratum.group.name))
