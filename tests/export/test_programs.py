"""Exported files of a case, read by the programs that they are for: 3D Slicer's library, dcmqi, PyRadiomics."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.export import Options, export_case, export_cohort
from lungmix.export.slicer import terminology_of
from lungmix.geometry import Geometry
from lungmix.kernels.radiomics import FEATURES
from lungmix.mixture import PUBLISHED
from lungmix.stages.measure import measure_cohort
from lungmix.store import RADIOMICS_FILE
from lungmix.tissue import LUNG, TISSUES
from support.generators import labelled_case
from support.labelled import labelled_store

PROGRAMS = Path(sys.executable).parent
RADIOMICS = Path(sys.prefix) / "pyradiomics" / "bin" / "pyradiomics"


def voxels(case, image="tissue"):
    return case.zarr_array(image)[:]


def index_to_place(geometry):
    """Return the affine, shape (4, 4), from voxels (x, y, z) to mm towards the patient's left, back and head."""
    out = np.eye(4)
    out[:3, :3] = np.reshape(geometry.direction, (3, 3)) * geometry.spacing
    out[:3, 3] = geometry.origin
    return out


@pytest.fixture(scope="module")
def slicer():
    import slicer

    return slicer


def read_by_slicer(slicer, kind, file):
    """Return a node of a scene of 3D Slicer, with the content of a file."""
    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass(f"vtkMRML{kind}Node")
    storage = scene.AddNewNodeByClass(f"vtkMRML{kind}StorageNode")
    storage.SetFileName(str(file))
    assert storage.ReadData(node) == 1
    return scene, node


@pytest.mark.parametrize("image", ["tissue", "lung"])
def test_slicer_loads_segments_with_names_colours_and_terms(slicer, case, tmp_path, image):
    (file,) = export_case(case, tmp_path / "out.seg.nrrd", image)
    _scene, node = read_by_slicer(slicer, "Segmentation", file)
    segmentation = node.GetSegmentation()
    segments = TISSUES if image == "tissue" else (LUNG,)
    assert segmentation.GetNumberOfSegments() == len(segments)
    assert segmentation.GetNumberOfLayers() == 1
    for number, tissue in enumerate(segments):
        segment = segmentation.GetNthSegment(number)
        assert segmentation.GetNthSegmentID(number) == tissue.key
        assert (segment.GetName(), segment.GetLabelValue()) == (tissue.name, tissue.label)
        assert np.allclose(segment.GetColor(), np.array(tissue.rgba[:3]) / 255, atol=1e-6)
        assert segment.GetTerminology() == terminology_of(tissue)


def test_slicer_puts_labels_where_the_scan_is(slicer, case, tmp_path):
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    (file,) = export_case(case, tmp_path / "out.seg.nrrd")
    _scene, node = read_by_slicer(slicer, "Segmentation", file)
    shared = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    x0, x1, y0, y1, z0, z1 = shared.GetExtent()
    array = vtk_to_numpy(shared.GetPointData().GetScalars()).reshape(z1 - z0 + 1, y1 - y0 + 1, x1 - x0 + 1)
    labels = np.zeros(case.geometry.shape, np.uint8)
    labels[z0 : z1 + 1, y0 : y1 + 1, x0 : x1 + 1] = array
    assert np.array_equal(labels, voxels(case))
    matrix = vtk.vtkMatrix4x4()
    shared.GetImageToWorldMatrix(matrix)
    to_world = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
    # Slicer counts mm to the patient's right and front.
    assert np.allclose(to_world, np.diag([-1, -1, 1, 1]) @ index_to_place(case.geometry), rtol=0, atol=1e-9)


def test_slicer_loads_the_colour_table(slicer, cohort, tmp_path):
    case = labelled_case(cohort, "case-001", Geometry((20, 20, 20)))
    _, file = export_case(case, tmp_path / "out_tissue.nii.gz", format="slicer-colors")
    _scene, colors = read_by_slicer(slicer, "ColorTable", file)
    assert colors.GetNumberOfColors() == len(TISSUES) + 1
    for tissue in TISSUES:
        rgba = [0.0] * 4
        colors.GetColor(tissue.label, rgba)
        assert colors.GetColorName(tissue.label) == tissue.name
        assert tuple(round(255 * value) for value in rgba) == tissue.rgba
        # The term of a colour is that of a segment without the names of the lists of terms.
        read, expected = (
            text.split("~") for text in (colors.GetTerminologyAsString(tissue.label), terminology_of(tissue))
        )
        assert [*read[1:4], *read[5:7]] == [*expected[1:4], *expected[5:]]


@pytest.mark.parametrize("binary", [False, True], ids=["labelmap", "binary"])
def test_dcmqi_reads_segmentations_as_they_were(case, tmp_path, binary):
    """Read geometry, names, codes and colours of segments back."""
    file, _ = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True, binary=binary))
    done = subprocess.run(
        [PROGRAMS / "segimage2itkimage", "--inputDICOM", file, "--outputDirectory", tmp_path, "--mergeSegments"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("W:", "E:", "F:"))] == []
    read = Geometry.from_sitk(image := sitk.ReadImage(str(tmp_path / "1.nrrd")))
    assert np.allclose(read.spacing, case.geometry.spacing, rtol=1e-9)
    # dcmqi writes only slices with labels, in an order with right-handed axes, so voxels are compared by position.
    labels_read = sitk.GetArrayFromImage(image)
    index = np.argwhere(labels_read)
    to_index = np.linalg.inv(index_to_place(case.geometry)) @ index_to_place(read)
    where = to_index[:3, :3] @ index[:, ::-1].T + to_index[:3, 3:]
    assert np.abs(where - np.rint(where)).max() < 1e-6
    labels = np.zeros(case.geometry.shape, np.uint8)
    labels[tuple(np.rint(where[::-1]).astype(int))] = labels_read[tuple(index.T)]
    assert np.array_equal(labels, voxels(case))
    meta = json.loads((tmp_path / "meta.json").read_text())
    segments = [segment for group in meta["segmentAttributes"] for segment in group]
    assert [segment["labelID"] for segment in segments] == [tissue.label for tissue in TISSUES]
    for segment, tissue in zip(segments, TISSUES, strict=True):
        code = segment["SegmentedPropertyTypeCodeSequence"]
        assert (code["CodingSchemeDesignator"], code["CodeValue"]) == (tissue.code.scheme, tissue.code.value)
        assert segment["SegmentLabel"] == tissue.name
        assert np.allclose(segment["recommendedDisplayRGBValue"], tissue.rgba[:3], atol=2)


def test_pyradiomics_runs_the_batch_and_finds_what_is_measured_from_counts(tmp_path):
    """Compare every first-order feature of every label, with a tolerance of a millionth."""
    cohort, _ = labelled_store(tmp_path / "cohort.zarr", scans=2)
    exported = export_cohort(cohort, tmp_path / "batch", "pyradiomics")
    (tmp_path / "first.yaml").write_text(json.dumps({
        "imageType": {"Original": {}}, "featureClass": {"firstorder": list(FEATURES)},
    }))  # fmt: skip
    command = [RADIOMICS, *exported.tables, "-o", tmp_path / "out.csv", "-f", "csv", "-p", tmp_path / "first.yaml"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    rows = measure_cohort(cohort, list(cohort), PUBLISHED, file=RADIOMICS_FILE)
    ours = {(row["case"], row["region"] == "lung", row["label"] or LUNG.label): row for row in rows if row["voxels"]}
    with (tmp_path / "out.csv").open() as stream:
        theirs = list(csv.DictReader(stream))
    assert len(theirs) == len(ours)
    for row in theirs:
        name, kind = Path(row["Mask"]).stem.split("_")
        expected = ours.pop((name, kind == "lung", int(row["Label"])))
        for feature in FEATURES:
            assert float(row[f"original_firstorder_{feature}"]) == pytest.approx(expected[feature], rel=1e-6, abs=1e-9)
    assert not ours
