"""Lung involvement of each patient under a mixture that has not seen the patient: that of all other patients.

Labels are a function of HU, so the lung involvement follows from the histogram of a scan; no voxel is labelled again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from lungmix.analysis.comparison import involvement
from lungmix.errors import UsageError
from lungmix.mixture import PAPER, TissueModel
from lungmix.mixture.diagnosis import with_doubts
from lungmix.parameters import FitParameters
from lungmix.stages.fit import fit_counts, masked_cases
from lungmix.stages.measure import excluded_regions, measured_counts
from lungmix.stages.pool import Pool
from lungmix.store import Case, Cohort
from lungmix.store.choices import last_fit
from lungmix.tissue import TISSUES

SMALLEST = 2
"""Fewest patients: one is left out, the others have a mixture."""


def fit_of_store(cohort: Cohort, fit: str | None = None) -> FitParameters:
    """Return the parameters of the last fit of a store with five components, one for each tissue, and another name.

    Parameters
    ----------
    cohort : Cohort
        The store.
    fit : str, optional
        Name of the fit; by default that of the last fit.
    """
    last = last_fit(cohort)
    if last.n_components != len(TISSUES):
        last = FitParameters()
    return replace(last, method="counts", exclude_flagged=False, fit=fit or last.fit)


class FitsWithout:
    """Fits to pooled cases, without some of them.

    Parameters
    ----------
    pooled : mapping of str to Case
        Masked cases by name.
    parameters : FitParameters
        Settings of the fits; `fit` names the fit that is returned.
    """

    def __init__(self, pooled: Mapping[str, Case], parameters: FitParameters):
        self.pooled, self._parameters = pooled, parameters
        # The fit of the paper pools whole masks and voxels alike, whatever the others pool.
        self._alike, self._chosen = Pool(FitParameters()), Pool(parameters)
        for case in pooled.values():
            for pool in (self._alike, self._chosen):
                pool.add(case)

    def fit(self, left_out: Collection[str] = ()) -> TissueModel:
        """Return the mixture of all pooled cases but those that are left out; names of other cases are ignored.

        Raises
        ------
        ModelError
            If no case with a lung voxel remains.
        """
        absent = [self.pooled[name] for name in left_out if name in self.pooled]
        alike, chosen = self._alike.counts(absent), self._chosen.counts(absent)
        model = fit_counts(alike, self._parameters, chosen)[self._parameters.fit]
        return with_doubts(model, alike if self._parameters.fit == PAPER else chosen)


def involvement_by_others(
    cohort: Cohort,
    patients: Mapping[str, str],
    parameters: FitParameters,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[float, float]]:
    """Return the lung involvement of cases under the mixture of all other patients, and under that of all patients.

    Parameters
    ----------
    cohort : Cohort
        The store, whose masked cases with plausible HU are pooled.
    patients : mapping of str to str
        Patient of each case to return. Every other case of the store counts as a patient of its own.
    parameters : FitParameters
        Settings of the fits, with five components; `fit` names the fit that is used.
    progress : callable, optional
        Called as ``progress(done, total)`` after each patient.

    Returns
    -------
    dict of str to (float, float)
        Percent, by case.

    Raises
    ------
    UsageError
        If there is only one patient.
    """
    pooled = masked_cases(cohort)
    cases: dict[str, list[str]] = {}
    for name, patient in patients.items():
        cases.setdefault(patient, []).append(name)
    if len(cases) + len([name for name in pooled if name not in patients]) < SMALLEST:
        raise UsageError("the cohort has one patient, so no mixture of other patients exists: add scans of others")
    excluded, fits = excluded_regions(cohort), FitsWithout(pooled, parameters)

    def involvements(names: Sequence[str], left_out: Sequence[str]) -> dict[str, float]:
        model = fits.fit(left_out)
        return {name: involvement(model, measured_counts(cohort[name], excluded)) for name in names}

    everyone = involvements(list(patients), [])
    others: dict[str, float] = {}
    for done, names in enumerate(cases.values(), 1):
        others |= involvements(names, names)
        if progress is not None:
            progress(done, len(cases))
    return {name: (others[name], everyone[name]) for name in patients}
