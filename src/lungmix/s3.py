"""S3-compatible object stores: addresses, connections and error messages."""

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
"""Number of retries of a request without a response, or with an internal error of the server."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def is_remote(url: str) -> bool:
    """Return True for an address with a scheme, such as ``s3://``; False for a path."""
    return "://" in url


def is_address(url: str) -> bool:
    """Return True for a supported address: ``s3://bucket``, with or without a prefix."""
    return bool(_REMOTE.fullmatch(url))


def check_address(url: str) -> str:
    """Return the address without trailing slashes.

    Raises
    ------
    UsageError
        If it is not the address of an S3-compatible store.
    """
    if not is_address(url):
        # An address of another kind may hold a password.
        shown = "the address" if "@" in url else url
        raise UsageError(f"{shown} is not understood: give a folder, or s3://BUCKET/PREFIX")
    return url.rstrip("/")


def open_bucket(url: str) -> S3Store:
    """Return the store of the objects under ``s3://bucket/prefix``.

    Credentials, region and endpoint come from the environment, as for other programs: ``AWS_ACCESS_KEY_ID``,
    ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``; workers need them too.

    Raises
    ------
    UsageError
        If the endpoint or another variable is invalid.
    """
    for name in _ENDPOINTS:
        if endpoint := os.environ.get(name):
            _check_endpoint(name, endpoint)
            return _open_store(url, endpoint)
    return _open_store(url, None)


def _check_endpoint(name: str, endpoint: str) -> None:
    """Raise `UsageError` for an endpoint that is not a URL of a server; obstore would crash on it."""
    try:
        parts = urlsplit(endpoint)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or any(c.isspace() or not c.isprintable() for c in endpoint):
        raise UsageError(
            f"{name} is {endpoint!r}, which is not the address of a server: write it like https://HOST or "
            "http://HOST:PORT"
        )


@lru_cache(maxsize=16)
def _open_store(url: str, endpoint: str | None) -> S3Store:
    """Return the store of an address, one per process, so that connections are reused."""
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
            f"{url} cannot be reached with the environment variables that begin with AWS_ "
            f"({type(error).__name__}): check their values"
        ) from None


@contextmanager
def source_errors(url: str) -> Iterator[None]:
    """Raise `SourceError` in place of an error of obstore, whose text contains names of objects."""
    from obstore.exceptions import PreconditionError

    try:
        yield
    except PreconditionError:
        raise SourceError(f"{mark_path(url)} was changed while it was read: run again") from None
    except FileNotFoundError:
        raise SourceError(f"{mark_path(url)} does not exist in its bucket: check the address") from None
    except _library_errors() as error:
        raise _error_from(error, SourceError, f"{mark_path(url)} cannot be read") from None


@contextmanager
def store_errors(url: str, *, missing: bool = False) -> Iterator[None]:
    """Raise `StoreError` in place of an error of obstore.

    Parameters
    ----------
    url : str
        Address of the store.
    missing : bool
        True if a missing object means that the bucket is missing; by default `FileNotFoundError` is passed on.

    Raises
    ------
    StoreError
        In place of any error of obstore.
    """
    try:
        yield
    except FileNotFoundError:
        if not missing:
            raise
        raise StoreError(_message(f"{url} cannot be reached", "there is no such bucket", _CHECK_ACCESS)) from None
    except _library_errors() as error:
        raise _error_from(error, StoreError, f"{url} cannot be reached") from None


def _library_errors() -> tuple[type[Exception], ...]:
    """Return the types of errors that obstore raises: its own types, and some of Python."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, NotImplementedError


def _error_from(error: Exception, error_type: type[LungmixError], subject: str) -> LungmixError:
    reason, remedy = _reason_and_remedy(error)
    return error_type(_message(subject, reason, remedy))


def _message(subject: str, reason: str, remedy: str) -> str:
    return f"{subject} ({reason}): {remedy}"


_CHECK_ACCESS = "check the bucket, the credentials and AWS_ENDPOINT_URL"
_CHECK_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
_GIVE_KEYS = "give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to workers too; those of a profile are not used"
_CHECK_NETWORK = "check the network, AWS_ENDPOINT_URL, and AWS_REGION"

_CODES = {
    "NoSuchBucket": ("there is no such bucket", _CHECK_ACCESS),
    "RequestTimeTooSkewed": ("the clock of this machine is wrong", "set it, and run again"),
    "RequestExpired": ("the clock of this machine is wrong", "set it, and run again"),
    "ExpiredToken": ("the credentials are no longer valid", _CHECK_KEYS),
    "InvalidAccessKeyId": ("access is denied: the key is unknown", _CHECK_KEYS),
    "SignatureDoesNotMatch": ("access is denied: the secret key is wrong", _CHECK_KEYS),
    "PermanentRedirect": ("the bucket is in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "incorrectly configured region": ("the bucket is in another region", "check AWS_REGION and AWS_ENDPOINT_URL"),
    "InvalidBucketName": ("this cannot be the name of a bucket", _CHECK_ACCESS),
    "SlowDown": ("the object store is overloaded", "run again later, with fewer workers"),
}
"""Reason and remedy of an error by a part of its text, which in most cases is an error code of S3."""


def _reason_and_remedy(error: Exception) -> tuple[str, str]:
    text = str(error)
    if "169.254." in text:  # the metadata service, which is queried where there are no other credentials
        return "there are no credentials", _GIVE_KEYS
    for code, reason_and_remedy in _CODES.items():
        if code in text:
            return reason_and_remedy
    if isinstance(error, PermissionError) or type(error).__name__ in _DENIED_ERRORS or _has_status(text, 401, 403):
        return "access is denied", _CHECK_ACCESS
    if "credential" in text.lower():
        return "there are no credentials", _GIVE_KEYS
    if "error sending request" in text or "timed out" in text or "operation timed out" in text:
        return "the object store does not answer", _CHECK_NETWORK
    if _has_status(text, 500, 502, 503, 504):
        return "the object store reports an internal error", "run again later; finished work is kept"
    if isinstance(error, NotImplementedError):
        return "the object store does not support this operation", "use one that has conditional writes, as S3 has"
    return f"unexpected {type(error).__name__}", _CHECK_ACCESS


_DENIED_ERRORS = ("PermissionDeniedError", "UnauthenticatedError")


def _has_status(text: str, *codes: int) -> bool:
    return any(f" {code} " in text for code in codes)
