"""Measures of lungs from their counts per HU alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.kernels.counts import FIRST_HU, N_HU
from lungmix.tissue import INVOLVED, TISSUES

Counts = npt.NDArray[np.uint64]

LAA_THRESHOLDS = (950, 910, 856)
"""Low attenuation areas are voxels strictly below minus these HU."""

_HU = np.arange(FIRST_HU, FIRST_HU + N_HU)


def measure_counts(counts: Counts, table: npt.NDArray[np.uint8], voxel_ml: float) -> dict[str, float | int]:
    """Volumes, tissue percentages and densities of the lungs of one scan.

    Parameters
    ----------
    counts : ndarray of uint64, shape (65536,)
        Voxels of each HU value from -32768 on.
    table : ndarray of uint8, shape (65536,)
        Tissue of each HU value.
    voxel_ml : float
        Volume of a voxel, mL.

    Returns
    -------
    dict
        ``lung_ml``; percentages of the tissues; ``lung_involvement`` (percent); ``mean_hu``; ``laa950``,
        ``laa910``, ``laa856`` (percent strictly below -950, -910, -856 HU); ``perc15`` (HU); ``*_ml`` of the
        tissues; ``voxels``. Percentages and densities are NaN where there are no voxels.
    """
    total = int(counts.sum())
    # A model of any number of components has labels that the five tissues do not name.
    n_labels = max(int(table.max()), 1)
    voxels = np.bincount(table, weights=counts.astype(np.float64), minlength=n_labels + 1)
    keys = component_keys(n_labels)
    percent = {key: _percent(float(voxels[i]), total) for i, key in enumerate(keys, start=1)}
    row: dict[str, float | int] = {"lung_ml": total * voxel_ml, **percent}
    if n_labels == len(TISSUES):
        row["lung_involvement"] = _percent(float(sum(voxels[t.label] for t in TISSUES if t.key in INVOLVED)), total)
    row["mean_hu"] = float((counts * _HU.astype(np.float64)).sum() / total) if total else float("nan")
    for threshold in LAA_THRESHOLDS:
        row[f"laa{threshold}"] = _percent(float(counts[: -threshold - FIRST_HU].sum()), total)
    row["perc15"] = percentile(counts, 15)
    row.update({f"{key}_ml": float(voxels[i]) * voxel_ml for i, key in enumerate(keys, start=1)})
    row["voxels"] = total
    return row


def percentile(counts: Counts, percent: float) -> float:
    """Percentile in HU, with linear interpolation between voxels as in ``numpy.percentile``; NaN of no voxels."""
    cumulative = np.cumsum(counts.astype(np.int64))
    total = int(cumulative[-1])
    if not total:
        return float("nan")
    rank = percent / 100 * (total - 1)
    low = int(rank)
    first, second = (int(_HU[np.searchsorted(cumulative, r, side="right")]) for r in (low, min(low + 1, total - 1)))
    return first + (second - first) * (rank - low)


def component_keys(n_components: int) -> list[str]:
    """Column names of the components: the tissues' where there are five."""
    if n_components == len(TISSUES):
        return [tissue.key for tissue in TISSUES]
    return [f"component_{i}" for i in range(1, n_components + 1)]


def _percent(part: float, total: int) -> float:
    return 100.0 * part / total if total else float("nan")
