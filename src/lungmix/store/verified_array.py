"""Stored array that verifies checksums on reading; errors name the case, the array and the corrupt slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore

from lungmix.errors import DamageError
from lungmix.store.objects import WholeReads
from lungmix.store.zarr_adapter import array_at, unwrap


class StoredArray:
    """Read-only array of a case; see `Case.zarr_array`.

    Parameters
    ----------
    case : str
        Name of the case, for messages.
    name : str
        Path of the array in the case, for messages.
    source : zarr.Array
        Array to read.
    """

    def __init__(self, case: str, name: str, source: zarr.Array[Any]):
        self._case, self._name, self._source = case, name, source

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, voxels."""
        return self._source.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of a voxel."""
        return np.dtype(self._source.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._source.ndim

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk, voxels."""
        return self._source.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard, voxels; None without shards."""
        return self._source.shards

    def _readable(self) -> zarr.Array[Any]:
        store = unwrap(self._source.store_path.store)
        # On a disk, reading single chunks of a shard is cheap; in an object store, each chunk is a request.
        return self._source if isinstance(store, LocalStore) else with_store(self._source, WholeReads(store))

    def __getitem__(self, selection: Any) -> npt.NDArray[Any]:
        """Read voxels.

        Raises
        ------
        DamageError
            If a chunk does not match its checksum or cannot be decompressed.
        """
        try:
            return np.asarray(self._readable()[selection])
        except (ValueError, RuntimeError) as error:
            # Checksums raise ValueError, decompressors RuntimeError.
            raise DamageError(self._case, self._name, _slices_of(selection, self.shape[0])) from error


def with_store(source: zarr.Array[Any], store: Store) -> zarr.Array[Any]:
    """Return an array that reads and writes its objects through another store."""
    return array_at(store, source.path, source.metadata)


def _slices_of(selection: Any, depth: int) -> str:
    first = selection[0] if isinstance(selection, tuple) and selection else selection
    if isinstance(first, slice):
        start, stop, _ = first.indices(depth)
        return f"slices {start} to {stop}"
    return f"slice {first}" if isinstance(first, int) else "some slices"
