"""Client of dask that leaves nothing of itself behind."""

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
    """Hide the logs of distributed within the block, whose errors are raised with their remedy instead."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class CleanClient(Client):
    """Client after which dask computes as before, however it ends.

    One that cannot start, or is closed within its ``with`` block, would remain the default of later computations of the
    process, which would fail.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._earlier_scheduler = dask.config.get("scheduler", None)
        try:
            super().__init__(*args, **options)
        except BaseException:
            with suppress(Exception):  # what was never opened; the error of the start says more
                self.close()
            self._restore_scheduler()
            raise

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._restore_scheduler()

    def _restore_scheduler(self) -> None:
        """Undo the choice of the scheduler, unless another client is open."""
        with suppress(ValueError):
            default_client()
            return
        if dask.config.get("scheduler", None) == _DISTRIBUTED:
            earlier = self._earlier_scheduler
            dask.config.set(scheduler=None if earlier == _DISTRIBUTED else earlier)
