"""Measure how histograms of many cases are pooled: time, and memory of client and workers, for 1,000 and 10,000 cases.

The store holds the records and histograms of scans of 6 million lung voxels, but no voxels. It has 62 different scans,
written as the stages write them; the files of the other cases are hard links to these, so that each case is opened and
read from files of its own name. Each run has a new process and, unless the client pools, a new cluster of two workers.
Resident memory of client and workers is sampled twenty times a second, with the scheduler in the client.

The histograms are pooled twice: each voxel counts alike (for the fit ``paper``), and each scan counts alike (for the
others). The benchmark stops if workers and client find different sums. It also times ``Pipeline.fit`` with all fits,
checks and the comparison of fits by case, and, for 62 scans, the study of strata.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from figures import Check, Sheet, Table, parser_for
from processes import MIB, Watch, cpu_seconds, in_fresh_process

SCANS = 62
CASES = (1_000, 10_000)
QUICK_CASES = (130, 200)
VOXELS = 6_000_000
TURNS = 3
REFITS = {2: TURNS, 200: 1}
"""Turns of the study of strata by the number of refits."""


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", help=f"numbers of cases, by default {CASES}")
    chosen = parser.parse_args()
    sizes = sorted(chosen.cases or (QUICK_CASES if chosen.quick else CASES))
    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        stores = {cases: Path(folder) / f"{cases}.zarr" for cases in (SCANS, *sizes)}
        in_fresh_process(write_stores, stores, VOXELS // (100 if chosen.quick else 1))
        runs = []
        for cases in sizes:
            for workers in (0, 2):
                figures = in_fresh_process(measure, stores[cases], workers)
                runs.append({"cases": cases, "workers": workers, **figures})
                print(f"{cases} cases, {workers} workers: {figures['seconds']:.1f} s", file=sys.stderr, flush=True)
            assert runs[-1]["digest"] == runs[-2]["digest"], "workers and client found different sums"
        small = in_fresh_process(study_small_cohort, stores[SCANS])
    sheet = sheet_of(runs, small)
    sheet.show()
    sheet.save(chosen.out)


def write_stores(stores, voxels):
    """Write a store of different scans, and stores whose further cases are hard links to its files."""
    import lungmix
    from lungmix.geometry import Geometry
    from lungmix.kernels.plausibility import summarize
    from lungmix.mixture import PUBLISHED
    from lungmix.privacy.acquisition import Acquisition
    from lungmix.stages.fit import HU
    from lungmix.store import CohortWriter

    weights, means, sds = np.array(PUBLISHED.weights), np.array(PUBLISHED.means), np.sqrt(PUBLISHED.variances)
    densities = np.exp(-0.5 * ((HU[:, None] - means) / sds) ** 2) / sds
    # The whole scan has soft tissue and air too, which its summary says.
    body = np.exp(-0.5 * ((HU - 40.0) / 20) ** 2) + np.exp(-0.5 * ((HU + 1000.0) / 10) ** 2)
    random = np.random.default_rng(1)
    first = stores[SCANS]
    cohort = lungmix.open_cohort(first, "a")
    for number in range(SCANS):
        expected = densities @ random.dirichlet(30 * weights / weights.sum())
        counts = random.multinomial(voxels, expected / expected.sum()).astype(np.uint64)
        summary = summarize(counts + (voxels * body / body.sum()).astype(np.uint64))
        acquisition = Acquisition(kernel=("B30f", "B70f")[number % 2])
        case = CohortWriter(cohort).add(f"case-{number:05d}", Geometry((512, 512, 300), (0.7, 0.7, 1.0)), acquisition)
        case.record("convert", {"key": f"convert-{number}", "hu": summary.to_dict()})
        files = case.write_histogram("hu_counts", counts)
        case.record("mask", {"key": f"mask-{number}", "files": files})
    names = sorted(cohort)
    for cases, store in stores.items():
        if store == first:
            continue
        lungmix.open_cohort(store, "a")
        for number in range(cases):
            link_tree(first / names[number % SCANS], store / f"case-{number:05d}")


def link_tree(source, target):
    """Make a folder with hard links to the files of another."""
    for folder, _, files in os.walk(source):
        copy = target / Path(folder).relative_to(source)
        copy.mkdir(parents=True)
        for file in files:
            (copy / file).hardlink_to(Path(folder) / file)


def measure(store, workers):
    """Return the time and the peaks of pooling, and the time of the whole fit, with or without workers."""
    import lungmix

    if not workers:
        return pool_and_fit(store, None)
    with lungmix.connect(workers=workers, memory_limit="1.5GB") as client:
        return pool_and_fit(store, client)


def pool_and_fit(store, client):
    import lungmix
    from lungmix.parameters import FitParameters
    from lungmix.pipeline import Pipeline
    from lungmix.stages.pool import pool_cohort

    cohort = lungmix.open_cohort(store, "r+")
    names = list(cohort)
    pids = [] if client is None else list(client.run(os.getpid).values())
    pool_cohort(cohort, names[:130], FitParameters(), client)  # workers import and compile what they need
    watch = Watch([*pids, os.getpid()])
    watch.start()
    used = [cpu_seconds(part) for part in ([os.getpid()], pids)]
    start = time.perf_counter()
    sums = pool_cohort(cohort, names, FitParameters(weigh="scans"), client)
    seconds = time.perf_counter() - start
    cpu = [cpu_seconds(part) - before for part, before in zip(([os.getpid()], pids), used, strict=True)]
    watch.stop()
    fit_watch = Watch([*pids, os.getpid()])
    fit_watch.start()
    start = time.perf_counter()
    result = Pipeline(client, cohort).fit()
    fit_seconds = time.perf_counter() - start
    fit_watch.stop()
    assert not result.failed, result.failed
    assert len(result.comparison.involvement) == len(names) + 1
    return {
        "seconds": seconds,
        "cpu": cpu,
        "fit": fit_seconds,
        "client": watch.peaks[os.getpid()],
        "peaks": [watch.peaks[pid] for pid in pids],
        "fit client": fit_watch.peaks[os.getpid()],
        "fit peaks": [fit_watch.peaks[pid] for pid in pids],
        "digest": hashlib.sha256(b"".join(histogram.tobytes() for histogram in sums)).hexdigest(),
    }


def study_small_cohort(store):
    """Return seconds and processor seconds of all fits of a cohort of the publication's size, and of its strata."""
    import lungmix
    from lungmix.analysis.strata import study
    from lungmix.parameters import FitParameters
    from lungmix.pipeline import Pipeline

    pipeline = Pipeline(None, lungmix.open_cohort(store, "r+"))
    names = list(pipeline.cohort)
    pipeline.fit(cases=names[:20])  # compiles the kernels
    seconds = {}

    def clock(what, function, *args, **options):
        start, used = time.perf_counter(), time.process_time()
        result = function(*args, **options)
        turn = time.perf_counter() - start, time.process_time() - used
        seconds[what] = min(seconds.get(what, turn), turn)
        return result

    for _ in range(TURNS):
        pipeline.fit(exclude_cases=names[:1])  # so that the next fit is computed
        assert clock("fits", pipeline.fit).comparison.diagnosis
    for refits, turns in REFITS.items():
        for _ in range(turns):
            parameters = FitParameters(fit="converged")
            clock(f"strata {refits}", study, pipeline.cohort, ["kernel"], parameters, refits=refits)
    return seconds


def sheet_of(runs, small):
    rows = [
        [
            f"{one['cases']:,}",
            f"{one['workers']} workers" if one["workers"] else "the client",
            f"{one['seconds']:.1f}",
            *(f"{value:.1f}" for value in one["cpu"]),
            f"{one['client'] / MIB:.0f}",
            ", ".join(f"{size / MIB:.0f}" for size in one["peaks"]) or "-",
            f"{one['fit']:.1f}",
            ", ".join(f"{size / MIB:.0f}" for size in (one["fit client"], *one["fit peaks"])),
        ]
        for one in runs
    ]
    pooling = Table(
        "Histograms pooled for all fits",
        [
            "cases",
            "pooled by",
            "s",
            "cpu s of the client",
            "cpu s of the workers",
            "peak of the client, MiB",
            "peak of each worker, MiB",
            "`Pipeline.fit`, s",
            "peaks of client and workers, MiB",
        ],
        rows,
    )
    cohort = Table(
        f"{SCANS} scans, in the client, the fastest of {TURNS} turns",
        ["", "s", "cpu s"],
        [
            [what, *(f"{value:.2f}" for value in small[key])]
            for what, key in (
                ("three fits, their checks, and their comparison by case", "fits"),
                *((f"strata of two kernels, {refits} refits of each group", f"strata {refits}") for refits in REFITS),
            )
        ],
    )
    by_run = {(one["cases"], one["workers"]): one for one in runs}
    smallest, largest = min(one["cases"] for one in runs), max(one["cases"] for one in runs)
    few, many = by_run[smallest, 2], by_run[largest, 2]
    peaks = [max(one["client"], one["fit client"]) for one in (few, many)]
    worker_peaks = [max(*one["peaks"], *one["fit peaks"]) for one in (few, many)]
    over = f"at {largest:,} cases over that at {smallest:,}"
    with_strata = small["fits"][1] + small[f"strata {min(REFITS)}"][1]
    checks = [
        Check(f"histograms of {largest:,} cases pooled on 2 workers", many["seconds"], 60, "s", False),
        Check(f"peak of the client {over}", peaks[1] / peaks[0], 1.1, at_least=False),
        Check(f"peak of a worker {over}", worker_peaks[1] / worker_peaks[0], 1.1, at_least=False),
        Check(f"fits, checks and comparison of {SCANS} scans", small["fits"][1], 3, "cpu s", False),
        Check(f"the same with strata, {min(REFITS)} refits of each group", with_strata, 3, "cpu s", False),
    ]  # fmt: skip
    return Sheet("pooling", [pooling, cohort], checks, {"runs": runs, "small": small})


if __name__ == "__main__":
    main()
