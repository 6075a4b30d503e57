"""Check whether lungmix has problems that were reported for other packages of out-of-core arrays.

dask-image 391: the graph of labels of 5120 x 5120 x 5120 voxels did not fit into memory. Measured here: time and memory
to build and optimize the graph of a lung mask of that size, each time in a new process.

dask 11934: ``map_overlap`` raises an error if the depth is larger than the array. Checked here: a closing by a ball of
radius 30 on a scan of 24 slices.

dask 3671: ``map_overlap`` takes many times the memory of ``map_blocks``. Measured here: the peak of a worker that
computes the mask of one scan. It is compared with the memory model, and with the closings alone, by our slabs and by
``map_overlap`` with the same kernel.

distributed 3898: the memory of the scheduler keeps growing. Measured here: the memory of a scheduler in its own process
while 200 small scans are processed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import dask.array as da
import numpy as np

from figures import Check, Sheet, Table, parser_for
from processes import MIB, Watch, in_fresh_process, rss
from scans import QUICK_SHAPE, SHAPE, cohort_of, folder_for

EDGE = 5120
CHUNKS = ((512, 512, 512), (128, 128, 128), (64, EDGE, EDGE))
LIMIT = "2GB"


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--small-scans", type=int, default=200, metavar="N", help="number of small scans")
    chosen = parser.parse_args()
    sheet = Sheet("complaints")
    with folder_for(chosen.scans) as scans:
        graphs(sheet, chosen.quick)
        depth(sheet)
        overlap(sheet, cohort_of(scans, QUICK_SHAPE if chosen.quick else SHAPE, 1)[0])
        scheduler(sheet, 20 if chosen.quick else chosen.small_scans)
    sheet.show()
    sheet.save(chosen.out)


def graphs(sheet, quick):
    """Add a table with the seconds and the memory to build graphs."""
    rows = []
    for chunks in CHUNKS:
        if quick and chunks == CHUNKS[1]:
            continue
        figures = in_fresh_process(build_mask, EDGE, chunks)
        rows.append(graph_row(f"lungmix: mask of {EDGE}³, chunks of {' x '.join(map(str, chunks))}", figures))
        what = f"graph of {EDGE}³, chunks of {' x '.join(map(str, chunks))}"
        sheet.checks.append(Check(f"{what}: seconds", figures["seconds"], 30, "s", at_least=False))
        sheet.checks.append(Check(f"{what}: memory", figures["peak"] / 1e9, 2, "GB", at_least=False))
    for edge in (1536,) if quick else (2048, 2560):
        figures = in_fresh_process(build_label, edge, 512)
        rows.append(graph_row(f"dask-image: label of {edge}³, chunks of 512³", figures))
    sheet.tables.append(Table("Building a graph", ["", "blocks", "tasks", "optimised", "s", "peak, MB"], rows))


def build_mask(edge, chunks):
    import lungmix

    return build(lambda: lungmix.lung_mask(da.zeros((edge,) * 3, chunks=chunks, dtype=np.int16)), edge, chunks)


def build_label(edge, chunk):
    from dask_image.ndmeasure import label

    return build(lambda: label(da.zeros((edge,) * 3, chunks=chunk, dtype=bool))[0], edge, (chunk,) * 3)


def build(function, edge, chunks):
    """Return the number of tasks, seconds and peak of memory of a graph that is built, materialized and optimized."""
    start, blocks = time.perf_counter(), int(np.prod([-(-edge // chunk) for chunk in chunks]))
    watch = Watch([os.getpid()])
    watch.start()
    array = function()
    tasks = len(dict(array.__dask_graph__()))
    (optimised,) = dask.optimize(array)
    left = len(dict(optimised.__dask_graph__()))
    watch.stop()
    seconds = time.perf_counter() - start
    return {"blocks": blocks, "tasks": tasks, "left": left, "seconds": seconds, "peak": max(watch.peaks.values())}


def graph_row(what, figures):
    return [
        what,
        f"{figures['blocks']:,}",
        f"{figures['tasks']:,}",
        f"{figures['left']:,}",
        f"{figures['seconds']:.1f}",
        f"{figures['peak'] / 1e6:,.0f}",
    ]


def depth(sheet):
    """Add a table on a halo that is deeper than the scan."""
    import lungmix
    from lungmix.phantom import Phantom

    hu = Phantom((24, 128, 128), (2.8, 2.8, 12.5), 1).volume()
    lazy = da.from_array(hu, chunks=(5, 64, 64))
    ours = lungmix.lung_mask(lazy, min_voxels=1000).compute()
    assert np.array_equal(ours, lungmix.lung_mask(hu, min_voxels=1000)), "the mask depends on the chunks"
    assert ours.any(), "no lung was found: the comparison shows nothing"
    try:
        da.map_overlap(lambda x: x, lazy, depth=60, boundary=0, dtype=np.int16).compute()
        theirs = "works"
    except ValueError as error:
        theirs = str(error).split(".")[0].split("\n")[0]
    rows = [
        ["`lungmix.lung_mask`, chunks of 5 slices", "equal to the whole array's"],
        ["`da.map_overlap`, depth 60", theirs],
    ]
    sheet.tables.append(Table("24 slices, a closing by a ball of radius 30", ["", "outcome"], rows))


def overlap(sheet, path):
    """Add a table with peaks of workers: for the mask by slabs, and for closings by overlapping blocks."""
    from lungmix.graphs import memory
    from lungmix.kernels.mask import recipe_for
    from lungmix.parameters import MaskParameters

    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as folder:
        store = Path(folder) / "s.zarr"
        shape, stored, voxels = in_fresh_process(converted, path, store)
        _, ny, nx = shape
        halo = recipe_for(MaskParameters("paper"), None).halo
        thick = max(memory.mask_chunks(stored, ny, nx, halo, None))
        model = memory.worker_bytes(
            max(memory.mask_task_bytes(thick, ny, nx, halo), memory.voxel_task_bytes(max(stored), ny, nx))
        )
        slabs = in_fresh_process(peak_of, mask_of, store)
        blocks = in_fresh_process(peak_of, closings_of, store)
        naive = in_fresh_process(peak_of, overlapping_closings_of, store)
    assert slabs[2] == voxels, f"the mask has {slabs[2]} voxels, that in the store {voxels}"
    assert blocks[2] == naive[2] > 0, f"closings over slabs end with {blocks[2]} voxels, over blocks with {naive[2]}"
    rows = [
        ["memory model", f"{model / MIB:.0f}", ""],
        ["the whole mask, `lungmix.lung_mask` of a dask array", f"{slabs[0] / MIB:.0f}", f"{slabs[1]:.1f}"],
        ["closings alone, slabs of packed voxels", f"{blocks[0] / MIB:.0f}", f"{blocks[1]:.1f}"],
        ["closings alone, `da.map_overlap` of 128³ blocks", f"{naive[0] / MIB:.0f}", f"{naive[1]:.1f}"],
    ]
    title = f"Largest worker of 2 with {LIMIT} each, {' x '.join(map(str, shape))} voxels"
    sheet.tables.append(Table(title, ["", "peak, MiB", "s"], rows))
    sheet.checks.append(Check("peak of the mask over the memory model", slabs[0] / model, 1, at_least=False))


def converted(path, store):
    """Convert and mask a scan; return its shape, the slices of each slab, and the voxels of the mask."""
    import lungmix
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    with lungmix.connect(workers=2, memory_limit=LIMIT) as client:
        pipeline = Pipeline(client, lungmix.open_cohort(store, "a"))
        assert not pipeline.convert([path]).failed
        assert not pipeline.mask(MaskParameters("paper")).failed
    (case,) = lungmix.open_cohort(store).values()
    return case.geometry.shape, case.layout.stored, case.stages["mask"]["voxels"]


def peak_of(job, store):
    """Sum a lazy array; return the resident memory of the largest worker meanwhile, the seconds, and the sum."""
    import lungmix

    (case,) = lungmix.open_cohort(store).values()
    with lungmix.connect(workers=2, memory_limit=LIMIT) as client:
        pids = list(client.run(os.getpid).values())
        watch = Watch(pids)
        watch.start()
        start = time.perf_counter()
        total = int(job(case).sum().compute())
        seconds = time.perf_counter() - start
        watch.stop()
        assert list(client.run(os.getpid).values()) == pids, "a worker was restarted"
    return max(watch.peaks.values()), seconds, total


def mask_of(case):
    import lungmix

    return lungmix.lung_mask(case.ct)


def closings_of(case):
    from lungmix.graphs.overlap import map_with_halo
    from lungmix.kernels.packed_masks import pack, words_for
    from lungmix.kernels.structuring_elements import ball

    lung = case.lung
    ny, nx = lung.shape[1:]
    chunks = (lung.chunks[0], (ny,), (words_for(nx),))
    bits = lung.map_blocks(pack, dtype=np.uint64, chunks=chunks, meta=np.empty((0, 0, 0), np.uint64))
    for radius in (30, 20):
        bits = map_with_halo(_close_bits, bits, [(2 * radius,) * 2, (0, 0), (0, 0)], element=ball(radius), nx=nx)
    return bits.map_blocks(_count, dtype=np.int64, chunks=(1, 1, 1), meta=np.empty((0, 0, 0), np.int64))


def overlapping_closings_of(case):
    from lungmix.kernels.structuring_elements import ball

    lung = case.lung.rechunk((128, 128, 128))
    for radius in (30, 20):
        lung = da.map_overlap(_close_bytes, lung, depth=2 * radius, boundary=0, element=ball(radius), dtype=np.uint8)
    return lung


def _close_bits(window, core, element, nx):
    from lungmix.kernels.morphology import closing

    return closing(window, nx, element, (core[0].start, core[0].stop))


def _close_bytes(block, element):
    from lungmix.kernels.morphology import closing
    from lungmix.kernels.packed_masks import pack, unpack

    return unpack(closing(pack(block), block.shape[2], element), block.shape[2])


def _count(bits):
    return np.bitwise_count(bits).sum(dtype=np.int64)[None, None, None]


def scheduler(sheet, scans):
    """Add a table with the memory of the scheduler while small scans are processed."""
    from lungmix.phantom import Phantom, write_phantom

    with tempfile.TemporaryDirectory(prefix="lungmix-bench-") as name:
        folder = Path(name)
        paths = [folder / f"small-{index:03d}.mha" for index in range(scans)]
        for index, path in enumerate(paths):
            write_phantom(path, Phantom((24, 96, 96), (3.75, 3.75, 12.5), index))
        with running_cluster(folder) as (address, pid):
            sizes, client, seconds = in_fresh_process(watched_run, address, pid, paths, folder / "s.zarr")
    steps = [max(1, scans * quarter // 4) for quarter in range(1, 5)]
    rows = [[f"{step:,}", f"{sizes[step - 1] / MIB:.1f}", f"{client[step - 1] / MIB:.1f}"] for step in steps]
    sheet.tables.append(
        Table(
            f"{scans} scans of 24 x 96 x 96 in {seconds:.0f} s",
            ["scans done", "scheduler, MiB", "client, MiB"],
            rows,
            f"Before the first scan the scheduler had {sizes[-1] / MIB:.1f} MiB.",
        )
    )
    # During the first scans the scheduler imports modules that their tasks need; growth is measured after them.
    what = f"memory of the scheduler after {scans} scans over that after {steps[0]}"
    sheet.checks.append(Check(what, sizes[scans - 1] / sizes[steps[0] - 1], 1.05, at_least=False))
    sheet.data["scheduler"] = sizes


def watched_run(address, pid, paths, store):
    """Run small scans; return the resident memory of the scheduler and of this process after each case, and seconds."""
    import lungmix
    from lungmix.callbacks import Callback
    from lungmix.parameters import MaskParameters
    from lungmix.pipeline import Pipeline

    sizes, own = [], []

    class Sampler(Callback):
        def on_begin(self, title, cases, sizes_of=None):
            # The search for scans has events of its own; only the cases that follow are counted.
            sizes.clear()
            own.clear()

        def on_case_end(self, case, failure=None):
            sizes.append(rss(pid))
            own.append(rss(os.getpid()))

    with lungmix.connect(address) as client:
        client.wait_for_workers(2)
        first, start = rss(pid), time.perf_counter()
        report = Pipeline(client, lungmix.open_cohort(store, "a"), Sampler()).run(
            paths, mask=MaskParameters("physical"), model="published"
        )
        seconds = time.perf_counter() - start
    assert not report.failed, report.failed
    assert len(sizes) == len(paths), "a case was not counted"
    return [*sizes, first], own, seconds


@contextmanager
def running_cluster(folder):
    """Start a scheduler in a separate process and 2 workers; yield its address and its process number."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [sys.executable, "-m", "dask"]
    own = subprocess.Popen([*words, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"], **quiet)
    options = ["--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--memory-limit", LIMIT]
    worker = [*words, "worker", address, *options, "--local-directory", str(folder)]
    workers = [subprocess.Popen(worker, **quiet) for _ in range(2)]
    try:
        time.sleep(5)
        yield address, own.pid
    finally:
        for process in (*workers, own):
            process.terminate()
        for process in (*workers, own):
            process.wait(60)


if __name__ == "__main__":
    main()
