"""Choice of the number of Gaussians: both fits for several numbers of components, with their BIC."""

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
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Return log-likelihood and BIC of both fits for each number of components.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of the pooled lung voxels.
    parameters : FitParameters
        Settings; ``n_components`` is replaced.
    components : sequence of int
        Numbers to try.
    progress : callable, optional
        Called with how many numbers are finished and how many there are, after each.

    Returns
    -------
    list of dict
        ``components``, ``parameters`` (number of free parameters), and for each fit ``FIT.log_likelihood`` (mean
        log-probability of a voxel's interval) and ``FIT.bic``. Both fits are compared by one likelihood, in which
        clipped values are a point mass; the lower BIC is better.
    """
    bins = bins_of(HU, counts, parameters.clip)
    rows = []
    for done, k in enumerate(components, start=1):
        row: dict[str, Any] = {"components": k, "parameters": 3 * k - 1}
        for name, model in fit_counts(counts, replace(parameters, n_components=k)).items():
            row[f"{name}.log_likelihood"] = interval_log_likelihood(model, bins)
            row[f"{name}.bic"] = bic(model, bins)
        rows.append(row)
        if progress is not None:
            progress(done, len(components))
    return rows
