"""Labels and posteriors of voxels by their HU, and the number of voxels of each label."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel

Labels = npt.NDArray[np.uint8]
Entry = TypeVar("Entry", np.uint8, np.float32)


def look_up(hu: npt.NDArray[np.int16], mask: Labels, table: npt.NDArray[Entry]) -> npt.NDArray[Entry]:
    """Return the value that a table gives to the HU of each voxel of a mask; 0 outside the mask.

    Parameters
    ----------
    hu : ndarray of int16
        Any shape.
    mask : ndarray of uint8, same shape
        Voxels other than 0 get values.
    table : ndarray of uint8 or float32, shape (65536,)
        Entry ``i`` is the value, such as the label, of ``i - 32768`` HU.
    """
    out = np.zeros(hu.shape, table.dtype)
    _look_up(np.ascontiguousarray(hu).reshape(-1), np.ascontiguousarray(mask).reshape(-1), table, out.reshape(-1))
    return out


def count_labels(labels: Labels) -> npt.NDArray[np.int64]:
    """Return the number of voxels of each label: int64, shape (256,)."""
    counts = np.zeros(256, np.int64)
    _count(labels, counts)
    return counts


@kernel()
def _count(labels, counts):  # type: ignore[no-untyped-def]
    # Add runs of equal labels at once, since most voxels are background.
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            row = labels[z, y]
            begin = 0
            for x in range(1, len(row)):
                if row[x] != row[begin]:
                    counts[row[begin]] += x - begin
                    begin = x
            if len(row):
                counts[row[begin]] += len(row) - begin


@kernel()
def _look_up(hu, mask, table, out):  # type: ignore[no-untyped-def]
    for i in range(len(hu)):
        if mask[i]:
            out[i] = table[np.int64(hu[i]) + 32768]
