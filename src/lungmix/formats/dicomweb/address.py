"""Addresses of DICOMweb servers, as users write them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, urlsplit

from pydicom.datadict import tag_for_keyword

from lungmix.errors import UsageError

PLAIN_HTTP = "LUNGMIX_DICOMWEB_PLAIN_HTTP"
"""Environment variable that allows connections without encryption to other machines."""

_PREFIX = "dicomweb+"
_RESOURCE = re.compile(r"(.*?)(?:/studies/([^/]+)(?:/series/([^/]+))?)?")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_MAX_UID_LENGTH = 64
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_FORM = "write it like dicomweb+https://HOST/dicom-web, with /studies/UID, /series/UID or ?PatientID=ID after it"

# Attributes that servers match when they search for series; others are matched when they search for studies.
_OF_SERIES = (
    "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "BodyPartExamined", "ProtocolName",
    "PerformedProcedureStepStartDate", "StationName", "Manufacturer", "ManufacturerModelName",
)  # fmt: skip


@dataclass(frozen=True, repr=False)
class Address:
    """Address of studies on a DICOMweb server; `repr` shows no names.

    Attributes
    ----------
    base : str
        ``https://HOST/PATH``, where the server has its studies.
    study, series : str or None
        UIDs of the only study or series.
    study_query, series_query : dict of str to str
        Values that studies and series have to match, by keyword or tag.
    """

    base: str
    study: str | None
    series: str | None
    study_query: dict[str, str]
    series_query: dict[str, str]

    def __repr__(self) -> str:
        return "<Address of a DICOMweb server>"

    @property
    def text(self) -> str:
        """Address without the query, which may name a patient."""
        parts = [f"{_PREFIX}{self.base}"]
        if self.study is not None:
            parts += ["studies", self.study]
        if self.series is not None:
            parts += ["series", self.series]
        return "/".join(parts)


def is_dicomweb(text: str) -> bool:
    """Return True for the address of a DICOMweb server."""
    return text.startswith(_PREFIX)


def is_uid(text: object) -> bool:
    """Return True for a DICOM UID."""
    return isinstance(text, str) and len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def is_loopback(base: str) -> bool:
    """Return True if the host of a URL is this machine itself."""
    host = urlsplit(base).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_address(text: str) -> Address:
    """Return the address that a user gave.

    Raises
    ------
    UsageError
        If it is not understood, holds a password, or would be read without encryption; the message does not quote it.
    """
    try:
        parts = urlsplit(text.removeprefix(_PREFIX))
        port = parts.port
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _not_understood() from None
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "the address of a DICOMweb server must not hold a user name or a password: set LUNGMIX_DICOMWEB_USER and "
            "LUNGMIX_DICOMWEB_PASSWORD, or write them to a netrc file"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.fragment or port == 0:
        raise _not_understood()
    if any(not c.isprintable() or c.isspace() for c in text):
        raise _not_understood()
    match = _RESOURCE.fullmatch(parts.path.rstrip("/"))
    assert match is not None
    path, study, series = match.groups()
    if {"studies", "series", ".", ".."} & set(path.split("/")) or not all(
        is_uid(uid) for uid in (study, series) if uid is not None
    ):
        raise _not_understood()
    base = f"{parts.scheme}://{_host_and_port(parts)}{path}"
    if parts.scheme == "http" and not is_loopback(base) and os.environ.get(PLAIN_HTTP) != "allow":
        raise UsageError(
            "scans would be sent over the network without encryption: use dicomweb+https://, or set "
            f"{PLAIN_HTTP}=allow, which sends no password"
        )
    query: dict[str, str] = {}
    for name, value in pairs:
        if tag_for_keyword(name) is None and not _TAG.fullmatch(name):
            raise UsageError(
                "the query of a DICOMweb address has a name that is no DICOM attribute: use keywords, such as "
                "PatientID, StudyDate or Modality"
            )
        query[name] = value
    of_series = {name: value for name, value in query.items() if name in _OF_SERIES}
    of_study = {name: value for name, value in query.items() if name not in _OF_SERIES}
    if (of_study and study is not None) or (of_series and series is not None):
        raise UsageError(
            "the address of a single study or series takes no query about it: omit the query, or /studies/UID"
        )
    return Address(base, study, series, of_study, of_series)


def _host_and_port(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    default = 443 if parts.scheme == "https" else 80
    return host if parts.port in (None, default) else f"{host}:{parts.port}"


def _not_understood() -> UsageError:
    return UsageError(f"the address of a DICOMweb server is not understood: {_FORM}")
