"""Single-threaded execution for small arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS and OpenMP to one thread.

    On arrays of a few thousand values, several threads spend more time waiting for each other than computing: up to ten
    times as much on a busy machine.
    """
    with _controller().limit(limits=1):
        yield


@cache
def _controller() -> ThreadpoolController:
    # Cache the controller, since searching for the libraries takes longer than a step of a fit.
    return ThreadpoolController()
