"""Histograms with one bin per HU value, which are all that measurements and fits need of a scan."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel
from lungmix.kernels.packed_masks import WORD, Bits, lowest_bit, pack

FIRST_HU = -32768
"""HU of the first entry of a histogram or lookup table."""

N_HU = 65536
"""Length of histograms and lookup tables: one entry per int16 value."""


_LIMB_BITS = 32


@dataclass(frozen=True, eq=False)
class SparseHistogram:
    """Non-zero bins of a histogram: small enough for a task to return to the client."""

    index: npt.NDArray[np.int64]
    count: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, counts: npt.NDArray[np.uint64]) -> SparseHistogram:
        """Return the non-zero bins of a histogram of any length."""
        index = np.flatnonzero(counts)
        return cls(index, counts[index])

    def add_to(self, histogram: npt.NDArray[np.uint64]) -> None:
        """Add these bins to a histogram, in place."""
        histogram[self.index] += self.count


class ShareSum:
    """Exact sum of histograms that are each divided by their number of voxels; it does not depend on their order.

    The quotients are float64 numbers, which fixed-point numbers with 128 binary places hold without rounding.

    Attributes
    ----------
    limbs : ndarray of uint64, shape (4, 65536)
        Sums of the four groups of 32 binary places of each quotient, the highest first. Each can add up four billion
        histograms.
    """

    def __init__(self) -> None:
        self.limbs = np.zeros((4, N_HU), np.uint64)

    def add(self, counts: npt.NDArray[np.uint64]) -> None:
        """Add a histogram that is not empty, uint64 of shape (65536,), divided by its number of voxels."""
        sparse = SparseHistogram.of(counts)
        rest = sparse.count / sparse.count.sum()
        for limb in self.limbs:
            rest = np.ldexp(rest, _LIMB_BITS)
            whole_part = np.floor(rest)
            limb[sparse.index] += whole_part.astype(np.uint64)
            rest -= whole_part

    def values(self) -> npt.NDArray[np.float64]:
        """Return the sum of the quotients by HU, rounded once: float64 of shape (65536,)."""
        sums = np.zeros(N_HU)
        for i in np.flatnonzero(self.limbs.any(axis=0)).tolist():
            total = 0
            for limb in self.limbs[:, i].tolist():
                total = (total << _LIMB_BITS) + limb
            # A quotient of integers of Python is rounded correctly.
            sums[i] = total / (1 << (_LIMB_BITS * len(self.limbs)))
        return sums


def count_hu(hu: npt.NDArray[np.int16], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return the histogram of the voxels of a mask.

    Parameters
    ----------
    hu : ndarray of int16
        Any shape.
    mask : ndarray of uint8, same shape
        Voxels other than 0 are counted.

    Returns
    -------
    ndarray of uint64, shape (65536,)
        Entry ``i`` counts the voxels of ``i - 32768`` HU.
    """
    rows = (1, 1, -1) if hu.ndim != 3 else hu.shape
    return count_hu_packed(hu.reshape(rows), pack(mask.reshape(rows)))


def count_hu_packed(hu: npt.NDArray[np.int16], bits: Bits) -> npt.NDArray[np.uint64]:
    """Return the histogram of the voxels of a packed mask; see `count_hu`.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, y, x)
        HU.
    bits : ndarray of uint64, shape (z, y, words)
        Packed mask.
    """
    counts = np.zeros(N_HU, np.uint64)
    # Pass the mask in one memory layout only, so that the kernel is compiled once.
    _count_packed(hu, np.ascontiguousarray(bits), counts)
    return counts


@kernel()
def _count_packed(hu, bits, counts):  # type: ignore[no-untyped-def]
    for z in range(hu.shape[0]):
        for y in range(hu.shape[1]):
            row = hu[z, y]
            for w in range(bits.shape[2]):
                word = bits[z, y, w]
                if word == np.uint64(0xFFFFFFFFFFFFFFFF):
                    for x in range(w * WORD, w * WORD + WORD):
                        counts[np.int64(row[x]) + 32768] += np.uint64(1)
                else:
                    while word:
                        x = w * WORD + lowest_bit(word)
                        word &= word - np.uint64(1)
                        counts[np.int64(row[x]) + 32768] += np.uint64(1)


def weighted_sum(counts: npt.NDArray[Any], values: npt.NDArray[Any]) -> float:
    """Return the sum of values, each multiplied by its count; the products are added without rounding.

    Unlike that of a dot product, the result does not depend on the memory layout, so measurements are reproducible.

    Parameters
    ----------
    counts, values : ndarray, shape (n,)
        Count of each value, and the values.
    """
    present = np.flatnonzero(counts)
    return fsum((counts[present].astype(np.float64) * values[present]).tolist())
