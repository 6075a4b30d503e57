"""Gaussian mixture for data of any size, in numpy and dask, with the interface of scikit-learn."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from lungmix.errors import ModelError
from lungmix.mixture import inference, serialization
from lungmix.mixture.counts import countable, reduce_to_counts
from lungmix.mixture.em import Fit, best_of, first_of_best, run_em, unconverged
from lungmix.mixture.initialization import DataSummary, start_states, summarize
from lungmix.mixture.inputs import kept_dtype, read_rows, source_of
from lungmix.mixture.parameters import Floats, State, covariances_of, n_parameters, precisions_cholesky, precisions_of
from lungmix.mixture.prior import Prior
from lungmix.mixture.settings import check_settings, given_parts, given_prior
from lungmix.mixture.sources import Source, e_step
from lungmix.mixture.stepwise import StepSchedule, first_rows, run_stepwise, step
from lungmix.mixture.verbose import Announcer
from lungmix.parameters import PRIOR_STRENGTH


class GaussianMixture(DensityMixin, BaseEstimator):
    """Gaussian mixture of weighted samples in memory, on a cluster or in a stream.

    Integer samples with one feature are reduced to counts per value, from which the fit is the same and takes
    milliseconds per iteration. All other samples are fitted by EM with one pass over the data per iteration or, with
    `batch_size`, in minibatches.

    Parameters
    ----------
    n_components : int
        Number of Gaussians.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.
    n_init : int
        Number of starts. All are fitted in the same passes, and the fit with the highest lower bound is kept.
    tol : float
        EM stops when an iteration increases the mean log-likelihood per unit of sample weight by less than this; with
        minibatches, when a pass over the data does.
    reg_covar : float
        Number that is added to the diagonal of covariances.
    max_iter : int
        Largest number of EM iterations, or of passes in minibatches.
    random_state : int, RandomState or None
        Seed of the starting values and of the order of minibatches.
    weights_init, means_init, precisions_init, covariances_init : array, optional
        Starting values in the shapes of the fitted attributes; `init_params` determines those that are not given. Give
        precisions or covariances, not both.
    init_params : {"kmeans", "k-means++", "k-means||", "random", "random_from_data"} or callable
        Method that finds a centre for each component; each sample is then assigned to the nearest centre. Only
        ``"random"`` finds no centres: it assigns each sample to all components in random proportions. ``"k-means||"``
        is that of dask-ml. A callable has the signature ``f(X, n_clusters, random_state=int)`` and receives a dask
        array. ``"k-means||"`` and callables accept no sample weights.
    warm_start : bool
        True to start `fit` from the last fit.
    batch_size : int, optional
        Number of rows of a minibatch; if given, `fit` uses stepwise EM.
    kappa, t0 : float
        The step size of minibatch t, counted from 0, is ``(t + t0) ** -kappa``; that of the first minibatch is 1.
    prior : TissueModel, or tuple of weights, means and covariances, optional
        Mode of a conjugate prior, in the shapes of the fitted attributes. The prior is Dirichlet for the weights and
        normal-inverse-Wishart for means and covariances. `fit` then starts at the mode and maximizes the posterior;
        `n_init` and `init_params` are not used, and `batch_size` must be None.
    prior_strength : float
        Weight of the prior, as a share of the total weight of the samples, 0 or more. The prior of all mixing weights
        together has this weight, and so has the prior of mean and covariance of each component.
    verbose : int
        0 prints nothing, 1 prints iterations, 2 also prints their likelihood, gain and time.
    verbose_interval : int
        Number of iterations between printed lines.
    listener : callable, optional
        Called with a `lungmix.mixture.Progress` after each pass over the data.

    Attributes
    ----------
    weights_, means_, covariances_, precisions_, precisions_cholesky_ : ndarray
        As in scikit-learn. They are float32 if the samples are, otherwise float64; sums are always float64.
    converged_ : bool
        True if the last iteration of the best start gained less than `tol`.
    n_iter_ : int
        Number of iterations of the best start; with minibatches, number of passes over the data.
    n_steps_ : int
        Number of minibatches that were processed.
    lower_bound_, lower_bounds_ : float, list of float
        Mean log-likelihood before the last M-step, and a list with the one before each M-step. With a prior, these are
        the log-posterior without its constant, divided by the weight of samples and prior.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> import numpy as np
    >>> import lungmix
    >>> x = np.repeat([-900, -890, 30, 40], 1000)
    >>> lungmix.GaussianMixture(2, random_state=0).fit(x).means_.round().astype(int).ravel().tolist()
    [35, -895]
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
        *,
        precisions_init: Any = None,
        init_params: Any = "kmeans",
        warm_start: bool = False,
        batch_size: int | None = None,
        kappa: float = 0.6,
        t0: float = 2.0,
        prior: Any = None,
        prior_strength: float = PRIOR_STRENGTH,
        verbose: int = 0,
        verbose_interval: int = 10,
        listener: Any = None,
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
        self.precisions_init = precisions_init
        self.init_params = init_params
        self.warm_start = warm_start
        self.batch_size = batch_size
        self.kappa = kappa
        self.t0 = t0
        self.prior = prior
        self.prior_strength = prior_strength
        self.verbose = verbose
        self.verbose_interval = verbose_interval
        self.listener = listener

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like, dask array, frame of pandas, polars or dask, or xarray DataArray, shape (n,) or (n, d)
            Samples of any real dtype; sums are float64. Rows with a weight above 0 must not hold NaN or masked values.
        y : None
            Ignored.
        sample_weight : array-like, dask array or series, shape (n,), optional
            Weights of the samples. A weight of k has the effect of k duplicates of the sample, and a weight of 0 that
            of its absence.

        Raises
        ------
        ModelError
            If samples, weights or parameters are invalid, or all starts collapse.
        """
        check_settings(self)
        warm = self.warm_start and hasattr(self, "converged_")
        before = self._state() if warm else None
        rows = read_rows(self, X, reset=True, y=y)
        if before is not None and before.means.shape != (self.n_components, self.n_features_in_):
            raise ModelError(
                f"a warm start from means of shape {before.means.shape} does not suit {self.n_components} components "
                f"and {self.n_features_in_} features: set warm_start=False"
            )
        source, sizes = source_of(rows, sample_weight)
        prior = given_prior(self, self.n_features_in_)
        random_state = check_random_state(self.random_state)
        if self.batch_size is not None:
            return self._fit_minibatches(source, before, random_state, kept_dtype(rows.dtype))
        counted = reduce_to_counts(source) if countable(rows.dtype, self.n_features_in_) else None
        if counted is not None:
            source, sizes = counted, counted.sizes
        summary = summarize(source, sizes)
        starts = [before] if before is not None else self._starts(source, summary, random_state, prior)
        announcer = self._announcer(len(starts))
        fits = run_em(
            source,
            starts,
            tol=self.tol,
            max_iter=self.max_iter,
            reg_covar=self.reg_covar,
            covariance_type=self.covariance_type,
            previous=self.lower_bound_ if warm else -np.inf,
            listener=announcer,
            prior=prior,
        )
        self._ends = fits
        return self._finish(best_of(fits), 0, kept_dtype(rows.dtype), announcer)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, then return the most probable component of each sample; see `fit` and `predict`."""
        return self.fit(X, y, sample_weight=sample_weight).predict(X)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> GaussianMixture:
        """Take one step of stepwise EM with all samples of `X` as the minibatch.

        The first call finds starting values in its samples. Later calls, and calls after `fit`, update the mixture.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`; the first minibatch needs at least as many samples as components.

        Raises
        ------
        ModelError
            If samples, weights or parameters are invalid.
        """
        check_settings(self)
        if self.prior is not None:
            raise ModelError("partial_fit cannot use a prior: fit all samples at once, or set prior=None")
        fitted = hasattr(self, "converged_")
        rows = read_rows(self, X, reset=not fitted, y=y)
        dtype = np.result_type(kept_dtype(rows.dtype), *([self.means_] if fitted else []))
        source, sizes = source_of(rows, sample_weight)
        if fitted:
            states, t = [self._state()], max(1, self.n_steps_)
            summarize(source, sizes)
        else:
            summary, t = summarize(source, sizes), 0
            states = self._starts(source, summary, check_random_state(self.random_state))
        batch = e_step(source, states, self.covariance_type)
        best = first_of_best((batch.log_likelihood / batch.weight).tolist())
        (state,) = step([states[best]], batch.only([best]), t, self._schedule())
        bound = float(batch.log_likelihood[best] / batch.weight)
        bounds = [*self.lower_bounds_, bound] if fitted else [bound]
        self._set_fitted(state, bounds, False, len(bounds), t + 1, dtype)
        return self

    def predict(self, X: Any) -> Any:
        """Return the most probable component of each sample, int64, shape (n,); lazy for dask input."""
        return self._apply(X, inference.most_probable, None, np.int64)

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each component for each sample (responsibilities), shape (n, n_components).

        They are lazy for dask input, and float32 if samples and mixture are.
        """
        return self._apply(X, inference.responsibilities, len(self._state().weights))

    def score_samples(self, X: Any) -> Any:
        """Return the log-likelihood of each sample, shape (n,).

        It is lazy for dask input, and float32 if samples and mixture are.
        """
        return self._apply(X, inference.log_likelihoods, None)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-likelihood per unit of sample weight, in one pass.

        For float32 samples in memory without weights, the mean of `score_samples` is returned, as in scikit-learn.
        """
        if sample_weight is None and getattr(X, "dtype", None) == np.float32 and isinstance(X, np.ndarray) and len(X):
            return float(np.mean(self.score_samples(X)))
        log_likelihood, weight = self._log_likelihood(X, sample_weight)
        return log_likelihood / weight

    def aic(self, X: Any, sample_weight: Any = None) -> float:
        """Return the Akaike information criterion; lower is better."""
        return -2.0 * self._log_likelihood(X, sample_weight)[0] + 2 * self._n_parameters()

    def bic(self, X: Any, sample_weight: Any = None) -> float:
        """Return the Bayesian information criterion; lower is better."""
        log_likelihood, weight = self._log_likelihood(X, sample_weight)
        return -2.0 * log_likelihood + self._n_parameters() * math.log(weight)

    def sample(self, n_samples: int = 1) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return random samples, shape (n_samples, n_features), ordered by component, and the component of each."""
        state = self._state()
        if n_samples < 1:
            raise ModelError(f"n_samples is {n_samples}: give 1 or more")
        return inference.draw(state, self.covariance_type, n_samples, check_random_state(self.random_state))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the mixture as JSON text, with all digits of its numbers; if `path` is given, also write it there."""
        text = serialization.write(serialization.document_of(self))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | Path, name: str = "the text") -> GaussianMixture:
        """Return the mixture that `to_json` converted to a text, given the text or the `Path` of its file.

        Raises
        ------
        ModelError
            If the text is no mixture. The message refers to the text as `name`, and to a file by its path.
        """
        if isinstance(source, Path):
            return serialization.restore(cls, serialization.read_file(source), str(source))
        return serialization.restore(cls, serialization.read(source, name), name)

    @classmethod
    def from_sklearn(cls, mixture: Any) -> GaussianMixture:
        """Return a fitted mixture with the parameters of a fitted `sklearn.mixture.GaussianMixture`."""
        return serialization.from_sklearn(cls, mixture)

    def to_sklearn(self) -> Any:
        """Return a fitted `sklearn.mixture.GaussianMixture` with the parameters of this mixture."""
        check_is_fitted(self)
        return serialization.to_sklearn(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "means_")

    def _fit_minibatches(
        self, source: Source, before: State | None, random_state: np.random.RandomState, dtype: npt.DTypeLike
    ) -> GaussianMixture:
        if before is None:
            sample = first_rows(source, random_state)
            states, t = self._starts(sample, summarize(sample, sample.sizes), random_state), 0
        else:
            states, t = [before], max(1, self.n_steps_)
        announcer = self._announcer(len(states))
        fits, steps = run_stepwise(
            source,
            states,
            batch_size=int(self.batch_size or 1),
            schedule=self._schedule(),
            tol=self.tol,
            max_iter=self.max_iter,
            random_state=random_state,
            t=t,
            listener=announcer,
        )
        return self._finish(best_of(fits), steps, dtype, announcer)

    def _announcer(self, starts: int) -> Announcer:
        announcer = Announcer(self.verbose, self.verbose_interval, self.listener)
        announcer.begin(starts)
        return announcer

    def _finish(self, best: Fit, n_steps: int, dtype: npt.DTypeLike, announcer: Announcer) -> GaussianMixture:
        bounds = best.lower_bounds
        self._set_fitted(best.state, bounds, best.converged, len(bounds), n_steps, dtype)
        announcer.end(best.converged, len(bounds), self.lower_bound_)
        if self.max_iter > 0 and not best.converged:
            unit = "iteration" if self.batch_size is None else "pass"
            message = unconverged(bounds, self.tol, unit)
            warnings.warn(message, ConvergenceWarning, stacklevel=3 if self.batch_size is None else 4)
        return self

    def _starts(
        self, source: Source, summary: DataSummary, random_state: np.random.RandomState, prior: Prior | None = None
    ) -> list[State]:
        total = max(float(summary.rows.sum()), float(summary.weights.sum()))
        if total < self.n_components:
            raise ModelError(
                f"{self.n_components} components need n_samples >= n_components, there are n_samples = {total:g}: use "
                "fewer components"
            )
        weights, means, covariances = given_parts(self, self.n_features_in_)
        if weights is not None and means is not None and covariances is not None:
            return [State(weights, means, covariances)]
        states = (
            [prior.state]
            if prior is not None
            else start_states(
                source,
                summary,
                self.init_params,
                self.n_components,
                self.n_init,
                random_state,
                self.reg_covar,
                self.covariance_type,
            )
        )
        return [
            State(
                state.weights if weights is None else weights,
                state.means if means is None else means,
                state.covariances if covariances is None else covariances,
            )
            for state in states
        ]

    def _set_fitted(
        self,
        state: State,
        lower_bounds: list[float],
        converged: bool,
        n_iter: int,
        n_steps: int,
        dtype: npt.DTypeLike = np.float64,
    ) -> None:
        covariances = state.covariances
        factors = state.factors if state.factors is not None else precisions_cholesky(covariances, self.covariance_type)
        if dtype == np.float32:
            # Round the factors instead of the covariances, which might no longer be positive definite.
            factors = factors.astype(dtype).astype(np.float64)
            covariances = covariances_of(factors, self.covariance_type)
        self.weights_, self.means_ = state.weights.astype(dtype), state.means.astype(dtype)
        self.covariances_, self.precisions_cholesky_ = covariances.astype(dtype), factors.astype(dtype)
        self.precisions_ = precisions_of(factors, self.covariance_type).astype(dtype)
        self.converged_, self.n_iter_, self.n_steps_ = converged, n_iter, n_steps
        self.lower_bounds_ = lower_bounds
        self.lower_bound_ = lower_bounds[-1] if lower_bounds else -np.inf

    def _state(self) -> State:
        check_is_fitted(self)
        weights, means = np.asarray(self.weights_, np.float64), np.asarray(self.means_, np.float64)
        if np.asarray(self.covariances_).dtype != np.float32:
            return State(weights, means, np.asarray(self.covariances_, np.float64))
        factors = np.asarray(self.precisions_cholesky_, np.float64)
        return State(weights, means, covariances_of(factors, self.covariance_type), factors)

    def _schedule(self) -> StepSchedule:
        return StepSchedule(self.kappa, self.t0, self.reg_covar, self.covariance_type)

    def _apply(self, X: Any, kernel: inference.Kernel, columns: int | None, dtype: npt.DTypeLike | None = None) -> Any:
        state = self._state()
        rows = read_rows(self, X, reset=False)
        if dtype is None:
            dtype = np.result_type(kept_dtype(rows.dtype), self.means_)
        return inference.apply(rows, kernel, state, self.covariance_type, columns, np.dtype(dtype))

    def _log_likelihood(self, X: Any, sample_weight: Any) -> tuple[float, float]:
        state = self._state()
        source, sizes = source_of(read_rows(self, X, reset=False), sample_weight)
        return inference.total_log_likelihood(source, sizes, state, self.covariance_type)

    def _n_parameters(self) -> int:
        return n_parameters(self.covariance_type, *self.means_.shape)
