"""Headers that are longer than what is read first, and descriptions of many frames."""

import numpy as np
import pydicom
import pytest

from lungmix.formats.dicom.duplicates import same_content
from lungmix.formats.dicom.header import Damaged, HeaderReader
from support.series import hu_of, only_scan, read, write_series


@pytest.mark.parametrize("size", [1, 10_000, 16_300, 30_000, 300_000])
@pytest.mark.parametrize("undefined", [False, True])
def test_headers_of_any_length_are_read_once_and_whole(tmp_path, size, undefined):
    files = write_series(tmp_path / "s", hu_of((3, 12, 12)))
    for file in files:
        dataset = pydicom.dcmread(file)
        item = pydicom.Dataset()
        block = item.private_block(0x0029, "LONG", create=True)
        block.add_new(1, "OB", bytes(size + size % 2))
        dataset.ReferencedImageSequence = [item]
        dataset["ReferencedImageSequence"].is_undefined_length = undefined
        item.is_undefined_length_sequence_item = undefined
        dataset.save_as(file)
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of((3, 12, 12)))


def test_cut_header_is_damage_whatever_it_is_cut_in(tmp_path):
    (file, *_) = write_series(tmp_path / "s", hu_of((1, 8, 8)))
    content = file.read_bytes()
    reader = HeaderReader()
    for cut in range(132, len(content)):
        file.write_bytes(content[:cut])
        found = reader.read(file)
        assert not isinstance(found, list), cut


@pytest.mark.parametrize("seed", range(30))
def test_noise_behind_the_mark_is_damage_and_no_fault_of_the_file_system(tmp_path, seed):
    file = tmp_path / "noise"
    file.write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(seed).bytes(3000))
    assert isinstance(HeaderReader().read(file), Damaged)


def test_copies_are_told_from_files_that_differ(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    content = np.random.default_rng(0).bytes(600_000)
    one.write_bytes(content)
    two.write_bytes(content)
    assert same_content(str(one), str(two))
    two.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not same_content(str(one), str(two))
    two.write_bytes(content[:300_001] + bytes([content[300_001] ^ 1]) + content[300_002:])
    assert not same_content(str(one), str(two))
    two.write_bytes(content + b"more")
    assert not same_content(str(one), str(two))


def test_copies_with_another_header_are_known_by_their_pixels(tmp_path):
    (file, *_) = write_series(tmp_path / "s", hu_of((1, 8, 8)))
    other = tmp_path / "other.dcm"
    dataset = pydicom.dcmread(file)
    dataset.StudyDescription = "written by another archive"
    dataset.save_as(other)
    assert same_content(str(file), str(other))
    dataset.RescaleIntercept = -1000
    dataset.save_as(other)
    assert not same_content(str(file), str(other))
