"""Parameters of a mixture and their densities, with the formulas of scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from lungmix.errors import ModelError

Floats = npt.NDArray[np.float64]

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")


@dataclass(frozen=True, eq=False)
class State:
    """Parameters of a mixture of k components in d dimensions.

    Attributes
    ----------
    weights : ndarray, shape (k,)
        Weights, which add up to 1.
    means : ndarray, shape (k, d)
        Component means.
    covariances : ndarray
        Covariances, in a shape that depends on their form: ``(k, d, d)`` full, ``(d, d)`` tied, ``(k, d)`` diag,
        ``(k,)`` spherical.
    factors : ndarray or None
        Cholesky factors of the precisions, if the covariances were computed from these; None if not.
    """

    weights: Floats
    means: Floats
    covariances: Floats
    factors: Floats | None = None


def covariance_shape(covariance_type: str, k: int, d: int) -> tuple[int, ...]:
    """Return the shape of the covariances of k components in d dimensions."""
    return {"full": (k, d, d), "tied": (d, d), "diag": (k, d), "spherical": (k,)}[covariance_type]


def n_parameters(covariance_type: str, k: int, d: int) -> int:
    """Return the number of free parameters of a mixture of k components in d dimensions."""
    free = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diag": k * d, "spherical": k}
    return free[covariance_type] + k * d + k - 1


def precisions_cholesky(covariances: Floats, covariance_type: str) -> Floats:
    """Return the Cholesky factors of the precisions, which are the inverse covariances, in the shapes of scikit-learn.

    Raises
    ------
    ModelError
        If a covariance is not positive definite.
    """
    remedy = "a component collapsed on too few distinct values: use fewer components or a larger reg_covar"
    if covariance_type in ("full", "tied"):
        try:
            lower = np.linalg.cholesky(covariances)
        except np.linalg.LinAlgError as error:
            raise ModelError(f"a covariance is not positive definite; {remedy}") from error
        if not np.all(np.isfinite(lower)):
            raise ModelError(f"a covariance is not finite; {remedy}")
        inverse = np.linalg.solve(lower, np.broadcast_to(np.eye(lower.shape[-1]), lower.shape))
        return np.ascontiguousarray(np.swapaxes(np.tril(inverse), -1, -2))
    if not (np.all(covariances > 0) and np.all(np.isfinite(covariances))):
        raise ModelError(f"a variance is not positive; {remedy}")
    return np.asarray(1.0 / np.sqrt(covariances))


def precisions_of(factors: Floats, covariance_type: str) -> Floats:
    """Return precisions from their Cholesky factors."""
    if covariance_type in ("full", "tied"):
        return np.asarray(factors @ np.swapaxes(factors, -1, -2))
    return np.asarray(factors**2)


def covariances_of(factors: Floats, covariance_type: str) -> Floats:
    """Return covariances from the Cholesky factors of the precisions; the inverse of `precisions_cholesky`."""
    if covariance_type in ("full", "tied"):
        inverse = np.linalg.inv(factors)
        return np.asarray(np.swapaxes(inverse, -1, -2) @ inverse)
    return np.asarray(1.0 / factors**2)


def factors_of(state: State, covariance_type: str) -> tuple[Floats, Floats]:
    """Return the terms from which the density of each component is computed, the same for all covariance types.

    Returns
    -------
    factors : ndarray
        Cholesky factors of the precisions: upper triangles ``(k, d, d)`` for full and tied, ``(k, d)`` for diag and
        spherical.
    offsets : ndarray, shape (k,)
        Log of the weight times the density at the mean; ``-inf`` for a component of weight 0.
    """
    k, d = state.means.shape
    factors = state.factors if state.factors is not None else precisions_cholesky(state.covariances, covariance_type)
    if covariance_type in ("full", "tied"):
        factors = np.ascontiguousarray(np.broadcast_to(factors, (k, d, d)))
        log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    else:
        factors = np.ascontiguousarray(np.broadcast_to(factors.reshape(k, -1), (k, d)))
        log_det = np.log(factors).sum(axis=1)
    with np.errstate(divide="ignore"):
        return factors, np.asarray(np.log(state.weights) + log_det - 0.5 * d * np.log(2 * np.pi))


def log_densities(x: Floats, state: State, covariance_type: str) -> Floats:
    """Return log(weight * density) of each component, shape (n, k), for samples ``x`` of shape (n, d)."""
    factors, offsets = factors_of(state, covariance_type)
    out = np.empty((len(x), len(offsets)))
    for k, mean in enumerate(state.means):
        diff = x - mean
        scaled = diff @ factors[k] if factors.ndim == 3 else diff * factors[k]
        out[:, k] = offsets[k] - 0.5 * np.einsum("ij,ij->i", scaled, scaled)
    return out


def e_step(x: Floats, state: State, covariance_type: str) -> tuple[Floats, Floats]:
    """Return the log-likelihood of each sample, and the log of the probability of each component for each sample.

    Parameters
    ----------
    x : ndarray, shape (n, d)
        Samples.
    state : State
        Parameters of the mixture.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Form of the covariances.

    Returns
    -------
    log_likelihood : ndarray, shape (n,)
        Log-likelihoods; samples far from all components do not underflow.
    log_responsibilities : ndarray, shape (n, k)
        Log probabilities; the probabilities of a sample add up to 1.
    """
    weighted = log_densities(x, state, covariance_type)
    with np.errstate(under="ignore"):
        log_likelihood = logsumexp(weighted, axis=1)
        return log_likelihood, weighted - log_likelihood[:, None]
