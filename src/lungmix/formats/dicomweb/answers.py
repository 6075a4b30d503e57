"""Answers of a DICOMweb server, and the errors of requests to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.datadict import tag_for_keyword

from lungmix.errors import SourceError

Json = dict[str, Any]
"""Attributes as DICOM JSON (DICOM PS3.18, annex F)."""


class UnreachableError(SourceError):
    """The server does not answer, or rejects the credentials, so that other requests would fail too."""


class MissingError(SourceError):
    """The server has no such study, series or instance."""


def value_of(item: Json, keyword: str) -> Any:
    """Return the first value of an attribute; None if it has none."""
    element = item.get(f"{tag_for_keyword(keyword):08X}")
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def uids_of(items: Iterable[Json], keyword: str) -> Iterator[str]:
    """Yield the UIDs of search results."""
    for item in items:
        if isinstance(uid := value_of(item, keyword), str):
            yield uid
