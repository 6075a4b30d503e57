"""Preload module for workers: ``dask worker --preload lungmix.stages.preload``.

The libraries of the stages take about a second to import. Workers that load them at startup do so in parallel, also to
the client; the first task of each worker is then as fast as the others.
"""

from __future__ import annotations

import gc
from importlib import import_module

from distributed import Worker

_STAGES = ("convert", "mask", "label")


def dask_setup(worker: Worker) -> None:
    """Import the stages; dask calls this when `worker` starts."""
    # Imports create no garbage: collecting during them takes a third of the time. Frozen objects are skipped by later
    # collections and when the process ends.
    gc.disable()
    for stage in _STAGES:
        import_module(f"lungmix.stages.{stage}")
    gc.freeze()
    gc.enable()
