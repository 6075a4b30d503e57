"""Percentiles of HU, computed from histograms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import FIRST_HU


def percentiles(counts: npt.NDArray[np.uint64], percents: Sequence[float]) -> list[float]:
    """Return percentiles in HU, interpolated linearly as in ``numpy.percentile``; NaN without voxels.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Histogram from -32768 HU on.
    percents : sequence of float
        Percentiles to return, 0 to 100.
    """
    cumulative = np.cumsum(counts.astype(np.int64))
    total = int(cumulative[-1])
    if not total:
        return [float("nan")] * len(percents)
    out = []
    for percent in percents:
        rank = percent / 100 * (total - 1)
        ranks = int(rank), min(int(rank) + 1, total - 1)
        low, high = (int(n) + FIRST_HU for n in np.searchsorted(cumulative, ranks, side="right"))
        out.append(low + (high - low) * (rank - ranks[0]))
    return out
