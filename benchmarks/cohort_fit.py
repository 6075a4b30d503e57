"""Measure the fit of a cohort of the paper's size: 62 scans with 390 million lung voxels of the published mixture.

Run it as ``python benchmarks/cohort_fit.py``. It prints, for this machine:

- the fits ``paper`` and ``converged`` of the counts that the mixture predicts, with their errors against the truth;
- the same for counts of voxels that are drawn one by one;
- bootstrap intervals over scans, and how often they contain the truth in cohorts whose scans differ;
- the time of a fit without one of the scans, from the counts in a store;
- the time of the robustness study.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.special import ndtr

import lungmix
from lungmix.analysis.bootstrap import bootstrap
from lungmix.analysis.robustness import study
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED, fit_converged, fit_paper
from lungmix.parameters import FITS, FitParameters
from lungmix.pipeline import Pipeline
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.fit import HU, add_counts, fit_counts
from lungmix.store import CohortWriter
from lungmix.webpage.curves import bootstrap_figure, fits_figure, robustness_figure
from lungmix.webpage.figures import png_of

WEIGHTS = np.array(PUBLISHED.weights) / sum(PUBLISHED.weights)
MEANS, SDS = np.array(PUBLISHED.means), np.sqrt(PUBLISHED.variances)
BLOCK = 1 << 22


@contextmanager
def clock(what):
    start = time.perf_counter()
    yield
    print(f"  {what}: {time.perf_counter() - start:.2f} s", flush=True)


def probabilities():
    """Return the probability of each rounded HU by each component: shape (65536, 5)."""
    edges = (HU[:, None] + np.array([-0.5, 0.5])[:, None, None] - MEANS) / SDS
    return ndtr(edges[1]) - ndtr(edges[0])


def draw_scan(random, voxels):
    """Return the histogram of voxels that are drawn one by one and not kept."""
    counts = np.zeros(65536, np.int64)
    for k, n in enumerate(random.multinomial(voxels, WEIGHTS)):
        while n > 0:
            size = min(n, BLOCK)
            hu = random.standard_normal(size, np.float32) * np.float32(SDS[k]) + np.float32(MEANS[k])
            counts += np.bincount(np.rint(hu).astype(np.int64) + 32768, minlength=65536)
            n -= size
    return counts.astype(np.uint64)


def errors(name, model):
    means = np.abs(np.array(model.means) - MEANS)
    weights = np.abs(np.array(model.weights) - WEIGHTS)
    consolidation = model.means[3] - MEANS[3]
    print(
        f"  {name:9}: largest error of a mean {means.max():8.3f} HU, of a weight {weights.max():.6f}; "
        f"consolidation {consolidation:+.2f} HU; {model.fit_info['n_iter']} iterations"
    )


def both(counts, clip, what):
    print(f"{what}, {'not clipped' if clip is None else f'clipped at {clip} HU'}")
    present = counts > 0
    with clock("paper"):
        paper = fit_paper(HU[present], counts[present], clip=clip)
    with clock("converged"):
        converged = fit_converged(HU[present], counts[present], [paper], clip=clip)
    errors("paper", paper)
    errors("converged", converged)
    return converged


def truth():
    """Return the true values in the order of the intervals: weights, means, standard deviations, thresholds."""
    return np.concatenate([WEIGHTS, MEANS, SDS, PUBLISHED.map_thresholds()])


def covered(result):
    return np.array([i.low <= t <= i.high for i, t in zip(result.intervals, truth(), strict=False)])


def scans_that_differ(scans, voxels, seed):
    """Return histograms of scans whose weights differ; the expected weights are the true ones."""
    random, table, counts = np.random.default_rng([7, seed]), probabilities(), {}
    for i in range(scans):
        expected = table @ random.dirichlet(30 * WEIGHTS)
        counts[f"case-{i + 1:03d}"] = random.multinomial(voxels, expected / expected.sum()).astype(np.uint64)
    return counts


def coverage(cohorts, scans, voxels):
    hits = []
    for seed in range(cohorts):
        counts = scans_that_differ(scans, voxels, seed)
        hits.append(covered(bootstrap(counts, FitParameters(fit="converged"), seed=seed)))
    return np.mean(hits, axis=0)


def draw(counts, folder, refits):
    """Draw the pictures of the documentation."""
    folder.mkdir(parents=True, exist_ok=True)
    pooled = add_counts(counts)
    figures = {
        "fits": fits_figure(fit_counts(pooled, FitParameters()), pooled, -1000),
        "robustness": robustness_figure(study(counts, FitParameters())),
        "bootstrap": bootstrap_figure(bootstrap(counts, FitParameters(fit="converged"), refits=refits)),
    }
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(png_of(figure, 90))


def store_of(counts, folder):
    """Return a store that has the histograms of cases and no images."""
    cohort = lungmix.open_cohort(folder / "cohort.zarr", "a")
    for name, one in counts.items():
        case = CohortWriter(cohort).add(name, Geometry((512, 512, 800), (0.7, 0.7, 0.4)), Acquisition())
        case.write_histogram("hu_counts", one)
        case.record("mask", {"key": name})
    return cohort


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=62)
    parser.add_argument("--voxels", type=int, default=390_000_000)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument(
        "--cohorts", type=int, default=20, help="number of simulated cohorts that test the coverage of intervals"
    )
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of the documentation")
    chosen = parser.parse_args()
    exact = chosen.voxels * (probabilities() @ WEIGHTS)
    both(exact, None, "Exact expected counts")
    both(exact, -1000, "Exact expected counts")

    random = np.random.default_rng(1)
    with clock(f"{chosen.voxels:,} voxels drawn over {chosen.scans} scans and counted"):
        each = chosen.voxels // chosen.scans
        counts = {f"case-{i + 1:03d}": draw_scan(random, each) for i in range(chosen.scans)}
    pooled = add_counts(counts)
    both(pooled, None, "Voxels drawn")
    both(pooled, -1000, "Voxels drawn")

    print("Bootstrap over scans, clipped at -1000 HU")
    with clock(f"{chosen.refits} refits"):
        result = bootstrap(counts, FitParameters(fit="converged"), refits=chosen.refits)
    for interval, value in zip(result.intervals, truth(), strict=False):
        inside = "" if interval.low <= value <= interval.high else "  truth is outside"
        print(
            f"  {interval.name:9} {interval.of:24} {interval.estimate:12.5f}  "
            f"[{interval.low:12.5f}, {interval.high:12.5f}]  truth {value:12.5f}{inside}"
        )
    if chosen.cohorts:
        with clock(f"coverage in {chosen.cohorts} cohorts whose scans differ"):
            share = coverage(chosen.cohorts, chosen.scans, each)
        for name, part in (("weights", share[:5]), ("means", share[5:10]), ("sds", share[10:15]), ("MAP", share[15:])):
            print(f"  95 % intervals cover the truth: {name} {100 * part.mean():.0f} %")

    print("A store of counts")
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(None, store_of(counts, Path(folder)))
        for what, exclude_cases in (("all scans", ()), ("one scan left out", ("case-001",)), ("and back", ())):
            with clock(f"all fits, diagnosis, comparison, {what}"):
                pipeline.fit(fit=FitParameters(fit="paper"), exclude_cases=exclude_cases)
        with clock("the same again, nothing changed"):
            pipeline.fit(fit=FitParameters(fit="paper"))
    differing = scans_that_differ(chosen.scans, each, 0)
    print(f"Robustness study of {chosen.scans} scans that differ")
    with clock("all groups, all fits"):
        rows = study(differing, FitParameters()).rows
    for row in rows:
        shown = ", ".join(f"{name} {100 * row[f'{name}.distance']:.2f} %" for name in FITS)
        print(f"  {row['size']:3} scans: mean distance between groups: {shown}")
    if chosen.pictures:
        draw(differing, chosen.pictures, chosen.refits)


if __name__ == "__main__":
    main()
