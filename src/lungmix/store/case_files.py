"""A case as stages use it: slabs, packed masks, objects, receipts and attempts, beside what users read."""

from __future__ import annotations

import time
from typing import Any

import numpy.typing as npt

from lungmix.errors import StoreError
from lungmix.kernels.packed_masks import Bits
from lungmix.store import ome_zarr, zarr_adapter
from lungmix.store.case import CHUNK_SLICES, Case
from lungmix.store.objects import Receipts, sizes_under
from lungmix.store.schema import PACKED

OME = "ome"
"""Attribute that holds the OME-Zarr metadata of an image."""

_ATTEMPT_TIMEOUT_S = 10.0


class CaseFiles(Case):
    """Case with the objects and records behind it.

    Parameters
    ----------
    case : Case
        The case, whose attributes and arrays are shared.
    """

    def __init__(self, case: Case):
        super().__init__(case.name, case._group)
        self._arrays = case._arrays

    @property
    def packed_threshold(self) -> int | None:
        """Threshold of the packed air, HU; voxels below it are set. None where the packed air is incomplete."""
        return self._attributes.get(PACKED, {}).get("below_hu")

    @property
    def packed_files(self) -> Receipts:
        """Receipts of the packed air."""
        return dict(self._attributes.get(PACKED, {}).get("files", {}))

    @property
    def chunk_slices(self) -> int | None:
        """Slices of a chunk, where the user chose them; see `lungmix.store.chunking.layout_of`."""
        return self._attributes.get(CHUNK_SLICES)

    @property
    def under_way(self) -> str | None:
        """Stage that was in progress when this case was opened; None if there was none."""
        return self._attributes.get("working", {}).get("stage")

    @property
    def attempt(self) -> str | None:
        """Attempt that was in progress when this case was opened; None if there was none."""
        return self._attributes.get("working", {}).get("attempt")

    def check_attempt(self, attempt: str) -> None:
        """Raise if another attempt has replaced this one.

        Raises
        ------
        StoreError
            If no attempt, or another one, is in progress for the case.
        """
        deadline = time.monotonic() + _ATTEMPT_TIMEOUT_S
        while True:
            if self._read_attributes().get("working", {}).get("attempt") == attempt:
                return
            # Network file systems make a change visible to other machines only after some seconds.
            if time.monotonic() > deadline:
                raise StoreError(
                    f"case {self.name} is being recomputed by another run: nothing more was written; "
                    "run the same command again once that one has ended",
                    case=self.name,
                )
            time.sleep(0.5)

    @property
    def is_described(self) -> bool:
        """True where the OME-Zarr metadata of the image agree with its geometry and layout."""
        return self._group.attrs.get(OME) == ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    def read(self, name: str, start: int, stop: int, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read slices ``start`` to ``stop`` of an image, or some of their rows, into memory."""
        return self.zarr_array(name)[start:stop, rows]

    def read_packed(self, name: str, start: int, stop: int) -> Bits:
        """Read slices ``start`` to ``stop`` of an array of packed masks: uint64 ``[z, y, words]``."""
        return self._stored_array(name)[start:stop]

    def read_temporary(self, name: str, box: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        """Read a box of a label map that exists only during a command."""
        return self._stored_array(name)[box]

    def temporary_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a label map that exists only during a command."""
        return tuple(self._stored_array(name).shape)

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object of this case, by object key."""
        return sizes_under(self._group.store, self._group.path)

    def read_object(self, key: str) -> bytes | None:
        """Read the stored bytes of an object; None if there is none."""
        return zarr_adapter.read(self._group.store, self._key(key))
