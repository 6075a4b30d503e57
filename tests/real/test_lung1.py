"""A public series with instance numbers in blocks, and with positions that were really swapped."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import reveal
from lungmix.formats import Scan, find_scans
from lungmix.geometry import Geometry
from lungmix.intake.mask_matching import match_masks
from lungmix.parameters import MaskParameters
from lungmix.stages.base import StageContext
from lungmix.stages.convert import ConvertStage
from lungmix.stages.given_mask import GivenMaskStage
from lungmix.stages.mask import MaskStage
from support.masks import InProcess
from support.series import change, read, refused

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture
def files(real_ct, tmp_path):
    """107 slices of LUNG1-001 in the order of z, numbered 79 to 1, then 107 to 80, as other series of LUNG1 are."""
    shutil.copytree(real_ct.parent / "reference" / "lung1-001" / "ct", tmp_path / "ct")
    height = {file: float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])
              for file in (tmp_path / "ct").iterdir()}  # fmt: skip
    ordered = sorted(height, key=height.__getitem__)
    for file in ordered[107:]:
        file.unlink()
    numbers = [*range(79, 0, -1), *range(107, 79, -1)]
    for file, number in zip(ordered, numbers, strict=False):
        change(file, InstanceNumber=number)
    return ordered[:107]


def test_blocks_of_instance_numbers_over_even_positions_are_read(files):
    (scan,) = find_scans(files[0].parent)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(file) for file in files])
    image = reader.Execute()
    assert scan.geometry == Geometry.from_sitk(image)
    assert np.array_equal(read(scan, 16), sitk.GetArrayFromImage(image))
    assert "neighbouring slices are more similar by position: positions decide" in scan.notes[0]


@pytest.mark.parametrize("pair", [(40, 41), (3, 90), (78, 79), (0, 106)])
def test_swapped_slices_among_blocks_are_rejected(files, pair):
    places = [pydicom.dcmread(files[i], stop_before_pixels=True).ImagePositionPatient for i in pair]
    for file, position in zip((files[i] for i in pair), places[::-1], strict=True):
        change(file, ImagePositionPatient=position)
    (item,) = refused(find_scans(files[0].parent))
    assert "positions may be swapped" in reveal(item.reason)


@pytest.mark.usefixtures("stages_here")
def test_contours_of_the_lungs_are_the_mask_of_the_store_to_the_voxel(real_ct, tmp_path):
    folder = real_ct.parent / "reference" / "lung1-001"
    (scan,) = [scan for scan in find_scans(folder / "ct") if isinstance(scan, Scan)]
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    context = StageContext(InProcess(), cohort)
    ConvertStage({"case-001": scan}).run(context, "case-001")
    matched = match_masks(folder / "rtstruct.dcm", cohort, ["case-001", "case-002"])
    assert list(matched.masks) == ["case-001"]
    stage = GivenMaskStage(MaskStage(MaskParameters("physical")), matched.masks)
    assert stage.run(context, "case-001") == "done"
    lungs = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "lungs.nrrd")))
    case = cohort["case-001"]
    assert np.array_equal(case.side.compute(), lungs)
    assert np.array_equal(case.lung.compute(), lungs > 0)
    ct = case.ct.compute().astype(int) + 32768
    assert np.array_equal(case.hu_counts, np.bincount(ct[lungs > 0], minlength=65536))
