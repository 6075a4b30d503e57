"""Linear mixed model of a measurement by group, with a random intercept per patient, by statsmodels."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MixedModel:
    """Means of groups with their covariance, by a linear mixed model.

    Attributes
    ----------
    means : ndarray of float64, shape (k,)
        Mean of each group, in the unit of the measurement.
    covariance : ndarray of float64, shape (k, k)
        Covariance of the means.
    patients, rest : float
        Variance between patients of a group, and between scans of a patient.
    degrees : int
        Denominator degrees of freedom of the tests. They are the number of patients less the number of groups if all
        scans of a patient are in one group. Otherwise they are the smaller of this number and of those within patients:
        the number of scans less that of patients, less k - 1.
    """

    means: Floats
    covariance: Floats
    patients: float
    rest: float
    degrees: int

    def f_test(self) -> tuple[float, float]:
        """Return the statistic F of equal means of all groups, and its p value."""
        k = len(self.means)
        contrasts = np.eye(k)[1:] - np.eye(k)[:1]
        differences = contrasts @ self.means
        inverse = np.linalg.pinv(contrasts @ self.covariance @ contrasts.T)
        f = float(differences @ inverse @ differences) / (k - 1)
        return f, float(stats.f.sf(f, k - 1, self.degrees))

    def difference(self, first: int, second: int, level: float = 95.0) -> tuple[float, float, float, float]:
        """Return the difference of the means of two groups, second less first, its interval, and its p value by t.

        Parameters
        ----------
        first, second : int
            Numbers of the groups.
        level : float
            Level of the interval, percent.
        """
        contrast = np.zeros(len(self.means))
        contrast[[first, second]] = -1, 1
        value, error = float(contrast @ self.means), float(np.sqrt(contrast @ self.covariance @ contrast))
        half_width = float(stats.t.ppf(0.5 + level / 200, self.degrees)) * error
        p = float(2 * stats.t.sf(abs(value) / error, self.degrees)) if error else float("nan")
        return value, value - half_width, value + half_width, p


def fit_mixed_model(values: Floats, groups: Ints, patients: Ints) -> MixedModel | None:
    """Return the linear mixed model of values by group, with a random intercept per patient.

    The variances are by restricted maximum likelihood, from statsmodels. The covariance of the means follows from them
    by generalised least squares.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Measurement of each scan.
    groups, patients : ndarray of int64, shape (n,)
        Group and patient of each scan, numbered from 0 on.

    Returns
    -------
    MixedModel or None
        None if the likelihood has no maximum, for example because all values of a patient are equal.
    """
    center, scale = float(values.mean()), float(values.std())
    if not scale > 0:
        return None
    design = (groups[:, None] == np.arange(groups.max() + 1)).astype(np.float64)
    # Standardized values: statsmodels starts its search at variances near 1.
    standardized = (values - center) / scale
    mixed_model: Any = importlib.import_module("statsmodels.regression.mixed_linear_model").MixedLM
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            fit = mixed_model(standardized, design, groups=patients).fit(reml=True)
        between, rest = float(np.asarray(fit.cov_re)[0, 0]), float(fit.scale)
    except (np.linalg.LinAlgError, ValueError, FloatingPointError):
        return None
    if not (np.isfinite(between) and np.isfinite(rest) and rest > 1e-9):
        return None
    information, weighted = np.zeros((design.shape[1],) * 2), np.zeros(design.shape[1])
    for patient in np.unique(patients):
        of_patient = patients == patient
        x, y = design[of_patient], standardized[of_patient]
        inverse = np.linalg.inv(rest * np.eye(len(y)) + between)
        information += x.T @ inverse @ x
        weighted += x.T @ inverse @ y
    covariance = np.linalg.inv(information)
    return MixedModel(
        means=center + scale * (covariance @ weighted),
        covariance=scale**2 * covariance,
        patients=scale**2 * between,
        rest=scale**2 * rest,
        degrees=_degrees(groups, patients),
    )


def _degrees(groups: Ints, patients: Ints) -> int:
    n_patients, k = len(np.unique(patients)), len(np.unique(groups))
    of_patients = n_patients - k
    if len(np.unique(np.stack([patients, groups]), axis=1).T) == n_patients:
        return max(of_patients, 1)
    return max(min(of_patients, len(groups) - n_patients - (k - 1)), 1)
