"""Memory of a worker process besides arrays: part of the memory model, importable without dask.array."""

from __future__ import annotations

INTERPRETER_BYTES = 320 << 20
"""Memory of a worker besides arrays: Python, libraries, compiled kernels, buffers of codecs."""

KEPT_BYTES = 128 << 20
"""Freed memory that the allocator of a worker may keep.

Slabs of megabytes are allocated and freed all the time. Without this memory each allocation faults its pages in, which
takes as long as some kernels; distributed's default setting returns freed memory at once.
"""

LEAST_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + (64 << 20)
"""Memory that any worker needs: the above, and two tasks on slabs of a small scan.

With a lower limit distributed pauses a worker from the start.
"""

COMPILING_BYTES = 256 << 20
"""Additional memory of a worker that compiled kernels itself, as in the first run after an installation."""

ENOUGH_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + COMPILING_BYTES
"""Memory that suffices for small scans, also if the worker compiles kernels."""

PAUSE_SHARE = 0.8
"""Fraction of its limit above which distributed pauses a worker, unless its configuration says otherwise."""

_STEP = 10_000_000


def limit_for(needed: int, share: float = PAUSE_SHARE) -> int:
    """Return the memory limit, bytes, of a worker that may hold `needed` bytes; rounded up to 10 MB.

    Parameters
    ----------
    needed : int
        Bytes.
    share : float
        Fraction of its limit up to which the worker works.
    """
    return -int(-needed / share // _STEP) * _STEP
