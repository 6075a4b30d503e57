"""S3-compatible object stores: addresses, connections, and what to say when they do not answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lungmix.errors import LungmixError, SourceError, StoreError, UsageError, mark_path

if TYPE_CHECKING:
    from obstore.store import S3Store

_REMOTE = re.compile(r"s3://[^/]+(/.*)?", re.DOTALL)
RETRIES = 10
"""So often a request is made again that a server did not answer, or answered with a fault of its own."""

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

    Raises
    ------
    UsageError
        If the endpoint, or another variable, is not understood.
    """
    for name in _ENDPOINTS:
        if endpoint := os.environ.get(name):
            _check_endpoint(name, endpoint)
            return _connected(url, endpoint)
    return _connected(url, None)


def _check_endpoint(name: str, endpoint: str) -> None:
    """Refuse what is no address of a server: the library that is given it ends with a crash."""
    try:
        parts = urlsplit(endpoint)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known or any(c.isspace() or not c.isprintable() for c in endpoint):
        raise UsageError(
            f"{name} is {endpoint!r}, which is not the address of a server: write it like https://HOST or "
            "http://HOST:PORT"
        )


@lru_cache(maxsize=16)
def _connected(url: str, endpoint: str | None) -> S3Store:
    """One a process, so that connections are kept."""
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    config: Any = {}
    options: Any = {"timeout": "120s"}
    retries: Any = {"max_retries": RETRIES}
    if endpoint is not None:
        config["endpoint"] = endpoint
        options["allow_http"] = endpoint.startswith("http://")
    try:
        return S3Store.from_url(url, config=config, client_options=options, retry_config=retries)
    except (BaseError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be reached with the variables of the environment that begin with AWS_ "
            f"({type(error).__name__}): check their values"
        ) from None


@contextmanager
def telling(url: str) -> Iterator[None]:
    """Say in one sentence why a source cannot be read; what the library says quotes the keys of objects."""
    from obstore.exceptions import PreconditionError

    try:
        yield
    except PreconditionError:
        raise SourceError(f"{mark_path(url)} was changed while it was read: run again") from None
    except FileNotFoundError:
        raise SourceError(f"{mark_path(url)} does not exist in its bucket: check the address") from None
    except _failures() as error:
        raise _told(error, SourceError, f"{mark_path(url)} cannot be read") from None


@contextmanager
def telling_of_store(url: str, *, missing: bool = False) -> Iterator[None]:
    """Say in one sentence why a store cannot be read or written.

    Parameters
    ----------
    url : str
        Of the store.
    missing : bool
        What does not exist is the bucket; by default objects may be missing, which is for others to judge.

    Raises
    ------
    StoreError
        In place of every error of the library.
    """
    try:
        yield
    except FileNotFoundError:
        if not missing:
            raise
        raise StoreError(_sentence(f"{url} cannot be reached", "there is no such bucket", _USUAL)) from None
    except _failures() as error:
        raise _told(error, StoreError, f"{url} cannot be reached") from None


def _failures() -> tuple[type[Exception], ...]:
    """All that the library raises on purpose: its own errors, and those of Python that it uses for some."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, NotImplementedError


def _told(error: Exception, kind: type[LungmixError], what: str) -> LungmixError:
    reason, remedy = _kind(error)
    return kind(_sentence(what, reason, remedy))


def _sentence(what: str, reason: str, remedy: str) -> str:
    return f"{what} ({reason}): {remedy}"


_USUAL = "check the bucket, the credentials and AWS_ENDPOINT_URL"
_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_NO_KEYS = (
    "give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to workers too; those of a profile are not looked for"
)
_NO_ANSWER = "check the network, AWS_ENDPOINT_URL, and AWS_REGION"

_CODES = {
    "NoSuchBucket": ("there is no such bucket", _USUAL),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set it, and run again"),
    "RequestExpired": ("the clock of this machine is wrong", "set it, and run again"),
    "ExpiredToken": ("the credentials are no longer valid", _KEYS),
    "InvalidAccessKeyId": ("access is denied: the key is not known", _KEYS),
    "SignatureDoesNotMatch": ("access is denied: the secret key is another one", _KEYS),
    "PermanentRedirect": ("the bucket lies in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "AuthorizationHeaderMalformed": ("the bucket lies in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "incorrectly configured region": ("the bucket lies in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "InvalidBucketName": ("this cannot be the name of a bucket", _USUAL),
    "SlowDown": ("the object store is overloaded", "run again later, with fewer workers"),
}
"""What is seen in the text of an error, with its reason and its remedy; codes are those of S3."""


def _kind(error: Exception) -> tuple[str, str]:
    text = str(error)
    if "169.254." in text:  # asked where there are no others
        return "there are no credentials", _NO_KEYS
    for code, told in _CODES.items():
        if code in text:
            return told
    if isinstance(error, PermissionError) or type(error).__name__ in _DENIED or _has_status(text, 401, 403):
        return "access is denied", _USUAL
    if "credential" in text.lower():
        return "there are no credentials", _NO_KEYS
    if "error sending request" in text or "timed out" in text or "operation timed out" in text:
        return "the object store does not answer", _NO_ANSWER
    if _has_status(text, 500, 502, 503, 504):
        return "the object store reports an internal error", "run again later; finished work is kept"
    if isinstance(error, NotImplementedError):
        return "the object store cannot do what is asked of it", "use one that has conditional writes, as S3 has"
    return f"unexpected {type(error).__name__}", _USUAL


_DENIED = ("PermissionDeniedError", "UnauthenticatedError")


def _has_status(text: str, *codes: int) -> bool:
    return any(f" {code} " in text for code in codes)
