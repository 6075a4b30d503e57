"""Lung zones in the report: a heat map of the lung involvement of a cohort, and the numbers of the sketch of a case."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan, nan

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungmix.kernels.measures import measure_lobes, measure_zones
from lungmix.mixture import TissueModel
from lungmix.stages.measure import has_zones
from lungmix.store import ZONES_FILE, Case, Cohort
from lungmix.store.tables import Row, rows_of
from lungmix.tissue import LOBES, LUNGS, TISSUES, ZONE_HALVES, ZONE_THIRDS

COLUMNS = tuple(f"{side.key}_{third.key}_{half.key}" for side in LUNGS for third in ZONE_THIRDS for half in ZONE_HALVES)
"""Zones that the page shows: each half of each third of each lung, with core and peel together."""

LOBE_COLUMNS = tuple(lobe.key for lobe in LOBES)
"""Rows of ``zones.csv`` with lobes of given masks."""

LARGEST_LI = 60.0
"""Lung involvement, %, from which on all colours are the darkest, so that pages have the same colours."""

_LI_OF_WHITE_TEXT = 0.68 * LARGEST_LI
"""Lung involvement, %, above which white text has more contrast than dark text; at it, both have a contrast of 4."""

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
    return _involvement(measure_zones(case.zone_counts, *_tables(case, model)), COLUMNS)


def involvement_by_lobe(case: Case, model: TissueModel | None) -> dict[str, float]:
    """Return the lung involvement, %, of the lobes of a case by the names of `LOBE_COLUMNS`; empty without lobes."""
    counts = case.lobe_counts
    if model is None or model.n_components != len(TISSUES) or counts is None:
        return {}
    return _involvement(measure_lobes(counts, *_tables(case, model)), LOBE_COLUMNS)


def _tables(case: Case, model: TissueModel) -> tuple[npt.NDArray[np.uint8], float, npt.NDArray[np.float64]]:
    return model.lookup_table(), case.geometry.voxel_ml, model.posterior_table()


def _involvement(rows: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    values = {str(row["zone"]): float(row["lung_involvement"]) for row in rows}
    return {name: round(values[name], 4) for name in names if not isnan(values[name])}


def stored_involvement(cohort: Cohort, names: Sequence[str], columns: Sequence[str] = COLUMNS) -> tuple[list[Row], str]:
    """Return the lung involvement by zone of cases, from ``zones.csv``, and the rule of their zones.

    Parameters
    ----------
    cohort : Cohort
        The store.
    names : sequence of str
        The cases.
    columns : sequence of str
        Names of the zones: `COLUMNS` or `LOBE_COLUMNS`.

    Returns
    -------
    rows : list of dict
        One row per case with ``case`` and the names of `columns`, in the order of `names`. There are none if cases
        were labelled by several mixtures or divided by several rules, whose zones cannot be compared.
    by : str
        Rule, such as ``volume``, or ``lobes`` for lobes; empty without rows.
    """
    rows = rows_of(cohort.read_text(ZONES_FILE) or "")
    stored = [row for row in rows if row["case"] in names and row["zone"] in columns]
    kinds = {(row.get("model"), row.get("by")) for row in stored}
    if len(kinds) != 1:
        return [], ""
    values: dict[str, Row] = {}
    for row in stored:
        values.setdefault(str(row["case"]), {})[str(row["zone"])] = row.get("lung_involvement", nan)
    shown: list[Row] = [
        {"case": name, **{zone: values[name].get(zone, nan) for zone in columns}} for name in names if name in values
    ]
    return shown, str(next(iter(kinds))[1])


def zones_figure(rows: Sequence[Row]) -> Figure:
    """Draw a heat map of lung involvement: one row per case, one column per zone; many cases have no names.

    Parameters
    ----------
    rows : sequence of dict
        Rows of `stored_involvement`.
    """
    columns = [name for name in rows[0] if name != "case"]
    values = np.array([[float(row[zone]) for zone in columns] for row in rows])
    is_named = len(rows) <= _MOST_NAMES
    height = 1.9 + (max(len(rows), 4) * _ROW_INCHES if is_named else 8.0)
    figure = Figure(figsize=(10.5, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shades = axes.imshow(values, aspect="auto", cmap="YlOrRd", vmin=0, vmax=LARGEST_LI, interpolation="nearest")
    # Below the name of the lung, "right_upper_dorsal" is "upper dorsal", and "right_upper_lobe" is "upper lobe".
    labels = [name.split("_", 1)[1].replace("_", "\n") for name in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    if is_named:
        axes.set_yticks(range(len(rows)), [str(row["case"]) for row in rows], fontsize=9)
        for y, x in np.ndindex(values.shape):
            if np.isfinite(values[y, x]):
                color = "white" if values[y, x] > _LI_OF_WHITE_TEXT else "#222222"
                axes.text(x, y, f"{values[y, x]:.0f}", ha="center", va="center", fontsize=8, color=color)
    else:
        axes.set_yticks([])
        axes.set_ylabel(f"{len(rows)} cases")
    of_right = sum(name.startswith(LUNGS[0].key) for name in columns)
    axes.axvline(of_right - 0.5, color="white", linewidth=4)
    for side, middle in zip(LUNGS, (of_right / 2, (of_right + len(columns)) / 2), strict=True):
        axes.annotate(
            side.name, (middle / len(columns), 1), xycoords="axes fraction", xytext=(0, 34), textcoords="offset points",
            ha="center", fontweight="bold",
        )  # fmt: skip
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shades, ax=axes, extend="max", shrink=0.9 if is_named else 0.5, pad=0.02)
    bar.set_label("lung involvement LI (%)")
    bar.outline.set_visible(False)
    return figure
