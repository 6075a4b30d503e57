"""Dask's dashboard and performance report."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from distributed import Client, performance_report

from lungmix.errors import UsageError, mark_path


def dashboard_of(client: Client) -> str | None:
    """Return the address of a cluster's dashboard; None if it has none."""
    services = client.scheduler_info(n_workers=0).get("services", {})
    if "dashboard" not in services or (client.cluster is not None and find_spec("bokeh") is None):
        return None
    try:
        return str(client.dashboard_link)
    except (KeyError, IndexError, ValueError):
        # The template of dask's configuration refers to variables that are not set.
        return None


@contextmanager
def performance_page(client: Client, file: Path | None) -> Iterator[None]:
    """Write dask's performance report about the block, with tasks over time, bandwidth and profiles.

    Without a file, nothing is written.

    Raises
    ------
    UsageError
        If bokeh is missing, or the file could not be written.
    """
    if file is None:
        yield
        return
    if find_spec("bokeh") is None:
        raise UsageError("a performance report needs bokeh: install it with `pip install 'lungmix[dashboard]'`")
    try:
        file.touch()
    except OSError as error:
        raise UsageError(
            f"the performance report {mark_path(file)} cannot be written ({error.strerror}): give a file in "
            "a folder that exists"
        ) from error
    # Scripts and styles are in the page itself, so that it opens without a network.
    report = performance_report(str(file), mode="inline")
    with warnings.catch_warnings(action="ignore"), client.as_current(), report:
        yield
