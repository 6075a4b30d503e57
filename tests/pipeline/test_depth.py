"""Number of functions between a method of the pipeline and a stage in the call stack."""

import sys
import threading

import numpy as np

from lungmix.pipeline import Pipeline, masks
from support.generators import store_of_counts


def modules_of(frame):
    while frame is not None:
        yield frame.f_globals["__name__"], frame.f_code.co_name
        frame = frame.f_back


class FakeStage:
    """Stage that stores its call stack, innermost function first: the stack of its thread, then of the main thread."""

    name = "mask"

    def __init__(self, parameters, accept_hu=False):
        self.calls = []
        FakeStage.last = self

    def cache_key(self, case):
        return None

    def run(self, context, case_name):
        main = sys._current_frames()[threading.main_thread().ident]
        self.calls = [*modules_of(sys._getframe(1)), *modules_of(main)]
        return "kept"


def test_at_most_four_functions_lead_from_the_pipeline_to_a_stage(client, tmp_path, monkeypatch):
    cohort = store_of_counts(tmp_path / "s.zarr", {"case-001": np.zeros(65536, np.uint64)})
    monkeypatch.setattr(masks, "mask_stage", FakeStage)
    result = Pipeline(client, cohort).mask()
    assert not result.failed
    calls = [call for call in FakeStage.last.calls if call[0].startswith("lungmix.")]
    between = calls[: calls.index(("lungmix.pipeline.pipeline", "mask"))]
    assert 1 <= len(between) <= 4, between
