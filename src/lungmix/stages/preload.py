"""Preload module for workers: ``dask worker --preload lungmix.stages.preload``.

The libraries of the stages take about a second to import. With this module, workers import them at startup, at the same
time as each other and as the client, and their first task is as fast as later ones.
"""

from __future__ import annotations

import gc
from importlib import import_module

from distributed import Worker

_STAGES = ("convert", "mask", "label")


def dask_setup(worker: Worker) -> None:
    """Import the stages; dask calls this when `worker` starts."""
    # Imports create no garbage, but searching for it takes a third of their time, so collection is off meanwhile.
    # Later collections, and the end of the process, skip frozen objects.
    gc.disable()
    for stage in _STAGES:
        import_module(f"lungmix.stages.{stage}")
    gc.freeze()
    gc.enable()
