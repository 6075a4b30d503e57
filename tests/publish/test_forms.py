"""Images that only some stores have, and tables about them, are part of a data set."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK as sitk

from lungmix.publish import About, Creator, check_dataset, publish
from lungmix.publish.cohort_tables import NO_TABLE
from lungmix.store import ZONES_FILE
from lungmix.tissue import LUNG_ZONES
from support.labelled import label_record, labelled_store
from support.publication import rich_store

ABOUT = About("Chest CT of phantoms", "1.0", "CC-BY-4.0", (Creator("A Hospital"),))
IMAGES = {"ct", "lung", "side", "region", "lobe", "zone", "tissue", "tissue_median", "tissue_potts"}


def table(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A store with all images, and its publication, which tests must not change."""
    folder = tmp_path_factory.mktemp("forms")
    cohort, scores = rich_store(folder / "s.zarr")
    result = publish(cohort, folder / "one", ABOUT, scores=scores)
    assert result.is_complete, result.problems
    return cohort, scores, folder / "one"


def test_images_that_only_some_stores_have_are_published(published):
    cohort, _, folder = published
    for name, case in cohort.items():
        assert {row["image"] for row in table(folder / "files.csv") if row["case"] == name} == IMAGES
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
