"""Counts per HU value: a sufficient statistic of everything measured or fitted here."""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

FIRST_HU = -32768
"""HU value of the first entry of a table of counts or labels."""

N_HU = 65536
"""Length of such tables: every int16 value has its entry."""


def count_hu(hu: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Counts per HU value over the voxels of a mask.

    Parameters
    ----------
    hu : ndarray of int16
        Any shape.
    mask : ndarray of uint8, same shape
        Voxels other than 0 count.

    Returns
    -------
    ndarray of uint64, shape (65536,)
        Entry ``i`` counts the voxels of ``i - 32768`` HU.
    """
    counts = np.zeros(N_HU, np.uint64)
    _count(np.ascontiguousarray(hu).reshape(-1), np.ascontiguousarray(mask).reshape(-1), counts)
    return counts


@numba.njit(nogil=True, cache=True)
def _count(hu, mask, counts):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        if mask[i]:
            counts[np.int64(hu[i]) + 32768] += np.uint64(1)
