"""Compare strata of a simulated cohort in which every second scan has the noise of a sharp kernel.

Run it as ``python benchmarks/strata_of_kernels.py``. It prints the numbers of the section on groups of scans in
docs/fitting.md: lung involvement of both groups by their own fit, by the fit of all scans, and by the mixture from
which the voxels of the group are drawn; distances between fits, and between fits of random groups of as many scans.
With ``--picture FILE`` it draws the picture of that section.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import lungmix
from fits_of_simulated_cohorts import counts_of, mixed_kernels
from lungmix.analysis.comparison import involvement
from lungmix.analysis.robustness import study as random_groups
from lungmix.analysis.strata import study
from lungmix.geometry import Geometry
from lungmix.mixture import PUBLISHED
from lungmix.parameters import FITS, FitParameters
from lungmix.privacy.acquisition import Acquisition
from lungmix.stages.fit import add_counts
from lungmix.store import CohortWriter
from lungmix.webpage.figures import png_of
from lungmix.webpage.strata_figure import strata_figure

KERNELS = "B31f", "B70f"
NOISE_HU = 60
TRUTH = {
    KERNELS[0]: PUBLISHED,
    KERNELS[1]: replace(PUBLISHED, variances=tuple(v + NOISE_HU**2 for v in PUBLISHED.variances)),
}


def store_of(counts, folder):
    """Return a store with the histograms of scans of both kernels, in turn, and no images."""
    cohort = lungmix.open_cohort(folder / "cohort.zarr", "a")
    for scan, (name, histogram) in enumerate(counts.items()):
        acquisition = Acquisition("CT", kernel=KERNELS[scan % 2])
        case = CohortWriter(cohort).add(name, Geometry((512, 512, 300), (0.7, 0.7, 1.0)), acquisition)
        case.write_histogram("hu_counts", histogram)
        case.record("mask", {"key": name})
    return cohort


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=62)
    parser.add_argument("--refits", type=int, default=200)
    parser.add_argument("--picture", type=Path, help="PNG file for the figure of the fit converged")
    chosen = parser.parse_args()
    counts = counts_of(mixed_kernels, chosen.scans, seed=0)
    names = list(counts)
    for number, kernel in enumerate(KERNELS):
        pooled = add_counts({name: counts[name] for name in names[number::2]})
        print(f"{kernel}: lung involvement by the truth {involvement(TRUTH[kernel], pooled):.1f} %")
    with tempfile.TemporaryDirectory() as folder:
        cohort = store_of(counts, Path(folder))
        for fit in FITS:
            start = time.perf_counter()
            result = study(cohort, ["kernel"], FitParameters(fit=fit), refits=chosen.refits)
            print(f"{fit}, {time.perf_counter() - start:.1f} s")
            for stratum in [*result.groups, result.everything]:
                texts = [
                    f"{i.estimate:.1f} ({i.low:.1f} to {i.high:.1f})"
                    for i in (stratum.own_involvement, stratum.pooled_involvement)
                ]
                doubtful = ", doubtful" if stratum.is_doubtful else ""
                print(f"  {stratum.group.name}: own {texts[0]}, of all {texts[1]}{doubtful}")
            print(f"  distance {100 * result.distances[0]['distance']:.1f} %")
            if chosen.picture and fit == "converged":
                chosen.picture.write_bytes(png_of(strata_figure(result), 90))
    (row,) = random_groups(counts, FitParameters(), sizes=[chosen.scans // 2], groups=6).rows
    shown = ", ".join(f"{name} {100 * row[f'{name}.largest']:.1f} %" for name in FITS)
    print(f"largest distance between 6 random groups, which share {row['shared']:.0f} % of their scans: {shown}")


if __name__ == "__main__":
    main()
