"""Memory of a worker process in addition to arrays.

This part of the memory model is a module of its own, because workers import it before they need dask.array.
"""

from __future__ import annotations

INTERPRETER_BYTES = 320 << 20
"""Memory of a worker in addition to arrays: Python, libraries, compiled kernels, buffers of codecs."""

KEPT_BYTES = 128 << 20
"""Freed memory that the allocator of a worker may keep instead of returning it to the operating system.

Workers allocate and free slabs of megabytes all the time. With the default setting of distributed, freed memory is
returned at once. Then the pages of each new allocation are mapped again, which takes as long as some kernels.
"""

LEAST_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + (64 << 20)
"""Smallest memory of a worker: the memory in addition to arrays, the freed memory, and two tasks on a small scan.

With a lower limit, distributed pauses a worker as soon as it starts.
"""

COMPILING_BYTES = 256 << 20
"""Memory that a worker needs in addition if it compiles kernels, as in the first run after an installation."""

ENOUGH_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + COMPILING_BYTES
"""Memory that suffices for small scans even if the worker compiles kernels."""

PAUSE_SHARE = 0.8
"""Fraction of the memory limit of a worker above which distributed pauses the worker, by its default configuration."""

_STEP = 10_000_000


def limit_for(needed: int, share: float = PAUSE_SHARE) -> int:
    """Return the memory limit, in bytes, of a worker that can hold `needed` bytes without being paused.

    The limit is rounded up to a multiple of 10 MB.

    Parameters
    ----------
    needed : int
        Memory that the worker needs, in bytes.
    share : float
        Fraction of its limit above which the worker is paused.
    """
    return -int(-needed / share // _STEP) * _STEP
