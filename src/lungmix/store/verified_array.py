"""A stored array that says which case is damaged where its bytes are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, StorePath

from lungmix.errors import DamageError
from lungmix.store.lock import unwrap
from lungmix.store.objects import WholeReads


class StoredArray:
    """An array of a case, to read from; see `Case.zarr_array`.

    Parameters
    ----------
    case : str
        Name of the case, for messages.
    name : str
        Path of the array in the case, for messages.
    source : zarr.Array
        What is read.
    """

    def __init__(self, case: str, name: str, source: zarr.Array[Any]):
        self._case, self._name, self._source = case, name, source

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a voxel."""
        return np.dtype(self._source.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._source.ndim

    @property
    def chunks(self) -> tuple[int, ...]:
        """Voxels of a chunk along each axis."""
        return self._source.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Voxels of a shard along each axis."""
        return self._source.shards

    def _to_read(self) -> zarr.Array[Any]:
        store = unwrap(self._source.store_path.store)
        # On a disk the chunks of a shard are near; elsewhere each is a request.
        return self._source if isinstance(store, LocalStore) else bound(self._source, WholeReads(store))

    def __getitem__(self, selection: Any) -> npt.NDArray[Any]:
        """Read voxels.

        Raises
        ------
        DamageError
            If what is stored is not what was written.
        """
        try:
            return np.asarray(self._to_read()[selection])
        except (ValueError, RuntimeError) as error:
            # Checksums raise the one, decompressors the other.
            raise DamageError(self._case, self._name, _slices_of(selection, self.shape[0])) from error


def bound(source: zarr.Array[Any], store: Store) -> zarr.Array[Any]:
    """An array whose objects go through another store."""
    return zarr.Array(zarr.AsyncArray(source.metadata, StorePath(store, source.path)))


def _slices_of(selection: Any, depth: int) -> str:
    first = selection[0] if isinstance(selection, tuple) and selection else selection
    if isinstance(first, slice):
        start, stop, _ = first.indices(depth)
        return f"slices {start} to {stop}"
    return f"slice {first}" if isinstance(first, int) else "some slices"
