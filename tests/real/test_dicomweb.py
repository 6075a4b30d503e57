"""Real series through an archive and back."""

import json
import subprocess
from collections import Counter

import numpy as np
import pytest
import requests

from lungmix.formats import find_scans
from lungmix.formats.dicomweb import server
from support.command import run
from support.orthanc import PASSWORD, USER, running_archive
from support.series import scans

pytestmark = pytest.mark.slow

REAL = ("dx-a0001-soft", "dx-a0002-soft", "cmb-crc-lung")


def test_real_series_come_back_from_an_archive_voxel_for_voxel(real_ct, tmp_path, monkeypatch):
    monkeypatch.setenv(server.USER, USER)
    monkeypatch.setenv(server.PASSWORD, PASSWORD)
    local = scans([result for name in REAL for result in find_scans(real_ct / name)])
    assert len(local) == 3
    with running_archive(tmp_path) as archive:
        archive.upload(file for scan in local for file in scan.files)
        by_series = {scan.identity.series_uid: scan for scan in scans(find_scans(archive.address))}
        assert len(by_series) == len(local)
        for scan in local:
            remote = by_series[scan.identity.series_uid]
            assert (remote.geometry, remote.acquisition, remote.identity, remote.stack, remote.series) == (
                scan.geometry, scan.acquisition, scan.identity, scan.stack, scan.series,
            )  # fmt: skip
            assert all(np.array_equal(*pair) for pair in zip(remote.slabs(16), scan.slabs(16), strict=True))


def test_labels_of_a_real_series_land_in_the_archive(real_ct, tmp_path, monkeypatch):
    monkeypatch.setenv(server.USER, USER)
    monkeypatch.setenv(server.PASSWORD, PASSWORD)
    (scan,) = scans(find_scans(real_ct / REAL[0]))
    with running_archive(tmp_path / "orthanc") as archive:
        archive.upload(scan.files)
        store, base = tmp_path / "cohort.zarr", archive.address.removeprefix("dicomweb+")
        assert run("run", store, archive.address, "--model", "published", "--workers", "2").returncode == 0
        words = ["--to", archive.address, "--source", archive.address, "--retain-uid", "--binary"]
        done = run("export", store, *words, "--format", "dicom-sr")
        assert "case-001: 4 objects stored" in done.stdout, done.stderr
        query = {"StudyInstanceUID": scan.identity.study_uid, "PatientID": scan.identity.patient_id}
        answer = requests.get(f"{base}/instances", query, auth=(USER, PASSWORD), timeout=60).json()
        stored = [(item["00080060"]["Value"][0], item["00080018"]["Value"][0]) for item in answer]
        assert Counter(modality for modality, _ in stored) == {"CT": len(scan.files), "SEG": 3, "SR": 1}
        for modality, uid in stored:
            if modality == "CT":
                continue
            names = archive.call(
                "/tools/find", json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}}).encode()
            )
            file = tmp_path / f"{uid}.dcm"
            address = f"http://127.0.0.1:{archive.port}/instances/{names[0]}/file"
            file.write_bytes(requests.get(address, auth=(USER, PASSWORD), timeout=60).content)
            checked = subprocess.run(["dciodvfy", file], capture_output=True, text=True)
            assert not [line for line in checked.stderr.splitlines() if line.startswith(("Error", "Abort"))]
            if modality == "SR":
                read_words = ["tid1500reader", "--inputDICOM", file, "--outputMetadata", tmp_path / "read.json"]
                subprocess.run(read_words, check=True, capture_output=True)
                assert len(json.loads((tmp_path / "read.json").read_text())["Measurements"]) >= 8
