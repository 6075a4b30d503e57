"""The lung mask of one volume in memory: threshold, opening, islands, closing.

Source: Zaffino et al. 2021, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.geometry import AxisOrder
from lungmix.kernels.components import ComponentTable, Merged, islands_of, label_runs, render_components
from lungmix.kernels.morphology import closing, opening
from lungmix.kernels.packed_masks import pack_below, unpack
from lungmix.kernels.structuring_elements import Element, ball, diamond, ellipsoid
from lungmix.parameters import (
    PAPER_MIN_VOXELS,
    PAPER_OPENING,
    PAPER_RADII,
    PHYSICAL_CLOSING_MM,
    PHYSICAL_MIN_ML,
    MaskParameters,
    opening_extent_mm,
    voxels_of_ml,
)

Mask = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class MaskRecipe:
    """The steps of the mask in voxels.

    Attributes
    ----------
    threshold : int
        Voxels below this HU are air.
    opening : Element
        Opens the air; a single point leaves it as it is.
    min_voxels : int
        Smaller islands are dropped.
    closings : tuple of Element
        Close what was kept, one after the other.
    cranial_axis : int
        Array axis from feet to head: islands may touch its ends, and no others.
    """

    threshold: int
    opening: Element
    min_voxels: int
    closings: tuple[Element, ...]
    cranial_axis: int = 0

    @property
    def halo(self) -> int:
        """Slices that the widest step looks at on each side."""
        return 2 * max(element.extent[0] for element in (self.opening, *self.closings))


def recipe_for(
    parameters: MaskParameters, spacing_zyx: Sequence[float] | None, order: AxisOrder | None = None
) -> MaskRecipe:
    """Return the steps of a preset on a grid, with what the user changed.

    Parameters
    ----------
    parameters : MaskParameters
        Preset and changes; changes are in voxels.
    spacing_zyx : sequence of float or None
        Voxel spacing along z, y, x in mm; the preset ``physical`` needs it.
    order : AxisOrder, optional
        How the array lies in the patient; by default axial.

    Raises
    ------
    UsageError
        If the spacing is needed and missing, or not positive.
    """
    order = order or AxisOrder()
    if parameters.preset == "physical":
        if spacing_zyx is None:
            raise UsageError("the preset 'physical' needs the spacing of the scan in mm: give spacing=(x, y, z)")
        if not all(0 < s < 1000 for s in spacing_zyx):
            raise UsageError(f"a spacing of {tuple(spacing_zyx)} mm is not possible: give positive millimetres")
        extent = opening_extent_mm(spacing_zyx)
        min_voxels = voxels_of_ml(PHYSICAL_MIN_ML, order.by_patient(spacing_zyx))
        closings: tuple[Element, ...] = (ellipsoid(PHYSICAL_CLOSING_MM, spacing_zyx),)
    else:
        extent = (PAPER_OPENING,) * 3
        min_voxels = PAPER_MIN_VOXELS
        closings = tuple(ball(radius) for radius in PAPER_RADII)
    if parameters.opening is not None:
        extent = (parameters.opening,) * 3
    if parameters.min_voxels is not None:
        min_voxels = parameters.min_voxels
    if parameters.radii is not None:
        closings = tuple(ball(radius) for radius in parameters.radii)
    return MaskRecipe(parameters.threshold, diamond(extent), min_voxels, closings, order.cranial_axis)


@dataclass(frozen=True)
class Found:
    """What the search for lungs saw, for messages.

    Attributes
    ----------
    islands : int
        Islands of air after the opening.
    largest : tuple of (int, bool)
        Voxels and edge contact of the largest ones, largest first.
    kept : int
        Islands kept.
    """

    islands: int
    largest: tuple[tuple[int, bool], ...]
    kept: int


def is_lung(islands: ComponentTable, min_voxels: int) -> npt.NDArray[np.bool_]:
    """Return which islands are lung: large enough, and clear of the first and last row and column of axial slices."""
    return np.asarray((islands.voxels >= min_voxels) & ~islands.touches_edge)


def describe(merged: Merged, keep: npt.NDArray[np.bool_]) -> Found:
    """Summary of the islands of a volume."""
    islands = merged.islands
    order = np.argsort(islands.voxels, kind="stable")[::-1][:5]
    largest = tuple((int(islands.voxels[i]), bool(islands.touches_edge[i])) for i in order)
    return Found(len(islands.voxels) + merged.unlisted, largest, int(keep.sum()))


def lung_mask(hu: npt.NDArray[np.int16], recipe: MaskRecipe) -> Mask:
    """Lung mask of a whole volume.

    Parameters
    ----------
    hu : ndarray of int, shape (z, y, x)
        HU. Padding below -1000 is air like everything below the threshold.
    recipe : MaskRecipe
        The steps.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1; all 0 where no island qualifies.
    """
    if 0 in hu.shape:
        return np.zeros(hu.shape, np.uint8)
    nx = hu.shape[2]
    runs = label_runs(opening(pack_below(hu, recipe.threshold), nx, recipe.opening), nx)
    lung = render_components(runs, is_lung(islands_of(runs, recipe.cranial_axis), recipe.min_voxels))
    for element in recipe.closings:
        lung = closing(lung, nx, element)
    return unpack(lung, nx)
