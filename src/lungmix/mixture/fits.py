"""The two fits of a cohort: that of the paper, which stops early, and the converged one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError
from lungmix.mixture.binned_likelihood import Bins, Gaussians, bins_of, log_likelihood
from lungmix.mixture.model import TissueModel, fitted
from lungmix.mixture.newton import best_of, quantile_start
from lungmix.mixture.threads import one_thread
from lungmix.parameters import FITS

PAPER, CONVERGED = FITS


@dataclass(frozen=True)
class Fits(Mapping[str, TissueModel]):
    """Both fits of the same voxels: a mapping of the names in `FITS` to models.

    Attributes
    ----------
    paper : TissueModel
        Fit with k-means starts and the tolerance of the publication.
    converged : TissueModel
        Fit at the maximum of the likelihood, with clipped values as one interval.
    """

    paper: TissueModel
    converged: TissueModel

    def __getitem__(self, name: str) -> TissueModel:
        if name not in FITS:
            raise KeyError(name)
        model: TissueModel = getattr(self, name)
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(FITS)

    def __len__(self) -> int:
        return len(FITS)


def fit_paper(
    values: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    *,
    clip: int | None,
    n_components: int = 5,
    n_init: int = 6,
    tol: float = 1e-3,
    reg_covar: float = 1e-6,
    max_iter: int = 100,
    random_state: int | None = 0,
) -> TissueModel:
    """Fit as in the publication: clipped HU, densities at HU values, k-means starts, early stopping.

    The result equals that of a fit to all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU and the voxels of each.
    clip : int or None
        HU; lower values are set to this one.
    n_components, n_init, tol, reg_covar, max_iter, random_state
        See `lungmix.GaussianMixture`.

    Raises
    ------
    ModelError
        If there are fewer distinct HU than components.
    """
    from lungmix.mixture.estimator import GaussianMixture  # scikit-learn takes a second to load

    hu, voxels = clipped(values, counts, clip)
    _check_distinct(len(hu), n_components)
    mixture = GaussianMixture(n_components, "full", n_init, tol, reg_covar, max_iter, random_state)
    with one_thread():
        model = fitted(mixture, hu, np.asarray(voxels, np.float64))
    settings = {"voxels": int(np.sum(voxels)), "n_init": n_init, "tol": tol, "random_state": random_state, "clip": clip}
    return replace(model, fit_info={"name": PAPER, "method": "counts", **model.fit_info, **settings})


def fit_converged(
    values: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    starts: Sequence[TissueModel],
    *,
    clip: int | None,
    reg_covar: float = 1e-6,
    max_iter: int = 1000,
    afresh: bool = True,
) -> TissueModel:
    """Maximize the likelihood from several starts and return the best model.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU and the voxels of each.
    starts : sequence of TissueModel
        Starts, such as the paper's fit, or the previous fit of a cohort that has changed.
    clip : int or None
        HU; values up to it form one interval, with the probability of all HU below ``clip + 1/2``. None for values
        that are not clipped.
    reg_covar : float
        Smallest variance of a component, HU²; values below 1/12, the variance of rounding, count as 1/12.
    max_iter : int
        Largest number of steps for each start.
    afresh : bool
        Add a start with components at quantiles of the voxels.

    Raises
    ------
    ModelError
        If there are fewer distinct HU than components.
    """
    bins = bins_of(values, counts, clip)
    n_components = starts[0].n_components
    _check_distinct(len(bins.counts), n_components)
    mixtures = [to_gaussians(model) for model in starts]
    if afresh:
        mixtures.append(quantile_start(bins, n_components))
    with one_thread():
        result = best_of(bins, mixtures, max_iter=max_iter, reg_covar=reg_covar)
    fit_info = {
        "name": CONVERGED,
        "n_iter": len(result.log_likelihoods) - 1,
        "log_likelihood": result.log_likelihoods[-1],
        "converged": result.converged,
        "gradient": result.gradient,
        "voxels": round(bins.total),
        "clip": clip,
        "pile": bins.clipped_fraction,
    }
    return to_model(result.mixture, fit_info)


def clipped(
    values: npt.NDArray[Any], counts: npt.NDArray[Any], clip: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return the distinct HU with voxels after ``hu = max(hu, clip)``, ascending, and the voxels of each."""
    hu = np.asarray(values, np.int64)
    hu = hu if clip is None else np.maximum(hu, clip)
    distinct, inverse = np.unique(hu, return_inverse=True)
    voxels = np.zeros(len(distinct), np.asarray(counts).dtype)
    np.add.at(voxels, inverse, counts)
    return distinct[voxels > 0], voxels[voxels > 0]


def _check_distinct(distinct: int, n_components: int) -> None:
    if distinct < n_components:
        raise ModelError(
            f"{n_components} components need at least as many distinct HU, but there are only {distinct}: use fewer "
            "components"
        )


def interval_log_likelihood(model: TissueModel, bins: Bins) -> float:
    """Return the mean log-probability per voxel of intervals under a model; it compares fits of the same voxels."""
    return log_likelihood(bins, to_gaussians(model))


def bic(model: TissueModel, bins: Bins) -> float:
    """Return the Bayesian information criterion of the likelihood of intervals; lower is better."""
    free = 3 * model.n_components - 1
    return float(-2 * bins.total * interval_log_likelihood(model, bins) + free * np.log(bins.total))


def to_gaussians(model: TissueModel) -> Gaussians:
    """Return a model in the coordinates of the fit."""
    weights = np.asarray(model.weights)
    return Gaussians(np.log(weights / weights.sum()), np.asarray(model.means), np.log(model.variances) / 2)


def to_model(mixture: Gaussians, fit_info: Mapping[str, Any]) -> TissueModel:
    """Return the model of a mixture, the inverse of `to_gaussians`."""
    # An empty component keeps the smallest positive weight.
    weights = np.maximum(np.exp(mixture.log_weights), np.finfo(np.float64).tiny)
    return TissueModel(
        tuple((weights / weights.sum()).tolist()),
        tuple(mixture.means.tolist()),
        tuple(np.exp(2 * mixture.log_sds).tolist()),
        fit_info,
    )
