"""A Gaussian mixture with sample weights, in scikit-learn's manner, for numpy and dask."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lungmix.errors import ModelError
from lungmix.mixture.em import (
    COVARIANCE_TYPES,
    Fit,
    Floats,
    State,
    e_step,
    log_densities,
    m_step,
    precisions_cholesky,
    run_em,
)
from lungmix.mixture.reduce import weighted_samples
from lungmix.mixture.starts import kmeans_responsibilities


class GaussianMixture(DensityMixin, BaseEstimator):
    """Gaussian mixture fitted by EM on samples that may carry weights.

    Integer samples with one feature, such as HU, are reduced to counts per value first; the fit on counts equals
    the fit on all samples.

    Parameters
    ----------
    n_components : int
        Number of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.
    n_init : int
        k-means starts; the one with the best lower bound wins.
    tol : float
        EM stops when the mean log-likelihood per sample gains less.
    reg_covar : float
        Added to the diagonal of covariances.
    max_iter : int
        EM iterations at most.
    random_state : int, RandomState or None
        Seed of the starts.
    weights_init, means_init, covariances_init : array, optional
        One start in place of k-means; all three together, in the shapes of the fitted attributes.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_cholesky_ : ndarray
        As in scikit-learn.
    converged_, n_iter_, lower_bound_, lower_bounds_
        Of the best start; ``lower_bounds_`` has one value an iteration.
    """

    def __init__(
        self,
        n_components: int = 5,
        covariance_type: str = "full",
        n_init: int = 6,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
        weights_init: Any = None,
        means_init: Any = None,
        covariances_init: Any = None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.n_init = n_init
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.random_state = random_state
        self.weights_init = weights_init
        self.means_init = means_init
        self.covariances_init = covariances_init

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit the mixture.

        Parameters
        ----------
        X : numpy or dask array, shape (n,) or (n, d)
            Samples.
        y : None
            Ignored.
        sample_weight : array, shape (n,), optional
            Non-negative; a weight of c stands for c copies.

        Raises
        ------
        ModelError
            If samples or parameters cannot be used.
        """
        self._check_parameters()
        samples, weights = weighted_samples(X, sample_weight)
        if len(np.unique(samples, axis=0)) < self.n_components:
            raise ModelError(
                f"{self.n_components} components need as many distinct samples, there are "
                f"{len(np.unique(samples, axis=0))}: use fewer components"
            )
        fits = [self._run(samples, weights, state) for state in self._starts(samples, weights)]
        best = max(fits, key=lambda fit: fit.lower_bounds[-1])
        self._adopt(best, samples.shape[1])
        return self

    def predict(self, X: Any) -> Any:
        """Most probable component of each sample, int64; lazy for dask input."""
        return self._apply(X, lambda x: np.argmax(self._log_densities(x), axis=1), np.int64, None)

    def predict_proba(self, X: Any) -> Any:
        """Responsibilities, shape (n, n_components); lazy for dask input."""
        return self._apply(X, lambda x: np.exp(self._e_step(x)[1]), np.float64, self.n_components)

    def score_samples(self, X: Any) -> Any:
        """Log-likelihood of each sample; lazy for dask input."""
        return self._apply(X, lambda x: self._e_step(x)[0], np.float64, None)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Mean log-likelihood per unit of sample weight."""
        samples, weights = weighted_samples(X, sample_weight)
        check_is_fitted(self)
        return float(weights @ self._e_step(samples)[0] / weights.sum())

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Akaike information criterion; the lower the better."""
        return self._minus_two_log_likelihood(X, sample_weight)[0] + 2 * self._n_parameters()

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Bayesian information criterion; the lower the better."""
        value, n = self._minus_two_log_likelihood(X, sample_weight)
        return float(value + self._n_parameters() * np.log(n))

    def _check_parameters(self) -> None:
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ModelError(f"covariance_type {self.covariance_type!r}: choose one of {', '.join(COVARIANCE_TYPES)}")
        for name in ("n_components", "n_init", "max_iter"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}: give 1 or more")
        for name in ("tol", "reg_covar"):
            if getattr(self, name) < 0:
                raise ModelError(f"{name} is {getattr(self, name)}: give 0 or more")

    def _starts(self, samples: Floats, weights: Floats) -> list[State]:
        given = (self.weights_init, self.means_init, self.covariances_init)
        if all(part is not None for part in given):
            return [State(*(np.asarray(part, np.float64) for part in given))]
        if any(part is not None for part in given):
            raise ModelError("give weights_init, means_init and covariances_init together, or none of them")
        random = check_random_state(self.random_state)
        return [
            m_step(
                samples,
                kmeans_responsibilities(samples, weights, self.n_components, random),
                weights,
                self.reg_covar,
                self.covariance_type,
            )
            for _ in range(self.n_init)
        ]

    def _run(self, samples: Floats, weights: Floats, state: State) -> Fit:
        return run_em(
            samples,
            weights,
            state,
            tol=self.tol,
            max_iter=self.max_iter,
            reg_covar=self.reg_covar,
            covariance_type=self.covariance_type,
        )

    def _adopt(self, fit: Fit, n_features: int) -> None:
        self.weights_, self.means_, self.covariances_ = (
            fit.state.weights,
            fit.state.means,
            fit.state.covariances,
        )
        self.precisions_cholesky_ = precisions_cholesky(self.covariances_, self.covariance_type)
        self.converged_, self.n_iter_ = fit.converged, len(fit.lower_bounds)
        self.lower_bounds_, self.lower_bound_ = fit.lower_bounds, fit.lower_bounds[-1]
        self.n_features_in_ = n_features

    def _state(self) -> State:
        check_is_fitted(self)
        return State(self.weights_, self.means_, self.covariances_)

    def _e_step(self, x: Floats) -> tuple[Floats, Floats]:
        return e_step(x, self._state(), self.covariance_type)

    def _log_densities(self, x: Floats) -> Floats:
        return log_densities(x, self._state(), self.covariance_type)

    def _apply(self, X: Any, kernel: Any, dtype: npt.DTypeLike, columns: int | None) -> Any:
        check_is_fitted(self)

        def on_rows(block: Any) -> Any:
            return kernel(np.asarray(block, np.float64).reshape(len(block), -1))

        if not isinstance(X, da.Array):
            return on_rows(np.asarray(X))
        rows = X.rechunk({1: -1}) if X.ndim == 2 else X
        if columns is None:
            return rows.map_blocks(on_rows, dtype=dtype, drop_axis=1 if X.ndim == 2 else None)
        new = {"new_axis": 1} if X.ndim == 1 else {}
        return rows.map_blocks(on_rows, dtype=dtype, chunks=(rows.chunks[0], (columns,)), **new)

    def _minus_two_log_likelihood(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        samples, weights = weighted_samples(X, sample_weight)
        return -2.0 * float(weights @ self._e_step(samples)[0]), float(weights.sum())

    def _n_parameters(self) -> int:
        k, d = self.means_.shape
        per_form = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
        return int(per_form[self.covariance_type] + k * d + k - 1)
