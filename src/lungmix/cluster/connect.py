"""Connection to a local cluster that fits the machine, or to a running cluster."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import dask
from distributed import Client

from lungmix.cluster.client import CleanClient, silenced_logs
from lungmix.cluster.environment import check_cluster
from lungmix.cluster.local import start_local
from lungmix.cluster.reconnect import PATIENCE_S
from lungmix.earlier_names import accepts_earlier_names
from lungmix.errors import ClusterError, UsageError
from lungmix.graphs.process import ENOUGH_WORKER_BYTES, LEAST_WORKER_BYTES, limit_for

_TIMEOUT = 10.0


@accepts_earlier_names(patience="timeout", say="warn")
def connect(
    scheduler: str | None = None,
    *,
    scheduler_file: str | Path | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    timeout: float = PATIENCE_S,
    warn: Callable[[str], None] | None = None,
) -> Client:
    """Connect to a scheduler, or start a local cluster.

    Without any of the first four parameters, the scheduler of dask's configuration is used if it names one, for example
    by the variable ``DASK_SCHEDULER_ADDRESS``; otherwise a local cluster is started. Certificates for ``tls://`` come
    from dask's configuration too, for example from ``DASK_DISTRIBUTED__COMM__TLS__CA_FILE``.

    Parameters
    ----------
    scheduler : str, optional
        Address such as ``tcp://10.0.0.1:8786``.
    scheduler_file : str or Path, optional
        File that a scheduler wrote with ``--scheduler-file``.
    workers : int, optional
        Worker processes of a local cluster; by default one per core, or fewer so that each has 1 GiB of memory.
    memory_limit : str or int, optional
        Memory of each worker process, such as ``"2GB"``; by default an equal share of the machine's memory.
    timeout : float
        Seconds to wait for the first worker of a running scheduler, and later for a scheduler whose connection is lost.
    warn : callable, optional
        Called with a message if dask's configuration chose the scheduler, or while the first worker is waited for.

    Returns
    -------
    distributed.Client
        Client to close, or to use in a ``with`` block. A local cluster ends when it is closed.

    Raises
    ------
    UsageError
        If the options contradict each other.
    ClusterError
        If the scheduler does not answer, no worker joins it, or one of them has incompatible versions of packages.
    """
    if scheduler is not None and scheduler_file is not None:
        raise UsageError("give `scheduler` or `scheduler_file`, not both")
    is_local, is_configured = workers is not None or memory_limit is not None, False
    if scheduler is None and scheduler_file is None and not is_local:
        scheduler = dask.config.get("scheduler-address", None)
        is_configured = scheduler is not None
        if is_configured and warn is not None:
            warn(f"using the scheduler of dask's configuration, {scheduler}; `workers` starts a local cluster instead")
    if scheduler is None and scheduler_file is None:
        return start_local(workers, memory_limit)
    if is_local:
        raise UsageError("`workers` and `memory_limit` configure a local cluster: omit them with a scheduler")
    try:
        client = _connect_existing(scheduler, scheduler_file, timeout)
    except ClusterError as error:
        if not is_configured:
            raise
        raise ClusterError(f"{error}; the address is from dask's configuration, which `workers` ignores") from error
    try:
        _wait_for_worker(client, timeout, warn)
        check_cluster(client)
    except BaseException:
        client.close()
        raise
    return client


def min_worker_memory(client: Client) -> int | None:
    """Return the memory limit of the smallest worker, bytes; None if no worker has a limit."""
    limits = [worker["memory_limit"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    return min((int(limit) for limit in limits if limit), default=None)


def check_memory(client: Client) -> None:
    """Raise an error if a worker has so little memory that distributed would pause it before its first task.

    Raises
    ------
    ClusterError
        If the memory limit of a worker is less than a process with its libraries needs; the message states how much.
    """
    for address, worker in client.scheduler_info(n_workers=-1)["workers"].items():
        limit = int(worker["memory_limit"] or 0)
        if 0 < limit < LEAST_WORKER_BYTES:
            raise ClusterError(
                f"worker {address} has a memory limit of {limit / 1e6:.0f} MB, and a worker needs at least "
                f"{limit_for(ENOUGH_WORKER_BYTES) / 1e6:.0f} MB: start fewer workers with more memory each, such as "
                "`memory_limit='2GB'`"
            )


def _connect_existing(scheduler: str | None, scheduler_file: str | Path | None, timeout: float) -> Client:
    address = scheduler if scheduler is not None else str(scheduler_file)
    if scheduler_file is not None and not Path(scheduler_file).is_file():
        raise ClusterError(
            f"there is no scheduler file {scheduler_file}: start `dask scheduler --scheduler-file` first"
        )
    location: dict[str, str] = {"address": scheduler} if scheduler else {"scheduler_file": str(scheduler_file)}
    try:
        with silenced_logs():
            # A wrong address should be reported soon, whereas the client waits up to `timeout` when it reconnects.
            CleanClient(**location, timeout=_TIMEOUT).close()
            return CleanClient(**location, timeout=max(timeout, _TIMEOUT))
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if _is_secure(address, scheduler_file):
            raise ClusterError(
                f"no secure connection to {address} ({reason}): check the address, and the certificates that dask's "
                "configuration names, such as DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..CLIENT__CERT and ..CLIENT__KEY"
            ) from error
        raise ClusterError(f"no scheduler answers at {address} ({reason}): check the address and start it") from error


def _is_secure(address: str, scheduler_file: str | Path | None) -> bool:
    if scheduler_file is not None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            address = json.loads(Path(scheduler_file).read_text()).get("address", address)
    return address.startswith("tls://")


def _wait_for_worker(client: Client, timeout: float, warn: Callable[[str], None] | None) -> None:
    if client.scheduler_info(n_workers=1)["workers"]:
        return
    address = client.scheduler.address
    if warn is not None:
        warn(f"the scheduler at {address} has no worker yet: waiting {timeout:.0f} s for the first")
    # Submit a task, because an adaptive cluster starts workers only for work. This one needs no lungmix on workers.
    request = client.submit(int, pure=False)
    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError:
        raise ClusterError(
            f"no worker has joined the scheduler at {address} within {timeout:.0f} s: start one with "
            f"`dask worker {address}`, or look at why the queue starts none"
        ) from None
    finally:
        request.release()
