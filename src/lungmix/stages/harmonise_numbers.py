"""Numbers by which a scan is harmonised: gains of its frequency bands, HU of its air and blood.

They are measured before there is a mask. Where lungs, trachea and aorta are is decided on the reduced copy of the scan,
on which reconstruction kernels have little effect.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lungmix.kernels.air_blood import measure_air_blood
from lungmix.kernels.anatomical.airway import find_trachea
from lungmix.kernels.anatomical.candidates import find_lungs
from lungmix.kernels.aorta import find_aorta
from lungmix.kernels.frequency_bands import BANDS_MM, BandSums, Gains, chosen_slices, filled, find_gains, has_bands
from lungmix.kernels.harmonisation import Harmonisation
from lungmix.kernels.quality import within_plane
from lungmix.kernels.trachea import Indices, Mask, part_of_trachea
from lungmix.parameters import AIR_BLOOD, ANATOMICAL_HU, KERNEL, HarmoniseParameters
from lungmix.stages.anatomical import grid_of
from lungmix.stages.reduced import reduced_hu
from lungmix.store import CaseFiles


def find_harmonisation(case: CaseFiles, parameters: HarmoniseParameters) -> Harmonisation:
    """Return the harmonisation of a converted case."""
    axial = case.geometry.axial
    grid = grid_of(axial)
    spacing = grid.reduction.spacing(axial.spacing_zyx)
    reduced = reduced_hu(case, grid, "ct")
    reduced_index = grid.indices(reduced.shape, [np.arange(n) for n in axial.shape])
    air = reduced < ANATOMICAL_HU
    lungs = find_lungs(reduced, air, spacing)
    harmonisation = Harmonisation()
    if KERNEL in parameters.methods:
        gains = _find_gains(case, lungs, reduced_index, parameters.reference)
        harmonisation = Harmonisation(problem=gains) if isinstance(gains, str) else Harmonisation(gains)
    if AIR_BLOOD not in parameters.methods:
        return harmonisation
    tube = find_trachea(reduced, air, lungs, spacing)
    core = within_plane(tube, 0)
    hu: npt.NDArray[np.int16] = np.zeros((0, 0, 0), np.int16)
    inside: Mask = np.zeros((0, 0, 0), np.bool_)
    if core.any():
        (slices, rows, columns), inside = part_of_trachea(core, reduced_index, spacing[0])
        planes = _axial_planes(case, range(slices.start, slices.stop))
        hu = harmonisation.apply(planes, axial.spacing_zyx[1:])[:, rows, columns]
    air_blood = measure_air_blood(hu, inside, find_aorta(reduced, tube, spacing))
    return Harmonisation(harmonisation.gains, air_blood, harmonisation.problem)


def _find_gains(
    case: CaseFiles, lungs: Mask, reduced_index: Sequence[Indices], reference: Sequence[float]
) -> Gains | str:
    """Return the gains of frequency bands, or the reason why there are none."""
    spacing = case.geometry.axial.spacing_zyx[1:]
    if not any(has_bands(spacing)):
        return f"its pixels of {max(spacing):.2g} mm are wider than {2 * max(BANDS_MM):g} mm"
    if not lungs.any():
        return "no lungs were found on a reduced copy of the scan"
    z, y, x = reduced_index
    chosen = chosen_slices(lungs[index].any() for index in z)
    sums = BandSums.empty()
    for index, hu in zip(chosen, _axial_planes(case, chosen), strict=True):
        sums += BandSums.of(filled(hu), lungs[z[index]][np.ix_(y, x)], spacing)
    return find_gains(sums, spacing, reference)


def _axial_planes(case: CaseFiles, chosen: Sequence[int]) -> npt.NDArray[np.int16]:
    """Return some axial slices of a scan, counted from the feet: int16 ``[slices, y, x]``; the image is read once."""
    order = case.geometry.axis_order
    axis, depth = order.cranial_axis, case.geometry.axial.shape[0]
    stored = np.sort([depth - 1 - index if order.flipped[axis] else index for index in chosen])
    parts = []
    for start, stop in case.layout.slabs():
        if axis != 0:
            parts.append(np.take(case.read("ct", start, stop), stored, axis))
        elif (within := stored[(stored >= start) & (stored < stop)]).size:
            parts.append(case.read("ct", start, stop)[within - start])
    return np.ascontiguousarray(order.to_axial(np.concatenate(parts)), np.int16)
