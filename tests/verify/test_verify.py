"""Verification of stores: comparison with recomputed results, and invalidation of corrupt stages."""

import json
import shutil
from pathlib import Path

import pytest

import lungmix
from lungmix.cli.app import _status_of
from lungmix.formats import Scan, find_scans
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.stages import measure
from lungmix.store import CaseWriter
from lungmix.store.tables import rows_of, text_of
from lungmix.tissue import AIRWAY
from lungmix.verify import invalidate, scratch_url, verify_cases
from lungmix.verify.case import _facts_of as facts_of
from lungmix.verify.scratch import scratch_store
from support.series import hu_of, write_series
from support.stores import assert_same_store, store_digest

pytestmark = pytest.mark.slow

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))
NAME = "case-001"


@pytest.fixture(scope="module")
def finished(scan, client, tmp_path_factory):
    """Measured store with one scan of two slabs."""
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path_factory.mktemp("store") / "cohort.zarr", "a"))
    assert not pipeline.run([scan], mask=MASK, model="published").failed
    pipeline.measure([AIRWAY], radiomics=True)
    return pipeline.cohort.url


@pytest.fixture
def store(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy.zarr"))


def verify(client, store, scan=None):
    scans = {} if scan is None else {NAME: next(item for item in find_scans(scan) if isinstance(item, Scan))}
    cohort = lungmix.open_cohort(store)
    return verify_cases(client, cohort, list(cohort), scans)


def change_case(store, change):
    """Change the attributes of the case in its file, as an accident might."""
    file = store / NAME / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"])
    file.write_text(json.dumps(document, indent=2))


def change_digit(file):
    """Add ten to the last number other than NaN and 0 in the last row of a table."""
    *rows, last = file.read_text().splitlines()
    cells = last.split(",")
    at = max(i for i, cell in enumerate(cells) if cell not in ("nan", "0"))
    cells[at] = str(float(cells[at]) + 10)
    file.write_text("\n".join([*rows, ",".join(cells)]) + "\n")


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def test_unchanged_store_passes_with_its_source(client, store, scan):
    before = store_digest(store)
    report = verify(client, store, scan)
    assert (report.wrong, report.notes, report.damaged) == ({NAME: []}, {}, {})
    assert store_digest(store) == before


def test_changed_metadata_and_results_are_reported(client, store, scan):
    def change(attributes):
        case_attributes = attributes["lungmix"]
        case_attributes["geometry"]["origin"][0] += 100.0
        case_attributes["acquisition"]["kvp"] = 77.0
        case_attributes["stages"]["side"]["touches"] = {
            key: ["z first"] for key in case_attributes["stages"]["side"]["touches"]
        }
        case_attributes["stages"]["mask"]["voxels"] += 1
        case_attributes["stages"]["mask"]["islands"] += 1
        case_attributes["stages"]["label"]["median_voxels"][2] += 1
        attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [9.0, 9.0, 9.0]

    change_case(store, change)
    report = verify(client, store, scan)
    problems = " / ".join(report.wrong[NAME])
    for words in (
        "origin, kvp: not as in the source: remove it with `Pipeline.remove(names)`",
        "touches of the stage side differs when recomputed",
        "voxels of the stage mask differs when recomputed",
        "islands of the stage mask differs when recomputed",
        "median_voxels of the stage label differs when recomputed",
        "its OME-Zarr metadata do not match its geometry",
    ):
        assert words in problems
    assert set(report.damaged[NAME]) == {"mask", "side", "label"}


def test_changed_digits_and_unexpected_rows_of_tables_are_reported(client, store):
    for name in ("measurements.csv", "radiomics.csv"):
        change_digit(store / name)
    with (store / "radiomics.csv").open("a") as stream:
        stream.write("case-009,lung,0,5\n")
    report = verify(client, store).wrong
    assert [problem.split(":")[0] for problem in report[NAME]] == [
        "its row in measurements.csv does not match its histograms",
        "its row in radiomics.csv does not match its histograms",
    ]
    assert "case-009" in report["radiomics.csv"][0]
    assert "its content differs from measurements.csv" in report["measurements.parquet"][0]


@pytest.mark.parametrize("present", [(), ("ggo_expected", "lung_involvement_expected")])
def test_table_of_an_earlier_version_passes_with_a_note(client, store, present):
    table = store / "measurements.csv"
    rows = measure.without_expected_columns(rows_of(table.read_text()), present)
    measure.write_table(lungmix.open_cohort(store, "r+"), "measurements.csv", text_of(rows))
    report = verify(client, store)
    assert report.faults == {}
    assert report.notes["measurements.csv"] == [
        "an earlier version wrote it, without expected values: `Pipeline.measure()` adds them"
    ]
    change_digit(table)
    assert "its row in measurements.csv does not match" in verify(client, store).wrong[NAME][0]


def test_row_of_a_case_without_labels_is_reported(client, store):
    CaseWriter(lungmix.open_cohort(store, "r+")[NAME]).start_stage("label", "of a run that was killed")
    report = verify(client, store).wrong
    assert "the stage label was interrupted" in report[NAME]
    for file in ("measurements.csv", "radiomics.csv"):
        assert 'it has a row of "case-001", which has no labels' in report[file][0]


def test_unexpected_object_is_reported(client, store):
    shard = store / NAME / "labels/tissue/0/c/9/0/0"
    shard.parent.mkdir(parents=True)
    shutil.copy(next((store / NAME / "labels/tissue/0").rglob("c/*/0/0")), shard)
    report = verify(client, store)
    assert "labels/tissue/0/c/9/0/0 was not written by its stage" in report.wrong[NAME]
    assert list(report.damaged[NAME]) == ["label"]


def test_wrong_coarser_level_with_valid_checksums_is_found(client, store):
    case = CaseWriter(lungmix.open_cohort(store, "r+")[NAME])
    record = case.stages["convert"]
    files = record.pop("files")
    slab = case.read("ct", 0, case.layout.slab)
    wrong = case.write("ct", 0, slab + 1)
    right = case._write_chunks("0", 0, slab)
    case.record("convert", record, files | wrong | right)
    assert "1/c/0/0/0 differs when recomputed" in verify(client, store).wrong[NAME]


@pytest.mark.parametrize("change", ["lost", "another"])
def test_missing_or_changed_model_is_reported(client, store, change):
    if change == "lost":
        (store / "model.json").unlink()
    else:
        (store / "model.json").write_text((store / "model.json").read_text().replace("0.33915991", "0.33915992"))
    report = verify(client, store).wrong
    assert "run `Pipeline.fit(model=FILE)`" in report["model.json"][0]
    assert "its labels cannot be recomputed without the store's model" in report[NAME]


def test_missing_stages_are_notes_and_failed_stages_are_problems(client, scan, tmp_path):
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    pipeline.convert([scan])
    report = verify(client, tmp_path / "s.zarr")
    assert (report.wrong, report.notes) == ({NAME: []}, {NAME: ["it has no lung mask"]})
    assert pipeline.mask(MaskParameters(min_voxels=10**9)).failed
    assert "mask failed: no lung found" in verify(client, tmp_path / "s.zarr").wrong[NAME][0]
    assert not pipeline.mask(MASK).failed
    report = verify(client, tmp_path / "s.zarr")
    assert (report.wrong, report.notes) == ({NAME: []}, {NAME: ["it has no labels"]})


def test_missing_and_unreadable_sources_and_unknown_scans_are_problems(client, store, scan, tmp_path, capsys):
    (tmp_path / "words.nrrd").write_text("no image")
    write_series(tmp_path / "other", hu_of((12, 20, 24)))
    sources = [scan, tmp_path / "none", tmp_path / "words.nrrd", tmp_path / "other"]
    words = ["verify", str(store), *map(str, sources), "--all", "--scheduler", client.scheduler.address, "--quiet"]
    assert _status_of([*words, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert list(said["wrong"]) == ["source 2", "source 3", "source 4"]
    assert said["verified"] == [NAME]
    assert "words" not in json.dumps(said["wrong"])
    assert _status_of(words) == 1
    out = capsys.readouterr().out
    assert "source 4: other is not in the store" in out
    assert "1 of 1 case passed" in out


def test_series_are_selected_as_in_a_run(client, tmp_path, capsys):
    files = write_series(tmp_path / "series", hu_of((12, 20, 24)))
    files[5].unlink()
    store, source = str(tmp_path / "s.zarr"), str(tmp_path / "series")
    words = ["--scheduler", client.scheduler.address, "--quiet"]
    assert _status_of(["convert", store, source, "--allow-gaps", *words]) == 0
    assert _status_of(["verify", store, source, "--allow-gaps", *words]) == 0
    assert _status_of(["verify", store, source, *words]) == 1
    assert _status_of(["verify", store, source, "--allow-gaps", "--series-filter", "thickness<0", *words]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    "key",
    [
        "labels/tissue/0/c/0/0/0",
        "labels/tissue_median/1/c/0/0/0",
        "labels/side/0/c/0/0/0",
        "1/c/0/0/0",
        "labels/lung/2/c/0/0/0",
        "air/c/0/0/0",
    ],
)
def test_flipped_byte_is_repaired_by_a_run_after_invalidation(client, store, scan, finished, key):
    flip(store / NAME / key)
    report = verify(client, store)
    assert report.wrong[NAME] == [f"{key} is not what was written"]
    cohort = lungmix.open_cohort(store, "r+")
    assert cohort[NAME].damage == {}
    with cohort.locked():
        assert invalidate(cohort, report)[NAME].values()
    assert not Pipeline(client, lungmix.open_cohort(store, "r+")).run([scan], mask=MASK, model="published").failed
    assert_same_store(finished, store)


def test_command_names_the_remedy_and_invalidates_on_request(client, store, scan, capsys):
    flip(store / NAME / "labels/side/1/c/0/0/0")
    before = store_digest(store)
    words = ["verify", str(store), "--scheduler", client.scheduler.address, "--quiet"]
    assert _status_of(words) == 1
    assert f"`lungmix verify {store} --invalidate`" in capsys.readouterr().out
    assert store_digest(store) == before
    assert _status_of([*words, "--invalidate", "--json"]) == 1
    withdrawn = json.loads(capsys.readouterr().out)["withdrawn"]
    assert withdrawn == {NAME: {"side": "labels/side/1/c/0/0/0 is not what was written"}}
    assert list(lungmix.open_cohort(store)[NAME].damage) == ["side"]


def test_scratch_store_is_in_a_temporary_folder_if_the_disk_is_read_only(monkeypatch, tmp_path):
    store = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    # No user, not even root, can create a folder at this place.
    monkeypatch.setattr("lungmix.verify.scratch.scratch_url", lambda url: "/proc/cohort.zarr.verify-0")
    with scratch_store(store) as scratch:
        assert Path(scratch.url).is_relative_to(temporary)
        assert scratch.settings["scratch"]
    assert not list(temporary.iterdir())


def test_scratch_store_is_next_to_the_store_or_inside_its_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scratch_url("s3://cohorts/study/a.zarr").startswith("s3://cohorts/study/a.zarr.verify-")
    assert scratch_url("s3://cohorts/").startswith("s3://cohorts/.verify-")
    assert scratch_url("s.zarr").startswith(f"{tmp_path}/s.zarr.verify-")
    assert scratch_url(".").startswith(f"{tmp_path}.verify-")


def test_notes_are_compared_by_their_numbers_and_not_by_their_words():
    assert facts_of("slices of 0.3 mm lie 5.000 mm apart: what lies between them is not seen") == ("0.3", "5.000")
    assert facts_of("slices of 0.3 mm lie 5.000 mm apart: tissue between them is not imaged") == ("0.3", "5.000")
    assert facts_of("slices of 0.3 mm lie 6.000 mm apart") != ("0.3", "5.000")
