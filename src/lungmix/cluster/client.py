"""Client of dask that restores dask's default scheduler when it ends."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, default_client

_DISTRIBUTED = "dask.distributed"


@contextmanager
def silenced_logs() -> Iterator[None]:
    """Hide the logs of distributed within the block; errors are raised there with a remedy and need no log."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class CleanClient(Client):
    """Client after which dask computes as it did before, even if the client fails to start.

    A client of distributed that cannot start, or that is closed within its ``with`` block, remains dask's default
    scheduler, so that all later computations of the process fail.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._earlier_scheduler = dask.config.get("scheduler", None)
        try:
            super().__init__(*args, **options)
        except BaseException:
            with suppress(Exception):  # the client may never have been open; the error of its start says more
                self.close()
            self._restore_scheduler()
            raise

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._restore_scheduler()

    def _restore_scheduler(self) -> None:
        """Restore the default scheduler that dask had before, unless another client is open."""
        with suppress(ValueError):
            default_client()
            return
        if dask.config.get("scheduler", None) == _DISTRIBUTED:
            earlier = self._earlier_scheduler
            dask.config.set(scheduler=None if earlier == _DISTRIBUTED else earlier)
