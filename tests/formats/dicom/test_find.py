"""Assignment of DICOM files to volumes, whatever their folders and names."""

import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
    generate_uid,
)

from lungmix.errors import reveal
from lungmix.formats import SeriesFilter, find_scans
from support.series import SHAPE, change, copy, hu_of, only_scan, read, refused, scans, skipped, write_series

ALL = SeriesFilter("all")


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path / "s")
    return tmp_path / "s"


def reasons(sources):
    return [reveal(source.reason) for source in sources]


def volumes(sources):
    return sorted(read(scan).tobytes() for scan in scans(sources))


def object_without_image(file, sop_class, **tags):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.save_as(file, enforce_file_format=True)


@pytest.mark.parametrize("seed", range(3))
def test_series_spread_over_folders_under_any_names_are_reassembled(tmp_path, seed):
    chance = random.Random(seed)
    expected = []
    files = []
    for number in range(3):
        files += write_series(tmp_path / "original" / str(number), seed=number, SeriesNumber=number)
        expected.append(hu_of(seed=number).tobytes())
    chance.shuffle(files)
    for index, file in enumerate(files):
        target = tmp_path / "shuffled" / chance.choice(["a", "b/c", "b/d", "."]) / f"{index:05d}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    sources = find_scans(tmp_path / "shuffled")
    assert not refused(sources)
    assert not skipped(sources)
    assert volumes(sources) == sorted(expected)
    assert len({scan.key for scan in scans(sources)}) == 3


def test_added_slice_changes_the_fingerprint_of_a_scan_and_not_its_key(folder):
    last = sorted(folder.iterdir())[-1]
    aside = last.rename(folder.parent / last.name)
    before = only_scan(folder)
    aside.rename(last)
    after = only_scan(folder)
    assert before.key == after.key
    assert before.fingerprint != after.fingerprint


def test_scan_of_an_archive_is_equal_when_unpacked_twice(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"p/{file.name}")
    first, second = only_scan(tmp_path / "a.zip"), only_scan(tmp_path / "a.zip")
    assert (first.key, first.fingerprint) == (second.key, second.fingerprint)
    assert np.array_equal(read(second), hu_of())


def test_scan_of_an_archive_is_listed_by_its_path_in_the_archive(folder, tmp_path):
    target = tmp_path / "many"
    for name in ("a", "c"):
        write_series(target / name, seed=ord(name))
    with zipfile.ZipFile(target / "b.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"Maria/{file.name}")
    expected = [target / "a", target / "b.zip" / "Maria", target / "c"]
    assert [Path(scan.path) for scan in scans(find_scans(target))] == expected
    (alone,) = scans(find_scans(target / "b.zip"))
    assert Path(alone.path) == expected[1]
    assert np.array_equal(read(alone), hu_of())


def test_archives_in_folders_are_searched(folder, tmp_path):
    with tarfile.open(tmp_path / "deep.tar.gz", "w:gz") as archive:
        archive.add(folder, "x")
    write_series(tmp_path / "s2", seed=5)
    shutil.rmtree(folder)
    assert volumes(find_scans(tmp_path)) == sorted([hu_of().tobytes(), hu_of(seed=5).tobytes()])


def test_links_lead_into_no_loop(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "loop").symlink_to(folder, target_is_directory=True)
    scan = only_scan(folder)
    assert scan.geometry.shape == SHAPE
    assert np.array_equal(read(scan), hu_of())


def test_linked_files_are_read(folder, tmp_path):
    (tmp_path / "links").mkdir()
    for file in folder.iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    assert np.array_equal(read(only_scan(tmp_path / "links")), hu_of())


def test_dicomdir_is_skipped_and_given_alone_stands_for_its_folder(folder):
    object_without_image(folder / "DICOMDIR", MediaStorageDirectoryStorage)
    assert np.array_equal(read(only_scan(folder)), hu_of())
    assert "index" in reasons(skipped(find_scans(folder)))[0]
    assert np.array_equal(read(only_scan(folder / "DICOMDIR")), hu_of())


def other(index, **tags):
    """Return the attributes of another series of the same study, with identifiers made from `index`."""
    return {"SeriesInstanceUID": "1.2.3.4.5", "SOPInstanceUID": lambda i: f"1.2.3.4.5.{index}.{i}", **tags}


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"SOPClassUID": SecondaryCaptureImageStorage, "Modality": "OT"}, "secondary capture"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "secondary capture"),
        ({"Modality": "MR"}, "modality MR"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "coronal"),
        ({"SliceThickness": 5}, "thicker reconstruction (5 mm) of the acquisition in"),
    ],
)
def test_other_images_and_worse_reconstructions_are_skipped_with_a_reason(folder, tmp_path, tags, words):
    positions = {}
    if "ImageOrientationPatient" in tags:
        positions = {"ImagePositionPatient": lambda i: [-10, 3 + i, -92]}
    write_series(tmp_path / "s" / "more", hu_of((6, 20, 24), 3), **other(1, SeriesNumber=2, **positions, **tags))
    sources = find_scans(folder)
    assert not refused(sources)
    assert np.array_equal(read(scans(sources)[0]), hu_of())
    assert len(scans(sources)) == 1
    (reason,) = reasons(skipped(sources))
    assert words in reason
    assert reason.startswith("series 2 in more (6 slices")


@pytest.mark.parametrize("same_series", [False, True])
def test_reformat_and_localizer_inside_the_same_series_do_not_mix_in(folder, same_series):
    first = sorted(folder.iterdir())[0]
    uid = {} if same_series else {"SeriesInstanceUID": "1.2.9"}
    for i in range(4):
        copy(first, folder / f"r{i}.dcm", ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[i, 3, -92],
             ImageType=["DERIVED", "SECONDARY", "REFORMATTED"], InstanceNumber=100 + i, **uid)  # fmt: skip
    copy(first, folder / "l.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], InstanceNumber=200, **uid)
    sources = find_scans(folder)
    assert not refused(sources)
    assert [read(scan).tolist() for scan in scans(sources)] == [hu_of().tolist()]
    messages = " ".join(reasons(skipped(sources)))
    assert "sagittal reformat" in messages
    assert "localizer" in messages


def test_private_objects_without_an_image_are_skipped(folder):
    object_without_image(folder / "own", "1.3.12.2.1107.5.9.1", Modality="CT", SeriesInstanceUID="1.2.3")
    assert "holds no image (an unknown object)" in reasons(skipped(find_scans(folder)))[0]
    assert np.array_equal(read(only_scan(folder)), hu_of())


def test_dose_report_and_other_objects_are_skipped_by_their_names(folder):
    object_without_image(folder / "dose", XRayRadiationDoseSRStorage, Modality="SR", SeriesInstanceUID="1.2.3")
    assert "X-Ray Radiation Dose SR" in reasons(skipped(find_scans(folder)))[0]
    assert np.array_equal(read(only_scan(folder)), hu_of())


@pytest.mark.parametrize("attribute", ["TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase"])
def test_phases_of_a_gated_series_are_volumes_of_their_own(tmp_path, attribute):
    expected = []
    for phase in range(3):
        write_series(
            tmp_path / "s" / str(phase), seed=phase, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2",
            FrameOfReferenceUID="1.4", InstanceNumber=lambda i, p=phase: 3 * i + p + 1,
            **{attribute: phase * 30 + 1},
        )  # fmt: skip
        expected.append(hu_of(seed=phase).tobytes())
    assert volumes(find_scans(tmp_path, ALL)) == sorted(expected)
    sources = find_scans(tmp_path)
    assert len(scans(sources)) == 1
    assert len(skipped(sources)) == 2
    assert "another part or phase of the series" in reasons(skipped(sources))[0]


@pytest.mark.parametrize("attribute", ["AcquisitionNumber", "TriggerTime", "AcquisitionTime", "KVP"])
def test_images_at_one_position_are_separated_by_an_attribute_that_always_differs(tmp_path, attribute):
    for phase in range(2):
        write_series(
            tmp_path / "s" / str(phase), seed=phase, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2",
            FrameOfReferenceUID="1.4", **{attribute: "101050" if phase else "101040"},
        )  # fmt: skip
    assert volumes(find_scans(tmp_path, ALL)) == sorted(hu_of(seed=i).tobytes() for i in range(2))


@pytest.mark.parametrize(
    "tags",
    [
        {"ConvolutionKernel": lambda i: "B70f" if i % 2 else "B30f"},
        {"FrameOfReferenceUID": lambda i: f"1.2.{i % 2}"},
    ],
)
def test_slices_of_two_kernels_or_frames_of_reference_do_not_mix(tmp_path, tags):
    positions = {"ImagePositionPatient": lambda i: [0, 0, i // 2 * 5]}
    write_series(tmp_path / "s", hu_of((12, 20, 24)), InstanceNumber=lambda i: i // 2 + 1, **positions, **tags)
    expected = sorted(hu_of((12, 20, 24))[i::2].tobytes() for i in (0, 1))
    assert volumes(find_scans(tmp_path / "s", ALL)) == expected


def test_slices_of_another_size_do_not_mix_in(folder, tmp_path):
    write_series(tmp_path / "s" / "t", hu_of((5, 16, 16)), SeriesInstanceUID=None)
    first = pydicom.dcmread(sorted(folder.glob("*.dcm"))[0])
    for file in (folder / "t").iterdir():
        change(file, SeriesInstanceUID=first.SeriesInstanceUID, SOPInstanceUID=generate_uid())
    assert volumes(find_scans(folder, ALL)) == sorted([hu_of().tobytes(), hu_of((5, 16, 16)).tobytes()])


def test_patients_with_one_series_identifier_do_not_mix(folder, tmp_path):
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    write_series(tmp_path / "s" / "other", seed=4, SeriesInstanceUID=uid, PatientID="P9")
    assert volumes(find_scans(folder)) == sorted([hu_of().tobytes(), hu_of(seed=4).tobytes()])


def test_folders_of_series_without_identifiers_do_not_mix(tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / name, seed=ord(name), SeriesInstanceUID=None, StudyInstanceUID=None)
    assert volumes(find_scans(tmp_path)) == sorted(hu_of(seed=ord(name)).tobytes() for name in "ab")


def test_two_scans_of_one_study_at_different_times_are_both_used(folder, tmp_path):
    for file in folder.glob("*.dcm"):
        change(file, AcquisitionTime="101500.0")
    write_series(tmp_path / "s" / "out", seed=1, **other(1, AcquisitionTime="101730.5"))
    first = pydicom.dcmread(sorted(folder.glob("*.dcm"))[0])
    for file in (folder / "out").iterdir():
        change(file, StudyInstanceUID=first.StudyInstanceUID, FrameOfReferenceUID=first.FrameOfReferenceUID)
    sources = find_scans(folder)
    assert len(scans(sources)) == 2
    for file in (folder / "out").iterdir():
        change(file, AcquisitionTime="101501.0")
    assert len(scans(find_scans(folder))) == 1


def damaged_files(folder):
    """Write corrupt files of every kind, which are not slices of the series in the folder."""
    content = sorted(folder.glob("*.dcm"))[3].read_bytes()
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "zeros.dcm").write_bytes(bytes(3000))
    (folder / "text.dcm").write_text("not a slice")
    (folder / "short.dcm").write_bytes(content[:-200])
    (folder / "header.dcm").write_bytes(content[:600])
    (folder / "noise.dcm").write_bytes(b"\0" * 128 + b"DICM" + np.random.default_rng(0).bytes(2000))
    return ["empty.dcm", "zeros.dcm", "text.dcm", "short.dcm", "header.dcm", "noise.dcm"]


def test_damaged_files_do_not_fail_a_complete_series_in_their_folder(folder, tmp_path):
    names = damaged_files(folder)
    write_series(folder / "more", seed=1, **other(1, StudyInstanceUID="1.99"))
    for file in (folder / "more").iterdir():
        file.rename(folder / f"more-{file.name}")
    sources = find_scans(folder)
    assert volumes(sources) == sorted([hu_of().tobytes(), hu_of(seed=1).tobytes()])
    messages = reasons(refused(sources))
    assert len(messages) == len(names)
    for name in names:
        assert sum(name in reason for reason in messages) == 1
    notes = [reveal(note) for scan in scans(sources) for note in scan.notes]
    assert any("noise.dcm, which is damaged, may belong to it" in note for note in notes)
    assert not any("short.dcm" in note for note in notes)


@pytest.mark.parametrize("at", [0, 3, 7])
def test_slice_whose_pixels_end_early_is_named_and_its_series_rejected(folder, at):
    victim = sorted(folder.iterdir())[at]
    victim.write_bytes(victim.read_bytes()[:-10])
    sources = find_scans(folder)
    assert not scans(sources)
    (reason,) = [reason for reason in reasons(refused(sources)) if reason.startswith("series 1")]
    assert f"slice {at + 1} ({victim.name}) is cut short: its pixels end early" in reason
    without = only_or_none(find_scans(folder, SeriesFilter(allow_gaps=True)))
    assert "not used" in " ".join(map(reveal, without.notes))
    assert without.geometry.shape[0] == (8 if at == 3 else 7)


def only_or_none(sources):
    (scan,) = scans(sources)
    return scan


def test_damaged_header_is_assigned_by_its_readable_attributes(folder, tmp_path):
    files = write_series(tmp_path / "o", seed=2, Modality="MR", **other(1))
    content = files[2].read_bytes()
    cut = content.index(b"1.2.3.4.5\0")  # after the modality, before the series identifier
    (folder / "cut.dcm").write_bytes(content[:cut])
    sources = find_scans(folder)
    assert volumes(sources) == [hu_of().tobytes()]
    assert scans(sources)[0].notes == ()


def test_other_files_are_listed_and_are_not_failures(folder):
    (folder / "notes.txt").write_text("words")
    (folder / "picture.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    sources = find_scans(folder)
    assert not refused(sources)
    assert "notes.txt, picture.jpg are no images" in reasons(skipped(sources))[0]


def test_apple_double_files_are_skipped(folder):
    companion = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(100)
    for name in ("._00001.dcm", "._scan.nii.gz", "._a.zip"):
        (folder / name).write_bytes(companion)
    (folder / "._00002.dcm").write_bytes(b"something else")
    sources = find_scans(folder)
    assert len(scans(sources)) == 1
    (source,) = skipped(sources)
    assert all(name in reveal(source.reason) for name in ("._00001.dcm", "._scan.nii.gz", "._a.zip"))
    (other,) = refused(sources)
    assert "._00002.dcm" in reveal(other.reason)


def test_unreadable_file_named_like_the_slices_is_damaged(folder):
    for file in folder.iterdir():
        file.rename(file.with_suffix(""))
    (folder / "IM7").write_bytes(np.random.default_rng(0).bytes(500))
    (folder / "README").write_text("words")
    sources = find_scans(folder)
    assert len(scans(sources)) == 1
    assert "IM7 is no DICOM file" in reasons(refused(sources))[0]
    assert len(refused(sources)) == 1


def test_progress_is_reported_for_every_file(folder):
    calls = []
    find_scans(folder, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 8) for i in range(1, 9)]


def test_no_attribute_of_the_patient_is_in_messages_or_repr(tmp_path):
    secret = "ZZSECRETZZ"
    texts = dict.fromkeys(
        ("PatientName", "PatientID", "StudyDescription", "SeriesDescription", "ProtocolName", "StationName"), secret
    )
    files = write_series(tmp_path / "s", ConvolutionKernel="B40f", **texts)
    change(files[3], ImagePositionPatient=[0, 0, 0], Modality="CT")
    write_series(tmp_path / "o", seed=2, Modality=secret, ImageType=[secret, secret], **texts)
    write_series(tmp_path / "p", seed=3, ImageType=["DERIVED", secret], SeriesNumber="7", **texts)
    sources = find_scans(tmp_path)
    assert len(sources) == 3
    for source in sources:
        assert secret not in repr(source)
        assert secret not in str(getattr(source, "reason", "")) + str(getattr(source, "notes", "")) + str(source.series)


def test_ct_image_without_pixels_is_damaged(folder):
    object_without_image(folder / "x.dcm", CTImageStorage, Modality="CT", Rows=20, Columns=24, PatientName="A")
    sources = find_scans(folder)
    assert any("x.dcm" in reason for reason in reasons(refused(sources)))
