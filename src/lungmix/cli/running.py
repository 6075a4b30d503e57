"""The pipeline that a command works with: store, cluster, progress, log and performance report."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

from rich.console import Console

from lungmix.cli.names import debugging


@contextmanager
def pipeline_on(
    store: str,
    scheduler: str | None,
    scheduler_file: Path | None,
    workers: int | None,
    memory_limit: str | None,
    *,
    quiet: bool,
    wait: bool,
    create: bool = False,
    needed: bool = True,
    log: Path | None = None,
    performance: Path | None = None,
) -> Iterator[Any]:
    """A pipeline on the cluster that the options name; a local cluster ends with the block.

    Parameters
    ----------
    store, scheduler, scheduler_file, workers, memory_limit
        As on the command line.
    quiet : bool
        No progress.
    wait : bool
        For another run on this store.
    create : bool
        Make the store where there is none.
    needed : bool
        Whether there is work for a cluster.
    log, performance : Path, optional
        Files for events as JSON and for dask's report.
    """
    from lungmix.cli.progress import listener_for
    from lungmix.engine import connect, dashboard_of, logged, performance_page
    from lungmix.store import open_cohort

    _quiet_dask()
    cohort = open_cohort(store, "a" if create else "r+")
    if not wait:
        cohort.check_free()
    with logged(listener_for(Console(stderr=True), quiet=quiet), log) as listener:
        if not needed:
            # Counts are small tables: no cluster is started for them.
            from lungmix.pipeline import Pipeline

            yield Pipeline(None, cohort, listener, wait)
            return
        with _loading("lungmix.pipeline"):
            client = connect(
                scheduler, scheduler_file=scheduler_file, workers=workers, memory_limit=memory_limit, say=listener.say
            )
        try:
            from lungmix.pipeline import Pipeline

            with performance_page(client, performance):
                address = dashboard_of(client)
                if address is not None:
                    listener.say(f"dashboard: {address}")
                yield Pipeline(client, cohort, listener, wait)
        finally:
            client.close()


@contextmanager
def _loading(module: str) -> Iterator[None]:
    """Import a module while the block waits for others."""
    thread = Thread(target=_load, args=(module,), name=f"import {module}")
    thread.start()
    try:
        yield
    finally:
        thread.join()  # a process that ends amid an import can crash


def _load(module: str) -> None:
    with suppress(Exception):  # who needs the module meets the error in its own thread
        import_module(module)


def _quiet_dask() -> None:
    """Keep what distributed logs, tracebacks among it, from a terminal; what matters of it is said in a sentence."""
    if debugging():
        return
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
