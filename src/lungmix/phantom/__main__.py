"""Write a cohort of phantoms: ``python -m lungmix.phantom FOLDER``."""

from __future__ import annotations

import argparse

from lungmix.phantom.cohort import Cohort, write_cohort
from lungmix.phantom.scene import TRAPS


def main() -> None:
    """Parse the command line and write a cohort."""
    parser = argparse.ArgumentParser(prog="python -m lungmix.phantom", description="Write chest phantoms as CT files.")
    parser.add_argument("folder")
    parser.add_argument("--scans", type=int, default=3)
    parser.add_argument("--shape", type=int, nargs=3, default=(240, 320, 320), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.12, 1.12, 1.0), metavar=("X", "Y", "Z"), help="mm")
    parser.add_argument("--format", default="nrrd", choices=("nrrd", "nii.gz", "mha", "dicom", "mixed"))
    parser.add_argument("--traps", nargs="*", default=(), choices=sorted(TRAPS))
    parser.add_argument("--followups", type=int, default=0, metavar="N", help="second scans of the first N patients")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    traps = frozenset(chosen.traps)
    shape, spacing = tuple(chosen.shape), tuple(chosen.spacing)
    cohort = Cohort(chosen.scans, chosen.seed, shape, spacing, traps, chosen.followups)
    for path in write_cohort(chosen.folder, cohort, chosen.format):
        print(path)


if __name__ == "__main__":
    main()
