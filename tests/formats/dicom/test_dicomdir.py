"""Images that a DICOMDIR lists but that were not copied with it."""

import time
from pathlib import Path

import pydicom
import pytest
from pydicom.fileset import FileSet

from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom.dicomdir import read_dicomdir
from support.series import refused, scans, write_series

GAPS = SeriesFilter(allow_gaps=True)


STUDY = {"StudyID": "1", "StudyDate": "20010203", "StudyTime": "101112"}


def write_medium(folder, *series):
    """Write a medium (folder) with series and a DICOMDIR that lists them."""
    medium = FileSet()
    for files in series:
        for file in files:
            medium.add(file)
    medium.write(folder)
    return folder


@pytest.mark.parametrize("lost", [[0], [7], [3], [5, 6, 7]])
def test_slices_listed_in_the_dicomdir_but_missing_are_reported(tmp_path, lost):
    other = {"PatientID": "P2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": lambda i: f"1.2.3.{i}"}
    medium = write_medium(
        tmp_path / "medium", write_series(tmp_path / "s", **STUDY), write_series(tmp_path / "o", **STUDY, **other)
    )
    sources = find_scans(medium)
    assert not refused(sources)
    assert len(scans(sources)) == 2
    files = scans(sources)[0].files
    for i in lost:
        Path(files[i]).unlink()
    (source,) = refused(find_scans(medium))
    assert "which belongs to it, is listed in DICOMDIR but is missing" in reveal(source.reason)
    assert any(Path(files[i]).name in reveal(source.reason) for i in lost)
    assert ("nor are 2 more" in reveal(source.reason)) == (len(lost) == 3)
    assert len(scans(find_scans(medium))) == 1
    notes = [reveal(note) for scan in scans(find_scans(medium, GAPS)) for note in scan.notes]
    assert sum("is listed in DICOMDIR but is missing" in note and "not used" in note for note in notes) == 1


def test_series_of_which_nothing_was_copied_is_not_reported(tmp_path):
    other = {"PatientID": "P2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": lambda i: f"1.2.3.{i}"}
    medium = write_medium(
        tmp_path / "medium", write_series(tmp_path / "s", **STUDY), write_series(tmp_path / "o", **STUDY, **other)
    )
    for file in scans(find_scans(medium))[0].files:
        Path(file).unlink()
    assert not refused(find_scans(medium))


def test_cyclic_or_truncated_dicomdir_lists_the_readable_images(tmp_path):
    index = write_medium(tmp_path / "medium", write_series(tmp_path / "s", **STUDY)) / "DICOMDIR"
    assert len(read_dicomdir(str(index))) == 8
    dataset = pydicom.dcmread(index)
    offsets = [record.seq_item_tell for record in dataset.DirectoryRecordSequence]
    for record in dataset.DirectoryRecordSequence:
        record.OffsetOfTheNextDirectoryRecord = offsets[-1]
        record.OffsetOfReferencedLowerLevelDirectoryEntity = offsets[0]
    dataset.save_as(index)
    assert len(read_dicomdir(str(index))) <= 8
    content = index.read_bytes()
    for cut in range(0, len(content), 97):
        index.write_bytes(content[:cut])
        assert len(read_dicomdir(str(index))) <= 8


def test_dicomdir_with_too_many_items_is_not_read(tmp_path):
    index = write_medium(tmp_path / "medium", write_series(tmp_path / "s", **STUDY)) / "DICOMDIR"
    with index.open("ab") as stream:
        stream.write(b"\xfe\xff\x00\xe0\0\0\0\0" * 1_000_000)
    start = time.process_time()
    assert read_dicomdir(str(index)) == []
    assert time.process_time() - start < 2
