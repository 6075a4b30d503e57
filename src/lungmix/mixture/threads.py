"""Single-threaded execution for small arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread.

    With arrays of a few thousand values threads spend more time synchronizing than working, on a busy machine up to
    ten times as much.
    """
    with _controller().limit(limits=1):
        yield


@cache
def _controller() -> ThreadpoolController:
    # Cached, since searching for the libraries takes longer than a step of a fit.
    return ThreadpoolController()
