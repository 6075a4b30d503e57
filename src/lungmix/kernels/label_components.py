"""Clean-up of label maps: each label keeps its largest component, and the holes in it are filled.

The smaller components of a label get the labels of their neighbours. The result is the same in every voxel as that of
`lungmask.utils.postprocessing`, which needs the whole volume in memory. Here the labels are read slab by slab, and only
tables are kept: the components, and which of them touch.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph

Labels = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.int64]
Reader = Callable[[int, int], Labels]
"""Function ``read(start, stop)`` that returns slices ``start`` to ``stop - 1`` of the labels, uint8 ``[z, y, x]``."""

SMALLEST_MERGED = 3
"""Smallest component, in voxels, that gets the label of a neighbour; smaller ones are removed."""

FLAT_HOLE = 64
"""Smallest hole, in pixels, that is not filled if the volume is a single slice."""

_ALL_26 = np.ones((3, 3, 3), np.bool_)
_FACES = [(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)]
_HALF_26 = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@dataclass(frozen=True, eq=False)
class CleanUp:
    """Tables with which the labels of each slab are cleaned.

    Attributes
    ----------
    thickness : int
        Number of slices in a slab.
    labels : tuple of ndarray
        For each slab, the cleaned label of each component of the slab, by the number of the component.
    holes : dict of int to tuple of ndarray
        For each cleaned label, and for each slab: True for each component of the voxels without this label that is a
        hole in the label.
    """

    thickness: int
    labels: tuple[Labels, ...]
    holes: dict[int, tuple[npt.NDArray[np.bool_], ...]]

    def apply(self, start: int, labels: Labels) -> Labels:
        """Return the cleaned labels of one or more complete slabs; `labels` begins at slice `start` of the volume."""
        cleaned = np.zeros_like(labels)
        for begin in range(0, len(labels), self.thickness):
            index = (start + begin) // self.thickness
            span = slice(begin, begin + self.thickness)
            largest = self.labels[index][_components(labels[span])]
            for label, holes in self.holes.items():
                cleaned[span][(largest == label) | holes[index][_outside(largest == label)]] = label
        return cleaned


def find_clean_up(read: Reader, depth: int, thickness: int) -> CleanUp:
    """Return the tables with which a label map is cleaned.

    Components of a label are connected by faces, edges and corners. From the smallest to the largest, each component
    that is smaller than the largest one of its label is merged with a neighbour, and gets its label. Of several
    neighbours, it is the one with most voxels that share a face with the component. Then the largest component of each
    label is kept, and its holes are filled. Labels are filled in ascending order: voxels in a hole of a higher label
    get that label, even if they have a lower one.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` returns slices ``start`` to ``stop - 1`` of the labels.
    depth : int
        Number of slices of the volume.
    thickness : int
        Number of slices in a slab, which are read at once. The cleaned labels do not depend on it.
    """
    spans = [(start, min(start + thickness, depth)) for start in range(0, depth, thickness)]
    table = _ComponentTable()
    for start, stop in spans:
        table.add(read(start, stop), is_last=stop == depth)
    labels = table.cleaned_labels()
    holes = {}
    for label in sorted({int(value) for values in labels for value in np.unique(values)} - {0}):
        background = _Background(depth)
        for index, (start, stop) in enumerate(spans):
            background.add(labels[index][_components(read(start, stop))] == label)
        holes[label] = background.holes()
    return CleanUp(thickness, tuple(labels), holes)


def _components(labels: Labels) -> npt.NDArray[np.int32]:
    """Return the number of the component of each voxel of a slab, from 1 on over all labels; 0 for the background."""
    ids = np.zeros(labels.shape, np.int32)
    count = 0
    for label in np.flatnonzero(np.bincount(labels.reshape(-1), minlength=1)[1:]) + 1:
        selected = labels == label
        numbered, n_components = ndimage.label(selected, _ALL_26)
        ids[selected] = numbered[selected] + count
        count += n_components
    return ids


def _outside(selected: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return the component number of each voxel that is not selected, connected by faces; 0 for selected voxels."""
    return ndimage.label(~selected)[0]


class _ComponentTable:
    """Components of a label map, and which of them touch components of other labels, collected slab by slab."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._areas: list[Ids] = []
        self._values: list[Labels] = []
        self._firsts: list[Ids] = []
        self._joined: list[Ids] = []
        self._touching: list[Ids] = []
        self._contacts: list[Ids] = []
        self._tail_ids = np.zeros((0, 0, 0), np.int64)
        self._tail_labels = np.zeros((0, 0, 0), np.uint8)
        self._voxels = 0

    def add(self, labels: Labels, *, is_last: bool) -> None:
        """Add the next slab."""
        local = _components(labels)
        count, offset = int(local.max(initial=0)), sum(self._counts)
        positions = np.flatnonzero(local)[::-1]
        numbers = local.reshape(-1)[positions] - 1
        firsts, values = np.zeros(count, np.int64), np.zeros(count, np.uint8)
        # Positions descend, so that the last value assigned to a component is that of its first voxel.
        firsts[numbers] = positions + self._voxels
        values[numbers] = labels.reshape(-1)[positions]
        self._counts.append(count)
        self._areas.append(np.bincount(numbers, minlength=count))
        self._values.append(values)
        self._firsts.append(firsts)
        self._voxels += labels.size
        ids = np.where(local > 0, local + np.int64(offset), 0)
        before = len(self._tail_labels)
        if before:
            ids = np.concatenate([self._tail_ids, ids])
            labels = np.concatenate([self._tail_labels, labels])
            self._joined.append(_pairs_across(ids, labels, before))
        # Start with the last slice of the previous slab, whose contacts upwards are known only now.
        first = max(before - 1, 0)
        self._touching.append(_touching_pairs(ids[first:], labels[first:]))
        self._contacts.append(_contact_rows(ids, labels, first, len(ids) if is_last else len(ids) - 1))
        self._tail_ids, self._tail_labels = ids[-2:].copy(), labels[-2:].copy()

    def cleaned_labels(self) -> list[Labels]:
        """Return for each slab the cleaned label of each component; 0 for the background and removed components."""
        total = sum(self._counts)
        joined = _stack(self._joined, 2) - 1
        count, numbers = _connected(total, joined)
        firsts = np.full(count, self._voxels, np.int64)
        np.minimum.at(firsts, numbers, _join(self._firsts))
        # Number components in the order of their first voxels, as lungmask does. The numbers matter for equal sizes.
        rank = np.empty(count, np.int64)
        rank[np.argsort(firsts)] = np.arange(count)
        numbers = rank[numbers]
        areas = np.bincount(numbers, _join(self._areas), count).astype(np.int64)
        values = np.zeros(count, np.uint8)
        values[numbers] = _join(self._values)
        resolved = np.concatenate([[-1], numbers])
        contacts = [
            (row[0], frozenset(row[1:]) - {-1}, int(times))
            for row, times in _unique_rows(resolved[_stack(self._contacts, 7)])
        ]
        merged = _merge(areas, values, contacts)
        kept = _largest(merged, areas, resolved[_stack(self._touching, 2)])[numbers]
        edges = np.cumsum([0, *self._counts])
        return [np.concatenate([[0], kept[a:b]]).astype(np.uint8) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _merge(areas: Ids, values: Labels, contacts: Iterable[tuple[int, frozenset[int], int]]) -> Labels:
    """Return the label of each component after the smaller components of each label are merged with neighbours.

    Parameters
    ----------
    areas, values : ndarray
        Number of voxels, and label, of each component.
    contacts : iterable of (int, set of int, int)
        Each entry describes voxels of one component that touch the same other components: the component, the set of
        components that share a face with each of these voxels, and the number of these voxels.
    """
    order = np.argsort(areas, kind="stable").tolist()
    size = areas.tolist()
    largest: Counter[int] = Counter()
    label_of = [0] * len(size)
    for component in order:
        value = int(values[component])
        if size[component] > largest[value]:
            largest[value], label_of[component] = size[component], value
    owner = list(range(len(size)))
    members = {component: [component] for component in owner}
    rows = list(contacts)
    at_faces_of: dict[int, set[int]] = defaultdict(set)
    for index, (_, neighbours, _) in enumerate(rows):
        for neighbour in neighbours:
            at_faces_of[neighbour].add(index)
    for component in order:
        value = int(values[component])
        if not SMALLEST_MERGED <= size[component] < largest[value]:
            continue
        shared: Counter[int] = Counter()
        for index in at_faces_of[component]:
            other = owner[rows[index][0]]
            if other != component:
                shared[other] += rows[index][2]
        if not shared:
            continue
        target = min(shared, key=lambda other: (-shared[other], other))
        for member in members[component]:
            owner[member] = target
        members[target] += members.pop(component)
        at_faces_of[target] |= at_faces_of.pop(component)
        value = int(values[target])
        if size[target] == largest[value]:
            largest[value] += size[component]
        size[target] += size[component]
    return np.array([label_of[component] for component in owner], np.uint8)


def _largest(labels: Labels, areas: Ids, touching: Ids) -> Labels:
    """Return the label of each component that is in the largest connected part of its label; 0 for other components.

    `touching` lists the pairs of components that share a face, an edge or a corner.
    """
    same = labels[touching[:, 0]] == labels[touching[:, 1]]
    count, parts = _connected(len(labels), touching[same])
    sizes = np.bincount(parts, areas, count)
    kept = np.zeros_like(labels)
    for label in np.unique(labels[labels > 0]):
        members = np.flatnonzero(labels == label)
        # Of equally large parts, keep that with the last component.
        best = members[::-1][np.argmax(sizes[parts[members[::-1]]])]
        kept[(parts == parts[best]) & (labels == label)] = label
    return kept


class _Background:
    """Components of the voxels that do not have one label, and which reach the border, collected slab by slab."""

    def __init__(self, depth: int):
        self._depth = depth
        self._counts: list[int] = []
        self._areas: list[Ids] = []
        self._at_border: list[npt.NDArray[np.bool_]] = []
        self._joined: list[Ids] = []
        self._tail: npt.NDArray[np.int64] | None = None
        self._start = 0

    def add(self, selected: npt.NDArray[np.bool_]) -> None:
        """Add the next slab; `selected` is True for voxels that have the label."""
        local, offset = _outside(selected), sum(self._counts)
        count = int(local.max(initial=0))
        borders = [local[:, :1], local[:, -1:], local[..., :1], local[..., -1:]]
        if self._depth > 1:
            borders += [local[:1]] if not self._start else []
            borders += [local[-1:]] if self._start + len(local) == self._depth else []
        at_border = np.zeros(count + 1, np.bool_)
        for border in borders:
            at_border[border.reshape(-1)] = True
        ids = np.where(local > 0, local + np.int64(offset), 0)
        if self._tail is not None:
            both = (self._tail > 0) & (ids[0] > 0)
            self._joined.append(np.unique(np.stack([self._tail[both], ids[0][both]], axis=1), axis=0))
        self._counts.append(count)
        self._areas.append(np.bincount(local.reshape(-1), minlength=count + 1)[1:])
        self._at_border.append(at_border[1:])
        self._tail = ids[-1].copy()
        self._start += len(local)

    def holes(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """Return for each slab an array that is True for each component that is a hole in the label.

        Entry 0 stands for the label itself and is False.
        """
        count, numbers = _connected(sum(self._counts), _stack(self._joined, 2) - 1)
        is_open = np.zeros(count, np.bool_)
        is_open[numbers[_join(self._at_border).astype(np.bool_)]] = True
        if self._depth == 1:
            is_open |= np.bincount(numbers, _join(self._areas), count) >= FLAT_HOLE
        holes = ~is_open[numbers]
        edges = np.cumsum([0, *self._counts])
        return tuple(np.concatenate([[False], holes[a:b]]) for a, b in zip(edges[:-1], edges[1:], strict=True))


def _pairs_across(ids: Ids, labels: Labels, first: int) -> Ids:
    """Return the pairs of components with the same label that touch between slices ``first - 1`` and ``first``."""
    pairs = []
    for y, x in product((-1, 0, 1), repeat=2):
        before, after = _shifted(ids[first - 1], (y, x)), _shifted(ids[first], (-y, -x))
        same = _shifted(labels[first - 1], (y, x)) == _shifted(labels[first], (-y, -x))
        both = same & (before > 0)
        pairs.append(np.stack([before[both], after[both]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _touching_pairs(ids: Ids, labels: Labels) -> Ids:
    """Return the pairs of components with different labels that share a face, an edge or a corner."""
    pairs = []
    for step in _HALF_26:
        back = (-step[0], -step[1], -step[2])
        label, other = _shifted(labels, step), _shifted(labels, back)
        both = (label > 0) & (other > 0) & (label != other)
        if both.any():
            pairs.append(np.stack([_shifted(ids, step)[both], _shifted(ids, back)[both]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), np.int64)


def _contact_rows(ids: Ids, labels: Labels, start: int, stop: int) -> Ids:
    """Return a row of 7 for each voxel, in slices `start` to `stop - 1`, that shares a face with another label.

    A row holds the component of the voxel and then, sorted, the components at its six faces; 0 stands for the
    background and for the component of the voxel itself.
    """
    at_contact = np.zeros(labels.shape, np.bool_)
    for step in _FACES:
        back = (-step[0], -step[1], -step[2])
        label, other = _shifted(labels, step), _shifted(labels, back)
        _shifted(at_contact, step)[...] |= (label > 0) & (other > 0) & (label != other)
    z, y, x = np.nonzero(at_contact[start:stop])
    z += start
    rows = np.zeros((len(z), 7), np.int64)
    rows[:, 0] = ids[z, y, x]
    padded = np.pad(ids, 1)
    for column, (dz, dy, dx) in enumerate(_FACES, start=1):
        neighbours = padded[z + dz + 1, y + dy + 1, x + dx + 1]
        rows[:, column] = np.where(neighbours == rows[:, 0], 0, neighbours)
    rows[:, 1:].sort(axis=1)
    return rows


def _shifted(array: npt.NDArray[Any], step: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a view of the voxels of an array whose neighbour at the offset `step` is inside the array."""
    return array[tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(step, array.shape, strict=True))]


def _connected(count: int, pairs: Ids) -> tuple[int, Ids]:
    """Return the number of connected parts of a graph, and the part of each of its nodes."""
    graph = sparse.coo_array((np.ones(len(pairs), np.bool_), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    parts, numbers = csgraph.connected_components(graph, directed=False)
    return parts, numbers.astype(np.int64)


def _unique_rows(rows: Ids) -> Iterable[tuple[list[int], int]]:
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    return zip(unique.tolist(), counts.tolist(), strict=True)


def _join(arrays: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return np.concatenate([*arrays])


def _stack(arrays: list[Ids], columns: int) -> Ids:
    return np.concatenate([np.zeros((0, columns), np.int64), *arrays])
