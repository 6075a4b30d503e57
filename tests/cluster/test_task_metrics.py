"""Time and memory of tasks, reported by workers and summed by case and stage."""

import time

import dask
import numpy as np
import pytest

from lungmix.callbacks import Callback
from lungmix.cluster import ResourceUsage, UsageRecorder
from lungmix.cluster.compute import compute_in_order
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline
from lungmix.store import open_cohort

pytestmark = pytest.mark.slow

HELD = 200 << 20


def task():
    # Workers cannot import this file. A function within a function is pickled with its code.
    def hold_and_sleep(seconds, size):
        array = np.ones(size, np.uint8)
        time.sleep(seconds)
        return int(array[-1])

    return hold_and_sleep


def measured(recorder, case, stage, work):
    with recorder.measure(case, stage) as measurement:
        measurement.status = work()
    return measurement.usage


def test_tasks_are_counted_for_the_case_and_the_stage_that_submitted_them(client):
    recorder = UsageRecorder()

    def work(count, size):
        tasks = [dask.delayed(task())(0.05, size + i) for i in range(count)]
        assert compute_in_order(client, tasks) == [1] * count
        return "done"

    with recorder.listening(client):
        small = measured(recorder, "one", "mask", lambda: work(3, 1))
        large = measured(recorder, "two", "mask", lambda: work(2, HELD))
        after = measured(recorder, "one", "label", lambda: work(1, 1))
        client.submit(task(), 0, 1, pure=False).result()
    assert (small.tasks, large.tasks, after.tasks) == (3, 2, 1)
    assert 0.15 <= small.worker_seconds < 5
    assert small.seconds <= 5
    # The peak memory is reset before each task, so it counts for one task only.
    assert large.peak_bytes >= small.peak_bytes + HELD * 0.9
    assert after.peak_bytes < large.peak_bytes - HELD * 0.9
    assert recorder.total["mask"] == small + large
    assert recorder.total["label"].tasks == 1


def test_stage_that_was_kept_counts_for_nothing():
    recorder = UsageRecorder()
    assert (measured(recorder, "one", "mask", lambda: "kept"), recorder.total) == (ResourceUsage(), {})


class Heard(Callback):
    def __init__(self):
        self.spents = {}

    def on_usage(self, case, stage, usage):
        self.spents[case, stage] = usage


def test_run_keeps_time_and_memory_of_every_stage_with_the_case(client, tmp_path):
    scan = tmp_path / "case-001.nrrd"
    write_phantom(scan, Phantom((90, 64, 64), (5.5, 5.625, 3.0), 4, name="case-001"))
    parameters = MaskParameters(opening=1, min_voxels=3000, radii=(4, 3))
    cohort, heard = open_cohort(tmp_path / "s.zarr", "a"), Heard()
    report = Pipeline(client, cohort, heard).run([scan], mask=parameters)
    assert not report.failed
    watched = open_cohort(tmp_path / "s.zarr")["case-001"].watched
    assert list(watched) == ["convert", "mask", "label"]
    for stage, took in watched.items():
        assert took == heard.spents["case-001", stage].to_dict()
        assert took["tasks"] >= 1
        assert 0 < took["worker_seconds"] <= took["seconds"] * 2
        assert took["peak_bytes"] > 50 << 20
    assert list(report.spent) == ["convert", "mask", "fit", "label", "measure"]
    assert report.spent["label"] == heard.spents["case-001", "label"]
    again = Pipeline(client, cohort, heard).run([scan], mask=parameters)
    assert set(again.spent) == {"fit", "measure"}
    assert open_cohort(tmp_path / "s.zarr")["case-001"].watched == watched
