"""What the process of a worker holds besides arrays: part of the memory model, asked for before dask's arrays load."""

from __future__ import annotations

INTERPRETER_BYTES = 320 << 20
"""What a worker holds besides arrays: Python, the libraries, compiled kernels, buffers of codecs."""

KEPT_BYTES = 128 << 20
"""Freed memory that the allocator of a worker may keep.

Slabs come and go by the megabyte. Kept, they are not faulted in page by page each time, which takes as long as some
kernels do; distributed's own setting gives everything back at once.
"""

LEAST_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + (64 << 20)
"""Memory that any worker needs: the above, and two tasks on slabs of a small scan.

Distributed pauses a worker with a limit of less before it has done anything, and it stays so.
"""

COMPILING_BYTES = 256 << 20
"""What a worker holds besides if it compiled kernels itself, as in the first run after an installation."""

ENOUGH_WORKER_BYTES = INTERPRETER_BYTES + KEPT_BYTES + COMPILING_BYTES
"""Memory that is enough for small scans, whether kernels were compiled before or not."""

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
