"""Connected components (by faces) of a mask, found slab by slab and merged across slabs.

A slab is a number of consecutive slices. Its mask is stored as runs: a run is a maximal sequence of set voxels within
one row along x. There are far fewer runs than voxels. Each run has the label of its component, and a mask can be
rendered from selected runs, so that no label volume is needed. Slabs are merged by small tables of their components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lungmix.kernels.jit import kernel
from lungmix.kernels.packed_masks import WORD, Bits, count_bits, lowest_bit, words_for

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class RunLengthMask:
    """Mask of a slab as runs of set voxels along x, ordered by row ``z * ny + y`` and then by x.

    Attributes
    ----------
    shape : tuple of int
        Shape of the slab, ``(z, y, x)``.
    first_of_row : ndarray of int32, shape (z * y + 1,)
        Index of the first run of each row; the last entry is the number of runs.
    start, stop : ndarray of int32, shape (runs,)
        First x of each run, and the x after its last one.
    label : ndarray of int32, shape (runs,)
        Component of each run: 0 to ``components - 1``, numbered within this slab.
    components : int
        Number of components.
    """

    shape: tuple[int, int, int]
    first_of_row: Int32s
    start: Int32s
    stop: Int32s
    label: Int32s
    components: int

    def planes(self, begin: int, end: int) -> RunLengthMask:
        """Return the runs of planes ``begin`` to ``end - 1``, with their labels in the slab."""
        ny = self.shape[1]
        rows = self.first_of_row[begin * ny : end * ny + 1]
        part = slice(rows[0], rows[-1])
        return RunLengthMask(
            (end - begin, *self.shape[1:]),
            rows - rows[0],
            self.start[part],
            self.stop[part],
            self.label[part],
            self.components,
        )


@dataclass(frozen=True, eq=False)
class ComponentTable:
    """Sizes of components, and which of them touch the edge of an axial slice.

    Attributes
    ----------
    voxels : ndarray of int64, shape (components,)
        Number of voxels of each component.
    touches_edge : ndarray of bool, shape (components,)
        True for components with a voxel in the first or last row or column of an axial slice.
    """

    voxels: Ints
    touches_edge: Bools


@dataclass(frozen=True, eq=False)
class SlabTable:
    """Table of the components of a slab that matter when slabs are merged.

    A component is listed if it touches the first or last plane of the slab, is not too small to be kept, or is one of
    the five largest of the slab. The others can neither grow by the merge nor be kept.

    Attributes
    ----------
    components : ComponentTable
        The listed components.
    number : ndarray of int32, shape (listed,)
        Label of each listed component in the slab.
    below, above : RunLengthMask
        First and last plane of the slab; their labels are indices into `components`.
    unlisted : int
        Number of components of the slab that are not listed.
    """

    components: ComponentTable
    number: Int32s
    below: RunLengthMask
    above: RunLengthMask
    unlisted: int


@dataclass(frozen=True, eq=False)
class MergedComponents:
    """Components of a volume, merged from the tables of its slabs.

    Attributes
    ----------
    components : ComponentTable
        Components of the volume. Small components that lie within one slab are left out, see `SlabTable`.
    number : list of ndarray of int32
        For each slab, the index in `components` of each component in the table of the slab.
    unlisted : int
        Number of components that are left out.
    """

    components: ComponentTable
    number: list[Int32s]
    unlisted: int


_LARGEST_LISTED = 5


def label_runs(bits: Bits, nx: int) -> RunLengthMask:
    """Return the runs of a slab, labelled with their components, which are connected by faces.

    Parameters
    ----------
    bits : ndarray of uint64, shape (z, y, words)
        Packed mask.
    nx : int
        Voxels in a row.
    """
    nz, ny, words = bits.shape
    rows = bits.reshape(nz * ny, words)
    first = _count_runs(rows)
    start, stop = np.empty(first[-1], np.int32), np.empty(first[-1], np.int32)
    _fill_runs(rows, nx, first, start, stop)
    label, components = _join_rows(ny, first, start, stop)
    return RunLengthMask((nz, ny, nx), first, start, stop, label, int(components))


def tabulate_components(
    runs: RunLengthMask, cranial_axis: int = 0, ends: tuple[bool, bool] = (True, True)
) -> ComponentTable:
    """Return the size of each component of a slab, and whether it touches the edge of an axial slice.

    Parameters
    ----------
    runs : RunLengthMask
        The slab.
    cranial_axis : int
        Array axis from feet to head. The first and last index along it do not count as edges.
    ends : tuple of bool
        True if the first plane of the slab is the first of the volume, and true if its last plane is the last of the
        volume. These planes are edges only if the cranial axis is another one.
    """
    _, ny, nx = runs.shape
    first, last = (end and cranial_axis != 0 for end in ends)
    voxels = np.zeros(runs.components, np.int64)
    touches = np.zeros(runs.components, np.bool_)
    edges = (first, last, cranial_axis != 1, cranial_axis != 2)
    _tabulate(ny, nx, edges, runs.first_of_row, runs.start, runs.stop, runs.label, voxels, touches)
    return ComponentTable(voxels, touches)


def table_of(
    runs: RunLengthMask, min_voxels: int, cranial_axis: int = 0, ends: tuple[bool, bool] = (True, True)
) -> SlabTable:
    """Return the table of a slab with which slabs are merged.

    Parameters
    ----------
    runs : RunLengthMask
        The slab.
    min_voxels : int
        Size of the smallest component that is kept.
    cranial_axis, ends : int, tuple of bool
        See `tabulate_components`.
    """
    components = tabulate_components(runs, cranial_axis, ends)
    below, above = runs.planes(0, 1), runs.planes(runs.shape[0] - 1, runs.shape[0])
    listed = components.voxels >= min_voxels
    listed[below.label] = listed[above.label] = True
    if runs.components > _LARGEST_LISTED:
        listed[np.argpartition(components.voxels, -_LARGEST_LISTED)[-_LARGEST_LISTED:]] = True
    else:
        listed[:] = True
    number = np.flatnonzero(listed).astype(np.int32)
    index = np.cumsum(listed, dtype=np.int32) - np.int32(1)
    return SlabTable(
        ComponentTable(components.voxels[number], components.touches_edge[number]),
        number,
        replace(below, label=index[below.label]),
        replace(above, label=index[above.label]),
        runs.components - len(number),
    )


def pairs_across(below: RunLengthMask, above: RunLengthMask) -> Int32s:
    """Return the pairs of components that touch across the border between two consecutive slabs.

    Parameters
    ----------
    below, above : RunLengthMask
        The last plane of one slab and the first plane of the next.

    Returns
    -------
    ndarray of int32, shape (pairs, 2)
        Distinct pairs: a label of `below`, then the label of `above` that it touches.
    """
    pairs = _overlapping_pairs(below.first_of_row, below.start, below.stop, below.label,
                               above.first_of_row, above.start, above.stop, above.label)  # fmt: skip
    return np.unique(pairs, axis=0) if len(pairs) else pairs


def merge_tables(slabs: Sequence[SlabTable]) -> MergedComponents:
    """Return the components of a volume from the tables of its slabs, which are given in the order of the slabs."""
    sizes = [len(slab.number) for slab in slabs]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    total = int(offsets[-1])
    pairs = [np.zeros((0, 2), np.int64)]
    for i, (slab, following) in enumerate(zip(slabs, slabs[1:], strict=False)):
        pairs.append(pairs_across(slab.above, following.below) + offsets[i : i + 2])
    lower, upper = np.concatenate(pairs).T
    graph = coo_array((np.ones(len(lower), np.bool_), (lower, upper)), shape=(total, total))
    count, number = connected_components(graph, directed=False) if total else (0, np.zeros(0, np.int32))
    voxels, touches = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    if total:
        np.add.at(voxels, number, np.concatenate([slab.components.voxels for slab in slabs]))
        np.logical_or.at(touches, number, np.concatenate([slab.components.touches_edge for slab in slabs]))
    return MergedComponents(
        ComponentTable(voxels, touches),
        [number[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)],
        sum(slab.unlisted for slab in slabs),
    )


def render_components(runs: RunLengthMask, keep: Bools) -> Bits:
    """Return a packed mask of a slab that contains only the components to keep.

    Parameters
    ----------
    runs : RunLengthMask
        A slab.
    keep : ndarray of bool, shape (components,)
        True for each component to keep.

    Returns
    -------
    ndarray of uint64, shape (z, y, words)
    """
    nz, ny, nx = runs.shape
    out = np.zeros((nz * ny, words_for(nx)), np.uint64)
    if keep.any():
        _render(runs.first_of_row, runs.start, runs.stop, runs.label, keep, out)
    return out.reshape(nz, ny, -1)


@kernel()
def _count_runs(rows):  # type: ignore[no-untyped-def]
    first = np.zeros(len(rows) + 1, np.int32)
    for r in range(len(rows)):
        runs = 0
        carry = np.uint64(0)
        for w in range(rows.shape[1]):
            word = rows[r, w]
            if word:
                runs += count_bits(word & ~((word << np.uint64(1)) | carry))
            carry = word >> np.uint64(63)
        first[r + 1] = first[r] + runs
    return first


@kernel()
def _fill_runs(rows, nx, first, start, stop):  # type: ignore[no-untyped-def]
    for r in range(len(rows)):
        at = first[r]
        if at == first[r + 1]:
            continue
        inside = False
        carry = np.uint64(0)
        for w in range(rows.shape[1]):
            word = rows[r, w]
            turns = word ^ ((word << np.uint64(1)) | carry)
            carry = word >> np.uint64(63)
            while turns:
                x = w * WORD + lowest_bit(turns)
                turns &= turns - np.uint64(1)
                if inside:
                    stop[at] = x
                    at += 1
                else:
                    start[at] = x
                inside = not inside
        if inside:
            stop[at] = nx


@kernel()
def _root(parent, i):  # type: ignore[no-untyped-def]
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel()
def _join_two_rows(parent, start, stop, a, a_end, b, b_end):  # type: ignore[no-untyped-def]
    while a < a_end and b < b_end:
        if start[a] < stop[b] and start[b] < stop[a]:
            root_a, root_b = _root(parent, a), _root(parent, b)
            if root_a < root_b:
                parent[root_b] = root_a
            elif root_b < root_a:
                parent[root_a] = root_b
        if stop[a] < stop[b]:
            a += 1
        else:
            b += 1


@kernel()
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


@kernel()
def _tabulate(ny, nx, edges, first, start, stop, label, voxels, touches):  # type: ignore[no-untyped-def]
    first_plane, last_plane, rows, columns = edges
    for row in range(len(first) - 1):
        y = row % ny
        edge = (rows and y in (0, ny - 1)) or (first_plane and row < ny) or (last_plane and row >= len(first) - 1 - ny)
        for i in range(first[row], first[row + 1]):
            voxels[label[i]] += stop[i] - start[i]
            if edge or (columns and (start[i] == 0 or stop[i] == nx)):
                touches[label[i]] = True


@kernel()
def _overlapping_pairs(first_a, start_a, stop_a, label_a, first_b, start_b, stop_b, label_b):  # type: ignore[no-untyped-def]
    # Two runs that overlap form a pair. Two rows with m and n runs have fewer than m + n pairs.
    pairs = np.empty((len(start_a) + len(start_b), 2), np.int32)
    count = 0
    for row in range(len(first_a) - 1):
        a, b = first_a[row], first_b[row]
        while a < first_a[row + 1] and b < first_b[row + 1]:
            if start_a[a] < stop_b[b] and start_b[b] < stop_a[a]:
                pair_a, pair_b = label_a[a], label_b[b]
                if count == 0 or pairs[count - 1, 0] != pair_a or pairs[count - 1, 1] != pair_b:
                    pairs[count, 0] = pair_a
                    pairs[count, 1] = pair_b
                    count += 1
            if stop_a[a] < stop_b[b]:
                a += 1
            else:
                b += 1
    return pairs[:count].copy()


@kernel()
def _render(first, start, stop, label, keep, out):  # type: ignore[no-untyped-def]
    ones = np.uint64(0xFFFFFFFFFFFFFFFF)
    for row in range(len(first) - 1):
        for i in range(first[row], first[row + 1]):
            if keep[label[i]]:
                head, tail = start[i] // WORD, (stop[i] - 1) // WORD
                low = ones << np.uint64(start[i] % WORD)
                high = ones >> np.uint64(WORD - 1 - (stop[i] - 1) % WORD)
                if head == tail:
                    out[row, head] |= low & high
                else:
                    out[row, head] |= low
                    out[row, head + 1 : tail] = ones
                    out[row, tail] |= high
