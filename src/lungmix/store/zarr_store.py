"""Zarr stores by address: a folder, or a prefix in an S3-compatible object store."""

from __future__ import annotations

from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore

from lungmix.s3 import check_address, is_remote, open_bucket
from lungmix.store.remote import BucketStore

__all__ = ["is_remote", "zarr_store"]


def zarr_store(url: str) -> Store:
    """Open the zarr store at an address.

    Parameters
    ----------
    url : str
        Folder, or ``s3://bucket/prefix``. Credentials, region and endpoint are read from the usual environment
        variables: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``; workers need
        them too.

    Raises
    ------
    UsageError
        If the address is invalid, or the environment variables name no server.
    """
    if not is_remote(url):
        # The path is made absolute, as arrays are sent to workers with other working directories.
        return LocalStore(Path(url).absolute())
    return BucketStore(open_bucket(check_address(url)))
