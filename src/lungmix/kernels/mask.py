"""Lung mask of a volume in memory: threshold, opening, selection of components, closing.

Source: Zaffino et al. 2021, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lungmix.errors import UsageError
from lungmix.geometry import AxisOrder
from lungmix.kernels.components import (
    ComponentTable,
    MergedComponents,
    label_runs,
    render_components,
    tabulate_components,
)
from lungmix.kernels.morphology import closing, opening
from lungmix.kernels.packed_masks import pack_below, unpack
from lungmix.kernels.structuring_elements import Element, ball, diamond, ellipsoid
from lungmix.parameters import (
    ANATOMICAL_COARSE_HU,
    ANATOMICAL_HU,
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
    """Parameters of the steps that make a lung mask, with sizes in voxels.

    Attributes
    ----------
    threshold : int
        Voxels below this HU are air.
    opening : Element
        Structuring element of the opening of the air; a single point leaves it unchanged.
    min_voxels : int
        Smallest component that is kept, in voxels.
    closings : tuple of Element
        Structuring elements of the successive closings of the lung.
    cranial_axis : int
        Array axis from feet to head. A lung may touch the first and last index along this axis, but not along others.
    """

    threshold: int
    opening: Element
    min_voxels: int
    closings: tuple[Element, ...]
    cranial_axis: int = 0

    @property
    def halo(self) -> int:
        """Number of slices on each side of a slab that the step with the largest element needs."""
        return 2 * max(element.extent[0] for element in (self.opening, *self.closings))


def recipe_for(
    parameters: MaskParameters, spacing_zyx: Sequence[float] | None, order: AxisOrder | None = None
) -> MaskRecipe:
    """Return the steps of a preset for a voxel spacing, with the changes of the user.

    Masks of the preset ``anatomical`` are made by other rules. Its recipe is that of ``physical``, whose closing is
    used to find right and left lung in masks that lungmix did not make.

    Parameters
    ----------
    parameters : MaskParameters
        Preset, and the sizes in voxels that the user changed.
    spacing_zyx : sequence of float or None
        Voxel spacing along z, y, x in mm; presets with sizes in mm need it.
    order : AxisOrder, optional
        Directions of the array axes in the patient; by default those of an axial array.

    Raises
    ------
    UsageError
        If the preset has sizes in mm and the spacing is missing or not positive.
    """
    order = order or AxisOrder()
    if parameters.preset != "paper":
        spacing_zyx = check_spacing(spacing_zyx, parameters.preset)
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
    return MaskRecipe(parameters.air_hu, diamond(extent), min_voxels, closings, order.cranial_axis)


def check_spacing(spacing_zyx: Sequence[float] | None, preset: str) -> Sequence[float]:
    """Return the spacing of a scan unchanged, after checking it; presets with sizes in mm need it.

    Raises
    ------
    UsageError
        If the spacing is missing or not positive.
    """
    if spacing_zyx is None:
        raise UsageError(f"the preset {preset!r} needs the spacing of the scan in mm: give spacing=(x, y, z)")
    if not all(0 < s < 1000 for s in spacing_zyx):
        raise UsageError(f"a spacing of {tuple(spacing_zyx)} mm is not possible: give positive millimetres")
    return spacing_zyx


WIDE_MM = 2.0
"""Width, mm, of voxels in the axial plane above which every voxel at the border of a lung mixes lung and tissue."""


def anatomical_threshold(parameters: MaskParameters, spacing_zyx: Sequence[float]) -> int:
    """Return the HU below which voxels are air in masks of the preset ``anatomical``.

    People draw the border of a lung where soft tissue begins, at about -300 HU. Wide voxels at the border all mix lung
    and soft tissue. There, the border is drawn where half of a voxel is lung, at -400 HU.

    Parameters
    ----------
    parameters : MaskParameters
        Parameters of the mask. A threshold other than -300 HU is returned unchanged.
    spacing_zyx : sequence of float
        Voxel spacing along the axes of the axial array, mm.
    """
    threshold = parameters.air_hu
    if threshold == ANATOMICAL_HU and min(spacing_zyx[1:]) > WIDE_MM:
        return ANATOMICAL_COARSE_HU
    return threshold


@dataclass(frozen=True)
class ComponentSummary:
    """Summary of the components of air after the opening, for messages.

    Attributes
    ----------
    components : int
        Number of components.
    largest : tuple of (int, bool)
        Number of voxels of each of the five largest components, in descending order, and whether it touches the edge
        of an axial slice.
    kept : int
        Number of components in the lung mask.
    """

    components: int
    largest: tuple[tuple[int, bool], ...]
    kept: int


def is_lung(components: ComponentTable, min_voxels: int) -> npt.NDArray[np.bool_]:
    """Return True for each component of at least `min_voxels` voxels that touches no edge of an axial slice."""
    return np.asarray((components.voxels >= min_voxels) & ~components.touches_edge)


def describe(merged: MergedComponents, keep: npt.NDArray[np.bool_]) -> ComponentSummary:
    """Return a summary of the components of a volume; `keep` is True for each component in the lung mask."""
    components = merged.components
    order = np.argsort(components.voxels, kind="stable")[::-1][:5]
    largest = tuple((int(components.voxels[i]), bool(components.touches_edge[i])) for i in order)
    return ComponentSummary(len(components.voxels) + merged.unlisted, largest, int(keep.sum()))


def lung_mask(hu: npt.NDArray[np.int16], recipe: MaskRecipe) -> Mask:
    """Return the lung mask of a volume.

    Parameters
    ----------
    hu : ndarray of int, shape (z, y, x)
        HU. Padding below -1000 is air, like all values below the threshold.
    recipe : MaskRecipe
        Parameters of the steps.

    Returns
    -------
    ndarray of uint8, shape (z, y, x)
        0 or 1; all 0 where no component is lung.
    """
    if 0 in hu.shape:
        return np.zeros(hu.shape, np.uint8)
    nx = hu.shape[2]
    runs = label_runs(opening(pack_below(hu, recipe.threshold), nx, recipe.opening), nx)
    lung = render_components(runs, is_lung(tabulate_components(runs, recipe.cranial_axis), recipe.min_voxels))
    for element in recipe.closings:
        lung = closing(lung, nx, element)
    return unpack(lung, nx)
