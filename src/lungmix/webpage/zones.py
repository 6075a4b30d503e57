"""Lung zones in the report: a heat map of the lung involvement of a cohort, and the numbers of the sketch of a case."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungmix.kernels.data_dictionary import ALL
from lungmix.kernels.measures import measure_zones
from lungmix.mixture import TissueModel
from lungmix.stages.measure import has_zones
from lungmix.store import ZONES_FILE, Case, Cohort
from lungmix.store.tables import Row, rows_of
from lungmix.tissue import LUNGS, TISSUES, ZONE_HALVES, ZONE_THIRDS

COLUMNS = tuple(f"{side.key}_{third.key}_{half.key}" for side in LUNGS for third in ZONE_THIRDS for half in ZONE_HALVES)
"""Zones that the page shows: each half of each third of each lung, with core and peel together."""

LARGEST_LI = 60.0
"""Lung involvement, %, from which on all colours are the darkest, so that pages have the same colours."""

_MOST_NAMES = 80
_ROW_INCHES = 0.24


def involvement_by_zone(case: Case, model: TissueModel | None) -> dict[str, float]:
    """Return the lung involvement, %, of the zones of a case that the page shows.

    Parameters
    ----------
    case : Case
        Labelled case.
    model : TissueModel or None
        Mixture of its labels.

    Returns
    -------
    dict
        Lung involvement by the names of `COLUMNS`, without zones that have no voxels. It is empty if the case has no
        lung zones, or if its mixture has no tissues.
    """
    if model is None or model.n_components != len(TISSUES) or not has_zones(case):
        return {}
    rows = measure_zones(case.zone_counts, model.lookup_table(), case.geometry.voxel_ml, model.posterior_table())
    values = {str(row["zone"]): float(row["lung_involvement"]) for row in rows}
    return {name: round(values[name], 4) for name in COLUMNS if not isnan(values[name])}


def stored_involvement(cohort: Cohort, names: Sequence[str]) -> tuple[list[Row], str]:
    """Return the lung involvement by zone of cases, from ``zones.csv``, and the rule of their zones.

    Returns
    -------
    rows : list of dict
        One row per case with ``case`` and the names of `COLUMNS`, in the order of `names`. There are none if cases
        were labelled by several mixtures or divided by several rules, whose zones cannot be compared.
    by : str
        ``volume`` or ``height``; empty without rows.
    """
    stored = [row for row in rows_of(cohort.read_text(ZONES_FILE) or "") if row["case"] in names]
    kinds = {(row.get("model"), row.get("by")) for row in stored}
    if len(kinds) != 1:
        return [], ""
    values: dict[str, Row] = {}
    for row in stored:
        if row["zone"] in COLUMNS and row["depth"] == ALL:
            values.setdefault(str(row["case"]), {})[str(row["zone"])] = row.get("lung_involvement", nan)
    rows = [
        {"case": name, **{zone: values[name].get(zone, nan) for zone in COLUMNS}} for name in names if name in values
    ]
    return rows, str(next(iter(kinds))[1])


def zones_figure(rows: Sequence[Row]) -> Figure:
    """Draw a heat map of lung involvement: one row per case, one column per zone; many cases have no names."""
    values = np.array([[float(row[zone]) for zone in COLUMNS] for row in rows])
    is_named = len(rows) <= _MOST_NAMES
    height = 1.9 + (max(len(rows), 4) * _ROW_INCHES if is_named else 8.0)
    figure = Figure(figsize=(10.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shades = axes.imshow(values, aspect="auto", cmap="YlOrRd", vmin=0, vmax=LARGEST_LI, interpolation="nearest")
    labels = [f"{third.name}\n{half.name}" for _ in LUNGS for third in ZONE_THIRDS for half in ZONE_HALVES]
    axes.set_xticks(range(len(COLUMNS)), labels, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    if is_named:
        axes.set_yticks(range(len(rows)), [str(row["case"]) for row in rows], fontsize=9)
        for y, x in np.ndindex(values.shape):
            if np.isfinite(values[y, x]):
                color = "white" if values[y, x] > 0.6 * LARGEST_LI else "#222222"
                axes.text(x, y, f"{values[y, x]:.0f}", ha="center", va="center", fontsize=8, color=color)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows)} cases")
    middle = len(COLUMNS) / 2
    axes.axvline(middle - 0.5, color="white", linewidth=4)
    for k, side in enumerate(LUNGS):
        axes.annotate(
            side.name, ((k + 0.5) / 2, 1), xycoords="axes fraction", xytext=(0, 34), textcoords="offset points",
            ha="center", fontweight="bold",
        )  # fmt: skip
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shades, ax=axes, extend="max", shrink=0.9 if is_named else 0.5, pad=0.02)
    bar.set_label("lung involvement LI (%)")
    bar.outline.set_visible(False)
    return figure
