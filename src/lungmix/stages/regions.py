"""Regions: right lung, left lung, airway, elsewhere. Reads mask, air and image, writes regions and their histograms.

One small task computes the regions of the reduced copy of a case, whose voxels are about 4 mm wide. Then the tasks of
`lungmix.stages.label`, which read the HU of each slab, look up the region of each voxel in it. Depends on the mask.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.kernels.histogram import N_HU, SparseHistogram
from lungmix.kernels.mask import recipe_for
from lungmix.kernels.reduction import reduction_of
from lungmix.kernels.regions import Labels, find_regions, nearest_rows, region_counts
from lungmix.kernels.rejected_components import Rejected
from lungmix.parameters import ANATOMICAL, MaskParameters
from lungmix.stages import mask
from lungmix.stages.quality_numbers import quality_numbers
from lungmix.stages.reduced import reduced_copy, reduced_labels, rejected_components
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.store.schema import FROM_FILE, SIDE
from lungmix.tissue import SIDES

STAGE = SIDE
REJECTED = "rejected"
"""Record key of components that look like lung and that the mask does not contain; earlier versions lack it."""


def key_for(case: Case, mask_key: str | None = None) -> str:
    """Return the cache key of regions; it depends on the order of axes only if the stored array is not axial.

    Parameters
    ----------
    case : Case
        The case.
    mask_key : str, optional
        Cache key of the mask; by default the recorded one.
    """
    order = case.geometry.axis_order
    axes = {} if order.is_axial else {"axial": True}
    if not case.geometry.orientation_known:
        axes = {"orientation_known": False}
    direction = list(case.geometry.direction)
    mask_key = mask_key or case.stages[mask.STAGE]["key"]
    return cache_key(stage=STAGE, version=1, mask=mask_key, direction=direction, **axes)


def is_valid(case: Case) -> bool:
    """Return True if the stored regions of a masked case were computed from its present mask."""
    return case.stages.get(STAGE, {}).get("key") == key_for(case)


def belong_to_mask(case: Case) -> bool:
    """Return True if the regions of a masked case were written with its mask, and cannot be computed from the mask."""
    record = case.stages.get(mask.STAGE, {})
    is_anatomical = FROM_FILE not in record and record.get("parameters", {}).get("preset") == ANATOMICAL
    return are_from_file(case) or (is_anatomical and case.geometry.orientation_known)


def check_computable(case: Case) -> None:
    """Raise an error unless missing regions of a masked case can be computed from its mask.

    Raises
    ------
    StoreError
        If the regions came with the mask: they are corrupt then, and only a new mask restores them.
    """
    if not belong_to_mask(case):
        return
    origin = "came from a mask file or a segmenter"
    remedy = "give its mask again, `masks=PLACE` or `mask_with=NAME`"
    if not are_from_file(case):
        origin, remedy = "were made with its mask", "run `Pipeline.mask()` first"
    raise StoreError(f"case {case.name}: its right and left lung {origin} and are corrupt: {remedy}", case=case.name)


def are_from_file(case: Case) -> bool:
    """Return True if the regions of a masked case came from its mask file or segmenter."""
    return bool(case.stages.get(mask.STAGE, {}).get(FROM_FILE, {}).get("regions"))


FACES = ("z first", "z last", "y first", "y last", "x first", "x last")
"""Faces of the volume that a region can touch: the first and the last index of each array axis."""


@dataclass(frozen=True, eq=False)
class CompressedLabels:
    """Compressed region labels of the reduced copy, a few kilobytes that every task gets, and measured numbers.

    Attributes
    ----------
    shape : tuple of int
        Shape of the labels.
    packed : bytes
        Compressed labels.
    rejected : tuple of dict
        Components that look like lung and that the mask does not contain.
    quality : dict
        Numbers for quality control, see `lungmix.stages.quality_numbers`.
    """

    shape: tuple[int, ...]
    packed: bytes
    rejected: tuple[dict[str, Any], ...] = ()
    quality: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, labels: Labels, rejected: Sequence[Rejected] = (), quality: dict[str, Any] | None = None
    ) -> CompressedLabels:
        """Return the compressed form of uint8 labels ``[z, y, x]``."""
        packed = zlib.compress(np.ascontiguousarray(labels).data, 1)
        return cls(labels.shape, packed, tuple(component.to_dict() for component in rejected), quality or {})

    @property
    def labels(self) -> Labels:
        """Labels, uint8 ``[z, y, x]``."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class SlabRegionCounts:
    """Counts of each region in a slab.

    Attributes
    ----------
    counts : SparseHistogram
        Voxels by region and HU: the non-zero bins of the flattened 2-D histogram.
    touches : ndarray of bool, shape (4, 6)
        True if a region (row) touches a face of the volume (column), in the order of `SIDES` and `FACES`.
    files : dict
        Receipts of the shards that were written.
    """

    counts: SparseHistogram
    touches: npt.NDArray[np.bool_]
    files: Receipts


def publish(
    case: CaseWriter,
    slabs: Sequence[SlabRegionCounts],
    files: Receipts,
    rejected: Sequence[dict[str, Any]] = (),
    mask_key: str | None = None,
) -> None:
    """Write the histograms and the record of written regions.

    Parameters
    ----------
    case : CaseWriter
        The case.
    slabs : sequence of SlabRegionCounts
        Counts of the slabs of the case.
    files : dict
        Receipts of the empty arrays of the regions.
    rejected : sequence of dict
        Components that look like lung and that the mask does not contain.
    mask_key : str, optional
        Cache key of the mask; by default the recorded one.
    """
    histograms = np.zeros((len(SIDES), N_HU), np.uint64)
    touches = np.zeros((len(SIDES), len(FACES)), np.bool_)
    for slab in slabs:
        slab.counts.add_to(histograms.reshape(-1))
        touches |= slab.touches
        files = files | slab.files
    files = files | case.write_histogram("side_counts", histograms)
    voxels = {region.key: int(n) for region, n in zip(SIDES, histograms.sum(axis=1), strict=True)}
    faces = {
        region.key: [face for face, hit in zip(FACES, row, strict=True) if hit]
        for region, row in zip(SIDES, touches, strict=True)
    }
    record = {"key": key_for(case, mask_key), "voxels": voxels, "touches": faces, REJECTED: list(rejected)}
    case.record(STAGE, record, files)


def compute_coarse_regions(case_ref: CaseRef) -> CompressedLabels:
    """Return the regions of the reduced copy of a masked case, and its numbers for quality control.

    Regions that were written with the mask are read from the store; otherwise they are computed.
    """
    case = case_ref.open()
    reduced = reduced_copy(case)
    parameters = MaskParameters(**case.stages[mask.STAGE]["parameters"])
    rejected = _recorded_rejected(case)
    if rejected is None:
        is_computed = FROM_FILE not in case.stages[mask.STAGE]
        rejected = rejected_components(reduced, parameters.preset if is_computed else None)
    if not case.geometry.orientation_known:
        # Without orientation neither right and left nor the trachea can be determined: no voxel has a region.
        quality = quality_numbers(case, reduced, None, rejected)
        return CompressedLabels.of(np.zeros((1, 1, 1), np.uint8), rejected, quality)
    if belong_to_mask(case) and is_valid(case):
        labels = reduced_labels(case, SIDE)
    else:
        recipe = recipe_for(parameters, case.geometry.axial.spacing_zyx)
        labels = find_regions(reduced, recipe.closings)
    inside = np.where(reduced.lung, labels, np.uint8(0))
    return CompressedLabels.of(labels, rejected, quality_numbers(case, reduced, inside, rejected))


def _recorded_rejected(case: Case) -> list[Rejected] | None:
    """Return the rejected components that were recorded along with regions from the mask.

    The result is None if the regions did not come with the mask, or if a component was recorded without its slice.
    """
    if not (belong_to_mask(case) and is_valid(case)):
        return None
    recorded = case.stages[STAGE].get(REJECTED, [{}])
    return [Rejected(**component) for component in recorded] if all("slice" in item for item in recorded) else None


class ReducedLookup:
    """Lookup of the nearest reduced voxel of each voxel of a stored array, in any order of axes.

    Parameters
    ----------
    geometry : Geometry
        Geometry of the stored array.
    coarse : CompressedLabels
        Labels of the reduced copy, in the order of axes of the axial array.

    Attributes
    ----------
    labels : ndarray of uint8
        Labels of the reduced copy with the axes of the stored array, whose directions are those of the axial array.
    """

    def __init__(self, geometry: Geometry, coarse: CompressedLabels):
        order = geometry.axis_order
        self._shape, self._flipped = geometry.shape, order.flipped
        # Decompressed bytes are read-only. Copy them, so that the kernel is compiled for one kind of array only.
        self.labels = np.array(coarse.labels.transpose(np.argsort(order.axes)), order="C")
        self._factors = order.by_array(reduction_of(geometry.axial.spacing_zyx).factors)

    def nearest(self, spans: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.int64]]:
        """Return the index in `labels` of each index of a box of the stored array, for each axis.

        Parameters
        ----------
        spans : sequence of 3 tuple of int
            First index of the box, and index after its last, along z, y and x of the stored array.
        """
        return [
            nearest_rows(size - span[1], size - span[0], factor, n)[::-1].copy()
            if flip
            else nearest_rows(*span, factor, n)
            for span, size, flip, factor, n in zip(
                spans, self._shape, self._flipped, self._factors, self.labels.shape, strict=True
            )
        ]


class RegionLookup:
    """Lookup of the region of each voxel; writes the regions slab by slab.

    Parameters
    ----------
    case : CaseWriter
        The case, opened for writing.
    coarse : CompressedLabels
        Result of `compute_coarse_regions`.
    """

    def __init__(self, case: CaseWriter, coarse: CompressedLabels):
        self._case, self._lookup = case, ReducedLookup(case.geometry, coarse)

    def write(
        self, start: int, rows: slice, hu: npt.NDArray[np.int16], lung: Labels
    ) -> tuple[Labels, SlabRegionCounts]:
        """Write the regions of the slab that begins at slice `start`.

        Parameters
        ----------
        start : int
            First slice.
        rows : slice
            Rows that contain lung.
        hu : ndarray of int16, shape (slices, rows, x)
            HU of `rows`.
        lung : ndarray of uint8, shape (slices, y, x)
            The mask of the slab.

        Returns
        -------
        regions : ndarray of uint8, shape (slices, rows, x)
            Regions of `rows`.
        counts : SlabRegionCounts
            Histograms of the regions, the faces of the volume that they touch, and receipts of the shards.
        """
        shape = self._case.geometry.shape
        stop = start + len(lung)
        spans = ((start, stop), (rows.start, rows.stop), (0, shape[2]))
        regions, counts = region_counts(hu, lung, self._lookup.labels, self._lookup.nearest(spans), rows.start)
        labels = np.zeros(lung.shape, np.uint8)
        labels[:, rows] = regions
        files = self._case.write("side", start, labels)
        touches = faces_touched(labels, start, shape[0])
        return regions, SlabRegionCounts(SparseHistogram.of(counts.reshape(-1)), touches, files)


def faces_touched(labels: Labels, start: int, depth: int) -> npt.NDArray[np.bool_]:
    """Return which faces of the volume the regions in a slab touch.

    Parameters
    ----------
    labels : ndarray of uint8, shape (slices, y, x)
        Regions of the slab.
    start, depth : int
        First slice of the slab, and number of slices of the volume.

    Returns
    -------
    ndarray of bool, shape (4, 6)
        One row per region, one column per face of `FACES`.
    """
    touches = np.zeros((len(SIDES), len(FACES)), np.bool_)
    face_slices = (
        labels[:1] if start == 0 else labels[:0], labels[-1:] if start + len(labels) == depth else labels[:0],
        labels[:, :1], labels[:, -1:], labels[:, :, :1], labels[:, :, -1:],
    )  # fmt: skip
    for face, face_slice in enumerate(face_slices):
        for region in SIDES:
            touches[region.label - 1, face] = bool((face_slice == region.label).any())
    return touches
