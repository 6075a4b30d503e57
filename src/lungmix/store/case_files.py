"""A case as stages use it: besides what users read, its objects, their receipts, packed masks and attempts.

An attempt is one computation of a stage. It has an identifier, so that tasks of an earlier attempt, left over from a
killed run, notice that they were replaced.
"""

from __future__ import annotations

import time
from typing import Any

import numpy.typing as npt

from lungmix.errors import StoreError
from lungmix.kernels.packed_masks import Bits
from lungmix.store import ome_zarr, zarr_adapter
from lungmix.store.case import CHUNK_SLICES, Case
from lungmix.store.objects import Receipts, sizes_under
from lungmix.store.schema import DISPLACEMENT, PACKED

OME = "ome"
"""Name of the attribute with the OME-Zarr metadata of an image."""

_ATTEMPT_TIMEOUT_S = 10.0


class CaseFiles(Case):
    """Case with access to its objects and the records of its stages.

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
        """Threshold of the packed air: bits of voxels below this HU are set. None if the packed air is incomplete."""
        return self._attribute(PACKED, {}).get("below_hu")

    @property
    def packed_files(self) -> Receipts:
        """Receipts of the packed air."""
        return dict(self._attribute(PACKED, {}).get("files", {}))

    @property
    def chunk_slices(self) -> int | None:
        """Number of slices of a chunk if the user chose it, else None; see `lungmix.store.chunking.layout_of`."""
        return self._attribute(CHUNK_SLICES)

    @property
    def under_way(self) -> str | None:
        """Stage that was in progress when this case was opened; None if there was none."""
        return self._attribute("working", {}).get("stage")

    @property
    def attempt(self) -> str | None:
        """Identifier of the attempt that was in progress when this case was opened; None if there was none."""
        return self._attribute("working", {}).get("attempt")

    def check_attempt(self, attempt: str) -> None:
        """Raise `StoreError` unless the attempt with this identifier is the one in progress."""
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
        """True if the OME-Zarr metadata of the image are those of its geometry and layout."""
        return self._group.attrs.get(OME) == ome_zarr.image_metadata(self.name, self.geometry, self.layout)

    def read(self, name: str, start: int, stop: int, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Read slices `start` to `stop` (exclusive) of an image into memory; with `rows`, only these rows."""
        return self.zarr_array(name)[start:stop, rows]

    def read_displacement(self) -> npt.NDArray[Any]:
        """Read the displacements of the registration of this case: float32 ``[z, y, x, component]``, mm in LPS."""
        return self._stored_array(DISPLACEMENT)[:]

    def read_packed(self, name: str, start: int, stop: int) -> Bits:
        """Read slices `start` to `stop` (exclusive) of a packed mask: uint64 ``[z, y, words]``."""
        return self._stored_array(name)[start:stop]

    def read_temporary(self, name: str, box: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        """Read a box of a label map that exists only during a command, such as a mask file being imported."""
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
