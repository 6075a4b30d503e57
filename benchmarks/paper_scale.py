"""Run a cohort of the publication's size: 62 scans, 51,247 slices of 512 x 512 pixels, on 2 workers of 2 GB.

Scans are generated while the run goes on (see ``streamed.py``), so that the disk never holds more than a few sources,
and the store. All stages run: conversion, masks with the preset ``paper``, the fits of the cohort's own mixture, labels
and regions, measurements, and the comparison with a radiologist's scores. It prints the time of each stage, the
throughput, the peak of memory of every process in each part of the run, the bytes that were written, the fitted and the
true mixture, and the error of the lung involvement. The time begins when the first scan has been generated.

``--fraction 0.1`` runs a tenth of the cohort. A run fails if a worker was restarted or spilled data to disk, or if a
case failed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from figures import Check, Sheet, Table, parser_for
from growth import spilled
from processes import MIB, cpu_seconds, rss
from streamed import Generator, paper_cohort, streamed, write_scores

PARTS = 5
GIB = 1 << 30


def main():
    parser = parser_for(__doc__)
    parser.add_argument("--fraction", type=float, default=1.0, help="fraction of the cohort to run, from 0 to 1")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--folder", type=Path, help="folder for the store and the scans, which are deleted at the end")
    parser.add_argument("--report", action="store_true", help="also write the HTML report")
    parser.add_argument("--keep", action="store_true", help="do not delete the store")
    chosen = parser.parse_args()
    fraction = 0.03 if chosen.quick and chosen.fraction == 1 else chosen.fraction
    folder = Path(tempfile.mkdtemp(prefix="lungmix-paper-", dir=chosen.folder))
    try:
        sheet = run(folder, paper_cohort(fraction), chosen.workers, chosen.memory_limit, page=chosen.report)
    finally:
        if not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
    sheet.show()
    sheet.save(chosen.out)


def run(folder, designs, workers, memory_limit, *, page):
    """Run the whole job on a cohort whose scans are generated meanwhile; return its tables and checks."""
    import lungmix
    from lungmix.parameters import FitParameters, IntakeParameters, MaskParameters
    from lungmix.pipeline import Pipeline

    store, passing = folder / "cohort.zarr", folder / "scans"
    with (
        lungmix.connect(workers=workers, memory_limit=memory_limit) as client,
        Generator(designs, passing) as generator,
    ):
        before = client.run(os.getpid)
        processes = {"client and scheduler": os.getpid(), "generator": generator.pid}
        processes |= {f"worker {i + 1}": pid for i, pid in enumerate(before.values())}
        memory = Memory(processes)
        memory.start()
        used = {name: cpu_seconds([pid]) for name, pid in processes.items() if name != "generator"}
        passes = passes_of(memory)
        generator.wait_for_first()
        start = time.perf_counter()
        sources = [streamed(design, passing) for design in designs]
        cohort = lungmix.open_cohort(store, "a")
        report = Pipeline(client, cohort, passes).run(
            sources,
            mask=MaskParameters("paper"),
            fit=FitParameters(fit="paper"),
            intake=IntakeParameters(keep_names=True),
        )
        seconds = time.perf_counter() - start
        scores = correlate(report.rows, folder, designs)
        if page:
            page = timed(write_the_page, cohort, folder)
        memory.stop()
        used = {name: cpu_seconds([processes[name]]) - before for name, before in used.items()}
        assert not report.failed, report.failed
        assert client.run(os.getpid) == before, "a worker was restarted"
        on_disk = client.run(spilled)
        assert not any(on_disk.values()), f"workers spilled: {on_disk}"
        truth, reading = generator.truth(), generator.reading()
    found = {
        "scans": len(designs),
        "slices": sum(design.slices for design in designs),
        "seconds": seconds,
        "page": page,
        "passes": passes.seconds,
        "stages": {stage: spent.to_dict() for stage, spent in report.spent.items()},
        "cpu": {**used, "generator": sum(one["cpu"] for one in truth)},
        "waited": sum(one["waited"] for one in reading),
        "source bytes": sum(one["bytes"] for one in reading),
        "peaks": memory.peaks(),
        "parts": memory.parts(passes.spans, PARTS),
        "store": sizes(store),
        "mixture": beside_truth(report.fits, truth),
        "cases": involvement(report, designs, truth),
        "scores": scores,
    }
    return sheet_of(found, workers, memory_limit)


def timed(function, *values):
    start = time.perf_counter()
    function(*values)
    return time.perf_counter() - start


def write_the_page(cohort, folder):
    from lungmix.webpage.page import write_page

    write_page(cohort, folder / "page")


class Memory(threading.Thread):
    """Resident memory of processes, sampled ten times a second."""

    def __init__(self, processes, every=0.1):
        super().__init__(daemon=True)
        self._processes, self._every = processes, every
        self._samples = []
        self._over = threading.Event()

    def run(self):
        while not self._over.wait(self._every):
            sample = {}
            for name, pid in self._processes.items():
                try:
                    sample[name] = rss(pid)
                except psutil.Error:
                    sample[name] = 0
            self._samples.append(sample)

    def stop(self):
        self._over.set()
        self.join()

    def peaks(self):
        """Return the peak of memory of each process over the whole run, bytes."""
        return {name: max(sample[name] for sample in self._samples) for name in self._processes}

    def parts(self, spans, count):
        """Return the peaks of each process in equal parts of the time of each stage."""
        found = []
        for title, (first, last) in spans.items():
            edges = np.linspace(first, last, count + 1).astype(int)
            for number, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True), start=1):
                samples = self._samples[low : max(high, low + 1)]
                peaks = {name: max(sample[name] for sample in samples) for name in self._processes}
                found.append({"pass": title, "part": number, "peaks": peaks})
        return found

    @property
    def now(self):
        """Number of samples that were taken."""
        return len(self._samples)


def passes_of(memory):
    """Return a callback that prints what has ended, and times each stage over all cases."""
    from lungmix.cli.progress import Lines

    class Passes(Lines):
        def __init__(self):
            super().__init__(Console(file=sys.stderr, width=150))
            self.seconds, self.spans = {}, {}

        def on_begin(self, title, cases, sizes=None):
            super().on_begin(title, cases, sizes)
            self._now, self._since, self._first = title, time.perf_counter(), memory.now
            # Stages only: not the search for scans before, nor work of the client alone.
            self._many = len(cases) > 1 and title != "scan"

        def on_end(self):
            super().on_end()
            self.seconds[self._now] = time.perf_counter() - self._since
            if self._many:
                self.spans[self._now] = self._first, memory.now

    return Passes()


def correlate(rows, folder, designs):
    """Correlate scores and involvement as in section 3 of the publication; return the result and the seconds."""
    from lungmix.analysis.score_table import join_scores, read_scores
    from lungmix.analysis.scores import study
    from lungmix.errors import UsageError

    start = time.perf_counter()
    write_scores(folder / "scores.csv", designs)
    joined, unscored, unmeasured = join_scores(rows, read_scores(folder / "scores.csv"))
    try:
        result = study(joined, unscored=unscored, unmeasured=unmeasured)
    except UsageError as error:  # a small part of the cohort may have too few scores
        print(error, file=sys.stderr)
        return None
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        **{key: float(getattr(result.all, key)) for key in ("n", "c", "p", "low", "high")},
        "r2": float(result.line.r2),
        "kappa": [getattr(result.agreement.kappa["quadratic"], key) for key in ("value", "low", "high")],
    }


def beside_truth(fits, truth):
    """Return weights, means and standard deviations of two fits and of the true voxels of the lungs."""
    voxels, sums, squares = (np.sum([one[key] for one in truth], axis=0) for key in ("voxels", "sums", "squares"))
    means = sums / voxels
    true = {"weights": voxels / voxels.sum(), "means": means, "sds": np.sqrt(squares / voxels - means**2)}
    found = {"true": {key: values.tolist() for key, values in true.items()}}
    for name in ("paper", "converged"):
        model = fits[name]
        found[name] = {
            "weights": [float(w) for w in model.weights],
            "means": [float(m) for m in model.means],
            "sds": np.sqrt(model.variances).tolist(),
        }
    return found


def involvement(report, designs, truth):
    """Return a row per case with its lung involvement by two fits and its lung volume, measured and true."""
    measured = {row["case"]: row for row in report.rows}
    both = {row["case"]: row for row in report.comparison.involvement}
    cases = []
    for design, one in zip(designs, truth, strict=True):
        voxels = np.array(one["voxels"])
        volume = voxels.sum() * design.geometry.voxel_ml
        row = measured[design.name]
        cases.append(
            {
                "case": design.name,
                "slices": design.slices,
                "score": design.score,
                "true_li": 100 * voxels[2:].sum() / voxels.sum(),
                "li": float(row["lung_involvement"]),
                "li_converged": float(both[design.name]["converged"]),
                "true_ml": float(volume),
                "ml": float(row["lung_ml"]),
            }
        )
    return cases


def sizes(store):
    """Return bytes on disk by image."""
    found = {}
    for root, _, files in os.walk(store):
        inside = Path(root).relative_to(store).parts
        kind = "the rest" if len(inside) < 2 else inside[2] if inside[1] == "labels" and len(inside) > 2 else inside[1]
        kind = "ct" if kind.isdigit() else kind
        found[kind] = found.get(kind, 0) + sum((Path(root) / file).stat().st_size for file in files)
    return found


def sheet_of(found, workers, memory_limit):
    slices, seconds = found["slices"], found["seconds"]
    stages = [
        [
            stage,
            f"{spent['worker_seconds']:,.0f}" if spent["tasks"] else "",
            f"{slices / spent['worker_seconds']:,.0f}" if spent["worker_seconds"] else "",
            f"{spent['tasks']:,}" if spent["tasks"] else "",
            mib(spent["peak_bytes"]) if spent["tasks"] else "",
            "" if spent["tasks"] else f"{spent['seconds']:.1f}",
        ]
        for stage, spent in found["stages"].items()
    ]
    by_stage = Table(
        f"Stages: {found['scans']} scans, {slices:,} slices of 512 x 512 pixels, {workers} workers of {memory_limit}",
        [
            "stage",
            "worker seconds",
            "slices per worker second",
            "tasks",
            "peak, MiB",
            "client alone, s",
        ],
        stages,
    )
    keys = ("true_li", "li", "li_converged", "true_ml", "ml")
    true_li, li, converged, true_ml, ml = (np.array([case[key] for case in found["cases"]]) for key in keys)
    processor = sum(found["cpu"][name] for name in found["cpu"] if name != "generator")
    rows = [
        ["the whole run, s", f"{seconds:,.0f}"],
        *([f"of which {title}: all cases, s", f"{spent:,.1f}"] for title, spent in found["passes"].items()),
        ["slices per second", f"{slices / seconds:,.1f}"],
        ["processor seconds of workers, client and scheduler", f"{processor:,.0f}"],
        ["processor seconds of the generator, on the same cores", f"{found['cpu']['generator']:,.0f}"],
        ["a worker waited for the generator, s", f"{found['waited']:,.1f}"],
        ["sources read, compressed, GiB", f"{found['source bytes'] / GIB:,.2f}"],
        ["store written, GiB", f"{sum(found['store'].values()) / GIB:,.2f}"],
        ["of which " + ", ".join(sorted(found["store"], key=found["store"].get, reverse=True)) + ", GiB",
         ", ".join(f"{size / GIB:.2f}" for size in sorted(found["store"].values(), reverse=True))],
    ]  # fmt: skip
    if found["page"]:
        rows.append(["the page, s", f"{found['page']:,.0f}"])
    rows += [
        *(
            [
                f"error of lung involvement by the fit `{fit}`, percentage points: mean, largest; correlation",
                f"{np.mean(one - true_li):+.2f}, {np.abs(one - true_li).max():.2f}; {correlation(one, true_li)}",
            ]
            for fit, one in (("paper", li), ("converged", converged))
        ),
        ["error of lung volume, percent: mean, largest",
         f"{np.mean(ml / true_ml - 1) * 100:+.2f}, {np.abs(ml / true_ml - 1).max() * 100:.2f}"],
    ]  # fmt: skip
    if found["scores"]:
        one = found["scores"]
        rows.append(
            ["correlation of lung involvement with S, and its 95 % interval",
             f"{one['c']:.3f} ({one['low']:.3f} to {one['high']:.3f})"]
        )  # fmt: skip
        kappa, low, high = one["kappa"]
        rows.append(
            ["quadratic weighted kappa of the computed score and S, and its 95 % interval",
             f"{kappa:.3f} ({low:.3f} to {high:.3f})"]
        )  # fmt: skip
    whole = Table("The run", ["", "measured"], rows)
    names = list(found["peaks"])
    memory = Table(
        f"Peak of resident memory, MiB, in each of {PARTS} parts of the stages mask and label",
        ["process", *(f"{part['pass']} {part['part']}" for part in found["parts"]), "whole run"],
        [[name, *(mib(part["peaks"][name]) for part in found["parts"]), mib(found["peaks"][name])] for name in names],
    )
    mixture = Table(
        "The mixture: weight, mean in HU, standard deviation in HU",
        ["tissue", "true voxels", "fit `converged`", "fit `paper`"],
        [
            [
                tissue,
                *(
                    f"{one['weights'][k]:.4f}, {one['means'][k]:.1f}, {one['sds'][k]:.1f}"
                    for one in (found["mixture"][name] for name in ("true", "converged", "paper"))
                ),
            ]
            for k, tissue in enumerate(("air", "healthy", "GGO", "consolidation", "other"))
        ],
    )
    checks = [Check(f"{found['scans']} scans, {slices:,} slices", seconds / 60, 20 * slices / 51_247, "min", False)]
    for title in dict.fromkeys(part["pass"] for part in found["parts"]):
        for who in ("worker", "client"):
            peaks = [
                max(size for name, size in part["peaks"].items() if name.startswith(who))
                for part in found["parts"]
                if part["pass"] == title
            ]
            grown = max(peaks[-2:]) / max(peaks[:-2])
            what = f"{title}: peak memory of a {who}, last two parts of the pass over the earlier ones"
            checks.append(Check(what, grown, 1.1, "x", False))
    return Sheet("paper_scale", [whole, by_stage, memory, mixture], checks, found)


def correlation(one, other):
    return f"{np.corrcoef(one, other)[0, 1]:.4f}" if len(one) > 2 else "too few scans"


def mib(size):
    return f"{size / MIB:.0f}"


if __name__ == "__main__":
    main()
