"""Client of dask that leaves nothing of itself behind."""

from __future__ import annotations

from typing import Any

import dask
from distributed import Client, default_client


class CleanClient(Client):
    """Client after which dask computes as before, however it ends.

    One that cannot start, or is closed within its ``with`` block, would remain the default of later computations of the
    process, which would fail.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            super().__init__(*args, **options)
        except BaseException:
            self.close()
            raise

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        try:
            default_client()
        except ValueError:
            dask.config.set(scheduler=None)
