"""Labels of a case by another mixture than that of the store, looked up when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError
from lungmix.kernels.labels import look_up
from lungmix.kernels.median import median_labels, window_of
from lungmix.kernels.packed_masks import span_of
from lungmix.stages.label import MEDIAN_SIZE, key_for
from lungmix.store import Case, CaseRef
from lungmix.store.case_files import CaseFiles
from lungmix.store.digests import digest_of
from lungmix.store.models import MODEL_DOUBTS, record_of
from lungmix.store.schema import ARRAYS, LABEL
from lungmix.store.verified_array import StoredArray

if TYPE_CHECKING:
    # Workers get a lookup table: they import neither mixtures nor their libraries.
    from lungmix.mixture import TissueModel

_VOXELWISE, _MEDIAN = "tissue", "tissue_median"
RELABELLED = (_VOXELWISE, _MEDIAN)
"""Label maps that are a function of HU and mask, so that another mixture gives them at once."""
_OF_STORED_LABELS = ("tissue_potts", "registered_tissue", "change")
"""Label maps that were computed from the labels in the store."""
_CACHED_SLABS = 3

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Relabelling:
    """Labels of a case by another mixture.

    Attributes
    ----------
    table : ndarray of uint8, shape (65536,)
        Label by HU.
    record : dict
        Record of the labels, in place of that in the store.
    """

    table: Labels
    record: dict[str, Any]

    @classmethod
    def of(cls, case: Case, model: TissueModel, name: str, doubts: list[str]) -> Relabelling:
        """Return the labels of a masked case by a mixture of some name, with the sentences of its failed checks."""
        parameters = {key: list(getattr(model, key)) for key in ("weights", "means", "variances")}
        # Labels have no receipts, so the key depends on those of what they are looked up from.
        objects = [
            (key, record_of(case, str(ARRAYS[image].stage)).get("files", {}).get(key))
            for image in (case.measured_image, "lung")
            for key in sorted(record_of(case, str(ARRAYS[image].stage)).get("files", {}))
            if key.startswith(f"{ARRAYS[image].level(0)}/")
        ]
        key = digest_of(repr([key_for(case, model), objects]))
        record = {"key": key, "model": parameters, "model_name": name, MODEL_DOUBTS: list(doubts)}
        return cls(model.lookup_table(), record)


@dataclass(frozen=True, eq=False)
class RelabelledRef:
    """Reference to a case with labels by another mixture, which tasks get as an argument.

    Attributes
    ----------
    case_ref : CaseRef
        The case.
    relabelling : Relabelling
        Its labels.
    """

    case_ref: CaseRef
    relabelling: Relabelling

    def open(self) -> RelabelledCase:
        """Open the case."""
        return RelabelledCase(self.case_ref.open(), self.relabelling)


class RelabelledCase(CaseFiles):
    """Case whose labels are by another mixture than those in the store.

    Slabs of labels are looked up from HU and mask when they are read. Label maps that were computed from the labels in
    the store, such as those under a Potts prior, are left out.

    Parameters
    ----------
    case : Case
        Labelled case, whose attributes and arrays are shared.
    relabelling : Relabelling
        Its labels.
    """

    def __init__(self, case: Case, relabelling: Relabelling):
        super().__init__(case)
        self.relabelling = relabelling

    @property
    def _shared_attributes(self) -> dict[str, Any]:
        attributes = super()._shared_attributes
        return {**attributes, "stages": {**attributes.get("stages", {}), LABEL: self.relabelling.record}}

    def is_started(self, name: str) -> bool:
        """Return True if the case has an image of this name, see `Case.is_started`."""
        return name not in _OF_STORED_LABELS and super().is_started(name)

    def zarr_array(self, name: str, level: int = 0) -> StoredArray:
        """Return an image; labels are looked up when their voxels are read.

        Raises
        ------
        StoreError
            If the image was computed from the labels in the store, or a reduced level of labels is asked for.
        """
        if name in _OF_STORED_LABELS or (name in RELABELLED and level):
            raise StoreError(
                f"case {self.name} has no {name} of level {level} by this mixture: read tissue or tissue_median",
                case=self.name,
            )
        if name not in RELABELLED:
            return super().zarr_array(name, level)
        return cast(StoredArray, RelabelledArray(self, self.relabelling.table, is_median=name == _MEDIAN))


class RelabelledArray:
    """Label map of a case by a lookup table, read like a stored array; see `RelabelledCase`.

    The last slabs of labels stay in memory, so that slabs that are read in their order are looked up once, although
    the window of the median extends into the slabs before and after.

    Parameters
    ----------
    case : Case
        The case, for HU and mask.
    table : ndarray of uint8, shape (65536,)
        Label by HU.
    is_median : bool
        True for the labels after the median filter.
    """

    def __init__(self, case: Case, table: Labels, *, is_median: bool):
        self._case, self._table, self._is_median = case, table, is_median
        self._like = case.zarr_array("lung")
        self._layout, self._flipped = case.layout, case.geometry.axis_order.flipped
        self._slab = lru_cache(_CACHED_SLABS)(self._looked_up)

    def __reduce__(self) -> tuple[Any, ...]:
        # Slabs in memory stay in this process.
        return partial(RelabelledArray, is_median=self._is_median), (self._case, self._table)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, voxels."""
        return self._like.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of a voxel."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._like.ndim

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of a chunk of the mask, voxels."""
        return self._like.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of a shard of the mask, voxels; None without shards."""
        return self._like.shards

    def __getitem__(self, selection: Any) -> Labels:
        """Return labels: uint8, in the shape of the selection.

        Parameters
        ----------
        selection : slice, int, or tuple of them
            Slices without steps along z, and anything along the other axes.

        Raises
        ------
        DamageError
            If HU or mask are corrupt.
        """
        along_z, *others = selection if isinstance(selection, tuple) else (selection,)
        if isinstance(along_z, slice):
            start, stop, step = along_z.indices(self.shape[0])
            if step != 1:
                raise IndexError(f"labels by a lookup table are read in steps of 1 along z, not {step}")
            return self._labels(start, max(start, stop))[(slice(None), *others)]
        z = range(self.shape[0])[along_z]
        return np.asarray(self._labels(z, z + 1)[(0, *others)])

    def _labels(self, start: int, stop: int) -> Labels:
        if not self._is_median or start == stop:
            return self._voxelwise(start, stop)
        before, after = window_of(MEDIAN_SIZE, self._flipped)[0]
        first, last = max(0, start - before), min(self.shape[0], stop + after)
        filtered = median_labels(self._voxelwise(first, last), MEDIAN_SIZE, self._flipped)
        return filtered[start - first : stop - first]

    def _voxelwise(self, start: int, stop: int) -> Labels:
        out = np.empty((stop - start, *self.shape[1:]), np.uint8)
        first = start // self._layout.slab * self._layout.slab
        for begin in range(first, stop, self._layout.slab):
            slab = self._slab(begin)
            low, high = max(start, begin), min(stop, begin + len(slab))
            out[low - start : high - start] = slab[low - begin : high - begin]
        return out

    def _looked_up(self, begin: int) -> Labels:
        """Return the labels of the slab that begins at a slice."""
        end = min(begin + self._layout.slab, self.shape[0])
        lung = self._like[begin:end]
        out = np.zeros(lung.shape, np.uint8)
        rows = span_of(lung.any(axis=(0, 2)))
        if rows is not None:
            hu = self._case.zarr_array(self._case.measured_image)[begin:end, rows]
            out[:, rows] = look_up(hu, lung[:, rows], self._table)
        return out
