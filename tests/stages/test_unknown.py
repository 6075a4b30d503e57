"""Scans of unknown orientation: both lungs are measured together, and results contain no right and left."""

from dataclasses import replace

import nibabel
import numpy as np
import pytest

import lungmix
from lungmix.errors import UsageError
from lungmix.export.dicom_seg import write_seg
from lungmix.export.images import export_image
from lungmix.formats import find_scans
from lungmix.geometry import Geometry
from lungmix.intake.retention import apply_retention
from lungmix.parameters import IntakeParameters, MaskParameters
from lungmix.phantom import Phantom
from lungmix.stages import label, mask, measure
from lungmix.stages.base import StageContext
from lungmix.store import MEASUREMENTS_FILE
from lungmix.webpage.volume import preview_of
from support.generators import case_of

pytestmark = pytest.mark.usefixtures("stages_here")

PHANTOM = Phantom((30, 60, 64), (4.4, 4.7, 8.0), 6, traps={"cut"})
MODEL = lungmix.load_model("published")


def case_in(folder, geometry):
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    case_of(cohort, "one", PHANTOM.volume(), geometry)
    mask.MaskStage(MaskParameters("physical", min_voxels=900)).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    return cohort["one"]


@pytest.fixture
def unknown(tmp_path):
    return case_in(tmp_path, replace(PHANTOM.geometry, orientation_known=False))


def test_columns_of_regions_are_nan_and_those_of_both_lungs_as_for_axial_slices(tmp_path, unknown):
    oriented = case_in(tmp_path / "known", PHANTOM.geometry)
    (row,), (expected,) = (measure.rows_of_case(case, MEASUREMENTS_FILE, MODEL) for case in (unknown, oriented))
    of_regions = [key for key in row if key.startswith(("right_", "left_", "airway_", "elsewhere_"))]
    of_regions.remove("left_out_ml")
    assert expected["right_ml"] > 100
    assert np.isnan([row[key] for key in of_regions]).all()
    assert (row["lung_ml"], row["ggo"]) == (expected["lung_ml"], expected["ggo"])
    assert not unknown.zarr_array("side")[:].any()
    assert not unknown.side_counts.any()
    assert label.without_sides(lungmix.open_cohort(tmp_path / "s.zarr")) == []


def test_page_names_no_end_of_an_axis(unknown):
    assert {axis.ends for axis in preview_of(unknown).axes} == {("", "")}


def test_exported_images_claim_no_orientation(tmp_path, unknown):
    for name in ("a.nrrd", "a.mha", "a.nii"):
        export_image(unknown, tmp_path / name)
    nrrd, mha = ((tmp_path / name).read_bytes().split(b"ElementDataFile" if name == "a.mha" else b"\n\n")[0]
                 for name in ("a.nrrd", "a.mha"))  # fmt: skip
    assert b"space" not in nrrd
    assert b"spacings: 4.4 4.7 8.0" in nrrd
    assert b"TransformMatrix" not in mha
    header = nibabel.load(tmp_path / "a.nii").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)
    for name in ("a.nrrd", "a.mha", "a.nii"):
        (scan,) = find_scans(tmp_path / name)
        assert np.allclose(scan.geometry.spacing, PHANTOM.spacing)
        assert not scan.geometry.orientation_known
        assert np.array_equal(np.concatenate(list(scan.slabs(8))), PHANTOM.volume())


def test_dicom_export_without_orientation_is_rejected(tmp_path, unknown):
    with pytest.raises(UsageError, match="orientation of case one is unknown"):
        write_seg(unknown, tmp_path / "a.dcm", "lung", with_ct=True)
    assert not list(tmp_path.glob("a*"))


def test_case_carries_a_note(tmp_path, scan):
    (item,) = find_scans(scan)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for is_known in (True, False):
        geometry = replace(item.geometry, orientation_known=is_known)
        retained = apply_retention(
            cohort, {"one": replace(item, geometry=geometry)}, {"one": "x"}, IntakeParameters(), None
        )
        assert any("which side is right" in note for note in retained.scans["one"].notes) == (not is_known)


def test_state_survives_the_store(tmp_path):
    geometry = Geometry((4, 3, 2), orientation_known=False)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", np.zeros((2, 3, 4), np.int16), geometry)
    assert lungmix.open_cohort(tmp_path / "s.zarr")["one"].geometry == geometry
