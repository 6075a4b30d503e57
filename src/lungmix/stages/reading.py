"""Tasks that read sources, which are scans and mask files, on a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from distributed import Client

from lungmix.errors import REPORT_IT, LungmixError, SourceError, error_about, mark_path, mark_untrusted

T = TypeVar("T")


class Readable(Protocol):
    """Interface of a source that a task reads.

    Its `repr` must show no names of files, because workers log the arguments of failed tasks.
    """

    @property
    def path(self) -> str:
        """Path or address, for messages."""


def read_on_worker(client: Client, task: Callable[..., T], source: Readable, *inputs: Any) -> T:
    """Return the result of a task that reads a source on a worker.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster.
    task : callable
        Called on the worker as ``task(source, *inputs)``.
    source : Readable
        A scan or a mask file.
    *inputs
        Further arguments of the task.

    Raises
    ------
    SourceError
        If the source cannot be read.
    """
    result = client.submit(run_or_return_error, task, source, *inputs, pure=False, retries=2).result()
    if isinstance(result, SourceError):
        with error_about(path=source.path):
            raise result
    return result


def run_or_return_error(task: Callable[..., T], source: Readable, *inputs: Any) -> T | SourceError:
    """Return the result of a task, or the `SourceError` that it raised; a worker would log and repeat a failed task."""
    try:
        return task(source, *inputs)
    except SourceError as error:
        return error
    except (LungmixError, OSError, MemoryError):
        raise
    except Exception as error:
        # Workers log what a task raises, and messages of other libraries may quote the header.
        raise SourceError(
            f"{mark_path(source.path)} cannot be read (unexpected {type(error).__name__}: {mark_untrusted(error)}): "
            + REPORT_IT
        ) from error
