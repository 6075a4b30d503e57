"""First-order radiomics from histograms: sums over voxels become sums over HU values, weighted by their counts.

Source of the definitions: van Griethuysen et al. 2017, Cancer Research 77:e104, as documented by PyRadiomics.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import FIRST_HU, weighted_sum
from lungmix.kernels.percentiles import percentiles

Counts = npt.NDArray[np.uint64]

BIN_WIDTH = 25
"""Width of the bins for entropy and uniformity, in HU. Bins begin at multiples of this width."""

_EPSILON = float(np.spacing(1))


def first_order(counts: Counts, voxel_mm3: float) -> dict[str, float]:
    """Return all first-order features of the voxels of a histogram.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram from -32768 HU on.
    voxel_mm3 : float
        Volume of a voxel, mm³.

    Returns
    -------
    dict of str to float
        Features by the names and in the order of `lungmix.kernels.data_dictionary.RADIOMICS`; NaN without voxels.
    """
    index = np.flatnonzero(counts)
    hu, weight = (index + FIRST_HU).astype(np.float64), counts[index].astype(np.float64)
    total = float(weight.sum())
    if not total:
        return dict.fromkeys(FEATURES, float("nan"))
    mean = weighted_sum(weight, hu) / total
    distance = hu - mean
    second, third, fourth = (weighted_sum(weight, distance**n) / total for n in (2, 3, 4))
    energy = weighted_sum(weight, hu**2)
    low, first, median, last, high = percentiles(counts, (10, 25, 50, 75, 90))
    robust = (hu >= low) & (hu <= high)
    bins = np.bincount((index + FIRST_HU) // BIN_WIDTH - FIRST_HU // BIN_WIDTH, weights=weight)
    shares = bins[bins > 0] / total
    flat = second == 0
    values = (
        energy,
        energy * voxel_mm3,
        -weighted_sum(shares, np.log2(shares + _EPSILON)),
        hu[0],
        low,
        high,
        hu[-1],
        mean,
        median,
        last - first,
        hu[-1] - hu[0],
        _mean_deviation(hu, weight),
        _mean_deviation(hu[robust], weight[robust]),
        (energy / total) ** 0.5,
        second**0.5,
        # As in PyRadiomics, skewness and kurtosis are 0 if all voxels are equal.
        0.0 if flat else third / second**1.5,
        0.0 if flat else fourth / second**2,
        second,
        weighted_sum(shares, shares),
    )
    return dict(zip(FEATURES, map(float, values), strict=True))


def _mean_deviation(hu: npt.NDArray[np.float64], weight: npt.NDArray[np.float64]) -> float:
    """Return the mean absolute distance of values from their mean; NaN if there are no values.

    Between the 10th and the 90th percentile of two different voxels, for example, there are none.
    """
    total = float(weight.sum())
    return weighted_sum(weight, np.abs(hu - weighted_sum(weight, hu) / total)) / total if total else float("nan")


FEATURES = (
    "Energy", "TotalEnergy", "Entropy", "Minimum", "10Percentile", "90Percentile", "Maximum", "Mean", "Median",
    "InterquartileRange", "Range", "MeanAbsoluteDeviation", "RobustMeanAbsoluteDeviation", "RootMeanSquared",
    "StandardDeviation", "Skewness", "Kurtosis", "Variance", "Uniformity",
)  # fmt: skip
