"""The two fits of a cohort, by their names: the paper's, which stops early, and the one that arrives."""

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
        k-means starts and the tolerance of the publication.
    converged : TissueModel
        At the maximum of the likelihood, with clipped values as a pile.
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
    """The fit of the publication: HU clipped, density at each, k-means starts, an early end.

    It is equal to the fit on all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU and the voxels of each.
    clip : int or None
        HU; lower values count as this one.
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
    how = {"voxels": int(np.sum(voxels)), "n_init": n_init, "tol": tol, "random_state": random_state, "clip": clip}
    return replace(model, fit_info={"name": PAPER, "method": "counts", **model.fit_info, **how})


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
    """The maximum of the likelihood that is highest among those the starts lead to.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU and the voxels of each.
    starts : sequence of TissueModel
        Where to begin, such as the paper's fit, or the last fit of a cohort that has changed since.
    clip : int or None
        HU; values at or below form one pile whose probability is that of all HU below ``clip + 1/2``. None where
        nothing was clipped.
    reg_covar : float
        HU²; least variance of a component if it exceeds 1/12, that of rounding.
    max_iter : int
        Steps at most for each start.
    afresh : bool
        Begin at equal shares of the voxels, too.

    Raises
    ------
    ModelError
        If there are fewer distinct HU than components.
    """
    bins = bins_of(values, counts, clip)
    n_components = starts[0].n_components
    _check_distinct(len(bins.counts), n_components)
    begin = [to_gaussians(model) for model in starts]
    if afresh:
        begin.append(quantile_start(bins, n_components))
    with one_thread():
        found = best_of(bins, begin, max_iter=max_iter, reg_covar=reg_covar)
    fit = {
        "name": CONVERGED,
        "n_iter": len(found.log_likelihoods) - 1,
        "log_likelihood": found.log_likelihoods[-1],
        "converged": found.converged,
        "gradient": found.gradient,
        "voxels": round(bins.total),
        "clip": clip,
        "pile": bins.pile,
    }
    return to_model(found.mixture, fit)


def clipped(
    values: npt.NDArray[Any], counts: npt.NDArray[Any], clip: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Distinct HU that have voxels, ascending, after ``hu = max(hu, clip)``, and the voxels of each."""
    hu = np.asarray(values, np.int64)
    hu = hu if clip is None else np.maximum(hu, clip)
    distinct, inverse = np.unique(hu, return_inverse=True)
    voxels = np.zeros(len(distinct), np.asarray(counts).dtype)
    np.add.at(voxels, inverse, counts)
    return distinct[voxels > 0], voxels[voxels > 0]


def _check_distinct(distinct: int, n_components: int) -> None:
    if distinct < n_components:
        raise ModelError(
            f"{n_components} components need as many distinct HU, there are {distinct}: use fewer components"
        )


def interval_log_likelihood(model: TissueModel, bins: Bins) -> float:
    """Mean log-probability per voxel of the intervals under a model; comparable between fits of the same voxels."""
    return log_likelihood(bins, to_gaussians(model))


def bic(model: TissueModel, bins: Bins) -> float:
    """Bayesian information criterion from the likelihood of intervals; the lower the better."""
    free = 3 * model.n_components - 1
    return float(-2 * bins.total * interval_log_likelihood(model, bins) + free * np.log(bins.total))


def to_gaussians(model: TissueModel) -> Gaussians:
    """A model in the coordinates of the fit."""
    weights = np.asarray(model.weights)
    return Gaussians(np.log(weights / weights.sum()), np.asarray(model.means), np.log(model.variances) / 2)


def to_model(mixture: Gaussians, fit: Mapping[str, Any]) -> TissueModel:
    """Inverse of `to_gaussians`."""
    # A component that has died keeps the least weight that a model can state.
    weights = np.maximum(np.exp(mixture.log_weights), np.finfo(np.float64).tiny)
    return TissueModel(
        tuple((weights / weights.sum()).tolist()),
        tuple(mixture.means.tolist()),
        tuple(np.exp(2 * mixture.log_sds).tolist()),
        fit,
    )
