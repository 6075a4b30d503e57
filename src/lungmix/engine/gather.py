"""Compute delayed values on the cluster, watching them finish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from distributed import Client, as_completed

# What was submitted earlier goes first, over cases too.
_SUBMITTED = count()


def gather_small(client: Client, values: Sequence[Any], watch: Callable[[int, int], None] | None = None) -> list[Any]:
    """Results of delayed values, each worked on before those behind it.

    A scheduler left to itself begins in the middle of a row of slabs and finishes none before all are begun, so that
    a long scan fills the workers. What values share is computed once.

    Parameters
    ----------
    client : distributed.Client
        Where they are computed.
    values : sequence of Delayed
        Each should end in a small table: the results travel to the client.
    watch : callable, optional
        ``watch(done, total)`` after each.
    """
    futures = [client.compute(value, priority=-next(_SUBMITTED)) for value in values]
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
