"""Change between two scans of a patient, with an interval that contains the effects of inspiration and acquisition.

The change is computed twice: as measured, and after the gas of the later scan was expanded until its lung has the
volume of the first scan (`lungmix.kernels.inspiration`). Both are functions of histograms, so no voxel is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite, log2
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.kernels.inspiration import expand_gas, gas_expansion
from lungmix.mixture import TissueModel
from lungmix.parameters import KERNEL
from lungmix.tissue import INVOLVED, TISSUES

Counts = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

INVOLVEMENT = "lung_involvement"
SHARES = (*(tissue.key for tissue in TISSUES), INVOLVEMENT)
"""Percentages whose changes are computed for the whole lung, in the order of the results of `percents`."""

CORRECTED = "corrected"
"""Ending of the names of values at the lung volume of the first scan."""

IMPROVED, STABLE, WORSE = "improved", "stable", "worse"


@dataclass(frozen=True)
class ShareError:
    """Standard errors of the change of a percentage, in points, besides those of mixture and inspiration.

    Attributes
    ----------
    repeatability : float
        Standard deviation of the difference of two scans of an unchanged lung by one protocol: of noise, of the
        positions of slices, and of masks.
    kernel : float
        Standard deviation of the difference of two reconstructions with different, or unknown, kernels.
    harmonised_kernel : float
        The same if both scans were harmonised by the method ``kernel``.
    doubled_slices : float
        Standard deviation of the difference of two scans of which one has slices of twice the thickness. It counts in
        proportion to the binary logarithm of the ratio of both thicknesses.
    """

    repeatability: float
    kernel: float
    harmonised_kernel: float
    doubled_slices: float


OF_REGION = "region"
"""Key of the errors of the lung involvement of a part of the lungs, such as a zone."""

ERRORS: Mapping[str, ShareError] = {
    "air": ShareError(0.5, 24.5, 1.9, 3.9),
    "healthy": ShareError(0.5, 26.0, 2.0, 2.2),
    "ggo": ShareError(0.5, 0.3, 0.1, 1.9),
    "consolidation": ShareError(0.5, 0.1, 0.1, 1.1),
    "other": ShareError(0.5, 1.8, 0.1, 1.2),
    INVOLVEMENT: ShareError(0.5, 1.4, 0.1, 1.9),
    OF_REGION: ShareError(1.2, 1.7, 0.2, 2.1),
}
"""Standard errors by percentage, measured on real scans: see docs/followup.md."""

INSPIRATION_ERROR = 0.5
"""Standard error of the correction for the lung volume, as a fraction of the correction."""


@dataclass(frozen=True)
class FollowupScan:
    """Histograms and acquisition of a scan whose change is computed.

    Attributes
    ----------
    counts : ndarray of uint64, shape (65536,)
        Voxels that count as lung, by HU from -32768 HU on.
    voxel_ml : float
        Volume of a voxel, mL.
    regions : mapping of str to ndarray of uint64, shape (65536,)
        Histograms of parts of the lungs, such as ``right`` or ``both_peel``.
    kernel, scanner, mask : str or None
        Reconstruction kernel, scanner and kind of mask; None if unknown.
    slice_mm : float
        Thickness of slices, or their spacing if the thickness is unknown, mm.
    harmonised : str
        Methods of harmonisation that were applied, separated by commas.
    """

    counts: Counts
    voxel_ml: float
    regions: Mapping[str, Counts] = field(default_factory=dict)
    kernel: str | None = None
    scanner: str | None = None
    mask: str | None = None
    slice_mm: float = float("nan")
    harmonised: str = ""

    @property
    def lung_ml(self) -> float:
        """Volume of the lungs, mL."""
        return int(self.counts.sum()) * self.voxel_ml


@dataclass(frozen=True)
class Change:
    """Change of one percentage, in points.

    Attributes
    ----------
    value, low, high : float
        Change as measured, and its interval, which is extended by the whole effect of another inspiration; the ends are
        NaN if this effect is unknown.
    corrected, corrected_low, corrected_high : float
        Change at the lung volume of the first scan, and its interval; NaN if that volume is impossible.
    """

    value: float
    low: float
    high: float
    corrected: float
    corrected_low: float
    corrected_high: float

    @property
    def course(self) -> str:
        """``improved``, ``stable`` or ``worse`` by the corrected change of involvement; empty if it is unknown."""
        if not isfinite(self.corrected):
            return ""
        return WORSE if self.corrected_low > 0 else IMPROVED if self.corrected_high < 0 else STABLE


@lru_cache(maxsize=128)
def labels_of(model: TissueModel) -> npt.NDArray[np.uint8]:
    """Return the label of each HU, uint8 of shape (65536,); computed once for all scans of a cohort."""
    return model.lookup_table()


def percents(histograms: npt.NDArray[np.float64], labels: npt.NDArray[np.uint8]) -> Floats:
    """Return the percentages of tissues and the lung involvement.

    Parameters
    ----------
    histograms : ndarray of float64, shape (n, bins)
        Volume of each HU in n parts of a lung.
    labels : ndarray of uint8, shape (bins,)
        Label of each HU.

    Returns
    -------
    ndarray of float64, shape (n, 6)
        Percent, in the order of `SHARES`; NaN where there are no voxels.
    """
    volumes = np.column_stack([histograms[:, labels == tissue.label].sum(axis=1) for tissue in TISSUES])
    with np.errstate(invalid="ignore"):
        shares = 100 * volumes / histograms.sum(axis=1, keepdims=True)
    involved = [SHARES.index(key) for key in INVOLVED]
    return np.asarray(np.column_stack([shares, shares[:, involved].sum(axis=1)]))


def volume_ratio(first: FollowupScan, later: FollowupScan) -> float:
    """Return the lung volume of the later scan divided by that of the first; NaN if the first is empty."""
    return later.lung_ml / first.lung_ml if first.lung_ml else float("nan")


def changes_of(
    first: FollowupScan,
    later: FollowupScan,
    model: TissueModel,
    refits: Sequence[TissueModel] = (),
    errors: Mapping[str, ShareError] = ERRORS,
    level: float = 95.0,
) -> dict[str, Change]:
    """Return the changes between two scans with intervals.

    Parameters
    ----------
    first, later : FollowupScan
        Two scans of a patient.
    model : TissueModel
        Mixture of five components by which both are labelled.
    refits : sequence of TissueModel
        Fits of cohorts that were drawn from the patients: the uncertainty of the mixture. None for a mixture that was
        given and not fitted.
    errors : mapping of str to ShareError
        Standard errors by percentage, and those of regions.
    level : float
        Level of the intervals, percent.

    Returns
    -------
    dict of str to Change
        By `SHARES`, and ``REGION_lung_involvement`` for each region that both scans have.

    Raises
    ------
    UsageError
        If the mixture has another number of components than five, or the level is impossible.
    """
    if model.n_components != len(TISSUES):
        raise UsageError("changes of lung involvement need five tissues: fit five components, then label and measure")
    if not 0 < level < 100:
        raise UsageError(f"intervals of {level:g} % are not possible: give a level between 0 and 100 %")
    regions = [name for name in first.regions if name in later.regions]
    before, after, at_first_volume = _histograms(first, later, regions)
    present = np.flatnonzero(before.sum(axis=0) + after.sum(axis=0) + at_first_volume.sum(axis=0))
    before, after, at_first_volume = (part[:, present] for part in (before, after, at_first_volume))

    def differences(mixture: TissueModel) -> Floats:
        labels = labels_of(mixture)[present]
        start = percents(before, labels)
        return np.stack([percents(after, labels) - start, percents(at_first_volume, labels) - start])

    measured, corrected = differences(model)
    drawn = [differences(mixture) for mixture in refits]
    of_mixture = np.std(drawn, axis=0, ddof=1) if len(drawn) > 1 else np.zeros((2, *measured.shape))
    effect = np.abs(measured - corrected)
    ratio = volume_ratio(first, later)
    if not isfinite(gas_expansion(later.counts, 1 / ratio if ratio else float("nan"))):
        corrected = np.full_like(corrected, np.nan)
    acquisition = _acquisition_variances(first, later, len(regions), errors)
    width = NormalDist().inv_cdf(0.5 + level / 200)
    half = width * np.sqrt(of_mixture**2 + acquisition + (INSPIRATION_ERROR * np.nan_to_num(effect)) ** 2)

    def change(row: int, column: int) -> Change:
        value, with_volume = float(measured[row, column]), float(corrected[row, column])
        margin, corrected_margin = (float(part[row, column]) for part in half)
        return Change(
            value, float(np.minimum(value, with_volume)) - margin, float(np.maximum(value, with_volume)) + margin,
            with_volume, with_volume - corrected_margin, with_volume + corrected_margin,
        )  # fmt: skip

    of_lung = {key: change(0, column) for column, key in enumerate(SHARES)}
    of_regions = {
        f"{name}_{INVOLVEMENT}": change(row, SHARES.index(INVOLVEMENT)) for row, name in enumerate(regions, start=1)
    }
    return {**of_lung, **of_regions}


def involvement_at_volume(first: FollowupScan, later: FollowupScan, model: TissueModel) -> float:
    """Return the lung involvement of the later scan at the lung volume of the first, percent; NaN if impossible."""
    ratio = volume_ratio(first, later)
    factor = gas_expansion(later.counts, 1 / ratio if ratio else float("nan"))
    if not isfinite(factor):
        return float("nan")
    shares = percents(expand_gas(later.counts, factor)[None], labels_of(model))
    return float(shares[0, SHARES.index(INVOLVEMENT)])


def remarks_on_pair(first: FollowupScan, later: FollowupScan) -> list[str]:
    """Return what makes two scans differ besides the patient, in words."""
    remarks = []
    if "unknown" in (kernels := {first.kernel or "unknown", later.kernel or "unknown"}):
        remarks.append("kernel unknown")
    elif len(kernels) > 1:
        remarks.append(f"kernel {later.kernel} instead of {first.kernel}")
    if _thickness_ratio(first, later) > _EQUAL_SLICES:
        remarks.append(f"slices of {later.slice_mm:g} instead of {first.slice_mm:g} mm")
    if first.scanner and later.scanner and first.scanner != later.scanner:
        remarks.append(f"scanner {later.scanner} instead of {first.scanner}")
    if first.harmonised != later.harmonised:
        remarks.append(f"HU harmonised by {later.harmonised or 'none'} instead of {first.harmonised or 'none'}")
    if first.mask != later.mask:
        remarks.append(f"mask {later.mask or 'unknown'} instead of {first.mask or 'unknown'}")
    percent = 100 * (volume_ratio(first, later) - 1)
    if abs(percent) > LARGE_VOLUME_CHANGE:
        remarks.append(f"lung volume {abs(percent):.0f} % {'larger' if percent > 0 else 'smaller'}: inspiration?")
    return remarks


LARGE_VOLUME_CHANGE = 15.0
"""Difference of lung volumes above which a pair gets a remark, percent."""
_EQUAL_SLICES = 1.1
"""Largest ratio of the thicknesses of slices that count as equal."""


def _histograms(first: FollowupScan, later: FollowupScan, regions: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Return the histograms of the first scan, of the later scan, and of the latter at the volume of the first."""
    before = np.stack([first.counts, *(first.regions[name] for name in regions)]).astype(np.float64)
    after = np.stack([later.counts, *(later.regions[name] for name in regions)])
    ratio = volume_ratio(first, later)
    factor = gas_expansion(later.counts, 1 / ratio if ratio else float("nan"))
    if not isfinite(factor):
        return before, after.astype(np.float64), after.astype(np.float64)
    return before, after.astype(np.float64), np.stack([expand_gas(counts, factor) for counts in after])


def _acquisition_variances(
    first: FollowupScan, later: FollowupScan, n_regions: int, errors: Mapping[str, ShareError]
) -> Floats:
    """Return the variances of changes by noise, kernels and slices, shape (1 + n_regions, 6)."""
    has_known_kernel = first.kernel is not None and first.kernel == later.kernel
    is_harmonised = all(KERNEL in scan.harmonised.split(",") for scan in (first, later))
    is_other_kernel = not has_known_kernel or first.harmonised != later.harmonised
    ratio = _thickness_ratio(first, later)
    doublings = log2(ratio) if ratio > _EQUAL_SLICES else 0.0

    def variance(error: ShareError) -> float:
        of_kernel = 0.0
        if is_other_kernel:
            of_kernel = error.harmonised_kernel if is_harmonised else error.kernel
        return error.repeatability**2 + of_kernel**2 + (doublings * error.doubled_slices) ** 2

    of_lung = [variance(errors[key]) for key in SHARES]
    return np.array([of_lung, *[[variance(errors[OF_REGION])] * len(SHARES)] * n_regions])


def _thickness_ratio(first: FollowupScan, later: FollowupScan) -> float:
    """Return the thicker slices divided by the thinner ones; 1 if one of both is unknown."""
    low, high = sorted((first.slice_mm, later.slice_mm))
    return high / low if isfinite(low) and isfinite(high) and low > 0 else 1.0
