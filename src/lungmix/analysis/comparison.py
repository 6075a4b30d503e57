"""Both fits side by side: parameters, MAP thresholds, and the lung involvement under each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.measures import component_keys
from lungmix.mixture import Fits, TissueModel
from lungmix.mixture.binned_likelihood import bins_of
from lungmix.mixture.fits import bic, interval_log_likelihood
from lungmix.stages.fit import HU, add_counts
from lungmix.tissue import INVOLVED, TISSUES

Counts = npt.NDArray[np.uint64]

POOLED = "pooled"


@dataclass(frozen=True)
class Comparison:
    """What two fits of the same voxels say.

    Attributes
    ----------
    components : list of dict
        One row a component: ``component``, and ``weight``, ``mean_hu``, ``sd_hu`` after the name of the fit and a dot.
    thresholds : list of dict
        One row a pair of neighbouring labels: ``from``, ``to``, and the MAP threshold in HU by fit.
    involvement : list of dict
        Lung involvement in percent by fit; ``case`` is ``pooled`` in the first row. Empty unless there are five
        components.
    quality : list of dict
        One row a fit: ``fit``, ``iterations``, ``log_likelihood`` (mean log-probability of a voxel's interval) and
        ``bic``, which can be compared between fits, and ``lower_end`` (HU below which a wider component wins over the
        lowest).
    """

    components: list[dict[str, Any]]
    thresholds: list[dict[str, Any]]
    involvement: list[dict[str, Any]]
    quality: list[dict[str, Any]]


def compare(fits: Fits, counts: Mapping[str, Counts], clip: int | None) -> Comparison:
    """Lay fits side by side.

    Parameters
    ----------
    fits : Fits
        Of these counts or of others.
    counts : mapping of str to ndarray of uint64, shape (65536,)
        By case, from -32768 HU on.
    clip : int or None
        HU at which values are piled.
    """
    pooled = add_counts(counts)
    bins = bins_of(HU, pooled, clip)
    keys = component_keys(fits.paper.n_components)
    bounds = {name: model.map_thresholds() for name, model in fits.items()}
    return Comparison(
        components=[{"component": key, **_component(fits, k)} for k, key in enumerate(keys)],
        thresholds=[
            {"from": keys[k], "to": keys[k + 1], **{name: bounds[name][k] for name in fits}}
            for k in range(len(keys) - 1)
        ],
        involvement=_involvements(fits, pooled, counts) if len(keys) == len(TISSUES) else [],
        quality=[
            {
                "fit": name,
                "iterations": int(model.fit_info.get("n_iter", 0)),
                "log_likelihood": interval_log_likelihood(model, bins),
                "bic": bic(model, bins),
                "lower_end": model.lowest_label_start(),
            }
            for name, model in fits.items()
        ],
    )


def involvement(model: TissueModel, counts: Counts) -> float:
    """Percent of voxels that a model of five components labels GGO, consolidation or other; NaN of no voxels."""
    return _share(_involved(model), counts)


def _component(fits: Fits, k: int) -> dict[str, float]:
    row = {}
    for name, model in fits.items():
        row[f"{name}.weight"] = model.weights[k]
        row[f"{name}.mean_hu"] = model.means[k]
        row[f"{name}.sd_hu"] = model.variances[k] ** 0.5
    return row


def _involvements(fits: Fits, pooled: Counts, counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    tables = {name: _involved(model) for name, model in fits.items()}
    return [
        {"case": case, **{name: _share(table, of_case) for name, table in tables.items()}}
        for case, of_case in chain([(POOLED, pooled)], counts.items())
    ]


def _involved(model: TissueModel) -> npt.NDArray[np.bool_]:
    return np.isin(model.lookup_table(), [tissue.label for tissue in TISSUES if tissue.key in INVOLVED])


def _share(involved: npt.NDArray[np.bool_], counts: Counts) -> float:
    total = int(counts.sum())
    return 100.0 * int(counts[involved].sum()) / total if total else float("nan")
