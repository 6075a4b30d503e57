"""Mixture of lung tissues: Gaussians of HU, usually five, sorted by mean, and the labels that follow from them."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lungmix.errors import ModelError, error_about, mark_path, mark_untrusted

if TYPE_CHECKING:
    from lungmix.mixture.estimator import GaussianMixture

T = TypeVar("T")

FORMAT_VERSION = 1
_LARGEST_FILE = 1 << 20
_HU = np.arange(-32768, 32768)
_DIGITS = 12

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Document(BaseModel):
    """Schema of a model file."""

    model_config = ConfigDict(extra="ignore", strict=False)

    format_version: int = Field(default=FORMAT_VERSION, ge=1, le=FORMAT_VERSION)
    weights: list[_Positive] = Field(min_length=1, max_length=50)
    means: list[_Finite] = Field(min_length=1, max_length=50)
    variances: list[_Positive] = Field(min_length=1, max_length=50)
    fit: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class TissueModel:
    """A mixture of Gaussians of HU, whose components are sorted by mean.

    Attributes
    ----------
    weights : tuple of float
        Weights of the components, which add up to 1.
    means : tuple of float
        Means of the components in HU, ascending. Five components are air, healthy lung, ground-glass opacity,
        consolidation and other denser tissue, in this order.
    variances : tuple of float
        Variances of the components in HU².
    fit_info : mapping
        Record of the fit, such as number of iterations, mean log-likelihood and number of voxels. Its key in JSON is
        ``fit``.

    Raises
    ------
    ModelError
        If the numbers do not describe a mixture.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    fit_info: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        columns = [tuple(float(v) for v in getattr(self, name)) for name in ("weights", "means", "variances")]
        if len({len(column) for column in columns}) != 1 or not columns[0]:
            raise ModelError(
                "weights, means and variances of a mixture must be equally many: give one of each per component"
            )
        if not np.isfinite(columns).all() or min(columns[0]) <= 0 or min(columns[2]) <= 0:
            raise ModelError("a mixture needs finite means and positive weights and variances")
        if abs(sum(columns[0]) - 1) > 1e-5:
            raise ModelError(f"the weights of a mixture must add up to 1, but these add up to {sum(columns[0]):.6g}")
        order = sorted(range(len(columns[1])), key=lambda i: columns[1][i])
        for name, column in zip(("weights", "means", "variances"), columns, strict=True):
            object.__setattr__(self, name, tuple(column[i] for i in order))

    @property
    def n_components(self) -> int:
        """Number of Gaussians."""
        return len(self.means)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that identify weights, means and variances, regardless of `fit_info`."""
        numbers = [list(map(float, column)) for column in (self.weights, self.means, self.variances)]
        return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:_DIGITS]

    def log_densities(self, hu: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return log(weight * density) of each component at `hu`; the result has a last axis for the components."""
        x = np.asarray(hu, np.float64)[..., None]
        variances = np.asarray(self.variances)
        return np.asarray(
            np.log(self.weights)
            - 0.5 * np.log(2 * np.pi * variances)
            - (x - np.asarray(self.means)) ** 2 / (2 * variances)
        )

    def density(self, hu: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the density of the mixture at `hu`, per HU."""
        return np.asarray(np.exp(self.log_densities(hu)).sum(axis=-1))

    def predict(self, hu: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return the most probable component at `hu`, counted from 1; of equally probable ones, the lower one."""
        return np.asarray(np.argmax(self.log_densities(hu), axis=-1) + 1, np.uint8)

    def predict_proba(self, hu: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the posterior of every component, in the shape of `hu` with a last axis for the components."""
        logs = self.log_densities(hu)
        # The most probable component gets exp(0), so that posteriors far from all means do not underflow to 0 / 0.
        shares = np.exp(logs - logs.max(axis=-1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=-1, keepdims=True))

    def lookup_table(self) -> npt.NDArray[np.uint8]:
        """Return the label of every int16 value, shape (65536,); entry ``i`` is the label of ``i - 32768`` HU."""
        return self.predict(_HU)

    def posterior_table(self) -> npt.NDArray[np.float64]:
        """Return the posterior of every component for every int16 value: shape (65536, n_components).

        Row ``i`` is for ``i - 32768`` HU. It adds up to 1; its highest entry is that of the label in `lookup_table`.
        """
        return self.predict_proba(_HU)

    def label_intervals(self) -> list[tuple[int, int]]:
        """Return the first HU and the label of each interval of HU with one label, without the lowest interval."""
        labels = self.lookup_table()
        changes = np.flatnonzero(labels[1:] != labels[:-1]) + 1
        return [(int(_HU[i]), int(labels[i])) for i in changes]

    def map_thresholds(self) -> list[float]:
        """Return the MAP thresholds in HU, not rounded: entry k separates labels up to k + 1 from higher labels.

        There are `n_components` - 1 thresholds, in ascending order. They agree with `lookup_table`: in it, a HU value
        up to the threshold has a label up to k + 1, and the next HU value has a higher label.

        A label can have several intervals of HU, for example because the widest component becomes most probable again
        far from all means. If the table changes from a label up to k + 1 to a higher one several times, the threshold
        is the change that has the fewest voxels of the mixture on its wrong side, but at least the threshold before it.
        For a component that is most probable nowhere, the thresholds below and above it are equal. Without a change, a
        threshold is infinite: ``inf`` if no HU value has a higher label, ``-inf`` if none has a label up to k + 1. If
        there are both, and higher labels come first, it is the one of these two with fewer voxels on the wrong side.
        """
        scores = self.log_densities(_HU)
        labels = np.argmax(scores, axis=-1)
        density = np.exp(scores).sum(axis=-1)
        out: list[float] = []
        for k in range(self.n_components - 1):
            change = _best_change(labels > k, density)
            at_end = {0: float("-inf"), len(_HU): float("inf")}
            threshold = at_end[change] if change in at_end else self._crossing(scores, labels, change)
            out.append(max([threshold, *out[-1:]]))
        return out

    def lowest_label_start(self) -> int | None:
        """Return the lowest HU of the interval of HU with label 1 that ends at the lowest MAP threshold.

        At lower HU, a wider component is more probable. If there is no such component, the result is -32768, the lowest
        int16. It is None if no HU value has label 1.
        """
        is_lowest = self.lookup_table() == 1
        threshold = self.map_thresholds()[0] if self.n_components > 1 else math.inf
        last = np.flatnonzero(is_lowest & (threshold >= _HU))
        if not len(last):
            return None
        below = np.flatnonzero(~is_lowest[: last[-1]])
        return int(_HU[below[-1] + 1 if len(below) else 0])

    @staticmethod
    def _crossing(scores: npt.NDArray[np.float64], labels: npt.NDArray[Any], i: int) -> float:
        """Return the HU, interpolated linearly, at which the label of ``_HU[i - 1]`` changes to that of ``_HU[i]``."""
        old, new = labels[i - 1], labels[i]
        before, after = (float(scores[j, old] - scores[j, new]) for j in (i - 1, i))
        hu = float(_HU[i - 1]) + (before / (before - after) if before > after else 0.0)
        # Rounding must not move the threshold to the HU value that has the higher label.
        return min(hu, math.nextafter(float(_HU[i]), -math.inf))

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the model as JSON text, with all digits of its numbers; if `path` is given, also write it there."""
        document = {
            "format_version": FORMAT_VERSION,
            "weights": self.weights,
            "means": self.means,
            "variances": self.variances,
            "fit": dict(self.fit_info),
        }
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        if path is not None:
            Path(path).write_text(text)
        return text

    @classmethod
    def from_json(cls, text: str, name: str = "the model") -> TissueModel:
        """Return the model that `to_json` converted to a text.

        Raises
        ------
        ModelError
            If the text is no model. The message refers to the text as `name`, which can be the name of its file.
        """
        try:
            document = _Document.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            location = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ModelError(
                f"{name} is not a lungmix model: {mark_untrusted(location)}: {first['msg']}; "
                "make one with `Pipeline.fit()`"
            ) from None
        try:
            return cls(tuple(document.weights), tuple(document.means), tuple(document.variances), document.fit)
        except ModelError as error:
            raise ModelError(f"{name}: {error.raw_message}") from None

    @classmethod
    def from_sklearn(cls, mixture: Any) -> TissueModel:
        """Return the model of a fitted mixture with one feature, of scikit-learn or of lungmix.

        Raises
        ------
        ModelError
            If the mixture has more than one feature.
        """
        means = np.asarray(mixture.means_, np.float64)
        if means.ndim != 2 or means.shape[1] != 1:
            raise ModelError(f"a tissue model has one feature, HU; this mixture has means of shape {means.shape}")
        variances = np.asarray(mixture.covariances_, np.float64).reshape(-1)
        if len(variances) == 1:
            variances = np.repeat(variances, len(means))
        fit_info = {
            "n_iter": int(mixture.n_iter_),
            "log_likelihood": float(mixture.lower_bound_),
            "converged": bool(mixture.converged_),
        }
        weights = np.asarray(mixture.weights_, np.float64)
        return cls(tuple(weights.tolist()), tuple(means[:, 0].tolist()), tuple(variances.tolist()), fit_info)

    # Names of earlier versions.

    @property
    def fit(self) -> Mapping[str, Any]:
        """Deprecated name of `fit_info`."""
        return _deprecated("fit", "fit_info", self.fit_info)

    def boundaries(self) -> list[float]:
        """Return `map_thresholds()`: a deprecated name."""
        return _deprecated("boundaries()", "map_thresholds()", self.map_thresholds())

    def thresholds(self) -> list[tuple[int, int]]:
        """Return `label_intervals()`: a deprecated name."""
        return _deprecated("thresholds()", "label_intervals()", self.label_intervals())

    def table(self) -> npt.NDArray[np.uint8]:
        """Return `lookup_table()`: a deprecated name."""
        return _deprecated("table()", "lookup_table()", self.lookup_table())

    def labels_of(self, hu: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Return `predict(hu)`: a deprecated name."""
        return _deprecated("labels_of()", "predict()", self.predict(hu))

    def lower_end(self) -> int | None:
        """Return `lowest_label_start()`: a deprecated name."""
        return _deprecated("lower_end()", "lowest_label_start()", self.lowest_label_start())


def _best_change(is_higher: npt.NDArray[np.bool_], density: npt.NDArray[np.float64]) -> int:
    """Return the index of the first HU value above the threshold between lower and higher labels.

    The threshold is the change from a lower to a higher label with the fewest voxels on its wrong side, and of changes
    with equally many voxels there the one with the fewest HU values there. Without a change, it is below or above all
    HU values.

    Parameters
    ----------
    is_higher : ndarray of bool, shape (65536,)
        True where the label is one of the higher ones, which belong above the threshold.
    density : ndarray, shape (65536,)
        Density of the mixture at each HU value, in proportion to its voxels.
    """
    signs = np.where(is_higher, 1, -1)
    # Voxels and HU values on the wrong side, minus those of a threshold below all HU values.
    voxels = np.concatenate([[0.0], np.cumsum(signs * density)])
    values = np.concatenate([[0], np.cumsum(signs)])
    changes = np.flatnonzero(is_higher[1:] & ~is_higher[:-1]) + 1
    if not len(changes):
        changes = np.asarray([0, len(is_higher)])
    return int(min(changes, key=lambda i: (voxels[i], values[i])))


def _deprecated(old: str, new: str, value: T) -> T:
    message = f"TissueModel.{old} is deprecated: use TissueModel.{new}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return value


PUBLISHED = TissueModel(
    weights=(0.33915991, 0.36163895, 0.13880557, 0.05467644, 0.10571913),
    means=(-950.35445, -828.9766504, -652.26530371, -337.03481411, -12.53896037),
    variances=(1936.65952913, 3413.06554292, 8927.18035462, 24547.22394621, 37633.9743736),
    fit_info={
        "n_iter": 7,
        "log_likelihood": -6.6314801,
        "converged": True,
        "source": "doi:10.3390/bioengineering8020026",
    },
)
"""The published model: the mixture that Zaffino et al. 2021 report."""


def load_model(source: str | Path) -> TissueModel:
    """Return a model by name or from a file.

    Parameters
    ----------
    source : str or Path
        ``"published"``, or the path of a JSON file.

    Raises
    ------
    ModelError
        If the file is missing or is not a model.
    """
    if str(source) == "published":
        return PUBLISHED
    with error_about(path=source):
        return _read_model(Path(source))


def _read_model(path: Path) -> TissueModel:
    name = mark_path(path)
    if not path.is_file():
        raise ModelError(f"there is no model {name}: give 'published' or the path of a JSON model file")
    if path.stat().st_size > _LARGEST_FILE:
        raise ModelError(f"{name} is larger than a model (1 MiB): give the JSON file that `Pipeline.fit()` wrote")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ModelError(f"{name} is not text: give the JSON file that `Pipeline.fit()` wrote") from None
    return TissueModel.from_json(text, name)


def fitted(mixture: GaussianMixture, x: Any, sample_weight: Any = None) -> TissueModel:
    """Fit a mixture to HU and return its model. `fit_info` says whether the fit converged; there is no warning."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        return TissueModel.from_sklearn(mixture.fit(x, sample_weight=sample_weight))
