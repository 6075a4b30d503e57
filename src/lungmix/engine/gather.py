"""Compute delayed values on the cluster, watching them finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import dask
from distributed import Client, as_completed

# What was submitted earlier goes first, over cases too.
_SUBMITTED = count()


def gather_small(client: Client, values: Sequence[Any], watch: Callable[[int, int], None] | None = None) -> list[Any]:
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
        ``watch(done, total)`` after each.
    """
    with dask.annotate(priority=order_of(values)):
        futures = client.compute(list(values))
    try:
        for done, _ in enumerate(as_completed(futures), start=1):
            if watch is not None:
                watch(done, len(futures))
        return list(client.gather(futures))
    except BaseException:
        client.cancel(futures)
        raise
    finally:
        for future in futures:
            future.release()


@dataclass(frozen=True)
class Order:
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


def order_of(values: Sequence[Any]) -> Order:
    """The order of values, behind all that were ordered before."""
    ranks: dict[Any, int] = {}
    rank = 0
    for value in values:
        rank = -next(_SUBMITTED)
        for key in value.__dask_graph__():
            ranks.setdefault(key, rank)
    return Order(ranks, rank)
