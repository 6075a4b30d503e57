"""The store that holds for a while what is made again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lungmix.errors import StoreError
from lungmix.formats.tempdirs import temporary_folder
from lungmix.store import Cohort, open_cohort
from lungmix.store.zarr_store import is_remote


def scratch_url(url: str) -> str:
    """Where what is made again of a store lies for a while: beside it, or within a bucket that is one store."""
    mark = f"verify-{uuid.uuid4().hex[:8]}"
    if not is_remote(url):
        return f"{Path(url).absolute()}.{mark}"
    bare = url.rstrip("/")
    # No case begins with a point.
    return f"{bare}.{mark}" if "/" in bare.partition("://")[2] else f"{bare}/.{mark}"


@contextmanager
def scratch_store(cohort: Cohort) -> Iterator[Cohort]:
    """An empty store beside another one, which the workers can reach too, for the length of a block.

    Where a folder beside the store cannot be written, it is a temporary one, which workers of this machine can reach.
    """
    url = scratch_url(cohort.url)
    with ExitStack() as stack:
        try:
            scratch = _marked(url)
        except (OSError, StoreError):
            if is_remote(url):
                raise
            scratch = _marked(str(stack.enter_context(temporary_folder()) / Path(url).name))
        stack.callback(scratch.delete)
        yield scratch


def _marked(url: str) -> Cohort:
    scratch = open_cohort(url, "a")
    scratch.record_settings(scratch=True)
    return scratch
