"""One thread for work on small tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread.

    On tables of a few thousand values threads wait for each other longer than they work, and on a busy machine ten
    times as long.
    """
    with _controller().limit(limits=1):
        yield


@cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries takes longer than a step of a fit.
    return ThreadpoolController()
