"""Measure what lung zones add to the labels of a scan.

The labels of one phantom are written again and again, in turn without zones, with zones, and without zones before the
stage that makes zones of kept labels. One worker with one thread in this process computes them, so the processor time
is that of the process. Every figure is the median of the rounds.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import lungmix
from figures import Check, Sheet, Table, parser_for
from lungmix.kernels.compile import compile_kernels
from lungmix.mixture import PUBLISHED
from lungmix.parameters import MaskParameters
from lungmix.pipeline import Pipeline
from lungmix.stages.base import StageContext
from lungmix.stages.label import LabelStage
from lungmix.stages.lung_zones import ZoneStage
from lungmix.store import CaseWriter
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for
from shares import cluster

BY = "volume"
LABELS, TOGETHER, AFTER = "labels", "labels and zones", "zones of kept labels"
# With the preset anatomical, regions are written with the mask; with physical, they are written with labels.
COMPUTED = {"anatomical": ("zone", "label"), "physical": ("zone", "label", "side")}
MOST_PERCENT = 15


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--source", type=Path, metavar="SCAN", help="measure this scan in place of a phantom")
    parser.add_argument("--rounds", type=int, default=11, metavar="N", help="number of rounds, by default 11")
    chosen = parser.parse_args()
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        source = chosen.source or cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, 1)[0]
        sheet = measure(source, Path(folder), 2 if chosen.quick else chosen.rounds)
    sheet.show()
    sheet.save(chosen.out)


def measure(source, folder, rounds):
    compile_kernels()
    rows, checks = [], []
    for preset in COMPUTED:
        with cluster() as client:
            cohort = lungmix.open_cohort(folder / f"{preset}.zarr", "a")
            report = Pipeline(client, cohort).run([source], mask=MaskParameters(preset), model="published")
            assert not report.failed, report.failed
            spent = seconds_of(client, cohort, COMPUTED[preset], rounds)
        for what, index in (("elapsed", 0), ("processor", 1)):
            seconds = {name: median(pair[index] for pair in pairs) for name, pairs in spent.items()}
            added = 100 * (seconds[TOGETHER] / seconds[LABELS] - 1)
            after = 100 * seconds[AFTER] / seconds[LABELS]
            numbers = [f"{seconds[name]:.2f}" for name in (LABELS, TOGETHER, AFTER)]
            rows.append([f"{preset}, {what}", *numbers, f"{added:.0f}", f"{after:.0f}"])
            checks.append(
                Check(f"zones, {preset}, {what} time beside that of labels", added, MOST_PERCENT, "%", at_least=False)
            )
    columns = ["preset and time", *(f"{name}, s" for name in (LABELS, TOGETHER, AFTER)), "added, %", "added later, %"]
    return Sheet("lung_zones", [Table("Lung zones beside labels", columns, rows)], checks)


def seconds_of(client, cohort, computed, rounds):
    """Return, for each kind of work, elapsed and processor seconds of each round."""
    (name,) = cohort
    spent = defaultdict(list)

    def clock(kind, stage):
        start, used = time.perf_counter(), time.process_time()
        status = stage.run(StageContext(client, cohort), name)
        spent[kind].append((time.perf_counter() - start, time.process_time() - used))
        assert status == "done"

    def drop():
        for stage in computed:
            CaseWriter(cohort[name]).drop_stage(stage)

    for _ in range(rounds):
        drop()
        clock(LABELS, LabelStage(PUBLISHED, "published"))
        clock(AFTER, ZoneStage(BY))
        drop()
        clock(TOGETHER, LabelStage(PUBLISHED, "published", zones=BY))
    return spent


if __name__ == "__main__":
    main()
