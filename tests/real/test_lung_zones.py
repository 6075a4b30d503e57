"""Lung zones of real scans, and of the label map of the Chest Imaging Platform."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

import lungmix
from lungmix.formats import find_scans
from lungmix.geometry import Geometry
from lungmix.kernels.lung_zones import PEEL_MM, count_planes, planes_of_lungs
from lungmix.parameters import MaskParameters
from lungmix.stages.anatomical import mask_stage
from lungmix.stages.base import StageContext
from lungmix.stages.convert import ConvertStage
from lungmix.stages.lung_zones import ZoneStage
from oracle.lung_zones import parts_along
from support.masks import InProcess

pytestmark = [pytest.mark.real, pytest.mark.usefixtures("stages_here")]

THIRDS = {"left": (9, 10, 11), "right": (12, 13, 14)}
"""Regions of upper, middle and lower third in label maps of the Chest Imaging Platform."""


def thirds_of(sides, by):
    """Return 1, 2 and 3 in the upper, middle and lower third of each lung."""
    slices, rows, _ = count_planes(sides)
    out = np.zeros(sides.shape, np.uint8)
    for k, planes in enumerate(planes_of_lungs(slices, rows, by)):
        numbers = 3 - np.add.outer(np.arange(len(sides)), [-planes.middle, -planes.upper]).__ge__(0).sum(axis=1)
        out[sides == k + 1] = np.broadcast_to(numbers[:, None, None], sides.shape)[sides == k + 1]
    return out


def test_thirds_of_both_lungs_are_those_of_the_chest_imaging_platform(real_ct):
    image = sitk.ReadImage(str(real_ct.parent / "reference" / "cip-64" / "lm-64.nrrd"))
    geometry, codes = Geometry.from_sitk(image), sitk.GetArrayFromImage(image) & 255
    assert geometry.axis_order.is_axial
    sides = np.zeros(codes.shape, np.uint8)
    for label, side in ((1, "right"), (2, "left")):
        sides[np.isin(codes, THIRDS[side])] = label
    assert ndimage.center_of_mass(sides == 1)[2] < ndimage.center_of_mass(sides == 2)[2]
    thirds = thirds_of(sides, "volume")
    for number in (1, 2, 3):
        expected = np.isin(codes, [regions[number - 1] for regions in THIRDS.values()])
        assert abs((thirds == number).sum() / expected.sum() - 1) < 0.03
    # The platform cuts both lungs by the same planes.
    common = thirds_of(sides, "volume-common")
    for side, label in (("right", 1), ("left", 2)):
        for number in (1, 2, 3):
            assert np.array_equal((common == number) & (sides == label), codes == THIRDS[side][number - 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dx-a0002-soft", "cmb-crc-lung"])
def test_zones_of_real_scans_follow_their_definition(real_ct, tmp_path, name):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    context = StageContext(InProcess(), cohort)
    (scan,) = find_scans(real_ct / name)
    for stage in (ConvertStage({"one": scan}), mask_stage(MaskParameters("anatomical")), ZoneStage("volume")):
        stage.run(context, "one")
    case = cohort["one"]
    order, axial = case.geometry.axis_order, case.geometry.axial
    sides, zones = (order.to_axial(case.zarr_array(image)[:]) for image in ("side", "zone"))
    assert np.array_equal(zones > 0, (sides == 1) | (sides == 2))
    half_voxel = np.prod(axial.spacing) ** (1 / 3) / 2
    for k in range(2):
        lung = sides == k + 1
        within = zones[lung].astype(int) - 1 - 12 * k
        at = np.nonzero(lung)
        assert np.array_equal(within // 4, 2 - np.array(parts_along(lung, 0, 3, "volume"))[at[0]])
        assert np.array_equal(within // 2 % 2, np.array(parts_along(lung, 1, 2, "volume"))[at[1]])
        box = ndimage.find_objects(lung.astype(np.uint8))[0]
        box = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(lung[box]), axial.spacing_zyx) - half_voxel
        is_peel = (zones[box] % 2 == 0)[lung[box]]
        exact = (depth < PEEL_MM)[lung[box]]
        assert abs(is_peel.sum() / exact.sum() - 1) < 0.03
        assert (is_peel != exact).mean() < 0.04
