"""Headers that are longer than the bytes that are read first, damaged headers, and duplicate files."""

import warnings

import numpy as np
import pydicom
import pytest

from lungmix.formats import find_scans
from lungmix.formats.dicom.duplicates import has_same_pixels
from lungmix.formats.dicom.header import DamagedFile
from lungmix.formats.dicom.header_reader import HeaderReader
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from support.series import hu_of, only_scan, read, write_series


@pytest.mark.parametrize("size", [1, 10_000, 16_300, 30_000, 300_000])
@pytest.mark.parametrize("undefined", [False, True])
def test_headers_of_any_length_are_read_completely(tmp_path, size, undefined):
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


def test_truncated_header_is_damaged_wherever_it_ends(tmp_path):
    (file, *_) = write_series(tmp_path / "s", hu_of((1, 8, 8)))
    content = file.read_bytes()
    reader = HeaderReader()
    for cut in range(132, len(content)):
        file.write_bytes(content[:cut])
        result = reader.read(file)
        assert not isinstance(result, list), cut


@pytest.mark.parametrize("seed", range(30))
def test_noise_after_the_dicm_prefix_is_a_damaged_file_rather_than_a_read_error(tmp_path, seed):
    file = tmp_path / "noise"
    file.write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(seed).bytes(3000))
    assert isinstance(HeaderReader().read(file), DamagedFile)


def test_duplicates_are_distinguished_from_files_that_differ(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    content = np.random.default_rng(0).bytes(600_000)
    first.write_bytes(content)
    second.write_bytes(content)
    assert has_same_pixels(str(first), str(second))
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not has_same_pixels(str(first), str(second))
    second.write_bytes(content[:300_001] + bytes([content[300_001] ^ 1]) + content[300_002:])
    assert not has_same_pixels(str(first), str(second))
    second.write_bytes(content + b"more")
    assert not has_same_pixels(str(first), str(second))


def test_duplicates_with_another_header_are_recognised_by_their_pixels(tmp_path):
    (file, *_) = write_series(tmp_path / "s", hu_of((1, 8, 8)))
    other = tmp_path / "other.dcm"
    dataset = pydicom.dcmread(file)
    dataset.StudyDescription = "written by another archive"
    dataset.save_as(other)
    assert has_same_pixels(str(file), str(other))
    dataset.RescaleIntercept = -1000
    dataset.save_as(other)
    assert not has_same_pixels(str(file), str(other))


def test_warnings_of_a_library_are_hidden_until_the_last_of_several_readers_ends():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        first, second = hide_warnings_of("pydicom"), hide_warnings_of("pydicom", "highdicom")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        for module in ("pydicom.values", "highdicom"):
            warnings.warn_explicit("Rossi^Maria", UserWarning, "file.py", 1, module=module)
        warnings.warn_explicit("of another library", UserWarning, "file.py", 1, module="pydicomish")
        second.__exit__(None, None, None)
        assert warnings.filters == before
    assert [str(warning.message) for warning in shown] == ["of another library"]


def test_no_warning_of_pydicom_is_shown_while_scans_are_found_and_read(tmp_path):
    for file in write_series(tmp_path / "s", SpecificCharacterSet="ISO_IR 192"):
        file.write_bytes(file.read_bytes().replace(b"ISO_IR 192", b"ISO_IR 999"))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        (scan,) = find_scans(tmp_path / "s")
        assert len(list(scan.slabs(8)))
    assert shown == []
