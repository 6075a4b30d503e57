"""Scans on a DICOMweb server, against Orthanc."""

import logging
import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests

from faults.proxy import Proxy
from formats.dicom.test_enhanced_ct import write_enhanced
from lungmix.errors import SourceError, UsageError, redact, reveal
from lungmix.export.dicom_source import find_series
from lungmix.formats import SeriesFilter, SkippedSource, find_scans
from lungmix.formats.dicomweb import connect, reader, server
from lungmix.formats.dicomweb.address import parse_address
from lungmix.formats.remote import downloaded
from support.certificates import write_certificate
from support.clusters import free_port
from support.orthanc import PASSWORD, USER, running_archive
from support.series import hu_of, only_scan, read, refused, scans, skipped, write_series
from support.tls_proxy import running_proxy

HU = hu_of((30, 20, 24))
PATIENT = "Qzxplant^Anna"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a series, one with a gap, an enhanced file and a localizer."""
    root = tmp_path_factory.mktemp("sources") / "hospital"
    common = {"PatientName": PATIENT, "StudyDate": "20260105", "Manufacturer": "Müller", "PatientID": "ID-1"}
    write_series(root / "plain", HU, SpecificCharacterSet="ISO_IR 100", SeriesNumber=7, **common)
    uneven = write_series(root / "uneven", HU[:12] + 1, seed=1, PatientID="ID-2", StudyDate="20260210")
    uneven[5].unlink()
    write_series(root / "scout", HU[:3], seed=2, Modality="MR", PatientID="ID-2")
    write_enhanced(root / "enhanced.dcm", HU[:9])
    return root


@pytest.fixture(scope="module")
def archive(tmp_path_factory, folder):
    with running_archive(tmp_path_factory.mktemp("orthanc")) as running:
        running.upload(file for file in sorted(folder.rglob("*")) if file.is_file())
        yield running


@pytest.fixture
def changing(tmp_path_factory):
    """Archive with one series, which a test may change, and the names of its instances."""
    with running_archive(tmp_path_factory.mktemp("changing")) as running:
        files = write_series(tmp_path_factory.mktemp("series"), HU)
        yield running, files, running.upload(files)


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


def facts_of(items):
    return sorted((item.key, item.fingerprint) for item in scans(items))


def test_scans_on_a_server_equal_those_of_their_files(archive, folder):
    for allow_gaps in (False, True):
        rules = SeriesFilter(allow_gaps=allow_gaps)
        remote, local = find_scans(archive.address, rules), find_scans(folder, rules)
        by_series = {scan.identity.series_uid: scan for scan in scans(local)}
        assert len(scans(remote)) == len(by_series) == 2 + allow_gaps
        for scan in scans(remote):
            two = by_series[scan.identity.series_uid]
            assert (scan.geometry, scan.acquisition, scan.identity) == (two.geometry, two.acquisition, two.identity)
            assert (scan.stack, scan.series) == (two.stack, two.series)
            assert [*map(redact, scan.notes)] == [*map(redact, two.notes)]
            assert np.array_equal(read(scan), read(two))
            assert scan.path.startswith(f"{archive.address}/studies/")
            assert not Path(scan.path).exists()
            assert PATIENT not in f"{scan!r}{scan.reader!r}{scan.reader.instances[0]!r}{scan.reader.series[0]!r}"
    (uneven,) = refused(find_scans(archive.address))
    assert "1 slice is missing" in uneven.reason


def test_series_are_listed_from_queries_and_metadata_alone(archive):
    before = len(archive.requests())
    items = find_scans(archive.address)
    paths = archive.requests()[before:]
    assert paths
    assert all(path.endswith(("/studies", "/series", "/metadata")) for path in paths)
    (other,) = skipped(items)
    assert isinstance(other, SkippedSource)
    assert "modality MR" in other.reason


def test_queries_studies_and_series_select_scans(archive):
    everything = find_scans(archive.address)
    (plain,) = [scan for scan in scans(everything) if scan.series.number == 7]
    study = plain.path.rpartition("/series/")[0]
    for address in (
        plain.path, study, f"{study}/", f"{archive.address}?PatientID=ID-1", f"{archive.address}?00100020=ID-1",
        f"{archive.address}?StudyDate=20260101-20260131&Modality=CT", f"{study}?SeriesNumber=7",
        f"{archive.address}?PatientName=Qzx*",
    ):  # fmt: skip
        assert facts_of(find_scans(address)) == facts_of([plain])
    for address in (f"{archive.address}?PatientID=nobody", f"{archive.address}/studies/1.2.3"):
        (item,) = find_scans(address)
        assert "no series at" in item.reason or "no such study" in item.reason
    (other,) = find_scans(f"{archive.address}?Modality=MR")[:1]
    assert "modality MR" in other.reason


def test_lists_contain_addresses_of_servers(archive, tmp_path):
    lines = [f"{archive.address}?PatientID=ID-1", "dicomweb+https://doctor:secret@127.0.0.1/dicom-web"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    items = find_scans(tmp_path / "list.txt")
    assert facts_of(items) == facts_of(find_scans(lines[0]))
    (item,) = refused(items)
    assert "netrc" in item.reason
    assert "secret" not in f"{item.reason}{item.path}"


def test_few_instances_are_on_the_disk_at_a_time(archive, passing):
    scan = only_scan(f"{archive.address}?PatientID=ID-1")
    largest = 0
    for _ in scan.slabs(1):
        largest = max(largest, sum(file.is_file() for file in passing.rglob("*")))
    assert 2 <= largest <= reader._AHEAD + 3 < len(HU)


def test_instances_are_downloaded_for_a_reference_to_them(archive, folder):
    scan = only_scan(f"{archive.address}?PatientID=ID-1")
    with downloaded(scan) as local:
        assert np.array_equal(read(local), HU)
        files = sorted((folder / "plain").iterdir())
        assert [Path(file).read_bytes() for file in local.files] == [file.read_bytes() for file in files]
    assert find_series([f"{archive.address}?PatientID=ID-1"])[0].key == scan.key


def test_credentials_of_netrc_are_used_and_wrong_ones_rejected(archive, monkeypatch, tmp_path):
    monkeypatch.setenv(server.PASSWORD, "wrong")
    (item,) = find_scans(archive.address)
    assert "denies access" in item.reason
    assert "wrong" not in item.reason
    monkeypatch.delenv(server.PASSWORD)
    with pytest.raises(UsageError, match="only one of"):
        find_scans(archive.address)
    monkeypatch.delenv(server.USER)
    (item,) = find_scans(archive.address)
    assert "denies access" in item.reason
    (tmp_path / "netrc").write_text(f'machine 127.0.0.1 login {USER} password "{PASSWORD}"\n')
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert len(scans(find_scans(archive.address))) == 2
    scan = scans(find_scans(archive.address))[0]
    monkeypatch.delenv("NETRC")
    with pytest.raises(SourceError, match="denies access"):
        read(scan)


def test_passwords_go_nowhere_without_encryption(monkeypatch):
    for base, names in (("http://10.1.2.3/dicom-web", []), ("https://10.1.2.3/dicom-web", ["Authorization"])):
        request = requests.Request("GET", base).prepare()
        server._credentials_for(base)(request)
        assert [name for name in request.headers if name == "Authorization"] == names
    monkeypatch.setenv(server.TOKEN, "abc")
    request = server._credentials_for("https://10.1.2.3/dicom-web")(requests.Request("GET", "https://a").prepare())
    assert request.headers["Authorization"] == "Bearer abc"


def test_certificate_of_a_server_is_checked(archive, tmp_path, monkeypatch):
    with running_proxy(archive.port, write_certificate(tmp_path)) as port:
        address = f"dicomweb+https://127.0.0.1:{port}/dicom-web?PatientID=ID-1"
        (item,) = find_scans(address)
        assert "REQUESTS_CA_BUNDLE" in item.reason
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        assert np.array_equal(read(only_scan(address)), HU)


def test_server_that_ends_in_mid_series_is_an_error_of_the_case(changing):
    archive, _, _ = changing
    scan = only_scan(archive.address)
    slabs = scan.slabs(4)
    next(slabs)
    archive.kill()
    with pytest.raises(SourceError, match="does not answer") as caught:
        list(slabs)
    assert caught.value.remedy


def test_server_that_restarts_in_mid_series_is_waited_for(changing, monkeypatch):
    archive, _, _ = changing
    monkeypatch.setattr(server, "_DELAYS_S", (0.2,) * 100)
    scan = only_scan(archive.address)
    slabs = scan.slabs(4)
    planes = [next(slabs)]
    archive.stop()
    archive.start()
    assert np.array_equal(np.concatenate([*planes, *slabs]), HU)


def test_instance_whose_connection_breaks_is_fetched_again(changing, monkeypatch):
    archive, _, _ = changing
    scan = only_scan(archive.address)
    cuts = []

    def cut_in_mid_instance(passed):
        if passed > 700 and len(cuts) < 3:
            cuts.append(passed)
            for connection in list(proxy._open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    proxy = Proxy(archive.port, cut_in_mid_instance)
    through_proxy = replace(scan, reader=replace(scan.reader, base=f"http://127.0.0.1:{proxy.port}/dicom-web"))
    monkeypatch.setattr(server, "_DELAYS_S", (0.01,) * 8)
    assert np.array_equal(read(through_proxy), HU)
    assert len(cuts) == 3
    proxy.cut()


def test_missing_instance_is_named(changing):
    archive, files, names = changing
    scan = only_scan(archive.address)
    slabs = scan.slabs(4)
    next(slabs)
    archive.remove(names[-1])
    uid = pydicom.dcmread(files[-1]).SOPInstanceUID
    with pytest.raises(SourceError, match=f"{uid}.dcm of .* is listed by its server") as caught:
        list(slabs)
    assert uid not in redact(caught.value.raw_message)


def test_series_that_changes_is_not_read_as_a_mixture_of_two_states(changing, tmp_path):
    archive, _, names = changing
    scan = only_scan(archive.address)
    slabs = scan.slabs(30)
    next(slabs)
    more = write_series(tmp_path / "more", hu_of((31, 20, 24)))[-1:]
    (added,) = archive.upload(more)
    with pytest.raises(SourceError, match="30 instances were listed, 31 are there"):
        list(slabs)
    with pytest.raises(SourceError, match="was changed on its server"):
        read(scan)
    archive.remove(added)
    assert np.array_equal(read(scan), HU)
    archive.remove(names[3])
    with pytest.raises(SourceError, match="30 instances were listed, 29 are there"):
        read(scan)


@pytest.mark.parametrize("change", [{"RescaleIntercept": -1000}, {"ImagePositionPatient": [0, 0, 0]}])
def test_instance_that_is_replaced_after_the_listing_is_an_error(changing, tmp_path, change):
    archive, files, _ = changing
    scan = only_scan(archive.address)
    dataset = pydicom.dcmread(files[20])
    for name, value in change.items():
        setattr(dataset, name, value)
    dataset.save_as(tmp_path / "other.dcm")
    archive.upload([tmp_path / "other.dcm"])
    with pytest.raises(SourceError, match="is not as its server listed it"):
        read(scan)
    assert facts_of(find_scans(archive.address)) != facts_of([scan])


def test_instance_that_is_damaged_on_the_server_is_an_error(changing):
    archive, _, _ = changing
    scan = only_scan(archive.address)
    stored = [file for file in (archive.folder / "storage").rglob("*") if file.is_file()]
    large = [file for file in stored if file.stat().st_size > 800]
    content = large[0].read_bytes()
    archive.stop()
    large[0].write_bytes(content[:-300])
    archive.start()
    with pytest.raises(SourceError):
        read(scan)


def test_messages_and_logs_name_no_patient(archive, caplog):
    with caplog.at_level(logging.DEBUG):
        scan = only_scan(f"{archive.address}?PatientName=Qzx*")
        read(scan)
        (item,) = find_scans(f"{archive.address}?PatientName=Qzxother")
    assert "Qzx" not in caplog.text
    assert "Qzx" not in f"{reveal(item.reason)}{item.path}"


def test_server_that_does_not_answer_and_server_without_dicom_are_errors(archive, monkeypatch):
    (item,) = find_scans(f"dicomweb+http://127.0.0.1:{free_port()}/dicom-web")
    assert "does not answer" in item.reason
    (item,) = find_scans(f"dicomweb+http://127.0.0.1:{archive.port}/nothing")
    assert "has no such study" in item.reason
    (item,) = find_scans(f"dicomweb+http://127.0.0.1:{archive.port}/app/explorer.html")
    assert isinstance(item.reason, str)


def test_answer_that_is_too_large_is_rejected(archive, monkeypatch):
    monkeypatch.setattr(server, "MAX_ANSWER_BYTES", 3000)
    items = find_scans(f"{archive.address}?PatientID=ID-1")
    assert "sends an answer of more than" in refused(items)[0].reason


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lungmix.formats.dicomweb.server", None)
    with pytest.raises(UsageError, match="pip install"):
        connect.open_server("https://127.0.0.1/dicom-web")


@pytest.mark.parametrize(
    "text",
    [
        "dicomweb+https://doctor:secret@host/dicom-web", "dicomweb+https://secret@host/dicom-web", "dicomweb+ftp://host/secret",
        "dicomweb+https:///secret", "dicomweb+https://host:0/secret", "dicomweb+https://host:port/secret",
        "dicomweb+https://host/secret/studies/abc", "dicomweb+https://host/secret/studies/1.2/series/../1",
        "dicomweb+https://host/dicom-web?secret=1", "dicomweb+https://host/dicom-web?secret",
        "dicomweb+https://host/secret#part", "dicomweb+https://host/sec ret", "dicomweb+http://host/secret",
        "dicomweb+https://host/dicom-web/studies/1.2?PatientID=secret", "dicomweb+https://host/secret/studies",
        "dicomweb+https://host/dicom-web?limit=secret",
    ],
)  # fmt: skip
def test_addresses_that_are_not_understood_are_not_quoted(text):
    with pytest.raises(UsageError) as caught:
        find_scans(text)
    assert "secret" not in str(caught.value)
    assert caught.value.remedy


def test_plain_http_to_another_machine_needs_a_word(monkeypatch):
    monkeypatch.setenv("LUNGMIX_DICOMWEB_PLAIN_HTTP", "allow")
    assert parse_address("dicomweb+http://Host:80/dicom-web/").base == "http://host/dicom-web"
    monkeypatch.delenv("LUNGMIX_DICOMWEB_PLAIN_HTTP")
    assert parse_address("dicomweb+http://[::1]:8042/dicom-web").base == "http://[::1]:8042/dicom-web"
