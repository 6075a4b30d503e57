"""Plugins that a client removes from the cluster when it leaves."""

import logging

import pytest
from distributed import Client, LocalCluster
from distributed.core import Status

from lungmix.cluster import worker_admission
from support.clusters import wait_until

LOGGERS = ("distributed.core", "distributed.scheduler", "distributed.worker", "tornado.application", "asyncio")


class Heard(logging.Handler):
    """Log handler that stores records."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(f"{record.name}: {record.getMessage()}")


@pytest.fixture
def heard():
    handler = Heard()
    for name in LOGGERS:
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)


def gates_of(server):
    return [name for name in server.plugins if "gate" in str(name)]


@pytest.mark.parametrize("gone", [False, True], ids=["workers that stay", "a worker that has dropped its plugins"])
def test_admission_plugin_is_removed_with_its_client_without_log_messages(heard, gone):
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(n_workers=2, silence_logs=False, **options) as cluster:
        client = Client(cluster)
        worker_admission.register_admission(client)
        servers = [cluster.scheduler, *cluster.workers.values()]
        assert [len(gates_of(server)) for server in servers] == [1, 1, 1]
        if gone:
            servers[1].plugins.pop(*gates_of(servers[1]))
        client.close()
        wait_until(lambda: not any(map(gates_of, servers)), lambda: str(list(map(gates_of, servers))), seconds=10)
        assert not [name for name in cluster.scheduler.worker_plugins if "gate" in name]
    assert not heard.said


def test_closing_worker_keeps_its_plugins():
    class Worker:
        def __init__(self, status):
            self.status, self.plugins = status, {"gate": 1, "other": 2}

    for status in Status:
        worker = Worker(status)
        worker_admission._plugin_remover()("gate", dask_worker=worker)
        closes = status in (Status.closing, Status.closed, Status.closing_gracefully)
        assert ("gate" in worker.plugins) == closes
