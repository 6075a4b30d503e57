"""Set up a command that computes: open store and cluster, and create progress, log and performance report."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Thread
from typing import Any

import typer

from lungmix.cli.option_groups import OnCluster
from lungmix.cli.redaction import debugging, printable
from lungmix.cli.spelling import with_options
from lungmix.errors import UsageError

_MANY_CASES = 2_000
"""Workers take some seconds to start, in which the client reads the histograms of about this many cases."""


def announce(chosen: Any, *, yes: bool, quiet: bool) -> None:
    """Print options that are taken from the last run, and results that will be recomputed; on a terminal, ask first.

    Raises
    ------
    UsageError
        If the answer is no.
    """
    if chosen.kept and not quiet:
        typer.echo(f"as in the last run on this store: {'; '.join(chosen.kept)}", err=True)
    show_notes(chosen, quiet=quiet)
    for change in chosen.changes:
        typer.echo(printable(f"warning: {change}"), err=True)
    must_ask = bool(chosen.changes) and not yes and sys.stdin.isatty() and sys.stderr.isatty()
    if must_ask and not typer.confirm("Recompute?", err=True):
        raise UsageError("nothing was changed: omit options that differ from the last run, or give --yes")


def show_notes(chosen: Any, *, quiet: bool) -> None:
    """Print sentences on parameters that follow from other options; with `quiet`, as warnings."""
    for note in chosen.notes:
        typer.echo(f"warning: {note}" if quiet else note, err=True)


@contextmanager
def pipeline_on(
    store: str, cluster: OnCluster, *, create: bool = False, needed: bool = True, reads_histograms: bool = False
) -> Iterator[Any]:
    """Yield a pipeline on the cluster that the options describe; a local cluster ends with the block.

    Parameters
    ----------
    store : str
        Folder or URL, as on the command line.
    cluster : OnCluster
        Options of the cluster.
    create : bool
        Create a missing store.
    needed : bool
        Connect to a cluster. False for commands that only read histograms, which need none.
    reads_histograms : bool
        Connect to a cluster in any case if the store has so many cases that workers read their histograms faster.
    """
    from lungmix.store import CohortWriter, open_cohort

    cohort = open_cohort(store, "a" if create else "r+")
    if not cluster.wait:
        CohortWriter(cohort).check_free()
    needed = needed or (reads_histograms and len(cohort.register) >= _MANY_CASES)
    with cluster_session(cluster, needed=needed) as (client, callback):
        from lungmix.pipeline import Pipeline

        yield Pipeline(client, cohort, callback, cluster.wait)


@contextmanager
def cluster_session(cluster: OnCluster, *, needed: bool = True) -> Iterator[tuple[Any, Any]]:
    """Yield the client of a cluster, or None if no cluster is needed, and a callback that shows progress."""
    from lungmix.callbacks import with_log_file
    from lungmix.cli.progress import callback_for
    from lungmix.cluster import check_memory, connect, dashboard_of, performance_page

    _quiet_dask()
    with with_log_file(callback_for(quiet=cluster.quiet), cluster.log, with_options) as callback:
        if not needed:
            yield None, callback
            return
        with _loading("lungmix.pipeline"):
            client = connect(
                cluster.scheduler,
                scheduler_file=cluster.scheduler_file,
                workers=cluster.workers,
                memory_limit=cluster.memory_limit,
                warn=callback.on_warning,
            )
        try:
            check_memory(client)
            with performance_page(client, cluster.performance_report):
                address = dashboard_of(client)
                if address is not None:
                    callback.on_info(f"dashboard: {address}")
                yield client, callback
        finally:
            client.close()


@contextmanager
def _loading(module: str) -> Iterator[None]:
    """Import a module in another thread while the block runs."""
    thread = Thread(target=_load, args=(module,), name=f"import {module}")
    thread.start()
    try:
        yield
    finally:
        thread.join()  # because a process that exits during an import can crash


def _load(module: str) -> None:
    with suppress(Exception):  # the statement that needs the module will raise the error
        import_module(module)


def _quiet_dask() -> None:
    """Hide logs and tracebacks of distributed from the terminal, because lungmix reports their causes itself."""
    if debugging():
        return
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
