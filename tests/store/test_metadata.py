"""Corrupt metadata of a case or a store: reported with the remedy, while other cases stay usable."""

import json

import numpy as np
import pytest

import lungmix
from lungmix.cli.app import _status_of
from lungmix.errors import StoreError
from lungmix.formats import find_scans, write_image
from lungmix.geometry import Geometry
from lungmix.intake.case_names import assign_names, persist_case_names
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CaseWriter, CohortWriter
from lungmix.store.digests import location_digest
from lungmix.webpage.overview import overview_of

GEOMETRY = Geometry((4, 4, 4))


def other_types(content):
    """Yield metadata that are valid JSON, each with one value of another type."""
    for path, value in [
        ((), []), ((), None), ((), {}), (("node_type",), "array"), (("zarr_format",), "3"), (("attributes",), []),
        (("attributes", "lungmix"), "text"), (("attributes", "lungmix"), {}),
    ]:  # fmt: skip
        yield json.dumps(replaced(json.loads(content), path, value)).encode()


def replaced(document, path, value):
    if not path:
        return value
    return {**document, path[0]: replaced(document[path[0]], path[1:], value)}


def damages(content):
    return [b"", b" \n", content[:-20], content[: len(content) // 2], b"\xff\xfe\x00", b"[" * 5000, b"x" + content,
            *other_types(content)]  # fmt: skip


def case_types(content):
    """Yield metadata of a case, each with one attribute of a wrong type or value."""
    path_of_attributes = ("attributes", "lungmix")
    for path, value in [
        ("geometry", []), ("geometry", {}), ("geometry", {"size": "large"}), ("stages", []), ("stages", {"convert": 1}),
        ("stages", {"convert": {"files": {"0/c/0": 7}}}), ("damaged", {"mask": {}}), ("working", 3), ("salt", 3),
        ("failure", "mask"), ("air", {"below_hu": "low"}), ("begun", []), ("watched", 1), ("acquisition", []),
        ("quality", 1), ("quality", {"noise_hu": "loud"}), ("quality", {"slices": {"noise_hu": "top"}}),
    ]:  # fmt: skip
        document = json.loads(content)
        document["attributes"]["lungmix"][path] = value
        assert path_of_attributes[1] in document[path_of_attributes[0]]
        yield json.dumps(document).encode()


@pytest.fixture
def store(tmp_path):
    """Store with three small converted cases, and the sources of their scans."""
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    scans = []
    for i in range(3):
        write_image(tmp_path / f"{i}.nrrd", [np.full((4, 4, 4), i, np.int16)], GEOMETRY, np.int16)
        scans += find_scans(tmp_path / f"{i}.nrrd")
    names = assign_names(cohort, scans)
    persist_case_names(cohort, names)
    for name, scan in names.items():
        origin = {"key": "k", "source": location_digest(CohortWriter(cohort).salt, scan.key)}
        CohortWriter(cohort).add(name, GEOMETRY, Acquisition(), origin).write_object("0/zarr.json", b"{}")
    return tmp_path / "s.zarr", scans


def test_corrupt_case_is_reported_with_its_remedy_and_others_are_listed(store):
    file = store[0] / "case-002" / "zarr.json"
    original = file.read_bytes()
    for content in [*damages(original), *case_types(original), None]:
        lose_or_replace(file, content)
        cohort = lungmix.open_cohort(store[0])
        assert list(cohort) == ["case-001", "case-003"], content
        assert "case-002" not in cohort
        assert list(cohort.damaged) == ["case-002"]
        # As a mapping, the cohort has no case without metadata.
        for ask in (cohort.case, *([cohort.__getitem__] if content is not None else [])):
            with pytest.raises(StoreError, match=r"case-002: its zarr\.json .*source of the scan.*`Pipeline\.remove"):
                ask("case-002")
        assert list(overview_of(cohort).damaged) == ["case-002"]
    file.write_bytes(original)
    assert not lungmix.open_cohort(store[0]).damaged


def lose_or_replace(file, content):
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


def test_folder_without_metadata_is_a_corrupt_case_only_if_registered_with_objects(store):
    folder = store[0] / "case-002"
    for file in (folder / "zarr.json", folder / "0" / "zarr.json"):
        file.unlink()
    (store[0] / "notes").mkdir()
    (store[0] / "notes" / "text").write_text("mine")
    assert not lungmix.open_cohort(store[0]).damaged, "nothing is left of the case"
    (folder / "0" / "zarr.json").write_text("{}")
    assert list(lungmix.open_cohort(store[0]).damaged) == ["case-002"]


def test_group_of_another_program_is_neither_a_case_nor_corrupt(store):
    cohort = lungmix.open_cohort(store[0], "r+")
    cohort._group.create_group("extra").attrs["who"] = "another program"
    assert list(cohort) == ["case-001", "case-002", "case-003"]
    assert not cohort.damaged
    assert "extra" not in cohort


def test_corrupt_case_keeps_its_name_and_no_other_scan_gets_it(store, tmp_path):
    (store[0] / "case-003" / "zarr.json").write_bytes(b"{")
    cohort, scans = lungmix.open_cohort(store[0], "r+"), store[1]
    assert assign_names(cohort, [scans[2], scans[0]]) == {"case-003": scans[2], "case-001": scans[0]}
    (store[0] / "names.json").unlink()
    write_image(tmp_path / "new.nrrd", [np.full((4, 4, 4), 9, np.int16)], GEOMETRY, np.int16)
    (new,) = find_scans(tmp_path / "new.nrrd")
    assert list(assign_names(cohort, [new])) == ["case-004"]


def test_info_reports_the_corrupt_case_and_lists_the_others(store, capsys):
    (store[0] / "case-002" / "zarr.json").write_bytes(b"")
    assert _status_of(["info", str(store[0]), "--json"]) == 1
    output = json.loads(capsys.readouterr().out)
    assert [case["name"] for case in output["cases"]] == ["case-001", "case-003"]
    assert "zarr.json is empty" in output["damaged"]["case-002"]
    assert _status_of(["info", str(store[0])]) == 1
    assert "case case-002: its zarr.json is empty" in capsys.readouterr().out
    assert _status_of(["info", str(store[0]), "case-002", "--json"]) == 1
    assert "zarr.json is empty" in json.loads(capsys.readouterr().out)["unreadable"]
    assert _status_of(["info", str(store[0]), "case-001"]) == 0


def test_info_exits_with_status_1_for_a_failed_case_or_a_corrupt_stage(store, capsys):
    assert _status_of(["info", str(store[0])]) == 0
    case = CaseWriter(lungmix.open_cohort(store[0], "r+")["case-001"])
    case.record_failure("mask", "no lung was found")
    for words, line in ((["info", str(store[0])], "case-001: mask failed: no lung was found"),
                        (["info", str(store[0]), "case-001"], "reason: no lung was found")):  # fmt: skip
        capsys.readouterr()
        assert _status_of(words) == 1
        assert line in capsys.readouterr().out
    case.record("mask", {"key": "m"})
    assert _status_of(["info", str(store[0])]) == 0
    case.mark_damaged("mask", "hu_counts/c/0 is missing")
    assert _status_of(["info", str(store[0])]) == 1
    assert "case-001: mask is corrupt: hu_counts/c/0 is missing" in capsys.readouterr().out
    assert _status_of(["info", str(store[0]), "case-001"]) == 1


def test_corrupt_metadata_of_the_store_are_reported_and_rewritten_in_mode_a(store):
    file = store[0] / "zarr.json"
    original = file.read_bytes()
    salt = CohortWriter(lungmix.open_cohort(store[0])).salt
    changed = [original.replace(salt.encode(), b"no digits"), original.replace(b'"format_v', b'"v')]
    for content in [*damages(original), *changed, None]:
        lose_or_replace(file, content)
        for mode in ("r", "r+"):
            with pytest.raises(StoreError, match=r"its zarr\.json .*Pipeline\.run"):
                lungmix.open_cohort(store[0], mode)
            assert (file.read_bytes() if file.is_file() else None) == content
        cohort = lungmix.open_cohort(store[0], "a")
        assert list(cohort) == ["case-001", "case-002", "case-003"]
        assert CohortWriter(cohort).salt == salt
        assert list(assign_names(cohort, store[1])) == ["case-001", "case-002", "case-003"]
        assert list(lungmix.open_cohort(store[0])) == ["case-001", "case-002", "case-003"]


def test_corrupt_file_in_an_unrelated_folder_is_left_unchanged(tmp_path):
    (tmp_path / "zarr.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="new or empty folder"):
        lungmix.open_cohort(tmp_path, "a")
    assert (tmp_path / "zarr.json").read_bytes() == b"{"
