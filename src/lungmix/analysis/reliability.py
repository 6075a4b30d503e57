"""Variance components of scores by restricted maximum likelihood, with statsmodels (extra ``statistics``)."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of scores between scans, between readers, and of the rest."""

    scans: float
    readers: float
    rest: float

    @property
    def single(self) -> float:
        """ICC(A,1): the fraction of the variance of single scores that is between scans."""
        return self.scans / (self.scans + self.readers + self.rest)

    def average(self, readers: int) -> float:
        """Return ICC(A,k): the same fraction for the mean of this number of readers."""
        return self.scans / (self.scans + (self.readers + self.rest) / readers)


def is_available() -> bool:
    """Return True if statsmodels is installed."""
    return importlib.util.find_spec("statsmodels") is not None


def variance_components(ratings: npt.NDArray[np.float64]) -> VarianceComponents | None:
    """Return the variance components of ratings; None without statsmodels, or if all ratings are equal.

    Scans are random effects, and the variances between scans and of the rest are by restricted maximum likelihood.
    Readers are fixed effects in the fit; their variance is that of the effects less the part that is due to the
    uncertainty of the effects. For complete tables, this equals the analysis of variance.

    Parameters
    ----------
    ratings : ndarray of float64, shape (n, k)
        Ratings of n scans by k readers; NaN where a reader has not rated a scan.
    """
    scan, reader = np.nonzero(np.isfinite(ratings))
    values = ratings[scan, reader]
    if not is_available() or np.ptp(values) == 0:
        return None
    present, reader = np.unique(reader, return_inverse=True)
    effects = (reader[:, None] == np.arange(len(present))).astype(np.float64)
    if np.nanmax(np.nanmax(ratings, axis=1) - np.nanmin(ratings, axis=1)) == 0:
        # Without any difference between readers, the likelihood has no maximum.
        means = np.nanmean(ratings, axis=1)
        return VarianceComponents(float(np.var(means, ddof=1)), 0.0, 0.0)
    mixed_model: Any = importlib.import_module("statsmodels.regression.mixed_linear_model").MixedLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = mixed_model(values, effects, groups=scan).fit(reml=True)
    k = len(present)
    center = np.eye(k) - 1 / k
    estimates = np.asarray(fit.fe_params)
    uncertainty = float(np.trace(center @ np.asarray(fit.cov_params())[:k, :k])) / (k - 1)
    readers = float(estimates @ center @ estimates) / (k - 1) - uncertainty
    return VarianceComponents(float(np.asarray(fit.cov_re)[0, 0]), max(readers, 0.0), float(fit.scale))
