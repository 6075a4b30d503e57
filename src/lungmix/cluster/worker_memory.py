"""Memory that workers leave to tasks, and the refusal of a case that needs more before work on it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Client
from distributed.client import ClosedClientError

from lungmix.cluster.reconnect import is_closed
from lungmix.errors import RoomError
from lungmix.geometry import Geometry
from lungmix.graphs.memory import case_task_bytes, enough_bytes, least_bytes
from lungmix.graphs.process import limit_for

_SETTINGS = "distributed.worker.memory"


@dataclass(frozen=True)
class WorkerMemory:
    """The worker that leaves least memory to its tasks.

    Attributes
    ----------
    limit : int or None
        Its memory limit, bytes; None if no worker is held to one.
    share : float
        Fraction of its limit up to which it works, see `share_of`.
    is_local : bool
        Workers were started by this program, which an option of it shapes.
    """

    limit: int | None = None
    share: float = 1.0
    is_local: bool = True

    def check(self, case_name: str, geometry: Geometry, slab: int) -> None:
        """Refuse a case that the worker would stand still or be ended on.

        Parameters
        ----------
        case_name : str
            Of the case.
        geometry : Geometry
            Of its image.
        slab : int
            Slices of a slab of its images.

        Raises
        ------
        RoomError
            If the memory limit is too small; it says which one is enough.
        """
        if self.limit is None:
            return
        depth, ny, nx = geometry.shape
        task = case_task_bytes(min(slab, depth), ny, nx)
        if self.limit * self.share < least_bytes(task):
            enough = limit_for(enough_bytes(task), self.share)
            raise RoomError(case_name, (ny, nx), self.limit, enough, self.is_local)


def room_on(client: Client | None) -> WorkerMemory:
    """Return the room on the workers of a cluster as they are now; workers are asked for their configuration.

    Where the scheduler does not answer, nothing is known of it, and nothing is refused.
    """
    if client is None or is_closed(client):
        return WorkerMemory()
    is_local = client.cluster is not None
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not any(worker["memory_limit"] for worker in workers.values()):
            return WorkerMemory(is_local=is_local)
        # A function of dask: any worker can do it.
        settings = client.run(dask.config.get, _SETTINGS, None, on_error="return")
    except (OSError, TimeoutError, ClosedClientError):
        return WorkerMemory(is_local=is_local)
    return smallest_room(workers, settings, is_local=is_local)


def smallest_room(
    workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], *, is_local: bool
) -> WorkerMemory:
    """Return the room on that worker of a cluster that leaves least memory to its tasks.

    Parameters
    ----------
    workers : mapping
        What the scheduler says of workers, by address.
    settings : mapping
        What their configurations say under ``distributed.worker.memory``, by address; anything but a mapping stands
        for what this process is configured to.
    is_local : bool
        Workers were started by this program.
    """
    rooms = []
    for address, worker in workers.items():
        memory = settings.get(address)
        share = share_of(
            memory if isinstance(memory, Mapping) else dask.config.get(_SETTINGS), nanny=bool(worker.get("nanny"))
        )
        if worker["memory_limit"] and share is not None:
            rooms.append(WorkerMemory(int(worker["memory_limit"]), share, is_local))
    return min(rooms, key=lambda room: (room.limit or 0) * room.share, default=WorkerMemory(is_local=is_local))


def share_of(memory: Mapping[str, Any], *, nanny: bool) -> float | None:
    """Return the fraction of its limit above which a worker begins no task or is ended; None if neither is so.

    Parameters
    ----------
    memory : mapping
        Configuration of the worker under ``distributed.worker.memory``; fractions that are False are off.
    nanny : bool
        A nanny watches the worker, and ends it.
    """
    fractions = [memory.get("pause"), memory.get("terminate") if nanny else None]
    return min((float(fraction) for fraction in fractions if fraction), default=None)
