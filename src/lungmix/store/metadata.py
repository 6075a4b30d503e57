"""What the ``zarr.json`` of a cohort or a case must hold, looked at before any of it is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import zarr
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup, Group, GroupMetadata
from zarr.storage import StorePath

from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store.chunking import layout_of

ATTRIBUTE = "lungmix"

MISSING = "is missing"
"""What is wrong with a case of which other objects are left, but no ``zarr.json``."""

_Receipt = Annotated[list[int | str], Field(min_length=2, max_length=2)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Group(_Checked):
    zarr_format: Literal[3]
    node_type: Literal["group"]
    attributes: dict[str, Any] = {}


class _Origin(_Checked):
    key: str = ""
    source: str = ""


class _Record(_Origin):
    files: dict[str, _Receipt] = {}


class _Damaged(_Checked):
    reason: str
    record: _Record


class _Packed(_Checked):
    below_hu: int
    files: dict[str, _Receipt] = {}


class _Case(_Checked):
    geometry: dict[str, Any]
    acquisition: dict[str, Any] = {}
    salt: str = ""
    chunk_slices: int | None = None
    begun: _Origin | None = None
    air: _Packed | None = None
    stages: dict[str, _Record]
    damaged: dict[str, _Damaged] = {}
    failure: dict[str, str] | None = None
    working: dict[str, str] | None = None
    watched: dict[str, dict[str, Any]] = {}


class _Cohort(_Checked):
    format_version: int
    salt: str = Field(default="", pattern="^([0-9a-f]{2})*$")
    highest_number: int = 0
    fits: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    tables: dict[str, list[str]] = {}


def check_cohort_metadata(content: bytes | None) -> str | None:
    """Why the ``zarr.json`` of a store cannot be used, in words that go on after it; None if it can, or is missing."""
    group = None if content is None else _parsed(content)
    if isinstance(group, str):
        return group
    return None if group is None else check_cohort_settings(group.attributes.get(ATTRIBUTE))


def check_cohort_settings(own: Any) -> str | None:
    """The same of the attributes of a store; None of a group that is somebody else's."""
    return None if own is None or _fits(_Cohort, own) else "does not describe a cohort"


def check_case_metadata(content: bytes) -> str | None:
    """Why the ``zarr.json`` of a case cannot be used, in words that go on after it; None if it can."""
    group = _parsed(content)
    if isinstance(group, str):
        return group
    own: Any = group.attributes.get(ATTRIBUTE)
    if not _fits(_Case, own):
        return "does not describe a case"
    try:
        layout_of(Geometry.from_dict(own["geometry"]), own.get("chunk_slices"))
        Acquisition.from_dict(own.get("acquisition", {}))
    except Exception:  # whatever numbers and words stand there
        return "does not describe a scan"
    return None


async def read_cases(group: Group, names: Iterable[str]) -> dict[str, Group | str]:
    """The groups of cases, many at a time; in place of one that cannot be used, what is wrong with it.

    Parameters
    ----------
    group : Group
        The cohort.
    names : iterable of str
        What may be a case. Foreign groups are left out of what is given back; where there is no ``zarr.json`` at all
        that is `MISSING`.
    """
    turn = asyncio.Semaphore(zarr.config.get("async.concurrency"))

    async def read(name: str) -> tuple[str, Group | str | None]:
        async with turn:
            return name, await _read_case(group.store_path / name)

    found = await asyncio.gather(*(read(name) for name in names))
    return {name: one for name, one in found if one is not None}


async def _read_case(place: StorePath) -> Group | str | None:
    buffer = await (place / "zarr.json").get(default_buffer_prototype())
    if buffer is None:
        return MISSING
    content = buffer.to_bytes()
    group = _parsed(content)
    if isinstance(group, _Group) and ATTRIBUTE not in group.attributes:
        return None
    fault = check_case_metadata(content)
    if fault is not None or isinstance(group, str):
        return fault or "cannot be used"
    metadata = GroupMetadata(attributes=group.attributes)
    return Group(AsyncGroup(metadata=metadata, store_path=place))


async def read_bytes(store: Store, key: str) -> bytes | None:
    """Bytes of an object; None if there is none."""
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else buffer.to_bytes()


def _parsed(content: bytes) -> _Group | str:
    if not content.strip():
        return "is empty"
    try:
        return _Group.model_validate_json(content)
    except ValidationError as error:
        broken = error.errors()[0]["type"] == "json_invalid"
        return "is cut short or is not JSON" if broken else "does not describe a group"


def _fits(kind: type[BaseModel], values: Any) -> bool:
    try:
        kind.model_validate(values)
    except ValidationError:
        return False
    return True
