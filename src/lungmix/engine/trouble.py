"""Tell apart what can end a case's work on a cluster, and wait for a cluster to come back."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError

from distributed import Client, KilledWorker
from distributed.comm import CommClosedError

_BACK_S = 60.0
_POLL_S = 0.2


def is_memory(error: BaseException) -> bool:
    """Whether workers died of it, most likely for want of memory."""
    return isinstance(error, (KilledWorker, MemoryError))


def is_lost(error: BaseException) -> bool:
    """Whether the connection to the scheduler was lost."""
    return isinstance(error, (CancelledError, CommClosedError))


def await_cluster(client: Client, patience: float = _BACK_S) -> bool:
    """Wait until a scheduler that was lost is there again, with a worker.

    Parameters
    ----------
    client : distributed.Client
        It connects again by itself, and gives up after its own timeout.
    patience : float
        Seconds.

    Returns
    -------
    bool
        Whether work can go on.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end and client.status not in ("closed", "closing"):
        if client.status == "running" and _workers(client):
            return True
        time.sleep(_POLL_S)
    return False


def _workers(client: Client) -> int:
    try:
        return len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError, ValueError, KeyError):
        return 0
