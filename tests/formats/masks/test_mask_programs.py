"""Masks that this package, 3D Slicer's library and dcmqi write are read back with the same labels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lungmix
from formats.masks.test_named_labels import GRID, LAYERS, segmentation
from lungmix.export import Options, export_case
from lungmix.formats.masks import offset_in_grid, open_mask
from lungmix.geometry import Geometry
from lungmix.tissue import TISSUES
from support.generators import DIRECTIONS, labelled_case

PROGRAMS = Path(sys.executable).parent
VALUES = {tissue.label: tissue.label for tissue in TISSUES}
REGIONS = [(tissue.label, tissue.key) for tissue in TISSUES]


@pytest.fixture(params=["flipped", "oblique"])
def case(tmp_path, request):
    direction = DIRECTIONS[request.param]
    geometry = Geometry((24, 20, 12), (0.75, 0.5, 1.25), (-10.5, 3.25, -100.0), direction)
    return labelled_case(lungmix.open_cohort(tmp_path / "store.zarr", "a"), "case-001", geometry)


def labels_of(mask, case, thickness=5):
    return np.concatenate(list(mask.label_slabs(VALUES, case.geometry, thickness)))


@pytest.mark.parametrize("name", ["a.nrrd", "a.nii.gz", "a.mha", "a.mhd", "a.seg.nrrd", "a.dcm", "binary.dcm"])
def test_exports_are_read_as_they_were(case, tmp_path, name):
    options = Options(with_ct=True, binary=name == "binary.dcm") if name.endswith(".dcm") else Options()
    file, *_ = export_case(case, tmp_path / name, "tissue", options=options)
    mask = open_mask(file)
    assert np.array_equal(labels_of(mask, case), case.zarr_array("tissue")[:])
    if name.endswith((".dcm", ".seg.nrrd")):
        assert [(segment.number, segment.region) for segment in mask.segments] == REGIONS
    if name.endswith(".dcm"):
        assert mask.made_by == "lungmix"


def rewritten_by_slicer(file, target):
    """Read a segmentation with 3D Slicer's library and write it again, by which it is cropped to its segments."""
    import slicer

    scene = slicer.vtkMRMLScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(file))
    assert storage.ReadData(node) == 1
    storage.SetFileName(str(target))
    assert storage.WriteData(node) == 1
    return open_mask(target)


def test_segmentations_of_slicer_are_read(case, tmp_path):
    (file,) = export_case(case, tmp_path / "a.seg.nrrd", "tissue")
    mask = rewritten_by_slicer(file, tmp_path / "b.seg.nrrd")
    assert mask.geometry.size < case.geometry.size
    assert [(segment.number, segment.region) for segment in mask.segments] == REGIONS
    assert np.array_equal(labels_of(mask, case), case.zarr_array("tissue")[:])


def test_layers_of_slicer_are_read(tmp_path):
    segments = [{"Name": f"s{index}", "LabelValue": 1, "Layer": index} for index in range(3)]
    file = segmentation(tmp_path / "a.seg.nrrd", LAYERS, segments)
    mask = rewritten_by_slicer(file, tmp_path / "b.seg.nrrd")
    assert b"dimension: 4" in (tmp_path / "b.seg.nrrd").read_bytes()[:500]
    for number in range(3):
        labels = np.concatenate(list(mask.label_slabs({mask.segments[number].number: 1}, GRID, 2)))
        assert np.array_equal(labels, LAYERS[..., number])


def test_segmentations_of_dcmqi_are_read(case, tmp_path):
    file, ct = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True, binary=True))
    run("segimage2itkimage", "--inputDICOM", file, "--outputDirectory", tmp_path, "--mergeSegments")
    run(
        "itkimage2segimage", "--inputImageList", tmp_path / "1.nrrd", "--inputDICOMDirectory", ct,
        "--inputMetadata", tmp_path / "meta.json", "--outputDICOM", tmp_path / "again.dcm", "--skip",
    )  # fmt: skip
    mask = open_mask(tmp_path / "again.dcm")
    assert mask.made_by == "dcmqi"
    assert offset_in_grid(mask.geometry, case.geometry) is not None
    assert np.array_equal(labels_of(mask, case), case.zarr_array("tissue")[:])


def run(program, *arguments):
    done = subprocess.run([PROGRAMS / program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
