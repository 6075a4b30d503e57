"""Segmentations and reports that are sent to a DICOMweb server, against Orthanc."""

import io
import json
import tempfile

import highdicom
import numpy as np
import pydicom
import pytest
import requests

import lungmix
from lungmix.errors import SourceError, UsageError
from lungmix.export import Options, options_for, store_cohort
from lungmix.formats import find_scans
from lungmix.formats.dicomweb import server
from lungmix.formats.dicomweb.connect import open_server
from lungmix.parameters import MaskParameters
from lungmix.phantom import Cohort, write_cohort
from lungmix.pipeline import Pipeline
from support.command import run_here
from support.orthanc import PASSWORD, USER, running_archive
from support.series import copy, read, scans

PATIENT, NUMBER, BIRTH = "Qzxplant^Anna", "HOSP-4711", "19530102"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_cohort(root, Cohort(2, 3, (40, 64, 64), (5.6, 5.6, 7.5), frozenset()), "dicom")
    for file in root.rglob("*.dcm"):
        values = {"PatientName": PATIENT, "PatientID": NUMBER, "PatientBirthDate": BIRTH, "StudyDate": "20200317"}
        copy(file, file, AccessionNumber="A99", **values)
    return root


@pytest.fixture(scope="module")
def cohort(folder, client, tmp_path_factory):
    store = lungmix.open_cohort(tmp_path_factory.mktemp("store") / "s.zarr", "a")
    mask = MaskParameters(opening=1, min_voxels=1000, radii=(3,))
    report = Pipeline(client, store).run([folder], mask=mask)
    assert not report.failed
    return store


@pytest.fixture(autouse=True)
def logged_in(monkeypatch):
    monkeypatch.setenv(server.USER, USER)
    monkeypatch.setenv(server.PASSWORD, PASSWORD)
    monkeypatch.setattr(server, "_DELAYS_S", (0.01, 0.01))


@pytest.fixture(autouse=True)
def passing(tmp_path, monkeypatch):
    """Folder for temporary files, which must be empty at the end of a test."""
    place = tmp_path / "passing"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield place
    assert not list(place.iterdir())


@pytest.fixture
def archive(tmp_path, folder):
    """Archive with the original series."""
    with running_archive(tmp_path / "orthanc") as running:
        running.upload(sorted(folder.rglob("*.dcm")))
        yield running


@pytest.fixture
def empty_archive(tmp_path):
    with running_archive(tmp_path / "orthanc") as running:
        yield running


def query(archive, path):
    """Return the answer of the archive to a query, as lists of attributes."""
    url = f"{archive.address.removeprefix('dicomweb+')}/{path}"
    answer = requests.get(url, auth=(USER, PASSWORD), timeout=60)
    answer.raise_for_status()
    return [pydicom.Dataset.from_json(item) for item in answer.json()]


def objects(archive, item):
    """Return the objects of a series that a query has returned."""
    criteria = {"Level": "Instance", "Query": {"SeriesInstanceUID": item.SeriesInstanceUID}}
    names = archive.call("/tools/find", json.dumps(criteria).encode())
    addresses = [f"http://127.0.0.1:{archive.port}/instances/{name}/file" for name in names]
    answers = [requests.get(address, auth=(USER, PASSWORD), timeout=60) for address in addresses]
    return [pydicom.dcmread(io.BytesIO(answer.content)) for answer in answers]


def test_segmentations_are_filed_with_the_original_study(archive, cohort, folder):
    options = options_for([archive.address], retain_uid=True, binary=True)
    result = store_cohort(cohort, archive.address, "dicom-seg", options=options)
    assert (result.stored, result.failed) == (dict.fromkeys(cohort, 1), {})
    local = {scan.identity.study_uid for scan in scans(find_scans(folder))}
    series = query(archive, f"series?Modality=SEG&PatientID={NUMBER}")
    assert {item.StudyInstanceUID for item in series} == local
    sizes = sorted(int((case.zarr_array("tissue")[:] > 0).sum()) for case in cohort.values())
    stored_sizes = []
    for item in series:
        (stored,) = objects(archive, item)
        assert (stored.PatientName, stored.PatientID, stored.PatientBirthDate) == (PATIENT, NUMBER, BIRTH)
        assert (stored.AccessionNumber, stored.StudyDate, stored.PatientIdentityRemoved) == ("A99", "20200317", "NO")
        assert "DeidentificationMethodCodeSequence" not in stored
        volume = highdicom.seg.Segmentation.from_dataset(stored).get_volume(combine_segments=True)
        stored_sizes.append(int((volume.array > 0).sum()))
    assert sorted(stored_sizes) == sizes
    store_cohort(cohort, archive.address, "dicom-ko", options=options_for([archive.address], retain_uid=True))
    assert {item.StudyInstanceUID for item in query(archive, f"series?Modality=KO&PatientID={NUMBER}")} == local
    # The same export again changes nothing.
    assert store_cohort(cohort, archive.address, "dicom-seg", options=options).stored == result.stored
    assert len(query(archive, "instances?Modality=SEG")) == len(cohort)


def test_reports_arrive_with_their_segmentations_and_an_anonymous_series(empty_archive, cohort):
    done = run_here(
        "export", cohort.url, "case-001", "--to", empty_archive.address, "--format", "dicom-sr", "--with-ct", "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert "case-001: 44 objects stored" in done.stdout
    (study,) = query(empty_archive, "studies")
    assert (str(study.PatientName), study.PatientID) == ("", "case-001")
    series = query(empty_archive, f"studies/{study.StudyInstanceUID}/series")
    assert sorted(item.Modality for item in series) == ["CT", "SEG", "SEG", "SEG", "SR"]
    (report,) = [item for item in series if item.Modality == "SR"]
    content = highdicom.sr.Comprehensive3DSR.from_dataset(objects(empty_archive, report)[0]).content
    assert content.get_volumetric_roi_measurement_groups()
    (scan,) = scans(find_scans(f"{empty_archive.address}?Modality=CT"))
    assert np.array_equal(read(scan), cohort["case-001"].zarr_array("ct")[:])


def test_objects_that_the_server_rejects_fail_their_case_alone(tmp_path, cohort):
    script = tmp_path / "filter.lua"
    script.write_text("function ReceivedInstanceFilter(dicom) return dicom.PatientID ~= 'case-001' end\n")
    with running_archive(tmp_path / "orthanc", LuaScripts=[str(script)]) as strict:
        result = store_cohort(cohort, strict.address, "dicom-seg", options=Options(with_ct=True))
        assert list(result.stored) == ["case-002"]
        assert "took 40 objects that it does not list" in result.failed["case-001"]
        assert {item.PatientID for item in query(strict, "studies")} == {"case-002"}


def test_server_without_the_study_gets_objects_without_a_patient(empty_archive, cohort, folder):
    options = options_for([folder], retain_uid=True)
    result = store_cohort(cohort, empty_archive.address, "dicom-seg", options=options, cases=["case-002"])
    assert result.stored == {"case-002": 1}
    (item,) = query(empty_archive, "series?Modality=SEG")
    (stored,) = objects(empty_archive, item)
    assert (stored.PatientID, stored.PatientIdentityRemoved) == ("case-002", "YES")


def test_reason_of_a_failure_is_that_of_the_answer(monkeypatch, folder):
    file = next(iter(sorted(folder.rglob("*.dcm"))))
    item = {"00081155": {"vr": "UI", "Value": [str(pydicom.dcmread(file).SOPInstanceUID)]}}
    for reason, is_error in ((0xA700, True), (0x0111, False)):
        failed = {"vr": "SQ", "Value": [{**item, "00081197": {"vr": "US", "Value": [reason]}}]}
        with open_server("https://127.0.0.1/dicom-web") as connection:
            monkeypatch.setattr(connection, "_store", lambda _, failed=failed: {"00081198": failed})
            if is_error:
                with pytest.raises(SourceError, match="failure reason A700"):
                    connection.store(file)
            else:
                connection.store(file)


def test_wrong_credentials_and_ended_servers_fail_each_case(empty_archive, cohort, monkeypatch):
    options = Options(with_ct=True)
    monkeypatch.setenv(server.PASSWORD, "wrong")
    result = store_cohort(cohort, empty_archive.address, "dicom-seg", options=options)
    assert all("denies access" in reason for reason in result.failed.values())
    assert len(result.failed) == len(cohort)
    monkeypatch.setenv(server.PASSWORD, PASSWORD)
    empty_archive.kill()
    result = store_cohort(cohort, empty_archive.address, "dicom-seg", options=options)
    assert all("does not answer" in reason for reason in result.failed.values())


def test_what_a_server_cannot_take_is_rejected_before_anything_is_sent(cohort):
    address, options = "dicomweb+https://127.0.0.1:1/dicom-web", Options(with_ct=True)
    for place, format, image in (
        (address, "seg.nrrd", None), ("https://127.0.0.1/web", "dicom-seg", None), ("s3://bucket", "dicom-seg", None),
        (f"{address}/studies/1.2", "dicom-seg", None), (f"{address}?PatientID=1", "dicom-seg", None),
        (address, "dicom-seg", "ct"), (address, "dicom-sr", "lung"),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            store_cohort(cohort, place, format, image, options)
    with pytest.raises(UsageError):
        store_cohort(cohort, address, "dicom-seg")
    done = run_here("export", cohort.url, "--to", address, "--all", "there")
    assert done.returncode == 2
    assert "--format" in done.stderr


def test_a_large_file_is_sent_in_pieces(empty_archive, tmp_path, monkeypatch, folder):
    from lungmix.formats.dicomweb.upload import MultipartFile

    sizes = []
    read_piece = MultipartFile.read
    monkeypatch.setattr(MultipartFile, "read", lambda self, size=-1: (sizes.append(size), read_piece(self, size))[1])
    file = next(iter(sorted(folder.rglob("*.dcm"))))
    dataset = pydicom.dcmread(file)
    dataset.Rows, dataset.Columns, dataset.PixelData = 1024, 1024, bytes(2 << 20)
    dataset.save_as(tmp_path / "large.dcm")
    with open_server(empty_archive.address.removeprefix("dicomweb+")) as connection:
        connection.store(tmp_path / "large.dcm")
        (tmp_path / "no.dcm").write_bytes(b"no DICOM" * 100)
        with pytest.raises(SourceError):
            connection.store(tmp_path / "no.dcm")
    assert 0 < max(sizes) <= 1 << 20
    assert len(query(empty_archive, "instances")) == 1
