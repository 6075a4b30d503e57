"""DICOM segmentations, read back with highdicom, pydicom and SimpleITK, and validated by dciodvfy and dcentvfy."""

import subprocess
import tracemalloc

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

import lungmix
from lungmix.errors import SourceError, UsageError
from lungmix.export import Options, export_case, options_for
from lungmix.export.dicom_seg import _description, write_segmentation
from lungmix.export.dicom_source import derived_slices, find_series, write_ct
from lungmix.formats import find_scans
from lungmix.geometry import Geometry
from lungmix.phantom import Phantom, write_phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CohortWriter
from lungmix.tissue import TISSUES
from support.generators import DIRECTIONS, labelled_case
from support.series import change, write_series

SHAPE = (12, 20, 24)
OBLIQUE = DIRECTIONS["oblique"]


@pytest.fixture
def original(cohort, tmp_path):
    """DICOM series with a patient's name, and the case that was converted from it."""
    phantom = Phantom(SHAPE, (0.75, 0.5, 1.25), 3, origin=(-10.5, 3.25, -100.0), direction=OBLIQUE)
    folder = tmp_path / "series"
    write_phantom(folder, phantom)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = "Rossi^Maria", "HOSP-4711", "19530102"
        dataset.ReferringPhysicianName, dataset.StudyDate, dataset.AccessionNumber = "Bianchi^Carlo", "20200317", "A99"
        dataset.save_as(file)
    (scan,) = find_scans(folder)
    case = labelled_case(cohort, "case-001", scan.geometry)
    case.create_image("ct")
    volume = np.concatenate(list(scan.slabs(64)))
    for start, stop in case.layout.slabs():
        case.write("ct", start, volume[start:stop])
    import hashlib

    case.record("convert", {"key": "x", "voxels_sha256": hashlib.sha256(volume.data).hexdigest()})
    return case, folder


def on_grid(segmentation, geometry):
    """Return the labels of a segmentation on the grid of a scan, placed by the positions of the frames."""
    volume = segmentation.get_volume(combine_segments=True)
    index_to_place = np.eye(4)
    index_to_place[:3, :3] = (np.reshape(geometry.direction, (3, 3)) * geometry.spacing)[:, ::-1]
    index_to_place[:3, 3] = geometry.origin
    index = np.argwhere(volume.array)
    place = volume.affine[:3, :3] @ index.T + volume.affine[:3, 3:]
    where = np.linalg.inv(index_to_place) @ np.vstack([place, np.ones(len(index))])
    nearest = np.rint(where[:3]).astype(int)
    assert np.abs(where[:3] - nearest).max() < 1e-6
    out = np.zeros(geometry.shape, np.uint8)
    out[tuple(nearest)] = volume.array[tuple(index.T)]
    return out


def complaints(program, *files):
    """Return the lines in which a validator reports errors."""
    done = subprocess.run([program, *map(str, files)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Abort"))]


@pytest.mark.parametrize("binary", [False, True], ids=["labelmap", "binary"])
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_labels_come_back_where_they_were(cohort, tmp_path, binary, direction):
    geometry = Geometry(SHAPE[::-1], (0.7, 0.9, 1.3), (-10.5, 20.25, -333.1), direction)
    case = labelled_case(cohort, "case-001", geometry)
    file, folder = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True, binary=binary))
    segmentation = highdicom.seg.segread(file)
    assert np.array_equal(on_grid(segmentation, geometry), case.zarr_array("tissue")[:])
    assert segmentation.SOPClassUID.endswith(".66.4" if binary else ".66.7")
    ct = {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}
    assert {uid for _, _, uid in segmentation.get_source_image_uids()} <= ct


@pytest.mark.parametrize("binary", [False, True], ids=["labelmap", "binary"])
def test_slices_of_an_odd_number_of_pixels_are_written(cohort, tmp_path, binary):
    geometry = Geometry((33, 21, 12), (0.7, 0.9, 1.3), (-10.5, 20.25, -333.1))
    case = labelled_case(cohort, "case-001", geometry)
    file, _ = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True, binary=binary))
    assert np.array_equal(on_grid(highdicom.seg.segread(file), geometry), case.zarr_array("tissue")[:])


@pytest.mark.parametrize("binary", [False, True], ids=["labelmap", "binary"])
@pytest.mark.parametrize("size", [(33, 20, 70), (32, 20, 70), (33, 21, 12)])
@pytest.mark.parametrize("direction", ["mirrored", "flipped", "oblique"])
def test_frames_are_those_that_highdicom_makes_of_the_volume_in_memory(cohort, tmp_path, binary, size, direction):
    case = labelled_case(
        cohort, "case-001", Geometry(size, (0.7, 0.9, 1.3), (-10.5, 20.25, -333.1), DIRECTIONS[direction])
    )
    slices = derived_slices(case)
    write_segmentation(case, tmp_path / "seg.dcm", "tissue", slices, same_uids=False, binary=binary)
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    expected = highdicom.seg.Segmentation(
        slices, np.asarray(case.zarr_array("tissue")[:]), "BINARY" if binary else "LABELMAP",
        [_description(tissue, {}) for tissue in TISSUES], series_instance_uid="1.2", series_number=1,
        sop_instance_uid="1.3", instance_number=1, manufacturer="", manufacturer_model_name="", software_versions="",
        device_serial_number="", transfer_syntax_uid=written.file_meta.TransferSyntaxUID,
    )  # fmt: skip
    expected.save_as(tmp_path / "expected.dcm")
    expected = pydicom.dcmread(tmp_path / "expected.dcm")
    varying = {
        "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "Manufacturer", "ManufacturerModelName", "ContentLabel",
        "SoftwareVersions", "DeviceSerialNumber", "SegmentSequence", "InstanceCreationDate", "InstanceCreationTime",
        "ContentDate", "ContentTime", "SeriesDescription", "ContentDescription", "DimensionOrganizationSequence",
        "CodingSchemeIdentificationSequence", "PatientIdentityRemoved", "DeidentificationMethodCodeSequence",
        "ContributingEquipmentSequence", "ContentCreatorName", "DimensionIndexSequence", "PixelData",
    }  # fmt: skip
    assert {e.keyword for e in written} - varying == {e.keyword for e in expected} - varying
    for element in written:
        assert element.keyword in varying or element == expected[element.tag]
    # highdicom pads with the character 0.
    assert written.PixelData[:-1] == expected.PixelData[:-1]
    assert len(written.PixelData) == len(expected.PixelData)


@pytest.mark.slow
@pytest.mark.parametrize("binary", [False, True], ids=["labelmap", "binary"])
def test_memory_for_a_segmentation_does_not_hold_the_voxels(cohort, tmp_path, binary):
    peaks = []
    for depth in (128, 384):
        geometry = Geometry((512, 512, depth), (0.7, 0.7, 1.0), (0.0, 0.0, 0.0))
        case = CohortWriter(cohort).add(f"case-{depth}", geometry, Acquisition("CT"))
        case.create_image("tissue")
        for start, stop in case.layout.slabs():
            labels = np.zeros((stop - start, 512, 512), np.uint8)
            labels[:, 100:400, 100:400] = 1 + np.arange(start, stop)[:, None, None] % 5
            case.write("tissue", start, labels)
        for stage in ("convert", "mask", "label"):
            case.record(stage, {"key": stage})
        slices = derived_slices(case)
        tracemalloc.start()
        write_segmentation(case, tmp_path / f"{depth}.dcm", "tissue", slices, same_uids=False, binary=binary)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # In memory, 256 more slices of 512 x 512 voxels would need 67 MB, and four times as much within highdicom.
    assert peaks[1] - peaks[0] < 30e6


def test_segments_carry_names_codes_and_colours(original, tmp_path):
    case, folder = original
    (file,) = export_case(case, tmp_path / "seg.dcm", options=options_for([folder], retain_uid=True))
    segmentation = highdicom.seg.segread(file)
    for tissue in TISSUES:
        description = segmentation.get_segment_description(tissue.label)
        assert description.segment_label == tissue.name
        assert description.segmented_property_type == highdicom.sr.CodedConcept(*vars(tissue.code).values())
        assert np.allclose(
            highdicom.color.CIELabColor.from_dicom_value(description.RecommendedDisplayCIELabValue).to_rgb(),
            tissue.rgba[:3],
            atol=2,
        )
    (scheme,) = segmentation.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99LUNGMIX"
    assert "rivate" in scheme.CodingSchemeName


def test_segmentation_refers_to_the_original_slices(original, tmp_path):
    case, folder = original
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    (file,) = export_case(case, tmp_path / "seg.dcm", options=options_for([folder], retain_uid=True))
    segmentation = highdicom.seg.segread(file)
    (referenced,) = segmentation.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == slices[0].SeriesInstanceUID
    assert segmentation.StudyInstanceUID == slices[0].StudyInstanceUID
    assert segmentation.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert {uid for _, _, uid in segmentation.get_source_image_uids()} == {header.SOPInstanceUID for header in slices}
    labels = segmentation.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in slices], combine_segments=True, assert_missing_frames_are_empty=True
    )
    assert np.array_equal(labels, case.zarr_array("tissue")[:])


def test_no_word_of_the_patient_is_in_any_byte(original, tmp_path):
    case, folder = original
    export_case(case, tmp_path / "out" / "a.dcm", options=options_for([folder], retain_uid=True))
    export_case(case, tmp_path / "out" / "b.dcm", options=Options(with_ct=True, binary=True))
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) == 2 + SHAPE[0]
    for file in files:
        content = file.read_bytes()
        # Short words of digits are not searched for, as random identifiers may contain them.
        for word in (b"Rossi", b"Maria", b"HOSP", b"19530102", b"Bianchi", b"20200317", b"A99"):
            assert word not in content
        assert pydicom.dcmread(file).PatientIdentityRemoved == "YES"


def test_validators_of_dicom_find_no_error(original, tmp_path):
    case, folder = original
    (referring,) = export_case(case, tmp_path / "a.dcm", options=options_for([folder], retain_uid=True))
    segmentation, series = export_case(case, tmp_path / "b.dcm", "lung", options=Options(with_ct=True, binary=True))
    assert complaints("dciodvfy", segmentation) == []
    assert all(complaints("dciodvfy", file) == [] for file in series.iterdir())
    assert complaints("dcentvfy", segmentation, *series.iterdir()) == []
    assert referring.is_file()


def test_written_series_is_the_scan(original, tmp_path):
    case, _ = original
    folder = write_ct(case, tmp_path / "ct")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), case.zarr_array("ct")[:])
    geometry = Geometry.from_sitk(image)
    assert np.allclose(geometry.direction, case.geometry.direction, atol=1e-12)
    assert np.allclose(geometry.origin, case.geometry.origin, atol=1e-9)
    (scan,) = find_scans(folder)
    assert scan.acquisition.manufacturer == case.acquisition.manufacturer


def test_same_case_gets_the_same_identifiers_and_another_case_others(cohort, tmp_path):
    def identifiers(case):
        file, folder = export_case(case, tmp_path / case.name / "seg.dcm", options=Options(with_ct=True))
        return [
            str(pydicom.dcmread(first, stop_before_pixels=True).SOPInstanceUID) for first in (file, *folder.iterdir())
        ]

    first, second = (labelled_case(cohort, name, Geometry((20, 20, 20))) for name in ("one", "two"))
    assert identifiers(first) == identifiers(first)
    assert not {*identifiers(first)} & {*identifiers(second)}


def test_series_of_another_place_or_reconstruction_is_rejected(original, tmp_path):
    case, folder = original
    elsewhere, sharper = tmp_path / "elsewhere", tmp_path / "sharper"
    write_phantom(elsewhere, Phantom(SHAPE, (0.75, 0.5, 1.25), 3))
    write_phantom(sharper, Phantom(SHAPE, (0.75, 0.5, 1.25), 4, origin=(-10.5, 3.25, -100.0), direction=OBLIQUE))
    for source, message in ((elsewhere, "has the geometry of case case-001"), (sharper, "other\\s+reconstructions")):
        with pytest.raises(SourceError, match=message):
            export_case(case, tmp_path / "seg.dcm", options=options_for([source], retain_uid=True))
        assert not (tmp_path / "seg.dcm").exists()
    assert export_case(case, tmp_path / "seg.dcm", options=options_for([elsewhere, sharper, folder], retain_uid=True))


def test_straightened_series_has_no_slices_to_refer_to(cohort, tmp_path):
    for index, file in enumerate(write_series(tmp_path / "tilted")):
        x, y, z = pydicom.dcmread(file).ImagePositionPatient
        change(file, ImagePositionPatient=[x, y + 0.6 * index, z])
    (scan,) = find_scans(tmp_path / "tilted")
    case = labelled_case(cohort, "case-001", scan.geometry)
    with pytest.raises(SourceError, match=r"was straightened.*`with_ct=True`"):
        export_case(case, tmp_path / "seg.dcm", options=options_for([tmp_path / "tilted"], retain_uid=True))


def test_series_that_a_run_would_skip_can_be_referred_to(tmp_path):
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    write_series(tmp_path / "thin", seed=1, SeriesInstanceUID="1.2.5", **study)
    write_series(tmp_path / "thick", seed=2, SeriesInstanceUID="1.2.6", SliceThickness=5, **study)
    assert len(find_series([tmp_path])) == 2


def test_folder_without_series_is_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no DICOM series"):
        find_series([tmp_path / "empty"])


def test_folder_of_other_files_is_not_overwritten(original, tmp_path):
    case, _ = original
    (tmp_path / "seg_ct").mkdir()
    (tmp_path / "seg_ct" / "thesis.txt").write_text("do not touch")
    with pytest.raises(UsageError, match="other files"):
        export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True))
    assert (tmp_path / "seg_ct" / "thesis.txt").read_text() == "do not touch"


def codes_of(dataset):
    return [item.CodeValue for item in dataset.DeidentificationMethodCodeSequence]


def dates_in(dataset):
    return {str(element.value) for element in dataset.iterall() if element.VR in ("DA", "DT") and element.value}


def test_original_is_referred_to_only_where_its_identifiers_may_be_written(original, tmp_path):
    case, folder = original
    with pytest.raises(UsageError, match="`retain_uid=True`"):
        options_for([folder])
    with pytest.raises(UsageError, match="`retain_uid=True`"):
        export_case(case, tmp_path / "seg.dcm", options=Options(tuple(find_series([folder]))))
    (file,) = export_case(case, tmp_path / "seg.dcm", options=options_for([folder], retain_uid=True))
    assert codes_of(pydicom.dcmread(file)) == ["113100", "113110"]


def test_no_identifier_of_the_original_and_no_date_is_in_an_anonymous_series(original, tmp_path):
    case, folder = original
    slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.iterdir()]
    uids = {str(element.value) for slice_ in slices for element in slice_.iterall() if element.VR == "UI"}
    uids -= {str(slices[0].SOPClassUID)}
    file, series = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True))
    for written in (file, *series.iterdir()):
        content = written.read_bytes()
        assert not [uid for uid in uids if uid.encode() in content]
        dataset = pydicom.dcmread(written)
        assert codes_of(dataset) == ["113100"]
        assert dates_in(dataset) <= {"19700101"}
        assert (dataset.PatientSex, dataset.get("PatientAge"), dataset.StudyDate) == ("", None, "")


def test_patient_attributes_that_the_store_keeps_are_written_and_coded(original, tmp_path):
    case, _ = original
    case.describe(Acquisition("CT", "SIEMENS", "Sensation 10", "B40f", sex="F", age=93, study_date="20180105"))
    file, series = export_case(case, tmp_path / "seg.dcm", options=Options(with_ct=True, binary=True))
    for written in (file, *series.iterdir()):
        dataset = pydicom.dcmread(written)
        assert codes_of(dataset) == ["113100", "113108", "113107"]
        assert (dataset.PatientSex, dataset.StudyDate) == ("F", "20180105")
        assert dataset.get("PatientAge", "090Y") == "090Y"
        assert dates_in(dataset) == {"20180105"}
    assert pydicom.dcmread(next(series.iterdir())).PatientAge == "090Y"
    assert complaints("dciodvfy", file) == []
    assert all(complaints("dciodvfy", path) == [] for path in series.iterdir())
    assert complaints("dcentvfy", file, *series.iterdir()) == []


def test_identifiers_of_the_same_voxels_in_another_store_are_others(cohort, tmp_path):
    other = lungmix.open_cohort(tmp_path / "other.zarr", "a")
    identifiers = []
    for number, store in enumerate((cohort, other)):
        case = labelled_case(store, "case-001", Geometry((20, 20, 20)))
        file, folder = export_case(case, tmp_path / str(number) / "seg.dcm", options=Options(with_ct=True))
        for written in (file, *folder.iterdir()):
            dataset = pydicom.dcmread(written, stop_before_pixels=True)
            identifiers += [(number, str(dataset[name].value)) for name in ("SOPInstanceUID", "StudyInstanceUID")]
    first, second = ({uid for number, uid in identifiers if number == store} for store in (0, 1))
    assert not first & second
