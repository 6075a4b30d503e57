"""Plausible HU: checks of the summary of a case's image before its voxels are used.

A case whose values are not HU of a chest fails at its mask unless they are accepted. Neither such a case nor a flagged
one enters a pooled fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lungmix.errors import DamageError, HuError, StoreError
from lungmix.kernels.plausibility import Finding, HuSummary, SummaryError, judge, summarize
from lungmix.stages import convert
from lungmix.store import Case, Cohort
from lungmix.store.schema import MASK

UNREADABLE = "unreadable-summary"
"""Code of the finding on a case whose stored summary of HU cannot be read."""

ACCEPTED = "accepted_hu"
"""Record key of a mask that was computed although the HU were rejected."""


def findings_of(case: Case) -> list[Finding]:
    """Return what is doubtful about the HU of a converted case; empty where nothing is.

    A summary that this version cannot read is a finding too. Stores of earlier versions hold no summary; the histogram
    of their lung voxels is judged instead, which shows the gravest findings.

    Raises
    ------
    DamageError
        If this histogram is corrupt.
    """
    summary = case.stages.get(convert.STAGE, {}).get(convert.HU)
    if summary is None:
        return _findings_of_lung(case)
    try:
        if not isinstance(summary, Mapping):
            raise SummaryError("is no summary")
        return judge(HuSummary.from_dict(summary))
    except SummaryError as error:
        return [Finding(UNREADABLE, "flagged", f"the record of its HU {error}, so that they cannot be checked")]


def rejection_reason(case: Case) -> str | None:
    """Return why the values of a case are not HU of a chest, with a remedy; None where they may be."""
    rejected = [finding for finding in findings_of(case) if finding.severity == "rejected"]
    if not rejected:
        return None
    return (
        f"not HU of a chest CT: {rejected[0].reason}: give the original series, or exclude this one; "
        "`accept_hu=True` measures it all the same"
    )


def check_plausible(case: Case, *, accept: bool = False) -> bool:
    """Check that the values of a case are HU of a chest, or are accepted now or in the record of the mask.

    Returns
    -------
    bool
        True where the values are rejected but accepted by the user.

    Raises
    ------
    HuError
        If the values are rejected and not accepted.
    """
    reason = rejection_reason(case)
    if reason is None:
        return False
    if not accept and not is_accepted(case):
        raise HuError(reason, case=case.name)
    return True


def is_accepted(case: Case) -> bool:
    """Return True where the mask of a case was computed although its HU were rejected."""
    return bool(case.stages.get(MASK, {}).get(ACCEPTED))


def not_pooled(cohort: Cohort, names: Iterable[str]) -> dict[str, str]:
    """Return the reason for each case whose HU must not be pooled with those of others."""
    findings_by_case = {name: findings_of(cohort[name]) for name in names}
    return {name: findings[0].reason for name, findings in findings_by_case.items() if findings}


def _findings_of_lung(case: Case) -> list[Finding]:
    """Return findings about the lung voxels alone.

    Vessels may be few among them, and no value repeats at the end of their range.
    """
    try:
        histogram = case.hu_counts if MASK in case.stages else None
    except DamageError:
        raise
    except StoreError:
        return []
    if histogram is None or not histogram.any():
        return []
    return [
        finding
        for finding in judge(summarize(histogram))
        if finding.severity == "rejected" and finding.code != "no-soft-tissue"
    ]
