"""DICOM series compared with SimpleITK's series reader."""

import random
import shutil

import cloudpickle
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from lungmix.errors import SourceError
from lungmix.formats import RejectedSource, Scan, find_scans
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom
from support.series import by_simpleitk, change, only_scan, read, refused, scans, skipped

SHAPE = (6, 20, 24)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    write_phantom(folder, Phantom(SHAPE, (0.75, 0.5, 1.25), 3, origin=(-10.5, 3.25, -100.0)))
    return folder


def slices(folder):
    return sorted(folder.glob("*.dcm"))


def only(source):
    (scan,) = find_scans(source)
    return scan


def refusal_of(source):
    reasons = [rejected.reason for rejected in refused(find_scans(source))]
    if reasons:
        return " ".join(reasons)
    with pytest.raises(SourceError) as caught:
        read(only(source))
    return str(caught.value)


@st.composite
def frames(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    numbers = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(numbers.normal(size=(3, 3)))
    if np.linalg.det(rotation) < 0:
        rotation[:, 2] *= -1
    return seed, tuple(numbers.uniform(0.3, 8, 3)), tuple(numbers.uniform(-400, 400, 3)), tuple(rotation.ravel())


@given(frames(), st.integers(1, 7))
@settings(max_examples=25)
def test_oblique_series_equals_simpleitk_to_the_last_bit(tmp_path_factory, frame, thickness):
    seed, spacing, origin, direction = frame
    folder = tmp_path_factory.mktemp("oblique")
    write_phantom(folder, Phantom((4, 8, 9), spacing, seed, origin=origin, direction=direction))
    scan, image = only(folder), by_simpleitk(folder)
    assert isinstance(scan, Scan), scan
    assert scan.geometry == Geometry.from_sitk(image)
    assert np.allclose(scan.geometry.direction, direction, atol=1e-9)
    assert np.array_equal(read(scan, thickness), sitk.GetArrayFromImage(image))


def test_names_of_files_do_not_matter(series):
    expected = read(only(series))
    files = slices(series)
    names = [f"IM{i:04d}" for i in range(len(files))]
    random.Random(1).shuffle(names)
    for file, name in zip(files, names, strict=True):
        file.rename(series / name)
    assert np.array_equal(read(only(series)), expected)


def test_series_in_one_folder_are_separated(series, tmp_path):
    other = tmp_path / "other"
    write_phantom(other, Phantom(SHAPE, (0.75, 0.5, 1.25), 9, name="b"))
    for file in slices(other):
        shutil.copy(file, series / f"b-{file.name}")
    sources = scans(find_scans(series))
    assert [scan.geometry.shape for scan in sources] == [SHAPE, SHAPE]
    assert len({scan.key for scan in sources}) == 2


def test_technical_attributes_are_read_and_no_name(series):
    scan = only(series)
    assert scan.acquisition.manufacturer == "lungmix phantom"
    assert "Phantom^Chest" not in repr(scan)


def test_identity_is_kept_for_a_key_table_and_can_be_removed(series):
    scan = only(series)
    first = pydicom.dcmread(slices(series)[0])
    assert scan.identity.patient_name == "Phantom^Chest"
    assert scan.identity.patient_id == str(first.PatientID)
    assert scan.identity.study_uid == first.StudyInstanceUID
    assert scan.identity.series_uid == first.SeriesInstanceUID
    assert scan.identity.birth_date is None
    assert scan.identity.series_number == "1"
    assert "Phantom" not in repr(scan.identity)
    assert scan.without_identity().identity is None
    assert b"Phantom^Chest" not in cloudpickle.dumps(scan.without_identity())


def test_slope_and_intercept_of_each_slice_are_applied(series):
    expected = read(only(series))
    dataset = pydicom.dcmread(slices(series)[2])
    stored = np.frombuffer(dataset.PixelData, "<i2") - 100
    change(slices(series)[2], RescaleIntercept=int(dataset.RescaleIntercept) + 100, PixelData=stored.tobytes())
    assert np.array_equal(read(only(series)), expected)


def test_localizer_in_the_folder_is_skipped(series):
    copy = series / "localizer.dcm"
    shutil.copy(slices(series)[0], copy)
    change(copy, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SOPInstanceUID=generate_uid())
    assert only_scan(series).geometry.shape == SHAPE
    (source,) = skipped(find_scans(series))
    assert "localizer" in source.reason


def test_missing_slice_is_named(series):
    slices(series)[3].unlink()
    assert "between slices 3 and 4 of 5" in refusal_of(series)


def test_second_slice_at_one_position_is_named(series):
    copy = series / "copy.dcm"
    shutil.copy(slices(series)[2], copy)
    change(copy, SOPInstanceUID=generate_uid())
    assert "one position" in refusal_of(series)
    assert "copy.dcm" in refusal_of(series)


def test_truncated_file_is_named(series):
    victim = slices(series)[4]
    victim.write_bytes(victim.read_bytes()[:-300])
    assert victim.name in refusal_of(series)
    assert "again" in refusal_of(series)


@pytest.mark.parametrize("cut", [140, 200, 500, 700, 740, 760, 780, 800, 820])
def test_file_with_a_truncated_header_fails_the_series_it_may_belong_to(series, cut):
    victim = slices(series)[-1]  # the other slices look like a shorter scan
    victim.write_bytes(victim.read_bytes()[:cut])
    sources = find_scans(series)
    assert all(isinstance(source, RejectedSource) and victim.name in source.reason for source in sources), sources


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"NumberOfFrames": 2}, "fewer pixels"),
        ({"ImagePositionPatient": None}, "lacks position"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not a rotation"),
        ({"BurnedInAnnotation": "YES"}, "text in its pixels"),
    ],
)
def test_series_other_than_plain_ct_is_rejected(series, tags, words):
    for file in slices(series):
        change(file, **tags)
    assert words in refusal_of(series)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"Modality": "MR"}, "modality MR"),
        ({"Modality": "ANNA EXAMPLE"}, "modality unknown"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary capture"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "secondary capture"),
    ],
)
def test_folder_of_other_images_holds_no_ct(series, tags, words):
    for file in slices(series):
        change(file, **tags)
    sources = find_scans(series)
    assert words in skipped(sources)[0].reason
    assert "holds no CT series" in refused(sources)[0].reason
    assert not scans(sources)
