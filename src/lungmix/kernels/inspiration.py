"""Histograms of a lung at another inspiration: tissue keeps its mass, gas expands by one factor in all voxels.

This is the model of the lung as a sponge, by which densitometry corrects for inspiration (Stoel et al. 2008, Proc Am
Thorac Soc 5:919; Staring et al. 2014, Med Phys 41:021905). A voxel with the tissue fraction t = 1 + HU / 1000 consists
of tissue, t, and of gas, 1 - t. Gas expands by a factor; tissue, which has the density of water, does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import FIRST_HU, N_HU, weighted_sum

Floats = npt.NDArray[np.float64]

_HU = np.arange(FIRST_HU, FIRST_HU + N_HU, dtype=np.float64)
_TISSUE = np.clip(1 + _HU / 1000, 0.0, 1.0)
"""Fraction of tissue in a voxel, by HU."""


def tissue_and_gas(counts: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the volumes of tissue and of gas in the voxels of a histogram, in voxels.

    Parameters
    ----------
    counts : ndarray, shape (65536,)
        Number of voxels of each HU, from -32768 HU on.
    """
    return weighted_sum(counts, _TISSUE), weighted_sum(counts, 1 - _TISSUE)


def gas_expansion(counts: npt.NDArray[Any], volume_ratio: float) -> float:
    """Return the factor by which gas expands when a lung gets another volume.

    Parameters
    ----------
    counts : ndarray, shape (65536,)
        Number of lung voxels of each HU, from -32768 HU on.
    volume_ratio : float
        The other volume, divided by the present one.

    Returns
    -------
    float
        The factor; NaN if the other volume is not larger than that of the tissue, or if there is no gas.
    """
    tissue, gas = tissue_and_gas(counts)
    expanded = volume_ratio * (tissue + gas) - tissue
    return expanded / gas if gas > 0 and expanded > 0 else float("nan")


def expand_gas(counts: npt.NDArray[Any], factor: float) -> Floats:
    """Return the histogram of lung voxels after the gas in each of them has expanded.

    A voxel with the tissue fraction t gets the volume v = t + factor (1 - t) and the tissue fraction t / v. Voxels from
    0 HU on contain no gas and stay as they are; voxels up to -1000 HU contain gas only, and change their volume alone.
    A density between two HU is shared out to both, so that mass is kept.

    Parameters
    ----------
    counts : ndarray, shape (65536,)
        Number of voxels of each HU, from -32768 HU on.
    factor : float
        Factor by which gas expands, above 0.

    Returns
    -------
    ndarray of float64, shape (65536,)
        Volume of each HU, in voxels of the size before.
    """
    present = np.flatnonzero(counts)
    tissue = _TISSUE[present]
    volume = tissue + factor * (1 - tissue)
    changes = (tissue > 0) & (tissue < 1)
    # Rounded, so that a voxel whose volume does not change keeps exactly its HU.
    hu = np.where(changes, np.round(1000 * (tissue / volume - 1), 9), _HU[present])
    lower = np.floor(hu)
    part = hu - lower
    expanded = counts[present] * volume
    bins = lower.astype(np.int64) - FIRST_HU
    size = N_HU + 1
    histogram = np.bincount(bins, expanded * (1 - part), size) + np.bincount(bins + 1, expanded * part, size)
    return np.asarray(histogram[:N_HU], np.float64)
