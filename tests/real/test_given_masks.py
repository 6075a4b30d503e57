"""Clinical contours of a public scan are filled to the voxel as in its reference."""

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.formats import find_scans
from lungmix.formats.masks import open_mask

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture
def reference(real_ct):
    return real_ct.parent / "reference" / "lung1-001"


def test_contours_of_lungs_and_tumour_equal_the_reference(reference):
    mask = open_mask(reference / "rtstruct.dcm")
    (scan,) = find_scans(reference / "ct")
    numbers = {segment.region: segment.number for segment in mask.segments}
    lungs, tumour = (sitk.GetArrayFromImage(sitk.ReadImage(reference / f"{name}.nrrd")) for name in ("lungs", "gtv"))
    values = {numbers["right"]: 1, numbers["left"]: 2}
    assert np.array_equal(np.concatenate(list(mask.label_slabs(values, scan.geometry, 16))), lungs)
    values = {numbers["tumor"]: 1}
    assert np.array_equal(np.concatenate(list(mask.label_slabs(values, scan.geometry, 200))), tumour)


def test_reference_is_read_as_an_image_on_the_grid_of_the_scan(reference):
    mask = open_mask(reference / "lungs.nrrd")
    (scan,) = find_scans(reference / "ct")
    labels = np.concatenate(list(mask.label_slabs({1: 1, 2: 2}, scan.geometry, 50)))
    assert np.array_equal(labels, sitk.GetArrayFromImage(sitk.ReadImage(reference / "lungs.nrrd")))
