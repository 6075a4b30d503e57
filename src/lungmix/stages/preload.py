"""What a worker can load before it joins: ``dask worker --preload lungmix.stages.preload``.

The libraries of the stages take about a second to import. Workers that load them as they start do so side by side, and
while the client loads its own; the first task of each is then as fast as the others.
"""

from __future__ import annotations

import gc
from importlib import import_module

from distributed import Worker

_STAGES = ("convert", "mask", "label")


def dask_setup(worker: Worker) -> None:
    """Import the stages; dask calls this when `worker` starts."""
    # Nothing of what an import makes is garbage: looking for it takes a third of the time, and again at each collection
    # and when the process ends.
    gc.disable()
    for stage in _STAGES:
        import_module(f"lungmix.stages.{stage}")
    gc.freeze()
    gc.enable()
