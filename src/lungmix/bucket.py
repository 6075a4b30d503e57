"""S3-compatible object stores: addresses, connections, and what to say when they do not answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lungmix.errors import SourceError, UsageError, named

if TYPE_CHECKING:
    from obstore.store import S3Store

_REMOTE = re.compile(r"s3://[^/]+(/.*)?", re.DOTALL)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def is_remote(url: str) -> bool:
    """Whether an address is that of an object store."""
    return "://" in url


def is_address(url: str) -> bool:
    """Whether an address is one that is read and written: ``s3://bucket``, with or without a prefix."""
    return bool(_REMOTE.fullmatch(url))


def check_address(url: str) -> str:
    """The address without slashes at its end.

    Raises
    ------
    UsageError
        If it is none of an S3-compatible store.
    """
    if not is_address(url):
        raise UsageError(f"{url} is not understood: give a folder, or s3://BUCKET/PREFIX")
    return url.rstrip("/")


def open_bucket(url: str) -> S3Store:
    """The objects under ``s3://bucket/prefix``.

    Credentials, region and endpoint come from the environment, as for other programs: ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``; workers need them too.
    """
    return _connected(url, next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None))


@lru_cache(maxsize=16)
def _connected(url: str, endpoint: str | None) -> S3Store:
    """One a process, so that connections are kept."""
    from obstore.store import S3Store

    config: Any = {}
    options: Any = {"timeout": "120s"}
    if endpoint is not None:
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    return S3Store.from_url(url, config=config, client_options=options)


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Say in one sentence why objects cannot be read; what the library says quotes their keys."""
    from obstore.exceptions import BaseError, PreconditionError

    try:
        yield
    except PreconditionError:
        raise SourceError(f"{named(url)} was changed while it was read: run again") from None
    except FileNotFoundError:
        raise SourceError(f"{named(url)} does not exist in its bucket: check the address") from None
    except (BaseError, PermissionError) as error:
        raise SourceError(
            f"{named(url)} cannot be read ({_kind(error)}): check the bucket, the credentials and AWS_ENDPOINT_URL"
        ) from None


def _kind(error: Exception) -> str:
    text = str(error)
    if "169.254." in text or "credential" in text.lower():
        return "there are no credentials"
    if "NoSuchBucket" in text:
        return "there is no such bucket"
    if isinstance(error, PermissionError) or any(f" {code} " in text for code in (401, 403)):
        return "access is denied"
    if "error sending request" in text:
        return "the object store does not answer"
    return f"unexpected {type(error).__name__}"
