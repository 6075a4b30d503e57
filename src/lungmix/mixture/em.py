"""Expectation and maximisation for weighted samples; formulas are those of scikit-learn's mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.special import logsumexp

from lungmix.errors import ModelError

Floats = npt.NDArray[np.float64]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
_TINY = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of a mixture of k components in d dimensions.

    Attributes
    ----------
    weights : ndarray, shape (k,)
        They add up to 1.
    means : ndarray, shape (k, d)
        Component means.
    covariances : ndarray
        ``(k, d, d)`` full, ``(d, d)`` tied, ``(k, d)`` diag, ``(k,)`` spherical.
    """

    weights: Floats
    means: Floats
    covariances: Floats


def e_step(x: Floats, state: State, covariance_type: str) -> tuple[Floats, Floats]:
    """Log-likelihood of each sample and log responsibilities.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Samples.
    state : State
        Parameters.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.

    Returns
    -------
    log_likelihood : ndarray, shape (n,)
        By log-sum-exp, so that far samples do not underflow.
    log_responsibilities : ndarray, shape (n, k)
        Normalised over components.
    """
    weighted = log_densities(x, state, covariance_type)
    with np.errstate(under="ignore"):
        log_likelihood = logsumexp(weighted, axis=1)
        return log_likelihood, weighted - log_likelihood[:, None]


def log_densities(x: Floats, state: State, covariance_type: str) -> Floats:
    """Log of weight times density, shape (n, k); parameters are those of `e_step`."""
    d = x.shape[1]
    factors = precisions_cholesky(state.covariances, covariance_type)
    out = np.empty((len(x), len(state.weights)))
    for k, mean in enumerate(state.means):
        if covariance_type in ("full", "tied"):
            factor = factors[k] if covariance_type == "full" else factors
            scaled = (x - mean) @ factor
            log_det = float(np.sum(np.log(np.diag(factor))))
        else:
            factor = factors[k] * np.ones(d)
            scaled = (x - mean) * factor
            log_det = float(np.sum(np.log(factor)))
        out[:, k] = log_det - 0.5 * (d * np.log(2 * np.pi) + np.einsum("ij,ij->i", scaled, scaled))
    with np.errstate(divide="ignore"):
        return np.asarray(out + np.log(state.weights))


def m_step(x: Floats, responsibilities: Floats, weights: Floats, reg_covar: float, covariance_type: str) -> State:
    """Parameters from responsibilities.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Samples.
    responsibilities : ndarray, shape (n, k)
        Of the components for each sample.
    weights : ndarray, shape (n,)
        Sample weights: a weight of c stands for c copies.
    reg_covar : float
        Added to the diagonal of covariances.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.
    """
    r = responsibilities * weights[:, None]
    nk = r.sum(axis=0) + _TINY
    means = (r.T @ x) / nk[:, None]
    d = x.shape[1]
    if covariance_type == "full":
        covariances = np.empty((len(nk), d, d))
        for k, mean in enumerate(means):
            diff = x - mean
            covariances[k] = (r[:, k] * diff.T) @ diff / nk[k]
            covariances[k].flat[:: d + 1] += reg_covar
    elif covariance_type == "tied":
        total = (weights[:, None] * x).T @ x - (nk * means.T) @ means
        covariances = total / nk.sum()
        covariances.flat[:: d + 1] += reg_covar
    else:
        covariances = np.stack([(r[:, k] @ (x - mean) ** 2) / nk[k] for k, mean in enumerate(means)]) + reg_covar
        if covariance_type == "spherical":
            covariances = covariances.mean(axis=1)
    return State(nk / nk.sum(), means, covariances)


def precisions_cholesky(covariances: Floats, covariance_type: str) -> Floats:
    """Cholesky factors of the precisions, in scikit-learn's shapes.

    Raises
    ------
    ModelError
        If a covariance is not positive definite.
    """
    remedy = "a component collapsed on too few distinct values: use fewer components or a larger reg_covar"
    if covariance_type in ("full", "tied"):
        blocks = covariances if covariance_type == "full" else covariances[None]
        factors = np.empty_like(blocks)
        for k, block in enumerate(blocks):
            try:
                lower = linalg.cholesky(block, lower=True)
            except (linalg.LinAlgError, ValueError) as error:
                raise ModelError(f"a covariance is not positive definite; {remedy}") from error
            factors[k] = linalg.solve_triangular(lower, np.eye(len(block)), lower=True).T
        return factors if covariance_type == "full" else np.asarray(factors[0])
    if not np.all(covariances > 0):
        raise ModelError(f"a variance is not positive; {remedy}")
    return np.asarray(1.0 / np.sqrt(covariances))


@dataclass(frozen=True, eq=False)
class Fit:
    """Result of one run of EM.

    Attributes
    ----------
    state : State
        Parameters after the last maximisation.
    lower_bounds : list of float
        Mean log-likelihood per unit of sample weight, one an iteration.
    converged : bool
        Whether the last gain was below the tolerance.
    """

    state: State
    lower_bounds: list[float]
    converged: bool


def run_em(
    x: Floats,
    weights: Floats,
    state: State,
    *,
    tol: float,
    max_iter: int,
    reg_covar: float,
    covariance_type: str,
) -> Fit:
    """Expectation and maximisation in turn until the mean log-likelihood gains less than `tol`."""
    total = weights.sum()
    bounds: list[float] = []
    for _ in range(max_iter):
        log_likelihood, log_responsibilities = e_step(x, state, covariance_type)
        state = m_step(x, np.exp(log_responsibilities), weights, reg_covar, covariance_type)
        bounds.append(float(weights @ log_likelihood / total))
        if len(bounds) > 1 and abs(bounds[-1] - bounds[-2]) < tol:
            return Fit(state, bounds, True)
    return Fit(state, bounds, False)
