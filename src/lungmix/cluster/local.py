"""Local cluster with as many workers as the cores and the memory of the machine allow."""

from __future__ import annotations

import logging
import os
import sys
from multiprocessing import process

import dask
from dask.utils import parse_bytes
from distributed import Client

from lungmix.cluster import machine, main_guard
from lungmix.cluster.client import CleanClient, silenced_logs
from lungmix.cluster.spans import EXTENSIONS
from lungmix.errors import ClusterError, NoGuardError, UsageError
from lungmix.formats.tempdirs import process_temporary_folder
from lungmix.graphs.process import ENOUGH_WORKER_BYTES, KEPT_BYTES, limit_for
from lungmix.home import make_home_known

WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
    "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
    # A worker has one core. With several threads that encode chunks, workers would compete for cores.
    "ZARR_THREADING__MAX_WORKERS": "1",
}
"""Environment variables to start workers with. A local cluster sets them itself."""

WORKER_PRELOAD = "lungmix.stages.preload"
"""Module to preload in workers with ``dask worker --preload``. A local cluster does this itself."""

_SETTINGS = {
    # An address in dask's configuration belongs to another cluster.
    "scheduler-address": None,
    # The cluster communicates over the loopback address only.
    "distributed.comm.default-scheme": "tcp",
    "distributed.comm.require-encryption": None,
    "distributed.scheduler.pickle": True,
    "distributed.scheduler.worker-saturation": 1.0,
    # Scheduler, nannies and workers share the cores. By default each checks its event loop 50 times a second, and a
    # worker samples its stack 100 times a second.
    "distributed.admin.tick.interval": "500ms",
    "distributed.worker.profile.interval": "100ms",
}
_DEFAULT_WORKER_BYTES = 1 << 30
_MIN_WORKER_BYTES = 256 << 20
_WORKER_VARIABLE = "LUNGMIX_WORKER"


def start_local(workers: int | None, memory_limit: str | int | None) -> Client:
    """Start workers on this machine, and connect to them.

    Parameters
    ----------
    workers : int, optional
        Worker processes; by default one per core, or fewer so that each has 1 GiB of memory.
    memory_limit : str or int, optional
        Memory of each worker, such as ``"2GB"``; by default an equal share of the memory that this program may use.

    Raises
    ------
    UsageError
        If a parameter is invalid, or the script is not a file that workers can import.
    NoGuardError
        If the script has no main guard.
    ClusterError
        If workers do not start.
    """
    _check_not_in_worker()
    if main_guard.is_certain():
        raise NoGuardError(_GUARD_MESSAGE)
    if main_guard.is_missing():
        raise UsageError(
            "workers cannot start from a script that is read from the standard input, because Python imports its file: "
            "save it as a file, or give its text to python -c"
        )
    count, limit = _shape(workers, memory_limit)
    make_home_known()
    environment = {**WORKER_ENVIRONMENT, _WORKER_VARIABLE: "1"}
    settings = {"temporary-directory": _temporary_directory(), **_SETTINGS}
    settings |= {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in environment.items()}
    with dask.config.set(settings), silenced_logs():
        try:
            return CleanClient(
                n_workers=count,
                threads_per_worker=1,
                memory_limit=limit,
                preload=[WORKER_PRELOAD],
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.ERROR,
                scheduler_kwargs={"extensions": EXTENSIONS},
            )
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            raise _start_error(error) from None


def _temporary_directory() -> str:
    """Return the folder for files of workers: dask's configured one, or one that is deleted when this process ends."""
    configured = dask.config.get("temporary-directory", None)
    if configured is not None:
        return str(configured)
    # Silence errors at the end of the process, when the folder may be deleted before dask deletes its files in it.
    logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
    return str(process_temporary_folder())


def _shape(workers: int | None, memory_limit: str | int | None) -> tuple[int, int]:
    if workers is not None and workers < 1:
        raise UsageError(f"`workers={workers}` is not possible: give 1 or more")
    memory = int(machine.memory_limit() * 0.9)
    if memory_limit is not None:
        limit = _bytes_of(memory_limit)
        return workers or max(1, min(machine.cpu_count(), memory // limit)), limit
    count = workers or max(1, min(machine.cpu_count(), memory // _DEFAULT_WORKER_BYTES))
    limit = min(memory // count, machine.process_limit() or memory)
    return count, limit


def _bytes_of(text: str | int) -> int:
    try:
        size = int(parse_bytes(text))
    except (ValueError, TypeError):
        raise UsageError(f"`memory_limit={text!r}` is not a size: write it like 2GB") from None
    if size < _MIN_WORKER_BYTES:
        minimum = limit_for(ENOUGH_WORKER_BYTES) / 1e6
        raise UsageError(
            f"`memory_limit={text!r}` is too little for a worker: give at least {minimum:.0f}MB, better 2GB"
        )
    return size


def _check_not_in_worker() -> None:
    """Raise `NoGuardError`, or exit, in a process that is being started as a worker.

    A worker is a new process that first imports the main module of the program.
    """
    if not getattr(process.current_process(), "_inheriting", False):
        return
    if _WORKER_VARIABLE in os.environ:
        sys.exit(1)  # the program that started this worker reports the error
    raise NoGuardError(_GUARD_MESSAGE)


_GUARD_MESSAGE = (
    "workers cannot start, because each of them would run this script from its beginning: put its code under "
    '`if __name__ == "__main__":`'
)


def _start_error(error: Exception) -> ClusterError:
    folder = dask.config.get("temporary-directory", None)
    if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
        return ClusterError(
            f"workers cannot start: {folder}, the temporary-directory of dask's configuration, cannot be written to: "
            "name another folder in DASK_TEMPORARY_DIRECTORY"
        )
    if main_guard.is_likely():
        return NoGuardError(_GUARD_MESSAGE)
    return ClusterError(
        f"workers cannot start ({type(error).__name__}): check the memory, the folder for temporary files, and the "
        "environment variables that begin with DASK_"
    )
