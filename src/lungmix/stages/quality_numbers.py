"""Numbers for quality control of a masked case, measured on its reduced copy and in voxels of its trachea.

The reduced copy (`lungmix.stages.reduced`) has voxels of about 4 mm. A part of the trachea is read at full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.quality import measure_reduced, statistics_in_slices
from lungmix.kernels.regions import Labels, Mask, Reduced
from lungmix.kernels.rejected_components import Rejected
from lungmix.stages.reduced import reduced_labels
from lungmix.store import CaseFiles

TRACHEA_MM = 20.0
"""Length of the part of the trachea that is read at full size; it lies in one or two stored slabs."""


def quality_numbers(
    case: CaseFiles, reduced: Reduced, regions: Labels | None, rejected: Sequence[Rejected]
) -> dict[str, Any]:
    """Return the numbers of quality control of a masked case by name, JSON-ready.

    Parameters
    ----------
    case : CaseFiles
        The case.
    reduced : Reduced
        Reduced copy of the case.
    regions : ndarray of uint8 or None
        Region of each voxel of the reduced copy; None if right and left are unknown.
    rejected : sequence of Rejected
        Components outside the mask that look like lung.
    """
    parts = None if case.region_counts is None else reduced_labels(case, "region")
    numbers, core = measure_reduced(reduced, regions, rejected, parts)
    values = {"lung_ml": round(int(case.hu_counts.sum()) * case.geometry.voxel_ml, 2), **numbers.to_dict()}
    if core.any():
        mean, noise = statistics_in_slices(*_trachea_voxels(case, core, reduced.factors))
        measured = {"tracheal_air_hu": mean, "noise_hu": noise}
        values |= {name: round(value, 2) for name, value in measured.items() if math.isfinite(value)}
    return values


def _trachea_voxels(
    case: CaseFiles, core: Mask, factors: tuple[int, int, int]
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_]]:
    """Return HU at full size in a box around a part of the trachea, and a mask of the voxels inside the trachea.

    Both have the axes of the axial array. `core` is the mask of the trachea on the reduced copy, without its wall, and
    `factors` are the voxels of the scan per reduced voxel along z, y, x.
    """
    geometry, order = case.geometry.axial, case.geometry.axis_order
    slices = np.flatnonzero(core.any(axis=(1, 2)))
    # Take a part above the middle, because the lower end of the tube can be a main bronchus.
    middle, length = int(slices[int(0.6 * (len(slices) - 1))]), TRACHEA_MM / (factors[0] * geometry.spacing_zyx[0])
    first = max(middle - int(length / 2), int(slices[0]))
    part = core[first : first + max(1, int(length))]
    rows, columns = (np.flatnonzero(part.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    part = part[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    starts = [n * factor for n, factor in zip((first, int(rows[0]), int(columns[0])), factors, strict=True)]
    stops = [
        min(start + n * factor, size)
        for start, n, factor, size in zip(starts, part.shape, factors, geometry.shape, strict=True)
    ]
    for axis, factor in enumerate(factors):
        part = part.repeat(factor, axis)
    part = part[tuple(slice(stop - start) for start, stop in zip(starts, stops, strict=True))]
    box = order.by_array([slice(start, stop) for start, stop in zip(starts, stops, strict=True)])
    stored = tuple(
        slice(n - span.stop, n - span.start) if flip else span
        for span, n, flip in zip(box, case.geometry.shape, order.flipped, strict=True)
    )
    return np.ascontiguousarray(order.to_axial(case.zarr_array("ct")[stored])), part
