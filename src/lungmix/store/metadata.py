"""Validation of the ``zarr.json`` of a cohort or a case before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import zarr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition
from lungmix.store.case_registry import read_register
from lungmix.store.chunking import layout_of
from lungmix.store.objects import sizes_under
from lungmix.store.schema import CASE_NAME, FILES
from lungmix.store.zarr_adapter import fetch, group_at, sync

ATTRIBUTE = "lungmix"

MISSING = "is missing"
"""Fault of a case that has objects but no ``zarr.json``. A fault is a phrase that follows "its zarr.json"."""

_CASES_AT_ONCE = 256

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


class _Quality(_Checked):
    __pydantic_extra__: dict[str, float]
    key: str = ""
    slices: dict[str, int] = {}


class _Evaluation(_Checked):
    key: str
    rows: list[dict[str, Any]] = []
    by_hu: list[dict[str, Any]] = []
    notes: list[str] = []


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
    quality: _Quality | None = None
    evaluations: dict[str, _Evaluation] = {}
    watched: dict[str, dict[str, Any]] = {}


class _Cohort(_Checked):
    format_version: int
    salt: str = Field(default="", pattern="^([0-9a-f]{2})*$")
    highest_number: int = 0
    fits: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    tables: dict[str, list[str]] = {}


def check_cohort_metadata(content: bytes | None) -> str | None:
    """Return the fault of the ``zarr.json`` of a store; None if it is valid or missing."""
    group = None if content is None else _parse(content)
    if isinstance(group, str):
        return group
    return None if group is None else check_cohort_settings(group.attributes.get(ATTRIBUTE))


def check_cohort_settings(attributes: Any) -> str | None:
    """Return the fault of the attributes of a store; None if they are valid or missing."""
    return None if attributes is None or _is_valid(_Cohort, attributes) else "does not describe a cohort"


def check_case_metadata(content: bytes) -> str | None:
    """Return the fault of the ``zarr.json`` of a case; None if it is valid."""
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


def read_case(cohort: zarr.Group, name: str) -> zarr.Group | str | None:
    """Return the group of a case, or its fault if its ``zarr.json`` is invalid or missing; None if it is no case.

    A group of another program is no case.
    """
    return sync(_read_case(cohort, name))


def read_cases(cohort: zarr.Group) -> Iterator[tuple[str, zarr.Group | str]]:
    """Yield name and group of each case, or its fault if it is invalid, in the order of names.

    Some hundred cases at a time are read concurrently and held in memory. A folder without a ``zarr.json`` is a case
    with the fault `MISSING` if the registry names it and it has objects. Other folders are empty or belong to other
    programs, and are left out.
    """
    names = sync(_case_names(cohort))
    registered: dict[str, dict[str, str]] | None = None
    prefix = f"{cohort.path}/".lstrip("/")
    for first in range(0, len(names), _CASES_AT_ONCE):
        for name, group in sync(_read_groups(cohort, names[first : first + _CASES_AT_ONCE])).items():
            if group == MISSING:
                registered = read_register(cohort).cases if registered is None else registered
                if name not in registered or not sizes_under(cohort.store, prefix + name):
                    continue
            if group is not None:
                yield name, group


async def _case_names(cohort: zarr.Group) -> list[str]:
    names = [name async for name in cohort.store.list_dir(cohort.path)]
    # Names of files of the store are left out, as each name costs a request.
    return sorted(name for name in names if CASE_NAME.fullmatch(name) and name not in FILES)


async def _read_groups(cohort: zarr.Group, names: Sequence[str]) -> dict[str, zarr.Group | str | None]:
    semaphore = asyncio.Semaphore(zarr.config.get("async.concurrency"))

    async def read(name: str) -> tuple[str, zarr.Group | str | None]:
        async with semaphore:
            return name, await _read_case(cohort, name)

    return dict(await asyncio.gather(*map(read, names)))


async def _read_case(cohort: zarr.Group, name: str) -> zarr.Group | str | None:
    path = f"{cohort.path}/{name}".lstrip("/")
    content = await fetch(cohort.store, f"{path}/zarr.json")
    if content is None:
        return MISSING
    group = _parse(content)
    if isinstance(group, _Group) and ATTRIBUTE not in group.attributes:
        return None
    fault = check_case_metadata(content)
    if fault is not None or isinstance(group, str):
        return fault or "cannot be used"
    return group_at(cohort.store, path, group.attributes)


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
