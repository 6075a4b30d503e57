"""Reports of the runner about cases that fail."""

from dataclasses import dataclass

import pytest

import lungmix
from lungmix.callbacks import Callback
from lungmix.errors import StoreError
from lungmix.geometry import Geometry
from lungmix.pipeline.result import CaseResult
from lungmix.pipeline.runner import CaseRunner
from lungmix.privacy.acquisition import Acquisition
from lungmix.store import CaseWriter, CohortWriter
from support.evaluations import OneWorker

pytestmark = pytest.mark.usefixtures("evaluates_here")


@dataclass(frozen=True)
class Fails:
    """Stage that fails after it has started the stage `starts` in the store."""

    name: str
    starts: str | None = None

    def cache_key(self, case):
        return None

    def run(self, context, case_name):
        if self.starts is not None:
            CaseWriter(context.cohort[case_name]).start_stage(self.starts, "key")
        raise StoreError("no lung found: check the scan")


@dataclass(frozen=True)
class Succeeds:
    """Stage that does nothing."""

    name: str

    def cache_key(self, case):
        return None

    def run(self, context, case_name):
        return "kept"


class Ends(Callback):
    """Callback that stores how cases ended."""

    def __init__(self):
        self.failures = []

    def on_case_end(self, case, failure=None):
        self.failures.append(failure)


@pytest.mark.parametrize(
    ("stages", "recorded", "said"),
    [
        ([Succeeds("convert"), Fails("mask"), Succeeds("label")], "mask", "mask: "),
        ([Succeeds("mask"), Fails("label")], "label", ""),
        ([Fails("label", starts="mask")], "mask", ""),
    ],
)
@pytest.mark.parametrize("left_by_a_killed_run", [None, "label"])
def test_a_failure_names_the_stage_that_failed(tmp_path, stages, recorded, said, left_by_a_killed_run):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = CohortWriter(cohort).add("a", Geometry((8, 8, 8)), Acquisition())
    if left_by_a_killed_run is not None:
        case.start_stage(left_by_a_killed_run, "key")
    callback, result = Ends(), CaseResult()
    CaseRunner(OneWorker(), cohort, callback).run_cases("label", ["a"], stages, result)
    assert cohort["a"].failure["stage"] == recorded
    assert callback.failures == [f"{said}no lung found: check the scan"]
    assert result.failed == {"a": "no lung found: check the scan"}
