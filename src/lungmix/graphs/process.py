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
"""Least memory limit that a worker can work with: the above, and two tasks on slabs of a small scan.

A worker with less is paused by distributed, at four fifths of its limit, before it has done anything, and stays so.
"""
