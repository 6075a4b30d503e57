"""Compare components and morphology with dask-image: on the same array, chunks and cluster of 2 workers.

The array is the air of a phantom (below -155 HU, opened), with one byte per voxel, in the memory of the workers. Times
include building the graph.

dask-image's ``ndmeasure.label`` computes a volume of labels, of which the maximum is asked for. lungmix packs the
array, makes a table of components and a mask of those that are lung, and counts the voxels of this mask, which is what
the method needs labels for. The time of dask-image does not include the step from its labels to such a mask. Afterwards
the components that both found are compared on whole volumes.

``ndmorph`` of dask-image closes and dilates by a ball of radius 5, only on slices in the middle of the scan, because it
would take too long on all.
"""

from __future__ import annotations

import tempfile
import time

import dask.array as da
import numpy as np
import SimpleITK as sitk
import zarr
from dask_image import ndmeasure, ndmorph
from distributed import wait
from scipy import ndimage

import lungmix
from figures import Check, Sheet, Table, parser_for
from in_memory import islands, lungs_among
from lungmix.graphs.mask import mask_graph
from lungmix.graphs.overlap import map_with_halo
from lungmix.kernels.mask import MaskRecipe
from lungmix.kernels.morphology import closing, dilate
from lungmix.kernels.packed_masks import pack, unpack, words_for
from lungmix.kernels.structuring_elements import ball, diamond
from processes import cpu_seconds
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for

RADIUS = 5
MORPHOLOGY_SLICES = 64
LUNG_VOXELS = 500_000


def main():
    chosen = parser_for(__doc__).parse_args()
    with folder_for(chosen.scans) as scans, tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        path = cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, 1)[0]
        sheet = measure(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), folder, chosen.quick)
    sheet.show()
    sheet.save(chosen.out)


def measure(hu, folder, quick):
    air = ndimage.binary_opening(hu < -155, iterations=3)
    layouts = [("slabs of 64 slices", (64, -1, -1)), ("blocks of 128 x 256 x 256", (128, 256, 256))]
    rows, checks = [], []
    with lungmix.connect(workers=2, memory_limit="4GB") as client:
        pids = list(client.run(lambda: __import__("os").getpid()).values())

        def clock(function):
            start, cpu = time.perf_counter(), cpu_seconds(pids)
            result = function().compute()
            return result, time.perf_counter() - start, cpu_seconds(pids) - cpu

        clock(lambda: components(da.zeros((8, 8, 8), dtype=bool, chunks=4)).sum())
        clock(lambda: ndmeasure.label(da.zeros((8, 8, 8), dtype=bool, chunks=4))[0].max())
        for title, chunks in layouts[:1] if quick else layouts:
            there = held(air, chunks, folder)
            _, ours, our_cpu = clock(lambda x=there: components(x).sum())
            _, theirs, their_cpu = clock(lambda x=there: ndmeasure.label(x)[0].max())
            if title == layouts[0][0]:
                # Not timed: on the whole volume, components from dask-image's labels equal those of lungmix.
                picked = lungs_among(ndmeasure.label(there)[0].compute())
                kept = components(there).compute()
                assert np.array_equal(kept, picked), "the islands differ from those in dask-image's labels"
                assert np.array_equal(kept, islands(air)), "the islands differ from those in memory"
                assert kept.any(), "no island was found: the comparison shows nothing"
            rows.append(row(f"components, {title}", theirs, ours, their_cpu, our_cpu))
            checks.append(Check(f"components against dask-image, {title}", theirs / ours, 3))
            del there
        block = central(islands(air), 16 if quick else MORPHOLOGY_SLICES)
        there = held(block, (len(block) // 2, -1, -1), folder)
        structure = ball(RADIUS).offsets()
        for name, function, kernel in (
            ("closing", ndmorph.binary_closing, closing), ("dilation", ndmorph.binary_dilation, dilate),
        ):  # fmt: skip
            mine, ours, our_cpu = clock(lambda k=kernel: morphology(there, k))
            his, theirs, their_cpu = clock(lambda f=function: f(there, structure))
            assert np.array_equal(mine, his), f"the {name} differs from dask-image's"
            rows.append(row(f"{name} by a ball of {RADIUS}, {len(block)} slices", theirs, ours, their_cpu, our_cpu))
    shape = " x ".join(map(str, air.shape))
    table = Table(
        f"Air of one scan of {shape}, 2 workers",
        ["", "dask-image, s", "lungmix, s", "ratio", "dask-image, cpu s", "lungmix, cpu s"],
        rows,
    )
    return Sheet("against_dask_image", [table], checks)


def held(array, chunks, folder):
    """A dask array whose chunks lie in the memory of the workers."""
    kept = zarr.create_array(folder, data=array, chunks=(16, *array.shape[1:]), overwrite=True)
    there = da.from_array(kept, chunks=chunks).persist()
    wait(there)
    return there


def components(mask):
    """Return the components that are lung as a dask array: without opening and closing, which the mask has too."""
    recipe = MaskRecipe(1, diamond((0, 0, 0)), LUNG_VOXELS, ())
    lung, _ = mask_graph(da.logical_not(mask), recipe)  # the method's air is what lies below a threshold
    return lung


def morphology(mask, kernel):
    """Return a closing or dilation as a dask array with one byte per voxel."""
    ny, nx = mask.shape[1:]
    words = (mask.chunks[0], (ny,), (words_for(nx),))
    bits = mask.map_blocks(pack, dtype=np.uint64, chunks=words, meta=np.empty((0, 0, 0), np.uint64))
    done = map_with_halo(_apply, bits, [(2 * RADIUS,) * 2, (0, 0), (0, 0)], operation=kernel, nx=nx)
    voxels = (done.chunks[0], (ny,), (nx,))
    return done.map_blocks(unpack, nx=nx, dtype=np.uint8, chunks=voxels, meta=np.empty((0, 0, 0), np.uint8))


def _apply(window, core, operation, nx):
    return operation(window, nx, ball(RADIUS), (core[0].start, core[0].stop))


def central(lung, slices):
    """Return slices from the middle, with empty ones at both ends, because the programs treat borders differently."""
    middle, margin = len(lung) // 2, 2 * RADIUS
    block = lung[middle - slices // 2 : middle + slices // 2].copy()
    if slices > 4 * margin:
        block[:margin] = block[-margin:] = False
    else:
        block[: slices // 3] = block[-(slices // 3) :] = False
    return block


def row(what, theirs, ours, their_cpu, our_cpu):
    return [what, f"{theirs:.2f}", f"{ours:.2f}", f"{theirs / ours:.1f}", f"{their_cpu:.1f}", f"{our_cpu:.1f}"]


if __name__ == "__main__":
    main()
