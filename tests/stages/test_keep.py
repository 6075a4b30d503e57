"""Verify, remove and relabel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.cli.app import _status_of
from lungmix.errors import StoreError
from lungmix.formats import Scan, find_scans
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.stages.names import assign_names
from lungmix.verify import sample_of, verify_cases
from stores import assert_same_store, store_digest

pytestmark = pytest.mark.slow

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))


@pytest.fixture(scope="module")
def finished(scans, client, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("store") / "cohort.zarr")
    assert not Pipeline(client, lungmix.open_cohort(url, "a")).run([scans], MASK).failed
    return url


@pytest.fixture
def store(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def scans_in(folder):
    return [one for one in find_scans(folder) if isinstance(one, Scan)]


def verify(client, store, scans=None):
    cohort = lungmix.open_cohort(store)
    known = {} if scans is None else assign_names(cohort, scans_in(scans))
    return verify_cases(client, cohort, list(cohort), known)


def test_store_as_it_was_made_is_as_it_should_be_and_stays_so(client, store, scans):
    before = store_digest(store)
    assert verify(client, store, scans) == {f"case-{i:03d}": [] for i in (1, 2, 3)}
    assert store_digest(store) == before
    assert [path.name for path in store.parent.iterdir()] == ["copy.zarr"]


@pytest.mark.parametrize("key", ["1/c/0/0/0", "labels/side/0/c/1/0/0", "hu_counts/c/0", "labels/tissue/zarr.json"])
def test_changed_byte_anywhere_is_found_and_named(client, store, key):
    file = store / "case-002" / key
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    found = verify(client, store)
    assert found["case-002"] == [f"{key} is not what was written"]
    assert found["case-001"] == found["case-003"] == []


def test_command_ends_with_1_and_names_what_differs(store, capsys):
    arguments = ["verify", str(store), "--all", "--workers", "1", "--quiet", "--json"]
    assert _status_of(arguments) == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == {}
    (store / "case-003/2/c/0/0/0").unlink()
    assert _status_of(arguments) == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == {"case-003": ["2/c/0/0/0 is not what was written"]}


def test_result_that_is_wrong_but_whole_is_found_by_making_it_again(client, store):
    case = lungmix.open_cohort(store, "r+")["case-001"]
    record = case.stages["label"]
    files = record.pop("files")
    labels = case.read("tissue", 64, 128).copy()
    labels[labels == 3] = 4
    case.record("label", record, files | case.write("tissue", 64, labels))
    found = verify(client, store)
    assert "labels/tissue/0/c/1/0/0 comes out otherwise" in found["case-001"]
    assert found["case-002"] == []


def test_image_of_another_scan_is_found_by_its_source(client, store, scans):
    cohort = lungmix.open_cohort(store)
    one, two, _ = scans_in(scans)
    found = verify_cases(client, cohort, ["case-001"], {"case-001": two})
    assert found["case-001"] == ["the image is not that of the source"]
    assert verify_cases(client, cohort, ["case-001"], {"case-001": one}) == {"case-001": []}


def test_sample_is_drawn_without_repetition_and_never_too_large():
    names = [f"case-{i:03d}" for i in range(20)]
    assert len(set(sample_of(names, 5))) == 5
    assert sample_of(names, 50) == names
    assert sample_of(names, 3, seed=1) == sample_of(names, 3, seed=1)


def test_removed_case_leaves_the_tables_and_the_others_as_they_are(client, store):
    before = {key: digest for key, digest in store_digest(store).items() if key.startswith(("case-001", "case-003"))}
    pipeline = Pipeline(None, lungmix.open_cohort(store, "r+"))
    with pytest.raises(StoreError, match="no case 'case-009'"):
        pipeline.remove(["case-002", "case-009"])
    assert len(lungmix.open_cohort(store)) == 3
    report = pipeline.remove(["case-002"])
    cohort = lungmix.open_cohort(store)
    assert list(cohort) == ["case-001", "case-003"]
    assert [row["case"] for row in report.rows] == ["case-001", "case-003"]
    assert "case-002" not in cohort.read_text("measurements.csv")
    after = store_digest(store)
    assert {key: after[key] for key in before} == before


def test_removed_and_added_again_the_cohort_is_the_same_under_a_new_name(client, store, scans):
    Pipeline(None, lungmix.open_cohort(store, "r+")).remove(["case-002"])
    report = Pipeline(client, lungmix.open_cohort(store, "r+")).run([scans], MASK)
    assert report.done == ["case-001", "case-003", "case-004"]


def test_relabelling_leaves_the_masks_and_is_undone_by_the_first_model(client, store, finished):
    pipeline = Pipeline(client, lungmix.open_cohort(store, "r+"))
    masks = {file: file.stat().st_mtime_ns for file in store.rglob("labels/lung/**/c/*/0/0")}
    report = pipeline.relabel("published")
    assert not report.failed
    assert report.model == lungmix.load_model("published")
    assert {file: file.stat().st_mtime_ns for file in masks} == masks
    with np.testing.assert_raises(AssertionError):
        assert_same_store(finished, store)
    pipeline.relabel("fit")
    assert_same_store(finished, store)


def test_who_opened_the_store_before_another_run_ended_keeps_what_that_has_recorded(client, scans, tmp_path):
    store = tmp_path / "s.zarr"
    waiting, first = lungmix.open_cohort(store, "a"), lungmix.open_cohort(store, "a")
    Pipeline(client, first).run([scans], MASK)
    recorded = lungmix.open_cohort(store).settings
    Pipeline(None, waiting).remove(["case-001"])
    found = lungmix.open_cohort(store).settings
    for name in ("salt", "fits", "fit", "highest_number"):
        assert found[name] == recorded[name]
    # Its scans are known, and the removed one gets another number.
    Pipeline(client, waiting).run([scans], MASK)
    assert list(lungmix.open_cohort(store)) == ["case-002", "case-003", "case-004"]
