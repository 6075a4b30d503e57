"""Validation of the parameters that users give to `GaussianMixture`."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np

from lungmix.errors import ModelError
from lungmix.mixture.initialization import METHODS
from lungmix.mixture.parameters import COVARIANCE_TYPES, Floats, State, covariance_shape, precisions_cholesky
from lungmix.mixture.prior import Prior


def check_settings(estimator: Any) -> None:
    """Raise an error if a parameter of an estimator is invalid.

    Raises
    ------
    ModelError
        If a parameter is invalid. The message names the parameter, its value, and the values that are valid.
    """
    if estimator.covariance_type not in COVARIANCE_TYPES:
        raise ModelError(f"covariance_type {estimator.covariance_type!r}: choose one of {', '.join(COVARIANCE_TYPES)}")
    if not callable(estimator.init_params) and estimator.init_params not in METHODS:
        raise ModelError(f"init_params {estimator.init_params!r}: choose one of {', '.join(METHODS)}, or a function")
    for name, minimum in (
        ("n_components", 1),
        ("n_init", 1),
        ("max_iter", 0),
        ("verbose", 0),
        ("verbose_interval", 1),
        ("batch_size", 1),
    ):
        value = getattr(estimator, name)
        if name == "batch_size" and value is None:
            continue
        if not isinstance(value, (Integral, np.bool_)) or value < minimum:
            raise ModelError(f"{name} is {value!r}: give a whole number of {minimum} or more")
    for name in ("tol", "reg_covar", "t0", "prior_strength"):
        value = getattr(estimator, name)
        if not isinstance(value, Real) or not 0 <= float(value) < np.inf:
            raise ModelError(f"{name} is {value!r}: give 0 or more")
    if not isinstance(estimator.kappa, Real) or not 0.5 < float(estimator.kappa) <= 1:
        raise ModelError(f"kappa is {estimator.kappa!r}: give more than 0.5 and at most 1, so that steps converge")


def given_parts(estimator: Any, n_features: int) -> tuple[Floats | None, Floats | None, Floats | None]:
    """Return the starting weights, means and covariances that the user gives; None for each that is not given.

    Raises
    ------
    ModelError
        If shapes are wrong, weights do not add up to 1 or a covariance is not positive definite.
    """
    k, form = estimator.n_components, estimator.covariance_type
    shape = covariance_shape(form, k, n_features)
    if estimator.precisions_init is not None and estimator.covariances_init is not None:
        raise ModelError("precisions_init and covariances_init are both given: give one of them")
    weights = _array(estimator, "weights_init", (k,))
    means = _array(estimator, "means_init", (k, n_features))
    covariances = _array(estimator, "covariances_init", shape)
    precisions = _array(estimator, "precisions_init", shape)
    if weights is not None and (np.any(weights < 0) or abs(weights.sum() - 1) > 1e-6):
        raise ModelError(f"weights_init adds up to {weights.sum():g}: give shares of 0 or more that add up to 1")
    if precisions is not None:
        precisions_cholesky(precisions, form)
        covariances = np.asarray(np.linalg.inv(precisions) if form in ("full", "tied") else 1 / precisions)
    if covariances is not None:
        precisions_cholesky(covariances, form)
    return weights, means, covariances


def given_prior(estimator: Any, n_features: int) -> Prior | None:
    """Return the prior of an estimator; None if it has none.

    Raises
    ------
    ModelError
        If the prior is no mixture with the numbers of components and features of the fit, or if the estimator uses
        minibatches.
    """
    if estimator.prior is None:
        return None
    if estimator.batch_size is not None:
        raise ModelError(
            "a prior and batch_size are both given: minibatches cannot use a prior, fit without batch_size"
        )
    k, form, prior = estimator.n_components, estimator.covariance_type, estimator.prior
    try:
        if hasattr(prior, "variances"):  # a TissueModel
            weights, means, covariances = (
                np.array(c, np.float64) for c in (prior.weights, prior.means, prior.variances)
            )
            weights, means = weights / weights.sum(), means[:, None]
            covariances = covariances.reshape(covariance_shape(form, len(means), 1))
        else:
            weights, means, covariances = (np.array(part, np.float64) for part in prior)
    except (TypeError, ValueError):
        raise ModelError(
            f"the prior is no mixture with {form} covariances: give a TissueModel, or weights, means and covariances"
        ) from None
    shapes = (k,), (k, n_features), covariance_shape(form, k, n_features)
    if (weights.shape, means.shape, covariances.shape) != shapes:
        raise ModelError(
            f"the prior has the shapes {weights.shape}, {means.shape}, {covariances.shape}: for {k} components and "
            f"{n_features} features, give weights, means and covariances of shapes {', '.join(map(str, shapes))}"
        )
    if not (np.isfinite(means).all() and (weights > 0).all() and abs(weights.sum() - 1) <= 1e-6):
        raise ModelError("a prior needs finite means and positive weights that add up to 1")
    precisions_cholesky(covariances, form)
    return Prior(State(weights, means, covariances), float(estimator.prior_strength))


def _array(estimator: Any, name: str, shape: tuple[int, ...]) -> Floats | None:
    value = getattr(estimator, name)
    if value is None:
        return None
    array = np.array(value, np.float64)
    if array.shape != shape:
        raise ModelError(f"{name} has the shape {array.shape}: the numbers of components and features need {shape}")
    if not np.all(np.isfinite(array)):
        raise ModelError(f"{name} holds NaN or infinity: give finite numbers")
    return array
