"""Strata: mixtures of groups of scans with equal acquisition, distances between them, and their lung involvement.

Labels are a function of HU, so all results follow from the histograms of the scans; no voxel is read. Histograms are
read one case at a time, so that memory does not grow with the number of scans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.analysis.bootstrap import INVOLVEMENT, LEAST_SCANS, Interval, check_refits, refit
from lungmix.analysis.case_groups import ATTRIBUTES, UNKNOWN, CaseGroup, group_cases
from lungmix.analysis.comparison import involvement
from lungmix.errors import ModelError, UsageError, count_of, first_of
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.measures import component_keys
from lungmix.mixture import PAPER, TissueModel, diagnose
from lungmix.mixture.distance import total_variation
from lungmix.parameters import POOL_MASK, WEIGH_SCANS, FitParameters
from lungmix.stages.fit import HU, fit_counts, masked_cases
from lungmix.stages.measure import excluded_regions, measured_counts
from lungmix.stages.pool import Pool, counts_of
from lungmix.store import Case, Cohort
from lungmix.tissue import INVOLVED, TISSUES, Tissue

MIN_SCANS = 3
"""Smallest number of scans of a group whose mixture is compared with others, unless the user gives another."""

LEAST_MIN_SCANS = 2
"""Smallest number that the user can give in place of `MIN_SCANS`."""

ALL = "all"
_QUANTITIES = (("weight", ""), ("mean", "HU"), ("sd", "HU"))

Histogram = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Stratum:
    """Group of scans with equal acquisition, and its mixture.

    Attributes
    ----------
    group : CaseGroup
        Name, values and cases of the group.
    voxels : int
        Number of voxels of its masks.
    model : TissueModel or None
        Mixture of the group; None if it has too few scans to be compared.
    parameters : tuple of Interval
        Weight, mean and standard deviation of each component, with intervals from refits of the group.
    own_involvement, pooled_involvement : Interval or None
        Lung involvement of all voxels of the group, by its own mixture and by that of all scans. The interval of
        `own_involvement` comes from refits, that of `pooled_involvement` from drawing scans only, so that the mixture
        of all scans does not change.
    distance_to_all : float
        Total variation distance between the mixture of the group and that of all scans.
    checks : tuple of dict
        Raised checks of the mixture, see `lungmix.mixture.Diagnosis.rows`.
    """

    group: CaseGroup
    voxels: int
    model: TissueModel | None = None
    parameters: tuple[Interval, ...] = ()
    own_involvement: Interval | None = None
    pooled_involvement: Interval | None = None
    distance_to_all: float = float("nan")
    checks: tuple[dict[str, Any], ...] = ()

    @property
    def scans(self) -> int:
        """Number of scans."""
        return len(self.group.cases)

    @property
    def is_doubtful(self) -> bool:
        """True if a check of the mixture fails."""
        return any(check["fails"] for check in self.checks)


@dataclass(frozen=True)
class Strata:
    """Result of a study of strata.

    Attributes
    ----------
    by : tuple of str
        Attributes by which cases are grouped.
    fit : {"paper", "converged", "anchored"}
        Name of the fit.
    refits : int
        Number of refits of each group.
    level : float
        Percent of refits within an interval.
    min_scans : int
        Smallest number of scans of a group that is compared.
    groups : tuple of Stratum
        All groups, also those with too few scans, sorted by their values.
    everything : Stratum
        All scans, also those of groups with too few scans.
    left_out : tuple of str
        Cases without a mask or with implausible HU, which are in no group.
    distances : list of dict
        One row for each pair of compared groups: their names ``first`` and ``second``, and ``distance``, the total
        variation distance of their mixtures, from 0 (equal) to 1 (disjoint).
    """

    by: tuple[str, ...]
    fit: str
    refits: int
    level: float
    min_scans: int
    groups: tuple[Stratum, ...]
    everything: Stratum
    left_out: tuple[str, ...]
    distances: list[dict[str, Any]]

    @property
    def compared(self) -> list[Stratum]:
        """Groups with enough scans."""
        return [stratum for stratum in self.groups if stratum.model is not None]

    @property
    def notes(self) -> list[str]:
        """Sentences about groups that are not compared, and about intervals that are not reliable."""
        small = [f"{s.group.name} ({count_of(s.scans, 'scan')})" for s in self.groups if s.model is None]
        few = [f"{s.group.name} ({s.scans})" for s in self.compared if s.scans < LEAST_SCANS]
        notes = []
        if small:
            notes.append(f"listed, but not compared, because of fewer than {self.min_scans} scans: {', '.join(small)}")
        if few:
            notes.append(f"intervals tend to be too narrow for fewer than {LEAST_SCANS} scans: {', '.join(few)}")
        if self.left_out:
            notes.append(f"without a lung mask, or with implausible HU, left out: {first_of(self.left_out)}")
        return notes


def study(
    cohort: Cohort,
    by: Sequence[str],
    parameters: FitParameters,
    *,
    min_scans: int = MIN_SCANS,
    refits: int = 200,
    level: float = 95.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Strata:
    """Return the mixtures of groups of scans with equal acquisition, and compare them.

    Parameters
    ----------
    cohort : Cohort
        The store, whose masked cases with plausible HU are grouped.
    by : sequence of str
        Attributes, see `lungmix.analysis.case_groups.ATTRIBUTES`; each combination of their values is a group.
    parameters : FitParameters
        Settings of the fits, with five components; `fit` names the fit that is used.
    min_scans : int
        Smallest number of scans of a group that is compared, 2 or more.
    refits : int
        Number of cohorts to draw from the scans of each group.
    level : float
        Percent of refits within an interval.
    seed : int
        Seed of the draws.
    progress : callable, optional
        Called as ``progress(done, total)`` after each group, whose fits and refits are then done.

    Raises
    ------
    UsageError
        If fewer than two groups have enough scans, or a number is out of range.
    ModelError
        If a group has too few distinct HU for a fit.
    """
    check_refits(refits, level)
    if min_scans < LEAST_MIN_SCANS:
        raise UsageError(
            f"`min_scans={min_scans}` is not possible: give {LEAST_MIN_SCANS} or more, as intervals need several scans"
        )
    cases = masked_cases(cohort)
    groups = group_cases(cases.items(), by)
    _check_groups(groups, cases, by, min_scans)
    everything = CaseGroup(ALL, {}, tuple(sorted(cases)))
    reader = _Reader(parameters, tuple(excluded_regions(cohort)))
    total = _Sums(parameters)
    sums = []
    for group in groups:
        sums.append(_Sums(parameters))
        for name in group.cases:
            histograms = reader.read(cases[name])
            for part in (sums[-1], total):
                part.add(*histograms)
    model_of_all = total.fit(ALL)
    draws_of_all = _Draws(total, len(everything.cases), parameters, refits, (seed, 0))
    places = {name: place for place, name in enumerate(everything.cases)}
    strata = []
    for number, (group, part) in enumerate(zip(groups, sums, strict=True), 1):
        is_compared = len(group.cases) >= min_scans
        draws = _Draws(part, len(group.cases), parameters, refits, (seed, number)) if is_compared else None
        for place, name in enumerate(group.cases):
            _, fitted, measured = reader.read(cases[name])
            draws_of_all.add(places[name], fitted, measured)
            if draws is not None:
                draws.add(place, fitted, measured)
        strata.append(
            Stratum(group, part.voxels)
            if draws is None
            else _stratum(group, part, part.fit(group.name), model_of_all, draws, parameters, level)
        )
        if progress is not None:
            progress(number, len(groups) + 1)
    stratum_of_all = _stratum(everything, total, model_of_all, model_of_all, draws_of_all, parameters, level)
    if progress is not None:
        progress(len(groups) + 1, len(groups) + 1)
    pairs = combinations([(s.group.name, s.model) for s in strata if s.model is not None], 2)
    distances = [{"first": a, "second": b, "distance": total_variation(x, y)} for (a, x), (b, y) in pairs]
    attributes = tuple(dict.fromkeys(by))
    left_out = tuple(sorted(set(cohort) - set(cases)))
    return Strata(
        attributes, parameters.fit, refits, level, min_scans, tuple(strata), stratum_of_all, left_out, distances
    )


def rows_of(result: Strata) -> list[dict[str, Any]]:
    """Return the groups as rows of a table, the last of which holds all scans.

    Cells of groups that are not compared are empty.
    """
    strata = [*result.groups, result.everything]
    return [_row(stratum, result.by, result.everything.parameters) for stratum in strata]


class _Reader:
    """Reads the histograms of a case that fits and lung involvement need."""

    def __init__(self, parameters: FitParameters, excluded: tuple[Tissue, ...]):
        # The fit of the paper pools whole masks, whatever the others pool.
        self._pool = POOL_MASK if parameters.fit == PAPER else parameters.pool
        self._excluded = excluded

    def read(self, case: Case) -> tuple[Histogram, Histogram, Histogram]:
        """Return the histograms of the mask, of the voxels to fit, and of the voxels that count as lung."""
        mask = case.hu_counts
        fitted = mask if self._pool == POOL_MASK else counts_of(case, self._pool)
        return mask, fitted, measured_counts(case, self._excluded) if self._excluded else mask


class _Sums:
    """Sums of the histograms of the cases of a group."""

    def __init__(self, parameters: FitParameters):
        self._parameters = parameters
        self._mask, self._fitted = Pool(FitParameters()), Pool(parameters)
        self.measured = np.zeros(N_HU, np.uint64)
        self.voxels = 0

    def add(self, mask: Histogram, fitted: Histogram, measured: Histogram) -> None:
        self._mask.add_counts(mask)
        self._fitted.add_counts(fitted)
        self.measured += measured
        self.voxels += int(mask.sum())

    def fit(self, name: str) -> TissueModel:
        try:
            return fit_counts(self._mask.counts(), self._parameters, self._fitted.counts())[self._parameters.fit]
        except ModelError as error:
            raise ModelError(f"scans of the group {name} cannot be fitted: {error}") from error

    @property
    def fitted(self) -> Histogram:
        """Histogram that the named fit is fitted to."""
        return self._mask.counts() if self._parameters.fit == PAPER else self._fitted.counts()

    @property
    def present(self) -> npt.NDArray[np.intp]:
        """Indices of the bins that are not empty."""
        return np.flatnonzero(self._mask.counts())


class _Draws:
    """Histograms of cohorts that are drawn from the scans of a group with replacement, added up scan by scan.

    Only bins that are not empty in the group are kept.
    """

    def __init__(self, sums: _Sums, scans: int, parameters: FitParameters, refits: int, seed: tuple[int, int]):
        self.present = sums.present
        self._alike = parameters.weigh == WEIGH_SCANS and parameters.fit != PAPER
        random = np.random.default_rng(seed)
        self._times = random.multinomial(scans, np.full(scans, 1 / scans), size=refits).astype(np.float64)
        self._fitted = np.zeros((refits, len(self.present)))
        self._measured = np.zeros((refits, len(self.present)))

    def add(self, place: int, fitted: Histogram, measured: Histogram) -> None:
        """Add a scan, as often as it was drawn into each cohort; `place` is its number in the group."""
        times = self._times[:, place, None]
        part = fitted[self.present].astype(np.float64)
        # Fits do not depend on the sum of a histogram, only on shares of it.
        self._fitted += times * (part / max(part.sum(), 1.0) if self._alike else part)
        self._measured += times * measured[self.present].astype(np.float64)

    def __iter__(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield, for each drawn cohort, the voxels to fit and the voxels that count as lung, by HU."""
        return zip(self._fitted, self._measured, strict=True)


def _stratum(
    group: CaseGroup,
    sums: _Sums,
    model: TissueModel,
    model_of_all: TissueModel,
    draws: _Draws,
    parameters: FitParameters,
    level: float,
) -> Stratum:
    hu = HU[draws.present]
    own_values, pooled_values, columns = [], [], []
    involved_of_all = _involved(model_of_all, hu)
    for fitted, measured in draws:
        drawn_model = refit(hu, fitted, model, parameters)
        own_values.append(_percent(measured, _involved(drawn_model, hu)))
        pooled_values.append(_percent(measured, involved_of_all))
        columns.append(_columns(drawn_model))
    keys = component_keys(model.n_components)
    estimates, refitted = _columns(model), np.asarray(columns)
    return Stratum(
        group=group,
        voxels=sums.voxels,
        model=model,
        parameters=tuple(
            _interval(name, key, unit, float(estimates[i, k]), refitted[:, i, k], level)
            for i, (name, unit) in enumerate(_QUANTITIES)
            for k, key in enumerate(keys)
        ),
        own_involvement=_interval(INVOLVEMENT, "own", "%", involvement(model, sums.measured), own_values, level),
        pooled_involvement=_interval(
            INVOLVEMENT, "pooled", "%", involvement(model_of_all, sums.measured), pooled_values, level
        ),
        distance_to_all=total_variation(model, model_of_all),
        checks=tuple(diagnose(model, sums.fitted).rows()),
    )


def _columns(model: TissueModel) -> Floats:
    """Return weights, means and standard deviations of a mixture, shape (3, components)."""
    return np.array([model.weights, model.means, np.sqrt(model.variances)])


def _involved(model: TissueModel, hu: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    labels = [tissue.label for tissue in TISSUES if tissue.key in INVOLVED]
    return np.isin(model.predict(hu), labels)


def _percent(voxels: Floats, involved: npt.NDArray[np.bool_]) -> float:
    total = float(voxels.sum())
    return 100.0 * float(voxels[involved].sum()) / total if total else float("nan")


def _interval(
    name: str, of: str, unit: str, estimate: float, values: Sequence[float] | Floats, level: float
) -> Interval:
    tail = (100 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return Interval(name, of, unit, estimate, float(low), float(high), float(np.std(values, ddof=1)))


def _check_groups(groups: Sequence[CaseGroup], cases: Mapping[str, Case], by: Sequence[str], min_scans: int) -> None:
    titles = " and ".join(ATTRIBUTES[name].title for name in dict.fromkeys(by))
    scans = len(cases)
    if len(groups) == 1:
        (group,) = groups
        others = _other_attributes(cases, by, min_scans)
        if set(group.values.values()) == {UNKNOWN}:
            raise UsageError(f"the {titles} of {count_of(scans, 'scan')} is unknown, so there are no groups: {others}")
        raise UsageError(
            f"the {titles} of {count_of(scans, 'scan')} is the same ({group.name}), so there is nothing to compare: "
            f"{others}"
        )
    sizes = [f"{group.name} has {len(group.cases)}" for group in sorted(groups, key=lambda group: -len(group.cases))]
    if not _has_two_groups(groups, min_scans):
        lower = sorted(len(group.cases) for group in groups)[-2]
        remedy = f"give `min_scans={lower}`, or " if lower >= LEAST_MIN_SCANS else ""
        raise UsageError(
            f"fewer than two groups by {titles} have {min_scans} scans or more ({first_of(sizes)}): "
            f"{remedy}{_other_attributes(cases, by, min_scans)}"
        )


def _other_attributes(cases: Mapping[str, Case], by: Sequence[str], min_scans: int) -> str:
    """Return a proposal to group by attributes that give two groups of `min_scans` scans, or to add scans."""
    names = [
        name for name in ATTRIBUTES if name not in by and _has_two_groups(group_cases(cases.items(), [name]), min_scans)
    ]
    if names:
        return f"group `by` {', '.join(names)}"
    return f"add scans, because no other attribute gives two groups of {min_scans} scans or more"


def _has_two_groups(groups: Sequence[CaseGroup], min_scans: int) -> bool:
    return sum(len(group.cases) >= min_scans for group in groups) >= 2


def _row(stratum: Stratum, by: Sequence[str], parameters: Sequence[Interval]) -> dict[str, Any]:
    is_compared = stratum.model is not None
    row: dict[str, Any] = {"group": stratum.group.name}
    row |= {name.replace("-", "_"): stratum.group.values.get(name, ALL) for name in by}
    row |= {"scans": stratum.scans, "voxels": stratum.voxels, "compared": int(is_compared)}
    for key, interval in (("own", stratum.own_involvement), ("pooled", stratum.pooled_involvement)):
        row |= _cells(f"lung_involvement_{key}", interval)
    row["distance_to_all"] = stratum.distance_to_all if is_compared else ""
    row["doubtful"] = int(stratum.is_doubtful) if is_compared else ""
    for i, interval in enumerate(parameters):
        row |= _cells(f"{interval.of}_{interval.name}", stratum.parameters[i] if is_compared else None)
    row["checks"] = "; ".join(check["text"] for check in stratum.checks if check["fails"])
    return row


def _cells(name: str, interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), "")
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
