"""Clusters whose workers are paused, and clusters that have no workers while no task is pending."""

from concurrent.futures import CancelledError
from threading import Event
from types import SimpleNamespace

import pytest
from distributed import LocalCluster, Status

import lungmix
from lungmix.callbacks import Callback
from lungmix.cluster import reconnect
from lungmix.cluster.client import CleanClient
from lungmix.errors import StalledError
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline

MASK = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))


class Said(Callback):
    """Callback that stores messages."""

    def __init__(self):
        self.said = []

    def on_warning(self, message):
        self.said.append(message)


def cluster_of(workers):
    """Return a scheduler and workers in this process, which do not measure their memory."""
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=None,
        silence_logs=50,
    )


def pause(dask_worker):
    dask_worker.status = Status.paused


def test_run_with_only_paused_workers_ends_with_a_remedy(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(reconnect, "_NO_WORKERS_S", 1.0)
    monkeypatch.setattr(reconnect, "_STALLED_S", 1.0)
    with cluster_of(1) as cluster, lungmix.connect(cluster.scheduler_address) as client:
        client.run(pause)
        cohort = lungmix.open_cohort(str(tmp_path / "s.zarr"), "a")
        with pytest.raises(StalledError, match=r"are paused .* start workers .* --memory-limit 2GB`") as ended:
            Pipeline(client, cohort, Said()).run([scan], mask=MASK)
    assert ended.value.status == 1


@pytest.mark.parametrize(
    ("cluster", "remedy"),
    [
        (object(), "give workers more with `memory_limit='2GB'`"),
        (None, "start workers with more, such as `dask worker"),
    ],
)
def test_remedy_for_paused_workers_is_that_of_whoever_started_them(cluster, remedy, monkeypatch):
    monkeypatch.setattr(reconnect, "_NO_WORKERS_S", 0.01)
    monkeypatch.setattr(reconnect, "_STALLED_S", 0.0)
    monkeypatch.setattr(reconnect, "_scheduler_workers", lambda _: [{"status": "paused", "memory_limit": 640_000_000}])
    waiting = SimpleNamespace(status="pending")
    client = SimpleNamespace(status="running", cluster=cluster, futures={"a": waiting}, close=lambda: None)
    reasons = []
    reconnect._watch_workers(client, pytest.fail, Event(), reasons)
    assert "640 MB" in reasons[0]
    assert remedy in reasons[0]


def test_paused_workers_are_ignored_while_no_task_is_pending(monkeypatch):
    monkeypatch.setattr(reconnect, "_NO_WORKERS_S", 0.5)
    monkeypatch.setattr(reconnect, "_STALLED_S", 0.5)
    with cluster_of(1) as cluster, lungmix.connect(cluster.scheduler_address) as client:
        client.run(pause)
        looks = []
        seen = reconnect._scheduler_workers
        monkeypatch.setattr(reconnect, "_scheduler_workers", lambda asked: looks.append(1) or seen(asked))
        with reconnect.warn_when_no_workers(client, pytest.fail) as check:
            while len(looks) < 12:
                check()
        assert client.status == "running"


@pytest.mark.parametrize(
    ("worker", "stuck"),
    [
        ({"status": "paused", "metrics": {"task_counts": {"ready": 2}}}, True),
        ({"status": "paused", "metrics": {"task_counts": {"executing": 1}}}, False),
        ({"status": "paused", "metrics": {}}, True),
        ({"status": "running", "metrics": {"task_counts": {}}}, False),
    ],
)
def test_worker_that_is_paused_is_stuck_unless_a_task_of_it_runs(worker, stuck):
    assert reconnect._is_stuck(worker) == stuck


@pytest.mark.slow
def test_cluster_that_has_no_worker_before_and_between_stages_takes_a_whole_run(scan, tmp_path, monkeypatch):
    monkeypatch.setattr(reconnect, "_NO_WORKERS_S", 1.0)
    callback = Said()
    with cluster_of(0) as cluster:
        cluster.adapt(minimum=0, maximum=1, interval="200ms", wait_count=1)
        with lungmix.connect(cluster.scheduler_address, timeout=60, warn=callback.on_warning) as client:
            report = Pipeline(client, lungmix.open_cohort(str(tmp_path / "s.zarr"), "a"), callback).run(
                [scan], mask=MASK
            )
    assert not report.failed, report.failed
    assert report.done


@pytest.mark.parametrize("workers", [0, 1])
def test_aborted_run_does_not_wait_for_missing_or_paused_workers(workers):
    with cluster_of(workers) as cluster, CleanClient(cluster) as client:
        client.run(pause)
        waiting = client.submit(int, pure=False)
        reconnect.SchedulerReconnect(client, pytest.fail, lambda: None).abort()
        with pytest.raises(CancelledError):
            waiting.result(timeout=10)


def test_aborted_run_waits_for_running_tasks():
    with cluster_of(1) as cluster, CleanClient(cluster) as client:
        waiting = client.submit(int, pure=False)
        reconnect.SchedulerReconnect(client, pytest.fail, lambda: None).abort()
        assert waiting.result(timeout=10) == 0


@pytest.mark.slow
def test_worker_that_a_local_cluster_closed_is_replaced(monkeypatch):
    monkeypatch.setattr(reconnect, "_NO_WORKERS_S", 0.5)
    with lungmix.connect(workers=1) as client:
        nanny = next(iter(client.cluster.workers.values()))
        with reconnect.warn_when_no_workers(client, lambda message: None):
            client.sync(nanny.close)
            client.cluster.workers.clear()
            assert client.submit(len, "ab").result(timeout=120) == 2


def test_case_is_tried_again_where_the_scheduler_failed_on_its_graph(scan, tmp_path):
    def fail_once(dask_scheduler):
        create_tasks = dask_scheduler._create_taskstate_from_graph

        def failing(**graph):
            dask_scheduler._create_taskstate_from_graph = create_tasks
            raise AssertionError

        # Distributed removes frames of its own files from the traceback.
        failing.__code__ = failing.__code__.replace(co_filename="distributed/scheduler.py")
        dask_scheduler._create_taskstate_from_graph = failing

    with cluster_of(1) as cluster, lungmix.connect(cluster.scheduler_address) as client:
        client.run_on_scheduler(fail_once)
        said = Said()
        cohort = lungmix.open_cohort(str(tmp_path / "s.zarr"), "a")
        report = Pipeline(client, cohort, said).run([scan], mask=MASK)
    assert not report.failed
    assert any("the scheduler failed (AssertionError)" in message for message in said.said)
