"""Descending aorta of real scans, whose circles were checked on pictures."""

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.kernels.airway import axial_steps, find_airway
from lungmix.kernels.anatomical.candidates import find_lungs
from lungmix.kernels.aorta import NoBlood, find_aorta
from lungmix.kernels.reduction import reduction_of

pytestmark = [pytest.mark.slow, pytest.mark.real]


def read(path):
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    image = sitk.DICOMOrient(image, "LPS")
    spacing = image.GetSpacing()[::-1]
    reduction = reduction_of(spacing)
    reduced = reduction.apply(sitk.GetArrayFromImage(image).astype(np.int16))
    size = reduction.spacing(spacing)
    return reduced, find_airway(reduced, find_lungs(reduced, reduced < -400, size), axial_steps(size)).tube, size


def test_two_kernels_of_a_patient_show_the_same_aorta_and_blood(real_ct):
    soft = read(real_ct / "dx-a0001-soft")
    sharp = read(real_ct.parent / "reference" / "dx-a0001-sharp.nrrd")
    first, second = find_aorta(*soft), find_aorta(*sharp)
    assert first.problem is second.problem is None
    assert first.hu == pytest.approx(second.hu, abs=4)
    centres = {int(z): (y, x) for z, y, x in second.centres}
    both = [(centre[1:], centres[int(centre[0])]) for centre in first.centres if int(centre[0]) in centres]
    assert len(both) * soft[2][0] > 100
    assert all(np.hypot(*(np.subtract(a, b) * soft[2][1:])) < 5 for a, b in both)


@pytest.mark.parametrize(
    ("scan", "hu", "length_mm"),
    [("ct/dx-a0001-soft", 30, 130), ("ct/dx-a0002-soft", 32, 110), ("reference/lung1-001/ct", 35, 110)],
)
def test_blood_of_the_descending_aorta_is_measured(real_ct, scan, hu, length_mm):
    reduced, tube, size = read(real_ct.parent / scan)
    aorta = find_aorta(reduced, tube, size)
    assert aorta.problem is None
    assert aorta.hu == pytest.approx(hu, abs=4)
    assert len(aorta.centres) * size[0] >= length_mm


def test_blood_with_contrast_agent_is_found_but_not_used(real_ct):
    aorta = find_aorta(*read(real_ct / "cmb-crc-lung"))
    assert aorta.problem == NoBlood.ABOVE
    assert aorta.hu > 300


@pytest.mark.parametrize("scan", ["ct/dx-a0001-soft", "ct/dx-a0002-soft", "reference/lung1-001/ct"])
@pytest.mark.parametrize("hu", [-850, -100])
def test_nothing_else_is_taken_for_an_aorta_that_was_erased(real_ct, scan, hu):
    reduced, tube, size = read(real_ct.parent / scan)
    aorta = find_aorta(reduced, tube, size)
    y, x = np.ogrid[: reduced.shape[1], : reduced.shape[2]]
    radius = aorta.radii_mm.max() + 4
    for z, plane in enumerate(reduced):
        row, column = aorta.centres[np.abs(aorta.centres[:, 0] - z).argmin(), 1:]
        plane[((y - row) * size[1]) ** 2 + ((x - column) * size[2]) ** 2 <= radius**2] = hu
    assert find_aorta(reduced, tube, size).problem is not None
    assert find_aorta(reduced[:, :, ::-1], tube[:, :, ::-1], size).problem is not None
