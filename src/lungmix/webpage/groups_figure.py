"""Figure of a measurement by group: box plots, and a point for each scan; scans of one patient are joined by a line."""

from __future__ import annotations

import textwrap
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungmix.analysis.group_comparison import GroupStudy
from lungmix.analysis.group_tests import Comparison, PairComparison
from lungmix.webpage.columns import title_of

_BOX, _EDGE, _MEDIAN, _POINT, _LINE = "#cfe0ee", "#3b5f7d", "#b5432a", "#3b5f7d", "#8a8a8a"
_LABEL_WIDTH = 18
_MAX_PAIRS = 6
"""Largest number of pairs of groups whose p values are above the boxes."""


def groups_figure(result: GroupStudy, measurement: str | None = None) -> Figure:
    """Draw a measurement by group.

    Boxes show median and quartiles, whiskers minimum and maximum. P values in brackets above them are those of pairs,
    corrected for the pairs by the method of Holm. That in the title is corrected for the measurements.

    Parameters
    ----------
    result : GroupStudy
        The comparison, or the table of a cohort without groups, which is one box.
    measurement : str, optional
        Measurement to draw; by default the first one that is tested.
    """
    measurement = measurement or next(iter(result.scans[0].values))
    names = list(result.groups) or ["all scans"]
    members = [[scan for scan in result.scans if not result.groups or scan.group == name] for name in names]
    members = [[scan for scan in scans if np.isfinite(scan.values[measurement])] for scans in members]
    figure = Figure(figsize=(max(4.2, 1.6 + 1.5 * len(names)), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    values = [np.array([scan.values[measurement] for scan in scans]) for scans in members]
    drawn = [n for n, group in enumerate(values) if len(group) > 2]
    if drawn:
        axes.boxplot(
            [values[n] for n in drawn], positions=drawn, widths=0.55, whis=(0, 100), showfliers=False,
            patch_artist=True, boxprops={"facecolor": _BOX, "edgecolor": _EDGE}, whiskerprops={"color": _EDGE},
            capprops={"color": _EDGE}, medianprops={"color": _MEDIAN, "linewidth": 2}, zorder=1, manage_ticks=False,
        )  # fmt: skip
    # Points are shifted sideways at random, later scans of a patient to the right of earlier ones. A fixed seed gives
    # the same figure in each run.
    random = np.random.default_rng(0)
    points: dict[int, list[tuple[float, float]]] = {}
    for n, scans in enumerate(members):
        shifts = random.uniform(-0.2, 0.2, len(scans))
        numbers = np.array([scan.patient for scan in scans])
        for patient in dict.fromkeys(numbers.tolist()):
            positions = np.flatnonzero(numbers == patient)
            for position, shift in zip(positions, np.sort(shifts[positions]), strict=True):
                points.setdefault(patient, []).append((n + float(shift), scans[position].values[measurement]))
    for of_patient in points.values():
        for (x, y), (other_x, other_y) in pairwise(of_patient):
            axes.plot([x, other_x], [y, other_y], color=_LINE, linewidth=0.8, zorder=2)
    at = np.array([point for of_patient in points.values() for point in of_patient]).reshape(-1, 2)
    axes.scatter(at[:, 0], at[:, 1], s=18, color=_POINT, alpha=0.65, linewidth=0, zorder=3)
    labels = [
        "\n".join([*textwrap.wrap(name, _LABEL_WIDTH), _sizes(len({s.patient for s in scans}), len(scans))])
        for name, scans in zip(names, members, strict=True)
    ]
    # Dollar signs would begin formulae.
    axes.set_xticks(range(len(names)), [label.replace("$", r"\$") for label in labels])
    axes.set(xlim=(-0.6, len(names) - 0.4), ylabel=title_of(measurement))
    if len(at) and at[:, 1].min() >= 0:
        axes.set_ylim(bottom=0)
    comparison = next((item for item in result.comparisons if item.measurement == measurement), None)
    if comparison is not None and len(at):
        _draw_p_values(axes, comparison, names, float(at[:, 1].min()), float(at[:, 1].max()))
        tested = [s for n, scans in zip(names, members, strict=True) if n in result.compared for s in scans]
        of = ", first scans" if comparison.scans < len(tested) else ""
        title = f"{comparison.test}{of}: {p_text(comparison.p_holm)}\n{_correction(result, comparison)}"
        axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    if any(len(of_patient) > 1 for of_patient in points.values()):
        axes.plot([], [], color=_LINE, linewidth=0.8, label="scans of one patient")
        figure.legend(loc="outside lower right", frameon=False, fontsize=9)
    return figure


def p_text(p: float) -> str:
    """Return a p value as text, such as ``p = 0.012`` or ``p < 0.001``."""
    return "no p value" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def _correction(result: GroupStudy, comparison: Comparison) -> str:
    """Return what the p values of the title and of the brackets are corrected for."""
    n_measurements, n_pairs = len(result.comparisons), len(_pairs_with_brackets(comparison))
    families = [f"this p for {n_measurements} measurements"] if n_measurements > 1 else []
    families += [f"p of brackets for {n_pairs} pairs"] if n_pairs else []
    return f"corrected by Holm's method: {', '.join(families)}" if families else "p not corrected"


def _pairs_with_brackets(comparison: Comparison) -> list[PairComparison]:
    pairs = [pair for pair in comparison.pairs if not np.isnan(pair.p)]
    return [] if len(comparison.pairs) == 1 or len(pairs) > _MAX_PAIRS else pairs


def _sizes(patients: int, scans: int) -> str:
    return f"n = {scans}" if patients == scans else f"{patients} patients, {scans} scans"


def _draw_p_values(axes, comparison: Comparison, names: list[str], low: float, high: float) -> None:  # type: ignore[no-untyped-def]
    pairs = _pairs_with_brackets(comparison)
    if not pairs:
        return
    step = 0.09 * max(high - low, 1e-9)
    spans = sorted(((names.index(pair.first), names.index(pair.second), pair.p_holm) for pair in pairs),
                   key=lambda span: (span[1] - span[0], span[0]))  # fmt: skip
    for row, (first, second, p) in enumerate(spans, start=1):
        y = high + row * step
        axes.plot(
            [first, first, second, second], [y - 0.2 * step, y, y, y - 0.2 * step], color="#444444", linewidth=0.8
        )
        axes.text((first + second) / 2, y, p_text(p), ha="center", va="bottom", fontsize=8)
    axes.set_ylim(top=high + (len(spans) + 1.2) * step)
