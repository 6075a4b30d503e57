"""Lung zones in files of other programs: values, names, colours and codes."""

import highdicom
import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.export import Options, export_case
from lungmix.geometry import Geometry
from lungmix.tissue import LUNG_ZONES
from support.generators import labelled_case


@pytest.fixture
def zoned(cohort):
    """Case whose zones are a checkerboard of all labels."""
    case = labelled_case(cohort, "case-001", Geometry((26, 20, 12), (0.5, 0.75, 1.25)))
    zones = (np.indices(case.geometry.shape).sum(axis=0) % 25).astype(np.uint8)
    case.create_image("zone")
    for start, stop in case.layout.slabs():
        case.write("zone", start, zones[start:stop])
    case.record("zone", {"key": "z", "by": "volume"})
    return case, zones


@pytest.mark.parametrize("extension", ["nrrd", "nii.gz", "mha", "seg.nrrd"])
def test_zones_survive_in_images(zoned, tmp_path, extension):
    case, zones = zoned
    file = export_case(case, tmp_path / f"case-001_zone.{extension}")[0]
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(file))), zones)


def test_segmentations_have_names_and_codes_of_all_zones(zoned, tmp_path):
    case, zones = zoned
    read = sitk.ReadImage(str(export_case(case, tmp_path / "x_zone.seg.nrrd")[0]))
    names = [read.GetMetaData(f"Segment{i}_Name") for i in range(24)]
    assert names == [zone.name for zone in LUNG_ZONES]
    segmentation = highdicom.seg.segread(export_case(case, tmp_path / "x_zone.dcm", options=Options(with_ct=True))[0])
    for number, zone in enumerate(LUNG_ZONES, 1):
        description = segmentation.get_segment_description(number)
        assert (description.segment_label, description.segmented_property_type.value) == (zone.name, zone.code.value)
    (_, table) = export_case(case, tmp_path / "x_zone.nii.gz", format="itk-snap")
    assert all(zone.name in table.read_text() for zone in LUNG_ZONES)
    assert len(np.unique(zones)) == 25
