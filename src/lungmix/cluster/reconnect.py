"""Tell apart what can end a case's work on a cluster, and wait for a cluster to come back."""

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
"""So long a scheduler that was lost, or its first worker, is waited for, seconds."""

_POLL_S = 0.2
_MISSED_S = 10.0
_STALLED_S = 60.0


def has_ended_workers(error: BaseException) -> bool:
    """Return whether an error says that a case ended workers or needed more memory than a worker has."""
    return isinstance(error, (KilledWorker, WorkersEndedError, MemoryError))


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection to the scheduler was lost; a client that has given it up is closed."""
    return isinstance(error, (CancelledError, CommClosedError, ClosedClientError))


def is_scheduler_failure(error: BaseException) -> bool:
    """Return whether an error arose in the scheduler itself, as where workers leave while it takes a graph.

    The task that it is reported for has not run; submitted again, it runs. Distributed reports such an error without
    the scheduler's frames, so that the client's frame is the innermost; an error of a task has the task's frames.
    """
    frames = list(traceback.walk_tb(error.__traceback__))
    return (
        isinstance(error, (AssertionError, AttributeError, LookupError, RuntimeError))
        and bool(frames)
        and frames[-1][0].f_globals.get("__name__") == "distributed.client"
    )


def is_closed(client: Client) -> bool:
    """Whether a client was closed, as one is that gave a lost scheduler up: all that is asked of it fails."""
    return client.status in ("closing", "closed")


@dataclass(frozen=True)
class SchedulerReconnect:
    """Waits for a scheduler that was lost, for all cases in flight at once.

    Attributes
    ----------
    client : distributed.Client
        It connects again by itself, and gives up after its own timeout; see `lungmix.cluster.connect`.
    say : callable
        Is told once that there is something to wait for.
    renew : callable
        Called when the scheduler is back: one that was started anew knows of no plugin and no listener.
    """

    client: Client
    say: Callable[[str], None]
    renew: Callable[[], None]
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    def abort(self) -> None:
        """Abort waiting, and close a client whose requests will not be answered, so that they fail instead of blocking.

        These are clients whose scheduler is lost, whose workers have all ended, as after a signal to the whole process
        group, or whose workers are all paused.
        """
        self._over.set()
        if self.client.status == "connecting":
            self.client.close()
        elif self.client.status == "running":
            workers = _seen(self.client)
            if workers is not None and all(_is_stuck(one) for one in workers):
                self.client.close()

    def wait(self) -> bool:
        """Wait until the scheduler is there again, with a worker; whether work can go on."""
        with self._turn:
            told = False
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end and not self._over.is_set():
                if is_closed(self.client):
                    break
                if self.client.status == "running" and _workers(self.client):
                    try:
                        self.renew()
                    except (OSError, TimeoutError):  # gone again
                        continue
                    return True
                if not told:
                    told = True
                    self.say(
                        f"the scheduler is lost: start it again at the same address, and workers; waiting for both "
                        f"up to {PATIENCE_S:.0f} s"
                    )
                self._over.wait(_POLL_S)
            return False


@contextmanager
def warn_when_no_workers(client: Client | None, say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Watch within the block for workers that are gone, and for those that all stand paused for their memory.

    Where no worker has been left for a while it is said, and when one is back; work waits for it. Where all stand
    paused, work would wait for ever: the client is closed, and the block ends with the reason. Workers of this machine
    that were given up are started again.

    Yields
    ------
    callable
        Raises the reason, if there is one.

    Raises
    ------
    StalledError
        If all workers stood paused and nothing moved.
    """
    if client is None:
        yield lambda: None
        return
    over, reasons = threading.Event(), list[str]()
    watch = threading.Thread(target=_miss, args=(client, say, over, reasons), name="workers", daemon=True)

    def check() -> None:
        if reasons:
            raise StalledError(reasons[0])

    watch.start()
    try:
        yield check
    except Exception as error:
        if is_connection_lost(error) or isinstance(error, ClusterError):
            check()
        raise
    finally:
        over.set()
        watch.join()


def _miss(client: Client, say: Callable[[str], None], over: threading.Event, reasons: list[str]) -> None:
    since, moved, told = time.monotonic(), time.monotonic(), False
    while not over.wait(_MISSED_S / 5):
        _replace_lost_workers(client)
        # Without its scheduler a client has another complaint; see `SchedulerReconnect`.
        workers = _seen(client) if client.status == "running" else None
        waits = any(one.status == "pending" for one in list(client.futures.values()))
        if not workers or not waits or not all(_is_stuck(one) for one in workers):
            moved = time.monotonic()
        elif time.monotonic() - moved > _STALLED_S:
            least = min(int(one["memory_limit"] or 0) for one in workers)
            reasons.append(
                f"all workers stand paused for their memory, {least / 1e6:.0f} MB, and nothing has moved for "
                f"{_STALLED_S:.0f} s: {more_memory('2GB', is_local=client.cluster is not None)}; and run the same "
                "command again, which goes on from here"
            )
            client.close()
            return
        if workers is None or workers or not waits:
            since = time.monotonic()
            if told and workers:
                say("a worker is back: the run goes on")
                told = False
        elif not told and time.monotonic() - since > _MISSED_S:
            told = True
            say("no worker is left: start some, or look at why the queue starts none; the run waits for them")


def _replace_lost_workers(client: Client) -> None:
    """Start workers in place of those that a cluster of this machine has closed.

    Distributed closes a worker for good whose process ended and did not come back within its
    ``lost-worker-timeout``, which a busy machine may need to start a process.
    """
    cluster = client.cluster
    if (
        isinstance(cluster, LocalCluster)
        and cluster.status == Status.running
        and len(cluster.workers) < len(cluster.worker_spec)
    ):
        cluster.scale(len(cluster.worker_spec))


def _is_stuck(worker: Mapping[str, Any]) -> bool:
    """Whether a worker is paused, and has no task that could end and free memory."""
    counts = (worker.get("metrics") or {}).get("task_counts") or {}
    return worker.get("status") == "paused" and not counts.get("executing") and not counts.get("long-running")


def _workers(client: Client) -> int | None:
    """How many there are; None where the scheduler does not answer."""
    seen = _seen(client)
    return None if seen is None else len(seen)


def _seen(client: Client) -> list[dict[str, Any]] | None:
    """Workers as the scheduler knows them; None where it does not answer."""
    try:
        return list(client.scheduler_info(n_workers=-1)["workers"].values())
    except (OSError, TimeoutError, ValueError, KeyError, ClosedClientError):
        return None
