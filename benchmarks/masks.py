"""Measure the preset ``anatomical`` compared with ``physical``, and the comparison of masks with reference masks.

Presets: the whole job with the published model runs on scans of different patients in compressed NRRD, with the two
presets alternately. Each job has a new process and a cluster of one worker. Processor seconds are those of the client
and the worker.

Comparison: `lungmix.evaluate` compares both lungs and each lung of one scan of 512 x 512 pixels, masked with the preset
``physical``, on a worker of 1 GiB. The reference is right and left lung of the preset ``anatomical`` as a compressed
NRRD on the grid of the scan. For the shortest scan, a process that holds both masks in memory computes the same with
scipy; the results must be equal.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from figures import Check, Sheet, Table, parser_for
from processes import MIB, Watch, cpu_seconds, in_fresh_process
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for, long_scan

SLICES = (248, 827, 1251)
QUICK_SLICES = (64, 160)
PRESETS = ("physical", "anatomical")
TURNS = 2
MEASURES = ("dice", "jaccard", "asd_mm", "hd95_mm", "hd_mm", "surface_dice_1mm", "surface_dice_3mm")
WORKER = "1GiB"


def main():
    chosen = parser_for(__doc__).parse_args()
    slices = QUICK_SLICES if chosen.quick else SLICES
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as made:
        cohort = cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE)
        jobs = [
            {"preset": preset, **in_fresh_process(job, preset, cohort)}
            for _ in range(1 if chosen.quick else TURNS)
            for preset in PRESETS
        ]
        compared = []
        for n in slices:
            store, reference = Path(made) / f"{n}.zarr", Path(made) / f"{n}.nrrd"
            in_fresh_process(prepare, long_scan(scans, n, slices[-1]), store, reference)
            compared.append({"slices": n, **in_fresh_process(compare, store, reference)})
            print(f"{n} slices compared in {compared[-1]['seconds']:.1f} s", file=sys.stderr, flush=True)
            if n == slices[0]:
                memory = in_fresh_process(compare_in_memory, store, reference)
    for row, expected in zip(compared[0]["rows"], memory["rows"], strict=True):
        for name in MEASURES:
            assert abs(row[name] - expected[name]) <= 1e-9 * max(1, abs(expected[name])), (row["region"], name)
    sheet = sheet_of(jobs, compared, memory)
    sheet.show()
    sheet.save(chosen.out)


def job(preset, paths):
    """Return processor seconds and peak of memory of the whole job on a running cluster."""
    import lungmix
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder, lungmix.connect(workers=1) as client:
        pids = [*client.run(os.getpid).values(), os.getpid()]
        with watching(pids) as figures:
            result = Pipeline(client, lungmix.open_cohort(Path(folder) / "s.zarr", "a")).run(
                paths, mask=MaskParameters(preset), model="published"
            )
        assert not result.failed, result.failed
        return figures


def prepare(scan, store, reference):
    """Write the store to compare, and the reference."""
    import lungmix
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    with lungmix.connect(workers=2) as client:
        pipeline = Pipeline(client, lungmix.open_cohort(store, "a"))
        for preset in reversed(PRESETS):
            result = pipeline.run([scan], mask=MaskParameters(preset), model="published")
            assert not result.failed, result.failed
            if not reference.exists():
                (case,) = lungmix.open_cohort(store).values()
                lungmix.export_case(case, reference, "side")


def compare(store, reference):
    """Return rows, time and peak of memory of the comparison on one running worker."""
    import lungmix

    with lungmix.connect(workers=1, memory_limit=WORKER) as client:
        before = client.run(os.getpid)
        with watching([*before.values(), os.getpid()]) as figures:
            result = lungmix.evaluate(store, reference, what="lungs", client=client)
        assert not result.failed, result.failed
        assert client.run(os.getpid) == before, "the worker was restarted"
    return {**figures, "rows": [{name: row[name] for name in ("region", *MEASURES)} for row in result.rows]}


def compare_in_memory(store, reference):
    """Return rows, time and peak of memory of the same comparison by scipy on whole volumes."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import SimpleITK as sitk

    import lungmix
    from oracle.agreement import agreement

    (case,) = lungmix.open_cohort(store).values()
    with watching([os.getpid()]) as figures:
        side, other = case.side.compute(), sitk.GetArrayFromImage(sitk.ReadImage(str(reference)))
        rows = []
        for region, labels in (("lungs", (1, 2)), ("right", (1,)), ("left", (2,))):
            measures = agreement(np.isin(side, labels), np.isin(other, labels), case.geometry.spacing_zyx)
            rows.append({"region": region, **measures})
    return {**figures, "rows": rows}


@contextmanager
def watching(pids):
    """Yield a dict; after the block it has seconds, processor seconds, and the peak of memory of the first process."""
    figures = {}
    watch = Watch(pids)
    watch.start()
    used, start = cpu_seconds(pids), time.perf_counter()
    yield figures
    figures |= {"seconds": time.perf_counter() - start, "cpu": cpu_seconds(pids) - used}
    watch.stop()
    figures["peak"] = watch.peaks[pids[0]]


def sheet_of(jobs, compared, memory):
    presets = Table(
        "The whole job by preset, one worker",
        ["preset", "s", "cpu s", "peak of the worker, MiB"],
        [[one["preset"], *cells(one)] for one in jobs],
    )
    rows = [[f"{one['slices']:,}", f"lungmix, a worker of {WORKER}", *cells(one)] for one in compared]
    rows.insert(1, [f"{compared[0]['slices']:,}", "scipy on whole volumes", *cells(memory)])
    comparison = Table(
        "Comparing a mask with another: both lungs, right and left lung",
        ["slices of 512 x 512", "by", "s", "cpu s", "peak, MiB"],
        rows,
    )
    first, second = ([one for one in jobs if one["preset"] == preset] for preset in PRESETS)
    cpu, peak = sum(one["cpu"] for one in second), max(one["peak"] for one in second)
    last = compared[-1]
    checks = [
        Check("`anatomical` over `physical`: cpu s", cpu / sum(one["cpu"] for one in first), 1.5, at_least=False),
        Check("`anatomical` over `physical`: peak", peak / max(one["peak"] for one in first), 1.1, at_least=False),
        Check(f"comparison of {last['slices']:,} slices, peak", last["peak"] / MIB, 1024, "MiB", at_least=False),
    ]
    return Sheet("masks", [presets, comparison], checks, {"jobs": jobs, "compared": compared, "memory": memory})


def cells(figures):
    return [f"{figures['seconds']:.1f}", f"{figures['cpu']:.1f}", f"{figures['peak'] / MIB:.0f}"]


if __name__ == "__main__":
    main()
