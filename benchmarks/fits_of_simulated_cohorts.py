"""The three fits of simulated cohorts: how far lung involvement and means are from the truth, and which checks fail.

Run it as ``python benchmarks/fits_of_simulated_cohorts.py``. It prints the table of docs/diagnosis.md. The truth is the
published mixture; the weights of a scan vary about its weights. The error of the lung involvement is that of the
fit's labels against the labels of the truth, on the same voxels, pooled and of the scan that differs most.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from lungmix.analysis.comparison import compare, involvement
from lungmix.mixture import PUBLISHED, fit_anchored
from lungmix.parameters import FITS, FitParameters
from lungmix.stages.fit import HU, add_counts, fit_counts

WEIGHTS = np.array(PUBLISHED.weights) / sum(PUBLISHED.weights)
SIZES = 5, 10, 62
VOXELS = 1_000_000
SPREAD = 30
"""Concentration of the Dirichlet distribution of the weights of a scan."""


def plain(shares, scan, scans):
    """As the published mixture."""
    return shares


def with_table(shares, scan, scans):
    """15 % of the voxels are air outside the body."""
    low, high = ((HU + shift + 995) / 15 for shift in (-0.5, 0.5))
    return 0.85 * shares + 0.15 * (ndtr(high) - ndtr(low))


def mixed_kernels(shares, scan, scans):
    """Every second scan has a sharp kernel, which adds noise of 60 HU."""
    return gaussian_filter1d(shares, 60) if scan % 2 else shares


def one_clipped(shares, scan, scans):
    """The first scan is clipped at -950 and 50 HU."""
    if scan:
        return shares
    clipped = np.where((HU >= -950) & (HU <= 50), shares, 0)
    clipped[HU == -950] += shares[HU < -950].sum()
    clipped[HU == 50] += shares[HU > 50].sum()
    return clipped


SHIFTED = "anchored at means 25 HU too high"
COHORTS = {"plain": plain, "table": with_table, "mixed kernels": mixed_kernels, "one clipped": one_clipped}


def counts_of(change, scans, seed):
    """Histograms of scans by name, clipped at -1024 HU as scanners do."""
    random = np.random.default_rng(seed)
    edges = (HU[:, None] + np.array([-0.5, 0.5])[:, None, None] - PUBLISHED.means) / np.sqrt(PUBLISHED.variances)
    densities = ndtr(edges[1]) - ndtr(edges[0])
    out = {}
    for scan in range(scans):
        shares = change(densities @ random.dirichlet(SPREAD * WEIGHTS), scan, scans)
        drawn = random.multinomial(VOXELS, shares / shares.sum()).astype(np.uint64)
        drawn[HU == -1024] += drawn[HU < -1024].sum()
        drawn[HU < -1024] = 0
        out[f"case-{scan + 1:03d}"] = drawn
    return out


def errors_of(model, counts):
    """Lung involvement of each scan less that under the truth."""
    return [involvement(model, histogram) - involvement(PUBLISHED, histogram) for histogram in counts.values()]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| cohort | scans | fit | LI, pooled | LI, worst scan | largest error of a mean, HU | failed checks |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    worst = dict.fromkeys([*FITS, SHIFTED], 0.0)
    shifted = replace(PUBLISHED, means=tuple(mean + 25 for mean in PUBLISHED.means))
    for name, change in COHORTS.items():
        for scans in SIZES:
            counts = counts_of(change, scans, seed=scans)
            pooled = add_counts(counts)
            fits = fit_counts(pooled, FitParameters())
            diagnosis = compare(fits, counts, -1000).diagnosis
            for fit, model in fits.items():
                errors = [
                    involvement(model, histogram) - involvement(PUBLISHED, histogram) for histogram in counts.values()
                ]
                worst[fit] = max(worst[fit], *map(abs, errors))
                failed = sorted({row["check"] for row in diagnosis[fit]["checks"] if row["fails"]})
                mean = np.abs(np.subtract(model.means, PUBLISHED.means)).max()
                print(
                    f"| {name} | {scans} | `{fit}` | {diagnosis[fit]['involvement_shift']:+.1f} | "
                    f"{max(errors, key=abs):+.1f} | {mean:.0f} | {', '.join(failed) or 'none'} |",
                    flush=True,
                )
            model = fit_anchored(HU, pooled, [fits.converged, fits.paper], prior=shifted, clip=-1000)
            worst[SHIFTED] = max(worst[SHIFTED], *map(abs, errors_of(model, counts)))
    print("largest error of a scan:", ", ".join(f"{fit} {value:.1f}" for fit, value in worst.items()))


if __name__ == "__main__":
    main()
