"""Series that change half way through the patient, or are not in HU: no part of them is used as a volume."""

import time

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from lungmix.errors import SourceError, reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom.grouping import _group_by_orientation
from lungmix.formats.dicom.header import Header
from support.examples import examples
from support.series import change, copy, hu_of, only_scan, read, refused, scans, skipped, write_series

ALL = SeriesFilter("all")


def reasons(folder, series_filter=None):
    return " | ".join(reveal(source.reason) for source in refused(find_scans(folder, series_filter)))


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ConvolutionKernel": lambda i: "B30f" if i < 5 else "B70f"}, "kernel"),
        ({"ImageOrientationPatient": lambda i: [1, 0, 0, 0, 1 if i < 5 else -1, 0]}, "orientation"),
        ({"ImageOrientationPatient": lambda i: [1 if i < 5 else -1, 0, 0, 0, 1 if i < 5 else -1, 0]}, "orientation"),
        ({"PixelSpacing": lambda i: [0.5, 0.75] if i < 5 else [0.6, 0.75]}, "pixel spacing"),
        ({"FrameOfReferenceUID": lambda i: "1.2.3" if i < 5 else "1.2.4"}, "frame of reference"),
    ],
)
def test_series_that_changes_half_way_is_rejected_with_the_slices_named(tmp_path, tags, words):
    write_series(tmp_path / "s", **tags)
    sources = find_scans(tmp_path / "s")
    assert not scans(sources)
    message = reasons(tmp_path / "s")
    assert (
        f"slices 1 to 5 (00001.dcm to 00005.dcm) and slices 6 to 8 (00006.dcm to 00008.dcm) differ in {words}"
        in message
    )
    assert "`filter='all'`" in message
    parts = scans(find_scans(tmp_path / "s", ALL))
    assert sorted(len(read(scan)) for scan in parts) == [3, 5]
    assert all("is a part of a volume: slices" in reveal(scan.notes[0]) for scan in parts)


def test_last_slice_of_another_kernel_is_not_dropped_silently(tmp_path):
    write_series(tmp_path / "s", ConvolutionKernel=lambda i: "B30f" if i < 7 else "B70f")
    assert "slice 8 (00008.dcm) differ in kernel" in reasons(tmp_path / "s")


def test_acquisitions_that_share_a_seam_are_parts_of_a_volume(tmp_path):
    files = write_series(tmp_path / "s", AcquisitionNumber=lambda i: 1 if i < 5 else 2)
    copy(files[4], tmp_path / "s" / "seam.dcm", AcquisitionNumber=2)
    assert "differ in acquisition" in reasons(tmp_path / "s")


def test_kernels_of_one_whole_scan_are_volumes_of_their_own(tmp_path):
    files = write_series(tmp_path / "s")
    for file in files:
        copy(file, tmp_path / "s" / f"b-{file.name}", ConvolutionKernel="B70f")
    assert [len(read(scan)) for scan in scans(find_scans(tmp_path / "s", ALL))] == [8, 8]
    assert not reasons(tmp_path / "s")


def interleaved(folder, **tags):
    """Write two scans with the same series identifier and interleaved slices into two folders."""
    same = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(folder / "a", seed=1, origin=(0, 0, 0), **same, **tags)
    write_series(folder / "b", seed=2, origin=(0, 0, 0.625), **same, **tags)


def test_interleaved_slices_of_two_scans_are_rejected(tmp_path):
    interleaved(tmp_path / "s")
    message = reasons(tmp_path / "s")
    assert "slices 1 (00001.dcm), 2 (00001.dcm), 3 (00002.dcm), 4 (00002.dcm) and 12 more share" in message
    assert "`trust_positions=True`" in message
    assert only_scan(tmp_path / "s", SeriesFilter(trust_positions=True)).geometry.size[2] == 16


def behind_each_other(folder, count=2, **tags):
    """Write scans with the same series identifier, each of which begins where the previous scan ends."""
    same = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    for number in range(count):
        scan_tags = {name: value[number] if isinstance(value, list) else value for name, value in tags.items()}
        write_series(folder / "abc"[number], seed=number, origin=(0, 0, 10.0 * number), **same, **scan_tags)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_scans_that_follow_each_other_under_one_identifier_are_rejected(tmp_path, count, down):
    up = lambda i: i + 1  # noqa: E731
    numbers = [up, (lambda i: 8 - i) if down else up, up][:count]
    behind_each_other(tmp_path / "s", count, InstanceNumber=numbers)
    message = reasons(tmp_path / "s")
    assert "slices 1 to 8 (00001.dcm to 00008.dcm), 9 to 16 (00001.dcm to 00008.dcm)" in message
    assert "they may be of two consecutive scans" in message
    scan = only_scan(tmp_path / "s", SeriesFilter(trust_positions=True))
    assert scan.geometry.size[2] == 8 * count
    assert "instance numbers restart" in scan.notes[0]


def test_acquisitions_of_one_series_that_are_numbered_each_from_one_are_noted(tmp_path):
    behind_each_other(tmp_path / "s", AcquisitionNumber=[1, 2])
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), np.concatenate([hu_of(seed=0), hu_of(seed=1)]))
    assert "slices 1 to 8 (00001.dcm to 00008.dcm), 9 to 16 (" in reveal(scan.notes[0])
    assert "the patient may have moved or breathed" in scan.notes[0]


def without(files, *keywords):
    for file in files:
        change(file, **dict.fromkeys(keywords))


def test_unsigned_pixels_without_rescaling_are_rejected(tmp_path):
    files = write_series(tmp_path / "s", PixelRepresentation=0)
    without(files, "RescaleSlope", "RescaleIntercept")
    assert "has no valid rescaling of its pixels to HU (RescaleSlope)" in reasons(tmp_path / "s")


def test_signed_pixels_without_rescaling_are_used_as_hu_and_noted(tmp_path):
    files = write_series(tmp_path / "s", intercept=0)
    without(files, "RescaleSlope", "RescaleIntercept")
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu_of())
    assert "taken for HU as they are" in scan.notes[0]


def test_single_slice_without_rescaling_is_named(tmp_path):
    files = write_series(tmp_path / "s")
    without(files[3:4], "RescaleIntercept")
    assert "slice 4 (00004.dcm) lacks rescale slope or intercept" in reasons(tmp_path / "s")


def test_inverted_grey_is_rejected(tmp_path):
    write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1")
    assert "MONOCHROME1" in reasons(tmp_path / "s")


@pytest.mark.parametrize("quantity", ["MGML", "Z_EFF", "EDW", "ED", "PCT", "mg/cc", "100ug/cc"])
def test_maps_of_materials_are_skipped(tmp_path, quantity):
    write_series(tmp_path / "s", RescaleType=quantity)
    (source,) = skipped(find_scans(tmp_path / "s"))
    assert "is a map of a material or another quantity" in source.reason


@pytest.mark.parametrize("quantity", ["HU", "HU_MOD", "US", "", None])
def test_hu_by_any_name_are_read(tmp_path, quantity):
    write_series(tmp_path / "s", RescaleType=quantity)
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of())


@pytest.mark.parametrize(
    ("image_type", "used"),
    [
        (["DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"], False),
        (["DERIVED", "PRIMARY", "PROJECTION IMAGE", "MINIP"], False),
        (["DERIVED", "SECONDARY", "VRT"], False),
        (["DERIVED", "SECONDARY", "AXIAL", "SUBTRACTION"], False),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], True),
        (["DERIVED", "SECONDARY", "MPR", "CSA MPR"], True),
        (["ORIGINAL", "PRIMARY", "AXIAL", "AMIPRO"], True),
    ],
)
def test_projections_are_skipped(tmp_path, image_type, used):
    write_series(tmp_path / "s", ImageType=image_type)
    sources = find_scans(tmp_path / "s")
    assert len(scans(sources)) == used
    assert used or "is a projection" in skipped(sources)[0].reason


def test_padding_that_does_not_fit_into_the_stored_bits_is_air(tmp_path):
    inside = np.random.default_rng(0).integers(0, 3000, (8, 20, 24))
    files = write_series(tmp_path / "s")
    for file, plane in zip(files, inside, strict=True):
        dataset = pydicom.dcmread(file)
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 12, 11, 0
        plane[:4] = 63536
        dataset.PixelData, dataset.RescaleIntercept = plane.astype("<u2").tobytes(), -1024
        dataset.add_new(0x00280120, "US", 63536)
        dataset.save_as(file)
    values = read(only_scan(tmp_path / "s"))
    assert (values[:, :4] == -1024).all()
    assert np.array_equal(values[:, 4:], inside[:, 4:] - 1024)


def test_padding_values_inside_the_body_are_rejected_with_a_remedy(tmp_path):
    for number, file in enumerate(write_series(tmp_path / "s", PixelRepresentation=0)):
        dataset = pydicom.dcmread(file)
        plane = np.full((20, 24), 1000, "<u2")
        plane[:4] = 63536
        plane[12, 12] = 63536 if number == 5 else 1000
        dataset.PixelData, dataset.RescaleIntercept = plane.tobytes(), -1024
        dataset.add_new(0x00280120, "US", 63536)
        dataset.save_as(file)
    scan = only_scan(tmp_path / "s")
    with pytest.raises(SourceError, match=r"00006\.dcm \(slice 6\) has padding values inside the body .*: get the"):
        read(scan)


@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 6), min_size=1, max_size=30), st.integers(0, 20))
@examples(50)
def test_parallel_slices_are_those_within_a_thousandth_of_the_first(steps, around):
    # Orientations differ by steps of 0.0004, around the bounds of the cells of the lookup.
    members = [
        Header(str(i), orientation=tuple(v * 4e-4 + around * 4e-4 for v in orientation))
        for i, orientation in enumerate(steps)
    ]
    expected = []
    for header in members:
        for part in expected:
            if max(abs(a - b) for a, b in zip(part[0].orientation, header.orientation, strict=True)) < 1e-3:
                part.append(header)
                break
        else:
            expected.append([header])
    groups = _group_by_orientation(members)
    assert sum(map(len, groups)) == len(members)
    for part in groups:
        for header in part:
            assert max(abs(a - b) for a, b in zip(part[0].orientation, header.orientation, strict=True)) < 1e-3
    firsts = [part[0] for part in groups]
    assert firsts == [part[0] for part in expected]


def test_thousands_of_orientations_take_a_time_that_grows_with_their_number():
    def seconds(count):
        random = np.random.default_rng(0)
        rotations = [np.linalg.qr(random.normal(size=(3, 3)))[0] for _ in range(count)]
        members = [Header(str(i), orientation=tuple(axes[:2].ravel().tolist())) for i, axes in enumerate(rotations)]
        start = time.process_time()
        assert len(_group_by_orientation(members)) == count
        return time.process_time() - start

    seconds(100)
    # The shortest of several times is used, as other programs take time too. Comparison of all pairs would take 64
    # times as long.
    assert min(seconds(8000) for _ in range(3)) < 40 * max(*(seconds(1000) for _ in range(3)), 0.01)


def test_long_numbers_of_series_are_not_repeated(tmp_path):
    write_series(tmp_path / "s", SeriesNumber="987654321", BurnedInAnnotation="YES")
    assert "987654321" not in reasons(tmp_path / "s")
    assert reasons(tmp_path / "s").startswith("the series in s (8 slices)")


def test_many_small_groups_do_not_take_quadratic_time(tmp_path):
    write_series(tmp_path / "s", np.zeros((600, 2, 2), "i2"), ConvolutionKernel=lambda i: f"B{i // 3}f")
    start = time.process_time()
    (source,) = find_scans(tmp_path / "s")
    assert "series 1 in s (600 slices) is not a volume of one scan" in reveal(source.reason)
    # Comparison of all pairs of 200 groups by every rule would take far longer.
    assert time.process_time() - start < 20


def test_many_slices_at_one_position_are_skipped_as_such(tmp_path):
    write_series(tmp_path / "s", ImagePositionPatient=[0, 0, 0])
    (source,) = skipped(find_scans(tmp_path / "s"))
    assert "of 8 slices at 1 position only" in source.reason
