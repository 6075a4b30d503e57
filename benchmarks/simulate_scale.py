"""Measure the time of scheduler and client per scan, apart from the work on its voxels, over ten thousand scans.

There are two runs. In the first, a scan is simulated by tasks that do nothing, with the number and structure of the
tasks of its stages. (With ``--durations 0.05`` they sleep for 5 % of the measured times.) They pass through the same
code as real scans: the limit of cases in flight, submission, scheduler, a worker, and the events by which time and
memory are reported; and they return small results. In the second run, tiny volumes go through every stage of the real
pipeline and into a store. It prints the time per scan in each tenth of a run, the scans and tasks per second, and the
memory of the process that holds scheduler and client: none of them may grow with the number of scans. Processor time is
that of this process; compare it, and not the wall-clock time, if the machine does other work too.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import numpy as np

from empty import empty
from figures import Check, Sheet, Table, parser_for
from processes import MIB, in_fresh_process, rss
from scans import folder_for

SCANS, QUICK_SCANS = 10_000, 500
TINY, QUICK_TINY = 300, 40
PARTS = 10
LIMIT_MS = 100
SEED = 62


@dataclass(frozen=True)
class Shape:
    """Number of tasks of one stage of a scan of 826 slices, and the seconds of one of these tasks."""

    stage: str
    tasks: int
    seconds: float


# For a scan with the mean number of slices of the publication's cohort; numbers from the tables of paper_scale.
STAGES = (Shape("convert", 1, 3.6), Shape("mask", 29, 0.09), Shape("label", 22, 0.12))


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--count", type=int, help=f"number of scans whose tasks do nothing, by default {SCANS:,}")
    parser.add_argument("--tiny", type=int, help=f"number of tiny volumes, by default {TINY}")
    parser.add_argument(
        "--durations", type=float, default=0.0, help="fraction of the measured times for which tasks sleep"
    )
    chosen = parser.parse_args()
    count = chosen.count if chosen.count is not None else QUICK_SCANS if chosen.quick else SCANS
    tiny = chosen.tiny if chosen.tiny is not None else QUICK_TINY if chosen.quick else TINY
    empty = in_fresh_process(empty_scans, count, chosen.durations) if count else None
    with folder_for(chosen.scans) as folder:
        real = in_fresh_process(tiny_scans, tiny, folder) if tiny else None
    sheet = sheet_of(empty, real)
    sheet.show()
    sheet.save(chosen.out)


def empty_scans(count, share):
    """Submit and collect scans whose tasks do nothing; return times and memory."""
    import lungmix
    from lungmix.cluster import UsageRecorder, map_bounded
    from lungmix.cluster.compute import compute_in_order

    with lungmix.connect(workers=2, memory_limit="1GB") as client:
        ledger = UsageRecorder()
        submitted = 0

        def work(index):
            name = f"case-{index:05d}"
            for shape in STAGES:
                with ledger.measure(name, shape.stage) as measurement:
                    measurement.status = stage(client, compute_in_order, shape, share)
            return name

        marks = Marks(count)
        with ledger.listening(client):
            for _ in map_bounded(range(count), work, 3):
                submitted += 1
                marks.at(submitted)
        held = client.run_on_scheduler(scheduler_state)
        return {"count": count, "share": share, **marks.to_dict(), "scheduler": held,
                "tasks": sum(shape.tasks for shape in STAGES) * count}  # fmt: skip


def stage(client, compute_in_order, shape, share):
    """Run a stage of one scan: a task per slab, one with its neighbours, one task of all slabs, one result per slab."""

    step = partial(dask.delayed(empty), shape.seconds * share)
    if shape.tasks == 1:
        compute_in_order(client, [step()])
        return "done"
    slabs = shape.tasks // 3
    first = [step() for _ in range(slabs)]
    second = [step(*first[max(0, i - 1) : i + 2]) for i in range(slabs)]
    verdict = step(*second)
    compute_in_order(client, [verdict, *(step(verdict, one) for one in second)])
    return "done"


def scheduler_state(dask_scheduler):
    """Return how many objects a scheduler keeps after all work is done."""
    return {
        "tasks": len(dask_scheduler.tasks),
        "groups": len(dask_scheduler.task_groups),
        "prefixes": len(dask_scheduler.task_prefixes),
        "computations": len(dask_scheduler.computations),
        "transition log": len(dask_scheduler.transition_log),
        "events": sum(len(topic.events) for topic in dask_scheduler._broker._topics.values()),
    }


class Marks:
    """Time and memory of this process, which holds client and scheduler, after each part of the scans."""

    def __init__(self, count):
        self._steps = [round(count * part / PARTS) for part in range(1, PARTS + 1)]
        self._start = time.perf_counter()
        self._used = time.process_time()
        self._times, self._cpu, self._sizes = [], [], []
        gc.collect()
        self._first = rss(os.getpid())

    def at(self, done):
        if done in self._steps:
            self._times.append(time.perf_counter() - self._start)
            self._cpu.append(time.process_time() - self._used)
            self._sizes.append(rss(os.getpid()))

    def to_dict(self):
        scans = np.diff([0, *self._steps])
        seconds, used = (np.diff([0, *values]) for values in (self._times, self._cpu))
        return {
            "seconds": self._times[-1],
            "ms per scan": (seconds / scans * 1000).tolist(),
            "cpu ms per scan": (used / scans * 1000).tolist(),
            "sizes": [self._first, *self._sizes],
        }


def tiny_scans(count, folder):
    """Run tiny volumes through the real pipeline, to time the store with its records and listings; return times."""
    import lungmix
    from lungmix.callbacks import Callback
    from lungmix.formats.write import write_image
    from lungmix.geometry import Geometry
    from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
    from lungmix.pipeline import Pipeline

    edge = 24
    geometry = Geometry((edge, edge, edge), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
    sources = folder / f"tiny-{count}"
    sources.mkdir(exist_ok=True)
    random = np.random.default_rng(SEED)
    for index in range(count):
        volume = np.full((edge,) * 3, 40, np.int16)
        for x in (3, 13):
            size = volume[4:20, 5:19, x : x + 8].shape
            volume[4:20, 5:19, x : x + 8] = np.rint(random.normal(-830, 60, size))
        write_image(sources / f"tiny-{index:05d}.mha", [volume], geometry, np.int16)

    class Marking(Callback):
        def __init__(self):
            self.passes = {}

        def on_begin(self, title, cases, sizes=None):
            self._title, self._done, self._many = title, 0, len(cases) > 1
            if self._many:
                self.passes[title] = Marks(len(cases))

        def on_case_end(self, case, failure=None):
            self._done += 1
            if self._many:
                self.passes[self._title].at(self._done)

    callback = Marking()
    with (
        tempfile.TemporaryDirectory(prefix="lungmix-bench-") as store,
        lungmix.connect(workers=2, memory_limit="1GB") as client,
    ):
        cohort = lungmix.open_cohort(Path(store) / "s.zarr", "a")
        mask, fit = MaskParameters("paper", opening=1, min_voxels=500, radii=(2,)), FitParameters(fit="paper")
        pipeline = Pipeline(client, cohort, callback)
        start = time.perf_counter()
        report = pipeline.run([sources], mask=mask, fit=fit, intake=IntakeParameters())
        seconds = time.perf_counter() - start
        assert len(report.done) == count, report.failed
        passes = {title: marks.to_dict() for title, marks in callback.passes.items()}
        start = time.perf_counter()
        again = pipeline.run([sources], mask=mask, fit=fit, intake=IntakeParameters())
        kept = time.perf_counter() - start
        assert len(again.done) == count
    return {"count": count, "seconds": seconds, "again": kept, "passes": passes}


def sheet_of(empty, real):
    tables, checks = [], []
    if empty:
        parts = empty["cpu ms per scan"]
        sizes = empty["sizes"]
        tables.append(
            Table(
                f"{empty['count']:,} scans of empty tasks, {empty['tasks']:,} tasks on 2 workers",
                ["part of the run", *(str(i + 1) for i in range(PARTS))],
                [
                    ["ms per scan", *(f"{one:.0f}" for one in empty["ms per scan"])],
                    ["processor ms per scan, scheduler and client", *(f"{one:.0f}" for one in parts)],
                    ["scheduler and client, MiB", *(f"{one / MIB:.0f}" for one in sizes[1:])],
                ],
                f"{empty['count'] / empty['seconds']:.1f} scans and {empty['tasks'] / empty['seconds']:,.0f} tasks per "
                "second; afterwards the scheduler keeps "
                + ", ".join(f"{value:,} {name}" for name, value in empty["scheduler"].items()),
            )
        )
        checks += [
            Check(
                "empty tasks: processor time of a scan, last tenth of scans over the first tenth",
                parts[-1] / parts[0],
                1.1,
                "x",
                False,
            ),
            Check("empty tasks: processor time of a scan, mean", float(np.mean(parts)), LIMIT_MS, "ms", False),
            Check(
                "empty tasks: wall-clock time of a scan, mean",
                float(np.mean(empty["ms per scan"])),
                LIMIT_MS,
                "ms",
                False,
            ),
            Check(
                "empty tasks: growth of memory, last tenth of scans minus the second tenth",
                (sizes[-1] - sizes[2]) / MIB,
                50,
                "MiB",
                False,
            ),
        ]
    if real:
        rows = [
            [f"{title}, {kind}", *(f"{one:.0f}" for one in found[kind]), f"{found['sizes'][-1] / MIB:.0f}"]
            for title, found in real["passes"].items()
            if title in ("mask", "label")
            for kind in ("ms per scan", "cpu ms per scan")
        ]
        tables.append(
            Table(
                f"{real['count']} volumes of 24 x 24 x 24 voxels through the real pipeline and store",
                ["pass", *(str(i + 1) for i in range(PARTS)), "MiB at its end"],
                rows,
                f"{1000 * real['seconds'] / real['count']:.0f} ms per scan in all; a second run, which keeps "
                f"everything, {1000 * real['again'] / real['count']:.0f} ms per scan",
            )
        )
        for title in ("mask", "label"):
            parts = real["passes"][title]["cpu ms per scan"]
            ratio = np.mean(parts[-2:]) / np.mean(parts[2:4])
            figure = "processor time of a scan, last fifth of scans over the third and fourth tenth"
            checks.append(Check(f"{title} of tiny volumes: {figure}", ratio, 1.1, "x", False))
    return Sheet("simulate_scale", tables, checks, {"empty": empty, "real": real})


if __name__ == "__main__":
    main()
