"""Registration of a follow-up: which later scans are registered with the first scan of their patient."""

from __future__ import annotations

from lungmix.parameters import AFFINE, DEFORMABLE, check_registration
from lungmix.pipeline.result import CaseResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.stages import change, register
from lungmix.stages.change import ChangeStage
from lungmix.stages.register import RegisterStage
from lungmix.store import Case, CaseWriter, Cohort, CohortWriter
from lungmix.store.patients import first_scans
from lungmix.store.schema import CHANGE, DISPLACEMENT, REGISTER, REGISTER_SETTING


def registration_of(cohort: Cohort, register: str | None) -> str | None:
    """Return the kind of the registration: the given one, or that of the last follow-up; None for no registration.

    Parameters
    ----------
    cohort : Cohort
        The store.
    register : {"affine", "deformable", "none"}, optional
        See `lungmix.Pipeline.followup`.

    Raises
    ------
    UsageError
        If there is no such registration.
    """
    check_registration(register)
    kind = cohort.settings.get(REGISTER_SETTING) if register is None else register
    return str(kind) if kind in (AFFINE, DEFORMABLE) else None


def remember_registration(cohort: Cohort, register: str | None) -> str | None:
    """Record and return the kind of the registration; delete registrations if there are to be none.

    Parameters
    ----------
    cohort, register
        See `registration_of`.
    """
    kind, last = registration_of(cohort, register), cohort.settings.get(REGISTER_SETTING)
    if kind is None and last is not None:
        for case in cohort.values():
            _drop(case)
    # Recorded last: after a kill before, the next call finds the setting of the registrations that are left.
    if kind != last:
        CohortWriter(cohort).record_settings(**{REGISTER_SETTING: kind})
    return kind


def drop_stale_registrations(cohort: Cohort) -> None:
    """Delete registrations and change maps of other images, masks, labels or patients than those of the store.

    A store whose scans are not registered is not read.
    """
    if REGISTER_SETTING not in cohort.settings:
        return
    firsts = first_scans(cohort)
    for name, case in cohort.items():
        first = cohort[firsts[name]] if firsts.get(name) in cohort else None
        if first is None or not register.is_valid(first, case):
            _drop(case)
        elif case.has_remains(CHANGE, change.IMAGE) and not change.is_valid(first, case):
            CaseWriter(case).drop_stage(CHANGE)


def register_scans(runner: CaseRunner, names: list[str], kind: str | None, result: CaseResult) -> None:
    """Register later scans of patients, and map their changes; scans that cannot be registered fail with a reason.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases.
    names : list of str
        Cases with labels by the model of the store.
    kind : {"affine", "deformable"}, optional
        Kind of the registration; None registers no scan.
    result : CaseResult
        Receives failures.
    """
    cohort = runner.cohort
    drop_stale_registrations(cohort)
    if kind is None:
        return
    firsts = {later: first for later, first in first_scans(cohort).items() if later in names and first in names}
    runner.run_cases(
        REGISTER, list(firsts), [RegisterStage(firsts, kind), ChangeStage(firsts)], result, record_failures=False
    )
    for later, first in firsts.items():
        if later not in result.failed and (reason := change.reason_of(cohort[first], cohort[later])) is not None:
            result.fail(later, f"it cannot be registered: {reason}")


def _drop(case: Case) -> None:
    """Delete the registration and the change maps of a case, if there are any."""
    for stage, array in ((REGISTER, DISPLACEMENT), (CHANGE, change.IMAGE)):
        if case.has_remains(stage, array):
            CaseWriter(case).drop_stage(stage)
