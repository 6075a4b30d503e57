"""Computation of delayed values on the cluster, with progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from itertools import count
from typing import Any

import dask
from distributed import Client
from distributed.client import ClosedClientError

from lungmix.cluster.graph_optimization import OptimizedGraph, fuse_and_inline

_POLL_S = 0.05
# Values that were submitted earlier have priority, across cases too.
_SUBMISSIONS = count()


def compute_in_order(
    client: Client, values: Sequence[Any], progress: Callable[[int, int], None] | None = None
) -> list[Any]:
    """Return the results of delayed values, which are computed in the order of the sequence.

    Earlier values have priority over later ones. Without priorities, a scheduler would begin all slabs of a scan before
    it finishes one, and a long scan would fill the memory of workers. All values are submitted as one graph, so that
    tasks that several values depend on are submitted and computed once.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that computes the values.
    values : sequence of Delayed
        Values to compute. Their results must be small, because they are sent to the client.
    progress : callable, optional
        Called as ``progress(done, total)`` when values are finished.
    """
    tasks = fuse_and_inline(values)
    with dask.annotate(priority=task_priorities(tasks)):
        futures = client.compute(tasks.values)
    # This thread polls the futures. A callback per future would switch threads once per future.
    gathering = asyncio.run_coroutine_threadsafe(client.gather(futures, asynchronous=True), client.loop.asyncio_loop)
    done = 0
    try:
        while not gathering.done():
            closed = client.status == "closed"
            wait([gathering], _POLL_S if progress is not None else 1.0)
            if closed and not gathering.done():
                raise ClosedClientError("the client was closed while it waited for results")
            finished = sum(future.done() for future in futures)
            if progress is not None and finished > done:
                done = finished
                progress(done, len(futures))
        return list(gathering.result())
    except BaseException:
        client.cancel(futures)
        raise
    finally:
        for future in futures:
            future.release()


@dataclass(frozen=True)
class TaskPriorities:
    """Priority of each task: the priority of the first value that depends on it.

    Attributes
    ----------
    ranks : dict
        Priority by key of the task.
    last : int
        Priority of tasks whose key is not in `ranks`.
    """

    ranks: dict[Any, int]
    last: int

    def __call__(self, key: Any) -> int:
        """Return the priority of a task."""
        return self.ranks.get(key, self.last)


def task_priorities(tasks: OptimizedGraph) -> TaskPriorities:
    """Return priorities of all tasks of a graph, lower than all priorities that earlier calls returned."""
    ranks: dict[Any, int] = {}
    rank = 0
    for key in tasks.keys:
        rank = -next(_SUBMISSIONS)
        pending = [key]
        while pending:
            dependency = pending.pop()
            if dependency not in ranks:
                ranks[dependency] = rank
                pending += tasks.graph[dependency].dependencies
    return TaskPriorities(ranks, rank)
