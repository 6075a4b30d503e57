"""Fitted mixtures as JSON, which people and other programs can read, and which is validated when it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sklearn.mixture import GaussianMixture as Reference
from sklearn.utils.validation import check_is_fitted

from lungmix.errors import ModelError, mark_path, mark_untrusted
from lungmix.mixture.initialization import METHODS
from lungmix.mixture.inputs import kept_dtype
from lungmix.mixture.parameters import (
    Floats,
    State,
    covariance_shape,
    covariances_of,
    precisions_cholesky,
    precisions_of,
)
from lungmix.mixture.settings import check_settings, given_parts

FORMAT_VERSION = 1
LARGEST_TEXT = 1 << 28

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Nested = list[_Finite] | list[list[_Finite]] | list[list[list[_Finite]]]


_KEPT = ("n_init", "tol", "reg_covar", "max_iter", "warm_start", "batch_size", "kappa", "t0")
_FITTED = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "converged_",
    "n_iter_",
    "lower_bound_",
    "lower_bounds_",
    "n_features_in_",
    "feature_names_in_",
)


class Document(BaseModel):
    """Schema of the JSON text. Arrays are nested lists in the shapes of the attributes of the fitted mixture."""

    model_config = ConfigDict(extra="forbid", strict=False)

    format: Literal["lungmix.GaussianMixture"]
    format_version: int = Field(ge=1, le=FORMAT_VERSION)
    covariance_type: Literal["full", "tied", "diag", "spherical"]
    weights: list[_Share] = Field(min_length=1)
    means: list[list[_Finite]] = Field(min_length=1)
    covariances: _Nested
    converged: bool
    n_iter: int = Field(ge=0)
    n_steps: int = Field(default=0, ge=0)
    lower_bounds: list[_Finite] = Field(default_factory=list)
    feature_names: list[str] | None = None
    dtype: Literal["float32", "float64"] = "float64"
    precisions_cholesky: _Nested | None = None
    parameters: dict[str, int | float | str | bool | None] = Field(default_factory=dict)

    def state(self) -> State:
        """Return the parameters of the mixture.

        Raises
        ------
        ModelError
            If shapes are inconsistent, weights do not add up to 1 or a covariance is not positive definite.
        """
        weights = np.asarray(self.weights, np.float64)
        means, covariances = _array(self.means, "means"), _array(self.covariances, "covariances")
        if means.ndim != 2 or len(means) != len(weights):
            raise ModelError(f"means have the shape {means.shape} for {len(weights)} weights: give one row per weight")
        shape = covariance_shape(self.covariance_type, *means.shape)
        if covariances.shape != shape:
            raise ModelError(f"{self.covariance_type} covariances have the shape {covariances.shape}, not {shape}")
        if abs(weights.sum() - 1) > 1e-5:
            raise ModelError(f"the weights of a mixture must add up to 1, but these add up to {weights.sum():.6g}")
        if self.precisions_cholesky is None:
            precisions_cholesky(covariances, self.covariance_type)
            return State(weights, means, covariances)
        factors = _array(self.precisions_cholesky, "precisions_cholesky")
        full = self.covariance_type in ("full", "tied")
        if factors.shape != shape or (full and not np.array_equal(factors, np.triu(factors))):
            raise ModelError(f"precisions_cholesky of shape {factors.shape}: give upper triangles of shape {shape}")
        if np.any((np.diagonal(factors, axis1=-2, axis2=-1) if full else factors) <= 0):
            raise ModelError("precisions_cholesky has numbers on its diagonal that are not above 0")
        return State(weights, means, covariances_of(factors, self.covariance_type), factors)


def _array(values: Any, name: str) -> Floats:
    try:
        return np.asarray(values, np.float64)
    except ValueError:
        raise ModelError(f"{name} are ragged: give lists of equal lengths") from None


def write(document: Document) -> str:
    """Return a document as JSON text, with all digits of its numbers."""
    content = document.model_dump()
    if document.dtype == "float64":
        del content["dtype"], content["precisions_cholesky"]  # so that older versions read most mixtures
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read(text: str | bytes, name: str) -> Document:
    """Return the document that `write` converted to a text.

    Raises
    ------
    ModelError
        If the text is no mixture; the message refers to it as `name`.
    """
    if len(text) > LARGEST_TEXT:
        raise ModelError(f"{name} is larger than a mixture can be (256 MiB): give a text that `to_json` returned")
    try:
        return Document.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(str(part) for part in first["loc"]) or "the text"
        raise ModelError(
            f"{name} is not a mixture: {mark_untrusted(location)}: {first['msg']}; give a text that `to_json` returned"
        ) from None


def read_file(path: Path) -> Document:
    """Return the document in a file; error messages name the file."""
    if not path.is_file():
        raise ModelError(f"there is no file {mark_path(path)}: give the path of a file that `to_json` wrote")
    if path.stat().st_size > LARGEST_TEXT:
        raise ModelError(f"{mark_path(path)} is larger than a mixture can be (256 MiB): give a file of `to_json`")
    return read(path.read_bytes(), mark_path(path))


def document_of(mixture: Any) -> Document:
    """Return the document of a fitted `GaussianMixture`."""
    state = mixture._state()
    seed = mixture.random_state
    kept = {name: getattr(mixture, name) for name in _KEPT}
    kept["random_state"] = int(seed) if isinstance(seed, Integral) else None
    kept["init_params"] = mixture.init_params if isinstance(mixture.init_params, str) else "kmeans"
    names = getattr(mixture, "feature_names_in_", None)
    return Document(
        format="lungmix.GaussianMixture",
        format_version=FORMAT_VERSION,
        covariance_type=mixture.covariance_type,
        weights=state.weights.tolist(),
        means=state.means.tolist(),
        covariances=state.covariances.tolist(),
        precisions_cholesky=None if state.factors is None else state.factors.tolist(),
        converged=bool(mixture.converged_),
        n_iter=int(mixture.n_iter_),
        n_steps=int(mixture.n_steps_),
        lower_bounds=[float(bound) for bound in mixture.lower_bounds_],
        feature_names=None if names is None else [str(name) for name in names],
        dtype="float32" if mixture.means_.dtype == np.float32 else "float64",
        parameters={name: value.item() if isinstance(value, np.generic) else value for name, value in kept.items()},
    )


def restore(kind: type[Any], document: Document, name: str) -> Any:
    """Return the fitted `GaussianMixture` of a document; error messages refer to the document as `name`."""
    unknown = sorted(set(document.parameters) - {*_KEPT, "random_state", "init_params"})
    if unknown:
        raise ModelError(
            f"{name} has the parameter {unknown[0]}, which a mixture does not have: give a text that `to_json` returned"
        )
    mixture = kind(len(document.weights), document.covariance_type, **document.parameters)
    try:
        check_settings(mixture)
        state = document.state()
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None
    mixture._set_fitted(
        state, document.lower_bounds, document.converged, document.n_iter, document.n_steps, document.dtype
    )
    mixture.n_features_in_ = state.means.shape[1]
    if document.feature_names is not None:
        mixture.feature_names_in_ = np.array(document.feature_names, object)
    return mixture


_SHARED = (
    "n_components",
    "covariance_type",
    "n_init",
    "tol",
    "reg_covar",
    "max_iter",
    "random_state",
    "weights_init",
    "means_init",
    "precisions_init",
    "warm_start",
    "verbose",
    "verbose_interval",
)


def from_sklearn(kind: type[Any], mixture: Any) -> Any:
    """Return a fitted `GaussianMixture` with the parameters of a fitted mixture of scikit-learn."""
    check_is_fitted(mixture)
    result = kind(**{name: getattr(mixture, name) for name in _SHARED})
    if mixture.init_params in METHODS:
        result.init_params = mixture.init_params
    dtype = kept_dtype(mixture.means_.dtype)
    state = State(*(np.array(part, np.float64) for part in (mixture.weights_, mixture.means_, mixture.covariances_)))
    if dtype is np.float32:
        factors = np.array(mixture.precisions_cholesky_, np.float64)
        state = replace(state, covariances=covariances_of(factors, mixture.covariance_type), factors=factors)
    bounds = [float(bound) for bound in getattr(mixture, "lower_bounds_", [mixture.lower_bound_])]
    result._set_fitted(state, bounds, bool(mixture.converged_), int(mixture.n_iter_), 0, dtype)
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(mixture, name):
            setattr(result, name, getattr(mixture, name))
    return result


def to_sklearn(mixture: Any) -> Any:
    """Return a fitted mixture of scikit-learn with the parameters of a fitted `GaussianMixture`."""
    form = mixture.covariance_type
    shared = {name: getattr(mixture, name) for name in _SHARED}
    if mixture.covariances_init is not None:
        covariances = np.asarray(given_parts(mixture, mixture.n_features_in_)[2])
        shared["precisions_init"] = precisions_of(precisions_cholesky(covariances, form), form)
    is_shared = mixture.init_params in METHODS and mixture.init_params != "k-means||"
    reference = Reference(**shared, init_params=mixture.init_params if is_shared else "kmeans")
    for name in _FITTED:
        if hasattr(mixture, name):
            value = getattr(mixture, name)
            setattr(reference, name, value.copy() if hasattr(value, "copy") else value)
    return reference
