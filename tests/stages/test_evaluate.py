"""Evaluations that are killed and repeated, or whose masks and labels have changed since."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

import lungmix
from lungmix.callbacks import Callback
from lungmix.cli.show_evaluation import evaluation_values, show_evaluation
from lungmix.errors import DamageError, StoreError
from lungmix.formats.masks import open_mask
from lungmix.pipeline.staleness import stale_stages
from lungmix.stages import evaluate as stage
from lungmix.stages import regions
from lungmix.stages.imported_labels import import_labels
from lungmix.stages.measure import drop_stale_rows
from lungmix.stages.worst_slices import stored_slices
from lungmix.store import CaseWriter, case_files
from lungmix.store.integrity import invalidate_corrupt_stages
from lungmix.store.schema import TEMPORARY
from support.evaluations import GRID, OneWorker, case_of_labels, lungs, write

pytestmark = pytest.mark.usefixtures("evaluates_here")

NAMES = ("a", "b", "c")


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for shift, name in enumerate(NAMES):
        case_of_labels(cohort, name, lungs(), tissue=(lungs(shift) > 0).astype(np.uint8) * 3)
        write(tmp_path / "r", f"{name}.nrrd", lungs(shift + 1))
    return cohort


@pytest.fixture
def compared(monkeypatch):
    """Names of the cases that are compared, with the attempt of their tasks, in the order of computation."""
    claims = []

    def compare(client, case_ref, *arguments, **options):
        claims.append(case_ref)
        return real(client, case_ref, *arguments, **options)

    real = stage.compare
    monkeypatch.setattr(stage, "compare", compare)
    return claims


def evaluate(cohort, what="lungs", callback=None):
    folder = cohort.url.replace("s.zarr", "r")
    cohort = lungmix.open_cohort(cohort.url, "r+")
    return lungmix.evaluate(cohort, folder, what, client=OneWorker(), callback=callback or Callback())


def table(cohort, file="evaluation.csv"):
    return list(csv.DictReader((cohort.read_text(file) or "").splitlines()))


def names_of(claims):
    return [case_ref.name for case_ref in claims]


def leftovers(cohort):
    cases = lungmix.open_cohort(cohort.url).values()
    return [(case.name, array) for case in cases for array in TEMPORARY if array in case._group]


class Warned(Callback):
    """Callback that stores warnings."""

    def __init__(self):
        self.warnings = []

    def on_warning(self, message):
        self.warnings.append(message)


class Killed(BaseException):
    """Stands for the end of the process by a signal; no `Exception`, so that it does not count as a failed case."""


class KilledAfter(Callback):
    """Callback that raises `Killed` when a case has ended."""

    def on_case_end(self, case, failure=None):
        raise Killed


def test_second_evaluation_of_the_same_reference_computes_nothing(cohort, compared):
    first = evaluate(cohort)
    before = cohort.read_bytes("evaluation.csv"), cohort.read_bytes("evaluation_slices.json")
    assert names_of(compared) == [*NAMES]
    assert first.kept == []
    second = evaluate(cohort)
    assert names_of(compared) == [*NAMES]
    assert second.kept == second.done == [*NAMES]
    assert (second.rows, second.notes) == (first.rows, first.notes)
    assert (cohort.read_bytes("evaluation.csv"), cohort.read_bytes("evaluation_slices.json")) == before
    console = Console(file=io.StringIO(), width=200)
    show_evaluation(console, second, "s")
    assert "3 done (3 of them as compared before), 0 failed" in console.file.getvalue()
    assert evaluation_values("s", second)["kept"] == [*NAMES]


def test_rows_without_a_number_are_the_same_when_they_are_kept(cohort, tmp_path):
    case_of_labels(lungmix.open_cohort(cohort.url, "r+"), "b", lungs(), tissue=np.zeros(GRID.shape, np.uint8))
    first = evaluate(cohort, "ggo=1,consolidation=2")
    second = evaluate(cohort, "ggo=1,consolidation=2")
    assert second.kept == [*NAMES]
    assert any(np.isnan(row["precision"]) for row in first.rows)
    assert repr(second.rows) == repr(first.rows)
    assert second.by_hu == first.by_hu
    assert first.by_hu


def test_killed_evaluation_keeps_the_cases_that_it_had_finished(cohort, compared):
    undisturbed = evaluate(cohort)
    expected = cohort.read_bytes("evaluation.csv"), cohort.read_bytes("evaluation_slices.json")
    for file in ("evaluation.csv", "evaluation.parquet", "evaluation_slices.json"):
        (cohort._group.store.root / file).unlink()
    for case in lungmix.open_cohort(cohort.url, "r+").values():
        CaseWriter(case).record_evaluations({})
    compared.clear()
    with pytest.raises(Killed):
        evaluate(cohort, callback=KilledAfter())
    finished = names_of(compared)
    assert 0 < len(finished) < len(NAMES)
    assert cohort.read_text("evaluation.csv") is None
    result = evaluate(cohort)
    assert result.kept == finished
    assert names_of(compared) == [*NAMES]
    assert result.rows == undisturbed.rows
    assert (cohort.read_bytes("evaluation.csv"), cohort.read_bytes("evaluation_slices.json")) == expected
    assert [worst.case for worst in stored_slices(cohort)] == ["c", "b", "a"]
    assert leftovers(cohort) == []


def test_a_changed_mask_or_reference_is_compared_again_alone(cohort, compared, tmp_path):
    evaluate(cohort)
    write(tmp_path / "r", "b.nrrd", lungs(3))
    case = CaseWriter(lungmix.open_cohort(cohort.url, "r+")["c"])
    case.record("mask", {**case.stages["mask"], "key": "another"})
    case.record("side", {"key": regions.key_for(case)})
    compared.clear()
    assert evaluate(cohort).kept == ["a"]
    assert names_of(compared) == ["b", "c"]


def test_changed_labels_are_compared_again_and_lungs_are_not(cohort, compared):
    evaluate(cohort)
    evaluate(cohort, "ggo=1")
    case = CaseWriter(lungmix.open_cohort(cohort.url, "r+")["b"])
    case.record("label", {"key": "another"})
    compared.clear()
    assert evaluate(cohort).kept == [*NAMES]
    assert compared == []
    assert evaluate(cohort, "ggo=1").kept == ["a", "c"]
    assert names_of(compared) == ["b"]


def test_later_evaluation_of_a_region_replaces_its_record(cohort, compared):
    evaluate(cohort)
    evaluate(cohort, "right=1, ggo=1")
    assert {*lungmix.open_cohort(cohort.url)["a"].evaluations} == {"right=1,ggo=1"}
    compared.clear()
    assert evaluate(cohort).kept == []
    assert names_of(compared) == [*NAMES]


def test_rows_of_lungs_stay_when_labels_are_about_to_change(cohort):
    evaluate(cohort, "lungs=1,right=1,mask=1,ggo=1")
    assert [row["model"] for row in table(cohort)[:4]] == ["", "", "", "unknown"]
    relabel = SimpleNamespace(
        name="label", cache_key=lambda case: "another" if case.name == "b" else f"{case.name} label"
    )
    drop_stale_rows(cohort, lambda case: stale_stages(case, [relabel]))
    regions = {name: [row["region"] for row in table(cohort) if row["case"] == name] for name in NAMES}
    assert regions == {"a": ["lungs", "right", "mask", "ggo"], "b": ["lungs", "right", "mask"], "c": regions["a"]}
    by_hu = {(row["case"], row["region"]) for row in table(cohort, "evaluation_hu.csv")}
    assert {name for name, region in by_hu if region == "ggo"} == {"a", "c"}
    assert ("b", "lungs") in by_hu
    remask = SimpleNamespace(name="mask", cache_key=lambda case: "another" if case.name == "b" else f"{case.name} mask")
    drop_stale_rows(cohort, lambda case: stale_stages(case, [remask]))
    assert {row["case"] for row in table(cohort)} == {"a", "c"}


def test_case_that_ends_workers_is_compared_once_more_alone(cohort, monkeypatch):
    tried = []

    def compare(client, case_ref, *arguments, **options):
        tried.append(case_ref.name)
        if tried.count("a") == 1 and case_ref.name == "a":
            raise MemoryError
        return real(client, case_ref, *arguments, **options)

    real = stage.compare
    monkeypatch.setattr(stage, "compare", compare)
    result = evaluate(cohort)
    assert tried == ["a", "b", "c", "a"]
    assert result.done == [*NAMES]


@pytest.mark.parametrize("array", ["labels/lung/0", "labels/side/0"])
def test_a_damaged_mask_fails_with_its_file_and_nothing_is_said_to_be_recomputed(cohort, monkeypatch, array):
    def compare(client, case_ref, *arguments, **options):
        if case_ref.name == "a":
            raise DamageError("a", array, "c/0/0/0")
        return real(client, case_ref, *arguments, **options)

    real, callback = stage.compare, Warned()
    monkeypatch.setattr(stage, "compare", compare)
    result = evaluate(cohort, callback=callback)
    assert (result.done, callback.warnings) == (["b", "c"], [])
    reason = f"case a: {array} is damaged in c/0/0/0: run `Pipeline.run(sources)` with the source of the scan"
    assert result.failed == {"a": reason}
    (invalid,) = lungmix.open_cohort(cohort.url)["a"].damage.values()
    assert invalid["reason"] == f"{array} is damaged in c/0/0/0"


def test_a_mask_whose_file_is_missing_is_invalid_and_not_said_to_be_recomputed(cohort):
    case = CaseWriter(cohort["a"])
    case.record("mask", case.stages["mask"], {"labels/lung/0/c/9/0/0": [9, "00000000"]})
    callback = Warned()
    result = evaluate(cohort, callback=callback)
    (warning,) = callback.warnings
    assert warning.startswith("a: labels/lung/0/c/9/0/0 ")
    assert warning.endswith(": the stage mask is invalid until a run recomputes it")
    assert "case a has no lung mask" in result.failed["a"]


def test_tasks_of_a_killed_evaluation_write_into_no_later_one(cohort, monkeypatch, tmp_path):
    monkeypatch.setattr(case_files, "_ATTEMPT_TIMEOUT_S", 0.0)
    real, killed, rejected = stage.compare, [], []

    def die(client, case_ref, *arguments, **options):
        killed.append(case_ref)
        raise Killed

    def disturb(client, case_ref, *arguments, **options):
        if case_ref.name == killed[0].name:
            with pytest.raises(StoreError, match="another run"):
                import_labels(client, killed[0], open_mask(tmp_path / "r" / "c.nrrd"), {1: 2, 2: 1})
            rejected.append(case_ref)
        return real(client, case_ref, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "compare", die)
        patch.setattr(stage, "_clean", lambda case: None)
        patch.setattr(CaseWriter, "release", lambda case: None)
        with pytest.raises(Killed):
            evaluate(cohort)
    assert leftovers(cohort)
    monkeypatch.setattr(stage, "compare", disturb)
    rows = evaluate(cohort).rows
    assert rejected
    for name in NAMES:
        CaseWriter(lungmix.open_cohort(cohort.url, "r+")[name]).record_evaluations({})
    monkeypatch.setattr(stage, "compare", real)
    assert evaluate(cohort).rows == rows
    assert leftovers(cohort) == []


def test_next_command_deletes_arrays_of_a_killed_evaluation(cohort):
    case = CaseWriter(lungmix.open_cohort(cohort.url, "r+")["a"])
    case.claim(stage.STAGE)
    case.create_temporary("reference")
    case = lungmix.open_cohort(cohort.url, "r+")["a"]
    assert invalidate_corrupt_stages(case) == {}
    assert leftovers(cohort) == []
    assert CaseWriter(lungmix.open_cohort(cohort.url)["a"]).under_way is None


def test_a_bad_reference_is_no_failure_of_the_case(cohort, tmp_path):
    write(tmp_path / "r", "b.nrrd", np.zeros(GRID.shape, np.uint8))
    result = evaluate(cohort)
    assert list(result.failed) == ["b"]
    case = lungmix.open_cohort(cohort.url)["b"]
    assert case.failure is None
    assert CaseWriter(case).under_way is None
    assert leftovers(cohort) == []


def test_provenance_names_the_regions_of_an_evaluation_without_its_rows(cohort):
    evaluate(cohort)
    (record,) = lungmix.open_cohort(cohort.url)["a"].provenance["evaluations"].values()
    assert record["regions"] == ["lungs", "right", "left"]
    assert "rows" not in record
    assert "dice" not in json.dumps(record)
