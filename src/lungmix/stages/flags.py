"""Flags: what people should know of a case before they use its numbers."""

from __future__ import annotations

from lungmix.errors import DamageError
from lungmix.stages import mask, side
from lungmix.stages.plausible import findings_of, is_accepted
from lungmix.store import Case


def flags_of(case: Case) -> list[str]:
    """Return a sentence for everything about a case that is doubtful; failures are told elsewhere."""
    return [*_of_hu(case), *_of_rejected(case)]


def _of_rejected(case: Case) -> list[str]:
    found = []
    for one in case.stages.get(side.STAGE, {}).get(side.REJECTED, []):
        if one["touches_edge"]:
            why = "reaches the edge of the image, and the mask holds nothing that does"
        else:
            why = "is cut off by the opening or too small for the mask; --min-voxels and --opening decide that"
        found.append(f"about {one['ml']:,.0f} mL that look like lung are not in the mask: this piece {why}")
    return found


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
