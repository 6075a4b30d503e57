"""Numbers for quality control of a masked case, measured on its reduced copy and in voxels of its trachea.

The reduced copy (`lungmix.stages.reduced`) has voxels of about 4 mm. A part of the trachea is read at full size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.quality import measure_reduced, statistics_in_slices
from lungmix.kernels.regions import Labels, Mask, Reduced
from lungmix.kernels.rejected_components import Rejected
from lungmix.kernels.trachea import part_of_trachea
from lungmix.stages.reduced import reduced_copy, reduced_labels
from lungmix.store import CaseFiles


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
    if case.measured_image != "ct":
        # Quality control is of the scan, and harmonised HU are not its HU.
        reduced = replace(reduced, hu=reduced_copy(case, "ct").hu)
    parts = None if case.region_counts is None else reduced_labels(case, "region")
    numbers, core = measure_reduced(reduced, regions, rejected, parts)
    values = {"lung_ml": round(int(case.hu_counts.sum()) * case.geometry.voxel_ml, 2), **numbers.to_dict()}
    if core.any():
        mean, noise = statistics_in_slices(*_trachea_voxels(case, core, reduced.factors))
        measured = {"tracheal_air_hu": mean, "noise_hu": noise}
        values |= {name: round(value, 2) for name, value in measured.items() if math.isfinite(value)}
    return values


def _trachea_voxels(case: CaseFiles, core: Mask, factors: tuple[int, int, int]) -> tuple[npt.NDArray[np.int16], Mask]:
    """Return HU at full size in a box around a part of the trachea, and a mask of the voxels inside the trachea.

    Both have the axes of the axial array. `core` is the mask of the trachea on the reduced copy, without its wall, and
    `factors` are the voxels of the scan per reduced voxel along z, y, x.
    """
    geometry, order = case.geometry.axial, case.geometry.axis_order
    reduced_index = [np.arange(n) // factor for n, factor in zip(geometry.shape, factors, strict=True)]
    spans, inside = part_of_trachea(core, reduced_index, factors[0] * geometry.spacing_zyx[0])
    stored = tuple(
        slice(n - span.stop, n - span.start) if flip else span
        for span, n, flip in zip(order.by_array(spans), case.geometry.shape, order.flipped, strict=True)
    )
    return np.ascontiguousarray(order.to_axial(case.zarr_array("ct")[stored])), inside
