"""Comparison of fits: parameters, MAP thresholds, lung involvement, and checks of each fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.measures import component_keys
from lungmix.mixture import Fits, TissueModel, diagnose
from lungmix.mixture.binned_likelihood import bins_of
from lungmix.mixture.fits import bic, interval_log_likelihood
from lungmix.stages.fit import HU, add_counts
from lungmix.tissue import INVOLVED, TISSUES

Counts = npt.NDArray[np.uint64]

POOLED = "pooled"


@dataclass(frozen=True)
class Comparison:
    """Comparison of fits of the same voxels.

    Attributes
    ----------
    components : list of dict
        One row per component: ``component``, and ``FIT.weight``, ``FIT.mean_hu``, ``FIT.sd_hu`` for each fit.
    thresholds : list of dict
        One row per pair of neighbouring labels: ``from``, ``to``, and the MAP threshold in HU of each fit.
    involvement : list of dict
        One row for all voxels, whose ``case`` is ``pooled``, then one row per case: lung involvement in percent under
        each fit. Empty unless there are five components.
    quality : list of dict
        One row per fit: ``fit``, ``iterations``, ``log_likelihood`` (mean log-probability of the 1 HU interval of a
        voxel), ``bic``, and ``lower_end`` (below this HU, a wider component is more probable than the component of
        lowest mean). Log-likelihood and BIC are comparable between fits.
    diagnosis : dict of str to dict
        For each fit: ``doubtful`` (true if a check fails), ``distance`` (total variation distance from the published
        model), ``involvement_shift`` (pooled lung involvement under this fit minus that under the published model, in
        percentage points) and ``checks`` (see `lungmix.mixture.Diagnosis.rows`).
    """

    components: list[dict[str, Any]]
    thresholds: list[dict[str, Any]]
    involvement: list[dict[str, Any]]
    quality: list[dict[str, Any]]
    diagnosis: dict[str, dict[str, Any]]


def compare(fits: Fits, counts: Mapping[str, Counts], clip: int | None) -> Comparison:
    """Return parameters, thresholds, lung involvement and checks of all fits.

    Parameters
    ----------
    fits : Fits
        Fits to compare, of the voxels in `counts` or of others.
    counts : mapping of str to ndarray of uint64, shape (65536,)
        Histograms by case; the first bin is -32768 HU.
    clip : int or None
        Lowest HU; lower values are raised to it.
    """
    pooled = add_counts(counts)
    bins = bins_of(HU, pooled, clip)
    keys = component_keys(fits.paper.n_components)
    thresholds = {name: model.map_thresholds() for name, model in fits.items()}
    return Comparison(
        components=[{"component": key, **_component(fits, k)} for k, key in enumerate(keys)],
        thresholds=[
            {"from": keys[k], "to": keys[k + 1], **{name: thresholds[name][k] for name in fits}}
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
        diagnosis={name: _diagnosis(model, pooled) for name, model in fits.items()},
    )


def involvement(model: TissueModel, counts: Counts) -> float:
    """Return the percent of voxels that a model of five components labels GGO, consolidation or other.

    The result is NaN for an empty histogram.
    """
    return _percent_of(_involved(model), counts)


def _diagnosis(model: TissueModel, pooled: Counts) -> dict[str, Any]:
    result = diagnose(model, pooled)
    numbers = {"distance": result.distance, "involvement_shift": result.involvement_shift}
    return {"doubtful": result.is_doubtful, **numbers, "checks": result.rows()}


def _component(fits: Fits, k: int) -> dict[str, float]:
    row = {}
    for name, model in fits.items():
        row[f"{name}.weight"] = model.weights[k]
        row[f"{name}.mean_hu"] = model.means[k]
        row[f"{name}.sd_hu"] = model.variances[k] ** 0.5
    return row


def _involvements(fits: Fits, pooled: Counts, counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    masks = {name: _involved(model) for name, model in fits.items()}
    return [
        {"case": case, **{name: _percent_of(mask, histogram) for name, mask in masks.items()}}
        for case, histogram in chain([(POOLED, pooled)], counts.items())
    ]


def _involved(model: TissueModel) -> npt.NDArray[np.bool_]:
    return np.isin(model.lookup_table(), [tissue.label for tissue in TISSUES if tissue.key in INVOLVED])


def _percent_of(involved: npt.NDArray[np.bool_], counts: Counts) -> float:
    total = int(counts.sum())
    return 100.0 * int(counts[involved].sum()) / total if total else float("nan")
