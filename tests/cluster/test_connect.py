"""Connections to clusters of processes, and the limit of cases in flight."""

import threading
import time

import dask
import pytest

import lungmix
from lungmix.cluster import map_bounded
from lungmix.cluster.bounded_map import map_with_second_attempt
from lungmix.errors import ClusterError, UsageError
from support.clusters import free_port, running_cluster
from support.stores import assert_same_voxels_each_way

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running_cluster(tmp_path_factory.mktemp("cluster"), workers=1) as started:
        yield started


def test_job_on_a_running_scheduler_gives_the_voxels_of_a_local_cluster(cluster, scan, tmp_path):
    address, file = cluster
    ways = {
        "address": ("--scheduler", address),
        "file": ("--scheduler-file", file),
        "local": ("-j", 1, "--memory-limit", "2GB"),
    }
    assert_same_voxels_each_way(ways, scan, tmp_path)


def test_client_leaves_a_cluster_that_it_did_not_start_running(cluster):
    for _ in range(2):
        with lungmix.connect(cluster[0]) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_local_cluster_has_the_workers_and_the_memory_asked_for():
    with lungmix.connect(workers=1, memory_limit="600MB") as client:
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["memory_limit"] == 600_000_000
        assert worker["nthreads"] == 1


@pytest.mark.usefixtures("new_workers")
def test_workers_of_a_local_cluster_have_the_stages_before_their_first_task():
    with lungmix.connect(workers=2, memory_limit="600MB") as client:
        loaded = client.run(eval, "'lungmix.stages.label' in __import__('sys').modules")
        assert list(loaded.values()) == [True, True]


def test_certificates_that_are_missing_are_named():
    files = {"distributed.comm.tls.ca-file": "/nonexistent/ca.pem", "distributed.comm.require-encryption": True}
    with dask.config.set(files), pytest.raises(ClusterError, match="no secure connection"):
        lungmix.connect(f"tls://127.0.0.1:{free_port()}")


@pytest.mark.usefixtures("hasty")
def test_scheduler_that_is_not_there_is_named(tmp_path):
    address = f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(ClusterError, match=address):
        lungmix.connect(address)
    with pytest.raises(ClusterError, match=r"none\.json"):
        lungmix.connect(scheduler_file=tmp_path / "none.json")


@pytest.mark.parametrize(
    "options",
    [
        {"scheduler": "tcp://127.0.0.1:1", "scheduler_file": "x"},
        {"scheduler": "tcp://127.0.0.1:1", "workers": 2},
        {"workers": 0},
        {"memory_limit": "much"},
        {"memory_limit": "1MB"},
    ],
)
def test_invalid_options_are_rejected(options):
    with pytest.raises(UsageError):
        lungmix.connect(**options)


def test_items_in_flight_are_bounded_and_an_error_ends_only_its_item():
    lock, running, peak = threading.Lock(), 0, 0

    def work(item):
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        if item % 5 == 0:
            raise ValueError(item)
        return item * 2

    outcomes = {ended.item: ended for ended in map_bounded(range(40), work, 3)}
    assert peak == 3
    assert sorted(outcomes) == list(range(40))
    for item, outcome in outcomes.items():
        assert (outcome.error is not None) == (item % 5 == 0)
        assert outcome.result == (None if item % 5 == 0 else item * 2)


def test_interrupt_prevents_further_items():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(map_bounded(range(100), work, 1))
    assert len(begun) < 10


def test_interrupt_aborts_items_in_flight():
    left = threading.Event()

    def work(item):
        if item == 1:
            raise KeyboardInterrupt
        assert left.wait(30)

    with pytest.raises(KeyboardInterrupt):
        list(map_bounded(range(100), work, 2, left.set))
    assert left.is_set()


def test_items_to_retry_run_alone_at_the_end_and_once_more():
    calls, retried = [], []

    def work(item):
        calls.append(item)
        if item == 2 or (item == 5 and calls.count(5) == 1):
            raise MemoryError(item)
        return item

    def is_memory(error):
        return isinstance(error, MemoryError)

    outcomes = list(map_with_second_attempt(range(8), work, 2, is_memory, lambda item, error: retried.append(item)))
    assert sorted(retried) == [2, 5]
    assert sorted(calls[-2:]) == [2, 5]
    assert {outcome.item for outcome in outcomes if outcome.error is not None} == {2}
    assert sorted(outcome.item for outcome in outcomes) == list(range(8))
