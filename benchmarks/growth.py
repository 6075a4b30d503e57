"""Measure how time and memory grow with the number of slices of a scan and with the number of workers.

The whole job, with the preset ``paper`` and the published model, runs on scans of 512 x 512 pixels in uncompressed
MetaImage. The shorter scans are evenly spaced slices of the longest. Each run has a new process and a new cluster.
Resident memory of every worker and of the client, which holds the scheduler, is sampled twenty times a second. A run
fails if a worker was restarted or spilled data to disk.

The speed-up of 2 workers over 1 is measured on a cohort of scans in compressed NRRD. The time begins on a running
cluster and ends with the last result; the table also has it with the start of Python and the cluster. Runs with 1 and
with 2 workers alternate, and the speed-up is the ratio of the sums of their times. For comparison, the gain by the
second core of the machine is measured: one process and then two compute the kernels of one slab after another,
without dask, store or files.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from dask.utils import parse_bytes

from figures import Check, Sheet, Table, parser_for
from processes import MIB, Watch, cpu_seconds, in_fresh_process, rss
from scans import LONGEST, QUICK_SHAPE, SHAPE, cohort_of, folder_for, long_scan

SLICES = (248, 827, 1251, LONGEST)
QUICK_SLICES = (64, 160)
COHORT = 12
TURNS = 2


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--slices", type=int, nargs="+", help=f"numbers of slices of the scans, by default {SLICES}")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--memory-limit", default="1.5GB")
    chosen = parser.parse_args()
    slices = sorted(chosen.slices or (QUICK_SLICES if chosen.quick else SLICES))
    with folder_for(chosen.scans) as scans:
        runs = [
            {"slices": n, "workers": workers, **run([long_scan(scans, n, slices[-1])], workers, chosen.memory_limit)}
            for n in slices
            for workers in chosen.workers
        ]
        cohort = cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, COHORT)
        together = [
            {"workers": workers, **run(cohort, workers, chosen.memory_limit)}
            for _ in range(1 if chosen.quick else TURNS)
            for workers in chosen.workers
        ]
    sheet = sheet_of(runs, together, chosen.memory_limit, second_core())
    sheet.show()
    sheet.save(chosen.out)


def second_core(turns=3, seconds=3.0):
    """Return how much more work two processes do than one, if they share nothing but the machine."""
    done = {1: 0.0, 2: 0.0}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool, get_context("spawn").Manager() as manager:
        for _ in range(turns):
            for processes in done:
                ready = manager.Barrier(processes)
                done[processes] += sum(pool.map(kernels_a_second, [ready] * processes, [seconds] * processes))
    return done[2] / done[1]


def kernels_a_second(ready, seconds):
    """Return how many slabs per second this process decompresses, packs, opens, closes, labels and filters."""
    import numpy as np

    from lungmix.kernels.labels import look_up
    from lungmix.kernels.median import median_labels
    from lungmix.kernels.morphology import closing, opening
    from lungmix.kernels.packed_masks import pack
    from lungmix.kernels.structuring_elements import ball, diamond
    from lungmix.phantom import Phantom

    hu = Phantom((64, 512, 512), (0.7, 0.7, 5.0), 1).volume()
    packed = gzip.compress(hu.tobytes(), 1)
    table = (np.arange(65536) // 16384 + 1).astype(np.uint8)

    def slab():
        read = np.frombuffer(gzip.decompress(packed), np.int16).reshape(hu.shape)
        mask = (read < -155).astype(np.uint8)
        opened = opening(pack(mask), hu.shape[2], diamond((1, 1, 1)))
        closing(opened, hu.shape[2], ball(13))
        median_labels(look_up(read, mask, table))

    slab()
    ready.wait()
    slabs, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        slab()
        slabs += 1
    return slabs / (time.perf_counter() - start)


def run(paths, workers, memory_limit):
    """Return the figures of one run in a new process, and its seconds with the start of Python and the cluster."""
    start = time.perf_counter()
    figures = {**in_fresh_process(measure, paths, workers, memory_limit), "cold seconds": time.perf_counter() - start}
    print(
        f"{paths[0].name}, {len(paths)} scans, {workers} workers: {figures['seconds']:.1f} s",
        file=sys.stderr,
        flush=True,
    )
    return figures


def measure(paths, workers, memory_limit):
    """Return the time and the peaks of the whole job on a running cluster."""
    import lungmix
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    with (
        tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder,
        lungmix.connect(workers=workers, memory_limit=memory_limit) as client,
    ):
        before = client.run(os.getpid)
        pids = list(before.values())
        rest = [rss(pid) for pid in pids]
        used = cpu_seconds([*pids, os.getpid()])
        watch = Watch([*pids, os.getpid()])
        watch.start()
        start = time.perf_counter()
        report = Pipeline(client, lungmix.open_cohort(Path(folder) / "s.zarr", "a")).run(
            paths, mask=MaskParameters("paper"), model="published"
        )
        seconds = time.perf_counter() - start
        watch.stop()
        used = cpu_seconds([*pids, os.getpid()]) - used
        assert not report.failed, report.failed
        assert client.run(os.getpid) == before, "a worker was restarted"
        on_disk = client.run(spilled)
        assert not any(on_disk.values()), f"workers spilled: {on_disk}"
        return {
            "seconds": seconds,
            "cpu": used,
            "rest": max(rest),
            "peaks": [watch.peaks[pid] for pid in pids],
            "client": watch.peaks[os.getpid()],
        }


def spilled(dask_worker):
    """Return the bytes that a worker has spilled to disk."""
    return int(sum(dask_worker.data.spilled_total)) if hasattr(dask_worker.data, "spilled_total") else 0


def predicted(slices, limit):
    """Return the bytes of the memory model: an idle worker, one task, and the inputs of the next task."""
    from lungmix.geometry import Geometry
    from lungmix.graphs import memory
    from lungmix.kernels.mask import recipe_for
    from lungmix.parameters import MaskParameters
    from lungmix.store.chunking import layout_of

    stored = layout_of(Geometry((512, 512, slices), (0.7, 0.7, 300 / slices), (0.0,) * 3)).stored
    halo = recipe_for(MaskParameters("paper"), None).halo
    mask = max(memory.mask_chunks(stored, 512, 512, halo, limit))
    label = max(memory.label_chunks(stored, 512, 512, 2, limit))
    task = max(
        memory.mask_task_bytes(mask, 512, 512, halo),
        memory.voxel_task_bytes(max(stored), 512, 512),
        memory.label_task_bytes(label, max(stored), 512, 512),
    )
    return memory.worker_bytes(task)


def sheet_of(runs, together, memory_limit, second):
    limit = parse_bytes(memory_limit)
    rows = []
    for one in runs:
        one["predicted"] = predicted(one["slices"], limit)
        rows.append(
            [
                f"{one['slices']:,}",
                str(one["workers"]),
                f"{one['seconds']:.1f}",
                f"{one['slices'] / one['seconds']:.0f}",
                f"{one['cpu']:.1f}",
                mib(one["rest"]),
                ", ".join(map(mib, one["peaks"])),
                mib(one["predicted"]),
                mib(one["client"]),
            ]
        )
    growth = Table(
        f"One scan of 512 x 512 pixels, workers of {memory_limit}",
        [
            "slices",
            "workers",
            "s",
            "slices per second",
            "cpu s",
            "worker at rest, MiB",
            "peak of each worker, MiB",
            "memory model, MiB",
            "peak of the client, MiB",
        ],
        rows,
    )
    cohort = Table(
        f"A cohort of {COHORT} scans in compressed NRRD",
        ["workers", "s", "s with the start", "cpu s", "peak of each worker, MiB"],
        [
            [
                str(one["workers"]),
                f"{one['seconds']:.1f}",
                f"{one['cold seconds']:.1f}",
                f"{one['cpu']:.1f}",
                ", ".join(map(mib, one["peaks"])),
            ]
            for one in together
        ],
        f"Two processes that share nothing but the machine do {second:.2f} times the work of one.",
    )
    checks = []
    peaks = {(one["slices"], one["workers"]): max(one["peaks"]) for one in runs}
    for workers in sorted({one["workers"] for one in runs}):
        if (LONGEST, workers) in peaks and (827, workers) in peaks:
            kept = f"{workers} worker{'s' * (workers > 1)}"
            ratio = peaks[LONGEST, workers] / peaks[827, workers]
            checks.append(Check(f"peak at {LONGEST:,} slices over that at 827, {kept}", ratio, 1.1, at_least=False))
            checks.append(
                Check(f"peak at {LONGEST:,} slices, {kept}", peaks[LONGEST, workers] / MIB, 1024, "MiB", False)
            )
    taken = {workers: sum(one["seconds"] for one in together if one["workers"] == workers) for workers in (1, 2)}
    if all(taken.values()):
        checks.append(Check("speed-up of 2 workers on a cohort", taken[1] / taken[2], 1.8))
    return Sheet("growth", [growth, cohort], checks, {"runs": runs, "cohort": together, "second core": second})


def mib(size):
    return f"{size / MIB:.0f}"


if __name__ == "__main__":
    main()
