"""Downsampling of volumes: each block of voxels becomes one voxel with their mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lungmix.kernels.jit import kernel


def mean_of_blocks(volume: npt.NDArray[np.int16], factors: tuple[int, int, int]) -> npt.NDArray[np.int16]:
    """Return the mean of each block of voxels, rounded half up.

    A block that extends beyond the volume is filled with the last voxel before the border.

    Parameters
    ----------
    volume : ndarray of int16, shape (z, y, x)
        HU.
    factors : tuple of int
        Number of voxels in a block along z, y, x.

    Returns
    -------
    ndarray of int16, shape (ceil(z / factor), ...)
    """
    shape = [-(-n // f) for n, f in zip(volume.shape, factors, strict=True)]
    out = np.empty(shape, np.int16)
    _mean(volume, *factors, out)
    return out


@kernel()
def _mean(volume, fz, fy, fx, out):  # type: ignore[no-untyped-def]
    nz, ny, nx = volume.shape
    wide = out.shape[2] * fx
    row = np.empty(wide, np.int32)
    count = fz * fy * fx
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            row[:] = 0
            # Add whole rows first: that loop is vectorized.
            for i in range(fz):
                for j in range(fy):
                    line = volume[min(z * fz + i, nz - 1), min(y * fy + j, ny - 1)]
                    for x in range(nx):
                        row[x] += line[x]
            row[nx:] = row[nx - 1]
            target = out[z, y]
            for x in range(len(target)):
                total = count // 2
                for k in range(fx):
                    total += row[x * fx + k]
                target[x] = total // count
