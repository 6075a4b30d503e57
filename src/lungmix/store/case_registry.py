"""Which scan has which case name: kept beside the cases, so that it outlives a conversion that failed, and damage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ValidationError


@dataclass(frozen=True)
class Register:
    """The content of ``names.json``.

    Attributes
    ----------
    salt : str
        Of the store, so that it can be restored; see `lungmix.store.cohort.Cohort.salt`.
    cases : dict of str to dict
        By name: ``key`` of the conversion, and the digest of its ``source``; where it failed and left no case behind,
        ``stage`` and ``reason`` too.
    """

    salt: str = ""
    cases: dict[str, dict[str, str]] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text; names in their order."""
        cases: Mapping[str, Mapping[str, str]] = dict(sorted(self.cases.items()))
        return json.dumps({"salt": self.salt, "cases": cases}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | None) -> Register:
        """Inverse of `to_json`; an empty one where the text is missing or damaged: cases know their scans too."""
        try:
            document = _Document.model_validate_json(text or "{}")
        except ValidationError:
            return cls()
        return cls(document.salt, {name: one.model_dump(exclude_none=True) for name, one in document.cases.items()})


class _Origin(BaseModel):
    key: str
    source: str
    stage: str | None = None
    reason: str | None = None


class _Document(BaseModel):
    salt: str = ""
    cases: dict[str, _Origin] = {}
