"""Clusters that this program did not start: over TCP and TLS, and with processes of another environment."""

import json
import re
import shutil
import sys

import pytest
from distributed import Client

import lungmix
from lungmix._version import __version__
from lungmix.callbacks import Callback
from lungmix.errors import ClusterError
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from support.clusters import (
    certificates_in,
    package_of_version,
    packages_without,
    running_cluster,
    start_worker,
    wait_until,
)
from support.command import SMALL, run, run_here
from support.stores import assert_same_voxels_each_way

pytestmark = pytest.mark.slow

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return certificates_in(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, certificates):
    with running_cluster(tmp_path_factory.mktemp("secure"), certificates=certificates) as started:
        yield started


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
    # Certificates come from environment variables, which dask reads once per process.
    assert_same_voxels_each_way(ways, scan, tmp_path, run)


def test_relative_paths_work_on_workers_with_another_working_directory(scan, tmp_path, monkeypatch):
    client_folder = tmp_path / "client"
    (client_folder / "scans").mkdir(parents=True)
    shutil.copy(scan, client_folder / "scans")
    monkeypatch.chdir(client_folder)
    with running_cluster(tmp_path, workers=1) as (address, _):
        done = run_here("run", "s.zarr", "scans", "--model", "published", *SMALL, "--scheduler", address, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["done"] == ["case-001"]
        done = run_here("fit", "s.zarr", "--method", "minibatch", "--scheduler", address)
        assert done.returncode == 0, done.stdout + done.stderr
        with Client(address):
            case = lungmix.open_cohort("s.zarr")["case-001"]
            assert case.lung.sum().compute() == case.hu_counts.sum() > 0


def test_message_of_a_secure_scheduler_without_certificates_names_certificates(secure, scan, tmp_path):
    address, file = secure
    for way in (("--scheduler", address), ("--scheduler-file", file)):
        done = run_here("run", tmp_path / "s.zarr", scan, *SMALL, *way)
        assert done.returncode == 2
        assert "certificates" in done.stderr
        assert "DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in done.stderr


def test_certificate_of_another_authority_is_rejected(secure, scan, tmp_path, monkeypatch):
    for name, value in certificates_in(tmp_path, "a stranger").environment().items():
        monkeypatch.setenv(name, value)
    done = run("run", tmp_path / "s.zarr", scan, *SMALL, "--scheduler", secure[0])
    assert done.returncode == 2
    assert "certificates" in done.stderr


def test_worker_that_lacks_the_package_is_named_before_any_work_is_sent(scan, tmp_path):
    lacking = packages_without(tmp_path / "packages", "lungmix")
    with running_cluster(tmp_path, environments=[lacking], python=(sys.executable, "-S")) as (address, _):
        addresses = workers_of(address, 2)
        done = run_here("run", tmp_path / "s.zarr", scan, *SMALL, "--scheduler", address)
        assert done.returncode == 2, done.stderr
        named = [
            worker_address for worker_address in addresses if f"worker {worker_address} lacks lungmix" in done.stderr
        ]
        assert len(named) == 1
        assert done.stderr.count("lacks lungmix") == 1
        assert f"lungmix {__version__}" in done.stderr
        assert not list((tmp_path / "s.zarr").glob("case*"))
        assert workers_of(address, 2) == addresses, "no worker has died of what it was sent"


def test_worker_with_another_version_is_named_with_it(tmp_path):
    other = package_of_version(tmp_path / "other", "0.0.7")
    with (
        running_cluster(tmp_path, workers=1, environments=[other]) as (address, _),
        pytest.raises(
            ClusterError, match=rf"\(worker tcp://\S+ has lungmix 0\.0\.7; this program has lungmix {__version__}"
        ),
    ):
        lungmix.connect(address)


class Joining(Callback):
    """Callback that starts workers when the first mask begins, and waits until the run has warned about each."""

    def __init__(self, start, count):
        self._start, self._count, self.said = start, count, []

    def on_progress(self, case, stage, done, total):
        if self._start is not None and stage == "mask":
            start, self._start = self._start, None
            start()
            wait_until(lambda: len(self.said) >= self._count, lambda: f"heard only: {self.said}")

    def on_warning(self, message):
        if "worker" in message:
            self.said.append(message)


def test_workers_that_join_late_with_another_environment_are_named_and_get_no_work(scans, tmp_path):
    other = package_of_version(tmp_path / "other", "0.0.7")
    lacking = packages_without(tmp_path / "packages", "lungmix")
    strangers, log = [], tmp_path / "strangers.log"
    with running_cluster(tmp_path, workers=1) as (address, _):

        def start():
            for python, environment in (([sys.executable], other), ([sys.executable, "-S"], lacking)):
                strangers.append(start_worker(tmp_path, python, environment, log))

        callback = Joining(start, 2)
        try:
            with lungmix.connect(address) as client:
                report = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"), callback).run(
                    [scans], mask=MASK
                )
                assert not report.failed, report.failed
                assert len(report.done) == 3
                assert len(client.scheduler_info(n_workers=-1)["workers"]) == 1
            wait_until(
                lambda: all(stranger.poll() is not None for stranger in strangers),
                log.read_text,
            )
            with Client(address) as other_client:
                # After the run, workers without lungmix may join, because other clients may use the cluster.
                wait_until(lambda: not gates_of(other_client), lambda: str(gates_of(other_client)))
        finally:
            for stranger in strangers:
                stranger.terminate()
                stranger.wait(30)
    warnings = "\n".join(sorted(callback.said))
    this = "and this program has lungmix "
    assert re.search(rf"worker tcp://127\.0\.0\.1:\d+ has lungmix 0\.0\.7, {this}", warnings), warnings
    assert re.search(rf"worker tcp://127\.0\.0\.1:\d+ lacks lungmix, {this}", warnings), warnings
    assert warnings.count("the same versions there") == 2


def test_scheduler_without_workers_is_waited_for_and_then_named(tmp_path):
    heard = []
    with (
        running_cluster(tmp_path, workers=0) as (address, _),
        pytest.raises(ClusterError, match="no worker has joined"),
    ):
        lungmix.connect(address, timeout=0.5, warn=heard.append)
    assert len(heard) == 1
    assert address in heard[0]


def gates_of(client):
    def names(dask_scheduler):
        return [name for name in [*dask_scheduler.worker_plugins, *dask_scheduler.plugins] if "gate" in str(name)]

    return client.run_on_scheduler(names)


def workers_of(address, count):
    """Return the addresses of the workers, after all have joined."""
    with Client(address) as client:
        client.wait_for_workers(count, timeout=60)
        return sorted(client.scheduler_info(n_workers=-1)["workers"])
