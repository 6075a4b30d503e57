"""Measure the time of labels under a Potts prior against that of the labels alone, on the same scans and workers.

Scans are converted and masked, and right and left lung are found, before the measurements. Then the stage ``label``
runs on copies of the store, alternately without and with ``smooth="potts"``, on one worker. A ratio is the processor
time of worker and client with the prior over that without it. Labels under the prior include the other label maps. The
first turn is not counted, as the worker loads its kernels in it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from figures import Check, Sheet, Table, parser_for
from masks import watching
from processes import MIB, in_fresh_process
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for

TURNS = 3
SLICES = (100, 400)
QUICK_SLICES = (40,)
CHOICES = ("none", "potts")


def main():
    chosen = parser_for(__doc__).parse_args()
    plane = (QUICK_SHAPE if chosen.quick else SHAPE)[1:]
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        runs = []
        for slices in QUICK_SLICES if chosen.quick else SLICES:
            (path,) = cohort_of(scans, (slices, *plane), 1)
            runs += in_fresh_process(measure, path, Path(folder) / str(slices), 1 if chosen.quick else TURNS)
            print(f"{path.name} is measured", file=sys.stderr, flush=True)
    sheet = sheet_of(runs)
    sheet.show()
    sheet.save(chosen.out)


def measure(path, folder, turns):
    """Return the figures of each turn of the stage, without and with the prior."""
    import lungmix
    from lungmix.parameters import FitParameters, MaskParameters
    from lungmix.pipeline import Pipeline

    runs = []
    with lungmix.connect(workers=1, memory_limit="2GB") as client:
        store = folder / "masked.zarr"
        pipeline = Pipeline(client, lungmix.open_cohort(store, "a"))
        for result in (
            pipeline.convert([path]),
            pipeline.mask(MaskParameters("physical")),
            pipeline.fit(fit=FitParameters(pool="lungs")),  # finds right and left lung
            pipeline.fit("published"),
        ):
            assert not result.failed, result.failed
        pids = [*client.run(os.getpid).values(), os.getpid()]
        for turn in range(turns + 1):
            for smooth in CHOICES:
                copy = folder / f"{smooth}-{turn}.zarr"
                shutil.copytree(store, copy)
                cohort = lungmix.open_cohort(copy, "r+")
                with watching(pids) as figures:
                    result = Pipeline(client, cohort).label(smooth=smooth)
                assert not result.failed, result.failed
                (case,) = cohort.values()
                voxels = int(case.hu_counts.sum())
                shutil.rmtree(copy)
                if turn:
                    slices = case.geometry.shape[0]
                    runs.append({"slices": slices, "smooth": smooth, "voxels": voxels, **figures})
    return runs


def sheet_of(runs):
    rows, ratios = [], []
    for slices in sorted({one["slices"] for one in runs}):
        parts = {
            smooth: [one for one in runs if (one["slices"], one["smooth"]) == (slices, smooth)] for smooth in CHOICES
        }
        cpu = {smooth: sum(one["cpu"] for one in part) / len(part) for smooth, part in parts.items()}
        seconds = {smooth: sum(one["seconds"] for one in part) / len(part) for smooth, part in parts.items()}
        ratios.append(cpu["potts"] / cpu["none"])
        voxels = parts["potts"][0]["voxels"]
        rows.append(
            [
                f"{slices:,}",
                f"{voxels / 1e6:.1f}",
                *(f"{cpu[smooth]:.2f}" for smooth in CHOICES),
                *(f"{seconds[smooth]:.2f}" for smooth in CHOICES),
                f"{1e9 * (cpu['potts'] - cpu['none']) / voxels:.0f}",
                ", ".join(f"{max(one['peak'] for one in parts[smooth]) / MIB:.0f}" for smooth in CHOICES),
                f"{ratios[-1]:.2f}",
            ]
        )
    table = Table(
        f"The stage `label` without and with a Potts prior, one worker, mean of {len(runs) // 2 // len(rows)} turns",
        [
            "slices",
            "million lung voxels",
            "labels, cpu s",
            "with the prior, cpu s",
            "labels, s",
            "with the prior, s",
            "prior, ns per lung voxel",
            "peaks of the worker, MiB",
            "ratio",
        ],
        rows,
    )
    check = Check("labels with a Potts prior over labels, largest ratio", max(ratios), 3, at_least=False)
    return Sheet("potts", [table], [check], {"runs": runs})


if __name__ == "__main__":
    main()
