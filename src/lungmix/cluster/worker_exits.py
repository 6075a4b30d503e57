"""Causes of the end of worker processes: a memory limit, a signal, or an error within the process."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from distributed import Client, KilledWorker, Nanny
from distributed.client import ClosedClientError
from distributed.diagnostics.plugin import NannyPlugin

from lungmix.errors import WorkersEndedError

TOPIC = "lungmix-worker-exits"
"""Topic of events in the scheduler's log about ended worker processes, with address and exit status."""

_MEMORY_TOPIC = "worker-restart-memory"
"""Topic of events that nannies of distributed log before they end a worker that exceeds its memory limit."""

_TIMEOUT_S, _POLL_S = 2.0, 0.1

OUT_OF_MEMORY = "workers repeatedly ran out of memory on this case: give them a larger `memory_limit`"


def exit_watch() -> NannyPlugin:
    """Return a nanny plugin that reports the exit status of each worker process that ends by itself.

    The plugin replaces a private callback of the nanny, which receives the status. Releases of distributed without this
    callback report nothing; messages then name all possible causes.
    """

    # A local class is pickled with its code, so that nannies without lungmix, of other users, can load it too.
    class ExitWatch(NannyPlugin):
        name = TOPIC
        idempotent = True

        def __init__(self, topic: str):
            self._topic = topic

        def setup(self, nanny: Nanny) -> None:
            callback = getattr(nanny, "_on_worker_exit_sync", None)
            # The callback may be replaced already: a restarted scheduler sends the plugin to the same nanny again.
            if not callable(callback) or hasattr(callback, "reports_exits"):
                return

            async def log(event: dict[str, Any]) -> None:
                with suppress(Exception):  # a nanny that cannot report still restarts its worker
                    await nanny.scheduler.log_event(topic=self._topic, msg=event)

            def report(exit_status: int) -> None:
                nanny.loop.add_callback(log, {"worker": nanny.worker_address, "exit": exit_status})
                callback(exit_status)

            report.reports_exits = True  # type: ignore[attr-defined]
            nanny._on_worker_exit_sync = report
            if callable(getattr(nanny.process, "on_exit", None)):
                nanny.process.on_exit = report

    return ExitWatch(TOPIC)


def explained(client: Client, error: Exception) -> Exception:
    """Return an error with the reason why workers ended at a case, in place of a `distributed.KilledWorker`.

    Parameters
    ----------
    client : distributed.Client
        Client whose scheduler logged the events of memory limits and of ended processes.
    error : Exception
        Error of a task. An error other than `distributed.KilledWorker` is returned unchanged.
    """
    if not isinstance(error, KilledWorker):
        return error
    return WorkersEndedError(describe(*_events_of(client, error.last_worker.address)))


def describe(memory: bool, exit_status: int | None) -> str:
    """Return a sentence about workers that ended repeatedly at one case.

    Parameters
    ----------
    memory : bool
        True if a memory limit ended the last worker.
    exit_status : int or None
        Exit status of the last worker, negative for a signal; None if it is unknown.
    """
    if memory:
        return OUT_OF_MEMORY
    if exit_status is None:
        return (
            "worker processes ended several times while they worked on this case, and the cause is not known: see "
            "their logs for a crash of a library, a signal, or too little memory on the machine"
        )
    if exit_status >= 0:
        return (
            f"worker processes ended several times while they worked on this case, with exit status {exit_status}: see "
            "their logs"
        )
    ended_by = f"signal {-exit_status} ({_name_of(-exit_status)}) ended worker processes several times on this case"
    if -exit_status == getattr(signal, "SIGKILL", 9):
        return (
            f"{ended_by}, not because of their memory limit: the operating system or a batch system often sends it "
            "when the memory of the machine or of the job is used up; check its log, and give fewer workers or a "
            "smaller `memory_limit`"
        )
    return (
        f"{ended_by}: a library crashed, or another program sent the signal; check the file of this case, and report "
        "it if it happens again"
    )


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def _events_of(client: Client, address: str) -> tuple[bool, int | None]:
    """Return whether a memory limit ended a worker, and its exit status, or None if it is unknown.

    Events arrive after the error of the task, so wait up to 2 s for them.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        memory = any(event.get("worker") == address for event in _get_events(client, _MEMORY_TOPIC))
        statuses = [event.get("exit") for event in _get_events(client, TOPIC) if event.get("worker") == address]
        if memory or statuses or time.monotonic() > deadline:
            return memory, statuses[-1] if statuses else None
        time.sleep(_POLL_S)


def _get_events(client: Client, topic: str) -> Iterable[dict[str, Any]]:
    with suppress(OSError, TimeoutError, ValueError, KeyError, ClosedClientError):
        return [event for _, event in client.get_events(topic) if isinstance(event, dict)]
    return []
