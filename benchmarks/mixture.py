"""Compare the mixture with scikit-learn's: ratios of times, differences of log-likelihood, peaks of memory.

Usage: ``python benchmarks/mixture.py [counts|rows|minibatch|iterations]...``; without a name, all parts run. Both use
the same two cores: scikit-learn by its own threads, lungmix by histograms in this process or by two workers of a
cluster.
"""

from __future__ import annotations

import sys
import time
import warnings

import dask.array as da
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as Reference

import lungmix
from lungmix import GaussianMixture
from lungmix.phantom import Cohort

PUBLISHED = lungmix.load_model("published")


def clock(function):
    """Return the result of a function and its seconds."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def hu_voxels(n, seed=0):
    """Return integer HU drawn from the published model."""
    random = np.random.default_rng(seed)
    weights = np.array(PUBLISHED.weights) / sum(PUBLISHED.weights)
    component = random.choice(5, n, p=weights)
    hu = random.normal(np.array(PUBLISHED.means)[component], np.sqrt(PUBLISHED.variances)[component])
    return np.maximum(np.rint(hu), -1000).astype(np.int16)


def counts():
    """Fit 5 components to 10 million integers from 6 starts."""
    hu = hu_voxels(10_000_000)
    GaussianMixture(5, random_state=0).fit(hu[:1000])
    ours, seconds = clock(lambda: GaussianMixture(5, n_init=6, random_state=0).fit(hu))
    tight, tight_seconds = clock(lambda: GaussianMixture(5, n_init=6, random_state=0, tol=1e-9, max_iter=2000).fit(hu))
    theirs, reference = clock(lambda: Reference(5, n_init=6, random_state=0).fit(hu[:, None].astype(np.float64)))
    wide = hu[:, None].astype(np.float64)
    print(
        f"counts: scikit-learn {reference:.1f} s, ours {seconds:.3f} s, ratio {reference / seconds:.0f}; "
        f"log-likelihood higher by {ours.score(hu) - theirs.score(wide):.2e}"
    )
    print(
        f"counts: all six starts to tol 1e-9 in {tight_seconds:.2f} s, {tight.n_iter_} iterations of the best; "
        f"log-likelihood higher by {tight.score(hu) - theirs.score(wide):.2e}"
    )


def float_rows(chunks, rows):
    """Return rows of five groups in three dimensions, generated on the workers."""
    centres = np.random.default_rng(0).normal(size=(5, 3)) * 4

    def make(block_info=None):
        random = np.random.default_rng([1, block_info[None]["chunk-location"][0]])
        return centres[random.integers(5, size=rows)] + random.normal(size=(rows, 3)) * (0.7, 1.0, 1.5)

    return da.map_blocks(make, chunks=((rows,) * chunks, (3,)), dtype=np.float64, meta=np.empty((0, 0)))


def peaks(client):
    """Return the peak of resident memory of each worker, MiB."""
    found = client.run(lambda dask_worker: max(dask_worker.monitor.quantities["memory"]))
    return ", ".join(f"{value / 2**20:.0f}" for value in found.values())


def rows():
    """Fit 5 million rows of 3 features on 2 workers."""
    x = float_rows(20, 250_000).compute(scheduler="synchronous")
    random = np.random.default_rng(1)
    start = {
        "weights_init": np.full(5, 0.2),
        "means_init": x[random.choice(len(x), 5)],
        "precisions_init": np.stack([np.eye(3)] * 5),
    }
    rules = {"tol": 0.0, "max_iter": 10, "random_state": 0}
    theirs, reference = clock(lambda: Reference(5, **rules, **start).fit(x))
    theirs_whole, reference_whole = clock(lambda: Reference(5, n_init=1, random_state=0).fit(x))
    with lungmix.connect(workers=2, memory_limit="1GB") as client:
        lazy = float_rows(20, 250_000).persist()
        GaussianMixture(5, max_iter=1, n_init=1, tol=np.finfo(float).max).fit(lazy)
        rest = peaks(client)
        ours, seconds = clock(lambda: GaussianMixture(5, **rules, **start).fit(lazy))
        whole, seconds_whole = clock(lambda: GaussianMixture(5, n_init=1, random_state=0).fit(lazy))
        six, seconds_six = clock(lambda: GaussianMixture(5, n_init=6, random_state=0).fit(lazy))
        peak = peaks(client)
        spilled = sum(client.run(lambda dask_worker: dask_worker.data.spilled_total.disk).values())
    apart = max(
        float(np.max(np.abs(getattr(ours, name) / getattr(theirs, name) - 1)))
        for name in ("weights_", "means_", "covariances_")
    )
    print(
        f"rows: 10 iterations from one start: scikit-learn {reference:.1f} s, ours on 2 workers {seconds:.2f} s, ratio "
        f"{reference / seconds:.1f}; parameters differ by {apart:.1e} relative"
    )
    print(
        f"rows: whole fit, 1 start: scikit-learn {reference_whole:.1f} s, ours {seconds_whole:.2f} s, ratio "
        f"{reference_whole / seconds_whole:.1f}; log-likelihood higher by "
        f"{whole.lower_bound_ - theirs_whole.lower_bound_:.1e}"
    )
    print(f"rows: whole fit, 6 starts in the same passes: {seconds_six:.2f} s, {six.n_iter_} iterations of the best")
    print(
        f"rows: peak of each worker {peak} MiB, of which {x.nbytes / 2**21:.0f} data; before {rest}; spilled {spilled}"
    )
    _, seconds_alone = clock(lambda: GaussianMixture(5, **rules, **start).fit(x))
    print(f"rows: without a cluster, in this process: {seconds_alone:.2f} s, ratio {reference / seconds_alone:.1f}")


def minibatch():
    """Fit the pooled lung voxels of a phantom cohort by minibatches, with one chunk per scan."""
    voxels = []
    for patient in Cohort(16, seed=1):
        hu, truth = patient.phantom.volume(), patient.phantom.truth()
        voxels.append(np.maximum(hu[truth > 0], -1000).astype(np.int16))
    pooled = np.concatenate(voxels)
    lazy = da.from_array(pooled, chunks=(tuple(len(v) for v in voxels),))
    full = GaussianMixture(5, random_state=0).fit(pooled)
    best = GaussianMixture(5, random_state=0, tol=1e-8, max_iter=5000).fit(pooled)
    for passes in (1, 2):
        fitted, seconds = clock(
            lambda passes=passes: GaussianMixture(5, random_state=0, batch_size=5_000, max_iter=passes).fit(lazy)
        )
        gap, gap_tight = (fitted.score(pooled) - other.score(pooled) for other in (full, best))
        print(
            f"minibatch: {len(pooled):,} voxels of {len(voxels)} scans, {passes} passes of 5,000 a step in "
            f"{seconds:.1f} s: log-likelihood less that of the full batch at tol 1e-3 "
            f"{gap:+.1e}, at tol 1e-8 {gap_tight:+.1e}"
        )


def iterations():
    """Time three iterations over 500,000 rows in one process, for several numbers of features and covariance types."""
    for d in (1, 2, 3, 8, 16, 32):
        x = np.random.default_rng(0).normal(size=(500_000, d))
        for covariance_type in ("full", "tied", "diag", "spherical"):
            rules = {"tol": 0.0, "max_iter": 3, "init_params": "random_from_data", "n_init": 1, "random_state": 0}
            GaussianMixture(5, covariance_type, **rules).fit(x[:2000])
            _, seconds = clock(lambda: GaussianMixture(5, covariance_type, **rules).fit(x))  # noqa: B023
            _, reference = clock(lambda: Reference(5, covariance_type=covariance_type, **rules).fit(x))  # noqa: B023
            ratio = reference / seconds
            print(f"iterations: d = {d}, {covariance_type}: {reference:.2f} s / {seconds:.2f} s = {ratio:.1f}")


def main():
    warnings.simplefilter("ignore", ConvergenceWarning)
    parts = {"counts": counts, "rows": rows, "minibatch": minibatch, "iterations": iterations}
    for name in sys.argv[1:] or parts:
        parts[name]()


if __name__ == "__main__":
    main()
