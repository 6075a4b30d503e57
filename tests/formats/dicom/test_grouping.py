"""Grouping of slices into volumes: by positions first, then by shared attributes."""

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from lungmix.formats.dicom.even_spacing import count_interleaved_grids, is_even, is_mostly_even
from lungmix.formats.dicom.instance_numbers import count_passes
from lungmix.formats.dicom.linked_components import connected_components
from support.series import change, copy, hu_of, only_scan, read, refused, scans, skipped, write_series

ALL = SeriesFilter("all")
GAPS = SeriesFilter(allow_gaps=True)
SHAPE = (20, 8, 10)
NEW = {
    "FrameOfReferenceUID": lambda i: f"1.2.{i + 1}",
    "SeriesInstanceUID": lambda i: f"1.3.{i + 1}",
    "StudyInstanceUID": lambda i: f"1.4.{i + 1}",
    "PatientID": lambda i: f"SECRET-{i}",
    "TemporalPositionIdentifier": lambda i: i + 1,
    "ConvolutionKernel": lambda i: f"B{i}f",
    "NominalCardiacTriggerDelayTime": lambda i: 400.0 + i,
    "AcquisitionNumber": lambda i: i + 1,
    "AcquisitionTime": lambda i: f"1010{i:02d}",
    "SeriesNumber": lambda i: i + 1,
}


def reasons(sources):
    return [reveal(source.reason) for source in refused(sources)]


def notes(scan):
    return " | ".join(map(reveal, scan.notes))


@pytest.mark.parametrize("name", NEW)
def test_attribute_that_is_new_in_every_slice_identifies_nothing(tmp_path, name):
    write_series(tmp_path / "s", hu_of(SHAPE), **{name: NEW[name]})
    write_series(tmp_path / "other", hu_of(SHAPE, 5), seed=5, PatientID="P2")
    sources = find_scans(tmp_path)
    assert not refused(sources)
    assert not skipped(sources)
    assert sorted(read(source).tobytes() for source in scans(sources)) == sorted(
        hu_of(SHAPE, i).tobytes() for i in (0, 5)
    )
    (message,) = [notes(source) for source in scans(sources) if source.geometry.origin and notes(source)] or [""]
    if name not in ("AcquisitionNumber", "AcquisitionTime", "SeriesNumber"):
        assert f"its {name} has a new value in nearly every slice and identifies nothing" in message
    assert "SECRET" not in message


@given(st.sets(st.sampled_from(sorted(NEW)), min_size=1, max_size=5), st.permutations(range(9)))
@settings(max_examples=15, deadline=None)
def test_attributes_new_in_every_slice_leave_one_volume_or_one_rejection(tmp_path_factory, names, order):
    folder = tmp_path_factory.mktemp("s")
    files = write_series(folder / "a", hu_of((9, 4, 4)), **{name: NEW[name] for name in names})
    for file, at in zip(files, order, strict=True):
        file.rename(folder / f"{at}.dcm")
    sources = find_scans(folder)
    assert len(sources) == 1
    if scans(sources):
        assert np.array_equal(read(sources[0]), hu_of((9, 4, 4)))
    else:
        assert {"PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"} <= names
        assert "PatientID, StudyInstanceUID and SeriesInstanceUID have a new value" in reveal(sources[0].reason)


def test_identifier_that_nearly_every_slice_has_alone_identifies_nothing(tmp_path):
    write_series(tmp_path / "s", hu_of(SHAPE), SeriesInstanceUID=lambda i: f"1.3.{1 if i in (2, 3, 9) else i}")
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of(SHAPE))


def test_missing_slice_of_a_fragmented_series_is_named_in_one_line(tmp_path):
    files = write_series(tmp_path / "s", hu_of(SHAPE), SeriesInstanceUID=NEW["SeriesInstanceUID"])
    files[7].unlink()
    (reason,) = reasons(find_scans(tmp_path / "s"))
    assert "between slices 7 and 8 of 19" in reason


def test_two_fragmented_series_in_one_folder_are_separated_by_other_identifiers(tmp_path):
    for number in (0, 1):
        for file in write_series(
            tmp_path / f"t{number}", hu_of(SHAPE, number), seed=number, SeriesNumber=number + 4, StudyInstanceUID="1.2",
            SeriesInstanceUID=lambda i, n=number: f"1.3.{n}.{i}",
        ):  # fmt: skip
            (tmp_path / "s").mkdir(exist_ok=True)
            file.rename(tmp_path / "s" / f"{number}{file.name}")
    sources = find_scans(tmp_path / "s", ALL)
    assert sorted(read(source).tobytes() for source in scans(sources)) == sorted(
        hu_of(SHAPE, i).tobytes() for i in (0, 1)
    )
    assert not refused(sources)


def test_key_of_a_fragmented_series_does_not_depend_on_its_first_slice(tmp_path):
    files = write_series(tmp_path / "s", hu_of(SHAPE), **{name: NEW[name] for name in list(NEW)[:3]})
    complete = only_scan(tmp_path / "s")
    files[0].unlink()
    assert only_scan(tmp_path / "s").key == complete.key


@pytest.mark.parametrize("attribute", ["PixelSpacing", "ImageOrientationPatient"])
def test_decimals_that_differ_in_the_last_digit_lose_no_slice(tmp_path, attribute):
    values = {
        "PixelSpacing": lambda i: ["0.703125", "0.703125"] if i % 2 else ["0.7035", "0.7031"],
        "ImageOrientationPatient": lambda i: [1, 0, 0, 0, 1, 0] if i % 2 else [1, 0, 0.0004, 0, 1, 0],
    }
    write_series(tmp_path / "s", hu_of(SHAPE), **{attribute: values[attribute]})
    sources = find_scans(tmp_path / "s")
    assert not skipped(sources)
    assert np.array_equal(read(only_scan(tmp_path / "s")), hu_of(SHAPE))


CHANGES = {
    "half way": lambda i: i < 11,
    "to and fro": lambda i: i % 2 == 0,
    "at random": lambda i: i in (0, 3, 4, 9, 10, 11, 15, 18),
}


@pytest.mark.parametrize("pattern", CHANGES)
@pytest.mark.parametrize(
    "names",
    [
        ["PatientID"],
        ["StudyInstanceUID"],
        ["SeriesInstanceUID"],
        ["FrameOfReferenceUID"],
        ["PatientID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"],
    ],
    ids=len,
)
def test_identifier_that_changes_within_a_volume_is_one_rejection_that_names_it(tmp_path, pattern, names):
    values = {name: lambda i, n=n: f"1.2.{n}.{CHANGES[pattern](i):d}" for n, name in enumerate(names)}
    write_series(tmp_path / "s", hu_of(SHAPE), **values)
    (source,) = find_scans(tmp_path / "s")
    (reason,) = reasons([source])
    assert all(f"({name})" in reason for name in names)
    assert "1.2.0" not in reason
    assert "(20 slices)" in reason


def test_halves_of_two_patients_are_used_where_all_parts_are_asked_for(tmp_path):
    write_series(tmp_path / "s", hu_of(SHAPE), PatientID=lambda i: "A" if i < 9 else "B")
    sources = find_scans(tmp_path / "s", ALL)
    assert sorted(len(read(source)) for source in scans(sources)) == [9, 11]
    assert all("is a part of a volume" in notes(source) for source in scans(sources))


@pytest.mark.parametrize("name", ["TemporalPositionIdentifier", "NominalCardiacTriggerDelayTime"])
def test_times_that_change_within_one_even_pass_are_noted(tmp_path, name):
    write_series(tmp_path / "s", hu_of(SHAPE), **{name: lambda i: 1 + i // 5})
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu_of(SHAPE))
    assert f"its {name} changes within one even stack" in notes(scan)


def test_neighbouring_series_of_one_study_numbered_from_one_are_both_used(tmp_path):
    same = {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3"}
    write_series(tmp_path / "chest", hu_of(SHAPE), origin=(0, 0, 0), **same)
    write_series(tmp_path / "belly", hu_of(SHAPE, 1), seed=1, origin=(0, 0, -25.0), **same)
    assert len(scans(find_scans(tmp_path))) == 2


def passes(folder, offset, **tags):
    """Write two passes over one chest as one series; slices of the second pass are `offset` mm higher."""
    same = {"SeriesInstanceUID": "1.9.1", "StudyInstanceUID": "1.9.2", "FrameOfReferenceUID": "1.9.3"}
    for number in (0, 1):
        tags_of_pass = {name: value[number] if isinstance(value, list) else value for name, value in tags.items()}
        write_series(
            folder / "ab"[number], hu_of(SHAPE, number), seed=number, spacing=(1, 1, 2.0),
            origin=(0, 0, offset * number), **(same | tags_of_pass),
        )  # fmt: skip


ONCE = [lambda i: i + 1, lambda i: i + 21]


@pytest.mark.parametrize("offset", [0.5, 1.0, 1.3, 5.0])
@pytest.mark.parametrize(
    "tags",
    [
        {"AcquisitionNumber": [1, 2]},
        {"AcquisitionNumber": [1, 2], "InstanceNumber": ONCE},
        {"AcquisitionTime": [lambda i: f"1010{i:02d}", lambda i: f"1012{i:02d}"]},
        {"SeriesNumber": [4, 5], "InstanceNumber": None},
        {"IrradiationEventUID": ["1.2.1", "1.2.2"]},
        {"FrameOfReferenceUID": ["1.2.1", "1.2.2"]},
    ],
    ids=lambda tags: "-".join(tags),
)
def test_interleaved_passes_are_separated(tmp_path, offset, tags):
    if "SeriesNumber" in tags and offset in (1.0, 5.0):
        offset = 0.7  # without numbers, offsets of half the spacing give one even stack
    passes(tmp_path / "s", offset, **tags)
    sources = find_scans(tmp_path / "s", ALL)
    assert not refused(sources)
    assert sorted(read(source).tobytes() for source in scans(sources)) == sorted(
        hu_of(SHAPE, i).tobytes() for i in (0, 1)
    )


@pytest.mark.parametrize("series_filter", [None, ALL, GAPS])
@pytest.mark.parametrize("numbers", [lambda i: i + 1, ONCE, None], ids=["shared", "once", "none"])
@pytest.mark.parametrize("offset", [0.5, 0.7, 1.0])
def test_passes_that_no_attribute_separates_are_rejected_and_never_mixed(tmp_path, offset, numbers, series_filter):
    if numbers is None and offset != 0.7:
        return  # headers are like those of one even stack, or of one with gaps
    passes(tmp_path / "s", offset, InstanceNumber=numbers)
    (reason,) = reasons(find_scans(tmp_path / "s", series_filter))
    assert "may be mixed" in reason
    assert "`trust_positions=True`" in reason


def test_gap_in_one_pass_does_not_mix_it_with_the_other(tmp_path):
    passes(tmp_path / "s", 0.7, AcquisitionNumber=[1, 2])
    (tmp_path / "s" / "a" / "00009.dcm").unlink()
    sources = find_scans(tmp_path / "s", ALL)
    assert [read(source).tobytes() for source in scans(sources)] == [hu_of(SHAPE, 1).tobytes()]
    assert "between slices 8 and 9 of 19" in reasons(sources)[0]


@given(st.integers(6, 30), st.sampled_from([(), (0.3,), (0.15,), (0.2, 0.5), (0.1, 0.3, 0.8)]), st.floats(3, 10))
def test_interleaved_grids_are_counted(n, offsets, step):
    along = np.sort(np.concatenate([step * (np.arange(n) + offset) for offset in (0.0, *offsets)]))
    assert count_interleaved_grids(along) == len(offsets) + 1
    assert is_even(along) == (not offsets)


def test_uneven_positions_are_not_even():
    assert is_even(np.array([3.0, 1.0, 2.0]))
    assert not is_even(np.array([1.0, 1.0, 2.0, 3.0]))
    assert not is_even(np.array([1.0, 2.0, 4.0, 5.0]))
    assert is_mostly_even(np.array([1.0, 2.0, 4.0, 5.0, 6.0, 6.0]))
    assert not is_mostly_even(np.array([1.0, 2.0, 4.5, 9.0]))


@pytest.mark.parametrize(
    ("numbers", "count"),
    [
        (list(range(12)), 1),
        ([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], 2),
        ([1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12], 2),
        ([1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12], 3),
        ([6, 5, 4, 3, 2, 1, 12, 11, 10, 9, 8, 7], 1),
        ([1, 2, 3, 9, 5, 6, 7, 8, 4, 10, 11, 12], 1),
        ([3, 9, 1, 12, 7, 5, 2, 11, 4, 10, 8, 6], 1),
        ([None] * 12, 1),
    ],
)
def test_passes_are_counted_by_instance_numbers(numbers, count):
    assert count_passes(numbers, 1.5 * np.arange(12)) == count


@given(st.lists(st.sets(st.integers(0, 12), max_size=3), max_size=12))
def test_items_that_share_links_are_one_connected_component(links):
    expected = [{i} for i in range(len(links))]
    for i in range(len(links)):
        for j in range(i):
            if links[i] & links[j]:
                first, second = (next(part for part in expected if k in part) for k in (i, j))
                if first is not second:
                    expected.remove(first)
                    second |= first
    assert sorted(map(sorted, connected_components(links))) == sorted(map(sorted, expected))


def test_parts_of_one_or_two_slices_are_one_line(tmp_path):
    files = write_series(tmp_path / "s", hu_of(SHAPE))
    for i in range(9):
        angle = np.radians(10 * i + 5)
        copy(
            files[0],
            tmp_path / "s" / f"r{i}.dcm",
            ImageOrientationPatient=[f"{np.cos(angle):.6f}", f"{np.sin(angle):.6f}", 0, 0, 0, -1],
            InstanceNumber=100 + i,
        )
    sources = find_scans(tmp_path / "s")
    (source,) = skipped(sources)
    assert len(scans(sources)) == 1
    assert "(9 slices): of 9 parts of one or two slices each" in source.reason


def test_images_other_than_ct_with_a_new_series_in_each_are_listed_in_one_line(tmp_path):
    write_series(tmp_path / "s", hu_of(SHAPE))
    write_series(
        tmp_path / "s" / "mr",
        hu_of(SHAPE),
        Modality="MR",
        **{name: NEW[name] for name in ("SeriesInstanceUID", "FrameOfReferenceUID")},
        SOPInstanceUID=lambda i: generate_uid(),
    )
    (source,) = skipped(find_scans(tmp_path / "s"))
    assert "(20 slices): is of modality MR" in source.reason


@pytest.mark.parametrize(
    "tags",
    [
        {"Modality": "MR"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImagePositionPatient": lambda i: [0, 0, 5.0 * (i % 2)], "InstanceNumber": lambda i: i},
    ],
)
def test_patient_without_any_used_series_is_a_failure(tmp_path, tags):
    write_series(tmp_path / "a", hu_of(SHAPE))
    write_series(tmp_path / "b", hu_of(SHAPE, 1), seed=1, PatientID="SECRET", **tags)
    sources = find_scans(tmp_path)
    assert len(scans(sources)) == len(skipped(sources)) == 1
    (reason,) = reasons(sources)
    assert (
        "b holds no CT series that is used: nothing of the 20 images of one patient was used (series 1 in b" in reason
    )
    assert reason.endswith("; give the original CT series")
    assert "SECRET" not in reason


@pytest.mark.parametrize("tie", ["PatientID", "StudyInstanceUID"])
def test_other_images_of_a_patient_or_study_in_use_are_not_failures(tmp_path, tie):
    (first, *_) = write_series(tmp_path / "a", hu_of(SHAPE))
    identifiers = {"PatientID": "P2", "StudyInstanceUID": "1.2.3"} | {tie: pydicom.dcmread(first)[tie].value}
    write_series(tmp_path / "b", hu_of(SHAPE, 1), seed=1, Modality="MR", **identifiers)
    sources = find_scans(tmp_path)
    assert not refused(sources)
    assert len(skipped(sources)) == 1


def test_damaged_slice_of_a_fragmented_series_is_reported_with_it(tmp_path):
    files = write_series(tmp_path / "s", hu_of(SHAPE), SeriesInstanceUID=NEW["SeriesInstanceUID"])
    files[-1].write_bytes(files[-1].read_bytes()[:-200])
    sources = find_scans(tmp_path / "s")
    assert not scans(sources)
    assert any("slice 20 (00020.dcm) is cut short" in reason for reason in reasons(sources))


@pytest.mark.parametrize("value", ["0", "-1.25", "7", "-7"])
def test_spacing_follows_positions_rather_than_spacing_between_slices(tmp_path, value):
    write_series(tmp_path / "s", hu_of(SHAPE), SpacingBetweenSlices="1.25")
    expected = only_scan(tmp_path / "s")
    for file in (tmp_path / "s").iterdir():
        change(file, SpacingBetweenSlices=value)
    scan = only_scan(tmp_path / "s")
    assert scan.geometry == expected.geometry
    assert np.array_equal(read(scan), hu_of(SHAPE))


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("empty", [None, ""])
def test_intercept_without_a_slope_is_applied_and_noted(tmp_path, signed, empty):
    for file in write_series(tmp_path / "s", hu_of(SHAPE), PixelRepresentation=signed):
        change(file, RescaleSlope=empty)
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), hu_of(SHAPE))
    assert "no rescale slope: the slope is taken for 1, the rescale intercept is applied" in notes(scan)


@pytest.mark.parametrize("empty", [None, ""])
def test_slope_without_an_intercept_is_applied_and_noted(tmp_path, empty):
    for file in write_series(tmp_path / "s", hu_of(SHAPE), intercept=0):
        change(file, RescaleSlope="2", RescaleIntercept=empty)
    scan = only_scan(tmp_path / "s")
    assert np.array_equal(read(scan), 2 * hu_of(SHAPE))
    assert "no rescale intercept: the intercept is taken for 0, the rescale slope is applied" in notes(scan)
