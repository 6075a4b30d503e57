"""Choice of the number of Gaussians: fits with several numbers of components, compared by their BIC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.mixture import CONVERGED, PAPER
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
    """Return log-likelihood and BIC of the fits ``paper`` and ``converged`` for each number of components.

    The fit ``anchored`` is left out: its prior fixes the number of components, and it does not maximize the likelihood.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram of the pooled lung voxels.
    parameters : FitParameters
        Settings of the fits; ``n_components`` and the prior are not used.
    components : sequence of int
        Numbers of components to try.
    progress : callable, optional
        Called as ``progress(done, total)`` after each number of components.

    Returns
    -------
    list of dict
        One row per number of components: ``components``, ``parameters`` (number of free parameters), and for each fit
        ``FIT.log_likelihood`` (mean log-probability of the 1 HU interval of a voxel) and ``FIT.bic`` (lower is better).
        Both fits are compared by the same likelihood, in which clipped values count as one point mass.
    """
    bins = bins_of(HU, counts, parameters.clip)
    rows = []
    for done, k in enumerate(components, start=1):
        row: dict[str, Any] = {"components": k, "parameters": 3 * k - 1}
        fits = fit_counts(counts, replace(parameters, n_components=k, fit=PAPER, prior=None))
        for name in (PAPER, CONVERGED):
            model = fits[name]
            row[f"{name}.log_likelihood"] = interval_log_likelihood(model, bins)
            row[f"{name}.bic"] = bic(model, bins)
        rows.append(row)
        if progress is not None:
            progress(done, len(components))
    return rows
