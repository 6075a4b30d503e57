"""Memory that workers have for tasks. Cases that need more are rejected before work on them begins."""

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
from lungmix.graphs.memory import enough_bytes, label_task_bytes, least_bytes
from lungmix.graphs.process import limit_for

_SETTINGS = "distributed.worker.memory"


@dataclass(frozen=True)
class WorkerMemory:
    """Memory of the worker of a cluster that has the least memory for tasks.

    Attributes
    ----------
    limit : int or None
        Memory limit of the worker, bytes; None if no worker has a limit.
    share : float
        Fraction of the limit that tasks can use, see `usable_fraction`.
    is_local : bool
        True if this program started the workers, so that its parameters set their memory.
    """

    limit: int | None = None
    share: float = 1.0
    is_local: bool = True

    def check(self, case_name: str, geometry: Geometry, slab: int) -> None:
        """Raise `RoomError` for a case that would pause the worker or exceed its memory limit.

        Parameters
        ----------
        case_name : str
            Name of the case.
        geometry : Geometry
            Geometry of the image of the case.
        slab : int
            Slices per slab of the images of the case.

        Raises
        ------
        RoomError
            If the memory limit is too small; the message states a sufficient one.
        """
        if self.limit is None:
            return
        depth, ny, nx = geometry.shape
        thinnest = min(slab, depth)
        # Packed slabs of the mask need less than the voxels of labels.
        task_bytes = label_task_bytes(thinnest, thinnest, ny, nx)
        if self.limit * self.share < least_bytes(task_bytes):
            enough = limit_for(enough_bytes(task_bytes), self.share)
            raise RoomError(case_name, (ny, nx), self.limit, enough, self.is_local)


def worker_memory_of(client: Client | None) -> WorkerMemory:
    """Return the memory of the worker of a cluster that has the least memory for tasks, by its configuration.

    If the scheduler does not answer, the memory is unknown, and no case is rejected.
    """
    if client is None or is_closed(client):
        return WorkerMemory()
    is_local = client.cluster is not None
    try:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not any(worker["memory_limit"] for worker in workers.values()):
            return WorkerMemory(is_local=is_local)
        # A function of dask: workers without lungmix can run it too.
        settings = client.run(dask.config.get, _SETTINGS, None, on_error="return")
    except (OSError, TimeoutError, ClosedClientError):
        return WorkerMemory(is_local=is_local)
    return smallest_worker_memory(workers, settings, is_local=is_local)


def smallest_worker_memory(
    workers: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], *, is_local: bool
) -> WorkerMemory:
    """Return the memory of the worker with the least memory for tasks, from descriptions of all workers.

    Parameters
    ----------
    workers : mapping
        For each address of a worker, its description by the scheduler.
    settings : mapping
        For each address, the configuration ``distributed.worker.memory`` of the worker. If it is not a mapping, the
        configuration of this process is used in its place.
    is_local : bool
        True if this program started the workers.
    """
    memories = []
    for address, worker in workers.items():
        configuration = settings.get(address)
        share = usable_fraction(
            configuration if isinstance(configuration, Mapping) else dask.config.get(_SETTINGS),
            nanny=bool(worker.get("nanny")),
        )
        if worker["memory_limit"] and share is not None:
            memories.append(WorkerMemory(int(worker["memory_limit"]), share, is_local))
    return min(
        memories,
        key=lambda candidate: (candidate.limit or 0) * candidate.share,
        default=WorkerMemory(is_local=is_local),
    )


def usable_fraction(configuration: Mapping[str, Any], *, nanny: bool) -> float | None:
    """Return the fraction of its memory limit above which a worker is paused or ended; None if neither is configured.

    Parameters
    ----------
    configuration : mapping
        Configuration of the worker under ``distributed.worker.memory``; False disables a fraction.
    nanny : bool
        True if the worker has a nanny, which ends it above the fraction ``terminate``.
    """
    fractions = [configuration.get("pause"), configuration.get("terminate") if nanny else None]
    return min((float(fraction) for fraction in fractions if fraction), default=None)
