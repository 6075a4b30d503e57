"""A published folder opens in other programs with the calls that its data card gives."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.geometry import Geometry
from lungmix.publish import About, Creator, SplitRule, publish
from lungmix.publish.folder import ImageFile
from lungmix.publish.opening import batch_rows, datalist_text
from lungmix.tissue import TISSUES
from support.labelled import add_case, labelled_store
from support.programs import need

ABOUT = About("Phantoms", "1.0", "CC0-1.0", (Creator("Doe, Jane"),))
TORCH = Path(sys.prefix) / "lungmask"
RADIOMICS = Path(sys.prefix) / "pyradiomics" / "bin" / "pyradiomics"
CODE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)

SHOW = """
import json

def shown(item):
    image, label = item
    return [float(image[0, 5, 6, 7]), list(image.shape), sorted(set(map(int, label.flatten().tolist())))]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder of a data set with scans on both sides, one of them not measured."""
    place = tmp_path_factory.mktemp("opening")
    cohort, scores = labelled_store(place / "s.zarr", 4)
    del scores[min(cohort)]
    ct = np.full((8, 9, 10), -700, "int16")
    # PyRadiomics rejects masks without background.
    lung = np.pad(np.ones((6, 7, 8), "uint8"), 1)
    add_case(cohort, "case-unmeasured", ct, lung, Geometry((10, 9, 8), (1.0, 2.0, 3.0)))
    assert publish(cohort, place / "d", ABOUT, scores=scores, split=SplitRule(0.3)).is_complete
    return place / "d"


def code_with(folder, words):
    """Return the only example of the data card that has these words."""
    (code,) = [text for _, text in CODE.findall((folder / "README.md").read_text()) if words in text]
    return code


def table(folder, name):
    with (folder / name).open() as stream:
        return list(csv.DictReader(stream))


def read(folder, path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / path)))


def test_pandas_and_simpleitk_read_tables_and_images(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(code_with(folder, "import SimpleITK"), names)
    assert list(names["cases"].index) == sorted(row["case"] for row in table(folder, "cases.csv"))
    assert names["hu"].shape == names["ct"].GetSize()[::-1]
    assert names["tissue"].GetOrigin() == names["ct"].GetOrigin()


def test_mlcroissant_reads_the_cases(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(code_with(folder, "import mlcroissant"), names)
    assert len(names["records"]) == 5


def test_data_list_has_the_keys_of_the_decathlon_and_each_scan_once(folder):
    document = json.loads((folder / "datalist.json").read_text())
    split = {row["case"]: row["split"] for row in table(folder, "cases.csv")}
    for key, side, number in (("training", "train", "numTraining"), ("test", "test", "numTest")):
        assert {item["case"] for item in document[key]} == {name for name, of in split.items() if of == side}
        assert document[number] == len(document[key]) > 0
    assert document["labels"] == {"0": "Background"} | {str(tissue.label): tissue.name for tissue in TISSUES}
    assert (document["modality"], document["tensorImageSize"]) == ({"0": "CT"}, "3D")
    scores = {row["case"]: row["score"] for row in table(folder, "cases.csv")}
    for item in document["training"] + document["test"]:
        assert str(item.get("score", "")) == scores[item["case"]]
        for key in ("image", "label", "lung"):
            assert (folder / item[key]).is_file()


def test_data_list_without_sides_has_no_test_set_and_names_harmonised_images():
    images = [ImageFile(f"images/a/a_{name}.nrrd", "a", name, "") for name in ("ct", "harmonised", "lung", "tissue")]
    images.append(ImageFile("images/a/a_harmonised.nii.gz", "a", "harmonised", ""))
    rows = [{"case": "a", "patient": "a", "score": ""}]
    document = json.loads(datalist_text(ABOUT, "Scans.", "2026-01-31", images, rows))
    assert "test" not in document
    assert document["training"][0]["image"] == "images/a/a_harmonised.nrrd"
    assert "score" not in document["training"][0]
    assert {row["Image"] for row in batch_rows(images, rows)} == {"images/a/a_harmonised.nrrd"}


def run_with_torch(folder, code):
    """Run Python code in the environment with PyTorch, and return the JSON that it prints last."""
    need((TORCH / "complete").exists(), f"{TORCH} is not complete: scripts/lungmask.sh makes it")
    done = subprocess.run(
        [TORCH / "bin" / "python", "-W", "ignore", "-c", SHOW + code], capture_output=True, text=True, cwd=folder,
        env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def expected(folder, item):
    """Return a voxel of the scan, the shape with a channel, and the labels, for axes x, y, z."""
    ct, tissue = (read(folder, item[key]).transpose(2, 1, 0) for key in ("image", "label"))
    return [float(ct[5, 6, 7]), [1, *ct.shape], sorted(set(tissue.flatten().tolist()))]


@pytest.mark.lungmask
@pytest.mark.parametrize("side", ["training", "test"])
def test_monai_loads_images_and_labels_of_the_data_list(folder, side):
    code = code_with(folder, "from monai").replace('"training"', f'"{side}"')
    shown = run_with_torch(folder, code + """
items = [(loaded["case"], shown((loaded["image"], loaded["label"]))) for loaded in dataset]
print(json.dumps([items, dataset[0]["image"].affine.tolist()]))
""")  # fmt: skip
    items = json.loads((folder / "datalist.json").read_text())[side]
    assert shown[0] == [[item["case"], expected(folder, item)] for item in items]
    place = sitk.ReadImage(str(folder / items[0]["image"]))
    # MONAI counts mm to the patient's right and front.
    origin = np.array(place.GetOrigin()) * (-1, -1, 1)
    assert np.allclose(shown[1], np.vstack([np.c_[np.diag(place.GetSpacing()) * (-1, -1, 1), origin], [0, 0, 0, 1]]))


@pytest.mark.lungmask
def test_torchio_loads_subjects(folder):
    shown = run_with_torch(folder, code_with(folder, "import torchio") + """
print(json.dumps([(subject["case"], shown((subject.ct.data, subject.tissue.data))) for subject in dataset]))
""")  # fmt: skip
    items = json.loads((folder / "datalist.json").read_text())["training"]
    assert shown == [[item["case"], expected(folder, item)] for item in items]


def test_batch_has_a_row_for_the_lung_and_each_tissue_with_voxels(folder):
    rows = [(row["Image"], row["Mask"], int(row["Label"])) for row in table(folder, "batch.csv")]
    for name in (row["case"] for row in table(folder, "cases.csv")):
        image = f"images/{name}/{name}_ct.nrrd"
        labels = sorted(set(np.unique(read(folder, f"images/{name}/{name}_tissue.nrrd")).tolist()) - {0})
        tissues = [] if name == "case-unmeasured" else labels
        assert [row for row in rows if row[0] == image] == [
            (image, f"images/{name}/{name}_lung.nrrd", 1),
            *((image, f"images/{name}/{name}_tissue.nrrd", label) for label in tissues),
        ]


def test_batch_leaves_out_lungs_and_tissues_without_voxels():
    images = [ImageFile("images/a/a_ct.nrrd", "a", "ct", "")]
    row = {"case": "a", "lung_ml": 0.0} | {f"{tissue.key}_ml": 0.0 for tissue in TISSUES}
    assert batch_rows(images, [row]) == []
    assert [row["Label"] for row in batch_rows(images, [row | {"lung_ml": 2.0, "ggo_ml": 1.0}])] == [1, 3]


def test_pyradiomics_measures_each_row_of_the_batch(folder, tmp_path):
    need(RADIOMICS.exists(), f"{RADIOMICS} is not there: scripts/pyradiomics.sh makes it")
    (tmp_path / "mean.yaml").write_text("imageType: {Original: {}}\nfeatureClass: {firstorder: [Mean]}\n")
    words = code_with(folder, "pyradiomics").replace("features.csv", str(tmp_path / "features.csv")).split()
    command = [RADIOMICS, *words[1:], "-p", tmp_path / "mean.yaml"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder, env={})
    assert done.returncode == 0, done.stderr
    features = table(tmp_path, "features.csv")
    assert len(features) == len(table(folder, "batch.csv"))
    means = {row["case"]: row["mean_hu"] for row in table(folder, "cases.csv")}
    for row in features:
        name = Path(row["Image"]).parent.name
        assert row["original_firstorder_Mean"], str(row) + done.stderr
        mean = float(row["original_firstorder_Mean"])
        if row["Mask"].endswith("_lung.nrrd") and means[name]:
            assert mean == pytest.approx(float(means[name]), rel=1e-6)


def test_slicer_loads_a_segmentation_with_names_and_colours(folder):
    import slicer

    # What slicer.util.loadColorTable and slicer.util.loadSegmentation call in the program.
    code = code_with(folder, "slicer.util")
    label_map, colour_table = re.search(r"/(images/\S+_tissue\.nrrd)\"", code)[1], "tissue_slicer.csv"
    assert f"/{colour_table}" in code
    scene = slicer.vtkMRMLScene()
    colors = scene.AddNewNodeByClass("vtkMRMLColorTableNode")
    storage = scene.AddNewNodeByClass("vtkMRMLColorTableStorageNode")
    storage.SetFileName(str(folder / colour_table))
    assert storage.ReadData(colors) == 1
    logic = slicer.vtkSlicerSegmentationsModuleLogic()
    logic.SetMRMLScene(scene)
    node = logic.LoadSegmentationFromFile(str(folder / label_map), True, "tissue", colors)
    segmentation = node.GetSegmentation()
    labels = set(np.unique(read(folder, label_map)).tolist()) - {0}
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    assert {segment.GetLabelValue(): segment.GetName() for segment in segments} == {
        tissue.label: tissue.name for tissue in TISSUES if tissue.label in labels
    }
    for segment in segments:
        rgb = np.array(TISSUES[segment.GetLabelValue() - 1].rgba[:3]) / 255
        assert np.allclose(segment.GetColor(), rgb, atol=1e-6)


def test_label_descriptions_of_itksnap_name_the_tissues(folder):
    from nilabels.tools.aux_methods.label_descriptor_manager import LabelsDescriptorManager

    words = code_with(folder, "itksnap").split()
    assert all((folder / path).is_file() for path in words[2::2])
    described = LabelsDescriptorManager(str(folder / words[-1])).dict_label_descriptor
    for tissue in TISSUES:
        color, _, name = described[tissue.label]
        assert (tuple(color), name) == (tissue.rgba[:3], tissue.name)
