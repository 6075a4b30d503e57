"""Several mask files of one case: parts of one mask, other structures, or ambiguous."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lungmix
from lungmix.cli.spelling import with_options
from lungmix.errors import redact, reveal
from lungmix.formats import find_scans, write_image
from lungmix.formats.masks import REGIONS
from lungmix.geometry import Geometry
from lungmix.intake.mask_cases import region_at_end, region_in
from lungmix.intake.mask_matching import match_masks
from support.generators import case_of

GRID = Geometry((6, 5, 4))
CASES = ["case-001", "case-002"]
LOBES = [f"lung_{level}_lobe_{side}" for side, level in (
    ("left", "upper"), ("left", "lower"), ("right", "upper"), ("right", "middle"), ("right", "lower")
)]  # fmt: skip


@pytest.fixture
def cohort(tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    for name in CASES:
        case_of(cohort, name, np.full(GRID.shape, -850, np.int16), GRID)
    return cohort


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def write_masks(folder, *names, value=1):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        labels = np.zeros(GRID.shape, np.uint8)
        labels.flat[10 * number : 10 * number + 12] = value
        write_image(folder / name, [labels], GRID, np.uint8)


def regions_of(result, name="case-001"):
    return {segment.region for segment in result.masks[name].segments}


@pytest.mark.parametrize(
    "place", ["case-001/{}", "case-001/segmentations/{}", "a/CASE-001/{}", "case-001_{}", "x/case-001-{}"]
)
def test_lobes_of_totalsegmentator_are_one_mask_and_other_structures_are_noted(cohort, folder, place):
    write_masks(folder, *(place.format(f"{name}.nii.gz") for name in (*LOBES, "heart", "aorta", "rib_left_1")))
    result = match_masks(folder, cohort, CASES)
    assert list(result.masks) == ["case-001"]
    assert regions_of(result) == {"left_upper", "left_lower", "right_upper", "right_middle", "right_lower"}
    (reason,) = result.unused.values()
    assert reveal(reason).startswith("3 files, such as ")
    assert "aorta" in reveal(reason)
    assert "aorta" not in redact(reason)
    assert "case-001" not in result.missing
    assert pickle.loads(pickle.dumps(result.masks["case-001"])).fingerprint == result.masks["case-001"].fingerprint


@pytest.mark.parametrize(
    "names",
    [
        ("case-001_left.nrrd", "case-001_right.nrrd"),
        ("case-001_lung_left.nrrd", "case-001_lung_right.nrrd"),
        ("case-001-left-lung-mask.mha", "case-001.right.nii"),
        ("case-001/left.nrrd", "case-001/Lung_R.nrrd"),
        ("case-001_left.seg.nrrd", "case-001/right lung.nrrd"),
    ],
)
def test_files_that_are_named_right_and_left_are_one_mask(cohort, folder, names):
    write_masks(folder, *names, value=4)
    result = match_masks(folder, cohort, CASES)
    assert result.unused == {}
    mask = result.masks["case-001"]
    assert {segment.region for segment in mask.segments} == {"right", "left"}
    values = {segment.number: {"right": 1, "left": 2}[segment.region] for segment in mask.segments}
    labels = np.concatenate(list(mask.label_slabs(values, GRID, 3))).ravel()
    is_left_first = "left" in Path(names[0]).name
    assert sorted({*labels.tolist()}) == [0, 1, 2]
    assert labels[0] == (2 if is_left_first else 1)
    assert labels[20] == (1 if is_left_first else 2)


def test_a_case_whose_name_ends_in_a_word_for_masks_has_masks_by_its_name(cohort, folder):
    case_of(cohort, "p1-seg", np.full(GRID.shape, -850, np.int16), GRID)
    for name, region in (("p1-seg_mask", None), ("p1-seg_left", "left"), ("p1-seg", None)):
        write_masks(folder, f"{name}.nrrd")
        (mask,) = match_masks(folder, cohort, ["p1-seg", *CASES]).masks.values()
        assert [segment.region for segment in mask.segments] == ([region] if region else [])
        (folder / f"{name}.nrrd").unlink()


def test_a_single_file_that_is_named_left_is_the_left_lung(cohort, folder):
    write_masks(folder, "case-001_left.nrrd")
    assert regions_of(match_masks(folder, cohort, CASES)) == {"left"}


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("case-001_left.nrrd", "case-001_lung_left.nrrd", "case-001_right.nrrd"), ("_left", "_lung_left")),
        (("case-001.nrrd", "case-001_left.nrrd"), ("case-001.nrrd", "_left")),
        (("case-001_mask.nrrd", "case-001_left.nrrd", "case-001_right.nrrd"), ("_mask", "_left")),
        (("case-001/lung_left.nrrd", "case-001_left.nii.gz"), ("lung_left", "_left")),
    ],
)
def test_two_files_of_one_part_or_of_the_whole_and_a_part_are_ambiguous(cohort, folder, names, shown):
    write_masks(folder, *names)
    result = match_masks(folder, cohort, CASES)
    assert result.masks == {}
    assert result.rejected == {"case-001"}
    reason = reveal(result.missing["case-001"])
    assert "files can be the mask of this case (" in reason
    assert all(text in reason for text in shown)
    assert ("_right" in reason) == ("_mask.nrrd" in names[0])


def test_a_part_that_cannot_be_read_is_not_left_out(cohort, folder):
    write_masks(folder, "case-001_left.nrrd", "case-001_right.nrrd", "case-002_left.nrrd")
    (folder / "case-001_right.nrrd").write_bytes(b"")
    result = match_masks(folder, cohort, CASES)
    assert list(result.masks) == ["case-002"]
    assert "is empty" in result.missing["case-001"]
    assert result.rejected == {"case-001"}


def test_other_structures_without_a_mask_are_named_as_files_of_no_scan(cohort, folder):
    write_masks(folder, "case-001/heart.nrrd", "case-002_aorta.nrrd")
    result = match_masks(folder, cohort, CASES)
    assert result.masks == {}
    names = {reveal(reason).split(" belongs")[0] for reason in result.unused.values()}
    assert names == {"heart.nrrd", "case-002_aorta.nrrd"}
    assert "has no mask for this case" in result.missing["case-001"]


def test_parts_that_are_no_lung_count_for_tissues_alone(cohort, folder):
    write_masks(folder, "case-001_ggo.nrrd", "case-001_consolidation.nrrd", "case-001_lung.nrrd")
    assert Path(match_masks(folder, cohort, CASES).masks["case-001"].path).name == "case-001_lung.nrrd"
    (folder / "case-001_lung.nrrd").unlink()
    assert regions_of(match_masks(folder, cohort, CASES, regions=REGIONS)) == {"ggo", "consolidation"}


def test_a_table_can_have_several_rows_for_one_case(cohort, folder):
    write_masks(folder, "x/first_left.nrrd", "x/first_right_lung.nrrd", "x/odd_left.nrrd")
    table = folder / "table.csv"
    table.write_text(
        "case,mask\ncase-001,x/first_left.nrrd\ncase-001,x/first_right_lung.nrrd\ncase-002,x/odd_left.nrrd\n"
    )
    result = match_masks(table, cohort, CASES)
    assert regions_of(result) == {"left", "right"}
    # The only mask file of a case is its whole mask, even if the name of the file states a region.
    assert result.masks["case-002"].segments == ()
    table.write_text("case,mask\ncase-001,x/first_left.nrrd\ncase-001,x/none_right.nrrd\n")
    result = match_masks(table, cohort, CASES)
    assert result.masks == {}
    assert "is no file" in result.missing["case-001"]


def test_scans_of_one_name_differ_by_their_folders(cohort, folder, tmp_path):
    scans = {}
    for number, name in enumerate(CASES, start=1):
        path = tmp_path / "in" / f"s000{number}" / "ct.nii.gz"
        path.parent.mkdir(parents=True)
        write_image(path, [np.full(GRID.shape, -850, np.int16)], GRID, np.int16)
        (scan,) = find_scans(path)
        scans[name] = replace(scan, name="ct")
        write_masks(path.parent, *(f"segmentations/{lobe}.nii.gz" for lobe in LOBES), "segmentations/heart.nii.gz")
    result = match_masks(tmp_path / "in", cohort, CASES, scans)
    assert list(result.masks) == CASES
    assert "s0002" in result.masks["case-002"].path
    (reason,) = result.unused.values()
    assert reason.startswith("2 files")
    for name in ("ct_mask.nrrd", "ct_right.nrrd"):
        write_masks(tmp_path / "of-scans" / "s0002", name)
        masks = match_masks(tmp_path / "of-scans", cohort, CASES, scans).masks
        assert list(masks) == ["case-002"]
        (tmp_path / "of-scans" / "s0002" / name).unlink()


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("left", "left"),
        ("Left_Lung", "left"),
        ("right-mask", "right"),
        ("RUL", "right_upper"),
        ("l", None),
        ("2_left", None),
    ],
)
def test_only_known_words_name_a_part(text, region):
    assert region_in(text) == region


def test_the_last_words_of_a_name_are_the_longest_known_ones():
    assert region_at_end("p1_lung_upper_lobe_left") == "left_upper"
    assert region_at_end("right_p1_left") == "left"
    assert region_at_end("left_p1") is None


def test_a_table_can_name_folders_and_archives_of_parts(cohort, folder):
    write_masks(folder, *(f"x/{lobe}.nii.gz" for lobe in LOBES), "x/heart.nii.gz")
    shutil.make_archive(folder / "y", "zip", folder / "x")
    (folder / "table.csv").write_text("case,mask\ncase-001,x\ncase-002,y.zip\n")
    result = match_masks(folder / "table.csv", cohort, CASES)
    assert [len(regions_of(result, name)) for name in CASES] == [5, 5]
    (reason,) = result.unused.values()
    assert reason.startswith("2 files")


def test_an_archive_for_each_case_and_one_for_all_of_them_are_read_as_folders(cohort, folder):
    write_masks(folder, *(f"case-001/{lobe}.nii.gz" for lobe in LOBES), "case-002.nrrd")
    for inside, name in ((folder / "case-001", "case-001"), (folder, "all")):
        shutil.make_archive(folder.parent / "packed" / name, "gztar" if name == "all" else "zip", inside)
    shutil.rmtree(folder)
    packed = folder.parent / "packed"
    result = match_masks(packed / "all.tar.gz", cohort, CASES)
    assert [len(mask.segments) for mask in result.masks.values()] == [5, 0]
    (packed / "all.tar.gz").unlink()
    result = match_masks(packed, cohort, CASES)
    assert {name: len(mask.segments) for name, mask in result.masks.items()} == {"case-001": 5}


def test_masks_and_tables_in_an_object_store_are_matched(cohort, folder, bucket):
    lobes = [f"case-001/{lobe}.nii.gz" for lobe in LOBES]
    write_masks(folder, *lobes, "case-001/heart.nii.gz", "x/odd.nrrd", "case-002/reader.nrrd")
    (folder / "table.csv").write_text("case,mask\ncase-001,case-001\ncase-002,x/odd.nrrd\n")
    address = bucket.upload(folder, "masks")
    assert list(match_masks(address, cohort, CASES).masks) == ["case-001"]
    result = match_masks(f"{address}/table.csv", cohort, CASES)
    assert {name: len(mask.segments) for name, mask in result.masks.items()} == {"case-001": 5, "case-002": 0}
    (folder / "table.csv").write_text(f"case,mask\ncase-002,{address}/x/odd.nrrd\ncase-001,{address}/none.nrrd\n")
    result = match_masks(folder / "table.csv", cohort, CASES)
    assert list(result.masks) == ["case-002"]
    assert "does not exist in its bucket" in result.missing["case-001"]
    for name in ("x/odd", "case-002/reader"):
        assert list(match_masks(f"{address}/{name}.nrrd", cohort, ["case-002"]).masks) == ["case-002"]


@pytest.mark.parametrize("inside", ["", "segmentations/"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_only_folder_of_parts_belongs_to_the_only_case(cohort, folder, inside, packed):
    write_masks(folder, *(f"s0001/{inside}{name}.nii.gz" for name in (*LOBES, "heart", "aorta")))
    place = shutil.make_archive(folder / "packed", "zip", folder / "s0001") if packed else folder / "s0001"
    result = match_masks(place, cohort, ["case-002"])
    assert len(regions_of(result, "case-002")) == 5
    (reason,) = result.unused.values()
    assert reason.startswith("2 files")


@pytest.mark.parametrize(
    "names",
    [
        ("s0001/left.nrrd", "s0002/left.nrrd"),  # folders of two scans
        ("s0001/left.nrrd", "s0001/left.nii.gz"),
        ("s0001/mask.nrrd", "s0001/left.nrrd"),
        ("s0001/Rossi_lung.nrrd",),  # the name of a scan
        ("s0001/heart.nrrd",),
    ],
)
def test_files_that_may_not_be_those_of_the_only_case_are_not_guessed(cohort, folder, names):
    write_masks(folder, *names)
    result = match_masks(folder, cohort, ["case-002"])
    assert result.masks == {}
    assert "case-002" in result.missing
    # If some files name the case, these are its mask, and the other files belong to no scan.
    write_masks(folder, "case-002.nrrd")
    masks = match_masks(folder, cohort, ["case-002"]).masks
    assert [Path(mask.path).name for mask in masks.values()] == ["case-002.nrrd"]


def test_the_remedy_for_a_case_without_a_mask_is_one_that_helps(cohort, folder, tmp_path):
    write_masks(folder, "s0001/left.nrrd")
    path = tmp_path / "in" / "Rossi.nrrd"
    path.parent.mkdir()
    write_image(path, [np.full(GRID.shape, -850, np.int16)], GRID, np.int16)
    (scan,) = find_scans(path)
    missing = match_masks(folder, cohort, CASES, {"case-001": scan}).missing
    example, table = "such as {0}_lung.nrrd or {0}/", "give a table with the columns case and mask"
    named, unnamed = (reveal(missing[name]) for name in CASES)
    after = "masks has no mask for this case: name the file, or the folder of its parts, after the case or the scan"
    assert named == f"{after}, {example.format('case-001')}, or {table}"
    # The remedy cannot name the scan of a case: the store does not hold its name, and this run has no scan of it.
    after = "the store does not hold the name of its scan: name the file, or the folder of its parts, after the case"
    expected = f"masks has no mask for this case, and {after}, {example.format('case-002')}, or {table}"
    run = "run `Pipeline.run(sources, masks=PLACE)` with the scan"
    assert unnamed == f"{expected}, or {run}"
    assert with_options(run) == "run `lungmix run STORE SOURCE --masks PLACE` with the scan"
    assert reveal(match_masks(folder, cohort, CASES).missing["case-002"]) == expected
