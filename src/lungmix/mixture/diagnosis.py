"""Diagnosis of a mixture: which checks it raises, in sentences and numbers.

The checks and their limits are in `lungmix.kernels.diagnosis`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import MixtureWarning
from lungmix.kernels.diagnosis import (
    RaisedCheck,
    diagnose_components,
    diagnose_fit,
    diagnose_labels,
    diagnose_order,
    diagnose_shares,
)
from lungmix.kernels.measures import component_keys
from lungmix.mixture.distance import total_variation
from lungmix.mixture.model import PUBLISHED, TissueModel
from lungmix.tissue import INVOLVED, TISSUES

DOUBTS = "doubts"
"""Key of the sentences of failed checks in the record of a fit (`TissueModel.fit_info`)."""

_SENTENCES = {
    "range": "{name}: its mean {value:.0f} HU is outside {low:.0f} to {high:.0f} HU, the range of this tissue",
    "order": "{name}: by its mean {mean:.0f} HU it belongs to {other}",
    "empty": "{name}: no HU has this label",
    "torn": "{name}: its label has several intervals of HU, with {value:.2g} % of the voxels outside the widest",
    "wide": "{name}: its standard deviation {value:.0f} HU is {high:.0f} HU or more, as of a background",
    "narrow": "{name}: its standard deviation {value:.2g} HU is below {low:.0f} HU",
    "rare": "{name}: its weight {value:.2g} % is below {low:g} %",
    "dominant": "{name}: its weight {value:.0f} % is {high:.0f} % or more",
    "unfinished": "the fit ended before its stopping rule was met",
    "involvement": "pooled lung involvement differs by {value:+.1f} points from that under the published model",
    "starts": "another start ended elsewhere, at a total variation distance of {percent:.1f} %",
    "mean": "{name} is not the label at its own mean, {mean:.0f} HU: there {other} is more probable{effect}",
    "share": "{name}: {percent:.1f} % of the pooled voxels have this label, {reference:.1f} % by the published model",
    "distance": "the total variation distance from the published model is {percent:.0f} %",
}


@dataclass(frozen=True)
class Diagnosis:
    """Checks that a mixture raises, and its distance from the published model.

    Attributes
    ----------
    model : TissueModel
        The mixture.
    raised : tuple of RaisedCheck
        Raised checks. Some fail, so that labels are doubtful; the others are remarks.
    distance : float
        Total variation distance from the published model, 0 to 1.
    involvement_shift : float
        Pooled lung involvement by this mixture minus that by the published model, percentage points. NaN if there is no
        histogram or the mixture does not have five components.
    """

    model: TissueModel
    raised: tuple[RaisedCheck, ...]
    distance: float
    involvement_shift: float

    @property
    def is_doubtful(self) -> bool:
        """True if a check fails, so that labels by the mixture are doubtful."""
        return any(check.fails for check in self.raised)

    def sentences(self, *, failures_only: bool = False) -> list[str]:
        """Return a sentence for each raised check, failures first."""
        checks = sorted(self.raised, key=lambda check: not check.fails)
        return [self._sentence(check) for check in checks if check.fails or not failures_only]

    def rows(self) -> list[dict[str, Any]]:
        """Return a JSON-ready row for each raised check, failures first.

        The keys are ``check``, ``fails``, ``component``, ``value``, its bounds ``low`` and ``high``, ``reference`` (the
        percentage by the published model that ``value`` of the check ``share`` differs from), and ``text``.
        """
        keys = component_keys(self.model.n_components)
        return [
            {
                "check": check.name, "fails": check.fails,
                "component": None if check.component is None else keys[check.component],
                "value": check.value, "low": check.low, "high": check.high, "reference": check.reference,
                "text": self._sentence(check),
            }
            for check in sorted(self.raised, key=lambda check: not check.fails)
        ]  # fmt: skip

    def warn(self) -> None:
        """Issue a `MixtureWarning` if the mixture is doubtful."""
        if self.is_doubtful:
            text = "; ".join(self.sentences(failures_only=True))
            warnings.warn(f"labels by this mixture are doubtful: {text}", MixtureWarning, stacklevel=2)

    def _sentence(self, check: RaisedCheck) -> str:
        k, names = check.component, _names(self.model.n_components)
        other = int(check.value) if check.name in ("order", "mean") else None
        return _SENTENCES[check.name].format(
            name="" if k is None else names[k],
            mean=math.nan if k is None else self.model.means[k],
            other="" if other is None else names[other],
            effect="" if k is None or other is None else self._effect(k, other),
            value=check.value,
            percent=100 * check.value if check.reference is None else check.reference + check.value,
            low=check.low,
            high=check.high,
            reference=check.reference,
        )

    def _effect(self, k: int, other: int) -> str:
        """Return the end of a sentence: what follows if component `other` is more probable at the mean of `k`."""
        if self.model.n_components != len(TISSUES):
            return ""
        alike = (TISSUES[k].key in INVOLVED) == (TISSUES[other].key in INVOLVED)
        involvement = ", although lung involvement hardly does" if alike else ", and so can lung involvement"
        return f", so that percentages of both can differ much from those by the published model{involvement}"


def diagnose(model: TissueModel, histogram: npt.NDArray[np.uint64] | None = None) -> Diagnosis:
    """Return the diagnosis of a mixture; the published model raises no check.

    Parameters
    ----------
    model : TissueModel
        The mixture. Its record of the fit is checked too, if it has one. Ranges and order of tissues are checked only
        if there are five components.
    histogram : ndarray of uint64, shape (65536,), optional
        Histogram, from -32768 HU on, of the voxels that the mixture labels.
    """
    columns = (model.weights, model.means, np.sqrt(model.variances))
    weights, means, sds = (np.asarray(column, np.float64) for column in columns)
    distance, shift = total_variation(model, PUBLISHED), math.nan
    raised = [*diagnose_components(weights, means, sds), *diagnose_labels(weights, means, sds)]
    if model.n_components == len(TISSUES):
        if histogram is not None and histogram.any():
            percents, reference = (_percents(mixture, histogram) for mixture in (model, PUBLISHED))
            involved = [tissue.key in INVOLVED for tissue in TISSUES]
            shift = float((percents - reference)[involved].sum())
            raised += diagnose_shares(percents, reference)
        raised += diagnose_order(means, np.asarray(PUBLISHED.means), model.fit_info.get("prior_components"))
    raised += diagnose_fit(
        converged=bool(model.fit_info.get("converged", True)),
        distances=[float(end["distance"]) for end in model.fit_info.get("starts", []) if end["converged"]],
        distance=distance if model.n_components == len(TISSUES) else 0.0,
        involvement_shift=shift,
    )
    return Diagnosis(model, tuple(raised), distance, shift)


def doubts_of(model: TissueModel, *, is_fit: bool) -> list[str]:
    """Return a sentence for each check of a mixture that fails.

    Parameters
    ----------
    model : TissueModel
        The mixture.
    is_fit : bool
        True for a fit of a store, whose record holds the sentences, including those of checks that need a histogram.
        False for a model from a file: its record may hold anything, so that only its parameters are checked.
    """
    recorded = model.fit_info.get(DOUBTS) if is_fit else None
    return list(map(str, recorded)) if recorded is not None else list(_doubts_of_parameters(model))


@lru_cache(maxsize=64)
def _doubts_of_parameters(model: TissueModel) -> tuple[str, ...]:
    return tuple(diagnose(replace(model, fit_info={})).sentences(failures_only=True))


def with_doubts(model: TissueModel, histogram: npt.NDArray[np.uint64]) -> TissueModel:
    """Return a fit whose record holds the sentences of its failed checks; `histogram` is what was fitted."""
    sentences = diagnose(model, histogram).sentences(failures_only=True)
    return replace(model, fit_info={**model.fit_info, DOUBTS: sentences})


def _percents(model: TissueModel, histogram: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the percent of the voxels of a histogram that have each label: shape (n_components,)."""
    counts = np.bincount(model.lookup_table(), histogram, minlength=model.n_components + 1)[1:]
    return np.asarray(100 * counts / counts.sum())


def _names(n_components: int) -> list[str]:
    if n_components == len(TISSUES):
        return [tissue.name for tissue in TISSUES]
    return [f"component {k + 1}" for k in range(n_components)]
