"""Labels and measurements of each scan by the mixture of all other patients."""

from __future__ import annotations

import csv
import json
import pickle

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.analysis.leave_one_out import FitsWithout, involvement_by_others
from lungmix.errors import StoreError, UsageError
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.parameters import FitParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.publish import About, Creator, SplitRule, check_dataset, dataset, publish
from lungmix.stages.fit import fit_cohort, fit_counts, fitted_cases
from lungmix.stages.measure import measure_cohort, read_measurements
from lungmix.stages.relabelled import RelabelledCase, Relabelling
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.patients import PatientScan, patients_of, record_patients
from support.command import run_here
from support.labelled import label_record, labelled_store

ABOUT, SECOND = (About("Phantoms", version, "CC-BY-4.0", (Creator("Doe, Jane"),)) for version in ("1.0", "2.0"))
PARAMETERS = FitParameters(fit="converged")


def store_with_fit(url, scans=4, parameters=PARAMETERS):
    """A store whose mixture was fitted to its scans; the first two are of one patient."""
    cohort, scores = labelled_store(url, scans, beta=1.0)
    fits, _ = fit_cohort(cohort, sorted(cohort), parameters)
    model = fits[parameters.fit]
    for case in cohort.values():
        label_record(case, model, parameters.fit)
    measure_cohort(cohort, sorted(cohort), model)
    record_patients(cohort, {"patient-001": (PatientScan("case-001", 0), PatientScan("case-002", 9))})
    return cohort, scores


def bytes_of_store(url):
    return {file: file.read_bytes() for file in url.rglob("*") if file.is_file()}


def rows_read(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    cohort, scores = store_with_fit(folder / "s.zarr")
    before = bytes_of_store(folder / "s.zarr")
    result = publish(
        cohort, folder / "one", ABOUT, scores=scores, split=SplitRule(0.4), leave_one_patient_out=True
    )  # fmt: skip
    assert result.is_complete, result.problems
    assert bytes_of_store(folder / "s.zarr") == before
    return cohort, folder / "one"


def mixtures_by_hand(cohort):
    """The mixture of all other patients by case, from the histograms of the store."""
    counts = {name: case.hu_counts for name, case in cohort.items()}
    mixtures = {}
    for name in counts:
        left_out = ("case-001", "case-002") if name in ("case-001", "case-002") else (name,)
        others = sum(histogram for other, histogram in counts.items() if other not in left_out)
        mixtures[name] = fit_counts(others, PARAMETERS).converged
    return mixtures


def test_files_are_labels_of_the_volume_by_the_mixture_of_the_other_patients(published):
    cohort, folder = published
    changed = 0
    for name, model in mixtures_by_hand(cohort).items():
        case = cohort[name]
        ct, lung = case.ct.compute(), case.lung.compute()
        tissue = lungmix.tissue_labels(ct, lung, model)
        median = lungmix.median_labels(tissue, direction=case.geometry.direction)
        assert np.array_equal(voxels(folder / f"images/{name}/{name}_tissue.nrrd"), tissue)
        assert np.array_equal(voxels(folder / f"images/{name}/{name}_tissue_median.nrrd"), median)
        header = (folder / f"images/{name}/{name}_tissue.nrrd").read_bytes().partition(b"\n\n")[0].decode()
        assert f"lungmix_model:=converged_by_others:{model.digest}" in header
        assert not (folder / f"images/{name}/{name}_tissue_potts.nrrd").exists()
        changed += np.count_nonzero(tissue != lungmix.tissue_labels(ct, lung, cohort.model))
    assert changed > 0


def test_measurements_are_those_of_the_published_labels(published):
    cohort, folder = published
    rows = {row["case"]: row for row in rows_read(folder / "cases.csv")}
    by_others = involvement_by_others(
        cohort, {"case-001": "p", "case-002": "p", "case-003": "q", "case-004": "r"}, PARAMETERS
    )
    for name, row in rows.items():
        labels = voxels(folder / f"images/{name}/{name}_tissue.nrrd")
        shares = 100 * np.bincount(labels.ravel(), minlength=6)[1:] / np.count_nonzero(labels)
        assert [float(row[tissue.key]) for tissue in lungmix.TISSUES] == pytest.approx(list(shares), rel=1e-12)
        assert float(row["lung_involvement"]) == by_others[name][0]
    stored = {row["case"]: row["lung_involvement"] for row in read_measurements(cohort)}
    assert any(float(row["lung_involvement"]) != stored[name] for name, row in rows.items())


def test_table_of_mixtures_gives_each_patient_one_and_its_numbers(published):
    cohort, folder = published
    table, cases = rows_read(folder / "models.csv"), rows_read(folder / "cases.csv")
    assert {row["patient"] for row in table} == {"patient-001", "case-003", "case-004"}
    for case in cases:
        of_patient = [row for row in table if row["patient"] == case["patient"]]
        numbers = (tuple(float(row[key]) for row in of_patient) for key in ("weight", "mean", "variance"))
        model = TissueModel(*numbers)
        assert model == mixtures_by_hand(cohort)[case["case"]]
        assert {row["model"] for row in of_patient} == {case["model"]} == {f"converged_by_others:{model.digest}"}
        assert {(row["scans"], row["left_out"]) for row in of_patient} == {
            ("2", "2") if case["patient"] == "patient-001" else ("3", "1")
        }
    assert json.loads((folder / "model.json").read_text())["means"] == list(cohort.model.means)


def test_metadata_say_how_labels_were_made(published):
    mlcroissant = pytest.importorskip("mlcroissant")
    _, folder = published
    card = (folder / "README.md").read_text()
    for words in ("## Labels free of their own leak", "that of all other patients in models.csv", "has seen this"):
        assert words in card
    assert "One mixture labels all scans" not in card
    dictionary = rows_read(folder / "data_dictionary.csv")
    described = {row["column"]: row["meaning"] for row in dictionary if row["file"] == "models.csv"}
    assert set(described) == set(rows_read(folder / "models.csv")[0])
    assert all(described.values())
    loaded = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not loaded.metadata.issues.errors
    assert "all other patients" in loaded.metadata.description
    assert len(list(loaded.records("models"))) == 15
    assert check_dataset(folder) == {}


def test_labels_of_the_store_have_no_table_of_mixtures(published, tmp_path):
    cohort, _ = published
    assert publish(cohort, tmp_path / "d", ABOUT, split=SplitRule(0.4)).is_complete
    assert not (tmp_path / "d" / "models.csv").exists()
    assert "One mixture labels all scans" in (tmp_path / "d" / "README.md").read_text()


def test_next_version_keeps_its_labels_unless_the_mixtures_change(published, tmp_path):
    cohort, folder = published
    result = publish(cohort, tmp_path / "two", SECOND, previous=folder)
    assert (result.is_complete, result.written) == (True, 0)
    assert (tmp_path / "two" / "models.csv").read_bytes() == (folder / "models.csv").read_bytes()
    third = About("Phantoms", "3.0", "CC-BY-4.0", ABOUT.creators)
    result = publish(cohort, tmp_path / "three", third, previous=folder, leave_one_patient_out=False)
    assert (result.is_complete, result.written) == (True, 12)
    changes = (tmp_path / "three" / "CHANGELOG.md").read_text()
    assert "- relabelled: case-003 (tissue, tissue_median), model converged_by_others:" in changes
    assert "became converged:" in changes


def test_killed_publication_is_resumed(published, tmp_path, monkeypatch):
    cohort, folder = published
    export, calls = dataset.export_image, []

    def killed_at_the_sixth(case, path, image):
        calls.append(image)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return export(case, path, image)

    monkeypatch.setattr(dataset, "export_image", killed_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    monkeypatch.undo()
    result = publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    assert result.is_complete
    assert result.kept >= 4
    for file in (folder / "images").rglob("*.nrrd"):
        assert (tmp_path / "d" / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_patient_whose_scans_were_not_pooled_keeps_the_mixture_of_the_store(tmp_path):
    cohort, _ = store_with_fit(tmp_path / "s.zarr")
    fits, _ = fit_cohort(cohort, ["case-001", "case-002", "case-003"], PARAMETERS)
    assert publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True).is_complete
    models = {row["patient"]: row for row in rows_read(tmp_path / "d" / "models.csv")}
    assert models["case-004"]["model"] == f"converged:{fits.converged.digest}"
    assert (models["case-004"]["scans"], models["case-004"]["left_out"]) == ("3", "0")
    assert models["case-003"]["model"] != models["case-004"]["model"]


def test_mixture_of_nobody_left_out_is_that_of_the_store(published):
    pooled, parameters = fitted_cases(published[0])
    assert parameters == PARAMETERS
    assert FitsWithout(pooled, parameters).fit() == published[0].model


def test_mixtures_that_cannot_be_fitted_without_a_patient_are_rejected(tmp_path):
    given, _ = labelled_store(tmp_path / "given.zarr", 2)
    with pytest.raises(UsageError, match="was given"):
        publish(given, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    cohort, _ = store_with_fit(tmp_path / "s.zarr", 2)
    with pytest.raises(UsageError, match="one patient"):
        publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    case = CaseWriter(cohort["case-001"])
    case.record("mask", {"key": "another", "parameters": {"preset": "paper"}})
    label_record(case, cohort.model)
    with pytest.raises(StoreError, match="have changed since"):
        publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    assert not (tmp_path / "d").exists()
    assert patients_of(cohort)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (1, 0, 0, 0, -1, 0, 0, 0, -1)])
@pytest.mark.parametrize("depth", [1, 2, 17, 23])
def test_slabs_give_the_labels_of_the_volume(tmp_path, direction, depth):
    rng = np.random.default_rng(3)
    ct = rng.integers(-1000, 100, (depth, 12, 14)).astype("int16")
    lung = (rng.random(ct.shape) < 0.8).astype("uint8")
    lung[9:12] = 0
    geometry = Geometry((14, 12, depth), direction=direction)
    case = CohortWriter(lungmix.open_cohort(tmp_path / "s.zarr", "a")).add("case-001", geometry, Acquisition(), None, 8)
    assert case.layout.slab == 8
    for image, volume in (("ct", ct), ("lung", lung), ("tissue", lung), ("tissue_median", lung)):
        case.create_image(image)
        for start, stop in case.layout.slabs():
            case.write(image, start, volume[start:stop])
    case.record("convert", {"key": "c"})
    case.record("mask", {"key": "m"})
    case.record("label", {"key": "l"})
    relabelled = RelabelledCase(case, Relabelling.of(case, PUBLISHED, "other", []))
    tissue = lungmix.tissue_labels(ct, lung, PUBLISHED)
    median = lungmix.median_labels(tissue, direction=direction)
    for name, labels in (("tissue", tissue), ("tissue_median", median)):
        array = relabelled.zarr_array(name)
        assert array.shape == labels.shape
        for start in range(depth):
            for stop in (start, start + 1, start + 5, depth):
                assert np.array_equal(array[start:stop], labels[start:stop])
        assert np.array_equal(array[-1], labels[-1])
        assert np.array_equal(array[3:9, 2:5, 7], labels[3:9, 2:5, 7])
        assert np.array_equal(pickle.loads(pickle.dumps(array))[:], labels)
        assert np.array_equal(relabelled.array(name).compute(), labels)
    with pytest.raises(StoreError, match="by this mixture"):
        relabelled.zarr_array("tissue", 1)


def test_command_labels_on_workers_as_in_one_process(published, tmp_path):
    cohort, folder = published
    (tmp_path / "people.csv").write_text('name\n"Doe, Jane"\n')
    words = ("--title", "Phantoms", "--license", "CC-BY-4.0", "--version", "1.0", "--creators", tmp_path / "people.csv")
    options = ("--leave-one-patient-out", "--test-share", 0.4, "--workers", 1)
    done = run_here("publish", cohort.url, tmp_path / "d", *words, *options)
    assert done.returncode == 0, done.stderr
    for file in [*(folder / "images").rglob("*.nrrd"), folder / "models.csv"]:
        assert (tmp_path / "d" / file.relative_to(folder)).read_bytes() == file.read_bytes()
    given, _ = labelled_store(tmp_path / "given.zarr", 2)
    failed = run_here("publish", given.url, tmp_path / "e", *words, *options)
    assert failed.returncode == 2
    assert "--leave-one-patient-out" in failed.stderr


def test_other_formats_have_the_same_labels_and_copies_of_the_store_have_none(published, tmp_path):
    cohort, folder = published
    formats = ("nrrd", "nifti", "dicom-seg", "ome-zarr")
    result = publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True, formats=formats)
    assert result.is_complete, result.problems
    place = tmp_path / "d" / "images" / "case-003"
    tissue = voxels(folder / "images/case-003/case-003_tissue.nrrd")
    assert not np.array_equal(tissue, cohort["case-003"].tissue.compute())
    assert np.array_equal(voxels(place / "case-003_tissue.nii.gz"), tissue)
    slices = [pydicom.dcmread(file) for file in sorted((place / "case-003_tissue_dicom/case-003_tissue_ct").iterdir())]
    segmentation = highdicom.seg.segread(place / "case-003_tissue_dicom" / "case-003_tissue.dcm")
    labels = segmentation.get_pixels_by_source_instance(
        [item.SOPInstanceUID for item in slices], combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(labels, tissue)
    names = [item.name for item in (place / "case-003.ome.zarr" / "labels").iterdir() if item.is_dir()]
    assert names == ["lung"]


def test_mixture_of_three_components_is_published_too(tmp_path):
    cohort, _ = store_with_fit(tmp_path / "s.zarr", 3, FitParameters(n_components=3, fit="converged"))
    result = publish(cohort, tmp_path / "d", ABOUT, leave_one_patient_out=True)
    assert result.is_complete, result.problems
    table = rows_read(tmp_path / "d" / "models.csv")
    assert [row["tissue"] for row in table] == ["component_1", "component_2", "component_3"] * 2
    assert "| 3 | component_3 |" in (tmp_path / "d" / "README.md").read_text()
