"""Peak memory of each worker over one long scan: 1,251 x 512 x 512 by default, 2 workers of 1.5 GB.

Run it as ``python benchmarks/long_scan.py`` or ``make bench``. It fails if a worker was restarted or spilled.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import psutil

import lungmix
from lungmix.parameters import MaskParameters
from lungmix.phantom import Phantom, write_phantom
from lungmix.pipeline import Pipeline


class Watch(threading.Thread):
    """Samples the resident memory of processes."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.peaks = dict.fromkeys(pids, 0)
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.05):
            for pid in self.peaks:
                try:
                    self.peaks[pid] = max(self.peaks[pid], psutil.Process(pid).memory_info().rss)
                except psutil.NoSuchProcess:
                    continue


def spilled(dask_worker):
    """Bytes that a worker has written to disk for want of memory."""
    return int(sum(dask_worker.data.spilled_total)) if hasattr(dask_worker.data, "spilled_total") else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, nargs="+", default=[248, 1251])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-limit", default="1.5GB")
    parser.add_argument("--extension", default=".nrrd")
    parser.add_argument("--preset", default="paper")
    chosen = parser.parse_args()
    print(f"{'slices':>7} {'s':>7} {'slices/s':>9}  peak of each worker, MiB (start of the run, peak)")
    for slices in chosen.slices:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"long{chosen.extension}"
            write_phantom(path, Phantom((slices, 512, 512), (0.7, 0.7, 300 / slices), 1))
            measure(path, Path(folder) / "s.zarr", slices, chosen)


def measure(path, store, slices, chosen):
    with lungmix.connect(workers=chosen.workers, memory_limit=chosen.memory_limit) as client:
        before = client.run(lambda: __import__("os").getpid())
        rest = {pid: psutil.Process(pid).memory_info().rss for pid in before.values()}
        watch = Watch(before.values())
        watch.start()
        start = time.perf_counter()
        pipeline = Pipeline(client, lungmix.open_cohort(store, "a"))
        report = pipeline.run([path], MaskParameters(chosen.preset), "published")
        seconds = time.perf_counter() - start
        watch.over.set()
        assert not report.failed, report.failed
        after = client.run(lambda: __import__("os").getpid())
        assert after == before, "a worker was restarted"
        on_disk = client.run(spilled)
        assert not any(on_disk.values()), f"workers spilled: {on_disk}"
        peaks = ", ".join(f"({rest[pid] >> 20}, {peak >> 20})" for pid, peak in watch.peaks.items())
        print(f"{slices:7} {seconds:7.1f} {slices / seconds:9.1f}  {peaks}", flush=True)


if __name__ == "__main__":
    main()
