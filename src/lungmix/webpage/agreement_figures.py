"""Figures of an evaluation: volumes and their differences after Bland and Altman, and the slices that differ most.

An evaluation compares segments of the store, such as the right lung, with references, which are masks from files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lungmix.errors import StoreError, count_of
from lungmix.kernels.surfaces import Mask
from lungmix.stages.worst_slices import WorstSlice
from lungmix.store import Cohort
from lungmix.store.tables import Row
from lungmix.webpage.figures import LUNG_WINDOW, body_of

STORE_COLOR, REFERENCE_COLOR = "#ffb000", "#34b3ff"
"""Colours of the contours of the store and of the reference; people with any colour vision can distinguish them."""

_POINT, _LINE, _MEAN = "#3b5f7d", "#8a949e", "#b5432a"
_MIN_LIMITS = 3
_MAX_REGIONS = 4
_COLUMNS = 3


def limits_of_agreement(rows: Sequence[Row]) -> tuple[float, float, float] | None:
    """Return the mean difference of volumes, and the limits 1.96 standard deviations below and above it.

    Parameters
    ----------
    rows : sequence of dict
        Rows of ``evaluation.csv`` of one region.

    Returns
    -------
    tuple of float or None
        Mean, lower and upper limit in mL; None for fewer than three cases.
    """
    if len(rows) < _MIN_LIMITS:
        return None
    differences = np.array([float(row["volume_ml"]) - float(row["reference_ml"]) for row in rows])
    mean, spread = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    return mean, mean - spread, mean + spread


def agreement_figure(rows: Sequence[Row]) -> Figure:
    """Draw volumes of the store against volumes of the reference, and their differences after Bland and Altman.

    The figure has one row per region.

    Parameters
    ----------
    rows : sequence of dict
        Rows of ``evaluation.csv``; the first four regions are drawn.
    """
    regions = list(dict.fromkeys(str(row["region"]) for row in rows))[:_MAX_REGIONS]
    figure = Figure(figsize=(10, 3.5 * len(regions)), layout="constrained")
    FigureCanvasAgg(figure)
    for (left, right), region in zip(figure.subplots(len(regions), 2, squeeze=False), regions, strict=True):
        of_region = [row for row in rows if row["region"] == region]
        volumes = np.array([float(row["volume_ml"]) for row in of_region])
        references = np.array([float(row["reference_ml"]) for row in of_region])
        title = f"{region}, {count_of(len(of_region), 'case')}"
        top = 1.08 * max(float(volumes.max()), float(references.max()), 1.0)
        left.plot((0, top), (0, top), color=_LINE, linewidth=1.2, zorder=1)
        left.scatter(references, volumes, s=28, color=_POINT, alpha=0.75, linewidth=0, zorder=3)
        left.set(xlim=(0, top), ylim=(0, top), xlabel="reference (mL)", ylabel="store (mL)", aspect="equal")
        left.set_title(f"Volumes: {title}", loc="left", fontsize=11, fontweight="bold")
        _draw_differences(right, volumes, references, limits_of_agreement(of_region))
        right.set_title(f"Differences: {title}", loc="left", fontsize=11, fontweight="bold")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color="#ececec", linewidth=0.8, zorder=0)
            axes.set_axisbelow(True)
    return figure


def worst_slices_figure(cohort: Cohort, slices: Sequence[WorstSlice], rows: Sequence[Row]) -> Figure:
    """Draw stored slices in which store and reference differ most, with the contours of both.

    Parameters
    ----------
    cohort : Cohort
        The store.
    slices : sequence of WorstSlice
        Slices to draw.
    rows : sequence of dict
        Rows of ``evaluation.csv``, for the titles.
    """
    dice = {(row["case"], row["region"]): float(row["dice"]) for row in rows}
    columns = min(len(slices), _COLUMNS)
    lines = -(-len(slices) // columns)
    figure = Figure(figsize=(max(3.5 * columns, 5.0), 3.4 * lines + 0.4))
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", h_pad=0.06)
    grid = figure.subplots(lines, columns, squeeze=False).reshape(-1)
    for axes, worst in zip(grid, slices, strict=False):
        case = cohort[worst.case]
        title = f"{worst.case}, slice {worst.position}\n{worst.region}, Dice {dice[worst.case, worst.region]:.3f}"
        try:
            ct, segment = case.zarr_array("ct")[worst.position], worst.segment(case)
        except (StoreError, OSError):
            axes.set_title(f"{title}\nno picture: it cannot be read", loc="left", fontsize=9)
            continue
        box = body_of(ct)
        aspect = case.geometry.spacing[1] / case.geometry.spacing[0]
        axes.imshow(ct[box], cmap="gray", vmin=LUNG_WINDOW[0], vmax=LUNG_WINDOW[1], aspect=aspect)
        for mask, color in ((worst.reference, REFERENCE_COLOR), (segment, STORE_COLOR)):
            _draw_contour(axes, mask[box], color)
        axes.set_title(title, loc="left", fontsize=9)
    for axes in grid:
        axes.set_axis_off()
    handles = [
        Line2D([], [], color=color, linewidth=2, label=label)
        for color, label in ((STORE_COLOR, "store"), (REFERENCE_COLOR, "reference"))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_differences(axes: Any, volumes: Any, references: Any, limits: tuple[float, float, float] | None) -> None:
    means, differences = (volumes + references) / 2, volumes - references
    axes.axhline(0, color=_LINE, linewidth=1.2, zorder=1)
    axes.scatter(means, differences, s=28, color=_POINT, alpha=0.75, linewidth=0, zorder=3)
    axes.set(xlabel="mean of store and reference (mL)", ylabel="store less reference (mL)")
    reach = 1.25 * max(float(np.abs(differences).max()), 1.0)
    if limits is not None:
        for value, style in zip(limits, ("-", "--", "--"), strict=True):
            axes.axhline(value, color=_MEAN, linewidth=1.4, linestyle=style, zorder=2)
            axes.annotate(
                f"{value:+.0f}".replace("-", "−"), (1, value), xycoords=("axes fraction", "data"),
                xytext=(4, 0), textcoords="offset points", ha="left", va="center", fontsize=9, color=_MEAN,
            )  # fmt: skip
        reach = max(reach, *(1.25 * abs(value) for value in limits))
    axes.set_ylim(-reach, reach)


def _draw_contour(axes: Any, mask: Mask, color: str) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[color], linewidths=1.1)
