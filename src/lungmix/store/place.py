"""Where a store lies: a folder, or a prefix in an S3-compatible object store."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from lungmix.errors import UsageError

_REMOTE = re.compile(r"s3://[^/]+(/.*)?")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def is_remote(url: str) -> bool:
    """Whether an address is that of an object store."""
    return "://" in url


def zarr_store(url: str) -> Store:
    """The zarr store at an address.

    Parameters
    ----------
    url : str
        Folder, or ``s3://bucket/prefix``. Credentials, region and endpoint come from the environment, as for other
        programs: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``; workers need
        them too.

    Raises
    ------
    UsageError
        If the address is of another kind.
    """
    if not is_remote(url):
        return LocalStore(url)
    if not _REMOTE.fullmatch(url):
        raise UsageError(f"{url} is not understood: give a folder, or s3://BUCKET/PREFIX")
    return _object_store(url.rstrip("/"))


@lru_cache(maxsize=16)
def _object_store(url: str) -> Store:
    """One a process, so that connections are kept."""
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
    config: Any = {}
    options: Any = {"timeout": "120s"}
    if endpoint is not None:
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    return ObjectStore(S3Store.from_url(url, config=config, client_options=options))
