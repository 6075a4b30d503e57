"""Cases that need more memory than a worker has are rejected before work begins; messages name a sufficient limit."""

from types import SimpleNamespace

import dask
import pytest
from distributed import LocalCluster

import lungmix
from lungmix.cluster.worker_memory import WorkerMemory, smallest_worker_memory, usable_fraction, worker_memory_of
from lungmix.errors import ClusterError, RoomError
from lungmix.geometry import Geometry
from lungmix.graphs.process import INTERPRETER_BYTES, KEPT_BYTES, LEAST_WORKER_BYTES
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline, runner
from lungmix.store import layout_of

# Enough for slabs of 48 x 48 x 60 voxels, and too little for slabs of 96 x 96 x 60 voxels.
INTERPRETER_AND_A_LITTLE = INTERPRETER_BYTES + KEPT_BYTES + 5_000_000
TIGHT = WorkerMemory(1_000_000, 0.8)


def volume(edge, depth):
    return Geometry((edge, edge, depth), (0.7, 0.7, 1.0))


def check(room, geometry, slab=None):
    room.check("case-001", geometry, slab or layout_of(geometry).slab)


@pytest.mark.parametrize(
    ("megabytes", "share", "edge", "depth", "slab", "enough"),
    [
        (790, 0.8, 512, 120, None, 1120),
        (800, 0.8, 512, 120, None, None),
        (790, 0.8, 512, 5000, None, 1120),
        (650, 0.8, 512, 120, 16, 970),
        (660, 0.8, 512, 120, 16, None),
        (660, 0.8, 512, 16, 64, None),
        (650, 0.8, 256, 120, None, 970),
        (660, 0.8, 256, 120, None, None),
        (980, 0.8, 1024, 120, None, 1350),
        (990, 0.8, 1024, 120, None, None),
        (1200, 0.5, 512, 120, None, 1780),
        (680, 0.95, 512, 120, None, None),
        (580, 0.8, 64, 8, None, 930),
        (600, 0.8, 64, 8, None, None),
    ],
)
def test_limit_is_rejected_if_a_worker_would_exceed_it_after_a_task(megabytes, share, edge, depth, slab, enough):
    room = WorkerMemory(megabytes * 1_000_000, share)
    if enough is None:
        check(room, volume(edge, depth), slab)
        return
    with pytest.raises(RoomError) as refused:
        check(room, volume(edge, depth), slab)
    assert refused.value.enough == enough * 1_000_000
    assert refused.value.status == 2
    assert f"a worker has {megabytes} MB" in str(refused.value)
    assert f"slices of {edge} x {edge} pixels need {enough} MB" in str(refused.value)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("edge", [32, 96, 256, 512, 700, 1024, 3000])
def test_limit_in_the_message_is_accepted_and_enough_for_any_worker(edge, share):
    with pytest.raises(RoomError) as refused:
        check(WorkerMemory(1, share), volume(edge, 300))
    assert refused.value.enough >= LEAST_WORKER_BYTES
    check(WorkerMemory(refused.value.enough, share), volume(edge, 300))


def test_workers_without_a_limit_are_accepted():
    check(WorkerMemory(), volume(3000, 5000))


@pytest.mark.parametrize(
    ("pause", "terminate", "nanny", "expected"),
    [
        (0.8, 0.95, True, 0.8),
        (0.5, 0.95, True, 0.5),
        (False, 0.95, True, 0.95),
        (False, 0.95, False, None),
        (0.99, 0.95, True, 0.95),
        (0.99, 0.95, False, 0.99),
        (False, False, True, None),
    ],
)
def test_usable_fraction_of_the_limit_follows_the_configuration(pause, terminate, nanny, expected):
    assert usable_fraction({"pause": pause, "terminate": terminate}, nanny=nanny) == expected


def test_smallest_worker_is_that_with_least_memory_for_tasks():
    workers = {
        "a": {"memory_limit": 2000, "nanny": "n"},
        "b": {"memory_limit": 1000, "nanny": "n"},
        "c": {"memory_limit": 0, "nanny": "n"},
        "d": {"memory_limit": 10, "nanny": "n"},
    }
    off = {"pause": False, "terminate": False}
    settings = {"a": {"pause": 0.3}, "b": {"pause": 0.9}, "c": {"pause": 0.1}, "d": off}
    assert smallest_worker_memory(workers, settings, is_local=False) == WorkerMemory(2000, 0.3, False)
    with dask.config.set({"distributed.worker.memory.pause": 0.25}):
        assert smallest_worker_memory({"b": workers["b"]}, {"b": OSError()}, is_local=True) == WorkerMemory(
            1000, 0.25, True
        )
    assert smallest_worker_memory({"d": workers["d"]}, settings, is_local=True) == WorkerMemory()


def test_remedy_names_the_option_of_the_program_that_started_the_workers():
    texts = []
    for is_local in (True, False):
        with pytest.raises(RoomError) as refused:
            check(WorkerMemory(640_000_000, 0.8, is_local), volume(512, 120))
        texts.append(str(refused.value))
    assert texts[0].endswith("give workers more with `memory_limit='1120MB'`")
    assert texts[1].endswith("start workers with more, such as `dask worker --memory-limit 1120MB`")


def test_memory_is_read_from_workers_of_an_existing_scheduler():
    with (
        dask.config.set({"distributed.worker.memory.pause": 0.7}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1",
            dashboard_address=None, memory_limit="900GB", silence_logs=50,
        ) as cluster,
        lungmix.connect(cluster.scheduler_address) as client,
    ):  # fmt: skip
        room = worker_memory_of(client)
    assert (room.share, room.is_local) == (0.7, False)
    assert room.limit is not None
    assert room.limit > LEAST_WORKER_BYTES
    assert worker_memory_of(client) == WorkerMemory()


def test_memory_is_unknown_where_the_scheduler_does_not_answer():
    def lost(**_):
        raise TimeoutError

    assert worker_memory_of(SimpleNamespace(status="connecting", cluster=None, scheduler_info=lost)).limit is None


@pytest.fixture
def two_sizes(tmp_path):
    folder = tmp_path / "scans"
    for name, edge in (("small", 48), ("large", 96)):
        spacing = (5.5 * 64 / 96, 5.6 * 64 / 96) if edge == 96 else (5.5 * 64 / 48, 5.6 * 64 / 48)
        folder.mkdir(exist_ok=True)
        write_phantom(folder / f"{name}.nrrd", Phantom((60, edge, edge), (*spacing, 4.0), 4, name=name))
    return folder


def run(client, store, sources):
    return Pipeline(client, lungmix.open_cohort(str(store), "a")).run(
        [sources], mask=MaskParameters("physical"), model="published"
    )


@pytest.mark.slow
def test_run_rejects_only_large_scans_and_none_that_are_done(client, two_sizes, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    between = WorkerMemory(INTERPRETER_AND_A_LITTLE, 1.0)
    with monkeypatch.context() as patched:
        patched.setattr(runner, "worker_memory_of", lambda _: between)
        report = run(client, store, two_sizes)
    sizes = {name: scan.geometry.shape[2] for name, scan in lungmix.open_cohort(str(store)).items()}
    assert list(sizes.values()) == [48]
    assert report.done == list(sizes)
    (reason,) = report.failed.values()
    assert "slices of 96 x 96 pixels need" in reason
    assert not run(client, store, two_sizes).failed
    monkeypatch.setattr(runner, "worker_memory_of", lambda _: TIGHT)
    again = run(client, store, two_sizes)
    assert not again.failed
    assert len(again.rows) == 2


@pytest.mark.slow
def test_run_that_can_do_nothing_ends_with_one_sentence_and_converts_nothing(client, two_sizes, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "worker_memory_of", lambda _: TIGHT)
    with pytest.raises(
        ClusterError, match=r"^too little memory for every case: .* case-\d+, case-\d+ need up to \d+ MB"
    ) as ended:
        run(client, tmp_path / "s.zarr", two_sizes)
    assert ended.value.status == 2
    assert not list(lungmix.open_cohort(str(tmp_path / "s.zarr")))
