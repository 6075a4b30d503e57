"""Refits of the mixture of a store to cohorts that are drawn from its patients: the uncertainty of the mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.analysis.bootstrap import refit
from lungmix.kernels.histogram import SparseHistogram
from lungmix.mixture import PAPER, TissueModel
from lungmix.parameters import WEIGH_SCANS, FitParameters
from lungmix.stages.fit import HU, masked_cases
from lungmix.stages.pool import counts_of
from lungmix.store import Cohort
from lungmix.store.patients import patients_by_case

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PatientRefits:
    """Mixtures of cohorts that were drawn from patients.

    Attributes
    ----------
    models : list of TissueModel
        Mixture of each drawn cohort; none for fewer than two patients.
    times : ndarray of float64, shape (draws, patients)
        How often each patient was drawn.
    patients : dict of str to int
        Column of the patient of each pooled case in `times`, by case.
    """

    models: list[TissueModel]
    times: Floats
    patients: dict[str, int]

    @property
    def n_patients(self) -> int:
        """Number of patients."""
        return len({*self.patients.values()})


def refit_over_patients(
    cohort: Cohort,
    model: TissueModel,
    parameters: FitParameters,
    *,
    refits: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PatientRefits:
    """Fit the mixture again to cohorts that are drawn from the patients of a store with replacement.

    All scans of a drawn patient are pooled. A case of no recorded patient is of a patient of its own.

    Parameters
    ----------
    cohort : Cohort
        The store, whose masked cases with plausible HU are pooled.
    model : TissueModel
        Its mixture, the start of the refits.
    parameters : FitParameters
        Settings of the fit that gave the mixture.
    refits : int
        Number of drawn cohorts.
    seed : int
        Seed of the draws.
    progress : callable, optional
        Called as ``progress(done, total)`` after each refit.
    """
    patient_of = {name: f"patient {patient}" for name, patient in patients_by_case(cohort, need_first=False).items()}
    cases = masked_cases(cohort)
    columns: dict[str, int] = {}
    patients = {name: columns.setdefault(patient_of.get(name, name), len(columns)) for name in cases}
    if len(columns) < 2:
        return PatientRefits([], np.zeros((0, len(columns))), patients)
    # The fit of the paper pools whole masks, and voxels alike, whatever the other fits pool.
    pooled = FitParameters() if parameters.fit == PAPER else parameters
    histograms = {name: SparseHistogram.of(counts_of(case, pooled.pool)) for name, case in cases.items()}
    present = np.unique(np.concatenate([histogram.index for histogram in histograms.values()]))
    # Sums per patient: of the voxels by their weights, of the voxels, and of the scans with voxels.
    weighed, voxels, scans = np.zeros((len(columns), len(present))), np.zeros(len(columns)), np.zeros(len(columns))
    for name, histogram in histograms.items():
        column, total = patients[name], float(histogram.count.sum())
        if total:
            share = histogram.count / (total if pooled.weigh == WEIGH_SCANS else 1.0)
            weighed[column, np.searchsorted(present, histogram.index)] += share
            voxels[column] += total
            scans[column] += 1
    random = np.random.default_rng(seed)
    times = random.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=refits).astype(np.float64)
    models = []
    for done, drawn in enumerate(times, 1):
        counts = drawn @ weighed
        if pooled.weigh == WEIGH_SCANS:
            counts *= (drawn @ voxels) / max(float(drawn @ scans), 1.0)
        models.append(refit(HU[present], counts, model, parameters))
        if progress is not None:
            progress(done, refits)
    return PatientRefits(models, times, patients)
