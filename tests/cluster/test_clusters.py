"""Clusters of other people's making: TCP and TLS, and processes that do not have this program's environment."""

import sys

import pytest
from distributed import Client

import lungmix
from cli.test_cli import SMALL, run
from cluster import certificates_in, package_of_version, packages_without, running_cluster
from lungmix._version import __version__
from lungmix.errors import ClusterError
from stores import assert_same_voxels_each_way

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return certificates_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificates):
    with running_cluster(tmp_path_factory.mktemp("secure"), certificates=certificates) as found:
        yield found


def test_job_over_tls_gives_the_voxels_of_a_local_cluster(secure, certificates, scan, tmp_path, monkeypatch):
    address, file = secure
    assert address.startswith("tls://")
    for name, value in certificates.environment().items():
        monkeypatch.setenv(name, value)
    ways = {
        "address": ("--scheduler", address),
        "file": ("--scheduler-file", file),
        "local": ("-j", 1, "--memory-limit", "2GB"),
    }
    assert_same_voxels_each_way(ways, scan, tmp_path)


def test_secure_scheduler_without_certificates_is_told_from_one_that_is_not_there(secure, scan, tmp_path):
    address, file = secure
    for way in (("--scheduler", address), ("--scheduler-file", file)):
        done = run("run", tmp_path / "s.zarr", scan, *SMALL, *way)
        assert done.returncode == 2
        assert "certificates" in done.stderr
        assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in done.stderr


def test_certificate_of_a_stranger_is_refused(secure, scan, tmp_path, monkeypatch):
    for name, value in certificates_in(tmp_path, "a stranger").environment().items():
        monkeypatch.setenv(name, value)
    done = run("run", tmp_path / "s.zarr", scan, *SMALL, "--scheduler", secure[0])
    assert done.returncode == 2
    assert "certificates" in done.stderr


def test_worker_that_lacks_the_package_is_named_before_any_work_is_sent(scan, tmp_path):
    lacking = packages_without(tmp_path / "packages", "lungmix")
    with running_cluster(tmp_path, environments=[lacking], python=(sys.executable, "-S")) as (address, _):
        addresses = workers_of(address, 2)
        done = run("run", tmp_path / "s.zarr", scan, *SMALL, "--scheduler", address)
        assert done.returncode == 2, done.stderr
        named = [one for one in addresses if f"worker {one} lacks lungmix" in done.stderr]
        assert len(named) == 1
        assert done.stderr.count("lacks lungmix") == 1
        assert f"lungmix {__version__}" in done.stderr
        assert not list((tmp_path / "s.zarr").glob("case*"))
        assert workers_of(address, 2) == addresses, "no worker has died of what it was sent"


def test_worker_with_another_version_is_named_with_it(tmp_path):
    other = package_of_version(tmp_path / "other", "0.0.7")
    with (
        running_cluster(tmp_path, workers=1, environments=[other]) as (address, _),
        pytest.raises(ClusterError, match=rf"worker tcp://\S+ has lungmix 0\.0\.7; here are lungmix {__version__}"),
    ):
        lungmix.connect(address)


def test_scheduler_without_workers_is_waited_for_and_then_named(tmp_path):
    heard = []
    with (
        running_cluster(tmp_path, workers=0) as (address, _),
        pytest.raises(ClusterError, match="no worker has joined"),
    ):
        lungmix.connect(address, patience=0.5, say=heard.append)
    assert len(heard) == 1
    assert address in heard[0]


def workers_of(address, count):
    """Addresses of the workers, once all have joined."""
    with Client(address) as client:
        client.wait_for_workers(count, timeout=60)
        return sorted(client.scheduler_info(n_workers=-1)["workers"])
