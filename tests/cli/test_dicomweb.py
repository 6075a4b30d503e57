"""Commands with a DICOMweb server as source."""

import hashlib
import json
import subprocess
import sys
import time

import numpy as np
import pydicom
import pytest

import lungmix
from faults.proxy import Proxy
from lungmix.formats import find_scans
from lungmix.formats.dicomweb import server
from lungmix.phantom import Cohort, write_cohort
from privacy.search import find
from support.command import run
from support.orthanc import PASSWORD, USER, running_archive
from support.series import copy, scans

pytestmark = pytest.mark.slow

WORD = "Qzxplant"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three series of patients whose names and numbers are planted words."""
    root = tmp_path_factory.mktemp("sources")
    write_cohort(root, Cohort(3, 3, (40, 64, 64), (5.6, 5.6, 7.5), frozenset()), "dicom")
    for file in root.rglob("*.dcm"):
        copy(file, file, PatientName=f"{WORD}^Anna", PatientID=f"{WORD}-{file.parent.name}")
    return root


@pytest.fixture
def archive(tmp_path, folder, monkeypatch):
    monkeypatch.setenv(server.USER, USER)
    monkeypatch.setenv(server.PASSWORD, PASSWORD)
    with running_archive(tmp_path / "orthanc") as running:
        running.upload(sorted(folder.rglob("*.dcm")))
        yield running


def numbers_of(store):
    cohort = lungmix.open_cohort(store)
    digests = {case.stages["convert"]["voxels_sha256"] for case in cohort.values()}
    masks = sorted(int(np.asarray(case.zarr_array("lung")[:]).sum()) for case in cohort.values())
    return digests, masks


def test_run_makes_of_a_server_what_it_makes_of_files(archive, folder, tmp_path):
    remote, local, log = tmp_path / "remote.zarr", tmp_path / "local.zarr", tmp_path / "log.jsonl"
    words = ["--model", "published", "--workers", "2", "--quiet", "--json"]
    address = f"{archive.address}?PatientName={WORD}*"
    listed = run("scan", address, "--json")
    assert (listed.returncode, WORD in listed.stdout + listed.stderr) == (0, False)
    done = run("run", remote, address, "--log", log, *words)
    assert done.returncode == 0, done.stderr
    assert not [word for word in (WORD, PASSWORD) if word in done.stdout + done.stderr]
    assert run("run", local, folder, *words).returncode == 0
    assert numbers_of(remote) == numbers_of(local)
    assert len(numbers_of(remote)[0]) == 3
    uids = {getattr(scan.identity, name) for scan in scans(find_scans(folder)) for name in ("series_uid", "study_uid")}
    assert not find([WORD, PASSWORD, "dicom-web", *uids], remote, log)

    before = sum("/instances/" in path for path in archive.requests())
    assert run("run", remote, address, *words).returncode == 0
    assert sum("/instances/" in path for path in archive.requests()) == before


def test_series_with_a_missing_instance_fails_and_the_others_are_done(archive, folder, tmp_path):
    file = sorted(folder.rglob("*.dcm"))[5]
    uid = str(pydicom.dcmread(file).SOPInstanceUID)
    # The index of the server keeps the instance, and its disk loses it.
    (stored,) = [
        place
        for place in (archive.folder / "storage").rglob("*")
        if place.is_file() and uid.encode() in place.read_bytes() and b"DICM" in place.read_bytes()[:132]
    ]
    stored.unlink()
    # Its memory forgets what it has read.
    archive.stop()
    archive.start()
    store = tmp_path / "cohort.zarr"
    done = run("convert", store, archive.address, "--workers", "2", "--quiet", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert len(lungmix.open_cohort(store)) == 2
    (reason,) = answer["failed"].values()
    assert uid not in json.dumps(answer)
    assert "127.0.0.1" in reason


def test_run_continues_when_the_server_answers_again(archive, folder, tmp_path):
    fetched = []

    def slow(passed):
        fetched.append(passed)
        time.sleep(0.02)

    proxy = Proxy(archive.port, slow)
    address = f"dicomweb+http://127.0.0.1:{proxy.port}/dicom-web"
    store = tmp_path / "cohort.zarr"
    words = ["convert", str(store), address, "--workers", "1", "--quiet", "--json"]
    command = [sys.executable, "-c", "from lungmix.cli import main; main()", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        end = time.monotonic() + 120
        while sum("/instances/" in path for path in archive.requests()) < 10:
            assert running.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        proxy.cut()
        text, _ = running.communicate(timeout=200)
    assert running.returncode == 1
    assert all("does not answer" in reason for reason in json.loads(text)["failed"].values())
    assert len(lungmix.open_cohort(store)) < 3
    words[2] = archive.address
    assert run(*words).returncode == 0
    local = scans(find_scans(folder))
    digests = {hashlib.sha256(b"".join(slab.tobytes() for slab in scan.slabs(64))).hexdigest() for scan in local}
    assert {case.stages["convert"]["voxels_sha256"] for case in lungmix.open_cohort(store).values()} == digests
