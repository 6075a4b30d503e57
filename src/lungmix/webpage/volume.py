"""A scan small enough for a page: fewer voxels, cropped to the body, turned so that all scans face the same way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.store import Case
from lungmix.store.chunking import Level

VOXELS = 2_000_000
"""About as many as compress to a few hundred kB."""

LOWEST_HU = -1150
STEP_HU = 6
"""Grey ``g`` stands for ``LOWEST_HU + STEP_HU * g`` HU; 255 for 380 HU and more."""

CLASSES = 6
"""Voxel-wise label ``a`` and median label ``b`` of a voxel are kept together, as ``CLASSES * a + b``."""

_BODY_HU = -500
_COARSE = 1.25
_ENDS = ("RL", "AP", "IS")
_OBLIQUE = 0.26

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Axis:
    """An axis of a preview.

    Attributes
    ----------
    name : str
        The axis of the stored array that it is: x, y or z.
    size : int
        Voxels along it in the store.
    first, step : float
        Index in the store of the first voxel of the preview, and from one to the next; negative where it is flipped.
    spacing : float
        Of the preview, mm.
    ends : tuple of str
        Patient's directions at its begin and end, such as ``("R", "L")``; two letters where the scan is oblique.
    """

    name: str
    size: int
    first: float
    step: float
    spacing: float
    ends: tuple[str, str]


@dataclass(frozen=True)
class Preview:
    """A reduced scan with axes from inferior to superior, anterior to posterior, right to left.

    Attributes
    ----------
    grey : ndarray of uint8, shape (z, y, x)
        HU, see `STEP_HU`.
    labels : ndarray of uint8, shape (z, y, x)
        Both label maps, see `CLASSES`.
    axes : tuple of Axis
        Of z, y, x.
    """

    grey: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    axes: tuple[Axis, Axis, Axis]


def preview_of(case: Case, voxels: int = VOXELS) -> Preview:
    """Reduce a labelled case, slab by slab from the coarsest level that is fine enough.

    Parameters
    ----------
    case : Case
        With labels.
    voxels : int
        About as many, fewer where the scan has fewer.
    """
    box = _body(case)
    wanted = _sizes(box, case.geometry.spacing_zyx, voxels)
    index, level = _level(case, box, wanted)
    cut = _on(level, box)
    sizes = tuple(min(n, s.stop - s.start) for n, s in zip(wanted, cut, strict=True))
    weights = [_area_weights(s.stop - s.start, n) for n, s in zip(sizes, cut, strict=True)]
    nearest = [((np.arange(n) + 0.5) * (s.stop - s.start) / n).astype(int) for n, s in zip(sizes, cut, strict=True)]
    mean = np.zeros(sizes, np.float32)
    ct = case.zarr_array("ct", index)
    for begin, end in _runs(level, cut):
        hu = np.clip(ct[(slice(begin, end), *cut[1:])], LOWEST_HU, LOWEST_HU + 255 * STEP_HU).astype(np.float32)
        part = weights[0][:, begin - cut[0].start : end - cut[0].start]
        touched = np.flatnonzero(part.any(axis=1))
        mean[touched] += np.tensordot(part[touched], weights[1] @ (hu @ weights[2].T), axes=(1, 0))
    grey = np.rint((mean - LOWEST_HU) / STEP_HU).clip(0, 255).astype(np.uint8)
    labels = np.zeros(sizes, np.uint8)
    for name, factor in (("tissue", CLASSES), ("tissue_median", 1)):
        source = case.zarr_array(name, index)
        for begin, end in _runs(level, cut):
            inside = (nearest[0] + cut[0].start >= begin) & (nearest[0] + cut[0].start < end)
            slab = np.asarray(source[(slice(begin, end), *cut[1:])])
            chosen = slab[np.ix_(nearest[0][inside] + cut[0].start - begin, nearest[1], nearest[2])]
            labels[inside] += np.uint8(factor) * np.minimum(chosen, CLASSES - 1)
    return _face(Preview(grey, labels, _axes(case.geometry, level, cut, sizes)), case.geometry)


def _body(case: Case) -> Box:
    """Where the patient is, in voxels of level 0: whole slices are kept, air and most of the table around are not."""
    last = len(case.layout.levels) - 1
    level, shape = case.layout.levels[last], case.geometry.shape
    rows, columns = np.zeros(level.shape[1], np.int64), np.zeros(level.shape[2], np.int64)
    source = case.zarr_array("ct", last)
    for begin in range(0, level.shape[0], level.shards[0]):
        dense = np.asarray(source[begin : begin + level.shards[0]]) > _BODY_HU
        rows += dense.sum(axis=(0, 2))
        columns += dense.sum(axis=(0, 1))
    box = [slice(0, shape[0])]
    for profile, n, factor in zip((rows, columns), shape[1:], level.factors[1:], strict=True):
        found = np.flatnonzero(profile > 0.02 * profile.max())
        first, stop = (found[0], found[-1] + 1) if len(found) else (0, len(profile))
        margin = len(profile) // 32 + 1
        box.append(slice(max(0, int(first - margin) * factor), min(n, int(stop + margin) * factor)))
    return box[0], box[1], box[2]


def _sizes(box: Box, spacing: tuple[float, float, float], voxels: int) -> tuple[int, int, int]:
    """Voxels along each axis: equal spacing, but nowhere finer than the scan's."""
    counts = [s.stop - s.start for s in box]
    out, free, left = list(counts), [0, 1, 2], float(voxels)
    while free:
        edge = (np.prod([counts[i] * spacing[i] for i in free]) / left) ** (1 / len(free))
        coarse = [i for i in free if spacing[i] >= edge]
        if not coarse:
            for i in free:
                out[i] = max(1, round(counts[i] * spacing[i] / edge))
            break
        for i in coarse:
            left = max(left / counts[i], 1.0)
            free.remove(i)
    return out[0], out[1], out[2]


def _level(case: Case, box: Box, wanted: tuple[int, int, int]) -> tuple[int, Level]:
    found = 0
    for index, level in enumerate(case.layout.levels):
        steps = [(s.stop - s.start) / n for s, n in zip(box, wanted, strict=True)]
        if all(factor <= _COARSE * step for factor, step in zip(level.factors, steps, strict=True)):
            found = index
    return found, case.layout.levels[found]


def _on(level: Level, box: Box) -> Box:
    z, y, x = (
        slice(s.start // f, min(n, -(-s.stop // f))) for s, f, n in zip(box, level.factors, level.shape, strict=True)
    )
    return z, y, x


def _runs(level: Level, cut: Box) -> Iterator[tuple[int, int]]:
    for begin in range(cut[0].start, cut[0].stop, level.shards[0]):
        yield begin, min(begin + level.shards[0], cut[0].stop)


def _area_weights(size: int, n: int) -> npt.NDArray[np.float32]:
    """Shares of `size` voxels in `n` wider ones of equal width: shape (n, size), rows add up to 1."""
    edges = np.linspace(0, size, n + 1)
    left = np.maximum(edges[:-1, None], np.arange(size))
    right = np.minimum(edges[1:, None], np.arange(size) + 1)
    return (np.maximum(right - left, 0) * n / size).astype(np.float32)


def _axes(geometry: Geometry, level: Level, cut: Box, sizes: tuple[int, ...]) -> tuple[Axis, Axis, Axis]:
    out = []
    for i, name in enumerate("zyx"):
        factor, part = level.factors[i], cut[i]
        step = factor * (part.stop - part.start) / sizes[i]
        first = min(part.start * factor + (step - 1) / 2, geometry.shape[i] - 1)
        out.append(
            Axis(name, geometry.shape[i], first, step, step * geometry.spacing_zyx[i], _ends_of(geometry, 2 - i))
        )
    return out[0], out[1], out[2]


def _ends_of(geometry: Geometry, column: int) -> tuple[str, str]:
    """Return letters at the begin and the end of an axis, the nearest direction first; none where it is not known."""
    if not geometry.orientation_known:
        return "", ""
    along = np.reshape(geometry.direction, (3, 3))[:, column]
    near = [i for i in np.argsort(-np.abs(along), kind="stable") if abs(along[i]) > _OBLIQUE]
    end = "".join(_ENDS[i][int(along[i] > 0)] for i in near)
    begin = "".join(_ENDS[i][int(along[i] < 0)] for i in near)
    return begin, end


def _face(preview: Preview, geometry: Geometry) -> Preview:
    """Turn the array, without resampling, so that its axes go to superior, posterior and left."""
    order = geometry.axis_order
    flips = order.by_patient(order.flipped)
    turn = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    grey, labels = (np.ascontiguousarray(a.transpose(order.axes)[turn]) for a in (preview.grey, preview.labels))
    axes = []
    for i, flip in zip(order.axes, flips, strict=True):
        axis, n = preview.axes[i], preview.grey.shape[i]
        if flip:
            last = axis.first + axis.step * (n - 1)
            axis = Axis(axis.name, axis.size, last, -axis.step, axis.spacing, (axis.ends[1], axis.ends[0]))
        axes.append(axis)
    return Preview(grey, labels, (axes[0], axes[1], axes[2]))
