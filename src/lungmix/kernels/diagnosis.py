"""Diagnosis of a mixture of lung tissues: signs that its components are not the tissues that they are named after.

`CHECKS` holds every threshold with its reason, `TISSUE_RANGES` the HU of the tissues with their sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOWEST_HU, HIGHEST_HU = -1024, 1000
"""HU for which labels are examined: from the lowest value of 12-bit CT to dense bone."""


@dataclass(frozen=True)
class TissueRange:
    """HU that the mean of a tissue's component may have.

    Attributes
    ----------
    key : str
        Tissue, as in `lungmix.tissue.TISSUES`.
    low, high : float
        HU.
    source : str
        Where the bounds come from.
    """

    key: str
    low: float
    high: float
    source: str


TISSUE_RANGES: tuple[TissueRange, ...] = (
    TissueRange("air", -1000, -900, "over-inflated lung is at -1000 to -901 HU (Gattinoni et al. 2001)"),
    TissueRange(
        "healthy", -900, -700,
        "well-inflated lung begins at -900 HU (Gattinoni et al. 2001), well-aerated lung ends at -700 HU (Colombi et "
        "al. 2020)",
    ),
    TissueRange(
        "ggo", -700, -250,
        "above well-aerated lung (Colombi et al. 2020), up to the upper bound of high attenuation areas (Lederer et "
        "al. 2009)",
    ),
    TissueRange(
        "consolidation", -500, 100,
        "poorly inflated and not inflated lung (Gattinoni et al. 2001), compromised lung (Lanza et al. 2020)",
    ),
    TissueRange(
        "other", -100, 300,
        "not inflated tissue from -100 HU on (Gattinoni et al. 2001), vessels with contrast up to 300 HU (Bae 2010)",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """A check of a mixture.

    Attributes
    ----------
    name : str
        Name in JSON.
    limit : float
        A number that reaches it raises the check; for those in `BELOW`, one that falls below it.
    unit : str
        Unit of number and limit.
    fails : bool
        True if labels by a mixture that raises it are doubtful; False for a remark.
    measured : str
        Definition of the number.
    reason : str
        Why the limit stands where it does.
    """

    name: str
    limit: float
    unit: str
    fails: bool
    measured: str
    reason: str


CHECKS: tuple[Check, ...] = (
    Check(
        "range", 0, "HU", True, "distance of a component's mean from the range of its tissue",
        "the ranges of tissues, with their sources, are listed apart",
    ),
    Check(
        "order", 1, "", True,
        "rank of a component that belongs to another tissue: to that of the prior, or to the nearest published mean",
        "components are named by rank, so that this one has the name of another tissue",
    ),
    Check(
        "empty", 1, "", True, "values of HU that have the label",
        "a tissue that is never labelled has 0 % in every scan",
    ),
    Check(
        "torn", 0.1, "%", True, "voxels of a label outside its widest interval of HU, of all voxels of the mixture",
        "0.1 % change no tissue by more than the 0.1 points that tables show",
    ),
    Check(
        "wide", 250, "HU", True, "standard deviation of a component",
        "two standard deviations on both sides are then 1000 HU, from air to water: a background, and no tissue",
    ),
    Check(
        "narrow", 8, "HU", True, "standard deviation of a component",
        "noise alone spreads one density by more; below it, a component describes single values",
    ),
    Check(
        "rare", 0.5, "%", True, "weight of a component",
        "a tissue that the voxels hardly hold leaves its component to other voxels",
    ),
    Check(
        "dominant", 90, "%", True, "weight of a component",
        "healthy lungs have 50 to 75 % of one tissue, severe emphysema up to 85 % air",
    ),
    Check(
        "unfinished", 1, "", True, "fits that ended before their stopping rule",
        "the mixture is then no maximum, and another number of iterations gives another one",
    ),
    Check(
        "involvement", 3, "points", True,
        "difference of the pooled lung involvement from that under the published model",
        "it is more than half of the smallest class of the radiologist's score, 5 points",
    ),
    Check(
        "starts", 0.01, "", False,
        "total variation distance of the fit from the end of another start",
        "labels of 1 % of the voxels can depend on the start",
    ),
    Check(
        "distance", 0.25, "", False, "total variation distance from the published model",
        "random groups of ten scans of one cohort differ by 0.03 to 0.05; five times that is another population or "
        "another scanner",
    ),
)  # fmt: skip

BELOW = ("empty", "narrow", "rare")
"""Checks that numbers below the limit raise, in place of those from it on."""

_CHECKS = {check.name: check for check in CHECKS}


@dataclass(frozen=True)
class RaisedCheck:
    """A check that a mixture raises.

    Attributes
    ----------
    name : str
        Name of the check.
    component : int or None
        Component, from 0; None for the whole mixture.
    value : float
        The number that was compared.
    low, high : float or None
        Bounds of the number in the unit of the check; None where there is none.
    """

    name: str
    component: int | None
    value: float
    low: float | None = None
    high: float | None = None

    @property
    def fails(self) -> bool:
        """True if labels by the mixture are doubtful."""
        return _CHECKS[self.name].fails


def diagnose_components(weights: Floats, means: Floats, sds: Floats) -> list[RaisedCheck]:
    """Return the checks that components raise one by one.

    Parameters
    ----------
    weights : ndarray, shape (k,)
        Weights, which add up to 1.
    means, sds : ndarray, shape (k,)
        Means and standard deviations in HU. The ranges of tissues are compared for five components only.
    """
    raised = []
    ranges = TISSUE_RANGES if len(means) == len(TISSUE_RANGES) else ()
    for k, (mean, tissue) in enumerate(zip(means, ranges, strict=False)):
        if not tissue.low <= mean <= tissue.high:
            raised.append(RaisedCheck("range", k, float(mean), tissue.low, tissue.high))
    wide, narrow = _CHECKS["wide"].limit, _CHECKS["narrow"].limit
    raised += [RaisedCheck("wide", k, float(sd), high=wide) for k, sd in enumerate(sds) if sd >= wide]
    raised += [RaisedCheck("narrow", k, float(sd), low=narrow) for k, sd in enumerate(sds) if sd < narrow]
    # In a mixture of one component, its weight says nothing.
    percent = 100 * np.asarray(weights) if len(weights) > 1 else np.empty(0)
    rare, dominant = _CHECKS["rare"].limit, _CHECKS["dominant"].limit
    raised += [RaisedCheck("rare", k, float(w), low=rare) for k, w in enumerate(percent) if w < rare]
    return raised + [
        RaisedCheck("dominant", k, float(w), high=dominant) for k, w in enumerate(percent) if w >= dominant
    ]


def diagnose_labels(weights: Floats, means: Floats, sds: Floats) -> list[RaisedCheck]:
    """Return the checks that MAP labels by HU raise: labels of no HU, and labels of several intervals.

    Parameters
    ----------
    weights, means, sds : ndarray, shape (k,)
        See `diagnose_components`.
    """
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    gaps = (hu[:, None] - np.asarray(means)) / np.asarray(sds)
    joint = np.log(weights) - np.log(sds) - gaps**2 / 2
    labels = np.argmax(joint, axis=1)
    density = np.exp(joint).sum(axis=1) / np.sqrt(2 * np.pi)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(hu)]])
    raised = []
    for k in range(len(means)):
        runs = [(end - start, density[start:end].sum()) for start, end in zip(edges[:-1], edges[1:], strict=True)
                if labels[start] == k]  # fmt: skip
        if not runs:
            raised.append(RaisedCheck("empty", k, 0.0, low=_CHECKS["empty"].limit))
            continue
        widest = max(range(len(runs)), key=lambda i: runs[i][0])
        outside = 100 * float(sum(share for i, (_, share) in enumerate(runs) if i != widest))
        if outside >= _CHECKS["torn"].limit:
            raised.append(RaisedCheck("torn", k, outside, high=_CHECKS["torn"].limit))
    return raised


def diagnose_order(
    means: Floats, reference: Floats, prior_components: Sequence[int] | None = None
) -> list[RaisedCheck]:
    """Return the check of components whose rank is that of another tissue.

    Parameters
    ----------
    means : ndarray, shape (k,)
        Means in HU, ascending.
    reference : ndarray, shape (k,)
        Means of the tissues, ascending.
    prior_components : sequence of int, optional
        Component of the prior that each component belongs to, from 0. Without it, a component belongs to the tissue
        with the nearest mean.
    """
    if prior_components is None:
        prior_components = np.argmin(np.abs(np.asarray(means)[:, None] - np.asarray(reference)), axis=1).tolist()
    return [RaisedCheck("order", k, float(other)) for k, other in enumerate(prior_components) if other != k]


def diagnose_fit(
    *,
    converged: bool = True,
    distances: Sequence[float] = (),
    distance: float = 0.0,
    involvement_shift: float = 0.0,
) -> list[RaisedCheck]:
    """Return the checks of a fit as a whole.

    Parameters
    ----------
    converged : bool
        True if the fit ended by its stopping rule.
    distances : sequence of float
        Total variation distances from the fit of the maxima to which the starts led.
    distance : float
        Total variation distance from the published model.
    involvement_shift : float
        Pooled lung involvement less that under the published model, percentage points; NaN if unknown.
    """
    raised = [] if converged else [RaisedCheck("unfinished", None, 1.0)]
    numbers = {"involvement": involvement_shift, "starts": max(distances, default=0.0), "distance": distance}
    for name, value in numbers.items():
        if abs(value) >= _CHECKS[name].limit:
            raised.append(RaisedCheck(name, None, float(value), high=_CHECKS[name].limit))
    return raised
