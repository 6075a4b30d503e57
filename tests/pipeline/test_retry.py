"""The retry policy, without a cluster: errors that lead to another attempt, and errors that are raised at once."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from distributed.comm import CommClosedError

from lungmix.errors import ClusterError, DamageError, SourceError
from lungmix.mixture import PUBLISHED
from lungmix.parameters import MaskParameters
from lungmix.pipeline import retry as module
from lungmix.pipeline.retry import RetryPolicy
from lungmix.pipeline.runner import recomputed_by
from lungmix.stages.label import LabelStage
from lungmix.stages.mask import MaskStage


class EmptyCohort(dict):
    """Cohort without cases, so that no stage is corrupt before the first attempt."""


@pytest.fixture
def policy(monkeypatch):
    warnings = []
    invalidated = []
    monkeypatch.setattr(module, "invalidate_stage", lambda case, stage, fault: invalidated.append((case, stage)))
    cohort = EmptyCohort()
    policy = RetryPolicy(SimpleNamespace(status="running"), cohort, warnings.append)
    return SimpleNamespace(policy=policy, cohort=cohort, warnings=warnings, invalidated=invalidated)


def run_with(policy, errors):
    """Run attempts, each of which raises the next of the errors, and return the number of attempts."""
    left, count = list(errors), 0
    for attempt in policy.attempts("case-001"):
        with attempt:
            count += 1
            if left:
                raise left.pop(0)
    return count


def scheduler_failure():
    """Return an error as distributed reports one of the scheduler: its innermost frame is the client's."""
    names = {"__name__": "distributed.client"}
    exec("def gather():\n    raise AssertionError", names)
    return names["gather"]


def test_success_needs_one_attempt(policy):
    assert run_with(policy.policy, []) == 1
    assert policy.warnings == []


def test_error_of_a_case_is_raised_at_once(policy):
    with pytest.raises(SourceError, match="cut short"):
        run_with(policy.policy, [SourceError("cut short")] * 3)
    assert policy.warnings == []


def test_interrupt_is_raised_at_once(policy):
    with pytest.raises(KeyboardInterrupt):
        run_with(policy.policy, [KeyboardInterrupt()])


def test_corrupt_stage_is_invalidated_and_computed_again(policy, monkeypatch):
    monkeypatch.setattr(module, "invalidate_corrupt_stages", lambda case: {})
    policy.cohort["case-001"] = "the case"
    damage = DamageError("case-001", "labels/lung/0", "c/0/0/0")
    assert run_with(policy.policy, [damage, damage]) == 3
    assert policy.invalidated == [("the case", "mask")] * 2
    assert all("recomputing" in warning for warning in policy.warnings)
    with pytest.raises(DamageError):
        run_with(policy.policy, [damage] * 3)


@pytest.mark.parametrize(("array", "attempts"), [("labels/tissue/0", 3), ("labels/side/0", 3), ("labels/lung/0", 1)])
def test_corrupt_stage_of_another_command_is_invalidated_and_not_tried_again(policy, monkeypatch, array, attempts):
    monkeypatch.setattr(module, "invalidate_corrupt_stages", lambda case: {})
    policy.cohort["case-001"] = "the case"
    labelling = replace(policy.policy, recomputed=recomputed_by([LabelStage(PUBLISHED)]))
    with pytest.raises(DamageError):
        run_with(labelling, [DamageError("case-001", array, "c/0/0/0")] * 3)
    assert len(policy.invalidated) == attempts
    assert len(policy.warnings) == attempts - 1


def test_stages_before_labels_are_recomputed_too():
    assert recomputed_by([LabelStage(PUBLISHED, before=[MaskStage(MaskParameters())])]) == {
        "label", "side", "mask", "air",
    }  # fmt: skip


def test_failure_of_the_scheduler_is_tried_again_and_raised_at_last(policy):
    fail = scheduler_failure()
    attempts = 0

    def run(failures):
        nonlocal attempts
        attempts = 0
        for attempt in policy.policy.attempts("case-001"):
            with attempt:
                attempts += 1
                if attempts <= failures:
                    fail()

    run(2)
    assert attempts == 3
    assert policy.warnings == ["case-001: the scheduler failed (AssertionError); retrying"] * 2
    with pytest.raises(AssertionError):
        run(3)


@pytest.mark.parametrize("is_back", [True, False])
def test_lost_scheduler_is_waited_for(policy, monkeypatch, is_back):
    monkeypatch.setattr(module.SchedulerReconnect, "wait", lambda self: is_back)
    if is_back:
        assert run_with(policy.policy, [CommClosedError("gone")]) == 2
        assert policy.warnings == ["case-001: the scheduler is back; resuming"]
    else:
        with pytest.raises(ClusterError, match="run the same command"):
            run_with(policy.policy, [CommClosedError("gone")])


def test_case_that_ended_workers_is_tried_once_more_and_alone(policy):
    calls = []

    def task(name):
        calls.append(name)
        if name == "large":
            raise MemoryError

    results = {result.item: result.error for result in policy.policy.map_cases(["large", "a", "b"], task, 2)}
    assert isinstance(results["large"], MemoryError)
    assert results["a"] is results["b"] is None
    assert calls[-1] == "large"
    assert calls.count("large") == 2


def test_cohort_step_repairs_a_case_once(policy):
    policy.cohort["case-001"] = "the case"
    damage = DamageError("case-001", "hu_counts", "c/0")
    repaired = []

    def step():
        if len(repaired) < 1:
            raise damage
        return "done"

    assert policy.policy.run_cohort_step("the fit", step, repaired.append) == "done"
    assert repaired == [damage]

    def never():
        raise damage

    with pytest.raises(DamageError):
        policy.policy.run_cohort_step("the fit", never, repaired.append)
