"""Classify errors of a cluster that end a case, reconnect to a lost scheduler, and monitor workers."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, KilledWorker, LocalCluster
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError
from distributed.core import Status

from lungmix.errors import ClusterError, StalledError, WorkersEndedError, more_memory

PATIENCE_S = 300.0
"""Seconds to wait for a lost scheduler, or for the first worker of a scheduler."""

_POLL_S = 0.2
_NO_WORKERS_S = 10.0
_STALLED_S = 60.0


def has_ended_workers(error: BaseException) -> bool:
    """Return True for an error of a case that ended worker processes, or that exceeded the memory of a worker."""
    return isinstance(error, (KilledWorker, WorkersEndedError, MemoryError))


def is_connection_lost(error: BaseException) -> bool:
    """Return True for an error of a lost connection to the scheduler, or of a client that is closed."""
    return isinstance(error, (CancelledError, CommClosedError, ClosedClientError))


def is_scheduler_failure(error: BaseException) -> bool:
    """Return True for an error within the scheduler, which happens if workers leave while it receives a graph.

    The task with this error has not run, and can be submitted again. The traceback of such an error ends in a frame of
    the client, because distributed does not report frames of the scheduler. The traceback of a task's own error ends in
    a frame of the task.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    return (
        isinstance(error, (AssertionError, AttributeError, LookupError, RuntimeError))
        and bool(frames)
        and frames[-1][0].f_globals.get("__name__") == "distributed.client"
    )


def is_closed(client: Client) -> bool:
    """Return True for a closed client, whose requests all fail.

    A client closes itself if the scheduler stays lost for longer than the client's timeout.
    """
    return client.status in ("closing", "closed")


@dataclass(frozen=True)
class SchedulerReconnect:
    """Reconnection to a lost scheduler, shared by all cases in flight.

    Attributes
    ----------
    client : distributed.Client
        The client. It reconnects by itself, or closes itself after its timeout; see `lungmix.cluster.connect`.
    warn : callable
        Called once with a message when waiting begins.
    renew : callable
        Called after reconnection, to register plugins and subscriptions, which a restarted scheduler lacks.
    """

    client: Client
    warn: Callable[[str], None]
    renew: Callable[[], None]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _aborted: threading.Event = field(default_factory=threading.Event, repr=False)

    def abort(self) -> None:
        """Abort waiting, and close the client if its requests would block for ever; they fail then.

        Requests block if the scheduler is lost, if all workers have ended, or if all workers are paused.
        """
        self._aborted.set()
        if self.client.status == "connecting":
            self.client.close()
        elif self.client.status == "running":
            workers = _scheduler_workers(self.client)
            if workers is not None and all(_is_stuck(worker) for worker in workers):
                self.client.close()

    def wait(self) -> bool:
        """Wait until the scheduler is back with a worker, and return True; return False when it stays lost."""
        with self._lock:
            warned = False
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline and not self._aborted.is_set():
                if is_closed(self.client):
                    break
                if self.client.status == "running" and _scheduler_workers(self.client):
                    try:
                        self.renew()
                    except (OSError, TimeoutError):  # lost again
                        continue
                    return True
                if not warned:
                    warned = True
                    self.warn(
                        f"the scheduler is lost: start it again at the same address, and workers; waiting for both "
                        f"up to {PATIENCE_S:.0f} s"
                    )
                self._aborted.wait(_POLL_S)
            return False


@contextmanager
def warn_when_no_workers(client: Client | None, warn: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Monitor the workers of a cluster within the block, in a thread.

    - No worker for 10 s while work is pending: warn, and call `warn` again when a worker is back. Work waits for it.
    - All workers paused for lack of memory for 60 s: close the client, because work would wait for ever.
    - A worker of a local cluster was closed by distributed: start another in its place.

    Yields
    ------
    callable
        Function that raises `StalledError` if the client was closed because all workers were paused.

    Raises
    ------
    StalledError
        If the block ends with an error of the cluster, and the client was closed because all workers were paused.
    """
    if client is None:
        yield lambda: None
        return
    ended, reasons = threading.Event(), list[str]()
    thread = threading.Thread(target=_watch_workers, args=(client, warn, ended, reasons), name="workers", daemon=True)

    def check() -> None:
        if reasons:
            raise StalledError(reasons[0])

    thread.start()
    try:
        yield check
    except Exception as error:
        if is_connection_lost(error) or isinstance(error, ClusterError):
            check()
        raise
    finally:
        ended.set()
        thread.join()


def _watch_workers(client: Client, warn: Callable[[str], None], ended: threading.Event, reasons: list[str]) -> None:
    last_worker_time, last_progress_time, warned = time.monotonic(), time.monotonic(), False
    while not ended.wait(_NO_WORKERS_S / 5):
        _replace_lost_workers(client)
        # While the client is disconnected, `SchedulerReconnect` waits for the scheduler.
        workers = _scheduler_workers(client) if client.status == "running" else None
        has_pending = any(worker.status == "pending" for worker in list(client.futures.values()))
        if not workers or not has_pending or not all(_is_stuck(worker) for worker in workers):
            last_progress_time = time.monotonic()
        elif time.monotonic() - last_progress_time > _STALLED_S:
            limit = min(int(worker["memory_limit"] or 0) for worker in workers)
            reasons.append(
                f"all workers are paused for their memory, {limit / 1e6:.0f} MB, and no task has ended for "
                f"{_STALLED_S:.0f} s: {more_memory('2GB', is_local=client.cluster is not None)}; and run the same "
                "command again to resume"
            )
            client.close()
            return
        if workers is None or workers or not has_pending:
            last_worker_time = time.monotonic()
            if warned and workers:
                warn("a worker is back: the run continues")
                warned = False
        elif not warned and time.monotonic() - last_worker_time > _NO_WORKERS_S:
            warned = True
            warn("no worker is left: start some, or find out why the queue starts none; the run waits for them")


def _replace_lost_workers(client: Client) -> None:
    """Start workers in place of those that distributed closed in a local cluster.

    Distributed closes a worker permanently if its process ended and was not restarted within ``lost-worker-timeout``,
    which can be too short on a busy machine.
    """
    cluster = client.cluster
    if (
        isinstance(cluster, LocalCluster)
        and cluster.status == Status.running
        and len(cluster.workers) < len(cluster.worker_spec)
    ):
        cluster.scale(len(cluster.worker_spec))


def _is_stuck(worker: Mapping[str, Any]) -> bool:
    """Return True if a worker is paused and runs no task whose end could free memory."""
    counts = (worker.get("metrics") or {}).get("task_counts") or {}
    return worker.get("status") == "paused" and not counts.get("executing") and not counts.get("long-running")


def _scheduler_workers(client: Client) -> list[dict[str, Any]] | None:
    """Return the descriptions of workers by the scheduler; None if the scheduler does not answer."""
    try:
        return list(client.scheduler_info(n_workers=-1)["workers"].values())
    except (OSError, TimeoutError, ValueError, KeyError, ClosedClientError):
        return None
