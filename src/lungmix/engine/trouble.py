"""Tell apart what can end a case's work on a cluster, and wait for a cluster to come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field

from distributed import Client, KilledWorker
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from lungmix.errors import WorkersEndedError

PATIENCE_S = 300.0
"""So long a scheduler that was lost, or its first worker, is waited for, seconds."""

_POLL_S = 0.2
_MISSED_S = 10.0


def has_ended_workers(error: BaseException) -> bool:
    """Return whether an error says that a case ended workers or needed more memory than a worker has."""
    return isinstance(error, (KilledWorker, WorkersEndedError, MemoryError))


def is_lost(error: BaseException) -> bool:
    """Whether the connection to the scheduler was lost; a client that has given it up is closed."""
    return isinstance(error, (CancelledError, CommClosedError, ClosedClientError))


def is_closed(client: Client) -> bool:
    """Whether a client was closed, as one is that gave a lost scheduler up: all that is asked of it fails."""
    return client.status in ("closing", "closed")


@dataclass(frozen=True)
class Vigil:
    """Waits for a scheduler that was lost, for all cases in flight at once.

    Attributes
    ----------
    client : distributed.Client
        It connects again by itself, and gives up after its own timeout; see `lungmix.engine.connect`.
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

    def leave(self) -> None:
        """Wait no longer, for the run is left; and close a client that is lost, or work waits for what it has asked."""
        self._over.set()
        if self.client.status == "connecting":
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
def missing(client: Client, say: Callable[[str], None]) -> Iterator[None]:
    """Tell within the block where no worker has been left for a while, and when one is back; work waits for it."""
    over = threading.Event()
    watch = threading.Thread(target=_miss, args=(client, say, over), name="workers", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _miss(client: Client, say: Callable[[str], None], over: threading.Event) -> None:
    since, told = time.monotonic(), False
    while not over.wait(_MISSED_S / 5):
        # Without its scheduler a client has another complaint; see `Vigil`.
        if client.status != "running" or _workers(client) != 0:
            since = time.monotonic()
            if told and client.status == "running":
                say("a worker is back: the run goes on")
                told = False
        elif not told and time.monotonic() - since > _MISSED_S:
            told = True
            say("no worker is left: start some, or look at why the queue starts none; the run waits for them")


def _workers(client: Client) -> int | None:
    """How many there are; None where the scheduler does not answer."""
    try:
        return len(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError, ValueError, KeyError, ClosedClientError):
        return None
