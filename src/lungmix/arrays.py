"""Arrays given by users: unwrap dask arrays, and reject masked voxels."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from lungmix.errors import UsageError


def as_lazy(array: Any) -> da.Array | None:
    """Return `array` as a dask array, such as the one in an xarray DataArray; None if its data are in memory.

    A dask frame or series becomes an array with chunks of unknown length.
    """
    if isinstance(array, da.Array):
        return array
    if not dask.is_dask_collection(array):
        return None
    if hasattr(array, "to_dask_array"):
        return array.to_dask_array()
    data = getattr(array, "data", None)
    return data if isinstance(data, da.Array) else None


def volume(array: Any, name: str) -> Any:
    """Return a volume as a numpy or dask array; wrappers of a dask array stay lazy.

    Parameters
    ----------
    array : numpy or dask array, or xarray DataArray
        Voxels.
    name : str
        Name of the volume in messages.

    Raises
    ------
    UsageError
        If the array is a numpy masked array with masked voxels. A dask array raises when its blocks are computed.
    """
    lazy = as_lazy(array)
    if lazy is None:
        return _unmasked(array, name)
    if isinstance(lazy._meta, np.ma.MaskedArray):
        meta = np.empty((0,) * lazy.ndim, lazy.dtype)
        return lazy.map_blocks(_unmasked, name, dtype=lazy.dtype, meta=meta)
    return lazy


def _unmasked(array: Any, name: str) -> Any:
    if np.ma.is_masked(array):
        hidden = int(np.ma.getmaskarray(array).sum())
        raise UsageError(
            f"{name} has {hidden:,} masked voxels: give them a value first, e.g. with filled(-1000) for HU"
        )
    return np.asarray(array)
