"""Previews of scans for the viewer of the report: with fewer voxels, cropped to the body, in the axial orientation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lungmix.geometry import Geometry
from lungmix.kernels.labels import look_up
from lungmix.store import Case
from lungmix.store.case import posterior_table
from lungmix.store.chunking import Level
from lungmix.store.schema import LABEL, POTTS_RECORD

VOXELS = 2_000_000
"""Approximate number of voxels of a preview, which compresses to a few hundred kB."""

LOWEST_HU = -1150
STEP_HU = 6
"""Grey value ``g`` is ``LOWEST_HU + STEP_HU * g`` HU; 255 is 380 HU and more."""

CLASSES = 6
"""Voxel-wise label ``a`` and median-filtered label ``b`` of a voxel are stored as ``CLASSES * a + b``."""

POSTERIOR_STEPS = 50
"""Value of a posterior of 1."""

_BODY_HU = -500
_COARSE = 1.25
_ENDS = ("RL", "AP", "IS")
_OBLIQUE = 0.26

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Axis:
    """Axis of a preview.

    Attributes
    ----------
    name : str
        Name of the axis of the stored array: x, y or z.
    size : int
        Number of voxels of the stored array along the axis.
    first, step : float
        Index in the stored array of the first voxel of the preview, and difference of this index from one voxel of the
        preview to the next, which is negative for a flipped axis.
    spacing : float
        Distance of voxels of the preview, mm.
    ends : tuple of str
        Patient directions at the two ends of the axis, such as ``("R", "L")``; with two or three letters per end for
        an oblique axis.
    """

    name: str
    size: int
    first: float
    step: float
    spacing: float
    ends: tuple[str, str]


@dataclass(frozen=True)
class Preview:
    """Reduced scan, whose axes z, y, x run to the head, to the back and to the left of the patient.

    Attributes
    ----------
    grey : ndarray of uint8, shape (z, y, x)
        Grey values; see `STEP_HU`.
    labels : ndarray of uint8, shape (z, y, x)
        Tissue labels and median-filtered labels, combined as in `CLASSES`.
    axes : tuple of Axis
        The axes z, y, x.
    posterior : ndarray of uint8, shape (z, y, x), or None
        Mean posterior of one tissue, in steps of 1 / `POSTERIOR_STEPS`.
    potts : ndarray of uint8, shape (z, y, x), or None
        Tissue labels under a Potts prior, if the case has them.
    """

    grey: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    axes: tuple[Axis, Axis, Axis]
    posterior: npt.NDArray[np.uint8] | None = None
    potts: npt.NDArray[np.uint8] | None = None


def preview_of(case: Case, voxels: int = VOXELS, posterior: str | None = None) -> Preview:
    """Return the preview of a labelled case.

    It is read slab by slab, from the coarsest level of the images whose voxels are at most 1.25 times as wide as those
    of the preview.

    Parameters
    ----------
    case : Case
        Labelled case.
    voxels : int
        Approximate number of voxels; the preview is never finer than the scan.
    posterior : str, optional
        Tissue whose posteriors the preview contains. They are averaged at full resolution: the posterior at the mean HU
        of a reduced voxel is not the mean posterior of its voxels.
    """
    grid = _grid_of(case, voxels)
    weights = [_area_weights(part.stop - part.start, n) for n, part in zip(grid.sizes, grid.cut, strict=True)]
    mean = np.zeros(grid.sizes, np.float32)
    ct = case.zarr_array("ct", grid.index)
    for begin, end in _slabs(grid.level, grid.cut):
        hu = np.clip(ct[(slice(begin, end), *grid.cut[1:])], LOWEST_HU, LOWEST_HU + 255 * STEP_HU).astype(np.float32)
        slab_weights = weights[0][:, begin - grid.cut[0].start : end - grid.cut[0].start]
        touched = np.flatnonzero(slab_weights.any(axis=1))
        mean[touched] += np.tensordot(slab_weights[touched], weights[1] @ (hu @ weights[2].T), axes=(1, 0))
    grey = np.rint((mean - LOWEST_HU) / STEP_HU).clip(0, 255).astype(np.uint8)

    def labels_of(name: str) -> npt.NDArray[np.uint8]:
        return np.minimum(_nearest_labels(case, name, grid), np.uint8(CLASSES - 1))

    labels = np.uint8(CLASSES) * labels_of("tissue") + labels_of("tissue_median")
    potts = labels_of("tissue_potts") if has_potts(case) else None
    shares = None if posterior is None else _mean_posterior(case, posterior, grid.level, grid.cut, grid.sizes)
    return _reorient(Preview(grey, labels, _axes(case.geometry, grid), shares, potts), case.geometry)


def axes_of(case: Case, voxels: int = VOXELS) -> tuple[Axis, Axis, Axis]:
    """Return the axes of the preview of a case."""
    grid = _grid_of(case, voxels)
    return _reoriented_axes(_axes(case.geometry, grid), grid.sizes, case.geometry)


def labels_on_preview(case: Case, source: Case, name: str, voxels: int = VOXELS) -> npt.NDArray[np.uint8]:
    """Return a label map on the voxels of the preview of a case: the label of the nearest voxel.

    Parameters
    ----------
    case : Case
        Case of the preview.
    source : Case
        Case that holds the label map, whose grid is that of the scan of `case`.
    name : str
        Name of the label map.
    voxels : int
        Approximate number of voxels of the preview.
    """
    labels = _nearest_labels(source, name, _grid_of(case, voxels))
    return _axial(labels, case.geometry)


def has_potts(case: Case) -> bool:
    """Return True if a labelled case has labels under a Potts prior."""
    return POTTS_RECORD in case.stages.get(LABEL, {})


def _mean_posterior(case: Case, tissue: str, level: Level, cut: Box, sizes: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return the mean posterior of a tissue over each voxel of a preview, in steps of 1 / `POSTERIOR_STEPS`.

    It is 0 outside the mask, so a voxel at the border of a lung has less.
    """
    table = posterior_table(case, tissue).astype(np.float32)
    full = case.layout.levels[0]
    weights = []
    for n, part, factor, size in zip(sizes, cut, level.factors, full.shape, strict=True):
        # The last voxel of a level may lie partly outside of the scan.
        inside = _area_weights((part.stop - part.start) * factor, n)[:, : size - part.start * factor]
        weights.append(inside / inside.sum(axis=1, keepdims=True))
    z, y, x = (
        slice(part.start * factor, min(size, part.stop * factor))
        for part, factor, size in zip(cut, level.factors, full.shape, strict=True)
    )
    mean = np.zeros(sizes, np.float32)
    ct, lung = case.zarr_array(case.measured_image), case.zarr_array("lung")
    for begin, end in _slabs(full, (z, y, x)):
        mask = lung[begin:end, y, x]
        if mask.any():
            shares = look_up(ct[begin:end, y, x], mask, table)
            slab_weights = weights[0][:, begin - z.start : end - z.start]
            touched = np.flatnonzero(slab_weights.any(axis=1))
            reduced = weights[1] @ (shares @ weights[2].T)
            mean[touched] += np.tensordot(slab_weights[touched], reduced, axes=(1, 0))
    return np.rint(POSTERIOR_STEPS * mean).clip(0, POSTERIOR_STEPS).astype(np.uint8)


@dataclass(frozen=True)
class _Grid:
    """Voxels of a preview before its axes are permuted: parts of equal size of a box on a level of the images."""

    index: int
    level: Level
    cut: Box
    sizes: tuple[int, int, int]

    @property
    def nearest(self) -> list[npt.NDArray[np.intp]]:
        """Index on the level of the voxel that is nearest to each voxel of the preview, along each axis."""
        return [
            part.start + ((np.arange(n) + 0.5) * (part.stop - part.start) / n).astype(np.intp)
            for n, part in zip(self.sizes, self.cut, strict=True)
        ]


def _grid_of(case: Case, voxels: int) -> _Grid:
    box = _body(case)
    target = _sizes(box, case.geometry.spacing_zyx, voxels)
    index, level = _level(case, box, target)
    cut = _box_on(level, box)
    z, y, x = (min(n, part.stop - part.start) for n, part in zip(target, cut, strict=True))
    return _Grid(index, level, cut, (z, y, x))


def _nearest_labels(case: Case, name: str, grid: _Grid) -> npt.NDArray[np.uint8]:
    labels = np.zeros(grid.sizes, np.uint8)
    source, (planes, rows, columns) = case.zarr_array(name, grid.index), grid.nearest
    for begin, end in _slabs(grid.level, grid.cut):
        inside = (planes >= begin) & (planes < end)
        slab = np.asarray(source[(slice(begin, end), *grid.cut[1:])])
        labels[inside] = slab[np.ix_(planes[inside] - begin, rows - grid.cut[1].start, columns - grid.cut[2].start)]
    return labels


def _body(case: Case) -> Box:
    """Return the box that contains the patient, in voxels of the scan.

    It contains all slices, and the rows and columns without the surrounding air and most of the table.
    """
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
        inside = np.flatnonzero(profile > 0.02 * profile.max())
        first, stop = (inside[0], inside[-1] + 1) if len(inside) else (0, len(profile))
        margin = len(profile) // 32 + 1
        box.append(slice(max(0, int(first - margin) * factor), min(n, int(stop + margin) * factor)))
    return box[0], box[1], box[2]


def _sizes(box: Box, spacing: tuple[float, float, float], voxels: int) -> tuple[int, int, int]:
    """Return the number of voxels of a preview along each axis, about `voxels` in all.

    The spacing is equal along all axes, but never finer than the spacing of the scan.
    """
    counts = [s.stop - s.start for s in box]
    out, free, budget = list(counts), [0, 1, 2], float(voxels)
    while free:
        edge = (np.prod([counts[i] * spacing[i] for i in free]) / budget) ** (1 / len(free))
        coarse = [i for i in free if spacing[i] >= edge]
        if not coarse:
            for i in free:
                out[i] = max(1, round(counts[i] * spacing[i] / edge))
            break
        for i in coarse:
            budget = max(budget / counts[i], 1.0)
            free.remove(i)
    return out[0], out[1], out[2]


def _level(case: Case, box: Box, sizes: tuple[int, int, int]) -> tuple[int, Level]:
    coarsest = 0
    for index, level in enumerate(case.layout.levels):
        steps = [(s.stop - s.start) / n for s, n in zip(box, sizes, strict=True)]
        if all(factor <= _COARSE * step for factor, step in zip(level.factors, steps, strict=True)):
            coarsest = index
    return coarsest, case.layout.levels[coarsest]


def _box_on(level: Level, box: Box) -> Box:
    z, y, x = (
        slice(s.start // f, min(n, -(-s.stop // f))) for s, f, n in zip(box, level.factors, level.shape, strict=True)
    )
    return z, y, x


def _slabs(level: Level, cut: Box) -> Iterator[tuple[int, int]]:
    for begin in range(cut[0].start, cut[0].stop, level.shards[0]):
        yield begin, min(begin + level.shards[0], cut[0].stop)


def _area_weights(size: int, n: int) -> npt.NDArray[np.float32]:
    """Return the weights for means over `n` equal parts of `size` voxels: shape (n, size), each row has the sum 1."""
    edges = np.linspace(0, size, n + 1)
    left = np.maximum(edges[:-1, None], np.arange(size))
    right = np.minimum(edges[1:, None], np.arange(size) + 1)
    return (np.maximum(right - left, 0) * n / size).astype(np.float32)


def _axes(geometry: Geometry, grid: _Grid) -> tuple[Axis, Axis, Axis]:
    out = []
    for i, name in enumerate("zyx"):
        factor, part = grid.level.factors[i], grid.cut[i]
        step = factor * (part.stop - part.start) / grid.sizes[i]
        first = min(part.start * factor + (step - 1) / 2, geometry.shape[i] - 1)
        out.append(
            Axis(name, geometry.shape[i], first, step, step * geometry.spacing_zyx[i], _ends_of(geometry, 2 - i))
        )
    return out[0], out[1], out[2]


def _ends_of(geometry: Geometry, column: int) -> tuple[str, str]:
    """Return letters of the patient directions at the two ends of an axis; empty if the orientation is unknown.

    An oblique axis has several letters per end, the nearest direction first.
    """
    if not geometry.orientation_known:
        return "", ""
    along = np.reshape(geometry.direction, (3, 3))[:, column]
    near = [i for i in np.argsort(-np.abs(along), kind="stable") if abs(along[i]) > _OBLIQUE]
    end = "".join(_ENDS[i][int(along[i] > 0)] for i in near)
    begin = "".join(_ENDS[i][int(along[i] < 0)] for i in near)
    return begin, end


def _reorient(preview: Preview, geometry: Geometry) -> Preview:
    """Permute and flip the axes of a preview, so that they run to the head, to the back and to the left."""
    return Preview(
        _axial(preview.grey, geometry),
        _axial(preview.labels, geometry),
        _reoriented_axes(preview.axes, preview.grey.shape, geometry),
        None if preview.posterior is None else _axial(preview.posterior, geometry),
        None if preview.potts is None else _axial(preview.potts, geometry),
    )


def _axial(volume: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(geometry.axis_order.to_axial(volume))


def _reoriented_axes(stored: Sequence[Axis], sizes: Sequence[int], geometry: Geometry) -> tuple[Axis, Axis, Axis]:
    order, axes = geometry.axis_order, []
    for i in order.axes:
        axis, last = stored[i], stored[i].first + stored[i].step * (sizes[i] - 1)
        if order.flipped[i]:
            axis = replace(axis, first=last, step=-axis.step, ends=(axis.ends[1], axis.ends[0]))
        axes.append(axis)
    return axes[0], axes[1], axes[2]
