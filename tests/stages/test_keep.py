"""The methods and commands verify, remove and relabel."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from zarr.storage import LocalStore

import lungmix
from lungmix.cli.app import _status_of
from lungmix.errors import ModelError, StoreError
from lungmix.formats import Scan, find_scans
from lungmix.intake.case_names import assign_names
from lungmix.parameters import FitParameters, MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.stages.measure import read_measurements
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.models import label_id
from lungmix.tissue import AIRWAY
from lungmix.verify import sample_of, verify_cases
from support.stores import assert_same_store, store_digest

pytestmark = pytest.mark.slow

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))


@pytest.fixture
def store(finished_store, tmp_path):
    return Path(shutil.copytree(finished_store, tmp_path / "copy.zarr"))


def scans_in(folder):
    return [item for item in find_scans(folder) if isinstance(item, Scan)]


def verify(client, store, scans=None):
    cohort = lungmix.open_cohort(store)
    named = {} if scans is None else assign_names(cohort, scans_in(scans))
    return verify_cases(client, cohort, list(cohort), named).wrong


def test_unchanged_store_passes_verification_and_stays_unchanged(client, store, scans):
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
    report = verify(client, store)
    assert report["case-002"] == [f"{key} is not what was written"]
    assert report["case-001"] == report["case-003"] == []


def test_command_ends_with_1_and_names_what_differs(client, store, capsys):
    arguments = ["verify", str(store), "--all", "--scheduler", client.scheduler.address, "--quiet", "--json"]
    assert _status_of(arguments) == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == {}
    (store / "case-003/2/c/0/0/0").unlink()
    assert _status_of(arguments) == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == {"case-003": ["2/c/0/0/0 is not what was written"]}


def test_complete_but_wrong_result_is_found_by_recomputing_it(client, store):
    case = CaseWriter(lungmix.open_cohort(store, "r+")["case-001"])
    record = case.stages["label"]
    files = record.pop("files")
    labels = case.read("tissue", 64, 128).copy()
    labels[labels == 3] = 4
    case.record("label", record, files | case.write("tissue", 64, labels))
    report = verify(client, store)
    assert "labels/tissue/0/c/1/0/0 differs when recomputed" in report["case-001"]
    assert report["case-002"] == []


def test_image_of_another_scan_is_found_by_its_source(client, store, scans):
    cohort = lungmix.open_cohort(store)
    first, two, _ = scans_in(scans)
    actual = verify_cases(client, cohort, ["case-001"], {"case-001": two}).wrong
    assert actual["case-001"][-1] == "the image is not that of the source"
    assert verify_cases(client, cohort, ["case-001"], {"case-001": first}).wrong == {"case-001": []}


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


def test_case_that_is_removed_and_added_again_differs_in_its_name_only(client, store, scans):
    Pipeline(None, lungmix.open_cohort(store, "r+")).remove(["case-002"])
    report = Pipeline(client, lungmix.open_cohort(store, "r+")).run([scans], mask=MASK)
    assert report.done == ["case-001", "case-003", "case-004"]


def test_relabelling_keeps_masks_and_the_first_model_restores_the_labels(client, store, finished_store):
    pipeline = Pipeline(client, lungmix.open_cohort(store, "r+"))
    masks = {file: file.stat().st_mtime_ns for file in store.rglob("labels/lung/**/c/*/0/0")}
    report = pipeline.relabel("published")
    assert not report.failed
    assert report.model == lungmix.load_model("published")
    assert {file: file.stat().st_mtime_ns for file in masks} == masks
    with np.testing.assert_raises(AssertionError):
        assert_same_store(finished_store, store)
    pipeline.relabel("fit")
    assert_same_store(finished_store, store)


def test_open_store_keeps_what_another_run_records(client, scans, tmp_path):
    store = tmp_path / "s.zarr"
    waiting, first = lungmix.open_cohort(store, "a"), lungmix.open_cohort(store, "a")
    Pipeline(client, first).run([scans], mask=MASK)
    recorded = lungmix.open_cohort(store).settings
    Pipeline(None, waiting).remove(["case-001"])
    settings = lungmix.open_cohort(store).settings
    for name in ("salt", "fits", "fit", "highest_number"):
        assert settings[name] == recorded[name]
    # The store knows its scans, and the removed scan gets another number.
    Pipeline(client, waiting).run([scans], mask=MASK)
    assert list(lungmix.open_cohort(store)) == ["case-002", "case-003", "case-004"]


def rows(store, file):
    """Return the lines of a table of a store, by case."""
    lines = (store / file).read_text().splitlines()
    return {line.split(",")[0]: line for line in lines[1:]}


def test_cases_that_are_not_labelled_by_the_model_fail_by_name(store, capsys):
    Pipeline(None, lungmix.open_cohort(store, "r+")).fit(fit=FitParameters(n_components=4))
    cohort = lungmix.open_cohort(store, "r+")
    CaseWriter(cohort["case-001"]).start_stage("label", "of a run that was killed")
    assert _status_of(["measure", str(store), "--quiet", "--json"]) == 1
    failed = json.loads(capsys.readouterr().out)["failed"]
    other = f"but by {label_id(cohort['case-002'])}: run `lungmix label STORE`"
    assert failed == {
        "case-001": "it has no labels: run `lungmix label STORE`",
        "case-002": f"its labels are not those of the store's model, {other}",
        "case-003": f"its labels are not those of the store's model, {other}",
    }
    assert [row["case"] for row in read_measurements(lungmix.open_cohort(store))] == ["case-002", "case-003"]


def test_removed_case_changes_no_other_row_without_measuring(store):
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure([AIRWAY], radiomics=True)
    before = {file: rows(store, file) for file in ("measurements.csv", "radiomics.csv")}
    Pipeline(None, lungmix.open_cohort(store, "r+")).fit(fit=FitParameters(n_components=4))
    Pipeline(None, lungmix.open_cohort(store, "r+")).remove(["case-002"])
    for file, rows_before in before.items():
        assert rows(store, file) == {name: line for name, line in rows_before.items() if name != "case-002"}
    assert list(rows(store, "radiomics.csv")) == ["case-001", "case-003"]


class Killed(BaseException):
    """Stands for the end of the process by a signal; no `Exception`, so that no code handles it."""


@pytest.fixture
def kill_after(monkeypatch):
    """Function ``begin(left)``: after `left` writes to stores, each further write raises `Killed`.

    Without `left`, all writes succeed. The function returns the number of writes since its last call.
    """
    state = {"left": None, "done": 0}

    def wrapped(method):
        async def write(self, key, *arguments, **options):
            if "lock" not in str(key):
                if state["left"] is not None and state["done"] >= state["left"]:
                    raise Killed
                state["done"] += 1
            return await method(self, key, *arguments, **options)

        return write

    for name in ("_set", "delete", "delete_dir"):
        monkeypatch.setattr(LocalStore, name, wrapped(getattr(LocalStore, name)))

    def begin(left=None):
        done = state["done"]
        state.update(left=left, done=0)
        return done

    return begin


def test_removal_that_was_killed_anywhere_is_finished_by_the_same_command(store, kill_after, tmp_path):
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure(radiomics=True)

    def remove(folder):
        Pipeline(None, lungmix.open_cohort(folder, "r+")).remove(["case-001", "case-003"])

    complete = shutil.copytree(store, tmp_path / "whole.zarr")
    kill_after()
    remove(complete)
    writes = kill_after()
    assert writes > 8
    for left in range(writes):
        part = shutil.copytree(store, tmp_path / f"{left}.zarr")
        kill_after(left)
        with pytest.raises(Killed):
            remove(part)
        kill_after()
        (part / "lock.json").unlink(missing_ok=True)
        remove(part)
        assert_same_store(complete, part)
        shutil.rmtree(part)
    with pytest.raises(StoreError, match="no case 'case-001'"):
        remove(complete)


def test_scan_whose_conversion_failed_can_be_removed(client, tmp_path, scans):
    cut = tmp_path / "cut.nrrd"
    content = (scans / "case-001.nrrd").read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    assert list(pipeline.convert([cut]).failed) == ["case-001"]
    pipeline.remove(["case-001"])
    assert pipeline.cohort.register == {}


@pytest.mark.parametrize("stage", ["mask", "label", "run", "convert"])
def test_rows_are_dropped_before_their_results_change(store, scans, client, monkeypatch, stage):
    """Rows are already dropped when a stage begins, so a command that is killed later leaves no stale row."""
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure(radiomics=True)
    pipeline = Pipeline(client, lungmix.open_cohort(store, "r+"))
    seen = {}

    def look(*_, **__):
        seen.update({file: rows(store, file) for file in ("measurements.csv", "radiomics.csv")})
        raise Killed

    monkeypatch.setattr("lungmix.pipeline.runner.CaseRunner.run_cases", look)
    if stage == "label":
        pipeline.fit("published")
        assert set(rows(store, "measurements.csv")) == {"case-001", "case-002", "case-003"}
    work = {
        "mask": lambda: pipeline.mask(MaskParameters(threshold=-300, opening=1, min_voxels=3000, radii=(4, 3))),
        "label": pipeline.label,
        "run": lambda: pipeline.run([scans], mask=MASK, model="published"),
        "convert": lambda: pipeline.convert([scans_in(scans)[1]], chunk_slices=8),
    }[stage]
    with pytest.raises(Killed):
        work()
    left = {"case-001", "case-003"} if stage == "convert" else set()
    assert {file: set(cases) for file, cases in seen.items()} == dict.fromkeys(seen, left)
    assert seen


def test_unchanged_case_keeps_its_row(client, tmp_path, scans):
    source = tmp_path / "scan.nrrd"
    shutil.copy(scans / "case-001.nrrd", source)
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    assert not pipeline.run([source], mask=MASK, model="published").failed
    before = (tmp_path / "s.zarr/measurements.csv").read_bytes()
    source.write_bytes(source.read_bytes()[:-2000])
    assert list(pipeline.run([source], mask=MASK, model="published").failed) == ["case-001"]
    assert (tmp_path / "s.zarr/measurements.csv").read_bytes() == before


def test_mask_of_the_same_sizes_keeps_the_rows(store, client):
    before = (store / "measurements.csv").read_bytes()
    assert not Pipeline(client, lungmix.open_cohort(store, "r+")).mask(MASK).failed
    assert (store / "measurements.csv").read_bytes() == before


def test_rows_of_cases_without_labels_are_not_read(store):
    cohort = lungmix.open_cohort(store, "r+")
    CaseWriter(cohort["case-002"]).start_stage("mask", "others")
    (store / "case-003/labels/tissue/0/c/1/0/0").write_bytes(b"")
    CaseWriter(cohort["case-003"]).mark_damaged("label", "cut short")
    assert [row["case"] for row in read_measurements(cohort)] == ["case-001", "case-003"]


def test_new_labels_update_both_tables_with_the_excluded_regions(client, store, scans):
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure([AIRWAY], radiomics=True)
    files = ("measurements.csv", "measurements.parquet", "radiomics.csv", "radiomics.parquet")
    before = {file: (store / file).read_bytes() for file in files}
    Pipeline(client, lungmix.open_cohort(store, "r+")).relabel("published")
    relabelled = {file: (store / file).read_bytes() for file in files}
    assert all(relabelled[file] != before[file] for file in files)
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure([AIRWAY])
    assert {file: (store / file).read_bytes() for file in files} == relabelled
    Pipeline(client, lungmix.open_cohort(store, "r+")).run([scans], mask=MASK)
    assert {file: (store / file).read_bytes() for file in files} == before
    Pipeline(None, lungmix.open_cohort(store, "r+")).measure()
    assert (store / "radiomics.csv").read_bytes() != before["radiomics.csv"]


@pytest.mark.parametrize("given", [True, False])
def test_model_with_another_digest_is_not_used(store, given):
    pipeline = Pipeline(None, lungmix.open_cohort(store, "r+"))
    if given:
        pipeline.fit("published")
    document = json.loads((store / "model.json").read_text())
    document["means"][0] -= 1
    (store / "model.json").write_text(json.dumps(document))
    remedy = r"Pipeline.fit\(model=FILE\)" if given else r"Pipeline.fit\(\)`"
    with pytest.raises(StoreError, match=f"model.json does not match its digest: .*{remedy}"):
        pipeline.measure()
    (store / "model.json").unlink()
    with pytest.raises(StoreError, match=f"model.json is missing: .*{remedy}"):
        pipeline.measure()
    assert not pipeline.fit("published" if given else "fit").failed
    assert set(pipeline.measure().failed) == ({"case-001", "case-002", "case-003"} if given else set())


def test_model_of_a_store_without_digest_is_used(store):
    cohort = lungmix.open_cohort(store, "r+")
    settings = cohort.settings["fit"]
    CohortWriter(cohort).record_settings(fit={key: value for key, value in settings.items() if key != "sha256"})
    assert Pipeline(None, lungmix.open_cohort(store, "r+")).measure().done == ["case-001", "case-002", "case-003"]
    (store / "model.json").write_text("{")
    with pytest.raises(ModelError):
        Pipeline(None, lungmix.open_cohort(store, "r+")).measure()
