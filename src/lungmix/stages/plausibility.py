"""Plausible HU: what the summary of a case's image says before its voxels count.

A case whose values are not HU of a chest fails at its mask unless they are accepted; neither it nor one that is flagged
enters a pooled fit.
"""

from __future__ import annotations

from collections.abc import Iterable

from lungmix.errors import DamageError, HuError, StoreError
from lungmix.kernels.plausibility import Finding, HuSummary, judge, summarize
from lungmix.stages import convert
from lungmix.store import Case, Cohort

MASK = "mask"
ACCEPTED = "accepted_hu"
"""Set in the record of a mask that was made although the HU were refused."""


def findings_of(case: Case) -> list[Finding]:
    """Return what is doubtful about the HU of a converted case; empty where nothing is, or nothing is known.

    Stores of earlier versions hold no summary; there the counts of the lung voxels are looked at, which show the worst.

    Raises
    ------
    DamageError
        If these counts are damaged.
    """
    known = case.stages.get(convert.STAGE, {}).get(convert.HU)
    try:
        return judge(HuSummary.from_dict(known)) if known is not None else _of_lung(case)
    except TypeError:
        return []


def refusal_of(case: Case) -> str | None:
    """Return why the values of a case are not HU of a chest, with a remedy; None where they may be."""
    refused = [one for one in findings_of(case) if one.severity == "refused"]
    if not refused:
        return None
    return (
        f"not HU of a chest CT: {refused[0].reason}: give the original series, or leave this one out; "
        "--accept-hu measures it all the same"
    )


def check_plausible(case: Case, *, accept: bool = False) -> bool:
    """Refuse a case whose values are not HU of a chest, unless they are accepted or were before.

    Returns
    -------
    bool
        Whether they are refused and accepted.

    Raises
    ------
    HuError
        If they are refused.
    """
    reason = refusal_of(case)
    if reason is None:
        return False
    if not accept and not is_accepted(case):
        raise HuError(reason)
    return True


def is_accepted(case: Case) -> bool:
    """Say whether the mask of a case was made although its HU were refused."""
    return bool(case.stages.get(MASK, {}).get(ACCEPTED))


def not_pooled(cohort: Cohort, names: Iterable[str]) -> dict[str, str]:
    """Return the cases whose HU must not be pooled with those of others, with the reason."""
    found = {name: findings_of(cohort[name]) for name in names}
    return {name: findings[0].reason for name, findings in found.items() if findings}


def _of_lung(case: Case) -> list[Finding]:
    """Judge the lung voxels alone; vessels may be few among them, and no value repeats at the end of their range."""
    try:
        counts = case.hu_counts if MASK in case.stages else None
    except DamageError:
        raise
    except StoreError:
        return []
    if counts is None or not counts.any():
        return []
    return [one for one in judge(summarize(counts)) if one.severity == "refused" and one.code != "no-soft-tissue"]
