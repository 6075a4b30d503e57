"""Exported files of a case, as other programs read them."""

import csv

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio

from lungmix.errors import StoreError, UsageError
from lungmix.export import FORMATS, Options, export_case, export_cohort
from lungmix.export.itksnap import label_descriptions
from lungmix.export.slicer import color_table, extents_of
from lungmix.geometry import Geometry
from lungmix.store import CaseWriter
from lungmix.tissue import LUNG, PRIVATE_SCHEME, TISSUES
from support.generators import DIRECTIONS, labelled_case


def voxels(case, image="tissue"):
    return case.zarr_array(image)[:]


def test_segmentation_is_read_by_the_package_of_slicer(case, tmp_path):
    (file,) = export_case(case, tmp_path / "out.seg.nrrd")
    read = slicerio.read_segmentation(str(file))
    assert np.array_equal(read["voxels"].transpose(2, 1, 0), voxels(case))
    axes = np.reshape(case.geometry.direction, (3, 3)) * case.geometry.spacing
    assert np.allclose(read["ijkToLPS"][:3, :3], axes, rtol=1e-15, atol=1e-16)
    assert tuple(read["ijkToLPS"][:3, 3]) == case.geometry.origin
    assert read["containedRepresentationNames"] == ["Binary labelmap"]
    for segment, tissue in zip(read["segments"], TISSUES, strict=True):
        assert (segment["id"], segment["name"], segment["labelValue"]) == (tissue.key, tissue.name, tissue.label)
        assert segment["layer"] == 0
        assert np.allclose(segment["color"], np.array(tissue.rgba[:3]) / 255, atol=1e-6)
        assert segment["terminology"]["type"] == [tissue.code.scheme, tissue.code.value, tissue.code.meaning]
        assert segment["terminology"]["category"][1] == tissue.category.value
        z, y, x = np.nonzero(voxels(case) == tissue.label)
        assert segment["extent"] == [x.min(), x.max(), y.min(), y.max(), z.min(), z.max()]


def test_segments_are_extracted_by_their_code(case, tmp_path):
    (file,) = export_case(case, tmp_path / "out.seg.nrrd", "tissue_median")
    read = slicerio.read_segmentation(str(file))
    ggo = {
        "category": ["SCT", "49755003", ""],
        "type": ["DCM", "112120", ""],
        "anatomicRegion": ["SCT", "39607008", ""],
    }
    extracted = slicerio.extract_segments(read, [(ggo, 7)])
    expected = 7 * (voxels(case, "tissue_median") == 3)
    assert np.array_equal(extracted["voxels"].transpose(2, 1, 0), expected)


@pytest.mark.parametrize("format", ["nrrd", "mha", "mhd", "nii.gz", "nii", "seg.nrrd", "itk-snap", "slicer-colors"])
def test_geometry_survives_in_every_image_file(case, tmp_path, format):
    file, *_ = export_case(case, tmp_path / f"out_tissue{FORMATS[format].extension}", format=format)
    read = sitk.ReadImage(str(file))
    assert np.array_equal(sitk.GetArrayFromImage(read), voxels(case))
    geometry, scan = Geometry.from_sitk(read), case.geometry
    if format in ("mha", "mhd"):
        assert geometry == scan
    elif "nrrd" in format:
        assert np.allclose(geometry.direction, scan.direction, rtol=0, atol=3e-16)
        assert np.allclose(geometry.spacing, scan.spacing, rtol=3e-16)
        assert geometry.origin == scan.origin
    else:
        columns = np.diag([-1, -1, 1]) @ (np.reshape(scan.direction, (3, 3)) * scan.spacing)
        assert np.array_equal(nibabel.load(file).affine[:3, :3], columns.astype(np.float32))


def test_label_without_voxels_has_an_empty_extent(cohort):
    case = labelled_case(cohort, "few", Geometry((20, 20, 20)), labels=2)
    extents = extents_of(case, "tissue", [1, 5])
    assert extents[1] == (2, 15, 5, 17, 4, 15)
    assert extents[5] == (0, -1, 0, -1, 0, -1)


def test_label_descriptions_have_a_line_for_each_label(case, tmp_path):
    _, file = export_case(case, tmp_path / "out_lung.nii.gz", format="itk-snap")
    assert file.name == "out_lung_labels.txt"
    assert file.read_text() == label_descriptions((LUNG,))
    # ITK-SNAP parses seven numbers and a name in quotes per line.
    lines = [line for line in label_descriptions(TISSUES).splitlines() if not line.startswith("#")]
    rows = [(*map(float, line.split('"')[0].split()), line.split('"')[1]) for line in lines]
    assert rows[0] == (0, 0, 0, 0, 0, 0, 0, "Clear Label")
    assert [(row[0], row[1:4], row[4:7], row[7]) for row in rows[1:]] == [
        (tissue.label, tissue.rgba[:3], (1, 1, 1), tissue.name) for tissue in TISSUES
    ]


def test_label_descriptions_are_read_by_another_program(cohort, tmp_path):
    from nilabels.tools.aux_methods.label_descriptor_manager import LabelsDescriptorManager

    case = labelled_case(cohort, "case-001", Geometry((20, 20, 20)))
    _, file = export_case(case, tmp_path / "out_tissue.nii.gz", format="itk-snap")
    read = LabelsDescriptorManager(str(file)).dict_label_descriptor
    assert {label: (tuple(color), name) for label, (color, _, name) in read.items()} == {
        0: ((0, 0, 0), "Clear Label"),
        **{tissue.label: (tissue.rgba[:3], tissue.name) for tissue in TISSUES},
    }


def test_color_table_holds_colours_and_codes(case, tmp_path):
    _, file = export_case(case, tmp_path / "out_tissue.nii.gz", format="slicer-colors")
    rows = list(csv.DictReader(file.open()))
    assert file.read_text() == color_table(TISSUES)
    for row, tissue in zip(rows, TISSUES, strict=True):
        assert int(row["LabelValue"]) == tissue.label
        assert tuple(int(row[f"Color_{channel}"]) for channel in "RGBA") == tissue.rgba
        assert row["Type_CodingScheme"] == tissue.code.scheme
        assert row["Type_CodeValue"] == tissue.code.value


def test_table_of_pyradiomics_names_files_of_one_geometry_and_labels_that_are_there(cohort, tmp_path):
    geometry = Geometry((20, 21, 22), (0.7, 0.8, 1 / 3), (0.1, 0.2, 0.3), DIRECTIONS["tilted"])
    case = labelled_case(cohort, "case-001", geometry, labels=3)
    table, *files = export_case(case, tmp_path / "batch" / "cases.csv")
    rows = list(csv.DictReader(table.open()))
    assert list(rows[0]) == ["Image", "Mask", "Label"]
    assert {file.name for file in files} == {row[column] for row in rows for column in ("Image", "Mask")}
    assert [(row["Mask"], row["Label"]) for row in rows] == [
        ("case-001_lung.mha", "1"), *(("case-001_tissue.mha", str(label)) for label in (1, 2, 3)),
    ]  # fmt: skip
    for row in rows:
        image, mask = (sitk.ReadImage(str(table.parent / row[column])) for column in ("Image", "Mask"))
        assert Geometry.from_sitk(image) == Geometry.from_sitk(mask) == geometry
        statistics = sitk.LabelStatisticsImageFilter()
        statistics.Execute(image, mask)  # raises an error for images of different geometry
        assert statistics.HasLabel(int(row["Label"]))


def test_files_appear_as_a_whole_or_not_at_all(case, tmp_path, monkeypatch):
    def fail(*_):
        yield voxels(case)[:3]
        raise OSError(28, "No space left on device")

    for module in ("slicer", "images"):
        monkeypatch.setattr(f"lungmix.export.{module}.slabs_of", fail)
    for name in ("out_tissue.seg.nrrd", "out_tissue.nii.gz", "out_tissue.mha"):
        with pytest.raises(OSError, match="No space"):
            export_case(case, tmp_path / "out" / name)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_cohort_is_exported_except_for_a_failed_case(cohort, tmp_path):
    for name in ("case-001", "case-002", "case-003"):
        labelled_case(cohort, name, Geometry((20, 20, 20)), seed=int(name[-1]))
    CaseWriter(cohort["case-002"]).start_stage("label", "another")
    result = export_cohort(cohort, tmp_path / "out", "pyradiomics")
    assert list(result.failed) == ["case-002"]
    assert "case-002" in result.failed["case-002"]
    assert "Pipeline.run" in result.failed["case-002"]
    (table,) = result.tables
    assert {row["Image"] for row in csv.DictReader(table.open())} == {"case-001_ct.mha", "case-003_ct.mha"}
    result = export_cohort(cohort, tmp_path / "out", "seg.nrrd", "lung")
    assert sorted(result.files) == ["case-001", "case-002", "case-003"]
    assert (tmp_path / "out" / "case-002_lung.seg.nrrd").is_file()


def test_image_that_is_not_finished_is_rejected(cohort, tmp_path):
    case = labelled_case(cohort, "case-001", Geometry((20, 20, 20)))
    case.start_stage("label", "another")
    for name in ("x_tissue.nrrd", "x.seg.nrrd", "x.csv"):
        with pytest.raises(StoreError, match="case-001 has no finished image 'tissue'"):
            export_case(case, tmp_path / name)
    assert export_case(case, tmp_path / "x_lung.nrrd")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.jpg", {}, "seg.nrrd"),
        ("x.nrrd", {"format": "papyrus"}, "itk-snap"),
        ("x.nrrd", {"format": "mha"}, "use the extension .mha"),
        ("x.seg.nrrd", {"image": "ct"}, "no labels"),
        ("x.nrrd", {"image": "heart"}, "tissue_median"),
        ("x.dcm", {}, "`sources=FOLDER`"),
        ("x.nrrd", {"options": Options(binary=True)}, "dicom-seg"),
    ],
)
def test_wrong_usage_says_what_to_give(cohort, tmp_path, name, options, message):
    case = labelled_case(cohort, "case-001", Geometry((20, 20, 20)))
    with pytest.raises(UsageError, match=message):
        export_case(case, tmp_path / name, **options)


def test_private_codes_are_of_a_scheme_that_is_private():
    for tissue in TISSUES:
        assert tissue.code.scheme in ("SCT", "DCM", PRIVATE_SCHEME)
        assert len(tissue.code.value) <= 16
    assert PRIVATE_SCHEME.startswith("99")
