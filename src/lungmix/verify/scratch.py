"""Scratch store: a temporary store for recomputed cases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lungmix.errors import StoreError
from lungmix.formats.tempdirs import temporary_folder
from lungmix.store import Cohort, CohortWriter, open_cohort
from lungmix.store.zarr_store import is_remote


def scratch_url(url: str) -> str:
    """Return the URL of a scratch store: next to a store, or inside it if the store is a whole bucket."""
    suffix = f"verify-{uuid.uuid4().hex[:8]}"
    if not is_remote(url):
        return f"{Path(url).absolute()}.{suffix}"
    stripped = url.rstrip("/")
    # The name begins with a dot, as no name of a case does.
    return f"{stripped}.{suffix}" if "/" in stripped.partition("://")[2] else f"{stripped}/.{suffix}"


@contextmanager
def scratch_store(cohort: Cohort) -> Iterator[Cohort]:
    """Create an empty store next to another one for a ``with`` block, and delete it at the end of the block.

    If the folder of the store is read-only, a temporary folder is used, which only workers on this machine can read.
    """
    url = scratch_url(cohort.url)
    with ExitStack() as stack:
        try:
            scratch = _create(url)
        except (OSError, StoreError):
            if is_remote(url):
                raise
            scratch = _create(str(stack.enter_context(temporary_folder()) / Path(url).name))
        stack.callback(CohortWriter(scratch).delete)
        yield scratch


def _create(url: str) -> Cohort:
    scratch = open_cohort(url, "a")
    CohortWriter(scratch).record_settings(scratch=True)
    return scratch
