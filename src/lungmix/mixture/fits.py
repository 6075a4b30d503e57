"""The three fits of a cohort, from its histogram.

`fit_paper` stops early, as in the publication; `fit_converged` goes to the maximum of the likelihood; `fit_anchored`
goes to the maximum of the posterior under a prior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import ModelError
from lungmix.mixture.binned_likelihood import Bins, Gaussians, bins_of, log_likelihood
from lungmix.mixture.binned_posterior import PseudoVoxels
from lungmix.mixture.distance import total_variation
from lungmix.mixture.model import PUBLISHED, TissueModel, fitted
from lungmix.mixture.newton import NewtonResult, first_best, maximize_from, quantile_start
from lungmix.mixture.threads import one_thread
from lungmix.parameters import FITS, PRIOR_STRENGTH

if TYPE_CHECKING:
    from lungmix.mixture.estimator import GaussianMixture

PAPER, CONVERGED, ANCHORED = FITS

QUANTILES, PRIOR = "quantiles", "prior"
"""Names of starts that are no fits: components at quantiles of the voxels, and the prior."""


@dataclass(frozen=True)
class Fits(Mapping[str, TissueModel]):
    """The three fits of the same voxels, as a mapping of the names in `FITS` to models.

    Attributes
    ----------
    paper : TissueModel
        Fit with k-means starts and the tolerance of the publication.
    converged : TissueModel
        Fit at the maximum of the likelihood, in which clipped values form one interval.
    anchored : TissueModel or None
        Fit at the maximum of the posterior under a prior. It is None in stores of earlier versions, and if the prior
        has another number of components than the other fits; then the mapping has only two names.
    """

    paper: TissueModel
    converged: TissueModel
    anchored: TissueModel | None = None

    def __getitem__(self, name: str) -> TissueModel:
        model: TissueModel | None = getattr(self, name) if name in FITS else None
        if model is None:
            raise KeyError(name)
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(name for name in FITS if name != ANCHORED or self.anchored is not None)

    def __len__(self) -> int:
        return len(list(iter(self)))


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

    The fit to the histogram gives the same result as a fit to all voxels.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU, and the number of voxels of each.
    clip : int or None
        HU to which lower values are set; None if values are not clipped.
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
    settings = {
        "voxels": int(np.sum(voxels)), "n_init": n_init, "tol": tol, "random_state": random_state, "clip": clip,
        "starts": _ends_of_em(mixture, model),
    }  # fmt: skip
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
        Distinct HU, and the number of voxels of each.
    starts : sequence of TissueModel
        Starting values, such as the result of `fit_paper`, or the previous fit of a cohort that has changed.
    clip : int or None
        HU at which values are clipped: values up to it form one interval, with the probability of all HU below
        ``clip + 1/2``. None if values are not clipped.
    reg_covar : float
        Smallest variance of a component, HU². It is at least 1/12, the variance of rounding.
    max_iter : int
        Largest number of steps from each start.
    afresh : bool
        True to add a start whose components lie at quantiles of the voxels.

    Raises
    ------
    ModelError
        If there are fewer distinct HU than components.
    """
    bins = bins_of(values, counts, clip)
    n_components = starts[0].n_components
    _check_distinct(len(bins.counts), n_components)
    names, mixtures = _named(starts)
    if afresh:
        names.append(QUANTILES)
        mixtures.append(quantile_start(bins, n_components))
    with one_thread():
        results = maximize_from(bins, mixtures, max_iter=max_iter, reg_covar=reg_covar)
    result, ends = _best_and_ends(names, results)
    fit_info = {
        "name": CONVERGED,
        "n_iter": len(result.log_likelihoods) - 1,
        "log_likelihood": result.log_likelihoods[-1],
        "converged": result.converged,
        "gradient": result.gradient,
        "voxels": round(bins.total),
        "clip": clip,
        "pile": bins.clipped_fraction,
        "starts": ends,
    }
    return to_model(result.mixture, fit_info)


def fit_anchored(
    values: npt.NDArray[Any],
    counts: npt.NDArray[Any],
    starts: Sequence[TissueModel] = (),
    *,
    prior: TissueModel = PUBLISHED,
    strength: float = PRIOR_STRENGTH,
    clip: int | None,
    reg_covar: float = 1e-6,
    max_iter: int = 1000,
) -> TissueModel:
    """Maximize the posterior under a prior whose mode is a model, starting from this model and other starts.

    The prior is conjugate: Dirichlet for the weights, normal-inverse-gamma for mean and variance of each component. It
    acts like pseudo-voxels, which are additional imaginary voxels whose components are known. The likelihood is that of
    `fit_converged`.

    Parameters
    ----------
    values, counts : ndarray, shape (n,)
        Distinct HU, and the number of voxels of each.
    starts : sequence of TissueModel
        Starting values in addition to the prior, such as other fits of the same voxels. The highest maximum is
        returned; of equal maxima, the one that was reached from the prior.
    prior : TissueModel
        Mode of the prior. The fit has the same number of components.
    strength : float
        Number of pseudo-voxels divided by the number of voxels. So many pseudo-voxels hold the weights together, and as
        many hold mean and variance of each component. 0 gives a maximum of the likelihood; large numbers give the
        prior.
    clip, reg_covar, max_iter
        See `fit_converged`.

    Raises
    ------
    ModelError
        If there are fewer distinct HU than components, or the strength is negative or infinite.
    """
    if not 0 <= strength < np.inf:
        raise ModelError(f"the strength of the prior is {strength:g}: give 0 or more, as a share of the voxels")
    bins = bins_of(values, counts, clip)
    _check_distinct(len(bins.counts), prior.n_components)
    centre = to_gaussians(prior)
    names, mixtures = _named(starts)
    pseudo_voxels = PseudoVoxels(centre, strength)
    with one_thread():
        results = maximize_from(bins, [centre, *mixtures], max_iter=max_iter, reg_covar=reg_covar, prior=pseudo_voxels)
        result, ends = _best_and_ends([PRIOR, *names], results)
        likelihood = log_likelihood(bins, result.mixture)
    fit_info = {
        "name": ANCHORED,
        "n_iter": len(result.log_likelihoods) - 1,
        "log_likelihood": likelihood,
        "log_posterior": result.log_likelihoods[-1],
        "converged": result.converged,
        "gradient": result.gradient,
        "voxels": round(bins.total),
        "clip": clip,
        "pile": bins.clipped_fraction,
        "strength": strength,
        "prior": {"weights": prior.weights, "means": prior.means, "variances": prior.variances},
        # The component of the prior from which each component comes; components are sorted by their fitted means.
        "prior_components": [int(k) for k in np.argsort(result.mixture.means, kind="stable")],
        "starts": ends,
    }
    return to_model(result.mixture, fit_info)


def _named(starts: Sequence[TissueModel]) -> tuple[list[str], list[Gaussians]]:
    names = [str(model.fit_info.get("name", f"start {i + 1}")) for i, model in enumerate(starts)]
    return names, [to_gaussians(model) for model in starts]


def _ends_of_em(mixture: GaussianMixture, model: TissueModel) -> list[dict[str, Any]]:
    """Return, for each k-means start of a fitted mixture, the fit that it led to; see `_best_and_ends`."""
    ends = []
    for i, end in enumerate(mixture._ends):
        columns = (end.state.weights, end.state.means, end.state.covariances)
        weights, means, variances = (np.asarray(column).ravel() for column in columns)
        log_sds = np.log(np.broadcast_to(variances, means.shape)) / 2
        weights = np.maximum(weights, np.finfo(np.float64).tiny)
        other = to_model(Gaussians(np.log(weights), means, log_sds), {})
        ends.append(
            {
                "start": f"k-means {i + 1}",
                "value": end.lower_bound,
                "converged": end.converged,
                "distance": total_variation(other, model),
            }
        )
    return ends


def _best_and_ends(names: Sequence[str], results: Sequence[NewtonResult]) -> tuple[NewtonResult, list[dict[str, Any]]]:
    """Return the highest maximum, and a row for each start with the maximum that it led to.

    A row holds the height of that maximum, and its total variation distance from the highest one.
    """
    best = results[first_best(results)]
    model = to_model(best.mixture, {})
    ends = [
        {
            "start": name,
            "value": result.log_likelihoods[-1],
            "converged": result.converged,
            "distance": total_variation(to_model(result.mixture, {}), model),
        }
        for name, result in zip(names, results, strict=True)
    ]
    return best, ends


def clipped(
    values: npt.NDArray[Any], counts: npt.NDArray[Any], clip: int | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Return the distinct HU that voxels have after ``hu = max(hu, clip)``, ascending, and the number of each."""
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
    """Return the mean log-probability per voxel of intervals under a model; higher is better for the same voxels."""
    return log_likelihood(bins, to_gaussians(model))


def bic(model: TissueModel, bins: Bins) -> float:
    """Return the Bayesian information criterion of the likelihood of intervals; lower is better."""
    free = 3 * model.n_components - 1
    return float(-2 * bins.total * interval_log_likelihood(model, bins) + free * np.log(bins.total))


def to_gaussians(model: TissueModel) -> Gaussians:
    """Return a model as `Gaussians`, by the parameters in which fits are computed."""
    weights = np.asarray(model.weights)
    return Gaussians(np.log(weights / weights.sum()), np.asarray(model.means), np.log(model.variances) / 2)


def to_model(mixture: Gaussians, fit_info: Mapping[str, Any]) -> TissueModel:
    """Return the model of `Gaussians`, the inverse of `to_gaussians`."""
    # Models need weights above 0: give an empty component the smallest positive number.
    weights = np.maximum(np.exp(mixture.log_weights), np.finfo(np.float64).tiny)
    return TissueModel(
        tuple((weights / weights.sum()).tolist()),
        tuple(mixture.means.tolist()),
        tuple(np.exp(2 * mixture.log_sds).tolist()),
        fit_info,
    )
