"""Which case a mask file belongs to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.errors import UsageError, redact, reveal
from lungmix.formats import find_scans, write_image
from lungmix.formats.masks import sources
from lungmix.geometry import Geometry
from lungmix.intake import mask_cases
from lungmix.intake.mask_matching import match_masks
from lungmix.privacy.identity import Identity
from lungmix.stages.convert import UIDS, frame_digest, uid_digests
from lungmix.stages.derived_series import derived_series
from lungmix.store import CaseWriter, CohortWriter
from support.generators import case_of
from support.masks import mask_of

GRID = Geometry((6, 5, 4))
UID = "1.2.826.0.1.{}"


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in ("case-001", "case-002"):
        case_of(cohort, name, np.full(GRID.shape, -850, np.int16), GRID)
    return cohort


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    return folder


@pytest.fixture
def scans(tmp_path):
    """Two scans by case, each of one series with its own frame of reference."""
    scans = {}
    for number, name in enumerate(("case-001", "case-002"), start=1):
        path = tmp_path / "in" / f"Rossi-{number}.nrrd"
        path.parent.mkdir(exist_ok=True)
        write_image(path, [np.full(GRID.shape, -850, np.int16)], GRID, np.int16)
        (scan,) = find_scans(path)
        identity = Identity(series_uid=UID.format(f"{number}.1"), frame_uid=UID.format(f"{number}.2"))
        scans[name] = replace(scan, identity=identity)
    return scans


def write_masks(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, [np.ones(GRID.shape, np.uint8)], GRID, np.uint8)


def matched(place, cohort, scans=None):
    result = match_masks(place, cohort, ["case-001", "case-002"], scans)
    return {name: Path(mask.path).name for name, mask in result.masks.items()}, result


@pytest.fixture
def uids(monkeypatch):
    """UIDs that mask files refer to, by file name; files that are not in the dictionary are read unchanged."""
    facts = {}

    def open_mask(path):
        return mask_of(np.ones(GRID.shape, np.uint8), GRID, str(path), **facts[path.name])

    monkeypatch.setattr(sources, "open_mask", open_mask)
    return facts


@pytest.mark.parametrize(
    "name",
    ["case-001.nrrd", "case-001_lung.nrrd", "CASE-001-mask.nii.gz", "case-001 lung mask.mha", "a/case-001/seg.nrrd",
     "case-001_side.nrrd", "case-001-label.nrrd", "Rossi-1_lungs.nrrd", "rossi-1.nii", "case-001_region.mha",
     "case-001_tissue.nrrd", "case-001_tissue_median.nii.gz"],
)  # fmt: skip
def test_the_name_of_a_case_or_scan_with_a_suffix_matches(cohort, folder, scans, name):
    write_masks(folder, name)
    masks, result = matched(folder, cohort, scans)
    assert masks == {"case-001": Path(name).name}
    assert "case-002_lung.nrrd" in result.missing["case-002"]
    assert result.unused == {}


@pytest.mark.parametrize("name", ["case-0011.nrrd", "case-001_heart.nrrd", "xcase-001.nrrd"])
def test_other_names_match_nothing_and_are_named(cohort, folder, name):
    write_masks(folder, name)
    masks, result = matched(folder, cohort)
    assert masks == {}
    (reason,) = result.unused.values()
    assert reveal(reason).startswith(name)
    assert name not in redact(reason)


def test_two_files_of_one_case_are_ambiguous(cohort, folder):
    write_masks(folder, "case-001_lung.nrrd", "case-001_mask.nrrd", "case-002.nrrd")
    masks, result = matched(folder, cohort)
    assert masks == {"case-002": "case-002.nrrd"}
    assert result.rejected == {"case-001"}
    shown = reveal(result.missing["case-001"])
    assert "2 files can be the mask of this case (case-001_lung.nrrd and case-001_mask.nrrd)" in shown
    assert "Rossi" not in str(result)


def test_a_file_that_is_no_mask_is_the_reason_of_its_case(cohort, folder):
    write_masks(folder, "case-002.nrrd")
    (folder / "case-001.nrrd").write_bytes(b"")
    masks, result = matched(folder, cohort)
    assert masks == {"case-002": "case-002.nrrd"}
    assert "is empty" in result.missing["case-001"]


def test_files_of_the_scans_themselves_are_no_masks(cohort, scans, tmp_path):
    write_masks(tmp_path / "in", "Rossi-1_lung.nrrd")
    masks, _ = matched(tmp_path / "in", cohort, scans)
    assert masks == {"case-001": "Rossi-1_lung.nrrd"}


@pytest.mark.parametrize("stored", [False, True])
def test_uids_decide_before_names(cohort, folder, scans, uids, stored):
    if stored:
        salt = CohortWriter(cohort).salt
        for name, scan in scans.items():
            case = CaseWriter(cohort[name])
            digests = uid_digests(salt, name, scan)
            assert not [value for value in digests.values() if "1.2.826" in value]
            case.record("convert", {**case.stages["convert"], UIDS: digests})
    write_masks(folder, "a.nrrd", "case-001.nrrd")
    uids |= {
        "a.nrrd": {"series_uid": UID.format("1.1"), "frame_uid": UID.format("9")},
        "case-001.nrrd": {"frame_uid": UID.format("2.2")},
    }
    masks, result = matched(folder, cohort, None if stored else scans)
    # The second file has the name of the first case, but refers to the frame of reference of the second case.
    assert masks == {"case-001": "a.nrrd"}
    assert "belongs to another scan" in str(result.unused | result.missing) or "case-002" in result.missing
    uids["case-001.nrrd"] = {"series_uid": UID.format("7"), "frame_uid": UID.format("1.2")}
    del uids["a.nrrd"]
    (folder / "a.nrrd").unlink()
    assert matched(folder, cohort, None if stored else scans)[0] == {"case-001": "case-001.nrrd"}


def test_a_mask_of_another_patient_is_rejected(cohort, folder, scans, uids):
    write_masks(folder, "case-001.nrrd")
    uids["case-001.nrrd"] = {"series_uid": UID.format("9.1"), "frame_uid": UID.format("9.2")}
    masks, result = matched(folder, cohort, scans)
    assert masks == {}
    assert "belongs to another scan" in result.missing["case-001"]


def test_exact_name_of_a_scan_precedes_a_shared_case_name(tmp_path, folder):
    cohort, scans = store_of_names(tmp_path, {"p-1": "P 1", "p-1-2": "P+1"})
    write_masks(folder, "P 1_mask.nrrd", "P+1_mask.nrrd")
    result = match_masks(folder, cohort, list(scans), scans)
    assert {name: Path(mask.path).name for name, mask in result.masks.items()} == {
        "p-1": "P 1_mask.nrrd",
        "p-1-2": "P+1_mask.nrrd",
    }


def test_a_name_that_only_shares_its_case_name_with_a_scan_is_not_its_mask(tmp_path, folder):
    cohort, scans = store_of_names(tmp_path, {"p-1": "P 1"})
    write_masks(folder, "P+1_mask.nrrd")
    result = match_masks(folder, cohort, list(scans), scans)
    assert result.masks == {}
    assert "has no mask for this case" in result.missing["p-1"]
    assert "give a table" in result.unused["mask 1"]


def test_a_name_that_several_cases_may_have_had_is_ambiguous_without_their_scans(tmp_path, folder):
    cohort, scans = store_of_names(tmp_path, {"p-1": "P 1", "p-1-2": "P+1"})
    write_masks(folder, "P+1_mask.nrrd")
    result = match_masks(folder, cohort, list(scans))
    assert result.masks == {}
    assert all("can be the mask of p-1 and p-1-2: give a table" in result.missing[name] for name in scans)
    cohort, _ = store_of_names(tmp_path / "other", {"p-1": "P 1"})
    assert list(match_masks(folder, cohort, ["p-1"]).masks) == ["p-1"]


def store_of_names(folder, names):
    """Return a store whose cases are named after their scans, and the scans."""
    cohort, scans = lungmix.open_cohort(folder / "names.zarr", "a"), {}
    for name, text in names.items():
        case_of(cohort, name, np.full(GRID.shape, -850, np.int16), GRID)
        path = folder / "scans" / f"{text}.nrrd"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, [np.full(GRID.shape, -850, np.int16)], GRID, np.int16)
        (scans[name],) = find_scans(path)
    return cohort, scans


def test_digests_of_frames_of_reference_do_not_tell_which_cases_share_one(cohort, scans):
    salt, scan = CohortWriter(cohort).salt, scans["case-001"]
    first, second = (uid_digests(salt, name, scan) for name in ("case-001", "case-002"))
    assert first["frame"] != second["frame"]


def test_the_frame_of_a_named_file_is_compared_with_that_of_its_case_alone(cohort, folder, scans, uids, monkeypatch):
    salt, compared = CohortWriter(cohort).salt, []
    for name, scan in scans.items():
        case = CaseWriter(cohort[name])
        case.record("convert", {**case.stages["convert"], UIDS: uid_digests(salt, name, scan)})

    def digest(salt, name, uid):
        compared.append((name, uid))
        return frame_digest(salt, name, uid)

    monkeypatch.setattr(mask_cases, "frame_digest", digest)
    write_masks(folder, "case-001.nrrd", "case-002.nrrd")
    uids |= {f"case-00{number}.nrrd": {"frame_uid": UID.format(f"{number}.2")} for number in (1, 2)}
    assert matched(folder, cohort)[0] == {"case-001": "case-001.nrrd", "case-002": "case-002.nrrd"}
    assert {*compared} == {(f"case-00{number}", UID.format(f"{number}.2")) for number in (1, 2)}


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("case,mask", ["case-002,x/odd.nrrd"]),
        ("mask;series_uid", [f"x/odd.nrrd;{UID.format('2.1')}"]),
        ("path\tmask", ["../in/Rossi-2.nrrd\tx/odd.nrrd"]),
    ],
)
def test_a_table_says_which_mask_belongs_to_which_scan(cohort, folder, scans, header, rows):
    write_masks(folder, "x/odd.nrrd")
    table = folder / "table.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    masks, result = matched(table, cohort, scans)
    assert masks == {"case-002": "odd.nrrd"}
    assert reveal(result.missing["case-001"]) == "table.csv has no mask for this case: add it to the table"


def test_lines_of_a_table_without_a_case_or_mask_are_named(cohort, folder):
    write_masks(folder, "odd.nrrd")
    (folder / "table.csv").write_text("case,mask\ncase-009,odd.nrrd\ncase-001,none.nrrd\n")
    masks, result = matched(folder / "table.csv", cohort)
    assert masks == {}
    assert "names no case of this run in line 2" in result.unused["mask of line 2"]
    assert "is no file" in result.missing["case-001"]


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "mask\nodd.nrrd\n", "", 'case,mask\n"a,b\n'])
def test_a_table_without_its_columns_is_a_wrong_usage(cohort, folder, content):
    (folder / "table.csv").write_text(content)
    with pytest.raises(UsageError):
        matched(folder / "table.csv", cohort)


def test_a_place_without_masks_is_a_wrong_usage(cohort, folder):
    (folder / "notes.md").write_text("no masks")
    for place, reason in ((folder, "holds no mask file"), (folder / "none", "does not exist")):
        with pytest.raises(UsageError, match=reason):
            matched(place, cohort)


def test_one_file_for_one_case_needs_no_name(cohort, folder):
    write_masks(folder, "odd.nrrd")
    result = match_masks(folder / "odd.nrrd", cohort, ["case-002"])
    assert list(result.masks) == ["case-002"]


def test_an_export_is_matched_by_the_anonymous_series_that_it_refers_to(cohort, folder, scans, uids):
    write_masks(folder, "odd.nrrd")
    uids["odd.nrrd"] = {"series_uid": derived_series(cohort["case-002"]).uid("series"), "frame_uid": UID.format("9")}
    assert matched(folder, cohort, scans)[0] == {"case-002": "odd.nrrd"}
