"""Images that only some stores have, further formats, and tables about them are part of a data set."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import zarr

from lungmix.cli.show_publish import names_in
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.publish import About, Creator, check_dataset, forms, identifiers_of, publish
from lungmix.publish.cohort_tables import NO_TABLE
from lungmix.publish.folder import EXTENSIONS, read_record, read_sums
from lungmix.publish.forms import formats_of
from lungmix.store import ZONES_FILE, CaseWriter
from lungmix.tissue import LUNG_ZONES
from support.labelled import add_case, label_record, labelled_store
from support.publication import rich_store

ABOUT = About("Chest CT of phantoms", "1.0", "CC-BY-4.0", (Creator("A Hospital"),))
SECOND = About("Chest CT of phantoms", "2.0", "CC-BY-4.0", ABOUT.creators)
ALL = tuple(EXTENSIONS)
KEY = {"case-001": {"patient_name": "Qzxplant^Maria", "patient_id": "PAT-90210", "birth_date": "19470213"}}
IMAGES = {"ct", "lung", "side", "region", "lobe", "zone", "tissue", "tissue_median", "tissue_potts"}


def table(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with all images, and its publication, which tests must not change."""
    folder = tmp_path_factory.mktemp("forms")
    cohort, scores = rich_store(folder / "s.zarr")
    for case in cohort.values():
        kept = Acquisition("CT", sex="F", age=61, study_date="20200317")
        CaseWriter(case).describe(kept)
    result = publish(cohort, folder / "one", ABOUT, scores=scores, formats=ALL)
    assert result.is_complete, result.problems
    return cohort, scores, folder / "one"


def test_images_that_only_some_stores_have_are_published(published):
    cohort, _, folder = published
    for name, case in cohort.items():
        rows = [row for row in table(folder / "files.csv") if row["case"] == name]
        for format in ("nrrd", "nifti", "ome-zarr"):
            assert {row["image"] for row in rows if row["format"] == format} == IMAGES
        for image in IMAGES:
            read = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"images/{name}/{name}_{image}.nrrd")))
            assert np.array_equal(read, case.zarr_array(image)[:])
    assert check_dataset(folder) == {}


def test_tables_of_zones_and_labels_are_complete_and_described(published):
    cohort, _, folder = published
    zones = table(folder / "zones.csv")
    assert len(zones) == len(cohort) * 66
    assert zones[0]["lung_ml"] == cohort.read_text(ZONES_FILE).splitlines()[1].split(",")[6]
    names = {row["name"] for row in table(folder / "labels.csv") if row["image"] == "zone"}
    assert names == {zone.name for zone in LUNG_ZONES}
    described = {(row["file"], row["column"]) for row in table(folder / "data_dictionary.csv") if row["meaning"]}
    for file in ("zones.csv", "labels.csv", "table1.csv"):
        assert {(file, column) for column in table(folder / file)[0]} <= described


def test_zones_and_labels_are_record_sets(published):
    mlcroissant = pytest.importorskip("mlcroissant")
    cohort, _, folder = published
    loaded = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not loaded.metadata.issues.errors
    records = list(loaded.records("zones"))
    assert {record["zones/case"].decode() for record in records} == set(cohort)
    assert len(records) == len(table(folder / "zones.csv"))
    assert {record["labels/image"].decode() for record in loaded.records("labels")} == IMAGES - {"ct"}


def test_characteristics_of_the_cohort_are_table_1_with_scores(published):
    _, scores, folder = published
    rows = {(row["characteristic"], row["level"]): row["all"] for row in table(folder / "table1.csv")}
    assert rows["Scans", ""] == "2"
    assert {level for title, level in rows if title == "Score S"} == {str(score) for score in scores.values()}
    text = (folder / "table1.md").read_text()
    assert all(value.partition(" [")[0] in text for (_, level), value in rows.items() if not level)


def test_numbers_of_different_mixtures_are_not_summarised(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 2)
    path = tmp_path / "s.zarr" / "measurements.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], lines[2].replace("published:", "given:")]))
    label_record(cohort[max(cohort)], name="given")
    assert publish(cohort, tmp_path / "d", ABOUT).is_complete
    assert (tmp_path / "d" / "table1.md").read_text() == NO_TABLE
    assert not (tmp_path / "d" / "table1.csv").exists()


@pytest.fixture
def copy(published, tmp_path):
    """A copy of the publication, which tests may damage."""
    shutil.copytree(published[2], tmp_path / "copy")
    return tmp_path / "copy"


def test_nifti_and_ome_zarr_have_the_voxels_and_the_geometry_of_the_store(published):
    cohort, _, folder = published
    for name, case in cohort.items():
        group = zarr.open_group(str(folder / f"images/{name}/{name}.ome.zarr"), mode="r")
        assert Geometry.from_dict(group.attrs["lungmix"]["geometry"]) == case.geometry
        assert set(group.attrs["lungmix"]) == {"geometry"}
        assert set(group["labels"].attrs["ome"]["labels"]) == IMAGES - {"ct"}
        for image in IMAGES:
            expected = case.zarr_array(image)[:]
            nifti = nibabel.load(folder / f"images/{name}/{name}_{image}.nii.gz")
            assert np.array_equal(np.asarray(nifti.dataobj).T, expected)
            stored = group if image == "ct" else group[f"labels/{image}"]
            for level in stored.attrs["ome"]["multiscales"][0]["datasets"]:
                assert np.array_equal(stored[level["path"]][:], case.zarr_array(image, int(level["path"]))[:])


def test_segmentation_has_the_labels_and_refers_to_the_slices_in_its_folder(published):
    cohort, _, folder = published
    for name, case in cohort.items():
        place = folder / f"images/{name}/{name}_tissue_dicom"
        slices = [pydicom.dcmread(file) for file in sorted((place / f"{name}_tissue_ct").iterdir())]
        assert np.array_equal(np.stack([item.pixel_array for item in slices]), case.zarr_array("ct")[:])
        segmentation = highdicom.seg.segread(place / f"{name}_tissue.dcm")
        uids = [item.SOPInstanceUID for item in slices]
        labels = segmentation.get_pixels_by_source_instance(
            uids, combine_segments=True, skip_overlap_checks=True, assert_missing_frames_are_empty=True
        )
        assert np.array_equal(labels, case.zarr_array("tissue")[:])


def test_dicom_objects_have_no_attribute_of_a_patient_but_the_name_of_the_case(published):
    _, _, folder = published
    objects = list(folder.rglob("*.dcm"))
    assert len(objects) > 2
    for file in objects:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        assert header.PatientID == file.relative_to(folder).parts[1]
        for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber", "StudyID"):
            assert not header.get(keyword)
        assert "PatientAge" not in header
        assert "RetainPatientCharacteristics" not in str(header)
        assert b"20200317" not in file.read_bytes()


def test_every_file_of_every_format_has_its_sum(published):
    _, _, folder = published
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == {*read_sums(folder), "SHA256SUMS"}
    assert any(path.endswith(".dcm") for path in files)
    assert any("/c/" in path for path in files)
    assert check_dataset(folder, identifiers_of(KEY)[0]) == {}


def test_folders_of_files_are_entities_of_the_crate_and_their_files_are_not(published):
    _, _, folder = published
    graph = json.loads((folder / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    for image in read_record(folder)["images"]:
        entity = entities[f"{image.path}/" if image.is_folder else image.path]
        assert entity["@type"] == ("Dataset" if image.is_folder else "File")
        assert image.case in entity["description"]
    assert not any("/c/" in key or key.endswith(".dcm") for key in entities)


def plant_in_nifti(folder):
    (file,) = folder.glob("images/case-001/case-001_tissue.nii.gz")
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[5000:5008] = b"Qzxplant"
    file.write_bytes(gzip.compress(bytes(content)))
    return file


def plant_in_chunk(folder):
    array = zarr.open_group(str(folder / "images/case-001/case-001.ome.zarr"), mode="r+")["labels/tissue/0"]
    values = array[:]
    values.reshape(-1)[5000:5008] = np.frombuffer(b"Qzxplant", np.uint8)
    array[:] = values
    return folder / "images/case-001/case-001.ome.zarr/labels/tissue"


def plant_in_header(folder):
    place = folder / "images/case-001/case-001_tissue_dicom"
    file = place / "case-001_tissue.dcm"
    header = pydicom.dcmread(file)
    header.PatientName = "Qzxplant^Maria"
    header.StudyDate = "20200317"
    header.StudyInstanceUID = "1.3.12.2.1107.5.1.4.1"
    header.save_as(file)
    return place


@pytest.mark.parametrize(
    ("plant", "texts"),
    [
        (plant_in_nifti, {"an identifier of the key table is in its decompressed bytes"}),
        (plant_in_chunk, {"an identifier of the key table is in its decompressed bytes"}),
        (
            plant_in_header,
            {
                "an identifier of the key table is in a value of its header", "has the name of a person",
                "has a date or time", "has a UID that is not derived from the data set",
            },
        ),
    ],
)  # fmt: skip
def test_planted_name_is_detected_in_each_format(copy, plant, texts):
    path = plant(copy).relative_to(copy).as_posix()
    problems = check_dataset(copy, identifiers_of(KEY)[0])
    assert texts <= set(problems[path])


def move_nifti(folder):
    file = folder / "images/case-001/case-001_tissue.nii.gz"
    image = nibabel.load(file)
    affine = image.affine.copy()
    affine[2, 3] += 1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), file)
    return file


def move_zarr(folder):
    place = folder / "images/case-001/case-001.ome.zarr"
    document = json.loads((place / "zarr.json").read_text())
    document["attributes"]["lungmix"]["geometry"]["origin"][2] += 1
    (place / "zarr.json").write_text(json.dumps(document))
    return place


def move_slice(folder):
    place = folder / "images/case-001/case-001_tissue_dicom"
    file = sorted((place / "case-001_tissue_ct").iterdir())[3]
    header = pydicom.dcmread(file)
    header.ImagePositionPatient[2] += 1
    header.save_as(file)
    return place


def cut_chunk(folder):
    place = folder / "images/case-001/case-001.ome.zarr"
    file = next(file for file in sorted((place / "0").rglob("*")) if file.is_file() and file.name != "zarr.json")
    file.write_bytes(file.read_bytes()[:-30])
    return place


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (move_nifti, "does not have the geometry of its CT"),
        (move_zarr, "does not have the geometry of its CT"),
        (move_slice, "does not have the geometry of its CT"),
        (cut_chunk, "cannot be read"),
    ],
)
def test_images_of_each_format_that_were_moved_or_cut_are_detected(copy, damage, text):
    path = damage(copy).relative_to(copy).as_posix()
    assert any(problem.startswith(text) for problem in check_dataset(copy)[path])


def test_next_version_links_all_formats_and_an_added_format_is_new(published, tmp_path):
    cohort, scores, first = published
    second = tmp_path / "two"
    result = publish(cohort, second, SECOND, scores=scores, previous=first, formats=ALL)
    assert (result.is_complete, result.written) == (True, 0)
    for image in read_record(first)["images"]:
        for path in image.files():
            assert (second / path).samefile(first / path)
    third = tmp_path / "three"
    fewer = publish(cohort, third, ABOUT, previous=second, formats=("nifti",))
    assert fewer.is_complete
    assert {image.format for image in read_record(third)["images"]} == {"nrrd", "nifti"}


def test_killed_publication_of_all_formats_is_resumed(tmp_path, monkeypatch):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    write, calls = forms.write_ome_zarr, []

    def killed_at_the_second(case, folder, image, labels):
        calls.append(image)
        written = write(case, folder, image, labels)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(forms, "write_ome_zarr", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        publish(cohort, tmp_path / "d", ABOUT, formats=ALL)
    monkeypatch.setattr(forms, "write_ome_zarr", write)
    result = publish(cohort, tmp_path / "d", ABOUT, formats=ALL)
    assert result.is_complete
    assert result.kept == 4 + 4 + 1 + 1
    assert publish(cohort, tmp_path / "e", ABOUT, formats=ALL).is_complete
    assert read_sums(tmp_path / "d") == read_sums(tmp_path / "e")


def test_scan_of_unknown_orientation_has_no_dicom(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    ct = np.random.default_rng(0).integers(-900, 0, (8, 9, 10)).astype("int16")
    place = Geometry((10, 9, 8), (1.0, 2.0, 3.0), orientation_known=False)
    add_case(cohort, "case-new", ct, np.ones(ct.shape, "uint8"), place)
    result = publish(cohort, tmp_path / "d", ABOUT, formats=ALL)
    assert result.is_complete, result.problems
    images = [image for image in read_record(tmp_path / "d")["images"] if image.case == "case-new"]
    assert {image.format for image in images} == {"nrrd", "nifti", "ome-zarr"}


def test_formats_are_read_from_a_list_and_nrrd_is_always_one():
    assert formats_of(names_in("ome-zarr, NIfTI")) == ("nrrd", "nifti", "ome-zarr")
    with pytest.raises(UsageError, match=r"'png'.*choose from nrrd"):
        formats_of(names_in("nrrd,png"))


def test_damaged_object_of_the_store_is_not_published(tmp_path):
    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    name = next(iter(cohort))
    case = CaseWriter(cohort[name])
    receipts = {f"labels/tissue/{key}": [1, "00000000"] for key in ("0/c/0/0/0",)}
    record = case.stages["label"]
    case.record("label", record, receipts)
    result = publish(cohort, tmp_path / "d", ABOUT, formats=("ome-zarr",))
    assert not result.is_complete
    assert "damaged in labels/tissue/0/c/0/0/0" in result.failed[name]


def test_command_writes_all_formats_and_the_page_on_workers(tmp_path):
    from support.command import run_here

    cohort, _ = labelled_store(tmp_path / "s.zarr", 1)
    (tmp_path / "people.csv").write_text("name\nA Hospital\n")
    words = (
        "--title", ABOUT.title, "--license", ABOUT.license, "--version", "1.0", "--creators", tmp_path / "people.csv",
        "--formats", "nifti,dicom-seg,ome-zarr", "--workers", 1, "--json",
    )  # fmt: skip
    done = run_here("publish", tmp_path / "s.zarr", tmp_path / "d", *words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"]
    assert publish(cohort, tmp_path / "e", ABOUT, formats=ALL, page=True).is_complete
    assert read_sums(tmp_path / "d") == read_sums(tmp_path / "e")
    assert (tmp_path / "d" / "report" / "index.html").is_file()
    unknown = run_here("publish", tmp_path / "s.zarr", tmp_path / "x", *words, "--formats", "png")
    assert unknown.returncode == 2
    assert "choose from nrrd" in unknown.stderr
