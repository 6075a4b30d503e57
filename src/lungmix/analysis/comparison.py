"""Comparison of fits: parameters, MAP thresholds, lung involvement, and checks of each fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.kernels.measures import component_keys
from lungmix.mixture import Fits, TissueModel, diagnose
from lungmix.mixture.binned_likelihood import bins_of
from lungmix.mixture.fits import bic, interval_log_likelihood
from lungmix.stages.fit import HU, add_counts
from lungmix.stages.pool import involved_percents, percent_of
from lungmix.store import Cohort
from lungmix.tissue import INVOLVED, TISSUES

Counts = npt.NDArray[np.uint64]
Masks = Mapping[str, npt.NDArray[np.bool_]]
Percents = Callable[[Masks], Mapping[str, Mapping[str, float]]]

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
    return _compare(fits, add_counts(counts), clip, partial(_percents, counts))


def compare_cases(
    fits: Fits,
    cohort: Cohort,
    names: Sequence[str],
    pooled: Counts,
    clip: int | None,
    client: Client | None = None,
) -> Comparison:
    """Return parameters, thresholds, lung involvement and checks of all fits, for cases of a store.

    Parameters
    ----------
    fits : Fits
        Fits to compare.
    cohort : Cohort
        The store.
    names : sequence of str
        Masked cases.
    pooled : ndarray of uint64, shape (65536,)
        Sum of the histograms of these cases.
    clip : int or None
        Lowest HU; lower values are raised to it.
    client : distributed.Client, optional
        Client of the cluster that reads the histograms of a large cohort.
    """
    return _compare(fits, pooled, clip, lambda involved: involved_percents(cohort, names, involved, client))


def _compare(fits: Fits, pooled: Counts, clip: int | None, percents: Percents) -> Comparison:
    bins = bins_of(HU, pooled, clip)
    keys = component_keys(fits.paper.n_components)
    thresholds = {name: model.map_thresholds() for name, model in fits.items()}
    return Comparison(
        components=[{"component": key, **_component(fits, k)} for k, key in enumerate(keys)],
        thresholds=[
            {"from": keys[k], "to": keys[k + 1], **{name: thresholds[name][k] for name in fits}}
            for k in range(len(keys) - 1)
        ],
        involvement=_involvements(fits, pooled, percents) if len(keys) == len(TISSUES) else [],
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
    return percent_of(_involved(model), counts)


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


def _involvements(fits: Fits, pooled: Counts, percents: Percents) -> list[dict[str, Any]]:
    masks = {name: _involved(model) for name, model in fits.items()}
    rows = {**_percents({POOLED: pooled}, masks), **percents(masks)}
    return [{"case": case, **row} for case, row in rows.items()]


def _percents(counts: Mapping[str, Counts], involved: Masks) -> dict[str, dict[str, float]]:
    return {
        case: {name: percent_of(mask, histogram) for name, mask in involved.items()}
        for case, histogram in counts.items()
    }


def _involved(model: TissueModel) -> npt.NDArray[np.bool_]:
    return np.isin(model.lookup_table(), [tissue.label for tissue in TISSUES if tissue.key in INVOLVED])
