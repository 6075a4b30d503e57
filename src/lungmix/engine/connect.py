"""A `dask.distributed` client: on a local cluster that fits the machine, or on a cluster that runs already."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed import Client
from distributed.system import MEMORY_LIMIT

from lungmix.engine.spans import EXTENSIONS
from lungmix.engine.trouble import PATIENCE_S
from lungmix.engine.versions import check_cluster
from lungmix.errors import ClusterError, UsageError
from lungmix.graphs.process import KEPT_BYTES

WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(KEPT_BYTES),
    "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
    # A worker has one core; chunks are coded by one thread, or workers would take it from each other.
    "ZARR_THREADING__MAX_WORKERS": "1",
}
"""Variables that the processes of workers should be started with; those of a local cluster are."""

WORKER_PRELOAD = "lungmix.stages.preload"
"""Module that workers can load before they join, with ``dask worker --preload``; those of a local cluster do."""

_SETTINGS = {
    "distributed.scheduler.worker-saturation": 1.0,
    # Scheduler, nannies and workers share the cores. By default each looks at its event loop 50 times a second, and a
    # worker at its stack 100 times.
    "distributed.admin.tick.interval": "500ms",
    "distributed.worker.profile.interval": "100ms",
}
_LEAST_MEMORY = 1 << 30
_TIMEOUT = 10.0


def connect(
    scheduler: str | None = None,
    *,
    scheduler_file: str | Path | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    patience: float = PATIENCE_S,
    say: Callable[[str], None] | None = None,
) -> Client:
    """Connect to a scheduler, or start a local cluster.

    Certificates for ``tls://`` come from dask's configuration, such as ``DASK_DISTRIBUTED__COMM__TLS__CA_FILE``.

    Parameters
    ----------
    scheduler : str, optional
        Address such as ``tcp://10.0.0.1:8786``.
    scheduler_file : str or Path, optional
        File that a scheduler wrote with ``--scheduler-file``.
    workers : int, optional
        Processes of a local cluster; by default one a core, fewer where memory is short.
    memory_limit : str or int, optional
        Memory of each of them, such as ``"2GB"``; by default an equal share of the machine's.
    patience : float
        Seconds to wait for the first worker of a scheduler that has none yet, and for a scheduler that is lost later.
    say : callable, optional
        Told what is waited for.

    Returns
    -------
    distributed.Client
        Close it, or use it in a ``with`` block; a local cluster ends with it.

    Raises
    ------
    UsageError
        If the options contradict each other.
    ClusterError
        If the scheduler does not answer, no worker joins it, or they have another environment than this program.
    """
    if scheduler is not None and scheduler_file is not None:
        raise UsageError("give --scheduler or --scheduler-file, not both")
    if scheduler is not None or scheduler_file is not None:
        if workers is not None or memory_limit is not None:
            raise UsageError("--workers and --memory-limit shape a local cluster: leave them out with a scheduler")
        client = _existing(scheduler, scheduler_file, patience)
        try:
            _wait_for_worker(client, patience, say)
            check_cluster(client)
        except BaseException:
            client.close()
            raise
        return client
    return _local(workers, memory_limit)


def least_memory(client: Client) -> int | None:
    """Memory limit of the smallest worker, bytes; None if no worker has one."""
    limits = [worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    return min((int(limit) for limit in limits if limit), default=None)


def _existing(scheduler: str | None, scheduler_file: str | Path | None, patience: float) -> Client:
    where = scheduler if scheduler is not None else str(scheduler_file)
    if scheduler_file is not None and not Path(scheduler_file).is_file():
        raise ClusterError(
            f"there is no scheduler file {scheduler_file}: start `dask scheduler --scheduler-file` first"
        )
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        where_it_is: dict[str, str] = {"address": scheduler} if scheduler else {"scheduler_file": str(scheduler_file)}
        # An address that is wrong should be told soon; but a client waits as long for a scheduler that is lost later.
        Client(**where_it_is, timeout=_TIMEOUT).close()
        client = Client(**where_it_is, timeout=max(patience, _TIMEOUT))
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if _is_secure(where, scheduler_file):
            raise ClusterError(
                f"no secure connection to {where} ({reason}): check the address, and the certificates that dask's "
                "configuration names, such as DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..CLIENT__CERT and ..CLIENT__KEY"
            ) from error
        raise ClusterError(f"no scheduler answers at {where} ({reason}): check the address and start it") from error
    finally:
        logger.setLevel(level)
    return client


def _is_secure(where: str, scheduler_file: str | Path | None) -> bool:
    if scheduler_file is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            where = json.loads(Path(scheduler_file).read_text()).get("address", where)
    return where.startswith("tls://")


def _wait_for_worker(client: Client, patience: float, say: Callable[[str], None] | None) -> None:
    if client.scheduler_info(n_workers=1)["workers"]:
        return
    address = client.scheduler.address
    if say is not None:
        say(f"the scheduler at {address} has no worker yet: waiting {patience:.0f} s for the first")
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError:
        raise ClusterError(
            f"no worker has joined the scheduler at {address} within {patience:.0f} s: start one with "
            f"`dask worker {address}`, or look at why the queue starts none"
        ) from None


def _local(workers: int | None, memory_limit: str | int | None) -> Client:
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers} is not possible: give 1 or more")
    if memory_limit is None:
        count = workers or max(1, min(CPU_COUNT, int(MEMORY_LIMIT * 0.9) // _LEAST_MEMORY))
        limit = int(MEMORY_LIMIT * 0.9) // count
    else:
        limit = _bytes_of(memory_limit)
        count = workers or max(1, min(CPU_COUNT, int(MEMORY_LIMIT * 0.9) // limit))
    with dask.config.set(
        {
            **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in WORKER_ENVIRONMENT.items()},
            **_SETTINGS,
        }
    ):
        return Client(
            n_workers=count,
            threads_per_worker=1,
            memory_limit=limit,
            preload=[WORKER_PRELOAD],
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
            scheduler_kwargs={"extensions": EXTENSIONS},
        )


def _bytes_of(text: str | int) -> int:
    try:
        size = int(parse_bytes(text))
    except (ValueError, TypeError):
        raise UsageError(f"--memory-limit {text} is not a size: write it like 2GB") from None
    if size < 256 << 20:
        raise UsageError(f"--memory-limit {text} is too little for a worker: give at least 512MB, better 2GB")
    return size
