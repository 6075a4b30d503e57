"""Number of tasks and of reads that the stages need, and the slabs that they hold in memory."""

import time

import dask
import numpy as np
import pytest
from distributed.diagnostics.plugin import SchedulerPlugin

import lungmix
from lungmix.geometry import Geometry
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline
from lungmix.stages import label, mask, regions
from lungmix.stages.base import StageContext
from lungmix.store import CaseFiles
from support.generators import case_of

MODEL = lungmix.load_model("published")


class CountTasks(SchedulerPlugin):
    name = "count-tasks"

    def __init__(self):
        self.count = 0

    def transition(self, key, start, finish, *args, **kwargs):
        self.count += finish == "memory"


def counted(dask_scheduler):
    plugin = dask_scheduler.plugins[CountTasks.name]
    count, plugin.count = plugin.count, 0
    return count


def held(dask_scheduler):
    return len(dask_scheduler.tasks)


def thin(depth):
    return Geometry((96, 96, depth), (0.7, 0.7, 0.4))


def long_chest(depth):
    """Return HU with two columns of lung, which are not in the first and the last fifth of the slices."""
    hu = np.full((depth, 96, 96), 40, np.int16)
    hu[depth // 5 : -depth // 5, 30:60, 15:40] = -850
    hu[depth // 5 : -depth // 5, 30:60, 55:80] = -850
    return hu


@pytest.mark.slow
def test_scan_of_827_slices_takes_fewer_than_50_tasks_per_stage(client, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "long", long_chest(827), thin(827))
    client.register_plugin(CountTasks())
    try:
        for stage in (
            lambda: mask.MaskStage(MaskParameters(min_voxels=100_000)).run(StageContext(client, cohort), "long"),
            lambda: label.LabelStage(MODEL).run(StageContext(client, cohort), "long"),
        ):
            stage()
            assert 0 < client.run_on_scheduler(counted) < 50
    finally:
        client.unregister_scheduler_plugin(CountTasks.name)
    assert cohort["long"].lung.any().compute()


@pytest.mark.slow
def test_scheduler_keeps_no_task_of_a_case_that_is_done(client, tmp_path):
    for i in range(6):
        write_phantom(tmp_path / f"{i}.nrrd", Phantom((24, 48, 48), (7.0, 7.0, 12.0), i))
    before = client.run_on_scheduler(held)
    pipeline = Pipeline(client, lungmix.open_cohort(tmp_path / "s.zarr", "a"))
    report = pipeline.run(sorted(tmp_path.glob("*.nrrd")), mask=MaskParameters("physical"), model="published")
    assert len(report.done) == 6
    # Workers tell the scheduler a little later that they have released data.
    for _ in range(100):
        if client.run_on_scheduler(held) <= before:
            break
        time.sleep(0.1)
    assert client.run_on_scheduler(held) <= before


@pytest.fixture
def reads(monkeypatch):
    """Ranges of images that stages in this process have read."""
    seen = []
    original = CaseFiles.read

    def read(self, name, start, stop, *rows):
        seen.append((name, start, stop))
        return original(self, name, start, stop, *rows)

    def gather(client, values, watch=None):
        with dask.config.set(scheduler="synchronous"):
            return list(dask.compute(*values))

    monkeypatch.setattr(CaseFiles, "read", read)
    for stage in (mask, label):
        monkeypatch.setattr(stage, "compute_in_order", gather)
    for stage in (mask, label):
        monkeypatch.setattr(stage, "min_worker_memory", lambda client: 1 << 30)
    return seen


def test_each_stage_reads_a_voxel_once_and_only_slabs_with_lung(reads, tmp_path):
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "long", long_chest(640), thin(640))
    mask.MaskStage(MaskParameters(min_voxels=100_000)).run(StageContext(None, cohort), "long")
    lung = case.lung.compute().any(axis=(1, 2))
    slabs = [span for span in case.layout.slabs() if lung[slice(*span)].any()]
    assert 0 < len(slabs) < len(case.layout.stored)
    of_ct = [read[1:] for read in reads if read[0] == "ct"]
    assert sorted(of_ct) == slabs
    reads.clear()
    label.LabelStage(MODEL).run(StageContext(None, cohort), "long")
    assert regions.is_valid(cohort["long"])
    assert sorted(read[1:] for read in reads if read[0] == "ct") == slabs
    of_lung = [read[1:] for read in reads if read[0] == "lung"]
    assert sorted(of_lung) == list(case.layout.slabs())


def test_another_threshold_packs_the_air_again_and_changes_the_mask(reads, tmp_path):
    hu = Phantom((40, 64, 64), (5.6, 5.6, 7.5), 4, traps={"vessels"}).volume()
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case_of(cohort, "one", hu, Geometry((64, 64, 40), (5.6, 5.6, 7.5)))
    for threshold in (-155, -500, -155):
        chosen = {"threshold": threshold, "opening": 1, "min_voxels": 800, "radii": (4, 3)}
        mask.MaskStage(MaskParameters(**chosen)).run(StageContext(None, cohort), "one")
        expected = lungmix.lung_mask(hu, **chosen)
        assert expected.any()
        assert np.array_equal(cohort["one"].lung.compute(), expected)
        counts = np.bincount(hu[expected > 0].astype(int) + 32768, minlength=65536)
        assert np.array_equal(cohort["one"].hu_counts, counts)
        assert "opened" not in cohort["one"]._group


@pytest.mark.parametrize("limit", [400 << 20, 1 << 30, 8 << 30])
def test_memory_of_the_workers_changes_no_voxel(reads, tmp_path, monkeypatch, limit):
    hu = np.concatenate([long_chest(300), Phantom((220, 96, 96), (3.7, 3.7, 1.4), 2, traps={"cut"}).volume()])
    for stage in (mask, label):
        monkeypatch.setattr(stage, "min_worker_memory", lambda client: limit)
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    case = case_of(cohort, "one", hu, thin(len(hu)))
    mask.MaskStage(MaskParameters(min_voxels=20_000, radii=(12, 7))).run(StageContext(None, cohort), "one")
    label.LabelStage(MODEL).run(StageContext(None, cohort), "one")
    lung = lungmix.lung_mask(hu, min_voxels=20_000, radii=(12, 7))
    assert lung.any()
    assert np.array_equal(case.lung.compute(), lung)
    tissue = lungmix.tissue_labels(hu, lung, MODEL)
    assert np.array_equal(case.tissue.compute(), tissue)
    assert np.array_equal(case.tissue_median.compute(), lungmix.median_labels(tissue))


class WatchSlabs(SchedulerPlugin):
    """Scheduler plugin that counts slabs of masks in memory, and stores the largest number at one time."""

    name = "watch-slabs"

    def __init__(self):
        self.held, self.most = set(), 0

    def transition(self, key, start, finish, *args, **kwargs):
        if any(kind in str(key) for kind in ("_render_buffered", "_on_core", "overlap")):
            if finish == "memory":
                self.held.add(key)
            elif start == "memory":
                self.held.discard(key)
            self.most = max(self.most, len(self.held))


def most_held(dask_scheduler):
    return dask_scheduler.plugins[WatchSlabs.name].most


@pytest.mark.slow
def test_slabs_that_wait_for_neighbours_do_not_grow_with_the_scan(client, tmp_path, monkeypatch):
    monkeypatch.setattr(mask, "mask_chunks", lambda stored, *args: tuple(stored))
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = np.tile(long_chest(640)[:, :64, :64], (3, 1, 1))
    case_of(cohort, "long", hu, Geometry((64, 64, len(hu)), (0.7, 0.7, 0.4)))
    client.register_plugin(WatchSlabs())
    try:
        mask.MaskStage(MaskParameters(min_voxels=10_000)).run(StageContext(client, cohort), "long")
        maximum = client.run_on_scheduler(most_held)
    finally:
        client.unregister_scheduler_plugin(WatchSlabs.name)
    assert len(cohort["long"].layout.stored) == 30
    # On each of two workers, each of two closings waits for one neighbouring slab.
    assert 0 < maximum < 15
