"""Side: reads mask, air and image, writes the sides and the counts per HU by side; depends on the mask.

The answer for a reduced copy of the case is one small task; what it means for the voxels of a slab is looked up by
`lungmix.stages.label`, which has their HU in hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.histogram import N_HU
from lungmix.kernels.mask import recipe_for
from lungmix.kernels.packed_masks import unpack
from lungmix.kernels.regions import Labels, Reduced, find_regions, nearest_rows, region_counts
from lungmix.kernels.rejected_components import Rejected, find_rejected
from lungmix.parameters import MaskParameters
from lungmix.stages import convert, mask
from lungmix.store import Case, CaseRef
from lungmix.store.chunking import layout_of, shrink_mean
from lungmix.store.digests import cache_key
from lungmix.store.objects import Receipts
from lungmix.tissue import SIDES

STAGE = "side"
REJECTED = "rejected"
"""Pieces of lung that the mask does not hold, in the record; records of earlier versions lack them."""

COARSEST_MM = 4.0
"""Voxels of the reduced copy are at most this wide, unless those of the scan are wider."""

FINEST_MM = 2.5
"""Of a finer level only every so many voxels are taken as come nearest to this from below."""


def key_for(case: Case) -> str:
    """Return what sides depend on; the order of axes is named only where the array is not axial."""
    order = case.geometry.axis_order
    axes = {} if order.is_axial else {"axial": True}
    if not case.geometry.orientation_known:
        axes = {"orientation_known": False}
    direction = list(case.geometry.direction)
    return cache_key(stage=STAGE, version=1, mask=case.stages[mask.STAGE]["key"], direction=direction, **axes)


def is_valid(case: Case) -> bool:
    """Whether a masked case has the sides of its mask."""
    return case.stages.get(STAGE, {}).get("key") == key_for(case)


FACES = ("z first", "z last", "y first", "y last", "x first", "x last")
"""Ends of the volume that a lung can touch, by array axis."""


@dataclass(frozen=True, eq=False)
class CompressedLabels:
    """Labels of the reduced copy on their way to all tasks, a few kilobytes, and the lungs that the mask rejected."""

    shape: tuple[int, ...]
    packed: bytes
    rejected: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, labels: Labels, rejected: Sequence[Rejected] = ()) -> CompressedLabels:
        """Of uint8 labels ``[z, y, x]``."""
        packed = zlib.compress(np.ascontiguousarray(labels).data, 1)
        return cls(labels.shape, packed, tuple(one.to_dict() for one in rejected))

    @property
    def labels(self) -> Labels:
        """As they were."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.shape)


@dataclass(frozen=True, eq=False)
class SlabRegionCounts:
    """What a slab holds of each side.

    Attributes
    ----------
    counts : Sparse
        Of the flat counts per side and HU.
    touches : ndarray of bool, shape (4, 6)
        Side by end of the volume.
    files : dict
        Receipts of what was written.
    """

    counts: mask.SparseHistogram
    touches: npt.NDArray[np.bool_]
    files: Receipts


def publish(
    case: Case, shares: Sequence[SlabRegionCounts], files: Receipts, rejected: Sequence[dict[str, Any]] = ()
) -> None:
    """Keep the counts and the record of sides that are written; `files` are receipts of their empty arrays."""
    counts = np.zeros((len(SIDES), N_HU), np.uint64)
    touches = np.zeros((len(SIDES), len(FACES)), np.bool_)
    for share in shares:
        share.counts.add_to(counts.reshape(-1))
        touches |= share.touches
        files = files | share.files
    files = files | case.write_side_counts(counts)
    voxels = {one.key: int(n) for one, n in zip(SIDES, counts.sum(axis=1), strict=True)}
    faces = {
        one.key: [face for face, hit in zip(FACES, row, strict=True) if hit]
        for one, row in zip(SIDES, touches, strict=True)
    }
    record = {"key": key_for(case), "voxels": voxels, "touches": faces, REJECTED: list(rejected)}
    case.record(STAGE, record, files)


def reduced_factors(geometry: Geometry) -> tuple[int, tuple[int, int, int], tuple[int, int, int]]:
    """Return how a reduced copy of an axial array is taken.

    Parameters
    ----------
    geometry : Geometry
        Of the axial array.

    Returns
    -------
    level : int
        The level that it is taken from.
    stride : tuple of int
        Step on this level, along z, y, x.
    factors : tuple of int
        Voxels of the axial array in one such step.
    """
    spacing, levels = geometry.spacing_zyx, layout_of(geometry).levels
    level = max(
        (i for i, one in enumerate(levels) if max(one.factors[a] * spacing[a] for a in (1, 2)) <= COARSEST_MM),
        default=0,
    )
    z, y, x = (max(1, int(FINEST_MM / (factor * s))) for factor, s in zip(levels[level].factors, spacing, strict=True))
    a, b, c = levels[level].factors
    return level, (z, y, x), (a * z, b * y, c * x)


def steps_of(geometry: Geometry, factors: tuple[int, int, int]) -> npt.NDArray[np.float64]:
    """Way in LPS, mm, of a step along z, y, x: the columns of a 3 x 3 matrix."""
    columns = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    return np.asarray(columns[:, ::-1] * factors, np.float64)


def compute_coarse_regions(where: CaseRef) -> CompressedLabels:
    """Sides of the reduced copy of a masked case."""
    case = where.open()
    reduced = _reduced(case)
    rejected = find_rejected(reduced.hu, reduced.lung, reduced.steps)
    if not case.geometry.orientation_known:
        # Nothing says which half is right, nor where the trachea lies: no voxel has a region.
        return CompressedLabels.of(np.zeros((1, 1, 1), np.uint8), rejected)
    parameters = MaskParameters(**case.stages[mask.STAGE]["parameters"])
    recipe = recipe_for(parameters, case.geometry.axial.spacing_zyx)
    return CompressedLabels.of(find_regions(reduced, recipe.closings), rejected)


def decide_rejected(where: CaseRef) -> list[Rejected]:
    """Return the pieces of lung that the mask of a case does not hold, also where it holds nothing."""
    reduced = _reduced(where.open())
    return find_rejected(reduced.hu, reduced.lung, reduced.steps)


def _reduced(case: Case) -> Reduced:
    return _from_levels(case) if case.geometry.axis_order.is_axial else _from_voxels(case)


def _from_levels(case: Case) -> Reduced:
    """Return the reduced copy of a case that is stored as its axial array."""
    level, stride, factors = reduced_factors(case.geometry)
    lung, hu = (_strided(case, name, level, stride) for name in ("lung", "ct"))
    nx = case.geometry.shape[2]
    air = [
        unpack(case.read_packed(convert.AIR, start, stop)[-start % factors[0] :: factors[0], :: factors[1]], nx)[
            ..., :: factors[2]
        ]
        for start, stop in case.layout.slabs()
    ]
    return Reduced(lung > 0, np.concatenate(air) > 0, hu, factors, steps_of(case.geometry, factors))


def _from_voxels(case: Case) -> Reduced:
    """Return the reduced copy that the axial array of a case would have, whichever way the case is stored.

    Blocks of the coarse levels begin where the stored array begins, which is another end of the axial array. So the
    scan is read at full size, in runs of slices that hold whole steps of the axial array.
    """
    order, axial = case.geometry.axis_order, case.geometry.axial
    level, stride, factors = reduced_factors(axial)
    blocks = layout_of(axial).levels[level].factors
    (depth, _, nx), step = case.geometry.shape, order.by_array(factors)[0]
    thick = max(case.layout.slab // step, 1) * step
    parts = []
    for first in range(0, depth, thick):
        # Slices are counted as the axial array has them.
        last = min(first + thick, depth)
        start, stop = (depth - last, depth - first) if order.flipped[0] else (first, last)
        hu = np.ascontiguousarray(order.to_axial(case.read("ct", start, stop)))
        lung = order.to_axial(case.read("lung", start, stop))
        air = order.to_axial(unpack(case.read_packed(convert.AIR, start, stop), nx))
        hu = shrink_mean(hu, blocks)[tuple(slice(None, None, n) for n in stride)]
        parts.append((*(mask[tuple(slice(None, None, n) for n in factors)] > 0 for mask in (lung, air)), hu))
    along = order.axes.index(0)
    lung, air, hu = (np.ascontiguousarray(np.concatenate(part, along)) for part in zip(*parts, strict=True))
    return Reduced(lung, air, hu, factors, steps_of(axial, factors))


def _strided(case: Case, name: str, level: int, stride: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Every so many voxels of a level of an image; no more than a stored slab is in memory at a time."""
    source, thick = case.zarr_array(name, level), case.layout.levels[level].shards[0]
    z, y, x = stride
    parts = [
        np.ascontiguousarray(np.asarray(source[start : start + thick])[-start % z :: z, ::y, ::x])
        for start in range(0, source.shape[0], thick)
    ]
    return np.concatenate(parts)


class RegionLookup:
    """Looks sides up slab by slab and writes them.

    Parameters
    ----------
    case : Case
        Opened for writing.
    small : Small
        What `compute_coarse_regions` said.
    """

    def __init__(self, case: Case, small: CompressedLabels):
        order = case.geometry.axis_order
        self._case, self._flipped = case, order.flipped
        # Labels are those of the axial array: their axes are put in the order of the stored one, unflipped.
        self._small = np.ascontiguousarray(small.labels.transpose(np.argsort(order.axes)))
        self._factors = order.by_array(reduced_factors(case.geometry.axial)[2])

    def write(self, start: int, rows: slice, hu: npt.NDArray[np.int16], lung: Labels) -> SlabRegionCounts:
        """Write the sides of the slab that begins at slice `start`.

        Parameters
        ----------
        start : int
            First slice.
        rows : slice
            Rows that hold lung.
        hu : ndarray of int16, shape (slices, rows, x)
            HU of these rows.
        lung : ndarray of uint8, shape (slices, y, x)
            The mask.
        """
        shape = self._case.geometry.shape
        stop = start + len(lung)
        spans = ((start, stop), (rows.start, rows.stop), (0, shape[2]))
        near = [
            nearest_rows(size - span[1], size - span[0], factor, n)[::-1].copy()
            if flip
            else nearest_rows(*span, factor, n)
            for span, size, flip, factor, n in zip(
                spans, shape, self._flipped, self._factors, self._small.shape, strict=True
            )
        ]
        labels = np.zeros(lung.shape, np.uint8)
        labels[:, rows], counts = region_counts(hu, lung[:, rows], self._small, near)
        files = self._case.write("side", start, labels)
        touches = np.zeros((len(SIDES), len(FACES)), np.bool_)
        ends = (
            labels[:1] if start == 0 else labels[:0], labels[-1:] if stop == shape[0] else labels[:0],
            labels[:, :1], labels[:, -1:], labels[:, :, :1], labels[:, :, -1:],
        )  # fmt: skip
        for face, end in enumerate(ends):
            for one in SIDES:
                touches[one.label - 1, face] = bool((end == one.label).any())
        return SlabRegionCounts(mask.SparseHistogram.of(counts.reshape(-1)), touches, files)
