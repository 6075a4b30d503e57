"""A published folder becomes its next version in place; a kill at any step changes nothing in the result."""

from __future__ import annotations

import csv
import itertools
import shutil

import numpy as np
import pytest

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.publish import About, Creator, SplitRule, check_dataset, dataset, publish, versions
from lungmix.publish.datacite import Release
from lungmix.publish.folder import ImageFile
from lungmix.publish.texts import changes_text
from lungmix.publish.versions import EarlierVersion
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseWriter, CohortWriter
from support.labelled import add_case, label_record, labelled_store

FIRST = About("Chest CT of phantoms", "1.0", "CC-BY-4.0", (Creator("Doe, Jane"),))
SECOND = About("Chest CT of phantoms", "2.0", "CC-BY-4.0", FIRST.creators)
OTHER_MODEL = PUBLISHED.__class__(PUBLISHED.weights, [mean + 5 for mean in PUBLISHED.means], PUBLISHED.variances)


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def places(folder):
    """Return inode and time of each file, which a file that is written again does not keep."""
    files = {file.relative_to(folder).as_posix(): file.stat() for file in folder.rglob("*") if file.is_file()}
    return {path: (status.st_ino, status.st_mtime_ns) for path, status in files.items()}


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Two stores: of two scans, and with one scan removed, one added and one relabelled; and the first publication."""
    folder = tmp_path_factory.mktemp("growth")
    before, _ = labelled_store(folder / "before.zarr", 3)
    shutil.copytree(folder / "before.zarr", folder / "after.zarr")
    after = lungmix.open_cohort(folder / "after.zarr", "a")
    gone, again, _ = sorted(after)
    CohortWriter(after).remove(gone)
    relabelled = after[again]
    ct, lung = (relabelled.array(image).compute() for image in ("ct", "lung"))
    tissue = lungmix.tissue_labels(ct, lung, OTHER_MODEL)
    for image, volume in {"tissue": tissue, "tissue_median": lungmix.median_labels(tissue)}.items():
        for start, stop in relabelled.layout.slabs():
            CaseWriter(relabelled).write(image, start, volume[start:stop])
    label_record(relabelled, OTHER_MODEL, "other")
    ct = np.random.default_rng(0).integers(-900, 0, (8, 9, 10)).astype("int16")
    add_case(after, "case-new", ct, np.ones(ct.shape, "uint8"), Geometry((10, 9, 8), (1.0, 2.0, 3.0)))
    after = lungmix.open_cohort(folder / "after.zarr", "a")
    measure_cohort(after, list(after), PUBLISHED)
    assert publish(before, folder / "one", FIRST, split=SplitRule(0.4)).is_complete
    assert publish(after, folder / "two", SECOND, previous=folder / "one").is_complete
    return before, after, folder / "one", folder / "two"


@pytest.fixture
def copy(grown, tmp_path):
    """A copy of the first publication, which tests may replace by the next version."""
    return shutil.copytree(grown[2], tmp_path / "data")


def test_version_in_place_has_the_bytes_of_one_in_a_new_folder_and_touches_no_other(grown, copy):
    _, after, _, second = grown
    before = places(copy)
    (copy / "old.csv").write_text("")
    result = publish(after, copy, SECOND)
    assert list(result.problems) == ["old.csv"]
    (copy / "old.csv").unlink()
    result = publish(after, copy, SECOND)
    assert result.is_complete
    assert contents(copy) == contents(second)
    assert check_dataset(copy) == {}
    untouched = {path for path, place in places(copy).items() if before.get(path) == place}
    gone, again, same = sorted(grown[0])
    images = [f"images/{same}/{same}_{image}.nrrd" for image in ("ct", "lung", "tissue", "tissue_median")]
    assert untouched >= {*images, f"images/{again}/{again}_ct.nrrd", f"images/{again}/{again}_lung.nrrd", "LICENSE.txt"}
    assert f"images/{again}/{again}_tissue.nrrd" not in untouched
    assert not (copy / "images" / gone).exists()


def test_changes_say_what_was_added_removed_and_relabelled_and_why(grown):
    gone, again, _ = sorted(grown[0])
    text = (grown[3] / "CHANGELOG.md").read_text()
    assert "- added: case-new\n" in text
    assert f"- removed: {gone}\n" in text
    assert f"- relabelled: {again} (tissue, tissue_median), model published:" in text
    assert " became other:" in text
    assert "- unchanged: 6 images\n" in text
    assert text.index("## 2.0") < text.index("## 1.0")
    with (grown[3] / "split.csv").open() as stream:
        assert {row["since"] for row in csv.DictReader(stream)} == {"1.0", "2.0"}


class Kill(BaseException):
    """End of the process, which no handler sees."""


@pytest.mark.parametrize(
    "step",
    ["journal.start", "start_publication", "export_image", "journal.add", "write_text", "check_dataset", "write_sums"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_version_that_was_killed_at_any_step_is_resumed(grown, copy, monkeypatch, step, when):
    _, after, _, second = grown
    owner, name = {
        "journal.start": (versions.Journal, "start"),
        "start_publication": (dataset, "start_publication"),
        "export_image": (dataset, "export_image"),
        "journal.add": (versions.Journal, "add"),
        "write_text": (dataset.files, "write_text"),
        "check_dataset": (dataset, "check_dataset"),
        "write_sums": (dataset.files, "write_sums"),
    }[step]
    original, calls = getattr(owner, name), itertools.count(1)
    last = 3 if step in ("export_image", "journal.add", "write_text") else 1

    def killed(*arguments, **options):
        is_last = next(calls) == last
        if is_last and when == "before":
            raise Kill
        value = original(*arguments, **options)
        if is_last:
            raise Kill
        return value

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, killed)
        with pytest.raises(Kill):
            publish(after, copy, SECOND)
    assert publish(after, copy, SECOND).is_complete
    assert contents(copy) == contents(second)


def test_files_that_another_version_links_to_keep_their_bytes(grown, tmp_path):
    _, after, first, _ = grown
    before = contents(first)
    assert publish(grown[0], tmp_path / "linked", SECOND, previous=first).is_complete
    third = About(SECOND.title, "3.0", SECOND.license, SECOND.creators)
    assert publish(after, tmp_path / "linked", third).is_complete
    assert contents(first) == before
    assert (tmp_path / "linked" / "CHANGELOG.md").read_text().count("## ") == 3


def test_version_that_the_folder_has_or_had_is_rejected_and_changes_nothing(grown, copy):
    before, after, first, _ = grown
    held = contents(copy)
    with pytest.raises(UsageError, match=r"complete version 1\.0"):
        publish(after, copy, FIRST)
    with pytest.raises(UsageError, match="`previous` away"):
        publish(after, copy, SECOND, previous=first)
    assert contents(copy) == held
    (copy / "note.txt").write_text("")
    assert not publish(after, copy, SECOND).is_complete
    with pytest.raises(UsageError, match=r"complete version 1\.0"):
        publish(after, copy, FIRST)
    with pytest.raises(UsageError, match=r"was version 1\.0 before"):
        publish(before, copy, SECOND, previous=first)


def test_files_that_the_new_version_has_no_more_are_removed(grown, copy):
    (copy / "extra").mkdir()
    (copy / "extra" / "table.csv").write_text("a\n")
    sums = (copy / "SHA256SUMS").read_text() + f"{'0' * 64}  extra/table.csv\n"
    (copy / "SHA256SUMS").write_text(sums)
    assert publish(grown[1], copy, SECOND).is_complete
    assert not (copy / "extra").exists()


def test_changes_name_other_voxels_new_files_and_removed_files(tmp_path):
    old = [
        ImageFile("images/b/b_ct.nrrd", "b", "ct", "1", {}, "s1"),
        ImageFile("images/b/b_side.nrrd", "b", "side", "2", {}, "s2"),
    ]
    now = [
        ImageFile("images/b/b_ct.nrrd", "b", "ct", "9", {}, "s9"),
        ImageFile("images/b/b_tissue.nrrd", "b", "tissue", "3", {}, "s3"),
    ]
    earlier = EarlierVersion(
        tmp_path, "1.0", 1, {image.path: image for image in old}, "# Changes\n\n## 1.0\n", (), Release("", "1.0")
    )
    text = changes_text(SECOND, "2026-01-31", now, earlier)
    assert "- changed: b (ct), the scan was converted or its mask computed again, with other voxels\n" in text
    assert "- new file: images/b/b_tissue.nrrd\n- file removed: images/b/b_side.nrrd\n" in text
