"""Real series through an archive and back."""

import numpy as np
import pytest

from lungmix.formats import find_scans
from lungmix.formats.dicomweb import server
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
