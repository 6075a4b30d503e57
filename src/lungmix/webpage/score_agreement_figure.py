"""Figure of the agreement of the reader's scores with computed scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungmix.analysis.patient_bootstrap import Estimate
from lungmix.analysis.score_agreement import SCORES, SEVERE, Discrimination, ScoreAgreement
from lungmix.kernels.severity import interval_middles

_POINT, _LINE, _MEAN = "#3b5f7d", "#8a949e", "#b5432a"
_MAP = "Blues"
_DARK = 0.6
"""Fraction of the largest number of scans above which numbers are written in white."""


def score_agreement_figure(result: ScoreAgreement, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw four panels: confusion matrix, Bland-Altman plot, ROC curve, precision-recall curve.

    Parameters
    ----------
    result : ScoreAgreement
        Agreement of the scores.
    rows : sequence of mapping
        One row per scan, with ``score`` and ``lung_involvement``.
    """
    figure = Figure(figsize=(11, 9.6), layout="constrained")
    FigureCanvasAgg(figure)
    (table, difference), (roc, precision) = figure.subplots(2, 2)
    _draw_confusion(table, result)
    _draw_differences(difference, result, rows)
    _draw_roc(roc, result.discrimination)
    _draw_precision(precision, result.discrimination)
    return figure


def _title(axes: Axes, text: str) -> None:
    title, _, second = text.partition("\n")
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=20 if second else 6)
    if second:
        axes.annotate(second, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=9)


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _with_interval(estimate: Estimate, digits: int = 2) -> str:
    text = f"{estimate.value:.{digits}f}" if isfinite(estimate.value) else "undefined"
    if isfinite(estimate.low):
        text += f" ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"
    return _minus(text)


def _draw_confusion(axes: Axes, result: ScoreAgreement) -> None:
    counts = np.array(result.confusion)
    axes.imshow(counts, cmap=_MAP, vmin=0, vmax=max(int(counts.max()), 1), origin="lower")
    for row, column in np.ndindex(counts.shape):
        n = int(counts[row, column])
        color = "white" if n > _DARK * counts.max() else "#1c2833" if n else "#b3bac0"
        axes.text(column, row, str(n), ha="center", va="center", color=color, fontsize=11)
    for score in SCORES:
        axes.add_patch(Rectangle((score - 0.5, score - 0.5), 1, 1, fill=False, edgecolor=_LINE, linewidth=1))
    axes.set_xticks(list(SCORES))
    axes.set_yticks(list(SCORES))
    axes.set(xlabel="computed score", ylabel="reader's score")
    kappa = result.kappa
    texts = [f"{kind} {_with_interval(kappa[kind])}" for kind in ("quadratic", "linear")]
    _title(axes, f"Scans by both scores\nweighted kappa: {', '.join(texts)}")


def _draw_differences(axes: Axes, result: ScoreAgreement, rows: Sequence[Mapping[str, Any]]) -> None:
    involvement = np.array([float(row["lung_involvement"]) for row in rows])
    middles = interval_middles([int(row["score"]) for row in rows])
    differences = result.differences
    axes.axhline(0, color="#1c2833", linewidth=0.8, zorder=1)
    axes.axhline(differences.mean.value, color=_MEAN, linewidth=1.8, zorder=2)
    for limit in (differences.lower, differences.upper):
        axes.axhline(limit.value, color=_LINE, linewidth=1.4, linestyle="--", zorder=2)
    mean, difference = (involvement + middles) / 2, involvement - middles
    axes.scatter(mean, difference, s=26, color=_POINT, alpha=0.6, linewidth=0, zorder=3)
    axes.set(xlabel="mean of LI and the middle of the interval (%)", ylabel="LI − middle of the interval (points)")
    _title(axes, "LI and the middle of the interval of S")
    lines = (("mean", differences.mean), ("upper limit", differences.upper), ("lower limit", differences.lower))
    axes.text(
        0.97, 0.97, "\n".join(f"{name} {_with_interval(estimate, 1)}" for name, estimate in lines),
        transform=axes.transAxes, ha="right", va="top", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8}, zorder=4,
    )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    _tidy(axes)


def _draw_roc(axes: Axes, result: Discrimination | None) -> None:
    _title(axes, f"ROC curve of LI for S ≥ {SEVERE}")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if result is None:
        _draw_nothing(axes)
        return
    axes.plot([0, 1], [0, 1], color=_LINE, linewidth=0.8, linestyle="--")
    axes.plot(result.roc["false_positive_rate"], result.roc["true_positive_rate"], color=_POINT, linewidth=1.8)
    _draw_note(axes, f"area {_with_interval(result.auc)}\n{result.severe} of {result.severe + result.others} scans")
    _tidy(axes)


def _draw_precision(axes: Axes, result: Discrimination | None) -> None:
    _title(axes, f"Precision and recall of LI for S ≥ {SEVERE}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if result is None:
        _draw_nothing(axes)
        return
    share = result.severe / (result.severe + result.others)
    axes.axhline(share, color=_LINE, linewidth=0.8, linestyle="--")
    curve = result.precision_recall
    axes.plot(curve["recall"], curve["precision"], color=_POINT, linewidth=1.8, drawstyle="steps-post")
    _draw_note(axes, f"average precision {_with_interval(result.average_precision)}\nrandom order {share:.2f}")
    _tidy(axes)


def _draw_note(axes: Axes, text: str) -> None:
    axes.text(
        0.96, 0.05, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8}, zorder=4,
    )  # fmt: skip


def _draw_nothing(axes: Axes) -> None:
    text = f"no curve: scores below {SEVERE}\nand from {SEVERE} on are needed"
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=10)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
