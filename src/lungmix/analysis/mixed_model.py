"""Linear mixed model of a measurement by group, with a random intercept per patient, by statsmodels."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MixedModel:
    """Means of groups with their covariance, by a linear mixed model.

    If all scans of a patient are in one group, the errors of the means are robust: they follow from the differences
    between the patients of each group, so that variances may differ between groups. Tests are those of Welch. If
    patients change groups, the errors are those of the model, with one variance between patients and another within.

    Attributes
    ----------
    means : ndarray of float64, shape (k,)
        Mean of each group, in the unit of the measurement.
    covariance : ndarray of float64, shape (k, k)
        Covariance of the means.
    patients, rest : float
        Variance between patients of a group, and between scans of a patient.
    degrees : ndarray of float64, shape (k,)
        Degrees of freedom of the error of each mean, by Satterthwaite's approximation: the number of patients less 1 if
        all have the same number of scans. If patients change groups, they are those of all tests: the smallest of the
        degrees of freedom of the differences, by the same approximation.
    is_robust : bool
        True if each patient is in one group.
    """

    means: Floats
    covariance: Floats
    patients: float
    rest: float
    degrees: Floats
    is_robust: bool

    def f_test(self) -> tuple[float, float, float]:
        """Return the statistic F of equal means of all groups, its denominator degrees of freedom, and its p value."""
        k = len(self.means)
        if self.is_robust:
            # The test of Welch (1951).
            with np.errstate(all="ignore"):
                weights = 1 / np.diag(self.covariance)
                shares = weights / weights.sum()
            spread = float((weights * (self.means - shares @ self.means) ** 2).sum()) / (k - 1)
            correction = float(((1 - shares) ** 2 / self.degrees).sum()) / (k**2 - 1)
            f, degrees = spread / (1 + 2 * (k - 2) * correction), 1 / (3 * correction)
        else:
            contrasts = np.eye(k)[1:] - np.eye(k)[:1]
            differences = contrasts @ self.means
            inverse = np.linalg.pinv(contrasts @ self.covariance @ contrasts.T)
            f, degrees = float(differences @ inverse @ differences) / (k - 1), float(self.degrees[0])
        return f, degrees, float(stats.f.sf(f, k - 1, degrees))

    def difference(self, first: int, second: int, level: float = 95.0) -> tuple[float, float, float, float]:
        """Return the difference of the means of two groups, second less first, its interval, and its p value by t.

        Parameters
        ----------
        first, second : int
            Numbers of the groups.
        level : float
            Level of the interval, percent.
        """
        value, error, degrees = self._difference(first, second)
        half_width = float(stats.t.ppf(0.5 + level / 200, degrees)) * error
        return value, value - half_width, value + half_width, self.t_test(first, second)[2]

    def t_test(self, first: int, second: int) -> tuple[float, float, float]:
        """Return t of equal means of two groups, second less first, its degrees of freedom, and its p value."""
        value, error, degrees = self._difference(first, second)
        if not error:
            return float("nan"), degrees, float("nan")
        return value / error, degrees, float(2 * stats.t.sf(abs(value) / error, degrees))

    def _difference(self, first: int, second: int) -> tuple[float, float, float]:
        """Return the difference of the means of two groups, its standard error, and degrees of freedom."""
        contrast = np.zeros(len(self.means))
        contrast[[first, second]] = -1, 1
        value, error = float(contrast @ self.means), float(np.sqrt(contrast @ self.covariance @ contrast))
        degrees = float(self.degrees[0])
        if self.is_robust:
            variances = np.diag(self.covariance)[[first, second]]
            degrees = float(variances.sum() ** 2 / (variances**2 / self.degrees[[first, second]]).sum())
        return value, error, degrees


def fit_mixed_model(values: Floats, groups: Ints, patients: Ints) -> MixedModel | None:
    """Return the linear mixed model of values by group, with a random intercept per patient.

    The variances are by restricted maximum likelihood, from statsmodels. The means follow from them by generalised
    least squares, and their errors as in `MixedModel`.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
        Measurement of each scan.
    groups, patients : ndarray of int64, shape (n,)
        Group and patient of each scan, numbered from 0 on.

    Returns
    -------
    MixedModel or None
        None if the likelihood has no maximum, for example because all values of a patient are equal, or if all scans of
        a group are of one patient.
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
    numbers, patient = np.unique(patients, return_inverse=True)
    is_robust = len(np.unique(np.stack([patients, groups]), axis=1).T) == len(numbers)
    if is_robust and min(len(np.unique(patient[groups == group])) for group in np.unique(groups)) < 2:
        return None
    if is_robust:
        means, variances, degrees = _robust_means(standardized, groups, patient, between, rest)
        covariance = np.diag(variances)
    else:
        means, covariance = _model_means(standardized, design, patient, between, rest)
        degrees = np.full(design.shape[1], _degrees_of_pairs(design, patient, between, rest))
    return MixedModel(
        means=center + scale * means,
        covariance=scale**2 * covariance,
        patients=scale**2 * between,
        rest=scale**2 * rest,
        degrees=degrees,
        is_robust=is_robust,
    )


def _robust_means(
    values: Floats, groups: Ints, patients: Ints, between: float, rest: float
) -> tuple[Floats, Floats, Floats]:
    """Return the mean of each group, its variance, and the degrees of freedom of the variance.

    The means are those of generalised least squares: means of patients, with weights by their number of scans. The
    variances are those of Bell and McCaffrey (2002), unbiased if the weights are right.
    """
    scans = np.bincount(patients)
    of_patients = np.bincount(patients, values) / scans
    group_of = np.zeros(len(scans), np.int64)
    group_of[patients] = groups
    rows = []
    for group in range(groups.max() + 1):
        members = group_of == group
        weights = scans[members] / (rest + scans[members] * between)
        weights = weights / weights.sum()
        mean = float(weights @ of_patients[members])
        factors = weights**2 / np.maximum(1 - weights, 1e-12)
        variance = float(factors @ (of_patients[members] - mean) ** 2)
        degrees = 1 / float((weights**2).sum() + factors.sum() ** 2 - (factors**2).sum())
        rows.append((mean, variance, degrees))
    means, variances, all_degrees = np.array(rows).T
    return means, variances, all_degrees


def _degrees_of_pairs(design: Floats, patients: Ints, between: float, rest: float) -> float:
    """Return the degrees of freedom of the differences of means by the method of Satterthwaite, at least 1.

    They are 2 v^2 / w, where v is the variance of a difference, and w the variance of v by the expected information on
    the variances of patients and rest in the restricted likelihood. The smallest value of all pairs of groups counts.
    """
    same_patient = (patients[:, None] == patients).astype(np.float64)
    inverse = np.linalg.inv(between * same_patient + rest * np.eye(len(patients)))
    weighted = inverse @ design
    covariance = np.linalg.inv(design.T @ weighted)
    projection = inverse - weighted @ covariance @ weighted.T
    of_patients, of_rest = projection @ same_patient, projection
    information = 0.5 * np.array(
        [[(first * second.T).sum() for second in (of_patients, of_rest)] for first in (of_patients, of_rest)]
    )
    changes = [covariance @ weighted.T @ part @ weighted @ covariance for part in (same_patient, np.eye(len(patients)))]
    degrees = []
    for first, second in combinations(range(design.shape[1]), 2):
        contrast = np.zeros(design.shape[1])
        contrast[[first, second]] = -1, 1
        variance = float(contrast @ covariance @ contrast)
        gradient = np.array([contrast @ change @ contrast for change in changes])
        degrees.append(2 * variance**2 / float(gradient @ np.linalg.solve(information, gradient)))
    return max(min(degrees), 1.0)


def _model_means(values: Floats, design: Floats, patients: Ints, between: float, rest: float) -> tuple[Floats, Floats]:
    """Return the means of groups and their covariance by generalised least squares with the variances of the model."""
    information, weighted = np.zeros((design.shape[1],) * 2), np.zeros(design.shape[1])
    for patient in range(patients.max() + 1):
        of_patient = patients == patient
        x, y = design[of_patient], values[of_patient]
        inverse = np.linalg.inv(rest * np.eye(len(y)) + between)
        information += x.T @ inverse @ x
        weighted += x.T @ inverse @ y
    covariance = np.asarray(np.linalg.inv(information), np.float64)
    return covariance @ weighted, covariance
