"""Batches of cases whose histograms are read by workers."""

import os
import signal

import dask
import pytest
from distributed import KilledWorker

import lungmix
from lungmix.stages.batches import over_batches
from support.generators import counts_of_scans, store_of_counts


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return store_of_counts(tmp_path_factory.mktemp("batches") / "s.zarr", counts_of_scans(7, 100))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("lungmix.stages.batches.BATCH_CASES", 2)


def total(cohort, names, factor):
    return {name: factor * int(cohort[name].hu_counts.sum()) for name in names}


def test_every_case_is_in_one_batch(cohort):
    heard = []
    results = list(over_batches(None, cohort, list(cohort), total, 2, progress=lambda *done: heard.append(done)))
    assert [list(result) for result in results] == [list(cohort)[i : i + 2] for i in (0, 2, 4, 6)]
    assert heard == [(2, 7), (4, 7), (6, 7), (7, 7)]
    assert list(over_batches(None, cohort, [], total, 2)) == []


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [1, 5])
def test_batch_of_ended_workers_is_tried_once_more_alone(cohort, tmp_path, deaths):
    names, end = list(cohort), signal.SIGKILL

    def fatal(cohort, batch):
        if batch[0] == names[2] and len(list(tmp_path.iterdir())) < deaths:
            (tmp_path / str(os.getpid())).touch()
            os.kill(os.getpid(), end)
        return list(batch)

    patience = dask.config.set({"distributed.scheduler.allowed-failures": 0})
    with patience, lungmix.connect(workers=2, memory_limit="1GB") as client:
        if deaths > 1:
            with pytest.raises(KilledWorker):
                list(over_batches(client, cohort, names, fatal))
        else:
            results = list(over_batches(client, cohort, names, fatal))
            assert sorted(name for result in results for name in result) == names
