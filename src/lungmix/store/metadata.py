"""Validation of the ``zarr.json`` of a cohort or a case before it is used."""

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
"""Fault of a case that has other objects but no ``zarr.json``."""

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
    """Return the fault of the ``zarr.json`` of a store, as a predicate; None if it is valid or missing."""
    group = None if content is None else _parse(content)
    if isinstance(group, str):
        return group
    return None if group is None else check_cohort_settings(group.attributes.get(ATTRIBUTE))


def check_cohort_settings(attributes: Any) -> str | None:
    """Return the fault of the attributes of a store, as a predicate; None if they are valid or missing."""
    return None if attributes is None or _is_valid(_Cohort, attributes) else "does not describe a cohort"


def check_case_metadata(content: bytes) -> str | None:
    """Return the fault of the ``zarr.json`` of a case, as a predicate; None if it is valid."""
    group = _parse(content)
    if isinstance(group, str):
        return group
    attributes: Any = group.attributes.get(ATTRIBUTE)
    if not _is_valid(_Case, attributes):
        return "does not describe a case"
    try:
        layout_of(Geometry.from_dict(attributes["geometry"]), attributes.get("chunk_slices"))
        Acquisition.from_dict(attributes.get("acquisition", {}))
    except Exception:  # values of any kind may be stored there
        return "does not describe a scan"
    return None


async def read_cases(group: Group, names: Iterable[str]) -> dict[str, Group | str]:
    """Read the groups of cases concurrently; for an invalid one, return its fault.

    Parameters
    ----------
    group : Group
        The cohort.
    names : iterable of str
        Names of possible cases. Groups of other programs are not returned; without a ``zarr.json`` the fault is
        `MISSING`.
    """
    semaphore = asyncio.Semaphore(zarr.config.get("async.concurrency"))

    async def read(name: str) -> tuple[str, Group | str | None]:
        async with semaphore:
            return name, await _read_case(group.store_path / name)

    results = await asyncio.gather(*(read(name) for name in names))
    return {name: group for name, group in results if group is not None}


async def _read_case(path: StorePath) -> Group | str | None:
    buffer = await (path / "zarr.json").get(default_buffer_prototype())
    if buffer is None:
        return MISSING
    content = buffer.to_bytes()
    group = _parse(content)
    if isinstance(group, _Group) and ATTRIBUTE not in group.attributes:
        return None
    fault = check_case_metadata(content)
    if fault is not None or isinstance(group, str):
        return fault or "cannot be used"
    metadata = GroupMetadata(attributes=group.attributes)
    return Group(AsyncGroup(metadata=metadata, store_path=path))


async def read_bytes(store: Store, key: str) -> bytes | None:
    """Read the bytes of an object; None if there is none."""
    buffer = await store.get(key, default_buffer_prototype())
    return None if buffer is None else buffer.to_bytes()


def _parse(content: bytes) -> _Group | str:
    if not content.strip():
        return "is empty"
    try:
        return _Group.model_validate_json(content)
    except ValidationError as error:
        is_json = error.errors()[0]["type"] != "json_invalid"
        return "is cut short or is not JSON" if not is_json else "does not describe a group"


def _is_valid(model: type[BaseModel], values: Any) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return False
    return True
