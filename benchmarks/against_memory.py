"""Compare the whole job, the mask and the median with a program that computes the same method in memory.

The whole job is the command ``lungmix run STORE scan... --preset paper --model published --workers 2``. Every run
starts Python and a new cluster, and at its end all results are in the store. Kernels were compiled when lungmix was
installed.
The other program is ``in_memory.py``, one process that takes one scan after another. Both read the same compressed NRRD
files. All results are compared voxel for voxel before any figure is printed.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from figures import Check, Sheet, Table, parser_for
from lungmix.kernels.compile import compile_kernels
from processes import MIB, in_fresh_process, lungmix, python
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for

HERE = Path(__file__).parent
JOB = ("--preset", "paper", "--model", "published")
IMAGES = {"lung": "lung", "tissue": "tissue", "median": "tissue_median"}


def main():
    chosen = parser_for(__doc__).parse_args()
    shape = QUICK_SHAPE if chosen.quick else SHAPE
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        sheet = measure(cohort_of(scans, shape), Path(folder))
    sheet.show()
    sheet.save(chosen.out)


def measure(paths, folder):
    compile_kernels()
    store, masks, results = folder / "run.zarr", folder / "mask.zarr", folder / "in_memory"
    ours = lungmix("run", store, *paths, *JOB, "--workers", 2, "--quiet", "--keep-names")
    idle = lungmix("run", store, *paths, *JOB, "--workers", 2, "--quiet")
    lungmix("convert", masks, *paths, "--workers", 2, "--quiet", "--keep-names")
    mask_command = lungmix("mask", masks, "--preset", "paper", "--workers", 2, "--quiet")
    theirs = python(HERE / "in_memory.py", results, *paths)
    steps = json.loads(theirs.output)
    kernels = in_fresh_process(time_kernels, paths, results)
    compare(store, masks, paths, results)
    mask, median = (sum(one["s"] for one in steps[name].values()) for name in ("mask", "median"))
    mask_cpu, median_cpu = (sum(one["cpu"] for one in steps[name].values()) for name in ("mask", "median"))
    shape = " x ".join(map(str, sitk_shape(paths[0])))
    rows = [
        row("whole job: `lungmix run`, 2 workers", theirs.seconds, ours.seconds, theirs.cpu, ours.cpu),
        row("mask alone: `lungmix.lung_mask` of an array", mask, kernels["mask"], mask_cpu, kernels["mask cpu"]),
        row("mask alone: `lungmix mask`, 2 workers", mask, mask_command.seconds, mask_cpu, mask_command.cpu),
        row("median alone: `lungmix.median_labels`", median, kernels["median"], median_cpu, kernels["median cpu"]),
    ]
    start = (
        f"`lungmix run` of a cohort that is done takes {idle.seconds:.1f} s ({idle.cpu:.1f} cpu s): "
        "the start and end of Python and the cluster."
    )
    memory = [
        ["in memory", f"{theirs.largest / MIB:,.0f}", f"{theirs.peak / MIB:,.0f}"],
        ["lungmix run", f"{ours.largest / MIB:,.0f}", f"{ours.peak / MIB:,.0f}"],
    ]
    title = f"{len(paths)} scans of {shape} in compressed NRRD"
    return Sheet(
        "against_memory",
        [
            Table(
                title, ["", "in memory, s", "lungmix, s", "ratio", "in memory, cpu s", "lungmix, cpu s"], rows, start
            ),
            Table(
                "Time of each step in memory, seconds per scan",
                ["scan", *(step for step in steps)],
                [[path.stem, *(f"{seconds[path.name]['s']:.1f}" for seconds in steps.values())] for path in paths],
            ),
            Table("Peak of resident memory, MiB", ["", "largest process", "all processes together"], memory),
        ],
        [
            Check("whole job against memory", theirs.seconds / ours.seconds, 10),
            Check("mask of an array against memory", mask / kernels["mask"], 8),
            Check("mask on the cluster, started cold, against memory", mask / mask_command.seconds, 8),
            Check("median against scipy", median / kernels["median"], 15),
        ],
    )


def time_kernels(paths, results):
    """Return the seconds of the mask and the median of arrays in memory; check their results."""
    import lungmix

    compile_kernels()
    spent = dict.fromkeys(("mask", "mask cpu", "median", "median cpu"), 0.0)

    def clock(name, function, value):
        start, cpu = time.perf_counter(), time.process_time()
        result = function(value)
        spent[name] += time.perf_counter() - start
        spent[f"{name} cpu"] += time.process_time() - cpu
        return result

    for path in paths:
        hu = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        same(clock("mask", lungmix.lung_mask, hu), load(results, path, "lung"), f"mask of {path.name}")
        median = clock("median", lungmix.median_labels, load(results, path, "tissue"))
        same(median, load(results, path, "median"), f"median of {path.name}")
    return spent


def compare(store, masks, paths, results):
    """Raise AssertionError unless the stores equal the results of the program in memory, voxel for voxel."""
    import lungmix

    whole, masked = lungmix.open_cohort(store), lungmix.open_cohort(masks)
    for path in paths:
        name = path.stem
        for image, array in IMAGES.items():
            same(whole[name].zarr_array(array)[:], load(results, path, image), f"{array} of {name}")
        same(masked[name].zarr_array("lung")[:], load(results, path, "lung"), f"mask alone of {name}")
        counts = np.bincount(
            sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[load(results, path, "lung") > 0].astype(np.intp) + 32768,
            minlength=65536,
        )
        same(whole[name].hu_counts, counts, f"counts of {name}")


def load(results, path, image):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(results / f"{path.stem}-{image}.nrrd")))


def same(ours, theirs, what):
    assert np.array_equal(ours, theirs), f"{what} differs from the method in memory"
    assert ours.any(), f"{what} is empty: the comparison shows nothing"


def row(what, theirs, ours, their_cpu, our_cpu):
    return [
        what,
        f"{theirs:.1f}",
        f"{ours:.2f}",
        f"{theirs / ours:.1f}",
        f"{their_cpu:.1f}",
        f"{our_cpu:.1f}",
    ]


def sitk_shape(path):
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader.GetSize()[::-1]


if __name__ == "__main__":
    main()
