from __future__ import annotations

import signal
from types import SimpleNamespace

import dask
import pytest
from distributed import KilledWorker

import lungmix
from lungmix.cluster.worker_exits import OUT_OF_MEMORY, describe, exit_watch, explained
from lungmix.errors import WorkersEndedError

# Slowly, so that the nanny sees it; and no more than twice the limit, whatever the nanny does.
FILL_MEMORY = """
import time
blocks = []
for _ in range(40):
    blocks.append(bytearray(1 << 25))
    blocks[-1][:] = b"x" * (1 << 25)
    time.sleep(0.05)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def frail():
    """A cluster with one worker process, which fails a task after its worker has ended once."""
    patience = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with patience, lungmix.connect(workers=1, memory_limit="600MB") as client:
        client.register_plugin(exit_watch())
        yield client


def reason_of(client, statements: str) -> str:
    with pytest.raises(KilledWorker) as caught:
        client.submit(exec, statements, pure=False).result(timeout=60)
    error = explained(client, caught.value)
    assert isinstance(error, WorkersEndedError)
    return str(error)


def test_worker_killed_by_a_signal_is_not_called_out_of_memory(frail):
    reason = reason_of(frail, f"import os; os.kill(os.getpid(), {int(signal.SIGABRT)})")
    assert "signal 6 (SIGABRT)" in reason
    assert "ran out of memory" not in reason
    assert "a library crashed" in reason


def test_worker_above_its_memory_limit_is_called_out_of_memory(frail):
    assert "ran out of memory" in reason_of(frail, FILL_MEMORY)


@pytest.mark.parametrize(("exit_status", "words"), [(-9, "signal 9 (SIGKILL)"), (-11, "(SIGSEGV)"), (7, "status 7")])
def test_exit_status_of_a_worker_is_part_of_the_reason(exit_status, words):
    assert words in describe(memory=False, exit_status=exit_status)
    assert describe(memory=True, exit_status=exit_status) == OUT_OF_MEMORY


def test_unknown_exit_status_names_every_possible_cause():
    assert "ran out of memory" not in describe(memory=False, exit_status=None)
    for cause in ("crash", "signal", "memory"):
        assert cause in describe(memory=False, exit_status=None)


def test_nanny_that_gets_the_plugin_again_reports_an_exit_once():
    reported, handled = [], []
    nanny = SimpleNamespace(
        _on_worker_exit_sync=handled.append, process=SimpleNamespace(on_exit=handled.append),
        worker_address="tcp://127.0.0.1:1", loop=SimpleNamespace(add_callback=lambda _, event: reported.append(event)),
    )  # fmt: skip
    for _ in range(3):
        exit_watch().setup(nanny)
    nanny.process.on_exit(-9)
    assert (reported, handled) == ([{"worker": "tcp://127.0.0.1:1", "exit": -9}], [-9])
    nanny._on_worker_exit_sync(7)
    assert (len(reported), handled) == (2, [-9, 7])


def test_other_errors_are_returned_unchanged(client):
    error = ZeroDivisionError()
    assert explained(client, error) is error
