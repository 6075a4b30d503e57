"""Case names of scans, without a cluster: tests write the record of a conversion in place of converting."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import lungmix
from lungmix.formats import find_scans, write_image
from lungmix.geometry import Geometry
from lungmix.intake.case_names import assign_names, persist_case_names, persist_case_numbers
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages import convert
from lungmix.store import CohortWriter
from lungmix.store.digests import location_digest

GEOMETRY = Geometry((4, 4, 4))


def scan_at(path, value=0):
    write_image(path, [np.full((4, 4, 4), value, np.int16)], GEOMETRY, np.int16)
    (scan,) = find_scans(path)
    return scan


def play_convert(cohort, names):
    for name, scan in names.items():
        writer = CohortWriter(cohort)
        origin = {"key": convert.key_for(scan), "source": location_digest(writer.salt, scan.key)}
        writer.add(name, scan.geometry, Acquisition()).record(convert.STAGE, origin)
    persist_case_numbers(cohort)


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "s.zarr", "a")


def test_cases_are_numbered_in_the_order_of_their_sources(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{name}.nrrd", i) for i, name in enumerate(("Rossi", "Doe", "Bianchi"))]
    names = assign_names(cohort, scans)
    assert list(names) == ["case-001", "case-002", "case-003"]
    assert list(names.values()) == scans


def test_names_of_files_are_kept_on_request_only(cohort, tmp_path):
    (tmp_path / "other").mkdir()
    scans = [scan_at(tmp_path / "Pilot 7.nrrd"), scan_at(tmp_path / "other" / "pilot-7.nrrd", 1)]
    assert list(assign_names(cohort, scans, keep_names=True)) == ["pilot-7", "pilot-7-2"]


def test_new_scans_get_the_next_numbers_and_old_scans_keep_their_case(cohort, tmp_path):
    old = [scan_at(tmp_path / f"{i}.nrrd", i) for i in (1, 2)]
    play_convert(cohort, assign_names(cohort, old))
    new = scan_at(tmp_path / "0.nrrd", 9)
    assert assign_names(cohort, [new, *old]) == {"case-003": new, "case-001": old[0], "case-002": old[1]}


def test_a_scan_that_was_moved_keeps_its_case(cohort, tmp_path):
    play_convert(cohort, assign_names(cohort, [scan_at(tmp_path / "a.nrrd")]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.nrrd").rename(tmp_path / "elsewhere" / "b.nrrd")
    (moved,) = find_scans(tmp_path / "elsewhere")
    assert assign_names(cohort, [moved]) == {"case-001": moved}


def test_file_that_changed_at_its_location_keeps_its_case(cohort, tmp_path):
    play_convert(cohort, assign_names(cohort, [scan_at(tmp_path / "a.nrrd")]))
    mended = scan_at(tmp_path / "a.nrrd", 5)
    assert assign_names(cohort, [mended]) == {"case-001": mended}


def test_duplicates_of_a_scan_stay_two_cases(cohort, tmp_path):
    first = scan_at(tmp_path / "a.nrrd")
    (tmp_path / "b.nrrd").write_bytes((tmp_path / "a.nrrd").read_bytes())
    now = time.time_ns()
    for name in "ab":
        os.utime(tmp_path / f"{name}.nrrd", ns=(now, now))
    scans = [item for name in "ab" for item in find_scans(tmp_path / f"{name}.nrrd")]
    assert first.geometry == scans[0].geometry
    names = assign_names(cohort, scans)
    assert len(names) == 2
    play_convert(cohort, names)
    assert sorted(assign_names(cohort, scans)) == ["case-001", "case-002"]


def test_number_of_a_removed_case_is_not_reused(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{i}.nrrd", i) for i in (1, 2)]
    play_convert(cohort, assign_names(cohort, scans))
    CohortWriter(cohort).remove("case-002")
    new = scan_at(tmp_path / "3.nrrd", 3)
    assert list(assign_names(cohort, [new])) == ["case-003"]


def test_scan_whose_conversion_fails_keeps_its_number(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{i}.nrrd", i) for i in (1, 2, 3)]
    names = assign_names(cohort, scans)
    persist_case_names(cohort, names)
    play_convert(cohort, {name: names[name] for name in ("case-001", "case-003")})
    new = scan_at(tmp_path / "4.nrrd", 4)
    assert assign_names(cohort, [new, scans[1]]) == {"case-004": new, "case-002": scans[1]}
    mended = scan_at(tmp_path / "2.nrrd", 5)
    assert assign_names(cohort, [mended]) == {"case-002": mended}


@pytest.mark.parametrize("register", ["", "{", "[]", '{"cases": {"case-001": 3}}'])
def test_corrupt_register_is_rebuilt_from_the_cases(register, cohort, tmp_path):
    scan = scan_at(tmp_path / "a.nrrd")
    play_convert(cohort, assign_names(cohort, [scan]))
    CohortWriter(cohort).write_text("names.json", register)
    names = assign_names(cohort, [scan])
    assert names == {"case-001": scan}
    persist_case_names(cohort, names)
    record = cohort["case-001"].stages["convert"]
    assert cohort.register == {"case-001": {"key": record["key"], "source": record["source"]}}


def test_store_does_not_contain_the_locations_of_scans(cohort, tmp_path):
    scan = scan_at(tmp_path / "Rossi.nrrd")
    play_convert(cohort, assign_names(cohort, [scan]))
    persist_case_names(cohort, {"case-001": scan})
    other = lungmix.open_cohort(tmp_path / "other.zarr", "a")
    play_convert(other, assign_names(other, [scan]))
    first, second = (store["case-001"].stages["convert"]["source"] for store in (cohort, other))
    assert first != second
    for file in (tmp_path / "s.zarr").rglob("*.json"):
        content = file.read_text().lower()
        assert "rossi" not in content
        assert scan.key not in content
