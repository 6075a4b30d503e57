"""Flags: what people should know of a case before they use its numbers."""

from __future__ import annotations

from lungmix.errors import DamageError
from lungmix.stages import mask
from lungmix.stages.plausible import findings_of, is_accepted
from lungmix.store import Case


def flags_of(case: Case) -> list[str]:
    """Return a sentence for everything about a case that is doubtful; failures are told elsewhere."""
    return _of_hu(case)


def _of_hu(case: Case) -> list[str]:
    try:
        findings = findings_of(case)
    except DamageError:
        return []
    if any(one.severity == "refused" for one in findings):
        if mask.STAGE in case.stages and not is_accepted(case):
            return []
        what, then = "not HU of a chest CT", "it enters no pooled fit"
    else:
        what, then = "doubtful HU", "it is measured, and enters no pooled fit"
    return [f"{what}: {one.reason}; {then}" for one in findings]
