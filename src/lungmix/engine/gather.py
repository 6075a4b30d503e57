"""Compute delayed values on the cluster, watching them finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distributed import Client, as_completed


def gather_small(client: Client, values: Sequence[Any], watch: Callable[[int, int], None] | None = None) -> list[Any]:
    """Results of delayed values, all submitted as one graph.

    Parameters
    ----------
    client : distributed.Client
        Where they are computed.
    values : sequence of Delayed
        Each should end in a small table: the results travel to the client.
    watch : callable, optional
        ``watch(done, total)`` after each.
    """
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
