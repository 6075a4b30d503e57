"""Lungs that the rules of a mask drop are found on the reduced copy of the scan."""

import numpy as np
import pytest
from scipy import ndimage

from lungmix.geometry import Geometry
from lungmix.kernels.mask import lung_mask, recipe_for
from lungmix.kernels.rejected_components import find_rejected
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.flags import flags_of
from lungmix.stages.reduced import steps_of

PHANTOM = Phantom((60, 96, 90), (3.6, 3.7, 5.0))
HU = PHANTOM.volume()
SIDES = np.concatenate(list(PHANTOM.side_truth_slabs()))
ML = PHANTOM.geometry.voxel_ml


def rejected(hu, scale=1.0):
    """Return the components that look like lung but are not in a mask of the preset ``physical``.

    The voxels are `scale` times as wide as those of the phantom.
    """
    geometry = Geometry(hu.shape[::-1], tuple(scale * step for step in PHANTOM.spacing))
    lung = lung_mask(hu, recipe_for(MaskParameters("physical"), geometry.spacing_zyx)) > 0
    return find_rejected(hu, lung, steps_of(geometry, (1, 1, 1)))


@pytest.mark.parametrize("traps", [(), ("bowel",), ("big-bowel",), ("table",), ("padding",), ("vessels", "noise")])
def test_nothing_is_missed_where_both_lungs_are_kept(traps):
    phantom = Phantom(PHANTOM.shape, PHANTOM.spacing, traps=frozenset(traps))
    lung = lung_mask(phantom.volume(), recipe_for(MaskParameters("physical"), phantom.geometry.spacing_zyx)) > 0
    assert find_rejected(phantom.volume(), lung, steps_of(phantom.geometry, (1, 1, 1))) == []


def test_lung_that_the_image_edge_cuts_is_named():
    first = int(np.flatnonzero((SIDES == 1).any(axis=(0, 1)))[0]) + 2
    (component,) = rejected(np.ascontiguousarray(HU[:, :, first:]))
    assert component.touches_edge
    assert component.ml == pytest.approx((SIDES[:, :, first:] == 1).sum() * ML, rel=0.35)


def test_same_lung_is_named_in_any_storage_order():
    first = int(np.flatnonzero((SIDES == 1).any(axis=(0, 1)))[0]) + 2
    hu = HU[:, :, first:]
    lung = SIDES[:, :, first:] == 2
    steps = steps_of(Geometry(hu.shape[::-1], PHANTOM.spacing), (1, 1, 1))
    (axial,) = find_rejected(hu, lung, steps)
    (sagittal,) = find_rejected(hu.transpose(2, 0, 1), lung.transpose(2, 0, 1), steps[:, [2, 0, 1]])
    assert axial == sagittal


def test_lung_of_an_infant_below_the_smallest_size_is_named():
    left = ndimage.binary_erosion(SIDES == 2)
    hu = np.where((SIDES == 2) & ~left, 40, HU)
    scale = (85 / (left.sum() * ML)) ** (1 / 3)
    clear = [component for component in rejected(hu, scale) if not component.touches_edge]
    assert any(30 < component.ml < 90 for component in clear)


class Recorded:
    """Stand-in for a case that has only the attributes that flags need."""

    def __init__(self, pieces):
        self.stages = {"side": {"rejected": pieces}}
        self.quality, self.damage, self.geometry, self.acquisition = {}, {}, Geometry((8, 8, 8)), Acquisition()


def test_flag_of_a_rejected_component_states_the_reason():
    (edge,) = flags_of(Recorded([{"ml": 1437.2, "touches_edge": True}]))
    assert "about 1,437 mL" in edge
    assert "edge of the image" in edge
    assert "`min_voxels`" not in edge
    (small,) = flags_of(Recorded([{"ml": 78.0, "touches_edge": False}]))
    assert "`min_voxels`" in small
