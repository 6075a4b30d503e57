"""First-order features of voxels by their published formulas, in memory.

Source: van Griethuysen et al. 2017, Cancer Research 77:e104, and the definitions in the documentation of PyRadiomics.
"""

from __future__ import annotations

import numpy as np


def features(voxels: np.ndarray, voxel_mm3: float, bin_width: float = 25.0) -> dict[str, float]:
    """Return each feature, by its name, of the HU of the voxels in a region."""
    x = voxels.astype(np.float64)
    edges = np.arange(x.min() - x.min() % bin_width, x.max() + 2 * bin_width, bin_width)
    shares = np.histogram(x, edges)[0] / len(x)
    shares = shares[shares > 0]
    p10, p25, p75, p90 = np.percentile(x, [10, 25, 75, 90])
    robust = x[(x >= p10) & (x <= p90)]
    deviation = x - x.mean()
    m2, m3, m4 = (np.mean(deviation**n) for n in (2, 3, 4))
    return {
        "Energy": np.sum(x**2),
        "TotalEnergy": voxel_mm3 * np.sum(x**2),
        "Entropy": -np.sum(shares * np.log2(shares + np.spacing(1))),
        "Minimum": x.min(),
        "10Percentile": p10,
        "90Percentile": p90,
        "Maximum": x.max(),
        "Mean": x.mean(),
        "Median": np.median(x),
        "InterquartileRange": p75 - p25,
        "Range": np.ptp(x),
        "MeanAbsoluteDeviation": np.mean(np.abs(deviation)),
        "RobustMeanAbsoluteDeviation": np.mean(np.abs(robust - robust.mean())) if len(robust) else np.nan,
        "RootMeanSquared": np.sqrt(np.mean(x**2)),
        "StandardDeviation": np.std(x),
        "Skewness": m3 / m2**1.5 if m2 else 0.0,
        "Kurtosis": m4 / m2**2 if m2 else 0.0,
        "Variance": m2,
        "Uniformity": np.sum(shares**2),
    }
