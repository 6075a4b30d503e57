"""Figure of lung involvement by score, as box plots and as a scatter plot, like Figure 5 of Zaffino et al. 2021."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungmix.analysis.scores import ScoreStudy
from lungmix.kernels.severity import HIGHEST, LOWEST

_BOX, _EDGE, _MEDIAN, _POINT, _LINE = "#cfe0ee", "#3b5f7d", "#b5432a", "#3b5f7d", "#b5432a"


def score_figure(result: ScoreStudy) -> Figure:
    """Draw box plots of lung involvement by score, and the scatter plot with the least-squares line."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    scores = range(LOWEST, HIGHEST + 1)
    involvement = np.array([float(row["lung_involvement"]) for row in result.rows])
    given_scores = np.array([int(row["score"]) for row in result.rows])
    top = 1.06 * max(float(involvement.max()), 1.0)
    # Points are shifted sideways at random. A fixed seed gives the same figure in each run.
    jitter = np.random.default_rng(0).uniform(-0.16, 0.16, len(given_scores))
    boxes = [
        {"med": g["median"], "q1": g["lower"], "q3": g["upper"], "whislo": g["minimum"], "whishi": g["maximum"]}
        for g in result.groups
        if g["scans"]
    ]
    left.bxp(
        boxes, positions=[g["score"] for g in result.groups if g["scans"]], widths=0.55, showfliers=False,
        patch_artist=True, boxprops={"facecolor": _BOX, "edgecolor": _EDGE}, whiskerprops={"color": _EDGE},
        capprops={"color": _EDGE}, medianprops={"color": _MEDIAN, "linewidth": 2}, zorder=2,
    )  # fmt: skip
    left.scatter(given_scores + jitter, involvement, s=13, color=_POINT, alpha=0.45, linewidth=0, zorder=3)
    ticks = [f"{g['score']}\nn = {g['scans']}" for g in result.groups]
    left.set_xticks(list(scores), ticks)
    left.set(xlim=(LOWEST - 0.6, HIGHEST + 0.6), ylim=(0, top), xlabel="score S", ylabel="lung involvement LI (%)")
    left.set_title("Median, quartiles, minimum and maximum", loc="left", fontsize=11, fontweight="bold")
    ends = np.array([0.0, top])
    right.plot(ends, result.line.intercept + result.line.slope * ends, color=_LINE, linewidth=1.8, zorder=2)
    right.scatter(involvement, given_scores, s=30, color=_POINT, alpha=0.6, linewidth=0, zorder=3)
    right.set_yticks(list(scores))
    right.set(xlim=(0, top), ylim=(LOWEST - 0.3, HIGHEST + 0.3), xlabel="lung involvement LI (%)", ylabel="score S")
    right.set_title("Scans and the least-squares line", loc="left", fontsize=11, fontweight="bold")
    correlation = result.all
    p = "p < 1e-6" if correlation.p < 1e-6 else f"p = {correlation.p:.2g}"
    text = (
        f"C = {correlation.c:.2f}, {p}\n"
        f"{correlation.level:g} % interval {correlation.low:.2f} to {correlation.high:.2f}\n"
        f"S = {result.line.intercept:.2f} + {result.line.slope:.3f} LI, R² = {result.line.r2:.2f}"
    ).replace("-", "−")
    right.text(
        0.97, 0.05, text, transform=right.transAxes, ha="right", va="bottom", fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8}, zorder=4,
    )  # fmt: skip
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8, zorder=0)
        axes.set_axisbelow(True)
    return figure
