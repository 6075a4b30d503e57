"""6-connected components of one slab, and their merge across slabs from small tables.

A slab is held as runs: maximal rows of set voxels along x. Runs are a fraction of the voxels, carry the label of
their component and can be painted back, so no label volume ever exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Mask = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs of set voxels, ordered by row ``z * ny + y`` and then by x.

    Attributes
    ----------
    shape : tuple of int
        Shape of the slab, ``(z, y, x)``.
    first_of_row : ndarray of int32, shape (z * y + 1,)
        Index of the first run of each row; the last entry is the number of runs.
    start, stop : ndarray of int32, shape (runs,)
        First and one past the last x.
    label : ndarray of int32, shape (runs,)
        Component of the run, 0 to components - 1 within this slab.
    components : int
        Number of components.
    """

    shape: tuple[int, int, int]
    first_of_row: Int32s
    start: Int32s
    stop: Int32s
    label: Int32s
    components: int

    def plane(self, z: int) -> Runs:
        """The runs of one plane alone, with their labels."""
        ny = self.shape[1]
        rows = self.first_of_row[z * ny : (z + 1) * ny + 1]
        part = slice(rows[0], rows[-1])
        return Runs(
            (1, *self.shape[1:]),
            rows - rows[0],
            self.start[part],
            self.stop[part],
            self.label[part],
            self.components,
        )


@dataclass(frozen=True, eq=False)
class Islands:
    """A small table of components.

    Attributes
    ----------
    voxels : ndarray of int64, shape (components,)
        Voxel counts.
    touches_edge : ndarray of bool, shape (components,)
        Whether a voxel lies in the first or last row or column of its slice.
    """

    voxels: Ints
    touches_edge: npt.NDArray[np.bool_]


def label_runs(mask: Mask) -> Runs:
    """Runs of a slab and the 6-connected component of each.

    Parameters
    ----------
    mask : ndarray of uint8, shape (z, y, x)
        Voxels other than 0 are set.
    """
    nz, ny, nx = mask.shape
    first = _count_runs(mask.reshape(nz * ny, nx))
    start, stop = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    _fill_runs(mask.reshape(nz * ny, nx), first, start, stop)
    label, components = _join_rows(ny, first, start, stop)
    return Runs((nz, ny, nx), first, start, stop, label, int(components))


def islands_of(runs: Runs) -> Islands:
    """Voxel count and edge contact of each component of a slab."""
    _, ny, nx = runs.shape
    voxels = np.zeros(runs.components, np.int64)
    touches = np.zeros(runs.components, np.bool_)
    _tabulate(ny, nx, runs.first_of_row, runs.start, runs.stop, runs.label, voxels, touches)
    return Islands(voxels, touches)


def pairs_across(below: Runs, above: Runs) -> Int32s:
    """Components that meet at the face between two slabs.

    Parameters
    ----------
    below, above : Runs
        The last plane of one slab and the first plane of the next.

    Returns
    -------
    ndarray of int32, shape (pairs, 2)
        Distinct pairs of labels, of the first and of the second plane.
    """
    pairs = _meet(below.first_of_row, below.start, below.stop, below.label,
                  above.first_of_row, above.start, above.stop, above.label)  # fmt: skip
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def merge_islands(slabs: Sequence[Islands], faces: Sequence[Int32s]) -> tuple[list[Int32s], Islands]:
    """Components of the whole volume from the tables of its slabs.

    Parameters
    ----------
    slabs : sequence of Islands
        Tables of the slabs, in order.
    faces : sequence of ndarray of int32, shape (pairs, 2)
        What `pairs_across` found between each slab and the next.

    Returns
    -------
    numbers : list of ndarray of int32
        For each slab, the island of the whole volume that each of its components belongs to.
    islands : Islands
        Table of the whole volume.
    """
    sizes = [len(table.voxels) for table in slabs]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(offsets[-1])
    lower = [pair[:, 0] + offsets[i] for i, pair in enumerate(faces)]
    upper = [pair[:, 1] + offsets[i + 1] for i, pair in enumerate(faces)]
    rows = np.concatenate([np.zeros(0, np.int64), *lower])
    columns = np.concatenate([np.zeros(0, np.int64), *upper])
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(total, total))
    count, number = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int32))
    voxels, touches = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    if total:
        np.add.at(voxels, number, np.concatenate([table.voxels for table in slabs]))
        np.logical_or.at(touches, number, np.concatenate([table.touches_edge for table in slabs]))
    return [number[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)], Islands(voxels, touches)


def paint(runs: Runs, keep: npt.NDArray[np.bool_]) -> Mask:
    """Mask of the components to keep.

    Parameters
    ----------
    runs : Runs
        A slab.
    keep : ndarray of bool, shape (components,)
        Which of its components.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1.
    """
    nz, ny, nx = runs.shape
    out = np.zeros((nz * ny, nx), np.uint8)
    if keep.any():
        _paint(runs.first_of_row, runs.start, runs.stop, runs.label, keep, out)
    return out.reshape(runs.shape)


@numba.njit(nogil=True, cache=True)
def _count_runs(rows):  # type: ignore[no-untyped-def]
    first = np.zeros(len(rows) + 1, np.int32)
    for r in range(len(rows)):
        row = rows[r]
        runs = 1 if len(row) and row[0] else 0
        for x in range(1, len(row)):
            runs += (row[x] != 0) & (row[x - 1] == 0)
        first[r + 1] = first[r] + runs
    return first


@numba.njit(nogil=True, cache=True)
def _fill_runs(rows, first, start, stop):  # type: ignore[no-untyped-def]
    for r in range(len(rows)):
        at = first[r]
        if at == first[r + 1]:
            continue
        row = rows[r]
        inside = False
        for x in range(len(row)):
            if row[x] and not inside:
                start[at] = x
                inside = True
            elif inside and not row[x]:
                stop[at] = x
                at += 1
                inside = False
        if inside:
            stop[at] = len(row)


@numba.njit(nogil=True, cache=True)
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(nogil=True, cache=True)
def _join_two_rows(parent, start, stop, a, a_end, b, b_end):  # type: ignore[no-untyped-def]
    while a < a_end and b < b_end:
        if start[a] < stop[b] and start[b] < stop[a]:
            one, two = _root(parent, a), _root(parent, b)
            if one < two:
                parent[two] = one
            elif two < one:
                parent[one] = two
        if stop[a] < stop[b]:
            a += 1
        else:
            b += 1


@numba.njit(nogil=True, cache=True)
def _join_rows(ny, first, start, stop):  # type: ignore[no-untyped-def]
    runs = len(start)
    parent = np.arange(runs).astype(np.int32)
    for row in range(len(first) - 1):
        if first[row] == first[row + 1]:
            continue
        if row % ny:
            _join_two_rows(parent, start, stop, first[row], first[row + 1], first[row - 1], first[row])
        if row >= ny:
            above = row - ny
            _join_two_rows(parent, start, stop, first[row], first[row + 1], first[above], first[above + 1])
    label = np.empty(runs, np.int32)
    count = 0
    for i in range(runs):
        root = _root(parent, i)
        if root == i:
            label[i] = count
            count += 1
        else:
            label[i] = label[root]
    return label, count


@numba.njit(nogil=True, cache=True)
def _tabulate(ny, nx, first, start, stop, label, voxels, touches):  # type: ignore[no-untyped-def]
    for row in range(len(first) - 1):
        y = row % ny
        edge = y in (0, ny - 1)
        for i in range(first[row], first[row + 1]):
            voxels[label[i]] += stop[i] - start[i]
            if edge or start[i] == 0 or stop[i] == nx:
                touches[label[i]] = True


@numba.njit(nogil=True, cache=True)
def _meet(first_a, start_a, stop_a, label_a, first_b, start_b, stop_b, label_b):  # type: ignore[no-untyped-def]
    # Two runs that overlap make a pair; a row of m and n runs has fewer than m + n of them.
    found = np.empty((len(start_a) + len(start_b), 2), np.int32)
    count = 0
    for row in range(len(first_a) - 1):
        a, b = first_a[row], first_b[row]
        while a < first_a[row + 1] and b < first_b[row + 1]:
            if start_a[a] < stop_b[b] and start_b[b] < stop_a[a]:
                pair_a, pair_b = label_a[a], label_b[b]
                if count == 0 or found[count - 1, 0] != pair_a or found[count - 1, 1] != pair_b:
                    found[count, 0] = pair_a
                    found[count, 1] = pair_b
                    count += 1
            if stop_a[a] < stop_b[b]:
                a += 1
            else:
                b += 1
    return found[:count].copy()


@numba.njit(nogil=True, cache=True)
def _paint(first, start, stop, label, keep, out):  # type: ignore[no-untyped-def]
    for row in range(len(first) - 1):
        for i in range(first[row], first[row + 1]):
            if keep[label[i]]:
                out[row, start[i] : stop[i]] = 1
