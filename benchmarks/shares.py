"""Measure how the time of a run is distributed, and compare it with the time to copy the scan once.

One scan in compressed NRRD goes through all stages, on one worker with one thread in this process, where every access
to a zarr array and every slab of the source is timed. The floor is the least time that any out-of-core program needs:
to read the source once and write it to the store.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import distributed
import zarr

import lungmix
from figures import Sheet, Table, parser_for
from lungmix.formats import Scan, find_scans
from lungmix.kernels.compile import compile_kernels
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.store import CohortWriter
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for

SOURCE, STORE_IN, STORE_OUT = "reading and inflating the source", "reading the store", "writing the store"


def main():
    chosen = parser_for(__doc__).parse_args()
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        path = cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, 1)[0]
        sheet = measure(path, Path(folder))
    sheet.show()
    sheet.save(chosen.out)


def measure(path, folder):
    compile_kernels()
    floor = copy_once(path, folder / "copy.zarr")
    plain = read_plainly(path)
    spent = defaultdict(float)
    with cluster() as client, timed(spent), distributed.get_task_stream(client) as stream:
        start = time.perf_counter()
        report = Pipeline(client, lungmix.open_cohort(folder / "run.zarr", "a")).run(
            [path], mask=MaskParameters("paper"), model="published"
        )
        whole = time.perf_counter() - start
    assert not report.failed, report.failed
    tasks = tasks_of(stream.data)
    computing = sum(tasks.values()) - sum(spent.values())
    parts = [
        ("reading the source's bytes", plain),
        ("inflating the source", spent[SOURCE] - plain),
        (STORE_IN, spent[STORE_IN]),
        ("computing", computing),
        (STORE_OUT, spent[STORE_OUT]),
        ("between tasks: scheduler, client, metadata", whole - sum(tasks.values())),
    ]
    shares = Table(
        "Shares of the time, one worker",
        ["", "s", "%"],
        [
            *([what, f"{seconds:.2f}", f"{100 * seconds / whole:.0f}"] for what, seconds in parts),
            ["whole", f"{whole:.2f}", "100"],
        ],
    )
    longest = Table(
        "The tasks that take longest",
        ["task", "s", "%"],
        [
            [f"`{name}`", f"{seconds:.2f}", f"{100 * seconds / whole:.0f}"]
            for name, seconds in sorted(tasks.items(), key=lambda t: -t[1])[:10]
        ],
    )
    distance = Table(
        "The whole job, and the floor",
        ["", "s", "times the floor"],
        [
            ["copying the scan once (the floor)", f"{floor:.2f}", "1.0"],
            ["the whole job, one worker", f"{whole:.2f}", f"{whole / floor:.1f}"],
        ],
    )
    return Sheet("shares", [shares, longest, distance], data={"whole": whole, "floor": floor, "parts": dict(parts)})


def cluster():
    """Start one worker with one thread in this process."""
    return distributed.Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, memory_limit="4GB"
    )


def copy_once(path, store):
    """Return the seconds to read a scan and write its voxels as the stage convert does, without other work."""
    (scan,) = find_scans(path)
    start = time.perf_counter()
    case = CohortWriter(lungmix.open_cohort(store, "a")).add("copy", scan.geometry, scan.acquisition)
    case.create_image("ct")
    voxels = zarr.open_array(store / "copy" / "0", mode="r+")  # without the smaller levels
    first = 0
    for slab in scan.slabs(case.layout.slab):
        voxels[first : first + len(slab)] = slab
        first += len(slab)
    return time.perf_counter() - start


def read_plainly(path):
    """Return the seconds to read the bytes of a file."""
    start = time.perf_counter()
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass
    return time.perf_counter() - start


@contextmanager
def timed(spent):
    """Add the seconds to read the source, and to read and write zarr arrays, to `spent`."""
    kept = Scan.slabs, zarr.Array.__getitem__, zarr.Array.__setitem__

    def clock(name, function):
        def call(*values):
            start = time.perf_counter()
            try:
                return function(*values)
            finally:
                spent[name] += time.perf_counter() - start

        return call

    def slabs(scan, thickness):
        step = clock(SOURCE, kept[0](scan, thickness).__next__)
        while True:
            try:
                slab = step()
            except StopIteration:
                return
            yield slab

    Scan.slabs, zarr.Array.__getitem__, zarr.Array.__setitem__ = (
        slabs, clock(STORE_IN, kept[1]), clock(STORE_OUT, kept[2]),
    )  # fmt: skip
    try:
        yield
    finally:
        Scan.slabs, zarr.Array.__getitem__, zarr.Array.__setitem__ = kept


def tasks_of(stream):
    """Return the seconds of computing by the names of tasks."""
    seconds = defaultdict(float)
    for task in stream:
        name = distributed.utils.key_split(task["key"])
        seconds[name] += sum(s["stop"] - s["start"] for s in task["startstops"] if s["action"] == "compute")
    return seconds


if __name__ == "__main__":
    main()
