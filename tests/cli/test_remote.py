"""The main commands with sources in an object store, and workers that share no files with each other."""

import json

import numpy as np
import pytest
from distributed import Client, LocalCluster

import lungmix
from lungmix.cli.app import _status_of
from lungmix.phantom import Cohort, write_cohort
from support.series import copy, hu_of, write_series

pytestmark = pytest.mark.slow

NAME = "qzxdoe"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_cohort(root, Cohort(2, 3, (40, 64, 64), (5.6, 5.6, 7.5), frozenset()), "mixed")
    files = write_series(root / NAME, hu_of((12, 20, 24)))
    copy(files[0], root / NAME / "top.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesNumber=1)
    (root / f"{NAME}.nrrd").write_bytes(b"NRRD0004\nbroken")
    return root


@pytest.fixture(scope="module")
def cluster():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as running,
        Client(running),
    ):
        yield running.scheduler_address


def voxels_of(url):
    return {name: case.zarr_array("ct")[:] for name, case in lungmix.open_cohort(url).items()}


def test_commands_make_of_a_bucket_what_they_make_of_its_folder(bucket, folder, cluster, tmp_path, capfd):
    address = bucket.upload(folder, NAME)
    assert _status_of(["scan", address, "--quiet"]) == 1
    assert "3 used, 2 skipped, 1 rejected" in capfd.readouterr().out
    remote, local, log = str(tmp_path / "there.zarr"), str(tmp_path / "here.zarr"), tmp_path / "log.jsonl"
    words = ["--quiet", "--json", "--scheduler", cluster]
    assert _status_of(["convert", remote, address, "--log", str(log), *words]) == 1
    said = json.loads(capfd.readouterr().out)
    assert _status_of(["convert", local, str(folder), *words]) == 1
    assert said["failed"] == json.loads(capfd.readouterr().out)["failed"]
    remote_voxels, two = voxels_of(remote), voxels_of(local)
    assert list(remote_voxels) == list(two) == ["case-001", "case-002", "case-003"]
    assert all(np.array_equal(remote_voxels[name], two[name]) for name in remote_voxels)
    written = [log, *(file for file in (tmp_path / "there.zarr").rglob("*") if file.is_file())]
    assert not [file for file in written if NAME.encode() in file.read_bytes().lower()]
    assert NAME not in json.dumps(said).lower()

    digests = {name: case.stages["convert"] for name, case in lungmix.open_cohort(remote).items()}
    assert _status_of(["convert", remote, address, *words]) == 1
    assert {name: case.stages["convert"] for name, case in lungmix.open_cohort(remote).items()} == digests
    capfd.readouterr()
    # A rejected source has no case in the store.
    assert _status_of(["verify", remote, address, "--all", "--quiet", "--json", "--scheduler", cluster]) == 1
    wrong = json.loads(capfd.readouterr().out)["wrong"]
    assert [reasons[0].split(" ")[:2] for reasons in wrong.values()] == [["the", "file"]]
    assert list(wrong) == list(said["failed"])


def test_segmentation_refers_to_slices_in_a_bucket(bucket, folder, cluster, tmp_path):
    from lungmix.export.dicom_source import find_series, original_slices

    address, store = bucket.upload(folder, "slices"), str(tmp_path / "s.zarr")
    assert _status_of(["convert", store, f"{address}/{NAME}", "--quiet", "--scheduler", cluster]) == 0
    case = lungmix.open_cohort(store)["case-001"]
    of = [
        [str(header.SOPInstanceUID) for header in original_slices(case, find_series([place]))]
        for place in (address, folder)
    ]
    assert of[0] == of[1]
    assert len(of[0]) == 12


def test_source_that_cannot_be_reached_ends_with_status_1_and_no_traceback(bucket, tmp_path, capfd):
    assert _status_of(["scan", "s3://no-such-bucket/x", "--quiet"]) == 1
    assert _status_of(["scan", "ftp://host/x", "--quiet"]) == 2
    said = capfd.readouterr()
    assert "there is no such bucket" in said.out
    assert "Traceback" not in said.out + said.err
