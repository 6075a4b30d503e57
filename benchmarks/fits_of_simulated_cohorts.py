"""Fit simulated cohorts and report how far lung involvement and means are from the truth, and which checks fail.

Run it as ``python benchmarks/fits_of_simulated_cohorts.py``. It prints the table of docs/diagnosis.md, and the table of
strengths of the prior in docs/fitting.md. The truth is the
published mixture; the weights of each scan are drawn about its weights. The error of the lung involvement is the
difference between the involvement by labels of the fit and by labels of the truth, on the same voxels. It is printed
for the pooled voxels, and for the scan where it is largest.
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
    """Return the densities of the published mixture unchanged."""
    return shares


def with_table(shares, scan, scans):
    """Return densities in which 15 % of the voxels are air outside the body."""
    low, high = ((HU + shift + 995) / 15 for shift in (-0.5, 0.5))
    return 0.85 * shares + 0.15 * (ndtr(high) - ndtr(low))


def mixed_kernels(shares, scan, scans):
    """Return densities with noise of 60 HU for every second scan, as by a sharp kernel."""
    return gaussian_filter1d(shares, 60) if scan % 2 else shares


def one_clipped(shares, scan, scans):
    """Return densities that are clipped at -950 and 50 HU for the first scan."""
    if scan:
        return shares
    clipped = np.where((HU >= -950) & (HU <= 50), shares, 0)
    clipped[HU == -950] += shares[HU < -950].sum()
    clipped[HU == 50] += shares[HU > 50].sum()
    return clipped


SHIFTED_PRIOR = "means 25 HU too high"
SHIFTED = f"anchored at {SHIFTED_PRIOR}"
STRENGTHS = 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0
PRIORS = {
    "published": PUBLISHED,
    "means 25 HU too high": replace(PUBLISHED, means=tuple(mean + 25 for mean in PUBLISHED.means)),
    "means 25 HU too low": replace(PUBLISHED, means=tuple(mean - 25 for mean in PUBLISHED.means)),
    "equal weights": replace(PUBLISHED, weights=(0.2,) * 5),
}
COHORTS = {"plain": plain, "table": with_table, "mixed kernels": mixed_kernels, "one clipped": one_clipped}


def counts_of(change, scans, seed):
    """Return the histogram of each scan by its name, clipped at -1024 HU as by scanners."""
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
    """Return for each scan the lung involvement by a model minus that by the true mixture, percentage points."""
    return [involvement(model, histogram) - involvement(PUBLISHED, histogram) for histogram in counts.values()]


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| cohort | scans | fit | LI, pooled | LI, worst scan | largest error of a mean, HU | failed checks |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    worst = dict.fromkeys([*FITS, SHIFTED], 0.0)
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
            model = fit_anchored(HU, pooled, [fits.converged, fits.paper], prior=PRIORS[SHIFTED_PRIOR], clip=-1000)
            worst[SHIFTED] = max(worst[SHIFTED], *map(abs, errors_of(model, counts)))
    print("largest error of a scan:", ", ".join(f"{fit} {value:.1f}" for fit, value in worst.items()))
    print_strengths()


def print_strengths() -> None:
    """Print the largest error of the lung involvement of a scan, by the strength and the centre of the prior."""
    cohorts = [counts_of(change, scans, seed=scans) for change in COHORTS.values() for scans in SIZES]
    starts = []
    for counts in cohorts:
        fits = fit_counts(add_counts(counts), FitParameters())
        starts.append([fits.converged, fits.paper])
    print("| strength |", " | ".join(PRIORS), "|")
    print("| --- |", " | ".join(["---"] * len(PRIORS)), "|")
    for strength in STRENGTHS:
        cells = []
        for prior in PRIORS.values():
            errors = [
                max(map(abs, errors_of(model, counts)))
                for counts, others in zip(cohorts, starts, strict=True)
                for model in [fit_anchored(HU, add_counts(counts), others, prior=prior, strength=strength, clip=-1000)]
            ]
            cells.append(f"{max(errors):.1f} ({np.mean(errors):.1f})")
        print(f"| {strength:g} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
