"""Compute delayed values on the cluster, watching them finish."""

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

_LOOK_S = 0.05
# What was submitted earlier goes first, over cases too.
_SUBMITTED = count()


def compute_in_order(
    client: Client, values: Sequence[Any], watch: Callable[[int, int], None] | None = None
) -> list[Any]:
    """Results of delayed values, each worked on before those behind it.

    A scheduler left to itself begins in the middle of a row of slabs and finishes none before all are begun, so that
    a long scan fills the workers. What values share is computed once. All travel as one graph: a submission of its own
    for each value, with all that the value shares with others, takes longer than the scheduler's work.

    Parameters
    ----------
    client : distributed.Client
        Where they are computed.
    values : sequence of Delayed
        Each should end in a small table: the results travel to the client.
    watch : callable, optional
        ``watch(done, total)`` as they finish.
    """
    tasks = fuse_and_inline(values)
    with dask.annotate(priority=order_of(tasks)):
        futures = client.compute(tasks.values)
    # One thread asks now and then how many are there: to be told of each would cost a switch of threads every time.
    gathering = asyncio.run_coroutine_threadsafe(client.gather(futures, asynchronous=True), client.loop.asyncio_loop)
    done = 0
    try:
        while not gathering.done():
            closed = client.status == "closed"
            wait([gathering], _LOOK_S if watch is not None else 1.0)
            if closed and not gathering.done():
                raise ClosedClientError("the client was closed while it waited for results")
            finished = sum(future.done() for future in futures)
            if watch is not None and finished > done:
                done = finished
                watch(done, len(futures))
        return list(gathering.result())
    except BaseException:
        client.cancel(futures)
        raise
    finally:
        for future in futures:
            future.release()


@dataclass(frozen=True)
class TaskPriorities:
    """Priority of each task: that of the first value which needs it.

    Attributes
    ----------
    ranks : dict
        By key.
    last : int
        Of keys that are not known.
    """

    ranks: dict[Any, int]
    last: int

    def __call__(self, key: Any) -> int:
        """Answers the scheduler."""
        return self.ranks.get(key, self.last)


def order_of(tasks: OptimizedGraph) -> TaskPriorities:
    """The order of values, behind all that were ordered before."""
    ranks: dict[Any, int] = {}
    rank = 0
    for key in tasks.keys:
        rank = -next(_SUBMITTED)
        todo = [key]
        while todo:
            one = todo.pop()
            if one not in ranks:
                ranks[one] = rank
                todo += tasks.graph[one].dependencies
    return TaskPriorities(ranks, rank)
