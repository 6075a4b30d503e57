"""Figures of follow-up: lung involvement and tissues of each patient over time, and changes with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lungmix.analysis.change import CORRECTED, IMPROVED, INVOLVEMENT, STABLE, WORSE
from lungmix.tissue import TISSUES
from lungmix.webpage.columns import title_of
from lungmix.webpage.followup import Patient

COLORS = {WORSE: "#c8501e", STABLE: "#8b939b", IMPROVED: "#0f6aa6", "": "#444444"}
"""Colour of a patient by the course of the lung involvement."""

MEASURES = ("lung_ml", "mass_g", *(tissue.key for tissue in TISSUES if tissue.key != "air"))
"""Columns of ``followup.csv`` in the figure of tissues."""

_MEANINGS = {
    WORSE: "worse",
    STABLE: "stable: the interval of the change contains 0",
    IMPROVED: "improved",
    "": "course unknown",
}
_CORRECTED = f"{INVOLVEMENT}_{CORRECTED}"
_MOST_NAMES = 12
"""Largest number of patients whose lines have names."""
_MOST_ROWS = 80
"""Largest number of patients whose changes have names."""
_ROW_INCHES = 0.2


def followup_figure(patients: Sequence[Patient]) -> Figure:
    """Draw lung involvement over time, one line per patient, and changes with their intervals, sorted.

    Lines are over days since the first scan, or over the numbers of scans if days of one patient are unknown. If there
    are few patients, dotted lines show the lung involvement at the lung volume of the first scan. The change is at this
    volume, too, or as measured if it is unknown there.
    """
    rows = min(len(patients), _MOST_ROWS)
    figure = Figure(figsize=(11, max(4.6, 1.6 + _ROW_INCHES * rows)), layout="constrained")
    FigureCanvasAgg(figure)
    lines, changes = figure.subplots(1, 2, width_ratios=(1.5, 1))
    handles, dotted = _handles(patients), None
    if len(patients) <= _MOST_NAMES and any(math.isfinite(v) for p in patients for v in p.values(_CORRECTED)):
        dotted = _CORRECTED
        handles.append(Line2D([], [], color="#444444", linestyle=":", label="LI at the lung volume of the first scan"))
    draw_lines(lines, patients, INVOLVEMENT, dotted=dotted)
    lines.set_ylabel("lung involvement LI (%)")
    _draw_changes(changes, patients)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def measures_figure(patients: Sequence[Patient], keys: Sequence[str]) -> Figure:
    """Draw small panels of several measurements over time, one line per patient.

    Parameters
    ----------
    patients : sequence of Patient
        Patients with changes.
    keys : sequence of str
        Columns of ``followup.csv``, one per panel.
    """
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(11, 0.6 + 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True).reshape(-1)
    for axes, key in zip(panels, keys, strict=False):
        draw_lines(axes, patients, key, named=False)
        axes.set_title(title_of(key), loc="left", fontsize=10)
    for axes in panels[len(keys) :]:
        axes.set_axis_off()
    for axes in panels[: max(0, len(keys) - columns)]:
        axes.set_xlabel("")
    for axes in panels[max(0, len(keys) - columns) : len(keys)]:
        axes.tick_params(labelbottom=True)
    figure.legend(handles=_handles(patients), loc="outside lower center", ncols=4, frameon=False)
    return figure


def draw_lines(
    axes: Any, patients: Sequence[Patient], key: str, *, dotted: str | None = None, named: bool = True
) -> None:
    """Draw a measurement over time, one line per patient; few patients have names at the ends of their lines.

    Parameters
    ----------
    axes : Axes
        Panel to draw in.
    patients : sequence of Patient
        Patients with changes.
    key : str
        Column of the measurement.
    dotted : str, optional
        Column of another measurement of the same kind, whose lines are dotted.
    named : bool
        False for no names.
    """
    axes.spines[["top", "right"]].set_visible(False)
    has_days = all(math.isfinite(day) for patient in patients for day in patient.values("days"))
    is_crowded = len(patients) > _MOST_NAMES
    highest, ends = 0.0, []
    # Patients with a clear change are drawn last, above the others.
    for patient in sorted(patients, key=lambda patient: patient.course in (WORSE, IMPROVED)):
        times = patient.values("days") if has_days else [float(number + 1) for number in range(len(patient.scans))]
        color = COLORS.get(patient.course, COLORS[""])
        for column, style in ((key, "-"), (dotted, ":")):
            values = [] if column is None else patient.values(column)
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                axes.plot(
                    times, values, color=color, linestyle=style, linewidth=1.1 if is_crowded else 1.8,
                    alpha=0.75 if is_crowded else 1, marker="o", markersize=3 if is_crowded else 4.5,
                    markeredgecolor="white", markeredgewidth=0.5,
                )  # fmt: skip
                highest = max(highest, *finite)
        last = patient.values(key)[-1]
        if math.isfinite(last):
            ends.append((times[-1], last, patient.name.removeprefix("patient-"), color))
    top = 1.08 * highest or 1.0
    axes.set_ylim(0, top)
    if has_days:
        axes.set_xlabel("days since the first scan")
        axes.set_xlim(left=-0.02 * max((end[0] for end in ends), default=1.0))
    else:
        largest = max(len(patient.scans) for patient in patients)
        axes.set_xlabel("scan")
        axes.set_xticks(range(1, largest + 1))
        axes.set_xlim(0.85, largest + 0.15)
    if named and not is_crowded:
        _draw_names(axes, ends, top)


def _draw_names(axes: Any, ends: Sequence[tuple[float, float, str, str]], top: float) -> None:
    """Write names at the ends of lines, moved apart where ends at similar times would overlap."""
    placed: list[tuple[float, float]] = []
    span = max((end[0] for end in ends), default=0.0) or 1.0
    for time, value, name, color in sorted(ends, key=lambda end: end[1]):
        height = value
        for other_time, other_height in sorted(placed, key=lambda other: other[1]):
            if abs(time - other_time) < 0.12 * span and abs(height - other_height) < 0.045 * top:
                height = other_height + 0.045 * top
        placed.append((time, height))
        axes.annotate(
            name, (time, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=color,
            annotation_clip=False,
        )  # fmt: skip


def _draw_changes(axes: Any, patients: Sequence[Patient]) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    changes = []
    for patient in patients:
        change = patient.change(corrected=True)
        change = change if math.isfinite(change.value) else patient.change()
        if math.isfinite(change.value):
            changes.append((change, patient))
    changes.sort(key=lambda pair: pair[0].value)
    for row, (change, patient) in enumerate(changes):
        color = COLORS.get(patient.course, COLORS[""])
        axes.plot([change.low, change.high], [row, row], color=color, linewidth=1.6, alpha=0.65, solid_capstyle="butt")
        axes.plot([change.value], [row], color=color, marker="o", markersize=4)
    axes.axvline(0, color="#222222", linewidth=0.8)
    is_named = len(changes) <= _MOST_ROWS
    names = [patient.name.removeprefix("patient-") for _, patient in changes] if is_named else []
    axes.set_yticks(range(len(changes)) if is_named else [], names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.7, max(len(changes), 1) - 0.3)
    axes.set_ylabel("patient" if is_named else f"{len(changes)} patients")
    axes.set_xlabel("change of LI, first to last scan (points)")


def _handles(patients: Sequence[Patient]) -> list[Line2D]:
    courses = {patient.course for patient in patients}
    counts = {course: sum(patient.course == course for patient in patients) for course in courses}
    return [
        Line2D([], [], color=color, marker="o", markersize=4.5, label=f"{_MEANINGS[course]} ({counts[course]})")
        for course, color in COLORS.items()
        if course in courses
    ]
