"""How many Gaussians: both fits for several numbers of components, and their BIC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.mixture.binned_likelihood import bins_of
from lungmix.mixture.fits import bic, interval_log_likelihood
from lungmix.parameters import FitParameters
from lungmix.stages.fit import HU, fit_counts


def bic_table(
    counts: npt.NDArray[np.uint64],
    parameters: FitParameters,
    components: Sequence[int],
    watch: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Fit every number of components and judge it.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Pooled voxels of each HU.
    parameters : FitParameters
        All but the number of components.
    components : sequence of int
        Numbers to try.
    watch : callable, optional
        ``watch(done, total)`` after each.

    Returns
    -------
    list of dict
        ``components``, ``parameters`` (free ones), and by fit ``log_likelihood`` (mean log-probability of a voxel's
        interval) and ``bic``, after the name of the fit and a dot. The BIC of both comes from the same likelihood, with
        clipped values as a pile, and falls where a model is better.
    """
    bins = bins_of(HU, counts, parameters.clip)
    rows = []
    for done, k in enumerate(components, start=1):
        row: dict[str, Any] = {"components": k, "parameters": 3 * k - 1}
        for name, model in fit_counts(counts, replace(parameters, n_components=k)).items():
            row[f"{name}.log_likelihood"] = interval_log_likelihood(model, bins)
            row[f"{name}.bic"] = bic(model, bins)
        rows.append(row)
        if watch is not None:
            watch(done, len(components))
    return rows
