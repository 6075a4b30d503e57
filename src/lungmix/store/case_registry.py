"""Registry of case names and their scans. It is a file next to the cases, so that it survives if a case is corrupt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import zarr
from pydantic import BaseModel, ValidationError

from lungmix.store import zarr_adapter
from lungmix.store.schema import REGISTER_FILE


@dataclass(frozen=True)
class Register:
    """Content of ``names.json``.

    Attributes
    ----------
    salt : str
        Copy of the salt of the store, which the store itself may lose; see `CohortWriter.salt`.
    cases : dict of str to dict
        For each case name, the cache key of the conversion (``key``) and the digest of its source (``source``). If the
        conversion failed and there is no case, also ``stage`` and ``reason``.
    """

    salt: str = ""
    cases: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the registry as JSON, sorted by name."""
        cases: Mapping[str, Mapping[str, str]] = dict(sorted(self.cases.items()))
        return json.dumps({"salt": self.salt, "cases": cases}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | None) -> Register:
        """Read the text of `to_json`; missing or corrupt text gives an empty registry, as cases record scans too."""
        try:
            document = _Document.model_validate_json(text or "{}")
        except ValidationError:
            return cls()
        return cls(
            document.salt, {name: origin.model_dump(exclude_none=True) for name, origin in document.cases.items()}
        )


def read_register(cohort: zarr.Group) -> Register:
    """Read the registry in the store of a cohort."""
    content = zarr_adapter.read(cohort.store, f"{cohort.path}/{REGISTER_FILE}".lstrip("/"))
    return Register.from_json(None if content is None else content.decode("utf-8", "replace"))


class _Origin(BaseModel):
    key: str
    source: str
    stage: str | None = None
    reason: str | None = None


class _Document(BaseModel):
    salt: str = ""
    cases: dict[str, _Origin] = {}
