"""Diagnosis of a mixture of lung tissues: signs that a component does not describe the tissue that it is named after.

`CHECKS` lists the checks, each with its limit and the reason for the limit. `TISSUE_RANGES` lists the HU of each tissue
with their sources. A check that a mixture does not pass is said to be raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LOWEST_HU, HIGHEST_HU = -1024, 1000
"""HU for which labels are examined: from the lowest value of 12-bit CT to dense bone."""


@dataclass(frozen=True)
class TissueRange:
    """Range in which the mean HU of the component of a tissue must lie.

    Attributes
    ----------
    key : str
        Key of the tissue in `lungmix.tissue.TISSUES`.
    low, high : float
        Lowest and highest mean, HU.
    source : str
        Publications that the bounds come from.
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
    """A check of a mixture, which compares a number with a limit.

    Attributes
    ----------
    name : str
        Name of the check in JSON.
    limit : float
        The check is raised if the number is at least the limit or, for checks in `BELOW`, if it is below the limit.
    unit : str
        Unit of the number and of the limit.
    fails : bool
        True if the check, when raised, makes the labels doubtful; False if it is only a remark.
    measured : str
        Definition of the number.
    reason : str
        Reason for the value of the limit.
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
        "the ranges of the tissues and their sources are listed in a table of their own",
    ),
    Check(
        "order", 1, "", True,
        "number of components that belong to another tissue than their rank by mean HU says: the tissue is that of the "
        "component of the prior they come from or, without a prior, that with the nearest published mean",
        "components are named by rank, so such a component has the name of a wrong tissue",
    ),
    Check(
        "empty", 1, "", True, "number of HU values that have the label",
        "a tissue that is never labelled has 0 % in every scan",
    ),
    Check(
        "torn", 0.1, "%", True,
        "voxels outside the widest interval of HU of their label, as a share of all voxels of the mixture",
        "tables show percentages of tissues with one decimal, and 0.1 % of the voxels change them by no more than that",
    ),
    Check(
        "wide", 250, "HU", True, "standard deviation of a component",
        "two standard deviations on either side then span 1000 HU, from air to water: that is a background, no tissue",
    ),
    Check(
        "narrow", 8, "HU", True, "standard deviation of a component",
        "noise alone spreads the HU of one tissue by more, so a narrower component describes only a few HU values",
    ),
    Check(
        "rare", 0.5, "%", True, "weight of a component",
        "if a tissue has hardly any voxels, its component is fitted to voxels of other tissues",
    ),
    Check(
        "dominant", 90, "%", True, "weight of a component",
        "healthy lungs are 50 to 75 % one tissue, and lungs with severe emphysema are up to 85 % air",
    ),
    Check(
        "unfinished", 1, "", True, "1 if the fit ended before its stopping rule was met",
        "the mixture is then no maximum of the likelihood, and more iterations would change it",
    ),
    Check(
        "involvement", 3, "points", True,
        "difference between the pooled lung involvement by this mixture and by the published model",
        "3 points are more than half of the smallest class of the radiologist's score, which is 5 points wide",
    ),
    Check(
        "starts", 0.01, "", False,
        "largest total variation distance between the fit and the fits from other starting values",
        "the labels of 1 % of the voxels can then depend on the starting values",
    ),
    Check(
        "mean", 1, "", False,
        "number of components that are not the most probable label at their own mean, although some HU have this label",
        "the label then has only a side of its component, and percentages of this label and its neighbour differ much "
        "from those by the published model",
    ),
    Check(
        "share", 5, "points", False,
        "difference between the percentage of the pooled voxels that have a label by this mixture and that by the "
        "published model, if one is more than twice the other",
        "the percentage of one tissue can then be another one, although lung involvement hardly differs",
    ),
    Check(
        "distance", 0.25, "", False, "total variation distance from the published model",
        "random groups of ten scans of one cohort are 0.03 to 0.05 apart; a mixture five times as far away comes from "
        "another population or another scanner",
    ),
)  # fmt: skip

BELOW = ("empty", "narrow", "rare")
"""Checks that are raised by a number below the limit; all others are raised by a number at or above it."""

_SHARE_RATIO = 2.0
"""The check `share` is raised only if one of the two percentages is more than this many times the other."""

_CHECKS = {check.name: check for check in CHECKS}


@dataclass(frozen=True)
class RaisedCheck:
    """A check that a mixture raises.

    Attributes
    ----------
    name : str
        Name of the check.
    component : int or None
        Number of the component, from 0; None if the check is about the whole mixture.
    value : float
        The number that was compared with the limit.
    low, high : float or None
        Lower and upper bound of the number, in the unit of the check; None if there is no such bound.
    reference : float or None
        The number that `value` is the difference from, where the check has one: for `share`, the percentage of the
        label by the published model.
    """

    name: str
    component: int | None
    value: float
    low: float | None = None
    high: float | None = None
    reference: float | None = None

    @property
    def fails(self) -> bool:
        """True if the check makes labels by the mixture doubtful; False if it is only a remark."""
        return _CHECKS[self.name].fails


def diagnose_components(weights: Floats, means: Floats, sds: Floats) -> list[RaisedCheck]:
    """Return the raised checks of single components: range, wide, narrow, rare and dominant.

    Parameters
    ----------
    weights : ndarray, shape (k,)
        Weights, which add up to 1.
    means, sds : ndarray, shape (k,)
        Means and standard deviations in HU. The ranges of tissues are checked only if there are five components.
    """
    raised = []
    ranges = TISSUE_RANGES if len(means) == len(TISSUE_RANGES) else ()
    for k, (mean, tissue) in enumerate(zip(means, ranges, strict=False)):
        if not tissue.low <= mean <= tissue.high:
            raised.append(RaisedCheck("range", k, float(mean), tissue.low, tissue.high))
    wide, narrow = _CHECKS["wide"].limit, _CHECKS["narrow"].limit
    raised += [RaisedCheck("wide", k, float(sd), high=wide) for k, sd in enumerate(sds) if sd >= wide]
    raised += [RaisedCheck("narrow", k, float(sd), low=narrow) for k, sd in enumerate(sds) if sd < narrow]
    # The weight of a single component is always 100 %.
    percent = 100 * np.asarray(weights) if len(weights) > 1 else np.empty(0)
    rare, dominant = _CHECKS["rare"].limit, _CHECKS["dominant"].limit
    raised += [RaisedCheck("rare", k, float(w), low=rare) for k, w in enumerate(percent) if w < rare]
    return raised + [
        RaisedCheck("dominant", k, float(w), high=dominant) for k, w in enumerate(percent) if w >= dominant
    ]


def diagnose_labels(weights: Floats, means: Floats, sds: Floats) -> list[RaisedCheck]:
    """Return the raised checks of MAP labels: empty, torn and mean.

    They are raised by labels that no HU value has, by labels with several intervals of HU, and by labels that the mean
    of their component does not have. The MAP label of an HU value is the component that is most probable for it
    (maximum a posteriori).

    Parameters
    ----------
    weights, means, sds : ndarray, shape (k,)
        See `diagnose_components`.
    """
    hu = np.arange(LOWEST_HU, HIGHEST_HU + 1)
    joint = _joint(hu, weights, means, sds)
    labels = np.argmax(joint, axis=1)
    density = np.exp(joint).sum(axis=1) / np.sqrt(2 * np.pi)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(labels)) + 1, [len(hu)]])
    raised = []
    at_means = _joint(np.asarray(means), weights, means, sds).argmax(axis=1)
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
        if at_means[k] != k:
            raised.append(RaisedCheck("mean", k, float(at_means[k])))
    return raised


def diagnose_shares(percents: Floats, reference: Floats) -> list[RaisedCheck]:
    """Return a raised check for each label whose share of the voxels is far from the share by the published model.

    Parameters
    ----------
    percents, reference : ndarray, shape (k,)
        Percent of the voxels with each label, by the mixture and by the published model.
    """
    raised, limit = [], _CHECKS["share"].limit
    for k, (percent, other) in enumerate(zip(percents, reference, strict=True)):
        is_far = max(percent, other) > _SHARE_RATIO * min(percent, other)
        if is_far and abs(percent - other) >= limit:
            value = float(percent - other)
            raised.append(RaisedCheck("share", k, value, low=-limit, high=limit, reference=float(other)))
    return raised


def _joint(hu: npt.NDArray[Any], weights: Floats, means: Floats, sds: Floats) -> Floats:
    """Return the logarithm of each component's weighted density at `hu`, up to a constant: shape (n, k)."""
    gaps = (hu[:, None] - np.asarray(means)) / np.asarray(sds)
    return np.asarray(np.log(weights) - np.log(sds) - gaps**2 / 2)


def diagnose_order(
    means: Floats, reference: Floats, prior_components: Sequence[int] | None = None
) -> list[RaisedCheck]:
    """Return a raised check for each component that belongs to another tissue than its rank by mean HU says.

    Parameters
    ----------
    means : ndarray, shape (k,)
        Means of the components in HU, ascending.
    reference : ndarray, shape (k,)
        Reference means of the tissues in HU, ascending.
    prior_components : sequence of int, optional
        For each component, the number of the component of the prior that it belongs to, from 0. By default a component
        belongs to the tissue with the nearest reference mean.
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
        Total variation distances between the fit and each maximum of the likelihood that other starting values led to.
    distance : float
        Total variation distance of the fit from the published model.
    involvement_shift : float
        Pooled lung involvement by the fit minus that by the published model, percentage points; NaN if unknown.
    """
    raised = [] if converged else [RaisedCheck("unfinished", None, 1.0)]
    numbers = {"involvement": involvement_shift, "starts": max(distances, default=0.0), "distance": distance}
    for name, value in numbers.items():
        if abs(value) >= _CHECKS[name].limit:
            raised.append(RaisedCheck(name, None, float(value), high=_CHECKS[name].limit))
    return raised
