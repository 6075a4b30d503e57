"""Plausible HU: check the summary of the HU of a case before its voxels are used.

A case whose values are not HU of a chest fails in the mask stage, unless the user accepts them. A case with any finding
about its HU, accepted or not, does not enter a pooled fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distributed import Client

from lungmix.errors import DamageError, HuError, StoreError
from lungmix.kernels.plausibility import Finding, HuSummary, SummaryError, judge, summarize
from lungmix.stages import convert
from lungmix.stages.batches import over_batches
from lungmix.store import Case, Cohort
from lungmix.store.schema import MASK

UNREADABLE = "unreadable-summary"
"""Code of the finding on a case whose stored summary of HU cannot be read."""

ACCEPTED = "accepted_hu"
"""Record key that is true for a mask whose HU are not those of a chest and were accepted by the user."""


def findings_of(case: Case) -> list[Finding]:
    """Return findings about the HU of a converted case; empty if the HU are plausible.

    A summary that this version cannot read is a finding too. Stores of earlier versions hold no summary. For these, the
    histogram of the lung voxels is checked instead, which shows only findings that reject a scan.

    Raises
    ------
    DamageError
        If the histogram of the lung voxels is needed and corrupt.
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
    """Return why the values of a case are not HU of a chest, with a remedy; None if nothing speaks against it."""
    rejected = [finding for finding in findings_of(case) if finding.severity == "rejected"]
    if not rejected:
        return None
    return (
        f"not HU of a chest CT: {rejected[0].reason}: give the original series, or exclude this one; "
        "`accept_hu=True` measures it all the same"
    )


def check_plausible(case: Case, *, accept: bool = False) -> bool:
    """Raise an error unless the values of a case are HU of a chest, or the user accepts them.

    `accept` accepts them now; an earlier command may have accepted them in the record of the mask.

    Returns
    -------
    bool
        True if the values are not HU of a chest, but the user accepts them.

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
    """Return True if the HU of a case are not those of a chest, and the user accepted them when it was masked."""
    return bool(case.stages.get(MASK, {}).get(ACCEPTED))


def not_pooled(cohort: Cohort, names: Sequence[str], client: Client | None = None) -> dict[str, str]:
    """Return a reason for each case that must not enter a pooled fit because of its HU, by case.

    Workers of `client` read a large cohort.
    """
    reasons: dict[str, str] = {}
    for reasons_of_batch in over_batches(client, cohort, names, _not_pooled):
        reasons |= reasons_of_batch
    return {name: reasons[name] for name in names if name in reasons}


def _not_pooled(cohort: Cohort, names: Sequence[str]) -> dict[str, str]:
    findings_by_case = {name: findings_of(cohort[name]) for name in names}
    return {name: findings[0].reason for name, findings in findings_by_case.items() if findings}


def _findings_of_lung(case: Case) -> list[Finding]:
    """Return findings that reject a scan, from the histogram of its lung voxels alone.

    A lack of soft tissue is not a finding here, because lung voxels may contain few vessels.
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
