"""Requests to a DICOMweb server: queries, metadata and instances, with retries and messages without names.

Imported only where a source is on a DICOMweb server: `dicomweb-client` is an extra.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from requests.auth import AuthBase, HTTPBasicAuth
from requests.utils import get_netrc_auth

from lungmix.errors import SourceError, UsageError, count_of
from lungmix.formats.dicomweb.address import is_loopback
from lungmix.formats.dicomweb.answers import Json, MissingError, UnreachableError, uids_of, value_of
from lungmix.formats.dicomweb.multipart import IncompletePartError, boundary_of, copy_first_part
from lungmix.formats.dicomweb.upload import MultipartFile

T = TypeVar("T")

USER, PASSWORD, TOKEN = "LUNGMIX_DICOMWEB_USER", "LUNGMIX_DICOMWEB_PASSWORD", "LUNGMIX_DICOMWEB_TOKEN"
"""Environment variables with credentials; without them, those of a netrc file are used."""

_TIMEOUT_S = (20, 120)
_DELAYS_S = (0.5, 1.0, 2.0, 4.0)
"""Times between the attempts of a request, so that a server that restarts is waited for."""
_OVERLOADED = (429, 502, 503, 504)
_PASSING = (408, 425, 500, *_OVERLOADED)
"""Statuses of answers after which a request is repeated; the first ones concern all requests."""
_DUPLICATE = 0x0111
"""Failure reason of an object that the server has already (DICOM PS3.18, table I.2-2)."""
_PAGE = 1000
_PIECE_BYTES = 1 << 20
MAX_ANSWER_BYTES = 256 << 20
"""Largest answer to a query; the metadata of a series of 3,000 slices have up to 100 MB."""
_DICOM = 'multipart/related; type="application/dicom"; transfer-syntax=*'

# Their messages quote addresses and queries, which may name patients.
for _name in ("dicomweb_client", "retrying", "urllib3"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class _Session(requests.Session):
    """Session whose queries have ``*`` and ``,`` as they are, because some servers do not decode them."""

    def get(self, url: str | bytes, *, stream: bool = False, **options: Any) -> requests.Response:
        """Send a GET request; without `stream`, the answer must not be larger than `MAX_ANSWER_BYTES`."""
        path, mark, query = str(url).partition("?")
        query = query.replace("+", "%20").replace("%2A", "*").replace("%2C", ",")
        response = super().get(path + mark + query, stream=True, **options)
        if not stream:
            with response:
                content = bytearray()
                for piece in response.iter_content(_PIECE_BYTES):
                    content += piece
                    if len(content) > MAX_ANSWER_BYTES:
                        raise SourceError(
                            f"the server {urlsplit(path).netloc} sends an answer of more than "
                            f"{MAX_ANSWER_BYTES >> 20} MiB: give studies or series one by one"
                        )
            # The whole content, as requests keeps it of answers that are no streams.
            response._content = bytes(content)
        return response


class DicomwebServer:
    """Connection to a DICOMweb server.

    Parameters
    ----------
    base : str
        ``https://HOST/PATH``, where the server has its studies.

    Raises
    ------
    UsageError
        If only one of user name and password is set.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self._session = _Session()
        # A redirection could lead to another server, or to one without encryption.
        self._session.max_redirects = 0
        self._session.trust_env = base.startswith("https://")
        self._session.auth = _credentials_for(base)
        self._client = DICOMwebClient(base, self._session, timeout=_TIMEOUT_S, chunk_size=_PIECE_BYTES)
        # It would send the name of the host without the port.
        self._client.host = urlsplit(base).netloc
        self._client.set_http_retry_params(retry=False)

    def __enter__(self) -> DicomwebServer:
        """Return the connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._session.close()

    def studies(self, query: Mapping[str, str]) -> list[Json]:
        """Return the studies that match a query (QIDO-RS)."""
        return self._all_pages("StudyInstanceUID", partial(self._client.search_for_studies, search_filters=dict(query)))

    def series(self, study: str, query: Mapping[str, str]) -> list[Json]:
        """Return the series of a study that match a query (QIDO-RS)."""
        search = partial(self._client.search_for_series, study, search_filters=dict(query))
        return self._all_pages("SeriesInstanceUID", search)

    def instances(self, study: str, series: str) -> list[Json]:
        """Return the instances of a series (QIDO-RS)."""
        return self._all_pages("SOPInstanceUID", partial(self._client.search_for_instances, study, series))

    def metadata(self, study: str, series: str) -> list[Json]:
        """Return the metadata of all instances of a series (WADO-RS)."""
        return self._list(lambda: self._client.retrieve_series_metadata(study, series))

    def fetch(self, resource: str, file: Path) -> None:
        """Write an instance as the server stores it, in pieces, to a new file (WADO-RS).

        Parameters
        ----------
        resource : str
            ``studies/UID/series/UID/instances/UID``.
        file : Path
            File to write.

        Raises
        ------
        MissingError
            If the server has no such instance.
        SourceError
            If the instance cannot be fetched.
        """
        self._attempt(lambda: self._fetch(resource, file))

    def _fetch(self, resource: str, file: Path) -> None:
        # Pixels that are sent compressed by gzip take the server longer than a network needs.
        headers = {"Accept": _DICOM, "Accept-Encoding": "identity"}
        with self._session.get(f"{self.base}/{resource}", headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            response.raise_for_status()
            boundary = boundary_of(response.headers.get("Content-Type", ""))
            pieces = response.iter_content(_PIECE_BYTES)
            with file.open("wb") as out:
                if boundary is not None:
                    copy_first_part(pieces, boundary, out)
                else:  # some servers send the instance itself
                    for piece in pieces:
                        out.write(piece)

    def store(self, file: Path) -> None:
        """Store a DICOM file, in pieces (STOW-RS); the server may have it already.

        Parameters
        ----------
        file : Path
            The file.

        Raises
        ------
        SourceError
            If the server does not take it.
        """
        answer = self._attempt(lambda: self._store(file))
        uid = str(dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
        if uid in _references(answer, "ReferencedSOPSequence"):
            return
        failures = _references(answer, "FailedSOPSequence")
        reason = failures.get(uid)
        if reason != _DUPLICATE:
            code = "" if reason is None else f" (failure reason {reason:04X})"
            raise SourceError(f"the server {self._host} does not take an object{code}: check its log")

    def check_stored(self, study: str, series: str, instances: Collection[str]) -> None:
        """Raise unless the server lists instances that were stored; some servers take objects and drop them.

        Raises
        ------
        SourceError
            If it does not list one of them, although it had some seconds.
        """
        for delay in (*_DELAYS_S, None):
            missing = set(instances).difference(uids_of(self.instances(study, series), "SOPInstanceUID"))
            if not missing:
                return
            if delay is not None:
                time.sleep(delay)
        raise SourceError(
            f"the server {self._host} took {count_of(len(missing), 'object')} that it does not list: check its rules "
            "for incoming objects, and its log"
        )

    def _store(self, file: Path) -> Json:
        with MultipartFile(file) as body:
            headers = {"Content-Type": body.content_type, "Accept": "application/dicom+json"}
            response = self._session.post(f"{self.base}/studies", data=body, headers=headers, timeout=_TIMEOUT_S)
        # 409: none of the objects was stored, and the answer says why.
        if response.status_code != requests.codes.conflict:
            response.raise_for_status()
        answer = response.json()
        # Some servers send a list, as for queries.
        item = answer[0] if isinstance(answer, list) and answer else answer
        return item if isinstance(item, dict) else {}

    def _all_pages(self, keyword: str, search: Callable[..., Any]) -> list[Json]:
        """Return the results of all pages of a query, by the UID in them; servers may limit the size of a page."""
        results: dict[str, Json] = {}
        while True:
            page = self._list(partial(search, limit=_PAGE, offset=len(results)))
            # A server that does not support offsets sends the same results again.
            uids = [value_of(item, keyword) for item in page]
            new = {uid: item for uid, item in zip(uids, page, strict=True) if uid is not None and uid not in results}
            if not new:
                return list(results.values())
            results |= new

    def _list(self, request: Callable[[], Any]) -> list[Json]:
        answer = self._attempt(request)
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise SourceError(f"the server {self._host} sends no DICOM JSON: check the address, up to /studies")
        return answer

    def _attempt(self, request: Callable[[], T]) -> T:
        """Return the result of a request, which is repeated while the server does not answer or is busy."""
        for delay in (*_DELAYS_S, None):
            try:
                return request()
            except (requests.RequestException, IncompletePartError, ValueError) as error:
                if delay is None or not _is_passing(error):
                    raise self._explained(error) from None
                time.sleep(_retry_after(error, delay))
        raise AssertionError

    @property
    def _host(self) -> str:
        return urlsplit(self.base).netloc

    def _explained(self, error: Exception) -> SourceError:
        """Return the error for a user, without the text of the library, which quotes addresses."""
        server = f"the server {self._host}"
        status = _status_of(error)
        if status in (401, 403):
            return UnreachableError(
                f"{server} denies access: check {USER} and {PASSWORD}, {TOKEN}, or the netrc file, for workers too"
            )
        if status in (404, 410):
            return MissingError(f"{server} has no such study, series or instance: check the address")
        if status in _PASSING:
            kind = UnreachableError if status in _OVERLOADED else SourceError
            return kind(f"{server} reports an internal error (status {status}): run again later; finished work is kept")
        if status is not None:
            return SourceError(f"{server} rejects a request (status {status}): check the address and the query")
        if isinstance(error, requests.TooManyRedirects):
            return UnreachableError(f"{server} redirects to another address: give that address")
        if isinstance(error, requests.exceptions.SSLError):
            return UnreachableError(
                f"{server} has a certificate that is not trusted: set REQUESTS_CA_BUNDLE to the certificates of its "
                "authority, for workers too"
            )
        if isinstance(error, (requests.ConnectionError, requests.Timeout)):
            return UnreachableError(
                f"{server} does not answer: check the address and the network, and run again; finished work is kept"
            )
        if isinstance(error, (IncompletePartError, requests.exceptions.ChunkedEncodingError)):
            return UnreachableError(
                f"{server} ends its answers early: check its log, and run again; finished work is kept"
            )
        return SourceError(f"the server {self._host} sends no DICOM JSON: check the address, up to /studies")


def _references(answer: Json, keyword: str) -> dict[str, int | None]:
    """Return the failure reason, or None, by the UID of each object in a sequence of an answer to STOW-RS."""
    element = answer.get(f"{tag_for_keyword(keyword):08X}")
    items = element.get("Value") if isinstance(element, dict) else None
    reasons: dict[str, int | None] = {}
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            reason = value_of(item, "FailureReason")
            reasons[str(value_of(item, "ReferencedSOPInstanceUID"))] = reason if isinstance(reason, int) else None
    return reasons


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _Nobody(AuthBase):
    """No credentials, not even those of a netrc file."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def _credentials_for(base: str) -> AuthBase:
    """Return the credentials for a server; none where they would be sent over a network without encryption."""
    if base.startswith("http://") and not is_loopback(base):
        return _Nobody()
    user, password, token = (os.environ.get(name) for name in (USER, PASSWORD, TOKEN))
    if token:
        return _Bearer(token)
    if bool(user) != bool(password):
        raise UsageError(f"only one of {USER} and {PASSWORD} is set: set both, or none")
    if user and password:
        return HTTPBasicAuth(user.encode(), password.encode())
    pair = get_netrc_auth(base)
    return HTTPBasicAuth(*pair) if pair else _Nobody()


def _status_of(error: Exception) -> int | None:
    return error.response.status_code if isinstance(error, requests.HTTPError) and error.response is not None else None


def _is_passing(error: Exception) -> bool:
    """Return True for an error that another attempt may not meet."""
    if isinstance(error, requests.HTTPError):
        return _status_of(error) in _PASSING
    if isinstance(error, (requests.exceptions.SSLError, requests.TooManyRedirects)):
        return False
    passing = (
        requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, IncompletePartError,
    )  # fmt: skip
    return isinstance(error, passing)


def _retry_after(error: Exception, delay: float) -> float:
    """Return the seconds to wait: as long as a busy server asks for, at most a minute."""
    response = error.response if isinstance(error, requests.HTTPError) else None
    text = "" if response is None else response.headers.get("Retry-After", "")
    return max(delay, min(float(text), 60.0)) if text.isdecimal() else delay
