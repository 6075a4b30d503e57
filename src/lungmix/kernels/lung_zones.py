"""Lung zones: each lung divided into thirds from head to feet, a ventral and a dorsal half, and a core and a peel.

Thirds and halves are cut by planes of the axial array, whose axes run to the head, to the back and to the left. The
planes of a lung follow from its voxels per slice and per row. The peel is found on the reduced copy of a scan, and a
voxel of the full scan takes it from the nearest reduced voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from lungmix.kernels.histogram import FIRST_HU, N_HU, SparseHistogram
from lungmix.kernels.jit import kernel
from lungmix.parameters import ZONES_BY_COMMON_VOLUME, ZONES_BY_HEIGHT, ZONES_BY_VOLUME
from lungmix.tissue import LUNG_ZONES, LUNGS, ZONE_DEPTHS, ZONE_HALVES, ZONE_THIRDS

Labels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

PEEL_MM = 20.0
"""Depth of the peel, mm: lung nearer to the surface than this is peel, all other lung is core."""

_PER_THIRD = len(ZONE_HALVES) * len(ZONE_DEPTHS)
_PER_LUNG = len(ZONE_THIRDS) * _PER_THIRD


@dataclass(frozen=True)
class ZonePlanes:
    """Planes that divide a lung, as indices of the axial array.

    Attributes
    ----------
    middle, upper : int
        First slice of the middle third, and of the upper third. Slices are counted from the feet.
    dorsal : int
        First row of the dorsal half. Rows are counted from the front.
    """

    middle: int
    upper: int
    dorsal: int

    def to_dict(self) -> dict[str, int]:
        """Return the indices by their names."""
        return {"middle": self.middle, "upper": self.upper, "dorsal": self.dorsal}


def count_planes(labels: Labels) -> tuple[Counts, Counts, Counts]:
    """Return the number of voxels of each lung in each plane of a slab.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.SIDES`, in any order of axes.

    Returns
    -------
    tuple of 3 ndarray of int64, shape (2, n)
        Voxels of the right and the left lung by index along the first, the second and the third axis.
    """
    z, y, x = (np.zeros((len(LUNGS), n), np.int64) for n in labels.shape)
    _count_planes(np.ascontiguousarray(labels), z, y, x)
    return z, y, x


def count_planes_of_mask(
    lung: Labels, regions: Labels, nearest: Sequence[npt.NDArray[np.int64]]
) -> tuple[Counts, Counts, Counts]:
    """Return the number of voxels of each lung in each plane of a slab whose regions are looked up in a reduced copy.

    Parameters
    ----------
    lung : ndarray of uint8, shape (z, y, x)
        Mask, in any order of axes.
    regions : ndarray of uint8
        Labels of `lungmix.tissue.SIDES` at reduced voxels, with axes in the order of those of `lung`.
    nearest : sequence of 3 ndarray of int64
        For each of the axes z, y, x, the index in `regions` of each index of `lung`.

    Returns
    -------
    tuple of 3 ndarray of int64, shape (2, n)
        See `count_planes`.
    """
    z, y, x = (np.zeros((len(LUNGS), n), np.int64) for n in lung.shape)
    _count_planes_of_mask(np.ascontiguousarray(lung), regions, *nearest, z, y, x)
    return z, y, x


def planes_of(slices: Counts, rows: Counts, by: str) -> ZonePlanes:
    """Return the planes that divide a lung.

    A plane belongs to the part in which half of its share lies: a slice is in the lower third if the share of the lung
    below it and half of its own share are less than one third together. If they are exactly one third, it is in the
    part that begins there.

    Parameters
    ----------
    slices : ndarray of int64, shape (z,)
        Voxels of the lung in each slice of the axial array, from the feet to the head.
    rows : ndarray of int64, shape (y,)
        Voxels of the lung in each row of the axial array, from front to back.
    by : {"volume", "height"}
        ``"volume"``: shares are voxels, so that parts have equal volumes. ``"height"``: each plane from the first to
        the last with a voxel of the lung has an equal share, so that parts have equal extents.
    """
    if by == ZONES_BY_HEIGHT:
        slices, rows = _extent(slices), _extent(rows)
    middle, upper = _first_indices(slices, len(ZONE_THIRDS))
    (dorsal,) = _first_indices(rows, len(ZONE_HALVES))
    return ZonePlanes(middle, upper, dorsal)


def planes_of_lungs(slices: Counts, rows: Counts, by: str) -> tuple[ZonePlanes, ...]:
    """Return the planes that divide the right and the left lung.

    Parameters
    ----------
    slices : ndarray of int64, shape (2, z)
        Voxels of each lung in each slice of the axial array, see `planes_of`.
    rows : ndarray of int64, shape (2, y)
        Voxels of each lung in each row of the axial array.
    by : {"volume", "height", "volume-common"}
        ``"volume"`` and ``"height"``: see `planes_of`; each lung has planes of its own. ``"volume-common"``: both lungs
        have the same planes, by which parts of both lungs together have equal volumes.
    """
    if by == ZONES_BY_COMMON_VOLUME:
        common = planes_of(slices.sum(axis=0), rows.sum(axis=0), ZONES_BY_VOLUME)
        return (common,) * len(LUNGS)
    return tuple(planes_of(slices[k], rows[k], by) for k in range(len(LUNGS)))


def find_cores(sides: Labels, spacing: Sequence[float]) -> Labels:
    """Return the core of each lung on the reduced copy of a scan.

    The distance of a reduced voxel from the surface is the smallest distance of its centre from the centre of a reduced
    voxel outside the lung, less half a reduced voxel, which is half of the cubic root of its volume. Holes of the lung
    that no path of neighbouring voxels joins to the surface, such as vessels that the mask leaves out, have no surface.
    Where the border of the scan cuts a lung, there is no surface either.

    Parameters
    ----------
    sides : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.SIDES` at the reduced voxels of an axial array.
    spacing : sequence of float
        Distance of reduced voxels along z, y, x, mm.

    Returns
    -------
    ndarray of uint8, same shape
        Label of the lung in its core and in the holes of the core; 0 elsewhere.
    """
    cores = np.zeros(sides.shape, np.uint8)
    smallest = PEEL_MM + float(np.prod(spacing)) ** (1 / 3) / 2
    for lung in LUNGS:
        extents = ndimage.find_objects((sides == lung.label).view(np.uint8))
        if not extents:
            continue
        # A margin of one voxel around the lung contains the nearest voxels outside it.
        box = tuple(slice(max(extent.start - 1, 0), extent.stop + 1) for extent in extents[0])
        inside = ndimage.binary_fill_holes(sides[box] == lung.label)
        if inside.all():
            # Nothing outside the lung is in the scan, so there is no surface either.
            is_core = inside
        else:
            is_core = ndimage.distance_transform_edt(inside, sampling=tuple(spacing)) >= smallest
        others = [other.label for other in LUNGS if other != lung]
        cores[box][is_core & ~np.isin(sides[box], others)] = lung.label
    return cores


def code_tables(planes: Sequence[ZonePlanes], depth: int, height: int) -> tuple[Labels, Labels]:
    """Return what each slice and each row of the axial array adds to the code of a zone.

    Parameters
    ----------
    planes : sequence of ZonePlanes
        Planes of the right and of the left lung.
    depth, height : int
        Number of slices and of rows of the axial array.

    Returns
    -------
    tuple of 2 ndarray of uint8, shape (2, n)
        Summands for the right and the left lung by slice, and by row. Those of slices contain the first code of the
        lung; the code of a voxel of the core is the sum, and that of the peel is the sum and 1.
    """
    slices, rows = np.zeros((len(LUNGS), depth), np.uint8), np.zeros((len(LUNGS), height), np.uint8)
    for k, lung in enumerate(planes):
        first = 1 + k * _PER_LUNG
        # Thirds are numbered from the head, slices from the feet.
        slices[k] = first + 2 * _PER_THIRD
        slices[k, lung.middle :] = first + _PER_THIRD
        slices[k, lung.upper :] = first
        rows[k, lung.dorsal :] = len(ZONE_DEPTHS)
    return slices, rows


def zone_counts(
    hu: npt.NDArray[np.int16],
    sides: Labels,
    summands: Sequence[Labels],
    cores: Labels,
    nearest: Sequence[npt.NDArray[np.int64]],
    shape: tuple[int, int] | None = None,
    first: tuple[int, int] = (0, 0),
) -> tuple[Labels, SparseHistogram]:
    """Return the zones of a slab and a histogram per zone.

    Parameters
    ----------
    hu : ndarray of int16, shape (z, rows, columns)
        HU of a box that contains all lung voxels of the slab.
    sides : ndarray of uint8, same shape
        Labels of `lungmix.tissue.SIDES`.
    summands : sequence of 3 ndarray of uint8, shape (2, n)
        For each of the axes z, y, x, what each index adds to the code of a voxel of the right and of the left lung.
    cores : ndarray of uint8
        Result of `find_cores`, with axes in the order of those of `hu`.
    nearest : sequence of 3 ndarray of int64
        For each of the axes z, y, x, the index in `cores` of each index of `hu`.
    shape : tuple of 2 int, optional
        Rows and columns of the slab; by default those of the box.
    first : tuple of 2 int
        Row and column of the slab at which the box begins.

    Returns
    -------
    zones : ndarray of uint8, shape (z, y, x)
        Labels of `lungmix.tissue.LUNG_ZONES` of the slab; 0 outside the lungs.
    counts : SparseHistogram
        Non-zero bins of the flattened histograms of all zones, shape (24, 65536), each from -32768 HU on.
    """
    zones = np.zeros((len(hu), *(shape or hu.shape[1:])), np.uint8)
    # Only these HU are counted, so that the bins fit into the cache of a processor.
    lowest, highest = (int(hu.min()), int(hu.max())) if hu.size else (0, 0)
    counts = np.zeros((len(LUNG_ZONES), highest - lowest + 1), np.uint64)
    _look_up(hu, sides, *summands, cores, *nearest, lowest, zones, *first, counts)
    zone, column = np.nonzero(counts)
    return zones, SparseHistogram(zone * N_HU + column + (lowest - FIRST_HU), counts[zone, column])


def _extent(counts: Counts) -> Counts:
    """Return 1 from the first to the last plane with a voxel, 0 elsewhere."""
    present = np.flatnonzero(counts)
    extent = np.zeros_like(counts)
    if len(present):
        extent[present[0] : present[-1] + 1] = 1
    return extent


def _first_indices(shares: Counts, parts: int) -> list[int]:
    """Return the first index of each part but the first; the parts have equal sums of shares."""
    total = int(shares.sum())
    # Twice the sum below each index and half of its own share, which is an integer.
    middles = 2 * np.cumsum(shares) - shares
    return [int(np.searchsorted(parts * middles, 2 * k * total)) for k in range(1, parts)]


@kernel()
def _count_planes(labels, z_counts, y_counts, x_counts):  # type: ignore[no-untyped-def]
    columns = np.zeros((2, labels.shape[2]), np.int32)
    for z in range(labels.shape[0]):
        columns[:] = 0
        for y in range(labels.shape[1]):
            if _has_voxels(labels[z, y]):
                _count_row(labels[z, y], z, y, z_counts, y_counts, columns)
        x_counts += columns


@kernel()
def _count_planes_of_mask(lung, regions, rows_z, rows_y, rows_x, z_counts, y_counts, x_counts):  # type: ignore[no-untyped-def]
    nx = lung.shape[2]
    columns = np.zeros((2, nx), np.int32)
    nearest, labels = np.zeros(nx, np.uint8), np.zeros(nx, np.uint8)
    for z in range(lung.shape[0]):
        columns[:] = 0
        looked_up = -1
        for y in range(lung.shape[1]):
            row = lung[z, y]
            if _has_voxels(row):
                # Several rows have the same nearest row of reduced voxels.
                if rows_y[y] != looked_up:
                    looked_up = rows_y[y]
                    for x in range(nx):
                        nearest[x] = regions[rows_z[z], looked_up, rows_x[x]]
                for x in range(nx):
                    labels[x] = nearest[x] if row[x] else 0
                _count_row(labels, z, y, z_counts, y_counts, columns)
        x_counts += columns


@kernel()
def _has_voxels(row):  # type: ignore[no-untyped-def]
    # Without a branch, the compiler uses wide registers for this loop and for that of `_count_row`.
    any_set = np.uint8(0)
    for x in range(len(row)):
        any_set |= row[x]
    return any_set != 0


@kernel()
def _count_row(row, z, y, z_counts, y_counts, columns):  # type: ignore[no-untyped-def]
    right, left = np.int32(0), np.int32(0)
    for x in range(len(row)):
        is_right, is_left = np.int32(row[x] == 1), np.int32(row[x] == 2)
        right += is_right
        left += is_left
        columns[0, x] += is_right
        columns[1, x] += is_left
    z_counts[0, z] += right
    z_counts[1, z] += left
    y_counts[0, y] += right
    y_counts[1, y] += left


@kernel()
def _look_up(hu, sides, z_codes, y_codes, x_codes, cores, rows_z, rows_y, rows_x, lowest, zones, top, left, counts):  # type: ignore[no-untyped-def]
    for z in range(hu.shape[0]):
        for y in range(hu.shape[1]):
            core_row = cores[rows_z[z], rows_y[y]]
            for x in range(hu.shape[2]):
                side = sides[z, y, x]
                if side == 1 or side == 2:
                    lung = np.int64(side) - 1
                    code = np.int64(z_codes[lung, z]) + np.int64(y_codes[lung, y]) + np.int64(x_codes[lung, x])
                    if core_row[rows_x[x]] != side:
                        code += 1
                    zones[z, top + y, left + x] = code
                    counts[code - 1, np.int64(hu[z, y, x]) - lowest] += np.uint64(1)
