"""Receipts of objects, corrupt stages, attempts and interrupted cases."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.errors import DamageError, StoreError
from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CaseRef, CaseWriter, CohortWriter, case_files, invalidate_corrupt_stages
from lungmix.store.objects import receipt_of
from lungmix.verify import corrupt_objects


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "store.zarr", "a")


@pytest.fixture
def case(cohort):
    """Converted case with three slabs, whose lung mask fills the middle slab."""
    case = CohortWriter(cohort).add(
        "case-001", Geometry((40, 33, 150), (0.7, 0.7, 2.0)), Acquisition("CT"), {"key": "c", "source": "place"}
    )
    case.start_stage("convert", "c")
    volume = np.random.default_rng(0).integers(-1000, 1000, case.geometry.shape).astype(np.int16)
    files = case.create_image("ct")
    for start, stop in case.layout.slabs():
        files |= case.write("ct", start, volume[start:stop])
    case.record("convert", {"key": "c", "source": "place"}, files)
    case.start_stage("mask", "m")
    files = case.create_image("lung")
    files |= case.write("lung", 64, np.ones((64, *case.geometry.shape[1:]), np.uint8))
    files |= case.write_histogram("hu_counts", np.arange(65536, dtype=np.uint64))
    case.record("mask", {"key": "m"}, files)
    return case


def again(cohort):
    return CaseWriter(lungmix.open_cohort(cohort.url, "r+")["case-001"])


def folder(cohort):
    return Path(cohort.url) / "case-001"


def test_receipts_match_the_bytes_on_disk(cohort, case):
    for record in case.stages.values():
        assert record["files"]
        for key, receipt in record["files"].items():
            assert receipt_of((folder(cohort) / key).read_bytes()) == receipt
    recorded = {key for record in case.stages.values() for key in record["files"]}
    on_disk = {p.relative_to(folder(cohort)).as_posix() for p in folder(cohort).rglob("*") if p.is_file()}
    assert on_disk - recorded == {"zarr.json", "labels/zarr.json"}


def test_valid_case_is_left_unchanged(cohort, case):
    before = (folder(cohort) / "zarr.json").read_bytes()
    assert invalidate_corrupt_stages(again(cohort)) == {}
    assert (folder(cohort) / "zarr.json").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "stage"),
    [
        ("1/c/0/0/0", "convert"),
        ("labels/lung/0/c/1/0/0", "mask"),
        ("hu_counts/c/0", "mask"),
        ("2/zarr.json", "convert"),
    ],
)
def test_missing_and_truncated_objects_invalidate_their_stage_only(cohort, case, key, stage):
    content = (folder(cohort) / key).read_bytes()
    for change in (None, content[:-1], content + b"x"):
        if change is None:
            (folder(cohort) / key).unlink()
        else:
            (folder(cohort) / key).write_bytes(change)
        invalidated = invalidate_corrupt_stages(again(cohort))
        assert list(invalidated) == [stage]
        assert key in invalidated[stage]
        assert set(again(cohort).stages) == {"convert", "mask"} - {stage}
        assert again(cohort).damage[stage]["record"] == case.stages[stage]
        (folder(cohort) / key).write_bytes(content)
        again(cohort).record(stage, case.stages[stage])
    assert invalidate_corrupt_stages(again(cohort)) == {}


def test_unexpected_object_is_found(cohort, case):
    stray = folder(cohort) / "labels/lung/0/c/0/0/0"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"of another run")
    assert "labels/lung/0/c/0/0/0" in invalidate_corrupt_stages(again(cohort))["mask"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"attributes": {"ome": {"labels": ["tissue"]}}}'])
def test_corrupt_list_of_label_maps_is_rewritten(cohort, case, content):
    file = folder(cohort) / "labels/zarr.json"
    original = file.read_bytes()
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert corrupt_objects(again(cohort)) == ["labels/zarr.json"]
    assert list(invalidate_corrupt_stages(again(cohort))) == ["labels/zarr.json"]
    assert file.read_bytes() == original
    assert set(again(cohort).stages) == {"convert", "mask"}
    assert not corrupt_objects(again(cohort))


def test_flipped_byte_of_the_histogram_is_found_without_reading_voxels(cohort, case):
    flip(folder(cohort) / "hu_counts/c/0")
    assert list(invalidate_corrupt_stages(again(cohort))) == ["mask"]


@pytest.mark.parametrize("place", [0, 0.5, -1])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_error_for_a_flipped_byte_of_a_shard_names_case_and_array(cohort, case, level, place):
    flip(folder(cohort) / f"{level}/c/1/0/0", place)
    damaged = again(cohort)
    with pytest.raises(DamageError, match=f"case case-001: {level} is damaged"):
        damaged.array("ct", level).compute(scheduler="synchronous")
    assert np.array_equal(damaged.lung[64:128].compute(), np.ones((64, 33, 40), np.uint8))


def test_damage_error_can_be_sent_from_a_worker():
    error = pickle.loads(pickle.dumps(DamageError("a", "labels/lung/0", "slices 0 to 64")))
    assert (error.case, error.array, error.where) == ("a", "labels/lung/0", "slices 0 to 64")


def test_partial_files_and_temporary_arrays_of_a_killed_writer_are_deleted(cohort, case):
    part = folder(cohort) / f"0/c/0/0/0.{'0' * 32}.partial"
    part.write_bytes(b"half")
    case.create_packed("opened")
    assert invalidate_corrupt_stages(again(cohort)) == {}
    assert not part.exists()
    assert not (folder(cohort) / "opened").exists()


def test_stage_recomputed_from_equal_inputs_keeps_dependent_stages(cohort, case):
    case.record("label", {"key": "l"})
    case.mark_damaged("mask", "a shard is missing")
    case.start_stage("mask", "m")
    assert set(again(cohort).stages) == {"convert", "label"}
    case.record("mask", {"key": "m"})
    assert not again(cohort).damage
    case.start_stage("mask", "other")
    assert set(again(cohort).stages) == {"convert"}


def test_task_of_a_replaced_attempt_can_no_longer_write(cohort, case, monkeypatch):
    monkeypatch.setattr(case_files, "_ATTEMPT_TIMEOUT_S", 0.1)
    old = CaseRef.of(cohort, "case-001", case.start_stage("mask", "m"))
    old.open("r+").write("lung", 0, np.ones((64, 33, 40), np.uint8))
    new = CaseRef.of(cohort, "case-001", again(cohort).start_stage("mask", "m"))
    with pytest.raises(StoreError, match="another run"):
        old.open("r+")
    new.open("r+")
    again(cohort).record("mask", {"key": "m"})
    with pytest.raises(StoreError, match="another run"):
        new.open("r+")


def test_same_records_in_any_order_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("lungmix.store.case_writer.secrets.token_hex", lambda n: "00" * n)
    texts = []
    for order in (("mask", "side", "label"), ("mask", "label", "side")):
        cohort = lungmix.open_cohort(tmp_path / f"{order[1]}.zarr", "a")
        case = CohortWriter(cohort).add("a", Geometry((4, 4, 4)), Acquisition())
        for stage in order:
            case.start_stage(stage, stage)
            case.record(stage, {"key": stage}, {"b": [1, "x"], "a": [2, "y"]})
        texts.append((tmp_path / f"{order[1]}.zarr" / "a" / "zarr.json").read_bytes())
    assert texts[0] == texts[1]


def test_all_objects_of_a_removed_case_are_deleted(cohort, case):
    CohortWriter(cohort).remove("case-001")
    assert not folder(cohort).exists()
    assert "case-001" not in cohort
    CohortWriter(cohort).remove("case-001")


def flip(file, place=0.5):
    content = bytearray(file.read_bytes())
    content[place if isinstance(place, int) else int(len(content) * place)] ^= 0x10
    time = file.stat().st_mtime_ns
    file.write_bytes(content)
    os.utime(file, ns=(time, time))
