"""Which case a scan becomes, without a cluster: converting is played by its record."""

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
from lungmix.store.digests import location_digest

GEOMETRY = Geometry((4, 4, 4))


def scan_at(path, value=0):
    write_image(path, [np.full((4, 4, 4), value, np.int16)], GEOMETRY, np.int16)
    (scan,) = find_scans(path)
    return scan


def play_convert(cohort, names):
    for name, scan in names.items():
        case = cohort.add(name, scan.geometry, Acquisition())
        case.record(convert.STAGE, {"key": convert.key_for(scan), "source": location_digest(cohort.salt, scan.key)})
    persist_case_numbers(cohort)


@pytest.fixture
def cohort(tmp_path):
    return lungmix.open_cohort(tmp_path / "s.zarr", "a")


def test_cases_are_numbered_in_the_order_of_their_sources(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{name}.nrrd", i) for i, name in enumerate(("Rossi", "Doe", "Bianchi"))]
    names = assign_names(cohort, scans)
    assert list(names) == ["case-001", "case-002", "case-003"]
    assert list(names.values()) == scans


def test_names_of_files_are_kept_only_if_asked_for(cohort, tmp_path):
    (tmp_path / "other").mkdir()
    scans = [scan_at(tmp_path / "Pilot 7.nrrd"), scan_at(tmp_path / "other" / "pilot-7.nrrd", 1)]
    assert list(assign_names(cohort, scans, keep_names=True)) == ["pilot-7", "pilot-7-2"]


def test_a_store_that_grows_counts_on_and_old_scans_keep_their_case(cohort, tmp_path):
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


def test_a_file_that_was_mended_in_its_place_keeps_its_case(cohort, tmp_path):
    play_convert(cohort, assign_names(cohort, [scan_at(tmp_path / "a.nrrd")]))
    mended = scan_at(tmp_path / "a.nrrd", 5)
    assert assign_names(cohort, [mended]) == {"case-001": mended}


def test_two_copies_of_a_scan_are_two_cases_and_stay_so(cohort, tmp_path):
    first = scan_at(tmp_path / "a.nrrd")
    (tmp_path / "b.nrrd").write_bytes((tmp_path / "a.nrrd").read_bytes())
    now = time.time_ns()
    for name in "ab":
        os.utime(tmp_path / f"{name}.nrrd", ns=(now, now))
    scans = [found for name in "ab" for found in find_scans(tmp_path / f"{name}.nrrd")]
    assert first.geometry == scans[0].geometry
    names = assign_names(cohort, scans)
    assert len(names) == 2
    play_convert(cohort, names)
    assert sorted(assign_names(cohort, scans)) == ["case-001", "case-002"]


def test_the_number_of_a_removed_case_is_not_given_again(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{i}.nrrd", i) for i in (1, 2)]
    play_convert(cohort, assign_names(cohort, scans))
    cohort.remove("case-002")
    new = scan_at(tmp_path / "3.nrrd", 3)
    assert list(assign_names(cohort, [new])) == ["case-003"]


def test_a_scan_that_fails_to_convert_keeps_its_number_and_no_other_gets_it(cohort, tmp_path):
    scans = [scan_at(tmp_path / f"{i}.nrrd", i) for i in (1, 2, 3)]
    names = assign_names(cohort, scans)
    persist_case_names(cohort, names)
    play_convert(cohort, {name: names[name] for name in ("case-001", "case-003")})
    new = scan_at(tmp_path / "4.nrrd", 4)
    assert assign_names(cohort, [new, scans[1]]) == {"case-004": new, "case-002": scans[1]}
    mended = scan_at(tmp_path / "2.nrrd", 5)
    assert assign_names(cohort, [mended]) == {"case-002": mended}


@pytest.mark.parametrize("register", ["", "{", "[]", '{"cases": {"case-001": 3}}'])
def test_a_damaged_register_is_made_again_from_the_cases(register, cohort, tmp_path):
    scan = scan_at(tmp_path / "a.nrrd")
    play_convert(cohort, assign_names(cohort, [scan]))
    cohort.write_text("names.json", register)
    names = assign_names(cohort, [scan])
    assert names == {"case-001": scan}
    persist_case_names(cohort, names)
    record = cohort["case-001"].stages["convert"]
    assert cohort.register == {"case-001": {"key": record["key"], "source": record["source"]}}


def test_a_store_says_nothing_of_where_its_scans_lay(cohort, tmp_path):
    scan = scan_at(tmp_path / "Rossi.nrrd")
    play_convert(cohort, assign_names(cohort, [scan]))
    persist_case_names(cohort, {"case-001": scan})
    other = lungmix.open_cohort(tmp_path / "other.zarr", "a")
    play_convert(other, assign_names(other, [scan]))
    one, two = (store["case-001"].stages["convert"]["source"] for store in (cohort, other))
    assert one != two
    for file in (tmp_path / "s.zarr").rglob("*.json"):
        content = file.read_text().lower()
        assert "rossi" not in content
        assert scan.key not in content
